"""Orders of versions: Maven's, semantic versions (npm, Go, Cargo, …) and PEP 440 (Python).

Each is a total order over all texts: what is no version comes first, and equal versions ("1.0" and "1")
stand in the order of their texts, so that a list sorts in one way only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from casfs.layouts import maven_versions

MAX_VERSION = 255
"""Characters; what is longer can be in no name, and is no version."""

_NUMBER = r"(?:0|[1-9][0-9]*)"
_SEMANTIC = re.compile(
    rf"v?({_NUMBER}(?:\.{_NUMBER}){{0,3}})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)
_MAVEN_INTEGRATION = re.compile(r".*(?:^|-)(?:SNAPSHOT|[0-9]{8}\.[0-9]{6}-[0-9]+)", re.ASCII | re.DOTALL)

Key = tuple[bool, Any, str]


@dataclass(frozen=True, slots=True)
class Order:
    """`parse` gives what versions are compared by, None for what is no version; `integration` says whether a
    version is a snapshot, a pre-release or a pseudo-version, which nobody means by "the latest"."""

    name: str
    parse: Callable[[str], Any]
    integration: Callable[[str], bool]

    def key(self, version: str) -> Key:
        """For `sorted` and `max`; never raises."""
        parsed = self.parse(version) if len(version) <= MAX_VERSION else None
        return parsed is not None, () if parsed is None else parsed, version


def _semantic(version: str) -> tuple[tuple[int, ...], tuple[object, ...]] | None:
    """By semver.org; fewer or four numbers, as NuGet and Composer have them, are filled up with zeros."""
    found = _SEMANTIC.fullmatch(version)
    if found is None:
        return None
    numbers = [int(number) for number in found[1].split(".")]
    release = (*numbers, *[0] * (4 - len(numbers)))
    if found[2] is None:
        return release, (1,)
    identifiers = found[2].split(".")
    if not all(identifiers):
        return None
    # Numbers come before words, and fewer identifiers before more.
    ordered = ((0, int(word), "") if word.isdecimal() else (1, 0, word) for word in identifiers)
    return release, (0, *ordered)


def _is_semantic_integration(version: str) -> bool:
    found = _SEMANTIC.fullmatch(version)
    return found is not None and found[2] is not None


def _pep440(version: str) -> Any:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version)
    except InvalidVersion:
        return None


def _is_pep440_integration(version: str) -> bool:
    parsed = _pep440(version)
    return parsed is not None and bool(parsed.is_prerelease)


def _is_maven_integration(version: str) -> bool:
    return _MAVEN_INTEGRATION.fullmatch(version) is not None


ORDERS = {
    order.name: order
    for order in (
        Order("maven", maven_versions.key, _is_maven_integration),
        Order("semver", _semantic, _is_semantic_integration),
        Order("pep440", _pep440, _is_pep440_integration),
    )
}

"""Paths of artifacts as text: what can be one, how a registry spells it, what accompanies it."""

from __future__ import annotations

import re

COMPANIONS = (".md5", ".sha1", ".sha256", ".sha512", ".asc", ".sig", ".sigstore.json")
"""Checksums and signatures beside an artifact, of the artifact or of one another."""

MAX_COMPONENT = 255
MAX_PATH = 4096
"""Bytes, as in Linux."""

_INDEX = "maven-metadata.xml"
_COMPOUND = (".tar", ".pkg.tar", ".jar.pack", ".cpio", ".min", ".d")
_ESCAPED = re.compile(r"!([a-z])")
_NEVER_ESCAPED = re.compile(r"[A-Z]|!(?![a-z])")


def why_not(path: bytes) -> str:
    """Why that is no path of a file in a repository (I9); empty if it is one."""
    # Most paths have no such thing, and are not taken apart.
    if b"//" in path or b"/." in path or path[:1] in (b"", b".", b"/") or path[-1:] == b"/":
        for component in path.split(b"/"):
            if component in (b"", b".", b".."):
                return f"it has a component '{component.decode()}'"
    if b"\0" in path:
        return "it has a NUL character"
    if len(path) > MAX_COMPONENT:
        if len(path) > MAX_PATH:
            return f"it has more than {MAX_PATH} bytes"
        if max(map(len, path.split(b"/"))) > MAX_COMPONENT:
            return f"it has a component of more than {MAX_COMPONENT} bytes"
    return ""


def is_index(path: str) -> bool:
    """A list of versions that a registry keeps among the artifacts, or a companion of one: no artifact."""
    return _INDEX in path and split_companion(path[path.rfind("/") + 1 :])[0] == _INDEX


def split_companion(path: str) -> tuple[str, str]:
    """The path of the artifact that a checksum or a signature belongs to, and the suffix, which is empty for
    other files."""
    if not path.endswith(COMPANIONS):
        return path, ""
    size = len(path)
    for _ in range(2):
        if path.endswith(COMPANIONS, 0, size):
            size -= next(len(suffix) for suffix in COMPANIONS if path.endswith(suffix, 0, size))
    name = path[path.rfind("/", 0, size) + 1 : size]
    return (path[:size], path[size:]) if name not in ("", ".", "..") else (path, "")


def extension_at(path: str) -> int:
    """Where the extension of a file begins if it is a usual one: after the last dot, or a known compound
    (tar.gz); -1 if it is none."""
    dot = path.rfind(".")
    first = path[dot + 1 : dot + 2]
    if dot < 0 or not first or path.find("/", dot) >= 0 or path.find("-", dot) >= 0:
        return -1
    if path.endswith(_COMPOUND, 0, dot) and first not in "0123456789":
        longest = max(len(before) for before in _COMPOUND if path.endswith(before, 0, dot))
        return dot - longest + 1
    return -1 if first in "0123456789" and path[dot:] != ".7z" else dot + 1


def unescape(path: str) -> str | None:
    """Go's module proxies and caches write an upper-case letter as an exclamation mark and the lower-case
    letter; None if the path is not written so."""
    if _NEVER_ESCAPED.search(path):
        return None
    return _ESCAPED.sub(lambda found: found[1].upper(), path) if "!" in path else path


def escape(path: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"!{found[0].lower()}", path)

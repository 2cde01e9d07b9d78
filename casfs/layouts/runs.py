"""One attempt to match a path: the values so far, what was tried in vain, and the steps it took."""

from __future__ import annotations

MAX_STEPS = 20_000
"""Ends of tokens that are tried and positions of automata, for one path: 20 ms at most. Names that people
make need some hundreds."""


class TooManySteps(Exception):
    """The path was made to be slow, or the pattern."""


class Run:
    """One attempt to match `path`.

    `values` are the texts of the tokens, empty for those without; the first of them are TOKENS. `extension`
    is where the extension must begin, -1 for anywhere. `failed` is what was tried in vain, by level.
    """

    __slots__ = ("extension", "failed", "path", "size", "steps", "values")

    def __init__(self, path: str, tokens: int, extension: int) -> None:
        self.path = path
        self.size = len(path)
        self.extension = extension
        self.values = [""] * tokens
        self.steps = 0
        self.failed: dict[int, dict[tuple[int, int], int]] = {}

    def count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise TooManySteps

    def fail(self, level: int, number: int, key: int, value: int) -> None:
        """Remember something for a node, as long as the repeated tokens before it keep their values."""
        self.failed.setdefault(level, {})[number, key] = value

    def failure(self, level: int, number: int, key: int, default: int) -> int:
        """What `fail` remembered."""
        failed = self.failed.get(level)
        return default if failed is None else failed.get((number, key), default)

    def forget(self, level: int) -> None:
        """What depends on repeated tokens from that level on."""
        for known in [known for known in self.failed if known >= level]:
            del self.failed[known]


class Trace(Run):
    """A run that notes how far it came, and what it expected there."""

    __slots__ = ("expected", "furthest")

    def __init__(self, path: str, tokens: int, extension: int) -> None:
        super().__init__(path, tokens, extension)
        self.furthest = -1
        self.expected: list[str] = []

    def reaches(self, at: int, expected: str) -> None:
        if at > self.furthest:
            self.furthest, self.expected = at, []
        if at == self.furthest and expected not in self.expected:
            self.expected.append(expected)

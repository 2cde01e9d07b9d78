"""Layouts: what a person writes down (`Definition`), and what reads and makes paths with it (`Layout`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from casfs.errors import LayoutError
from casfs.layouts import paths
from casfs.layouts.coordinates import Coordinates
from casfs.layouts.expressions import Expression
from casfs.layouts.matching import Matcher
from casfs.layouts.patterns import ROLES, TOKENS, Item, Literal, Part, Pattern, Token, parse_pattern
from casfs.layouts.runs import TooManySteps
from casfs.layouts.versions import ORDERS, Order

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_FIXED = len(TOKENS)


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A layout as it is written down; see `patterns` for the language.

    `descriptor` is tried before `artifact`; empty if the layout has none. `folder_integration` and
    `file_integration` are the expressions of [folderItegRev] and [fileItegRev]. `roles` names the tokens that
    stand for the mandatory ones ({"org": "scope"}), or says that there is none ({"org": ""}).
    `versions` is the order of its revisions, a key of `versions.ORDERS`. `integrations` is false where every
    path has an integration revision, so that having one does not make a snapshot.
    `escape_upper_case`: paths are written as Go's module proxies do, !a for A.
    """

    name: str
    artifact: str
    descriptor: str = ""
    folder_integration: str = ".*"
    file_integration: str = ".*"
    roles: Mapping[str, str] = {}
    versions: str = "maven"
    integrations: bool = True
    escape_upper_case: bool = False


class Layout:
    """A definition made ready. Raises LayoutError, one line with the key and the column of what is wrong.

    Immutable but for what its expressions remember; any thread may use it.
    """

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.name = definition.name
        if not _NAME.fullmatch(self.name):
            raise LayoutError(
                f"'{self.name}' is no name of a layout", "letters, digits, '.', '_' and '-', up to 64 of them"
            )
        if definition.versions not in ORDERS:
            raise self._wrong(
                "versions", LayoutError.unknown("order of versions", definition.versions, ORDERS)
            )
        self._check_roles()
        self.folder_integration = self._expression("folder-integration", definition.folder_integration)
        self.file_integration = self._expression("file-integration", definition.file_integration)
        self.artifact = self._matcher("artifact", definition.artifact)
        self.descriptor = (
            self._matcher("descriptor", definition.descriptor) if definition.descriptor else None
        )
        self._finds_extension = _ends_with_extension(self.artifact.pattern.items)

    def __repr__(self) -> str:
        return f"Layout({self.name!r})"

    @property
    def order(self) -> Order:
        """Sorts its revisions."""
        return ORDERS[self.definition.versions]

    # Reading

    def parse(self, path: bytes) -> Coordinates | None:
        """What a path relative to the repository says; None if it is no path of this layout."""
        try:
            return self.read(path)
        except (LayoutError, TooManySteps):
            return None

    def read(self, path: bytes) -> Coordinates | None:
        """As `parse`; raises LayoutError for what is no path of any artifact, with the reason, and
        TooManySteps. It is None where a pattern does not match."""
        if wrong := paths.why_not(path):
            raise LayoutError(wrong)
        try:
            text = path.decode()
        except UnicodeDecodeError:
            raise LayoutError("it is not UTF-8") from None
        if paths.is_index(text):
            raise LayoutError("it is an index of a registry, no artifact")
        if self.definition.escape_upper_case:
            unescaped = paths.unescape(text)
            if unescaped is None:
                raise LayoutError("it has an upper-case letter, which is written !a for A")
            text = unescaped
        stem, companion = paths.split_companion(text)
        if companion:
            found = self._parse(stem, companion)
            if found is not None:
                return found
        return self._parse(text, "")

    def _parse(self, path: str, companion: str) -> Coordinates | None:
        if self.descriptor is not None:
            values = self.descriptor.match(path)
            if values is not None:
                return self._coordinates(values, self.descriptor.pattern, companion, True)
        values = None
        if self._finds_extension:
            at = paths.extension_at(path)
            if at > 0:
                values = self.artifact.match(path, at)
        if values is None:
            values = self.artifact.match(path)
        if values is None:
            return None
        return self._coordinates(values, self.artifact.pattern, companion, False)

    def _coordinates(
        self, values: list[str], pattern: Pattern, companion: str, descriptor: bool
    ) -> Coordinates:
        org, org_path, module, base, folder, file, classifier, extension, type_ = values[:_FIXED]
        further = (
            tuple(pair for pair in zip(pattern.further, values[_FIXED:], strict=True) if pair[1])
            if pattern.further
            else ()
        )
        return Coordinates(
            org or org_path.replace("/", "."),
            org_path or org.replace(".", "/"),
            module,
            base,
            folder,
            file,
            classifier,
            extension or pattern.suffix,
            type_,
            further,
            descriptor,
            companion,
            self.definition.integrations and bool(folder or file),
        )

    # Making

    def build(self, coordinates: Coordinates) -> bytes:
        """The path of an artifact, the inverse of `parse`: the one that reads back as these coordinates.
        (`integration` is not looked at, a type that is the extension is as none.)

        Raises LayoutError with the reason if there is none: a token that the pattern needs is empty, or one
        that is given has no place, or would be read as another one."""
        if coordinates.descriptor and self.descriptor is None:
            raise LayoutError(f"{self.name} has no descriptors")
        coordinates = coordinates.with_organisation()
        matcher = self.descriptor if coordinates.descriptor and self.descriptor else self.artifact
        values = coordinates.values
        texts: list[str] = []
        self._add_texts(matcher.pattern.items, values, coordinates.kind, texts)
        text = "".join(texts) + coordinates.companion
        path = paths.escape(text) if self.definition.escape_upper_case else text
        try:
            encoded = path.encode()
        except UnicodeEncodeError:
            raise LayoutError(f"{path!r} is not Unicode") from None
        if wrong := paths.why_not(encoded):
            raise LayoutError(f"{path!r} is no path: {wrong}")
        found = self.parse(encoded)
        if found is None:
            self._check_expressions(matcher.pattern.items, values)
            raise LayoutError(f"{self.name} would not read {path!r}, which it makes of these tokens")
        if found != coordinates:
            self._check_same(path, coordinates, found)
        return encoded

    def _add_texts(
        self, items: tuple[Item, ...], values: dict[str, str], kind: str, texts: list[str]
    ) -> None:
        for item in items:
            if isinstance(item, Literal):
                texts.append(item.text)
            elif isinstance(item, Token):
                value = values.get(item.name) or (kind if item.name == "type" else "")
                if not value:
                    raise LayoutError(f"{self.name} needs [{item.shown}]")
                texts.append(value)
            elif all(values.get(name) for name in item.keys):
                self._add_texts(item.items, values, kind, texts)

    def _check_same(self, path: str, given: Coordinates, found: Coordinates) -> None:
        wanted, got = given.tokens, found.tokens
        wrong = [name for name in dict.fromkeys((*wanted, *got)) if wanted.get(name) != got.get(name)]
        if "orgPath" in wrong and not self.uses("orgPath"):
            wrong.remove("orgPath")
        if not (self.uses("org") or self.uses("orgPath")) and given.org:
            raise LayoutError(f"{self.name} has no place for [org] '{given.org}'")
        for name in wrong:
            placed = self.uses(name) or name in ("org", "orgPath") or (name == "type" and not given.type)
            if name in wanted and not placed:
                raise LayoutError(f"{self.name} has no place for [{name}] '{wanted[name]}'")
        for name in wrong:
            reads, instead = (f"'{tokens[name]}'" if name in tokens else "none" for tokens in (got, wanted))
            raise LayoutError(f"{self.name} would read the [{name}] of {path!r} as {reads}, not {instead}")
        # Where an artifact and a descriptor would have the same path it is a descriptor (a pom).
        if found.companion != given.companion or found.descriptor < given.descriptor:
            raise LayoutError(f"{self.name} would read {path!r} as another kind of file")

    def _check_expressions(self, items: tuple[Item, ...], values: dict[str, str]) -> None:
        for item in items:
            if isinstance(item, Part):
                self._check_expressions(item.items, values)
            elif isinstance(item, Token) and item.expression is not None:
                value = values.get(item.name)
                if value and not item.expression.matches(value):
                    raise LayoutError(
                        f"{self.name} has no place for [{item.shown}] '{value}', "
                        f"which does not match {item.expression.text}"
                    )

    def uses(self, token: str) -> bool:
        """Is it in one of the patterns?"""
        patterns = [self.artifact.pattern, *([self.descriptor.pattern] if self.descriptor else [])]
        return any(token in pattern.names for pattern in patterns)

    # Making ready

    def _check_roles(self) -> None:
        roles = self.definition.roles
        for role, token in roles.items():
            if role not in ROLES:
                raise self._wrong(f"roles.{role}", LayoutError.unknown("role", role, ROLES))
            if token in TOKENS or list(roles.values()).count(token) > (1 if token else len(ROLES)):
                raise self._wrong(f"roles.{role}", LayoutError(f"[{token}] plays another part"))

    def _expression(self, key: str, text: str) -> Expression:
        try:
            return Expression(text)
        except LayoutError as error:
            raise self._wrong(key, error) from None

    def _matcher(self, key: str, text: str) -> Matcher:
        try:
            return Matcher(
                parse_pattern(
                    text,
                    folder_integration=self.folder_integration,
                    file_integration=self.file_integration,
                    roles=self.definition.roles,
                )
            )
        except LayoutError as error:
            raise self._wrong(key, error) from None

    def _wrong(self, key: str, error: LayoutError) -> LayoutError:
        where = f"{key}, column {error.column}" if error.column else key
        return LayoutError(f"{self.name}: {where}: {error.message}", error.hint, key=key, column=error.column)


@lru_cache(maxsize=256)
def _prepared(encoded: bytes) -> Layout:
    return Layout(msgspec.json.decode(encoded, type=Definition))


def prepare(definition: Definition) -> Layout:
    """The layout of a definition, made once. Raises LayoutError."""
    try:
        encoded = msgspec.json.encode(definition, order="deterministic")
    except UnicodeEncodeError:
        raise LayoutError(f"{definition.name!r}: a text that is not Unicode") from None
    return _prepared(encoded)


def _ends_with_extension(items: tuple[Item, ...]) -> bool:
    """The extension is the end of the path and any text: then a usual one is tried first."""
    last = items[-1]
    if isinstance(last, Part):
        return _ends_with_extension(last.items)
    return isinstance(last, Token) and last.name == "ext" and last.expression is None

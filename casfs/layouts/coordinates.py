"""What a path says of the artifact it names."""

from __future__ import annotations

import msgspec


class Coordinates(msgspec.Struct, frozen=True):
    """The tokens of a path. What is not there is empty. The order of the first fields is that of
    `patterns.TOKENS`.

    `org_path` is the organisation as directories, as it is in the path or else with a slash for each dot.
    `folder_integration`, `file_integration` are the integration revisions of the directory and of the file.
    `further` are the names and texts of the tokens that a layout adds, if they are there.
    `descriptor`: the path is that of the module's description (a pom, an ivy.xml).
    `companion`: the file accompanies the artifact and is none: ".sha1", ".asc", ".asc.md5".
    `integration`: an integration (a snapshot, a pre-release), no release; its integration revisions are part
    of its revision then.
    """

    org: str = ""
    org_path: str = ""
    module: str = ""
    base_revision: str = ""
    folder_integration: str = ""
    file_integration: str = ""
    classifier: str = ""
    extension: str = ""
    type: str = ""
    further: tuple[tuple[str, str], ...] = ()
    descriptor: bool = False
    companion: str = ""
    integration: bool = False

    @property
    def revision(self) -> str:
        """The whole of it: what versions are compared by. The integration revision of the file comes before
        that of the directory."""
        if not self.integration:
            return self.base_revision
        return f"{self.base_revision}-{self.file_integration or self.folder_integration}"

    @property
    def kind(self) -> str:
        """The type; where a path has none it is the extension."""
        return self.type or self.extension

    def with_organisation(self) -> Coordinates:
        """With both spellings of the organisation, the missing one made of the other."""
        if bool(self.org) == bool(self.org_path):
            return self
        return msgspec.structs.replace(
            self,
            org=self.org or self.org_path.replace("/", "."),
            org_path=self.org_path or self.org.replace(".", "/"),
        )

    @property
    def values(self) -> dict[str, str]:
        """All tokens, with the names they have in patterns."""
        values = {
            "org": self.org,
            "orgPath": self.org_path,
            "module": self.module,
            "baseRev": self.base_revision,
            "folderItegRev": self.folder_integration,
            "fileItegRev": self.file_integration,
            "classifier": self.classifier,
            "ext": self.extension,
            "type": self.type,
        }
        values.update(self.further)
        return values

    @property
    def tokens(self) -> dict[str, str]:
        """The tokens that have a value. An empty type takes the extension."""
        return {name: value for name, value in {**self.values, "type": self.kind}.items() if value}

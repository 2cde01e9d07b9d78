"""The built-in layouts, and which of them a package type uses."""

from __future__ import annotations

from casfs.errors import LayoutError
from casfs.layouts.layout import Definition, Layout, prepare

_MAVEN = (
    "[orgPath]/[module]/[baseRev](-[folderItegRev])/[module]-[baseRev](-[fileItegRev])(-[classifier]).[ext]"
)
_SBT = "[org]/[module]/(scala_[scalaVersion<.+>]/)(sbt_[sbtVersion<.+>]/)[baseRev]/[type]s/"
_NAMED_FILE = "[orgPath]/[module]/[module]-[baseRev](-[fileItegRev]).[ext]"
_NPM_FILE = "[module]-[baseRev<[^+\\-]+(?:\\+.+)?>](-[fileItegRev]).tgz"
_TIMESTAMP = r"\d{14}"
_UNIQUE = r"SNAPSHOT|[0-9]{8}\.[0-9]{6}-[0-9]+"

DEFINITIONS = (
    Definition(
        name="maven-2-default",
        artifact=_MAVEN,
        descriptor=_MAVEN.replace("[ext]", "pom"),
        folder_integration="SNAPSHOT",
        file_integration=_UNIQUE,
    ),
    # Nothing but the file's name says where the version begins: at a digit.
    Definition(
        name="maven-1-default",
        artifact=r"[org]/[type]s/[module<.+?>]-[baseRev<\d.*?|SNAPSHOT>](-[fileItegRev])(-[classifier]).[ext]",
        descriptor=r"[org]/[type]s/[module<.+?>]-[baseRev<\d.*?|SNAPSHOT>](-[fileItegRev]).pom",
        folder_integration=".+",
        file_integration=_UNIQUE,
    ),
    Definition(
        name="ivy-default",
        artifact="[org]/[module]/[baseRev](-[folderItegRev])/[type]s/"
        "[module](-[classifier])-[baseRev](-[fileItegRev]).[ext]",
        descriptor="[org]/[module]/[baseRev](-[folderItegRev])/[type]s/ivy-[baseRev](-[fileItegRev]).xml",
        folder_integration=_TIMESTAMP,
        file_integration=_TIMESTAMP,
    ),
    Definition(
        name="gradle-default",
        artifact=_MAVEN.replace("[orgPath]", "[org]"),
        descriptor="[org]/[module]/ivy-[baseRev](-[fileItegRev]).xml",
        folder_integration=_TIMESTAMP,
        file_integration=_TIMESTAMP,
    ),
    Definition(
        name="sbt-default",
        artifact=_SBT + "[module](-[classifier]).[ext]",
        descriptor=_SBT + "ivy.xml",
        folder_integration=_TIMESTAMP,
        file_integration=_TIMESTAMP,
    ),
    Definition(
        name="vcs-default",
        artifact="[orgPath]/[module]/[refs<tags|branches>]/[baseRev]/"
        "[module]-[baseRev](-[fileItegRev])(-[classifier]).[ext]",
        file_integration="[a-zA-Z0-9]{40}",
    ),
    # The revisions are those of recipe and package, which every path has.
    Definition(
        name="conan-default",
        artifact="[org]/[module]/[baseRev]/[channel<[^/]+>]/[folderItegRev]/"
        "(package/[package_id<[^/]+>]/[fileItegRev]/)[remainder<.+(?:/.+)*>]",
        folder_integration="[^/]+",
        file_integration="[^/]+",
        versions="semver",
        integrations=False,
    ),
    Definition(
        name="nuget-default",
        artifact="[orgPath]/[module]/[module].[baseRev](-[fileItegRev]).nupkg",
        versions="semver",
    ),
    # As the npm client has it: @scope/name/-/name-version.tgz, the scope not in the file's name.
    Definition(
        name="npm-default",
        artifact="([org<@.+>]/)[module]/-/" + _NPM_FILE,
        roles={"org": ""},
        versions="semver",
    ),
    # As repositories had it before clients asked for it in that way: without /-/, whatever the organisation.
    Definition(
        name="npm-legacy-default",
        artifact="([orgPath]/)[module]/" + _NPM_FILE,
        roles={"org": ""},
        versions="semver",
    ),
    Definition(name="bower-default", artifact=_NAMED_FILE, versions="semver"),
    Definition(name="composer-default", artifact=_NAMED_FILE, versions="semver"),
    Definition(name="simple-default", artifact="[orgPath]/[module]/[module]-[baseRev].[ext]"),
    # Of wheels the tags are the classifier: a version has no hyphen there.
    Definition(
        name="pypi-default",
        artifact="([orgPath]/)[module]/[module]-[baseRev<[^\\-]+>](-[classifier]).[ext]",
        roles={"org": ""},
        versions="pep440",
    ),
    # Charts lie together, mostly in one directory. A version is a full one.
    Definition(
        name="helm-default",
        artifact=r"([orgPath]/)[module<.+?>]-[baseRev<v?\d+\.\d+\.\d+(?:\+.+)?>](-[fileItegRev]).tgz",
        roles={"org": ""},
        versions="semver",
    ),
    Definition(
        name="puppet-default",
        artifact="[orgPath]/[module]/[orgPath]-[module]-[baseRev].tar.gz",
        versions="semver",
    ),
    Definition(
        name="go-default",
        artifact="[orgPath]/[module]/@v/v[baseRev](-[fileItegRev]).[ext]",
        versions="semver",
        escape_upper_case=True,
    ),
    # A number and the time the build began.
    Definition(
        name="build-default",
        artifact="[orgPath]/[module<.+?>](-[fileItegRev]).[ext]",
        file_integration=r"\d+",
        roles={"baseRev": ""},
        integrations=False,
    ),
    Definition(
        name="cargo-default",
        artifact="crates/[module]/[module]-[baseRev].[ext]",
        roles={"org": ""},
        versions="semver",
    ),
    Definition(
        name="terraform-module-default",
        artifact="[namespace]/[module-name]/[provider<.+>]/[version].[ext]",
        roles={"org": "namespace", "module": "module-name", "baseRev": "version"},
        versions="semver",
    ),
    Definition(
        name="swift-default",
        artifact="[scope]/[name]/[name]-[version].zip",
        roles={"org": "scope", "module": "name", "baseRev": "version"},
        versions="semver",
    ),
    Definition(
        name="ansible-default",
        artifact="collections/[namespace]/[name]/[version]/[namespace]-[name]-[version].tar.gz",
        roles={"org": "namespace", "module": "name", "baseRev": "version"},
        versions="semver",
    ),
)
"""In the order in which they are listed."""

_BY_NAME = {definition.name: definition for definition in DEFINITIONS}

_SIMPLE = ("alpine", "conda", "cran", "debian", "docker", "gems", "generic", "gitlfs", "rpm")

PACKAGE_TYPES = {
    **dict.fromkeys(_SIMPLE, "simple-default"),
    "ansible": "ansible-default",
    "bower": "bower-default",
    "build": "build-default",
    "cargo": "cargo-default",
    "composer": "composer-default",
    "conan": "conan-default",
    "go": "go-default",
    "gradle": "maven-2-default",
    "helm": "helm-default",
    "ivy": "ivy-default",
    "maven": "maven-2-default",
    "npm": "npm-default",
    "nuget": "nuget-default",
    "puppet": "puppet-default",
    "pypi": "pypi-default",
    "sbt": "sbt-default",
    "swift": "swift-default",
    "terraform": "terraform-module-default",
    "vcs": "vcs-default",
}
"""Names of layouts."""


def builtin(name: str) -> Layout:
    """Raises LayoutError for an unknown name."""
    definition = _BY_NAME.get(name)
    if definition is None:
        raise LayoutError.unknown("layout", name, _BY_NAME)
    return prepare(definition)


def layout_of(package_type: str) -> Layout:
    """The layout of a kind of packages. Raises LayoutError for an unknown one."""
    name = PACKAGE_TYPES.get(package_type)
    if name is None:
        raise LayoutError.unknown("package type", package_type, PACKAGE_TYPES)
    return builtin(name)

-- Version 2 to 3: repositories and layouts. Frozen: schema.sql says what it means today.

-- Repositories that are more than a directory: each is one, in the root, which is its identity.
CREATE TABLE repository (
    ino    INTEGER PRIMARY KEY,     -- of the directory
    kind   TEXT NOT NULL,           -- 'local'; 'virtual': several as one; 'view': one in another layout
    layout TEXT,                    -- name of its layout; NULL = none
    deploy INTEGER,                 -- virtual: the repository that takes what is written; NULL = none
    rules  TEXT NOT NULL            -- JSON object, of what is not as by default (repositories/rules.py)
) WITHOUT ROWID, STRICT;

-- What a virtual repository shows, in order, or the one repository of a view.
CREATE TABLE member (
    repository INTEGER NOT NULL,
    position   INTEGER NOT NULL,    -- 0, 1, ...
    member     INTEGER NOT NULL,
    PRIMARY KEY (repository, position)
) WITHOUT ROWID, STRICT;
CREATE INDEX member_member ON member (member);

-- Layouts that are not built in.
CREATE TABLE layout (
    name       TEXT PRIMARY KEY NOT NULL,
    definition TEXT NOT NULL        -- TOML (layouts/files.py)
) WITHOUT ROWID, STRICT;

-- What the path of a file says of it: one row for each name, in a repository with a layout, that parses.
CREATE TABLE artifact (
    parent       INTEGER NOT NULL,  -- dentry (parent, name)
    name         BLOB NOT NULL,
    repository   INTEGER NOT NULL,
    organisation TEXT NOT NULL,
    module       TEXT NOT NULL,
    revision     TEXT NOT NULL,     -- whole, with its integration revision
    base         TEXT NOT NULL,     -- revision without it
    integration  TEXT NOT NULL,     -- integration revision of the file, or else of the folder; empty = none
    snapshot     INTEGER NOT NULL,  -- 1: it is an integration (a snapshot, a pre-release), no release
    classifier   TEXT NOT NULL,     -- empty = none, as those below
    extension    TEXT NOT NULL,
    type         TEXT NOT NULL,
    companion    TEXT NOT NULL,     -- ".sha1", ".asc", ...: it accompanies the artifact with these coordinates
    tokens       TEXT NOT NULL,     -- JSON object of the layout's further tokens
    PRIMARY KEY (parent, name)
) WITHOUT ROWID, STRICT;
CREATE INDEX artifact_module ON artifact (module, organisation);
CREATE INDEX artifact_repository ON artifact (repository);

-- Directories below which the names are still to be followed: their repository, place or access is another
-- one. Rows go as that is done.
CREATE TABLE follow (
    ino    INTEGER PRIMARY KEY,
    cookie INTEGER NOT NULL         -- of the last name that was followed
) WITHOUT ROWID, STRICT;

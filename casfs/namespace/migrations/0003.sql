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
CREATE INDEX artifact_module ON artifact (organisation, module);
CREATE INDEX artifact_repository ON artifact (repository);

-- Directories below which the names are still to be followed: their repository, place or access is another
-- one. Rows go as that is done.
CREATE TABLE follow (
    ino    INTEGER PRIMARY KEY,
    cookie INTEGER NOT NULL         -- of the last name that was followed
) WITHOUT ROWID, STRICT;

-- Names, of dentries that are there or were, from which what follows is still to be written.
CREATE TABLE noted (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID, STRICT;

-- Names that casfs keeps, in the directories of views and virtual repositories: each is derived from a name
-- that a program made, and stands for the same inode. They are counted in no nlink.
CREATE TABLE derived (
    parent        INTEGER NOT NULL,   -- inode number of the repository's directory, or of a derived one
    name          BLOB NOT NULL,      -- empty: no name, but what holds a directory that has none
    rank          INTEGER NOT NULL,   -- of those who want the name the lowest has it; -1: a directory
    cookie        INTEGER NOT NULL,   -- that of the source's dentry; a directory's own
    ino           INTEGER NOT NULL,   -- of the source, or of the derived directory; 0 where there is no name
    type          INTEGER NOT NULL,   -- as in dentry; 4: a derived directory; 0 where there is no name
    hidden        INTEGER NOT NULL,   -- 1: another one has the name, or there is none
    tree          INTEGER NOT NULL,   -- repository that shows it
    source_parent INTEGER NOT NULL,   -- dentry (parent, name) of the source; a directory has none: 0 and empty
    source_name   BLOB NOT NULL,
    PRIMARY KEY (parent, name, rank, cookie)
) WITHOUT ROWID, STRICT;
CREATE INDEX derived_cookie ON derived (parent, cookie, ino, type) WHERE hidden = 0;
CREATE INDEX derived_source ON derived (source_parent, source_name) WHERE source_parent <> 0;
CREATE INDEX derived_directory ON derived (ino) WHERE type = 4;
CREATE INDEX derived_tree ON derived (tree, type, parent);

-- Names that were made through a view, at paths that its layout does not know: it shows them at the same path.
CREATE TABLE kept (
    parent INTEGER NOT NULL,        -- dentry (parent, name) in the source
    name   BLOB NOT NULL,
    tree   INTEGER NOT NULL,
    PRIMARY KEY (parent, name, tree)
) WITHOUT ROWID, STRICT;

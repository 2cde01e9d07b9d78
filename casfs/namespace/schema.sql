-- The namespace of a casfs store, format version 5 (PRAGMA user_version). This file is the format document; an
-- older database is brought to it by migrations/, one file for each version. From 5 on, what the databases in
-- snapshots/ refer to is held back from collection, too, which a casfs of before does not know.
--
-- One SQLite database in WAL mode, written by the process that holds run/lock. Times are nanoseconds since
-- 1970-01-01 UTC. Names, link targets and attribute names are bytes, never decoded. Invariants:
--   I1  a committed row refers only to a blob that is durable on disk, whole, under its own digest
--   I3  a blob's row goes before its file; a blob's file comes before its row
--   I4  blob.refs is the number of inode rows that refer to the blob
--   I5  what fsync(2) returned from survives; what was not synced is lost whole, never half
--   I7  an inode number is never reused

-- Single values.
--   next_ino     no inode number >= this one was ever given out
--   next_cookie  no directory cookie >= this one was ever given out
--   uuid         identity of the store, 32 hex characters
--   scrub_started_ns, scrub_cursor, scrub_bytes, scrub_ended_ns
--                the pass of a scrub that is under way, or was the last: its start, the id of the blob it has
--                come to, bytes read until there, its end (0 = not yet); absent before the first
--   clean_end    next_ino as a process has left it that ended cleanly, with nothing that no row refers to, and
--                all blobs durable; absent, or another number: the last one did not, or is at work
--   strays_since_ns  the last start after an end that was not clean, until a full run of the collector has looked
--                at all files of before: some may have no row (I3); absent = none
--   trash_minimal_age_ns  nanoseconds that a file has to be there to be kept in the trash; absent = 60 s
--   plain_directories  'no': programs make no directories in the root, only casfs repo does; absent = they do
--   digests      names of the digests that every content gets besides BLAKE3, with spaces between them; absent =
--                none. Repositories may ask for further ones
--   digests_started_ns, digests_blobs, digests_bytes, digests_damaged, digests_ended_ns
--                the run that computes digests which blobs lack (casfs digests) that is under way, or was the
--                last: its start, blobs that got some and their bytes, those that were found to be damaged,
--                its end (0 = not yet); absent before the first
--   contents     'no', in the database of a backup only: there are no contents, and none are held; absent = there
--                are
--   casfs_directory  inode number of /.casfs, once there is one: it is not listed, and not counted in the
--                root's nlink
CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value ANY NOT NULL
) WITHOUT ROWID, STRICT;

-- One row for each distinct content that is a file under blobs/. The empty content has none.
CREATE TABLE blob (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,   -- never reused
    blake3      BLOB NOT NULL UNIQUE,                -- 32 bytes; with the fan-out it gives the path
    size        INTEGER NOT NULL,                    -- bytes, > 0
    refs        INTEGER NOT NULL,                    -- I4; 0 = orphan
    created_ns  INTEGER NOT NULL,                    -- first published
    orphaned_ns INTEGER                              -- when refs became 0; NULL while refs > 0
) STRICT;
CREATE INDEX blob_orphan ON blob (orphaned_ns) WHERE refs = 0;

-- Further digests of contents. A blob has those that were computed of it; what is absent can be computed at any
-- time (casfs digests).
CREATE TABLE blob_digest (
    blob_id   INTEGER NOT NULL,
    algorithm TEXT NOT NULL,        -- 'sha256', 'sha1', 'md5', 'sha512', 'crc32c' (filestore/hashing.py)
    value     BLOB NOT NULL,        -- as long as the algorithm's digests are; of crc32c big-endian
    PRIMARY KEY (blob_id, algorithm)
) WITHOUT ROWID, STRICT;
CREATE INDEX blob_digest_value ON blob_digest (algorithm, value);        -- checksum -> blob

-- One row for each file, directory, symbolic link, fifo, socket and device node.
CREATE TABLE inode (
    ino      INTEGER PRIMARY KEY,   -- 1 is the root directory; I7
    mode     INTEGER NOT NULL,      -- type and permission bits as in st_mode, inode(7)
    nlink    INTEGER NOT NULL,      -- names; a directory: 2 + subdirectories; 0 = unlinked, removed at the next start
    uid      INTEGER NOT NULL,
    gid      INTEGER NOT NULL,
    rdev     INTEGER NOT NULL,      -- device nodes, makedev(3); else 0
    size     INTEGER NOT NULL,      -- bytes of content; a symbolic link: of its target; else 0
    allocated INTEGER NOT NULL,     -- bytes on disk of regular content, for st_blocks: < size for a sparse file
    blob_id  INTEGER,               -- regular file's sealed content; NULL = empty, staged, or not a regular file
    staged   TEXT,                  -- name in staging/ of content that was fsynced before it was sealed, or is
                                    -- rewritten (I5): hex digits, and "-lent" behind them when programs may have
                                    -- it mapped; its first `size` bytes count, blob_id is NULL; NULL = none
    target   BLOB,                  -- symbolic link's target; else NULL
    atime_ns INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,      -- moves with every change of content or attributes
    btime_ns INTEGER NOT NULL       -- created
) STRICT;
CREATE INDEX inode_blob ON inode (blob_id) WHERE blob_id IS NOT NULL;    -- checksum -> names
CREATE INDEX inode_unlinked ON inode (ino) WHERE nlink = 0;              -- recovery at start
CREATE INDEX inode_staged ON inode (ino) WHERE staged IS NOT NULL;       -- recovery at start

-- One row for each name. Looking a name up is one search in the table, listing a directory one range of
-- dentry_cookie, which has all that a listing needs.
CREATE TABLE dentry (
    parent INTEGER NOT NULL,        -- inode number of the directory
    cookie INTEGER NOT NULL,        -- > 2, unique in the store, ascending: readdir offset that stays valid
    name   BLOB NOT NULL,           -- 1..255 bytes without NUL and '/'
    ino    INTEGER NOT NULL,
    type   INTEGER NOT NULL,        -- (mode & S_IFMT) >> 12, the DT_ values of readdir(3)
    PRIMARY KEY (parent, name)
) WITHOUT ROWID, STRICT;
CREATE INDEX dentry_cookie ON dentry (parent, cookie, ino, type);
CREATE INDEX dentry_ino ON dentry (ino);                                 -- inode -> paths
CREATE INDEX dentry_directory ON dentry (parent, ino) WHERE type = 4;    -- the tree of directories

-- Extended attributes, xattr(7): user.*, trusted.*, security.* and the two system.posix_acl_*.
CREATE TABLE xattr (
    ino   INTEGER NOT NULL,
    name  BLOB NOT NULL,            -- 1..255 bytes
    value BLOB NOT NULL,            -- up to 65,536 bytes
    PRIMARY KEY (ino, name)
) WITHOUT ROWID, STRICT;

-- Properties of files and directories: each value of an attribute user.casfs.prop.KEY, for searches. What counts
-- is the row in xattr, from which these follow (properties.py).
CREATE TABLE property (
    ino   INTEGER NOT NULL,
    key   TEXT NOT NULL,            -- behind the prefix
    value TEXT NOT NULL,            -- one of the lines of the attribute
    PRIMARY KEY (ino, key, value)
) WITHOUT ROWID, STRICT;
CREATE INDEX property_value ON property (key, value);

-- One row for each run of the collector, the newest 1,000.
CREATE TABLE collection (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,       -- 'regular': orphans; 'full': and blobs/ against the rows both ways
    started_ns INTEGER NOT NULL,
    ended_ns   INTEGER,             -- NULL while it runs, and for ever when it was killed
    blobs      INTEGER NOT NULL,    -- orphans removed, rows and files
    bytes      INTEGER NOT NULL,    -- of those files
    strays     INTEGER NOT NULL,    -- files without a row that were removed
    failures   INTEGER NOT NULL,    -- files that could not be unlinked; a full run finds them again as strays
    error      TEXT                 -- why it ended early; NULL = it did not
) STRICT;

-- A pin holds blobs back from collection: those of `pinned`, or every blob when it has no row there.
CREATE TABLE pin (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    reason     TEXT NOT NULL,
    everything INTEGER NOT NULL,    -- 1: all blobs, those to come included; 0: those of `pinned`
    created_ns INTEGER NOT NULL,
    expires_ns INTEGER              -- from then on it holds nothing; NULL = never
) STRICT;
CREATE TABLE pinned (
    blob_id INTEGER NOT NULL,
    pin_id  INTEGER NOT NULL,
    PRIMARY KEY (blob_id, pin_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX pinned_pin ON pinned (pin_id);

-- Blobs whose file was found to be damaged or missing, until they are whole again.
CREATE TABLE damage (
    blob_id  INTEGER PRIMARY KEY,
    found_ns INTEGER NOT NULL,
    reason   TEXT NOT NULL
) STRICT;

-- Files in the trash: their inodes have names below /.casfs/trash/YYYY-MM-DD/.
CREATE TABLE trash (
    ino        INTEGER PRIMARY KEY,
    deleted_ns INTEGER NOT NULL,
    uid        INTEGER NOT NULL,    -- who removed or overwrote it
    reason     TEXT NOT NULL,       -- 'removed', 'replaced' (rename over it) or 'truncated' (to nothing)
    path       BLOB NOT NULL        -- where it was, from the root of the mount, without a leading slash
) STRICT;
CREATE INDEX trash_age ON trash (deleted_ns);

-- What goes to the trash. The row of a top-level directory counts before that of the whole store.
CREATE TABLE trash_rule (
    directory BLOB PRIMARY KEY NOT NULL,   -- name in the root; empty = the whole store
    days      INTEGER NOT NULL,            -- kept so long; 0 = nothing goes to the trash
    exclude   TEXT NOT NULL                -- patterns of paths that do not, as in fnmatch(3), one a line
) WITHOUT ROWID, STRICT;
INSERT INTO trash_rule VALUES (x'', 14, '');

-- Locked trees: nobody changes these files and directories, nor anything below them, their names included, until
-- they are unlocked (repositories/locks.py). The directories above can neither be removed nor renamed.
CREATE TABLE locked (
    ino       INTEGER PRIMARY KEY,  -- of a file or directory that has a name
    locked_ns INTEGER NOT NULL,
    reason    TEXT NOT NULL         -- for whoever asks; may be empty
) STRICT;

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
    cookie        INTEGER NOT NULL,   -- that of the source's dentry, above its 48 bits the number of those that
                                      -- the tree has of the source's repository before; a directory's own
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

-- A database as casfs 0.1 left it in format 5. Its blobs are 'content' and 'orphan'.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
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
CREATE TABLE blob (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,   -- never reused
    blake3      BLOB NOT NULL UNIQUE,                -- 32 bytes; with the fan-out it gives the path
    size        INTEGER NOT NULL,                    -- bytes, > 0
    refs        INTEGER NOT NULL,                    -- I4; 0 = orphan
    created_ns  INTEGER NOT NULL,                    -- first published
    orphaned_ns INTEGER                              -- when refs became 0; NULL while refs > 0
) STRICT;
INSERT INTO "blob" VALUES(1,X'3FBA5250BE9AC259C56E7250C526BC83BACB4BE825F2799D3D59E5B4878DD74E',7,3,1795862795816016290,NULL);
INSERT INTO "blob" VALUES(2,X'AA13B58B0BF7DAD737CCCADC8DBA4F966D58F57C61C864C6E8228164358256F3',6,0,1795862795831383656,1795862795841993985);
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
INSERT INTO "collection" VALUES(1,'full',1795862795884321701,1795862795884351716,0,0,0,0,NULL);
CREATE TABLE damage (
    blob_id  INTEGER PRIMARY KEY,
    found_ns INTEGER NOT NULL,
    reason   TEXT NOT NULL
) STRICT;
CREATE TABLE dentry (
    parent INTEGER NOT NULL,        -- inode number of the directory
    cookie INTEGER NOT NULL,        -- > 2, unique in the store, ascending: readdir offset that stays valid
    name   BLOB NOT NULL,           -- 1..255 bytes without NUL and '/'
    ino    INTEGER NOT NULL,
    type   INTEGER NOT NULL,        -- (mode & S_IFMT) >> 12, the DT_ values of readdir(3)
    PRIMARY KEY (parent, name)
) WITHOUT ROWID, STRICT;
INSERT INTO "dentry" VALUES(1,3,X'746F70',2,4);
INSERT INTO "dentry" VALUES(1,6,X'73796D6C696E6B',5,10);
INSERT INTO "dentry" VALUES(1,7,X'6C696E6B',3,8);
INSERT INTO "dentry" VALUES(1,9,X'2E6361736673',7,4);
INSERT INTO "dentry" VALUES(2,4,X'66696C65',3,8);
INSERT INTO "dentry" VALUES(2,5,X'73616D65',4,8);
INSERT INTO "dentry" VALUES(7,10,X'7472617368',8,4);
INSERT INTO "dentry" VALUES(8,11,X'323032362D31312D3238',9,4);
INSERT INTO "dentry" VALUES(9,12,X'746F70',10,4);
INSERT INTO "dentry" VALUES(10,13,X'72656D6F766564',11,8);
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
CREATE TABLE follow (
    ino    INTEGER PRIMARY KEY,
    cookie INTEGER NOT NULL         -- of the last name that was followed
) WITHOUT ROWID, STRICT;
INSERT INTO "follow" VALUES(2,0);
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
INSERT INTO "inode" VALUES(1,16877,3,0,0,0,0,0,NULL,NULL,NULL,1795862795767174568,1795862795816096139,1795862795816096139,1795862795767174568);
INSERT INTO "inode" VALUES(2,16877,2,0,0,0,0,0,NULL,NULL,NULL,1795862795815516325,1795862795841919985,1795862795841919985,1795862795815516325);
INSERT INTO "inode" VALUES(3,33188,2,0,0,0,7,512,1,NULL,NULL,1795862795815614762,1795862795815698767,1795862795816089168,1795862795815614762);
INSERT INTO "inode" VALUES(4,33188,1,0,0,0,7,512,1,NULL,NULL,1795862795815752917,1795862795815792246,1795862795815792246,1795862795815752917);
INSERT INTO "inode" VALUES(5,41471,1,0,0,0,8,0,NULL,NULL,X'746F702F66696C65',1795862795815875300,1795862795815875300,1795862795815875300,1795862795815875300);
INSERT INTO "inode" VALUES(7,16877,3,0,0,0,0,0,NULL,NULL,NULL,1795862795824061707,1795862795824112082,1795862795824112082,1795862795824061707);
INSERT INTO "inode" VALUES(8,16877,3,0,0,0,0,0,NULL,NULL,NULL,1795862795824112082,1795862795824133734,1795862795824133734,1795862795824112082);
INSERT INTO "inode" VALUES(9,16877,3,0,0,0,0,0,NULL,NULL,NULL,1795862795824133734,1795862795824146894,1795862795824146894,1795862795824133734);
INSERT INTO "inode" VALUES(10,16877,2,0,0,0,0,0,NULL,NULL,NULL,1795862795824146894,1795862795824198992,1795862795824198992,1795862795824146894);
INSERT INTO "inode" VALUES(11,33188,1,0,0,0,7,512,1,NULL,NULL,1795862795816344238,1795862795816384739,1795862795823838995,1795862795816344238);
CREATE TABLE kept (
    parent INTEGER NOT NULL,        -- dentry (parent, name) in the source
    name   BLOB NOT NULL,
    tree   INTEGER NOT NULL,
    PRIMARY KEY (parent, name, tree)
) WITHOUT ROWID, STRICT;
CREATE TABLE layout (
    name       TEXT PRIMARY KEY NOT NULL,
    definition TEXT NOT NULL        -- TOML (layouts/files.py)
) WITHOUT ROWID, STRICT;
INSERT INTO "layout" VALUES('own','[layout.own]
artifact = "[org]/[module]/[baseRev]/[module]-[baseRev].[ext]"
');
CREATE TABLE member (
    repository INTEGER NOT NULL,
    position   INTEGER NOT NULL,    -- 0, 1, ...
    member     INTEGER NOT NULL,
    PRIMARY KEY (repository, position)
) WITHOUT ROWID, STRICT;
CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value ANY NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO "meta" VALUES('casfs_directory',7);
INSERT INTO "meta" VALUES('clean_end',13);
INSERT INTO "meta" VALUES('next_cookie',15);
INSERT INTO "meta" VALUES('next_ino',13);
INSERT INTO "meta" VALUES('trash_minimal_age_ns',0);
INSERT INTO "meta" VALUES('uuid','8c0fddad730343b9ba74688b5949b96e');
CREATE TABLE noted (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID, STRICT;
CREATE TABLE pin (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    reason     TEXT NOT NULL,
    everything INTEGER NOT NULL,    -- 1: all blobs, those to come included; 0: those of `pinned`
    created_ns INTEGER NOT NULL,
    expires_ns INTEGER              -- from then on it holds nothing; NULL = never
) STRICT;
INSERT INTO "pin" VALUES(1,'release',0,1795862795884231877,NULL);
INSERT INTO "pin" VALUES(2,'backup',1,1795862795884313319,NULL);
CREATE TABLE pinned (
    blob_id INTEGER NOT NULL,
    pin_id  INTEGER NOT NULL,
    PRIMARY KEY (blob_id, pin_id)
) WITHOUT ROWID, STRICT;
INSERT INTO "pinned" VALUES(1,1);
CREATE TABLE repository (
    ino    INTEGER PRIMARY KEY,     -- of the directory
    kind   TEXT NOT NULL,           -- 'local'; 'virtual': several as one; 'view': one in another layout
    layout TEXT,                    -- name of its layout; NULL = none
    deploy INTEGER,                 -- virtual: the repository that takes what is written; NULL = none
    rules  TEXT NOT NULL            -- JSON object, of what is not as by default (repositories/rules.py)
) WITHOUT ROWID, STRICT;
INSERT INTO "repository" VALUES(2,'local','own',NULL,'{"releases":false}');
CREATE TABLE trash (
    ino        INTEGER PRIMARY KEY,
    deleted_ns INTEGER NOT NULL,
    uid        INTEGER NOT NULL,    -- who removed or overwrote it
    reason     TEXT NOT NULL,       -- 'removed', 'replaced' (rename over it) or 'truncated' (to nothing)
    path       BLOB NOT NULL        -- where it was, from the root of the mount, without a leading slash
) STRICT;
INSERT INTO "trash" VALUES(11,1795862795823838995,0,'removed',X'746F702F72656D6F766564');
CREATE TABLE trash_rule (
    directory BLOB PRIMARY KEY NOT NULL,   -- name in the root; empty = the whole store
    days      INTEGER NOT NULL,            -- kept so long; 0 = nothing goes to the trash
    exclude   TEXT NOT NULL                -- patterns of paths that do not, as in fnmatch(3), one a line
) WITHOUT ROWID, STRICT;
INSERT INTO "trash_rule" VALUES(X'',36500,'');
INSERT INTO "trash_rule" VALUES(X'746F70',0,'*.tmp');
CREATE TABLE xattr (
    ino   INTEGER NOT NULL,
    name  BLOB NOT NULL,            -- 1..255 bytes
    value BLOB NOT NULL,            -- up to 65,536 bytes
    PRIMARY KEY (ino, name)
) WITHOUT ROWID, STRICT;
INSERT INTO "xattr" VALUES(3,X'757365722E61',X'62');
INSERT INTO "xattr" VALUES(3,X'757365722E63617366732E70726F702E7161',X'706173736564');
CREATE TABLE blob_digest (
    blob_id   INTEGER NOT NULL,
    algorithm TEXT NOT NULL,        -- 'sha256', 'sha1', 'md5', 'sha512', 'crc32c' (filestore/hashing.py)
    value     BLOB NOT NULL,        -- as long as the algorithm's digests are; of crc32c big-endian
    PRIMARY KEY (blob_id, algorithm)
) WITHOUT ROWID, STRICT;
INSERT INTO "blob_digest" VALUES(1,'sha256',X'ED7002B439E9AC845F22357D822BAC1444730FBDB6016D3EC9432297B9EC9F73');
CREATE TABLE property (
    ino   INTEGER NOT NULL,
    key   TEXT NOT NULL,            -- behind the prefix
    value TEXT NOT NULL,            -- one of the lines of the attribute
    PRIMARY KEY (ino, key, value)
) WITHOUT ROWID, STRICT;
INSERT INTO "property" VALUES(3,'qa','passed');
CREATE TABLE locked (
    ino       INTEGER PRIMARY KEY,  -- of a file or directory that has a name
    locked_ns INTEGER NOT NULL,
    reason    TEXT NOT NULL         -- for whoever asks; may be empty
) STRICT;
INSERT INTO "locked" VALUES(2,1795862795823838995,'released');
CREATE INDEX blob_orphan ON blob (orphaned_ns) WHERE refs = 0;
CREATE INDEX inode_blob ON inode (blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX inode_unlinked ON inode (ino) WHERE nlink = 0;
CREATE INDEX inode_staged ON inode (ino) WHERE staged IS NOT NULL;
CREATE INDEX dentry_cookie ON dentry (parent, cookie, ino, type);
CREATE INDEX dentry_ino ON dentry (ino);
CREATE INDEX dentry_directory ON dentry (parent, ino) WHERE type = 4;
CREATE INDEX pinned_pin ON pinned (pin_id);
CREATE INDEX trash_age ON trash (deleted_ns);
CREATE INDEX member_member ON member (member);
CREATE INDEX artifact_module ON artifact (organisation, module);
CREATE INDEX artifact_repository ON artifact (repository);
CREATE INDEX derived_cookie ON derived (parent, cookie, ino, type) WHERE hidden = 0;
CREATE INDEX derived_source ON derived (source_parent, source_name) WHERE source_parent <> 0;
CREATE INDEX derived_directory ON derived (ino) WHERE type = 4;
CREATE INDEX derived_tree ON derived (tree, type, parent);
CREATE INDEX blob_digest_value ON blob_digest (algorithm, value);
CREATE INDEX property_value ON property (key, value);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('blob',2);
INSERT INTO "sqlite_sequence" VALUES('pin',2);
INSERT INTO "sqlite_sequence" VALUES('collection',1);
COMMIT;PRAGMA application_id = 1667330918;
PRAGMA user_version = 5;

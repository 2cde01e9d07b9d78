-- A database as casfs 0.1 left it in format 1. Its blobs are 'content' and 'orphan'.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value ANY NOT NULL
) WITHOUT ROWID, STRICT;
INSERT INTO meta VALUES('next_cookie',9);
INSERT INTO meta VALUES('next_ino',7);
INSERT INTO meta VALUES('uuid','90e854718ff54cd7b53ac356d0c719a3');
CREATE TABLE blob (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,   -- never reused
    blake3      BLOB NOT NULL UNIQUE,                -- 32 bytes; with the fan-out it gives the path
    size        INTEGER NOT NULL,                    -- bytes, > 0
    refs        INTEGER NOT NULL,                    -- I4; 0 = orphan
    created_ns  INTEGER NOT NULL,                    -- first published
    orphaned_ns INTEGER                              -- when refs became 0; NULL while refs > 0
) STRICT;
INSERT INTO blob VALUES(1,X'3fba5250be9ac259c56e7250c526bc83bacb4be825f2799d3d59e5b4878dd74e',7,2,1795256141817443223,NULL);
INSERT INTO blob VALUES(2,X'aa13b58b0bf7dad737cccadc8dba4f966d58f57c61c864c6e8228164358256f3',6,0,1795256141818816025,1795256141819909141);
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
    staged   TEXT,                  -- name in staging/ of content that was fsynced before it was sealed (I5);
                                    -- its first `size` bytes count, and it hides blob_id; NULL = none
    target   BLOB,                  -- symbolic link's target; else NULL
    atime_ns INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,      -- moves with every change of content or attributes
    btime_ns INTEGER NOT NULL       -- created
) STRICT;
INSERT INTO inode VALUES(1,16877,3,0,0,0,0,0,NULL,NULL,NULL,1795256141639920950,1795256141819816429,1795256141819816429,1795256141639920950);
INSERT INTO inode VALUES(2,16877,2,0,0,0,0,0,NULL,NULL,NULL,1795256141816970607,1795256141817173727,1795256141817173727,1795256141816970607);
INSERT INTO inode VALUES(3,33188,2,0,0,0,7,512,1,NULL,NULL,1795256141817050797,1795256141817113807,1795256141817370704,1795256141817050797);
INSERT INTO inode VALUES(4,33188,1,0,0,0,7,512,1,NULL,NULL,1795256141817173727,1795256141817239011,1795256141817239011,1795256141817173727);
INSERT INTO inode VALUES(5,41471,1,0,0,0,8,0,NULL,NULL,X'746f702f66696c65',1795256141817315247,1795256141817315247,1795256141817315247,1795256141817315247);
CREATE TABLE dentry (
    parent INTEGER NOT NULL,        -- inode number of the directory
    cookie INTEGER NOT NULL,        -- > 2, unique in the store, ascending: readdir offset that stays valid
    name   BLOB NOT NULL,           -- 1..255 bytes without NUL and '/'
    ino    INTEGER NOT NULL,
    type   INTEGER NOT NULL,        -- (mode & S_IFMT) >> 12, the DT_ values of readdir(3)
    PRIMARY KEY (parent, name)
) WITHOUT ROWID, STRICT;
INSERT INTO dentry VALUES(1,3,X'746f70',2,4);
INSERT INTO dentry VALUES(1,6,X'6c696e6b',3,8);
INSERT INTO dentry VALUES(1,7,X'73796d6c696e6b',5,10);
INSERT INTO dentry VALUES(2,4,X'66696c65',3,8);
INSERT INTO dentry VALUES(2,5,X'73616d65',4,8);
CREATE TABLE xattr (
    ino   INTEGER NOT NULL,
    name  BLOB NOT NULL,            -- 1..255 bytes
    value BLOB NOT NULL,            -- up to 65,536 bytes
    PRIMARY KEY (ino, name)
) WITHOUT ROWID, STRICT;
INSERT INTO xattr VALUES(3,X'757365722e61',X'62');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('blob',2);
CREATE INDEX blob_orphan ON blob (orphaned_ns) WHERE refs = 0;
CREATE INDEX inode_blob ON inode (blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX inode_unlinked ON inode (ino) WHERE nlink = 0;
CREATE INDEX inode_staged ON inode (ino) WHERE staged IS NOT NULL;
CREATE INDEX dentry_cookie ON dentry (parent, cookie, ino, type);
CREATE INDEX dentry_ino ON dentry (ino);
CREATE INDEX dentry_directory ON dentry (parent, ino) WHERE type = 4;
COMMIT;
PRAGMA application_id = 1667330918;
PRAGMA user_version = 1;

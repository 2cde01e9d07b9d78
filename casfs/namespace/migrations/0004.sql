-- Version 3 to 4: further digests, and properties. Frozen: schema.sql says what it means today.

-- Further digests of contents. A blob has those that were computed of it; what is absent can be computed at any
-- time (casfs digests).
CREATE TABLE blob_digest (
    blob_id   INTEGER NOT NULL,
    algorithm TEXT NOT NULL,        -- 'sha256', 'sha1', 'md5', 'sha512', 'crc32c' (filestore/hashing.py)
    value     BLOB NOT NULL,        -- as long as the algorithm's digests are; of crc32c big-endian
    PRIMARY KEY (blob_id, algorithm)
) WITHOUT ROWID, STRICT;
CREATE INDEX blob_digest_value ON blob_digest (algorithm, value);        -- checksum -> blob

-- Properties of files and directories: each value of an attribute user.casfs.prop.KEY, for searches. What counts
-- is the row in xattr, from which these follow (properties.py).
CREATE TABLE property (
    ino   INTEGER NOT NULL,
    key   TEXT NOT NULL,            -- behind the prefix
    value TEXT NOT NULL,            -- one of the lines of the attribute
    PRIMARY KEY (ino, key, value)
) WITHOUT ROWID, STRICT;
CREATE INDEX property_value ON property (key, value);

-- Version 1 to 2: what collection, scrubbing and the trash keep. Frozen: schema.sql says what it means today.

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

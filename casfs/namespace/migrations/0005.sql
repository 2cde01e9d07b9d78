-- Version 4 to 5: locked trees. Frozen: schema.sql says what it means today.
--
-- From 5 on snapshots/ holds blobs back from collection, which a casfs of before does not know: it would collect
-- them. So it must not open the database.

-- Files and directories that nothing changes, with all that is below them.
CREATE TABLE locked (
    ino       INTEGER PRIMARY KEY,
    locked_ns INTEGER NOT NULL,
    reason    TEXT NOT NULL
) STRICT;

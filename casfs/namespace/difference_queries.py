"""What SQLite is asked when two databases are compared (differences.py): `main` with `other`.

`{ids}`: a comparison of the numbers of blobs, with AND, that spares the digests; `{numbers}`: when nothing of
two inodes differs; `{written}`: is the second one written now; `{compared}`: how
names are compared with the parameter. The numbers in them are those of
inode(7): S_IFMT is 61440, S_IFDIR 16384, S_IFREG 32768, S_IFLNK 40960, S_IFCHR 8192, S_IFBLK 24576. Bits of
`parts` are those of `Parts`.
"""

from __future__ import annotations

PAGE = 1_000
"""Names that are read at a time."""

_XATTRS = """(EXISTS (SELECT 1 FROM main.xattr AS x
                      LEFT JOIN other.xattr AS y ON y.ino = j.ino AND y.name = x.name
                      WHERE x.ino = i.ino AND y.value IS NOT x.value)
              OR (SELECT count(*) FROM main.xattr WHERE ino = i.ino)
              <> (SELECT count(*) FROM other.xattr WHERE ino = j.ino))"""

_DIGESTS = """(SELECT blake3 FROM main.blob WHERE id = i.blob_id)
              IS NOT (SELECT blake3 FROM other.blob WHERE id = j.blob_id)"""

_CONTENT = f"""CASE i.mode & 61440
    WHEN 32768 THEN i.size <> j.size OR j.staged IS NOT NULL OR i.staged IS NOT NULL OR {{written}}
                    OR ({{ids}} {_DIGESTS})
    WHEN 40960 THEN i.target IS NOT j.target
    WHEN 8192 THEN i.rdev <> j.rdev
    WHEN 24576 THEN i.rdev <> j.rdev
    ELSE 0 END"""

_PARTS = f"""CASE
    WHEN j.ino IS NULL OR i.mode & 61440 <> j.mode & 61440 THEN 8
    WHEN {{numbers}} AND NOT {{written}} THEN 0
    ELSE ({_CONTENT})
       + 2 * (i.mode <> j.mode OR i.uid <> j.uid OR i.gid <> j.gid OR {_XATTRS})
       + 4 * (i.mtime_ns <> j.mtime_ns) END"""

OF_BOTH = f"""
SELECT d.name, d.ino, i.mode, j.ino, j.mode, {_PARTS} AS parts
FROM main.dentry AS d CROSS JOIN main.inode AS i ON i.ino = d.ino
LEFT JOIN other.dentry AS e ON e.parent = ?2 AND e.name = d.name
LEFT JOIN other.inode AS j ON j.ino = e.ino
WHERE d.parent = ?1 AND d.name {{compared}} ?3 AND (i.mode & 61440 = 16384 OR parts <> 0)
ORDER BY d.name LIMIT {PAGE}
"""

OF_NEW = f"""
SELECT e.name, e.ino, j.mode FROM other.dentry AS e CROSS JOIN other.inode AS j ON j.ino = e.ino
WHERE e.parent = ?2 AND e.name {{compared}} ?3
AND NOT EXISTS (SELECT 1 FROM main.dentry AS d CROSS JOIN main.inode AS i ON i.ino = d.ino
                WHERE d.parent = ?1 AND d.name = e.name)
ORDER BY e.name LIMIT {PAGE}
"""

OF_INODES = f"SELECT {_PARTS} FROM main.inode AS i LEFT JOIN other.inode AS j ON j.ino = ?2 WHERE i.ino = ?1"

"""Layouts: what the path of an artifact says of it, and which path an artifact has. Text to tokens to text.

Lives here: the pattern language (`patterns`, `expressions`), its matcher (`matching`, `nodes`,
`token_nodes`, `runs`), layouts (`layout`, `builtin`, `files` for TOML), paths from one layout to another
(`translation`), why a path is none of a layout (`explanation`), orders of versions (`versions`).
Uses errors only: no I/O, no clock.
State: what expressions and prepared layouts remember, all of it derived; any thread may use them.

    builtin("maven-2-default").parse(b"org/foo/core/1.0/core-1.0.jar")    Coordinates, or None
    builtin("ivy-default").build(coordinates)                             bytes, or LayoutError: why not
    translate(path, source, target)                                       both in one
    explain(path, layouts)                                                why, and why not
    prepare(Definition(name=…, artifact=…)), from_toml(text)              layouts of one's own
    layout.order.key(revision)                                            for sorted() and max()

Paths are bytes, relative to their repository. One that is not UTF-8 belongs to no artifact: coordinates are
text, in rows, JSON and on terminals, and no package client makes others. Whatever parses is built again byte
for byte. Where two paths mean the same organisation (a.b/c and a/b/c), `org` is the same and `org_path` the
difference; the canonical one, made where only `org` is known, has a slash for each dot.

Whether an artifact is an integration (a snapshot, a pre-release) is said by its path
(`Coordinates.integration`) or else by its revision (`Order.integration`).

Checksums and signatures (.sha1, .asc, .asc.md5) have the coordinates of the artifact that they accompany,
with `companion` set: they move along with it and are no artifacts. maven-metadata.xml is an index, with none.
"""

"""The namespace: names and attributes as rows of one SQLite database. Knows rows, never blob files.

The only package that imports apsw or holds SQL; uses only types and errors. State: one connection, owned by
the thread that opened it.
"""

"""The namespace: names and attributes as rows of one SQLite database. Knows rows, never blob files.

The only package that imports apsw or holds SQL.
"""

"""Backups: stores that keep snapshots of other stores, each with the blobs it refers to.

From the source and the destination as they lie on disk; whoever has them mounted goes on meanwhile.
"""

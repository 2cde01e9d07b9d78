"""Backups: stores that keep snapshots of other stores, each with the blobs it refers to.

Uses the snapshots, the namespace and the filestore of both; whoever has them mounted goes on meanwhile.
State: what lies in the destination, so that who was interrupted goes on there.
"""

"""Snapshots of a store: STORE/snapshots/NAME has the database as it was, and what that refers to is kept.

Blobs never change, so a copy of the rows is the whole store at that moment. Uses the namespace and the
filestore. State: the folder of snapshots, which any process changes by rename(2) under flock(2); the
databases that who asks has open. How a snapshot is made is in maintenance/snapshots.
"""

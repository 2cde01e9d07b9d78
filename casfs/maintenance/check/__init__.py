"""Checking a store that nobody uses, or looks at while it is in use, and repairing it: fsck.

Uses the namespace and the filestore. State: none; what is found is told, or repaired under the store's lock.
"""

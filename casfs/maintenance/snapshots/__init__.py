"""Snapshots of a store: making them, what each has, what differs between two, bringing back what one has.

Uses `fs` for the store that they are made of, and the rows of `casfs.snapshots`. State: none but what one
call knows.
"""

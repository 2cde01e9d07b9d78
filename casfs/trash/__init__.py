"""The trash can: what goes is kept for a while, restored, or removed for good.

A policy of the file system (fs/policy.py) and a kind of directory (fs/nodes.py), on the floor above `fs`. Its
state in memory is that of one mounted store, owned by the thread that runs the file system.
"""

"""The trash can: what goes is kept for a while, restored, or removed for good.

A policy of the file system (fs/policy.py) and a kind of directory (fs/nodes.py); uses `fs`, which does not
know it. State: what was removed and has no rows yet, owned by the thread that runs the file system.
"""

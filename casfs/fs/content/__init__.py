"""Contents of regular files: open, staged, sealed.

Uses the inode table, the group commit and the filestore; knows nothing of names but what the trash keeps.
State: what is open and what is staged, owned by the thread that runs the file system.
"""

"""The file system: POSIX verbs over the namespace and the filestore.

Uses both and what is below; knows neither FUSE nor trio. State: inodes, names and contents in memory and the
open transaction of one store, owned by the thread that runs the file system.
"""

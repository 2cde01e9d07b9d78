"""casfs: a deduplicating file system. Any program can use it; every distinct content is kept once."""

__version__ = "0.1.0"

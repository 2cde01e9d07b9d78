"""The FUSE adapter: requests of the kernel translated to verbs of the file system. Only here is pyfuse3."""

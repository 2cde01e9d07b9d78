"""Adapter between the kernel's FUSE protocol and the verbs of the file system."""

from casfs.fuse import accelerator as accelerator  # before pyfuse3: see native/session.c

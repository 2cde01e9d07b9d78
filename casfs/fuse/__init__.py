"""Adapter between the kernel's FUSE protocol and the verbs of the file system.

The only package that imports pyfuse3; uses `fs`, on trio's event loop. State: the session, the handles and
what the kernel is known to remember, owned by the event loop's thread.
"""

from casfs.fuse import accelerator as accelerator  # before pyfuse3: see native/session.c

"""The filestore: every distinct content once, under its digest.

Lives here: the directory of a store and the seam through which its files change, the place of the blobs,
staged files, what waits to be written or removed. Uses what is below (types, system calls, space) and never
rows. State: the descriptor of STORE, the buffer of accepted blobs, the pool of staged files, the condemned.
"""

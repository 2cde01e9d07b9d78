/* READDIR and READDIRPLUS. */
#ifndef CASFS_READDIR_H
#define CASFS_READDIR_H

#include "serve.h"

/* Answer the request in the buffer, whose handler is there; the reply takes the request's place. */
void casfs_readdir(const struct fuse_in_header *in);

/* Put rows that had to be waited for into the buffer, as many as `room` has bytes for. -1 with an exception. */
int casfs_encode_names(PyObject *rows, bool plus, size_t room, size_t *size);

#endif

/* READDIR and READDIRPLUS. */
#ifndef CASFS_READDIR_H
#define CASFS_READDIR_H

#include "serve.h"

/* Answer the request in the buffer, whose handler is there; the reply takes the request's place. */
void casfs_readdir(const struct fuse_in_header *in);

#endif

/* The one FUSE session of the process: its descriptor, what INIT negotiated, the request that is under way. */
#ifndef CASFS_SESSION_H
#define CASFS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "protocol.h"

struct casfs_session {
	/* What `prepare` asks for. */
	bool wanted;
	bool want_passthrough;
	uint32_t stack_depth;

	/* Set when libfuse has mounted: the session is ours from here on. */
	bool installed;
	int fd;

	/* What INIT said. 0 before it. */
	uint64_t init_unique;
	uint32_t minor, kernel_flags, kernel_flags2;
	bool negotiated;
	bool passthrough;

	/* The buffer of the request under way, and whether libfuse is to take it. */
	char *buffer;
	size_t buffer_size;
	size_t pending;
	uint64_t requests; /* that have come so far */
	bool ended;
};

extern struct casfs_session session;

/* The size of a request at the most: libfuse 3 negotiates writes of up to 256 pages (FUSE_MAX_MAX_PAGES). */
size_t casfs_buffer_size(void);

/* Is the extension at path `pyfuse3` linked with the same libfuse as this one? */
bool casfs_same_libfuse(const char *pyfuse3);

/* Remember what the kernel offers. */
void casfs_see_init(const struct fuse_in_header *header, size_t size);

#endif

/* The FUSE kernel protocol: linux/fuse.h of the headers the machine has, and what came after them.
 *
 * Each addition names the protocol minor that brought it (the changelog at the head of linux/fuse.h). All of
 * them are used only when INIT has shown that the kernel speaks them: session.c.
 */
#ifndef CASFS_PROTOCOL_H
#define CASFS_PROTOCOL_H

#include <linux/fuse.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* 7.40: passthrough. `backing_id` takes the place of `padding` in struct fuse_open_out. */
#define CASFS_INIT_PASSTHROUGH (1u << (37 - 32)) /* in flags2 */
#define CASFS_FOPEN_PASSTHROUGH (1u << 7)

struct casfs_open_out {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id;
};

/* 7.40: `max_stack_depth` is the first of the unused words of struct fuse_init_out. */
struct casfs_init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
	uint32_t unused[6];
};

struct casfs_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define CASFS_BACKING_OPEN _IOW(FUSE_DEV_IOC_MAGIC, 1, struct casfs_backing_map)
#define CASFS_BACKING_CLOSE _IOW(FUSE_DEV_IOC_MAGIC, 2, uint32_t)

/* 7.45: copy_file_range with a reply of 64 bits; the request is that of FUSE_COPY_FILE_RANGE. */
#define CASFS_COPY_FILE_RANGE_64 53

/* Linux 6.1. */
#define CASFS_TMPFILE 51

struct casfs_copy_file_range_out {
	uint64_t bytes_copied;
};

_Static_assert(sizeof(struct casfs_open_out) == sizeof(struct fuse_open_out), "fuse_open_out");
_Static_assert(sizeof(struct casfs_init_out) == 64 && sizeof(struct fuse_init_out) == 64, "fuse_init_out");
_Static_assert(sizeof(struct fuse_in_header) == 40 && sizeof(struct fuse_out_header) == 16, "headers");
_Static_assert(sizeof(struct fuse_attr) == 88 && sizeof(struct fuse_entry_out) == 128, "attributes");

#endif

/* Serving requests: the loop (serve.c), what each asks for (dispatch.c), the calls into Python and the replies
 * (replies.c), attributes (attributes.c). Everything runs on the event loop's thread. */
#ifndef CASFS_SERVE_H
#define CASFS_SERVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "session.h"

/* What `serve` returns. */
enum casfs_state {
	CASFS_IDLE,    /* no request came in time, and nothing else is there to do */
	CASFS_PENDING, /* a request for libfuse: it has to take it now */
	CASFS_BURST,   /* so many requests are served, or none is there: others want their turn */
	CASFS_WOKEN,   /* a thread has finished something */
	CASFS_ENDED,   /* unmounted */
};

#define CASFS_OPCODES 64

/* Seconds the kernel may keep names and attributes: only this daemon changes them, and it tells. */
#define CASFS_FOREVER (365ull * 86400)

/* Seconds it may keep what is on the way to a snapshot. */
#define CASFS_BRIEFLY 1

/* Numbers from it on are of inodes that no row has (fs/nodes.py). */
#define CASFS_GENERATED (1ull << 62)

/* The numbers of sidecars, without what tells them from each other: they are shown as files are. */
#define CASFS_SIDECARS (CASFS_GENERATED >> 54 | 2)

/* The directory /.casfs, where no row has it, and that of all snapshots, above which are those of what they show:
 * in the low bits the number that it had. */
#define CASFS_BASE (CASFS_GENERATED | 1ull << 54)
#define CASFS_SNAPSHOTS (CASFS_GENERATED | 3ull << 54)
#define CASFS_SNAPSHOT_BITS 40

/* The Inode fields that attributes are made of, in the order of `field_names` (attributes.c); those before F_ROW are
 * numbers, and columns of a listing's rows (readdir.c). */
enum casfs_field {
	F_INO, F_MODE, F_NLINK, F_UID, F_GID, F_RDEV, F_SIZE, F_ALLOCATED, F_ATIME, F_MTIME, F_CTIME, F_ROW,
	F_CONTENT = F_ROW, F_XATTRS,
	F_COUNT
};

struct casfs_python {
	PyObject *handlers[CASFS_OPCODES]; /* opcode -> callable, or NULL: left to libfuse */
	PyObject *suspended;               /* (coroutine, opcode, unique, what it yielded): go on with it */
	PyObject *failed;                  /* (exception, opcode, answered) -> errno, see module.c */
	PyObject *inodes;                  /* dict: number -> Inode, what is in memory */
	PyObject *buffer;                  /* bytes: what `session.buffer` lies in */
	PyObject *unlinked;                /* set of inode numbers that wait for FORGET */
	PyObject *derived;                 /* dict: directories whose names follow from others */
	Py_ssize_t offsets[F_COUNT];       /* where an Inode has its slots */
	int64_t show_uid, show_gid, show_mask; /* -o uid=, gid=, umask=; -1 for none */
	PyObject *runnable;                /* set: not empty while there is something else to do */
	int wake_fd;                       /* eventfd that threads write to */
	bool suspends;                     /* did the last request have to wait? */
};

extern struct casfs_python python;

/* Find the slots of the class of inodes. -1 with an exception when they are not there. */
int casfs_learn_inode(PyObject *type);

/* Have a request buffer that nobody else looks into. -1 with an exception. */
int casfs_renew_buffer(void);

/* Serve up to `burst` requests, each awaited `patience` ms at the most, and not at all while anything else could
 * run. -1 with an exception. */
int casfs_serve(int patience, int burst);

/* What stat(2) shows of an inode with these fields, under the mount's presentation. */
void casfs_present(struct fuse_attr *attr, const int64_t values[F_ROW]);

/* Seconds for which the kernel may remember a name of an inode, and attributes that last. */
uint64_t casfs_name_lasts(uint64_t ino);
uint64_t casfs_attributes_last(uint64_t ino);

/* Fill in the attributes of an Inode and how long they may be kept, in seconds. -1 with an exception. */
int casfs_fill_attr(struct fuse_attr *attr, uint64_t *valid, PyObject *inode);

/* The value an Inode has in a slot, borrowed. */
PyObject *casfs_slot(PyObject *inode, enum casfs_field field);

/* As casfs_fill_attr, for a name; None makes a negative entry. */
int casfs_fill_entry(struct fuse_entry_out *out, PyObject *inode);

/* Send a reply to request `unique`: an errno, or 0 and data. 0, or the errno of the device. */
int casfs_send_reply(uint64_t unique, int error, const void *data, size_t size);

/* Answer request `unique` with what its handler gave, or with the error that is set when `result` is NULL.
 * Steals `result`. */
void casfs_answer(uint32_t opcode, uint64_t unique, PyObject *result);

/* Run a handler's coroutine up to its end, or to its first wait, and hand it to `suspended` then. Steals `result`. */
void casfs_start(uint32_t opcode, uint64_t unique, PyObject *result);

/* The kernel has given up on an open: nobody will ever release the handle. */
void casfs_release_unanswered(uint64_t fh);

/* Serve the request in the buffer; false when libfuse has to. */
bool casfs_dispatch(const struct fuse_in_header *in, size_t size);

/* reply_early(result): answer the request under way now, as if its coroutine gave `result`; what that still does is
 * nobody's to wait for. For a coroutine that goes on after a wait it does nothing: its end answers. */
PyObject *casfs_reply_early(PyObject *self, PyObject *result);

#endif

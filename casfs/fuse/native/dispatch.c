#include "serve.h"

#include "leases.h"
#include "readdir.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Bytes of a WRITE up to which a copy is cheaper than a view. */
#define COPIED_PAYLOAD (32u << 10)

/* Is it a directory whose names follow from others? Those may have to follow first. */
static bool is_derived(uint64_t node)
{
	if (!PyDict_GET_SIZE(python.derived))
		return false;
	PyObject *ino = PyLong_FromUnsignedLongLong(node);
	int found = ino ? PyDict_Contains(python.derived, ino) : -1;
	if (found < 0)
		PyErr_Clear();
	Py_XDECREF(ino);
	return found == 1;
}

/* Call the handler of a request with `count` arguments, whose references are taken over. */
static void call(const struct fuse_in_header *in, uint32_t opcode, PyObject **arguments, size_t count)
{
	PyObject *result = NULL;
	bool complete = true;
	for (size_t i = 0; i < count; i++)
		complete = complete && arguments[i];
	if (complete)
		result = PyObject_Vectorcall(python.handlers[opcode], arguments, count, NULL);
	for (size_t i = 0; i < count; i++)
		Py_XDECREF(arguments[i]);
	if (result)
		casfs_start(in->opcode, in->unique, result);
	else
		casfs_answer(in->opcode, in->unique, NULL);
}

#define U(value) PyLong_FromUnsignedLongLong(value)
#define I(value) PyLong_FromLongLong(value)
#define S(text) PyBytes_FromString(text)
#define CALL(opcode, ...)                                                                  \
	do {                                                                               \
		PyObject *arguments[] = {__VA_ARGS__};                                     \
		call(in, opcode, arguments, sizeof arguments / sizeof *arguments);         \
	} while (0)

/* Requests */

/* The seconds sent are signed. What does not fit becomes the first or last whole second that does, as Linux does it
 * for what a file system cannot keep (timestamp_truncate, fs/inode.c). */
static int64_t nanoseconds(uint64_t sent, uint32_t rest)
{
	const int64_t second = 1000000000, last = INT64_MAX / second, seconds = (int64_t)sent;
	if (seconds >= last)
		return last * second;
	return seconds <= -last ? -last * second : seconds * second + rest;
}

static PyObject *handler_for(uint32_t opcode)
{
	return opcode < CASFS_OPCODES ? python.handlers[opcode] : NULL;
}

/* Bytes of the buffer as a Python object: copied while that is cheap, else a view. Who keeps a view keeps the
 * buffer: `casfs_renew_buffer`. */
static PyObject *payload(const char *start, size_t size)
{
	if (size <= COPIED_PAYLOAD)
		return PyBytes_FromStringAndSize(start, (Py_ssize_t)size);
	PyObject *from = NULL, *to = NULL, *slice = NULL, *part = NULL;
	PyObject *whole = PyMemoryView_FromObject(python.buffer);
	if (whole && (from = PyLong_FromSsize_t(start - session.buffer)) &&
	    (to = PyLong_FromSsize_t(start - session.buffer + (Py_ssize_t)size)) &&
	    (slice = PySlice_New(from, to, NULL)))
		part = PyObject_GetItem(whole, slice);
	Py_XDECREF(slice);
	Py_XDECREF(to);
	Py_XDECREF(from);
	Py_XDECREF(whole);
	return part;
}

/* Inodes without names go when the kernel forgets them; of the others nothing has to be known. */
static void forget(const struct fuse_in_header *in, const uint64_t *first, size_t step, size_t count)
{
	if (!PySet_GET_SIZE(python.unlinked) || !python.handlers[FUSE_FORGET])
		return;
	PyObject *found = PyList_New(0);
	for (size_t i = 0; found && i < count; i++) {
		PyObject *ino = U(*(const uint64_t *)((const char *)first + i * step));
		if (!ino || PySet_Contains(python.unlinked, ino) != 1 || PyList_Append(found, ino) < 0)
			PyErr_Clear();
		Py_XDECREF(ino);
	}
	if (found && PyList_GET_SIZE(found)) {
		CALL(FUSE_FORGET, found);
	} else {
		PyErr_Clear();
		Py_XDECREF(found);
	}
}

/* Answer from the attributes of an inode in memory: before a first write(2) the kernel asks each file for its
 * capabilities, and `ls -l` for its access list. What is not in memory or not simply stored goes to libfuse. */
static bool get_xattr(const struct fuse_in_header *in, const struct fuse_getxattr_in *arg, size_t length)
{
	const char *name = (const char *)(arg + 1);
	if (length <= sizeof *arg || strncmp(name, "user.casfs.", 11) == 0 ||
	    (strncmp(name, "security.", 9) && strncmp(name, "user.", 5) && strncmp(name, "system.posix_acl_", 17)) ||
	    name[strlen(name) - 1] == '.') /* half a name is no absent one */
		return false;
	if (python.show_mask >= 0 && name[0] == 's' && name[1] == 'y') /* Presentation.has_lists */
		return false;
	PyObject *ino = U(in->nodeid), *key = S(name), *value = NULL;
	PyObject *inode = ino ? PyDict_GetItemWithError(python.inodes, ino) : NULL;
	PyObject *held = inode ? casfs_slot(inode, F_XATTRS) : NULL;
	bool known = key && held && PyDict_CheckExact(held);
	if (known)
		value = PyDict_GetItemWithError(held, key);
	if (known && !value) {
		casfs_send_reply(in->unique, ENODATA, NULL, 0);
	} else if (known && PyBytes_CheckExact(value)) {
		size_t size = (size_t)PyBytes_GET_SIZE(value);
		struct fuse_getxattr_out out = {.size = (uint32_t)size};
		if (!arg->size)
			casfs_send_reply(in->unique, 0, &out, sizeof out);
		else if (size > arg->size)
			casfs_send_reply(in->unique, ERANGE, NULL, 0);
		else
			casfs_send_reply(in->unique, 0, PyBytes_AS_STRING(value), size);
	} else {
		known = false;
	}
	PyErr_Clear();
	Py_XDECREF(key);
	Py_XDECREF(ino);
	return known;
}

/* Open with a handle that is kept open, if there is one. */
static bool open_leased(const struct fuse_in_header *in)
{
	struct casfs_open_out out = {0};
	PyObject *ino = U(in->nodeid);
	if (ino)
		out.fh = casfs_lease_open(ino, &out.open_flags);
	PyErr_Clear();
	Py_XDECREF(ino);
	if (out.fh && casfs_send_reply(in->unique, 0, &out, sizeof out) == ENOENT)
		casfs_release_unanswered(out.fh);
	return out.fh != 0;
}

/* Serve the request in the buffer; false when libfuse has to. The kernel has made it: names end with a zero
 * byte, and sizes are right (fs/fuse/dev.c); what is shorter than its struct goes to libfuse, which checks. */
bool casfs_dispatch(const struct fuse_in_header *in, size_t size)
{
	uint32_t opcode = in->opcode;
	const void *body = in + 1;
	size_t length = size - sizeof *in;
	uint64_t node = in->nodeid;

	switch (opcode) {
	case FUSE_FORGET:
		forget(in, &in->nodeid, 0, 1);
		return true;
	case FUSE_BATCH_FORGET: {
		const struct fuse_batch_forget_in *batch = body;
		const struct fuse_forget_one *one = (const void *)(batch + 1);
		if (length < sizeof *batch || (length - sizeof *batch) / sizeof *one < batch->count)
			return true;
		forget(in, &one->nodeid, sizeof *one, batch->count);
		return true;
	}
	case FUSE_INTERRUPT: /* what is served here is answered in time or waits for the disk */
		return true;
	case FUSE_GETXATTR:
		if (get_xattr(in, body, length))
			return true;
		break;
	case FUSE_OPENDIR: /* from then on the kernel opens directories by itself and caches their names */
		casfs_send_reply(in->unique, ENOSYS, NULL, 0);
		return true;
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		if (handler_for(opcode) && handler_for(FUSE_GETATTR) && length >= sizeof(struct fuse_read_in)) {
			casfs_readdir(in);
			return true;
		}
		((struct fuse_read_in *)body)->fh = node;
		return false;
	case FUSE_FSYNCDIR:
		((struct fuse_fsync_in *)body)->fh = node;
		return false;
	case FUSE_COPY_FILE_RANGE:
	case CASFS_COPY_FILE_RANGE_64:
		opcode = FUSE_COPY_FILE_RANGE;
		break;
	default:
		break;
	}
	if (!handler_for(opcode))
		return false;

	switch (opcode) {
	case FUSE_LOOKUP:
		CALL(opcode, U(node), S(body));
		return true;
	case FUSE_GETATTR: {
		PyObject *ino = U(node);
		PyObject *inode = ino && !is_derived(node) ? PyDict_GetItemWithError(python.inodes, ino) : NULL;
		if (inode) {
			Py_DECREF(ino);
			Py_INCREF(inode);
			casfs_answer(opcode, in->unique, inode);
		} else {
			CALL(opcode, ino);
		}
		return true;
	}
	case FUSE_SETATTR: {
		const struct fuse_setattr_in *arg = body;
		CALL(opcode, U(node), U(arg->valid), U(arg->fh), U(arg->size),
		     I(nanoseconds(arg->atime, arg->atimensec)), I(nanoseconds(arg->mtime, arg->mtimensec)),
		     U(arg->mode), U(arg->uid), U(arg->gid), U(in->uid));
		return true;
	}
	case FUSE_GETXATTR: {
		const struct fuse_getxattr_in *arg = body;
		CALL(opcode, U(node), S((const char *)(arg + 1)), U(arg->size));
		return true;
	}
	case FUSE_READLINK:
		CALL(opcode, U(node));
		return true;
	case FUSE_SYMLINK: {
		const char *name = body, *target = name + strlen(name) + 1;
		CALL(opcode, U(node), S(name), S(target), U(in->uid), U(in->gid));
		return true;
	}
	case FUSE_MKNOD: {
		const struct fuse_mknod_in *arg = body;
		CALL(opcode, U(node), S((const char *)(arg + 1)), U(arg->mode), U(arg->rdev), U(arg->umask),
		     U(in->uid), U(in->gid));
		return true;
	}
	case FUSE_MKDIR: {
		const struct fuse_mkdir_in *arg = body;
		CALL(opcode, U(node), S((const char *)(arg + 1)), U(arg->mode), U(arg->umask), U(in->uid),
		     U(in->gid));
		return true;
	}
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		CALL(opcode, U(node), S(body), U(in->uid));
		return true;
	case FUSE_RENAME:
	case FUSE_RENAME2: {
		const struct fuse_rename2_in *arg = body;
		const char *old = opcode == FUSE_RENAME2 ? (const char *)(arg + 1)
							  : (const char *)body + sizeof(struct fuse_rename_in);
		uint32_t flags = opcode == FUSE_RENAME2 ? arg->flags : 0;
		CALL(opcode, U(node), S(old), U(arg->newdir), S(old + strlen(old) + 1), U(flags),
		     U(in->uid), U(in->gid));
		return true;
	}
	case FUSE_LINK: {
		const struct fuse_link_in *arg = body;
		CALL(opcode, U(arg->oldnodeid), U(node), S((const char *)(arg + 1)), U(in->uid));
		return true;
	}
	case FUSE_OPEN: {
		const struct fuse_open_in *arg = body;
		if ((arg->flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY && open_leased(in))
			return true;
		CALL(opcode, U(node), U(arg->flags), U(in->uid));
		return true;
	}
	case FUSE_CREATE: {
		const struct fuse_create_in *arg = body;
		CALL(opcode, U(node), S((const char *)(arg + 1)), U(arg->mode), U(arg->umask), U(arg->flags),
		     U(in->uid), U(in->gid));
		return true;
	}
	case CASFS_TMPFILE: { /* as CREATE, with a name that means nothing */
		const struct fuse_create_in *arg = body;
		CALL(opcode, U(node), U(arg->mode), U(arg->umask), U(arg->flags), U(in->uid), U(in->gid));
		return true;
	}
	case FUSE_READ: {
		const struct fuse_read_in *arg = body;
		CALL(opcode, U(arg->fh), U(arg->offset), U(arg->size));
		return true;
	}
	case FUSE_WRITE: {
		const struct fuse_write_in *arg = body;
		if (length < sizeof *arg + arg->size)
			return false;
		CALL(opcode, U(arg->fh), U(arg->offset), payload((const char *)(arg + 1), arg->size),
		     U(arg->write_flags), U(arg->flags));
		return true;
	}
	case FUSE_FLUSH:
	case FUSE_RELEASE: { /* both begin with the handle */
		uint64_t fh = ((const struct fuse_release_in *)body)->fh;
		if (opcode == FUSE_RELEASE && (fh & CASFS_LEASED) && !casfs_lease_release(fh))
			casfs_send_reply(in->unique, 0, NULL, 0);
		else
			CALL(opcode, U(fh));
		return true;
	}
	case FUSE_STATFS:
		CALL(opcode, U(node), U(in->uid));
		return true;
	case FUSE_FSYNC: {
		const struct fuse_fsync_in *arg = body;
		CALL(opcode, U(arg->fh));
		return true;
	}
	case FUSE_LSEEK: {
		const struct fuse_lseek_in *arg = body;
		CALL(opcode, U(arg->fh), I((int64_t)arg->offset), U(arg->whence));
		return true;
	}
	case FUSE_FALLOCATE: {
		const struct fuse_fallocate_in *arg = body;
		CALL(opcode, U(arg->fh), U(arg->offset), U(arg->length), U(arg->mode),
		     U(in->uid));
		return true;
	}
	case FUSE_COPY_FILE_RANGE: {
		const struct fuse_copy_file_range_in *arg = body;
		CALL(opcode, U(arg->fh_in), U(arg->off_in), U(arg->fh_out), U(arg->off_out), U(arg->len),
		     U(in->uid));
		return true;
	}
	default:
		return false;
	}
}

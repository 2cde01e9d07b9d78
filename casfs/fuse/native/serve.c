#include "serve.h"

#include "leases.h"
#include "readdir.h"

#include <descrobject.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct casfs_python python = {.wake_fd = -1};

/* st_blksize: what programs should read and write at a time. */
#define BLOCK_SIZE (128u << 10)

/* Bytes of a WRITE up to which a copy is cheaper than a view. */
#define COPIED_PAYLOAD (32u << 10)

static const char *const field_names[F_COUNT] = {
	"ino", "mode", "nlink", "uid", "gid", "rdev", "size", "allocated", "atime", "mtime", "ctime",
	"content", "xattrs",
};

int casfs_learn_inode(PyObject *type)
{
	for (int i = 0; i < F_COUNT; i++) {
		PyObject *descriptor = PyObject_GetAttrString(type, field_names[i]);
		if (!descriptor)
			return -1;
		if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
			Py_DECREF(descriptor);
			PyErr_Format(PyExc_TypeError, "Inode.%s is not a slot", field_names[i]);
			return -1;
		}
		python.offsets[i] = ((PyMemberDescrObject *)descriptor)->d_member->offset;
		Py_DECREF(descriptor);
	}
	return 0;
}

/* Attributes */

static PyObject *slot(PyObject *inode, enum casfs_field field)
{
	return *(PyObject **)((char *)inode + python.offsets[field]);
}

static int64_t number(PyObject *inode, enum casfs_field field)
{
	PyObject *value = slot(inode, field);
	if (!value) {
		PyErr_Format(PyExc_AttributeError, "Inode.%s is not set", field_names[field]);
		return -1;
	}
	return PyLong_AsLongLong(value);
}

static void set_time(int64_t ns, uint64_t *seconds, uint32_t *rest)
{
	int64_t whole = ns / 1000000000, part = ns % 1000000000;
	if (part < 0) {
		whole--;
		part += 1000000000;
	}
	*seconds = (uint64_t)whole;
	*rest = (uint32_t)part;
}

void casfs_present(struct fuse_attr *attr, const int64_t values[F_ROW])
{
	uint32_t mode = (uint32_t)values[F_MODE];
	bool directory = S_ISDIR(mode);
	memset(attr, 0, sizeof *attr);
	attr->ino = (uint64_t)values[F_INO];
	attr->size = directory ? 4096 : (uint64_t)values[F_SIZE];
	attr->blocks = directory ? 0 : (uint64_t)values[F_ALLOCATED] >> 9;
	set_time(values[F_ATIME], &attr->atime, &attr->atimensec);
	set_time(values[F_MTIME], &attr->mtime, &attr->mtimensec);
	set_time(values[F_CTIME], &attr->ctime, &attr->ctimensec);
	attr->mode = python.show_mask >= 0 ? (mode & ~0777u) | (0777u & ~(uint32_t)python.show_mask) : mode;
	attr->nlink = (uint32_t)values[F_NLINK];
	attr->uid = (uint32_t)(python.show_uid >= 0 ? python.show_uid : values[F_UID]);
	attr->gid = (uint32_t)(python.show_gid >= 0 ? python.show_gid : values[F_GID]);
	attr->rdev = (uint32_t)values[F_RDEV];
	attr->blksize = BLOCK_SIZE;
}

int casfs_fill_attr(struct fuse_attr *attr, uint64_t *valid, PyObject *inode)
{
	if (!python.offsets[F_MODE] || !inode || inode == Py_None) {
		PyErr_SetString(PyExc_TypeError, "no inode to show");
		return -1;
	}
	long long allocated = 0;
	int lasting = 1;
	PyObject *content = slot(inode, F_CONTENT);
	bool open = content && content != Py_None;
	if (open) { /* before the times are read: it may move them */
		PyObject *seen = PyObject_CallMethod(content, "observe", NULL);
		bool fits = seen && PyArg_ParseTuple(seen, "Lp", &allocated, &lasting);
		Py_XDECREF(seen);
		if (!fits)
			return -1;
	}
	int64_t values[F_ROW];
	for (int field = 0; field < F_ROW; field++)
		values[field] = number(inode, field);
	if (open)
		values[F_ALLOCATED] = allocated;
	casfs_present(attr, values);
	*valid = lasting ? CASFS_FOREVER : 0;
	return PyErr_Occurred() ? -1 : 0;
}

static int fill_entry(struct fuse_entry_out *out, PyObject *inode)
{
	memset(out, 0, sizeof *out);
	out->entry_valid = CASFS_FOREVER;
	if (inode == Py_None) /* nodeid 0: a negative entry */
		return 0;
	if (casfs_fill_attr(&out->attr, &out->attr_valid, inode) < 0)
		return -1;
	out->nodeid = out->attr.ino;
	return 0;
}

/* Replies */

int casfs_send_reply(uint64_t unique, int error, const void *data, size_t size)
{
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof header + size), .error = -error, .unique = unique};
	struct iovec iov[2] = {{&header, sizeof header}, {(void *)data, size}};
	ssize_t sent = writev(session.fd, iov, size ? 2 : 1);
	return sent < 0 ? errno : 0;
}

/* The errno of the exception that is set; clears it. */
static int take_error(uint32_t opcode)
{
	PyObject *type, *value, *trace;
	int number = 0;
	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace)
		PyException_SetTraceback(value, trace);
	if (PyErr_GivenExceptionMatches(type, PyExc_OSError)) {
		PyObject *held = PyObject_GetAttrString(value, "errno");
		if (held && PyLong_Check(held))
			number = (int)PyLong_AsLong(held);
		Py_XDECREF(held);
	} else {
		PyObject *given = PyObject_CallFunction(python.failed, "OI", value, opcode);
		if (given && PyLong_Check(given))
			number = (int)PyLong_AsLong(given);
		Py_XDECREF(given);
	}
	PyErr_Clear();
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(trace);
	return number > 0 && number < 512 ? number : EIO;
}

static void start_coroutine(uint32_t opcode, uint64_t unique, PyObject *result);

/* The kernel has given up on the request: nobody will ever release the handle. */
static void release_unanswered(uint64_t fh)
{
	if ((fh & CASFS_LEASED) && !casfs_lease_release(fh))
		return;
	PyObject *handler = python.handlers[FUSE_RELEASE];
	PyObject *result = handler ? PyObject_CallFunction(handler, "K", (unsigned long long)fh) : NULL;
	if (result)
		start_coroutine(FUSE_RELEASE, 0, result);
	else
		PyErr_Clear();
}

static int fill_open(struct casfs_open_out *out, PyObject *result, Py_ssize_t first)
{
	unsigned long long fh;
	unsigned int flags;
	int backing;
	memset(out, 0, sizeof *out);
	if (!PyTuple_Check(result) || PyTuple_GET_SIZE(result) != first + 3) {
		PyErr_SetString(PyExc_TypeError, "an open gives (handle, flags, backing id)");
		return -1;
	}
	fh = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(result, first));
	flags = (unsigned int)PyLong_AsUnsignedLong(PyTuple_GET_ITEM(result, first + 1));
	backing = (int)PyLong_AsLong(PyTuple_GET_ITEM(result, first + 2));
	if (PyErr_Occurred())
		return -1;
	out->fh = fh;
	out->open_flags = flags;
	out->backing_id = backing;
	return 0;
}

void casfs_answer(uint32_t opcode, uint64_t unique, PyObject *result)
{
	union {
		struct fuse_entry_out entry;
		struct fuse_attr_out attr;
		struct casfs_open_out open;
		struct fuse_write_out write;
		struct fuse_lseek_out lseek;
		struct casfs_copy_file_range_out copied;
		struct {
			struct fuse_entry_out entry;
			struct casfs_open_out open;
		} create;
	} out;
	const void *data = &out;
	size_t size = 0;
	Py_buffer view = {.obj = NULL};
	int failed = result == NULL;

	if (!failed) {
		switch (opcode) {
		case FUSE_LOOKUP:
		case FUSE_MKNOD:
		case FUSE_MKDIR:
		case FUSE_SYMLINK:
		case FUSE_LINK:
			failed = fill_entry(&out.entry, result);
			size = sizeof out.entry;
			break;
		case FUSE_GETATTR:
		case FUSE_SETATTR:
			memset(&out.attr, 0, sizeof out.attr);
			failed = casfs_fill_attr(&out.attr.attr, &out.attr.attr_valid, result);
			size = sizeof out.attr;
			break;
		case FUSE_OPEN:
			failed = fill_open(&out.open, result, 0);
			size = sizeof out.open;
			break;
		case FUSE_CREATE:
			failed = fill_open(&out.create.open, result, 1) < 0 ||
				 fill_entry(&out.create.entry, PyTuple_GET_ITEM(result, 0)) < 0;
			size = sizeof out.create;
			break;
		case FUSE_READ:
		case FUSE_READLINK:
			failed = PyObject_GetBuffer(result, &view, PyBUF_SIMPLE);
			data = view.buf;
			size = failed ? 0 : (size_t)view.len;
			break;
		case FUSE_WRITE:
		case FUSE_COPY_FILE_RANGE:
			memset(&out.write, 0, sizeof out.write);
			out.write.size = (uint32_t)PyLong_AsUnsignedLong(result);
			failed = PyErr_Occurred() != NULL;
			size = sizeof out.write;
			break;
		case CASFS_COPY_FILE_RANGE_64:
			out.copied.bytes_copied = PyLong_AsUnsignedLongLong(result);
			failed = PyErr_Occurred() != NULL;
			size = sizeof out.copied;
			break;
		case FUSE_LSEEK:
			out.lseek.offset = PyLong_AsUnsignedLongLong(result);
			failed = PyErr_Occurred() != NULL;
			size = sizeof out.lseek;
			break;
		default: /* nothing but success */
			break;
		}
	}
	if (opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && unique) {
		int refused = failed ? casfs_send_reply(unique, take_error(opcode), NULL, 0)
				     : casfs_send_reply(unique, 0, data, size);
		if (refused == ENOENT && !failed && opcode == FUSE_OPEN)
			release_unanswered(out.open.fh);
		else if (refused == ENOENT && !failed && opcode == FUSE_CREATE)
			release_unanswered(out.create.open.fh);
	} else if (failed) {
		take_error(opcode);
	}
	if (view.obj)
		PyBuffer_Release(&view);
	Py_XDECREF(result);
}

/* Calling Python */

/* Run a handler's coroutine up to its end, or to its first wait, and then hand it to a task. */
static void start_coroutine(uint32_t opcode, uint64_t unique, PyObject *result)
{
	if (!PyCoro_CheckExact(result)) {
		casfs_answer(opcode, unique, result);
		return;
	}
	PyObject *value = NULL;
	PySendResult state = PyIter_Send(result, Py_None, &value);
	if (state == PYGEN_NEXT) {
		Py_XDECREF(value);
		PyObject *done = PyObject_CallFunction(
			python.suspended, "OIK", result, opcode, (unsigned long long)unique);
		if (!done)
			casfs_answer(opcode, unique, NULL);
		Py_XDECREF(done);
		Py_DECREF(result);
		return;
	}
	Py_DECREF(result);
	casfs_answer(opcode, unique, state == PYGEN_RETURN ? value : NULL);
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
		start_coroutine(in->opcode, in->unique, result);
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

static int64_t nanoseconds(uint64_t seconds, uint32_t rest)
{
	return (int64_t)seconds * 1000000000 + rest;
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
	    (strncmp(name, "security.", 9) && strncmp(name, "user.", 5) && strncmp(name, "system.posix_acl_", 17)))
		return false;
	PyObject *ino = U(in->nodeid), *key = S(name), *value = NULL;
	PyObject *inode = ino ? PyDict_GetItemWithError(python.inodes, ino) : NULL;
	PyObject *held = inode ? slot(inode, F_XATTRS) : NULL;
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
		release_unanswered(out.fh);
	return out.fh != 0;
}

/* Serve the request in the buffer; false when libfuse has to. The kernel has made it: names end with a zero
 * byte, and sizes are right (fs/fuse/dev.c); what is shorter than its struct goes to libfuse, which checks. */
static bool dispatch(const struct fuse_in_header *in, size_t size)
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
		return get_xattr(in, body, length);
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
		PyObject *inode = ino ? PyDict_GetItemWithError(python.inodes, ino) : NULL;
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
		CALL(opcode, U(node), S(body));
		return true;
	case FUSE_RENAME:
	case FUSE_RENAME2: {
		const struct fuse_rename2_in *arg = body;
		const char *old = opcode == FUSE_RENAME2 ? (const char *)(arg + 1)
							  : (const char *)body + sizeof(struct fuse_rename_in);
		uint32_t flags = opcode == FUSE_RENAME2 ? arg->flags : 0;
		CALL(opcode, U(node), S(old), U(arg->newdir), S(old + strlen(old) + 1), U(flags));
		return true;
	}
	case FUSE_LINK: {
		const struct fuse_link_in *arg = body;
		CALL(opcode, U(arg->oldnodeid), U(node), S((const char *)(arg + 1)));
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
		     U(arg->write_flags));
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
		CALL(opcode, U(arg->fh), U(arg->offset), U(arg->length), U(arg->mode));
		return true;
	}
	case FUSE_COPY_FILE_RANGE: {
		const struct fuse_copy_file_range_in *arg = body;
		CALL(opcode, U(arg->fh_in), U(arg->off_in), U(arg->fh_out), U(arg->off_out), U(arg->len));
		return true;
	}
	default:
		return false;
	}
}

/* The loop */

/* Have a buffer that nobody else looks into: the data of a WRITE that goes on in a task stays where it is. */
int casfs_renew_buffer(void)
{
	if (python.buffer && Py_REFCNT(python.buffer) == 1)
		return 0;
	PyObject *fresh = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)casfs_buffer_size());
	if (!fresh)
		return -1;
	Py_XDECREF(python.buffer);
	python.buffer = fresh;
	session.buffer = PyBytes_AS_STRING(fresh);
	return 0;
}

/* Wait for a request and read it, without the GIL. Its size, 0 for none, or -errno; `woken` by a thread. */
static ssize_t receive(int patience, bool *woken)
{
	ssize_t size = 0;
	Py_BEGIN_ALLOW_THREADS
	struct pollfd polled[2] = {{session.fd, POLLIN, 0}, {python.wake_fd, POLLIN, 0}};
	int ready = poll(polled, 2, patience);
	if (ready > 0 && polled[1].revents) {
		uint64_t count;
		*woken = read(python.wake_fd, &count, sizeof count) > 0;
	}
	if (ready > 0 && polled[0].revents) {
		size = read(session.fd, session.buffer, casfs_buffer_size());
		if (size < 0)
			size = -errno;
	}
	Py_END_ALLOW_THREADS
	return size;
}

int casfs_serve(int patience, int burst)
{
	bool woken = false;
	if (session.pending)
		return CASFS_PENDING;
	for (int served = 0; served < burst; served++) {
		if (session.ended)
			return CASFS_ENDED;
		if (casfs_renew_buffer() < 0)
			return -1;
		ssize_t size = receive(patience, &woken);
		if (size == -ENODEV) {
			session.ended = true;
			return CASFS_ENDED;
		}
		if (size < 0 && size != -EINTR && size != -EAGAIN && size != -ENOENT) {
			errno = (int)-size;
			PyErr_SetFromErrno(PyExc_OSError);
			return -1;
		}
		if (size >= (ssize_t)sizeof(struct fuse_in_header)) {
			const struct fuse_in_header *in = (const void *)session.buffer;
			if (in->opcode == FUSE_INIT)
				casfs_see_init(in, (size_t)size);
			if (!dispatch(in, (size_t)size)) {
				session.pending = (size_t)size;
				return CASFS_PENDING;
			}
		} else if (!woken) {
			return size == 0 ? CASFS_IDLE : CASFS_BURST;
		}
		if (woken)
			return CASFS_WOKEN;
	}
	return CASFS_BURST;
}

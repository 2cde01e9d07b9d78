#include "serve.h"

#include "leases.h"
#include "readdir.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

/* Bytes that every READDIR asks for, at the least: what a listing that had to wait is answered with. */
#define LEAST_LISTING 4096

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
static int take_error(uint32_t opcode, bool answered)
{
	PyObject *type, *value, *trace;
	int number = 0;
	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace)
		PyException_SetTraceback(value, trace);
	if (!answered && PyErr_GivenExceptionMatches(type, PyExc_OSError)) {
		PyObject *held = PyObject_GetAttrString(value, "errno");
		number = held && PyLong_Check(held) ? (int)PyLong_AsLong(held) : EIO;
		Py_XDECREF(held);
	}
	if (!number || number == EBADF) { /* of a descriptor of ours: verbs are given handles */
		PyObject *given = PyObject_CallFunction(python.failed, "OIO", value, opcode, answered ? Py_True : Py_False);
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


/* The kernel has given up on the request: nobody will ever release the handle. */
void casfs_release_unanswered(uint64_t fh)
{
	if ((fh & CASFS_LEASED) && !casfs_lease_release(fh))
		return;
	PyObject *handler = python.handlers[FUSE_RELEASE];
	PyObject *result = handler ? PyObject_CallFunction(handler, "K", (unsigned long long)fh) : NULL;
	if (result)
		casfs_start(FUSE_RELEASE, 0, result);
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
			failed = casfs_fill_entry(&out.entry, result);
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
		case CASFS_TMPFILE:
			failed = fill_open(&out.create.open, result, 1) < 0 ||
				 casfs_fill_entry(&out.create.entry, PyTuple_GET_ITEM(result, 0)) < 0;
			size = sizeof out.create;
			break;
		case FUSE_READ:
		case FUSE_READLINK:
		case FUSE_GETXATTR:
		case FUSE_STATFS:
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
		case FUSE_READDIR:
		case FUSE_READDIRPLUS:
			failed = casfs_encode_names(result, opcode == FUSE_READDIRPLUS, LEAST_LISTING, &size);
			data = session.buffer;
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
		int refused = failed ? casfs_send_reply(unique, take_error(opcode, false), NULL, 0)
				     : casfs_send_reply(unique, 0, data, size);
		if (refused == ENOENT && !failed && opcode == FUSE_OPEN)
			casfs_release_unanswered(out.open.fh);
		else if (refused == ENOENT && !failed && (opcode == FUSE_CREATE || opcode == CASFS_TMPFILE))
			casfs_release_unanswered(out.create.open.fh);
	} else if (failed) {
		take_error(opcode, false);
	}
	if (view.obj)
		PyBuffer_Release(&view);
	Py_XDECREF(result);
}

/* Calling Python */

/* The request whose coroutine runs, 0 when it has its answer or none does. */
static struct {
	uint64_t unique;
	uint32_t opcode;
} under_way;

PyObject *casfs_reply_early(PyObject *self, PyObject *result)
{
	(void)self;
	uint64_t unique = under_way.unique;
	under_way.unique = 0;
	if (unique)
		casfs_answer(under_way.opcode, unique, Py_NewRef(result));
	Py_RETURN_NONE;
}

void casfs_start(uint32_t opcode, uint64_t unique, PyObject *result)
{
	if (!PyCoro_CheckExact(result)) {
		casfs_answer(opcode, unique, result);
		return;
	}
	PyObject *value = NULL;
	under_way.unique = unique;
	under_way.opcode = opcode;
	PySendResult state = PyIter_Send(result, Py_None, &value);
	bool answered = unique && !under_way.unique;
	under_way.unique = 0;
	if (state == PYGEN_NEXT) {
		python.suspends = true;
		PyObject *done = PyObject_CallFunction(python.suspended, "OIKN", result, opcode,
						       (unsigned long long)(answered ? 0 : unique), value);
		if (!done)
			casfs_answer(opcode, unique, NULL);
		Py_XDECREF(done);
		Py_DECREF(result);
		return;
	}
	Py_DECREF(result);
	if (!answered)
		casfs_answer(opcode, unique, state == PYGEN_RETURN ? value : NULL);
	else if (state == PYGEN_RETURN)
		Py_DECREF(value);
	else
		take_error(opcode, true);
}

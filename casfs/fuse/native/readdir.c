/* A directory's entries, from the rows of the database straight into the reply.
 *
 * The handlers (fs/tree.py, names and rows) give tuples that begin with cookie, name and inode number. Then comes
 * the type (DT_* of readdir(3)), or, for READDIRPLUS, the other attributes in the order of `enum casfs_field`.
 * An inode in memory is newer than its row.
 */
#include "readdir.h"

#include <errno.h>
#include <string.h>

enum column { COOKIE, NAME, INO, TYPE, NAMED, MODE = TYPE };

/* Columns of a row with attributes. */
#define ATTRIBUTED (INO + F_ROW)

/* Rows are asked for as if each name were so long: longer ones leave rows over, shorter ones room. */
#define TYPICAL_NAME 16

/* The inode whose attributes count when the row's do not, or NULL: a new reference. -1 with an exception. */
static int newer_inode(PyObject *row, PyObject **inode)
{
	PyObject *ino = PyTuple_GET_ITEM(row, INO);
	*inode = Py_XNewRef(PyDict_GetItemWithError(python.inodes, ino));
	if (!*inode && PyTuple_GET_ITEM(row, MODE) == Py_None && !PyErr_Occurred())
		*inode = PyObject_CallOneArg(python.handlers[FUSE_GETATTR], ino);
	return PyErr_Occurred() ? -1 : 0;
}

static int fill_entry(struct fuse_entry_out *out, PyObject *row)
{
	PyObject *inode;
	int failed = newer_inode(row, &inode);
	out->entry_valid = CASFS_FOREVER;
	if (failed)
		return -1;
	if (inode) {
		failed = casfs_fill_attr(&out->attr, &out->attr_valid, inode);
		Py_DECREF(inode);
	} else {
		int64_t values[F_ROW];
		for (int field = 0; field < F_ROW; field++)
			values[field] = PyLong_AsLongLong(PyTuple_GET_ITEM(row, INO + field));
		casfs_present(&out->attr, values);
		out->attr_valid = casfs_attributes_last(out->attr.ino);
		failed = PyErr_Occurred() ? -1 : 0;
	}
	out->nodeid = out->attr.ino;
	out->entry_valid = casfs_name_lasts(out->nodeid);
	return failed;
}

/* Encode as many rows as there is room for. The bytes used; -1 with an exception. */
static Py_ssize_t encode(char *reply, size_t room, PyObject *rows, bool plus)
{
	size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET, used = 0;
	if (!PyList_Check(rows)) {
		PyErr_SetString(PyExc_TypeError, "a listing is a list of rows");
		return -1;
	}
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
		PyObject *row = PyList_GET_ITEM(rows, i);
		Py_ssize_t columns = PyTuple_Check(row) ? PyTuple_GET_SIZE(row) : 0;
		if ((columns != NAMED && !(plus && columns == ATTRIBUTED)) ||
		    !PyBytes_Check(PyTuple_GET_ITEM(row, NAME))) {
			PyErr_SetString(PyExc_TypeError, "a row of a listing is (cookie, name, ino, ...)");
			return -1;
		}
		PyObject *name = PyTuple_GET_ITEM(row, NAME);
		size_t length = (size_t)PyBytes_GET_SIZE(name), size = FUSE_DIRENT_ALIGN(head + length);
		if (size > room - used)
			break;
		char *start = reply + used;
		struct fuse_dirent *dirent = (void *)(start + head - FUSE_NAME_OFFSET);
		memset(start, 0, head);
		if (columns == NAMED) { /* READDIRPLUS: nodeid 0, the kernel learns nothing but the name */
			dirent->type = (uint32_t)PyLong_AsUnsignedLong(PyTuple_GET_ITEM(row, TYPE));
		} else {
			struct fuse_entry_out *entry = (void *)start;
			if (fill_entry(entry, row) < 0)
				return -1;
			dirent->type = entry->attr.mode >> 12;
		}
		dirent->ino = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(row, INO));
		dirent->off = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(row, COOKIE));
		dirent->namelen = (uint32_t)length;
		memcpy(start + head, PyBytes_AS_STRING(name), length);
		memset(start + head + length, 0, size - head - length);
		if (PyErr_Occurred())
			return -1;
		used += size;
	}
	if (!used && PyList_GET_SIZE(rows)) { /* an empty reply would be the end of the directory */
		errno = EINVAL;
		PyErr_SetFromErrno(PyExc_OSError);
		return -1;
	}
	return (Py_ssize_t)used;
}

int casfs_encode_names(PyObject *rows, bool plus, size_t room, size_t *size)
{
	Py_ssize_t used = encode(session.buffer, room, rows, plus);
	*size = used < 0 ? 0 : (size_t)used;
	return used < 0 ? -1 : 0;
}

void casfs_readdir(const struct fuse_in_header *in)
{
	const struct fuse_read_in *arg = (const void *)(in + 1);
	uint32_t opcode = in->opcode;
	uint64_t unique = in->unique;
	bool plus = opcode == FUSE_READDIRPLUS;
	size_t room = arg->size < casfs_buffer_size() ? arg->size : casfs_buffer_size();
	size_t typical = (plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET) + TYPICAL_NAME;
	PyObject *rows = PyObject_CallFunction(
		python.handlers[opcode], "KKn", (unsigned long long)in->nodeid, (unsigned long long)arg->offset,
		(Py_ssize_t)(room / typical + 1));
	if (rows && PyCoro_CheckExact(rows)) {
		casfs_start(opcode, unique, rows);
		return;
	}
	Py_ssize_t size = rows ? encode(session.buffer, room, rows, plus) : -1;
	Py_XDECREF(rows);
	if (size < 0)
		casfs_answer(opcode, unique, NULL);
	else
		casfs_send_reply(unique, 0, session.buffer, (size_t)size);
}

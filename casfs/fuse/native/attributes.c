#include "serve.h"

#include <descrobject.h>
#include <string.h>
#include <structmember.h>
#include <sys/stat.h>

/* st_blksize: what programs should read and write at a time. */
#define BLOCK_SIZE (128u << 10)

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
			PyErr_Format(PyExc_TypeError, "Inode.%s is not a casfs_slot", field_names[i]);
			return -1;
		}
		python.offsets[i] = ((PyMemberDescrObject *)descriptor)->d_member->offset;
		Py_DECREF(descriptor);
	}
	return 0;
}

/* Attributes */

PyObject *casfs_slot(PyObject *inode, enum casfs_field field)
{
	return *(PyObject **)((char *)inode + python.offsets[field]);
}

static int64_t number(PyObject *inode, enum casfs_field field)
{
	PyObject *value = casfs_slot(inode, field);
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
	attr->nlink = (uint32_t)values[F_NLINK];
	attr->rdev = (uint32_t)values[F_RDEV];
	attr->blksize = BLOCK_SIZE;
	attr->mode = mode;
	attr->uid = (uint32_t)values[F_UID];
	attr->gid = (uint32_t)values[F_GID];
	if (attr->ino >= CASFS_GENERATED && attr->ino <= CASFS_SNAPSHOTS && attr->ino >> 54 != CASFS_SIDECARS)
		return;
	attr->mode = python.show_mask >= 0 ? (mode & ~0777u) | (0777u & ~(uint32_t)python.show_mask) : mode;
	attr->uid = (uint32_t)(python.show_uid >= 0 ? python.show_uid : values[F_UID]);
	attr->gid = (uint32_t)(python.show_gid >= 0 ? python.show_gid : values[F_GID]);
}

/* As `seconds` of fs/nodes.py. */
uint64_t casfs_name_lasts(uint64_t ino)
{
	if (ino > CASFS_SNAPSHOTS && (ino & ((1ull << CASFS_SNAPSHOT_BITS) - 1)) == FUSE_ROOT_ID)
		return CASFS_BRIEFLY;
	return casfs_attributes_last(ino);
}

uint64_t casfs_attributes_last(uint64_t ino)
{
	if (ino < CASFS_GENERATED || ino > CASFS_SNAPSHOTS)
		return CASFS_FOREVER;
	return ino == CASFS_BASE || ino == CASFS_SNAPSHOTS ? CASFS_BRIEFLY : 0;
}

int casfs_fill_attr(struct fuse_attr *attr, uint64_t *valid, PyObject *inode)
{
	if (!python.offsets[F_MODE] || !inode || inode == Py_None) {
		PyErr_SetString(PyExc_TypeError, "no inode to show");
		return -1;
	}
	long long allocated = 0;
	int lasting = 1;
	PyObject *content = casfs_slot(inode, F_CONTENT);
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
	*valid = lasting ? casfs_attributes_last(attr->ino) : 0;
	return PyErr_Occurred() ? -1 : 0;
}

int casfs_fill_entry(struct fuse_entry_out *out, PyObject *inode)
{
	memset(out, 0, sizeof *out);
	out->entry_valid = CASFS_FOREVER;
	if (inode == Py_None) /* nodeid 0: a negative entry */
		return 0;
	if (casfs_fill_attr(&out->attr, &out->attr_valid, inode) < 0)
		return -1;
	out->nodeid = out->attr.ino;
	out->entry_valid = casfs_name_lasts(out->nodeid);
	return 0;
}

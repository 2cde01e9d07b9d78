/* casfs.fuse._native: the entry points. Called on the event loop's thread only, but for what says otherwise. */
#include "files.h"
#include "leases.h"
#include "serve.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

PyDoc_STRVAR(prepare_doc,
	"prepare(handlers, suspended, failed, inode_type, inodes, unlinked, derived, presentation, wake_fd, runnable, "
	"stack_depth)\n--\n\n"
	"Say how the session that pyfuse3 mounts next is to be served.\n\n"
	"handlers: dict, FUSE opcode (linux/fuse.h) -> callable with the request's fields (dispatch.c).\n"
	"suspended(coroutine, opcode, unique, wait): a handler has yielded `wait`; go on with it and call `finish`.\n"
	"failed(exception, opcode, answered) -> errno: for what is no OSError, or EBADF, or comes after `reply_early`.\n"
	"inodes, unlinked, derived: dicts and a set of fs/inodes.py, fs/tree.py, fs/nodes.py; they are looked into.\n"
	"presentation: (uid, gid, umask), -1 for what is not given.\n"
	"wake_fd, runnable: an eventfd, and the set of what could run now: `serve` does not sleep while there is some.\n"
	"stack_depth: FUSE's max_stack_depth, 0 for no passthrough.");

static PyObject *prepare(PyObject *self, PyObject *args)
{
	PyObject *handlers, *suspended, *failed, *type, *inodes, *unlinked, *derived, *runnable;
	long long uid, gid, mask;
	int wake_fd, depth;
	(void)self;
	if (!PyArg_ParseTuple(args, "O!OOOO!O!O!(LLL)iO!i", &PyDict_Type, &handlers, &suspended, &failed, &type,
			      &PyDict_Type, &inodes, &PySet_Type, &unlinked, &PyDict_Type, &derived, &uid, &gid, &mask, &wake_fd, &PySet_Type,
			      &runnable, &depth))
		return NULL;
	if (session.installed) {
		PyErr_SetString(PyExc_RuntimeError, "the process has a session already");
		return NULL;
	}
	if (casfs_learn_inode(type) < 0 || casfs_renew_buffer() < 0)
		return NULL;
	PyObject *key, *value;
	Py_ssize_t position = 0;
	while (PyDict_Next(handlers, &position, &key, &value)) {
		long opcode = PyLong_AsLong(key);
		if (opcode < 0 || opcode >= CASFS_OPCODES || !PyCallable_Check(value)) {
			if (!PyErr_Occurred())
				PyErr_SetString(PyExc_ValueError, "handlers: opcode -> callable");
			return NULL;
		}
		Py_XSETREF(python.handlers[opcode], Py_NewRef(value));
	}
	Py_XSETREF(python.suspended, Py_NewRef(suspended));
	Py_XSETREF(python.failed, Py_NewRef(failed));
	Py_XSETREF(python.inodes, Py_NewRef(inodes));
	Py_XSETREF(python.unlinked, Py_NewRef(unlinked));
	Py_XSETREF(python.derived, Py_NewRef(derived));
	Py_XSETREF(python.runnable, Py_NewRef(runnable));
	python.show_uid = uid;
	python.show_gid = gid;
	python.show_mask = mask;
	python.wake_fd = wake_fd;
	session.wanted = true;
	session.want_passthrough = depth > 0;
	session.stack_depth = (uint32_t)depth;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(status_doc, "status()\n--\n\n"
	"dict: installed (is the session served here), negotiated (has INIT come), minor (of the kernel's protocol), "
	"passthrough, killpriv_v2.");

static PyObject *status(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return Py_BuildValue("{s:O,s:O,s:I,s:O,s:O}", "installed", session.installed ? Py_True : Py_False,
			     "negotiated", session.negotiated ? Py_True : Py_False, "minor", session.minor,
			     "passthrough", session.passthrough ? Py_True : Py_False, "killpriv_v2",
			     session.kernel_flags & FUSE_HANDLE_KILLPRIV_V2 ? Py_True : Py_False);
}

PyDoc_STRVAR(requests_doc, "requests()\n--\n\nHow many requests have come so far.");

static PyObject *requests(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return PyLong_FromUnsignedLongLong(session.requests);
}

PyDoc_STRVAR(same_libfuse_doc, "same_libfuse(path)\n--\n\n"
	"Is the extension at `path`, which is loaded, linked with the same libfuse as this one?");

static PyObject *same_libfuse(PyObject *self, PyObject *argument)
{
	(void)self;
	PyObject *path;
	if (!PyUnicode_FSConverter(argument, &path))
		return NULL;
	bool same = casfs_same_libfuse(PyBytes_AS_STRING(path));
	Py_DECREF(path);
	return PyBool_FromLong(same);
}

PyDoc_STRVAR(serve_doc, "serve(patience, burst)\n--\n\n"
	"Serve up to `burst` requests, waiting up to `patience` ms for each, but not while anything is runnable. Gives "
	"IDLE, PENDING (libfuse has to take one), BURST, WOKEN (wake_fd was written to) or ENDED (unmounted); "
	"wake_fd may have been read with each. Raises OSError when the device fails.");

static PyObject *serve(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	(void)self;
	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "serve(patience, burst)");
		return NULL;
	}
	int patience = (int)PyLong_AsLong(args[0]), burst = (int)PyLong_AsLong(args[1]);
	if (PyErr_Occurred())
		return NULL;
	int state = casfs_serve(patience, burst);
	return state < 0 ? NULL : PyLong_FromLong(state);
}

PyDoc_STRVAR(finish_doc, "finish(opcode, unique, result, error)\n--\n\n"
	"Answer a request whose handler was suspended: with its result, or with `error` when that is an exception.");

static PyObject *finish(PyObject *self, PyObject *args)
{
	unsigned int opcode;
	unsigned long long unique;
	PyObject *result, *error;
	(void)self;
	if (!PyArg_ParseTuple(args, "IKOO", &opcode, &unique, &result, &error))
		return NULL;
	if (error != Py_None) {
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
		casfs_answer(opcode, unique, NULL);
	} else {
		casfs_answer(opcode, unique, Py_NewRef(result));
	}
	Py_RETURN_NONE;
}

PyDoc_STRVAR(caller_doc, "caller()\n--\n\n"
	"The thread whose request a handler is called for, in the daemon's pid namespace; 0 when it is in another one.");

static PyObject *caller(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	const struct fuse_in_header *in = (const void *)session.buffer;
	return PyLong_FromUnsignedLong(in ? in->pid : 0);
}

PyDoc_STRVAR(backing_open_doc, "backing_open(fd)\n--\n\n"
	"Register a file for passthrough (FUSE_DEV_IOC_BACKING_OPEN); the descriptor may be closed afterwards. Gives "
	"its backing id. Raises OSError: EPERM without CAP_SYS_ADMIN, ELOOP when its file system is stacked too deep.");

static PyObject *backing_open(PyObject *self, PyObject *argument)
{
	(void)self;
	struct casfs_backing_map map = {.fd = (int32_t)PyLong_AsLong(argument)};
	if (PyErr_Occurred())
		return NULL;
	int id = ioctl(session.fd, CASFS_BACKING_OPEN, &map);
	return id < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(id);
}

PyDoc_STRVAR(backing_close_doc, "backing_close(id)\n--\n\n"
	"Forget a backing file; handles that use it keep it. Raises OSError.");

static PyObject *backing_close(PyObject *self, PyObject *argument)
{
	(void)self;
	uint32_t id = (uint32_t)PyLong_AsUnsignedLong(argument);
	if (PyErr_Occurred())
		return NULL;
	if (ioctl(session.fd, CASFS_BACKING_CLOSE, &id) < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(stack_depth_doc, "stack_depth(path)\n--\n\n"
	"FUSE's max_stack_depth for backing files on the file system of `path`: 2 on one that is stacked itself. "
	"Raises OSError.");

static PyObject *stack_depth(PyObject *self, PyObject *argument)
{
	(void)self;
	PyObject *path;
	struct statfs below;
	if (!PyUnicode_FSConverter(argument, &path))
		return NULL;
	int failed = statfs(PyBytes_AS_STRING(path), &below);
	Py_DECREF(path);
	if (failed)
		return PyErr_SetFromErrno(PyExc_OSError);
	bool stacked = below.f_type == OVERLAYFS_SUPER_MAGIC || below.f_type == ECRYPTFS_SUPER_MAGIC;
	return PyLong_FromLong(stacked ? 2 : 1);
}

PyDoc_STRVAR(write_files_doc, "write_files(files, dir_fd, /)\n--\n\n"
	"As Durable.write_files (filestore/durable.py), in one go without the GIL. From any thread. Raises OSError.");

static PyMethodDef methods[] = {
	{"prepare", prepare, METH_VARARGS, prepare_doc},
	{"status", status, METH_NOARGS, status_doc},
	{"requests", requests, METH_NOARGS, requests_doc},
	{"same_libfuse", same_libfuse, METH_O, same_libfuse_doc},
	{"serve", (PyCFunction)(void (*)(void))serve, METH_FASTCALL, serve_doc},
	{"finish", finish, METH_VARARGS, finish_doc},
	{"caller", caller, METH_NOARGS, caller_doc},
	{"backing_open", backing_open, METH_O, backing_open_doc},
	{"backing_close", backing_close, METH_O, backing_close_doc},
	{"write_files", casfs_write_files, METH_VARARGS, write_files_doc},
	{"reply_early", casfs_reply_early, METH_O,
	 "reply_early(result)\n--\n\nThe request under way has succeeded, whatever it still does (serve.h)."},
	{"lease", casfs_lease, METH_VARARGS, "lease(ino, flags, until)\n--\n\nKeep a handle that only reads (leases.h)."},
	{"revoke", casfs_revoke, METH_O, "revoke(fh)\n--\n\nHand a leased handle out no more (leases.h)."},
	{"idle_leases", casfs_idle_leases, METH_NOARGS, "idle_leases()\n--\n\nHow many nobody uses."},
	{"stack_depth", stack_depth, METH_O, stack_depth_doc},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "casfs.fuse._native",
	"The native accelerator: serves /dev/fuse and hands what it does not know to libfuse (session.c).", -1,
	methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
	PyObject *module = PyModule_Create(&definition);
	if (module && (PyModule_AddIntConstant(module, "IDLE", CASFS_IDLE) < 0 ||
		       PyModule_AddIntConstant(module, "PENDING", CASFS_PENDING) < 0 ||
		       PyModule_AddIntConstant(module, "BURST", CASFS_BURST) < 0 ||
		       PyModule_AddIntConstant(module, "WOKEN", CASFS_WOKEN) < 0 ||
		       PyModule_AddIntConstant(module, "ENDED", CASFS_ENDED) < 0))
		Py_CLEAR(module);
	return module;
}

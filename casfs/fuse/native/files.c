#define _GNU_SOURCE

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct new_file {
	PyObject *path; /* bytes */
	Py_buffer content;
	mode_t mode;
};

static bool write_whole(int fd, const char *data, Py_ssize_t size)
{
	for (Py_ssize_t done = 0; done < size;) {
		ssize_t written = pwrite(fd, data + done, (size_t)(size - done), done);
		if (written < 0 && errno != EINTR)
			return false;
		done += written > 0 ? written : 0;
	}
	return true;
}

/* As open_beneath in syscalls.py: nothing on the way is a symbolic link, or leads out of the directory. */
static int open_beneath(int directory, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned int)flags,
		.mode = mode,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
	};
	if (directory == AT_FDCWD)
		return openat(directory, path, flags, mode);
	return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

static int unlink_beneath(int directory, const char *path)
{
	const char *name = strrchr(path, '/');
	if (directory == AT_FDCWD || !name)
		return unlinkat(directory, path, 0);
	char *above = strndup(path, (size_t)(name - path));
	if (!above)
		return -1;
	int parent = open_beneath(directory, above, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	free(above);
	if (parent < 0)
		return -1;
	int result = unlinkat(parent, name + 1, 0), failed = errno;
	close(parent);
	errno = failed;
	return result;
}

static int write_file(int directory, const char *path, const Py_buffer *content, mode_t mode)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	int fd = open_beneath(directory, path, flags, mode);
	if (fd < 0 && errno == EEXIST && unlink_beneath(directory, path) == 0)
		fd = open_beneath(directory, path, flags, mode);
	if (fd < 0)
		return errno;
	int failed = write_whole(fd, content->buf, content->len) ? 0 : errno;
	close(fd);
	if (failed)
		unlink_beneath(directory, path);
	return failed;
}

PyObject *casfs_write_files(PyObject *self, PyObject *arguments)
{
	PyObject *sequence;
	int directory;
	(void)self;
	if (!PyArg_ParseTuple(arguments, "Oi", &sequence, &directory))
		return NULL;
	PyObject *list = PySequence_Fast(sequence, "a sequence of (path, content, mode)");
	if (!list)
		return NULL;
	Py_ssize_t count = PySequence_Fast_GET_SIZE(list), filled = 0, failed_at = 0;
	struct new_file *files = calloc(count ? (size_t)count : 1, sizeof *files);
	PyObject *result = NULL;
	int failed = 0;
	if (!files) {
		PyErr_NoMemory();
		goto done;
	}
	for (; filled < count; filled++) {
		struct new_file *file = &files[filled];
		unsigned int mode;
		if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(list, filled), "O&y*I", PyUnicode_FSConverter,
				      &file->path, &file->content, &mode))
			goto done;
		file->mode = (mode_t)mode;
	}
	Py_BEGIN_ALLOW_THREADS
	for (; failed_at < count; failed_at++) {
		const struct new_file *file = &files[failed_at];
		failed = write_file(directory, PyBytes_AS_STRING(file->path), &file->content, file->mode);
		if (failed)
			break;
	}
	Py_END_ALLOW_THREADS
	if (failed) {
		errno = failed;
		PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, files[failed_at].path);
	} else {
		result = Py_NewRef(Py_None);
	}
done:
	for (Py_ssize_t i = 0; i < filled; i++) {
		Py_DECREF(files[i].path);
		PyBuffer_Release(&files[i].content);
	}
	free(files);
	Py_DECREF(list);
	return result;
}

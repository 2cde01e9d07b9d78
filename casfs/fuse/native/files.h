/* Many small files in one call without the GIL: the files of the blobs of one commit. */
#ifndef CASFS_FILES_H
#define CASFS_FILES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* write_files(files, dir_fd): as Durable.write_files (filestore/durable.py). From any thread. */
PyObject *casfs_write_files(PyObject *self, PyObject *arguments);

#endif

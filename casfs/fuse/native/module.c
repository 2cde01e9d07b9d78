/* casfs.fuse._native: the native accelerator. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#if FUSE_VERSION < FUSE_MAKE_VERSION(3, 14)
#error "libfuse 3.14 or newer is needed"
#endif

static PyObject *libfuse(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyUnicode_FromString(fuse_pkgversion());
}

static PyMethodDef methods[] = {
    {"libfuse", libfuse, METH_NOARGS, PyDoc_STR("libfuse() -> str\n\nThe version of the libfuse in this process.")},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "casfs.fuse._native",
    .m_doc = PyDoc_STR("The native accelerator."),
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModule_Create(&definition);
}

#include "leases.h"

#include <time.h>

struct lease {
	PyObject *ino; /* NULL: the place is free */
	uint32_t users, flags;
	bool revoked;
	time_t until; /* 0: for ever */
};

static struct lease leases[CASFS_LEASES];
static PyObject *places; /* dict: inode number -> place of its lease */

static struct lease *place_of(uint64_t fh)
{
	uint64_t place = fh & ~CASFS_LEASED;
	return place < CASFS_LEASES && leases[place].ino ? &leases[place] : NULL;
}

uint64_t casfs_lease_open(PyObject *ino, uint32_t *flags)
{
	PyObject *place = places ? PyDict_GetItemWithError(places, ino) : NULL;
	if (!place)
		return 0;
	size_t at = PyLong_AsSize_t(place);
	if (leases[at].until && time(NULL) >= leases[at].until)
		return 0;
	leases[at].users++;
	*flags = leases[at].flags;
	return CASFS_LEASED | at;
}

bool casfs_lease_release(uint64_t fh)
{
	struct lease *lease = place_of(fh);
	if (!lease || lease->users == 0)
		return false;
	lease->users--;
	if (lease->users || !lease->revoked)
		return false;
	Py_CLEAR(lease->ino);
	return true;
}

PyObject *casfs_lease(PyObject *self, PyObject *args)
{
	static size_t next; /* where the search for a free place goes on */
	PyObject *ino;
	unsigned int flags;
	long long until;
	(void)self;
	if (!PyArg_ParseTuple(args, "O!IL", &PyLong_Type, &ino, &flags, &until))
		return NULL;
	if (!places && !(places = PyDict_New()))
		return NULL;
	for (size_t tried = 0; tried < CASFS_LEASES; tried++) {
		size_t at = (next + tried) % CASFS_LEASES;
		if (leases[at].ino)
			continue;
		PyObject *place = PyLong_FromSize_t(at);
		if (!place || PyDict_SetItem(places, ino, place) < 0) {
			Py_XDECREF(place);
			return NULL;
		}
		Py_DECREF(place);
		leases[at] = (struct lease){.ino = Py_NewRef(ino), .users = 1, .flags = flags, .until = until};
		next = at + 1;
		return PyLong_FromUnsignedLongLong(CASFS_LEASED | at);
	}
	return PyLong_FromLong(0);
}

PyObject *casfs_revoke(PyObject *self, PyObject *argument)
{
	(void)self;
	uint64_t fh = PyLong_AsUnsignedLongLong(argument);
	if (PyErr_Occurred())
		return NULL;
	struct lease *lease = place_of(fh);
	if (!lease || lease->revoked) {
		PyErr_SetString(PyExc_ValueError, "no such lease");
		return NULL;
	}
	lease->revoked = true;
	if (PyDict_DelItem(places, lease->ino) < 0)
		PyErr_Clear();
	uint32_t users = lease->users;
	if (!users)
		Py_CLEAR(lease->ino);
	return PyLong_FromUnsignedLong(users);
}

PyObject *casfs_idle_leases(PyObject *self, PyObject *none)
{
	(void)self;
	(void)none;
	long idle = 0;
	for (size_t at = 0; at < CASFS_LEASES; at++)
		idle += leases[at].ino && !leases[at].users;
	return PyLong_FromLong(idle);
}

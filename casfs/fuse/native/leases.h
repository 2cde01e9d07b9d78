/* Open files that are kept open: OPEN and RELEASE of handles that only read, without Python.
 *
 * Python opens a file once and leaves its handle here. Until it revokes the lease, each open(2) that only reads
 * gets that handle, and its release only counts. A revoked lease lives on until its last user is gone.
 */
#ifndef CASFS_LEASES_H
#define CASFS_LEASES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#define CASFS_LEASES 4096

/* Leased handles have this bit; the others are numbered from 1 by Python. */
#define CASFS_LEASED ((uint64_t)1 << 62)

/* A user more of the leased handle of an inode. 0 when there is none, or no more. */
uint64_t casfs_lease_open(PyObject *ino, uint32_t *flags);

/* A user less. True when the handle has to be released by Python: the lease is revoked and nobody uses it. */
bool casfs_lease_release(uint64_t fh);

/* lease(ino, flags, until): keep a new handle that has one user, whose opens are answered with FOPEN_* `flags`
 * until that second since 1970, 0: for ever. Gives its number, 0 when there is no room. */
PyObject *casfs_lease(PyObject *self, PyObject *args);

/* revoke(fh): hand it out no more. Gives the number of those who use it; with 0 it is to be released now. */
PyObject *casfs_revoke(PyObject *self, PyObject *argument);

/* idle_leases(): how many handles nobody uses. */
PyObject *casfs_idle_leases(PyObject *self, PyObject *none);

#endif

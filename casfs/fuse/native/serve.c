#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

struct casfs_python python = {.wake_fd = -1};

/* The loop */

/* Have a buffer that nobody else looks into: the data of a WRITE that has to wait stays where it is. */
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

/* A program that works file by file sends its next request some microseconds after the last reply: about as long
 * as it takes to put a thread to sleep and wake it. So the device is asked for so long before the thread sleeps,
 * as long as that has been worth it. */
#define SPIN_NS 40000

static int64_t clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static ssize_t read_request(void)
{
	ssize_t size = read(session.fd, session.buffer, casfs_buffer_size());
	return size < 0 ? -errno : size;
}

/* Wait for a request and read it, without the GIL. Its size, 0 for none, or -errno; `woken` by a thread.
 * `alone`: nobody who might send one waits for a thread of ours. */
static ssize_t receive(int patience, bool alone, bool *woken)
{
	static bool worth_it;
	bool spins = worth_it && alone && patience;
	ssize_t size = -EAGAIN;
	Py_BEGIN_ALLOW_THREADS
	int64_t began = clock_ns();
	if (spins) {
		while ((size = read_request()) == -EAGAIN && clock_ns() - began < SPIN_NS)
			sched_yield(); /* others of this processor come first: it may be the program itself */
	}
	if (size == -EAGAIN) {
		struct pollfd polled[2] = {{session.fd, POLLIN, 0}, {python.wake_fd, POLLIN, 0}};
		int ready = poll(polled, 2, patience);
		if (ready > 0 && polled[1].revents) {
			uint64_t count;
			*woken = read(python.wake_fd, &count, sizeof count) > 0;
		}
		size = ready > 0 && polled[0].revents ? read_request() : 0;
		if (alone && patience)
			worth_it = size > 0 && clock_ns() - began < 2 * SPIN_NS;
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
		bool others = PySet_GET_SIZE(python.runnable) > 0;
		ssize_t size = receive(others ? 0 : patience, !python.suspends, &woken);
		python.suspends = false;
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
			session.requests++;
			if (in->opcode == FUSE_INIT)
				casfs_see_init(in, (size_t)size);
			if (!casfs_dispatch(in, (size_t)size)) {
				session.pending = (size_t)size;
				return CASFS_PENDING;
			}
		} else if (!woken) {
			return size == 0 && patience && !others ? CASFS_IDLE : CASFS_BURST;
		}
		if (woken)
			return CASFS_WOKEN;
	}
	return CASFS_BURST;
}

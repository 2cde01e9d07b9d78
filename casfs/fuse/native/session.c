/* How the session of libfuse becomes ours.
 *
 * pyfuse3 calls libfuse through dynamic symbols. This module is loaded with RTLD_GLOBAL before pyfuse3, so that
 * the `fuse_session_mount` below is found first. It calls libfuse's own, and then gives the session read and
 * writev functions of ours (fuse_session_custom_io, libfuse >= 3.14):
 *
 *   read    hands over the one request that `serve` (serve.c) has read and left to libfuse; only `serve` reads
 *           the device.
 *   writev  passes replies on, but for that of INIT: there it adds what libfuse does not know of.
 *
 * What breaks it, and how it is found at the start, which then goes on with plain pyfuse3 and says so
 * (fuse/accelerated.py): a pyfuse3 that was loaded before, or is linked statically, never calls the function here,
 * and `installed` stays false; one that is linked with another libfuse than this module is told from the
 * addresses (`casfs_same_libfuse`).
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 314

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "session.h"

struct casfs_session session = {.fd = -1};

size_t casfs_buffer_size(void)
{
	return 256 * (size_t)getpagesize() + 0x1000;
}

void casfs_see_init(const struct fuse_in_header *header, size_t size)
{
	const struct fuse_init_in *in = (const void *)(header + 1);
	if (size < sizeof *header + FUSE_COMPAT_INIT_OUT_SIZE + 8)
		return;
	session.init_unique = header->unique;
	session.minor = in->minor;
	session.kernel_flags = in->flags;
	session.kernel_flags2 = 0;
	if (size >= sizeof *header + offsetof(struct fuse_init_in, unused) && (in->flags & FUSE_INIT_EXT))
		session.kernel_flags2 = in->flags2;
}

/* Flags of linux/fuse.h that this daemon lives up to and libfuse 3.14 or pyfuse3 cannot set:
 *
 *   HANDLE_KILLPRIV_V2   writes, truncations and chown take away suid, sgid and capabilities here; the kernel
 *                        asks for security.capability before each write(2) otherwise
 *   CACHE_SYMLINKS       a symlink's target never changes
 *   EXPLICIT_INVAL_DATA  cached pages stay until the daemon says so: nobody else changes a file
 *   DONT_MASK            the umask is applied here, since a default ACL goes before it (acl(5))
 */
static const uint32_t added_flags =
	FUSE_HANDLE_KILLPRIV_V2 | FUSE_CACHE_SYMLINKS | FUSE_EXPLICIT_INVAL_DATA | FUSE_DONT_MASK;

static void extend_init(struct casfs_init_out *out)
{
	uint32_t added = added_flags & session.kernel_flags;
	out->flags |= added;
	if (added & FUSE_HANDLE_KILLPRIV_V2)
		out->flags &= ~(uint32_t)FUSE_HANDLE_KILLPRIV;
	if (added & FUSE_EXPLICIT_INVAL_DATA)
		out->flags &= ~(uint32_t)FUSE_AUTO_INVAL_DATA;
	/* Passthrough and the writeback cache exclude each other (fs/fuse/inode.c, process_init_reply). */
	if (session.want_passthrough && session.minor >= 40 &&
	    (session.kernel_flags2 & CASFS_INIT_PASSTHROUGH) && !(out->flags & FUSE_WRITEBACK_CACHE)) {
		out->flags |= FUSE_INIT_EXT;
		out->flags2 |= CASFS_INIT_PASSTHROUGH;
		out->max_stack_depth = session.stack_depth;
		session.passthrough = true;
	}
	session.negotiated = true;
}

static ssize_t take_request(int fd, void *buf, size_t size, void *userdata)
{
	(void)fd;
	(void)userdata;
	size_t pending = session.pending;
	if (session.ended) {
		errno = ENODEV;
		return -1;
	}
	if (!pending) {
		errno = EINTR; /* pyfuse3 asks again */
		return -1;
	}
	session.pending = 0;
	if (pending > size) {
		errno = EIO;
		return -1;
	}
	memcpy(buf, session.buffer, pending);
	return (ssize_t)pending;
}

static ssize_t pass_reply(int fd, struct iovec *iov, int count, void *userdata)
{
	(void)userdata;
	struct fuse_out_header *header = iov[0].iov_base;
	if (!session.negotiated && session.init_unique && header->unique == session.init_unique &&
	    header->error == 0 && count == 2) {
		struct casfs_init_out out;
		memset(&out, 0, sizeof out);
		memcpy(&out, iov[1].iov_base, iov[1].iov_len < sizeof out ? iov[1].iov_len : sizeof out);
		extend_init(&out);
		header->len = (uint32_t)(sizeof *header + sizeof out);
		struct iovec whole[2] = {iov[0], {&out, sizeof out}};
		return writev(fd, whole, 2);
	}
	return writev(fd, iov, count);
}

static const struct fuse_custom_io custom_io = {.read = take_request, .writev = pass_reply};

/* libfuse's own function. Its newer versions have several under one name: this is the one whose arguments are
 * those used here. */
static void *next_symbol(const char *name)
{
	void *found = dlvsym(RTLD_NEXT, name, "FUSE_3.0");
	return found ? found : dlsym(RTLD_NEXT, name);
}

bool casfs_same_libfuse(const char *pyfuse3)
{
	void *other = dlopen(pyfuse3, RTLD_NOW | RTLD_NOLOAD);
	if (!other)
		return false;
	bool same = dlsym(other, "fuse_session_fd") == dlsym(RTLD_NEXT, "fuse_session_fd");
	dlclose(other);
	return same;
}

__attribute__((visibility("default"))) int fuse_session_mount(struct fuse_session *se, const char *mountpoint)
{
	int (*mount)(struct fuse_session *, const char *);
	int (*use_io)(struct fuse_session *, const struct fuse_custom_io *, int);
	*(void **)&mount = next_symbol("fuse_session_mount");
	*(void **)&use_io = next_symbol("fuse_session_custom_io");
	if (!mount)
		return -1;
	int result = mount(se, mountpoint);
	if (result != 0 || !session.wanted || !use_io)
		return result;
	int fd = fuse_session_fd(se);
	if (use_io(se, &custom_io, fd) == 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0) {
		session.fd = fd;
		session.installed = true;
	}
	return 0;
}

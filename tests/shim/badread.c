/*
 * badread - a disk that does not give back what lies on it: preloaded, it lets
 * pread(2) fail with EIO.
 *
 *   LD_PRELOAD=build/badread.so
 *   BADREAD_SWITCH=/file	while this file is there:
 *   BADREAD_PATH=GLOB		of files whose path is like this
 */
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/shim/fd_path.h"

static bool is_bad(int fd)
{
	const char *file = getenv("BADREAD_SWITCH");
	const char *what = getenv("BADREAD_PATH");
	char path[PATH_MAX];

	if (!file || !what || access(file, F_OK) != 0)
		return false;
	return fd_path(fd, path) && fnmatch(what, path, FNM_EXTMATCH) == 0;
}

/* pread64(3) in the end: offsets have 64 bits here, as in the program. */
ssize_t pread(int fd, void *buf, size_t n, off_t off)
{
	if (is_bad(fd)) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, fd, buf, n, off);
}

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
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_bad(int fd)
{
	const char *file = getenv("BADREAD_SWITCH");
	const char *what = getenv("BADREAD_PATH");
	char link[32], path[PATH_MAX];
	ssize_t n;

	if (!file || !what || access(file, F_OK) != 0)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	return fnmatch(what, path, FNM_EXTMATCH) == 0;
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

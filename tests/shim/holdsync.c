/*
 * holdsync - a disk that takes its time to write: preloaded, it lets no sync
 * of what lies below a folder return before it is told to.
 *
 *   LD_PRELOAD=build/holdsync.so
 *   HOLDSYNC_ROOT=/folder	absolute; what lies elsewhere is let alone
 *   HOLDSYNC_GATE=/file	while this file is there: it has a number N, and
 *				all but the first N syncs wait
 *   HOLDSYNC_LOG=/file2	"begin N PATH" and "end N PATH" are appended for
 *				the Nth sync that met the gate
 *
 * A path may be that of a folder, or of a file that has another name by now.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/shim/fd_path.h"

static atomic_ulong syncs;

static bool below_root(int fd, char path[PATH_MAX])
{
	const char *root = getenv("HOLDSYNC_ROOT");

	return root && fd_path(fd, path) && path_is_below(path, root);
}

/* How many may pass; ULONG_MAX where there is no gate. */
static unsigned long gate(void)
{
	const char *name = getenv("HOLDSYNC_GATE");
	int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	char text[32];
	ssize_t n;

	if (fd < 0)
		return ULONG_MAX;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return strtoul(text, NULL, 10);
}

static void note(const char *what, unsigned long number, const char *path)
{
	const char *name = getenv("HOLDSYNC_LOG");
	char line[PATH_MAX + 64];
	int fd, n;

	fd = name ? open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600)
		  : -1;
	n = snprintf(line, sizeof(line), "%s %lu %s\n", what, number, path);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		abort();
	close(fd);
}

static void hold(int fd)
{
	const struct timespec moment = {.tv_nsec = 2000000};
	char path[PATH_MAX];
	unsigned long number;
	int saved = errno;

	if (below_root(fd, path) && gate() != ULONG_MAX) {
		number = atomic_fetch_add(&syncs, 1) + 1;
		note("begin", number, path);
		while (gate() < number)
			nanosleep(&moment, NULL);
		note("end", number, path);
	}
	errno = saved;
}

int fsync(int fd)
{
	hold(fd);
	return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	hold(fd);
	return (int)syscall(SYS_fdatasync, fd);
}

int syncfs(int fd)
{
	hold(fd);
	return (int)syscall(SYS_syncfs, fd);
}

/* It waits where the disk's queue is full. */
int sync_file_range(int fd, off_t off, off_t len, unsigned int flags)
{
	hold(fd);
	return (int)syscall(SYS_sync_file_range, fd, off, len, flags);
}

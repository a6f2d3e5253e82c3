/*
 * reusefd - the number of a closed FUSE device is another file's at once:
 * preloaded, it opens a file in the place of the device that close(2) closes,
 * and returns a while later only, as if unmounting took long.
 *
 *   LD_PRELOAD=build/reusefd.so
 *   REUSEFD_PATH=/file	opened there; is made, empty, when the program begins
 *   REUSEFD_MS=N	how long close(2) takes then
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/shim/fd_path.h"

static int open_it(void)
{
	const char *path = getenv("REUSEFD_PATH");

	return path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
}

__attribute__((constructor)) static void begin(void)
{
	int fd = open_it();

	if (fd >= 0)
		syscall(SYS_close, fd);
}

static bool is_device(int fd)
{
	char path[PATH_MAX];

	return fd_path(fd, path) && strcmp(path, "/dev/fuse") == 0;
}

int close(int fd)
{
	const char *ms = getenv("REUSEFD_MS");
	struct timespec pause = {0};
	bool device = is_device(fd);
	int ret = (int)syscall(SYS_close, fd), other;

	if (!device)
		return ret;
	other = open_it();
	if (other >= 0 && other != fd) {
		dup2(other, fd);
		syscall(SYS_close, other);
	}
	pause.tv_sec = ms ? atoi(ms) / 1000 : 0;
	pause.tv_nsec = ms ? atoi(ms) % 1000 * 1000000L : 0;
	nanosleep(&pause, NULL);
	return ret;
}

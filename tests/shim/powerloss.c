/*
 * powerloss - what a program would find after a loss of power: preloaded, it
 * remembers the state of every file and folder at its last sync, and can end
 * the program in the middle of one.
 *
 *   LD_PRELOAD=build/powerloss.so
 *   POWERLOSS_ROOT=/folder	absolute; what lies elsewhere is let alone
 *   POWERLOSS_STATE=/folder2	where to remember; without it nothing is
 *   POWERLOSS_STOP=N		_exit(77) in the place of the Nth sync
 *
 * The model is strict: the bytes of a file are those at its last fsync(2) or
 * fdatasync(2), and the names in a folder those at the last fsync(2) of the
 * folder; all that came later is lost. A file never synced is empty, a folder
 * never synced too. Files are told apart by inode and time of birth, so a
 * renamed file is the same one.
 *
 * The folder below POWERLOSS_STATE holds, for each file that was synced, a copy
 * file-INODE-BIRTH, and for each folder a list dir-INODE-BIRTH with one line
 * "d|f INODE BIRTH NAME" for each name. tests/support/powerloss.c puts these
 * together again.
 *
 * No sync below the root reaches the disk: the programs run much faster.
 * What is written through mmap(2) counts when the file is synced.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/shim/fd_path.h"

enum { EXIT_CODE = 77 };

static const char *root, *state;
static unsigned long stop, syncs; /* syncs: protected by lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
	const char *n = getenv("POWERLOSS_STOP");

	root = getenv("POWERLOSS_ROOT");
	state = getenv("POWERLOSS_STATE");
	stop = n ? strtoul(n, NULL, 10) : 0;
}

static void broken(const char *what)
{
	fprintf(stderr, "powerloss: %s: %s\n", what, strerror(errno));
	abort();
}

static bool identify(int dirfd, const char *name, int flags, char id[64],
		     bool *is_dir)
{
	struct statx sx;

	if (statx(dirfd, name, flags, STATX_TYPE | STATX_INO | STATX_BTIME,
		  &sx) < 0)
		return false;
	snprintf(id, 64, "%" PRIu64 "-%lld.%09u", (uint64_t)sx.stx_ino,
		 (long long)sx.stx_btime.tv_sec, sx.stx_btime.tv_nsec);
	*is_dir = S_ISDIR(sx.stx_mode);
	return true;
}

static void remember_file(int fd, const char *id)
{
	char path[PATH_MAX], link[64];
	char buf[65536];
	int from, to;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/file-%s", state, id);
	to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	/* Anew: the descriptor may be for writing only. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	from = open(link, O_RDONLY | O_CLOEXEC);
	if (from < 0 || to < 0)
		broken(path);
	while ((n = read(from, buf, sizeof(buf))) > 0)
		if (write(to, buf, (size_t)n) != n)
			broken(path);
	close(from);
	close(to);
}

static void remember_folder(int fd, const char *id)
{
	char path[PATH_MAX], child[64];
	struct dirent *de;
	bool is_dir;
	FILE *f;
	DIR *d;

	snprintf(path, sizeof(path), "%s/dir-%s", state, id);
	f = fopen(path, "we");
	d = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (!f || !d)
		broken(path);
	while ((de = readdir(d))) {
		if (strcmp(de->d_name, ".") == 0 ||
		    strcmp(de->d_name, "..") == 0)
			continue;
		if (identify(fd, de->d_name, AT_SYMLINK_NOFOLLOW, child,
			     &is_dir))
			fprintf(f, "%c %s %s\n", is_dir ? 'd' : 'f', child,
				de->d_name);
	}
	closedir(d);
	fclose(f);
}

static void remember(int fd)
{
	char id[64];
	bool is_dir;

	if (!state)
		return;
	if (!identify(fd, "", AT_EMPTY_PATH, id, &is_dir))
		broken("statx");
	if (is_dir)
		remember_folder(fd, id);
	else
		remember_file(fd, id);
}

static void remember_all(int fd)
{
	struct dirent *de;
	DIR *d;
	int child;

	remember(fd);
	d = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (!d)
		return;
	while ((de = readdir(d))) {
		if (strcmp(de->d_name, ".") == 0 ||
		    strcmp(de->d_name, "..") == 0)
			continue;
		child = openat(fd, de->d_name,
			       O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (child < 0)
			continue;
		remember_all(child);
		close(child);
	}
	closedir(d);
}

static bool below_root(int fd)
{
	char path[PATH_MAX];

	return root && fd_path(fd, path) && path_is_below(path, root);
}

static int sync_one(int fd, long call)
{
	int saved = errno;

	if (!below_root(fd))
		return (int)syscall(call, fd);
	pthread_mutex_lock(&lock);
	if (++syncs == stop)
		_exit(EXIT_CODE);
	if (call == SYS_syncfs)
		remember_all(fd);
	else
		remember(fd);
	pthread_mutex_unlock(&lock);
	errno = saved;
	return 0;
}

int fsync(int fd)
{
	return sync_one(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return sync_one(fd, SYS_fdatasync);
}

int syncfs(int fd)
{
	return sync_one(fd, SYS_syncfs);
}

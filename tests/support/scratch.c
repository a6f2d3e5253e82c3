#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "scratch: %s: %s\n", what, strerror(errno));
	abort();
}

char *scratch_create(void)
{
	const char *tmp = getenv("TMPDIR");
	char *dir = NULL;

	must(asprintf(&dir, "%s/tickfs-test-XXXXXX", tmp ? tmp : "/tmp") > 0,
	     "asprintf");
	must(mkdtemp(dir) != NULL, dir);
	return dir;
}

static int remove_one(const char *path, const struct stat *sb, int type,
		      struct FTW *ftw)
{
	(void)sb;
	(void)type;
	(void)ftw;
	return remove(path);
}

void scratch_remove(char *dir)
{
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(dir);
}

char *scratch_path(const char *dir, const char *name)
{
	char *path = NULL;

	must(asprintf(&path, "%s/%s", dir, name) > 0, "asprintf");
	return path;
}

void scratch_write(const char *path, const void *buf, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	must(fd >= 0, path);
	must(write(fd, buf, len) == (ssize_t)len, path);
	close(fd);
}

char *scratch_read(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size;
	char *buf;

	if (fd < 0)
		return NULL;
	size = lseek(fd, 0, SEEK_END);
	buf = malloc((size_t)size + 1);
	must(buf != NULL, "malloc");
	must(pread(fd, buf, (size_t)size, 0) == size, path);
	buf[size] = '\0';
	*len = (size_t)size;
	close(fd);
	return buf;
}

void scratch_flip(const char *path, long at, unsigned char mask)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	unsigned char c;

	must(fd >= 0, path);
	if (at < 0)
		at += lseek(fd, 0, SEEK_END);
	must(pread(fd, &c, 1, at) == 1, path);
	c ^= mask;
	must(pwrite(fd, &c, 1, at) == 1, path);
	close(fd);
}

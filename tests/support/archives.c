#include "tests/support/archives.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/scratch.h"

void archives_create(struct archives *a, const char *groups)
{
	char command[256];

	a->path = scratch_create();
	a->dirfd = open(a->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(a->dirfd >= 0);
	if (!*groups)
		return;
	snprintf(command, sizeof(command),
		 "python3 tests/support/archives.py %s %s", a->path, groups);
	assert_int_equal(system(command), 0);
}

void archives_remove(struct archives *a)
{
	close(a->dirfd);
	scratch_remove(a->path);
}

int archives_open(const struct archives *a, const char *name, uint64_t *size)
{
	int fd = openat(a->dirfd, name, O_RDWR | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		fail_msg("cannot open %s", name);
	assert_int_equal(fstat(fd, &st), 0);
	*size = (uint64_t)st.st_size;
	return fd;
}

unsigned char *archives_read(const struct archives *a, const char *name,
			     size_t *len)
{
	uint64_t size;
	int fd = archives_open(a, name, &size);
	unsigned char *buf = malloc(size + 1);

	assert_non_null(buf);
	assert_int_equal(pread(fd, buf, size, 0), (ssize_t)size);
	close(fd);
	*len = size;
	return buf;
}

uint64_t archives_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

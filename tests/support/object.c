#include "tests/support/object.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/spans.h"

enum { GUARD = 64, GUARD_BYTE = 0xee };

void object_open_path(struct object *o, const struct archives *dir,
		      const char *path)
{
	struct stat st;

	memset(o, 0, sizeof(*o));
	o->dirfd = dir->dirfd;
	/* Some tests damage what is the folder's; the rest is only read. */
	o->fd = openat(o->dirfd, path,
		       (*path == '/' ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	assert_true(o->fd >= 0);
	assert_int_equal(fstat(o->fd, &st), 0);
	o->size = (uint64_t)st.st_size;
	assert_int_equal(archive_read_fd(&o->directory, o->fd, o->size), 0);
	o->id.size = o->size;
	memset(o->id.sha256, 0x5a, sizeof(o->id.sha256));
	o->span = malloc(CHECKPOINTS_SPAN + GUARD);
	assert_non_null(o->span);
	memset(o->span + CHECKPOINTS_SPAN, GUARD_BYTE, GUARD);
}

void object_open(struct object *o, const struct archives *dir, const char *name)
{
	char zip[64];

	snprintf(zip, sizeof(zip), "%s.zip", name);
	object_open_path(o, dir, zip);
}

void object_feed(const struct object *o, struct checkpoints_builder *b,
		 uint64_t size)
{
	static unsigned char buf[70001]; /* no multiple of a piece */
	uint64_t at = 0;

	while (at < size) {
		size_t want = size - at < sizeof(buf) ? size - at : sizeof(buf);
		ssize_t n = pread(o->fd, buf, want, (off_t)at);

		assert_true(n > 0);
		assert_int_equal(checkpoints_builder_raw(b, buf, (size_t)n), 0);
		at += (uint64_t)n;
	}
}

int object_build(struct object *o, const char *index, uint64_t budget,
		 checkpoints_sink_fn *sink, void *arg)
{
	struct checkpoints_builder *b;
	int err;

	assert_int_equal(checkpoints_builder_create(&b, o->dirfd, index,
						    o->directory),
			 0);
	object_feed(o, b, o->size);
	do
		err = checkpoints_builder_step(b, o->fd, o->size, budget, sink,
					       arg);
	while (err == 1);
	if (!err)
		err = checkpoints_builder_finish(b, &o->id);
	checkpoints_builder_free(b);
	return err;
}

void object_assert_same_index(const struct object *o, const char *a,
			      const char *b)
{
	struct checkpoints *x, *y;
	struct stat m, n;

	assert_int_equal(fstatat(o->dirfd, a, &m, 0), 0);
	assert_int_equal(fstatat(o->dirfd, b, &n, 0), 0);
	assert_true(labs(m.st_size - n.st_size) <= m.st_size / 1000);
	assert_int_equal(checkpoints_load(&x, o->dirfd, a, &o->id), 0);
	assert_int_equal(checkpoints_load(&y, o->dirfd, b, &o->id), 0);
	spans_assert_same(x, y, o->fd);
	checkpoints_free(x);
	checkpoints_free(y);
}

void object_use(struct object *o, const char *index)
{
	assert_int_equal(checkpoints_load(&o->cp, o->dirfd, index, &o->id), 0);
}

void object_load(struct object *o, const struct archives *dir, const char *name)
{
	object_open(o, dir, name);
	assert_int_equal(object_build(o, "index", 1 << 20, NULL, NULL), 0);
	object_use(o, "index");
}

void object_close(struct object *o)
{
	for (size_t i = 0; i < GUARD; i++)
		assert_int_equal(o->span[CHECKPOINTS_SPAN + i], GUARD_BYTE);
	checkpoints_free(o->cp);
	archive_directory_free(o->directory);
	free(o->span);
	close(o->fd);
}

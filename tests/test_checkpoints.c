#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/cmocka_all.h"

#include "cache/archive.h"
#include "cache/checkpoints.h"
#include "cache/resume.h"
#include "tests/support/archives.h"
#include "tests/support/object.h"
#include "tests/support/spans.h"

static struct archives dir;

static int setup(void **state)
{
	(void)state;
	archives_create(&dir, "csv_like stored compressible several "
			      "descriptors damaged huge");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	archives_remove(&dir);
	return 0;
}

/* ---- building ---- */

/* What the sink has seen is compared with this. */
struct seen {
	const unsigned char *plain;
	size_t len;
	uint64_t next[16]; /* of each stream */
};

static int check_seen(void *arg, unsigned int stream, uint64_t off,
		      const void *buf, size_t len)
{
	struct seen *s = arg;

	assert_true(stream < 16);
	assert_int_equal(off, s->next[stream]);
	s->next[stream] += len;
	if (stream == 1 && s->plain) {
		assert_true(off + len <= s->len);
		assert_memory_equal(buf, s->plain + off, len);
	}
	return 0;
}

/* Decodes the span that holds @off; its length, or an error. */
static ssize_t decode_at(struct object *o, unsigned int stream, uint64_t off,
			 uint64_t *start)
{
	uint64_t span;
	ssize_t n;
	size_t len;

	checkpoints_span_at(o->cp, stream, off, &span, start, &len);
	assert_true(*start <= off && off - *start < len);
	assert_true(len <= CHECKPOINTS_SPAN);
	n = spans_decode(o->cp, o->fd, stream, span, o->span, len);
	assert_true(n < 0 || (size_t)n == len);
	return n;
}

/* Every span on its own, the last first. */
static void check_stream(struct object *o, unsigned int stream,
			 const unsigned char *plain, size_t len)
{
	uint64_t size, start;

	assert_int_equal(checkpoints_stream_size(o->cp, stream, &size), 0);
	assert_int_equal(size, len);
	for (uint64_t end = size; end; end = start) {
		ssize_t n = decode_at(o, stream, end - 1, &start);

		assert_int_equal(n, end - start);
		assert_memory_equal(o->span, plain + start, (size_t)n);
	}
}

static void check_archive(const char *name)
{
	struct object o;
	unsigned char *plain, *zip;
	char file[64];
	size_t len, zip_len;
	struct seen seen = {0};

	object_open(&o, &dir, name);
	snprintf(file, sizeof(file), "%s.plain", name);
	plain = archives_read(&dir, file, &len);
	snprintf(file, sizeof(file), "%s.zip", name);
	zip = archives_read(&dir, file, &zip_len);
	seen.plain = plain;
	seen.len = len;
	assert_int_equal(object_build(&o, "index", 100000, check_seen, &seen),
			 0);
	assert_int_equal(seen.next[1], len);
	object_use(&o, "index");
	check_stream(&o, 1, plain, len);
	check_stream(&o, 0, zip, zip_len);
	object_close(&o);
	free(plain);
	free(zip);
}

static void
test_checkpoints__every_span_of_any_kind_of_stream_is_exact(void **state)
{
	static const char *const names[] = {
		"csv",
		"small-blocks",
		"fixed",
		"stored-blocks",
		"stored",
		"zeros",
		"long-blocks",
		"whole-spans",
		"one-byte",
		"mixed-0",
		"mixed-1",
		"mixed-2",
		"descriptor",
		"same-codes",
		"same-codes-too",
		"same-codes-apart",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		check_archive(names[i]);
}

static void test_checkpoints__a_window_that_begins_with_zeros(void **state)
{
	char name[32];

	(void)state;
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "zero-window-%d", i);
		check_archive(name);
	}
}

static void test_checkpoints__reads_at_any_offset_in_any_order(void **state)
{
	struct object o;
	unsigned char *plain;
	uint64_t seed = 1;
	size_t len;

	(void)state;
	object_load(&o, &dir, "csv");
	plain = archives_read(&dir, "csv.plain", &len);
	for (int i = 0; i < 300; i++) {
		uint64_t off = archives_random(&seed) % len, start;
		ssize_t n = decode_at(&o, 1, off, &start);

		assert_true(n > 0);
		assert_memory_equal(o.span, plain + start, (size_t)n);
	}
	free(plain);
	object_close(&o);
}

static void test_checkpoints__members_of_one_archive_are_streams(void **state)
{
	struct object o;
	unsigned char *text;
	uint64_t size;
	size_t len;

	(void)state;
	object_load(&o, &dir, "several");
	text = archives_read(&dir, "several.plain", &len);
	assert_int_equal(checkpoints_streams(o.cp), 8);
	check_stream(&o, 1, text, len);
	assert_int_equal(checkpoints_stream_size(o.cp, 2, &size), -ENOENT);
	assert_int_equal(checkpoints_stream_size(o.cp, 3, &size), 0);
	assert_int_equal(size, 2 * 1048576 + 77);
	assert_int_equal(checkpoints_stream_size(o.cp, 4, &size), 0);
	assert_int_equal(size, 0);
	assert_int_equal(checkpoints_stream_size(o.cp, 5, &size), 0);
	assert_int_equal(size, 0);
	assert_int_equal(checkpoints_stream_size(o.cp, 6, &size), -EOPNOTSUPP);
	check_stream(&o, 7, (const unsigned char *)"a,b\n", 4);
	assert_int_equal(checkpoints_stream_size(o.cp, 8, &size), -ENOENT);
	assert_int_equal(spans_decode(o.cp, o.fd, 2, 0, o.span, 1), -EBADMSG);
	assert_int_equal(spans_decode(o.cp, o.fd, 4, 0, o.span, 1), -EBADMSG);
	free(text);
	object_close(&o);
}

/* "huge": 16 MiB chunks of their number and bytes that count. */
static unsigned char huge_byte(uint64_t off)
{
	uint64_t in_chunk = off % (16 << 20);

	if (in_chunk < 8)
		return (unsigned char)(off / (16 << 20) >> 8 * in_chunk);
	return (unsigned char)in_chunk;
}

static void test_checkpoints__a_member_over_4_GiB_is_read_right(void **state)
{
	const uint64_t size = UINT64_C(260) << 24;
	struct object o;
	uint64_t seed = 2, start;

	(void)state;
	object_load(&o, &dir, "huge");
	/* 8,320 spans, or a few more. */
	assert_true(checkpoints_memory(o.cp) < 8320 * 48);
	for (int i = 0; i < 60; i++) {
		uint64_t off = i ? archives_random(&seed) % size : size - 1;
		ssize_t n = decode_at(&o, 1, off, &start);

		assert_true(n > 0);
		for (ssize_t k = 0; k < n; k++) {
			if (o.span[k] != huge_byte(start + (uint64_t)k))
				fail_msg("wrong at %ju", (uintmax_t)start + k);
		}
	}
	object_close(&o);
}

static void test_checkpoints__damaged_members_are_refused(void **state)
{
	static const char *const names[] = {
		"bad-crc",	   "bad-longer",       "bad-shorter",
		"bad-garbage",	   "bad-much-shorter", "bad-cut",
		"bad-cut-early",   "bad-block",	       "bad-no-stream",
		"bad-stored-size", "bad-empty-blocks",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct object o;
		struct stat st;

		object_open(&o, &dir, names[i]);
		if (object_build(&o, "bad-index", 1 << 20, NULL, NULL) !=
		    -EBADMSG)
			fail_msg("%s was taken", names[i]);
		assert_int_equal(fstatat(dir.dirfd, "bad-index", &st, 0), -1);
		object_close(&o);
	}
}

static int refuse(void *arg, unsigned int stream, uint64_t off, const void *buf,
		  size_t len)
{
	(void)arg;
	(void)stream;
	(void)buf;
	(void)len;
	return off > 0 ? -ECANCELED : 0;
}

static void test_checkpoints__the_sink_can_stop_the_pass(void **state)
{
	struct object o;

	(void)state;
	object_open(&o, &dir, "csv");
	assert_int_equal(object_build(&o, "stopped", 1 << 20, refuse, NULL),
			 -ECANCELED);
	object_close(&o);
}

static int count(void *arg, unsigned int stream, uint64_t off, const void *buf,
		 size_t len)
{
	(void)stream;
	(void)off;
	(void)buf;
	*(uint64_t *)arg += len;
	return 0;
}

static void test_checkpoints__a_step_does_about_its_budget(void **state)
{
	struct checkpoints_builder *b;
	struct object o;
	uint64_t all = 0, before = 0;
	int ret;

	(void)state;
	object_open(&o, &dir, "zeros");
	assert_int_equal(checkpoints_builder_create(&b, dir.dirfd, "steps",
						    o.directory),
			 0);
	do {
		ret = checkpoints_builder_step(b, o.fd, o.size, 1 << 20, count,
					       &all);
		assert_true(all - before <= 2 << 20);
		before = all;
	} while (ret == 1);
	assert_int_equal(ret, 0);
	assert_int_equal(all, 6 * 1048576 + 5);
	checkpoints_builder_free(b);
	object_close(&o);
}

static void test_checkpoints__finish_wants_all_of_the_object(void **state)
{
	struct checkpoints_builder *b;
	struct object o;

	(void)state;
	object_open(&o, &dir, "csv");
	assert_int_equal(checkpoints_builder_create(&b, dir.dirfd, "part",
						    o.directory),
			 0);
	object_feed(&o, b, o.size);
	assert_int_equal(checkpoints_builder_finish(b, &o.id), -EINVAL);
	checkpoints_builder_free(b);
	assert_int_equal(
		checkpoints_builder_create(&b, dir.dirfd, "part", NULL), 0);
	object_feed(&o, b, o.size - 1);
	assert_int_equal(
		checkpoints_builder_step(b, o.fd, o.size, 1, NULL, NULL), 0);
	assert_int_equal(checkpoints_builder_finish(b, &o.id), -EINVAL);
	checkpoints_builder_free(b);
	object_close(&o);
}

static void
test_checkpoints__an_object_that_is_no_zip_has_stream_0(void **state)
{
	unsigned char *plain;
	struct object o;
	size_t len;

	(void)state;
	object_open(&o, &dir, "csv");
	close(o.fd);
	archive_directory_free(o.directory);
	o.directory = NULL;
	o.fd = archives_open(&dir, "csv.plain", &o.size);
	o.id.size = o.size;
	plain = archives_read(&dir, "csv.plain", &len);
	assert_int_equal(object_build(&o, "flat", 1, NULL, NULL), 0);
	object_use(&o, "flat");
	assert_int_equal(checkpoints_streams(o.cp), 1);
	check_stream(&o, 0, plain, len);
	free(plain);
	object_close(&o);
}

/* ---- while the object grows ---- */

/* What a growing object is guessed to begin with. */
struct guess {
	struct archive_member first;
	uint64_t data_off;
};

static struct guess right_guess(const struct object *o)
{
	struct guess g = {.first = o->directory->members[0]};
	uint64_t offsets[16];

	assert_in_range(o->directory->n, 1, 16);
	assert_int_equal(archive_data_offsets(offsets, o->directory->n, o->fd,
					      o->size),
			 0);
	g.data_off = offsets[0];
	return g;
}

/* Into a file that grows by @grow bytes a step, until nothing is missing but
 * the directory. How much of stream 1 the sink saw until then is in *@ahead. */
static int build_growing(struct object *o, const char *index,
			 const struct guess *g, uint64_t grow, uint64_t *ahead)
{
	struct checkpoints_builder *b;
	struct seen seen = {0};
	uint64_t here = 0;
	int err;

	assert_int_equal(checkpoints_builder_create(&b, dir.dirfd, index, NULL),
			 0);
	object_feed(o, b, o->size);
	checkpoints_builder_guess(b, &g->first, g->data_off);
	while (here < o->size) {
		here = o->size - here < grow ? o->size : here + grow;
		do
			err = checkpoints_builder_step(b, o->fd, here, 100000,
						       check_seen, &seen);
		while (err == 1);
		assert_int_equal(err, -EAGAIN);
	}
	assert_int_equal(checkpoints_builder_finish(b, &o->id), -EINVAL);
	*ahead = seen.next[1];
	seen.next[1] = 0;
	checkpoints_builder_directory(b, o->directory);
	do
		err = checkpoints_builder_step(b, o->fd, o->size, 100000, NULL,
					       NULL);
	while (err == 1);
	if (!err)
		err = checkpoints_builder_finish(b, &o->id);
	checkpoints_builder_free(b);
	return err;
}

static void test_checkpoints__an_index_does_not_depend_on_growth(void **state)
{
	static const char *const names[] = {
		"csv",	      "small-blocks", "fixed",	     "stored-blocks",
		"stored",     "zeros",	      "long-blocks", "whole-spans",
		"one-byte",   "mixed-0",      "mixed-1",     "mixed-2",
		"descriptor", "several",      "same-codes",  "same-codes-apart",
	};
	static const uint64_t steps[] = {9973, 131072, 1000003, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct object o;
		struct guess g;
		uint64_t ahead;

		object_open(&o, &dir, names[i]);
		assert_int_equal(
			object_build(&o, "index", UINT64_MAX, NULL, NULL), 0);
		g = right_guess(&o);
		for (size_t k = 0; k < sizeof(steps) / sizeof(*steps); k++) {
			assert_int_equal(build_growing(&o, "grown", &g,
						       steps[k], &ahead),
					 0);
			/* All of it was decoded before the directory came. */
			assert_int_equal(ahead, g.first.size);
			object_assert_same_index(&o, "index", "grown");
		}
		object_close(&o);
	}
}

/* Bytes beyond what is here are not looked at, whatever they are. */
static void test_checkpoints__what_is_not_here_is_not_read(void **state)
{
	struct checkpoints_builder *b;
	unsigned char rubbish[4096];
	struct seen seen = {0};
	struct object o, copy;
	struct guess g;
	unsigned char *zip;
	size_t len;
	int err;

	(void)state;
	object_open(&o, &dir, "csv");
	object_open(&copy, &dir, "csv");
	g = right_guess(&o);
	zip = archives_read(&dir, "csv.zip", &len);
	seen.plain = archives_read(&dir, "csv.plain", &seen.len);
	close(copy.fd);
	copy.fd =
		openat(dir.dirfd, "growing", O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(copy.fd >= 0);
	memset(rubbish, 0xff, sizeof(rubbish));
	assert_int_equal(
		checkpoints_builder_create(&b, dir.dirfd, "grown", NULL), 0);
	checkpoints_builder_guess(b, &g.first, g.data_off);
	for (size_t here = 0; here < len;) {
		size_t n = len - here < 5000 ? len - here : 5000;

		assert_int_equal(pwrite(copy.fd, zip + here, n, (off_t)here),
				 n);
		here += n;
		assert_int_equal(pwrite(copy.fd, rubbish, sizeof(rubbish),
					(off_t)here),
				 sizeof(rubbish));
		do
			err = checkpoints_builder_step(
				b, copy.fd, here, 1 << 20, check_seen, &seen);
		while (err == 1);
		assert_int_equal(err, -EAGAIN);
	}
	assert_int_equal(seen.next[1], seen.len);
	checkpoints_builder_free(b);
	free(zip);
	free((void *)seen.plain);
	object_close(&copy);
	object_close(&o);
}

static void test_checkpoints__wrong_guesses_change_nothing(void **state)
{
	struct object o;
	struct guess right, g[8];
	uint64_t ahead;

	(void)state;
	object_open(&o, &dir, "csv");
	assert_int_equal(object_build(&o, "index", UINT64_MAX, NULL, NULL), 0);
	right = right_guess(&o);
	for (size_t i = 0; i < 8; i++)
		g[i] = right;
	g[0].first.crc32 ^= 1;
	g[1].first.size--;
	g[2].first.size += UINT64_C(5) << 30;
	g[3].first.csize--;
	g[4].first.csize += 1000;
	g[5].data_off++;
	g[6].first.method = ARCHIVE_METHOD_STORED;
	g[6].first.size = g[6].first.csize;
	g[7].data_off = UINT64_C(1) << 62;
	for (size_t i = 0; i < 8; i++) {
		assert_int_equal(
			build_growing(&o, "grown", &g[i], 50000, &ahead), 0);
		object_assert_same_index(&o, "index", "grown");
	}
	g[0] = right;
	g[0].first.encrypted = true;
	g[1] = right;
	g[1].first.method = 12;
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(
			build_growing(&o, "grown", &g[i], 50000, &ahead), 0);
		assert_int_equal(ahead, 0);
		object_assert_same_index(&o, "index", "grown");
	}
	object_close(&o);
}

/* The first member of the directory need not be the first in the file. */
static void test_checkpoints__a_guess_may_be_of_another_member(void **state)
{
	struct object o;
	struct guess g;
	uint64_t offsets[7], ahead;

	(void)state;
	object_open(&o, &dir, "several");
	assert_int_equal(object_build(&o, "index", UINT64_MAX, NULL, NULL), 0);
	assert_int_equal(archive_data_offsets(offsets, 7, o.fd, o.size), 0);
	g.first = o.directory->members[2];
	g.data_off = offsets[2];
	assert_int_equal(build_growing(&o, "grown", &g, 50000, &ahead), 0);
	assert_int_equal(ahead, g.first.size);
	object_assert_same_index(&o, "index", "grown");
	object_close(&o);
}

static void test_checkpoints__damage_waits_for_the_directory(void **state)
{
	static const char *const names[] = {
		"bad-crc",	    "bad-longer",	"bad-shorter",
		"bad-garbage",	    "bad-much-shorter", "bad-cut",
		"bad-cut-early",    "bad-block",	"bad-stored-size",
		"bad-empty-blocks",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct object o;
		struct guess g;
		struct stat st;
		uint64_t ahead;

		object_open(&o, &dir, names[i]);
		g = right_guess(&o);
		if (build_growing(&o, "bad-index", &g, 70000, &ahead) !=
		    -EBADMSG)
			fail_msg("%s was taken", names[i]);
		assert_int_equal(fstatat(dir.dirfd, "bad-index", &st, 0), -1);
		object_close(&o);
	}
}

/* The linker puts this in front of resume_read_header(), see the Makefile. */
static bool header_unreadable;
static unsigned int headers_read;

bool __real_resume_read_header(struct resume_header *h,
			       const unsigned char *data, size_t len,
			       unsigned int skip,
			       struct inflate_state *scratch);
bool __wrap_resume_read_header(struct resume_header *h,
			       const unsigned char *data, size_t len,
			       unsigned int skip,
			       struct inflate_state *scratch);

bool __wrap_resume_read_header(struct resume_header *h,
			       const unsigned char *data, size_t len,
			       unsigned int skip, struct inflate_state *scratch)
{
	headers_read++;
	return !header_unreadable &&
	       __real_resume_read_header(h, data, len, skip, scratch);
}

/* By a guess, a block without a header may be of anything. */
static void test_checkpoints__a_header_not_found_waits_as_damage(void **state)
{
	struct checkpoints_builder *b;
	struct object o;
	struct guess g;
	int err;

	(void)state;
	object_open(&o, &dir, "long-blocks");
	g = right_guess(&o);
	assert_int_equal(object_build(&o, "index", UINT64_MAX, NULL, NULL), 0);
	assert_int_equal(
		checkpoints_builder_create(&b, dir.dirfd, "grown", NULL), 0);
	object_feed(&o, b, o.size);
	checkpoints_builder_guess(b, &g.first, g.data_off);
	headers_read = 0;
	header_unreadable = true;
	do
		err = checkpoints_builder_step(b, o.fd, o.size, 1 << 20, NULL,
					       NULL);
	while (err == 1);
	header_unreadable = false;
	assert_int_equal(err, -EAGAIN);
	assert_true(headers_read > 0);
	checkpoints_builder_directory(b, o.directory);
	do
		err = checkpoints_builder_step(b, o.fd, o.size, 1 << 20, NULL,
					       NULL);
	while (err == 1);
	assert_int_equal(err, 0);
	assert_int_equal(checkpoints_builder_finish(b, &o.id), 0);
	checkpoints_builder_free(b);
	object_assert_same_index(&o, "index", "grown");
	object_close(&o);
}

/* ---- damage after the fact ---- */

static void flip(int fd, uint64_t bit)
{
	unsigned char c;

	assert_int_equal(pread(fd, &c, 1, (off_t)(bit / 8)), 1);
	c ^= (unsigned char)(1u << bit % 8);
	assert_int_equal(pwrite(fd, &c, 1, (off_t)(bit / 8)), 1);
}

/* All that can be read is right; the number of spans that can't. */
static int check_or_refused(struct object *o, const unsigned char *plain,
			    size_t len)
{
	uint64_t start;
	int refused = 0;

	for (uint64_t end = len; end; end = start) {
		ssize_t n = decode_at(o, 1, end - 1, &start);

		if (n < 0) {
			assert_int_equal(n, -EBADMSG);
			refused++;
			continue;
		}
		assert_memory_equal(o->span, plain + start, (size_t)n);
	}
	return refused;
}

static void test_checkpoints__a_flipped_bit_in_the_index_is_seen(void **state)
{
	unsigned char *plain;
	struct object o;
	uint64_t seed = 3, bits;
	size_t len;
	int fd;

	(void)state;
	object_load(&o, &dir, "csv");
	plain = archives_read(&dir, "csv.plain", &len);
	fd = archives_open(&dir, "index", &bits);
	bits *= 8;
	for (int i = 0; i < 200; i++) {
		uint64_t bit = archives_random(&seed) % bits;
		int err;

		/* Half of them in the header and the tables. */
		if (i % 2)
			bit = i % 4 == 1 ? bit % (128 * 8)
					 : bits - 1 - bit % (200 * 8);
		flip(fd, bit);
		checkpoints_free(o.cp);
		o.cp = NULL;
		err = checkpoints_load(&o.cp, dir.dirfd, "index", &o.id);
		/* Bits of the CRCs of stream 0 matter to no span of this. */
		if (err)
			assert_int_equal(err, -EBADMSG);
		else
			assert_true(check_or_refused(&o, plain, len) <= 1);
		if (i % 2)
			assert_int_equal(err, -EBADMSG);
		flip(fd, bit);
		if (err)
			assert_int_equal(checkpoints_load(&o.cp, dir.dirfd,
							  "index", &o.id),
					 0);
	}
	assert_int_equal(check_or_refused(&o, plain, len), 0);
	close(fd);
	free(plain);
	object_close(&o);
}

static void test_checkpoints__a_flipped_bit_in_the_zip_is_seen(void **state)
{
	unsigned char *plain;
	struct object o;
	uint64_t seed = 4;
	int refused = 0;
	size_t len;

	(void)state;
	object_load(&o, &dir, "csv");
	plain = archives_read(&dir, "csv.plain", &len);
	for (int i = 0; i < 100; i++) {
		uint64_t bit = archives_random(&seed) % (o.size * 8);

		flip(o.fd, bit);
		refused += check_or_refused(&o, plain, len);
		flip(o.fd, bit);
	}
	/* Blocks may come to nothing, most do not. */
	assert_true(refused >= 90);
	free(plain);
	object_close(&o);
}

static void
test_checkpoints__a_zip_damaged_before_is_never_admitted(void **state)
{
	struct seen seen = {0};
	struct object o;
	uint64_t seed = 5;
	int refused = 0;

	(void)state;
	object_open(&o, &dir, "csv");
	seen.plain = archives_read(&dir, "csv.plain", &seen.len);
	for (int i = 0; i < 60; i++) {
		/* Below the directory, which is parsed already. */
		uint64_t bit = archives_random(&seed) % ((o.size - 200) * 8);
		uint64_t all = 0;
		int err;

		flip(o.fd, bit);
		err = object_build(&o, "hurt", 1 << 20, count, &all);
		if (err) {
			assert_int_equal(err, -EBADMSG);
			refused++;
		} else {
			assert_int_equal(all, seen.len);
		}
		flip(o.fd, bit);
	}
	assert_true(refused >= 55);
	free((void *)seen.plain);
	object_close(&o);
}

static void test_checkpoints__an_index_cut_anywhere_is_refused(void **state)
{
	struct checkpoints *cp;
	struct object o;
	uint64_t size;
	int fd;

	(void)state;
	object_load(&o, &dir, "csv");
	fd = archives_open(&dir, "index", &size);
	for (uint64_t len = size; len-- > 0;) {
		assert_int_equal(ftruncate(fd, (off_t)len), 0);
		if (checkpoints_load(&cp, dir.dirfd, "index", &o.id) !=
		    -EBADMSG)
			fail_msg("taken at %ju", (uintmax_t)len);
	}
	/* And the one that was loaded before has lost its file. */
	assert_int_equal(spans_decode(o.cp, o.fd, 1, 0, o.span, 1), -EBADMSG);
	close(fd);
	object_close(&o);
}

static void test_checkpoints__an_index_is_for_one_object(void **state)
{
	struct checkpoints_id other;
	struct checkpoints *cp;
	struct object o;

	(void)state;
	object_load(&o, &dir, "csv");
	other = o.id;
	other.sha256[31] ^= 1;
	assert_int_equal(checkpoints_load(&cp, dir.dirfd, "index", &other),
			 -EBADMSG);
	other = o.id;
	other.size++;
	assert_int_equal(checkpoints_load(&cp, dir.dirfd, "index", &other),
			 -EBADMSG);
	assert_int_equal(checkpoints_load(&cp, dir.dirfd, "nowhere", &o.id),
			 -ENOENT);
	object_close(&o);
}

static void test_checkpoints__an_object_cut_short_is_seen(void **state)
{
	struct object o;
	uint64_t start;

	(void)state;
	object_load(&o, &dir, "small-blocks");
	assert_int_equal(ftruncate(o.fd, (off_t)(o.size / 2)), 0);
	assert_int_equal(decode_at(&o, 1, 4000000, &start), -EBADMSG);
	assert_true(decode_at(&o, 1, 0, &start) > 0);
	object_close(&o);
}

/* Leaves something where the next calls have their variables. */
static void __attribute__((noinline)) dirty_stack(uint16_t value)
{
	volatile uint16_t waste[200000];

	for (size_t i = 0; i < sizeof(waste) / sizeof(*waste); i++)
		waste[i] = value;
}

/* ISA-L leaves a field of its own to chance, by which windows may come out
 * twice as large. */
static void test_checkpoints__an_index_is_the_same_each_time(void **state)
{
	struct object o;

	(void)state;
	object_open(&o, &dir, "csv");
	dirty_stack(0);
	assert_int_equal(object_build(&o, "index", UINT64_MAX, NULL, NULL), 0);
	for (uint16_t value = 1; value < 20; value++) {
		dirty_stack(value);
		assert_int_equal(
			object_build(&o, "again", UINT64_MAX, NULL, NULL), 0);
		object_assert_same_index(&o, "index", "again");
	}
	object_close(&o);
}

static void test_checkpoints__the_index_is_small(void **state)
{
	struct object o;
	struct stat st;

	(void)state;
	object_load(&o, &dir, "csv");
	assert_int_equal(fstatat(dir.dirfd, "index", &st, 0), 0);
	assert_true((uint64_t)st.st_size * 100 <= o.size * 4);
	object_close(&o);
}

/* ---- spans in parts ---- */

/* Decodes [from, to) of a span by @d, which it leaves paused in @paused. */
static size_t decode_part(struct object *o, unsigned int stream, uint64_t span,
			  struct checkpoints_decoder *d, size_t from, size_t to,
			  unsigned char *paused)
{
	ssize_t n;

	if (from)
		checkpoints_resume(d, paused);
	n = checkpoints_decode(o->cp, o->fd, stream, span, d, o->span, from,
			       to);
	assert_true(n >= (ssize_t)to);
	checkpoints_pause(d, paused);
	return (size_t)n;
}

/* Two decoders take turns at a span, a random number of bytes each. */
static void check_parts(struct object *o, unsigned int stream, uint64_t span,
			const unsigned char *plain, size_t len, uint64_t *seed)
{
	static unsigned char paused[CHECKPOINTS_PAUSED_BYTES];
	struct checkpoints_decoder *d[2];
	size_t done = 0;

	for (int i = 0; i < 2; i++)
		assert_int_equal(checkpoints_decoder_create(&d[i]), 0);
	for (int turn = 0; done < len; turn++) {
		size_t to = done + 1 + archives_random(seed) % 200000;
		size_t before = done;

		if (to > len)
			to = len;
		done = decode_part(o, stream, span, d[turn % 2], done, to,
				   paused);
		assert_true(done == len || done % CHECKPOINTS_PIECE == 0);
		assert_true(done < to + CHECKPOINTS_PIECE);
		assert_memory_equal(o->span + before, plain + before,
				    done - before);
	}
	assert_int_equal(done, len);
	for (int i = 0; i < 2; i++)
		checkpoints_decoder_free(d[i]);
}

static void check_all_in_parts(const char *name, unsigned int stream,
			       const char *plain_name)
{
	uint64_t seed = 7, span, start;
	unsigned char *plain;
	struct object o;
	size_t size, len;

	object_load(&o, &dir, name);
	plain = archives_read(&dir, plain_name, &size);
	for (uint64_t off = 0; off < size; off = start + len) {
		checkpoints_span_at(o.cp, stream, off, &span, &start, &len);
		check_parts(&o, stream, span, plain + start, len, &seed);
	}
	free(plain);
	object_close(&o);
}

static void test_checkpoints__a_span_is_decoded_in_parts(void **state)
{
	(void)state;
	check_all_in_parts("csv", 1, "csv.plain");
	check_all_in_parts("csv", 0, "csv.zip");
}

static void test_checkpoints__damage_is_seen_in_its_part(void **state)
{
	const uint64_t where = 100000; /* in the second piece of the zip */
	struct checkpoints_decoder *d;
	unsigned char before, after;
	struct object o;

	(void)state;
	object_load(&o, &dir, "csv");
	assert_int_equal(checkpoints_decoder_create(&d), 0);
	assert_int_equal(pread(o.fd, &before, 1, (off_t)where), 1);
	after = before ^ 1;
	assert_int_equal(pwrite(o.fd, &after, 1, (off_t)where), 1);
	assert_int_equal(checkpoints_decode(o.cp, o.fd, 0, 0, d, o.span, 0,
					    1000),
			 CHECKPOINTS_PIECE);
	assert_int_equal(checkpoints_decode(o.cp, o.fd, 0, 0, d, o.span,
					    CHECKPOINTS_PIECE, where),
			 -EBADMSG);
	assert_int_equal(pwrite(o.fd, &before, 1, (off_t)where), 1);
	checkpoints_decoder_free(d);
	object_close(&o);
}

/* ---- archives as they were published ---- */

static unsigned char *unzip(const char *path, size_t *len)
{
	size_t cap = 1 << 20, n;
	unsigned char *buf = malloc(cap);
	char command[1024];
	FILE *f;

	snprintf(command, sizeof(command), "unzip -p '%s'", path);
	f = popen(command, "r");
	assert_non_null(f);
	*len = 0;
	while ((n = fread(buf + *len, 1, cap - *len, f)) > 0) {
		*len += n;
		if (*len == cap)
			buf = realloc(buf, cap *= 2);
		assert_non_null(buf);
	}
	assert_int_equal(pclose(f), 0);
	return buf;
}

static void check_published(const char *path)
{
	unsigned char *plain;
	struct object o;
	size_t len;

	object_open_path(&o, &dir, path);
	assert_int_equal(archive_csv(o.directory, strrchr(path, '/') + 1), 0);
	assert_int_equal(object_build(&o, "published", 1 << 20, NULL, NULL), 0);
	object_use(&o, "published");
	plain = unzip(path, &len);
	check_stream(&o, 1, plain, len);
	free(plain);
	object_close(&o);
}

static void test_checkpoints__published_archives_are_exact(void **state)
{
	const char *real = getenv("TICKFS_REALDATA");
	char command[512], path[512];
	FILE *f;

	(void)state;
	if (!real)
		skip_without("archives, see TICKFS_REALDATA");
	snprintf(command, sizeof(command), "find '%s' -name '*.zip'", real);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(path, sizeof(path), f)) {
		path[strcspn(path, "\n")] = '\0';
		check_published(path);
	}
	assert_int_equal(pclose(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_checkpoints__every_span_of_any_kind_of_stream_is_exact),
		cmocka_unit_test(
			test_checkpoints__a_window_that_begins_with_zeros),
		cmocka_unit_test(
			test_checkpoints__reads_at_any_offset_in_any_order),
		cmocka_unit_test(
			test_checkpoints__members_of_one_archive_are_streams),
		cmocka_unit_test(
			test_checkpoints__a_member_over_4_GiB_is_read_right),
		cmocka_unit_test(test_checkpoints__damaged_members_are_refused),
		cmocka_unit_test(test_checkpoints__the_sink_can_stop_the_pass),
		cmocka_unit_test(
			test_checkpoints__a_step_does_about_its_budget),
		cmocka_unit_test(
			test_checkpoints__finish_wants_all_of_the_object),
		cmocka_unit_test(
			test_checkpoints__an_object_that_is_no_zip_has_stream_0),
		cmocka_unit_test(
			test_checkpoints__an_index_does_not_depend_on_growth),
		cmocka_unit_test(
			test_checkpoints__what_is_not_here_is_not_read),
		cmocka_unit_test(
			test_checkpoints__wrong_guesses_change_nothing),
		cmocka_unit_test(
			test_checkpoints__a_guess_may_be_of_another_member),
		cmocka_unit_test(
			test_checkpoints__damage_waits_for_the_directory),
		cmocka_unit_test(
			test_checkpoints__a_header_not_found_waits_as_damage),
		cmocka_unit_test(
			test_checkpoints__a_flipped_bit_in_the_index_is_seen),
		cmocka_unit_test(
			test_checkpoints__a_flipped_bit_in_the_zip_is_seen),
		cmocka_unit_test(
			test_checkpoints__a_zip_damaged_before_is_never_admitted),
		cmocka_unit_test(
			test_checkpoints__an_index_cut_anywhere_is_refused),
		cmocka_unit_test(test_checkpoints__an_index_is_for_one_object),
		cmocka_unit_test(test_checkpoints__an_object_cut_short_is_seen),
		cmocka_unit_test(
			test_checkpoints__an_index_is_the_same_each_time),
		cmocka_unit_test(test_checkpoints__the_index_is_small),
		cmocka_unit_test(test_checkpoints__a_span_is_decoded_in_parts),
		cmocka_unit_test(test_checkpoints__damage_is_seen_in_its_part),
		cmocka_unit_test(
			test_checkpoints__published_archives_are_exact),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

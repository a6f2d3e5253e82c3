/*
 * Digests and the index of what was staged. Digests are OpenSSL's in one go;
 * archives and what they hold are Python's.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/ingest.h"
#include "tests/support/archives.h"
#include "tests/support/fs_bench.h"
#include "tests/support/spans.h"

#define KEY "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip"

static struct store_staging *stage(struct fs_bench *b)
{
	struct store_staging *sg;

	fs_up(b, &(struct fs_options){.offline = true});
	assert_int_equal(store_stage(b->store, KEY, &sg), 0);
	assert_int_equal(store_staging_begin(sg, "E", UINT64_MAX, -1, 0), 0);
	return sg;
}

static void write_all(struct store_staging *sg, const void *data, size_t len)
{
	assert_int_equal(store_staging_write(sg, data, len), 0);
}

static void assert_digests(struct ingest *in, const void *data, size_t len)
{
	unsigned char sha256[32], md5[16], expected[EVP_MAX_MD_SIZE];

	assert_int_equal(ingest_digests(in, sha256, md5), 0);
	assert_true(EVP_Digest(data, len, expected, NULL, EVP_sha256(), NULL));
	assert_memory_equal(sha256, expected, 32);
	assert_true(EVP_Digest(data, len, expected, NULL, EVP_md5(), NULL));
	assert_memory_equal(md5, expected, 16);
}

/* Steps until nothing is left to do with @contiguous bytes; how many is in
 * @steps. */
static int decode_all(struct ingest *in, uint64_t contiguous, bool whole,
		      uint64_t budget, unsigned int *steps)
{
	int err;

	*steps = 0;
	do {
		err = ingest_decode(in, contiguous, whole, budget, NULL, NULL);
		++*steps;
	} while (err == 1);
	return err;
}

static void test_ingest__follows_bytes_as_they_come(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct ingest *in;
	size_t len, at = 0, n;
	char *data = fs_rows(1, 30000, &len);

	assert_int_equal(ingest_create(&in, sg, false, NULL), 0);
	assert_int_equal(ingest_follow(in, 0, 1000), 0);
	for (size_t step = 1; at < len; step = step * 3 + 1) {
		n = step < len - at ? step : len - at;
		write_all(sg, data + at, n);
		at += n;
		assert_int_equal(ingest_follow(in, at, UINT64_MAX), 0);
		assert_int_equal(ingest_followed(in), at);
	}
	assert_digests(in, data, len);
	ingest_free(in);
	store_staging_close(sg);
	free(data);
}

static void test_ingest__digests_of_nothing(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct ingest *in;

	assert_int_equal(ingest_create(&in, sg, false, NULL), 0);
	assert_int_equal(ingest_follow(in, 0, 1), 0);
	assert_digests(in, "", 0);
	ingest_free(in);
	store_staging_close(sg);
}

static void test_ingest__steps_keep_to_their_budget(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct ingest *in;
	size_t len;
	char *data = fs_rows(1, 30000, &len);
	uint64_t before = 0;

	write_all(sg, data, len);
	assert_int_equal(ingest_create(&in, sg, false, NULL), 0);
	while (ingest_follow(in, len, 1000) == 1) {
		assert_int_equal(ingest_followed(in), before + 1000);
		before += 1000;
	}
	assert_int_equal(ingest_followed(in), len);
	assert_digests(in, data, len);
	ingest_free(in);
	store_staging_close(sg);
	free(data);
}

/* What is said to be there and is not: the disk lost it. */
static void test_ingest__file_shorter_than_told_is_an_error(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct ingest *in;

	write_all(sg, "12345", 5);
	assert_int_equal(ingest_create(&in, sg, false, NULL), 0);
	assert_int_equal(ingest_follow(in, 6, UINT64_MAX), -EIO);
	ingest_free(in);
	store_staging_close(sg);
}

static void test_ingest__zip_is_indexed_in_steps(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct fs_member m = {.name = "BTCUSDT-1m-2024-01-01.csv"};
	struct checkpoints_id id = {0};
	struct store_info info = {.etag = "E", .verdict = VERDICT_VERIFIED};
	struct store_object *o;
	struct ingest *in;
	unsigned int steps;
	unsigned char md5[16];
	uint64_t size;
	size_t len;
	char *csv = fs_rows(1, 100000, &m.len);
	void *zip;

	m.data = csv;
	zip = fs_zip(&m, 1, &len);
	write_all(sg, zip, len);
	assert_int_equal(ingest_create(&in, sg, true, NULL), 0);
	assert_null(ingest_directory(in));
	assert_int_equal(ingest_follow(in, len, UINT64_MAX), 0);
	assert_int_equal(ingest_digests(in, info.sha256, md5), 0);
	assert_int_equal(decode_all(in, len, true, 200000, &steps), 0);
	assert_true(steps >= m.len / 400000);
	assert_int_equal(ingest_decode(in, len, true, 1, NULL, NULL), 0);
	assert_int_equal(ingest_directory(in)->n, 1);
	assert_int_equal(ingest_directory(in)->members[0].size, m.len);

	id.size = info.size = len;
	memcpy(id.sha256, info.sha256, 32);
	assert_int_equal(ingest_seal(in, &id), 0);
	assert_int_equal(store_staging_commit(sg, &info), 0);
	ingest_free(in);
	store_staging_close(sg);
	assert_int_equal(store_acquire(b->store, KEY, &o), 0);
	assert_int_equal(
		checkpoints_stream_size(store_object_index(o), 1, &size), 0);
	assert_int_equal(size, m.len);
	store_release(o);
	free(zip);
	free(csv);
}

static void test_ingest__one_budget_or_another_is_one_index(void **state)
{
	static const uint64_t budgets[] = {1, 65536, 1000001, UINT64_MAX};
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct fs_member m = {.name = "a.csv"};
	struct checkpoints_id id = {0};
	struct ingest *in;
	unsigned int steps;
	size_t len, first_len = 0, n;
	char *csv = fs_rows(1, 100000, &m.len), *first = NULL, *now;
	const char *name;
	struct stat st;
	void *zip;
	int dirfd, fd;

	m.data = csv;
	zip = fs_zip(&m, 1, &len);
	write_all(sg, zip, len);
	id.size = len;
	fs_sha256(zip, len, id.sha256);
	for (size_t i = 0; i < sizeof(budgets) / sizeof(*budgets); i++) {
		assert_int_equal(ingest_create(&in, sg, true, NULL), 0);
		assert_int_equal(decode_all(in, len, true, budgets[i], &steps),
				 0);
		assert_int_equal(ingest_follow(in, len, UINT64_MAX), 0);
		assert_int_equal(ingest_seal(in, &id), 0);
		store_staging_index(sg, &dirfd, &name);
		fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		n = (size_t)st.st_size;
		now = malloc(n);
		assert_non_null(now);
		assert_int_equal(pread(fd, now, n, 0), st.st_size);
		close(fd);
		if (first) {
			assert_int_equal(n, first_len);
			assert_memory_equal(now, first, n);
			free(now);
		} else {
			first = now;
			first_len = n;
		}
		ingest_free(in);
	}
	store_staging_close(sg);
	free(first);
	free(zip);
	free(csv);
}

/* ---- archives that grow ---- */

static struct archives dir;

/* The index as it lies in staging, or its length alone. */
static char *read_index(struct store_staging *sg, size_t *len)
{
	const char *name;
	struct stat st;
	char *buf;
	int dirfd, fd;

	store_staging_index(sg, &dirfd, &name);
	fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*len = (size_t)st.st_size;
	buf = malloc(*len + 1);
	assert_non_null(buf);
	assert_int_equal(pread(fd, buf, *len, 0), st.st_size);
	close(fd);
	return buf;
}

static size_t index_bytes(struct store_staging *sg)
{
	size_t len;

	free(read_index(sg, &len));
	return len;
}

/* The index of what is staged, when it is all there from the first. NULL where
 * *err is not 0. */
static char *index_at_once(struct store_staging *sg, const void *zip,
			   size_t len, size_t *index_len, int *err)
{
	struct checkpoints_id id = {.size = len};
	struct ingest *in;
	unsigned int steps;
	char *index = NULL;

	fs_sha256(zip, len, id.sha256);
	assert_int_equal(ingest_create(&in, sg, true, NULL), 0);
	assert_int_equal(ingest_follow(in, len, UINT64_MAX), 0);
	*err = decode_all(in, len, true, UINT64_MAX, &steps);
	if (!*err) {
		assert_int_equal(ingest_seal(in, &id), 0);
		index = read_index(sg, index_len);
	}
	ingest_free(in);
	return index;
}

/* The same while it comes in. *ahead: something was decoded before the end. */
static char *index_growing(struct store_staging *sg, const char *zip,
			   size_t len, struct archive_directory *expected,
			   bool *ahead, size_t *index_len, int *err)
{
	struct checkpoints_id id = {.size = len};
	struct ingest *in;
	unsigned int steps;
	char *index = NULL;

	fs_sha256(zip, len, id.sha256);
	assert_int_equal(store_staging_begin(sg, "E", UINT64_MAX, -1, 0), 0);
	assert_int_equal(ingest_create(&in, sg, true, expected), 0);
	for (size_t at = 0; at < len;) {
		size_t n = len - at < 10007 ? len - at : 10007;

		write_all(sg, zip + at, n);
		at += n;
		assert_int_equal(decode_all(in, at, false, 300000, &steps),
				 -EAGAIN);
		assert_null(ingest_directory(in));
		assert_int_equal(ingest_follow(in, at, UINT64_MAX), 0);
	}
	*ahead = index_bytes(sg) > 0;
	*err = decode_all(in, len, true, 300000, &steps);
	assert_digests(in, zip, len);
	if (!*err) {
		assert_int_equal(ingest_seal(in, &id), 0);
		index = read_index(sg, index_len);
	}
	ingest_free(in);
	return index;
}

static struct checkpoints *load_index(const char *index, size_t len,
				      const struct checkpoints_id *id)
{
	struct checkpoints *cp;
	int fd =
		openat(dir.dirfd, "loaded", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, index, len), len);
	close(fd);
	/* It keeps the file open; the next one is another. */
	assert_int_equal(checkpoints_load(&cp, dir.dirfd, "loaded", id), 0);
	assert_int_equal(unlinkat(dir.dirfd, "loaded", 0), 0);
	return cp;
}

/* Of the archive in @sg. */
static void assert_same_index(struct store_staging *sg, const char *zip,
			      size_t len, const char *a, size_t n,
			      const char *b, size_t m)
{
	struct checkpoints_id id = {.size = len};
	struct checkpoints *x, *y;

	fs_sha256(zip, len, id.sha256);
	x = load_index(a, n, &id);
	y = load_index(b, m, &id);
	spans_assert_same(x, y, store_staging_fd(sg));
	checkpoints_free(x);
	checkpoints_free(y);
}

struct layout {
	const char *name;
	int err;
	/* Is its member decoded before the end: by its first header alone, and
	 * by the directory where that was known? */
	bool by_header, by_directory;
};

static void check_layout(struct fs_bench *b, const struct layout *l)
{
	struct store_staging *sg = stage(b);
	size_t len, n, m;
	char *zip = (char *)archives_read(&dir, l->name, &len);
	char *index, *grown;
	int err;

	write_all(sg, zip, len);
	index = index_at_once(sg, zip, len, &n, &err);
	assert_int_equal(err, l->err);
	for (int known = 0; known < 2; known++) {
		struct archive_directory *d = NULL;
		bool ahead;

		if (known && archive_read_tail(&d, zip, len, len))
			break;
		grown = index_growing(sg, zip, len, d, &ahead, &m, &err);
		assert_int_equal(err, l->err);
		if (ahead != (known ? l->by_directory : l->by_header))
			fail_msg("%s, directory %sknown: %sdecoded ahead",
				 l->name, known ? "" : "not ",
				 ahead ? "" : "not ");
		if (!err)
			assert_same_index(sg, zip, len, index, n, grown, m);
		free(grown);
	}
	store_staging_close(sg);
	fs_down(b);
	free(index);
	free(zip);
}

static void test_ingest__archives_are_decoded_as_they_come(void **state)
{
	static const struct layout layouts[] = {
		{"layout.zip", 0, true, true},
		{"layout-comment.zip", 0, true, true},
		{"layout-stored.zip", 0, true, true},
		{"layout-two.zip", 0, true, true},
		{"layout-zip64.zip", 0, false, true},
		{"layout-descriptor.zip", 0, false, true},
		/* Its first header lies. */
		{"layout-local.zip", 0, false, true},
		/* Its directory begins with the other member. */
		{"layout-reversed.zip", 0, true, false},
		{"layout-prefix.zip", 0, false, false},
		{"layout-garbage.zip", 0, true, true},
		{"layout-cut.zip", -EBADMSG, true, true},
		{"layout-flipped.zip", -EBADMSG, false, false},
	};

	for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++)
		check_layout(*state, &layouts[i]);
}

/* What a tail told may have been of other bytes. */
static void test_ingest__expected_directory_is_not_believed(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	size_t len, n, m;
	char *zip = (char *)archives_read(&dir, "layout.zip", &len);
	char *index, *grown;
	bool ahead;
	int err;

	write_all(sg, zip, len);
	index = index_at_once(sg, zip, len, &n, &err);
	assert_int_equal(err, 0);
	for (int lie = 0; lie < 6; lie++) {
		struct archive_directory *d;
		struct archive_member *first;

		assert_int_equal(archive_read_tail(&d, zip, len, len), 0);
		first = d->members;
		switch (lie) {
		case 0:
			first->crc32 ^= 1;
			break;
		case 1:
			first->size += 1 << 20;
			break;
		case 2:
			first->csize -= 1 << 16;
			break;
		case 3:
			first->is_dir = true;
			break;
		case 4:
			first->method = ARCHIVE_METHOD_STORED;
			break;
		default:
			free(first->name);
			d->n = 0;
		}
		grown = index_growing(sg, zip, len, d, &ahead, &m, &err);
		assert_int_equal(err, 0);
		assert_same_index(sg, zip, len, index, n, grown, m);
		free(grown);
	}
	store_staging_close(sg);
	free(index);
	free(zip);
}

static void test_ingest__decoded_bytes_are_those_of_the_csv(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct checkpoints_id id = {0};
	struct checkpoints *cp;
	size_t len, plain_len, n;
	char *zip = (char *)archives_read(&dir, "layout.zip", &len);
	unsigned char *plain = archives_read(&dir, "layout.plain", &plain_len);
	unsigned char *span = malloc(CHECKPOINTS_SPAN);
	const char *name;
	uint64_t size;
	bool ahead;
	int dirfd, err;

	assert_non_null(span);
	store_staging_index(sg, &dirfd, &name);
	free(index_growing(sg, zip, len, NULL, &ahead, &n, &err));
	assert_int_equal(err, 0);
	id.size = len;
	fs_sha256(zip, len, id.sha256);
	assert_int_equal(checkpoints_load(&cp, dirfd, name, &id), 0);
	assert_int_equal(checkpoints_stream_size(cp, 1, &size), 0);
	assert_int_equal(size, plain_len);
	for (uint64_t off = 0; off < size; off += n) {
		uint64_t at, start;

		checkpoints_span_at(cp, 1, off, &at, &start, &n);
		assert_int_equal(start, off);
		assert_int_equal(spans_decode(cp, store_staging_fd(sg), 1, at,
					      span, n),
				 n);
		assert_memory_equal(span, plain + off, n);
	}
	checkpoints_free(cp);
	store_staging_close(sg);
	free(span);
	free(plain);
	free(zip);
}

static void test_ingest__damage_is_found_while_decoding(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct fs_member m = {.name = "a.csv"};
	struct ingest *in;
	unsigned int steps;
	size_t len;
	char *csv = fs_rows(1, 20000, &m.len);
	unsigned char *zip;

	m.data = csv;
	zip = fs_zip(&m, 1, &len);
	zip[len / 2] ^= 1;
	write_all(sg, zip, len);
	assert_int_equal(ingest_create(&in, sg, true, NULL), 0);
	assert_int_equal(decode_all(in, len, true, 100000, &steps), -EBADMSG);
	ingest_free(in);
	store_staging_close(sg);
	free(zip);
	free(csv);
}

static void test_ingest__no_zip_is_none(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct ingest *in;
	unsigned int steps;

	write_all(sg, "plain text", 10);
	assert_int_equal(ingest_create(&in, sg, true, NULL), 0);
	assert_int_equal(decode_all(in, 10, true, 1000, &steps), -EBADMSG);
	ingest_free(in);
	assert_int_equal(ingest_create(&in, sg, false, NULL), 0);
	assert_int_equal(decode_all(in, 10, true, 1000, &steps), 0);
	assert_null(ingest_directory(in));
	ingest_free(in);
	store_staging_close(sg);
}

static void test_ingest__given_up_leaves_no_file(void **state)
{
	struct fs_bench *b = *state;
	struct store_staging *sg = stage(b);
	struct fs_member m = {.name = "a.csv", .data = "1\n", .len = 2};
	struct ingest *in;
	const char *name;
	struct stat st;
	size_t len;
	void *zip = fs_zip(&m, 1, &len);
	int dirfd;

	write_all(sg, zip, len);
	free(zip);
	assert_int_equal(ingest_create(&in, sg, true, NULL), 0);
	assert_int_equal(ingest_decode(in, len, true, 1000, NULL, NULL), 0);
	store_staging_index(sg, &dirfd, &name);
	assert_int_equal(fstatat(dirfd, name, &st, 0), 0);
	ingest_free(in);
	assert_int_equal(fstatat(dirfd, name, &st, 0), -1);
	store_staging_close(sg);
	ingest_free(NULL);
}

static int make_archives(void **state)
{
	(void)state;
	archives_create(&dir, "layouts");
	return 0;
}

static int remove_archives(void **state)
{
	(void)state;
	archives_remove(&dir);
	return 0;
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_ingest__follows_bytes_as_they_come),
		BENCH(test_ingest__digests_of_nothing),
		BENCH(test_ingest__steps_keep_to_their_budget),
		BENCH(test_ingest__file_shorter_than_told_is_an_error),
		BENCH(test_ingest__zip_is_indexed_in_steps),
		BENCH(test_ingest__one_budget_or_another_is_one_index),
		BENCH(test_ingest__archives_are_decoded_as_they_come),
		BENCH(test_ingest__expected_directory_is_not_believed),
		BENCH(test_ingest__decoded_bytes_are_those_of_the_csv),
		BENCH(test_ingest__damage_is_found_while_decoding),
		BENCH(test_ingest__no_zip_is_none),
		BENCH(test_ingest__given_up_leaves_no_file),
	};

	return cmocka_run_group_tests(tests, make_archives, remove_archives);
}

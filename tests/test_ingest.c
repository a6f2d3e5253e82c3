/* Digests and the index of what was staged. Digests are OpenSSL's in one go. */
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
#include "tests/support/fs_bench.h"

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

/* Steps until it is done; how many is in @steps. */
static int index_all(struct ingest *in, uint64_t size, uint64_t budget,
		     unsigned int *steps)
{
	int err;

	*steps = 0;
	do {
		err = ingest_index(in, size, budget);
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

	assert_int_equal(ingest_create(&in, sg, false), 0);
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

	assert_int_equal(ingest_create(&in, sg, false), 0);
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
	assert_int_equal(ingest_create(&in, sg, false), 0);
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
	assert_int_equal(ingest_create(&in, sg, false), 0);
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
	assert_int_equal(ingest_create(&in, sg, true), 0);
	assert_null(ingest_directory(in));
	assert_int_equal(ingest_follow(in, len, UINT64_MAX), 0);
	assert_int_equal(ingest_digests(in, info.sha256, md5), 0);
	assert_int_equal(index_all(in, len, 200000, &steps), 0);
	/* over the raw bytes once, and over the decoded ones */
	assert_true(steps >= len / 200000 + m.len / 400000);
	assert_int_equal(ingest_index(in, len, 1), 0);
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
		assert_int_equal(ingest_create(&in, sg, true), 0);
		assert_int_equal(index_all(in, len, budgets[i], &steps), 0);
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
	assert_int_equal(ingest_create(&in, sg, true), 0);
	assert_int_equal(index_all(in, len, 100000, &steps), -EBADMSG);
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
	assert_int_equal(ingest_create(&in, sg, true), 0);
	assert_int_equal(index_all(in, 10, 1000, &steps), -EBADMSG);
	ingest_free(in);
	assert_int_equal(ingest_create(&in, sg, false), 0);
	assert_int_equal(index_all(in, 10, 1000, &steps), 0);
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
	assert_int_equal(ingest_create(&in, sg, true), 0);
	assert_int_equal(ingest_index(in, len, 1), 1);
	store_staging_index(sg, &dirfd, &name);
	assert_int_equal(fstatat(dirfd, name, &st, 0), 0);
	ingest_free(in);
	assert_int_equal(fstatat(dirfd, name, &st, 0), -1);
	store_staging_close(sg);
	ingest_free(NULL);
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
		BENCH(test_ingest__damage_is_found_while_decoding),
		BENCH(test_ingest__no_zip_is_none),
		BENCH(test_ingest__given_up_leaves_no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

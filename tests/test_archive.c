#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/archive.h"
#include "tests/support/archives.h"

static struct archives dir;

static int setup(void **state)
{
	(void)state;
	archives_create(&dir, "several lies huge sparse descriptors");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	archives_remove(&dir);
	return 0;
}

static int read_named(struct archive_directory **d, const char *name)
{
	uint64_t size;
	int fd = archives_open(&dir, name, &size);
	int err = archive_read_fd(d, fd, size);

	close(fd);
	return err;
}

/* The last @len bytes of the file, as if they were all we have. */
static int read_tail(struct archive_directory **d, const char *name, size_t len)
{
	uint64_t size;
	int fd = archives_open(&dir, name, &size);
	unsigned char *tail = malloc(len + 1);
	int err;

	assert_non_null(tail);
	assert_int_equal(pread(fd, tail, len, (off_t)(size - len)),
			 (ssize_t)len);
	err = archive_read_tail(d, tail, len, size);
	free(tail);
	close(fd);
	return err;
}

static void check_several(const struct archive_directory *d)
{
	static const struct {
		const char *name;
		uint64_t size;
		uint16_t method;
		bool is_dir;
	} expected[] = {
		{"several.csv", 0, 8, false},
		{"folder/", 0, 0, true},
		{"folder/stored.bin", 2097229, 0, false},
		{"folder/empty", 0, 0, false},
		{"deflated-empty", 0, 8, false},
		{"other.bz2", 0, 12, false},
		{"\xe5\xb8\x81\xe5\xae\x89.csv", 4, 8, false},
	};

	assert_int_equal(d->n, 7);
	for (size_t i = 0; i < 7; i++) {
		const struct archive_member *m = &d->members[i];

		assert_string_equal(m->name, expected[i].name);
		assert_int_equal(m->method, expected[i].method);
		assert_int_equal(m->is_dir, expected[i].is_dir);
		assert_false(m->encrypted);
		/* date -u -d '2024-07-03 12:34:56' +%s */
		assert_int_equal(m->mtime, 1720010096);
		if (expected[i].size)
			assert_int_equal(m->size, expected[i].size);
	}
	/* CRC-32 of "a,b\n": python3 -c 'print(zlib.crc32(b"a,b\n"))' */
	assert_int_equal(d->members[6].crc32, UINT32_C(0x249710c5));
	assert_int_equal(d->members[2].csize, 2097229);
}

static void test_archive__the_directory_is_as_it_was_written(void **state)
{
	struct archive_directory *d;

	(void)state;
	assert_int_equal(read_named(&d, "several.zip"), 0);
	check_several(d);
	archive_directory_free(d);
}

static void test_archive__the_time_zone_does_not_matter(void **state)
{
	static const char *const zones[] = {"UTC", "EST5EDT,M3.2.0,M11.1.0",
					    "XXX-13"};
	struct archive_directory *d;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		setenv("TZ", zones[i], 1);
		tzset();
		assert_int_equal(read_named(&d, "several.zip"), 0);
		check_several(d);
		archive_directory_free(d);
	}
	unsetenv("TZ");
	tzset();
}

static void test_archive__a_tail_is_enough_or_says_it_is_not(void **state)
{
	static const char *const names[] = {"true.zip", "true-zip64.zip"};
	struct archive_directory *d;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		uint64_t size;
		bool enough = false;

		close(archives_open(&dir, names[i], &size));
		for (size_t len = 0; len <= size; len++) {
			int err = read_tail(&d, names[i], len);

			if (err) {
				/* Never once a shorter one was enough. */
				assert_false(enough);
				assert_int_equal(err, -ENODATA);
				continue;
			}
			enough = true;
			assert_int_equal(d->n, 1);
			assert_string_equal(d->members[0].name, "lies.csv");
			assert_int_equal(d->members[0].size, 6);
			archive_directory_free(d);
		}
		assert_true(enough);
	}
}

static void test_archive__the_usual_tail_does_for_large_archives(void **state)
{
	struct archive_directory *d;

	(void)state;
	assert_int_equal(read_tail(&d, "several.zip", ARCHIVE_TAIL_BYTES), 0);
	check_several(d);
	archive_directory_free(d);
	assert_int_equal(read_tail(&d, "huge.zip", ARCHIVE_TAIL_BYTES), 0);
	assert_int_equal(d->n, 1);
	assert_int_equal(d->members[0].size, UINT64_C(260) << 24);
	archive_directory_free(d);
}

static void test_archive__a_whole_file_never_lacks_data(void **state)
{
	static const char *const names[] = {
		"lies-size.zip",    "lies-csize.zip",	"lies-csize64.zip",
		"lies-count.zip",   "lies-count64.zip", "lies-where.zip",
		"lies-where64.zip", "nothing.zip",	"no-zip.zip",
	};
	struct archive_directory *d;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		uint64_t size;

		close(archives_open(&dir, names[i], &size));
		if (read_named(&d, names[i]) != -EBADMSG ||
		    read_tail(&d, names[i], size) != -EBADMSG)
			fail_msg("%s was taken", names[i]);
	}
}

static void test_archive__a_tail_longer_than_the_file_is_refused(void **state)
{
	struct archive_directory *d;

	(void)state;
	assert_int_equal(archive_read_tail(&d, "abc", 3, 2), -EBADMSG);
	assert_int_equal(archive_read_tail(&d, "abc", 3, UINT64_MAX), -EBADMSG);
}

static void test_archive__too_many_members_are_refused(void **state)
{
	struct archive_directory *d;

	(void)state;
	assert_int_equal(read_named(&d, "many.zip"), -EFBIG);
}

static void test_archive__an_encrypted_member_is_marked(void **state)
{
	struct archive_directory *d;

	(void)state;
	assert_int_equal(read_named(&d, "encrypted.zip"), 0);
	assert_true(d->members[0].encrypted);
	archive_directory_free(d);
}

static void test_archive__errors_of_the_file_are_kept(void **state)
{
	struct archive_directory *d;

	(void)state;
	assert_int_equal(archive_read_fd(&d, -1, 1000), -EBADF);
}

static void test_archive__data_begin_where_local_headers_end(void **state)
{
	uint64_t offsets[7], size;
	unsigned char *text;
	char *at;
	size_t len;
	int fd;

	(void)state;
	fd = archives_open(&dir, "several.zip", &size);
	assert_int_equal(archive_data_offsets(offsets, 7, fd, size), 0);
	text = archives_read(&dir, "several.offsets", &len);
	text[len] = '\0';
	at = (char *)text;
	for (size_t i = 0; i < 7; i++) {
		uint64_t expected = strtoull(at, &at, 10);

		if (i == 1)
			assert_true(offsets[i] == UINT64_MAX);
		else if (i == 3) /* nothing to read */
			assert_int_equal(offsets[i], 0);
		else
			assert_int_equal(offsets[i], expected);
	}
	assert_int_equal(archive_data_offsets(offsets, 6, fd, size), -EBADMSG);
	free(text);
	close(fd);
}

static void check_sparse(const struct archive_directory *d)
{
	const struct archive_member *m = d->members;

	assert_int_equal(d->n, 2);
	assert_string_equal(m[0].name, "zeros.csv");
	assert_int_equal(m[0].method, ARCHIVE_METHOD_STORED);
	assert_int_equal(m[0].size, UINT64_C(9) << 29);
	assert_int_equal(m[0].csize, UINT64_C(9) << 29);
	assert_int_equal(m[0].crc32, UINT32_C(0xe90177c6));
	assert_string_equal(m[1].name, "small.csv");
	assert_int_equal(m[1].size, 4);
	assert_int_equal(m[1].csize, 4);
	assert_int_equal(m[1].crc32, UINT32_C(0x249710c5));
}

/* The second member and the directory lie where 32 bits do not reach. */
static void test_archive__offsets_may_pass_4_gib(void **state)
{
	/* Local headers, with the name and for zip64 20 bytes more. */
	const uint64_t first = 30 + 9 + 20;
	const uint64_t second = first + (UINT64_C(9) << 29) + 30 + 9;
	struct archive_directory *d;
	uint64_t offsets[2], size;
	char text[5] = "";
	int fd;

	(void)state;
	assert_int_equal(read_named(&d, "sparse.zip"), 0);
	check_sparse(d);
	archive_directory_free(d);
	assert_int_equal(read_tail(&d, "sparse.zip", ARCHIVE_TAIL_BYTES), 0);
	check_sparse(d);
	archive_directory_free(d);
	fd = archives_open(&dir, "sparse.zip", &size);
	assert_true(size > UINT64_C(9) << 29);
	assert_int_equal(archive_data_offsets(offsets, 2, fd, size), 0);
	assert_int_equal(offsets[0], first);
	assert_int_equal(offsets[1], second);
	assert_int_equal(pread(fd, text, 4, (off_t)offsets[1]), 4);
	assert_string_equal(text, "a,b\n");
	close(fd);
}

/* From the first @len bytes of a zip. */
static int read_head(struct archive_member *m, uint64_t *off, const char *name,
		     size_t len)
{
	unsigned char head[ARCHIVE_HEAD_BYTES];
	uint64_t size;
	int fd = archives_open(&dir, name, &size);

	assert_int_equal(pread(fd, head, len, 0), (ssize_t)len);
	close(fd);
	return archive_read_head(m, off, head, len);
}

/* Compared with what libzip makes of the whole file. */
static void check_head(const char *name, bool tells_sizes)
{
	struct archive_member head, *m;
	struct archive_directory *d;
	uint64_t size, off, offsets[7];
	int fd;

	assert_int_equal(read_named(&d, name), 0);
	m = &d->members[0];
	fd = archives_open(&dir, name, &size);
	assert_int_equal(archive_data_offsets(offsets, d->n, fd, size), 0);
	close(fd);
	assert_int_equal(read_head(&head, &off, name, ARCHIVE_HEAD_BYTES), 0);
	assert_int_equal(off, offsets[0]);
	assert_int_equal(head.method, m->method);
	assert_int_equal(head.encrypted, m->encrypted);
	assert_null(head.name);
	if (tells_sizes) {
		assert_int_equal(head.size, m->size);
		assert_int_equal(head.csize, m->csize);
		assert_int_equal(head.crc32, m->crc32);
	} else {
		assert_true(head.csize == UINT64_MAX);
	}
	archive_directory_free(d);
}

static void test_archive__the_first_header_tells_of_its_member(void **state)
{
	(void)state;
	check_head("true.zip", true);
	check_head("several.zip", true);
	check_head("true-zip64.zip", false);
	check_head("huge.zip", false);
	check_head("descriptor.zip", false);
}

static void test_archive__the_first_header_may_not_be_there(void **state)
{
	struct archive_member m;
	uint64_t off;

	(void)state;
	assert_int_equal(read_head(&m, &off, "true.zip", 29), -ENODATA);
	assert_int_equal(read_head(&m, &off, "no-zip.zip", ARCHIVE_HEAD_BYTES),
			 -EBADMSG);
	assert_int_equal(read_head(&m, &off, "encrypted.zip", 30), 0);
	assert_true(m.encrypted);
}

static void test_archive__the_csv_is_the_one_named_like_the_zip(void **state)
{
	char notes[] = "notes.txt", deep[] = "sub/X.csv", csv[] = "X.csv";
	char sub[] = "sub/";
	struct archive_member m[] = {
		{.name = notes},
		{.name = deep},
		{.name = csv},
		{.name = sub, .is_dir = true},
	};
	struct archive_directory d = {4, m};

	(void)state;
	assert_int_equal(archive_csv(&d, "X.zip"), 2);
	assert_int_equal(archive_csv(&d, "Y.zip"), -1);
	assert_int_equal(archive_csv(&d, "X.csv"), -1);
	assert_int_equal(archive_csv(&d, ".zip"), -1);
	/* One file in all is it, whatever its name. */
	d.members = m + 2;
	d.n = 2;
	assert_int_equal(archive_csv(&d, "Y.zip"), 0);
	d.members = m + 3;
	d.n = 1;
	assert_int_equal(archive_csv(&d, "X.zip"), -1);
	d.n = 0;
	assert_int_equal(archive_csv(&d, "X.zip"), -1);
}

static void test_archive__names_that_leave_the_folder_are_not_ok(void **state)
{
	static const char *const ok[] = {"a",	"a.csv", "a/b", "a/",  "a/b/",
					 "..a", "a..",	 "...", "a/.b"};
	static const char *const bad[] = {"",	  "/",	   "/a",     ".",
					  "..",	  "./a",   "../a",   "a/..",
					  "a//b", "a/./b", "a/../b", "a//",
					  "./",	  "../"};
	char name[PATH_MAX + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(ok) / sizeof(*ok); i++) {
		if (!archive_name_ok(ok[i]))
			fail_msg("\"%s\" is fine", ok[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (archive_name_ok(bad[i]))
			fail_msg("\"%s\" is not fine", bad[i]);
	}
	memset(name, 'a', 256);
	name[256] = '\0';
	assert_false(archive_name_ok(name));
	assert_true(archive_name_ok(name + 1));
	for (size_t i = 0; i < PATH_MAX; i++)
		name[i] = i % 2 ? '/' : 'a';
	name[PATH_MAX] = '\0';
	assert_false(archive_name_ok(name));
	name[PATH_MAX - 1] = '\0';
	assert_true(archive_name_ok(name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_archive__the_directory_is_as_it_was_written),
		cmocka_unit_test(test_archive__the_time_zone_does_not_matter),
		cmocka_unit_test(
			test_archive__a_tail_is_enough_or_says_it_is_not),
		cmocka_unit_test(
			test_archive__the_usual_tail_does_for_large_archives),
		cmocka_unit_test(test_archive__a_whole_file_never_lacks_data),
		cmocka_unit_test(
			test_archive__a_tail_longer_than_the_file_is_refused),
		cmocka_unit_test(test_archive__too_many_members_are_refused),
		cmocka_unit_test(test_archive__an_encrypted_member_is_marked),
		cmocka_unit_test(test_archive__errors_of_the_file_are_kept),
		cmocka_unit_test(
			test_archive__data_begin_where_local_headers_end),
		cmocka_unit_test(test_archive__offsets_may_pass_4_gib),
		cmocka_unit_test(
			test_archive__the_first_header_tells_of_its_member),
		cmocka_unit_test(
			test_archive__the_first_header_may_not_be_there),
		cmocka_unit_test(
			test_archive__the_csv_is_the_one_named_like_the_zip),
		cmocka_unit_test(
			test_archive__names_that_leave_the_folder_are_not_ok),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

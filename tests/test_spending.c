#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/spending.h"
#include "tests/support/scratch.h"

/* The CRC is what `printf '%s' "day ... 25" | gzip -c | tail -c8 | od -tx4`
 * shows first. */
static const char line[] = "day 20787 bytes 1234567890123 downloads 25 "
			   "crc 680cded8\n";

static const struct spending some = {
	.day = 20787,
	.bytes = 1234567890123,
	.downloads = 25,
};

static void assert_same(const struct spending *a, const struct spending *b)
{
	assert_int_equal(a->day, b->day);
	assert_int_equal(a->bytes, b->bytes);
	assert_int_equal(a->downloads, b->downloads);
}

static void test_spending__is_a_line_of_text(void **state)
{
	char text[SPENDING_TEXT_MAX];
	struct spending got;

	(void)state;
	assert_int_equal(spending_format(&some, text), strlen(line));
	assert_string_equal(text, line);
	assert_int_equal(spending_parse(line, strlen(line), &got), 0);
	assert_same(&got, &some);
}

static void test_spending__any_numbers_come_back(void **state)
{
	const struct spending all[] = {
		{0, 0, 0},
		{-1, 1, 1},
		{INT64_MAX, UINT64_MAX, UINT64_MAX},
		{INT64_MIN, UINT64_MAX, 0},
	};
	char text[SPENDING_TEXT_MAX];
	struct spending got;

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		size_t len = spending_format(&all[i], text);

		assert_true(len < SPENDING_TEXT_MAX);
		assert_int_equal(spending_parse(text, len, &got), 0);
		assert_same(&got, &all[i]);
	}
}

static void test_spending__any_change_of_the_text_shows(void **state)
{
	char text[sizeof(line)];
	struct spending got;

	(void)state;
	for (size_t i = 0; i < strlen(line); i++) {
		assert_int_equal(spending_parse(line, i, &got), -EBADMSG);
		for (int bit = 0; bit < 8; bit++) {
			memcpy(text, line, sizeof(line));
			text[i] ^= (char)(1 << bit);
			assert_int_equal(spending_parse(text, strlen(line),
							&got),
					 -EBADMSG);
		}
	}
	assert_int_equal(spending_parse(line, sizeof(line), &got), -EBADMSG);
}

static void test_spending__is_kept_in_the_cache(void **state)
{
	char *dir = scratch_create(), *path = scratch_path(dir, "spending");
	struct spending got, less = {.day = 1, .bytes = 2, .downloads = 1};

	(void)state;
	assert_int_equal(spending_load(dir, &got), -ENOENT);
	assert_int_equal(spending_save(dir, &some), 0);
	assert_int_equal(spending_load(dir, &got), 0);
	assert_same(&got, &some);
	assert_int_equal(spending_save(dir, &less), 0);
	assert_int_equal(spending_load(dir, &got), 0);
	assert_same(&got, &less);
	scratch_flip(path, 5, 1);
	assert_int_equal(spending_load(dir, &got), -EBADMSG);
	scratch_write(path, "", 0);
	assert_int_equal(spending_load(dir, &got), -EBADMSG);
	assert_int_equal(spending_save(dir, &some), 0);
	assert_int_equal(spending_load(dir, &got), 0);
	free(path);
	scratch_remove(dir);
}

static void test_spending__removes_what_a_crash_left(void **state)
{
	char *dir = scratch_create(), *left = scratch_path(dir, "spending.new");
	struct spending got;

	(void)state;
	assert_int_equal(spending_save(dir, &some), 0);
	scratch_write(left, "day", 3);
	assert_int_equal(spending_load(dir, &got), 0);
	assert_same(&got, &some);
	assert_int_equal(access(left, F_OK), -1);
	free(left);
	scratch_remove(dir);
}

static void test_spending__says_what_the_disk_said(void **state)
{
	struct spending got;

	(void)state;
	assert_int_equal(spending_load("/nonexistent", &got), -ENOENT);
	assert_int_equal(spending_save("/nonexistent", &some), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spending__is_a_line_of_text),
		cmocka_unit_test(test_spending__any_numbers_come_back),
		cmocka_unit_test(test_spending__any_change_of_the_text_shows),
		cmocka_unit_test(test_spending__is_kept_in_the_cache),
		cmocka_unit_test(test_spending__removes_what_a_crash_left),
		cmocka_unit_test(test_spending__says_what_the_disk_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

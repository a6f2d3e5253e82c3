#include "tests/support/cmocka_all.h"

#include <errno.h>

#include "fetch/range.h"

/* The examples of RFC 9110 section 14.4. */
static void test_range__reads_the_examples_of_the_rfc(void **state)
{
	struct range r;

	(void)state;
	assert_int_equal(range_parse("bytes 42-1233/1234", &r), 0);
	assert_true(r.satisfied);
	assert_int_equal(r.first, 42);
	assert_int_equal(r.last, 1233);
	assert_int_equal(r.total, 1234);
	assert_int_equal(range_parse("bytes 42-1233/*", &r), 0);
	assert_true(r.satisfied);
	assert_int_equal(r.last, 1233);
	assert_true(r.total == UINT64_MAX);
	assert_int_equal(range_parse("bytes */1234", &r), 0);
	assert_false(r.satisfied);
	assert_int_equal(r.total, 1234);
}

static void test_range__reads_a_single_byte_and_large_files(void **state)
{
	struct range r;

	(void)state;
	assert_int_equal(range_parse("bytes 0-0/1", &r), 0);
	assert_int_equal(r.last, 0);
	assert_int_equal(
		range_parse("bytes 5000000000-5368709119/5368709120", &r), 0);
	assert_true(r.first == 5000000000 && r.total == 5368709120);
}

static void test_range__rejects_what_cannot_be(void **state)
{
	static const char *const bad[] = {
		"",
		"bytes",
		"bytes ",
		"42-1233/1234",
		"items 0-1/2",
		"bytes=0-1/2",
		"bytes 5-4/10",
		"bytes 0-10/10",
		"bytes 0-1/",
		"bytes 0-1",
		"bytes 0-/2",
		"bytes -1/2",
		"bytes -1-1/2",
		"bytes +0-1/2",
		"bytes 0 -1/2",
		"bytes  0-1/2",
		"bytes 0-1/2 ",
		"bytes 0-1/2, 3-4/5",
		"bytes */*",
		"bytes 0x0-1/2",
		"bytes 0-1/99999999999999999999",
		"bytes 18446744073709551616-18446744073709551617/*",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct range r = {.total = 77};

		assert_int_equal(range_parse(bad[i], &r), -EPROTO);
		assert_int_equal(r.total, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range__reads_the_examples_of_the_rfc),
		cmocka_unit_test(
			test_range__reads_a_single_byte_and_large_files),
		cmocka_unit_test(test_range__rejects_what_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

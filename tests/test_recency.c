#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cache/recency.h"

static void test_recency__needs_nothing_where_all_fits(void **state)
{
	(void)state;
	assert_int_equal(recency_need(60, 100, 40, 1000, 0), 0);
	assert_int_equal(recency_need(0, 100, 0, 50, 50), 0);
	assert_int_equal(recency_need(0, 100, 100, 150, 50), 0);
}

static void test_recency__needs_what_is_over_the_quota(void **state)
{
	(void)state;
	assert_int_equal(recency_need(61, 100, 40, 1000, 0), 1);
	assert_int_equal(recency_need(250, 100, 0, 1000, 0), 150);
}

static void test_recency__needs_what_the_file_system_is_short_of(void **state)
{
	(void)state;
	assert_int_equal(recency_need(10, 100, 20, 50, 40), 10);
	assert_int_equal(recency_need(10, 100, 0, 0, 40), 40);
	/* Both: the larger one frees enough for both. */
	assert_int_equal(recency_need(95, 100, 20, 50, 40), 15);
	assert_int_equal(recency_need(95, 100, 20, 30, 40), 30);
}

static void test_recency__never_fits_more_than_the_quota(void **state)
{
	(void)state;
	assert_true(recency_need(0, 100, 101, 1000, 0) == UINT64_MAX);
	assert_int_equal(recency_need(0, 100, 100, 1000, 0), 0);
}

static void test_recency__sums_do_not_wrap(void **state)
{
	(void)state;
	assert_true(recency_need(UINT64_MAX, 100, 100, UINT64_MAX, 0) ==
		    UINT64_MAX - 100);
	assert_true(recency_need(0, UINT64_MAX, UINT64_MAX, 1, UINT64_MAX) ==
		    UINT64_MAX - 1);
}

static void test_recency__evicts_the_fewest_in_order(void **state)
{
	struct recency_candidate c[] = {
		{.bytes = 10, .last_use = 1},
		{.bytes = 10, .last_use = 2, .held = true},
		{.bytes = 10, .last_use = 3},
		{.bytes = 10, .last_use = 4, .evict = true},
	};

	(void)state;
	assert_int_equal(recency_choose(c, 4, 15), 20);
	assert_true(c[0].evict);
	assert_false(c[1].evict);
	assert_true(c[2].evict);
	assert_false(c[3].evict);
}

static void
test_recency__frees_what_there_is_where_it_is_too_little(void **state)
{
	struct recency_candidate c[] = {
		{.bytes = 10, .held = true},
		{.bytes = 7},
	};

	(void)state;
	assert_int_equal(recency_choose(c, 2, 100), 7);
	assert_int_equal(recency_choose(c, 2, 0), 0);
	assert_false(c[1].evict);
	assert_int_equal(recency_choose(NULL, 0, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recency__needs_nothing_where_all_fits),
		cmocka_unit_test(test_recency__needs_what_is_over_the_quota),
		cmocka_unit_test(
			test_recency__needs_what_the_file_system_is_short_of),
		cmocka_unit_test(test_recency__never_fits_more_than_the_quota),
		cmocka_unit_test(test_recency__sums_do_not_wrap),
		cmocka_unit_test(test_recency__evicts_the_fewest_in_order),
		cmocka_unit_test(
			test_recency__frees_what_there_is_where_it_is_too_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/support/cmocka_all.h"

#include <math.h>

#include "fetch/bucket.h"

static const uint64_t S = 1000000000;

static unsigned int take_all(struct bucket *b, uint64_t now_ns)
{
	unsigned int n = 0;

	while (n < 100000 && bucket_take(b, now_ns) == 0)
		n++;
	return n;
}

static void test_bucket__gives_its_burst_at_once(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 50, 500, 7 * S);
	assert_int_equal(take_all(&b, 7 * S), 500);
}

static void test_bucket__refills_at_its_rate_up_to_its_burst(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 50, 500, 0);
	take_all(&b, 0);
	assert_int_equal(take_all(&b, 2 * S), 100);
	assert_int_equal(take_all(&b, 3600 * S), 500);
}

static void test_bucket__tells_when_to_come_again(void **state)
{
	struct bucket b;
	uint64_t wait;

	(void)state;
	bucket_init(&b, 4, 1, 0);
	assert_int_equal(bucket_take(&b, 0), 0);
	wait = bucket_take(&b, 0);
	/* A token every 250 ms, and a rounding. */
	assert_in_range(wait, 250000000, 250000002);
	assert_int_equal(bucket_take(&b, wait), 0);
	assert_true(bucket_take(&b, wait) > 0);
}

static void test_bucket__of_rate_0_is_unlimited(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 0, 0, 0);
	assert_int_equal(take_all(&b, 0), 100000);
	bucket_init(&b, -1, 3, 0);
	assert_int_equal(take_all(&b, 0), 100000);
	bucket_init(&b, NAN, 3, 0);
	assert_int_equal(take_all(&b, 0), 100000);
}

static void test_bucket__with_a_burst_below_1_still_gives(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 10, 0, 0);
	assert_int_equal(take_all(&b, 0), 1);
	assert_int_equal(take_all(&b, S), 1);
	bucket_init(&b, 10, NAN, 0);
	assert_int_equal(take_all(&b, 0), 1);
}

static void test_bucket__survives_a_clock_that_stands_or_goes_back(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 10, 5, 100 * S);
	take_all(&b, 100 * S);
	assert_true(bucket_take(&b, 50 * S) > 0);
	assert_int_equal(take_all(&b, 100 * S + S / 10), 1);
}

static void test_bucket__gives_none_until_what_it_owes_is_refilled(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 100, 100, 0);
	bucket_spend(&b, 350, 0); /* 250 owed, and one to be there */
	assert_in_range(bucket_wait(&b, 0, 0), 2510000000, 2510000002);
	assert_true(bucket_take(&b, 2 * S) > 0);
	assert_int_equal(take_all(&b, 3 * S), 50);
}

static void test_bucket__gives_on_credit_up_to_what_is_allowed(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 100, 100, 0);
	bucket_spend(&b, 150, 0);
	assert_int_equal(bucket_wait(&b, 51, 0), 0);
	assert_in_range(bucket_wait(&b, 50, 0), 10000000, 10000002);
	assert_in_range(bucket_wait(&b, 0, 0), 510000000, 510000002);
	/* To ask takes nothing. */
	assert_int_equal(take_all(&b, S), 50);
}

static void test_bucket__of_rate_0_owes_nothing(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 0, 1, 0);
	bucket_spend(&b, UINT64_MAX, 0);
	assert_int_equal(bucket_wait(&b, 0, 0), 0);
}

static void test_bucket__of_a_tiny_rate_gives_a_finite_wait(void **state)
{
	struct bucket b;

	(void)state;
	bucket_init(&b, 1e-300, 1, 0);
	assert_int_equal(bucket_take(&b, 0), 0);
	assert_in_range(bucket_take(&b, 0), 1, 86400 * S);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bucket__gives_its_burst_at_once),
		cmocka_unit_test(
			test_bucket__refills_at_its_rate_up_to_its_burst),
		cmocka_unit_test(test_bucket__tells_when_to_come_again),
		cmocka_unit_test(test_bucket__of_rate_0_is_unlimited),
		cmocka_unit_test(test_bucket__with_a_burst_below_1_still_gives),
		cmocka_unit_test(
			test_bucket__gives_none_until_what_it_owes_is_refilled),
		cmocka_unit_test(
			test_bucket__gives_on_credit_up_to_what_is_allowed),
		cmocka_unit_test(test_bucket__of_rate_0_owes_nothing),
		cmocka_unit_test(
			test_bucket__survives_a_clock_that_stands_or_goes_back),
		cmocka_unit_test(
			test_bucket__of_a_tiny_rate_gives_a_finite_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

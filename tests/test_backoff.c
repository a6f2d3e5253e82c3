#include "tests/support/cmocka_all.h"

#include "fetch/backoff.h"

static const struct backoff usual = {.base_ms = 200, .ceiling_ms = 30000};

static void test_backoff__never_exceeds_its_ceiling(void **state)
{
	static const uint64_t randoms[] = {
		0, 1, 29999, 30000, 30001, UINT64_MAX - 1, UINT64_MAX};

	(void)state;
	for (unsigned int attempt = 0; attempt < 200; attempt++) {
		for (size_t i = 0; i < sizeof(randoms) / sizeof(*randoms); i++)
			assert_in_range(backoff_ms(&usual, attempt, 0,
						   randoms[i]),
					0, 30000);
	}
}

/* 200 * 2^attempt: a random number below that bound is the wait itself. */
static void test_backoff__doubles_its_bound_with_each_attempt(void **state)
{
	static const uint64_t bounds[] = {200,	400,   800,   1600, 3200,
					  6400, 12800, 25600, 30000};

	(void)state;
	for (unsigned int i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
		assert_int_equal(backoff_ms(&usual, i, 0, bounds[i]),
				 bounds[i]);
		assert_int_equal(backoff_ms(&usual, i, 0, bounds[i] + 1), 0);
	}
}

static void test_backoff__spreads_from_nothing_to_its_bound(void **state)
{
	uint64_t low = 0, high = 0;

	(void)state;
	for (uint64_t random = 0; random <= 800; random++) {
		uint64_t ms = backoff_ms(&usual, 2, 0, random);

		low += ms < 400;
		high += ms > 400;
	}
	assert_int_equal(low, 400);
	assert_int_equal(high, 400);
}

static void test_backoff__takes_extreme_settings(void **state)
{
	static const struct backoff none = {0, 1000};
	static const struct backoff stopped = {1000, 0};
	static const struct backoff huge = {UINT64_MAX, UINT64_MAX};

	(void)state;
	assert_int_equal(backoff_ms(&none, 9, 0, 12345), 0);
	assert_int_equal(backoff_ms(&stopped, 9, 0, 12345), 0);
	assert_true(backoff_ms(&huge, 9, 0, 12345) == 12345);
}

static void test_backoff__obeys_retry_after_beyond_the_ceiling(void **state)
{
	(void)state;
	assert_int_equal(backoff_ms(&usual, 0, 5000, 0), 5000);
	assert_int_equal(backoff_ms(&usual, 0, 60000, 0), 60000);
	assert_int_equal(backoff_ms(&usual, 9, 60000, 0), 60000);
	assert_int_equal(backoff_ms(&usual, 0, 3600000, 0), 300000);
}

static void test_backoff__reads_retry_after_seconds(void **state)
{
	(void)state;
	assert_int_equal(backoff_retry_after_ms("120", 0), 120000);
	assert_int_equal(backoff_retry_after_ms("0", 0), 0);
	/* Longer than anyone waits, and no overflow. */
	assert_true(backoff_retry_after_ms("99999999999999999999999", 0) >=
		    30 * 86400 * UINT64_C(1000));
}

/* RFC 9110 section 5.6.7: 1994-11-06 08:49:37 is 784111777. */
static void test_backoff__reads_retry_after_dates(void **state)
{
	static const char *const dates[] = {
		"Sun, 06 Nov 1994 08:49:37 GMT",
		"Sunday, 06-Nov-94 08:49:37 GMT",
		"Sun Nov  6 08:49:37 1994",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(dates) / sizeof(*dates); i++)
		assert_int_equal(
			backoff_retry_after_ms(dates[i], 784111777 - 5), 5000);
	assert_int_equal(backoff_retry_after_ms(dates[0], 784111777), 0);
	assert_int_equal(backoff_retry_after_ms(dates[0], 784111778), 0);
}

static void test_backoff__ignores_a_retry_after_of_neither_form(void **state)
{
	static const char *const bad[] = {"",	 " ",	 "-5",	 "+5", "1.5",
					  "5 s", "soon", "0x10", "5,6"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(backoff_retry_after_ms(bad[i], 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backoff__never_exceeds_its_ceiling),
		cmocka_unit_test(
			test_backoff__doubles_its_bound_with_each_attempt),
		cmocka_unit_test(
			test_backoff__spreads_from_nothing_to_its_bound),
		cmocka_unit_test(test_backoff__takes_extreme_settings),
		cmocka_unit_test(
			test_backoff__obeys_retry_after_beyond_the_ceiling),
		cmocka_unit_test(test_backoff__reads_retry_after_seconds),
		cmocka_unit_test(test_backoff__reads_retry_after_dates),
		cmocka_unit_test(
			test_backoff__ignores_a_retry_after_of_neither_form),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

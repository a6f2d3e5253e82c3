/* The counters are the process's: every test looks at what it adds itself. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/metrics.h"

#define assert_near(a, b) assert_true(fabs((a) - (b)) < 1e-6)

/* First in the list: nothing was sampled yet. */
static void test_metrics__no_rate_before_two_samples(void **state)
{
	(void)state;
	metrics_add(METRIC_FETCH_BYTES, 1000);
	assert_near(metrics_rate(METRIC_FETCH_BYTES), 0);
	metrics_tick(1000);
	assert_near(metrics_rate(METRIC_FETCH_BYTES), 0);
}

/* 3000 in 2 s, then 3500 in 5 s. */
static void test_metrics__rate_is_growth_over_time(void **state)
{
	(void)state;
	metrics_add(METRIC_FETCH_BYTES, 3000);
	metrics_tick(3000);
	assert_near(metrics_rate(METRIC_FETCH_BYTES), 1500);
	metrics_add(METRIC_FETCH_BYTES, 500);
	metrics_tick(6000);
	assert_near(metrics_rate(METRIC_FETCH_BYTES), 700);
	assert_near(metrics_rate(METRIC_READ_BYTES), 0);
}

/* A burst is in the window for METRICS_WINDOW_S seconds, and then no more. */
static void test_metrics__window_forgets(void **state)
{
	uint64_t now_ms = 1000000;

	(void)state;
	for (int i = 0; i <= METRICS_WINDOW_S; i++)
		metrics_tick(now_ms += 1000);
	assert_near(metrics_rate(METRIC_READ_BYTES), 0);
	metrics_add(METRIC_READ_BYTES, 5000);
	for (int i = 0; i < METRICS_WINDOW_S; i++) {
		metrics_tick(now_ms += 1000);
		assert_near(metrics_rate(METRIC_READ_BYTES),
			    5000.0 / METRICS_WINDOW_S);
	}
	metrics_tick(now_ms += 1000);
	assert_near(metrics_rate(METRIC_READ_BYTES), 0);
}

static void test_metrics__two_samples_of_one_moment_give_no_rate(void **state)
{
	(void)state;
	for (int i = 0; i <= METRICS_WINDOW_S; i++) {
		metrics_add(METRIC_READ_BYTES, 10);
		metrics_tick(5000000);
	}
	assert_near(metrics_rate(METRIC_READ_BYTES), 0);
}

enum { THREADS = 4, ADDS = 20000 };

static void *add(void *arg)
{
	(void)arg;
	for (int i = 0; i < ADDS; i++) {
		metrics_add(METRIC_CACHE_HITS, 1);
		metrics_add(METRIC_CACHE_MISSES, 2);
	}
	return NULL;
}

static void test_metrics__threads_lose_no_count(void **state)
{
	uint64_t hits = metrics_get(METRIC_CACHE_HITS);
	uint64_t misses = metrics_get(METRIC_CACHE_MISSES);
	pthread_t t[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, add, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(metrics_get(METRIC_CACHE_HITS) - hits, THREADS * ADDS);
	assert_int_equal(metrics_get(METRIC_CACHE_MISSES) - misses,
			 2 * THREADS * ADDS);
}

/* First of those that count latencies. */
static void test_metrics__no_latency_is_none(void **state)
{
	(void)state;
	assert_near(metrics_latency_quantile(0.5), 0);
	assert_near(metrics_latency_quantile(0.99), 0);
}

/* Buckets are an eighth of a power of two wide: what comes out is off by a
 * sixteenth of the power below it at most. */
static void assert_around(double seconds, double ns)
{
	assert_true(seconds * 1e9 >= ns - ns / 16 - 1);
	assert_true(seconds * 1e9 <= ns + ns / 16 + 1);
}

/* 90 of 1 ms, 9 of 100 ms and one of 10 s: the 50th, the 95th and the 100th of
 * a hundred. */
static void test_metrics__quantiles_count_what_lies_below(void **state)
{
	(void)state;
	for (int i = 0; i < 90; i++)
		metrics_latency(1000000);
	for (int i = 0; i < 9; i++)
		metrics_latency(100000000);
	metrics_latency(10000000000u);
	assert_around(metrics_latency_quantile(0.5), 1e6);
	assert_around(metrics_latency_quantile(0.9), 1e6);
	assert_around(metrics_latency_quantile(0.95), 1e8);
	assert_around(metrics_latency_quantile(0.99), 1e8);
	assert_around(metrics_latency_quantile(1), 1e10);
	/* the least there is, not what there is none of */
	assert_around(metrics_latency_quantile(0), 1e6);
}

/* Seen at the ends: each is shorter, or longer, than all before it. */
static void test_metrics__every_length_finds_its_bucket(void **state)
{
	(void)state;
	for (uint64_t ns = 900000; ns; ns -= 1 + ns / 5) {
		metrics_latency(ns);
		assert_around(metrics_latency_quantile(0), (double)ns);
	}
	for (uint64_t ns = 11000000000u; ns < UINT64_MAX / 2; ns += ns / 5) {
		metrics_latency(ns);
		assert_around(metrics_latency_quantile(1), (double)ns);
	}
	metrics_latency(UINT64_MAX);
	assert_around(metrics_latency_quantile(1), (double)UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_metrics__no_rate_before_two_samples),
		cmocka_unit_test(test_metrics__rate_is_growth_over_time),
		cmocka_unit_test(test_metrics__window_forgets),
		cmocka_unit_test(
			test_metrics__two_samples_of_one_moment_give_no_rate),
		cmocka_unit_test(test_metrics__threads_lose_no_count),
		cmocka_unit_test(test_metrics__no_latency_is_none),
		cmocka_unit_test(test_metrics__quantiles_count_what_lies_below),
		cmocka_unit_test(test_metrics__every_length_finds_its_bucket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

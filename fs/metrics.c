#include "fs/metrics.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
	SAMPLES = METRICS_WINDOW_S + 1,
	/* Buckets: eight to each power of two of nanoseconds. */
	BUCKETS = 64 * 8,
};

static _Atomic uint64_t counters[METRIC_COUNT];
static _Atomic uint64_t latencies[BUCKETS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	uint64_t at_ms;
	uint64_t values[METRIC_COUNT];
} samples[SAMPLES];	     /* protected by lock */
static unsigned int sampled; /* protected by lock; how many ever */

void metrics_add(enum metric m, uint64_t n)
{
	atomic_fetch_add_explicit(&counters[m], n, memory_order_relaxed);
}

uint64_t metrics_get(enum metric m)
{
	return atomic_load_explicit(&counters[m], memory_order_relaxed);
}

void metrics_tick(uint64_t now_ms)
{
	unsigned int i;

	pthread_mutex_lock(&lock);
	i = sampled++ % SAMPLES;
	samples[i].at_ms = now_ms;
	for (int m = 0; m < METRIC_COUNT; m++)
		samples[i].values[m] = metrics_get((enum metric)m);
	pthread_mutex_unlock(&lock);
}

double metrics_rate(enum metric m)
{
	unsigned int first, last;
	uint64_t grown, ms;
	double rate = 0;

	pthread_mutex_lock(&lock);
	if (sampled >= 2) {
		last = (sampled - 1) % SAMPLES;
		first = sampled >= SAMPLES ? sampled % SAMPLES : 0;
		grown = samples[last].values[m] - samples[first].values[m];
		ms = samples[last].at_ms - samples[first].at_ms;
		if (ms > 0)
			rate = (double)grown * 1000.0 / (double)ms;
	}
	pthread_mutex_unlock(&lock);
	return rate;
}

/* The highest bit, then the three below it. */
static unsigned int bucket_of(uint64_t ns)
{
	unsigned int bit;

	if (ns < 8)
		return (unsigned int)ns;
	bit = 63 - (unsigned int)__builtin_clzll(ns);
	return bit * 8 + (unsigned int)((ns >> (bit - 3)) & 7);
}

static double bucket_middle_s(unsigned int b)
{
	uint64_t low;

	if (b < 8)
		return (double)b / 1e9;
	low = (8ull + b % 8) << (b / 8 - 3);
	return ((double)low + (double)(1ull << (b / 8 - 3)) / 2) / 1e9;
}

void metrics_latency(uint64_t ns)
{
	atomic_fetch_add_explicit(&latencies[bucket_of(ns)], 1,
				  memory_order_relaxed);
}

double metrics_latency_quantile(double q)
{
	uint64_t counts[BUCKETS], total = 0, below = 0;

	for (int b = 0; b < BUCKETS; b++) {
		counts[b] = atomic_load_explicit(&latencies[b],
						 memory_order_relaxed);
		total += counts[b];
	}
	if (!total)
		return 0;
	for (unsigned int b = 0; b < BUCKETS; b++) {
		below += counts[b];
		if (counts[b] && (double)below >= q * (double)total)
			return bucket_middle_s(b);
	}
	return 0;
}

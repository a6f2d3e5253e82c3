/*
 * metrics - the process's counters, one table for all who show them: the
 * root's attributes, status.json and, later, metrics.prom.
 *
 * Counters only grow and may be added to from any thread. Rates are over the
 * last METRICS_WINDOW_S seconds, from samples that metrics_tick() takes.
 */
#ifndef FS_METRICS_H
#define FS_METRICS_H

#include <stdint.h>

enum metric {
	METRIC_CACHE_HITS,   /* opens answered from the cache */
	METRIC_CACHE_MISSES, /* opens that had to fetch */
	METRIC_FETCH_BYTES,
	METRIC_FETCH_REQUESTS,
	METRIC_FETCH_ERRORS, /* exchanges that failed, 404 not among them */
	METRIC_FETCH_RETRIES,
	METRIC_FETCH_RESUMES,
	METRIC_READ_BYTES,
	METRIC_READ_PREFILLED,
	METRIC_REPUBLISHED, /* archives seen to have changed at the origin */
	METRIC_HEALED,	    /* damaged files in the cache made good again */
	METRIC_COUNT
};

enum { METRICS_WINDOW_S = 10 };

void metrics_add(enum metric m, uint64_t n);
uint64_t metrics_get(enum metric m);

/* Once a second. */
void metrics_tick(uint64_t now_ms);
/* Growth a second over the window; 0 before two samples. */
double metrics_rate(enum metric m);

/* Time to the first byte of an answer. */
void metrics_latency(uint64_t ns);
/* Seconds, from buckets an eighth of a power of two wide; 0 if none yet. */
double metrics_latency_quantile(double q);

#endif

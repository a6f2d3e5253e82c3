/*
 * when - the two clocks: one that never jumps, for ages and waits, and the
 * wall clock, for what is written down.
 */
#ifndef FS_WHEN_H
#define FS_WHEN_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { WHEN_TEXT_MAX = 32 };

static inline uint64_t when_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t when_ms(void)
{
	return when_ns() / 1000000u;
}

/* Seconds since 1970. */
static inline int64_t when_now(void)
{
	return (int64_t)time(NULL);
}

/* "2024-01-01T00:00:00Z", NUL-terminated; false for a time before 1970 or
 * beyond all years. */
static inline bool when_text(int64_t seconds, char out[WHEN_TEXT_MAX])
{
	time_t t = (time_t)seconds;
	struct tm tm;

	return seconds >= 0 && gmtime_r(&t, &tm) &&
	       strftime(out, WHEN_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0;
}

#endif

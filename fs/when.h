/*
 * when - the two clocks: one that never jumps, for ages and waits, and the
 * wall clock, for what is written down.
 */
#ifndef FS_WHEN_H
#define FS_WHEN_H

#include <stdint.h>
#include <time.h>

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

#endif

/*
 * recency - who is evicted next. Pure: handed candidates, least recently used
 * first, and the need; answers how many of them, and which, have to go.
 */
#ifndef CACHE_RECENCY_H
#define CACHE_RECENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct recency_candidate {
	uint64_t bytes;
	int64_t last_use;
	bool held;  /* a handle has it, or the user pinned it */
	bool evict; /* set by recency_choose() */
};

/* Bytes to free so that @incoming fits: 0 if it does. UINT64_MAX if it never
 * can (more than the quota). @fs_free, @min_free: of the file system. */
uint64_t recency_need(uint64_t used, uint64_t quota, uint64_t incoming,
		      uint64_t fs_free, uint64_t min_free);

/* Marks the fewest least recently used unheld candidates that free @need
 * bytes; returns the bytes they free, which may be less than @need. */
uint64_t recency_choose(struct recency_candidate *c, size_t n, uint64_t need);

#endif

/*
 * bucket - a token bucket: how fast to ask. Pure: handed the time.
 */
#ifndef FETCH_BUCKET_H
#define FETCH_BUCKET_H

#include <stdint.h>

struct bucket {
	double rate_per_s; /* 0: unlimited */
	double burst;
	double tokens; /* as of at_ns */
	uint64_t at_ns;
};

/*
 * bucket_init() - a full bucket.
 * @rate_per_s: refill; 0, negative or not a number: unlimited
 * @burst: how many it holds; less than 1 counts as 1, else none ever passed
 * @now_ns: of a clock that does not go back
 */
void bucket_init(struct bucket *b, double rate_per_s, double burst,
		 uint64_t now_ns);

/* Takes one token and returns 0, or takes none and returns after how many
 * nanoseconds to come again. */
uint64_t bucket_take(struct bucket *b, uint64_t now_ns);

#endif

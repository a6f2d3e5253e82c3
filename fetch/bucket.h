/*
 * bucket - a token bucket: how fast to ask. Pure: handed the time.
 */
#ifndef FETCH_BUCKET_H
#define FETCH_BUCKET_H

#include <stdint.h>

struct bucket {
	double rate_per_s; /* 0: unlimited */
	double burst;
	double tokens; /* as of at_ns; below 0: owed */
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

/* 0 where a token may be taken without owing more than @credit, else after how
 * many nanoseconds to come again. */
uint64_t bucket_wait(struct bucket *b, double credit, uint64_t now_ns);

/* Takes @n tokens, there or not; those that were not are owed. */
void bucket_spend(struct bucket *b, uint64_t n, uint64_t now_ns);

/* Takes one token and returns 0, or takes none and returns bucket_wait() on no
 * credit. */
uint64_t bucket_take(struct bucket *b, uint64_t now_ns);

#endif

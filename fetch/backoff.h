/*
 * backoff - how long to wait before the next try. Pure: handed the random
 * number and the time.
 */
#ifndef FETCH_BACKOFF_H
#define FETCH_BACKOFF_H

#include <stdint.h>

enum {
	/* A longer wait asked for by the server counts as this. */
	BACKOFF_RETRY_AFTER_MAX_MS = 300000,
};

struct backoff {
	uint64_t base_ms;    /* upper bound of the first wait */
	uint64_t ceiling_ms; /* of any wait of our own choice */
};

/*
 * backoff_ms() - exponential, with full jitter: a uniform choice from 0 to
 * base_ms * 2^@attempt (Brooker, "Exponential Backoff And Jitter", 2015: the
 * spread keeps clients that failed together from coming back together).
 * @attempt: 0 for the first wait
 * @retry_after_ms: least wait the server asked for, 0 if none
 * @random: 64 random bits
 *
 * A Retry-After is obeyed also beyond the ceiling, up to
 * BACKOFF_RETRY_AFTER_MAX_MS: to come back sooner than asked invites a ban, and
 * who can't wait has a deadline, or Ctrl-C.
 */
uint64_t backoff_ms(const struct backoff *b, unsigned int attempt,
		    uint64_t retry_after_ms, uint64_t random);

/*
 * backoff_retry_after_ms() - the value of a Retry-After field: seconds or an
 * HTTP-date (RFC 9110 section 10.2.3).
 * @now: seconds since 1970
 *
 * Returns 0 for a date that has passed and for what is neither.
 */
uint64_t backoff_retry_after_ms(const char *value, int64_t now);

#endif

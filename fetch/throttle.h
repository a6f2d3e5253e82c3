/*
 * throttle - who of those that receive bytes has to wait, so that all together
 * stay at a rate. Pure: handed the time.
 *
 * Every byte that comes is spent from one bucket, which holds a second's worth.
 * Downloads wait while it is empty. What is urgent (listings, sizes, checksums)
 * passes and leaves it owing, which downloads then wait for; only where a whole
 * second's worth is owed it waits, too: so there is no way round the rate, and
 * a listing is never behind a download. Those that wait go on in the order they
 * came; where urgent ones and downloads wait, both get as many bytes.
 */
#ifndef FETCH_THROTTLE_H
#define FETCH_THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "fetch/bucket.h"

/* One that receives; zero but for the first two. */
struct throttle_flow {
	bool urgent;
	void *arg; /* the caller's */

	bool held;
	uint64_t held_bytes;		 /* what it was about to receive */
	uint64_t paid;			 /* of these, when it went on */
	TAILQ_ENTRY(throttle_flow) link; /* while held */
};

TAILQ_HEAD(throttle_queue, throttle_flow);

struct throttle {
	struct bucket bucket;
	struct throttle_queue downloads, urgent; /* that wait, first come */
	/* What urgent ones got more than downloads while both waited; never
	 * more than one was held with. */
	int64_t ahead;
};

/* @bytes_per_s: 0 for no limit */
void throttle_init(struct throttle *t, uint64_t bytes_per_s, uint64_t now_ns);

/* Is there a limit? */
bool throttle_is_on(const struct throttle *t);

/* @len bytes came that can't be held back. */
void throttle_spend(struct throttle *t, uint64_t len, uint64_t now_ns);

/*
 * throttle_pass() - may @f receive @len bytes now?
 * True: they are spent. False: it is held until throttle_next() gives it; the
 * same bytes then pass.
 */
bool throttle_pass(struct throttle *t, struct throttle_flow *f, size_t len,
		   uint64_t now_ns);

/* The next that goes on, not held any more; or NULL, and when to ask again:
 * after *@wait_ns, UINT64_MAX where none is held. */
struct throttle_flow *throttle_next(struct throttle *t, uint64_t now_ns,
				    uint64_t *wait_ns);

/* @f receives no more; nothing where it is not held. */
void throttle_leave(struct throttle *t, struct throttle_flow *f);

/* Is none held? */
bool throttle_is_idle(const struct throttle *t);

#endif

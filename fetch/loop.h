/*
 * loop - the one thread of fetch/: runs calls handed to it, timers, and the
 * transfers of a curl multi handle.
 *
 * All but loop_create(), loop_post(), loop_join() and loop_free() is for that
 * thread only.
 */
#ifndef FETCH_LOOP_H
#define FETCH_LOOP_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct loop;

/* Lives in the thing it is for; posted again only after it ran. */
struct loop_call {
	void (*fn)(void *arg);
	void *arg;
	STAILQ_ENTRY(loop_call) link;
};

struct loop_timer {
	void (*fn)(void *arg);
	void *arg;
	uint64_t at_ns;
	bool is_set;
	TAILQ_ENTRY(loop_timer) link;
};

struct loop_transfer {
	CURL *easy; /* its CURLOPT_PRIVATE is the loop's */
	/* The transfer has ended and is out of the loop. */
	void (*fn)(void *arg, CURLcode result);
	void *arg;
};

/*
 * loop_create() - start the thread, with every signal blocked.
 * @connections: at most so many are open at a time
 * Returns 0, -ENOMEM, or what pthread_create(3) gave.
 */
int loop_create(struct loop **out, unsigned int connections);

/* Waits until the thread has ended, which loop_quit() makes it do. */
void loop_join(struct loop *l);
/* Joins it first, if need be. */
void loop_free(struct loop *l);

/* loop_post() - run @c on the thread, in the order of posting. Any thread. */
void loop_post(struct loop *l, struct loop_call *c);

/* No transfer and no timer is left: end once all posted calls have run. */
void loop_quit(struct loop *l);

/* Also moves a timer that is set. Cost: linear in the timers set to be due
 * later, so none where all waits are alike. */
void loop_set_timer(struct loop *l, struct loop_timer *t, uint64_t at_ns);
void loop_clear_timer(struct loop *l, struct loop_timer *t);

/* Both not from inside a callback of libcurl, which forbids it. 0 or -ENOMEM.
 */
int loop_add_transfer(struct loop *l, struct loop_transfer *t);
/* Ends one early; its fn does not run. */
void loop_remove_transfer(struct loop *l, struct loop_transfer *t);

/* CLOCK_MONOTONIC. */
uint64_t loop_now_ns(void);

#endif

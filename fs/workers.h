/*
 * workers - threads that do what the FUSE loop and the fetch thread must not
 * wait for. First come, first served.
 */
#ifndef FS_WORKERS_H
#define FS_WORKERS_H

#include <stddef.h>

/* The struct that @ptr is the member @member of. */
#define container_of(ptr, type, member)                                        \
	((type *)((char *)(ptr)-offsetof(type, member)))

struct workers;

/* Embedded by whoever wants something done; at most once in a queue. */
struct work {
	void (*run)(struct work *w);
	struct work *next;
};

/* @name: of the threads, at most 15 bytes. The threads block all signals.
 * Returns 0, -ENOMEM, or what pthread_create(3) gave. */
int workers_create(struct workers **out, unsigned int threads,
		   const char *name);

/* Runs what is queued, also what that queues in turn, then ends. */
void workers_free(struct workers *w);

/* Waits until all is done that these pools, which hand work to each other, have
 * and make. Nobody else may submit any more. */
void workers_drain(struct workers *const *pools, unsigned int n);

void workers_submit(struct workers *w, struct work *work);

#endif

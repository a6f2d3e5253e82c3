/*
 * parked - requests that wait: what they wait for, their interrupts, and one
 * answer for each.
 *
 * A request is tried on the FUSE thread, where it may not wait. If it would
 * have to, it is copied, and tried again on a worker with a waiter; and again
 * each time the waiter is woken, until it has an answer. An interrupt ends the
 * waiting with EINTR.
 *
 * libfuse calls the interrupt function with the request's lock held, and wants
 * it unset before the answer: parked_disarm() does that, and every reply goes
 * through it. A try that succeeds replies itself (after parked_disarm()) and
 * returns 0; one that fails returns a negative errno, and the error is replied
 * for it.
 */
#ifndef FS_PARKED_H
#define FS_PARKED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/file.h"
#include "fs/fuse.h"
#include "fs/node.h"
#include "fs/waitlist.h"
#include "fs/workers.h"

struct parking;
struct parked;

/* A request, as far as any operation needs it. */
struct call {
	fuse_req_t req;
	void *fs; /* the operations' own */
	/*
	 * @parked NULL: on the FUSE thread; must not wait and returns
	 * -EINPROGRESS if it would have to. Else it may wait for
	 * &parked->waiter or &parked->file_waiter, and after -EINPROGRESS
	 * touches neither the call nor what it points to.
	 */
	int (*attempt)(struct call *c, struct parked *parked);
	/* After the request was given up; may be NULL. */
	void (*abandoned)(struct call *c);
	/* Where there was no memory to park it; may be NULL. */
	void (*spared)(struct call *c);
	struct node *node;
	struct file *file;
	struct fuse_file_info fi;
	char *name; /* xattr or none; freed with the call */
	uint64_t off;
	size_t size;
	int mask;
	struct file_bytes bytes;
	int woken;	     /* what the waiter was woken with */
	unsigned int healed; /* READ: times the file was fetched again */
	int damage;	     /* READ: what was wrong the last time */
	bool healing;	     /* READ: that is being waited for */
	struct parked *parked;
};

struct parked {
	struct work work;
	struct waiter waiter;
	struct file_waiter file_waiter;
	struct parking *parking;
	bool armed;
	bool direct; /* tried by whoever has the bytes; see parked_read() */
	struct call call;
};

/* Begins as { .workers, .lock and .none initialised }. */
struct parking {
	struct workers *workers;
	pthread_mutex_t lock;
	pthread_cond_t none;
	unsigned int n; /* requests parked; protected by lock */
};

/* Tries @c now, on the FUSE thread; copies and parks it if it must wait. */
void parked_run(struct parking *p, struct call *c);

/*
 * The same for a READ, which waits for no more than a decode: it has its waiter
 * at once and is tried again by the thread that decoded its bytes, which has
 * them in its processor's cache. An attempt that fails there is made once more
 * on a worker, with the error in `woken`, and may take its time.
 */
void parked_read(struct parking *p, struct call *c);

/* Straight to a worker, for what takes longer than the loop should. */
void parked_later(struct parking *p, struct call *c);

/* Before any reply. */
void parked_disarm(struct call *c);

/* Waits until every parked request has its answer. No more come in, and what
 * they wait for comes or fails. */
void parked_drain(struct parking *p);

#endif

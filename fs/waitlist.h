/*
 * waitlist - who waits for something, and is told once when it is there.
 *
 * A waiter is on at most one list. Whoever owns the thing that is waited for
 * checks it and adds the waiter under its own lock, and wakes after changing
 * it under the same lock; so no wake-up is lost. The module's own lock is a
 * leaf: it is held for a few instructions and never around a callback.
 */
#ifndef FS_WAITLIST_H
#define FS_WAITLIST_H

#include <stdbool.h>

struct waitlist;

struct waiter {
	/*
	 * Called once after waitlist_add(), on the thread that wakes or
	 * cancels, with no lock of this module held but perhaps with the
	 * owner's: it hands the waiter on to a worker, and no more.
	 */
	void (*wake)(struct waiter *w);
	int result;	/* set before wake(): 0, look again; or the error */
	bool cancelled; /* waitlist_cancel() came */
	struct waitlist *on;
	struct waiter *next, *prev;
};

struct waitlist {
	struct waiter *first, *last;
};

/* Wakes at once, with -EINTR, a waiter that is cancelled already. */
void waitlist_add(struct waitlist *l, struct waiter *w);

/* Tells everyone, in the order they came. */
void waitlist_wake(struct waitlist *l, int result);

bool waitlist_empty(struct waitlist *l);

/* Ends the waiting, now or as soon as it begins, with -EINTR. */
void waitlist_cancel(struct waiter *w);

#endif

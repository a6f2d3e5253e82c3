#include "fs/waitlist.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>

/* One lock for all lists: a waiter's list may be any, and nothing is done
 * under it but linking. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void unlink_locked(struct waiter *w)
{
	struct waitlist *l = w->on;

	if (w->prev)
		w->prev->next = w->next;
	else
		l->first = w->next;
	if (w->next)
		w->next->prev = w->prev;
	else
		l->last = w->prev;
	w->on = NULL;
	w->next = w->prev = NULL;
}

void waitlist_add(struct waitlist *l, struct waiter *w)
{
	bool cancelled;

	pthread_mutex_lock(&lock);
	cancelled = w->cancelled;
	if (cancelled) {
		w->result = -EINTR;
	} else {
		w->result = 0;
		w->on = l;
		w->next = NULL;
		w->prev = l->last;
		if (l->last)
			l->last->next = w;
		else
			l->first = w;
		l->last = w;
	}
	pthread_mutex_unlock(&lock);
	if (cancelled)
		w->wake(w);
}

void waitlist_wake(struct waitlist *l, int result)
{
	struct waiter *w, *next;

	pthread_mutex_lock(&lock);
	w = l->first;
	l->first = l->last = NULL;
	for (struct waiter *i = w; i; i = i->next) {
		i->on = NULL;
		i->result = result;
	}
	pthread_mutex_unlock(&lock);
	/* A waiter may be gone once it was woken. */
	for (; w; w = next) {
		next = w->next;
		w->next = w->prev = NULL;
		w->wake(w);
	}
}

bool waitlist_empty(struct waitlist *l)
{
	bool empty;

	pthread_mutex_lock(&lock);
	empty = !l->first;
	pthread_mutex_unlock(&lock);
	return empty;
}

void waitlist_cancel(struct waiter *w)
{
	bool waiting;

	pthread_mutex_lock(&lock);
	w->cancelled = true;
	waiting = w->on != NULL;
	if (waiting) {
		unlink_locked(w);
		w->result = -EINTR;
	}
	pthread_mutex_unlock(&lock);
	if (waiting)
		w->wake(w);
}

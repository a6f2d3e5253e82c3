#include "fs/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t changed, idle;
	struct work *first, *last; /* protected by lock */
	unsigned int busy;	   /* protected by lock */
	uint64_t submitted;	   /* protected by lock */
	bool ending;		   /* protected by lock */
	unsigned int threads;
	pthread_t ids[];
};

static void *serve(void *arg)
{
	struct workers *w = arg;
	struct work *work;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->first && !(w->ending && !w->busy))
			pthread_cond_wait(&w->changed, &w->lock);
		work = w->first;
		if (!work)
			break;
		w->first = work->next;
		if (!w->first)
			w->last = NULL;
		w->busy++;
		pthread_mutex_unlock(&w->lock);
		work->run(work);
		pthread_mutex_lock(&w->lock);
		w->busy--;
		if (!w->busy && !w->first)
			pthread_cond_broadcast(&w->idle);
		if (w->ending && !w->busy)
			pthread_cond_broadcast(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void end_threads(struct workers *w, unsigned int started)
{
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(w->ids[i], NULL);
	pthread_cond_destroy(&w->changed);
	pthread_cond_destroy(&w->idle);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

int workers_create(struct workers **out, unsigned int threads, const char *name)
{
	struct workers *w;
	sigset_t all, before;
	unsigned int i;
	int err = 0;

	w = calloc(1, sizeof(*w) + threads * sizeof(w->ids[0]));
	if (!w)
		return -ENOMEM;
	w->threads = threads;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	pthread_cond_init(&w->idle, NULL);
	/* A signal must wake the FUSE loop, so nobody else may take it. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (i = 0; i < threads && !err; i++) {
		err = -pthread_create(&w->ids[i], NULL, serve, w);
		if (!err)
			pthread_setname_np(w->ids[i], name);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err) {
		end_threads(w, i - 1);
		return err;
	}
	*out = w;
	return 0;
}

void workers_free(struct workers *w)
{
	if (w)
		end_threads(w, w->threads);
}

void workers_submit(struct workers *w, struct work *work)
{
	work->next = NULL;
	pthread_mutex_lock(&w->lock);
	if (w->last)
		w->last->next = work;
	else
		w->first = work;
	w->last = work;
	w->submitted++;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* Returns how much was ever submitted. */
static uint64_t wait_idle(struct workers *w)
{
	uint64_t submitted;

	pthread_mutex_lock(&w->lock);
	while (w->busy || w->first)
		pthread_cond_wait(&w->idle, &w->lock);
	submitted = w->submitted;
	pthread_mutex_unlock(&w->lock);
	return submitted;
}

void workers_drain(struct workers *const *pools, unsigned int n)
{
	uint64_t before, after = 0;

	/* A round in which nobody submitted anything left nothing to do. */
	do {
		before = after;
		after = 0;
		for (unsigned int i = 0; i < n; i++)
			after += wait_idle(pools[i]);
	} while (after != before);
}

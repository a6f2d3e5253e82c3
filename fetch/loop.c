#include "fetch/loop.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum {
	POLL_MAX_MS = 60 * 1000,
	POLL_BROKEN_MS = 10,
};

STAILQ_HEAD(call_list, loop_call);
TAILQ_HEAD(timer_list, loop_timer);

struct loop {
	pthread_t thread;
	bool joined;
	CURLM *multi;
	struct timer_list timers; /* soonest first */
	bool quit;

	pthread_mutex_t lock;
	struct call_list calls; /* protected by lock */
};

/* The loop whose thread this is. */
static _Thread_local const struct loop *own_loop;

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void loop_post(struct loop *l, struct loop_call *c)
{
	bool first;

	pthread_mutex_lock(&l->lock);
	first = STAILQ_EMPTY(&l->calls);
	STAILQ_INSERT_TAIL(&l->calls, c, link);
	pthread_mutex_unlock(&l->lock);
	if (first && own_loop != l)
		curl_multi_wakeup(l->multi);
}

/* Returns whether any was there. */
static bool run_calls(struct loop *l)
{
	struct call_list calls = STAILQ_HEAD_INITIALIZER(calls);
	struct loop_call *c;
	bool any;

	pthread_mutex_lock(&l->lock);
	STAILQ_CONCAT(&calls, &l->calls);
	pthread_mutex_unlock(&l->lock);
	any = !STAILQ_EMPTY(&calls);
	while ((c = STAILQ_FIRST(&calls))) {
		STAILQ_REMOVE_HEAD(&calls, link);
		c->fn(c->arg); /* may free c */
	}
	return any;
}

static void run_timers(struct loop *l)
{
	uint64_t now_ns = loop_now_ns();
	struct loop_timer *t;

	while ((t = TAILQ_FIRST(&l->timers)) && t->at_ns <= now_ns) {
		loop_clear_timer(l, t);
		t->fn(t->arg);
	}
}

static void run_transfers(struct loop *l)
{
	struct loop_transfer *t;
	CURLMsg *msg;
	int left;

	curl_multi_perform(l->multi, &left);
	while ((msg = curl_multi_info_read(l->multi, &left))) {
		CURL *easy = msg->easy_handle;
		CURLcode result = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
		curl_multi_remove_handle(l->multi, easy);
		t->fn(t->arg, result);
	}
}

static int poll_ms(struct loop *l)
{
	struct loop_timer *t = TAILQ_FIRST(&l->timers);
	uint64_t now_ns, ms;

	if (!t)
		return POLL_MAX_MS;
	now_ns = loop_now_ns();
	if (t->at_ns <= now_ns)
		return 0;
	ms = (t->at_ns - now_ns + 999999) / 1000000;
	return ms < POLL_MAX_MS ? (int)ms : POLL_MAX_MS;
}

static void *run(void *arg)
{
	struct loop *l = arg;
	bool any;

	own_loop = l;
	for (;;) {
		any = run_calls(l);
		if (l->quit) {
			if (!any)
				return NULL;
			continue;
		}
		run_timers(l);
		run_transfers(l);
		/* What these posted themselves did not wake us up. */
		if (run_calls(l))
			continue;
		if (curl_multi_poll(l->multi, NULL, 0, poll_ms(l), NULL) !=
		    CURLM_OK)
			poll(NULL, 0, POLL_BROKEN_MS);
	}
}

void loop_quit(struct loop *l)
{
	assert(TAILQ_EMPTY(&l->timers));
	l->quit = true;
}

/* Signals are for the threads of those who asked for them. */
static int start_thread(struct loop *l)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&l->thread, NULL, run, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		pthread_setname_np(l->thread, "tickfs-fetch");
	return -err;
}

int loop_create(struct loop **out, unsigned int connections)
{
	struct loop *l;
	int err;

	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	TAILQ_INIT(&l->timers);
	STAILQ_INIT(&l->calls);
	pthread_mutex_init(&l->lock, NULL);
	l->multi = curl_multi_init();
	err = l->multi ? 0 : -ENOMEM;
	if (!err) {
		curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS,
				  (long)connections);
		curl_multi_setopt(l->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
				  (long)connections);
		err = start_thread(l);
	}
	if (err) {
		curl_multi_cleanup(l->multi);
		pthread_mutex_destroy(&l->lock);
		free(l);
		return err;
	}
	*out = l;
	return 0;
}

void loop_join(struct loop *l)
{
	if (!l->joined)
		pthread_join(l->thread, NULL);
	l->joined = true;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	loop_join(l);
	curl_multi_cleanup(l->multi);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void loop_set_timer(struct loop *l, struct loop_timer *t, uint64_t at_ns)
{
	struct loop_timer *before;

	loop_clear_timer(l, t);
	t->at_ns = at_ns;
	t->is_set = true;
	TAILQ_FOREACH_REVERSE(before, &l->timers, timer_list, link)
	{
		if (before->at_ns <= at_ns)
			break;
	}
	if (before)
		TAILQ_INSERT_AFTER(&l->timers, before, t, link);
	else
		TAILQ_INSERT_HEAD(&l->timers, t, link);
}

void loop_clear_timer(struct loop *l, struct loop_timer *t)
{
	if (!t->is_set)
		return;
	TAILQ_REMOVE(&l->timers, t, link);
	t->is_set = false;
}

int loop_add_transfer(struct loop *l, struct loop_transfer *t)
{
	if (curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t) != CURLE_OK ||
	    curl_multi_add_handle(l->multi, t->easy) != CURLM_OK)
		return -ENOMEM;
	return 0;
}

void loop_remove_transfer(struct loop *l, struct loop_transfer *t)
{
	curl_multi_remove_handle(l->multi, t->easy);
}

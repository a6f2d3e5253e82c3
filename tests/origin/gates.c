/*
 * One lock and one condition for all: there are few gates and a broadcast
 * wakes some hundred threads at most. A condition cannot watch a socket, so a
 * wait looks at its client every SLICE_MS.
 */
#include "tests/origin/gates.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLICE_MS = 50 };

struct gate {
	struct gate *next;
	bool open;	 /* for good */
	uint64_t passes; /* requests that may still go through */
	unsigned int held;
	char name[];
};

struct imitation_gates {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* all below: protected by lock */
	bool stopping, all_open;
	struct gate *gates;
};

int imitation_gates_create(struct imitation_gates **out)
{
	struct imitation_gates *g = calloc(1, sizeof(*g));
	pthread_condattr_t attr;

	if (!g)
		return -ENOMEM;
	pthread_mutex_init(&g->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&g->changed, &attr);
	pthread_condattr_destroy(&attr);
	*out = g;
	return 0;
}

void imitation_gates_free(struct imitation_gates *g)
{
	struct gate *next;

	if (!g)
		return;
	for (struct gate *gate = g->gates; gate; gate = next) {
		next = gate->next;
		free(gate);
	}
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

void imitation_gates_stop(struct imitation_gates *g)
{
	pthread_mutex_lock(&g->lock);
	g->stopping = true;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Wait for a change, not beyond @end_ns nor one slice. */
static void wait_locked(struct imitation_gates *g, uint64_t end_ns)
{
	uint64_t until = clock_ns() + SLICE_MS * UINT64_C(1000000);
	struct timespec ts;

	if (until > end_ns)
		until = end_ns;
	ts.tv_sec = (time_t)(until / 1000000000);
	ts.tv_nsec = (long)(until % 1000000000);
	pthread_cond_timedwait(&g->changed, &g->lock, &ts);
}

static uint64_t end_of(int64_t ms)
{
	return ms < 0 ? UINT64_MAX : clock_ns() + (uint64_t)ms * 1000000;
}

static bool is_gone(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return fd >= 0 && poll(&p, 1, 0) > 0 &&
	       (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

int imitation_gates_sleep(struct imitation_gates *g, int64_t ms, int fd)
{
	uint64_t end_ns = end_of(ms);
	int err = 0;

	pthread_mutex_lock(&g->lock);
	while (!err && clock_ns() < end_ns) {
		if (g->stopping || is_gone(fd))
			err = -ECANCELED;
		else
			wait_locked(g, end_ns);
	}
	pthread_mutex_unlock(&g->lock);
	return err;
}

static struct gate *gate_find_locked(struct imitation_gates *g,
				     const char *name)
{
	struct gate *gate = g->gates;

	while (gate && strcmp(gate->name, name))
		gate = gate->next;
	return gate;
}

static struct gate *gate_get_locked(struct imitation_gates *g, const char *name)
{
	struct gate *gate = gate_find_locked(g, name);
	size_t len = strlen(name) + 1;

	if (gate)
		return gate;
	gate = calloc(1, sizeof(*gate) + len);
	if (!gate)
		return NULL;
	memcpy(gate->name, name, len);
	gate->open = g->all_open;
	gate->next = g->gates;
	g->gates = gate;
	return gate;
}

int imitation_gates_wait(struct imitation_gates *g, const char *name, int fd)
{
	struct gate *gate;
	int err = 0;

	pthread_mutex_lock(&g->lock);
	gate = gate_get_locked(g, name);
	if (!gate) {
		err = -ENOMEM;
		goto out;
	}
	gate->held++;
	pthread_cond_broadcast(&g->changed);
	while (!err && !gate->open && !gate->passes) {
		if (g->stopping || is_gone(fd))
			err = -ECANCELED;
		else
			wait_locked(g, UINT64_MAX);
	}
	if (!err && !gate->open)
		gate->passes--;
	gate->held--;
	pthread_cond_broadcast(&g->changed);
out:
	pthread_mutex_unlock(&g->lock);
	return err;
}

static void gate_open(struct gate *gate, uint64_t count)
{
	if (count)
		gate->passes += count;
	else
		gate->open = true;
}

int imitation_gates_release(struct imitation_gates *g, const char *name,
			    uint64_t count)
{
	struct gate *gate;
	int err = 0;

	pthread_mutex_lock(&g->lock);
	if (name) {
		gate = gate_get_locked(g, name);
		if (gate)
			gate_open(gate, count);
		else
			err = -ENOMEM;
	} else {
		g->all_open |= !count;
		for (gate = g->gates; gate; gate = gate->next)
			gate_open(gate, count);
	}
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
	return err;
}

int imitation_gates_hold(struct imitation_gates *g, const char *name)
{
	struct gate *gate;
	int err = 0;

	pthread_mutex_lock(&g->lock);
	if (name) {
		gate = gate_get_locked(g, name);
		if (gate) {
			gate->open = false;
			gate->passes = 0;
		} else {
			err = -ENOMEM;
		}
	} else {
		g->all_open = false;
		for (gate = g->gates; gate; gate = gate->next) {
			gate->open = false;
			gate->passes = 0;
		}
	}
	pthread_mutex_unlock(&g->lock);
	return err;
}

static unsigned int held_locked(struct imitation_gates *g, const char *name)
{
	unsigned int held = 0;

	for (const struct gate *gate = g->gates; gate; gate = gate->next)
		if (!name || !strcmp(gate->name, name))
			held += gate->held;
	return held;
}

unsigned int imitation_gates_held(struct imitation_gates *g, const char *name,
				  unsigned int at_least,
				  unsigned int timeout_ms)
{
	uint64_t end_ns = end_of(timeout_ms);
	unsigned int held;

	pthread_mutex_lock(&g->lock);
	while (held = held_locked(g, name),
	       held < at_least && !g->stopping && clock_ns() < end_ns)
		wait_locked(g, end_ns);
	pthread_mutex_unlock(&g->lock);
	return held;
}

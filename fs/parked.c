#include "fs/parked.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/when.h"

static void on_wake(struct waiter *w)
{
	struct parked *p = container_of(w, struct parked, waiter);

	p->call.woken = w->result;
	workers_submit(p->parking->workers, &p->work);
}

static void try_directly(struct parked *p);

static void on_bytes(struct file_waiter *w, int err)
{
	struct parked *p = container_of(w, struct parked, file_waiter);

	p->call.woken = err == FILE_ASK_AGAIN ? 0 : err;
	if (err)
		p->direct = false;
	if (p->direct)
		try_directly(p);
	else
		workers_submit(p->parking->workers, &p->work);
}

/* With the request's lock held: only hands on. */
static void on_interrupt(fuse_req_t req, void *arg)
{
	struct parked *p = arg;

	(void)req;
	waitlist_cancel(&p->waiter);
}

void parked_disarm(struct call *c)
{
	if (!c->parked || !c->parked->armed)
		return;
	c->parked->armed = false;
	fuse_req_interrupt_func(c->req, NULL, NULL);
}

static void reply_error(struct call *c, int err)
{
	/* First: once it is told, the kernel may forget the node. */
	if (err == -ENOENT)
		node_absent(c->node, when_ms());
	parked_disarm(c);
	fuse_reply_err(c->req, -err);
}

static void count(struct parking *parking)
{
	pthread_mutex_lock(&parking->lock);
	parking->n++;
	pthread_mutex_unlock(&parking->lock);
}

static void parked_free(struct parked *p)
{
	struct parking *parking = p->parking;

	free(p->call.name);
	free(p);
	pthread_mutex_lock(&parking->lock);
	if (--parking->n == 0)
		pthread_cond_broadcast(&parking->none);
	pthread_mutex_unlock(&parking->lock);
}

void parked_drain(struct parking *parking)
{
	pthread_mutex_lock(&parking->lock);
	while (parking->n)
		pthread_cond_wait(&parking->none, &parking->lock);
	pthread_mutex_unlock(&parking->lock);
}

static void try_again(struct work *work)
{
	struct parked *p = container_of(work, struct parked, work);
	int r;

	if (!p->armed) {
		p->armed = true;
		fuse_req_interrupt_func(p->call.req, on_interrupt, p);
	}
	r = p->call.attempt(&p->call, p);
	if (r == -EINPROGRESS)
		return; /* it is somebody else's by now */
	if (r) {
		if (r == -EINTR && p->call.abandoned)
			p->call.abandoned(&p->call);
		reply_error(&p->call, r);
	}
	parked_free(p);
}

static void try_directly(struct parked *p)
{
	int r = p->call.attempt(&p->call, p);

	if (r == -EINPROGRESS)
		return;
	if (r) {
		p->direct = false;
		p->call.woken = r;
		workers_submit(p->parking->workers, &p->work);
		return;
	}
	parked_free(p);
}

/* NULL, and an answer is given, for want of memory. */
static struct parked *park(struct parking *parking, struct call *c)
{
	struct parked *p = calloc(1, sizeof(*p));

	if (!p) {
		free(c->name);
		if (c->spared)
			c->spared(c);
		fuse_reply_err(c->req, ENOMEM);
		return NULL;
	}
	p->work.run = try_again;
	p->waiter.wake = on_wake;
	p->file_waiter.wake = on_bytes;
	p->parking = parking;
	p->call = *c;
	p->call.parked = p;
	count(parking);
	return p;
}

void parked_later(struct parking *parking, struct call *c)
{
	struct parked *p = park(parking, c);

	if (p)
		workers_submit(parking->workers, &p->work);
}

void parked_read(struct parking *parking, struct call *c)
{
	int r = c->attempt(c, NULL);
	struct parked *p;

	if (r == -EINPROGRESS) {
		p = park(parking, c);
		if (!p) {
			file_done(&c->bytes, false);
			return;
		}
		p->direct = true;
		try_directly(p);
	} else if (r) {
		reply_error(c, r);
	}
}

void parked_run(struct parking *parking, struct call *c)
{
	int r = c->attempt(c, NULL);

	if (r == -EINPROGRESS) {
		parked_later(parking, c);
		return;
	}
	if (r)
		reply_error(c, r);
	free(c->name);
}

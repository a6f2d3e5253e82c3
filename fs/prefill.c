#include "fs/prefill.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fuse.h"
#include "fs/metrics.h"
#include "fs/node.h"
#include "fs/workers.h"

enum {
	/* The kernel takes a page as read only if it is given whole. */
	PAGE = 4096,
	/* Takes the giver 0.12 ms on a free core. There is one for all fills:
	 * two cores decode half as fast as it makes pages. */
	BATCH = 256 << 10,
	/* So far the giver may be behind whoever decodes. */
	BATCHES = 4,
};

_Static_assert(BATCH % PAGE == 0, "a batch would end within a page");

struct prefill {
	uint64_t limit;
	struct workers *giver;	      /* one thread */
	pthread_mutex_t lock;	      /* order: a fill's, then this */
	struct fuse_session *session; /* NULL: none; protected by lock */
	unsigned int notices;	      /* under way; protected by lock */
	pthread_cond_t no_notice;
	uint64_t reserved; /* protected by lock */
};

/* Bytes on their way: from the beginning of a page on. */
struct batch {
	unsigned char *data; /* BATCH bytes, or NULL */
	uint64_t off;
	size_t len;
};

/*
 * What is decoded is copied into one batch of a ring while those before it are
 * with the giver, so that decoding goes on while the kernel makes pages.
 */
struct prefill_fill {
	struct prefill *p;
	unsigned int refs; /* protected by p->lock */
	/* Whose pages; held. Protected by p->lock, and there while active or
	 * while a batch is the giver's. */
	struct node *node;
	struct work work; /* the giver's, while any batch is */

	/* Protects what follows up to the ring; held also while waiting for
	 * the giver. */
	pthread_mutex_t lock;
	bool active; /* has a node */
	bool ended;
	bool given; /* the kernel has bytes of it */
	char etag[NODE_VERSION_MAX], coming[NODE_VERSION_MAX];
	unsigned int stream;
	uint64_t size;
	uint64_t seen; /* of the stream, up to here */

	pthread_mutex_t ring_lock; /* order: the last */
	pthread_cond_t one_given;
	/* Batches ever handed over; changed under both locks. The next one lies
	 * at ring[filled % BATCHES]; so many before it are the giver's. */
	unsigned int filled;
	unsigned int with_giver; /* protected by ring_lock */
	bool refused;		 /* by the kernel; protected by ring_lock */
	struct batch ring[BATCHES];
};

_Static_assert(UINT_MAX % BATCHES == BATCHES - 1, "`filled` may wrap");

int prefill_create(struct prefill **out, uint64_t limit)
{
	struct prefill *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	err = workers_create(&p->giver, 1, "tickfs-prefill");
	if (err) {
		free(p);
		return err;
	}
	p->limit = limit;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->no_notice, NULL);
	*out = p;
	return 0;
}

void prefill_free(struct prefill *p)
{
	if (!p)
		return;
	workers_free(p->giver);
	pthread_cond_destroy(&p->no_notice);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void prefill_start(struct prefill *p, struct fuse_session *session)
{
	pthread_mutex_lock(&p->lock);
	p->session = session;
	pthread_mutex_unlock(&p->lock);
}

void prefill_stop(struct prefill *p)
{
	pthread_mutex_lock(&p->lock);
	p->session = NULL;
	while (p->notices)
		pthread_cond_wait(&p->no_notice, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

/* ---- notices ---- */

/* The session, not to be destroyed before notice_end(); or NULL. */
static struct fuse_session *notice_begin(struct prefill *p)
{
	struct fuse_session *session;

	pthread_mutex_lock(&p->lock);
	session = p->session;
	if (session)
		p->notices++;
	pthread_mutex_unlock(&p->lock);
	return session;
}

static void notice_end(struct prefill *p)
{
	pthread_mutex_lock(&p->lock);
	if (--p->notices == 0)
		pthread_cond_broadcast(&p->no_notice);
	pthread_mutex_unlock(&p->lock);
}

static int store(struct prefill_fill *f, const struct batch *b)
{
	struct fuse_bufvec v = FUSE_BUFVEC_INIT(b->len);
	struct fuse_session *session = notice_begin(f->p);
	int err;

	if (!session)
		return -ENOTCONN;
	v.buf[0].mem = b->data;
	err = fuse_lowlevel_notify_store(session, (fuse_ino_t)f->node,
					 (off_t)b->off, &v, 0);
	notice_end(f->p);
	if (!err)
		metrics_add(METRIC_READ_PREFILLED, b->len);
	return err;
}

/* Drops what the kernel has of it. */
static void invalidate(struct prefill_fill *f)
{
	struct fuse_session *session = notice_begin(f->p);

	if (!session)
		return;
	fuse_lowlevel_notify_inval_inode(session, (fuse_ino_t)f->node, 0, 0);
	notice_end(f->p);
}

/* ---- the giver ---- */

static void fill_put(struct prefill_fill *f)
{
	struct prefill *p = f->p;
	bool gone;

	pthread_mutex_lock(&p->lock);
	gone = --f->refs == 0;
	pthread_mutex_unlock(&p->lock);
	if (!gone)
		return;
	pthread_cond_destroy(&f->one_given);
	pthread_mutex_destroy(&f->ring_lock);
	pthread_mutex_destroy(&f->lock);
	for (int i = 0; i < BATCHES; i++)
		free(f->ring[i].data);
	free(f);
}

/* One batch; then other fills have their turn. */
static void give(struct work *work)
{
	struct prefill_fill *f = container_of(work, struct prefill_fill, work);
	unsigned int i;
	bool more;
	int err;

	pthread_mutex_lock(&f->ring_lock);
	i = (f->filled - f->with_giver) % BATCHES;
	pthread_mutex_unlock(&f->ring_lock);
	err = store(f, &f->ring[i]);
	pthread_mutex_lock(&f->ring_lock);
	more = --f->with_giver > 0;
	if (err)
		f->refused = true;
	pthread_cond_signal(&f->one_given);
	pthread_mutex_unlock(&f->ring_lock);
	if (more)
		workers_submit(f->p->giver, work);
	else
		fill_put(f);
}

/* Until the giver has no more than @most batches. False where the kernel
 * refused one. */
static bool await_giver_locked(struct prefill_fill *f, unsigned int most)
{
	bool refused;

	pthread_mutex_lock(&f->ring_lock);
	while (f->with_giver > most)
		pthread_cond_wait(&f->one_given, &f->ring_lock);
	refused = f->refused;
	pthread_mutex_unlock(&f->ring_lock);
	return !refused;
}

static struct batch *filling_locked(struct prefill_fill *f)
{
	return &f->ring[f->filled % BATCHES];
}

/* The batch that is filled; and waits until the next one is free. */
static bool hand_over_locked(struct prefill_fill *f)
{
	struct prefill *p = f->p;
	bool idle;

	/* Pages of an earlier open may be in a pipe or a socket by now: those
	 * must not be written over. */
	if (!f->given)
		invalidate(f);
	f->given = true;
	pthread_mutex_lock(&f->ring_lock);
	f->filled++;
	idle = f->with_giver++ == 0;
	pthread_mutex_unlock(&f->ring_lock);
	if (idle) {
		pthread_mutex_lock(&p->lock);
		f->refs++;
		pthread_mutex_unlock(&p->lock);
		workers_submit(p->giver, &f->work);
	}
	if (!await_giver_locked(f, BATCHES - 1))
		return false;
	filling_locked(f)->len = 0;
	return true;
}

/* What the kernel was given, and was to be given, is gone after this. */
static void take_back_locked(struct prefill_fill *f)
{
	pthread_mutex_lock(&f->ring_lock);
	if (f->with_giver > 1) { /* all but the one in hand */
		f->filled -= f->with_giver - 1;
		f->with_giver = 1;
	}
	pthread_mutex_unlock(&f->ring_lock);
	await_giver_locked(f, 0);
	filling_locked(f)->len = 0;
	if (f->given)
		invalidate(f);
	f->given = false;
}

/* ---- handles ---- */

/* Lets the node go, with what the kernel has of it or without. */
static void leave_locked(struct prefill_fill *f, bool keep)
{
	struct prefill *p = f->p;
	struct node *n;

	if (!f->active)
		return;
	f->active = false;
	if (keep)
		await_giver_locked(f, 0);
	else
		take_back_locked(f);
	pthread_mutex_lock(&p->lock);
	n = f->node;
	f->node = NULL;
	n->fill = NULL;
	p->reserved -= f->size;
	pthread_mutex_unlock(&p->lock);
	node_forget(n->table, n, 1);
}

bool prefill_opened(struct prefill *p, struct node *n)
{
	struct prefill_fill *f;
	bool keeps;

	pthread_mutex_lock(&p->lock);
	n->handles++;
	f = n->fill;
	if (f)
		f->refs++;
	keeps = p->session != NULL;
	pthread_mutex_unlock(&p->lock);
	if (!f)
		return keeps;
	pthread_mutex_lock(&f->lock);
	leave_locked(f, false);
	pthread_mutex_unlock(&f->lock);
	fill_put(f);
	/* It may have been too late to take anything back. */
	pthread_mutex_lock(&p->lock);
	keeps = p->session != NULL;
	pthread_mutex_unlock(&p->lock);
	return keeps;
}

void prefill_closed(struct prefill *p, struct node *n)
{
	pthread_mutex_lock(&p->lock);
	n->handles--;
	pthread_mutex_unlock(&p->lock);
}

/* ---- a fill ---- */

struct prefill_fill *prefill_fill_create(struct prefill *p)
{
	struct prefill_fill *f;

	f = p && p->limit ? calloc(1, sizeof(*f)) : NULL;
	if (!f)
		return NULL;
	f->p = p;
	f->refs = 1;
	f->work.run = give;
	pthread_mutex_init(&f->lock, NULL);
	pthread_mutex_init(&f->ring_lock, NULL);
	pthread_cond_init(&f->one_given, NULL);
	return f;
}

void prefill_fill_free(struct prefill_fill *f)
{
	if (!f)
		return;
	prefill_end(f, false);
	fill_put(f);
}

void prefill_offer(struct prefill_fill *f, const struct prefill_reader *r)
{
	struct prefill *p;

	/* By size alone versions are not told apart. */
	if (!f || !*r->etag || strlen(r->etag) >= sizeof(f->etag) || !r->size)
		return;
	p = f->p;
	if (pthread_mutex_trylock(&f->lock))
		return; /* it has one, or has just lost it */
	pthread_mutex_lock(&p->lock);
	/* The first, and no other after it: bytes may be on their way. */
	if (!f->etag[0] && !f->ended && !r->node->fill && !r->node->handles &&
	    r->size <= p->limit - p->reserved) {
		p->reserved += r->size;
		node_hold(r->node);
		r->node->fill = f;
		f->node = r->node;
		f->active = true;
		strcpy(f->etag, r->etag);
		f->stream = r->stream;
		f->size = r->size;
	}
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_unlock(&f->lock);
}

void prefill_begin(struct prefill_fill *f, const char *etag)
{
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	if (f->active)
		take_back_locked(f);
	snprintf(f->coming, sizeof(f->coming), "%s", etag);
	f->seen = 0;
	pthread_mutex_unlock(&f->lock);
}

static bool has_room(struct batch *b)
{
	if (!b->data)
		b->data = malloc(BATCH);
	return b->data;
}

/* Takes bytes that lie at @off; false where the kernel or memory does not. */
static bool take_locked(struct prefill_fill *f, uint64_t off,
			const unsigned char *buf, size_t len)
{
	struct batch *b = filling_locked(f);

	if (b->len && off != b->off + b->len)
		b->len = 0; /* something was left out */
	if (!b->len) {
		/* The rest of a page that was not begun. */
		size_t skip = (size_t)(-off % PAGE);

		if (skip >= len)
			return true;
		off += skip;
		buf += skip;
		len -= skip;
	}
	while (len) {
		size_t n = len;

		b = filling_locked(f);
		if (!has_room(b))
			return false;
		if (!b->len)
			b->off = off;
		if (n > BATCH - b->len)
			n = BATCH - b->len;
		memcpy(b->data + b->len, buf, n);
		b->len += n;
		off += n;
		buf += n;
		len -= n;
		if ((b->len == BATCH || off == f->size) && !hand_over_locked(f))
			return false;
	}
	return true;
}

int prefill_bytes(void *fill, unsigned int stream, uint64_t off,
		  const void *buf, size_t len)
{
	struct prefill_fill *f = fill;

	if (!f || !len)
		return 0;
	pthread_mutex_lock(&f->lock);
	if (f->active && stream == f->stream &&
	    strcmp(f->etag, f->coming) == 0) {
		if (off < f->seen) /* it began again: those were not it */
			take_back_locked(f);
		f->seen = off + len;
		if (f->seen > f->size || !take_locked(f, off, buf, len))
			leave_locked(f, false);
	}
	pthread_mutex_unlock(&f->lock);
	return 0;
}

void prefill_end(struct prefill_fill *f, bool serves)
{
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->ended = true;
	leave_locked(f, serves);
	pthread_mutex_unlock(&f->lock);
}

/*
 * One lock guards everything but the bytes of the spans. A slot goes
 *
 *	EMPTY -> FILLING (queued, then running) -> READY -> EMPTY or FILLING
 *	                                       \-> EMPTY, where decoding failed
 *
 * and it is in the hash, under its source, stream and span, while it is FILLING
 * or READY, except a failed one that still tells its waiters. A READY slot
 * whose waiters are being told is pinned by the worker that tells them.
 *
 * Who can't have a slot is *starved* and waits in one line. There is a line
 * only while no slot is to be had: wherever one becomes idle or empty, the
 * first of the line takes it at once, with all others in line for the same
 * span. So nobody can be overtaken.
 */
#include "cache/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cache/pool_policy.h"

enum { SLOTS_MIN = 4 };

struct pool_waiters {
	struct pool_waiter *first, *last;
};

/* Which span. */
struct key {
	struct pool_source *source;
	unsigned int stream;
	uint64_t span, start;
	size_t len;
};

struct slot {
	struct key key;
	unsigned char *data;
	struct slot *hash_next;
	bool hashed;
	bool running;
	bool detached; /* to be emptied when its last reference is gone */
	bool wanted;   /* asked for by one who does not wait */
	struct slot *queue_next;
	struct pool_waiters waiters;
};

struct pool {
	size_t n;
	unsigned char *arena;
	struct slot *slots;
	struct pool_slot_view *views; /* of the slots; protected by lock */
	pthread_t *threads;
	unsigned int n_threads;

	pthread_mutex_t lock;
	pthread_cond_t work;  /* something to decode, or stop */
	pthread_cond_t quiet; /* a decode has ended */
	/* all that follows, and the slots, are protected by lock */
	bool stop;
	struct slot **buckets;
	size_t mask;
	struct slot *queue, **queue_tail; /* asked for, not begun */
	struct pool_waiters starved;
	struct readahead readahead;
	bool readahead_stuck; /* there is a wish, but no slot for it */
	uint64_t clock, assigned;
	uint64_t hits, decodes, ahead, waits;
};

/* ---- waiters ---- */

static void waiters_add(struct pool_waiters *l, struct pool_waiter *w)
{
	w->priv.list = l;
	w->priv.next = NULL;
	w->priv.prev = l->last;
	if (l->last)
		l->last->priv.next = w;
	else
		l->first = w;
	l->last = w;
}

static void waiters_remove(struct pool_waiter *w)
{
	struct pool_waiters *l = w->priv.list;

	if (w->priv.prev)
		w->priv.prev->priv.next = w->priv.next;
	else
		l->first = w->priv.next;
	if (w->priv.next)
		w->priv.next->priv.prev = w->priv.prev;
	else
		l->last = w->priv.prev;
	w->priv.list = NULL;
}

/* ---- slots ---- */

static struct pool_slot_view *view_of(struct pool *p, const struct slot *s)
{
	return &p->views[s - p->slots];
}

static bool same_key(const struct key *a, const struct key *b)
{
	return a->source == b->source && a->stream == b->stream &&
	       a->span == b->span;
}

static struct slot **bucket_of(struct pool *p, const struct key *k)
{
	uint64_t h = (uint64_t)(uintptr_t)k->source;

	/* Multipliers of splitmix64 (Steele, Lea, Flood 2014). */
	h = (h ^ h >> 30 ^ k->stream) * UINT64_C(0xbf58476d1ce4e5b9);
	h = (h ^ h >> 27 ^ k->span) * UINT64_C(0x94d049bb133111eb);
	return &p->buckets[(h ^ h >> 31) & p->mask];
}

static struct slot *find_locked(struct pool *p, const struct key *k)
{
	for (struct slot *s = *bucket_of(p, k); s; s = s->hash_next) {
		if (same_key(&s->key, k))
			return s;
	}
	return NULL;
}

static void unhash_locked(struct pool *p, struct slot *s)
{
	struct slot **at = bucket_of(p, &s->key);

	if (!s->hashed)
		return;
	while (*at != s)
		at = &(*at)->hash_next;
	*at = s->hash_next;
	s->hashed = false;
}

static void assign_locked(struct pool *p, struct slot *s, const struct key *k,
			  bool ahead)
{
	struct pool_slot_view *v = view_of(p, s);
	struct slot **bucket;

	unhash_locked(p, s);
	s->key = *k;
	s->wanted = false;
	s->detached = false;
	bucket = bucket_of(p, k);
	s->hash_next = *bucket;
	s->hashed = true;
	*bucket = s;
	v->state = POOL_SLOT_FILLING;
	v->ahead = ahead;
	v->last_use = ++p->clock;
	v->born = ++p->assigned;
}

static void empty_locked(struct pool *p, struct slot *s)
{
	struct pool_slot_view *v = view_of(p, s);

	unhash_locked(p, s);
	v->state = POOL_SLOT_EMPTY;
	v->ahead = false;
	s->detached = false;
}

static void enqueue_locked(struct pool *p, struct slot *s)
{
	s->queue_next = NULL;
	*p->queue_tail = s;
	p->queue_tail = &s->queue_next;
	pthread_cond_signal(&p->work);
}

static void unqueue_locked(struct pool *p, struct slot *s)
{
	struct slot **at = &p->queue;

	while (*at != s)
		at = &(*at)->queue_next;
	*at = s->queue_next;
	if (p->queue_tail == &s->queue_next)
		p->queue_tail = at;
}

/* Those in line for what @s is going to hold, in their order. */
static void adopt_starved_locked(struct pool *p, struct slot *s)
{
	struct pool_waiter *w = p->starved.first, *next;

	for (; w; w = next) {
		next = w->priv.next;
		if (w->priv.source != s->key.source ||
		    w->priv.stream != s->key.stream ||
		    w->priv.span != s->key.span)
			continue;
		waiters_remove(w);
		waiters_add(&s->waiters, w);
	}
}

/* To be called wherever a slot has become idle or empty, or a span that was
 * decoded ahead has been asked for. */
static void slot_freed_locked(struct pool *p)
{
	struct pool_waiter *w;

	while ((w = p->starved.first)) {
		ptrdiff_t i = pool_policy_demand(p->views, p->n);
		const struct key k = {
			.source = w->priv.source,
			.stream = w->priv.stream,
			.span = w->priv.span,
			.start = w->priv.start,
			.len = w->priv.len,
		};

		if (i < 0)
			return;
		assign_locked(p, &p->slots[i], &k, false);
		adopt_starved_locked(p, &p->slots[i]);
		enqueue_locked(p, &p->slots[i]);
	}
	if (p->readahead_stuck) {
		p->readahead_stuck = false;
		pthread_cond_signal(&p->work);
	}
}

static void unref_locked(struct pool *p, struct slot *s)
{
	struct pool_slot_view *v = view_of(p, s);

	assert(v->refs > 0);
	if (--v->refs)
		return;
	if (s->detached)
		empty_locked(p, s);
	slot_freed_locked(p);
}

/* ---- workers ---- */

static bool key_at(struct pool_source *source, unsigned int stream,
		   uint64_t off, struct key *k)
{
	uint64_t size;

	if (checkpoints_stream_size(source->index, stream, &size) ||
	    off >= size)
		return false;
	k->source = source;
	k->stream = stream;
	checkpoints_span_at(source->index, stream, off, &k->span, &k->start,
			    &k->len);
	return true;
}

/* A slot for what a sequential reader will want next, or NULL. */
static struct slot *take_ahead_locked(struct pool *p)
{
	struct pool_readahead_wish *w;

	while ((w = pool_readahead_next(&p->readahead))) {
		struct pool_source *source = w->source;
		struct key k;
		ptrdiff_t i;

		if (!key_at(source, w->stream, w->off, &k)) {
			w->spans = 0; /* the stream ends here */
			continue;
		}
		if (find_locked(p, &k)) {
			pool_readahead_advance(w, k.start + k.len);
			continue;
		}
		i = pool_policy_ahead(p->views, p->n, p->assigned);
		if (i < 0) {
			p->readahead_stuck = true;
			return NULL;
		}
		pool_readahead_advance(w, k.start + k.len);
		assign_locked(p, &p->slots[i], &k, true);
		p->ahead++;
		/* Is there more? Another worker may look. */
		pthread_cond_signal(&p->work);
		return &p->slots[i];
	}
	return NULL;
}

/* Waits for something to decode; NULL to stop. */
static struct slot *take_locked(struct pool *p)
{
	while (!p->stop) {
		struct slot *s = p->queue;

		if (s)
			unqueue_locked(p, s);
		else
			s = take_ahead_locked(p);
		if (s)
			return s;
		pthread_cond_wait(&p->work, &p->lock);
	}
	return NULL;
}

/* Tells all who wait for @s. The lock is given up meanwhile. */
static void tell_locked(struct pool *p, struct slot *s, int err)
{
	struct pool_waiter *w;

	while ((w = s->waiters.first)) {
		waiters_remove(w);
		pthread_mutex_unlock(&p->lock);
		w->ready(w, err);
		pthread_mutex_lock(&p->lock);
	}
}

static void fill_locked(struct pool *p, struct slot *s)
{
	struct pool_slot_view *v = view_of(p, s);
	ssize_t n;
	int err;

	s->running = true;
	p->decodes++;
	pthread_mutex_unlock(&p->lock);
	n = checkpoints_decode(s->key.source->index, s->key.source->fd,
			       s->key.stream, s->key.span, s->data);
	pthread_mutex_lock(&p->lock);
	s->running = false;
	err = n < 0 ? (int)n : (size_t)n != s->key.len ? -EBADMSG : 0;
	v->refs++;
	if (err) { /* not kept: who asks next tries again */
		unhash_locked(p, s);
		s->detached = true;
	} else {
		v->state = POOL_SLOT_READY;
	}
	pthread_cond_broadcast(&p->quiet);
	tell_locked(p, s, err);
	unref_locked(p, s);
}

static void *worker(void *arg)
{
	struct pool *p = arg;
	struct slot *s;

	pthread_mutex_lock(&p->lock);
	while ((s = take_locked(p)))
		fill_locked(p, s);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- the pool ---- */

static int start_workers(struct pool *p, unsigned int n)
{
	sigset_t all, old;
	int err = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!err && p->n_threads < n) {
		pthread_t *t = &p->threads[p->n_threads];

		err = -pthread_create(t, NULL, worker, p);
		if (err)
			break;
		pthread_setname_np(*t, "tickfs-pool");
		p->n_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int pool_create(struct pool **out, size_t memory_bytes, unsigned int workers)
{
	struct pool *p = calloc(1, sizeof(*p));
	size_t buckets = 1;
	int err = -ENOMEM;

	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->quiet, NULL);
	p->queue_tail = &p->queue;
	p->n = memory_bytes / CHECKPOINTS_SPAN;
	if (p->n < SLOTS_MIN)
		p->n = SLOTS_MIN;
	while (buckets < 2 * p->n)
		buckets *= 2;
	p->mask = buckets - 1;
	if (!workers)
		workers = 1;
	p->slots = calloc(p->n, sizeof(*p->slots));
	p->views = calloc(p->n, sizeof(*p->views));
	p->buckets = calloc(buckets, sizeof(struct slot *));
	p->threads = calloc(workers, sizeof(*p->threads));
	p->arena = mmap(NULL, p->n * CHECKPOINTS_SPAN, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->arena == MAP_FAILED)
		p->arena = NULL;
	if (!p->slots || !p->views || !p->buckets || !p->threads || !p->arena)
		goto out;
	for (size_t i = 0; i < p->n; i++)
		p->slots[i].data = p->arena + i * CHECKPOINTS_SPAN;
	err = start_workers(p, workers);
	if (err)
		goto out;
	*out = p;
	return 0;
out:
	pool_free(p);
	return err;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int i = 0; i < p->n_threads; i++)
		pthread_join(p->threads[i], NULL);
	if (p->arena)
		munmap(p->arena, p->n * CHECKPOINTS_SPAN);
	free(p->threads);
	free(p->buckets);
	free(p->views);
	free(p->slots);
	pthread_cond_destroy(&p->quiet);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void pin_locked(struct pool *p, struct slot *s, struct pool_span *out)
{
	struct pool_slot_view *v = view_of(p, s);

	v->refs++;
	v->last_use = ++p->clock;
	p->hits++;
	out->data = s->data;
	out->start = s->key.start;
	out->len = s->key.len;
	out->slot = s;
}

/* Puts @w in line for a slot. */
static int starve_locked(struct pool *p, const struct key *k,
			 struct pool_waiter *w)
{
	p->waits++;
	if (!w)
		return -EAGAIN;
	w->priv.source = k->source;
	w->priv.stream = k->stream;
	w->priv.span = k->span;
	w->priv.start = k->start;
	w->priv.len = k->len;
	waiters_add(&p->starved, w);
	return 0;
}

/* What was decoded ahead counts as such no more. */
static void asked_for_locked(struct pool *p, struct slot *s)
{
	if (!view_of(p, s)->ahead)
		return;
	view_of(p, s)->ahead = false;
	slot_freed_locked(p);
}

static int get_locked(struct pool *p, const struct key *k,
		      struct pool_span *out, struct pool_waiter *w)
{
	struct slot *s = find_locked(p, k);

	if (!s) {
		ptrdiff_t i = pool_policy_demand(p->views, p->n);

		if (i < 0)
			return starve_locked(p, k, w);
		s = &p->slots[i];
		assign_locked(p, s, k, false);
		enqueue_locked(p, s);
	}
	if (view_of(p, s)->state == POOL_SLOT_READY) {
		pin_locked(p, s, out);
		asked_for_locked(p, s);
		return 1;
	}
	asked_for_locked(p, s);
	if (!w) {
		s->wanted = true;
		return -EAGAIN;
	}
	waiters_add(&s->waiters, w);
	return 0;
}

int pool_get(struct pool *p, struct pool_source *s, unsigned int stream,
	     uint64_t off, struct pool_span *out, struct pool_waiter *w)
{
	uint64_t size;
	struct key k;
	int ret;

	ret = checkpoints_stream_size(s->index, stream, &size);
	if (ret)
		return ret;
	if (!key_at(s, stream, off, &k))
		return -EINVAL;
	if (w)
		w->priv.list = NULL;
	pthread_mutex_lock(&p->lock);
	ret = get_locked(p, &k, out, w);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

void pool_put(struct pool *p, struct pool_span *span)
{
	pthread_mutex_lock(&p->lock);
	unref_locked(p, span->slot);
	pthread_mutex_unlock(&p->lock);
	span->slot = NULL;
	span->data = NULL;
}

/* The slot whose waiters @l are, or NULL if they are the starved. */
static struct slot *slot_of_list(struct pool *p, struct pool_waiters *l)
{
	if (l == &p->starved)
		return NULL;
	return (struct slot *)((char *)l - offsetof(struct slot, waiters));
}

bool pool_cancel(struct pool *p, struct pool_waiter *w)
{
	struct pool_waiters *l;
	struct slot *s;

	pthread_mutex_lock(&p->lock);
	l = w->priv.list;
	if (!l) {
		pthread_mutex_unlock(&p->lock);
		return false;
	}
	waiters_remove(w);
	s = slot_of_list(p, l);
	if (s && !l->first && !s->wanted && !s->running &&
	    view_of(p, s)->refs == 0) {
		unqueue_locked(p, s);
		empty_locked(p, s);
		slot_freed_locked(p);
	}
	pthread_mutex_unlock(&p->lock);
	return true;
}

void pool_ahead(struct pool *p, struct pool_source *s, unsigned int stream,
		uint64_t off, unsigned int spans)
{
	struct key k;

	if (!key_at(s, stream, off, &k))
		return;
	pthread_mutex_lock(&p->lock);
	pool_readahead_wish(&p->readahead, s, stream, k.start + k.len, spans);
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

static bool is_running_locked(const struct pool *p,
			      const struct pool_source *source)
{
	for (size_t i = 0; i < p->n; i++) {
		if (p->slots[i].running && p->slots[i].key.source == source)
			return true;
	}
	return false;
}

/* Takes @s away from its source. True: it is out of everybody's reach, to be
 * emptied by the caller; false: by the last reference. */
static bool detach_locked(struct pool *p, struct slot *s)
{
	struct pool_slot_view *v = view_of(p, s);

	if (v->state == POOL_SLOT_FILLING && v->refs == 0)
		unqueue_locked(p, s);
	unhash_locked(p, s);
	v->state = POOL_SLOT_FILLING;
	s->detached = true;
	return v->refs == 0;
}

void pool_source_close(struct pool *p, struct pool_source *source)
{
	pthread_mutex_lock(&p->lock);
	pool_readahead_drop(&p->readahead, source);
	while (is_running_locked(p, source))
		pthread_cond_wait(&p->quiet, &p->lock);
	for (size_t i = 0; i < p->n; i++) {
		struct slot *s = &p->slots[i];

		if (!s->hashed || s->key.source != source)
			continue;
		if (!detach_locked(p, s))
			continue;
		pthread_mutex_unlock(&p->lock);
		madvise(s->data, CHECKPOINTS_SPAN, MADV_DONTNEED);
		pthread_mutex_lock(&p->lock);
		empty_locked(p, s);
		slot_freed_locked(p);
	}
	pthread_mutex_unlock(&p->lock);
}

void pool_stats(struct pool *p, struct pool_stats *out)
{
	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&p->lock);
	out->slots = p->n;
	for (size_t i = 0; i < p->n; i++) {
		out->used += p->views[i].state != POOL_SLOT_EMPTY;
		out->pinned += p->views[i].refs > 0;
	}
	out->hits = p->hits;
	out->decodes = p->decodes;
	out->ahead = p->ahead;
	out->waits = p->waits;
	pthread_mutex_unlock(&p->lock);
}

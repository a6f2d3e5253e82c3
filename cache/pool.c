/*
 * One lock guards everything but the bytes of the spans. A slot goes
 *
 *	EMPTY -> FILLING (queued, then with a worker) -> READY
 *	READY -> FILLING, where more of its span is wanted
 *	READY -> EMPTY, or FILLING with another span
 *	FILLING -> EMPTY, where decoding failed or nobody waits any more
 *
 * and it is in the hash, under its source, stream and span, while it is FILLING
 * or READY, except one that failed or lost its source. The first `filled` bytes
 * of it are right and never change, whatever its state: they may be pinned also
 * while the rest is being decoded. Where `filled` is less than the span, the
 * decoder's state lies at the end of the slot, and is taken from there to go
 * on.
 *
 * A worker fills a slot in steps, and after each tells those whose bytes are
 * there. It holds a reference from the first step to the last, and is not
 * `running` while it tells, since who is told may close the source.
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
#include <time.h>

#include "cache/pool_policy.h"

enum {
	SLOTS_MIN = 4, /* what one read of a MiB may lie in */
	/* A span is left half decoded only where the decoder's state fits
	 * behind it. */
	PAUSE_BELOW = CHECKPOINTS_SPAN - CHECKPOINTS_PAUSED_BYTES,
	/* An empty slot keeps its memory so long: who reads one file after the
	 * other wants it at once, and a page that is touched for the first time
	 * costs 14 us on a virtual machine, more than decoding it. */
	KEEP_MS = 2000,
};

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
	size_t filled; /* bytes there */
	size_t target; /* bytes wanted, also by those who do not wait */
	size_t given;  /* bytes handed out */
	/* Where they began, if none of them were before that; else 0. */
	size_t came_in;
	struct slot *hash_next;
	bool hashed;
	bool queued;
	bool running;
	bool detached; /* to be emptied when its last reference is gone */
	bool wanted;   /* asked for by one who does not wait */
	/* Where it is empty: since when, or 0 where it has no memory. */
	uint64_t emptied_ms;
	struct slot *queue_next;
	struct pool_waiters waiters;
};

struct pool_worker {
	struct pool *pool;
	struct checkpoints_decoder *decoder;
	pthread_t thread;
	bool started;
};

struct pool {
	size_t n;
	unsigned char *arena;
	struct slot *slots;
	struct pool_slot_view *views; /* of the slots; protected by lock */
	struct pool_worker *workers;
	unsigned int n_workers;

	pthread_mutex_t lock;
	pthread_cond_t work;  /* something to decode or give back, or stop */
	pthread_cond_t quiet; /* a decode has ended */
	/* all that follows, and the slots, are protected by lock */
	bool stop;
	struct slot **buckets;
	size_t mask;
	struct slot *queue, **queue_tail; /* asked for, not begun */
	struct pool_waiters starved;
	struct readahead readahead;
	bool readahead_stuck; /* there is a wish, but no slot for it */
	/* When to look for memory of empty slots; 0: there is none. */
	uint64_t give_back_ms;
	uint64_t clock, assigned;
	uint64_t hits, decodes, bytes, ahead, waits;
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

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void assign_locked(struct pool *p, struct slot *s, const struct key *k,
			  bool ahead)
{
	struct pool_slot_view *v = view_of(p, s);
	struct slot **bucket;

	unhash_locked(p, s);
	s->key = *k;
	s->filled = s->target = s->given = 0;
	s->wanted = false;
	s->detached = false;
	bucket = bucket_of(p, k);
	s->hash_next = *bucket;
	s->hashed = true;
	*bucket = s;
	v->state = POOL_SLOT_FILLING;
	v->ahead = ahead;
	v->spent = v->passed = false;
	v->last_use = ++p->clock;
	v->born = ++p->assigned;
}

static void empty_locked(struct pool *p, struct slot *s)
{
	struct pool_slot_view *v = view_of(p, s);

	unhash_locked(p, s);
	v->state = POOL_SLOT_EMPTY;
	v->ahead = v->spent = v->passed = false;
	s->detached = false;
	s->emptied_ms = now_ms();
	if (!p->give_back_ms) {
		p->give_back_ms = s->emptied_ms + KEEP_MS;
		pthread_cond_signal(&p->work);
	}
}

/* More of the span is wanted: the first @need bytes. */
static void aim_locked(struct slot *s, size_t need)
{
	if (need > PAUSE_BELOW)
		need = s->key.len;
	if (s->target < need)
		s->target = need;
}

static void enqueue_locked(struct pool *p, struct slot *s)
{
	view_of(p, s)->state = POOL_SLOT_FILLING;
	s->queued = true;
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
	s->queued = false;
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
		aim_locked(s, w->priv.need);
	}
}

/* To be called wherever a slot has become idle or empty, or a span that was
 * decoded ahead has been asked for. */
static void slot_freed_locked(struct pool *p)
{
	struct pool_waiter *w;

	while ((w = p->starved.first)) {
		ptrdiff_t i = pool_policy_demand(p->views, p->n, p->clock);
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

/* Is there a span that @w wants and that nobody has decoded or is at? Then @k
 * is that, and @s its slot if it is there in part. */
static bool unmet_locked(struct pool *p, struct pool_wish *w, struct key *k,
			 struct slot **s)
{
	struct pool_source *source = w->source;
	uint64_t size, off;

	if (checkpoints_stream_size(source->index, w->stream, &size))
		w->spans = 0;
	while (w->spans && pool_readahead_place(w, size, &off) &&
	       key_at(source, w->stream, off, k)) {
		size_t need = pool_readahead_need(w, k->start, k->len);

		*s = find_locked(p, k);
		if (!*s || (view_of(p, *s)->state == POOL_SLOT_READY &&
			    (*s)->filled < need))
			return true;
		aim_locked(*s, need); /* whoever is at it goes on */
		pool_readahead_advance(w, k->start, k->len);
	}
	w->spans = 0;
	return false;
}

/* A slot for what a reader will want next, or NULL. */
static struct slot *take_ahead_locked(struct pool *p)
{
	struct pool_wish *w;
	struct slot *s;
	struct key k;

	while ((w = pool_readahead_next(&p->readahead))) {
		if (!unmet_locked(p, w, &k, &s))
			continue;
		if (!s) {
			ptrdiff_t i = pool_policy_ahead(
				p->views, p->n,
				pool_readahead_readers(&p->readahead), p->clock,
				p->assigned);

			p->readahead_stuck = i < 0;
			if (i < 0)
				return NULL;
			s = &p->slots[i];
			assign_locked(p, s, &k, true);
		}
		view_of(p, s)->state = POOL_SLOT_FILLING;
		aim_locked(s, pool_readahead_need(w, k.start, k.len));
		pool_readahead_advance(w, k.start, k.len);
		p->ahead++;
		/* Is there more? Another worker may look. */
		if (w->spans)
			pthread_cond_signal(&p->work);
		return s;
	}
	return NULL;
}

/* Is there memory that was long enough with an empty slot? */
static bool gives_back_locked(const struct pool *p)
{
	return p->give_back_ms && now_ms() >= p->give_back_ms;
}

/* Gives it back to the system, unless there is something to decode. The lock is
 * given up meanwhile. */
static void give_back_locked(struct pool *p)
{
	const uint64_t now = now_ms();
	uint64_t next = 0;

	p->give_back_ms = 0; /* whoever empties a slot meanwhile sets it */
	for (size_t i = 0; i < p->n && !p->queue && !p->stop; i++) {
		struct pool_slot_view *v = &p->views[i];
		struct slot *s = &p->slots[i];

		if (v->state != POOL_SLOT_EMPTY || !s->emptied_ms)
			continue;
		if (now < s->emptied_ms + KEEP_MS) {
			if (!next || s->emptied_ms + KEEP_MS < next)
				next = s->emptied_ms + KEEP_MS;
			continue;
		}
		s->emptied_ms = 0;
		v->state = POOL_SLOT_FILLING; /* nobody's but ours */
		pthread_mutex_unlock(&p->lock);
		madvise(s->data, CHECKPOINTS_SPAN, MADV_DONTNEED);
		pthread_mutex_lock(&p->lock);
		v->state = POOL_SLOT_EMPTY;
		slot_freed_locked(p);
	}
	if (p->queue)
		next = now + KEEP_MS;
	if (next && (!p->give_back_ms || next < p->give_back_ms))
		p->give_back_ms = next;
}

/* For something to decode, or to give back. */
static void wait_locked(struct pool *p)
{
	const struct timespec until = {
		.tv_sec = (time_t)(p->give_back_ms / 1000),
		.tv_nsec = (long)(p->give_back_ms % 1000) * 1000000,
	};

	if (p->give_back_ms)
		pthread_cond_timedwait(&p->work, &p->lock, &until);
	else
		pthread_cond_wait(&p->work, &p->lock);
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
		if (gives_back_locked(p))
			give_back_locked(p);
		else
			wait_locked(p);
	}
	return NULL;
}

/* The first who waits for @s and has what he waits for; with an error, the
 * first. */
static struct pool_waiter *served_locked(struct slot *s, int err)
{
	struct pool_waiter *w = s->waiters.first;

	while (w && !err && w->priv.need > s->filled)
		w = w->priv.next;
	return w;
}

/* Tells them. The lock is given up meanwhile. */
static void tell_locked(struct pool *p, struct slot *s, int err)
{
	struct pool_waiter *w;

	while ((w = served_locked(s, err))) {
		waiters_remove(w);
		pthread_mutex_unlock(&p->lock);
		w->ready(w, err);
		pthread_mutex_lock(&p->lock);
	}
}

/* Is another step to be done? What nobody waits for gives way to those who
 * wait for something else. */
static bool goes_on_locked(const struct pool *p, const struct slot *s)
{
	if (s->detached || s->filled == s->key.len)
		return false;
	if (s->waiters.first || s->filled > PAUSE_BELOW)
		return true;
	return s->filled < s->target && (s->wanted || !p->queue);
}

/* Where the next step ends: where the first of those who wait is served. */
static size_t step_end_locked(const struct slot *s)
{
	size_t end = s->filled < s->target ? s->target : s->key.len;

	for (const struct pool_waiter *w = s->waiters.first; w;
	     w = w->priv.next) {
		if (w->priv.need < end)
			end = w->priv.need;
	}
	return end < s->key.len ? end : s->key.len;
}

/* One step, and those served by it told. The lock is given up meanwhile. */
static int step_locked(struct pool *p, struct slot *s,
		       struct checkpoints_decoder *d, bool resume)
{
	const size_t from = s->filled, to = step_end_locked(s);
	const struct key *k = &s->key;
	ssize_t n;

	s->running = true;
	pthread_mutex_unlock(&p->lock);
	if (resume)
		checkpoints_resume(d, s->data + PAUSE_BELOW);
	n = checkpoints_decode(k->source->index, k->source->fd, k->stream,
			       k->span, d, s->data, from, to);
	pthread_mutex_lock(&p->lock);
	s->running = false;
	pthread_cond_broadcast(&p->quiet);
	if (n < 0)
		return (int)n;
	p->bytes += (size_t)n - from;
	s->filled = (size_t)n;
	tell_locked(p, s, 0);
	return 0;
}

/* Steps as long as there is reason to; true where the decoder stands in a span
 * that is not whole, and its state is not put away yet. */
static bool steps_locked(struct pool *p, struct slot *s,
			 struct checkpoints_decoder *d, bool resume, int *err)
{
	bool stepped = false;

	*err = 0;
	while (!*err && goes_on_locked(p, s)) {
		*err = step_locked(p, s, d, resume && !stepped);
		stepped = true;
	}
	return stepped && !*err && !s->detached && s->filled < s->key.len;
}

/* Not kept: who asks next tries again. */
static void fail_locked(struct pool *p, struct slot *s, int err)
{
	unhash_locked(p, s);
	s->detached = true;
	tell_locked(p, s, err);
}

static void fill_locked(struct pool *p, struct slot *s,
			struct checkpoints_decoder *d)
{
	struct pool_slot_view *v = view_of(p, s);
	bool resume = s->filled > 0;
	int err;

	if (!resume)
		p->decodes++;
	v->refs++;
	/* Whoever came while the state was put away is served first. */
	while (steps_locked(p, s, d, resume, &err)) {
		s->running = true;
		pthread_mutex_unlock(&p->lock);
		checkpoints_pause(d, s->data + PAUSE_BELOW);
		pthread_mutex_lock(&p->lock);
		s->running = false;
		pthread_cond_broadcast(&p->quiet);
		resume = false;
	}
	s->wanted = false;
	if (err)
		fail_locked(p, s, err);
	else if (!s->detached)
		v->state = POOL_SLOT_READY;
	unref_locked(p, s);
}

static void *worker(void *arg)
{
	struct pool_worker *w = arg;
	struct pool *p = w->pool;
	struct slot *s;

	pthread_mutex_lock(&p->lock);
	while ((s = take_locked(p)))
		fill_locked(p, s, w->decoder);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- the pool ---- */

static int start_worker(struct pool *p, struct pool_worker *w)
{
	int err = checkpoints_decoder_create(&w->decoder);

	if (err)
		return err;
	w->pool = p;
	err = -pthread_create(&w->thread, NULL, worker, w);
	if (err)
		return err;
	w->started = true;
	pthread_setname_np(w->thread, "tickfs-pool");
	return 0;
}

static int start_workers(struct pool *p)
{
	sigset_t all, old;
	int err = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned int i = 0; i < p->n_workers && !err; i++)
		err = start_worker(p, &p->workers[i]);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

static void stop_workers(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int i = 0; p->workers && i < p->n_workers; i++) {
		if (p->workers[i].started)
			pthread_join(p->workers[i].thread, NULL);
		checkpoints_decoder_free(p->workers[i].decoder);
	}
}

int pool_create(struct pool **out, size_t memory_bytes, unsigned int workers)
{
	struct pool *p = calloc(1, sizeof(*p));
	pthread_condattr_t monotonic;
	size_t buckets = 1;
	int err = -ENOMEM;

	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->work, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&p->quiet, NULL);
	p->queue_tail = &p->queue;
	p->n = memory_bytes / CHECKPOINTS_SPAN;
	if (p->n < SLOTS_MIN)
		p->n = SLOTS_MIN;
	while (buckets < 2 * p->n)
		buckets *= 2;
	p->mask = buckets - 1;
	p->n_workers = workers ? workers : 1;
	p->slots = calloc(p->n, sizeof(*p->slots));
	p->views = calloc(p->n, sizeof(*p->views));
	p->buckets = calloc(buckets, sizeof(struct slot *));
	p->workers = calloc(p->n_workers, sizeof(*p->workers));
	p->arena = mmap(NULL, p->n * CHECKPOINTS_SPAN, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->arena == MAP_FAILED)
		p->arena = NULL;
	if (!p->slots || !p->views || !p->buckets || !p->workers || !p->arena)
		goto out;
	madvise(p->arena, p->n * CHECKPOINTS_SPAN, MADV_HUGEPAGE);
	for (size_t i = 0; i < p->n; i++)
		p->slots[i].data = p->arena + i * CHECKPOINTS_SPAN;
	err = start_workers(p);
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
	stop_workers(p);
	if (p->arena)
		munmap(p->arena, p->n * CHECKPOINTS_SPAN);
	free(p->workers);
	free(p->buckets);
	free(p->views);
	free(p->slots);
	pthread_cond_destroy(&p->quiet);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void pin_locked(struct pool *p, struct slot *s, uint64_t off,
		       struct pool_span *out)
{
	struct pool_slot_view *v = view_of(p, s);

	v->refs++;
	v->last_use = ++p->clock;
	out->at = (size_t)(off - s->key.start);
	/* The kernel has lost what was given to it; but it never had what lies
	 * before where the reader came in. */
	if (v->spent || (v->passed && out->at >= s->came_in))
		s->given = 0;
	v->spent = v->passed = false;
	p->hits++;
	out->data = s->data;
	out->start = s->key.start;
	out->len = s->key.len;
	out->there = s->filled;
	out->slot = s;
}

/* Puts @w in line for a slot. */
static int starve_locked(struct pool *p, const struct key *k, size_t need,
			 struct pool_waiter *w)
{
	p->waits++;
	if (!w)
		return -EAGAIN;
	w->priv.need = need;
	w->priv.source = k->source;
	w->priv.stream = k->stream;
	w->priv.span = k->span;
	w->priv.start = k->start;
	w->priv.len = k->len;
	waiters_add(&p->starved, w);
	return 0;
}

/* What was decoded ahead counts as such no more: it was given to a reader, or
 * one waits for it. */
static void asked_for_locked(struct pool *p, struct slot *s)
{
	if (!view_of(p, s)->ahead)
		return;
	view_of(p, s)->ahead = false;
	slot_freed_locked(p);
}

/* Takes a slot for @k, or goes on with the one that holds it. */
static struct slot *slot_to_fill_locked(struct pool *p, const struct key *k,
					struct slot *s)
{
	if (!s) {
		ptrdiff_t i = pool_policy_demand(p->views, p->n, p->clock);

		if (i < 0)
			return NULL;
		s = &p->slots[i];
		assign_locked(p, s, k, false);
		enqueue_locked(p, s);
	} else if (view_of(p, s)->state == POOL_SLOT_READY) {
		enqueue_locked(p, s);
	}
	return s;
}

static int get_locked(struct pool *p, const struct key *k, uint64_t off,
		      size_t need, struct pool_span *out, struct pool_waiter *w)
{
	struct slot *s = find_locked(p, k);

	if (s && s->filled >= need) {
		pin_locked(p, s, off, out);
		return 1;
	}
	s = slot_to_fill_locked(p, k, s);
	if (!s)
		return starve_locked(p, k, need, w);
	aim_locked(s, need);
	if (w) {
		w->priv.need = need;
		waiters_add(&s->waiters, w);
	} else {
		s->wanted = true;
	}
	asked_for_locked(p, s);
	return w ? 0 : -EAGAIN;
}

/* The span of @stream that holds @off, and how much of it is needed for @want
 * bytes from there. */
static int locate(struct pool_source *s, unsigned int stream, uint64_t off,
		  size_t want, struct key *k, size_t *need)
{
	uint64_t size;
	int ret = checkpoints_stream_size(s->index, stream, &size);
	size_t at;

	if (ret)
		return ret;
	if (!key_at(s, stream, off, k))
		return -EINVAL;
	at = (size_t)(off - k->start);
	*need = want < k->len - at ? at + want : k->len;
	return 0;
}

int pool_get(struct pool *p, struct pool_source *s, unsigned int stream,
	     uint64_t off, size_t want, struct pool_span *out,
	     struct pool_waiter *w)
{
	struct key k;
	size_t need;
	int ret = locate(s, stream, off, want, &k, &need);

	if (ret)
		return ret;
	if (w)
		w->priv.list = NULL;
	pthread_mutex_lock(&p->lock);
	ret = get_locked(p, &k, off, need, out, w);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int pool_look(struct pool *p, struct pool_source *s, unsigned int stream,
	      uint64_t off, size_t want, struct pool_span *out)
{
	struct slot *slot;
	struct key k;
	size_t need;
	int ret = locate(s, stream, off, want, &k, &need);

	if (ret)
		return ret;
	pthread_mutex_lock(&p->lock);
	slot = find_locked(p, &k);
	if (slot && slot->filled >= need)
		pin_locked(p, slot, off, out);
	else
		ret = -EAGAIN;
	pthread_mutex_unlock(&p->lock);
	return ret ? ret : 1;
}

/* One who goes forward has come to @s. Was all of the span before it given,
 * from where a reader came in, and is nobody else at it? */
static void pass_locked(struct pool *p, const struct slot *s)
{
	struct key k = {
		.source = s->key.source,
		.stream = s->key.stream,
		.span = s->key.span - 1,
	};
	struct slot *before = s->key.span ? find_locked(p, &k) : NULL;

	if (!before || view_of(p, before)->refs || !before->given ||
	    before->given < before->key.len - before->came_in)
		return;
	view_of(p, before)->passed = true;
	slot_freed_locked(p);
}

/* The next @n bytes from @at were handed to a reader. */
static void give_locked(struct pool *p, struct slot *s, size_t at, size_t n,
			enum access_kind kind)
{
	const size_t given = s->given;

	if (!given)
		s->came_in = at;
	else if (at < s->came_in) /* there is one who goes another way */
		s->came_in = 0;
	s->given += n;
	if (s->given >= s->key.len)
		view_of(p, s)->spent = true;
	/* In order from its beginning: one read may be there by chance, and one
	 * that goes backward has the end of it in hand, and then what is before
	 * it. */
	if (at == given && (given || kind == ACCESS_FORWARD))
		pass_locked(p, s);
	asked_for_locked(p, s);
}

static void put_locked(struct pool *p, struct pool_span *span)
{
	unref_locked(p, span->slot);
	span->slot = NULL;
	span->data = NULL;
}

void pool_put(struct pool *p, struct pool_span *span)
{
	pthread_mutex_lock(&p->lock);
	put_locked(p, span);
	pthread_mutex_unlock(&p->lock);
}

void pool_give(struct pool *p, struct pool_span *span, size_t n,
	       enum access_kind kind)
{
	pthread_mutex_lock(&p->lock);
	give_locked(p, span->slot, span->at, n, kind);
	put_locked(p, span);
	pthread_mutex_unlock(&p->lock);
}

/* The slot whose waiters @l are, or NULL if they are the starved. */
static struct slot *slot_of_list(struct pool *p, struct pool_waiters *l)
{
	if (l == &p->starved)
		return NULL;
	return (struct slot *)((char *)l - offsetof(struct slot, waiters));
}

/* Nobody waits for what @s was queued for. */
static void give_up_locked(struct pool *p, struct slot *s)
{
	unqueue_locked(p, s);
	s->target = s->filled;
	if (s->filled)
		view_of(p, s)->state = POOL_SLOT_READY;
	else
		empty_locked(p, s);
	slot_freed_locked(p);
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
	if (s && !l->first && !s->wanted && s->queued)
		give_up_locked(p, s);
	pthread_mutex_unlock(&p->lock);
	return true;
}

void pool_ahead(struct pool *p, struct pool_source *s, unsigned int stream,
		const void *handle, const struct access_guess *guess,
		unsigned int spans)
{
	struct pool_wish *w;
	struct slot *slot;
	struct key k;

	pthread_mutex_lock(&p->lock);
	w = pool_readahead_wish(&p->readahead, s, handle, stream, guess, spans);
	/* Most requests of a reader find all of it done: wake nobody then. */
	if (unmet_locked(p, w, &k, &slot))
		pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

void pool_leave(struct pool *p, const void *handle)
{
	pthread_mutex_lock(&p->lock);
	pool_readahead_leave(&p->readahead, handle);
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

/* Takes @s away from its source; by its last reference it is emptied. */
static void detach_locked(struct pool *p, struct slot *s)
{
	if (s->queued)
		unqueue_locked(p, s);
	unhash_locked(p, s);
	view_of(p, s)->state = POOL_SLOT_FILLING;
	s->detached = true;
}

void pool_source_close(struct pool *p, struct pool_source *source)
{
	struct slot *s;

	pthread_mutex_lock(&p->lock);
	pool_readahead_drop(&p->readahead, source);
	while (is_running_locked(p, source))
		pthread_cond_wait(&p->quiet, &p->lock);
	for (size_t i = 0; i < p->n; i++) {
		s = &p->slots[i];
		if (s->hashed && s->key.source == source)
			detach_locked(p, s);
	}
	for (size_t i = 0; i < p->n; i++) {
		s = &p->slots[i];
		if (s->detached && s->key.source == source &&
		    p->views[i].refs == 0)
			empty_locked(p, s);
	}
	slot_freed_locked(p);
	pthread_mutex_unlock(&p->lock);
}

bool pool_source_closes_at_once(struct pool *p, const struct pool_source *s)
{
	size_t spans = 0;
	bool busy = false;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->n; i++) {
		const struct slot *slot = &p->slots[i];

		if (!slot->hashed || slot->key.source != s)
			continue;
		busy = busy || p->views[i].state == POOL_SLOT_FILLING;
		spans++;
	}
	pthread_mutex_unlock(&p->lock);
	return !busy && spans <= 1;
}

void pool_stats(struct pool *p, struct pool_stats *out)
{
	memset(out, 0, sizeof(*out));
	pthread_mutex_lock(&p->lock);
	out->workers = p->n_workers;
	out->slots = p->n;
	for (size_t i = 0; i < p->n; i++) {
		out->used += p->views[i].state != POOL_SLOT_EMPTY;
		out->pinned += p->views[i].refs > 0;
	}
	out->hits = p->hits;
	out->decodes = p->decodes;
	out->bytes = p->bytes;
	out->ahead = p->ahead;
	out->waits = p->waits;
	pthread_mutex_unlock(&p->lock);
}

/*
 * The pool over an index that is made up: this file defines the functions of
 * cache/checkpoints.h that the pool uses, so that a test decides when a decode
 * ends, and counts them. The linker takes these before those of the library.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/checkpoints.h"
#include "cache/pool.h"
#include "tests/support/archives.h"

enum { SPANS = 512, SPAN = 1000 };

struct checkpoints {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool held;	      /* decodes wait */
	unsigned int allowed; /* so many steps do not */
	unsigned int busy;    /* decodes under way */
	int err;	      /* what they come to */
	unsigned int count[SPANS];
	unsigned int total, steps;
	uint64_t bytes; /* decoded */
	uint64_t last;	/* span */
	size_t span;	/* their length */
};

static void index_init(struct checkpoints *cp)
{
	memset(cp, 0, sizeof(*cp));
	cp->span = SPAN;
	pthread_mutex_init(&cp->lock, NULL);
	pthread_cond_init(&cp->changed, NULL);
}

static void index_hold(struct checkpoints *cp, bool held)
{
	pthread_mutex_lock(&cp->lock);
	cp->held = held;
	pthread_cond_broadcast(&cp->changed);
	pthread_mutex_unlock(&cp->lock);
}

/* Waits until @n decodes have begun. */
static void index_await(struct checkpoints *cp, unsigned int n)
{
	pthread_mutex_lock(&cp->lock);
	while (cp->total < n)
		pthread_cond_wait(&cp->changed, &cp->lock);
	pthread_mutex_unlock(&cp->lock);
}

static unsigned int index_total(struct checkpoints *cp)
{
	unsigned int n;

	pthread_mutex_lock(&cp->lock);
	n = cp->total;
	pthread_mutex_unlock(&cp->lock);
	return n;
}

/* One of its figures. */
static uint64_t index_get(struct checkpoints *cp, const uint64_t *of)
{
	uint64_t n;

	pthread_mutex_lock(&cp->lock);
	n = *of;
	pthread_mutex_unlock(&cp->lock);
	return n;
}

int checkpoints_stream_size(const struct checkpoints *cp, unsigned int stream,
			    uint64_t *size)
{
	if (stream > 1)
		return -ENOENT;
	*size = (uint64_t)SPANS * cp->span;
	return 0;
}

void checkpoints_span_at(const struct checkpoints *cp, unsigned int stream,
			 uint64_t off, uint64_t *span, uint64_t *start,
			 size_t *len)
{
	(void)stream;
	*span = off / cp->span;
	*start = *span * cp->span;
	*len = cp->span;
}

static unsigned char byte_of(unsigned int stream, uint64_t span)
{
	return (unsigned char)(span * 7 + stream);
}

int checkpoints_decoder_create(struct checkpoints_decoder **out)
{
	*out = NULL;
	return 0;
}

void checkpoints_decoder_free(struct checkpoints_decoder *d)
{
	assert_null(d);
}

/* Where a decoder stands is told by the bytes that are there. */
void checkpoints_pause(const struct checkpoints_decoder *d, void *room)
{
	(void)d;
	memset(room, 0xaa, CHECKPOINTS_PAUSED_BYTES);
}

void checkpoints_resume(struct checkpoints_decoder *d, const void *room)
{
	const unsigned char *paused = room;

	(void)d;
	for (size_t i = 0; i < CHECKPOINTS_PAUSED_BYTES; i++)
		assert_int_equal(paused[i], 0xaa);
}

ssize_t checkpoints_decode(const struct checkpoints *c, int fd,
			   unsigned int stream, uint64_t span,
			   struct checkpoints_decoder *d, void *buf,
			   size_t from, size_t to)
{
	struct checkpoints *cp = (struct checkpoints *)c;
	int err;

	(void)fd;
	(void)d;
	to = (to + CHECKPOINTS_PIECE - 1) / CHECKPOINTS_PIECE *
	     CHECKPOINTS_PIECE;
	if (to > cp->span)
		to = cp->span;
	pthread_mutex_lock(&cp->lock);
	cp->count[span] += from == 0;
	cp->total += from == 0;
	cp->steps++;
	cp->bytes += to - from;
	cp->last = span;
	cp->busy++;
	pthread_cond_broadcast(&cp->changed);
	while (cp->held && cp->steps > cp->allowed)
		pthread_cond_wait(&cp->changed, &cp->lock);
	err = cp->err;
	cp->busy--;
	pthread_mutex_unlock(&cp->lock);
	memset((char *)buf + from, byte_of(stream, span), to - from);
	return err ? err : (ssize_t)to;
}

/* ---- one who waits ---- */

struct reader {
	struct pool_waiter waiter;
	struct pool *pool;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned int calls;
	int err;
};

static void reader_ready(struct pool_waiter *w, int err)
{
	struct reader *r = (struct reader *)w;

	pthread_mutex_lock(&r->lock);
	r->calls++;
	r->err = err;
	pthread_cond_broadcast(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

static void reader_init(struct reader *r)
{
	memset(r, 0, sizeof(*r));
	r->waiter.ready = reader_ready;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->cond, NULL);
}

static int reader_await(struct reader *r)
{
	int err;

	pthread_mutex_lock(&r->lock);
	while (!r->calls)
		pthread_cond_wait(&r->cond, &r->lock);
	assert_int_equal(r->calls, 1);
	r->calls = 0;
	err = r->err;
	pthread_mutex_unlock(&r->lock);
	return err;
}

static unsigned int reader_calls(struct reader *r)
{
	unsigned int n;

	pthread_mutex_lock(&r->lock);
	n = r->calls;
	pthread_mutex_unlock(&r->lock);
	return n;
}

/* Pins the span, waiting as often as it takes. */
static int get(struct pool *p, struct pool_source *s, unsigned int stream,
	       uint64_t off, struct pool_span *out)
{
	struct reader r;

	reader_init(&r);
	for (;;) {
		int ret = pool_get(p, s, stream, off, 1, out, &r.waiter);

		if (ret)
			return ret;
		ret = reader_await(&r);
		if (ret)
			return ret;
	}
}

static void check_span(const struct pool_span *sp, unsigned int stream,
		       uint64_t off)
{
	assert_int_equal(sp->start, off / SPAN * SPAN);
	assert_int_equal(sp->len, SPAN);
	for (size_t i = 0; i < SPAN; i++)
		assert_int_equal(sp->data[i], byte_of(stream, off / SPAN));
}

static void fetch(struct pool *p, struct pool_source *s, unsigned int stream,
		  uint64_t off)
{
	struct pool_span sp;

	assert_int_equal(get(p, s, stream, off, &sp), 1);
	check_span(&sp, stream, off);
	pool_put(p, &sp);
}

/* The @spans spans after the one that holds @off. */
static void ahead(struct pool *p, struct pool_source *s, uint64_t off,
		  unsigned int spans)
{
	const struct access_guess guess = {
		.kind = ACCESS_FORWARD,
		.off = (off / SPAN + 1) * SPAN,
	};

	pool_ahead(p, s, 1, p, &guess, spans);
}

struct fixture {
	struct checkpoints index;
	struct pool_source source;
	struct pool *pool;
};

static void begin(struct fixture *f, unsigned int slots, unsigned int workers)
{
	index_init(&f->index);
	f->source = (struct pool_source){.index = &f->index, .fd = -1};
	assert_int_equal(pool_create(&f->pool, (size_t)slots * CHECKPOINTS_SPAN,
				     workers),
			 0);
}

static void end(struct fixture *f)
{
	struct pool_stats st;

	pool_source_close(f->pool, &f->source);
	/* A worker that has called ready() may still have to let go. */
	do {
		sched_yield();
		pool_stats(f->pool, &st);
	} while (st.used || st.pinned);
	pool_free(f->pool);
}

/* ---- tests ---- */

static void test_pool__a_span_is_decoded_once(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 8, 2);
	for (int i = 0; i < 5; i++)
		fetch(f.pool, &f.source, 1, 3 * SPAN + 17);
	assert_int_equal(f.index.count[3], 1);
	/* The same span of another stream is another one. */
	fetch(f.pool, &f.source, 0, 3 * SPAN);
	assert_int_equal(f.index.count[3], 2);
	end(&f);
}

static void test_pool__many_who_wait_for_a_span_share_it(void **state)
{
	struct pool_span sp;
	struct reader r[10];
	struct fixture f;

	(void)state;
	begin(&f, 4, 2);
	index_hold(&f.index, true);
	for (int i = 0; i < 10; i++) {
		reader_init(&r[i]);
		assert_int_equal(pool_get(f.pool, &f.source, 1, 5, 1, &sp,
					  &r[i].waiter),
				 0);
	}
	index_hold(&f.index, false);
	for (int i = 0; i < 10; i++)
		assert_int_equal(reader_await(&r[i]), 0);
	assert_int_equal(index_total(&f.index), 1);
	end(&f);
}

static void test_pool__what_can_not_be_asked_for(void **state)
{
	struct pool_span sp;
	struct reader r;
	struct fixture f;

	(void)state;
	begin(&f, 4, 1);
	reader_init(&r);
	assert_int_equal(pool_get(f.pool, &f.source, 7, 0, 1, &sp, &r.waiter),
			 -ENOENT);
	assert_int_equal(pool_get(f.pool, &f.source, 1, SPANS * SPAN, 1, &sp,
				  &r.waiter),
			 -EINVAL);
	end(&f);
}

static void test_pool__failure_reaches_all_and_is_forgotten(void **state)
{
	struct pool_span sp;
	struct reader r[3];
	struct fixture f;

	(void)state;
	begin(&f, 4, 1);
	f.index.err = -EBADMSG;
	index_hold(&f.index, true);
	for (int i = 0; i < 3; i++) {
		reader_init(&r[i]);
		assert_int_equal(pool_get(f.pool, &f.source, 1, 0, 1, &sp,
					  &r[i].waiter),
				 0);
	}
	index_hold(&f.index, false);
	for (int i = 0; i < 3; i++)
		assert_int_equal(reader_await(&r[i]), -EBADMSG);
	pthread_mutex_lock(&f.index.lock);
	f.index.err = 0;
	pthread_mutex_unlock(&f.index.lock);
	fetch(f.pool, &f.source, 1, 0);
	assert_int_equal(f.index.count[0], 2);
	end(&f);
}

/* Pages of [@data, @data + @len) that are there. */
static size_t resident(const unsigned char *data, size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
	unsigned char there[64];

	assert_true(len <= page * sizeof(there));
	assert_int_equal(mincore((void *)(uintptr_t)data, len, there), 0);
	for (size_t i = 0; i < (len + page - 1) / page; i++)
		n += there[i] & 1;
	return n;
}

/* Who reads one small file after the other has the same memory again; who is
 * done has none in the end. */
static void test_pool__memory_goes_back_after_a_while(void **state)
{
	const unsigned char *data = NULL;
	struct pool_stats st;
	struct pool_span sp;
	struct fixture f;
	int tries = 0;

	(void)state;
	begin(&f, 4, 1);
	for (int i = 0; i < 2; i++) {
		fetch(f.pool, &f.source, 1, 0);
		assert_int_equal(
			pool_get(f.pool, &f.source, 1, 0, 1, &sp, NULL), 1);
		if (i)
			assert_ptr_equal(sp.data, data);
		data = sp.data;
		pool_put(f.pool, &sp);
		pool_source_close(f.pool, &f.source);
		/* Or the worker that told of it has it still. */
		do
			pool_stats(f.pool, &st);
		while (st.used);
		assert_true(resident(data, SPAN) > 0);
	}
	while (resident(data, SPAN) > 0) {
		assert_true(tries++ < 1000);
		nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000},
			  NULL);
	}
	/* And it can be used as before. */
	fetch(f.pool, &f.source, 1, 0);
	end(&f);
}

static void test_pool__looking_begins_nothing(void **state)
{
	struct pool_span sp;
	struct fixture f;

	(void)state;
	begin(&f, 4, 1);
	assert_int_equal(pool_look(f.pool, &f.source, 7, 0, 1, &sp), -ENOENT);
	assert_int_equal(pool_look(f.pool, &f.source, 1, SPANS * SPAN, 1, &sp),
			 -EINVAL);
	assert_int_equal(pool_look(f.pool, &f.source, 1, 0, 1, &sp), -EAGAIN);
	fetch(f.pool, &f.source, 1, 0);
	assert_int_equal(pool_look(f.pool, &f.source, 1, 5, 1, &sp), 1);
	assert_int_equal(sp.start, 0);
	pool_put(f.pool, &sp);
	assert_int_equal(pool_look(f.pool, &f.source, 1, SPAN, 1, &sp),
			 -EAGAIN);
	assert_int_equal(index_total(&f.index), 1);
	end(&f);
}

static void test_pool__without_a_waiter_it_never_waits(void **state)
{
	struct pool_span sp;
	struct fixture f;
	struct reader r;

	(void)state;
	begin(&f, 4, 1);
	index_hold(&f.index, true);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 0, 1, &sp, NULL),
			 -EAGAIN);
	index_await(&f.index, 1);
	reader_init(&r);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 0, 1, &sp, &r.waiter),
			 0);
	index_hold(&f.index, false);
	assert_int_equal(reader_await(&r), 0);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 0, 1, &sp, NULL), 1);
	pool_put(f.pool, &sp);
	assert_int_equal(index_total(&f.index), 1);
	end(&f);
}

static void
test_pool__when_all_is_pinned_the_first_to_ask_is_first(void **state)
{
	struct pool_span pinned[4], sp;
	struct pool_stats st;
	struct reader r[3];
	struct fixture f;

	(void)state;
	begin(&f, 4, 1);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(
			get(f.pool, &f.source, 1, i * SPAN, &pinned[i]), 1);
	for (unsigned int i = 0; i < 3; i++) {
		reader_init(&r[i]);
		/* The third wants what the first does. */
		assert_int_equal(pool_get(f.pool, &f.source, 1,
					  (100 + i % 2) * SPAN, 1, &sp,
					  &r[i].waiter),
				 0);
	}
	pool_stats(f.pool, &st);
	assert_int_equal(st.waits, 3);
	assert_int_equal(st.pinned, 4);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 200 * SPAN, 1, &sp,
				  NULL),
			 -EAGAIN);
	pool_put(f.pool, &pinned[2]);
	assert_int_equal(reader_await(&r[0]), 0);
	assert_int_equal(reader_await(&r[2]), 0);
	assert_int_equal(f.index.count[100], 1);
	/* That slot is idle then, and goes to the second at once. */
	assert_int_equal(reader_await(&r[1]), 0);
	assert_int_equal(f.index.count[101], 1);
	assert_int_equal(f.index.count[200], 0);
	/* Pinned ones were not touched. */
	for (unsigned int i = 0; i < 4; i++) {
		if (i == 2)
			continue;
		check_span(&pinned[i], 1, i * SPAN);
		pool_put(f.pool, &pinned[i]);
	}
	end(&f);
}

/* Gets its span from inside ready(), as a file system would. */
struct eager {
	struct pool_waiter waiter;
	struct fixture *f;
	uint64_t off;
	struct reader done;
};

static void eager_ready(struct pool_waiter *w, int err)
{
	struct eager *e = (struct eager *)w;
	struct pool_span sp;
	int ret;

	if (!err) {
		ret = pool_get(e->f->pool, &e->f->source, 1, e->off, 1, &sp,
			       &e->waiter);
		err = ret == 1 && sp.data[0] == byte_of(1, e->off / SPAN)
			      ? 0
			      : -EIO;
		if (ret == 1)
			pool_put(e->f->pool, &sp);
	}
	reader_ready(&e->done.waiter, err);
}

static void test_pool__ready_gets_its_span_however_tight_it_is(void **state)
{
	enum { N = 64 };
	static struct eager e[N];
	struct pool_span pinned[3], sp;
	struct fixture f;

	(void)state;
	begin(&f, 4, 2);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(
			get(f.pool, &f.source, 1, i * SPAN, &pinned[i]), 1);
	for (unsigned int i = 0; i < N; i++) {
		e[i].waiter.ready = eager_ready;
		e[i].f = &f;
		e[i].off = (10 + i) * SPAN;
		reader_init(&e[i].done);
		assert_int_equal(pool_get(f.pool, &f.source, 1, e[i].off, 1,
					  &sp, &e[i].waiter),
				 0);
	}
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(reader_await(&e[i].done), 0);
	assert_int_equal(index_total(&f.index), 3 + N);
	for (unsigned int i = 0; i < 3; i++)
		pool_put(f.pool, &pinned[i]);
	end(&f);
}

static void test_pool__a_cancelled_waiter_is_not_called(void **state)
{
	struct pool_span sp;
	struct reader r[3];
	struct fixture f;

	(void)state;
	begin(&f, 4, 1);
	index_hold(&f.index, true);
	for (unsigned int i = 0; i < 3; i++) {
		reader_init(&r[i]);
		assert_int_equal(pool_get(f.pool, &f.source, 1, i * SPAN, 1,
					  &sp, &r[i].waiter),
				 0);
	}
	index_await(&f.index, 1); /* the worker is at span 0 */
	assert_true(pool_cancel(f.pool, &r[0].waiter));
	assert_true(pool_cancel(f.pool, &r[1].waiter));
	assert_false(pool_cancel(f.pool, &r[1].waiter));
	index_hold(&f.index, false);
	assert_int_equal(reader_await(&r[2]), 0);
	assert_false(pool_cancel(f.pool, &r[2].waiter));
	assert_int_equal(reader_calls(&r[0]), 0);
	assert_int_equal(reader_calls(&r[1]), 0);
	/* What had begun is kept; what had not was given up. */
	assert_int_equal(f.index.count[0], 1);
	assert_int_equal(f.index.count[1], 0);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 0, 1, &sp, NULL), 1);
	pool_put(f.pool, &sp);
	end(&f);
}

static void test_pool__cancelling_leaves_others_their_place(void **state)
{
	struct pool_span pinned[4], sp;
	struct reader r[2];
	struct fixture f;

	(void)state;
	begin(&f, 4, 1);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(
			get(f.pool, &f.source, 1, i * SPAN, &pinned[i]), 1);
	for (unsigned int i = 0; i < 2; i++) {
		reader_init(&r[i]);
		assert_int_equal(pool_get(f.pool, &f.source, 1, (50 + i) * SPAN,
					  1, &sp, &r[i].waiter),
				 0);
	}
	assert_true(pool_cancel(f.pool, &r[0].waiter));
	pool_put(f.pool, &pinned[0]);
	assert_int_equal(reader_await(&r[1]), 0);
	assert_int_equal(f.index.count[50], 0);
	for (unsigned int i = 1; i < 4; i++)
		pool_put(f.pool, &pinned[i]);
	end(&f);
}

static void test_pool__the_least_recently_used_span_goes(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 4, 1);
	for (unsigned int i = 0; i < 4; i++)
		fetch(f.pool, &f.source, 1, i * SPAN);
	fetch(f.pool, &f.source, 1, 0);
	fetch(f.pool, &f.source, 1, 9 * SPAN); /* in the place of 1 */
	fetch(f.pool, &f.source, 1, 0);
	fetch(f.pool, &f.source, 1, 2 * SPAN);
	fetch(f.pool, &f.source, 1, 3 * SPAN);
	assert_int_equal(index_total(&f.index), 5);
	fetch(f.pool, &f.source, 1, 1 * SPAN);
	assert_int_equal(f.index.count[1], 2);
	end(&f);
}

/* A reader to whom all of a span is given. */
static void use_up(struct pool *p, struct pool_source *s, uint64_t off)
{
	struct pool_span sp;

	assert_int_equal(get(p, s, 1, off, &sp), 1);
	check_span(&sp, 1, off);
	pool_give(p, &sp, sp.len, ACCESS_RANDOM);
}

static void test_pool__decodes_ahead_but_never_the_whole_pool(void **state)
{
	struct pool_stats st;
	struct fixture f;

	(void)state;
	begin(&f, 8, 2);
	fetch(f.pool, &f.source, 1, 10 * SPAN);
	ahead(f.pool, &f.source, 10 * SPAN + 5, 100);
	index_await(&f.index, 1 + 4);
	for (uint64_t i = 11; i < 15; i++)
		use_up(f.pool, &f.source, i * SPAN);
	pool_stats(f.pool, &st);
	assert_true(st.ahead >= 4);
	for (unsigned int i = 10; i < 15; i++)
		assert_int_equal(f.index.count[i], 1);
	/* Reading on has made room for more. */
	index_await(&f.index, 1 + 8);
	for (unsigned int i = 15; i < 19; i++)
		use_up(f.pool, &f.source, i * SPAN);
	for (unsigned int i = 15; i < 19; i++)
		assert_int_equal(f.index.count[i], 1);
	end(&f);
}

static void test_pool__a_newer_wish_replaces_the_older(void **state)
{
	struct pool_span sp;
	struct fixture f;
	struct reader r;

	(void)state;
	begin(&f, 16, 1);
	index_hold(&f.index, true);
	reader_init(&r);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 0, 1, &sp, &r.waiter),
			 0);
	index_await(&f.index, 1);
	ahead(f.pool, &f.source, 100 * SPAN, 3);
	ahead(f.pool, &f.source, 200 * SPAN, 2);
	index_hold(&f.index, false);
	assert_int_equal(reader_await(&r), 0);
	index_await(&f.index, 3);
	assert_int_equal(f.index.count[101], 0);
	fetch(f.pool, &f.source, 1, 201 * SPAN);
	fetch(f.pool, &f.source, 1, 202 * SPAN);
	assert_int_equal(index_total(&f.index), 3);
	end(&f);
}

static void test_pool__who_waits_comes_before_ahead(void **state)
{
	struct pool_span sp;
	struct reader r[2];
	struct fixture f;

	(void)state;
	begin(&f, 16, 1);
	index_hold(&f.index, true);
	for (int i = 0; i < 2; i++)
		reader_init(&r[i]);
	assert_int_equal(
		pool_get(f.pool, &f.source, 1, 0, 1, &sp, &r[0].waiter), 0);
	index_await(&f.index, 1);
	ahead(f.pool, &f.source, 0, 1);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 300 * SPAN, 1, &sp,
				  &r[1].waiter),
			 0);
	index_hold(&f.index, false);
	assert_int_equal(reader_await(&r[1]), 0);
	index_await(&f.index, 3);
	pthread_mutex_lock(&f.index.lock);
	assert_int_equal(f.index.last, 1);
	pthread_mutex_unlock(&f.index.lock);
	assert_int_equal(reader_await(&r[0]), 0);
	end(&f);
}

static void test_pool__ahead_stops_where_the_stream_ends(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f, 16, 1);
	ahead(f.pool, &f.source, (uint64_t)(SPANS - 2) * SPAN, 8);
	index_await(&f.index, 1);
	ahead(f.pool, &f.source, (uint64_t)SPANS * SPAN - 1, 8);
	ahead(f.pool, &f.source, (uint64_t)SPANS * SPAN, 8);
	fetch(f.pool, &f.source, 1, 0);
	fetch(f.pool, &f.source, 1, (uint64_t)(SPANS - 1) * SPAN);
	assert_int_equal(index_total(&f.index), 2);
	end(&f);
}

struct closer {
	struct fixture *f;
	pthread_t thread;
};

static void *close_source(void *arg)
{
	struct closer *c = arg;

	pool_source_close(c->f->pool, &c->f->source);
	return NULL;
}

static void test_pool__closing_a_source_drops_what_it_had(void **state)
{
	struct pool_source other;
	struct checkpoints index;
	struct pool_stats st;
	struct fixture f;

	(void)state;
	begin(&f, 8, 2);
	index_init(&index);
	other = (struct pool_source){.index = &index, .fd = -1};
	fetch(f.pool, &f.source, 1, 0);
	fetch(f.pool, &other, 1, 0);
	pool_source_close(f.pool, &f.source);
	do {
		sched_yield();
		pool_stats(f.pool, &st);
	} while (st.used > 1);
	assert_int_equal(st.used, 1);
	fetch(f.pool, &other, 1, 0);
	assert_int_equal(index_total(&index), 1);
	fetch(f.pool, &f.source, 1, 0);
	assert_int_equal(index_total(&f.index), 2);
	pool_source_close(f.pool, &other);
	end(&f);
}

static void test_pool__closing_waits_for_a_decode_under_way(void **state)
{
	struct closer c;
	struct fixture f;

	(void)state;
	begin(&f, 8, 2);
	index_hold(&f.index, true);
	ahead(f.pool, &f.source, 0, 1);
	index_await(&f.index, 1);
	c.f = &f;
	assert_int_equal(pthread_create(&c.thread, NULL, close_source, &c), 0);
	index_hold(&f.index, false);
	pthread_join(c.thread, NULL);
	assert_int_equal(f.index.busy, 0);
	end(&f);
}

/* ---- spans decoded in part: of the true length ---- */

enum { PIECE = CHECKPOINTS_PIECE, WHOLE = CHECKPOINTS_SPAN };

static void begin_whole(struct fixture *f, unsigned int slots,
			unsigned int workers)
{
	begin(f, slots, workers);
	f->index.span = WHOLE;
}

static void index_allow(struct checkpoints *cp, unsigned int steps)
{
	pthread_mutex_lock(&cp->lock);
	cp->allowed = steps;
	pthread_cond_broadcast(&cp->changed);
	pthread_mutex_unlock(&cp->lock);
}

/* Waits until @n steps have begun. */
static void index_await_steps(struct checkpoints *cp, unsigned int n)
{
	pthread_mutex_lock(&cp->lock);
	while (cp->steps < n)
		pthread_cond_wait(&cp->changed, &cp->lock);
	pthread_mutex_unlock(&cp->lock);
}

/* Pins [off, off + want), which lies in one span, and compares it. */
static struct pool_span get_part(struct fixture *f, uint64_t off, size_t want)
{
	struct pool_span sp;
	struct reader r;
	int ret;

	reader_init(&r);
	while ((ret = pool_get(f->pool, &f->source, 1, off, want, &sp,
			       &r.waiter)) == 0)
		assert_int_equal(reader_await(&r), 0);
	assert_int_equal(ret, 1);
	assert_int_equal(sp.start, off / WHOLE * WHOLE);
	assert_int_equal(sp.len, WHOLE);
	assert_true(sp.start + sp.there >= off + want);
	for (size_t i = 0; i < sp.there; i++)
		assert_int_equal(sp.data[i], byte_of(1, off / WHOLE));
	return sp;
}

static void read_part_as(struct fixture *f, uint64_t off, size_t want,
			 enum access_kind kind)
{
	struct pool_span sp = get_part(f, off, want);

	pool_give(f->pool, &sp, want, kind);
}

static void read_part(struct fixture *f, uint64_t off, size_t want)
{
	read_part_as(f, off, want, ACCESS_RANDOM);
}

static void test_pool__decodes_no_further_than_the_piece_wanted(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, 100000, 4096);
	assert_int_equal(index_get(&f.index, &f.index.bytes), 2 * PIECE);
	/* What comes before, and the rest of the piece, is there. */
	read_part(&f, 0, 4096);
	read_part(&f, 2 * PIECE - 1, 1);
	assert_int_equal(index_get(&f.index, &f.index.bytes), 2 * PIECE);
	/* What comes after is decoded from there on. */
	read_part(&f, 5 * PIECE, 1);
	assert_int_equal(index_get(&f.index, &f.index.bytes), 6 * PIECE);
	read_part(&f, WHOLE - 1, 1);
	assert_int_equal(index_get(&f.index, &f.index.bytes), WHOLE);
	assert_int_equal(f.index.count[0], 1);
	end(&f);
}

static void test_pool__leaves_no_rest_too_small_for_its_state(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, WHOLE - 2 * PIECE + 1, 1);
	read_part(&f, WHOLE - 1, 1);
	assert_int_equal(index_get(&f.index, &f.index.bytes), WHOLE);
	assert_int_equal(f.index.count[0], 1);
	end(&f);
}

static void
test_pool__a_pinned_beginning_stays_while_the_rest_comes(void **state)
{
	struct pool_span sp;
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	sp = get_part(&f, 0, 1);
	assert_int_equal(sp.there, PIECE);
	read_part(&f, WHOLE - 1, 1);
	for (size_t i = 0; i < PIECE; i++)
		assert_int_equal(sp.data[i], byte_of(1, 0));
	pool_put(f.pool, &sp);
	end(&f);
}

static void test_pool__who_wants_less_is_served_first(void **state)
{
	struct reader first, little, much;
	struct pool_span sp;
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	index_hold(&f.index, true);
	reader_init(&first);
	reader_init(&much);
	reader_init(&little);
	/* Keeps the worker from a step as long as the first of them wants. */
	assert_int_equal(pool_get(f.pool, &f.source, 1, 9 * WHOLE, 1, &sp,
				  &first.waiter),
			 0);
	index_await_steps(&f.index, 1);
	assert_int_equal(
		pool_get(f.pool, &f.source, 1, 0, WHOLE, &sp, &much.waiter), 0);
	assert_int_equal(
		pool_get(f.pool, &f.source, 1, 0, 1, &sp, &little.waiter), 0);
	index_allow(&f.index, 2);
	assert_int_equal(reader_await(&first), 0);
	assert_int_equal(reader_await(&little), 0);
	index_await_steps(&f.index, 3);
	assert_int_equal(reader_calls(&much), 0);
	/* And what is there can be had while the worker is at the rest. */
	assert_int_equal(pool_get(f.pool, &f.source, 1, 0, PIECE, &sp, NULL),
			 1);
	pool_put(f.pool, &sp);
	index_hold(&f.index, false);
	assert_int_equal(reader_await(&much), 0);
	assert_int_equal(index_get(&f.index, &f.index.bytes), WHOLE + PIECE);
	end(&f);
}

static void test_pool__ahead_gives_way_to_who_waits(void **state)
{
	const struct access_guess guess = {.kind = ACCESS_FORWARD};
	struct pool_span sp;
	struct fixture f;
	struct reader r;

	(void)state;
	begin_whole(&f, 8, 1);
	index_hold(&f.index, true);
	pool_ahead(f.pool, &f.source, 1, &f, &guess, 4);
	index_await_steps(&f.index, 1);
	reader_init(&r);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 9 * WHOLE, 1, &sp,
				  &r.waiter),
			 0);
	/* The step under way ends, and the reader's comes before the next span
	 * that is only ahead. */
	index_allow(&f.index, 1);
	index_await_steps(&f.index, 2);
	assert_int_equal(index_get(&f.index, &f.index.last), 9);
	index_hold(&f.index, false);
	assert_int_equal(reader_await(&r), 0);
	/* What was begun is not begun again. */
	read_part(&f, WHOLE - 1, 1);
	assert_int_equal(f.index.count[0], 1);
	end(&f);
}

static void test_pool__ahead_ends_what_was_begun(void **state)
{
	const struct access_guess guess = {
		.kind = ACCESS_FORWARD,
		.off = 3 * PIECE,
	};
	struct fixture f;

	(void)state;
	begin_whole(&f, 8, 1);
	read_part(&f, 0, 3 * PIECE);
	pool_ahead(f.pool, &f.source, 1, &f, &guess, 2);
	index_await(&f.index, 2);
	read_part(&f, WHOLE, WHOLE);
	assert_int_equal(index_get(&f.index, &f.index.bytes), 2 * WHOLE);
	assert_int_equal(f.index.count[0], 1);
	end(&f);
}

static void test_pool__ahead_of_a_stride_decodes_what_it_touches(void **state)
{
	const struct access_guess guess = {
		.kind = ACCESS_STRIDED,
		.off = 4 * WHOLE + PIECE,
		.len = 4096,
		.stride = 4 * WHOLE,
	};
	struct fixture f;

	(void)state;
	begin_whole(&f, 16, 1);
	pool_ahead(f.pool, &f.source, 1, &f, &guess, 2);
	index_await(&f.index, 2);
	read_part(&f, 4 * WHOLE + PIECE, 4096);
	read_part(&f, 8 * WHOLE + PIECE, 4096);
	assert_int_equal(index_get(&f.index, &f.index.bytes), 4 * PIECE);
	end(&f);
}

static void test_pool__ahead_goes_backward_too(void **state)
{
	const struct access_guess guess = {
		.kind = ACCESS_BACKWARD,
		.off = 2 * WHOLE,
	};
	struct fixture f;

	(void)state;
	begin_whole(&f, 8, 1);
	pool_ahead(f.pool, &f.source, 1, &f, &guess, 5);
	index_await(&f.index, 2);
	read_part(&f, 0, WHOLE);
	read_part(&f, WHOLE, WHOLE);
	assert_int_equal(f.index.count[0], 1);
	assert_int_equal(f.index.count[1], 1);
	assert_int_equal(index_get(&f.index, &f.index.bytes), 2 * WHOLE);
	end(&f);
}

static void test_pool__who_leaves_wants_nothing_more(void **state)
{
	const struct access_guess guess = {
		.kind = ACCESS_FORWARD,
		.off = 10 * WHOLE,
	};
	struct pool_span sp;
	struct fixture f;
	struct reader r;

	(void)state;
	begin_whole(&f, 8, 1);
	index_hold(&f.index, true);
	reader_init(&r);
	assert_int_equal(pool_get(f.pool, &f.source, 1, 0, 1, &sp, &r.waiter),
			 0);
	index_await_steps(&f.index, 1);
	pool_ahead(f.pool, &f.source, 1, &f, &guess, 5);
	pool_leave(f.pool, &f);
	index_hold(&f.index, false);
	assert_int_equal(reader_await(&r), 0);
	read_part(&f, 5 * WHOLE, 1);
	assert_int_equal(index_get(&f.index, &f.index.bytes), 2 * PIECE);
	end(&f);
}

static void test_pool__what_was_given_out_whole_goes_first(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, 0, WHOLE / 2);
	read_part(&f, WHOLE, WHOLE / 2);
	read_part(&f, WHOLE + WHOLE / 2, WHOLE / 2);
	read_part(&f, 2 * WHOLE, WHOLE / 2);
	/* An empty slot is left, and span 0 was used longest ago. */
	read_part(&f, 3 * WHOLE, WHOLE);
	read_part(&f, 0, WHOLE / 2);
	read_part(&f, 2 * WHOLE, WHOLE / 2);
	assert_int_equal(index_total(&f.index), 4);
	read_part(&f, WHOLE, 1);
	assert_int_equal(f.index.count[1], 2);
	end(&f);
}

/* Many readers of parts of a file come into the middle of a span each, whose
 * beginning nobody reads any more. */
static void test_pool__what_a_reader_came_into_and_passed_goes(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, 2 * WHOLE, WHOLE / 2);
	read_part(&f, 3 * WHOLE, WHOLE / 2);
	read_part(&f, WHOLE / 2, WHOLE / 4);
	read_part(&f, WHOLE / 2 + WHOLE / 4, WHOLE / 4);
	read_part(&f, WHOLE, WHOLE / 4);
	read_part(&f, WHOLE + WHOLE / 4, WHOLE / 4);
	/* In the place of span 0, though others were used longer ago. */
	read_part(&f, 4 * WHOLE, WHOLE / 2);
	for (unsigned int i = 1; i < 4; i++)
		read_part(&f, i * WHOLE + WHOLE / 2, 1);
	assert_int_equal(index_total(&f.index), 5);
	read_part(&f, 0, 1);
	assert_int_equal(f.index.count[0], 2);
	end(&f);
}

/* The kernel has lost what the first had of it. */
static void test_pool__a_second_reader_after_one_who_passed(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, WHOLE / 4, WHOLE - WHOLE / 4);
	read_part(&f, WHOLE, WHOLE / 4);
	read_part(&f, WHOLE + WHOLE / 4, WHOLE / 4);
	read_part(&f, 2 * WHOLE, WHOLE / 2);
	read_part(&f, 3 * WHOLE, WHOLE / 2);
	/* With what the first was given, that would be all of it. */
	read_part(&f, WHOLE / 4, WHOLE / 4);
	/* In the place of span 1, which was used longest ago. */
	read_part(&f, 4 * WHOLE, WHOLE / 2);
	read_part(&f, WHOLE / 2, WHOLE / 4);
	assert_int_equal(index_total(&f.index), 5);
	end(&f);
}

/* One who goes forward, by requests larger than a span: the end of one that it
 * came into, the next, and some of the one after it. */
static void test_pool__large_requests_pass_where_they_go_forward(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, 3 * WHOLE, WHOLE / 2);
	read_part_as(&f, WHOLE / 2, WHOLE / 2, ACCESS_FORWARD);
	read_part_as(&f, WHOLE, WHOLE, ACCESS_FORWARD);
	read_part_as(&f, 2 * WHOLE, WHOLE / 4, ACCESS_FORWARD);
	read_part(&f, 4 * WHOLE, WHOLE / 2); /* in the place of 1, spent */
	read_part(&f, 5 * WHOLE, WHOLE / 2); /* of 0 */
	read_part(&f, 2 * WHOLE + WHOLE / 4, 1);
	read_part(&f, 3 * WHOLE + WHOLE / 2, 1);
	assert_int_equal(index_total(&f.index), 6);
	end(&f);
}

/* Where somebody else has the span in hand, too. */
static void test_pool__no_one_is_passed_who_is_still_there(void **state)
{
	struct pool_span at;
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, 2 * WHOLE, WHOLE / 2);
	read_part(&f, 3 * WHOLE, WHOLE / 2);
	read_part(&f, WHOLE / 2, WHOLE / 2);
	at = get_part(&f, 0, WHOLE / 4);
	read_part(&f, WHOLE, WHOLE / 4);
	read_part(&f, WHOLE + WHOLE / 4, WHOLE / 4);
	pool_give(f.pool, &at, WHOLE / 4, ACCESS_RANDOM);
	/* In the place of span 2, which was used longest ago. */
	read_part(&f, 4 * WHOLE, WHOLE / 2);
	read_part(&f, WHOLE / 4, 1);
	assert_int_equal(index_total(&f.index), 5);
	end(&f);
}

static void test_pool__one_behind_who_passes_keeps_the_span(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, 2 * WHOLE, WHOLE / 2);
	read_part(&f, 3 * WHOLE, WHOLE / 2);
	read_part(&f, WHOLE / 2, WHOLE / 4);
	read_part(&f, 0, WHOLE / 4); /* the one behind */
	read_part(&f, WHOLE / 2 + WHOLE / 4, WHOLE / 4);
	read_part(&f, WHOLE, WHOLE / 4);
	read_part(&f, WHOLE + WHOLE / 4, WHOLE / 4);
	/* In the place of span 2, which was used longest ago. */
	read_part(&f, 4 * WHOLE, WHOLE / 2);
	read_part(&f, WHOLE / 4, WHOLE / 4);
	assert_int_equal(index_total(&f.index), 5);
	end(&f);
}

static void test_pool__one_read_across_a_border_has_not_passed(void **state)
{
	struct fixture f;

	(void)state;
	begin_whole(&f, 4, 1);
	read_part(&f, 2 * WHOLE, WHOLE / 2);
	read_part(&f, 3 * WHOLE, WHOLE / 2);
	read_part(&f, WHOLE - WHOLE / 4, WHOLE / 4);
	read_part(&f, WHOLE, WHOLE / 4);
	/* In the place of span 2, which was used longest ago. */
	read_part(&f, 4 * WHOLE, WHOLE / 2);
	read_part(&f, 0, 1);
	read_part(&f, WHOLE, 1);
	read_part(&f, 3 * WHOLE, 1);
	assert_int_equal(index_total(&f.index), 5);
	end(&f);
}

/* A pool with no slot that is empty or spent: spans of the far end are in all
 * of them. */
static void begin_used(struct fixture *f, unsigned int slots)
{
	begin_whole(f, slots, 1);
	for (unsigned int i = 0; i < slots; i++)
		read_part(f, (400 + i) * WHOLE, WHOLE / 2);
}

/* Each of @n readers reads quarter @quarter of a span: of @first, @first + 10,
 * and so on. */
static void read_quarters(struct fixture *f, unsigned int first, unsigned int n,
			  uint64_t quarter)
{
	for (uint64_t i = 0; i < n; i++)
		read_part(f, (first + 10 * i) * WHOLE + quarter * (WHOLE / 4),
			  WHOLE / 4);
}

/* All of a span from where a reader came in up to its end: that is the first
 * thing that a backward reader wants of it. */
static void test_pool__who_reads_backward_has_not_passed(void **state)
{
	struct fixture f;

	(void)state;
	begin_used(&f, 16);
	for (unsigned int span = 5; span-- > 0;)
		for (unsigned int quarter = 4; quarter-- > 0;)
			read_quarters(&f, span, 8, quarter);
	assert_int_equal(index_total(&f.index), 16 + 8 * 5);
	end(&f);
}

/* The same in requests larger than a span, of which they never hold the border:
 * in each the end of one, the next, and some of the one after it. */
static void test_pool__nor_has_one_with_large_requests(void **state)
{
	const uint64_t aside = WHOLE / 8;
	struct fixture f;

	(void)state;
	begin_used(&f, 16);
	for (uint64_t span = 8; span > 0; span -= 2) {
		for (uint64_t i = 0; i < 4; i++) {
			const uint64_t first = 40 * i + span - 2;

			read_part_as(&f, first * WHOLE + WHOLE - aside, aside,
				     ACCESS_BACKWARD);
			read_part_as(&f, (first + 1) * WHOLE, WHOLE,
				     ACCESS_BACKWARD);
			read_part_as(&f, (first + 2) * WHOLE, WHOLE - aside,
				     ACCESS_BACKWARD);
		}
	}
	/* 0 to 8 of each. */
	assert_int_equal(index_total(&f.index), 16 + 4 * 9);
	end(&f);
}

static void test_pool__a_failure_later_in_a_span_drops_it(void **state)
{
	struct pool_span sp, pinned;
	struct fixture f;
	struct reader r;

	(void)state;
	begin_whole(&f, 4, 1);
	pinned = get_part(&f, 0, 1);
	f.index.err = -EBADMSG;
	reader_init(&r);
	assert_int_equal(
		pool_get(f.pool, &f.source, 1, PIECE, 1, &sp, &r.waiter), 0);
	assert_int_equal(reader_await(&r), -EBADMSG);
	assert_int_equal(pinned.data[0], byte_of(1, 0));
	pool_put(f.pool, &pinned);
	pthread_mutex_lock(&f.index.lock);
	f.index.err = 0;
	pthread_mutex_unlock(&f.index.lock);
	read_part(&f, PIECE, 1);
	assert_int_equal(f.index.count[0], 2);
	end(&f);
}

/* ---- many threads ---- */

struct load {
	struct fixture *f;
	uint64_t seed;
	pthread_t thread;
};

static void *run_load(void *arg)
{
	struct load *l = arg;

	for (int i = 0; i < 3000; i++) {
		uint64_t r = archives_random(&l->seed);
		uint64_t off = r % 40 * SPAN;
		struct pool_span sp;

		if (r >> 40 & 1)
			ahead(l->f->pool, &l->f->source, off, 3);
		if (r >> 41 & 1) {
			struct reader w;
			int ret;

			reader_init(&w);
			ret = pool_get(l->f->pool, &l->f->source, 1, off, 1,
				       &sp, &w.waiter);
			if (ret == 1)
				pool_put(l->f->pool, &sp);
			else if (!pool_cancel(l->f->pool, &w.waiter))
				reader_await(&w);
			continue;
		}
		fetch(l->f->pool, &l->f->source, 1, off);
	}
	return NULL;
}

static void test_pool__many_threads_get_right_bytes(void **state)
{
	struct load l[8];
	struct pool_stats st;
	struct fixture f;

	(void)state;
	begin(&f, 6, 3);
	for (unsigned int i = 0; i < 8; i++) {
		l[i].f = &f;
		l[i].seed = i;
		assert_int_equal(
			pthread_create(&l[i].thread, NULL, run_load, &l[i]), 0);
	}
	for (unsigned int i = 0; i < 8; i++)
		pthread_join(l[i].thread, NULL);
	pool_stats(f.pool, &st);
	assert_int_equal(st.slots, 6);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool__a_span_is_decoded_once),
		cmocka_unit_test(test_pool__many_who_wait_for_a_span_share_it),
		cmocka_unit_test(test_pool__what_can_not_be_asked_for),
		cmocka_unit_test(
			test_pool__failure_reaches_all_and_is_forgotten),
		cmocka_unit_test(test_pool__memory_goes_back_after_a_while),
		cmocka_unit_test(test_pool__looking_begins_nothing),
		cmocka_unit_test(test_pool__without_a_waiter_it_never_waits),
		cmocka_unit_test(
			test_pool__when_all_is_pinned_the_first_to_ask_is_first),
		cmocka_unit_test(
			test_pool__ready_gets_its_span_however_tight_it_is),
		cmocka_unit_test(test_pool__a_cancelled_waiter_is_not_called),
		cmocka_unit_test(
			test_pool__cancelling_leaves_others_their_place),
		cmocka_unit_test(test_pool__the_least_recently_used_span_goes),
		cmocka_unit_test(
			test_pool__decodes_ahead_but_never_the_whole_pool),
		cmocka_unit_test(test_pool__a_newer_wish_replaces_the_older),
		cmocka_unit_test(test_pool__who_waits_comes_before_ahead),
		cmocka_unit_test(test_pool__ahead_stops_where_the_stream_ends),
		cmocka_unit_test(test_pool__closing_a_source_drops_what_it_had),
		cmocka_unit_test(
			test_pool__closing_waits_for_a_decode_under_way),
		cmocka_unit_test(
			test_pool__decodes_no_further_than_the_piece_wanted),
		cmocka_unit_test(
			test_pool__leaves_no_rest_too_small_for_its_state),
		cmocka_unit_test(
			test_pool__a_pinned_beginning_stays_while_the_rest_comes),
		cmocka_unit_test(test_pool__who_wants_less_is_served_first),
		cmocka_unit_test(test_pool__ahead_gives_way_to_who_waits),
		cmocka_unit_test(test_pool__ahead_ends_what_was_begun),
		cmocka_unit_test(
			test_pool__ahead_of_a_stride_decodes_what_it_touches),
		cmocka_unit_test(test_pool__ahead_goes_backward_too),
		cmocka_unit_test(test_pool__who_leaves_wants_nothing_more),
		cmocka_unit_test(
			test_pool__what_was_given_out_whole_goes_first),
		cmocka_unit_test(
			test_pool__what_a_reader_came_into_and_passed_goes),
		cmocka_unit_test(
			test_pool__a_second_reader_after_one_who_passed),
		cmocka_unit_test(
			test_pool__one_behind_who_passes_keeps_the_span),
		cmocka_unit_test(
			test_pool__one_read_across_a_border_has_not_passed),
		cmocka_unit_test(test_pool__who_reads_backward_has_not_passed),
		cmocka_unit_test(test_pool__nor_has_one_with_large_requests),
		cmocka_unit_test(
			test_pool__large_requests_pass_where_they_go_forward),
		cmocka_unit_test(
			test_pool__no_one_is_passed_who_is_still_there),
		cmocka_unit_test(test_pool__a_failure_later_in_a_span_drops_it),
		cmocka_unit_test(test_pool__many_threads_get_right_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * pool - decoded spans of all streams under one byte limit, decoded by worker
 * threads when asked for and a little ahead of readers that go a steady way.
 *
 * The pool is one arena of slots of CHECKPOINTS_SPAN bytes. A slot is empty,
 * being filled, ready, or failed; a slot with references is never dropped.
 * Whose bytes were all given out goes first; then one into which a reader came
 * and which it has left behind; then who was not used longest.
 * When every slot is referenced or being filled, asking waits its turn (first
 * come, first served): memory never grows.
 *
 * A span is decoded from its beginning, and for a reader that wants a little of
 * it no further than the piece in which that ends; what is asked for beyond is
 * decoded from there on. So no byte is decoded twice while the pool holds it.
 */
#ifndef CACHE_POOL_H
#define CACHE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/access.h"
#include "cache/checkpoints.h"

struct pool;

/*
 * Something spans can be decoded from. Embedded by its owner, who keeps it
 * alive until pool_source_close() returned.
 */
struct pool_source {
	const struct checkpoints *index;
	int fd;
};

/* A pinned span, or the beginning of one. */
struct pool_span {
	const unsigned char *data;
	uint64_t start; /* offset of data[0] in the stream */
	size_t len;	/* of the whole span */
	size_t there;	/* bytes of it that are decoded */
	size_t at;	/* what was asked for begins at data[at] */
	void *slot;	/* the pool's own */
};

/* Who waits for a span; embedded by the caller, alive until @ready ran or
 * pool_cancel() returned true. The caller sets ready only. */
struct pool_waiter {
	/*
	 * Runs on a pool thread, once, no lock held: what was asked for is
	 * decoded (err 0: call pool_get() again, which may have to wait again)
	 * or can't be (err as from checkpoints_decode()). A span stays until
	 * @ready has returned, so a pool_get() from inside it gets it for
	 * certain. It may free @w. Others may wait for this thread.
	 */
	void (*ready)(struct pool_waiter *w, int err);
	struct {
		struct pool_waiter *next, *prev;
		struct pool_waiters *list; /* NULL: in none */
		struct pool_source *source;
		unsigned int stream;
		uint64_t span, start;
		size_t len, need;
	} priv; /* the pool's own */
};

/*
 * @memory_bytes: of the arena; at least 4 slots are made. @workers: threads,
 * at least 1; each takes a decoder's memory beside the arena. Threads block all
 * signals. Returns 0, -ENOMEM, -EAGAIN.
 */
int pool_create(struct pool **out, size_t memory_bytes, unsigned int workers);
/* There must be no waiter and no pinned span left. */
void pool_free(struct pool *p);

/*
 * pool_get() - the span of @stream that holds @off, decoded up to @off + @want
 * or to its end.
 * @want: at least 1
 * Returns 1 with *out pinned (pool_put() or _give() it), 0 if @w will be
 * called, or a negative errno: -ENOENT and -EOPNOTSUPP as
 * checkpoints_stream_size(), -EINVAL where @off is not below the stream's size.
 * With @w NULL never waits: -EAGAIN instead of 0, and the span is being decoded
 * if there was a slot for it. Never blocks on decode or disk.
 */
int pool_get(struct pool *p, struct pool_source *s, unsigned int stream,
	     uint64_t off, size_t want, struct pool_span *out,
	     struct pool_waiter *w);
/* The same where it is there, and pool_get() would decode nothing; else
 * -EAGAIN, and nothing is begun. */
int pool_look(struct pool *p, struct pool_source *s, unsigned int stream,
	      uint64_t off, size_t want, struct pool_span *out);
/* Lets go of a pinned span. */
void pool_put(struct pool *p, struct pool_span *span);
/*
 * pool_give() - the same after @n bytes of it, from what was asked for on, were
 * handed to a reader, of whom access_note() says @kind. Once they come to all
 * of the span, its slot is the first to be used for another. Where they are all
 * from where the first of them were to its end, and one who goes forward is in
 * the span after it, it is used before what readers are in the middle of.
 * @n: at least 1
 */
void pool_give(struct pool *p, struct pool_span *span, size_t n,
	       enum access_kind kind);

/* True: @w will not be called any more, and what nobody else waits for is given
 * up if it has not begun. False: it was or is being called. */
bool pool_cancel(struct pool *p, struct pool_waiter *w);

/*
 * pool_ahead() - the reader @handle of @stream will soon want @spans spans as
 * @guess says, which is not ACCESS_RANDOM. Taken as a hint: only spent, empty
 * or idle slots are used, and never the whole pool. Replaces what the same run
 * of the same handle (any address, not NULL) wanted before.
 */
void pool_ahead(struct pool *p, struct pool_source *s, unsigned int stream,
		const void *handle, const struct access_guess *guess,
		unsigned int spans);
/* @handle wants nothing more. */
void pool_leave(struct pool *p, const void *handle);

/* Drops every span of @s, but for what a worker is just telling somebody of;
 * waits for a decode of it that is running. There must be no pinned span and no
 * waiter of it left. May be called from a waiter's ready(). What is not used
 * for another soon goes back to the system after two seconds. */
void pool_source_close(struct pool *p, struct pool_source *s);

/* Would that take no more than a moment: nothing of @s is being decoded, and at
 * most one span of it is there? */
bool pool_source_closes_at_once(struct pool *p, const struct pool_source *s);

struct pool_stats {
	unsigned int workers;
	size_t slots, used, pinned;
	uint64_t hits;	  /* spans asked for and there */
	uint64_t decodes; /* spans begun, those ahead included */
	uint64_t bytes;	  /* decoded */
	uint64_t ahead;	  /* begun or gone on with ahead */
	uint64_t waits;	  /* for a slot, all being pinned or filled */
};
void pool_stats(struct pool *p, struct pool_stats *out);

#endif

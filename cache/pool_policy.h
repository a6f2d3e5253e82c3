/*
 * pool_policy - which slot of the pool is filled next, and what is decoded
 * ahead. Pure: handed the slots and what was asked for, answers with an index.
 */
#ifndef CACHE_POOL_POLICY_H
#define CACHE_POOL_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/access.h"

enum pool_slot_state {
	POOL_SLOT_EMPTY,
	POOL_SLOT_FILLING, /* queued, being decoded, or failed */
	POOL_SLOT_READY,   /* as much of it as was wanted */
};

/* What matters of a slot. */
struct pool_slot_view {
	enum pool_slot_state state;
	unsigned int refs;
	bool ahead; /* assigned by read-ahead, and not asked for yet */
	bool spent; /* all of it was given out: the kernel has it */
	/* All from where a reader came in, and one is in the span after it. */
	bool passed;
	uint64_t last_use; /* by a clock that counts assignments and uses */
	uint64_t born;	   /* by one that counts assignments alone */
};

/*
 * pool_policy_demand() - the slot for a span that somebody waits for: a spent
 * one, which is likely still in the processor's cache, an empty one, one that
 * was passed, or else the least recently used idle one. -1 if there is none.
 * @clock: of uses
 */
ptrdiff_t pool_policy_demand(const struct pool_slot_view *v, size_t n,
			     uint64_t clock);

/*
 * pool_policy_ahead() - the slot for a span that a reader may want: a spent,
 * empty, passed or long unused one, but never one that was decoded ahead and
 * may still be wanted. Such spans may hold half of the slots, less one for each
 * further reader, who is in the middle of a span: so many readers, with few
 * slots, do not push out each other's by guesses. What was not asked for while
 * 4 * @n spans were assigned after it is not wanted any more.
 * @readers: of whom pool_readahead_readers() knows
 * @clock: of uses; @now: of the clock of assignments
 */
ptrdiff_t pool_policy_ahead(const struct pool_slot_view *v, size_t n,
			    size_t readers, uint64_t clock, uint64_t now);

/* ---- what to decode ahead ---- */

enum { READAHEAD_WISHES = 64 };

/* The newest wish of each of the readers that wished last, served in turn. */
struct readahead {
	struct pool_wish {
		void *source;
		const void *handle; /* with guess.run: the reader */
		unsigned int stream;
		unsigned int spans; /* left to decode; 0: no wish */
		struct access_guess guess;
		uint64_t since; /* order of wishes */
	} wishes[READAHEAD_WISHES];
	size_t turn;
	uint64_t clock;
};

/* Replaces what the same reader wished for; beyond READAHEAD_WISHES, the oldest
 * wish. Returns the wish. */
struct pool_wish *pool_readahead_wish(struct readahead *r, void *source,
				      const void *handle, unsigned int stream,
				      const struct access_guess *guess,
				      unsigned int spans);
/* Of how many readers a wish is among the last ones. */
size_t pool_readahead_readers(const struct readahead *r);
/* The wish whose turn it is, or NULL. */
struct pool_wish *pool_readahead_next(struct readahead *r);

/*
 * pool_readahead_place() - an offset in the span that @w wants next.
 * @size: of the stream
 * False, and no wish is left, where that is outside the stream.
 */
bool pool_readahead_place(struct pool_wish *w, uint64_t size, uint64_t *off);
/* How many bytes of that span, which is at [@start, @start + @len). */
size_t pool_readahead_need(const struct pool_wish *w, uint64_t start,
			   size_t len);
/* That span is done or needs not be done. */
void pool_readahead_advance(struct pool_wish *w, uint64_t start, size_t len);

/* Forgets what was wished for of @source, or by @handle. */
void pool_readahead_drop(struct readahead *r, void *source);
void pool_readahead_leave(struct readahead *r, const void *handle);

#endif

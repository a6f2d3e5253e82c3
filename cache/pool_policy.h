/*
 * pool_policy - which slot of the pool is filled next, and what is decoded
 * ahead. Pure: handed the slots and what was asked for, answers with an index.
 */
#ifndef CACHE_POOL_POLICY_H
#define CACHE_POOL_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pool_slot_state {
	POOL_SLOT_EMPTY,
	POOL_SLOT_FILLING, /* assigned: queued, being decoded, or failed */
	POOL_SLOT_READY,
};

/* What matters of a slot. */
struct pool_slot_view {
	enum pool_slot_state state;
	unsigned int refs;
	bool ahead;	   /* assigned by read-ahead, and not asked for yet */
	uint64_t last_use; /* by a clock that counts assignments and uses */
	uint64_t born;	   /* by one that counts assignments alone */
};

/*
 * pool_policy_demand() - the slot for a span that somebody waits for: an empty
 * one, or else the least recently used idle one. -1 if there is none.
 */
ptrdiff_t pool_policy_demand(const struct pool_slot_view *v, size_t n);

/*
 * pool_policy_ahead() - the slot for a span that a reader may want: the same,
 * but never one that was decoded ahead and may still be wanted, and none at
 * all while half of the slots hold such spans. What was not asked for while
 * 4 * @n spans were assigned after it is not wanted any more.
 * @now: of the clock of assignments
 */
ptrdiff_t pool_policy_ahead(const struct pool_slot_view *v, size_t n,
			    uint64_t now);

/* ---- what to decode ahead ---- */

enum { READAHEAD_STREAMS = 64 };

/* The newest wish of each of the streams that were wished for last, served in
 * turn. */
struct readahead {
	struct pool_readahead_wish {
		void *source;
		unsigned int stream;
		unsigned int spans; /* left to decode; 0: no wish */
		uint64_t off;	    /* in the next of them */
		uint64_t since;	    /* order of wishes */
	} wishes[READAHEAD_STREAMS];
	size_t turn;
	uint64_t clock;
};

/* Replaces what was wished for the same stream; beyond READAHEAD_STREAMS, the
 * oldest wish. @spans 0 takes it back. */
void pool_readahead_wish(struct readahead *r, void *source, unsigned int stream,
			 uint64_t off, unsigned int spans);
/* The wish whose turn it is, or NULL. */
struct pool_readahead_wish *pool_readahead_next(struct readahead *r);
/* One span of it is done or needs not be done; @off is in the next one. */
void pool_readahead_advance(struct pool_readahead_wish *w, uint64_t off);
/* Forgets @source. */
void pool_readahead_drop(struct readahead *r, void *source);

#endif

#include "cache/pool_policy.h"

#include <string.h>

/* A reader that made none of so many was overtaken by each other one of them
 * four times: it has stopped. */
enum { RECENT_WISHES = 4 * READAHEAD_WISHES };

static bool idle(const struct pool_slot_view *v)
{
	return v->state == POOL_SLOT_READY && v->refs == 0;
}

/* The order in which slots are taken, the smaller first. */
enum rank { SPENT, EMPTY, PASSED, FORGOTTEN, IN_USE };

static enum rank rank(const struct pool_slot_view *v, size_t n, uint64_t clock)
{
	if (v->state == POOL_SLOT_EMPTY)
		return EMPTY;
	if (v->spent)
		return SPENT;
	if (v->passed)
		return PASSED;
	return clock - v->last_use > 4 * n ? FORGOTTEN : IN_USE;
}

/* Is @a to be taken before @b? */
static bool before(const struct pool_slot_view *a,
		   const struct pool_slot_view *b, size_t n, uint64_t clock)
{
	enum rank x = rank(a, n, clock), y = rank(b, n, clock);

	if (x != y)
		return x < y;
	if (x == EMPTY)
		return false;
	return a->last_use < b->last_use;
}

/* The better of two candidates, @best -1 being none. */
static ptrdiff_t better(const struct pool_slot_view *v, size_t n,
			uint64_t clock, ptrdiff_t best, size_t i)
{
	if (best >= 0 && !before(&v[i], &v[best], n, clock))
		return best;
	return (ptrdiff_t)i;
}

ptrdiff_t pool_policy_demand(const struct pool_slot_view *v, size_t n,
			     uint64_t clock)
{
	ptrdiff_t best = -1;

	for (size_t i = 0; i < n; i++) {
		if (v[i].state == POOL_SLOT_EMPTY || idle(&v[i]))
			best = better(v, n, clock, best, i);
	}
	return best;
}

ptrdiff_t pool_policy_ahead(const struct pool_slot_view *v, size_t n,
			    size_t readers, uint64_t clock, uint64_t now)
{
	size_t others = readers > 1 ? readers - 1 : 0;
	size_t most = others < n / 2 ? n / 2 - others : 0, held = 0;
	ptrdiff_t best = -1;

	for (size_t i = 0; i < n; i++) {
		bool wanted = v[i].ahead && v[i].state != POOL_SLOT_EMPTY &&
			      now - v[i].born <= 4 * n;

		if (wanted)
			held++;
		else if ((v[i].state == POOL_SLOT_EMPTY || idle(&v[i])) &&
			 rank(&v[i], n, clock) < IN_USE)
			best = better(v, n, clock, best, i);
	}
	return held < most ? best : -1;
}

/* ---- what to decode ahead ---- */

/* The wish of this reader, or else a free place, or else the oldest. */
static struct pool_wish *place_of(struct readahead *r, const void *handle,
				  unsigned int run)
{
	struct pool_wish *best = &r->wishes[0];

	for (size_t i = 0; i < READAHEAD_WISHES; i++) {
		struct pool_wish *w = &r->wishes[i];

		if (w->handle == handle && w->guess.run == run)
			return w;
		if (best->spans && (!w->spans || w->since < best->since))
			best = w;
	}
	return best;
}

struct pool_wish *pool_readahead_wish(struct readahead *r, void *source,
				      const void *handle, unsigned int stream,
				      const struct access_guess *guess,
				      unsigned int spans)
{
	struct pool_wish *w = place_of(r, handle, guess->run);

	*w = (struct pool_wish){
		.source = source,
		.handle = handle,
		.stream = stream,
		.spans = spans,
		.guess = *guess,
		.since = ++r->clock,
	};
	return w;
}

size_t pool_readahead_readers(const struct readahead *r)
{
	size_t n = 0;

	for (size_t i = 0; i < READAHEAD_WISHES; i++)
		n += r->wishes[i].source &&
		     r->clock - r->wishes[i].since < RECENT_WISHES;
	return n;
}

struct pool_wish *pool_readahead_next(struct readahead *r)
{
	for (size_t i = 0; i < READAHEAD_WISHES; i++) {
		size_t at = (r->turn + i) % READAHEAD_WISHES;

		if (!r->wishes[at].spans)
			continue;
		r->turn = at + 1;
		return &r->wishes[at];
	}
	return NULL;
}

bool pool_readahead_place(struct pool_wish *w, uint64_t size, uint64_t *off)
{
	const struct access_guess *g = &w->guess;
	bool inside = g->kind == ACCESS_BACKWARD ? g->off > 0 && g->off <= size
						 : g->off < size;

	if (inside)
		*off = g->kind == ACCESS_BACKWARD ? g->off - 1 : g->off;
	else
		w->spans = 0;
	return inside;
}

size_t pool_readahead_need(const struct pool_wish *w, uint64_t start,
			   size_t len)
{
	const struct access_guess *g = &w->guess;
	size_t at;

	if (g->kind == ACCESS_FORWARD)
		return len;
	at = (size_t)(g->off - start);
	if (g->kind == ACCESS_BACKWARD)
		return at;
	return g->len < len - at ? at + g->len : len;
}

void pool_readahead_advance(struct pool_wish *w, uint64_t start, size_t len)
{
	struct access_guess *g = &w->guess;

	w->spans--;
	if (g->kind == ACCESS_FORWARD)
		g->off = start + len;
	else if (g->kind == ACCESS_BACKWARD)
		g->off = start;
	else if (g->stride < 0 && g->off < 0 - (uint64_t)g->stride)
		w->spans = 0;
	else
		g->off += (uint64_t)g->stride;
}

static void forget(struct pool_wish *w)
{
	memset(w, 0, sizeof(*w));
}

void pool_readahead_drop(struct readahead *r, void *source)
{
	for (size_t i = 0; i < READAHEAD_WISHES; i++) {
		if (r->wishes[i].source == source)
			forget(&r->wishes[i]);
	}
}

void pool_readahead_leave(struct readahead *r, const void *handle)
{
	for (size_t i = 0; i < READAHEAD_WISHES; i++) {
		if (r->wishes[i].handle == handle)
			forget(&r->wishes[i]);
	}
}

#include "cache/pool_policy.h"

#include <string.h>

static bool idle(const struct pool_slot_view *v)
{
	return v->state == POOL_SLOT_READY && v->refs == 0;
}

/* The better of two candidates, -1 being none: empty before idle, and then
 * the one used longer ago. */
static ptrdiff_t better(const struct pool_slot_view *v, ptrdiff_t a,
			ptrdiff_t b)
{
	if (a < 0)
		return b;
	if (v[a].state == POOL_SLOT_EMPTY)
		return a;
	if (v[b].state == POOL_SLOT_EMPTY)
		return b;
	return v[b].last_use < v[a].last_use ? b : a;
}

ptrdiff_t pool_policy_demand(const struct pool_slot_view *v, size_t n)
{
	ptrdiff_t best = -1;

	for (size_t i = 0; i < n; i++) {
		if (v[i].state == POOL_SLOT_EMPTY || idle(&v[i]))
			best = better(v, best, (ptrdiff_t)i);
	}
	return best;
}

ptrdiff_t pool_policy_ahead(const struct pool_slot_view *v, size_t n,
			    uint64_t now)
{
	ptrdiff_t best = -1;
	size_t held = 0;

	for (size_t i = 0; i < n; i++) {
		bool wanted = v[i].ahead && v[i].state != POOL_SLOT_EMPTY &&
			      now - v[i].born <= 4 * n;

		if (wanted)
			held++;
		else if (v[i].state == POOL_SLOT_EMPTY || idle(&v[i]))
			best = better(v, best, (ptrdiff_t)i);
	}
	return held < n / 2 ? best : -1;
}

/* ---- what to decode ahead ---- */

/* The wish for this stream, or else a free place, or else the oldest. */
static struct pool_readahead_wish *place(struct readahead *r, void *source,
					 unsigned int stream)
{
	struct pool_readahead_wish *best = &r->wishes[0];

	for (size_t i = 0; i < READAHEAD_STREAMS; i++) {
		struct pool_readahead_wish *w = &r->wishes[i];

		if (w->source == source && w->stream == stream)
			return w;
		if (best->spans && (!w->spans || w->since < best->since))
			best = w;
	}
	return best;
}

void pool_readahead_wish(struct readahead *r, void *source, unsigned int stream,
			 uint64_t off, unsigned int spans)
{
	struct pool_readahead_wish *w = place(r, source, stream);

	if (!spans && (w->source != source || w->stream != stream))
		return;
	w->source = source;
	w->stream = stream;
	w->off = off;
	w->spans = spans;
	w->since = ++r->clock;
}

struct pool_readahead_wish *pool_readahead_next(struct readahead *r)
{
	for (size_t i = 0; i < READAHEAD_STREAMS; i++) {
		size_t at = (r->turn + i) % READAHEAD_STREAMS;

		if (!r->wishes[at].spans)
			continue;
		r->turn = at + 1;
		return &r->wishes[at];
	}
	return NULL;
}

void pool_readahead_advance(struct pool_readahead_wish *w, uint64_t off)
{
	w->spans--;
	w->off = off;
}

void pool_readahead_drop(struct readahead *r, void *source)
{
	for (size_t i = 0; i < READAHEAD_STREAMS; i++) {
		if (r->wishes[i].source == source)
			memset(&r->wishes[i], 0, sizeof(r->wishes[i]));
	}
}

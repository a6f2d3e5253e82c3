#include "cache/access.h"

#include <stdbool.h>

/* What is remembered of a run: enough to tell if it is still one. */
enum { WINDOW_BYTES = 4 * ACCESS_STREAK_BYTES };

static bool in_use(const struct access_run *r)
{
	return r->high > r->low;
}

/* How far a request lies from a run. */
static uint64_t gap(const struct access_run *r, uint64_t off, uint64_t end)
{
	if (off > r->high)
		return off - r->high;
	return end < r->low ? r->low - end : 0;
}

/* The run a request belongs to, or the one to give up for a new one. */
static struct access_run *find_run(struct access *a, uint64_t off, uint64_t end,
				   bool *belongs)
{
	struct access_run *nearest = NULL, *oldest = &a->runs[0];
	uint64_t near = end - off;

	if (near < ACCESS_NEAR_BYTES)
		near = ACCESS_NEAR_BYTES;
	for (struct access_run *r = a->runs; r < a->runs + ACCESS_RUNS; r++) {
		if (r->used < oldest->used)
			oldest = r;
		if (!in_use(r) || gap(r, off, end) > near)
			continue;
		if (!nearest || gap(r, off, end) < gap(nearest, off, end))
			nearest = r;
	}
	*belongs = nearest != NULL;
	return nearest ? nearest : oldest;
}

/* Forgets the far end of a long run, and the bytes asked for there. */
static void forget_far_end(struct access_run *r, bool forward)
{
	uint64_t length = r->high - r->low;

	if (length > WINDOW_BYTES) {
		r->bytes = r->bytes * (WINDOW_BYTES / 2) / length;
		if (forward)
			r->low = r->high - WINDOW_BYTES / 2;
		else
			r->high = r->low + WINDOW_BYTES / 2;
	}
	if (r->bytes > r->high - r->low)
		r->bytes = r->high - r->low;
}

static enum access_kind grow(struct access_run *r, uint64_t off, uint64_t end)
{
	bool forward = end > r->high, backward = off < r->low;

	if (forward)
		r->high = end;
	if (backward)
		r->low = off;
	r->bytes += end - off;
	forget_far_end(r, !backward);
	if (r->bytes < ACCESS_STREAK_BYTES ||
	    r->bytes < (r->high - r->low) / 8 * 7)
		return ACCESS_RANDOM;
	if (forward == backward)
		return ACCESS_RANDOM; /* it grew at neither edge, or is new */
	return forward ? ACCESS_FORWARD : ACCESS_BACKWARD;
}

static bool is_strided(struct access *a, uint64_t off, size_t len)
{
	int64_t distance = (int64_t)(off - a->last);
	uint64_t apart =
		distance < 0 ? 0 - (uint64_t)distance : (uint64_t)distance;

	a->strides = distance == a->distance ? a->strides + 1 : 1;
	a->distance = distance;
	a->last = off;
	return a->strides >= ACCESS_STRIDES && apart > len;
}

struct access_guess access_note(struct access *a, uint64_t off, size_t len)
{
	uint64_t end = off + len;
	bool strided = is_strided(a, off, len), belongs;
	struct access_run *r = find_run(a, off, end, &belongs);
	struct access_guess g = {.run = (unsigned int)(r - a->runs)};

	if (!belongs)
		*r = (struct access_run){.low = off, .high = off};
	r->used = ++a->clock;
	g.kind = grow(r, off, end);
	if (g.kind == ACCESS_FORWARD) {
		g.off = r->high;
	} else if (g.kind == ACCESS_BACKWARD) {
		g.off = r->low;
	} else if (strided) {
		g.kind = ACCESS_STRIDED;
		g.off = off + (uint64_t)a->distance;
		g.len = len;
		g.stride = a->distance;
		if (a->distance < 0 && off < 0 - (uint64_t)a->distance)
			g.kind = ACCESS_RANDOM; /* before the beginning */
	}
	return g;
}

/*
 * Which bytes of a window are referred to.
 *
 * Decoding says where a byte came from if the window is made to say it: what
 * follows the point is decoded once with each byte of the window replaced by
 * the low 8 bits of its offset, and once by the high 7 with the top bit set.
 * A byte that matches brought from the window, by however many steps, then
 * names its offset by the two results together; a literal is the same in both.
 * Put together again they must be the real output. They are not where a literal
 * has the top bit set itself: such a window, of which CSV has few, is kept
 * whole.
 */
#include <assert.h>
#include <string.h>

#include "cache/resume.h"

enum { FROM_WINDOW = 0x80 };

_Static_assert(RESUME_WINDOW <= 1 << 15, "an offset has more than 15 bits");

/* Decodes the first @n bytes after room->point into @out. */
static bool decode(struct resume_room *room, const unsigned char *raw,
		   size_t raw_len, unsigned char *out, size_t n)
{
	struct inflate_state *s = &room->state;

	if (!resume_start(s, &room->point))
		return false;
	s->next_in = (unsigned char *)raw;
	s->avail_in = (uint32_t)raw_len;
	s->next_out = out;
	s->avail_out = (uint32_t)n;
	/* An error beyond the last byte that is wanted is none. */
	isal_inflate(s);
	return s->avail_out == 0;
}

/*
 * Sets the bytes of room->used that stand for used ones of @window to 0xff, and
 * puts into room->high what its bytes and the literals make together. Without a
 * branch: which of the two comes next can't be predicted.
 */
static void find_used(struct resume_room *room, const unsigned char *window,
		      size_t n)
{
	memset(room->used, 0, sizeof(room->used));
	for (size_t i = 0; i < n; i++) {
		unsigned char low = room->low[i], high = room->high[i];
		size_t at = (size_t)(high & ~FROM_WINDOW) << 8 | low;
		bool copied = high & FROM_WINDOW;

		room->used[copied ? at : RESUME_WINDOW] = 0xff;
		room->high[i] = copied ? window[at] : low;
	}
}

static void keep_used(unsigned char *restrict window,
		      const unsigned char *restrict used)
{
	for (size_t i = 0; i < RESUME_WINDOW; i++)
		window[i] &= used[i];
}

bool resume_drop_unused(struct resume_point *p, const unsigned char *raw,
			size_t raw_len, const unsigned char *out,
			size_t out_len, struct resume_room *room)
{
	size_t n = out_len < RESUME_WINDOW ? out_len : RESUME_WINDOW;
	unsigned char *window = room->point.window;

	assert(raw_len <= UINT32_MAX);
	memcpy(&room->point, p, offsetof(struct resume_point, window));
	for (size_t i = 0; i < 256; i++)
		window[i] = (unsigned char)i;
	for (size_t i = 256; i < RESUME_WINDOW; i += 256)
		memcpy(window + i, window, 256);
	if (!decode(room, raw, raw_len, room->low, n))
		return false;
	for (size_t i = 0; i < RESUME_WINDOW; i += 256)
		memset(window + i, (int)(FROM_WINDOW | i >> 8), 256);
	if (!decode(room, raw, raw_len, room->high, n))
		return false;
	find_used(room, p->window, n);
	if (memcmp(room->high, out, n))
		return false;
	keep_used(p->window, room->used);
	return true;
}

/*
 * Which bytes of a window are referred to.
 *
 * Decoding says where a byte came from if the window is made to say it: what
 * follows the point is decoded once with each byte of the window replaced by
 * the low 8 bits of its offset, and once by the high 7 with the top bit set.
 * A byte that matches brought from the window, by however many steps, then
 * names its offset by the two results together; a literal is the same in both,
 * and in the real output. A literal with the top bit set may look like a byte
 * of the window, which keeps one byte more than is needed.
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

bool resume_drop_unused(struct resume_point *p, const unsigned char *raw,
			size_t raw_len, const unsigned char *out,
			size_t out_len, struct resume_room *room)
{
	size_t n = out_len < RESUME_WINDOW ? out_len : RESUME_WINDOW;
	unsigned char *window = room->point.window;

	assert(raw_len <= UINT32_MAX);
	memcpy(&room->point, p, offsetof(struct resume_point, window));
	for (size_t i = 0; i < p->window_len; i++)
		window[i] = (unsigned char)i;
	if (!decode(room, raw, raw_len, room->low, n))
		return false;
	for (size_t i = 0; i < p->window_len; i++)
		window[i] = (unsigned char)(FROM_WINDOW | i >> 8);
	if (!decode(room, raw, raw_len, room->high, n))
		return false;
	memset(window, 0, p->window_len);
	for (size_t i = 0; i < n; i++) {
		size_t at = (size_t)(room->high[i] & ~FROM_WINDOW) << 8 |
			    room->low[i];
		bool literal =
			room->high[i] == out[i] && room->low[i] == out[i];

		if (room->high[i] & FROM_WINDOW && at < p->window_len &&
		    p->window[at] == out[i])
			window[at] = out[i];
		else if (!literal)
			return false;
	}
	memcpy(p->window, window, p->window_len);
	return true;
}

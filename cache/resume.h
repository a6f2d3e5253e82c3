/*
 * resume - a point inside a deflate stream from which inflating can go on,
 * as plain data (RFC 1951; inflating by ISA-L).
 *
 * A point is made of what a decoder would have to have seen: the 32 KiB before
 * it (the *window*), and a *preamble* of deflate bits that leads into the bits
 * of the stream that follow. At the boundary of two blocks the preamble is no
 * more than the begun byte. Inside a block it is the header of that block
 * once more, shifted so that it ends where the stream goes on. Either way the
 * decoder is given a valid deflate stream and nothing else; no state of the
 * library is kept, so a point may come from a damaged file without harm, and
 * does not depend on the version of the library.
 */
#ifndef CACHE_RESUME_H
#define CACHE_RESUME_H

#include <isa-l.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	RESUME_WINDOW = 32768,
	/* The longest header of a dynamic block takes ISAL_DEF_MAX_HDR_SIZE
	 * bytes; shifting adds one. */
	RESUME_PREAMBLE_MAX = ISAL_DEF_MAX_HDR_SIZE + 1,
};

struct resume_point {
	uint64_t zoff;	     /* the byte that follows the preamble */
	unsigned int skip;   /* low bits of preamble[0] to leave out, 0 to 7 */
	size_t preamble_len; /* if 0, so is skip */
	size_t window_len;   /* 0 where the stream begins, else RESUME_WINDOW */
	unsigned char preamble[RESUME_PREAMBLE_MAX];
	unsigned char window[RESUME_WINDOW];
};

/* Bits of a block header, the first in bit 0 of bits[0]. */
struct resume_header {
	size_t n;
	unsigned char bits[ISAL_DEF_MAX_HDR_SIZE];
};

/*
 * resume_start() - make @s ready for the bytes from p->zoff on.
 * The caller feeds these by next_in and avail_in as always, and ends by the
 * number of bytes it wants. False if @p can't be the start of anything.
 */
bool resume_start(struct inflate_state *s, const struct resume_point *p);

/*
 * resume_drop_unused() - zero the bytes of p->window that nothing after @p
 * refers to, so that what is left takes little room. Of CSV an eighth to a
 * fifth of a window is used.
 * @raw: what follows the preamble, from p->zoff on
 * @out: what it decodes to; the end of the stream, or at least RESUME_WINDOW
 * bytes, beyond which no match reaches back into the window
 * @room: overwritten
 * False, and the window is as it was, where @raw is too short to tell or not
 * what makes @out, or @out has bytes over 0x7f that can't be told from marks.
 */
struct resume_room {
	struct inflate_state state;
	struct resume_point point;
	unsigned char low[RESUME_WINDOW], high[RESUME_WINDOW];
	unsigned char used[RESUME_WINDOW + 1]; /* the last: of literals */
};
bool resume_drop_unused(struct resume_point *p, const unsigned char *raw,
			size_t raw_len, const unsigned char *out,
			size_t out_len, struct resume_room *room);

/* Is @s between two blocks? */
bool resume_at_boundary(const struct inflate_state *s);

/* Between blocks or inside a stored one: @s knows no codes before it comes to
 * the next header, so that they change with it. */
void resume_forget_codes(struct inflate_state *s);

/* The bit of the stream where @s stands, when it has consumed @zpos bytes and
 * given out all it has decoded. */
uint64_t resume_bit(const struct inflate_state *s, uint64_t zpos);

/* Do @a and @b decode by the same codes? Codes change only with a header. */
bool resume_same_codes(const struct inflate_state *a,
		       const struct inflate_state *b);

/* The block that @s is in. @scratch: overwritten. */
enum resume_block { RESUME_STORED, RESUME_FIXED, RESUME_DYNAMIC };
enum resume_block resume_block(const struct inflate_state *s,
			       struct inflate_state *scratch);

/*
 * resume_capture_boundary(), resume_capture_block() - all of a point but its
 * window, from a decoder that has consumed @zpos bytes and given out all it
 * has decoded: between two blocks, or inside one.
 * @h: the header of that block, where it is a dynamic one
 */
void resume_capture_boundary(struct resume_point *p,
			     const struct inflate_state *s, uint64_t zpos);
void resume_capture_block(struct resume_point *p, const struct inflate_state *s,
			  uint64_t zpos, enum resume_block block,
			  const struct resume_header *h);

/*
 * resume_read_header() - the header of the dynamic block that begins at bit
 * @skip of data[0].
 * @scratch: overwritten
 * False if no whole header is there.
 */
bool resume_read_header(struct resume_header *h, const unsigned char *data,
			size_t len, unsigned int skip,
			struct inflate_state *scratch);

#endif

#include "cache/resume.h"

#include <assert.h>
#include <string.h>

static unsigned int bit_get(const unsigned char *v, size_t i)
{
	return v[i / 8] >> i % 8 & 1;
}

static void bit_put(unsigned char *v, size_t i, unsigned int bit)
{
	v[i / 8] |= (unsigned char)(bit << i % 8);
}

bool resume_start(struct inflate_state *s, const struct resume_point *p)
{
	unsigned char none;

	isal_inflate_init(s);
	/* So that the codes of the first block differ from what was here. */
	memset(&s->lit_huff_code, 0, sizeof(s->lit_huff_code));
	memset(&s->dist_huff_code, 0, sizeof(s->dist_huff_code));
	if (p->window_len) {
		isal_inflate_set_dict(s, (unsigned char *)p->window,
				      (uint32_t)p->window_len);
		if (s->tmp_out_valid != (int32_t)p->window_len)
			return false;
	}
	if (!p->preamble_len)
		return true;
	s->read_in = p->preamble[0] >> p->skip;
	s->read_in_length = 8 - (int32_t)p->skip;
	s->next_in = (unsigned char *)p->preamble + 1;
	s->avail_in = (uint32_t)p->preamble_len - 1;
	s->next_out = &none;
	s->avail_out = 0;
	return isal_inflate(s) >= 0 && s->avail_in == 0;
}

bool resume_at_boundary(const struct inflate_state *s)
{
	return s->block_state == ISAL_BLOCK_NEW_HDR ||
	       s->block_state == ISAL_BLOCK_HDR;
}

uint64_t resume_bit(const struct inflate_state *s, uint64_t zpos)
{
	/* Bytes of an incomplete header are kept aside, to be read again. */
	uint64_t kept =
		s->block_state == ISAL_BLOCK_HDR ? (uint64_t)s->tmp_in_size : 0;

	return (zpos - kept) * 8 - (uint64_t)s->read_in_length;
}

/* A block of nothing but its end, which leaves the tables of the fixed code
 * behind. */
static void decode_fixed_header(struct inflate_state *s)
{
	static const unsigned char empty_block[] = {0x03, 0x00};
	unsigned char none;

	isal_inflate_init(s);
	s->next_in = (unsigned char *)empty_block;
	s->avail_in = sizeof(empty_block);
	s->next_out = &none;
	s->avail_out = 0;
	isal_inflate(s);
}

bool resume_same_codes(const struct inflate_state *a,
		       const struct inflate_state *b)
{
	return !memcmp(&a->lit_huff_code, &b->lit_huff_code,
		       sizeof(a->lit_huff_code)) &&
	       !memcmp(&a->dist_huff_code, &b->dist_huff_code,
		       sizeof(a->dist_huff_code));
}

void resume_forget_codes(struct inflate_state *s)
{
	memset(&s->lit_huff_code, 0, sizeof(s->lit_huff_code));
	memset(&s->dist_huff_code, 0, sizeof(s->dist_huff_code));
}

enum resume_block resume_block(const struct inflate_state *s,
			       struct inflate_state *scratch)
{
	if (s->block_state == ISAL_BLOCK_TYPE0)
		return RESUME_STORED;
	decode_fixed_header(scratch);
	return resume_same_codes(s, scratch) ? RESUME_FIXED : RESUME_DYNAMIC;
}

/*
 * The preamble is the first @n of @bits and what is left of the byte in which
 * the decoder stands, so that it ends with a whole byte:
 *
 *	| skip | n bits | rest of the byte |
 */
static void set_preamble(struct resume_point *p, const struct inflate_state *s,
			 uint64_t zpos, const unsigned char *bits, size_t n)
{
	uint64_t here = resume_bit(s, zpos);
	unsigned int done = here % 8; /* bits of the begun byte behind us */
	size_t rest = done ? 8 - done : 0;
	size_t len = (n + rest + 7) / 8;
	size_t skip = len * 8 - rest - n;

	assert(len <= sizeof(p->preamble));
	memset(p->preamble, 0, sizeof(p->preamble));
	for (size_t i = 0; i < n; i++)
		bit_put(p->preamble, skip + i, bit_get(bits, i));
	if (rest) /* the decoder holds at least the bits up to the next byte */
		p->preamble[len - 1] |= (unsigned char)(s->read_in << done);
	p->preamble_len = len;
	p->skip = (unsigned int)skip;
	p->zoff = (here + 7) / 8;
}

void resume_capture_boundary(struct resume_point *p,
			     const struct inflate_state *s, uint64_t zpos)
{
	set_preamble(p, s, zpos, NULL, 0);
}

void resume_capture_block(struct resume_point *p, const struct inflate_state *s,
			  uint64_t zpos, enum resume_block block,
			  const struct resume_header *h)
{
	unsigned int final = s->bfinal ? 1 : 0;
	unsigned char bits[ISAL_DEF_MAX_HDR_SIZE];
	uint16_t left;

	switch (block) {
	case RESUME_STORED:
		/* Stored data are whole bytes: header, padding, LEN, NLEN. */
		assert(resume_bit(s, zpos) % 8 == 0);
		left = (uint16_t)s->type0_block_len;
		bits[0] = (unsigned char) final;
		bits[1] = left & 0xff;
		bits[2] = left >> 8;
		bits[3] = ~left & 0xff;
		bits[4] = (uint16_t)~left >> 8;
		set_preamble(p, s, zpos, bits, 40);
		break;
	case RESUME_FIXED:
		bits[0] = (unsigned char)(final | 1 << 1);
		set_preamble(p, s, zpos, bits, 3);
		break;
	case RESUME_DYNAMIC:
		/* The header may be that of an earlier block with the same
		 * codes, see the caller; whether it is the last one is ours. */
		memcpy(bits, h->bits, sizeof(bits));
		bits[0] = (unsigned char)((bits[0] & ~1u) | final);
		set_preamble(p, s, zpos, bits, h->n);
		break;
	}
}

/*
 * Do the first @n of @bits hold a whole header? They are shifted to end with
 * a byte, so that the decoder sees none that follow. Whether it has built the
 * literal code tells; what it makes of bits beyond the header does not matter.
 */
static bool header_complete(struct inflate_state *s, const unsigned char *bits,
			    size_t n)
{
	unsigned char shifted[ISAL_DEF_MAX_HDR_SIZE] = {0};
	size_t len = (n + 7) / 8, skip = len * 8 - n;
	const uint32_t *code = s->lit_huff_code.short_code_lookup;
	uint32_t any = 0;
	unsigned char none;

	for (size_t i = 0; i < n; i++)
		bit_put(shifted, skip + i, bit_get(bits, i));
	isal_inflate_init(s);
	memset(&s->lit_huff_code, 0, sizeof(s->lit_huff_code));
	s->read_in = shifted[0] >> skip;
	s->read_in_length = 8 - (int32_t)skip;
	s->next_in = shifted + 1;
	s->avail_in = (uint32_t)len - 1;
	s->next_out = &none;
	s->avail_out = 0;
	isal_inflate(s);
	for (size_t i = 0; i < 1 << ISAL_DECODE_LONG_BITS; i++)
		any |= code[i];
	return any != 0;
}

bool resume_read_header(struct resume_header *h, const unsigned char *data,
			size_t len, unsigned int skip,
			struct inflate_state *scratch)
{
	size_t low = 1, high = sizeof(h->bits) * 8;

	if (len * 8 <= skip)
		return false;
	if (high > len * 8 - skip)
		high = len * 8 - skip;
	memset(h->bits, 0, sizeof(h->bits));
	for (size_t i = 0; i < high; i++)
		bit_put(h->bits, i, bit_get(data, skip + i));
	if ((h->bits[0] >> 1 & 3) != 2 ||
	    !header_complete(scratch, h->bits, high))
		return false;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (header_complete(scratch, h->bits, middle))
			high = middle;
		else
			low = middle + 1;
	}
	h->n = low;
	return true;
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "cache/resume.h"
#include "tests/support/archives.h"

enum { PLAIN = 48000, RAW = 2 * PLAIN };

/* A deflate stream made by zlib. */
struct stream {
	unsigned char plain[PLAIN], raw[RAW];
	size_t raw_len;
};

/* Text with matches near and far. */
static void make_plain(unsigned char *p, uint64_t seed)
{
	size_t at = 0;

	while (at < PLAIN) {
		uint64_t r = archives_random(&seed);
		size_t n = r % 40 + 3, from = at ? r / 64 % at : 0;

		if (at > 2000 && r >> 50 & 1) {
			for (size_t i = 0; i < n && at < PLAIN; i++)
				p[at++] = p[from + i];
		} else {
			for (size_t i = 0; i < n % 9 + 1 && at < PLAIN; i++)
				p[at++] = (unsigned char)('0' +
							  (r >> (5 * i)) % 12);
		}
	}
}

static void make_stream(struct stream *s, int level, int strategy, int mem)
{
	z_stream z = {0};

	make_plain(s->plain, 42);
	assert_int_equal(
		deflateInit2(&z, level, Z_DEFLATED, -15, mem, strategy), Z_OK);
	z.next_in = s->plain;
	z.avail_in = PLAIN;
	z.next_out = s->raw;
	z.avail_out = RAW;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	s->raw_len = z.total_out;
	deflateEnd(&z);
}

/* Goes on from @p alone, and compares all that follows @pos. */
static void check_point(const struct stream *s, const struct resume_point *p,
			size_t pos)
{
	static struct inflate_state st;
	static unsigned char out[PLAIN + 1];

	memset(&st, 0xa5, sizeof(st));
	assert_true(resume_start(&st, p));
	assert_true(p->zoff <= s->raw_len);
	st.next_in = (unsigned char *)s->raw + p->zoff;
	st.avail_in = (uint32_t)(s->raw_len - p->zoff);
	st.next_out = out;
	st.avail_out = (uint32_t)(PLAIN - pos);
	assert_int_equal(isal_inflate(&st), 0);
	assert_int_equal(st.avail_out, 0);
	assert_memory_equal(out, s->plain + pos, PLAIN - pos);
}

struct counts {
	unsigned int boundaries, blocks[3];
};

/* Captures a point after every byte of the stream, and resumes at it. */
static struct counts check_stream(const struct stream *s)
{
	static struct inflate_state st, scratch;
	static unsigned char out[PLAIN + 1];
	struct resume_point *p = calloc(1, sizeof(*p));
	struct resume_header header = {0};
	struct counts n = {0};
	uint64_t bit = 0;

	assert_non_null(p);
	isal_inflate_init(&st);
	st.next_out = out;
	st.avail_out = sizeof(out);
	for (size_t z = 0; z < s->raw_len; z++) {
		size_t pos;

		st.next_in = (unsigned char *)s->raw + z;
		st.avail_in = 1;
		assert_int_equal(isal_inflate(&st), 0);
		assert_int_equal(st.avail_in, 0);
		if (st.block_state == ISAL_BLOCK_FINISH)
			break;
		pos = (size_t)(st.next_out - out);
		p->window_len = pos < RESUME_WINDOW ? pos : RESUME_WINDOW;
		memcpy(p->window, out + pos - p->window_len, p->window_len);
		if (resume_at_boundary(&st)) {
			bit = resume_bit(&st, z + 1);
			resume_capture_boundary(p, &st, z + 1);
			n.boundaries++;
		} else {
			enum resume_block b = resume_block(&st, &scratch);

			if (b == RESUME_DYNAMIC)
				assert_true(resume_read_header(
					&header, s->raw + bit / 8,
					s->raw_len - bit / 8, bit % 8,
					&scratch));
			resume_capture_block(p, &st, z + 1, b, &header);
			n.blocks[b]++;
		}
		check_point(s, p, pos);
	}
	assert_memory_equal(out, s->plain, PLAIN);
	free(p);
	return n;
}

static void
test_resume__is_exact_after_every_byte_of_dynamic_blocks(void **state)
{
	static struct stream s;
	struct counts n;

	(void)state;
	make_stream(&s, 6, Z_DEFAULT_STRATEGY, 6);
	n = check_stream(&s);
	assert_true(n.blocks[RESUME_DYNAMIC] > 10000);
	assert_int_equal(n.blocks[RESUME_FIXED], 0);
	/* Blocks of 128 symbols. */
	make_stream(&s, 6, Z_DEFAULT_STRATEGY, 1);
	n = check_stream(&s);
	assert_true(n.boundaries > 1000);
	assert_true(n.blocks[RESUME_DYNAMIC] > 10000);
}

static void test_resume__is_exact_after_every_byte_of_fixed_blocks(void **state)
{
	static struct stream s;
	struct counts n;

	(void)state;
	make_stream(&s, 6, Z_FIXED, 6);
	n = check_stream(&s);
	assert_true(n.blocks[RESUME_FIXED] > 10000);
	assert_int_equal(n.blocks[RESUME_DYNAMIC], 0);
}

static void
test_resume__is_exact_after_every_byte_of_stored_blocks(void **state)
{
	static struct stream s;
	struct counts n;

	(void)state;
	make_stream(&s, 0, Z_DEFAULT_STRATEGY, 2);
	n = check_stream(&s);
	assert_true(n.blocks[RESUME_STORED] > PLAIN - 1000);
	assert_int_equal(n.boundaries, 4); /* in the header of the only one */
}

static void test_resume__a_header_is_measured_to_the_bit(void **state)
{
	/*
	 * By hand, RFC 1951 3.2.7: not final, dynamic, HLIT 257, HDIST 1,
	 * HCLEN 18 (3 + 5 + 5 + 4 bits); code lengths in the order 16 17 18 0
	 * 8 7 9 6 10 5 11 4 12 3 13 2 14 1: 18 has 1 bit, 1 has 1 (18 * 3
	 * bits). The code of 1 is 0, of 18 is 1. 256 lengths of 0: 138 and 118,
	 * 1 + 7 bits each. Length 1 for the end of block and for a distance: 1
	 * bit each. That is 17 + 54 + 16 + 2 = 89.
	 */
	static const unsigned char lengths[18] = {[2] = 1, [17] = 1};
	static struct inflate_state scratch;
	unsigned char bits[64] = {0};
	struct resume_header h;

	(void)state;
	for (unsigned int skip = 0; skip < 8; skip++) {
		size_t at = skip;
#define PUT(value, n)                                                          \
	for (size_t i_ = 0; i_ < (n); i_++, at++)                              \
	bits[at / 8] |= (unsigned char)(((value) >> i_ & 1) << at % 8)
		memset(bits, 0, sizeof(bits));
		PUT(0u | 2u << 1, 3);
		PUT(0u, 5);
		PUT(0u, 5);
		PUT(14u, 4);
		for (size_t i = 0; i < 18; i++)
			PUT((unsigned int)lengths[i], 3);
		PUT(1u | (138u - 11) << 1, 8);
		PUT(1u | (118u - 11) << 1, 8);
		PUT(0u, 2);
#undef PUT
		assert_int_equal(at, 89 + skip);
		assert_true(resume_read_header(&h, bits, sizeof(bits), skip,
					       &scratch));
		assert_int_equal(h.n, 89);
		/* The last byte is missing. */
		assert_false(resume_read_header(&h, bits, (88 + skip) / 8, skip,
						&scratch));
	}
	/* Fixed, stored, reserved. */
	for (unsigned int type = 0; type < 4; type++) {
		if (type == 2)
			continue;
		memset(bits, 0, sizeof(bits));
		bits[0] = (unsigned char)(type << 1);
		assert_false(resume_read_header(&h, bits, sizeof(bits), 0,
						&scratch));
	}
}

/* ---- windows of which only what is used is kept ---- */

/* A point between two blocks or, with @header, in one, after @raw_pos bytes of
 * the stream. Where in the plain bytes that is. */
static size_t point_after(struct resume_point *p, const struct stream *s,
			  size_t raw_pos, enum resume_block block)
{
	static struct inflate_state st, scratch;
	static unsigned char out[PLAIN + 1];
	struct resume_header header = {0};
	size_t pos;

	isal_inflate_init(&st);
	st.next_in = (unsigned char *)s->raw;
	st.avail_in = (uint32_t)raw_pos;
	st.next_out = out;
	st.avail_out = sizeof(out);
	assert_int_equal(isal_inflate(&st), 0);
	pos = (size_t)(st.next_out - out);
	p->window_len = pos < RESUME_WINDOW ? pos : RESUME_WINDOW;
	memcpy(p->window, out + pos - p->window_len, p->window_len);
	if (resume_at_boundary(&st)) {
		resume_capture_boundary(p, &st, raw_pos);
		return pos;
	}
	assert_int_equal(resume_block(&st, &scratch), block);
	if (block == RESUME_DYNAMIC)
		assert_true(resume_read_header(&header, s->raw, s->raw_len, 0,
					       &scratch));
	resume_capture_block(p, &st, raw_pos, block, &header);
	return pos;
}

/* Does decoding from @p on give what the stream holds? */
static bool decodes(const struct stream *s, const struct resume_point *p,
		    size_t pos)
{
	static struct inflate_state st;
	static unsigned char out[PLAIN];

	assert_true(resume_start(&st, p));
	st.next_in = (unsigned char *)s->raw + p->zoff;
	st.avail_in = (uint32_t)(s->raw_len - p->zoff);
	st.next_out = out;
	st.avail_out = (uint32_t)(PLAIN - pos);
	assert_int_equal(isal_inflate(&st), 0);
	return !memcmp(out, s->plain + pos, PLAIN - pos);
}

static bool drop(const struct stream *s, struct resume_point *p, size_t pos)
{
	static struct resume_room room;

	memset(&room, 0xa5, sizeof(room));
	return resume_drop_unused(p, s->raw + p->zoff, s->raw_len - p->zoff,
				  s->plain + pos, PLAIN - pos, &room);
}

/* How many bytes are kept of the window at @raw_pos: all that are used, for it
 * decodes without the others, and no more, for it decodes without none. */
static size_t check_dropped(const struct stream *s, size_t raw_pos,
			    enum resume_block block)
{
	struct resume_point *p = calloc(1, sizeof(*p));
	unsigned char *whole = malloc(RESUME_WINDOW);
	size_t pos, kept = 0;

	assert_non_null(p);
	assert_non_null(whole);
	pos = point_after(p, s, raw_pos, block);
	memcpy(whole, p->window, p->window_len);
	assert_true(drop(s, p, pos));
	assert_true(decodes(s, p, pos));
	for (size_t i = 0; i < p->window_len; i++) {
		if (!p->window[i]) /* which the text has none of */
			continue;
		assert_int_equal(p->window[i], whole[i]);
		if (kept++ % 37)
			continue;
		p->window[i] ^= 1;
		assert_false(decodes(s, p, pos));
		p->window[i] ^= 1;
	}
	free(whole);
	free(p);
	return kept;
}

static void
test_resume__of_a_window_what_is_used_is_kept_and_no_more(void **state)
{
	static const struct {
		int level, strategy;
		enum resume_block block;
	} kinds[] = {
		{6, Z_DEFAULT_STRATEGY, RESUME_DYNAMIC},
		{6, Z_FIXED, RESUME_FIXED},
		{6, Z_HUFFMAN_ONLY, RESUME_DYNAMIC},
		{0, Z_DEFAULT_STRATEGY, RESUME_STORED},
	};
	static struct stream s;

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		size_t kept = 0;

		/* The first block, so that its header is the stream's: of
		 * 32,767 symbols, which are nearly all of it or half. */
		make_stream(&s, kinds[i].level, kinds[i].strategy, 9);
		for (size_t at = 997; at < s.raw_len / 2; at += 1499)
			kept += check_dropped(&s, at, kinds[i].block);
		if (i < 2)
			assert_true(kept > 1000);
		else /* nothing but literals */
			assert_int_equal(kept, 0);
	}
}

static void test_resume__a_window_stays_where_its_use_is_not_known(void **state)
{
	static struct stream s, other;
	static struct resume_room room;
	static struct resume_point p, before;
	size_t pos;

	(void)state;
	make_stream(&s, 6, Z_FIXED, 9);
	pos = point_after(&p, &s, s.raw_len * 3 / 4, RESUME_FIXED);
	memcpy(&before, &p, sizeof(p));
	/* Not all of the raw data. */
	assert_false(resume_drop_unused(&p, s.raw + p.zoff, 1000, s.plain + pos,
					PLAIN - pos, &room));
	assert_memory_equal(&p, &before, sizeof(p));
	/* Not what they decode to. */
	memcpy(&other, &s, sizeof(s));
	other.plain[pos + 5000] ^= 1;
	assert_false(drop(&other, &p, pos));
	assert_memory_equal(&p, &before, sizeof(p));
	/* Not deflate. */
	memset(other.raw, 0xff, sizeof(other.raw));
	assert_false(drop(&other, &p, pos));
	assert_memory_equal(&p, &before, sizeof(p));
	assert_true(drop(&s, &p, pos));
	assert_memory_not_equal(p.window, before.window, p.window_len);
}

/* Bytes that look like the marks of the search: whether all of the window is
 * kept or less, it is enough. */
static void test_resume__windows_of_any_bytes_stay_right(void **state)
{
	static struct stream s;
	uint64_t seed = 7;
	z_stream z = {0};

	(void)state;
	for (size_t at = 0; at < PLAIN;) {
		uint64_t r = archives_random(&seed);
		size_t n = r % 30 + 3, from = at ? r / 64 % at : 0;

		for (size_t i = 0; i < n && at < PLAIN; i++, at++)
			s.plain[at] = at > 300 && r >> 60
					      ? s.plain[from + i]
					      : (unsigned char)(r >> i);
	}
	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 9,
				      Z_DEFAULT_STRATEGY),
			 Z_OK);
	z.next_in = s.plain;
	z.avail_in = PLAIN;
	z.next_out = s.raw;
	z.avail_out = RAW;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	s.raw_len = z.total_out;
	deflateEnd(&z);
	for (size_t at = 2000; at + 200 < s.raw_len; at += 173) {
		static struct resume_point p;
		size_t pos = point_after(&p, &s, at, RESUME_DYNAMIC);

		(void)drop(&s, &p, pos);
		assert_true(decodes(&s, &p, pos));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_resume__is_exact_after_every_byte_of_dynamic_blocks),
		cmocka_unit_test(
			test_resume__is_exact_after_every_byte_of_fixed_blocks),
		cmocka_unit_test(
			test_resume__is_exact_after_every_byte_of_stored_blocks),
		cmocka_unit_test(test_resume__a_header_is_measured_to_the_bit),
		cmocka_unit_test(
			test_resume__of_a_window_what_is_used_is_kept_and_no_more),
		cmocka_unit_test(
			test_resume__a_window_stays_where_its_use_is_not_known),
		cmocka_unit_test(test_resume__windows_of_any_bytes_stay_right),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

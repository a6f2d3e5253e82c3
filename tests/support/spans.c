#include "tests/support/spans.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

ssize_t spans_decode(const struct checkpoints *cp, int fd, unsigned int stream,
		     uint64_t span, void *buf, size_t len)
{
	struct checkpoints_decoder *d;
	ssize_t n;

	if (checkpoints_decoder_create(&d))
		return -ENOMEM;
	n = checkpoints_decode(cp, fd, stream, span, d, buf, 0, len);
	checkpoints_decoder_free(d);
	return n;
}

static void assert_same_span(const struct checkpoints *x,
			     const struct checkpoints *y, int fd,
			     unsigned int stream, uint64_t off, size_t *len)
{
	unsigned char *a = malloc(CHECKPOINTS_SPAN);
	unsigned char *b = malloc(CHECKPOINTS_SPAN);
	uint64_t at, other, start;
	size_t n;

	assert_non_null(a);
	assert_non_null(b);
	checkpoints_span_at(x, stream, off, &at, &start, len);
	assert_int_equal(start, off);
	checkpoints_span_at(y, stream, off, &other, &start, &n);
	assert_int_equal(start, off);
	assert_int_equal(at, other);
	assert_int_equal(*len, n);
	assert_int_equal(spans_decode(x, fd, stream, at, a, n), n);
	assert_int_equal(spans_decode(y, fd, stream, at, b, n), n);
	assert_memory_equal(a, b, n);
	free(a);
	free(b);
}

void spans_assert_same(const struct checkpoints *x, const struct checkpoints *y,
		       int fd)
{
	assert_int_equal(checkpoints_streams(x), checkpoints_streams(y));
	for (unsigned int i = 0; i < checkpoints_streams(x); i++) {
		uint64_t size = 0, other = 0;
		size_t len;

		assert_int_equal(checkpoints_stream_size(x, i, &size),
				 checkpoints_stream_size(y, i, &other));
		assert_int_equal(size, other);
		for (uint64_t off = 0; off < size; off += len)
			assert_same_span(x, y, fd, i, off, &len);
	}
}

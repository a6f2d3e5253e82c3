/* spans - one whole span, decoded in one go. */
#ifndef TESTS_SUPPORT_SPANS_H
#define TESTS_SUPPORT_SPANS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/checkpoints.h"

/* As checkpoints_decode() up to @len, the span's, by a decoder of its own. */
ssize_t spans_decode(const struct checkpoints *cp, int fd, unsigned int stream,
		     uint64_t span, void *buf, size_t len);

/*
 * Fails the test that runs unless both indexes of the object @fd have the same
 * spans, from which the same bytes come. Their files may differ by a little:
 * what ISA-L deflates a window to depends on the addresses of its buffers, by
 * one byte of 7744 in one of thousands, and differs from run to run.
 */
void spans_assert_same(const struct checkpoints *x, const struct checkpoints *y,
		       int fd);

#endif

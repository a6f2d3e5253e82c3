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

#endif

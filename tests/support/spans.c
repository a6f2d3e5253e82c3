#include "tests/support/spans.h"

#include <errno.h>

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

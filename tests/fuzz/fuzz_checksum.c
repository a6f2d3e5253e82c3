#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fetch/checksum.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t digest[CHECKSUM_DIGEST_LEN];
	int err =
		checksum_parse(data, size, "BTCUSDT-1m-2024-01-01.zip", digest);

	assert(err == 0 || err == -EPROTO);
	/* What is taken is one line of a known length. */
	assert(err || size == 64 + 2 + 25 || size == 64 + 2 + 25 + 1);
	return 0;
}

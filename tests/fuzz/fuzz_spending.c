#include <assert.h>
#include <errno.h>
#include <string.h>

#include "cache/spending.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[SPENDING_TEXT_MAX];
	struct spending s;
	int err = spending_parse((const char *)data, size, &s);

	assert(err == 0 || err == -EBADMSG);
	/* One text for each. */
	assert(err || (spending_format(&s, text) == size &&
		       memcmp(text, data, size) == 0));
	return 0;
}

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "fetch/listing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct listing *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct listing_entry *e = &l->entries[i];

		assert(*e->name && !strchr(e->name, '/'));
		assert(e->size <= INT64_MAX);
		assert(i == 0 || strcmp(l->entries[i - 1].name, e->name) < 0);
	}
}

/* The first byte says in which steps the rest is fed, as one page of a walk
 * under "d/": the parser and what is made of its entries. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t step = size ? data[0] + 1u : 1;
	struct listing_walk *w;
	struct listing *l;
	int ret = 0;

	if (listing_walk_create(&w, "d/", 0) != 0)
		return 0;
	if (listing_walk_begin(w) == 0) {
		for (size_t at = 1; !ret && at < size; at += step)
			ret = listing_walk_feed(w, data + at,
						size - at < step ? size - at
								 : step);
		if (!ret)
			ret = listing_walk_end(w);
		assert(ret == 0 || ret == 1 || ret == -EPROTO ||
		       ret == -ENOMEM);
		if (ret >= 0 && listing_walk_take(w, &l) == 0) {
			check(l);
			listing_free(l);
		}
	}
	listing_walk_free(w);
	return 0;
}

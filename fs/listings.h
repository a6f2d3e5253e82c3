/*
 * listings - directory pages in the catalog, fetched once however many ask.
 *
 * The catalog is the listing; this module only sees to it that it is there and
 * not older than `listing_ttl`. An old listing that can't be renewed, or may
 * not for the budget, is used on, with a warning: what was seen stays usable.
 * An empty answer is kept as such for `negative_ttl`.
 */
#ifndef FS_LISTINGS_H
#define FS_LISTINGS_H

#include <stdint.h>

#include "cache/catalog.h"
#include "fetch/origin.h"
#include "fs/budget.h"
#include "fs/waitlist.h"
#include "fs/workers.h"

struct listings;

struct listings_config {
	struct origin *origin;
	struct catalog *catalog;
	struct workers *workers;
	struct budget *budget; /* or NULL */
	uint64_t ttl_ms, negative_ttl_ms;
	bool offline;
	/* Each entry of a page that came in; on a worker thread. */
	void (*on_entry)(void *arg, const char *prefix,
			 const struct listing_entry *e, int64_t now);
	void *arg;
};

int listings_create(struct listings **out, const struct listings_config *cfg);
/* After origin and workers have ended. */
void listings_free(struct listings *l);

/*
 * listings_ensure() - is the listing of @prefix in the catalog?
 * Returns 0; -ENOENT: listed, and empty; -EINPROGRESS: @w will be woken, ask
 * again then (with @w NULL nothing is started); -EDQUOT where it was never
 * listed and small requests have spent the budget; or an error of
 * origin_list().
 */
int listings_ensure(struct listings *l, const char *prefix, struct waiter *w);

/* Starts what listings_ensure() would wait for. */
void listings_start(struct listings *l, const char *prefix);

/*
 * listings_probe() - the same question where only existence matters: one
 * request for one entry where nothing is known. 0 or -ENOENT.
 */
int listings_probe(struct listings *l, const char *prefix, struct waiter *w);

/* Is what the catalog says of @prefix recent enough to say "not there"? */
bool listings_fresh(struct listings *l, int64_t fetched_at);

#endif

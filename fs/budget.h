/*
 * budget - how much may still be downloaded today, so that a crawler can't
 * fetch the world.
 *
 * A day is one of UTC. Every byte of a body counts on the day it comes. A
 * download begins only if all that it lacks fits into what is left, less what
 * is promised to those under way: so what was begun may finish, and nothing is
 * fetched in vain. Only the first one of a day may be larger than that, or an
 * archive above the budget could never be had; if it breaks off, what has not
 * come of it may still come that day, or past the midnight it was under way at,
 * until this is freed.
 *
 * Listings and the requests for sizes are small and count like all else, but a
 * budget that downloads have spent does not end them; only when they alone
 * have taken as much does it (a crawler that opens nothing asks for them). So
 * all together stay below twice the budget, or that and one archive.
 *
 * Pure but for its lock and the log: handed the time, seconds since 1970. All
 * may be called on any thread, and with NULL for a mount without a budget.
 */
#ifndef FS_BUDGET_H
#define FS_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/spending.h"

struct budget;

/* @kept: of an earlier mount, or NULL. -ENOMEM. */
int budget_create(struct budget **out, uint64_t limit_bytes,
		  const struct spending *kept);
void budget_free(struct budget *b);

/*
 * budget_allows() - could a download of @bytes (UINT64_MAX: unknown) begin?
 * 0; or -EDQUOT, and then the first time on a day it is logged.
 */
int budget_allows(struct budget *b, const char *key, uint64_t bytes,
		  int64_t now);
/* The same, and they are promised to @key, in place of what was before, until
 * budget_end(). Also -ENOMEM. */
int budget_begin(struct budget *b, const char *key, uint64_t bytes,
		 int64_t now);
/* Nothing more comes of @key; one that is not known is ignored. */
void budget_end(struct budget *b, const char *key, int64_t now);

/* The same for a listing, a size or a small object, of which nothing is
 * promised. */
int budget_allows_small(struct budget *b, const char *key, int64_t now);

/* @bytes came, of the download of @key or, where @is_download is false, of
 * anything else. */
void budget_came(struct budget *b, bool is_download, const char *key,
		 uint64_t bytes, int64_t now);

/* False where there is no budget. */
bool budget_stats(struct budget *b, int64_t now, uint64_t *limit_bytes,
		  uint64_t *spent_bytes);

/*
 * budget_to_keep() - is there something that should be kept now? What is
 * promised counts as spent there. At once where a download has begun or ended,
 * a few seconds later where some bytes came, or @all.
 */
bool budget_to_keep(struct budget *b, bool all, int64_t now,
		    struct spending *out);
/* It was not kept: it still should be. */
void budget_not_kept(struct budget *b);

#endif

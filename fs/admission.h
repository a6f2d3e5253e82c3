/*
 * admission - one object's way into the cache: download, checksum, digests,
 * index, verdict, commit; or quarantine with the reason.
 *
 * Bytes that do not hold are asked for again past caches, then from the
 * mirror (design section 2, EBADMSG). Where only the .CHECKSUM disagrees and
 * the ETag proves the archive's bytes, only the .CHECKSUM is fetched again. A
 * partial left by an earlier attempt is resumed; bytes that do not hold after
 * a resume are fetched from the start before anyone is blamed.
 *
 * Each time it is asked for, what is lacking must fit into the budget; else the
 * errno is EDQUOT. What is under way may finish. A .CHECKSUM is never refused.
 * Bytes that were there go only once others may come in their place, unless
 * they were found damaged: a partial stays, and what was cached is put back.
 *
 * All work is done on the given workers in small steps; nothing here waits.
 */
#ifndef FS_ADMISSION_H
#define FS_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/store.h"
#include "fetch/origin.h"
#include "fs/budget.h"
#include "fs/prefill.h"
#include "fs/workers.h"

struct admission;

struct admission_env {
	struct origin *origin;
	struct store *store;
	struct workers *workers;
	struct budget *budget; /* or NULL */
	const char *run_id;
	bool lenient;
	bool offline;
	bool has_mirror;
};

/* What became of it; valid during the callback. */
struct admission_result {
	int err; /* 0, or the errno for those who wait */
	enum verdict verdict;
	struct store_info info; /* as far as known; of what was judged */
	const char *reason;	/* of a refusal, else "" */
	const struct archive_directory *directory; /* or NULL */
	bool changed; /* info.etag, size, last_modified: what the origin has
			 now is not what was asked for */
};

/* Once, on a worker; the admission is freed after it returns. */
typedef void admission_done_fn(void *arg, const struct admission_result *r);

/*
 * admission_start() - bring @key, of which the origin says @meta, into the
 * cache.
 * @recheck: it lies in the cache and must be checked first (-EUCLEAN)
 * @fill: is shown what is decoded, and told the verdict before @done; may be
 * NULL. It must outlive the admission.
 * Returns 0 or -ENOMEM, and then calls nothing.
 */
int admission_start(struct admission **out, const struct admission_env *env,
		    const char *key, const struct origin_meta *meta,
		    bool recheck, struct prefill_fill *fill,
		    admission_done_fn *done, void *arg);

/* Nobody waits any more: a download ends (its bytes stay in staging), work
 * beyond that goes on. @done still comes. */
void admission_cancel(struct admission *a);

/* For fetch.bytes_done and fetch.bytes_total; UINT64_MAX if unknown. */
void admission_progress(struct admission *a, uint64_t *done, uint64_t *total);

#endif

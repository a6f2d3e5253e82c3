/*
 * store - the face of the cache on disk: verified objects under a quota; each
 * wholly there or not, pinned while open; staging and commit.
 *
 * Under the cache folder (design section 4):
 *   objects/KEY            as published; the folder is itself a mirror
 *   index/KEY.index        checkpoints, rebuildable
 *   staging/KEY.partial    a download under way, with KEY.partial.json beside
 *                          it (etag, size, last_modified) and KEY.index.tmp
 *   quarantine/KEY         refused, with KEY.reason.json beside it
 *   catalog.sqlite         cache/catalog.h
 *   lock                   flock(2), holds the pid of the daemon
 *
 * Commit is: data and index synced, index renamed, object renamed, folders
 * synced, row written. A crash between any two of these leaves either the old
 * state or an object without a row, which store_acquire() reports as
 * -EUCLEAN, and which is checked again before it is served. After a crash, and
 * when the catalog lost rows, a census (in store_tick()) gives what lies there
 * without one a row of CATALOG_UNCHECKED, so that it counts and can be evicted.
 *
 * Keys come from outside: store_key_ok() says which may become file names.
 *
 * Threads: every function may be called from any thread. store_acquire(),
 * store_release(), store_partial(), store_stats() and what is asked of an
 * object do not wait for disk syncs; all others may (staging_write() only where
 * it has to evict) and belong on worker threads. A store does not survive a
 * fork: open it in the process that uses it.
 */
#ifndef CACHE_STORE_H
#define CACHE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/catalog.h"
#include "cache/checkpoints.h"
#include "cache/verdict.h"

enum { STORE_SMALL_MAX = 65536 };

struct store;

enum store_event_type {
	STORE_EVENT_EVICTED,	 /* key, bytes */
	STORE_EVENT_COMMITTED,	 /* key, bytes */
	STORE_EVENT_QUARANTINED, /* key, bytes, detail: the reason */
	STORE_EVENT_EXPIRED,	 /* a quarantined file was dropped */
	STORE_EVENT_DAMAGED,	 /* key or NULL, detail */
	STORE_EVENT_TRIMMED,	 /* of the ledger: lines, until */
	STORE_EVENT_DISK_ERROR,	 /* key or NULL, err, detail: the operation */
};

struct store_event {
	enum store_event_type type;
	const char *key;
	uint64_t bytes;
	int err;
	const char *detail;
	uint64_t lines; /* the oldest */
	int64_t until;	/* time of the newest of them */
};
/* On any thread; must not call the store. */
typedef void store_event_fn(void *arg, const struct store_event *ev);

struct store_config {
	const char *dir; /* created 0700 where it is missing */
	uint64_t quota_bytes;
	uint64_t min_free_bytes;  /* the larger of the two counts */
	double min_free_fraction; /* of the file system, 0 to 1 */
	store_event_fn *on_event;
	void *event_arg;
};

/*
 * store_open() - open or make a cache.
 * Returns 0; -EBUSY where another daemon holds it, *holder its pid (0 if it
 * can't be read); -EACCES where the folder is not ours or is writable by
 * others; -errno. Loads nothing that grows with the cache; leftovers of
 * unfinished index files are removed.
 */
int store_open(struct store **out, const struct store_config *cfg,
	       pid_t *holder);
/* All objects are released, all stagings closed. */
void store_close(struct store *st);

struct catalog *store_catalog(struct store *st);

/* Not empty, no leading or trailing slash, no empty, "." or ".." component,
 * no NUL or control byte, components of at most 200 bytes, at most 1024 in
 * all. */
bool store_key_ok(const char *key);

/* ---- cached objects ---- */

struct store_info {
	char etag[CATALOG_ETAG_MAX];
	uint64_t size;
	int64_t last_modified;
	unsigned char sha256[32];
	bool has_published;
	unsigned char published[32];
	enum verdict verdict;
	int64_t verified_at, checked_at;
	char origin[CATALOG_ORIGIN_MAX]; /* "" if not known */
};

/* A pinned object: its bytes stay readable until released, also if it is
 * replaced meanwhile. Shared by all who acquired the same version. */
struct store_object;

/*
 * store_acquire() - pin the cached object @key.
 * Returns 0; -ENOENT not cached (or quarantined); -EUCLEAN: something lies
 * there that must be checked again first (no row, no or bad index, wrong
 * length): store_recheck() it; -errno.
 * Counts as a use. Microseconds for an object already pinned or used lately.
 */
int store_acquire(struct store *st, const char *key, struct store_object **out);
struct store_object *store_ref(struct store_object *o);
void store_release(struct store_object *o); /* NULL is fine */

const char *store_object_key(const struct store_object *o);
const struct store_info *store_object_info(const struct store_object *o);
int store_object_fd(const struct store_object *o);
/* NULL for small plain objects, whose checked bytes are in memory instead. */
const struct checkpoints *store_object_index(const struct store_object *o);
const void *store_object_small(const struct store_object *o, size_t *len);

/*
 * store_damaged() - @o's bytes failed a check while being read: the next
 * store_acquire() of the key says -EUCLEAN. Those who hold @o keep it.
 */
void store_damaged(struct store *st, struct store_object *o);

/* Puts a small object (no zip) under its key, durably. -ENOSPC, -EFBIG;
 * -EINVAL for a bad key and where @info's size or SHA-256 is not that of
 * @data; -EBUSY while the key is staged; -errno. */
int store_put(struct store *st, const char *key, const struct store_info *info,
	      const void *data, size_t len);

/* The origin confirmed that the cached version is current. -ENOENT. What
 * store_object_info() gave before stays valid and does not change. */
int store_confirm(struct store *st, const char *key, int64_t now);

/* ---- admission ---- */

/* A download under way; one at a time for a key, one thread at a time but for
 * store_staging_write_back(). */
struct store_staging;

/*
 * store_stage() - the staging place of @key, with what an earlier attempt
 * left there. -EBUSY while another holder has it; -EINVAL for a bad key;
 * -ENOSPC, -errno.
 */
int store_stage(struct store *st, const char *key, struct store_staging **out);
/*
 * store_recheck() - the same, after moving the cached object itself back into
 * staging, as if it had just been downloaded: the way to heal and to adopt.
 * Its row and index are dropped. The staging has the ETag of the row only if
 * the bytes are still exactly those of the row (their SHA-256 is computed for
 * that); else "" and UINT64_MAX. The same holds for where they are from.
 * -ENOENT where there is none; -EIO where it can't be read, and then it stays
 * where it is.
 */
int store_recheck(struct store *st, const char *key,
		  struct store_staging **out);
/* Ends it; what was written stays for a later attempt. NULL is fine. */
void store_staging_close(struct store_staging *sg);

uint64_t store_staging_bytes(const struct store_staging *sg); /* so far */
/* What those bytes belong to: "" and UINT64_MAX where it is not known. */
const char *store_staging_etag(const struct store_staging *sg);
uint64_t store_staging_size(const struct store_staging *sg);
int64_t store_staging_last_modified(const struct store_staging *sg);
/* Of what store_recheck() moved there, as its row had it, else "". */
const char *store_staging_origin(const struct store_staging *sg);
/* For reading; the same number until the staging is closed. */
int store_staging_fd(const struct store_staging *sg);
/* Where the index is to be built (checkpoints_builder_create). */
void store_staging_index(const struct store_staging *sg, int *dirfd,
			 const char **name);

/*
 * store_staging_begin() - bytes of version @etag follow from offset @from; all
 * after it is cut off. Makes room: evicts, or -ENOSPC where @size can't fit
 * beside what is pinned. @size UINT64_MAX if unknown: room is then made as it
 * grows. What is promised to one download is not promised to another. -EINVAL
 * where @from is beyond what is staged; -errno. After an error begin again
 * before writing.
 */
int store_staging_begin(struct store_staging *sg, const char *etag,
			uint64_t size, int64_t last_modified, uint64_t from);
/* Appends. -ENOSPC (after evicting what could go), -EIO, -errno; what was
 * written before stays, and none of this. */
int store_staging_write(struct store_staging *sg, const void *buf, size_t len);
/* Starts to write to disk what is staged up to @end, so that a commit finds
 * little left to sync. May wait where the disk is behind. The one call that may
 * be made while another thread is in store_staging_write(). */
void store_staging_write_back(struct store_staging *sg, uint64_t end);
/* Waits until what was downloaded is on disk, so that a commit need not. Not
 * while another thread is in store_staging_write(), but while others read. The
 * commit tells a failure, and after one nobody goes on from what is staged. */
void store_staging_sync_ahead(struct store_staging *sg);
/* Drops all bytes. */
int store_staging_discard(struct store_staging *sg);
/*
 * store_staging_put_back() - what store_recheck() moved there lies in the cache
 * again, for another recheck; its index is gone. Close the staging afterwards
 * as always. -EINVAL where other bytes have come in its place; -errno, and then
 * they are still staged or will be found by a census.
 */
int store_staging_put_back(struct store_staging *sg);

/*
 * store_staging_commit() - what was staged is the object from now on. The
 * caller has verified it, and finished an index in the place of
 * store_staging_index() (a small plain object needs none). Close the staging
 * afterwards as always.
 * -EINVAL where @info's size is not that of what is staged, -ENOENT or -EBADMSG
 * for an index that is missing or not for @info. If the data can't be synced it
 * is discarded, as the kernel may have dropped it. After any other error the
 * bytes are still staged, or lie in objects/ and are -EUCLEAN.
 */
int store_staging_commit(struct store_staging *sg,
			 const struct store_info *info);

/* Into quarantine/ with @reason (one line), in the place of what lies there of
 * the key. An object of the key stays. What is larger than all of quarantine/
 * may be leaves its row and reason only. */
int store_staging_quarantine(struct store_staging *sg,
			     const struct store_info *info, const char *reason);

/* What is staged for @key, without touching it: -ENOENT if nothing. */
int store_partial(struct store *st, const char *key, uint64_t *bytes,
		  uint64_t *size);

/* ---- upkeep ---- */

/* Once a second or so: writes last uses in batches, ages quarantine, keeps
 * min_free, keeps the ledger to its limit: a line for each 2 KiB of the quota,
 * at least 1024. A line takes some 200 bytes, so that is about a tenth of the
 * quota. Worker thread. */
void store_tick(struct store *st, int64_t now);

struct store_stats {
	uint64_t used_bytes; /* everything under the folder */
	uint64_t quota_bytes, objects;
	uint64_t evictions;
};
void store_stats(struct store *st, struct store_stats *out);

#endif

/*
 * catalog - SQLite: what is known of listings, objects, cached files and the
 * ledger.
 *
 * Reads are point look-ups or ranges by primary key, take microseconds and may
 * be done on any thread, also on one that answers the kernel. Writes go through
 * one connection under a lock, commit before they return, and belong on worker
 * threads. WAL, synchronous=NORMAL: after a crash the catalog opens and is
 * consistent; after a loss of power the last commits may be missing, which
 * costs a look-up at the origin or a fresh check of a file, never wrong bytes.
 *
 * Every row carries a checksum over its fields; a row that fails it counts as
 * absent and is deleted at the next write, and so does a whole listing or
 * directory of which one row fails. A file that SQLite calls corrupt, or that
 * has other tables than ours, is put aside as catalog.sqlite.damaged-<time>
 * (the newest three are kept), what can be read of the ledger is carried over,
 * and an empty catalog takes its place while the program runs.
 *
 * Times are seconds since 1970. Strings handed in are copied. Callbacks run
 * with no lock held and may call the catalog again. Besides what is said below
 * every call may return -ENOMEM, -ENOSPC, -EIO or another -errno of the disk,
 * and -EINVAL for strings that are too long or not terminated.
 */
#ifndef CACHE_CATALOG_H
#define CACHE_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/archive.h"
#include "cache/verdict.h"

enum { CATALOG_ETAG_MAX = 128, CATALOG_ORIGIN_MAX = 256 };

struct catalog;

/* Told of a rebuilt or partly lost catalog; any thread. */
typedef void catalog_damage_fn(void *arg, const char *what);

/* @dir: absolute folder of the cache. Returns 0, -ENOMEM, -EIO, -ENOSPC,
 * -errno. A damaged file is rebuilt, not an error. Loads nothing. */
int catalog_open(struct catalog **out, const char *dir,
		 catalog_damage_fn *on_damage, void *arg);
void catalog_close(struct catalog *c); /* flushes last uses */

/*
 * catalog_tidy() - keep the files small: once a second or so.
 *
 * The log (catalog.sqlite-wal) is emptied when it has 6 MiB, which it can only
 * reach by one large write or where somebody reads at every moment: it would
 * then grow for ever. Writers wait for that, a second at most.
 *
 * Of catalog.sqlite free pages beyond 1 MiB and a quarter of it go back to the
 * file system, 4 MiB in a call. Files made before this was done lack what it
 * needs, and keep their size; pages are used again in any case.
 *
 * Worker thread.
 */
int catalog_tidy(struct catalog *c);

/* ---- listings ---- */

struct catalog_entry {
	const char *name; /* below the prefix, no slash */
	bool is_prefix;
	const char *etag; /* "" if none */
	uint64_t size;
	int64_t last_modified; /* -1 if unknown */
};

/* Replaces the listing of @prefix, atomically. @n 0 records an empty one. */
int catalog_listing_put(struct catalog *c, const char *prefix,
			const struct catalog_entry *entries, size_t n,
			int64_t now);
/* When was it fetched, and how many entries did it have? (NULL: not asked.)
 * -ENOENT if never. */
int catalog_listing_time(struct catalog *c, const char *prefix,
			 int64_t *fetched_at, uint64_t *entries);
/* Each entry in byte order of names; @fn non-zero stops and is returned. The
 * strings are valid during the call. -ENOENT if never listed. */
typedef int catalog_entry_fn(void *arg, const struct catalog_entry *e);
int catalog_listing_each(struct catalog *c, const char *prefix,
			 catalog_entry_fn *fn, void *arg);
/* One entry. -ENOENT: listed, and not there. -ENODATA: never listed. */
int catalog_entry_get(struct catalog *c, const char *prefix, const char *name,
		      bool *is_prefix, char etag[CATALOG_ETAG_MAX],
		      uint64_t *size, int64_t *last_modified,
		      int64_t *fetched_at);

/*
 * catalog_prefetch() - for a folder about to be asked about file by file: its
 * entries, and of those whose name ends in @suffix the facts put last and the
 * row of what is cached, are read into memory in one go, a few microseconds
 * each. More than fit (some thousands) push each other out. Worker thread.
 * -ENOENT if never listed.
 */
int catalog_prefetch(struct catalog *c, const char *prefix, const char *suffix);

/* ---- facts: what an object's tail told, for good, by ETag ---- */

enum {
	CATALOG_CSV_NONE = -1,	/* a zip without the CSV it is named for */
	CATALOG_NOT_A_ZIP = -2, /* no zip, or its directory can't be read */
};

struct catalog_facts {
	char etag[CATALOG_ETAG_MAX];
	uint64_t size;
	int64_t last_modified;
	int64_t seen_at;    /* when the origin last said so */
	int64_t csv_member; /* index, or one of the above */
	uint64_t csv_size;
	uint64_t members;
};

int catalog_facts_put(struct catalog *c, const char *key,
		      const struct catalog_facts *f,
		      const struct archive_directory *d /* or NULL */);
/* @etag NULL: the version put last. -ENOENT. */
int catalog_facts_get(struct catalog *c, const char *key, const char *etag,
		      struct catalog_facts *out);
/* The directory kept with the facts of (@key, @etag). -ENOENT. */
int catalog_directory_get(struct catalog *c, const char *key, const char *etag,
			  struct archive_directory **out);

/* ---- cached objects ---- */

enum catalog_state {
	CATALOG_VERIFIED,
	CATALOG_ACCEPTED,    /* served because integrity is lenient */
	CATALOG_QUARANTINED, /* refused; bytes lie in quarantine/ */
	/* Bytes lie in objects/ of which nothing is known (any more): counted
	 * and evicted like the others, but catalog_cached_get() does not show
	 * them. */
	CATALOG_UNCHECKED,
};

struct catalog_cached {
	char etag[CATALOG_ETAG_MAX];
	uint64_t size;
	uint64_t disk_bytes; /* object and index together, for the quota */
	int64_t last_modified;
	unsigned char sha256[32];
	bool has_published;
	unsigned char published[32]; /* SHA-256 as the .CHECKSUM says */
	enum verdict verdict;
	enum catalog_state state;
	int64_t verified_at; /* when the bytes were judged */
	int64_t checked_at;  /* when the origin last confirmed this version */
	/* Told by those that list rows and by catalog_last_use(); the _get()s
	 * leave it 0: every open is a use, and would cost what is kept in
	 * memory. */
	int64_t last_use;
	bool pinned; /* by the user: never evicted */
	/* Base URL of the archive the bytes were had from; "" if not known:
	 * they were found on disk, or the row is of before this was kept. */
	char origin[CATALOG_ORIGIN_MAX];
};

/*
 * A key has at most one row for what lies in objects/ and one for what lies in
 * quarantine/: one does not replace the other. catalog_cached_get() gives the
 * first if there are both. The last use of a quarantined row is when it was
 * judged.
 */
int catalog_cached_put(struct catalog *c, const char *key,
		       const struct catalog_cached *row);
int catalog_cached_get(struct catalog *c, const char *key,
		       struct catalog_cached *out); /* -ENOENT */
/* The row for objects/ alone, also one that is unchecked. -ENOENT. */
int catalog_object_get(struct catalog *c, const char *key,
		       struct catalog_cached *out);
int catalog_quarantined_get(struct catalog *c, const char *key,
			    struct catalog_cached *out); /* -ENOENT */
/* Of the row for objects/, or for quarantine/. No row is no error. */
int catalog_cached_delete(struct catalog *c, const char *key);
int catalog_quarantined_delete(struct catalog *c, const char *key);
int catalog_cached_checked(struct catalog *c, const char *key, int64_t now);
/* What was known of the object does not hold: CATALOG_UNCHECKED from here on.
 * -ENOENT. */
int catalog_cached_doubt(struct catalog *c, const char *key);
/* Rows as found on disk, for those that have none; one transaction. */
struct catalog_found {
	const char *key;
	uint64_t size, disk_bytes;
	int64_t at;
	enum catalog_state state; /* _UNCHECKED or _QUARANTINED */
};
int catalog_cached_found(struct catalog *c, const struct catalog_found *found,
			 size_t n);

/* Noted in memory, never earlier than what is noted already;
 * catalog_flush() writes them in one transaction; if it can't, they stay noted.
 * What comes while 65536 keys are noted is dropped: it costs an eviction too
 * early. */
int catalog_touch(struct catalog *c, const char *key, int64_t now);
int catalog_flush(struct catalog *c);
/* Of the row for objects/, as written. -ENOENT. */
int catalog_last_use(struct catalog *c, const char *key, int64_t *at);

/* What lies in objects/, unpinned, least recently used first; @fn non-zero
 * stops and is returned. Uses noted by catalog_touch() count: it writes them,
 * or, where that fails (a full disk), tells of what was used since at the end.
 */
typedef int catalog_cached_fn(void *arg, const char *key,
			      const struct catalog_cached *row);
int catalog_cached_lru(struct catalog *c, catalog_cached_fn *fn, void *arg);
/* Quarantined, oldest first. */
int catalog_quarantined(struct catalog *c, catalog_cached_fn *fn, void *arg);

/* Count and bytes of what lies in objects/ under keys that begin with @prefix;
 * "" is answered from kept totals at once, others cost a range of keys. There,
 * keys that end in @less (NULL: none) add their bytes but are not counted. */
int catalog_usage(struct catalog *c, const char *prefix, const char *less,
		  uint64_t *files, uint64_t *disk_bytes);
int catalog_quarantine_usage(struct catalog *c, uint64_t *files,
			     uint64_t *disk_bytes); /* at once */

/* ---- ledger: append-only ----
 * Nobody who writes to the file can change or delete a line, unless on purpose
 * he deletes the triggers first. catalog_ledger_trim() alone takes lines away,
 * the oldest.
 */

/* @event: "accepted" (entered the cache) or "opened" (first in this run). */
int catalog_ledger_add(struct catalog *c, const char *run_id, const char *event,
		       const char *key, const unsigned char sha256[32],
		       enum verdict v, int64_t now);

struct catalog_trimmed {
	uint64_t lines;
	int64_t until; /* time of the newest of them */
};

/*
 * catalog_ledger_trim() - drop the oldest lines, so that the newest @keep stay
 * and at most a sixteenth of that, or 1023 lines, more.
 * @keep: 1 or more
 * @out: what was dropped: lines 0 for nothing
 *
 * Does at most 16,384 lines, in transactions of some milliseconds between which
 * others can write: where a call does that many, there may be more to do. Each
 * transaction is wholly done or not at all. New rows take the pages of old
 * ones; to make the file smaller is catalog_tidy()'s. Worker thread.
 */
int catalog_ledger_trim(struct catalog *c, uint64_t keep,
			struct catalog_trimmed *out);

#endif

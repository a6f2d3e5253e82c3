/*
 * supply - what is known of an object, and the object itself pinned: from the
 * cache, or fetched once however many ask.
 *
 * Which version is current is what was observed last: by a listing, an answer's
 * headers or a revalidation. Each observation that differs from the one before
 * is a republished archive: counted, logged, and from then on new opens get
 * the new bytes.
 *
 * Functions that take a waiter answer at once where they can. Otherwise they
 * start what is needed, return -EINPROGRESS, and wake the waiter: with an
 * error, which is then the answer, or with 0, and then the caller asks again.
 * With the waiter NULL nothing is started. What the budget (fs/budget.h) does
 * not allow is -EDQUOT at once. All may be called on any thread.
 */
#ifndef FS_SUPPLY_H
#define FS_SUPPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/store.h"
#include "fetch/origin.h"
#include "fs/budget.h"
#include "fs/waitlist.h"
#include "fs/workers.h"

struct supply;
struct prefill;
struct prefill_reader;

struct supply_config {
	struct origin *origin;
	struct store *store;
	struct workers *quick;	 /* answers that came */
	struct workers *heavy;	 /* digests, decode, commit */
	struct prefill *prefill; /* may be NULL */
	struct budget *budget;	 /* likewise */
	/* Downloads under way at once, each of INGEST_BYTES (fs/ingest.h) and
	 * a MiB of the fill (fs/prefill.h); of those that get no bytes up to
	 * three times as many more. */
	unsigned int admissions;
	const char *run_id;
	bool lenient, offline, has_mirror;
	/* Bytes come at a rate of our own: then who gets none is held back by
	 * it like as not, and no more than `admissions` are under way. */
	bool paced;
	uint64_t negative_ttl_ms, revalidate_ms;
};

int supply_create(struct supply **out, const struct supply_config *cfg);
/* After origin_free() and workers_free(): nothing is under way. */
void supply_free(struct supply *s);

/* What the origin has. */
struct supply_facts {
	char etag[ORIGIN_ETAG_MAX]; /* "" if it gives none */
	uint64_t size;
	int64_t last_modified; /* -1 if unknown */
	/* Of an archive, where `has_csv`: */
	bool has_csv;	    /* the next two are known */
	int64_t csv_member; /* or CATALOG_CSV_NONE */
	uint64_t csv_size;
};

enum supply_need {
	SUPPLY_OBJECT, /* etag, size, last_modified */
	SUPPLY_CSV,    /* and the CSV in it: -EBADMSG where it is no zip */
};

/*
 * supply_facts() - what is there under @key. 0, -EINPROGRESS, -ENOENT, or the
 * errors of design section 2.
 */
int supply_facts(struct supply *s, const char *key, enum supply_need need,
		 struct waiter *w, struct supply_facts *out);

/* The members of the archive @key, in its current version; facts first. */
int supply_members(struct supply *s, const char *key, struct waiter *w,
		   struct archive_directory **out);

/*
 * supply_open() - the current version of @key, verified (or accepted), pinned:
 * the caller's to store_release(). 0, -EINPROGRESS, or errors.
 * @r: what is downloaded while @w waits may be given to it (fs/prefill.h); or
 * NULL
 */
int supply_open(struct supply *s, const char *key, struct waiter *w,
		const struct prefill_reader *r, struct store_object **out);

/*
 * supply_heal() - @o's bytes failed a check while being read. Gets the same
 * version again. 0 with @out, -EINPROGRESS, -EBADMSG where that version is not
 * to be had any more, or errors.
 */
int supply_heal(struct supply *s, struct store_object *o, struct waiter *w,
		struct store_object **out);

/* Who waited for supply_open() of @key gave up: a download that nobody waits
 * for any more ends. */
void supply_abandon(struct supply *s, const char *key);

/*
 * supply_sizes() - learn the CSV sizes of many archives, in the background and
 * a few at a time, so that someone who asks for one is not behind them all.
 * @keys and its strings are taken over and freed.
 */
void supply_sizes(struct supply *s, char **keys, size_t n);

/* A listing showed this version at time @now. */
void supply_note(struct supply *s, const char *key, const char *etag,
		 uint64_t size, int64_t last_modified, int64_t now);

/* For attributes: what can be told without asking anyone. */
struct supply_status {
	bool known; /* facts.etag, size, last_modified hold */
	struct supply_facts facts;
	bool fetching;
	uint64_t bytes_done, bytes_total; /* of a fetch or a partial */
	enum {
		SUPPLY_ABSENT,
		SUPPLY_PARTIAL,
		SUPPLY_VERIFIED,
		SUPPLY_ACCEPTED,
		SUPPLY_QUARANTINED
	} state;
	bool has_cached;
	struct catalog_cached cached; /* its row, also of a quarantined one */
};
void supply_status(struct supply *s, const char *key,
		   struct supply_status *out);

/* Downloads under way, for status.json. */
typedef void supply_fetch_fn(void *arg, const char *key, uint64_t done,
			     uint64_t total, uint64_t running_ms);
void supply_each_fetch(struct supply *s, supply_fetch_fn *fn, void *arg);

/* Once a second: logs waits of every 5 s, forgets what was not used lately. */
void supply_tick(struct supply *s, uint64_t now_ms);

#endif

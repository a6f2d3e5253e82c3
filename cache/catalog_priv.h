/*
 * catalog_priv - what the files of the catalog share: catalog.c (statements,
 * doubts), catalog_listings.c, catalog_facts.c, catalog_cached.c (rows of
 * objects and their totals), catalog_uses.c (last uses, and the order they
 * make), catalog_ledger.c, catalog_memory.c (what was asked last).
 *
 * Each call packs its arguments into a struct and hands a function to
 * catalog_db_read() or catalog_write(), which may run it twice (when the file
 * is replaced in between): so a work function leaves no trace but in the
 * database and in its own struct, which it fills anew.
 *
 * A row that fails its checksum is noted as a doubt and skipped; the next
 * write deletes it. Callbacks run when SQLite is done, from copies.
 */
#ifndef CACHE_CATALOG_PRIV_H
#define CACHE_CATALOG_PRIV_H

#include <pthread.h>
#include <string.h>

#include "cache/catalog.h"
#include "cache/catalog_db.h"
#include "cache/catalog_schema.h"

enum { CATALOG_DOUBTS_MAX = 64 };

/* Where the bytes lie; the first column of table cached. */
enum catalog_place { CATALOG_OBJECTS, CATALOG_QUARANTINE };

enum catalog_sql {
	LISTING_GET,
	LISTING_PUT,
	LISTING_DELETE,
	ENTRY_AT_OR_AFTER,
	ENTRY_BEFORE,
	ENTRIES_GET,
	ENTRY_PUT,
	ENTRIES_DELETE,
	FACTS_GET,
	FACTS_LAST,
	FACTS_PUT,
	FACTS_DELETE,
	MEMBERS_GET,
	MEMBER_PUT,
	MEMBERS_DELETE,
	CACHED_GET,
	CACHED_PUT,
	CACHED_DELETE,
	CACHED_LRU,
	CACHED_RANGE,
	TOTAL_GET,
	TOTAL_PUT,
	LEDGER_FIRST,
	LEDGER_LAST,
	LEDGER_BEFORE,
	LEDGER_CUT,
	PAGES,
	PAGES_FREE,
	PAGES_GIVE_BACK,
	SQL_COUNT,
};

enum catalog_doubted {
	DOUBT_LISTING,
	DOUBT_FACTS,
	DOUBT_CACHED,
	DOUBT_TOTAL,
};

/* A row to be deleted at the next write. */
struct catalog_doubt {
	enum catalog_doubted what;
	int64_t id;  /* of the listing or facts, or the place */
	char *a, *b; /* prefix; key and etag; key */
};

struct catalog_memory;

struct catalog {
	struct catalog_db *db;
	struct catalog_memory *memory;
	catalog_damage_fn *on_damage;
	void *damage_arg;

	pthread_mutex_t doubts_lock;
	struct catalog_doubt doubts[CATALOG_DOUBTS_MAX]; /* protected by
							  * doubts_lock */
	size_t n_doubts; /* protected by doubts_lock */

	pthread_mutex_t touches_lock;
	void *touches;	  /* tsearch(3); protected by touches_lock */
	size_t n_touches; /* protected by touches_lock */
};

static inline int64_t catalog_column(sqlite3_stmt *stmt, int column)
{
	return sqlite3_column_int64(stmt, column);
}

/* Sizes are unsigned here and signed in SQLite; both have 64 bits. */
static inline uint64_t catalog_column_u64(sqlite3_stmt *stmt, int column)
{
	return (uint64_t)sqlite3_column_int64(stmt, column);
}

static inline uint32_t catalog_crc_u64(uint32_t crc, uint64_t v)
{
	return catalog_schema_crc_int(crc, (int64_t)v);
}

static inline bool catalog_etag_ok(const char *etag)
{
	return strnlen(etag, CATALOG_ETAG_MAX) < CATALOG_ETAG_MAX;
}

/* False for one that is too long to be ours. */
bool catalog_column_etag(sqlite3_stmt *stmt, int n, char out[CATALOG_ETAG_MAX]);

/* Notes it and says so. */
void catalog_note_doubt(struct catalog *c, enum catalog_doubted what,
			int64_t id, const char *a, const char *b);
/* As catalog_db_write(), after deleting what is doubted. @scope is forgotten
 * in memory; NULL where nothing is asked of what is written. */
int catalog_write(struct catalog *c, const char *scope, catalog_work_fn *work,
		  void *arg);

/* ---- catalog_memory.c ---- */

enum catalog_question {
	ASKED_ENTRY,
	ASKED_LISTING_TIME,
	ASKED_FACTS,
	ASKED_FACTS_LAST,
	ASKED_CACHED,
	ASKED_OBJECT,
};

struct catalog_asked {
	enum catalog_question question;
	/* A write changes all of a scope at once. */
	const char *scope, *name;
	uint64_t generation; /* set by _get(), for _put() */
};

struct catalog_memory *catalog_memory_create(void); /* NULL: no memory */
void catalog_memory_free(struct catalog_memory *m);
/* Was it asked, and nothing of its scope written since? Then *err and, where
 * that is 0, @value are the answer. */
bool catalog_memory_get(struct catalog_memory *m, struct catalog_asked *q,
			void *value, size_t size, int *err);
/* The answer, as the database gave it after the _get(). */
void catalog_memory_put(struct catalog_memory *m, const struct catalog_asked *q,
			const void *value, size_t size, int err);
/* After a write was committed, before its call returns. */
void catalog_memory_forget(struct catalog_memory *m, const char *scope);
void catalog_memory_forget_all(struct catalog_memory *m);

/*
 * Answers not in memory are put there: first _ask() of each, then in a
 * transaction that began after it _prefetch(). One that began before would see
 * what was there then, and keep it as if nothing had been written since.
 */
void catalog_facts_ask(struct catalog *c, struct catalog_asked *q,
		       const char *key);
int catalog_facts_prefetch(struct catalog *c, struct catalog_conn *conn,
			   const struct catalog_asked *q);
void catalog_cached_ask(struct catalog *c, struct catalog_asked *q,
			const char *key);
int catalog_cached_prefetch(struct catalog *c, struct catalog_conn *conn,
			    const struct catalog_asked *q);

/* ---- catalog_cached.c, in a transaction ---- */

/* The total anew from the rows. */
int catalog_recount(struct catalog_conn *conn, enum catalog_place place);
/* -ENOENT; -EBADMSG for a row that fails its checksum. */
int catalog_row_get(struct catalog_conn *conn, enum catalog_place place,
		    const char *key, struct catalog_cached *r);
/* The row under @stmt, a SELECT of all columns. -EBADMSG. */
int catalog_row_of(sqlite3_stmt *stmt, enum catalog_place place,
		   const char *key, struct catalog_cached *r);
/* For a row that is there; totals are not kept. */
int catalog_row_write(struct catalog_conn *conn, enum catalog_place place,
		      const char *key, const struct catalog_cached *r);

#endif

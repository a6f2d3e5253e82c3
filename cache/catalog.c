/*
 * The catalog as a whole: its statements, and what of it is doubted.
 * How the other files work with it says cache/catalog_priv.h.
 */
#include "cache/catalog.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>

#include "cache/catalog_priv.h"

#define CACHED_COLUMNS                                                         \
	"key, etag, size, disk_bytes, last_modified, sha256, published,"       \
	" verdict, state, verified_at, checked_at, last_use, pinned, crc,"     \
	" origin"
#define FACTS_COLUMNS                                                          \
	"id, etag, nth, size, last_modified, seen_at, csv_member, csv_size,"   \
	" members, has_directory, crc"
#define ENTRY_COLUMNS "name, is_prefix, etag, size, last_modified, crc"

/* clang-format off */
static const char *const statements[SQL_COUNT] = {
	[LISTING_GET] = "SELECT id, fetched_at, entries, crc FROM listing"
		" WHERE prefix = ?1",
	[LISTING_PUT] = "INSERT OR REPLACE INTO listing"
		" (id, prefix, fetched_at, entries, crc)"
		" VALUES (?1, ?2, ?3, ?4, ?5)",
	[LISTING_DELETE] = "DELETE FROM listing WHERE prefix = ?1",
	[ENTRY_AT_OR_AFTER] = "SELECT " ENTRY_COLUMNS " FROM entry"
		" WHERE listing = ?1 AND name >= ?2 ORDER BY name LIMIT 1",
	[ENTRY_BEFORE] = "SELECT " ENTRY_COLUMNS " FROM entry"
		" WHERE listing = ?1 AND name < ?2 ORDER BY name DESC LIMIT 1",
	[ENTRIES_GET] = "SELECT " ENTRY_COLUMNS " FROM entry"
		" WHERE listing = ?1 ORDER BY name",
	[ENTRY_PUT] = "INSERT OR IGNORE INTO entry"
		" (listing, " ENTRY_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	[ENTRIES_DELETE] = "DELETE FROM entry WHERE listing = ?1",
	[FACTS_GET] = "SELECT " FACTS_COLUMNS " FROM facts"
		" WHERE key = ?1 AND etag = ?2",
	[FACTS_LAST] = "SELECT " FACTS_COLUMNS " FROM facts"
		" WHERE key = ?1 ORDER BY nth DESC",
	[FACTS_PUT] = "INSERT OR REPLACE INTO facts (key, " FACTS_COLUMNS ")"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
	[FACTS_DELETE] = "DELETE FROM facts WHERE key = ?1 AND etag = ?2",
	[MEMBERS_GET] = "SELECT n, name, size, csize, crc32, method, encrypted,"
		" is_dir, mtime, crc FROM member WHERE facts = ?1 ORDER BY n",
	[MEMBER_PUT] = "INSERT INTO member (facts, n, name, size, csize, crc32,"
		" method, encrypted, is_dir, mtime, crc)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
	[MEMBERS_DELETE] = "DELETE FROM member WHERE facts = ?1",
	[CACHED_GET] = "SELECT " CACHED_COLUMNS " FROM cached"
		" WHERE place = ?1 AND key = ?2",
	[CACHED_PUT] = "INSERT OR REPLACE INTO cached (place, " CACHED_COLUMNS ")"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
		" ?13, ?14, ?15, ?16)",
	[CACHED_DELETE] = "DELETE FROM cached WHERE place = ?1 AND key = ?2",
	[CACHED_LRU] = "SELECT " CACHED_COLUMNS " FROM cached"
		" WHERE place = ?1 AND pinned = 0 AND (last_use, key) > (?2, ?3)"
		" ORDER BY last_use, key LIMIT ?4",
	[CACHED_RANGE] = "SELECT disk_bytes, key FROM cached"
		" WHERE place = ?1 AND key >= ?2 AND key < ?3",
	[TOTAL_GET] = "SELECT files, disk_bytes, crc FROM total"
		" WHERE place = ?1",
	[TOTAL_PUT] = "INSERT OR REPLACE INTO total"
		" (place, files, disk_bytes, crc) VALUES (?1, ?2, ?3, ?4)",
	[LEDGER_FIRST] = "SELECT min(id) FROM ledger",
	[LEDGER_LAST] = "SELECT max(id) FROM ledger",
	[LEDGER_BEFORE] = "SELECT at FROM ledger WHERE id < ?1"
		" ORDER BY id DESC LIMIT 1",
	[LEDGER_CUT] = "DELETE FROM ledger WHERE id < ?1",
	[PAGES] = "PRAGMA page_count",
	[PAGES_FREE] = "PRAGMA freelist_count",
	[PAGES_GIVE_BACK] = "PRAGMA incremental_vacuum(1024)",
};
/* clang-format on */

/* A new file, or rows that are doubted: nothing that was read holds. */
static void on_damage_seen(void *arg, const char *what)
{
	struct catalog *c = arg;

	catalog_memory_forget_all(c->memory);
	if (c->on_damage)
		c->on_damage(c->damage_arg, what);
}

int catalog_open(struct catalog **out, const char *dir,
		 catalog_damage_fn *on_damage, void *arg)
{
	struct catalog *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->on_damage = on_damage;
	c->damage_arg = arg;
	pthread_mutex_init(&c->doubts_lock, NULL);
	pthread_mutex_init(&c->touches_lock, NULL);
	c->memory = catalog_memory_create();
	err = c->memory ? catalog_db_open(&c->db, dir, on_damage_seen, c,
					  statements, SQL_COUNT)
			: -ENOMEM;
	if (err) {
		catalog_close(c);
		return err;
	}
	*out = c;
	return 0;
}

static void doubt_free(struct catalog_doubt *d)
{
	free(d->a);
	free(d->b);
}

void catalog_close(struct catalog *c)
{
	if (!c)
		return;
	if (c->db)
		catalog_flush(c);
	catalog_db_close(c->db);
	while (c->n_doubts > 0)
		doubt_free(&c->doubts[--c->n_doubts]);
	tdestroy(c->touches, free);
	catalog_memory_free(c->memory);
	pthread_mutex_destroy(&c->touches_lock);
	pthread_mutex_destroy(&c->doubts_lock);
	free(c);
}

/* ---- upkeep ---- */

enum {
	/* Free pages that are kept: 1 MiB, or a quarter of a larger file. What
	 * was replaced, like a listing, is soon written again. */
	FREE_PAGES_KEPT = 256,
	FREE_SHARE_KEPT = 4,
};

struct pages {
	int64_t all, free;
};

static int count_pages(struct catalog_conn *conn, void *arg)
{
	static const enum catalog_sql sql[] = {PAGES, PAGES_FREE};
	struct pages *p = arg;
	int64_t *const out[] = {&p->all, &p->free};

	for (int i = 0; i < 2; i++) {
		sqlite3_stmt *stmt = catalog_db_stmt(conn, sql[i]);
		int more = catalog_db_bind(conn, stmt, "");

		if (!more)
			more = catalog_db_step(conn, stmt);
		if (more < 0)
			return more;
		*out[i] = catalog_column(stmt, 0);
	}
	return 0;
}

static int give_back_pages(struct catalog_conn *conn, void *arg)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, PAGES_GIVE_BACK);
	int more = catalog_db_bind(conn, stmt, "");

	(void)arg;
	if (more)
		return more;
	/* Each step is a page. */
	while ((more = catalog_db_step(conn, stmt)) > 0)
		;
	return more;
}

int catalog_tidy(struct catalog *c)
{
	struct pages p;
	int err;

	err = catalog_db_read(c->db, count_pages, &p);
	if (!err && p.free > FREE_PAGES_KEPT &&
	    p.free > p.all / FREE_SHARE_KEPT)
		err = catalog_write(c, NULL, give_back_pages, NULL);
	return err ? err : catalog_db_shorten_log(c->db);
}

bool catalog_column_etag(sqlite3_stmt *stmt, int n, char out[CATALOG_ETAG_MAX])
{
	const char *s = catalog_schema_text(stmt, n);

	if (!s || strlen(s) >= CATALOG_ETAG_MAX)
		return false;
	strcpy(out, s);
	return true;
}

/* ---- doubts ---- */

void catalog_note_doubt(struct catalog *c, enum catalog_doubted what,
			int64_t id, const char *a, const char *b)
{
	static const char *const said[] = {
		[DOUBT_LISTING] = "a listing failed its checksum",
		[DOUBT_FACTS] = "facts of an object failed their checksum",
		[DOUBT_CACHED] = "the row of an object failed its checksum",
		[DOUBT_TOTAL] = "a total failed its checksum",
	};
	struct catalog_doubt d = {.what = what, .id = id};
	bool noted = false;

	d.a = strdup(a ? a : "");
	d.b = strdup(b ? b : "");
	if (!d.a || !d.b) {
		doubt_free(&d);
		return;
	}
	pthread_mutex_lock(&c->doubts_lock);
	/* What finds no room is found bad again when it is next read. */
	if (c->n_doubts < CATALOG_DOUBTS_MAX) {
		c->doubts[c->n_doubts++] = d;
		noted = true;
	}
	pthread_mutex_unlock(&c->doubts_lock);
	if (!noted)
		doubt_free(&d);
	else
		on_damage_seen(c, said[what]);
}

static int delete_doubted(struct catalog_conn *conn,
			  const struct catalog_doubt *d)
{
	int err = 0;

	switch (d->what) {
	case DOUBT_LISTING:
		err = catalog_db_run(conn, ENTRIES_DELETE, "i", d->id);
		if (!err)
			err = catalog_db_run(conn, LISTING_DELETE, "t", d->a);
		break;
	case DOUBT_FACTS:
		err = catalog_db_run(conn, MEMBERS_DELETE, "i", d->id);
		if (!err)
			err = catalog_db_run(conn, FACTS_DELETE, "tt", d->a,
					     d->b);
		break;
	case DOUBT_CACHED:
		err = catalog_db_run(conn, CACHED_DELETE, "it", d->id, d->a);
		/* What it added to the total can't be known. */
		if (!err)
			err = catalog_recount(conn, (enum catalog_place)d->id);
		break;
	case DOUBT_TOTAL:
		err = catalog_recount(conn, (enum catalog_place)d->id);
		break;
	}
	return err;
}

struct purged_work {
	struct catalog_doubt *doubts;
	size_t n;
	catalog_work_fn *work;
	void *arg;
};

static int purge_and_work(struct catalog_conn *conn, void *arg)
{
	struct purged_work *w = arg;
	int err = 0;

	for (size_t i = 0; i < w->n && !err; i++)
		err = delete_doubted(conn, &w->doubts[i]);
	return err ? err : w->work(conn, w->arg);
}

/*
 * The doubted row may have been written anew since; deleting it again costs a
 * look-up at the origin or a check, and no more.
 */
int catalog_write(struct catalog *c, const char *scope, catalog_work_fn *work,
		  void *arg)
{
	struct catalog_doubt doubts[CATALOG_DOUBTS_MAX];
	struct purged_work w = {.doubts = doubts, .work = work, .arg = arg};
	int err;

	pthread_mutex_lock(&c->doubts_lock);
	w.n = c->n_doubts;
	memcpy(doubts, c->doubts, w.n * sizeof(doubts[0]));
	c->n_doubts = 0;
	pthread_mutex_unlock(&c->doubts_lock);
	err = catalog_db_write(c->db, purge_and_work, &w);
	/* Also after an error: who can say what of it was done. */
	if (scope)
		catalog_memory_forget(c->memory, scope);
	for (size_t i = 0; i < w.n; i++) {
		catalog_memory_forget(c->memory, doubts[i].a);
		doubt_free(&doubts[i]);
	}
	return err;
}

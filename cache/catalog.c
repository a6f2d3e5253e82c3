/*
 * Rows to structs and back. Each call packs its arguments into a struct and
 * hands a function to catalog_db_read() or _write(), which may run it twice
 * (when the file is replaced in between): so a work function leaves no trace
 * but in the database and in its own struct, which it fills anew.
 *
 * A row that fails its checksum is noted as a doubt and skipped; the next
 * write deletes it. Callbacks run when SQLite is done, from copies.
 */
#include "cache/catalog.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/catalog_db.h"
#include "cache/catalog_schema.h"

enum {
	DOUBTS_MAX = 64,
	TOUCHES_MAX = 65536,
	BATCH = 64, /* rows a callback is fed with from one read */
	PREFIX_MAX = 4096,
};

/* Where the bytes lie; the first column of table cached. */
enum place { OBJECTS, QUARANTINE };

#define CACHED_COLUMNS                                                         \
	"key, etag, size, disk_bytes, last_modified, sha256, published,"       \
	" verdict, state, verified_at, checked_at, last_use, pinned, crc"
#define FACTS_COLUMNS                                                          \
	"id, etag, nth, size, last_modified, seen_at, csv_member, csv_size,"   \
	" members, has_directory, crc"
#define ENTRY_COLUMNS "name, is_prefix, etag, size, last_modified, crc"

enum sql {
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
	SQL_COUNT,
};

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
		" ?13, ?14, ?15)",
	[CACHED_DELETE] = "DELETE FROM cached WHERE place = ?1 AND key = ?2",
	[CACHED_LRU] = "SELECT " CACHED_COLUMNS " FROM cached"
		" WHERE place = ?1 AND pinned = 0 AND (last_use, key) > (?2, ?3)"
		" ORDER BY last_use, key LIMIT ?4",
	[CACHED_RANGE] = "SELECT disk_bytes FROM cached"
		" WHERE place = ?1 AND key >= ?2 AND key < ?3",
	[TOTAL_GET] = "SELECT files, disk_bytes, crc FROM total"
		" WHERE place = ?1",
	[TOTAL_PUT] = "INSERT OR REPLACE INTO total"
		" (place, files, disk_bytes, crc) VALUES (?1, ?2, ?3, ?4)",
};
/* clang-format on */

/* A row to be deleted at the next write. */
struct doubt {
	enum { DOUBT_LISTING, DOUBT_FACTS, DOUBT_CACHED, DOUBT_TOTAL } what;
	int64_t id;  /* of the listing or facts, or the place */
	char *a, *b; /* prefix; key and etag; key */
};

struct touch {
	int64_t at;
	char key[];
};

struct catalog {
	struct catalog_db *db;
	catalog_damage_fn *on_damage;
	void *damage_arg;

	pthread_mutex_t doubts_lock;
	struct doubt doubts[DOUBTS_MAX]; /* protected by doubts_lock */
	size_t n_doubts;		 /* protected by doubts_lock */

	pthread_mutex_t touches_lock;
	void *touches;	  /* tsearch(3); protected by touches_lock */
	size_t n_touches; /* protected by touches_lock */
};

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
	err = catalog_db_open(&c->db, dir, on_damage, arg, statements,
			      SQL_COUNT);
	if (err) {
		catalog_close(c);
		return err;
	}
	*out = c;
	return 0;
}

static void doubt_free(struct doubt *d)
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
	pthread_mutex_destroy(&c->touches_lock);
	pthread_mutex_destroy(&c->doubts_lock);
	free(c);
}

static uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t sub_sat(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* Sizes are unsigned here and signed in SQLite; both have 64 bits. */
static uint64_t column_u64(sqlite3_stmt *stmt, int column)
{
	return (uint64_t)sqlite3_column_int64(stmt, column);
}

static int64_t column(sqlite3_stmt *stmt, int column)
{
	return sqlite3_column_int64(stmt, column);
}

static bool column_etag(sqlite3_stmt *stmt, int n, char out[CATALOG_ETAG_MAX])
{
	const char *s = catalog_schema_text(stmt, n);

	if (!s || strlen(s) >= CATALOG_ETAG_MAX)
		return false;
	strcpy(out, s);
	return true;
}

static bool etag_ok(const char *etag)
{
	return strnlen(etag, CATALOG_ETAG_MAX) < CATALOG_ETAG_MAX;
}

static uint32_t crc_u64(uint32_t crc, uint64_t v)
{
	return catalog_schema_crc_int(crc, (int64_t)v);
}

/* ---- doubts ---- */

static void doubt(struct catalog *c, int what, int64_t id, const char *a,
		  const char *b)
{
	static const char *const said[] = {
		[DOUBT_LISTING] = "a listing failed its checksum",
		[DOUBT_FACTS] = "facts of an object failed their checksum",
		[DOUBT_CACHED] = "the row of an object failed its checksum",
		[DOUBT_TOTAL] = "a total failed its checksum",
	};
	struct doubt d = {.what = what, .id = id};
	bool noted = false;

	d.a = strdup(a ? a : "");
	d.b = strdup(b ? b : "");
	if (!d.a || !d.b) {
		doubt_free(&d);
		return;
	}
	pthread_mutex_lock(&c->doubts_lock);
	/* What finds no room is found bad again when it is next read. */
	if (c->n_doubts < DOUBTS_MAX) {
		c->doubts[c->n_doubts++] = d;
		noted = true;
	}
	pthread_mutex_unlock(&c->doubts_lock);
	if (!noted)
		doubt_free(&d);
	else if (c->on_damage)
		c->on_damage(c->damage_arg, said[what]);
}

static int recount(struct catalog_conn *conn, enum place place);

static int delete_doubted(struct catalog_conn *conn, const struct doubt *d)
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
			err = recount(conn, (enum place)d->id);
		break;
	case DOUBT_TOTAL:
		err = recount(conn, (enum place)d->id);
		break;
	}
	return err;
}

struct purged_work {
	struct doubt *doubts;
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
static int write_work(struct catalog *c, catalog_work_fn *work, void *arg)
{
	struct doubt doubts[DOUBTS_MAX];
	struct purged_work w = {.doubts = doubts, .work = work, .arg = arg};
	int err;

	pthread_mutex_lock(&c->doubts_lock);
	w.n = c->n_doubts;
	memcpy(doubts, c->doubts, w.n * sizeof(doubts[0]));
	c->n_doubts = 0;
	pthread_mutex_unlock(&c->doubts_lock);
	err = catalog_db_write(c->db, purge_and_work, &w);
	for (size_t i = 0; i < w.n; i++)
		doubt_free(&doubts[i]);
	return err;
}

/* ---- listings ---- */

struct listing_row {
	int64_t id, fetched_at, entries;
};

static uint32_t listing_crc(const char *prefix, const struct listing_row *l)
{
	uint32_t crc = catalog_schema_crc('L');

	crc = catalog_schema_crc_int(crc, l->id);
	crc = catalog_schema_crc_text(crc, prefix);
	crc = catalog_schema_crc_int(crc, l->fetched_at);
	return catalog_schema_crc_int(crc, l->entries);
}

static uint32_t entry_crc(int64_t listing, const struct catalog_entry *e)
{
	uint32_t crc = catalog_schema_crc('e');

	crc = catalog_schema_crc_int(crc, listing);
	crc = catalog_schema_crc_text(crc, e->name);
	crc = catalog_schema_crc_int(crc, e->is_prefix);
	crc = catalog_schema_crc_text(crc, e->etag);
	crc = crc_u64(crc, e->size);
	return catalog_schema_crc_int(crc, e->last_modified);
}

/* -ENOENT; -EBADMSG for a row that fails its checksum. */
static int listing_get(struct catalog_conn *conn, const char *prefix,
		       struct listing_row *l)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, LISTING_GET);
	int more;

	more = catalog_db_bind(conn, stmt, "t", prefix);
	if (!more)
		more = catalog_db_step(conn, stmt);
	if (more <= 0)
		return more ? more : -ENOENT;
	l->id = column(stmt, 0);
	l->fetched_at = column(stmt, 1);
	l->entries = column(stmt, 2);
	return column(stmt, 3) == listing_crc(prefix, l) ? 0 : -EBADMSG;
}

/* The row under @stmt; the strings are SQLite's. */
static int entry_of(sqlite3_stmt *stmt, int64_t listing,
		    struct catalog_entry *e)
{
	e->name = catalog_schema_text(stmt, 0);
	e->is_prefix = column(stmt, 1) != 0;
	e->etag = catalog_schema_text(stmt, 2);
	e->size = column_u64(stmt, 3);
	e->last_modified = column(stmt, 4);
	if (!e->name || !e->etag || !etag_ok(e->etag) ||
	    column(stmt, 5) != entry_crc(listing, e))
		return -EBADMSG;
	return 0;
}

struct listing_put {
	const char *prefix;
	const struct catalog_entry *entries;
	size_t n;
	int64_t now;
};

static int put_entries(struct catalog_conn *conn, int64_t id,
		       const struct listing_put *w, int64_t *added)
{
	int err = 0;

	for (size_t i = 0; i < w->n && !err; i++) {
		const struct catalog_entry *e = &w->entries[i];

		err = catalog_db_run(conn, ENTRY_PUT, "ititiii", id, e->name,
				     (int64_t)e->is_prefix, e->etag,
				     (int64_t)e->size, e->last_modified,
				     (int64_t)entry_crc(id, e));
		*added += sqlite3_changes(catalog_db_handle(conn));
	}
	return err;
}

static int listing_put(struct catalog_conn *conn, void *arg)
{
	const struct listing_put *w = arg;
	struct listing_row l;
	int64_t added = 0;
	int err;

	err = listing_get(conn, w->prefix, &l);
	if (err == -EBADMSG) {
		/* Its id may be that of another listing: take a new one. */
		err = catalog_db_run(conn, LISTING_DELETE, "t", w->prefix);
		if (!err)
			err = -ENOENT;
	}
	if (err == -ENOENT) {
		/* Gives it an id; the row is made whole below. */
		err = catalog_db_run(conn, LISTING_PUT, "ntiii", w->prefix,
				     (int64_t)0, (int64_t)0, (int64_t)0);
		l.id = sqlite3_last_insert_rowid(catalog_db_handle(conn));
	}
	if (!err)
		err = catalog_db_run(conn, ENTRIES_DELETE, "i", l.id);
	if (!err)
		err = put_entries(conn, l.id, w, &added);
	if (err)
		return err;
	l.fetched_at = w->now;
	l.entries = added;
	return catalog_db_run(conn, LISTING_PUT, "itiii", l.id, w->prefix,
			      l.fetched_at, l.entries,
			      (int64_t)listing_crc(w->prefix, &l));
}

int catalog_listing_put(struct catalog *c, const char *prefix,
			const struct catalog_entry *entries, size_t n,
			int64_t now)
{
	struct listing_put w = {
		.prefix = prefix, .entries = entries, .n = n, .now = now};

	for (size_t i = 0; i < n; i++)
		if (!etag_ok(entries[i].etag))
			return -EINVAL;
	return write_work(c, listing_put, &w);
}

struct listing_read {
	const char *prefix, *name;
	struct listing_row row; /* id 0 where it was not found */
	struct catalog_entry entry;
	char etag[CATALOG_ETAG_MAX];
	/* Of listing_each: records of an entry each, strings behind it. */
	FILE *copy;
	uint64_t copied;
};

static int read_listing_time(struct catalog_conn *conn, void *arg)
{
	struct listing_read *w = arg;

	w->row.id = 0;
	return listing_get(conn, w->prefix, &w->row);
}

/* Of a read: notes what is bad. */
static int listing_read(struct catalog *c, catalog_work_fn *work,
			struct listing_read *w)
{
	int err = catalog_db_read(c->db, work, w);

	if (err != -EBADMSG)
		return err;
	doubt(c, DOUBT_LISTING, w->row.id, w->prefix, NULL);
	return -ENOENT;
}

int catalog_listing_time(struct catalog *c, const char *prefix,
			 int64_t *fetched_at)
{
	struct listing_read w = {.prefix = prefix};
	int err;

	err = listing_read(c, read_listing_time, &w);
	if (!err)
		*fetched_at = w.row.fetched_at;
	return err;
}

/* An entry as listing_each keeps it, its strings right behind it. */
struct kept_entry {
	size_t name_len, etag_len; /* with their NULs */
	uint64_t size;
	int64_t last_modified;
	bool is_prefix;
};

static int keep_entry(FILE *f, const struct catalog_entry *e)
{
	struct kept_entry k = {
		.name_len = strlen(e->name) + 1,
		.etag_len = strlen(e->etag) + 1,
		.size = e->size,
		.last_modified = e->last_modified,
		.is_prefix = e->is_prefix,
	};

	if (fwrite(&k, sizeof(k), 1, f) != 1 ||
	    fwrite(e->name, 1, k.name_len, f) != k.name_len ||
	    fwrite(e->etag, 1, k.etag_len, f) != k.etag_len)
		return -ENOMEM;
	return 0;
}

static int read_entries(struct catalog_conn *conn, void *arg)
{
	struct listing_read *w = arg;
	struct catalog_entry e;
	sqlite3_stmt *stmt;
	int more, err;

	rewind(w->copy);
	w->copied = 0;
	err = read_listing_time(conn, w);
	if (err)
		return err;
	stmt = catalog_db_stmt(conn, ENTRIES_GET);
	more = catalog_db_bind(conn, stmt, "i", w->row.id);
	if (!more)
		more = catalog_db_step(conn, stmt);
	for (; more > 0; more = catalog_db_step(conn, stmt)) {
		err = entry_of(stmt, w->row.id, &e);
		/* More rows than were put: the tree is not what it was. */
		if (!err && w->copied++ == (uint64_t)w->row.entries)
			err = -EBADMSG;
		if (!err)
			err = keep_entry(w->copy, &e);
		if (err)
			return err;
	}
	if (more < 0)
		return more;
	return w->copied == (uint64_t)w->row.entries ? 0 : -EBADMSG;
}

static int feed_entries(const char *p, uint64_t n, catalog_entry_fn *fn,
			void *arg)
{
	int err = 0;

	for (uint64_t i = 0; i < n && !err; i++) {
		struct kept_entry k;
		struct catalog_entry e;

		memcpy(&k, p, sizeof(k));
		p += sizeof(k);
		e = (struct catalog_entry){
			.name = p,
			.etag = p + k.name_len,
			.is_prefix = k.is_prefix,
			.size = k.size,
			.last_modified = k.last_modified,
		};
		p += k.name_len + k.etag_len;
		err = fn(arg, &e);
	}
	return err;
}

int catalog_listing_each(struct catalog *c, const char *prefix,
			 catalog_entry_fn *fn, void *arg)
{
	struct listing_read w = {.prefix = prefix};
	char *copy = NULL;
	size_t len;
	int err;

	w.copy = open_memstream(&copy, &len);
	if (!w.copy)
		return -ENOMEM;
	err = listing_read(c, read_entries, &w);
	if (fclose(w.copy) != 0 && !err)
		err = -ENOMEM;
	if (!err)
		err = feed_entries(copy, w.copied, fn, arg);
	free(copy);
	return err;
}

/* The entry that @sql finds; 1, or 0 where there is none. */
static int entry_near(struct catalog_conn *conn, unsigned int sql,
		      struct listing_read *w)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, sql);
	int more, err;

	more = catalog_db_bind(conn, stmt, "it", w->row.id, w->name);
	if (!more)
		more = catalog_db_step(conn, stmt);
	if (more <= 0)
		return more;
	err = entry_of(stmt, w->row.id, &w->entry);
	if (err)
		return err;
	strcpy(w->etag, w->entry.etag);
	return 1;
}

/*
 * A name that is not found may have been there before a bit of it flipped. The
 * search then ended beside that row: so the neighbours are checked, too.
 */
static int read_entry(struct catalog_conn *conn, void *arg)
{
	struct listing_read *w = arg;
	int found, err;

	err = read_listing_time(conn, w);
	if (err)
		return err == -ENOENT ? -ENODATA : err;
	found = entry_near(conn, ENTRY_AT_OR_AFTER, w);
	if (found > 0 && strcmp(w->entry.name, w->name) == 0)
		return 0;
	if (found >= 0)
		found = entry_near(conn, ENTRY_BEFORE, w);
	return found < 0 ? found : -ENOENT;
}

int catalog_entry_get(struct catalog *c, const char *prefix, const char *name,
		      bool *is_prefix, char etag[CATALOG_ETAG_MAX],
		      uint64_t *size, int64_t *last_modified,
		      int64_t *fetched_at)
{
	struct listing_read w = {.prefix = prefix, .name = name};
	int err;

	err = catalog_db_read(c->db, read_entry, &w);
	if (err == -EBADMSG) {
		doubt(c, DOUBT_LISTING, w.row.id, prefix, NULL);
		return -ENODATA;
	}
	if (!err || err == -ENOENT)
		*fetched_at = w.row.fetched_at;
	if (err)
		return err;
	*is_prefix = w.entry.is_prefix;
	*size = w.entry.size;
	*last_modified = w.entry.last_modified;
	strcpy(etag, w.etag);
	return 0;
}

/* ---- facts ---- */

struct facts_row {
	int64_t id, nth;
	bool has_directory;
	struct catalog_facts f;
};

static uint32_t facts_crc(const char *key, const struct facts_row *r)
{
	uint32_t crc = catalog_schema_crc('f');

	crc = catalog_schema_crc_int(crc, r->id);
	crc = catalog_schema_crc_text(crc, key);
	crc = catalog_schema_crc_text(crc, r->f.etag);
	crc = catalog_schema_crc_int(crc, r->nth);
	crc = crc_u64(crc, r->f.size);
	crc = catalog_schema_crc_int(crc, r->f.last_modified);
	crc = catalog_schema_crc_int(crc, r->f.seen_at);
	crc = catalog_schema_crc_int(crc, r->f.csv_member);
	crc = crc_u64(crc, r->f.csv_size);
	crc = crc_u64(crc, r->f.members);
	return catalog_schema_crc_int(crc, r->has_directory);
}

static uint32_t member_crc(int64_t facts, int64_t n,
			   const struct archive_member *m)
{
	uint32_t crc = catalog_schema_crc('m');

	crc = catalog_schema_crc_int(crc, facts);
	crc = catalog_schema_crc_int(crc, n);
	crc = catalog_schema_crc_text(crc, m->name);
	crc = crc_u64(crc, m->size);
	crc = crc_u64(crc, m->csize);
	crc = catalog_schema_crc_int(crc, m->crc32);
	crc = catalog_schema_crc_int(crc, m->method);
	crc = catalog_schema_crc_int(crc, m->encrypted);
	crc = catalog_schema_crc_int(crc, m->is_dir);
	return catalog_schema_crc_int(crc, m->mtime);
}

/* The row under @stmt; -EBADMSG, with what was read of it for the doubt. */
static int facts_of(sqlite3_stmt *stmt, const char *key, struct facts_row *r)
{
	bool ok;

	memset(r, 0, sizeof(*r));
	r->id = column(stmt, 0);
	ok = column_etag(stmt, 1, r->f.etag);
	r->nth = column(stmt, 2);
	r->f.size = column_u64(stmt, 3);
	r->f.last_modified = column(stmt, 4);
	r->f.seen_at = column(stmt, 5);
	r->f.csv_member = column(stmt, 6);
	r->f.csv_size = column_u64(stmt, 7);
	r->f.members = column_u64(stmt, 8);
	r->has_directory = column(stmt, 9) != 0;
	return ok && column(stmt, 10) == facts_crc(key, r) ? 0 : -EBADMSG;
}

/* @etag NULL: the newest row that is sound. */
static int facts_get(struct catalog_conn *conn, const char *key,
		     const char *etag, struct facts_row *r)
{
	sqlite3_stmt *stmt;
	int more, err = -ENOENT;

	stmt = catalog_db_stmt(conn, etag ? FACTS_GET : FACTS_LAST);
	more = catalog_db_bind(conn, stmt, etag ? "tt" : "t", key, etag);
	if (!more)
		more = catalog_db_step(conn, stmt);
	while (more > 0) {
		err = facts_of(stmt, key, r);
		if (!err)
			break;
		more = catalog_db_step(conn, stmt);
	}
	sqlite3_reset(stmt);
	return more < 0 ? more : err;
}

struct facts_put {
	const char *key;
	const struct catalog_facts *f;
	const struct archive_directory *d;
};

static int put_members(struct catalog_conn *conn, int64_t facts,
		       const struct archive_directory *d)
{
	int err;

	err = catalog_db_run(conn, MEMBERS_DELETE, "i", facts);
	for (size_t i = 0; i < d->n && !err; i++) {
		const struct archive_member *m = &d->members[i];
		int64_t n = (int64_t)i;

		err = catalog_db_run(conn, MEMBER_PUT, "iitiiiiiiii", facts, n,
				     m->name, (int64_t)m->size,
				     (int64_t)m->csize, (int64_t)m->crc32,
				     (int64_t)m->method, (int64_t)m->encrypted,
				     (int64_t)m->is_dir, m->mtime,
				     (int64_t)member_crc(facts, n, m));
	}
	return err;
}

static int facts_row_put(struct catalog_conn *conn, const char *key,
			 const struct facts_row *r)
{
	const struct catalog_facts *f = &r->f;

	return catalog_db_run(conn, FACTS_PUT, "titiiiiiiiii", key, r->id,
			      f->etag, r->nth, (int64_t)f->size,
			      f->last_modified, f->seen_at, f->csv_member,
			      (int64_t)f->csv_size, (int64_t)f->members,
			      (int64_t)r->has_directory,
			      (int64_t)facts_crc(key, r));
}

static int facts_put(struct catalog_conn *conn, void *arg)
{
	const struct facts_put *w = arg;
	struct facts_row old, last, r = {.f = *w->f};
	int err;

	err = facts_get(conn, w->key, NULL, &last);
	if (err && err != -ENOENT && err != -EBADMSG)
		return err;
	r.nth = err ? 1 : last.nth < INT64_MAX ? last.nth + 1 : last.nth;
	err = facts_get(conn, w->key, w->f->etag, &old);
	if (err && err != -ENOENT && err != -EBADMSG)
		return err;
	r.has_directory = w->d || (!err && old.has_directory);
	if (!err) {
		r.id = old.id;
	} else {
		/* An id first, for it is under the checksum. */
		err = catalog_db_run(conn, FACTS_DELETE, "tt", w->key,
				     w->f->etag);
		if (!err)
			err = catalog_db_run(conn, FACTS_PUT, "tntiiiiiiiii",
					     w->key, w->f->etag, (int64_t)0,
					     (int64_t)0, (int64_t)0, (int64_t)0,
					     (int64_t)0, (int64_t)0, (int64_t)0,
					     (int64_t)0, (int64_t)0);
		if (err)
			return err;
		r.id = sqlite3_last_insert_rowid(catalog_db_handle(conn));
	}
	err = facts_row_put(conn, w->key, &r);
	if (!err && w->d)
		err = put_members(conn, r.id, w->d);
	return err;
}

int catalog_facts_put(struct catalog *c, const char *key,
		      const struct catalog_facts *f,
		      const struct archive_directory *d)
{
	struct facts_put w = {.key = key, .f = f, .d = d};

	if (!etag_ok(f->etag) || (d && d->n != f->members))
		return -EINVAL;
	return write_work(c, facts_put, &w);
}

struct facts_read {
	const char *key, *etag;
	struct facts_row row;
	struct archive_directory *d;
};

static int read_facts(struct catalog_conn *conn, void *arg)
{
	struct facts_read *w = arg;

	return facts_get(conn, w->key, w->etag, &w->row);
}

static int facts_read(struct catalog *c, catalog_work_fn *work,
		      struct facts_read *w)
{
	int err = catalog_db_read(c->db, work, w);

	if (err != -EBADMSG)
		return err;
	doubt(c, DOUBT_FACTS, w->row.id, w->key,
	      w->etag ? w->etag : w->row.f.etag);
	return -ENOENT;
}

int catalog_facts_get(struct catalog *c, const char *key, const char *etag,
		      struct catalog_facts *out)
{
	struct facts_read w = {.key = key, .etag = etag};
	int err;

	err = facts_read(c, read_facts, &w);
	if (!err)
		*out = w.row.f;
	return err;
}

static int member_of(sqlite3_stmt *stmt, int64_t facts, size_t n,
		     struct archive_member *m)
{
	const char *name = catalog_schema_text(stmt, 1);
	struct archive_member row = {
		.name = (char *)name,
		.size = column_u64(stmt, 2),
		.csize = column_u64(stmt, 3),
		.crc32 = (uint32_t)column(stmt, 4),
		.method = (uint16_t)column(stmt, 5),
		.encrypted = column(stmt, 6) != 0,
		.is_dir = column(stmt, 7) != 0,
		.mtime = column(stmt, 8),
	};

	if (!name || column(stmt, 0) != (int64_t)n ||
	    column(stmt, 9) != member_crc(facts, (int64_t)n, &row))
		return -EBADMSG;
	row.name = strdup(name);
	if (!row.name)
		return -ENOMEM;
	*m = row;
	return 0;
}

static int read_members(struct catalog_conn *conn, int64_t facts,
			struct archive_directory *d, size_t n)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, MEMBERS_GET);
	int more, err;

	more = catalog_db_bind(conn, stmt, "i", facts);
	if (!more)
		more = catalog_db_step(conn, stmt);
	for (; more > 0; more = catalog_db_step(conn, stmt)) {
		err = d->n < n ? member_of(stmt, facts, d->n, &d->members[d->n])
			       : -EBADMSG;
		if (err)
			return err;
		d->n++;
	}
	if (more < 0)
		return more;
	return d->n == n ? 0 : -EBADMSG;
}

static int read_directory(struct catalog_conn *conn, void *arg)
{
	struct facts_read *w = arg;
	uint64_t n;
	int err;

	archive_directory_free(w->d);
	w->d = NULL;
	err = read_facts(conn, w);
	if (err)
		return err;
	if (!w->row.has_directory)
		return -ENOENT;
	n = w->row.f.members;
	if (n > ARCHIVE_MEMBERS_MAX)
		return -EBADMSG;
	w->d = calloc(1, sizeof(*w->d));
	if (!w->d)
		return -ENOMEM;
	w->d->members = calloc(n ? n : 1, sizeof(*w->d->members));
	if (!w->d->members)
		return -ENOMEM;
	return read_members(conn, w->row.id, w->d, n);
}

int catalog_directory_get(struct catalog *c, const char *key, const char *etag,
			  struct archive_directory **out)
{
	struct facts_read w = {.key = key, .etag = etag};
	int err;

	err = facts_read(c, read_directory, &w);
	if (err)
		archive_directory_free(w.d);
	else
		*out = w.d;
	return err;
}

/* ---- cached objects ---- */

static enum place place_of(enum catalog_state state)
{
	return state == CATALOG_QUARANTINED ? QUARANTINE : OBJECTS;
}

static uint32_t cached_crc(enum place place, const char *key,
			   const struct catalog_cached *r)
{
	static const unsigned char none[32];
	uint32_t crc = catalog_schema_crc('c');

	crc = catalog_schema_crc_int(crc, place);
	crc = catalog_schema_crc_text(crc, key);
	crc = catalog_schema_crc_text(crc, r->etag);
	crc = crc_u64(crc, r->size);
	crc = crc_u64(crc, r->disk_bytes);
	crc = catalog_schema_crc_int(crc, r->last_modified);
	crc = catalog_schema_crc_bytes(crc, r->sha256, sizeof(r->sha256));
	crc = catalog_schema_crc_int(crc, r->has_published);
	crc = catalog_schema_crc_bytes(
		crc, r->has_published ? r->published : none, sizeof(none));
	crc = catalog_schema_crc_text(crc, verdict_name(r->verdict));
	crc = catalog_schema_crc_int(crc, r->state);
	crc = catalog_schema_crc_int(crc, r->verified_at);
	crc = catalog_schema_crc_int(crc, r->checked_at);
	crc = catalog_schema_crc_int(crc, r->last_use);
	return catalog_schema_crc_int(crc, r->pinned);
}

static bool column_sha256(sqlite3_stmt *stmt, int n, unsigned char out[32])
{
	const void *p = sqlite3_column_blob(stmt, n);

	if (!p || sqlite3_column_bytes(stmt, n) != 32)
		return false;
	memcpy(out, p, 32);
	return true;
}

static int cached_of(sqlite3_stmt *stmt, enum place place, const char *key,
		     struct catalog_cached *r)
{
	const char *verdict = catalog_schema_text(stmt, 7);
	bool ok;

	memset(r, 0, sizeof(*r));
	ok = column_etag(stmt, 1, r->etag);
	r->size = column_u64(stmt, 2);
	r->disk_bytes = column_u64(stmt, 3);
	r->last_modified = column(stmt, 4);
	ok = ok && column_sha256(stmt, 5, r->sha256);
	r->has_published = sqlite3_column_type(stmt, 6) != SQLITE_NULL;
	if (r->has_published)
		ok = ok && column_sha256(stmt, 6, r->published);
	r->verdict = verdict ? verdict_parse(verdict) : VERDICT_NONE;
	r->state = (enum catalog_state)column(stmt, 8);
	r->verified_at = column(stmt, 9);
	r->checked_at = column(stmt, 10);
	r->last_use = column(stmt, 11);
	r->pinned = column(stmt, 12) != 0;
	return ok && (unsigned int)r->state <= CATALOG_UNCHECKED &&
			       place_of(r->state) == place &&
			       column(stmt, 13) == cached_crc(place, key, r)
		       ? 0
		       : -EBADMSG;
}

/* -ENOENT; -EBADMSG for a row that fails its checksum. */
static int cached_get(struct catalog_conn *conn, enum place place,
		      const char *key, struct catalog_cached *r)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, CACHED_GET);
	int more, err;

	more = catalog_db_bind(conn, stmt, "it", (int64_t)place, key);
	if (!more)
		more = catalog_db_step(conn, stmt);
	err = more > 0 ? cached_of(stmt, place, key, r) : more ? more : -ENOENT;
	sqlite3_reset(stmt);
	return err;
}

/* ---- totals: kept in the transactions that change what they count ---- */

struct total {
	uint64_t files, disk_bytes;
};

static uint32_t total_crc(enum place place, const struct total *t)
{
	uint32_t crc = catalog_schema_crc('t');

	crc = catalog_schema_crc_int(crc, place);
	crc = crc_u64(crc, t->files);
	return crc_u64(crc, t->disk_bytes);
}

/* No row yet is a total of nothing. -EBADMSG. */
static int total_get(struct catalog_conn *conn, enum place place,
		     struct total *t)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, TOTAL_GET);
	int more, err = 0;

	*t = (struct total){0};
	more = catalog_db_bind(conn, stmt, "i", (int64_t)place);
	if (!more)
		more = catalog_db_step(conn, stmt);
	if (more > 0) {
		t->files = column_u64(stmt, 0);
		t->disk_bytes = column_u64(stmt, 1);
		if (column(stmt, 2) != total_crc(place, t))
			err = -EBADMSG;
	}
	sqlite3_reset(stmt);
	return more < 0 ? more : err;
}

static int total_put(struct catalog_conn *conn, enum place place,
		     const struct total *t)
{
	return catalog_db_run(conn, TOTAL_PUT, "iiii", (int64_t)place,
			      (int64_t)t->files, (int64_t)t->disk_bytes,
			      (int64_t)total_crc(place, t));
}

/* Keys from @first on and below @end, or with NULL all of them. */
static int count_range(struct catalog_conn *conn, enum place place,
		       const char *first, const char *end, struct total *t)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, CACHED_RANGE);
	int more;

	*t = (struct total){0};
	more = catalog_db_bind(conn, stmt, end ? "itt" : "itz", (int64_t)place,
			       first, end);
	if (!more)
		more = catalog_db_step(conn, stmt);
	for (; more > 0; more = catalog_db_step(conn, stmt)) {
		t->files++;
		t->disk_bytes = add_sat(t->disk_bytes, column_u64(stmt, 0));
	}
	sqlite3_reset(stmt);
	return more;
}

static int recount(struct catalog_conn *conn, enum place place)
{
	struct total t;
	int err;

	err = count_range(conn, place, "", NULL, &t);
	return err ? err : total_put(conn, place, &t);
}

static int total_add(struct catalog_conn *conn, enum place place,
		     const struct total *less, const struct total *more)
{
	struct total t;
	int err;

	err = total_get(conn, place, &t);
	if (err == -EBADMSG)
		return recount(conn, place);
	if (err)
		return err;
	t.files = add_sat(sub_sat(t.files, less->files), more->files);
	t.disk_bytes = add_sat(sub_sat(t.disk_bytes, less->disk_bytes),
			       more->disk_bytes);
	return total_put(conn, place, &t);
}

static int cached_write(struct catalog_conn *conn, enum place place,
			const char *key, const struct catalog_cached *r)
{
	/* A blob at NULL is SQL's NULL. */
	return catalog_db_run(conn, CACHED_PUT, "ittiiihhtiiiiii",
			      (int64_t)place, key, r->etag, (int64_t)r->size,
			      (int64_t)r->disk_bytes, r->last_modified,
			      r->sha256, r->has_published ? r->published : NULL,
			      verdict_name(r->verdict), (int64_t)r->state,
			      r->verified_at, r->checked_at, r->last_use,
			      (int64_t)r->pinned,
			      (int64_t)cached_crc(place, key, r));
}

struct cached_work {
	const char *key;
	struct catalog_cached row;
	enum place place; /* for a deletion */
	int64_t now;
};

/* Replaces (or with @r NULL removes) a row and keeps the total. */
static int cached_set(struct catalog_conn *conn, enum place place,
		      const char *key, const struct catalog_cached *r)
{
	struct catalog_cached old;
	struct total less = {0}, more = {0};
	int got, err;

	got = cached_get(conn, place, key, &old);
	if (got && got != -ENOENT && got != -EBADMSG)
		return got;
	if (!got)
		less = (struct total){1, old.disk_bytes};
	if (r)
		more = (struct total){1, r->disk_bytes};
	err = r ? cached_write(conn, place, key, r)
		: catalog_db_run(conn, CACHED_DELETE, "it", (int64_t)place,
				 key);
	if (err)
		return err;
	if (got == -EBADMSG)
		return recount(conn, place);
	return total_add(conn, place, &less, &more);
}

static int cached_put(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	enum place place = place_of(w->row.state);

	if (place == QUARANTINE) {
		/* One order for both places: see CACHED_LRU. */
		w->row.last_use = w->row.verified_at;
		w->row.pinned = false;
	}
	return cached_set(conn, place, w->key, &w->row);
}

int catalog_cached_put(struct catalog *c, const char *key,
		       const struct catalog_cached *row)
{
	struct cached_work w = {.key = key, .row = *row};

	if (!etag_ok(row->etag))
		return -EINVAL;
	return write_work(c, cached_put, &w);
}

static int cached_delete(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;

	return cached_set(conn, w->place, w->key, NULL);
}

int catalog_cached_delete(struct catalog *c, const char *key)
{
	struct cached_work w = {.key = key, .place = OBJECTS};

	return write_work(c, cached_delete, &w);
}

int catalog_quarantined_delete(struct catalog *c, const char *key)
{
	struct cached_work w = {.key = key, .place = QUARANTINE};

	return write_work(c, cached_delete, &w);
}

static int read_quarantined(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;

	w->place = QUARANTINE;
	return cached_get(conn, QUARANTINE, w->key, &w->row);
}

static int read_cached(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	int err;

	w->place = OBJECTS;
	err = cached_get(conn, OBJECTS, w->key, &w->row);
	if (!err && w->row.state == CATALOG_UNCHECKED)
		err = -ENOENT;
	return err == -ENOENT ? read_quarantined(conn, w) : err;
}

static int cached_read(struct catalog *c, catalog_work_fn *work,
		       const char *key, struct catalog_cached *out)
{
	struct cached_work w = {.key = key};
	int err;

	err = catalog_db_read(c->db, work, &w);
	if (err == -EBADMSG) {
		doubt(c, DOUBT_CACHED, w.place, key, NULL);
		return -ENOENT;
	}
	if (!err)
		*out = w.row;
	return err;
}

int catalog_cached_get(struct catalog *c, const char *key,
		       struct catalog_cached *out)
{
	return cached_read(c, read_cached, key, out);
}

int catalog_quarantined_get(struct catalog *c, const char *key,
			    struct catalog_cached *out)
{
	return cached_read(c, read_quarantined, key, out);
}

/* A row whose checksum fails is no row to change. */
static int cached_change(struct catalog_conn *conn, struct cached_work *w)
{
	int err = cached_get(conn, OBJECTS, w->key, &w->row);

	return err == -EBADMSG ? -ENOENT : err;
}

static int cached_checked(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	int err = cached_change(conn, w);

	w->row.checked_at = w->now;
	return err ? err : cached_write(conn, OBJECTS, w->key, &w->row);
}

int catalog_cached_checked(struct catalog *c, const char *key, int64_t now)
{
	struct cached_work w = {.key = key, .now = now};

	return write_work(c, cached_checked, &w);
}

static int cached_doubt(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	int err = cached_change(conn, w);

	w->row.state = CATALOG_UNCHECKED;
	return err ? err : cached_write(conn, OBJECTS, w->key, &w->row);
}

int catalog_cached_doubt(struct catalog *c, const char *key)
{
	struct cached_work w = {.key = key};

	return write_work(c, cached_doubt, &w);
}

struct found_work {
	const struct catalog_found *found;
	size_t n;
};

static int cached_found(struct catalog_conn *conn, void *arg)
{
	const struct found_work *w = arg;
	int err = 0;

	for (size_t i = 0; i < w->n && !err; i++) {
		const struct catalog_found *f = &w->found[i];
		enum place place = place_of(f->state);
		struct catalog_cached r;

		err = cached_get(conn, place, f->key, &r);
		if (!err || (err != -ENOENT && err != -EBADMSG))
			continue;
		r = (struct catalog_cached){
			.size = f->size,
			.disk_bytes = f->disk_bytes,
			.last_modified = -1,
			.state = f->state,
			.verdict = place == QUARANTINE ? VERDICT_DAMAGED
						       : VERDICT_NONE,
			.verified_at = f->at,
			.last_use = f->at,
		};
		err = cached_set(conn, place, f->key, &r);
	}
	return err;
}

int catalog_cached_found(struct catalog *c, const struct catalog_found *found,
			 size_t n)
{
	struct found_work w = {.found = found, .n = n};

	return n ? write_work(c, cached_found, &w) : 0;
}

/* ---- last uses ---- */

static int touch_order(const void *a, const void *b)
{
	return strcmp(((const struct touch *)a)->key,
		      ((const struct touch *)b)->key);
}

int catalog_touch(struct catalog *c, const char *key, int64_t now)
{
	size_t len = strlen(key) + 1;
	struct touch *t = malloc(sizeof(*t) + len), **found;
	int err = 0;

	if (!t)
		return -ENOMEM;
	t->at = now;
	memcpy(t->key, key, len);
	pthread_mutex_lock(&c->touches_lock);
	found = c->n_touches < TOUCHES_MAX
			? tsearch(t, &c->touches, touch_order)
			: tfind(t, &c->touches, touch_order);
	if (!found) {
		err = c->n_touches < TOUCHES_MAX ? -ENOMEM : 0;
	} else if (*found == t) {
		c->n_touches++;
		t = NULL;
	} else if ((*found)->at < now) {
		(*found)->at = now;
	}
	pthread_mutex_unlock(&c->touches_lock);
	free(t);
	return err;
}

struct flush_work {
	struct catalog_conn *conn;
	void *touches;
	int err;
};

static void write_touch(const void *node, VISIT visit, void *arg)
{
	const struct touch *t = *(struct touch *const *)node;
	struct flush_work *w = arg;
	struct cached_work row = {.key = t->key};

	if (w->err || (visit != postorder && visit != leaf))
		return;
	w->err = cached_change(w->conn, &row);
	if (!w->err && row.row.last_use < t->at) {
		row.row.last_use = t->at;
		w->err = cached_write(w->conn, OBJECTS, t->key, &row.row);
	}
	/* Evicted meanwhile. */
	if (w->err == -ENOENT)
		w->err = 0;
}

static int write_touches(struct catalog_conn *conn, void *arg)
{
	struct flush_work *w = arg;

	w->conn = conn;
	w->err = 0;
	twalk_r(w->touches, write_touch, w);
	return w->err;
}

int catalog_flush(struct catalog *c)
{
	struct flush_work w = {0};
	int err;

	pthread_mutex_lock(&c->touches_lock);
	w.touches = c->touches;
	c->touches = NULL;
	c->n_touches = 0;
	pthread_mutex_unlock(&c->touches_lock);
	if (!w.touches)
		return 0;
	err = write_work(c, write_touches, &w);
	tdestroy(w.touches, free);
	return err;
}

/* ---- in order of last use ---- */

struct batch {
	enum place place;
	int64_t after; /* last use and key of the row before the first */
	char *after_key;
	size_t n;
	char *keys[BATCH];
	struct catalog_cached rows[BATCH];
	bool bad[BATCH];
};

static void batch_clear(struct batch *b)
{
	while (b->n > 0)
		free(b->keys[--b->n]);
}

static int read_batch(struct catalog_conn *conn, void *arg)
{
	struct batch *b = arg;
	sqlite3_stmt *stmt;
	int more;

	batch_clear(b);
	stmt = catalog_db_stmt(conn, CACHED_LRU);
	more = catalog_db_bind(conn, stmt, "iiti", (int64_t)b->place, b->after,
			       b->after_key, (int64_t)BATCH);
	if (!more)
		more = catalog_db_step(conn, stmt);
	for (; more > 0 && b->n < BATCH; more = catalog_db_step(conn, stmt)) {
		const char *key = catalog_schema_text(stmt, 0);
		struct catalog_cached *r = &b->rows[b->n];

		/* A key with a NUL: the row can't even be named. */
		if (!key)
			continue;
		b->keys[b->n] = strdup(key);
		if (!b->keys[b->n])
			return -ENOMEM;
		b->bad[b->n] = cached_of(stmt, b->place, key, r) != 0;
		b->n++;
	}
	return more < 0 ? more : 0;
}

static int feed_batch(struct catalog *c, struct batch *b, catalog_cached_fn *fn,
		      void *arg)
{
	int err = 0;

	for (size_t i = 0; i < b->n && !err; i++) {
		if (b->bad[i])
			doubt(c, DOUBT_CACHED, b->place, b->keys[i], NULL);
		else
			err = fn(arg, b->keys[i], &b->rows[i]);
	}
	return err;
}

static int in_order(struct catalog *c, enum place place, catalog_cached_fn *fn,
		    void *arg)
{
	struct batch *b = calloc(1, sizeof(*b));
	size_t last;
	int err;

	if (!b)
		return -ENOMEM;
	b->place = place;
	b->after = INT64_MIN;
	b->after_key = strdup("");
	err = b->after_key ? 0 : -ENOMEM;
	while (!err) {
		err = catalog_db_read(c->db, read_batch, b);
		if (err || b->n == 0)
			break;
		last = b->n - 1;
		err = feed_batch(c, b, fn, arg);
		/* The order is by index, and a hostile one may turn round. */
		if (b->rows[last].last_use < b->after)
			break;
		b->after = b->rows[last].last_use;
		free(b->after_key);
		b->after_key = b->keys[last];
		b->keys[last] = NULL;
	}
	batch_clear(b);
	free(b->after_key);
	free(b);
	return err;
}

int catalog_cached_lru(struct catalog *c, catalog_cached_fn *fn, void *arg)
{
	int err = catalog_flush(c);

	return err ? err : in_order(c, OBJECTS, fn, arg);
}

int catalog_quarantined(struct catalog *c, catalog_cached_fn *fn, void *arg)
{
	return in_order(c, QUARANTINE, fn, arg);
}

/* ---- usage ---- */

struct usage_read {
	enum place place;
	const char *first, *end; /* first NULL: all, from the total */
	struct total t;
};

static int read_usage(struct catalog_conn *conn, void *arg)
{
	struct usage_read *w = arg;
	int err;

	if (w->first)
		return count_range(conn, w->place, w->first, w->end, &w->t);
	err = total_get(conn, w->place, &w->t);
	if (err != -EBADMSG)
		return err;
	/* Right once, and mended at the next write. */
	err = count_range(conn, w->place, "", NULL, &w->t);
	return err ? err : -EBADMSG;
}

static int usage(struct catalog *c, struct usage_read *w, uint64_t *files,
		 uint64_t *disk_bytes)
{
	int err = catalog_db_read(c->db, read_usage, w);

	if (err == -EBADMSG) {
		doubt(c, DOUBT_TOTAL, w->place, NULL, NULL);
		err = 0;
	}
	if (!err) {
		*files = w->t.files;
		*disk_bytes = w->t.disk_bytes;
	}
	return err;
}

/* The first string above all that begin with @prefix. */
static void end_of_prefix(char *prefix)
{
	size_t len = strlen(prefix);

	while (len > 0 && (unsigned char)prefix[len - 1] == 0xff)
		len--;
	if (len > 0)
		prefix[len - 1]++;
	prefix[len] = '\0';
}

int catalog_usage(struct catalog *c, const char *prefix, uint64_t *files,
		  uint64_t *disk_bytes)
{
	struct usage_read w = {.place = OBJECTS};
	char end[PREFIX_MAX];

	if (strlen(prefix) >= sizeof(end))
		return -EINVAL;
	if (*prefix) {
		strcpy(end, prefix);
		end_of_prefix(end);
		w.first = prefix;
		w.end = *end ? end : NULL;
	}
	return usage(c, &w, files, disk_bytes);
}

int catalog_quarantine_usage(struct catalog *c, uint64_t *files,
			     uint64_t *disk_bytes)
{
	struct usage_read w = {.place = QUARANTINE};

	return usage(c, &w, files, disk_bytes);
}

/* ---- ledger ---- */

static int ledger_add(struct catalog_conn *conn, void *arg)
{
	return catalog_db_error(conn, catalog_schema_ledger_insert(
					      catalog_db_handle(conn), arg));
}

int catalog_ledger_add(struct catalog *c, const char *run_id, const char *event,
		       const char *key, const unsigned char sha256[32],
		       enum verdict v, int64_t now)
{
	struct catalog_ledger_row row = {
		.at = now,
		.run_id = run_id,
		.event = event,
		.key = key,
		.verdict = verdict_name(v),
	};
	char hex[65];

	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", sha256[i]);
	row.sha256 = hex;
	return write_work(c, ledger_add, &row);
}

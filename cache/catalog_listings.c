/*
 * Listings: a row for each, and one for each of its entries.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache/catalog_priv.h"

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
	crc = catalog_crc_u64(crc, e->size);
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
	l->id = catalog_column(stmt, 0);
	l->fetched_at = catalog_column(stmt, 1);
	l->entries = catalog_column(stmt, 2);
	return catalog_column(stmt, 3) == listing_crc(prefix, l) ? 0 : -EBADMSG;
}

/* The row under @stmt; the strings are SQLite's. */
static int entry_of(sqlite3_stmt *stmt, int64_t listing,
		    struct catalog_entry *e)
{
	e->name = catalog_schema_text(stmt, 0);
	e->is_prefix = catalog_column(stmt, 1) != 0;
	e->etag = catalog_schema_text(stmt, 2);
	e->size = catalog_column_u64(stmt, 3);
	e->last_modified = catalog_column(stmt, 4);
	if (!e->name || !e->etag || !catalog_etag_ok(e->etag) ||
	    catalog_column(stmt, 5) != entry_crc(listing, e))
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
		if (!catalog_etag_ok(entries[i].etag))
			return -EINVAL;
	return catalog_write(c, prefix, listing_put, &w);
}

struct listing_read {
	const char *prefix, *name;
	struct listing_row row; /* id 0 where it was not found */
	struct catalog_entry entry;
	char etag[CATALOG_ETAG_MAX];
	bool bad; /* its checksum fails: -ENOENT, but not for good */
	/* Of listing_each: records of an entry each, strings behind it. */
	char *copy;
	size_t copy_len, copy_room;
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
	w->bad = true;
	catalog_note_doubt(c, DOUBT_LISTING, w->row.id, w->prefix, NULL);
	return -ENOENT;
}

/* The answer to an ASKED_LISTING_TIME. */
struct time_answer {
	int64_t fetched_at;
	uint64_t entries;
};

static int time_read(struct catalog *c, struct catalog_asked *q,
		     struct time_answer *a)
{
	struct listing_read w = {.prefix = q->scope};
	int err = listing_read(c, read_listing_time, &w);

	if (!err)
		*a = (struct time_answer){
			.fetched_at = w.row.fetched_at,
			.entries = (uint64_t)w.row.entries,
		};
	if (!err || (err == -ENOENT && !w.bad))
		catalog_memory_put(c->memory, q, a, sizeof(*a), err);
	return err;
}

int catalog_listing_time(struct catalog *c, const char *prefix,
			 int64_t *fetched_at, uint64_t *entries)
{
	struct catalog_asked q = {ASKED_LISTING_TIME, prefix, "", 0};
	struct time_answer a = {0};
	int err;

	if (!catalog_memory_get(c->memory, &q, &a, sizeof(a), &err))
		err = time_read(c, &q, &a);
	if (err)
		return err;
	*fetched_at = a.fetched_at;
	if (entries)
		*entries = a.entries;
	return 0;
}

/* An entry as listing_each keeps it, its strings right behind it. */
struct kept_entry {
	size_t name_len, etag_len; /* with their NULs */
	uint64_t size;
	int64_t last_modified;
	bool is_prefix;
};

static void *grow_copy(struct listing_read *w, size_t more)
{
	size_t room = w->copy_room ? w->copy_room : 4096;
	char *grown;

	while (room < w->copy_len + more)
		room *= 2;
	if (room > w->copy_room) {
		grown = realloc(w->copy, room);
		if (!grown)
			return NULL;
		w->copy = grown;
		w->copy_room = room;
	}
	grown = w->copy + w->copy_len;
	w->copy_len += more;
	return grown;
}

static int keep_entry(struct listing_read *w, const struct catalog_entry *e)
{
	struct kept_entry k = {
		.name_len = strlen(e->name) + 1,
		.etag_len = strlen(e->etag) + 1,
		.size = e->size,
		.last_modified = e->last_modified,
		.is_prefix = e->is_prefix,
	};
	char *p = grow_copy(w, sizeof(k) + k.name_len + k.etag_len);

	if (!p)
		return -ENOMEM;
	memcpy(p, &k, sizeof(k));
	memcpy(p + sizeof(k), e->name, k.name_len);
	memcpy(p + sizeof(k) + k.name_len, e->etag, k.etag_len);
	return 0;
}

static int read_entries(struct catalog_conn *conn, void *arg)
{
	struct listing_read *w = arg;
	struct catalog_entry e;
	sqlite3_stmt *stmt;
	int more, err;

	w->copy_len = 0;
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
			err = keep_entry(w, &e);
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
	int err = listing_read(c, read_entries, &w);

	if (!err)
		err = feed_entries(w.copy, w.copied, fn, arg);
	free(w.copy);
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

/* The answer to an ASKED_ENTRY; the time also where the name is not there. */
struct entry_answer {
	bool there, is_prefix;
	char etag[CATALOG_ETAG_MAX];
	uint64_t size;
	int64_t last_modified, fetched_at;
};

static int entry_read(struct catalog *c, const char *prefix, const char *name,
		      struct entry_answer *a)
{
	struct listing_read w = {.prefix = prefix, .name = name};
	int err = catalog_db_read(c->db, read_entry, &w);

	if (err == -EBADMSG)
		catalog_note_doubt(c, DOUBT_LISTING, w.row.id, prefix, NULL);
	if (err && err != -ENOENT)
		return err;
	*a = (struct entry_answer){
		.there = !err,
		.fetched_at = w.row.fetched_at,
	};
	if (err)
		return 0;
	a->is_prefix = w.entry.is_prefix;
	a->size = w.entry.size;
	a->last_modified = w.entry.last_modified;
	strcpy(a->etag, w.etag);
	return 0;
}

int catalog_entry_get(struct catalog *c, const char *prefix, const char *name,
		      bool *is_prefix, char etag[CATALOG_ETAG_MAX],
		      uint64_t *size, int64_t *last_modified,
		      int64_t *fetched_at)
{
	struct catalog_asked q = {ASKED_ENTRY, prefix, name, 0};
	struct entry_answer a;
	int err;

	if (!catalog_memory_get(c->memory, &q, &a, sizeof(a), &err)) {
		err = entry_read(c, prefix, name, &a);
		if (!err || err == -ENODATA)
			catalog_memory_put(c->memory, &q, &a, sizeof(a), err);
	}
	if (err)
		return err == -EBADMSG ? -ENODATA : err;
	*fetched_at = a.fetched_at;
	if (!a.there)
		return -ENOENT;
	*is_prefix = a.is_prefix;
	*size = a.size;
	*last_modified = a.last_modified;
	strcpy(etag, a.etag);
	return 0;
}

/* ---- a folder's files before they are asked for ---- */

enum { PREFETCH_AT_ONCE = 128 }; /* in one transaction, which holds up none */

struct prefetch {
	struct catalog *c;
	const char *prefix, *suffix;
	struct catalog_asked entry; /* with the generation before it was read */
	int64_t fetched_at;
	char *keys[PREFETCH_AT_ONCE];
	struct catalog_asked facts[PREFETCH_AT_ONCE];
	struct catalog_asked cached[PREFETCH_AT_ONCE];
	size_t n;
};

static int prefetch_keys(struct catalog_conn *conn, void *arg)
{
	struct prefetch *p = arg;
	int err = 0;

	for (size_t i = 0; i < p->n && !err; i++) {
		err = catalog_facts_prefetch(p->c, conn, &p->facts[i]);
		if (!err)
			err = catalog_cached_prefetch(p->c, conn,
						      &p->cached[i]);
	}
	return err;
}

static int flush_keys(struct prefetch *p)
{
	int err;

	for (size_t i = 0; i < p->n; i++) {
		catalog_facts_ask(p->c, &p->facts[i], p->keys[i]);
		catalog_cached_ask(p->c, &p->cached[i], p->keys[i]);
	}
	err = p->n ? catalog_db_read(p->c->db, prefetch_keys, p) : 0;
	while (p->n)
		free(p->keys[--p->n]);
	return err;
}

static void remember_entry(struct prefetch *p, const struct catalog_entry *e)
{
	struct entry_answer a = {
		.there = true,
		.is_prefix = e->is_prefix,
		.size = e->size,
		.last_modified = e->last_modified,
		.fetched_at = p->fetched_at,
	};

	strcpy(a.etag, e->etag);
	p->entry.name = e->name;
	catalog_memory_put(p->c->memory, &p->entry, &a, sizeof(a), 0);
}

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

static int prefetch_entry(void *arg, const struct catalog_entry *e)
{
	struct prefetch *p = arg;
	char *key;

	if (e->is_prefix) {
		remember_entry(p, e);
		return 0;
	}
	if (!ends_in(e->name, p->suffix))
		return 0;
	remember_entry(p, e);
	if (asprintf(&key, "%s%s", p->prefix, e->name) < 0)
		return -ENOMEM;
	p->keys[p->n++] = key;
	return p->n == PREFETCH_AT_ONCE ? flush_keys(p) : 0;
}

int catalog_prefetch(struct catalog *c, const char *prefix, const char *suffix)
{
	struct prefetch p = {
		.c = c,
		.prefix = prefix,
		.suffix = suffix,
		.entry = {ASKED_ENTRY, prefix, "", 0},
	};
	struct entry_answer none;
	int err;

	/* For its generation: nobody has an empty name. */
	catalog_memory_get(c->memory, &p.entry, &none, sizeof(none), &err);
	err = catalog_listing_time(c, prefix, &p.fetched_at, NULL);
	if (!err)
		err = catalog_listing_each(c, prefix, prefetch_entry, &p);
	if (!err)
		err = flush_keys(&p);
	while (p.n)
		free(p.keys[--p.n]);
	return err;
}

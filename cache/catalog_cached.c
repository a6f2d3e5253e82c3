/*
 * Rows of what lies in objects/ and quarantine/, and the totals over them,
 * which are kept in the transactions that change what they count.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache/catalog_priv.h"

enum { PREFIX_MAX = 4096 };

static uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t sub_sat(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static enum catalog_place place_of(enum catalog_state state)
{
	return state == CATALOG_QUARANTINED ? CATALOG_QUARANTINE
					    : CATALOG_OBJECTS;
}

static uint32_t cached_crc(enum catalog_place place, const char *key,
			   const struct catalog_cached *r)
{
	static const unsigned char none[32];
	uint32_t crc = catalog_schema_crc('c');

	crc = catalog_schema_crc_int(crc, place);
	crc = catalog_schema_crc_text(crc, key);
	crc = catalog_schema_crc_text(crc, r->etag);
	crc = catalog_crc_u64(crc, r->size);
	crc = catalog_crc_u64(crc, r->disk_bytes);
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
	crc = catalog_schema_crc_int(crc, r->pinned);
	/* As it was before an origin was kept, where there is none. */
	return *r->origin ? catalog_schema_crc_text(crc, r->origin) : crc;
}

static bool column_origin(sqlite3_stmt *stmt, int n,
			  char out[CATALOG_ORIGIN_MAX])
{
	const char *s = catalog_schema_text(stmt, n);

	if (!s || strlen(s) >= CATALOG_ORIGIN_MAX)
		return false;
	strcpy(out, s);
	return true;
}

static bool column_sha256(sqlite3_stmt *stmt, int n, unsigned char out[32])
{
	const void *p = sqlite3_column_blob(stmt, n);

	if (!p || sqlite3_column_bytes(stmt, n) != 32)
		return false;
	memcpy(out, p, 32);
	return true;
}

int catalog_row_of(sqlite3_stmt *stmt, enum catalog_place place,
		   const char *key, struct catalog_cached *r)
{
	const char *verdict = catalog_schema_text(stmt, 7);
	bool ok;

	memset(r, 0, sizeof(*r));
	ok = catalog_column_etag(stmt, 1, r->etag);
	r->size = catalog_column_u64(stmt, 2);
	r->disk_bytes = catalog_column_u64(stmt, 3);
	r->last_modified = catalog_column(stmt, 4);
	ok = ok && column_sha256(stmt, 5, r->sha256);
	r->has_published = sqlite3_column_type(stmt, 6) != SQLITE_NULL;
	if (r->has_published)
		ok = ok && column_sha256(stmt, 6, r->published);
	r->verdict = verdict ? verdict_parse(verdict) : VERDICT_NONE;
	r->state = (enum catalog_state)catalog_column(stmt, 8);
	r->verified_at = catalog_column(stmt, 9);
	r->checked_at = catalog_column(stmt, 10);
	r->last_use = catalog_column(stmt, 11);
	r->pinned = catalog_column(stmt, 12) != 0;
	ok = ok && column_origin(stmt, 14, r->origin);
	return ok && (unsigned int)r->state <= CATALOG_UNCHECKED &&
			       place_of(r->state) == place &&
			       catalog_column(stmt, 13) ==
				       cached_crc(place, key, r)
		       ? 0
		       : -EBADMSG;
}

/* -ENOENT; -EBADMSG for a row that fails its checksum. */
int catalog_row_get(struct catalog_conn *conn, enum catalog_place place,
		    const char *key, struct catalog_cached *r)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, CACHED_GET);
	int more, err;

	more = catalog_db_bind(conn, stmt, "it", (int64_t)place, key);
	if (!more)
		more = catalog_db_step(conn, stmt);
	err = more > 0 ? catalog_row_of(stmt, place, key, r)
	      : more   ? more
		       : -ENOENT;
	sqlite3_reset(stmt);
	return err;
}

/* ---- totals ---- */

struct total {
	uint64_t files, disk_bytes;
};

static uint32_t total_crc(enum catalog_place place, const struct total *t)
{
	uint32_t crc = catalog_schema_crc('t');

	crc = catalog_schema_crc_int(crc, place);
	crc = catalog_crc_u64(crc, t->files);
	return catalog_crc_u64(crc, t->disk_bytes);
}

/* No row yet is a total of nothing. -EBADMSG. */
static int total_get(struct catalog_conn *conn, enum catalog_place place,
		     struct total *t)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, TOTAL_GET);
	int more, err = 0;

	*t = (struct total){0};
	more = catalog_db_bind(conn, stmt, "i", (int64_t)place);
	if (!more)
		more = catalog_db_step(conn, stmt);
	if (more > 0) {
		t->files = catalog_column_u64(stmt, 0);
		t->disk_bytes = catalog_column_u64(stmt, 1);
		if (catalog_column(stmt, 2) != total_crc(place, t))
			err = -EBADMSG;
	}
	sqlite3_reset(stmt);
	return more < 0 ? more : err;
}

static int total_put(struct catalog_conn *conn, enum catalog_place place,
		     const struct total *t)
{
	return catalog_db_run(conn, TOTAL_PUT, "iiii", (int64_t)place,
			      (int64_t)t->files, (int64_t)t->disk_bytes,
			      (int64_t)total_crc(place, t));
}

/* Keys from @first on and below @end, or with NULL all of them. */
static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

/* @less: an ending of keys that do not count as files, or NULL. */
static int count_range(struct catalog_conn *conn, enum catalog_place place,
		       const char *first, const char *end, const char *less,
		       struct total *t)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, CACHED_RANGE);
	int more;

	*t = (struct total){0};
	more = catalog_db_bind(conn, stmt, end ? "itt" : "itz", (int64_t)place,
			       first, end);
	if (!more)
		more = catalog_db_step(conn, stmt);
	for (; more > 0; more = catalog_db_step(conn, stmt)) {
		const char *key = (const char *)sqlite3_column_text(stmt, 1);

		if (!less || !key || !ends_in(key, less))
			t->files++;
		t->disk_bytes =
			add_sat(t->disk_bytes, catalog_column_u64(stmt, 0));
	}
	sqlite3_reset(stmt);
	return more;
}

int catalog_recount(struct catalog_conn *conn, enum catalog_place place)
{
	struct total t;
	int err;

	err = count_range(conn, place, "", NULL, NULL, &t);
	return err ? err : total_put(conn, place, &t);
}

static int total_add(struct catalog_conn *conn, enum catalog_place place,
		     const struct total *less, const struct total *more)
{
	struct total t;
	int err;

	err = total_get(conn, place, &t);
	if (err == -EBADMSG)
		return catalog_recount(conn, place);
	if (err)
		return err;
	t.files = add_sat(sub_sat(t.files, less->files), more->files);
	t.disk_bytes = add_sat(sub_sat(t.disk_bytes, less->disk_bytes),
			       more->disk_bytes);
	return total_put(conn, place, &t);
}

int catalog_row_write(struct catalog_conn *conn, enum catalog_place place,
		      const char *key, const struct catalog_cached *r)
{
	/* A blob at NULL is SQL's NULL. */
	return catalog_db_run(conn, CACHED_PUT, "ittiiihhtiiiiiit",
			      (int64_t)place, key, r->etag, (int64_t)r->size,
			      (int64_t)r->disk_bytes, r->last_modified,
			      r->sha256, r->has_published ? r->published : NULL,
			      verdict_name(r->verdict), (int64_t)r->state,
			      r->verified_at, r->checked_at, r->last_use,
			      (int64_t)r->pinned,
			      (int64_t)cached_crc(place, key, r), r->origin);
}

struct cached_work {
	const char *key;
	struct catalog_cached row;
	enum catalog_place place; /* for a deletion */
	int64_t now;
};

/* Replaces (or with @r NULL removes) a row and keeps the total. */
static int cached_set(struct catalog_conn *conn, enum catalog_place place,
		      const char *key, const struct catalog_cached *r)
{
	struct catalog_cached old;
	struct total less = {0}, more = {0};
	int got, err;

	got = catalog_row_get(conn, place, key, &old);
	if (got && got != -ENOENT && got != -EBADMSG)
		return got;
	if (!got)
		less = (struct total){1, old.disk_bytes};
	if (r)
		more = (struct total){1, r->disk_bytes};
	err = r ? catalog_row_write(conn, place, key, r)
		: catalog_db_run(conn, CACHED_DELETE, "it", (int64_t)place,
				 key);
	if (err)
		return err;
	if (got == -EBADMSG)
		return catalog_recount(conn, place);
	return total_add(conn, place, &less, &more);
}

static int cached_put(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	enum catalog_place place = place_of(w->row.state);

	if (place == CATALOG_QUARANTINE) {
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

	if (!catalog_etag_ok(row->etag) ||
	    strnlen(row->origin, sizeof(row->origin)) == sizeof(row->origin))
		return -EINVAL;
	return catalog_write(c, key, cached_put, &w);
}

static int cached_delete(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;

	return cached_set(conn, w->place, w->key, NULL);
}

int catalog_cached_delete(struct catalog *c, const char *key)
{
	struct cached_work w = {.key = key, .place = CATALOG_OBJECTS};

	return catalog_write(c, key, cached_delete, &w);
}

int catalog_quarantined_delete(struct catalog *c, const char *key)
{
	struct cached_work w = {.key = key, .place = CATALOG_QUARANTINE};

	return catalog_write(c, key, cached_delete, &w);
}

/* Without the last use: catalog_flush() forgets nothing in memory. */
static int read_row(struct catalog_conn *conn, enum catalog_place place,
		    struct cached_work *w)
{
	int err = catalog_row_get(conn, place, w->key, &w->row);

	w->place = place;
	w->row.last_use = 0;
	return err;
}

static int read_quarantined(struct catalog_conn *conn, void *arg)
{
	return read_row(conn, CATALOG_QUARANTINE, arg);
}

static int read_object(struct catalog_conn *conn, void *arg)
{
	return read_row(conn, CATALOG_OBJECTS, arg);
}

static int read_cached(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	int err = read_object(conn, w);

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
	if (err == -EBADMSG)
		catalog_note_doubt(c, DOUBT_CACHED, w.place, key, NULL);
	if (!err)
		*out = w.row;
	return err;
}

static int cached_ask(struct catalog *c, enum catalog_question question,
		      catalog_work_fn *work, const char *key,
		      struct catalog_cached *out)
{
	struct catalog_asked q = {question, key, "", 0};
	int err;

	if (catalog_memory_get(c->memory, &q, out, sizeof(*out), &err))
		return err;
	err = cached_read(c, work, key, out);
	if (!err || err == -ENOENT)
		catalog_memory_put(c->memory, &q, out, sizeof(*out), err);
	return err == -EBADMSG ? -ENOENT : err;
}

void catalog_cached_ask(struct catalog *c, struct catalog_asked *q,
			const char *key)
{
	struct catalog_cached row;
	int err;

	*q = (struct catalog_asked){ASKED_CACHED, key, "", 0};
	if (catalog_memory_get(c->memory, q, &row, sizeof(row), &err))
		q->scope = NULL; /* known */
}

int catalog_cached_prefetch(struct catalog *c, struct catalog_conn *conn,
			    const struct catalog_asked *q)
{
	struct cached_work w = {.key = q->scope};
	int err;

	if (!q->scope)
		return 0;
	err = read_cached(conn, &w);
	if (err && err != -ENOENT)
		return err == -EBADMSG ? 0 : err;
	catalog_memory_put(c->memory, q, &w.row, sizeof(w.row), err);
	return 0;
}

int catalog_cached_get(struct catalog *c, const char *key,
		       struct catalog_cached *out)
{
	return cached_ask(c, ASKED_CACHED, read_cached, key, out);
}

int catalog_object_get(struct catalog *c, const char *key,
		       struct catalog_cached *out)
{
	return cached_ask(c, ASKED_OBJECT, read_object, key, out);
}

static int read_whole(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;

	w->place = CATALOG_OBJECTS;
	return catalog_row_get(conn, CATALOG_OBJECTS, w->key, &w->row);
}

int catalog_last_use(struct catalog *c, const char *key, int64_t *at)
{
	struct catalog_cached row;
	int err = cached_read(c, read_whole, key, &row);

	if (!err)
		*at = row.last_use;
	return err == -EBADMSG ? -ENOENT : err;
}

int catalog_quarantined_get(struct catalog *c, const char *key,
			    struct catalog_cached *out)
{
	int err = cached_read(c, read_quarantined, key, out);

	return err == -EBADMSG ? -ENOENT : err;
}

/* A row whose checksum fails is no row to change. */
static int cached_change(struct catalog_conn *conn, struct cached_work *w)
{
	int err = catalog_row_get(conn, CATALOG_OBJECTS, w->key, &w->row);

	return err == -EBADMSG ? -ENOENT : err;
}

static int cached_checked(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	int err = cached_change(conn, w);

	w->row.checked_at = w->now;
	return err ? err
		   : catalog_row_write(conn, CATALOG_OBJECTS, w->key, &w->row);
}

int catalog_cached_checked(struct catalog *c, const char *key, int64_t now)
{
	struct cached_work w = {.key = key, .now = now};

	return catalog_write(c, key, cached_checked, &w);
}

static int cached_doubt(struct catalog_conn *conn, void *arg)
{
	struct cached_work *w = arg;
	int err = cached_change(conn, w);

	w->row.state = CATALOG_UNCHECKED;
	return err ? err
		   : catalog_row_write(conn, CATALOG_OBJECTS, w->key, &w->row);
}

int catalog_cached_doubt(struct catalog *c, const char *key)
{
	struct cached_work w = {.key = key};

	return catalog_write(c, key, cached_doubt, &w);
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
		enum catalog_place place = place_of(f->state);
		struct catalog_cached r;

		err = catalog_row_get(conn, place, f->key, &r);
		if (!err || (err != -ENOENT && err != -EBADMSG))
			continue;
		r = (struct catalog_cached){
			.size = f->size,
			.disk_bytes = f->disk_bytes,
			.last_modified = -1,
			.state = f->state,
			.verdict = place == CATALOG_QUARANTINE ? VERDICT_DAMAGED
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

	int err = n ? catalog_write(c, NULL, cached_found, &w) : 0;

	catalog_memory_forget_all(c->memory);
	return err;
}

/* ---- usage ---- */

struct usage_read {
	enum catalog_place place;
	const char *first, *end; /* first NULL: all, from the total */
	const char *less;	 /* see count_range() */
	struct total t;
};

static int read_usage(struct catalog_conn *conn, void *arg)
{
	struct usage_read *w = arg;
	int err;

	if (w->first)
		return count_range(conn, w->place, w->first, w->end, w->less,
				   &w->t);
	err = total_get(conn, w->place, &w->t);
	if (err != -EBADMSG)
		return err;
	/* Right once, and mended at the next write. */
	err = count_range(conn, w->place, "", NULL, NULL, &w->t);
	return err ? err : -EBADMSG;
}

static int usage(struct catalog *c, struct usage_read *w, uint64_t *files,
		 uint64_t *disk_bytes)
{
	int err = catalog_db_read(c->db, read_usage, w);

	if (err == -EBADMSG) {
		catalog_note_doubt(c, DOUBT_TOTAL, w->place, NULL, NULL);
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

int catalog_usage(struct catalog *c, const char *prefix, const char *less,
		  uint64_t *files, uint64_t *disk_bytes)
{
	struct usage_read w = {.place = CATALOG_OBJECTS, .less = less};
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
	struct usage_read w = {.place = CATALOG_QUARANTINE};

	return usage(c, &w, files, disk_bytes);
}

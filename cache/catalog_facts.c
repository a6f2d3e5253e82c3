/*
 * Facts of objects, by version, and the directories of archives.
 */
#include <errno.h>
#include <stdlib.h>

#include "cache/catalog_priv.h"

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
	crc = catalog_crc_u64(crc, r->f.size);
	crc = catalog_schema_crc_int(crc, r->f.last_modified);
	crc = catalog_schema_crc_int(crc, r->f.seen_at);
	crc = catalog_schema_crc_int(crc, r->f.csv_member);
	crc = catalog_crc_u64(crc, r->f.csv_size);
	crc = catalog_crc_u64(crc, r->f.members);
	return catalog_schema_crc_int(crc, r->has_directory);
}

static uint32_t member_crc(int64_t facts, int64_t n,
			   const struct archive_member *m)
{
	uint32_t crc = catalog_schema_crc('m');

	crc = catalog_schema_crc_int(crc, facts);
	crc = catalog_schema_crc_int(crc, n);
	crc = catalog_schema_crc_text(crc, m->name);
	crc = catalog_crc_u64(crc, m->size);
	crc = catalog_crc_u64(crc, m->csize);
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
	r->id = catalog_column(stmt, 0);
	ok = catalog_column_etag(stmt, 1, r->f.etag);
	r->nth = catalog_column(stmt, 2);
	r->f.size = catalog_column_u64(stmt, 3);
	r->f.last_modified = catalog_column(stmt, 4);
	r->f.seen_at = catalog_column(stmt, 5);
	r->f.csv_member = catalog_column(stmt, 6);
	r->f.csv_size = catalog_column_u64(stmt, 7);
	r->f.members = catalog_column_u64(stmt, 8);
	r->has_directory = catalog_column(stmt, 9) != 0;
	return ok && catalog_column(stmt, 10) == facts_crc(key, r) ? 0
								   : -EBADMSG;
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

	if (!catalog_etag_ok(f->etag) || (d && d->n != f->members))
		return -EINVAL;
	return catalog_write(c, key, facts_put, &w);
}

struct facts_read {
	const char *key, *etag;
	struct facts_row row;
	struct archive_directory *d;
	bool bad; /* its checksum fails: -ENOENT, but not for good */
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
	w->bad = true;
	catalog_note_doubt(c, DOUBT_FACTS, w->row.id, w->key,
			   w->etag ? w->etag : w->row.f.etag);
	return -ENOENT;
}

/* Most versions asked for are the last, and that may be known already. */
static bool is_last(struct catalog *c, const char *key, const char *etag,
		    struct catalog_facts *out)
{
	struct catalog_asked q = {ASKED_FACTS_LAST, key, "", 0};
	struct catalog_facts f;
	int err;

	if (!catalog_memory_get(c->memory, &q, &f, sizeof(f), &err) || err ||
	    strcmp(f.etag, etag) != 0)
		return false;
	*out = f;
	return true;
}

int catalog_facts_get(struct catalog *c, const char *key, const char *etag,
		      struct catalog_facts *out)
{
	struct catalog_asked q = {etag ? ASKED_FACTS : ASKED_FACTS_LAST, key,
				  etag ? etag : "", 0};
	struct facts_read w = {.key = key, .etag = etag};
	int err;

	if (catalog_memory_get(c->memory, &q, out, sizeof(*out), &err))
		return err;
	if (etag && is_last(c, key, etag, out))
		return 0;
	err = facts_read(c, read_facts, &w);
	if (!err)
		*out = w.row.f;
	if (!err || (err == -ENOENT && !w.bad))
		catalog_memory_put(c->memory, &q, out, sizeof(*out), err);
	return err;
}

void catalog_facts_ask(struct catalog *c, struct catalog_asked *q,
		       const char *key)
{
	struct catalog_facts f;
	int err;

	*q = (struct catalog_asked){ASKED_FACTS_LAST, key, "", 0};
	if (catalog_memory_get(c->memory, q, &f, sizeof(f), &err))
		q->scope = NULL; /* known */
}

int catalog_facts_prefetch(struct catalog *c, struct catalog_conn *conn,
			   const struct catalog_asked *q)
{
	struct facts_row row;
	int err;

	if (!q->scope)
		return 0;
	err = facts_get(conn, q->scope, NULL, &row);
	if (err && err != -ENOENT)
		return err == -EBADMSG ? 0 : err;
	catalog_memory_put(c->memory, q, &row.f, sizeof(row.f), err);
	return 0;
}

static int member_of(sqlite3_stmt *stmt, int64_t facts, size_t n,
		     struct archive_member *m)
{
	const char *name = catalog_schema_text(stmt, 1);
	struct archive_member row = {
		.name = (char *)name,
		.size = catalog_column_u64(stmt, 2),
		.csize = catalog_column_u64(stmt, 3),
		.crc32 = (uint32_t)catalog_column(stmt, 4),
		.method = (uint16_t)catalog_column(stmt, 5),
		.encrypted = catalog_column(stmt, 6) != 0,
		.is_dir = catalog_column(stmt, 7) != 0,
		.mtime = catalog_column(stmt, 8),
	};

	if (!name || catalog_column(stmt, 0) != (int64_t)n ||
	    catalog_column(stmt, 9) != member_crc(facts, (int64_t)n, &row))
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

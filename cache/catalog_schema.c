#include "cache/catalog_schema.h"

#include <endian.h>
#include <isa-l/crc.h>
#include <string.h>

/*
 * "tkfs". A file of an earlier version is brought up to this one. One of a
 * later version is put aside like a damaged one: all but the ledger can be had
 * again from the origin and from the objects.
 */
#define APPLICATION_ID 0x746b6673
#define USER_VERSION   2
#define STRINGIFY2(x)  #x
#define STRINGIFY(x)   STRINGIFY2(x)

/* Came with version 2. Word by word as ALTER TABLE leaves it. */
#define CACHED_ORIGIN " origin TEXT NOT NULL DEFAULT ''"

/* clang-format off */
static const char SCHEMA[] =
	/* A listing of no entries is a row here and none in entry. */
	"CREATE TABLE listing ("
	" id INTEGER PRIMARY KEY, prefix TEXT NOT NULL UNIQUE,"
	" fetched_at INTEGER NOT NULL, entries INTEGER NOT NULL,"
	" crc INTEGER NOT NULL) STRICT;"
	"CREATE TABLE entry ("
	" listing INTEGER NOT NULL, name TEXT NOT NULL,"
	" is_prefix INTEGER NOT NULL, etag TEXT NOT NULL,"
	" size INTEGER NOT NULL, last_modified INTEGER NOT NULL,"
	" crc INTEGER NOT NULL,"
	" PRIMARY KEY (listing, name)) STRICT, WITHOUT ROWID;"

	/* nth counts the puts of a key, so that the last is found. */
	"CREATE TABLE facts ("
	" id INTEGER PRIMARY KEY, key TEXT NOT NULL, etag TEXT NOT NULL,"
	" nth INTEGER NOT NULL, size INTEGER NOT NULL,"
	" last_modified INTEGER NOT NULL, seen_at INTEGER NOT NULL,"
	" csv_member INTEGER NOT NULL, csv_size INTEGER NOT NULL,"
	" members INTEGER NOT NULL, has_directory INTEGER NOT NULL,"
	" crc INTEGER NOT NULL, UNIQUE (key, etag)) STRICT;"
	"CREATE INDEX facts_last ON facts (key, nth);"
	"CREATE TABLE member ("
	" facts INTEGER NOT NULL, n INTEGER NOT NULL, name TEXT NOT NULL,"
	" size INTEGER NOT NULL, csize INTEGER NOT NULL,"
	" crc32 INTEGER NOT NULL, method INTEGER NOT NULL,"
	" encrypted INTEGER NOT NULL, is_dir INTEGER NOT NULL,"
	" mtime INTEGER NOT NULL, crc INTEGER NOT NULL,"
	" PRIMARY KEY (facts, n)) STRICT, WITHOUT ROWID;"

	/* place: 0 objects/, 1 quarantine/; a key may lie in both. */
	"CREATE TABLE cached ("
	" place INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL,"
	" size INTEGER NOT NULL, disk_bytes INTEGER NOT NULL,"
	" last_modified INTEGER NOT NULL, sha256 BLOB NOT NULL,"
	" published BLOB, verdict TEXT NOT NULL, state INTEGER NOT NULL,"
	" verified_at INTEGER NOT NULL, checked_at INTEGER NOT NULL,"
	" last_use INTEGER NOT NULL, pinned INTEGER NOT NULL,"
	" crc INTEGER NOT NULL," CACHED_ORIGIN ","
	" PRIMARY KEY (place, key)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX cached_lru ON cached (place, pinned, last_use);"
	"CREATE TABLE total ("
	" place INTEGER PRIMARY KEY, files INTEGER NOT NULL,"
	" disk_bytes INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;"

	"CREATE TABLE ledger ("
	" id INTEGER PRIMARY KEY, at INTEGER NOT NULL, run_id TEXT NOT NULL,"
	" event TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL,"
	" verdict TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;"
	"CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN"
	" SELECT RAISE(ABORT, 'the ledger is append-only'); END;"
	"CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger BEGIN"
	" SELECT RAISE(ABORT, 'the ledger is append-only'); END;"
	/* INSERT OR REPLACE deletes without asking the trigger above. */
	"CREATE TRIGGER ledger_no_replace BEFORE INSERT ON ledger"
	" WHEN EXISTS (SELECT 1 FROM ledger WHERE id = NEW.id) BEGIN"
	" SELECT RAISE(ABORT, 'the ledger is append-only'); END;"

	"PRAGMA application_id = " STRINGIFY(APPLICATION_ID) ";"
	"PRAGMA user_version = " STRINGIFY(USER_VERSION) ";";
/* clang-format on */

static int pragma_int(sqlite3 *db, const char *sql, int64_t *v)
{
	sqlite3_stmt *stmt = NULL;
	int rc;

	rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW) {
		*v = sqlite3_column_int64(stmt, 0);
		rc = SQLITE_OK;
	} else if (rc == SQLITE_DONE) {
		rc = SQLITE_CORRUPT;
	}
	sqlite3_finalize(stmt);
	return rc;
}

int catalog_schema_is_new(sqlite3 *db, bool *is_new)
{
	int64_t id = 0, things = 0;
	int rc;

	rc = pragma_int(db, "PRAGMA application_id", &id);
	if (rc == SQLITE_OK)
		rc = pragma_int(db,
				"SELECT EXISTS (SELECT 1 FROM sqlite_schema)",
				&things);
	*is_new = id == 0 && things == 0;
	return rc;
}

int catalog_schema_create(sqlite3 *db)
{
	return sqlite3_exec(db, SCHEMA, NULL, NULL, NULL);
}

/* Rows keep their checksums: none is over an origin that is not known. */
static const char FROM_1_TO_2[] =
	"BEGIN IMMEDIATE;"
	"ALTER TABLE cached ADD COLUMN" CACHED_ORIGIN ";"
	"PRAGMA user_version = 2;"
	"COMMIT";

int catalog_schema_upgrade(sqlite3 *db)
{
	int64_t id = 0, version = 0;
	int rc;

	rc = pragma_int(db, "PRAGMA application_id", &id);
	if (rc == SQLITE_OK)
		rc = pragma_int(db, "PRAGMA user_version", &version);
	if (rc != SQLITE_OK || id != APPLICATION_ID || version != 1)
		return rc;
	return sqlite3_exec(db, FROM_1_TO_2, NULL, NULL, NULL);
}

static const char THINGS[] =
	"SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema"
	" ORDER BY type, name";

/* Whether both schemas hold the same things, word by word. */
static int compare(sqlite3 *ours, sqlite3 *theirs)
{
	sqlite3_stmt *a = NULL, *b = NULL;
	int rc, rb;

	rc = sqlite3_prepare_v2(ours, THINGS, -1, &a, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(theirs, THINGS, -1, &b, NULL);
	while (rc == SQLITE_OK) {
		rc = sqlite3_step(a);
		rb = sqlite3_step(b);
		if (rb != SQLITE_ROW && rb != SQLITE_DONE)
			rc = rb;
		else if (rc == SQLITE_ROW || rc == SQLITE_DONE)
			rc = rc == rb ? rc : SQLITE_CORRUPT;
		if (rc != SQLITE_ROW)
			break;
		rc = SQLITE_OK;
		for (int i = 0; i < 4 && rc == SQLITE_OK; i++) {
			const char *x = catalog_schema_text(a, i);
			const char *y = catalog_schema_text(b, i);

			if (!x || !y)
				rc = SQLITE_CORRUPT;
			else if (strcmp(x, y) != 0)
				rc = SQLITE_CORRUPT;
		}
	}
	sqlite3_finalize(a);
	sqlite3_finalize(b);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int catalog_schema_check(sqlite3 *db)
{
	int64_t id = 0, version = 0;
	sqlite3 *ours = NULL;
	int rc;

	rc = pragma_int(db, "PRAGMA application_id", &id);
	if (rc == SQLITE_OK)
		rc = pragma_int(db, "PRAGMA user_version", &version);
	if (rc == SQLITE_OK &&
	    (id != APPLICATION_ID || version != USER_VERSION))
		rc = SQLITE_CORRUPT;
	if (rc == SQLITE_OK)
		rc = sqlite3_open_v2(
			":memory:", &ours,
			SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc == SQLITE_OK)
		rc = catalog_schema_create(ours);
	if (rc == SQLITE_OK)
		rc = compare(ours, db);
	sqlite3_close(ours);
	return rc;
}

/* ---- checksums ---- */

uint32_t catalog_schema_crc_bytes(uint32_t crc, const void *p, size_t len)
{
	return crc32_gzip_refl(crc, p, len);
}

uint32_t catalog_schema_crc(char table)
{
	return catalog_schema_crc_bytes(0, &table, 1);
}

uint32_t catalog_schema_crc_int(uint32_t crc, int64_t v)
{
	uint64_t le = htole64((uint64_t)v);

	return catalog_schema_crc_bytes(crc, &le, sizeof(le));
}

uint32_t catalog_schema_crc_text(uint32_t crc, const char *s)
{
	size_t len = strlen(s);

	/* The length first: "a","bc" must differ from "ab","c". */
	crc = catalog_schema_crc_int(crc, (int64_t)len);
	return catalog_schema_crc_bytes(crc, s, len);
}

const char *catalog_schema_text(sqlite3_stmt *stmt, int column)
{
	const char *s = (const char *)sqlite3_column_text(stmt, column);

	if (!s)
		return "";
	return strlen(s) == (size_t)sqlite3_column_bytes(stmt, column) ? s
								       : NULL;
}

/* ---- the ledger ---- */

static uint32_t ledger_crc(const struct catalog_ledger_row *r)
{
	uint32_t crc = catalog_schema_crc('l');

	/* Not the id: a row keeps its checksum when it is carried over. */
	crc = catalog_schema_crc_int(crc, r->at);
	crc = catalog_schema_crc_text(crc, r->run_id);
	crc = catalog_schema_crc_text(crc, r->event);
	crc = catalog_schema_crc_text(crc, r->key);
	crc = catalog_schema_crc_text(crc, r->sha256);
	return catalog_schema_crc_text(crc, r->verdict);
}

int catalog_schema_ledger_insert(sqlite3 *db,
				 const struct catalog_ledger_row *r)
{
	const char *text[] = {r->run_id, r->event, r->key, r->sha256,
			      r->verdict};
	sqlite3_stmt *stmt = NULL;
	int rc;

	rc = sqlite3_prepare_v2(db,
				"INSERT INTO ledger (at, run_id, event, key,"
				" sha256, verdict, crc)"
				" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
				-1, &stmt, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(stmt, 1, r->at);
	for (int i = 0; i < 5 && rc == SQLITE_OK; i++)
		rc = sqlite3_bind_text(stmt, i + 2, text[i], -1, SQLITE_STATIC);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(stmt, 7, ledger_crc(r));
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	sqlite3_finalize(stmt);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* The row under @stmt, its strings valid until the next step; false where it
 * fails its checksum. */
static bool ledger_row(sqlite3_stmt *stmt, struct catalog_ledger_row *r)
{
	r->at = sqlite3_column_int64(stmt, 1);
	r->run_id = catalog_schema_text(stmt, 2);
	r->event = catalog_schema_text(stmt, 3);
	r->key = catalog_schema_text(stmt, 4);
	r->sha256 = catalog_schema_text(stmt, 5);
	r->verdict = catalog_schema_text(stmt, 6);
	return r->run_id && r->event && r->key && r->sha256 && r->verdict &&
	       sqlite3_column_int64(stmt, 7) == ledger_crc(r);
}

#define LEDGER                                                                 \
	"SELECT id, at, run_id, event, key, sha256, verdict, crc FROM"         \
	" ledger WHERE id >= ?1 ORDER BY id"

/* Copies the rows with ids from @first on until the end or the first page that
 * can't be read; *last is the last id seen. */
static uint64_t copy_rows(sqlite3 *from, sqlite3 *to, int64_t first,
			  int64_t *last)
{
	struct catalog_ledger_row row;
	sqlite3_stmt *stmt = NULL;
	uint64_t n = 0;

	if (sqlite3_prepare_v2(from, LEDGER, -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_bind_int64(stmt, 1, first) == SQLITE_OK) {
		while (sqlite3_step(stmt) == SQLITE_ROW) {
			int64_t id = sqlite3_column_int64(stmt, 0);

			/* A page linked twice would be read for ever. */
			if (id <= *last)
				break;
			*last = id;
			if (ledger_row(stmt, &row) &&
			    catalog_schema_ledger_insert(to, &row) == SQLITE_OK)
				n++;
		}
	}
	sqlite3_finalize(stmt);
	return n;
}

/* The lowest id from which on every row up to the end can be read. */
static int64_t readable_tail(sqlite3 *from, int64_t after)
{
	sqlite3_stmt *stmt = NULL;
	int64_t id = INT64_MAX;

	if (sqlite3_prepare_v2(from,
			       "SELECT id FROM ledger WHERE id > ?1"
			       " ORDER BY id DESC",
			       -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_bind_int64(stmt, 1, after) == SQLITE_OK) {
		while (sqlite3_step(stmt) == SQLITE_ROW &&
		       sqlite3_column_int64(stmt, 0) < id)
			id = sqlite3_column_int64(stmt, 0);
	}
	sqlite3_finalize(stmt);
	return id;
}

uint64_t catalog_schema_salvage(sqlite3 *from, sqlite3 *to)
{
	int64_t last = INT64_MIN, tail;
	uint64_t n;

	/* From the front up to the damage, then what lies behind it. */
	n = copy_rows(from, to, INT64_MIN, &last);
	tail = readable_tail(from, last);
	if (tail > last && tail != INT64_MAX)
		n += copy_rows(from, to, tail, &last);
	return n;
}

/*
 * The ledger: lines are added at its end, and the oldest are dropped when they
 * are too many. Ids follow one another, so the first and the last tell how many
 * lines there are. They do not where somebody added lines with ids of his own:
 * the lines before such a gap count as old.
 */
#include <stdio.h>

#include "cache/catalog_priv.h"

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
	return catalog_write(c, NULL, ledger_add, &row);
}

/* ---- its limit ---- */

enum {
	/* Dropped in one transaction, during which nobody else can write. */
	BATCH = 1024,
	ROUNDS = 16, /* batches in one call */
	/* As part of what is kept: what is too much before anything is dropped,
	 * so that it is worth a commit. A batch at most. */
	SLACK_SHARE = 16,
};

struct cut {
	uint64_t keep, slack;
	uint64_t lines; /* dropped */
	int64_t until;
};

/* @types: of what the statement wants, "i" for @before or "". */
static int ask(struct catalog_conn *conn, enum catalog_sql sql,
	       const char *types, int64_t before, int64_t *v)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, sql);
	int more = catalog_db_bind(conn, stmt, types, before);

	if (more)
		return more;
	more = catalog_db_step(conn, stmt);
	if (more > 0)
		*v = catalog_column(stmt, 0);
	sqlite3_reset(stmt);
	return more < 0 ? more : 0;
}

/*
 * The triggers that forbid it to all others stay in the file, and are passed
 * over by this connection for this statement alone. To drop them and make them
 * again would make every reader read the schema anew.
 */
static int drop_before(struct catalog_conn *conn, int64_t id, uint64_t *lines)
{
	sqlite3 *db = catalog_db_handle(conn);
	int err, rc;

	rc = sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	if (rc != SQLITE_OK)
		return catalog_db_error(conn, rc);
	err = catalog_db_run(conn, LEDGER_CUT, "i", id);
	*lines = (uint64_t)sqlite3_changes64(db);
	rc = sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
	return err ? err : catalog_db_error(conn, rc);
}

static int cut(struct catalog_conn *conn, void *arg)
{
	int64_t first = 0, last = 0, before;
	struct cut *w = arg;
	uint64_t lines;
	int err;

	w->lines = 0;
	err = ask(conn, LEDGER_FIRST, "", 0, &first);
	if (!err)
		err = ask(conn, LEDGER_LAST, "", 0, &last);
	/* The difference of any two fits into 64 bits without a sign. */
	lines = (uint64_t)last - (uint64_t)first + 1;
	if (err || lines < w->keep || lines - w->keep < w->slack)
		return err;
	lines -= w->keep;
	before = (int64_t)((uint64_t)first + (lines < BATCH ? lines : BATCH));
	err = ask(conn, LEDGER_BEFORE, "i", before, &w->until);
	return err ? err : drop_before(conn, before, &w->lines);
}

int catalog_ledger_trim(struct catalog *c, uint64_t keep,
			struct catalog_trimmed *out)
{
	struct cut w = {.keep = keep, .slack = keep / SLACK_SHARE};
	struct catalog_trimmed sum = {0};
	int err;

	if (w.slack > BATCH)
		w.slack = BATCH;
	if (w.slack == 0)
		w.slack = 1;
	for (int i = 0; i < ROUNDS; i++) {
		err = catalog_write(c, NULL, cut, &w);
		/* What is gone must be told; the error comes again. */
		if (err && sum.lines == 0)
			return err;
		if (err || w.lines == 0)
			break;
		sum.lines += w.lines;
		sum.until = w.until;
	}
	*out = sum;
	return 0;
}

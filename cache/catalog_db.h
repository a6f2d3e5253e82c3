/*
 * catalog_db - the SQLite connections of a catalog: one that writes, as many
 * as there are readers at once that read, and the replacement of a damaged
 * file under all of them.
 *
 * For cache/catalog.c only.
 */
#ifndef CACHE_CATALOG_DB_H
#define CACHE_CATALOG_DB_H

#include <sqlite3.h>
#include <stdint.h>

#include "cache/catalog.h"

struct catalog_db;
struct catalog_conn;

/* @sql: the statements, numbered for catalog_db_stmt(); static. */
int catalog_db_open(struct catalog_db **out, const char *dir,
		    catalog_damage_fn *on_damage, void *arg,
		    const char *const *sql, unsigned int n_sql);
void catalog_db_close(struct catalog_db *db);

/*
 * Work on a connection, in a transaction. Returns 0 or a negative errno, which
 * rolls a write back; -EUCLEAN, made by catalog_db_error() of a damaged file,
 * has the file replaced and the work done once more on the new one. It may
 * thus run twice, and calls nothing that takes a lock.
 */
typedef int catalog_work_fn(struct catalog_conn *conn, void *arg);

/* Never waits for a writer. */
int catalog_db_read(struct catalog_db *db, catalog_work_fn *work, void *arg);
/* One at a time; committed when it returns. */
int catalog_db_write(struct catalog_db *db, catalog_work_fn *work, void *arg);

/* Empties the log if it has become long. Waits a second for those who read from
 * it, and if there still is one, lets it grow by as much again. */
int catalog_db_shorten_log(struct catalog_db *db);

/* Statement @n, reset and without values. NULL: catalog_db_bind() tells why. */
sqlite3_stmt *catalog_db_stmt(struct catalog_conn *conn, unsigned int n);
sqlite3 *catalog_db_handle(struct catalog_conn *conn);
/*
 * catalog_db_bind() - values for the statement's parameters in order.
 * @types: 't' const char *, 'i' int64_t, 'h' 32 bytes or NULL; without
 * a value of their own: 'n' NULL,
 * 'z' an empty blob, which SQLite sorts after every text
 */
int catalog_db_bind(struct catalog_conn *conn, sqlite3_stmt *stmt,
		    const char *types, ...);
/* 1 with a row, 0 at the end, or a negative errno. */
int catalog_db_step(struct catalog_conn *conn, sqlite3_stmt *stmt);
/* Bind and step a statement that gives no rows. */
int catalog_db_run(struct catalog_conn *conn, unsigned int n, const char *types,
		   ...);
/* The negative errno of the connection's last failure. */
int catalog_db_error(struct catalog_conn *conn, int rc);

#endif

/*
 * catalog_schema - the tables of catalog.sqlite, whether a file has exactly
 * these, and what can be saved from one that is damaged.
 *
 * For cache/catalog.c and cache/catalog_db.c only. SQLite's result codes come
 * back as they are.
 */
#ifndef CACHE_CATALOG_SCHEMA_H
#define CACHE_CATALOG_SCHEMA_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No application_id and no table: a new file. */
int catalog_schema_is_new(sqlite3 *db, bool *is_new);
/* In a transaction of the caller. */
int catalog_schema_create(sqlite3 *db);
/* Of an earlier version: brought up to ours, in a transaction of its own.
 * Leaves all others as they are. After an error close @db. */
int catalog_schema_upgrade(sqlite3 *db);
/* SQLITE_OK, or SQLITE_CORRUPT for a file with other ids, another version or
 * anything more or less than our tables, indexes and triggers. */
int catalog_schema_check(sqlite3 *db);

/* The last column of every row. @table: which table the row is for, so that
 * no row passes for one of another. */
uint32_t catalog_schema_crc(char table);
uint32_t catalog_schema_crc_int(uint32_t crc, int64_t v);
uint32_t catalog_schema_crc_text(uint32_t crc, const char *s);
uint32_t catalog_schema_crc_bytes(uint32_t crc, const void *p, size_t len);

/* A row of the ledger: text is "" where there is none. */
struct catalog_ledger_row {
	int64_t at;
	const char *run_id, *event, *key, *sha256 /* hex */, *verdict;
};
/* As text, or NULL where it holds a NUL byte and can't be one of ours. */
const char *catalog_schema_text(sqlite3_stmt *stmt, int column);
int catalog_schema_ledger_insert(sqlite3 *db,
				 const struct catalog_ledger_row *row);
/* Every row of the ledger in @from that can still be read and passes its
 * checksum goes into @to, in a transaction of the caller. Answers how many. */
uint64_t catalog_schema_salvage(sqlite3 *from, sqlite3 *to);

#endif

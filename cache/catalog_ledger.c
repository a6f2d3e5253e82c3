/*
 * The ledger: lines are added at its end.
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

/*
 * dataset - the table of markets, datasets and intervals. Adding a dataset is
 * adding a row. Source: the reference, section 1.1 to 1.3.
 */
#ifndef FS_DATASET_H
#define FS_DATASET_H

#include <stdbool.h>
#include <stddef.h>

struct market {
	const char
		*name; /* folder under the mount: "spot" "um" "cm" "option" */
	const char *prefix; /* of keys: "data/spot/", "data/futures/um/", ... */
};

struct dataset {
	const char *market;  /* market's name */
	const char *name;    /* "klines" */
	bool daily, monthly; /* which cadences were ever published */
	bool intervals;	     /* has a folder level for them */
};

const struct market *dataset_markets(size_t *n);
const struct market *dataset_market(const char *name, size_t len);
const struct dataset *dataset_all(size_t *n); /* sorted by market, name */
const struct dataset *dataset_find(const struct market *m, const char *name,
				   size_t len);
bool dataset_interval_ok(const char *name, size_t len);

#endif

/*
 * path - path grammar both ways: from a path below the mount to what it means
 * at the origin, and from names of keys to names in the tree. Pure.
 *
 * See design section 1. Names are bytes; UTF-8 passes through. Names the
 * grammar does not know exist under data/ only.
 */
#ifndef FS_PATH_H
#define FS_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "fs/dataset.h"
#include "fs/date.h"

enum {
	PATH_MAX_BYTES = 1400, /* of a path below the mount */
	PATH_KEY_MAX = 1025,   /* an S3 key and its NUL */
	PATH_NAME_MAX = 255,
};

enum path_kind {
	PATH_ROOT,	   /* "" */
	PATH_CONTROL,	   /* ".tickfs" */
	PATH_CONTROL_FILE, /* ".tickfs/NAME" */
	PATH_RAW,      /* "data", "data/…": a folder or an object, the name
			  alone does not tell; see raw_looks_like_file */
	PATH_RAW_CSV,  /* "data/…/X.csv": of the archive X.zip */
	PATH_MEMBERS,  /* "data/…/X.zip.d[/inner]": members of X.zip */
	PATH_MARKET,   /* "spot" */
	PATH_DATASET,  /* "spot/klines" */
	PATH_SYMBOL,   /* "spot/klines/BTCUSDT" */
	PATH_INTERVAL, /* "spot/klines/BTCUSDT/1m" */
	PATH_DATE,     /* "spot/klines/BTCUSDT/1m/2024-01-01.csv" */
};

struct path {
	enum path_kind kind;
	const struct market *market;
	const struct dataset *dataset;
	char symbol[PATH_NAME_MAX + 1];
	char interval[8]; /* "" where the dataset has none */
	struct date date;
	char key[PATH_KEY_MAX]; /* RAW: the key, or prefix without its last
				   slash; RAW_CSV, MEMBERS: of the zip */
	const char *inner; /* into the parsed string; MEMBERS: below the top,
			      which is ""; CONTROL_FILE: the NAME */
	bool raw_looks_like_file; /* RAW: the last component holds a dot */
};

/*
 * path_parse() - what a path below the mount means.
 * @path: no leading or trailing slash, "" is the root. Must outlive @out.
 * Returns 0, -ENOENT where the grammar excludes it (unknown dataset, no date,
 * "2024-01-01.csv" of a monthly-only dataset, empty names, "." and "..",
 * control bytes or bytes that are not UTF-8 outside of MEMBERS, ...),
 * -ENAMETOOLONG (the path, a component, or the key). @out is written on success
 * only. In "data/", "X.csv" is RAW_CSV and "X.zip.d" is MEMBERS; everything
 * else RAW.
 */
int path_parse(const char *path, struct path *out);

/* The cadences an archive can have. */
enum path_cadence { PATH_DAILY, PATH_MONTHLY };

/*
 * path_prefix() - the listing prefix ("data/spot/daily/klines/BTCUSDT/1m/")
 * behind a MARKET, DATASET, SYMBOL or INTERVAL folder, or behind the one a DATE
 * lies in.
 * -ENOENT where its dataset or market has no such cadence, and for other kinds.
 */
int path_prefix(const struct path *p, enum path_cadence c,
		char out[PATH_KEY_MAX + 1]);

/*
 * path_prefixes() - the prefixes of keys that lie behind the folder @path.
 * Returns how many: 0 to 2.
 */
unsigned int path_prefixes(const char *path, char out[2][PATH_KEY_MAX + 1]);

/*
 * path_key() - the key of the archive behind a DATE path.
 * @unpadded: for a month below ten, the spelling "2020-8" that some archives
 * have; -ENOENT where there is no such spelling.
 */
int path_key(const struct path *p, bool unpadded, char out[PATH_KEY_MAX]);

/*
 * path_date_of_zip() - the date in the name of an archive in the folder @p
 * (INTERVAL, or SYMBOL of a dataset without intervals; or a DATE in it).
 * True if @name is SYMBOL-INTERVAL-DATE.zip or SYMBOL-DATASET-DATE.zip for
 * this folder and @cadence. *unpadded says that the month was "2020-8".
 */
bool path_date_of_zip(const struct path *p, enum path_cadence c,
		      const char *name, struct date *date, bool *unpadded);

/* What the name of an archive tells a reader of the log: its symbol, the folder
 * it lies in or below that the name begins with, and its date as it is written
 * in the tree. "" where there is none. */
void path_describe(const char *key, char symbol[PATH_NAME_MAX + 1],
		   char date[DATE_TEXT_MAX]);

#endif

/*
 * folder - what a directory holds.
 *
 * The tree by date lists no trading day twice (design section 1): the daily
 * archives, and a monthly one only for months of which no day is published
 * daily; with prefer_monthly the other way round. What is left out by this is
 * named in dates_only_in_monthly; what nobody published, in missing_dates.
 */
#ifndef FS_FOLDER_H
#define FS_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/date.h"
#include "fs/listings.h"
#include "fs/supply.h"

struct folders;

struct folders_config {
	struct supply *supply;
	struct listings *listings;
	struct catalog *catalog;
	bool prefer_monthly;
	struct workers *workers;	  /* for folder_warm(); may be NULL */
	const char *const *control_files; /* names under .tickfs/, NULL ends */
};

int folder_table_create(struct folders **out, const struct folders_config *cfg);
/* With what was read and not freed: handles that the kernel never released. */
void folder_table_free(struct folders *f);

struct folder_entry {
	const char *name;
	bool is_dir;
};

/* At one moment; never changes. */
struct folder {
	size_t n;
	struct folder_entry *entries; /* by name in byte order, each once */
	uint64_t files;	    /* how many of them are archives or other objects */
	int64_t fetched_at; /* of the oldest listing behind it; 0: none */
	bool has_dates;	    /* a folder of DATE.csv; the next four hold */
	char first_date[DATE_TEXT_MAX], last_date[DATE_TEXT_MAX];
	/* "2024-06-11..2024-06-12,2024-07-01"; "" if none */
	char *missing_dates, *dates_only_in_monthly;
	/* The module's own. */
	struct folders *table;
	struct folder *next, **link;
};

/*
 * folder_read() - the folder @path (below the mount).
 * 0 with *out the caller's to folder_free(), -ENOENT where nothing is there,
 * -EINPROGRESS with @w waiting (fs/supply.h), -ENOTDIR, errors. Reads the
 * catalog: milliseconds for thousands of entries, so for worker threads.
 */
int folder_read(struct folders *f, const char *path, struct waiter *w,
		struct folder **out);
void folder_free(struct folder *d);

/*
 * folder_note_read() - somebody read the folder @path; folder_size_all() then
 * looks up the sizes of all its CSVs that are not known, once, and does nothing
 * for a folder that was not read lately. @path may end in a slash.
 */
void folder_note_read(struct folders *f, const char *path);
void folder_size_all(struct folders *f, const char *path);

/*
 * folder_looked_up() - somebody looks up a file of the folder @path. Where a
 * few were looked up since it was read, as `ls -l` does, what the catalog knows
 * of all of them is read into memory (catalog_prefetch()), by a worker.
 */
void folder_looked_up(struct folders *f, const char *path);
/* Was that done, so that none of its names needs a look into the catalog? */
bool folder_is_warm(struct folders *f, const char *path);

#endif

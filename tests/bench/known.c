/*
 * known - fill the catalog of a new cache with objects that were seen once.
 *
 *	known DIR COUNT
 *
 * Each has an entry in the listing of its folder, a thousand a folder, and the
 * facts that its tail told: what browsing that part of the archive leaves.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/catalog.h"

enum { FOLDER_ENTRIES = 1000 };

static const int64_t SEEN = 1735689600;

struct folder {
	char prefix[128];
	char names[FOLDER_ENTRIES][64], etags[FOLDER_ENTRIES][40];
	struct catalog_entry entries[FOLDER_ENTRIES];
	size_t count;
};

static void fill(struct folder *f, unsigned int number, size_t count)
{
	snprintf(f->prefix, sizeof(f->prefix),
		 "data/spot/daily/klines/K%06uUSDT/1m/", number);
	f->count = count;
	for (size_t i = 0; i < count; i++) {
		snprintf(f->names[i], sizeof(f->names[i]),
			 "K%06uUSDT-1m-%04zu-%02zu-%02zu.zip", number,
			 2018 + i / 336, 1 + i / 28 % 12, 1 + i % 28);
		snprintf(f->etags[i], sizeof(f->etags[i]), "\"%032zx\"",
			 (size_t)number * FOLDER_ENTRIES + i);
		f->entries[i] = (struct catalog_entry){
			.name = f->names[i],
			.etag = f->etags[i],
			.size = 60000 + i,
			.last_modified = SEEN - 86400,
		};
	}
}

static int put_facts(struct catalog *c, const struct folder *f)
{
	struct catalog_facts facts = {
		.last_modified = SEEN - 86400,
		.seen_at = SEEN,
		.members = 1,
	};
	char csv[64], key[256];
	struct archive_member member = {
		.name = csv,
		.method = ARCHIVE_METHOD_DEFLATE,
		.mtime = SEEN - 86400,
	};
	const struct archive_directory directory = {1, &member};
	int err = 0;

	for (size_t i = 0; i < f->count && !err; i++) {
		size_t stem = strlen(f->names[i]) - strlen(".zip");

		snprintf(key, sizeof(key), "%s%s", f->prefix, f->names[i]);
		snprintf(csv, sizeof(csv), "%.*s.csv", (int)stem, f->names[i]);
		snprintf(facts.etag, sizeof(facts.etag), "%s", f->etags[i]);
		facts.size = f->entries[i].size;
		member.csize = facts.size - 300;
		member.size = facts.csv_size = facts.size * 3;
		err = catalog_facts_put(c, key, &facts, &directory);
	}
	return err;
}

int main(int argc, char **argv)
{
	struct folder *f = calloc(1, sizeof(*f));
	struct catalog *c = NULL;
	uint64_t left;
	int err;

	if (argc != 3 || !f) {
		fputs("usage: known DIR COUNT\n", stderr);
		return 2;
	}
	left = strtoull(argv[2], NULL, 10);
	err = catalog_open(&c, argv[1], NULL, NULL);
	for (unsigned int n = 0; left && !err; n++) {
		fill(f, n, left < FOLDER_ENTRIES ? left : FOLDER_ENTRIES);
		left -= f->count;
		err = catalog_listing_put(c, f->prefix, f->entries, f->count,
					  SEEN);
		if (!err)
			err = put_facts(c, f);
	}
	if (c)
		catalog_close(c);
	free(f);
	if (err)
		fprintf(stderr, "known: %s\n", strerror(-err));
	return err ? 1 : 0;
}

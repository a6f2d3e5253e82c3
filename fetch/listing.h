/*
 * listing - what an origin says lies directly under one prefix, gathered from
 * its pages (S3 ListObjects v1).
 */
#ifndef FETCH_LISTING_H
#define FETCH_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct listing_entry {
	const char *name; /* below the prefix, no trailing slash; owned by l */
	bool is_prefix;	  /* CommonPrefixes: a folder */
	const char *etag; /* without quotes; "" if none */
	uint64_t size;
	int64_t last_modified; /* seconds since 1970, -1 if unknown */
};

struct listing {
	char *prefix;
	size_t n;
	struct listing_entry *entries; /* by name, byte order, no name twice */
	void *arena;		       /* the module's own */
};

void listing_free(struct listing *l);

#endif

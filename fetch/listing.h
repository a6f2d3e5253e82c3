/*
 * listing - what an origin says lies directly under one prefix, gathered from
 * its pages (S3 ListObjects v1).
 *
 * The gathering is pure: it says after which marker the next page begins, and
 * is handed the page's bytes.
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

enum {
	LISTING_PAGES_MAX = 1000,
	LISTING_TEXT_MAX = 128 << 20, /* bytes of names and ETags */
};

struct listing_walk;

/*
 * listing_walk_create() - gather all under @prefix.
 * @prefix: "" or ends in "/"
 * @limit: 0, or one page of at most that many entries
 * Returns 0 or -ENOMEM.
 */
int listing_walk_create(struct listing_walk **out, const char *prefix,
			size_t limit);
void listing_walk_free(struct listing_walk *w);

/* The next page begins after this; "" for the first. Valid until the next
 * listing_walk_end(). */
const char *listing_walk_marker(const struct listing_walk *w);

/* An answer begins: what an earlier, broken one gave of this page is void.
 * 0 or -ENOMEM. */
int listing_walk_begin(struct listing_walk *w);

/* 0, -ENOMEM, or -EPROTO for what is no listing or passes a limit. */
int listing_walk_feed(struct listing_walk *w, const void *buf, size_t len);

/*
 * listing_walk_end() - the page is at its end.
 *
 * The next marker is NextMarker or, where a truncated page has none, its last
 * name (the rule of S3 without a delimiter). It must grow from page to page,
 * or the walk would never end.
 *
 * Returns 1 if another page follows, 0 if that was all, -ENOMEM, or -EPROTO,
 * also for a marker that does not grow and for page LISTING_PAGES_MAX + 1.
 */
int listing_walk_end(struct listing_walk *w);

/*
 * listing_walk_take() - what was gathered, after listing_walk_end() gave 0.
 *
 * Names that no file can have are left out: outside the prefix, empty, "." and
 * "..", with a slash or a control byte. Where an object and a folder have one
 * name, the folder stays, for it may hold many; of two objects the later one.
 * Returns 0 or -ENOMEM.
 */
int listing_walk_take(struct listing_walk *w, struct listing **out);

#endif

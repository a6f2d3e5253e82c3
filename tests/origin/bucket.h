/*
 * bucket - a folder on disk as an S3 bucket: keys, ETags, pages of listings.
 *
 * A key is a path below the root that begins with "data/"; nothing else is
 * served, nor any name that begins with a dot. Folders are not objects: one
 * without a file anywhere below it does not show.
 *
 * What a folder holds is read once and again when the folder's mtime changes;
 * MD5s are kept by path, size and mtime. So files may be added, removed and
 * replaced while the origin runs.
 */
#ifndef TESTS_ORIGIN_BUCKET_H
#define TESTS_ORIGIN_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "tests/origin/rules.h"

enum {
	IMITATION_KEY_MAX = 1024, /* S3's limit on a key, in bytes */
	IMITATION_ETAG_LEN = 48,  /* "<32 hex>-<parts>" and the NUL */
};

struct imitation_bucket;

/*
 * imitation_bucket_open() - a bucket over @root.
 * @name: as listings give it
 * @page_size: most entries of a page
 * @multipart_above: a file larger than this gets an ETag as of a multipart
 *	upload, made from its size and mtime without reading it
 * Returns 0, -ENOMEM, or what open(2) gave for @root.
 */
int imitation_bucket_open(struct imitation_bucket **out, const char *root,
			  const char *name, unsigned int page_size,
			  uint64_t multipart_above);
void imitation_bucket_close(struct imitation_bucket *b);

/* Forget folders and MD5s. */
void imitation_bucket_refresh(struct imitation_bucket *b);

struct imitation_object {
	int fd; /* the caller's to close */
	uint64_t size;
	time_t mtime;
	char etag[IMITATION_ETAG_LEN]; /* without quotes */
};

/*
 * imitation_bucket_get() - open the object of a key.
 * @path: NULL, or a file to take in its place: below the root or absolute
 * Returns 0, -ENOENT, -ENOMEM or what open(2) gave.
 */
int imitation_bucket_get(struct imitation_bucket *b, const char *key,
			 const char *path, struct imitation_object *out);

/* The query of a listing; NULL where a parameter is not given. */
struct imitation_query {
	const char *prefix, *delimiter, *marker, *max_keys;
	const char *list_type, *continuation_token, *start_after;
	const char *encoding_type;
	bool empty; /* find nothing, whatever there is */
};

/*
 * imitation_bucket_list() - one page as XML, ListObjects version 1 or 2.
 * @xml: malloc'ed, also for the <Error> of a query that is refused
 * Returns the HTTP status (200, 400 or 501), or -ENOMEM.
 * Format: Amazon S3 API, ListObjects and ListObjectsV2.
 */
int imitation_bucket_list(struct imitation_bucket *b,
			  const struct imitation_query *q,
			  struct imitation_rules *rules, char **xml,
			  size_t *len);

/* imitation_bucket_error() - an S3 <Error>; malloc'ed, NULL: no memory. */
char *imitation_bucket_error(const char *code, const char *message,
			     const char *detail_name, const char *detail,
			     size_t *len);

#endif

/*
 * url - keys, prefixes and markers as URLs. Pure.
 */
#ifndef FETCH_URL_H
#define FETCH_URL_H

#include <stddef.h>

/* 0, -EINVAL for what is not an absolute http or https URL with a host, or
 * has a user, a query or a fragment in it, -ENOMEM. */
int url_check_base(const char *base);

/*
 * Of one key under @base: every byte that RFC 3986 does not call unreserved is
 * percent-encoded, "/" stays. The caller's to free(); NULL for want of memory.
 */
char *url_object(const char *base, const char *key);

/*
 * Of one page of S3 ListObjects v1 with delimiter "/".
 * @marker: the page begins after this; "" for the first
 * @max_keys: 0 for the server's own page size
 */
char *url_listing(const char *bucket, const char *prefix, const char *marker,
		  size_t max_keys);

#endif

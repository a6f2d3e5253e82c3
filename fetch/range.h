/*
 * range - the value of a Content-Range field (RFC 9110 section 14.4). Pure.
 */
#ifndef FETCH_RANGE_H
#define FETCH_RANGE_H

#include <stdbool.h>
#include <stdint.h>

struct range {
	bool satisfied;	      /* false: the form with a star, as with 416 */
	uint64_t first, last; /* inclusive; 0 where not satisfied */
	uint64_t total;	      /* UINT64_MAX: unknown */
};

/* Returns 0, or -EPROTO for another unit, bounds the wrong way round or past
 * the total, numbers past INT64_MAX, and anything else. */
int range_parse(const char *value, struct range *r);

#endif

/*
 * spending - how much was downloaded on a day, kept beside the cache so that
 * it outlives the program: one line of text in CACHE/spending.
 */
#ifndef CACHE_SPENDING_H
#define CACHE_SPENDING_H

#include <stddef.h>
#include <stdint.h>

struct spending {
	int64_t day;	    /* since 1970-01-01, UTC */
	uint64_t bytes;	    /* that came on it, or are promised */
	uint64_t downloads; /* of these, archives */
};

enum { SPENDING_TEXT_MAX = 128 }; /* with its NUL */

/* The line that is kept; returns its length. */
size_t spending_format(const struct spending *s, char out[SPENDING_TEXT_MAX]);
/* -EBADMSG for what spending_format() does not give. */
int spending_parse(const char *text, size_t len, struct spending *out);

/*
 * @dir: absolute folder of the cache, which nobody else uses meanwhile.
 * spending_load(): -ENOENT where none was kept; -EBADMSG where it is damaged;
 * or -errno. What a crash left of a save is removed. spending_save() is durable
 * when it returns 0, and else what was kept before is there.
 */
int spending_load(const char *dir, struct spending *out);
int spending_save(const char *dir, const struct spending *s);

#endif

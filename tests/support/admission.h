/*
 * admission - what a download does with the store, in one call: for tests of
 * the store and of what is built upon it.
 */
#ifndef TESTS_SUPPORT_ADMISSION_H
#define TESTS_SUPPORT_ADMISSION_H

#include "cache/store.h"

/* Bytes that follow from @seed: any two seeds differ nearly everywhere. */
void admission_fill(unsigned char *buf, size_t len, unsigned int seed);
/* What the store is to know of @buf, judged good now. */
void admission_info(struct store_info *info, const char *etag, const void *buf,
		    size_t len);
/* The index of what is staged, then its commit. 0 or -errno. */
int admission_commit(struct store_staging *sg, const struct store_info *info);
/* All of it: stage, begin anew, write, index, commit, close. */
int admission_admit(struct store *st, const char *key, const char *etag,
		    const void *buf, size_t len);
/* Whether @o's bytes, as a reader decodes them, are @buf. */
bool admission_same(struct store_object *o, const void *buf, size_t len);

#endif

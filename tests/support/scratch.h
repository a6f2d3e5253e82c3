/*
 * scratch - a folder of a test's own, removed with all that is in it.
 */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include <stddef.h>

/* A new folder below $TMPDIR or /tmp. Aborts the test program on failure. */
char *scratch_create(void);
void scratch_remove(char *dir);
/* dir/name, to be freed. */
char *scratch_path(const char *dir, const char *name);
/* Writes a file anew; reads one whole, NUL-terminated, or gives NULL. */
void scratch_write(const char *path, const void *buf, size_t len);
char *scratch_read(const char *path, size_t *len);
/* Turns the bits of @mask in byte @at round; negative counts from the end. */
void scratch_flip(const char *path, long at, unsigned char mask);

#endif

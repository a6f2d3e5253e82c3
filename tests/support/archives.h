/*
 * archives - zips for the tests of cache/, made by archives.py beside this
 * file, in a temporary folder.
 */
#ifndef TESTS_SUPPORT_ARCHIVES_H
#define TESTS_SUPPORT_ARCHIVES_H

#include <stddef.h>
#include <stdint.h>

struct archives {
	char *path;
	int dirfd;
};

/* @groups: functions of the script, separated by blanks. Fails the test that
 * runs where python3 can't do it. */
void archives_create(struct archives *a, const char *groups);
void archives_remove(struct archives *a);

/* A file of it, whole; the bytes are the caller's to free(). */
unsigned char *archives_read(const struct archives *a, const char *name,
			     size_t *len);
/* Opened for reading and writing. */
int archives_open(const struct archives *a, const char *name, uint64_t *size);

/* A generator of numbers that is the same everywhere (splitmix64). */
uint64_t archives_random(uint64_t *state);

#endif

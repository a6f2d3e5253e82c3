/*
 * every - of faults that are tried one after the other, every how manyth.
 *
 * TICKFS_EVERY, or 1. Under a sanitizer each try takes three times as long and
 * goes through the same code as its neighbours; what each leaves behind the
 * plain test has seen.
 */
#ifndef TESTS_SUPPORT_EVERY_H
#define TESTS_SUPPORT_EVERY_H

#include <stdlib.h>

static inline unsigned int every(void)
{
	const char *text = getenv("TICKFS_EVERY");
	unsigned long n = text ? strtoul(text, NULL, 10) : 1;

	return n >= 1 && n <= 100 ? (unsigned int)n : 1;
}

#endif

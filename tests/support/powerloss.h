/*
 * powerloss - runs a program up to its Nth sync and puts together what a loss
 * of power there would have left: the other half of tests/shim/powerloss.c,
 * which says what is modelled.
 */
#ifndef TESTS_SUPPORT_POWERLOSS_H
#define TESTS_SUPPORT_POWERLOSS_H

#include <stdbool.h>

/*
 * powerloss_run() - run @argv with the shim over @root.
 * @state: an empty folder outside @root, or NULL to run without a loss
 * @stop: the sync to end at, 0 for none
 * Returns true if it was ended there, false if it came to its own end and
 * exited with 0; aborts the test program otherwise.
 */
bool powerloss_run(const char *root, const char *state, unsigned int stop,
		   char *const argv[]);

enum {
	/* A disk may write more than it was made to, in any order. The two
	 * extremes beside the strict one: */
	POWERLOSS_KEEP_NAMES = 1, /* all names as they were, bytes lost */
	POWERLOSS_KEEP_BYTES = 2, /* all bytes as they were, names lost */
};

/* Makes @out, which must not exist, what is left of @root. */
void powerloss_materialise(const char *root, const char *state, const char *out,
			   int flags);

#endif

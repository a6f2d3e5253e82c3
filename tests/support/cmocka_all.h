/* cmocka.h wants these before it. */
#ifndef TESTS_SUPPORT_CMOCKA_ALL_H
#define TESTS_SUPPORT_CMOCKA_ALL_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdio.h>

/* skip() with what is missing, which scripts/test shows. */
#define skip_without(what)                                                     \
	do {                                                                   \
		printf("# %s needs %s\n", __func__, (what));                   \
		skip();                                                        \
	} while (0)

#endif

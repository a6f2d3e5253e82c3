/*
 * config_table - one row an option: name, unit, default, bounds, help; and from
 * the text of a value to its field in struct config. Adding an option is adding
 * a field and a row. The inner half of config; others use fs/config.h.
 */
#ifndef FS_CONFIG_TABLE_H
#define FS_CONFIG_TABLE_H

#include <stddef.h>
#include <stdio.h>

#include "fs/config.h"

/* The public archive. */
#define CONFIG_PUBLIC_ORIGIN "https://data.binance.vision"
#define CONFIG_PUBLIC_BUCKET                                                   \
	"https://s3-ap-northeast-1.amazonaws.com/data.binance.vision"

struct config_option;

const struct config_option *config_option_find(const char *name);
/* The @i-th name, and its default as --help shows it; NULL past the end. */
const char *config_option_name(size_t i, const char **fallback);

/*
 * config_option_set() - check @value and store it in @c.
 * @value: NULL where the option stands without "="
 * Returns 0, -ENOMEM, or -EINVAL with one line in @error that says which
 * option, why not, and what is allowed. An earlier value is replaced.
 */
int config_option_set(const struct config_option *o, struct config *c,
		      const char *value, char *error, size_t error_size);

/* Stores every default that is the same on all machines. 0 or -ENOMEM. */
int config_option_defaults(struct config *c);

/* The options' part of --help, in 80 columns. */
void config_option_help(FILE *to);

/* How many letters have to be changed, added, dropped or swapped with their
 * neighbour to make @b of @a; more than 31 letters count as far apart. */
unsigned int config_distance(const char *a, const char *b);

#endif

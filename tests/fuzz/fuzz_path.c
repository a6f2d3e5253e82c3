/*
 * fuzz_path - any bytes as a path below the mount, and as the name of an
 * archive in a folder.
 *
 * Holds: nothing that parses has a key with an empty, "." or ".." component; a
 * DATE path, made a key, gives its date back.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                     \
	do {                                                                   \
		if (!(condition))                                              \
			abort();                                               \
	} while (0)

static void check_key(const char *key)
{
	REQUIRE(strlen(key) < PATH_KEY_MAX);
	REQUIRE(strncmp(key, "data", 4) == 0 && key[strlen(key) - 1] != '/');
	for (const char *s = key; s; s = strchr(s, '/')) {
		s += *s == '/';
		REQUIRE(*s && *s != '/');
		REQUIRE(strcmp(s, ".") != 0 && strncmp(s, "./", 2) != 0);
		REQUIRE(strcmp(s, "..") != 0 && strncmp(s, "../", 3) != 0);
	}
}

static void check_date(const struct path *p, bool unpadded)
{
	enum path_cadence c =
		date_is_month(p->date) ? PATH_MONTHLY : PATH_DAILY;
	char key[PATH_KEY_MAX], prefix[PATH_KEY_MAX + 1];
	bool was_unpadded;
	struct date date;

	if (path_key(p, unpadded, key) != 0) {
		REQUIRE(unpadded);
		return;
	}
	check_key(key);
	REQUIRE(path_prefix(p, c, prefix) == 0);
	REQUIRE(strncmp(key, prefix, strlen(prefix)) == 0);
	REQUIRE(path_date_of_zip(p, c, key + strlen(prefix), &date,
				 &was_unpadded));
	REQUIRE(date_compare(date, p->date) == 0 && was_unpadded == unpadded);
}

static void check_folder(const struct path *p, const char *name)
{
	char prefix[PATH_KEY_MAX + 1];
	bool unpadded;
	struct date date;

	for (int c = PATH_DAILY; c <= PATH_MONTHLY; c++) {
		path_prefix(p, (enum path_cadence)c, prefix);
		if (path_date_of_zip(p, (enum path_cadence)c, name, &date,
				     &unpadded))
			REQUIRE(date_is_month(date) == (c == PATH_MONTHLY));
	}
}

/* Up to the first newline a path, behind it the name of an archive. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *name;
	struct path p;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	name = strchr(text, '\n');
	if (name)
		*name++ = '\0';
	if (path_parse(text, &p) == 0) {
		if (p.kind == PATH_RAW || p.kind == PATH_RAW_CSV ||
		    p.kind == PATH_MEMBERS)
			check_key(p.key);
		if (p.kind == PATH_DATE) {
			check_date(&p, false);
			check_date(&p, true);
		}
		check_folder(&p, name ? name : "");
	}
	free(text);
	return 0;
}

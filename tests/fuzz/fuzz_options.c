/*
 * fuzz_options - any bytes as a command line, one word a line; or, behind a
 * first byte 'F', as a config file.
 *
 * Holds: what is accepted is complete and within its bounds; what is refused
 * has one printable line that says why.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS_MAX = 32 };

#define REQUIRE(condition)                                                     \
	do {                                                                   \
		if (!(condition))                                              \
			abort();                                               \
	} while (0)

static void check_config(const struct config *c)
{
	if (c->help || c->version)
		return;
	REQUIRE(c->source && c->mountpoint && *c->mountpoint);
	REQUIRE(strncmp(c->origin, "http", 4) == 0);
	REQUIRE(strncmp(c->listing, "http", 4) == 0);
	REQUIRE(!c->mirror || strncmp(c->mirror, "http", 4) == 0);
	REQUIRE(c->cache[0] == '/' && (!c->log || c->log[0] == '/'));
	REQUIRE(c->quota_bytes >= 16 << 20 && c->memory_bytes >= 8 << 20);
	REQUIRE(c->min_free_fraction >= 0 && c->min_free_fraction < 1);
	REQUIRE(c->connections >= 1 && c->connections <= 256);
	REQUIRE(c->retries <= 100 && c->retry_base_ms <= c->retry_max_ms);
	REQUIRE(c->rate_per_s >= 0 && c->rate_per_s <= 100000);
	REQUIRE(*c->run_id && strlen(c->run_id) <= 64);
	REQUIRE(strncmp(c->fuse_options, "ro,fsname=", 10) == 0);
}

static void parse(int argc, char **argv)
{
	char error[CONFIG_ERROR_MAX] = "";
	struct config *c = NULL;

	if (config_parse(&c, argc, argv, error, sizeof(error)) == 0) {
		check_config(c);
		config_free(c);
		return;
	}
	REQUIRE(*error && strlen(error) < sizeof(error));
	for (const char *s = error; *s; s++)
		REQUIRE((unsigned char)*s >= 0x20 && *s != 0x7f);
}

static void parse_words(char *text)
{
	char *argv[WORDS_MAX + 2] = {(char *)"tickfs"};
	int argc = 1;

	for (char *word = text; word && argc <= WORDS_MAX; argc++) {
		argv[argc] = word;
		word = strchr(word, '\n');
		if (word)
			*word++ = '\0';
	}
	parse(argc, argv);
}

static void parse_file(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char option[64];
	char *argv[] = {(char *)"tickfs", (char *)"/m", (char *)"-o", option,
			NULL};

	if (fd < 0) {
		fd = memfd_create("config", MFD_CLOEXEC);
		REQUIRE(fd >= 0);
		snprintf(option, sizeof(option), "config=/proc/self/fd/%d", fd);
	}
	REQUIRE(ftruncate(fd, 0) == 0);
	REQUIRE(pwrite(fd, data, size, 0) == (ssize_t)size);
	parse(4, argv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size > 0 && data[0] == 'F') {
		parse_file(data + 1, size - 1);
		return 0;
	}
	text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	parse_words(text);
	free(text);
	return 0;
}

/*
 * fs_bench - the core of fs/ over a cache in a temporary folder and an imitated
 * origin on loopback, for the tests of its modules.
 *
 * Waiting is for events, never for a time: whatever has not happened after
 * FS_PATIENCE_MS ends the test program.
 */
#ifndef TESTS_SUPPORT_FS_BENCH_H
#define TESTS_SUPPORT_FS_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/store.h"
#include "fetch/origin.h"
#include "fs/folder.h"
#include "fs/listings.h"
#include "fs/node.h"
#include "fs/supply.h"
#include "fs/tree.h"
#include "fs/waitlist.h"
#include "fs/workers.h"
#include "tests/origin/origin_server.h"

enum { FS_PATIENCE_MS = 60000 };

/* Zero stands for the value in brackets. */
struct fs_options {
	bool offline, lenient, prefer_monthly, no_mirror, paced;
	uint64_t listing_ttl_ms;  /* [1 h] */
	uint64_t negative_ttl_ms; /* [5 min] */
	uint64_t revalidate_ms;	  /* [1 d] */
	uint64_t quota_bytes;	  /* [1 GiB] */
	uint64_t budget_bytes;	  /* [none] */
	unsigned int heavy;	  /* threads [2] */
};

struct fs_bench {
	char *dir, *root, *cache;
	struct imitation *im;
	/* NULL while down. */
	struct origin *origin;
	struct budget *budget; /* or NULL */
	struct store *store;
	struct catalog *catalog;
	struct workers *quick, *heavy;
	struct supply *supply;
	struct listings *listings;
	struct folders *folders;
	struct nodes *nodes;
	struct tree *tree;
};

/* Folders, and the origin; fs_up() makes the rest. */
void fs_begin(struct fs_bench *b);
void fs_end(struct fs_bench *b);

/* Up and down again, over the same cache, as often as one likes. */
void fs_up(struct fs_bench *b, const struct fs_options *options);
void fs_down(struct fs_bench *b);

/* cmocka's setup and teardown, around a `struct fs_bench` that is not up. */
int fs_setup(void **state);
int fs_teardown(void **state);

/* ---- what the origin has ---- */

struct fs_member {
	const char *name;
	const void *data;
	size_t len;
	bool stored; /* else deflated */
};

/* A zip of @n members, by libzip; the bytes are the caller's to free(). */
void *fs_zip(const struct fs_member *members, size_t n, size_t *len);

/* Puts bytes under @key. */
void fs_publish(struct fs_bench *b, const char *key, const void *data,
		size_t len);
/* Puts a zip with its .CHECKSUM. */
void fs_publish_zip(struct fs_bench *b, const char *key, const void *zip,
		    size_t len);
/* Puts an archive whose one member is the CSV it is named for. */
void fs_publish_csv(struct fs_bench *b, const char *key, const char *csv,
		    size_t len);
void fs_rules(struct fs_bench *b, const char *json);

/* @rows lines that do not compress well; the caller's to free(). */
char *fs_rows(unsigned int seed, size_t rows, size_t *len);

void fs_sha256(const void *data, size_t len, unsigned char out[32]);

/* ---- what it was asked for ---- */

struct fs_requests {
	unsigned int all, ranges, heads, lists, mirror;
	char last_range[64]; /* of the last one with a Range, or "" */
};

/* Those since the last imitation_reset() whose path (a listing's query) has
 * @part in it; NULL: all. */
struct fs_requests fs_requests(struct fs_bench *b, const char *part);

/* ---- asking and waiting ---- */

struct fs_waiter {
	struct waiter waiter;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool woken;
};

void fs_waiter_begin(struct fs_waiter *w);
void fs_waiter_end(struct fs_waiter *w);
/* Until it is woken; gives what with, and can wait again. */
int fs_wait(struct fs_waiter *w);
bool fs_woken(struct fs_waiter *w);

/* The functions of the same name, asked until they have an answer. */
int fs_facts(struct fs_bench *b, const char *key, enum supply_need need,
	     struct supply_facts *out);
int fs_open(struct fs_bench *b, const char *key, struct store_object **out);
int fs_heal(struct fs_bench *b, struct store_object *o,
	    struct store_object **out);
int fs_ensure(struct fs_bench *b, const char *prefix);
int fs_probe(struct fs_bench *b, const char *prefix);
int fs_folder(struct fs_bench *b, const char *path, struct folder **out);
/* Resolves @path, and confirms it. */
int fs_resolve(struct fs_bench *b, const char *path, struct tree_target *tg);
int fs_stat(struct fs_bench *b, const char *path, struct tree_file *out);

/* Until @holds says so: for what nobody can wait for. */
void fs_eventually(bool (*holds)(void *arg), void *arg);

/* Do the pinned object's bytes, as they lie on disk, equal these? */
bool fs_same(struct store_object *o, const void *data, size_t len);

/* Writes over @len bytes of a file of the cache, from @off. */
void fs_damage(struct fs_bench *b, const char *path, uint64_t off,
	       const void *data, size_t len);

#endif

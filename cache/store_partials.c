/*
 * Partial downloads that nobody is at: counted when the store is opened, and
 * dropped when there is no room otherwise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/disk.h"
#include "cache/store_priv.h"

static bool ends_in(const char *s, const char *suffix)
{
	size_t len = strlen(s), n = strlen(suffix);

	return len > n && strcmp(s + len - n, suffix) == 0;
}

static int sweep_one(void *arg, const struct disk_file *f)
{
	static const char *const unfinished[] = {".index.tmp", ".put", ".new"};
	struct store *st = arg;

	for (size_t i = 0; i < sizeof(unfinished) / sizeof(*unfinished); i++)
		if (ends_in(f->path, unfinished[i]))
			return disk_unlink(st->staging, f->path);
	/* Sidecars are not counted: the allowance of a download covers it. */
	if (ends_in(f->path, ".partial"))
		st->staging_bytes += store_blocks(f->size);
	return 0;
}

int store_staging_sweep(struct store *st)
{
	struct disk_walk *w;
	int err;

	err = disk_walk_create(&w, st->staging);
	if (err)
		return err;
	while ((err = disk_walk_step(w, sweep_one, st)) > 0)
		;
	disk_walk_free(w);
	return err;
}

struct idle_partial {
	char *key;
	uint64_t bytes;
	int64_t mtime;
};

struct idle_partials {
	struct store *st;
	struct idle_partial *p;
	size_t n, room;
	uint64_t bytes;
};

static int add_idle(void *arg, const struct disk_file *f)
{
	struct idle_partials *l = arg;
	struct idle_partial *p;
	char *key;
	bool busy;

	if (!ends_in(f->path, ".partial") || strlen(f->path) >= STORE_PATH_MAX)
		return 0;
	key = strndup(f->path, strlen(f->path) - strlen(".partial"));
	if (!key)
		return -ENOMEM;
	pthread_mutex_lock(&l->st->lock);
	busy = store_find_claim_locked(l->st, key) != NULL;
	pthread_mutex_unlock(&l->st->lock);
	if (busy) {
		free(key);
		return 0;
	}
	if (l->n == l->room) {
		l->room = l->room ? 2 * l->room : 16;
		p = realloc(l->p, l->room * sizeof(*p));
		if (!p) {
			free(key);
			return -ENOMEM;
		}
		l->p = p;
	}
	l->p[l->n++] =
		(struct idle_partial){key, store_blocks(f->size), f->mtime};
	l->bytes += store_blocks(f->size);
	return 0;
}

static int older_first(const void *a, const void *b)
{
	const struct idle_partial *x = a, *y = b;

	return (x->mtime > y->mtime) - (x->mtime < y->mtime);
}

static uint64_t drop_partial(struct store *st, const struct idle_partial *p)
{
	struct store_claim c = {.key = p->key, .kind = STORE_CLAIM_EVICT};
	char path[STORE_PATH_MAX];
	uint64_t size, freed = 0;
	int err;

	if (store_try_claim(st, &c) != 0)
		return 0;
	store_path(path, p->key, ".partial.json");
	err = disk_unlink(st->staging, path);
	store_path(path, p->key, ".partial");
	if (!err)
		err = disk_size(st->staging, path, &size, NULL);
	if (!err)
		err = disk_unlink(st->staging, path);
	if (!err) {
		freed = store_blocks(size);
		pthread_mutex_lock(&st->lock);
		st->staging_bytes -= freed;
		pthread_mutex_unlock(&st->lock);
		store_tree_prune(st, st->staging, path);
	}
	store_unclaim(st, &c);
	return freed;
}

uint64_t store_staging_evict(struct store *st, uint64_t need, bool best_effort)
{
	struct idle_partials l = {.st = st};
	struct disk_walk *w;
	uint64_t freed = 0;
	int err;

	if (disk_walk_create(&w, st->staging))
		return 0;
	while ((err = disk_walk_step(w, add_idle, &l)) > 0)
		;
	disk_walk_free(w);
	if (!err && l.n > 0 && (best_effort || l.bytes >= need)) {
		qsort(l.p, l.n, sizeof(*l.p), older_first);
		for (size_t i = 0; i < l.n && freed < need; i++)
			freed += drop_partial(st, &l.p[i]);
	}
	for (size_t i = 0; i < l.n; i++)
		free(l.p[i].key);
	free(l.p);
	return freed;
}

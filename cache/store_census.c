/*
 * A census: after a crash, and when the catalog lost rows, files may lie in
 * the cache that nothing knows of. Objects and refused files get a row, so that
 * they count and can be evicted (an object found this way is checked before it
 * is served, see CATALOG_UNCHECKED); an index without an object is removed.
 *
 * One folder a step: it runs beside everything else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/disk.h"
#include "cache/store_priv.h"

enum { STEP_FILES = 2048, REASON_BYTES = 4096 };

struct store_census {
	struct store *st;
	enum { IN_OBJECTS, IN_QUARANTINE, IN_INDEX, DONE } phase;
	struct disk_walk *walk;
	struct catalog_found *found; /* of this step */
	size_t n, room;
	size_t seen;
};

static int open_walk(struct store_census *c)
{
	const struct store *st = c->st;
	const int folders[] = {
		[IN_OBJECTS] = st->objects,
		[IN_QUARANTINE] = st->quarantine,
		[IN_INDEX] = st->index,
	};

	disk_walk_free(c->walk);
	c->walk = NULL;
	return c->phase == DONE ? 0
				: disk_walk_create(&c->walk, folders[c->phase]);
}

int store_census_create(struct store_census **out, struct store *st)
{
	struct store_census *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->st = st;
	err = open_walk(c);
	if (err) {
		store_census_free(c);
		return err;
	}
	*out = c;
	return 0;
}

static void forget_found(struct store_census *c)
{
	while (c->n > 0)
		free((char *)c->found[--c->n].key);
}

void store_census_free(struct store_census *c)
{
	if (!c)
		return;
	forget_found(c);
	free(c->found);
	disk_walk_free(c->walk);
	free(c);
}

static int add(struct store_census *c, const struct catalog_found *f)
{
	if (c->n == c->room) {
		size_t room = c->room ? 2 * c->room : 64;
		void *p = realloc(c->found, room * sizeof(*c->found));

		if (!p)
			return -ENOMEM;
		c->found = p;
		c->room = room;
	}
	c->found[c->n] = *f;
	c->found[c->n].key = strdup(f->key);
	if (!c->found[c->n].key)
		return -ENOMEM;
	c->n++;
	return 0;
}

/* Who is about to change it will leave it with a row. */
static bool is_claimed(struct store *st, const char *key)
{
	bool claimed;

	pthread_mutex_lock(&st->lock);
	claimed = store_find_claim_locked(st, key) != NULL;
	pthread_mutex_unlock(&st->lock);
	return claimed;
}

static int see_object(struct store_census *c, const struct disk_file *f)
{
	struct catalog_found found = {
		.key = f->path,
		.size = f->size,
		.disk_bytes = store_blocks(f->size),
		.at = f->mtime,
		.state = CATALOG_UNCHECKED,
	};
	char index[STORE_PATH_MAX];
	uint64_t size;

	store_path(index, f->path, ".index");
	if (disk_size(c->st->index, index, &size, NULL) == 0)
		found.disk_bytes += store_blocks(size);
	return add(c, &found);
}

static int see_refused(struct store_census *c, const struct disk_file *f)
{
	static const char reason[] = ".reason.json";
	size_t len = strlen(f->path);
	const struct catalog_found found = {
		.key = f->path,
		.size = f->size,
		.disk_bytes = store_blocks(f->size) + REASON_BYTES,
		.at = f->mtime,
		.state = CATALOG_QUARANTINED,
	};

	if (len > strlen(reason) &&
	    strcmp(f->path + len - strlen(reason), reason) == 0)
		return 0;
	return add(c, &found);
}

static int see_index(struct store_census *c, const struct disk_file *f)
{
	static const char suffix[] = ".index";
	size_t len = strlen(f->path), n = strlen(suffix);
	char key[STORE_PATH_MAX];
	struct store_claim claim = {.key = key, .kind = STORE_CLAIM_EVICT};
	uint64_t size;
	int err = 0;

	if (len <= n || strcmp(f->path + len - n, suffix) != 0)
		return disk_unlink(c->st->index, f->path);
	memcpy(key, f->path, len - n);
	key[len - n] = '\0';
	if (store_try_claim(c->st, &claim) != 0)
		return 0;
	if (disk_size(c->st->objects, key, &size, NULL) == -ENOENT)
		err = disk_unlink(c->st->index, f->path);
	store_unclaim(c->st, &claim);
	return err;
}

static int see(void *arg, const struct disk_file *f)
{
	struct store_census *c = arg;

	c->seen++;
	if (strlen(f->path) >= STORE_PATH_MAX)
		return 0;
	if (c->phase == IN_INDEX)
		return see_index(c, f);
	if (!store_key_ok(f->path) || is_claimed(c->st, f->path))
		return 0;
	return c->phase == IN_OBJECTS ? see_object(c, f) : see_refused(c, f);
}

int store_census_step(struct store_census *c)
{
	int more, err;

	c->seen = 0;
	do
		more = disk_walk_step(c->walk, see, c);
	while (more > 0 && c->seen < STEP_FILES);
	err = more < 0 ? more
		       : catalog_cached_found(c->st->catalog, c->found, c->n);
	forget_found(c);
	if (err || more > 0)
		return err ? err : 1;
	c->phase++;
	err = open_walk(c);
	return err ? err : c->phase != DONE;
}

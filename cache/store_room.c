/*
 * Room: the quota over everything under the cache folder, the free space of
 * the file system, and who has to go. recency.h decides; here the figures are
 * gathered and the files removed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "cache/disk.h"
#include "cache/recency.h"
#include "cache/store_priv.h"

enum {
	/* What the file system must have freed before a write that failed is
	 * tried again. */
	FULL_BYTES = 16 << 20,
	/* Of the quota: what was refused is not evicted for what is wanted,
	 * so it must not take all of it. */
	QUARANTINE_SHARE = 8,
	/* The quota has a line of the ledger for each of so many bytes. */
	LEDGER_LINE_SHARE = 2048,
	LEDGER_LINES_MIN = 1024,
};
#define QUARANTINE_BYTES (UINT64_C(1) << 30)

static uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t sub_sat(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

int store_used(struct store *st, uint64_t *bytes)
{
	uint64_t files, objects, refused, rest;
	int err;

	err = catalog_usage(st->catalog, "", NULL, &files, &objects);
	if (!err)
		err = catalog_quarantine_usage(st->catalog, &files, &refused);
	if (err)
		return err;
	pthread_mutex_lock(&st->lock);
	rest = st->staging_bytes + st->held_bytes + st->file_bytes;
	pthread_mutex_unlock(&st->lock);
	*bytes = add_sat(add_sat(objects, refused), rest);
	return 0;
}

/* What has to be freed for @incoming more bytes; UINT64_MAX: never. */
static int room_need(struct store *st, uint64_t incoming, uint64_t *need)
{
	uint64_t used, reserved, unit, min_free, fraction;
	struct statvfs fs;
	int err;

	err = store_used(st, &used);
	if (err)
		return err;
	if (fstatvfs(st->dirfd, &fs) < 0)
		return -errno;
	pthread_mutex_lock(&st->lock);
	reserved = st->reserved;
	pthread_mutex_unlock(&st->lock);
	unit = fs.f_frsize;
	min_free = st->cfg.min_free_bytes;
	fraction = (uint64_t)((double)fs.f_blocks * (double)unit *
			      st->cfg.min_free_fraction);
	*need = recency_need(add_sat(used, reserved), st->cfg.quota_bytes,
			     incoming, sub_sat(fs.f_bavail * unit, reserved),
			     min_free > fraction ? min_free : fraction);
	return 0;
}

/* ---- eviction ---- */

struct candidates {
	struct store *st;
	struct recency_candidate *c;
	char **keys;
	size_t n, room;
	uint64_t need, unheld;
};

static void candidates_free(struct candidates *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->keys[i]);
	free(l->keys);
	free(l->c);
}

static int candidates_grow(struct candidates *l)
{
	size_t room = l->room ? 2 * l->room : 64;
	void *p;

	if (l->n < l->room)
		return 0;
	p = realloc(l->c, room * sizeof(*l->c));
	if (!p)
		return -ENOMEM;
	l->c = p;
	p = realloc(l->keys, room * sizeof(*l->keys));
	if (!p)
		return -ENOMEM;
	l->keys = p;
	l->room = room;
	return 0;
}

/*
 * A checksum is read once, when its archive comes; it goes with the archive
 * and not before it. Moved up beside the archive's last use it is out of the
 * way of later searches.
 */
static bool stays_with_archive(struct store *st, const char *key,
			       const struct catalog_cached *row)
{
	static const char suffix[] = ".zip.CHECKSUM";
	int64_t used;
	char path[STORE_PATH_MAX];
	size_t len = strlen(key);

	if (len < strlen(suffix) || len >= sizeof(path) ||
	    strcmp(key + len - strlen(suffix), suffix) != 0)
		return false;
	strcpy(path, key);
	path[len - strlen(".CHECKSUM")] = '\0';
	if (catalog_last_use(st->catalog, path, &used) || used <= row->last_use)
		return false;
	catalog_touch(st->catalog, key, used);
	return true;
}

static int add_candidate(void *arg, const char *key,
			 const struct catalog_cached *row)
{
	struct candidates *l = arg;
	struct recency_candidate *c;
	int err;

	if (stays_with_archive(l->st, key, row))
		return 0;
	err = candidates_grow(l);
	if (err)
		return err;
	l->keys[l->n] = strdup(key);
	if (!l->keys[l->n])
		return -ENOMEM;
	c = &l->c[l->n++];
	*c = (struct recency_candidate){
		.bytes = row->disk_bytes,
		.last_use = row->last_use,
		.held = store_object_is_held(l->st, key),
	};
	if (!c->held)
		l->unheld = add_sat(l->unheld, c->bytes);
	return l->unheld >= l->need;
}

static int remove_files(struct store *st, const char *key)
{
	char path[STORE_PATH_MAX];
	int err;

	/* The object first: an index alone is rubbish, an object alone would
	 * be one that has to be checked again. */
	err = disk_unlink(st->objects, key);
	store_path(path, key, ".index");
	if (!err)
		err = disk_unlink(st->index, path);
	if (err)
		return err;
	store_tree_prune(st, st->objects, key);
	store_tree_prune(st, st->index, path);
	return 0;
}

/* 1 if it is gone, 0 if somebody has it. */
static int evict_object(struct store *st, const char *key)
{
	struct store_claim c = {.key = key, .kind = STORE_CLAIM_EVICT};
	int err = 0;

	if (store_try_claim(st, &c) != 0)
		return 0;
	if (!store_object_retire_idle(st, key)) {
		store_unclaim(st, &c);
		return 0;
	}
	err = remove_files(st, key);
	if (!err)
		err = catalog_cached_delete(st->catalog, key);
	if (!err) {
		pthread_mutex_lock(&st->lock);
		store_forget_locked(&st->damaged, key);
		pthread_mutex_unlock(&st->lock);
	}
	store_unclaim(st, &c);
	return err ? err : 1;
}

static void evict(struct store *st, const char *key, uint64_t bytes)
{
	char checksum[STORE_PATH_MAX];
	int rc = evict_object(st, key);

	if (rc < 0)
		store_emit(st, STORE_EVENT_DISK_ERROR, key, 0, rc, "evict");
	if (rc <= 0)
		return;
	pthread_mutex_lock(&st->lock);
	st->evictions++;
	pthread_mutex_unlock(&st->lock);
	store_emit(st, STORE_EVENT_EVICTED, key, bytes, 0, NULL);
	store_path(checksum, key, ".CHECKSUM");
	rc = evict_object(st, checksum);
	if (rc < 0)
		store_emit(st, STORE_EVENT_DISK_ERROR, checksum, 0, rc,
			   "evict");
}

/*
 * Frees @need bytes, or nothing and -ENOSPC where that can't be reached; with
 * @best_effort as much of it as there is.
 */
static int evict_locked(struct store *st, uint64_t need, bool best_effort)
{
	struct candidates l = {.st = st, .need = need};
	uint64_t freed;
	int err;

	err = catalog_cached_lru(st->catalog, add_candidate, &l);
	if (err < 0)
		goto out;
	err = 0;
	freed = recency_choose(l.c, l.n, need);
	if (freed < need)
		freed += store_staging_evict(st, need - freed, best_effort);
	if (freed < need) {
		err = -ENOSPC;
		if (!best_effort)
			goto out;
	}
	for (size_t i = 0; i < l.n; i++)
		if (l.c[i].evict)
			evict(st, l.keys[i], l.c[i].bytes);
out:
	candidates_free(&l);
	return err;
}

/* ---- promises ---- */

static int make_room_locked(struct store *st, uint64_t incoming)
{
	uint64_t need;
	int err;

	/* What was chosen may be pinned before its turn comes: look again. */
	for (int attempt = 0; attempt < 3; attempt++) {
		err = room_need(st, incoming, &need);
		if (err || need == 0)
			return err;
		if (need == UINT64_MAX)
			return -ENOSPC;
		err = evict_locked(st, need, false);
		if (err)
			return err;
	}
	err = room_need(st, incoming, &need);
	return err ? err : need ? -ENOSPC : 0;
}

int store_reserve(struct store *st, uint64_t bytes)
{
	int err;

	pthread_mutex_lock(&st->room_lock);
	err = make_room_locked(st, bytes);
	if (!err) {
		pthread_mutex_lock(&st->lock);
		st->reserved += bytes;
		pthread_mutex_unlock(&st->lock);
	}
	pthread_mutex_unlock(&st->room_lock);
	return err;
}

void store_unreserve(struct store *st, uint64_t bytes)
{
	pthread_mutex_lock(&st->lock);
	st->reserved -= bytes;
	pthread_mutex_unlock(&st->lock);
}

int store_free_disk(struct store *st, uint64_t bytes)
{
	uint64_t before, after;
	int err;

	pthread_mutex_lock(&st->room_lock);
	err = store_used(st, &before);
	if (!err)
		err = evict_locked(st, bytes > FULL_BYTES ? bytes : FULL_BYTES,
				   true);
	/* Something may be enough. */
	if (err == -ENOSPC && store_used(st, &after) == 0 && after < before)
		err = 0;
	pthread_mutex_unlock(&st->room_lock);
	return err;
}

void store_keep_room(struct store *st)
{
	uint64_t need;
	int err;

	pthread_mutex_lock(&st->room_lock);
	err = room_need(st, 0, &need);
	if (!err && need > 0)
		err = evict_locked(st, need, true);
	pthread_mutex_unlock(&st->room_lock);
	/* That there is nothing left to evict is no event of its own: who
	 * wants room is told. */
	if (err && err != -ENOSPC)
		store_emit(st, STORE_EVENT_DISK_ERROR, NULL, 0, err,
			   "keep room");
}

/* ---- ledger ---- */

void store_trim_ledger(struct store *st)
{
	uint64_t keep = st->cfg.quota_bytes / LEDGER_LINE_SHARE;
	struct catalog_trimmed t;
	struct store_event ev = {.type = STORE_EVENT_TRIMMED};
	int err;

	err = catalog_ledger_trim(
		st->catalog, keep > LEDGER_LINES_MIN ? keep : LEDGER_LINES_MIN,
		&t);
	if (err) {
		store_emit(st, STORE_EVENT_DISK_ERROR, NULL, 0, err,
			   "trim the ledger");
	} else if (t.lines > 0 && st->cfg.on_event) {
		ev.lines = t.lines;
		ev.until = t.until;
		st->cfg.on_event(st->cfg.event_arg, &ev);
	}
}

/* ---- quarantine ---- */

struct ageing {
	struct store *st;
	uint64_t bytes, room;
	int64_t oldest;
};

int store_drop_quarantined(struct store *st, const char *key)
{
	char reason[STORE_PATH_MAX];
	int err;

	store_path(reason, key, ".reason.json");
	err = disk_unlink(st->quarantine, key);
	if (!err)
		err = disk_unlink(st->quarantine, reason);
	if (err)
		return err;
	store_tree_prune(st, st->quarantine, key);
	return catalog_quarantined_delete(st->catalog, key);
}

static int age_one(void *arg, const char *key, const struct catalog_cached *row)
{
	struct ageing *a = arg;
	int err;

	if (row->verified_at >= a->oldest &&
	    add_sat(a->bytes, a->room) <= store_quarantine_max(a->st))
		return 1;
	err = store_drop_quarantined(a->st, key);
	if (err) {
		store_emit(a->st, STORE_EVENT_DISK_ERROR, key, 0, err,
			   "drop from quarantine");
		return 0;
	}
	a->bytes = sub_sat(a->bytes, row->disk_bytes);
	store_emit(a->st, STORE_EVENT_EXPIRED, key, row->disk_bytes, 0, NULL);
	return 0;
}

uint64_t store_quarantine_max(const struct store *st)
{
	uint64_t share = st->cfg.quota_bytes / QUARANTINE_SHARE;

	return share < QUARANTINE_BYTES ? share : QUARANTINE_BYTES;
}

void store_age_quarantine(struct store *st, uint64_t room, int64_t oldest)
{
	struct ageing a = {.st = st, .room = room, .oldest = oldest};
	uint64_t files;
	int err;

	err = catalog_quarantine_usage(st->catalog, &files, &a.bytes);
	if (!err && files > 0)
		err = catalog_quarantined(st->catalog, age_one, &a);
	if (err < 0)
		store_emit(st, STORE_EVENT_DISK_ERROR, NULL, 0, err,
			   "age quarantine");
}

/*
 * Opening and upkeep of the cache; what the other files of the store have in
 * common is explained, with the order of locks, in cache/store_priv.h.
 *
 * The lock file holds the daemon's pid while it runs and is emptied by
 * store_close(): a pid that is still there when the lock is free was left by a
 * crash. Folders and files may then be in the page cache only, and objects may
 * lie there without a row: one syncfs(2), and a census during the next ticks.
 */
#include "cache/store.h"

#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/disk.h"
#include "cache/store_priv.h"

enum {
	KEY_MAX = 1024,
	COMPONENT_MAX = 200,
	BLOCK = 4096,
	QUARANTINE_DAYS = 30,
};

void store_emit(struct store *st, enum store_event_type type, const char *key,
		uint64_t bytes, int err, const char *detail)
{
	struct store_event ev = {
		.type = type,
		.key = key,
		.bytes = bytes,
		.err = err,
		.detail = detail,
	};

	if (st->cfg.on_event)
		st->cfg.on_event(st->cfg.event_arg, &ev);
}

uint64_t store_blocks(uint64_t bytes)
{
	return bytes > UINT64_MAX - BLOCK ? UINT64_MAX
					  : (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

static bool ends_in(const char *s, const char *suffix)
{
	size_t len = strlen(s), n = strlen(suffix);

	return len >= n && strcmp(s + len - n, suffix) == 0;
}

bool store_is_small(const char *key, uint64_t size)
{
	return size <= STORE_SMALL_MAX && !ends_in(key, ".zip");
}

void store_path(char path[STORE_PATH_MAX], const char *key, const char *suffix)
{
	snprintf(path, STORE_PATH_MAX, "%s%s", key, suffix);
}

static bool component_ok(const char *s, size_t len)
{
	if (len == 0 || len > COMPONENT_MAX)
		return false;
	return !(len == 1 && s[0] == '.') &&
	       !(len == 2 && s[0] == '.' && s[1] == '.');
}

bool store_key_ok(const char *key)
{
	size_t len;

	if (strnlen(key, KEY_MAX + 1) > KEY_MAX)
		return false;
	for (const char *p = key; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
	for (;; key += len + 1) {
		len = strcspn(key, "/");
		if (!component_ok(key, len))
			return false;
		if (key[len] == '\0')
			return true;
	}
}

/* ---- sets of keys ---- */

static int key_order(const void *a, const void *b)
{
	return strcmp(a, b);
}

int store_note_locked(void **set, const char *key)
{
	char *copy = strdup(key), **found;

	if (!copy)
		return -ENOMEM;
	found = tsearch(copy, set, key_order);
	if (!found || *found != copy)
		free(copy);
	return found ? 0 : -ENOMEM;
}

bool store_noted_locked(void *set, const char *key)
{
	return tfind(key, &set, key_order) != NULL;
}

void store_forget_locked(void **set, const char *key)
{
	char **found = tfind(key, set, key_order);
	char *copy;

	if (!found)
		return;
	copy = *found;
	tdelete(copy, set, key_order);
	free(copy);
}

/* ---- claims ---- */

static int claim_order(const void *a, const void *b)
{
	return strcmp(((const struct store_claim *)a)->key,
		      ((const struct store_claim *)b)->key);
}

struct store_claim *store_find_claim_locked(struct store *st, const char *key)
{
	const struct store_claim wanted = {.key = key};
	struct store_claim **found = tfind(&wanted, &st->claims, claim_order);

	return found ? *found : NULL;
}

static int claim(struct store *st, struct store_claim *claim, bool wait)
{
	const struct store_claim *other;
	int err = 0;

	pthread_mutex_lock(&st->lock);
	while ((other = store_find_claim_locked(st, claim->key))) {
		if (!wait || other->kind < STORE_CLAIM_PUT) {
			err = -EBUSY;
			break;
		}
		pthread_cond_wait(&st->unclaimed, &st->lock);
	}
	if (!err && !tsearch(claim, &st->claims, claim_order))
		err = -ENOMEM;
	pthread_mutex_unlock(&st->lock);
	return err;
}

int store_claim(struct store *st, struct store_claim *c)
{
	return claim(st, c, true);
}

int store_try_claim(struct store *st, struct store_claim *c)
{
	return claim(st, c, false);
}

void store_unclaim(struct store *st, struct store_claim *c)
{
	pthread_mutex_lock(&st->lock);
	tdelete(c, &st->claims, claim_order);
	pthread_cond_broadcast(&st->unclaimed);
	pthread_mutex_unlock(&st->lock);
}

/* ---- folders ---- */

int store_tree_enter(struct store *st, int dirfd, const char *path)
{
	int err;

	for (;;) {
		pthread_rwlock_rdlock(&st->tree);
		err = disk_has_parent(dirfd, path);
		if (err != -ENOENT)
			break;
		pthread_rwlock_unlock(&st->tree);
		/* Alone: nobody finds a folder that is not synced yet. */
		pthread_rwlock_wrlock(&st->tree);
		err = disk_make_parents(dirfd, path);
		pthread_rwlock_unlock(&st->tree);
		if (err)
			return err;
	}
	if (err)
		pthread_rwlock_unlock(&st->tree);
	return err;
}

void store_tree_leave(struct store *st)
{
	pthread_rwlock_unlock(&st->tree);
}

void store_tree_prune(struct store *st, int dirfd, const char *path)
{
	pthread_rwlock_wrlock(&st->tree);
	disk_prune_parents(dirfd, path);
	pthread_rwlock_unlock(&st->tree);
}

/* ---- opening ---- */

/* As mkdir -p, for what lies above the cache's own folder, too. */
static int make_dir(const char *dir)
{
	char *path = strdup(dir);
	int err = 0;

	if (!path)
		return -ENOMEM;
	for (char *p = path + 1; !err; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			err = -errno;
		*p = c;
		if (c == '\0')
			break;
	}
	free(path);
	return err;
}

/* Ours alone: what others can write there, they can make us serve. */
static int check_owner(int fd)
{
	struct stat sb;

	if (fstat(fd, &sb) < 0)
		return -errno;
	if (sb.st_uid != geteuid() || (sb.st_mode & (S_IWGRP | S_IWOTH)))
		return -EACCES;
	return 0;
}

static pid_t read_pid(int fd)
{
	char text[32];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	long pid;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	pid = strtol(text, NULL, 10);
	return pid > 0 && pid <= INT32_MAX ? (pid_t)pid : 0;
}

/* *unclean: the last holder did not get to store_close(). */
static int take_lock(struct store *st, pid_t *holder, bool *unclean)
{
	char text[32];
	struct stat sb;
	int len;

	st->lockfd = disk_open(st->dirfd, "lock", O_RDWR | O_CREAT, 0600);
	if (st->lockfd < 0)
		return st->lockfd;
	if (flock(st->lockfd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return -errno;
		*holder = read_pid(st->lockfd);
		return -EBUSY;
	}
	if (fstat(st->lockfd, &sb) < 0)
		return -errno;
	*unclean = sb.st_size > 0;
	len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(st->lockfd, 0) < 0)
		return -errno;
	return disk_pwrite(st->lockfd, text, (size_t)len, 0);
}

static int open_folder(struct store *st, const char *name, int *fd)
{
	int err;

	if (mkdirat(st->dirfd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	*fd = disk_open(st->dirfd, name, O_RDONLY | O_DIRECTORY, 0);
	if (*fd < 0)
		return *fd;
	err = check_owner(*fd);
	return err;
}

static int open_folders(struct store *st)
{
	int err;

	err = open_folder(st, "objects", &st->objects);
	if (!err)
		err = open_folder(st, "index", &st->index);
	if (!err)
		err = open_folder(st, "staging", &st->staging);
	if (!err)
		err = open_folder(st, "quarantine", &st->quarantine);
	return err;
}

static void on_catalog_damage(void *arg, const char *what)
{
	struct store *st = arg;

	/* Objects may have lost their rows. */
	atomic_store(&st->census_wanted, true);
	store_emit(st, STORE_EVENT_DAMAGED, NULL, 0, 0, what);
}

static int add_file(void *arg, const struct disk_file *f)
{
	*(uint64_t *)arg += store_blocks(f->size);
	return 0;
}

/* The files beside the folders: catalog, its log, the lock. */
static void measure_files(struct store *st)
{
	struct disk_walk *w;
	uint64_t bytes = 0;

	if (disk_walk_create(&w, st->dirfd))
		return;
	/* The first step is the folder itself; its folders come later. */
	if (disk_walk_step(w, add_file, &bytes) >= 0) {
		pthread_mutex_lock(&st->lock);
		st->file_bytes = bytes;
		pthread_mutex_unlock(&st->lock);
	}
	disk_walk_free(w);
}

static int open_all(struct store *st, pid_t *holder)
{
	bool unclean = false, had_catalog;
	uint64_t size;
	int err;

	err = make_dir(st->dir);
	if (err)
		return err;
	st->dirfd = open(st->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (st->dirfd < 0)
		return -errno;
	err = check_owner(st->dirfd);
	if (!err)
		err = take_lock(st, holder, &unclean);
	if (!err)
		err = open_folders(st);
	if (err)
		return err;
	had_catalog = disk_size(st->dirfd, "catalog.sqlite", &size, NULL) == 0;
	err = catalog_open(&st->catalog, st->dir, on_catalog_damage, st);
	if (err)
		return err;
	if (unclean && syncfs(st->dirfd) < 0)
		return -errno;
	err = disk_sync_data(st->lockfd);
	if (!err)
		err = disk_sync_parent(st->dirfd, "lock");
	if (!err)
		err = store_staging_sweep(st);
	if (unclean || !had_catalog)
		atomic_store(&st->census_wanted, true);
	measure_files(st);
	return err;
}

/* Each has two files open. */
static unsigned int idle_max(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur / 8 > STORE_IDLE_MAX)
		return STORE_IDLE_MAX;
	return (unsigned int)(r.rlim_cur / 8);
}

int store_open(struct store **out, const struct store_config *cfg,
	       pid_t *holder)
{
	struct store *st = calloc(1, sizeof(*st));
	int err;

	if (!st)
		return -ENOMEM;
	*holder = 0;
	st->cfg = *cfg;
	st->dirfd = st->lockfd = -1;
	st->objects = st->index = st->staging = st->quarantine = -1;
	TAILQ_INIT(&st->idle);
	st->idle_max = idle_max();
	pthread_mutex_init(&st->room_lock, NULL);
	pthread_rwlock_init(&st->tree, NULL);
	pthread_mutex_init(&st->lock, NULL);
	pthread_cond_init(&st->unclaimed, NULL);
	st->dir = strdup(cfg->dir);
	err = st->dir ? open_all(st, holder) : -ENOMEM;
	if (err) {
		store_close(st);
		return err;
	}
	*out = st;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void store_close(struct store *st)
{
	bool was_open;

	if (!st)
		return;
	was_open = st->catalog != NULL;
	catalog_close(st->catalog);
	/* With a census to be finished the next store has to begin it anew. */
	if (was_open && !st->census && !atomic_load(&st->census_wanted))
		(void)!ftruncate(st->lockfd, 0);
	store_census_free(st->census);
	store_objects_free(st);
	tdestroy(st->damaged, free);
	tdestroy(st->lost, free);
	close_fd(st->quarantine);
	close_fd(st->staging);
	close_fd(st->index);
	close_fd(st->objects);
	close_fd(st->lockfd);
	close_fd(st->dirfd);
	pthread_cond_destroy(&st->unclaimed);
	pthread_mutex_destroy(&st->lock);
	pthread_rwlock_destroy(&st->tree);
	pthread_mutex_destroy(&st->room_lock);
	free(st->dir);
	free(st);
}

struct catalog *store_catalog(struct store *st)
{
	return st->catalog;
}

/* ---- upkeep ---- */

/* One key out of the set; NULL when it is empty. */
static char *take_lost(struct store *st)
{
	char *key = NULL;

	pthread_mutex_lock(&st->lock);
	if (st->lost) {
		/* A node of tsearch(3) begins with the pointer to its key. */
		key = *(char **)st->lost;
		tdelete(key, &st->lost, key_order);
	}
	pthread_mutex_unlock(&st->lock);
	return key;
}

/* Rows of which store_acquire() found no file, where it could not wait. */
static void drop_lost_rows(struct store *st)
{
	struct store_claim c = {.kind = STORE_CLAIM_EVICT};
	uint64_t size;
	char *key;

	while ((key = take_lost(st))) {
		c.key = key;
		if (store_try_claim(st, &c) == 0) {
			if (disk_size(st->objects, key, &size, NULL) == -ENOENT)
				catalog_cached_delete(st->catalog, key);
			store_unclaim(st, &c);
		}
		free(key);
	}
}

static void take_census(struct store *st)
{
	int err = 0;

	if (!st->census && atomic_exchange(&st->census_wanted, false))
		err = store_census_create(&st->census, st);
	if (!err && st->census)
		err = store_census_step(st->census);
	if (err < 0)
		store_emit(st, STORE_EVENT_DISK_ERROR, NULL, 0, err,
			   "look for objects without a row");
	if (err <= 0) {
		store_census_free(st->census);
		st->census = NULL;
	}
}

void store_tick(struct store *st, int64_t now)
{
	int err;

	err = catalog_flush(st->catalog);
	if (err)
		store_emit(st, STORE_EVENT_DISK_ERROR, NULL, 0, err,
			   "write last uses");
	drop_lost_rows(st);
	store_age_quarantine(st, 0, now - QUARANTINE_DAYS * INT64_C(86400));
	store_trim_ledger(st);
	err = catalog_tidy(st->catalog);
	if (err)
		store_emit(st, STORE_EVENT_DISK_ERROR, NULL, 0, err,
			   "tidy the catalog");
	take_census(st);
	measure_files(st);
	store_keep_room(st);
}

void store_stats(struct store *st, struct store_stats *out)
{
	uint64_t bytes;

	memset(out, 0, sizeof(*out));
	out->quota_bytes = st->cfg.quota_bytes;
	if (store_used(st, &bytes) == 0)
		out->used_bytes = bytes;
	if (catalog_usage(st->catalog, "", NULL, &out->objects, &bytes))
		out->objects = 0;
	pthread_mutex_lock(&st->lock);
	out->evictions = st->evictions;
	pthread_mutex_unlock(&st->lock);
}

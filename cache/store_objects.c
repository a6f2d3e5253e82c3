/*
 * Objects in memory. One that is *current* is found by its key without a
 * system call; it is pinned while it has references and idle when it has none.
 * The few that were released last stay, the others are freed. An object that
 * was replaced, evicted or found damaged is no longer current, and lives on
 * only for those who hold it.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache/disk.h"
#include "cache/store_priv.h"

static int object_order(const void *a, const void *b)
{
	return strcmp(((const struct store_object *)a)->key,
		      ((const struct store_object *)b)->key);
}

static struct store_object *find_locked(struct store *st, const char *key)
{
	const struct store_object wanted = {.key = (char *)key};
	struct store_object **found =
		tfind(&wanted, &st->objects_by_key, object_order);

	return found ? *found : NULL;
}

void store_object_free(struct store_object *o)
{
	struct store_info_version *v, *older;

	if (!o)
		return;
	for (v = atomic_load(&o->info); v; v = older) {
		older = v->older;
		free(v);
	}
	checkpoints_free(o->index);
	if (o->fd >= 0)
		close(o->fd);
	free(o->small);
	free(o->key);
	free(o);
}

/* The same as long as it lives. */
static size_t memory_of(const struct store_object *o)
{
	return sizeof(*o) + (o->index ? checkpoints_memory(o->index)
				      : (size_t)store_object_info(o)->size);
}

static void rest_locked(struct store *st, struct store_object *o)
{
	TAILQ_INSERT_TAIL(&st->idle, o, idle);
	st->n_idle++;
	st->idle_bytes += memory_of(o);
}

static void unrest_locked(struct store *st, struct store_object *o)
{
	TAILQ_REMOVE(&st->idle, o, idle);
	st->n_idle--;
	st->idle_bytes -= memory_of(o);
}

static void ref_locked(struct store *st, struct store_object *o)
{
	if (o->refs++ == 0)
		unrest_locked(st, o);
}

/* No longer current. Returns @o if nobody holds it, to be freed. */
static struct store_object *detach_locked(struct store *st,
					  struct store_object *o)
{
	tdelete(o, &st->objects_by_key, object_order);
	o->current = false;
	if (o->refs > 0)
		return NULL;
	unrest_locked(st, o);
	return o;
}

/* Those released longest ago that are too many, to be freed by the caller. */
static void drop_surplus_locked(struct store *st, struct store_objects *gone)
{
	struct store_object *o;

	while (st->n_idle > st->idle_max ||
	       (st->idle_bytes > STORE_IDLE_BYTES && st->n_idle > 1)) {
		o = detach_locked(st, TAILQ_FIRST(&st->idle));
		TAILQ_INSERT_TAIL(gone, o, idle);
	}
}

static void free_all(struct store_objects *gone)
{
	struct store_object *o;

	while ((o = TAILQ_FIRST(gone))) {
		TAILQ_REMOVE(gone, o, idle);
		store_object_free(o);
	}
}

struct store_object *store_ref(struct store_object *o)
{
	pthread_mutex_lock(&o->st->lock);
	ref_locked(o->st, o);
	pthread_mutex_unlock(&o->st->lock);
	return o;
}

void store_release(struct store_object *o)
{
	struct store_objects gone = TAILQ_HEAD_INITIALIZER(gone);
	struct store *st;

	if (!o)
		return;
	st = o->st;
	pthread_mutex_lock(&st->lock);
	if (--o->refs == 0) {
		if (o->current) {
			rest_locked(st, o);
			drop_surplus_locked(st, &gone);
		} else {
			if (o->held_only)
				st->held_bytes -= o->disk_bytes;
			TAILQ_INSERT_TAIL(&gone, o, idle);
		}
	}
	pthread_mutex_unlock(&st->lock);
	free_all(&gone);
}

/* Its file goes, or went: only its holders still have the bytes. */
static struct store_object *replace_locked(struct store *st,
					   struct store_object *o)
{
	struct store_object *gone = detach_locked(st, o);

	if (!gone) {
		o->held_only = true;
		st->held_bytes += o->disk_bytes;
	}
	return gone;
}

void store_object_retire(struct store *st, const char *key)
{
	struct store_object *o, *gone = NULL;

	pthread_mutex_lock(&st->lock);
	o = find_locked(st, key);
	if (o)
		gone = detach_locked(st, o);
	pthread_mutex_unlock(&st->lock);
	store_object_free(gone);
}

bool store_object_retire_idle(struct store *st, const char *key)
{
	struct store_object *o, *gone = NULL;
	bool held;

	pthread_mutex_lock(&st->lock);
	o = find_locked(st, key);
	held = o && o->refs > 0;
	if (o && !held)
		gone = detach_locked(st, o);
	pthread_mutex_unlock(&st->lock);
	store_object_free(gone);
	return !held;
}

bool store_object_is_held(struct store *st, const char *key)
{
	struct store_object *o;
	bool held;

	pthread_mutex_lock(&st->lock);
	o = find_locked(st, key);
	held = (o && o->refs > 0) || store_find_claim_locked(st, key);
	pthread_mutex_unlock(&st->lock);
	return held;
}

void store_objects_free(struct store *st)
{
	struct store_object *o;

	while ((o = TAILQ_FIRST(&st->idle)))
		store_object_free(detach_locked(st, o));
}

/* ---- making one from what lies on disk ---- */

static int read_small(struct store_object *o, const struct catalog_cached *row)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	size_t len = (size_t)row->size;
	int err;

	o->small = malloc(len + 1);
	if (!o->small)
		return -ENOMEM;
	err = disk_pread(o->fd, o->small, len, 0);
	if (err)
		return err;
	if (!EVP_Digest(o->small, len, digest, NULL, EVP_sha256(), NULL))
		return -ENOMEM;
	return memcmp(digest, row->sha256, 32) == 0 ? 0 : -EBADMSG;
}

static int read_index(struct store_object *o, int dirfd, const char *name,
		      const struct catalog_cached *row)
{
	struct checkpoints_id id = {.size = row->size};

	memcpy(id.sha256, row->sha256, sizeof(id.sha256));
	return checkpoints_load(&o->index, dirfd, name, &id);
}

static void info_of_row(struct store_info *info,
			const struct catalog_cached *row)
{
	*info = (struct store_info){
		.size = row->size,
		.last_modified = row->last_modified,
		.has_published = row->has_published,
		.verdict = row->verdict,
		.verified_at = row->verified_at,
		.checked_at = row->checked_at,
	};
	memcpy(info->etag, row->etag, sizeof(info->etag));
	memcpy(info->origin, row->origin, sizeof(info->origin));
	memcpy(info->sha256, row->sha256, sizeof(info->sha256));
	memcpy(info->published, row->published, sizeof(info->published));
}

int store_object_create(struct store *st, const char *key, int dirfd,
			const char *name, int index_dirfd,
			const char *index_name,
			const struct catalog_cached *row,
			struct store_object **out)
{
	struct store_object *o = calloc(1, sizeof(*o));
	struct store_info_version *v = calloc(1, sizeof(*v));
	struct stat sb;
	int err = -ENOMEM;

	if (!o || !v)
		goto out;
	info_of_row(&v->info, row);
	atomic_init(&o->info, v);
	v = NULL;
	o->st = st;
	o->fd = -1;
	o->disk_bytes = row->disk_bytes;
	o->key = strdup(key);
	if (!o->key)
		goto out;
	err = o->fd = disk_open(dirfd, name, O_RDONLY | O_NONBLOCK, 0);
	if (o->fd < 0)
		goto out;
	err = fstat(o->fd, &sb) < 0 ? -errno : 0;
	if (!err && (!S_ISREG(sb.st_mode) || (uint64_t)sb.st_size != row->size))
		err = -EBADMSG;
	if (!err)
		err = store_is_small(key, row->size)
			      ? read_small(o, row)
			      : read_index(o, index_dirfd, index_name, row);
	if (err) {
		/* Not the object: its index is missing. */
		err = err == -ENOENT ? -EBADMSG : err;
		goto out;
	}
	*out = o;
	o = NULL;
out:
	free(v);
	store_object_free(o);
	return err;
}

static int insert_locked(struct store *st, struct store_object *o)
{
	if (!tsearch(o, &st->objects_by_key, object_order))
		return -ENOMEM;
	o->refs = 1;
	o->current = true;
	return 0;
}

int store_object_publish(struct store *st, struct store_object *o)
{
	struct store_object *old, *gone = NULL;
	int err;

	pthread_mutex_lock(&st->lock);
	old = find_locked(st, o->key);
	if (old)
		gone = replace_locked(st, old);
	store_forget_locked(&st->damaged, o->key);
	err = insert_locked(st, o);
	pthread_mutex_unlock(&st->lock);
	store_object_free(gone);
	return err;
}

/* ---- acquire ---- */

/* Is there anything in objects/ under this key? */
static int find_file(struct store *st, const char *key)
{
	uint64_t size;
	int err = disk_size(st->objects, key, &size, NULL);

	/* A folder or a link of that name is no object, nor is what lies under
	 * a file. */
	if (err == -EINVAL || err == -ENOTDIR || err == -ELOOP)
		return -ENOENT;
	return err;
}

static void note_lost(struct store *st, const char *key)
{
	pthread_mutex_lock(&st->lock);
	store_note_locked(&st->lost, key);
	pthread_mutex_unlock(&st->lock);
}

static int load(struct store *st, const char *key, struct store_object **out)
{
	struct catalog_cached row;
	char index[STORE_PATH_MAX];
	int err;

	err = catalog_object_get(st->catalog, key, &row);
	if (err == -ENOENT || (!err && row.state == CATALOG_UNCHECKED)) {
		err = find_file(st, key);
		return err ? err : -EUCLEAN;
	}
	if (err)
		return err;
	store_path(index, key, ".index");
	err = store_object_create(st, key, st->objects, key, st->index, index,
				  &row, out);
	if (err == -ENOENT)
		note_lost(st, key);
	return err == -EBADMSG ? -EUCLEAN : err;
}

/*
 * @o, loaded a moment ago without a lock, becomes current, unless the key has
 * changed hands since: then what is current now is taken, or who changes it
 * decides what to say. Returns what is to be freed in *gone.
 */
static int admit_locked(struct store *st, const char *key, int err,
			struct store_object *o, struct store_object **out,
			struct store_object **gone)
{
	struct store_object *current = find_locked(st, key);
	const struct store_claim *c = store_find_claim_locked(st, key);
	struct stat sb;

	*gone = o;
	if (current) {
		ref_locked(st, current);
		*out = current;
		return 0;
	}
	if (err)
		return err;
	if (store_noted_locked(st->damaged, key) ||
	    (c && c->kind == STORE_CLAIM_RECHECK))
		return -EUCLEAN;
	/* Evicted, or replaced, between our opening it and now. */
	if ((c && c->kind == STORE_CLAIM_EVICT) || fstat(o->fd, &sb) < 0 ||
	    sb.st_nlink == 0)
		return -ENOENT;
	err = insert_locked(st, o);
	if (err)
		return err;
	*out = o;
	*gone = NULL;
	return 0;
}

static struct store_object *acquire_hot(struct store *st, const char *key,
					bool *damaged)
{
	struct store_object *o;

	pthread_mutex_lock(&st->lock);
	o = find_locked(st, key);
	if (o)
		ref_locked(st, o);
	*damaged = store_noted_locked(st->damaged, key);
	pthread_mutex_unlock(&st->lock);
	return o;
}

int store_acquire(struct store *st, const char *key, struct store_object **out)
{
	struct store_object *o = NULL, *gone = NULL;
	bool damaged;
	int err;

	if (!store_key_ok(key))
		return -ENOENT;
	*out = acquire_hot(st, key, &damaged);
	if (!*out) {
		if (damaged) {
			err = find_file(st, key);
			return err ? err : -EUCLEAN;
		}
		err = load(st, key, &o);
		pthread_mutex_lock(&st->lock);
		err = admit_locked(st, key, err, o, out, &gone);
		pthread_mutex_unlock(&st->lock);
		store_object_free(gone);
		if (err)
			return err;
	}
	catalog_touch(st->catalog, key, time(NULL));
	return 0;
}

/* ---- what an object says ---- */

const char *store_object_key(const struct store_object *o)
{
	return o->key;
}

const struct store_info *store_object_info(const struct store_object *o)
{
	return &atomic_load(&o->info)->info;
}

int store_object_fd(const struct store_object *o)
{
	return o->fd;
}

const struct checkpoints *store_object_index(const struct store_object *o)
{
	return o->index;
}

const void *store_object_small(const struct store_object *o, size_t *len)
{
	*len = o->small ? (size_t)store_object_info(o)->size : 0;
	return o->small;
}

/* ---- what others say of it ---- */

void store_damaged(struct store *st, struct store_object *o)
{
	bool was_current;
	int err;

	pthread_mutex_lock(&st->lock);
	was_current = o->current;
	if (was_current) {
		detach_locked(st, o);
		store_note_locked(&st->damaged, o->key);
	}
	pthread_mutex_unlock(&st->lock);
	/* Of a version that was replaced nothing is left to heal. */
	if (!was_current)
		return;
	err = catalog_cached_doubt(st->catalog, o->key);
	if (err && err != -ENOENT)
		store_emit(st, STORE_EVENT_DISK_ERROR, o->key, 0, err,
			   "mark as damaged");
	store_emit(st, STORE_EVENT_DAMAGED, o->key, 0, 0,
		   "bytes failed their check");
}

static void confirm_in_memory(struct store *st, const char *key, int64_t now)
{
	struct store_info_version *v = malloc(sizeof(*v));
	struct store_object *o;

	if (!v)
		return;
	pthread_mutex_lock(&st->lock);
	o = find_locked(st, key);
	if (o) {
		v->older = atomic_load(&o->info);
		v->info = v->older->info;
		v->info.checked_at = now;
		atomic_store(&o->info, v);
		v = NULL;
	}
	pthread_mutex_unlock(&st->lock);
	free(v);
}

int store_confirm(struct store *st, const char *key, int64_t now)
{
	int err = catalog_cached_checked(st->catalog, key, now);

	if (!err)
		confirm_in_memory(st, key, now);
	return err;
}

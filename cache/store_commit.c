/*
 * Ways into objects/ and quarantine/: the ends of a download, and small objects
 * in one go. An object is first current in memory, then has its name, synced,
 * then its row; whatever fails on the way leaves the old state, or bytes that
 * have to be checked again.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cache/disk.h"
#include "cache/store_priv.h"

/* ---- leaving ---- */

/* The bytes are no longer staged, and neither is what was said of them. */
static void leave(struct store_staging *sg)
{
	struct store *st = sg->st;

	sg->gone = true;
	disk_unlink(st->staging, sg->sidecar);
	store_staging_give_back(sg, sg->reserved);
	pthread_mutex_lock(&st->lock);
	st->staging_bytes -= sg->counted;
	sg->claim.kind = STORE_CLAIM_STAGE;
	pthread_mutex_unlock(&st->lock);
	sg->counted = 0;
}

/* After a failure: the bytes may have got where nothing knows of them. */
static void leave_if_moved(struct store_staging *sg)
{
	if (!sg->moved)
		return;
	leave(sg);
	atomic_store(&sg->st->census_wanted, true);
}

static void row_of_info(struct catalog_cached *row,
			const struct store_info *info)
{
	*row = (struct catalog_cached){
		.size = info->size,
		.last_modified = info->last_modified,
		.has_published = info->has_published,
		.verdict = info->verdict,
		.state = info->verdict == VERDICT_VERIFIED ? CATALOG_VERIFIED
							   : CATALOG_ACCEPTED,
		.verified_at = info->verified_at,
		.checked_at = info->checked_at,
		.last_use = time(NULL),
	};
	memcpy(row->etag, info->etag, sizeof(row->etag));
	memcpy(row->origin, info->origin, sizeof(row->origin));
	memcpy(row->sha256, info->sha256, sizeof(row->sha256));
	memcpy(row->published, info->published, sizeof(row->published));
}

static bool info_ok(const struct store_info *info)
{
	return strnlen(info->etag, CATALOG_ETAG_MAX) < CATALOG_ETAG_MAX &&
	       strnlen(info->origin, CATALOG_ORIGIN_MAX) < CATALOG_ORIGIN_MAX;
}

/*
 * Moves what is staged as @from, unless *done, and has the new name synced. The
 * old name need not be: after a loss of power a file with two names does no
 * harm.
 */
static int move_synced(struct store *st, const char *from, int to_dirfd,
		       const char *to, bool *done)
{
	int err = store_tree_enter(st, to_dirfd, to);

	if (err)
		return err;
	if (!*done)
		err = disk_move(st->staging, from, to_dirfd, to);
	if (!err) {
		*done = true;
		err = disk_sync_parent(to_dirfd, to);
	}
	store_tree_leave(st);
	return err;
}

/* Into objects/ and index/, under the real names. */
static int move_in(struct store_staging *sg, bool has_index)
{
	struct store *st = sg->st;
	char index[STORE_PATH_MAX];
	int err = 0;

	store_path(index, sg->key, ".index");
	if (has_index)
		err = move_synced(st, sg->index, st->index, index,
				  &sg->index_moved);
	if (!err)
		err = move_synced(st, sg->partial, st->objects, sg->key,
				  &sg->moved);
	return err;
}

static int again_if_full(struct store *st, int err)
{
	if (err != -ENOSPC)
		return err;
	return store_free_disk(st, 0) == 0 ? -EAGAIN : -ENOSPC;
}

/* The row of what lies in objects/ now; a copy in quarantine/ is history. */
static int record(struct store *st, const char *key,
		  const struct catalog_cached *row)
{
	struct catalog_cached old;
	uint64_t files, bytes;
	int err;

	err = catalog_cached_put(st->catalog, key, row);
	if (again_if_full(st, err) == -EAGAIN)
		err = catalog_cached_put(st->catalog, key, row);
	if (err)
		return err;
	pthread_mutex_lock(&st->lock);
	store_forget_locked(&st->lost, key);
	pthread_mutex_unlock(&st->lock);
	if (catalog_quarantine_usage(st->catalog, &files, &bytes) == 0 &&
	    files > 0 && catalog_quarantined_get(st->catalog, key, &old) == 0)
		return store_drop_quarantined(st, key);
	return 0;
}

/*
 * After a failed sync the kernel may have dropped the pages and say yes the
 * next time, so what was staged can't be trusted any more.
 */
static int sync_staged(struct store_staging *sg)
{
	int err = sg->sync_err ? sg->sync_err : disk_sync_data(sg->fd);

	if (err)
		store_staging_discard(sg);
	return err;
}

static int publish_and_move(struct store_staging *sg, struct store_object *o)
{
	struct store *st = sg->st;
	bool has_index = o->index != NULL;
	int err;

	/*
	 * It is whole, verified and synced: who asks from here on gets it, and
	 * nobody compares the new row with the old file or the other way.
	 */
	err = store_object_publish(st, o);
	if (err) {
		store_object_free(o);
		return err;
	}
	err = move_in(sg, has_index);
	if (again_if_full(st, err) == -EAGAIN)
		err = move_in(sg, has_index);
	if (err) {
		store_object_retire(st, sg->key);
		store_release(o);
		leave_if_moved(sg);
	}
	return err;
}

int store_staging_commit(struct store_staging *sg,
			 const struct store_info *info)
{
	struct store *st = sg->st;
	struct catalog_cached row, old;
	struct store_object *o = NULL;
	uint64_t index_bytes = 0;
	int err;

	if (sg->gone || info->size != atomic_load(&sg->bytes) || !info_ok(info))
		return -EINVAL;
	row_of_info(&row, info);
	row.pinned = sg->pinned ||
		     (catalog_object_get(st->catalog, sg->key, &old) == 0 &&
		      old.pinned);
	if (!store_is_small(sg->key, info->size)) {
		err = disk_size(st->staging, sg->index, &index_bytes, NULL);
		if (err)
			return err;
	}
	row.disk_bytes = store_blocks(info->size) + store_blocks(index_bytes);
	err = sync_staged(sg);
	if (!err)
		err = store_object_create(st, sg->key, st->staging, sg->partial,
					  st->staging, sg->index, &row, &o);
	if (!err)
		err = publish_and_move(sg, o);
	if (err)
		return err;
	leave(sg);
	err = record(st, sg->key, &row);
	store_release(o);
	if (err) {
		/* In its place, and to be adopted when it is next asked for. */
		store_object_retire(st, sg->key);
		atomic_store(&st->census_wanted, true);
		return err;
	}
	store_emit(st, STORE_EVENT_COMMITTED, sg->key, row.disk_bytes, 0, NULL);
	return 0;
}

int store_staging_put_back(struct store_staging *sg)
{
	struct store *st = sg->st;
	struct catalog_cached row = {
		.size = atomic_load(&sg->bytes),
		.disk_bytes = store_blocks(atomic_load(&sg->bytes)),
		.last_modified = sg->last_modified,
		.pinned = sg->pinned,
		.state = CATALOG_UNCHECKED,
		.last_use = time(NULL),
	};
	int err;

	if (sg->gone || !sg->is_object)
		return -EINVAL;
	memcpy(row.etag, sg->etag, sizeof(row.etag));
	memcpy(row.origin, sg->origin, sizeof(row.origin));
	memcpy(row.sha256, sg->sha256, sizeof(row.sha256));
	err = move_synced(st, sg->partial, st->objects, sg->key, &sg->moved);
	if (err) {
		leave_if_moved(sg);
		return err;
	}
	leave(sg);
	err = catalog_cached_put(st->catalog, sg->key, &row);
	if (err)
		atomic_store(&st->census_wanted, true);
	return err;
}

/* ---- quarantine ---- */

static int write_reason(struct store_staging *sg, const struct store_info *info,
			const char *reason)
{
	struct store *st = sg->st;
	char path[STORE_PATH_MAX], hex[65];
	cJSON *obj = cJSON_CreateObject();
	int err = -ENOMEM;

	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", info->sha256[i]);
	store_path(path, sg->key, ".reason.json");
	if (obj && cJSON_AddStringToObject(obj, "key", sg->key) &&
	    cJSON_AddStringToObject(obj, "reason", reason) &&
	    cJSON_AddStringToObject(obj, "verdict",
				    verdict_name(info->verdict)) &&
	    cJSON_AddStringToObject(obj, "etag", info->etag) &&
	    cJSON_AddStringToObject(obj, "sha256", hex) &&
	    cJSON_AddNumberToObject(obj, "size", (double)info->size) &&
	    cJSON_AddNumberToObject(obj, "time", (double)info->verified_at))
		err = store_write_json(st->quarantine, path, obj);
	cJSON_Delete(obj);
	return err;
}

/* The reason first: no file lies there without one. */
static int move_to_quarantine(struct store_staging *sg,
			      const struct store_info *info, bool keep_bytes,
			      const char *reason)
{
	struct store *st = sg->st;
	int err;

	err = store_tree_enter(st, st->quarantine, sg->key);
	if (err)
		return err;
	err = write_reason(sg, info, reason);
	store_tree_leave(st);
	if (err)
		return err;
	return keep_bytes ? move_synced(st, sg->partial, st->quarantine,
					sg->key, &sg->moved)
			  : disk_unlink(st->staging, sg->partial);
}

int store_staging_quarantine(struct store_staging *sg,
			     const struct store_info *info, const char *reason)
{
	struct store *st = sg->st;
	struct catalog_cached row;
	uint64_t bytes = store_blocks(atomic_load(&sg->bytes)) + 4096;
	bool keep_bytes = bytes <= store_quarantine_max(st);
	int err;

	if (sg->gone || !info_ok(info))
		return -EINVAL;
	err = store_drop_quarantined(st, sg->key);
	if (err)
		return err;
	if (keep_bytes)
		store_age_quarantine(st, bytes, INT64_MIN);
	row_of_info(&row, info);
	row.state = CATALOG_QUARANTINED;
	row.disk_bytes = keep_bytes ? bytes : 4096;
	err = move_to_quarantine(sg, info, keep_bytes, reason);
	if (err) {
		leave_if_moved(sg);
		return err;
	}
	leave(sg);
	err = catalog_cached_put(st->catalog, sg->key, &row);
	if (err) {
		atomic_store(&st->census_wanted, true);
		return err;
	}
	store_emit(st, STORE_EVENT_QUARANTINED, sg->key, row.disk_bytes, 0,
		   reason);
	return 0;
}

/* ---- small objects, in one go ---- */

static int write_put(struct store *st, const char *path, const void *data,
		     size_t len)
{
	int fd, err;

	err = store_tree_enter(st, st->staging, path);
	if (err)
		return err;
	fd = disk_open(st->staging, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	store_tree_leave(st);
	if (fd < 0)
		return fd;
	err = disk_pwrite(fd, data, len, 0);
	if (!err)
		err = disk_sync_data(fd);
	close(fd);
	return err;
}

/* As with a commit: in memory first, then under its name, then its row. */
static int move_put(struct store *st, const char *key, const char *path,
		    const struct catalog_cached *row)
{
	struct store_object *o;
	bool moved = false;
	int err;

	err = store_object_create(st, key, st->staging, path, -1, NULL, row,
				  &o);
	if (err)
		return err;
	err = store_object_publish(st, o);
	if (err) {
		store_object_free(o);
		return err;
	}
	err = move_synced(st, path, st->objects, key, &moved);
	if (!err)
		err = record(st, key, row);
	if (err) {
		store_object_retire(st, key);
		atomic_store(&st->census_wanted, true);
	}
	store_release(o);
	return err;
}

static int put_once(struct store *st, const char *key,
		    const struct catalog_cached *row, const void *data,
		    size_t len)
{
	char path[STORE_PATH_MAX];
	int err;

	store_path(path, key, ".put");
	err = write_put(st, path, data, len);
	if (!err)
		err = move_put(st, key, path, row);
	if (err)
		disk_unlink(st->staging, path);
	store_tree_prune(st, st->staging, path);
	return err;
}

static int put_claimed(struct store *st, const char *key,
		       const struct catalog_cached *row, const void *data,
		       size_t len)
{
	int err = put_once(st, key, row, data, len);

	if (again_if_full(st, err) == -EAGAIN)
		err = put_once(st, key, row, data, len);
	return err;
}

int store_put(struct store *st, const char *key, const struct store_info *info,
	      const void *data, size_t len)
{
	struct store_claim c = {.key = key, .kind = STORE_CLAIM_PUT};
	unsigned char digest[EVP_MAX_MD_SIZE];
	struct catalog_cached row, old;
	int err;

	if (!store_key_ok(key) || !info_ok(info) || info->size != len)
		return -EINVAL;
	if (!store_is_small(key, len))
		return -EFBIG;
	if (!EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL))
		return -ENOMEM;
	if (memcmp(digest, info->sha256, sizeof(info->sha256)) != 0)
		return -EINVAL;
	row_of_info(&row, info);
	row.disk_bytes = store_blocks(len);
	err = store_claim(st, &c);
	if (err)
		return err;
	row.pinned =
		catalog_object_get(st->catalog, key, &old) == 0 && old.pinned;
	err = store_reserve(st, row.disk_bytes);
	if (!err) {
		err = put_claimed(st, key, &row, data, len);
		store_unreserve(st, row.disk_bytes);
	}
	store_unclaim(st, &c);
	if (!err)
		store_emit(st, STORE_EVENT_COMMITTED, key, row.disk_bytes, 0,
			   NULL);
	return err;
}

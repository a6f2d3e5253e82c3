/*
 * Admission: bytes on their way into the cache.
 *
 *   staged --begin--> being written --commit--> objects/
 *      ^                  |    '--quarantine--> quarantine/
 *      '-- close: the bytes stay, with what they belong to in the sidecar,
 *          or after a failed sync with none
 *   objects/ --recheck--> staged --put back--> objects/
 *
 * A sidecar never names a version its partial does not hold bytes of: it is
 * removed before other bytes come in its place and written after the old ones
 * are gone. What is under no sidecar is of an unknown version. Whatever the
 * sidecar says, the digest decides in the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/disk.h"
#include "cache/store_priv.h"

enum {
	COPY_BYTES = 256 << 10,
	/* What is promised at a time to a download of unknown size. */
	AHEAD_BYTES = 8 << 20,
};

static int sidecar_write(const struct store_staging *sg)
{
	struct store_sidecar s = {
		.size = atomic_load(&sg->size),
		.last_modified = sg->last_modified,
		.pinned = sg->pinned,
	};

	memcpy(s.etag, sg->etag, sizeof(s.etag));
	return store_sidecar_write(sg->st, sg->sidecar, &s);
}

/* ---- accounts ---- */

static void set_bytes(struct store_staging *sg, uint64_t bytes)
{
	struct store *st = sg->st;
	uint64_t blocks = store_blocks(bytes);

	atomic_store(&sg->bytes, bytes);
	if (blocks == sg->counted)
		return;
	pthread_mutex_lock(&st->lock);
	st->staging_bytes += blocks - sg->counted;
	pthread_mutex_unlock(&st->lock);
	sg->counted = blocks;
}

void store_staging_give_back(struct store_staging *sg, uint64_t bytes)
{
	if (bytes > sg->reserved)
		bytes = sg->reserved;
	if (bytes == 0)
		return;
	store_unreserve(sg->st, bytes);
	sg->reserved -= bytes;
}

static int reserve(struct store_staging *sg, uint64_t bytes)
{
	int err = store_reserve(sg->st, bytes);

	if (!err)
		sg->reserved += bytes;
	return err;
}

/* Room beside an archive's own bytes: index, sidecar. Measured: 3.2 % of the
 * zip, rarely more; a commit does not fail for what it is short. */
static uint64_t allowance(uint64_t size)
{
	return size / 16 + 4 * 4096;
}

/* ---- opening ---- */

static void names_of(struct store_staging *sg, const char *key)
{
	store_path(sg->key, key, "");
	store_path(sg->partial, key, ".partial");
	store_path(sg->sidecar, key, ".partial.json");
	store_path(sg->index, key, ".index.tmp");
}

static int staging_create(struct store *st, const char *key,
			  enum store_claim_kind kind,
			  struct store_staging **out)
{
	struct store_staging *sg;
	int err;

	if (!store_key_ok(key))
		return -EINVAL;
	sg = calloc(1, sizeof(*sg));
	if (!sg)
		return -ENOMEM;
	sg->st = st;
	sg->fd = -1;
	sg->last_modified = -1;
	atomic_init(&sg->bytes, 0);
	atomic_init(&sg->size, UINT64_MAX);
	names_of(sg, key);
	sg->claim = (struct store_claim){
		.key = sg->key, .kind = kind, .staging = sg};
	err = store_claim(st, &sg->claim);
	if (err) {
		free(sg);
		return err;
	}
	*out = sg;
	return 0;
}

static int open_partial(struct store_staging *sg)
{
	struct store *st = sg->st;
	struct store_sidecar s;
	struct stat sb;
	int err;

	err = store_tree_enter(st, st->staging, sg->partial);
	if (err)
		return err;
	err = sg->fd = disk_open(st->staging, sg->partial,
				 O_RDWR | O_CREAT | O_NONBLOCK, 0600);
	store_tree_leave(st);
	if (err < 0)
		return err;
	if (fstat(sg->fd, &sb) < 0)
		return -errno;
	if (!S_ISREG(sb.st_mode))
		return -EINVAL;
	store_sidecar_read(st, sg->sidecar, &s);
	if (s.size != UINT64_MAX && (uint64_t)sb.st_size > s.size) {
		if (ftruncate(sg->fd, (off_t)s.size) < 0)
			return -errno;
		pthread_mutex_lock(&st->lock);
		st->staging_bytes -= store_blocks((uint64_t)sb.st_size) -
				     store_blocks(s.size);
		pthread_mutex_unlock(&st->lock);
		sb.st_size = (off_t)s.size;
	}
	/* Counted already, when it was written or at the sweep. */
	sg->counted = store_blocks((uint64_t)sb.st_size);
	sg->written_back = (uint64_t)sb.st_size;
	atomic_store(&sg->bytes, (uint64_t)sb.st_size);
	atomic_store(&sg->size, s.size);
	memcpy(sg->etag, s.etag, sizeof(sg->etag));
	sg->last_modified = s.last_modified;
	sg->pinned = s.pinned;
	return 0;
}

int store_stage(struct store *st, const char *key, struct store_staging **out)
{
	struct store_staging *sg;
	int err;

	err = staging_create(st, key, STORE_CLAIM_STAGE, &sg);
	if (err)
		return err;
	err = open_partial(sg);
	if (err == -ENOSPC && store_free_disk(st, 0) == 0)
		err = open_partial(sg);
	if (err) {
		store_staging_close(sg);
		return err;
	}
	*out = sg;
	return 0;
}

/* ---- recheck ---- */

static int digest_file(int fd, unsigned char digest[EVP_MAX_MD_SIZE])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char *buf = malloc(COPY_BYTES);
	ssize_t n = -1;
	off_t off = 0;
	int err = -ENOMEM;

	if (!ctx || !buf || !EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
		goto out;
	while ((n = pread(fd, buf, COPY_BYTES, off)) > 0) {
		if (!EVP_DigestUpdate(ctx, buf, (size_t)n))
			goto out;
		off += n;
	}
	err = n < 0 ? -errno : 0;
	if (!err && !EVP_DigestFinal_ex(ctx, digest, NULL))
		err = -ENOMEM;
out:
	free(buf);
	EVP_MD_CTX_free(ctx);
	return err;
}

/*
 * The row may be of another version than the file: its last commit may have
 * been lost with the power. So it is believed only if the digest agrees.
 */
static int label(struct store_staging *sg, const struct catalog_cached *row,
		 const unsigned char *digest)
{
	if (atomic_load(&sg->bytes) != row->size ||
	    memcmp(digest, row->sha256, sizeof(row->sha256)) != 0)
		return 0;
	memcpy(sg->etag, row->etag, sizeof(sg->etag));
	memcpy(sg->origin, row->origin, sizeof(sg->origin));
	sg->last_modified = row->last_modified;
	atomic_store(&sg->size, row->size);
	return sidecar_write(sg);
}

/* The digest of the object as it lies there, all of which is read for it: what
 * the disk does not give back is not touched. */
static int digest_object(struct store_staging *sg, unsigned char *digest)
{
	int fd, err;

	fd = openat(sg->st->objects, sg->key,
		    O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
			       ? -ENOENT
			       : -errno;
	err = digest_file(fd, digest);
	close(fd);
	return err && err != -ENOMEM ? -EIO : err;
}

static int move_back(struct store_staging *sg)
{
	struct store *st = sg->st;
	char index[STORE_PATH_MAX];
	uint64_t bytes, old = 0;
	int err;

	store_path(index, sg->key, ".index");
	err = disk_size(st->objects, sg->key, &bytes, NULL);
	if (err)
		return err == -EINVAL || err == -ENOTDIR ? -ENOENT : err;
	err = store_tree_enter(st, st->staging, sg->partial);
	if (err)
		return err;
	err = disk_unlink(st->staging, sg->sidecar);
	if (!err && disk_size(st->staging, sg->partial, &old, NULL))
		old = 0;
	if (!err)
		err = disk_move(st->objects, sg->key, st->staging, sg->partial);
	store_tree_leave(st);
	if (err)
		return err;
	pthread_mutex_lock(&st->lock);
	st->staging_bytes += store_blocks(bytes) - store_blocks(old);
	store_forget_locked(&st->damaged, sg->key);
	pthread_mutex_unlock(&st->lock);
	store_tree_prune(st, st->objects, sg->key);
	/* From here on the object is a partial download, whatever fails. */
	err = catalog_cached_delete(st->catalog, sg->key);
	if (!err)
		err = disk_unlink(st->index, index);
	return err;
}

int store_recheck(struct store *st, const char *key, struct store_staging **out)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	struct catalog_cached row;
	struct store_staging *sg;
	bool has_row;
	int err;

	err = staging_create(st, key, STORE_CLAIM_RECHECK, &sg);
	if (err)
		return err == -EINVAL ? -ENOENT : err;
	has_row = catalog_object_get(st->catalog, key, &row) == 0;
	err = digest_object(sg, digest);
	if (!err) {
		store_object_retire(st, key);
		err = move_back(sg);
	}
	if (!err)
		err = open_partial(sg);
	if (!err)
		sg->pinned = has_row && row.pinned;
	if (!err) {
		sg->is_object = true;
		memcpy(sg->sha256, digest, sizeof(sg->sha256));
	}
	if (!err && has_row)
		err = label(sg, &row, digest);
	if (err) {
		store_staging_close(sg);
		return err;
	}
	*out = sg;
	return 0;
}

void store_staging_close(struct store_staging *sg)
{
	struct store *st;
	struct stat sb;

	if (!sg)
		return;
	st = sg->st;
	store_staging_give_back(sg, sg->reserved);
	if (sg->fd >= 0) {
		bool empty = fstat(sg->fd, &sb) == 0 && sb.st_size == 0;

		close(sg->fd);
		disk_unlink(st->staging, sg->index);
		if (!sg->gone && empty) {
			disk_unlink(st->staging, sg->partial);
			disk_unlink(st->staging, sg->sidecar);
			sg->gone = true;
		}
		if (sg->gone)
			store_tree_prune(st, st->staging, sg->partial);
	}
	store_unclaim(st, &sg->claim);
	free(sg);
}

/* ---- what is staged ---- */

uint64_t store_staging_bytes(const struct store_staging *sg)
{
	return atomic_load(&sg->bytes);
}

const char *store_staging_etag(const struct store_staging *sg)
{
	return sg->etag;
}

uint64_t store_staging_size(const struct store_staging *sg)
{
	return atomic_load(&sg->size);
}

int64_t store_staging_last_modified(const struct store_staging *sg)
{
	return sg->last_modified;
}

const char *store_staging_origin(const struct store_staging *sg)
{
	return sg->origin;
}

int store_staging_fd(const struct store_staging *sg)
{
	return sg->fd;
}

void store_staging_index(const struct store_staging *sg, int *dirfd,
			 const char **name)
{
	*dirfd = sg->st->staging;
	*name = sg->index;
}

int store_partial(struct store *st, const char *key, uint64_t *bytes,
		  uint64_t *size)
{
	char path[STORE_PATH_MAX];
	const struct store_claim *c;
	struct store_sidecar s;
	bool live;
	int err;

	if (!store_key_ok(key))
		return -ENOENT;
	pthread_mutex_lock(&st->lock);
	c = store_find_claim_locked(st, key);
	live = c && c->staging;
	if (live) {
		*bytes = atomic_load(&c->staging->bytes);
		*size = atomic_load(&c->staging->size);
	}
	pthread_mutex_unlock(&st->lock);
	if (live)
		return 0;
	store_path(path, key, ".partial");
	err = disk_size(st->staging, path, bytes, NULL);
	if (err)
		return err == -ENOTDIR || err == -EINVAL ? -ENOENT : err;
	store_path(path, key, ".partial.json");
	store_sidecar_read(st, path, &s);
	*size = s.size;
	return 0;
}

/* ---- writing ---- */

static int copy_bytes(int from, int to, uint64_t len)
{
	unsigned char *buf = malloc(COPY_BYTES);
	uint64_t off = 0;
	int err = buf ? 0 : -ENOMEM;

	while (!err && off < len) {
		size_t n = len - off < COPY_BYTES ? (size_t)(len - off)
						  : COPY_BYTES;

		err = disk_pread(from, buf, n, off);
		if (!err)
			err = disk_pwrite(to, buf, n, off);
		off += n;
	}
	free(buf);
	return err;
}

/*
 * The first @keep bytes in a file of their own: the one there may have been an
 * object before a recheck, and somebody may still read it. The descriptor stays
 * the same number.
 */
static int start_anew(struct store_staging *sg, uint64_t keep)
{
	struct store *st = sg->st;
	char fresh[STORE_PATH_MAX];
	int fd, err;

	store_path(fresh, sg->key, ".partial.new");
	fd = disk_open(st->staging, fresh, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return fd;
	err = copy_bytes(sg->fd, fd, keep);
	if (!err)
		err = disk_move(st->staging, fresh, st->staging, sg->partial);
	if (!err && dup3(fd, sg->fd, O_CLOEXEC) < 0)
		err = -errno;
	close(fd);
	if (err)
		disk_unlink(st->staging, fresh);
	return err;
}

static int cut(struct store_staging *sg, uint64_t from)
{
	uint64_t bytes = atomic_load(&sg->bytes);
	int err = 0;

	if (from > bytes)
		return -EINVAL;
	sg->is_object = false;
	if (from < bytes)
		err = start_anew(sg, from);
	if (err)
		return err;
	set_bytes(sg, from);
	if (sg->written_back > from)
		sg->written_back = from;
	if (!from)
		sg->sync_err = 0;
	return 0;
}

static bool same_label(const struct store_staging *sg, const char *etag,
		       uint64_t size, int64_t last_modified)
{
	return strcmp(sg->etag, etag) == 0 && atomic_load(&sg->size) == size &&
	       sg->last_modified == last_modified;
}

static int relabel(struct store_staging *sg, const char *etag, uint64_t size,
		   int64_t last_modified)
{
	memset(sg->etag, 0, sizeof(sg->etag));
	strcpy(sg->etag, etag);
	atomic_store(&sg->size, size);
	sg->last_modified = last_modified;
	return sidecar_write(sg);
}

int store_staging_begin(struct store_staging *sg, const char *etag,
			uint64_t size, int64_t last_modified, uint64_t from)
{
	bool same = same_label(sg, etag, size, last_modified);
	int err = 0;

	if (strlen(etag) >= sizeof(sg->etag) || sg->gone ||
	    (size != UINT64_MAX && from > size))
		return -EINVAL;
	store_staging_give_back(sg, sg->reserved);
	if (!same)
		err = disk_unlink(sg->st->staging, sg->sidecar);
	if (!err)
		err = cut(sg, from);
	if (!err && size != UINT64_MAX)
		err = reserve(sg, store_blocks(size - from) + allowance(size));
	if (!err && !same)
		err = relabel(sg, etag, size, last_modified);
	return err;
}

void store_staging_write_back(struct store_staging *sg, uint64_t end)
{
	if (end <= sg->written_back)
		return;
	/* A failure shows at the sync. */
	(void)sync_file_range(sg->fd, (off_t)sg->written_back,
			      (off_t)(end - sg->written_back),
			      SYNC_FILE_RANGE_WRITE);
	sg->written_back = end;
}

void store_staging_sync_ahead(struct store_staging *sg)
{
	int err;

	if (sg->is_object)
		return; /* it may be put back, and was synced as it came */
	err = disk_sync_data(sg->fd);
	if (!err)
		return;
	sg->sync_err = err;
	/* Whoever comes later, and be it after a crash, can't tell what these
	 * bytes are of. */
	disk_unlink(sg->st->staging, sg->sidecar);
}

int store_staging_write(struct store_staging *sg, const void *buf, size_t len)
{
	uint64_t at = atomic_load(&sg->bytes);
	int err;

	if (sg->gone)
		return -EINVAL;
	sg->is_object = false;
	if (len > sg->reserved) {
		uint64_t blocks = store_blocks(len);

		err = reserve(sg, blocks > AHEAD_BYTES ? blocks : AHEAD_BYTES);
		/* Near the limit a little at a time is better than nothing. */
		if (err == -ENOSPC)
			err = reserve(sg, blocks);
		if (err)
			return err;
	}
	err = disk_pwrite(sg->fd, buf, len, at);
	if (err == -ENOSPC && store_free_disk(sg->st, len) == 0)
		err = disk_pwrite(sg->fd, buf, len, at);
	if (err) {
		/* Part of it may be there; staged is what was before. */
		(void)!ftruncate(sg->fd, (off_t)at);
		return err;
	}
	set_bytes(sg, at + len);
	store_staging_give_back(sg, len);
	return 0;
}

int store_staging_discard(struct store_staging *sg)
{
	int err;

	if (sg->gone)
		return -EINVAL;
	store_staging_give_back(sg, sg->reserved);
	err = disk_unlink(sg->st->staging, sg->sidecar);
	if (!err)
		err = cut(sg, 0);
	if (err)
		return err;
	memset(sg->etag, 0, sizeof(sg->etag));
	memset(sg->origin, 0, sizeof(sg->origin));
	atomic_store(&sg->size, UINT64_MAX);
	sg->last_modified = -1;
	return 0;
}

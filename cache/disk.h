/*
 * disk - system calls that must be whole or durable.
 *
 * All paths are relative to a folder descriptor and are walked without
 * following symbolic links out of it. Everything returns 0 or a negative
 * errno; EINTR and short transfers are handled here. A quota of the file system
 * is a full disk: -ENOSPC, as -EDQUOT is the budget's.
 */
#ifndef CACHE_DISK_H
#define CACHE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What errno is, negative, by these rules. */
int disk_errno(void);

int disk_pread(int fd, void *buf, size_t len, uint64_t off); /* -EBADMSG: end */
int disk_pwrite(int fd, const void *buf, size_t len, uint64_t off);
int disk_sync_data(int fd); /* fdatasync(2) */
/* openat(2), close-on-exec. Returns a descriptor. */
int disk_open(int dirfd, const char *path, int flags, mode_t mode);
/* Length and, unless NULL, mtime of a regular file; -EINVAL for others. */
int disk_size(int dirfd, const char *path, uint64_t *size, int64_t *mtime);
/* -ENOENT if the folder above the last component of @path is missing. */
int disk_has_parent(int dirfd, const char *path);
/* All folders above the last component of @path, 0700, each synced into its
 * parent when made. */
int disk_make_parents(int dirfd, const char *path);
/* Removes folders above @path that became empty, not @dirfd itself. */
void disk_prune_parents(int dirfd, const char *path);
/* rename(2) and no sync: for who has to know which of the two failed. */
int disk_move(int from_dirfd, const char *from, int to_dirfd, const char *to);
/* rename(2), then both folders are synced. */
int disk_rename(int from_dirfd, const char *from, int to_dirfd, const char *to);
int disk_unlink(int dirfd, const char *path); /* -ENOENT is 0 */
int disk_sync_parent(int dirfd, const char *path);
/* New name (@path with .new), sync, rename, folder sync. One writer of a path
 * at a time. */
int disk_write_file(int dirfd, const char *path, const void *buf, size_t len);
/* Whole file up to @max bytes, NUL-terminated beyond *len; -EFBIG. */
int disk_read_file(int dirfd, const char *path, size_t max, char **buf,
		   size_t *len);

/*
 * A walk over all regular files below a folder, one folder a step, in no
 * order, with one descriptor open at a time however deep the tree is. Files
 * made or removed meanwhile may be seen or not.
 */
struct disk_walk;
struct disk_file {
	const char *path; /* below the folder walked; valid during the call */
	uint64_t size;
	int64_t mtime;
};
/* Non-zero ends the step and is returned. */
typedef int disk_walk_fn(void *arg, const struct disk_file *f);

int disk_walk_create(struct disk_walk **out, int dirfd);
/* 1: there may be more; 0: all seen; or a negative errno. */
int disk_walk_step(struct disk_walk *w, disk_walk_fn *fn, void *arg);
void disk_walk_free(struct disk_walk *w);

#endif

/*
 * disk - system calls that must be whole or durable.
 *
 * All paths are relative to a folder descriptor and are walked without
 * following symbolic links out of it. Everything returns 0 or a negative
 * errno; EINTR and short transfers are handled here.
 */
#ifndef CACHE_DISK_H
#define CACHE_DISK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int disk_pread(int fd, void *buf, size_t len, uint64_t off); /* -EBADMSG: end */
int disk_pwrite(int fd, const void *buf, size_t len, uint64_t off);
/* All folders above the last component of @path, 0700, each synced into its
 * parent when made. */
int disk_make_parents(int dirfd, const char *path);
/* Removes folders above @path that became empty, not @dirfd itself. */
void disk_prune_parents(int dirfd, const char *path);
/* rename(2), then both folders are synced. */
int disk_rename(int from_dirfd, const char *from, int to_dirfd,
		const char *to);
int disk_unlink(int dirfd, const char *path); /* -ENOENT is 0 */
int disk_sync_parent(int dirfd, const char *path);
/* New name, sync, rename, folder sync. */
int disk_write_file(int dirfd, const char *path, const void *buf, size_t len);
/* Whole file up to @max bytes, NUL-terminated beyond *len; -EFBIG. */
int disk_read_file(int dirfd, const char *path, size_t max, char **buf,
		   size_t *len);

#endif

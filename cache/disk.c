/*
 * Every path is split into its folder and its last component. The folder is
 * opened once, by openat2(2) where the kernel has it and component by
 * component where not, so that no symbolic link and no ".." can lead out of
 * the cache; the last component is then handed to a plain *at call, which does
 * not follow a link there. What remains is a world of folder descriptors and
 * single names, which is also what has to be synced.
 */
#include "cache/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FOLDER = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

int disk_errno(void)
{
	return errno == EDQUOT ? -ENOSPC : -errno;
}

static int or_errno(int rc)
{
	return rc < 0 ? disk_errno() : rc;
}

int disk_pread(int fd, void *buf, size_t len, uint64_t off)
{
	unsigned char *p = buf;

	while (len > 0) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int disk_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	const unsigned char *p = buf;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return disk_errno();
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_fd(int fd)
{
	int rc;

	do
		rc = fsync(fd);
	while (rc < 0 && errno == EINTR);
	return or_errno(rc);
}

int disk_sync_data(int fd)
{
	int rc;

	do
		rc = fdatasync(fd);
	while (rc < 0 && errno == EINTR);
	return or_errno(rc);
}

/* The next component of *path, which moves behind it. 1, 0 at the end. */
static int next_component(const char **path, char name[NAME_MAX + 1])
{
	size_t len;

	if (**path == '\0')
		return 0;
	len = strcspn(*path, "/");
	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, *path, len);
	name[len] = '\0';
	if (len == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	*path += len;
	*path += **path == '/';
	return 1;
}

/* Opens the folder @path, making what is missing of it if @make. */
static int walk_folders(int dirfd, const char *path, bool make)
{
	char name[NAME_MAX + 1];
	int fd, next, more;

	fd = or_errno(openat(dirfd, ".", FOLDER));
	while (fd >= 0 && (more = next_component(&path, name)) != 0) {
		int err = more < 0 ? more : 0;

		if (!err && make && mkdirat(fd, name, 0700) == 0)
			err = sync_fd(fd);
		else if (!err && make && errno != EEXIST)
			err = disk_errno();
		next = err ? err : or_errno(openat(fd, name, FOLDER));
		close(fd);
		fd = next;
	}
	return fd;
}

static int open_folder(int dirfd, const char *path)
{
	struct open_how how = {
		.flags = FOLDER,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	long fd;

	fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
	if (fd >= 0)
		return (int)fd;
	/* Linux before 5.6, or a seccomp filter that does not know the call. */
	if (errno == ENOSYS || errno == EPERM)
		return walk_folders(dirfd, path, false);
	/* Tried to leave: what a walk of components calls a bad name. */
	return errno == EXDEV ? -EINVAL : -errno;
}

/* The folder above the last component of @path, and that component. */
static int open_parent(int dirfd, const char *path, const char **leaf)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX];

	*leaf = slash ? slash + 1 : path;
	if (**leaf == '\0' || strcmp(*leaf, ".") == 0 ||
	    strcmp(*leaf, "..") == 0)
		return -EINVAL;
	if (!slash)
		return or_errno(openat(dirfd, ".", FOLDER));
	if ((size_t)(slash - path) >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = '\0';
	return open_folder(dirfd, parent);
}

int disk_open(int dirfd, const char *path, int flags, mode_t mode)
{
	const char *leaf;
	int parent, fd;

	parent = open_parent(dirfd, path, &leaf);
	if (parent < 0)
		return parent;
	fd = or_errno(
		openat(parent, leaf, flags | O_NOFOLLOW | O_CLOEXEC, mode));
	close(parent);
	return fd;
}

int disk_size(int dirfd, const char *path, uint64_t *size, int64_t *mtime)
{
	const char *leaf;
	struct stat sb;
	int parent, err;

	parent = open_parent(dirfd, path, &leaf);
	if (parent < 0)
		return parent;
	err = or_errno(fstatat(parent, leaf, &sb, AT_SYMLINK_NOFOLLOW));
	close(parent);
	if (err)
		return err;
	if (!S_ISREG(sb.st_mode))
		return -EINVAL;
	*size = (uint64_t)sb.st_size;
	if (mtime)
		*mtime = sb.st_mtime;
	return 0;
}

int disk_has_parent(int dirfd, const char *path)
{
	const char *leaf;
	int parent = open_parent(dirfd, path, &leaf);

	if (parent < 0)
		return parent;
	close(parent);
	return 0;
}

int disk_make_parents(int dirfd, const char *path)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX];
	int fd;

	if (!slash)
		return 0;
	if ((size_t)(slash - path) >= sizeof(parent))
		return -ENAMETOOLONG;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = '\0';
	fd = open_folder(dirfd, parent);
	if (fd == -ENOENT)
		fd = walk_folders(dirfd, parent, true);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

void disk_prune_parents(int dirfd, const char *path)
{
	char folder[PATH_MAX];
	const char *leaf;
	char *slash;
	int parent, err;

	if (strlen(path) >= sizeof(folder))
		return;
	strcpy(folder, path);
	while ((slash = strrchr(folder, '/'))) {
		*slash = '\0';
		parent = open_parent(dirfd, folder, &leaf);
		if (parent == -ENOENT)
			continue;
		if (parent < 0)
			return;
		err = unlinkat(parent, leaf, AT_REMOVEDIR);
		if (err && errno == ENOENT)
			err = 0;
		close(parent);
		if (err)
			return;
	}
}

int disk_move(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
	const char *from_leaf, *to_leaf;
	int from_parent, to_parent, err;

	from_parent = open_parent(from_dirfd, from, &from_leaf);
	if (from_parent < 0)
		return from_parent;
	err = to_parent = open_parent(to_dirfd, to, &to_leaf);
	if (to_parent >= 0) {
		err = or_errno(
			renameat(from_parent, from_leaf, to_parent, to_leaf));
		close(to_parent);
	}
	close(from_parent);
	return err;
}

/* Whether two descriptors are of one folder, which needs one sync only. */
static bool same_folder(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	       sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

int disk_rename(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
	const char *from_leaf, *to_leaf;
	int from_parent = -1, to_parent = -1, err;

	err = from_parent = open_parent(from_dirfd, from, &from_leaf);
	if (from_parent < 0)
		goto out;
	err = to_parent = open_parent(to_dirfd, to, &to_leaf);
	if (to_parent < 0)
		goto out;
	err = or_errno(renameat(from_parent, from_leaf, to_parent, to_leaf));
	if (err)
		goto out;
	/* The new name first: a file with two names is better than with none.
	 */
	err = sync_fd(to_parent);
	if (!err && !same_folder(from_parent, to_parent))
		err = sync_fd(from_parent);
out:
	if (to_parent >= 0)
		close(to_parent);
	if (from_parent >= 0)
		close(from_parent);
	return err;
}

int disk_unlink(int dirfd, const char *path)
{
	const char *leaf;
	int parent, err;

	parent = open_parent(dirfd, path, &leaf);
	if (parent == -ENOENT)
		return 0;
	if (parent < 0)
		return parent;
	err = or_errno(unlinkat(parent, leaf, 0));
	close(parent);
	return err == -ENOENT ? 0 : err;
}

int disk_sync_parent(int dirfd, const char *path)
{
	const char *leaf;
	int parent, err;

	parent = open_parent(dirfd, path, &leaf);
	if (parent < 0)
		return parent;
	err = sync_fd(parent);
	close(parent);
	return err;
}

int disk_write_file(int dirfd, const char *path, const void *buf, size_t len)
{
	char tmp[PATH_MAX];
	int fd = -1, err;

	if (snprintf(tmp, sizeof(tmp), "%s.new", path) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	fd = disk_open(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return fd;
	err = disk_pwrite(fd, buf, len, 0);
	if (!err)
		err = disk_sync_data(fd);
	if (close(fd) < 0 && !err)
		err = -errno;
	if (!err)
		err = disk_rename(dirfd, tmp, dirfd, path);
	if (err)
		disk_unlink(dirfd, tmp);
	return err;
}

static int read_whole(int fd, size_t max, char **buf, size_t *len)
{
	struct stat sb;
	char *p;
	int err;

	if (fstat(fd, &sb) < 0)
		return -errno;
	if (!S_ISREG(sb.st_mode))
		return -EINVAL;
	if ((uint64_t)sb.st_size > max)
		return -EFBIG;
	p = malloc((size_t)sb.st_size + 1);
	if (!p)
		return -ENOMEM;
	err = disk_pread(fd, p, (size_t)sb.st_size, 0);
	if (err) {
		free(p);
		return err;
	}
	p[sb.st_size] = '\0';
	*buf = p;
	*len = (size_t)sb.st_size;
	return 0;
}

int disk_read_file(int dirfd, const char *path, size_t max, char **buf,
		   size_t *len)
{
	int fd, err;

	/* O_NONBLOCK: a FIFO in the place of the file must not hold us. */
	fd = disk_open(dirfd, path, O_RDONLY | O_NONBLOCK, 0);
	if (fd < 0)
		return fd;
	err = read_whole(fd, max, buf, len);
	close(fd);
	return err;
}

/* ---- walking ---- */

struct disk_walk {
	int dirfd;
	char **folders; /* relative paths, "" for the root, still to be read */
	size_t n, room;
};

static int push_folder(struct disk_walk *w, const char *path)
{
	if (w->n == w->room) {
		size_t room = w->room ? 2 * w->room : 16;
		char **p = realloc(w->folders, room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		w->folders = p;
		w->room = room;
	}
	w->folders[w->n] = strdup(path);
	if (!w->folders[w->n])
		return -ENOMEM;
	w->n++;
	return 0;
}

int disk_walk_create(struct disk_walk **out, int dirfd)
{
	struct disk_walk *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->dirfd = dirfd;
	err = push_folder(w, "");
	if (err) {
		disk_walk_free(w);
		return err;
	}
	*out = w;
	return 0;
}

static int visit(struct disk_walk *w, int fd, const char *folder,
		 const char *name, disk_walk_fn *fn, void *arg)
{
	struct disk_file f = {.path = NULL};
	char path[PATH_MAX];
	struct stat sb;

	if (snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "",
		     name) >= (int)sizeof(path))
		return 0;
	/* What vanished meanwhile is not there. */
	if (fstatat(fd, name, &sb, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (S_ISDIR(sb.st_mode))
		return push_folder(w, path);
	if (!S_ISREG(sb.st_mode))
		return 0;
	f.path = path;
	f.size = (uint64_t)sb.st_size;
	f.mtime = sb.st_mtime;
	return fn(arg, &f);
}

static int walk_folder(struct disk_walk *w, const char *folder,
		       disk_walk_fn *fn, void *arg)
{
	struct dirent *de;
	int fd, err = 0;
	DIR *d;

	fd = *folder ? open_folder(w->dirfd, folder)
		     : or_errno(openat(w->dirfd, ".", FOLDER));
	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (!d) {
		err = -errno;
		close(fd);
		return err;
	}
	errno = 0;
	while (!err && (de = readdir(d))) {
		if (strcmp(de->d_name, ".") != 0 &&
		    strcmp(de->d_name, "..") != 0)
			err = visit(w, fd, folder, de->d_name, fn, arg);
		errno = 0;
	}
	if (!err && errno)
		err = -errno;
	closedir(d);
	return err;
}

int disk_walk_step(struct disk_walk *w, disk_walk_fn *fn, void *arg)
{
	char *folder;
	int err;

	if (w->n == 0)
		return 0;
	folder = w->folders[--w->n];
	err = walk_folder(w, folder, fn, arg);
	free(folder);
	return err ? err : 1;
}

void disk_walk_free(struct disk_walk *w)
{
	if (!w)
		return;
	while (w->n > 0)
		free(w->folders[--w->n]);
	free(w->folders);
	free(w);
}

/* fd_path - what the shims ask of a descriptor: the file it stands for. */
#ifndef TESTS_SHIM_FD_PATH_H
#define TESTS_SHIM_FD_PATH_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Its path now; one that was removed has " (deleted)" behind it. */
static inline bool fd_path(int fd, char path[PATH_MAX])
{
	char link[32];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	return true;
}

/* Is it the folder @root, also a removed one, or below it? What follows the
 * name then is its end, a blank or a slash. */
static inline bool path_is_below(const char *path, const char *root)
{
	size_t len = strlen(root);

	return strncmp(path, root, len) == 0 && strchr("/ ", path[len]);
}

#endif

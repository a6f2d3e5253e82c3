#include "tests/support/powerloss.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_CODE = 77 };

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "powerloss: %s: %s\n", what, strerror(errno));
	abort();
}

/* Beside the folder of the test programs. */
static void find_shim(char path[PATH_MAX])
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	must(n > 0, "/proc/self/exe");
	exe[n] = '\0';
	for (int i = 0; i < 2; i++) {
		slash = strrchr(exe, '/');
		must(slash != NULL, exe);
		*slash = '\0';
	}
	must(snprintf(path, PATH_MAX, "%s/powerloss.so", exe) < PATH_MAX, exe);
	must(access(path, R_OK) == 0, path);
}

static void become(const char *root, const char *state, unsigned int stop,
		   char *const argv[])
{
	const char *asan = getenv("ASAN_OPTIONS");
	char shim[PATH_MAX], number[16], options[1024];

	find_shim(shim);
	snprintf(number, sizeof(number), "%u", stop);
	setenv("LD_PRELOAD", shim, 1);
	setenv("POWERLOSS_ROOT", root, 1);
	setenv("POWERLOSS_STOP", number, 1);
	if (state)
		setenv("POWERLOSS_STATE", state, 1);
	else
		unsetenv("POWERLOSS_STATE");
	/* A sanitizer wants to be first; the shim does not mind. */
	snprintf(options, sizeof(options), "%s:verify_asan_link_order=0",
		 asan ? asan : "");
	setenv("ASAN_OPTIONS", options, 1);
	execv(argv[0], argv);
	must(false, argv[0]);
}

bool powerloss_run(const char *root, const char *state, unsigned int stop,
		   char *const argv[])
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0)
		become(root, state, stop, argv);
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CODE)
		return true;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "powerloss: stop %u: %s ended with %#x\n", stop,
			argv[1] ? argv[1] : argv[0], (unsigned int)status);
		abort();
	}
	return false;
}

/* ---- putting together ---- */

struct remains {
	const char *state;
	int flags;
	struct {
		char id[64];
		char *path; /* as it lies below the root now */
	} * now;
	size_t n, room;
};

static bool identify(const char *path, char id[64], bool *is_dir)
{
	struct statx sx;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW,
		  STATX_TYPE | STATX_INO | STATX_BTIME, &sx) < 0)
		return false;
	snprintf(id, 64, "%" PRIu64 "-%lld.%09u", (uint64_t)sx.stx_ino,
		 (long long)sx.stx_btime.tv_sec, sx.stx_btime.tv_nsec);
	*is_dir = S_ISDIR(sx.stx_mode);
	return true;
}

static void index_tree(struct remains *r, const char *path)
{
	char child[PATH_MAX];
	struct dirent *de;
	bool is_dir;
	DIR *d;

	if (r->n == r->room) {
		r->room = r->room ? 2 * r->room : 64;
		r->now = realloc(r->now, r->room * sizeof(*r->now));
		must(r->now != NULL, "realloc");
	}
	must(identify(path, r->now[r->n].id, &is_dir), path);
	r->now[r->n++].path = strdup(path);
	if (!is_dir)
		return;
	d = opendir(path);
	must(d != NULL, path);
	while ((de = readdir(d))) {
		if (strcmp(de->d_name, ".") == 0 ||
		    strcmp(de->d_name, "..") == 0)
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, de->d_name);
		index_tree(r, child);
	}
	closedir(d);
}

static const char *path_now(const struct remains *r, const char *id)
{
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->now[i].id, id) == 0)
			return r->now[i].path;
	return NULL;
}

/* @from NULL or missing: an empty file. */
static void copy(const char *from, const char *to)
{
	int in = from ? open(from, O_RDONLY | O_CLOEXEC) : -1;
	int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char buf[65536];
	ssize_t n;

	must(out >= 0, to);
	while (in >= 0 && (n = read(in, buf, sizeof(buf))) > 0)
		must(write(out, buf, (size_t)n) == n, to);
	if (in >= 0)
		close(in);
	close(out);
}

static void restore_file(const struct remains *r, const char *id,
			 const char *out)
{
	const char *now = path_now(r, id);
	char kept[PATH_MAX];

	snprintf(kept, sizeof(kept), "%s/file-%s", r->state, id);
	/* A file that is deleted by now has its bytes of the last sync. */
	copy((r->flags & POWERLOSS_KEEP_BYTES) && now ? now : kept, out);
}

static void restore(const struct remains *r, char type, const char *id,
		    const char *out);

static void restore_folder(const struct remains *r, const char *id,
			   const char *out)
{
	char path[PATH_MAX], line[PATH_MAX], child[64], name[NAME_MAX + 1];
	char type;
	FILE *f;

	must(mkdir(out, 0700) == 0, out);
	snprintf(path, sizeof(path), "%s/dir-%s", r->state, id);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		must(sscanf(line, "%c %63s %255[^\n]", &type, child, name) == 3,
		     line);
		snprintf(path, sizeof(path), "%s/%s", out, name);
		restore(r, type, child, path);
	}
	fclose(f);
}

static void restore(const struct remains *r, char type, const char *id,
		    const char *out)
{
	if (type == 'd')
		restore_folder(r, id, out);
	else
		restore_file(r, id, out);
}

/* Names as they are now. */
static void restore_names(const struct remains *r, const char *path,
			  const char *out)
{
	char child[PATH_MAX], to[PATH_MAX], id[64];
	struct dirent *de;
	bool is_dir;
	DIR *d;

	must(identify(path, id, &is_dir), path);
	if (!is_dir) {
		restore_file(r, id, out);
		return;
	}
	must(mkdir(out, 0700) == 0, out);
	d = opendir(path);
	must(d != NULL, path);
	while ((de = readdir(d))) {
		if (strcmp(de->d_name, ".") == 0 ||
		    strcmp(de->d_name, "..") == 0)
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, de->d_name);
		snprintf(to, sizeof(to), "%s/%s", out, de->d_name);
		restore_names(r, child, to);
	}
	closedir(d);
}

void powerloss_materialise(const char *root, const char *state, const char *out,
			   int flags)
{
	struct remains r = {.state = state, .flags = flags};

	index_tree(&r, root);
	if (flags & POWERLOSS_KEEP_NAMES)
		restore_names(&r, root, out);
	else
		restore_folder(&r, r.now[0].id, out);
	for (size_t i = 0; i < r.n; i++)
		free(r.now[i].path);
	free(r.now);
}

/*
 * config - the command line, a config file, and what depends on both.
 *
 * Four passes: the words of argv are told apart; a config file, if one is
 * named, is applied; the -o lists are applied over it; and what was left open
 * (the origin's companions, the cache, the run's name) is filled in and held
 * against each other. The first fault ends it.
 */
#include "fs/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/config_table.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define USAGE "tickfs [SOURCE] MOUNTPOINT [-f] [-d] [-o name=value,...]"

enum { CONFIG_FILE_MAX = 1 << 20 };

/*
 * What fuse_session_new() of libfuse 3.14 takes beside mount flags. clone_fd
 * and max_idle_threads are not among them: they belong to the loop.
 */
enum fuse_value { FUSE_NONE, FUSE_TEXT, FUSE_NUMBER };
static const struct {
	const char *name;
	enum fuse_value value;
} fuse_options[] = {
	{"fsname", FUSE_TEXT},	     {"subtype", FUSE_TEXT},
	{"allow_other", FUSE_NONE},  {"allow_root", FUSE_NONE},
	{"auto_unmount", FUSE_NONE}, {"default_permissions", FUSE_NONE},
	{"max_read", FUSE_NUMBER},   {"context", FUSE_TEXT},
	{"fscontext", FUSE_TEXT},    {"defcontext", FUSE_TEXT},
	{"rootcontext", FUSE_TEXT},
};
enum { FSNAME, SUBTYPE, ALLOW_OTHER, ALLOW_ROOT };

/* Of mount(8), fstab(5) and mount.fuse3(8); none changes anything here. */
static const char *const mount_words[] = {
	"_netdev",     "async",	  "atime",	"auto",	       "comment",
	"defaults",    "dev",	  "diratime",	"dirsync",     "exec",
	"group",       "helper",  "iversion",	"lazytime",    "loud",
	"mand",	       "noatime", "noauto",	"nodev",       "nodiratime",
	"noexec",      "nofail",  "nogroup",	"noiversion",  "nolazytime",
	"nomand",      "noowner", "norelatime", "nosuid",      "nostrictatime",
	"nosymfollow", "nouser",  "nousers",	"owner",       "relatime",
	"ro",	       "rw",	  "silent",	"strictatime", "suid",
	"symfollow",   "sync",	  "uhelper",	"user",	       "users",
};

/* Of the design, for versions to come. */
static const char *const later_options[] = {
	"serve",
	"segments",
};

struct parse {
	struct config *c;
	char *error;
	size_t error_size;
	const char *file; /* the config file while it is read, or NULL */
	unsigned int line;
	char *fuse_values[COUNT(fuse_options)]; /* NULL: not given */
	char *config_file;			/* that -o config= names */
};

/* One line in p->error, without whatever a terminal would act on. */
__attribute__((format(printf, 3, 4))) static int fail(struct parse *p, int err,
						      const char *fmt, ...)
{
	char text[CONFIG_ERROR_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (p->error_size == 0)
		return err;
	if (p->file && p->line)
		snprintf(p->error, p->error_size, "%.200s:%u: %s", p->file,
			 p->line, text);
	else
		snprintf(p->error, p->error_size, "%s", text);
	for (char *s = p->error; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
	return err;
}

static int out_of_memory(struct parse *p)
{
	return fail(p, -ENOMEM, "out of memory");
}

static bool is_url(const char *s)
{
	return strncasecmp(s, "http://", 7) == 0 ||
	       strncasecmp(s, "https://", 8) == 0;
}

/* ---- one option ---- */

static bool is_mount_word(const char *name)
{
	if (strncasecmp(name, "x-", 2) == 0)
		return true;
	for (size_t i = 0; i < COUNT(mount_words); i++)
		if (strcmp(name, mount_words[i]) == 0)
			return true;
	return false;
}

static bool is_later(const char *name)
{
	if (strncmp(name, "alert_", 6) == 0)
		return true;
	for (size_t i = 0; i < COUNT(later_options); i++)
		if (strcmp(name, later_options[i]) == 0)
			return true;
	return false;
}

struct guess {
	const char *name;
	unsigned int distance;
};

/* Two letters off at most, and no more than half of them. */
static void guess(struct guess *best, const char *name, const char *candidate)
{
	unsigned int d = config_distance(name, candidate);

	if (d < best->distance && d * 2 <= strlen(candidate))
		*best = (struct guess){candidate, d};
}

static const char *nearest_name(const char *name)
{
	struct guess best = {.distance = 3};
	const char *candidate, *fallback;

	for (size_t i = 0; (candidate = config_option_name(i, &fallback)); i++)
		guess(&best, name, candidate);
	for (size_t i = 0; i < COUNT(fuse_options); i++)
		guess(&best, name, fuse_options[i].name);
	return best.name;
}

static int unknown_option(struct parse *p, const char *name)
{
	const char *near = nearest_name(name);

	if (near)
		return fail(p, -EINVAL,
			    "unknown option \"%.80s\"; did you mean \"%s\"?",
			    name, near);
	return fail(p, -EINVAL,
		    "unknown option \"%.80s\"; tickfs --help lists them", name);
}

static int set_fuse_option(struct parse *p, size_t i, const char *value)
{
	const char *name = fuse_options[i].name;
	enum fuse_value kind = fuse_options[i].value;
	char *copy;

	if (kind == FUSE_NONE && value && strcmp(value, "no") == 0) {
		free(p->fuse_values[i]);
		p->fuse_values[i] = NULL;
		return 0;
	}
	if (kind == FUSE_NONE && value && strcmp(value, "yes") != 0)
		return fail(p, -EINVAL,
			    "%s=%.80s: give yes or no, or the name "
			    "alone",
			    name, value);
	if (kind != FUSE_NONE && (!value || !*value))
		return fail(p, -EINVAL, "%s: needs a value", name);
	if (kind == FUSE_NUMBER) {
		uint64_t bytes;

		if (!config_parse_size(value, &bytes) || bytes < 4096 ||
		    bytes > 1 << 20 || value[strspn(value, "0123456789")])
			return fail(p, -EINVAL,
				    "%s=%.80s: give bytes from 4096 to "
				    "1048576, e.g. %s=131072",
				    name, value, name);
		p->c->max_read = (unsigned int)bytes; /* it alone has one */
	}
	copy = strdup(kind == FUSE_NONE ? "" : value);
	if (!copy)
		return out_of_memory(p);
	free(p->fuse_values[i]);
	p->fuse_values[i] = copy;
	return 0;
}

static bool has_control_bytes(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return true;
	return false;
}

/* @value: NULL where the option stands without "=". */
static int apply(struct parse *p, const char *name, const char *value)
{
	const struct config_option *o = config_option_find(name);
	char error[CONFIG_ERROR_MAX];
	int err;

	if (!*name)
		return fail(p, -EINVAL, "an option without a name: \"=%.80s\"",
			    value ? value : "");
	if (value && has_control_bytes(value))
		return fail(p, -EINVAL, "%.80s: has control characters", name);
	if (o) {
		err = config_option_set(o, p->c, value, error, sizeof(error));
		return err ? fail(p, err, "%s", error) : 0;
	}
	for (size_t i = 0; i < COUNT(fuse_options); i++)
		if (strcmp(name, fuse_options[i].name) == 0)
			return set_fuse_option(p, i, value);
	if (is_mount_word(name))
		return 0;
	/* What there is; "early" is for a version to come. */
	if (strcmp(name, "serve") == 0 && value &&
	    strcmp(value, "verified") == 0)
		return 0;
	if (is_later(name))
		return fail(p, -EINVAL,
			    "%.80s: not in this version (" TICKFS_VERSION
			    ") yet",
			    name);
	return unknown_option(p, name);
}

/* ---- -o lists ---- */

typedef int option_fn(struct parse *p, const char *name, const char *value);

static bool is_octal(const char *s)
{
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' &&
	       s[2] >= '0' && s[2] <= '7';
}

/* One character of a list, its backslash taken away; returns where the next
 * one begins. */
static const char *unescape(const char *s, char *to)
{
	if (s[0] == '\\' && s[1]) {
		s++;
		if (is_octal(s)) {
			*to = (char)((s[0] - '0') << 6 | (s[1] - '0') << 3 |
				     (s[2] - '0'));
			return s + 3;
		}
	}
	*to = *s;
	return s + 1;
}

/* The option at *@list without its backslashes, into @to, as long as the rest
 * of the list or longer; *@list moves behind its comma. */
static bool next_option(const char **list, char *to)
{
	const char *s = *list;

	while (*s && *s != ',') {
		s = unescape(s, to);
		if (!*to++) /* "\000" */
			return false;
	}
	*to = '\0';
	*list = *s ? s + 1 : s;
	return true;
}

static int each_option(struct parse *p, const char *list, option_fn *fn)
{
	char *option = malloc(strlen(list) + 1);
	int err = 0;

	if (!option)
		return out_of_memory(p);
	while (*list && !err) {
		char *equals;

		if (!next_option(&list, option)) {
			err = fail(p, -EINVAL, "-o: a NUL in an option");
			break;
		}
		equals = strchr(option, '=');
		if (equals)
			*equals = '\0';
		if (*option || equals)
			err = fn(p, option, equals ? equals + 1 : NULL);
	}
	free(option);
	return err;
}

/* ---- the config file ---- */

struct config_file {
	FILE *from;
	struct parse *p;
	char *line; /* getline()'s */
	size_t room;
	int err; /* of the first line that was wrong */
};

static int file_fail(struct config_file *f, const char *why)
{
	f->err = fail(f->p, -EINVAL, "%s", why);
	return f->err;
}

/* Bytes before the text of a line: the mark some editors begin a file with,
 * and the indent. */
static size_t line_begins_at(const struct config_file *f)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t n = 0;

	if (f->p->line == 1 && strncmp(f->line, mark, strlen(mark)) == 0)
		n = strlen(mark);
	return n + strspn(f->line + n, " \t");
}

/*
 * Hands inih one line. It would take an indented line for more of the value
 * above, and the rest of an overlong line for a line of its own: so the
 * indent is taken away, and an overlong line is an error. Of a section it
 * tells only with the first option in it, so that is found here, too.
 */
static char *read_line(char *to, int size, void *arg)
{
	struct config_file *f = arg;
	ssize_t len = f->err ? -1 : getline(&f->line, &f->room, f->from);
	size_t begin;

	if (len < 0)
		return NULL;
	f->p->line++;
	begin = line_begins_at(f);
	if (len >= size)
		file_fail(f, "line too long");
	else if (strlen(f->line) != (size_t)len)
		file_fail(f, "has a NUL");
	else if (f->line[begin] == '[')
		file_fail(f, "there are no [sections] here, only lines "
			     "\"name = value\"");
	if (f->err)
		return NULL;
	memcpy(to, f->line + begin, (size_t)len - begin + 1);
	return to;
}

static int file_option(void *arg, const char *section, const char *name,
		       const char *value)
{
	struct config_file *f = arg;

	(void)section; /* read_line() lets none through */
	if (strcmp(name, "config") == 0)
		file_fail(f, "a config file can't name another");
	else
		f->err = apply(f->p, name, value);
	return f->err == 0;
}

static int read_config_lines(struct parse *p, FILE *from)
{
	struct config_file f = {.from = from, .p = p};
	int first = ini_parse_stream(read_line, &f, file_option, &f);

	free(f.line);
	if (ferror(from))
		return fail(p, -EIO, "can't be read");
	if (first < 0)
		return out_of_memory(p);
	/* inih goes on behind a line it can't read, and tells at the end. */
	if (first && (!f.err || (unsigned int)first < p->line)) {
		p->line = (unsigned int)first;
		return fail(p, -EINVAL, "is no line \"name = value\"");
	}
	return f.err;
}

static int read_config_file(struct parse *p, const char *path)
{
	/* O_NONBLOCK: a FIFO must not stop us before fstat() tells. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	FILE *from;
	int err;

	if (fd < 0) {
		err = -errno;
		return fail(p, err, "config=%.200s: %s", path, strerror(-err));
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return fail(p, -EINVAL, "config=%.200s: is no regular file",
			    path);
	}
	if (st.st_size > CONFIG_FILE_MAX) {
		close(fd);
		return fail(p, -EFBIG, "config=%.200s: over 1 MiB", path);
	}
	from = fdopen(fd, "r");
	if (!from) {
		close(fd);
		return out_of_memory(p);
	}
	p->file = path;
	p->line = 0;
	err = read_config_lines(p, from);
	p->file = NULL;
	fclose(from);
	return err;
}

/* ---- the command line ---- */

struct command_line {
	const char *positional[2];
	size_t positionals;
	const char **lists; /* of -o, in order; as many as argv at most */
	size_t list_count;
};

static int long_option(struct parse *p, const char *name)
{
	size_t len = strcspn(name, "=");
	char plain[40];

	if (strcmp(name, "help") == 0) {
		p->c->help = true;
		return 0;
	}
	if (strcmp(name, "version") == 0) {
		p->c->version = true;
		return 0;
	}
	snprintf(plain, sizeof(plain), "%.*s", len < 39 ? (int)len : 39, name);
	if (config_option_find(plain))
		return fail(p, -EINVAL,
			    "unknown option \"--%s\"; write -o %s, see --help",
			    plain, plain);
	return fail(p, -EINVAL,
		    "unknown option \"--%s\"; tickfs --help lists them", plain);
}

/* The letters of one word; *@next is the word behind it, taken by -o. */
static int short_options(struct parse *p, struct command_line *cl,
			 const char *letters, char ***next)
{
	for (; *letters; letters++) {
		switch (*letters) {
		case 'f':
			p->c->foreground = true;
			break;
		case 'd':
			p->c->debug = p->c->foreground = true;
			break;
		case 'h':
			p->c->help = true;
			break;
		case 'V':
			p->c->version = true;
			break;
		case 'o':
			if (!letters[1] && !**next)
				return fail(p, -EINVAL,
					    "-o needs a list behind it, e.g. "
					    "-o quota=50G,offline");
			cl->lists[cl->list_count++] =
				letters[1] ? letters + 1 : *(*next)++;
			return 0;
		default:
			return fail(p, -EINVAL,
				    "unknown option \"-%c\"; usage: " USAGE,
				    *letters);
		}
	}
	return 0;
}

static int positional(struct parse *p, struct command_line *cl,
		      const char *word)
{
	if (cl->positionals == COUNT(cl->positional))
		return fail(p, -EINVAL,
			    "one word too many: \"%.80s\"; usage: " USAGE,
			    word);
	cl->positional[cl->positionals++] = word;
	return 0;
}

static int scan_words(struct parse *p, struct command_line *cl, char **words)
{
	bool only_positionals = false;
	int err = 0;

	while (*words && !err) {
		const char *word = *words++;

		if (only_positionals || word[0] != '-' || !word[1])
			err = positional(p, cl, word);
		else if (strcmp(word, "--") == 0)
			only_positionals = true;
		else if (word[1] == '-')
			err = long_option(p, word + 2);
		else
			err = short_options(p, cl, word + 1, &words);
		if (p->c->help || p->c->version)
			return 0;
	}
	return err;
}

static int take_positionals(struct parse *p, const struct command_line *cl)
{
	const char *mountpoint = NULL, *source = NULL;

	if (cl->positionals == 2) {
		source = cl->positional[0];
		mountpoint = cl->positional[1];
	} else if (cl->positionals == 1 && !is_url(cl->positional[0])) {
		mountpoint = cl->positional[0];
	}
	if (!mountpoint || !*mountpoint)
		return fail(p, -EINVAL, "no mount point given; usage: " USAGE);
	if (!source || !*source)
		source = "tickfs";
	if (has_control_bytes(source))
		return fail(p, -EINVAL, "SOURCE has control characters");
	p->c->mountpoint = strdup(mountpoint);
	p->c->source = strdup(source);
	return p->c->mountpoint && p->c->source ? 0 : out_of_memory(p);
}

/* ---- what depends on more than one option ---- */

static int set(struct parse *p, const char *name, const char *value)
{
	char error[CONFIG_ERROR_MAX];
	int err = config_option_set(config_option_find(name), p->c, value,
				    error, sizeof(error));

	return err ? fail(p, err, "%s", error) : 0;
}

/*
 * Objects of one archive and listings of another would be worse than no
 * default, and so would be a mirror that has never heard of the origin.
 */
static int settle_origin(struct parse *p)
{
	struct config *c = p->c;
	bool is_public;
	int err = 0;

	if (!c->origin)
		err = set(p, "origin", CONFIG_PUBLIC_ORIGIN);
	if (err)
		return err;
	is_public = strcmp(c->origin, CONFIG_PUBLIC_ORIGIN) == 0;
	if (!c->listing && !is_public)
		return fail(p, -EINVAL,
			    "origin=%.80s needs listing= too: listings come "
			    "from an S3 bucket, not from the origin, and the "
			    "default is the public archive's; e.g. -o "
			    "origin=http://127.0.0.1:PORT,listing="
			    "http://127.0.0.1:PORT/data.binance.vision",
			    c->origin);
	if (!c->listing)
		err = set(p, "listing", CONFIG_PUBLIC_BUCKET);
	if (!err && !c->mirror)
		err = set(p, "mirror",
			  is_public ? CONFIG_PUBLIC_BUCKET : "none");
	if (!err && !*c->mirror) { /* "none" */
		free(c->mirror);
		c->mirror = NULL;
	}
	return err;
}

static int settle_cache(struct parse *p)
{
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char *path = NULL;
	int n, err;

	if (p->c->cache)
		return 0;
	/* A relative one is to be ignored, says the XDG specification. */
	if (xdg && xdg[0] == '/')
		n = asprintf(&path, "%s/tickfs", xdg);
	else if (home && home[0] == '/' && home[1])
		n = asprintf(&path, "%s/.cache/tickfs", home);
	else if (geteuid() == 0)
		n = asprintf(&path, "/var/cache/tickfs");
	else
		return fail(p, -EINVAL,
			    "neither XDG_CACHE_HOME nor HOME is set: say where "
			    "the cache is, e.g. -o cache=/var/tmp/tickfs");
	if (n < 0)
		return out_of_memory(p);
	err = set(p, "cache", path);
	free(path);
	return err;
}

/* "20251030-161714-3fa9", UTC; the last part tells mounts of one second apart.
 */
static int settle_run_id(struct parse *p)
{
	time_t now = time(NULL);
	unsigned char salt[2] = {0};
	char text[64];
	struct tm utc;
	size_t len;

	if (p->c->run_id)
		return 0;
	if (getrandom(salt, sizeof(salt), GRND_NONBLOCK) !=
	    (ssize_t)sizeof(salt)) /* early at boot */
		memcpy(salt, &(uint16_t){(uint16_t)getpid()}, sizeof(salt));
	gmtime_r(&now, &utc);
	len = strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &utc);
	snprintf(text + len, sizeof(text) - len, "-%02x%02x", salt[0], salt[1]);
	return set(p, "run_id", text);
}

/* As fuse_opt_add_opt_escaped(3) does. */
static void add_escaped(FILE *to, const char *value)
{
	for (; *value; value++) {
		if (*value == ',' || *value == '\\')
			fputc('\\', to);
		fputc(*value, to);
	}
}

static int settle_fuse_options(struct parse *p)
{
	const char *const defaults[COUNT(fuse_options)] = {
		[FSNAME] = p->c->source,
		[SUBTYPE] = "tickfs",
	};
	size_t size;
	FILE *to;

	if (p->fuse_values[ALLOW_OTHER] && p->fuse_values[ALLOW_ROOT])
		return fail(p, -EINVAL,
			    "allow_other and allow_root exclude each other");
	to = open_memstream(&p->c->fuse_options, &size);
	if (!to)
		return out_of_memory(p);
	fputs("ro", to);
	for (size_t i = 0; i < COUNT(fuse_options); i++) {
		const char *value =
			p->fuse_values[i] ? p->fuse_values[i] : defaults[i];

		if (!value)
			continue;
		fprintf(to, ",%s", fuse_options[i].name);
		if (fuse_options[i].value == FUSE_NONE)
			continue;
		fputc('=', to);
		add_escaped(to, value);
	}
	return fclose(to) == 0 ? 0 : out_of_memory(p);
}

/*
 * A cache that the mount covers would be looked for in the mount itself, by a
 * program that then waits for its own answer.
 */
static int check_cache_is_outside(struct parse *p)
{
	char *mountpoint = realpath(p->c->mountpoint, NULL);
	size_t len = mountpoint ? strlen(mountpoint) : 0;
	const char *cache = p->c->cache;
	bool covered = len && strncmp(cache, mountpoint, len) == 0 &&
		       (cache[len] == '/' || cache[len] == '\0' ||
			mountpoint[len - 1] == '/');

	free(mountpoint);
	if (covered)
		return fail(p, -EINVAL,
			    "cache=%.200s lies in the mount point; give a "
			    "folder outside of it",
			    cache);
	return 0;
}

static int settle(struct parse *p)
{
	struct config *c = p->c;
	int err = settle_origin(p);

	if (!err)
		err = settle_cache(p);
	if (!err)
		err = check_cache_is_outside(p);
	if (!err)
		err = settle_run_id(p);
	if (!err)
		err = settle_fuse_options(p);
	if (!err && c->retry_max_ms < c->retry_base_ms)
		err = fail(p, -EINVAL,
			   "retry_max is shorter than retry_base: %llums and "
			   "%llums",
			   (unsigned long long)c->retry_max_ms,
			   (unsigned long long)c->retry_base_ms);
	return err;
}

/* ---- the face ---- */

/* The config file that the lists name; the last one counts. */
static int find_config_file(struct parse *p, const char *name,
			    const char *value)
{
	int err;

	if (strcmp(name, "config") != 0)
		return 0;
	err = apply(p, name, value);
	if (err)
		return err;
	free(p->config_file);
	p->config_file = strdup(value);
	return p->config_file ? 0 : out_of_memory(p);
}

static int each_list(struct parse *p, const struct command_line *cl,
		     option_fn *fn)
{
	int err = 0;

	for (size_t i = 0; i < cl->list_count && !err; i++)
		err = each_option(p, cl->lists[i], fn);
	return err;
}

/* SOURCE counts more than the config file's origin, and must not contradict
 * that of the command line. */
static int apply_source(struct parse *p)
{
	if (!is_url(p->c->source))
		return 0;
	free(p->c->origin);
	p->c->origin = NULL;
	return set(p, "origin", p->c->source);
}

static int check_source(struct parse *p, const char *source_origin)
{
	if (source_origin && strcmp(source_origin, p->c->origin) != 0)
		return fail(p, -EINVAL,
			    "SOURCE is %.80s and origin= is %.80s; give one of "
			    "them",
			    source_origin, p->c->origin);
	return 0;
}

static int apply_all(struct parse *p, const struct command_line *cl)
{
	char *source_origin = NULL;
	int err = take_positionals(p, cl);

	if (!err && config_option_defaults(p->c))
		err = out_of_memory(p);
	if (!err)
		err = each_list(p, cl, find_config_file);
	if (!err && p->config_file)
		err = read_config_file(p, p->config_file);
	if (!err)
		err = apply_source(p);
	if (!err && is_url(p->c->source)) {
		source_origin = strdup(p->c->origin);
		if (!source_origin)
			err = out_of_memory(p);
	}
	if (!err)
		err = each_list(p, cl, apply);
	if (!err)
		err = check_source(p, source_origin);
	if (!err)
		err = settle(p);
	free(source_origin);
	return err;
}

int config_parse(struct config **out, int argc, char **argv, char *error,
		 size_t error_size)
{
	struct parse p = {.error = error, .error_size = error_size};
	struct command_line cl = {0};
	int err = -ENOMEM;

	p.c = calloc(1, sizeof(*p.c));
	cl.lists = calloc((size_t)argc + 1, sizeof(*cl.lists));
	if (!p.c || !cl.lists) {
		out_of_memory(&p);
		goto out;
	}
	err = scan_words(&p, &cl, argv + (argc > 0));
	if (!err && !p.c->help && !p.c->version)
		err = apply_all(&p, &cl);
	if (err)
		goto out;
	*out = p.c;
	p.c = NULL;
out:
	for (size_t i = 0; i < COUNT(p.fuse_values); i++)
		free(p.fuse_values[i]);
	free(p.config_file);
	free(cl.lists);
	config_free(p.c);
	return err;
}

void config_free(struct config *c)
{
	if (!c)
		return;
	free(c->source);
	free(c->mountpoint);
	free(c->origin);
	free(c->listing);
	free(c->mirror);
	free(c->cache);
	free(c->proxy);
	free(c->no_proxy);
	free(c->cacert);
	free(c->run_id);
	free(c->log);
	free(c->fuse_options);
	free(c);
}

void config_help(void *stream)
{
	FILE *to = stream;

	fputs("usage: " USAGE "\n"
	      "       tickfs -h | -V\n"
	      "\n"
	      "Mounts Binance Vision, the public archive of market data, as a "
	      "read-only\n"
	      "filesystem of CSV files. SOURCE may be the archive's URL "
	      "(origin=); any other\n"
	      "word is only shown by mount(8).\n"
	      "\n"
	      "  -f                      stay in the foreground\n"
	      "  -d                      trace FUSE requests; implies -f\n"
	      "  -o name=value,...       options, see below; \"\\,\" is a "
	      "comma in a value\n"
	      "  -h, --help              this text\n"
	      "  -V, --version           the version\n",
	      to);
	config_option_help(to);
	fputs("\n"
	      "Sizes take K M G T (powers of 1024), times ms s m h d, rates /s "
	      "/m /h.\n"
	      "FUSE's own allow_other, allow_root, auto_unmount, "
	      "default_permissions, fsname=,\n"
	      "subtype=, max_read= and SELinux contexts are passed on; "
	      "mount(8)'s generic\n"
	      "options are accepted. tickfs(1) says more.\n",
	      to);
}

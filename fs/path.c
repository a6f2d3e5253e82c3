/*
 * path - the grammar. A path is taken apart one component at a time; the first
 * one says which of three small grammars the rest follows:
 *
 *	.tickfs[/NAME]
 *	data[/ANY…][/X.csv | /X.zip.d[/INNER…]]
 *	MARKET[/DATASET[/SYMBOL[/INTERVAL]/DATE.csv]]
 *
 * Keys are made by appending pieces to a buffer that knows when it is full, so
 * a key that does not fit is an error and never a shorter key.
 */
#include "fs/path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/utf8.h"

/* ---- pieces of text ---- */

struct slice {
	const char *s;
	size_t len;
};

static bool slice_is(struct slice a, const char *text)
{
	return a.len == strlen(text) && memcmp(a.s, text, a.len) == 0;
}

static bool slice_ends(struct slice a, const char *suffix)
{
	size_t n = strlen(suffix);

	return a.len >= n && memcmp(a.s + a.len - n, suffix, n) == 0;
}

/* Takes the component at the head of @rest, and its slash. */
static struct slice slice_next(struct slice *rest)
{
	const char *slash = memchr(rest->s, '/', rest->len);
	struct slice head = {rest->s,
			     slash ? (size_t)(slash - rest->s) : rest->len};
	size_t taken = head.len + (slash ? 1 : 0);

	rest->s += taken;
	rest->len -= taken;
	return head;
}

struct buffer {
	char *to;
	size_t len, room; /* room counts the NUL */
	bool overflow;
};

static void buffer_add(struct buffer *b, const char *s, size_t len)
{
	if (b->overflow || len >= b->room - b->len) {
		b->overflow = true;
		return;
	}
	memcpy(b->to + b->len, s, len);
	b->len += len;
	b->to[b->len] = '\0';
}

static void buffer_puts(struct buffer *b, const char *s)
{
	buffer_add(b, s, strlen(s));
}

static int buffer_end(const struct buffer *b)
{
	return b->overflow ? -ENAMETOOLONG : 0;
}

/* ---- from paths to keys ---- */

/*
 * Names of members inside an archive (@is_inner) are whatever bytes the zip
 * holds. All other names are those of S3 keys, which are UTF-8.
 */
static int check_component(struct slice c, bool is_inner)
{
	if (c.len == 0 || slice_is(c, ".") || slice_is(c, ".."))
		return -ENOENT;
	if (c.len > PATH_NAME_MAX)
		return -ENAMETOOLONG;
	return is_inner || utf8_is_name(c.s, c.len) ? 0 : -ENOENT;
}

static int check_components(struct slice rest, bool is_inner)
{
	int err;

	/* A slash at the end leaves a component that is empty. */
	if (rest.len && rest.s[rest.len - 1] == '/')
		return -ENOENT;
	while (rest.len) {
		err = check_component(slice_next(&rest), is_inner);
		if (err)
			return err;
	}
	return 0;
}

static int set_key(struct path *out, const char *s, size_t len,
		   const char *suffix)
{
	struct buffer key = {.to = out->key, .room = sizeof(out->key)};

	buffer_add(&key, s, len);
	buffer_puts(&key, suffix);
	return buffer_end(&key);
}

/* @path up to the end of @outer is the archive's folder of members. */
static int parse_members(struct slice path, struct slice inner,
			 struct path *out)
{
	struct slice outer = {path.s, path.len - inner.len};
	int err;

	if (inner.len)
		outer.len--; /* the slash between them */
	err = check_components(outer, false);
	if (!err)
		err = check_components(inner, true);
	if (err)
		return err;
	out->kind = PATH_MEMBERS;
	out->inner = inner.s;
	return set_key(out, path.s, outer.len - strlen(".d"), "");
}

static int parse_raw(struct slice path, struct path *out)
{
	struct slice rest = path, last = {0};
	int err;

	while (rest.len) {
		last = slice_next(&rest);
		if (slice_ends(last, ".zip.d"))
			return parse_members(path, rest, out);
	}
	err = check_components(path, false);
	if (err)
		return err;
	if (slice_ends(last, ".csv")) {
		out->kind = PATH_RAW_CSV;
		return set_key(out, path.s, path.len - strlen(".csv"), ".zip");
	}
	out->kind = PATH_RAW;
	out->raw_looks_like_file = memchr(last.s, '.', last.len) != NULL;
	return set_key(out, path.s, path.len, "");
}

static int parse_control(struct slice path, struct slice rest, struct path *out)
{
	int err = check_components(path, false);

	if (err)
		return err;
	if (memchr(rest.s, '/', rest.len))
		return -ENOENT;
	out->kind = rest.len ? PATH_CONTROL_FILE : PATH_CONTROL;
	out->inner = rest.s;
	return 0;
}

static void copy_name(char *to, struct slice from)
{
	memcpy(to, from.s, from.len);
	to[from.len] = '\0';
}

static int parse_date_file(struct slice name, struct path *out)
{
	struct date d;

	if (!slice_ends(name, ".csv") ||
	    !date_parse(name.s, name.len - strlen(".csv"), false, &d))
		return -ENOENT;
	if (date_is_month(d) ? !out->dataset->monthly : !out->dataset->daily)
		return -ENOENT;
	out->kind = PATH_DATE;
	out->date = d;
	return 0;
}

static int parse_by_date(struct slice path, struct slice rest, struct path *out)
{
	struct slice name;
	int err = check_components(path, false);

	if (err)
		return err;
	out->kind = PATH_MARKET;
	if (!rest.len)
		return 0;

	name = slice_next(&rest);
	out->dataset = dataset_find(out->market, name.s, name.len);
	if (!out->dataset)
		return -ENOENT;
	out->kind = PATH_DATASET;
	if (!rest.len)
		return 0;

	copy_name(out->symbol, slice_next(&rest));
	out->kind = PATH_SYMBOL;
	if (!rest.len)
		return 0;

	name = slice_next(&rest);
	if (out->dataset->intervals) {
		if (!dataset_interval_ok(name.s, name.len))
			return -ENOENT;
		copy_name(out->interval, name);
		out->kind = PATH_INTERVAL;
		if (!rest.len)
			return 0;
		name = slice_next(&rest);
	}
	return rest.len ? -ENOENT : parse_date_file(name, out);
}

static int parse(struct slice path, struct path *out)
{
	struct slice rest = path, head;

	if (path.len == 0) {
		out->kind = PATH_ROOT;
		return 0;
	}
	head = slice_next(&rest);
	if (slice_is(head, ".tickfs"))
		return parse_control(path, rest, out);
	if (slice_is(head, "data"))
		return parse_raw(path, out);
	out->market = dataset_market(head.s, head.len);
	if (out->market)
		return parse_by_date(path, rest, out);
	/* So that a name which is too long says so wherever it stands. */
	return check_components(path, false) == -ENAMETOOLONG ? -ENAMETOOLONG
							      : -ENOENT;
}

int path_parse(const char *path, struct path *out)
{
	struct slice all = {path, strnlen(path, PATH_MAX_BYTES + 1)};
	struct path parsed = {.inner = ""};
	int err;

	if (all.len > PATH_MAX_BYTES)
		return -ENAMETOOLONG;
	err = parse(all, &parsed);
	if (!err)
		*out = parsed;
	return err;
}

/* ---- from what a path means to names at the origin ---- */

static bool has_cadence(const struct path *p, enum path_cadence c)
{
	const struct dataset *d;
	size_t n;

	if (p->dataset)
		return c == PATH_DAILY ? p->dataset->daily
				       : p->dataset->monthly;
	d = dataset_all(&n);
	for (size_t i = 0; i < n; i++)
		if (strcmp(d[i].market, p->market->name) == 0 &&
		    (c == PATH_DAILY ? d[i].daily : d[i].monthly))
			return true;
	return false;
}

static int add_prefix(struct buffer *to, const struct path *p,
		      enum path_cadence c)
{
	const char *const levels[] = {
		p->dataset ? p->dataset->name : "",
		p->symbol,
		p->interval,
	};

	if (!p->market || !has_cadence(p, c))
		return -ENOENT;
	buffer_puts(to, p->market->prefix);
	buffer_puts(to, c == PATH_DAILY ? "daily/" : "monthly/");
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		if (!levels[i][0])
			continue;
		buffer_puts(to, levels[i]);
		buffer_puts(to, "/");
	}
	return 0;
}

int path_prefix(const struct path *p, enum path_cadence c,
		char out[PATH_KEY_MAX + 1])
{
	struct buffer to = {.to = out, .room = PATH_KEY_MAX + 1};
	int err = add_prefix(&to, p, c);

	return err ? err : buffer_end(&to);
}

/* What stands before the date in an archive's name: "BTCUSDT-1m-". */
static void add_stem(struct buffer *to, const struct path *p)
{
	buffer_puts(to, p->symbol);
	buffer_puts(to, "-");
	buffer_puts(to, p->dataset->intervals ? p->interval : p->dataset->name);
	buffer_puts(to, "-");
}

int path_key(const struct path *p, bool unpadded, char out[PATH_KEY_MAX])
{
	struct buffer to = {.to = out, .room = PATH_KEY_MAX};
	bool is_month = date_is_month(p->date);
	char date[DATE_TEXT_MAX];
	int err;

	if (p->kind != PATH_DATE)
		return -ENOENT;
	if (unpadded && (!is_month || p->date.month >= 10))
		return -ENOENT;
	err = add_prefix(&to, p, is_month ? PATH_MONTHLY : PATH_DAILY);
	if (err)
		return err;
	add_stem(&to, p);
	date_format(p->date, date);
	if (unpadded) /* "2020-08" to "2020-8" */
		memmove(date + 5, date + 6, 2);
	buffer_puts(&to, date);
	buffer_puts(&to, ".zip");
	return buffer_end(&to);
}

bool path_date_of_zip(const struct path *p, enum path_cadence c,
		      const char *name, struct date *date, bool *unpadded)
{
	char stem[2 * PATH_NAME_MAX + 3];
	struct buffer to = {.to = stem, .room = sizeof(stem)};
	struct slice text = {name, strlen(name)};
	struct date d;

	if (!p->dataset || !p->symbol[0] ||
	    (p->dataset->intervals && !p->interval[0]))
		return false;
	add_stem(&to, p);
	if (buffer_end(&to) || strncmp(name, stem, to.len) != 0 ||
	    !slice_ends(text, ".zip"))
		return false;
	if (text.len < to.len + strlen(".zip"))
		return false;
	text.s += to.len;
	text.len -= to.len + strlen(".zip");
	if (!date_parse(text.s, text.len, true, &d) ||
	    date_is_month(d) != (c == PATH_MONTHLY))
		return false;
	*date = d;
	*unpadded = text.len == strlen("2020-8");
	return true;
}

void path_describe(const char *key, char symbol[PATH_NAME_MAX + 1],
		   char date[DATE_TEXT_MAX])
{
	/* Of "2024-01-01", "2024-01" and "2024-1". */
	static const size_t lengths[] = {10, 7, 6};
	const char *slash = strrchr(key, '/');
	const char *name = slash ? slash + 1 : key;
	size_t len = strlen(name);
	struct date d;

	symbol[0] = date[0] = '\0';
	for (const char *at = key; at < name; at += strcspn(at, "/") + 1) {
		size_t n = strcspn(at, "/");

		if (n && n <= PATH_NAME_MAX && strncmp(at, name, n) == 0 &&
		    name[n] == '-') {
			memcpy(symbol, at, n);
			symbol[n] = '\0';
		}
	}
	if (len < 4 || strcmp(name + len - 4, ".zip") != 0)
		return;
	len -= 4;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		size_t n = lengths[i];

		if (len > n && name[len - n - 1] == '-' &&
		    date_parse(name + len - n, n, true, &d)) {
			date_format(d, date);
			return;
		}
	}
}

unsigned int path_prefixes(const char *path, char out[2][PATH_KEY_MAX + 1])
{
	struct path p;
	unsigned int n = 0;

	if (path_parse(path, &p))
		return 0;
	switch (p.kind) {
	case PATH_RAW:
		snprintf(out[0], sizeof(out[0]), "%.1023s/", p.key);
		return 1;
	case PATH_MARKET:
	case PATH_DATASET:
	case PATH_SYMBOL:
	case PATH_INTERVAL:
		for (int c = PATH_DAILY; c <= PATH_MONTHLY; c++)
			if (path_prefix(&p, (enum path_cadence)c, out[n]) == 0)
				n++;
		return n;
	default:
		return 0;
	}
}

#include "fs/folder.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/path.h"
#include "fs/when.h"
#include "fs/workers.h"

enum {
	/* Folders read lately whose sizes are looked up together. */
	READ_LATELY = 64,
	READ_LATELY_MS = 600000,
	/* So many look-ups after it was read are no chance. */
	WARM_AFTER = 8,
	WARM_MS = 60000,
};

enum warmth { COLD, WARMING, WARM };

struct read_lately {
	char *path;
	uint64_t at_ms;
	bool sized; /* the look-up was started */
	unsigned int looked_up;
	enum warmth warmth;
	uint64_t warm_ms; /* since when */
};

struct folders {
	struct folders_config cfg;
	pthread_mutex_t lock;
	struct read_lately lately[READ_LATELY]; /* protected by lock */
	unsigned int next;			/* protected by lock */
	struct folder *read; /* all there are; protected by lock */
};

/* ---- growing things ---- */

struct text {
	char *buf;
	size_t len, room;
	bool failed;
};

static void text_add(struct text *t, const char *s)
{
	size_t n = strlen(s), room;
	char *grown;

	if (t->failed)
		return;
	if (t->len + n + 1 > t->room) {
		room = (t->len + n + 1) * 2;
		grown = realloc(t->buf, room);
		if (!grown) {
			t->failed = true;
			return;
		}
		t->buf = grown;
		t->room = room;
	}
	memcpy(t->buf + t->len, s, n + 1);
	t->len += n;
}

/* Names come one by one, in any order, perhaps twice. */
struct names {
	struct folder_entry *entries;
	size_t n, room;
	bool failed;
};

static void names_add(struct names *l, const char *name, size_t len,
		      const char *end, bool is_dir)
{
	struct folder_entry *grown;
	char *copy;

	if (l->failed)
		return;
	if (l->n == l->room) {
		l->room = l->room ? l->room * 2 : 64;
		grown = realloc(l->entries, l->room * sizeof(*grown));
		if (!grown) {
			l->failed = true;
			return;
		}
		l->entries = grown;
	}
	copy = malloc(len + strlen(end) + 1);
	if (!copy) {
		l->failed = true;
		return;
	}
	memcpy(copy, name, len);
	strcpy(copy + len, end);
	l->entries[l->n++] =
		(struct folder_entry){.name = copy, .is_dir = is_dir};
}

static void names_free(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free((char *)l->entries[i].name);
	free(l->entries);
}

/* Of two with one name the file comes first and stays, as fs/tree.c has it. */
static int by_name(const void *a, const void *b)
{
	const struct folder_entry *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : x->is_dir - y->is_dir;
}

static void names_sort(struct names *l)
{
	size_t kept = 0;

	if (!l->n)
		return;
	qsort(l->entries, l->n, sizeof(*l->entries), by_name);
	for (size_t i = 1; i < l->n; i++) {
		if (strcmp(l->entries[kept].name, l->entries[i].name) == 0)
			free((char *)l->entries[i].name);
		else
			l->entries[++kept] = l->entries[i];
	}
	l->n = kept + 1;
}

/* ---- dates ---- */

struct dates {
	struct date *d;
	size_t n, room;
	bool failed;
};

static void dates_add(struct dates *l, struct date d)
{
	struct date *grown;

	if (l->failed)
		return;
	if (l->n == l->room) {
		l->room = l->room ? l->room * 2 : 256;
		grown = realloc(l->d, l->room * sizeof(*grown));
		if (!grown) {
			l->failed = true;
			return;
		}
		l->d = grown;
	}
	l->d[l->n++] = d;
}

static int by_date(const void *a, const void *b)
{
	return date_compare(*(const struct date *)a, *(const struct date *)b);
}

static void dates_sort(struct dates *l)
{
	size_t kept = 0;

	if (!l->n)
		return;
	qsort(l->d, l->n, sizeof(*l->d), by_date);
	for (size_t i = 1; i < l->n; i++)
		if (date_compare(l->d[kept], l->d[i]) != 0)
			l->d[++kept] = l->d[i];
	l->n = kept + 1;
}

static bool has_date(const struct dates *l, struct date d)
{
	return l->n && bsearch(&d, l->d, l->n, sizeof(*l->d), by_date) != NULL;
}

/* Is any day of the month @m in the sorted @days? */
static bool has_day_of(const struct dates *days, struct date m)
{
	size_t low = 0, high = days->n, mid;

	while (low < high) { /* the first one not before the month */
		mid = (low + high) / 2;
		if (date_compare(days->d[mid], m) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low < days->n &&
	       date_compare(date_month_of(days->d[low]), m) == 0;
}

/* What is published daily and monthly, and which of it is listed. */
struct calendar {
	struct dates days, months; /* published, sorted */
	struct dates listed;	   /* sorted */
	bool prefer_monthly;
};

static void choose(struct calendar *c)
{
	for (size_t i = 0; i < c->days.n; i++)
		if (!c->prefer_monthly ||
		    !has_date(&c->months, date_month_of(c->days.d[i])))
			dates_add(&c->listed, c->days.d[i]);
	for (size_t i = 0; i < c->months.n; i++)
		if (c->prefer_monthly || !has_day_of(&c->days, c->months.d[i]))
			dates_add(&c->listed, c->months.d[i]);
	dates_sort(&c->listed);
}

static struct date first_day(struct date d)
{
	if (date_is_month(d))
		d.day = 1;
	return d;
}

static struct date last_day(struct date d)
{
	if (date_is_month(d))
		d.day = (uint8_t)date_days_in_month(d);
	return d;
}

/* Runs of days as text: "2024-06-11..2024-06-12,2024-07-01". */
struct ranges {
	struct text text;
	int64_t from, to; /* the run not written yet, if `open` */
	bool open;
};

static void ranges_close(struct ranges *r)
{
	char day[DATE_TEXT_MAX];

	if (!r->open)
		return;
	if (r->text.len)
		text_add(&r->text, ",");
	date_format(date_from_days(r->from), day);
	text_add(&r->text, day);
	if (r->to > r->from) {
		text_add(&r->text, "..");
		date_format(date_from_days(r->to), day);
		text_add(&r->text, day);
	}
	r->open = false;
}

static void ranges_add(struct ranges *r, int64_t day)
{
	if (r->open && day == r->to + 1) {
		r->to = day;
		return;
	}
	ranges_close(r);
	r->from = r->to = day;
	r->open = true;
}

/*
 * Every day between the first and the last one listed is listed itself, or in
 * a listed month, or only in a month that is left out for its days, or missing.
 * Days before the first daily archive of a symbol's first month are not counted
 * as left out: nothing says that it traded then.
 */
static void account(const struct calendar *c, struct ranges *missing,
		    struct ranges *only_monthly)
{
	int64_t day, last;
	struct date d, month;

	if (!c->listed.n)
		return;
	day = date_to_days(first_day(c->listed.d[0]));
	last = date_to_days(last_day(c->listed.d[c->listed.n - 1]));
	for (; day <= last; day++) {
		d = date_from_days(day);
		month = date_month_of(d);
		if (has_date(&c->listed, d) || has_date(&c->listed, month))
			continue;
		if (has_date(&c->months, month))
			ranges_add(only_monthly, day);
		else if (!has_date(&c->days, d))
			ranges_add(missing, day);
	}
	ranges_close(missing);
	ranges_close(only_monthly);
}

/* ---- from the catalog ---- */

struct gather {
	struct folders *f;
	const struct path *p;
	enum path_cadence cadence;
	struct names names;
	struct calendar calendar;
	uint64_t files;
	int64_t fetched_at;
};

static bool ends_in(const char *s, size_t n, const char *end)
{
	size_t m = strlen(end);

	return n > m && memcmp(s + n - m, end, m) == 0;
}

static int add_raw(void *arg, const struct catalog_entry *e)
{
	struct gather *g = arg;
	size_t n = strlen(e->name);

	if (n > PATH_NAME_MAX)
		return 0;
	names_add(&g->names, e->name, n, "", e->is_prefix);
	if (e->is_prefix)
		return 0;
	g->files++;
	if (ends_in(e->name, n, ".zip"))
		names_add(&g->names, e->name, n - 4, ".csv", false);
	return 0;
}

/* The datasets, symbols or intervals that the grammar knows. */
static int add_folder(void *arg, const struct catalog_entry *e)
{
	struct gather *g = arg;
	size_t n = strlen(e->name);
	bool known = e->is_prefix && n <= PATH_NAME_MAX;

	if (g->p->kind == PATH_MARKET)
		known = known && dataset_find(g->p->market, e->name, n);
	else if (g->p->kind == PATH_SYMBOL)
		known = known && dataset_interval_ok(e->name, n);
	if (known)
		names_add(&g->names, e->name, n, "", true);
	return 0;
}

static int add_date(void *arg, const struct catalog_entry *e)
{
	struct gather *g = arg;
	struct date d;
	bool unpadded;

	if (!e->is_prefix &&
	    path_date_of_zip(g->p, g->cadence, e->name, &d, &unpadded))
		dates_add(g->cadence == PATH_DAILY ? &g->calendar.days
						   : &g->calendar.months,
			  d);
	return 0;
}

static bool holds_dates(const struct path *p)
{
	return p->kind == PATH_INTERVAL ||
	       (p->kind == PATH_SYMBOL && !p->dataset->intervals);
}

static int gather_prefix(struct gather *g, const char *prefix,
			 catalog_entry_fn *add)
{
	int64_t at;
	int err;

	err = catalog_listing_time(g->f->cfg.catalog, prefix, &at, NULL);
	if (err)
		return err;
	if (!g->fetched_at || at < g->fetched_at)
		g->fetched_at = at;
	return catalog_listing_each(g->f->cfg.catalog, prefix, add, g);
}

/* The prefixes behind a folder of the tree by date; then both are asked for at
 * once, and waited for one after the other. */
static int gather_cadences(struct gather *g, struct waiter *w)
{
	char prefix[2][PATH_KEY_MAX + 1];
	bool there[2];
	catalog_entry_fn *add = holds_dates(g->p) ? add_date : add_folder;
	int err, result = -ENOENT;

	for (int c = PATH_DAILY; c <= PATH_MONTHLY; c++) {
		there[c] =
			path_prefix(g->p, (enum path_cadence)c, prefix[c]) == 0;
		if (there[c] && w)
			listings_start(g->f->cfg.listings, prefix[c]);
	}
	for (int c = PATH_DAILY; c <= PATH_MONTHLY; c++) {
		if (!there[c])
			continue;
		err = listings_ensure(g->f->cfg.listings, prefix[c], w);
		if (err == -ENOENT)
			continue;
		if (err)
			return err;
		g->cadence = (enum path_cadence)c;
		err = gather_prefix(g, prefix[c], add);
		if (err)
			return err;
		result = 0;
	}
	return result;
}

static int gather_raw(struct gather *g, struct waiter *w)
{
	char prefix[PATH_KEY_MAX + 1];
	int err;

	snprintf(prefix, sizeof(prefix), "%s/", g->p->key);
	err = listings_ensure(g->f->cfg.listings, prefix, w);
	return err ? err : gather_prefix(g, prefix, add_raw);
}

/* ---- members of an archive ---- */

/* True where @name lies in the folder @inner, or is it. */
static bool add_member(struct names *l, const char *name, const char *inner)
{
	size_t n = strlen(inner);
	const char *rest, *slash;

	if (!archive_name_ok(name) || strncmp(name, inner, n) != 0)
		return false;
	rest = name + n;
	if (n) {
		if (*rest != '/')
			return false;
		rest++;
	}
	slash = strchr(rest, '/');
	if (slash)
		names_add(l, rest, (size_t)(slash - rest), "", true);
	else if (*rest)
		names_add(l, rest, strlen(rest), "", false);
	return true;
}

static int gather_members(struct gather *g, struct waiter *w)
{
	struct archive_directory *d;
	bool found = !*g->p->inner;
	int err = supply_members(g->f->cfg.supply, g->p->key, w, &d);

	if (err)
		return err;
	for (size_t i = 0; i < d->n; i++)
		if (add_member(&g->names, d->members[i].name, g->p->inner))
			found = true;
	archive_directory_free(d);
	names_sort(&g->names);
	for (size_t i = 0; i < g->names.n; i++)
		g->files += !g->names.entries[i].is_dir;
	return found ? 0 : -ENOENT;
}

/* ---- the parts put together ---- */

static void add_fixed(struct names *l, const char *const *names, bool is_dir)
{
	for (; *names; names++)
		names_add(l, *names, strlen(*names), "", is_dir);
}

static int gather(struct gather *g, struct waiter *w)
{
	static const char *const top[] = {".tickfs", "data", NULL};
	const struct market *markets;
	size_t n;

	switch (g->p->kind) {
	case PATH_ROOT:
		add_fixed(&g->names, top, true);
		markets = dataset_markets(&n);
		for (size_t i = 0; i < n; i++)
			names_add(&g->names, markets[i].name,
				  strlen(markets[i].name), "", true);
		return 0;
	case PATH_CONTROL:
		add_fixed(&g->names, g->f->cfg.control_files, false);
		return 0;
	case PATH_RAW:
		return gather_raw(g, w);
	case PATH_MEMBERS:
		return gather_members(g, w);
	case PATH_MARKET:
	case PATH_DATASET:
	case PATH_SYMBOL:
	case PATH_INTERVAL:
		return gather_cadences(g, w);
	default:
		return -ENOTDIR;
	}
}

static int finish_dates(struct gather *g, struct folder *d)
{
	struct calendar *c = &g->calendar;
	struct ranges missing = {0}, only_monthly = {0};
	char text[DATE_TEXT_MAX];
	size_t len;

	dates_sort(&c->days);
	dates_sort(&c->months);
	c->prefer_monthly = g->f->cfg.prefer_monthly;
	choose(c);
	account(c, &missing, &only_monthly);
	text_add(&missing.text, "");
	text_add(&only_monthly.text, "");
	d->missing_dates = missing.text.buf;
	d->dates_only_in_monthly = only_monthly.text.buf;
	if (missing.text.failed || only_monthly.text.failed || c->days.failed ||
	    c->months.failed || c->listed.failed)
		return -ENOMEM;
	d->has_dates = true;
	for (size_t i = 0; i < c->listed.n; i++) {
		len = date_format(c->listed.d[i], text);
		names_add(&g->names, text, len, ".csv", false);
	}
	if (c->listed.n) {
		date_format(c->listed.d[0], d->first_date);
		date_format(c->listed.d[c->listed.n - 1], d->last_date);
	}
	g->files = c->listed.n;
	return 0;
}

static void gather_free(struct gather *g)
{
	names_free(&g->names);
	free(g->calendar.days.d);
	free(g->calendar.months.d);
	free(g->calendar.listed.d);
}

static void list_folder(struct folders *f, struct folder *d)
{
	pthread_mutex_lock(&f->lock);
	d->table = f;
	d->link = &f->read;
	d->next = f->read;
	if (d->next)
		d->next->link = &d->next;
	f->read = d;
	pthread_mutex_unlock(&f->lock);
}

static void unlist_folder(struct folder *d)
{
	if (!d->table)
		return;
	pthread_mutex_lock(&d->table->lock);
	*d->link = d->next;
	if (d->next)
		d->next->link = d->link;
	pthread_mutex_unlock(&d->table->lock);
}

int folder_read(struct folders *f, const char *path, struct waiter *w,
		struct folder **out)
{
	struct path p;
	struct gather g = {.f = f, .p = &p};
	struct folder *d = NULL;
	int err;

	err = path_parse(path, &p);
	if (err)
		return err;
	err = gather(&g, w);
	if (err)
		goto out;
	err = -ENOMEM;
	d = calloc(1, sizeof(*d));
	if (!d)
		goto out;
	if (holds_dates(&p) && p.kind >= PATH_SYMBOL) {
		err = finish_dates(&g, d);
		if (err)
			goto out;
	}
	names_sort(&g.names);
	err = g.names.failed ? -ENOMEM : 0;
	if (err)
		goto out;
	d->entries = g.names.entries;
	d->n = g.names.n;
	g.names = (struct names){0};
	d->files = g.files;
	d->fetched_at = g.fetched_at;
	list_folder(f, d);
	*out = d;
	d = NULL;
out:
	folder_free(d);
	gather_free(&g);
	return err;
}

void folder_free(struct folder *d)
{
	if (!d)
		return;
	unlist_folder(d);
	for (size_t i = 0; i < d->n; i++)
		free((char *)d->entries[i].name);
	free(d->entries);
	free(d->missing_dates);
	free(d->dates_only_in_monthly);
	free(d);
}

/* ---- the sizes of a whole folder ---- */

/* Without a trailing slash. */
static size_t path_len(const char *path)
{
	size_t n = strlen(path);

	return n && path[n - 1] == '/' ? n - 1 : n;
}

static struct read_lately *lately_locked(struct folders *f, const char *path)
{
	size_t n = path_len(path);

	for (int i = 0; i < READ_LATELY; i++) {
		struct read_lately *l = &f->lately[i];

		if (l->path && strlen(l->path) == n &&
		    memcmp(l->path, path, n) == 0)
			return l;
	}
	return NULL;
}

void folder_note_read(struct folders *f, const char *path)
{
	struct read_lately *l;

	pthread_mutex_lock(&f->lock);
	l = lately_locked(f, path);
	if (!l) {
		l = &f->lately[f->next++ % READ_LATELY];
		free(l->path);
		*l = (struct read_lately){
			.path = strndup(path, path_len(path)),
		};
	}
	l->at_ms = when_ms();
	l->sized = false;
	l->looked_up = 0;
	if (l->warmth == WARM && l->at_ms - l->warm_ms > WARM_MS)
		l->warmth = COLD;
	pthread_mutex_unlock(&f->lock);
}

struct keys {
	char prefix[PATH_KEY_MAX + 1];
	const struct path *p;
	enum path_cadence cadence;
	const struct calendar *calendar;
	char **keys;
	size_t n, room;
};

static int add_key(void *arg, const struct catalog_entry *e)
{
	struct keys *k = arg;
	char **grown;
	struct date d;
	bool unpadded;

	if (e->is_prefix || !ends_in(e->name, strlen(e->name), ".zip"))
		return 0;
	if (k->p->kind != PATH_RAW &&
	    !(path_date_of_zip(k->p, k->cadence, e->name, &d, &unpadded) &&
	      has_date(&k->calendar->listed, d)))
		return 0;
	if (k->n == k->room) {
		k->room = k->room ? k->room * 2 : 256;
		grown = realloc(k->keys, k->room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		k->keys = grown;
	}
	if (asprintf(&k->keys[k->n], "%s%s", k->prefix, e->name) < 0)
		return -ENOMEM;
	k->n++;
	return 0;
}

static void collect_dates(struct folders *f, struct gather *g, struct keys *k)
{
	if (gather_cadences(g, NULL))
		return;
	dates_sort(&g->calendar.days);
	dates_sort(&g->calendar.months);
	g->calendar.prefer_monthly = f->cfg.prefer_monthly;
	choose(&g->calendar);
	k->calendar = &g->calendar;
	for (int c = PATH_DAILY; c <= PATH_MONTHLY; c++) {
		k->cadence = (enum path_cadence)c;
		if (path_prefix(k->p, k->cadence, k->prefix) == 0)
			catalog_listing_each(f->cfg.catalog, k->prefix, add_key,
					     k);
	}
}

static void collect_raw(struct folders *f, struct keys *k)
{
	snprintf(k->prefix, sizeof(k->prefix), "%s/", k->p->key);
	catalog_listing_each(f->cfg.catalog, k->prefix, add_key, k);
}

void folder_size_all(struct folders *f, const char *path)
{
	char folder[PATH_MAX_BYTES];
	struct path p;
	struct gather g = {.f = f, .p = &p};
	struct keys k = {.p = &p};
	struct read_lately *l;
	bool wanted;

	pthread_mutex_lock(&f->lock);
	l = lately_locked(f, path);
	wanted = l && !l->sized && when_ms() - l->at_ms < READ_LATELY_MS;
	if (wanted)
		l->sized = true;
	pthread_mutex_unlock(&f->lock);
	if (!wanted)
		return;
	snprintf(folder, sizeof(folder), "%.*s", (int)path_len(path), path);
	if (path_parse(folder, &p))
		return;
	if (p.kind == PATH_RAW)
		collect_raw(f, &k);
	else if (holds_dates(&p))
		collect_dates(f, &g, &k);
	gather_free(&g);
	if (k.n)
		supply_sizes(f->cfg.supply, k.keys, k.n);
	else
		free(k.keys);
}

/* ---- what is known of a whole folder ---- */

struct warming {
	struct work work;
	struct folders *f;
	char path[];
};

static void warm(struct work *work)
{
	struct warming *w = container_of(work, struct warming, work);
	char prefixes[2][PATH_KEY_MAX + 1];
	unsigned int n = path_prefixes(w->path, prefixes);
	struct read_lately *l;

	for (unsigned int i = 0; i < n; i++)
		catalog_prefetch(w->f->cfg.catalog, prefixes[i], ".zip");
	pthread_mutex_lock(&w->f->lock);
	l = lately_locked(w->f, w->path);
	if (l) {
		l->warmth = WARM;
		l->warm_ms = when_ms();
	}
	pthread_mutex_unlock(&w->f->lock);
	free(w);
}

static struct warming *warming_create(struct folders *f, const char *path)
{
	size_t n = path_len(path);
	struct warming *w = calloc(1, sizeof(*w) + n + 1);

	if (!w)
		return NULL;
	memcpy(w->path, path, n);
	w->f = f;
	w->work.run = warm;
	return w;
}

void folder_looked_up(struct folders *f, const char *path)
{
	struct warming *w = NULL;
	struct read_lately *l;

	pthread_mutex_lock(&f->lock);
	l = lately_locked(f, path);
	if (l && l->warmth == COLD && f->cfg.workers &&
	    ++l->looked_up >= WARM_AFTER)
		w = warming_create(f, path);
	if (w) /* else the next look-up tries again */
		l->warmth = WARMING;
	pthread_mutex_unlock(&f->lock);
	if (w)
		workers_submit(f->cfg.workers, &w->work);
}

bool folder_is_warm(struct folders *f, const char *path)
{
	struct read_lately *l;
	bool is_warm;

	pthread_mutex_lock(&f->lock);
	l = lately_locked(f, path);
	is_warm = l && l->warmth == WARM;
	pthread_mutex_unlock(&f->lock);
	return is_warm;
}

int folder_table_create(struct folders **out, const struct folders_config *cfg)
{
	struct folders *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->cfg = *cfg;
	pthread_mutex_init(&f->lock, NULL);
	*out = f;
	return 0;
}

void folder_table_free(struct folders *f)
{
	if (!f)
		return;
	while (f->read)
		folder_free(f->read);
	for (int i = 0; i < READ_LATELY; i++)
		free(f->lately[i].path);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

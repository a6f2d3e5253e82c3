#include "fs/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/archive.h"

struct tree {
	struct tree_config cfg;
};

/* ---- names ---- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The prefix a key lies under, with its slash. */
static void prefix_of_key(const char *key, char out[PATH_KEY_MAX + 1])
{
	size_t n = (size_t)(base_name(key) - key);

	memcpy(out, key, n);
	out[n] = '\0';
}

/* ---- what the catalog says of one name ---- */

enum presence { ABSENT, UNKNOWN, FILE_THERE, FOLDER_THERE };

static enum presence look(struct tree *t, const char *prefix, const char *name)
{
	char etag[CATALOG_ETAG_MAX];
	int64_t last_modified, fetched_at;
	uint64_t size;
	bool is_prefix;
	int err;

	err = catalog_entry_get(t->cfg.catalog, prefix, name, &is_prefix, etag,
				&size, &last_modified, &fetched_at);
	if (!err)
		return is_prefix ? FOLDER_THERE : FILE_THERE;
	if (err == -ENOENT &&
	    catalog_listing_time(t->cfg.catalog, prefix, &fetched_at, NULL) ==
		    0 &&
	    listings_fresh(t->cfg.listings, fetched_at))
		return ABSENT;
	return UNKNOWN;
}

/* Is the folder @name under the listings of @parent, daily or monthly? */
static enum presence look_folder(struct tree *t, const struct path *parent,
				 const char *name)
{
	char prefix[PATH_KEY_MAX + 1];
	enum presence all = ABSENT, one;

	for (int c = PATH_DAILY; c <= PATH_MONTHLY; c++) {
		if (path_prefix(parent, (enum path_cadence)c, prefix))
			continue;
		one = look(t, prefix, name);
		if (one == FOLDER_THERE)
			return one;
		if (one == UNKNOWN)
			all = UNKNOWN;
	}
	return all;
}

static int from_presence(enum presence p, bool folder, bool *provisional)
{
	if (p == ABSENT || (p == FILE_THERE && folder) ||
	    (p == FOLDER_THERE && !folder))
		return -ENOENT;
	*provisional = p == UNKNOWN;
	return 0;
}

/* The folder of kind @kind, MARKET to SYMBOL, above @p. */
static struct path parent_of(const struct path *p, enum path_kind kind)
{
	struct path parent = *p;

	parent.kind = kind;
	parent.interval[0] = '\0';
	if (kind < PATH_SYMBOL)
		parent.symbol[0] = '\0';
	if (kind < PATH_DATASET)
		parent.dataset = NULL;
	return parent;
}

/* ---- resolving ---- */

static int resolve_folder(struct tree *t, const struct path *p,
			  enum path_kind above, const char *name,
			  struct tree_target *out)
{
	struct path parent = parent_of(p, above);

	return from_presence(look_folder(t, &parent, name), true,
			     &out->provisional);
}

static enum presence look_key(struct tree *t, const char *key)
{
	char prefix[PATH_KEY_MAX + 1];

	prefix_of_key(key, prefix);
	return look(t, prefix, base_name(key));
}

static int resolve_date(struct tree *t, const struct path *p,
			struct tree_target *out)
{
	char other[PATH_KEY_MAX];
	struct supply_facts f;
	enum presence there, spelt;

	out->sort = TREE_CSV;
	if (path_key(p, false, out->key))
		return -ENOENT;
	there = look_key(t, out->key);
	if (there != FILE_THERE && path_key(p, true, other) == 0) {
		spelt = look_key(t, other);
		/* Or the usual one was asked for just now and is not there. */
		if (spelt == FILE_THERE ||
		    (spelt == UNKNOWN &&
		     supply_facts(t->cfg.supply, out->key, SUPPLY_OBJECT, NULL,
				  &f) == -ENOENT)) {
			memcpy(out->key, other, sizeof(other));
			there = spelt;
		}
	}
	return from_presence(there, false, &out->provisional);
}

static int resolve_raw(struct tree *t, const struct path *p,
		       struct tree_target *out)
{
	enum presence there;

	snprintf(out->key, sizeof(out->key), "%s", p->key);
	if (!strchr(p->key, '/')) { /* "data" itself */
		out->sort = TREE_FOLDER;
		return 0;
	}
	there = look_key(t, p->key);
	if (there == ABSENT)
		return -ENOENT;
	out->provisional = there == UNKNOWN;
	if (there == UNKNOWN)
		out->sort = p->raw_looks_like_file ? TREE_OBJECT : TREE_FOLDER;
	else
		out->sort = there == FILE_THERE ? TREE_OBJECT : TREE_FOLDER;
	return 0;
}

/* X.csv: of X.zip; or, where there is no X.zip, as it was published. */
static int resolve_raw_csv(struct tree *t, const char *path,
			   const struct path *p, struct tree_target *out)
{
	enum presence there = look_key(t, p->key);

	if (there == ABSENT && look_key(t, path) == FILE_THERE) {
		out->sort = TREE_OBJECT;
		snprintf(out->key, sizeof(out->key), "%s", path);
		return 0;
	}
	out->sort = TREE_CSV;
	snprintf(out->key, sizeof(out->key), "%s", p->key);
	return from_presence(there, false, &out->provisional);
}

/* Where in the archive is "a/b"? FOLDER_THERE also where it only begins the
 * names of others. */
static enum presence find_member(const struct archive_directory *d,
				 const char *inner, uint64_t *member)
{
	enum presence found = *inner ? ABSENT : FOLDER_THERE;
	size_t n = strlen(inner);

	for (size_t i = 0; i < d->n; i++) {
		const struct archive_member *m = &d->members[i];

		if (!archive_name_ok(m->name) ||
		    strncmp(m->name, inner, n) != 0)
			continue;
		if (!m->name[n] && !m->is_dir) {
			*member = i;
			return FILE_THERE;
		}
		if (m->name[n] == '/')
			found = FOLDER_THERE;
	}
	return found;
}

static int resolve_members(struct tree *t, const struct path *p,
			   struct tree_target *out)
{
	struct archive_directory *d = NULL;
	enum presence there = look_key(t, p->key);
	uint64_t member;

	snprintf(out->key, sizeof(out->key), "%s", p->key);
	out->sort = *p->inner && strchr(base_name(p->inner), '.') ? TREE_MEMBER
								  : TREE_FOLDER;
	if (there == ABSENT || there == FOLDER_THERE)
		return -ENOENT;
	if (supply_members(t->cfg.supply, p->key, NULL, &d)) {
		out->provisional = true;
		return 0;
	}
	there = find_member(d, p->inner, &member);
	archive_directory_free(d);
	if (there == ABSENT)
		return -ENOENT;
	out->sort = there == FILE_THERE ? TREE_MEMBER : TREE_FOLDER;
	return 0;
}

static int resolve_control(struct tree *t, const char *path,
			   struct tree_target *out)
{
	out->sort = TREE_CONTROL;
	for (const char *const *f = t->cfg.control_files; *f; f++)
		if (strcmp(*f, base_name(path)) == 0)
			return 0;
	return -ENOENT;
}

static int resolve_parsed(struct tree *t, const char *path,
			  const struct path *p, struct tree_target *out)
{
	*out = (struct tree_target){.sort = TREE_FOLDER};
	switch (p->kind) {
	case PATH_ROOT:
	case PATH_CONTROL:
	case PATH_MARKET:
		return 0;
	case PATH_CONTROL_FILE:
		return resolve_control(t, path, out);
	case PATH_DATASET:
		return resolve_folder(t, p, PATH_MARKET, p->dataset->name, out);
	case PATH_SYMBOL:
		return resolve_folder(t, p, PATH_DATASET, p->symbol, out);
	case PATH_INTERVAL:
		return resolve_folder(t, p, PATH_SYMBOL, p->interval, out);
	case PATH_DATE:
		return resolve_date(t, p, out);
	case PATH_RAW:
		return resolve_raw(t, p, out);
	case PATH_RAW_CSV:
		return resolve_raw_csv(t, path, p, out);
	case PATH_MEMBERS:
		return resolve_members(t, p, out);
	}
	return -ENOENT;
}

int tree_resolve(struct tree *t, const char *path, struct tree_target *out)
{
	struct path p;
	int err = path_parse(path, &p);

	return err ? err : resolve_parsed(t, path, &p, out);
}

/* ---- confirming ---- */

static int confirm_key(struct tree *t, const char *key, struct waiter *w)
{
	struct supply_facts f;

	return supply_facts(t->cfg.supply, key, SUPPLY_OBJECT, w, &f);
}

static int confirm_csv(struct tree *t, const struct path *p,
		       struct tree_target *tg, struct waiter *w)
{
	char other[PATH_KEY_MAX];
	int err = confirm_key(t, tg->key, w);

	if (err != -ENOENT || p->kind != PATH_DATE ||
	    path_key(p, true, other) != 0)
		return err;
	err = confirm_key(t, other, w);
	if (!err)
		memcpy(tg->key, other, sizeof(other));
	return err;
}

/* A folder exists where any of the prefixes behind it holds something. */
static int confirm_folder(struct tree *t, const char *path, struct waiter *w)
{
	char prefixes[2][PATH_KEY_MAX + 1];
	unsigned int n = path_prefixes(path, prefixes);
	int err = -ENOENT, first_err = 0;

	for (unsigned int i = 0; i < n; i++) {
		err = listings_probe(t->cfg.listings, prefixes[i], w);
		if (!err || err == -EINPROGRESS)
			return err;
		if (err != -ENOENT)
			first_err = err;
	}
	return first_err ? first_err : err;
}

static int confirm_member(struct tree *t, const struct path *p,
			  struct tree_target *tg, struct waiter *w)
{
	struct archive_directory *d;
	enum presence there;
	uint64_t member;
	int err = supply_members(t->cfg.supply, tg->key, w, &d);

	if (err)
		return err;
	there = find_member(d, p->inner, &member);
	archive_directory_free(d);
	/* What was taken for a folder by its name stays one or is not. */
	if (there == (tg->sort == TREE_MEMBER ? FILE_THERE : FOLDER_THERE))
		return 0;
	return -ENOENT;
}

int tree_confirm(struct tree *t, const char *path, struct tree_target *tg,
		 struct waiter *w)
{
	struct path p;
	int err;

	if (!tg->provisional)
		return 0;
	err = path_parse(path, &p);
	if (err)
		return err;
	if (p.kind == PATH_MEMBERS)
		err = confirm_member(t, &p, tg, w);
	else if (tg->sort == TREE_FOLDER)
		err = confirm_folder(t, path, w);
	else if (tg->sort == TREE_CSV)
		err = confirm_csv(t, &p, tg, w);
	else
		err = confirm_key(t, tg->key, w);
	if (!err)
		tg->provisional = false;
	return err;
}

/* ---- stat ---- */

static int stat_csv(struct tree *t, const char *path,
		    const struct tree_target *tg, struct waiter *w,
		    struct tree_file *out)
{
	char folder[PATH_MAX_BYTES];
	struct supply_facts f;
	int err;

	/* Once @w waits it may be woken, and @path gone with it. */
	snprintf(folder, sizeof(folder), "%.*s", (int)(base_name(path) - path),
		 path);
	err = supply_facts(t->cfg.supply, tg->key, SUPPLY_CSV, w, &f);
	if (err == -EINPROGRESS && w)
		folder_size_all(t->cfg.folders, folder);
	if (err)
		return err;
	if (f.csv_member < 0)
		return -ENOENT;
	out->size = f.csv_size;
	out->mtime = f.last_modified;
	out->member = (uint64_t)f.csv_member;
	snprintf(out->etag, sizeof(out->etag), "%s", f.etag);
	return 0;
}

static int stat_object(struct tree *t, const struct tree_target *tg,
		       struct waiter *w, struct tree_file *out)
{
	struct supply_facts f;
	int err = supply_facts(t->cfg.supply, tg->key, SUPPLY_OBJECT, w, &f);

	if (err)
		return err;
	out->size = f.size;
	out->mtime = f.last_modified;
	snprintf(out->etag, sizeof(out->etag), "%s", f.etag);
	return 0;
}

static int stat_member(struct tree *t, const char *path,
		       const struct tree_target *tg, struct waiter *w,
		       struct tree_file *out)
{
	struct archive_directory *d;
	struct supply_facts f;
	struct path p;
	int err;

	err = path_parse(path, &p);
	if (err)
		return err;
	err = supply_facts(t->cfg.supply, tg->key, SUPPLY_CSV, w, &f);
	if (err)
		return err;
	err = supply_members(t->cfg.supply, tg->key, w, &d);
	if (err)
		return err;
	if (find_member(d, p.inner, &out->member) == FILE_THERE) {
		out->size = d->members[out->member].size;
		out->mtime = d->members[out->member].mtime;
		snprintf(out->etag, sizeof(out->etag), "%s", f.etag);
	} else {
		err = -ENOENT;
	}
	archive_directory_free(d);
	return err;
}

int tree_stat(struct tree *t, const char *path, const struct tree_target *tg,
	      struct waiter *w, struct tree_file *out)
{
	*out = (struct tree_file){.mtime = -1};
	switch (tg->sort) {
	case TREE_CSV:
		return stat_csv(t, path, tg, w, out);
	case TREE_OBJECT:
		return stat_object(t, tg, w, out);
	case TREE_MEMBER:
		return stat_member(t, path, tg, w, out);
	default:
		return -EISDIR;
	}
}

int tree_create(struct tree **out, const struct tree_config *cfg)
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->cfg = *cfg;
	*out = t;
	return 0;
}

void tree_free(struct tree *t)
{
	free(t);
}

/*
 * Last uses, noted in memory and written in batches, and the order they make.
 */
#include <errno.h>
#include <search.h>
#include <stdlib.h>

#include "cache/catalog_priv.h"

enum {
	TOUCHES_MAX = 65536,
	BATCH = 64, /* rows a callback is fed with from one read */
};

struct touch {
	int64_t at;
	char key[];
};

/* ---- last uses ---- */

static int touch_order(const void *a, const void *b)
{
	return strcmp(((const struct touch *)a)->key,
		      ((const struct touch *)b)->key);
}

int catalog_touch(struct catalog *c, const char *key, int64_t now)
{
	size_t len = strlen(key) + 1;
	struct touch *t = malloc(sizeof(*t) + len), **found;
	int err = 0;

	if (!t)
		return -ENOMEM;
	t->at = now;
	memcpy(t->key, key, len);
	pthread_mutex_lock(&c->touches_lock);
	found = c->n_touches < TOUCHES_MAX
			? tsearch(t, &c->touches, touch_order)
			: tfind(t, &c->touches, touch_order);
	if (!found) {
		err = c->n_touches < TOUCHES_MAX ? -ENOMEM : 0;
	} else if (*found == t) {
		c->n_touches++;
		t = NULL;
	} else if ((*found)->at < now) {
		(*found)->at = now;
	}
	pthread_mutex_unlock(&c->touches_lock);
	free(t);
	return err;
}

struct flush_work {
	struct catalog_conn *conn;
	void *touches;
	int err;
};

static void write_touch(const void *node, VISIT visit, void *arg)
{
	const struct touch *t = *(struct touch *const *)node;
	struct flush_work *w = arg;
	struct catalog_cached row;

	if (w->err || (visit != postorder && visit != leaf))
		return;
	w->err = catalog_row_get(w->conn, CATALOG_OBJECTS, t->key, &row);
	if (!w->err && row.last_use < t->at) {
		row.last_use = t->at;
		w->err = catalog_row_write(w->conn, CATALOG_OBJECTS, t->key,
					   &row);
	}
	/* Evicted meanwhile, or no row to trust. */
	if (w->err == -ENOENT || w->err == -EBADMSG)
		w->err = 0;
}

static int write_touches(struct catalog_conn *conn, void *arg)
{
	struct flush_work *w = arg;

	w->conn = conn;
	w->err = 0;
	twalk_r(w->touches, write_touch, w);
	return w->err;
}

static void touch_again(const void *node, VISIT visit, void *arg)
{
	const struct touch *t = *(struct touch *const *)node;

	if (visit == postorder || visit == leaf)
		catalog_touch(arg, t->key, t->at);
}

int catalog_flush(struct catalog *c)
{
	struct flush_work w = {0};
	int err;

	pthread_mutex_lock(&c->touches_lock);
	w.touches = c->touches;
	c->touches = NULL;
	c->n_touches = 0;
	pthread_mutex_unlock(&c->touches_lock);
	if (!w.touches)
		return 0;
	err = catalog_write(c, NULL, write_touches, &w);
	if (err) /* for the next time; what is newer by now stays */
		twalk_r(w.touches, touch_again, c);
	tdestroy(w.touches, free);
	return err;
}

/* ---- in order of last use ---- */

struct batch {
	enum catalog_place place;
	int64_t after; /* last use and key of the row before the first */
	char *after_key;
	size_t n;
	char *keys[BATCH];
	struct catalog_cached rows[BATCH];
	bool bad[BATCH];
};

static void batch_clear(struct batch *b)
{
	while (b->n > 0)
		free(b->keys[--b->n]);
}

static int read_batch(struct catalog_conn *conn, void *arg)
{
	struct batch *b = arg;
	sqlite3_stmt *stmt;
	int more;

	batch_clear(b);
	stmt = catalog_db_stmt(conn, CACHED_LRU);
	more = catalog_db_bind(conn, stmt, "iiti", (int64_t)b->place, b->after,
			       b->after_key, (int64_t)BATCH);
	if (!more)
		more = catalog_db_step(conn, stmt);
	for (; more > 0 && b->n < BATCH; more = catalog_db_step(conn, stmt)) {
		const char *key = catalog_schema_text(stmt, 0);
		struct catalog_cached *r = &b->rows[b->n];

		/* A key with a NUL: the row can't even be named. */
		if (!key)
			continue;
		b->keys[b->n] = strdup(key);
		if (!b->keys[b->n])
			return -ENOMEM;
		b->bad[b->n] = catalog_row_of(stmt, b->place, key, r) != 0;
		b->n++;
	}
	return more < 0 ? more : 0;
}

/* Is a use of @key noted that is not written yet? */
static bool is_touched(struct catalog *c, const char *key)
{
	size_t len = strlen(key) + 1;
	struct touch *t = malloc(sizeof(*t) + len);
	bool found;

	if (!t)
		return true;
	memcpy(t->key, key, len);
	pthread_mutex_lock(&c->touches_lock);
	found = tfind(t, &c->touches, touch_order) != NULL;
	pthread_mutex_unlock(&c->touches_lock);
	free(t);
	return found;
}

/* Of which rows to tell. */
enum which { ALL, UNTOUCHED, TOUCHED };

static int feed_batch(struct catalog *c, struct batch *b, enum which which,
		      catalog_cached_fn *fn, void *arg)
{
	int err = 0;

	for (size_t i = 0; i < b->n && !err; i++) {
		if (b->bad[i])
			catalog_note_doubt(c, DOUBT_CACHED, b->place,
					   b->keys[i], NULL);
		else if (which == ALL ||
			 (which == TOUCHED) == is_touched(c, b->keys[i]))
			err = fn(arg, b->keys[i], &b->rows[i]);
	}
	return err;
}

static int in_order(struct catalog *c, enum catalog_place place,
		    enum which which, catalog_cached_fn *fn, void *arg)
{
	struct batch *b = calloc(1, sizeof(*b));
	size_t last;
	int err;

	if (!b)
		return -ENOMEM;
	b->place = place;
	b->after = INT64_MIN;
	b->after_key = strdup("");
	err = b->after_key ? 0 : -ENOMEM;
	while (!err) {
		err = catalog_db_read(c->db, read_batch, b);
		if (err || b->n == 0)
			break;
		last = b->n - 1;
		err = feed_batch(c, b, which, fn, arg);
		/* The order is by index, and a hostile one may turn round. */
		if (b->rows[last].last_use < b->after)
			break;
		b->after = b->rows[last].last_use;
		free(b->after_key);
		b->after_key = b->keys[last];
		b->keys[last] = NULL;
	}
	batch_clear(b);
	free(b->after_key);
	free(b);
	return err;
}

int catalog_cached_lru(struct catalog *c, catalog_cached_fn *fn, void *arg)
{
	int err;

	if (catalog_flush(c) == 0)
		return in_order(c, CATALOG_OBJECTS, ALL, fn, arg);
	/* On a full disk nothing can be written until something goes: those
	 * used since the last time come last. */
	err = in_order(c, CATALOG_OBJECTS, UNTOUCHED, fn, arg);
	return err ? err : in_order(c, CATALOG_OBJECTS, TOUCHED, fn, arg);
}

int catalog_quarantined(struct catalog *c, catalog_cached_fn *fn, void *arg)
{
	return in_order(c, CATALOG_QUARANTINE, ALL, fn, arg);
}

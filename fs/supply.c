#include "fs/supply.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "cache/catalog.h"
#include "fs/admission.h"
#include "fs/log.h"
#include "fs/metrics.h"
#include "fs/prefill.h"
#include "fs/when.h"

enum {
	/* Objects remembered in memory when idle; the catalog has the rest. */
	OBJECTS_MAX = 8192,
	/* Look-ups of a folder's sizes under way at once. */
	BATCH_AT_ONCE = 16,
	/* Tails longer than this are not asked for: the archive is fetched. */
	TAIL_MAX = 1 << 24,
	WAIT_LOG_MS = 5000,
	/* A failure is remembered so long at least that those who are woken
	 * by it still find it when they ask again. */
	REMEMBER_MIN_MS = 1000,
	/* An admission that gets no bytes for so long does not count among
	 * those that may be under way: it must not hold up others. */
	STALLED_MS = 2000,
	CEILING = 4, /* but so many times as many, with those */
};

/* What is remembered of one key. */
struct object {
	struct supply *s;
	char *key;
	bool is_zip;
	unsigned int refs; /* protected by s->lock */
	uint64_t used_ms;  /* protected by s->lock */

	pthread_mutex_t lock; /* all below, unless said otherwise */
	bool loaded;
	bool known; /* etag, size, last_modified, seen_at */
	bool has_csv;
	bool no_tail; /* its end does not tell: it must come whole */
	bool opened;  /* once in this run: it is in the ledger */
	struct catalog_facts facts;
	int err; /* remembered until err_until_ms */
	uint64_t err_until_ms;
	enum verdict refused;

	bool sizing;
	struct waitlist sized;
	bool checking; /* revalidation under way */
	struct admission *admission;
	struct prefill_fill *fill; /* of the admission, or of one to come */
	uint64_t fetch_started_ms, wait_logged_ms;
	uint64_t done_last, done_at_ms; /* of its download, and since when */
	bool stalls;			/* protected by s->lock */
	/* While it waits for others to end; with the recheck to be done. */
	bool queued, queued_recheck;
	/* Of those that wait, or of those that have one; protected by
	 * s->lock. */
	TAILQ_ENTRY(object) admissions;
	bool told_republished; /* that the cached version is outdated */
	struct waitlist opened_by;

	/* An answer on its way from the fetch thread to a worker; one at a
	 * time, between the request and its work. */
	struct work size_work, check_work, open_work;
	int size_err;
	struct origin_meta size_meta;
	size_t tail_asked, tail_len;
	void *tail;
	int check_err;
	bool check_changed;
	struct origin_meta check_meta;
	unsigned char opened_sha256[32];
	enum verdict opened_verdict;
	bool in_batch;
};

struct batch {
	struct batch *next;
	char **keys;
	size_t n, i;
};

struct supply {
	struct supply_config cfg;
	struct catalog *catalog;
	struct admission_env env;
	pthread_mutex_t lock;  /* order: object, then supply */
	void *objects;	       /* tsearch(3) by key; protected by lock */
	size_t n;	       /* protected by lock */
	struct batch *batches; /* protected by lock */
	unsigned int batching; /* requests under way; protected by lock */
	/* Admissions under way, and how many of them stall; objects that wait
	 * for theirs, each with a reference. Protected by lock. */
	unsigned int admitting, stalled, fetching_n;
	TAILQ_HEAD(, object) queue, fetching;
};

static void take_size(struct work *work);
static void take_check(struct work *work);
static void write_opened(struct work *work);

/* ---- the table ---- */

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct object *)a)->key,
		      ((const struct object *)b)->key);
}

static void object_free(void *arg)
{
	struct object *o = arg;

	if (!o)
		return;
	prefill_fill_free(o->fill);
	pthread_mutex_destroy(&o->lock);
	free(o->tail);
	free(o->key);
	free(o);
}

static bool ends_in(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

struct sweep {
	uint64_t older_than_ms;
	struct object *idle[512];
	size_t n;
};

static void collect_idle(const void *node, VISIT visit, void *arg)
{
	struct object *o = *(struct object *const *)node;
	struct sweep *sw = arg;

	if (visit != postorder && visit != leaf)
		return;
	if (o->refs == 0 && o->used_ms <= sw->older_than_ms && sw->n < 512)
		sw->idle[sw->n++] = o;
}

static void sweep_locked(struct supply *s, uint64_t older_than_ms)
{
	struct sweep sw = {.older_than_ms = older_than_ms};

	twalk_r(s->objects, collect_idle, &sw);
	for (size_t i = 0; i < sw.n; i++) {
		tdelete(sw.idle[i], &s->objects, by_key);
		object_free(sw.idle[i]);
		s->n--;
	}
}

static struct object *object_new(struct supply *s, const char *key)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	pthread_mutex_init(&o->lock, NULL);
	o->s = s;
	o->is_zip = ends_in(key, ".zip");
	o->facts.csv_member = CATALOG_CSV_NONE;
	o->size_work.run = take_size;
	o->check_work.run = take_check;
	o->open_work.run = write_opened;
	o->key = strdup(key);
	if (!o->key) {
		object_free(o);
		return NULL;
	}
	return o;
}

/* With @make false only what is in memory. Each get has its put. */
static struct object *object_get(struct supply *s, const char *key, bool make)
{
	struct object probe = {.key = (char *)key}, **found, *o = NULL;

	pthread_mutex_lock(&s->lock);
	found = tfind(&probe, &s->objects, by_key);
	if (found) {
		o = *found;
	} else if (make) {
		if (s->n >= OBJECTS_MAX)
			sweep_locked(s, when_ms());
		o = object_new(s, key);
		if (o && !tsearch(o, &s->objects, by_key)) {
			object_free(o);
			o = NULL;
		}
		if (o)
			s->n++;
	}
	if (o) {
		o->refs++;
		o->used_ms = when_ms();
	}
	pthread_mutex_unlock(&s->lock);
	return o;
}

static void object_ref(struct object *o)
{
	pthread_mutex_lock(&o->s->lock);
	o->refs++;
	pthread_mutex_unlock(&o->s->lock);
}

static void object_put(struct object *o)
{
	struct supply *s = o->s;

	pthread_mutex_lock(&s->lock);
	o->refs--;
	pthread_mutex_unlock(&s->lock);
}

/* ---- which version is current ---- */

struct observation {
	bool any;
	char etag[CATALOG_ETAG_MAX];
	uint64_t size;
	int64_t last_modified, at;
};

static void observe(struct observation *best, const char *etag, uint64_t size,
		    int64_t last_modified, int64_t at)
{
	if (best->any && best->at >= at)
		return;
	best->any = true;
	snprintf(best->etag, sizeof(best->etag), "%s", etag);
	best->size = size;
	best->last_modified = last_modified;
	best->at = at;
}

static void observe_listing(struct object *o, struct observation *best)
{
	char prefix[ORIGIN_KEY_MAX + 1], etag[CATALOG_ETAG_MAX];
	const char *slash = strrchr(o->key, '/');
	int64_t last_modified, at;
	uint64_t size;
	bool is_prefix;

	if (!slash || (size_t)(slash + 1 - o->key) >= sizeof(prefix))
		return;
	memcpy(prefix, o->key, (size_t)(slash + 1 - o->key));
	prefix[slash + 1 - o->key] = '\0';
	if (catalog_entry_get(o->s->catalog, prefix, slash + 1, &is_prefix,
			      etag, &size, &last_modified, &at) == 0 &&
	    !is_prefix)
		observe(best, etag, size, last_modified, at);
}

/* Under lock: the CSV in the current version, if a tail told it before. */
static void load_csv_locked(struct object *o)
{
	struct catalog_facts f;

	o->has_csv = false;
	/* By no ETag lie the facts of what was admitted last: offline, that
	 * is what there is. */
	if (!o->is_zip || (!o->facts.etag[0] && !o->s->cfg.offline))
		return;
	if (catalog_facts_get(o->s->catalog, o->key, o->facts.etag, &f))
		return;
	if (f.size != o->facts.size || f.csv_member == CATALOG_NOT_A_ZIP)
		return;
	o->facts.csv_member = f.csv_member;
	o->facts.csv_size = f.csv_size;
	o->facts.members = f.members;
	o->has_csv = true;
}

/* Under lock: once, from what the catalog knows. */
static void load_locked(struct object *o)
{
	struct observation best = {0};
	struct catalog_facts f;
	struct catalog_cached c;
	bool cached;

	if (o->loaded)
		return;
	o->loaded = true;
	cached = catalog_cached_get(o->s->catalog, o->key, &c) == 0;
	/* Offline, what is cached is what there is. */
	if (cached && c.state != CATALOG_QUARANTINED && o->s->cfg.offline) {
		observe(&best, c.etag, c.size, c.last_modified, INT64_MAX);
	} else {
		observe_listing(o, &best);
		if (!catalog_facts_get(o->s->catalog, o->key, NULL, &f))
			observe(&best, f.etag, f.size, f.last_modified,
				f.seen_at);
		if (cached && c.state != CATALOG_QUARANTINED)
			observe(&best, c.etag, c.size, c.last_modified,
				c.checked_at);
	}
	if (cached && c.state == CATALOG_QUARANTINED)
		o->refused = c.verdict;
	if (!best.any || best.size == UINT64_MAX)
		return;
	o->known = true;
	snprintf(o->facts.etag, sizeof(o->facts.etag), "%s", best.etag);
	o->facts.size = best.size;
	o->facts.last_modified = best.last_modified;
	o->facts.seen_at = best.at;
	load_csv_locked(o);
}

/* Under lock. */
static void note_republished_locked(struct object *o, const char *before,
				    const char *now)
{
	o->told_republished = true;
	metrics_add(METRIC_REPUBLISHED, 1);
	log_event(LOG_LEVEL_WARN, "integrity", "archive_republished",
		  log_str("key", o->key), log_str("etag_before", before),
		  log_str("etag", now), LOG_END);
}

/* Under lock: @meta is what the origin has now. */
static void take_meta_locked(struct object *o, const char *etag, uint64_t size,
			     int64_t last_modified, int64_t now)
{
	bool same;

	if (size == UINT64_MAX)
		return;
	load_locked(o);
	/* An answer without an ETag is no news of one that was known. */
	same = o->known && o->facts.size == size &&
	       (!*etag || strcmp(o->facts.etag, etag) == 0);
	o->facts.seen_at = now;
	if (same) {
		if (last_modified >= 0)
			o->facts.last_modified = last_modified;
		return;
	}
	if (o->known)
		note_republished_locked(o, o->facts.etag, etag);
	o->known = true;
	o->no_tail = false;
	o->err = 0;
	snprintf(o->facts.etag, sizeof(o->facts.etag), "%s", etag);
	o->facts.size = size;
	o->facts.last_modified = last_modified;
	load_csv_locked(o);
}

/* Under lock. */
static void remember_locked(struct object *o, int err)
{
	uint64_t ttl_ms = o->s->cfg.negative_ttl_ms;

	if (err == -ENOENT || err == -EBADMSG) {
		o->err = err;
		o->err_until_ms =
			when_ms() +
			(ttl_ms > REMEMBER_MIN_MS ? ttl_ms : REMEMBER_MIN_MS);
	}
	if (err == -ENOENT)
		o->known = o->has_csv = false;
}

/* Under lock: a failure of late, not to be tried again yet. */
static int remembered_locked(struct object *o)
{
	if (o->err && when_ms() < o->err_until_ms)
		return o->err;
	o->err = 0;
	return 0;
}

/* ---- sizes, from tails ---- */

static void batch_free(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		free(b->keys[i]);
	free(b->keys);
	free(b);
}

static void on_tail(void *arg, int err, const struct origin_meta *meta,
		    const void *tail, size_t len)
{
	struct object *o = arg;

	o->tail = NULL;
	if (!err && o->is_zip) {
		o->tail = malloc(len ? len : 1);
		if (o->tail)
			memcpy(o->tail, tail, len);
		else
			err = -ENOMEM;
	}
	o->tail_len = len;
	o->size_err = err;
	o->size_meta = *meta;
	workers_submit(o->s->cfg.quick, &o->size_work);
}

static void on_size_head(void *arg, int err, bool changed,
			 const struct origin_meta *meta)
{
	(void)changed;
	on_tail(arg, err, meta, NULL, 0);
}

/* The request in flight holds a reference. */
static bool ask_size(struct object *o)
{
	if (o->is_zip)
		return origin_tail(o->s->cfg.origin, ORIGIN_MAIN, o->key,
				   o->tail_asked, on_tail, o) != 0;
	return origin_head(o->s->cfg.origin, ORIGIN_MAIN, o->key, NULL,
			   on_size_head, o) != 0;
}

/* Under lock. */
static bool start_size_locked(struct object *o)
{
	if (o->sizing)
		return true;
	o->tail_asked = ARCHIVE_TAIL_BYTES;
	o->sizing = true;
	object_ref(o);
	if (ask_size(o))
		return true;
	o->sizing = false;
	object_put(o);
	return false;
}

static void count_csv(struct catalog_facts *f,
		      const struct archive_directory *d, const char *key)
{
	const char *slash = strrchr(key, '/');
	ptrdiff_t csv = archive_csv(d, slash ? slash + 1 : key);

	f->members = d->n;
	f->csv_member = csv < 0 ? CATALOG_CSV_NONE : csv;
	f->csv_size = csv < 0 ? 0 : d->members[csv].size;
}

/*
 * Under lock. What the headers said, and the directory @d where it could be
 * read. Returns what went wrong. Where no directory was found nothing has: an
 * origin may ignore ranges, and bytes that are no zip's are no verdict until
 * every source was asked for them (fs/admission.h).
 */
static int take_size_locked(struct object *o, int err,
			    const struct archive_directory *d)
{
	const struct origin_meta *m = &o->size_meta;
	bool no_tail = err == -EOPNOTSUPP || err == -ENODATA ||
		       err == -EBADMSG || err == -EFBIG;

	if (err && !no_tail)
		return err;
	take_meta_locked(o, m->etag, m->size, m->last_modified, when_now());
	o->no_tail = no_tail;
	if (!o->known)
		return no_tail ? 0 : -EPROTO;
	if (d) {
		count_csv(&o->facts, d, o->key);
		o->has_csv = true;
	}
	return 0;
}

static void batch_answered(struct supply *s, int err);

static void take_size(struct work *work)
{
	struct object *o = container_of(work, struct object, size_work);
	struct supply *s = o->s;
	struct archive_directory *d = NULL;
	struct catalog_facts facts;
	bool in_batch, keep;
	int err = o->size_err;

	if (!err && o->is_zip) {
		err = archive_read_tail(&d, o->tail, o->tail_len,
					o->size_meta.size);
		if (err == -ENODATA && o->tail_len < o->size_meta.size &&
		    o->tail_asked < TAIL_MAX) {
			o->tail_asked *= 16;
			free(o->tail);
			if (ask_size(o))
				return;
			o->tail = NULL;
			err = -ENOMEM;
		}
	}
	free(o->tail);
	o->tail = NULL;

	pthread_mutex_lock(&o->lock);
	err = take_size_locked(o, err, d);
	keep = d && !err && o->facts.etag[0];
	facts = o->facts;
	pthread_mutex_unlock(&o->lock);

	if (keep)
		catalog_facts_put(s->catalog, o->key, &facts, d);
	archive_directory_free(d);

	pthread_mutex_lock(&o->lock);
	remember_locked(o, err);
	in_batch = o->in_batch;
	o->in_batch = false;
	o->sizing = false;
	/* That it is not there is remembered: who asks again may have another
	 * name to ask for. */
	waitlist_wake(&o->sized, err == -ENOENT ? 0 : err);
	pthread_mutex_unlock(&o->lock);
	object_put(o);
	if (in_batch)
		batch_answered(s, err);
}

/* ---- sizes of a whole folder ---- */

/* One key of a batch: true if a request for it is under way now. */
static bool start_one(struct supply *s, const char *key)
{
	struct object *o = object_get(s, key, true);
	bool started = false;

	if (!o)
		return false;
	pthread_mutex_lock(&o->lock);
	load_locked(o);
	if (!o->has_csv && !o->sizing && !o->no_tail && !remembered_locked(o) &&
	    !budget_allows_small(s->cfg.budget, key, when_now())) {
		o->in_batch = true;
		started = start_size_locked(o);
		o->in_batch = started;
	}
	pthread_mutex_unlock(&o->lock);
	object_put(o);
	return started;
}

static char *next_key_locked(struct supply *s)
{
	struct batch *b;

	while ((b = s->batches) && b->i == b->n) {
		s->batches = b->next;
		batch_free(b);
	}
	return b ? b->keys[b->i++] : NULL;
}

static void pump_batches(struct supply *s)
{
	char *key;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		key = NULL;
		if (s->batching < BATCH_AT_ONCE)
			key = next_key_locked(s);
		if (key) {
			s->batching++;
			key = strdup(key);
		}
		pthread_mutex_unlock(&s->lock);
		if (!key)
			return;
		if (!start_one(s, key)) {
			pthread_mutex_lock(&s->lock);
			s->batching--;
			pthread_mutex_unlock(&s->lock);
		}
		free(key);
	}
}

static void batch_answered(struct supply *s, int err)
{
	struct batch *b;

	pthread_mutex_lock(&s->lock);
	s->batching--;
	/* What can't be reached for one can't be for the rest. */
	while (err == -ENETUNREACH && (b = s->batches)) {
		s->batches = b->next;
		batch_free(b);
	}
	pthread_mutex_unlock(&s->lock);
	pump_batches(s);
}

void supply_sizes(struct supply *s, char **keys, size_t n)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b || s->cfg.offline) {
		for (size_t i = 0; i < n; i++)
			free(keys[i]);
		free(keys);
		free(b);
		return;
	}
	b->keys = keys;
	b->n = n;
	pthread_mutex_lock(&s->lock);
	b->next = s->batches;
	s->batches = b;
	pthread_mutex_unlock(&s->lock);
	pump_batches(s);
}

/* ---- facts ---- */

static void copy_facts_locked(const struct object *o, struct supply_facts *out)
{
	*out = (struct supply_facts){
		.size = o->facts.size,
		.last_modified = o->facts.last_modified,
		.has_csv = o->has_csv,
		.csv_member = o->facts.csv_member,
		.csv_size = o->facts.csv_size,
	};
	snprintf(out->etag, sizeof(out->etag), "%s", o->facts.etag);
}

static int fetch_locked(struct object *o, bool recheck, struct waiter *w,
			const struct prefill_reader *r);
static void pump_queue(struct supply *s);
static void leave_place(struct object *o);
static void list_fetching(struct object *o, bool begins);

/*
 * Under lock. Offline: it may still lie in the cache, where what the catalog
 * knew of it is lost. To be checked again it needs nobody.
 */
static int facts_offline_locked(struct object *o, struct waiter *w)
{
	struct store_object *c = NULL;
	int err = store_acquire(o->s->cfg.store, o->key, &c);

	store_release(c);
	if (err && err != -EUCLEAN)
		return -ENETUNREACH;
	return w ? fetch_locked(o, true, w, NULL) : -EINPROGRESS;
}

/* Under lock. */
static int facts_locked(struct object *o, enum supply_need need,
			struct waiter *w, struct supply_facts *out)
{
	int err;

	load_locked(o);
	if (o->known && (need == SUPPLY_OBJECT || o->has_csv)) {
		copy_facts_locked(o, out);
		return 0;
	}
	err = remembered_locked(o);
	if (err)
		return err;
	if (o->s->cfg.offline)
		return facts_offline_locked(o, w);
	if (!w)
		return -EINPROGRESS;
	if (o->no_tail)
		return fetch_locked(o, false, w, NULL);
	if (!o->sizing)
		err = budget_allows_small(o->s->cfg.budget, o->key, when_now());
	if (err)
		return err;
	if (!start_size_locked(o))
		return -ENOMEM;
	waitlist_add(&o->sized, w);
	return -EINPROGRESS;
}

int supply_facts(struct supply *s, const char *key, enum supply_need need,
		 struct waiter *w, struct supply_facts *out)
{
	struct object *o = object_get(s, key, true);
	int err;

	if (!o)
		return -ENOMEM;
	pthread_mutex_lock(&o->lock);
	err = facts_locked(o, need, w, out);
	pthread_mutex_unlock(&o->lock);
	object_put(o);
	return err;
}

int supply_members(struct supply *s, const char *key, struct waiter *w,
		   struct archive_directory **out)
{
	struct supply_facts f;
	int err = supply_facts(s, key, SUPPLY_CSV, w, &f);

	if (err)
		return err;
	return catalog_directory_get(s->catalog, key, f.etag, out);
}

void supply_note(struct supply *s, const char *key, const char *etag,
		 uint64_t size, int64_t last_modified, int64_t now)
{
	/* One that is not in memory will find it in the catalog. */
	struct object *o = object_get(s, key, false);

	if (!o)
		return;
	pthread_mutex_lock(&o->lock);
	take_meta_locked(o, etag, size, last_modified, now);
	pthread_mutex_unlock(&o->lock);
	object_put(o);
}

/* ---- revalidation ---- */

static void take_check(struct work *work)
{
	struct object *o = container_of(work, struct object, check_work);
	const struct origin_meta *m = &o->check_meta;
	bool confirmed = !o->check_err && !o->check_changed;

	if (confirmed)
		store_confirm(o->s->cfg.store, o->key, when_now());
	pthread_mutex_lock(&o->lock);
	if (confirmed)
		o->facts.seen_at = when_now();
	else if (!o->check_err)
		take_meta_locked(o, m->etag, m->size, m->last_modified,
				 when_now());
	o->checking = false;
	pthread_mutex_unlock(&o->lock);
	object_put(o);
}

static void on_check(void *arg, int err, bool changed,
		     const struct origin_meta *meta)
{
	struct object *o = arg;

	o->check_err = err;
	o->check_changed = changed;
	o->check_meta = *meta;
	workers_submit(o->s->cfg.quick, &o->check_work);
}

/* Under lock: is the cached version still what the origin has? Nobody waits
 * for the answer. */
static void revalidate_locked(struct object *o, const struct store_info *info)
{
	const struct supply_config *cfg = &o->s->cfg;
	int64_t seen = info->checked_at > o->facts.seen_at ? info->checked_at
							   : o->facts.seen_at;
	int64_t age_s = when_now() - seen;

	if (cfg->offline || o->checking || seen == INT64_MAX)
		return;
	if (age_s >= 0 && (uint64_t)age_s * 1000 < cfg->revalidate_ms)
		return;
	o->checking = true;
	object_ref(o);
	if (!origin_head(cfg->origin, ORIGIN_MAIN, o->key,
			 info->etag[0] ? info->etag : NULL, on_check, o)) {
		o->checking = false;
		object_put(o);
	}
}

/* ---- the object itself ---- */

static void keep_directory(struct object *o, const struct admission_result *r)
{
	struct catalog_facts f = {
		.size = r->info.size,
		.last_modified = r->info.last_modified,
		.seen_at = when_now(),
	};

	/* What is adopted offline and has no name is no news of the origin. */
	if (o->s->cfg.offline && !r->info.etag[0])
		f.seen_at = 0;
	snprintf(f.etag, sizeof(f.etag), "%s", r->info.etag);
	count_csv(&f, r->directory, o->key);
	catalog_facts_put(o->s->catalog, o->key, &f, r->directory);
}

/* Under lock. */
static void drop_fill_locked(struct object *o)
{
	prefill_fill_free(o->fill);
	o->fill = NULL;
}

static void on_admitted(void *arg, const struct admission_result *r)
{
	struct object *o = arg;
	struct supply *s = o->s;
	int err = r->err;
	bool again;

	if (!err && r->directory)
		keep_directory(o, r);
	pthread_mutex_lock(&o->lock);
	/* Offline, what is cached is what there is. */
	if (!err && s->cfg.offline)
		o->known = false;
	if (!err || r->changed) {
		take_meta_locked(o, r->info.etag, r->info.size,
				 r->info.last_modified, when_now());
		o->has_csv = false;
	}
	if (!err)
		load_csv_locked(o);
	if (!err && r->directory && !o->has_csv) {
		/* No ETag to keep it by: for this run only. */
		count_csv(&o->facts, r->directory, o->key);
		o->has_csv = true;
	}
	o->told_republished = false;
	o->refused = err == -EBADMSG ? r->verdict : VERDICT_NONE;
	remember_locked(o, err);
	o->admission = NULL;
	drop_fill_locked(o);
	list_fetching(o, false);
	/* Somebody came after the last one had given up. */
	again = err == -ECANCELED;
	waitlist_wake(&o->opened_by, again ? 0 : err);
	pthread_mutex_unlock(&o->lock);
	leave_place(o);
	object_put(o);
	pump_queue(s);
}

static void list_fetching(struct object *o, bool begins)
{
	struct supply *s = o->s;

	pthread_mutex_lock(&s->lock);
	if (begins)
		TAILQ_INSERT_TAIL(&s->fetching, o, admissions);
	else
		TAILQ_REMOVE(&s->fetching, o, admissions);
	s->fetching_n += begins ? 1 : -1u;
	pthread_mutex_unlock(&s->lock);
}

/* Under lock. The admission has the reference that the caller took. */
static int admit_locked(struct object *o, bool recheck)
{
	struct origin_meta meta = {.size = UINT64_MAX, .last_modified = -1};
	int err;

	if (o->known) {
		snprintf(meta.etag, sizeof(meta.etag), "%s", o->facts.etag);
		meta.size = o->facts.size;
		meta.last_modified = o->facts.last_modified;
	}
	err = admission_start(&o->admission, &o->s->env, o->key, &meta, recheck,
			      o->fill, on_admitted, o);
	if (err)
		return err;
	o->fetch_started_ms = o->wait_logged_ms = o->done_at_ms = when_ms();
	o->done_last = 0;
	list_fetching(o, true);
	metrics_add(METRIC_CACHE_MISSES, 1);
	return 0;
}

/* With s->lock held: may one more begin? */
static bool is_room_locked(const struct supply *s)
{
	return s->admitting - s->stalled < s->cfg.admissions &&
	       s->admitting < s->cfg.admissions * CEILING;
}

/* True where it may begin, and then it counts; else it is in the queue. In one
 * go, or those under way might all end in between and nobody take it out. */
static bool take_place_locked(struct object *o, bool recheck)
{
	struct supply *s = o->s;
	bool free;

	pthread_mutex_lock(&s->lock);
	o->refs++;
	free = is_room_locked(s);
	if (free) {
		s->admitting++;
	} else {
		o->queued = true;
		o->queued_recheck = recheck;
		TAILQ_INSERT_TAIL(&s->queue, o, admissions);
	}
	pthread_mutex_unlock(&s->lock);
	return free;
}

static void leave_place(struct object *o)
{
	struct supply *s = o->s;

	pthread_mutex_lock(&s->lock);
	s->admitting--;
	s->stalled -= o->stalls;
	o->stalls = false;
	pthread_mutex_unlock(&s->lock);
}

/* Under lock: @w, whose bytes may be given to @r, waits for what is under way.
 * Whoever is listed may be woken and gone at once: so that comes last. */
static int await_locked(struct object *o, struct waiter *w,
			const struct prefill_reader *r)
{
	if (r)
		prefill_offer(o->fill, r);
	waitlist_add(&o->opened_by, w);
	return -EINPROGRESS;
}

/*
 * Under lock: does the budget allow it? So that who is refused need not wait
 * for those under way; fs/admission.c asks again when it is about to begin.
 */
static int afford_locked(struct object *o)
{
	const struct supply_config *cfg = &o->s->cfg;
	uint64_t lacking = UINT64_MAX, staged, size;

	if (!cfg->budget)
		return 0;
	if (o->known && !o->is_zip && o->facts.size <= STORE_SMALL_MAX)
		return budget_allows_small(cfg->budget, o->key, when_now());
	if (o->known) {
		lacking = o->facts.size;
		if (store_partial(cfg->store, o->key, &staged, &size) == 0)
			lacking -= staged < lacking ? staged : lacking;
	}
	return budget_allows(cfg->budget, o->key, lacking, when_now());
}

/* Under lock: into the cache with it; -EINPROGRESS once @w waits. @recheck:
 * from the cache itself, if it holds. */
static int fetch_locked(struct object *o, bool recheck, struct waiter *w,
			const struct prefill_reader *r)
{
	int err;

	if (!recheck && !o->admission && !o->queued) {
		err = afford_locked(o);
		if (err)
			return err;
	}
	if (!o->fill && o->is_zip)
		o->fill = prefill_fill_create(o->s->cfg.prefill);
	if (!o->admission && !o->queued && take_place_locked(o, recheck)) {
		err = admit_locked(o, recheck);
		if (err) {
			drop_fill_locked(o);
			leave_place(o);
			object_put(o);
			return err;
		}
	}
	return await_locked(o, w, r);
}

/* Begins one that waited; those nobody waits for any more are left out. */
static void begin_queued(struct object *o)
{
	int err = 0;
	bool begun = false;

	pthread_mutex_lock(&o->lock);
	o->queued = false;
	if (!waitlist_empty(&o->opened_by)) {
		err = admit_locked(o, o->queued_recheck);
		begun = !err;
		if (err)
			waitlist_wake(&o->opened_by, err);
	}
	if (!begun)
		drop_fill_locked(o);
	pthread_mutex_unlock(&o->lock);
	if (begun)
		return;
	leave_place(o);
	object_put(o);
}

static void pump_queue(struct supply *s)
{
	struct object *o;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		o = is_room_locked(s) ? TAILQ_FIRST(&s->queue) : NULL;
		if (o) {
			TAILQ_REMOVE(&s->queue, o, admissions);
			s->admitting++;
		}
		pthread_mutex_unlock(&s->lock);
		if (!o)
			return;
		begin_queued(o);
	}
}

static void write_opened(struct work *work)
{
	struct object *o = container_of(work, struct object, open_work);

	catalog_ledger_add(o->s->catalog, o->s->cfg.run_id, "opened", o->key,
			   o->opened_sha256, o->opened_verdict, when_now());
	object_put(o);
}

/* Under lock: the first open of an archive in a run goes into the ledger. */
static void note_open_locked(struct object *o, const struct store_info *info)
{
	if (o->opened || !o->is_zip)
		return;
	o->opened = true;
	memcpy(o->opened_sha256, info->sha256, sizeof(o->opened_sha256));
	o->opened_verdict = info->verdict;
	object_ref(o);
	workers_submit(o->s->cfg.quick, &o->open_work);
}

/* Under lock: may the cached @c be served for what is current? */
static bool serves_locked(struct object *o, struct store_object *c)
{
	const struct store_info *info = store_object_info(c);

	if (o->known && strcmp(info->etag, o->facts.etag) != 0 &&
	    o->facts.etag[0]) {
		if (!o->told_republished)
			note_republished_locked(o, info->etag, o->facts.etag);
		return false;
	}
	return verdict_serves(info->verdict, o->s->cfg.lenient);
}

/* Under lock. */
static int open_locked(struct object *o, struct waiter *w,
		       const struct prefill_reader *r,
		       struct store_object **out)
{
	struct store_object *c = NULL;
	struct supply_facts ignored;
	int err;

	load_locked(o);
	err = store_acquire(o->s->cfg.store, o->key, &c);
	if (!err && serves_locked(o, c)) {
		revalidate_locked(o, store_object_info(c));
		note_open_locked(o, store_object_info(c));
		*out = c;
		return 0;
	}
	store_release(c);
	if (err && err != -ENOENT && err != -EUCLEAN)
		return err;
	/* It lies there, and strict does not serve it; nobody can be asked. */
	if (!err && o->s->cfg.offline)
		return -EBADMSG;
	if (!w)
		return -EINPROGRESS;
	if (o->admission || o->queued)
		return await_locked(o, w, r);
	if (err != -EUCLEAN) {
		err = remembered_locked(o);
		if (err)
			return err;
		if (o->s->cfg.offline)
			return -ENETUNREACH;
		/* The size is told before the bytes come. */
		if (!o->known && !o->no_tail)
			return facts_locked(o, SUPPLY_OBJECT, w, &ignored);
		return fetch_locked(o, false, w, r);
	}
	return fetch_locked(o, true, w, r);
}

int supply_open(struct supply *s, const char *key, struct waiter *w,
		const struct prefill_reader *r, struct store_object **out)
{
	struct object *o;
	int err;

	if (!store_key_ok(key))
		return -ENOENT;
	o = object_get(s, key, true);
	if (!o)
		return -ENOMEM;
	pthread_mutex_lock(&o->lock);
	err = open_locked(o, w, r, out);
	pthread_mutex_unlock(&o->lock);
	object_put(o);
	return err;
}

int supply_heal(struct supply *s, struct store_object *damaged,
		struct waiter *w, struct store_object **out)
{
	const struct store_info *info = store_object_info(damaged);
	struct store_object *c = NULL;
	struct object *o;
	int err;

	o = object_get(s, store_object_key(damaged), true);
	if (!o)
		return -ENOMEM;
	pthread_mutex_lock(&o->lock);
	load_locked(o);
	if (!o->admission && w) {
		/* Somebody may have healed it since: then another object
		 * lies there. */
		err = store_acquire(s->cfg.store, o->key, &c);
		if (!err && c == damaged) {
			store_release(c);
			c = NULL;
			store_damaged(s->cfg.store, damaged);
			log_event(LOG_LEVEL_WARN, "integrity",
				  "cached_file_damaged", log_str("key", o->key),
				  LOG_END);
		} else {
			store_release(c);
		}
	}
	err = open_locked(o, w, NULL, out);
	pthread_mutex_unlock(&o->lock);
	if (!err && strcmp(store_object_info(*out)->etag, info->etag) != 0) {
		store_release(*out);
		err = -EBADMSG;
	}
	object_put(o);
	return err;
}

void supply_abandon(struct supply *s, const char *key)
{
	struct object *o = object_get(s, key, false);

	if (!o)
		return;
	pthread_mutex_lock(&o->lock);
	if (o->admission && waitlist_empty(&o->opened_by))
		admission_cancel(o->admission);
	pthread_mutex_unlock(&o->lock);
	object_put(o);
}

/* ---- what is told of it ---- */

static void cached_state(struct supply_status *out)
{
	switch (out->cached.state) {
	case CATALOG_VERIFIED:
		out->state = SUPPLY_VERIFIED;
		break;
	case CATALOG_ACCEPTED:
		out->state = SUPPLY_ACCEPTED;
		break;
	case CATALOG_QUARANTINED:
		out->state = SUPPLY_QUARANTINED;
		break;
	case CATALOG_UNCHECKED:
		return; /* nothing is known of it */
	}
	if (out->state != SUPPLY_QUARANTINED)
		out->bytes_done = out->bytes_total = out->cached.size;
}

void supply_status(struct supply *s, const char *key, struct supply_status *out)
{
	struct object *o = object_get(s, key, true);
	uint64_t bytes, size;

	*out = (struct supply_status){.bytes_total = UINT64_MAX};
	if (!o)
		return;
	pthread_mutex_lock(&o->lock);
	load_locked(o);
	out->known = o->known;
	copy_facts_locked(o, &out->facts);
	if (o->known)
		out->bytes_total = o->facts.size;
	if (o->admission) {
		out->fetching = true;
		admission_progress(o->admission, &out->bytes_done,
				   &out->bytes_total);
	}
	pthread_mutex_unlock(&o->lock);
	object_put(o);
	out->has_cached =
		catalog_cached_get(s->catalog, key, &out->cached) == 0;
	if (out->fetching) {
		out->state = SUPPLY_PARTIAL;
	} else if (out->has_cached) {
		cached_state(out);
	} else if (store_partial(s->cfg.store, key, &bytes, &size) == 0) {
		out->state = SUPPLY_PARTIAL;
		out->bytes_done = bytes;
		if (size != UINT64_MAX)
			out->bytes_total = size;
	}
}

/* Objects being fetched, with a reference each. */
struct busy {
	struct object **objects;
	size_t n;
};

static void busy_get(struct supply *s, struct busy *b)
{
	struct object *o;

	b->n = 0;
	pthread_mutex_lock(&s->lock);
	b->objects = calloc(s->fetching_n + 1, sizeof(*b->objects));
	TAILQ_FOREACH(o, &s->fetching, admissions)
	{
		if (!b->objects)
			break;
		o->refs++;
		b->objects[b->n++] = o;
	}
	pthread_mutex_unlock(&s->lock);
}

static void busy_put(struct busy *b)
{
	for (size_t i = 0; i < b->n; i++)
		object_put(b->objects[i]);
	free(b->objects);
}

void supply_each_fetch(struct supply *s, supply_fetch_fn *fn, void *arg)
{
	uint64_t done = 0, total = 0, since;
	struct busy b;
	bool fetching;

	busy_get(s, &b);
	for (size_t i = 0; i < b.n; i++) {
		struct object *o = b.objects[i];

		pthread_mutex_lock(&o->lock);
		fetching = o->admission != NULL;
		if (fetching)
			admission_progress(o->admission, &done, &total);
		since = o->fetch_started_ms;
		pthread_mutex_unlock(&o->lock);
		if (fetching)
			fn(arg, o->key, done, total, when_ms() - since);
	}
	busy_put(&b);
}

/* Under lock. */
static void log_wait_locked(struct object *o, uint64_t now_ms)
{
	uint64_t done, total;

	if (!o->admission || now_ms - o->wait_logged_ms < WAIT_LOG_MS)
		return;
	o->wait_logged_ms = now_ms;
	admission_progress(o->admission, &done, &total);
	log_event(LOG_LEVEL_INFO, "downloader", "download_waiting",
		  log_str("key", o->key), log_u64("bytes_done", done),
		  log_u64("bytes_total", total == UINT64_MAX ? 0 : total),
		  log_u64("waiting_s", (now_ms - o->fetch_started_ms) / 1000),
		  LOG_END);
}

/* Under lock: has its download got nothing for a while? Then it does not
 * count, until it gets some or ends. */
static void note_stall_locked(struct object *o, uint64_t now_ms)
{
	struct supply *s = o->s;
	uint64_t done, total;
	bool stalls;

	/*
	 * Who is held back by our own rate does not stall, and fetch/ can't be
	 * asked who is: an event each time one is held and goes on would be
	 * two for every 16 KiB. So under a rate none counts as stalled; one
	 * that does stall has its place until stall_timeout= ends it.
	 */
	if (!o->admission || s->cfg.paced)
		return;
	admission_progress(o->admission, &done, &total);
	if (done != o->done_last) {
		o->done_last = done;
		o->done_at_ms = now_ms;
	}
	stalls = done < total && now_ms > o->done_at_ms + STALLED_MS;
	pthread_mutex_lock(&s->lock);
	s->stalled += stalls;
	s->stalled -= o->stalls;
	o->stalls = stalls;
	pthread_mutex_unlock(&s->lock);
}

void supply_tick(struct supply *s, uint64_t now_ms)
{
	struct busy b;

	busy_get(s, &b);
	for (size_t i = 0; i < b.n; i++) {
		pthread_mutex_lock(&b.objects[i]->lock);
		log_wait_locked(b.objects[i], now_ms);
		note_stall_locked(b.objects[i], now_ms);
		pthread_mutex_unlock(&b.objects[i]->lock);
	}
	busy_put(&b);
	pthread_mutex_lock(&s->lock);
	if (s->n > OBJECTS_MAX && now_ms > 60000)
		sweep_locked(s, now_ms - 60000);
	pthread_mutex_unlock(&s->lock);
	pump_queue(s);
}

int supply_create(struct supply **out, const struct supply_config *cfg)
{
	struct supply *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->cfg = *cfg;
	s->catalog = store_catalog(cfg->store);
	s->env = (struct admission_env){
		.origin = cfg->origin,
		.store = cfg->store,
		.workers = cfg->heavy,
		.budget = cfg->budget,
		.run_id = cfg->run_id,
		.lenient = cfg->lenient,
		.offline = cfg->offline,
		.has_mirror = cfg->has_mirror,
	};
	pthread_mutex_init(&s->lock, NULL);
	TAILQ_INIT(&s->queue);
	TAILQ_INIT(&s->fetching);
	*out = s;
	return 0;
}

void supply_free(struct supply *s)
{
	struct batch *b;

	if (!s)
		return;
	while ((b = s->batches)) {
		s->batches = b->next;
		batch_free(b);
	}
	tdestroy(s->objects, object_free);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

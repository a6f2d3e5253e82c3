#include "fs/listings.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"
#include "fs/when.h"

enum {
	/* How long an old listing that could not be renewed is used on before
	 * the origin is asked again. */
	STALE_MS = 30000,
	/* How long "it exists" from a probe is believed. */
	PROBED_MS = 60000,
	REMEMBERED_MAX = 4096,
};

/* A prefix that is being asked for, or of which something is remembered that
 * the catalog can't hold. */
struct prefix {
	char *name;
	struct listings *l;
	bool busy;		  /* being asked for; protected by l->lock */
	struct waitlist waiters;  /* added to and woken under l->lock */
	uint64_t stale_until_ms;  /* protected by l->lock */
	uint64_t probed_until_ms; /* protected by l->lock */
	/* While busy these belong to whoever carries the answer on. */
	bool probe;
	int err;
	struct listing *answer;
	struct work work;
};

struct listings {
	struct listings_config cfg;
	pthread_mutex_t lock;
	void *prefixes;	  /* tsearch(3) tree by name; protected by lock */
	size_t n;	  /* protected by lock */
	uint64_t answers; /* that ever came; protected by lock */
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct prefix *)a)->name,
		      ((const struct prefix *)b)->name);
}

static void prefix_free(void *arg)
{
	struct prefix *p = arg;

	free(p->name);
	free(p);
}

/* ---- the table ---- */

static struct prefix *find_locked(struct listings *l, const char *name)
{
	struct prefix probe = {.name = (char *)name};
	struct prefix **found = tfind(&probe, &l->prefixes, by_name);

	return found ? *found : NULL;
}

struct sweep {
	uint64_t now_ms;
	struct prefix *idle[256];
	size_t n;
};

static void collect_idle(const void *node, VISIT visit, void *arg)
{
	struct prefix *p = *(struct prefix *const *)node;
	struct sweep *s = arg;

	if (visit != postorder && visit != leaf)
		return;
	if (p->busy || s->n == 256)
		return;
	if (p->stale_until_ms <= s->now_ms && p->probed_until_ms <= s->now_ms)
		s->idle[s->n++] = p;
}

static void sweep_locked(struct listings *l)
{
	struct sweep s = {.now_ms = when_ms()};

	twalk_r(l->prefixes, collect_idle, &s);
	for (size_t i = 0; i < s.n; i++) {
		tdelete(s.idle[i], &l->prefixes, by_name);
		prefix_free(s.idle[i]);
		l->n--;
	}
}

static struct prefix *obtain_locked(struct listings *l, const char *name)
{
	struct prefix *p = find_locked(l, name);

	if (p)
		return p;
	if (l->n >= REMEMBERED_MAX)
		sweep_locked(l);
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->l = l;
	p->name = strdup(name);
	if (!p->name || !tsearch(p, &l->prefixes, by_name)) {
		prefix_free(p);
		return NULL;
	}
	l->n++;
	return p;
}

/* ---- what the catalog says ---- */

bool listings_fresh(struct listings *l, int64_t fetched_at)
{
	int64_t age_s = when_now() - fetched_at;

	return l->cfg.offline ||
	       (age_s >= 0 && (uint64_t)age_s * 1000 <= l->cfg.ttl_ms);
}

/* 0 and -ENOENT as listings_ensure(); -ENODATA where the origin must be
 * asked, and *known says whether there is an older answer. */
static int ask_catalog(struct listings *l, const char *prefix, bool stale_ok,
		       bool *known)
{
	int64_t fetched_at, age_s;
	uint64_t entries;
	bool empty;

	*known = false;
	if (catalog_listing_time(l->cfg.catalog, prefix, &fetched_at, &entries))
		return -ENODATA;
	empty = entries == 0;
	*known = !empty;
	if (!empty && (stale_ok || listings_fresh(l, fetched_at)))
		return 0;
	age_s = when_now() - fetched_at;
	if (empty &&
	    (l->cfg.offline || stale_ok ||
	     (age_s >= 0 && (uint64_t)age_s * 1000 <= l->cfg.negative_ttl_ms)))
		return -ENOENT;
	return -ENODATA;
}

/* ---- asking ---- */

static int keep(struct listings *l, const struct listing *answer, int64_t now)
{
	struct catalog_entry *entries;
	int err;

	entries = calloc(answer->n ? answer->n : 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < answer->n; i++) {
		const struct listing_entry *e = &answer->entries[i];

		entries[i] = (struct catalog_entry){
			.name = e->name,
			.is_prefix = e->is_prefix,
			.etag = e->etag,
			.size = e->size,
			.last_modified = e->last_modified,
		};
	}
	err = catalog_listing_put(l->cfg.catalog, answer->prefix, entries,
				  answer->n, now);
	free(entries);
	return err;
}

static int take_listing(struct listings *l, const struct listing *answer)
{
	int64_t now = when_now();
	int err = keep(l, answer, now);

	if (err)
		return err;
	log_event(LOG_LEVEL_DEBUG, "listing", "listing_fetched",
		  log_str("prefix", answer->prefix),
		  log_u64("entries", answer->n), LOG_END);
	for (size_t i = 0; i < answer->n; i++)
		if (!answer->entries[i].is_prefix)
			l->cfg.on_entry(l->cfg.arg, answer->prefix,
					&answer->entries[i], now);
	return 0;
}

static bool is_network_error(int err)
{
	return err == -ENETUNREACH || err == -ETIMEDOUT || err == -EPROTO ||
	       err == -EACCES;
}

/* On a worker: an answer becomes rows, then those who wait look again. */
static void take_answer(struct work *work)
{
	struct prefix *p = container_of(work, struct prefix, work);
	struct listings *l = p->l;
	bool known = false;
	int err = p->err;

	/* One entry of a probe is no listing; none at all is an empty one. */
	if (!err && (!p->probe || p->answer->n == 0))
		err = take_listing(l, p->answer);
	if (err && !p->probe)
		ask_catalog(l, p->name, true, &known);
	if (err && err != -ECANCELED)
		log_event(known ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, "listing",
			  known ? "stale_listing_used" : "listing_failed",
			  log_str("prefix", p->name),
			  log_str("error", strerror(-err)), LOG_END);

	pthread_mutex_lock(&l->lock);
	if (!err && p->probe && p->answer->n > 0)
		p->probed_until_ms = when_ms() + PROBED_MS;
	if (known && is_network_error(err)) {
		p->stale_until_ms = when_ms() + STALE_MS;
		err = 0;
	}
	listing_free(p->answer);
	p->answer = NULL;
	p->busy = false;
	l->answers++;
	waitlist_wake(&p->waiters, err);
	pthread_mutex_unlock(&l->lock);
}

static void on_answer(void *arg, int err, struct listing *answer)
{
	struct prefix *p = arg;

	p->err = err;
	p->answer = answer;
	workers_submit(p->l->cfg.workers, &p->work);
}

static int ask_origin_locked(struct listings *l, const char *name, bool probe,
			     struct waiter *w)
{
	struct prefix *p = obtain_locked(l, name);

	if (!p)
		return -ENOMEM;
	if (!p->busy) {
		p->probe = probe;
		p->work.run = take_answer;
		p->busy = true;
		if (!origin_list(l->cfg.origin, name, probe ? 1 : 0, on_answer,
				 p)) {
			p->busy = false;
			return -ENOMEM;
		}
	}
	if (w)
		waitlist_add(&p->waiters, w);
	return -EINPROGRESS;
}

/* ---- the two questions ---- */

enum manner { IF_KNOWN, START, WAIT };

/* Once; -EAGAIN where an answer came between a look into the catalog and the
 * one at what is under way, since it may have been this one's. */
static int ask_once(struct listings *l, const char *name, bool probe,
		    enum manner manner, struct waiter *w)
{
	uint64_t now_ms = when_ms(), answers;
	bool known, stale_ok = false, probed = false;
	struct prefix *p;
	int err;

	pthread_mutex_lock(&l->lock);
	p = find_locked(l, name);
	if (p) {
		stale_ok = p->stale_until_ms > now_ms;
		probed = probe && p->probed_until_ms > now_ms;
	}
	answers = l->answers;
	pthread_mutex_unlock(&l->lock);
	if (probed)
		return 0;
	err = ask_catalog(l, name, stale_ok, &known);
	if (err != -ENODATA)
		return err;
	/* Folders do not vanish from the archive: an old listing is proof
	 * enough that one exists. */
	if (probe && known)
		return 0;
	if (l->cfg.offline)
		return known ? 0 : -ENETUNREACH;
	if (manner == IF_KNOWN)
		return -EINPROGRESS;
	err = budget_allows_small(l->cfg.budget, name, when_now());
	if (err)
		return known ? 0 : err;
	pthread_mutex_lock(&l->lock);
	p = find_locked(l, name);
	if (l->answers != answers && !(p && p->busy))
		err = -EAGAIN;
	else
		err = ask_origin_locked(l, name, probe, w);
	pthread_mutex_unlock(&l->lock);
	return err;
}

static int ask(struct listings *l, const char *name, bool probe,
	       enum manner manner, struct waiter *w)
{
	int err;

	do {
		err = ask_once(l, name, probe, manner, w);
	} while (err == -EAGAIN);
	return err;
}

int listings_ensure(struct listings *l, const char *prefix, struct waiter *w)
{
	return ask(l, prefix, false, w ? WAIT : IF_KNOWN, w);
}

int listings_probe(struct listings *l, const char *prefix, struct waiter *w)
{
	return ask(l, prefix, true, w ? WAIT : IF_KNOWN, w);
}

void listings_start(struct listings *l, const char *prefix)
{
	ask(l, prefix, false, START, NULL);
}

int listings_create(struct listings **out, const struct listings_config *cfg)
{
	struct listings *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->cfg = *cfg;
	pthread_mutex_init(&l->lock, NULL);
	*out = l;
	return 0;
}

void listings_free(struct listings *l)
{
	if (!l)
		return;
	tdestroy(l->prefixes, prefix_free);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

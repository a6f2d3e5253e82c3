#include "fs/budget.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "fs/date.h"
#include "fs/log.h"

enum {
	DAY_S = 86400,
	KEEP_AFTER_S = 5,
};

/* To a download under way. */
struct promise {
	char *key;
	uint64_t bytes; /* that have not come */
	LIST_ENTRY(promise) link;
};

struct budget {
	uint64_t limit;
	pthread_mutex_t lock; /* all below */
	int64_t day;
	uint64_t small, downloads; /* bytes that came today */
	uint64_t promised;
	LIST_HEAD(, promise) promises;
	/* The day's first download, where it is larger than the budget, and
	 * what has not come of it; or NULL. */
	char *first;
	uint64_t first_left;
	bool told; /* today, that it is spent */
	/* What should be kept is not: of a download, of anything. */
	bool is_due, is_changed;
	int64_t kept_at;
};

int budget_create(struct budget **out, uint64_t limit_bytes,
		  const struct spending *kept)
{
	struct budget *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->limit = limit_bytes;
	pthread_mutex_init(&b->lock, NULL);
	LIST_INIT(&b->promises);
	if (kept) {
		b->day = kept->day;
		b->downloads = kept->downloads < kept->bytes ? kept->downloads
							     : kept->bytes;
		b->small = kept->bytes - b->downloads;
	}
	*out = b;
	return 0;
}

static void drop_locked(struct budget *b, struct promise *p)
{
	b->promised -= p->bytes;
	LIST_REMOVE(p, link);
	free(p->key);
	free(p);
}

void budget_free(struct budget *b)
{
	if (!b)
		return;
	while (!LIST_EMPTY(&b->promises))
		drop_locked(b, LIST_FIRST(&b->promises));
	pthread_mutex_destroy(&b->lock);
	free(b->first);
	free(b);
}

static uint64_t add_sat(uint64_t x, uint64_t y)
{
	return x > UINT64_MAX - y ? UINT64_MAX : x + y;
}

static struct promise *find_locked(struct budget *b, const char *key)
{
	struct promise *p;

	LIST_FOREACH(p, &b->promises, link)
	{
		if (strcmp(p->key, key) == 0)
			break;
	}
	return p;
}

static void forget_first_locked(struct budget *b)
{
	free(b->first);
	b->first = NULL;
}

/* Another day, also an earlier one: a clock that was wrong must not keep the
 * budget spent for years. */
static void turn_day_locked(struct budget *b, int64_t now)
{
	int64_t day = now / DAY_S;

	if (day == b->day)
		return;
	b->day = day;
	b->small = b->downloads = 0;
	b->told = false;
	b->is_changed = true;
	/* One under way is the first of this day, too. */
	if (b->first && !find_locked(b, b->first))
		forget_first_locked(b);
}

static uint64_t taken_locked(const struct budget *b)
{
	return add_sat(add_sat(b->small, b->downloads), b->promised);
}

static bool is_left_locked(const struct budget *b, uint64_t bytes)
{
	uint64_t taken = taken_locked(b);

	/* Of an unknown size: something is left. */
	if (bytes == UINT64_MAX)
		return taken < b->limit;
	return bytes == 0 || add_sat(taken, bytes) <= b->limit;
}

static bool is_first_locked(const struct budget *b)
{
	return b->downloads == 0 && LIST_EMPTY(&b->promises);
}

static bool is_rest_of_first_locked(const struct budget *b, const char *key,
				    uint64_t bytes)
{
	return b->first && strcmp(b->first, key) == 0 && bytes <= b->first_left;
}

static bool fits_locked(const struct budget *b, const char *key, uint64_t bytes)
{
	return is_first_locked(b) || is_left_locked(b, bytes) ||
	       is_rest_of_first_locked(b, key, bytes);
}

static void tell_locked(struct budget *b, const char *key)
{
	char day[DATE_TEXT_MAX], until[DATE_TEXT_MAX + 16];

	if (b->told)
		return;
	b->told = true;
	date_format(date_from_days(b->day + 1), day);
	snprintf(until, sizeof(until), "%sT00:00:00Z", day);
	log_event(LOG_LEVEL_WARN, "fetch", "budget_spent",
		  log_u64("budget_bytes", b->limit),
		  log_u64("spent_bytes", add_sat(b->small, b->downloads)),
		  log_u64("promised_bytes", b->promised),
		  log_str("until", until), log_str("refused", key), LOG_END);
}

static int judge_locked(struct budget *b, bool allowed, const char *key)
{
	if (allowed)
		return 0;
	tell_locked(b, key);
	return -EDQUOT;
}

int budget_allows(struct budget *b, const char *key, uint64_t bytes,
		  int64_t now)
{
	int err;

	if (!b)
		return 0;
	pthread_mutex_lock(&b->lock);
	turn_day_locked(b, now);
	err = judge_locked(b, fits_locked(b, key, bytes), key);
	pthread_mutex_unlock(&b->lock);
	return err;
}

int budget_allows_small(struct budget *b, const char *key, int64_t now)
{
	int err;

	if (!b)
		return 0;
	pthread_mutex_lock(&b->lock);
	turn_day_locked(b, now);
	err = judge_locked(b, b->small < b->limit, key);
	pthread_mutex_unlock(&b->lock);
	return err;
}

static int promise_locked(struct budget *b, const char *key, uint64_t bytes)
{
	struct promise *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->key = strdup(key);
	if (!p->key) {
		free(p);
		return -ENOMEM;
	}
	p->bytes = bytes == UINT64_MAX ? 0 : bytes;
	b->promised += p->bytes;
	LIST_INSERT_HEAD(&b->promises, p, link);
	b->is_due = true;
	return 0;
}

static int note_first_locked(struct budget *b, const char *key, uint64_t bytes)
{
	char *copy;

	if (!is_first_locked(b) || is_left_locked(b, bytes) ||
	    bytes == UINT64_MAX)
		return 0;
	copy = strdup(key);
	if (!copy)
		return -ENOMEM;
	forget_first_locked(b);
	b->first = copy;
	b->first_left = bytes;
	return 0;
}

int budget_begin(struct budget *b, const char *key, uint64_t bytes, int64_t now)
{
	struct promise *before;
	int err;

	if (!b)
		return 0;
	pthread_mutex_lock(&b->lock);
	turn_day_locked(b, now);
	before = find_locked(b, key);
	if (before) {
		drop_locked(b, before);
		b->is_due = true;
	}
	err = judge_locked(b, fits_locked(b, key, bytes), key);
	if (!err)
		err = note_first_locked(b, key, bytes);
	if (!err)
		err = promise_locked(b, key, bytes);
	pthread_mutex_unlock(&b->lock);
	return err;
}

void budget_end(struct budget *b, const char *key, int64_t now)
{
	struct promise *p;

	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	turn_day_locked(b, now);
	p = find_locked(b, key);
	if (p) {
		drop_locked(b, p);
		b->is_due = true;
	}
	pthread_mutex_unlock(&b->lock);
}

void budget_came(struct budget *b, bool is_download, const char *key,
		 uint64_t bytes, int64_t now)
{
	struct promise *p;
	uint64_t kept = 0;

	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	turn_day_locked(b, now);
	if (is_download) {
		b->downloads = add_sat(b->downloads, bytes);
		if (b->first && strcmp(b->first, key) == 0)
			b->first_left -=
				bytes < b->first_left ? bytes : b->first_left;
		p = find_locked(b, key);
		if (p) {
			kept = bytes < p->bytes ? bytes : p->bytes;
			p->bytes -= kept;
			b->promised -= kept;
		}
	} else {
		b->small = add_sat(b->small, bytes);
	}
	/* What was promised was kept as spent already. */
	if (kept < bytes)
		b->is_changed = true;
	pthread_mutex_unlock(&b->lock);
}

bool budget_stats(struct budget *b, int64_t now, uint64_t *limit_bytes,
		  uint64_t *spent_bytes)
{
	if (!b)
		return false;
	pthread_mutex_lock(&b->lock);
	turn_day_locked(b, now);
	*limit_bytes = b->limit;
	*spent_bytes = add_sat(b->small, b->downloads);
	pthread_mutex_unlock(&b->lock);
	return true;
}

bool budget_to_keep(struct budget *b, bool all, int64_t now,
		    struct spending *out)
{
	bool keep;

	if (!b)
		return false;
	pthread_mutex_lock(&b->lock);
	turn_day_locked(b, now);
	keep = b->is_due ||
	       (b->is_changed &&
		(all || now < b->kept_at || now - b->kept_at >= KEEP_AFTER_S));
	if (keep) {
		b->is_due = b->is_changed = false;
		b->kept_at = now;
		*out = (struct spending){
			.day = b->day,
			.bytes = taken_locked(b),
			.downloads = add_sat(b->downloads, b->promised),
		};
	}
	pthread_mutex_unlock(&b->lock);
	return keep;
}

void budget_not_kept(struct budget *b)
{
	pthread_mutex_lock(&b->lock);
	b->is_changed = true;
	pthread_mutex_unlock(&b->lock);
}

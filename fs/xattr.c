#include "fs/xattr.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/metrics.h"
#include "fs/path.h"
#include "fs/when.h"

#define PREFIX "user.tickfs."

enum {
	LISTED_MAX = 3072, /* of names and values together */
	LISTED_VALUE_MAX = 600,
};

/* What the values of one path are made from; only what its kind needs. */
struct subject {
	const struct xattr_sources *x;
	const char *path;
	struct supply_status status; /* of a file */
	const char *key;
	struct folder *folder; /* of a folder, or NULL if not listed */
};

struct attribute {
	const char *name;
	bool is_number;
	/* A fresh string, or NULL: it has no value now. */
	char *(*value)(const struct subject *s);
};

static char *__attribute__((format(printf, 1, 2))) text(const char *format, ...)
{
	va_list ap;
	char *s;

	va_start(ap, format);
	if (vasprintf(&s, format, ap) < 0)
		s = NULL;
	va_end(ap);
	return s;
}

static char *number(uint64_t n)
{
	return text("%llu", (unsigned long long)n);
}

static char *fraction(double d)
{
	return text("%.6g", d);
}

static char *iso_time(int64_t seconds)
{
	char buf[WHEN_TEXT_MAX];

	return when_text(seconds, buf) ? text("%s", buf) : NULL;
}

static char *hex(const unsigned char digest[32])
{
	char buf[65];

	for (int i = 0; i < 32; i++)
		snprintf(buf + 2 * i, 3, "%02x", digest[i]);
	return text("%s", buf);
}

/* ---- a file ---- */

/* What is cached may be of another origin than this mount's, and of another
 * archive; where that is not known, nothing is said. */
static char *origin_url_of(const struct subject *s)
{
	const char *base = s->status.has_cached ? s->status.cached.origin
						: origin_base(s->x->origin);
	char url[4096];

	return *base && origin_url(base, s->key, url, sizeof(url)) == 0
		       ? text("%s", url)
		       : NULL;
}

static char *origin_etag_of(const struct subject *s)
{
	return s->status.known && s->status.facts.etag[0]
		       ? text("%s", s->status.facts.etag)
		       : NULL;
}

static char *last_modified_of(const struct subject *s)
{
	return s->status.known ? iso_time(s->status.facts.last_modified) : NULL;
}

static char *cache_state_of(const struct subject *s)
{
	static const char *const names[] = {
		[SUPPLY_ABSENT] = "absent",
		[SUPPLY_PARTIAL] = "partial",
		[SUPPLY_VERIFIED] = "verified",
		[SUPPLY_ACCEPTED] = "accepted",
		[SUPPLY_QUARANTINED] = "quarantined",
	};

	return text("%s", names[s->status.state]);
}

static char *cache_bytes_of(const struct subject *s)
{
	return number(s->status.has_cached ? s->status.cached.disk_bytes : 0);
}

static char *bytes_done_of(const struct subject *s)
{
	return number(s->status.bytes_done);
}

static char *bytes_total_of(const struct subject *s)
{
	return s->status.bytes_total == UINT64_MAX
		       ? NULL
		       : number(s->status.bytes_total);
}

static char *verdict_of(const struct subject *s)
{
	const char *name;

	if (!s->status.has_cached)
		return NULL;
	name = verdict_name(s->status.cached.verdict);
	return *name ? text("%s", name) : NULL;
}

static char *sha256_of(const struct subject *s)
{
	return s->status.has_cached ? hex(s->status.cached.sha256) : NULL;
}

static char *published_of(const struct subject *s)
{
	return s->status.has_cached && s->status.cached.has_published
		       ? hex(s->status.cached.published)
		       : NULL;
}

static const struct attribute file_attributes[] = {
	{"origin.url", false, origin_url_of},
	{"origin.etag", false, origin_etag_of},
	{"origin.last_modified", false, last_modified_of},
	{"cache.state", false, cache_state_of},
	{"cache.bytes", true, cache_bytes_of},
	{"fetch.bytes_done", true, bytes_done_of},
	{"fetch.bytes_total", true, bytes_total_of},
	{"integrity.verdict", false, verdict_of},
	{"integrity.sha256", false, sha256_of},
	{"integrity.sha256_published", false, published_of},
	{0},
};

/* ---- a folder ---- */

static char *listing_files(const struct subject *s)
{
	return s->folder ? number(s->folder->files) : NULL;
}

static char *first_date(const struct subject *s)
{
	return s->folder && s->folder->has_dates && s->folder->first_date[0]
		       ? text("%s", s->folder->first_date)
		       : NULL;
}

static char *last_date(const struct subject *s)
{
	return s->folder && s->folder->has_dates && s->folder->last_date[0]
		       ? text("%s", s->folder->last_date)
		       : NULL;
}

static char *missing_dates(const struct subject *s)
{
	return s->folder && s->folder->has_dates
		       ? text("%s", s->folder->missing_dates)
		       : NULL;
}

static char *only_in_monthly(const struct subject *s)
{
	return s->folder && s->folder->has_dates
		       ? text("%s", s->folder->dates_only_in_monthly)
		       : NULL;
}

static char *listing_age(const struct subject *s)
{
	int64_t age;

	if (!s->folder || !s->folder->fetched_at)
		return NULL;
	age = when_now() - s->folder->fetched_at;
	return number(age > 0 ? (uint64_t)age : 0);
}

static void usage(const struct subject *s, uint64_t *files, uint64_t *bytes)
{
	char prefixes[2][PATH_KEY_MAX + 1];
	unsigned int n = path_prefixes(s->path, prefixes);
	uint64_t f, b;

	*files = *bytes = 0;
	for (unsigned int i = 0; i < n; i++) {
		if (catalog_usage(store_catalog(s->x->store), prefixes[i],
				  ".CHECKSUM", &f, &b))
			continue;
		*files += f;
		*bytes += b;
	}
}

static char *cached_files(const struct subject *s)
{
	uint64_t files, bytes;

	usage(s, &files, &bytes);
	return number(files);
}

static char *cached_bytes(const struct subject *s)
{
	uint64_t files, bytes;

	usage(s, &files, &bytes);
	return number(bytes);
}

static const struct attribute folder_attributes[] = {
	{"listing.files", true, listing_files},
	{"listing.first_date", false, first_date},
	{"listing.last_date", false, last_date},
	{"listing.missing_dates", false, missing_dates},
	{"listing.dates_only_in_monthly", false, only_in_monthly},
	{"listing.age_seconds", true, listing_age},
	{"cache.files", true, cached_files},
	{"cache.bytes", true, cached_bytes},
	{0},
};

/* ---- the mount ---- */

static char *run_id_of(const struct subject *s)
{
	return text("%s", s->x->run_id);
}

static char *version_of(const struct subject *s)
{
	(void)s;
	return text("%s", TICKFS_VERSION);
}

static char *uptime_of(const struct subject *s)
{
	return number((when_ms() - s->x->started_ms) / 1000);
}

static char *ratio(uint64_t part, uint64_t whole)
{
	return fraction(whole ? (double)part / (double)whole : 0);
}

static char *hit_rate(const struct subject *s)
{
	uint64_t hits = metrics_get(METRIC_CACHE_HITS);

	(void)s;
	return ratio(hits, hits + metrics_get(METRIC_CACHE_MISSES));
}

static char *error_rate(const struct subject *s)
{
	(void)s;
	return ratio(metrics_get(METRIC_FETCH_ERRORS),
		     metrics_get(METRIC_FETCH_REQUESTS));
}

static char *store_used(const struct subject *s)
{
	struct store_stats st;

	store_stats(s->x->store, &st);
	return number(st.used_bytes);
}

static char *store_quota(const struct subject *s)
{
	struct store_stats st;

	store_stats(s->x->store, &st);
	return number(st.quota_bytes);
}

static char *store_evictions(const struct subject *s)
{
	struct store_stats st;

	store_stats(s->x->store, &st);
	return number(st.evictions);
}

static char *latency_p50(const struct subject *s)
{
	(void)s;
	return fraction(metrics_latency_quantile(0.5));
}

static char *latency_p99(const struct subject *s)
{
	(void)s;
	return fraction(metrics_latency_quantile(0.99));
}

static char *fetch_speed(const struct subject *s)
{
	(void)s;
	return fraction(metrics_rate(METRIC_FETCH_BYTES));
}

static char *read_speed(const struct subject *s)
{
	(void)s;
	return fraction(metrics_rate(METRIC_READ_BYTES));
}

static char *connections(const struct subject *s)
{
	return number(origin_connections(s->x->origin));
}

static char *budget_limit(const struct subject *s)
{
	uint64_t limit, spent;

	return budget_stats(s->x->budget, when_now(), &limit, &spent)
		       ? number(limit)
		       : NULL;
}

static char *budget_spent(const struct subject *s)
{
	uint64_t limit, spent;

	return budget_stats(s->x->budget, when_now(), &limit, &spent)
		       ? number(spent)
		       : NULL;
}

static char *rss(const struct subject *s)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long total, resident;
	int n = 0;

	(void)s;
	if (f) {
		n = fscanf(f, "%llu %llu", &total, &resident);
		fclose(f);
	}
	return n == 2 ? number(resident * (uint64_t)sysconf(_SC_PAGESIZE))
		      : NULL;
}

static char *cpu_seconds(const struct subject *s)
{
	struct timespec ts;

	(void)s;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return text("%.3f", (double)ts.tv_sec + (double)ts.tv_nsec / 1e9);
}

#define POOL(function, value)                                                  \
	static char *function(const struct subject *s)                         \
	{                                                                      \
		struct pool_stats st;                                          \
                                                                               \
		if (!s->x->pool)                                               \
			return NULL;                                           \
		pool_stats(s->x->pool, &st);                                   \
		return number(value);                                          \
	}

POOL(pool_limit, (uint64_t)st.slots *CHECKPOINTS_SPAN)
POOL(pool_used, (uint64_t)st.used *CHECKPOINTS_SPAN)
POOL(pool_decoded, st.bytes)
POOL(pool_decodes, st.decodes)

static char *inodes(const struct subject *s)
{
	return number(node_table_count(s->x->nodes));
}

#define COUNTER(function, metric)                                              \
	static char *function(const struct subject *s)                         \
	{                                                                      \
		(void)s;                                                       \
		return number(metrics_get(metric));                            \
	}

COUNTER(cache_hits, METRIC_CACHE_HITS)
COUNTER(cache_misses, METRIC_CACHE_MISSES)
COUNTER(fetch_bytes, METRIC_FETCH_BYTES)
COUNTER(fetch_requests, METRIC_FETCH_REQUESTS)
COUNTER(fetch_errors, METRIC_FETCH_ERRORS)
COUNTER(fetch_retries, METRIC_FETCH_RETRIES)
COUNTER(fetch_resumes, METRIC_FETCH_RESUMES)
COUNTER(read_bytes, METRIC_READ_BYTES)
COUNTER(read_prefilled, METRIC_READ_PREFILLED)
COUNTER(republished, METRIC_REPUBLISHED)
COUNTER(healed, METRIC_HEALED)

static const struct attribute root_attributes[] = {
	{"run_id", false, run_id_of},
	{"version", false, version_of},
	{"uptime_seconds", true, uptime_of},
	{"cache.hits", true, cache_hits},
	{"cache.misses", true, cache_misses},
	{"cache.hit_rate", true, hit_rate},
	{"cache.bytes", true, store_used},
	{"cache.quota_bytes", true, store_quota},
	{"cache.evictions", true, store_evictions},
	{"cache.healed", true, healed},
	{"fetch.bytes", true, fetch_bytes},
	{"fetch.speed_bytes_per_second", true, fetch_speed},
	{"fetch.latency_seconds_p50", true, latency_p50},
	{"fetch.latency_seconds_p99", true, latency_p99},
	{"fetch.requests", true, fetch_requests},
	{"fetch.errors", true, fetch_errors},
	{"fetch.error_rate", true, error_rate},
	{"fetch.retries", true, fetch_retries},
	{"fetch.resumes", true, fetch_resumes},
	{"fetch.connections", true, connections},
	{"fetch.budget_bytes", true, budget_limit},
	{"fetch.budget_spent_bytes", true, budget_spent},
	{"integrity.republished", true, republished},
	{"read.bytes", true, read_bytes},
	{"read.bytes_per_second", true, read_speed},
	{"read.prefilled_bytes", true, read_prefilled},
	{"pool.bytes", true, pool_limit},
	{"pool.used_bytes", true, pool_used},
	{"pool.decoded_bytes", true, pool_decoded},
	{"pool.decoded_spans", true, pool_decodes},
	{"process.rss_bytes", true, rss},
	{"process.cpu_seconds", true, cpu_seconds},
	{"process.inodes", true, inodes},
	{0},
};

/* ---- looking up ---- */

static const struct attribute *begin(struct subject *s,
				     const struct xattr_sources *x,
				     const char *path,
				     const struct tree_target *tg)
{
	s->x = x;
	s->path = path;
	if (!*path)
		return root_attributes;
	switch (tg->sort) {
	case TREE_FOLDER:
		if (folder_read(x->folders, path, NULL, &s->folder))
			s->folder = NULL;
		return folder_attributes;
	case TREE_CONTROL:
		return NULL;
	default:
		s->key = tg->key;
		supply_status(x->supply, tg->key, &s->status);
		return file_attributes;
	}
}

int xattr_get(const struct xattr_sources *x, const char *path,
	      const struct tree_target *tg, const char *name, char **value,
	      size_t *len)
{
	struct subject s = {0};
	const struct attribute *a;
	char *v = NULL;

	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
		return -ENODATA;
	name += strlen(PREFIX);
	a = begin(&s, x, path, tg);
	for (; a && a->name; a++) {
		if (strcmp(a->name, name) == 0) {
			v = a->value(&s);
			break;
		}
	}
	folder_free(s.folder);
	if (!v)
		return -ENODATA;
	*value = v;
	*len = strlen(v);
	return 0;
}

int xattr_list(const struct xattr_sources *x, const char *path,
	       const struct tree_target *tg, char **names, size_t *len)
{
	struct subject s = {0};
	const struct attribute *a;
	size_t n, room = 0;
	char *list = malloc(LISTED_MAX), *v;

	if (!list)
		return -ENOMEM;
	*len = 0;
	a = begin(&s, x, path, tg);
	for (; a && a->name; a++) {
		v = a->value(&s);
		if (!v)
			continue;
		n = strlen(PREFIX) + strlen(a->name) + 1;
		if (strlen(v) <= LISTED_VALUE_MAX &&
		    room + n + strlen(v) <= LISTED_MAX) {
			room += n + strlen(v);
			memcpy(list + *len, PREFIX, strlen(PREFIX));
			strcpy(list + *len + strlen(PREFIX), a->name);
			*len += n;
		}
		free(v);
	}
	folder_free(s.folder);
	*names = list;
	return 0;
}

void xattr_each_root(const struct xattr_sources *x, xattr_root_fn *fn,
		     void *arg)
{
	struct subject s = {.x = x, .path = ""};
	char *v;

	for (const struct attribute *a = root_attributes; a->name; a++) {
		v = a->value(&s);
		if (v)
			fn(arg, a->name, v, a->is_number);
		free(v);
	}
}

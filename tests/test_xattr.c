/* Names to values. What they must be: design section 6, and what was put. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/metrics.h"
#include "fs/when.h"
#include "fs/xattr.h"
#include "tests/support/fs_bench.h"

#define P      "user.tickfs."
#define PREFIX "data/spot/daily/klines/BTCUSDT/1d/"
#define FOLDER "spot/klines/BTCUSDT/1d"
#define KEY    PREFIX "BTCUSDT-1d-2024-06-10.zip"

static struct xattr_sources sources(struct fs_bench *b)
{
	return (struct xattr_sources){
		.supply = b->supply,
		.store = b->store,
		.origin = b->origin,
		.folders = b->folders,
		.nodes = b->nodes,
		.budget = b->budget,
		.run_id = "backtest-7",
		.started_ms = when_ms() - 5000,
	};
}

static struct tree_target target(struct fs_bench *b, const char *path)
{
	struct tree_target tg;

	assert_int_equal(tree_resolve(b->tree, path, &tg), 0);
	return tg;
}

/* The value, the caller's to free; NULL where there is none. */
static char *value(struct fs_bench *b, const char *path, const char *name)
{
	struct xattr_sources x = sources(b);
	struct tree_target tg = target(b, path);
	char whole[100], *v = NULL;
	size_t len;
	int err;

	snprintf(whole, sizeof(whole), P "%s", name);
	err = xattr_get(&x, path, &tg, whole, &v, &len);
	if (err == -ENODATA)
		return NULL;
	assert_int_equal(err, 0);
	assert_int_equal(strlen(v), len);
	return v;
}

#define assert_value(b, path, name, expected)                                  \
	do {                                                                   \
		char *got = value(b, path, name);                              \
		assert_non_null(got);                                          \
		assert_string_equal(got, expected);                            \
		free(got);                                                     \
	} while (0)
#define assert_no_value(b, path, name) assert_null(value(b, path, name))

static double number(struct fs_bench *b, const char *path, const char *name)
{
	char *v = value(b, path, name), *end;
	double d;

	assert_non_null(v);
	d = strtod(v, &end);
	assert_string_equal(end, "");
	free(v);
	return d;
}

/* ---- names ---- */

static void test_xattr__foreign_names_are_none(void **state)
{
	static const struct {
		const char *name;
		int err;
	} cases[] = {
		/* ENODATA would be asked for again each time (platform.md) */
		{"security.capability", -EOPNOTSUPP},
		{"system.posix_acl_access", -EOPNOTSUPP},
		{"trusted.x", -EOPNOTSUPP},
		{"user", -EOPNOTSUPP},
		{"user.mime_type", -ENODATA},
		{"user.tickfs", -ENODATA},
		{"user.tickfs.", -ENODATA},
		{"user.tickfs.nonsense", -ENODATA},
		/* a file's, and this is the root */
		{"user.tickfs.cache.state", -ENODATA},
	};
	struct fs_bench *b = *state;
	struct xattr_sources x;
	struct tree_target tg;
	size_t len;
	char *v;

	fs_up(b, NULL);
	x = sources(b);
	tg = target(b, "");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(xattr_get(&x, "", &tg, cases[i].name, &v,
					   &len),
				 cases[i].err);
}

/* ---- a file ---- */

static void test_xattr__file_nobody_knows(void **state)
{
	struct fs_bench *b = *state;
	char url[300];

	fs_up(b, NULL);
	snprintf(url, sizeof(url), "%s/" KEY, imitation_url(b->im));
	assert_value(b, FOLDER "/2024-06-10.csv", "origin.url", url);
	assert_value(b, FOLDER "/2024-06-10.csv", "cache.state", "absent");
	assert_value(b, FOLDER "/2024-06-10.csv", "cache.bytes", "0");
	assert_value(b, FOLDER "/2024-06-10.csv", "fetch.bytes_done", "0");
	assert_no_value(b, FOLDER "/2024-06-10.csv", "fetch.bytes_total");
	assert_no_value(b, FOLDER "/2024-06-10.csv", "origin.etag");
	assert_no_value(b, FOLDER "/2024-06-10.csv", "integrity.verdict");
	assert_no_value(b, FOLDER "/2024-06-10.csv", "integrity.sha256");
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

static void test_xattr__file_that_is_cached(void **state)
{
	struct fs_bench *b = *state;
	struct fs_member m = {.name = "a.csv", .data = "1,2\n", .len = 4};
	unsigned char digest[32];
	struct store_object *o;
	char hex[65], bytes[32];
	size_t len;
	void *zip = fs_zip(&m, 1, &len);

	fs_publish_zip(b, KEY, zip, len);
	fs_sha256(zip, len, digest);
	free(zip);
	for (int i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
	sprintf(bytes, "%zu", len);
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &o), 0);
	store_release(o);
	for (int i = 0; i < 2; i++) {
		const char *path = i ? FOLDER "/2024-06-10.csv" : KEY;

		assert_value(b, path, "cache.state", "verified");
		assert_value(b, path, "fetch.bytes_done", bytes);
		assert_value(b, path, "fetch.bytes_total", bytes);
		assert_value(b, path, "integrity.verdict", "verified");
		assert_value(b, path, "integrity.sha256", hex);
		assert_value(b, path, "integrity.sha256_published", hex);
		/* with its index */
		assert_true(number(b, path, "cache.bytes") > (double)len);
	}
}

/* As in a cache that another origin has filled. */
static void test_xattr__url_is_of_the_origin_it_came_from(void **state)
{
	struct fs_bench *b = *state;
	struct catalog_cached row;
	struct store_object *o;
	char url[300];

	fs_publish_csv(b, KEY, "1,2\n", 4);
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &o), 0);
	store_release(o);
	snprintf(url, sizeof(url), "%s/" KEY, imitation_url(b->im));
	assert_value(b, KEY, "origin.url", url);
	assert_int_equal(catalog_cached_get(b->catalog, KEY, &row), 0);
	assert_string_equal(row.origin, imitation_url(b->im));
	strcpy(row.origin, "https://elsewhere.example/x");
	assert_int_equal(catalog_cached_put(b->catalog, KEY, &row), 0);
	assert_value(b, KEY, "origin.url", "https://elsewhere.example/x/" KEY);
	/* Rather nothing than a guess. */
	memset(row.origin, 0, sizeof(row.origin));
	assert_int_equal(catalog_cached_put(b->catalog, KEY, &row), 0);
	assert_no_value(b, KEY, "origin.url");
}

static void test_xattr__file_that_was_refused(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;

	fs_publish_csv(b, KEY, "1,2\n", 4);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true}]");
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &o), -EBADMSG);
	assert_value(b, KEY, "cache.state", "quarantined");
	assert_value(b, KEY, "integrity.verdict", "checksum_stale");
}

/* 1700000000 s after 1970: date -u -d @1700000000 */
static void test_xattr__times_are_iso_8601(void **state)
{
	struct fs_bench *b = *state;
	struct catalog_entry e = {
		.name = "BTCUSDT-1d-2024-06-10.zip",
		.etag = "0123456789abcdef0123456789abcdef",
		.size = 1000,
		.last_modified = 1700000000,
	};

	fs_up(b, NULL);
	catalog_listing_put(b->catalog, PREFIX, &e, 1, when_now());
	assert_value(b, KEY, "origin.last_modified", "2023-11-14T22:13:20Z");
	assert_value(b, KEY, "origin.etag", "0123456789abcdef0123456789abcdef");
	assert_value(b, KEY, "fetch.bytes_total", "1000");
}

/* ---- a folder ---- */

static void list_days(struct fs_bench *b, int64_t at)
{
	static const struct catalog_entry days[] = {
		{.name = "BTCUSDT-1d-2024-06-10.zip", .etag = ""},
		{.name = "BTCUSDT-1d-2024-06-13.zip", .etag = ""},
	};
	static const struct catalog_entry months[] = {
		{.name = "BTCUSDT-1d-2024-05.zip", .etag = ""},
	};

	catalog_listing_put(b->catalog, PREFIX, days, 2, at);
	catalog_listing_put(b->catalog, "data/spot/monthly/klines/BTCUSDT/1d/",
			    months, 1, at);
}

static void test_xattr__folder_tells_of_its_dates(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	list_days(b, when_now() - 100);
	assert_value(b, FOLDER, "listing.files", "3");
	assert_value(b, FOLDER, "listing.first_date", "2024-05");
	assert_value(b, FOLDER, "listing.last_date", "2024-06-13");
	assert_value(b, FOLDER, "listing.missing_dates",
		     "2024-06-01..2024-06-09,2024-06-11..2024-06-12");
	assert_value(b, FOLDER, "listing.dates_only_in_monthly", "");
	assert_in_range(number(b, FOLDER, "listing.age_seconds"), 100, 160);
	assert_no_value(b, FOLDER, "cache.state");
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

static void test_xattr__folder_counts_what_is_cached(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	double bytes;

	fs_publish_csv(b, KEY, "1,2\n", 4);
	fs_publish_csv(b,
		       "data/spot/monthly/klines/BTCUSDT/1d/"
		       "BTCUSDT-1d-2024-05.zip",
		       "1,2\n", 4);
	fs_up(b, NULL);
	assert_value(b, FOLDER, "cache.files", "0");
	assert_value(b, FOLDER, "cache.bytes", "0");
	assert_int_equal(fs_open(b, KEY, &o), 0);
	store_release(o);
	/* Its .CHECKSUM is there too, and is no file of its own. */
	assert_value(b, FOLDER, "cache.files", "1");
	bytes = number(b, FOLDER, "cache.bytes");
	assert_true(bytes > 0);
	assert_int_equal(fs_open(b,
				 "data/spot/monthly/klines/BTCUSDT/1d/"
				 "BTCUSDT-1d-2024-05.zip",
				 &o),
			 0);
	store_release(o);
	assert_value(b, FOLDER, "cache.files", "2");
	assert_value(b, "spot", "cache.files", "2");
	assert_value(b, "data/spot/daily", "cache.files", "1");
	assert_true(number(b, FOLDER, "cache.bytes") > bytes);
}

static void test_xattr__unlisted_folder_asks_nobody(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	assert_no_value(b, FOLDER, "listing.files");
	assert_no_value(b, FOLDER, "listing.age_seconds");
	assert_value(b, FOLDER, "cache.files", "0");
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

static void test_xattr__folder_of_folders_has_no_dates(void **state)
{
	struct catalog_entry e = {
		.name = "klines", .is_prefix = true, .etag = ""};
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	catalog_listing_put(b->catalog, "data/spot/daily/", &e, 1, when_now());
	catalog_listing_put(b->catalog, "data/spot/monthly/", &e, 1,
			    when_now());
	assert_value(b, "spot", "listing.files", "0");
	assert_no_value(b, "spot", "listing.first_date");
	assert_no_value(b, "spot", "listing.missing_dates");
}

/* ---- the mount ---- */

static void test_xattr__mount_tells_of_itself(void **state)
{
	static const char *const names[] = {
		"run_id",
		"version",
		"uptime_seconds",
		"cache.hits",
		"cache.misses",
		"cache.hit_rate",
		"cache.bytes",
		"cache.quota_bytes",
		"cache.evictions",
		"fetch.bytes",
		"fetch.speed_bytes_per_second",
		"fetch.latency_seconds_p50",
		"fetch.latency_seconds_p99",
		"fetch.requests",
		"fetch.errors",
		"fetch.error_rate",
		"fetch.retries",
		"fetch.resumes",
		"fetch.connections",
		"read.bytes",
		"read.bytes_per_second",
		"process.rss_bytes",
		"process.cpu_seconds",
		"process.inodes",
	};
	struct fs_options small = {.quota_bytes = 123456789};
	struct fs_bench *b = *state;
	char *v;

	fs_up(b, &small);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		v = value(b, "", names[i]);
		if (!v)
			fail_msg("no %s", names[i]);
		free(v);
	}
	assert_value(b, "", "run_id", "backtest-7");
	assert_value(b, "", "version", TICKFS_VERSION);
	assert_value(b, "", "cache.quota_bytes", "123456789");
	assert_in_range(number(b, "", "uptime_seconds"), 5, 65);
	assert_true(number(b, "", "process.rss_bytes") > 100000);
	assert_int_equal(number(b, "", "process.inodes"), 0);
}

static void test_xattr__mount_tells_of_its_budget_if_it_has_one(void **state)
{
	const struct fs_options o = {.budget_bytes = 5000};
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	assert_no_value(b, "", "fetch.budget_bytes");
	assert_no_value(b, "", "fetch.budget_spent_bytes");
	fs_down(b);
	fs_up(b, &o);
	budget_came(b->budget, true, "a", 30, when_now());
	budget_came(b->budget, false, "b", 4, when_now());
	assert_value(b, "", "fetch.budget_bytes", "5000");
	assert_value(b, "", "fetch.budget_spent_bytes", "34");
}

static void test_xattr__rates_are_fractions(void **state)
{
	uint64_t hits = metrics_get(METRIC_CACHE_HITS);
	uint64_t misses = metrics_get(METRIC_CACHE_MISSES);
	struct fs_bench *b = *state;
	double rate;

	fs_up(b, NULL);
	/* Three hits to each miss, whatever was before. */
	metrics_add(METRIC_CACHE_HITS, 3 * (misses + 1000) - hits);
	metrics_add(METRIC_CACHE_MISSES, 1000);
	rate = number(b, "", "cache.hit_rate");
	assert_true(rate > 0.7499 && rate < 0.7501);
}

/* ---- lists ---- */

/* Every name with a value, once; the sum of both in *bytes. */
static size_t check_list(struct fs_bench *b, const char *path, size_t *bytes)
{
	struct xattr_sources x = sources(b);
	struct tree_target tg = target(b, path);
	char *names, *v;
	size_t len, value_len, n = 0;

	*bytes = 0;
	assert_int_equal(xattr_list(&x, path, &tg, &names, &len), 0);
	for (char *at = names; at < names + len; at += strlen(at) + 1) {
		assert_memory_equal(at, P, strlen(P));
		assert_int_equal(xattr_get(&x, path, &tg, at, &v, &value_len),
				 0);
		free(v);
		*bytes += strlen(at) + 1 + value_len;
		n++;
	}
	free(names);
	return n;
}

static void test_xattr__every_listed_name_has_a_value(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	size_t bytes;

	fs_publish_csv(b, KEY, "1,2\n", 4);
	fs_up(b, NULL);
	list_days(b, when_now());
	assert_int_equal(fs_open(b, KEY, &o), 0);
	store_release(o);
	assert_true(check_list(b, "", &bytes) >= 23);
	assert_true(check_list(b, FOLDER, &bytes) >= 8);
	assert_true(check_list(b, KEY, &bytes) >= 9);
	assert_int_equal(check_list(b, ".tickfs/status.json", &bytes), 0);
}

/* Every second day of 15 years: 2700 dates are no value for ext4. */
static void test_xattr__long_values_are_read_by_name(void **state)
{
	static struct catalog_entry e[2600];
	static char names[2600][40];
	struct fs_bench *b = *state;
	struct xattr_sources x;
	struct tree_target tg;
	char *list, *v;
	size_t bytes, len;
	struct date d = {.year = 2010, .month = 1, .day = 1};
	char text[DATE_TEXT_MAX];

	fs_up(b, NULL);
	for (int i = 0; i < 2600; i++) {
		date_format(d, text);
		sprintf(names[i], "BTCUSDT-1d-%s.zip", text);
		e[i] = (struct catalog_entry){.name = names[i], .etag = ""};
		d = date_next_day(date_next_day(d));
	}
	catalog_listing_put(b->catalog, PREFIX, e, 2600, when_now());
	catalog_listing_put(b->catalog, "data/spot/monthly/klines/BTCUSDT/1d/",
			    NULL, 0, when_now());
	check_list(b, FOLDER, &bytes);
	assert_true(bytes <= 3072);
	x = sources(b);
	tg = target(b, FOLDER);
	assert_int_equal(xattr_list(&x, FOLDER, &tg, &list, &len), 0);
	for (char *at = list; at < list + len; at += strlen(at) + 1)
		assert_string_not_equal(at, P "listing.missing_dates");
	free(list);
	v = value(b, FOLDER, "listing.missing_dates");
	/* 2599 dates of ten bytes, and the commas between them */
	assert_int_equal(strlen(v), 2599 * 10 + 2598);
	free(v);
}

struct seen {
	unsigned int n;
	bool run_id_is_text, hits_is_number;
};

static void see(void *arg, const char *name, const char *v, bool is_number)
{
	struct seen *s = arg;

	s->n++;
	if (strcmp(name, "run_id") == 0)
		s->run_id_is_text = !is_number && strcmp(v, "backtest-7") == 0;
	if (strcmp(name, "cache.hits") == 0)
		s->hits_is_number = is_number;
}

static void test_xattr__each_of_the_root(void **state)
{
	struct fs_bench *b = *state;
	struct xattr_sources x;
	struct seen s = {0};
	size_t bytes;

	fs_up(b, NULL);
	x = sources(b);
	xattr_each_root(&x, see, &s);
	assert_int_equal(s.n, check_list(b, "", &bytes));
	assert_true(s.run_id_is_text);
	assert_true(s.hits_is_number);
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_xattr__foreign_names_are_none),
		BENCH(test_xattr__file_nobody_knows),
		BENCH(test_xattr__file_that_is_cached),
		BENCH(test_xattr__url_is_of_the_origin_it_came_from),
		BENCH(test_xattr__file_that_was_refused),
		BENCH(test_xattr__times_are_iso_8601),
		BENCH(test_xattr__folder_tells_of_its_dates),
		BENCH(test_xattr__folder_counts_what_is_cached),
		BENCH(test_xattr__unlisted_folder_asks_nobody),
		BENCH(test_xattr__folder_of_folders_has_no_dates),
		BENCH(test_xattr__mount_tells_of_itself),
		BENCH(test_xattr__mount_tells_of_its_budget_if_it_has_one),
		BENCH(test_xattr__rates_are_fractions),
		BENCH(test_xattr__every_listed_name_has_a_value),
		BENCH(test_xattr__long_values_are_read_by_name),
		BENCH(test_xattr__each_of_the_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

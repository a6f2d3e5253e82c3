/* Directory pages, from the catalog and from the imitated origin. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/when.h"
#include "tests/support/fs_bench.h"

#define PREFIX "data/spot/daily/klines/BTCUSDT/1d/"
#define ZIP    "BTCUSDT-1d-2024-01-01.zip"

static const struct fs_options offline = {.offline = true};
static const struct catalog_entry one = {
	.name = ZIP,
	.etag = "0123456789abcdef0123456789abcdef",
	.size = 1000,
	.last_modified = 1700000000,
};

static void publish_two(struct fs_bench *b)
{
	fs_publish(b, PREFIX ZIP, "zip", 3);
	fs_publish(b, PREFIX "sub/file", "file", 4);
}

static int entry(struct fs_bench *b, const char *name, bool *is_prefix,
		 uint64_t *size)
{
	char etag[CATALOG_ETAG_MAX];
	int64_t last_modified, fetched_at;

	return catalog_entry_get(b->catalog, PREFIX, name, is_prefix, etag,
				 size, &last_modified, &fetched_at);
}

static void test_listings__come_into_the_catalog(void **state)
{
	struct fs_bench *b = *state;
	bool is_prefix;
	uint64_t size;

	publish_two(b);
	fs_up(b, NULL);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(entry(b, ZIP, &is_prefix, &size), 0);
	assert_false(is_prefix);
	assert_int_equal(size, 3);
	assert_int_equal(entry(b, "sub", &is_prefix, &size), 0);
	assert_true(is_prefix);
	assert_int_equal(entry(b, "other", &is_prefix, &size), -ENOENT);
}

static void test_listings__one_request_for_many_waiters(void **state)
{
	struct fs_bench *b = *state;
	struct fs_waiter w[20];

	publish_two(b);
	fs_rules(b, "[{\"kind\": \"list\", \"hold\": \"it\"}]");
	fs_up(b, NULL);
	for (int i = 0; i < 20; i++) {
		fs_waiter_begin(&w[i]);
		assert_int_equal(listings_ensure(b->listings, PREFIX,
						 &w[i].waiter),
				 -EINPROGRESS);
	}
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	for (int i = 0; i < 20; i++)
		assert_false(fs_woken(&w[i]));
	imitation_release(b->im, "it", 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(fs_wait(&w[i]), 0);
		assert_int_equal(
			listings_ensure(b->listings, PREFIX, &w[i].waiter), 0);
		fs_waiter_end(&w[i]);
	}
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_listings__without_a_waiter_nothing_is_asked(void **state)
{
	struct fs_bench *b = *state;

	publish_two(b);
	fs_up(b, NULL);
	assert_int_equal(listings_ensure(b->listings, PREFIX, NULL),
			 -EINPROGRESS);
	assert_int_equal(listings_probe(b->listings, PREFIX, NULL),
			 -EINPROGRESS);
	assert_int_equal(fs_ensure(b, "data/other/"), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_listings__start_is_what_ensure_waits_for(void **state)
{
	struct fs_bench *b = *state;

	publish_two(b);
	fs_rules(b, "[{\"kind\": \"list\", \"hold\": \"it\"}]");
	fs_up(b, NULL);
	listings_start(b->listings, PREFIX);
	listings_start(b->listings, PREFIX);
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	imitation_release(b->im, "it", 0);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_listings__known_ones_are_not_asked_for(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	catalog_listing_put(b->catalog, PREFIX, &one, 1, when_now());
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_probe(b, PREFIX), 0);
	assert_int_equal(listings_ensure(b->listings, PREFIX, NULL), 0);
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

static void test_listings__old_ones_are_asked_for_again(void **state)
{
	struct fs_options hour = {.listing_ttl_ms = 3600000};
	struct fs_bench *b = *state;
	bool is_prefix;
	uint64_t size;

	publish_two(b);
	fs_up(b, &hour);
	catalog_listing_put(b->catalog, PREFIX, &one, 1, when_now() - 3700);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	assert_int_equal(entry(b, ZIP, &is_prefix, &size), 0);
	assert_int_equal(size, 3);
	/* A clock that was put back does not make one fresh for ever. */
	catalog_listing_put(b->catalog, PREFIX, &one, 1, when_now() + 86400);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, NULL).all, 2);
}

static void test_listings__end_when_small_ones_spent_the_budget(void **state)
{
	struct fs_options o = {.listing_ttl_ms = 3600000, .budget_bytes = 1000};
	struct fs_bench *b = *state;
	bool is_prefix;
	uint64_t size;

	publish_two(b);
	fs_up(b, &o);
	budget_came(b->budget, true, "download", 1000, when_now());
	assert_int_equal(fs_ensure(b, PREFIX "sub/"), 0);
	budget_came(b->budget, false, "tail", 1000, when_now());
	assert_int_equal(fs_ensure(b, PREFIX), -EDQUOT);
	assert_int_equal(fs_probe(b, PREFIX), -EDQUOT);
	/* What was seen stays usable. */
	catalog_listing_put(b->catalog, PREFIX, &one, 1, when_now() - 3700);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(entry(b, ZIP, &is_prefix, &size), 0);
	assert_int_equal(size, 1000);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_listings__freshness_is_an_age(void **state)
{
	struct fs_options hour = {.listing_ttl_ms = 3600000};
	struct fs_bench *b = *state;

	fs_up(b, &hour);
	assert_true(listings_fresh(b->listings, when_now()));
	assert_true(listings_fresh(b->listings, when_now() - 3500));
	assert_false(listings_fresh(b->listings, when_now() - 3700));
	assert_false(listings_fresh(b->listings, when_now() + 100));
	fs_down(b);
	fs_up(b, &offline);
	assert_true(listings_fresh(b->listings, when_now() - 999999));
}

static void test_listings__nothing_there_is_remembered(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	assert_int_equal(fs_ensure(b, PREFIX), -ENOENT);
	assert_int_equal(fs_ensure(b, PREFIX), -ENOENT);
	assert_int_equal(fs_probe(b, PREFIX), -ENOENT);
	assert_int_equal(listings_ensure(b->listings, PREFIX, NULL), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_listings__absence_has_an_age_of_its_own(void **state)
{
	struct fs_options five = {.listing_ttl_ms = 3600000,
				  .negative_ttl_ms = 300000};
	struct fs_bench *b = *state;

	publish_two(b);
	fs_up(b, &five);
	catalog_listing_put(b->catalog, PREFIX, NULL, 0, when_now() - 200);
	assert_int_equal(fs_ensure(b, PREFIX), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	catalog_listing_put(b->catalog, PREFIX, NULL, 0, when_now() - 400);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

/* What was seen stays usable; and who is down is not asked by every ls. */
static void test_listings__old_one_is_used_while_origin_is_down(void **state)
{
	struct fs_bench *b = *state;
	bool is_prefix;
	uint64_t size;
	unsigned int asked;

	fs_rules(b, "[{\"kind\": \"list\", \"status\": 503}]");
	fs_up(b, NULL);
	catalog_listing_put(b->catalog, PREFIX, &one, 1, when_now() - 86400);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(entry(b, ZIP, &is_prefix, &size), 0);
	assert_int_equal(size, 1000);
	asked = fs_requests(b, NULL).all;
	assert_int_equal(asked, 3); /* and two retries */
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(listings_ensure(b->listings, PREFIX, NULL), 0);
	assert_int_equal(fs_requests(b, NULL).all, asked);
}

static void test_listings__old_one_is_used_for_any_bad_answer(void **state)
{
	static const char *const rules[] = {
		"[{\"kind\": \"list\", \"status\": 403}]",
		"[{\"kind\": \"list\", \"bad_xml\": true}]",
		"[{\"kind\": \"list\", \"html\": true}]",
		"[{\"kind\": \"list\", \"drop\": true}]",
	};
	struct fs_bench *b = *state;

	publish_two(b);
	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
		fs_rules(b, rules[i]);
		fs_up(b, NULL);
		catalog_listing_put(b->catalog, PREFIX, &one, 1,
				    when_now() - 86400);
		assert_int_equal(fs_ensure(b, PREFIX), 0);
		fs_down(b);
	}
}

static void test_listings__failure_wakes_with_its_error(void **state)
{
	static const struct {
		const char *rules;
		int err;
	} cases[] = {
		{"[{\"kind\": \"list\", \"status\": 403}]", -EACCES},
		{"[{\"kind\": \"list\", \"bad_xml\": true}]", -EPROTO},
		{"[{\"kind\": \"list\", \"html\": true}]", -EPROTO},
		{"[{\"kind\": \"list\", \"status\": 503}]", -ETIMEDOUT},
	};
	struct fs_bench *b = *state;
	int64_t at;

	publish_two(b);
	fs_up(b, NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		fs_rules(b, cases[i].rules);
		assert_int_equal(fs_ensure(b, PREFIX), cases[i].err);
		assert_int_equal(fs_probe(b, PREFIX), cases[i].err);
		assert_int_equal(catalog_listing_time(b->catalog, PREFIX, &at,
						      NULL),
				 -ENOENT);
	}
	/* An error is nothing to remember. */
	fs_rules(b, "[]");
	assert_int_equal(fs_ensure(b, PREFIX), 0);
}

static void test_listings__offline_knows_what_it_saw(void **state)
{
	struct fs_bench *b = *state;

	publish_two(b);
	fs_up(b, &offline);
	assert_int_equal(fs_ensure(b, PREFIX), -ENETUNREACH);
	assert_int_equal(fs_probe(b, PREFIX), -ENETUNREACH);
	catalog_listing_put(b->catalog, PREFIX, &one, 1, 1000000000);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_probe(b, PREFIX), 0);
	catalog_listing_put(b->catalog, PREFIX, NULL, 0, 1000000000);
	assert_int_equal(fs_ensure(b, PREFIX), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

/* ---- does it exist? ---- */

static void test_listings__probe_is_no_listing(void **state)
{
	struct fs_bench *b = *state;
	int64_t at;

	publish_two(b);
	fs_up(b, NULL);
	assert_int_equal(fs_probe(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, "max-keys=1").all, 1);
	assert_int_equal(catalog_listing_time(b->catalog, PREFIX, &at, NULL),
			 -ENOENT);
	assert_int_equal(fs_probe(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, NULL).all, 2);
}

static void test_listings__probe_of_nothing_is_an_empty_listing(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	assert_int_equal(fs_probe(b, PREFIX), -ENOENT);
	assert_int_equal(fs_ensure(b, PREFIX), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_listings__old_one_is_proof_of_existence(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	catalog_listing_put(b->catalog, PREFIX, &one, 1, when_now() - 999999);
	assert_int_equal(fs_probe(b, PREFIX), 0);
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

/* Who wants the listing is not fobbed off with one entry. */
static void test_listings__ensure_during_a_probe_asks_on(void **state)
{
	struct fs_bench *b = *state;
	struct fs_waiter p;
	bool is_prefix;
	uint64_t size;

	publish_two(b);
	fs_rules(b,
		 "[{\"kind\": \"list\", \"hold\": \"probe\", \"times\": 1}]");
	fs_up(b, NULL);
	fs_waiter_begin(&p);
	assert_int_equal(listings_probe(b->listings, PREFIX, &p.waiter),
			 -EINPROGRESS);
	assert_int_equal(imitation_held(b->im, "probe", 1, FS_PATIENCE_MS), 1);
	imitation_release(b->im, "probe", 0);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(entry(b, ZIP, &is_prefix, &size), 0);
	assert_int_equal(entry(b, "sub", &is_prefix, &size), 0);
	assert_int_equal(fs_wait(&p), 0);
	fs_waiter_end(&p);
}

/* ---- those who give up ---- */

static void test_listings__cancelled_waiter_leaves_the_others(void **state)
{
	struct fs_bench *b = *state;
	struct fs_waiter gone, stays;

	publish_two(b);
	fs_rules(b, "[{\"kind\": \"list\", \"hold\": \"it\"}]");
	fs_up(b, NULL);
	fs_waiter_begin(&gone);
	fs_waiter_begin(&stays);
	listings_ensure(b->listings, PREFIX, &gone.waiter);
	listings_ensure(b->listings, PREFIX, &stays.waiter);
	waitlist_cancel(&gone.waiter);
	assert_int_equal(fs_wait(&gone), -EINTR);
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	imitation_release(b->im, "it", 0);
	assert_int_equal(fs_wait(&stays), 0);
	assert_int_equal(listings_ensure(b->listings, PREFIX, NULL), 0);
	fs_waiter_end(&gone);
	fs_waiter_end(&stays);
}

/* Going down answers everyone. */
static void test_listings__end_wakes_who_waits(void **state)
{
	struct fs_bench *b = *state;
	struct fs_waiter w;

	publish_two(b);
	fs_rules(b, "[{\"kind\": \"list\", \"hold\": \"it\"}]");
	fs_up(b, NULL);
	fs_waiter_begin(&w);
	assert_int_equal(listings_ensure(b->listings, PREFIX, &w.waiter),
			 -EINPROGRESS);
	fs_down(b);
	assert_int_equal(fs_wait(&w), -ECANCELED);
	fs_waiter_end(&w);
}

/* ---- what is told of entries ---- */

struct told {
	_Atomic unsigned int n;
	char name[64];
	uint64_t size;
};

static void tell(void *arg, const char *prefix, const struct listing_entry *e,
		 int64_t now)
{
	struct told *t = arg;

	(void)now;
	if (strcmp(prefix, PREFIX) == 0) {
		snprintf(t->name, sizeof(t->name), "%s", e->name);
		t->size = e->size;
		atomic_fetch_add(&t->n, 1);
	}
}

static void test_listings__every_object_is_told_and_no_folder(void **state)
{
	struct fs_bench *b = *state;
	struct told told = {0};
	struct listings_config cfg = {
		.ttl_ms = 3600000,
		.negative_ttl_ms = 300000,
		.on_entry = tell,
		.arg = &told,
	};
	struct listings *l;
	struct fs_waiter w;

	publish_two(b);
	fs_up(b, NULL);
	cfg.origin = b->origin;
	cfg.catalog = b->catalog;
	cfg.workers = b->quick;
	assert_int_equal(listings_create(&l, &cfg), 0);
	fs_waiter_begin(&w);
	assert_int_equal(listings_ensure(l, PREFIX, &w.waiter), -EINPROGRESS);
	assert_int_equal(fs_wait(&w), 0);
	fs_waiter_end(&w);
	fs_down(b);
	listings_free(l);
	assert_int_equal(told.n, 1);
	assert_string_equal(told.name, ZIP);
	assert_int_equal(told.size, 3);
}

/* More prefixes than are remembered, and all answered. */
static void test_listings__many_prefixes(void **state)
{
	struct fs_bench *b = *state;
	char prefix[64];

	fs_up(b, NULL);
	for (int i = 0; i < 200; i++) {
		snprintf(prefix, sizeof(prefix), "data/%d/", i);
		listings_start(b->listings, prefix);
	}
	for (int i = 0; i < 200; i++) {
		snprintf(prefix, sizeof(prefix), "data/%d/", i);
		assert_int_equal(fs_ensure(b, prefix), -ENOENT);
	}
	assert_int_equal(fs_requests(b, NULL).all, 200);
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_listings__come_into_the_catalog),
		BENCH(test_listings__one_request_for_many_waiters),
		BENCH(test_listings__without_a_waiter_nothing_is_asked),
		BENCH(test_listings__start_is_what_ensure_waits_for),
		BENCH(test_listings__known_ones_are_not_asked_for),
		BENCH(test_listings__old_ones_are_asked_for_again),
		BENCH(test_listings__end_when_small_ones_spent_the_budget),
		BENCH(test_listings__freshness_is_an_age),
		BENCH(test_listings__nothing_there_is_remembered),
		BENCH(test_listings__absence_has_an_age_of_its_own),
		BENCH(test_listings__old_one_is_used_while_origin_is_down),
		BENCH(test_listings__old_one_is_used_for_any_bad_answer),
		BENCH(test_listings__failure_wakes_with_its_error),
		BENCH(test_listings__offline_knows_what_it_saw),
		BENCH(test_listings__probe_is_no_listing),
		BENCH(test_listings__probe_of_nothing_is_an_empty_listing),
		BENCH(test_listings__old_one_is_proof_of_existence),
		BENCH(test_listings__ensure_during_a_probe_asks_on),
		BENCH(test_listings__cancelled_waiter_leaves_the_others),
		BENCH(test_listings__end_wakes_who_waits),
		BENCH(test_listings__every_object_is_told_and_no_folder),
		BENCH(test_listings__many_prefixes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

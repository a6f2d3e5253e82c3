/*
 * What is known of an object, and the object itself, against the imitated
 * origin. Sizes of CSVs are those of the bytes that were put into the zips.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/metrics.h"
#include "fs/when.h"
#include "tests/support/fs_bench.h"

#define PREFIX "data/spot/daily/klines/BTCUSDT/1m/"
#define NAME   "BTCUSDT-1m-2024-01-01"
#define KEY    PREFIX NAME ".zip"
#define PLAIN  PREFIX "note.txt"

static const struct fs_options offline = {.offline = true};

/* An archive at KEY; the zip's bytes too. */
struct published {
	char *csv;
	void *zip;
	size_t csv_len, len;
};

static void publish(struct fs_bench *b, unsigned int seed, size_t rows,
		    struct published *p)
{
	struct fs_member m = {.name = NAME ".csv"};

	p->csv = fs_rows(seed, rows, &p->csv_len);
	m.data = p->csv;
	m.len = p->csv_len;
	p->zip = fs_zip(&m, 1, &p->len);
	fs_publish_zip(b, KEY, p->zip, p->len);
}

static void published_free(struct published *p)
{
	free(p->csv);
	free(p->zip);
}

static void assert_opens(struct fs_bench *b, const struct published *p)
{
	struct store_object *o;

	assert_int_equal(fs_open(b, KEY, &o), 0);
	assert_true(fs_same(o, p->zip, p->len));
	store_release(o);
}

/* ---- facts ---- */

static void test_supply__tail_tells_size_and_csv(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(f.size, p.len);
	assert_true(f.has_csv);
	assert_int_equal(f.csv_member, 0);
	assert_int_equal(f.csv_size, p.csv_len);
	assert_true(f.last_modified > 1600000000);
	assert_int_equal(strlen(f.etag), 32);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	assert_string_equal(fs_requests(b, NULL).last_range, "bytes=-4096");
	published_free(&p);
}

static void test_supply__facts_are_kept_for_good(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 100, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	fs_down(b);
	imitation_reset(b->im);
	fs_up(b, &offline);
	f.csv_size = 0;
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV, NULL, &f), 0);
	assert_int_equal(f.csv_size, p.csv_len);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	published_free(&p);
}

static void test_supply__one_tail_for_many_waiters(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct fs_waiter w[20];
	struct published p;

	publish(b, 1, 100, &p);
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold\": \"it\"}]");
	fs_up(b, NULL);
	for (int i = 0; i < 20; i++) {
		fs_waiter_begin(&w[i]);
		assert_int_equal(supply_facts(b->supply, KEY,
					      i % 2 ? SUPPLY_CSV
						    : SUPPLY_OBJECT,
					      &w[i].waiter, &f),
				 -EINPROGRESS);
	}
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	imitation_release(b->im, "it", 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(fs_wait(&w[i]), 0);
		assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV,
					      &w[i].waiter, &f),
				 0);
		fs_waiter_end(&w[i]);
	}
	assert_int_equal(fs_requests(b, NULL).all, 1);
	published_free(&p);
}

static void test_supply__without_a_waiter_nothing_is_asked(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 100, &p);
	fs_up(b, NULL);
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV, NULL, &f),
			 -EINPROGRESS);
	assert_int_equal(supply_open(b->supply, KEY, NULL, NULL, &o),
			 -EINPROGRESS);
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	published_free(&p);
}

static void test_supply__absence_is_remembered(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;

	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), -ENOENT);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_OBJECT, &f), -ENOENT);
	assert_int_equal(fs_open(b, KEY, &o), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_supply__absence_ends_when_a_listing_shows_it(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), -ENOENT);
	publish(b, 1, 100, &p);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(f.csv_size, p.csv_len);
	published_free(&p);
}

static void test_supply__other_failures_are_not_remembered(void **state)
{
	static const struct {
		const char *rules;
		int err;
	} cases[] = {
		{"[{\"key\": \"*.zip\", \"status\": 403}]", -EACCES},
		{"[{\"key\": \"*.zip\", \"status\": 503}]", -ETIMEDOUT},
		{"[{\"key\": \"*.zip\", \"html\": true}]", -EPROTO},
	};
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 100, &p);
	fs_up(b, NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		fs_rules(b, cases[i].rules);
		assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f),
				 cases[i].err);
		assert_int_equal(fs_open(b, KEY, &o), cases[i].err);
	}
	fs_rules(b, "[]");
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	published_free(&p);
}

static void test_supply__offline_and_unknown_is_unreachable(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;

	fs_up(b, &offline);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), -ENETUNREACH);
	assert_int_equal(fs_open(b, KEY, &o), -ENETUNREACH);
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV, NULL, &f),
			 -ENETUNREACH);
}

static void test_supply__listing_tells_of_the_object_alone(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 100, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_OBJECT, NULL, &f),
			 0);
	assert_int_equal(f.size, p.len);
	assert_false(f.has_csv);
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV, NULL, &f),
			 -EINPROGRESS);
	published_free(&p);
}

static void test_supply__plain_object_is_asked_for_by_head(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;

	fs_publish(b, PLAIN, "12345", 5);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, PLAIN, SUPPLY_OBJECT, &f), 0);
	assert_int_equal(f.size, 5);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	assert_int_equal(fs_requests(b, NULL).heads, 1);
}

static void test_supply__what_is_no_zip_has_no_csv(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	size_t len;
	char *text = fs_rows(1, 500, &len);

	fs_publish_zip(b, KEY, text, len);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), -EBADMSG);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_OBJECT, &f), 0);
	assert_int_equal(f.size, len);
	free(text);
}

static void test_supply__what_is_no_zip_is_an_object_all_the_same(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	size_t len;
	char *text = fs_rows(1, 500, &len);

	fs_publish_zip(b, KEY, text, len);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_OBJECT, &f), 0);
	assert_int_equal(f.size, len);
	assert_false(f.has_csv);
	free(text);
}

/* A bad tail is no verdict yet: that takes all sources (design section 2). */
static void test_supply__bad_tail_is_asked_for_elsewhere(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 5000, &p);
	/* the end record's signature, 22 bytes before the end */
	fs_rules(b, "[{\"key\": \"*.zip\", \"host\": \"main\","
		    "  \"flip_at\": -22}]");
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(f.csv_size, p.csv_len);
	assert_opens(b, &p);
	published_free(&p);
}

/* 3000 names of 40 bytes: a directory far longer than the first tail. */
static void test_supply__long_directory_takes_a_longer_tail(void **state)
{
	static char names[3000][48];
	static struct fs_member members[3000];
	struct archive_directory *d;
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct fs_waiter w;
	size_t len;
	void *zip;

	for (int i = 0; i < 3000; i++) {
		sprintf(names[i], "folder/some-member-with-a-name-%08d.csv", i);
		members[i] = (struct fs_member){names[i], "1\n", 2, true};
	}
	zip = fs_zip(members, 3000, &len);
	fs_publish_zip(b, KEY, zip, len);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(f.csv_member, CATALOG_CSV_NONE);
	assert_int_equal(f.size, len);
	fs_waiter_begin(&w);
	assert_int_equal(supply_members(b->supply, KEY, &w.waiter, &d), 0);
	fs_waiter_end(&w);
	assert_int_equal(d->n, 3000);
	assert_string_equal(d->members[2999].name, names[2999]);
	archive_directory_free(d);
	assert_true(fs_requests(b, NULL).all >= 2);
	assert_int_equal(fs_requests(b, NULL).all, fs_requests(b, NULL).ranges);
	free(zip);
}

/* Then it comes whole, and its own directory tells. */
static void test_supply__origin_that_ignores_ranges_sends_it_all(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 20000, &p);
	assert_true(p.len > 65536);
	fs_rules(b, "[{\"key\": \"*.zip\", \"ignore_range\": true}]");
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(f.size, p.len);
	assert_int_equal(f.csv_size, p.csv_len);
	imitation_reset(b->im);
	assert_opens(b, &p);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	published_free(&p);
}

/* Nor its length, nor any ETag. */
static void test_supply__origin_that_tells_nothing_beforehand(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 20000, &p);
	fs_rules(b, "[{\"key\": \"*.zip\", \"ignore_range\": true,"
		    "  \"chunked\": true, \"etag\": \"\"}]");
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(f.size, p.len);
	assert_int_equal(f.csv_size, p.csv_len);
	assert_string_equal(f.etag, "");
	assert_opens(b, &p);
	published_free(&p);
}

/* ---- the object ---- */

static void test_supply__one_download_for_many_waiters(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o, *first = NULL;
	struct supply_facts f;
	struct fs_waiter w[20];
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	imitation_reset(b->im);
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold\": \"it\"}]");
	for (int i = 0; i < 20; i++) {
		fs_waiter_begin(&w[i]);
		assert_int_equal(supply_open(b->supply, KEY, &w[i].waiter, NULL,
					     &o),
				 -EINPROGRESS);
	}
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	imitation_release(b->im, "it", 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(fs_wait(&w[i]), 0);
		assert_int_equal(
			supply_open(b->supply, KEY, &w[i].waiter, NULL, &o), 0);
		/* and all share what was acquired first */
		if (first)
			assert_ptr_equal(o, first);
		else
			first = store_ref(o);
		store_release(o);
		fs_waiter_end(&w[i]);
	}
	assert_true(fs_same(first, p.zip, p.len));
	store_release(first);
	assert_int_equal(fs_requests(b, KEY).all, 2); /* and .CHECKSUM */
	published_free(&p);
}

static void count_fetch(void *arg, const char *key, uint64_t done,
			uint64_t total, uint64_t running_ms)
{
	(void)key;
	(void)done;
	(void)total;
	(void)running_ms;
	++*(unsigned int *)arg;
}

static unsigned int fetches(struct fs_bench *b)
{
	unsigned int n = 0;

	supply_each_fetch(b->supply, count_fetch, &n);
	return n;
}

enum { BATCH = 24 };

static void batch_key(int i, char key[80])
{
	snprintf(key, 80, "data/spot/daily/klines/S%02d/1m/S%02d-1m-x.zip", i,
		 i);
}

/* Opens BATCH archives, each held by the origin from its first byte on. */
static void open_held(struct fs_bench *b, struct fs_waiter w[BATCH],
		      const struct fs_options *options)
{
	struct store_object *o;
	struct supply_facts f;
	char key[80];

	for (int i = 0; i < BATCH; i++) {
		batch_key(i, key);
		fs_publish_csv(b, key, "1,2\n", 4);
	}
	fs_up(b, options);
	for (int i = 0; i < BATCH; i++) {
		batch_key(i, key);
		assert_int_equal(fs_facts(b, key, SUPPLY_CSV, &f), 0);
	}
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold\": \"it\"}]");
	for (int i = 0; i < BATCH; i++) {
		batch_key(i, key);
		fs_waiter_begin(&w[i]);
		assert_int_equal(supply_open(b->supply, key, &w[i].waiter, NULL,
					     &o),
				 -EINPROGRESS);
	}
}

/* They come, but for the last @without of them. */
static void let_come(struct fs_bench *b, struct fs_waiter w[BATCH], int without)
{
	struct store_object *o;
	char key[80];

	imitation_release(b->im, "it", 0);
	for (int i = 0; i < BATCH; i++) {
		batch_key(i, key);
		if (i < BATCH - without) {
			assert_int_equal(fs_wait(&w[i]), 0);
			assert_int_equal(
				supply_open(b->supply, key, NULL, NULL, &o), 0);
			store_release(o);
		}
		fs_waiter_end(&w[i]);
	}
}

/* Each holds buffers; the others wait until one ends, or gets nothing. */
static void test_supply__admissions_under_way_are_bounded(void **state)
{
	struct fs_bench *b = *state;
	struct fs_waiter w[BATCH];
	char key[80];

	open_held(b, w, NULL);
	assert_int_equal(fetches(b), 16);
	/* The last one gives up before its turn. */
	batch_key(BATCH - 1, key);
	waitlist_cancel(&w[BATCH - 1].waiter);
	assert_int_equal(fs_wait(&w[BATCH - 1]), -EINTR);
	supply_abandon(b->supply, key);
	supply_tick(b->supply, when_ms());
	assert_int_equal(fetches(b), 16);
	/* None of these got a byte for long: they hold up nobody. */
	supply_tick(b->supply, when_ms() + 10000);
	assert_int_equal(fetches(b), BATCH - 1);
	let_come(b, w, 1);
}

/* Who gets no bytes may be held back by ourselves, and more would get none. */
static void test_supply__paced_ones_are_bounded_whatever_comes(void **state)
{
	const struct fs_options o = {.paced = true};
	struct fs_bench *b = *state;
	struct fs_waiter w[BATCH];

	open_held(b, w, &o);
	supply_tick(b->supply, when_ms() + 10000);
	assert_int_equal(fetches(b), 16);
	let_come(b, w, 0);
}

static void test_supply__waiters_in_line_get_their_turn(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct fs_waiter w[BATCH];
	char key[80];
	int err;

	for (int i = 0; i < BATCH; i++) {
		batch_key(i, key);
		fs_publish_csv(b, key, "1,2\n", 4);
	}
	fs_up(b, NULL);
	for (int i = 0; i < BATCH; i++)
		fs_waiter_begin(&w[i]);
	for (int i = 0; i < BATCH; i++) {
		batch_key(i, key);
		supply_open(b->supply, key, &w[i].waiter, NULL, &o);
	}
	for (int i = 0; i < BATCH; i++) {
		batch_key(i, key);
		do {
			assert_int_equal(fs_wait(&w[i]), 0);
			err = supply_open(b->supply, key, &w[i].waiter, NULL,
					  &o);
		} while (err == -EINPROGRESS);
		assert_int_equal(err, 0);
		store_release(o);
		fs_waiter_end(&w[i]);
	}
	assert_int_equal(fetches(b), 0);
}

static void test_supply__waiters_are_woken_with_the_error(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;
	struct fs_waiter w[5];
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold\": \"it\","
		    "  \"status\": 403}]");
	for (int i = 0; i < 5; i++) {
		fs_waiter_begin(&w[i]);
		assert_int_equal(supply_open(b->supply, KEY, &w[i].waiter, NULL,
					     &o),
				 -EINPROGRESS);
	}
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	imitation_release(b->im, "it", 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(fs_wait(&w[i]), -EACCES);
		fs_waiter_end(&w[i]);
	}
	published_free(&p);
}

static void test_supply__cached_object_needs_no_origin(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_opens(b, &p);
	fs_down(b);
	imitation_reset(b->im);
	fs_up(b, &offline);
	assert_int_equal(supply_open(b->supply, KEY, NULL, NULL, &o), 0);
	assert_true(fs_same(o, p.zip, p.len));
	store_release(o);
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV, NULL, &f), 0);
	assert_int_equal(f.csv_size, p.csv_len);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	published_free(&p);
}

static void test_supply__refusal_is_remembered(void **state)
{
	struct fs_bench *b = *state;
	struct supply_status st;
	struct store_object *o;
	struct published p;

	publish(b, 1, 1000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"status\": 404}]");
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &o), -EBADMSG);
	imitation_reset(b->im);
	assert_int_equal(fs_open(b, KEY, &o), -EBADMSG);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	supply_status(b->supply, KEY, &st);
	assert_int_equal(st.state, SUPPLY_QUARANTINED);
	assert_int_equal(st.cached.verdict, VERDICT_CHECKSUM_MISSING);
	published_free(&p);
}

static void test_supply__refused_is_fetched_anew_when_lenient(void **state)
{
	struct fs_options lenient = {.lenient = true};
	struct fs_bench *b = *state;
	struct supply_status st;
	struct store_object *o;
	struct published p;

	publish(b, 1, 1000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true}]");
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &o), -EBADMSG);
	fs_down(b);
	fs_up(b, &lenient);
	assert_opens(b, &p);
	supply_status(b->supply, KEY, &st);
	assert_int_equal(st.state, SUPPLY_ACCEPTED);
	fs_down(b);
	/* What was accepted then is not served strictly. */
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &o), -EBADMSG);
	published_free(&p);
}

static void test_supply__keys_that_are_no_file_names_are_not_there(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;

	fs_up(b, NULL);
	assert_int_equal(fs_open(b, "data/../etc/passwd", &o), -ENOENT);
	assert_int_equal(fs_open(b, "", &o), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

/* ---- giving up, and going on ---- */

struct progress {
	struct fs_bench *b;
	uint64_t at_least;
};

static bool has_come(void *arg)
{
	struct progress *p = arg;
	struct supply_status st;

	supply_status(p->b->supply, KEY, &st);
	return st.fetching && st.bytes_done >= p->at_least;
}

static bool not_fetching(void *arg)
{
	struct fs_bench *b = arg;
	struct supply_status st;

	supply_status(b->supply, KEY, &st);
	return !st.fetching;
}

static void test_supply__abandoned_download_goes_on_later(void **state)
{
	struct fs_bench *b = *state;
	struct progress part = {.b = b, .at_least = 100000};
	struct supply_status st;
	struct store_object *o;
	struct supply_facts f;
	struct fs_waiter w;
	struct published p;

	publish(b, 1, 20000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	fs_rules(b, "[{\"key\": \"*.zip\", \"stall_after\": 100000}]");
	fs_waiter_begin(&w);
	assert_int_equal(supply_open(b->supply, KEY, &w.waiter, NULL, &o),
			 -EINPROGRESS);
	fs_eventually(has_come, &part);
	waitlist_cancel(&w.waiter);
	assert_int_equal(fs_wait(&w), -EINTR);
	fs_waiter_end(&w);
	supply_abandon(b->supply, KEY);
	fs_eventually(not_fetching, b);
	supply_status(b->supply, KEY, &st);
	assert_int_equal(st.state, SUPPLY_PARTIAL);
	assert_int_equal(st.bytes_done, 100000);
	assert_int_equal(st.bytes_total, p.len);
	fs_down(b);

	/* After a restart too. */
	fs_rules(b, "[]");
	fs_up(b, NULL);
	imitation_reset(b->im);
	assert_opens(b, &p);
	assert_string_equal(fs_requests(b, NAME ".zip").last_range,
			    "bytes=100000-");
	published_free(&p);
}

static void test_supply__download_someone_waits_for_goes_on(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;
	struct fs_waiter gone, stays;
	struct published p;

	publish(b, 1, 20000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	imitation_reset(b->im);
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold_after\": 100000,"
		    "  \"hold\": \"it\"}]");
	fs_waiter_begin(&gone);
	fs_waiter_begin(&stays);
	supply_open(b->supply, KEY, &gone.waiter, NULL, &o);
	supply_open(b->supply, KEY, &stays.waiter, NULL, &o);
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	waitlist_cancel(&gone.waiter);
	assert_int_equal(fs_wait(&gone), -EINTR);
	supply_abandon(b->supply, KEY);
	imitation_release(b->im, "it", 0);
	assert_int_equal(fs_wait(&stays), 0);
	assert_int_equal(supply_open(b->supply, KEY, NULL, NULL, &o), 0);
	assert_true(fs_same(o, p.zip, p.len));
	store_release(o);
	assert_int_equal(fs_requests(b, NAME ".zip").ranges, 0);
	fs_waiter_end(&gone);
	fs_waiter_end(&stays);
	published_free(&p);
}

/* Whoever comes while the cancelled one ends begins it anew. */
static void test_supply__late_comer_is_not_cancelled(void **state)
{
	struct fs_bench *b = *state;
	struct progress part = {.b = b, .at_least = 100000};
	struct store_object *o;
	struct supply_facts f;
	struct fs_waiter w;
	struct published p;

	publish(b, 1, 20000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	for (int i = 0; i < 20; i++) {
		fs_rules(b, "[{\"key\": \"*.zip\", \"stall_after\": 100000}]");
		fs_waiter_begin(&w);
		assert_int_equal(supply_open(b->supply, KEY, &w.waiter, NULL,
					     &o),
				 -EINPROGRESS);
		fs_eventually(has_come, &part);
		waitlist_cancel(&w.waiter);
		assert_int_equal(fs_wait(&w), -EINTR);
		fs_waiter_end(&w);
		fs_rules(b, "[]");
		supply_abandon(b->supply, KEY);
		assert_opens(b, &p);
		/* out of the cache again */
		fs_down(b);
		assert_int_equal(chdir(b->cache), 0);
		assert_int_equal(system("rm -rf objects index staging"), 0);
		assert_int_equal(chdir("/"), 0);
		fs_up(b, NULL);
		assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	}
	published_free(&p);
}

static void test_supply__end_answers_who_waits(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;
	struct fs_waiter tail, open;
	struct published p;
	int err;

	publish(b, 1, 20000, &p);
	fs_publish(b, PLAIN, "12345", 5);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	fs_rules(b, "[{\"hold\": \"all\"}]");
	fs_waiter_begin(&tail);
	fs_waiter_begin(&open);
	assert_int_equal(supply_open(b->supply, KEY, &open.waiter, NULL, &o),
			 -EINPROGRESS);
	assert_int_equal(supply_facts(b->supply, PLAIN, SUPPLY_OBJECT,
				      &tail.waiter, &f),
			 -EINPROGRESS);
	imitation_held(b->im, "all", 2, FS_PATIENCE_MS);
	fs_down(b);
	assert_int_equal(fs_wait(&tail), -ECANCELED);
	err = fs_wait(&open);
	/* 0 says: ask again; nobody is left to be asked. */
	assert_true(err == 0 || err == -ECANCELED);
	fs_waiter_end(&tail);
	fs_waiter_end(&open);
	published_free(&p);
}

/* ---- versions ---- */

static void test_supply__republished_archive_is_fetched_anew(void **state)
{
	uint64_t seen = metrics_get(METRIC_REPUBLISHED);
	struct fs_bench *b = *state;
	struct store_object *before, *o;
	struct published p, q;
	struct supply_facts f, g;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(fs_open(b, KEY, &before), 0);
	publish(b, 2, 6000, &q);
	/* As long as nobody has seen it, the old one is current. */
	assert_int_equal(supply_open(b->supply, KEY, NULL, NULL, &o), 0);
	store_release(o);
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen);

	assert_int_equal(fs_ensure(b, PREFIX), 0);
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen + 1);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &g), 0);
	assert_string_not_equal(f.etag, g.etag);
	assert_int_equal(g.csv_size, q.csv_len);
	assert_opens(b, &q);
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen + 1);
	/* and who has the old one open keeps it */
	assert_true(fs_same(before, p.zip, p.len));
	store_release(before);
	published_free(&p);
	published_free(&q);
}

static void test_supply__every_new_version_is_counted(void **state)
{
	uint64_t seen = metrics_get(METRIC_REPUBLISHED);
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 100, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	supply_note(b->supply, KEY, f.etag, f.size, -1, when_now());
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen);
	/* Who gives no ETag does not say that there is another. */
	supply_note(b->supply, KEY, "", f.size, -1, when_now());
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen);
	supply_note(b->supply, KEY, "B", 1000, -1, when_now());
	supply_note(b->supply, KEY, "B", 1000, -1, when_now());
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen + 1);
	supply_note(b->supply, KEY, "C", 1000, -1, when_now());
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen + 2);
	supply_note(b->supply, KEY, f.etag, f.size, -1, when_now());
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen + 3);
	/* Its CSV is known from before. */
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV, NULL, &f), 0);
	assert_int_equal(f.csv_size, p.csv_len);
	published_free(&p);
}

/* Seen by a listing in one run, opened in the next. */
static void test_supply__newer_listing_outdates_what_is_cached(void **state)
{
	struct fs_bench *b = *state;
	uint64_t seen;
	struct catalog_entry e = {
		.name = NAME ".zip",
		.etag = "0123456789abcdef0123456789abcdef",
		.size = 1000,
		.last_modified = 1700000000,
	};
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_opens(b, &p);
	fs_down(b);

	fs_up(b, NULL);
	seen = metrics_get(METRIC_REPUBLISHED);
	catalog_listing_put(b->catalog, PREFIX, &e, 1, when_now() + 10);
	imitation_reset(b->im);
	/* What the listing announces is not there any more: what comes is
	 * the version cached before. */
	assert_opens(b, &p);
	assert_true(fs_requests(b, NULL).all > 0);
	assert_true(metrics_get(METRIC_REPUBLISHED) > seen);
	fs_down(b);

	/* Offline, what is cached is what there is. */
	fs_up(b, &offline);
	catalog_listing_put(b->catalog, PREFIX, &e, 1, when_now() + 20);
	assert_opens(b, &p);
	published_free(&p);
}

/* As if all that is known of KEY were two days old. */
static void age_two_days(struct fs_bench *b)
{
	struct archive_directory *d;
	struct catalog_cached row;
	struct catalog_facts f;

	assert_int_equal(catalog_cached_get(b->catalog, KEY, &row), 0);
	row.checked_at -= 2 * 86400;
	assert_int_equal(catalog_cached_put(b->catalog, KEY, &row), 0);
	assert_int_equal(catalog_facts_get(b->catalog, KEY, NULL, &f), 0);
	assert_int_equal(catalog_directory_get(b->catalog, KEY, f.etag, &d), 0);
	f.seen_at -= 2 * 86400;
	assert_int_equal(catalog_facts_put(b->catalog, KEY, &f, d), 0);
	archive_directory_free(d);
}

static bool was_republished(void *arg)
{
	return metrics_get(METRIC_REPUBLISHED) > *(uint64_t *)arg;
}

static bool was_confirmed(void *arg)
{
	struct fs_bench *b = arg;
	struct catalog_cached row;

	return catalog_cached_get(b->catalog, KEY, &row) == 0 &&
	       row.checked_at > when_now() - 3600;
}

/* Nobody waits for the answer; whoever opens after it gets what it said. */
static void test_supply__old_cached_object_is_checked_behind(void **state)
{
	struct fs_bench *b = *state;
	uint64_t seen;
	struct store_object *o;
	struct published p, q;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_opens(b, &p);
	imitation_reset(b->im);
	assert_opens(b, &p);
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 0);

	publish(b, 2, 6000, &q);
	seen = metrics_get(METRIC_REPUBLISHED);
	fs_rules(b, "[{\"hold\": \"check\"}]");
	fs_up(b, NULL);
	age_two_days(b);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(supply_open(b->supply, KEY, NULL, NULL, &o),
				 0);
		assert_true(fs_same(o, p.zip, p.len));
		store_release(o);
	}
	assert_int_equal(imitation_held(b->im, "check", 1, FS_PATIENCE_MS), 1);
	assert_int_equal(fs_requests(b, NULL).heads, 1);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	imitation_release(b->im, "check", 0);
	fs_eventually(was_republished, &seen);
	assert_opens(b, &q);
	published_free(&p);
	published_free(&q);
}

static void test_supply__confirmed_object_is_not_checked_again(void **state)
{
	struct fs_bench *b = *state;
	uint64_t seen = metrics_get(METRIC_REPUBLISHED);
	struct store_object *o;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_opens(b, &p);
	fs_down(b);
	fs_up(b, NULL);
	age_two_days(b);
	imitation_reset(b->im);
	assert_int_equal(supply_open(b->supply, KEY, NULL, NULL, &o), 0);
	store_release(o);
	fs_eventually(was_confirmed, b);
	assert_opens(b, &p);
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen);
	published_free(&p);
}

static bool was_asked(void *arg)
{
	struct imitation_stats st;

	imitation_stats(((struct fs_bench *)arg)->im, &st);
	return st.by_kind[IMITATION_HEAD] >= 3 && st.in_flight == 0;
}

static void test_supply__failed_check_costs_nothing(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_opens(b, &p);
	fs_down(b);
	fs_rules(b, "[{\"status\": 503}]");
	fs_up(b, NULL);
	age_two_days(b);
	imitation_reset(b->im);
	assert_int_equal(supply_open(b->supply, KEY, NULL, NULL, &o), 0);
	store_release(o);
	fs_eventually(was_asked, b); /* with both retries */
	assert_opens(b, &p);
	published_free(&p);
}

/* An origin that ignores ranges, and what is known from its answer alone. */
static void test_supply__ranges_ignored_is_no_republication(void **state)
{
	struct fs_bench *b = *state;
	uint64_t seen = metrics_get(METRIC_REPUBLISHED);
	struct published p;

	publish(b, 1, 20000, &p);
	fs_rules(b, "[{\"key\": \"*.zip\", \"kind\": [\"object\", \"range\"],"
		    "  \"ignore_range\": true, \"chunked\": true}]");
	fs_up(b, NULL);
	assert_opens(b, &p);
	fs_down(b);
	fs_up(b, NULL);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	imitation_reset(b->im);
	assert_opens(b, &p);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	assert_int_equal(metrics_get(METRIC_REPUBLISHED), seen);
	published_free(&p);
}

/* ---- healing, and what was found in the cache ---- */

static void test_supply__damaged_object_is_healed(void **state)
{
	struct fs_bench *b = *state;
	uint64_t healed = metrics_get(METRIC_HEALED);
	struct store_object *damaged, *o, *again;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &damaged), 0);
	fs_damage(b, "objects/" KEY, 3000, "damage", 6);
	assert_int_equal(fs_heal(b, damaged, &o), 0);
	assert_true(fs_same(o, p.zip, p.len));
	assert_ptr_not_equal(o, damaged);
	assert_int_equal(metrics_get(METRIC_HEALED), healed + 1);
	/* A second handle that met the same damage gets what the first one
	 * brought. */
	imitation_reset(b->im);
	assert_int_equal(fs_heal(b, damaged, &again), 0);
	assert_ptr_equal(again, o);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	store_release(again);
	store_release(o);
	store_release(damaged);
	assert_opens(b, &p);
	published_free(&p);
}

/* Pages of two versions must not mix in one handle. */
static void test_supply__version_that_is_gone_is_not_healed(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *damaged, *o;
	struct published p, q;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_int_equal(fs_open(b, KEY, &damaged), 0);
	fs_damage(b, "objects/" KEY, 3000, "damage", 6);
	publish(b, 2, 6000, &q);
	assert_int_equal(fs_heal(b, damaged, &o), -EBADMSG);
	store_release(damaged);
	assert_opens(b, &q);
	published_free(&p);
	published_free(&q);
}

static void test_supply__healing_needs_the_origin(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *damaged, *o;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_opens(b, &p);
	fs_down(b);
	fs_up(b, &offline);
	assert_int_equal(fs_open(b, KEY, &damaged), 0);
	fs_damage(b, "objects/" KEY, 3000, "damage", 6);
	assert_int_equal(fs_heal(b, damaged, &o), -ENETUNREACH);
	store_release(damaged);
	published_free(&p);
}

static void in_cache(struct fs_bench *b, const char *command)
{
	char line[256];

	snprintf(line, sizeof(line), "cd %s && %s", b->cache, command);
	assert_int_equal(system(line), 0);
}

/* Cached, but a loss of power, or the user, took the catalog. */
static void cached_without_a_row(struct fs_bench *b, struct published *p)
{
	publish(b, 1, 5000, p);
	fs_up(b, NULL);
	assert_opens(b, p);
	fs_down(b);
	in_cache(b, "rm -r catalog.sqlite* index");
}

static void test_supply__object_without_a_row_is_adopted_offline(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	cached_without_a_row(b, &p);
	imitation_reset(b->im);
	fs_up(b, &offline);
	assert_opens(b, &p);
	assert_int_equal(supply_facts(b->supply, KEY, SUPPLY_CSV, NULL, &f), 0);
	assert_int_equal(f.csv_size, p.csv_len);
	fs_down(b);
	/* for good */
	fs_up(b, &offline);
	assert_opens(b, &p);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	published_free(&p);
}

static void test_supply__adopted_object_is_the_current_version(void **state)
{
	struct fs_bench *b = *state;
	struct published p;

	cached_without_a_row(b, &p);
	imitation_reset(b->im);
	fs_up(b, NULL);
	assert_opens(b, &p);
	/* The .CHECKSUM was asked for, and the object was not. */
	assert_int_equal(fs_requests(b, NULL).all,
			 fs_requests(b, ".CHECKSUM").all +
				 fs_requests(b, NULL).ranges +
				 fs_requests(b, NULL).heads);
	published_free(&p);
}

static void test_supply__damaged_object_without_a_row_is_not(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct published p;

	cached_without_a_row(b, &p);
	fs_damage(b, "objects/" KEY, 3000, "damage", 6);
	fs_up(b, &offline);
	assert_int_equal(fs_open(b, KEY, &o), -ENETUNREACH);
	fs_down(b);
	fs_up(b, NULL);
	assert_opens(b, &p);
	published_free(&p);
}

static void test_supply__lost_index_is_built_again_offline(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	uint64_t size;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_up(b, NULL);
	assert_opens(b, &p);
	fs_down(b);
	in_cache(b, "rm -r index");
	fs_up(b, &offline);
	assert_int_equal(fs_open(b, KEY, &o), 0);
	assert_int_equal(
		checkpoints_stream_size(store_object_index(o), 1, &size), 0);
	assert_int_equal(size, p.csv_len);
	store_release(o);
	published_free(&p);
}

/* ---- sizes of many ---- */

static void publish_days(struct fs_bench *b, unsigned int n)
{
	char key[200], csv[16];

	for (unsigned int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), PREFIX "S-%02u.zip", i);
		snprintf(csv, sizeof(csv), "%u\n", i + 100);
		fs_publish_csv(b, key, csv, strlen(csv));
	}
}

static char **keys_of_days(unsigned int n)
{
	char **keys = calloc(n, sizeof(*keys));

	assert_non_null(keys);
	for (unsigned int i = 0; i < n; i++)
		assert_true(asprintf(&keys[i], PREFIX "S-%02u.zip", i) > 0);
	return keys;
}

struct batch {
	struct fs_bench *b;
	unsigned int n;
};

static bool all_sized(void *arg)
{
	struct batch *batch = arg;
	struct supply_facts f;
	char key[200];

	for (unsigned int i = 0; i < batch->n; i++) {
		snprintf(key, sizeof(key), PREFIX "S-%02u.zip", i);
		if (supply_facts(batch->b->supply, key, SUPPLY_CSV, NULL, &f))
			return false;
		assert_int_equal(f.csv_size, 4);
	}
	return true;
}

static void test_supply__sizes_come_sixteen_at_a_time(void **state)
{
	struct fs_bench *b = *state;
	struct batch batch = {.b = b, .n = 60};
	struct imitation_stats st;
	struct supply_facts f;
	struct fs_waiter w;

	publish_days(b, 60);
	fs_publish_csv(b, KEY, "1\n", 2);
	fs_rules(b, "[{\"key\": \"*S-*\", \"hold\": \"it\"}]");
	fs_up(b, NULL);
	supply_sizes(b->supply, keys_of_days(60), 60);
	assert_int_equal(imitation_held(b->im, "it", 16, FS_PATIENCE_MS), 16);
	/* Who asks for one that is not in the batch is not behind it. */
	fs_waiter_begin(&w);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	fs_waiter_end(&w);
	assert_int_equal(imitation_held(b->im, "it", 16, 0), 16);
	/* One is answered, and one goes out in its place. */
	for (unsigned int i = 1; i < 44; i++) {
		imitation_release(b->im, "it", 1);
		while (fs_requests(b, "/S-").all < 16 + i)
			usleep(1000);
	}
	imitation_release(b->im, "it", 0);
	fs_eventually(all_sized, &batch);
	assert_int_equal(fs_requests(b, "/S-").all, 60);
	imitation_stats(b->im, &st);
	assert_int_equal(st.in_flight_max, 17); /* 16 and KEY */
}

static void test_supply__known_sizes_are_not_looked_up(void **state)
{
	struct fs_bench *b = *state;
	struct batch batch = {.b = b, .n = 20};

	publish_days(b, 20);
	fs_up(b, NULL);
	supply_sizes(b->supply, keys_of_days(20), 20);
	fs_eventually(all_sized, &batch);
	supply_sizes(b->supply, keys_of_days(20), 20);
	fs_down(b);
	fs_up(b, NULL);
	supply_sizes(b->supply, keys_of_days(20), 20);
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 20);
}

static void test_supply__unreachable_origin_ends_a_batch(void **state)
{
	struct fs_bench *b = *state;
	struct supply_facts f;

	publish_days(b, 60);
	fs_up(b, NULL);
	imitation_stop(b->im);
	b->im = NULL;
	supply_sizes(b->supply, keys_of_days(60), 60);
	assert_int_equal(fs_facts(b, PREFIX "S-00.zip", SUPPLY_CSV, &f),
			 -ENETUNREACH);
}

static void test_supply__offline_batch_asks_nobody(void **state)
{
	struct fs_bench *b = *state;

	publish_days(b, 5);
	fs_up(b, &offline);
	supply_sizes(b->supply, keys_of_days(5), 5);
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

static void test_supply__end_in_the_middle_of_a_batch(void **state)
{
	struct fs_bench *b = *state;

	publish_days(b, 60);
	fs_rules(b, "[{\"hold\": \"it\"}]");
	fs_up(b, NULL);
	supply_sizes(b->supply, keys_of_days(60), 60);
	supply_sizes(b->supply, keys_of_days(30), 30);
	assert_int_equal(imitation_held(b->im, "it", 16, FS_PATIENCE_MS), 16);
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 16);
}

/* ---- what is told of it ---- */

static void test_supply__status_follows_the_object(void **state)
{
	struct fs_bench *b = *state;
	struct supply_status st;
	struct published p;

	publish(b, 1, 1000, &p);
	fs_up(b, NULL);
	supply_status(b->supply, KEY, &st);
	assert_false(st.known);
	assert_int_equal(st.state, SUPPLY_ABSENT);
	assert_int_equal(st.bytes_done, 0);
	assert_int_equal(st.bytes_total, UINT64_MAX);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	assert_int_equal(fs_ensure(b, PREFIX), 0);
	supply_status(b->supply, KEY, &st);
	assert_true(st.known);
	assert_int_equal(st.bytes_total, p.len);
	assert_opens(b, &p);
	supply_status(b->supply, KEY, &st);
	assert_int_equal(st.state, SUPPLY_VERIFIED);
	assert_int_equal(st.bytes_done, p.len);
	assert_int_equal(st.bytes_total, p.len);
	assert_true(st.has_cached);
	published_free(&p);
}

struct seen_fetch {
	unsigned int n;
	char key[200];
	uint64_t total;
};

static void see_fetch(void *arg, const char *key, uint64_t done, uint64_t total,
		      uint64_t running_ms)
{
	struct seen_fetch *s = arg;

	(void)done;
	(void)running_ms;
	s->n++;
	s->total = total;
	snprintf(s->key, sizeof(s->key), "%s", key);
}

static void test_supply__downloads_under_way_are_told(void **state)
{
	struct fs_bench *b = *state;
	struct seen_fetch seen = {0};
	struct store_object *o;
	struct supply_facts f;
	struct fs_waiter w;
	struct published p;

	publish(b, 1, 1000, &p);
	fs_up(b, NULL);
	supply_each_fetch(b->supply, see_fetch, &seen);
	assert_int_equal(seen.n, 0);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold\": \"it\"}]");
	fs_waiter_begin(&w);
	assert_int_equal(supply_open(b->supply, KEY, &w.waiter, NULL, &o),
			 -EINPROGRESS);
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	supply_each_fetch(b->supply, see_fetch, &seen);
	assert_int_equal(seen.n, 1);
	assert_string_equal(seen.key, KEY);
	assert_int_equal(seen.total, p.len);
	supply_tick(b->supply, when_ms() + 6000);
	imitation_release(b->im, "it", 0);
	assert_int_equal(fs_wait(&w), 0);
	fs_waiter_end(&w);
	published_free(&p);
}

/* ---- a budget ---- */

#define SECOND PREFIX "BTCUSDT-1m-2024-01-02.zip"

static void publish_second(struct fs_bench *b, const struct published *p)
{
	fs_publish_csv(b, SECOND, p->csv, p->csv_len);
}

/* Whole objects asked for: neither tails nor checksums. */
static unsigned int downloads(struct fs_bench *b, const char *name)
{
	struct fs_requests r = fs_requests(b, name);
	char checksum[64];

	snprintf(checksum, sizeof(checksum), "%s.zip.CHECKSUM", name);
	return r.all - r.ranges - r.heads - fs_requests(b, checksum).all;
}

static void
test_supply__what_the_budget_lacks_is_refused_unfetched(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options o = {0};
	struct store_object *got;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 5000, &p);
	publish_second(b, &p);
	o.budget_bytes = p.len * 3 / 2;
	fs_up(b, &o);
	assert_opens(b, &p);
	assert_int_equal(fs_open(b, SECOND, &got), -EDQUOT);
	assert_int_equal(downloads(b, "BTCUSDT-1m-2024-01-02"), 0);
	/* What it is can be asked, and what is cached is there. */
	assert_int_equal(fs_facts(b, SECOND, SUPPLY_CSV, &f), 0);
	assert_int_equal(f.csv_size, p.csv_len);
	assert_opens(b, &p);
	fs_down(b);
	o.budget_bytes = p.len * 5 / 2;
	fs_up(b, &o);
	budget_came(b->budget, true, "other", p.len, when_now());
	assert_int_equal(fs_open(b, SECOND, &got), 0);
	store_release(got);
	published_free(&p);
}

static void
test_supply__a_larger_archive_may_be_the_first_of_a_day(void **state)
{
	const struct fs_options o = {.budget_bytes = 1000};
	struct fs_bench *b = *state;
	struct store_object *got;
	struct published p;

	publish(b, 1, 5000, &p);
	publish_second(b, &p);
	fs_up(b, &o);
	assert_opens(b, &p);
	assert_int_equal(fs_open(b, SECOND, &got), -EDQUOT);
	published_free(&p);
}

/* What another source would have to send has no room: nobody is blamed. */
static void test_supply__damaged_bytes_are_fetched_again_in_budget(void **state)
{
	struct fs_options o = {0};
	struct fs_bench *b = *state;
	struct supply_status st;
	struct store_object *got;
	struct published p;

	publish(b, 1, 5000, &p);
	fs_rules(b, "[{\"key\": \"*.zip\", \"kind\": \"object\","
		    "  \"flip_at\": 1000}]");
	o.budget_bytes = p.len * 3 / 2;
	fs_up(b, &o);
	assert_int_equal(fs_open(b, KEY, &got), -EDQUOT);
	assert_int_equal(downloads(b, NAME), 1);
	supply_status(b->supply, KEY, &st);
	assert_int_not_equal(st.state, SUPPLY_QUARANTINED);
	fs_down(b);
	fs_rules(b, "[]");
	fs_up(b, NULL);
	assert_opens(b, &p);
	published_free(&p);
}

static void test_supply__what_is_cached_needs_no_budget(void **state)
{
	const struct fs_options o = {.budget_bytes = 1};
	struct fs_bench *b = *state;
	struct published p;

	cached_without_a_row(b, &p);
	imitation_reset(b->im);
	fs_up(b, &o);
	budget_came(b->budget, true, "other", 10, when_now());
	/* Also where it has to be checked anew. */
	assert_opens(b, &p);
	assert_int_equal(downloads(b, NAME), 0);
	published_free(&p);
}

/* Half of it is staged, and so much of the budget is left. */
static void break_off(struct fs_bench *b, const struct published *p,
		      uint64_t left)
{
	struct fs_options o = {.budget_bytes = left};
	struct store_object *got;
	char rule[256];

	snprintf(rule, sizeof(rule),
		 "[{\"key\": \"*.zip\", \"kind\": \"object\","
		 "  \"cut_after\": %zu},"
		 " {\"kind\": \"range\", \"nth\": 2, \"times\": 99,"
		 "  \"drop\": true}]",
		 p->len / 2);
	fs_rules(b, rule);
	fs_up(b, NULL);
	assert_int_not_equal(fs_open(b, KEY, &got), 0);
	fs_down(b);
	fs_rules(b, "[]");
	fs_up(b, &o);
	budget_came(b->budget, true, "other", 1, when_now());
}

static void test_supply__a_partial_needs_budget_for_the_rest(void **state)
{
	struct fs_bench *b = *state;
	struct published p;

	publish(b, 1, 50000, &p);
	break_off(b, &p, p.len / 2 + 1000);
	assert_opens(b, &p);
	published_free(&p);
}

/* A cache on the way has another version, and for all of it there would be no
 * room. */
static void test_supply__a_partial_outlives_a_stale_answer(void **state)
{
	struct fs_bench *b = *state;
	struct published p;

	publish(b, 1, 50000, &p);
	break_off(b, &p, p.len / 2 + 10000);
	fs_rules(b, "[{\"key\": \"*.zip\", \"kind\": \"range\","
		    "  \"etag\": \"0123456789abcdef0123456789abcdef\","
		    "  \"listed\": false, \"times\": 1}]");
	assert_opens(b, &p);
	published_free(&p);
}

/* Published anew, and for that there is no room: what there is stays, and what
 * it is now is known. */
static void test_supply__a_refused_restart_loses_nothing(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *got;
	struct published p, now;
	struct supply_facts f;
	uint64_t bytes, size;

	publish(b, 1, 50000, &p);
	break_off(b, &p, p.len / 2 + 10000);
	publish(b, 2, 60000, &now);
	assert_int_equal(fs_open(b, KEY, &got), -EDQUOT);
	assert_int_equal(store_partial(b->store, KEY, &bytes, &size), 0);
	assert_int_equal(bytes, p.len / 2);
	assert_int_equal(size, p.len);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_OBJECT, &f), 0);
	assert_int_equal(f.size, now.len);
	published_free(&p);
	published_free(&now);
}

/* An archive whose zip is as long as its CSV asks for. */
static void publish_stored(struct fs_bench *b, const char *csv, size_t len,
			   struct published *p)
{
	struct fs_member m = {
		.name = NAME ".csv", .data = csv, .len = len, .stored = true};

	p->csv = NULL;
	p->zip = fs_zip(&m, 1, &p->len);
	fs_publish_zip(b, KEY, p->zip, p->len);
}

/* The catalog is lost, the archive was published anew, longer or not, and
 * there is no room for that: the one there is stays, and offline it serves. */
static void test_supply__what_is_cached_outlives_a_refusal(void **state)
{
	const struct fs_options o = {.budget_bytes = 1};
	struct fs_bench *b = *state;
	struct store_object *got;
	struct published p, now;
	struct supply_facts f;
	size_t len;
	char *csv;

	for (int longer = 0; longer < 2; longer++) {
		csv = fs_rows(1, 5000, &len);
		publish_stored(b, csv, len - 1, &p);
		fs_up(b, NULL);
		assert_opens(b, &p);
		fs_down(b);
		in_cache(b, "rm -r catalog.sqlite* index");
		csv[100] ^= 1;
		publish_stored(b, csv, len - 1 + (size_t)longer, &now);
		free(csv);
		fs_up(b, &o);
		budget_came(b->budget, true, "other", 10, when_now());
		for (int i = 0; i < 2; i++)
			assert_int_equal(fs_open(b, KEY, &got), -EDQUOT);
		fs_down(b);
		fs_up(b, &offline);
		assert_opens(b, &p);
		assert_int_equal(fs_facts(b, KEY, SUPPLY_OBJECT, &f), 0);
		assert_int_equal(f.size, p.len);
		fs_down(b);
		fs_up(b, NULL);
		assert_int_equal(fs_ensure(b, PREFIX), 0);
		assert_opens(b, &now);
		fs_down(b);
		in_cache(b, "rm -r catalog.sqlite* index objects");
		free(p.zip);
		free(now.zip);
	}
}

static void test_supply__sizes_end_when_they_alone_spent_it(void **state)
{
	const struct fs_options o = {.budget_bytes = 5000};
	struct fs_bench *b = *state;
	struct supply_facts f;
	struct published p;

	publish(b, 1, 5000, &p);
	publish_second(b, &p);
	fs_up(b, &o);
	budget_came(b->budget, true, "other", 5000, when_now());
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0); /* 4096 bytes */
	budget_came(b->budget, false, "other", 904, when_now());
	assert_int_equal(fs_facts(b, SECOND, SUPPLY_CSV, &f), -EDQUOT);
	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	published_free(&p);
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_supply__tail_tells_size_and_csv),
		BENCH(test_supply__facts_are_kept_for_good),
		BENCH(test_supply__one_tail_for_many_waiters),
		BENCH(test_supply__without_a_waiter_nothing_is_asked),
		BENCH(test_supply__absence_is_remembered),
		BENCH(test_supply__absence_ends_when_a_listing_shows_it),
		BENCH(test_supply__other_failures_are_not_remembered),
		BENCH(test_supply__offline_and_unknown_is_unreachable),
		BENCH(test_supply__listing_tells_of_the_object_alone),
		BENCH(test_supply__plain_object_is_asked_for_by_head),
		BENCH(test_supply__what_is_no_zip_has_no_csv),
		BENCH(test_supply__what_is_no_zip_is_an_object_all_the_same),
		BENCH(test_supply__bad_tail_is_asked_for_elsewhere),
		BENCH(test_supply__long_directory_takes_a_longer_tail),
		BENCH(test_supply__origin_that_ignores_ranges_sends_it_all),
		BENCH(test_supply__origin_that_tells_nothing_beforehand),
		BENCH(test_supply__one_download_for_many_waiters),
		BENCH(test_supply__admissions_under_way_are_bounded),
		BENCH(test_supply__paced_ones_are_bounded_whatever_comes),
		BENCH(test_supply__waiters_in_line_get_their_turn),
		BENCH(test_supply__waiters_are_woken_with_the_error),
		BENCH(test_supply__cached_object_needs_no_origin),
		BENCH(test_supply__refusal_is_remembered),
		BENCH(test_supply__refused_is_fetched_anew_when_lenient),
		BENCH(test_supply__keys_that_are_no_file_names_are_not_there),
		BENCH(test_supply__abandoned_download_goes_on_later),
		BENCH(test_supply__download_someone_waits_for_goes_on),
		BENCH(test_supply__late_comer_is_not_cancelled),
		BENCH(test_supply__end_answers_who_waits),
		BENCH(test_supply__republished_archive_is_fetched_anew),
		BENCH(test_supply__every_new_version_is_counted),
		BENCH(test_supply__newer_listing_outdates_what_is_cached),
		BENCH(test_supply__old_cached_object_is_checked_behind),
		BENCH(test_supply__confirmed_object_is_not_checked_again),
		BENCH(test_supply__failed_check_costs_nothing),
		BENCH(test_supply__ranges_ignored_is_no_republication),
		BENCH(test_supply__damaged_object_is_healed),
		BENCH(test_supply__version_that_is_gone_is_not_healed),
		BENCH(test_supply__healing_needs_the_origin),
		BENCH(test_supply__object_without_a_row_is_adopted_offline),
		BENCH(test_supply__adopted_object_is_the_current_version),
		BENCH(test_supply__damaged_object_without_a_row_is_not),
		BENCH(test_supply__lost_index_is_built_again_offline),
		BENCH(test_supply__sizes_come_sixteen_at_a_time),
		BENCH(test_supply__known_sizes_are_not_looked_up),
		BENCH(test_supply__unreachable_origin_ends_a_batch),
		BENCH(test_supply__offline_batch_asks_nobody),
		BENCH(test_supply__end_in_the_middle_of_a_batch),
		BENCH(test_supply__status_follows_the_object),
		BENCH(test_supply__downloads_under_way_are_told),
		BENCH(test_supply__what_the_budget_lacks_is_refused_unfetched),
		BENCH(test_supply__a_larger_archive_may_be_the_first_of_a_day),
		BENCH(test_supply__damaged_bytes_are_fetched_again_in_budget),
		BENCH(test_supply__what_is_cached_needs_no_budget),
		BENCH(test_supply__a_partial_needs_budget_for_the_rest),
		BENCH(test_supply__a_partial_outlives_a_stale_answer),
		BENCH(test_supply__a_refused_restart_loses_nothing),
		BENCH(test_supply__what_is_cached_outlives_a_refusal),
		BENCH(test_supply__sizes_end_when_they_alone_spent_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

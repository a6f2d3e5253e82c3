/*
 * What directories hold. Listings are put into the catalog as the archive's
 * pages would have been, and asked for offline; expected dates are worked out
 * by hand from the calendar of 2024 and the rules of design section 1.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/when.h"
#include "tests/support/fs_bench.h"

#define DAILY	"data/spot/daily/klines/BTCUSDT/1d/"
#define MONTHLY "data/spot/monthly/klines/BTCUSDT/1d/"
#define FOLDER	"spot/klines/BTCUSDT/1d"

static const struct fs_options offline = {.offline = true};
static const struct fs_options monthly_first = {.offline = true,
						.prefer_monthly = true};

/* The linker puts this in front of calloc(3), see the Makefile. */
static _Thread_local bool no_memory;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
	return no_memory ? NULL : __real_calloc(n, size);
}

/* Names end with NULL; a slash at the end makes a folder. */
static void list_at(struct fs_bench *b, int64_t at, const char *prefix,
		    const char *const *names)
{
	struct catalog_entry entries[64];
	char texts[64][300];
	size_t n = 0, len;

	for (; names[n]; n++) {
		len = strlen(names[n]);
		entries[n] = (struct catalog_entry){
			.name = texts[n],
			.is_prefix = len && names[n][len - 1] == '/',
			.etag = "0123456789abcdef0123456789abcdef",
			.size = 1000,
			.last_modified = 1700000000,
		};
		snprintf(texts[n], sizeof(texts[n]), "%.*s",
			 (int)(len - entries[n].is_prefix), names[n]);
	}
	assert_int_equal(
		catalog_listing_put(b->catalog, prefix, entries, n, at), 0);
}

#define LIST(b, prefix, ...)                                                   \
	list_at(b, when_now(), prefix, (const char *const[]){__VA_ARGS__, NULL})
#define LIST_NOTHING(b, prefix)                                                \
	list_at(b, when_now(), prefix, (const char *const[]){NULL})

/* As "a b c", folders with a slash. */
static void names_of(const struct folder *d, char *out, size_t size)
{
	size_t n = 0;

	out[0] = '\0';
	for (size_t i = 0; i < d->n; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%s%s", i ? " " : "",
				      d->entries[i].name,
				      d->entries[i].is_dir ? "/" : "");
}

static struct folder *read_folder(struct fs_bench *b, const char *path)
{
	struct folder *d;
	int err = folder_read(b->folders, path, NULL, &d);

	if (err)
		fail_msg("%s: %s", path, strerror(-err));
	return d;
}

#define assert_names(d, expected)                                              \
	do {                                                                   \
		char shown[8192];                                              \
		names_of(d, shown, sizeof(shown));                             \
		assert_string_equal(shown, expected);                          \
	} while (0)

/* ---- the tree by date ---- */

#define DAYS_AND_MONTHS(b)                                                     \
	LIST(b, DAILY, "BTCUSDT-1d-2024-06-10.zip",                            \
	     "BTCUSDT-1d-2024-06-10.zip.CHECKSUM",                             \
	     "BTCUSDT-1d-2024-06-13.zip", "BTCUSDT-1d-2024-07-02.zip");        \
	LIST(b, MONTHLY, "BTCUSDT-1d-2024-05.zip", "BTCUSDT-1d-2024-06.zip",   \
	     "BTCUSDT-1d-2024-08.zip", "BTCUSDT-1d-2024-08.zip.CHECKSUM")

static void test_folder__lists_days_and_months_without_days(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	DAYS_AND_MONTHS(b);
	d = read_folder(b, FOLDER);
	assert_names(d, "2024-05.csv 2024-06-10.csv 2024-06-13.csv "
			"2024-07-02.csv 2024-08.csv");
	assert_true(d->has_dates);
	assert_int_equal(d->files, 5);
	assert_string_equal(d->first_date, "2024-05");
	assert_string_equal(d->last_date, "2024-08");
	/* June has 30 days; three runs of it are nowhere but in its month. */
	assert_string_equal(d->dates_only_in_monthly,
			    "2024-06-01..2024-06-09,2024-06-11..2024-06-12,"
			    "2024-06-14..2024-06-30");
	assert_string_equal(d->missing_dates,
			    "2024-07-01,2024-07-03..2024-07-31");
	folder_free(d);
}

static void test_folder__lists_months_first_if_so_preferred(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &monthly_first);
	DAYS_AND_MONTHS(b);
	d = read_folder(b, FOLDER);
	assert_names(d, "2024-05.csv 2024-06.csv 2024-07-02.csv 2024-08.csv");
	assert_int_equal(d->files, 4);
	assert_string_equal(d->dates_only_in_monthly, "");
	assert_string_equal(d->missing_dates,
			    "2024-07-01,2024-07-03..2024-07-31");
	folder_free(d);
}

/* 1 March follows 29 February in 2024. */
static void test_folder__leap_day_is_a_day(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST_NOTHING(b, MONTHLY);
	LIST(b, DAILY, "BTCUSDT-1d-2024-02-28.zip",
	     "BTCUSDT-1d-2024-03-01.zip");
	d = read_folder(b, FOLDER);
	assert_string_equal(d->missing_dates, "2024-02-29");
	folder_free(d);

	LIST(b, DAILY, "BTCUSDT-1d-2023-02-28.zip",
	     "BTCUSDT-1d-2023-03-01.zip");
	d = read_folder(b, FOLDER);
	assert_string_equal(d->missing_dates, "");
	folder_free(d);
}

static void test_folder__one_day_misses_nothing(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST_NOTHING(b, MONTHLY);
	LIST(b, DAILY, "BTCUSDT-1d-2024-06-10.zip");
	d = read_folder(b, FOLDER);
	assert_names(d, "2024-06-10.csv");
	assert_string_equal(d->first_date, "2024-06-10");
	assert_string_equal(d->last_date, "2024-06-10");
	assert_string_equal(d->missing_dates, "");
	assert_string_equal(d->dates_only_in_monthly, "");
	folder_free(d);
}

static void test_folder__months_written_without_zero_are_months(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, "data/spot/monthly/klines/BTCUSDT/1mo/",
	     "BTCUSDT-1mo-2020-10.zip", "BTCUSDT-1mo-2020-8.zip",
	     "BTCUSDT-1mo-2020-09.zip", "BTCUSDT-1mo-2020-9.zip");
	LIST_NOTHING(b, "data/spot/daily/klines/BTCUSDT/1mo/");
	d = read_folder(b, "spot/klines/BTCUSDT/1mo");
	assert_names(d, "2020-08.csv 2020-09.csv 2020-10.csv");
	assert_int_equal(d->files, 3);
	folder_free(d);
}

static void test_folder__junk_is_not_in_the_tree_by_date(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, DAILY, "BTCUSDT-1d-2024-06-10.zip", "BTCUSDT-1d-2024-06-31.zip",
	     "BTCUSDT-1d-2024-6-1.zip", "BTCUSDT-1d-2024-06.zip",
	     "BTCUSDT-1h-2024-06-11.zip", "ETHUSDT-1d-2024-06-11.zip",
	     "BTCUSDT-1d-2024-06-12.csv", "BTCUSDT-1d-2024-06-14.zip/",
	     "part-00000-4e1e.zip");
	LIST_NOTHING(b, MONTHLY);
	d = read_folder(b, FOLDER);
	assert_names(d, "2024-06-10.csv");
	folder_free(d);
}

static void test_folder__symbols_are_those_of_both_cadences(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, "data/spot/daily/klines/", "BTCUSDT/", "币安人生USDT/",
	     "index.html");
	LIST(b, "data/spot/monthly/klines/", "ETHUSDT/", "BTCUSDT/", "1INCH/");
	d = read_folder(b, "spot/klines");
	assert_names(d, "1INCH/ BTCUSDT/ ETHUSDT/ 币安人生USDT/");
	assert_false(d->has_dates);
	folder_free(d);
}

static void test_folder__only_known_datasets_and_intervals_show(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, "data/spot/daily/", "klines/", "trades/", "secret/");
	LIST(b, "data/spot/monthly/", "klines/", "aggTrades/");
	d = read_folder(b, "spot");
	assert_names(d, "aggTrades/ klines/ trades/");
	folder_free(d);
	LIST(b, "data/spot/daily/klines/BTCUSDT/", "1m/", "7m/", "1h/");
	LIST(b, "data/spot/monthly/klines/BTCUSDT/", "1mo/", "part/");
	d = read_folder(b, "spot/klines/BTCUSDT");
	assert_names(d, "1h/ 1m/ 1mo/");
	folder_free(d);
}

static void test_folder__dataset_of_one_cadence_asks_for_no_other(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, "data/futures/um/daily/metrics/BTCUSDT/",
	     "BTCUSDT-metrics-2024-01-01.zip");
	d = read_folder(b, "um/metrics/BTCUSDT");
	assert_names(d, "2024-01-01.csv");
	assert_true(d->has_dates);
	folder_free(d);
}

static void test_folder__age_is_that_of_the_older_listing(void **state)
{
	const char *const days[] = {"BTCUSDT-1d-2024-06-10.zip", NULL};
	const char *const months[] = {"BTCUSDT-1d-2024-05.zip", NULL};
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	list_at(b, 1700000200, DAILY, days);
	list_at(b, 1700000100, MONTHLY, months);
	d = read_folder(b, FOLDER);
	assert_int_equal(d->fetched_at, 1700000100);
	folder_free(d);
	list_at(b, 1700000000, DAILY, days);
	d = read_folder(b, FOLDER);
	assert_int_equal(d->fetched_at, 1700000000);
	folder_free(d);
}

static void test_folder__nothing_under_any_prefix_is_no_folder(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST_NOTHING(b, DAILY);
	LIST_NOTHING(b, MONTHLY);
	assert_int_equal(folder_read(b->folders, FOLDER, NULL, &d), -ENOENT);
	assert_int_equal(folder_read(b->folders, "spot/nonsense", NULL, &d),
			 -ENOENT);
}

static void test_folder__files_are_no_folders(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	assert_int_equal(folder_read(b->folders, FOLDER "/2024-01-01.csv", NULL,
				     &d),
			 -ENOTDIR);
	assert_int_equal(folder_read(b->folders, ".tickfs/status.json", NULL,
				     &d),
			 -ENOTDIR);
	assert_int_equal(folder_read(b->folders, DAILY "x.csv", NULL, &d),
			 -ENOTDIR);
}

static void test_folder__unlisted_and_offline_is_unreachable(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	assert_int_equal(folder_read(b->folders, FOLDER, NULL, &d),
			 -ENETUNREACH);
	assert_int_equal(fs_folder(b, "data/spot", &d), -ENETUNREACH);
}

/* Days of one cadence alone would leave out in silence what only the other has.
 * What was seen of one is under data/. */
static void test_folder__one_cadence_alone_is_no_folder_of_dates(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, DAILY, "BTCUSDT-1d-2024-06-10.zip");
	assert_int_equal(folder_read(b->folders, FOLDER, NULL, &d),
			 -ENETUNREACH);
	d = read_folder(b, "data/spot/daily/klines/BTCUSDT/1d");
	assert_names(d, "BTCUSDT-1d-2024-06-10.csv BTCUSDT-1d-2024-06-10.zip");
	folder_free(d);
	/* That there is nothing monthly is something known. */
	LIST_NOTHING(b, MONTHLY);
	d = read_folder(b, FOLDER);
	assert_names(d, "2024-06-10.csv");
	folder_free(d);
}

static void test_folder__fixed_ones_need_no_listing(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	d = read_folder(b, "");
	assert_names(d, ".tickfs/ cm/ data/ option/ spot/ um/");
	folder_free(d);
	d = read_folder(b, ".tickfs");
	assert_names(d, "log.jsonl status.json");
	folder_free(d);
}

/* ---- the tree as published ---- */

static void test_folder__every_key_is_under_data(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, DAILY, "A-1d-2024-06-10.zip", "A-1d-2024-06-10.zip.CHECKSUM",
	     "part-00000-4e1e.zip", "sub/", "odd.zip/", ".zip", "readme");
	d = read_folder(b, "data/spot/daily/klines/BTCUSDT/1d");
	assert_names(d, ".zip A-1d-2024-06-10.csv A-1d-2024-06-10.zip "
			"A-1d-2024-06-10.zip.CHECKSUM odd.zip/ "
			"part-00000-4e1e.csv part-00000-4e1e.zip readme sub/");
	/* objects, and no CSV that is only another face of one */
	assert_int_equal(d->files, 5);
	assert_false(d->has_dates);
	folder_free(d);
}

static void test_folder__published_csv_shows_once(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	LIST(b, DAILY, "a.csv", "a.zip", "b.csv");
	d = read_folder(b, "data/spot/daily/klines/BTCUSDT/1d");
	assert_names(d, "a.csv a.zip b.csv");
	assert_int_equal(d->files, 3);
	folder_free(d);
}

static void test_folder__names_no_file_can_have_are_left_out(void **state)
{
	char longest[256 + 1];
	struct fs_bench *b = *state;
	struct folder *d;

	memset(longest, 'x', 256);
	longest[256] = '\0';
	fs_up(b, &offline);
	LIST(b, DAILY, longest, longest + 1);
	d = read_folder(b, "data/spot/daily/klines/BTCUSDT/1d");
	assert_names(d, longest + 1);
	folder_free(d);
}

/* ---- members of archives ---- */

#define ZIP DAILY "many.zip"

static void put_members(struct fs_bench *b, const char *const *names)
{
	struct archive_member members[16];
	struct archive_directory d = {.members = members};
	struct catalog_facts f = {
		.etag = "many",
		.size = 1000,
		.last_modified = 1700000000,
		.seen_at = 1700000000,
		.csv_member = CATALOG_CSV_NONE,
	};

	for (; names[d.n]; d.n++)
		members[d.n] = (struct archive_member){
			.name = (char *)names[d.n],
			.size = 10 + d.n,
			.csize = 10,
			.is_dir = names[d.n][0] &&
				  names[d.n][strlen(names[d.n]) - 1] == '/',
			.mtime = 1700000000,
		};
	f.members = d.n;
	assert_int_equal(catalog_facts_put(b->catalog, ZIP, &f, &d), 0);
}

static void test_folder__members_are_a_tree_of_their_own(void **state)
{
	const char *const names[] = {"top.csv", "a/b.csv", "a/c/d.csv", "a/",
				     "empty/",	"a/c.csv", NULL};
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	put_members(b, names);
	d = read_folder(b, ZIP ".d");
	assert_names(d, "a/ empty/ top.csv");
	folder_free(d);
	d = read_folder(b, ZIP ".d/a");
	assert_names(d, "b.csv c/ c.csv");
	assert_int_equal(d->files, 2);
	folder_free(d);
	d = read_folder(b, ZIP ".d/a/c");
	assert_names(d, "d.csv");
	folder_free(d);
	d = read_folder(b, ZIP ".d/empty");
	assert_names(d, "");
	folder_free(d);
	assert_int_equal(folder_read(b->folders, ZIP ".d/none", NULL, &d),
			 -ENOENT);
	assert_int_equal(folder_read(b->folders, ZIP ".d/a/b", NULL, &d),
			 -ENOENT);
}

/* APPNOTE 4.4.17 leaves names to whoever writes the zip. */
static void test_folder__hostile_member_names_do_not_show(void **state)
{
	const char *const names[] = {
		"../up.csv",	  "/etc/passwd", "a//b.csv",
		"a/../../up.csv", "./here.csv",	 "",
		"good.csv",	  "a/./b.csv",	 NULL,
	};
	struct fs_bench *b = *state;
	struct folder *d;

	fs_up(b, &offline);
	put_members(b, names);
	d = read_folder(b, ZIP ".d");
	assert_names(d, "good.csv");
	folder_free(d);
}

/* One name can't be a file and a folder: it is what a look-up finds. */
static void test_folder__member_that_is_file_and_folder_shows_once(void **state)
{
	const char *const names[] = {"a/b.csv", "a", "a/c.csv", NULL};
	struct fs_bench *b = *state;
	struct tree_target tg;
	struct folder *d;

	fs_up(b, &offline);
	put_members(b, names);
	d = read_folder(b, ZIP ".d");
	assert_names(d, "a");
	folder_free(d);
	assert_int_equal(tree_resolve(b->tree, ZIP ".d/a", &tg), 0);
	assert_int_equal(tg.sort, TREE_MEMBER);
}

/* ---- from the origin ---- */

static void test_folder__both_listings_are_asked_for_at_once(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;
	struct fs_waiter w;

	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-10.zip", "1\n", 2);
	fs_publish_csv(b, MONTHLY "BTCUSDT-1d-2024-05.zip", "1\n", 2);
	fs_up(b, NULL);
	assert_int_equal(folder_read(b->folders, FOLDER, NULL, &d),
			 -EINPROGRESS);
	assert_int_equal(fs_requests(b, NULL).all, 0);

	fs_rules(b, "[{\"kind\": \"list\", \"hold\": \"lists\"}]");
	fs_waiter_begin(&w);
	assert_int_equal(folder_read(b->folders, FOLDER, &w.waiter, &d),
			 -EINPROGRESS);
	assert_int_equal(imitation_held(b->im, "lists", 2, FS_PATIENCE_MS), 2);
	imitation_release(b->im, "lists", 0);
	assert_int_equal(fs_wait(&w), 0);
	fs_waiter_end(&w);
	assert_int_equal(fs_folder(b, FOLDER, &d), 0);
	assert_names(d, "2024-05.csv 2024-06-10.csv");
	folder_free(d);
	assert_int_equal(fs_requests(b, NULL).all, 2);
}

static bool four_tails(void *arg)
{
	return fs_requests(arg, NULL).ranges == 4;
}

static bool sized(void *arg)
{
	struct fs_bench *b = arg;
	struct tree_file f;
	struct tree_target tg;

	return tree_resolve(b->tree, FOLDER "/2024-05.csv", &tg) == 0 &&
	       tree_stat(b->tree, FOLDER "/2024-05.csv", &tg, NULL, &f) == 0;
}

/* Those that show, not the month that days stand for; once a reading. */
static void test_folder__sizes_are_looked_up_for_all_once(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-10.zip", "1\n", 2);
	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-11.zip", "2\n", 2);
	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-12.zip", "3\n", 2);
	fs_publish_csv(b, MONTHLY "BTCUSDT-1d-2024-06.zip", "123\n", 4);
	fs_publish_csv(b, MONTHLY "BTCUSDT-1d-2024-05.zip", "0\n", 2);
	fs_up(b, NULL);
	assert_int_equal(fs_folder(b, FOLDER, &d), 0);
	folder_free(d);
	folder_size_all(b->folders, FOLDER); /* nobody read it */
	imitation_reset(b->im);
	folder_note_read(b->folders, FOLDER);
	folder_size_all(b->folders, FOLDER "/");
	fs_eventually(four_tails, b);
	fs_eventually(sized, b);
	folder_size_all(b->folders, FOLDER);
	assert_int_equal(fs_requests(b, NULL).all, 4);
	assert_int_equal(fs_requests(b, "2024-06.zip").all, 0);
	/* Read again: all are known. */
	folder_note_read(b->folders, FOLDER);
	folder_size_all(b->folders, FOLDER);
	assert_int_equal(fs_requests(b, NULL).all, 4);
}

static bool warm(void *arg)
{
	struct fs_bench *b = arg;

	return folder_is_warm(b->folders, FOLDER);
}

/* A look-up or two may be of anyone who knows what he wants. */
static void test_folder__is_warm_after_some_look_ups(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-10.zip", "1\n", 2);
	fs_up(b, NULL);
	assert_int_equal(fs_folder(b, FOLDER, &d), 0);
	folder_free(d);
	for (int i = 0; i < 100; i++)
		folder_looked_up(b->folders, FOLDER); /* nobody read it */
	assert_false(folder_is_warm(b->folders, FOLDER));
	folder_note_read(b->folders, FOLDER);
	folder_looked_up(b->folders, FOLDER);
	workers_drain((struct workers *[]){b->quick}, 1);
	assert_false(folder_is_warm(b->folders, FOLDER));
	for (int i = 0; i < 100; i++)
		folder_looked_up(b->folders, FOLDER "/");
	fs_eventually(warm, b);
	folder_note_read(b->folders, FOLDER);
	assert_true(folder_is_warm(b->folders, FOLDER));
}

static void test_folder__warming_without_memory_is_tried_again(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;

	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-10.zip", "1\n", 2);
	fs_up(b, NULL);
	assert_int_equal(fs_folder(b, FOLDER, &d), 0);
	folder_free(d);
	folder_note_read(b->folders, FOLDER);
	no_memory = true;
	for (int i = 0; i < 100; i++)
		folder_looked_up(b->folders, FOLDER);
	no_memory = false;
	workers_drain((struct workers *[]){b->quick}, 1);
	assert_false(folder_is_warm(b->folders, FOLDER));
	for (int i = 0; i < 100; i++)
		folder_looked_up(b->folders, FOLDER);
	fs_eventually(warm, b);
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_folder__lists_days_and_months_without_days),
		BENCH(test_folder__lists_months_first_if_so_preferred),
		BENCH(test_folder__leap_day_is_a_day),
		BENCH(test_folder__one_day_misses_nothing),
		BENCH(test_folder__months_written_without_zero_are_months),
		BENCH(test_folder__junk_is_not_in_the_tree_by_date),
		BENCH(test_folder__symbols_are_those_of_both_cadences),
		BENCH(test_folder__only_known_datasets_and_intervals_show),
		BENCH(test_folder__dataset_of_one_cadence_asks_for_no_other),
		BENCH(test_folder__age_is_that_of_the_older_listing),
		BENCH(test_folder__nothing_under_any_prefix_is_no_folder),
		BENCH(test_folder__files_are_no_folders),
		BENCH(test_folder__unlisted_and_offline_is_unreachable),
		BENCH(test_folder__one_cadence_alone_is_no_folder_of_dates),
		BENCH(test_folder__fixed_ones_need_no_listing),
		BENCH(test_folder__every_key_is_under_data),
		BENCH(test_folder__published_csv_shows_once),
		BENCH(test_folder__names_no_file_can_have_are_left_out),
		BENCH(test_folder__members_are_a_tree_of_their_own),
		BENCH(test_folder__hostile_member_names_do_not_show),
		BENCH(test_folder__member_that_is_file_and_folder_shows_once),
		BENCH(test_folder__both_listings_are_asked_for_at_once),
		BENCH(test_folder__sizes_are_looked_up_for_all_once),
		BENCH(test_folder__is_warm_after_some_look_ups),
		BENCH(test_folder__warming_without_memory_is_tried_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What a path means, with and without a listing, and how large it is. */
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
#define DAY	DAILY "BTCUSDT-1d-2024-06-10.zip"

static const struct fs_options offline = {.offline = true};

/* One entry of a listing, put as if it had come @age_s seconds ago. */
static void list_one(struct fs_bench *b, const char *prefix, const char *name,
		     bool is_prefix, int64_t age_s)
{
	struct catalog_entry e = {
		.name = name,
		.is_prefix = is_prefix,
		.etag = "0123456789abcdef0123456789abcdef",
		.size = 1000,
		.last_modified = 1700000000,
	};

	assert_int_equal(catalog_listing_put(b->catalog, prefix, &e,
					     name != NULL, when_now() - age_s),
			 0);
}

static struct tree_target resolved(struct fs_bench *b, const char *path)
{
	struct tree_target tg;
	int err = tree_resolve(b->tree, path, &tg);

	if (err)
		fail_msg("%s: %s", path, strerror(-err));
	return tg;
}

static int resolve(struct fs_bench *b, const char *path)
{
	struct tree_target tg;

	return tree_resolve(b->tree, path, &tg);
}

/* ---- resolving ---- */

static void test_tree__fixed_folders_are_always_there(void **state)
{
	static const char *const paths[] = {"",	  "data",   "spot",   "um",
					    "cm", "option", ".tickfs"};
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_up(b, &offline);
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		tg = resolved(b, paths[i]);
		assert_int_equal(tg.sort, TREE_FOLDER);
		assert_false(tg.provisional);
	}
	assert_int_equal(resolve(b, "futures"), -ENOENT);
}

static void test_tree__control_files_are_those_named(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, &offline);
	assert_int_equal(resolved(b, ".tickfs/status.json").sort, TREE_CONTROL);
	assert_false(resolved(b, ".tickfs/log.jsonl").provisional);
	assert_int_equal(resolve(b, ".tickfs/passwd"), -ENOENT);
	assert_int_equal(resolve(b, ".tickfs/a/status.json"), -ENOENT);
}

static void test_tree__unlisted_names_are_provisional(void **state)
{
	static const struct {
		const char *path;
		enum tree_sort sort;
		const char *key;
	} cases[] = {
		{"spot/klines", TREE_FOLDER, ""},
		{"spot/klines/NOBODY", TREE_FOLDER, ""},
		{"spot/klines/NOBODY/1m", TREE_FOLDER, ""},
		{FOLDER "/2024-06-10.csv", TREE_CSV, DAY},
		{FOLDER "/2024-06.csv", TREE_CSV,
		 MONTHLY "BTCUSDT-1d-2024-06.zip"},
		{"data/spot", TREE_FOLDER, "data/spot"},
		{DAY, TREE_OBJECT, DAY},
		{DAILY "BTCUSDT-1d-2024-06-10.csv", TREE_CSV, DAY},
		{DAY ".d", TREE_FOLDER, DAY},
		{DAY ".d/a.csv", TREE_MEMBER, DAY},
		{DAY ".d/a", TREE_FOLDER, DAY},
	};
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_up(b, NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		tg = resolved(b, cases[i].path);
		assert_true(tg.provisional);
		assert_int_equal(tg.sort, cases[i].sort);
		assert_string_equal(tg.key, cases[i].key);
	}
	assert_int_equal(fs_requests(b, NULL).all, 0);
}

static void test_tree__ungrammatical_names_are_not_there(void **state)
{
	static const char *const paths[] = {
		"spot/nonsense",	  "spot/klines/BTCUSDT/7m",
		FOLDER "/2024-06-31.csv", FOLDER "/2024-6-1.csv",
		FOLDER "/2024-06-10.zip", FOLDER "/2024-06-10.csv/x",
		"data/../spot",		  "data//spot",
	};
	struct fs_bench *b = *state;

	fs_up(b, &offline);
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		assert_int_equal(resolve(b, paths[i]), -ENOENT);
}

static void test_tree__listing_makes_it_definite(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_up(b, NULL);
	list_one(b, DAILY, "BTCUSDT-1d-2024-06-10.zip", false, 0);
	tg = resolved(b, FOLDER "/2024-06-10.csv");
	assert_false(tg.provisional);
	assert_int_equal(tg.sort, TREE_CSV);
	assert_string_equal(tg.key, DAY);
	assert_int_equal(resolve(b, FOLDER "/2024-06-11.csv"), -ENOENT);
	/* of the other cadence nothing is known */
	assert_true(resolved(b, FOLDER "/2024-06.csv").provisional);
	assert_false(resolved(b, DAY).provisional);
	assert_int_equal(resolve(b, DAY ".CHECKSUM"), -ENOENT);
	assert_int_equal(resolve(b, DAILY "other.csv"), -ENOENT);
	assert_int_equal(resolve(b, DAILY "other.zip.d"), -ENOENT);
}

/* What it has is there still; what it has not may have come since. */
static void test_tree__old_listing_does_not_say_no(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	list_one(b, DAILY, "BTCUSDT-1d-2024-06-10.zip", false, 86400);
	assert_false(resolved(b, FOLDER "/2024-06-10.csv").provisional);
	assert_true(resolved(b, FOLDER "/2024-06-11.csv").provisional);
	fs_down(b);
	fs_up(b, &offline);
	assert_int_equal(resolve(b, FOLDER "/2024-06-11.csv"), -ENOENT);
}

static void test_tree__folders_need_both_listings_to_be_absent(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	list_one(b, "data/spot/daily/klines/", "BTCUSDT", true, 0);
	assert_false(resolved(b, "spot/klines/BTCUSDT").provisional);
	assert_true(resolved(b, "spot/klines/ETHUSDT").provisional);
	list_one(b, "data/spot/monthly/klines/", "ETHUSDT", true, 0);
	assert_false(resolved(b, "spot/klines/ETHUSDT").provisional);
	assert_int_equal(resolve(b, "spot/klines/NOBODY"), -ENOENT);
}

static void test_tree__file_is_no_folder_and_none_is_a_file(void **state)
{
	struct fs_bench *b = *state;

	fs_up(b, NULL);
	list_one(b, "data/spot/daily/klines/", "BTCUSDT", false, 0);
	list_one(b, "data/spot/monthly/klines/", NULL, false, 0);
	assert_int_equal(resolve(b, "spot/klines/BTCUSDT"), -ENOENT);
	list_one(b, DAILY, "BTCUSDT-1d-2024-06-10.zip", true, 0);
	assert_int_equal(resolve(b, FOLDER "/2024-06-10.csv"), -ENOENT);
	assert_int_equal(resolve(b, DAY ".d"), -ENOENT);
	/* Under data/ the listing knows better than the dot in the name. */
	assert_int_equal(resolved(b, DAY).sort, TREE_FOLDER);
	list_one(b, "data/", "nodot", false, 0);
	assert_int_equal(resolved(b, "data/nodot").sort, TREE_OBJECT);
}

static void test_tree__month_is_found_as_it_is_spelt(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_up(b, NULL);
	list_one(b, MONTHLY, "BTCUSDT-1d-2020-8.zip", false, 0);
	tg = resolved(b, FOLDER "/2020-08.csv");
	assert_false(tg.provisional);
	assert_string_equal(tg.key, MONTHLY "BTCUSDT-1d-2020-8.zip");
	list_one(b, MONTHLY, "BTCUSDT-1d-2020-08.zip", false, 0);
	tg = resolved(b, FOLDER "/2020-08.csv");
	assert_string_equal(tg.key, MONTHLY "BTCUSDT-1d-2020-08.zip");
	assert_int_equal(resolve(b, FOLDER "/2020-8.csv"), -ENOENT);
}

static void test_tree__published_csv_is_an_object(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_up(b, NULL);
	list_one(b, DAILY, "odd.csv", false, 0);
	tg = resolved(b, DAILY "odd.csv");
	assert_int_equal(tg.sort, TREE_OBJECT);
	assert_string_equal(tg.key, DAILY "odd.csv");
	list_one(b, DAILY, "odd.zip", false, 0);
	tg = resolved(b, DAILY "odd.csv");
	assert_int_equal(tg.sort, TREE_CSV);
	assert_string_equal(tg.key, DAILY "odd.zip");
}

/* ---- confirming ---- */

static void test_tree__confirming_asks_for_the_one_object(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_publish_csv(b, DAY, "1,2\n", 4);
	fs_up(b, NULL);
	assert_int_equal(fs_resolve(b, FOLDER "/2024-06-10.csv", &tg), 0);
	assert_false(tg.provisional);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	assert_int_equal(fs_requests(b, NULL).lists, 0);
	assert_int_equal(fs_resolve(b, FOLDER "/2024-06-11.csv", &tg), -ENOENT);
	assert_int_equal(fs_resolve(b, DAY, &tg), 0);
	assert_int_equal(fs_resolve(b, DAILY "other.zip", &tg), -ENOENT);
	assert_int_equal(fs_resolve(b, DAILY "BTCUSDT-1d-2024-06-10.csv", &tg),
			 0);
}

static void test_tree__confirming_finds_the_other_spelling(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_publish_csv(b, MONTHLY "BTCUSDT-1d-2020-8.zip", "1,2\n", 4);
	fs_up(b, NULL);
	assert_int_equal(fs_resolve(b, FOLDER "/2020-08.csv", &tg), 0);
	assert_string_equal(tg.key, MONTHLY "BTCUSDT-1d-2020-8.zip");
	assert_false(tg.provisional);
	assert_int_equal(fs_resolve(b, FOLDER "/2020-09.csv", &tg), -ENOENT);
	/* No such spelling of a month of two digits. */
	imitation_reset(b->im);
	assert_int_equal(fs_resolve(b, FOLDER "/2020-10.csv", &tg), -ENOENT);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

static void test_tree__confirming_a_folder_asks_for_one_entry(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_publish_csv(b, MONTHLY "BTCUSDT-1d-2020-08.zip", "1,2\n", 4);
	fs_up(b, NULL);
	assert_int_equal(fs_resolve(b, "spot/klines/BTCUSDT", &tg), 0);
	assert_false(tg.provisional);
	assert_int_equal(fs_requests(b, NULL).lists, 2);
	assert_int_equal(fs_requests(b, "max-keys=1").all, 2);
	assert_int_equal(fs_resolve(b, "spot/klines/NOBODY", &tg), -ENOENT);
	assert_int_equal(fs_resolve(b, "data/spot/monthly", &tg), 0);
	assert_int_equal(fs_resolve(b, "data/nowhere", &tg), -ENOENT);
	assert_int_equal(fs_resolve(b, "data/nowhere", &tg), -ENOENT);
}

static void test_tree__offline_nothing_can_be_confirmed(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_up(b, &offline);
	assert_int_equal(fs_resolve(b, FOLDER "/2024-06-10.csv", &tg),
			 -ENETUNREACH);
	assert_int_equal(fs_resolve(b, FOLDER, &tg), -ENETUNREACH);
	assert_int_equal(fs_resolve(b, DAY ".d/x.csv", &tg), -ENETUNREACH);
}

static void test_tree__unconfirmed_stays_provisional(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;

	fs_up(b, NULL);
	assert_int_equal(tree_resolve(b->tree, FOLDER "/2024-06-10.csv", &tg),
			 0);
	assert_int_equal(tree_confirm(b->tree, FOLDER "/2024-06-10.csv", &tg,
				      NULL),
			 -EINPROGRESS);
	assert_true(tg.provisional);
}

static void test_tree__members_are_confirmed_by_the_archive(void **state)
{
	static const struct fs_member members[] = {
		{"top.csv", "12\n", 3, false},
		{"sub/deep", "1234\n", 5, true},
		{"sub/dir.d/x.csv", "1\n", 2, true},
	};
	struct fs_bench *b = *state;
	struct tree_target tg;
	struct tree_file f;
	size_t len;
	void *zip = fs_zip(members, 3, &len);

	fs_publish_zip(b, DAY, zip, len);
	free(zip);
	fs_up(b, NULL);
	assert_int_equal(fs_resolve(b, DAY ".d", &tg), 0);
	assert_int_equal(tg.sort, TREE_FOLDER);
	fs_down(b);

	/* Without its directory the dot in a name is taken for a file's. */
	fs_up(b, NULL);
	assert_int_equal(fs_resolve(b, DAY ".d/top.csv", &tg), 0);
	assert_int_equal(tg.sort, TREE_MEMBER);
	assert_int_equal(fs_resolve(b, DAY ".d/none.csv", &tg), -ENOENT);
	/* Now it is known. */
	assert_int_equal(resolved(b, DAY ".d/sub").sort, TREE_FOLDER);
	assert_int_equal(resolved(b, DAY ".d/sub/deep").sort, TREE_MEMBER);
	assert_int_equal(resolved(b, DAY ".d/sub/dir.d").sort, TREE_FOLDER);
	assert_int_equal(resolve(b, DAY ".d/su"), -ENOENT);
	assert_int_equal(resolve(b, DAY ".d/top.csv/x"), -ENOENT);
	assert_int_equal(fs_stat(b, DAY ".d/sub/deep", &f), 0);
	assert_int_equal(f.size, 5);
	assert_int_equal(f.member, 1);
	/* 2024-01-02T00:00:00Z, as fs_zip() writes it */
	assert_int_equal(f.mtime, 1704153600);
	assert_int_equal(fs_stat(b, DAY ".d/top.csv", &f), 0);
	assert_int_equal(f.size, 3);
	assert_int_equal(f.member, 0);
}

/* ---- stat ---- */

static void test_tree__csv_is_as_long_as_it_will_read(void **state)
{
	struct fs_bench *b = *state;
	struct tree_file f, g;
	size_t len;
	char *csv = fs_rows(1, 3000, &len);

	fs_publish_csv(b, DAY, csv, len);
	free(csv);
	fs_up(b, NULL);
	assert_int_equal(fs_stat(b, FOLDER "/2024-06-10.csv", &f), 0);
	assert_int_equal(f.size, len);
	assert_int_equal(f.member, 0);
	assert_int_equal(strlen(f.etag), 32);
	assert_int_equal(fs_stat(b, DAILY "BTCUSDT-1d-2024-06-10.csv", &g), 0);
	assert_int_equal(g.size, len);
	assert_string_equal(g.etag, f.etag);
	assert_int_equal(g.mtime, f.mtime);
	assert_int_equal(fs_stat(b, DAY ".CHECKSUM", &g), 0);
	assert_int_equal(g.size,
			 64 + 2 + strlen("BTCUSDT-1d-2024-06-10.zip\n"));
}

static void test_tree__zip_without_its_csv_has_none(void **state)
{
	static const struct fs_member members[] = {
		{"a.csv", "1\n", 2, false},
		{"b.csv", "2\n", 2, false},
	};
	struct fs_bench *b = *state;
	struct tree_file f;
	size_t len;
	void *zip = fs_zip(members, 2, &len);

	fs_publish_zip(b, DAY, zip, len);
	free(zip);
	fs_up(b, NULL);
	assert_int_equal(fs_stat(b, FOLDER "/2024-06-10.csv", &f), -ENOENT);
	assert_int_equal(fs_stat(b, DAY, &f), 0);
	assert_int_equal(f.size, len);
}

static void test_tree__csv_of_what_is_no_zip_is_bad(void **state)
{
	struct fs_bench *b = *state;
	struct tree_file f;
	size_t len;
	char *text = fs_rows(1, 100, &len);

	fs_publish_zip(b, DAY, text, len);
	free(text);
	fs_up(b, NULL);
	assert_int_equal(fs_stat(b, FOLDER "/2024-06-10.csv", &f), -EBADMSG);
	assert_int_equal(fs_stat(b, DAY, &f), 0);
	assert_int_equal(f.size, len);
}

static void test_tree__folders_have_no_size(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg = {.sort = TREE_FOLDER};
	struct tree_file f;

	fs_up(b, &offline);
	assert_int_equal(tree_stat(b->tree, "spot", &tg, NULL, &f), -EISDIR);
}

static bool three_asked(void *arg)
{
	return fs_requests(arg, NULL).ranges == 3;
}

/* Unless nobody read it, or nobody waits. */
static void test_tree__one_stat_sizes_the_folder_that_was_read(void **state)
{
	struct fs_bench *b = *state;
	struct tree_target tg;
	struct folder *d;
	struct tree_file f;

	fs_publish_csv(b, DAY, "1\n", 2);
	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-11.zip", "22\n", 3);
	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-12.zip", "333\n", 4);
	fs_up(b, NULL);
	assert_int_equal(fs_folder(b, FOLDER, &d), 0);
	folder_free(d);
	imitation_reset(b->im);
	folder_note_read(b->folders, FOLDER);
	tg = resolved(b, FOLDER "/2024-06-11.csv");
	assert_int_equal(tree_stat(b->tree, FOLDER "/2024-06-11.csv", &tg, NULL,
				   &f),
			 -EINPROGRESS);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	assert_int_equal(fs_stat(b, FOLDER "/2024-06-11.csv", &f), 0);
	assert_int_equal(f.size, 3);
	fs_eventually(three_asked, b);
	assert_int_equal(fs_stat(b, FOLDER "/2024-06-12.csv", &f), 0);
	assert_int_equal(f.size, 4);
	assert_int_equal(fs_requests(b, NULL).all, 3);
}

static void test_tree__stat_in_a_folder_nobody_read_asks_for_one(void **state)
{
	struct fs_bench *b = *state;
	struct folder *d;
	struct tree_file f;

	fs_publish_csv(b, DAY, "1\n", 2);
	fs_publish_csv(b, DAILY "BTCUSDT-1d-2024-06-11.zip", "22\n", 3);
	fs_up(b, NULL);
	assert_int_equal(fs_folder(b, FOLDER, &d), 0);
	folder_free(d);
	imitation_reset(b->im);
	assert_int_equal(fs_stat(b, FOLDER "/2024-06-11.csv", &f), 0);
	fs_down(b);
	assert_int_equal(fs_requests(b, NULL).all, 1);
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_tree__fixed_folders_are_always_there),
		BENCH(test_tree__control_files_are_those_named),
		BENCH(test_tree__unlisted_names_are_provisional),
		BENCH(test_tree__ungrammatical_names_are_not_there),
		BENCH(test_tree__listing_makes_it_definite),
		BENCH(test_tree__old_listing_does_not_say_no),
		BENCH(test_tree__folders_need_both_listings_to_be_absent),
		BENCH(test_tree__file_is_no_folder_and_none_is_a_file),
		BENCH(test_tree__month_is_found_as_it_is_spelt),
		BENCH(test_tree__published_csv_is_an_object),
		BENCH(test_tree__confirming_asks_for_the_one_object),
		BENCH(test_tree__confirming_finds_the_other_spelling),
		BENCH(test_tree__confirming_a_folder_asks_for_one_entry),
		BENCH(test_tree__offline_nothing_can_be_confirmed),
		BENCH(test_tree__unconfirmed_stays_provisional),
		BENCH(test_tree__members_are_confirmed_by_the_archive),
		BENCH(test_tree__csv_is_as_long_as_it_will_read),
		BENCH(test_tree__zip_without_its_csv_has_none),
		BENCH(test_tree__csv_of_what_is_no_zip_is_bad),
		BENCH(test_tree__folders_have_no_size),
		BENCH(test_tree__one_stat_sizes_the_folder_that_was_read),
		BENCH(test_tree__stat_in_a_folder_nobody_read_asks_for_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

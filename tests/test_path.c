/* Expected keys: names of the live archive (reference, section 1.2 to 1.4). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fs/path.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct path parsed(const char *text)
{
	struct path p;
	int err = path_parse(text, &p);

	if (err)
		fail_msg("\"%s\" gave %s", text, strerror(-err));
	return p;
}

static void test_path__date_paths_name_the_published_archives(void **state)
{
	static const char *const known[][2] = {
		{"spot/klines/BTCUSDT/1m/2020-01-01.csv",
		 "data/spot/daily/klines/BTCUSDT/1m/"
		 "BTCUSDT-1m-2020-01-01.zip"},
		{"spot/klines/BTCUSDT/1mo/2024-01.csv",
		 "data/spot/monthly/klines/BTCUSDT/1mo/"
		 "BTCUSDT-1mo-2024-01.zip"},
		{"spot/aggTrades/BTCUSDT/2026-05-08.csv",
		 "data/spot/daily/aggTrades/BTCUSDT/"
		 "BTCUSDT-aggTrades-2026-05-08.zip"},
		{"um/markPriceKlines/BTCUSDT/1m/2026-07.csv",
		 "data/futures/um/monthly/markPriceKlines/BTCUSDT/1m/"
		 "BTCUSDT-1m-2026-07.zip"},
		{"um/fundingRate/BTCUSDT/2026-04.csv",
		 "data/futures/um/monthly/fundingRate/BTCUSDT/"
		 "BTCUSDT-fundingRate-2026-04.zip"},
		{"um/metrics/BTCUSDT/2026-09-12.csv",
		 "data/futures/um/daily/metrics/BTCUSDT/"
		 "BTCUSDT-metrics-2026-09-12.zip"},
		{"um/klines/BTCUSDT_240329/1h/2024-03-01.csv",
		 "data/futures/um/daily/klines/BTCUSDT_240329/1h/"
		 "BTCUSDT_240329-1h-2024-03-01.zip"},
		{"cm/liquidationSnapshot/BTCUSD_PERP/2023-06-26.csv",
		 "data/futures/cm/daily/liquidationSnapshot/BTCUSD_PERP/"
		 "BTCUSD_PERP-liquidationSnapshot-2023-06-26.zip"},
		{"option/BVOLIndex/BTCBVOLUSDT/2025-04-30.csv",
		 "data/option/daily/BVOLIndex/BTCBVOLUSDT/"
		 "BTCBVOLUSDT-BVOLIndex-2025-04-30.zip"},
		{"spot/klines/币安人生USDT/1d/2025-10-20.csv",
		 "data/spot/daily/klines/币安人生USDT/1d/"
		 "币安人生USDT-1d-2025-10-20.zip"},
	};
	char key[PATH_KEY_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		struct path p = parsed(known[i][0]);

		assert_int_equal(p.kind, PATH_DATE);
		assert_int_equal(path_key(&p, false, key), 0);
		assert_string_equal(key, known[i][1]);
	}
}

static void test_path__months_below_ten_have_an_unpadded_spelling(void **state)
{
	struct path p = parsed("spot/klines/ADABKRW/1d/2020-08.csv");
	char key[PATH_KEY_MAX];

	(void)state;
	assert_int_equal(path_key(&p, true, key), 0);
	assert_string_equal(key, "data/spot/monthly/klines/ADABKRW/1d/"
				 "ADABKRW-1d-2020-8.zip");
	p = parsed("spot/klines/ADABKRW/1d/2020-10.csv");
	assert_int_equal(path_key(&p, true, key), -ENOENT);
	p = parsed("spot/klines/ADABKRW/1d/2020-08-01.csv");
	assert_int_equal(path_key(&p, true, key), -ENOENT);
	p = parsed("spot/klines/ADABKRW/1d");
	assert_int_equal(path_key(&p, false, key), -ENOENT);
}

static void test_path__every_level_has_its_kind(void **state)
{
	static const struct {
		const char *path;
		enum path_kind kind;
	} known[] = {
		{"", PATH_ROOT},
		{".tickfs", PATH_CONTROL},
		{".tickfs/status.json", PATH_CONTROL_FILE},
		{"spot", PATH_MARKET},
		{"option", PATH_MARKET},
		{"um/klines", PATH_DATASET},
		{"um/klines/BTCUSDT", PATH_SYMBOL},
		{"um/klines/BTCUSDT/1m", PATH_INTERVAL},
		{"um/trades/BTCUSDT", PATH_SYMBOL},
		{"um/trades/BTCUSDT/2024-01.csv", PATH_DATE},
		/* A symbol may be called anything. */
		{"um/trades/klines", PATH_SYMBOL},
		{"um/trades/2024-01.csv", PATH_SYMBOL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++)
		assert_int_equal(parsed(known[i].path).kind, known[i].kind);
	assert_string_equal(parsed(".tickfs/status.json").inner, "status.json");
	assert_string_equal(parsed("um/trades/X/2024-01.csv").interval, "");
	assert_string_equal(parsed("um/klines/X/12h").interval, "12h");
	assert_string_equal(parsed("um/klines/X/12h").symbol, "X");
}

static void test_path__what_the_grammar_excludes_is_absent(void **state)
{
	static const char *const wrong[] = {
		"/",
		"futures",
		"spot/",
		"spot//klines",
		"/spot",
		"Spot",
		"spot/bookDepth",
		"spot/klines/",
		"spot/klines/.",
		"spot/klines/..",
		"spot/klines/../um",
		"spot/klines/BTC\x01USDT",
		"spot/klines/BTC\x7fUSDT",
		"spot/klines/BTC\nUSDT",
		"spot/klines/\xff\xfe",
		"spot/klines/\xc0\xaf",
		"spot/klines/\xed\xa0\x80",
		"spot/klines/\xe5\xb8",
		"spot/klines/BTCUSDT/2024-01-01.csv",
		"spot/klines/BTCUSDT/1M",
		"spot/klines/BTCUSDT/1m/2024-01-01",
		"spot/klines/BTCUSDT/1m/2024-01-01.zip",
		"spot/klines/BTCUSDT/1m/2024-01-01.csv.csv",
		"spot/klines/BTCUSDT/1m/2024-01-01.CSV",
		"spot/klines/BTCUSDT/1m/2024-01-01.csv/x",
		"spot/klines/BTCUSDT/1m/2024-02-30.csv",
		"spot/klines/BTCUSDT/1m/2020-8.csv",
		"spot/klines/BTCUSDT/1m/.csv",
		"spot/klines/BTCUSDT/1m/part-00000.csv",
		"spot/trades/BTCUSDT/1m",
		"um/fundingRate/BTCUSDT/2024-01-01.csv",
		"um/metrics/BTCUSDT/2024-01.csv",
		"option/BVOLIndex/BTCBVOLUSDT/2024-01.csv",
		".tickfs/",
		".tickfs/a/b",
		".tickfs2",
		"data/",
		"data/spot/",
		"data//spot",
		"data/./spot",
		"data/spot/../../etc",
		"data/spot/a\tb.zip",
		"data/X.zip.d/",
		"data/X.zip.d//a",
		"data/X.zip.d/a/",
		"data/X.zip.d/..",
		"data/X.zip.d/a/./b",
		"data/../X.zip.d/a",
		"database",
	};
	struct path p = {.kind = PATH_ROOT};

	(void)state;
	for (size_t i = 0; i < COUNT(wrong); i++) {
		int err = path_parse(wrong[i], &p);

		if (err != -ENOENT)
			fail_msg("\"%s\" gave %d", wrong[i], err);
	}
	assert_int_equal(p.kind, PATH_ROOT);
}

static void test_path__raw_paths_are_keys(void **state)
{
	static const char *const known[] = {
		"data",
		"data/spot/daily/klines",
		"data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip",
		"data/spot/daily/klines/BTCUSDT/1m/"
		"BTCUSDT-1m-2020-01-01.zip.CHECKSUM",
		"data/futures/um/monthly/aggTrades/BTCUSDT/"
		"part-00000-0fae7358-a956-4804-a6d4-1682c07a5127-c000.zip",
		"data/an odd \"name\" + 100%/*?.d",
		"data/x/X.zip.e",
		"data/x.csv/y",
		"data/币安人生USDT",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		struct path p = parsed(known[i]);

		assert_int_equal(p.kind, PATH_RAW);
		assert_string_equal(p.key, known[i]);
	}
	assert_false(parsed("data").raw_looks_like_file);
	assert_false(parsed("data/a.b/BTCUSDT").raw_looks_like_file);
	assert_true(parsed("data/a/b.zip").raw_looks_like_file);
}

static void test_path__csv_under_data_is_that_of_the_zip(void **state)
{
	struct path p = parsed("data/spot/daily/trades/A/A-trades.csv");

	(void)state;
	assert_int_equal(p.kind, PATH_RAW_CSV);
	assert_string_equal(p.key, "data/spot/daily/trades/A/A-trades.zip");
	p = parsed("data/X.csv.csv");
	assert_int_equal(p.kind, PATH_RAW_CSV);
	assert_string_equal(p.key, "data/X.csv.zip");
}

static void test_path__members_lie_below_the_zip_and_d(void **state)
{
	static const char top[] = "data/a/X.zip.d";
	static const char below[] = "data/a/X.zip.d/dir/Y.zip.d/\x01\xff.csv";
	struct path p = parsed(top);

	(void)state;
	assert_int_equal(p.kind, PATH_MEMBERS);
	assert_string_equal(p.key, "data/a/X.zip");
	assert_string_equal(p.inner, "");
	p = parsed(below);
	assert_int_equal(p.kind, PATH_MEMBERS);
	assert_string_equal(p.key, "data/a/X.zip");
	/* Names in a zip are bytes of any kind, and are not copied. */
	assert_ptr_equal(p.inner, strstr(below, "dir/"));
}

static void test_path__what_is_too_long_says_so(void **state)
{
	char text[PATH_MAX_BYTES + 2];
	struct path p;

	(void)state;
	/* A component of 255 bytes fits, one of 256 does not. */
	memset(text, 'A', sizeof(text));
	memcpy(text, "um/trades/", 10);
	text[10 + 255] = '\0';
	assert_int_equal(path_parse(text, &p), 0);
	assert_int_equal(strlen(p.symbol), 255);
	text[10 + 255] = 'A';
	text[10 + 256] = '\0';
	assert_int_equal(path_parse(text, &p), -ENAMETOOLONG);
	text[255] = 'A';
	text[256] = '\0';
	memset(text, 'A', 256);
	assert_int_equal(path_parse(text, &p), -ENAMETOOLONG);

	/* A key of 1024 bytes fits. */
	memset(text, 'A', sizeof(text));
	memcpy(text, "data", 4);
	for (size_t i = 4; i < sizeof(text); i += 200)
		text[i] = '/';
	text[1024] = '\0';
	assert_int_equal(path_parse(text, &p), 0);
	assert_int_equal(strlen(p.key), 1024);
	text[1024] = 'A';
	text[1025] = '\0';
	assert_int_equal(path_parse(text, &p), -ENAMETOOLONG);

	text[1025] = 'A';
	memcpy(text + 200, ".zip.d", 6);
	text[206] = '/';
	text[PATH_MAX_BYTES] = '\0';
	assert_int_equal(path_parse(text, &p), 0);
	text[PATH_MAX_BYTES] = 'A';
	text[PATH_MAX_BYTES + 1] = '\0';
	assert_int_equal(path_parse(text, &p), -ENAMETOOLONG);
}

static void check_prefix(const char *path, enum path_cadence c,
			 const char *expected)
{
	char prefix[PATH_KEY_MAX + 1];
	struct path p = parsed(path);
	int err = path_prefix(&p, c, prefix);

	if (!expected) {
		assert_int_equal(err, -ENOENT);
		return;
	}
	assert_int_equal(err, 0);
	assert_string_equal(prefix, expected);
}

static void test_path__folders_know_the_prefixes_to_list(void **state)
{
	(void)state;
	check_prefix("spot", PATH_DAILY, "data/spot/daily/");
	check_prefix("cm", PATH_MONTHLY, "data/futures/cm/monthly/");
	check_prefix("spot/klines", PATH_DAILY, "data/spot/daily/klines/");
	check_prefix("spot/klines/BTCUSDT", PATH_MONTHLY,
		     "data/spot/monthly/klines/BTCUSDT/");
	check_prefix("spot/klines/BTCUSDT/1m", PATH_DAILY,
		     "data/spot/daily/klines/BTCUSDT/1m/");
	check_prefix("spot/klines/BTCUSDT/1m/2024-01.csv", PATH_DAILY,
		     "data/spot/daily/klines/BTCUSDT/1m/");
	check_prefix("option", PATH_DAILY, "data/option/daily/");
	check_prefix("option", PATH_MONTHLY, NULL);
	check_prefix("um/fundingRate", PATH_DAILY, NULL);
	check_prefix("um/metrics/BTCUSDT", PATH_MONTHLY, NULL);
	check_prefix("data/spot", PATH_DAILY, NULL);
	check_prefix("", PATH_DAILY, NULL);
}

static void test_path__dates_are_read_from_names_of_archives(void **state)
{
	struct path klines = parsed("spot/klines/ADA-B/1d");
	struct path trades = parsed("spot/trades/BTCUSDT");
	struct date d;
	bool unpadded;

	(void)state;
	assert_true(path_date_of_zip(&klines, PATH_DAILY,
				     "ADA-B-1d-2020-08-09.zip", &d, &unpadded));
	assert_int_equal(
		date_compare(d,
			     (struct date){.year = 2020, .month = 8, .day = 9}),
		0);
	assert_false(unpadded);
	assert_true(path_date_of_zip(&klines, PATH_MONTHLY,
				     "ADA-B-1d-2020-8.zip", &d, &unpadded));
	assert_int_equal(
		date_compare(d, (struct date){.year = 2020, .month = 8}), 0);
	assert_true(unpadded);
	assert_true(path_date_of_zip(&klines, PATH_MONTHLY,
				     "ADA-B-1d-2020-08.zip", &d, &unpadded));
	assert_false(unpadded);
	assert_true(path_date_of_zip(&trades, PATH_MONTHLY,
				     "BTCUSDT-trades-2020-08.zip", &d,
				     &unpadded));
}

static void test_path__other_names_have_no_date(void **state)
{
	static const char *const wrong[] = {
		"",
		".zip",
		"BTCUSDT-1m-.zip",
		"BTCUSDT-1m-2020-08-09.zip.CHECKSUM",
		"BTCUSDT-1m-2020-08-09.csv",
		"BTCUSDT-1m-2020-08-09",
		"BTCUSDT-1h-2020-08-09.zip",
		"BTCUSDT-klines-2020-08-09.zip",
		"ETHUSDT-1m-2020-08-09.zip",
		"BTCUSDT-1m-2020-08.zip",
		"BTCUSDT-1m-2020-8.zip",
		"BTCUSDT-1m-2020-02-30.zip",
		"BTCUSDT-1m-2020-08-09-2020-08-10.zip",
		"part-00000-0fae7358-a956-4804-a6d4-1682c07a5127-c000.zip",
	};
	struct path p = parsed("spot/klines/BTCUSDT/1m");
	struct path symbol = parsed("spot/klines/BTCUSDT");
	struct date d;
	bool unpadded;

	(void)state;
	for (size_t i = 0; i < COUNT(wrong); i++) {
		if (path_date_of_zip(&p, PATH_DAILY, wrong[i], &d, &unpadded))
			fail_msg("\"%s\" was given a date", wrong[i]);
	}
	assert_false(path_date_of_zip(
		&p, PATH_MONTHLY, "BTCUSDT-1m-2020-08-09.zip", &d, &unpadded));
	/* Archives lie in the folders of intervals, not above them. */
	assert_false(path_date_of_zip(&symbol, PATH_DAILY,
				      "BTCUSDT-1m-2020-08-09.zip", &d,
				      &unpadded));
}

static void test_path__prefixes_of_folders(void **state)
{
	char p[2][PATH_KEY_MAX + 1];

	(void)state;
	assert_int_equal(path_prefixes("spot/klines/BTCUSDT/1m", p), 2);
	assert_string_equal(p[0], "data/spot/daily/klines/BTCUSDT/1m/");
	assert_string_equal(p[1], "data/spot/monthly/klines/BTCUSDT/1m/");
	assert_int_equal(path_prefixes("um/metrics/BTCUSDT", p), 1);
	assert_string_equal(p[0], "data/futures/um/daily/metrics/BTCUSDT/");
	assert_int_equal(path_prefixes("spot", p), 2);
	assert_string_equal(p[1], "data/spot/monthly/");
	assert_int_equal(path_prefixes("data/spot/daily", p), 1);
	assert_string_equal(p[0], "data/spot/daily/");
	assert_int_equal(path_prefixes("data", p), 1);
	assert_string_equal(p[0], "data/");
	assert_int_equal(path_prefixes("", p), 0);
	assert_int_equal(
		path_prefixes("spot/klines/BTCUSDT/1m/2024-01-01.csv", p), 0);
	assert_int_equal(path_prefixes("no/such", p), 0);
}

static void test_path__an_archive_is_described(void **state)
{
	static const struct {
		const char *key, *symbol, *date;
	} keys[] = {
		{"data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip",
		 "BTCUSDT", "2024-01-01"},
		{"data/spot/monthly/klines/ADABKRW/1d/ADABKRW-1d-2020-8.zip",
		 "ADABKRW", "2020-08"},
		{"data/futures/cm/monthly/aggTrades/BTCUSD_240329/"
		 "BTCUSD_240329-aggTrades-2024-02.zip",
		 "BTCUSD_240329", "2024-02"},
		{"data/spot/daily/klines/BTC/1m/BTCUSDT-1m-2024-01-01.zip", "",
		 "2024-01-01"},
		{"data/spot/x/part-00000-2024-13-01.zip", "", ""},
		{"data/spot/x/BTCUSDT.zip", "", ""},
		{"data/x/x-2024-01-01.zip.CHECKSUM", "x", ""},
		{".zip", "", ""},
		{"", "", ""},
	};
	char symbol[PATH_NAME_MAX + 1], date[DATE_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(keys); i++) {
		path_describe(keys[i].key, symbol, date);
		assert_string_equal(symbol, keys[i].symbol);
		assert_string_equal(date, keys[i].date);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_path__date_paths_name_the_published_archives),
		cmocka_unit_test(
			test_path__months_below_ten_have_an_unpadded_spelling),
		cmocka_unit_test(test_path__every_level_has_its_kind),
		cmocka_unit_test(
			test_path__what_the_grammar_excludes_is_absent),
		cmocka_unit_test(test_path__raw_paths_are_keys),
		cmocka_unit_test(test_path__csv_under_data_is_that_of_the_zip),
		cmocka_unit_test(test_path__members_lie_below_the_zip_and_d),
		cmocka_unit_test(test_path__what_is_too_long_says_so),
		cmocka_unit_test(test_path__folders_know_the_prefixes_to_list),
		cmocka_unit_test(test_path__prefixes_of_folders),
		cmocka_unit_test(
			test_path__dates_are_read_from_names_of_archives),
		cmocka_unit_test(test_path__other_names_have_no_date),
		cmocka_unit_test(test_path__an_archive_is_described),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

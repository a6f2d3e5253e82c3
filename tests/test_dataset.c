/* Expected values: the enumeration of the archive's live listings, 2026-08-11
 * and 2026-09-14 (reference, section 1.1 to 1.3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/dataset.h"

static const struct dataset *find(const char *market, const char *name)
{
	const struct market *m = dataset_market(market, strlen(market));

	assert_non_null(m);
	return dataset_find(m, name, strlen(name));
}

static void test_dataset__markets_have_the_archives_prefixes(void **state)
{
	static const char *const known[][2] = {
		{"spot", "data/spot/"},
		{"um", "data/futures/um/"},
		{"cm", "data/futures/cm/"},
		{"option", "data/option/"},
	};
	size_t n;

	(void)state;
	dataset_markets(&n);
	assert_int_equal(n, 4);
	for (size_t i = 0; i < 4; i++) {
		const struct market *m =
			dataset_market(known[i][0], strlen(known[i][0]));

		assert_non_null(m);
		assert_string_equal(m->name, known[i][0]);
		assert_string_equal(m->prefix, known[i][1]);
	}
	assert_null(dataset_market("futures", 7));
	assert_null(dataset_market("", 0));
	assert_null(dataset_market("u", 1));
	assert_null(dataset_market("umm", 3));
}

static void test_dataset__cadences_are_those_ever_published(void **state)
{
	static const struct {
		const char *market, *name;
		bool daily, monthly, intervals;
	} known[] = {
		{"spot", "klines", 1, 1, 1},
		{"spot", "aggTrades", 1, 1, 0},
		{"spot", "trades", 1, 1, 0},
		{"um", "klines", 1, 1, 1},
		{"um", "aggTrades", 1, 1, 0},
		{"um", "trades", 1, 1, 0},
		{"um", "markPriceKlines", 1, 1, 1},
		{"um", "indexPriceKlines", 1, 1, 1},
		{"um", "premiumIndexKlines", 1, 1, 1},
		{"um", "fundingRate", 0, 1, 0},
		{"um", "metrics", 1, 0, 0},
		{"um", "bookDepth", 1, 0, 0},
		{"um", "bookTicker", 1, 1, 0},
		{"um", "liquidationSnapshot", 1, 0, 0},
		{"cm", "klines", 1, 1, 1},
		{"cm", "aggTrades", 1, 1, 0},
		{"cm", "trades", 1, 1, 0},
		{"cm", "markPriceKlines", 1, 1, 1},
		{"cm", "indexPriceKlines", 1, 1, 1},
		{"cm", "premiumIndexKlines", 1, 1, 1},
		{"cm", "fundingRate", 0, 1, 0},
		{"cm", "metrics", 1, 0, 0},
		{"cm", "bookDepth", 1, 0, 0},
		{"cm", "bookTicker", 1, 1, 0},
		{"cm", "liquidationSnapshot", 1, 0, 0},
		{"option", "BVOLIndex", 1, 0, 0},
		{"option", "EOHSummary", 1, 0, 0},
	};
	size_t n;

	(void)state;
	dataset_all(&n);
	assert_int_equal(n, sizeof(known) / sizeof(known[0]));
	for (size_t i = 0; i < n; i++) {
		const struct dataset *d = find(known[i].market, known[i].name);

		assert_non_null(d);
		assert_string_equal(d->market, known[i].market);
		assert_string_equal(d->name, known[i].name);
		assert_int_equal(d->daily, known[i].daily);
		assert_int_equal(d->monthly, known[i].monthly);
		assert_int_equal(d->intervals, known[i].intervals);
	}
}

static void test_dataset__rows_are_sorted_by_market_and_name(void **state)
{
	size_t n;
	const struct dataset *d = dataset_all(&n);

	(void)state;
	for (size_t i = 1; i < n; i++) {
		int order = strcmp(d[i - 1].market, d[i].market);

		assert_true(order < 0 || (order == 0 && strcmp(d[i - 1].name,
							       d[i].name) < 0));
	}
}

static void test_dataset__names_are_whole_and_case_sensitive(void **state)
{
	(void)state;
	assert_null(find("spot", "Klines"));
	assert_null(find("spot", "kline"));
	assert_null(find("spot", "klines2"));
	assert_null(find("spot", "bookDepth"));
	assert_null(find("option", "klines"));
	assert_null(find("um", ""));
	assert_ptr_equal(dataset_find(dataset_market("umX", 2), "tradesX", 6),
			 find("um", "trades"));
}

static void test_dataset__intervals_are_the_archives_sixteen(void **state)
{
	static const char *const known[] = {
		"1s", "1m", "3m", "5m",	 "15m", "30m", "1h", "2h",
		"4h", "6h", "8h", "12h", "1d",	"3d",  "1w", "1mo",
	};
	static const char *const wrong[] = {"1M", "2m", "1", "", "1mon", "m"};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		assert_true(dataset_interval_ok(known[i], strlen(known[i])));
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(dataset_interval_ok(wrong[i], strlen(wrong[i])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_dataset__markets_have_the_archives_prefixes),
		cmocka_unit_test(
			test_dataset__cadences_are_those_ever_published),
		cmocka_unit_test(
			test_dataset__rows_are_sorted_by_market_and_name),
		cmocka_unit_test(
			test_dataset__names_are_whole_and_case_sensitive),
		cmocka_unit_test(
			test_dataset__intervals_are_the_archives_sixteen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

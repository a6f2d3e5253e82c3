/* Expected values: Python's datetime and calendar, and plain arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/date.h"

static struct date day(int year, int month, int d)
{
	return (struct date){(int16_t)year, (uint8_t)month, (uint8_t)d};
}

static bool parses(const char *s, bool unpadded, struct date *out)
{
	return date_parse(s, strlen(s), unpadded, out);
}

static void test_date__days_and_months_are_parsed(void **state)
{
	struct date d;

	(void)state;
	assert_true(parses("2024-01-01", false, &d));
	assert_int_equal(date_compare(d, day(2024, 1, 1)), 0);
	assert_true(parses("2024-12", false, &d));
	assert_int_equal(date_compare(d, day(2024, 12, 0)), 0);
	assert_true(date_is_month(d));
	assert_true(parses("9999-12-31", false, &d));
	/* The length ends the text, no NUL does. */
	assert_true(date_parse("2024-01-01.csv", 10, false, &d));
	assert_false(date_is_month(d));
}

static void test_date__unpadded_months_only_where_asked_for(void **state)
{
	struct date d;

	(void)state;
	assert_true(parses("2020-8", true, &d));
	assert_int_equal(date_compare(d, day(2020, 8, 0)), 0);
	assert_true(parses("2020-08", true, &d));
	assert_true(parses("2020-08-09", true, &d));
	assert_false(parses("2020-8", false, &d));
	assert_false(parses("2020-0", true, &d));
	assert_false(parses("2020-8-1", true, &d));
	assert_false(parses("2020-8-01", true, &d));
}

static void test_date__what_is_no_date_is_refused(void **state)
{
	static const char *const wrong[] = {
		"",	      "2024",	     "2024-",
		"2024-1",     "2024-00",     "2024-13",
		"2024-01-0",  "2024-01-00",  "2024-01-32",
		"2023-02-29", "1900-02-29",  "2100-02-29",
		"2024-04-31", "1969-12-31",  "2024/01/01",
		"2024-01/01", "2024-01-01 ", " 2024-01",
		"+024-01",    "2024-+1",     "2024-01-01Z",
		"20240101",   "2024-1a",     "202a-01",
		"2024-01-1a", "10000-01",    "0000-01",
		"2024-01-",
	};
	struct date d;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (parses(wrong[i], false, &d))
			fail_msg("\"%s\" was taken for a date", wrong[i]);
	}
}

static void test_date__leap_years_follow_the_gregorian_rule(void **state)
{
	struct date d;

	(void)state;
	assert_true(parses("2024-02-29", false, &d));
	assert_true(parses("2000-02-29", false, &d));
	assert_int_equal(date_days_in_month(day(2000, 2, 0)), 29);
	assert_int_equal(date_days_in_month(day(2100, 2, 0)), 28);
	assert_int_equal(date_days_in_month(day(2023, 2, 1)), 28);
	assert_int_equal(date_days_in_month(day(2023, 12, 31)), 31);
	assert_int_equal(date_days_in_month(day(2023, 9, 1)), 30);
}

static void test_date__text_is_zero_padded(void **state)
{
	char text[DATE_TEXT_MAX];

	(void)state;
	assert_int_equal(date_format(day(2020, 8, 0), text), 7);
	assert_string_equal(text, "2020-08");
	assert_int_equal(date_format(day(2020, 8, 9), text), 10);
	assert_string_equal(text, "2020-08-09");
	assert_int_equal(date_format(day(10000, 1, 1), text), 11);
	assert_string_equal(text, "10000-01-01");
}

static void test_date__a_month_comes_before_its_first_day(void **state)
{
	(void)state;
	assert_true(date_compare(day(2024, 2, 0), day(2024, 2, 1)) < 0);
	assert_true(date_compare(day(2024, 2, 0), day(2024, 1, 31)) > 0);
	assert_true(date_compare(day(2023, 12, 31), day(2024, 1, 1)) < 0);
	assert_int_equal(date_compare(date_month_of(day(2024, 2, 9)),
				      day(2024, 2, 0)),
			 0);
}

static void test_date__day_numbers_are_those_of_unix(void **state)
{
	/* (date(y, m, d) - date(1970, 1, 1)).days */
	static const struct {
		int year, month, day;
		int64_t days;
	} known[] = {
		{1970, 1, 1, 0},      {1970, 3, 1, 59},
		{2000, 2, 29, 11016}, {2000, 3, 1, 11017},
		{2017, 8, 17, 17395}, {2024, 1, 1, 19723},
		{2025, 1, 1, 20089},  {2100, 2, 28, 47540},
		{2100, 3, 1, 47541},  {9999, 12, 31, 2932896},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct date d =
			day(known[i].year, known[i].month, known[i].day);

		assert_int_equal(date_to_days(d), known[i].days);
		assert_int_equal(date_compare(date_from_days(known[i].days), d),
				 0);
	}
	assert_int_equal(date_to_days(day(2024, 1, 0)), 19723);
}

static void test_date__every_day_follows_the_one_before(void **state)
{
	struct date d = day(1970, 1, 1);

	(void)state;
	for (int64_t n = 0; n <= 2932896; n++, d = date_next_day(d)) {
		if (date_to_days(d) != n ||
		    date_compare(date_from_days(n), d) != 0)
			fail_msg("day %lld is off", (long long)n);
	}
	assert_int_equal(date_compare(d, day(10000, 1, 1)), 0);
}

static void test_date__days_out_of_range_give_the_nearest(void **state)
{
	(void)state;
	assert_int_equal(
		date_compare(date_from_days(INT64_MIN), day(1970, 1, 1)), 0);
	assert_int_equal(
		date_compare(date_from_days(INT64_MAX), day(9999, 12, 31)), 0);
}

static void test_date__months_follow_each_other(void **state)
{
	(void)state;
	assert_int_equal(date_compare(date_next_month(day(2023, 12, 31)),
				      day(2024, 1, 0)),
			 0);
	assert_int_equal(date_compare(date_next_month(day(2023, 1, 0)),
				      day(2023, 2, 0)),
			 0);
	assert_int_equal(date_compare(date_next_day(day(2023, 2, 0)),
				      day(2023, 2, 1)),
			 0);
	assert_int_equal(date_compare(date_next_day(day(2023, 2, 28)),
				      day(2023, 3, 1)),
			 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_date__days_and_months_are_parsed),
		cmocka_unit_test(
			test_date__unpadded_months_only_where_asked_for),
		cmocka_unit_test(test_date__what_is_no_date_is_refused),
		cmocka_unit_test(
			test_date__leap_years_follow_the_gregorian_rule),
		cmocka_unit_test(test_date__text_is_zero_padded),
		cmocka_unit_test(test_date__a_month_comes_before_its_first_day),
		cmocka_unit_test(test_date__day_numbers_are_those_of_unix),
		cmocka_unit_test(test_date__every_day_follows_the_one_before),
		cmocka_unit_test(test_date__days_out_of_range_give_the_nearest),
		cmocka_unit_test(test_date__months_follow_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

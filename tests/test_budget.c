#include "tests/support/cmocka_all.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/budget.h"
#include "fs/log.h"

enum { LIMIT = 1000 };

/* 2024-03-01T12:00:00Z: `date -u -d 2024-03-01T12:00Z +%s` */
static const int64_t NOON = 1709294400;
static const int64_t MIDNIGHT = 1709337600;
static const int64_t DAY = 19783; /* 1709294400 / 86400 */

static struct budget *b;

static int setup(void **state)
{
	(void)state;
	return budget_create(&b, LIMIT, NULL);
}

static int teardown(void **state)
{
	(void)state;
	budget_free(b);
	b = NULL;
	return 0;
}

static void assert_spent(uint64_t bytes, int64_t now)
{
	uint64_t limit, spent;

	assert_true(budget_stats(b, now, &limit, &spent));
	assert_int_equal(limit, LIMIT);
	assert_int_equal(spent, bytes);
}

/* A download of @bytes that comes whole. */
static int download(const char *key, uint64_t bytes, int64_t now)
{
	int err = budget_begin(b, key, bytes, now);

	if (err)
		return err;
	budget_came(b, true, key, bytes, now);
	budget_end(b, key, now);
	return 0;
}

static void test_budget__refuses_what_does_not_fit_into_the_rest(void **state)
{
	(void)state;
	assert_int_equal(download("a", 600, NOON), 0);
	assert_int_equal(download("b", 401, NOON), -EDQUOT);
	assert_int_equal(budget_allows(b, "b", 401, NOON), -EDQUOT);
	assert_spent(600, NOON);
	assert_int_equal(budget_allows(b, "c", 400, NOON), 0);
	assert_int_equal(download("c", 400, NOON), 0);
	assert_spent(1000, NOON);
	assert_int_equal(download("d", 1, NOON), -EDQUOT);
	/* One of which all is there lacks nothing. */
	assert_int_equal(download("d", 0, NOON), 0);
}

static void test_budget__counts_what_is_promised_to_others(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 600, NOON), 0);
	assert_spent(0, NOON);
	assert_int_equal(budget_begin(b, "b", 401, NOON), -EDQUOT);
	budget_came(b, true, "a", 250, NOON);
	assert_spent(250, NOON);
	assert_int_equal(budget_begin(b, "b", 401, NOON), -EDQUOT);
	/* It gave up: 350 are free again. */
	budget_end(b, "a", NOON);
	assert_int_equal(budget_begin(b, "b", 750, NOON), 0);
	assert_int_equal(budget_begin(b, "c", 1, NOON), -EDQUOT);
}

static void test_budget__begun_again_replaces_what_was_promised(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 600, NOON), 0);
	budget_came(b, true, "a", 100, NOON);
	assert_int_equal(budget_begin(b, "a", 600, NOON), 0);
	assert_int_equal(budget_allows(b, "b", 300, NOON), 0);
	assert_int_equal(budget_allows(b, "b", 301, NOON), -EDQUOT);
	/* And where the rest does not suffice for it, nothing is promised. */
	assert_int_equal(budget_begin(b, "a", 901, NOON), -EDQUOT);
	assert_int_equal(budget_allows(b, "b", 900, NOON), 0);
}

static void test_budget__more_than_was_promised_counts_too(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 100, NOON), 0);
	budget_came(b, true, "a", 300, NOON);
	budget_came(b, true, "stranger", 300, NOON);
	budget_end(b, "a", NOON);
	budget_end(b, "stranger", NOON);
	assert_spent(600, NOON);
	assert_int_equal(budget_allows(b, "b", 401, NOON), -EDQUOT);
}

static void test_budget__only_the_first_of_a_day_may_be_larger(void **state)
{
	(void)state;
	budget_came(b, false, "listing", 10, NOON);
	assert_int_equal(download("a", 5000, NOON), 0);
	assert_int_equal(download("b", 5000, NOON), -EDQUOT);
	assert_int_equal(download("b", 5000, MIDNIGHT), 0);
	assert_int_equal(download("c", 1, MIDNIGHT), -EDQUOT);
	assert_int_equal(download("c", 500, MIDNIGHT + 86400), 0);
	assert_int_equal(download("d", 501, MIDNIGHT + 86400), -EDQUOT);
}

static void test_budget__the_first_may_go_on_until_it_has_all(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 5000, NOON), 0);
	budget_came(b, true, "a", 2000, NOON);
	budget_end(b, "a", NOON);
	assert_int_equal(budget_begin(b, "b", 3000, NOON), -EDQUOT);
	/* Not from the start: it is had once. */
	assert_int_equal(budget_begin(b, "a", 5000, NOON), -EDQUOT);
	assert_int_equal(budget_allows(b, "a", 3000, NOON), 0);
	assert_int_equal(budget_begin(b, "a", 3000, NOON), 0);
	budget_came(b, true, "a", 1000, NOON);
	budget_end(b, "a", NOON);
	assert_int_equal(download("a", 2000, NOON), 0);
	assert_int_equal(budget_begin(b, "a", 1, NOON), -EDQUOT);
	assert_spent(5000, NOON);
}

static void test_budget__the_first_may_go_on_that_day_only(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 5000, NOON), 0);
	budget_came(b, true, "a", 2000, NOON);
	budget_end(b, "a", NOON);
	assert_int_equal(download("b", 10, MIDNIGHT), 0);
	assert_int_equal(budget_begin(b, "a", 3000, MIDNIGHT), -EDQUOT);
}

/* Under way at midnight, it is of the new day, too. */
static void test_budget__the_first_may_go_on_past_midnight(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 5000, MIDNIGHT - 1), 0);
	budget_came(b, true, "a", 1500, MIDNIGHT - 1);
	budget_came(b, true, "a", 500, MIDNIGHT);
	budget_end(b, "a", MIDNIGHT);
	assert_int_equal(download("a", 3000, MIDNIGHT), 0);
	assert_int_equal(budget_begin(b, "c", 1, MIDNIGHT), -EDQUOT);
}

static void
test_budget__unknown_sizes_begin_while_something_is_left(void **state)
{
	(void)state;
	assert_int_equal(download("a", 999, NOON), 0);
	assert_int_equal(budget_begin(b, "b", UINT64_MAX, NOON), 0);
	budget_came(b, true, "b", 1, NOON);
	budget_end(b, "b", NOON);
	assert_int_equal(budget_begin(b, "c", UINT64_MAX, NOON), -EDQUOT);
}

static void test_budget__a_day_ends_at_midnight_utc(void **state)
{
	(void)state;
	assert_int_equal(download("a", 1000, NOON), 0);
	assert_int_equal(download("b", 1, MIDNIGHT - 1), -EDQUOT);
	assert_spent(1000, MIDNIGHT - 1);
	assert_spent(0, MIDNIGHT);
	assert_int_equal(download("b", 1, MIDNIGHT), 0);
}

static void test_budget__what_is_promised_is_so_after_midnight_too(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 800, MIDNIGHT - 1), 0);
	budget_came(b, true, "a", 300, MIDNIGHT - 1);
	assert_spent(0, MIDNIGHT);
	assert_int_equal(budget_allows(b, "b", 500, MIDNIGHT), 0);
	assert_int_equal(budget_allows(b, "b", 501, MIDNIGHT), -EDQUOT);
	budget_came(b, true, "a", 500, MIDNIGHT);
	assert_spent(500, MIDNIGHT);
}

static void test_budget__a_clock_put_back_begins_another_day(void **state)
{
	(void)state;
	assert_int_equal(download("a", 1000, NOON + 10 * 86400), 0);
	assert_int_equal(download("b", 1000, NOON), 0);
}

static void test_budget__small_ones_end_when_they_alone_took_it(void **state)
{
	(void)state;
	assert_int_equal(download("a", 1000, NOON), 0);
	assert_int_equal(budget_allows_small(b, "l/", NOON), 0);
	budget_came(b, false, "l/", 999, NOON);
	assert_spent(1999, NOON);
	assert_int_equal(budget_allows_small(b, "l/", NOON), 0);
	budget_came(b, false, "l/", 1, NOON);
	assert_int_equal(budget_allows_small(b, "l/", NOON), -EDQUOT);
	assert_int_equal(budget_allows_small(b, "l/", MIDNIGHT), 0);
}

static void test_budget__small_ones_leave_less_for_downloads(void **state)
{
	(void)state;
	assert_int_equal(download("a", 100, NOON), 0);
	budget_came(b, false, "l/", 300, NOON);
	assert_int_equal(budget_allows(b, "b", 600, NOON), 0);
	assert_int_equal(budget_allows(b, "b", 601, NOON), -EDQUOT);
}

static void test_budget__sizes_that_lie_do_not_overflow(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", UINT64_MAX - 1, NOON), 0);
	assert_int_equal(budget_begin(b, "b", UINT64_MAX - 1, NOON), -EDQUOT);
	budget_came(b, true, "a", UINT64_MAX - 5, NOON);
	budget_came(b, false, "l/", UINT64_MAX - 5, NOON);
	assert_int_equal(budget_begin(b, "b", 1, NOON), -EDQUOT);
	assert_spent(UINT64_MAX, NOON);
}

/* ---- kept across mounts ---- */

static void remount(bool all)
{
	struct spending kept;

	assert_true(budget_to_keep(b, all, NOON, &kept));
	budget_free(b);
	assert_int_equal(budget_create(&b, LIMIT, &kept), 0);
}

static void test_budget__holds_across_mounts(void **state)
{
	(void)state;
	assert_int_equal(download("a", 700, NOON), 0);
	budget_came(b, false, "l/", 50, NOON);
	remount(true);
	assert_spent(750, NOON);
	assert_int_equal(download("b", 251, NOON), -EDQUOT);
	assert_int_equal(download("b", 250, NOON), 0);
	remount(true);
	assert_int_equal(download("c", 1, NOON), -EDQUOT);
	assert_spent(0, MIDNIGHT);
}

static void test_budget__after_a_crash_what_was_promised_is_spent(void **state)
{
	(void)state;
	assert_int_equal(budget_begin(b, "a", 700, NOON), 0);
	budget_came(b, true, "a", 100, NOON);
	remount(false);
	assert_spent(700, NOON);
	assert_int_equal(budget_begin(b, "a", 600, NOON), -EDQUOT);
	assert_int_equal(budget_begin(b, "b", 300, NOON), 0);
}

static void test_budget__of_another_day_is_nothing_spent(void **state)
{
	const struct spending before = {DAY - 1, 5000, 5000};
	const struct spending odd = {DAY, 100, 900};

	(void)state;
	budget_free(b);
	assert_int_equal(budget_create(&b, LIMIT, &before), 0);
	assert_spent(0, NOON);
	budget_free(b);
	assert_int_equal(budget_create(&b, LIMIT, &odd), 0);
	assert_spent(100, NOON);
}

static void test_budget__is_kept_at_once_for_downloads_else_later(void **state)
{
	struct spending s;

	(void)state;
	assert_true(budget_to_keep(b, true, NOON, &s)); /* its day is new */
	assert_int_equal(s.day, DAY);
	assert_false(budget_to_keep(b, true, NOON, &s));
	assert_int_equal(budget_begin(b, "a", 500, NOON), 0);
	assert_true(budget_to_keep(b, false, NOON, &s));
	assert_int_equal(s.bytes, 500);
	assert_int_equal(s.downloads, 500);
	/* They are promised: nothing changes as they come. */
	budget_came(b, true, "a", 400, NOON + 1);
	assert_false(budget_to_keep(b, true, NOON + 1, &s));
	budget_end(b, "a", NOON + 1);
	assert_true(budget_to_keep(b, false, NOON + 1, &s));
	assert_int_equal(s.bytes, 400);
	budget_came(b, false, "l/", 7, NOON + 2);
	assert_false(budget_to_keep(b, false, NOON + 2, &s));
	assert_true(budget_to_keep(b, false, NOON + 60, &s));
	assert_int_equal(s.bytes, 407);
	assert_int_equal(s.downloads, 400);
	budget_not_kept(b);
	assert_true(budget_to_keep(b, true, NOON + 60, &s));
}

/* Refused when it begins again, what it was promised is free, and that is kept
 * also if nothing comes any more. */
static void test_budget__a_promise_that_is_dropped_is_kept(void **state)
{
	struct spending s;

	(void)state;
	assert_int_equal(download("b", 300, NOON), 0);
	assert_int_equal(budget_begin(b, "a", 600, NOON), 0);
	budget_came(b, true, "a", 200, NOON);
	assert_true(budget_to_keep(b, false, NOON, &s));
	assert_int_equal(s.bytes, 900);
	assert_int_equal(budget_begin(b, "a", 600, NOON), -EDQUOT);
	budget_end(b, "a", NOON);
	assert_true(budget_to_keep(b, false, NOON, &s));
	assert_int_equal(s.bytes, 500);
	assert_int_equal(s.downloads, 500);
}

/* ---- what is said ---- */

static unsigned int count(const char *what)
{
	unsigned int n = 0;
	char *text;
	size_t len;

	assert_int_equal(log_copy(&text, &len), 0);
	for (char *at = text; (at = strstr(at, what)); at++)
		n++;
	free(text);
	return n;
}

static void test_budget__is_told_once_a_day_and_until_when(void **state)
{
	(void)state;
	assert_int_equal(log_start(-1, LOG_LEVEL_DEBUG, "run", 1 << 16), 0);
	assert_int_equal(download("a", 999, NOON), 0);
	assert_int_equal(count("budget_spent"), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(download("b", 2, NOON), -EDQUOT);
	assert_int_equal(
		count("\"level\":\"warn\",\"message\":\"budget_spent\","
		      "\"component\":\"fetch\",\"context\":{"
		      "\"budget_bytes\":1000,\"spent_bytes\":999,"
		      "\"promised_bytes\":0,"
		      "\"until\":\"2024-03-02T00:00:00Z\","
		      "\"refused\":\"b\"}"),
		1);
	assert_int_equal(download("c", 999, MIDNIGHT), 0);
	assert_int_equal(download("d", 2, MIDNIGHT), -EDQUOT);
	assert_int_equal(count("budget_spent"), 2);
	log_stop();
}

static void test_budget__none_allows_everything(void **state)
{
	struct spending s;
	uint64_t limit, spent;

	(void)state;
	assert_int_equal(budget_allows(NULL, "a", UINT64_MAX, NOON), 0);
	assert_int_equal(budget_begin(NULL, "a", UINT64_MAX, NOON), 0);
	assert_int_equal(budget_allows_small(NULL, "a", NOON), 0);
	budget_came(NULL, true, "a", 1, NOON);
	budget_end(NULL, "a", NOON);
	assert_false(budget_stats(NULL, NOON, &limit, &spent));
	assert_false(budget_to_keep(NULL, true, NOON, &s));
	budget_free(NULL);
}

#define TEST(name)                                                             \
	cmocka_unit_test_setup_teardown(test_budget__##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(refuses_what_does_not_fit_into_the_rest),
		TEST(counts_what_is_promised_to_others),
		TEST(begun_again_replaces_what_was_promised),
		TEST(more_than_was_promised_counts_too),
		TEST(only_the_first_of_a_day_may_be_larger),
		TEST(the_first_may_go_on_until_it_has_all),
		TEST(the_first_may_go_on_that_day_only),
		TEST(the_first_may_go_on_past_midnight),
		TEST(unknown_sizes_begin_while_something_is_left),
		TEST(a_day_ends_at_midnight_utc),
		TEST(what_is_promised_is_so_after_midnight_too),
		TEST(a_clock_put_back_begins_another_day),
		TEST(small_ones_end_when_they_alone_took_it),
		TEST(small_ones_leave_less_for_downloads),
		TEST(sizes_that_lie_do_not_overflow),
		TEST(holds_across_mounts),
		TEST(after_a_crash_what_was_promised_is_spent),
		TEST(of_another_day_is_nothing_spent),
		TEST(is_kept_at_once_for_downloads_else_later),
		TEST(a_promise_that_is_dropped_is_kept),
		TEST(is_told_once_a_day_and_until_when),
		TEST(none_allows_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

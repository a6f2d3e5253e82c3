#include "tests/support/cmocka_all.h"

#include <string.h>

#include "fetch/throttle.h"

static const uint64_t S = 1000000000;

enum { RATE = 1000, CHUNK = 100 };

/* Lets go on whom it gives until @now_ns, and says which byte each got. */
static unsigned int go_on(struct throttle *t, uint64_t now_ns, char *order,
			  size_t room)
{
	struct throttle_flow *f;
	unsigned int n = 0;
	uint64_t wait;

	while ((f = throttle_next(t, now_ns, &wait)) && n + 1 < room) {
		order[n++] = *(const char *)f->arg;
		assert_true(throttle_pass(t, f, CHUNK, now_ns));
		/* It wants the next bytes at once. */
		(void)throttle_pass(t, f, CHUNK, now_ns);
	}
	order[n] = '\0';
	return n;
}

static void test_throttle__without_a_limit_holds_nobody(void **state)
{
	struct throttle_flow f = {0};
	struct throttle t;
	uint64_t wait;

	(void)state;
	throttle_init(&t, 0, 0);
	assert_false(throttle_is_on(&t));
	for (int i = 0; i < 100; i++)
		assert_true(throttle_pass(&t, &f, SIZE_MAX, 0));
	assert_null(throttle_next(&t, 0, &wait));
	assert_int_equal(wait, UINT64_MAX);
}

static void test_throttle__gives_a_second_of_burst_then_its_rate(void **state)
{
	struct throttle_flow f = {.arg = (char[]){"a"}};
	struct throttle t;
	unsigned int n = 0;
	char order[64];

	(void)state;
	throttle_init(&t, RATE, 0);
	assert_true(throttle_is_on(&t));
	while (throttle_pass(&t, &f, CHUNK, 0))
		n++;
	assert_int_equal(n, RATE / CHUNK);
	assert_false(throttle_is_idle(&t));
	/* 1000 bytes a second: in 3 s 30 times 100, however they are cut. */
	n = 0;
	for (uint64_t ms = 1; ms <= 3001; ms++)
		n += go_on(&t, ms * (S / 1000), order, sizeof(order));
	assert_in_range(n, 29, 31);
}

static void test_throttle__those_held_go_on_in_the_order_they_came(void **state)
{
	struct throttle_flow a = {.arg = (char[]){"a"}},
			     b = {.arg = (char[]){"b"}},
			     c = {.arg = (char[]){"c"}};
	struct throttle t;
	char order[64];

	(void)state;
	throttle_init(&t, RATE, 0);
	throttle_spend(&t, RATE, 0);
	assert_false(throttle_pass(&t, &a, CHUNK, 0));
	assert_false(throttle_pass(&t, &b, CHUNK, 0));
	/* A token is there, but others came first. */
	assert_false(throttle_pass(&t, &c, CHUNK, S / 2));
	go_on(&t, S / 2, order, sizeof(order));
	assert_string_equal(order, "abcab");
	go_on(&t, S / 2 + S / 10 + 1, order, sizeof(order));
	assert_string_equal(order, "c");
}

static void test_throttle__tells_when_the_next_goes_on(void **state)
{
	struct throttle_flow f = {0};
	struct throttle t;
	uint64_t wait;

	(void)state;
	throttle_init(&t, RATE, 0);
	throttle_spend(&t, 3 * RATE, 0);
	assert_false(throttle_pass(&t, &f, CHUNK, 0));
	assert_null(throttle_next(&t, 0, &wait));
	/* 2 s for what is owed, and a byte. */
	assert_in_range(wait, 2 * S + S / RATE, 2 * S + S / RATE + 2);
	assert_ptr_equal(throttle_next(&t, wait, &wait), &f);
}

static void test_throttle__urgent_ones_pass_and_downloads_pay(void **state)
{
	struct throttle_flow d = {.arg = (char[]){"d"}};
	struct throttle_flow u = {.urgent = true, .arg = (char[]){"u"}};
	struct throttle t;
	char order[64];

	(void)state;
	throttle_init(&t, RATE, 0);
	throttle_spend(&t, RATE, 0);
	assert_false(throttle_pass(&t, &d, CHUNK, 0));
	assert_true(throttle_pass(&t, &u, RATE / 2, 0));
	go_on(&t, S / 2, order, sizeof(order));
	assert_string_equal(order, "");
	go_on(&t, S / 2 + S / RATE + 1, order, sizeof(order));
	assert_string_equal(order, "d");
}

static void test_throttle__urgent_ones_wait_for_a_second_owed(void **state)
{
	struct throttle_flow u = {.urgent = true, .arg = (char[]){"u"}};
	struct throttle t;
	unsigned int n = 0;
	uint64_t wait;

	(void)state;
	throttle_init(&t, RATE, 0);
	while (throttle_pass(&t, &u, CHUNK, 0))
		n++;
	/* What it held, and as much again. */
	assert_int_equal(n, 2 * RATE / CHUNK);
	assert_null(throttle_next(&t, 0, &wait));
	assert_in_range(wait, S / RATE, S / RATE + 2);
}

static void test_throttle__where_both_wait_they_go_on_in_turn(void **state)
{
	struct throttle_flow d = {.arg = (char[]){"d"}},
			     e = {.arg = (char[]){"e"}};
	struct throttle_flow u = {.urgent = true, .arg = (char[]){"u"}};
	struct throttle t;
	char order[64], all[64] = "";

	(void)state;
	throttle_init(&t, RATE, 0);
	throttle_spend(&t, 2 * RATE, 0);
	assert_false(throttle_pass(&t, &d, CHUNK, 0));
	assert_false(throttle_pass(&t, &e, CHUNK, 0));
	assert_false(throttle_pass(&t, &u, CHUNK, 0));
	for (uint64_t i = 1; i <= 6; i++) {
		go_on(&t, i * (S / 10), order, sizeof(order));
		strcat(all, order);
	}
	assert_string_equal(all, "udueud");
}

/* Small pieces get half of the rate where they want it, not half the turns. */
static void test_throttle__where_both_wait_each_gets_half(void **state)
{
	struct throttle_flow d = {.arg = (char[]){"d"}};
	struct throttle_flow u = {.urgent = true, .arg = (char[]){"u"}};
	uint64_t wait, got[2] = {0, 0};
	struct throttle_flow *f;
	struct throttle t;

	(void)state;
	throttle_init(&t, RATE, 0);
	throttle_spend(&t, 2 * RATE, 0);
	assert_false(throttle_pass(&t, &d, 400, 0));
	assert_false(throttle_pass(&t, &u, 100, 0));
	for (uint64_t ms = 1; ms <= 20000; ms++) {
		while ((f = throttle_next(&t, ms * (S / 1000), &wait))) {
			size_t len = f->urgent ? 100 : 400;

			got[f->urgent] += len;
			assert_true(throttle_pass(&t, f, len, ms * S / 1000));
			(void)throttle_pass(&t, f, len, ms * S / 1000);
		}
	}
	assert_in_range(got[0], 9500, 10500);
	assert_in_range(got[1], 9500, 10500);
}

static void test_throttle__what_was_paid_is_not_paid_again(void **state)
{
	struct throttle_flow f = {0};
	struct throttle t;
	uint64_t wait;

	(void)state;
	throttle_init(&t, RATE, 0);
	throttle_spend(&t, RATE, 0);
	assert_false(throttle_pass(&t, &f, CHUNK, 0));
	assert_ptr_equal(throttle_next(&t, S / 10, &wait), &f);
	/* In two pieces, and then with 50 more than it was held with. */
	assert_true(throttle_pass(&t, &f, CHUNK / 2, S / 10));
	assert_true(throttle_pass(&t, &f, CHUNK / 2 + 50, S / 10));
	assert_false(throttle_pass(&t, &f, CHUNK, S / 10));
	assert_null(throttle_next(&t, S / 10, &wait));
	assert_in_range(wait, 51 * (S / RATE), 51 * (S / RATE) + 2);
}

static void test_throttle__one_that_leaves_is_not_given(void **state)
{
	struct throttle_flow a = {0}, b = {0};
	struct throttle t;
	uint64_t wait;

	(void)state;
	throttle_init(&t, RATE, 0);
	throttle_spend(&t, RATE, 0);
	throttle_leave(&t, &a); /* not held */
	assert_false(throttle_pass(&t, &a, CHUNK, 0));
	assert_false(throttle_pass(&t, &b, CHUNK, 0));
	throttle_leave(&t, &a);
	assert_ptr_equal(throttle_next(&t, S, &wait), &b);
	assert_true(throttle_is_idle(&t));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_throttle__without_a_limit_holds_nobody),
		cmocka_unit_test(
			test_throttle__gives_a_second_of_burst_then_its_rate),
		cmocka_unit_test(
			test_throttle__those_held_go_on_in_the_order_they_came),
		cmocka_unit_test(test_throttle__tells_when_the_next_goes_on),
		cmocka_unit_test(
			test_throttle__urgent_ones_pass_and_downloads_pay),
		cmocka_unit_test(
			test_throttle__urgent_ones_wait_for_a_second_owed),
		cmocka_unit_test(
			test_throttle__where_both_wait_they_go_on_in_turn),
		cmocka_unit_test(test_throttle__where_both_wait_each_gets_half),
		cmocka_unit_test(
			test_throttle__what_was_paid_is_not_paid_again),
		cmocka_unit_test(test_throttle__one_that_leaves_is_not_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

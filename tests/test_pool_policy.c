#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cache/pool_policy.h"

static struct pool_slot_view ready(unsigned int refs, uint64_t last_use)
{
	return (struct pool_slot_view){
		.state = POOL_SLOT_READY,
		.refs = refs,
		.last_use = last_use,
	};
}

static struct pool_slot_view decoded_ahead(uint64_t born)
{
	return (struct pool_slot_view){
		.state = POOL_SLOT_READY,
		.ahead = true,
		.last_use = born,
		.born = born,
	};
}

static const struct pool_slot_view empty = {.state = POOL_SLOT_EMPTY};
static const struct pool_slot_view filling = {.state = POOL_SLOT_FILLING};

static void test_pool_policy__an_empty_slot_is_taken_first(void **state)
{
	const struct pool_slot_view v[] = {ready(0, 1), empty, ready(0, 2)};

	(void)state;
	assert_int_equal(pool_policy_demand(v, 3, 10), 1);
	assert_int_equal(pool_policy_ahead(v, 3, 1, 10, 9), 1);
}

static void test_pool_policy__the_least_recently_used_goes(void **state)
{
	const struct pool_slot_view v[] = {ready(0, 5), ready(0, 3),
					   ready(0, 4), filling};

	(void)state;
	assert_int_equal(pool_policy_demand(v, 4, 10), 1);
}

static void test_pool_policy__pinned_and_filling_slots_stay(void **state)
{
	const struct pool_slot_view v[] = {ready(1, 1), filling, ready(2, 2)};

	(void)state;
	assert_int_equal(pool_policy_demand(v, 3, 10), -1);
	assert_int_equal(pool_policy_ahead(v, 3, 1, 10, 9), -1);
}

static void test_pool_policy__ahead_takes_no_more_than_half(void **state)
{
	struct pool_slot_view v[] = {decoded_ahead(1), empty, empty, empty};

	(void)state;
	assert_int_equal(pool_policy_ahead(v, 4, 1, 10, 2), 1);
	v[1] = filling;
	v[1].ahead = true;
	v[1].born = 2;
	assert_int_equal(pool_policy_ahead(v, 4, 1, 10, 2), -1);
	/* Once asked for, it does not count. */
	v[0].ahead = false;
	assert_int_equal(pool_policy_ahead(v, 4, 1, 10, 2), 2);
}

static void test_pool_policy__ahead_leaves_room_for_other_readers(void **state)
{
	const struct pool_slot_view v[] = {
		decoded_ahead(1), empty, empty, empty, empty, empty};

	(void)state;
	/* Of 6 slots 3, 2, 1 and none. */
	assert_int_equal(pool_policy_ahead(v, 6, 0, 10, 2), 1);
	assert_int_equal(pool_policy_ahead(v, 6, 1, 10, 2), 1);
	assert_int_equal(pool_policy_ahead(v, 6, 2, 10, 2), 1);
	assert_int_equal(pool_policy_ahead(v, 6, 3, 10, 2), -1);
	assert_int_equal(pool_policy_ahead(v, 6, 4, 10, 2), -1);
	assert_int_equal(pool_policy_ahead(v, 6, 64, 10, 2), -1);
}

static void
test_pool_policy__ahead_spares_what_others_wait_to_read(void **state)
{
	const struct pool_slot_view v[] = {decoded_ahead(1), ready(0, 7),
					   ready(0, 8), ready(0, 9)};

	(void)state;
	/* All may still be in use. */
	assert_int_equal(pool_policy_ahead(v, 4, 1, 23, 10), -1);
	/* The second was used longer ago than 4 times 4 uses. */
	assert_int_equal(pool_policy_ahead(v, 4, 1, 24, 10), 1);
	/* Whoever waits comes first. */
	assert_int_equal(pool_policy_demand(v, 4, 10), 0);
}

static void test_pool_policy__what_nobody_came_for_ages(void **state)
{
	const struct pool_slot_view v[] = {decoded_ahead(1), decoded_ahead(2),
					   ready(0, 30), ready(1, 31)};

	(void)state;
	assert_int_equal(pool_policy_ahead(v, 4, 1, 31, 17), -1);
	/* 17 were assigned after the first of them: more than 4 times 4. */
	assert_int_equal(pool_policy_ahead(v, 4, 1, 31, 18), 0);
}

static void test_pool_policy__a_spent_slot_goes_before_all(void **state)
{
	struct pool_slot_view v[] = {ready(0, 1), empty, ready(0, 9),
				     ready(0, 8)};

	(void)state;
	v[2].spent = v[3].spent = true;
	assert_int_equal(pool_policy_demand(v, 4, 10), 3);
	assert_int_equal(pool_policy_ahead(v, 4, 1, 10, 9), 3);
	v[3].refs = 1;
	assert_int_equal(pool_policy_demand(v, 4, 10), 2);
}

static void test_pool_policy__one_that_was_passed_goes_next(void **state)
{
	struct pool_slot_view v[] = {ready(0, 1), ready(0, 30), ready(0, 39),
				     ready(0, 38)};

	(void)state;
	v[2].passed = v[3].passed = true;
	/* Before the first, though that was used longer ago than 4 times 4. */
	assert_int_equal(pool_policy_demand(v, 4, 40), 3);
	assert_int_equal(pool_policy_ahead(v, 4, 1, 40, 9), 3);
	v[1] = empty;
	assert_int_equal(pool_policy_demand(v, 4, 40), 1);
	v[0].spent = true;
	assert_int_equal(pool_policy_demand(v, 4, 40), 0);
}

static int a, b;

static const struct access_guess forward = {
	.kind = ACCESS_FORWARD,
	.off = 1000,
};

static void test_readahead__the_newest_wish_of_a_reader_counts(void **state)
{
	struct access_guess later = forward;
	struct readahead r = {0};
	struct pool_wish *w;
	uint64_t off;

	(void)state;
	assert_null(pool_readahead_next(&r));
	later.off = 9000;
	pool_readahead_wish(&r, &a, &a, 1, &forward, 4);
	pool_readahead_wish(&r, &a, &a, 1, &later, 2);
	w = pool_readahead_next(&r);
	assert_non_null(w);
	assert_int_equal(w->spans, 2);
	assert_true(pool_readahead_place(w, 20000, &off));
	assert_int_equal(off, 9000);
	assert_int_equal(pool_readahead_need(w, 8500, 1500), 1500);
	pool_readahead_advance(w, 8500, 1500);
	assert_true(pool_readahead_place(w, 20000, &off));
	assert_int_equal(off, 10000);
	pool_readahead_advance(w, 10000, 1000);
	assert_null(pool_readahead_next(&r));
}

static void test_readahead__runs_of_a_handle_are_readers(void **state)
{
	struct access_guess other = forward;
	struct readahead r = {0};
	unsigned int n = 0;
	struct pool_wish *w;

	(void)state;
	other.run = 1;
	pool_readahead_wish(&r, &a, &a, 1, &forward, 1);
	pool_readahead_wish(&r, &a, &a, 1, &other, 1);
	while ((w = pool_readahead_next(&r))) {
		pool_readahead_advance(w, 1000, 1000);
		n++;
	}
	assert_int_equal(n, 2);
}

static void test_readahead__who_stopped_is_no_reader(void **state)
{
	const struct access_guess onward = {.kind = ACCESS_FORWARD, .off = 1};
	struct readahead r = {0};
	int readers[READAHEAD_WISHES + 1];

	(void)state;
	assert_int_equal(pool_readahead_readers(&r), 0);
	for (size_t i = 1; i <= 3; i++) {
		pool_readahead_wish(&r, &a, &readers[i], 1, &onward, 1);
		assert_int_equal(pool_readahead_readers(&r), i);
	}
	for (size_t i = 1; i < 4 * READAHEAD_WISHES - 2; i++)
		pool_readahead_wish(&r, &a, &readers[3], 1, &onward, 1);
	assert_int_equal(pool_readahead_readers(&r), 3);
	pool_readahead_wish(&r, &a, &readers[3], 1, &onward, 1);
	assert_int_equal(pool_readahead_readers(&r), 2);
	pool_readahead_leave(&r, &readers[3]);
	assert_int_equal(pool_readahead_readers(&r), 1);
	for (size_t i = 0; i <= READAHEAD_WISHES; i++)
		pool_readahead_wish(&r, &a, &readers[i], 1, &onward, 1);
	assert_int_equal(pool_readahead_readers(&r), READAHEAD_WISHES);
	pool_readahead_drop(&r, &a);
	assert_int_equal(pool_readahead_readers(&r), 0);
}

static void test_readahead__backward_takes_the_nearest_first(void **state)
{
	const struct access_guess back = {.kind = ACCESS_BACKWARD, .off = 2500};
	struct readahead r = {0};
	struct pool_wish *w;
	uint64_t off;

	(void)state;
	pool_readahead_wish(&r, &a, &a, 1, &back, 9);
	w = pool_readahead_next(&r);
	assert_true(pool_readahead_place(w, 10000, &off));
	assert_int_equal(off, 2499);
	/* Of [2000, 3000) the first half is wanted. */
	assert_int_equal(pool_readahead_need(w, 2000, 1000), 500);
	pool_readahead_advance(w, 2000, 1000);
	assert_true(pool_readahead_place(w, 10000, &off));
	assert_int_equal(off, 1999);
	assert_int_equal(pool_readahead_need(w, 0, 2000), 2000);
	pool_readahead_advance(w, 0, 2000);
	assert_false(pool_readahead_place(w, 10000, &off));
	assert_null(pool_readahead_next(&r));
}

static void test_readahead__a_stride_ends_at_either_end(void **state)
{
	struct access_guess stride = {
		.kind = ACCESS_STRIDED,
		.off = 3000,
		.len = 100,
		.stride = 4000,
	};
	struct readahead r = {0};
	struct pool_wish *w;
	uint64_t off;

	(void)state;
	pool_readahead_wish(&r, &a, &a, 1, &stride, 9);
	w = pool_readahead_next(&r);
	assert_int_equal(pool_readahead_need(w, 2500, 1000), 600);
	assert_int_equal(pool_readahead_need(w, 2500, 550), 550);
	pool_readahead_advance(w, 2500, 1000);
	assert_true(pool_readahead_place(w, 8000, &off));
	assert_int_equal(off, 7000);
	pool_readahead_advance(w, 6500, 1000);
	assert_false(pool_readahead_place(w, 8000, &off));
	stride.stride = -2000;
	pool_readahead_wish(&r, &a, &a, 1, &stride, 9);
	w = pool_readahead_next(&r);
	pool_readahead_advance(w, 2500, 1000);
	assert_true(pool_readahead_place(w, 8000, &off));
	assert_int_equal(off, 1000);
	pool_readahead_advance(w, 500, 1000);
	assert_null(pool_readahead_next(&r));
}

static void test_readahead__readers_take_turns(void **state)
{
	struct readahead r = {0};
	void *got[4];

	(void)state;
	pool_readahead_wish(&r, &a, &a, 1, &forward, 2);
	pool_readahead_wish(&r, &b, &b, 1, &forward, 2);
	for (int i = 0; i < 4; i++) {
		struct pool_wish *w = pool_readahead_next(&r);

		assert_non_null(w);
		got[i] = w->source;
		pool_readahead_advance(w, 0, 1000);
	}
	assert_ptr_not_equal(got[0], got[1]);
	assert_ptr_equal(got[0], got[2]);
	assert_ptr_equal(got[1], got[3]);
	assert_null(pool_readahead_next(&r));
}

static void test_readahead__source_and_handle_are_forgotten(void **state)
{
	struct readahead r = {0};

	(void)state;
	pool_readahead_wish(&r, &a, &r, 1, &forward, 2);
	pool_readahead_wish(&r, &b, &b, 1, &forward, 2);
	pool_readahead_drop(&r, &a);
	pool_readahead_leave(&r, &b);
	assert_null(pool_readahead_next(&r));
}

static void test_readahead__of_too_many_readers_the_oldest_loses(void **state)
{
	struct readahead r = {0};
	struct pool_wish *w;
	unsigned int n = 0;

	(void)state;
	for (unsigned int i = 0; i <= READAHEAD_WISHES; i++) {
		struct access_guess g = forward;

		g.run = i;
		pool_readahead_wish(&r, &a, &a, 1, &g, 1);
	}
	while ((w = pool_readahead_next(&r))) {
		assert_int_not_equal(w->guess.run, 0);
		pool_readahead_advance(w, 0, 1000);
		n++;
	}
	assert_int_equal(n, READAHEAD_WISHES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_pool_policy__an_empty_slot_is_taken_first),
		cmocka_unit_test(
			test_pool_policy__the_least_recently_used_goes),
		cmocka_unit_test(
			test_pool_policy__pinned_and_filling_slots_stay),
		cmocka_unit_test(
			test_pool_policy__ahead_takes_no_more_than_half),
		cmocka_unit_test(
			test_pool_policy__ahead_leaves_room_for_other_readers),
		cmocka_unit_test(
			test_pool_policy__ahead_spares_what_others_wait_to_read),
		cmocka_unit_test(test_pool_policy__what_nobody_came_for_ages),
		cmocka_unit_test(
			test_pool_policy__a_spent_slot_goes_before_all),
		cmocka_unit_test(
			test_pool_policy__one_that_was_passed_goes_next),
		cmocka_unit_test(
			test_readahead__the_newest_wish_of_a_reader_counts),
		cmocka_unit_test(test_readahead__runs_of_a_handle_are_readers),
		cmocka_unit_test(test_readahead__who_stopped_is_no_reader),
		cmocka_unit_test(
			test_readahead__backward_takes_the_nearest_first),
		cmocka_unit_test(test_readahead__a_stride_ends_at_either_end),
		cmocka_unit_test(test_readahead__readers_take_turns),
		cmocka_unit_test(
			test_readahead__source_and_handle_are_forgotten),
		cmocka_unit_test(
			test_readahead__of_too_many_readers_the_oldest_loses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

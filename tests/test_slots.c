#include "tests/support/cmocka_all.h"

#include "fetch/slots.h"

static void test_slots__finds_each_thing_by_its_number(void **state)
{
	enum { N = 1000 };
	struct slots s = {0};
	uint64_t number[N];
	int thing[N];

	(void)state;
	for (int i = 0; i < N; i++) {
		number[i] = slots_add(&s, &thing[i]);
		assert_true(number[i] != 0);
	}
	for (int i = 0; i < N; i++)
		assert_ptr_equal(slots_find(&s, number[i]), &thing[i]);
	slots_fini(&s);
}

static void test_slots__never_finds_a_new_thing_by_an_old_number(void **state)
{
	struct slots s = {0};
	int old, new;
	uint64_t first, second;

	(void)state;
	first = slots_add(&s, &old);
	slots_remove(&s, first);
	assert_null(slots_find(&s, first));
	second = slots_add(&s, &new);
	assert_int_equal(s.n, 1); /* the slot is used again */
	assert_null(slots_find(&s, first));
	slots_remove(&s, first);
	assert_ptr_equal(slots_find(&s, second), &new);
	slots_fini(&s);
}

static void test_slots__ignores_numbers_it_never_gave(void **state)
{
	struct slots s = {0};
	int thing;

	(void)state;
	assert_null(slots_find(&s, 0));
	assert_null(slots_find(&s, 1));
	slots_remove(&s, 1);
	slots_add(&s, &thing);
	assert_null(slots_find(&s, 0));
	assert_null(slots_find(&s, UINT64_MAX));
	assert_null(slots_find(&s, UINT64_C(1) << 32));
	slots_fini(&s);
}

static void test_slots__are_walked_over_with_gaps(void **state)
{
	struct slots s = {0};
	uint64_t a;
	int x, y;

	(void)state;
	a = slots_add(&s, &x);
	slots_add(&s, &y);
	slots_remove(&s, a);
	assert_int_equal(s.n, 2);
	assert_null(slots_at(&s, 0));
	assert_ptr_equal(slots_at(&s, 1), &y);
	slots_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots__finds_each_thing_by_its_number),
		cmocka_unit_test(
			test_slots__never_finds_a_new_thing_by_an_old_number),
		cmocka_unit_test(test_slots__ignores_numbers_it_never_gave),
		cmocka_unit_test(test_slots__are_walked_over_with_gaps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cache/access.h"
#include "tests/support/archives.h"

enum { KiB = 1024, MiB = 1 << 20 };

static void
test_access__a_sequential_reader_is_seen_after_a_streak(void **state)
{
	struct access_guess g = {0};
	struct access a = {0};
	uint64_t off = 0;

	(void)state;
	for (; off + 128 * KiB < ACCESS_STREAK_BYTES; off += 128 * KiB) {
		g = access_note(&a, off, 128 * KiB);
		assert_int_equal(g.kind, ACCESS_RANDOM);
	}
	g = access_note(&a, off, 128 * KiB);
	assert_int_equal(g.kind, ACCESS_FORWARD);
	assert_int_equal(g.off, ACCESS_STREAK_BYTES);
}

static void test_access__requests_may_come_out_of_order(void **state)
{
	static const int order[] = {1, 0, 3, 2, 6, 4, 5, 7};
	struct access a = {0};
	unsigned int guessed = 0;

	(void)state;
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 8; i++) {
			uint64_t n = (uint64_t)round * 8 + order[i];
			struct access_guess g =
				access_note(&a, n * 128 * KiB, 128 * KiB);

			assert_true(g.kind == ACCESS_FORWARD ||
				    g.kind == ACCESS_RANDOM);
			guessed += g.kind == ACCESS_FORWARD;
		}
	}
	/* Half of the requests are the furthest so far; those of the first
	 * four rounds are too early to tell. */
	assert_true(guessed >= 60);
}

static void test_access__a_backward_reader_is_seen(void **state)
{
	struct access_guess g = {0};
	struct access a = {0};

	(void)state;
	for (uint64_t off = 100 * MiB; off > 90 * MiB; off -= 64 * KiB)
		g = access_note(&a, off - 64 * KiB, 64 * KiB);
	assert_int_equal(g.kind, ACCESS_BACKWARD);
	assert_int_equal(g.off, 90 * MiB);
}

static void test_access__a_stride_is_seen(void **state)
{
	const uint64_t stride = 16 * MiB;
	struct access_guess g;
	struct access a = {0};

	(void)state;
	for (unsigned int i = 0; i < ACCESS_STRIDES; i++) {
		g = access_note(&a, 5 + i * stride, 4096);
		assert_int_equal(g.kind, ACCESS_RANDOM);
	}
	g = access_note(&a, 5 + ACCESS_STRIDES * stride, 4096);
	assert_int_equal(g.kind, ACCESS_STRIDED);
	assert_int_equal(g.off, 5 + (ACCESS_STRIDES + 1) * stride);
	assert_int_equal(g.len, 4096);
	assert_int_equal(g.stride, (int64_t)stride);
}

static void test_access__a_stride_may_go_backward(void **state)
{
	const uint64_t stride = 16 * MiB, first = 6 * stride;
	struct access_guess g = {0};
	struct access a = {0};

	(void)state;
	for (uint64_t i = 0; i < 6; i++)
		g = access_note(&a, first - i * stride, 4096);
	assert_int_equal(g.kind, ACCESS_STRIDED);
	assert_int_equal(g.off, 0);
	/* Before the beginning there is nothing. */
	g = access_note(&a, 0, 4096);
	assert_int_equal(g.kind, ACCESS_RANDOM);
}

/* Random reads of one size in a GiB: how many requests are taken for more? */
static unsigned int guesses_of_random(size_t len, size_t request)
{
	struct access a = {0};
	unsigned int guessed = 0;
	uint64_t seed = 3;

	for (int i = 0; i < 10000; i++) {
		uint64_t at = archives_random(&seed) % (1 << 18) * 4096;

		for (size_t done = 0; done < len; done += request)
			guessed += access_note(&a, at + done, request).kind !=
				   ACCESS_RANDOM;
	}
	return guessed;
}

static void test_access__nothing_is_guessed_of_random_reads(void **state)
{
	(void)state;
	assert_int_equal(guesses_of_random(4096, 4096), 0);
	assert_int_equal(guesses_of_random(64 * KiB, 64 * KiB), 0);
	assert_int_equal(guesses_of_random(128 * KiB, 128 * KiB), 0);
	/* read(2)s of a MiB fall side by side now and then, four of them: of
	 * 80,000 and 10,000 requests a few. */
	assert_in_range(guesses_of_random(MiB, 128 * KiB), 0, 80);
	assert_in_range(guesses_of_random(MiB, MiB), 0, 50);
}

static void test_access__readers_of_one_handle_are_told_apart(void **state)
{
	struct access_guess g[ACCESS_RUNS];
	struct access a = {0};

	(void)state;
	for (uint64_t i = 0; i < 40; i++) {
		for (uint64_t reader = 0; reader < ACCESS_RUNS; reader++)
			g[reader] =
				access_note(&a,
					    reader * 1024 * MiB + i * 128 * KiB,
					    128 * KiB);
	}
	for (uint64_t reader = 0; reader < ACCESS_RUNS; reader++) {
		assert_int_equal(g[reader].kind, ACCESS_FORWARD);
		assert_int_equal(g[reader].off,
				 reader * 1024 * MiB + 40 * 128 * KiB);
		for (uint64_t other = 0; other < reader; other++)
			assert_int_not_equal(g[reader].run, g[other].run);
	}
}

static void test_access__a_jump_begins_anew(void **state)
{
	struct access_guess g = {0};
	struct access a = {0};
	uint64_t off;

	(void)state;
	for (off = 0; off < 16 * MiB; off += 128 * KiB)
		g = access_note(&a, off, 128 * KiB);
	assert_int_equal(g.kind, ACCESS_FORWARD);
	g = access_note(&a, 500 * MiB, 128 * KiB);
	assert_int_equal(g.kind, ACCESS_RANDOM);
	/* The first reader is still known when it goes on. */
	g = access_note(&a, off, 128 * KiB);
	assert_int_equal(g.kind, ACCESS_FORWARD);
}

static void test_access__the_last_offsets_do_no_harm(void **state)
{
	struct access a = {0};

	(void)state;
	for (int i = 0; i < 100; i++) {
		access_note(&a, INT64_MAX - 4096, 4096);
		access_note(&a, 0, 4096);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_access__a_sequential_reader_is_seen_after_a_streak),
		cmocka_unit_test(test_access__requests_may_come_out_of_order),
		cmocka_unit_test(test_access__a_backward_reader_is_seen),
		cmocka_unit_test(test_access__a_stride_is_seen),
		cmocka_unit_test(test_access__a_stride_may_go_backward),
		cmocka_unit_test(
			test_access__nothing_is_guessed_of_random_reads),
		cmocka_unit_test(
			test_access__readers_of_one_handle_are_told_apart),
		cmocka_unit_test(test_access__a_jump_begins_anew),
		cmocka_unit_test(test_access__the_last_offsets_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

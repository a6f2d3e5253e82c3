#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/node.h"

#define PATH "spot/klines/BTCUSDT/1m/2024-01-01.csv"

static const struct tree_target csv = {.sort = TREE_CSV, .key = "data/a.zip"};

static int setup(void **state)
{
	struct nodes *t;

	if (node_table_create(&t))
		return -1;
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	node_table_free(*state);
	return 0;
}

static struct node *look(struct nodes *t, const char *version)
{
	struct node *n = node_lookup(t, PATH, &csv, version);

	assert_non_null(n);
	return n;
}

static void test_node__root_is_never_forgotten(void **state)
{
	struct nodes *t = *state;
	struct node *root = node_root(t);
	struct tree_target tg;

	assert_string_equal(root->path, "");
	assert_int_equal(root->ino, 1);
	node_forget(t, root, 1000);
	assert_ptr_equal(node_root(t), root);
	node_target(root, &tg);
	assert_int_equal(tg.sort, TREE_FOLDER);
	assert_false(tg.provisional);
}

static void test_node__one_for_each_path_and_version(void **state)
{
	struct nodes *t = *state;
	struct node *a = look(t, "A"), *b = look(t, "B");

	assert_ptr_equal(look(t, "A"), a);
	assert_ptr_equal(look(t, "B"), b);
	assert_ptr_not_equal(a, b);
	assert_ptr_not_equal(node_lookup(t, PATH "x", &csv, "A"), a);
	assert_int_equal(node_table_count(t), 3);
}

static void test_node__inode_number_stays_over_versions(void **state)
{
	struct nodes *t = *state;
	struct node *a = look(t, "A");
	uint64_t ino = a->ino;

	assert_int_equal(look(t, "B")->ino, ino);
	node_forget(t, a, 1);
	assert_int_equal(look(t, "A")->ino, ino);
	assert_int_equal(node_ino(PATH), ino);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void test_node__inode_numbers_differ(void **state)
{
	static uint64_t inos[20000];
	char path[64];

	(void)state;
	for (size_t i = 0; i < 20000; i++) {
		snprintf(path, sizeof(path), "spot/klines/SYMBOL%zu", i);
		inos[i] = node_ino(path);
		/* 0 is no inode, 1 the root's */
		assert_true(inos[i] > 1);
	}
	qsort(inos, 20000, sizeof(inos[0]), by_number);
	for (size_t i = 1; i < 20000; i++)
		assert_true(inos[i] != inos[i - 1]);
}

static void test_node__unknown_version_takes_the_first_it_learns(void **state)
{
	struct nodes *t = *state;
	struct node *n = look(t, "");

	assert_true(node_adopt(n, "A"));
	assert_true(node_adopt(n, "A"));
	assert_false(node_adopt(n, "B"));
	assert_ptr_equal(look(t, "A"), n);
	assert_ptr_not_equal(look(t, ""), n);
}

/* A LOOKUP can be what learns it. */
static void test_node__lookup_gives_a_version_to_who_has_none(void **state)
{
	struct nodes *t = *state;
	struct node *n = look(t, "");

	assert_ptr_equal(look(t, "A"), n);
	assert_int_equal(node_table_count(t), 1);
	assert_false(node_adopt(n, "B"));
	node_forget(t, n, 2);
	assert_int_equal(node_table_count(t), 0);
}

/* Two nodes of one version would be two sets of pages for it. */
static void test_node__version_of_another_node_is_not_taken(void **state)
{
	struct nodes *t = *state;
	struct node *known = look(t, "A"), *unknown = look(t, "");

	assert_ptr_not_equal(unknown, known);
	assert_false(node_adopt(unknown, "A"));
	assert_true(node_adopt(unknown, "B"));
	assert_ptr_equal(look(t, "A"), known);
	assert_ptr_equal(look(t, "B"), unknown);
}

static void test_node__lives_as_long_as_the_kernel_holds_it(void **state)
{
	struct nodes *t = *state;
	struct node *n = look(t, "A");

	for (int i = 0; i < 4; i++)
		assert_ptr_equal(look(t, "A"), n);
	node_forget(t, n, 2);
	node_forget(t, n, 2);
	assert_int_equal(node_table_count(t), 1);
	node_forget(t, n, 1);
	assert_int_equal(node_table_count(t), 0);
}

static void test_node__more_forgotten_than_held_is_all(void **state)
{
	struct nodes *t = *state;
	struct node *n = look(t, "A");

	node_forget(t, n, UINT64_MAX);
	assert_int_equal(node_table_count(t), 0);
}

static void test_node__lookup_brings_the_target_up_to_date(void **state)
{
	struct nodes *t = *state;
	struct tree_target tg = {.sort = TREE_CSV, .provisional = true}, got;
	struct node *n = node_lookup(t, PATH, &tg, "");

	node_target(n, &got);
	assert_true(got.provisional);
	node_set_target(n, &csv);
	node_target(n, &got);
	assert_false(got.provisional);
	assert_string_equal(got.key, "data/a.zip");
	tg.provisional = false;
	strcpy(tg.key, "data/b.zip");
	assert_ptr_equal(node_lookup(t, PATH, &tg, ""), n);
	node_target(n, &got);
	assert_string_equal(got.key, "data/b.zip");
}

static void test_node__knows_what_was_looked_up_of_late(void **state)
{
	struct nodes *t = *state;
	struct node *a;

	assert_false(node_is_known(t, PATH, 60000));
	a = look(t, "A");
	assert_true(node_is_known(t, PATH, 60000));
	assert_false(node_is_known(t, PATH, 0));
	assert_false(node_is_known(t, PATH "x", 60000));
	node_forget(t, a, 1);
	assert_false(node_is_known(t, PATH, 60000));
}

static void test_node__control_files_are_each_their_own(void **state)
{
	struct nodes *t = *state;
	struct tree_target tg = {.sort = TREE_CONTROL};
	struct node *a, *b;

	a = node_control(t, ".tickfs/status.json", &tg, strdup("one"), 3);
	b = node_control(t, ".tickfs/status.json", &tg, strdup("other"), 5);
	assert_ptr_not_equal(a, b);
	assert_int_equal(a->ino, b->ino);
	assert_memory_equal(a->text, "one", 3);
	assert_int_equal(b->text_len, 5);
	assert_false(node_must_tell(b, 5));
	node_forget(t, a, 1);
	assert_memory_equal(b->text, "other", 5);
	node_forget(t, b, 1);
	assert_int_equal(node_table_count(t), 0);
}

/* The kernel has to hear of a size once, by one ESTALE (platform.md); an open
 * that does not walk a path does not come back for it, so not for ever. */
static void test_node__size_is_told_at_most_a_few_times(void **state)
{
	struct nodes *t = *state;
	struct node *n = look(t, "A");
	int told = 0;

	assert_true(node_must_tell(n, 100));
	node_told(n, 100, -1);
	assert_false(node_must_tell(n, 100));
	while (node_must_tell(n, 200))
		assert_in_range(++told, 1, 5);
	assert_in_range(told, 1, 5);
	assert_false(node_must_tell(n, 200));
	/* in a row: once it was heard, another time has its own */
	node_told(n, 200, -1);
	assert_false(node_must_tell(n, 200));
	assert_true(node_must_tell(n, 300));
}

/* ---- what the kernel should drop ---- */

static const struct tree_target maybe_folder = {.sort = TREE_FOLDER,
						.provisional = true};
static const struct tree_target maybe_file = {
	.sort = TREE_CSV, .provisional = true, .key = "data/b.zip"};
static const struct tree_target folder = {.sort = TREE_FOLDER};

enum { LONG_AGO = 1000, LATER = 1000000, MANY = 1 << 20 };

static uint64_t id_of(const struct node *n)
{
	return (uint64_t)(uintptr_t)n;
}

static size_t surplus(struct nodes *t, size_t limit, uint64_t ids[8])
{
	return node_surplus(t, LATER, limit, ids, 8);
}

static void test_node__absent_ones_go_children_first(void **state)
{
	struct nodes *t = *state;
	struct node *klines = node_lookup(t, "spot/klines", &folder, "");
	struct node *symbol =
		node_lookup(t, "spot/klines/NO", &maybe_folder, "");
	struct node *interval =
		node_lookup(t, "spot/klines/NO/1m", &maybe_folder, "");
	struct node *file =
		node_lookup(t, "spot/klines/NO/1m/a.csv", &maybe_file, "");
	uint64_t ids[8];

	assert_non_null(klines);
	node_absent(file, LONG_AGO);
	assert_int_equal(surplus(t, MANY, ids), 3);
	assert_int_equal(ids[0], id_of(file));
	assert_int_equal(ids[1], id_of(interval));
	assert_int_equal(ids[2], id_of(symbol));
	/* Not again, unless it is absent again. */
	assert_int_equal(surplus(t, MANY, ids), 0);
	node_absent(file, LONG_AGO);
	assert_int_equal(surplus(t, MANY, ids), 3);
}

static void test_node__absent_ends_at_what_exists(void **state)
{
	struct nodes *t = *state;
	struct node *symbol =
		node_lookup(t, "spot/klines/NO", &maybe_folder, "");
	struct node *interval =
		node_lookup(t, "spot/klines/NO/1m", &maybe_folder, "");
	struct node *file =
		node_lookup(t, "spot/klines/NO/1m/a.csv", &maybe_file, "");
	uint64_t ids[8];

	assert_non_null(symbol);
	node_set_target(interval, &folder);
	node_absent(file, LONG_AGO);
	assert_int_equal(surplus(t, MANY, ids), 1);
	assert_int_equal(ids[0], id_of(file));
}

static bool is_provisional(struct node *n)
{
	struct tree_target tg;

	node_target(n, &tg);
	return tg.provisional;
}

static void test_node__what_exists_proves_what_is_above(void **state)
{
	struct nodes *t = *state;
	struct node *symbol =
		node_lookup(t, "spot/klines/S", &maybe_folder, "");
	struct node *interval =
		node_lookup(t, "spot/klines/S/1m", &maybe_folder, "");
	struct node *file =
		node_lookup(t, "spot/klines/S/1m/a.csv", &maybe_file, "");

	assert_true(is_provisional(symbol));
	node_prove(file);
	assert_false(is_provisional(symbol));
	assert_false(is_provisional(interval));
	/* A file may go. */
	assert_true(is_provisional(file));
	/* The listing above still can't tell; it is known nevertheless. */
	node_lookup(t, "spot/klines/S", &maybe_folder, "");
	assert_false(is_provisional(symbol));
	node_absent(interval, LONG_AGO);
	node_lookup(t, "spot/klines/S/1m", &maybe_folder, "");
	assert_true(is_provisional(interval));
	assert_false(is_provisional(symbol));
}

static void test_node__absent_waits_until_it_is_let_go(void **state)
{
	struct nodes *t = *state;
	struct node *file = node_lookup(t, "um/NO", &maybe_folder, "");
	uint64_t ids[8];

	node_absent(file, LATER);
	assert_int_equal(node_surplus(t, LATER, MANY, ids, 8), 0);
	assert_int_equal(node_surplus(t, LATER + 1000, MANY, ids, 8), 1);
}

static void test_node__looked_up_again_is_absent_no_more(void **state)
{
	struct nodes *t = *state;
	struct node *file = node_lookup(t, "um/NO", &maybe_folder, "");
	uint64_t ids[8];

	node_absent(file, LONG_AGO);
	assert_ptr_equal(node_lookup(t, "um/NO", &maybe_folder, ""), file);
	assert_int_equal(surplus(t, MANY, ids), 0);
}

static void test_node__absent_and_forgotten_is_gone(void **state)
{
	struct nodes *t = *state;
	struct node *file = node_lookup(t, "um/NO", &maybe_folder, "");
	uint64_t ids[8];

	node_absent(file, LONG_AGO);
	node_forget(t, file, 1);
	assert_int_equal(surplus(t, MANY, ids), 0);
	/* The root has nothing above it and stays. */
	node_absent(node_root(t), LONG_AGO);
	assert_int_equal(surplus(t, MANY, ids), 0);
}

static void test_node__oldest_go_beyond_the_limit(void **state)
{
	struct nodes *t = *state;
	struct node *a = node_lookup(t, "a", &folder, "");
	struct node *b = node_lookup(t, "b", &folder, "");
	struct node *c = node_lookup(t, "c", &folder, "");
	struct node *d = node_lookup(t, "d", &folder, "");
	uint64_t ids[8];

	assert_ptr_equal(node_lookup(t, "a", &folder, ""), a);
	assert_int_equal(surplus(t, 4, ids), 0);
	node_absent(d, LONG_AGO);
	/* The absent one counts among them. */
	assert_int_equal(surplus(t, 2, ids), 2);
	assert_int_equal(ids[0], id_of(d));
	assert_int_equal(ids[1], id_of(b));
	/* Still there: in use. Then it is the next ones' turn. */
	assert_int_equal(surplus(t, 3, ids), 1);
	assert_int_equal(ids[0], id_of(c));
	assert_int_equal(node_surplus(t, LATER, 0, ids, 2), 2);
}

enum { THREADS = 4, ROUNDS = 3000 };

static void *come_and_go(void *arg)
{
	static const char *const versions[] = {"", "A", "B"};
	struct nodes *t = arg;
	struct tree_target tg;
	uint64_t ids[8];

	for (int i = 0; i < ROUNDS; i++) {
		struct node *n = node_lookup(t, i % 2 ? PATH : "spot", &csv,
					     versions[i % 3]);

		node_adopt(n, versions[i % 2 + 1]);
		node_target(n, &tg);
		node_told(n, 5, -1);
		node_must_tell(n, (uint64_t)i);
		node_absent(n, 0);
		node_surplus(t, LATER, 1, ids, 8);
		node_forget(t, n, 1);
	}
	return NULL;
}

static void test_node__threads_leave_nothing_behind(void **state)
{
	struct nodes *t = *state;
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, come_and_go, t), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(node_table_count(t), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_node__root_is_never_forgotten),
		TEST(test_node__one_for_each_path_and_version),
		TEST(test_node__inode_number_stays_over_versions),
		TEST(test_node__inode_numbers_differ),
		TEST(test_node__unknown_version_takes_the_first_it_learns),
		TEST(test_node__lookup_gives_a_version_to_who_has_none),
		TEST(test_node__version_of_another_node_is_not_taken),
		TEST(test_node__lives_as_long_as_the_kernel_holds_it),
		TEST(test_node__more_forgotten_than_held_is_all),
		TEST(test_node__lookup_brings_the_target_up_to_date),
		TEST(test_node__knows_what_was_looked_up_of_late),
		TEST(test_node__control_files_are_each_their_own),
		TEST(test_node__size_is_told_at_most_a_few_times),
		TEST(test_node__absent_ones_go_children_first),
		TEST(test_node__absent_ends_at_what_exists),
		TEST(test_node__what_exists_proves_what_is_above),
		TEST(test_node__absent_waits_until_it_is_let_go),
		TEST(test_node__looked_up_again_is_absent_no_more),
		TEST(test_node__absent_and_forgotten_is_gone),
		TEST(test_node__oldest_go_beyond_the_limit),
		TEST(test_node__threads_leave_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/prune.h"

enum { LATER = 1000000 };

static const struct tree_target maybe = {.sort = TREE_FOLDER,
					 .provisional = true};

struct place {
	struct nodes *nodes;
	struct prune *prune;
	int ours, kernels; /* ends of a pipe in place of /dev/fuse */
};

static int setup(void **state)
{
	static struct place p;
	int fds[2];

	if (pipe(fds))
		return -1;
	p.kernels = fds[0];
	p.ours = fds[1];
	if (node_table_create(&p.nodes) ||
	    prune_create(&p.prune, p.nodes, 1, p.ours))
		return -1;
	*state = &p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	prune_free(p->prune);
	node_table_free(p->nodes);
	close(p->ours);
	close(p->kernels);
	return 0;
}

static void test_prune__sends_the_kernels_message(void **state)
{
	struct place *p = *state;
	struct node *n = node_lookup(p->nodes, "um/NO", &maybe, "");
	/* linux/fuse.h 7.45: fuse_out_header, fuse_notify_prune_out, ids. */
	struct {
		uint32_t len;
		int32_t error;
		uint64_t unique;
		uint32_t count, padding;
		uint64_t spare;
		uint64_t ids[1];
	} got, expected = {
		       .len = 40,
		       .error = 9,
		       .count = 1,
		       .ids = {(uint64_t)(uintptr_t)n},
	       };
	char rest;

	node_absent(n, 0);
	prune_tick(p->prune, LATER);
	close(p->ours);
	p->ours = -1;
	assert_int_equal(read(p->kernels, &got, sizeof(got)), sizeof(got));
	assert_memory_equal(&got, &expected, sizeof(got));
	assert_int_equal(read(p->kernels, &rest, 1), 0);
}

static void test_prune__says_nothing_where_nothing_is_to_go(void **state)
{
	struct place *p = *state;
	char c;

	node_lookup(p->nodes, "um", &maybe, "");
	prune_tick(p->prune, LATER);
	close(p->ours);
	p->ours = -1;
	assert_int_equal(read(p->kernels, &c, 1), 0);
}

static void test_prune__stopped_leaves_the_descriptor_alone(void **state)
{
	struct place *p = *state;
	char c;

	node_absent(node_lookup(p->nodes, "um/NO", &maybe, ""), 0);
	prune_stop(p->prune);
	prune_tick(p->prune, LATER);
	close(p->ours);
	p->ours = -1;
	assert_int_equal(read(p->kernels, &c, 1), 0);
}

static void test_prune__an_older_kernel_is_not_asked_again(void **state)
{
	struct place *p = *state;
	struct node *n = node_lookup(p->nodes, "um/NO", &maybe, "");
	const sigset_t none = {0};
	/* EINVAL to every write, like a kernel that does not know the notice.
	 */
	int fd = signalfd(-1, &none, SFD_CLOEXEC);
	struct prune *old;
	uint64_t ids[2];

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "", 1), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(prune_create(&old, p->nodes, 1, fd), 0);
	node_absent(n, 0);
	prune_tick(old, LATER);
	node_absent(n, 0);
	prune_tick(old, LATER);
	/* What was found absent since was not taken off the list. */
	assert_int_equal(node_surplus(p->nodes, LATER, 9, ids, 2), 1);
	prune_free(old);
	close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_prune__sends_the_kernels_message),
		TEST(test_prune__says_nothing_where_nothing_is_to_go),
		TEST(test_prune__stopped_leaves_the_descriptor_alone),
		TEST(test_prune__an_older_kernel_is_not_asked_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

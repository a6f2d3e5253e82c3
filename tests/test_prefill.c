/* What the kernel is given, and what it has when an OPEN is answered. Its two
 * notices are replaced here; test_prefill.py has the true ones. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "fs/fuse.h"
#include "fs/node.h"
#include "fs/prefill.h"

enum {
	KiB = 1024,
	SIZE = 1500 * KiB + 77,
	AHEAD = 1000 * KiB, /* at least, of who makes the pages */
	STREAM = 1,
};

/* ---- the kernel ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool held;	      /* a notice that stores waits */
	unsigned int storing; /* notices that are in it */
	int err;
	bool err_once;
	unsigned char bytes[SIZE];
	bool there[SIZE];
} kernel = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};

static struct fuse_session *const session = (struct fuse_session *)&kernel;

int fuse_lowlevel_notify_store(struct fuse_session *se, fuse_ino_t ino,
			       off_t off, struct fuse_bufvec *v,
			       enum fuse_buf_copy_flags flags)
{
	size_t len = fuse_buf_size(v);
	int err;

	(void)se;
	(void)ino;
	(void)flags;
	pthread_mutex_lock(&kernel.lock);
	kernel.storing++;
	pthread_cond_broadcast(&kernel.changed);
	while (kernel.held)
		pthread_cond_wait(&kernel.changed, &kernel.lock);
	kernel.storing--;
	err = kernel.err;
	if (kernel.err_once)
		kernel.err = 0;
	if (!err) {
		assert_true((uint64_t)off + len <= SIZE);
		assert_int_equal(off % 4096, 0);
		assert_true(len % 4096 == 0 || (uint64_t)off + len == SIZE);
		memcpy(kernel.bytes + off, v->buf[0].mem, len);
		for (size_t i = 0; i < len; i++) {
			/* It may be in a pipe. */
			assert_false(kernel.there[(size_t)off + i]);
			kernel.there[(size_t)off + i] = true;
		}
	}
	pthread_mutex_unlock(&kernel.lock);
	return err;
}

int fuse_lowlevel_notify_inval_inode(struct fuse_session *se, fuse_ino_t ino,
				     off_t off, off_t len)
{
	(void)se;
	(void)ino;
	assert_int_equal(off, 0);
	assert_int_equal(len, 0);
	pthread_mutex_lock(&kernel.lock);
	memset(kernel.there, 0, sizeof(kernel.there));
	pthread_mutex_unlock(&kernel.lock);
	return 0;
}

static void kernel_hold(bool held)
{
	pthread_mutex_lock(&kernel.lock);
	kernel.held = held;
	pthread_cond_broadcast(&kernel.changed);
	pthread_mutex_unlock(&kernel.lock);
}

static void kernel_await_store(void)
{
	pthread_mutex_lock(&kernel.lock);
	while (!kernel.storing)
		pthread_cond_wait(&kernel.changed, &kernel.lock);
	pthread_mutex_unlock(&kernel.lock);
}

static size_t kernel_has(void)
{
	size_t n = 0;

	pthread_mutex_lock(&kernel.lock);
	for (size_t i = 0; i < SIZE; i++)
		n += kernel.there[i];
	pthread_mutex_unlock(&kernel.lock);
	return n;
}

/* ---- a mount with one file ---- */

struct place {
	struct nodes *nodes;
	struct node *node;
	struct prefill *prefill;
	struct prefill_fill *fill;
	unsigned char csv[SIZE];
};

static int setup(void **state)
{
	static const struct tree_target csv = {.sort = TREE_CSV};
	static struct place p;
	struct prefill_reader reader = {
		.etag = "e1", .stream = STREAM, .size = SIZE};

	memset(kernel.there, 0, sizeof(kernel.there));
	kernel.held = false;
	kernel.err = 0;
	kernel.err_once = false;
	for (size_t i = 0; i < SIZE; i++)
		p.csv[i] = (unsigned char)(i * 7 + i / 4096);
	if (node_table_create(&p.nodes) || prefill_create(&p.prefill, 2 * SIZE))
		return -1;
	prefill_start(p.prefill, session);
	reader.node = p.node = node_lookup(p.nodes, "spot/x.csv", &csv, "e1");
	p.fill = prefill_fill_create(p.prefill);
	if (!p.node || !p.fill)
		return -1;
	prefill_offer(p.fill, &reader);
	prefill_begin(p.fill, "e1");
	*state = &p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	prefill_fill_free(p->fill);
	prefill_free(p->prefill);
	node_table_free(p->nodes);
	return 0;
}

/* Decoded bytes [@from, @to), a portion at a time. */
static void decode(struct place *p, size_t from, size_t to, size_t portion)
{
	for (size_t at = from; at < to; at += portion) {
		size_t n = to - at < portion ? to - at : portion;

		assert_int_equal(
			prefill_bytes(p->fill, STREAM, at, p->csv + at, n), 0);
	}
}

static void assert_kernel_has_all(const struct place *p)
{
	assert_int_equal(kernel_has(), SIZE);
	assert_memory_equal(kernel.bytes, p->csv, SIZE);
}

static void test_prefill__all_is_there_once_it_serves(void **state)
{
	static const size_t portions[] = {SIZE, 512 * KiB, 100003, 4096, 517};
	struct place *p = *state;

	for (size_t i = 0; i < sizeof(portions) / sizeof(*portions); i++) {
		if (i) {
			teardown(state);
			assert_int_equal(setup(state), 0);
		}
		decode(p, 0, SIZE, portions[i]);
		prefill_end(p->fill, true);
		assert_kernel_has_all(p);
		assert_true(prefill_opened(p->prefill, p->node));
		assert_kernel_has_all(p);
	}
}

static void test_prefill__nothing_is_left_where_it_does_not_serve(void **state)
{
	struct place *p = *state;

	decode(p, 0, SIZE, 512 * KiB);
	prefill_end(p->fill, false);
	assert_int_equal(kernel_has(), 0);
}

static void test_prefill__begun_again_it_is_given_again(void **state)
{
	struct place *p = *state;

	p->csv[5000] ^= 1;
	decode(p, 0, SIZE / 2, 100000);
	p->csv[5000] ^= 1;
	prefill_begin(p->fill, "e1");
	decode(p, 0, SIZE, 100000);
	/* What a guess made was not it. */
	decode(p, 0, SIZE, 100000);
	prefill_end(p->fill, true);
	assert_kernel_has_all(p);
}

static void a_moment(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
}

static void test_prefill__decoding_goes_on_while_pages_are_made(void **state)
{
	struct place *p = *state;

	kernel_hold(true);
	decode(p, 0, 400 * KiB, 100 * KiB);
	kernel_await_store();
	decode(p, 400 * KiB, AHEAD, 10 * KiB);
	kernel_hold(false);
	decode(p, AHEAD, SIZE, 10 * KiB);
	prefill_end(p->fill, true);
	assert_kernel_has_all(p);
}

static void *decode_all(void *arg)
{
	decode(arg, 0, SIZE, 100 * KiB);
	return NULL;
}

static void test_prefill__decoding_waits_for_pages_far_behind(void **state)
{
	struct place *p = *state;
	pthread_t decoder;

	kernel_hold(true);
	assert_int_equal(pthread_create(&decoder, NULL, decode_all, p), 0);
	kernel_await_store();
	a_moment();
	kernel_hold(false);
	pthread_join(decoder, NULL);
	prefill_end(p->fill, true);
	assert_kernel_has_all(p);
}

static void test_prefill__what_the_kernel_refuses_ends_it(void **state)
{
	struct place *p = *state;

	kernel.err = -ENOENT;
	kernel.err_once = true;
	decode(p, 0, SIZE, 300 * KiB);
	prefill_end(p->fill, true);
	assert_int_equal(kernel_has(), 0);
	assert_null(p->node->fill);
}

/* ---- an OPEN that is answered meanwhile ---- */

static void *open_it(void *arg)
{
	struct place *p = arg;

	return prefill_opened(p->prefill, p->node) ? p : NULL;
}

static void *stop_it(void *arg)
{
	struct place *p = arg;

	prefill_stop(p->prefill);
	return NULL;
}

static void test_prefill__another_open_finds_nothing(void **state)
{
	struct place *p = *state;
	pthread_t opener;

	kernel_hold(true);
	decode(p, 0, 300 * KiB, 300 * KiB);
	kernel_await_store();
	assert_int_equal(pthread_create(&opener, NULL, open_it, p), 0);
	a_moment();
	kernel_hold(false);
	pthread_join(opener, NULL);
	assert_int_equal(kernel_has(), 0);
	decode(p, 300 * KiB, SIZE, 300 * KiB);
	prefill_end(p->fill, true);
	assert_int_equal(kernel_has(), 0);
}

/* When the mount ends, what was given can't be taken back any more. */
static void test_prefill__at_the_end_no_open_keeps_pages(void **state)
{
	struct place *p = *state;
	pthread_t opener, stopper;
	void *keeps;

	kernel_hold(true);
	decode(p, 0, 300 * KiB, 300 * KiB);
	kernel_await_store();
	assert_int_equal(pthread_create(&opener, NULL, open_it, p), 0);
	a_moment();
	assert_int_equal(pthread_create(&stopper, NULL, stop_it, p), 0);
	a_moment();
	kernel_hold(false);
	pthread_join(opener, &keeps);
	pthread_join(stopper, NULL);
	assert_true(!keeps || kernel_has() == 0);
	decode(p, 300 * KiB, SIZE, 300 * KiB);
	prefill_end(p->fill, true);
	assert_false(prefill_opened(p->prefill, p->node));
}

int main(void)
{
#define PLACE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		PLACE(test_prefill__all_is_there_once_it_serves),
		PLACE(test_prefill__nothing_is_left_where_it_does_not_serve),
		PLACE(test_prefill__begun_again_it_is_given_again),
		PLACE(test_prefill__decoding_goes_on_while_pages_are_made),
		PLACE(test_prefill__decoding_waits_for_pages_far_behind),
		PLACE(test_prefill__what_the_kernel_refuses_ends_it),
		PLACE(test_prefill__another_open_finds_nothing),
		PLACE(test_prefill__at_the_end_no_open_keeps_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* One index made by two threads, and read by several at once, which is all that
 * it allows. In a file of their own, since ThreadSanitizer runs what makes
 * threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka_all.h"

#include "cache/checkpoints.h"
#include "tests/support/archives.h"
#include "tests/support/object.h"
#include "tests/support/spans.h"

static struct archives dir;

static int setup(void **state)
{
	(void)state;
	archives_create(&dir, "csv_like stored");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	archives_remove(&dir);
	return 0;
}

struct decoder {
	struct object *o;
	const unsigned char *plain;
	size_t len;
	uint64_t seed;
	int wrong;
	pthread_t thread;
};

static void *decode_many(void *arg)
{
	struct decoder *d = arg;
	unsigned char *buf = malloc(CHECKPOINTS_SPAN);

	for (int i = 0; buf && i < 50; i++) {
		uint64_t off = archives_random(&d->seed) % d->len, span, start;
		size_t len;

		checkpoints_span_at(d->o->cp, 1, off, &span, &start, &len);
		if (spans_decode(d->o->cp, d->o->fd, 1, span, buf, len) !=
			    (ssize_t)len ||
		    memcmp(buf, d->plain + start, len))
			d->wrong++;
	}
	free(buf);
	return NULL;
}

static void test_index_shared__threads_read_it_at_once(void **state)
{
	unsigned char *plain;
	struct decoder d[4];
	struct object o;
	size_t len;

	(void)state;
	object_load(&o, &dir, "csv");
	plain = archives_read(&dir, "csv.plain", &len);
	for (unsigned int i = 0; i < 4; i++) {
		d[i] = (struct decoder){
			.o = &o, .plain = plain, .len = len, .seed = i};
		assert_int_equal(pthread_create(&d[i].thread, NULL, decode_many,
						&d[i]),
				 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		pthread_join(d[i].thread, NULL);
		assert_int_equal(d[i].wrong, 0);
	}
	free(plain);
	object_close(&o);
}

struct helper {
	struct checkpoints_builder *b;
	atomic_bool ends;
	unsigned int helped;
};

static void *help(void *arg)
{
	struct helper *h = arg;

	while (!atomic_load(&h->ends))
		h->helped += checkpoints_builder_help(h->b);
	return NULL;
}

static void test_index_shared__help_changes_no_index(void **state)
{
	static const char *const names[] = {"csv", "fixed", "stored-blocks"};
	unsigned int helped = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct object o;
		struct helper h = {0};
		pthread_t thread;
		int err;

		object_open(&o, &dir, names[i]);
		assert_int_equal(
			object_build(&o, "index", UINT64_MAX, NULL, NULL), 0);
		assert_int_equal(checkpoints_builder_create(&h.b, dir.dirfd,
							    "helped",
							    o.directory),
				 0);
		object_feed(&o, h.b, o.size);
		assert_int_equal(pthread_create(&thread, NULL, help, &h), 0);
		do
			err = checkpoints_builder_step(h.b, o.fd, o.size, 1,
						       NULL, NULL);
		while (err == 1);
		atomic_store(&h.ends, true);
		pthread_join(thread, NULL);
		helped += h.helped;
		assert_int_equal(err, 0);
		assert_int_equal(checkpoints_builder_finish(h.b, &o.id), 0);
		checkpoints_builder_free(h.b);
		object_assert_same_index(&o, "index", "helped");
		object_close(&o);
	}
	assert_true(helped > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_index_shared__threads_read_it_at_once),
		cmocka_unit_test(test_index_shared__help_changes_no_index),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

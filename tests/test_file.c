/* Open handles. What they must read is what was put into the zip. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "fs/file.h"
#include "tests/support/fs_bench.h"

#define PREFIX "data/spot/daily/klines/BTCUSDT/1m/"
#define NAME   "BTCUSDT-1m-2024-01-01"
#define KEY    PREFIX NAME ".zip"
#define PLAIN  PREFIX "note.txt"

enum { MiB = 1 << 20 };

/* A CSV and its zip, made once: deflating it is most of what a test costs. */
struct made {
	unsigned int rows;
	char *csv;
	void *zip;
	size_t csv_len, zip_len;
};

static struct made several_spans = {.rows = 300000}; /* some 7 MB */
static struct made twice_as_long = {.rows = 600000};

/* A bench with one of them published. */
struct shelf {
	struct fs_bench bench;
	struct pool *pool;
	struct files *files;
	const char *csv; /* of its struct made, as the rest */
	const void *zip;
	size_t csv_len, zip_len;
};

static void make(struct made *made)
{
	struct fs_member m = {.name = NAME ".csv"};

	if (made->zip)
		return;
	made->csv = fs_rows(1, made->rows, &made->csv_len);
	m.data = made->csv;
	m.len = made->csv_len;
	made->zip = fs_zip(&m, 1, &made->zip_len);
}

static int unmake(void **state)
{
	struct made *all[] = {&several_spans, &twice_as_long};

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		free(all[i]->csv);
		free(all[i]->zip);
		all[i]->csv = NULL;
		all[i]->zip = NULL;
	}
	return 0;
}

static int set_up(void **state, struct made *made, size_t pool_bytes)
{
	struct shelf *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	make(made);
	s->csv = made->csv;
	s->csv_len = made->csv_len;
	s->zip = made->zip;
	s->zip_len = made->zip_len;
	fs_begin(&s->bench);
	fs_publish_zip(&s->bench, KEY, s->zip, s->zip_len);
	fs_publish(&s->bench, PLAIN, "a note", 6);
	fs_up(&s->bench, NULL);
	assert_int_equal(pool_create(&s->pool, pool_bytes, 2), 0);
	assert_int_equal(file_table_create(&s->files, s->pool, 2), 0);
	*state = s;
	return 0;
}

static int setup(void **state)
{
	return set_up(state, &several_spans, 8 * MiB);
}

/* In memory 6 spans of it. */
static int setup_tight(void **state)
{
	return set_up(state, &twice_as_long, 6 * CHECKPOINTS_SPAN);
}

static int teardown(void **state)
{
	struct shelf *s = *state;

	pool_free(s->pool);
	file_table_free(s->files);
	fs_end(&s->bench);
	free(s);
	return 0;
}

static struct file *open_stream(struct shelf *s, unsigned int stream)
{
	struct store_object *o;
	struct file *f;

	assert_int_equal(fs_open(&s->bench, KEY, &o), 0);
	assert_int_equal(file_open(s->files, o, stream, 1234, &f), 0);
	return f;
}

/* ---- reading, as a parked request does ---- */

struct reader {
	struct file_waiter waiter;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool called;
	int err;
};

static void on_ready(struct file_waiter *w, int err)
{
	struct reader *r = container_of(w, struct reader, waiter);

	pthread_mutex_lock(&r->lock);
	r->called = true;
	r->err = err == FILE_ASK_AGAIN ? 0 : err;
	pthread_cond_signal(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

static void reader_init(struct reader *r)
{
	*r = (struct reader){.waiter.wake = on_ready};
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
}

static int wait_ready(struct reader *r)
{
	struct timespec until;
	int err;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += FS_PATIENCE_MS / 1000;
	pthread_mutex_lock(&r->lock);
	while (!r->called)
		if (pthread_cond_timedwait(&r->changed, &r->lock, &until))
			abort();
	r->called = false;
	err = r->err;
	pthread_mutex_unlock(&r->lock);
	return err;
}

/* 1 with @bytes pinned, or an error; file_done() is the caller's. */
static int read_pinned(struct file *f, size_t len, uint64_t off,
		       struct file_bytes *bytes)
{
	struct reader r;
	int got;

	reader_init(&r);
	*bytes = (struct file_bytes){0};
	while ((got = file_read(f, len, off, bytes, &r.waiter)) == 0) {
		got = wait_ready(&r);
		if (got)
			break;
	}
	pthread_cond_destroy(&r.changed);
	pthread_mutex_destroy(&r.lock);
	return got;
}

/* ---- reads that wait for each other's memory ---- */

struct begun {
	struct reader r;
	struct file_bytes bytes;
	uint64_t off;
	bool waits; /* for its turn: it will be woken */
};

/* The first read of a MiB from @from on that lies in four spans. */
static uint64_t in_four_spans(const struct checkpoints *cp, uint64_t from)
{
	uint64_t span, start, last, size;
	size_t len;

	assert_int_equal(checkpoints_stream_size(cp, 1, &size), 0);
	for (uint64_t off = from; off + MiB <= size; off += 4096) {
		checkpoints_span_at(cp, 1, off, &span, &start, &len);
		checkpoints_span_at(cp, 1, off + MiB - 1, &last, &start, &len);
		if (last - span == 3)
			return off;
	}
	fail_msg("no such read in %ju bytes", (uintmax_t)size);
	return 0;
}

/* Goes on with a read until it has pinned @spans of them, all, or has to wait
 * for its turn. */
static void go_on(struct file *f, struct begun *b, unsigned int spans)
{
	int got;

	while ((got = file_read(f, MiB, b->off, &b->bytes, &b->r.waiter)) ==
	       0) {
		b->waits = !b->bytes.turn;
		if (b->waits)
			return;
		assert_int_equal(wait_ready(&b->r), 0);
		if (b->bytes.spans >= spans)
			return;
	}
	assert_int_equal(got, 1);
}

/* And to its end. */
static void end_read(struct shelf *s, struct file *f, struct begun *b)
{
	uint64_t off = b->off;

	if (b->waits)
		assert_int_equal(wait_ready(&b->r), 0);
	go_on(f, b, UINT_MAX);
	for (unsigned int i = 0; i < b->bytes.n; i++) {
		assert_memory_equal(b->bytes.part[i].data, s->csv + off,
				    b->bytes.part[i].len);
		off += b->bytes.part[i].len;
	}
	assert_int_equal(off, b->off + MiB);
	file_done(&b->bytes, true);
}

/* Of 6 slots each would hold 3, and wait for a fourth for ever. */
static void test_file__reads_of_four_spans_do_not_lock_each_other(void **state)
{
	struct shelf *s = *state;
	struct file *f = open_stream(s, 1);
	struct store_object *o = file_object(f);
	struct begun a = {0}, b = {0};
	struct pool_stats before, after;

	a.off = in_four_spans(store_object_index(o), 0);
	b.off = in_four_spans(store_object_index(o), a.off + MiB);
	store_release(o);
	reader_init(&a.r);
	reader_init(&b.r);
	go_on(f, &a, 3);
	assert_int_equal(a.bytes.spans, 3);
	pool_stats(s->pool, &before);
	go_on(f, &b, 3);
	assert_true(b.waits);
	/* And until its turn comes nothing is decoded for it. */
	pool_stats(s->pool, &after);
	assert_int_equal(after.decodes, before.decodes);
	end_read(s, f, &a);
	end_read(s, f, &b);
	file_close(f);
}

/* Returns the bytes read, or an error. */
static ssize_t read_at(struct file *f, char *buf, size_t len, uint64_t off)
{
	struct file_bytes bytes;
	ssize_t n = 0;
	int r = read_pinned(f, len, off, &bytes);

	for (unsigned int i = 0; r == 1 && i < bytes.n; i++) {
		memcpy(buf + n, bytes.part[i].data, bytes.part[i].len);
		n += (ssize_t)bytes.part[i].len;
	}
	file_done(&bytes, false);
	return r == 1 ? n : r;
}

static void assert_reads(struct file *f, const void *data, size_t size,
			 size_t len, uint64_t off)
{
	size_t expected = off >= size ? 0 : len < size - off ? len : size - off;
	char *buf = malloc(len + 1);

	assert_non_null(buf);
	assert_int_equal(read_at(f, buf, len, off), expected);
	if (expected)
		assert_memory_equal(buf, (const char *)data + off, expected);
	free(buf);
}

/* ---- text ---- */

static void test_file__text_is_a_copy(void **state)
{
	struct shelf *s = *state;
	char text[] = "0123456789";
	struct file *f;

	assert_int_equal(file_open_text(s->files, text, 10, 77, &f), 0);
	memset(text, 'x', 10);
	assert_int_equal(file_size(f), 10);
	assert_int_equal(file_mtime(f), 77);
	assert_null(file_object(f));
	assert_reads(f, "0123456789", 10, 4, 3);
	assert_reads(f, "0123456789", 10, 100, 8);
	assert_reads(f, "0123456789", 10, 5, 10);
	assert_reads(f, "0123456789", 10, 5, UINT64_MAX);
	assert_reads(f, "0123456789", 10, 0, 0);
	file_close(f);
}

static void test_file__empty_text_is_empty(void **state)
{
	struct shelf *s = *state;
	struct file *f;

	assert_int_equal(file_open_text(s->files, NULL, 0, -1, &f), 0);
	assert_int_equal(file_size(f), 0);
	assert_reads(f, "", 0, 10, 0);
	file_close(f);
	file_close(NULL);
}

/* The kernel may release a handle as soon as it has its answer. */
static void test_file__bytes_outlive_the_handle(void **state)
{
	struct shelf *s = *state;
	struct file_bytes text, span;
	struct file *f;

	assert_int_equal(file_open_text(s->files, "0123456789", 10, -1, &f), 0);
	assert_int_equal(read_pinned(f, 10, 0, &text), 1);
	file_close(f);
	assert_memory_equal(text.part[0].data, "0123456789", 10);
	file_done(&text, false);

	f = open_stream(s, 1);
	assert_int_equal(read_pinned(f, 1000, 5000, &span), 1);
	file_close(f);
	assert_memory_equal(span.part[0].data, s->csv + 5000, 1000);
	file_done(&span, false);
}

/* ---- objects ---- */

static void test_file__small_object_is_read_from_memory(void **state)
{
	struct shelf *s = *state;
	struct store_object *o;
	struct file *f;

	assert_int_equal(fs_open(&s->bench, PLAIN, &o), 0);
	assert_int_equal(file_open(s->files, o, 0, 5, &f), 0);
	assert_int_equal(file_size(f), 6);
	assert_int_equal(file_mtime(f), 5);
	assert_null(file_object(f));
	assert_reads(f, "a note", 6, 100, 2);
	file_close(f);
}

static void test_file__stream_is_as_published(void **state)
{
	struct shelf *s = *state;
	struct file *csv = open_stream(s, 1), *zip = open_stream(s, 0);

	assert_int_equal(file_size(csv), s->csv_len);
	assert_int_equal(file_size(zip), s->zip_len);
	assert_int_equal(file_mtime(csv), 1234);
	for (uint64_t off = 0; off < s->csv_len + 131072; off += 131072)
		assert_reads(csv, s->csv, s->csv_len, 131072, off);
	for (uint64_t off = 0; off < s->zip_len; off += 131072)
		assert_reads(zip, s->zip, s->zip_len, 131072, off);
	file_close(csv);
	file_close(zip);
}

static void test_file__any_offset_in_any_order(void **state)
{
	struct shelf *s = *state;
	struct file *f = open_stream(s, 1);
	uint64_t x = 1;

	for (int i = 0; i < 300; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		assert_reads(f, s->csv, s->csv_len, 1 + (x >> 45),
			     (x >> 20) % (s->csv_len + 1000));
	}
	/* around the ends of spans */
	for (uint64_t end = MiB; end < s->csv_len; end += MiB) {
		assert_reads(f, s->csv, s->csv_len, 2, end - 1);
		assert_reads(f, s->csv, s->csv_len, MiB, end - 5);
	}
	file_close(f);
}

static void test_file__streams_that_are_none(void **state)
{
	struct shelf *s = *state;
	struct pool_stats st;
	struct store_object *o;
	struct file *f;

	assert_int_equal(fs_open(&s->bench, KEY, &o), 0);
	assert_int_equal(file_open(s->files, o, 2, -1, &f), -ENOENT);
	assert_int_equal(fs_open(&s->bench, KEY, &o), 0);
	assert_int_equal(file_open(s->files, o, UINT32_MAX, -1, &f), -ENOENT);
	pool_stats(s->pool, &st);
	assert_int_equal(st.pinned, 0);
}

static void test_file__without_a_waiter_it_does_not_wait(void **state)
{
	struct shelf *s = *state;
	struct file *f = open_stream(s, 1);
	struct file_bytes bytes = {0};

	assert_int_equal(file_read(f, 100, 0, &bytes, NULL), -EAGAIN);
	file_done(&bytes, false);
	/* It is decoded nevertheless. */
	assert_reads(f, s->csv, s->csv_len, 100, 0);
	bytes = (struct file_bytes){0};
	assert_int_equal(file_read(f, 100, 0, &bytes, NULL), 1);
	file_done(&bytes, false);
	file_close(f);
}

static void test_file__handles_share_what_is_decoded(void **state)
{
	struct shelf *s = *state;
	struct file *a = open_stream(s, 1), *b = open_stream(s, 1);
	struct pool_stats before, after;

	assert_reads(a, s->csv, s->csv_len, 100, 0);
	pool_stats(s->pool, &before);
	assert_reads(b, s->csv, s->csv_len, 100, 200);
	file_close(a);
	assert_reads(b, s->csv, s->csv_len, 100, 400);
	pool_stats(s->pool, &after);
	assert_int_equal(after.decodes, before.decodes);
	assert_int_equal(after.hits, before.hits + 2);
	file_close(b);
}

static bool none_pinned(void *pool)
{
	struct pool_stats st;

	pool_stats(pool, &st);
	return st.pinned == 0;
}

static bool none_used(void *pool)
{
	struct pool_stats st;

	pool_stats(pool, &st);
	return st.used == 0;
}

/* Stays: a worker of the pool has a pin of its own for as long as it tells
 * those who wait, and may not be back from telling us. */
static void test_file__nothing_stays_pinned(void **state)
{
	struct shelf *s = *state;
	struct file *f = open_stream(s, 1);

	for (uint64_t off = 0; off < s->csv_len; off += 131072)
		assert_reads(f, s->csv, s->csv_len, 131072, off);
	fs_eventually(none_pinned, s->pool);
	file_close(f);
	fs_eventually(none_used, s->pool);
}

static bool some_ahead(void *pool)
{
	struct pool_stats st;

	pool_stats(pool, &st);
	return st.ahead > 0;
}

/* Without waiting where others have it, or nothing of it is being decoded. */
static void test_file__a_handle_is_closed_at_once_if_it_can_be(void **state)
{
	struct shelf *s = *state;
	struct file *a = open_stream(s, 1), *b = open_stream(s, 1);
	struct file_bytes bytes = {0};

	assert_true(file_try_close(b));
	assert_reads(a, s->csv, s->csv_len, 4096, 0);
	fs_eventually(none_pinned, s->pool);
	assert_reads(a, s->csv, s->csv_len, 4096, 3 * MiB);
	fs_eventually(none_pinned, s->pool);
	/* Two spans are there: to be given back by somebody who may wait. */
	assert_false(file_try_close(a));
	assert_reads(a, s->csv, s->csv_len, 4096, 0);
	file_close(a);
	fs_eventually(none_used, s->pool);
	a = open_stream(s, 1);
	assert_reads(a, s->csv, s->csv_len, 4096, 0);
	fs_eventually(none_pinned, s->pool);
	/* A span is queued or being decoded. */
	assert_int_equal(file_read(a, 4096, 5 * MiB, &bytes, NULL), -EAGAIN);
	file_done(&bytes, false);
	assert_false(file_try_close(a));
	file_close(a);
	fs_eventually(none_used, s->pool);
	assert_true(file_try_close(open_stream(s, 1)));
}

/* Only readers that go on where they were: not every look into a file. */
static void test_file__reads_ahead_of_sequential_readers(void **state)
{
	struct shelf *s = *state;
	struct file *f = open_stream(s, 1);

	assert_reads(f, s->csv, s->csv_len, 4096, 0);
	assert_reads(f, s->csv, s->csv_len, 4096, 3 * MiB);
	assert_reads(f, s->csv, s->csv_len, 4096, 0);
	assert_false(some_ahead(s->pool));
	/* A hint: a worker takes it up when it comes to it. */
	for (uint64_t off = 0; off <= ACCESS_STREAK_BYTES; off += 131072)
		assert_reads(f, s->csv, s->csv_len, 131072, off);
	fs_eventually(some_ahead, s->pool);
	file_close(f);
}

struct crowd {
	struct shelf *s;
	struct file *f;
	unsigned int seed;
	int wrong;
};

static void *read_much(void *arg)
{
	struct crowd *c = arg;
	uint64_t x = c->seed;
	char *buf = malloc(200000);

	for (int i = 0; buf && i < 60; i++) {
		size_t len;
		uint64_t off;

		x = x * 6364136223846793005u + 1442695040888963407u;
		len = 1 + (x >> 40) % 131072;
		off = (x >> 20) % (c->s->csv_len - 131072);
		if (read_at(c->f, buf, len, off) != (ssize_t)len ||
		    memcmp(buf, c->s->csv + off, len) != 0)
			c->wrong++;
	}
	free(buf);
	return NULL;
}

static void test_file__many_threads_read_one_handle(void **state)
{
	struct shelf *s = *state;
	struct file *f = open_stream(s, 1);
	struct crowd crowd[6];
	pthread_t threads[6];

	for (unsigned int i = 0; i < 6; i++) {
		crowd[i] = (struct crowd){.s = s, .f = f, .seed = i + 1};
		assert_int_equal(pthread_create(&threads[i], NULL, read_much,
						&crowd[i]),
				 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(crowd[i].wrong, 0);
	}
	file_close(f);
}

/* ---- damage ---- */

static void test_file__damage_is_never_read(void **state)
{
	struct shelf *s = *state;
	struct store_object *o, *healed;
	struct file *f = open_stream(s, 1), *other = open_stream(s, 1);
	char buf[100];

	fs_damage(&s->bench, "objects/" KEY, 5000, "damage", 6);
	assert_int_equal(read_at(f, buf, 100, 0), -EBADMSG);
	o = file_object(f);
	assert_non_null(o);
	assert_int_equal(fs_heal(&s->bench, o, &healed), 0);
	assert_int_equal(file_replace(f, store_ref(healed)), 0);
	assert_reads(f, s->csv, s->csv_len, 131072, 0);
	/* The other handle has the damaged object still. */
	assert_int_equal(read_at(other, buf, 100, 0), -EBADMSG);
	assert_int_equal(file_replace(other, healed), 0);
	assert_reads(other, s->csv, s->csv_len, 131072, 0);
	store_release(o);
	file_close(f);
	file_close(other);
}

/* Of another length, or none at all, it is not the same version. */
static void test_file__only_the_same_size_takes_its_place(void **state)
{
	struct shelf *s = *state;
	struct store_object *o;
	struct file *f = open_stream(s, 1);

	fs_publish_csv(&s->bench, PREFIX "other.zip", "1,2\n", 4);
	assert_int_equal(fs_open(&s->bench, PREFIX "other.zip", &o), 0);
	assert_int_equal(file_replace(f, o), -EBADMSG);
	assert_int_equal(fs_open(&s->bench, PLAIN, &o), 0);
	assert_int_equal(file_replace(f, o), -EBADMSG);
	assert_reads(f, s->csv, s->csv_len, 100, 0);
	file_close(f);
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_file__text_is_a_copy),
		BENCH(test_file__empty_text_is_empty),
		BENCH(test_file__bytes_outlive_the_handle),
		BENCH(test_file__small_object_is_read_from_memory),
		BENCH(test_file__stream_is_as_published),
		BENCH(test_file__any_offset_in_any_order),
		BENCH(test_file__streams_that_are_none),
		BENCH(test_file__without_a_waiter_it_does_not_wait),
		BENCH(test_file__handles_share_what_is_decoded),
		BENCH(test_file__nothing_stays_pinned),
		BENCH(test_file__a_handle_is_closed_at_once_if_it_can_be),
		BENCH(test_file__reads_ahead_of_sequential_readers),
		BENCH(test_file__many_threads_read_one_handle),
		BENCH(test_file__damage_is_never_read),
		BENCH(test_file__only_the_same_size_takes_its_place),
		cmocka_unit_test_setup_teardown(
			test_file__reads_of_four_spans_do_not_lock_each_other,
			setup_tight, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, unmake);
}

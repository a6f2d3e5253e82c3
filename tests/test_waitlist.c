#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/waitlist.h"
#include "fs/workers.h"

enum { MANY = 8 };

struct guest {
	struct waiter waiter;
	int woken, result;
	int *next_place; /* in the order of waking */
	int place;
};

static void on_wake(struct waiter *w)
{
	struct guest *g = container_of(w, struct guest, waiter);

	g->woken++;
	g->result = w->result;
	if (g->next_place)
		g->place = (*g->next_place)++;
}

static struct guest guest(void)
{
	return (struct guest){.waiter.wake = on_wake};
}

static void test_waitlist__wakes_in_the_order_they_came(void **state)
{
	struct waitlist l = {0};
	struct guest g[MANY];
	int next = 0;

	(void)state;
	for (int i = 0; i < MANY; i++) {
		g[i] = guest();
		g[i].next_place = &next;
		waitlist_add(&l, &g[i].waiter);
	}
	assert_int_equal(next, 0);
	waitlist_wake(&l, -ETIMEDOUT);
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(g[i].place, i);
		assert_int_equal(g[i].woken, 1);
		assert_int_equal(g[i].result, -ETIMEDOUT);
	}
}

static void test_waitlist__knows_when_nobody_is_on_it(void **state)
{
	struct waitlist l = {0};
	struct guest a = guest(), b = guest();

	(void)state;
	assert_true(waitlist_empty(&l));
	waitlist_add(&l, &a.waiter);
	waitlist_add(&l, &b.waiter);
	waitlist_cancel(&a.waiter);
	assert_false(waitlist_empty(&l));
	waitlist_cancel(&b.waiter);
	assert_true(waitlist_empty(&l));
	waitlist_add(&l, &(struct guest){.waiter.wake = on_wake}.waiter);
	waitlist_wake(&l, 0);
	assert_true(waitlist_empty(&l));
}

static void test_waitlist__woken_once_for_each_wait(void **state)
{
	struct waitlist l = {0};
	struct guest g = guest();

	(void)state;
	waitlist_wake(&l, 0);
	waitlist_add(&l, &g.waiter);
	waitlist_wake(&l, -EIO);
	waitlist_wake(&l, 0);
	assert_int_equal(g.woken, 1);
	assert_int_equal(g.result, -EIO);
	waitlist_add(&l, &g.waiter);
	waitlist_wake(&l, 0);
	assert_int_equal(g.woken, 2);
	assert_int_equal(g.result, 0);
}

static void test_waitlist__cancel_takes_out_of_any_place(void **state)
{
	(void)state;
	for (int gone = 0; gone < 3; gone++) {
		struct waitlist l = {0};
		struct guest g[3];
		int next = 0;

		for (int i = 0; i < 3; i++) {
			g[i] = guest();
			g[i].next_place = &next;
			waitlist_add(&l, &g[i].waiter);
		}
		waitlist_cancel(&g[gone].waiter);
		assert_int_equal(next, 1);
		assert_int_equal(g[gone].result, -EINTR);
		waitlist_wake(&l, 0);
		for (int i = 0; i < 3; i++)
			assert_int_equal(g[i].woken, 1);
		/* the two that are left, as they came */
		assert_int_equal(g[gone == 0 ? 1 : 0].place, 1);
		assert_int_equal(g[gone == 2 ? 1 : 2].place, 2);
	}
}

static void test_waitlist__cancelled_before_it_waits(void **state)
{
	struct waitlist l = {0};
	struct guest g = guest();

	(void)state;
	waitlist_cancel(&g.waiter);
	assert_int_equal(g.woken, 0);
	waitlist_add(&l, &g.waiter);
	assert_int_equal(g.woken, 1);
	assert_int_equal(g.result, -EINTR);
	assert_true(waitlist_empty(&l));
	/* and from then on always */
	waitlist_add(&l, &g.waiter);
	assert_int_equal(g.woken, 2);
}

static void test_waitlist__cancel_after_waking_changes_nothing(void **state)
{
	struct waitlist l = {0};
	struct guest g = guest();

	(void)state;
	waitlist_add(&l, &g.waiter);
	waitlist_wake(&l, 0);
	waitlist_cancel(&g.waiter);
	assert_int_equal(g.woken, 1);
	assert_int_equal(g.result, 0);
	assert_true(g.waiter.cancelled);
}

struct returning {
	struct waiter waiter;
	struct waitlist *l;
	int woken;
};

static void wait_again(struct waiter *w)
{
	struct returning *r = container_of(w, struct returning, waiter);

	if (++r->woken < 3)
		waitlist_add(r->l, w);
}

/* Who waits again from inside of wake() waits for the next waking. */
static void test_waitlist__may_wait_again_at_once(void **state)
{
	struct waitlist l = {0};
	struct returning r = {.waiter.wake = wait_again, .l = &l};
	struct guest after = guest();

	(void)state;
	waitlist_add(&l, &r.waiter);
	waitlist_add(&l, &after.waiter);
	waitlist_wake(&l, 0);
	assert_int_equal(r.woken, 1);
	assert_int_equal(after.woken, 1);
	assert_false(waitlist_empty(&l));
	waitlist_wake(&l, 0);
	waitlist_wake(&l, 0);
	waitlist_wake(&l, 0);
	assert_int_equal(r.woken, 3);
}

static void free_waiter(struct waiter *w)
{
	free(w);
}

/* A waiter may be gone once it was woken: sanitizers tell. */
static void test_waitlist__waiter_may_free_itself(void **state)
{
	struct waitlist l = {0};
	struct waiter *w;

	(void)state;
	for (int i = 0; i < 3; i++) {
		w = calloc(1, sizeof(*w));
		assert_non_null(w);
		w->wake = free_waiter;
		waitlist_add(&l, w);
		if (i == 1)
			waitlist_cancel(w);
	}
	waitlist_wake(&l, 0);
	assert_true(waitlist_empty(&l));
}

/* ---- from many threads ---- */

enum { ROUNDS = 2000, WAITERS = 4 };

struct racer {
	struct waiter waiter;
	_Atomic int woken;
};

struct race {
	struct waitlist l;
	struct racer racers[WAITERS];
	pthread_barrier_t start, end;
};

static void count(struct waiter *w)
{
	atomic_fetch_add(&container_of(w, struct racer, waiter)->woken, 1);
}

static void *wake_all(void *arg)
{
	struct race *r = arg;

	for (int i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(&r->start);
		waitlist_wake(&r->l, 0);
		pthread_barrier_wait(&r->end);
	}
	return NULL;
}

static void *cancel_all(void *arg)
{
	struct race *r = arg;

	for (int i = 0; i < ROUNDS; i++) {
		pthread_barrier_wait(&r->start);
		for (int k = 0; k < WAITERS; k++)
			waitlist_cancel(&r->racers[k].waiter);
		pthread_barrier_wait(&r->end);
	}
	return NULL;
}

/* Adding, waking and cancelling at once: each is woken exactly once. */
static void test_waitlist__nobody_is_woken_twice_or_never(void **state)
{
	struct race r = {0};
	pthread_t waker, canceller;

	(void)state;
	pthread_barrier_init(&r.start, NULL, 3);
	pthread_barrier_init(&r.end, NULL, 3);
	assert_int_equal(pthread_create(&waker, NULL, wake_all, &r), 0);
	assert_int_equal(pthread_create(&canceller, NULL, cancel_all, &r), 0);
	for (int i = 0; i < ROUNDS; i++) {
		for (int k = 0; k < WAITERS; k++) {
			r.racers[k].waiter = (struct waiter){.wake = count};
			atomic_store(&r.racers[k].woken, 0);
			if (k % 2)
				waitlist_add(&r.l, &r.racers[k].waiter);
		}
		pthread_barrier_wait(&r.start);
		for (int k = 0; k < WAITERS; k += 2)
			waitlist_add(&r.l, &r.racers[k].waiter);
		pthread_barrier_wait(&r.end);
		/* Both have been through: whom neither found, the cancelling
		 * caught when it came. */
		for (int k = 0; k < WAITERS; k++)
			assert_int_equal(atomic_load(&r.racers[k].woken), 1);
		assert_true(waitlist_empty(&r.l));
	}
	pthread_join(waker, NULL);
	pthread_join(canceller, NULL);
	pthread_barrier_destroy(&r.start);
	pthread_barrier_destroy(&r.end);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waitlist__wakes_in_the_order_they_came),
		cmocka_unit_test(test_waitlist__knows_when_nobody_is_on_it),
		cmocka_unit_test(test_waitlist__woken_once_for_each_wait),
		cmocka_unit_test(test_waitlist__cancel_takes_out_of_any_place),
		cmocka_unit_test(test_waitlist__cancelled_before_it_waits),
		cmocka_unit_test(
			test_waitlist__cancel_after_waking_changes_nothing),
		cmocka_unit_test(test_waitlist__may_wait_again_at_once),
		cmocka_unit_test(test_waitlist__waiter_may_free_itself),
		cmocka_unit_test(test_waitlist__nobody_is_woken_twice_or_never),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

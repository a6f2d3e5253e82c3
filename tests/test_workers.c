#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/workers.h"

enum { MANY = 1000 };

/* Holds a worker until it is opened. */
struct gate {
	struct work work;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int here; /* protected by lock */
	bool open;
};

static void stand(struct work *work)
{
	struct gate *g = container_of(work, struct gate, work);

	pthread_mutex_lock(&g->lock);
	g->here++;
	pthread_cond_broadcast(&g->changed);
	while (!g->open)
		pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_init(struct gate *g)
{
	*g = (struct gate){.work.run = stand};
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->changed, NULL);
}

static void gate_wait_for_one(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	while (!g->here)
		pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->open = true;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

static void gate_fini(struct gate *g)
{
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
}

struct job {
	struct work work;
	_Atomic int *done;
	int place;
};

static void take_place(struct work *work)
{
	struct job *j = container_of(work, struct job, work);

	j->place = atomic_fetch_add(j->done, 1);
}

static void test_workers__first_come_first_served(void **state)
{
	static struct job jobs[MANY];
	struct workers *w;
	struct gate gate;
	_Atomic int done = 0;

	(void)state;
	gate_init(&gate);
	assert_int_equal(workers_create(&w, 1, "one"), 0);
	workers_submit(w, &gate.work);
	gate_wait_for_one(&gate);
	for (int i = 0; i < MANY; i++) {
		jobs[i] = (struct job){.work.run = take_place, .done = &done};
		workers_submit(w, &jobs[i].work);
	}
	assert_int_equal(atomic_load(&done), 0);
	gate_open(&gate);
	workers_free(w);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(jobs[i].place, i);
	gate_fini(&gate);
}

static void test_workers__free_runs_what_is_queued(void **state)
{
	static struct job jobs[MANY];
	struct workers *w;
	_Atomic int done = 0;

	(void)state;
	assert_int_equal(workers_create(&w, 4, "four"), 0);
	for (int i = 0; i < MANY; i++) {
		jobs[i] = (struct job){.work.run = take_place, .done = &done};
		workers_submit(w, &jobs[i].work);
	}
	workers_free(w);
	assert_int_equal(atomic_load(&done), MANY);
}

/* Hands itself to the other pool and back until it has run often enough. */
struct ball {
	struct work work;
	struct workers *to[2];
	_Atomic int runs;
	int until;
};

static void bounce(struct work *work)
{
	struct ball *b = container_of(work, struct ball, work);
	int runs = atomic_fetch_add(&b->runs, 1) + 1;

	if (runs < b->until)
		workers_submit(b->to[runs % 2], work);
}

static void test_workers__free_runs_what_that_queues_in_turn(void **state)
{
	struct workers *w;
	struct ball b = {.work.run = bounce, .until = MANY};

	(void)state;
	assert_int_equal(workers_create(&w, 3, "three"), 0);
	b.to[0] = b.to[1] = w;
	workers_submit(w, &b.work);
	workers_free(w);
	assert_int_equal(b.runs, MANY);
}

static void test_workers__drain_waits_for_two_that_feed_each_other(void **state)
{
	struct workers *a, *b;
	struct ball balls[3];

	(void)state;
	assert_int_equal(workers_create(&a, 2, "a"), 0);
	assert_int_equal(workers_create(&b, 2, "b"), 0);
	for (int i = 0; i < 3; i++) {
		balls[i] = (struct ball){
			.work.run = bounce, .to = {a, b}, .until = MANY + i};
		workers_submit(i == 1 ? b : a, &balls[i].work);
	}
	workers_drain((struct workers *[]){a, b}, 2);
	for (int i = 0; i < 3; i++)
		assert_int_equal(atomic_load(&balls[i].runs), MANY + i);
	workers_drain((struct workers *[]){a, b}, 2);
	workers_free(a);
	workers_free(b);
}

static void test_workers__one_that_stands_does_not_hold_others(void **state)
{
	struct workers *w, *none;
	struct gate gate;
	_Atomic int done = 0;
	struct job job = {.work.run = take_place, .done = &done};

	(void)state;
	gate_init(&gate);
	assert_int_equal(workers_create(&w, 2, "two"), 0);
	assert_int_equal(workers_create(&none, 1, "none"), 0);
	workers_submit(w, &gate.work);
	gate_wait_for_one(&gate);
	workers_submit(w, &job.work);
	while (!atomic_load(&done))
		sched_yield();
	gate_open(&gate);
	workers_drain((struct workers *[]){w, none}, 2);
	workers_free(w);
	workers_free(none);
	gate_fini(&gate);
}

struct look {
	struct work work;
	char name[16];
	sigset_t mask;
};

static void look(struct work *work)
{
	struct look *l = container_of(work, struct look, work);

	pthread_getname_np(pthread_self(), l->name, sizeof(l->name));
	pthread_sigmask(SIG_SETMASK, NULL, &l->mask);
}

/* Signals are for the FUSE loop, or it would not wake for them. */
static void test_workers__threads_are_named_and_take_no_signals(void **state)
{
	struct workers *w;
	struct look l = {.work.run = look};
	sigset_t mine;

	(void)state;
	assert_int_equal(workers_create(&w, 1, "tickfs-quick"), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &mine);
	assert_false(sigismember(&mine, SIGTERM));
	workers_submit(w, &l.work);
	workers_free(w);
	assert_true(sigismember(&l.mask, SIGTERM));
	assert_true(sigismember(&l.mask, SIGINT));
	assert_true(sigismember(&l.mask, SIGHUP));
	assert_string_equal(l.name, "tickfs-quick");
}

static void test_workers__free_of_none_does_nothing(void **state)
{
	(void)state;
	workers_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_workers__first_come_first_served),
		cmocka_unit_test(test_workers__free_runs_what_is_queued),
		cmocka_unit_test(
			test_workers__free_runs_what_that_queues_in_turn),
		cmocka_unit_test(
			test_workers__drain_waits_for_two_that_feed_each_other),
		cmocka_unit_test(
			test_workers__one_that_stands_does_not_hold_others),
		cmocka_unit_test(
			test_workers__threads_are_named_and_take_no_signals),
		cmocka_unit_test(test_workers__free_of_none_does_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

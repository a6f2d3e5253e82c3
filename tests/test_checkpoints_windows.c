/* Windows made small by two threads, where one of them has a job in hand as
 * long as the test wants: resume_drop_unused() is replaced here. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "cache/checkpoints_windows.h"

/* ---- a job that takes its time ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t held; /* the job whose span begins here waits; 0: none */
	bool waits;
	unsigned int begun; /* jobs */
} hold = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};

bool __wrap_resume_drop_unused(struct resume_point *p, const unsigned char *raw,
			       size_t raw_len, const unsigned char *out,
			       size_t out_len, struct resume_room *room);

bool __wrap_resume_drop_unused(struct resume_point *p, const unsigned char *raw,
			       size_t raw_len, const unsigned char *out,
			       size_t out_len, struct resume_room *room)
{
	(void)raw;
	(void)raw_len;
	(void)out;
	(void)out_len;
	(void)room;
	pthread_mutex_lock(&hold.lock);
	hold.begun++;
	pthread_cond_broadcast(&hold.changed);
	while (hold.held && hold.held == p->zoff) {
		hold.waits = true;
		pthread_cond_broadcast(&hold.changed);
		pthread_cond_wait(&hold.changed, &hold.lock);
	}
	pthread_mutex_unlock(&hold.lock);
	return false; /* the window stays whole */
}

static void hold_job(uint64_t number)
{
	pthread_mutex_lock(&hold.lock);
	hold.held = number;
	hold.waits = false;
	pthread_cond_broadcast(&hold.changed);
	pthread_mutex_unlock(&hold.lock);
}

static void await_held(void)
{
	pthread_mutex_lock(&hold.lock);
	while (!hold.waits)
		pthread_cond_wait(&hold.changed, &hold.lock);
	pthread_mutex_unlock(&hold.lock);
}

static void await_begun(unsigned int jobs)
{
	pthread_mutex_lock(&hold.lock);
	while (hold.begun < jobs)
		pthread_cond_wait(&hold.changed, &hold.lock);
	pthread_mutex_unlock(&hold.lock);
}

/* ---- the ring ---- */

static int setup(void **state)
{
	struct checkpoints_windows *w;

	hold_job(0);
	hold.begun = 0;
	if (checkpoints_windows_create(&w))
		return -1;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	checkpoints_windows_free(*state);
	return 0;
}

/* False where the ring is full. */
static bool put(struct checkpoints_windows *w, uint64_t number)
{
	struct checkpoints_window *job = checkpoints_windows_next(w);

	if (!job)
		return false;
	job->point.zoff = number;
	job->point.window_len = RESUME_WINDOW;
	memset(job->point.window, (int)number, RESUME_WINDOW);
	checkpoints_windows_put(w);
	return true;
}

/* The number of the first that is done, which is taken out; 0 for none. */
static uint64_t take(struct checkpoints_windows *w, bool of_all)
{
	struct checkpoints_window *job = checkpoints_windows_first(w, of_all);
	uint64_t number = 0;

	if (job) {
		number = job->point.zoff;
		assert_true(job->deflated_len > 0);
		checkpoints_windows_pop(w);
	}
	return number;
}

static void *help(void *w)
{
	while (checkpoints_windows_help(w))
		;
	return NULL;
}

/* A thread that helps, with job @number in hand. */
static pthread_t begin_help(struct checkpoints_windows *w, uint64_t number)
{
	pthread_t thread;

	hold_job(number);
	assert_int_equal(pthread_create(&thread, NULL, help, w), 0);
	await_held();
	return thread;
}

static void a_moment(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
}

static void test_checkpoints_windows__alone_all_is_done_in_order(void **state)
{
	uint64_t n = 0;

	while (put(*state, n + 1))
		n++;
	assert_int_equal(n, CHECKPOINTS_WINDOWS);
	assert_int_equal(take(*state, false), 0);
	for (uint64_t i = 1; i <= n; i++) {
		assert_int_equal(take(*state, true), i);
		assert_true(put(*state, n + i)); /* once round */
	}
	for (uint64_t i = 1; i <= n; i++)
		assert_int_equal(take(*state, true), n + i);
	assert_int_equal(take(*state, true), 0);
	assert_false(checkpoints_windows_help(*state));
}

static void test_checkpoints_windows__what_is_done_waits_its_turn(void **state)
{
	pthread_t helper;

	for (uint64_t i = 1; i <= 3; i++)
		assert_true(put(*state, i));
	helper = begin_help(*state, 1);
	assert_int_equal(take(*state, false), 0);
	hold_job(0);
	pthread_join(helper, NULL);
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(take(*state, false), i);
}

struct taker {
	struct checkpoints_windows *w;
	uint64_t got;
};

static void *take_one(void *arg)
{
	struct taker *t = arg;

	t->got = take(t->w, true);
	return NULL;
}

static void test_checkpoints_windows__the_pass_waits_for_one_job(void **state)
{
	struct taker taker = {.w = *state};
	pthread_t helper, pass;

	for (uint64_t i = 1; i <= 3; i++)
		assert_true(put(*state, i));
	helper = begin_help(*state, 1);
	assert_int_equal(pthread_create(&pass, NULL, take_one, &taker), 0);
	/* Meanwhile it does the others. */
	await_begun(3);
	hold_job(0);
	pthread_join(pass, NULL);
	pthread_join(helper, NULL);
	assert_int_equal(taker.got, 1);
	assert_int_equal(take(*state, false), 2);
	assert_int_equal(take(*state, false), 3);
}

struct clearer {
	struct checkpoints_windows *w;
	atomic_bool done;
};

static void *clear(void *arg)
{
	struct clearer *c = arg;

	checkpoints_windows_clear(c->w);
	atomic_store(&c->done, true);
	return NULL;
}

static void test_checkpoints_windows__a_job_in_hand_is_waited_for(void **state)
{
	struct clearer clearer = {.w = *state};
	pthread_t helper, pass;

	assert_true(put(*state, 1));
	assert_true(put(*state, 2));
	helper = begin_help(*state, 1);
	assert_int_equal(pthread_create(&pass, NULL, clear, &clearer), 0);
	a_moment();
	assert_false(atomic_load(&clearer.done));
	hold_job(0);
	pthread_join(pass, NULL);
	pthread_join(helper, NULL);
	assert_int_equal(take(*state, true), 0);
	assert_true(put(*state, 3));
	assert_int_equal(take(*state, true), 3);
}

int main(void)
{
#define RING(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		RING(test_checkpoints_windows__alone_all_is_done_in_order),
		RING(test_checkpoints_windows__what_is_done_waits_its_turn),
		RING(test_checkpoints_windows__the_pass_waits_for_one_job),
		RING(test_checkpoints_windows__a_job_in_hand_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

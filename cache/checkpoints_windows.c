#include "cache/checkpoints_windows.h"

#include <assert.h>
#include <errno.h>
#include <isa-l.h>
#include <pthread.h>
#include <stdlib.h>

/* What a thread needs to do a job. */
struct tools {
	struct resume_room room;
	/* ISA-L 2.30 sets its 16-bit entries by wmemset(3), which at an odd
	 * address swaps their bytes: matches from before the window. */
	_Alignas(64) unsigned char level_buf[ISAL_DEF_LVL1_MEDIUM];
};

struct checkpoints_windows {
	struct tools own, others; /* of the pass, of who helps */
	pthread_mutex_t lock;
	pthread_cond_t done;
	size_t first, n; /* protected by lock, and so are the states */
	/* A job is its filler's until it is put, of who made it busy until it
	 * is done, and then of the pass. */
	struct checkpoints_window ring[CHECKPOINTS_WINDOWS];
};

int checkpoints_windows_create(struct checkpoints_windows **out)
{
	struct checkpoints_windows *w;

	/* Little of it is touched before there is a window. */
	w = aligned_alloc(64, (sizeof(*w) + 63) / 64 * 64);
	if (!w)
		return -ENOMEM;
	w->first = w->n = 0;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->done, NULL);
	*out = w;
	return 0;
}

void checkpoints_windows_free(struct checkpoints_windows *w)
{
	if (!w)
		return;
	pthread_cond_destroy(&w->done);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/*
 * Compresses the window; 0 if it does not fit, which can't be.
 * Of 32 KiB of aggTrades level 1 makes 7.8 KB in 70 us, level 3 7.9 KB in 190,
 * level 0 10.1 KB in 65.
 */
static size_t deflate_window(struct checkpoints_window *job,
			     struct tools *tools)
{
	struct isal_zstream z;

	isal_deflate_stateless_init(&z);
	z.hist_bits = 0; /* which it leaves as it was; matches of any reach */
	z.level = 1;
	z.level_buf = tools->level_buf;
	z.level_buf_size = sizeof(tools->level_buf);
	z.next_in = job->point.window;
	z.avail_in = (uint32_t)job->point.window_len;
	z.end_of_stream = 1;
	z.next_out = job->bytes;
	z.avail_out = sizeof(job->bytes);
	return isal_deflate_stateless(&z) == COMP_OK ? z.total_out : 0;
}

static void do_job(struct checkpoints_window *job, struct tools *tools)
{
	job->deflated_len = 0;
	if (!job->point.window_len)
		return;
	/* The whole window serves as well. */
	(void)resume_drop_unused(&job->point, job->bytes, job->raw_len,
				 job->out, job->out_len, &tools->room);
	job->deflated_len = deflate_window(job, tools);
	assert(job->deflated_len > 0);
}

static struct checkpoints_window *at_locked(struct checkpoints_windows *w,
					    size_t i)
{
	return &w->ring[(w->first + i) % CHECKPOINTS_WINDOWS];
}

/* Does the first that nobody has in hand; false where there is none. */
static bool work_locked(struct checkpoints_windows *w, struct tools *tools)
{
	struct checkpoints_window *job = NULL;

	for (size_t i = 0; i < w->n && !job; i++)
		if (at_locked(w, i)->state == CHECKPOINTS_READY)
			job = at_locked(w, i);
	if (!job)
		return false;
	job->state = CHECKPOINTS_BUSY;
	pthread_mutex_unlock(&w->lock);
	do_job(job, tools);
	pthread_mutex_lock(&w->lock);
	job->state = CHECKPOINTS_DONE;
	pthread_cond_signal(&w->done);
	return true;
}

struct checkpoints_window *
checkpoints_windows_next(struct checkpoints_windows *w)
{
	struct checkpoints_window *job = NULL;

	pthread_mutex_lock(&w->lock);
	if (w->n < CHECKPOINTS_WINDOWS)
		job = at_locked(w, w->n);
	pthread_mutex_unlock(&w->lock);
	return job;
}

void checkpoints_windows_put(struct checkpoints_windows *w)
{
	pthread_mutex_lock(&w->lock);
	at_locked(w, w->n++)->state = CHECKPOINTS_READY;
	pthread_mutex_unlock(&w->lock);
}

struct checkpoints_window *
checkpoints_windows_first(struct checkpoints_windows *w, bool of_all)
{
	struct checkpoints_window *job = NULL;

	pthread_mutex_lock(&w->lock);
	if (w->n)
		job = at_locked(w, 0);
	while (job && of_all && job->state != CHECKPOINTS_DONE)
		if (!work_locked(w, &w->own))
			pthread_cond_wait(&w->done, &w->lock);
	if (job && job->state != CHECKPOINTS_DONE)
		job = NULL;
	pthread_mutex_unlock(&w->lock);
	return job;
}

void checkpoints_windows_pop(struct checkpoints_windows *w)
{
	pthread_mutex_lock(&w->lock);
	assert(w->n && at_locked(w, 0)->state == CHECKPOINTS_DONE);
	w->first = (w->first + 1) % CHECKPOINTS_WINDOWS;
	w->n--;
	pthread_mutex_unlock(&w->lock);
}

void checkpoints_windows_clear(struct checkpoints_windows *w)
{
	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < w->n; i++)
		while (at_locked(w, i)->state == CHECKPOINTS_BUSY)
			pthread_cond_wait(&w->done, &w->lock);
	w->n = 0;
	pthread_mutex_unlock(&w->lock);
}

bool checkpoints_windows_help(struct checkpoints_windows *w)
{
	bool did;

	pthread_mutex_lock(&w->lock);
	did = work_locked(w, &w->others);
	pthread_mutex_unlock(&w->lock);
	return did;
}

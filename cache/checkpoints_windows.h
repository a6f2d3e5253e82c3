/*
 * checkpoints_windows - the windows of a pass on their way into the index:
 * made small by whichever of two threads has time, and taken out in the order
 * in which they came.
 *
 * A ring of CHECKPOINTS_WINDOWS jobs. The thread of the pass fills them in and
 * takes them out; where the ring is full, where it has to wait for more bytes
 * and at the end it does some itself, and so waits for no more than the one job
 * that the other thread has in hand.
 * What becomes of a window does not depend on who does it.
 */
#ifndef CACHE_CHECKPOINTS_WINDOWS_H
#define CACHE_CHECKPOINTS_WINDOWS_H

#include <stdbool.h>
#include <stddef.h>

#include "cache/checkpoints.h"
#include "cache/index_file.h"
#include "cache/resume.h"

enum {
	CHECKPOINTS_WINDOWS = 8,
	/* Input that is enough to see what a span uses of its window, unless it
	 * hardly compresses, and then it is of no use to know. */
	CHECKPOINTS_WINDOW_RAW = 32 << 10,
	/* What deflate may add to a window. */
	CHECKPOINTS_WINDOW_MORE = 4096,
	CHECKPOINTS_CRCS = CHECKPOINTS_SPAN / CHECKPOINTS_PIECE * 4,
};

struct checkpoints_window {
	struct index_span span; /* but for its blob */
	unsigned char crcs[CHECKPOINTS_CRCS];
	size_t crcs_len;
	struct resume_point point; /* where the span begins */
	/* What follows the point, and what it decodes to: the span, or as much
	 * of it as a window has. */
	unsigned char out[RESUME_WINDOW];
	size_t raw_len, out_len;
	/* Done: the window, deflated; before, the raw bytes. */
	unsigned char bytes[CHECKPOINTS_WINDOW_RAW + CHECKPOINTS_WINDOW_MORE];
	size_t deflated_len; /* 0 where there is no window */
	enum {
		CHECKPOINTS_READY,
		CHECKPOINTS_BUSY,
		CHECKPOINTS_DONE,
	} state; /* the ring's */
};

struct checkpoints_windows;

/* 0, -ENOMEM. */
int checkpoints_windows_create(struct checkpoints_windows **out);
void checkpoints_windows_free(struct checkpoints_windows *w);

/* ---- the thread of the pass ---- */

/* The next to be filled in, and then _put(); NULL where none is free. */
struct checkpoints_window *
checkpoints_windows_next(struct checkpoints_windows *w);
void checkpoints_windows_put(struct checkpoints_windows *w);

/* The first that is in, once done, until _pop(). NULL where none is in or,
 * unless @of_all, where it is not done yet: else it is done now. */
struct checkpoints_window *
checkpoints_windows_first(struct checkpoints_windows *w, bool of_all);
void checkpoints_windows_pop(struct checkpoints_windows *w);

/* Forgets all that are in; waits for the one the other thread has in hand. */
void checkpoints_windows_clear(struct checkpoints_windows *w);

/* ---- the other thread ---- */

/* Does one; false where none waits. */
bool checkpoints_windows_help(struct checkpoints_windows *w);

#endif

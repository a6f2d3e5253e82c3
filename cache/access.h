/*
 * access - what the reader of a file will want next, told from what it asked
 * for. Pure.
 *
 * The kernel splits what a process reads into requests of its read-ahead, and
 * several threads bring them here, so they come a little out of order. One
 * handle may have many readers (threads that each read a part), so the last
 * ACCESS_RUNS *runs* are followed at once: a run is a region that grows at one
 * edge and of which nearly all bytes were asked for. A handle whose requests
 * come at even distances, further apart than they are long, is strided.
 * Whatever is neither is random, and nothing is guessed.
 */
#ifndef CACHE_ACCESS_H
#define CACHE_ACCESS_H

#include <stddef.h>
#include <stdint.h>

enum {
	ACCESS_RUNS = 64,
	/* A request belongs to a run if it is no further from its edge than
	 * this, or than twice its own length. */
	ACCESS_NEAR_BYTES = 512 << 10,
	/* From so many bytes on a run counts as one: more than a few
	 * large read(2)s that fall side by side by chance come to. */
	ACCESS_STREAK_BYTES = 4 << 20,
	/* So many requests at the same distance make a stride. */
	ACCESS_STRIDES = 4,
};

/* Begins zeroed. */
struct access {
	struct access_run {
		uint64_t low, high; /* the region; empty: unused */
		uint64_t bytes;	    /* asked for in it, at most its length */
		uint64_t used;	    /* by the clock */
	} runs[ACCESS_RUNS];
	uint64_t clock;
	/* Of the handle as a whole. */
	uint64_t last;	      /* where the last request began */
	int64_t distance;     /* to it from the one before */
	unsigned int strides; /* requests in a row at that distance */
};

enum access_kind {
	ACCESS_RANDOM,
	ACCESS_FORWARD,	 /* what follows @off */
	ACCESS_BACKWARD, /* what comes before @off */
	ACCESS_STRIDED,	 /* @len bytes at @off, at @off + @stride, ... */
};

struct access_guess {
	enum access_kind kind;
	unsigned int run; /* tells the readers of a handle apart */
	uint64_t off;
	size_t len;
	int64_t stride;
};

/* A request for @len bytes at @off came: what will be wanted? The guess may lie
 * beyond the file's end. */
struct access_guess access_note(struct access *a, uint64_t off, size_t len);

#endif

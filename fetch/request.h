/*
 * request - carries one logical request through pacing, retries, Retry-After
 * and resume: as many exchanges as it takes, one after the other.
 *
 * Pacing. Each exchange takes a token: tails from their own bucket (a folder
 * of thousands is sized at once), all others from one they share.
 *
 * Fairness. At most `connections` exchanges run at a time. Of these, downloads
 * have at most connections - 2, and all that are no listings together
 * connections - 1 (but each kind at least one), so that a listing finds a free
 * one soon however much is being loaded, and whatever stalls. A connection that
 * becomes free goes to the kinds in turn, and within a kind to who came first.
 *
 * Retries. What may pass (no connection, a cut or stalled one, 408, 425, 429,
 * 5xx) is tried again, `retries` times, after backoff_ms(). A download starts
 * counting anew whenever it got REQUEST_PROGRESS bytes beyond where it ever
 * was: so a long one over a bad line finishes, and one that goes in circles
 * ends. Where no server ever answered, REQUEST_UNREACHABLE_RETRIES have to do:
 * who has no network shall hear it soon.
 *
 * Not for several threads: all is called on, and calls back on, the loop's.
 */
#ifndef FETCH_REQUEST_H
#define FETCH_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/backoff.h"
#include "fetch/event.h"
#include "fetch/http.h"

enum {
	REQUEST_PROGRESS = 64 << 10,
	REQUEST_UNREACHABLE_RETRIES = 2,
};

enum request_kind {
	REQUEST_LIST,	  /* a page of a listing */
	REQUEST_SMALL,	  /* a small object, a head */
	REQUEST_TAIL,	  /* HTTP_LAST; a server may ignore it: 200 */
	REQUEST_DOWNLOAD, /* resumes */
	REQUEST_KINDS,
};

struct request_config {
	struct backoff backoff;
	unsigned int connections, retries;
	double rate_per_s, rate_burst, size_burst; /* see bucket_init() */
	fetch_event_fn *on_event;		   /* or NULL */
	void *event_arg;
};

struct request_pool;
struct request;

/* 0 or -ENOMEM. */
int request_pool_create(struct request_pool **out, struct loop *l,
			struct http *h, const struct request_config *cfg);
/* All its requests have ended. */
void request_pool_free(struct request_pool *p);

/* No request is left: let go of the loop. NULL is ignored. */
void request_pool_stop(struct request_pool *p);

struct request_sink {
	/*
	 * An answer begins: its body follows, of the object from byte @from
	 * on. What came before from there on is void. @a->etag and @a->size
	 * are filled in also where only an earlier answer told them.
	 */
	int (*start)(void *arg, const struct http_answer *a, uint64_t from);
	int (*data)(void *arg, const void *buf, size_t len);
	/*
	 * The request is over and freed. @err is 0 where a whole answer went
	 * into the sink, or as in origin.h.
	 */
	void (*done)(void *arg, int err);
};

struct request_spec {
	enum request_kind kind;
	const char *what, *key; /* for events; must outlive the request */
	const char *url;	/* likewise */
	bool head, bypass;
	bool no_html;		   /* an HTML page in its place is an error */
	const char *if_none_match; /* ETag without quotes, or NULL: then 304 is
				    * an answer, too. Must outlive it */
	uint64_t tail_len;	   /* TAIL */
	uint64_t from;		   /* DOWNLOAD */
	const char *etag;	   /* DOWNLOAD: of the first `from` bytes, or
				    * NULL: then it begins at 0 all the same */
	uint64_t deadline_ns;	   /* by loop_now_ns(); 0: none */
};

/* Returns 0, then `done` follows, not from within the call; or -ENOMEM. */
int request_start(struct request_pool *p, const struct request_spec *spec,
		  const struct request_sink *sink, void *arg,
		  struct request **out);

/* Ends and frees it; nothing of its sink is called any more. Not from within
 * `start` and `data`. */
void request_cancel(struct request *r);

#endif

/*
 * origin - the face of fetch/: directory pages, objects, tails and small files
 * of one public archive, or a negative errno once all policy is spent.
 *
 * All calls return at once. The answer comes through a callback on the one
 * thread that fetch/ runs; a callback must not block (writing what arrived to a
 * file is the most it may do) and may itself call any function here but
 * origin_free().
 *
 * Every request made answers exactly once: its `done` callback runs, with
 * -ECANCELED where origin_cancel() came first, also while origin_free() runs.
 *
 * Policy inside: pacing of requests and of bytes by token buckets, at most
 * `connections` at a time, retries with exponential backoff and jitter,
 * Retry-After, stall detection, resume of a cut body with Range and If-Range.
 * Each logical request keeps to one source; going to another one (past caches,
 * the mirror) is the caller's decision, because only the caller can judge
 * bytes.
 *
 * Errors given to `done`, all negative:
 *   -ENOENT       404 or 410
 *   -EACCES       401, 403, 451
 *   -ENETUNREACH  offline, no route, name or connection, TLS refused
 *   -ETIMEDOUT    stalled, 429/5xx, cut short or past the deadline, all
 *                 retries spent
 *   -EPROTO       an answer that is not what HTTP or S3 would send: HTML where
 *                 a listing, a .zip or a .CHECKSUM was asked, XML that does not
 *                 parse, a page that repeats, a length that does not hold, a
 *                 redirect that is not to be followed
 *   -EFBIG        more bytes than the caller said it would take
 *   -EOPNOTSUPP   origin_tail(): the origin ignores ranges
 *   -ECANCELED    origin_cancel() or origin_free()
 *   -ENOMEM, and whatever a sink's own callback returned (handed back as is,
 *   not retried).
 */
#ifndef FETCH_ORIGIN_H
#define FETCH_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/event.h"
#include "fetch/listing.h"

enum {
	ORIGIN_ETAG_MAX = 128, /* with its NUL; longer ones count as none */
	ORIGIN_KEY_MAX = 1024, /* S3's own limit on a key, in bytes */
};

struct origin;

/* Where a request goes. */
enum origin_source {
	ORIGIN_MAIN,   /* the website */
	ORIGIN_BYPASS, /* the same, asking caches on the way to revalidate */
	ORIGIN_MIRROR, /* the second host; -ENETUNREACH where there is none */
};

struct origin_config {
	const char *objects; /* base URL: objects + "/" + key */
	const char *listing; /* bucket URL: listing + "?prefix=..." */
	const char *mirror;  /* base URL of a second host, or NULL */
	const char *proxy, *no_proxy, *cacert; /* NULL: libcurl's default */
	unsigned int connections;	       /* at a time, 1 to 256 */
	unsigned int retries;		       /* after the first try */
	uint64_t retry_base_ms, retry_max_ms;
	uint64_t connect_timeout_ms, stall_timeout_ms;
	uint64_t deadline_ms; /* of one logical request; 0: none */
	double rate_per_s;    /* requests; 0: unlimited */
	double rate_burst;
	double size_burst; /* burst of the bucket that tails draw from */
	uint64_t bandwidth_bytes_per_s; /* of all together; 0: unlimited */
	bool offline; /* answer -ENETUNREACH without touching the net */
	fetch_event_fn *on_event;
	void *event_arg;
};

/* What the headers of an answer say of an object. */
struct origin_meta {
	char etag[ORIGIN_ETAG_MAX]; /* without quotes or W/; "" if unknown */
	int64_t last_modified;	    /* seconds since 1970; -1 if unknown */
	uint64_t size; /* of the whole object; UINT64_MAX unknown */
};

/*
 * origin_create() - check the URLs and start the thread.
 * The strings of @cfg are copied. Nothing is contacted yet.
 * Returns 0, -EINVAL for a URL that is not http(s) (or has a user or a query
 * in it) and for `connections` out of bounds, -ENOMEM, or what
 * pthread_create(3) gave.
 */
int origin_create(struct origin **out, const struct origin_config *cfg);

/*
 * origin_stop() - cancel what is under way, wait for the last callback, end the
 * thread. From then on the functions that start a request return 0, as for want
 * of memory, and nothing is called any more. For taking down whoever uses it.
 */
void origin_stop(struct origin *o);

/* Stops it, if need be, and frees it. NULL is fine. */
void origin_free(struct origin *o);

/*
 * A request's name; never 0 for one that was accepted. Every function below
 * that starts a request returns 0 only for want of memory, and then calls
 * nothing.
 */
typedef uint64_t origin_id;

/* Returns at once; `done` follows with -ECANCELED unless it was on its way.
 * An id that is not known any more is ignored. */
void origin_cancel(struct origin *o, origin_id id);

/*
 * origin_list() - all entries directly under @prefix (delimiter "/"), over as
 * many pages as it takes; with @limit not 0, one page of at most that many.
 * @prefix: "" or a string that ends in "/"
 *
 * @done gets the listing (its to free) with err 0: empty where the origin
 * knows nothing there, sorted by name in byte order, each name once.
 */
typedef void origin_listed_fn(void *arg, int err, struct listing *l);
origin_id origin_list(struct origin *o, const char *prefix, size_t limit,
		      origin_listed_fn *done, void *arg);

/*
 * origin_tail() - the last @len (not 0) bytes of an object, all if it is
 * shorter.
 * Draws from the size bucket. An origin that ignores Range gets its answer
 * used if the whole object is at most 64 KiB (or @len, if that is more), else
 * the body is dropped and the answer is -EOPNOTSUPP with @meta filled in as far
 * as known.
 * @tail is valid during the callback only; @meta is never NULL.
 */
typedef void origin_tail_fn(void *arg, int err, const struct origin_meta *meta,
			    const void *tail, size_t len);
origin_id origin_tail(struct origin *o, enum origin_source source,
		      const char *key, size_t len, origin_tail_fn *done,
		      void *arg);

/* origin_get() - a whole small object in memory; -EFBIG above @max bytes. */
origin_id origin_get(struct origin *o, enum origin_source source,
		     const char *key, size_t max, origin_tail_fn *done,
		     void *arg);

/*
 * origin_head() - has the object changed?
 * @etag: what one has, or NULL. @done gets err 0 with @changed false (304, or
 * 200 with the same ETag) or true, and @meta of what is there now.
 */
typedef void origin_head_fn(void *arg, int err, bool changed,
			    const struct origin_meta *meta);
origin_id origin_head(struct origin *o, enum origin_source source,
		      const char *key, const char *etag, origin_head_fn *done,
		      void *arg);

/* Where a download goes; all three run on the fetch thread. */
struct origin_sink {
	/*
	 * An answer begins; its bytes follow from offset @from of the object
	 * @meta describes. Called again on each resume. @from is 0 where the
	 * object has changed since or ranges are ignored: then what came
	 * before is void.
	 */
	int (*start)(void *arg, const struct origin_meta *meta, uint64_t from);
	int (*data)(void *arg, const void *buf, size_t len);
	/* 0: every byte up to meta->size was delivered. */
	void (*done)(void *arg, int err);
};

/*
 * origin_download() - an object from byte @from on, into @sink (copied).
 * @etag: of the object the first @from bytes are from; NULL or "" only with
 * @from 0. Where @from is already the whole size, `start` and `done` come
 * without data.
 */
origin_id origin_download(struct origin *o, enum origin_source source,
			  const char *key, const char *etag, uint64_t from,
			  const struct origin_sink *sink, void *arg);

/* The base URL of ORIGIN_MAIN, as configured; lives as long as @o. Any thread.
 */
const char *origin_base(const struct origin *o);

/* Where @key is to be had from the origin whose base URL is @base,
 * percent-encoded; -ERANGE where @size is too small, -ENOMEM. Any thread. */
int origin_url(const char *base, const char *key, char *out, size_t size);

/* Connections open now, for the attribute fetch.connections. Any thread. */
unsigned int origin_connections(const struct origin *o);

#endif

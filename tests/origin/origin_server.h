/*
 * origin_server - an imitation of Binance Vision over a folder on disk, for
 * tests and demonstrations: the website, the bucket behind it, and what goes
 * wrong with them, on request.
 *
 *   /data/...                    objects as on the website (HTML 404)
 *   / and /index.html            the website's page, HTML 200, any query
 *   /data.binance.vision?...     listings, S3 ListObjects v1 and v2
 *   /data.binance.vision/data/.. objects as on the bucket's host (XML 404)
 *   /_control/...                this imitation itself, see below
 *
 * Objects have an MD5 ETag, Last-Modified, Accept-Ranges; GET and HEAD, one
 * Range (206, 416), If-Range, If-Match, If-None-Match, If-Modified-Since. Of
 * several ranges in one header none is taken (200), as S3 does. bucket.h says
 * which files are served, rules.h what can be made to go wrong.
 *
 * Control, over HTTP; none of it is counted or delayed:
 *   GET  /_control/stats              struct imitation_stats as JSON
 *   GET  /_control/log                array of the last requests, oldest first
 *   POST /_control/reset              counts and log to nothing
 *   POST /_control/rules              body: rules.h; replaces all rules. A
 *                                     request that is held stays so
 *   POST /_control/release?name=X[&count=N]
 *                                     lets N held requests go on (the next to
 *                                     come count too), or without N all of
 *                                     now and later; without name every name
 *   POST /_control/hold?name=X        undoes a release
 *   GET  /_control/held[?name=X][&at_least=N&timeout_ms=T]
 *                                     {"held": n}, as soon as n is at least N
 *   POST /_control/refresh            forget what is known of the folder
 * Answers: 200 with JSON; 400 with {"error": ...} for what does not parse, 404
 * and 405 for what does not exist.
 *
 * One thread a connection: what one request waits for delays no other.
 */
#ifndef TESTS_ORIGIN_ORIGIN_SERVER_H
#define TESTS_ORIGIN_ORIGIN_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/origin/rules.h"

struct imitation;

/* Zero and NULL stand for the value in brackets. */
struct imitation_config {
	const char *root;	  /* the folder that has data/ in it */
	uint16_t port;		  /* on 127.0.0.1 [any that is free] */
	const char *listing_path; /* ["/data.binance.vision"] */
	unsigned int page_size;	  /* of listings, at most 1000 [1000] */
	const char *rules;	  /* JSON, see rules.h [none] */
	uint64_t multipart_above; /* bytes; larger files get an ETag that is
				     no MD5 and costs nothing [256 MiB] */
	size_t log_max;		  /* requests kept in the log [10000] */
};

/*
 * imitation_start() - serve until imitation_stop().
 * The strings of @cfg are copied. Ignores SIGPIPE in its own threads only.
 * @why: where an error is told in words, @why_len bytes; may be NULL with 0
 * Returns 0, -EINVAL (a setting or a rule), -ENOMEM, or what open(2) and
 * bind(2) gave.
 */
int imitation_start(struct imitation **out, const struct imitation_config *cfg,
		    char *why, size_t why_len);

/* Ends every request, held ones too, and the threads. NULL does nothing. */
void imitation_stop(struct imitation *im);

/* "http://127.0.0.1:PORT", for objects and the website; and the same with the
 * listing path, for listings and as a mirror of objects. Owned by @im. */
const char *imitation_url(const struct imitation *im);
const char *imitation_listing_url(const struct imitation *im);
uint16_t imitation_port(const struct imitation *im);

/* The functions below are what /_control/ calls; any thread may. */

/* Replace all rules; 0, -EINVAL or -ENOMEM, and then the old ones stay. */
int imitation_set_rules(struct imitation *im, const char *json, char *why,
			size_t why_len);

/* @name NULL: every name. @count 0: open for good, else so many requests. */
int imitation_release(struct imitation *im, const char *name, uint64_t count);
int imitation_hold(struct imitation *im, const char *name);

/*
 * imitation_held() - how many requests are held, under @name or in all (NULL),
 * whose clients have not gone away; waits up to @timeout_ms for @at_least.
 */
unsigned int imitation_held(struct imitation *im, const char *name,
			    unsigned int at_least, unsigned int timeout_ms);

struct imitation_stats {
	uint64_t requests; /* that arrived */
	uint64_t bytes;	   /* of bodies, as handed to the kernel */
	uint64_t by_kind[IMITATION_KINDS];
	uint64_t by_host[2];
	uint64_t by_status[600];
	uint64_t connections_opened; /* that carried a counted request */
	uint64_t connections_now;
	uint64_t connections_max; /* most at a time */
	uint64_t in_flight;	  /* requests that have not ended */
	uint64_t in_flight_max;
};

/* connections_now and in_flight survive a reset, all else starts at 0. */
void imitation_stats(struct imitation *im, struct imitation_stats *out);
void imitation_reset(struct imitation *im);

/* The log as JSON; malloc'ed, NULL for want of memory. A request that has no
 * answer yet has "status" 0; one dropped on purpose keeps it. */
char *imitation_log(struct imitation *im);

void imitation_refresh(struct imitation *im);

#endif

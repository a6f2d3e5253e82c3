/*
 * http - one exchange with a server into a sink, on the loop's thread
 * (libcurl).
 *
 * HTTP/2 where an https server offers it; connections and TLS sessions are
 * reused. Certificates are always verified. Bytes come as they are: no content
 * coding is asked for or undone.
 *
 * Redirects are followed by hand, at most HTTP_REDIRECTS_MAX: never from https
 * to http, and never to a private address (peer.h) unless the first server was
 * at one itself. Through a proxy only the host in the URL can be judged.
 *
 * With a limit on bytes per second (throttle.h) what is held back is left with
 * the server by TCP, so each exchange has a connection of its own then: of
 * HTTP/2 one that is held would hold up all others on its connection. To be
 * held is not to stall.
 *
 * Not for several threads: all is called on, and calls back on, the loop's.
 */
#ifndef FETCH_HTTP_H
#define FETCH_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/loop.h"
#include "fetch/range.h"

enum {
	HTTP_REDIRECTS_MAX = 5,
	HTTP_HEADER_BYTES_MAX = 64 << 10, /* of one answer */
	HTTP_DISCARD_MAX = 64 << 10,	  /* read away to keep the connection */
	HTTP_ETAG_MAX = 128,		  /* with its NUL */
	HTTP_DATE_MAX = 48,		  /* with its NUL */
};

struct http;
struct http_exchange;

/* May @s stand between the quotes of an ETag (RFC 9110 section 8.8.3), and is
 * it short enough? "" may not: it counts as none. */
bool http_is_etag(const char *s);

struct http_config {
	const char *proxy, *no_proxy, *cacert; /* NULL: libcurl's default */
	unsigned int connections;
	uint64_t connect_timeout_ms;	/* 0: libcurl's default */
	uint64_t stall_timeout_ms;	/* 0: none */
	uint64_t bandwidth_bytes_per_s; /* of all together; 0: no limit */
};

/* 0 or -ENOMEM. Strings are copied. @l has to outlive it. */
int http_create(struct http **out, struct loop *l,
		const struct http_config *cfg);
/* No exchange is under way, and the loop has ended or never ran one. */
void http_free(struct http *h);

/* Connections open now. Any thread. */
unsigned int http_connections(const struct http *h);

enum http_range {
	HTTP_WHOLE,
	HTTP_FROM, /* from byte range_arg on */
	HTTP_LAST, /* the last range_arg bytes */
};

struct http_ask {
	const char *url;
	bool head;   /* HEAD, else GET */
	bool bypass; /* caches on the way shall revalidate */
	bool urgent; /* not to wait for others under a limit of bandwidth */
	enum http_range range;
	uint64_t range_arg;
	const char *if_range;	   /* the field's value, or NULL */
	const char *if_none_match; /* likewise */
};

/* What the head of an answer says. */
struct http_answer {
	int status;
	char etag[HTTP_ETAG_MAX]; /* without quotes or W/; "" if none, too
				   * long, or not one by RFC 9110 8.8.3 */
	bool etag_is_weak;
	char last_modified[HTTP_DATE_MAX]; /* as sent, for If-Range; or "" */
	int64_t last_modified_s;	   /* seconds since 1970; -1 unknown */
	bool last_modified_is_strong;	   /* RFC 9110 section 8.8.2.2 */
	uint64_t body_size;		   /* UINT64_MAX: unknown */
	uint64_t size;	/* of the whole object; UINT64_MAX: unknown */
	bool has_range; /* 206, 416: range was there and well formed */
	struct range range;
	bool is_html;
	uint64_t retry_after_ms; /* 0: none */
	uint64_t latency_ns;	 /* from the start to the answer's first byte */
};

enum http_outcome {
	HTTP_ANSWERED,	  /* a whole answer came, of whatever status */
	HTTP_UNREACHABLE, /* no name, route or connection */
	HTTP_REFUSED,	  /* the certificate is not to be trusted */
	HTTP_CUT,	  /* the connection broke off */
	HTTP_STALLED,	  /* nothing came for stall_timeout_ms */
	HTTP_BROKEN,	  /* not HTTP, or a redirect not to be followed */
	HTTP_NO_MEMORY,
	HTTP_ABORTED, /* a callback of the sink returned an error */
};

struct http_result {
	enum http_outcome outcome;
	int err;	    /* ABORTED: what the callback returned */
	const char *detail; /* libcurl's or our words; "" if none */
};

enum {
	HTTP_DISCARD = 1, /* see below */
};

struct http_sink {
	/* Once, before any data. 0 to go on, HTTP_DISCARD to be spared the
	 * body (it may be read to keep the connection), or a negative errno. */
	int (*head)(void *arg, const struct http_answer *a);
	/* 0 or a negative errno. */
	int (*data)(void *arg, const void *buf, size_t len);
	/* The exchange is over and freed. */
	void (*done)(void *arg, const struct http_result *r);
};

/* Strings of @ask are copied. Returns 0, then `done` follows, from the loop and
 * not from within the call; or -ENOMEM. */
int http_start(struct http *h, const struct http_ask *ask,
	       const struct http_sink *sink, void *arg,
	       struct http_exchange **out);

/* Ends and frees it; nothing of its sink is called any more. Not from within
 * `head` and `data`: these have a return value for that. */
void http_cancel(struct http_exchange *x);

#endif

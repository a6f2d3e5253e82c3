/*
 * mini_http - a small server on the loopback for the tests of fetch/: it
 * answers by a handler, writes down what it was asked, and can break off or
 * stall in the middle of a body. One thread a connection.
 */
#ifndef TESTS_SUPPORT_MINI_HTTP_H
#define TESTS_SUPPORT_MINI_HTTP_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MINI_SEEN_MAX = 1024,
};

/* A request as it came; fields that were not sent are "". */
struct mini_seen {
	char method[8];
	char uri[2048]; /* raw: not decoded, with the query */
	char host[128];
	char range[64], if_range[160], if_none_match[160];
	char cache_control[32], pragma[32];
	char user_agent[64], accept_encoding[64];
	unsigned int port; /* the client's: tells connections apart */
};

struct mini_http;

/* One request. Answers it with one of the functions below. */
struct mini_call {
	struct mini_http *server;
	struct MHD_Connection *connection;
	struct mini_seen seen;
	unsigned int nth; /* 0 for the server's first */
};

typedef void mini_handler(void *arg, struct mini_call *call);

/* Listens on 127.0.0.1 and any other address, on a port of its own. Fails the
 * test if it cannot. */
struct mini_http *mini_http_start(mini_handler *handler, void *arg);
/* The same with TLS; PEM texts. */
struct mini_http *mini_http_start_tls(mini_handler *handler, void *arg,
				      const char *cert, const char *key);
/* Opens the gate, waits for what is under way. */
void mini_http_stop(struct mini_http *s);

unsigned int mini_http_port(const struct mini_http *s);
/* "http://127.0.0.1:PORT"; lives as long as the server. */
const char *mini_http_url(const struct mini_http *s);

unsigned int mini_http_count(struct mini_http *s);
/* Copies what the @i th request was. */
struct mini_seen mini_http_seen(struct mini_http *s, unsigned int i);

/* Waits until @n calls wait at the gate; and opens it for good. */
void mini_gate_wait_for(struct mini_http *s, unsigned int n);
void mini_gate_open(struct mini_http *s);
/* For a handler: wait until it is open. */
void mini_gate_pass(struct mini_http *s);

/* @fields: name, value, ..., NULL; or NULL. */
void mini_reply(struct mini_call *call, unsigned int status,
		const char *const *fields, const void *body, size_t len);
void mini_reply_text(struct mini_call *call, unsigned int status,
		     const char *type, const char *body);

struct mini_object {
	const void *body;
	size_t len;
	const char *etag;	   /* the field's value, or NULL */
	const char *last_modified; /* likewise */
	const char *type;	   /* NULL: application/zip */
	bool ignores_range;
	size_t cut_after; /* break off after so many bytes; 0: do not */
	size_t gate_at;	  /* wait at the gate there; 0: do not */
};

/* Answers GET and HEAD, ranges, If-Range, If-None-Match. */
void mini_serve(struct mini_call *call, const struct mini_object *o);

/* A self-signed certificate for 127.0.0.1 and localhost. Both malloc'ed. */
void mini_make_cert(char **cert, char **key);

/*
 * A network of the process's own, with the loopback and @address on it, so
 * that a test has a "public" server; and @name for 127.0.0.1. False where that
 * is not allowed. Before any thread is started.
 */
bool mini_own_network(const char *address, const char *name);

#endif

/*
 * event - what fetch/ reports upward: one call an event, from its own thread,
 * in the order things happened. fs/ makes log lines and counters of it.
 */
#ifndef FETCH_EVENT_H
#define FETCH_EVENT_H

#include <stdint.h>

enum fetch_event_type {
	FETCH_EVENT_REQUEST,  /* one exchange ended, well or not */
	FETCH_EVENT_RETRY,    /* another try follows after wait_ms */
	FETCH_EVENT_RESUME,   /* a download goes on at offset `bytes` */
	FETCH_EVENT_RESTART,  /* the object changed under a resume: from 0 */
	FETCH_EVENT_PROGRESS, /* `bytes` body bytes came in since the last */
};

struct fetch_event {
	enum fetch_event_type type;
	const char *what; /* "list" "tail" "get" "head" "download" */
	const char *key;  /* key or prefix; valid during the call */
	int err;	  /* 0 or negative errno */
	int http_status;  /* 0 if no answer came */
	uint64_t bytes;
	uint64_t latency_ns; /* REQUEST: to the first byte of the answer */
	uint64_t duration_ns;
	unsigned int attempt; /* 1 for the first */
	uint64_t wait_ms;     /* RETRY */
	const char *detail;   /* libcurl's words where it has some, or "" */
};

typedef void fetch_event_fn(void *arg, const struct fetch_event *ev);

#endif

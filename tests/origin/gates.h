/*
 * gates - where requests of the imitated origin wait: for a time, or for a
 * name to be released. Each wait ends early when the client goes away or the
 * origin stops.
 */
#ifndef TESTS_ORIGIN_GATES_H
#define TESTS_ORIGIN_GATES_H

#include <stdbool.h>
#include <stdint.h>

struct imitation_gates;

int imitation_gates_create(struct imitation_gates **out);
void imitation_gates_free(struct imitation_gates *g);

/* End every wait, now and later. */
void imitation_gates_stop(struct imitation_gates *g);

/*
 * Both return 0, or -ECANCELED if the origin stops or the peer of the socket
 * @fd is gone (-1: none to watch).
 * @ms: negative for ever
 */
int imitation_gates_sleep(struct imitation_gates *g, int64_t ms, int fd);
int imitation_gates_wait(struct imitation_gates *g, const char *name, int fd);

/* See origin_server.h; 0 or -ENOMEM. */
int imitation_gates_release(struct imitation_gates *g, const char *name,
			    uint64_t count);
int imitation_gates_hold(struct imitation_gates *g, const char *name);
unsigned int imitation_gates_held(struct imitation_gates *g, const char *name,
				  unsigned int at_least,
				  unsigned int timeout_ms);

#endif

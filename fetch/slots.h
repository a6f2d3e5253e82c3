/*
 * slots - numbers for things: a number outlives its thing without ever meaning
 * another one. Not for several threads at once.
 *
 * A number is a slot's index and how often the slot was used: 32 bits each.
 */
#ifndef FETCH_SLOTS_H
#define FETCH_SLOTS_H

#include <stddef.h>
#include <stdint.h>

struct slot;

/* All zero is empty. */
struct slots {
	struct slot *slot;
	size_t n;    /* slots ever used */
	size_t room; /* slots allocated */
	size_t free; /* index + 1 of the first free one; 0: none */
};

void slots_fini(struct slots *s);

/* A number for @thing (not NULL), never 0; 0 for want of memory. */
uint64_t slots_add(struct slots *s, void *thing);

/* The thing, or NULL if the number was removed or never given. */
void *slots_find(const struct slots *s, uint64_t number);

/* A number that is not known is ignored. */
void slots_remove(struct slots *s, uint64_t number);

/* The thing in slot @i < n, or NULL: to walk over all. */
void *slots_at(const struct slots *s, size_t i);

#endif

#include "fetch/slots.h"

#include <stdlib.h>

struct slot {
	void *thing;  /* NULL: free */
	uint32_t use; /* how often it was freed, modulo 2^32 */
	size_t next;  /* where free: index + 1 of the next free one */
};

void slots_fini(struct slots *s)
{
	free(s->slot);
	*s = (struct slots){0};
}

static int grow(struct slots *s)
{
	size_t room = s->room ? 2 * s->room : 64;
	struct slot *slot;

	if (room > UINT32_MAX / 2)
		return -1;
	slot = realloc(s->slot, room * sizeof(*slot));
	if (!slot)
		return -1;
	s->slot = slot;
	s->room = room;
	return 0;
}

uint64_t slots_add(struct slots *s, void *thing)
{
	size_t i;

	if (s->free) {
		i = s->free - 1;
		s->free = s->slot[i].next;
	} else {
		if (s->n == s->room && grow(s) != 0)
			return 0;
		i = s->n++;
		s->slot[i].use = 0;
	}
	s->slot[i].thing = thing;
	return (uint64_t)s->slot[i].use << 32 | (i + 1);
}

static struct slot *find(const struct slots *s, uint64_t number)
{
	size_t i = (number & UINT32_MAX) - 1;

	if ((number & UINT32_MAX) == 0 || i >= s->n)
		return NULL;
	if (!s->slot[i].thing || s->slot[i].use != number >> 32)
		return NULL;
	return &s->slot[i];
}

void *slots_find(const struct slots *s, uint64_t number)
{
	struct slot *slot = find(s, number);

	return slot ? slot->thing : NULL;
}

void slots_remove(struct slots *s, uint64_t number)
{
	struct slot *slot = find(s, number);

	if (!slot)
		return;
	slot->thing = NULL;
	slot->use++;
	slot->next = s->free;
	s->free = (size_t)(slot - s->slot) + 1;
}

void *slots_at(const struct slots *s, size_t i)
{
	return s->slot[i].thing;
}

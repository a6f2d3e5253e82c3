#include "cache/recency.h"

static uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t sub_sat(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

uint64_t recency_need(uint64_t used, uint64_t quota, uint64_t incoming,
		      uint64_t fs_free, uint64_t min_free)
{
	uint64_t over_quota, short_of_free;

	if (incoming > quota)
		return UINT64_MAX;
	over_quota = sub_sat(add_sat(used, incoming), quota);
	short_of_free = sub_sat(add_sat(incoming, min_free), fs_free);
	return over_quota > short_of_free ? over_quota : short_of_free;
}

uint64_t recency_choose(struct recency_candidate *c, size_t n, uint64_t need)
{
	uint64_t freed = 0;

	for (size_t i = 0; i < n; i++) {
		c[i].evict = !c[i].held && freed < need;
		if (c[i].evict)
			freed = add_sat(freed, c[i].bytes);
	}
	return freed;
}

#include "fetch/bucket.h"

static const double NS_PER_S = 1e9;

/* A rate of one token in many years must not overflow the wait. */
static const double WAIT_MAX_NS = 3600 * 1e9;

void bucket_init(struct bucket *b, double rate_per_s, double burst,
		 uint64_t now_ns)
{
	b->rate_per_s = rate_per_s > 0 ? rate_per_s : 0;
	b->burst = burst > 1 ? burst : 1;
	b->tokens = b->burst;
	b->at_ns = now_ns;
}

static void refill(struct bucket *b, uint64_t now_ns)
{
	if (now_ns <= b->at_ns)
		return;
	b->tokens += (double)(now_ns - b->at_ns) * b->rate_per_s / NS_PER_S;
	if (b->tokens > b->burst)
		b->tokens = b->burst;
	b->at_ns = now_ns;
}

uint64_t bucket_wait(struct bucket *b, double credit, uint64_t now_ns)
{
	double short_of, wait_ns;

	if (b->rate_per_s == 0)
		return 0;
	refill(b, now_ns);
	short_of = 1 - b->tokens - credit;
	if (short_of <= 0)
		return 0;
	wait_ns = short_of / b->rate_per_s * NS_PER_S;
	return (uint64_t)(wait_ns < WAIT_MAX_NS ? wait_ns : WAIT_MAX_NS) + 1;
}

void bucket_spend(struct bucket *b, uint64_t n, uint64_t now_ns)
{
	if (b->rate_per_s == 0)
		return;
	refill(b, now_ns);
	b->tokens -= (double)n;
}

uint64_t bucket_take(struct bucket *b, uint64_t now_ns)
{
	uint64_t wait_ns = bucket_wait(b, 0, now_ns);

	if (!wait_ns)
		bucket_spend(b, 1, now_ns);
	return wait_ns;
}

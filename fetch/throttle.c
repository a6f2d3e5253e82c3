#include "fetch/throttle.h"

void throttle_init(struct throttle *t, uint64_t bytes_per_s, uint64_t now_ns)
{
	bucket_init(&t->bucket, (double)bytes_per_s, (double)bytes_per_s,
		    now_ns);
	TAILQ_INIT(&t->downloads);
	TAILQ_INIT(&t->urgent);
	t->ahead = 0;
}

bool throttle_is_on(const struct throttle *t)
{
	return t->bucket.rate_per_s > 0;
}

void throttle_spend(struct throttle *t, uint64_t len, uint64_t now_ns)
{
	bucket_spend(&t->bucket, len, now_ns);
}

static uint64_t wait_of(struct throttle *t, bool urgent, uint64_t now_ns)
{
	return bucket_wait(&t->bucket, urgent ? t->bucket.burst : 0, now_ns);
}

static struct throttle_queue *queue_of(struct throttle *t, bool urgent)
{
	return urgent ? &t->urgent : &t->downloads;
}

/* What was paid when it went on. libcurl may by now have more to give than it
 * had then: that is owed. */
static bool use_paid(struct throttle *t, struct throttle_flow *f, size_t len,
		     uint64_t now_ns)
{
	uint64_t paid = f->paid < len ? f->paid : len;

	if (!f->paid)
		return false;
	f->paid -= paid;
	bucket_spend(&t->bucket, len - paid, now_ns);
	return true;
}

bool throttle_pass(struct throttle *t, struct throttle_flow *f, size_t len,
		   uint64_t now_ns)
{
	struct throttle_queue *q = queue_of(t, f->urgent);

	if (!throttle_is_on(t) || use_paid(t, f, len, now_ns))
		return true;
	if (TAILQ_EMPTY(q) && wait_of(t, f->urgent, now_ns) == 0) {
		bucket_spend(&t->bucket, len, now_ns);
		return true;
	}
	f->held = true;
	f->held_bytes = len;
	TAILQ_INSERT_TAIL(q, f, link);
	return false;
}

/* By bytes: a piece of a download is often larger. */
static struct throttle_flow *take_turn(struct throttle *t,
				       struct throttle_flow *urgent,
				       struct throttle_flow *download)
{
	if (t->ahead > 0) {
		t->ahead -= (int64_t)download->held_bytes;
		return download;
	}
	t->ahead += (int64_t)urgent->held_bytes;
	return urgent;
}

struct throttle_flow *throttle_next(struct throttle *t, uint64_t now_ns,
				    uint64_t *wait_ns)
{
	struct throttle_flow *urgent = TAILQ_FIRST(&t->urgent);
	struct throttle_flow *f = TAILQ_FIRST(&t->downloads);

	*wait_ns = UINT64_MAX;
	if (!urgent && !f)
		return NULL;
	*wait_ns = wait_of(t, urgent != NULL, now_ns);
	if (*wait_ns)
		return NULL;
	if (!f)
		f = urgent;
	else if (urgent)
		f = take_turn(t, urgent, f);
	throttle_leave(t, f);
	f->paid = f->held_bytes;
	bucket_spend(&t->bucket, f->paid, now_ns);
	return f;
}

void throttle_leave(struct throttle *t, struct throttle_flow *f)
{
	if (f->held)
		TAILQ_REMOVE(queue_of(t, f->urgent), f, link);
	f->held = false;
}

bool throttle_is_idle(const struct throttle *t)
{
	return TAILQ_EMPTY(&t->downloads) && TAILQ_EMPTY(&t->urgent);
}

/*
 * A request is in one of three states:
 *
 *  QUEUED   in the queue of its kind, waits for a connection and a token
 *  RUNNING  one exchange is under way
 *  WAITING  a try failed, its timer is set; then QUEUED again
 *
 * The head of each answer is judged before its body: to be delivered, done
 * with, or failed; and if failed, whether to try again.
 */
#include "fetch/request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "fetch/bucket.h"

enum {
	PROGRESS_BYTES = 256 << 10, /* an event at least every so many */
	PROGRESS_MS = 100,	    /* or so often, while bytes come */
};

enum state {
	QUEUED,
	RUNNING,
	WAITING,
};

/* What is known of the object whose bytes the sink has. */
struct version {
	char etag[HTTP_ETAG_MAX];
	bool etag_is_weak;
	char date[HTTP_DATE_MAX]; /* a strong Last-Modified, or "" */
	uint64_t size;		  /* UINT64_MAX: unknown */
};

struct request {
	struct request_pool *pool;
	struct request_spec spec;
	const struct request_sink *sink;
	void *arg;
	TAILQ_ENTRY(request) link; /* in its queue while QUEUED */
	enum state state;
	struct loop_timer wait, deadline;
	struct http_exchange *exchange; /* RUNNING */

	struct version version;
	uint64_t offset; /* DOWNLOAD: the sink has so many bytes */
	uint64_t mark;	 /* where failures were last forgotten */
	unsigned int failures, attempt;
	bool answered; /* a server ever did */

	/* Of the exchange under way: */
	uint64_t asked_ns, asked_from;
	uint64_t latency_ns;
	uint64_t body;	 /* bytes that came */
	uint64_t expect; /* bytes that are to come; UINT64_MAX: unknown */
	uint64_t untold; /* bytes that no event told yet */
	uint64_t told_ns;
	uint64_t retry_after_ms;
	int status;
	int err;    /* the answer was judged a failure */
	bool again; /* that may pass */
};

TAILQ_HEAD(request_queue, request);

struct request_pool {
	struct loop *loop;
	struct http *http;
	struct request_config cfg;
	struct bucket rate, sizes;
	struct request_queue queue[REQUEST_KINDS];
	unsigned int running[REQUEST_KINDS];
	unsigned int turn;	 /* the kind whose turn it is */
	struct loop_timer timer; /* the next token */
};

/* --- events --- */

static void tell(struct request *r, struct fetch_event *ev)
{
	const struct request_config *cfg = &r->pool->cfg;

	if (!cfg->on_event)
		return;
	ev->what = r->spec.what;
	ev->key = r->spec.key;
	ev->attempt = r->attempt;
	if (!ev->detail)
		ev->detail = "";
	cfg->on_event(cfg->event_arg, ev);
}

static void tell_progress(struct request *r, uint64_t now_ns)
{
	struct fetch_event ev = {
		.type = FETCH_EVENT_PROGRESS,
		.bytes = r->untold,
	};

	if (!r->untold)
		return;
	r->untold = 0;
	r->told_ns = now_ns;
	tell(r, &ev);
}

static void tell_end(struct request *r, int err, const char *detail)
{
	uint64_t now_ns = loop_now_ns();
	struct fetch_event ev = {
		.type = FETCH_EVENT_REQUEST,
		.err = err,
		.http_status = r->status,
		.bytes = r->body,
		.latency_ns = r->latency_ns,
		.duration_ns = now_ns - r->asked_ns,
		.detail = detail,
	};

	tell_progress(r, now_ns);
	tell(r, &ev);
}

static void tell_retry(struct request *r, int err, uint64_t wait_ms)
{
	struct fetch_event ev = {
		.type = FETCH_EVENT_RETRY,
		.err = err,
		.http_status = r->status,
		.wait_ms = wait_ms,
	};

	tell(r, &ev);
}

static void tell_position(struct request *r, enum fetch_event_type type)
{
	struct fetch_event ev = {
		.type = type,
		.http_status = r->status,
		.bytes = type == FETCH_EVENT_RESUME ? r->offset : 0,
	};

	tell(r, &ev);
}

/* --- the judgement of an answer --- */

static int judge_status(int status, bool *again)
{
	switch (status) {
	case 404:
	case 410:
		return -ENOENT;
	case 401:
	case 403:
	case 451:
		return -EACCES;
	case 408:
	case 425:
	case 429:
		*again = true;
		return -ETIMEDOUT;
	default:
		if (status < 500)
			return -EPROTO;
		*again = true;
		return -ETIMEDOUT;
	}
}

static void forget_version(struct request *r)
{
	r->version = (struct version){.size = UINT64_MAX};
}

/* The next exchange begins again at byte 0. */
static int restart(struct request *r)
{
	forget_version(r);
	r->again = true;
	return -EPROTO;
}

static void learn(struct request *r, const struct http_answer *a)
{
	struct version *v = &r->version;

	if (*a->etag) {
		strcpy(v->etag, a->etag);
		v->etag_is_weak = a->etag_is_weak;
	}
	if (a->last_modified_is_strong)
		strcpy(v->date, a->last_modified);
	if (a->size != UINT64_MAX)
		v->size = a->size;
}

/* May bytes of this answer stand beside those the sink has? */
static bool same_version(const struct request *r, const struct http_answer *a)
{
	const struct version *v = &r->version;

	if (*v->etag && *a->etag && strcmp(v->etag, a->etag) != 0)
		return false;
	return v->size == UINT64_MAX || a->size == UINT64_MAX ||
	       v->size == a->size;
}

static int judge_whole(struct request *r, const struct http_answer *a)
{
	if (r->offset)
		tell_position(r, FETCH_EVENT_RESTART);
	r->offset = 0;
	r->expect = a->body_size;
	forget_version(r);
	learn(r, a);
	return 0;
}

static int judge_rest(struct request *r, const struct http_answer *a)
{
	if (!a->has_range || !a->range.satisfied ||
	    a->range.first != r->asked_from || !same_version(r, a))
		return restart(r);
	r->expect = a->range.last - a->range.first + 1;
	learn(r, a);
	tell_position(r, FETCH_EVENT_RESUME);
	return 0;
}

static int judge_tail(struct request *r, const struct http_answer *a)
{
	const struct range *range = &a->range;
	uint64_t len;

	if (!a->has_range || !range->satisfied || range->total == UINT64_MAX ||
	    range->last != range->total - 1)
		return -EPROTO;
	len = range->last - range->first + 1;
	if (len != r->spec.tail_len &&
	    (len != range->total || len > r->spec.tail_len))
		return -EPROTO;
	r->expect = len;
	return 0;
}

/* 416: there are no bytes where some were asked for. */
static int judge_beyond(struct request *r, const struct http_answer *a)
{
	if (r->spec.kind == REQUEST_TAIL)
		return a->has_range && a->size == 0 ? 0 : -EPROTO;
	if (!r->asked_from)
		return -EPROTO;
	if (!a->has_range || a->size != r->asked_from || !same_version(r, a))
		return restart(r);
	learn(r, a);
	return 0;
}

/* 0: deliver what follows. */
static int judge(struct request *r, const struct http_answer *a)
{
	const struct request_spec *spec = &r->spec;

	r->expect = 0;
	switch (a->status) {
	case 200:
		if (spec->no_html && a->is_html)
			return -EPROTO;
		return judge_whole(r, a);
	case 206:
		if (spec->kind == REQUEST_TAIL)
			return judge_tail(r, a);
		return r->asked_from ? judge_rest(r, a) : -EPROTO;
	case 304:
		return spec->if_none_match ? 0 : -EPROTO;
	case 416:
		return judge_beyond(r, a);
	default:
		return judge_status(a->status, &r->again);
	}
}

static int on_head(void *arg, const struct http_answer *a)
{
	struct request *r = arg;
	struct http_answer known = *a;
	int err;

	r->answered = true;
	r->status = a->status;
	r->latency_ns = a->latency_ns;
	r->retry_after_ms = a->retry_after_ms;
	r->err = judge(r, a);
	if (r->err)
		return HTTP_DISCARD;
	if (r->spec.kind == REQUEST_DOWNLOAD) {
		strcpy(known.etag, r->version.etag);
		known.size = r->version.size;
	}
	err = r->sink->start(r->arg, &known, r->offset);
	if (err)
		return err;
	/* The page that comes with a 416 is none of the object's bytes. */
	return a->status == 416 ? HTTP_DISCARD : 0;
}

static int on_data(void *arg, const void *buf, size_t len)
{
	struct request *r = arg;
	uint64_t now_ns = loop_now_ns();
	int err;

	if (len > r->expect - r->body)
		return -EPROTO;
	err = r->sink->data(r->arg, buf, len);
	if (err)
		return err;
	r->body += len;
	r->untold += len;
	if (r->spec.kind == REQUEST_DOWNLOAD)
		r->offset += len;
	if (r->untold >= PROGRESS_BYTES ||
	    now_ns - r->told_ns >= PROGRESS_MS * 1000000)
		tell_progress(r, now_ns);
	return 0;
}

/* --- from exchange to exchange --- */

static void dispatch(struct request_pool *p);

static void enqueue(struct request *r)
{
	r->state = QUEUED;
	TAILQ_INSERT_TAIL(&r->pool->queue[r->spec.kind], r, link);
}

static void finish(struct request *r, int err)
{
	const struct request_sink *sink = r->sink;
	void *arg = r->arg;

	loop_clear_timer(r->pool->loop, &r->wait);
	loop_clear_timer(r->pool->loop, &r->deadline);
	free(r);
	sink->done(arg, err);
}

static bool may_retry(struct request *r, int err)
{
	unsigned int most = r->pool->cfg.retries;

	if (r->offset >= r->mark + REQUEST_PROGRESS) {
		r->mark = r->offset;
		r->failures = 0;
	}
	if (err == -ENETUNREACH && !r->answered &&
	    most > REQUEST_UNREACHABLE_RETRIES)
		most = REQUEST_UNREACHABLE_RETRIES;
	return r->failures < most;
}

static uint64_t random_bits(void)
{
	uint64_t bits = 0;

	/* Without, all would wait the least: no reason to fail. */
	if (getrandom(&bits, sizeof(bits), GRND_NONBLOCK) < 0)
		return loop_now_ns();
	return bits;
}

static void wait_to_retry(struct request *r, int err)
{
	uint64_t wait_ms;

	wait_ms = backoff_ms(&r->pool->cfg.backoff, r->failures++,
			     r->retry_after_ms, random_bits());
	tell_retry(r, err, wait_ms);
	r->state = WAITING;
	loop_set_timer(r->pool->loop, &r->wait,
		       loop_now_ns() + wait_ms * 1000000);
}

static void on_waited(void *arg)
{
	struct request *r = arg;
	struct request_pool *p = r->pool;

	if (r->err == -ENOMEM)
		finish(r, r->err);
	else
		enqueue(r);
	dispatch(p);
}

/* What came of the exchange, from the judgement and from libcurl. */
static int verdict(struct request *r, const struct http_result *res)
{
	if (res->outcome == HTTP_ABORTED) {
		r->again = false;
		return res->err;
	}
	if (r->err)
		return r->err;
	switch (res->outcome) {
	case HTTP_ANSWERED:
		/* libcurl looks at Content-Length only, not at the range. */
		if (r->spec.head || r->expect == UINT64_MAX ||
		    r->body == r->expect)
			return 0;
		r->again = true;
		return -ETIMEDOUT;
	case HTTP_UNREACHABLE:
		r->again = true;
		return -ENETUNREACH;
	case HTTP_REFUSED:
		return -ENETUNREACH;
	case HTTP_CUT:
	case HTTP_STALLED:
		r->again = true;
		return -ETIMEDOUT;
	case HTTP_NO_MEMORY:
		return -ENOMEM;
	default:
		return -EPROTO;
	}
}

/* Is there more of the object than this answer had? Servers may send less of
 * a range than was asked for. */
static bool falls_short(const struct request *r)
{
	return r->spec.kind == REQUEST_DOWNLOAD &&
	       r->version.size != UINT64_MAX && r->offset < r->version.size;
}

static void on_done(void *arg, const struct http_result *res)
{
	struct request *r = arg;
	struct request_pool *p = r->pool;
	int err;

	p->running[r->spec.kind]--;
	r->exchange = NULL;
	err = verdict(r, res);
	tell_end(r, err, res->detail);
	if (!err && falls_short(r)) {
		r->again = true;
		err = -ETIMEDOUT;
	}
	if (err && r->again && may_retry(r, err))
		wait_to_retry(r, err);
	else
		finish(r, err);
	dispatch(p);
}

/* Can the sink's bytes be gone on from? Fills in If-Range. */
static bool can_resume(const struct request *r, char *if_range, size_t room)
{
	const struct version *v = &r->version;

	if (*v->etag && !v->etag_is_weak)
		snprintf(if_range, room, "\"%s\"", v->etag);
	else if (*v->date)
		snprintf(if_range, room, "%s", v->date);
	else
		return false;
	return true;
}

static int run(struct request *r)
{
	static const struct http_sink sink = {
		.head = on_head,
		.data = on_data,
		.done = on_done,
	};
	char if_range[HTTP_ETAG_MAX + 2], if_none_match[HTTP_ETAG_MAX + 2];
	struct http_ask ask = {
		.url = r->spec.url,
		.head = r->spec.head,
		.bypass = r->spec.bypass,
		.urgent = r->spec.kind != REQUEST_DOWNLOAD,
	};

	if (r->spec.kind == REQUEST_TAIL) {
		ask.range = HTTP_LAST;
		ask.range_arg = r->spec.tail_len;
	} else if (r->offset && can_resume(r, if_range, sizeof(if_range))) {
		ask.range = HTTP_FROM;
		ask.range_arg = r->offset;
		ask.if_range = if_range;
	}
	if (r->spec.if_none_match) {
		snprintf(if_none_match, sizeof(if_none_match), "\"%s\"",
			 r->spec.if_none_match);
		ask.if_none_match = if_none_match;
	}
	r->state = RUNNING;
	r->attempt++;
	r->asked_ns = r->told_ns = loop_now_ns();
	r->asked_from = ask.range == HTTP_FROM ? r->offset : 0;
	r->latency_ns = r->body = r->expect = r->retry_after_ms = 0;
	r->status = 0;
	r->err = 0;
	r->again = false;
	return http_start(r->pool->http, &ask, &sink, r, &r->exchange);
}

static unsigned int at_least_1(unsigned int connections, unsigned int kept)
{
	return connections > kept ? connections - kept : 1;
}

static bool has_room(const struct request_pool *p, enum request_kind kind)
{
	unsigned int downloads = p->running[REQUEST_DOWNLOAD];
	unsigned int rest = downloads + p->running[REQUEST_TAIL] +
			    p->running[REQUEST_SMALL];
	unsigned int most = p->cfg.connections;

	if (rest + p->running[REQUEST_LIST] >= most)
		return false;
	if (kind == REQUEST_LIST)
		return true;
	if (kind == REQUEST_DOWNLOAD && downloads >= at_least_1(most, 2))
		return false;
	/* Of two, one is kept from downloads already. */
	return most <= 2 || rest < most - 1;
}

/* The next to run, or NULL; then @wait_ns tells when to look for a token. */
static struct request *next(struct request_pool *p, uint64_t now_ns,
			    uint64_t *wait_ns)
{
	*wait_ns = UINT64_MAX;
	for (unsigned int i = 0; i < REQUEST_KINDS; i++) {
		enum request_kind kind = (p->turn + i) % REQUEST_KINDS;
		struct request *r = TAILQ_FIRST(&p->queue[kind]);
		uint64_t wait;

		if (!r || !has_room(p, kind))
			continue;
		wait = bucket_take(kind == REQUEST_TAIL ? &p->sizes : &p->rate,
				   now_ns);
		if (wait == 0) {
			TAILQ_REMOVE(&p->queue[kind], r, link);
			p->turn = (kind + 1) % REQUEST_KINDS;
			return r;
		}
		if (wait < *wait_ns)
			*wait_ns = wait;
	}
	return NULL;
}

/* It could not be sent. To tell so from here would call `done` from within
 * request_start(), so let the timer do it. */
static void fail_later(struct request *r, int err)
{
	r->pool->running[r->spec.kind]--;
	r->err = err;
	r->state = WAITING;
	loop_set_timer(r->pool->loop, &r->wait, loop_now_ns());
}

static void dispatch(struct request_pool *p)
{
	uint64_t now_ns = loop_now_ns(), wait_ns;
	struct request *r;
	int err;

	while ((r = next(p, now_ns, &wait_ns))) {
		p->running[r->spec.kind]++;
		err = run(r);
		if (err)
			fail_later(r, err);
	}
	if (wait_ns != UINT64_MAX)
		loop_set_timer(p->loop, &p->timer, now_ns + wait_ns);
	else
		loop_clear_timer(p->loop, &p->timer);
}

static void on_token(void *arg)
{
	dispatch(arg);
}

/* --- the outside --- */

int request_pool_create(struct request_pool **out, struct loop *l,
			struct http *h, const struct request_config *cfg)
{
	uint64_t now_ns = loop_now_ns();
	struct request_pool *p;

	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->loop = l;
	p->http = h;
	p->cfg = *cfg;
	bucket_init(&p->rate, cfg->rate_per_s, cfg->rate_burst, now_ns);
	bucket_init(&p->sizes, cfg->rate_per_s, cfg->size_burst, now_ns);
	for (unsigned int i = 0; i < REQUEST_KINDS; i++)
		TAILQ_INIT(&p->queue[i]);
	p->timer.fn = on_token;
	p->timer.arg = p;
	*out = p;
	return 0;
}

void request_pool_stop(struct request_pool *p)
{
	if (p)
		loop_clear_timer(p->loop, &p->timer);
}

void request_pool_free(struct request_pool *p)
{
	free(p);
}

/* Ends what the request is about, without a word to its sink. */
static void abandon(struct request *r, int err)
{
	struct request_pool *p = r->pool;

	switch (r->state) {
	case QUEUED:
		TAILQ_REMOVE(&p->queue[r->spec.kind], r, link);
		break;
	case RUNNING:
		http_cancel(r->exchange);
		p->running[r->spec.kind]--;
		tell_end(r, err, "");
		break;
	case WAITING:
		break;
	}
}

static void on_deadline(void *arg)
{
	struct request *r = arg;
	struct request_pool *p = r->pool;

	abandon(r, -ETIMEDOUT);
	finish(r, -ETIMEDOUT);
	dispatch(p);
}

int request_start(struct request_pool *p, const struct request_spec *spec,
		  const struct request_sink *sink, void *arg,
		  struct request **out)
{
	struct request *r;

	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->pool = p;
	r->spec = *spec;
	r->sink = sink;
	r->arg = arg;
	r->wait.fn = on_waited;
	r->wait.arg = r;
	r->deadline.fn = on_deadline;
	r->deadline.arg = r;
	forget_version(r);
	if (spec->etag && strlen(spec->etag) < sizeof(r->version.etag)) {
		strcpy(r->version.etag, spec->etag);
		r->offset = r->mark = spec->from;
	}
	if (spec->deadline_ns)
		loop_set_timer(p->loop, &r->deadline, spec->deadline_ns);
	*out = r;
	enqueue(r);
	dispatch(p);
	return 0;
}

void request_cancel(struct request *r)
{
	struct request_pool *p = r->pool;

	abandon(r, -ECANCELED);
	loop_clear_timer(p->loop, &r->wait);
	loop_clear_timer(p->loop, &r->deadline);
	free(r);
	dispatch(p);
}

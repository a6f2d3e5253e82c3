/*
 * Whoever asks, on whatever thread, gets an `op` made, numbered and posted to
 * the loop. From then on only the loop's thread touches it, but for one flag:
 * whether its cancel call was posted. An op that ends with that call still on
 * its way is freed by the call.
 */
#include "fetch/origin.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fetch/http.h"
#include "fetch/loop.h"
#include "fetch/request.h"
#include "fetch/slots.h"
#include "fetch/url.h"

enum {
	/* What a tail takes of a server that sends the whole object. */
	WHOLE_TAIL_MAX = 64 << 10,
	CONNECTIONS_MAX = 256,
};

_Static_assert((int)ORIGIN_ETAG_MAX == (int)HTTP_ETAG_MAX,
	       "copied as they are");

struct origin {
	char *objects, *listing, *mirror;
	uint64_t deadline_ms;
	bool offline;
	struct loop *loop;
	struct http *http;
	struct request_pool *pool;
	struct loop_call stop;
	bool stopping; /* the loop's */

	pthread_mutex_t lock;
	struct slots ops; /* protected by lock */
	bool stopped;	  /* protected by lock: nothing is posted any more */
};

struct op;

struct op_type {
	const char *what;
	enum request_kind kind;
	bool head; /* asks for no body */
	struct request_sink sink;
	/* Runs the caller's `done`. */
	void (*answer)(struct op *op, int err);
};

struct op {
	const struct op_type *type;
	struct origin *origin;
	origin_id id;
	struct loop_call start, cancel;
	bool cancelling; /* cancel was posted; protected by origin->lock */
	bool started, ended;

	enum origin_source source;
	char *key; /* or prefix */
	char *url;
	char etag[ORIGIN_ETAG_MAX]; /* what the caller has; "" if nothing */
	uint64_t deadline_ns;
	struct request *request;
	struct origin_meta meta;
	int status;

	/* tail, get: */
	size_t want; /* length of the tail */
	size_t max;  /* room there may be */
	char *body;
	size_t len, room;
	/* list: */
	struct listing_walk *walk;
	size_t limit;
	struct listing *listing;
	/* download: */
	uint64_t from;
	struct origin_sink sink;

	union {
		origin_listed_fn *listed;
		origin_tail_fn *tail;
		origin_head_fn *head;
	} done;
	void *arg;
};

/* --- the life of an op --- */

static void op_free(struct op *op)
{
	free(op->key);
	free(op->url);
	free(op->body);
	listing_walk_free(op->walk);
	listing_free(op->listing);
	free(op);
}

/* Answers; the op is gone then, unless its cancel call is to free it. */
static void op_end(struct op *op, int err)
{
	struct origin *o = op->origin;
	bool cancelling;

	pthread_mutex_lock(&o->lock);
	slots_remove(&o->ops, op->id);
	cancelling = op->cancelling;
	pthread_mutex_unlock(&o->lock);
	op->ended = true;
	op->type->answer(op, err);
	if (!cancelling)
		op_free(op);
}

static void op_abort(struct op *op)
{
	if (op->request)
		request_cancel(op->request);
	op->request = NULL;
	op_end(op, -ECANCELED);
}

static void on_cancel(void *arg)
{
	struct op *op = arg;

	if (!op->ended)
		op_abort(op);
	op_free(op);
}

static bool ends_in(const char *s, const char *end)
{
	size_t len = strlen(s), end_len = strlen(end);

	return len >= end_len && strcmp(s + len - end_len, end) == 0;
}

/* Where a site shows a page for whatever it is asked, these are not HTML. */
static bool is_never_html(const char *key)
{
	return ends_in(key, ".zip") || ends_in(key, ".CHECKSUM");
}

static char *op_url(const struct op *op)
{
	const struct origin *o = op->origin;

	if (op->walk)
		return url_listing(o->listing, op->key,
				   listing_walk_marker(op->walk), op->limit);
	return url_object(op->source == ORIGIN_MIRROR ? o->mirror : o->objects,
			  op->key);
}

static int op_send(struct op *op)
{
	struct request_spec spec = {
		.kind = op->type->kind,
		.what = op->type->what,
		.head = op->type->head,
		.key = op->key,
		.bypass = op->source == ORIGIN_BYPASS,
		.no_html = !op->walk && is_never_html(op->key),
		.tail_len = op->want,
		.from = op->from,
		.deadline_ns = op->deadline_ns,
	};

	free(op->url);
	op->url = op_url(op);
	if (!op->url)
		return -ENOMEM;
	spec.url = op->url;
	if (*op->etag && op->type->head)
		spec.if_none_match = op->etag;
	else if (*op->etag)
		spec.etag = op->etag;
	return request_start(op->origin->pool, &spec, &op->type->sink, op,
			     &op->request);
}

/* Why this op need not even try, or 0. */
static int refusal(const struct op *op)
{
	const struct origin *o = op->origin;

	if (o->stopping)
		return -ECANCELED;
	/* S3 cannot have such a key. */
	if (strlen(op->key) > ORIGIN_KEY_MAX || (!op->walk && !*op->key))
		return -ENOENT;
	if (o->offline || (op->source == ORIGIN_MIRROR && !o->mirror))
		return -ENETUNREACH;
	return 0;
}

static void on_start(void *arg)
{
	struct op *op = arg;
	int err;

	op->started = true;
	err = refusal(op);
	if (!err)
		err = op_send(op);
	if (err)
		op_end(op, err);
}

static struct op *op_create(struct origin *o, const struct op_type *type,
			    const char *key, void *arg)
{
	struct op *op;

	op = calloc(1, sizeof(*op));
	if (!op)
		return NULL;
	op->key = strdup(key);
	if (!op->key) {
		free(op);
		return NULL;
	}
	op->type = type;
	op->origin = o;
	op->arg = arg;
	op->start = (struct loop_call){.fn = on_start, .arg = op};
	op->cancel = (struct loop_call){.fn = on_cancel, .arg = op};
	op->meta = (struct origin_meta){
		.last_modified = -1,
		.size = UINT64_MAX,
	};
	if (o->deadline_ms)
		op->deadline_ns = loop_now_ns() + o->deadline_ms * 1000000;
	return op;
}

static void set_etag(struct op *op, const char *etag)
{
	if (etag && http_is_etag(etag))
		strcpy(op->etag, etag);
}

/* From here on the op is the loop's. */
static origin_id op_submit(struct op *op)
{
	struct origin *o = op->origin;
	origin_id id;

	/* Posted under the lock, so that it comes before the call that stops
	 * the loop, or not at all. */
	pthread_mutex_lock(&o->lock);
	id = op->id = o->stopped ? 0 : slots_add(&o->ops, op);
	if (id)
		loop_post(o->loop, &op->start);
	pthread_mutex_unlock(&o->lock);
	if (!id)
		op_free(op);
	return id;
}

void origin_cancel(struct origin *o, origin_id id)
{
	struct op *op;
	bool first;

	pthread_mutex_lock(&o->lock);
	op = slots_find(&o->ops, id);
	first = op && !op->cancelling;
	if (first)
		op->cancelling = true;
	pthread_mutex_unlock(&o->lock);
	if (first)
		loop_post(o->loop, &op->cancel);
}

static void learn_meta(struct op *op, const struct http_answer *a)
{
	strcpy(op->meta.etag, a->etag);
	op->meta.last_modified = a->last_modified_s;
	op->meta.size = a->size;
	op->status = a->status;
}

/* --- a listing --- */

static int start_page(void *arg, const struct http_answer *a, uint64_t from)
{
	struct op *op = arg;

	(void)a;
	(void)from;
	return listing_walk_begin(op->walk);
}

static int page_data(void *arg, const void *buf, size_t len)
{
	struct op *op = arg;

	return listing_walk_feed(op->walk, buf, len);
}

static void page_done(void *arg, int err)
{
	struct op *op = arg;

	op->request = NULL;
	if (!err)
		err = listing_walk_end(op->walk);
	if (err > 0) {
		err = op_send(op);
		if (!err)
			return;
	} else if (!err) {
		err = listing_walk_take(op->walk, &op->listing);
	}
	op_end(op, err);
}

static void answer_list(struct op *op, int err)
{
	struct listing *l = err ? NULL : op->listing;

	op->listing = NULL;
	op->done.listed(op->arg, err, l);
}

static const struct op_type list_type = {
	.what = "list",
	.kind = REQUEST_LIST,
	.sink = {.start = start_page, .data = page_data, .done = page_done},
	.answer = answer_list,
};

origin_id origin_list(struct origin *o, const char *prefix, size_t limit,
		      origin_listed_fn *done, void *arg)
{
	struct op *op;

	op = op_create(o, &list_type, prefix, arg);
	if (!op)
		return 0;
	op->limit = limit;
	op->done.listed = done;
	if (listing_walk_create(&op->walk, prefix, limit) != 0) {
		op_free(op);
		return 0;
	}
	return op_submit(op);
}

/* --- what fits in memory --- */

static void op_done(void *arg, int err)
{
	struct op *op = arg;

	op->request = NULL;
	op_end(op, err);
}

static int start_get(void *arg, const struct http_answer *a, uint64_t from)
{
	struct op *op = arg;

	(void)from;
	learn_meta(op, a);
	op->len = 0;
	if (a->size != UINT64_MAX && a->size > op->max)
		return -EFBIG;
	return 0;
}

static int start_tail(void *arg, const struct http_answer *a, uint64_t from)
{
	struct op *op = arg;

	(void)from;
	learn_meta(op, a);
	op->len = 0;
	op->max = op->want;
	if (a->status != 200)
		return 0;
	if (op->max < WHOLE_TAIL_MAX)
		op->max = WHOLE_TAIL_MAX;
	if (a->size != UINT64_MAX && a->size > op->max)
		return -EOPNOTSUPP;
	return 0;
}

static int append(struct op *op, const void *buf, size_t len, int too_big)
{
	size_t room = op->room ? op->room : 4096;
	char *body;

	if (len > op->max - op->len)
		return too_big;
	while (room - op->len < len)
		room *= 2;
	if (room != op->room) {
		body = realloc(op->body, room);
		if (!body)
			return -ENOMEM;
		op->body = body;
		op->room = room;
	}
	memcpy(op->body + op->len, buf, len);
	op->len += len;
	return 0;
}

static int get_data(void *arg, const void *buf, size_t len)
{
	return append(arg, buf, len, -EFBIG);
}

static int tail_data(void *arg, const void *buf, size_t len)
{
	return append(arg, buf, len, -EOPNOTSUPP);
}

static void answer_get(struct op *op, int err)
{
	if (err) {
		op->done.tail(op->arg, err, &op->meta, NULL, 0);
		return;
	}
	if (op->status == 200)
		op->meta.size = op->len;
	op->done.tail(op->arg, 0, &op->meta, op->body ? op->body : "", op->len);
}

static void answer_tail(struct op *op, int err)
{
	if (!err && op->status == 200)
		op->meta.size = op->len;
	if (!err && op->len > op->want) {
		memmove(op->body, op->body + op->len - op->want, op->want);
		op->len = op->want;
	}
	op->status = 0;
	answer_get(op, err);
}

static const struct op_type get_type = {
	.what = "get",
	.kind = REQUEST_SMALL,
	.sink = {.start = start_get, .data = get_data, .done = op_done},
	.answer = answer_get,
};

static const struct op_type tail_type = {
	.what = "tail",
	.kind = REQUEST_TAIL,
	.sink = {.start = start_tail, .data = tail_data, .done = op_done},
	.answer = answer_tail,
};

origin_id origin_get(struct origin *o, enum origin_source source,
		     const char *key, size_t max, origin_tail_fn *done,
		     void *arg)
{
	struct op *op;

	op = op_create(o, &get_type, key, arg);
	if (!op)
		return 0;
	op->source = source;
	op->max = max;
	op->done.tail = done;
	return op_submit(op);
}

origin_id origin_tail(struct origin *o, enum origin_source source,
		      const char *key, size_t len, origin_tail_fn *done,
		      void *arg)
{
	struct op *op;

	assert(len > 0);
	op = op_create(o, &tail_type, key, arg);
	if (!op)
		return 0;
	op->source = source;
	op->want = len;
	op->done.tail = done;
	return op_submit(op);
}

/* --- has it changed? --- */

static int start_head(void *arg, const struct http_answer *a, uint64_t from)
{
	(void)from;
	learn_meta(arg, a);
	return 0;
}

static int no_data(void *arg, const void *buf, size_t len)
{
	(void)arg;
	(void)buf;
	(void)len;
	return -EPROTO;
}

static void answer_head(struct op *op, int err)
{
	bool changed = false;

	if (!err && op->status == 304 && !*op->meta.etag)
		strcpy(op->meta.etag, op->etag);
	else if (!err && op->status != 304)
		changed = !*op->etag || strcmp(op->etag, op->meta.etag) != 0;
	op->done.head(op->arg, err, changed, &op->meta);
}

static const struct op_type head_type = {
	.what = "head",
	.kind = REQUEST_SMALL,
	.head = true,
	.sink = {.start = start_head, .data = no_data, .done = op_done},
	.answer = answer_head,
};

origin_id origin_head(struct origin *o, enum origin_source source,
		      const char *key, const char *etag, origin_head_fn *done,
		      void *arg)
{
	struct op *op;

	op = op_create(o, &head_type, key, arg);
	if (!op)
		return 0;
	op->source = source;
	op->done.head = done;
	set_etag(op, etag);
	return op_submit(op);
}

/* --- a download --- */

static int start_download(void *arg, const struct http_answer *a, uint64_t from)
{
	struct op *op = arg;

	learn_meta(op, a);
	return op->sink.start(op->arg, &op->meta, from);
}

static int download_data(void *arg, const void *buf, size_t len)
{
	struct op *op = arg;

	return op->sink.data(op->arg, buf, len);
}

static void answer_download(struct op *op, int err)
{
	op->sink.done(op->arg, err);
}

static const struct op_type download_type = {
	.what = "download",
	.kind = REQUEST_DOWNLOAD,
	.sink = {.start = start_download,
		 .data = download_data,
		 .done = op_done},
	.answer = answer_download,
};

origin_id origin_download(struct origin *o, enum origin_source source,
			  const char *key, const char *etag, uint64_t from,
			  const struct origin_sink *sink, void *arg)
{
	struct op *op;

	op = op_create(o, &download_type, key, arg);
	if (!op)
		return 0;
	op->source = source;
	op->from = from;
	op->sink = *sink;
	set_etag(op, etag);
	return op_submit(op);
}

/* --- the origin itself --- */

static void on_stop(void *arg)
{
	struct origin *o = arg;
	struct op *op;
	size_t i = 0, n;

	o->stopping = true;
	do {
		pthread_mutex_lock(&o->lock);
		n = o->ops.n;
		op = i < n ? slots_at(&o->ops, i) : NULL;
		pthread_mutex_unlock(&o->lock);
		/* Those not started yet will find that they need not. */
		if (op && op->started)
			op_abort(op);
	} while (++i < n);
	request_pool_stop(o->pool);
	loop_quit(o->loop);
}

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void init_curl(void)
{
	curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int check_config(const struct origin_config *cfg)
{
	int err;

	if (cfg->connections < 1 || cfg->connections > CONNECTIONS_MAX)
		return -EINVAL;
	err = url_check_base(cfg->objects);
	if (!err)
		err = url_check_base(cfg->listing);
	if (!err && cfg->mirror)
		err = url_check_base(cfg->mirror);
	return err;
}

static int copy_urls(struct origin *o, const struct origin_config *cfg)
{
	o->objects = strdup(cfg->objects);
	o->listing = strdup(cfg->listing);
	if (cfg->mirror)
		o->mirror = strdup(cfg->mirror);
	return o->objects && o->listing && (o->mirror || !cfg->mirror)
		       ? 0
		       : -ENOMEM;
}

/* The thread has ended or never began. */
static void origin_destroy(struct origin *o)
{
	request_pool_free(o->pool);
	http_free(o->http);
	slots_fini(&o->ops);
	pthread_mutex_destroy(&o->lock);
	free(o->objects);
	free(o->listing);
	free(o->mirror);
	free(o);
}

static int start_layers(struct origin *o, const struct origin_config *cfg)
{
	const struct http_config http = {
		.proxy = cfg->proxy,
		.no_proxy = cfg->no_proxy,
		.cacert = cfg->cacert,
		.connections = cfg->connections,
		.connect_timeout_ms = cfg->connect_timeout_ms,
		.stall_timeout_ms = cfg->stall_timeout_ms,
		.bandwidth_bytes_per_s = cfg->bandwidth_bytes_per_s,
	};
	const struct request_config request = {
		.backoff = {cfg->retry_base_ms, cfg->retry_max_ms},
		.connections = cfg->connections,
		.retries = cfg->retries,
		.rate_per_s = cfg->rate_per_s,
		.rate_burst = cfg->rate_burst,
		.size_burst = cfg->size_burst,
		.on_event = cfg->on_event,
		.event_arg = cfg->event_arg,
	};
	int err;

	err = loop_create(&o->loop, cfg->connections);
	if (!err)
		err = http_create(&o->http, o->loop, &http);
	if (!err)
		err = request_pool_create(&o->pool, o->loop, o->http, &request);
	return err;
}

int origin_create(struct origin **out, const struct origin_config *cfg)
{
	struct origin *o;
	int err;

	pthread_once(&curl_once, init_curl);
	if (curl_ready != CURLE_OK)
		return -ENOMEM;
	err = check_config(cfg);
	if (err)
		return err;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	pthread_mutex_init(&o->lock, NULL);
	o->stop = (struct loop_call){.fn = on_stop, .arg = o};
	o->deadline_ms = cfg->deadline_ms;
	o->offline = cfg->offline;
	err = copy_urls(o, cfg);
	if (!err)
		err = start_layers(o, cfg);
	if (err && o->loop)
		origin_free(o);
	else if (err)
		origin_destroy(o);
	else
		*out = o;
	return err;
}

void origin_stop(struct origin *o)
{
	bool first;

	pthread_mutex_lock(&o->lock);
	first = !o->stopped;
	o->stopped = true;
	pthread_mutex_unlock(&o->lock);
	if (!first)
		return;
	loop_post(o->loop, &o->stop);
	loop_join(o->loop);
}

void origin_free(struct origin *o)
{
	if (!o)
		return;
	origin_stop(o);
	loop_free(o->loop);
	origin_destroy(o);
}

const char *origin_base(const struct origin *o)
{
	return o->objects;
}

int origin_url(const char *base, const char *key, char *out, size_t size)
{
	char *url = url_object(base, key);
	int err = -ENOMEM;

	if (url) {
		err = strlen(url) < size ? 0 : -ERANGE;
		if (!err)
			strcpy(out, url);
	}
	free(url);
	return err;
}

unsigned int origin_connections(const struct origin *o)
{
	return http_connections(o->http);
}

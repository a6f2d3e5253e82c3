#include "tests/support/cmocka_all.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fetch/origin.h"
#include "tests/support/mini_http.h"

enum {
	OBJECT_LEN = 1 << 20,
	EVENTS_MAX = 4096,
};

/* --- what the callbacks leave behind --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* Events of the last origin; protected by lock. */
static struct event {
	enum fetch_event_type type;
	char what[16], key[64];
	int err, status;
	uint64_t bytes, wait_ms;
	unsigned int attempt;
} events[EVENTS_MAX];
static unsigned int n_events;

static void on_event(void *arg, const struct fetch_event *ev)
{
	struct event *e;

	(void)arg;
	pthread_mutex_lock(&lock);
	if (n_events < EVENTS_MAX) {
		e = &events[n_events++];
		*e = (struct event){
			.type = ev->type,
			.err = ev->err,
			.status = ev->http_status,
			.bytes = ev->bytes,
			.wait_ms = ev->wait_ms,
			.attempt = ev->attempt,
		};
		snprintf(e->what, sizeof(e->what), "%s", ev->what);
		snprintf(e->key, sizeof(e->key), "%s", ev->key);
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* The @nth event of @type, counting from 0; waits until it is there. */
static struct event event(enum fetch_event_type type, unsigned int nth)
{
	unsigned int i = 0, seen = 0;
	struct event e;

	pthread_mutex_lock(&lock);
	for (;;) {
		while (i == n_events)
			pthread_cond_wait(&changed, &lock);
		if (events[i].type == type && seen++ == nth)
			break;
		i++;
	}
	e = events[i];
	pthread_mutex_unlock(&lock);
	return e;
}

static unsigned int count_events(enum fetch_event_type type, uint64_t *bytes)
{
	unsigned int n = 0;

	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < n_events; i++) {
		if (events[i].type != type)
			continue;
		n++;
		if (bytes)
			*bytes += events[i].bytes;
	}
	pthread_mutex_unlock(&lock);
	return n;
}

/* One answer; protected by lock until done. */
struct answer {
	unsigned int done; /* how often: must be once */
	int err;
	struct listing *listing;
	struct origin_meta meta;
	bool changed;
	char *body; /* malloc'ed */
	size_t len;

	/* downloads: */
	unsigned int starts;
	uint64_t from[16];
	int refuse_start, refuse_data;
	struct origin *cancel_in; /* cancel `id` when data comes */
	origin_id id;
};

static void answered(struct answer *a, int err)
{
	pthread_mutex_lock(&lock);
	a->err = err;
	a->done++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static int wait_for(struct answer *a)
{
	int err;

	pthread_mutex_lock(&lock);
	while (!a->done)
		pthread_cond_wait(&changed, &lock);
	err = a->err;
	pthread_mutex_unlock(&lock);
	return err;
}

static void on_listed(void *arg, int err, struct listing *l)
{
	struct answer *a = arg;

	a->listing = l;
	answered(a, err);
}

static void on_bytes(void *arg, int err, const struct origin_meta *meta,
		     const void *bytes, size_t len)
{
	struct answer *a = arg;

	a->meta = *meta;
	a->body = malloc(len + 1);
	if (len)
		memcpy(a->body, bytes, len);
	a->len = len;
	answered(a, err);
}

static void on_head(void *arg, int err, bool has_changed,
		    const struct origin_meta *meta)
{
	struct answer *a = arg;

	a->meta = *meta;
	a->changed = has_changed;
	answered(a, err);
}

static int on_start(void *arg, const struct origin_meta *meta, uint64_t from)
{
	struct answer *a = arg;

	pthread_mutex_lock(&lock);
	a->meta = *meta;
	if (a->starts < 16)
		a->from[a->starts] = from;
	a->starts++;
	a->len = from;
	pthread_mutex_unlock(&lock);
	return a->refuse_start;
}

static int on_data(void *arg, const void *buf, size_t len)
{
	struct answer *a = arg;

	pthread_mutex_lock(&lock);
	if (!a->body)
		a->body = calloc(1, 4 * OBJECT_LEN);
	if (a->len + len <= 4 * OBJECT_LEN)
		memcpy(a->body + a->len, buf, len);
	a->len += len;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	if (a->cancel_in)
		origin_cancel(a->cancel_in, a->id);
	return a->refuse_data;
}

static void on_done(void *arg, int err)
{
	answered(arg, err);
}

static const struct origin_sink sink = {on_start, on_data, on_done};

static void forget(struct answer *a)
{
	assert_int_equal(a->done, 1);
	listing_free(a->listing);
	free(a->body);
	*a = (struct answer){0};
}

/* --- the two sides --- */

static struct mini_http *server;
static struct origin *origin;
static struct answer answer;

static void configure(struct origin_config *cfg, const char *url)
{
	*cfg = (struct origin_config){
		.objects = url,
		.listing = url,
		.proxy = "", /* not one of the environment */
		.connections = 8,
		.retries = 3,
		.retry_base_ms = 1,
		.retry_max_ms = 5,
		.connect_timeout_ms = 20000,
		.stall_timeout_ms = 20000,
		.size_burst = 1000,
		.rate_burst = 1000,
		.on_event = on_event,
	};
}

static void open_with(const struct origin_config *cfg)
{
	n_events = 0;
	assert_int_equal(origin_create(&origin, cfg), 0);
}

static void open_both(mini_handler *handler, void *arg)
{
	struct origin_config cfg;

	server = mini_http_start(handler, arg);
	configure(&cfg, mini_http_url(server));
	open_with(&cfg);
}

static int close_both(void **state)
{
	(void)state;
	/* The gate first: a stalled answer must not hold anybody up. */
	if (server)
		mini_gate_open(server);
	origin_free(origin);
	origin = NULL;
	if (server)
		mini_http_stop(server);
	server = NULL;
	if (answer.done)
		forget(&answer);
	return 0;
}

static int get(const char *key, size_t max)
{
	assert_true(origin_get(origin, ORIGIN_MAIN, key, max, on_bytes,
			       &answer) != 0);
	return wait_for(&answer);
}

static int tail(const char *key, size_t len)
{
	assert_true(origin_tail(origin, ORIGIN_MAIN, key, len, on_bytes,
				&answer) != 0);
	return wait_for(&answer);
}

static int list(const char *prefix, size_t limit)
{
	assert_true(origin_list(origin, prefix, limit, on_listed, &answer) !=
		    0);
	return wait_for(&answer);
}

static int head(const char *key, const char *etag)
{
	assert_true(origin_head(origin, ORIGIN_MAIN, key, etag, on_head,
				&answer) != 0);
	return wait_for(&answer);
}

static int download(const char *key, const char *etag, uint64_t from)
{
	assert_true(origin_download(origin, ORIGIN_MAIN, key, etag, from, &sink,
				    &answer) != 0);
	return wait_for(&answer);
}

/* Bytes that tell where they stand. */
static const char *object_bytes(void)
{
	static char bytes[OBJECT_LEN];

	for (size_t i = 0; i < OBJECT_LEN; i++)
		bytes[i] = (char)(i ^ i >> 8 ^ i >> 16);
	return bytes;
}

/* --- scripted answers --- */

struct script {
	/* Answer to request i; the last one stands for all that follow. */
	struct step {
		unsigned int status; /* 0: serve the object */
		const char *type, *body;
		const char *fields[6];
		struct mini_object object;
	} step[8];
	unsigned int n;
};

static void on_script(void *arg, struct mini_call *call)
{
	const struct script *s = arg;
	const struct step *step =
		&s->step[call->nth < s->n ? call->nth : s->n - 1];

	if (!step->status)
		mini_serve(call, &step->object);
	else if (step->fields[0])
		mini_reply(call, step->status, step->fields,
			   step->body ? step->body : "",
			   step->body ? strlen(step->body) : 0);
	else
		mini_reply_text(call, step->status,
				step->type ? step->type : "application/xml",
				step->body ? step->body : "");
}

static struct mini_object whole(const char *etag)
{
	return (struct mini_object){
		.body = object_bytes(),
		.len = OBJECT_LEN,
		.etag = etag,
		.last_modified = "Sun, 06 Nov 1994 08:49:37 GMT",
	};
}

static struct mini_object cut(const char *etag, size_t after)
{
	struct mini_object o = whole(etag);

	o.cut_after = after;
	return o;
}

static void assert_whole(void)
{
	assert_int_equal(answer.len, OBJECT_LEN);
	assert_memory_equal(answer.body, object_bytes(), OBJECT_LEN);
}

/* --- small objects --- */

static void test_origin__gets_a_small_object_with_its_meta(void **state)
{
	struct script s = {
		{{.object = {.body = "hello",
			     .len = 5,
			     .etag = "\"e1\"",
			     .last_modified = "Sun, 06 Nov 1994 08:49:37 "
					      "GMT"}}},
		1};
	struct mini_seen seen;

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(get("data/x.zip.CHECKSUM", 100), 0);
	assert_int_equal(answer.len, 5);
	assert_memory_equal(answer.body, "hello", 5);
	assert_string_equal(answer.meta.etag, "e1");
	assert_int_equal(answer.meta.last_modified, 784111777);
	assert_int_equal(answer.meta.size, 5);
	seen = mini_http_seen(server, 0);
	assert_string_equal(seen.method, "GET");
	assert_string_equal(seen.uri, "/data/x.zip.CHECKSUM");
	assert_string_equal(seen.range, "");
	assert_string_equal(seen.cache_control, "");
	assert_string_equal(seen.user_agent, "tickfs/" TICKFS_VERSION);
	assert_string_equal(seen.accept_encoding, "identity");
	assert_int_equal(event(FETCH_EVENT_REQUEST, 0).bytes, 5);
	assert_string_equal(event(FETCH_EVENT_REQUEST, 0).what, "get");
}

static void test_origin__percent_encodes_keys(void **state)
{
	struct script s = {{{.status = 200, .body = "x"}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(get("data/币安人生USDT/a b?.txt", 100), 0);
	assert_string_equal(mini_http_seen(server, 0).uri,
			    "/data/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT/"
			    "a%20b%3F.txt");
}

static void test_origin__gets_at_most_what_it_may(void **state)
{
	struct script s = {{{.object = {.body = "hello", .len = 5}}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(get("k", 5), 0);
	forget(&answer);
	assert_int_equal(get("k", 4), -EFBIG);
	forget(&answer);
	assert_int_equal(get("k", 0), -EFBIG);
	assert_int_equal(mini_http_count(server), 3);
}

/* Without a Content-Length: the size shows only as it comes. */
static void on_chunked(void *arg, struct mini_call *call)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		OBJECT_LEN, (void *)object_bytes(), MHD_RESPMEM_PERSISTENT);

	(void)arg;
	MHD_add_response_header(response, "Transfer-Encoding", "chunked");
	MHD_queue_response(call->connection, 200, response);
	MHD_destroy_response(response);
}

static void test_origin__limits_what_has_no_length(void **state)
{
	(void)state;
	open_both(on_chunked, NULL);
	assert_int_equal(get("k", OBJECT_LEN - 1), -EFBIG);
	forget(&answer);
	assert_int_equal(get("k", OBJECT_LEN), 0);
	assert_whole();
	assert_int_equal(answer.meta.size, OBJECT_LEN);
	forget(&answer);
	assert_int_equal(tail("k", 100), -EOPNOTSUPP);
}

static void test_origin__maps_statuses_to_errors(void **state)
{
	static const struct {
		unsigned int status;
		int err;
		unsigned int requests;
	} map[] = {
		{404, -ENOENT, 1},    {410, -ENOENT, 1},
		{401, -EACCES, 1},    {403, -EACCES, 1},
		{451, -EACCES, 1},    {400, -EPROTO, 1},
		{418, -EPROTO, 1},    {204, -EPROTO, 1},
		{206, -EPROTO, 1},    {416, -EPROTO, 1},
		{429, -ETIMEDOUT, 4}, {500, -ETIMEDOUT, 4},
		{503, -ETIMEDOUT, 4}, {504, -ETIMEDOUT, 4},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(map) / sizeof(*map); i++) {
		struct script s = {{{.status = map[i].status}}, 1};

		open_both(on_script, &s);
		assert_int_equal(get("k", 100), map[i].err);
		assert_int_equal(mini_http_count(server), map[i].requests);
		assert_int_equal(event(FETCH_EVENT_REQUEST, 0).status,
				 map[i].status);
		close_both(NULL);
	}
}

static void test_origin__tries_again_after_503(void **state)
{
	struct script s = {{{.status = 503},
			    {.status = 429},
			    {.status = 200, .body = "ok"}},
			   3};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(get("k", 100), 0);
	assert_int_equal(answer.len, 2);
	assert_int_equal(event(FETCH_EVENT_RETRY, 1).status, 429);
	assert_int_equal(event(FETCH_EVENT_REQUEST, 2).attempt, 3);
}

static void test_origin__obeys_retry_after(void **state)
{
	struct script s = {{{.status = 503, .fields = {"Retry-After", "17"}}},
			   1};
	struct origin_config cfg;

	(void)state;
	server = mini_http_start(on_script, &s);
	configure(&cfg, mini_http_url(server));
	cfg.retry_max_ms = 30000;
	open_with(&cfg);
	answer.id = origin_get(origin, ORIGIN_MAIN, "k", 9, on_bytes, &answer);
	assert_int_equal(event(FETCH_EVENT_RETRY, 0).wait_ms, 17000);
	origin_cancel(origin, answer.id);
	assert_int_equal(wait_for(&answer), -ECANCELED);
	assert_int_equal(mini_http_count(server), 1);
}

static void test_origin__takes_no_html_for_an_archive(void **state)
{
	struct script s = {{{.status = 200,
			     .type = "text/html; charset=utf-8",
			     .body = "<html></html>"}},
			   1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(get("data/x.zip.CHECKSUM", 100), -EPROTO);
	forget(&answer);
	assert_int_equal(download("data/x.zip", NULL, 0), -EPROTO);
	assert_int_equal(answer.starts, 0);
	forget(&answer);
	assert_int_equal(tail("data/x.zip", 10), -EPROTO);
	forget(&answer);
	assert_int_equal(head("data/x.zip", "e1"), -EPROTO);
	forget(&answer);
	assert_int_equal(get("index.html", 100), 0);
}

static void test_origin__asks_caches_to_revalidate_on_bypass(void **state)
{
	struct script s = {{{.status = 200, .body = "x"}}, 1};
	struct mini_seen seen;

	(void)state;
	open_both(on_script, &s);
	origin_get(origin, ORIGIN_BYPASS, "k", 9, on_bytes, &answer);
	assert_int_equal(wait_for(&answer), 0);
	seen = mini_http_seen(server, 0);
	assert_string_equal(seen.cache_control, "no-cache");
	assert_string_equal(seen.pragma, "no-cache");
}

static void test_origin__asks_the_mirror_only_where_told(void **state)
{
	struct script main_script = {{{.status = 404}}, 1};
	struct script mirror_script = {{{.status = 200, .body = "m"}}, 1};
	struct mini_http *mirror = mini_http_start(on_script, &mirror_script);
	struct origin_config cfg;
	char url[128];

	(void)state;
	server = mini_http_start(on_script, &main_script);
	configure(&cfg, mini_http_url(server));
	snprintf(url, sizeof(url), "%s/bucket/", mini_http_url(mirror));
	cfg.mirror = url;
	open_with(&cfg);
	assert_int_equal(get("k", 9), -ENOENT);
	assert_int_equal(mini_http_count(mirror), 0);
	forget(&answer);
	origin_get(origin, ORIGIN_MIRROR, "k", 9, on_bytes, &answer);
	assert_int_equal(wait_for(&answer), 0);
	assert_string_equal(mini_http_seen(mirror, 0).uri, "/bucket/k");
	close_both(NULL);
	mini_http_stop(mirror);
}

static void test_origin__without_a_mirror_says_unreachable(void **state)
{
	struct script s = {{{.status = 200, .body = "x"}}, 1};

	(void)state;
	open_both(on_script, &s);
	origin_get(origin, ORIGIN_MIRROR, "k", 9, on_bytes, &answer);
	assert_int_equal(wait_for(&answer), -ENETUNREACH);
	assert_int_equal(mini_http_count(server), 0);
}

static void test_origin__knows_that_some_keys_cannot_be(void **state)
{
	struct script s = {{{.status = 200, .body = "x"}}, 1};
	char key[ORIGIN_KEY_MAX + 2];

	(void)state;
	memset(key, 'k', sizeof(key));
	key[ORIGIN_KEY_MAX + 1] = '\0';
	open_both(on_script, &s);
	assert_int_equal(get(key, 9), -ENOENT);
	forget(&answer);
	assert_int_equal(get("", 9), -ENOENT);
	assert_int_equal(mini_http_count(server), 0);
	forget(&answer);
	key[ORIGIN_KEY_MAX] = '\0';
	assert_int_equal(get(key, 9), 0);
}

/* --- tails --- */

static void test_origin__tails_what_is_longer_and_what_is_shorter(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(tail("x.zip", 1000), 0);
	assert_int_equal(answer.len, 1000);
	assert_memory_equal(answer.body, object_bytes() + OBJECT_LEN - 1000,
			    1000);
	assert_int_equal(answer.meta.size, OBJECT_LEN);
	assert_string_equal(answer.meta.etag, "e1");
	assert_string_equal(mini_http_seen(server, 0).range, "bytes=-1000");
	forget(&answer);
	assert_int_equal(tail("x.zip", 2 * OBJECT_LEN), 0);
	assert_whole();
	assert_int_equal(answer.meta.size, OBJECT_LEN);
}

static void test_origin__tails_an_empty_object(void **state)
{
	struct script s = {{{.object = {.body = "", .len = 0}}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(tail("x.zip", 1000), 0);
	assert_int_equal(answer.len, 0);
	assert_int_equal(answer.meta.size, 0);
}

static void test_origin__tails_small_objects_without_ranges(void **state)
{
	struct script s = {{{.object = {.body = "0123456789",
					.len = 10,
					.ignores_range = true}}},
			   1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(tail("x.zip", 4), 0);
	assert_int_equal(answer.len, 4);
	assert_memory_equal(answer.body, "6789", 4);
	assert_int_equal(answer.meta.size, 10);
	forget(&answer);
	assert_int_equal(tail("x.zip", 40), 0);
	assert_int_equal(answer.len, 10);
}

static void test_origin__drops_large_objects_without_ranges(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	s.step[0].object.ignores_range = true;
	open_both(on_script, &s);
	assert_int_equal(tail("x.zip", 1000), -EOPNOTSUPP);
	assert_int_equal(answer.meta.size, OBJECT_LEN);
	assert_string_equal(answer.meta.etag, "e1");
	assert_int_equal(mini_http_count(server), 1);
}

static void test_origin__tells_a_wrong_tail(void **state)
{
	static const char *const ranges[] = {
		"bytes 0-9/1000",     /* the head, not the tail */
		"bytes 985-994/1000", /* not up to the end */
		"bytes 995-999/1000", /* less than asked for */
		"bytes 0-19/20",      /* more */
		"bytes 990-999/*",    "bytes */1000", "nonsense",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
		struct script s = {{{.status = 206,
				     .body = "0123456789",
				     .fields = {"Content-Range", ranges[i]}}},
				   1};

		open_both(on_script, &s);
		assert_int_equal(tail("x.zip", 10), -EPROTO);
		close_both(NULL);
	}
}

/* --- has it changed? --- */

static void test_origin__head_tells_whether_it_changed(void **state)
{
	struct script s = {{{.object = whole("\"e2\"")}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(head("x.zip", "e2"), 0);
	assert_false(answer.changed);
	assert_string_equal(answer.meta.etag, "e2");
	assert_string_equal(mini_http_seen(server, 0).method, "HEAD");
	assert_string_equal(mini_http_seen(server, 0).if_none_match, "\"e2\"");
	forget(&answer);
	assert_int_equal(head("x.zip", "e1"), 0);
	assert_true(answer.changed);
	assert_string_equal(answer.meta.etag, "e2");
	assert_int_equal(answer.meta.size, OBJECT_LEN);
	forget(&answer);
	assert_int_equal(head("x.zip", NULL), 0);
	assert_true(answer.changed);
	assert_string_equal(mini_http_seen(server, 2).if_none_match, "");
}

static void test_origin__head_knows_a_200_with_the_same_etag(void **state)
{
	struct script s = {{{.status = 200, .fields = {"ETag", "W/\"e2\""}}},
			   1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(head("x.zip", "e2"), 0);
	assert_false(answer.changed);
	assert_string_equal(answer.meta.etag, "e2");
}

static void test_origin__head_fills_in_what_a_304_leaves_out(void **state)
{
	struct script s = {{{.status = 304}, {.status = 404}}, 2};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(head("x.zip", "e2"), 0);
	assert_false(answer.changed);
	assert_string_equal(answer.meta.etag, "e2");
	assert_true(answer.meta.size == UINT64_MAX);
	forget(&answer);
	assert_int_equal(head("x.zip", "e2"), -ENOENT);
}

/* --- listings --- */

#define FILE_(key) "<Contents><Key>" key "</Key><Size>5</Size></Contents>"
#define PAGE(more, rest)                                                       \
	"<ListBucketResult><IsTruncated>" more "</IsTruncated>" rest           \
	"</ListBucketResult>"

static void assert_names(const char *expected)
{
	char text[1024] = "";

	for (size_t i = 0; i < answer.listing->n; i++) {
		strcat(text, answer.listing->entries[i].name);
		strcat(text, answer.listing->entries[i].is_prefix ? "/ " : " ");
	}
	assert_string_equal(text, expected);
}

static void test_origin__lists_over_pages_of_both_kinds(void **state)
{
	struct script s = {
		{{.status = 200,
		  .body = PAGE("true",
			       "<NextMarker>p/b&amp;</NextMarker>" FILE_("p/a")
				       FILE_("p/b&amp;"))},
		 {.status = 200, .body = PAGE("true", FILE_("p/c"))},
		 {.status = 200,
		  .body = PAGE("false", "<CommonPrefixes><Prefix>p/d/</Prefix>"
					"</CommonPrefixes>")}},
		3};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(list("p/", 0), 0);
	assert_names("a b& c d/ ");
	assert_string_equal(answer.listing->prefix, "p/");
	assert_string_equal(mini_http_seen(server, 0).uri,
			    "/?delimiter=/&prefix=p/");
	assert_string_equal(mini_http_seen(server, 1).uri,
			    "/?delimiter=/&prefix=p/&marker=p/b%26");
	assert_string_equal(mini_http_seen(server, 2).uri,
			    "/?delimiter=/&prefix=p/&marker=p/c");
	assert_int_equal(mini_http_count(server), 3);
}

static void test_origin__lists_one_page_with_a_limit(void **state)
{
	struct script s = {
		{{.status = 200, .body = PAGE("true", FILE_("p/a"))}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(list("p/", 1), 0);
	assert_names("a ");
	assert_string_equal(mini_http_seen(server, 0).uri,
			    "/?delimiter=/&prefix=p/&max-keys=1");
	assert_int_equal(mini_http_count(server), 1);
}

static void test_origin__lists_nothing_where_nothing_is(void **state)
{
	struct script s = {{{.status = 200, .body = PAGE("false", "")}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(list("typo/", 0), 0);
	assert_int_equal(answer.listing->n, 0);
}

static void test_origin__takes_no_html_for_a_listing(void **state)
{
	struct script s = {{{.status = 200,
			     .type = "text/html",
			     .body = "<!DOCTYPE html><html></html>"}},
			   1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(list("", 0), -EPROTO);
	assert_null(answer.listing);
	assert_int_equal(mini_http_count(server), 1);
}

static void test_origin__notices_a_listing_that_repeats(void **state)
{
	struct script s = {
		{{.status = 200, .body = PAGE("true", FILE_("p/a"))}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(list("p/", 0), -EPROTO);
	assert_int_equal(mini_http_count(server), 2);
}

static void test_origin__lists_again_a_page_that_broke_off(void **state)
{
	static const char second[] = PAGE("false", FILE_("p/b") FILE_("p/c"));
	struct script s = {
		{{.status = 200, .body = PAGE("true", FILE_("p/a"))},
		 {.object = {.body = second,
			     .len = sizeof(second) - 1,
			     .cut_after = sizeof(second) - 30}},
		 {.status = 503},
		 {.object = {.body = second, .len = sizeof(second) - 1}}},
		4};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(list("p/", 0), 0);
	assert_names("a b c ");
	for (unsigned int i = 1; i < 4; i++)
		assert_string_equal(mini_http_seen(server, i).uri,
				    "/?delimiter=/&prefix=p/&marker=p/a");
}

static void test_origin__hands_on_errors_of_a_listing(void **state)
{
	struct script s = {{{.status = 403}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(list("p/", 0), -EACCES);
	assert_null(answer.listing);
}

/* --- downloads --- */

static void test_origin__downloads(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};
	uint64_t bytes = 0;

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_whole();
	assert_int_equal(answer.starts, 1);
	assert_int_equal(answer.from[0], 0);
	assert_string_equal(answer.meta.etag, "e1");
	assert_int_equal(answer.meta.size, OBJECT_LEN);
	assert_int_equal(answer.meta.last_modified, 784111777);
	count_events(FETCH_EVENT_PROGRESS, &bytes);
	assert_int_equal(bytes, OBJECT_LEN);
	assert_int_equal(event(FETCH_EVENT_REQUEST, 0).bytes, OBJECT_LEN);
}

static void test_origin__downloads_an_empty_object(void **state)
{
	struct script s = {{{.object = {.body = "", .len = 0}}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_int_equal(answer.starts, 1);
	assert_int_equal(answer.len, 0);
	assert_int_equal(answer.meta.size, 0);
}

static void test_origin__resumes_a_body_cut_short(void **state)
{
	struct script s = {{{.object = cut("\"e1\"", 300000)},
			    {.object = cut("\"e1\"", 300000)},
			    {.object = whole("\"e1\"")}},
			   3};
	struct mini_seen seen;
	char range[64];

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_whole();
	assert_int_equal(answer.starts, 3);
	assert_true(answer.from[1] > 0 && answer.from[1] <= 300000);
	assert_true(answer.from[2] > answer.from[1]);
	for (unsigned int i = 1; i < 3; i++) {
		seen = mini_http_seen(server, i);
		snprintf(range, sizeof(range), "bytes=%llu-",
			 (unsigned long long)answer.from[i]);
		assert_string_equal(seen.range, range);
		assert_string_equal(seen.if_range, "\"e1\"");
		assert_int_equal(event(FETCH_EVENT_RESUME, i - 1).bytes,
				 answer.from[i]);
	}
	assert_int_equal(count_events(FETCH_EVENT_RESTART, NULL), 0);
}

/* Ten cuts and three retries: it goes on as long as it gets on. */
static void test_origin__resumes_as_long_as_there_is_progress(void **state)
{
	struct script s = {{{.object = cut("\"e1\"", 100000)}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_whole();
	assert_in_range(mini_http_count(server), 10, 20);
}

static void test_origin__gives_up_without_progress(void **state)
{
	struct script s = {{{.object = cut("\"e1\"", 10000)}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), -ETIMEDOUT);
	assert_int_equal(mini_http_count(server), 4);
}

/* It restarts for ever and never gets further: that must end. */
static void test_origin__gives_up_where_it_goes_in_circles(void **state)
{
	struct script s = {{{.object = cut("\"e1\"", 100000)}}, 1};

	(void)state;
	s.step[0].object.ignores_range = true;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), -ETIMEDOUT);
	assert_in_range(mini_http_count(server), 4, 6);
}

static void test_origin__resumes_what_the_caller_has(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	open_both(on_script, &s);
	answer.body = calloc(1, 4 * OBJECT_LEN);
	memcpy(answer.body, object_bytes(), 1000);
	assert_int_equal(download("x.zip", "e1", 1000), 0);
	assert_whole();
	assert_int_equal(answer.starts, 1);
	assert_int_equal(answer.from[0], 1000);
	assert_int_equal(answer.meta.size, OBJECT_LEN);
	assert_string_equal(mini_http_seen(server, 0).range, "bytes=1000-");
	assert_string_equal(mini_http_seen(server, 0).if_range, "\"e1\"");
}

static void test_origin__restarts_a_changed_object(void **state)
{
	struct script s = {{{.object = cut("\"e1\"", 300000)},
			    {.object = whole("\"e2\"")}},
			   2};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_whole();
	assert_int_equal(answer.starts, 2);
	assert_int_equal(answer.from[1], 0);
	assert_string_equal(answer.meta.etag, "e2");
	assert_int_equal(count_events(FETCH_EVENT_RESTART, NULL), 1);
	assert_int_equal(count_events(FETCH_EVENT_RESUME, NULL), 0);
}

static void test_origin__restarts_where_ranges_are_ignored(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	s.step[0].object.ignores_range = true;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", "e1", 5000), 0);
	assert_whole();
	assert_int_equal(answer.starts, 1);
	assert_int_equal(answer.from[0], 0);
}

static void test_origin__resumes_a_weak_etag_by_its_date(void **state)
{
	struct script s = {{{.object = cut("W/\"e1\"", 300000)},
			    {.object = whole("W/\"e1\"")}},
			   2};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_whole();
	assert_string_equal(mini_http_seen(server, 1).if_range,
			    "Sun, 06 Nov 1994 08:49:37 GMT");
	assert_true(answer.from[1] > 0);
	assert_string_equal(answer.meta.etag, "e1");
}

static void test_origin__restarts_where_nothing_tells_versions(void **state)
{
	struct script s = {{{.object = cut("W/\"e1\"", 300000)},
			    {.object = whole("W/\"e1\"")}},
			   2};

	(void)state;
	s.step[0].object.last_modified = NULL;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_whole();
	assert_string_equal(mini_http_seen(server, 1).range, "");
	assert_int_equal(answer.from[1], 0);
}

/* 206s that do not fit what the sink has. */
static void test_origin__restarts_after_a_wrong_part(void **state)
{
	static const char *const fields[][6] = {
		{"Content-Range", "bytes 0-9/1048576"},
		{"Content-Range", "bytes 999-1048575/1048576"},
		{"Content-Range", "bytes 1001-1048575/1048576"},
		{"Content-Range", "bytes */1048576"},
		{"Content-Range", "bytes 1000-999/1048576"},
		{"X-None", "1"},
		{"Content-Range", "bytes 1000-1009/1048576", "ETag", "\"e2\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		struct script s = {{{.status = 206, .body = "0123456789"},
				    {.object = whole("\"e1\"")}},
				   2};

		memcpy(s.step[0].fields, fields[i], sizeof(fields[i]) - 1);
		s.step[0].fields[5] = NULL;
		open_both(on_script, &s);
		assert_int_equal(download("x.zip", "e1", 1000), 0);
		assert_whole();
		assert_int_equal(answer.starts, 1);
		assert_int_equal(answer.from[0], 0);
		assert_int_equal(mini_http_count(server), 2);
		assert_string_equal(mini_http_seen(server, 1).range, "");
		close_both(NULL);
	}
}

/* Its size is not that of the version before. */
static void test_origin__restarts_after_a_part_of_another_size(void **state)
{
	struct script s = {{{.object = cut("\"e1\"", 300000)},
			    {.object = whole("\"e1\"")},
			    {.object = whole("\"e1\"")}},
			   3};

	(void)state;
	s.step[1].object.len -= 1;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", NULL, 0), 0);
	assert_whole();
	assert_int_equal(answer.from[answer.starts - 1], 0);
	assert_int_equal(mini_http_count(server), 3);
}

/* A server may send less of a range than was asked for. */
static void on_slices(void *arg, struct mini_call *call)
{
	size_t first = 0, len = 200000;
	char range[64];
	const char *const fields[] = {"ETag", "\"e1\"", "Content-Range", range,
				      NULL};

	(void)arg;
	assert(sscanf(call->seen.range, "bytes=%zu-", &first) == 1);
	if (len > OBJECT_LEN - first)
		len = OBJECT_LEN - first;
	snprintf(range, sizeof(range), "bytes %zu-%zu/%d", first,
		 first + len - 1, OBJECT_LEN);
	mini_reply(call, 206, fields, object_bytes() + first, len);
}

static void test_origin__puts_slices_together(void **state)
{
	(void)state;
	open_both(on_slices, NULL);
	answer.body = calloc(1, 4 * OBJECT_LEN);
	memcpy(answer.body, object_bytes(), 10);
	assert_int_equal(download("x.zip", "e1", 10), 0);
	assert_whole();
	assert_int_equal(answer.starts, 6);
}

static void test_origin__is_done_where_the_caller_has_all(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", "e1", OBJECT_LEN), 0);
	assert_int_equal(answer.starts, 1);
	assert_int_equal(answer.from[0], OBJECT_LEN);
	assert_int_equal(answer.len, OBJECT_LEN);
	assert_null(answer.body);
	assert_int_equal(answer.meta.size, OBJECT_LEN);
	assert_string_equal(answer.meta.etag, "e1");
}

static void test_origin__restarts_where_the_caller_has_too_much(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", "e1", OBJECT_LEN + 1), 0);
	assert_whole();
	assert_int_equal(answer.starts, 1);
	assert_int_equal(answer.from[0], 0);
}

static void test_origin__sends_no_etag_that_is_none(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	open_both(on_script, &s);
	assert_int_equal(download("x.zip", "e\"\r\nX-Evil: 1", 1000), 0);
	assert_whole();
	assert_int_equal(answer.from[0], 0);
	assert_string_equal(mini_http_seen(server, 0).range, "");
}

static void test_origin__hands_back_what_a_sink_returns(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	open_both(on_script, &s);
	answer.refuse_start = -ENOSPC;
	assert_int_equal(download("x.zip", NULL, 0), -ENOSPC);
	assert_int_equal(answer.len, 0);
	forget(&answer);
	answer.refuse_data = -EIO;
	assert_int_equal(download("x.zip", NULL, 0), -EIO);
	assert_int_equal(mini_http_count(server), 2);
	assert_int_equal(count_events(FETCH_EVENT_RETRY, NULL), 0);
}

/* --- cancelling --- */

static void wait_for_data(struct answer *a, size_t len)
{
	pthread_mutex_lock(&lock);
	while (a->len < len)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void on_gate(void *arg, struct mini_call *call)
{
	(void)arg;
	mini_gate_pass(call->server);
	mini_reply_text(call, 200, "text/plain", "late");
}

static void test_origin__cancels_while_it_waits_for_an_answer(void **state)
{
	origin_id id;

	(void)state;
	open_both(on_gate, NULL);
	id = origin_get(origin, ORIGIN_MAIN, "k", 9, on_bytes, &answer);
	mini_gate_wait_for(server, 1);
	origin_cancel(origin, id);
	origin_cancel(origin, id);
	assert_int_equal(wait_for(&answer), -ECANCELED);
	assert_int_equal(event(FETCH_EVENT_REQUEST, 0).err, -ECANCELED);
}

static void test_origin__cancels_in_the_middle_of_a_body(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};
	origin_id id;

	(void)state;
	s.step[0].object.gate_at = 100000;
	open_both(on_script, &s);
	id = origin_download(origin, ORIGIN_MAIN, "x.zip", NULL, 0, &sink,
			     &answer);
	wait_for_data(&answer, 100000);
	origin_cancel(origin, id);
	assert_int_equal(wait_for(&answer), -ECANCELED);
	assert_int_equal(answer.len, 100000);
}

static void test_origin__cancels_from_within_a_callback(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};

	(void)state;
	s.step[0].object.gate_at = 100000;
	open_both(on_script, &s);
	pthread_mutex_lock(&lock); /* no data before the id is known */
	answer.cancel_in = origin;
	answer.id = origin_download(origin, ORIGIN_MAIN, "x.zip", NULL, 0,
				    &sink, &answer);
	pthread_mutex_unlock(&lock);
	assert_int_equal(wait_for(&answer), -ECANCELED);
}

static void test_origin__cancels_what_is_queued_and_what_is_new(void **state)
{
	enum { N = 40 };
	static struct answer answers[N];
	origin_id id[N];
	struct origin_config cfg;

	(void)state;
	server = mini_http_start(on_gate, NULL);
	configure(&cfg, mini_http_url(server));
	cfg.connections = 2;
	open_with(&cfg);
	for (unsigned int i = 0; i < N; i++)
		id[i] = origin_get(origin, ORIGIN_MAIN, "k", 9, on_bytes,
				   &answers[i]);
	mini_gate_wait_for(server, 2);
	for (unsigned int i = 2; i < N; i++)
		origin_cancel(origin, id[i]);
	for (unsigned int i = 2; i < N; i++)
		assert_int_equal(wait_for(&answers[i]), -ECANCELED);
	mini_gate_open(server);
	assert_int_equal(wait_for(&answers[0]), 0);
	assert_int_equal(wait_for(&answers[1]), 0);
	assert_int_equal(mini_http_count(server), 2);
	for (unsigned int i = 0; i < N; i++)
		forget(&answers[i]);
}

static void test_origin__ignores_ids_it_does_not_know(void **state)
{
	struct script s = {{{.status = 200, .body = "x"}}, 1};
	origin_id id;

	(void)state;
	open_both(on_script, &s);
	origin_cancel(origin, 0);
	origin_cancel(origin, UINT64_MAX);
	id = origin_get(origin, ORIGIN_MAIN, "k", 9, on_bytes, &answer);
	assert_int_equal(wait_for(&answer), 0);
	origin_cancel(origin, id);
	forget(&answer);
	/* The same slot, another request. */
	assert_true(origin_get(origin, ORIGIN_MAIN, "k", 9, on_bytes,
			       &answer) != id);
	origin_cancel(origin, id);
	assert_int_equal(wait_for(&answer), 0);
}

/* A `done` that asks again at once, as long as it may. */
struct again {
	struct answer answer;
	unsigned int left;
};

static void on_again(void *arg, int err, const struct origin_meta *meta,
		     const void *bytes, size_t len)
{
	struct again *a = arg;

	(void)meta;
	(void)bytes;
	(void)len;
	/* Refused while the origin is being stopped: then that was all. */
	if (a->left-- == 0 ||
	    !origin_get(origin, ORIGIN_MAIN, "k", 9, on_again, a))
		answered(&a->answer, err);
}

static void test_origin__may_be_asked_from_within_a_callback(void **state)
{
	struct script s = {{{.status = 200, .body = "x"}}, 1};
	struct again again = {.left = 5};

	(void)state;
	open_both(on_script, &s);
	origin_get(origin, ORIGIN_MAIN, "k", 9, on_again, &again);
	assert_int_equal(wait_for(&again.answer), 0);
	assert_int_equal(mini_http_count(server), 6);
}

static void test_origin__free_answers_all_that_is_under_way(void **state)
{
	enum { N = 30 };
	static struct answer answers[N];
	struct again again = {.left = 5};

	(void)state;
	open_both(on_gate, NULL);
	for (unsigned int i = 0; i < N; i++) {
		if (i % 3 == 0)
			origin_get(origin, ORIGIN_MAIN, "k", 9, on_bytes,
				   &answers[i]);
		else if (i % 3 == 1)
			origin_list(origin, "p/", 0, on_listed, &answers[i]);
		else
			origin_download(origin, ORIGIN_MAIN, "k", NULL, 0,
					&sink, &answers[i]);
	}
	origin_get(origin, ORIGIN_MAIN, "k", 9, on_again, &again);
	mini_gate_wait_for(server, 8);
	origin_free(origin);
	origin = NULL;
	for (unsigned int i = 0; i < N; i++) {
		assert_int_equal(answers[i].done, 1);
		assert_int_equal(answers[i].err, -ECANCELED);
		forget(&answers[i]);
	}
	assert_int_equal(again.answer.done, 1);
	assert_int_equal(again.answer.err, -ECANCELED);
}

/* --- many threads --- */

static void *hammer(void *arg)
{
	enum { N = 60 };
	struct answer *answers = calloc(N, sizeof(*answers));
	unsigned int *wrong = arg;
	origin_id id[N];

	for (unsigned int i = 0; i < N; i++) {
		id[i] = i % 4 ? origin_get(origin, ORIGIN_MAIN, "k", 99,
					   on_bytes, &answers[i])
			      : origin_tail(origin, ORIGIN_MAIN, "k", 3,
					    on_bytes, &answers[i]);
		if (i % 2)
			origin_cancel(origin, id[i - i % 3]);
	}
	for (unsigned int i = 0; i < N; i++) {
		int err = wait_for(&answers[i]);

		*wrong += err != 0 && err != -ECANCELED;
		*wrong += answers[i].done != 1;
		free(answers[i].body);
	}
	free(answers);
	return NULL;
}

static void test_origin__serves_many_threads_at_once(void **state)
{
	struct script s = {{{.object = {.body = "hello", .len = 5}}}, 1};
	unsigned int wrong[4] = {0};
	pthread_t thread[4];

	(void)state;
	open_both(on_script, &s);
	for (int i = 0; i < 4; i++)
		assert_int_equal(
			pthread_create(&thread[i], NULL, hammer, &wrong[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(wrong[i], 0);
	}
}

struct crowd {
	pthread_mutex_t lock;
	unsigned int now, most; /* protected by lock */
};

static void on_crowd(void *arg, struct mini_call *call)
{
	struct crowd *c = arg;

	pthread_mutex_lock(&c->lock);
	if (++c->now > c->most)
		c->most = c->now;
	pthread_mutex_unlock(&c->lock);
	mini_gate_pass(call->server);
	/* The client can send its next only after the answer, which comes
	 * after this. */
	pthread_mutex_lock(&c->lock);
	c->now--;
	pthread_mutex_unlock(&c->lock);
	mini_reply_text(call, 200, "text/plain", PAGE("false", ""));
}

static void test_origin__keeps_to_its_connections(void **state)
{
	enum { N = 60 };
	struct crowd crowd = {.lock = PTHREAD_MUTEX_INITIALIZER};
	static struct answer answers[N];
	struct origin_config cfg;

	(void)state;
	server = mini_http_start(on_crowd, &crowd);
	configure(&cfg, mini_http_url(server));
	cfg.connections = 5;
	open_with(&cfg);
	for (unsigned int i = 0; i < N; i += 2) {
		origin_get(origin, ORIGIN_MAIN, "k", 99, on_bytes, &answers[i]);
		origin_list(origin, "", 0, on_listed, &answers[i + 1]);
	}
	mini_gate_wait_for(server, 5);
	assert_int_equal(origin_connections(origin), 5);
	mini_gate_open(server);
	for (unsigned int i = 0; i < N; i++) {
		assert_int_equal(wait_for(&answers[i]), 0);
		forget(&answers[i]);
	}
	assert_int_equal(crowd.most, 5);
	assert_true(origin_connections(origin) <= 5);
}

/* Downloads stall at the gate; whatever is small gets by. */
static void on_two_kinds(void *arg, struct mini_call *call)
{
	(void)arg;
	if (strcmp(call->seen.uri, "/large") == 0)
		mini_gate_pass(call->server);
	mini_reply_text(call, 200, "text/plain", PAGE("false", ""));
}

static void open_with_connections(unsigned int n)
{
	struct origin_config cfg;

	server = mini_http_start(on_two_kinds, NULL);
	configure(&cfg, mini_http_url(server));
	cfg.connections = n;
	open_with(&cfg);
}

static void test_origin__lets_small_requests_by_many_downloads(void **state)
{
	static const unsigned int connections[] = {2, 3, 4};
	enum { N = 20 };
	static struct answer answers[N];

	(void)state;
	for (size_t c = 0; c < sizeof(connections) / sizeof(*connections);
	     c++) {
		open_with_connections(connections[c]);
		for (unsigned int i = 0; i < N; i++)
			origin_download(origin, ORIGIN_MAIN, "large", NULL, 0,
					&sink, &answers[i]);
		mini_gate_wait_for(server, 1);
		for (unsigned int i = 0; i < 5; i++) {
			assert_int_equal(get("small", 99), 0);
			forget(&answer);
			assert_int_equal(tail("small", 4), 0);
			forget(&answer);
			assert_int_equal(list("", 0), 0);
			forget(&answer);
		}
		mini_gate_open(server);
		for (unsigned int i = 0; i < N; i++) {
			assert_int_equal(wait_for(&answers[i]), 0);
			forget(&answers[i]);
		}
		close_both(NULL);
	}
}

/* Of checksums, tails and downloads that stall none takes the last one: who
 * lists a folder needs none of them. */
static void test_origin__lets_listings_by_whatever_stalls(void **state)
{
	static const unsigned int connections[] = {3, 8};
	enum { N = 20 };
	static struct answer answers[3 * N];

	(void)state;
	for (size_t c = 0; c < sizeof(connections) / sizeof(*connections);
	     c++) {
		open_with_connections(connections[c]);
		for (unsigned int i = 0; i < N; i++) {
			origin_get(origin, ORIGIN_MAIN, "large", 999, on_bytes,
				   &answers[i]);
			origin_tail(origin, ORIGIN_MAIN, "large", 4, on_bytes,
				    &answers[N + i]);
			origin_download(origin, ORIGIN_MAIN, "large", NULL, 0,
					&sink, &answers[2 * N + i]);
		}
		mini_gate_wait_for(server, connections[c] - 1);
		for (unsigned int i = 0; i < 3; i++) {
			assert_int_equal(list("", 0), 0);
			forget(&answer);
		}
		mini_gate_open(server);
		for (unsigned int i = 0; i < 3 * N; i++) {
			assert_int_equal(wait_for(&answers[i]), 0);
			forget(&answers[i]);
		}
		close_both(NULL);
	}
}

/* --- no network --- */

static void test_origin__offline_touches_no_network(void **state)
{
	struct script s = {{{.status = 200, .body = "x"}}, 1};
	struct origin_config cfg;

	(void)state;
	server = mini_http_start(on_script, &s);
	configure(&cfg, mini_http_url(server));
	cfg.offline = true;
	open_with(&cfg);
	assert_int_equal(get("k", 9), -ENETUNREACH);
	forget(&answer);
	assert_int_equal(tail("k", 9), -ENETUNREACH);
	forget(&answer);
	assert_int_equal(head("k", "e"), -ENETUNREACH);
	forget(&answer);
	assert_int_equal(list("", 0), -ENETUNREACH);
	forget(&answer);
	assert_int_equal(download("k", NULL, 0), -ENETUNREACH);
	assert_int_equal(answer.starts, 0);
	assert_int_equal(mini_http_count(server), 0);
	assert_int_equal(origin_connections(origin), 0);
}

/* A port that nobody listens on: bound, and not let go of. */
static int closed_port(char *url, size_t room)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	snprintf(url, room, "http://127.0.0.1:%u", ntohs(in.sin_port));
	return fd;
}

static void test_origin__refused_is_unreachable_after_few_tries(void **state)
{
	struct origin_config cfg;
	char url[64];
	int fd = closed_port(url, sizeof(url));

	(void)state;
	configure(&cfg, url);
	cfg.retries = 100;
	open_with(&cfg);
	assert_int_equal(get("k", 9), -ENETUNREACH);
	assert_int_equal(count_events(FETCH_EVENT_REQUEST, NULL), 3);
	assert_int_equal(event(FETCH_EVENT_REQUEST, 0).status, 0);
	close(fd);
}

static void test_origin__stalled_is_timed_out(void **state)
{
	struct script s = {{{.object = whole("\"e1\"")}}, 1};
	struct origin_config cfg;

	(void)state;
	s.step[0].object.gate_at = 10000;
	server = mini_http_start(on_script, &s);
	configure(&cfg, mini_http_url(server));
	cfg.stall_timeout_ms = 50;
	cfg.retries = 1;
	open_with(&cfg);
	assert_int_equal(download("x.zip", NULL, 0), -ETIMEDOUT);
	assert_int_equal(count_events(FETCH_EVENT_REQUEST, NULL), 2);
	assert_int_equal(event(FETCH_EVENT_REQUEST, 1).err, -ETIMEDOUT);
}

static void test_origin__past_its_deadline_is_timed_out(void **state)
{
	struct origin_config cfg;

	(void)state;
	server = mini_http_start(on_gate, NULL);
	configure(&cfg, mini_http_url(server));
	cfg.deadline_ms = 50;
	cfg.retries = 100;
	open_with(&cfg);
	assert_int_equal(get("k", 9), -ETIMEDOUT);
	assert_int_equal(event(FETCH_EVENT_REQUEST, 0).err, -ETIMEDOUT);
	forget(&answer);
	assert_int_equal(list("", 0), -ETIMEDOUT);
}

static void test_origin__checks_its_configuration(void **state)
{
	struct origin_config good, cfg;
	struct origin *o;

	(void)state;
	configure(&good, "http://127.0.0.1:1");
	cfg = good;
	cfg.objects = "ftp://127.0.0.1";
	assert_int_equal(origin_create(&o, &cfg), -EINVAL);
	cfg = good;
	cfg.listing = "127.0.0.1";
	assert_int_equal(origin_create(&o, &cfg), -EINVAL);
	cfg = good;
	cfg.mirror = "";
	assert_int_equal(origin_create(&o, &cfg), -EINVAL);
	cfg = good;
	cfg.connections = 0;
	assert_int_equal(origin_create(&o, &cfg), -EINVAL);
	cfg.connections = 257;
	assert_int_equal(origin_create(&o, &cfg), -EINVAL);
	assert_int_equal(origin_create(&o, &good), 0);
	origin_free(o);
	origin_free(NULL);
}

#define TEST(name) cmocka_unit_test_teardown(test_origin__##name, close_both)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(gets_a_small_object_with_its_meta),
		TEST(percent_encodes_keys),
		TEST(gets_at_most_what_it_may),
		TEST(limits_what_has_no_length),
		TEST(maps_statuses_to_errors),
		TEST(tries_again_after_503),
		TEST(obeys_retry_after),
		TEST(takes_no_html_for_an_archive),
		TEST(asks_caches_to_revalidate_on_bypass),
		TEST(asks_the_mirror_only_where_told),
		TEST(without_a_mirror_says_unreachable),
		TEST(knows_that_some_keys_cannot_be),
		TEST(tails_what_is_longer_and_what_is_shorter),
		TEST(tails_an_empty_object),
		TEST(tails_small_objects_without_ranges),
		TEST(drops_large_objects_without_ranges),
		TEST(tells_a_wrong_tail),
		TEST(head_tells_whether_it_changed),
		TEST(head_knows_a_200_with_the_same_etag),
		TEST(head_fills_in_what_a_304_leaves_out),
		TEST(lists_over_pages_of_both_kinds),
		TEST(lists_one_page_with_a_limit),
		TEST(lists_nothing_where_nothing_is),
		TEST(takes_no_html_for_a_listing),
		TEST(notices_a_listing_that_repeats),
		TEST(lists_again_a_page_that_broke_off),
		TEST(hands_on_errors_of_a_listing),
		TEST(downloads),
		TEST(downloads_an_empty_object),
		TEST(resumes_a_body_cut_short),
		TEST(resumes_as_long_as_there_is_progress),
		TEST(gives_up_without_progress),
		TEST(gives_up_where_it_goes_in_circles),
		TEST(resumes_what_the_caller_has),
		TEST(restarts_a_changed_object),
		TEST(restarts_where_ranges_are_ignored),
		TEST(resumes_a_weak_etag_by_its_date),
		TEST(restarts_where_nothing_tells_versions),
		TEST(restarts_after_a_wrong_part),
		TEST(restarts_after_a_part_of_another_size),
		TEST(puts_slices_together),
		TEST(is_done_where_the_caller_has_all),
		TEST(restarts_where_the_caller_has_too_much),
		TEST(sends_no_etag_that_is_none),
		TEST(hands_back_what_a_sink_returns),
		TEST(cancels_while_it_waits_for_an_answer),
		TEST(cancels_in_the_middle_of_a_body),
		TEST(cancels_from_within_a_callback),
		TEST(cancels_what_is_queued_and_what_is_new),
		TEST(ignores_ids_it_does_not_know),
		TEST(may_be_asked_from_within_a_callback),
		TEST(free_answers_all_that_is_under_way),
		TEST(serves_many_threads_at_once),
		TEST(keeps_to_its_connections),
		TEST(lets_listings_by_whatever_stalls),
		TEST(lets_small_requests_by_many_downloads),
		TEST(offline_touches_no_network),
		TEST(refused_is_unreachable_after_few_tries),
		TEST(stalled_is_timed_out),
		TEST(past_its_deadline_is_timed_out),
		TEST(checks_its_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/support/cmocka_all.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch/request.h"
#include "tests/support/mini_http.h"
#include "tests/support/on_loop.h"

enum {
	MANY = 20,
};

static struct mini_http *server;
static struct loop *loop;
static struct http *http;
static struct request_pool *pool;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned int n_done;    /* protected by lock */
static unsigned int n_retries; /* protected by lock */

struct one {
	struct request_spec spec;
	char url[128];
	struct request *request;
	/* protected by lock: */
	unsigned int done;
	int err;
};

static int on_start(void *arg, const struct http_answer *a, uint64_t from)
{
	(void)arg;
	(void)a;
	(void)from;
	return 0;
}

static int on_data(void *arg, const void *buf, size_t len)
{
	(void)arg;
	(void)buf;
	(void)len;
	return 0;
}

static void on_done(void *arg, int err)
{
	struct one *r = arg;

	pthread_mutex_lock(&lock);
	r->done++;
	r->err = err;
	r->request = NULL;
	n_done++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static const struct request_sink sink = {on_start, on_data, on_done};

static void on_event(void *arg, const struct fetch_event *ev)
{
	(void)arg;
	if (ev->type != FETCH_EVENT_RETRY)
		return;
	pthread_mutex_lock(&lock);
	n_retries++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void wait_for(const unsigned int *count, unsigned int n)
{
	pthread_mutex_lock(&lock);
	while (*count < n)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void do_start(void *arg)
{
	struct one *r = arg;

	/* `done` would set it NULL again, were it called from within. */
	if (request_start(pool, &r->spec, &sink, r, &r->request) != 0)
		abort();
	if (!r->request)
		abort();
}

static void start(struct one *r, enum request_kind kind, const char *path)
{
	snprintf(r->url, sizeof(r->url), "%s%s", mini_http_url(server), path);
	r->spec.kind = kind;
	r->spec.what = "test";
	r->spec.key = path;
	r->spec.url = r->url;
	r->spec.tail_len = 4;
	on_loop(loop, do_start, r);
}

static void do_cancel(void *arg)
{
	struct one *r = arg;

	if (r->request)
		request_cancel(r->request);
	r->request = NULL;
}

static void cancel(struct one *r)
{
	on_loop(loop, do_cancel, r);
}

static void open_with(mini_handler *handler, struct request_config *cfg)
{
	struct http_config h = {
		.proxy = "", /* not one of the environment */
		.connections = cfg->connections,
		.connect_timeout_ms = 20000,
		.stall_timeout_ms = 20000,
	};

	n_done = n_retries = 0;
	cfg->on_event = on_event;
	server = mini_http_start(handler, NULL);
	assert_int_equal(loop_create(&loop, cfg->connections), 0);
	assert_int_equal(http_create(&http, loop, &h), 0);
	assert_int_equal(request_pool_create(&pool, loop, http, cfg), 0);
}

static void do_stop(void *arg)
{
	request_pool_stop(arg);
}

static int close_all(void **state)
{
	(void)state;
	on_loop(loop, do_stop, pool);
	on_loop_end(loop);
	request_pool_free(pool);
	http_free(http);
	mini_http_stop(server);
	return 0;
}

static void on_ok(void *arg, struct mini_call *call)
{
	(void)arg;
	mini_reply_text(call, 200, "text/plain", "tail");
}

static void on_gate(void *arg, struct mini_call *call)
{
	mini_gate_pass(call->server);
	on_ok(arg, call);
}

static void on_503(void *arg, struct mini_call *call)
{
	(void)arg;
	mini_reply_text(call, 503, "text/plain", "later");
}

/* A rate so low that within a test none is given but the bursts. */
static void test_request__paces_tails_apart_from_the_rest(void **state)
{
	struct request_config cfg = {
		.connections = 4,
		.rate_per_s = 1e-6,
		.rate_burst = 3,
		.size_burst = 5,
	};
	static struct one small[MANY], tail[MANY];
	unsigned int smalls = 0, tails = 0;

	(void)state;
	memset(small, 0, sizeof(small));
	memset(tail, 0, sizeof(tail));
	open_with(on_ok, &cfg);
	for (unsigned int i = 0; i < MANY; i++) {
		start(&small[i], i % 2 ? REQUEST_SMALL : REQUEST_DOWNLOAD,
		      "/small");
		start(&tail[i], REQUEST_TAIL, "/tail");
	}
	wait_for(&n_done, 3 + 5);
	for (unsigned int i = 0; i < MANY; i++) {
		cancel(&small[i]);
		cancel(&tail[i]);
		smalls += small[i].done;
		tails += tail[i].done;
	}
	assert_int_equal(smalls, 3);
	assert_int_equal(tails, 5);
	assert_int_equal(mini_http_count(server), 8);
}

static void test_request__goes_on_when_a_token_comes(void **state)
{
	struct request_config cfg = {
		.connections = 4,
		.rate_per_s = 200,
		.rate_burst = 1,
		.size_burst = 1,
	};
	static struct one r[MANY];

	(void)state;
	memset(r, 0, sizeof(r));
	open_with(on_ok, &cfg);
	for (unsigned int i = 0; i < MANY; i++)
		start(&r[i], REQUEST_SMALL, "/x");
	wait_for(&n_done, MANY);
	assert_int_equal(mini_http_count(server), MANY);
}

static void test_request__with_no_rate_is_unlimited(void **state)
{
	struct request_config cfg = {.connections = 4};
	static struct one r[MANY];

	(void)state;
	memset(r, 0, sizeof(r));
	open_with(on_ok, &cfg);
	for (unsigned int i = 0; i < MANY; i++)
		start(&r[i], i % REQUEST_KINDS, "/x");
	wait_for(&n_done, MANY);
	for (unsigned int i = 0; i < MANY; i++)
		assert_int_equal(r[i].err, 0);
}

static void start_many(struct one *r, enum request_kind kind, const char *path)
{
	memset(r, 0, MANY * sizeof(*r));
	for (unsigned int i = 0; i < MANY; i++)
		start(&r[i], kind, path);
}

static unsigned int count_uri(const char *uri)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < mini_http_count(server); i++)
		n += strcmp(mini_http_seen(server, i).uri, uri) == 0;
	return n;
}

/* @kind: what takes connections beside downloads */
static void check_shares(enum request_kind kind)
{
	static const struct {
		unsigned int connections, downloads, rest;
	} rules[] = {{1, 1, 1}, {2, 1, 2}, {3, 1, 2}, {4, 2, 3}, {8, 6, 7}};
	static struct one download[MANY], other[MANY], list[MANY];

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
		struct request_config cfg = {.connections =
						     rules[i].connections};

		open_with(on_gate, &cfg);
		start_many(download, REQUEST_DOWNLOAD, "/d");
		mini_gate_wait_for(server, rules[i].downloads);
		start_many(other, kind, "/o");
		mini_gate_wait_for(server, rules[i].rest);
		start_many(list, REQUEST_LIST, "/l");
		mini_gate_wait_for(server, rules[i].connections);
		assert_int_equal(count_uri("/d"), rules[i].downloads);
		assert_int_equal(count_uri("/o"),
				 rules[i].rest - rules[i].downloads);
		assert_int_equal(count_uri("/l"),
				 rules[i].connections - rules[i].rest);
		mini_gate_open(server);
		wait_for(&n_done, 3 * MANY);
		close_all(NULL);
	}
}

static void test_request__keeps_connections_for_listings(void **state)
{
	(void)state;
	check_shares(REQUEST_TAIL);
	check_shares(REQUEST_SMALL);
}

static void
test_request__gives_a_free_connection_to_the_kinds_in_turn(void **state)
{
	static const char *const order[] = {"/first", "/t1", "/d1", "/s1",
					    "/t2",    "/d2", "/s2", "/d3"};
	struct request_config cfg = {.connections = 1};
	struct one r[8] = {0};

	(void)state;
	open_with(on_gate, &cfg);
	start(&r[0], REQUEST_SMALL, "/first");
	mini_gate_wait_for(server, 1);
	start(&r[1], REQUEST_DOWNLOAD, "/d1");
	start(&r[2], REQUEST_DOWNLOAD, "/d2");
	start(&r[3], REQUEST_DOWNLOAD, "/d3");
	start(&r[4], REQUEST_SMALL, "/s1");
	start(&r[5], REQUEST_SMALL, "/s2");
	start(&r[6], REQUEST_TAIL, "/t1");
	start(&r[7], REQUEST_TAIL, "/t2");
	mini_gate_open(server);
	wait_for(&n_done, 8);
	for (unsigned int i = 0; i < 8; i++)
		assert_string_equal(mini_http_seen(server, i).uri, order[i]);
}

static void
test_request__past_its_deadline_in_the_queue_is_not_sent(void **state)
{
	struct request_config cfg = {.connections = 1};
	struct one first = {0}, queued = {0};

	(void)state;
	open_with(on_gate, &cfg);
	start(&first, REQUEST_SMALL, "/first");
	mini_gate_wait_for(server, 1);
	queued.spec.deadline_ns = loop_now_ns() + 1000000;
	start(&queued, REQUEST_SMALL, "/queued");
	wait_for(&n_done, 1);
	assert_int_equal(queued.done, 1);
	assert_int_equal(queued.err, -ETIMEDOUT);
	mini_gate_open(server);
	wait_for(&n_done, 2);
	assert_int_equal(first.err, 0);
	assert_int_equal(mini_http_count(server), 1);
}

static void test_request__past_its_deadline_while_it_waits_ends(void **state)
{
	struct request_config cfg = {
		.connections = 1,
		.retries = 5,
		.backoff = {UINT32_MAX, UINT32_MAX},
	};
	struct one r = {0};

	(void)state;
	open_with(on_503, &cfg);
	r.spec.deadline_ns = loop_now_ns() + 200000000;
	start(&r, REQUEST_SMALL, "/x");
	wait_for(&n_done, 1);
	assert_int_equal(r.err, -ETIMEDOUT);
}

static void test_request__cancelled_in_any_state_calls_nothing(void **state)
{
	struct request_config cfg = {
		.connections = 1,
		.retries = 5,
		/* Full jitter gives less than a minute once in 70,000. */
		.backoff = {UINT32_MAX, UINT32_MAX},
	};
	struct one running = {0}, queued = {0}, waiting = {0};

	(void)state;
	open_with(on_gate, &cfg);
	start(&running, REQUEST_SMALL, "/running");
	mini_gate_wait_for(server, 1);
	start(&queued, REQUEST_SMALL, "/queued");
	cancel(&queued);
	cancel(&running);
	close_all(NULL);
	assert_int_equal(queued.done + running.done, 0);

	open_with(on_503, &cfg);
	start(&waiting, REQUEST_SMALL, "/waiting");
	wait_for(&n_retries, 1);
	cancel(&waiting);
	assert_int_equal(waiting.done, 0);
	assert_int_equal(mini_http_count(server), 1);
}

/* A request that waits for its next try keeps no connection. */
static void test_request__lets_others_by_while_it_waits(void **state)
{
	struct request_config cfg = {
		.connections = 1,
		.retries = 5,
		.backoff = {UINT32_MAX, UINT32_MAX},
	};
	struct one r[3] = {0};

	(void)state;
	open_with(on_503, &cfg);
	for (unsigned int i = 0; i < 3; i++)
		start(&r[i], REQUEST_SMALL, "/x");
	wait_for(&n_retries, 3);
	for (unsigned int i = 0; i < 3; i++)
		cancel(&r[i]);
	assert_int_equal(n_done, 0);
}

#define TEST(name) cmocka_unit_test_teardown(test_request__##name, close_all)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(paces_tails_apart_from_the_rest),
		TEST(goes_on_when_a_token_comes),
		TEST(with_no_rate_is_unlimited),
		cmocka_unit_test(test_request__keeps_connections_for_listings),
		TEST(gives_a_free_connection_to_the_kinds_in_turn),
		TEST(past_its_deadline_in_the_queue_is_not_sent),
		TEST(past_its_deadline_while_it_waits_ends),
		TEST(cancelled_in_any_state_calls_nothing),
		TEST(lets_others_by_while_it_waits),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/support/cmocka_all.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fetch/http.h"
#include "tests/support/mini_http.h"
#include "tests/support/on_loop.h"

/* TEST-NET-3 (RFC 5737): public as far as anybody can tell. */
static const char public_address[] = "203.0.113.1";
static const char private_name[] = "inside.example";
static bool has_public_address;

static struct mini_http *server;
static struct loop *loop;
static struct http *http;

/* --- one exchange and what came of it --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct got {
	/* what to do: */
	struct http_ask ask;
	int head_returns, data_returns;
	/* what happened; protected by lock until done */
	struct http_exchange *exchange;
	int started;
	unsigned int heads, done;
	struct http_answer answer;
	enum http_outcome outcome;
	int err;
	char detail[256];
	char body[4096];
	size_t len;
};

static int on_head(void *arg, const struct http_answer *a)
{
	struct got *g = arg;

	g->heads++;
	g->answer = *a;
	return g->head_returns;
}

static int on_data(void *arg, const void *buf, size_t len)
{
	struct got *g = arg;

	if (g->len + len <= sizeof(g->body))
		memcpy(g->body + g->len, buf, len);
	g->len += len;
	return g->data_returns;
}

static void on_done(void *arg, const struct http_result *r)
{
	struct got *g = arg;

	pthread_mutex_lock(&lock);
	g->outcome = r->outcome;
	g->err = r->err;
	snprintf(g->detail, sizeof(g->detail), "%s", r->detail);
	g->done++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static const struct http_sink sink = {on_head, on_data, on_done};

static void do_start(void *arg)
{
	struct got *g = arg;

	g->started = http_start(http, &g->ask, &sink, g, &g->exchange);
}

static enum http_outcome wait_for(struct got *g)
{
	enum http_outcome outcome;

	pthread_mutex_lock(&lock);
	while (!g->done)
		pthread_cond_wait(&changed, &lock);
	outcome = g->outcome;
	pthread_mutex_unlock(&lock);
	return outcome;
}

static enum http_outcome ask(struct got *g, const char *url)
{
	g->ask.url = url;
	on_loop(loop, do_start, g);
	assert_int_equal(g->started, 0);
	return wait_for(g);
}

static void open_with(const struct http_config *given)
{
	struct http_config cfg = *given;

	if (!cfg.proxy)
		cfg.proxy = ""; /* not one of the environment */
	if (!cfg.connections)
		cfg.connections = 4;
	if (!cfg.connect_timeout_ms)
		cfg.connect_timeout_ms = 20000;
	if (!cfg.stall_timeout_ms)
		cfg.stall_timeout_ms = 20000;
	assert_int_equal(loop_create(&loop, cfg.connections), 0);
	assert_int_equal(http_create(&http, loop, &cfg), 0);
}

static void open_both(mini_handler *handler, void *arg)
{
	static const struct http_config usual;

	server = mini_http_start(handler, arg);
	open_with(&usual);
}

static int close_both(void **state)
{
	(void)state;
	if (server)
		mini_gate_open(server);
	if (loop)
		on_loop_end(loop);
	http_free(http);
	if (server)
		mini_http_stop(server);
	loop = NULL;
	http = NULL;
	server = NULL;
	return 0;
}

static void in_public(char *url, size_t room, const struct mini_http *s,
		      const char *path)
{
	snprintf(url, room, "http://%s:%u%s", public_address, mini_http_port(s),
		 path);
}

/* --- answers --- */

static void on_object(void *arg, struct mini_call *call)
{
	mini_serve(call, arg);
}

static void test_http__reads_the_head_of_an_answer(void **state)
{
	struct mini_object o = {
		.body = "0123456789",
		.len = 10,
		.etag = "W/\"abc-2\"",
		.last_modified = "Sun, 06 Nov 1994 08:49:37 GMT",
		.type = "Text/HTML; charset=utf-8",
	};
	struct got g = {.ask = {.range = HTTP_FROM, .range_arg = 4}};

	(void)state;
	open_both(on_object, &o);
	assert_int_equal(ask(&g, mini_http_url(server)), HTTP_ANSWERED);
	assert_int_equal(g.heads, 1);
	assert_int_equal(g.answer.status, 206);
	assert_string_equal(g.answer.etag, "abc-2");
	assert_true(g.answer.etag_is_weak);
	assert_string_equal(g.answer.last_modified, o.last_modified);
	assert_int_equal(g.answer.last_modified_s, 784111777);
	assert_true(g.answer.last_modified_is_strong);
	assert_int_equal(g.answer.body_size, 6);
	assert_int_equal(g.answer.size, 10);
	assert_true(g.answer.has_range);
	assert_int_equal(g.answer.range.first, 4);
	assert_true(g.answer.is_html);
	assert_true(g.answer.latency_ns > 0);
	assert_int_equal(g.len, 6);
	assert_memory_equal(g.body, "456789", 6);
	assert_string_equal(g.detail, "");
}

static void on_fields(void *arg, struct mini_call *call)
{
	mini_reply(call, 200, arg, "x", 1);
}

static void test_http__takes_no_etag_that_is_not_one(void **state)
{
	static char long_tag[HTTP_ETAG_MAX + 3];
	static const char *bad[] = {"abc",	 "\"abc",    "abc\"",
				    "\"",	 "\"a\"b\"", "\"a b\"",
				    "w/\"abc\"", "\"\"",     long_tag};
	const char *fields[] = {"ETag", NULL, NULL};

	(void)state;
	memset(long_tag, 'a', sizeof(long_tag) - 1);
	long_tag[0] = long_tag[sizeof(long_tag) - 2] = '"';
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct got g = {0};

		fields[1] = bad[i];
		open_both(on_fields, fields);
		assert_int_equal(ask(&g, mini_http_url(server)), HTTP_ANSWERED);
		assert_string_equal(g.answer.etag, "");
		close_both(NULL);
	}
	long_tag[1] = '"'; /* one shorter: just fits */
	fields[1] = long_tag + 1;
	{
		struct got g = {0};

		open_both(on_fields, fields);
		assert_int_equal(ask(&g, mini_http_url(server)), HTTP_ANSWERED);
		assert_int_equal(strlen(g.answer.etag), HTTP_ETAG_MAX - 1);
	}
}

static void test_http__knows_what_an_etag_may_be(void **state)
{
	(void)state;
	assert_true(http_is_etag("014a8d177da3bf9839c293f341804d26-2"));
	assert_true(http_is_etag("!\xc3\xa9~"));
	assert_false(http_is_etag(""));
	assert_false(http_is_etag("a\"b"));
	assert_false(http_is_etag("a b"));
	assert_false(http_is_etag("a\r\nX-Evil: 1"));
	assert_false(http_is_etag("a\x7f"));
}

static void test_http__limits_header_fields(void **state)
{
	static char value[8000];
	const char *fields[2 * 10 + 1];
	struct got g = {0};

	(void)state;
	memset(value, 'x', sizeof(value) - 1);
	for (int i = 0; i < 20; i += 2) {
		fields[i] = "X-Long";
		fields[i + 1] = value;
	}
	fields[20] = NULL;
	open_both(on_fields, fields);
	assert_int_equal(ask(&g, mini_http_url(server)), HTTP_BROKEN);
	assert_int_equal(g.heads, 0);
	assert_string_equal(g.detail, "too many header fields");
}

static void test_http__hands_back_what_the_sink_returns(void **state)
{
	struct mini_object o = {.body = "0123456789", .len = 10};
	struct got head = {.head_returns = -EFBIG};
	struct got data = {.data_returns = -ENOSPC};
	struct got spared = {.head_returns = HTTP_DISCARD};

	(void)state;
	open_both(on_object, &o);
	assert_int_equal(ask(&head, mini_http_url(server)), HTTP_ABORTED);
	assert_int_equal(head.err, -EFBIG);
	assert_int_equal(head.len, 0);
	assert_int_equal(ask(&data, mini_http_url(server)), HTTP_ABORTED);
	assert_int_equal(data.err, -ENOSPC);
	assert_int_equal(ask(&spared, mini_http_url(server)), HTTP_ANSWERED);
	assert_int_equal(spared.len, 0);
}

/* --- connections --- */

static void test_http__reuses_its_connection(void **state)
{
	struct mini_object o = {.body = "x", .len = 1};

	(void)state;
	open_both(on_object, &o);
	for (unsigned int i = 0; i < 5; i++) {
		/* Also past a body that nobody wants. */
		struct got g = {.head_returns = i == 1 ? HTTP_DISCARD : 0};

		assert_int_equal(ask(&g, mini_http_url(server)), HTTP_ANSWERED);
		assert_int_equal(mini_http_seen(server, i).port,
				 mini_http_seen(server, 0).port);
		assert_int_equal(http_connections(http), 1);
	}
}

static void on_gate(void *arg, struct mini_call *call)
{
	(void)arg;
	mini_gate_pass(call->server);
	mini_reply_text(call, 200, "text/plain", "late");
}

static void test_http__tells_a_stall(void **state)
{
	const struct http_config cfg = {.stall_timeout_ms = 50};
	struct got g = {0};

	(void)state;
	server = mini_http_start(on_gate, NULL);
	open_with(&cfg);
	assert_int_equal(ask(&g, mini_http_url(server)), HTTP_STALLED);
	assert_int_equal(g.heads, 0);
}

static void test_http__tells_a_cut(void **state)
{
	struct mini_object o = {
		.body = "0123456789", .len = 10, .cut_after = 5};
	struct got g = {0};

	(void)state;
	open_both(on_object, &o);
	assert_int_equal(ask(&g, mini_http_url(server)), HTTP_CUT);
	assert_true(g.len <= 5);
	assert_true(*g.detail);
}

static void do_cancel(void *arg)
{
	struct got *g = arg;

	http_cancel(g->exchange);
}

static void test_http__cancel_calls_nothing(void **state)
{
	struct got g = {0};

	(void)state;
	open_both(on_gate, NULL);
	g.ask.url = mini_http_url(server);
	on_loop(loop, do_start, &g);
	mini_gate_wait_for(server, 1);
	on_loop(loop, do_cancel, &g);
	mini_gate_open(server);
	close_both(NULL);
	assert_int_equal(g.heads, 0);
	assert_int_equal(g.done, 0);
}

/* --- a limit of bandwidth --- */

enum {
	PIECE = 16 << 10, /* CURL_MAX_WRITE_SIZE: what libcurl gives at once */
};

static struct mini_object *a_body(size_t len)
{
	static char bytes[1 << 20];
	static struct mini_object o;

	o = (struct mini_object){.body = bytes, .len = len};
	return &o;
}

static void open_limited(size_t len, uint64_t bytes_per_s, uint64_t stall_ms)
{
	const struct http_config cfg = {
		.bandwidth_bytes_per_s = bytes_per_s,
		.stall_timeout_ms = stall_ms,
	};

	server = mini_http_start(on_object, a_body(len));
	open_with(&cfg);
}

struct looked {
	const struct got *g;
	size_t len;
};

static void do_look(void *arg)
{
	struct looked *l = arg;

	l->len = l->g->len;
}

/* Until it is held, having got something. */
static void start_held(struct got *g)
{
	struct looked l = {.g = g};

	g->ask.url = mini_http_url(server);
	on_loop(loop, do_start, g);
	assert_int_equal(g->started, 0);
	while (on_loop(loop, do_look, &l), l.len == 0)
		usleep(1000);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* All but its last piece and the burst had to be waited for: 24 KiB at 8 KiB
 * a second, with gaps longer than a stall. */
static void test_http__held_to_a_rate_it_neither_stalls_nor_spins(void **state)
{
	uint64_t begin_ns = loop_now_ns(), cpu_begin_ns = cpu_ns(), took_ns;
	struct got g = {0};

	(void)state;
	open_limited(3 * PIECE, PIECE / 2, 1000);
	assert_int_equal(ask(&g, mini_http_url(server)), HTTP_ANSWERED);
	took_ns = loop_now_ns() - begin_ns;
	assert_int_equal(g.len, 3 * PIECE);
	assert_true(took_ns > 2990000000);
	assert_true(cpu_ns() - cpu_begin_ns < took_ns / 2);
}

static void test_http__several_share_one_rate(void **state)
{
	uint64_t begin_ns = loop_now_ns();
	struct got g[4] = {0};

	(void)state;
	open_limited(4 * PIECE, 6 * PIECE, 20000);
	for (int i = 0; i < 4; i++) {
		g[i].ask.url = mini_http_url(server);
		on_loop(loop, do_start, &g[i]);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(wait_for(&g[i]), HTTP_ANSWERED);
		assert_int_equal(g[i].len, 4 * PIECE);
	}
	/* 16 pieces, less 6 of burst and the last one, at 6 a second. */
	assert_true(loop_now_ns() - begin_ns > 1490000000);
}

static void test_http__held_by_a_rate_it_is_cancelled_at_once(void **state)
{
	struct got g = {0};

	(void)state;
	/* The next piece would come after 16 s. */
	open_limited(4 * PIECE, 1000, 20000);
	start_held(&g);
	on_loop(loop, do_cancel, &g);
	close_both(NULL);
	assert_int_equal(g.done, 0);
}

static void test_http__urgent_ones_pass_those_held_by_a_rate(void **state)
{
	struct got g = {0}, urgent = {.ask = {.urgent = true,
					      .range = HTTP_LAST,
					      .range_arg = 1000}};

	(void)state;
	open_limited(64 * PIECE, PIECE, 20000);
	start_held(&g);
	assert_int_equal(ask(&urgent, mini_http_url(server)), HTTP_ANSWERED);
	assert_int_equal(urgent.len, 1000);
	assert_int_equal(g.done, 0);
	on_loop(loop, do_cancel, &g);
}

static void do_refuse(void *arg)
{
	struct got *g = arg;

	g->data_returns = -ENOSPC;
}

static void
test_http__held_by_a_rate_it_hands_back_what_the_sink_returns(void **state)
{
	struct got g = {0};

	(void)state;
	open_limited(4 * PIECE, PIECE, 20000);
	start_held(&g);
	on_loop(loop, do_refuse, &g);
	assert_int_equal(wait_for(&g), HTTP_ABORTED);
	assert_int_equal(g.err, -ENOSPC);
}

static void test_http__does_not_speak_other_protocols(void **state)
{
	static const char *const urls[] = {"file:///etc/passwd", "ftp://h/",
					   "nonsense://h/", "",
					   "http://user:pw@127.0.0.1/"};

	(void)state;
	open_both(on_gate, NULL);
	for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
		struct got g = {0};
		assert_int_equal(ask(&g, urls[i]), HTTP_BROKEN);
		assert_int_equal(g.heads, 0);
	}
}

/* --- redirects --- */

/* /N leads to /N-1, and /0 is the end; anything else goes where @arg says. */
static void on_chain(void *arg, struct mini_call *call)
{
	char location[256];
	const char *fields[] = {"Location", location, NULL};
	int n;

	if (sscanf(call->seen.uri, "/%d", &n) != 1) {
		fields[1] = arg;
		mini_reply(call, 302, fields, "elsewhere", 9);
	} else if (n > 0) {
		snprintf(location, sizeof(location), "%d", n - 1);
		mini_reply(call, n % 2 ? 301 : 307, fields, "gone", 4);
	} else {
		mini_reply_text(call, 200, "text/plain", "here");
	}
}

static void test_http__follows_five_redirects(void **state)
{
	struct got five = {.ask = {.range = HTTP_FROM,
				   .range_arg = 7,
				   .if_range = "\"e\""}};
	struct got six = {0};
	char url[128];

	(void)state;
	open_both(on_chain, NULL);
	snprintf(url, sizeof(url), "%s/5", mini_http_url(server));
	assert_int_equal(ask(&five, url), HTTP_ANSWERED);
	assert_int_equal(five.answer.status, 200);
	assert_int_equal(five.heads, 1);
	assert_int_equal(five.len, 4);
	assert_memory_equal(five.body, "here", 4);
	assert_int_equal(mini_http_count(server), 6);
	assert_string_equal(mini_http_seen(server, 5).range, "bytes=7-");
	assert_string_equal(mini_http_seen(server, 5).if_range, "\"e\"");
	snprintf(url, sizeof(url), "%s/6", mini_http_url(server));
	assert_int_equal(ask(&six, url), HTTP_BROKEN);
	assert_string_equal(six.detail, "too many redirects");
	assert_int_equal(six.heads, 0);
}

static void on_no_location(void *arg, struct mini_call *call)
{
	(void)arg;
	mini_reply_text(call, 302, "text/plain", "where to?");
}

static void test_http__hands_on_a_redirect_to_nowhere(void **state)
{
	struct got g = {0};

	(void)state;
	open_both(on_no_location, NULL);
	assert_int_equal(ask(&g, mini_http_url(server)), HTTP_ANSWERED);
	assert_int_equal(g.answer.status, 302);
}

static void test_http__follows_no_redirect_to_another_scheme(void **state)
{
	static const char *const to[] = {"ftp://127.0.0.1/x",
					 "file:///etc/passwd",
					 "gopher://127.0.0.1:70/x"};

	(void)state;
	for (size_t i = 0; i < sizeof(to) / sizeof(*to); i++) {
		struct got g = {0};
		char url[128];

		open_both(on_chain, (void *)to[i]);
		snprintf(url, sizeof(url), "%s/away", mini_http_url(server));
		assert_int_equal(ask(&g, url), HTTP_BROKEN);
		assert_string_equal(g.detail,
				    "redirect to a scheme that is not http");
		assert_int_equal(mini_http_count(server), 1);
		close_both(NULL);
	}
}

static void test_http__a_private_origin_may_redirect_privately(void **state)
{
	struct mini_http *other = mini_http_start(on_chain, NULL);
	struct got g = {0};
	char to[128], url[128];

	(void)state;
	snprintf(to, sizeof(to), "http://localhost:%u/0",
		 mini_http_port(other));
	open_both(on_chain, to);
	snprintf(url, sizeof(url), "%s/away", mini_http_url(server));
	assert_int_equal(ask(&g, url), HTTP_ANSWERED);
	assert_int_equal(mini_http_count(other), 1);
	close_both(NULL);
	mini_http_stop(other);
}

static void test_http__a_public_origin_may_redirect_publicly(void **state)
{
	struct mini_http *other;
	struct got g = {0};
	char to[128], url[128];

	(void)state;
	if (!has_public_address)
		skip_without("network and mount namespaces of its own");
	other = mini_http_start(on_chain, NULL);
	in_public(to, sizeof(to), other, "/0");
	open_both(on_chain, to);
	in_public(url, sizeof(url), server, "/away");
	assert_int_equal(ask(&g, url), HTTP_ANSWERED);
	assert_int_equal(mini_http_count(other), 1);
	close_both(NULL);
	mini_http_stop(other);
}

static void test_http__a_public_origin_may_not_redirect_privately(void **state)
{
	/* The last one is a name that only its address gives away. */
	static const char *const hosts[] = {
		"127.0.0.1",  "localhost",	    "0x7f.1",
		"2130706433", "[::ffff:127.0.0.1]", "inside.example"};

	(void)state;
	if (!has_public_address)
		skip_without("network and mount namespaces of its own");
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		struct mini_http *other = mini_http_start(on_chain, NULL);
		struct got g = {0};
		char to[128], url[128];

		snprintf(to, sizeof(to), "http://%s:%u/0", hosts[i],
			 mini_http_port(other));
		open_both(on_chain, to);
		in_public(url, sizeof(url), server, "/away");
		assert_int_equal(ask(&g, url), HTTP_BROKEN);
		assert_string_equal(g.detail, "redirect to a private address");
		assert_int_equal(mini_http_count(server), 1);
		assert_int_equal(mini_http_count(other), 0);
		close_both(NULL);
		mini_http_stop(other);
	}
}

/* A connection that is open already is not opened again: judged all the same.
 * The name keeps the URL from giving it away. */
static void test_http__judges_connections_that_are_reused(void **state)
{
	struct mini_http *other;
	struct got first = {0}, second = {0};
	char to[128], url[128];

	(void)state;
	if (!has_public_address)
		skip_without("network and mount namespaces of its own");
	other = mini_http_start(on_chain, NULL);
	snprintf(to, sizeof(to), "http://%s:%u/0", private_name,
		 mini_http_port(other));
	open_both(on_chain, to);
	assert_int_equal(ask(&first, to), HTTP_ANSWERED);
	in_public(url, sizeof(url), server, "/away");
	assert_int_equal(ask(&second, url), HTTP_BROKEN);
	assert_string_equal(second.detail, "redirect to a private address");
	assert_int_equal(mini_http_count(other), 1);
	close_both(NULL);
	mini_http_stop(other);
}

/* The server plays the proxy: it answers whatever host it is asked for. */
static void on_proxy(void *arg, struct mini_call *call)
{
	const char *fields[] = {"Location", arg, NULL};

	if (strstr(call->seen.uri, "/away"))
		mini_reply(call, 302, fields, "", 0);
	else
		mini_reply_text(call, 200, "text/plain", "here");
}

static void test_http__through_a_proxy_it_judges_by_the_url(void **state)
{
	struct http_config cfg = {0};
	struct got g = {0}, h = {0};

	(void)state;
	server = mini_http_start(on_proxy, (void *)"http://127.0.0.1/secret");
	cfg.proxy = mini_http_url(server);
	cfg.no_proxy = "";
	open_with(&cfg);
	assert_int_equal(ask(&g, "http://archive.example/x"), HTTP_ANSWERED);
	assert_string_equal(mini_http_seen(server, 0).host, "archive.example");
	assert_int_equal(ask(&h, "http://archive.example/away"), HTTP_BROKEN);
	assert_string_equal(h.detail, "redirect to a private address");
	assert_int_equal(mini_http_count(server), 2);
}

/* --- TLS --- */

static char *write_file(const char *text)
{
	char *path = strdup("/tmp/tickfs-test-XXXXXX");
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	return path;
}

static void test_http__trusts_only_certificates_it_knows(void **state)
{
	struct mini_object o = {.body = "x", .len = 1};
	struct http_config cfg = {0};
	struct got unknown = {0}, known = {0}, other_name = {0};
	char *cert, *key, *path, url[64];

	(void)state;
	mini_make_cert(&cert, &key);
	path = write_file(cert);
	server = mini_http_start_tls(on_object, &o, cert, key);
	open_with(&cfg);
	assert_int_equal(ask(&unknown, mini_http_url(server)), HTTP_REFUSED);
	assert_int_equal(mini_http_count(server), 0);
	on_loop_end(loop);
	http_free(http);

	cfg.cacert = path;
	open_with(&cfg);
	assert_int_equal(ask(&known, mini_http_url(server)), HTTP_ANSWERED);
	snprintf(url, sizeof(url), "https://127.0.0.2:%u/",
		 mini_http_port(server));
	assert_int_equal(ask(&other_name, url), HTTP_REFUSED);
	assert_int_equal(mini_http_count(server), 1);
	close_both(NULL);
	unlink(path);
	free(path);
	free(cert);
	free(key);
}

static void test_http__never_leaves_https(void **state)
{
	struct mini_http *plain = mini_http_start(on_chain, NULL);
	struct http_config cfg = {0};
	struct got g = {0};
	char *cert, *key, *path, to[64], url[64];

	(void)state;
	snprintf(to, sizeof(to), "%s/0", mini_http_url(plain));
	mini_make_cert(&cert, &key);
	path = write_file(cert);
	server = mini_http_start_tls(on_chain, to, cert, key);
	cfg.cacert = path;
	open_with(&cfg);
	snprintf(url, sizeof(url), "%s/away", mini_http_url(server));
	assert_int_equal(ask(&g, url), HTTP_BROKEN);
	assert_string_equal(g.detail, "redirect from https to another scheme");
	assert_int_equal(mini_http_count(server), 1);
	assert_int_equal(mini_http_count(plain), 0);
	close_both(NULL);
	mini_http_stop(plain);
	unlink(path);
	free(path);
	free(cert);
	free(key);
}

#define TEST(name) cmocka_unit_test_teardown(test_http__##name, close_both)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reads_the_head_of_an_answer),
		TEST(takes_no_etag_that_is_not_one),
		TEST(knows_what_an_etag_may_be),
		TEST(limits_header_fields),
		TEST(hands_back_what_the_sink_returns),
		TEST(reuses_its_connection),
		TEST(tells_a_stall),
		TEST(tells_a_cut),
		TEST(cancel_calls_nothing),
		TEST(held_to_a_rate_it_neither_stalls_nor_spins),
		TEST(several_share_one_rate),
		TEST(held_by_a_rate_it_is_cancelled_at_once),
		TEST(urgent_ones_pass_those_held_by_a_rate),
		TEST(held_by_a_rate_it_hands_back_what_the_sink_returns),
		TEST(does_not_speak_other_protocols),
		TEST(follows_five_redirects),
		TEST(hands_on_a_redirect_to_nowhere),
		TEST(follows_no_redirect_to_another_scheme),
		TEST(a_private_origin_may_redirect_privately),
		TEST(a_public_origin_may_redirect_publicly),
		TEST(a_public_origin_may_not_redirect_privately),
		TEST(judges_connections_that_are_reused),
		TEST(through_a_proxy_it_judges_by_the_url),
		TEST(trusts_only_certificates_it_knows),
		TEST(never_leaves_https),
	};

	has_public_address = mini_own_network(public_address, private_name);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

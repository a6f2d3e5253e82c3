/*
 * An exchange is one easy handle, sent out once and again for each redirect.
 * Its head is read lazily, when the first byte of the body comes or the
 * transfer ends: by then libcurl has all header fields.
 *
 * Easy handles are kept for reuse, for with them live the TLS sessions.
 */
#include "fetch/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fetch/backoff.h"
#include "fetch/peer.h"
#include "fetch/throttle.h"

enum {
	BUFFER_BYTES = 128 << 10,
};

struct http {
	struct loop *loop;
	char *proxy, *no_proxy, *cacert;
	uint64_t connect_timeout_ms, stall_timeout_ms;
	bool may_proxy;
	struct throttle throttle;
	struct loop_timer go_on; /* set while exchanges are held */
	atomic_uint sockets;
	unsigned int n_idle, connections;
	CURL *idle[]; /* room for `connections` */
};

struct http_exchange {
	struct http *h;
	const struct http_sink *sink;
	void *arg;
	struct loop_transfer transfer;
	struct loop_timer stall;
	struct throttle_flow flow;
	struct curl_slist *fields;

	uint64_t start_ns;
	uint64_t first_ns; /* when the answer began; 0: it did not yet */
	uint64_t heard_ns; /* when anything last came */
	unsigned int redirects;
	bool is_secure;	     /* this hop is https */
	bool host_private;   /* the first URL's host says so itself */
	bool origin_private; /* and so was the first peer's address */

	/* Of the answer to this hop: */
	bool connected, begun, discard, redirect, stalled;
	size_t header_bytes, discarded;
	int err;	   /* what the sink returned */
	const char *fault; /* why it counts as HTTP_BROKEN, or NULL */
	char curl_words[CURL_ERROR_SIZE];
};

static int copy_string(char **to, const char *from)
{
	if (!from)
		return 0;
	*to = strdup(from);
	return *to ? 0 : -ENOMEM;
}

/* The variables libcurl looks at (CURLOPT_PROXY(3)). */
static bool environment_has_proxy(void)
{
	static const char *const names[] = {
		"http_proxy", "https_proxy", "HTTPS_PROXY",
		"all_proxy",  "ALL_PROXY",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const char *value = getenv(names[i]);

		if (value && *value)
			return true;
	}
	return false;
}

static void on_go_on(void *arg);

int http_create(struct http **out, struct loop *l,
		const struct http_config *cfg)
{
	struct http *h;

	h = calloc(1, sizeof(*h) + cfg->connections * sizeof(*h->idle));
	if (!h)
		return -ENOMEM;
	h->loop = l;
	h->connections = cfg->connections;
	h->connect_timeout_ms = cfg->connect_timeout_ms;
	h->stall_timeout_ms = cfg->stall_timeout_ms;
	throttle_init(&h->throttle, cfg->bandwidth_bytes_per_s, loop_now_ns());
	h->go_on.fn = on_go_on;
	h->go_on.arg = h;
	atomic_init(&h->sockets, 0);
	h->may_proxy = cfg->proxy ? *cfg->proxy : environment_has_proxy();
	if (copy_string(&h->proxy, cfg->proxy) ||
	    copy_string(&h->no_proxy, cfg->no_proxy) ||
	    copy_string(&h->cacert, cfg->cacert)) {
		http_free(h);
		return -ENOMEM;
	}
	*out = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	while (h->n_idle)
		curl_easy_cleanup(h->idle[--h->n_idle]);
	free(h->proxy);
	free(h->no_proxy);
	free(h->cacert);
	free(h);
}

unsigned int http_connections(const struct http *h)
{
	return atomic_load_explicit(&h->sockets, memory_order_relaxed);
}

static CURL *take_easy(struct http *h)
{
	return h->n_idle ? h->idle[--h->n_idle] : curl_easy_init();
}

static void give_easy(struct http *h, CURL *easy)
{
	curl_easy_reset(easy);
	if (h->n_idle < h->connections)
		h->idle[h->n_idle++] = easy;
	else
		curl_easy_cleanup(easy);
}

static void free_exchange(struct http_exchange *x)
{
	struct http *h = x->h;

	loop_clear_timer(h->loop, &x->stall);
	throttle_leave(&h->throttle, &x->flow);
	if (throttle_is_idle(&h->throttle))
		loop_clear_timer(h->loop, &h->go_on);
	if (x->transfer.easy)
		give_easy(h, x->transfer.easy);
	curl_slist_free_all(x->fields);
	free(x);
}

static void rearm_stall(struct http_exchange *x)
{
	struct http *h = x->h;
	uint64_t ms = h->stall_timeout_ms;

	if (!ms)
		return;
	/* While it connects, libcurl's own timeout comes first. */
	if (!x->connected)
		ms += h->connect_timeout_ms;
	loop_set_timer(h->loop, &x->stall, x->heard_ns + ms * 1000000);
}

/* --- where it may connect to --- */

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose,
				    struct curl_sockaddr *to)
{
	struct http_exchange *x = arg;
	int fd;

	(void)purpose;
	/* Through a proxy, this is the proxy's address; see on_connected(). */
	if (x->redirects && !x->origin_private && peer_is_private(&to->addr)) {
		x->fault = "redirect to a private address";
		return CURL_SOCKET_BAD;
	}
	fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	atomic_fetch_add_explicit(&x->h->sockets, 1, memory_order_relaxed);
	return fd;
}

/* @arg is not the exchange: the connection outlives it. */
static int on_close_socket(void *arg, curl_socket_t fd)
{
	struct http *h = arg;

	atomic_fetch_sub_explicit(&h->sockets, 1, memory_order_relaxed);
	return close(fd);
}

static bool address_is_private(const char *text)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	struct sockaddr_in in = {.sin_family = AF_INET};

	if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
		return peer_is_private((struct sockaddr *)&in);
	if (inet_pton(AF_INET6, text, &in6.sin6_addr) == 1)
		return peer_is_private((struct sockaddr *)&in6);
	return true;
}

/*
 * A connection stands, and nothing was asked on it yet: also one that is
 * reused, which on_open_socket() does not see.
 */
static int on_connected(void *arg, char *peer, char *local, int peer_port,
			int local_port)
{
	struct http_exchange *x = arg;

	(void)local;
	(void)peer_port;
	(void)local_port;
	x->connected = true;
	x->heard_ns = loop_now_ns();
	rearm_stall(x);
	if (!x->redirects) {
		x->origin_private = address_is_private(peer);
	} else if (!x->origin_private && address_is_private(peer)) {
		x->fault = "redirect to a private address";
		return CURL_PREREQFUNC_ABORT;
	}
	x->fault = NULL; /* of another address of the same host */
	return CURL_PREREQFUNC_OK;
}

/* What the URL itself tells of where a redirect leads. */
static const char *judge_redirect(const struct http_exchange *x,
				  const char *scheme, const char *host)
{
	bool private_ok =
		x->host_private || (x->origin_private && !x->h->may_proxy);

	if (strcmp(scheme, "https") != 0) {
		if (x->is_secure)
			return "redirect from https to another scheme";
		if (strcmp(scheme, "http") != 0)
			return "redirect to a scheme that is not http";
	}
	if (!private_ok && peer_host_is_private(host))
		return "redirect to a private address";
	return NULL;
}

/* Takes @url apart and checks it as a redirect, if this is one. Returns 0,
 * -EPROTO with fault set, or -ENOMEM. */
static int check_url(struct http_exchange *x, const char *url)
{
	char *scheme = NULL, *host = NULL;
	int err;
	CURLU *u;

	u = curl_url();
	if (!u)
		return -ENOMEM;
	if (curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) ==
	    CURLUE_OK) {
		curl_url_get(u, CURLUPART_SCHEME, &scheme, 0);
		curl_url_get(u, CURLUPART_HOST, &host, 0);
	}
	if (!scheme)
		x->fault = "malformed URL";
	else if (x->redirects)
		x->fault = judge_redirect(x, scheme, host ? host : "");
	else
		x->host_private = host && peer_host_is_private(host);
	err = x->fault ? -EPROTO : 0;
	if (!err)
		x->is_secure = strcmp(scheme, "https") == 0;
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(u);
	return err;
}

/* --- the head of an answer --- */

static bool field(CURL *easy, const char *name, const char **value)
{
	struct curl_header *found;

	if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &found) !=
	    CURLHE_OK)
		return false;
	*value = found->value;
	return true;
}

bool http_is_etag(const char *s)
{
	size_t len = strlen(s);

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c <= 0x20 || c == '"' || c == 0x7f)
			return false;
	}
	return len > 0 && len < HTTP_ETAG_MAX;
}

static void read_etag(CURL *easy, struct http_answer *a)
{
	const char *value;
	bool weak;
	size_t len;

	if (!field(easy, "ETag", &value))
		return;
	weak = strncmp(value, "W/", 2) == 0;
	if (weak)
		value += 2;
	len = strlen(value);
	if (len < 2 || value[0] != '"' || value[len - 1] != '"')
		return;
	len -= 2;
	if (len >= sizeof(a->etag))
		return;
	memcpy(a->etag, value + 1, len);
	a->etag[len] = '\0';
	a->etag_is_weak = weak;
	if (!http_is_etag(a->etag))
		a->etag[0] = '\0';
}

static void read_last_modified(CURL *easy, struct http_answer *a)
{
	const char *value, *date;
	int64_t at;

	a->last_modified_s = -1;
	if (!field(easy, "Last-Modified", &value) ||
	    strlen(value) >= sizeof(a->last_modified))
		return;
	at = curl_getdate(value, NULL);
	if (at < 0)
		return;
	a->last_modified_s = at;
	strcpy(a->last_modified, value);
	/* Within a second of its change an object may have changed twice. */
	a->last_modified_is_strong =
		field(easy, "Date", &date) && curl_getdate(date, NULL) > at;
}

static void read_sizes(CURL *easy, struct http_answer *a)
{
	const char *value;
	curl_off_t length = -1;

	curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	a->body_size = length >= 0 ? (uint64_t)length : UINT64_MAX;
	a->size = a->status == 200 ? a->body_size : UINT64_MAX;
	if ((a->status == 206 || a->status == 416) &&
	    field(easy, "Content-Range", &value) &&
	    range_parse(value, &a->range) == 0) {
		a->has_range = true;
		a->size = a->range.total;
	}
}

static void read_answer(struct http_exchange *x, struct http_answer *a)
{
	CURL *easy = x->transfer.easy;
	const char *value;
	long status = 0;

	*a = (struct http_answer){0};
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	a->status = (int)status;
	read_etag(easy, a);
	read_last_modified(easy, a);
	read_sizes(easy, a);
	if (field(easy, "Content-Type", &value))
		a->is_html = strncasecmp(value, "text/html", 9) == 0;
	if (field(easy, "Retry-After", &value))
		a->retry_after_ms = backoff_retry_after_ms(value, time(NULL));
	a->latency_ns = x->first_ns - x->start_ns;
}

/* libcurl works out where to only once it has the whole body; see follow(). */
static bool is_redirect(CURL *easy, int status)
{
	const char *location;

	switch (status) {
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return field(easy, "Location", &location);
	default:
		return false;
	}
}

/* The head is complete. Sets err if the sink wants no more. */
static void begin(struct http_exchange *x)
{
	struct http_answer a;
	int ret;

	x->begun = true;
	read_answer(x, &a);
	if (is_redirect(x->transfer.easy, a.status)) {
		x->redirect = true;
		x->discard = true;
		return;
	}
	ret = x->sink->head(x->arg, &a);
	if (ret < 0)
		x->err = ret;
	else if (ret == HTTP_DISCARD)
		x->discard = true;
}

static size_t on_field(char *buf, size_t size, size_t n, void *arg)
{
	struct http_exchange *x = arg;

	(void)buf;
	x->heard_ns = loop_now_ns();
	if (!x->first_ns)
		x->first_ns = x->heard_ns;
	throttle_spend(&x->h->throttle, size * n, x->heard_ns);
	x->header_bytes += size * n;
	if (x->header_bytes > HTTP_HEADER_BYTES_MAX) {
		x->fault = "too many header fields";
		return 0;
	}
	return size * n;
}

/* Its bytes stay with libcurl, and then with the server. It is not to be
 * blamed for the silence. */
static size_t hold(struct http_exchange *x)
{
	struct http *h = x->h;

	loop_clear_timer(h->loop, &x->stall);
	if (!h->go_on.is_set)
		loop_set_timer(h->loop, &h->go_on, x->heard_ns);
	return CURL_WRITEFUNC_PAUSE;
}

static size_t on_body(char *buf, size_t size, size_t n, void *arg)
{
	struct http_exchange *x = arg;
	size_t len = size * n;

	x->heard_ns = loop_now_ns();
	if (!x->begun)
		begin(x);
	if (x->err)
		return CURL_WRITEFUNC_ERROR;
	if (x->discard) {
		throttle_spend(&x->h->throttle, len, x->heard_ns);
		x->discarded += len;
		return x->discarded > HTTP_DISCARD_MAX ? CURL_WRITEFUNC_ERROR
						       : len;
	}
	if (!throttle_pass(&x->h->throttle, &x->flow, len, x->heard_ns))
		return hold(x);
	x->err = x->sink->data(x->arg, buf, len);
	return x->err ? CURL_WRITEFUNC_ERROR : len;
}

/* --- its end --- */

static enum http_outcome outcome_of(const struct http_exchange *x,
				    CURLcode result)
{
	switch (result) {
	case CURLE_OK:
		return HTTP_ANSWERED;
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_INTERFACE_FAILED:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PROXY:
		return HTTP_UNREACHABLE;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		return HTTP_REFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return x->connected ? HTTP_STALLED : HTTP_UNREACHABLE;
	case CURLE_PARTIAL_FILE:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		return x->connected ? HTTP_CUT : HTTP_UNREACHABLE;
	case CURLE_OUT_OF_MEMORY:
		return HTTP_NO_MEMORY;
	default:
		return HTTP_BROKEN;
	}
}

static void finish(struct http_exchange *x, CURLcode result)
{
	const struct http_sink *sink = x->sink;
	char words[CURL_ERROR_SIZE];
	struct http_result r = {
		.outcome = outcome_of(x, result),
		.detail = words,
	};
	void *arg = x->arg;

	if (x->err) {
		r.outcome = HTTP_ABORTED;
		r.err = x->err;
	} else if (x->fault) {
		r.outcome = HTTP_BROKEN;
	} else if (x->stalled) {
		r.outcome = x->connected ? HTTP_STALLED : HTTP_UNREACHABLE;
	} else if (x->discarded > HTTP_DISCARD_MAX && !x->redirect) {
		r.outcome = HTTP_ANSWERED;
	}
	if (r.outcome == HTTP_ANSWERED)
		words[0] = '\0';
	else
		snprintf(words, sizeof(words), "%s",
			 x->fault	  ? x->fault
			 : *x->curl_words ? x->curl_words
			 : x->stalled	  ? "no data came"
			 : r.outcome == HTTP_ABORTED
				 ? ""
				 : curl_easy_strerror(result));
	free_exchange(x);
	sink->done(arg, &r);
}

static int send_out(struct http_exchange *x)
{
	x->heard_ns = loop_now_ns();
	rearm_stall(x);
	return loop_add_transfer(x->h->loop, &x->transfer);
}

/* Sends the exchange on to where the answer points. */
static CURLcode follow(struct http_exchange *x)
{
	CURL *easy = x->transfer.easy;
	char *url = NULL;
	int err;

	if (++x->redirects > HTTP_REDIRECTS_MAX) {
		x->fault = "too many redirects";
		return CURLE_TOO_MANY_REDIRECTS;
	}
	curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &url);
	err = check_url(x, url ? url : "");
	if (err)
		return err == -ENOMEM ? CURLE_OUT_OF_MEMORY
				      : CURLE_URL_MALFORMAT;
	/* libcurl copies it, also when it is its own. */
	if (curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK)
		return CURLE_OUT_OF_MEMORY;
	x->connected = x->begun = x->discard = x->redirect = false;
	x->header_bytes = x->discarded = 0;
	x->first_ns = 0;
	return send_out(x) == 0 ? CURLE_OK : CURLE_OUT_OF_MEMORY;
}

static void on_transferred(void *arg, CURLcode result)
{
	struct http_exchange *x = arg;

	loop_clear_timer(x->h->loop, &x->stall);
	if (result == CURLE_OK && !x->begun)
		begin(x);
	if (result == CURLE_OK && x->redirect) {
		result = follow(x);
		if (result == CURLE_OK)
			return;
	}
	finish(x, result);
}

static void on_stall_timer(void *arg)
{
	struct http_exchange *x = arg;
	uint64_t ms = x->h->stall_timeout_ms;

	if (!x->connected)
		ms += x->h->connect_timeout_ms;
	if (x->heard_ns + ms * 1000000 > loop_now_ns()) {
		rearm_stall(x);
		return;
	}
	x->stalled = true;
	loop_remove_transfer(x->h->loop, &x->transfer);
	finish(x, CURLE_OPERATION_TIMEDOUT);
}

/* libcurl may hand over what it kept from within the call, or fail at it. */
static void go_on(struct http_exchange *x)
{
	CURLcode result;

	x->heard_ns = loop_now_ns();
	rearm_stall(x);
	result = curl_easy_pause(x->transfer.easy, CURLPAUSE_CONT);
	if (result == CURLE_OK && !x->err)
		return;
	loop_remove_transfer(x->h->loop, &x->transfer);
	finish(x, result == CURLE_OK ? CURLE_WRITE_ERROR : result);
}

static void on_go_on(void *arg)
{
	struct http *h = arg;
	struct throttle_flow *f;
	uint64_t now_ns = loop_now_ns(), wait_ns;

	while ((f = throttle_next(&h->throttle, now_ns, &wait_ns)))
		go_on(f->arg);
	if (wait_ns != UINT64_MAX)
		loop_set_timer(h->loop, &h->go_on, now_ns + wait_ns);
}

/* --- its beginning --- */

static bool add_field(struct http_exchange *x, const char *name,
		      const char *value)
{
	struct curl_slist *longer;
	char *line = NULL;

	if (asprintf(&line, "%s: %s", name, value) < 0)
		return false;
	longer = curl_slist_append(x->fields, line);
	free(line);
	if (longer)
		x->fields = longer;
	return longer;
}

static bool add_fields(struct http_exchange *x, const struct http_ask *ask)
{
	/* With none, a server might choose one (RFC 9110 section 12.5.3). */
	bool ok = add_field(x, "Accept-Encoding", "identity");

	if (ask->bypass)
		ok = ok && add_field(x, "Cache-Control", "no-cache") &&
		     add_field(x, "Pragma", "no-cache");
	if (ask->if_range)
		ok = ok && add_field(x, "If-Range", ask->if_range);
	if (ask->if_none_match)
		ok = ok && add_field(x, "If-None-Match", ask->if_none_match);
	return ok;
}

#define SET(option, value)                                                     \
	do {                                                                   \
		if (curl_easy_setopt(easy, option, value) != CURLE_OK)         \
			return false;                                          \
	} while (0)

static bool set_range(CURL *easy, const struct http_ask *ask)
{
	char range[32];

	if (ask->range == HTTP_WHOLE)
		return true;
	snprintf(range, sizeof(range),
		 ask->range == HTTP_FROM ? "%" PRIu64 "-" : "-%" PRIu64,
		 ask->range_arg);
	SET(CURLOPT_RANGE, range);
	return true;
}

static bool set_callbacks(struct http_exchange *x, CURL *easy)
{
	SET(CURLOPT_HEADERFUNCTION, on_field);
	SET(CURLOPT_HEADERDATA, x);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, x);
	SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	SET(CURLOPT_OPENSOCKETDATA, x);
	SET(CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, x->h);
	SET(CURLOPT_PREREQFUNCTION, on_connected);
	SET(CURLOPT_PREREQDATA, x);
	SET(CURLOPT_ERRORBUFFER, x->curl_words);
	return true;
}

static bool set_options(struct http_exchange *x, CURL *easy,
			const struct http_ask *ask)
{
	struct http *h = x->h;

	SET(CURLOPT_URL, ask->url);
	SET(CURLOPT_NOBODY, ask->head ? 1L : 0L);
	SET(CURLOPT_HTTPHEADER, x->fields);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_HTTP_VERSION, throttle_is_on(&h->throttle)
					  ? (long)CURL_HTTP_VERSION_1_1
					  : (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_USERAGENT, "tickfs/" TICKFS_VERSION);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	/* Else to cancel one would wait until its name is resolved. */
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	/* Refused where a handle still has the buffer of a transfer that never
	 * connected; then that one serves. */
	(void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)h->connect_timeout_ms);
	if (h->proxy)
		SET(CURLOPT_PROXY, h->proxy);
	if (h->no_proxy)
		SET(CURLOPT_NOPROXY, h->no_proxy);
	if (h->cacert)
		SET(CURLOPT_CAINFO, h->cacert);
	return set_range(easy, ask) && set_callbacks(x, easy);
}

#undef SET

int http_start(struct http *h, const struct http_ask *ask,
	       const struct http_sink *sink, void *arg,
	       struct http_exchange **out)
{
	struct http_exchange *x;

	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->h = h;
	x->sink = sink;
	x->arg = arg;
	x->stall.fn = on_stall_timer;
	x->stall.arg = x;
	x->transfer.fn = on_transferred;
	x->transfer.arg = x;
	x->flow.urgent = ask->urgent;
	x->flow.arg = x;
	x->start_ns = loop_now_ns();
	x->transfer.easy = take_easy(h);
	/* A URL that does not parse is libcurl's to refuse. */
	if (!x->transfer.easy || check_url(x, ask->url) == -ENOMEM ||
	    !add_fields(x, ask) || !set_options(x, x->transfer.easy, ask) ||
	    send_out(x) != 0) {
		free_exchange(x);
		return -ENOMEM;
	}
	*out = x;
	return 0;
}

void http_cancel(struct http_exchange *x)
{
	loop_remove_transfer(x->h->loop, &x->transfer);
	free_exchange(x);
}

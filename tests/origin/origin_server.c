/*
 * One request goes: its line and headers are read (on_uri, on_request), it is
 * named (identify), counted, judged by the rules, waits (linger), gets a reply
 * (send_*: status, headers and a body), and the body is sent through
 * read_body(), which is where bodies are cut, stalled, held, slowed and
 * falsified. Each connection has a thread, so each of these may simply block.
 *
 * libmicrohttpd calls on_completed() for every request that on_uri() saw.
 */
#include "tests/origin/origin_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/origin/bucket.h"
#include "tests/origin/gates.h"
#include "tests/origin/journal.h"

enum {
	PAGE_SIZE_MAX = 1000,
	UPLOAD_MAX = 4 << 20,
	BLOCK = 256 << 10,
	CHECKSUM_MAX = 64 << 10,
	CONNECTIONS = 4096,
	BACKLOG = 1024,
	STACK = 1 << 20,
};

struct imitation {
	struct MHD_Daemon *daemon;
	struct imitation_bucket *bucket;
	struct imitation_gates *gates;
	struct imitation_journal *journal;
	char *listing_path, *url, *listing_url;
	uint16_t port;

	pthread_mutex_t lock;
	struct imitation_rules *rules; /* protected by lock */
};

/* Kept by libmicrohttpd for each connection, used by its thread only. */
struct connection {
	bool counted;
};

struct request {
	struct imitation *im;
	struct connection *connection;
	struct MHD_Connection *mhd;
	int fd; /* of the socket */
	char *query;
	const char *path;
	bool begun, is_head, is_control;
	struct imitation_rules *rules;
	struct imitation_fault fault;
	enum imitation_kind kind;
	enum imitation_host host;
	const char *key;
	uint64_t id; /* in the journal; 0: not counted */
	char *upload;
	size_t upload_len;
};

/* A body: of memory or of a file. */
struct body {
	struct request *r;
	char *mem; /* malloc'ed, or NULL */
	int fd;	   /* or -1 */
	uint64_t from, len;
	uint64_t size; /* of the whole object */
	bool stalled, held;
	uint64_t start_ns;
};

struct reply {
	unsigned int status;
	struct body *body;
	const char *content_type;
	char *etag;		/* with quotes, or NULL */
	char last_modified[64]; /* "" for none */
	char content_range[96], allow[32];
};

static const char html_page[] =
	"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">"
	"\n<title>Binance Data Collection</title>\n</head>\n<body>\n"
	"<div id=\"listing\"></div>\n<script>\n"
	"var BUCKET_URL = '/data.binance.vision';\n"
	"var S3B_ROOT_DIR = 'data/';\nvar EXCLUDE_FILE = 'index.html';\n"
	"</script>\n<p>An imitation for tests, not affiliated with Binance.</p>"
	"\n</body>\n</html>\n";

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static bool begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), m = strlen(with);

	return n >= m && !strcmp(s + n - m, with);
}

static const char *header(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

static const char *argument(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->mhd, MHD_GET_ARGUMENT_KIND, name);
}

/* -- bodies -------------------------------------------------------------- */

static void body_free(void *arg)
{
	struct body *b = arg;

	if (!b)
		return;
	if (b->fd >= 0)
		close(b->fd);
	free(b->mem);
	free(b);
}

/* Takes @mem and @fd in any case. */
static struct body *body_new(struct request *r, char *mem, int fd,
			     uint64_t from, uint64_t len)
{
	struct body *b = calloc(1, sizeof(*b));

	if (!b) {
		if (fd >= 0)
			close(fd);
		free(mem);
		return NULL;
	}
	b->r = r;
	b->mem = mem;
	b->fd = fd;
	b->from = from;
	b->len = len;
	b->size = len;
	return b;
}

static struct body *body_of_text(struct request *r, const char *text)
{
	char *copy = strdup(text);

	return copy ? body_new(r, copy, -1, 0, strlen(text)) : NULL;
}

/* What may be sent at once at @pos: not across a place where something is to
 * happen, and a twentieth of a second where the body is slowed. */
static size_t body_step(const struct body *b, uint64_t pos, size_t max)
{
	const struct imitation_fault *f = &b->r->fault;
	const int64_t places[] = {f->cut_after, f->stall_after, f->hold_after};
	uint64_t step = b->len - pos;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (places[i] > 0 && (uint64_t)places[i] > pos &&
		    (uint64_t)places[i] - pos < step)
			step = (uint64_t)places[i] - pos;
	if (f->throttle > 0 && step > (uint64_t)f->throttle / 20 + 1)
		step = (uint64_t)f->throttle / 20 + 1;
	return step < max ? (size_t)step : max;
}

static int body_pause(struct body *b, uint64_t pos)
{
	const struct imitation_fault *f = &b->r->fault;
	struct imitation_gates *gates = b->r->im->gates;
	int err = 0;

	if (f->hold && f->hold_after >= 0 && pos == (uint64_t)f->hold_after &&
	    !b->held) {
		b->held = true;
		err = imitation_gates_wait(gates, f->hold, b->r->fd);
	}
	if (!err && f->stall_after >= 0 && pos == (uint64_t)f->stall_after &&
	    !b->stalled) {
		b->stalled = true;
		err = imitation_gates_sleep(
			gates, f->stall_ms >= 0 ? f->stall_ms : -1, b->r->fd);
	}
	if (!err && f->throttle > 0) {
		uint64_t due_ms = pos * 1000 / (uint64_t)f->throttle;
		uint64_t now_ms = (clock_ns() - b->start_ns) / 1000000;

		if (due_ms > now_ms)
			err = imitation_gates_sleep(
				gates, (int64_t)(due_ms - now_ms), b->r->fd);
	}
	return err;
}

static void body_falsify(const struct body *b, uint64_t pos, char *buf,
			 size_t n)
{
	int64_t at = b->r->fault.flip_at;
	uint64_t off;

	if (at == IMITATION_UNSET || (at < 0 && (uint64_t)-at > b->size))
		return;
	off = at < 0 ? b->size - (uint64_t)-at : (uint64_t)at;
	if (off >= b->from + pos && off - b->from - pos < n)
		buf[off - b->from - pos] ^= (char)0xff;
}

static ssize_t read_body(void *arg, uint64_t pos, char *buf, size_t max)
{
	struct body *b = arg;
	const struct imitation_fault *f = &b->r->fault;
	ssize_t n;

	if (!b->start_ns)
		b->start_ns = clock_ns();
	if (body_pause(b, pos))
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (f->cut_after >= 0 && pos >= (uint64_t)f->cut_after)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (pos >= b->len)
		return MHD_CONTENT_READER_END_OF_STREAM;
	max = body_step(b, pos, max);
	if (b->mem) {
		memcpy(buf, b->mem + b->from + pos, max);
		n = (ssize_t)max;
	} else {
		n = pread(b->fd, buf, max, (off_t)(b->from + pos));
	}
	if (n <= 0)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	body_falsify(b, pos, buf, (size_t)n);
	if (b->r->id)
		imitation_journal_bytes(b->r->im->journal, b->r->id,
					(uint64_t)n);
	return n;
}

/*
 * A body is read into blocks rather than sent by sendfile(2): with blocks of
 * this size it was no slower (2.8 against 1.7 GB/s on two cores) and what was
 * sent is known to the byte when a client goes away.
 */
static struct MHD_Response *response_of(struct request *r, struct body *b)
{
	struct MHD_Response *response;

	response = MHD_create_response_from_callback(
		r->fault.chunked ? MHD_SIZE_UNKNOWN : b->len,
		b->len < BLOCK ? (size_t)b->len + 1 : BLOCK, read_body, b,
		body_free);
	if (!response)
		body_free(b);
	return response;
}

/* -- replies ------------------------------------------------------------- */

static void add_header(const struct request *r, struct MHD_Response *response,
		       const char *name, const char *value)
{
	const cJSON *other = r->fault.headers;

	if (value && *value && !(other && cJSON_GetObjectItem(other, name)))
		MHD_add_response_header(response, name, value);
}

static void add_headers(const struct request *r, const struct reply *p,
			struct MHD_Response *response)
{
	const cJSON *item;
	char seconds[24] = "";

	if (r->fault.retry_after >= 0)
		snprintf(seconds, sizeof(seconds), "%" PRId64,
			 r->fault.retry_after);
	add_header(r, response, "Content-Type", p->content_type);
	add_header(r, response, "Last-Modified", p->last_modified);
	add_header(r, response, "ETag", p->etag);
	add_header(r, response, "Accept-Ranges",
		   *p->last_modified ? "bytes" : NULL);
	add_header(r, response, "Content-Range", p->content_range);
	add_header(r, response, "Allow", p->allow);
	add_header(r, response, "Retry-After", seconds);
	add_header(r, response, "Server", "AmazonS3");
	if (!r->is_control && r->host == IMITATION_MAIN)
		add_header(r, response, "X-Cache", "Miss from cloudfront");
	cJSON_ArrayForEach(item, r->fault.headers) if (cJSON_IsString(item))
		MHD_add_response_header(response, item->string,
					item->valuestring);
}

static enum MHD_Result send_reply(struct request *r, struct reply *p)
{
	struct MHD_Response *response = NULL;
	enum MHD_Result result = MHD_NO;

	if (p->body)
		response = response_of(r, p->body);
	if (response) {
		add_headers(r, p, response);
		if (r->id)
			imitation_journal_status(r->im->journal, r->id,
						 p->status);
		result = MHD_queue_response(r->mhd, p->status, response);
		MHD_destroy_response(response);
	}
	free(p->etag);
	return result;
}

static enum MHD_Result send_text(struct request *r, unsigned int status,
				 const char *type, const char *text)
{
	struct reply p = {.status = status, .content_type = type};

	p.body = body_of_text(r, text);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		snprintf(p.allow, sizeof(p.allow), "GET, HEAD");
	return send_reply(r, &p);
}

/* Takes @json. */
static enum MHD_Result send_json(struct request *r, unsigned int status,
				 char *json)
{
	struct reply p = {.status = status, .content_type = "application/json"};

	if (!json)
		return MHD_NO;
	p.body = body_new(r, json, -1, 0, strlen(json));
	return send_reply(r, &p);
}

static enum MHD_Result send_error(struct request *r, unsigned int status,
				  const char *code, const char *message)
{
	struct reply p = {.status = status, .content_type = "application/xml"};
	size_t len;
	char *xml = imitation_bucket_error(code, message, "Key", r->key, &len);

	if (!xml)
		return MHD_NO;
	p.body = body_new(r, xml, -1, 0, len);
	return send_reply(r, &p);
}

static enum MHD_Result send_missing(struct request *r)
{
	if (r->host == IMITATION_MIRROR)
		return send_error(r, MHD_HTTP_NOT_FOUND, "NoSuchKey",
				  "The specified key does not exist.");
	return send_text(r, MHD_HTTP_NOT_FOUND, "text/html",
			 "<html><head><title>404 Not Found</title></head>"
			 "<body><h1>404 Not Found</h1></body></html>\n");
}

static enum MHD_Result send_status(struct request *r)
{
	unsigned int status = (unsigned int)r->fault.status;
	static const struct {
		unsigned int status;
		const char *code, *message;
	} known[] = {
		{403, "AccessDenied", "Access Denied"},
		{404, "NoSuchKey", "The specified key does not exist."},
		{429, "TooManyRequests", "Please reduce your request rate."},
		{500, "InternalError", "We encountered an internal error."},
		{503, "SlowDown", "Please reduce your request rate."},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].status == status)
			return send_error(r, status, known[i].code,
					  known[i].message);
	return send_error(r, status, "Error", "As the rules want it.");
}

/* -- objects ------------------------------------------------------------- */

static bool parse_date(const char *text, time_t *out)
{
	struct tm tm = {0};
	const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);

	if (!end || *end)
		return false;
	*out = timegm(&tm);
	return true;
}

/*
 * Is @etag (quoted) in the list of a condition? A "W/" before either makes
 * them different only in the @strong comparison (RFC 9110 section 8.8.3.2).
 */
static bool etag_listed(const char *list, const char *etag, bool strong)
{
	size_t len = strlen(etag);
	const char *p = list;

	if (!strcmp(list, "*"))
		return true;
	while ((p = strstr(p, etag))) {
		bool weak = p - list >= 2 && !strncmp(p - 2, "W/", 2);

		if (!(weak && strong))
			return true;
		p += len;
	}
	return false;
}

/* 0: answer as usual; else 304 or 412 (RFC 9110 section 13.2.2). */
static unsigned int precondition(const struct request *r, const char *etag,
				 time_t mtime)
{
	const char *match = header(r, "If-Match");
	const char *none = header(r, "If-None-Match");
	const char *since = header(r, "If-Modified-Since");
	time_t t;

	if (match && !etag_listed(match, etag, true))
		return MHD_HTTP_PRECONDITION_FAILED;
	if (none)
		return etag_listed(none, etag, false) ? MHD_HTTP_NOT_MODIFIED
						      : 0;
	if (since && parse_date(since, &t) && mtime <= t)
		return MHD_HTTP_NOT_MODIFIED;
	return 0;
}

/*
 * parse_range() - one range of a Range header (RFC 9110 section 14.1.2).
 * Returns 206 with @from and @len, 416, or 200 where the header is to be
 * ignored: another unit, several ranges, not well-formed.
 */
static unsigned int parse_range(const char *text, uint64_t size, uint64_t *from,
				uint64_t *len)
{
	uint64_t first, last;
	char *end;

	if (strncasecmp(text, "bytes=", 6))
		return MHD_HTTP_OK;
	text += 6;
	if (*text == '-') {
		if (text[1] < '0' || text[1] > '9')
			return MHD_HTTP_OK;
		last = strtoull(text + 1, &end, 10);
		if (*end)
			return MHD_HTTP_OK;
		if (!last || !size)
			return MHD_HTTP_RANGE_NOT_SATISFIABLE;
		*len = last < size ? last : size;
		*from = size - *len;
		return MHD_HTTP_PARTIAL_CONTENT;
	}
	if (*text < '0' || *text > '9')
		return MHD_HTTP_OK;
	first = strtoull(text, &end, 10);
	if (*end++ != '-')
		return MHD_HTTP_OK;
	last = UINT64_MAX;
	if (*end) {
		if (*end < '0' || *end > '9')
			return MHD_HTTP_OK;
		last = strtoull(end, &end, 10);
		if (*end || last < first)
			return MHD_HTTP_OK;
	}
	if (first >= size)
		return MHD_HTTP_RANGE_NOT_SATISFIABLE;
	if (last >= size)
		last = size - 1;
	*from = first;
	*len = last - first + 1;
	return MHD_HTTP_PARTIAL_CONTENT;
}

/* May the Range header be used? (RFC 9110 section 13.1.5) */
static bool if_range_holds(const struct request *r, const char *etag,
			   time_t mtime)
{
	const char *cond = header(r, "If-Range");
	time_t t;

	if (!cond)
		return true;
	if (*cond == '"')
		return !strcmp(cond, etag);
	return parse_date(cond, &t) && t == mtime;
}

static enum MHD_Result send_bad_range(struct request *r, uint64_t size)
{
	struct reply p = {.status = MHD_HTTP_RANGE_NOT_SATISFIABLE,
			  .content_type = "application/xml"};
	size_t len;
	char *xml = imitation_bucket_error(
		"InvalidRange", "The requested range is not satisfiable",
		"RangeRequested", header(r, "Range"), &len);

	if (!xml)
		return MHD_NO;
	p.body = body_new(r, xml, -1, 0, len);
	snprintf(p.content_range, sizeof(p.content_range), "bytes */%" PRIu64,
		 size);
	return send_reply(r, &p);
}

/* The object in memory, its first digit another one. */
static struct body *wrong_checksum(struct request *r,
				   const struct imitation_object *o)
{
	char *mem = malloc(CHECKSUM_MAX);
	ssize_t n = mem ? pread(o->fd, mem, CHECKSUM_MAX, 0) : -1;

	close(o->fd);
	if (n < 0) {
		free(mem);
		return NULL;
	}
	if (n)
		mem[0] = mem[0] == '0' ? '1' : '0';
	return body_new(r, mem, -1, 0, (uint64_t)n);
}

static char *quoted_etag(const struct imitation_fault *f,
			 const struct imitation_object *o)
{
	char *etag = NULL;

	if (f->etag && !*f->etag)
		return strdup("");
	if (asprintf(&etag, "\"%s%s\"", f->etag ? f->etag : o->etag,
		     f->etag_suffix ? f->etag_suffix : "") < 0)
		return NULL;
	return etag;
}

static enum MHD_Result send_object(struct request *r)
{
	const struct imitation_fault *f = &r->fault;
	const char *range = header(r, "Range");
	struct reply p = {.status = MHD_HTTP_OK};
	struct imitation_object o;
	uint64_t from = 0, len;
	struct tm tm;
	int err;

	err = imitation_bucket_get(r->im->bucket, r->key, f->replace_with, &o);
	if (err == -ENOENT)
		return send_missing(r);
	if (err)
		return send_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR,
				  "InternalError", strerror(-err));
	if (f->truncate_to >= 0 && (uint64_t)f->truncate_to < o.size)
		o.size = (uint64_t)f->truncate_to;
	len = o.size;
	p.etag = quoted_etag(f, &o);
	if (!p.etag) {
		close(o.fd);
		return MHD_NO;
	}
	gmtime_r(&o.mtime, &tm);
	strftime(p.last_modified, sizeof(p.last_modified),
		 "%a, %d %b %Y %H:%M:%S GMT", &tm);
	p.content_type = ends(r->key, ".zip") ? "application/zip"
					      : "binary/octet-stream";
	err = (int)precondition(r, p.etag, o.mtime);
	if (err) {
		close(o.fd);
		p.status = (unsigned int)err;
		p.content_type = NULL;
		p.body = body_of_text(r, "");
		return send_reply(r, &p);
	}
	if (f->wrong_checksum) {
		p.body = wrong_checksum(r, &o);
		return send_reply(r, &p);
	}
	/* Range has a meaning for GET only: RFC 9110 section 14.2 */
	if (range && !r->is_head && !f->ignore_range &&
	    if_range_holds(r, p.etag, o.mtime))
		p.status = parse_range(range, o.size, &from, &len);
	if (p.status == MHD_HTTP_RANGE_NOT_SATISFIABLE) {
		close(o.fd);
		free(p.etag);
		return send_bad_range(r, o.size);
	}
	if (p.status == MHD_HTTP_PARTIAL_CONTENT)
		snprintf(p.content_range, sizeof(p.content_range),
			 "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, from,
			 from + len - 1, o.size);
	p.body = body_new(r, NULL, o.fd, from, len);
	if (p.body)
		p.body->size = o.size;
	return send_reply(r, &p);
}

/* -- listings ------------------------------------------------------------ */

static enum MHD_Result send_listing(struct request *r)
{
	const struct imitation_fault *f = &r->fault;
	struct imitation_query q = {
		.prefix = argument(r, "prefix"),
		.delimiter = argument(r, "delimiter"),
		.marker = argument(r, "marker"),
		.max_keys = argument(r, "max-keys"),
		.list_type = argument(r, "list-type"),
		.continuation_token = argument(r, "continuation-token"),
		.start_after = argument(r, "start-after"),
		.encoding_type = argument(r, "encoding-type"),
		.empty = f->empty_list,
	};
	struct reply p = {.content_type = "application/xml"};
	char *xml;
	size_t len;
	int status;

	if (f->repeat_page)
		q.marker = q.continuation_token = NULL;
	status = imitation_bucket_list(r->im->bucket, &q, r->rules, &xml, &len);
	if (status < 0)
		return send_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR,
				  "InternalError", strerror(-status));
	if (f->bad_xml)
		memset(xml + len / 2, '<', len - len / 2);
	p.status = (unsigned int)status;
	p.body = body_new(r, xml, -1, 0, len);
	return send_reply(r, &p);
}

/* -- control ------------------------------------------------------------- */

static char *json_error(const char *why)
{
	cJSON *o = cJSON_CreateObject();
	char *text;

	cJSON_AddStringToObject(o, "error", why);
	text = cJSON_PrintUnformatted(o);
	cJSON_Delete(o);
	return text;
}

static char *json_number(const char *name, double value)
{
	cJSON *o = cJSON_CreateObject();
	char *text;

	cJSON_AddNumberToObject(o, name, value);
	text = cJSON_PrintUnformatted(o);
	cJSON_Delete(o);
	return text;
}

static uint64_t number_argument(const struct request *r, const char *name)
{
	const char *text = argument(r, name);

	return text ? strtoull(text, NULL, 10) : 0;
}

static enum MHD_Result control_stats(struct request *r)
{
	return send_json(r, MHD_HTTP_OK,
			 imitation_journal_stats_json(r->im->journal));
}

static enum MHD_Result control_log(struct request *r)
{
	return send_json(r, MHD_HTTP_OK, imitation_log(r->im));
}

static enum MHD_Result control_reset(struct request *r)
{
	imitation_reset(r->im);
	return send_json(r, MHD_HTTP_OK, strdup("{}"));
}

static enum MHD_Result control_refresh(struct request *r)
{
	imitation_refresh(r->im);
	return send_json(r, MHD_HTTP_OK, strdup("{}"));
}

static enum MHD_Result control_rules(struct request *r)
{
	char why[128] = "no memory";
	int err = imitation_set_rules(r->im, r->upload, why, sizeof(why));

	if (err)
		return send_json(r, MHD_HTTP_BAD_REQUEST, json_error(why));
	return send_json(r, MHD_HTTP_OK, strdup("{}"));
}

static enum MHD_Result control_release(struct request *r)
{
	int err = imitation_release(r->im, argument(r, "name"),
				    number_argument(r, "count"));

	return err ? MHD_NO : send_json(r, MHD_HTTP_OK, strdup("{}"));
}

static enum MHD_Result control_hold(struct request *r)
{
	int err = imitation_hold(r->im, argument(r, "name"));

	return err ? MHD_NO : send_json(r, MHD_HTTP_OK, strdup("{}"));
}

static enum MHD_Result control_held(struct request *r)
{
	unsigned int held =
		imitation_held(r->im, argument(r, "name"),
			       (unsigned int)number_argument(r, "at_least"),
			       (unsigned int)number_argument(r, "timeout_ms"));

	return send_json(r, MHD_HTTP_OK, json_number("held", held));
}

static enum MHD_Result control(struct request *r, const char *method)
{
	static const struct {
		const char *method, *path;
		enum MHD_Result (*call)(struct request *r);
	} calls[] = {
		{"GET", "/_control/stats", control_stats},
		{"GET", "/_control/log", control_log},
		{"GET", "/_control/held", control_held},
		{"POST", "/_control/reset", control_reset},
		{"POST", "/_control/rules", control_rules},
		{"POST", "/_control/release", control_release},
		{"POST", "/_control/hold", control_hold},
		{"POST", "/_control/refresh", control_refresh},
	};
	unsigned int status = MHD_HTTP_NOT_FOUND;

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (strcmp(calls[i].path, r->path))
			continue;
		if (!strcmp(calls[i].method, method))
			return calls[i].call(r);
		status = MHD_HTTP_METHOD_NOT_ALLOWED;
	}
	return send_json(r, status, json_error("no such control"));
}

/* -- requests ------------------------------------------------------------ */

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *mhd)
{
	struct request *r = calloc(1, sizeof(*r));
	const char *query = strchr(uri, '?');

	if (!r)
		return NULL;
	r->im = arg;
	r->mhd = mhd;
	r->query = query ? strdup(query + 1) : NULL;
	return r;
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **state,
			 enum MHD_RequestTerminationCode why)
{
	struct request *r = *state;
	struct imitation *im = arg;
	bool complete = why == MHD_REQUEST_TERMINATED_COMPLETED_OK;

	(void)mhd;
	if (!r)
		return;
	if (r->id)
		imitation_journal_end(im->journal, r->id, complete);
	imitation_rules_unref(r->rules);
	free(r->upload);
	free(r->query);
	free(r);
	*state = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context,
			  enum MHD_ConnectionNotificationCode what)
{
	struct imitation *im = arg;
	struct connection *c;

	(void)mhd;
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		*context = calloc(1, sizeof(*c));
		return;
	}
	c = *context;
	if (c && c->counted)
		imitation_journal_connection(im->journal, -1);
	free(c);
	*context = NULL;
}

/* Sets host, kind and key. */
static void identify(struct request *r)
{
	const char *root = r->im->listing_path;
	size_t len = strlen(root);
	const char *rest = r->path + len;

	r->host = IMITATION_MAIN;
	r->kind = IMITATION_PAGE;
	r->key = "";
	if (begins(r->path, root) && (!*rest || !strcmp(rest, "/"))) {
		r->host = IMITATION_MIRROR;
		r->kind = IMITATION_LIST;
		r->key = argument(r, "prefix") ? argument(r, "prefix") : "";
		return;
	}
	if (begins(r->path, root) && *rest == '/') {
		r->host = IMITATION_MIRROR;
		r->key = rest + 1;
	} else if (strcmp(r->path, "/") && strcmp(r->path, "/index.html")) {
		r->key = r->path + (*r->path == '/');
	} else {
		return;
	}
	r->kind = r->is_head	       ? IMITATION_HEAD
		  : header(r, "Range") ? IMITATION_RANGE
				       : IMITATION_OBJECT;
}

static void record(struct request *r, const char *method)
{
	const struct imitation_arrival a = {
		.method = method,
		.path = r->path,
		.query = r->query,
		.range = header(r, "Range"),
		.if_range = header(r, "If-Range"),
		.if_none_match = header(r, "If-None-Match"),
		.cache_control = header(r, "Cache-Control"),
		.kind = r->kind,
		.host = r->host,
	};

	r->id = imitation_journal_arrive(r->im->journal, &a);
}

/* Wait as the rules want it before the answer; not 0: do not answer. */
static int linger(struct request *r, bool is_first)
{
	const struct imitation_fault *f = &r->fault;
	struct imitation_gates *gates = r->im->gates;
	int err = 0;

	if (is_first && f->connection_delay_ms > 0)
		err = imitation_gates_sleep(gates, f->connection_delay_ms,
					    r->fd);
	if (!err && f->delay_ms > 0)
		err = imitation_gates_sleep(gates, f->delay_ms, r->fd);
	if (!err && f->hold && f->hold_after < 0)
		err = imitation_gates_wait(gates, f->hold, r->fd);
	return err;
}

static enum MHD_Result answer(struct request *r, const char *method)
{
	const struct imitation_fault *f = &r->fault;
	bool is_first;

	r->is_head = !strcmp(method, "HEAD");
	identify(r);
	is_first = r->connection && !r->connection->counted;
	if (is_first) {
		r->connection->counted = true;
		imitation_journal_connection(r->im->journal, 1);
	}
	record(r, method);
	imitation_rules_judge(r->rules, r->kind, r->host, r->key, &r->fault);
	if (linger(r, is_first) || f->drop)
		return MHD_NO;
	if (!r->is_head && strcmp(method, "GET"))
		return send_text(r, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain",
				 "GET and HEAD only\n");
	if (f->body)
		return send_text(
			r,
			f->status < 0 ? MHD_HTTP_OK : (unsigned int)f->status,
			f->content_type ? f->content_type : "text/plain",
			f->body);
	if (f->status >= 0)
		return send_status(r);
	if (f->html || r->kind == IMITATION_PAGE)
		return send_text(r, MHD_HTTP_OK, "text/html", html_page);
	return r->kind == IMITATION_LIST ? send_listing(r) : send_object(r);
}

static void begin(struct request *r, const char *path)
{
	struct imitation *im = r->im;
	const union MHD_ConnectionInfo *info;

	r->begun = true;
	r->path = path;
	r->is_control = begins(path, "/_control/");
	info = MHD_get_connection_info(r->mhd,
				       MHD_CONNECTION_INFO_CONNECTION_FD);
	r->fd = info ? info->connect_fd : -1;
	info = MHD_get_connection_info(r->mhd,
				       MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	r->connection = info ? info->socket_context : NULL;
	/* the rules that stand now are this request's to its end */
	pthread_mutex_lock(&im->lock);
	r->rules = imitation_rules_ref(im->rules);
	pthread_mutex_unlock(&im->lock);
	imitation_fault_init(&r->fault);
}

static int upload(struct request *r, const char *data, size_t len)
{
	char *grown;

	if (!r->is_control)
		return 0;
	if (len > UPLOAD_MAX - r->upload_len)
		return -EFBIG;
	grown = realloc(r->upload, r->upload_len + len + 1);
	if (!grown)
		return -ENOMEM;
	memcpy(grown + r->upload_len, data, len);
	r->upload = grown;
	r->upload_len += len;
	grown[r->upload_len] = '\0';
	return 0;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *mhd,
				  const char *url, const char *method,
				  const char *version, const char *data,
				  size_t *data_len, void **state)
{
	struct request *r = *state;

	(void)arg;
	(void)mhd;
	(void)version;
	if (!r)
		return MHD_NO;
	if (!r->begun) {
		begin(r, url);
		return MHD_YES;
	}
	if (*data_len) {
		if (upload(r, data, *data_len))
			return MHD_NO;
		*data_len = 0;
		return MHD_YES;
	}
	return r->is_control ? control(r, method) : answer(r, method);
}

/* -- the face ------------------------------------------------------------ */

static int listen_on(uint16_t port, uint16_t *bound)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd, err, one = 1;

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) ||
	    listen(fd, BACKLOG) ||
	    getsockname(fd, (struct sockaddr *)&sin, &len)) {
		err = -errno;
		close(fd);
		return err;
	}
	*bound = ntohs(sin.sin_port);
	return fd;
}

static int start_daemon(struct imitation *im, uint16_t port)
{
	int fd = listen_on(port, &im->port);

	if (fd < 0)
		return fd;
	im->daemon = MHD_start_daemon(
		MHD_USE_THREAD_PER_CONNECTION |
			MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL,
		0, NULL, NULL, on_request, im, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_URI_LOG_CALLBACK, on_uri, im,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, im,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, im,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)CONNECTIONS,
		MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK, MHD_OPTION_END);
	if (im->daemon)
		return 0;
	close(fd);
	return -ENOMEM;
}

static int check_config(const struct imitation_config *cfg, char *why,
			size_t why_len)
{
	const char *path = cfg->listing_path;
	size_t len = path ? strlen(path) : 0;

	if (!cfg->root) {
		snprintf(why, why_len, "no root");
		return -EINVAL;
	}
	if (cfg->page_size > PAGE_SIZE_MAX) {
		snprintf(why, why_len, "a page has at most %d entries",
			 PAGE_SIZE_MAX);
		return -EINVAL;
	}
	if (path && (len < 2 || path[0] != '/' || path[len - 1] == '/' ||
		     begins(path, "/data/") || begins(path, "/_control"))) {
		snprintf(why, why_len,
			 "the listing path begins with / and does not end so");
		return -EINVAL;
	}
	return 0;
}

int imitation_start(struct imitation **out, const struct imitation_config *cfg,
		    char *why, size_t why_len)
{
	const char *path =
		cfg->listing_path ? cfg->listing_path : "/data.binance.vision";
	struct imitation *im;
	int err;

	err = check_config(cfg, why, why_len);
	if (err)
		return err;
	im = calloc(1, sizeof(*im));
	if (!im)
		return -ENOMEM;
	pthread_mutex_init(&im->lock, NULL);
	err = imitation_rules_parse(&im->rules, cfg->rules, why, why_len);
	if (err)
		goto out;
	snprintf(why, why_len, "root or port");
	err = imitation_bucket_open(
		&im->bucket, cfg->root, strrchr(path, '/') + 1,
		cfg->page_size ? cfg->page_size : PAGE_SIZE_MAX,
		cfg->multipart_above ? cfg->multipart_above : 256 << 20);
	if (err)
		goto out;
	err = imitation_gates_create(&im->gates);
	if (err)
		goto out;
	err = imitation_journal_create(&im->journal,
				       cfg->log_max ? cfg->log_max : 10000);
	if (err)
		goto out;
	im->listing_path = strdup(path);
	if (!im->listing_path) {
		err = -ENOMEM;
		goto out;
	}
	err = start_daemon(im, cfg->port);
	if (err)
		goto out;
	if (asprintf(&im->url, "http://127.0.0.1:%u", im->port) < 0 ||
	    asprintf(&im->listing_url, "%s%s", im->url, path) < 0) {
		err = -ENOMEM;
		goto out;
	}
	*out = im;
	im = NULL;
out:
	imitation_stop(im);
	return err;
}

void imitation_stop(struct imitation *im)
{
	if (!im)
		return;
	if (im->gates)
		imitation_gates_stop(im->gates);
	if (im->daemon)
		MHD_stop_daemon(im->daemon);
	imitation_journal_free(im->journal);
	imitation_gates_free(im->gates);
	imitation_bucket_close(im->bucket);
	imitation_rules_unref(im->rules);
	pthread_mutex_destroy(&im->lock);
	free(im->listing_path);
	free(im->listing_url);
	free(im->url);
	free(im);
}

const char *imitation_url(const struct imitation *im)
{
	return im->url;
}

const char *imitation_listing_url(const struct imitation *im)
{
	return im->listing_url;
}

uint16_t imitation_port(const struct imitation *im)
{
	return im->port;
}

int imitation_set_rules(struct imitation *im, const char *json, char *why,
			size_t why_len)
{
	struct imitation_rules *rules, *old;
	int err;

	err = imitation_rules_parse(&rules, json, why, why_len);
	if (err)
		return err;
	pthread_mutex_lock(&im->lock);
	old = im->rules;
	im->rules = rules;
	pthread_mutex_unlock(&im->lock);
	imitation_rules_unref(old);
	return 0;
}

int imitation_release(struct imitation *im, const char *name, uint64_t count)
{
	return imitation_gates_release(im->gates, name, count);
}

int imitation_hold(struct imitation *im, const char *name)
{
	return imitation_gates_hold(im->gates, name);
}

unsigned int imitation_held(struct imitation *im, const char *name,
			    unsigned int at_least, unsigned int timeout_ms)
{
	return imitation_gates_held(im->gates, name, at_least, timeout_ms);
}

void imitation_stats(struct imitation *im, struct imitation_stats *out)
{
	imitation_journal_stats(im->journal, out);
}

void imitation_reset(struct imitation *im)
{
	imitation_journal_reset(im->journal);
}

char *imitation_log(struct imitation *im)
{
	return imitation_journal_log_json(im->journal);
}

void imitation_refresh(struct imitation *im)
{
	imitation_bucket_refresh(im->bucket);
}

#include "tests/support/mini_http.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MUST(condition)                                                        \
	do {                                                                   \
		if (!(condition)) {                                            \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,     \
				#condition);                                   \
			abort();                                               \
		}                                                              \
	} while (0)

struct mini_http {
	struct MHD_Daemon *daemon;
	mini_handler *handler;
	void *arg;
	char url[64];
	unsigned int port;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* All protected by lock: */
	struct mini_seen seen[MINI_SEEN_MAX];
	unsigned int n;
	unsigned int waiting; /* at the gate */
	bool open;
};

/* What MHD keeps for us between its calls for one request. */
struct pending {
	char *uri;
	bool head_seen;
};

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *c)
{
	struct pending *p = calloc(1, sizeof(*p));

	(void)arg;
	(void)c;
	MUST(p);
	p->uri = strdup(uri);
	MUST(p->uri);
	return p;
}

static void on_completed(void *arg, struct MHD_Connection *c, void **pending,
			 enum MHD_RequestTerminationCode how)
{
	struct pending *p = *pending;

	(void)arg;
	(void)c;
	(void)how;
	if (!p)
		return;
	free(p->uri);
	free(p);
	*pending = NULL;
}

static void copy(char *to, size_t room, const char *from)
{
	snprintf(to, room, "%s", from ? from : "");
}

static void look(struct mini_call *call, const char *method, const char *uri)
{
	struct MHD_Connection *c = call->connection;
	struct mini_seen *s = &call->seen;
	const union MHD_ConnectionInfo *info;
	const struct {
		const char *name;
		char *to;
		size_t room;
	} fields[] = {
		{"Host", s->host, sizeof(s->host)},
		{"Range", s->range, sizeof(s->range)},
		{"If-Range", s->if_range, sizeof(s->if_range)},
		{"If-None-Match", s->if_none_match, sizeof(s->if_none_match)},
		{"Cache-Control", s->cache_control, sizeof(s->cache_control)},
		{"Pragma", s->pragma, sizeof(s->pragma)},
		{"User-Agent", s->user_agent, sizeof(s->user_agent)},
		{"Accept-Encoding", s->accept_encoding,
		 sizeof(s->accept_encoding)},
	};

	copy(s->method, sizeof(s->method), method);
	copy(s->uri, sizeof(s->uri), uri);
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		copy(fields[i].to, fields[i].room,
		     MHD_lookup_connection_value(c, MHD_HEADER_KIND,
						 fields[i].name));
	info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	MUST(info);
	s->port = ntohs(((struct sockaddr_in *)info->client_addr)->sin_port);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c,
				  const char *url, const char *method,
				  const char *version, const char *upload,
				  size_t *upload_len, void **pending)
{
	struct mini_http *s = arg;
	struct pending *p = *pending;
	struct mini_call call = {.server = s, .connection = c};

	(void)url;
	(void)version;
	(void)upload;
	(void)upload_len;
	if (!p->head_seen) {
		p->head_seen = true;
		return MHD_YES;
	}
	look(&call, method, p->uri);
	pthread_mutex_lock(&s->lock);
	MUST(s->n < MINI_SEEN_MAX);
	call.nth = s->n;
	s->seen[s->n++] = call.seen;
	pthread_mutex_unlock(&s->lock);
	s->handler(s->arg, &call);
	return MHD_YES;
}

struct mini_http *mini_http_start_tls(mini_handler *handler, void *arg,
				      const char *cert, const char *key)
{
	struct mini_http *s = calloc(1, sizeof(*s));
	const union MHD_DaemonInfo *info;
	struct MHD_OptionItem tls[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)cert},
		{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)key},
		{MHD_OPTION_END, 0, NULL},
	};
	struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
	unsigned int flags =
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION;

	MUST(s);
	s->handler = handler;
	s->arg = arg;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->daemon = MHD_start_daemon(cert ? flags | MHD_USE_TLS : flags, 0,
				     NULL, NULL, on_request, s,
				     MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL,
				     MHD_OPTION_NOTIFY_COMPLETED, on_completed,
				     NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
				     (size_t)(1 << 20), MHD_OPTION_ARRAY,
				     cert ? tls : none, MHD_OPTION_END);
	MUST(s->daemon);
	info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
	MUST(info);
	s->port = info->port;
	snprintf(s->url, sizeof(s->url), "%s://127.0.0.1:%u",
		 cert ? "https" : "http", s->port);
	return s;
}

struct mini_http *mini_http_start(mini_handler *handler, void *arg)
{
	return mini_http_start_tls(handler, arg, NULL, NULL);
}

void mini_http_stop(struct mini_http *s)
{
	mini_gate_open(s);
	MHD_stop_daemon(s->daemon);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

unsigned int mini_http_port(const struct mini_http *s)
{
	return s->port;
}

const char *mini_http_url(const struct mini_http *s)
{
	return s->url;
}

unsigned int mini_http_count(struct mini_http *s)
{
	unsigned int n;

	pthread_mutex_lock(&s->lock);
	n = s->n;
	pthread_mutex_unlock(&s->lock);
	return n;
}

struct mini_seen mini_http_seen(struct mini_http *s, unsigned int i)
{
	struct mini_seen seen;

	pthread_mutex_lock(&s->lock);
	MUST(i < s->n);
	seen = s->seen[i];
	pthread_mutex_unlock(&s->lock);
	return seen;
}

void mini_gate_wait_for(struct mini_http *s, unsigned int n)
{
	pthread_mutex_lock(&s->lock);
	while (s->waiting < n)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

void mini_gate_open(struct mini_http *s)
{
	pthread_mutex_lock(&s->lock);
	s->open = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void mini_gate_pass(struct mini_http *s)
{
	pthread_mutex_lock(&s->lock);
	s->waiting++;
	pthread_cond_broadcast(&s->changed);
	while (!s->open)
		pthread_cond_wait(&s->changed, &s->lock);
	s->waiting--;
	pthread_mutex_unlock(&s->lock);
}

static void queue(struct mini_call *call, unsigned int status,
		  const char *const *fields, struct MHD_Response *response)
{
	MUST(response);
	for (; fields && *fields; fields += 2)
		MUST(MHD_add_response_header(response, fields[0], fields[1]) ==
		     MHD_YES);
	MUST(MHD_queue_response(call->connection, status, response) == MHD_YES);
	MHD_destroy_response(response);
}

void mini_reply(struct mini_call *call, unsigned int status,
		const char *const *fields, const void *body, size_t len)
{
	queue(call, status, fields,
	      MHD_create_response_from_buffer(len, (void *)body,
					      MHD_RESPMEM_MUST_COPY));
}

void mini_reply_text(struct mini_call *call, unsigned int status,
		     const char *type, const char *body)
{
	const char *const fields[] = {"Content-Type", type, NULL};

	mini_reply(call, status, fields, body, strlen(body));
}

struct stream {
	struct mini_http *server;
	char *body;
	size_t len, cut_after, gate_at;
};

static ssize_t on_read(void *arg, uint64_t pos, char *buf, size_t max)
{
	struct stream *s = arg;
	size_t end = s->len;

	if (s->cut_after && pos >= s->cut_after)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (s->cut_after && s->cut_after < end)
		end = s->cut_after;
	if (s->gate_at && pos >= s->gate_at)
		mini_gate_pass(s->server);
	else if (s->gate_at && s->gate_at < end)
		end = s->gate_at;
	if (end - pos < max)
		max = end - pos;
	memcpy(buf, s->body + pos, max);
	return (ssize_t)max;
}

static void on_free(void *arg)
{
	struct stream *s = arg;

	free(s->body);
	free(s);
}

static struct MHD_Response *stream(struct mini_call *call,
				   const struct mini_object *o, size_t first,
				   size_t len)
{
	struct stream *s = calloc(1, sizeof(*s));

	MUST(s);
	s->server = call->server;
	s->body = malloc(len + 1);
	MUST(s->body);
	memcpy(s->body, (const char *)o->body + first, len);
	s->len = len;
	s->cut_after = o->cut_after;
	s->gate_at = o->gate_at;
	return MHD_create_response_from_callback(len, 16 << 10, on_read, s,
						 on_free);
}

static bool wants_range(const struct mini_call *call,
			const struct mini_object *o)
{
	const char *if_range = call->seen.if_range;

	if (!*call->seen.range || o->ignores_range ||
	    strcmp(call->seen.method, "GET") != 0)
		return false;
	if (!*if_range)
		return true;
	return (o->etag && strcmp(if_range, o->etag) == 0) ||
	       (o->last_modified && strcmp(if_range, o->last_modified) == 0);
}

void mini_serve(struct mini_call *call, const struct mini_object *o)
{
	size_t first = 0, len = o->len, n;
	unsigned int status = MHD_HTTP_OK;
	char content_range[96] = "";
	const char *fields[16], **f = fields;

	if (o->etag && strcmp(call->seen.if_none_match, o->etag) == 0) {
		status = MHD_HTTP_NOT_MODIFIED;
		len = 0;
	} else if (wants_range(call, o)) {
		status = MHD_HTTP_PARTIAL_CONTENT;
		if (sscanf(call->seen.range, "bytes=-%zu", &n) == 1)
			first = n < o->len ? o->len - n : 0;
		else
			MUST(sscanf(call->seen.range, "bytes=%zu-", &first) ==
			     1);
		len = first < o->len ? o->len - first : 0;
		snprintf(content_range, sizeof(content_range),
			 "bytes %zu-%zu/%zu", first, o->len - 1, o->len);
		if (len == 0) {
			status = MHD_HTTP_RANGE_NOT_SATISFIABLE;
			snprintf(content_range, sizeof(content_range),
				 "bytes */%zu", o->len);
		}
	}
	*f++ = "Content-Type";
	*f++ = o->type ? o->type : "application/zip";
	if (o->etag) {
		*f++ = "ETag";
		*f++ = o->etag;
	}
	if (o->last_modified) {
		*f++ = "Last-Modified";
		*f++ = o->last_modified;
	}
	if (*content_range) {
		*f++ = "Content-Range";
		*f++ = content_range;
	}
	*f = NULL;
	if (len == 0)
		mini_reply(call, status, fields, "", 0);
	else
		queue(call, status, fields, stream(call, o, first, len));
}

static char *pem_text(BIO *bio)
{
	char *data, *text;
	long len = BIO_get_mem_data(bio, &data);

	text = strndup(data, (size_t)len);
	MUST(text);
	BIO_free(bio);
	return text;
}

void mini_make_cert(char **cert, char **key)
{
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	X509 *x509 = X509_new();
	BIO *cert_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_mem());
	X509_EXTENSION *names;
	X509_NAME *name;

	MUST(pkey && x509 && cert_bio && key_bio);
	X509_set_version(x509, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
	X509_gmtime_adj(X509_getm_notBefore(x509), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
	X509_set_pubkey(x509, pkey);
	name = X509_get_subject_name(x509);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
				   (const unsigned char *)"localhost", -1, -1,
				   0);
	X509_set_issuer_name(x509, name);
	names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name,
				    "DNS:localhost,IP:127.0.0.1");
	MUST(names);
	X509_add_ext(x509, names, -1);
	X509_EXTENSION_free(names);
	MUST(X509_sign(x509, pkey, EVP_sha256()) > 0);
	MUST(PEM_write_bio_X509(cert_bio, x509));
	MUST(PEM_write_bio_PrivateKey(key_bio, pkey, NULL, NULL, 0, NULL,
				      NULL));
	*cert = pem_text(cert_bio);
	*key = pem_text(key_bio);
	X509_free(x509);
	EVP_PKEY_free(pkey);
}

static bool set_up(int fd, const char *interface)
{
	struct ifreq ifr = {0};

	copy(ifr.ifr_name, sizeof(ifr.ifr_name), interface);
	ifr.ifr_flags = IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &ifr) == 0;
}

static bool add_address(int fd, const char *alias, const char *address)
{
	struct ifreq ifr = {0};
	struct sockaddr_in in = {.sin_family = AF_INET};

	copy(ifr.ifr_name, sizeof(ifr.ifr_name), alias);
	inet_pton(AF_INET, address, &in.sin_addr);
	memcpy(&ifr.ifr_addr, &in, sizeof(in));
	return ioctl(fd, SIOCSIFADDR, &ifr) == 0;
}

/* Makes /etc/hosts know @name, for this process. */
static bool add_host(const char *name)
{
	char path[] = "/tmp/tickfs-hosts-XXXXXX";
	int fd = mkstemp(path);
	bool ok;

	if (fd < 0)
		return false;
	ok = dprintf(fd, "127.0.0.1 localhost %s\n", name) > 0 &&
	     fchmod(fd, 0644) == 0 &&
	     mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	     mount(path, "/etc/hosts", NULL, MS_BIND, NULL) == 0;
	close(fd);
	unlink(path);
	return ok;
}

bool mini_own_network(const char *address, const char *name)
{
	bool ok;
	int fd;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 &&
	    unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) != 0)
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	ok = set_up(fd, "lo") && add_address(fd, "lo:1", address) &&
	     add_host(name);
	close(fd);
	return ok;
}

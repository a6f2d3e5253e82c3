/*
 * The imitated origin, through HTTP as a client sees it and through its
 * header. MD5s are the ones of RFC 1321, listings those of the S3 API's
 * documentation.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* last: it needs the four above */
#include <cmocka.h>

#include "tests/origin/origin_server.h"

#define DAY1	     "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip"
#define DAYS	     "data/spot/daily/klines/BTCUSDT/1m/"
#define MD5_ABC	     "900150983cd24fb0d6963f7d28e17f72"
#define MD5_ALPHABET "c3fcd3d76192e4007dfb496cca67e13b"
#define ALPHABET     "abcdefghijklmnopqrstuvwxyz"

struct fixture {
	char root[64];
	struct imitation *im;
};

struct answer {
	CURLcode code;
	long status;
	char *body, *head;
	size_t body_len, head_len;
};

/* -- files --------------------------------------------------------------- */

static void write_file(const struct fixture *f, const char *key,
		       const void *data, size_t len)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", f->root, key);
	for (char *p = path + strlen(f->root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
		*p = '/';
	}
	out = fopen(path, "w");
	assert_non_null(out);
	assert_int_equal(fwrite(data, 1, len, out), len);
	fclose(out);
}

static void write_text(const struct fixture *f, const char *key,
		       const char *text)
{
	write_file(f, key, text, strlen(text));
}

/* 2023-07-18T04:11:20Z, worked out with date(1) */
static void set_mtime(const struct fixture *f, const char *key)
{
	const struct timespec times[2] = {{1689653480, 0}, {1689653480, 0}};
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", f->root, key);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* -- requests ------------------------------------------------------------ */

static size_t collect(char **to, size_t *len, const char *data, size_t n)
{
	char *grown = realloc(*to, *len + n + 1);

	if (!grown)
		return 0;
	memcpy(grown + *len, data, n);
	*to = grown;
	*len += n;
	grown[*len] = '\0';
	return n;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;

	return collect(&a->body, &a->body_len, data, size * n);
}

static size_t on_head(char *data, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;

	return collect(&a->head, &a->head_len, data, size * n);
}

struct ask {
	const char *method; /* NULL: GET */
	const char *path;   /* with query, percent-encoded */
	const char *header; /* one more, or NULL */
	const char *header2;
	const char *post;
	long timeout_ms;
};

/* Works in any thread; asserts nothing. */
static void perform(CURL *curl, const struct fixture *f, const struct ask *ask,
		    struct answer *a)
{
	struct curl_slist *headers = NULL;
	char url[4096];

	memset(a, 0, sizeof(*a));
	collect(&a->body, &a->body_len, "", 0);
	collect(&a->head, &a->head_len, "", 0);
	snprintf(url, sizeof(url), "%s%s", imitation_url(f->im), ask->path);
	curl_easy_reset(curl);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_head);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, a);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
			 ask->timeout_ms ? ask->timeout_ms : 60000L);
	if (ask->method && !strcmp(ask->method, "HEAD"))
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	else if (ask->method)
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, ask->method);
	if (ask->post)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, ask->post);
	if (ask->header)
		headers = curl_slist_append(headers, ask->header);
	if (ask->header2)
		headers = curl_slist_append(headers, ask->header2);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	a->code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &a->status);
	curl_slist_free_all(headers);
}

static void ask(const struct fixture *f, const struct ask *what,
		struct answer *a)
{
	CURL *curl = curl_easy_init();

	assert_non_null(curl);
	perform(curl, f, what, a);
	curl_easy_cleanup(curl);
}

static struct answer get(const struct fixture *f, const char *path,
			 const char *header)
{
	struct answer a;

	ask(f, &(struct ask){.path = path, .header = header}, &a);
	return a;
}

static void done(struct answer *a)
{
	free(a->body);
	free(a->head);
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no \"%s\" in: %s", part, text);
}

static void assert_has_not(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("\"%s\" in: %s", part, text);
}

/* The answer's status and body in one; NULL @body: any. */
static void assert_get(const struct fixture *f, const char *path,
		       const char *header, long status, const char *body)
{
	struct answer a = get(f, path, header);

	assert_int_equal(a.code, CURLE_OK);
	assert_int_equal(a.status, status);
	if (body)
		assert_string_equal(a.body, body);
	done(&a);
}

static void set_rules(const struct fixture *f, const char *json)
{
	char why[160] = "";

	if (imitation_set_rules(f->im, json, why, sizeof(why)))
		fail_msg("%s", why);
}

static void text_between(const char *text, const char *before,
			 const char *after, char *out, size_t room)
{
	const char *from = strstr(text, before), *to;

	assert_non_null(from);
	from += strlen(before);
	to = strstr(from, after);
	assert_non_null(to);
	assert_true((size_t)(to - from) < room);
	memcpy(out, from, (size_t)(to - from));
	out[to - from] = '\0';
}

static unsigned int count(const char *text, const char *part)
{
	unsigned int n = 0;

	while ((text = strstr(text, part))) {
		text += strlen(part);
		n++;
	}
	return n;
}

/* -- set up -------------------------------------------------------------- */

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct imitation_config cfg = {0};
	char why[160] = "";

	assert_non_null(f);
	snprintf(f->root, sizeof(f->root), "/tmp/imitation-XXXXXX");
	assert_non_null(mkdtemp(f->root));
	write_text(f, DAY1, ALPHABET);
	write_text(f, DAY1 ".CHECKSUM", "abc");
	set_mtime(f, DAY1);
	set_mtime(f, DAY1 ".CHECKSUM");
	cfg.root = f->root;
	if (imitation_start(&f->im, &cfg, why, sizeof(why)))
		fail_msg("%s", why);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	imitation_stop(f->im);
	nftw(f->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* -- listings ------------------------------------------------------------ */

static void test_imitation__listing_has_the_real_shape(void **state)
{
	assert_get(*state,
		   "/data.binance.vision?delimiter=/&max-keys=1&prefix=" DAYS,
		   NULL, 200,
		   "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		   "<ListBucketResult "
		   "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
		   "<Name>data.binance.vision</Name><Prefix>" DAYS "</Prefix>"
		   "<Marker></Marker><NextMarker>" DAY1 "</NextMarker>"
		   "<MaxKeys>1</MaxKeys><Delimiter>/</Delimiter>"
		   "<IsTruncated>true</IsTruncated><Contents><Key>" DAY1
		   "</Key>"
		   "<LastModified>2023-07-18T04:11:20.000Z</LastModified>"
		   "<ETag>&quot;" MD5_ALPHABET "&quot;</ETag><Size>26</Size>"
		   "<StorageClass>STANDARD</StorageClass></Contents>"
		   "</ListBucketResult>");
}

static void test_imitation__next_marker_only_with_a_delimiter(void **state)
{
	struct answer a = get(
		*state, "/data.binance.vision?max-keys=1&prefix=data/", NULL);

	assert_has(a.body, "<IsTruncated>true</IsTruncated>");
	assert_has_not(a.body, "NextMarker");
	done(&a);
	/* and one goes on from the last key */
	a = get(*state, "/data.binance.vision?prefix=data/&marker=" DAY1, NULL);
	assert_has(a.body, "<IsTruncated>false</IsTruncated>");
	assert_int_equal(count(a.body, "<Key>"), 1);
	assert_has(a.body, "<Key>" DAY1 ".CHECKSUM</Key>");
	done(&a);
}

static void test_imitation__a_page_ends_at_1000_entries(void **state)
{
	struct fixture *f = *state;
	char key[128], path[256], marker[128];
	struct answer a;
	unsigned int keys = 0, prefixes = 0, pages = 0;

	for (int i = 0; i < 600; i++) {
		snprintf(key, sizeof(key), "data/x/%04d", i);
		write_text(f, key, "");
		snprintf(key, sizeof(key), "data/x/%04d-folder/y", i);
		write_text(f, key, "");
	}
	snprintf(path, sizeof(path),
		 "/data.binance.vision?delimiter=/&prefix=data/x/&"
		 "max-keys=5000");
	for (;;) {
		a = get(f, path, NULL);
		pages++;
		keys += count(a.body, "<Key>");
		prefixes += count(a.body, "<CommonPrefixes>");
		assert_has(a.body, "<MaxKeys>1000</MaxKeys>");
		if (!strstr(a.body, "<IsTruncated>true"))
			break;
		assert_int_equal(keys + prefixes, 1000);
		text_between(a.body, "<NextMarker>", "</NextMarker>", marker,
			     sizeof(marker));
		snprintf(path, sizeof(path),
			 "/data.binance.vision?delimiter=/&prefix=data/x/&"
			 "marker=%s",
			 marker);
		done(&a);
	}
	done(&a);
	assert_int_equal(pages, 2);
	assert_int_equal(keys, 600);
	assert_int_equal(prefixes, 600);
}

/* Every page size must give the same keys in the same order. */
static void test_imitation__pages_join_without_loss_or_repeat(void **state)
{
	/* in byte order: '-' < '.' < '/' < '0'; the last two are setup()'s */
	static const char *const keys[] = {
		"data/a-b",   "data/a.zip", "data/a/1",
		"data/a/2/3", "data/a/2/4", "data/a0",
		"data/b/1",   DAY1,	    DAY1 ".CHECKSUM",
	};
	const size_t n = sizeof(keys) / sizeof(keys[0]);
	struct fixture *f = *state;
	char path[512], last[256];
	struct answer a;

	for (size_t i = 0; i < n - 2; i++)
		write_text(f, keys[i], "");
	for (unsigned int size = 1; size < 6; size++) {
		size_t at = 0;
		bool more = true;

		snprintf(last, sizeof(last), "data/");
		while (more) {
			const char *p;

			snprintf(path, sizeof(path),
				 "/data.binance.vision?max-keys=%u&marker=%s",
				 size, last);
			a = get(f, path, NULL);
			more = strstr(a.body, "<IsTruncated>true");
			p = a.body;
			while ((p = strstr(p, "<Key>"))) {
				text_between(p, "<Key>", "</Key>", last,
					     sizeof(last));
				assert_true(at < n);
				assert_string_equal(last, keys[at++]);
				p += 5;
			}
			done(&a);
		}
		assert_int_equal(at, n);
	}
}

static void test_imitation__marker_need_not_exist(void **state)
{
	struct answer a = get(*state,
			      "/data.binance.vision?delimiter=/&prefix=" DAYS
			      "&marker=" DAYS "BTCUSDT-1m-2024-01-01.zip.A",
			      NULL);

	assert_int_equal(count(a.body, "<Key>"), 1);
	assert_has(a.body, ".CHECKSUM</Key>");
	done(&a);
	a = get(*state, "/data.binance.vision?prefix=" DAYS "&marker=zzz",
		NULL);
	assert_int_equal(count(a.body, "<Key>"), 0);
	assert_has(a.body, "<IsTruncated>false</IsTruncated>");
	done(&a);
}

/* A folder that is the marker has been listed; one the marker lies in has
 * keys left. */
static void test_imitation__marker_within_a_folder(void **state)
{
	struct answer a;

	a = get(*state,
		"/data.binance.vision?delimiter=/&prefix=data/&"
		"marker=data/spot/",
		NULL);
	assert_int_equal(count(a.body, "<CommonPrefixes>"), 0);
	done(&a);
	a = get(*state,
		"/data.binance.vision?delimiter=/&prefix=data/&"
		"marker=data/spot/d",
		NULL);
	assert_int_equal(count(a.body, "<CommonPrefixes>"), 1);
	done(&a);
	a = get(*state,
		"/data.binance.vision?delimiter=/&prefix=data/&"
		"marker=data/spot/zzz",
		NULL);
	assert_int_equal(count(a.body, "<CommonPrefixes>"), 0);
	done(&a);
}

static void test_imitation__prefix_may_end_within_a_name(void **state)
{
	struct answer a;

	a = get(*state, "/data.binance.vision?delimiter=/&prefix=data/sp",
		NULL);
	assert_has(a.body, "<CommonPrefixes><Prefix>data/spot/</Prefix>");
	done(&a);
	a = get(*state, "/data.binance.vision?delimiter=/&prefix=data/sx",
		NULL);
	assert_int_equal(a.status, 200);
	assert_int_equal(count(a.body, "<CommonPrefixes>"), 0);
	done(&a);
	a = get(*state, "/data.binance.vision?prefix=" DAY1 ".", NULL);
	assert_int_equal(count(a.body, "<Key>"), 1);
	done(&a);
}

static void test_imitation__unknown_prefix_is_an_empty_200(void **state)
{
	static const char *const prefixes[] = {
		"data/spot/daily/nothing/",
		"nothing/",
		"/",
		"//",
		"data//",
		"data/../data/",
		"../",
		"data/spot/daily/klines/BTCUSDT/1m//"};
	char path[256];

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		struct answer a;

		snprintf(path, sizeof(path),
			 "/data.binance.vision?delimiter=/&prefix=%s",
			 prefixes[i]);
		a = get(*state, path, NULL);
		assert_int_equal(a.status, 200);
		assert_has(a.body, "<IsTruncated>false</IsTruncated></List");
		done(&a);
	}
}

static void test_imitation__refuses_queries_as_s3_does(void **state)
{
	static const char *const queries[] = {
		"start-after=a",
		"max-keys=x",
		"max-keys=-1",
		"max-keys=",
		"list-type=2&continuation-token=%21",
		"encoding-type=base64"};
	char path[256];

	for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
		struct answer a;

		snprintf(path, sizeof(path), "/data.binance.vision?%s",
			 queries[i]);
		a = get(*state, path, NULL);
		assert_int_equal(a.status, 400);
		assert_has(a.body, "<Code>InvalidArgument</Code>");
		done(&a);
	}
	assert_get(*state, "/data.binance.vision?delimiter=-", NULL, 501, NULL);
}

static void test_imitation__version_2_pages_by_token(void **state)
{
	char token[512], path[1024], *escaped;
	struct answer a;

	a = get(*state,
		"/data.binance.vision?list-type=2&max-keys=1&prefix=" DAYS,
		NULL);
	assert_has(a.body, "<KeyCount>1</KeyCount>");
	assert_has_not(a.body, "Marker");
	assert_has(a.body, "<Key>" DAY1 "</Key>");
	text_between(a.body, "<NextContinuationToken>",
		     "</NextContinuationToken>", token, sizeof(token));
	done(&a);
	escaped = curl_easy_escape(NULL, token, 0);
	snprintf(path, sizeof(path),
		 "/data.binance.vision?list-type=2&prefix=" DAYS
		 "&continuation-token=%s",
		 escaped);
	curl_free(escaped);
	a = get(*state, path, NULL);
	assert_int_equal(count(a.body, "<Key>"), 1);
	assert_has(a.body, "<Key>" DAY1 ".CHECKSUM</Key>");
	assert_has(a.body, "<IsTruncated>false</IsTruncated>");
	done(&a);
	a = get(*state, "/data.binance.vision?list-type=2&start-after=" DAY1,
		NULL);
	assert_int_equal(count(a.body, "<Key>"), 1);
	done(&a);
}

static void test_imitation__names_come_raw_or_encoded(void **state)
{
	write_text(*state, "data/币安人生USDT/a&<b>\"", "");

	struct answer a = get(*state,
			      "/data.binance.vision?prefix=data/"
			      "%E5%B8%81%E5%AE%89",
			      NULL);
	assert_has(a.body, "<Prefix>data/币安</Prefix>");
	assert_has(a.body,
		   "<Key>data/币安人生USDT/a&amp;&lt;b&gt;&quot;</Key>");
	done(&a);
	a = get(*state,
		"/data.binance.vision?encoding-type=url&prefix=data/"
		"%E5%B8%81%E5%AE%89",
		NULL);
	assert_has(a.body, "<EncodingType>url</EncodingType>");
	assert_has(a.body, "<Key>data/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9F"
			   "USDT/a%26%3Cb%3E%22</Key>");
	done(&a);
	assert_get(*state,
		   "/data/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT/"
		   "a%26%3Cb%3E%22",
		   NULL, 200, "");
}

static void test_imitation__shows_what_changes_on_disk(void **state)
{
	const char *path = "/data.binance.vision?prefix=data/new/";
	struct fixture *f = *state;
	char folder[128];
	struct answer a;

	snprintf(folder, sizeof(folder), "%s/data/new", f->root);
	assert_int_equal(mkdir(folder, 0755), 0);
	assert_get(f, "/data.binance.vision?delimiter=/&prefix=data/n", NULL,
		   200, NULL);
	for (int i = 0; i < 20; i++) {
		char key[64];

		snprintf(key, sizeof(key), "data/new/%02d", i);
		write_text(f, key, i % 2 ? "abc" : ALPHABET);
		a = get(f, path, NULL);
		assert_int_equal(count(a.body, "<Key>"), i + 1);
		done(&a);
	}
	/* replaced in place */
	write_text(f, "data/new/00", "abc");
	a = get(f, path, NULL);
	assert_int_equal(count(a.body, MD5_ABC), 11);
	done(&a);
	assert_get(f, "/data/new/00", NULL, 200, "abc");
	/* a folder without a file is none; a dot hides */
	write_text(f, "data/empty/.hidden", "x");
	a = get(f, "/data.binance.vision?delimiter=/&prefix=data/", NULL);
	assert_has(a.body, "<Prefix>data/new/</Prefix>");
	assert_has_not(a.body, "empty");
	done(&a);
}

/* -- website and objects ------------------------------------------------- */

static void test_imitation__website_answers_listings_with_html(void **state)
{
	static const char *const paths[] = {"/", "/?prefix=data/spot/daily/",
					    "/index.html"};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct answer a = get(*state, paths[i], NULL);

		assert_int_equal(a.status, 200);
		assert_has(a.head, "Content-Type: text/html\r\n");
		assert_has(a.body, "BUCKET_URL");
		done(&a);
	}
}

static void test_imitation__missing_objects(void **state)
{
	struct answer a = get(*state, "/data/spot/none.zip", NULL);

	assert_int_equal(a.status, 404);
	assert_has(a.head, "text/html");
	done(&a);
	a = get(*state, "/data.binance.vision/data/spot/none.zip", NULL);
	assert_int_equal(a.status, 404);
	assert_has(a.body, "<Code>NoSuchKey</Code>");
	assert_has(a.body, "<Key>data/spot/none.zip</Key>");
	done(&a);
}

static void test_imitation__serves_nothing_but_data(void **state)
{
	static const char *const paths[] = {
		"/manifest.json",
		"/data",
		"/data/",
		"/data/spot",
		"/data/../manifest.json",
		"/data/%2e%2e/manifest.json",
		"/data/spot/../../manifest.json",
		"/data//spot/daily",
		"/data/.hidden",
		"/data.binance.vision/manifest.json",
		"/data.binance.vision/data/../manifest.json"};

	write_text(*state, "manifest.json", "secret");
	write_text(*state, "data/.hidden", "secret");
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		assert_get(*state, paths[i], NULL, 404, NULL);
}

static void test_imitation__object_headers(void **state)
{
	struct answer a, b;

	a = get(*state, "/" DAY1, NULL);
	assert_int_equal(a.status, 200);
	assert_string_equal(a.body, ALPHABET);
	assert_has(a.head, "Content-Type: application/zip\r\n");
	assert_has(a.head, "Content-Length: 26\r\n");
	assert_has(a.head, "ETag: \"" MD5_ALPHABET "\"\r\n");
	assert_has(a.head, "Last-Modified: Tue, 18 Jul 2023 04:11:20 GMT\r\n");
	assert_has(a.head, "Accept-Ranges: bytes\r\n");
	ask(*state, &(struct ask){.method = "HEAD", .path = "/" DAY1}, &b);
	assert_int_equal(b.status, 200);
	assert_has(b.head, "Content-Length: 26\r\n");
	assert_has(b.head, "ETag: \"" MD5_ALPHABET "\"\r\n");
	assert_int_equal(b.body_len, 0);
	done(&a);
	done(&b);
	a = get(*state, "/data.binance.vision/" DAY1 ".CHECKSUM", NULL);
	assert_string_equal(a.body, "abc");
	assert_has(a.head, "ETag: \"" MD5_ABC "\"\r\n");
	assert_has(a.head, "Content-Type: binary/octet-stream\r\n");
	done(&a);
	ask(*state, &(struct ask){.method = "DELETE", .path = "/" DAY1}, &a);
	assert_int_equal(a.status, 405);
	done(&a);
}

static void test_imitation__ranges(void **state)
{
	static const struct {
		const char *header;
		long status;
		const char *body, *content_range;
	} cases[] = {
		{"Range: bytes=0-3", 206, "abcd", "bytes 0-3/26"},
		{"Range: bytes=23-", 206, "xyz", "bytes 23-25/26"},
		{"Range: bytes=23-99", 206, "xyz", "bytes 23-25/26"},
		{"Range: bytes=-2", 206, "yz", "bytes 24-25/26"},
		{"Range: bytes=-99", 206, ALPHABET, "bytes 0-25/26"},
		{"Range: bytes=25-25", 206, "z", "bytes 25-25/26"},
		{"Range: bytes=26-", 416, NULL, "bytes */26"},
		{"Range: bytes=99-100", 416, NULL, "bytes */26"},
		{"Range: bytes=-0", 416, NULL, "bytes */26"},
		/* ignored: several, backwards, another unit, not a range */
		{"Range: bytes=0-1,3-4", 200, ALPHABET, NULL},
		{"Range: bytes=3-1", 200, ALPHABET, NULL},
		{"Range: lines=1-2", 200, ALPHABET, NULL},
		{"Range: bytes=", 200, ALPHABET, NULL},
		{"Range: bytes=-", 200, ALPHABET, NULL},
		{"Range: bytes=a-b", 200, ALPHABET, NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer a = get(*state, "/" DAY1, cases[i].header);

		assert_int_equal(a.status, cases[i].status);
		if (cases[i].body)
			assert_string_equal(a.body, cases[i].body);
		if (cases[i].content_range)
			assert_has(a.head, cases[i].content_range);
		else
			assert_has_not(a.head, "Content-Range");
		done(&a);
	}
	write_text(*state, "data/empty", "");
	assert_get(*state, "/data/empty", "Range: bytes=-1", 416, NULL);
	assert_get(*state, "/data/empty", "Range: bytes=0-", 416, NULL);
}

static void test_imitation__conditions(void **state)
{
	static const struct {
		const char *header, *header2;
		long status;
	} cases[] = {
		{"If-None-Match: \"" MD5_ALPHABET "\"", NULL, 304},
		{"If-None-Match: \"x\", \"" MD5_ALPHABET "\"", NULL, 304},
		{"If-None-Match: W/\"" MD5_ALPHABET "\"", NULL, 304},
		{"If-None-Match: *", NULL, 304},
		{"If-None-Match: \"" MD5_ABC "\"", NULL, 200},
		{"If-Modified-Since: Tue, 18 Jul 2023 04:11:20 GMT", NULL, 304},
		{"If-Modified-Since: Tue, 18 Jul 2023 04:11:19 GMT", NULL, 200},
		{"If-Modified-Since: yesterday", NULL, 200},
		{"If-None-Match: \"" MD5_ABC "\"",
		 "If-Modified-Since: Tue, 18 Jul 2023 04:11:20 GMT", 200},
		{"If-Match: \"" MD5_ABC "\"", NULL, 412},
		{"If-Match: \"" MD5_ALPHABET "\"", NULL, 200},
		{"Range: bytes=1-", "If-Range: \"" MD5_ALPHABET "\"", 206},
		{"Range: bytes=1-", "If-Range: \"" MD5_ABC "\"", 200},
		{"Range: bytes=1-", "If-Range: W/\"" MD5_ALPHABET "\"", 200},
		{"Range: bytes=1-", "If-Range: Tue, 18 Jul 2023 04:11:20 GMT",
		 206},
		{"Range: bytes=1-", "If-Range: Tue, 18 Jul 2023 04:11:21 GMT",
		 200},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ask what = {.path = "/" DAY1,
				   .header = cases[i].header,
				   .header2 = cases[i].header2};
		struct answer a;

		ask(*state, &what, &a);
		assert_int_equal(a.status, cases[i].status);
		if (a.status == 304)
			assert_int_equal(a.body_len, 0);
		if (a.status == 200)
			assert_string_equal(a.body, ALPHABET);
		done(&a);
	}
}

static void test_imitation__files_beyond_4_gib(void **state)
{
	const off_t size = (off_t)5 << 30;
	struct fixture *f = *state;
	char path[128];
	struct answer a;
	int fd;

	write_text(f, "data/large.zip", "");
	snprintf(path, sizeof(path), "%s/data/large.zip", f->root);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(pwrite(fd, "tail", 4, size - 4), 4);
	assert_int_equal(pwrite(fd, "here", 4, size - (3 << 20)), 4);
	close(fd);
	a = get(f, "/data/large.zip", "Range: bytes=-4");
	assert_string_equal(a.body, "tail");
	/* 5 GiB in parts of 8 MiB */
	assert_has(a.head, "-640\"\r\n");
	assert_has(a.head, "Content-Range: bytes 5368709116-5368709119/"
			   "5368709120\r\n");
	done(&a);
	a = get(f, "/data/large.zip", "Range: bytes=5365563392-");
	assert_int_equal(a.body_len, 3 << 20);
	assert_memory_equal(a.body, "here", 4);
	assert_memory_equal(a.body + a.body_len - 4, "tail", 4);
	done(&a);
}

/* -- faults -------------------------------------------------------------- */

static void test_imitation__refuses_rules_it_does_not_know(void **state)
{
	static const char *const wrong[] = {
		"{",
		"{}",
		"[1]",
		"[{\"stauts\": 503}]",
		"[{\"status\": 99}]",
		"[{\"status\": \"503\"}]",
		"[{\"kind\": \"lists\"}]",
		"[{\"host\": \"other\"}]",
		"[{\"probability\": 2}]",
		"[{\"nth\": 0}]",
		"[{\"delay_ms\": 1.5}]",
		"[{\"cut_after\": -1}]",
		"[{\"throttle\": 0}]",
		"[{\"drop\": 1}]",
		"{\"seed\": -1, \"rules\": []}",
	};
	struct fixture *f = *state;
	struct answer a;
	char why[160];

	set_rules(f, "[{\"status\": 503}]");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		why[0] = '\0';
		assert_int_equal(imitation_set_rules(f->im, wrong[i], why,
						     sizeof(why)),
				 -EINVAL);
		assert_true(strlen(why) > 0);
	}
	assert_get(f, "/" DAY1, NULL, 503, NULL);
	ask(f, &(struct ask){.path = "/_control/rules", .post = "[{\"x\":1}]"},
	    &a);
	assert_int_equal(a.status, 400);
	assert_has(a.body, "\"error\"");
	done(&a);
	ask(f, &(struct ask){.path = "/_control/rules", .post = "[]"}, &a);
	assert_int_equal(a.status, 200);
	done(&a);
	assert_get(f, "/" DAY1, NULL, 200, ALPHABET);
}

static void test_imitation__rules_choose_requests(void **state)
{
	struct fixture *f = *state;

	set_rules(f, "[{\"key\": \"*.CHECKSUM\", \"status\": 404},"
		     " {\"kind\": [\"list\", \"head\"], \"status\": 500},"
		     " {\"host\": \"mirror\", \"kind\": \"range\","
		     "  \"status\": 403}]");
	assert_get(f, "/" DAY1, NULL, 200, NULL);
	assert_get(f, "/" DAY1 ".CHECKSUM", NULL, 404, NULL);
	assert_get(f, "/data.binance.vision", NULL, 500, NULL);
	assert_get(f, "/" DAY1, "Range: bytes=1-", 206, NULL);
	assert_get(f, "/data.binance.vision/" DAY1, "Range: bytes=1-", 403,
		   NULL);
	assert_get(f, "/data.binance.vision/" DAY1, NULL, 200, NULL);
}

static void test_imitation__rules_count_requests(void **state)
{
	struct fixture *f = *state;

	set_rules(f, "[{\"nth\": 2, \"status\": 503, \"retry_after\": 7},"
		     " {\"nth\": 3, \"times\": 2, \"status\": 429}]");
	assert_get(f, "/" DAY1, NULL, 200, NULL);

	struct answer a = get(f, "/" DAY1, NULL);

	assert_int_equal(a.status, 503);
	assert_has(a.head, "Retry-After: 7\r\n");
	assert_has(a.body, "SlowDown");
	done(&a);
	assert_get(f, "/" DAY1, NULL, 429, NULL);
	assert_get(f, "/" DAY1, NULL, 429, NULL);
	assert_get(f, "/" DAY1, NULL, 200, NULL);

	set_rules(f, "[{\"per_key\": true, \"times\": 1, \"status\": 503}]");
	assert_get(f, "/" DAY1, NULL, 503, NULL);
	assert_get(f, "/" DAY1 ".CHECKSUM", NULL, 503, NULL);
	assert_get(f, "/" DAY1, NULL, 200, NULL);
	assert_get(f, "/" DAY1 ".CHECKSUM", NULL, 200, NULL);
}

/* 200 draws of one half: outside 60 to 140 by chance once in 10**8. */
static void test_imitation__same_seed_same_faults(void **state)
{
	struct fixture *f = *state;
	char seen[3][201] = {{0}};
	unsigned int faults = 0;
	CURL *curl = curl_easy_init();

	for (int run = 0; run < 3; run++) {
		char rules[128];

		snprintf(rules, sizeof(rules),
			 "{\"seed\": %d, \"rules\": "
			 "[{\"probability\": 0.5, \"status\": 503}]}",
			 run == 2 ? 2 : 1);
		set_rules(f, rules);
		for (int i = 0; i < 200; i++) {
			struct answer a;

			perform(curl, f, &(struct ask){.path = "/" DAY1}, &a);
			seen[run][i] = a.status == 503 ? 'x' : '.';
			faults += run == 0 && a.status == 503;
			done(&a);
		}
	}
	curl_easy_cleanup(curl);
	assert_in_range(faults, 60, 140);
	assert_string_equal(seen[0], seen[1]);
	assert_string_not_equal(seen[0], seen[2]);
}

/* Two keys asked in turn, or one after the other: each has its own draws. */
static void test_imitation__jitter_is_drawn_for_each_key(void **state)
{
	static const char rules[] =
		"{\"seed\": 5, \"rules\": [{\"delay_ms\": 1000,"
		" \"delay_jitter_ms\": 500}]}";
	int64_t delays[2][2][50], least = INT64_MAX, most = 0;
	struct imitation_fault fault;

	(void)state;
	for (size_t order = 0; order < 2; order++) {
		struct imitation_rules *r;

		assert_int_equal(imitation_rules_parse(&r, rules, NULL, 0), 0);
		for (size_t i = 0; i < 100; i++) {
			size_t key = order ? i / 50 : i % 2;
			size_t nth = order ? i % 50 : i / 2;

			imitation_rules_judge(r, IMITATION_OBJECT,
					      IMITATION_MAIN, key ? "b" : "a",
					      &fault);
			assert_in_range(fault.delay_ms, 1000, 1499);
			delays[order][key][nth] = fault.delay_ms;
			if (fault.delay_ms < least)
				least = fault.delay_ms;
			if (fault.delay_ms > most)
				most = fault.delay_ms;
		}
		imitation_rules_unref(r);
	}
	assert_memory_equal(delays[0], delays[1], sizeof(delays[0]));
	assert_memory_not_equal(delays[0][0], delays[0][1],
				sizeof(delays[0][0]));
	assert_true(most - least > 250);
}

static void test_imitation__bodies_are_cut_and_falsified(void **state)
{
	struct fixture *f = *state;
	struct answer a;

	set_rules(f, "[{\"cut_after\": 10}]");
	a = get(f, "/" DAY1, NULL);
	assert_int_equal(a.code, CURLE_PARTIAL_FILE);
	assert_int_equal(a.status, 200);
	assert_has(a.head, "Content-Length: 26\r\n");
	assert_string_equal(a.body, "abcdefghij");
	done(&a);
	set_rules(f, "[{\"cut_after\": 0}]");
	a = get(f, "/" DAY1, NULL);
	assert_int_equal(a.status, 200);
	assert_int_not_equal(a.code, CURLE_OK);
	assert_int_equal(a.body_len, 0);
	done(&a);
	set_rules(f, "[{\"drop\": true}]");
	a = get(f, "/" DAY1, NULL);
	assert_int_equal(a.code, CURLE_GOT_NOTHING);
	done(&a);
	/* 'b' ^ 0xff */
	set_rules(f, "[{\"flip_at\": 1}]");
	assert_get(f, "/" DAY1, NULL, 200,
		   "a\x9d"
		   "cdefghijklmnopqrstuvwxyz");
	assert_get(f, "/" DAY1, "Range: bytes=1-2", 206,
		   "\x9d"
		   "c");
	assert_get(f, "/" DAY1, "Range: bytes=2-3", 206, "cd");
	set_rules(f, "[{\"flip_at\": -25}]");
	assert_get(f, "/" DAY1, "Range: bytes=1-2", 206,
		   "\x9d"
		   "c");
	set_rules(f, "[{\"truncate_to\": 3}]");
	a = get(f, "/" DAY1, NULL);
	assert_int_equal(a.code, CURLE_OK);
	assert_string_equal(a.body, "abc");
	assert_has(a.head, "ETag: \"" MD5_ALPHABET "\"\r\n");
	done(&a);
	assert_get(f, "/" DAY1, "Range: bytes=-1", 206, "c");
	set_rules(f, "[{\"chunked\": true}]");
	a = get(f, "/" DAY1, NULL);
	assert_string_equal(a.body, ALPHABET);
	assert_has_not(a.head, "Content-Length");
	done(&a);
	set_rules(f, "[{\"throttle\": 1000}]");
	assert_get(f, "/" DAY1, NULL, 200, ALPHABET);
}

static void test_imitation__objects_are_replaced(void **state)
{
	struct fixture *f = *state;
	struct answer a;

	write_text(f, "other/new.zip", "abc");
	set_rules(f, "[{\"key\": \"*.zip\", \"nth\": 2, \"times\": 9,"
		     "  \"replace_with\": \"other/new.zip\"}]");
	assert_get(f, "/" DAY1, NULL, 200, ALPHABET);
	a = get(f, "/data.binance.vision?prefix=" DAY1, NULL);
	assert_int_equal(count(a.body, MD5_ABC), 2); /* and .CHECKSUM */
	assert_has(a.body, "<Size>3</Size>");
	done(&a);
	a = get(f, "/" DAY1, NULL);
	assert_string_equal(a.body, "abc");
	assert_has(a.head, "ETag: \"" MD5_ABC "\"\r\n");
	done(&a);
	set_rules(f, "[{\"listed\": false, \"etag_suffix\": \"-2\"}]");
	a = get(f, "/" DAY1, NULL);
	assert_has(a.head, "ETag: \"" MD5_ALPHABET "-2\"\r\n");
	done(&a);
	a = get(f, "/data.binance.vision?prefix=" DAY1, NULL);
	assert_has_not(a.body, "-2&quot;");
	done(&a);
	set_rules(f, "[{\"etag\": \"\", \"cut_after\": 1}]");
	/* control is above the rules */
	assert_get(f, "/_control/held", NULL, 200, "{\"held\":0}");
	a = get(f, "/" DAY1, NULL);
	assert_int_equal(a.code, CURLE_PARTIAL_FILE);
	assert_has_not(a.head, "ETag");
	done(&a);
}

static void test_imitation__checksums_go_wrong(void **state)
{
	struct fixture *f = *state;

	set_rules(f, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true}]");
	assert_get(f, "/" DAY1 ".CHECKSUM", NULL, 200, "0bc");
	assert_get(f, "/" DAY1, NULL, 200, ALPHABET);
	set_rules(f, "[{\"key\": \"*.CHECKSUM\", \"body\": \"nonsense\"}]");
	assert_get(f, "/" DAY1 ".CHECKSUM", NULL, 200, "nonsense");
}

static void test_imitation__listings_go_wrong(void **state)
{
	const char *path = "/data.binance.vision?delimiter=/&prefix=" DAYS;
	struct fixture *f = *state;
	struct answer a, b;

	set_rules(f, "[{\"kind\": \"list\", \"html\": true}]");
	a = get(f, path, NULL);
	assert_int_equal(a.status, 200);
	assert_has(a.head, "text/html");
	done(&a);
	set_rules(f, "[{\"kind\": \"list\", \"bad_xml\": true}]");
	a = get(f, path, NULL);
	assert_has(a.body, "<ListBucketResult");
	assert_has_not(a.body, "</ListBucketResult>");
	done(&a);
	set_rules(f, "[{\"kind\": \"list\", \"empty_list\": true}]");
	a = get(f, path, NULL);
	assert_int_equal(count(a.body, "<Key>"), 0);
	assert_has(a.body, "<Prefix>" DAYS "</Prefix>");
	done(&a);
	set_rules(f, "[{\"kind\": \"list\", \"repeat_page\": true}]");
	a = get(f, "/data.binance.vision?delimiter=/&max-keys=1&prefix=" DAYS,
		NULL);
	b = get(f,
		"/data.binance.vision?delimiter=/&max-keys=1&prefix=" DAYS
		"&marker=" DAY1,
		NULL);
	assert_string_equal(a.body, b.body);
	done(&a);
	done(&b);
}

static void test_imitation__headers_are_replaced(void **state)
{
	struct fixture *f = *state;
	struct answer a;

	set_rules(f, "[{\"ignore_range\": true, \"headers\": {\"Last-Modified\""
		     ": null, \"Content-Range\": \"bytes 0-1/2\","
		     " \"X-Cache\": \"Hit\"}}]");
	a = get(f, "/" DAY1, "Range: bytes=5-");
	assert_int_equal(a.status, 200);
	assert_string_equal(a.body, ALPHABET);
	assert_has_not(a.head, "Last-Modified");
	assert_has(a.head, "Content-Range: bytes 0-1/2\r\n");
	assert_has(a.head, "X-Cache: Hit\r\n");
	done(&a);
}

/* -- waits --------------------------------------------------------------- */

struct waiter {
	pthread_t thread;
	const struct fixture *f;
	struct ask ask;
	struct answer answer;
};

static void *wait_for_answer(void *arg)
{
	struct waiter *w = arg;
	CURL *curl = curl_easy_init();

	perform(curl, w->f, &w->ask, &w->answer);
	curl_easy_cleanup(curl);
	return NULL;
}

static void begin(struct waiter *w, const struct fixture *f, const char *path)
{
	memset(w, 0, sizeof(*w));
	w->f = f;
	w->ask.path = path;
	assert_int_equal(pthread_create(&w->thread, NULL, wait_for_answer, w),
			 0);
}

static void test_imitation__held_requests_delay_no_other(void **state)
{
	struct fixture *f = *state;
	struct waiter w[40];

	set_rules(f, "[{\"key\": \"*.CHECKSUM\", \"hold\": \"sums\"}]");
	for (size_t i = 0; i < 40; i++)
		begin(&w[i], f, "/" DAY1 ".CHECKSUM");
	assert_int_equal(imitation_held(f->im, "sums", 40, 30000), 40);
	assert_get(f, "/" DAY1, NULL, 200, ALPHABET);
	assert_int_equal(imitation_held(f->im, NULL, 0, 0), 40);
	assert_int_equal(imitation_release(f->im, "sums", 1), 0);
	for (size_t i = 0; imitation_held(f->im, "sums", 0, 0) > 39; i++)
		usleep(1000);
	assert_int_equal(imitation_held(f->im, "sums", 0, 0), 39);
	assert_int_equal(imitation_release(f->im, "sums", 0), 0);
	for (size_t i = 0; i < 40; i++) {
		pthread_join(w[i].thread, NULL);
		assert_string_equal(w[i].answer.body, "abc");
		done(&w[i].answer);
	}
	/* released is released, until it is held anew */
	assert_get(f, "/" DAY1 ".CHECKSUM", NULL, 200, "abc");
	assert_int_equal(imitation_hold(f->im, "sums"), 0);
	begin(&w[0], f, "/" DAY1 ".CHECKSUM");
	assert_int_equal(imitation_held(f->im, "sums", 1, 30000), 1);
	assert_int_equal(imitation_release(f->im, NULL, 0), 0);
	pthread_join(w[0].thread, NULL);
	done(&w[0].answer);
}

static void test_imitation__holds_amid_a_body(void **state)
{
	struct fixture *f = *state;
	struct imitation_stats stats;
	struct answer a;
	struct waiter w;

	set_rules(f, "[{\"hold\": \"mid\", \"hold_after\": 10}]");
	begin(&w, f, "/" DAY1);
	assert_int_equal(imitation_held(f->im, "mid", 1, 30000), 1);
	imitation_stats(f->im, &stats);
	assert_int_equal(stats.bytes, 10);
	assert_int_equal(stats.in_flight, 1);
	a = get(f, "/_control/held?name=mid&at_least=1&timeout_ms=1000", NULL);
	assert_string_equal(a.body, "{\"held\":1}");
	done(&a);
	ask(f, &(struct ask){.path = "/_control/release?name=mid", .post = ""},
	    &a);
	assert_int_equal(a.status, 200);
	done(&a);
	pthread_join(w.thread, NULL);
	assert_string_equal(w.answer.body, ALPHABET);
	done(&w.answer);
}

/* Waits of an hour: the tests end only because nothing else waits. */
static void
test_imitation__waits_end_with_the_client_or_the_origin(void **state)
{
	struct fixture *f = *state;
	struct waiter w[3];
	struct answer a;

	set_rules(f, "[{\"key\": \"*/1m/*.zip\", \"hold\": \"x\"},"
		     " {\"key\": \"*.CHECKSUM\", \"stall_after\": 1},"
		     " {\"kind\": \"page\", \"delay_ms\": 3600000}]");
	/* a client that goes away is held no longer */
	ask(f, &(struct ask){.path = "/" DAY1, .timeout_ms = 200}, &a);
	assert_int_equal(a.code, CURLE_OPERATION_TIMEDOUT);
	done(&a);
	while (imitation_held(f->im, "x", 0, 0))
		usleep(1000);
	ask(f, &(struct ask){.path = "/" DAY1 ".CHECKSUM", .timeout_ms = 300},
	    &a);
	assert_int_equal(a.code, CURLE_OPERATION_TIMEDOUT);
	assert_string_equal(a.body, "a");
	done(&a);
	begin(&w[0], f, "/" DAY1);
	begin(&w[1], f, "/" DAY1 ".CHECKSUM");
	begin(&w[2], f, "/");
	assert_int_equal(imitation_held(f->im, "x", 1, 30000), 1);
	assert_get(f, "/data.binance.vision", NULL, 200, NULL);
	imitation_stop(f->im);
	for (size_t i = 0; i < 3; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_not_equal(w[i].answer.code, CURLE_OK);
		done(&w[i].answer);
	}
	f->im = NULL;
}

/* A lower bound on time can only fail if the wait was not kept. */
static void test_imitation__delays_add_up_on_a_new_connection(void **state)
{
	struct fixture *f = *state;
	CURL *curl = curl_easy_init();
	struct answer a;
	double first, second;

	set_rules(f, "[{\"connection_delay_ms\": 300}, {\"delay_ms\": 100}]");
	perform(curl, f, &(struct ask){.path = "/" DAY1}, &a);
	curl_easy_getinfo(curl, CURLINFO_TOTAL_TIME, &first);
	done(&a);
	perform(curl, f, &(struct ask){.path = "/" DAY1}, &a);
	curl_easy_getinfo(curl, CURLINFO_TOTAL_TIME, &second);
	done(&a);
	curl_easy_cleanup(curl);
	assert_true(first >= .4);
	assert_true(second >= .1);
}

/* -- counts -------------------------------------------------------------- */

static void test_imitation__counts_and_logs(void **state)
{
	struct fixture *f = *state;
	struct imitation_stats stats;
	struct answer a;
	char *log;

	imitation_reset(f->im);
	assert_get(f, "/" DAY1, NULL, 200, NULL);
	assert_get(f, "/" DAY1, "Range: bytes=-2", 206, NULL);
	assert_get(f, "/data/none", NULL, 404, NULL);
	ask(f, &(struct ask){.method = "HEAD", .path = "/" DAY1}, &a);
	done(&a);
	assert_get(f, "/data.binance.vision/" DAY1, "If-None-Match: *", 304,
		   NULL);
	imitation_stats(f->im, &stats);
	assert_int_equal(stats.requests, 5);
	assert_int_equal(stats.by_kind[IMITATION_OBJECT], 3);
	assert_int_equal(stats.by_kind[IMITATION_RANGE], 1);
	assert_int_equal(stats.by_kind[IMITATION_HEAD], 1);
	assert_int_equal(stats.by_host[IMITATION_MIRROR], 1);
	assert_int_equal(stats.by_status[200], 2);
	assert_int_equal(stats.by_status[206], 1);
	assert_int_equal(stats.by_status[304], 1);
	assert_int_equal(stats.by_status[404], 1);
	assert_int_equal(stats.connections_opened, 5);
	log = imitation_log(f->im);
	assert_has(log, "\"method\":\"GET\",\"path\":\"/" DAY1 "\","
			"\"query\":null,\"range\":\"bytes=-2\"");
	assert_has(log, "\"if_none_match\":\"*\"");
	free(log);
	imitation_reset(f->im);
	a = get(f, "/_control/log", NULL);
	assert_string_equal(a.body, "[]");
	done(&a);
	assert_get(f, "/" DAY1, "Range: bytes=0-6", 206, NULL);
	a = get(f, "/_control/stats", NULL);
	assert_has(a.body, "{\"requests\":1,\"bytes\":7,");
	assert_has(a.body, "\"by_status\":{\"206\":1}");
	done(&a);
	assert_get(f, "/_control/none", NULL, 404, NULL);
	assert_get(f, "/_control/reset", NULL, 405, NULL);
}

static void test_imitation__log_keeps_the_last(void **state)
{
	struct fixture *f = *state;
	struct imitation_config cfg = {.root = f->root, .log_max = 2};
	struct fixture small = *f;
	char *log;

	assert_int_equal(imitation_start(&small.im, &cfg, NULL, 0), 0);
	assert_get(&small, "/data/1", NULL, 404, NULL);
	assert_get(&small, "/data/2", NULL, 404, NULL);
	assert_get(&small, "/data/3", NULL, 404, NULL);
	log = imitation_log(small.im);
	assert_has_not(log, "/data/1");
	assert_true(strstr(log, "/data/2") < strstr(log, "/data/3"));
	free(log);
	imitation_stop(small.im);
}

static void test_imitation__large_bodies_are_counted(void **state)
{
	const size_t size = 3 << 20;
	struct fixture *f = *state;
	struct imitation_stats stats;
	char *data = calloc(1, size);
	struct answer a;

	assert_non_null(data);
	data[size - 1] = 'z';
	write_file(f, "data/large", data, size);
	a = get(f, "/data/large", NULL);
	assert_int_equal(a.body_len, size);
	assert_memory_equal(a.body, data, size);
	done(&a);
	imitation_stats(f->im, &stats);
	assert_int_equal(stats.bytes, size);
	free(data);
}

static void test_imitation__settings_are_checked(void **state)
{
	const struct fixture *f = *state;
	const struct {
		struct imitation_config cfg;
		int err;
	} cases[] = {
		{{.root = NULL}, -EINVAL},
		{{.root = "/nonexistent"}, -ENOENT},
		{{.root = f->root, .page_size = 1001}, -EINVAL},
		{{.root = f->root, .listing_path = "bucket"}, -EINVAL},
		{{.root = f->root, .listing_path = "/bucket/"}, -EINVAL},
		{{.root = f->root, .rules = "nonsense"}, -EINVAL},
		{{.root = f->root, .port = imitation_port(f->im)}, -EADDRINUSE},
	};
	struct imitation *im;
	char why[160];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(imitation_start(&im, &cases[i].cfg, why,
						 sizeof(why)),
				 cases[i].err);
}

static void test_imitation__listing_path_is_a_setting(void **state)
{
	struct fixture f = *(struct fixture *)*state;
	struct imitation_config cfg = {
		.root = f.root, .listing_path = "/some/bucket", .page_size = 1};
	struct answer a;

	assert_int_equal(imitation_start(&f.im, &cfg, NULL, 0), 0);
	assert_string_equal(imitation_listing_url(f.im) +
				    strlen(imitation_url(f.im)),
			    "/some/bucket");
	a = get(&f, "/some/bucket?prefix=data/", NULL);
	assert_has(a.body, "<Name>bucket</Name>");
	assert_int_equal(count(a.body, "<Key>"), 1);
	done(&a);
	assert_get(&f, "/some/bucket/" DAY1, NULL, 200, ALPHABET);
	imitation_stop(f.im);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_imitation__listing_has_the_real_shape),
		TEST(test_imitation__next_marker_only_with_a_delimiter),
		TEST(test_imitation__a_page_ends_at_1000_entries),
		TEST(test_imitation__pages_join_without_loss_or_repeat),
		TEST(test_imitation__marker_need_not_exist),
		TEST(test_imitation__marker_within_a_folder),
		TEST(test_imitation__prefix_may_end_within_a_name),
		TEST(test_imitation__unknown_prefix_is_an_empty_200),
		TEST(test_imitation__refuses_queries_as_s3_does),
		TEST(test_imitation__version_2_pages_by_token),
		TEST(test_imitation__names_come_raw_or_encoded),
		TEST(test_imitation__shows_what_changes_on_disk),
		TEST(test_imitation__website_answers_listings_with_html),
		TEST(test_imitation__missing_objects),
		TEST(test_imitation__serves_nothing_but_data),
		TEST(test_imitation__object_headers),
		TEST(test_imitation__ranges),
		TEST(test_imitation__conditions),
		TEST(test_imitation__files_beyond_4_gib),
		TEST(test_imitation__refuses_rules_it_does_not_know),
		TEST(test_imitation__rules_choose_requests),
		TEST(test_imitation__rules_count_requests),
		TEST(test_imitation__same_seed_same_faults),
		cmocka_unit_test(test_imitation__jitter_is_drawn_for_each_key),
		TEST(test_imitation__bodies_are_cut_and_falsified),
		TEST(test_imitation__objects_are_replaced),
		TEST(test_imitation__checksums_go_wrong),
		TEST(test_imitation__listings_go_wrong),
		TEST(test_imitation__headers_are_replaced),
		TEST(test_imitation__held_requests_delay_no_other),
		TEST(test_imitation__holds_amid_a_body),
		TEST(test_imitation__waits_end_with_the_client_or_the_origin),
		TEST(test_imitation__delays_add_up_on_a_new_connection),
		TEST(test_imitation__counts_and_logs),
		TEST(test_imitation__log_keeps_the_last),
		TEST(test_imitation__large_bodies_are_counted),
		TEST(test_imitation__settings_are_checked),
		TEST(test_imitation__listing_path_is_a_setting),
	};
	int failed;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	curl_global_cleanup();
	return failed;
}

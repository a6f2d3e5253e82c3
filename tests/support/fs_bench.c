#include "tests/support/fs_bench.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zip.h>

#include <cmocka.h>

#include "fs/observe.h"
#include "tests/support/scratch.h"

/* ---- up and down ---- */

void fs_begin(struct fs_bench *b)
{
	struct imitation_config cfg = {0};
	char why[256];

	*b = (struct fs_bench){0};
	/* Times in zips are local. Besides, without TZ glibc reads the zone
	 * anew at each mktime(3), under a lock that TSan does not know. */
	setenv("TZ", "UTC0", 1);
	tzset();
	b->dir = scratch_create();
	b->root = scratch_path(b->dir, "origin");
	b->cache = scratch_path(b->dir, "cache");
	assert_int_equal(mkdir(b->root, 0755), 0);
	cfg.root = b->root;
	if (imitation_start(&b->im, &cfg, why, sizeof(why)))
		fail_msg("no imitated origin: %s", why);
}

void fs_end(struct fs_bench *b)
{
	fs_down(b);
	imitation_stop(b->im);
	scratch_remove(b->dir);
	free(b->root);
	free(b->cache);
}

static void make_origin(struct fs_bench *b, const struct fs_options *o)
{
	struct origin_config cfg = {
		.objects = imitation_url(b->im),
		.listing = imitation_listing_url(b->im),
		.mirror = o->no_mirror ? NULL : imitation_listing_url(b->im),
		.no_proxy = "*",
		.connections = 32,
		.retries = 2,
		.retry_base_ms = 1,
		.retry_max_ms = 5,
		.connect_timeout_ms = FS_PATIENCE_MS,
		.stall_timeout_ms = FS_PATIENCE_MS,
		.offline = o->offline,
		.on_event = observe_fetch,
		.event_arg = b->budget,
	};

	assert_int_equal(origin_create(&b->origin, &cfg), 0);
}

static void make_store(struct fs_bench *b, const struct fs_options *o)
{
	struct store_config cfg = {
		.dir = b->cache,
		.quota_bytes = o->quota_bytes ? o->quota_bytes : 1ull << 30,
		.on_event = observe_store,
	};
	pid_t holder;

	assert_int_equal(store_open(&b->store, &cfg, &holder), 0);
	b->catalog = store_catalog(b->store);
}

static void on_entry(void *arg, const char *prefix,
		     const struct listing_entry *e, int64_t now)
{
	struct fs_bench *b = arg;
	char key[ORIGIN_KEY_MAX + 1];

	snprintf(key, sizeof(key), "%s%s", prefix, e->name);
	supply_note(b->supply, key, e->etag, e->size, e->last_modified, now);
}

static void make_core(struct fs_bench *b, const struct fs_options *o)
{
	static const char *const control[] = {"log.jsonl", "status.json", NULL};
	uint64_t negative = o->negative_ttl_ms ? o->negative_ttl_ms : 300000;
	struct supply_config sc = {
		.admissions = 16,
		.budget = b->budget,
		.origin = b->origin,
		.store = b->store,
		.quick = b->quick,
		.heavy = b->heavy,
		.run_id = "bench",
		.lenient = o->lenient,
		.offline = o->offline,
		.paced = o->paced,
		.has_mirror = !o->no_mirror,
		.negative_ttl_ms = negative,
		.revalidate_ms = o->revalidate_ms ? o->revalidate_ms : 86400000,
	};
	struct listings_config lc = {
		.origin = b->origin,
		.catalog = b->catalog,
		.workers = b->quick,
		.budget = b->budget,
		.ttl_ms = o->listing_ttl_ms ? o->listing_ttl_ms : 3600000,
		.negative_ttl_ms = negative,
		.offline = o->offline,
		.on_entry = on_entry,
		.arg = b,
	};
	struct folders_config fc = {
		.catalog = b->catalog,
		.prefer_monthly = o->prefer_monthly,
		.workers = b->quick,
		.control_files = control,
	};
	struct tree_config tc = {
		.catalog = b->catalog,
		.control_files = control,
	};

	assert_int_equal(supply_create(&b->supply, &sc), 0);
	assert_int_equal(listings_create(&b->listings, &lc), 0);
	fc.supply = tc.supply = b->supply;
	fc.listings = tc.listings = b->listings;
	assert_int_equal(folder_table_create(&b->folders, &fc), 0);
	assert_int_equal(node_table_create(&b->nodes), 0);
	tc.folders = b->folders;
	assert_int_equal(tree_create(&b->tree, &tc), 0);
}

void fs_up(struct fs_bench *b, const struct fs_options *options)
{
	static const struct fs_options plain;
	const struct fs_options *o = options ? options : &plain;

	make_store(b, o);
	if (o->budget_bytes)
		assert_int_equal(
			budget_create(&b->budget, o->budget_bytes, NULL), 0);
	make_origin(b, o);
	assert_int_equal(workers_create(&b->quick, 2, "quick"), 0);
	assert_int_equal(
		workers_create(&b->heavy, o->heavy ? o->heavy : 2, "heavy"), 0);
	make_core(b, o);
}

/* As fs/main.c takes a mount down. */
void fs_down(struct fs_bench *b)
{
	if (!b->store)
		return;
	origin_stop(b->origin);
	workers_drain((struct workers *[]){b->quick, b->heavy}, 2);
	workers_free(b->heavy);
	workers_free(b->quick);
	tree_free(b->tree);
	node_table_free(b->nodes);
	folder_table_free(b->folders);
	listings_free(b->listings);
	supply_free(b->supply);
	origin_free(b->origin);
	budget_free(b->budget);
	b->budget = NULL;
	store_close(b->store);
	b->store = NULL;
}

int fs_setup(void **state)
{
	struct fs_bench *b = malloc(sizeof(*b));

	assert_non_null(b);
	fs_begin(b);
	*state = b;
	return 0;
}

int fs_teardown(void **state)
{
	fs_end(*state);
	free(*state);
	return 0;
}

/* ---- what the origin has ---- */

void *fs_zip(const struct fs_member *members, size_t n, size_t *len)
{
	zip_source_t *buffer = zip_source_buffer_create(NULL, 0, 0, NULL), *s;
	zip_t *z =
		zip_open_from_source(buffer, ZIP_CREATE | ZIP_TRUNCATE, NULL);
	zip_stat_t st;
	zip_int64_t at;
	void *out;

	assert_non_null(z);
	zip_source_keep(buffer);
	for (size_t i = 0; i < n; i++) {
		s = zip_source_buffer(z, members[i].data, members[i].len, 0);
		assert_non_null(s);
		at = zip_file_add(z, members[i].name, s, ZIP_FL_ENC_RAW);
		assert_true(at >= 0);
		zip_set_file_compression(
			z, (zip_uint64_t)at,
			members[i].stored ? ZIP_CM_STORE : ZIP_CM_DEFLATE, 0);
		/* 2024-01-02T00:00:00Z: else two zips of one content differ */
		zip_file_set_mtime(z, (zip_uint64_t)at, 1704153600, 0);
	}
	assert_int_equal(zip_close(z), 0);
	assert_int_equal(zip_source_stat(buffer, &st), 0);
	out = malloc(st.size);
	assert_non_null(out);
	assert_int_equal(zip_source_open(buffer), 0);
	assert_int_equal(zip_source_read(buffer, out, st.size),
			 (zip_int64_t)st.size);
	zip_source_close(buffer);
	zip_source_free(buffer);
	*len = st.size;
	return out;
}

/* A file appears whole or not at all: the origin may be serving. */
void fs_publish(struct fs_bench *b, const char *key, const void *data,
		size_t len)
{
	char path[2048], temporary[2048];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", b->root, key);
	for (char *p = path + strlen(b->root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
		*p = '/';
	}
	snprintf(temporary, sizeof(temporary), "%s/.new", b->root);
	f = fopen(temporary, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(rename(temporary, path), 0);
}

void fs_sha256(const void *data, size_t len, unsigned char out[32])
{
	assert_true(EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL));
}

void fs_publish_zip(struct fs_bench *b, const char *key, const void *zip,
		    size_t len)
{
	unsigned char digest[32];
	char checksum_key[1200], line[400];
	int at = 0;

	fs_publish(b, key, zip, len);
	fs_sha256(zip, len, digest);
	for (int i = 0; i < 32; i++)
		at += snprintf(line + at, sizeof(line) - (size_t)at, "%02x",
			       digest[i]);
	at += snprintf(line + at, sizeof(line) - (size_t)at, "  %s\n",
		       strrchr(key, '/') + 1);
	snprintf(checksum_key, sizeof(checksum_key), "%s.CHECKSUM", key);
	fs_publish(b, checksum_key, line, (size_t)at);
}

void fs_publish_csv(struct fs_bench *b, const char *key, const char *csv,
		    size_t len)
{
	const char *name = strrchr(key, '/') + 1;
	struct fs_member m = {.data = csv, .len = len};
	char member[256];
	size_t zip_len;
	void *zip;

	snprintf(member, sizeof(member), "%.*s.csv", (int)strlen(name) - 4,
		 name);
	m.name = member;
	zip = fs_zip(&m, 1, &zip_len);
	fs_publish_zip(b, key, zip, zip_len);
	free(zip);
}

void fs_rules(struct fs_bench *b, const char *json)
{
	char why[256];

	if (imitation_set_rules(b->im, json, why, sizeof(why)))
		fail_msg("rules: %s", why);
}

char *fs_rows(unsigned int seed, size_t rows, size_t *len)
{
	char *text = malloc(rows * 40 + 1);
	uint64_t x = seed + 1;
	size_t n = 0;

	assert_non_null(text);
	for (size_t i = 0; i < rows; i++) {
		/* Knuth's MMIX generator */
		x = x * 6364136223846793005u + 1442695040888963407u;
		n += (size_t)sprintf(text + n, "%08x,%08x,%zu\n",
				     (unsigned int)(x >> 32), (unsigned int)x,
				     i);
	}
	*len = n;
	return text;
}

/* ---- what it was asked for ---- */

static const char *text_of(const cJSON *line, const char *name)
{
	const char *s = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(line, name));

	return s ? s : "";
}

struct fs_requests fs_requests(struct fs_bench *b, const char *part)
{
	struct fs_requests r = {0};
	char *text = imitation_log(b->im);
	cJSON *log = cJSON_Parse(text), *line;

	assert_non_null(log);
	cJSON_ArrayForEach(line, log)
	{
		const char *range = text_of(line, "range");

		if (part && !strstr(text_of(line, "path"), part) &&
		    !strstr(text_of(line, "query"), part))
			continue;
		r.all++;
		r.ranges += *range != '\0';
		r.heads += strcmp(text_of(line, "kind"), "head") == 0;
		r.lists += strcmp(text_of(line, "kind"), "list") == 0;
		r.mirror += strcmp(text_of(line, "host"), "mirror") == 0;
		if (*range)
			snprintf(r.last_range, sizeof(r.last_range), "%s",
				 range);
	}
	cJSON_Delete(log);
	free(text);
	return r;
}

/* ---- asking and waiting ---- */

static void __attribute__((noreturn)) out_of_patience(void)
{
	fprintf(stderr, "nothing happened in %d s\n", FS_PATIENCE_MS / 1000);
	abort();
}

static void on_wake(struct waiter *waiter)
{
	struct fs_waiter *w = container_of(waiter, struct fs_waiter, waiter);

	pthread_mutex_lock(&w->lock);
	w->woken = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void fs_waiter_begin(struct fs_waiter *w)
{
	*w = (struct fs_waiter){.waiter.wake = on_wake};
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
}

void fs_waiter_end(struct fs_waiter *w)
{
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
}

int fs_wait(struct fs_waiter *w)
{
	struct timespec until;
	int result;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += FS_PATIENCE_MS / 1000;
	pthread_mutex_lock(&w->lock);
	while (!w->woken)
		if (pthread_cond_timedwait(&w->changed, &w->lock, &until) ==
		    ETIMEDOUT)
			out_of_patience();
	w->woken = false;
	result = w->waiter.result;
	pthread_mutex_unlock(&w->lock);
	return result;
}

bool fs_woken(struct fs_waiter *w)
{
	bool woken;

	pthread_mutex_lock(&w->lock);
	woken = w->woken;
	pthread_mutex_unlock(&w->lock);
	return woken;
}

void fs_eventually(bool (*holds)(void *arg), void *arg)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	for (int i = 0; i < FS_PATIENCE_MS; i++) {
		if (holds(arg))
			return;
		nanosleep(&pause, NULL);
	}
	out_of_patience();
}

/* Asks with a waiter again and again, as parked requests do. */
#define ASK(question)                                                          \
	struct fs_waiter w;                                                    \
	int err;                                                               \
                                                                               \
	fs_waiter_begin(&w);                                                   \
	do {                                                                   \
		err = question;                                                \
		if (err != -EINPROGRESS)                                       \
			break;                                                 \
		err = fs_wait(&w);                                             \
	} while (!err);                                                        \
	fs_waiter_end(&w);                                                     \
	return err

int fs_facts(struct fs_bench *b, const char *key, enum supply_need need,
	     struct supply_facts *out)
{
	ASK(supply_facts(b->supply, key, need, &w.waiter, out));
}

int fs_open(struct fs_bench *b, const char *key, struct store_object **out)
{
	ASK(supply_open(b->supply, key, &w.waiter, NULL, out));
}

int fs_heal(struct fs_bench *b, struct store_object *o,
	    struct store_object **out)
{
	ASK(supply_heal(b->supply, o, &w.waiter, out));
}

int fs_ensure(struct fs_bench *b, const char *prefix)
{
	ASK(listings_ensure(b->listings, prefix, &w.waiter));
}

int fs_probe(struct fs_bench *b, const char *prefix)
{
	ASK(listings_probe(b->listings, prefix, &w.waiter));
}

int fs_folder(struct fs_bench *b, const char *path, struct folder **out)
{
	ASK(folder_read(b->folders, path, &w.waiter, out));
}

static int confirm(struct fs_bench *b, const char *path, struct tree_target *tg)
{
	ASK(tree_confirm(b->tree, path, tg, &w.waiter));
}

int fs_resolve(struct fs_bench *b, const char *path, struct tree_target *tg)
{
	int err = tree_resolve(b->tree, path, tg);

	return err ? err : confirm(b, path, tg);
}

static int stat_target(struct fs_bench *b, const char *path,
		       const struct tree_target *tg, struct tree_file *out)
{
	ASK(tree_stat(b->tree, path, tg, &w.waiter, out));
}

int fs_stat(struct fs_bench *b, const char *path, struct tree_file *out)
{
	struct tree_target tg;
	int err = fs_resolve(b, path, &tg);

	return err ? err : stat_target(b, path, &tg, out);
}

/* ---- what lies on disk ---- */

bool fs_same(struct store_object *o, const void *data, size_t len)
{
	char *buf = malloc(len + 1);
	bool same;

	assert_non_null(buf);
	same = pread(store_object_fd(o), buf, len + 1, 0) == (ssize_t)len &&
	       memcmp(buf, data, len) == 0;
	free(buf);
	return same;
}

void fs_damage(struct fs_bench *b, const char *path, uint64_t off,
	       const void *data, size_t len)
{
	char whole[1200];
	int fd;

	snprintf(whole, sizeof(whole), "%s/%s", b->cache, path);
	fd = open(whole, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fail_msg("can't open %s", whole);
	assert_int_equal(pwrite(fd, data, len, (off_t)off), (ssize_t)len);
	close(fd);
}

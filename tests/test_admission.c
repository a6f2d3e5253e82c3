/*
 * An object's way into the cache, against the imitated origin. Digests are
 * OpenSSL's over the bytes that were published; verdicts are those of the table
 * in cache/verdict.h and design section 3.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/admission.h"
#include "fs/metrics.h"
#include "tests/support/fs_bench.h"

#define FOLDER "data/spot/daily/klines/BTCUSDT/1m/"
#define KEY    FOLDER "BTCUSDT-1m-2024-01-01.zip"
#define PLAIN  FOLDER "note.txt"

/* Writes to an index that grows fail with this, if it is not 0. */
static atomic_int index_error;
/* The next sync of a download fails with this, if it is not 0. */
static atomic_int sync_error;

static bool name_ends(int fd, const char *end)
{
	char link[32], path[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	return n > (ssize_t)strlen(end) &&
	       strcmp(path + n - strlen(end), end) == 0;
}

/* These stand in front of the C library's. */

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	if (atomic_load(&index_error) && name_ends(fd, ".index.tmp")) {
		errno = atomic_load(&index_error);
		return -1;
	}
	return syscall(SYS_pwrite64, fd, buf, len, off);
}

int fdatasync(int fd)
{
	if (atomic_load(&sync_error) && name_ends(fd, ".partial")) {
		errno = atomic_exchange(&sync_error, 0);
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

struct subject {
	struct fs_bench *b;
	struct admission_env env;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Protected by lock: what done was told. */
	bool done;
	struct admission_result result;
	char reason[256];
	size_t members;
	int stage_err; /* of store_stage() from inside done */
};

static void on_done(void *arg, const struct admission_result *r)
{
	struct subject *s = arg;
	struct store_staging *sg = NULL;

	pthread_mutex_lock(&s->lock);
	s->result = *r;
	snprintf(s->reason, sizeof(s->reason), "%s", r->reason);
	s->members = r->directory ? r->directory->n : 0;
	/* Another admission of this key may begin as soon as this is told. */
	s->stage_err = store_stage(s->env.store, KEY, &sg);
	store_staging_close(sg);
	s->done = true;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void subject_begin(struct subject *s, struct fs_bench *b,
			  const struct fs_options *o)
{
	fs_up(b, o);
	*s = (struct subject){
		.b = b,
		.env =
			{
				.origin = b->origin,
				.store = b->store,
				.workers = b->heavy,
				.run_id = "bench",
				.lenient = o && o->lenient,
				.offline = o && o->offline,
				.has_mirror = !o || !o->no_mirror,
			},
	};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
}

static void subject_end(struct subject *s)
{
	fs_down(s->b);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
}

static struct admission *start(struct subject *s, const char *key,
			       const struct origin_meta *meta, bool recheck)
{
	static const struct origin_meta nothing = {.size = UINT64_MAX,
						   .last_modified = -1};
	struct admission *a;

	s->done = false;
	assert_int_equal(admission_start(&a, &s->env, key,
					 meta ? meta : &nothing, recheck, NULL,
					 on_done, s),
			 0);
	return a;
}

static int outcome(struct subject *s)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += FS_PATIENCE_MS / 1000;
	pthread_mutex_lock(&s->lock);
	while (!s->done)
		if (pthread_cond_timedwait(&s->changed, &s->lock, &until))
			abort();
	pthread_mutex_unlock(&s->lock);
	return s->result.err;
}

/* What the origin says of it now. */
static struct origin_meta meta_of(struct subject *s, const char *key)
{
	struct origin_meta m = {.size = UINT64_MAX, .last_modified = -1};
	struct supply_facts f;

	if (fs_facts(s->b, key, SUPPLY_OBJECT, &f) == 0) {
		memcpy(m.etag, f.etag, sizeof(m.etag));
		m.size = f.size;
		m.last_modified = f.last_modified;
	}
	imitation_reset(s->b->im);
	return m;
}

static int admit(struct subject *s, const char *key)
{
	struct origin_meta m = meta_of(s, key);

	start(s, key, &m, false);
	return outcome(s);
}

/* An archive of some 300 KB at KEY. */
struct published {
	void *zip;
	size_t len;
	unsigned char sha256[32];
};

static void publish(struct fs_bench *b, unsigned int seed, size_t rows,
		    struct published *p)
{
	size_t csv_len;
	char *csv = fs_rows(seed, rows, &csv_len);
	struct fs_member m = {
		.name = "BTCUSDT-1m-2024-01-01.csv",
		.data = csv,
		.len = csv_len,
	};

	p->zip = fs_zip(&m, 1, &p->len);
	free(csv);
	fs_publish_zip(b, KEY, p->zip, p->len);
	fs_sha256(p->zip, p->len, p->sha256);
}

static void assert_cached(struct subject *s, const struct published *p)
{
	struct store_object *o;

	assert_int_equal(store_acquire(s->env.store, KEY, &o), 0);
	assert_true(fs_same(o, p->zip, p->len));
	assert_memory_equal(store_object_info(o)->sha256, p->sha256, 32);
	store_release(o);
}

static void assert_quarantined(struct subject *s, enum verdict v)
{
	struct catalog_cached row;
	struct store_object *o;

	assert_int_equal(store_acquire(s->env.store, KEY, &o), -ENOENT);
	assert_int_equal(catalog_cached_get(s->b->catalog, KEY, &row), 0);
	assert_int_equal(row.state, CATALOG_QUARANTINED);
	assert_int_equal(row.verdict, v);
	assert_int_equal(s->result.verdict, v);
	assert_string_not_equal(s->reason, "");
}

/* ---- what holds ---- */

static void test_admission__archive_is_verified_and_indexed(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;
	struct store_object *o;

	publish(b, 1, 20000, &p);
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_int_equal(s.result.info.size, p.len);
	assert_memory_equal(s.result.info.sha256, p.sha256, 32);
	assert_true(s.result.info.has_published);
	assert_memory_equal(s.result.info.published, p.sha256, 32);
	assert_int_equal(s.members, 1);
	assert_cached(&s, &p);
	assert_int_equal(store_acquire(b->store, KEY, &o), 0);
	/* the file itself, and its one member */
	assert_int_equal(checkpoints_streams(store_object_index(o)), 2);
	store_release(o);
	assert_int_equal(fs_requests(b, KEY).all, 2);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__published_checksum_is_kept_beside_it(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;
	struct store_object *o;
	const char *text;
	size_t len;

	publish(b, 1, 100, &p);
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(store_acquire(b->store, KEY ".CHECKSUM", &o), 0);
	text = store_object_small(o, &len);
	assert_non_null(text);
	assert_int_equal(len, 64 + 2 + strlen("BTCUSDT-1m-2024-01-01.zip\n"));
	assert_memory_equal(text + 64, "  BTCUSDT-1m-2024-01-01.zip\n",
			    len - 64);
	store_release(o);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__plain_object_needs_no_checksum(void **state)
{
	static const char text[] = "what the exchange says\n";
	struct fs_bench *b = *state;
	struct subject s;
	struct store_object *o;
	const void *data;
	size_t len;

	fs_publish(b, PLAIN, text, strlen(text));
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, PLAIN), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_int_equal(store_acquire(b->store, PLAIN, &o), 0);
	data = store_object_small(o, &len);
	assert_int_equal(len, strlen(text));
	assert_memory_equal(data, text, len);
	store_release(o);
	assert_int_equal(fs_requests(b, NULL).all, 1);
	subject_end(&s);
}

static void test_admission__empty_plain_object_is_one(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;

	fs_publish(b, PLAIN, "", 0);
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, PLAIN), 0);
	assert_int_equal(s.result.info.size, 0);
	subject_end(&s);
}

/* One byte more than fits into memory goes the way of archives. */
static void test_admission__large_plain_object_gets_an_index(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct store_object *o;
	uint64_t size;
	size_t len;
	char *text = fs_rows(7, 5000, &len);

	assert_true(len > STORE_SMALL_MAX);
	fs_publish(b, PLAIN, text, STORE_SMALL_MAX + 1);
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, PLAIN), 0);
	assert_int_equal(store_acquire(b->store, PLAIN, &o), 0);
	assert_null(store_object_small(o, &len));
	assert_int_equal(
		checkpoints_stream_size(store_object_index(o), 0, &size), 0);
	assert_int_equal(size, STORE_SMALL_MAX + 1);
	assert_true(fs_same(o, text, STORE_SMALL_MAX + 1));
	store_release(o);
	subject_end(&s);
	free(text);
}

/* So large that it is synced before it is judged. The kernel tells once. */
static void test_admission__what_failed_to_sync_comes_anew(void **state)
{
	enum { LEN = 9 << 20 };
	struct fs_bench *b = *state;
	struct subject s;
	struct store_object *o;
	size_t len;
	char *text = fs_rows(7, 400000, &len);

	assert_true(len > LEN);
	fs_publish(b, PLAIN, text, LEN);
	subject_begin(&s, b, NULL);
	atomic_store(&sync_error, EIO);
	assert_int_equal(admit(&s, PLAIN), -EIO);
	assert_int_equal(atomic_load(&sync_error), 0);
	assert_int_equal(store_acquire(b->store, PLAIN, &o), -ENOENT);
	assert_int_equal(admit(&s, PLAIN), 0);
	assert_int_equal(fs_requests(b, PLAIN).ranges, 0);
	assert_int_equal(store_acquire(b->store, PLAIN, &o), 0);
	assert_true(fs_same(o, text, LEN));
	store_release(o);
	subject_end(&s);
	free(text);
}

/* ---- verdicts, and who is asked for them ---- */

static void test_admission__stale_checksum_is_refused_when_strict(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_quarantined(&s, VERDICT_CHECKSUM_STALE);
	/* The ETag proves the archive: it came once. The website, the website
	 * past caches and the mirror were asked for the .CHECKSUM. */
	assert_int_equal(fs_requests(b, KEY ".CHECKSUM").all, 3);
	assert_int_equal(fs_requests(b, KEY ".CHECKSUM").mirror, 1);
	assert_int_equal(fs_requests(b, KEY).all, 3 + 1 + 2);
	assert_int_equal(fs_requests(b, KEY).heads, 2);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__stale_checksum_is_served_if_lenient(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options lenient = {.lenient = true};
	struct catalog_cached row;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true}]");
	subject_begin(&s, b, &lenient);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.result.verdict, VERDICT_CHECKSUM_STALE);
	assert_cached(&s, &p);
	assert_int_equal(catalog_cached_get(b->catalog, KEY, &row), 0);
	assert_int_equal(row.state, CATALOG_ACCEPTED);
	assert_int_equal(row.verdict, VERDICT_CHECKSUM_STALE);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__stale_checksum_in_a_cache_on_the_way(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true,"
		    "  \"times\": 1}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_cached(&s, &p);
	assert_int_equal(fs_requests(b, KEY ".CHECKSUM").all, 2);
	assert_int_equal(fs_requests(b, KEY ".CHECKSUM").mirror, 0);
	subject_end(&s);
	free(p.zip);
}

/* What was found at the website stands where nobody else can be asked. */
static void test_admission__unreachable_sources_add_no_evidence(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options lenient = {.lenient = true};
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true,"
		    "  \"times\": 1},"
		    " {\"key\": \"*.CHECKSUM\", \"nth\": 2, \"times\": 100,"
		    "  \"status\": 403},"
		    " {\"kind\": \"head\", \"status\": 403}]");
	subject_begin(&s, b, &lenient);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.result.verdict, VERDICT_CHECKSUM_STALE);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__unreachable_sources_refuse_if_strict(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true,"
		    "  \"times\": 1},"
		    " {\"key\": \"*.CHECKSUM\", \"nth\": 2, \"times\": 100,"
		    "  \"status\": 403},"
		    " {\"kind\": \"head\", \"status\": 403}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_quarantined(&s, VERDICT_CHECKSUM_STALE);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__missing_checksum_is_refused_strictly(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"status\": 404}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_quarantined(&s, VERDICT_CHECKSUM_MISSING);
	assert_false(s.result.info.has_published);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__missing_checksum_is_served_leniently(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options lenient = {.lenient = true};
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"status\": 404}]");
	subject_begin(&s, b, &lenient);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.result.verdict, VERDICT_CHECKSUM_MISSING);
	assert_cached(&s, &p);
	subject_end(&s);
	free(p.zip);
}

/* The mirror has a .CHECKSUM where the website has lost its. */
static void test_admission__missing_checksum_comes_from_the_mirror(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"status\": 404,"
		    "  \"host\": \"main\"}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_int_equal(fs_requests(b, KEY ".CHECKSUM").mirror, 1);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__checksum_that_is_none_counts_as_wrong(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;
	char *large = calloc(1, 5000);

	publish(b, 1, 2000, &p);
	memset(large, 'a', 5000);
	fs_publish(b, KEY ".CHECKSUM", large, 5000);
	free(large);
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_quarantined(&s, VERDICT_CHECKSUM_STALE);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__damaged_archive_comes_from_the_mirror(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.zip\", \"host\": \"main\","
		    "  \"kind\": [\"object\", \"range\"], \"flip_at\": 300}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_cached(&s, &p);
	/* website, past caches, mirror; each with its .CHECKSUM */
	assert_int_equal(fs_requests(b, KEY).all, 6);
	assert_int_equal(fs_requests(b, KEY).mirror, 2);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__damaged_archive_is_put_aside(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options lenient = {.lenient = true};
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.zip\", \"flip_at\": 300}]");
	subject_begin(&s, b, &lenient);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_quarantined(&s, VERDICT_DAMAGED);
	assert_int_equal(fs_requests(b, KEY).all, 6);
	subject_end(&s);
	free(p.zip);
}

/* Checksum and ETag hold, and still it is no zip: as published, and bad. */
static void test_admission__what_is_no_zip_is_damaged(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options one = {.no_mirror = true};
	struct subject s;
	size_t len;
	char *text = fs_rows(1, 1000, &len);

	fs_publish_zip(b, KEY, text, len);
	subject_begin(&s, b, &one);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_quarantined(&s, VERDICT_DAMAGED);
	subject_end(&s);
	free(text);
}

static void test_admission__member_with_a_wrong_crc_is_damaged(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options one = {.no_mirror = true};
	struct fs_member m = {
		.name = "BTCUSDT-1m-2024-01-01.csv",
		.data = "1,2,3\n",
		.len = 6,
		.stored = true,
	};
	struct subject s;
	unsigned char *zip;
	size_t len;

	zip = fs_zip(&m, 1, &len);
	/* Stored data begin after 30 bytes of header and the name: change the
	 * 2 to a 7, which no checksum outside of the zip can tell. */
	assert_memory_equal(zip + 30 + 25, "1,2,3\n", 6);
	zip[30 + 25 + 2] = '7';
	fs_publish_zip(b, KEY, zip, len);
	subject_begin(&s, b, &one);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_quarantined(&s, VERDICT_DAMAGED);
	subject_end(&s);
	free(zip);
}

/* Nothing is judged that the .CHECKSUM could not be asked for. */
static void test_admission__refused_checksum_is_the_answer(void **state)
{
	struct fs_bench *b = *state;
	struct catalog_cached row;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"status\": 403}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), -EACCES);
	assert_int_equal(catalog_cached_get(b->catalog, KEY, &row), -ENOENT);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__absent_object_is_not_there(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;

	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), -ENOENT);
	assert_int_equal(admit(&s, PLAIN), -ENOENT);
	subject_end(&s);
}

/* ---- what changes, stops, and goes on ---- */

static void test_admission__takes_the_version_that_came_instead(void **state)
{
	struct fs_bench *b = *state;
	struct origin_meta old = {
		.etag = "0123456789abcdef0123456789abcdef",
		.size = 12345,
		.last_modified = 1700000000,
	};
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	subject_begin(&s, b, NULL);
	start(&s, KEY, &old, false);
	assert_int_equal(outcome(&s), 0);
	assert_true(s.result.changed);
	assert_int_equal(s.result.info.size, p.len);
	assert_string_not_equal(s.result.info.etag, old.etag);
	assert_cached(&s, &p);
	subject_end(&s);
	free(p.zip);
}

struct arrived {
	struct fs_bench *b;
	struct admission *a;
	uint64_t at_least;
};

static bool has_arrived(void *arg)
{
	struct arrived *w = arg;
	uint64_t done, total;

	admission_progress(w->a, &done, &total);
	/* And the .CHECKSUM was asked for, so that counts are the same. */
	return done >= w->at_least && fs_requests(w->b, KEY).all == 2;
}

enum { PART = 100000 };

#define STALL_AFTER_PART "[{\"key\": \"*.zip\", \"stall_after\": 100000}]"

static bool is_indexed(void *arg)
{
	struct fs_bench *b = arg;
	struct stat st;
	char path[1200];

	snprintf(path, sizeof(path), "%s/staging/" KEY ".index.tmp", b->cache);
	return stat(path, &st) == 0 && st.st_size > 0;
}

/* An archive whose download is held after a part that can be decoded. */
static struct origin_meta begin_midway(struct subject *s, struct fs_bench *b,
				       struct published *p)
{
	struct origin_meta m;

	publish(b, 1, 150000, p);
	assert_true(p->len > 1600000);
	subject_begin(s, b, NULL);
	m = meta_of(s, KEY);
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold_after\": 1500000,"
		    "  \"hold\": \"midway\"}]");
	return m;
}

/* Decoding does not wait for the end: part of the index is there before. */
static void test_admission__decodes_while_it_downloads(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;
	struct origin_meta m;

	m = begin_midway(&s, b, &p);
	start(&s, KEY, &m, false);
	fs_eventually(is_indexed, b);
	imitation_release(b->im, "midway", 0);
	assert_int_equal(outcome(&s), 0);
	assert_cached(&s, &p);
	subject_end(&s);
	free(p.zip);
}

/* A full disk is told at once, not when the rest of the download is there. */
static void test_admission__index_that_fails_ends_the_download(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;
	struct origin_meta m;

	m = begin_midway(&s, b, &p);
	/* Nor is a quota of the disk taken for the budget. */
	for (int i = 0; i < 2; i++) {
		atomic_store(&index_error, i ? EDQUOT : ENOSPC);
		start(&s, KEY, &m, false);
		assert_int_equal(outcome(&s), -ENOSPC);
	}
	atomic_store(&index_error, 0);
	imitation_release(b->im, "midway", 0);
	fs_rules(b, "[]");
	assert_int_equal(admit(&s, KEY), 0);
	assert_cached(&s, &p);
	subject_end(&s);
	free(p.zip);
}

/* The tail that was asked for its directory came from another archive under
 * the same name. */
static void test_admission__wrong_directory_does_no_harm(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;
	struct origin_meta m;
	struct archive_directory *d;
	struct catalog_facts facts;
	struct store_object *o;
	uint64_t size;

	publish(b, 1, 20000, &p);
	subject_begin(&s, b, NULL);
	m = meta_of(&s, KEY);
	assert_int_equal(catalog_facts_get(b->catalog, KEY, m.etag, &facts), 0);
	assert_int_equal(catalog_directory_get(b->catalog, KEY, m.etag, &d), 0);
	size = d->members[0].size;
	d->members[0].size -= 1000;
	d->members[0].crc32 ^= 1;
	assert_int_equal(catalog_facts_put(b->catalog, KEY, &facts, d), 0);
	archive_directory_free(d);
	start(&s, KEY, &m, false);
	assert_int_equal(outcome(&s), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_cached(&s, &p);
	assert_int_equal(store_acquire(b->store, KEY, &o), 0);
	assert_int_equal(checkpoints_stream_size(store_object_index(o), 1,
						 &facts.size),
			 0);
	assert_int_equal(facts.size, size);
	store_release(o);
	subject_end(&s);
	free(p.zip);
}

/* Begins, and is cancelled when PART bytes are there. */
static void begin_and_cancel(struct subject *s)
{
	struct origin_meta m = meta_of(s, KEY);
	struct arrived w = {.b = s->b, .at_least = PART};

	fs_rules(s->b, STALL_AFTER_PART);
	w.a = start(s, KEY, &m, false);
	fs_eventually(has_arrived, &w);
	admission_cancel(w.a);
	assert_int_equal(outcome(s), -ECANCELED);
	fs_rules(s->b, "[]");
}

static void test_admission__cancelled_download_resumes(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;
	uint64_t bytes, size;

	publish(b, 1, 20000, &p);
	subject_begin(&s, b, NULL);
	begin_and_cancel(&s);
	assert_int_equal(store_partial(b->store, KEY, &bytes, &size), 0);
	assert_int_equal(bytes, PART);
	assert_int_equal(size, p.len);
	assert_int_equal(admit(&s, KEY), 0);
	assert_cached(&s, &p);
	assert_string_equal(fs_requests(b, KEY).last_range, "bytes=100000-");
	assert_int_equal(fs_requests(b, KEY).all, 2);
	subject_end(&s);
	free(p.zip);
}

/* Whoever is told may begin again at once, while nobody else has the place. */
static void test_admission__staging_is_free_when_done_is_told(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 20000, &p);
	subject_begin(&s, b, NULL);
	begin_and_cancel(&s);
	assert_int_equal(s.stage_err, 0);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(s.stage_err, 0);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__part_of_another_version_is_dropped(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published before, now;

	publish(b, 1, 20000, &before);
	subject_begin(&s, b, NULL);
	begin_and_cancel(&s);
	publish(b, 2, 20000, &now);
	start(&s, KEY, &(struct origin_meta){.size = UINT64_MAX}, false);
	assert_int_equal(outcome(&s), 0);
	assert_cached(&s, &now);
	assert_int_equal(fs_requests(b, KEY).ranges, 0);
	subject_end(&s);
	free(before.zip);
	free(now.zip);
}

/* The name says it is the same version, and the bytes say it is not. */
static void test_admission__damaged_part_is_not_held_against_it(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 20000, &p);
	subject_begin(&s, b, NULL);
	begin_and_cancel(&s);
	fs_damage(b, "staging/" KEY ".partial", 5000, "damage", 6);
	assert_int_equal(admit(&s, KEY), 0);
	assert_cached(&s, &p);
	/* resumed, then whole, each with its .CHECKSUM; the website gave it */
	assert_int_equal(fs_requests(b, KEY).all, 4);
	assert_int_equal(fs_requests(b, KEY).mirror, 0);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__ignored_range_starts_from_the_top(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 20000, &p);
	subject_begin(&s, b, NULL);
	begin_and_cancel(&s);
	fs_rules(b, "[{\"key\": \"*.zip\", \"ignore_range\": true}]");
	assert_int_equal(admit(&s, KEY), 0);
	assert_cached(&s, &p);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__object_replaced_midway_is_fetched_anew(void **state)
{
	struct fs_bench *b = *state;
	struct arrived w = {.b = b, .at_least = PART};
	struct origin_meta m;
	struct subject s;
	struct published before, now;

	publish(b, 1, 20000, &before);
	subject_begin(&s, b, NULL);
	m = meta_of(&s, KEY);
	/* The first answer breaks off; its rest is then another's. */
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold_after\": 100000,"
		    "  \"hold\": \"midway\", \"cut_after\": 150000,"
		    "  \"times\": 1}]");
	w.a = start(&s, KEY, &m, false);
	fs_eventually(has_arrived, &w);
	publish(b, 2, 20000, &now);
	imitation_release(b->im, "midway", 0);
	assert_int_equal(outcome(&s), 0);
	assert_true(s.result.changed);
	assert_cached(&s, &now);
	subject_end(&s);
	free(before.zip);
	free(now.zip);
}

/* An object that is never twice the same is not fetched for ever. */
static void test_admission__endless_change_times_out(void **state)
{
	struct fs_bench *b = *state;
	struct origin_meta m;
	struct subject s;
	struct published p;
	char rules[1000];
	int n = 0;

	publish(b, 1, 2000, &p);
	subject_begin(&s, b, NULL);
	m = meta_of(&s, KEY);
	n += sprintf(rules, "[");
	for (int i = 1; i <= 9; i++)
		n += sprintf(rules + n,
			     "%s{\"key\": \"*.zip\", \"nth\": %d,"
			     " \"etag\": \"version%d\"}",
			     i > 1 ? "," : "", i, i);
	sprintf(rules + n, "]");
	fs_rules(b, rules);
	start(&s, KEY, &m, false);
	assert_int_equal(outcome(&s), -ETIMEDOUT);
	assert_in_range(fs_requests(b, "2024-01-01.zip").all, 4, 9);
	subject_end(&s);
	free(p.zip);
}

/* Of an object that was not known the answer itself says which version it is:
 * else it could never be told from the next one. */
static void test_admission__unknown_version_is_learnt(void **state)
{
	struct fs_bench *b = *state;
	struct origin_meta m;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	subject_begin(&s, b, NULL);
	m = meta_of(&s, KEY);
	start(&s, KEY, NULL, false);
	assert_int_equal(outcome(&s), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_string_equal(s.result.info.etag, m.etag);
	assert_int_equal(s.result.info.last_modified, m.last_modified);
	assert_int_equal(s.result.info.size, p.len);
	subject_end(&s);
	free(p.zip);
}

/* And only then can it be told that its checksum is the stale one. */
static void test_admission__unknown_version_has_an_etag_witness(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.CHECKSUM\", \"wrong_checksum\": true}]");
	subject_begin(&s, b, NULL);
	start(&s, KEY, NULL, false);
	assert_int_equal(outcome(&s), -EBADMSG);
	assert_int_equal(s.result.verdict, VERDICT_CHECKSUM_STALE);
	subject_end(&s);
	free(p.zip);
}

/* Bytes were found damaged; that the next source's checksum is not to be had
 * is no better news. */
static void test_admission__damage_stands_without_other_sources(void **state)
{
	struct fs_bench *b = *state;
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	fs_rules(b, "[{\"key\": \"*.zip\", \"kind\": \"object\","
		    "  \"times\": 1, \"flip_at\": 300},"
		    " {\"key\": \"*.CHECKSUM\", \"nth\": 2,"
		    "  \"times\": 100, \"status\": 403}]");
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), -EBADMSG);
	assert_int_equal(s.result.verdict, VERDICT_DAMAGED);
	subject_end(&s);
	free(p.zip);
}

/* ---- what lies in the cache already ---- */

static void test_admission__cached_bytes_are_checked_in_place(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options offline = {.offline = true};
	struct subject s;
	struct published p;
	struct store_object *o;
	struct origin_meta m;

	publish(b, 1, 2000, &p);
	subject_begin(&s, b, NULL);
	m = meta_of(&s, KEY);
	assert_int_equal(admit(&s, KEY), 0);
	subject_end(&s);

	subject_begin(&s, b, &offline);
	assert_int_equal(store_acquire(b->store, KEY, &o), 0);
	store_damaged(b->store, o);
	store_release(o);
	assert_int_equal(store_acquire(b->store, KEY, &o), -EUCLEAN);
	imitation_reset(b->im);
	start(&s, KEY, &m, true);
	assert_int_equal(outcome(&s), 0);
	assert_int_equal(s.result.verdict, VERDICT_VERIFIED);
	assert_cached(&s, &p);
	assert_int_equal(fs_requests(b, NULL).all, 0);
	subject_end(&s);
	free(p.zip);
}

static void edit_row(struct subject *s, const char *key, const char *origin)
{
	struct catalog *c = s->b->catalog;
	struct catalog_cached row;

	assert_int_equal(catalog_cached_get(c, key, &row), 0);
	memset(row.origin, 0, sizeof(row.origin));
	strcpy(row.origin, origin);
	assert_int_equal(catalog_cached_put(c, key, &row), 0);
}

static void assert_origin(struct subject *s, const char *key,
			  const char *origin)
{
	struct catalog_cached row;

	assert_int_equal(catalog_cached_get(s->b->catalog, key, &row), 0);
	assert_string_equal(row.origin, origin);
}

/* Checked in place by what is cached alone: another mount's origin has no part
 * in it. Its row lost, too, it is where its .CHECKSUM is from. */
static void test_admission__cached_bytes_keep_their_origin(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options offline = {.offline = true};
	struct subject s;
	struct published p;

	publish(b, 1, 2000, &p);
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), 0);
	assert_origin(&s, KEY, imitation_url(b->im));
	assert_origin(&s, KEY ".CHECKSUM", imitation_url(b->im));
	edit_row(&s, KEY, "http://a.example");
	edit_row(&s, KEY ".CHECKSUM", "http://b.example");
	subject_end(&s);

	subject_begin(&s, b, &offline);
	start(&s, KEY, NULL, true);
	assert_int_equal(outcome(&s), 0);
	assert_origin(&s, KEY, "http://a.example");
	assert_origin(&s, KEY ".CHECKSUM", "http://b.example");
	assert_int_equal(catalog_cached_delete(b->catalog, KEY), 0);
	start(&s, KEY, NULL, true);
	assert_int_equal(outcome(&s), 0);
	assert_origin(&s, KEY, "http://b.example");
	assert_int_equal(catalog_cached_delete(b->catalog, KEY), 0);
	assert_int_equal(catalog_cached_delete(b->catalog, KEY ".CHECKSUM"), 0);
	subject_end(&s);

	subject_begin(&s, b, &offline);
	start(&s, KEY, NULL, true);
	assert_int_equal(outcome(&s), 0);
	assert_origin(&s, KEY, "");
	assert_origin(&s, KEY ".CHECKSUM", "");
	subject_end(&s);

	/* Asked again, the origin has told. */
	subject_begin(&s, b, NULL);
	start(&s, KEY, NULL, true);
	assert_int_equal(outcome(&s), 0);
	assert_origin(&s, KEY, imitation_url(b->im));
	subject_end(&s);
	free(p.zip);
}

static void test_admission__damaged_cached_bytes_are_replaced(void **state)
{
	struct fs_bench *b = *state;
	uint64_t healed = metrics_get(METRIC_HEALED);
	struct subject s;
	struct published p;
	struct store_object *o;
	struct origin_meta m;

	publish(b, 1, 2000, &p);
	subject_begin(&s, b, NULL);
	assert_int_equal(admit(&s, KEY), 0);
	assert_int_equal(metrics_get(METRIC_HEALED), healed);
	assert_int_equal(store_acquire(b->store, KEY, &o), 0);
	store_damaged(b->store, o);
	store_release(o);
	fs_damage(b, "objects/" KEY, 3000, "damage", 6);
	m = meta_of(&s, KEY);
	start(&s, KEY, &m, true);
	assert_int_equal(outcome(&s), 0);
	assert_cached(&s, &p);
	assert_int_equal(metrics_get(METRIC_HEALED), healed + 1);
	subject_end(&s);
	free(p.zip);
}

static void test_admission__damaged_and_offline_is_unreachable(void **state)
{
	struct fs_bench *b = *state;
	struct fs_options offline = {.offline = true};
	struct subject s;
	struct published p;
	struct store_object *o;
	struct origin_meta m;

	publish(b, 1, 2000, &p);
	subject_begin(&s, b, NULL);
	m = meta_of(&s, KEY);
	assert_int_equal(admit(&s, KEY), 0);
	subject_end(&s);

	subject_begin(&s, b, &offline);
	assert_int_equal(store_acquire(b->store, KEY, &o), 0);
	store_damaged(b->store, o);
	store_release(o);
	fs_damage(b, "objects/" KEY, 3000, "damage", 6);
	start(&s, KEY, &m, true);
	assert_int_equal(outcome(&s), -ENETUNREACH);
	subject_end(&s);
	free(p.zip);
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_admission__archive_is_verified_and_indexed),
		BENCH(test_admission__published_checksum_is_kept_beside_it),
		BENCH(test_admission__plain_object_needs_no_checksum),
		BENCH(test_admission__empty_plain_object_is_one),
		BENCH(test_admission__large_plain_object_gets_an_index),
		BENCH(test_admission__what_failed_to_sync_comes_anew),
		BENCH(test_admission__stale_checksum_is_refused_when_strict),
		BENCH(test_admission__stale_checksum_is_served_if_lenient),
		BENCH(test_admission__stale_checksum_in_a_cache_on_the_way),
		BENCH(test_admission__unreachable_sources_add_no_evidence),
		BENCH(test_admission__unreachable_sources_refuse_if_strict),
		BENCH(test_admission__missing_checksum_is_refused_strictly),
		BENCH(test_admission__missing_checksum_is_served_leniently),
		BENCH(test_admission__missing_checksum_comes_from_the_mirror),
		BENCH(test_admission__checksum_that_is_none_counts_as_wrong),
		BENCH(test_admission__damaged_archive_comes_from_the_mirror),
		BENCH(test_admission__damaged_archive_is_put_aside),
		BENCH(test_admission__what_is_no_zip_is_damaged),
		BENCH(test_admission__member_with_a_wrong_crc_is_damaged),
		BENCH(test_admission__refused_checksum_is_the_answer),
		BENCH(test_admission__absent_object_is_not_there),
		BENCH(test_admission__decodes_while_it_downloads),
		BENCH(test_admission__index_that_fails_ends_the_download),
		BENCH(test_admission__wrong_directory_does_no_harm),
		BENCH(test_admission__takes_the_version_that_came_instead),
		BENCH(test_admission__cancelled_download_resumes),
		BENCH(test_admission__staging_is_free_when_done_is_told),
		BENCH(test_admission__part_of_another_version_is_dropped),
		BENCH(test_admission__damaged_part_is_not_held_against_it),
		BENCH(test_admission__ignored_range_starts_from_the_top),
		BENCH(test_admission__object_replaced_midway_is_fetched_anew),
		BENCH(test_admission__endless_change_times_out),
		BENCH(test_admission__unknown_version_is_learnt),
		BENCH(test_admission__unknown_version_has_an_etag_witness),
		BENCH(test_admission__damage_stands_without_other_sources),
		BENCH(test_admission__cached_bytes_are_checked_in_place),
		BENCH(test_admission__cached_bytes_keep_their_origin),
		BENCH(test_admission__damaged_cached_bytes_are_replaced),
		BENCH(test_admission__damaged_and_offline_is_unreachable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

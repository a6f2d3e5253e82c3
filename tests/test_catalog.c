#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/catalog.h"
#include "tests/support/scratch.h"

#define PREFIX "data/spot/daily/klines/BTCUSDT/1m/"
#define KEY    PREFIX "BTCUSDT-1m-2020-01-01.zip"

/*
 * Stands in front of SQLite's own, to see which statements the catalog uses.
 */
enum { PREPARED_MAX = 256 };
static const char *prepared[PREPARED_MAX];
static unsigned int n_prepared; /* protected by prepared_lock */
static pthread_mutex_t prepared_lock = PTHREAD_MUTEX_INITIALIZER;

int sqlite3_prepare_v3(sqlite3 *db, const char *sql, int len,
		       unsigned int flags, sqlite3_stmt **stmt,
		       const char **tail)
{
	bool seen = false;

	(void)flags;
	pthread_mutex_lock(&prepared_lock);
	for (unsigned int i = 0; i < n_prepared; i++)
		seen = seen || strcmp(prepared[i], sql) == 0;
	if (!seen && n_prepared < PREPARED_MAX)
		prepared[n_prepared++] = sql;
	pthread_mutex_unlock(&prepared_lock);
	return sqlite3_prepare_v2(db, sql, len, stmt, tail);
}

struct place {
	char *dir, *file;
	struct catalog *c;
	atomic_uint damages;
	char said[256];
};

static void on_damage(void *arg, const char *what)
{
	struct place *p = arg;

	snprintf(p->said, sizeof(p->said), "%s", what);
	atomic_fetch_add(&p->damages, 1);
}

static void reopen(struct place *p)
{
	catalog_close(p->c);
	p->c = NULL;
	assert_int_equal(catalog_open(&p->c, p->dir, on_damage, p), 0);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	p->dir = scratch_create();
	p->file = scratch_path(p->dir, "catalog.sqlite");
	*state = p;
	return catalog_open(&p->c, p->dir, on_damage, p);
}

static int teardown(void **state)
{
	struct place *p = *state;

	catalog_close(p->c);
	scratch_remove(p->dir);
	free(p->file);
	free(p);
	return 0;
}

/* What a stranger with the sqlite3 program could do. */
static int meddle(struct place *p, const char *sql)
{
	sqlite3 *db;
	int rc;

	assert_int_equal(sqlite3_open(p->file, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	sqlite3_close(db);
	return rc;
}

static int64_t ask(struct place *p, const char *sql)
{
	sqlite3_stmt *stmt;
	int64_t v = INT64_MIN;
	sqlite3 *db;

	assert_int_equal(sqlite3_open(p->file, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW)
		v = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	return v;
}

/* ---- listings ---- */

static const struct catalog_entry some[] = {
	{.name = "BTCUSDT-1m-2020-01-02.zip",
	 .etag = "014a8d177da3bf9839c293f341804d26",
	 .size = 29761,
	 .last_modified = 1689653480},
	{.name = "BTCUSDT-1m-2020-01-01.zip",
	 .etag = "",
	 .size = UINT64_MAX,
	 .last_modified = -1},
	{.name = "\xe5\xb8\x81USDT", .is_prefix = true, .etag = ""},
};

struct names {
	char all[4096];
	unsigned int n, stop_after;
};

static int add_name(void *arg, const struct catalog_entry *e)
{
	struct names *l = arg;

	strcat(strcat(l->all, e->name), e->is_prefix ? "/ " : " ");
	return ++l->n == l->stop_after ? 77 : 0;
}

static void put_some(struct place *p)
{
	assert_int_equal(catalog_listing_put(p->c, PREFIX, some, 3, 1000), 0);
}

static int get_entry(struct place *p, const char *prefix, const char *name,
		     struct catalog_entry *e)
{
	static char etag[CATALOG_ETAG_MAX];
	int64_t at;

	e->etag = etag;
	return catalog_entry_get(p->c, prefix, name, &e->is_prefix, etag,
				 &e->size, &e->last_modified, &at);
}

static void test_catalog__keeps_a_listing_in_byte_order(void **state)
{
	struct place *p = *state;
	struct names l = {.n = 0};
	int64_t at;

	put_some(p);
	reopen(p);
	assert_int_equal(catalog_listing_time(p->c, PREFIX, &at, NULL), 0);
	assert_int_equal(at, 1000);
	assert_int_equal(catalog_listing_each(p->c, PREFIX, add_name, &l), 0);
	assert_string_equal(l.all, "BTCUSDT-1m-2020-01-01.zip "
				   "BTCUSDT-1m-2020-01-02.zip "
				   "\xe5\xb8\x81USDT/ ");
}

static void test_catalog__stops_a_listing_when_told(void **state)
{
	struct place *p = *state;
	struct names l = {.stop_after = 2};

	put_some(p);
	assert_int_equal(catalog_listing_each(p->c, PREFIX, add_name, &l), 77);
	assert_int_equal(l.n, 2);
}

static void test_catalog__finds_one_entry(void **state)
{
	struct place *p = *state;
	struct catalog_entry e;

	put_some(p);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), 0);
	assert_string_equal(e.etag, "014a8d177da3bf9839c293f341804d26");
	assert_int_equal(e.size, 29761);
	assert_int_equal(e.last_modified, 1689653480);
	assert_false(e.is_prefix);
	assert_int_equal(get_entry(p, PREFIX, some[1].name, &e), 0);
	assert_true(e.size == UINT64_MAX);
	assert_int_equal(e.last_modified, -1);
	assert_int_equal(get_entry(p, PREFIX, some[2].name, &e), 0);
	assert_true(e.is_prefix);
}

static void test_catalog__tells_not_there_from_not_listed(void **state)
{
	struct place *p = *state;
	struct names l = {.n = 0};
	struct catalog_entry e;
	int64_t at;

	put_some(p);
	assert_int_equal(get_entry(p, PREFIX, "a", &e), -ENOENT);
	assert_int_equal(get_entry(p, PREFIX, "\xff", &e), -ENOENT);
	assert_int_equal(get_entry(p, PREFIX, "BTCUSDT-1m-2020-01-01.zi", &e),
			 -ENOENT);
	assert_int_equal(get_entry(p, "data/", "a", &e), -ENODATA);
	assert_int_equal(catalog_listing_time(p->c, "data/", &at, NULL),
			 -ENOENT);
	assert_int_equal(catalog_listing_each(p->c, "data/", add_name, &l),
			 -ENOENT);
	/* An empty listing is a listing. */
	assert_int_equal(catalog_listing_put(p->c, "data/", NULL, 0, 7), 0);
	assert_int_equal(get_entry(p, "data/", "a", &e), -ENOENT);
	assert_int_equal(catalog_listing_each(p->c, "data/", add_name, &l), 0);
	assert_int_equal(l.n, 0);
}

static void test_catalog__replaces_a_listing_as_a_whole(void **state)
{
	struct place *p = *state;
	struct names l = {.n = 0};
	struct catalog_entry e;

	put_some(p);
	assert_int_equal(catalog_listing_put(p->c, PREFIX, some, 1, 2000), 0);
	assert_int_equal(catalog_listing_each(p->c, PREFIX, add_name, &l), 0);
	assert_int_equal(l.n, 1);
	assert_int_equal(get_entry(p, PREFIX, some[1].name, &e), -ENOENT);
	assert_int_equal(ask(p, "SELECT count(*) FROM entry"), 1);
}

static void test_catalog__refuses_etags_that_do_not_fit(void **state)
{
	struct place *p = *state;
	char longest[CATALOG_ETAG_MAX + 1];
	struct catalog_entry e = {.name = "n", .etag = longest};

	memset(longest, 'e', sizeof(longest));
	longest[CATALOG_ETAG_MAX] = '\0';
	assert_int_equal(catalog_listing_put(p->c, "p/", &e, 1, 1), -EINVAL);
	longest[CATALOG_ETAG_MAX - 1] = '\0';
	assert_int_equal(catalog_listing_put(p->c, "p/", &e, 1, 1), 0);
}

static int look_up_inside(void *arg, const struct catalog_entry *e)
{
	struct place *p = arg;
	struct catalog_entry again;

	assert_int_equal(get_entry(p, PREFIX, e->name, &again), 0);
	return catalog_touch(p->c, e->name, 1);
}

static void test_catalog__may_be_called_from_its_callbacks(void **state)
{
	struct place *p = *state;

	put_some(p);
	assert_int_equal(catalog_listing_each(p->c, PREFIX, look_up_inside, p),
			 0);
}

static void test_catalog__a_bad_entry_makes_the_listing_unknown(void **state)
{
	struct place *p = *state;
	struct names l = {.n = 0};
	struct catalog_entry e;

	put_some(p);
	assert_int_equal(meddle(p, "UPDATE entry SET size = 29760"
				   " WHERE size = 29761"),
			 SQLITE_OK);
	assert_int_equal(catalog_listing_each(p->c, PREFIX, add_name, &l),
			 -ENOENT);
	assert_int_equal(l.n, 0);
	assert_int_equal(p->damages, 1);
	/* Any write takes it away. */
	assert_int_equal(catalog_listing_put(p->c, "q/", NULL, 0, 1), 0);
	assert_int_equal(ask(p, "SELECT count(*) FROM entry"), 0);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), -ENODATA);
	put_some(p);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), 0);
	assert_int_equal(e.size, 29761);
}

static void test_catalog__a_changed_name_is_no_proof_of_absence(void **state)
{
	struct place *p = *state;
	struct catalog_entry e;

	/* One bit of a name, flipped where it lies: the order of the rows
	 * stays as it was. '2' and '3' differ in the lowest bit. */
	put_some(p);
	assert_int_equal(meddle(p, "UPDATE entry SET name ="
				   " 'BTCUSDT-1m-2020-01-03.zip'"
				   " WHERE name = 'BTCUSDT-1m-2020-01-02.zip'"),
			 SQLITE_OK);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), -ENODATA);
}

static void test_catalog__a_lost_entry_makes_the_listing_unknown(void **state)
{
	struct place *p = *state;
	struct names l = {.n = 0};

	put_some(p);
	assert_int_equal(meddle(p, "DELETE FROM entry WHERE size = 29761"),
			 SQLITE_OK);
	assert_int_equal(catalog_listing_each(p->c, PREFIX, add_name, &l),
			 -ENOENT);
	put_some(p);
	assert_int_equal(meddle(p, "INSERT INTO entry SELECT listing, 'zzz',"
				   " is_prefix, etag, size, last_modified, crc"
				   " FROM entry WHERE size = 29761"),
			 SQLITE_OK);
	assert_int_equal(catalog_listing_each(p->c, PREFIX, add_name, &l),
			 -ENOENT);
}

/* ---- facts ---- */

static struct catalog_facts facts(const char *etag, uint64_t size)
{
	struct catalog_facts f = {
		.size = size,
		.last_modified = 5,
		.seen_at = 6,
		.csv_member = 1,
		.csv_size = 70000000000,
		.members = 2,
	};

	strcpy(f.etag, etag);
	return f;
}

static struct archive_member members[] = {
	{.name = (char *)"dir/", .is_dir = true, .mtime = 9},
	{.name = (char *)"\xff\xfe odd",
	 .size = 70000000000,
	 .csize = 7,
	 .crc32 = 0xdeadbeef,
	 .method = 8,
	 .encrypted = true,
	 .mtime = -1},
};
static const struct archive_directory directory = {2, members};

static void test_catalog__keeps_facts_by_version(void **state)
{
	struct place *p = *state;
	struct catalog_facts a = facts("A", 1), b = facts("B", UINT64_MAX);
	struct catalog_facts got;

	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &got), -ENOENT);
	assert_int_equal(catalog_facts_put(p->c, KEY, &a, NULL), 0);
	assert_int_equal(catalog_facts_put(p->c, KEY, &b, NULL), 0);
	reopen(p);
	assert_int_equal(catalog_facts_get(p->c, KEY, "A", &got), 0);
	assert_memory_equal(&got, &a, sizeof(got));
	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &got), 0);
	assert_memory_equal(&got, &b, sizeof(got));
	assert_int_equal(catalog_facts_get(p->c, KEY, "C", &got), -ENOENT);
	assert_int_equal(catalog_facts_get(p->c, "k", NULL, &got), -ENOENT);
	/* A is back. */
	a.seen_at = 3;
	assert_int_equal(catalog_facts_put(p->c, KEY, &a, NULL), 0);
	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &got), 0);
	assert_memory_equal(&got, &a, sizeof(got));
}

static void test_catalog__keeps_the_directory_with_the_facts(void **state)
{
	struct place *p = *state;
	struct catalog_facts f = facts("A", 1);
	struct archive_directory *d;

	assert_int_equal(catalog_facts_put(p->c, KEY, &f, NULL), 0);
	assert_int_equal(catalog_directory_get(p->c, KEY, "A", &d), -ENOENT);
	assert_int_equal(catalog_facts_put(p->c, KEY, &f, &directory), 0);
	/* Seen once more, not read once more. */
	assert_int_equal(catalog_facts_put(p->c, KEY, &f, NULL), 0);
	assert_int_equal(catalog_directory_get(p->c, KEY, "A", &d), 0);
	assert_int_equal(d->n, 2);
	assert_string_equal(d->members[0].name, "dir/");
	assert_true(d->members[0].is_dir);
	assert_string_equal(d->members[1].name, "\xff\xfe odd");
	assert_true(d->members[1].size == 70000000000);
	assert_int_equal(d->members[1].csize, 7);
	assert_int_equal(d->members[1].crc32, 0xdeadbeef);
	assert_int_equal(d->members[1].method, 8);
	assert_true(d->members[1].encrypted);
	assert_int_equal(d->members[1].mtime, -1);
	archive_directory_free(d);
	assert_int_equal(catalog_directory_get(p->c, KEY, "B", &d), -ENOENT);
}

static void test_catalog__bad_facts_are_absent(void **state)
{
	struct place *p = *state;
	struct catalog_facts a = facts("A", 1), b = facts("B", 2), got;
	struct archive_directory *d;

	assert_int_equal(catalog_facts_put(p->c, KEY, &a, &directory), 0);
	assert_int_equal(catalog_facts_put(p->c, KEY, &b, &directory), 0);
	assert_int_equal(meddle(p, "UPDATE facts SET csv_size = csv_size + 1"
				   " WHERE etag = 'B'"),
			 SQLITE_OK);
	assert_int_equal(catalog_facts_get(p->c, KEY, "B", &got), -ENOENT);
	/* The newest that is sound. */
	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &got), 0);
	assert_string_equal(got.etag, "A");
	assert_int_equal(catalog_facts_put(p->c, "k", &a, NULL), 0);
	assert_int_equal(ask(p, "SELECT count(*) FROM facts"), 2);

	assert_int_equal(meddle(p, "UPDATE member SET crc32 = 1 WHERE n = 1"),
			 SQLITE_OK);
	assert_int_equal(catalog_directory_get(p->c, KEY, "A", &d), -ENOENT);
	assert_int_equal(catalog_facts_put(p->c, KEY, &a, &directory), 0);
	assert_int_equal(catalog_directory_get(p->c, KEY, "A", &d), 0);
	archive_directory_free(d);
}

/* ---- cached objects ---- */

static struct catalog_cached cached(uint64_t bytes, int64_t last_use)
{
	struct catalog_cached r = {
		.etag = "\"e\"",
		.size = bytes - 1,
		.disk_bytes = bytes,
		.last_modified = 11,
		.has_published = true,
		.verdict = VERDICT_VERIFIED,
		.state = CATALOG_VERIFIED,
		.verified_at = 12,
		.checked_at = 13,
		.last_use = last_use,
		.origin = "https://data.binance.vision",
	};

	memset(r.sha256, 0xab, sizeof(r.sha256));
	memset(r.published, 0xcd, sizeof(r.published));
	return r;
}

static void put_cached(struct place *p, const char *key, uint64_t bytes,
		       int64_t last_use)
{
	const struct catalog_cached r = cached(bytes, last_use);

	assert_int_equal(catalog_cached_put(p->c, key, &r), 0);
}

static void assert_row(struct place *p, const char *key,
		       const struct catalog_cached *r)
{
	struct catalog_cached got;

	assert_int_equal(catalog_cached_get(p->c, key, &got), 0);
	assert_int_equal(got.last_use, 0);
	assert_int_equal(catalog_last_use(p->c, key, &got.last_use), 0);
	assert_memory_equal(&got, r, sizeof(*r));
}

static void assert_usage(struct place *p, const char *prefix, uint64_t files,
			 uint64_t bytes)
{
	uint64_t got_files, got_bytes;

	assert_int_equal(
		catalog_usage(p->c, prefix, NULL, &got_files, &got_bytes), 0);
	assert_int_equal(got_files, files);
	assert_int_equal(got_bytes, bytes);
}

static void test_catalog__keeps_what_is_cached(void **state)
{
	struct place *p = *state;
	struct catalog_cached r = cached(100, 1), got;

	assert_int_equal(catalog_cached_get(p->c, KEY, &got), -ENOENT);
	assert_int_equal(catalog_cached_put(p->c, KEY, &r), 0);
	reopen(p);
	assert_row(p, KEY, &r);
	assert_int_equal(catalog_cached_checked(p->c, KEY, 99), 0);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	assert_int_equal(got.checked_at, 99);
	assert_int_equal(catalog_cached_checked(p->c, "k", 99), -ENOENT);
	assert_int_equal(catalog_cached_delete(p->c, KEY), 0);
	assert_int_equal(catalog_cached_delete(p->c, KEY), 0);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), -ENOENT);
}

static void test_catalog__counts_what_is_cached(void **state)
{
	struct place *p = *state;

	put_cached(p, "data/a/1", 100, 1);
	put_cached(p, "data/a/2", 10, 1);
	put_cached(p, "data/b/1", 1, 1);
	put_cached(p, "data/\xff\xff", 1000, 1);
	assert_usage(p, "", 4, 1111);
	assert_usage(p, "data/a/", 2, 110);
	assert_usage(p, "data/a", 2, 110);
	assert_usage(p, "data/\xff", 1, 1000);
	assert_usage(p, "\xff", 0, 0);
	put_cached(p, "data/a/1", 5, 2);
	assert_usage(p, "", 4, 1016);
	assert_int_equal(catalog_cached_delete(p->c, "data/a/2"), 0);
	assert_usage(p, "", 3, 1006);
	reopen(p);
	assert_usage(p, "", 3, 1006);
}

static void test_catalog__mends_a_total(void **state)
{
	struct place *p = *state;

	put_cached(p, "a", 100, 1);
	put_cached(p, "b", 10, 1);
	assert_int_equal(meddle(p, "UPDATE total SET disk_bytes = 7"),
			 SQLITE_OK);
	assert_usage(p, "", 2, 110);
	put_cached(p, "c", 1, 1);
	assert_usage(p, "", 3, 111);
	assert_int_equal(ask(p, "SELECT disk_bytes FROM total"), 111);
}

static void test_catalog__a_bad_row_is_absent_and_goes(void **state)
{
	struct place *p = *state;
	struct catalog_cached got;

	put_cached(p, "a", 100, 1);
	put_cached(p, "b", 10, 1);
	assert_int_equal(meddle(p, "UPDATE cached SET sha256 ="
				   " zeroblob(32) WHERE key = 'a'"),
			 SQLITE_OK);
	assert_int_equal(catalog_cached_get(p->c, "a", &got), -ENOENT);
	assert_int_equal(p->damages, 1);
	assert_int_equal(catalog_cached_get(p->c, "b", &got), 0);
	put_cached(p, "c", 1, 1);
	assert_int_equal(ask(p, "SELECT count(*) FROM cached"), 2);
	assert_usage(p, "", 2, 11);
}

static void test_catalog__a_key_may_lie_in_both_places(void **state)
{
	struct place *p = *state;
	struct catalog_cached bad = cached(50, 1), got;
	uint64_t files, bytes;

	bad.state = CATALOG_QUARANTINED;
	bad.verdict = VERDICT_DAMAGED;
	assert_int_equal(catalog_cached_put(p->c, "a", &bad), 0);
	assert_int_equal(catalog_cached_get(p->c, "a", &got), 0);
	assert_int_equal(got.state, CATALOG_QUARANTINED);
	assert_usage(p, "", 0, 0);
	put_cached(p, "a", 100, 1);
	assert_int_equal(catalog_cached_get(p->c, "a", &got), 0);
	assert_int_equal(got.state, CATALOG_VERIFIED);
	assert_int_equal(catalog_quarantined_get(p->c, "a", &got), 0);
	assert_int_equal(got.verdict, VERDICT_DAMAGED);
	assert_usage(p, "", 1, 100);
	assert_int_equal(catalog_quarantine_usage(p->c, &files, &bytes), 0);
	assert_int_equal(files, 1);
	assert_int_equal(bytes, 50);
	assert_int_equal(catalog_quarantined_delete(p->c, "a"), 0);
	assert_int_equal(catalog_quarantined_get(p->c, "a", &got), -ENOENT);
	assert_usage(p, "", 1, 100);
}

static void test_catalog__what_is_doubted_still_counts(void **state)
{
	struct place *p = *state;
	struct catalog_cached got;

	put_cached(p, "a", 100, 1);
	assert_int_equal(catalog_cached_doubt(p->c, "a"), 0);
	assert_int_equal(catalog_cached_get(p->c, "a", &got), -ENOENT);
	assert_usage(p, "", 1, 100);
	assert_int_equal(catalog_cached_doubt(p->c, "b"), -ENOENT);
}

static void test_catalog__takes_in_what_was_found(void **state)
{
	const struct catalog_found found[] = {
		{"a", 9, 10, 5, CATALOG_UNCHECKED},
		{"b", 99, 100, 6, CATALOG_UNCHECKED},
		{"q", 999, 1000, 7, CATALOG_QUARANTINED},
	};
	struct place *p = *state;
	struct catalog_cached got;

	put_cached(p, "b", 1, 1);
	assert_int_equal(catalog_cached_found(p->c, found, 3), 0);
	assert_usage(p, "", 2, 11);
	assert_int_equal(catalog_cached_get(p->c, "a", &got), -ENOENT);
	assert_int_equal(catalog_cached_get(p->c, "b", &got), 0);
	assert_int_equal(got.disk_bytes, 1);
	assert_int_equal(catalog_cached_get(p->c, "q", &got), 0);
	assert_int_equal(got.state, CATALOG_QUARANTINED);
	assert_int_equal(got.verified_at, 7);
}

static int add_key(void *arg, const char *key, const struct catalog_cached *r)
{
	struct names *l = arg;

	(void)r;
	strcat(strcat(l->all, key), " ");
	return ++l->n == l->stop_after ? 77 : 0;
}

static void test_catalog__orders_by_last_use(void **state)
{
	struct place *p = *state;
	struct catalog_cached pinned = cached(1, 0);
	struct names l = {.n = 0};

	pinned.pinned = true;
	assert_int_equal(catalog_cached_put(p->c, "pinned", &pinned), 0);
	put_cached(p, "c", 1, 10);
	put_cached(p, "a", 1, 10);
	put_cached(p, "b", 1, 5);
	assert_int_equal(catalog_cached_lru(p->c, add_key, &l), 0);
	assert_string_equal(l.all, "b a c ");
	/* Noted only so far; the later of two counts. */
	assert_int_equal(catalog_touch(p->c, "b", 20), 0);
	assert_int_equal(catalog_touch(p->c, "b", 15), 0);
	assert_int_equal(catalog_touch(p->c, "a", 16), 0);
	assert_int_equal(catalog_touch(p->c, "gone", 16), 0);
	l = (struct names){.stop_after = 2};
	assert_int_equal(catalog_cached_lru(p->c, add_key, &l), 77);
	assert_string_equal(l.all, "c a ");
}

static void test_catalog__last_uses_outlive_a_close(void **state)
{
	struct place *p = *state;
	int64_t at;

	put_cached(p, "a", 1, 10);
	assert_int_equal(catalog_last_use(p->c, "a", &at), 0);
	assert_int_equal(at, 10);
	assert_int_equal(catalog_touch(p->c, "a", 20), 0);
	reopen(p);
	assert_int_equal(catalog_last_use(p->c, "a", &at), 0);
	assert_int_equal(at, 20);
	assert_int_equal(catalog_last_use(p->c, "b", &at), -ENOENT);
}

struct order {
	int64_t last;
	unsigned int n;
};

static int check_order(void *arg, const char *key,
		       const struct catalog_cached *r)
{
	struct order *o = arg;

	(void)key;
	assert_true(r->last_use >= o->last);
	o->last = r->last_use;
	o->n++;
	return 0;
}

static void test_catalog__orders_more_than_one_batch(void **state)
{
	struct place *p = *state;
	struct order o = {.n = 0};
	char key[32];

	for (int i = 0; i < 300; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		/* Many the same: the key must break the tie. */
		put_cached(p, key, 1, i % 3);
	}
	assert_int_equal(catalog_cached_lru(p->c, check_order, &o), 0);
	assert_int_equal(o.n, 300);
}

/* ---- in memory ---- */

/* Whether an answer came from memory is seen by taking the rows away behind
 * the catalog's back. */
static void take_rows_away(struct place *p)
{
	assert_int_equal(meddle(p, "DELETE FROM entry; DELETE FROM facts;"
				   " DELETE FROM cached"),
			 SQLITE_OK);
}

static void test_catalog__answers_again_from_memory(void **state)
{
	struct place *p = *state;
	struct catalog_facts f = facts("A", 1);
	struct catalog_cached got;
	struct catalog_entry e;

	put_some(p);
	assert_int_equal(catalog_facts_put(p->c, KEY, &f, NULL), 0);
	put_cached(p, KEY, 100, 1);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), 0);
	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &f), 0);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	take_rows_away(p);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), 0);
	assert_int_equal(e.size, some[0].size);
	assert_string_equal(e.etag, some[0].etag);
	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &f), 0);
	/* The last version by its name, too. */
	assert_int_equal(catalog_facts_get(p->c, KEY, "A", &f), 0);
	assert_int_equal(catalog_facts_get(p->c, KEY, "B", &f), -ENOENT);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	assert_int_equal(got.disk_bytes, 100);
}

/* Or a user of many files would have nothing in memory. */
static void test_catalog__memory_outlives_a_use(void **state)
{
	struct place *p = *state;
	struct catalog_cached got;

	put_cached(p, KEY, 100, 1);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	assert_int_equal(catalog_touch(p->c, KEY, 88), 0);
	assert_int_equal(catalog_flush(p->c), 0);
	take_rows_away(p);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	assert_int_equal(got.disk_bytes, 100);
	/* It has none of its own that could be out of date. */
	assert_int_equal(got.last_use, 0);
}

static void test_catalog__memory_follows_every_write(void **state)
{
	struct place *p = *state;
	struct catalog_facts f = facts("A", 1);
	struct catalog_found found = {.key = KEY, .size = 5, .disk_bytes = 9};
	struct catalog_cached got;
	struct catalog_entry e;
	int64_t at;

	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), -ENODATA);
	put_some(p);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), 0);
	assert_int_equal(catalog_listing_put(p->c, PREFIX, NULL, 0, 2), 0);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), -ENOENT);

	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &f), -ENOENT);
	assert_int_equal(catalog_facts_put(p->c, KEY, &f, NULL), 0);
	assert_int_equal(catalog_facts_get(p->c, KEY, NULL, &f), 0);

	assert_int_equal(catalog_object_get(p->c, KEY, &got), -ENOENT);
	found.state = CATALOG_UNCHECKED;
	assert_int_equal(catalog_cached_found(p->c, &found, 1), 0);
	assert_int_equal(catalog_object_get(p->c, KEY, &got), 0);
	put_cached(p, KEY, 100, 1);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	assert_int_equal(catalog_cached_checked(p->c, KEY, 77), 0);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	assert_int_equal(got.checked_at, 77);
	assert_int_equal(catalog_touch(p->c, KEY, 88), 0);
	assert_int_equal(catalog_flush(p->c), 0);
	assert_int_equal(catalog_last_use(p->c, KEY, &at), 0);
	assert_int_equal(at, 88);
	assert_int_equal(catalog_cached_doubt(p->c, KEY), 0);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), -ENOENT);
	assert_int_equal(catalog_cached_delete(p->c, KEY), 0);
	assert_int_equal(catalog_object_get(p->c, KEY, &got), -ENOENT);
}

static void test_catalog__prefetches_a_folder(void **state)
{
	struct place *p = *state;
	struct catalog_facts f = facts("A", 1);
	struct catalog_cached got;
	struct catalog_entry e;

	assert_int_equal(catalog_prefetch(p->c, PREFIX, ".zip"), -ENOENT);
	put_some(p);
	assert_int_equal(catalog_facts_put(p->c, KEY, &f, NULL), 0);
	put_cached(p, KEY, 100, 1);
	assert_int_equal(catalog_prefetch(p->c, PREFIX, ".zip"), 0);
	take_rows_away(p);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(get_entry(p, PREFIX, some[i].name, &e), 0);
	assert_int_equal(catalog_facts_get(p->c, KEY, "A", &f), 0);
	assert_int_equal(catalog_cached_get(p->c, KEY, &got), 0);
	/* Of one of which nothing else is known: that it is so. */
	assert_int_equal(catalog_facts_get(p->c,
					   PREFIX "BTCUSDT-1m-2020-01-02.zip",
					   NULL, &f),
			 -ENOENT);
}

/* ---- ledger ---- */

static void add_to_ledger(struct place *p, const char *key)
{
	static const unsigned char sha256[32] = {0x01, 0xfe};

	assert_int_equal(catalog_ledger_add(p->c, "run", "accepted", key,
					    sha256, VERDICT_VERIFIED, 42),
			 0);
}

static void test_catalog__ledger_can_be_read_by_its_users(void **state)
{
	struct place *p = *state;

	add_to_ledger(p, KEY);
	assert_int_equal(
		ask(p, "SELECT count(*) FROM ledger WHERE run_id = 'run' AND"
		       " event = 'accepted' AND at = 42 AND"
		       " verdict = 'verified' AND key = '" KEY "' AND"
		       " sha256 = '01fe000000000000000000000000000000000000"
		       "000000000000000000000000'"),
		1);
}

static void test_catalog__ledger_is_append_only(void **state)
{
	struct place *p = *state;

	add_to_ledger(p, KEY);
	assert_int_equal(meddle(p, "UPDATE ledger SET key = 'x'"),
			 SQLITE_CONSTRAINT);
	assert_int_equal(meddle(p, "DELETE FROM ledger"), SQLITE_CONSTRAINT);
	assert_int_equal(meddle(p, "INSERT OR REPLACE INTO ledger"
				   " SELECT id, 0, '', '', '', '', '', 0"
				   " FROM ledger"),
			 SQLITE_CONSTRAINT);
	assert_int_equal(
		ask(p, "SELECT count(*) FROM ledger WHERE key = '" KEY "'"), 1);
}

/* Lines at the times @first to @last. */
static void add_lines(struct place *p, int64_t first, int64_t last)
{
	static const unsigned char sha256[32] = {0x01, 0xfe};

	for (int64_t at = first; at <= last; at++)
		assert_int_equal(catalog_ledger_add(p->c, "run", "opened", KEY,
						    sha256, VERDICT_VERIFIED,
						    at),
				 0);
}

/* Times and order of lines are those of adding them, without a gap, up to
 * @last; how many there are. */
static int64_t lines_up_to(struct place *p, int64_t last)
{
	int64_t n = ask(p, "SELECT count(*) FROM ledger");

	assert_int_equal(ask(p, "SELECT max(at) FROM ledger"), last);
	assert_int_equal(ask(p, "SELECT min(at) FROM ledger"), last - n + 1);
	assert_int_equal(ask(p, "SELECT count(*) FROM (SELECT at - lag(at)"
				" OVER (ORDER BY id) AS step FROM ledger)"
				" WHERE step <> 1"),
			 0);
	return n;
}

static void test_catalog__ledger_keeps_the_newest_lines(void **state)
{
	struct place *p = *state;
	struct catalog_trimmed t;

	add_lines(p, 1, 1000);
	assert_int_equal(catalog_ledger_trim(p->c, 1000, &t), 0);
	assert_int_equal(t.lines, 0);
	assert_int_equal(catalog_ledger_trim(p->c, UINT64_MAX, &t), 0);
	assert_int_equal(t.lines, 0);
	/* A sixteenth more may stay. */
	add_lines(p, 1001, 1061);
	assert_int_equal(catalog_ledger_trim(p->c, 1000, &t), 0);
	assert_int_equal(t.lines, 0);
	add_lines(p, 1062, 1062);
	assert_int_equal(catalog_ledger_trim(p->c, 1000, &t), 0);
	assert_int_equal(t.lines, 62);
	assert_int_equal(t.until, 62);
	assert_int_equal(lines_up_to(p, 1062), 1000);
	/* Adding goes on behind them. */
	reopen(p);
	add_lines(p, 1063, 1100);
	assert_int_equal(lines_up_to(p, 1100), 1038);
	assert_int_equal(p->damages, 0);
}

static void test_catalog__ledger_trimmed_stays_append_only(void **state)
{
	struct place *p = *state;
	struct catalog_trimmed t;

	add_lines(p, 1, 10);
	assert_int_equal(catalog_ledger_trim(p->c, 5, &t), 0);
	assert_int_equal(t.lines, 5);
	assert_int_equal(meddle(p, "UPDATE ledger SET key = 'x'"),
			 SQLITE_CONSTRAINT);
	assert_int_equal(meddle(p, "DELETE FROM ledger WHERE at = 6"),
			 SQLITE_CONSTRAINT);
	assert_int_equal(meddle(p, "INSERT OR REPLACE INTO ledger"
				   " SELECT id, 0, '', '', '', '', '', 0"
				   " FROM ledger"),
			 SQLITE_CONSTRAINT);
	assert_int_equal(lines_up_to(p, 10), 5);
}

static void test_catalog__ledger_is_trimmed_in_steps(void **state)
{
	struct place *p = *state;
	struct catalog_trimmed t;

	add_lines(p, 1, 20000);
	assert_int_equal(catalog_ledger_trim(p->c, 1, &t), 0);
	assert_int_equal(t.lines, 16384);
	assert_int_equal(t.until, 16384);
	assert_int_equal(lines_up_to(p, 20000), 20000 - 16384);
	assert_int_equal(catalog_ledger_trim(p->c, 1, &t), 0);
	assert_int_equal(t.lines, 20000 - 16384 - 1);
	assert_int_equal(t.until, 19999);
	assert_int_equal(lines_up_to(p, 20000), 1);
}

static void test_catalog__ledger_with_a_limit_has_one_size(void **state)
{
	struct place *p = *state;
	struct catalog_trimmed t;
	int64_t pages = 0;

	for (int64_t turn = 0; turn < 40; turn++) {
		add_lines(p, 500 * turn + 1, 500 * (turn + 1));
		assert_int_equal(catalog_ledger_trim(p->c, 1024, &t), 0);
		assert_in_range(lines_up_to(p, 500 * (turn + 1)), 500, 1087);
		/* It was at its largest before it was first trimmed. */
		if (turn == 3)
			pages = ask(p, "PRAGMA page_count");
	}
	assert_in_range(ask(p, "PRAGMA page_count"), 1, pages + 8);
}

/* As when a mount has a smaller quota than those before it. */
static void test_catalog__gives_back_what_it_does_not_need(void **state)
{
	struct place *p = *state;
	struct catalog_trimmed t;
	int64_t before, pages;

	add_lines(p, 1, 10000);
	put_some(p);
	add_lines(p, 10001, 20000);
	before = ask(p, "PRAGMA page_count");
	for (int i = 0; i < 2; i++)
		assert_int_equal(catalog_ledger_trim(p->c, 1024, &t), 0);
	assert_int_equal(ask(p, "PRAGMA page_count"), before);
	/* 1024 pages at a time. */
	for (int i = 0; i < 2; i++)
		assert_int_equal(catalog_tidy(p->c), 0);
	pages = ask(p, "PRAGMA page_count");
	assert_in_range(pages, 1, before / 4);
	assert_int_equal(lines_up_to(p, 20000), 1024);
	assert_int_equal(ask(p, "SELECT count(*) FROM pragma_integrity_check"
				" WHERE integrity_check <> 'ok'"),
			 0);
	/* Little is left for others to take. */
	assert_int_equal(catalog_tidy(p->c), 0);
	assert_int_equal(ask(p, "PRAGMA page_count"), pages);
	reopen(p);
	assert_int_equal(p->damages, 0);
	assert_int_equal(ask(p, "SELECT count(*) FROM entry"), 3);
}

static void test_catalog__ledger_survives_lines_of_others(void **state)
{
	static const char *const ids[] = {"-9223372036854775808", "5000000000",
					  "9223372036854775807"};
	char sql[256];
	struct place *p = *state;
	struct catalog_trimmed t;

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		snprintf(sql, sizeof(sql),
			 "INSERT INTO ledger VALUES (%s, 0, '', '', '', '', "
			 "'', 0)",
			 ids[i]);
		assert_int_equal(meddle(p, sql), SQLITE_OK);
		for (int n = 0; n < 3; n++)
			assert_int_equal(catalog_ledger_trim(p->c, 1024, &t),
					 0);
		add_to_ledger(p, KEY);
	}
	assert_int_equal(p->damages, 0);
}

enum { KILLS = 10 };

/* Adds and trims until it is killed; one byte for each line. */
static void fill_until_killed(const char *dir, int64_t at, int progress)
{
	static const unsigned char sha256[32] = {1};
	struct catalog_trimmed t;
	struct catalog *c;

	if (catalog_open(&c, dir, NULL, NULL))
		_exit(1);
	for (;; at++) {
		if (catalog_ledger_add(c, "run", "opened", KEY, sha256,
				       VERDICT_VERIFIED, at) ||
		    write(progress, "", 1) != 1 ||
		    catalog_ledger_trim(c, 100, &t))
			_exit(1);
	}
}

static void test_catalog__ledger_outlives_a_kill(void **state)
{
	struct place *p = *state;
	int64_t last = 0, n;

	catalog_close(p->c);
	p->c = NULL;
	for (int i = 0; i < KILLS; i++) {
		int fds[2], status;
		pid_t pid;
		char c;

		assert_int_equal(pipe(fds), 0);
		pid = fork();
		if (pid == 0)
			fill_until_killed(p->dir, last + 1, fds[1]);
		close(fds[1]);
		for (int line = 0; line < 150 + 7 * i; line++)
			assert_int_equal(read(fds[0], &c, 1), 1);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		last += 150 + 7 * i;
		while (read(fds[0], &c, 1) == 1)
			last++;
		close(fds[0]);
		reopen(p);
		assert_int_equal(p->damages, 0);
		/* One may have been written and not told. */
		n = ask(p, "SELECT max(at) FROM ledger");
		assert_in_range(n, last, last + 1);
		last = n;
		assert_in_range(lines_up_to(p, last), 100, 107);
		assert_int_equal(meddle(p, "DELETE FROM ledger"),
				 SQLITE_CONSTRAINT);
		catalog_close(p->c);
		p->c = NULL;
	}
}

/* ---- the log ---- */

static int64_t log_bytes(struct place *p)
{
	char *path = scratch_path(p->dir, "catalog.sqlite-wal");
	struct stat sb = {0};

	assert_int_equal(stat(path, &sb), 0);
	free(path);
	return sb.st_size;
}

/* Listings of one entry, each of which takes a few pages of the log. */
static void write_log(struct place *p, unsigned int listings)
{
	char prefix[32];

	for (unsigned int i = 0; i < listings; i++) {
		snprintf(prefix, sizeof(prefix), "data/%u/", i);
		assert_int_equal(catalog_listing_put(p->c, prefix, some, 1, 1),
				 0);
	}
}

static void test_catalog__log_is_emptied_when_it_is_long(void **state)
{
	struct place *p = *state;
	struct catalog_entry e;
	int64_t before;
	sqlite3 *db;

	put_some(p);
	assert_int_equal(sqlite3_open(p->file, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT count(*) FROM listing",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	/* With a reader that never ends none of it can be written again. */
	write_log(p, 1000);
	before = log_bytes(p);
	assert_in_range(before, 7 << 20, 64 << 20);
	assert_int_equal(catalog_tidy(p->c), 0);
	assert_int_equal(log_bytes(p), before);
	/* Not to be waited for each time: when it is longer by as much. */
	assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(catalog_tidy(p->c), 0);
	assert_int_equal(log_bytes(p), before);
	assert_int_equal(sqlite3_exec(db, "BEGIN; SELECT count(*) FROM listing",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	write_log(p, 1000);
	assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(catalog_tidy(p->c), 0);
	assert_int_equal(log_bytes(p), 0);
	assert_int_equal(get_entry(p, "data/999/", some[0].name, &e), 0);
	sqlite3_close(db);
	reopen(p);
	assert_int_equal(p->damages, 0);
	assert_int_equal(get_entry(p, "data/999/", some[0].name, &e), 0);
}

/* ---- damage ---- */

static unsigned int put_aside(struct place *p)
{
	DIR *d = opendir(p->dir);
	unsigned int n = 0;
	struct dirent *de;

	while ((de = readdir(d)))
		n += strncmp(de->d_name, "catalog.sqlite.damaged-", 23) == 0 &&
		     !strstr(de->d_name, "-wal");
	closedir(d);
	return n;
}

static void test_catalog__replaces_rubbish(void **state)
{
	struct place *p = *state;
	char rubbish[8192];

	memset(rubbish, 'x', sizeof(rubbish));
	catalog_close(p->c);
	p->c = NULL;
	scratch_write(p->file, rubbish, sizeof(rubbish));
	reopen(p);
	assert_int_equal(p->damages, 1);
	assert_int_equal(put_aside(p), 1);
	put_some(p);
}

static void test_catalog__keeps_few_damaged_files(void **state)
{
	struct place *p = *state;

	for (int i = 0; i < 6; i++) {
		catalog_close(p->c);
		p->c = NULL;
		scratch_write(p->file, "rubbish", 7);
		reopen(p);
	}
	assert_int_equal(p->damages, 6);
	assert_int_equal(put_aside(p), 3);
}

static void test_catalog__replaces_a_file_with_other_tables(void **state)
{
	static const char *const changes[] = {
		"CREATE TRIGGER evil AFTER INSERT ON entry BEGIN"
		" DELETE FROM entry; END",
		"DROP TABLE member",
		"CREATE VIEW v AS SELECT 1",
		"DROP INDEX cached_lru",
		"PRAGMA user_version = 3",
		"PRAGMA application_id = 1",
	};
	struct place *p = *state;

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		put_some(p);
		add_to_ledger(p, KEY);
		assert_int_equal(meddle(p, changes[i]), SQLITE_OK);
		reopen(p);
		assert_int_equal(p->damages, i + 1);
		assert_int_equal(ask(p, "SELECT count(*) FROM listing"), 0);
		assert_int_equal(ask(p, "SELECT count(*) FROM ledger"),
				 (int)i + 1);
	}
}

/* The table of cached objects as version 1 had it, and its rows. */
static const char back_to_1[] =
	"CREATE TEMP TABLE kept AS SELECT * FROM cached;"
	"DROP TABLE cached;"
	"CREATE TABLE cached ("
	" place INTEGER NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL,"
	" size INTEGER NOT NULL, disk_bytes INTEGER NOT NULL,"
	" last_modified INTEGER NOT NULL, sha256 BLOB NOT NULL,"
	" published BLOB, verdict TEXT NOT NULL, state INTEGER NOT NULL,"
	" verified_at INTEGER NOT NULL, checked_at INTEGER NOT NULL,"
	" last_use INTEGER NOT NULL, pinned INTEGER NOT NULL,"
	" crc INTEGER NOT NULL,"
	" PRIMARY KEY (place, key)) STRICT, WITHOUT ROWID;"
	"CREATE INDEX cached_lru ON cached (place, pinned, last_use);"
	"INSERT INTO cached SELECT place, key, etag, size, disk_bytes,"
	" last_modified, sha256, published, verdict, state, verified_at,"
	" checked_at, last_use, pinned, crc FROM kept;"
	"PRAGMA user_version = 1";

static void test_catalog__version_1_is_carried_over(void **state)
{
	struct place *p = *state;
	struct catalog_cached r = cached(100, 1), other = r, got;

	put_some(p);
	add_to_ledger(p, KEY);
	/* It did not know of an origin. */
	memset(r.origin, 0, sizeof(r.origin));
	r.pinned = true;
	assert_int_equal(catalog_cached_put(p->c, KEY, &r), 0);
	catalog_close(p->c);
	p->c = NULL;
	assert_int_equal(meddle(p, back_to_1), SQLITE_OK);
	reopen(p);
	assert_int_equal(p->damages, 0);
	assert_int_equal(ask(p, "PRAGMA user_version"), 2);
	assert_row(p, KEY, &r);
	assert_int_equal(ask(p, "SELECT count(*) FROM entry"), 3);
	assert_int_equal(ask(p, "SELECT count(*) FROM ledger"), 1);
	assert_int_equal(catalog_cached_put(p->c, "k", &other), 0);
	reopen(p);
	assert_int_equal(p->damages, 0);
	assert_int_equal(catalog_cached_get(p->c, "k", &got), 0);
	assert_string_equal(got.origin, "https://data.binance.vision");
}

static void fill(struct place *p)
{
	char name[32];

	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "object-%03d.zip", i);
		put_cached(p, name, 10, i);
		add_to_ledger(p, name);
	}
	put_some(p);
	/* All into the main file. */
	assert_int_equal(meddle(p, "PRAGMA wal_checkpoint(TRUNCATE)"),
			 SQLITE_OK);
}

static void test_catalog__replaces_a_damaged_file_while_it_runs(void **state)
{
	struct place *p = *state;
	struct catalog_cached got;
	int64_t root, page_size, kept;
	char *bytes;
	size_t len;

	fill(p);
	/* The root page of `cached`, written over as by a failing disk. */
	root = ask(p, "SELECT rootpage FROM sqlite_schema"
		      " WHERE name = 'cached'");
	page_size = ask(p, "PRAGMA page_size");
	bytes = scratch_read(p->file, &len);
	memset(bytes + (root - 1) * page_size, 0x55, (size_t)page_size);
	catalog_close(p->c);
	p->c = NULL;
	scratch_write(p->file, bytes, len);
	free(bytes);
	reopen(p);
	assert_int_equal(p->damages, 0);
	assert_int_equal(catalog_cached_get(p->c, "object-007.zip", &got),
			 -ENOENT);
	assert_int_equal(p->damages, 1);
	put_cached(p, "new", 1, 1);
	assert_int_equal(catalog_cached_get(p->c, "new", &got), 0);
	kept = ask(p, "SELECT count(*) FROM ledger");
	assert_int_equal(kept, 200);
	assert_int_equal(put_aside(p), 1);
}

static void test_catalog__salvages_the_ledger_around_the_damage(void **state)
{
	struct place *p = *state;
	int64_t leaf, page_size, kept;
	char *bytes;
	size_t len;

	for (int i = 0; i < 3; i++)
		fill(p);
	/* A leaf in the middle of the ledger, and the schema check fails. */
	leaf = ask(p, "SELECT pageno FROM dbstat WHERE name = 'ledger' AND"
		      " pagetype = 'leaf' ORDER BY path LIMIT 1 OFFSET 3");
	assert_true(leaf > 1);
	page_size = ask(p, "PRAGMA page_size");
	assert_int_equal(meddle(p, "PRAGMA user_version = 9"), SQLITE_OK);
	catalog_close(p->c);
	p->c = NULL;
	bytes = scratch_read(p->file, &len);
	memset(bytes + (leaf - 1) * page_size, 0x55, (size_t)page_size);
	scratch_write(p->file, bytes, len);
	free(bytes);
	reopen(p);
	kept = ask(p, "SELECT count(*) FROM ledger");
	/* All but what lay on one page. */
	assert_in_range(kept, 540, 599);
	assert_int_equal(ask(p, "SELECT count(DISTINCT key) FROM ledger"), 200);
}

static void test_catalog__salvages_a_trimmed_ledger(void **state)
{
	struct place *p = *state;
	struct catalog_trimmed t;

	add_lines(p, 1, 300);
	assert_int_equal(catalog_ledger_trim(p->c, 100, &t), 0);
	add_lines(p, 301, 350);
	assert_int_equal(meddle(p, "PRAGMA user_version = 9"), SQLITE_OK);
	reopen(p);
	assert_int_equal(p->damages, 1);
	/* Only lines that pass their checksum are carried over. */
	assert_int_equal(lines_up_to(p, 350), 150);
	assert_int_equal(catalog_ledger_trim(p->c, 100, &t), 0);
	assert_int_equal(t.lines, 50);
	assert_int_equal(t.until, 250);
	assert_int_equal(lines_up_to(p, 350), 100);
}

static void test_catalog__is_made_anew_when_deleted(void **state)
{
	struct place *p = *state;
	char *wal = scratch_path(p->dir, "catalog.sqlite-wal");
	char *shm = scratch_path(p->dir, "catalog.sqlite-shm");
	struct catalog_cached got;

	put_cached(p, "a", 1, 1);
	reopen(p);
	assert_int_equal(unlink(p->file), 0);
	unlink(wal);
	unlink(shm);
	assert_int_equal(catalog_cached_get(p->c, "a", &got), -ENOENT);
	put_cached(p, "b", 1, 1);
	assert_int_equal(catalog_cached_get(p->c, "b", &got), 0);
	reopen(p);
	assert_int_equal(catalog_cached_get(p->c, "b", &got), 0);
	free(wal);
	free(shm);
}

static int count_entry(void *arg, const struct catalog_entry *e)
{
	(void)e;
	++*(unsigned int *)arg;
	return 0;
}

static int count_cached(void *arg, const char *key,
			const struct catalog_cached *r)
{
	(void)key;
	(void)r;
	return ++*(unsigned int *)arg > 1000;
}

static void use_all(struct place *p)
{
	struct archive_directory *d;
	struct catalog_cached row;
	struct catalog_facts f;
	struct catalog_entry e;
	uint64_t files, bytes;
	unsigned int n = 0;
	int64_t at;

	catalog_listing_each(p->c, PREFIX, count_entry, &n);
	get_entry(p, PREFIX, some[0].name, &e);
	catalog_facts_get(p->c, KEY, NULL, &f);
	if (catalog_directory_get(p->c, KEY, "A", &d) == 0)
		archive_directory_free(d);
	if (catalog_cached_get(p->c, "object-007.zip", &row) == 0)
		assert_int_equal(row.disk_bytes, 10);
	if (catalog_last_use(p->c, "object-007.zip", &at) == 0)
		assert_int_equal(at, 7);
	catalog_usage(p->c, "", NULL, &files, &bytes);
	catalog_usage(p->c, "obj", NULL, &files, &bytes);
	catalog_cached_lru(p->c, count_cached, &n);
}

/* Seeded, so that a failure can be seen again. */
static void test_catalog__survives_flipped_bits(void **state)
{
	struct catalog_facts a = facts("A", 1);
	struct place *p = *state;
	unsigned int seed = 20200101;
	char *bytes, *hurt;
	size_t len;

	fill(p);
	assert_int_equal(catalog_facts_put(p->c, KEY, &a, &directory), 0);
	catalog_close(p->c);
	p->c = NULL;
	bytes = scratch_read(p->file, &len);
	hurt = malloc(len);
	for (int i = 0; i < 150; i++) {
		memcpy(hurt, bytes, len);
		for (int n = 0; n <= i % 4; n++) {
			size_t at = (size_t)rand_r(&seed) % len;

			hurt[at] ^= (char)(1 << rand_r(&seed) % 8);
		}
		scratch_write(p->file, hurt, len);
		reopen(p);
		use_all(p);
		/* Whatever it was, the catalog goes on. */
		put_cached(p, "new", 1, 1);
		put_some(p);
		catalog_close(p->c);
		p->c = NULL;
	}
	free(hurt);
	free(bytes);
}

/* ---- threads ---- */

static void test_catalog__readers_do_not_wait_for_a_writer(void **state)
{
	struct place *p = *state;
	struct catalog_cached got;
	struct catalog_entry e;
	sqlite3 *db;

	put_cached(p, "a", 1, 1);
	put_some(p);
	/* A writer in the middle of its transaction: a reader that needed its
	 * lock would get -EBUSY here. */
	assert_int_equal(sqlite3_open(p->file, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				      "BEGIN IMMEDIATE;"
				      "DELETE FROM cached;"
				      "DELETE FROM entry",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(catalog_cached_get(p->c, "a", &got), 0);
	assert_int_equal(get_entry(p, PREFIX, some[0].name, &e), 0);
	sqlite3_close(db);
}

struct worker {
	struct place *p;
	int n;
	unsigned int wrong;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct catalog_cached row = cached(10, 1), got;
	char key[32];

	for (int i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "key-%d-%d", w->n, i);
		row.last_use = i;
		w->wrong += catalog_cached_put(w->p->c, key, &row) != 0;
		w->wrong += catalog_touch(w->p->c, key, 100 + i) != 0;
		w->wrong += catalog_cached_get(w->p->c, key, &got) != 0;
		if (i % 8 == 0)
			w->wrong += catalog_flush(w->p->c) != 0;
	}
	return NULL;
}

static void test_catalog__serves_many_threads(void **state)
{
	struct place *p = *state;
	struct worker w[8];
	pthread_t t[8];

	for (int i = 0; i < 8; i++) {
		w[i] = (struct worker){.p = p, .n = i};
		assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 8; i++)
		assert_int_equal(w[i].wrong, 0);
	assert_usage(p, "", 320, 3200);
}

/* ---- size ---- */

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void explain(sqlite3 *db, const char *statement)
{
	sqlite3_stmt *stmt;
	char sql[1024];

	snprintf(sql, sizeof(sql), "EXPLAIN QUERY PLAN %s", statement);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL),
			 SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		const char *plan = (const char *)sqlite3_column_text(stmt, 3);

		if (strncmp(plan, "SEARCH", 6) != 0)
			fail_msg("%s: %s", statement, plan);
	}
	sqlite3_finalize(stmt);
}

/* A table scan or a sort grows with the catalog, a search does not. */
static void test_catalog__never_scans_a_table(void **state)
{
	struct place *p = *state;
	struct catalog_facts f = facts("A", 1);
	struct catalog_trimmed t;
	sqlite3 *db;

	put_some(p);
	put_some(p);
	assert_int_equal(catalog_facts_put(p->c, KEY, &f, &directory), 0);
	fill(p);
	use_all(p);
	assert_int_equal(catalog_cached_delete(p->c, "object-007.zip"), 0);
	assert_int_equal(catalog_ledger_trim(p->c, 100, &t), 0);
	assert_int_equal(t.lines, 100);
	assert_int_equal(sqlite3_open(p->file, &db), SQLITE_OK);
	assert_in_range(n_prepared, 16, PREPARED_MAX - 1);
	for (unsigned int i = 0; i < n_prepared; i++)
		explain(db, prepared[i]);
	sqlite3_close(db);
}

static void test_catalog__opens_a_large_one_at_once(void **state)
{
	struct place *p = *state;
	struct catalog_entry *e = calloc(100000, sizeof(*e));
	char(*names)[40] = calloc(100000, sizeof(*names));
	char prefix[32];
	struct catalog_entry got;
	int64_t before;

	for (int i = 0; i < 100000; i++) {
		snprintf(names[i], sizeof(names[i]), "BTCUSDT-1m-%06d.zip", i);
		e[i] = (struct catalog_entry){.name = names[i], .etag = "e"};
	}
	/* A million with TICKFS_LARGE=1; the plans above say it is the same. */
	for (int i = 0; i < (getenv("TICKFS_LARGE") ? 10 : 1); i++) {
		snprintf(prefix, sizeof(prefix), "data/%d/", i);
		assert_int_equal(
			catalog_listing_put(p->c, prefix, e, 100000, 1), 0);
	}
	before = now_us();
	reopen(p);
	assert_int_equal(get_entry(p, "data/0/", "BTCUSDT-1m-054321.zip", &got),
			 0);
	print_message("           open and one look-up: %lld us\n",
		      (long long)(now_us() - before));
	before = now_us();
	for (int i = 0; i < 1000; i++)
		assert_int_equal(get_entry(p, "data/0/", names[i * 97], &got),
				 0);
	print_message("           a look-up: %.1f us\n",
		      (double)(now_us() - before) / 1000);
	free(names);
	free(e);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_catalog__keeps_a_listing_in_byte_order),
		TEST(test_catalog__stops_a_listing_when_told),
		TEST(test_catalog__answers_again_from_memory),
		TEST(test_catalog__memory_outlives_a_use),
		TEST(test_catalog__memory_follows_every_write),
		TEST(test_catalog__prefetches_a_folder),
		TEST(test_catalog__finds_one_entry),
		TEST(test_catalog__tells_not_there_from_not_listed),
		TEST(test_catalog__replaces_a_listing_as_a_whole),
		TEST(test_catalog__refuses_etags_that_do_not_fit),
		TEST(test_catalog__may_be_called_from_its_callbacks),
		TEST(test_catalog__a_bad_entry_makes_the_listing_unknown),
		TEST(test_catalog__a_changed_name_is_no_proof_of_absence),
		TEST(test_catalog__a_lost_entry_makes_the_listing_unknown),
		TEST(test_catalog__keeps_facts_by_version),
		TEST(test_catalog__keeps_the_directory_with_the_facts),
		TEST(test_catalog__bad_facts_are_absent),
		TEST(test_catalog__keeps_what_is_cached),
		TEST(test_catalog__counts_what_is_cached),
		TEST(test_catalog__mends_a_total),
		TEST(test_catalog__a_bad_row_is_absent_and_goes),
		TEST(test_catalog__a_key_may_lie_in_both_places),
		TEST(test_catalog__what_is_doubted_still_counts),
		TEST(test_catalog__takes_in_what_was_found),
		TEST(test_catalog__orders_by_last_use),
		TEST(test_catalog__last_uses_outlive_a_close),
		TEST(test_catalog__orders_more_than_one_batch),
		TEST(test_catalog__ledger_can_be_read_by_its_users),
		TEST(test_catalog__ledger_is_append_only),
		TEST(test_catalog__ledger_keeps_the_newest_lines),
		TEST(test_catalog__ledger_trimmed_stays_append_only),
		TEST(test_catalog__ledger_is_trimmed_in_steps),
		TEST(test_catalog__ledger_with_a_limit_has_one_size),
		TEST(test_catalog__gives_back_what_it_does_not_need),
		TEST(test_catalog__ledger_survives_lines_of_others),
		TEST(test_catalog__ledger_outlives_a_kill),
		TEST(test_catalog__log_is_emptied_when_it_is_long),
		TEST(test_catalog__replaces_rubbish),
		TEST(test_catalog__keeps_few_damaged_files),
		TEST(test_catalog__replaces_a_file_with_other_tables),
		TEST(test_catalog__version_1_is_carried_over),
		TEST(test_catalog__replaces_a_damaged_file_while_it_runs),
		TEST(test_catalog__salvages_the_ledger_around_the_damage),
		TEST(test_catalog__salvages_a_trimmed_ledger),
		TEST(test_catalog__is_made_anew_when_deleted),
		TEST(test_catalog__survives_flipped_bits),
		TEST(test_catalog__readers_do_not_wait_for_a_writer),
		TEST(test_catalog__serves_many_threads),
		TEST(test_catalog__never_scans_a_table),
		TEST(test_catalog__opens_a_large_one_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

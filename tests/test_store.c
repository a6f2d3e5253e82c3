#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/store.h"
#include "tests/support/admission.h"
#include "tests/support/scratch.h"

#define KEY "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2020-01-01.zip"

enum { LEN = 200000, DAY = 86400 };

struct place {
	char *dir;
	struct store *st;
	struct store_config cfg;
	atomic_uint events[STORE_EVENT_DISK_ERROR + 1];
	char last_key[256]; /* of the last event that has one */
	uint64_t trimmed;
	int64_t trimmed_until;
	unsigned char a[LEN], b[LEN];
};

static void on_event(void *arg, const struct store_event *ev)
{
	struct place *p = arg;

	atomic_fetch_add(&p->events[ev->type], 1);
	if (ev->type == STORE_EVENT_EVICTED)
		snprintf(p->last_key, sizeof(p->last_key), "%s", ev->key);
	if (ev->type == STORE_EVENT_TRIMMED) {
		p->trimmed += ev->lines;
		p->trimmed_until = ev->until;
	}
}

static int open_store(struct place *p)
{
	pid_t holder;

	return store_open(&p->st, &p->cfg, &holder);
}

static void shut(struct place *p)
{
	store_close(p->st);
	p->st = NULL;
}

static void reopen(struct place *p)
{
	shut(p);
	assert_int_equal(open_store(p), 0);
}

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	p->dir = scratch_create();
	p->cfg = (struct store_config){
		.dir = p->dir,
		.quota_bytes = UINT64_C(1) << 30,
		.on_event = on_event,
		.event_arg = p,
	};
	admission_fill(p->a, LEN, 1);
	admission_fill(p->b, LEN, 2);
	*state = p;
	return open_store(p);
}

static int teardown(void **state)
{
	struct place *p = *state;

	store_close(p->st);
	scratch_remove(p->dir);
	free(p);
	return 0;
}

static bool exists(struct place *p, const char *name)
{
	char *path = scratch_path(p->dir, name);
	struct stat sb;
	bool there = lstat(path, &sb) == 0;

	free(path);
	return there;
}

static void hurt(struct place *p, const char *name, long at)
{
	char *path = scratch_path(p->dir, name);

	scratch_flip(path, at, 0x10);
	free(path);
}

static void put_file(struct place *p, const char *name, const void *buf,
		     size_t len)
{
	char *path = scratch_path(p->dir, name);

	scratch_write(path, buf, len);
	free(path);
}

static void assert_serves(struct place *p, const char *key, const void *buf,
			  size_t len)
{
	struct store_object *o;

	assert_int_equal(store_acquire(p->st, key, &o), 0);
	assert_true(admission_same(o, buf, len));
	store_release(o);
}

static void assert_acquire_is(struct place *p, const char *key, int want)
{
	struct store_object *o = NULL;

	assert_int_equal(store_acquire(p->st, key, &o), want);
	if (!want)
		store_release(o);
}

static void admit(struct place *p, const char *key, const void *buf, size_t len)
{
	assert_int_equal(admission_admit(p->st, key, "e1", buf, len), 0);
}

static int put_small(struct place *p, const char *key, const char *text)
{
	struct store_info info;

	admission_info(&info, "e1", text, strlen(text));
	return store_put(p->st, key, &info, text, strlen(text));
}

static uint64_t used(struct place *p)
{
	struct store_stats stats;

	store_stats(p->st, &stats);
	return stats.used_bytes;
}

/* ---- keys ---- */

static void test_store__keys_that_can_be_file_names(void **state)
{
	char longest[1100];

	(void)state;
	assert_true(store_key_ok(KEY));
	assert_true(store_key_ok("a"));
	assert_true(store_key_ok(".a/..b/c.."));
	assert_true(store_key_ok("data/\xe5\xb8\x81USDT/x.zip"));
	assert_false(store_key_ok(""));
	assert_false(store_key_ok("/a"));
	assert_false(store_key_ok("a/"));
	assert_false(store_key_ok("a//b"));
	assert_false(store_key_ok("."));
	assert_false(store_key_ok("a/./b"));
	assert_false(store_key_ok("../a"));
	assert_false(store_key_ok("a/.."));
	assert_false(store_key_ok("a\nb"));
	assert_false(store_key_ok("a\x7f"));

	memset(longest, 'x', sizeof(longest));
	longest[200] = '\0';
	assert_true(store_key_ok(longest));
	longest[200] = 'x';
	longest[201] = '\0';
	assert_false(store_key_ok(longest));
	longest[201] = 'x';
	for (int i = 100; i < 1100; i += 100)
		longest[i] = '/';
	longest[1024] = '\0';
	assert_true(store_key_ok(longest));
	longest[1024] = 'x';
	longest[1025] = '\0';
	assert_false(store_key_ok(longest));
}

static void test_store__bad_keys_are_refused(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;
	uint64_t bytes, size;

	assert_acquire_is(p, "../lock", -ENOENT);
	assert_int_equal(store_stage(p->st, "../x", &sg), -EINVAL);
	assert_int_equal(store_recheck(p->st, "../lock", &sg), -ENOENT);
	assert_int_equal(put_small(p, "/etc/x", "x"), -EINVAL);
	assert_int_equal(store_partial(p->st, "a//b", &bytes, &size), -ENOENT);
}

/* ---- opening ---- */

static void test_store__makes_its_folder_private(void **state)
{
	struct place *p = *state;
	char *deep = scratch_path(p->dir, "not/there/yet");
	struct store_config cfg = p->cfg;
	struct store *st;
	struct stat sb;
	pid_t holder;

	cfg.dir = deep;
	assert_int_equal(store_open(&st, &cfg, &holder), 0);
	assert_int_equal(stat(deep, &sb), 0);
	assert_int_equal(sb.st_mode & 07777, 0700);
	store_close(st);
	free(deep);
}

static void test_store__names_who_holds_it(void **state)
{
	struct place *p = *state;
	struct store *st;
	pid_t holder = -1;

	assert_int_equal(store_open(&st, &p->cfg, &holder), -EBUSY);
	assert_int_equal(holder, getpid());
	shut(p);
	assert_int_equal(store_open(&p->st, &p->cfg, &holder), 0);
}

static void test_store__refuses_a_folder_others_can_write(void **state)
{
	struct place *p = *state;

	shut(p);
	assert_int_equal(chmod(p->dir, 0770), 0);
	assert_int_equal(open_store(p), -EACCES);
	assert_int_equal(chmod(p->dir, 0702), 0);
	assert_int_equal(open_store(p), -EACCES);
	assert_int_equal(chmod(p->dir, 0755), 0);
	assert_int_equal(open_store(p), 0);
}

static void test_store__refuses_linked_folders(void **state)
{
	struct place *p = *state;
	char *objects = scratch_path(p->dir, "objects");

	shut(p);
	assert_int_equal(rmdir(objects), 0);
	assert_int_equal(symlink("/tmp", objects), 0);
	assert_true(open_store(p) < 0);
	free(objects);
}

/* ---- admission ---- */

static void test_store__serves_what_was_admitted(void **state)
{
	struct place *p = *state;
	struct store_object *o;
	struct store_info want;
	struct catalog_cached row;
	size_t len;

	assert_acquire_is(p, KEY, -ENOENT);
	admit(p, KEY, p->a, LEN);
	assert_int_equal(store_acquire(p->st, KEY, &o), 0);
	assert_true(admission_same(o, p->a, LEN));
	assert_string_equal(store_object_key(o), KEY);
	assert_null(store_object_small(o, &len));
	admission_info(&want, "e1", p->a, LEN);
	assert_string_equal(store_object_info(o)->etag, "e1");
	assert_memory_equal(store_object_info(o)->sha256, want.sha256, 32);
	store_release(o);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	assert_int_equal(row.state, CATALOG_VERIFIED);
	assert_int_equal(p->events[STORE_EVENT_COMMITTED], 1);
	assert_true(exists(p, "objects/" KEY));
	assert_true(exists(p, "index/" KEY ".index"));
	assert_false(exists(p, "staging/data"));
	reopen(p);
	assert_serves(p, KEY, p->a, LEN);
}

static void test_store__shares_one_object_among_holders(void **state)
{
	struct place *p = *state;
	struct store_object *a, *b, *c;

	admit(p, KEY, p->a, LEN);
	assert_int_equal(store_acquire(p->st, KEY, &a), 0);
	assert_int_equal(store_acquire(p->st, KEY, &b), 0);
	assert_ptr_equal(a, b);
	assert_ptr_equal(store_ref(a), a);
	store_release(a);
	store_release(a);
	store_release(b);
	store_release(NULL);
	/* Kept for a while: no system call, no new object. */
	assert_int_equal(store_acquire(p->st, KEY, &c), 0);
	assert_ptr_equal(c, a);
	store_release(c);
}

/* How many descriptors are open after putting 100 small objects, where there
 * may be @limit. */
static unsigned int fds_with(struct place *p, rlim_t limit)
{
	struct rlimit before, now;
	unsigned int fds = 0;
	char key[32];

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	now = before;
	now.rlim_cur = limit;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	reopen(p);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "small-%d", i);
		assert_int_equal(put_small(p, key, "text"), 0);
	}
	for (int fd = 0; fd < 1000; fd++)
		fds += fcntl(fd, F_GETFD) >= 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	return fds;
}

static void test_store__keeps_few_idle_objects(void **state)
{
	struct place *p = *state;

	/* An eighth of the descriptors, and some for other things. */
	assert_in_range(fds_with(p, 512), 64, 64 + 40);
	assert_serves(p, "small-0", "text", 4);
	assert_in_range(fds_with(p, 1024), 100, 100 + 40);
	assert_serves(p, "small-0", "text", 4);
}

static void test_store__empty_objects_are_objects(void **state)
{
	struct place *p = *state;

	admit(p, "empty.zip", "", 0);
	assert_int_equal(put_small(p, "empty", ""), 0);
	reopen(p);
	assert_serves(p, "empty.zip", "", 0);
	assert_serves(p, "empty", "", 0);
}

static void test_store__commits_only_what_is_whole(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;
	struct store_info info;

	admission_info(&info, "e1", p->a, LEN);
	assert_int_equal(store_stage(p->st, KEY, &sg), 0);
	assert_int_equal(store_staging_begin(sg, "e1", LEN, 1, 0), 0);
	assert_int_equal(store_staging_write(sg, p->a, LEN - 1), 0);
	assert_int_equal(store_staging_commit(sg, &info), -EINVAL);
	assert_int_equal(store_staging_write(sg, p->a + LEN - 1, 1), 0);
	/* No index yet. */
	assert_int_equal(store_staging_commit(sg, &info), -ENOENT);
	assert_acquire_is(p, KEY, -ENOENT);
	assert_int_equal(admission_commit(sg, &info), 0);
	assert_int_equal(store_staging_commit(sg, &info), -EINVAL);
	store_staging_close(sg);
	assert_serves(p, KEY, p->a, LEN);
}

static void test_store__one_download_at_a_time(void **state)
{
	struct place *p = *state;
	struct store_staging *a, *b;

	assert_int_equal(store_stage(p->st, KEY, &a), 0);
	assert_int_equal(store_stage(p->st, KEY, &b), -EBUSY);
	assert_int_equal(store_recheck(p->st, KEY, &b), -EBUSY);
	assert_int_equal(store_stage(p->st, "other.zip", &b), 0);
	store_staging_close(b);
	store_staging_close(a);
	store_staging_close(NULL);
	assert_false(exists(p, "staging/other.zip.partial"));
	assert_int_equal(store_stage(p->st, KEY, &a), 0);
	store_staging_close(a);
}

/* ---- resuming ---- */

static void stage_part(struct place *p, const char *key, const char *etag,
		       uint64_t size, size_t len)
{
	struct store_staging *sg;

	assert_int_equal(store_stage(p->st, key, &sg), 0);
	assert_int_equal(store_staging_begin(sg, etag, size, 77, 0), 0);
	assert_int_equal(store_staging_write(sg, p->a, len), 0);
	store_staging_close(sg);
}

static void assert_staged(struct place *p, const char *key, const char *etag,
			  uint64_t size, uint64_t bytes)
{
	struct store_staging *sg;

	assert_int_equal(store_stage(p->st, key, &sg), 0);
	assert_string_equal(store_staging_etag(sg), etag);
	assert_true(store_staging_size(sg) == size);
	assert_int_equal(store_staging_bytes(sg), bytes);
	store_staging_close(sg);
}

static void test_store__resumes_where_it_stopped(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;
	struct store_info info;
	uint64_t bytes, size;

	stage_part(p, KEY, "e1", LEN, 70000);
	reopen(p);
	assert_int_equal(store_partial(p->st, KEY, &bytes, &size), 0);
	assert_int_equal(bytes, 70000);
	assert_int_equal(size, LEN);
	assert_int_equal(store_partial(p->st, "k", &bytes, &size), -ENOENT);
	assert_int_equal(store_stage(p->st, KEY, &sg), 0);
	assert_string_equal(store_staging_etag(sg), "e1");
	assert_int_equal(store_staging_size(sg), LEN);
	assert_int_equal(store_staging_last_modified(sg), 77);
	assert_int_equal(store_staging_bytes(sg), 70000);
	assert_int_equal(store_staging_begin(sg, "e1", LEN, 77, 60000), 0);
	assert_int_equal(store_staging_write(sg, p->a + 60000, LEN - 60000), 0);
	assert_int_equal(store_partial(p->st, KEY, &bytes, &size), 0);
	assert_int_equal(bytes, LEN);
	admission_info(&info, "e1", p->a, LEN);
	assert_int_equal(admission_commit(sg, &info), 0);
	store_staging_close(sg);
	assert_serves(p, KEY, p->a, LEN);
	assert_int_equal(store_partial(p->st, KEY, &bytes, &size), -ENOENT);
}

static void test_store__loses_nothing_to_a_kill(void **state)
{
	struct place *p = *state;
	int status;
	pid_t pid;

	shut(p);
	pid = fork();
	if (pid == 0) {
		if (open_store(p))
			_exit(1);
		stage_part(p, KEY, "e1", LEN, 1000);
		stage_part(p, "k.zip", "e1", LEN, 12345);
		/* No close, no flush. */
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(open_store(p), 0);
	assert_staged(p, KEY, "e1", LEN, 1000);
	assert_staged(p, "k.zip", "e1", LEN, 12345);
}

static void test_store__a_partial_without_sidecar_is_of_no_version(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{}",
		"{\"etag\":1,\"size\":5,\"last_modified\":1}",
		"{\"etag\":\"e\",\"size\":-5,\"last_modified\":1}",
		"{\"etag\":\"e\",\"size\":1e300,\"last_modified\":1}",
		"{\"etag\":\"e\",\"size\":5.5,\"last_modified\":1}",
		"{\"etag\":\"e\",\"size\":5}",
		"{\"etag\":\"e\",\"size\":\"5\",\"last_modified\":1}",
	};
	struct place *p = *state;
	char *sidecar = scratch_path(p->dir, "staging/k.zip.partial.json");
	char huge[8192];

	stage_part(p, "k.zip", "e1", LEN, 1000);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		scratch_write(sidecar, bad[i], strlen(bad[i]));
		assert_staged(p, "k.zip", "", UINT64_MAX, 1000);
	}
	memset(huge, ' ', sizeof(huge));
	scratch_write(sidecar, huge, sizeof(huge));
	assert_staged(p, "k.zip", "", UINT64_MAX, 1000);
	unlink(sidecar);
	assert_staged(p, "k.zip", "", UINT64_MAX, 1000);
	free(sidecar);
}

static void test_store__cuts_a_partial_that_is_too_long(void **state)
{
	struct place *p = *state;

	stage_part(p, "k.zip", "e1", 500, 1000);
	assert_staged(p, "k.zip", "e1", 500, 500);
}

static void test_store__discards(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;
	uint64_t before = used(p);

	stage_part(p, KEY, "e1", LEN, 70000);
	assert_true(used(p) >= before + 70000);
	assert_int_equal(store_stage(p->st, KEY, &sg), 0);
	assert_int_equal(store_staging_discard(sg), 0);
	assert_int_equal(store_staging_bytes(sg), 0);
	assert_string_equal(store_staging_etag(sg), "");
	assert_true(store_staging_size(sg) == UINT64_MAX);
	store_staging_close(sg);
	assert_false(exists(p, "staging/data"));
	assert_int_equal(used(p), before);
}

static void test_store__begin_wants_what_is_there(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;

	assert_int_equal(store_stage(p->st, KEY, &sg), 0);
	assert_int_equal(store_staging_begin(sg, "e1", LEN, 1, 1), -EINVAL);
	assert_int_equal(store_staging_begin(sg, "e1", UINT64_MAX, 1, 0), 0);
	assert_int_equal(store_staging_write(sg, p->a, LEN), 0);
	assert_int_equal(store_staging_begin(sg, "e1", 5, 1, 6), -EINVAL);
	store_staging_close(sg);
	assert_staged(p, KEY, "e1", UINT64_MAX, LEN);
}

static void test_store__sweeps_what_was_never_finished(void **state)
{
	struct place *p = *state;

	stage_part(p, "k.zip", "e1", LEN, 10);
	shut(p);
	put_file(p, "staging/k.zip.index.tmp", "x", 1);
	put_file(p, "staging/k.CHECKSUM.put", "x", 1);
	put_file(p, "staging/k.zip.partial.json.new", "x", 1);
	assert_int_equal(open_store(p), 0);
	assert_false(exists(p, "staging/k.zip.index.tmp"));
	assert_false(exists(p, "staging/k.CHECKSUM.put"));
	assert_false(exists(p, "staging/k.zip.partial.json.new"));
	assert_staged(p, "k.zip", "e1", LEN, 10);
}

/* ---- replaced and damaged ---- */

static void test_store__holders_keep_a_replaced_version(void **state)
{
	struct place *p = *state;
	struct store_object *old, *new;
	uint64_t before, with_both;

	admit(p, KEY, p->a, LEN);
	assert_int_equal(store_acquire(p->st, KEY, &old), 0);
	store_tick(p->st, time(NULL));
	before = used(p);
	assert_int_equal(admission_admit(p->st, KEY, "e2", p->b, LEN), 0);
	assert_int_equal(store_acquire(p->st, KEY, &new), 0);
	assert_ptr_not_equal(old, new);
	assert_true(admission_same(old, p->a, LEN));
	assert_true(admission_same(new, p->b, LEN));
	assert_string_equal(store_object_info(new)->etag, "e2");
	/* The old one takes room as long as it is held. */
	with_both = used(p);
	assert_true(with_both >= before + LEN);
	store_release(old);
	assert_true(used(p) <= with_both - LEN);
	store_release(new);
}

static void drop_rows(struct place *p)
{
	char *file = scratch_path(p->dir, "catalog.sqlite");
	char *wal = scratch_path(p->dir, "catalog.sqlite-wal");

	shut(p);
	unlink(file);
	unlink(wal);
	free(file);
	free(wal);
	assert_int_equal(open_store(p), 0);
}

static void test_store__adopts_an_object_without_a_row(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;
	struct store_info info;

	admit(p, KEY, p->a, LEN);
	drop_rows(p);
	assert_acquire_is(p, KEY, -EUCLEAN);
	assert_int_equal(store_recheck(p->st, KEY, &sg), 0);
	assert_int_equal(store_staging_bytes(sg), LEN);
	assert_string_equal(store_staging_etag(sg), "");
	assert_true(store_staging_size(sg) == UINT64_MAX);
	assert_acquire_is(p, KEY, -ENOENT);
	admission_info(&info, "e1", p->a, LEN);
	assert_int_equal(admission_commit(sg, &info), 0);
	store_staging_close(sg);
	assert_serves(p, KEY, p->a, LEN);
}

static void test_store__rechecks_what_does_not_fit(void **state)
{
	static const char *const names[] = {"index/" KEY ".index",
					    "objects/" KEY};
	struct place *p = *state;
	struct store_staging *sg;
	struct store_info info;
	char *path;

	admission_info(&info, "e1", p->a, LEN);
	for (int i = 0; i < 3; i++) {
		admit(p, KEY, p->a, LEN);
		shut(p);
		path = scratch_path(p->dir, names[i / 2]);
		if (i == 0)
			hurt(p, names[0], 40);
		else if (i == 1)
			unlink(path);
		else
			assert_int_equal(truncate(path, LEN - 1), 0);
		free(path);
		assert_int_equal(open_store(p), 0);
		assert_acquire_is(p, KEY, -EUCLEAN);
		assert_int_equal(store_recheck(p->st, KEY, &sg), 0);
		assert_false(exists(p, "index/" KEY ".index"));
		/* The bytes are those of the row, or of nothing known. */
		assert_string_equal(store_staging_etag(sg), i < 2 ? "e1" : "");
		if (i < 2)
			assert_int_equal(admission_commit(sg, &info), 0);
		store_staging_close(sg);
		assert_acquire_is(p, KEY, i < 2 ? 0 : -ENOENT);
	}
	assert_int_equal(store_recheck(p->st, "k", &sg), -ENOENT);
}

static void test_store__puts_back_what_it_moved_for_a_recheck(void **state)
{
	struct place *p = *state;
	struct catalog_cached row;
	struct store_staging *sg;
	struct store_info info;
	uint64_t before;

	admit(p, KEY, p->a, LEN);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	row.pinned = true;
	assert_int_equal(catalog_cached_put(store_catalog(p->st), KEY, &row),
			 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(store_recheck(p->st, KEY, &sg), 0);
		/* What the row told is still known the second time. */
		assert_string_equal(store_staging_etag(sg), "e1");
		assert_int_equal(store_staging_put_back(sg), 0);
		store_staging_close(sg);
		assert_true(exists(p, "objects/" KEY));
		assert_false(exists(p, "staging/data"));
		assert_acquire_is(p, KEY, -EUCLEAN);
		reopen(p);
	}
	before = used(p);
	assert_int_equal(store_recheck(p->st, KEY, &sg), 0);
	admission_info(&info, "e1", p->a, LEN);
	assert_int_equal(admission_commit(sg, &info), 0);
	assert_int_equal(store_staging_put_back(sg), -EINVAL);
	store_staging_close(sg);
	assert_serves(p, KEY, p->a, LEN);
	assert_true(used(p) >= before);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	assert_true(row.pinned);

	/* Other bytes, or a partial, are no object. */
	assert_int_equal(store_recheck(p->st, KEY, &sg), 0);
	assert_int_equal(store_staging_discard(sg), 0);
	assert_int_equal(store_staging_put_back(sg), -EINVAL);
	assert_int_equal(store_staging_begin(sg, "e2", LEN, 1, 0), 0);
	assert_int_equal(store_staging_write(sg, p->b, LEN), 0);
	assert_int_equal(store_staging_put_back(sg), -EINVAL);
	store_staging_close(sg);
	assert_int_equal(store_stage(p->st, KEY, &sg), 0);
	assert_int_equal(store_staging_put_back(sg), -EINVAL);
	store_staging_close(sg);
}

static void test_store__heals_what_was_found_damaged(void **state)
{
	struct place *p = *state;
	struct store_object *o, *again;
	struct store_staging *sg;
	struct store_info info;

	admit(p, KEY, p->a, LEN);
	assert_int_equal(store_acquire(p->st, KEY, &o), 0);
	store_damaged(p->st, o);
	store_damaged(p->st, o);
	assert_acquire_is(p, KEY, -EUCLEAN);
	assert_int_equal(p->events[STORE_EVENT_DAMAGED], 1);
	assert_int_equal(store_recheck(p->st, KEY, &sg), 0);
	assert_string_equal(store_staging_etag(sg), "e1");
	assert_int_equal(store_staging_size(sg), LEN);
	/* Other bytes come in its place; who holds it does not see them. */
	assert_int_equal(store_staging_begin(sg, "e2", LEN, 1, 1000), 0);
	assert_int_equal(store_staging_bytes(sg), 1000);
	assert_int_equal(store_staging_discard(sg), 0);
	assert_int_equal(store_staging_begin(sg, "e2", LEN, 1, 0), 0);
	assert_int_equal(store_staging_write(sg, p->b, LEN), 0);
	assert_true(admission_same(o, p->a, LEN));
	admission_info(&info, "e2", p->b, LEN);
	assert_int_equal(admission_commit(sg, &info), 0);
	store_staging_close(sg);
	assert_int_equal(store_acquire(p->st, KEY, &again), 0);
	assert_true(admission_same(again, p->b, LEN));
	assert_true(admission_same(o, p->a, LEN));
	/* Damage of an old version says nothing of the new. */
	store_damaged(p->st, o);
	store_release(o);
	store_release(again);
	assert_serves(p, KEY, p->b, LEN);
}

static void test_store__damage_outlives_a_restart(void **state)
{
	struct place *p = *state;
	struct store_object *o;

	admit(p, KEY, p->a, LEN);
	assert_int_equal(store_acquire(p->st, KEY, &o), 0);
	store_damaged(p->st, o);
	store_release(o);
	reopen(p);
	assert_acquire_is(p, KEY, -EUCLEAN);
}

static void test_store__a_deleted_file_is_not_cached(void **state)
{
	struct place *p = *state;
	char *path = scratch_path(p->dir, "objects/" KEY);
	struct catalog_cached row;

	admit(p, KEY, p->a, LEN);
	reopen(p);
	unlink(path);
	assert_acquire_is(p, KEY, -ENOENT);
	store_tick(p->st, time(NULL));
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 -ENOENT);
	free(path);
}

static void test_store__a_pin_outlives_a_recheck(void **state)
{
	struct place *p = *state;
	struct catalog_cached row;
	struct store_staging *sg;
	struct store_info info;

	admit(p, KEY, p->a, LEN);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	row.pinned = true;
	assert_int_equal(catalog_cached_put(store_catalog(p->st), KEY, &row),
			 0);
	assert_int_equal(store_recheck(p->st, KEY, &sg), 0);
	store_staging_close(sg);
	reopen(p);
	assert_int_equal(store_stage(p->st, KEY, &sg), 0);
	admission_info(&info, "e1", p->a, LEN);
	assert_int_equal(admission_commit(sg, &info), 0);
	store_staging_close(sg);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	assert_true(row.pinned);
}

/* ---- small objects ---- */

static void test_store__small_objects_are_checked_in_memory(void **state)
{
	struct place *p = *state;
	struct store_object *o;
	size_t len;

	assert_int_equal(put_small(p, "k.zip.CHECKSUM", "abc  k.zip\n"), 0);
	assert_serves(p, "k.zip.CHECKSUM", "abc  k.zip\n", 11);
	assert_int_equal(store_acquire(p->st, "k.zip.CHECKSUM", &o), 0);
	assert_null(store_object_index(o));
	assert_memory_equal(store_object_small(o, &len), "abc  k.zip\n", 11);
	store_release(o);
	assert_int_equal(put_small(p, "k.zip.CHECKSUM", "new"), 0);
	assert_serves(p, "k.zip.CHECKSUM", "new", 3);
	shut(p);
	hurt(p, "objects/k.zip.CHECKSUM", 1);
	assert_int_equal(open_store(p), 0);
	assert_acquire_is(p, "k.zip.CHECKSUM", -EUCLEAN);
	assert_int_equal(put_small(p, "k.zip.CHECKSUM", "new"), 0);
	assert_serves(p, "k.zip.CHECKSUM", "new", 3);
}

static void test_store__puts_only_what_is_small_and_right(void **state)
{
	struct place *p = *state;
	struct store_info info;

	admission_info(&info, "e", p->a, STORE_SMALL_MAX + 1);
	assert_int_equal(store_put(p->st, "k", &info, p->a,
				   STORE_SMALL_MAX + 1),
			 -EFBIG);
	assert_int_equal(put_small(p, "k.zip", "x"), -EFBIG);
	admission_info(&info, "e", p->a, STORE_SMALL_MAX);
	assert_int_equal(store_put(p->st, "k", &info, p->b, STORE_SMALL_MAX),
			 -EINVAL);
	assert_int_equal(store_put(p->st, "k", &info, p->a, STORE_SMALL_MAX),
			 0);
	assert_serves(p, "k", p->a, STORE_SMALL_MAX);
}

static void test_store__large_plain_objects_have_an_index(void **state)
{
	struct place *p = *state;
	struct store_object *o;
	size_t len;

	admit(p, "plain.csv", p->a, LEN);
	assert_int_equal(store_acquire(p->st, "plain.csv", &o), 0);
	assert_null(store_object_small(o, &len));
	assert_true(admission_same(o, p->a, LEN));
	store_release(o);
}

static void test_store__confirms(void **state)
{
	struct place *p = *state;
	const struct store_info *before;
	struct store_object *o;
	struct catalog_cached row;

	assert_int_equal(store_confirm(p->st, KEY, 5), -ENOENT);
	admit(p, KEY, p->a, LEN);
	assert_int_equal(store_acquire(p->st, KEY, &o), 0);
	before = store_object_info(o);
	assert_int_equal(store_confirm(p->st, KEY, 5000000000), 0);
	assert_true(store_object_info(o)->checked_at == 5000000000);
	/* Who looked before still may. */
	assert_string_equal(before->etag, "e1");
	store_release(o);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	assert_true(row.checked_at == 5000000000);
}

/* ---- room ---- */

static void admit_old(struct place *p, const char *key, int64_t last_use)
{
	struct catalog_cached row;

	admit(p, key, p->a, LEN);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), key, &row),
			 0);
	row.last_use = last_use;
	assert_int_equal(catalog_cached_put(store_catalog(p->st), key, &row),
			 0);
}

/* Room for @n archives of LEN bytes beside what is there now. */
static void limit(struct place *p, unsigned int n)
{
	store_tick(p->st, time(NULL));
	p->cfg.quota_bytes = used(p) + (uint64_t)n * (LEN + LEN / 4) + 60000;
	reopen(p);
}

static void test_store__evicts_what_was_used_longest_ago(void **state)
{
	struct place *p = *state;

	admit_old(p, "b.zip", 200);
	admit_old(p, "a.zip", 300);
	admit_old(p, "c.zip", 100);
	assert_int_equal(put_small(p, "c.zip.CHECKSUM", "x"), 0);
	assert_int_equal(put_small(p, "b.zip.CHECKSUM", "x"), 0);
	limit(p, 0);
	admit(p, "new.zip", p->b, LEN);
	assert_string_equal(p->last_key, "c.zip");
	assert_int_equal(p->events[STORE_EVENT_EVICTED], 1);
	assert_false(exists(p, "objects/c.zip"));
	assert_false(exists(p, "objects/c.zip.CHECKSUM"));
	assert_false(exists(p, "index/c.zip.index"));
	assert_true(exists(p, "objects/b.zip.CHECKSUM"));
	assert_acquire_is(p, "c.zip", -ENOENT);
	assert_acquire_is(p, "c.zip.CHECKSUM", -ENOENT);
	assert_serves(p, "b.zip", p->a, LEN);
	assert_serves(p, "new.zip", p->b, LEN);
	assert_true(used(p) <= p->cfg.quota_bytes);
}

static void test_store__a_checksum_goes_with_its_archive(void **state)
{
	struct place *p = *state;
	struct catalog_cached row;

	assert_int_equal(put_small(p, "used.zip.CHECKSUM", "x"), 0);
	assert_int_equal(catalog_cached_get(store_catalog(p->st),
					    "used.zip.CHECKSUM", &row),
			 0);
	row.last_use = 1;
	assert_int_equal(catalog_cached_put(store_catalog(p->st),
					    "used.zip.CHECKSUM", &row),
			 0);
	admit_old(p, "old.zip", 100);
	admit_old(p, "used.zip", 200);
	limit(p, 0);
	admit(p, "new.zip", p->b, LEN);
	assert_true(exists(p, "objects/used.zip.CHECKSUM"));
	assert_false(exists(p, "objects/old.zip"));
}

static void test_store__never_evicts_what_is_held(void **state)
{
	struct place *p = *state;
	struct store_object *held;

	admit_old(p, "a.zip", 100);
	admit_old(p, "b.zip", 200);
	limit(p, 0);
	assert_int_equal(store_acquire(p->st, "a.zip", &held), 0);
	admit(p, "new.zip", p->b, LEN);
	assert_string_equal(p->last_key, "b.zip");
	assert_true(admission_same(held, p->a, LEN));
	store_release(held);
	assert_serves(p, "a.zip", p->a, LEN);
}

static void test_store__full_of_what_is_held_it_says_so(void **state)
{
	struct place *p = *state;
	struct store_object *held;
	struct store_staging *sg;

	admit_old(p, "a.zip", 100);
	admit_old(p, "b.zip", 200);
	limit(p, 0);
	assert_int_equal(store_acquire(p->st, "a.zip", &held), 0);
	assert_int_equal(store_stage(p->st, "new.zip", &sg), 0);
	/* It would take both: then none is evicted in vain. */
	assert_int_equal(store_staging_begin(sg, "e", 2 * LEN, 1, 0), -ENOSPC);
	assert_int_equal(p->events[STORE_EVENT_EVICTED], 0);
	assert_int_equal(store_staging_begin(sg, "e", UINT64_C(1) << 40, 1, 0),
			 -ENOSPC);
	assert_int_equal(store_staging_begin(sg, "e", LEN, 1, 0), 0);
	assert_int_equal(p->events[STORE_EVENT_EVICTED], 1);
	store_staging_close(sg);
	store_release(held);
}

static void test_store__pinned_by_the_user_stays(void **state)
{
	struct place *p = *state;
	struct catalog_cached row;

	admit_old(p, "a.zip", 100);
	assert_int_equal(
		catalog_cached_get(store_catalog(p->st), "a.zip", &row), 0);
	row.pinned = true;
	assert_int_equal(
		catalog_cached_put(store_catalog(p->st), "a.zip", &row), 0);
	limit(p, 0);
	assert_int_equal(admission_admit(p->st, "new.zip", "e", p->b, LEN),
			 -ENOSPC);
	assert_serves(p, "a.zip", p->a, LEN);
}

static void test_store__promises_no_byte_twice(void **state)
{
	struct place *p = *state;
	struct store_staging *a, *b;

	limit(p, 1);
	assert_int_equal(store_stage(p->st, "a.zip", &a), 0);
	assert_int_equal(store_stage(p->st, "b.zip", &b), 0);
	assert_int_equal(store_staging_begin(a, "e", LEN, 1, 0), 0);
	assert_int_equal(store_staging_begin(b, "e", LEN, 1, 0), -ENOSPC);
	assert_int_equal(store_staging_write(a, p->a, LEN / 2), 0);
	assert_int_equal(store_staging_begin(b, "e", LEN, 1, 0), -ENOSPC);
	assert_int_equal(store_staging_discard(a), 0);
	assert_int_equal(store_staging_begin(b, "e", LEN, 1, 0), 0);
	store_staging_close(a);
	store_staging_close(b);
}

static void test_store__unknown_sizes_are_watched_as_they_grow(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;
	int err = 0;

	limit(p, 1);
	assert_int_equal(store_stage(p->st, "a.zip", &sg), 0);
	assert_int_equal(store_staging_begin(sg, "e", UINT64_MAX, 1, 0), 0);
	for (int i = 0; i < 100 && !err; i++)
		err = store_staging_write(sg, p->a, 10000);
	assert_int_equal(err, -ENOSPC);
	assert_in_range(store_staging_bytes(sg), LEN, LEN + LEN / 2);
	assert_true(used(p) <= p->cfg.quota_bytes);
	store_staging_close(sg);
}

static void test_store__abandoned_downloads_make_room(void **state)
{
	struct place *p = *state;

	stage_part(p, "abandoned.zip", "e1", LEN, LEN);
	limit(p, 0);
	admit(p, "new.zip", p->b, LEN);
	assert_false(exists(p, "staging/abandoned.zip.partial"));
	assert_false(exists(p, "staging/abandoned.zip.partial.json"));
	assert_serves(p, "new.zip", p->b, LEN);
}

static void test_store__keeps_the_file_system_free(void **state)
{
	struct place *p = *state;

	admit_old(p, "a.zip", 100);
	p->cfg.min_free_fraction = 1.0;
	reopen(p);
	assert_int_equal(admission_admit(p->st, "new.zip", "e", p->b, LEN),
			 -ENOSPC);
	store_tick(p->st, time(NULL));
	assert_int_equal(p->events[STORE_EVENT_EVICTED], 1);
	p->cfg.min_free_fraction = 0;
	p->cfg.min_free_bytes = UINT64_C(1) << 60;
	reopen(p);
	assert_int_equal(admission_admit(p->st, "new.zip", "e", p->b, LEN),
			 -ENOSPC);
}

static uint64_t disk_total;

static int add_usage(const char *path, const struct stat *sb, int type,
		     struct FTW *ftw)
{
	(void)path;
	(void)ftw;
	if (type == FTW_F)
		disk_total += (uint64_t)sb->st_size;
	return 0;
}

static void test_store__counts_everything_under_its_folder(void **state)
{
	struct store_info info;
	struct place *p = *state;
	struct store_staging *sg;

	admit(p, "a.zip", p->a, LEN);
	assert_int_equal(put_small(p, "a.zip.CHECKSUM", "x"), 0);
	stage_part(p, "b.zip", "e1", LEN, 70000);
	assert_int_equal(store_stage(p->st, "c.zip", &sg), 0);
	assert_int_equal(store_staging_begin(sg, "e1", LEN, 1, 0), 0);
	assert_int_equal(store_staging_write(sg, p->a, LEN), 0);
	admission_info(&info, "e1", p->a, LEN);
	assert_int_equal(store_staging_quarantine(sg, &info, "test"), 0);
	store_staging_close(sg);
	store_tick(p->st, time(NULL));
	disk_total = 0;
	nftw(p->dir, add_usage, 16, FTW_PHYS);
	/* Whole blocks, so not less, and not much more. */
	assert_in_range(used(p), disk_total, disk_total + 20 * 4096);
}

static void read_often(struct place *p, unsigned int n)
{
	const unsigned char sha256[32] = {1};

	for (unsigned int i = 1; i <= n; i++) {
		assert_int_equal(catalog_ledger_add(store_catalog(p->st), "run",
						    "opened", KEY, sha256,
						    VERDICT_VERIFIED, i),
				 0);
		if (i % 1000 == 0)
			store_tick(p->st, time(NULL));
	}
}

/* 30,000 lines are 7 MiB, and the log of the catalog takes 4 more. */
static void test_store__the_ledger_does_not_fill_the_quota(void **state)
{
	struct place *p = *state;

	p->cfg.quota_bytes = 8 << 20;
	reopen(p);
	read_often(p, 30000);
	assert_in_range(30000 - p->trimmed, 4096, 4096 + 256);
	assert_int_equal(p->trimmed_until, p->trimmed);
	assert_int_equal(p->events[STORE_EVENT_DISK_ERROR], 0);
	admit(p, KEY, p->a, LEN);
	assert_serves(p, KEY, p->a, LEN);
}

static void test_store__a_ledger_too_large_for_a_new_quota_goes(void **state)
{
	struct place *p = *state;

	read_often(p, 50000);
	assert_int_equal(p->trimmed, 0);
	p->cfg.quota_bytes = 8 << 20;
	reopen(p);
	assert_true(used(p) > p->cfg.quota_bytes);
	assert_int_equal(admission_admit(p->st, KEY, "e", p->a, LEN), -ENOSPC);
	for (int i = 0; i < 10; i++)
		store_tick(p->st, time(NULL));
	assert_in_range(50000 - p->trimmed, 4096, 4096 + 256);
	admit(p, KEY, p->a, LEN);
}

static void test_store__a_census_finds_what_has_no_row(void **state)
{
	struct place *p = *state;
	struct store_stats stats;
	uint64_t before;

	admit(p, "a.zip", p->a, LEN);
	admit(p, "d/b.zip", p->a, LEN);
	put_file(p, "index/orphan.zip.index", "x", 1);
	store_tick(p->st, time(NULL));
	before = used(p);
	drop_rows(p);
	for (int i = 0; i < 5; i++)
		store_tick(p->st, time(NULL));
	store_stats(p->st, &stats);
	assert_int_equal(stats.objects, 2);
	assert_in_range(stats.used_bytes, before - 40000, before + 40000);
	assert_false(exists(p, "index/orphan.zip.index"));
	/* Not served unchecked, but evicted like any other. */
	assert_acquire_is(p, "a.zip", -EUCLEAN);
	p->cfg.quota_bytes = stats.used_bytes - LEN - 10000;
	reopen(p);
	store_tick(p->st, time(NULL));
	assert_int_equal(p->events[STORE_EVENT_EVICTED], 1);
	assert_true(used(p) <= p->cfg.quota_bytes);
}

/* ---- quarantine ---- */

static void refuse(struct place *p, const char *key, int64_t when)
{
	struct store_staging *sg;
	struct store_info info;

	assert_int_equal(store_stage(p->st, key, &sg), 0);
	if (store_staging_bytes(sg) == 0) {
		assert_int_equal(store_staging_begin(sg, "e1", LEN, 1, 0), 0);
		assert_int_equal(store_staging_write(sg, p->a, LEN), 0);
	}
	admission_info(&info, "e1", p->a, LEN);
	info.size = store_staging_bytes(sg);
	info.verdict = VERDICT_DAMAGED;
	info.verified_at = when;
	assert_int_equal(
		store_staging_quarantine(sg, &info, "crc of \"x\" differs"), 0);
	store_staging_close(sg);
}

static void test_store__quarantine_keeps_bytes_and_reason(void **state)
{
	struct place *p = *state;
	struct catalog_cached row;
	char *path, *text;
	size_t len;

	refuse(p, KEY, 1000);
	assert_acquire_is(p, KEY, -ENOENT);
	assert_true(exists(p, "quarantine/" KEY));
	assert_false(exists(p, "staging/data"));
	path = scratch_path(p->dir, "quarantine/" KEY ".reason.json");
	text = scratch_read(path, &len);
	assert_non_null(
		strstr(text, "\"reason\":\"crc of \\\"x\\\" differs\""));
	assert_non_null(strstr(text, "\"verdict\":\"damaged\""));
	free(text);
	free(path);
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	assert_int_equal(row.state, CATALOG_QUARANTINED);
	assert_int_equal(p->events[STORE_EVENT_QUARANTINED], 1);
}

static void test_store__a_good_one_ends_the_quarantine(void **state)
{
	struct place *p = *state;
	struct catalog_cached row;

	refuse(p, KEY, 1000);
	refuse(p, KEY, 2000);
	admit(p, KEY, p->a, LEN);
	assert_false(exists(p, "quarantine/data"));
	assert_int_equal(catalog_cached_get(store_catalog(p->st), KEY, &row),
			 0);
	assert_int_equal(row.state, CATALOG_VERIFIED);
	assert_int_equal(catalog_quarantined_get(store_catalog(p->st), KEY,
						 &row),
			 -ENOENT);
}

static void test_store__quarantine_leaves_the_old_version(void **state)
{
	struct place *p = *state;

	admit(p, KEY, p->b, LEN);
	refuse(p, KEY, 1000);
	assert_serves(p, KEY, p->b, LEN);
}

static void test_store__quarantine_ends_after_30_days(void **state)
{
	struct place *p = *state;
	const int64_t now = 1700000000;

	refuse(p, "old.zip", now - 30 * DAY - 1);
	refuse(p, "new.zip", now - 30 * DAY);
	store_tick(p->st, now);
	assert_false(exists(p, "quarantine/old.zip"));
	assert_false(exists(p, "quarantine/old.zip.reason.json"));
	assert_true(exists(p, "quarantine/new.zip"));
	assert_int_equal(p->events[STORE_EVENT_EXPIRED], 1);
}

static void stage_sparse(struct place *p, const char *name, off_t size)
{
	char *path = scratch_path(p->dir, name);

	scratch_write(path, "x", 1);
	assert_int_equal(truncate(path, size), 0);
	free(path);
}

/* Under @quota_bytes there is room in quarantine/ for one of @large. */
static void check_quarantine(struct place *p, uint64_t quota_bytes, off_t large)
{
	p->cfg.quota_bytes = quota_bytes;
	shut(p);
	stage_sparse(p, "staging/a.zip.partial", large);
	stage_sparse(p, "staging/b.zip.partial", large);
	stage_sparse(p, "staging/c.zip.partial", 2 * large);
	assert_int_equal(open_store(p), 0);
	refuse(p, "a.zip", 1000);
	assert_true(exists(p, "quarantine/a.zip"));
	refuse(p, "b.zip", 2000);
	assert_false(exists(p, "quarantine/a.zip"));
	assert_true(exists(p, "quarantine/b.zip"));
	/* Larger than all of it: the reason stays. */
	refuse(p, "c.zip", 3000);
	assert_true(exists(p, "quarantine/b.zip"));
	assert_false(exists(p, "quarantine/c.zip"));
	assert_true(exists(p, "quarantine/c.zip.reason.json"));
}

static void test_store__quarantine_has_a_limit(void **state)
{
	check_quarantine(*state, UINT64_C(1) << 40, 600 << 20);
}

static void test_store__quarantine_leaves_the_quota_to_good_ones(void **state)
{
	struct place *p = *state;

	check_quarantine(p, 8 << 20, 600 << 10); /* an eighth: 1 MiB */
	/* A smaller one at the next start. */
	p->cfg.quota_bytes = 4 << 20;
	shut(p);
	assert_int_equal(open_store(p), 0);
	store_tick(p->st, 3000);
	assert_false(exists(p, "quarantine/b.zip"));
}

/* ---- threads ---- */

enum { THREADS = 6, ROUNDS = 12, KEYS = 4 };

struct worker {
	struct place *p;
	unsigned int n, wrong;
};

static void use(struct worker *w, const char *key, const unsigned char *buf)
{
	struct store_staging *sg;
	struct store_object *o;
	int err;

	err = store_acquire(w->p->st, key, &o);
	switch (err) {
	case 0:
		w->wrong += !admission_same(o, buf, LEN);
		if (w->n == 0)
			store_damaged(w->p->st, o);
		store_release(o);
		break;
	case -ENOENT:
		err = admission_admit(w->p->st, key, "e", buf, LEN);
		w->wrong += err && err != -EBUSY && err != -ENOSPC;
		break;
	case -EUCLEAN:
		err = store_recheck(w->p->st, key, &sg);
		if (!err) {
			struct store_info info;

			admission_info(&info, "e", buf, LEN);
			err = admission_commit(sg, &info);
			store_staging_close(sg);
		}
		w->wrong += err && err != -EBUSY && err != -ENOENT;
		break;
	default:
		w->wrong++;
	}
}

static void *work(void *arg)
{
	static const char *const keys[KEYS] = {"a.zip", "d/b.zip", "d/c.zip",
					       "d/e/f.zip"};
	struct worker *w = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		unsigned int k = (i + w->n) % KEYS;
		int err;

		use(w, keys[k], k % 2 ? w->p->a : w->p->b);
		if (w->n == 1)
			store_tick(w->p->st, time(NULL));
		err = put_small(w->p, "d/x.CHECKSUM", "text");
		w->wrong += err && err != -ENOSPC;
	}
	return NULL;
}

static void test_store__many_threads_get_right_bytes(void **state)
{
	struct place *p = *state;
	struct worker w[THREADS];
	pthread_t t[THREADS];
	struct store_stats stats;

	/* Too small for all four: they evict each other. */
	limit(p, 3);
	for (unsigned int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){.p = p, .n = i};
		assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(w[i].wrong, 0);
	assert_int_equal(p->events[STORE_EVENT_DISK_ERROR], 0);
	/* The first may evict, the second sees what that wrote. */
	store_tick(p->st, time(NULL));
	store_tick(p->st, time(NULL));
	store_stats(p->st, &stats);
	disk_total = 0;
	nftw(p->dir, add_usage, 16, FTW_PHYS);
	assert_in_range(stats.used_bytes, disk_total, disk_total + 30 * 4096);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_store__keys_that_can_be_file_names),
		TEST(test_store__bad_keys_are_refused),
		TEST(test_store__makes_its_folder_private),
		TEST(test_store__names_who_holds_it),
		TEST(test_store__refuses_a_folder_others_can_write),
		TEST(test_store__refuses_linked_folders),
		TEST(test_store__serves_what_was_admitted),
		TEST(test_store__shares_one_object_among_holders),
		TEST(test_store__keeps_few_idle_objects),
		TEST(test_store__empty_objects_are_objects),
		TEST(test_store__commits_only_what_is_whole),
		TEST(test_store__one_download_at_a_time),
		TEST(test_store__resumes_where_it_stopped),
		TEST(test_store__loses_nothing_to_a_kill),
		TEST(test_store__a_partial_without_sidecar_is_of_no_version),
		TEST(test_store__cuts_a_partial_that_is_too_long),
		TEST(test_store__discards),
		TEST(test_store__begin_wants_what_is_there),
		TEST(test_store__sweeps_what_was_never_finished),
		TEST(test_store__holders_keep_a_replaced_version),
		TEST(test_store__adopts_an_object_without_a_row),
		TEST(test_store__rechecks_what_does_not_fit),
		TEST(test_store__puts_back_what_it_moved_for_a_recheck),
		TEST(test_store__heals_what_was_found_damaged),
		TEST(test_store__damage_outlives_a_restart),
		TEST(test_store__a_deleted_file_is_not_cached),
		TEST(test_store__a_pin_outlives_a_recheck),
		TEST(test_store__small_objects_are_checked_in_memory),
		TEST(test_store__puts_only_what_is_small_and_right),
		TEST(test_store__large_plain_objects_have_an_index),
		TEST(test_store__confirms),
		TEST(test_store__evicts_what_was_used_longest_ago),
		TEST(test_store__a_checksum_goes_with_its_archive),
		TEST(test_store__never_evicts_what_is_held),
		TEST(test_store__full_of_what_is_held_it_says_so),
		TEST(test_store__pinned_by_the_user_stays),
		TEST(test_store__promises_no_byte_twice),
		TEST(test_store__unknown_sizes_are_watched_as_they_grow),
		TEST(test_store__abandoned_downloads_make_room),
		TEST(test_store__keeps_the_file_system_free),
		TEST(test_store__counts_everything_under_its_folder),
		TEST(test_store__the_ledger_does_not_fill_the_quota),
		TEST(test_store__a_ledger_too_large_for_a_new_quota_goes),
		TEST(test_store__a_census_finds_what_has_no_row),
		TEST(test_store__quarantine_keeps_bytes_and_reason),
		TEST(test_store__a_good_one_ends_the_quarantine),
		TEST(test_store__quarantine_leaves_the_old_version),
		TEST(test_store__quarantine_ends_after_30_days),
		TEST(test_store__quarantine_has_a_limit),
		TEST(test_store__quarantine_leaves_the_quota_to_good_ones),
		TEST(test_store__many_threads_get_right_bytes),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

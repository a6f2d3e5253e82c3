/*
 * A disk that is full or fails: the calls that change files stand here in
 * front of the C library's, for the store and for SQLite, and one of them (or
 * all from one on) fails. Each call in turn is the one, until a whole workload
 * runs through.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/store.h"
#include "tests/support/admission.h"
#include "tests/support/every.h"
#include "tests/support/scratch.h"

static struct {
	int err; /* 0: nothing fails */
	bool for_good;
	unsigned int at, calls;
	bool struck;
} fault;

static bool fails(void)
{
	bool now;

	if (!fault.err)
		return false;
	fault.calls++;
	now = fault.for_good ? fault.calls >= fault.at
			     : fault.calls == fault.at;
	fault.struck = fault.struck || now;
	if (now)
		errno = fault.err;
	return now;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	bool was_full = fault.for_good && fault.struck;

	if (!fails())
		return syscall(SYS_pwrite64, fd, buf, len, off);
	/* A disk gets full in the middle of a write; the rest fails then. */
	if (fault.err == ENOSPC && len > 1 && !was_full) {
		fault.at += !fault.for_good;
		return syscall(SYS_pwrite64, fd, buf, len / 2, off);
	}
	errno = fault.err;
	return -1;
}

/* Nothing is cut off here: a sync that worked need not happen. */
int fsync(int fd)
{
	(void)fd;
	return fails() ? -1 : 0;
}

int fdatasync(int fd)
{
	(void)fd;
	return fails() ? -1 : 0;
}

int ftruncate(int fd, off_t len)
{
	return fails() ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
	return fails() ? -1 : (int)syscall(SYS_mkdirat, dirfd, path, mode);
}

int renameat(int a, const char *from, int b, const char *to)
{
	return fails() ? -1 : (int)syscall(SYS_renameat2, a, from, b, to, 0);
}

int unlinkat(int dirfd, const char *path, int flags)
{
	return fails() ? -1 : (int)syscall(SYS_unlinkat, dirfd, path, flags);
}

/* ---- the workload ---- */

enum { LEN = 20000 };

struct place {
	char *dir;
	struct store *st;
	struct store_config cfg;
	bool evicts; /* the disk was full: what is not pinned may be gone */
	unsigned char a[LEN], b[LEN];
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	admission_fill(p->a, LEN, 1);
	admission_fill(p->b, LEN, 2);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

enum step { ADMIT, REPLACE, PUT, RECHECK, REFUSE, TICK, STEPS };
static const char *const keys[STEPS] = {
	[ADMIT] = "d/new.zip",	      [REPLACE] = "d/replaced.zip",
	[PUT] = "d/new.zip.CHECKSUM", [RECHECK] = "rechecked.zip",
	[REFUSE] = "q/refused.zip",
};

static int put_small(struct place *p, const char *key, const char *text)
{
	struct store_info info;

	admission_info(&info, "e", text, strlen(text));
	return store_put(p->st, key, &info, text, strlen(text));
}

static int recheck(struct place *p, const char *key, const unsigned char *buf)
{
	struct store_staging *sg;
	struct store_info info;
	int err;

	err = store_recheck(p->st, key, &sg);
	if (err)
		return err;
	admission_info(&info, "e", buf, LEN);
	err = admission_commit(sg, &info);
	store_staging_close(sg);
	return err;
}

static int refuse(struct place *p, const char *key)
{
	struct store_staging *sg;
	struct store_info info;
	int err;

	err = store_stage(p->st, key, &sg);
	if (err)
		return err;
	admission_info(&info, "e", p->a, LEN);
	info.verdict = VERDICT_DAMAGED;
	err = store_staging_begin(sg, "e", LEN, 1, 0);
	if (!err)
		err = store_staging_write(sg, p->a, LEN);
	if (!err)
		err = store_staging_quarantine(sg, &info, "test");
	store_staging_close(sg);
	return err;
}

static int run_step(struct place *p, enum step step)
{
	switch (step) {
	case ADMIT:
		return admission_admit(p->st, keys[step], "e", p->a, LEN);
	case REPLACE:
		return admission_admit(p->st, keys[step], "e2", p->b, LEN);
	case PUT:
		return put_small(p, keys[step], "text");
	case RECHECK:
		return recheck(p, keys[step], p->a);
	case REFUSE:
		return refuse(p, keys[step]);
	case TICK:
		store_tick(p->st, time(NULL));
		return 0;
	case STEPS:
		break;
	}
	return -EINVAL;
}

/* Pinned, so that it is not evicted when the disk is full. */
static void begin_with(struct place *p, const char *key)
{
	struct catalog *c = store_catalog(p->st);
	struct catalog_cached row;

	assert_int_equal(admission_admit(p->st, key, "e1", p->a, LEN), 0);
	assert_int_equal(catalog_cached_get(c, key, &row), 0);
	row.pinned = true;
	assert_int_equal(catalog_cached_put(c, key, &row), 0);
}

static void begin(struct place *p)
{
	pid_t holder;

	p->dir = scratch_create();
	p->cfg = (struct store_config){.dir = p->dir, .quota_bytes = 1 << 30};
	assert_int_equal(store_open(&p->st, &p->cfg, &holder), 0);
	begin_with(p, "kept.zip");
	begin_with(p, keys[REPLACE]);
	begin_with(p, keys[RECHECK]);
	assert_int_equal(admission_admit(p->st, "old.zip", "e", p->a, LEN), 0);
}

static void end(struct place *p)
{
	store_close(p->st);
	scratch_remove(p->dir);
}

/* 1 served with these bytes, 0 not there, -1 to be checked; else it fails. */
static int serves(struct place *p, const char *key, const void *buf, size_t len)
{
	struct store_object *o;
	bool same;
	int err;

	err = store_acquire(p->st, key, &o);
	if (err) {
		assert_true(err == -ENOENT || err == -EUCLEAN);
		return err == -ENOENT ? 0 : -1;
	}
	same = admission_same(o, buf, len);
	store_release(o);
	return same ? 1 : -2;
}

static void assert_nothing_lost(struct place *p, const int err[STEPS])
{
	int got;

	assert_int_equal(serves(p, "kept.zip", p->a, LEN), 1);
	got = serves(p, keys[ADMIT], p->a, LEN);
	assert_true(err[ADMIT] ? got >= -1 : got == 1 || (!got && p->evicts));
	got = serves(p, keys[PUT], "text", 4);
	assert_true(err[PUT] ? got >= -1 : got == 1 || (!got && p->evicts));
	got = serves(p, keys[RECHECK], p->a, LEN);
	assert_true(err[RECHECK] ? got >= -1 : got == 1);
	assert_int_not_equal(serves(p, keys[REFUSE], p->a, LEN), 1);
	/* One version or the other, whole. */
	got = serves(p, keys[REPLACE], p->b, LEN);
	if (err[REPLACE] && got == -2)
		got = serves(p, keys[REPLACE], p->a, LEN);
	assert_true(err[REPLACE] ? got == 1 || got == -1 : got == 1);
}

static void reopen(struct place *p)
{
	pid_t holder;

	store_close(p->st);
	assert_int_equal(store_open(&p->st, &p->cfg, &holder), 0);
}

/* True where the fault came to pass. */
static bool try(struct place *p, int err, bool for_good, unsigned int at)
{
	int got[STEPS], told = err == EDQUOT ? ENOSPC : err;
	bool struck;

	begin(p);
	fault.calls = 0;
	fault.struck = false;
	fault.at = at;
	fault.for_good = for_good;
	fault.err = err;
	for (int s = 0; s < STEPS; s++) {
		got[s] = run_step(p, (enum step)s);
		/* SQLite may lose which I/O error it was. */
		if (err == EDQUOT && got[s] == -EIO)
			continue;
		if (got[s] && got[s] != -told)
			fail_msg("step %d at call %u: %d, not %d", s, at,
				 got[s], -told);
	}
	fault.err = 0;
	struck = fault.struck;
	p->evicts = told == ENOSPC;
	assert_nothing_lost(p, got);
	reopen(p);
	assert_nothing_lost(p, got);
	/* It goes on as if nothing had been. */
	for (int s = 0; s < STEPS; s++) {
		if (s == RECHECK)
			assert_int_equal(admission_admit(p->st, keys[s], "e",
							 p->a, LEN),
					 0);
		else
			assert_int_equal(run_step(p, (enum step)s), 0);
		got[s] = 0;
	}
	p->evicts = false;
	assert_nothing_lost(p, got);
	end(p);
	return struck;
}

static void try_all(struct place *p, int err, bool for_good)
{
	unsigned int at = 1;

	while (try(p, err, for_good, at))
		at += every();
	/* Fewer would mean that the calls are not seen. */
	assert_in_range(at, 60, 1000);
}

static void test_store_faults__one_failure_loses_nothing(void **state)
{
	try_all(*state, EIO, false);
}

static void test_store_faults__a_disk_full_once_loses_nothing(void **state)
{
	try_all(*state, ENOSPC, false);
}

static void test_store_faults__a_full_disk_loses_nothing(void **state)
{
	try_all(*state, ENOSPC, true);
}

/* A quota of the file system on the user is a full disk: EDQUOT is another
 * thing to who reads the mount. */
static void test_store_faults__a_full_quota_is_a_full_disk(void **state)
{
	try_all(*state, EDQUOT, false);
	try_all(*state, EDQUOT, true);
}

static void test_store_faults__a_dead_disk_loses_nothing(void **state)
{
	try_all(*state, EIO, true);
}

/* Room on the disk itself: what is old goes, and the download goes on. */
static void test_store_faults__evicts_when_the_disk_is_full(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;
	struct store_stats stats;

	begin(p);
	assert_int_equal(store_stage(p->st, "new.zip", &sg), 0);
	assert_int_equal(store_staging_begin(sg, "e", LEN, 1, 0), 0);
	fault.calls = 0;
	fault.at = 1;
	fault.for_good = false;
	fault.err = ENOSPC;
	/* The half that was written stays half: the rest fails once. */
	assert_int_equal(store_staging_write(sg, p->a, 1), 0);
	fault.err = 0;
	assert_int_equal(store_staging_bytes(sg), 1);
	store_stats(p->st, &stats);
	assert_true(stats.evictions > 0);
	store_staging_close(sg);
	end(p);
}

/* The first call of it, if it makes one. */
static void sync_ahead_fails(struct store_staging *sg)
{
	fault.calls = 0;
	fault.at = 1;
	fault.for_good = false;
	fault.err = EIO;
	store_staging_sync_ahead(sg);
	fault.err = 0;
}

/* The staging of new.zip, all of whose bytes are there and failed to sync
 * ahead: the kernel tells that once, and may say yes the next time. */
static struct store_staging *failed_to_sync(struct place *p)
{
	struct store_staging *sg;

	assert_int_equal(store_stage(p->st, "new.zip", &sg), 0);
	assert_int_equal(store_staging_begin(sg, "e", LEN, 1, 0), 0);
	assert_int_equal(store_staging_write(sg, p->a, LEN), 0);
	sync_ahead_fails(sg);
	return sg;
}

static void
test_store_faults__a_failed_sync_ahead_fails_the_commit(void **state)
{
	struct place *p = *state;

	for (int commits = 0; commits < 2; commits++) {
		struct store_staging *sg;
		struct store_info info;

		begin(p);
		admission_info(&info, "e", p->a, LEN);
		sg = failed_to_sync(p);
		if (commits)
			assert_int_equal(admission_commit(sg, &info), -EIO);
		store_staging_close(sg);
		assert_int_equal(serves(p, "new.zip", p->a, LEN), 0);
		/* Nobody goes on from it: of what it is a part is not known. */
		assert_int_equal(store_stage(p->st, "new.zip", &sg), 0);
		assert_string_equal(store_staging_etag(sg), "");
		store_staging_close(sg);
		assert_int_equal(
			admission_admit(p->st, "new.zip", "e", p->a, LEN), 0);
		end(p);
	}
}

/* What comes in its place has nothing to do with it, in the same staging. */
static void test_store_faults__a_failed_sync_ahead_ends_with_its_bytes(void **s)
{
	struct place *p = *s;
	struct store_staging *sg;
	struct store_info info;

	begin(p);
	admission_info(&info, "e", p->a, LEN);
	sg = failed_to_sync(p);
	assert_int_equal(store_staging_discard(sg), 0);
	assert_int_equal(store_staging_begin(sg, "e", LEN, 1, 0), 0);
	assert_int_equal(store_staging_write(sg, p->a, LEN), 0);
	store_staging_sync_ahead(sg);
	assert_int_equal(admission_commit(sg, &info), 0);
	store_staging_close(sg);
	assert_int_equal(serves(p, "new.zip", p->a, LEN), 1);
	end(p);
}

/* What a recheck looks at is not lost by looking. */
static void test_store_faults__no_sync_ahead_of_a_cached_object(void **state)
{
	struct place *p = *state;
	struct store_staging *sg;

	begin(p);
	assert_int_equal(admission_admit(p->st, "new.zip", "e", p->a, LEN), 0);
	assert_int_equal(store_recheck(p->st, "new.zip", &sg), 0);
	sync_ahead_fails(sg);
	assert_int_equal(fault.calls, 0);
	assert_int_equal(store_staging_put_back(sg), 0);
	store_staging_close(sg);
	end(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_store_faults__one_failure_loses_nothing),
		TEST(test_store_faults__a_disk_full_once_loses_nothing),
		TEST(test_store_faults__a_full_disk_loses_nothing),
		TEST(test_store_faults__a_full_quota_is_a_full_disk),
		TEST(test_store_faults__a_dead_disk_loses_nothing),
		TEST(test_store_faults__evicts_when_the_disk_is_full),
		TEST(test_store_faults__a_failed_sync_ahead_fails_the_commit),
		TEST(test_store_faults__a_failed_sync_ahead_ends_with_its_bytes),
		TEST(test_store_faults__no_sync_ahead_of_a_cached_object),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The store after a loss of power: a workload is stopped at each of its syncs
 * in turn, what the disk would hold is put together in four ways, and a store
 * opened on it must have lost nothing that was committed, serve no wrong byte,
 * and go on with no partial download that is not what it says.
 *
 * Both the workload and the check are this program again, with arguments, so
 * that the shim can be preloaded into them. The workload notes in a file
 * outside the cache what it begins and what has returned.
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/store.h"
#include "tests/support/admission.h"
#include "tests/support/every.h"
#include "tests/support/powerloss.h"
#include "tests/support/scratch.h"

enum { LEN = 30000, SMALL_LEN = 90, VERSIONS = 3 };

static const char *const keys[] = {"a.zip",	"a.zip.CHECKSUM", "d/e/b.zip",
				   "d/e/c.zip", "d/f/g.zip",	  "q.zip",
				   "d/p.zip",	"r.zip"};
enum { A, A_CHECKSUM, B, C, G, Q, P, R, KEYS };

static const char *const etags[VERSIONS] = {"", "e1", "e2"};

static void *contents(unsigned int key, unsigned int version, size_t *len)
{
	unsigned char *buf = malloc(LEN);

	*len = key == A_CHECKSUM ? SMALL_LEN : LEN - 100 * version;
	admission_fill(buf, *len, 10 * key + version);
	return buf;
}

static void check(bool ok, const char *what, const char *key)
{
	if (ok)
		return;
	fprintf(stderr, "test_powerloss: %s: %s\n", key, what);
	exit(1);
}

/* ---- the workload ---- */

static struct {
	struct store *st;
	int notes;
} w;

/* '<' begun, '>' returned; version 0: no longer there. */
static void note(char what, unsigned int key, unsigned int version)
{
	char line[3] = {what, (char)('0' + key), (char)('0' + version)};

	check(write(w.notes, line, 3) == 3, "note", keys[key]);
}

static void open_it(const char *dir, uint64_t quota)
{
	struct store_config cfg = {.dir = dir, .quota_bytes = quota};
	pid_t holder;

	check(store_open(&w.st, &cfg, &holder) == 0, "open", dir);
}

static void admit(unsigned int key, unsigned int version)
{
	size_t len;
	void *buf = contents(key, version, &len);

	note('<', key, version);
	check(admission_admit(w.st, keys[key], etags[version], buf, len) == 0,
	      "admit", keys[key]);
	note('>', key, version);
	free(buf);
}

static void put(unsigned int key, unsigned int version)
{
	size_t len;
	void *buf = contents(key, version, &len);
	struct store_info info;

	admission_info(&info, "e1", buf, len);
	note('<', key, version);
	check(store_put(w.st, keys[key], &info, buf, len) == 0, "put",
	      keys[key]);
	note('>', key, version);
	free(buf);
}

static void recheck(unsigned int key, unsigned int version)
{
	size_t len;
	void *buf = contents(key, version, &len);
	struct store_staging *sg;
	struct store_info info;

	admission_info(&info, "e1", buf, len);
	note('<', key, version);
	/* Its bytes are in staging/ for a while. */
	note('<', key, 0);
	check(store_recheck(w.st, keys[key], &sg) == 0, "recheck", keys[key]);
	check(admission_commit(sg, &info) == 0, "commit", keys[key]);
	store_staging_close(sg);
	note('>', key, version);
	free(buf);
}

/* Of @version the bytes @from to @to, behind those that are staged. */
static void write_part(struct store_staging *sg, unsigned int key,
		       unsigned int version, size_t from, size_t to)
{
	struct store_info info;
	size_t len;
	unsigned char *buf = contents(key, version, &len);

	admission_info(&info, etags[version], buf, len);
	check(store_staging_begin(sg, info.etag, len, info.last_modified,
				  from) == 0 &&
		      store_staging_write(sg, buf + from,
					  (to ? to : len) - from) == 0,
	      "write a part", keys[key]);
	free(buf);
}

static void part(unsigned int key, unsigned int version, size_t from, size_t to)
{
	struct store_staging *sg;

	check(store_stage(w.st, keys[key], &sg) == 0, "stage", keys[key]);
	write_part(sg, key, version, from, to);
	store_staging_close(sg);
}

static void refuse(unsigned int key)
{
	size_t len;
	void *buf = contents(key, 1, &len);
	struct store_staging *sg;
	struct store_info info;

	admission_info(&info, "e1", buf, len);
	info.verdict = VERDICT_DAMAGED;
	check(store_stage(w.st, keys[key], &sg) == 0, "stage", keys[key]);
	check(store_staging_begin(sg, "e1", len, 1, 0) == 0 &&
		      store_staging_write(sg, buf, len) == 0,
	      "write", keys[key]);
	check(store_staging_quarantine(sg, &info, "test") == 0, "quarantine",
	      keys[key]);
	store_staging_close(sg);
	free(buf);
}

static void know(void)
{
	const struct catalog_entry e = {.name = "x.zip", .etag = "e"};
	const unsigned char sha256[32] = {1};

	check(catalog_listing_put(store_catalog(w.st), "data/", &e, 1, 1) == 0,
	      "listing", "data/");
	check(catalog_ledger_add(store_catalog(w.st), "run", "accepted", "k",
				 sha256, VERDICT_VERIFIED, 1) == 0,
	      "ledger", "k");
}

/* A download that is left, taken up, and left for another version; and one in
 * the place of a whole object, whose bytes are on the disk. */
static void leave_partials(void)
{
	struct store_staging *sg;

	part(P, 1, 0, 10000);
	part(P, 1, 10000, 20000);
	part(P, 2, 0, 15000);
	admit(R, 1);
	note('<', R, 0);
	check(store_recheck(w.st, keys[R], &sg) == 0, "recheck", keys[R]);
	write_part(sg, R, 2, 0, 15000);
	store_staging_close(sg);
}

/* Any of them may be evicted from here on. */
static void may_go(void)
{
	for (unsigned int key = 0; key < KEYS; key++)
		note('<', key, 0);
}

static int workload(const char *dir, const char *notes)
{
	struct store_stats stats;

	w.notes = open(notes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	open_it(dir, 1 << 30);
	admit(A, 1);
	put(A_CHECKSUM, 1);
	admit(B, 1);
	know();
	admit(A, 2);
	put(A_CHECKSUM, 2);
	recheck(B, 1);
	leave_partials();
	refuse(Q);
	store_tick(w.st, time(NULL));
	admit(Q, 2);
	store_close(w.st);

	/* No room but for one more: who was used longest ago goes. */
	open_it(dir, 1 << 30);
	store_tick(w.st, time(NULL));
	store_stats(w.st, &stats);
	store_close(w.st);
	open_it(dir, stats.used_bytes);
	may_go();
	admit(C, 1);
	know();
	may_go();
	admit(G, 1);
	/* Left as after a crash: no close. */
	return 0;
}

/* ---- the check ---- */

struct expected {
	bool may_be[VERSIONS]; /* [0]: absent */
};

static void read_notes(const char *path, struct expected e[KEYS])
{
	size_t len;
	char *notes = scratch_read(path, &len);

	for (unsigned int key = 0; key < KEYS; key++)
		e[key] = (struct expected){.may_be = {true}};
	for (size_t i = 0; notes && i + 3 <= len; i += 3) {
		struct expected *k = &e[notes[i + 1] - '0'];
		unsigned int version = (unsigned int)(notes[i + 2] - '0');

		if (notes[i] == '>')
			memset(k, 0, sizeof(*k));
		k->may_be[version] = true;
	}
	free(notes);
}

/* Which version these bytes are, whole; 0 if none. */
static unsigned int version_of(unsigned int key, struct store_object *o)
{
	unsigned int found = 0;
	size_t len;

	for (unsigned int v = 1; v < VERSIONS; v++) {
		void *buf = contents(key, v, &len);

		if (admission_same(o, buf, len))
			found = v;
		free(buf);
	}
	return found;
}

/* As the daemon would: hold it against what was published, and admit it. */
static void adopt(struct store *st, unsigned int key)
{
	struct store_staging *sg;
	struct store_info info;
	char *staged;
	size_t len;
	int err;

	err = store_recheck(st, keys[key], &sg);
	check(err == 0, "recheck", keys[key]);
	len = (size_t)store_staging_bytes(sg);
	staged = malloc(len + 1);
	check(pread(store_staging_fd(sg), staged, len, 0) == (ssize_t)len,
	      "read", keys[key]);
	err = -EBADMSG;
	for (unsigned int v = 1; v < VERSIONS && err; v++) {
		size_t want;
		void *buf = contents(key, v, &want);

		if (len == want && memcmp(buf, staged, len) == 0) {
			admission_info(&info, etags[v], buf, len);
			err = admission_commit(sg, &info);
			check(err == 0, "adopt", keys[key]);
		}
		free(buf);
	}
	free(staged);
	if (err)
		store_staging_discard(sg);
	store_staging_close(sg);
}

static void check_key(struct store *st, unsigned int key,
		      const struct expected *e)
{
	struct store_object *o;
	unsigned int v = 0;
	int err;

	err = store_acquire(st, keys[key], &o);
	if (err == -EUCLEAN) {
		adopt(st, key);
		err = store_acquire(st, keys[key], &o);
	}
	check(err == 0 || err == -ENOENT, "acquire", keys[key]);
	if (!err) {
		v = version_of(key, o);
		check(v != 0, "wrong bytes", keys[key]);
		store_release(o);
	}
	check(e->may_be[v], v ? "an older version" : "lost", keys[key]);
}

static unsigned int version_named(const char *etag)
{
	unsigned int v = VERSIONS - 1;

	while (v > 0 && strcmp(etags[v], etag) != 0)
		v--;
	return v;
}

/*
 * What is staged is of the version that it says it is, or of none; so to go on
 * with that version from there gives the whole of it.
 */
static void check_partial(struct store *st, unsigned int key)
{
	struct store_staging *sg;
	struct store_object *o;
	struct store_info info;
	unsigned char *buf, staged[LEN];
	unsigned int v;
	size_t len, n;

	check(store_stage(st, keys[key], &sg) == 0, "stage", keys[key]);
	v = version_named(store_staging_etag(sg));
	n = v ? (size_t)store_staging_bytes(sg) : 0;
	check(v || !*store_staging_etag(sg), "of no version", keys[key]);
	v = v ? v : 2;
	buf = contents(key, v, &len);
	check(n <= len &&
		      pread(store_staging_fd(sg), staged, n, 0) == (ssize_t)n &&
		      memcmp(staged, buf, n) == 0,
	      "a partial of another version", keys[key]);
	write_part(sg, key, v, n, 0);
	admission_info(&info, etags[v], buf, len);
	check(admission_commit(sg, &info) == 0, "commit", keys[key]);
	store_staging_close(sg);
	check(store_acquire(st, keys[key], &o) == 0, "acquire", keys[key]);
	check(version_of(key, o) == v, "wrong bytes", keys[key]);
	store_release(o);
	free(buf);
}

static void on_event(void *arg, const struct store_event *ev)
{
	(void)arg;
	check(ev->type != STORE_EVENT_DAMAGED &&
		      ev->type != STORE_EVENT_DISK_ERROR,
	      ev->detail, ev->key ? ev->key : "catalog");
}

static void check_left(const char *dir, const char *notes)
{
	struct store_config cfg = {
		.dir = dir,
		.quota_bytes = 1 << 30,
		.on_event = on_event,
	};
	struct expected e[KEYS];
	struct store *st;
	pid_t holder;

	read_notes(notes, e);
	check(store_open(&st, &cfg, &holder) == 0, "open", dir);
	for (unsigned int key = 0; key < KEYS; key++)
		check_key(st, key, &e[key]);
	check_partial(st, P);
	check_partial(st, R);
	for (int i = 0; i < 5; i++)
		store_tick(st, time(NULL));
	store_close(st);
}

/* ---- at each sync ---- */

enum { WAYS = 4 };

static char self[4096];

static bool lose_power(unsigned int stop)
{
	static const int ways[WAYS] = {
		0, POWERLOSS_KEEP_NAMES, POWERLOSS_KEEP_BYTES,
		POWERLOSS_KEEP_NAMES | POWERLOSS_KEEP_BYTES};
	char *dir = scratch_create();
	char *root = scratch_path(dir, "cache");
	char *state = scratch_path(dir, "state");
	char *notes = scratch_path(dir, "notes");
	char *left[WAYS];
	char *work[] = {self, (char *)"workload", root, notes, NULL};
	char *check_them[3 + WAYS + 1] = {self, (char *)"check", notes};
	bool stopped;

	assert_int_equal(mkdir(root, 0700), 0);
	assert_int_equal(mkdir(state, 0700), 0);
	stopped = powerloss_run(root, state, stop, work);
	for (size_t i = 0; i < WAYS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "left-%zu", i);
		left[i] = check_them[3 + i] = scratch_path(dir, name);
		powerloss_materialise(root, state, left[i], ways[i]);
	}
	/* In one process: under a sanitizer each takes a while to begin. */
	powerloss_run(dir, NULL, 0, check_them);
	for (size_t i = 0; i < WAYS; i++)
		free(left[i]);
	free(notes);
	free(state);
	free(root);
	scratch_remove(dir);
	return stopped;
}

static void test_powerloss__nothing_committed_is_lost(void **state)
{
	unsigned int stop = 1;

	(void)state;
	while (lose_power(stop))
		stop += every();
	print_message("           stopped at every %u. of %u syncs\n", every(),
		      stop - 1);
	/* Fewer would mean that the shim does not see them. */
	assert_true(stop > 50);
}

/* ---- the shim itself ---- */

static void write_at(int dirfd, const char *name, const char *text, bool sync)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	check(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write",
	      name);
	check(!sync || fdatasync(fd) == 0, "sync", name);
	close(fd);
}

static int sync_some(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), sub;

	write_at(fd, "whole", "bytes", true);
	write_at(fd, "no-bytes", "bytes", false);
	write_at(fd, "moved", "bytes", true);
	mkdirat(fd, "sub", 0700);
	sub = openat(fd, "sub", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	write_at(sub, "in-sub", "bytes", true);
	fsync(fd);
	write_at(fd, "whole", "later", false);
	write_at(fd, "no-name", "bytes", true);
	renameat(fd, "moved", fd, "elsewhere");
	unlinkat(fd, "no-bytes", 0);
	fsync(sub);
	/* The next one is the one at which the power goes. */
	fsync(fd);
	return 0;
}

static void assert_file(const char *dir, const char *name, const char *want)
{
	char *path = scratch_path(dir, name);
	size_t len;
	char *text = scratch_read(path, &len);

	if (want)
		assert_string_equal(text, want);
	else
		assert_null(text);
	free(text);
	free(path);
}

static void test_powerloss__shim_loses_what_is_not_synced(void **state)
{
	char *dir = scratch_create();
	char *root = scratch_path(dir, "root");
	char *kept = scratch_path(dir, "state");
	char *left = scratch_path(dir, "left");
	char *argv[] = {self, (char *)"shim", root, (char *)"", NULL};

	(void)state;
	assert_int_equal(mkdir(root, 0700), 0);
	assert_int_equal(mkdir(kept, 0700), 0);
	assert_true(powerloss_run(root, kept, 7, argv));
	powerloss_materialise(root, kept, left, 0);
	assert_file(left, "whole", "bytes");
	assert_file(left, "no-bytes", "");
	assert_file(left, "moved", "bytes");
	assert_file(left, "elsewhere", NULL);
	assert_file(left, "no-name", NULL);
	assert_file(left, "sub/in-sub", "bytes");
	scratch_remove(strdup(left));

	powerloss_materialise(root, kept, left, POWERLOSS_KEEP_NAMES);
	assert_file(left, "whole", "bytes");
	assert_file(left, "no-bytes", NULL);
	assert_file(left, "moved", NULL);
	assert_file(left, "elsewhere", "bytes");
	assert_file(left, "no-name", "bytes");
	scratch_remove(strdup(left));

	powerloss_materialise(root, kept, left, POWERLOSS_KEEP_BYTES);
	assert_file(left, "whole", "later");
	assert_file(left, "no-bytes", "");
	assert_file(left, "moved", "bytes");
	assert_file(left, "no-name", NULL);
	free(left);
	free(kept);
	free(root);
	scratch_remove(dir);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_powerloss__shim_loses_what_is_not_synced),
		cmocka_unit_test(test_powerloss__nothing_committed_is_lost),
	};

	if (argc == 4 && strcmp(argv[1], "workload") == 0)
		return workload(argv[2], argv[3]);
	if (argc == 3 + WAYS && strcmp(argv[1], "check") == 0) {
		for (int i = 3; i < argc; i++)
			check_left(argv[i], argv[2]);
		return 0;
	}
	if (argc == 4 && strcmp(argv[1], "shim") == 0)
		return sync_some(argv[2]);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

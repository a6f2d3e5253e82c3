/*
 * probe - read files in a given pattern and tell how long each read took.
 *
 *	probe drop FILE...
 *	probe forward|backward BLOCK FILE
 *	probe strided BLOCK STEP FILE
 *	probe interleaved BLOCK FILE
 *	probe threads BLOCK COUNT FILE
 *	probe random COUNT SEED FILE...
 *	probe burn FILE
 *	probe opens DIR		names from standard input
 *	probe xattrs DIR NAME ROUNDS	the same
 *
 * drop takes the pages of files from the cache and prints how many stayed.
 * burn reads a file again and again, dropping its pages, until it is killed.
 * opens does openat, fstat past the kernel's cache and close of each name,
 * xattrs opens all and then does one fgetxattr of each, ROUNDS times, so that
 * no other request is in the way; both print nanoseconds, a line a call. The
 * others print "READER OFFSET LENGTH NANOSECONDS" of each read; several files
 * are read by a thread each.
 *
 * FILE may be FILE=PLAIN: then what is read is compared with PLAIN.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { RANDOM_BLOCK = 4096, BURN_BLOCK = 1 << 20, FILES_MAX = 1000 };

struct target {
	int fd, plain; /* plain -1: nothing to compare with */
	uint64_t size;
};

/* A thread that reads from some handles in turn, all of one file. */
struct reader {
	unsigned int number;
	struct target handles[2];
	unsigned int handle_count;
	size_t block, count;
	uint64_t *off;
	uint64_t *took_ns;
	pthread_t thread;
};

static void __attribute__((format(printf, 1, 2), noreturn))
die(const char *format, ...)
{
	va_list ap;

	fputs("probe: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void *room(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size);

	if (!p)
		die("no memory");
	return p;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	if (end == text || *end)
		die("not a number: %s", text);
	return n;
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static struct target target_open(const char *argument)
{
	char *path = strdup(argument);
	char *plain = path ? strchr(path, '=') : NULL;
	struct target t = {.plain = -1};
	struct stat st;

	if (!path)
		die("no memory");
	if (plain) {
		*plain++ = '\0';
		t.plain = open_file(plain);
	}
	t.fd = open_file(path);
	if (fstat(t.fd, &st))
		die("%s: %s", path, strerror(errno));
	t.size = (uint64_t)st.st_size;
	if (plain && (fstat(t.plain, &st) || (uint64_t)st.st_size != t.size))
		die("%s: not the size of %s", path, plain);
	free(path);
	return t;
}

/* ---- reading ---- */

static void compare(const struct target *t, const char *got, size_t len,
		    uint64_t off, char *buf)
{
	if (pread(t->plain, buf, len, (off_t)off) != (ssize_t)len)
		die("the plain file ends before %" PRIu64, off + len);
	if (memcmp(got, buf, len) != 0)
		die("other bytes at %" PRIu64 " + %zu", off, len);
}

static void *reader_run(void *arg)
{
	struct reader *r = arg;
	char *buf = room(2, r->block);

	for (size_t i = 0; i < r->count; i++) {
		const struct target *t = &r->handles[i % r->handle_count];
		uint64_t left = t->size - r->off[i], begin = now_ns();
		size_t want = left < r->block ? (size_t)left : r->block;
		ssize_t n = pread(t->fd, buf, want, (off_t)r->off[i]);

		r->took_ns[i] = now_ns() - begin;
		if (n < 0)
			die("read at %" PRIu64 ": %s", r->off[i],
			    strerror(errno));
		if ((size_t)n != want)
			die("read at %" PRIu64 ": %zd bytes of %zu", r->off[i],
			    n, want);
		if (t->plain >= 0)
			compare(t, buf, want, r->off[i], buf + r->block);
	}
	free(buf);
	return NULL;
}

static void reader_init(struct reader *r, unsigned int n, const char *file,
			size_t block, size_t count)
{
	*r = (struct reader){.number = n, .block = block, .count = count};
	r->handles[0] = target_open(file);
	r->handle_count = 1;
	r->off = room(count, sizeof(*r->off));
	r->took_ns = room(count, sizeof(*r->took_ns));
	if (!r->handles[0].size || !block)
		die("%s: nothing to read", file);
}

static void readers_run(struct reader *readers, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (pthread_create(&readers[i].thread, NULL, reader_run,
				   &readers[i]))
			die("no thread");
	for (size_t i = 0; i < n; i++)
		pthread_join(readers[i].thread, NULL);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < readers[i].count; k++) {
			const struct reader *r = &readers[i];
			uint64_t left = r->handles[0].size - r->off[k];

			printf("%u %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
			       r->number, r->off[k],
			       left < r->block ? left : (uint64_t)r->block,
			       r->took_ns[k]);
		}
}

/* ---- patterns ---- */

static size_t blocks_of(const char *file, size_t block)
{
	struct target t = target_open(file);
	size_t n = block ? (size_t)((t.size + block - 1) / block) : 0;

	close(t.fd);
	if (t.plain >= 0)
		close(t.plain);
	return n;
}

/* From block @first on, every @step bytes, or backward from the last block. */
static void straight(const char *file, size_t block, uint64_t step,
		     bool backward)
{
	struct reader r;
	size_t n = blocks_of(file, (size_t)step);

	reader_init(&r, 0, file, block, n);
	for (size_t i = 0; i < n; i++)
		r.off[i] = (backward ? n - 1 - i : i) * step;
	readers_run(&r, 1);
}

/* Two handles, one in each half, a block each in turn. */
static void interleaved(const char *file, size_t block)
{
	struct reader r;
	size_t half = blocks_of(file, block) / 2;

	reader_init(&r, 0, file, block, 2 * half);
	r.handles[1] = target_open(file);
	r.handle_count = 2;
	for (size_t i = 0; i < half; i++) {
		r.off[2 * i] = (uint64_t)i * block;
		r.off[2 * i + 1] = (uint64_t)(half + i) * block;
	}
	readers_run(&r, 1);
}

/* Each thread has a part of the file, and a handle. */
static void threads(const char *file, size_t block, size_t count)
{
	struct reader *readers = room(count, sizeof(*readers));
	size_t n = blocks_of(file, block);

	for (size_t i = 0; i < count; i++) {
		size_t first = n * i / count, end = n * (i + 1) / count;

		reader_init(&readers[i], (unsigned int)i, file, block,
			    end - first);
		for (size_t k = first; k < end; k++)
			readers[i].off[k - first] = (uint64_t)k * block;
	}
	readers_run(readers, count);
	free(readers);
}

static uint64_t draw(uint64_t *state, uint64_t below)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * UINT64_C(0x2545f4914f6cdd1d) >> 16) % below;
}

static void random_reads(char **files, size_t file_count, size_t count,
			 uint64_t seed)
{
	struct reader *readers = room(file_count, sizeof(*readers));
	uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i < file_count; i++) {
		struct reader *r = &readers[i];

		reader_init(r, (unsigned int)i, files[i], RANDOM_BLOCK, count);
		for (size_t k = 0; k < count; k++)
			r->off[k] = draw(&state,
					 (r->handles[0].size + RANDOM_BLOCK -
					  1) / RANDOM_BLOCK) *
				    RANDOM_BLOCK;
	}
	readers_run(readers, file_count);
	free(readers);
}

/* ---- pages ---- */

static void drop(int fd)
{
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		die("can't drop pages");
}

static size_t resident(int fd, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t pages = (size + page - 1) / page, n = 0;
	unsigned char *in = room(pages, 1);
	void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED || mincore(map, size, in))
		die("can't look for pages: %s", strerror(errno));
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	munmap(map, size);
	free(in);
	return n;
}

static void drop_files(char **files)
{
	size_t n = 0;

	for (; *files; files++) {
		struct target t = target_open(*files);

		drop(t.fd);
		n += t.size ? resident(t.fd, (size_t)t.size) : 0;
		close(t.fd);
	}
	printf("%zu\n", n);
}

static void burn(const char *file)
{
	int fd = open_file(file);
	char *buf = room(1, BURN_BLOCK);
	ssize_t n;

	for (;;) {
		drop(fd);
		if (lseek(fd, 0, SEEK_SET) < 0)
			die("%s: %s", file, strerror(errno));
		while ((n = read(fd, buf, BURN_BLOCK)) > 0)
			;
		if (n < 0)
			die("%s: %s", file, strerror(errno));
	}
}

/* ---- small requests ---- */

static uint64_t time_open(int dirfd, const char *name)
{
	uint64_t begin = now_ns();
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	struct statx stx;

	/* Or the kernel would answer from what the look-up told. */
	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC,
			    STATX_BASIC_STATS, &stx))
		die("%s: %s", name, strerror(errno));
	close(fd);
	return now_ns() - begin;
}

static uint64_t time_xattr(int fd, const char *attribute)
{
	char value[256];
	uint64_t begin = now_ns();

	if (fgetxattr(fd, attribute, value, sizeof(value)) < 0)
		die("%s: %s", attribute, strerror(errno));
	return now_ns() - begin;
}

static int open_folder(const char *dir)
{
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dirfd < 0)
		die("%s: %s", dir, strerror(errno));
	return dirfd;
}

/* The next name of standard input, to be freed; NULL at its end. */
static char *next_name(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len = getline(&line, &size, stdin);

	if (len <= 0) {
		free(line);
		return NULL;
	}
	line[strcspn(line, "\n")] = '\0';
	return line;
}

static void opens(const char *dir)
{
	int dirfd = open_folder(dir);
	char *name;

	while ((name = next_name())) {
		printf("%" PRIu64 "\n", time_open(dirfd, name));
		free(name);
	}
	close(dirfd);
}

static void xattrs(const char *dir, const char *attribute, uint64_t rounds)
{
	int dirfd = open_folder(dir), fds[FILES_MAX];
	size_t n = 0;
	char *name;

	for (; (name = next_name()); n++) {
		if (n == FILES_MAX)
			die("more than %d files", FILES_MAX);
		fds[n] = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
		if (fds[n] < 0)
			die("%s: %s", name, strerror(errno));
		free(name);
	}
	for (uint64_t i = 0; i < rounds * n; i++)
		printf("%" PRIu64 "\n", time_xattr(fds[i % n], attribute));
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	close(dirfd);
}

static bool is(char **argv, int argc, const char *what, int at_least)
{
	return argc >= 2 + at_least && strcmp(argv[1], what) == 0;
}

int main(int argc, char **argv)
{
	if (is(argv, argc, "drop", 1))
		drop_files(argv + 2);
	else if (is(argv, argc, "forward", 2))
		straight(argv[3], number(argv[2]), number(argv[2]), false);
	else if (is(argv, argc, "backward", 2))
		straight(argv[3], number(argv[2]), number(argv[2]), true);
	else if (is(argv, argc, "strided", 3))
		straight(argv[4], number(argv[2]), number(argv[3]), false);
	else if (is(argv, argc, "interleaved", 2))
		interleaved(argv[3], number(argv[2]));
	else if (is(argv, argc, "threads", 3))
		threads(argv[4], number(argv[2]), number(argv[3]));
	else if (is(argv, argc, "random", 3))
		random_reads(argv + 4, (size_t)argc - 4, number(argv[2]),
			     number(argv[3]));
	else if (is(argv, argc, "burn", 1))
		burn(argv[2]);
	else if (is(argv, argc, "opens", 1))
		opens(argv[2]);
	else if (is(argv, argc, "xattrs", 3))
		xattrs(argv[2], argv[3], number(argv[4]));
	else
		die("see the comment at the top of tests/bench/probe.c");
	return fflush(stdout) ? 1 : 0;
}

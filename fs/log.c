/*
 * log - one line is built by cJSON outside of any lock, then under the lock
 * kept in the ring and written with one write(2).
 *
 * The ring is one buffer of bytes that begins at `head` and wraps around; it
 * always holds whole lines. Who reads our lines must not be able to stop the
 * mount: what a pipe, a socket or a terminal can't take at once is left out,
 * and counted.
 */
#include "fs/log.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/utf8.h"

enum {
	VALUE_MAX = 1024, /* bytes kept of a string: an S3 key fits */
	RUN_ID_MAX = 64,
	LEVEL_NONE = LOG_LEVEL_ERROR + 1,
};

static const char *const level_names[] = {
	[LOG_LEVEL_DEBUG] = "debug",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_ERROR] = "error",
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int least_level = LEVEL_NONE;
static atomic_uint_fast64_t dropped;

/* protected by lock */
static struct {
	int fd;
	bool fd_is_file;
	bool torn; /* a disk that filled up took only part of the last line */
	char run_id[RUN_ID_MAX + 1];
	char *ring;
	size_t room, head, used;
} out = {.fd = -1};

/* ---- the ring ---- */

static size_t first_line_len_locked(void)
{
	size_t to_end = out.room - out.head;
	size_t first = out.used < to_end ? out.used : to_end;
	const char *start = out.ring + out.head;
	const char *newline = memchr(start, '\n', first);

	if (newline)
		return (size_t)(newline - start) + 1;
	newline = memchr(out.ring, '\n', out.used - first);
	return newline ? first + (size_t)(newline - out.ring) + 1 : out.used;
}

static void ring_add_locked(const char *line, size_t len)
{
	size_t tail, first;

	if (len > out.room)
		return;
	while (out.room - out.used < len) {
		size_t oldest = first_line_len_locked();

		out.head = (out.head + oldest) % out.room;
		out.used -= oldest;
	}
	tail = (out.head + out.used) % out.room;
	first = len < out.room - tail ? len : out.room - tail;
	memcpy(out.ring + tail, line, first);
	memcpy(out.ring, line + first, len - first);
	out.used += len;
}

int log_copy(char **copy, size_t *len)
{
	char *to;
	size_t first;

	pthread_mutex_lock(&lock);
	to = malloc(out.used + 1);
	if (!to) {
		pthread_mutex_unlock(&lock);
		return -ENOMEM;
	}
	first = out.room - out.head;
	if (first > out.used)
		first = out.used;
	if (out.used) {
		memcpy(to, out.ring + out.head, first);
		memcpy(to + first, out.ring, out.used - first);
	}
	to[out.used] = '\0';
	*copy = to;
	*len = out.used;
	pthread_mutex_unlock(&lock);
	return 0;
}

/* ---- the descriptor ---- */

/* POLLOUT of a pipe promises room for PIPE_BUF bytes, that of a socket more. */
static bool can_take_locked(size_t len)
{
	struct pollfd p = {.fd = out.fd, .events = POLLOUT};

	if (out.fd_is_file)
		return true;
	return len <= PIPE_BUF && poll(&p, 1, 0) == 1 && p.revents == POLLOUT;
}

/*
 * write(2) with the SIGPIPE of a reader that went away taken back, so that no
 * state of the process is needed for a log line to be harmless.
 */
static ssize_t write_without_sigpipe(int fd, const char *line, size_t len)
{
	const struct timespec at_once = {0};
	sigset_t pipe_only, pending, before;
	bool was_pending;
	ssize_t n;

	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	sigpending(&pending);
	was_pending = sigismember(&pending, SIGPIPE) == 1;
	pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
	do {
		n = write(fd, line, len);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EPIPE && !was_pending)
		sigtimedwait(&pipe_only, NULL, &at_once);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return n;
}

static bool write_locked(const char *line, size_t len)
{
	ssize_t n;

	if (!can_take_locked(len))
		return false;
	if (out.torn && write_without_sigpipe(out.fd, "\n", 1) != 1)
		return false;
	n = write_without_sigpipe(out.fd, line, len);
	out.torn = n > 0 && n < (ssize_t)len;
	return n == (ssize_t)len;
}

static void emit(const char *line, size_t len)
{
	pthread_mutex_lock(&lock);
	ring_add_locked(line, len);
	if (out.fd >= 0 && !write_locked(line, len))
		atomic_fetch_add(&dropped, 1);
	pthread_mutex_unlock(&lock);
}

/* ---- one line ---- */

/* At most VALUE_MAX bytes of @s, whole characters, what is no UTF-8 replaced
 * byte by byte (Unicode, U+FFFD substitution). The caller frees it. */
static char *clean(const char *s)
{
	static const char replacement[] = "\xef\xbf\xbd";
	size_t len = strlen(s), used = 0, n;
	char *to = malloc(VALUE_MAX + sizeof(replacement));

	if (!to)
		return NULL;
	for (; len > 0; s += n, len -= n) {
		size_t good = utf8_char(s, len);
		const char *from = good ? s : replacement;
		size_t size = good ? good : sizeof(replacement) - 1;

		if (used + size > VALUE_MAX)
			break;
		memcpy(to + used, from, size);
		used += size;
		n = good ? good : 1;
	}
	to[used] = '\0';
	return to;
}

static bool add_text(cJSON *object, const char *name, const char *value)
{
	char *text = clean(value);
	bool ok = text && cJSON_AddStringToObject(object, name, text);

	free(text);
	return ok;
}

/* cJSON keeps numbers as double, which would round above 2^53. */
static bool add_u64(cJSON *object, const char *name, uint64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%" PRIu64, value);
	return cJSON_AddRawToObject(object, name, digits) != NULL;
}

static bool add_field(cJSON *context, const struct log_field *f)
{
	switch (f->type) {
	case LOG_FIELD_STR:
		return add_text(context, f->name, f->str);
	case LOG_FIELD_U64:
		return add_u64(context, f->name, f->u64);
	case LOG_FIELD_DOUBLE:
		if (!isfinite(f->num)) /* JSON has no such numbers */
			return cJSON_AddNullToObject(context, f->name) != NULL;
		return cJSON_AddNumberToObject(context, f->name, f->num) !=
		       NULL;
	}
	return false;
}

static bool add_time(cJSON *object)
{
	char seconds[32], text[48];
	struct timespec now;
	struct tm utc;

	clock_gettime(CLOCK_REALTIME, &now);
	if (!gmtime_r(&now.tv_sec, &utc) ||
	    !strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &utc))
		return false;
	snprintf(text, sizeof(text), "%s.%03dZ", seconds,
		 (int)(now.tv_nsec / 1000000));
	return cJSON_AddStringToObject(object, "timestamp", text) != NULL;
}

static bool add_run_id(cJSON *object)
{
	char run_id[RUN_ID_MAX + 1];

	pthread_mutex_lock(&lock);
	memcpy(run_id, out.run_id, sizeof(run_id));
	pthread_mutex_unlock(&lock);
	return add_text(object, "run_id", run_id);
}

static bool fill(cJSON *object, enum log_level level, const char *component,
		 const char *message, va_list *fields)
{
	cJSON *context;

	if (!object || !add_time(object) ||
	    !add_text(object, "level", level_names[level]) ||
	    !add_text(object, "message", message) ||
	    !add_text(object, "component", component))
		return false;
	context = cJSON_AddObjectToObject(object, "context");
	if (!context)
		return false;
	for (;;) {
		struct log_field f = va_arg(*fields, struct log_field);

		if (!f.name)
			break;
		if (!add_field(context, &f))
			return false;
	}
	return add_run_id(object);
}

void log_event(enum log_level level, const char *component, const char *message,
	       ...)
{
	cJSON *object;
	char *line = NULL;
	va_list fields;

	if (!log_enabled(level))
		return;
	object = cJSON_CreateObject();
	va_start(fields, message);
	if (fill(object, level, component, message, &fields))
		line = cJSON_PrintUnformatted(object);
	va_end(fields);
	cJSON_Delete(object);
	if (line) {
		size_t len = strlen(line);

		line[len] = '\n'; /* in the place of the NUL */
		emit(line, len + 1);
	} else {
		atomic_fetch_add(&dropped, 1);
	}
	cJSON_free(line);
}

/* ---- start and stop ---- */

int log_start(int fd, enum log_level least, const char *run_id,
	      size_t ring_bytes)
{
	struct stat st;
	int err = 0;

	pthread_mutex_lock(&lock);
	if (!out.ring && ring_bytes) {
		out.ring = malloc(ring_bytes);
		if (!out.ring) {
			err = -ENOMEM;
			goto unlock;
		}
		out.room = ring_bytes;
	}
	out.fd = fd;
	out.torn = false;
	out.fd_is_file = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	snprintf(out.run_id, sizeof(out.run_id), "%s", run_id);
	atomic_store(&least_level, (int)least);
unlock:
	pthread_mutex_unlock(&lock);
	return err;
}

void log_stop(void)
{
	pthread_mutex_lock(&lock);
	atomic_store(&least_level, LEVEL_NONE);
	free(out.ring);
	out.ring = NULL;
	out.room = out.head = out.used = 0;
	out.fd = -1;
	pthread_mutex_unlock(&lock);
}

bool log_enabled(enum log_level level)
{
	return (int)level >= atomic_load(&least_level);
}

uint64_t log_dropped(void)
{
	return atomic_load(&dropped);
}

bool log_level_parse(const char *s, enum log_level *level)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]);
	     i++) {
		if (strcmp(s, level_names[i]) == 0) {
			*level = (enum log_level)i;
			return true;
		}
	}
	return false;
}

/*
 * log - JSON lines (design section 6): one object a line with timestamp, level,
 * message, component, context and run_id. Lines go to a file descriptor and the
 * last ones are kept in memory for .tickfs/log.jsonl.
 *
 *	log_event(LOG_LEVEL_INFO, "downloader", "download_completed",
 *		  log_str("key", key), log_u64("bytes", n), LOG_END);
 */
#ifndef FS_LOG_H
#define FS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_INFO,
	LOG_LEVEL_WARN,
	LOG_LEVEL_ERROR,
};

/* One field of the context; made by the functions below. */
struct log_field {
	const char *name; /* NULL: the end */
	enum { LOG_FIELD_STR, LOG_FIELD_U64, LOG_FIELD_DOUBLE } type;
	const char *str;
	uint64_t u64;
	double num;
};

static inline struct log_field log_str(const char *name, const char *value)
{
	return (struct log_field){
		.name = name, .type = LOG_FIELD_STR, .str = value ? value : ""};
}

static inline struct log_field log_u64(const char *name, uint64_t value)
{
	return (struct log_field){
		.name = name, .type = LOG_FIELD_U64, .u64 = value};
}

static inline struct log_field log_num(const char *name, double value)
{
	return (struct log_field){
		.name = name, .type = LOG_FIELD_DOUBLE, .num = value};
}

#define LOG_END ((struct log_field){0})

/*
 * log_start() - where lines go from now on.
 * @fd: kept open by the caller until log_stop() or another log_start(); -1: to
 * memory only. @ring_bytes: how much of the newest whole lines is kept. Bytes
 * that are not UTF-8 in a value are replaced and values are cut after 1024
 * bytes, so that every line is valid JSON of bounded length. Thread-safe from
 * here on. Calling it again changes fd, level and run_id and keeps the ring and
 * its size.
 *
 * A line goes out in one write(2), and no line ever waits for its reader: what
 * a pipe, socket or terminal can't take at once, and what a full disk or a
 * reader that went away refuses, is left out of @fd and counted in
 * log_dropped(). SIGPIPE is never raised.
 *
 * Returns 0 or -ENOMEM (nothing has changed then).
 */
int log_start(int fd, enum log_level least, const char *run_id,
	      size_t ring_bytes);
void log_stop(void);

/* The fields end with LOG_END. Never fails and never waits for memory: a line
 * that can't be built is counted in log_dropped(). Does nothing before
 * log_start() and after log_stop(). */
void log_event(enum log_level level, const char *component, const char *message,
	       ...);
bool log_enabled(enum log_level level);
uint64_t log_dropped(void);

/* A copy of the ring, whole lines, oldest first, and a NUL beyond *len; the
 * caller frees it. Returns 0 or -ENOMEM. */
int log_copy(char **out, size_t *len);

/* "debug" "info" "warn" "error" to a level; false if none of them. */
bool log_level_parse(const char *s, enum log_level *out);

#endif

/* Expected lines: the example of the design, RFC 3339, RFC 8259, and the
 * substitution of U+FFFD (ef bf bd) for bytes that are not UTF-8. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/cmocka_all.h"

#include "fs/log.h"

enum { RING = 1 << 16 };

static int stop(void **state)
{
	(void)state;
	log_stop();
	return 0;
}

/* What the ring holds; freed by the caller. */
static char *ring(void)
{
	char *text;
	size_t len;

	assert_int_equal(log_copy(&text, &len), 0);
	assert_int_equal(strlen(text), len);
	return text;
}

/* The part of @line that begins with its level; the time before it is checked
 * for its form: 2025-10-30T16:27:14.123Z. */
static const char *after_time(const char *line)
{
	static const char form[] =
		"{\"timestamp\":\"0000-00-00T00:00:00.000Z\",";

	for (size_t i = 0; form[i]; i++) {
		if (form[i] == '0')
			assert_in_range(line[i], '0', '9');
		else
			assert_int_equal(line[i], form[i]);
	}
	return line + strlen(form);
}

static void test_log__a_line_has_the_documented_fields(void **state)
{
	char *text;

	(void)state;
	assert_int_equal(log_start(-1, LOG_LEVEL_DEBUG, "backtest-1", RING), 0);
	log_event(LOG_LEVEL_INFO, "downloader", "download_completed",
		  log_str("symbol", "SOLUSDT"), log_num("size_mb", 125.5),
		  log_u64("duration_ms", 12500), LOG_END);
	text = ring();
	assert_string_equal(
		after_time(text),
		"\"level\":\"info\",\"message\":\"download_completed\","
		"\"component\":\"downloader\",\"context\":{\"symbol\":"
		"\"SOLUSDT\",\"size_mb\":125.5,\"duration_ms\":12500},"
		"\"run_id\":\"backtest-1\"}\n");
	free(text);
}

static void test_log__numbers_are_exact(void **state)
{
	char *text;

	(void)state;
	log_start(-1, LOG_LEVEL_DEBUG, "r", RING);
	log_event(LOG_LEVEL_ERROR, "c", "m", log_u64("a", UINT64_MAX),
		  log_u64("b", 9007199254740993), log_num("c", NAN),
		  log_num("d", INFINITY), LOG_END);
	text = ring();
	assert_non_null(strstr(text, "{\"a\":18446744073709551615,"
				     "\"b\":9007199254740993,\"c\":null,"
				     "\"d\":null}"));
	free(text);
}

static void test_log__hostile_values_stay_one_line_of_json(void **state)
{
	char *text;

	(void)state;
	log_start(-1, LOG_LEVEL_DEBUG, "r", RING);
	log_event(LOG_LEVEL_WARN, "c", "m", log_str("a", "x\"y\\z\n\x01{},"),
		  log_str("b", "\xff"
			       "A\xe5\xb8"
			       "B\xed\xa0\x80"),
		  log_str("c", "\xe5\xb8\x81"), log_str("d", NULL), LOG_END);
	text = ring();
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	assert_non_null(strstr(text, "\"a\":\"x\\\"y\\\\z\\n\\u0001{},\""));
	assert_non_null(strstr(text, "\"b\":\"\xef\xbf\xbd"
				     "A\xef\xbf\xbd"
				     "\xef\xbf\xbd"
				     "B\xef\xbf\xbd\xef\xbf\xbd"
				     "\xef\xbf\xbd\""));
	assert_non_null(strstr(text, "\"c\":\"\xe5\xb8\x81\",\"d\":\"\""));
	free(text);
}

static void test_log__long_values_are_cut_between_characters(void **state)
{
	char value[4000], *text, *start;

	(void)state;
	log_start(-1, LOG_LEVEL_DEBUG, "r", RING);
	for (size_t i = 0; i + 3 < sizeof(value); i += 3)
		memcpy(value + i, "\xe5\xb8\x81", 4);
	log_event(LOG_LEVEL_WARN, "c", "m", log_str("a", value), LOG_END);
	text = ring();
	start = strstr(text, "\"a\":\"");
	assert_non_null(start);
	/* 341 characters of 3 bytes: 1023. */
	assert_int_equal(strcspn(start + 5, "\""), 1023);
	free(text);
}

static void test_log__levels_below_the_least_are_left_out(void **state)
{
	char *text;

	(void)state;
	log_start(-1, LOG_LEVEL_WARN, "r", RING);
	assert_false(log_enabled(LOG_LEVEL_INFO));
	assert_true(log_enabled(LOG_LEVEL_WARN));
	log_event(LOG_LEVEL_INFO, "c", "no", LOG_END);
	log_event(LOG_LEVEL_ERROR, "c", "yes", LOG_END);
	text = ring();
	assert_null(strstr(text, "\"no\""));
	assert_non_null(strstr(text, "\"yes\""));
	free(text);
}

static void test_log__the_ring_keeps_the_newest_whole_lines(void **state)
{
	char *text, *line, name[8];
	unsigned int lines = 0;

	(void)state;
	log_start(-1, LOG_LEVEL_DEBUG, "r", 1000);
	for (unsigned int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "m%03u", i);
		log_event(LOG_LEVEL_INFO, "c", name, LOG_END);
	}
	text = ring();
	assert_in_range(strlen(text), 800, 1000);
	for (line = text; *line; line = strchr(line, '\n') + 1) {
		after_time(line);
		lines++;
	}
	/* The last ones, in order. */
	line = text;
	for (unsigned int i = 500 - lines; i < 500; i++) {
		snprintf(name, sizeof(name), "m%03u", i);
		line = strstr(line, name);
		assert_non_null(line);
	}
	free(text);
}

static void test_log__a_line_larger_than_the_ring_is_not_kept(void **state)
{
	char *text;

	(void)state;
	log_start(-1, LOG_LEVEL_DEBUG, "r", 10);
	log_event(LOG_LEVEL_INFO, "c", "m", LOG_END);
	text = ring();
	assert_string_equal(text, "");
	free(text);
}

static void test_log__lines_go_to_the_descriptor_too(void **state)
{
	int fd = memfd_create("log", MFD_CLOEXEC);
	char file[4096] = "", *text;

	(void)state;
	log_start(fd, LOG_LEVEL_DEBUG, "r", RING);
	log_event(LOG_LEVEL_INFO, "c", "first", LOG_END);
	log_event(LOG_LEVEL_INFO, "c", "second", LOG_END);
	assert_true(pread(fd, file, sizeof(file) - 1, 0) > 0);
	text = ring();
	assert_string_equal(file, text);
	free(text);
	close(fd);
}

static void test_log__starting_again_keeps_the_ring(void **state)
{
	char *text;

	(void)state;
	log_start(-1, LOG_LEVEL_DEBUG, "first-run", RING);
	log_event(LOG_LEVEL_INFO, "c", "before", LOG_END);
	log_start(-1, LOG_LEVEL_INFO, "second-run", RING);
	log_event(LOG_LEVEL_INFO, "c", "after", LOG_END);
	text = ring();
	assert_non_null(strstr(text, "\"before\""));
	assert_non_null(strstr(text, "\"run_id\":\"first-run\""));
	assert_non_null(strstr(text, "\"after\""));
	assert_non_null(strstr(text, "\"run_id\":\"second-run\""));
	free(text);
}

static void test_log__a_reader_that_went_away_is_counted(void **state)
{
	uint64_t before = log_dropped();
	int fds[2];
	char *text;

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	close(fds[0]);
	log_start(fds[1], LOG_LEVEL_DEBUG, "r", RING);
	log_event(LOG_LEVEL_INFO, "c", "m", LOG_END);
	assert_int_equal(log_dropped() - before, 1);
	text = ring();
	assert_non_null(strstr(text, "\"m\""));
	free(text);
	close(fds[1]);
}

static void test_log__a_full_disk_is_counted(void **state)
{
	uint64_t before = log_dropped();
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	if (fd < 0)
		skip_without("/dev/full");
	log_start(fd, LOG_LEVEL_DEBUG, "r", RING);
	log_event(LOG_LEVEL_INFO, "c", "m", LOG_END);
	assert_int_equal(log_dropped() - before, 1);
	close(fd);
}

static void limit_files(rlim_t bytes, rlim_t most)
{
	const struct rlimit limit = {bytes, most};

	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_log__a_line_cut_by_a_full_disk_spoils_no_other(void **state)
{
	uint64_t before = log_dropped();
	FILE *file = tmpfile();
	char text[4096] = "", *line;
	struct rlimit old;

	(void)state;
	assert_non_null(file);
	getrlimit(RLIMIT_FSIZE, &old);
	log_start(fileno(file), LOG_LEVEL_DEBUG, "r", RING);
	limit_files(50, old.rlim_max);
	log_event(LOG_LEVEL_INFO, "c", "cut", LOG_END);
	limit_files(old.rlim_cur, old.rlim_max);
	log_event(LOG_LEVEL_INFO, "c", "whole", LOG_END);
	assert_int_equal(log_dropped() - before, 1);

	assert_true(pread(fileno(file), text, sizeof(text) - 1, 0) > 0);
	line = strchr(text, '\n') + 1;
	assert_int_equal(line - text, 51);
	assert_non_null(strstr(after_time(line), "\"whole\""));
	assert_string_equal(strchr(line, '\n'), "\n");
	fclose(file);
}

static void test_log__a_reader_that_stalls_stops_nobody(void **state)
{
	uint64_t before = log_dropped();
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	log_start(fds[1], LOG_LEVEL_DEBUG, "r", RING);
	/* Far more than a pipe holds; a blocking write would hang here. */
	for (unsigned int i = 0; i < 4000; i++)
		log_event(LOG_LEVEL_INFO, "c", "m", LOG_END);
	assert_true(log_dropped() > before);
	close(fds[0]);
	close(fds[1]);
}

enum { WRITERS = 4, LINES_EACH = 500 };

static void *write_lines(void *arg)
{
	for (uint64_t i = 0; i < LINES_EACH; i++)
		log_event(LOG_LEVEL_INFO, "c", "m",
			  log_u64("writer", *(unsigned int *)arg),
			  log_u64("i", i), LOG_END);
	return NULL;
}

static void test_log__lines_of_many_threads_stay_whole(void **state)
{
	unsigned int ids[WRITERS], lines = 0;
	pthread_t threads[WRITERS];
	char *text;

	(void)state;
	log_start(-1, LOG_LEVEL_DEBUG, "r", 1 << 20);
	for (unsigned int i = 0; i < WRITERS; i++) {
		ids[i] = i;
		assert_int_equal(pthread_create(&threads[i], NULL, write_lines,
						&ids[i]),
				 0);
	}
	free(ring()); /* reading meanwhile is safe */
	for (unsigned int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	text = ring();
	for (char *line = text; *line; line = strchr(line, '\n') + 1) {
		after_time(line);
		assert_memory_equal(strchr(line, '\n') - 1, "}", 1);
		lines++;
	}
	assert_int_equal(lines, WRITERS * LINES_EACH);
	free(text);
}

static void test_log__is_silent_before_start_and_after_stop(void **state)
{
	char *text;

	(void)state;
	log_event(LOG_LEVEL_ERROR, "c", "m", LOG_END);
	assert_false(log_enabled(LOG_LEVEL_ERROR));
	text = ring();
	assert_string_equal(text, "");
	free(text);
}

static void test_log__level_names_are_those_of_the_option(void **state)
{
	enum log_level level;

	(void)state;
	assert_true(log_level_parse("debug", &level));
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_true(log_level_parse("info", &level));
	assert_int_equal(level, LOG_LEVEL_INFO);
	assert_true(log_level_parse("warn", &level));
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_true(log_level_parse("error", &level));
	assert_int_equal(level, LOG_LEVEL_ERROR);
	assert_false(log_level_parse("", &level));
	assert_false(log_level_parse("INFO", &level));
	assert_false(log_level_parse("warning", &level));
}

#define TEST(name) cmocka_unit_test_teardown(name, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_log__a_line_has_the_documented_fields),
		TEST(test_log__numbers_are_exact),
		TEST(test_log__hostile_values_stay_one_line_of_json),
		TEST(test_log__long_values_are_cut_between_characters),
		TEST(test_log__levels_below_the_least_are_left_out),
		TEST(test_log__the_ring_keeps_the_newest_whole_lines),
		TEST(test_log__a_line_larger_than_the_ring_is_not_kept),
		TEST(test_log__lines_go_to_the_descriptor_too),
		TEST(test_log__starting_again_keeps_the_ring),
		TEST(test_log__a_reader_that_went_away_is_counted),
		TEST(test_log__a_full_disk_is_counted),
		TEST(test_log__a_line_cut_by_a_full_disk_spoils_no_other),
		TEST(test_log__a_reader_that_stalls_stops_nobody),
		TEST(test_log__lines_of_many_threads_stay_whole),
		TEST(test_log__is_silent_before_start_and_after_stop),
		TEST(test_log__level_names_are_those_of_the_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

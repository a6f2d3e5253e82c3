/* The bytes of .tickfs/. JSON is read by cJSON. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fs/log.h"
#include "fs/metrics.h"
#include "fs/report.h"
#include "fs/when.h"
#include "tests/support/fs_bench.h"

#define PREFIX "data/spot/daily/klines/BTCUSDT/1m/"
#define KEY    PREFIX "BTCUSDT-1m-2024-01-01.zip"

static struct xattr_sources sources(struct fs_bench *b)
{
	return (struct xattr_sources){
		.supply = b->supply,
		.store = b->store,
		.origin = b->origin,
		.folders = b->folders,
		.nodes = b->nodes,
		.run_id = "a \"quoted\"\\run",
		.started_ms = when_ms(),
	};
}

static cJSON *status(struct fs_bench *b)
{
	struct xattr_sources x = sources(b);
	const char *end;
	size_t len;
	char *text;
	cJSON *j;

	assert_int_equal(report_render(&x, "status.json", &text, &len), 0);
	assert_int_equal(strlen(text), len);
	assert_int_equal(text[len - 1], '\n');
	j = cJSON_ParseWithOpts(text, &end, 0);
	assert_non_null(j);
	assert_string_equal(end, "\n");
	free(text);
	return j;
}

static const cJSON *at(const cJSON *j, const char *group, const char *name)
{
	const cJSON *g = cJSON_GetObjectItemCaseSensitive(j, group);
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(g, name);

	assert_non_null(v);
	return v;
}

static void test_report__status_groups_what_the_root_tells(void **state)
{
	struct fs_bench *b = *state;
	cJSON *j;

	fs_up(b, NULL);
	j = status(b);
	assert_string_equal(
		cJSON_GetStringValue(cJSON_GetObjectItem(j, "run_id")),
		"a \"quoted\"\\run");
	assert_string_equal(
		cJSON_GetStringValue(cJSON_GetObjectItem(j, "version")),
		TICKFS_VERSION);
	assert_true(cJSON_IsNumber(at(j, "cache", "hits")));
	assert_true(cJSON_IsNumber(at(j, "cache", "hit_rate")));
	assert_int_equal(at(j, "cache", "quota_bytes")->valuedouble, 1 << 30);
	assert_true(cJSON_IsNumber(at(j, "fetch", "latency_seconds_p99")));
	assert_true(at(j, "process", "rss_bytes")->valuedouble > 0);
	cJSON_Delete(j);
}

static void test_report__status_tells_of_downloads(void **state)
{
	struct fs_bench *b = *state;
	struct store_object *o;
	struct supply_facts f;
	struct fs_waiter w;
	const cJSON *list, *item;
	cJSON *j;

	fs_publish_csv(b, KEY, "1,2\n", 4);
	fs_up(b, NULL);
	j = status(b);
	list = cJSON_GetObjectItem(j, "downloads");
	assert_true(cJSON_IsArray(list));
	assert_int_equal(cJSON_GetArraySize(list), 0);
	cJSON_Delete(j);

	assert_int_equal(fs_facts(b, KEY, SUPPLY_CSV, &f), 0);
	fs_rules(b, "[{\"key\": \"*.zip\", \"hold\": \"it\"}]");
	fs_waiter_begin(&w);
	assert_int_equal(supply_open(b->supply, KEY, &w.waiter, NULL, &o),
			 -EINPROGRESS);
	assert_int_equal(imitation_held(b->im, "it", 1, FS_PATIENCE_MS), 1);
	j = status(b);
	list = cJSON_GetObjectItem(j, "downloads");
	assert_int_equal(cJSON_GetArraySize(list), 1);
	item = cJSON_GetArrayItem(list, 0);
	assert_string_equal(
		cJSON_GetStringValue(cJSON_GetObjectItem(item, "key")), KEY);
	assert_int_equal(cJSON_GetObjectItem(item, "bytes_total")->valuedouble,
			 f.size);
	assert_int_equal(cJSON_GetObjectItem(item, "bytes_done")->valuedouble,
			 0);
	cJSON_Delete(j);
	imitation_release(b->im, "it", 0);
	assert_int_equal(fs_wait(&w), 0);
	fs_waiter_end(&w);
}

static void test_report__log_is_whole_lines(void **state)
{
	struct fs_bench *b = *state;
	struct xattr_sources x;
	size_t len, lines = 0;
	char *text, *next;
	cJSON *j;

	assert_int_equal(log_start(-1, LOG_LEVEL_DEBUG, "run", 65536), 0);
	fs_up(b, NULL);
	log_event(LOG_LEVEL_INFO, "test", "something_happened",
		  log_str("key", "a\nb"), LOG_END);
	x = sources(b);
	assert_int_equal(report_render(&x, "log.jsonl", &text, &len), 0);
	assert_true(len > 0);
	assert_int_equal(text[len - 1], '\n');
	for (char *line = text; line < text + len; line = next) {
		next = memchr(line, '\n', (size_t)(text + len - line));
		*next++ = '\0';
		j = cJSON_Parse(line);
		assert_non_null(j);
		if (strcmp(cJSON_GetStringValue(
				   cJSON_GetObjectItem(j, "message")),
			   "something_happened") == 0)
			lines++;
		cJSON_Delete(j);
	}
	assert_int_equal(lines, 1);
	free(text);
	fs_down(b);
	log_stop();
}

static void test_report__other_names_are_none(void **state)
{
	struct fs_bench *b = *state;
	struct xattr_sources x;
	size_t len;
	char *text;

	fs_up(b, NULL);
	x = sources(b);
	assert_int_equal(report_render(&x, "passwd", &text, &len), -ENOENT);
	assert_int_equal(report_render(&x, "", &text, &len), -ENOENT);
	for (size_t i = 0; report_names[i]; i++) {
		assert_int_equal(
			report_render(&x, report_names[i], &text, &len), 0);
		free(text);
	}
}

int main(void)
{
#define BENCH(name) cmocka_unit_test_setup_teardown(name, fs_setup, fs_teardown)
	const struct CMUnitTest tests[] = {
		BENCH(test_report__status_groups_what_the_root_tells),
		BENCH(test_report__status_tells_of_downloads),
		BENCH(test_report__log_is_whole_lines),
		BENCH(test_report__other_names_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

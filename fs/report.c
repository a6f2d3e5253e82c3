#include "fs/report.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/log.h"

static int render_log(const struct xattr_sources *x, char **text, size_t *len)
{
	(void)x;
	return log_copy(text, len);
}

/* "cache.hits" becomes member "hits" of object "cache". */
static void add_value(void *arg, const char *name, const char *value,
		      bool is_number)
{
	cJSON *at = arg, *group;
	const char *dot = strchr(name, '.');
	char first[32];

	if (dot && (size_t)(dot - name) < sizeof(first)) {
		memcpy(first, name, (size_t)(dot - name));
		first[dot - name] = '\0';
		group = cJSON_GetObjectItemCaseSensitive(at, first);
		at = group ? group : cJSON_AddObjectToObject(at, first);
		name = dot + 1;
	}
	if (is_number)
		cJSON_AddRawToObject(at, name, value);
	else
		cJSON_AddStringToObject(at, name, value);
}

static void add_fetch(void *arg, const char *key, uint64_t done, uint64_t total,
		      uint64_t running_ms)
{
	cJSON *item = cJSON_CreateObject();

	cJSON_AddStringToObject(item, "key", key);
	cJSON_AddNumberToObject(item, "bytes_done", (double)done);
	if (total != UINT64_MAX)
		cJSON_AddNumberToObject(item, "bytes_total", (double)total);
	cJSON_AddNumberToObject(item, "running_ms", (double)running_ms);
	cJSON_AddItemToArray(arg, item);
}

static int render_status(const struct xattr_sources *x, char **text,
			 size_t *len)
{
	cJSON *root = cJSON_CreateObject();
	char *printed, *line;
	size_t n;

	xattr_each_root(x, add_value, root);
	supply_each_fetch(x->supply, add_fetch,
			  cJSON_AddArrayToObject(root, "downloads"));
	printed = cJSON_Print(root);
	cJSON_Delete(root);
	if (!printed)
		return -ENOMEM;
	n = strlen(printed);
	line = realloc(printed, n + 2);
	if (!line) {
		free(printed);
		return -ENOMEM;
	}
	line[n] = '\n';
	line[n + 1] = '\0';
	*text = line;
	*len = n + 1;
	return 0;
}

const char *const report_names[] = {"log.jsonl", "status.json", NULL};

static int (*const renderers[])(const struct xattr_sources *, char **,
				size_t *) = {render_log, render_status};

int report_render(const struct xattr_sources *x, const char *name, char **text,
		  size_t *len)
{
	for (size_t i = 0; report_names[i]; i++)
		if (strcmp(report_names[i], name) == 0)
			return renderers[i](x, text, len);
	return -ENOENT;
}

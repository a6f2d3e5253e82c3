/*
 * The JSON beside a partial download that says what it is of.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/disk.h"
#include "cache/store_priv.h"

enum { SIDECAR_MAX = 4096 };
/* The largest integer a JSON number surely keeps. */
#define JSON_INT_MAX (INT64_C(1) << 53)

static const struct store_sidecar unknown = {.size = UINT64_MAX,
					     .last_modified = -1};

/* False unless it is a whole number that JSON carries exactly. */
static bool json_int(const cJSON *obj, const char *name, int64_t *v)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, name);
	double d;

	if (!cJSON_IsNumber(item))
		return false;
	d = item->valuedouble;
	if (!(d >= (double)-JSON_INT_MAX && d <= (double)JSON_INT_MAX) ||
	    d != (double)(int64_t)d)
		return false;
	*v = (int64_t)d;
	return true;
}

static bool sidecar_parse(const char *text, size_t len,
			  struct store_sidecar *out)
{
	cJSON *obj = cJSON_ParseWithLength(text, len);
	const cJSON *etag = cJSON_GetObjectItemCaseSensitive(obj, "etag");
	struct store_sidecar s = unknown;
	int64_t size;
	bool ok = false;

	if (!cJSON_IsString(etag) ||
	    strlen(etag->valuestring) >= sizeof(s.etag) ||
	    !json_int(obj, "last_modified", &s.last_modified))
		goto out;
	strcpy(s.etag, etag->valuestring);
	if (cJSON_HasObjectItem(obj, "size")) {
		if (!json_int(obj, "size", &size) || size < 0)
			goto out;
		s.size = (uint64_t)size;
	}
	s.pinned =
		cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(obj, "pinned"));
	*out = s;
	ok = true;
out:
	cJSON_Delete(obj);
	return ok;
}

/* What can't be read or is nonsense is as good as none. */
void store_sidecar_read(struct store *st, const char *path,
			struct store_sidecar *out)
{
	char *text;
	size_t len;

	*out = unknown;
	if (disk_read_file(st->staging, path, SIDECAR_MAX, &text, &len))
		return;
	if (!sidecar_parse(text, len, out))
		*out = unknown;
	free(text);
}

int store_write_json(int dirfd, const char *path, const cJSON *obj)
{
	char *text = cJSON_PrintUnformatted(obj);
	int err;

	if (!text)
		return -ENOMEM;
	err = disk_write_file(dirfd, path, text, strlen(text));
	cJSON_free(text);
	return err;
}

int store_sidecar_write(struct store *st, const char *path,
			const struct store_sidecar *s)
{
	cJSON *obj = cJSON_CreateObject();
	bool ok;
	int err;

	ok = obj && cJSON_AddStringToObject(obj, "etag", s->etag) &&
	     cJSON_AddNumberToObject(obj, "last_modified",
				     (double)s->last_modified);
	if (ok && s->size <= (uint64_t)JSON_INT_MAX)
		ok = cJSON_AddNumberToObject(obj, "size", (double)s->size);
	if (ok && s->pinned)
		ok = cJSON_AddTrueToObject(obj, "pinned");
	err = ok ? store_write_json(st->staging, path, obj) : -ENOMEM;
	cJSON_Delete(obj);
	return err;
}

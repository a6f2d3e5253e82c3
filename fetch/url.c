#include "fetch/url.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_part(CURLU *u, CURLUPart part)
{
	char *text = NULL;
	bool has = curl_url_get(u, part, &text, 0) == CURLUE_OK;

	curl_free(text);
	return has;
}

int url_check_base(const char *base)
{
	char *scheme = NULL;
	int err = -EINVAL;
	CURLU *u;

	u = curl_url();
	if (!u)
		return -ENOMEM;
	if (curl_url_set(u, CURLUPART_URL, base, 0) != CURLUE_OK)
		goto out;
	if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
		goto out;
	if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
		goto out;
	if (!has_part(u, CURLUPART_HOST) || has_part(u, CURLUPART_USER) ||
	    has_part(u, CURLUPART_QUERY) || has_part(u, CURLUPART_FRAGMENT))
		goto out;
	err = 0;
out:
	curl_free(scheme);
	curl_url_cleanup(u);
	return err;
}

/* Writes @text to @f with all but "/" and the unreserved escaped. */
static int put_escaped(FILE *f, const char *text)
{
	for (;;) {
		size_t len = strcspn(text, "/");
		char *escaped;

		/* With length 0 libcurl would measure the string itself. */
		if (len > 0) {
			escaped = curl_easy_escape(NULL, text, (int)len);
			if (!escaped)
				return -ENOMEM;
			fputs(escaped, f);
			curl_free(escaped);
		}
		if (text[len] == '\0')
			return 0;
		fputc('/', f);
		text += len + 1;
	}
}

/* Length of @base without slashes at its end. */
static int base_len(const char *base)
{
	size_t len = strlen(base);

	while (len > 0 && base[len - 1] == '/')
		len--;
	return (int)len;
}

/* Closes @f; the text, or NULL if anything went wrong. */
static char *finished(FILE *f, char **text, int err)
{
	if (ferror(f))
		err = -ENOMEM;
	if (fclose(f) != 0)
		err = -ENOMEM;
	if (err) {
		free(*text);
		*text = NULL;
	}
	return *text;
}

char *url_object(const char *base, const char *key)
{
	char *text = NULL;
	size_t size;
	FILE *f;

	f = open_memstream(&text, &size);
	if (!f)
		return NULL;
	fprintf(f, "%.*s/", base_len(base), base);
	return finished(f, &text, put_escaped(f, key));
}

char *url_listing(const char *bucket, const char *prefix, const char *marker,
		  size_t max_keys)
{
	char *text = NULL;
	size_t size;
	FILE *f;
	int err;

	f = open_memstream(&text, &size);
	if (!f)
		return NULL;
	fprintf(f, "%s?delimiter=/&prefix=", bucket);
	err = put_escaped(f, prefix);
	if (!err && *marker) {
		fputs("&marker=", f);
		err = put_escaped(f, marker);
	}
	if (!err && max_keys)
		fprintf(f, "&max-keys=%zu", max_keys);
	return finished(f, &text, err);
}

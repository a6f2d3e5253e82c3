/*
 * The parser keeps the path of open elements as one enum each, so a handler
 * knows where it is from the parent alone. Text is gathered only inside a
 * field that is wanted there.
 */
#include "fetch/listing_xml.h"

#include <errno.h>
#include <expat.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum element {
	ELEMENT_OTHER, /* skipped, with all that is in it */
	ELEMENT_DOCUMENT,
	ELEMENT_RESULT,
	ELEMENT_CONTENTS,
	ELEMENT_PREFIXES,
	/* Fields: */
	ELEMENT_TRUNCATED,
	ELEMENT_MARKER,
	ELEMENT_KEY,
	ELEMENT_ETAG,
	ELEMENT_SIZE,
	ELEMENT_MODIFIED,
	ELEMENT_PREFIX,
};

static const struct {
	enum element parent;
	const char *name;
	enum element element;
} grammar[] = {
	{ELEMENT_DOCUMENT, "ListBucketResult", ELEMENT_RESULT},
	{ELEMENT_RESULT, "Contents", ELEMENT_CONTENTS},
	{ELEMENT_RESULT, "CommonPrefixes", ELEMENT_PREFIXES},
	{ELEMENT_RESULT, "IsTruncated", ELEMENT_TRUNCATED},
	{ELEMENT_RESULT, "NextMarker", ELEMENT_MARKER},
	{ELEMENT_CONTENTS, "Key", ELEMENT_KEY},
	{ELEMENT_CONTENTS, "ETag", ELEMENT_ETAG},
	{ELEMENT_CONTENTS, "Size", ELEMENT_SIZE},
	{ELEMENT_CONTENTS, "LastModified", ELEMENT_MODIFIED},
	{ELEMENT_PREFIXES, "Prefix", ELEMENT_PREFIX},
};

struct listing_xml {
	XML_Parser parser;
	listing_xml_fn *on_entry;
	void *arg;
	int err; /* the first; nothing is looked at after it */

	enum element path[LISTING_XML_DEPTH_MAX + 1];
	size_t depth; /* path[depth] is the innermost open element */
	uint64_t bytes;
	size_t entries;

	char text[LISTING_XML_TEXT_MAX + 1];
	size_t text_len;

	/* The entry that is being read. */
	char key[LISTING_XML_TEXT_MAX + 1];
	char etag[LISTING_XML_TEXT_MAX + 1];
	uint64_t size;
	int64_t last_modified;
	bool has_key, has_size;

	bool truncated;
	char next_marker[LISTING_XML_TEXT_MAX + 1];
};

static void fail(struct listing_xml *x, int err)
{
	if (x->err)
		return;
	x->err = err;
	XML_StopParser(x->parser, XML_FALSE);
}

static bool is_field(enum element e)
{
	return e >= ELEMENT_TRUNCATED;
}

static enum element find_element(enum element parent, const char *name)
{
	const char *colon = strrchr(name, ':');

	if (colon)
		name = colon + 1;
	for (size_t i = 0; i < sizeof(grammar) / sizeof(*grammar); i++) {
		if (grammar[i].parent == parent &&
		    strcmp(grammar[i].name, name) == 0)
			return grammar[i].element;
	}
	return ELEMENT_OTHER;
}

static void begin_entry(struct listing_xml *x)
{
	x->key[0] = '\0';
	x->etag[0] = '\0';
	x->size = 0;
	x->last_modified = -1;
	x->has_key = false;
	x->has_size = false;
}

static void XMLCALL on_start(void *arg, const XML_Char *name,
			     const XML_Char **attributes)
{
	struct listing_xml *x = arg;
	enum element element;

	(void)attributes;
	if (x->err)
		return;
	element = find_element(x->path[x->depth], name);
	/* An error page or HTML is no empty folder; and fields hold text. */
	if ((x->depth == 0 && element != ELEMENT_RESULT) ||
	    is_field(x->path[x->depth]) || x->depth == LISTING_XML_DEPTH_MAX) {
		fail(x, -EPROTO);
		return;
	}
	x->path[++x->depth] = element;
	x->text_len = 0;
	if (element == ELEMENT_CONTENTS)
		begin_entry(x);
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int len)
{
	struct listing_xml *x = arg;

	if (x->err || !is_field(x->path[x->depth]))
		return;
	if ((size_t)len > LISTING_XML_TEXT_MAX - x->text_len) {
		fail(x, -EPROTO);
		return;
	}
	memcpy(x->text + x->text_len, text, (size_t)len);
	x->text_len += (size_t)len;
}

static void emit(struct listing_xml *x, const struct listing_xml_entry *e)
{
	int err;

	if (++x->entries > LISTING_XML_ENTRIES_MAX) {
		fail(x, -EPROTO);
		return;
	}
	err = x->on_entry(x->arg, e);
	if (err)
		fail(x, err);
}

static int parse_size(const char *text, uint64_t *size)
{
	size_t digits = strspn(text, "0123456789");

	/* 18 digits are far below INT64_MAX and far above any object. */
	if (digits == 0 || digits > 18 || text[digits] != '\0')
		return -EPROTO;
	*size = strtoull(text, NULL, 10);
	return 0;
}

/* ISO 8601 as S3 writes it, 2023-07-18T04:11:20.000Z; -1 for the rest. */
static int64_t parse_time(const char *text)
{
	struct tm tm = {0};
	const char *end;

	end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!end)
		return -1;
	if (*end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	if (strcmp(end, "Z") != 0)
		return -1;
	return timegm(&tm);
}

static void copy_unquoted(char *to, const char *from)
{
	size_t len = strlen(from);

	if (len >= 2 && from[0] == '"' && from[len - 1] == '"') {
		from++;
		len -= 2;
	}
	memcpy(to, from, len);
	to[len] = '\0';
}

static void end_field(struct listing_xml *x, enum element field)
{
	struct listing_xml_entry folder = {
		.key = x->text,
		.is_prefix = true,
		.etag = "",
		.last_modified = -1,
	};

	x->text[x->text_len] = '\0';
	switch (field) {
	case ELEMENT_TRUNCATED:
		x->truncated = strcmp(x->text, "true") == 0;
		if (!x->truncated && strcmp(x->text, "false") != 0)
			fail(x, -EPROTO);
		break;
	case ELEMENT_MARKER:
		memcpy(x->next_marker, x->text, x->text_len + 1);
		break;
	case ELEMENT_KEY:
		/* Two keys in one entry: which is the size of? */
		if (x->has_key)
			fail(x, -EPROTO);
		memcpy(x->key, x->text, x->text_len + 1);
		x->has_key = true;
		break;
	case ELEMENT_ETAG:
		copy_unquoted(x->etag, x->text);
		break;
	case ELEMENT_SIZE:
		if (x->has_size || parse_size(x->text, &x->size) != 0)
			fail(x, -EPROTO);
		x->has_size = true;
		break;
	case ELEMENT_MODIFIED:
		x->last_modified = parse_time(x->text);
		break;
	case ELEMENT_PREFIX:
		emit(x, &folder);
		break;
	default:
		break;
	}
}

static void end_contents(struct listing_xml *x)
{
	struct listing_xml_entry e = {
		.key = x->key,
		.etag = x->etag,
		.size = x->size,
		.last_modified = x->last_modified,
	};

	if (x->has_key && x->has_size)
		emit(x, &e);
	else
		fail(x, -EPROTO);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct listing_xml *x = arg;
	enum element element;

	(void)name;
	if (x->err)
		return;
	element = x->path[x->depth--];
	if (is_field(element))
		end_field(x, element);
	else if (element == ELEMENT_CONTENTS)
		end_contents(x);
}

/* S3 sends none, and nothing good comes of entities ("billion laughs"). */
static void XMLCALL on_doctype(void *arg, const XML_Char *name,
			       const XML_Char *system_id,
			       const XML_Char *public_id, int has_subset)
{
	(void)name;
	(void)system_id;
	(void)public_id;
	(void)has_subset;
	fail(arg, -EPROTO);
}

static void XMLCALL on_entity(void *arg, const XML_Char *name, int is_parameter,
			      const XML_Char *value, int value_len,
			      const XML_Char *base, const XML_Char *system_id,
			      const XML_Char *public_id,
			      const XML_Char *notation)
{
	(void)name;
	(void)is_parameter;
	(void)value;
	(void)value_len;
	(void)base;
	(void)system_id;
	(void)public_id;
	(void)notation;
	fail(arg, -EPROTO);
}

int listing_xml_create(struct listing_xml **out, listing_xml_fn *on_entry,
		       void *arg)
{
	struct listing_xml *x;

	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->parser = XML_ParserCreate(NULL);
	if (!x->parser) {
		free(x);
		return -ENOMEM;
	}
	x->on_entry = on_entry;
	x->arg = arg;
	x->path[0] = ELEMENT_DOCUMENT;
	XML_SetUserData(x->parser, x);
	XML_SetElementHandler(x->parser, on_start, on_end);
	XML_SetCharacterDataHandler(x->parser, on_text);
	XML_SetStartDoctypeDeclHandler(x->parser, on_doctype);
	XML_SetEntityDeclHandler(x->parser, on_entity);
	*out = x;
	return 0;
}

void listing_xml_free(struct listing_xml *x)
{
	if (!x)
		return;
	XML_ParserFree(x->parser);
	free(x);
}

static int parse(struct listing_xml *x, const char *buf, size_t len,
		 bool is_final)
{
	enum XML_Status status;

	status = XML_Parse(x->parser, buf, (int)len, is_final);
	if (!x->err && status != XML_STATUS_OK)
		x->err = XML_GetErrorCode(x->parser) == XML_ERROR_NO_MEMORY
				 ? -ENOMEM
				 : -EPROTO;
	return x->err;
}

/* expat scans a tag again from its start each time more of it comes, so one
 * endless tag would cost the square of its length. */
static bool is_stuck(const struct listing_xml *x)
{
	XML_Index at = XML_GetCurrentByteIndex(x->parser);

	return at < 0 ? x->bytes > LISTING_XML_PENDING_MAX
		      : x->bytes > (uint64_t)at + LISTING_XML_PENDING_MAX;
}

int listing_xml_feed(struct listing_xml *x, const void *buf, size_t len)
{
	const char *p = buf;

	while (len > 0 && !x->err) {
		size_t step = len < 4096 ? len : 4096;

		x->bytes += step;
		if (x->bytes > LISTING_XML_BYTES_MAX)
			x->err = -EPROTO;
		else if (parse(x, p, step, false) == 0 && is_stuck(x))
			x->err = -EPROTO;
		p += step;
		len -= step;
	}
	return x->err;
}

int listing_xml_finish(struct listing_xml *x, struct listing_xml_page *page)
{
	if (x->err || parse(x, "", 0, true) != 0)
		return x->err;
	page->truncated = x->truncated;
	page->next_marker = x->next_marker;
	return 0;
}

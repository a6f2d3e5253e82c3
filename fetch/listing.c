/*
 * Entries are gathered as offsets into one growing text, so that a page that
 * broke off is undone by cutting both back to where it began. Only the
 * finished listing has pointers.
 */
#include "fetch/listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fetch/listing_xml.h"

struct item {
	size_t name, etag; /* offsets in the text */
	bool is_prefix;
	uint64_t size;
	int64_t last_modified;
};

/* How much was gathered. */
struct mark {
	size_t items, text;
};

struct listing_walk {
	char *prefix;
	size_t prefix_len;
	size_t limit;
	size_t pages;

	struct item *items;
	size_t items_room;
	char *text;
	size_t text_room;
	struct mark now, page; /* page: when its answer began */

	struct listing_xml *xml;
	char marker[LISTING_XML_TEXT_MAX + 1];
	char last[LISTING_XML_TEXT_MAX + 1]; /* greatest of this page */
};

void listing_free(struct listing *l)
{
	if (!l)
		return;
	free(l->prefix);
	free(l->entries);
	free(l->arena);
	free(l);
}

int listing_walk_create(struct listing_walk **out, const char *prefix,
			size_t limit)
{
	struct listing_walk *w;

	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->prefix = strdup(prefix);
	if (!w->prefix) {
		free(w);
		return -ENOMEM;
	}
	w->prefix_len = strlen(prefix);
	w->limit = limit;
	*out = w;
	return 0;
}

void listing_walk_free(struct listing_walk *w)
{
	if (!w)
		return;
	listing_xml_free(w->xml);
	free(w->prefix);
	free(w->items);
	free(w->text);
	free(w);
}

const char *listing_walk_marker(const struct listing_walk *w)
{
	return w->marker;
}

/* @array with room for @need elements of @size, or NULL: then it is as it was.
 * Grows by doubling. */
static void *with_room(void *array, size_t *room, size_t need, size_t size)
{
	size_t want = *room ? *room : 64;
	void *grown;

	if (need <= *room)
		return array;
	while (want < need)
		want *= 2;
	grown = realloc(array, want * size);
	if (grown)
		*room = want;
	return grown;
}

static int add_text(struct listing_walk *w, const char *s, size_t len,
		    size_t *off)
{
	char *text;

	if (len >= LISTING_TEXT_MAX - w->now.text)
		return -EPROTO;
	text = with_room(w->text, &w->text_room, w->now.text + len + 1, 1);
	if (!text)
		return -ENOMEM;
	w->text = text;
	*off = w->now.text;
	memcpy(w->text + *off, s, len);
	w->text[*off + len] = '\0';
	w->now.text += len + 1;
	return 0;
}

static bool is_name(const char *s, size_t len)
{
	if (len == 0 || (len == 1 && s[0] == '.') ||
	    (len == 2 && s[0] == '.' && s[1] == '.'))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 0x20 || c == 0x7f || c == '/')
			return false;
	}
	return true;
}

static int on_entry(void *arg, const struct listing_xml_entry *e)
{
	struct listing_walk *w = arg;
	struct item item = {
		.is_prefix = e->is_prefix,
		.size = e->size,
		.last_modified = e->last_modified,
	};
	struct item *items;
	const char *name;
	size_t len;
	int err;

	if (strcmp(e->key, w->last) > 0)
		strcpy(w->last, e->key);
	if (strncmp(e->key, w->prefix, w->prefix_len) != 0)
		return 0;
	name = e->key + w->prefix_len;
	len = strlen(name);
	if (e->is_prefix) {
		if (len == 0 || name[len - 1] != '/')
			return 0;
		len--;
	}
	if (!is_name(name, len))
		return 0;
	err = add_text(w, name, len, &item.name);
	if (!err)
		err = add_text(w, e->etag, strlen(e->etag), &item.etag);
	if (err)
		return err;
	items = with_room(w->items, &w->items_room, w->now.items + 1,
			  sizeof(*items));
	if (!items)
		return -ENOMEM;
	w->items = items;
	w->items[w->now.items++] = item;
	return 0;
}

int listing_walk_begin(struct listing_walk *w)
{
	w->now = w->page;
	w->last[0] = '\0';
	listing_xml_free(w->xml);
	w->xml = NULL;
	return listing_xml_create(&w->xml, on_entry, w);
}

int listing_walk_feed(struct listing_walk *w, const void *buf, size_t len)
{
	return listing_xml_feed(w->xml, buf, len);
}

int listing_walk_end(struct listing_walk *w)
{
	struct listing_xml_page page;
	const char *next;
	int err;

	err = listing_xml_finish(w->xml, &page);
	if (err)
		return err;
	w->page = w->now;
	w->pages++;
	if (!page.truncated || w->limit)
		return 0;
	next = *page.next_marker ? page.next_marker : w->last;
	if (strcmp(next, w->marker) <= 0 || w->pages >= LISTING_PAGES_MAX)
		return -EPROTO;
	strcpy(w->marker, next);
	return 1;
}

/* By name; of one name first what stays (see listing_walk_take()). */
static int compare(const void *pa, const void *pb, void *arg)
{
	const struct item *a = pa, *b = pb;
	const char *text = arg;
	int order = strcmp(text + a->name, text + b->name);

	if (order)
		return order;
	if (a->is_prefix != b->is_prefix)
		return a->is_prefix ? -1 : 1;
	/* What came later stands further on in the text. */
	return a->name > b->name ? -1 : a->name < b->name;
}

static size_t drop_repeats(struct item *items, size_t n, const char *text)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (kept && strcmp(text + items[kept - 1].name,
				   text + items[i].name) == 0)
			continue;
		items[kept++] = items[i];
	}
	return kept;
}

static void fill(struct listing *l, const struct item *items, const char *text)
{
	for (size_t i = 0; i < l->n; i++) {
		l->entries[i] = (struct listing_entry){
			.name = text + items[i].name,
			.is_prefix = items[i].is_prefix,
			.etag = text + items[i].etag,
			.size = items[i].size,
			.last_modified = items[i].last_modified,
		};
	}
}

int listing_walk_take(struct listing_walk *w, struct listing **out)
{
	struct listing *l;
	size_t n = w->now.items;

	if (n > 0) {
		qsort_r(w->items, n, sizeof(*w->items), compare, w->text);
		n = drop_repeats(w->items, n, w->text);
	}
	if (w->limit && n > w->limit)
		n = w->limit;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->entries = calloc(n ? n : 1, sizeof(*l->entries));
	if (!l->entries) {
		free(l);
		return -ENOMEM;
	}
	l->n = n;
	fill(l, w->items, w->text);
	l->arena = w->text;
	l->prefix = w->prefix;
	w->text = NULL;
	w->prefix = NULL;
	w->now = w->page = (struct mark){0};
	*out = l;
	return 0;
}

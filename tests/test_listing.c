#include "tests/support/cmocka_all.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch/listing.h"

#define FILE_(key, etag, size)                                                 \
	"<Contents><Key>" key "</Key><ETag>" etag "</ETag><Size>" size         \
	"</Size></Contents>"
#define FOLDER(key)   "<CommonPrefixes><Prefix>" key "</Prefix></CommonPrefixes>"
#define LAST(entries) "<ListBucketResult>" entries "</ListBucketResult>"
#define MORE(entries)                                                          \
	"<ListBucketResult><IsTruncated>true</IsTruncated>" entries            \
	"</ListBucketResult>"
#define MARKER(key) "<NextMarker>" key "</NextMarker>"

static struct listing_walk *walk(const char *prefix, size_t limit)
{
	struct listing_walk *w;

	assert_int_equal(listing_walk_create(&w, prefix, limit), 0);
	assert_string_equal(listing_walk_marker(w), "");
	return w;
}

static int page(struct listing_walk *w, const char *xml)
{
	int err;

	assert_int_equal(listing_walk_begin(w), 0);
	err = listing_walk_feed(w, xml, strlen(xml));
	return err ? err : listing_walk_end(w);
}

/* The names of the whole listing, each with a space behind it, folders with a
 * slash; ends the walk. */
static const char *names(struct listing_walk *w)
{
	static char text[4096];
	struct listing *l;
	char *p = text;

	assert_int_equal(listing_walk_take(w, &l), 0);
	*p = '\0';
	for (size_t i = 0; i < l->n; i++)
		p += sprintf(p, "%s%s ", l->entries[i].name,
			     l->entries[i].is_prefix ? "/" : "");
	listing_free(l);
	listing_walk_free(w);
	return text;
}

static void test_listing__of_one_page(void **state)
{
	struct listing_walk *w = walk("data/", 0);
	struct listing *l;

	(void)state;
	assert_int_equal(page(w, LAST(FILE_("data/b.zip", "\"e1\"", "7")
					      FOLDER("data/a/"))),
			 0);
	assert_int_equal(listing_walk_take(w, &l), 0);
	listing_walk_free(w); /* the listing stands on its own */
	assert_string_equal(l->prefix, "data/");
	assert_int_equal(l->n, 2);
	assert_string_equal(l->entries[0].name, "a");
	assert_true(l->entries[0].is_prefix);
	assert_string_equal(l->entries[1].name, "b.zip");
	assert_false(l->entries[1].is_prefix);
	assert_string_equal(l->entries[1].etag, "e1");
	assert_int_equal(l->entries[1].size, 7);
	assert_int_equal(l->entries[1].last_modified, -1);
	listing_free(l);
	listing_free(NULL);
}

static void test_listing__of_nothing_is_empty(void **state)
{
	struct listing_walk *w = walk("", 0);

	(void)state;
	assert_int_equal(page(w, LAST("")), 0);
	assert_string_equal(names(w), "");
}

static void test_listing__goes_on_at_next_marker(void **state)
{
	struct listing_walk *w = walk("p/", 0);

	(void)state;
	assert_int_equal(page(w, MORE(MARKER("p/b") FILE_("p/a", "", "1")
					      FILE_("p/b", "", "1"))),
			 1);
	assert_string_equal(listing_walk_marker(w), "p/b");
	assert_int_equal(page(w, LAST(FILE_("p/c", "", "1"))), 0);
	assert_string_equal(names(w), "a b c ");
}

static void test_listing__goes_on_at_the_last_name_without_one(void **state)
{
	struct listing_walk *w = walk("p/", 0);

	(void)state;
	assert_int_equal(page(w, MORE(FILE_("p/b", "", "1") FOLDER("p/c/"))),
			 1);
	assert_string_equal(listing_walk_marker(w), "p/c/");
	assert_int_equal(page(w, MORE(FILE_("p/d", "", "1"))), 1);
	assert_string_equal(listing_walk_marker(w), "p/d");
	assert_int_equal(page(w, LAST("")), 0);
	assert_string_equal(names(w), "b c/ d ");
}

/* The byte order of UTF-8: U+00E9 (c3 a9) after z (7a). */
static void test_listing__markers_and_names_are_in_byte_order(void **state)
{
	struct listing_walk *w = walk("", 0);

	(void)state;
	assert_int_equal(page(w, MORE(FILE_("z", "", "1")
					      FILE_("\xc3\xa9", "", "1")
						      FILE_("Z", "", "1"))),
			 1);
	assert_string_equal(listing_walk_marker(w), "\xc3\xa9");
	assert_int_equal(page(w, LAST("")), 0);
	assert_string_equal(names(w), "Z z \xc3\xa9 ");
}

static void test_listing__notices_pages_that_repeat(void **state)
{
	struct listing_walk *w;

	(void)state;
	w = walk("p/", 0);
	assert_int_equal(page(w, MORE(FILE_("p/a", "", "1"))), 1);
	assert_int_equal(page(w, MORE(FILE_("p/a", "", "1"))), -EPROTO);
	listing_walk_free(w);

	w = walk("p/", 0);
	assert_int_equal(page(w, MORE(MARKER("p/m"))), 1);
	assert_int_equal(page(w, MORE(MARKER("p/a"))), -EPROTO);
	listing_walk_free(w);

	w = walk("p/", 0);
	assert_int_equal(page(w, MORE("")), -EPROTO);
	listing_walk_free(w);
}

static void test_listing__ends_after_too_many_pages(void **state)
{
	struct listing_walk *w = walk("", 0);
	char xml[256];
	int ret = 1;
	int pages = 0;

	(void)state;
	while (ret == 1) {
		snprintf(xml, sizeof(xml),
			 "<ListBucketResult><IsTruncated>true</IsTruncated>"
			 "<NextMarker>%08d</NextMarker></ListBucketResult>",
			 pages++);
		ret = page(w, xml);
	}
	assert_int_equal(ret, -EPROTO);
	assert_int_equal(pages, LISTING_PAGES_MAX);
	listing_walk_free(w);
}

static void test_listing__drops_names_that_no_file_can_have(void **state)
{
	struct listing_walk *w = walk("p/", 0);

	(void)state;
	assert_int_equal(
		page(w,
		     LAST(FILE_("p/", "", "0") FILE_("q/x", "", "1") FILE_(
			     "p", "", "1") FILE_("p/a/b", "",
						 "1") FILE_("p/x&#10;y", "",
							    "1")
				  FILE_("p/x&#9;y", "", "1") FILE_(
					  "p/x\x7f", "",
					  "1") FILE_("p/.", "",
						     "1") FILE_("p/..", "", "1")
					  FOLDER("p/../") FOLDER("p//") FOLDER(
						  "p/") FOLDER("p/a/b/")
						  FOLDER("p/open") FILE_(
							  "p/...", "", "1")
							  FILE_("p/good", "",
								"1"))),
		0);
	assert_string_equal(names(w), "... good ");
}

static void test_listing__has_each_name_once(void **state)
{
	struct listing_walk *w = walk("", 0);
	struct listing *l;

	(void)state;
	assert_int_equal(page(w, MORE(MARKER("b") FILE_("a", "old", "1")
					      FILE_("x", "", "1"))),
			 1);
	assert_int_equal(
		page(w, LAST(FILE_("a", "new", "2") FOLDER("x/") FOLDER("x/"))),
		0);
	assert_int_equal(listing_walk_take(w, &l), 0);
	assert_int_equal(l->n, 2);
	assert_string_equal(l->entries[0].etag, "new");
	assert_int_equal(l->entries[0].size, 2);
	assert_string_equal(l->entries[1].name, "x");
	assert_true(l->entries[1].is_prefix);
	listing_free(l);
	listing_walk_free(w);
}

static void test_listing__forgets_a_page_that_broke_off(void **state)
{
	static const char broken[] = "<ListBucketResult>" FILE_("zzz", "", "1");
	struct listing_walk *w = walk("", 0);

	(void)state;
	assert_int_equal(page(w, MORE(FILE_("a", "", "1"))), 1);
	assert_int_equal(listing_walk_begin(w), 0);
	assert_int_equal(listing_walk_feed(w, broken, sizeof(broken) - 1), 0);
	/* The connection was cut here; the page is asked for once more. */
	assert_string_equal(listing_walk_marker(w), "a");
	assert_int_equal(page(w, MORE(FILE_("b", "", "1"))), 1);
	assert_string_equal(listing_walk_marker(w), "b");
	assert_int_equal(page(w, LAST("")), 0);
	assert_string_equal(names(w), "a b ");
}

static void test_listing__with_a_limit_is_one_page(void **state)
{
	struct listing_walk *w = walk("", 2);

	(void)state;
	/* A server that gives more than it was asked for. */
	assert_int_equal(page(w, MORE(FILE_("c", "", "1") FILE_("a", "", "1")
					      FILE_("b", "", "1"))),
			 0);
	assert_string_equal(names(w), "a b ");
}

static void test_listing__merges_thousands(void **state)
{
	enum { PAGES = 8, PER_PAGE = 1000 };
	struct listing_walk *w = walk("d/", 0);
	static char xml[PER_PAGE * 96];
	struct listing *l;
	char name[16];

	(void)state;
	for (int i = 0; i < PAGES; i++) {
		char *p = xml;

		p += sprintf(p,
			     "<ListBucketResult><IsTruncated>%s</IsTruncated>",
			     i < PAGES - 1 ? "true" : "false");
		for (int j = 0; j < PER_PAGE; j++)
			p += sprintf(p,
				     "<Contents><Key>d/%06d</Key><Size>%d"
				     "</Size></Contents>",
				     i * PER_PAGE + j, j);
		sprintf(p, "</ListBucketResult>");
		assert_int_equal(page(w, xml), i < PAGES - 1);
	}
	assert_int_equal(listing_walk_take(w, &l), 0);
	assert_int_equal(l->n, PAGES * PER_PAGE);
	for (int i = 0; i < PAGES * PER_PAGE; i++) {
		sprintf(name, "%06d", i);
		assert_string_equal(l->entries[i].name, name);
		assert_int_equal(l->entries[i].size, i % PER_PAGE);
	}
	listing_free(l);
	listing_walk_free(w);
}

static void test_listing__rejects_html(void **state)
{
	struct listing_walk *w = walk("", 0);

	(void)state;
	assert_int_equal(page(w, "<!DOCTYPE html>\n<html lang=\"en\">"
				 "<head></head><body></body></html>"),
			 -EPROTO);
	listing_walk_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listing__of_one_page),
		cmocka_unit_test(test_listing__of_nothing_is_empty),
		cmocka_unit_test(test_listing__goes_on_at_next_marker),
		cmocka_unit_test(
			test_listing__goes_on_at_the_last_name_without_one),
		cmocka_unit_test(
			test_listing__markers_and_names_are_in_byte_order),
		cmocka_unit_test(test_listing__notices_pages_that_repeat),
		cmocka_unit_test(test_listing__ends_after_too_many_pages),
		cmocka_unit_test(
			test_listing__drops_names_that_no_file_can_have),
		cmocka_unit_test(test_listing__has_each_name_once),
		cmocka_unit_test(test_listing__forgets_a_page_that_broke_off),
		cmocka_unit_test(test_listing__with_a_limit_is_one_page),
		cmocka_unit_test(test_listing__merges_thousands),
		cmocka_unit_test(test_listing__rejects_html),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

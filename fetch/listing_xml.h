/*
 * listing_xml - one page of an S3 listing (ListObjects v1, ListBucketResult)
 * to entries, as it streams in (expat).
 *
 * The text comes from outside: a document type or entity is refused before it
 * can expand, and depth, text, entries and bytes have limits. Elements are
 * known by their local names, whatever their order or namespace prefix
 * (reference/binance-vision.md section 2: their position varies); unknown ones
 * are skipped.
 */
#ifndef FETCH_LISTING_XML_H
#define FETCH_LISTING_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LISTING_XML_DEPTH_MAX = 16,
	LISTING_XML_TEXT_MAX = 1024,	    /* of a field: S3's limit on keys */
	LISTING_XML_ENTRIES_MAX = 10000,    /* S3 gives 1000 a page */
	LISTING_XML_BYTES_MAX = 16 << 20,   /* of a page */
	LISTING_XML_PENDING_MAX = 64 << 10, /* of one tag not yet closed */
};

/* Strings are valid during the call only. */
struct listing_xml_entry {
	const char *key;  /* Key of Contents, or Prefix of CommonPrefixes */
	bool is_prefix;	  /* the latter */
	const char *etag; /* without quotes; "" if there is none */
	uint64_t size;
	int64_t last_modified; /* seconds since 1970, -1 if unknown */
};

/* What is not 0 ends the parse and comes out of listing_xml_feed(). */
typedef int listing_xml_fn(void *arg, const struct listing_xml_entry *e);

struct listing_xml;

/* 0 or -ENOMEM. */
int listing_xml_create(struct listing_xml **out, listing_xml_fn *on_entry,
		       void *arg);
void listing_xml_free(struct listing_xml *x);

/*
 * listing_xml_feed() - the next @len bytes of the page.
 * Returns 0, -EPROTO for what is no such listing (HTML, S3's <Error>, broken
 * XML, an entry without a key or size, a limit passed), -ENOMEM, or what
 * @on_entry gave. After an error only listing_xml_free() is of use.
 */
int listing_xml_feed(struct listing_xml *x, const void *buf, size_t len);

struct listing_xml_page {
	bool truncated;		 /* IsTruncated; false if it does not say */
	const char *next_marker; /* "" if none; lives as long as the parser */
};

/* The page is at its end. Returns as listing_xml_feed() does. */
int listing_xml_finish(struct listing_xml *x, struct listing_xml_page *page);

#endif

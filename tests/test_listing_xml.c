#include "tests/support/cmocka_all.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch/listing_xml.h"

#define NS     "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
#define DIR_1M "data/spot/daily/klines/BTCUSDT/1m/"

/* The real page of reference/binance-vision.md section 2. */
static const char real_page[] =
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	"<ListBucketResult " NS "><Name>data.binance.vision</Name>"
	"<Prefix>" DIR_1M "</Prefix><Marker></Marker><NextMarker>" DIR_1M
	"BTCUSDT-1m-2017-08-17.zip.CHECKSUM</NextMarker><MaxKeys>2</MaxKeys>"
	"<Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>"
	"<Contents><Key>" DIR_1M "BTCUSDT-1m-2017-08-17.zip</Key>"
	"<LastModified>2023-07-18T04:11:20.000Z</LastModified>"
	"<ETag>&quot;014a8d177da3bf9839c293f341804d26&quot;</ETag>"
	"<Size>29761</Size><StorageClass>STANDARD</StorageClass></Contents>"
	"<Contents><Key>" DIR_1M "BTCUSDT-1m-2017-08-17.zip.CHECKSUM</Key>"
	"<LastModified>2023-07-18T04:11:21.000Z</LastModified>"
	"<ETag>&quot;fd6a416a6f3579ecb9255d58eaaebc2d&quot;</ETag>"
	"<Size>91</Size><StorageClass>STANDARD</StorageClass></Contents>"
	"</ListBucketResult>";

/* Entries as text, one a line: so that a test compares all of them at once. */
struct result {
	char text[1 << 16];
	size_t len;
	unsigned int n;
	int answer; /* of on_entry */
	bool truncated;
	char marker[2048];
};

static int on_entry(void *arg, const struct listing_xml_entry *e)
{
	struct result *r = arg;

	r->n++;
	if (r->len < sizeof(r->text))
		r->len += (size_t)snprintf(r->text + r->len,
					   sizeof(r->text) - r->len,
					   "%c %s %s %llu %lld\n",
					   e->is_prefix ? 'd' : 'f', e->key,
					   *e->etag ? e->etag : "-",
					   (unsigned long long)e->size,
					   (long long)e->last_modified);
	return r->answer;
}

static int parse_in_steps(const char *xml, size_t len, size_t step,
			  struct result *r)
{
	struct listing_xml_page page;
	struct listing_xml *x;
	int err = 0;

	assert_int_equal(listing_xml_create(&x, on_entry, r), 0);
	for (size_t at = 0; !err && at < len; at += step)
		err = listing_xml_feed(x, xml + at,
				       len - at < step ? len - at : step);
	if (!err)
		err = listing_xml_finish(x, &page);
	if (!err) {
		r->truncated = page.truncated;
		snprintf(r->marker, sizeof(r->marker), "%s", page.next_marker);
	}
	listing_xml_free(x);
	return err;
}

static int parse(const char *xml, struct result *r)
{
	memset(r, 0, sizeof(*r));
	return parse_in_steps(xml, strlen(xml), SIZE_MAX / 2, r);
}

static struct result r;

/* date -u -d 2023-07-18T04:11:20Z +%s is 1689653480. */
static const char real_entries[] =
	"f " DIR_1M "BTCUSDT-1m-2017-08-17.zip "
	"014a8d177da3bf9839c293f341804d26 29761 1689653480\n"
	"f " DIR_1M "BTCUSDT-1m-2017-08-17.zip.CHECKSUM "
	"fd6a416a6f3579ecb9255d58eaaebc2d 91 1689653481\n";

static void test_listing_xml__reads_a_real_page(void **state)
{
	(void)state;
	assert_int_equal(parse(real_page, &r), 0);
	assert_string_equal(r.text, real_entries);
	assert_true(r.truncated);
	assert_string_equal(r.marker,
			    DIR_1M "BTCUSDT-1m-2017-08-17.zip.CHECKSUM");
}

static void test_listing_xml__reads_it_in_pieces_of_any_size(void **state)
{
	(void)state;
	for (size_t step = 1; step < 70; step++) {
		memset(&r, 0, sizeof(r));
		assert_int_equal(parse_in_steps(real_page,
						sizeof(real_page) - 1, step,
						&r),
				 0);
		assert_string_equal(r.text, real_entries);
	}
}

static void test_listing_xml__reads_folders(void **state)
{
	(void)state;
	assert_int_equal(parse("<ListBucketResult " NS
			       "><IsTruncated>false</IsTruncated>"
			       "<CommonPrefixes><Prefix>data/\xe5\xb8\x81"
			       "USDT/</Prefix></CommonPrefixes>"
			       "<CommonPrefixes><Prefix>data/A&amp;B/</Prefix>"
			       "</CommonPrefixes></ListBucketResult>",
			       &r),
			 0);
	assert_string_equal(r.text, "d data/\xe5\xb8\x81USDT/ - 0 -1\n"
				    "d data/A&B/ - 0 -1\n");
	assert_false(r.truncated);
	assert_string_equal(r.marker, "");
}

static void test_listing_xml__takes_an_empty_result(void **state)
{
	(void)state;
	assert_int_equal(parse("<ListBucketResult " NS "><Name>b</Name>"
			       "<IsTruncated>false</IsTruncated>"
			       "</ListBucketResult>",
			       &r),
			 0);
	assert_int_equal(r.n, 0);
	assert_int_equal(parse("<ListBucketResult/>", &r), 0);
	assert_false(r.truncated);
}

static void test_listing_xml__takes_any_namespace_prefix(void **state)
{
	(void)state;
	assert_int_equal(parse("<s3:ListBucketResult xmlns:s3=\"x\">"
			       "<s3:Contents><s3:Size>5</s3:Size>"
			       "<s3:Key>k</s3:Key></s3:Contents>"
			       "</s3:ListBucketResult>",
			       &r),
			 0);
	assert_string_equal(r.text, "f k - 5 -1\n");
}

static void test_listing_xml__skips_what_it_does_not_know(void **state)
{
	(void)state;
	assert_int_equal(
		parse("<ListBucketResult><Key>no</Key><Future><Contents>"
		      "<Key>no</Key><Size>1</Size></Contents></Future>"
		      "<Contents><Key>k</Key><Owner><ID>x</ID><Key>no</Key>"
		      "</Owner><Size>5</Size></Contents>text"
		      "<!-- <Contents/> --></ListBucketResult>",
		      &r),
		0);
	assert_string_equal(r.text, "f k - 5 -1\n");
}

static void test_listing_xml__keeps_an_etag_of_any_form(void **state)
{
	(void)state;
	assert_int_equal(parse("<ListBucketResult>"
			       "<Contents><Key>a</Key><ETag>\"9b2c-12\"</ETag>"
			       "<Size>1</Size></Contents>"
			       "<Contents><Key>b</Key><ETag>bare</ETag>"
			       "<Size>1</Size></Contents>"
			       "<Contents><Key>c</Key><ETag>\"</ETag>"
			       "<Size>1</Size></Contents>"
			       "<Contents><Key>d</Key><ETag></ETag>"
			       "<Size>1</Size></Contents>"
			       "</ListBucketResult>",
			       &r),
			 0);
	assert_string_equal(r.text, "f a 9b2c-12 1 -1\nf b bare 1 -1\n"
				    "f c \" 1 -1\nf d - 1 -1\n");
}

static void test_listing_xml__does_not_guess_a_time(void **state)
{
	static const char *const bad[] = {"",
					  "yesterday",
					  "2023-07-18",
					  "2023-07-18T04:11:20.000",
					  "2023-13-18T04:11:20Z",
					  "2023-07-18T04:11:20+02:00"};
	char xml[512];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(xml, sizeof(xml),
			 "<ListBucketResult><Contents><Key>k</Key><Size>5"
			 "</Size><LastModified>%s</LastModified></Contents>"
			 "</ListBucketResult>",
			 bad[i]);
		assert_int_equal(parse(xml, &r), 0);
		assert_string_equal(r.text, "f k - 5 -1\n");
	}
}

static void test_listing_xml__rejects_what_is_no_listing(void **state)
{
	static const char *const bad[] = {
		"",
		"not XML at all",
		"{\"Contents\":[]}",
		"<!DOCTYPE html><html><head></head><body></body></html>",
		"<html><body></body></html>",
		"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code>"
		"</Error>",
		"<ListAllMyBucketsResult/>",
		"<ListBucketResult>",
		"<ListBucketResult></ListBucketResult><ListBucketResult/>",
		"<ListBucketResult></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>k</Key></Contents>"
		"</ListBucketResult>",
		"<ListBucketResult><Contents><Size>1</Size></Contents>"
		"</ListBucketResult>",
		"<ListBucketResult><Contents><Key>k</Key><Size>-1</Size>"
		"</Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>k</Key><Size> 1</Size>"
		"</Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>k</Key><Size>"
		"99999999999999999999</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>k</Key><Key>l</Key>"
		"<Size>1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>k</Key><Size>1</Size>"
		"<Size>2</Size></Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>k<b/>l</Key>"
		"<Size>1</Size></Contents></ListBucketResult>",
		"<ListBucketResult><IsTruncated>maybe</IsTruncated>"
		"</ListBucketResult>",
		"<ListBucketResult><Contents><Key>\x01</Key><Size>1</Size>"
		"</Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>&#0;</Key><Size>1</Size>"
		"</Contents></ListBucketResult>",
		"<ListBucketResult><Contents><Key>\xff\xfe</Key><Size>1</Size>"
		"</Contents></ListBucketResult>",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (parse(bad[i], &r) != -EPROTO)
			fail_msg("%s", bad[i]);
	}
}

static void test_listing_xml__rejects_a_page_cut_short(void **state)
{
	(void)state;
	for (size_t len = 0; len < sizeof(real_page) - 1; len += 7) {
		memset(&r, 0, sizeof(r));
		assert_int_equal(parse_in_steps(real_page, len, 4096, &r),
				 -EPROTO);
	}
}

static void test_listing_xml__stops_at_any_entity(void **state)
{
	static const char laughs[] =
		"<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"ha\">"
		"<!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">"
		"<!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;\">]>"
		"<ListBucketResult><Contents><Key>&c;</Key><Size>1</Size>"
		"</Contents></ListBucketResult>";
	static const char external[] =
		"<!DOCTYPE l [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>"
		"<ListBucketResult><Contents><Key>&x;</Key><Size>1</Size>"
		"</Contents></ListBucketResult>";

	(void)state;
	assert_int_equal(parse(laughs, &r), -EPROTO);
	assert_int_equal(parse(external, &r), -EPROTO);
	assert_int_equal(parse("<!DOCTYPE ListBucketResult>"
			       "<ListBucketResult/>",
			       &r),
			 -EPROTO);
	assert_int_equal(r.n, 0);
}

static char *repeated(const char *begin, const char *middle, size_t n,
		      const char *end)
{
	size_t len = strlen(middle);
	char *s = malloc(strlen(begin) + n * len + strlen(end) + 1), *p;

	assert_non_null(s);
	p = stpcpy(s, begin);
	for (size_t i = 0; i < n; i++, p += len)
		memcpy(p, middle, len);
	strcpy(p, end);
	return s;
}

static void assert_parses(int expected, char *xml)
{
	assert_int_equal(parse(xml, &r), expected);
	free(xml);
}

static void test_listing_xml__limits_depth(void **state)
{
	(void)state;
	assert_parses(-EPROTO,
		      repeated("<ListBucketResult>", "<a>", 100000, ""));
	assert_parses(-EPROTO, repeated("<ListBucketResult>", "<a>",
					LISTING_XML_DEPTH_MAX, ""));
}

static void test_listing_xml__limits_the_text_of_a_field(void **state)
{
	static const char begin[] = "<ListBucketResult><Contents><Key>";
	static const char end[] =
		"</Key><Size>1</Size></Contents></ListBucketResult>";

	(void)state;
	assert_parses(0, repeated(begin, "k", LISTING_XML_TEXT_MAX, end));
	assert_int_equal(r.n, 1);
	assert_parses(-EPROTO,
		      repeated(begin, "k", LISTING_XML_TEXT_MAX + 1, end));
	assert_parses(-EPROTO,
		      repeated(begin, "&amp;", LISTING_XML_TEXT_MAX + 1, end));
}

static void test_listing_xml__limits_entries(void **state)
{
	static const char entry[] =
		"<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>";

	(void)state;
	assert_parses(0,
		      repeated("<ListBucketResult>", entry,
			       LISTING_XML_ENTRIES_MAX, "</ListBucketResult>"));
	assert_parses(-EPROTO, repeated("<ListBucketResult>", entry,
					LISTING_XML_ENTRIES_MAX + 1,
					"</ListBucketResult>"));
	assert_int_equal(r.n, LISTING_XML_ENTRIES_MAX);
}

static void test_listing_xml__limits_a_tag_that_does_not_end(void **state)
{
	(void)state;
	assert_parses(-EPROTO,
		      repeated("<ListBucketResult a=\"", "x", 1 << 20, ""));
	assert_parses(-EPROTO,
		      repeated("<ListBucketResult><!--", "x", 1 << 20, ""));
}

static void test_listing_xml__limits_bytes(void **state)
{
	(void)state;
	assert_parses(-EPROTO, repeated("<ListBucketResult>", "<a/>",
					LISTING_XML_BYTES_MAX / 4,
					"</ListBucketResult>"));
}

static void test_listing_xml__hands_back_what_its_callback_gave(void **state)
{
	(void)state;
	memset(&r, 0, sizeof(r));
	r.answer = -ENOSPC;
	assert_int_equal(parse_in_steps(real_page, sizeof(real_page) - 1, 64,
					&r),
			 -ENOSPC);
	assert_int_equal(r.n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listing_xml__reads_a_real_page),
		cmocka_unit_test(
			test_listing_xml__reads_it_in_pieces_of_any_size),
		cmocka_unit_test(test_listing_xml__reads_folders),
		cmocka_unit_test(test_listing_xml__takes_an_empty_result),
		cmocka_unit_test(test_listing_xml__takes_any_namespace_prefix),
		cmocka_unit_test(test_listing_xml__skips_what_it_does_not_know),
		cmocka_unit_test(test_listing_xml__keeps_an_etag_of_any_form),
		cmocka_unit_test(test_listing_xml__does_not_guess_a_time),
		cmocka_unit_test(test_listing_xml__rejects_what_is_no_listing),
		cmocka_unit_test(test_listing_xml__rejects_a_page_cut_short),
		cmocka_unit_test(test_listing_xml__stops_at_any_entity),
		cmocka_unit_test(test_listing_xml__limits_depth),
		cmocka_unit_test(test_listing_xml__limits_the_text_of_a_field),
		cmocka_unit_test(test_listing_xml__limits_entries),
		cmocka_unit_test(
			test_listing_xml__limits_a_tag_that_does_not_end),
		cmocka_unit_test(test_listing_xml__limits_bytes),
		cmocka_unit_test(
			test_listing_xml__hands_back_what_its_callback_gave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

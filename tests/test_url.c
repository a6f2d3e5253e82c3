#include "tests/support/cmocka_all.h"

#include <errno.h>
#include <stdlib.h>

#include "fetch/url.h"

static void assert_text(char *got, const char *expected)
{
	assert_non_null(got);
	assert_string_equal(got, expected);
	free(got);
}

static void test_url__puts_a_key_under_its_base(void **state)
{
	(void)state;
	assert_text(url_object("https://data.binance.vision", "data/a-b_c.zip"),
		    "https://data.binance.vision/data/a-b_c.zip");
	assert_text(url_object("http://127.0.0.1:8080/base//", "data/x"),
		    "http://127.0.0.1:8080/base/data/x");
}

/* python3 -c 'import urllib.parse as u; print(u.quote("币安人生USDT"))' */
static void test_url__escapes_all_that_is_not_unreserved(void **state)
{
	(void)state;
	assert_text(url_object("http://h", "data/币安人生USDT/x.zip"),
		    "http://h/data/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT/"
		    "x.zip");
	assert_text(url_object("http://h", "a b?c#d%e&f+g=h\r\n~"),
		    "http://h/a%20b%3Fc%23d%25e%26f%2Bg%3Dh%0D%0A~");
	assert_text(url_object("http://h", "a//b/"), "http://h/a//b/");
}

static void test_url__asks_for_a_page_of_a_listing(void **state)
{
	static const char bucket[] = "http://h/data.binance.vision";

	(void)state;
	assert_text(url_listing(bucket, "", "", 0),
		    "http://h/data.binance.vision?delimiter=/&prefix=");
	assert_text(url_listing(bucket, "data/a&b/", "data/a&b/c=1", 7),
		    "http://h/data.binance.vision?delimiter=/"
		    "&prefix=data/a%26b/&marker=data/a%26b/c%3D1&max-keys=7");
}

static void test_url__takes_bases_of_http_and_https_only(void **state)
{
	static const char *const good[] = {
		"http://127.0.0.1:1",
		"https://data.binance.vision",
		"https://s3-ap-northeast-1.amazonaws.com/data.binance.vision",
		"http://[::1]:8080/",
	};
	static const char *const bad[] = {
		"",
		"data.binance.vision",
		"ftp://h/",
		"file:///etc/passwd",
		"javascript:alert(1)",
		"http://",
		"https://user@h/",
		"https://user:secret@h/",
		"https://h/?x=1",
		"https://h/#x",
		"https://h o/",
		"https://h:99999/",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_int_equal(url_check_base(good[i]), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (url_check_base(bad[i]) != -EINVAL)
			fail_msg("%s", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_url__puts_a_key_under_its_base),
		cmocka_unit_test(test_url__escapes_all_that_is_not_unreserved),
		cmocka_unit_test(test_url__asks_for_a_page_of_a_listing),
		cmocka_unit_test(test_url__takes_bases_of_http_and_https_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

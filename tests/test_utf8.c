/* Expected values: RFC 3629 and its ABNF; U+10FFFF is f4 8f bf bf. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fs/utf8.h"

static void test_utf8__characters_have_their_length(void **state)
{
	(void)state;
	assert_int_equal(utf8_char("", 1), 1); /* U+0000 */
	assert_int_equal(utf8_char("A", 1), 1);
	assert_int_equal(utf8_char("\xc2\x80", 2), 2);
	assert_int_equal(utf8_char("\xe5\xb8\x81X", 4), 3);
	assert_int_equal(utf8_char("\xed\x9f\xbf", 3), 3);
	assert_int_equal(utf8_char("\xee\x80\x80", 3), 3);
	assert_int_equal(utf8_char("\xf0\x90\x80\x80", 4), 4);
	assert_int_equal(utf8_char("\xf4\x8f\xbf\xbf", 4), 4);
}

static void test_utf8__malformed_sequences_are_none(void **state)
{
	static const char *const wrong[] = {
		"\x80",		    /* no first byte */
		"\xc0\xaf",	    /* overlong '/' */
		"\xc1\xbf",	    /* overlong */
		"\xe0\x9f\xbf",	    /* overlong */
		"\xf0\x8f\xbf\xbf", /* overlong */
		"\xed\xa0\x80",	    /* surrogate U+D800 */
		"\xf4\x90\x80\x80", /* U+110000 */
		"\xf5\x80\x80\x80",
		"\xff",
		"\xe5\xb8" /* cut short */,
		"\xe5\xb8X",
		"\xf0\x90\x80",
	};

	(void)state;
	assert_int_equal(utf8_char("A", 0), 0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(utf8_char(wrong[i], strlen(wrong[i])), 0);
}

static void test_utf8__names_have_no_control_characters(void **state)
{
	(void)state;
	assert_true(utf8_is_name("", 0));
	assert_true(utf8_is_name("a b\xe5\xb8\x81", 6));
	assert_false(utf8_is_name("a\nb", 3));
	assert_false(utf8_is_name("a\x7f", 2));
	assert_false(utf8_is_name("a\0b", 3));
	assert_false(utf8_is_name("a\xff", 2));
	assert_false(utf8_is_name("\xe5\xb8\x81", 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_utf8__characters_have_their_length),
		cmocka_unit_test(test_utf8__malformed_sequences_are_none),
		cmocka_unit_test(test_utf8__names_have_no_control_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

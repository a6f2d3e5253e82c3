#include "tests/support/cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fetch/checksum.h"

/* printf abc | sha256sum; also FIPS 180-2 appendix B.1 */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static const uint8_t abc[CHECKSUM_DIGEST_LEN] = {
	0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
	0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
	0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
};

static const char name[] = "BTCUSDT-1m-2024-01-01.zip";

static void assert_reads(const char *text, const char *for_name)
{
	uint8_t digest[CHECKSUM_DIGEST_LEN] = {0};

	assert_int_equal(checksum_parse(text, strlen(text), for_name, digest),
			 0);
	assert_memory_equal(digest, abc, sizeof(abc));
}

static void assert_rejects(const void *text, size_t len, const char *for_name)
{
	uint8_t digest[CHECKSUM_DIGEST_LEN], before[CHECKSUM_DIGEST_LEN];

	memset(digest, 0x5a, sizeof(digest));
	memcpy(before, digest, sizeof(digest));
	assert_int_equal(checksum_parse(text, len, for_name, digest), -EPROTO);
	assert_memory_equal(digest, before, sizeof(digest));
}

static void test_checksum__reads_a_line_without_lf_as_spot_has_it(void **state)
{
	(void)state;
	assert_reads(ABC "  BTCUSDT-1m-2024-01-01.zip", name);
}

static void test_checksum__reads_a_line_with_lf_as_futures_have_it(void **state)
{
	(void)state;
	assert_reads(ABC "  BTCUSDT-1m-2024-01-01.zip\n", name);
}

static void test_checksum__reads_the_star_of_binary_mode(void **state)
{
	(void)state;
	assert_reads(ABC " *BTCUSDT-1m-2024-01-01.zip\n", name);
}

static void test_checksum__reads_digits_of_either_case(void **state)
{
	(void)state;
	assert_reads("BA7816BF8F01CFEA414140DE5DAE2223"
		     "B00361A396177A9CB410FF61F20015AD  a.zip",
		     "a.zip");
}

static void test_checksum__reads_a_name_in_chinese(void **state)
{
	(void)state;
	assert_reads(ABC "  币安人生USDT-1m-2026-01-01.zip",
		     "币安人生USDT-1m-2026-01-01.zip");
}

static void test_checksum__rejects_every_other_line(void **state)
{
	static const char *const bad[] = {
		"",
		"\n",
		ABC,
		ABC "  ",
		ABC "  \n",
		ABC "  a.zi",
		ABC "  a.zipp",
		ABC "  b.zip",
		ABC "  A.zip",
		ABC "  ./a.zip",
		ABC "  dir/a.zip",
		ABC " a.zip",
		ABC "   a.zip",
		ABC "\t a.zip",
		ABC "  a.zip ",
		ABC "  a.zip\r\n",
		ABC "  a.zip\n\n",
		ABC "  a.zip\n" ABC "  a.zip\n",
		"\\" ABC "  a.zip",
		" " ABC "  a.zip",
		"\xef\xbb\xbf" ABC "  a.zip",
		ABC "0  a.zip",
		"g" ABC "  a.zip",
		"SHA256 (a.zip) = " ABC,
		"<!DOCTYPE html><html><body>404 not found, and enough of it to "
		"fill a line</body></html>",
	};

	(void)state;
	assert_reads(ABC "  a.zip", "a.zip");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_rejects(bad[i], strlen(bad[i]), "a.zip");
}

static void test_checksum__rejects_a_bad_digit_wherever_it_stands(void **state)
{
	static const char digits[] = "gG/:@`\n x";
	char line[] = ABC "  a.zip";

	(void)state;
	for (size_t i = 0; i < 64; i++) {
		char good = line[i];

		for (size_t j = 0; j < sizeof(digits); j++) {
			line[i] = digits[j];
			assert_rejects(line, sizeof(line) - 1, "a.zip");
		}
		line[i] = good;
	}
}

static void test_checksum__rejects_every_shorter_part_of_a_line(void **state)
{
	static const char line[] = ABC "  a.zip";

	(void)state;
	for (size_t len = 0; len < sizeof(line) - 1; len++)
		assert_rejects(line, len, "a.zip");
}

static void test_checksum__rejects_a_nul_in_the_line(void **state)
{
	static const char line[] = ABC "  a.zip\0";

	(void)state;
	assert_rejects(line, sizeof(line) - 1, "a.zip");
}

static void test_checksum__rejects_an_empty_name(void **state)
{
	(void)state;
	assert_rejects(ABC "  ", 66, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_checksum__reads_a_line_without_lf_as_spot_has_it),
		cmocka_unit_test(
			test_checksum__reads_a_line_with_lf_as_futures_have_it),
		cmocka_unit_test(test_checksum__reads_the_star_of_binary_mode),
		cmocka_unit_test(test_checksum__reads_digits_of_either_case),
		cmocka_unit_test(test_checksum__reads_a_name_in_chinese),
		cmocka_unit_test(test_checksum__rejects_every_other_line),
		cmocka_unit_test(
			test_checksum__rejects_a_bad_digit_wherever_it_stands),
		cmocka_unit_test(
			test_checksum__rejects_every_shorter_part_of_a_line),
		cmocka_unit_test(test_checksum__rejects_a_nul_in_the_line),
		cmocka_unit_test(test_checksum__rejects_an_empty_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cache/verdict.h"

/* Design section 3, spelt out for all 54 cases of evidence. S silent, H holds,
 * F fails; in the order sha256, etag, crc. */
static const struct {
	bool expects;
	const char *witnesses;
	const char *verdict;
} cases[] = {
	/* The contents contradict themselves: nothing else matters. */
	{true, "HHF", "damaged"},
	{true, "HSF", "damaged"},
	{true, "HFF", "damaged"},
	{true, "FHF", "damaged"},
	{true, "FSF", "damaged"},
	{true, "FFF", "damaged"},
	{true, "SHF", "damaged"},
	{true, "SSF", "damaged"},
	{true, "SFF", "damaged"},
	{false, "HHF", "damaged"},
	{false, "HSF", "damaged"},
	{false, "HFF", "damaged"},
	{false, "FHF", "damaged"},
	{false, "FSF", "damaged"},
	{false, "FFF", "damaged"},
	{false, "SHF", "damaged"},
	{false, "SSF", "damaged"},
	{false, "SFF", "damaged"},
	/* The published digest is the strongest witness. */
	{true, "HHH", "verified"},
	{true, "HSH", "verified"},
	{true, "HFH", "verified"},
	{true, "HHS", "verified"},
	{true, "HSS", "verified"},
	{true, "HFS", "verified"},
	{false, "HHH", "verified"},
	{false, "HSH", "verified"},
	{false, "HFH", "verified"},
	{false, "HHS", "verified"},
	{false, "HSS", "verified"},
	{false, "HFS", "verified"},
	/* It is stale where the two others agree. */
	{true, "FHH", "checksum_stale"},
	{true, "FHS", "checksum_stale"},
	{false, "FHH", "checksum_stale"},
	{false, "FHS", "checksum_stale"},
	{true, "FSH", "damaged"},
	{true, "FSS", "damaged"},
	{true, "FFH", "damaged"},
	{true, "FFS", "damaged"},
	{false, "FSH", "damaged"},
	{false, "FSS", "damaged"},
	{false, "FFH", "damaged"},
	{false, "FFS", "damaged"},
	/* None was published. */
	{true, "SHH", "checksum_missing"},
	{true, "SHS", "checksum_missing"},
	{true, "SSH", "checksum_missing"},
	{true, "SSS", "checksum_missing"},
	{true, "SFH", "damaged"},
	{true, "SFS", "damaged"},
	{false, "SHH", "verified"},
	{false, "SHS", "verified"},
	{false, "SSH", "verified"},
	{false, "SSS", "verified"},
	{false, "SFH", "damaged"},
	{false, "SFS", "damaged"},
};

static enum verdict_witness witness(char c)
{
	return c == 'H'	  ? VERDICT_HOLDS
	       : c == 'F' ? VERDICT_FAILS
			  : VERDICT_SILENT;
}

static void test_verdict__follows_the_three_witnesses(void **state)
{
	(void)state;
	assert_int_equal(sizeof(cases) / sizeof(cases[0]), 2 * 27);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct verdict_evidence e = {
			.expects_checksum = cases[i].expects,
			.sha256 = witness(cases[i].witnesses[0]),
			.etag = witness(cases[i].witnesses[1]),
			.crc = witness(cases[i].witnesses[2]),
		};

		assert_string_equal(verdict_name(verdict_decide(&e)),
				    cases[i].verdict);
	}
}

static void test_verdict__strict_serves_verified_only(void **state)
{
	(void)state;
	assert_true(verdict_serves(VERDICT_VERIFIED, false));
	assert_false(verdict_serves(VERDICT_CHECKSUM_STALE, false));
	assert_false(verdict_serves(VERDICT_CHECKSUM_MISSING, false));
	assert_false(verdict_serves(VERDICT_DAMAGED, false));
	assert_false(verdict_serves(VERDICT_NONE, false));
}

static void test_verdict__lenient_never_serves_damage(void **state)
{
	(void)state;
	assert_true(verdict_serves(VERDICT_VERIFIED, true));
	assert_true(verdict_serves(VERDICT_CHECKSUM_STALE, true));
	assert_true(verdict_serves(VERDICT_CHECKSUM_MISSING, true));
	assert_false(verdict_serves(VERDICT_DAMAGED, true));
	assert_false(verdict_serves(VERDICT_NONE, true));
}

static void test_verdict__names_are_read_back(void **state)
{
	(void)state;
	for (int v = VERDICT_NONE; v <= VERDICT_DAMAGED; v++)
		assert_int_equal(verdict_parse(verdict_name(v)), v);
	assert_int_equal(verdict_parse("fine"), VERDICT_NONE);
	assert_string_equal(verdict_name((enum verdict)99), "");
	assert_string_equal(verdict_name((enum verdict) - 1), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdict__follows_the_three_witnesses),
		cmocka_unit_test(test_verdict__strict_serves_verified_only),
		cmocka_unit_test(test_verdict__lenient_never_serves_damage),
		cmocka_unit_test(test_verdict__names_are_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

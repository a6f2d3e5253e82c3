/*
 * utf8 - the table of well-formed byte sequences of Unicode (table 3-7, the
 * same as the ABNF of RFC 3629 section 4): the first byte tells how many follow
 * and which the second may be; all later ones are 0x80 to 0xbf.
 */
#include "fs/utf8.h"

static const struct {
	unsigned char first, last; /* of the first byte */
	unsigned char low, high;   /* of the second */
	unsigned char len;
} sequences[] = {
	{0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2},
	{0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
	{0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
	{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
	{0xf4, 0xf4, 0x80, 0x8f, 4},
};

static bool sequence_ok(const unsigned char *s, size_t i)
{
	if (sequences[i].len == 1)
		return true;
	if (s[1] < sequences[i].low || s[1] > sequences[i].high)
		return false;
	for (size_t k = 2; k < sequences[i].len; k++)
		if (s[k] < 0x80 || s[k] > 0xbf)
			return false;
	return true;
}

size_t utf8_char(const char *s, size_t len)
{
	const unsigned char *u = (const unsigned char *)s;

	if (len == 0)
		return 0;
	for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
		if (u[0] < sequences[i].first || u[0] > sequences[i].last)
			continue;
		if (sequences[i].len > len || !sequence_ok(u, i))
			return 0;
		return sequences[i].len;
	}
	return 0;
}

bool utf8_is_name(const char *s, size_t len)
{
	size_t n;

	for (; len > 0; s += n, len -= n) {
		if ((unsigned char)s[0] < 0x20 || s[0] == 0x7f)
			return false;
		n = utf8_char(s, len);
		if (n == 0)
			return false;
	}
	return true;
}

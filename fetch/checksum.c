#include "fetch/checksum.h"

#include <errno.h>
#include <string.h>

enum {
	HEX_LEN = 2 * CHECKSUM_DIGEST_LEN,
	NAME_AT = HEX_LEN + 2,
};

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int checksum_parse(const void *text, size_t len, const char *name,
		   uint8_t digest[CHECKSUM_DIGEST_LEN])
{
	uint8_t parsed[CHECKSUM_DIGEST_LEN];
	size_t name_len = strlen(name);
	const char *s = text;

	if (len > 0 && s[len - 1] == '\n')
		len--;
	if (name_len == 0 || len < NAME_AT || len - NAME_AT != name_len)
		return -EPROTO;
	for (size_t i = 0; i < CHECKSUM_DIGEST_LEN; i++) {
		int hi = hex_value(s[2 * i]), lo = hex_value(s[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EPROTO;
		parsed[i] = (uint8_t)(hi << 4 | lo);
	}
	if (s[HEX_LEN] != ' ' ||
	    (s[HEX_LEN + 1] != ' ' && s[HEX_LEN + 1] != '*'))
		return -EPROTO;
	if (memcmp(s + NAME_AT, name, name_len) != 0)
		return -EPROTO;
	memcpy(digest, parsed, sizeof(parsed));
	return 0;
}

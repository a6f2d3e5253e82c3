#include "cache/verdict.h"

#include <stddef.h>
#include <string.h>

static const char *const names[] = {
	[VERDICT_NONE] = "",
	[VERDICT_VERIFIED] = "verified",
	[VERDICT_CHECKSUM_STALE] = "checksum_stale",
	[VERDICT_CHECKSUM_MISSING] = "checksum_missing",
	[VERDICT_DAMAGED] = "damaged",
};
enum { VERDICTS = sizeof(names) / sizeof(names[0]) };

enum verdict verdict_decide(const struct verdict_evidence *e)
{
	if (e->crc == VERDICT_FAILS)
		return VERDICT_DAMAGED;
	if (e->sha256 == VERDICT_HOLDS)
		return VERDICT_VERIFIED;
	if (e->sha256 == VERDICT_FAILS)
		return e->etag == VERDICT_HOLDS ? VERDICT_CHECKSUM_STALE
						: VERDICT_DAMAGED;
	if (e->etag == VERDICT_FAILS)
		return VERDICT_DAMAGED;
	return e->expects_checksum ? VERDICT_CHECKSUM_MISSING
				   : VERDICT_VERIFIED;
}

bool verdict_serves(enum verdict v, bool lenient)
{
	switch (v) {
	case VERDICT_VERIFIED:
		return true;
	case VERDICT_CHECKSUM_STALE:
	case VERDICT_CHECKSUM_MISSING:
		return lenient;
	case VERDICT_NONE:
	case VERDICT_DAMAGED:
		break;
	}
	return false;
}

const char *verdict_name(enum verdict v)
{
	return (unsigned int)v < VERDICTS ? names[v] : "";
}

enum verdict verdict_parse(const char *name)
{
	for (size_t i = 0; i < VERDICTS; i++)
		if (strcmp(name, names[i]) == 0)
			return (enum verdict)i;
	return VERDICT_NONE;
}

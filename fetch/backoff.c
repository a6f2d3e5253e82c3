#include "fetch/backoff.h"

#include <ctype.h>
#include <curl/curl.h>
#include <string.h>

enum {
	/* A longer Retry-After is none that anybody would wait for. */
	RETRY_AFTER_MAX_S = 365 * 86400,
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* base * 2^attempt, at most the ceiling. */
static uint64_t bound(const struct backoff *b, unsigned int attempt)
{
	if (b->base_ms == 0)
		return 0;
	if (attempt >= 63 || b->base_ms > b->ceiling_ms >> attempt)
		return b->ceiling_ms;
	return b->base_ms << attempt;
}

uint64_t backoff_ms(const struct backoff *b, unsigned int attempt,
		    uint64_t retry_after_ms, uint64_t random)
{
	uint64_t max = bound(b, attempt), wait;

	wait = max == UINT64_MAX ? random : random % (max + 1);
	retry_after_ms = min_u64(retry_after_ms, BACKOFF_RETRY_AFTER_MAX_MS);
	return wait < retry_after_ms ? retry_after_ms : wait;
}

static uint64_t seconds_of(const char *digits)
{
	uint64_t s = 0;

	for (; *digits && s < RETRY_AFTER_MAX_S; digits++)
		s = s * 10 + (uint64_t)(*digits - '0');
	return min_u64(s, RETRY_AFTER_MAX_S);
}

uint64_t backoff_retry_after_ms(const char *value, int64_t now)
{
	int64_t at;

	if (*value && value[strspn(value, "0123456789")] == '\0')
		return seconds_of(value) * 1000;
	/* curl_getdate() would take a bare number for a date, too. */
	if (!isalpha((unsigned char)*value))
		return 0;
	at = curl_getdate(value, NULL);
	if (at == -1 || at <= now)
		return 0;
	return min_u64((uint64_t)(at - now), RETRY_AFTER_MAX_S) * 1000;
}

/*
 * dataset - the tables; every one is sorted by strcmp() and searched with
 * bsearch(3). A dataset that is dead or withdrawn keeps its row: what was
 * published once may still lie in a cache or on a mirror.
 */
#include "fs/dataset.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct market markets[] = {
	{"cm", "data/futures/cm/"},
	{"option", "data/option/"},
	{"spot", "data/spot/"},
	{"um", "data/futures/um/"},
};

enum { DAILY = 1, MONTHLY = 2, INTERVALS = 4 };

#define ROW(m, n, flags)                                                       \
	{                                                                      \
		.market = (m), .name = (n), .daily = ((flags)&DAILY) != 0,     \
		.monthly = ((flags)&MONTHLY) != 0,                             \
		.intervals = ((flags)&INTERVALS) != 0                          \
	}

static const struct dataset datasets[] = {
	ROW("cm", "aggTrades", DAILY | MONTHLY),
	ROW("cm", "bookDepth", DAILY),
	ROW("cm", "bookTicker", DAILY | MONTHLY),
	ROW("cm", "fundingRate", MONTHLY),
	ROW("cm", "indexPriceKlines", DAILY | MONTHLY | INTERVALS),
	ROW("cm", "klines", DAILY | MONTHLY | INTERVALS),
	ROW("cm", "liquidationSnapshot", DAILY),
	ROW("cm", "markPriceKlines", DAILY | MONTHLY | INTERVALS),
	ROW("cm", "metrics", DAILY),
	ROW("cm", "premiumIndexKlines", DAILY | MONTHLY | INTERVALS),
	ROW("cm", "trades", DAILY | MONTHLY),
	ROW("option", "BVOLIndex", DAILY),
	ROW("option", "EOHSummary", DAILY),
	ROW("spot", "aggTrades", DAILY | MONTHLY),
	ROW("spot", "klines", DAILY | MONTHLY | INTERVALS),
	ROW("spot", "trades", DAILY | MONTHLY),
	ROW("um", "aggTrades", DAILY | MONTHLY),
	ROW("um", "bookDepth", DAILY),
	ROW("um", "bookTicker", DAILY | MONTHLY),
	ROW("um", "fundingRate", MONTHLY),
	ROW("um", "indexPriceKlines", DAILY | MONTHLY | INTERVALS),
	ROW("um", "klines", DAILY | MONTHLY | INTERVALS),
	ROW("um", "liquidationSnapshot", DAILY),
	ROW("um", "markPriceKlines", DAILY | MONTHLY | INTERVALS),
	ROW("um", "metrics", DAILY),
	ROW("um", "premiumIndexKlines", DAILY | MONTHLY | INTERVALS),
	ROW("um", "trades", DAILY | MONTHLY),
};

/* "1mo" is the archive's spelling of a month, so that it never meets "1m" on a
 * file system that ignores case. */
static const char *const intervals[] = {
	"12h", "15m", "1d", "1h", "1m", "1mo", "1s", "1w",
	"2h",  "30m", "3d", "3m", "4h", "5m",  "6h", "8h",
};

/* A name as a path gives it: no terminator. */
struct text {
	const char *s;
	size_t len;
};

static int compare_text(const struct text *a, const char *b)
{
	size_t b_len = strlen(b);
	int order = memcmp(a->s, b, a->len < b_len ? a->len : b_len);

	if (order)
		return order;
	return a->len < b_len ? -1 : a->len > b_len;
}

static int compare_market(const void *key, const void *row)
{
	return compare_text(key, ((const struct market *)row)->name);
}

static int compare_interval(const void *key, const void *row)
{
	return compare_text(key, *(const char *const *)row);
}

struct dataset_key {
	const struct market *market;
	struct text name;
};

static int compare_dataset(const void *a, const void *b)
{
	const struct dataset_key *key = a;
	const struct dataset *row = b;
	int order = strcmp(key->market->name, row->market);

	return order ? order : compare_text(&key->name, row->name);
}

const struct market *dataset_markets(size_t *n)
{
	*n = COUNT(markets);
	return markets;
}

const struct market *dataset_market(const char *name, size_t len)
{
	struct text key = {name, len};

	return bsearch(&key, markets, COUNT(markets), sizeof(markets[0]),
		       compare_market);
}

const struct dataset *dataset_all(size_t *n)
{
	*n = COUNT(datasets);
	return datasets;
}

const struct dataset *dataset_find(const struct market *m, const char *name,
				   size_t len)
{
	struct dataset_key key = {m, {name, len}};

	return bsearch(&key, datasets, COUNT(datasets), sizeof(datasets[0]),
		       compare_dataset);
}

bool dataset_interval_ok(const char *name, size_t len)
{
	struct text key = {name, len};

	return bsearch(&key, intervals, COUNT(intervals), sizeof(intervals[0]),
		       compare_interval) != NULL;
}

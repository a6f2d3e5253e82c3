/*
 * rows - a CSV of any size to standard output, at the speed of a disk.
 *
 *	rows trades BYTES SEED
 *	rows quiet BYTES SEED
 *
 * trades: spot aggTrades in the shape of the archive, which zlib's level 6
 * makes a quarter of, as it does with real ones. quiet: one-second candles of
 * a symbol that hardly trades, which it makes a twentieth of. The last line is
 * cut so that there are exactly BYTES. tests/generate makes truer rows, at a
 * hundredth of the speed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 256 };

static uint64_t state;

/* xorshift64*: Marsaglia 2003, Vigna 2014. */
static uint32_t draw(uint32_t below)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((((state * UINT64_C(0x2545f4914f6cdd1d)) >> 32) *
			   below) >>
			  32);
}

static int trade(char *line, uint64_t n)
{
	static uint64_t time_us = UINT64_C(1735689600000000);
	static uint64_t first = 4567890123;
	static uint32_t cents = 6142000;
	const char *maker = draw(2) ? "True" : "False";
	/* Most trades are small, of any odd amount. */
	uint32_t quantity = 1 + draw(UINT32_C(1) << (14 + draw(12)));
	uint64_t last;
	int len;

	/* Some share a time, some more a price. */
	if (draw(8))
		time_us += draw(UINT32_C(1) << (14 + draw(8)));
	if (draw(6))
		cents += draw(900) - 450;
	last = first + (draw(3) ? 0 : draw(6));
	len = snprintf(line, LINE_MAX_BYTES,
		       "%" PRIu64 ",%u.%02u000000,%u.%05u000,%" PRIu64
		       ",%" PRIu64 ",%" PRIu64 ",%s,True\n",
		       UINT64_C(3210987654) + n, cents / 100, cents % 100,
		       quantity / 100000, quantity % 100000, first, last,
		       time_us, maker);
	first = last + 1;
	return len;
}

static int quiet(char *line, uint64_t n)
{
	static uint32_t price = 1234;
	uint64_t open_ms = UINT64_C(1704067200000) + n * 1000;

	if (!draw(20))
		price += draw(9) - 4;
	return snprintf(line, LINE_MAX_BYTES,
			"%" PRIu64 ",0.%08u,0.%08u,0.%08u,0.%08u,%u.00000000,"
			"%" PRIu64 ",%u.00000000,%u,0.00000000,0.00000000,0\n",
			open_ms, price, price, price, price,
			draw(20) ? 0 : draw(900), open_ms + 999, 0U, 0U);
}

int main(int argc, char **argv)
{
	int (*row)(char *line, uint64_t n) = trade;
	char line[LINE_MAX_BYTES];
	uint64_t left;

	if (argc != 4 ||
	    (strcmp(argv[1], "trades") != 0 && strcmp(argv[1], "quiet") != 0)) {
		fputs("usage: rows trades|quiet BYTES SEED\n", stderr);
		return 2;
	}
	if (argv[1][0] == 'q')
		row = quiet;
	left = strtoull(argv[2], NULL, 10);
	state = strtoull(argv[3], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
	for (uint64_t n = 0; left; n++) {
		size_t len = (size_t)row(line, n);

		if (len > left)
			len = (size_t)left;
		if (fwrite(line, 1, len, stdout) != len)
			break;
		left -= len;
	}
	if (left || fflush(stdout)) {
		fprintf(stderr, "rows: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}

/*
 * date - the proleptic Gregorian calendar, which is the one of ISO 8601 and of
 * the names in the archive.
 */
#include "fs/date.h"

#include <string.h>

enum { YEAR_FIRST = 1970, YEAR_LAST = 9999 };
enum { DAYS_LAST = 2932896 }; /* 9999-12-31 */

/* Months are counted from March here: the day that leap years add is then the
 * last one of a year, and 153 days are always five months. */
enum {
	DAYS_PER_ERA = 146097, /* 400 years */
	DAYS_TO_1970 = 719468, /* from 0000-03-01 */
};

static bool is_leap(int year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static bool parse_digits(const char *s, size_t n, int *out)
{
	int value = 0;

	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		value = value * 10 + (s[i] - '0');
	}
	*out = value;
	return true;
}

static bool date_is_real(int year, int month, int day)
{
	struct date first = {.year = (int16_t)year, .month = (uint8_t)month};

	if (year < YEAR_FIRST || year > YEAR_LAST || month < 1 || month > 12)
		return false;
	return day >= 1 && day <= (int)date_days_in_month(first);
}

bool date_parse(const char *s, size_t len, bool unpadded, struct date *out)
{
	size_t month_digits = len == 6 && unpadded ? 1 : 2;
	int year, month, day = 1;

	if (len != 10 && len != 5 + month_digits)
		return false;
	if (!parse_digits(s, 4, &year) || s[4] != '-' ||
	    !parse_digits(s + 5, month_digits, &month))
		return false;
	if (len == 10 && (s[7] != '-' || !parse_digits(s + 8, 2, &day)))
		return false;
	if (!date_is_real(year, month, day))
		return false;
	*out = (struct date){.year = (int16_t)year,
			     .month = (uint8_t)month,
			     .day = len == 10 ? (uint8_t)day : 0};
	return true;
}

/* The last @n digits of @value. */
static char *put_digits(char *to, int value, int n)
{
	for (int i = n - 1; i >= 0; i--, value /= 10)
		to[i] = (char)('0' + value % 10);
	return to + n;
}

size_t date_format(struct date d, char out[DATE_TEXT_MAX])
{
	char *to = put_digits(out, d.year, d.year > YEAR_LAST ? 5 : 4);

	*to++ = '-';
	to = put_digits(to, d.month, 2);
	if (!date_is_month(d)) {
		*to++ = '-';
		to = put_digits(to, d.day, 2);
	}
	*to = '\0';
	return (size_t)(to - out);
}

int date_compare(struct date a, struct date b)
{
	if (a.year != b.year)
		return a.year < b.year ? -1 : 1;
	if (a.month != b.month)
		return a.month < b.month ? -1 : 1;
	if (a.day != b.day)
		return a.day < b.day ? -1 : 1;
	return 0;
}

bool date_is_month(struct date d)
{
	return d.day == 0;
}

struct date date_month_of(struct date d)
{
	d.day = 0;
	return d;
}

unsigned int date_days_in_month(struct date d)
{
	static const uint8_t days[12] = {31, 28, 31, 30, 31, 30,
					 31, 31, 30, 31, 30, 31};

	if (d.month < 1 || d.month > 12)
		return 0;
	return days[d.month - 1] + (d.month == 2 && is_leap(d.year));
}

int64_t date_to_days(struct date d)
{
	int64_t year = d.month > 2 ? d.year : d.year - 1;
	int64_t from_march = d.month > 2 ? d.month - 3 : d.month + 9;
	int64_t day = date_is_month(d) ? 1 : d.day;

	return year * 365 + year / 4 - year / 100 + year / 400 +
	       (153 * from_march + 2) / 5 + day - 1 - DAYS_TO_1970;
}

/* Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
 * civil_from_days. */
struct date date_from_days(int64_t days)
{
	int64_t n, era, in_era, year, in_year, from_march;
	struct date d;

	days = days < 0 ? 0 : days > DAYS_LAST ? DAYS_LAST : days;
	n = days + DAYS_TO_1970;
	era = n / DAYS_PER_ERA;
	in_era = n % DAYS_PER_ERA;
	year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) /
	       365;
	in_year = in_era - (365 * year + year / 4 - year / 100);
	from_march = (5 * in_year + 2) / 153;
	d.day = (uint8_t)(in_year - (153 * from_march + 2) / 5 + 1);
	d.month = (uint8_t)(from_march < 10 ? from_march + 3 : from_march - 9);
	d.year = (int16_t)(era * 400 + year + (d.month <= 2));
	return d;
}

struct date date_next_day(struct date d)
{
	if (d.day < date_days_in_month(d)) {
		d.day++;
		return d;
	}
	d = date_next_month(d);
	d.day = 1;
	return d;
}

struct date date_next_month(struct date d)
{
	d.day = 0;
	if (d.month < 12) {
		d.month++;
		return d;
	}
	d.month = 1;
	d.year++;
	return d;
}

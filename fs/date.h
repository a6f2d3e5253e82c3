/*
 * date - the calendar: days and months, as text and as numbers. Pure.
 */
#ifndef FS_DATE_H
#define FS_DATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct date {
	int16_t year;  /* 1970 to 9999 */
	uint8_t month; /* 1 to 12 */
	uint8_t day;   /* 1 to 31; 0: the whole month */
};

enum { DATE_TEXT_MAX = 12 };

/* "2024-01-01" or "2024-01"; with @unpadded also "2020-8" (a month only).
 * @len bytes, no terminator needed. False if it is none, or not a real day. */
bool date_parse(const char *s, size_t len, bool unpadded, struct date *out);
/* "2024-01-01" or "2024-01", NUL-terminated; returns its length. */
size_t date_format(struct date d, char out[DATE_TEXT_MAX]);
/* By time; a month comes before its first day. */
int date_compare(struct date a, struct date b);
bool date_is_month(struct date d);
struct date date_month_of(struct date d);
unsigned int date_days_in_month(struct date d);
/* Days since 1970-01-01 of a day, or of the first day of a month; and back.
 * Numbers before 1970 or after 9999 give the nearest day of these years. */
int64_t date_to_days(struct date d);
struct date date_from_days(int64_t days);
/* The day after a day (after a month: its first day), and the month after a day
 * or month. 9999-12-31 is followed by 10000-01-01, which no text parses to, so
 * that a loop over any range ends. */
struct date date_next_day(struct date d);
struct date date_next_month(struct date d);

#endif

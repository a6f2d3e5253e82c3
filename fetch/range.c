#include "fetch/range.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

/* Digits only; strtoull(3) would take signs and blanks as well. */
static int number(const char **s, uint64_t *out)
{
	const char *p = *s;
	uint64_t n = 0;

	if (*p < '0' || *p > '9')
		return -EPROTO;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (n > (INT64_MAX - 9) / 10)
			return -EPROTO;
		n = n * 10 + (uint64_t)(*p - '0');
	}
	*s = p;
	*out = n;
	return 0;
}

static int bounds(const char **s, struct range *r)
{
	int err;

	if (**s == '*') {
		++*s;
		return 0;
	}
	r->satisfied = true;
	err = number(s, &r->first);
	if (err)
		return err;
	if (*(*s)++ != '-')
		return -EPROTO;
	return number(s, &r->last);
}

int range_parse(const char *value, struct range *r)
{
	struct range got = {.total = UINT64_MAX};
	const char *s = value;
	int err;

	if (strncasecmp(s, "bytes ", 6) != 0)
		return -EPROTO;
	s += 6;
	err = bounds(&s, &got);
	if (err)
		return err;
	if (*s++ != '/')
		return -EPROTO;
	if (*s == '*' && got.satisfied)
		s++;
	else
		err = number(&s, &got.total);
	if (err || *s != '\0')
		return -EPROTO;
	if (got.satisfied && (got.last < got.first || got.last >= got.total))
		return -EPROTO;
	*r = got;
	return 0;
}

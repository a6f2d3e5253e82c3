/*
 * config_table - the options.
 *
 * Defaults and bounds are kept as the text a user would write and go through
 * the same parsers as the user's own values: so what --help and the messages
 * say is what is checked.
 */
#include "fs/config_table.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum kind {
	FLAG,	  /* bool */
	CHOICE,	  /* bool: the second of two words */
	COUNTER,  /* unsigned int */
	NUMBER,	  /* double */
	RATE,	  /* double, per second */
	SIZE,	  /* uint64_t, bytes */
	DURATION, /* uint64_t, milliseconds */
	MIN_FREE, /* min_free_bytes or min_free_fraction */
	TEXT,	  /* char *, may be empty */
	FILENAME, /* char *, made absolute */
	URL,	  /* char *, without a slash at its end */
	RUN_ID,	  /* char * */
	LEVEL,	  /* enum log_level */
	CONFIG,	  /* read by config.c before all others */
};

struct config_option {
	const char *group, *name;
	const char *arg; /* what the help shows behind "=" */
	enum kind kind;
	size_t field;
	const char *fallback; /* the default's text; NULL: depends on others */
	const char *shown;    /* where fallback is NULL: what the help says */
	const char *min, *max;
	const char *none;     /* the word for 0 or NULL, if there is one */
	const char *words[2]; /* CHOICE */
	const char *example;  /* where the default is none */
	const char *help;
};

#define FIELD(name) offsetof(struct config, name)

/* Grouped as --help and the man page show them. */
static const struct config_option options[] = {
	{.group = "Where from",
	 .name = "origin",
	 .arg = "URL",
	 .kind = URL,
	 .field = FIELD(origin),
	 .shown = CONFIG_PUBLIC_ORIGIN,
	 .help = "base of the archives' URLs; keys are put behind it"},
	{.group = "Where from",
	 .name = "listing",
	 .arg = "URL",
	 .kind = URL,
	 .field = FIELD(listing),
	 .shown = CONFIG_PUBLIC_BUCKET,
	 .help = "the S3 bucket that lists the archive; needed with origin="},
	{.group = "Where from",
	 .name = "mirror",
	 .arg = "URL",
	 .kind = URL,
	 .field = FIELD(mirror),
	 .shown = CONFIG_PUBLIC_BUCKET,
	 .none = "none",
	 .help = "second host, asked where the first gives damaged bytes; none "
		 "if origin= is given without it"},
	{.group = "Where from",
	 .name = "offline",
	 .kind = FLAG,
	 .field = FIELD(offline),
	 .fallback = "no",
	 .help = "never touch the network: cached archives and listings only"},
	{.group = "Where from",
	 .name = "proxy",
	 .arg = "URL",
	 .kind = TEXT,
	 .field = FIELD(proxy),
	 .shown = "$https_proxy, $http_proxy, $ALL_PROXY",
	 .example = "http://proxy.example:3128",
	 .help = "as curl's --proxy; empty: no proxy"},
	{.group = "Where from",
	 .name = "no_proxy",
	 .arg = "HOSTS",
	 .kind = TEXT,
	 .field = FIELD(no_proxy),
	 .shown = "$no_proxy",
	 .example = "localhost",
	 .help = "hosts asked without the proxy, as curl's --noproxy; write "
		 "\"\\,\" for a comma"},
	{.group = "Where from",
	 .name = "cacert",
	 .arg = "FILE",
	 .kind = FILENAME,
	 .field = FIELD(cacert),
	 .shown = "the system's",
	 .example = "/etc/ssl/certs/ca-certificates.crt",
	 .help = "certificate authorities to trust, in PEM"},

	{.group = "How hard",
	 .name = "connections",
	 .arg = "N",
	 .kind = COUNTER,
	 .field = FIELD(connections),
	 .fallback = "8",
	 .min = "1",
	 .max = "256",
	 .help = "at most so many at a time"},
	{.group = "How hard",
	 .name = "retries",
	 .arg = "N",
	 .kind = COUNTER,
	 .field = FIELD(retries),
	 .fallback = "5",
	 .min = "0",
	 .max = "100",
	 .help = "tries after the first one that failed"},
	{.group = "How hard",
	 .name = "retry_base",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(retry_base_ms),
	 .fallback = "200ms",
	 .min = "1ms",
	 .max = "1h",
	 .help = "wait before the first retry; doubles with each"},
	{.group = "How hard",
	 .name = "retry_max",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(retry_max_ms),
	 .fallback = "30s",
	 .min = "1ms",
	 .max = "1h",
	 .help = "longest wait between tries"},
	{.group = "How hard",
	 .name = "connect_timeout",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(connect_timeout_ms),
	 .fallback = "10s",
	 .min = "100ms",
	 .max = "10m",
	 .help = "for a connection to be made"},
	{.group = "How hard",
	 .name = "stall_timeout",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(stall_timeout_ms),
	 .fallback = "30s",
	 .min = "100ms",
	 .max = "1h",
	 .help = "without a byte, then the try has failed"},
	{.group = "How hard",
	 .name = "deadline",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(deadline_ms),
	 .fallback = "none",
	 .min = "100ms",
	 .max = "30d",
	 .none = "none",
	 .example = "10m",
	 .help = "for a request with all its retries"},
	{.group = "How hard",
	 .name = "rate",
	 .arg = "RATE",
	 .kind = RATE,
	 .field = FIELD(rate_per_s),
	 .fallback = "50/s",
	 .min = "1/h",
	 .max = "100000/s",
	 .none = "none",
	 .help = "requests in the long run"},
	{.group = "How hard",
	 .name = "rate_burst",
	 .arg = "N",
	 .kind = NUMBER,
	 .field = FIELD(rate_burst),
	 .fallback = "500",
	 .min = "1",
	 .max = "1000000",
	 .help = "requests at once before rate= counts"},
	{.group = "How hard",
	 .name = "size_burst",
	 .arg = "N",
	 .kind = NUMBER,
	 .field = FIELD(size_burst),
	 .fallback = "4000",
	 .min = "1",
	 .max = "1000000",
	 .help = "the same for the small requests that ask for a file's size"},
	{.group = "How hard",
	 .name = "bandwidth",
	 .arg = "SIZE",
	 .kind = SIZE,
	 .field = FIELD(bandwidth_bytes_per_s),
	 .fallback = "none",
	 .min = "16K",
	 .max = "1T",
	 .none = "none",
	 .example = "2M",
	 .help = "bytes per second of all downloads together"},
	{.group = "How hard",
	 .name = "budget",
	 .arg = "SIZE",
	 .kind = SIZE,
	 .field = FIELD(budget_bytes),
	 .fallback = "none",
	 .min = "1M",
	 .max = "8192T",
	 .none = "none",
	 .example = "10G",
	 .help = "bytes a day (of UTC, also over several mounts), then what "
		 "is not cached can't be opened"},

	{.group = "Cache",
	 .name = "cache",
	 .arg = "DIR",
	 .kind = FILENAME,
	 .field = FIELD(cache),
	 .shown = "$XDG_CACHE_HOME/tickfs, ~/.cache/tickfs; as root without a "
		  "home /var/cache/tickfs",
	 .example = "/var/cache/tickfs",
	 .help = "folder of the cache, one for each mount"},
	{.group = "Cache",
	 .name = "quota",
	 .arg = "SIZE",
	 .kind = SIZE,
	 .field = FIELD(quota_bytes),
	 .fallback = "50G",
	 .min = "16M",
	 .max = "8192T",
	 .help = "limit of all that lies in the cache"},
	{.group = "Cache",
	 .name = "min_free",
	 .arg = "SIZE|N%",
	 .kind = MIN_FREE,
	 .fallback = "5%",
	 .help = "left free on the disk of the cache; 0: nothing"},
	{.group = "Cache",
	 .name = "integrity",
	 .arg = "WORD",
	 .kind = CHOICE,
	 .field = FIELD(lenient),
	 .fallback = "strict",
	 .words = {"strict", "lenient"},
	 .help = "strict: verified archives only; lenient: also those whose "
		 "checksum is stale or missing and whose CRC holds"},
	{.group = "Cache",
	 .name = "listing_ttl",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(listing_ttl_ms),
	 .fallback = "1h",
	 .min = "0",
	 .max = "3650d",
	 .help = "age at which a listing is asked for again"},
	{.group = "Cache",
	 .name = "negative_ttl",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(negative_ttl_ms),
	 .fallback = "5m",
	 .min = "0",
	 .max = "3650d",
	 .help = "so long an archive that is absent stays so unasked"},
	{.group = "Cache",
	 .name = "revalidate",
	 .arg = "TIME",
	 .kind = DURATION,
	 .field = FIELD(revalidate_ms),
	 .fallback = "1d",
	 .min = "0",
	 .max = "3650d",
	 .help = "age at which an archive is checked for a newer version when "
		 "it is opened (the open does not wait)"},

	{.group = "Reading",
	 .name = "prefer",
	 .arg = "WORD",
	 .kind = CHOICE,
	 .field = FIELD(prefer_monthly),
	 .fallback = "daily",
	 .words = {"daily", "monthly"},
	 .help = "daily or monthly: which archives are shown where days are "
		 "published as both"},
	{.group = "Reading",
	 .name = "memory",
	 .arg = "SIZE",
	 .kind = SIZE,
	 .field = FIELD(memory_bytes),
	 .fallback = "64M",
	 .min = "8M",
	 .max = "64G",
	 .help = "limit of what grows with load, mostly decoded bytes"},
	{.group = "Reading",
	 .name = "prefill",
	 .arg = "SIZE",
	 .kind = SIZE,
	 .field = FIELD(prefill_bytes),
	 .shown = "an eighth of the machine's memory",
	 .none = "off",
	 .min = "0",
	 .max = "64T",
	 .example = "1G",
	 .help = "up to so many bytes of CSVs go into the kernel's page cache "
		 "while they are downloaded, so that reading them is fast at "
		 "once"},

	{.group = "Log",
	 .name = "log",
	 .arg = "FILE",
	 .kind = FILENAME,
	 .field = FIELD(log),
	 .fallback = "stderr",
	 .none = "stderr",
	 .example = "/var/log/tickfs.jsonl",
	 .help = "JSON lines go there"},
	{.group = "Log",
	 .name = "log_level",
	 .arg = "WORD",
	 .kind = LEVEL,
	 .field = FIELD(log_level),
	 .fallback = "info",
	 .help = "debug, info, warn or error"},
	{.group = "Log",
	 .name = "run_id",
	 .arg = "NAME",
	 .kind = RUN_ID,
	 .field = FIELD(run_id),
	 .shown = "made from the time",
	 .example = "backtest-7",
	 .help = "name of this mount in log and ledger"},

	{.group = "Options",
	 .name = "config",
	 .arg = "FILE",
	 .kind = CONFIG,
	 .shown = "none",
	 .example = "/etc/tickfs.conf",
	 .help = "lines \"name = value\"; -o on the command line overrules "
		 "them"},
};

/* ---- from text to numbers ---- */

/* Digits only: no sign, no blank, nothing that wraps around. */
static bool take_digits(const char **s, uint64_t *out)
{
	uint64_t value = 0;
	const char *p;

	for (p = *s; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return false;
	}
	if (p == *s)
		return false;
	*s = p;
	*out = value;
	return true;
}

bool config_parse_size(const char *s, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	uint64_t value, unit = 1;

	if (!take_digits(&s, &value))
		return false;
	for (size_t i = 0; *s && units[i]; i++) {
		if (strncasecmp(s, units + i, 1) == 0) {
			unit <<= 10 * (i + 1);
			s++;
			break;
		}
	}
	return *s == '\0' && !__builtin_mul_overflow(value, unit, bytes);
}

bool config_parse_time(const char *s, uint64_t *ms)
{
	static const struct {
		const char *name;
		uint64_t ms;
	} units[] = {
		{"ms", 1},	{"s", 1000},	 {"m", 60000},
		{"h", 3600000}, {"d", 86400000},
	};
	uint64_t value;

	if (!take_digits(&s, &value))
		return false;
	if (value == 0 && *s == '\0') {
		*ms = 0;
		return true;
	}
	for (size_t i = 0; i < COUNT(units); i++)
		if (strcmp(s, units[i].name) == 0)
			return !__builtin_mul_overflow(value, units[i].ms, ms);
	return false;
}

/* Digits with at most one point among them: strtod() alone would also take
 * "inf", "nan", hexadecimal, signs and blanks. */
static bool take_decimal(const char **s, double *out)
{
	size_t digits = strspn(*s, "0123456789");
	size_t len = digits;
	char *end;
	double value;

	if ((*s)[len] == '.')
		len += 1 + strspn(*s + len + 1, "0123456789");
	if (digits == 0 || digits > 15 || (*s)[len - 1] == '.')
		return false;
	value = strtod(*s, &end);
	if (end != *s + len)
		return false;
	*s = end;
	*out = value;
	return true;
}

bool config_parse_rate(const char *s, double *per_s)
{
	double value;

	if (!take_decimal(&s, &value))
		return false;
	if (*s == '\0' || strcmp(s, "/s") == 0)
		*per_s = value;
	else if (strcmp(s, "/m") == 0)
		*per_s = value / 60;
	else if (strcmp(s, "/h") == 0)
		*per_s = value / 3600;
	else
		return false;
	return true;
}

static bool parse_counter(const char *s, double *out)
{
	uint64_t value;

	if (!take_digits(&s, &value) || *s)
		return false;
	*out = (double)value;
	return true;
}

/* Bounds end far below 2^53, up to where a double counts exactly. */
static bool parse_number(enum kind kind, const char *s, double *out)
{
	uint64_t value;

	switch (kind) {
	case COUNTER:
		return parse_counter(s, out);
	case NUMBER:
		return take_decimal(&s, out) && *s == '\0';
	case RATE:
		return config_parse_rate(s, out);
	case SIZE:
		if (!config_parse_size(s, &value))
			return false;
		break;
	case DURATION:
		if (!config_parse_time(s, &value))
			return false;
		break;
	default:
		return false;
	}
	*out = (double)value;
	return true;
}

/* ---- what is said of a wrong value ---- */

static void describe(const struct config_option *o, char *to, size_t size)
{
	static const char *const what[] = {
		[FLAG] = "yes or no",
		[COUNTER] = "a whole number",
		[NUMBER] = "a number",
		[RATE] = "a rate (per /s /m /h)",
		[SIZE] = "a size (units K M G T)",
		[DURATION] = "a time (units ms s m h d)",
		[MIN_FREE] = "a share of the disk from 0% to 99% or a size "
			     "(units K M G T)",
		[TEXT] = "text",
		[FILENAME] = "a path",
		[URL] = "http://HOST[:PORT][/PATH] or https://...",
		[RUN_ID] = "1 to 64 of A-Z a-z 0-9 . _ -",
		[LEVEL] = "debug, info, warn or error",
		[CONFIG] = "a path",
	};
	int n;

	if (o->kind == CHOICE)
		n = snprintf(to, size, "%s or %s", o->words[0], o->words[1]);
	else
		n = snprintf(to, size, "%s", what[o->kind]);
	if (o->min && (size_t)n < size)
		n += snprintf(to + n, size - (size_t)n, " from %s to %s",
			      o->min, o->max);
	if (o->none && (size_t)n < size)
		snprintf(to + n, size - (size_t)n, ", or %s", o->none);
}

static int refuse(const struct config_option *o, const char *value,
		  const char *why, char *error, size_t size)
{
	const char *example = o->example ? o->example : o->fallback;
	char allowed[160];

	describe(o, allowed, sizeof(allowed));
	if (!example)
		example = o->shown;
	snprintf(error, size, "%s%s%.80s: %s; give %s, e.g. %s=%s", o->name,
		 value ? "=" : "", value ? value : "", why, allowed, o->name,
		 example);
	return -EINVAL;
}

/* ---- from text to fields ---- */

static void *field_of(const struct config_option *o, struct config *c)
{
	return (char *)c + o->field;
}

static int store_text(const struct config_option *o, struct config *c,
		      const char *value)
{
	char **field = field_of(o, c);
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static void store_number(const struct config_option *o, struct config *c,
			 double value)
{
	void *field = field_of(o, c);

	if (o->kind == COUNTER)
		*(unsigned int *)field = (unsigned int)value;
	else if (o->kind == NUMBER || o->kind == RATE)
		*(double *)field = value;
	else
		*(uint64_t *)field = (uint64_t)value;
}

static const char *set_number(const struct config_option *o, struct config *c,
			      const char *value)
{
	double number, min = 0, max = 0;

	if (o->none && strcmp(value, o->none) == 0) {
		store_number(o, c, 0);
		return NULL;
	}
	if (!parse_number(o->kind, value, &number)) {
		if (o->kind == DURATION && *value &&
		    value[strspn(value, "0123456789")] == '\0')
			return "a time needs a unit";
		return "can't be read";
	}
	parse_number(o->kind, o->min, &min);
	parse_number(o->kind, o->max, &max);
	if (number < min)
		return "too small";
	if (number > max)
		return "too large";
	store_number(o, c, number);
	return NULL;
}

static const char *set_flag(const struct config_option *o, struct config *c,
			    const char *value)
{
	static const char *const words[2][4] = {{"no", "off", "false", "0"},
						{"yes", "on", "true", "1"}};

	for (unsigned int on = 0; on < 2; on++) {
		for (size_t i = 0; i < COUNT(words[on]); i++) {
			if (strcmp(value, words[on][i]) == 0) {
				*(bool *)field_of(o, c) = on;
				return NULL;
			}
		}
	}
	return "neither yes nor no";
}

static const char *set_choice(const struct config_option *o, struct config *c,
			      const char *value)
{
	for (unsigned int i = 0; i < COUNT(o->words); i++) {
		if (strcmp(value, o->words[i]) == 0) {
			*(bool *)field_of(o, c) = i;
			return NULL;
		}
	}
	return "no such word";
}

static const char *set_min_free(struct config *c, const char *value)
{
	uint64_t bytes;
	double percent;

	if (config_parse_size(value, &bytes)) {
		c->min_free_bytes = bytes;
		c->min_free_fraction = 0;
		return NULL;
	}
	if (!take_decimal(&value, &percent) || strcmp(value, "%") != 0)
		return "can't be read";
	if (percent > 99)
		return "too large";
	c->min_free_bytes = 0;
	c->min_free_fraction = percent / 100;
	return NULL;
}

static int set_run_id(const struct config_option *o, struct config *c,
		      const char *value, const char **why)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "abcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t len = strlen(value);

	if (len < 1 || len > 64)
		*why = len ? "too long" : "empty";
	else if (strspn(value, allowed) != len)
		*why = "has other characters";
	return *why ? 0 : store_text(o, c, value);
}

static int set_filename(const struct config_option *o, struct config *c,
			const char *value, const char **why)
{
	char cwd[PATH_MAX], *path;
	int err;

	if (o->none && strcmp(value, o->none) == 0)
		return store_text(o, c, NULL);
	if (!*value)
		*why = "empty";
	else if (*value == '~')
		*why = "\"~\" is not expanded here, write the whole path";
	if (*why)
		return 0;
	if (*value == '/')
		return store_text(o, c, value);
	/* The daemon will have / for its working directory. */
	if (!getcwd(cwd, sizeof(cwd))) {
		*why = "relative, and the working directory is unknown";
		return 0;
	}
	if (asprintf(&path, "%s/%s", strcmp(cwd, "/") ? cwd : "", value) < 0)
		return -ENOMEM;
	err = store_text(o, c, path);
	free(path);
	return err;
}

/* The part of a URL, NULL if it has none; freed with curl_free(). */
static char *url_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;

	return curl_url_get(url, part, &text, 0) == CURLUE_OK ? text : NULL;
}

static const char *url_fault(CURLU *url, const char *value)
{
	CURLUcode rc =
		curl_url_set(url, CURLUPART_URL, value, CURLU_DISALLOW_USER);
	const char *why = NULL;
	char *scheme;

	if (rc == CURLUE_USER_NOT_ALLOWED)
		return "a user name or password has no place here";
	if (rc != CURLUE_OK)
		return curl_url_strerror(rc);
	scheme = url_part(url, CURLUPART_SCHEME);
	if (!scheme ||
	    (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
		why = "neither http nor https";
	else if (strpbrk(value, "?#"))
		why = "a base URL has no \"?\" or \"#\"";
	curl_free(scheme);
	return why;
}

static int set_url(const struct config_option *o, struct config *c,
		   const char *value, const char **why)
{
	CURLU *url;
	char *text;
	int err = -ENOMEM;

	/* Empty, to tell it from an option that was not given. */
	if (o->none && strcmp(value, o->none) == 0)
		return store_text(o, c, "");
	url = curl_url();
	if (!url)
		return -ENOMEM;
	*why = url_fault(url, value);
	text = *why ? NULL : url_part(url, CURLUPART_URL);
	if (text) {
		for (size_t n = strlen(text); n && text[n - 1] == '/';)
			text[--n] = '\0';
		err = store_text(o, c, text);
	}
	curl_free(text);
	curl_url_cleanup(url);
	return *why ? 0 : err;
}

int config_option_set(const struct config_option *o, struct config *c,
		      const char *value, char *error, size_t error_size)
{
	const char *why = NULL;
	int err = 0;

	if (!value && o->kind == FLAG)
		value = "yes";
	if (!value)
		return refuse(o, value, "needs a value", error, error_size);
	switch (o->kind) {
	case FLAG:
		why = set_flag(o, c, value);
		break;
	case CHOICE:
		why = set_choice(o, c, value);
		break;
	case COUNTER:
	case NUMBER:
	case RATE:
	case SIZE:
	case DURATION:
		why = set_number(o, c, value);
		break;
	case MIN_FREE:
		why = set_min_free(c, value);
		break;
	case TEXT:
		err = store_text(o, c, value);
		break;
	case FILENAME:
		err = set_filename(o, c, value, &why);
		break;
	case URL:
		err = set_url(o, c, value, &why);
		break;
	case RUN_ID:
		err = set_run_id(o, c, value, &why);
		break;
	case LEVEL:
		if (!log_level_parse(value, field_of(o, c)))
			why = "no such word";
		break;
	case CONFIG:
		if (!*value)
			why = "empty";
		break;
	}
	if (why)
		return refuse(o, value, why, error, error_size);
	if (err)
		snprintf(error, error_size, "%s: %s", o->name, strerror(-err));
	return err;
}

/* ---- the table as a whole ---- */

const struct config_option *config_option_find(const char *name)
{
	for (size_t i = 0; i < COUNT(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	return NULL;
}

static const char *shown(const struct config_option *o)
{
	return o->fallback ? o->fallback : o->shown;
}

const char *config_option_name(size_t i, const char **fallback)
{
	if (i >= COUNT(options))
		return NULL;
	*fallback = shown(&options[i]);
	return options[i].name;
}

int config_option_defaults(struct config *c)
{
	char error[256];
	int err = 0;

	c->prefill_bytes = UINT64_MAX; /* only the program knows its machine */
	for (size_t i = 0; i < COUNT(options) && !err; i++)
		if (options[i].fallback)
			err = config_option_set(&options[i], c,
						options[i].fallback, error,
						sizeof(error));
	return err;
}

/* ---- help ---- */

enum { HELP_INDENT = 26, HELP_WIDTH = 79 };

/* A URL may be longer than the column: it begins further left then. */
static size_t indent_for(size_t len)
{
	if (HELP_INDENT + len <= HELP_WIDTH)
		return HELP_INDENT;
	return len < HELP_WIDTH ? HELP_WIDTH - len : 0;
}

/* Writes @text from column @at on, wrapped between words. */
static size_t wrap(FILE *to, const char *text, size_t at)
{
	while (*text) {
		size_t len = strcspn(text, " ");

		if (at != HELP_INDENT && at + 1 + len > HELP_WIDTH) {
			at = indent_for(len);
			fprintf(to, "\n%*s", (int)at, "");
		} else if (at != HELP_INDENT) {
			fputc(' ', to);
			at++;
		}
		fwrite(text, 1, len, to);
		at += len;
		text += len + strspn(text + len, " ");
	}
	return at;
}

static void help_row(FILE *to, const struct config_option *o)
{
	int at = fprintf(to, "  %s%s%s", o->name, o->arg ? "=" : "",
			 o->arg ? o->arg : "");
	size_t end;

	fprintf(to, "%*s", HELP_INDENT - at, "");
	end = wrap(to, o->help, HELP_INDENT);
	end = wrap(to, "(default", end);
	wrap(to, shown(o), end);
	fputs(")\n", to);
}

void config_option_help(FILE *to)
{
	const char *group = "";

	for (size_t i = 0; i < COUNT(options); i++) {
		if (strcmp(group, options[i].group) != 0) {
			group = options[i].group;
			fprintf(to, "\n%s:\n", group);
		}
		help_row(to, &options[i]);
	}
}

/* ---- names that were meant ---- */

enum { NAME_MAX_LETTERS = 31 };

static unsigned int least(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

/* Optimal string alignment: the rows before, and before that, are enough. */
unsigned int config_distance(const char *a, const char *b)
{
	unsigned int rows[3][NAME_MAX_LETTERS + 1];
	unsigned int *two = rows[0], *one = rows[1], *row = rows[2], *swap;
	size_t a_len = strlen(a), b_len = strlen(b);

	if (a_len > NAME_MAX_LETTERS || b_len > NAME_MAX_LETTERS)
		return UINT_MAX;
	for (unsigned int j = 0; j <= b_len; j++)
		row[j] = j;
	for (unsigned int i = 1; i <= a_len; i++) {
		swap = two, two = one, one = row, row = swap;
		row[0] = i;
		for (unsigned int j = 1; j <= b_len; j++) {
			row[j] = one[j - 1] + (a[i - 1] != b[j - 1]);
			row[j] = least(row[j], least(one[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				row[j] = least(row[j], two[j - 2] + 1);
		}
	}
	return row[b_len];
}

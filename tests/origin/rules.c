/*
 * The parsed JSON stays with the set: rules point into it. Only the tallies
 * change, under one lock. A request in flight holds a reference, so a set can
 * be replaced at any time.
 */
#include "tests/origin/rules.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tally {
	uint64_t matched, fired;
	char key[]; /* of the tallies of keys; "" for the rule's own */
};

struct rule {
	const char *glob;
	unsigned int kinds; /* bit 1 << enum imitation_kind */
	int host;	    /* -1: either */
	uint64_t nth, times;
	double probability; /* below 0: not given */
	bool per_key, listed;
	struct imitation_fault fault;

	/* protected by imitation_rules.lock */
	uint64_t matched, fired;
	void *tallies; /* tsearch(3) tree of struct tally */
};

struct imitation_rules {
	pthread_mutex_t lock;
	unsigned int refs; /* protected by lock */
	uint64_t seed;
	cJSON *json;
	size_t n;
	struct rule rules[];
};

static const char *const kind_names[IMITATION_KINDS] = {
	"list", "object", "range", "head", "page",
};
static const char *const host_names[] = {"main", "mirror"};

enum field_type { NUMBER, FLAG, TEXT, OBJECT };

/* clang-format off */
#define FIELD(type, name) \
	{#name, type, offsetof(struct imitation_fault, name)}

static const struct field {
	const char *name;
	enum field_type type;
	size_t offset;
} fields[] = {
	FIELD(NUMBER, delay_ms),
	FIELD(NUMBER, delay_jitter_ms),
	FIELD(NUMBER, connection_delay_ms),
	FIELD(NUMBER, status),
	FIELD(NUMBER, retry_after),
	FIELD(NUMBER, cut_after),
	FIELD(NUMBER, stall_after),
	FIELD(NUMBER, stall_ms),
	FIELD(NUMBER, hold_after),
	FIELD(NUMBER, throttle),
	FIELD(NUMBER, truncate_to),
	FIELD(NUMBER, flip_at),
	FIELD(TEXT, hold),
	FIELD(TEXT, body),
	FIELD(TEXT, content_type),
	FIELD(TEXT, replace_with),
	FIELD(TEXT, etag),
	FIELD(TEXT, etag_suffix),
	FIELD(OBJECT, headers),
	FIELD(FLAG, drop),
	FIELD(FLAG, html),
	FIELD(FLAG, chunked),
	FIELD(FLAG, ignore_range),
	FIELD(FLAG, wrong_checksum),
	FIELD(FLAG, bad_xml),
	FIELD(FLAG, repeat_page),
	FIELD(FLAG, empty_list),
};
/* clang-format on */

#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

const char *imitation_kind_name(enum imitation_kind kind)
{
	return kind_names[kind];
}

const char *imitation_host_name(enum imitation_host host)
{
	return host_names[host];
}

void imitation_fault_init(struct imitation_fault *fault)
{
	memset(fault, 0, sizeof(*fault));
	for (size_t i = 0; i < N_FIELDS; i++) {
		char *at = (char *)fault + fields[i].offset;

		if (fields[i].type == NUMBER)
			*(int64_t *)at = IMITATION_UNSET;
	}
}

static void fault_add(struct imitation_fault *to,
		      const struct imitation_fault *from)
{
	for (size_t i = 0; i < N_FIELDS; i++) {
		char *t = (char *)to + fields[i].offset;
		const char *f = (const char *)from + fields[i].offset;

		switch (fields[i].type) {
		case NUMBER:
			if (*(int64_t *)t == IMITATION_UNSET)
				*(int64_t *)t = *(const int64_t *)f;
			break;
		case FLAG:
			*(bool *)t |= *(const bool *)f;
			break;
		case TEXT:
			if (!*(const char **)t)
				*(const char **)t = *(const char *const *)f;
			break;
		case OBJECT:
			if (!*(const cJSON **)t)
				*(const cJSON **)t = *(const cJSON *const *)f;
			break;
		}
	}
}

static int parse_integer(const cJSON *item, int64_t min, int64_t *out)
{
	double v = item->valuedouble;

	/* 2^53: up to there JSON's numbers are exact */
	if (!cJSON_IsNumber(item) || v != floor(v) || v < (double)min ||
	    v > 9007199254740992.0)
		return -EINVAL;
	*out = (int64_t)v;
	return 0;
}

static int parse_fault_field(struct imitation_fault *fault, const cJSON *item)
{
	for (size_t i = 0; i < N_FIELDS; i++) {
		char *at = (char *)fault + fields[i].offset;
		int64_t min = -9007199254740992;

		if (strcmp(fields[i].name, item->string))
			continue;
		switch (fields[i].type) {
		case NUMBER:
			if (at != (char *)&fault->flip_at)
				min = 0;
			return parse_integer(item, min, (int64_t *)at);
		case FLAG:
			*(bool *)at = cJSON_IsTrue(item);
			return cJSON_IsBool(item) ? 0 : -EINVAL;
		case TEXT:
			*(const char **)at = item->valuestring;
			return cJSON_IsString(item) ? 0 : -EINVAL;
		case OBJECT:
			*(const cJSON **)at = item;
			return cJSON_IsObject(item) ? 0 : -EINVAL;
		}
	}
	return -EINVAL;
}

static int parse_name(const cJSON *item, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n && cJSON_IsString(item); i++)
		if (!strcmp(item->valuestring, names[i]))
			return (int)i;
	return -EINVAL;
}

static int parse_kinds(const cJSON *item, unsigned int *kinds)
{
	const cJSON *one = cJSON_IsArray(item) ? item->child : item;
	int kind;

	*kinds = 0;
	for (; one; one = cJSON_IsArray(item) ? one->next : NULL) {
		kind = parse_name(one, kind_names, IMITATION_KINDS);
		if (kind < 0)
			return kind;
		*kinds |= 1u << kind;
	}
	return 0;
}

static int parse_count(const cJSON *item, uint64_t *out)
{
	int64_t v;
	int err = parse_integer(item, 1, &v);

	if (!err)
		*out = (uint64_t)v;
	return err;
}

static int parse_field(struct rule *rule, const cJSON *item)
{
	const char *name = item->string;

	if (!strcmp(name, "key")) {
		rule->glob = item->valuestring;
		return cJSON_IsString(item) ? 0 : -EINVAL;
	}
	if (!strcmp(name, "kind"))
		return parse_kinds(item, &rule->kinds);
	if (!strcmp(name, "host")) {
		rule->host = parse_name(item, host_names, 2);
		return rule->host < 0 ? -EINVAL : 0;
	}
	if (!strcmp(name, "nth"))
		return parse_count(item, &rule->nth);
	if (!strcmp(name, "times"))
		return parse_count(item, &rule->times);
	if (!strcmp(name, "per_key")) {
		rule->per_key = cJSON_IsTrue(item);
		return cJSON_IsBool(item) ? 0 : -EINVAL;
	}
	if (!strcmp(name, "listed")) {
		rule->listed = cJSON_IsTrue(item);
		return cJSON_IsBool(item) ? 0 : -EINVAL;
	}
	if (!strcmp(name, "probability")) {
		rule->probability = item->valuedouble;
		return cJSON_IsNumber(item) && rule->probability >= 0 &&
				       rule->probability <= 1
			       ? 0
			       : -EINVAL;
	}
	return parse_fault_field(&rule->fault, item);
}

static int parse_rule(struct rule *rule, const cJSON *json, char *why,
		      size_t why_len)
{
	const struct imitation_fault *fault = &rule->fault;
	const cJSON *item;

	rule->glob = "*";
	rule->kinds = (1u << IMITATION_KINDS) - 1;
	rule->host = -1;
	rule->probability = -1;
	rule->listed = true;
	imitation_fault_init(&rule->fault);
	if (!cJSON_IsObject(json)) {
		snprintf(why, why_len, "a rule is an object");
		return -EINVAL;
	}
	cJSON_ArrayForEach(item, json)
	{
		if (parse_field(rule, item)) {
			snprintf(why, why_len,
				 "\"%.60s\": no such field, or not its value",
				 item->string);
			return -EINVAL;
		}
	}
	if (fault->status != IMITATION_UNSET &&
	    (fault->status < 200 || fault->status > 599)) {
		snprintf(why, why_len, "\"status\" is 200 to 599");
		return -EINVAL;
	}
	if (fault->throttle == 0) {
		snprintf(why, why_len, "\"throttle\" is at least 1");
		return -EINVAL;
	}
	if (rule->nth && !rule->times)
		rule->times = 1;
	return 0;
}

int imitation_rules_parse(struct imitation_rules **out, const char *json,
			  char *why, size_t why_len)
{
	struct imitation_rules *r = NULL;
	const cJSON *list, *seed = NULL;
	cJSON *root;
	int64_t seed_value = 0;
	size_t n, i = 0;
	int err = -EINVAL;

	root = cJSON_Parse(json && *json ? json : "[]");
	if (!root) {
		snprintf(why, why_len, "not JSON");
		return -EINVAL;
	}
	list = root;
	if (cJSON_IsObject(root)) {
		list = cJSON_GetObjectItemCaseSensitive(root, "rules");
		seed = cJSON_GetObjectItemCaseSensitive(root, "seed");
	}
	if (!cJSON_IsArray(list) ||
	    (seed && parse_integer(seed, 0, &seed_value))) {
		snprintf(why, why_len,
			 "an array of rules, or {\"seed\", \"rules\"}");
		goto out;
	}
	n = (size_t)cJSON_GetArraySize(list);
	r = calloc(1, sizeof(*r) + n * sizeof(r->rules[0]));
	if (!r) {
		err = -ENOMEM;
		goto out;
	}
	r->seed = (uint64_t)seed_value;
	r->refs = 1;
	pthread_mutex_init(&r->lock, NULL);
	for (const cJSON *item = list->child; item; item = item->next) {
		err = parse_rule(&r->rules[i++], item, why, why_len);
		if (err)
			goto out;
	}
	r->n = n;
	r->json = root;
	root = NULL;
	*out = r;
	r = NULL;
	err = 0;
out:
	imitation_rules_unref(r);
	cJSON_Delete(root);
	return err;
}

struct imitation_rules *imitation_rules_ref(struct imitation_rules *r)
{
	pthread_mutex_lock(&r->lock);
	r->refs++;
	pthread_mutex_unlock(&r->lock);
	return r;
}

void imitation_rules_unref(struct imitation_rules *r)
{
	unsigned int refs;

	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	refs = --r->refs;
	pthread_mutex_unlock(&r->lock);
	if (refs)
		return;
	for (size_t i = 0; i < r->n; i++)
		tdestroy(r->rules[i].tallies, free);
	cJSON_Delete(r->json);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static int tally_cmp(const void *a, const void *b)
{
	const struct tally *x = a, *y = b;

	return strcmp(x->key, y->key);
}

/* NULL only for want of memory. */
static struct tally *tally_of_locked(struct rule *rule, const char *key)
{
	size_t len = strlen(key) + 1;
	struct tally *t = calloc(1, sizeof(*t) + len);
	struct tally **found;

	if (!t)
		return NULL;
	memcpy(t->key, key, len);
	found = tsearch(t, &rule->tallies, tally_cmp);
	if (!found || *found != t)
		free(t);
	return found ? *found : NULL;
}

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static double draw(uint64_t seed, size_t place, const char *key, uint64_t nth)
{
	uint64_t x = mix(seed) ^ mix(place + 1);

	for (; *key; key++)
		x = mix(x ^ (unsigned char)*key);
	return (double)(mix(x ^ mix(nth)) >> 11) * 0x1p-53;
}

static bool concerns(const struct rule *rule, enum imitation_kind kind,
		     int host, const char *key)
{
	return (rule->kinds & (1u << kind)) &&
	       (rule->host < 0 || host < 0 || rule->host == host) &&
	       fnmatch(rule->glob, key, 0) == 0;
}

/* How often the key was asked where the rule fires now, else 0. */
static uint64_t fires_locked(struct imitation_rules *r, size_t place,
			     const char *key)
{
	struct rule *rule = &r->rules[place];
	struct tally *t = tally_of_locked(rule, key);
	uint64_t matched, fired;

	if (!t)
		return 0;
	rule->matched++;
	t->matched++;
	matched = rule->per_key ? t->matched : rule->matched;
	fired = rule->per_key ? t->fired : rule->fired;
	if (matched < rule->nth || (rule->times && fired >= rule->times))
		return 0;
	if (rule->probability >= 0 &&
	    draw(r->seed, place, key, t->matched) >= rule->probability)
		return 0;
	rule->fired++;
	t->fired++;
	return t->matched;
}

void imitation_rules_judge(struct imitation_rules *r, enum imitation_kind kind,
			   enum imitation_host host, const char *key,
			   struct imitation_fault *fault)
{
	double jitter = -1;
	uint64_t nth;

	imitation_fault_init(fault);
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->n; i++) {
		if (!concerns(&r->rules[i], kind, (int)host, key))
			continue;
		nth = fires_locked(r, i, key);
		if (!nth)
			continue;
		fault_add(fault, &r->rules[i].fault);
		if (jitter < 0 && fault->delay_jitter_ms >= 0)
			jitter = draw(~r->seed, i, key, nth);
	}
	pthread_mutex_unlock(&r->lock);
	if (jitter >= 0) {
		if (fault->delay_ms < 0)
			fault->delay_ms = 0;
		fault->delay_ms +=
			(int64_t)(jitter * (double)fault->delay_jitter_ms);
	}
}

/* Would the next request for the object be answered by this rule? */
static bool stands_locked(struct rule *rule, const char *key)
{
	uint64_t matched = rule->matched, fired = rule->fired;

	if (!rule->listed || rule->probability >= 0)
		return false;
	if (!rule->fault.replace_with && !rule->fault.etag &&
	    !rule->fault.etag_suffix)
		return false;
	if (rule->per_key) {
		struct tally *t = tally_of_locked(rule, key);

		if (!t)
			return false;
		matched = t->matched;
		fired = t->fired;
	}
	return matched + 1 >= rule->nth &&
	       (!rule->times || fired < rule->times);
}

void imitation_rules_listed(struct imitation_rules *r, const char *key,
			    struct imitation_fault *fault)
{
	imitation_fault_init(fault);
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->n; i++)
		if (stands_locked(&r->rules[i], key) &&
		    concerns(&r->rules[i], IMITATION_OBJECT, -1, key))
			fault_add(fault, &r->rules[i].fault);
	pthread_mutex_unlock(&r->lock);
}

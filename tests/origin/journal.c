/*
 * The log is a ring: request N lies in slot N mod its size until it is
 * overwritten, and later news of N is then dropped.
 */
#include "tests/origin/journal.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEXTS = 7 };

static const char *const text_names[TEXTS] = {"method",	      "path",
					      "query",	      "range",
					      "if_range",     "if_none_match",
					      "cache_control"};

struct line {
	uint64_t id; /* 0: empty */
	char *texts[TEXTS];
	enum imitation_kind kind;
	enum imitation_host host;
	unsigned int status;
	uint64_t bytes;
	uint64_t start_ms, end_ms; /* since the journal began */
	bool ended, complete;
};

struct imitation_journal {
	pthread_mutex_t lock;
	/* all below: protected by lock */
	struct imitation_stats stats;
	uint64_t last_id, first_id;
	uint64_t zero_ms;
	size_t log_max;
	struct line *log;
};

static uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void line_clear(struct line *l)
{
	for (int i = 0; i < TEXTS; i++)
		free(l->texts[i]);
	memset(l, 0, sizeof(*l));
}

int imitation_journal_create(struct imitation_journal **out, size_t log_max)
{
	struct imitation_journal *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->log = calloc(log_max, sizeof(*j->log));
	if (!j->log) {
		free(j);
		return -ENOMEM;
	}
	pthread_mutex_init(&j->lock, NULL);
	j->log_max = log_max;
	j->zero_ms = clock_ms();
	j->first_id = 1;
	*out = j;
	return 0;
}

void imitation_journal_free(struct imitation_journal *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->log_max; i++)
		line_clear(&j->log[i]);
	free(j->log);
	pthread_mutex_destroy(&j->lock);
	free(j);
}

void imitation_journal_reset(struct imitation_journal *j)
{
	struct imitation_stats *s = &j->stats;
	uint64_t connections, in_flight;

	pthread_mutex_lock(&j->lock);
	connections = s->connections_now;
	in_flight = s->in_flight;
	memset(s, 0, sizeof(*s));
	s->connections_now = s->connections_max = connections;
	s->in_flight = s->in_flight_max = in_flight;
	for (size_t i = 0; i < j->log_max; i++)
		line_clear(&j->log[i]);
	j->first_id = j->last_id + 1;
	pthread_mutex_unlock(&j->lock);
}

static struct line *line_of_locked(struct imitation_journal *j, uint64_t id)
{
	struct line *l = &j->log[id % j->log_max];

	return id && l->id == id ? l : NULL;
}

/* Requests from before a reset count no more. */
static bool counts_locked(const struct imitation_journal *j, uint64_t id)
{
	return id >= j->first_id;
}

uint64_t imitation_journal_arrive(struct imitation_journal *j,
				  const struct imitation_arrival *a)
{
	const char *const texts[TEXTS] = {a->method,	   a->path,
					  a->query,	   a->range,
					  a->if_range,	   a->if_none_match,
					  a->cache_control};
	struct imitation_stats *s = &j->stats;
	struct line *l;
	uint64_t id;

	pthread_mutex_lock(&j->lock);
	id = ++j->last_id;
	s->requests++;
	s->by_kind[a->kind]++;
	s->by_host[a->host]++;
	if (++s->in_flight > s->in_flight_max)
		s->in_flight_max = s->in_flight;
	l = &j->log[id % j->log_max];
	line_clear(l);
	l->id = id;
	l->kind = a->kind;
	l->host = a->host;
	l->start_ms = clock_ms() - j->zero_ms;
	for (int i = 0; i < TEXTS; i++)
		l->texts[i] = texts[i] ? strdup(texts[i]) : NULL;
	pthread_mutex_unlock(&j->lock);
	return id;
}

void imitation_journal_status(struct imitation_journal *j, uint64_t id,
			      unsigned int status)
{
	struct line *l;

	pthread_mutex_lock(&j->lock);
	if (counts_locked(j, id))
		j->stats.by_status[status]++;
	l = line_of_locked(j, id);
	if (l)
		l->status = status;
	pthread_mutex_unlock(&j->lock);
}

void imitation_journal_bytes(struct imitation_journal *j, uint64_t id,
			     uint64_t bytes)
{
	struct line *l;

	pthread_mutex_lock(&j->lock);
	if (counts_locked(j, id))
		j->stats.bytes += bytes;
	l = line_of_locked(j, id);
	if (l)
		l->bytes += bytes;
	pthread_mutex_unlock(&j->lock);
}

void imitation_journal_end(struct imitation_journal *j, uint64_t id,
			   bool complete)
{
	struct line *l;

	pthread_mutex_lock(&j->lock);
	j->stats.in_flight--;
	l = line_of_locked(j, id);
	if (l) {
		l->ended = true;
		l->complete = complete;
		l->end_ms = clock_ms() - j->zero_ms;
	}
	pthread_mutex_unlock(&j->lock);
}

void imitation_journal_connection(struct imitation_journal *j, int change)
{
	struct imitation_stats *s = &j->stats;

	pthread_mutex_lock(&j->lock);
	s->connections_now += (uint64_t)change;
	if (change > 0)
		s->connections_opened++;
	if (s->connections_now > s->connections_max)
		s->connections_max = s->connections_now;
	pthread_mutex_unlock(&j->lock);
}

void imitation_journal_stats(struct imitation_journal *j,
			     struct imitation_stats *out)
{
	pthread_mutex_lock(&j->lock);
	*out = j->stats;
	pthread_mutex_unlock(&j->lock);
}

char *imitation_journal_stats_json(struct imitation_journal *j)
{
	struct imitation_stats s;
	cJSON *root = cJSON_CreateObject(), *part;
	char *text;

	imitation_journal_stats(j, &s);
	const struct {
		const char *name;
		uint64_t value;
	} counts[] = {
		{"requests", s.requests},
		{"bytes", s.bytes},
		{"connections_opened", s.connections_opened},
		{"connections_now", s.connections_now},
		{"connections_max", s.connections_max},
		{"in_flight", s.in_flight},
		{"in_flight_max", s.in_flight_max},
	};
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		cJSON_AddNumberToObject(root, counts[i].name,
					(double)counts[i].value);
	part = cJSON_AddObjectToObject(root, "by_kind");
	for (int i = 0; i < IMITATION_KINDS; i++)
		cJSON_AddNumberToObject(part, imitation_kind_name(i),
					(double)s.by_kind[i]);
	part = cJSON_AddObjectToObject(root, "by_host");
	for (int i = 0; i < 2; i++)
		cJSON_AddNumberToObject(part, imitation_host_name(i),
					(double)s.by_host[i]);
	part = cJSON_AddObjectToObject(root, "by_status");
	for (unsigned int i = 0; i < 600; i++) {
		char name[4] = {(char)('0' + i / 100),
				(char)('0' + i / 10 % 10), (char)('0' + i % 10),
				0};

		if (s.by_status[i])
			cJSON_AddNumberToObject(part, name,
						(double)s.by_status[i]);
	}
	text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	return text;
}

static cJSON *line_json(const struct line *l)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddNumberToObject(o, "id", (double)l->id);
	for (int i = 0; i < TEXTS; i++) {
		if (l->texts[i])
			cJSON_AddStringToObject(o, text_names[i], l->texts[i]);
		else
			cJSON_AddNullToObject(o, text_names[i]);
	}
	cJSON_AddStringToObject(o, "kind", imitation_kind_name(l->kind));
	cJSON_AddStringToObject(o, "host", imitation_host_name(l->host));
	cJSON_AddNumberToObject(o, "status", l->status);
	cJSON_AddNumberToObject(o, "bytes", (double)l->bytes);
	cJSON_AddNumberToObject(o, "start_ms", (double)l->start_ms);
	if (l->ended)
		cJSON_AddNumberToObject(o, "end_ms", (double)l->end_ms);
	cJSON_AddBoolToObject(o, "ended", l->ended);
	cJSON_AddBoolToObject(o, "complete", l->complete);
	return o;
}

char *imitation_journal_log_json(struct imitation_journal *j)
{
	cJSON *root = cJSON_CreateArray();
	char *text;

	pthread_mutex_lock(&j->lock);
	for (uint64_t i = 0; i < j->log_max; i++) {
		const struct line *l =
			&j->log[(j->last_id + 1 + i) % j->log_max];

		if (l->id)
			cJSON_AddItemToArray(root, line_json(l));
	}
	pthread_mutex_unlock(&j->lock);
	text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	return text;
}

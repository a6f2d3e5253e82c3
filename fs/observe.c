#include "fs/observe.h"

#include <errno.h>
#include <string.h>

#include "fs/budget.h"
#include "fs/log.h"
#include "fs/metrics.h"
#include "fs/when.h"

static void request_ended(const struct fetch_event *ev)
{
	bool failed = ev->err && ev->err != -ENOENT && ev->err != -ECANCELED;

	metrics_add(METRIC_FETCH_REQUESTS, 1);
	if (failed)
		metrics_add(METRIC_FETCH_ERRORS, 1);
	if (ev->latency_ns)
		metrics_latency(ev->latency_ns);
	log_event(failed ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "fetch",
		  failed ? "request_failed" : "request_done",
		  log_str("what", ev->what), log_str("key", ev->key),
		  log_u64("http_status", (uint64_t)ev->http_status),
		  log_str("error", ev->err ? strerror(-ev->err) : ""),
		  log_str("detail", ev->detail),
		  log_num("duration_ms", (double)ev->duration_ns / 1e6),
		  LOG_END);
}

void observe_fetch(void *arg, const struct fetch_event *ev)
{
	switch (ev->type) {
	case FETCH_EVENT_REQUEST:
		request_ended(ev);
		break;
	case FETCH_EVENT_RETRY:
		metrics_add(METRIC_FETCH_RETRIES, 1);
		log_event(LOG_LEVEL_WARN, "fetch", "request_retried",
			  log_str("what", ev->what), log_str("key", ev->key),
			  log_u64("attempt", ev->attempt),
			  log_u64("wait_ms", ev->wait_ms), LOG_END);
		break;
	case FETCH_EVENT_RESUME:
		metrics_add(METRIC_FETCH_RESUMES, 1);
		log_event(LOG_LEVEL_INFO, "fetch", "transfer_resumed",
			  log_str("key", ev->key), log_u64("from", ev->bytes),
			  LOG_END);
		break;
	case FETCH_EVENT_RESTART:
		log_event(LOG_LEVEL_WARN, "fetch", "transfer_restarted",
			  log_str("key", ev->key), LOG_END);
		break;
	case FETCH_EVENT_PROGRESS:
		metrics_add(METRIC_FETCH_BYTES, ev->bytes);
		budget_came(arg, strcmp(ev->what, "download") == 0, ev->key,
			    ev->bytes, when_now());
		break;
	}
}

static void ledger_trimmed(const struct store_event *ev)
{
	char until[WHEN_TEXT_MAX] = "";

	when_text(ev->until, until);
	log_event(LOG_LEVEL_INFO, "cache", "ledger_trimmed",
		  log_u64("lines", ev->lines), log_str("until", until),
		  LOG_END);
}

void observe_store(void *arg, const struct store_event *ev)
{
	static const struct {
		enum log_level level;
		const char *message;
	} lines[] = {
		[STORE_EVENT_EVICTED] = {LOG_LEVEL_INFO, "archive_evicted"},
		[STORE_EVENT_COMMITTED] = {LOG_LEVEL_DEBUG, "object_kept"},
		[STORE_EVENT_QUARANTINED] = {LOG_LEVEL_WARN,
					     "archive_quarantined"},
		[STORE_EVENT_EXPIRED] = {LOG_LEVEL_INFO, "quarantine_expired"},
		[STORE_EVENT_DAMAGED] = {LOG_LEVEL_WARN, "cache_damaged"},
		[STORE_EVENT_DISK_ERROR] = {LOG_LEVEL_ERROR,
					    "cache_disk_error"},
	};

	(void)arg;
	if (ev->type == STORE_EVENT_TRIMMED) {
		ledger_trimmed(ev);
		return;
	}
	log_event(lines[ev->type].level, "cache", lines[ev->type].message,
		  log_str("key", ev->key), log_u64("bytes", ev->bytes),
		  log_str("error", ev->err ? strerror(-ev->err) : ""),
		  log_str("detail", ev->detail), LOG_END);
}

/*
 * config - options and their checks: command line, -o lists, a config file.
 * One table holds name, default, unit, bounds and help text of every option;
 * --help and the man page's option table are printed from it.
 */
#ifndef FS_CONFIG_H
#define FS_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/log.h"

struct config {
	/* the command line */
	char *source;	  /* shown by mount(8); "tickfs" if none was given */
	char *mountpoint; /* as given */
	bool foreground;  /* -f */
	bool debug;	  /* -d: libfuse's own trace, implies -f */
	bool help, version;

	/* design section 7 */
	char *origin, *listing;
	char *mirror; /* NULL: none */
	char *cache;  /* absolute */
	uint64_t quota_bytes, min_free_bytes;
	double min_free_fraction; /* one of the two is 0 */
	uint64_t memory_bytes;
	bool prefer_monthly, lenient, offline;
	uint64_t listing_ttl_ms, negative_ttl_ms, revalidate_ms;
	unsigned int connections, retries;
	uint64_t retry_base_ms, retry_max_ms, connect_timeout_ms;
	uint64_t stall_timeout_ms, deadline_ms;
	double rate_per_s, rate_burst, size_burst; /* rate 0: unlimited */
	char *proxy, *no_proxy, *cacert;	   /* NULL: libcurl's default */
	char *run_id;
	char *log; /* a file's path; NULL: stderr */
	enum log_level log_level;

	/* what goes to libfuse as it is: "allow_other,default_permissions" */
	char *fuse_options;
};

/*
 * config_parse() - from argv and the environment (XDG_CACHE_HOME, HOME).
 *
 *	tickfs [SOURCE] MOUNTPOINT [-f] [-d] [-o opt,…] [-h] [-V]
 *
 * SOURCE that begins with http:// or https:// is the origin. Options of
 * mount(8) that mean nothing here (rw, ro, nosuid, nodev, noexec, _netdev,
 * nofail, noauto, user, x-*, …) are accepted. -o config=FILE reads lines
 * "name = value" (# comments), which -o on the command line overrules. A wrong
 * option says which, why, and what is allowed.
 *
 * Returns 0, or -EINVAL (-errno for a config file) with one line for people in
 * @error, no newline.
 */
int config_parse(struct config **out, int argc, char **argv, char *error,
		 size_t error_size);
void config_free(struct config *c);

/* The text of --help, from the table; printed to @stream (a FILE). */
void config_help(void *stream);

/* "64M" -> bytes; "5m" -> ms; "50/s" -> per second. False if it is none. */
bool config_parse_size(const char *s, uint64_t *bytes);
bool config_parse_time(const char *s, uint64_t *ms);
bool config_parse_rate(const char *s, double *per_s);

#endif

/*
 * config - options and their checks: command line, -o lists, a config file.
 * One table (fs/config_table.c) holds name, default, unit, bounds and help text
 * of every option; --help is printed from it, and a test holds the man page
 * against it.
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
	uint64_t prefill_bytes; /* UINT64_MAX: by the machine's memory */
	bool prefer_monthly, lenient, offline;
	uint64_t listing_ttl_ms, negative_ttl_ms, revalidate_ms;
	unsigned int connections, retries;
	uint64_t retry_base_ms, retry_max_ms, connect_timeout_ms;
	uint64_t stall_timeout_ms, deadline_ms;
	double rate_per_s, rate_burst, size_burst; /* rate 0: unlimited */
	uint64_t bandwidth_bytes_per_s;		   /* 0: unlimited */
	uint64_t budget_bytes;			   /* a day; 0: unlimited */
	char *proxy, *no_proxy, *cacert;	   /* NULL: libcurl's default */
	char *run_id;
	char *log; /* a file's path; NULL: stderr */
	enum log_level log_level;

	unsigned int max_read; /* bytes; 0: not given */
	/*
	 * What goes to fuse_session_new() as the one value of "-o", whole and
	 * escaped: "ro,fsname=SOURCE,subtype=tickfs", then those of libfuse's
	 * own that the user gave ("allow_other,default_permissions").
	 */
	char *fuse_options;
};

enum { CONFIG_ERROR_MAX = 512 }; /* no message is longer, with its NUL */

/*
 * config_parse() - from argv and the environment (XDG_CACHE_HOME, HOME).
 *
 *	tickfs [SOURCE] MOUNTPOINT [-f] [-d] [-o opt,…] [-h] [-V]
 *
 * SOURCE that begins with http:// or https:// is the origin; anything else is
 * only shown. An origin that is not the public one needs listing= too, and has
 * no mirror unless one is given.
 *
 * In a -o list, "\," is a comma inside a value and "\\" a backslash, also
 * "\040" a byte in octal, as in libfuse's fuse_opt.h. Where an option is given
 * twice the last one counts. Options of mount(8) that mean nothing here (rw,
 * ro, nosuid, nodev, noexec, _netdev, nofail, noauto, user, x-*, ...) are
 * accepted: the mount is read-only whatever they say. libfuse's own that are
 * passed on: allow_other, allow_root, auto_unmount, default_permissions,
 * fsname=, subtype=, max_read=, context=, fscontext=, defcontext=,
 * rootcontext=.
 *
 * -o config=FILE reads lines "name = value" of the same options ("offline =
 * yes"; comments begin with # or ;, or behind a value with " ;"), which the
 * command line overrules wherever it stands. There are no sections, no
 * backslash escapes, and no lines over 198 bytes.
 *
 * A wrong option says which, why, and what is allowed. What follows
 * -h or -V is not looked at; then only help and version are set.
 *
 * Returns 0; -EINVAL; -errno for a config file; -ENOMEM. On error there is one
 * line for people in @error, no newline.
 */
int config_parse(struct config **out, int argc, char **argv, char *error,
		 size_t error_size);
void config_free(struct config *c);

/* The text of --help in 80 columns, from the table; to @stream (a FILE *). */
void config_help(void *stream);

/*
 * "64M" -> bytes; "5m" -> ms; "50/s" -> per second. False if it is none.
 * Sizes and times are whole numbers. K M G T are powers of 1024, in either
 * case, and may be missing; a time other than 0 needs its unit: ms s m h d. A
 * rate may have a point and counts per second without /s /m /h.
 */
bool config_parse_size(const char *s, uint64_t *bytes);
bool config_parse_time(const char *s, uint64_t *ms);
bool config_parse_rate(const char *s, double *per_s);

#endif

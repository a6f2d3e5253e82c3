/* Expected values: the table of design section 7 and plain arithmetic; what
 * libfuse accepts is asked of libfuse; the man page is held against the table.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/cmocka_all.h"

#include "fs/config.h"
#include "fs/config_table.h"

#define PUBLIC_BUCKET                                                          \
	"https://s3-ap-northeast-1.amazonaws.com/data.binance.vision"

enum { ARGS_MAX = 8 };

static char error[CONFIG_ERROR_MAX];

/* Splits @line at blanks: no value in these tests has one, unless written as
 * "\040" in a list. */
static int parse(const char *line, struct config **c)
{
	char copy[1024], *argv[ARGS_MAX + 2] = {(char *)"tickfs"}, *rest = copy;
	int argc = 1;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *word; (word = strtok_r(rest, " ", &rest));) {
		assert_true(argc <= ARGS_MAX);
		argv[argc++] = word;
	}
	error[0] = '\0';
	return config_parse(c, argc, argv, error, sizeof(error));
}

static struct config *parsed(const char *line)
{
	struct config *c;

	if (parse(line, &c))
		fail_msg("\"%s\" gave: %s", line, error);
	return c;
}

static void check_refused(const char *line, const char *said)
{
	struct config *c;

	if (parse(line, &c) != -EINVAL)
		fail_msg("\"%s\" was accepted", line);
	if (!strstr(error, said))
		fail_msg("\"%s\" gave \"%s\", which lacks \"%s\"", line, error,
			 said);
	assert_null(strchr(error, '\n'));
}

static int set_home(void **state)
{
	(void)state;
	unsetenv("XDG_CACHE_HOME");
	return setenv("HOME", "/home/alice", 1);
}

/* ---- values ---- */

static void test_config__sizes_are_powers_of_1024(void **state)
{
	static const char *const wrong[] = {
		"",   "K",   "-1",   "+1",	  " 1",
		"1 ", "1KB", "1.5G", "0x10",	  "1KK",
		"1P", "1,",  "inf",  "16777216T", "18446744073709551616",
	};
	uint64_t bytes;

	(void)state;
	assert_true(config_parse_size("0", &bytes) && bytes == 0);
	assert_true(config_parse_size("1000", &bytes) && bytes == 1000);
	assert_true(config_parse_size("3K", &bytes) && bytes == 3072);
	assert_true(config_parse_size("64M", &bytes) && bytes == 67108864);
	assert_true(config_parse_size("64m", &bytes) && bytes == 67108864);
	assert_true(config_parse_size("50G", &bytes) && bytes == 53687091200);
	assert_true(config_parse_size("2T", &bytes) && bytes == 2199023255552);
	assert_true(config_parse_size("18446744073709551615", &bytes) &&
		    bytes == UINT64_MAX);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(config_parse_size(wrong[i], &bytes));
}

static void test_config__times_need_their_unit(void **state)
{
	static const char *const wrong[] = {
		"",
		"1",
		"s",
		"-1s",
		"1.5s",
		"1S",
		"1 s",
		"1w",
		"1ms ",
		"1sm",
		"18446744073709551615s",
	};
	uint64_t ms;

	(void)state;
	assert_true(config_parse_time("0", &ms) && ms == 0);
	assert_true(config_parse_time("200ms", &ms) && ms == 200);
	assert_true(config_parse_time("30s", &ms) && ms == 30000);
	assert_true(config_parse_time("5m", &ms) && ms == 300000);
	assert_true(config_parse_time("1h", &ms) && ms == 3600000);
	assert_true(config_parse_time("1d", &ms) && ms == 86400000);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(config_parse_time(wrong[i], &ms));
}

static void test_config__rates_count_per_second(void **state)
{
	static const char *const wrong[] = {
		"",   "/s", "-1",  "inf", "nan",  "0x10", "1e3",
		"1.", ".5", "1/d", "1/",  "1//s", " 1",	  "1.2.3",
	};
	double rate;

	(void)state;
	assert_true(config_parse_rate("50/s", &rate) && rate == 50.0);
	assert_true(config_parse_rate("50", &rate) && rate == 50.0);
	assert_true(config_parse_rate("0.5/s", &rate) && rate == 0.5);
	assert_true(config_parse_rate("120/m", &rate) && rate == 2.0);
	assert_true(config_parse_rate("7200/h", &rate) && rate == 2.0);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(config_parse_rate(wrong[i], &rate));
}

/* ---- the command line ---- */

static void test_config__defaults_are_those_of_the_design(void **state)
{
	struct config *c = parsed("/mnt/b");

	(void)state;
	assert_string_equal(c->source, "tickfs");
	assert_string_equal(c->mountpoint, "/mnt/b");
	assert_false(c->foreground || c->debug || c->help || c->version);
	assert_string_equal(c->origin, "https://data.binance.vision");
	assert_string_equal(c->listing, PUBLIC_BUCKET);
	assert_string_equal(c->mirror, PUBLIC_BUCKET);
	assert_string_equal(c->cache, "/home/alice/.cache/tickfs");
	assert_int_equal(c->quota_bytes, 53687091200);
	assert_int_equal(c->min_free_bytes, 0);
	assert_true(c->min_free_fraction == 0.05);
	assert_int_equal(c->memory_bytes, 67108864);
	assert_false(c->prefer_monthly || c->lenient || c->offline);
	assert_int_equal(c->listing_ttl_ms, 3600000);
	assert_int_equal(c->negative_ttl_ms, 300000);
	assert_int_equal(c->revalidate_ms, 86400000);
	assert_int_equal(c->connections, 8);
	assert_int_equal(c->retries, 5);
	assert_int_equal(c->retry_base_ms, 200);
	assert_int_equal(c->retry_max_ms, 30000);
	assert_int_equal(c->connect_timeout_ms, 10000);
	assert_int_equal(c->stall_timeout_ms, 30000);
	assert_int_equal(c->bandwidth_bytes_per_s, 0);
	assert_int_equal(c->budget_bytes, 0);
	assert_int_equal(c->deadline_ms, 0);
	assert_true(c->rate_per_s == 50.0 && c->rate_burst == 500.0 &&
		    c->size_burst == 4000.0);
	assert_null(c->proxy);
	assert_null(c->no_proxy);
	assert_null(c->cacert);
	assert_null(c->log);
	assert_int_equal(c->log_level, LOG_LEVEL_INFO);
	assert_string_equal(c->fuse_options, "ro,fsname=tickfs,subtype=tickfs");
	config_free(c);
}

static void test_config__options_reach_their_fields(void **state)
{
	struct config *c = parsed(
		"none /mnt/b -o cache=/c,quota=1T,min_free=2G,memory=8M "
		"-oprefer=monthly,integrity=lenient,offline -o "
		"listing_ttl=0,negative_ttl=1s,revalidate=7d,connections=256,"
		"retries=0,retry_base=1ms,retry_max=1h,connect_timeout=1s,"
		"stall_timeout=2s,deadline=3s,rate=none,rate_burst=1,"
		"bandwidth=3M,budget=4G,"
		"size_burst=2.5,proxy=,no_proxy=a\\,b,cacert=/ca,run_id=run.1,"
		"log=/var/log/t,log_level=debug,mirror=none");

	(void)state;
	assert_string_equal(c->source, "none");
	assert_string_equal(c->cache, "/c");
	assert_int_equal(c->quota_bytes, 1099511627776);
	assert_int_equal(c->min_free_bytes, 2147483648);
	assert_true(c->min_free_fraction == 0.0);
	assert_int_equal(c->memory_bytes, 8388608);
	assert_true(c->prefer_monthly && c->lenient && c->offline);
	assert_int_equal(c->listing_ttl_ms, 0);
	assert_int_equal(c->negative_ttl_ms, 1000);
	assert_int_equal(c->revalidate_ms, 604800000);
	assert_int_equal(c->connections, 256);
	assert_int_equal(c->retries, 0);
	assert_int_equal(c->retry_base_ms, 1);
	assert_int_equal(c->retry_max_ms, 3600000);
	assert_int_equal(c->connect_timeout_ms, 1000);
	assert_int_equal(c->stall_timeout_ms, 2000);
	assert_int_equal(c->bandwidth_bytes_per_s, 3 << 20);
	assert_int_equal(c->budget_bytes, UINT64_C(4) << 30);
	assert_int_equal(c->deadline_ms, 3000);
	assert_true(c->rate_per_s == 0.0 && c->rate_burst == 1.0 &&
		    c->size_burst == 2.5);
	assert_string_equal(c->proxy, "");
	assert_string_equal(c->no_proxy, "a,b");
	assert_string_equal(c->cacert, "/ca");
	assert_string_equal(c->run_id, "run.1");
	assert_string_equal(c->log, "/var/log/t");
	assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
	assert_null(c->mirror);
	config_free(c);
}

static void test_config__the_last_of_two_counts(void **state)
{
	struct config *c = parsed("/mnt/b -o quota=1G,log=/l,offline -o "
				  "quota=2G,log=stderr,offline=no,min_free=1M,"
				  "min_free=1%");

	(void)state;
	assert_int_equal(c->quota_bytes, 2147483648);
	assert_null(c->log);
	assert_false(c->offline);
	assert_int_equal(c->min_free_bytes, 0);
	assert_true(c->min_free_fraction == 0.01);
	config_free(c);
}

static void test_config__flags_may_be_joined_and_dashes_end_them(void **state)
{
	struct config *c = parsed("-foquota=1G /mnt/b");

	(void)state;
	assert_true(c->foreground);
	assert_false(c->debug);
	assert_int_equal(c->quota_bytes, 1073741824);
	config_free(c);
	c = parsed("-d -- -f");
	assert_true(c->foreground && c->debug);
	assert_string_equal(c->mountpoint, "-f");
	config_free(c);
}

static void test_config__help_and_version_need_nothing_else(void **state)
{
	struct config *c = parsed("--help");

	(void)state;
	assert_true(c->help && !c->version);
	config_free(c);
	c = parsed("-V --nonsense");
	assert_true(c->version && !c->help);
	config_free(c);
}

static void test_config__the_only_way_to_serve_is_accepted(void **state)
{
	struct config *c = parsed("tickfs /m -o cache=/c,serve=verified");

	(void)state;
	config_free(c);
}

static void test_config__words_of_mount_are_accepted(void **state)
{
	struct config *c = parsed(
		"tickfs /mnt/b -o "
		"rw,ro,nosuid,nodev,noexec,suid,dev,exec,noatime,relatime,"
		"_netdev,nofail,noauto,auto,user,user=alice,users,defaults,,"
		"x-systemd.automount,x-systemd.idle-timeout=60,comment=x,");

	(void)state;
	assert_string_equal(c->fuse_options, "ro,fsname=tickfs,subtype=tickfs");
	config_free(c);
}

static void test_config__wrong_options_say_what_is_allowed(void **state)
{
	static const char *const wrong[][2] = {
		{"/m -o qouta=1G",
		 "unknown option \"qouta\"; did you mean \"quota\"?"},
		{"/m -o allow_ohter", "did you mean \"allow_other\"?"},
		{"/m -o xyzzy", "unknown option \"xyzzy\"; tickfs --help"},
		{"/m -o clone_fd", "unknown option \"clone_fd\""},
		{"/m -o uid=0", "unknown option \"uid\""},
		{"/m -o =1", "without a name"},
		{"/m -o quota", "quota: needs a value; give a size"},
		{"/m -o quota=", "quota=: can't be read; give a size (units K "
				 "M G T) from 16M to 8192T, e.g. quota=50G"},
		{"/m -o quota=15M", "too small"},
		{"/m -o quota=9000T", "too large"},
		{"/m -o memory=7M", "from 8M to 64G"},
		{"/m -o min_free=100%", "from 0% to 99%"},
		{"/m -o min_free=x", "can't be read"},
		{"/m -o connections=0", "from 1 to 256"},
		{"/m -o connections=257", "too large"},
		{"/m -o retries=101", "from 0 to 100"},
		{"/m -o retry_base=5", "needs a unit"},
		{"/m -o retry_base=10s,retry_max=1s",
		 "shorter than retry_base"},
		{"/m -o deadline=0", "too small; give a time (units ms s m h "
				     "d) from 100ms to 30d, or none"},
		{"/m -o rate=0", "or none"},
		{"/m -o rate_burst=0", "too small"},
		{"/m -o prefer=weekly", "give daily or monthly"},
		{"/m -o integrity=", "give strict or lenient"},
		{"/m -o offline=perhaps", "give yes or no"},
		{"/m -o log_level=trace", "give debug, info, warn or error"},
		{"/m -o run_id=", "empty"},
		{"/m -o run_id=a/b", "other characters"},
		{"/m -o cache=", "empty"},
		{"/m -o cache=~/x", "\"~\" is not expanded"},
		{"/m -o cache=/a\\012b", "control characters"},
		{"/m -o cache=/a\\000b", "a NUL"},
		{"/m -o origin=data.binance.vision", "give http://"},
		{"/m -o origin=ftp://h", "neither http nor https"},
		{"/m -o origin=file:///etc", "neither http nor https"},
		{"/m -o origin=http://", "origin=http://: "},
		{"/m -o origin=http://u@h", "user name"},
		{"/m -o origin=http://u:p@h", "user name"},
		{"/m -o origin=http://h/?a", "\"?\""},
		{"/m -o origin=http://h/#a", "\"#\""},
		{"/m -o mirror=x:y:z", "or none"},
		{"/m -o serve=early", "serve: not in this version"},
		{"/m -o serve", "serve: not in this version"},
		{"/m -o segments=4", "not in this version"},
		{"/m -o bandwidth=0", "too small; give a size (units K M G T) "
				      "from 16K to 1T, or none, e.g. "
				      "bandwidth=2M"},
		{"/m -o bandwidth=2T", "too large"},
		{"/m -o bandwidth=1M/s", "can't be read"},
		{"/m -o budget=1K", "too small; give a size (units K M G T) "
				    "from 1M to 8192T, or none, e.g. "
				    "budget=10G"},
		{"/m -o budget=1G/d", "can't be read"},
		{"/m -o alert_hit_rate=0.5", "not in this version"},
		{"/m -o max_read=1", "from 4096 to 1048576"},
		{"/m -o fsname", "needs a value"},
		{"/m -o allow_other=1", "give yes or no"},
		{"/m -o allow_other,allow_root", "exclude each other"},
		{"/m --quota=1G", "write -o quota, see --help"},
		{"/m --nope", "unknown option \"--nope\""},
		{"/m -x", "unknown option \"-x\""},
		{"/m -o", "-o needs a list"},
		{"a b c", "one word too many: \"c\""},
		{"", "no mount point given; usage: tickfs [SOURCE] MOUNTPOINT"},
		{"https://data.binance.vision", "no mount point given"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		check_refused(wrong[i][0], wrong[i][1]);
}

static void test_config__no_message_controls_a_terminal(void **state)
{
	char *argv[] = {(char *)"tickfs", (char *)"/m", (char *)"-o",
			(char *)"qu\x1b[31m\nota=1", NULL};
	struct config *c;
	char small[16];

	(void)state;
	assert_int_equal(config_parse(&c, 4, argv, error, sizeof(error)),
			 -EINVAL);
	for (const char *s = error; *s; s++)
		assert_in_range((unsigned char)*s, 0x20, 0x7e);
	assert_int_equal(config_parse(&c, 4, argv, small, sizeof(small)),
			 -EINVAL);
	assert_true(strlen(small) < sizeof(small));
	assert_int_equal(config_parse(&c, 4, argv, NULL, 0), -EINVAL);
}

/* ---- the origin and what goes with it ---- */

static void test_config__an_origin_needs_its_listing(void **state)
{
	struct config *c;

	(void)state;
	check_refused("/m -o origin=http://127.0.0.1:8080",
		      "origin=http://127.0.0.1:8080 needs listing= too");
	assert_non_null(strstr(error, "-o origin=http://127.0.0.1:PORT,listing="
				      "http://127.0.0.1:PORT/"
				      "data.binance.vision"));
	check_refused("http://127.0.0.1:8080 /m", "needs listing= too");

	c = parsed("/m -o origin=http://127.0.0.1:8080/,listing="
		   "http://127.0.0.1:8080/data.binance.vision/");
	assert_string_equal(c->origin, "http://127.0.0.1:8080");
	assert_string_equal(c->listing,
			    "http://127.0.0.1:8080/data.binance.vision");
	assert_null(c->mirror);
	config_free(c);
}

static void test_config__a_source_that_is_a_url_is_the_origin(void **state)
{
	struct config *c = parsed("http://h:1/a// /m -o listing=http://h:1/b,"
				  "mirror=https://m/x");

	(void)state;
	assert_string_equal(c->source, "http://h:1/a//");
	assert_string_equal(c->origin, "http://h:1/a");
	assert_string_equal(c->mirror, "https://m/x");
	config_free(c);
	/* The public one brings its own companions. */
	c = parsed("https://data.binance.vision/ /m");
	assert_string_equal(c->listing, PUBLIC_BUCKET);
	assert_string_equal(c->mirror, PUBLIC_BUCKET);
	config_free(c);
	check_refused("http://a /m -o origin=http://b,listing=http://b/l",
		      "SOURCE is http://a and origin= is http://b");
}

/* ---- the cache's place ---- */

static void test_config__the_cache_follows_the_environment(void **state)
{
	struct config *c;

	(void)state;
	setenv("XDG_CACHE_HOME", "/xdg", 1);
	c = parsed("/m");
	assert_string_equal(c->cache, "/xdg/tickfs");
	config_free(c);

	setenv("XDG_CACHE_HOME", "relative", 1);
	c = parsed("/m");
	assert_string_equal(c->cache, "/home/alice/.cache/tickfs");
	config_free(c);

	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	if (geteuid() == 0) {
		c = parsed("/m");
		assert_string_equal(c->cache, "/var/cache/tickfs");
		config_free(c);
	} else {
		check_refused("/m", "e.g. -o cache=/var/tmp/tickfs");
	}
}

static void test_config__relative_paths_are_made_absolute(void **state)
{
	struct config *c = parsed("mnt -o cache=c/d,log=l,cacert=a");
	char cwd[4096], expected[5000];

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	snprintf(expected, sizeof(expected), "%s/c/d", cwd);
	assert_string_equal(c->cache, expected);
	snprintf(expected, sizeof(expected), "%s/l", cwd);
	assert_string_equal(c->log, expected);
	snprintf(expected, sizeof(expected), "%s/a", cwd);
	assert_string_equal(c->cacert, expected);
	assert_string_equal(c->mountpoint, "mnt");
	config_free(c);
}

static void test_config__a_cache_below_the_mount_point_is_refused(void **state)
{
	struct config *c;

	(void)state;
	check_refused("/usr -o cache=/usr/c", "lies in the mount point");
	check_refused("/usr/../usr/ -o cache=/usr", "lies in the mount point");
	check_refused("/ -o cache=/c", "lies in the mount point");
	c = parsed("/usr -o cache=/usr2/c");
	config_free(c);
}

static void test_config__a_run_is_named_after_its_time(void **state)
{
	struct config *a = parsed("/m");
	regex_t form;

	(void)state;
	assert_int_equal(regcomp(&form, "^20[0-9]{6}-[0-9]{6}-[0-9a-f]{4}$",
				 REG_EXTENDED | REG_NOSUB),
			 0);
	assert_int_equal(regexec(&form, a->run_id, 0, NULL, 0), 0);
	regfree(&form);
	config_free(a);
}

/* ---- libfuse ---- */

static void check_libfuse_accepts(const char *options)
{
	static const struct fuse_lowlevel_ops ops;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *se;

	fuse_opt_add_arg(&args, "tickfs");
	fuse_opt_add_arg(&args, "-o");
	fuse_opt_add_arg(&args, options);
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!se)
		fail_msg("libfuse refuses \"%s\"", options);
	fuse_session_destroy(se);
	fuse_opt_free_args(&args);
}

static void test_config__libfuse_accepts_what_is_passed_on(void **state)
{
	struct config *c = parsed(
		"a\\b,c /m -o allow_other,auto_unmount,default_permissions,"
		"max_read=131072,context=u:r:t:s0:c1\\,c2,fscontext=a,"
		"defcontext=b,rootcontext=c,allow_root=no");

	(void)state;
	assert_string_equal(
		c->fuse_options,
		"ro,fsname=a\\\\b\\,c,subtype=tickfs,allow_other,auto_unmount,"
		"default_permissions,max_read=131072,"
		"context=u:r:t:s0:c1\\,c2,fscontext=a,defcontext=b,"
		"rootcontext=c");
	check_libfuse_accepts(c->fuse_options);
	config_free(c);

	c = parsed("/m -o allow_root,fsname=n,subtype=s");
	assert_string_equal(c->fuse_options,
			    "ro,fsname=n,subtype=s,allow_root");
	check_libfuse_accepts(c->fuse_options);
	config_free(c);
}

/* ---- the config file ---- */

static char file_path[64];

/* The parser sees it as a regular file under /proc/self/fd. */
static int make_file(const char *text, size_t len)
{
	int fd = memfd_create("config", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, len), len);
	snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", fd);
	return fd;
}

static int parse_file(const char *text, size_t len, const char *more,
		      struct config **c)
{
	int fd = make_file(text, len), err;
	char line[256];

	snprintf(line, sizeof(line), "/m %s -o config=%s", more, file_path);
	err = parse(line, c);
	close(fd);
	return err;
}

static void test_config__a_file_gives_the_same_options(void **state)
{
	static const char text[] = "# tickfs\n"
				   "; a comment too\n"
				   "\n"
				   "quota = 3G\n"
				   "  memory=16M\r\n"
				   "\toffline = yes  ; because\n"
				   "prefer : monthly\n"
				   "allow_other = yes\n"
				   "no_proxy = a,b\n"
				   "retries = 7";
	struct config *c;

	(void)state;
	if (parse_file(text, strlen(text), "-o retries=9,allow_other=no", &c))
		fail_msg("%s", error);
	assert_int_equal(c->quota_bytes, 3221225472);
	assert_int_equal(c->memory_bytes, 16777216);
	assert_true(c->offline);
	assert_true(c->prefer_monthly);
	assert_string_equal(c->no_proxy, "a,b");
	assert_int_equal(c->retries, 9);
	assert_string_equal(c->fuse_options, "ro,fsname=tickfs,subtype=tickfs");
	config_free(c);
}

static void check_file_refused(const char *text, size_t len, const char *where,
			       const char *said)
{
	char prefix[128];
	struct config *c;

	assert_int_equal(parse_file(text, len, "", &c), -EINVAL);
	snprintf(prefix, sizeof(prefix), "%s:%s: ", file_path, where);
	if (strncmp(error, prefix, strlen(prefix)) != 0 || !strstr(error, said))
		fail_msg("\"%s\" lacks \"%s\" or \"%s\"", error, prefix, said);
}

static void test_config__a_fault_in_a_file_names_its_line(void **state)
{
	static const char *const wrong[][3] = {
		{"quota = 1G\nqouta = 2G\n", "2", "did you mean \"quota\"?"},
		{"\n\nquota = 1M\n", "3", "too small"},
		{"quota = 1G\nnonsense\nmemory = 1K\n", "2",
		 "is no line \"name = value\""},
		{"memory = 1K\nnonsense\n", "1", "too small"},
		{"[cache]\nquota = 1G\n", "1", "no [sections]"},
		{"log = /l\n\n\t[cache]\n\n; of it\nquota = 1G\n", "3",
		 "no [sections]"},
		{"log = /l\n[cache]\n", "2", "no [sections]"},
		{"[cache\nquota = 1G\n", "1", "no [sections]"},
		{"\xef\xbb\xbf[cache]\nquota = 1G\n", "1", "no [sections]"},
		{"nonsense\n[cache]\n", "1", "is no line"},
		{"config = /x\n", "1", "can't name another"},
		{"log = /l\n  quota 5G\n", "2", "is no line"},
		{"offline =\n", "1", "give yes or no"},
		{"segments = 4\n", "1", "not in this version"},
	};
	char longest[400];

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		check_file_refused(wrong[i][0], strlen(wrong[i][0]),
				   wrong[i][1], wrong[i][2]);
	check_file_refused("log = /a\0b\n", 11, "1", "has a NUL");
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "\nlog = /", 8);
	check_file_refused(longest, sizeof(longest), "2", "line too long");
	/* 199 bytes and a newline are one too many. */
	longest[1 + 199] = '\n';
	check_file_refused(longest, 1 + 200, "2", "line too long");
}

static void test_config__the_longest_line_of_a_file_is_whole(void **state)
{
	char text[199];
	struct config *c;

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text, "log = /", 7);
	text[198] = '\n';
	if (parse_file(text, sizeof(text), "", &c))
		fail_msg("%s", error);
	assert_int_equal(strlen(c->log), 198 - 6);
	config_free(c);
}

static void test_config__what_is_no_config_file_is_refused(void **state)
{
	struct config *c;

	(void)state;
	assert_int_equal(parse("/m -o config=/nonexistent/x", &c), -ENOENT);
	assert_non_null(strstr(error, "config=/nonexistent/x: No such file"));
	check_refused("/m -o config=/", "is no regular file");
	check_refused("/m -o config=/dev/zero", "is no regular file");
	check_refused("/m -o config=", "empty");
	check_refused("/m -o config", "needs a value");
}

/* ---- what users read ---- */

static char *read_file(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = NULL;
	size_t room = 0;

	if (!f)
		return NULL;
	if (getdelim(&text, &room, '\0', f) < 0) {
		free(text);
		text = NULL;
	}
	fclose(f);
	return text;
}

static void test_config__help_lists_every_option_in_80_columns(void **state)
{
	const char *name, *fallback;
	char *text, wanted[64];
	size_t size;
	FILE *to = open_memstream(&text, &size);

	(void)state;
	assert_non_null(to);
	config_help(to);
	fclose(to);
	for (size_t i = 0; (name = config_option_name(i, &fallback)); i++) {
		snprintf(wanted, sizeof(wanted), "\n  %s", name);
		assert_non_null(strstr(text, wanted));
	}
	assert_true(strncmp(text, "usage: tickfs [SOURCE] MOUNTPOINT", 33) ==
		    0);
	for (const char *line = text; *line;) {
		size_t len = strcspn(line, "\n");

		assert_true(len <= 80);
		line += len + 1;
	}
	free(text);
}

/* The page as plain words: no escapes, no breaks between lines. */
static void flatten(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] == 'f' && s[2]) {
			s += 2;
			continue;
		}
		if (strncmp(s, "\\(ti", 4) == 0) {
			*to++ = '~';
			s += 3;
			continue;
		}
		if (s[0] == '\\' && s[1])
			s++;
		*to++ = *s == '\n' ? ' ' : *s;
	}
	*to = '\0';
}

/*
 * In the man page the options stand between two comments, each as
 *	.TP
 *	\fBname\fR=\fIARG\fR
 * and each says its default in the words of the table.
 */
static void test_config__the_man_page_has_the_same_options(void **state)
{
	char *page = read_file("man/tickfs.1"), *entry, *end;
	const char *name, *fallback;
	size_t count = 0, i;

	(void)state;
	if (!page)
		skip_without("to run from the top of the repository");
	entry = strstr(page, ".\\\" options begin");
	end = strstr(page, ".\\\" options end");
	assert_true(entry && end && entry < end);
	*end = '\0';

	for (; (entry = strstr(entry, "\n.TP\n\\fB")); count++) {
		char documented[64] = "", wanted[256], *next;

		entry += strlen("\n.TP\n\\fB");
		snprintf(documented, sizeof(documented), "%.*s",
			 (int)strspn(entry, "abcdefghijklmnopqrstuvwxyz_"),
			 entry);
		assert_non_null(config_option_find(documented));
		for (i = 0; (name = config_option_name(i, &fallback)); i++)
			if (strcmp(name, documented) == 0)
				break;
		next = strstr(entry, "\n.TP");
		next = next ? strndup(entry, (size_t)(next - entry))
			    : strdup(entry);
		flatten(next);
		snprintf(wanted, sizeof(wanted), "Default: %s.", fallback);
		if (!strstr(next, wanted))
			fail_msg("man page, %s: lacks \"%s\"", name, wanted);
		free(next);
	}
	for (i = 0; config_option_name(i, &fallback); i++)
		;
	assert_int_equal(count, i);
	free(page);
}

static void test_config__distance_counts_single_slips(void **state)
{
	(void)state;
	assert_int_equal(config_distance("quota", "quota"), 0);
	assert_int_equal(config_distance("qouta", "quota"), 1);
	assert_int_equal(config_distance("quot", "quota"), 1);
	assert_int_equal(config_distance("quotas", "quota"), 1);
	assert_int_equal(config_distance("quoda", "quota"), 1);
	assert_int_equal(config_distance("", "abc"), 3);
	assert_int_equal(config_distance("kitten", "sitting"), 3);
	assert_true(config_distance("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a") >
		    31);
}

#define TEST(name) cmocka_unit_test_setup(name, set_home)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config__sizes_are_powers_of_1024),
		TEST(test_config__times_need_their_unit),
		TEST(test_config__rates_count_per_second),
		TEST(test_config__defaults_are_those_of_the_design),
		TEST(test_config__options_reach_their_fields),
		TEST(test_config__the_last_of_two_counts),
		TEST(test_config__flags_may_be_joined_and_dashes_end_them),
		TEST(test_config__help_and_version_need_nothing_else),
		TEST(test_config__the_only_way_to_serve_is_accepted),
		TEST(test_config__words_of_mount_are_accepted),
		TEST(test_config__wrong_options_say_what_is_allowed),
		TEST(test_config__no_message_controls_a_terminal),
		TEST(test_config__an_origin_needs_its_listing),
		TEST(test_config__a_source_that_is_a_url_is_the_origin),
		TEST(test_config__the_cache_follows_the_environment),
		TEST(test_config__relative_paths_are_made_absolute),
		TEST(test_config__a_cache_below_the_mount_point_is_refused),
		TEST(test_config__a_run_is_named_after_its_time),
		TEST(test_config__libfuse_accepts_what_is_passed_on),
		TEST(test_config__a_file_gives_the_same_options),
		TEST(test_config__a_fault_in_a_file_names_its_line),
		TEST(test_config__the_longest_line_of_a_file_is_whole),
		TEST(test_config__what_is_no_config_file_is_refused),
		TEST(test_config__help_lists_every_option_in_80_columns),
		TEST(test_config__the_man_page_has_the_same_options),
		TEST(test_config__distance_counts_single_slips),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

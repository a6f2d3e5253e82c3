/*
 * origin - serve a folder as an imitation of Binance Vision.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/origin/origin_server.h"

static const char usage[] =
	"usage: origin --root DIR [--port N] [OPTION...]\n"
	"Serves DIR/data on 127.0.0.1 as an imitation of Binance Vision, and\n"
	"prints \"listening on URL\" once it does. Ends on SIGTERM and "
	"SIGINT.\n"
	"\n"
	"  --root DIR             the folder that has data/ in it\n"
	"  --port N               0: any that is free (default)\n"
	"  --listing-path PATH    of listings (default /data.binance.vision)\n"
	"  --page-size N          entries of a page of a listing (default "
	"1000)\n"
	"  --multipart-above N    larger files get an ETag that is no MD5\n"
	"                         (bytes, default 268435456)\n"
	"  --faults FILE          JSON rules, see tests/origin/rules.h\n"
	"  --help\n";

static int read_file(const char *path, char **out)
{
	FILE *f = fopen(path, "re");
	size_t room = 0;
	ssize_t n;
	int err;

	if (!f)
		return -errno;
	*out = NULL;
	n = getdelim(out, &room, '\0', f);
	err = n < 0 && ferror(f) ? -errno : 0;
	fclose(f);
	if (err) {
		free(*out);
		*out = NULL;
	}
	return err;
}

static int parse_number(const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno || end == text || *end || *text == '-' || *out > max
		       ? -EINVAL
		       : 0;
}

static int parse(int argc, char **argv, struct imitation_config *cfg,
		 const char **faults)
{
	static const struct option options[] = {
		{"root", required_argument, NULL, 'r'},
		{"port", required_argument, NULL, 'p'},
		{"listing-path", required_argument, NULL, 'l'},
		{"page-size", required_argument, NULL, 's'},
		{"multipart-above", required_argument, NULL, 'm'},
		{"faults", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	uint64_t number = 0;
	int c, err = 0;

	while (!err && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'r':
			cfg->root = optarg;
			break;
		case 'p':
			err = parse_number(optarg, UINT16_MAX, &number);
			cfg->port = (uint16_t)number;
			break;
		case 'l':
			cfg->listing_path = optarg;
			break;
		case 's':
			err = parse_number(optarg, 1000, &number);
			cfg->page_size = (unsigned int)number;
			break;
		case 'm':
			err = parse_number(optarg, UINT64_MAX,
					   &cfg->multipart_above);
			break;
		case 'f':
			*faults = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			return -EINVAL;
		}
		if (err)
			fprintf(stderr, "origin: not a number here: %s\n",
				optarg);
	}
	if (!err && (optind != argc || !cfg->root)) {
		fprintf(stderr, "origin: --root DIR is needed, and no more\n");
		err = -EINVAL;
	}
	return err;
}

/* Each connection takes a descriptor, and one for the file it sends. */
static void raise_descriptors(void)
{
	struct rlimit lim;

	if (!getrlimit(RLIMIT_NOFILE, &lim)) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
}

int main(int argc, char **argv)
{
	struct imitation_config cfg = {0};
	struct imitation *im;
	const char *faults = NULL;
	char *rules = NULL, why[160] = "";
	sigset_t set;
	int err, sig;

	if (parse(argc, argv, &cfg, &faults)) {
		fputs(usage, stderr);
		return 2;
	}
	if (faults) {
		err = read_file(faults, &rules);
		if (err) {
			fprintf(stderr, "origin: %s: %s\n", faults,
				strerror(-err));
			return 1;
		}
		cfg.rules = rules;
	}
	raise_descriptors();
	signal(SIGPIPE, SIG_IGN);
	/* before the threads, which inherit it */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	err = imitation_start(&im, &cfg, why, sizeof(why));
	free(rules);
	if (err) {
		fprintf(stderr, "origin: %s: %s\n", why, strerror(-err));
		return 1;
	}
	printf("listening on %s\n", imitation_url(im));
	fflush(stdout);
	sigwait(&set, &sig);
	imitation_stop(im);
	return 0;
}

/*
 * main - wiring: everything is made bottom up, and taken down again.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/pool.h"
#include "cache/spending.h"
#include "cache/store.h"
#include "fetch/origin.h"
#include "fs/budget.h"
#include "fs/config.h"
#include "fs/daemon.h"
#include "fs/file.h"
#include "fs/folder.h"
#include "fs/fuse.h"
#include "fs/listings.h"
#include "fs/log.h"
#include "fs/metrics.h"
#include "fs/observe.h"
#include "fs/ops.h"
#include "fs/prefill.h"
#include "fs/prune.h"
#include "fs/report.h"
#include "fs/supply.h"
#include "fs/when.h"

enum {
	LOG_RING_BYTES = 1 << 20,
	PARKED_THREADS = 4,
	QUICK_THREADS = 4,
	LOOP_THREADS_MIN = 4,
	LOOP_THREADS_MAX = 10, /* as libfuse has it */
	/* Of the memory limit: the rest is for tables, parked requests and
	 * what the libraries take. */
	POOL_PERCENT = 70,
	SPANS_AHEAD = 6,
	UPKEEP_A_SECOND = 4,
	HOLDER_TRIES = 30,
	HOLDER_WAIT_US = 100000,
	/* A node for each KiB of the memory limit; it takes about a third of
	 * that. */
	BYTES_PER_NODE = 1024,
	PREFILL_DIVISOR = 8,
	/* Beside the limit: so that with it all is less than twice as much. */
	BYTES_PER_ADMISSION = 4 << 20,
	ADMISSIONS_MIN = 4,
	ADMISSIONS_MAX = 16,
	MMAP_BYTES = 256 << 10, /* above what a read needs for a moment */
};

struct mount {
	struct config *cfg;
	int log_fd;
	struct store *store;
	struct budget *budget; /* NULL: none */
	bool spending_fails;   /* to be kept, and that was told */
	struct origin *origin;
	/* Three, so that a request whose answer is there waits neither for
	 * an inflate nor for a catalog that is being synced. */
	struct workers *parked, *quick, *heavy;
	struct pool *pool;
	struct supply *supply;
	struct listings *listings;
	struct folders *folders;
	struct tree *tree;
	struct files *files;
	struct nodes *nodes;
	struct ops ops;
	struct fuse_session *session;
	struct prune *prune;
	struct prefill *prefill;
	bool mounted;
	int nowhere; /* /dev/null: see disconnect() */

	pthread_t upkeep;
	bool upkeep_runs;
	pthread_mutex_t lock;
	pthread_cond_t ending_changed;
	bool ending; /* protected by lock */
};

static void __attribute__((format(printf, 1, 2)))
complain(const char *format, ...)
{
	va_list ap;

	fputs("tickfs: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* ---- before the mount ---- */

static int check_mountpoint(const char *path)
{
	struct stat st;

	if (stat(path, &st)) {
		complain("%s: %s%s", path, strerror(errno),
			 errno == ENOTCONN ? " (a dead mount? try: umount -l)"
					   : "");
		return -errno;
	}
	if (!S_ISDIR(st.st_mode)) {
		complain("%s: not a directory", path);
		return -ENOTDIR;
	}
	return 0;
}

/* A daemon leaves the folder that a relative path counts from. */
static int make_absolute(char **path)
{
	char *absolute = realpath(*path, NULL);

	if (!absolute) {
		complain("%s: %s", *path, strerror(errno));
		return -errno;
	}
	free(*path);
	*path = absolute;
	return 0;
}

/* Is stderr the journal's? systemd.exec(5): the variable names its device and
 * inode, and is inherited by whatever a service starts. */
static bool is_service(void)
{
	const char *journal = getenv("JOURNAL_STREAM");
	char here[64];
	struct stat st;

	if (!journal || fstat(STDERR_FILENO, &st))
		return false;
	snprintf(here, sizeof(here), "%ju:%ju", (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino);
	return strcmp(journal, here) == 0;
}

static int start_log(struct mount *m)
{
	const struct config *cfg = m->cfg;
	int fd = STDERR_FILENO;

	m->log_fd = -1;
	if (cfg->log) {
		fd = m->log_fd =
			open(cfg->log,
			     O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
		if (fd < 0) {
			complain("log %s: %s", cfg->log, strerror(errno));
			return -errno;
		}
	}
	return log_start(fd, cfg->log_level, cfg->run_id, LOG_RING_BYTES);
}

static unsigned int cores(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (unsigned int)n : 1;
}

/*
 * What is freed goes back to the system. glibc takes large blocks from the
 * system one by one only until the first of them is freed; then it keeps them,
 * in as many heaps as there are threads, up to eight a core. After 64 archives
 * had been admitted it held 110 MB that nobody used.
 */
static void bound_heaps(void)
{
	mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
	mallopt(M_ARENA_MAX, (int)(2 * cores()));
}

/* Handles and downloads are files; as many as we may have. */
static void raise_file_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static int open_store(struct mount *m)
{
	struct store_config sc = {
		.dir = m->cfg->cache,
		.quota_bytes = m->cfg->quota_bytes,
		.min_free_bytes = m->cfg->min_free_bytes,
		.min_free_fraction = m->cfg->min_free_fraction,
		.on_event = observe_store,
	};
	pid_t holder = 0;
	int err = store_open(&m->store, &sc, &holder);

	/* Unmounting is over before the daemon is: the one before may be just
	 * about to let go. */
	for (int i = 0; err == -EBUSY && i < HOLDER_TRIES; i++) {
		usleep(HOLDER_WAIT_US);
		err = store_open(&m->store, &sc, &holder);
	}

	if (err == -EBUSY && holder > 0)
		complain("cache %s is in use by another tickfs (pid %ld); "
			 "give this one its own with -o cache=DIR",
			 m->cfg->cache, (long)holder);
	else if (err == -EBUSY)
		complain("cache %s is in use by another tickfs", m->cfg->cache);
	else if (err == -EACCES)
		complain("cache %s: not ours alone: it must belong to this "
			 "user and be closed to others (mode 0700)",
			 m->cfg->cache);
	else if (err)
		complain("cache %s: %s", m->cfg->cache, strerror(-err));
	return err;
}

/* What was spent today before this mount counts, too. */
static int make_budget(struct mount *m)
{
	struct spending kept;
	int err;

	if (!m->cfg->budget_bytes)
		return 0;
	err = spending_load(m->cfg->cache, &kept);
	if (err && err != -ENOENT)
		log_event(LOG_LEVEL_WARN, "cache", "spending_forgotten",
			  log_str("error", strerror(-err)), LOG_END);
	err = budget_create(&m->budget, m->cfg->budget_bytes,
			    err ? NULL : &kept);
	if (err)
		complain("%s", strerror(-err));
	return err;
}

static void keep_spending(struct mount *m, bool all)
{
	struct spending s;
	int err;

	if (!budget_to_keep(m->budget, all, when_now(), &s))
		return;
	err = spending_save(m->cfg->cache, &s);
	if (err)
		budget_not_kept(m->budget);
	/* It is tried again every few seconds: told when that changes. */
	if (err && !m->spending_fails)
		log_event(LOG_LEVEL_WARN, "cache", "spending_not_kept",
			  log_str("error", strerror(-err)), LOG_END);
	else if (!err && m->spending_fails)
		log_event(LOG_LEVEL_INFO, "cache", "spending_kept", LOG_END);
	m->spending_fails = err != 0;
}

static int make_origin(struct mount *m)
{
	const struct config *cfg = m->cfg;
	struct origin_config oc = {
		.objects = cfg->origin,
		.listing = cfg->listing,
		.mirror = cfg->mirror,
		.proxy = cfg->proxy,
		.no_proxy = cfg->no_proxy,
		.cacert = cfg->cacert,
		.connections = cfg->connections,
		.retries = cfg->retries,
		.retry_base_ms = cfg->retry_base_ms,
		.retry_max_ms = cfg->retry_max_ms,
		.connect_timeout_ms = cfg->connect_timeout_ms,
		.stall_timeout_ms = cfg->stall_timeout_ms,
		.deadline_ms = cfg->deadline_ms,
		.rate_per_s = cfg->rate_per_s,
		.rate_burst = cfg->rate_burst,
		.size_burst = cfg->size_burst,
		.bandwidth_bytes_per_s = cfg->bandwidth_bytes_per_s,
		.offline = cfg->offline,
		.on_event = observe_fetch,
		.event_arg = m->budget,
	};
	int err = origin_create(&m->origin, &oc);

	if (err)
		complain("origin %s: %s", cfg->origin, strerror(-err));
	return err;
}

static void on_entry(void *arg, const char *prefix,
		     const struct listing_entry *e, int64_t now)
{
	struct mount *m = arg;
	char key[ORIGIN_KEY_MAX + 1];
	int n = snprintf(key, sizeof(key), "%s%s", prefix, e->name);

	if (n > 0 && (size_t)n < sizeof(key))
		supply_note(m->supply, key, e->etag, e->size, e->last_modified,
			    now);
}

/* Of the machine's memory, where the user does not say. */
static uint64_t prefill_limit(const struct config *cfg)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

	if (cfg->prefill_bytes != UINT64_MAX)
		return cfg->prefill_bytes;
	return pages > 0 && page > 0
		       ? (uint64_t)pages * (uint64_t)page / PREFILL_DIVISOR
		       : 0;
}

static unsigned int admissions(const struct config *cfg)
{
	uint64_t n = cfg->memory_bytes / BYTES_PER_ADMISSION;

	if (n < ADMISSIONS_MIN)
		return ADMISSIONS_MIN;
	return n < ADMISSIONS_MAX ? (unsigned int)n : ADMISSIONS_MAX;
}

static int make_supply(struct mount *m)
{
	const struct config *cfg = m->cfg;
	struct supply_config sc = {
		.origin = m->origin,
		.store = m->store,
		.quick = m->quick,
		.heavy = m->heavy,
		.budget = m->budget,
		.admissions = admissions(cfg),
		.run_id = cfg->run_id,
		.lenient = cfg->lenient,
		.offline = cfg->offline,
		.paced = cfg->bandwidth_bytes_per_s > 0,
		.has_mirror = cfg->mirror != NULL,
		.negative_ttl_ms = cfg->negative_ttl_ms,
		.revalidate_ms = cfg->revalidate_ms,
	};
	struct listings_config lc = {
		.origin = m->origin,
		.catalog = store_catalog(m->store),
		.workers = m->quick,
		.budget = m->budget,
		.ttl_ms = cfg->listing_ttl_ms,
		.negative_ttl_ms = cfg->negative_ttl_ms,
		.offline = cfg->offline,
		.on_entry = on_entry,
		.arg = m,
	};
	int err = prefill_create(&m->prefill, prefill_limit(cfg));

	if (err)
		return err;
	sc.prefill = m->prefill;
	err = supply_create(&m->supply, &sc);
	return err ? err : listings_create(&m->listings, &lc);
}

static int make_tree(struct mount *m)
{
	struct folders_config fc = {
		.supply = m->supply,
		.listings = m->listings,
		.catalog = store_catalog(m->store),
		.prefer_monthly = m->cfg->prefer_monthly,
		.workers = m->quick,
		.control_files = report_names,
	};
	struct tree_config tc = {
		.supply = m->supply,
		.listings = m->listings,
		.catalog = store_catalog(m->store),
		.control_files = report_names,
	};
	int err = folder_table_create(&m->folders, &fc);

	if (err)
		return err;
	tc.folders = m->folders;
	return tree_create(&m->tree, &tc);
}

static int make_threads(struct mount *m)
{
	uint64_t pool_bytes = m->cfg->memory_bytes * POOL_PERCENT / 100;
	int err = workers_create(&m->parked, PARKED_THREADS, "tickfs-parked");

	if (!err)
		err = workers_create(&m->quick, QUICK_THREADS, "tickfs-quick");
	if (!err)
		err = workers_create(&m->heavy, cores(), "tickfs-heavy");
	if (!err)
		err = pool_create(&m->pool, (size_t)pool_bytes, cores());
	return err;
}

/* Everything below the session. Says itself what is wrong. */
static int make_all(struct mount *m)
{
	int err = open_store(m);

	if (!err)
		err = make_budget(m);
	if (!err)
		err = make_origin(m);
	if (err)
		return err;
	err = make_threads(m);
	if (!err)
		err = make_supply(m);
	if (!err)
		err = make_tree(m);
	if (!err)
		err = file_table_create(&m->files, m->pool, SPANS_AHEAD);
	if (!err)
		err = node_table_create(&m->nodes);
	if (err)
		complain("%s", strerror(-err));
	return err;
}

/* ---- the mount ---- */

static void on_ready(void *arg)
{
	struct mount *m = arg;
	bool keep_stderr = is_service();

	/* A terminal is not to be written to once the command returns. */
	if (!m->cfg->foreground && !m->cfg->log && !keep_stderr)
		log_start(-1, m->cfg->log_level, m->cfg->run_id,
			  LOG_RING_BYTES);
	log_event(LOG_LEVEL_INFO, "mount", "mounted",
		  log_str("mountpoint", m->cfg->mountpoint),
		  log_str("version", TICKFS_VERSION),
		  log_str("cache", m->cfg->cache),
		  log_str("origin", m->cfg->origin), LOG_END);
	daemon_ready(keep_stderr);
}

static void fill_ops(struct mount *m)
{
	m->ops = (struct ops){
		.tree = m->tree,
		.folders = m->folders,
		.supply = m->supply,
		.store = m->store,
		.files = m->files,
		.nodes = m->nodes,
		.prefill = m->prefill,
		.parking =
			{
				.workers = m->parked,
				.lock = PTHREAD_MUTEX_INITIALIZER,
				.none = PTHREAD_COND_INITIALIZER,
			},
		.xattrs =
			{
				.supply = m->supply,
				.store = m->store,
				.pool = m->pool,
				.origin = m->origin,
				.budget = m->budget,
				.folders = m->folders,
				.nodes = m->nodes,
				.run_id = m->cfg->run_id,
				.started_ms = when_ms(),
			},
		.uid = getuid(),
		.gid = getgid(),
		.mounted_at = when_now(),
		.max_read = m->cfg->max_read ? m->cfg->max_read : OPS_MAX_READ,
		.on_ready = on_ready,
		.ready_arg = m,
	};
}

static int open_nowhere(struct mount *m)
{
	int err;

	m->nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	err = m->nowhere < 0 ? -errno : 0;
	if (err)
		complain("/dev/null: %s", strerror(-err));
	return err;
}

static int make_session(struct mount *m)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	const struct config *cfg = m->cfg;
	char *options = NULL;
	int err = -ENOMEM;

	fill_ops(m);
	if (asprintf(&options, "%s,nosuid,nodev,max_read=%u", cfg->fuse_options,
		     m->ops.max_read) < 0)
		return -ENOMEM;
	if (fuse_opt_add_arg(&args, "tickfs") ||
	    fuse_opt_add_arg(&args, "-o") || fuse_opt_add_arg(&args, options) ||
	    (cfg->debug && fuse_opt_add_arg(&args, "-d")))
		goto out;
	m->session =
		fuse_session_new(&args, &ops_table, sizeof(ops_table), &m->ops);
	err = m->session ? 0 : -EINVAL;
out:
	fuse_opt_free_args(&args);
	free(options);
	return err;
}

/* Readers get requests of 128 KiB unless the mount's read-ahead is raised,
 * which only root may. */
static void raise_read_ahead(const char *mountpoint)
{
	char path[64], value[16];
	struct statx stx;
	int fd, n;
	bool done = false;

	/* From the cache: asking the mount itself is not needed. */
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &stx))
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 stx.stx_dev_major, stx.stx_dev_minor);
	n = snprintf(value, sizeof(value), "%d", OPS_MAX_READ / 1024);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		done = write(fd, value, (size_t)n) == n;
		close(fd);
	}
	log_event(LOG_LEVEL_DEBUG, "mount",
		  done ? "read_ahead_raised" : "read_ahead_kept",
		  log_str("path", path), LOG_END);
}

static void *keep_up(void *arg)
{
	struct mount *m = arg;
	struct timespec next;
	bool ending = false;

	raise_read_ahead(m->cfg->mountpoint);
	for (unsigned int turn = 0; !ending; turn++) {
		if (turn % UPKEEP_A_SECOND == 0)
			metrics_tick(when_ms());
		store_tick(m->store, when_now());
		supply_tick(m->supply, when_ms());
		prune_tick(m->prune, when_ms());
		keep_spending(m, false);
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_nsec += 1000000000 / UPKEEP_A_SECOND;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		pthread_mutex_lock(&m->lock);
		while (!m->ending &&
		       pthread_cond_timedwait(&m->ending_changed, &m->lock,
					      &next) != ETIMEDOUT)
			;
		ending = m->ending;
		pthread_mutex_unlock(&m->lock);
	}
	return NULL;
}

static int start_upkeep(struct mount *m)
{
	pthread_condattr_t attr;
	int err;

	prefill_start(m->prefill, m->session);
	err = prune_create(&m->prune, m->nodes,
			   (size_t)(m->cfg->memory_bytes / BYTES_PER_NODE),
			   fuse_session_fd(m->session));
	if (err)
		return err;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->ending_changed, &attr);
	pthread_condattr_destroy(&attr);
	err = -pthread_create(&m->upkeep, NULL, keep_up, m);
	m->upkeep_runs = !err;
	return err;
}

static void stop_upkeep(struct mount *m)
{
	if (!m->upkeep_runs)
		return;
	pthread_mutex_lock(&m->lock);
	m->ending = true;
	pthread_cond_signal(&m->ending_changed);
	pthread_mutex_unlock(&m->lock);
	pthread_join(m->upkeep, NULL);
	pthread_cond_destroy(&m->ending_changed);
	pthread_mutex_destroy(&m->lock);
}

/*
 * No request waits for the network, a decode or a sync on a thread of the loop,
 * so there are as many as keep the processors busy and two for those that look
 * something up on a disk. The kernel wakes the one that has slept longest: with
 * more of them, a small request beside large ones comes to a thread that was
 * last on another processor, and takes twice as long.
 */
static unsigned int loop_threads(void)
{
	unsigned int n = cores() + 2;

	if (n < LOOP_THREADS_MIN)
		return LOOP_THREADS_MIN;
	return n < LOOP_THREADS_MAX ? n : LOOP_THREADS_MAX;
}

static int serve(struct mount *m)
{
	struct fuse_loop_config *loop = fuse_loop_cfg_create();
	int err;

	if (!loop)
		return -ENOMEM;
	fuse_loop_cfg_set_max_threads(loop, loop_threads());
	err = fuse_session_loop_mt(m->session, loop);
	fuse_loop_cfg_destroy(loop);
	/* A positive value is the signal that ended it: that is no error. */
	return err < 0 ? err : 0;
}

/*
 * Let go who waits: the connection to the kernel ends with its last descriptor.
 * Not by fuse_session_unmount(), for that frees the descriptor's number a while
 * before it forgets it, and answers that are still on their way would go into
 * the file that is opened next. From here on they go nowhere.
 */
static void disconnect(struct mount *m)
{
	struct pollfd device = {.fd = fuse_session_fd(m->session)};

	/* Unmounted by others, the connection has ended, and libfuse wants to
	 * see that by the device. */
	if (poll(&device, 1, 0) == 1 && device.revents & POLLERR)
		return;
	dup3(m->nowhere, device.fd, O_CLOEXEC);
}

/* Readers are let go first; then nothing new begins, what is under way ends,
 * and only then is anything freed. */
static void take_down(struct mount *m)
{
	if (m->prune)
		prune_stop(m->prune);
	if (m->prefill)
		prefill_stop(m->prefill);
	if (m->mounted)
		disconnect(m);
	stop_upkeep(m);
	prune_free(m->prune);
	if (m->origin)
		origin_stop(m->origin);
	/* Some wait for the pool, of which the workers know nothing. */
	if (m->session)
		parked_drain(&m->ops.parking);
	if (m->heavy) /* made last */
		workers_drain(
			(struct workers *[]){m->parked, m->quick, m->heavy}, 3);
	workers_free(m->heavy);
	workers_free(m->quick);
	workers_free(m->parked);
	if (m->mounted)
		fuse_session_unmount(m->session);
	if (m->session) {
		fuse_remove_signal_handlers(m->session);
		fuse_session_destroy(m->session);
	}
	tree_free(m->tree);
	folder_table_free(m->folders);
	listings_free(m->listings);
	supply_free(m->supply);
	prefill_free(m->prefill);
	node_table_free(m->nodes);
	file_table_free(m->files);
	pool_free(m->pool);
	origin_free(m->origin);
	keep_spending(m, true);
	budget_free(m->budget);
	store_close(m->store);
	if (m->mounted)
		log_event(LOG_LEVEL_INFO, "mount", "unmounted", LOG_END);
	log_stop();
	if (m->log_fd >= 0)
		close(m->log_fd);
	if (m->nowhere >= 0)
		close(m->nowhere);
}

static void block_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

static int run(struct config *cfg)
{
	struct mount m = {.cfg = cfg, .log_fd = -1, .nowhere = -1};
	sigset_t before;
	int err = start_log(&m);

	if (err)
		return err;
	raise_file_limit();
	bound_heaps();
	umask(077);
	/* Only the threads of the FUSE loop take signals, or it would not
	 * wake for them. */
	block_signals(&before);
	err = make_all(&m);
	if (!err)
		err = open_nowhere(&m);
	if (!err)
		err = make_session(&m);
	if (!err && fuse_set_signal_handlers(m.session))
		err = -EINVAL;
	if (!err && fuse_session_mount(m.session, cfg->mountpoint)) {
		/* libfuse has said why. */
		complain("can't mount on %s", cfg->mountpoint);
		err = -EIO;
	}
	m.mounted = !err;
	if (!err)
		err = start_upkeep(&m);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!err)
		err = serve(&m);
	take_down(&m);
	return err;
}

int main(int argc, char **argv)
{
	char error[CONFIG_ERROR_MAX];
	struct config *cfg;
	int err;

	if (config_parse(&cfg, argc, argv, error, sizeof(error))) {
		complain("%s", error);
		return 2;
	}
	if (cfg->help || cfg->version) {
		if (cfg->help)
			config_help(stdout);
		else
			puts("tickfs " TICKFS_VERSION);
		config_free(cfg);
		return 0;
	}
	err = check_mountpoint(cfg->mountpoint);
	if (!err)
		err = make_absolute(&cfg->mountpoint);
	if (!err && !cfg->foreground)
		err = daemon_begin();
	if (!err)
		err = run(cfg);
	config_free(cfg);
	return err ? 1 : 0;
}

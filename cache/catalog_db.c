/*
 * Every call holds `gate` shared while it is inside SQLite; the replacement of
 * a damaged file holds it alone, so that no connection to the old file is in
 * use. A call that meets damage leaves, asks for the replacement of the
 * generation it saw, and is done again on the new file; of several that met
 * the same damage the first replaces and the others find a newer generation.
 *
 * Readers take a connection from a free list or open one more, so that nobody
 * waits for another reader; WAL makes them independent of the writer.
 *
 * Locks, in the order they may be taken: gate, write_lock, pool_lock.
 */
#include "cache/catalog_db.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cache/catalog_schema.h"

#define NAME	  "catalog.sqlite"
#define PUT_ASIDE NAME ".damaged-"

enum {
	IDLE_MAX = 16, /* reading connections kept when nobody reads */
	ASIDE_MAX = 3, /* damaged files kept */
	WRITE_BUSY_MS = 5000,
	/* Only another program that recovers the file can hold up a reader,
	 * and readers answer the kernel. */
	READ_BUSY_MS = 50,
	VALUE_MAX = 1 << 20,
	/* Longer than a checkpoint after each 1000 pages lets it become. */
	LOG_MAX = 6 << 20,
	/* Other writers wait, too. Our own readers take less. */
	CHECKPOINT_BUSY_MS = 1000,
};

/* Statements beside the caller's. */
enum { SQL_BEGIN, SQL_BEGIN_WRITE, SQL_COMMIT, SQL_ROLLBACK, SQL_OWN };
static const char *const own_sql[SQL_OWN] = {
	[SQL_BEGIN] = "BEGIN",
	[SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
};

struct catalog_conn {
	struct catalog_db *db;
	struct catalog_conn *next;
	sqlite3 *handle;
	int rc;		       /* of the last statement that could not be had */
	sqlite3_stmt *stmts[]; /* the caller's, then our own */
};

struct catalog_db {
	char *dir, *path;
	catalog_damage_fn *on_damage;
	void *damage_arg;
	const char *const *sql;
	unsigned int n_sql;

	pthread_rwlock_t gate;
	unsigned int generation; /* protected by gate */

	pthread_mutex_t write_lock;
	struct catalog_conn *writer; /* protected by gate, used with write_lock;
				      * NULL: the file could not be opened */
	uint64_t log_max; /* too long for it; protected by write_lock */

	pthread_mutex_t pool_lock;
	struct catalog_conn *idle; /* protected by pool_lock */
	unsigned int n_idle;	   /* protected by pool_lock */
};

/* ---- errors ---- */

static int errno_of(sqlite3 *handle, int rc)
{
	int sys = handle ? sqlite3_system_errno(handle) : 0;

	/* To SQLite an I/O error; by the rules of cache/disk.h a full disk. */
	if (sys == EDQUOT)
		sys = ENOSPC;
	if (rc == SQLITE_IOERR_SHORT_READ || rc == SQLITE_READONLY_DBMOVED)
		return -EUCLEAN;
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_FORMAT:
	/* Our statements fit our schema: somebody changed the file. */
	case SQLITE_ERROR:
	case SQLITE_SCHEMA:
		return -EUCLEAN;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_TOOBIG:
		return -EFBIG;
	case SQLITE_CONSTRAINT:
		return -EINVAL;
	case SQLITE_CANTOPEN:
		/* Deleted under our hands: as good as damaged. */
		return sys == ENOENT ? -EUCLEAN : sys ? -sys : -EIO;
	case SQLITE_IOERR:
		return sys ? -sys : -EIO;
	}
	return -EIO;
}

int catalog_db_error(struct catalog_conn *conn, int rc)
{
	return errno_of(conn->handle, rc);
}

/* ---- connections ---- */

static void conn_close(struct catalog_conn *conn)
{
	if (!conn)
		return;
	for (unsigned int i = 0; i < conn->db->n_sql + SQL_OWN; i++)
		sqlite3_finalize(conn->stmts[i]);
	sqlite3_close(conn->handle);
	free(conn);
}

/* The file may have been written by anyone. */
static int distrust(sqlite3 *handle)
{
	int rc;

	sqlite3_extended_result_codes(handle, 1);
	sqlite3_limit(handle, SQLITE_LIMIT_LENGTH, VALUE_MAX);
	sqlite3_limit(handle, SQLITE_LIMIT_ATTACHED, 0);
	rc = sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA,
				       0, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(handle,
				  "PRAGMA cell_size_check = ON;"
				  "PRAGMA mmap_size = 0;"
				  "PRAGMA secure_delete = OFF;"
				  "PRAGMA temp_store = MEMORY;"
				  "PRAGMA cache_size = -512",
				  NULL, NULL, NULL);
	return rc;
}

static int conn_open(struct catalog_db *db, const char *path, int flags,
		     int busy_ms, struct catalog_conn **out)
{
	struct catalog_conn *conn;
	int rc, err;

	conn = calloc(1, sizeof(*conn) + (db->n_sql + SQL_OWN) *
						 sizeof(conn->stmts[0]));
	if (!conn)
		return -ENOMEM;
	conn->db = db;
	rc = sqlite3_open_v2(path, &conn->handle,
			     flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
			     NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(conn->handle, busy_ms);
	if (rc == SQLITE_OK)
		rc = distrust(conn->handle);
	if (rc != SQLITE_OK) {
		err = errno_of(conn->handle, rc);
		conn_close(conn);
		return err;
	}
	*out = conn;
	return 0;
}

static int reader_get(struct catalog_db *db, struct catalog_conn **out)
{
	struct catalog_conn *conn;

	pthread_mutex_lock(&db->pool_lock);
	conn = db->idle;
	if (conn) {
		db->idle = conn->next;
		db->n_idle--;
	}
	pthread_mutex_unlock(&db->pool_lock);
	if (conn) {
		*out = conn;
		return 0;
	}
	/* Not SQLITE_OPEN_READONLY: a reader may have to set up the WAL's
	 * shared memory. */
	return conn_open(db, db->path, SQLITE_OPEN_READWRITE, READ_BUSY_MS,
			 out);
}

static void reader_put(struct catalog_db *db, struct catalog_conn *conn)
{
	pthread_mutex_lock(&db->pool_lock);
	if (db->n_idle < IDLE_MAX) {
		conn->next = db->idle;
		db->idle = conn;
		db->n_idle++;
		conn = NULL;
	}
	pthread_mutex_unlock(&db->pool_lock);
	conn_close(conn);
}

static void close_all(struct catalog_db *db)
{
	struct catalog_conn *conn;

	pthread_mutex_lock(&db->pool_lock);
	while ((conn = db->idle)) {
		db->idle = conn->next;
		conn_close(conn);
	}
	db->n_idle = 0;
	pthread_mutex_unlock(&db->pool_lock);
	conn_close(db->writer);
	db->writer = NULL;
}

/* ---- opening, and replacing what is damaged ---- */

static int set_up(sqlite3 *handle)
{
	bool is_new;
	int rc;

	rc = catalog_schema_is_new(handle, &is_new);
	if (rc == SQLITE_OK && is_new) {
		/*
		 * EXTRA also syncs the folder when the journal is gone: one
		 * that came back after a loss of power would be played back
		 * under the log of all that was written since.
		 */
		rc = sqlite3_exec(handle,
				  "PRAGMA synchronous = EXTRA;"
				  "PRAGMA auto_vacuum = INCREMENTAL;"
				  "BEGIN IMMEDIATE",
				  NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = catalog_schema_create(handle);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(handle, "COMMIT", NULL, NULL, NULL);
	}
	if (rc == SQLITE_OK)
		rc = catalog_schema_upgrade(handle);
	if (rc == SQLITE_OK)
		rc = catalog_schema_check(handle);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(handle,
				  "PRAGMA journal_mode = WAL;"
				  "PRAGMA synchronous = NORMAL;"
				  "PRAGMA journal_size_limit = 4194304",
				  NULL, NULL, NULL);
	return rc;
}

static int open_file(struct catalog_db *db)
{
	struct catalog_conn *conn;
	int err, rc;

	err = conn_open(db, db->path,
			SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
			WRITE_BUSY_MS, &conn);
	if (err)
		return err;
	rc = set_up(conn->handle);
	if (rc != SQLITE_OK) {
		err = errno_of(conn->handle, rc);
		conn_close(conn);
		return err;
	}
	db->writer = conn;
	return 0;
}

static int is_put_aside(const struct dirent *de)
{
	size_t len = strlen(de->d_name);

	return strncmp(de->d_name, PUT_ASIDE, strlen(PUT_ASIDE)) == 0 &&
	       (len < 4 || strcmp(de->d_name + len - 4, "-wal") != 0);
}

/* The newest few are kept: somebody may want to look at them. */
static void drop_old_files(struct catalog_db *db)
{
	struct dirent **names;
	char path[4096];
	int n;

	/* The time in the names has a fixed width: their order is its. */
	n = scandir(db->dir, &names, is_put_aside, alphasort);
	for (int i = 0; i < n; i++) {
		if (i < n - ASIDE_MAX) {
			snprintf(path, sizeof(path), "%s/%s", db->dir,
				 names[i]->d_name);
			unlink(path);
			snprintf(path, sizeof(path), "%s/%s-wal", db->dir,
				 names[i]->d_name);
			unlink(path);
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static int put_aside(struct catalog_db *db, char *aside, size_t room)
{
	char from[4128], to[4128];
	struct timespec ts;
	int err = 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (snprintf(aside, room, "%s/" PUT_ASIDE "%010lld.%09ld", db->dir,
		     (long long)ts.tv_sec, ts.tv_nsec) >= (int)room - 4)
		return -ENAMETOOLONG;
	if (rename(db->path, aside) < 0 && errno != ENOENT)
		err = -errno;
	/* The log belongs to the file it lies beside. */
	snprintf(from, sizeof(from), "%s-wal", db->path);
	snprintf(to, sizeof(to), "%s-wal", aside);
	if (!err && rename(from, to) < 0 && errno != ENOENT)
		err = -errno;
	snprintf(from, sizeof(from), "%s-shm", db->path);
	unlink(from);
	snprintf(from, sizeof(from), "%s-journal", db->path);
	unlink(from);
	return err;
}

static uint64_t salvage(struct catalog_db *db, const char *aside)
{
	sqlite3 *to = db->writer->handle;
	struct catalog_conn *from;
	uint64_t n;

	/* Its log is played back into it here, so no read-only opening. */
	if (conn_open(db, aside, SQLITE_OPEN_READWRITE, WRITE_BUSY_MS, &from))
		return 0;
	if (sqlite3_exec(to, "BEGIN IMMEDIATE", NULL, NULL, NULL) !=
	    SQLITE_OK) {
		conn_close(from);
		return 0;
	}
	n = catalog_schema_salvage(from->handle, to);
	if (sqlite3_exec(to, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
		sqlite3_exec(to, "ROLLBACK", NULL, NULL, NULL);
		n = 0;
	}
	conn_close(from);
	return n;
}

/* Alone under gate. @said: what to tell afterwards. */
static int replace_file_locked(struct catalog_db *db, char *said, size_t room)
{
	char aside[4096];
	uint64_t kept;
	int err;

	close_all(db);
	err = put_aside(db, aside, sizeof(aside));
	if (!err)
		err = open_file(db);
	if (err)
		return err;
	kept = salvage(db, aside);
	drop_old_files(db);
	snprintf(said, room,
		 "catalog damaged, put aside as %s; a new one was made,"
		 " %llu rows of the ledger carried over",
		 strrchr(aside, '/') + 1, (unsigned long long)kept);
	return 0;
}

static void tell(struct catalog_db *db, const char *what)
{
	if (*what && db->on_damage)
		db->on_damage(db->damage_arg, what);
}

/* Makes a catalog of a later generation than @seen, if there is none yet. */
static int replace(struct catalog_db *db, unsigned int seen)
{
	char said[512] = "";
	int err = 0;

	pthread_rwlock_wrlock(&db->gate);
	if (db->generation == seen) {
		/* After a failure to replace it the file is just missing. */
		err = db->writer ? -EUCLEAN : open_file(db);
		if (err == -EUCLEAN)
			err = replace_file_locked(db, said, sizeof(said));
		db->generation += !err;
	}
	pthread_rwlock_unlock(&db->gate);
	tell(db, said);
	return err;
}

static void db_free(struct catalog_db *db)
{
	pthread_mutex_destroy(&db->pool_lock);
	pthread_mutex_destroy(&db->write_lock);
	pthread_rwlock_destroy(&db->gate);
	free(db->path);
	free(db->dir);
	free(db);
}

int catalog_db_open(struct catalog_db **out, const char *dir,
		    catalog_damage_fn *on_damage, void *arg,
		    const char *const *sql, unsigned int n_sql)
{
	struct catalog_db *db = calloc(1, sizeof(*db));
	char said[512] = "";
	int err;

	if (!db)
		return -ENOMEM;
	pthread_rwlock_init(&db->gate, NULL);
	pthread_mutex_init(&db->write_lock, NULL);
	pthread_mutex_init(&db->pool_lock, NULL);
	db->on_damage = on_damage;
	db->damage_arg = arg;
	db->sql = sql;
	db->n_sql = n_sql;
	db->log_max = LOG_MAX;
	/* SQLITE_OPEN_NOFOLLOW minds links anywhere in the path, and those
	 * above the cache are the user's business. */
	db->dir = realpath(dir, NULL);
	if (!db->dir) {
		err = -errno;
		db_free(db);
		return err;
	}
	err = asprintf(&db->path, "%s/" NAME, db->dir) < 0 ? -ENOMEM : 0;
	if (err)
		db->path = NULL;
	else
		err = open_file(db);
	if (err == -EUCLEAN)
		err = replace_file_locked(db, said, sizeof(said));
	if (err) {
		catalog_db_close(db);
		return err == -EUCLEAN ? -EIO : err;
	}
	tell(db, said);
	*out = db;
	return 0;
}

void catalog_db_close(struct catalog_db *db)
{
	if (!db)
		return;
	close_all(db);
	db_free(db);
}

/* ---- statements ---- */

sqlite3_stmt *catalog_db_stmt(struct catalog_conn *conn, unsigned int n)
{
	const struct catalog_db *db = conn->db;
	sqlite3_stmt **stmt = &conn->stmts[n];
	const char *sql;

	if (*stmt) {
		sqlite3_reset(*stmt);
		sqlite3_clear_bindings(*stmt);
		return *stmt;
	}
	sql = n < db->n_sql ? db->sql[n] : own_sql[n - db->n_sql];
	conn->rc = sqlite3_prepare_v3(conn->handle, sql, -1,
				      SQLITE_PREPARE_PERSISTENT, stmt, NULL);
	return *stmt;
}

sqlite3 *catalog_db_handle(struct catalog_conn *conn)
{
	return conn->handle;
}

static int bind_values(sqlite3_stmt *stmt, const char *types, va_list ap)
{
	int rc = SQLITE_OK;

	for (int i = 1; types[i - 1] && rc == SQLITE_OK; i++) {
		switch (types[i - 1]) {
		case 't':
			rc = sqlite3_bind_text(stmt, i, va_arg(ap, char *), -1,
					       SQLITE_STATIC);
			break;
		case 'i':
			rc = sqlite3_bind_int64(stmt, i, va_arg(ap, int64_t));
			break;
		case 'h':
			rc = sqlite3_bind_blob(stmt, i, va_arg(ap, void *), 32,
					       SQLITE_STATIC);
			break;
		case 'z':
			rc = sqlite3_bind_zeroblob(stmt, i, 0);
			break;
		case 'n':
			rc = sqlite3_bind_null(stmt, i);
			break;
		default:
			rc = SQLITE_MISUSE;
		}
	}
	return rc;
}

int catalog_db_bind(struct catalog_conn *conn, sqlite3_stmt *stmt,
		    const char *types, ...)
{
	va_list ap;
	int rc;

	if (!stmt)
		return catalog_db_error(conn, conn->rc);
	va_start(ap, types);
	rc = bind_values(stmt, types, ap);
	va_end(ap);
	return catalog_db_error(conn, rc);
}

int catalog_db_step(struct catalog_conn *conn, sqlite3_stmt *stmt)
{
	int rc = sqlite3_step(stmt);

	return rc == SQLITE_ROW ? 1 : catalog_db_error(conn, rc);
}

int catalog_db_run(struct catalog_conn *conn, unsigned int n, const char *types,
		   ...)
{
	sqlite3_stmt *stmt = catalog_db_stmt(conn, n);
	va_list ap;
	int rc;

	if (!stmt)
		return catalog_db_error(conn, conn->rc);
	va_start(ap, types);
	rc = bind_values(stmt, types, ap);
	va_end(ap);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	/* A pending statement would hold the transaction open. */
	sqlite3_reset(stmt);
	return catalog_db_error(conn, rc);
}

/* ---- transactions ---- */

static void reset_all(struct catalog_conn *conn)
{
	for (unsigned int i = 0; i < conn->db->n_sql; i++)
		if (conn->stmts[i])
			sqlite3_reset(conn->stmts[i]);
}

static int transact(struct catalog_conn *conn, unsigned int begin,
		    catalog_work_fn *work, void *arg)
{
	unsigned int own = conn->db->n_sql;
	int err;

	err = catalog_db_run(conn, own + begin, "");
	if (err)
		return err;
	err = work(conn, arg);
	reset_all(conn);
	if (!err)
		err = catalog_db_run(conn, own + SQL_COMMIT, "");
	if (err && !sqlite3_get_autocommit(conn->handle))
		catalog_db_run(conn, own + SQL_ROLLBACK, "");
	return err;
}

static int read_once(struct catalog_db *db, catalog_work_fn *work, void *arg)
{
	struct catalog_conn *conn;
	int err;

	err = reader_get(db, &conn);
	if (err)
		return err;
	err = transact(conn, SQL_BEGIN, work, arg);
	reader_put(db, conn);
	return err;
}

static int write_once(struct catalog_db *db, catalog_work_fn *work, void *arg)
{
	int err;

	pthread_mutex_lock(&db->write_lock);
	err = transact(db->writer, SQL_BEGIN_WRITE, work, arg);
	pthread_mutex_unlock(&db->write_lock);
	return err;
}

typedef int once_fn(struct catalog_db *db, catalog_work_fn *work, void *arg);

static int with_replacement(struct catalog_db *db, once_fn *once,
			    catalog_work_fn *work, void *arg)
{
	unsigned int seen;
	int err;

	for (int attempt = 0; attempt < 2; attempt++) {
		pthread_rwlock_rdlock(&db->gate);
		seen = db->generation;
		err = db->writer ? once(db, work, arg) : -EUCLEAN;
		pthread_rwlock_unlock(&db->gate);
		if (err != -EUCLEAN)
			return err;
		err = replace(db, seen);
		if (err)
			return err == -EUCLEAN ? -EIO : err;
	}
	return -EIO;
}

int catalog_db_read(struct catalog_db *db, catalog_work_fn *work, void *arg)
{
	return with_replacement(db, read_once, work, arg);
}

int catalog_db_write(struct catalog_db *db, catalog_work_fn *work, void *arg)
{
	return with_replacement(db, write_once, work, arg);
}

/* ---- the log ---- */

static uint64_t log_bytes(const struct catalog_db *db)
{
	char path[4128];
	struct stat sb;

	snprintf(path, sizeof(path), "%s-wal", db->path);
	return stat(path, &sb) == 0 ? (uint64_t)sb.st_size : 0;
}

/*
 * Waits until all have left the log, where an ordinary checkpoint leaves it as
 * it is if one has not. Those who begin meanwhile read from the file and hold
 * up nobody.
 */
static int checkpoint_locked(struct catalog_db *db, uint64_t bytes)
{
	sqlite3 *handle = db->writer->handle;
	int rc;

	sqlite3_busy_timeout(handle, CHECKPOINT_BUSY_MS);
	rc = sqlite3_wal_checkpoint_v2(handle, NULL, SQLITE_CHECKPOINT_TRUNCATE,
				       NULL, NULL);
	sqlite3_busy_timeout(handle, WRITE_BUSY_MS);
	if (rc != SQLITE_BUSY && rc != SQLITE_LOCKED) {
		db->log_max = LOG_MAX;
		return errno_of(handle, rc);
	}
	/* Another program reads it at leisure. */
	db->log_max = bytes + LOG_MAX;
	return 0;
}

static int checkpoint_once(struct catalog_db *db, catalog_work_fn *work,
			   void *arg)
{
	uint64_t bytes;
	int err = 0;

	(void)work;
	(void)arg;
	pthread_mutex_lock(&db->write_lock);
	bytes = log_bytes(db);
	if (bytes > db->log_max)
		err = checkpoint_locked(db, bytes);
	pthread_mutex_unlock(&db->write_lock);
	return err;
}

int catalog_db_shorten_log(struct catalog_db *db)
{
	return with_replacement(db, checkpoint_once, NULL, NULL);
}

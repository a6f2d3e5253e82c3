/*
 * store_priv - what the files of the store share: store.c (opening, upkeep),
 * store_room.c (quota, eviction), store_objects.c (what is cached and pinned),
 * store_staging.c (downloads), store_sidecar.c (what they are of),
 * store_commit.c (their ends), store_partials.c (those nobody is at),
 * store_census.c (what lies there without a row).
 *
 * Bytes are counted in whole blocks of 4 KiB, as file systems do, and in
 * exactly one of these places: the catalog's totals (objects/ with index/, and
 * quarantine/), staging_bytes, held_bytes, file_bytes. `reserved` is what
 * downloads under way have been promised and not written yet.
 *
 * A *claim* says that a thread is about to change what lies under a key. It is
 * what keeps commit, recheck, put and eviction of one key apart; they do wait
 * for the disk, so it is no mutex.
 *
 * Locks, in the order they may be taken:
 *   room_lock  one decision on room at a time, so that two downloads can't be
 *              promised the same bytes; held while files are evicted
 *   tree       shared while a folder made for a file must stay, alone while
 *              empty folders are made or removed; held across their syncs
 *   (the catalog's own)
 *   lock       all that is in memory; never across a system call that can wait
 */
#ifndef CACHE_STORE_PRIV_H
#define CACHE_STORE_PRIV_H

#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "cache/store.h"

enum {
	STORE_PATH_MAX = 1024 + 64, /* a key and the longest suffix */
	/* Idle objects that stay open, if there are descriptors for eight
	 * times as many, and the memory they take. */
	STORE_IDLE_MAX = 1024,
	STORE_IDLE_BYTES = 4 << 20,
};

enum store_claim_kind {
	STORE_CLAIM_STAGE, /* a download: others are told -EBUSY */
	STORE_CLAIM_RECHECK,
	/* Over in a moment: others wait for these. */
	STORE_CLAIM_PUT,
	STORE_CLAIM_EVICT,
};

struct store_claim {
	const char *key;
	enum store_claim_kind kind;    /* protected by lock */
	struct store_staging *staging; /* NULL for a brief one */
};

/* An info that was replaced stays until the object goes: somebody may have a
 * pointer to it. */
struct store_info_version {
	struct store_info info;
	struct store_info_version *older;
};

struct store_object {
	struct store *st;
	char *key;
	int fd;
	struct checkpoints *index;
	unsigned char *small;
	uint64_t disk_bytes;
	_Atomic(struct store_info_version *) info;

	unsigned int refs; /* protected by lock */
	bool current;	   /* in st->objects_by_key; protected by lock */
	bool held_only;	   /* unlinked, in held_bytes; protected by lock */
	TAILQ_ENTRY(store_object) idle; /* while current and refs is 0 */
};
TAILQ_HEAD(store_objects, store_object);

struct store_staging {
	struct store_claim claim;
	struct store *st;
	char key[STORE_PATH_MAX];
	char partial[STORE_PATH_MAX], sidecar[STORE_PATH_MAX];
	char index[STORE_PATH_MAX];
	int fd;
	_Atomic uint64_t bytes, size;
	char etag[CATALOG_ETAG_MAX];
	int64_t last_modified;
	char origin[CATALOG_ORIGIN_MAX];
	bool pinned;		  /* the object was, before its recheck */
	bool is_object;		  /* its bytes, from a recheck */
	unsigned char sha256[32]; /* of those */
	bool index_moved, moved;  /* to their real names */
	bool gone;		  /* committed or quarantined */
	uint64_t counted;	  /* in st->staging_bytes */
	uint64_t reserved;	  /* in st->reserved */
	uint64_t written_back;	  /* not the writer's, see store.h */
	int sync_err; /* of bytes that are staged: the kernel says it once */
};

struct store_census;

struct store {
	struct store_config cfg;
	char *dir;
	int dirfd, lockfd;
	int objects, index, staging, quarantine; /* folders */
	struct catalog *catalog;
	unsigned int idle_max;
	struct store_census *census; /* NULL: nothing to look for; tick's */
	atomic_bool census_wanted;

	pthread_mutex_t room_lock;
	pthread_rwlock_t tree;

	pthread_mutex_t lock;
	pthread_cond_t unclaimed; /* with lock */
	/* All below protected by lock. Trees of tsearch(3). */
	void *objects_by_key;
	struct store_objects idle; /* least recently released first */
	unsigned int n_idle;
	size_t idle_bytes;
	void *claims;
	void *damaged; /* keys, char * */
	void *lost;    /* keys of rows whose file is gone, char * */
	uint64_t staging_bytes, held_bytes, file_bytes, reserved;
	uint64_t evictions;
};

/* ---- store.c ---- */

void store_emit(struct store *st, enum store_event_type type, const char *key,
		uint64_t bytes, int err, const char *detail);
/* Bytes in whole blocks. */
uint64_t store_blocks(uint64_t bytes);
bool store_is_small(const char *key, uint64_t size);
/* @key with @suffix into @path. */
void store_path(char path[STORE_PATH_MAX], const char *key, const char *suffix);

/* Waits for a brief claim on @key; -EBUSY if there is another. */
int store_claim(struct store *st, struct store_claim *claim);
/* The same, but -EBUSY for a brief one, too. */
int store_try_claim(struct store *st, struct store_claim *claim);
void store_unclaim(struct store *st, struct store_claim *claim);
struct store_claim *store_find_claim_locked(struct store *st, const char *key);

/* A set of keys. Forgetting what is not in it is fine. */
int store_note_locked(void **set, const char *key);
bool store_noted_locked(void *set, const char *key);
void store_forget_locked(void **set, const char *key);

/* The folder for @path exists, and stays until store_tree_leave(). */
int store_tree_enter(struct store *st, int dirfd, const char *path);
void store_tree_leave(struct store *st);
void store_tree_prune(struct store *st, int dirfd, const char *path);

/* ---- store_room.c ---- */

/* Promises @bytes, evicting what is needed; given back by _unreserve(). */
int store_reserve(struct store *st, uint64_t bytes);
void store_unreserve(struct store *st, uint64_t bytes);
/* The file system itself is full: frees about @bytes. -ENOSPC if nothing can
 * go. */
int store_free_disk(struct store *st, uint64_t bytes);
/* Goes below quota and above min_free as far as possible. */
void store_keep_room(struct store *st);
/* Everything under the cache folder. */
int store_used(struct store *st, uint64_t *bytes);
/* Drops the oldest lines of the ledger above its limit, and says so. */
void store_trim_ledger(struct store *st);
/* What quarantine/ may hold: 1 GiB, or an eighth of a smaller quota. */
uint64_t store_quarantine_max(const struct store *st);
/* Drops oldest first until @room bytes are free in quarantine/ and nothing in
 * it is older than @oldest. */
void store_age_quarantine(struct store *st, uint64_t room, int64_t oldest);
/* Files and row. */
int store_drop_quarantined(struct store *st, const char *key);

/* ---- store_objects.c ---- */

/* From what lies in @dirfd. Takes no reference to @row. */
int store_object_create(struct store *st, const char *key, int dirfd,
			const char *name, int index_dirfd,
			const char *index_name,
			const struct catalog_cached *row,
			struct store_object **out);
/* @o is what its key is from now on, with one reference; what was, lives on
 * for its holders. On error @o is still the caller's. */
int store_object_publish(struct store *st, struct store_object *o);
/* Frees one that was not published. */
void store_object_free(struct store_object *o);
/* The object of @key, if there is one in memory, is no longer current. */
void store_object_retire(struct store *st, const char *key);
/* As above, but not if it is pinned: false then. */
bool store_object_retire_idle(struct store *st, const char *key);
bool store_object_is_held(struct store *st, const char *key);
void store_objects_free(struct store *st);

/* ---- store_sidecar.c ---- */

struct store_sidecar {
	char etag[CATALOG_ETAG_MAX];
	uint64_t size; /* UINT64_MAX if unknown */
	int64_t last_modified;
	bool pinned;
};

/* Of staging/. What can't be read or is nonsense is as good as none. */
void store_sidecar_read(struct store *st, const char *path,
			struct store_sidecar *out);
int store_sidecar_write(struct store *st, const char *path,
			const struct store_sidecar *s);
int store_write_json(int dirfd, const char *path, const cJSON *obj);

/* ---- store_staging.c ---- */

/* Of what was promised. */
void store_staging_give_back(struct store_staging *sg, uint64_t bytes);

/* ---- store_partials.c ---- */

/* Removes what a crash left unfinished, counts the rest. */
int store_staging_sweep(struct store *st);
/* Drops partial downloads that nobody is at, oldest first, until @need bytes
 * are free; or, if all of them do not make that much, none. Bytes freed. */
uint64_t store_staging_evict(struct store *st, uint64_t need, bool best_effort);

/* ---- store_census.c ---- */

int store_census_create(struct store_census **out, struct store *st);
/* A bounded step; 1 if there is more, 0 when done, or a negative errno. */
int store_census_step(struct store_census *c);
void store_census_free(struct store_census *c);

#endif

/*
 * tree - what a path means: does it exist, what is behind it, how large is it.
 *
 * The listing says what exists. Where a folder was not listed yet, a
 * well-formed name in it resolves provisionally, without asking anyone;
 * tree_confirm() asks. Waiters are as in fs/supply.h.
 */
#ifndef FS_TREE_H
#define FS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/folder.h"
#include "fs/listings.h"
#include "fs/path.h"
#include "fs/supply.h"

struct tree;

struct tree_config {
	struct supply *supply;
	struct listings *listings;
	struct catalog *catalog;
	struct folders *folders;
	const char *const *control_files; /* names under .tickfs/, NULL ends */
};

int tree_create(struct tree **out, const struct tree_config *cfg);
void tree_free(struct tree *t);

enum tree_sort {
	TREE_FOLDER,
	TREE_CSV,     /* the CSV of the archive `key` */
	TREE_OBJECT,  /* the object `key` as published */
	TREE_MEMBER,  /* a member of the archive `key` */
	TREE_CONTROL, /* a file under .tickfs/ */
};

struct tree_target {
	enum tree_sort sort;
	bool provisional;	/* nobody has said yet that it exists */
	char key[PATH_KEY_MAX]; /* "" for folders and control files */
};

/*
 * tree_resolve() - what @path (below the mount, no slash at either end) is.
 * Never waits and starts nothing. 0, -ENOENT definitely not there,
 * -ENAMETOOLONG.
 */
int tree_resolve(struct tree *t, const char *path, struct tree_target *out);

/*
 * tree_confirm() - does it exist? 0 with @tg made definite (its key may change
 * to another spelling; its sort never does), -ENOENT, -EINPROGRESS, errors.
 */
int tree_confirm(struct tree *t, const char *path, struct tree_target *tg,
		 struct waiter *w);

/* What stat(2) says of a file. */
struct tree_file {
	char etag[ORIGIN_ETAG_MAX]; /* version of the object behind it */
	uint64_t size;
	int64_t mtime;	 /* -1 unknown */
	uint64_t member; /* CSV and MEMBER: index in the archive */
};

/*
 * tree_stat() - of a CSV, object or member. 0, -EINPROGRESS, -ENOENT,
 * -EBADMSG: no zip where one should be, errors.
 * An unsized CSV of a folder that was read lately sets off the look-up of all
 * sizes in that folder (folder_size_all()).
 */
int tree_stat(struct tree *t, const char *path, const struct tree_target *tg,
	      struct waiter *w, struct tree_file *out);

#endif

/*
 * xattr - names to values: what is told of a file, a folder and the mount, from
 * one table each (design section 6). Nothing here waits for network or decode.
 */
#ifndef FS_XATTR_H
#define FS_XATTR_H

#include <stdbool.h>
#include <stddef.h>

#include "cache/pool.h"
#include "cache/store.h"
#include "fetch/origin.h"
#include "fs/budget.h"
#include "fs/folder.h"
#include "fs/node.h"
#include "fs/supply.h"
#include "fs/tree.h"

/* Where values come from; filled in by main. */
struct xattr_sources {
	struct supply *supply;
	struct store *store;
	struct pool *pool; /* NULL: nothing is told of it */
	struct origin *origin;
	struct budget *budget; /* NULL: nothing is told of it */
	struct folders *folders;
	struct nodes *nodes;
	const char *run_id;
	uint64_t started_ms;
};

/*
 * xattr_get() - the value of @name ("user.tickfs.cache.state") on @path.
 * 0 with @value the caller's to free (@len bytes, and a NUL); -ENODATA: none,
 * or none now; -EOPNOTSUPP: a name outside "user."; -ENOMEM.
 */
int xattr_get(const struct xattr_sources *x, const char *path,
	      const struct tree_target *tg, const char *name, char **value,
	      size_t *len);

/* The names that have a value now, each with its NUL; at most 3 KiB of names
 * and values, so that copies onto ext4 can keep them. Longer values are read by
 * name. */
int xattr_list(const struct xattr_sources *x, const char *path,
	       const struct tree_target *tg, char **names, size_t *len);

/* The root's, by their short names, in order, for status.json. */
typedef void xattr_root_fn(void *arg, const char *name, const char *value,
			   bool is_number);
void xattr_each_root(const struct xattr_sources *x, xattr_root_fn *fn,
		     void *arg);

#endif

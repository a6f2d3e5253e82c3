/*
 * ops - FUSE requests: each decoded, one module asked, one reply.
 *
 * LOOKUP, FORGET, READDIR and READDIRPLUS never wait. GETATTR, ACCESS, OPENDIR,
 * OPEN, READ and RELEASE may be parked; nothing blocks a thread of the FUSE
 * loop, with two exceptions. A READ that was answered on the loop, but has not
 * let go yet when RELEASE takes the handle's reference away, is the last to let
 * go and closes the pool's source: bounded by a step of a decode. And an OPEN
 * answered from the cache while its node is being filled has the pages taken
 * back first (fs/prefill.h): bounded by the file, and rare, since a node is
 * filled because there is nothing in the cache to answer with.
 */
#ifndef FS_OPS_H
#define FS_OPS_H

#include <sys/types.h>

#include "fs/file.h"
#include "fs/folder.h"
#include "fs/fuse.h"
#include "fs/node.h"
#include "fs/parked.h"
#include "fs/prefill.h"
#include "fs/supply.h"
#include "fs/tree.h"
#include "fs/xattr.h"

enum {
	OPS_MAX_READ = FILE_READ_MAX,
	/* Above what can be parked at once, or parked reads would starve
	 * every other file. */
	OPS_MAX_BACKGROUND = 65535,
};

/* The session's user data; filled in by main. */
struct ops {
	struct tree *tree;
	struct folders *folders;
	struct supply *supply;
	struct store *store;
	struct files *files;
	struct nodes *nodes;
	struct prefill *prefill;
	struct parking parking;
	struct xattr_sources xattrs;
	uid_t uid;
	gid_t gid;
	int64_t mounted_at;
	unsigned int max_read; /* bytes a READ may ask for */
	/* Called once the kernel has answered INIT. */
	void (*on_ready)(void *arg);
	void *ready_arg;
};

extern const struct fuse_lowlevel_ops ops_table;

#endif

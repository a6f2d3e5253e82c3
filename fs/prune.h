/*
 * prune - asks the kernel to drop nodes it has no use for, so that neither its
 * memory nor ours grows with every name that was ever asked for.
 *
 * LOOKUP of a well-formed name is answered before anyone knows whether it
 * exists (fs/tree.h), so the kernel holds a node for each name that GETATTR
 * then said ENOENT of, and would for as long as it has memory.
 *
 * Of the ways to tell it, fuse_lowlevel_notify_inval_entry() takes the folder's
 * inode lock, uninterruptibly, and the kernel holds that lock itself while it
 * waits for the answer to a LOOKUP or READDIR in the folder. If the daemon is
 * killed while one of its threads waits there, that thread keeps /dev/fuse
 * open, so the connection is not ended, so the LOOKUP is never answered: nobody
 * but root can end either. FUSE_NOTIFY_PRUNE (protocol 7.45, Linux 6.18) takes
 * no such lock: it drops the names of a nodeid that nobody holds, and skips the
 * others. It never waits, for us or for anyone. libfuse 3.14 does not know it
 * yet, so the message is written here.
 *
 * On an older kernel nothing is dropped, and a node lives as long as the kernel
 * keeps its inode.
 */
#ifndef FS_PRUNE_H
#define FS_PRUNE_H

#include <stddef.h>
#include <stdint.h>

#include "fs/node.h"

struct prune;

/* @limit: nodes above this number are dropped, those looked up longest ago
 * first. @fuse_fd: of the session. 0, -ENOMEM. */
int prune_create(struct prune **out, struct nodes *nodes, size_t limit,
		 int fuse_fd);
void prune_free(struct prune *p); /* NULL is fine */

/* A few times a second; on one thread at a time. Cheap where there is nothing
 * to do. */
void prune_tick(struct prune *p, uint64_t now_ms);

/* Before the session's descriptor is closed: not used after this. */
void prune_stop(struct prune *p);

#endif

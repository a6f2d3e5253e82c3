/*
 * prefill - the bytes of a CSV whose open() waits for its download go into the
 * kernel's cache as they are decoded, so that reading it decodes nothing again.
 *
 * They go there before anyone knows whether they hold, under a nodeid through
 * which nobody can read yet: every open() of it waits for the verdict, too.
 * What keeps unverified bytes from a reader:
 *
 *   - A fill takes only a node of the version that is downloaded, of which no
 *     handle is open, and gives it up before an OPEN of it is answered with
 *     anything but the fill's own good end.
 *   - What was given is dropped again, before anyone is woken, when the fill
 *     ends without a verdict that serves, when it begins again, and when it
 *     gives up the node. After prefill_stop(), when that can't be done any
 *     more, no open() keeps what is there.
 *   - What lay in the cache before is dropped when a fill begins, so that no
 *     page is written over: it may be in somebody's pipe.
 *
 * So a page is there after open() only if the archive was admitted; those that
 * were not given are read as ever. The kernel drops pages nobody has read when
 * it wants memory, before those that somebody did.
 *
 * Pages are made by a thread of the mount's own, so that who decodes goes on
 * meanwhile; a fill takes a MiB for that.
 *
 * All may be called on any thread. _offer() never waits. The others wait for
 * notices to the kernel: of up to four batches (an eighth of a millisecond
 * each) of each fill under way, or, where pages are dropped, of the file (0.3
 * ms a MiB). NULL for a fill is fine everywhere: nothing happens.
 */
#ifndef FS_PREFILL_H
#define FS_PREFILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fuse_session;
struct node;
struct nodes;

struct prefill;	     /* of a mount */
struct prefill_fill; /* of an admission */

/* @limit: what fills under way may have given at once; a larger file is not
 * begun. 0, -ENOMEM. */
int prefill_create(struct prefill **out, uint64_t limit);
void prefill_free(struct prefill *p); /* after all fills */

/* From now on there is a kernel to give to, until _stop(), after which the
 * session is not used any more. */
void prefill_start(struct prefill *p, struct fuse_session *session);
void prefill_stop(struct prefill *p);

/* ---- who would read ---- */

/* A waiting open() of @node, which the kernel has been told is of @size and
 * @etag. */
struct prefill_reader {
	struct node *node;
	const char *etag;
	unsigned int stream; /* which it is of its archive's */
	uint64_t size;
};

/* Counts the open handles of a node: before OPEN is answered, and when RELEASE
 * comes. Returns whether the kernel may keep the pages it has. */
bool prefill_opened(struct prefill *p, struct node *n);
void prefill_closed(struct prefill *p, struct node *n);

/* ---- what is decoded ---- */

/* NULL for want of memory, or where nothing is ever given. */
struct prefill_fill *prefill_fill_create(struct prefill *p);
void prefill_fill_free(struct prefill_fill *f);

/* @r's open() will wait for this; the first one is served. */
void prefill_offer(struct prefill_fill *f, const struct prefill_reader *r);

/* What will be decoded from now on is of version @etag. */
void prefill_begin(struct prefill_fill *f, const char *etag);

/* Decoded bytes: a checkpoints_sink_fn (cache/checkpoints.h). Always 0: that
 * it could not be given is no reason to end anything. */
int prefill_bytes(void *fill, unsigned int stream, uint64_t off,
		  const void *buf, size_t len);

/* The verdict: may what was given be read? Nothing is given after it, and a
 * second one changes nothing. */
void prefill_end(struct prefill_fill *f, bool serves);

#endif

/*
 * node - the inodes the kernel knows: one for each (path, version).
 *
 * Pages in the kernel's cache belong to a nodeid, so an archive that was
 * republished gets a new one, while st_ino, made from the path, stays. A node
 * whose version is not known yet ("") takes the first one it learns, since no
 * byte was read through it.
 *
 * A nodeid is the node's address. A node lives as long as the kernel holds
 * lookups of it, or node_hold() does; an operation on a nodeid therefore needs
 * no reference.
 *
 * The kernel keeps what it looked up as long as it has the memory, also names
 * that turned out not to exist: there may be very many. node_surplus() says
 * which ones it had better drop (fs/prune.h asks it to).
 */
#ifndef FS_NODE_H
#define FS_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "fs/tree.h"

enum { NODE_VERSION_MAX = 160 };

struct nodes;
struct prefill_fill;

struct node {
	char *path;
	uint64_t ino;
	/* A control file's bytes, rendered at its LOOKUP. */
	char *text;
	size_t text_len;
	/* fs/prefill.h's: open handles, and who fills its pages. */
	unsigned int handles;
	struct prefill_fill *fill;
	/* The module's own. */
	struct nodes *table;
	/* Protected by the table's lock, all of them: */
	enum tree_sort sort;
	bool provisional;
	bool proven;   /* a folder with something in it; see node_prove() */
	char *key;     /* of its target; NULL for "" */
	char *version; /* NULL for "" */
	uint64_t told;
	int64_t told_mtime;
	unsigned int stale_sent;
	uint64_t lookups;
	bool in_table;
	uint64_t looked_up_ms; /* when the kernel was last given it */
	bool absent;	       /* ENOENT was replied, at: */
	uint64_t absent_ms;
	TAILQ_ENTRY(node) by_age; /* while in the table */
};

int node_table_create(struct nodes **out);
void node_table_free(struct nodes *t);

/* The root; never forgotten. */
struct node *node_root(struct nodes *t);

/*
 * node_lookup() - the node of @path in @version ("" where it is not known),
 * made if need be, with one lookup more. NULL for want of memory.
 */
struct node *node_lookup(struct nodes *t, const char *path,
			 const struct tree_target *tg, const char *version);

/* Did the kernel look up @path, in any version, in the last @ms? It may have
 * dropped it since, but will hardly have. */
bool node_is_known(struct nodes *t, const char *path, uint64_t ms);

/* A node of its own for a control file; takes @text over also on failure. */
struct node *node_control(struct nodes *t, const char *path,
			  const struct tree_target *tg, char *text, size_t len);

/* As if the kernel had looked it up once more: until node_forget() the nodeid
 * is no other's. */
void node_hold(struct node *n);

/* The kernel dropped @n lookups. */
void node_forget(struct nodes *t, struct node *n, uint64_t count);

/*
 * node_prove() - @n exists: the folders above it do, too, whatever the listings
 * above them know, and @n if it is one. They are not provisional from here on,
 * since folders do not vanish from the archive.
 */
void node_prove(struct node *n);

void node_target(struct node *n, struct tree_target *out);
void node_set_target(struct node *n, const struct tree_target *tg);

/* Is @version this node's? A node without one takes it. False: the node is
 * outdated. */
bool node_adopt(struct node *n, const char *version);

/* The kernel was told that the size is @size. */
void node_told(struct node *n, uint64_t size, int64_t mtime);
/* What it was told last; false if nothing. */
bool node_was_told(struct node *n, uint64_t *size, int64_t *mtime);
/*
 * Does the kernel know that it is @size? If not, an open should be answered
 * with ESTALE, so that it looks up again; this says so at most a few times in
 * a row, since an open that does not walk a path can't be helped that way.
 */
bool node_must_tell(struct node *n, uint64_t size);

/* st_ino for a path: stable while the program runs, and beyond. */
uint64_t node_ino(const char *path);

/*
 * node_absent() - ENOENT is about to be replied for @n: it should go, and with
 * it those above it, up to the first that is not provisional.
 */
void node_absent(struct node *n, uint64_t now_ms);

/*
 * node_surplus() - nodes the kernel should drop if it does not use them: those
 * for which ENOENT was replied a moment ago, children before parents; and of
 * the others those looked up longest ago, where there are more than @limit.
 * Each is named once, and again only after it is absent again or grew old
 * again. They may be forgotten at any time: the ids are for the kernel alone,
 * which may have given them to other nodes by then, and drops these for no
 * worse than a look-up.
 * Returns how many of @ids, at most @room, it filled in.
 */
size_t node_surplus(struct nodes *t, uint64_t now_ms, size_t limit,
		    uint64_t *ids, size_t room);

size_t node_table_count(struct nodes *t);

#endif

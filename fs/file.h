/*
 * file - open handles: what they pin and which bytes they read.
 *
 * All handles of one cached object share one source of the pool, so that no
 * span is inflated twice for two of them.
 */
#ifndef FS_FILE_H
#define FS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/pool.h"
#include "cache/store.h"

struct files;
struct file;

int file_table_create(struct files **out, struct pool *pool,
		      unsigned int ahead);
/* With the handles that the kernel never released; before the pool goes. */
void file_table_free(struct files *fs);

/*
 * file_open() - a handle on stream @stream of @o, whose reference it takes over
 * (also on failure). @mtime: what to tell of it, -1 unknown. 0, -EOPNOTSUPP for
 * a member that can't be read, -EIO, -ENOMEM.
 */
int file_open(struct files *fs, struct store_object *o, unsigned int stream,
	      int64_t mtime, struct file **out);
/* A handle on bytes in memory; copies them. */
int file_open_text(struct files *fs, const char *text, size_t len,
		   int64_t mtime, struct file **out);
void file_close(struct file *f);
/* Closes it if that takes no more than a moment; else false, and it is open,
 * but for what was to be decoded ahead. The last handle of an object waits for
 * what is being decoded of it, and gives its memory back. */
bool file_try_close(struct file *f);

uint64_t file_size(const struct file *f);
int64_t file_mtime(const struct file *f); /* as given when it was opened */

/* What one read(2), of at most FILE_READ_MAX bytes, gets: up to FILE_PARTS
 * pieces of pinned memory. */
enum { FILE_READ_MAX = 1 << 20, FILE_PARTS = 8 };

struct file_bytes {
	unsigned int n;
	struct {
		const void *data;
		size_t len;
	} part[FILE_PARTS];
	/* The module's own. */
	struct files *files;
	void *source;
	unsigned int stream;
	uint64_t off, next; /* where it begins, and what is not pinned yet */
	size_t len;
	struct pool_span span[FILE_PARTS];
	unsigned int spans;
	enum access_kind kind;
	bool turn;
};

enum { FILE_ASK_AGAIN = 1 };

/* Who waits for a read; embedded by the caller, who sets wake only. */
struct file_waiter {
	/*
	 * Once, no lock held. @err 0: on the thread that decoded, others may
	 * wait for it, and the bytes are there; ask again. FILE_ASK_AGAIN:
	 * from inside somebody's file_done(); ask again, but not from in here.
	 * Or the error.
	 */
	void (*wake)(struct file_waiter *w, int err);
	/* The module's own. */
	struct pool_waiter pool;
	struct file_bytes *bytes;
	struct file_waiter *next;
};

/*
 * file_read() - up to @len bytes from @off, fewer only at the end.
 * 1 with @out filled; 0 where @w will be woken, to ask again with the same
 * @out (with @w NULL: -EAGAIN instead, to ask again with one); -EBADMSG: the
 * cached file is damaged, see file_object() and file_replace(); -EIO, -ENOMEM,
 * ...
 * @out begins zeroed, and goes to file_done() at the end, whatever came.
 */
int file_read(struct file *f, size_t len, uint64_t off, struct file_bytes *out,
	      struct file_waiter *w);
/* @given: the bytes were handed out. May come after the handle was closed: once
 * the kernel has its answer, it may release the handle at any moment. */
void file_done(struct file_bytes *b, bool given);

/* The object behind a handle, with a reference for the caller; NULL for text
 * and small objects. */
struct store_object *file_object(struct file *f);
/* @o, the same version, takes the damaged one's place; takes the reference. */
int file_replace(struct file *f, struct store_object *o);

#endif

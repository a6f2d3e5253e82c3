/*
 * ingest - follows a download's contiguous bytes once, in two halves that two
 * threads may do at the same time: one digests them, the other decodes them
 * and builds the index.
 *
 * Neither half waits for the other, nor for the end of the download. The
 * archive's directory stands at that end: so the first member is decoded by
 * what is known of it before (cache/checkpoints.h, "guess"), and no error in it
 * is told before the directory of the whole file has confirmed it.
 *
 * Work is done in steps of a given budget, so that a large archive does not
 * hold a worker that a small one waits for. Each half is for one thread at a
 * time, all else for one thread while nobody is in either.
 *
 * One takes up to INGEST_BYTES of memory, 80 bytes for each MiB that is
 * decoded, 4 for each 64 KiB of the file, and the archive's directory.
 */
#ifndef FS_INGEST_H
#define FS_INGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/archive.h"
#include "cache/checkpoints.h"
#include "cache/store.h"

enum { INGEST_BYTES = 3 << 20 };

struct ingest;

/*
 * @sg: must outlive it
 * @is_zip: it has members to decode
 * @expected: the archive's directory as somebody has read it from its tail, or
 * NULL; it is taken over, also on error, and never believed
 * Returns 0, -ENOMEM, -ENOSPC, -errno.
 */
int ingest_create(struct ingest **out, struct store_staging *sg, bool is_zip,
		  struct archive_directory *expected);
void ingest_free(struct ingest *in);

/* ---- the half that digests ---- */

/*
 * ingest_follow() - digest on, up to @contiguous bytes of the file but about
 * @budget at most, and have them written to disk. May wait for the disk.
 * Returns 1 where more of them are left, 0 when it has caught up, -errno.
 */
int ingest_follow(struct ingest *in, uint64_t contiguous, uint64_t budget);

/* Takes a little work off the other half while that is at it; false where it
 * has none to give. */
bool ingest_help(struct ingest *in);

/* Bytes digested so far. */
uint64_t ingest_followed(const struct ingest *in);

/* Of all bytes followed, which it also has synced, if they are many; call once,
 * after the last. Waits for the disk, whose failure the commit tells. */
int ingest_digests(struct ingest *in, unsigned char sha256[32],
		   unsigned char md5[16]);

/* ---- the half that decodes ---- */

/*
 * ingest_decode() - decode on by about @budget bytes.
 * @contiguous: so many bytes are here
 * @whole: and no more will come
 * @sink: sees what is decoded (cache/checkpoints.h); may be NULL
 * Returns 1 where more is to do, -EAGAIN where more bytes must come first, 0
 * when all is decoded and right, -EBADMSG where the archive is damaged, -EFBIG,
 * -ENOSPC, -errno. All but the first two are final.
 */
int ingest_decode(struct ingest *in, uint64_t contiguous, bool whole,
		  uint64_t budget, checkpoints_sink_fn *sink, void *arg);

/* ---- after both ---- */

/* The index becomes that of @id. After ingest_decode() returned 0, and all
 * bytes were followed. */
int ingest_seal(struct ingest *in, const struct checkpoints_id *id);

/* The archive's directory, once ingest_decode() has read it; else NULL. */
const struct archive_directory *ingest_directory(const struct ingest *in);

#endif

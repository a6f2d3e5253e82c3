/*
 * ingest - follows a download's contiguous bytes once: digests while they come
 * in, then the zip's directory, inflate, CRCs and the index.
 *
 * Work is done in steps of a given budget, so that a large archive does not
 * hold a worker that a small one waits for. One thread at a time.
 */
#ifndef FS_INGEST_H
#define FS_INGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/archive.h"
#include "cache/store.h"

struct ingest;

/* @sg: must outlive it. @is_zip: it has members to decode. */
int ingest_create(struct ingest **out, struct store_staging *sg, bool is_zip);
void ingest_free(struct ingest *in);

/*
 * ingest_follow() - digest on, up to @contiguous bytes of the file but about
 * @budget at most.
 * Returns 1 where more of them are left, 0 when it has caught up, -errno.
 */
int ingest_follow(struct ingest *in, uint64_t contiguous, uint64_t budget);

/* Bytes digested so far. */
uint64_t ingest_followed(const struct ingest *in);

/* Of all bytes followed; call once, after the last. */
int ingest_digests(struct ingest *in, unsigned char sha256[32],
		   unsigned char md5[16]);

/*
 * ingest_index() - decode on by about @budget bytes and build the index of the
 * whole file of @size bytes.
 * Returns 1 where more is to do, 0 when done, -EBADMSG where the archive is
 * damaged, -ENOSPC, -errno.
 */
int ingest_index(struct ingest *in, uint64_t size, uint64_t budget);

/* The index becomes that of @id. After ingest_index() returned 0. */
int ingest_seal(struct ingest *in, const struct checkpoints_id *id);

/* The archive's directory, once ingest_index() has read it; else NULL. */
const struct archive_directory *ingest_directory(const struct ingest *in);

#endif

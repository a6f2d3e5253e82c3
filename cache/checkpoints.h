/*
 * checkpoints - the points from which inflate can resume and the CRCs of the
 * decoded pieces, built in one pass over an archive, saved, found.
 *
 * A *stream* is something an archive can be read as: stream 0 is the file's
 * own bytes (every object has it, zip or not), stream i + 1 is member i of its
 * directory. A stream is cut into *spans* of at most CHECKPOINTS_SPAN bytes;
 * a span can be decoded with nothing but the object and its index. Spans of
 * stored data are exactly CHECKPOINTS_SPAN long but for the last; spans of
 * deflated data begin at deflate block boundaries where one is near enough and
 * inside a block where none is, with what they refer to of the 32 KiB before
 * them and, inside, the block's header kept (cache/resume.h). Within a span
 * each *piece* of CHECKPOINTS_PIECE bytes has a CRC-32, counted from the
 * span's start.
 *
 * The index file (cache/index_file.h) names the object it belongs to, by size
 * and SHA-256; every part of it is under a checksum. Whatever does not fit is
 * -EBADMSG from checkpoints_load(), and the index is then built again: it holds
 * nothing that cannot be rebuilt.
 */
#ifndef CACHE_CHECKPOINTS_H
#define CACHE_CHECKPOINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/archive.h"

enum {
	CHECKPOINTS_SPAN = 1 << 19,
	/* What all spans of a stream but the last have at least. */
	CHECKPOINTS_SPAN_MIN = CHECKPOINTS_SPAN - (112 << 10),
	CHECKPOINTS_PIECE = 1 << 16,
};

struct checkpoints;

/* Which object an index is for. */
struct checkpoints_id {
	uint64_t size;
	unsigned char sha256[32];
};

/* ---- building ---- */

struct checkpoints_builder;

/*
 * Sees the decoded bytes of members in order, up to a span at a time. A
 * negative errno, but -EAGAIN and -EBADMSG, stops the pass and is returned from
 * _step(), 0 goes on. May be NULL. What it sees of a member is not checked
 * against its CRC-32 yet; where a guess did not hold, stream 1 begins again at
 * offset 0.
 */
typedef int checkpoints_sink_fn(void *arg, unsigned int stream, uint64_t off,
				const void *buf, size_t len);

/*
 * checkpoints_builder_create() - begin an index in a temporary file.
 *
 * A builder takes about 2.8 MB, and 32 bytes for each span and 4 for each piece
 * of the object that it has passed. One thread may be in _raw() or _help()
 * while another is in _guess(), _directory() or _step(); all else is for one at
 * a time.
 *
 * @dirfd, @tmp_name: where the growing index lies (created, truncated)
 * @directory: of the archive; must live as long as the builder. NULL for an
 * object that is no zip, or one whose directory is not here yet
 */
int checkpoints_builder_create(struct checkpoints_builder **out, int dirfd,
			       const char *tmp_name,
			       const struct archive_directory *directory);

/* Raw bytes of the object in order, each once: stream 0's piece CRCs. */
int checkpoints_builder_raw(struct checkpoints_builder *b, const void *buf,
			    size_t len);

/*
 * checkpoints_builder_guess() - decode before the directory is here: its first
 * member will be @first (less its name), whose raw data begin at @data_off. At
 * most once. A guess is not believed: what the directory does not confirm, and
 * a member that by the guess is damaged, is decoded again by the directory.
 */
void checkpoints_builder_guess(struct checkpoints_builder *b,
			       const struct archive_member *first,
			       uint64_t data_off);

/* The directory has come (see _create()), and with it the whole object. */
void checkpoints_builder_directory(struct checkpoints_builder *b,
				   const struct archive_directory *directory);

/*
 * checkpoints_builder_step() - decode on, about @budget bytes of output, from
 * @fd. Bounded work and memory.
 * @size: how much of the object is here, from its first byte on and to stay as
 * it is; with a directory all of it. The index does not depend on how it grows.
 * Returns 1 where more is to do; 0 when all members are through; -EAGAIN, only
 * after a guess, where more of the object or the directory is needed; -EBADMSG
 * for a damaged member (length or CRC-32 against the directory, deflate
 * stream), -ENOMEM, -errno, or the sink's value. After other errors than
 * -EAGAIN the builder is only good for checkpoints_builder_free(). Members of
 * other methods and encrypted ones are recorded as unreadable and are no error.
 */
int checkpoints_builder_step(struct checkpoints_builder *b, int fd,
			     uint64_t size, uint64_t budget,
			     checkpoints_sink_fn *sink, void *arg);

/* Takes a piece of work off the thread that is in _step(), on another one, if
 * there is any: a window, of one tenth of a millisecond. Then true. */
bool checkpoints_builder_help(struct checkpoints_builder *b);

/* Seals the temporary file: header, tables, checksums, fdatasync. The caller
 * renames it. -EINVAL where not all of the object was seen: all of it by
 * checkpoints_builder_raw(), its members by steps up to the one that returned
 * 0. */
int checkpoints_builder_finish(struct checkpoints_builder *b,
			       const struct checkpoints_id *id);

/* Frees; unlinks the temporary file unless finished. */
void checkpoints_builder_free(struct checkpoints_builder *b);

/* ---- using ---- */

/*
 * checkpoints_load() - open an index. Keeps the file open and in memory only
 * the table of streams: cost and memory do not grow with the object beyond a
 * few dozen bytes a span.
 * Returns 0, -ENOENT, -EBADMSG (not for @id, or damaged), -ENOMEM, -errno.
 * The result may be used by any number of threads at once.
 */
int checkpoints_load(struct checkpoints **out, int dirfd, const char *name,
		     const struct checkpoints_id *id);
void checkpoints_free(struct checkpoints *cp);

unsigned int checkpoints_streams(const struct checkpoints *cp);

/* Bytes of a stream when decoded; -EOPNOTSUPP for a member that can't be
 * read (method, encryption), -ENOENT for a folder or a stream not there. */
int checkpoints_stream_size(const struct checkpoints *cp, unsigned int stream,
			    uint64_t *size);

/* The span that holds @off, where it begins and how long it is.
 * @off must be below the stream's size. */
void checkpoints_span_at(const struct checkpoints *cp, unsigned int stream,
			 uint64_t off, uint64_t *span, uint64_t *start,
			 size_t *len);

/* Memory this index takes, in bytes. */
size_t checkpoints_memory(const struct checkpoints *cp);

/*
 * A decoder holds what decoding takes beside the output, about 400 KiB, and
 * where in a span it stands. One thread at a time.
 */
struct checkpoints_decoder;

int checkpoints_decoder_create(struct checkpoints_decoder **out);
void checkpoints_decoder_free(struct checkpoints_decoder *d);

/*
 * checkpoints_decode() - a span from its beginning up to @to or a little more,
 * every piece checked against its CRC.
 * @fd: the object
 * @buf: of the span, CHECKPOINTS_SPAN bytes of room
 * @from: bytes of it that are there already: 0, or what an earlier call
 * returned, and @d stands where that call left it
 * @to: above @from, at most the span's length; rounded up to a whole piece
 * Returns how many bytes are there now; -EBADMSG if object or index is damaged;
 * -ENOMEM, -errno. After an error begin again with 0. Any number of threads may
 * decode by one index at once, each with its own @d.
 */
ssize_t checkpoints_decode(const struct checkpoints *cp, int fd,
			   unsigned int stream, uint64_t span,
			   struct checkpoints_decoder *d, void *buf,
			   size_t from, size_t to);

/* Where a decoder stands, as plain bytes: so a span may be left half decoded
 * and gone on with later, by any decoder. */
enum { CHECKPOINTS_PAUSED_BYTES = 96 << 10 };
void checkpoints_pause(const struct checkpoints_decoder *d, void *room);
void checkpoints_resume(struct checkpoints_decoder *d, const void *room);

#endif

/*
 * index_file - the index of an object on disk: its format, written once from
 * front to back and checked whole when it is opened.
 *
 * All numbers are little-endian.
 *
 *	header	 128 bytes, written last
 *	  0  8	 "tickfsix"
 *	  8  4	 version, 2
 *	 12  4	 streams
 *	 16  8	 spans, of all deflated streams together
 *	 24  8	 offset of the tables
 *	 32  8	 size of the object
 *	 40 32	 SHA-256 of the object
 *	 72 24	 zero
 *	 96 32	 SHA-256 of bytes 0 to 95 and of the tables
 *	blobs	 in any order, see below
 *	tables	 up to the end of the file
 *	  stream records, 48 bytes each, stream 0 first
 *	  0  4	 enum index_kind
 *	  4  4	 zero
 *	  8  8	 size when decoded
 *	 16  8	 size in the object
 *	 24  8	 offset of the raw data in the object
 *	 32  8	 raw and stored: offset of the piece CRCs in the index file
 *		 deflated: its first span record
 *	 40  8	 number of spans
 *	  span records, 32 bytes each, in order of stream and offset
 *	  0  4	 length when decoded
 *	  4  4	 length of the blob
 *	  8  8	 offset of the blob
 *	 16  8	 raw offset, in the stream's data, of the first byte after the
 *		 preamble (cache/resume.h)
 *	 24  4	 CRC-32 of the blob
 *	 28  2	 length of the preamble
 *	 30  1	 bits of the preamble to leave out
 *	 31  1	 1 if the blob has a window
 *	A span's blob is: a CRC-32 (4 bytes) for each of its pieces, the
 *	preamble, and the window, deflated; what of it the span does not refer
 *	to is zero. For raw and stored streams the blob is the CRC-32 of all
 *	pieces, one after the other.
 *
 * The tables say where bytes are to be found, so an error in them could serve
 * right bytes at a wrong place: SHA-256, which costs half a millisecond for
 * 20 GiB of CSV, leaves no such error unseen. A blob can't do more than make a
 * piece fail its CRC, for which a CRC-32 of its own is plenty.
 */
#ifndef CACHE_INDEX_FILE_H
#define CACHE_INDEX_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "cache/checkpoints.h"

enum {
	INDEX_HEADER_BYTES = 128,
	INDEX_STREAM_BYTES = 48,
	INDEX_SPAN_BYTES = 32,
};

enum index_kind {
	INDEX_RAW,	  /* stream 0: the object itself */
	INDEX_STORED,	  /* a stored member */
	INDEX_DEFLATED,	  /* a deflated member */
	INDEX_UNREADABLE, /* another method, or encrypted */
	INDEX_FOLDER,
};

struct index_stream {
	enum index_kind kind;
	uint64_t size, csize;
	uint64_t data_off;
	uint64_t crc_off;    /* raw and stored */
	uint64_t first_span; /* deflated */
	uint64_t spans;
};

struct index_span {
	uint32_t len;
	uint32_t blob_len;
	uint64_t blob_off;
	uint64_t zoff;
	uint32_t crc;
	uint16_t preamble_len;
	uint8_t skip;
	uint8_t has_window;
};

/* A list of encoded records that grows. */
struct index_table {
	unsigned char *data;
	size_t n, cap; /* bytes */
};

int index_file_add_stream(struct index_table *t, const struct index_stream *s);
/* Replaces the record @i, which is there. */
void index_file_set_stream(struct index_table *t, size_t i,
			   const struct index_stream *s);
int index_file_add_span(struct index_table *t, const struct index_span *s);
void index_file_free(struct index_table *t);

/* A four-byte number of a blob. */
void index_file_put_crc(unsigned char out[4], uint32_t crc);
uint32_t index_file_get_crc(const unsigned char in[4]);

/*
 * index_file_seal() - append the tables at @tables_off, and write the header.
 * Returns 0 or -errno of pwrite(2). Does not sync.
 */
int index_file_seal(int fd, uint64_t tables_off,
		    const struct index_table *streams,
		    const struct index_table *spans,
		    const struct checkpoints_id *id);

/*
 * index_file_read() - the tables, every field within its bounds: streams[]
 * begins with the one raw stream, all data lie within the object, all blobs
 * within the file, the spans of a stream add up to its size.
 * @starts: for each span, where it begins in its stream
 * The three arrays are the caller's to free(), also where they are empty.
 * Returns 0, -EBADMSG, -ENOMEM, -errno.
 */
int index_file_read(int fd, const struct checkpoints_id *id,
		    struct index_stream **streams, size_t *n_streams,
		    struct index_span **spans, uint64_t **starts,
		    size_t *n_spans);

#endif

/* Reading spans by an index; cache/checkpoints_builder.c makes it. */
#include "cache/checkpoints.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <isa-l.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/disk.h"
#include "cache/index_file.h"
#include "cache/resume.h"

enum {
	/* Most spans in one go: a decoder that is given its input in parts
	 * copies its window each time. */
	DECODE_IN = 256 << 10,
	/* More than what is expected to be needed: ratios vary in a span. */
	DECODE_IN_SLACK = 2 << 10,
};

struct checkpoints {
	int fd; /* of the index file */
	struct index_stream *streams;
	size_t n_streams;
	struct index_span *spans;
	uint64_t *starts; /* of the spans, in their streams */
	size_t n_spans;
};

int checkpoints_load(struct checkpoints **out, int dirfd, const char *name,
		     const struct checkpoints_id *id)
{
	struct checkpoints *cp = calloc(1, sizeof(*cp));
	int err;

	if (!cp)
		return -ENOMEM;
	cp->fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (cp->fd < 0) {
		err = -errno;
		goto out;
	}
	err = index_file_read(cp->fd, id, &cp->streams, &cp->n_streams,
			      &cp->spans, &cp->starts, &cp->n_spans);
	if (err)
		goto out;
	*out = cp;
	cp = NULL;
out:
	checkpoints_free(cp);
	return err;
}

void checkpoints_free(struct checkpoints *cp)
{
	if (!cp)
		return;
	if (cp->fd >= 0)
		close(cp->fd);
	free(cp->streams);
	free(cp->spans);
	free(cp->starts);
	free(cp);
}

unsigned int checkpoints_streams(const struct checkpoints *cp)
{
	return (unsigned int)cp->n_streams;
}

int checkpoints_stream_size(const struct checkpoints *cp, unsigned int stream,
			    uint64_t *size)
{
	if (stream >= cp->n_streams || cp->streams[stream].kind == INDEX_FOLDER)
		return -ENOENT;
	if (cp->streams[stream].kind == INDEX_UNREADABLE)
		return -EOPNOTSUPP;
	*size = cp->streams[stream].size;
	return 0;
}

/* The last of the stream's spans that begins at or before @off. */
static uint64_t find_span(const struct checkpoints *cp,
			  const struct index_stream *s, uint64_t off)
{
	const uint64_t *starts = cp->starts + s->first_span;
	uint64_t low = 0, high = s->spans;

	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;

		if (starts[middle] <= off)
			low = middle;
		else
			high = middle;
	}
	return low;
}

void checkpoints_span_at(const struct checkpoints *cp, unsigned int stream,
			 uint64_t off, uint64_t *span, uint64_t *start,
			 size_t *len)
{
	const struct index_stream *s;

	assert(stream < cp->n_streams);
	s = &cp->streams[stream];
	assert(off < s->size);
	if (s->kind == INDEX_DEFLATED) {
		*span = find_span(cp, s, off);
		*start = cp->starts[s->first_span + *span];
		*len = cp->spans[s->first_span + *span].len;
	} else {
		*span = off / CHECKPOINTS_SPAN;
		*start = *span * CHECKPOINTS_SPAN;
		*len = s->size - *start < CHECKPOINTS_SPAN
			       ? (size_t)(s->size - *start)
			       : CHECKPOINTS_SPAN;
	}
}

size_t checkpoints_memory(const struct checkpoints *cp)
{
	return sizeof(*cp) + cp->n_streams * sizeof(*cp->streams) +
	       cp->n_spans * (sizeof(*cp->spans) + sizeof(*cp->starts));
}

/* ---- decoding ---- */

/* Where a decoder stands in a deflated span. */
struct stand {
	struct inflate_state state;
	uint64_t zoff; /* of the raw byte it is to be fed next */
	unsigned char crcs[CHECKPOINTS_SPAN / CHECKPOINTS_PIECE * 4];
};

_Static_assert(sizeof(struct stand) <= CHECKPOINTS_PAUSED_BYTES,
	       "a paused decoder takes more than its contract says");

struct checkpoints_decoder {
	struct stand at;
	struct resume_point point;
	unsigned char in[DECODE_IN]; /* raw data; before that, the blob */
};

int checkpoints_decoder_create(struct checkpoints_decoder **out)
{
	/* Aligned for the decoder. */
	*out = aligned_alloc(64, (sizeof(**out) + 63) / 64 * 64);
	return *out ? 0 : -ENOMEM;
}

void checkpoints_decoder_free(struct checkpoints_decoder *d)
{
	free(d);
}

void checkpoints_pause(const struct checkpoints_decoder *d, void *room)
{
	memcpy(room, &d->at, sizeof(d->at));
}

void checkpoints_resume(struct checkpoints_decoder *d, const void *room)
{
	memcpy(&d->at, room, sizeof(d->at));
}

/* The pieces of buf[from, to); @crcs: of all pieces of the span. */
static int check_pieces(const unsigned char *buf, size_t from, size_t to,
			const unsigned char *crcs)
{
	crcs += from / CHECKPOINTS_PIECE * 4;
	for (size_t at = from; at < to; at += CHECKPOINTS_PIECE, crcs += 4) {
		size_t n = to - at;

		if (n > CHECKPOINTS_PIECE)
			n = CHECKPOINTS_PIECE;
		if (crc32_gzip_refl(0, buf + at, n) != index_file_get_crc(crcs))
			return -EBADMSG;
	}
	return 0;
}

static size_t pieces_of(size_t len)
{
	return (len + CHECKPOINTS_PIECE - 1) / CHECKPOINTS_PIECE;
}

static size_t whole_pieces(size_t to, size_t len)
{
	to = pieces_of(to) * CHECKPOINTS_PIECE;
	return to < len ? to : len;
}

static ssize_t read_flat(const struct checkpoints *cp, int fd,
			 const struct index_stream *s, uint64_t span,
			 unsigned char *buf, size_t from, size_t to)
{
	unsigned char crcs[CHECKPOINTS_SPAN / CHECKPOINTS_PIECE * 4];
	uint64_t start = span * CHECKPOINTS_SPAN, left;
	size_t len;
	int err;

	if (span >= s->spans)
		return -EBADMSG;
	left = s->size - start;
	len = left < CHECKPOINTS_SPAN ? (size_t)left : CHECKPOINTS_SPAN;
	to = whole_pieces(to, len);
	err = disk_pread(cp->fd, crcs, pieces_of(len) * 4,
			 s->crc_off + start / CHECKPOINTS_PIECE * 4);
	if (!err)
		err = disk_pread(fd, buf + from, to - from,
				 s->data_off + start + from);
	if (!err)
		err = check_pieces(buf, from, to, crcs);
	return err ? err : (ssize_t)to;
}

static int inflate_window(struct checkpoints_decoder *d, const unsigned char *z,
			  size_t len)
{
	struct inflate_state *s = &d->at.state;

	isal_inflate_init(s);
	s->next_in = (unsigned char *)z;
	s->avail_in = (uint32_t)len;
	s->next_out = d->point.window;
	s->avail_out = RESUME_WINDOW;
	if (isal_inflate(s) < 0 || s->avail_out)
		return -EBADMSG;
	d->point.window_len = RESUME_WINDOW;
	return 0;
}

/* Loads the blob of @s: the CRCs, and the point where it begins. */
static int read_blob(const struct checkpoints *cp, const struct index_span *s,
		     struct checkpoints_decoder *d)
{
	size_t crcs = pieces_of(s->len) * 4;
	const unsigned char *blob = d->in;
	int err;

	if (s->blob_len > sizeof(d->in))
		return -EBADMSG;
	err = disk_pread(cp->fd, d->in, s->blob_len, s->blob_off);
	if (err)
		return err;
	if (crc32_gzip_refl(0, blob, s->blob_len) != s->crc)
		return -EBADMSG;
	memcpy(d->at.crcs, blob, crcs);
	memcpy(d->point.preamble, blob + crcs, s->preamble_len);
	d->point.preamble_len = s->preamble_len;
	d->point.skip = s->skip;
	d->point.zoff = s->zoff;
	d->point.window_len = 0;
	if (!s->has_window)
		return 0;
	crcs += s->preamble_len;
	return inflate_window(d, blob + crcs, s->blob_len - crcs);
}

static int begin_span(const struct checkpoints *cp, const struct index_span *sp,
		      struct checkpoints_decoder *d)
{
	int err = read_blob(cp, sp, d);

	if (err)
		return err;
	d->at.zoff = sp->zoff;
	return resume_start(&d->at.state, &d->point) ? 0 : -EBADMSG;
}

/* How much raw data to read for @len more bytes of a span that has @rest bytes
 * to come, and raw data up to @zend. */
static size_t input_for(const struct checkpoints_decoder *d, uint64_t zend,
			size_t len, size_t rest)
{
	uint64_t zrest = zend > d->at.zoff ? zend - d->at.zoff : 0, n;

	if (zrest > DECODE_IN)
		zrest = DECODE_IN;
	n = zrest * len / rest + DECODE_IN_SLACK;
	return n < DECODE_IN ? (size_t)n : DECODE_IN;
}

/* Decodes @len bytes on, of @rest that are left of the span; @zend: where the
 * next one begins. */
static int inflate_on(struct checkpoints_decoder *d, int fd,
		      const struct index_stream *s, uint64_t zend,
		      unsigned char *buf, size_t len, size_t rest)
{
	struct inflate_state *st = &d->at.state;

	st->next_out = buf;
	st->avail_out = (uint32_t)len;
	while (st->avail_out) {
		uint64_t left = s->csize - d->at.zoff;
		size_t most = input_for(d, zend, st->avail_out,
					rest - (len - st->avail_out));
		size_t n = left < most ? (size_t)left : most;
		uint32_t room = st->avail_out;
		int err = disk_pread(fd, d->in, n, s->data_off + d->at.zoff);

		if (err)
			return err;
		st->next_in = d->in;
		st->avail_in = (uint32_t)n;
		/* An error beyond the last byte that is wanted is none. */
		if (isal_inflate(st) < 0 && st->avail_out)
			return -EBADMSG;
		d->at.zoff += n - st->avail_in;
		if (n == 0 && st->avail_out == room)
			return -EBADMSG;
		if (st->avail_out && st->block_state == ISAL_BLOCK_FINISH)
			return -EBADMSG;
	}
	return 0;
}

static ssize_t inflate_span(const struct checkpoints *cp, int fd,
			    const struct index_stream *s, uint64_t span,
			    struct checkpoints_decoder *d, unsigned char *buf,
			    size_t from, size_t to)
{
	const struct index_span *sp;
	uint64_t zend = s->csize;
	int err = 0;

	if (span >= s->spans)
		return -EBADMSG;
	sp = &cp->spans[s->first_span + span];
	if (span + 1 < s->spans)
		zend = sp[1].zoff;
	to = whole_pieces(to, sp->len);
	if (!from)
		err = begin_span(cp, sp, d);
	if (!err)
		err = inflate_on(d, fd, s, zend, buf + from, to - from,
				 sp->len - from);
	if (!err)
		err = check_pieces(buf, from, to, d->at.crcs);
	return err ? err : (ssize_t)to;
}

ssize_t checkpoints_decode(const struct checkpoints *cp, int fd,
			   unsigned int stream, uint64_t span,
			   struct checkpoints_decoder *d, void *buf,
			   size_t from, size_t to)
{
	const struct index_stream *s;

	assert(from < to && from % CHECKPOINTS_PIECE == 0);
	if (stream >= cp->n_streams)
		return -EBADMSG;
	s = &cp->streams[stream];
	switch (s->kind) {
	case INDEX_RAW:
	case INDEX_STORED:
		return read_flat(cp, fd, s, span, buf, from, to);
	case INDEX_DEFLATED:
		return inflate_span(cp, fd, s, span, d, buf, from, to);
	default:
		return -EBADMSG;
	}
}

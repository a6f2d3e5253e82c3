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
	DECODE_IN = 64 << 10,
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

static int check_pieces(const unsigned char *buf, size_t len,
			const unsigned char *crcs)
{
	for (size_t at = 0; at < len; at += CHECKPOINTS_PIECE, crcs += 4) {
		size_t n = len - at;

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

static ssize_t read_flat(const struct checkpoints *cp, int fd,
			 const struct index_stream *s, uint64_t span,
			 unsigned char *buf)
{
	unsigned char crcs[CHECKPOINTS_SPAN / CHECKPOINTS_PIECE * 4];
	uint64_t start, left;
	size_t len;
	int err;

	if (span >= s->spans)
		return -EBADMSG;
	start = span * CHECKPOINTS_SPAN;
	left = s->size - start;
	len = left < CHECKPOINTS_SPAN ? (size_t)left : CHECKPOINTS_SPAN;
	err = disk_pread(cp->fd, crcs, pieces_of(len) * 4,
			 s->crc_off + start / CHECKPOINTS_PIECE * 4);
	if (!err)
		err = disk_pread(fd, buf, len, s->data_off + start);
	if (!err)
		err = check_pieces(buf, len, crcs);
	return err ? err : (ssize_t)len;
}

/* What decoding takes; too much for a stack. */
struct decoder {
	struct inflate_state state;
	struct resume_point point;
	unsigned char in[DECODE_IN]; /* raw data; before that, the blob */
	unsigned char crcs[CHECKPOINTS_SPAN / CHECKPOINTS_PIECE * 4];
};

static int inflate_window(struct decoder *d, const unsigned char *z, size_t len)
{
	struct inflate_state *s = &d->state;

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
		     struct decoder *d)
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
	memcpy(d->crcs, blob, crcs);
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

/* Decodes @len bytes; @zoff: where the decoder wants to be fed from. */
static int inflate_span(struct decoder *d, int fd, const struct index_stream *s,
			uint64_t zoff, unsigned char *buf, size_t len)
{
	struct inflate_state *st = &d->state;

	st->next_out = buf;
	st->avail_out = (uint32_t)len;
	while (st->avail_out) {
		uint64_t left = s->csize - zoff;
		size_t n = left < DECODE_IN ? (size_t)left : DECODE_IN;
		uint32_t room = st->avail_out;
		int err = disk_pread(fd, d->in, n, s->data_off + zoff);

		if (err)
			return err;
		zoff += n;
		st->next_in = d->in;
		st->avail_in = (uint32_t)n;
		/* An error beyond the last byte that is wanted is none. */
		if (isal_inflate(st) < 0 && st->avail_out)
			return -EBADMSG;
		if (n == 0 && st->avail_out == room)
			return -EBADMSG;
		if (st->avail_out && st->block_state == ISAL_BLOCK_FINISH)
			return -EBADMSG;
	}
	return 0;
}

static ssize_t inflate_one(const struct checkpoints *cp, int fd,
			   const struct index_stream *s, uint64_t span,
			   unsigned char *buf)
{
	const struct index_span *sp;
	struct decoder *d;
	int err;

	if (span >= s->spans)
		return -EBADMSG;
	sp = &cp->spans[s->first_span + span];
	d = aligned_alloc(64, (sizeof(*d) + 63) / 64 * 64);
	if (!d)
		return -ENOMEM;
	err = read_blob(cp, sp, d);
	if (!err && !resume_start(&d->state, &d->point))
		err = -EBADMSG;
	if (!err)
		err = inflate_span(d, fd, s, sp->zoff, buf, sp->len);
	if (!err)
		err = check_pieces(buf, sp->len, d->crcs);
	free(d);
	return err ? err : (ssize_t)sp->len;
}

ssize_t checkpoints_decode(const struct checkpoints *cp, int fd,
			   unsigned int stream, uint64_t span, void *buf)
{
	const struct index_stream *s;

	if (stream >= cp->n_streams)
		return -EBADMSG;
	s = &cp->streams[stream];
	switch (s->kind) {
	case INDEX_RAW:
	case INDEX_STORED:
		return read_flat(cp, fd, s, span, buf);
	case INDEX_DEFLATED:
		return inflate_one(cp, fd, s, span, buf);
	default:
		return -EBADMSG;
	}
}

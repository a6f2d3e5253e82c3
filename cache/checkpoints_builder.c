/*
 * One pass over the members of an archive that checks them and cuts them into
 * spans.
 *
 * A deflated member is decoded into a buffer of one span. Up to HUNT_FROM of
 * it that is done in large steps. From there on the input is fed in small ones
 * and the decoder watched: where it stands at a block boundary the span ends.
 * ISA-L has no call for that, but when the last byte it was given lies in the
 * header of a block it says so (ISAL_BLOCK_HDR), and when its codes have
 * changed over a step, a header was in it: go back to before the step and take
 * smaller ones. Where no block begins before the buffer is full, the span ends
 * inside a block, whose header is then searched for by decoding the last step
 * in which the codes changed a second time (find_header()).
 *
 * Before each step the decoder is copied, and each call of it moves its window:
 * together some 5 us, so steps are few and large. How far before the end of the
 * buffer the hunt begins is a matter of both: a block of aggTrades decodes to
 * some 200 KB, and a boundary found saves the search; but shorter spans need
 * more windows.
 *
 * Each call of the decoder is bounded in input and output, so that a stream
 * that decodes to nothing, or to very much, holds nobody up.
 *
 * What a span needs is written to the temporary file when the span and its
 * window are done (cache/checkpoints_windows.h); in memory stay 32 bytes a
 * span, and 4 bytes a piece of the object and of the stored member under way.
 */
#include "cache/checkpoints.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <isa-l.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/checkpoints_windows.h"
#include "cache/disk.h"
#include "cache/index_file.h"
#include "cache/resume.h"

enum {
	IN_BYTES = 128 << 10,
	/*
	 * The hunt begins by emptying the decoder, which holds at most its
	 * buffer and what the 64 bits it has read ahead can decode to. All of
	 * that has to fit in what is left of the span.
	 */
	HUNT_FROM = CHECKPOINTS_SPAN_MIN,
	DECODER_HOLDS = 2 * ISAL_DEF_HIST_SIZE + ISAL_LOOK_AHEAD + 64 * 258,
	/* Steps in bytes of input: up to the hunt, and of the hunt. */
	STEP_LARGE = 32768,
	STEP_COARSE = 4096,
	STEP_FINE = 16,
	STEP_FACTOR = 4,
	/* Input to a decoder that is run again in search of a header. */
	REPLAY_COARSE = 16384, /* by STEP_FACTOR down to 1 */
	REPLAY_OUT = 64 << 10,
	/* Handed to the disk at a time, so that the sync at the end has little
	 * left to wait for. */
	WRITE_BACK_BYTES = 1 << 20,
	/* What a call counts for at least, so that a million of empty members
	 * or blocks are not done in one step. */
	CALL_COST = 4096,
};

_Static_assert(DECODER_HOLDS < CHECKPOINTS_SPAN - HUNT_FROM,
	       "the hunt could begin with more than fits");
_Static_assert((int)HUNT_FROM > (int)RESUME_WINDOW,
	       "a span must hold a window");

/* CRC-32s of the pieces of bytes that come in any portions. */
struct piece_crcs {
	unsigned char *crcs; /* four bytes each, as in the index */
	size_t n, cap;	     /* complete pieces */
	uint32_t crc;	     /* of the piece under way */
	size_t fill;
	uint64_t total;
};

/* A copy of the decoder to go back to. */
struct mark {
	struct inflate_state state;
	uint64_t zpos;
	size_t pos;
};

/* What decoding a deflated member needs; made for the first one. */
struct inflater {
	struct inflate_state state;
	struct mark marks[3];
	/* The step under way, if any; the last one of this span over which the
	 * codes changed, and where it ended, if any; and one to spare. */
	struct mark *before, *changed, *spare;
	bool in_step, has_changed;
	uint64_t changed_end;
	struct inflate_state scratch;
	struct resume_point point;   /* where this span began */
	struct resume_point next;    /* where it ends */
	struct resume_header header; /* of the block it began in, if n > 0 */
	unsigned char span[CHECKPOINTS_SPAN + 1]; /* one byte too many */
	size_t pos;				  /* decoded bytes in span[] */
	uint64_t start; /* of the span, in the member */
	uint64_t zpos;	/* raw bytes the decoder has consumed */
	bool emptied;	/* the hunt has begun */
	uint32_t step;
	unsigned int steps; /* since step changed */
	unsigned char replay_out[REPLAY_OUT];
	unsigned char blob[CHECKPOINTS_CRCS + RESUME_PREAMBLE_MAX +
			   CHECKPOINTS_WINDOW_RAW + CHECKPOINTS_WINDOW_MORE];
};

struct checkpoints_builder {
	int dirfd, fd;
	char *tmp_name;
	bool sealed;
	struct piece_crcs raw; /* by checkpoints_builder_raw() alone */
	const struct archive_directory *directory;
	uint64_t *offsets; /* of its members' raw data, once looked up */
	/* Until the directory is here, and whether it is to come. */
	bool guessed, awaited;
	struct archive_member guess;
	uint64_t guess_off;
	uint64_t size;	       /* bytes of the object that are here */
	uint64_t end;	       /* of the temporary file */
	uint64_t written_back; /* of it */
	struct index_table streams, spans;
	/* the member under way */
	size_t member;
	bool begun;
	struct index_stream stream;
	uint32_t crc; /* of its decoded bytes */
	uint64_t done;
	struct piece_crcs stored;
	struct inflater *inf;
	struct checkpoints_windows *windows;
	/* raw bytes of the member in memory: [in_off, in_off + in_len) */
	unsigned char in[IN_BYTES];
	uint64_t in_off;
	size_t in_len;
};

/* ---- CRC-32 of what is joined ---- */

/*
 * The CRC of A and B joined is crc(A) * x^(8 * len(B)) + crc(B), in polynomials
 * over GF(2) modulo that of CRC-32 (as in zlib's crc32_combine()). They are
 * reflected: the top bit is x^0. So decoded bytes are gone over once for the
 * CRCs of pieces and of the member.
 */
static uint32_t crc_times(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (uint32_t bit = UINT32_C(1) << 31; bit; bit >>= 1) {
		if (a & bit)
			product ^= b;
		b = b & 1 ? b >> 1 ^ UINT32_C(0xedb88320) : b >> 1;
	}
	return product;
}

/* x^(8 * @len) */
static uint32_t crc_shift(size_t len)
{
	uint32_t power = UINT32_C(1) << 31, square = UINT32_C(1) << 23;

	for (; len; len >>= 1) {
		if (len & 1)
			power = crc_times(power, square);
		square = crc_times(square, square);
	}
	return power;
}

/* ---- pieces ---- */

static int pieces_close(struct piece_crcs *p)
{
	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		unsigned char *v = realloc(p->crcs, cap * 4);

		if (!v)
			return -ENOMEM;
		p->crcs = v;
		p->cap = cap;
	}
	index_file_put_crc(p->crcs + 4 * p->n++, p->crc);
	p->crc = 0;
	p->fill = 0;
	return 0;
}

static int pieces_add(struct piece_crcs *p, const unsigned char *buf,
		      size_t len)
{
	p->total += len;
	while (len) {
		size_t n = CHECKPOINTS_PIECE - p->fill;
		int err;

		if (n > len)
			n = len;
		p->crc = crc32_gzip_refl(p->crc, buf, n);
		p->fill += n;
		buf += n;
		len -= n;
		if (p->fill < CHECKPOINTS_PIECE)
			break;
		err = pieces_close(p);
		if (err)
			return err;
	}
	return 0;
}

static void pieces_reset(struct piece_crcs *p)
{
	p->n = 0;
	p->crc = 0;
	p->fill = 0;
	p->total = 0;
}

/* ---- the temporary file ---- */

static int append(struct checkpoints_builder *b, const void *buf, size_t len,
		  uint64_t *at)
{
	int err = disk_pwrite(b->fd, buf, len, b->end);

	if (err)
		return err;
	*at = b->end;
	b->end += len;
	if (b->end - b->written_back >= WRITE_BACK_BYTES) {
		/* A failure shows at the sync. */
		(void)sync_file_range(b->fd, (off_t)b->written_back,
				      (off_t)(b->end - b->written_back),
				      SYNC_FILE_RANGE_WRITE);
		b->written_back = b->end;
	}
	return 0;
}

/* All pieces of a stream that is kept as it is, as one blob. */
static int append_pieces(struct checkpoints_builder *b, struct piece_crcs *p,
			 uint64_t *at)
{
	int err = p->fill ? pieces_close(p) : 0;

	return err ? err : append(b, p->crcs, p->n * 4, at);
}

int checkpoints_builder_create(struct checkpoints_builder **out, int dirfd,
			       const char *tmp_name,
			       const struct archive_directory *directory)
{
	struct checkpoints_builder *b = calloc(1, sizeof(*b));
	const struct index_stream raw = {.kind = INDEX_RAW};
	int err;

	if (!b)
		return -ENOMEM;
	b->fd = -1;
	b->dirfd = dirfd;
	b->directory = directory;
	b->end = INDEX_HEADER_BYTES;
	b->tmp_name = strdup(tmp_name);
	err = b->tmp_name ? checkpoints_windows_create(&b->windows) : -ENOMEM;
	if (!err) /* its place; filled in when all is known */
		err = index_file_add_stream(&b->streams, &raw);
	if (err)
		goto out;
	b->fd = openat(dirfd, tmp_name,
		       O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		       0600);
	if (b->fd < 0) {
		err = disk_errno();
		goto out;
	}
	*out = b;
	return 0;
out:
	/* Whatever lies there is not ours: it was not opened. */
	index_file_free(&b->streams);
	checkpoints_windows_free(b->windows);
	free(b->tmp_name);
	free(b);
	return err;
}

int checkpoints_builder_raw(struct checkpoints_builder *b, const void *buf,
			    size_t len)
{
	return pieces_add(&b->raw, buf, len);
}

/* ---- raw input ---- */

/*
 * Makes at least one byte from @zpos on available, if the member has one before
 * @end. -EAGAIN where not all that is read at once is here yet: so the index is
 * the same however the object grows.
 */
static int fill(struct checkpoints_builder *b, int fd, uint64_t zpos,
		uint64_t end)
{
	uint64_t left = end - zpos;
	size_t want = left < IN_BYTES ? (size_t)left : IN_BYTES;
	int err;

	if (zpos >= b->in_off && zpos < b->in_off + b->in_len)
		return 0;
	if (b->size < b->stream.data_off ||
	    b->size - b->stream.data_off < zpos + want)
		return b->awaited ? -EAGAIN : -EBADMSG;
	b->in_len = 0;
	err = disk_pread(fd, b->in, want, b->stream.data_off + zpos);
	if (err)
		return err;
	b->in_off = zpos;
	b->in_len = want;
	return 0;
}

/* ---- a deflated member ---- */

/* One call of the decoder. @in_max, @out: bounds of it. -EAGAIN, and nothing
 * done, where its input is not here. */
static int inflate_some(struct checkpoints_builder *b, int fd, uint32_t in_max,
			uint32_t out)
{
	struct inflater *inf = b->inf;
	struct inflate_state *s = &inf->state;
	uint32_t avail = 0;
	size_t at;
	int err, ret;

	if (in_max && inf->zpos < b->stream.csize) {
		err = fill(b, fd, inf->zpos, b->stream.csize);
		if (err)
			return err;
		at = (size_t)(inf->zpos - b->in_off);
		avail = (uint32_t)(b->in_len - at);
		if (avail > in_max)
			avail = in_max;
		s->next_in = b->in + at;
	}
	s->avail_in = avail;
	s->next_out = inf->span + inf->pos;
	s->avail_out = out;
	ret = isal_inflate(s);
	inf->zpos += avail - s->avail_in;
	inf->pos += out - s->avail_out;
	return ret < 0 ? -EBADMSG : 0;
}

/* Nothing in, nothing out, and not at its end: it never will be. */
static bool starved(const struct checkpoints_builder *b, size_t pos)
{
	return b->inf->zpos == b->stream.csize && b->inf->pos == pos;
}

/* Less what its buffer does not hold. */
static void copy_state(struct inflate_state *to,
		       const struct inflate_state *from)
{
	memcpy(to, from,
	       offsetof(struct inflate_state, tmp_out_buffer) +
		       (size_t)from->tmp_out_valid);
}

static void mark_copy(struct mark *to, const struct mark *from)
{
	copy_state(&to->state, &from->state);
	to->zpos = from->zpos;
	to->pos = from->pos;
}

static void mark_swap(struct mark **a, struct mark **b)
{
	struct mark *m = *a;

	*a = *b;
	*b = m;
}

/* The step under way is done: did its codes change? */
static void end_step(struct inflater *inf)
{
	if (inf->in_step &&
	    !resume_same_codes(&inf->state, &inf->before->state)) {
		mark_swap(&inf->before, &inf->changed);
		inf->changed_end = inf->zpos;
		inf->has_changed = true;
	}
	inf->in_step = false;
}

static void begin_step(struct inflater *inf)
{
	end_step(inf);
	copy_state(&inf->before->state, &inf->state);
	inf->before->zpos = inf->zpos;
	inf->before->pos = inf->pos;
	inf->in_step = true;
}

/* As if it had not begun. */
static void undo_step(struct inflater *inf)
{
	copy_state(&inf->state, &inf->before->state);
	inf->zpos = inf->before->zpos;
	inf->pos = inf->before->pos;
}

/* The CRCs of the pieces in the buffer, and with them the member's so far.
 * Returns where they end. */
static unsigned char *put_pieces(struct checkpoints_builder *b,
				 unsigned char *w)
{
	const struct inflater *inf = b->inf;
	const uint32_t whole = crc_shift(CHECKPOINTS_PIECE);

	for (size_t at = 0; at < inf->pos; at += CHECKPOINTS_PIECE) {
		size_t n = inf->pos - at;
		uint32_t crc, shift = whole;

		if (n < CHECKPOINTS_PIECE)
			shift = crc_shift(n);
		else
			n = CHECKPOINTS_PIECE;
		crc = crc32_gzip_refl(0, inf->span + at, n);
		b->crc = crc_times(b->crc, shift) ^ crc;
		index_file_put_crc(w, crc);
		w += 4;
	}
	return w;
}

/* The first blob of those whose window is done: the CRCs of the span and the
 * point it began at. */
static int write_blob(struct checkpoints_builder *b,
		      const struct checkpoints_window *job)
{
	const struct {
		const unsigned char *data;
		size_t len;
	} parts[] = {
		{job->crcs, job->crcs_len},
		{job->point.preamble, job->point.preamble_len},
		{job->bytes, job->deflated_len},
	};
	struct index_span span = job->span;
	unsigned char *w = b->inf->blob;
	size_t len;
	int err;

	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		memcpy(w, parts[i].data, parts[i].len);
		w += parts[i].len;
	}
	len = (size_t)(w - b->inf->blob);
	span.blob_len = (uint32_t)len;
	span.crc = crc32_gzip_refl(0, b->inf->blob, len);
	err = append(b, b->inf->blob, len, &span.blob_off);
	return err ? err : index_file_add_span(&b->spans, &span);
}

/* The first of those whose window is done, or the first of all. 0 where there
 * is none, 1. */
static int write_first(struct checkpoints_builder *b, bool of_all)
{
	const struct checkpoints_window *job =
		checkpoints_windows_first(b->windows, of_all);
	int err;

	if (!job)
		return 0;
	err = write_blob(b, job);
	checkpoints_windows_pop(b->windows);
	return err ? err : 1;
}

static int write_rest(struct checkpoints_builder *b)
{
	int ret;

	do {
		ret = write_first(b, true);
	} while (ret > 0);
	return ret;
}

/* What is to be known of the span in the buffer. */
static int fill_job(struct checkpoints_builder *b, int fd,
		    struct checkpoints_window *job)
{
	const struct inflater *inf = b->inf;
	const struct resume_point *p = &inf->point;
	uint64_t left = inf->zpos - p->zoff;

	job->span = (struct index_span){
		.len = (uint32_t)inf->pos,
		.zoff = p->zoff,
		.preamble_len = (uint16_t)p->preamble_len,
		.skip = (uint8_t)p->skip,
		.has_window = p->window_len > 0,
	};
	job->crcs_len = (size_t)(put_pieces(b, job->crcs) - job->crcs);
	memcpy(&job->point, p, sizeof(*p));
	job->raw_len = job->out_len = 0;
	if (!p->window_len)
		return 0;
	job->raw_len = left < CHECKPOINTS_WINDOW_RAW ? (size_t)left
						     : CHECKPOINTS_WINDOW_RAW;
	job->out_len = inf->pos < RESUME_WINDOW ? inf->pos : RESUME_WINDOW;
	memcpy(job->out, inf->span, job->out_len);
	return disk_pread(fd, job->bytes, job->raw_len,
			  b->stream.data_off + p->zoff);
}

static int next_job(struct checkpoints_builder *b,
		    struct checkpoints_window **job)
{
	int ret;

	do {
		ret = write_first(b, false);
	} while (ret > 0);
	*job = checkpoints_windows_next(b->windows);
	if (ret < 0 || *job)
		return ret;
	ret = write_first(b, true);
	*job = checkpoints_windows_next(b->windows);
	return ret < 0 ? ret : 0;
}

/* The span in the buffer is complete: hand it out, and its window on. */
static int close_span(struct checkpoints_builder *b, int fd,
		      checkpoints_sink_fn *sink, void *arg)
{
	struct inflater *inf = b->inf;
	struct checkpoints_window *job;
	int err;

	err = next_job(b, &job);
	if (!err)
		err = fill_job(b, fd, job);
	if (err)
		return err;
	checkpoints_windows_put(b->windows);
	b->stream.spans++;
	if (sink)
		err = sink(arg, (unsigned int)b->member + 1, inf->start,
			   inf->span, inf->pos);
	return err;
}

static void begin_span(struct inflater *inf)
{
	inf->emptied = false;
	inf->in_step = inf->has_changed = false;
	inf->step = STEP_COARSE;
	inf->steps = 0;
}

/* The next span begins where this one ended. */
static void open_span(struct inflater *inf)
{
	struct resume_point *p = &inf->next;

	assert(inf->pos >= RESUME_WINDOW);
	p->window_len = RESUME_WINDOW;
	memcpy(p->window, inf->span + inf->pos - RESUME_WINDOW, RESUME_WINDOW);
	memcpy(&inf->point, p, sizeof(*p));
	inf->start += inf->pos;
	inf->pos = 0;
	begin_span(inf);
}

/* ---- the header of the block a span ends in ---- */

/* Feeds @n raw bytes from @m on, and throws away what they decode to. */
static int replay_bytes(struct checkpoints_builder *b, int fd, struct mark *m,
			uint64_t n)
{
	struct inflater *inf = b->inf;
	struct inflate_state *s = &m->state;
	uint64_t end = m->zpos + n;
	bool more = true;

	while (m->zpos < end || more) {
		uint32_t avail = 0;

		if (m->zpos < end) {
			int err = fill(b, fd, m->zpos, inf->zpos);
			size_t at;

			if (err)
				return err;
			at = (size_t)(m->zpos - b->in_off);
			avail = (uint32_t)(b->in_len - at);
			if (avail > end - m->zpos)
				avail = (uint32_t)(end - m->zpos);
			s->next_in = b->in + at;
		}
		s->avail_in = avail;
		s->next_out = inf->replay_out;
		s->avail_out = REPLAY_OUT;
		if (isal_inflate(s) < 0)
			return -EBADMSG;
		m->zpos += avail - s->avail_in;
		more = s->avail_out == 0;
	}
	return 0;
}

/* By a guess the bytes may be anything; what the directory says is deflated and
 * was decoded up to here has one. */
static int no_header(const struct checkpoints_builder *b)
{
	return b->awaited ? -EBADMSG : -EIO;
}

/*
 * Of the steps of @step bytes from inf->changed on up to @end, moves
 * inf->changed to the beginning of the last over which the codes changed.
 */
static int last_change(struct checkpoints_builder *b, int fd, uint64_t end,
		       uint32_t step)
{
	struct inflater *inf = b->inf;
	struct mark *now = inf->before;
	bool found = false;
	int err = 0;

	mark_copy(now, inf->changed);
	while (!err && now->zpos < end) {
		uint64_t n = end - now->zpos < step ? end - now->zpos : step;

		mark_copy(inf->spare, now);
		err = replay_bytes(b, fd, now, n);
		if (!err &&
		    !resume_same_codes(&now->state, &inf->spare->state)) {
			mark_swap(&inf->spare, &inf->changed);
			found = true;
		}
	}
	return !err && !found ? no_header(b) : err;
}

/* Reads the header that begins at @bit of the member into inf->header. */
static int read_header(struct checkpoints_builder *b, int fd, uint64_t bit)
{
	unsigned char raw[ISAL_DEF_MAX_HDR_SIZE + 1];
	uint64_t left = b->inf->zpos - bit / 8; /* it was decoded */
	size_t n = left < sizeof(raw) ? (size_t)left : sizeof(raw);
	int err = disk_pread(fd, raw, n, b->stream.data_off + bit / 8);

	if (err)
		return err;
	return resume_read_header(&b->inf->header, raw, n, bit % 8,
				  &b->inf->scratch)
		       ? 0
		       : no_header(b);
}

/*
 * The header of the dynamic block the decoder is in: the last in this span
 * that changed the codes, or else the one this span began with. A header that
 * repeats the codes of the one before is not seen, and does not matter: of a
 * span that begins without a header of its own the decoder knows no codes.
 *
 * That step is decoded again, in steps that become smaller. A header is longer
 * than the last of them, one byte, so that the decoder then stands at its
 * beginning.
 */
static int find_header(struct checkpoints_builder *b, int fd)
{
	struct inflater *inf = b->inf;
	uint64_t end;
	int err;

	end_step(inf);
	if (!inf->has_changed)
		return inf->header.n ? 0 : no_header(b);
	end = inf->changed_end;
	for (uint32_t step = REPLAY_COARSE; step; step /= STEP_FACTOR) {
		err = last_change(b, fd, end, step);
		if (err)
			return err;
		if (end > inf->changed->zpos + step)
			end = inf->changed->zpos + step;
	}
	if (!resume_at_boundary(&inf->changed->state))
		return no_header(b);
	return read_header(
		b, fd, resume_bit(&inf->changed->state, inf->changed->zpos));
}

/* The span ends where the decoder stands, which has given out all it has. */
static int capture(struct checkpoints_builder *b, int fd)
{
	struct inflater *inf = b->inf;
	enum resume_block block;
	int err = 0;

	if (resume_at_boundary(&inf->state)) {
		inf->header.n = 0;
		resume_capture_boundary(&inf->next, &inf->state, inf->zpos);
		resume_forget_codes(&inf->state);
		return 0;
	}
	block = resume_block(&inf->state, &inf->scratch);
	if (block == RESUME_DYNAMIC) {
		err = find_header(b, fd);
		b->in_len = 0; /* was filled as far as the decoder stands */
	} else {
		inf->header.n = 0;
	}
	if (err)
		return err;
	resume_capture_block(&inf->next, &inf->state, inf->zpos, block,
			     &inf->header);
	if (block == RESUME_STORED)
		resume_forget_codes(&inf->state);
	return 0;
}

/* ---- the hunt for the end of a span ---- */

/* Takes larger steps again once small ones have covered a larger one. */
static void step_taken(struct inflater *inf)
{
	if (++inf->steps < STEP_FACTOR || inf->step >= STEP_COARSE)
		return;
	inf->step *= STEP_FACTOR;
	inf->steps = 0;
}

static void step_back(struct inflater *inf, uint32_t smaller)
{
	undo_step(inf);
	inf->step = smaller;
	inf->steps = 0;
}

/* One step of it. *ended: the span ends where the decoder stands now. */
static int hunt(struct checkpoints_builder *b, int fd, bool *ended)
{
	struct inflater *inf = b->inf;
	size_t pos = inf->pos;
	int err;

	if (inf->emptied)
		begin_step(inf);
	err = inflate_some(b, fd, inf->emptied ? inf->step : 0,
			   CHECKPOINTS_SPAN - (uint32_t)inf->pos);
	if (err)
		return err;
	if (inf->pos == CHECKPOINTS_SPAN) { /* and it may hold more */
		assert(inf->emptied);
		*ended = inf->step == 1;
		step_back(inf, *ended ? 1 : inf->step / STEP_FACTOR);
		return 0;
	}
	*ended = resume_at_boundary(&inf->state);
	if (*ended)
		return 0;
	/* The member is longer than this span. */
	if (inf->state.block_state == ISAL_BLOCK_FINISH)
		return -EBADMSG;
	if (!inf->emptied) {
		inf->emptied = true;
		return 0;
	}
	if (starved(b, pos))
		return -EBADMSG;
	if (inf->step > STEP_FINE &&
	    !resume_same_codes(&inf->state, &inf->before->state))
		step_back(inf, inf->step / STEP_FACTOR);
	else
		step_taken(inf);
	return 0;
}

static int begin_deflated(struct checkpoints_builder *b)
{
	struct inflater *inf = b->inf;

	if (!inf) {
		/* Aligned for the decoder; most of it need not be cleared. */
		inf = aligned_alloc(64, (sizeof(*inf) + 63) / 64 * 64);
		if (!inf)
			return -ENOMEM;
		b->inf = inf;
		inf->before = &inf->marks[0];
		inf->changed = &inf->marks[1];
		inf->spare = &inf->marks[2];
	}
	inf->point.zoff = 0;
	inf->point.preamble_len = 0;
	inf->point.skip = 0;
	inf->point.window_len = 0;
	inf->header.n = 0;
	inf->pos = 0;
	inf->start = 0;
	inf->zpos = 0;
	begin_span(inf);
	return resume_start(&inf->state, &inf->point) ? 0 : -EIO;
}

/* The decoder has come to the end of the stream. */
static int end_deflated(struct checkpoints_builder *b, int fd,
			checkpoints_sink_fn *sink, void *arg)
{
	struct inflater *inf = b->inf;
	uint64_t read_ahead = (uint64_t)inf->state.read_in_length / 8;
	int err = 0;

	if (inf->start + inf->pos != b->stream.size ||
	    inf->zpos - read_ahead != b->stream.csize)
		return -EBADMSG;
	if (inf->pos)
		err = close_span(b, fd, sink, arg);
	return err ? err : write_rest(b);
}

/* In the last span of a member there is nothing to hunt for: on to its end,
 * and one byte beyond to see that there is none. */
static int inflate_last(struct checkpoints_builder *b, int fd)
{
	struct inflater *inf = b->inf;
	size_t rest = (size_t)(b->stream.size - inf->start);
	size_t pos = inf->pos;
	int err;

	err = inflate_some(b, fd, IN_BYTES,
			   (uint32_t)(pos < rest ? rest - pos : 1));
	if (err)
		return err;
	if (inf->pos > rest)
		return -EBADMSG;
	return starved(b, pos) && inf->state.block_state != ISAL_BLOCK_FINISH
		       ? -EBADMSG
		       : 0;
}

/* One call of the decoder and what follows from it. 1: more to come. */
static int step_deflated(struct checkpoints_builder *b, int fd,
			 checkpoints_sink_fn *sink, void *arg)
{
	struct inflater *inf = b->inf;
	size_t pos = inf->pos;
	bool ended = false;
	int err;

	if (b->stream.size - inf->start <= CHECKPOINTS_SPAN) {
		err = inflate_last(b, fd);
		if (!err && inf->state.block_state == ISAL_BLOCK_FINISH)
			return end_deflated(b, fd, sink, arg);
		return err ? err : 1;
	}
	if (pos >= HUNT_FROM) {
		err = hunt(b, fd, &ended);
	} else {
		begin_step(inf);
		err = inflate_some(b, fd, STEP_LARGE,
				   HUNT_FROM - (uint32_t)pos);
		if (!err && (starved(b, pos) ||
			     inf->state.block_state == ISAL_BLOCK_FINISH))
			err = -EBADMSG;
	}
	if (err)
		return err;
	if (ended) {
		err = capture(b, fd);
		if (!err)
			err = close_span(b, fd, sink, arg);
		if (err)
			return err;
		open_span(inf);
	}
	return 1;
}

/* ---- a stored member ---- */

static int begin_stored(struct checkpoints_builder *b)
{
	pieces_reset(&b->stored);
	return b->stream.size == b->stream.csize ? 0 : -EBADMSG;
}

static int step_stored(struct checkpoints_builder *b, int fd,
		       checkpoints_sink_fn *sink, void *arg)
{
	uint64_t at = b->stored.total;
	int err;

	if (at == b->stream.size) {
		b->stream.spans =
			(at + CHECKPOINTS_SPAN - 1) / CHECKPOINTS_SPAN;
		return append_pieces(b, &b->stored, &b->stream.crc_off);
	}
	err = fill(b, fd, at, b->stream.size);
	if (!err)
		err = pieces_add(&b->stored, b->in, b->in_len);
	if (err)
		return err;
	b->crc = crc32_gzip_refl(b->crc, b->in, b->in_len);
	if (sink)
		err = sink(arg, (unsigned int)b->member + 1, at, b->in,
			   b->in_len);
	return err ? err : 1;
}

/* ---- all members ---- */

static enum index_kind kind_of(const struct archive_member *m)
{
	if (m->is_dir)
		return INDEX_FOLDER;
	if (m->encrypted)
		return INDEX_UNREADABLE;
	if (m->method == ARCHIVE_METHOD_STORED)
		return INDEX_STORED;
	if (m->method == ARCHIVE_METHOD_DEFLATE)
		return INDEX_DEFLATED;
	return INDEX_UNREADABLE;
}

/* The member @b->member. NULL where there is no other, or not known yet. */
static const struct archive_member *the_member(struct checkpoints_builder *b)
{
	if (b->directory)
		return b->member < b->directory->n
			       ? &b->directory->members[b->member]
			       : NULL;
	return b->guessed && b->member == 0 ? &b->guess : NULL;
}

static int begin_member(struct checkpoints_builder *b,
			const struct archive_member *m)
{
	struct index_stream *s = &b->stream;

	memset(s, 0, sizeof(*s));
	s->kind = kind_of(m);
	s->size = m->size;
	b->crc = 0;
	b->in_len = 0;
	if (s->kind == INDEX_FOLDER || s->kind == INDEX_UNREADABLE)
		return 0;
	s->csize = m->csize;
	s->data_off = b->offsets ? b->offsets[b->member] : b->guess_off;
	if (s->data_off == UINT64_MAX)
		return -EBADMSG;
	if (s->kind == INDEX_STORED)
		return begin_stored(b);
	s->first_span = b->spans.n / INDEX_SPAN_BYTES;
	return begin_deflated(b);
}

static int end_member(struct checkpoints_builder *b,
		      const struct archive_member *m)
{
	bool read = b->stream.kind == INDEX_STORED ||
		    b->stream.kind == INDEX_DEFLATED;

	if (read && b->crc != m->crc32)
		return -EBADMSG;
	b->begun = false;
	b->member++;
	return index_file_add_stream(&b->streams, &b->stream);
}

static int step_member(struct checkpoints_builder *b,
		       const struct archive_member *m, int fd,
		       checkpoints_sink_fn *sink, void *arg)
{
	int ret = 0;

	if (!b->begun) {
		ret = begin_member(b, m);
		if (ret)
			return ret;
		b->begun = true;
	}
	if (b->stream.kind == INDEX_STORED)
		ret = step_stored(b, fd, sink, arg);
	else if (b->stream.kind == INDEX_DEFLATED)
		ret = step_deflated(b, fd, sink, arg);
	return ret ? ret : end_member(b, m);
}

/* ---- before the directory, and when it comes ---- */

void checkpoints_builder_guess(struct checkpoints_builder *b,
			       const struct archive_member *first,
			       uint64_t data_off)
{
	assert(!b->directory && !b->awaited);
	b->guess = *first;
	b->guess.name = NULL;
	b->guess_off = data_off;
	b->guessed = b->awaited = true;
}

void checkpoints_builder_directory(struct checkpoints_builder *b,
				   const struct archive_directory *directory)
{
	assert(!b->directory);
	b->directory = directory;
	b->awaited = false;
}

/* To where it began, but for what it has of stream 0. */
static int drop_guess(struct checkpoints_builder *b)
{
	checkpoints_windows_clear(b->windows);
	b->guessed = false;
	b->begun = false;
	b->member = 0;
	b->streams.n = INDEX_STREAM_BYTES;
	b->spans.n = 0;
	b->end = INDEX_HEADER_BYTES;
	b->written_back = 0;
	return ftruncate(b->fd, 0) ? -errno : 0;
}

static bool guess_holds(const struct checkpoints_builder *b)
{
	const struct archive_member *m = b->directory->members;
	const struct archive_member *g = &b->guess;

	return b->directory->n > 0 && b->offsets[0] == b->guess_off &&
	       m->size == g->size && m->csize == g->csize &&
	       m->crc32 == g->crc32 && m->method == g->method &&
	       m->encrypted == g->encrypted && m->is_dir == g->is_dir;
}

static int find_members(struct checkpoints_builder *b, int fd)
{
	size_t n = b->directory->n;
	uint64_t *offsets = calloc(n ? n : 1, sizeof(*offsets));
	int err;

	if (!offsets)
		return -ENOMEM;
	err = archive_data_offsets(offsets, n, fd, b->size);
	if (err) {
		free(offsets);
		return err;
	}
	b->offsets = offsets;
	return b->guessed && !guess_holds(b) ? drop_guess(b) : 0;
}

/* Decoded bytes of the member under way. */
static uint64_t progress(const struct checkpoints_builder *b)
{
	if (b->stream.kind == INDEX_STORED)
		return b->stored.total;
	return b->inf ? b->inf->start + b->inf->pos : 0;
}

/* What is known of the members, up to @budget. */
static int step_members(struct checkpoints_builder *b, int fd, uint64_t budget,
			checkpoints_sink_fn *sink, void *arg)
{
	const struct archive_member *m;
	uint64_t spent = 0;

	while ((m = the_member(b))) {
		uint64_t before = b->begun ? progress(b) : 0, after;
		int ret;

		if (spent > 0 && spent >= budget)
			return 1;
		ret = step_member(b, m, fd, sink, arg);
		if (ret < 0)
			return ret;
		after = progress(b);
		spent += CALL_COST;
		if (after > before)
			spent += after - before;
	}
	return 0;
}

int checkpoints_builder_step(struct checkpoints_builder *b, int fd,
			     uint64_t size, uint64_t budget,
			     checkpoints_sink_fn *sink, void *arg)
{
	int ret = 0;

	b->size = size;
	if (b->directory && !b->offsets) {
		ret = find_members(b, fd);
		if (ret)
			return ret;
	}
	ret = step_members(b, fd, budget, sink, arg);
	if (ret == -EBADMSG && b->awaited)
		/* Of the guess, or of the bytes: the directory will tell. */
		ret = drop_guess(b);
	if (ret == 0 && b->awaited)
		ret = -EAGAIN;
	if (ret == -EAGAIN) { /* there is time */
		int err = write_rest(b);

		ret = err ? err : ret;
	}
	return ret;
}

bool checkpoints_builder_help(struct checkpoints_builder *b)
{
	return checkpoints_windows_help(b->windows);
}

int checkpoints_builder_finish(struct checkpoints_builder *b,
			       const struct checkpoints_id *id)
{
	struct index_stream raw = {
		.kind = INDEX_RAW,
		.size = b->raw.total,
		.csize = b->raw.total,
	};
	int err;

	if (b->raw.total != id->size || b->awaited ||
	    (b->directory && b->member < b->directory->n))
		return -EINVAL;
	raw.spans = (raw.size + CHECKPOINTS_SPAN - 1) / CHECKPOINTS_SPAN;
	err = append_pieces(b, &b->raw, &raw.crc_off);
	if (err)
		return err;
	index_file_set_stream(&b->streams, 0, &raw);
	err = index_file_seal(b->fd, b->end, &b->streams, &b->spans, id);
	if (err)
		return err;
	err = disk_sync_data(b->fd);
	if (err)
		return err;
	b->sealed = true;
	return 0;
}

void checkpoints_builder_free(struct checkpoints_builder *b)
{
	if (!b)
		return;
	if (!b->sealed)
		unlinkat(b->dirfd, b->tmp_name, 0);
	close(b->fd);
	free(b->tmp_name);
	free(b->offsets);
	index_file_free(&b->streams);
	index_file_free(&b->spans);
	free(b->raw.crcs);
	free(b->stored.crcs);
	free(b->inf);
	checkpoints_windows_free(b->windows);
	free(b);
}

#include "cache/index_file.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/disk.h"
#include "cache/resume.h"

static const char magic[8] = "tickfsix";
enum { VERSION = 2, SUMMED_BYTES = 96 };

static void put(unsigned char *p, uint64_t v, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		p[i] = (unsigned char)(v >> 8 * i);
}

static uint64_t get(const unsigned char *p, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

void index_file_put_crc(unsigned char out[4], uint32_t crc)
{
	put(out, crc, 4);
}

uint32_t index_file_get_crc(const unsigned char in[4])
{
	return (uint32_t)get(in, 4);
}

static unsigned char *table_grow(struct index_table *t, size_t bytes)
{
	unsigned char *p;

	if (t->cap - t->n < bytes) {
		size_t cap = t->cap ? t->cap * 2 : 1024;

		p = realloc(t->data, cap);
		if (!p)
			return NULL;
		t->data = p;
		t->cap = cap;
	}
	p = t->data + t->n;
	memset(p, 0, bytes);
	t->n += bytes;
	return p;
}

static void put_stream(unsigned char *p, const struct index_stream *s)
{
	put(p, s->kind, 4);
	put(p + 8, s->size, 8);
	put(p + 16, s->csize, 8);
	put(p + 24, s->data_off, 8);
	put(p + 32, s->kind == INDEX_DEFLATED ? s->first_span : s->crc_off, 8);
	put(p + 40, s->spans, 8);
}

int index_file_add_stream(struct index_table *t, const struct index_stream *s)
{
	unsigned char *p = table_grow(t, INDEX_STREAM_BYTES);

	if (!p)
		return -ENOMEM;
	put_stream(p, s);
	return 0;
}

void index_file_set_stream(struct index_table *t, size_t i,
			   const struct index_stream *s)
{
	put_stream(t->data + i * INDEX_STREAM_BYTES, s);
}

int index_file_add_span(struct index_table *t, const struct index_span *s)
{
	unsigned char *p = table_grow(t, INDEX_SPAN_BYTES);

	if (!p)
		return -ENOMEM;
	put(p, s->len, 4);
	put(p + 4, s->blob_len, 4);
	put(p + 8, s->blob_off, 8);
	put(p + 16, s->zoff, 8);
	put(p + 24, s->crc, 4);
	put(p + 28, s->preamble_len, 2);
	put(p + 30, s->skip, 1);
	put(p + 31, s->has_window, 1);
	return 0;
}

void index_file_free(struct index_table *t)
{
	free(t->data);
	memset(t, 0, sizeof(*t));
}

static void get_stream(struct index_stream *s, const unsigned char *p)
{
	uint64_t at = get(p + 32, 8);

	memset(s, 0, sizeof(*s));
	s->kind = (enum index_kind)get(p, 4);
	s->size = get(p + 8, 8);
	s->csize = get(p + 16, 8);
	s->data_off = get(p + 24, 8);
	if (s->kind == INDEX_DEFLATED)
		s->first_span = at;
	else
		s->crc_off = at;
	s->spans = get(p + 40, 8);
}

static void get_span(struct index_span *s, const unsigned char *p)
{
	s->len = (uint32_t)get(p, 4);
	s->blob_len = (uint32_t)get(p + 4, 4);
	s->blob_off = get(p + 8, 8);
	s->zoff = get(p + 16, 8);
	s->crc = (uint32_t)get(p + 24, 4);
	s->preamble_len = (uint16_t)get(p + 28, 2);
	s->skip = (uint8_t)get(p + 30, 1);
	s->has_window = (uint8_t)get(p + 31, 1);
}

/* SHA-256 over the parts of a file that say where the rest is. */
struct part {
	const void *data;
	size_t len;
};

static int digest(unsigned char out[32], const struct part *parts, size_t n)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

	for (size_t i = 0; ok && i < n; i++)
		ok = EVP_DigestUpdate(ctx, parts[i].data, parts[i].len);
	ok = ok && EVP_DigestFinal_ex(ctx, out, NULL);
	EVP_MD_CTX_free(ctx);
	return ok ? 0 : -ENOMEM;
}

int index_file_seal(int fd, uint64_t tables_off,
		    const struct index_table *streams,
		    const struct index_table *spans,
		    const struct checkpoints_id *id)
{
	unsigned char header[INDEX_HEADER_BYTES] = {0};
	const struct part parts[] = {
		{header, SUMMED_BYTES},
		{streams->data, streams->n},
		{spans->data, spans->n},
	};
	int err;

	memcpy(header, magic, sizeof(magic));
	put(header + 8, VERSION, 4);
	put(header + 12, streams->n / INDEX_STREAM_BYTES, 4);
	put(header + 16, spans->n / INDEX_SPAN_BYTES, 8);
	put(header + 24, tables_off, 8);
	put(header + 32, id->size, 8);
	memcpy(header + 40, id->sha256, sizeof(id->sha256));
	err = digest(header + SUMMED_BYTES, parts, 3);
	if (!err)
		err = disk_pwrite(fd, streams->data, streams->n, tables_off);
	if (!err)
		err = disk_pwrite(fd, spans->data, spans->n,
				  tables_off + streams->n);
	if (!err)
		err = disk_pwrite(fd, header, sizeof(header), 0);
	return err;
}

/* ---- reading; nothing is trusted ---- */

struct shape {
	uint64_t file_size, tables_off, object_size;
	uint64_t streams, spans;
	unsigned char sum[32];
};

static int parse_header(struct shape *sh, const unsigned char *h,
			const struct checkpoints_id *id)
{
	uint64_t tables_len;

	if (memcmp(h, magic, sizeof(magic)) || get(h + 8, 4) != VERSION)
		return -EBADMSG;
	if (get(h + 32, 8) != id->size ||
	    memcmp(h + 40, id->sha256, sizeof(id->sha256)))
		return -EBADMSG;
	sh->object_size = id->size;
	sh->streams = get(h + 12, 4);
	sh->spans = get(h + 16, 8);
	sh->tables_off = get(h + 24, 8);
	memcpy(sh->sum, h + SUMMED_BYTES, sizeof(sh->sum));
	if (sh->streams < 1 || sh->streams > ARCHIVE_MEMBERS_MAX + 1)
		return -EBADMSG;
	if (sh->tables_off < INDEX_HEADER_BYTES ||
	    sh->tables_off > sh->file_size)
		return -EBADMSG;
	tables_len = sh->file_size - sh->tables_off;
	if (sh->spans > tables_len / INDEX_SPAN_BYTES ||
	    tables_len != sh->streams * INDEX_STREAM_BYTES +
				  sh->spans * INDEX_SPAN_BYTES)
		return -EBADMSG;
	return 0;
}

/* Is [@off, @off + @len) within the blobs? */
static bool in_blobs(const struct shape *sh, uint64_t off, uint64_t len)
{
	return off >= INDEX_HEADER_BYTES && off <= sh->tables_off &&
	       len <= sh->tables_off - off;
}

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static bool flat_stream_ok(const struct shape *sh, const struct index_stream *s)
{
	return s->size == s->csize &&
	       s->spans == ceil_div(s->size, CHECKPOINTS_SPAN) &&
	       in_blobs(sh, s->crc_off,
			ceil_div(s->size, CHECKPOINTS_PIECE) * 4);
}

/* @next: the first span record that no stream before has claimed. */
static bool stream_ok(const struct shape *sh, const struct index_stream *s,
		      size_t i, uint64_t next)
{
	if ((s->kind == INDEX_RAW) != (i == 0))
		return false;
	if (s->size > INT64_MAX || s->data_off > sh->object_size ||
	    s->csize > sh->object_size - s->data_off)
		return false;
	switch (s->kind) {
	case INDEX_RAW:
		return s->data_off == 0 && s->size == sh->object_size &&
		       flat_stream_ok(sh, s);
	case INDEX_STORED:
		return flat_stream_ok(sh, s);
	case INDEX_DEFLATED:
		return s->first_span == next && s->spans <= sh->spans - next;
	case INDEX_UNREADABLE:
	case INDEX_FOLDER:
		return s->spans == 0;
	}
	return false;
}

static uint64_t pieces_of(uint64_t len)
{
	return ceil_div(len, CHECKPOINTS_PIECE);
}

static bool span_ok(const struct shape *sh, const struct index_stream *st,
		    const struct index_span *s)
{
	uint64_t fixed = pieces_of(s->len) * 4 + s->preamble_len;

	if (s->len == 0 || s->len > CHECKPOINTS_SPAN || s->zoff > st->csize)
		return false;
	if (s->preamble_len > RESUME_PREAMBLE_MAX || s->skip > 7 ||
	    s->has_window > 1 || (s->skip && !s->preamble_len))
		return false;
	if (!in_blobs(sh, s->blob_off, s->blob_len))
		return false;
	return s->has_window ? s->blob_len > fixed : s->blob_len == fixed;
}

/* The spans of one stream: in order, without a gap, and all of it. */
static bool spans_ok(const struct shape *sh, const struct index_stream *st,
		     const struct index_span *spans, uint64_t *starts)
{
	uint64_t start = 0, zoff = 0;

	for (uint64_t i = st->first_span; i < st->first_span + st->spans; i++) {
		if (!span_ok(sh, st, &spans[i]) || spans[i].zoff < zoff ||
		    spans[i].len > st->size - start)
			return false;
		starts[i] = start;
		start += spans[i].len;
		if (spans[i].len < CHECKPOINTS_SPAN_MIN && start < st->size)
			return false;
		zoff = spans[i].zoff;
	}
	return start == st->size;
}

static int parse_tables(const struct shape *sh, const unsigned char *p,
			struct index_stream *streams, struct index_span *spans,
			uint64_t *starts)
{
	const unsigned char *q = p + sh->streams * INDEX_STREAM_BYTES;
	uint64_t next = 0;

	for (uint64_t i = 0; i < sh->spans; i++)
		get_span(&spans[i], q + i * INDEX_SPAN_BYTES);
	for (uint64_t i = 0; i < sh->streams; i++) {
		struct index_stream *s = &streams[i];

		get_stream(s, p + i * INDEX_STREAM_BYTES);
		if (!stream_ok(sh, s, i, next))
			return -EBADMSG;
		if (s->kind != INDEX_DEFLATED)
			continue;
		if (!spans_ok(sh, s, spans, starts))
			return -EBADMSG;
		next += s->spans;
	}
	return next == sh->spans ? 0 : -EBADMSG;
}

int index_file_read(int fd, const struct checkpoints_id *id,
		    struct index_stream **streams, size_t *n_streams,
		    struct index_span **spans, uint64_t **starts,
		    size_t *n_spans)
{
	unsigned char header[INDEX_HEADER_BYTES], sum[32];
	struct part parts[2];
	struct index_stream *st = NULL;
	struct index_span *sp = NULL;
	uint64_t *at = NULL;
	unsigned char *tables = NULL;
	struct shape sh;
	struct stat sb;
	size_t len;
	int err;

	if (fstat(fd, &sb))
		return -errno;
	if (sb.st_size < INDEX_HEADER_BYTES)
		return -EBADMSG;
	sh.file_size = (uint64_t)sb.st_size;
	err = disk_pread(fd, header, sizeof(header), 0);
	if (!err)
		err = parse_header(&sh, header, id);
	if (err)
		return err;
	len = (size_t)(sh.file_size - sh.tables_off);
	tables = malloc(len);
	st = calloc(sh.streams, sizeof(*st));
	sp = calloc(sh.spans ? sh.spans : 1, sizeof(*sp));
	at = calloc(sh.spans ? sh.spans : 1, sizeof(*at));
	err = tables && st && sp && at ? 0 : -ENOMEM;
	if (!err)
		err = disk_pread(fd, tables, len, sh.tables_off);
	if (err)
		goto out;
	parts[0] = (struct part){header, SUMMED_BYTES};
	parts[1] = (struct part){tables, len};
	err = digest(sum, parts, 2);
	if (!err && memcmp(sum, sh.sum, sizeof(sum)))
		err = -EBADMSG;
	if (!err)
		err = parse_tables(&sh, tables, st, sp, at);
	if (err)
		goto out;
	*streams = st;
	*n_streams = sh.streams;
	*spans = sp;
	*starts = at;
	*n_spans = sh.spans;
	st = NULL;
	sp = NULL;
	at = NULL;
out:
	free(tables);
	free(st);
	free(sp);
	free(at);
	return err;
}

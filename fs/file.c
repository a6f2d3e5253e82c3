#include "fs/file.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
	/* Requests of read-ahead reach us out of order, but not by more. */
	NEAR_BYTES = 2 << 20,
	/* A reader is sequential from so many bytes in a row on. */
	STREAK_BYTES = 256 << 10,
};

/* What handles read from: an object by way of the pool, or bytes in memory. It
 * outlives the handle as long as a reply is being made of it. */
struct source {
	struct pool_source pool;
	struct store_object *object; /* or NULL, and then: */
	char *text;
	unsigned int refs; /* protected by files->lock */
	struct source *next;
};

struct files {
	struct pool *pool;
	unsigned int ahead;
	pthread_mutex_t lock;
	struct source *sources; /* protected by lock */
};

struct file {
	struct files *fs;
	unsigned int stream;
	uint64_t size;
	int64_t mtime;
	struct source *source;	   /* protected by fs->lock */
	uint64_t expected, streak; /* likewise: of a sequential reader */
};

int file_table_create(struct files **out, struct pool *pool, unsigned int ahead)
{
	struct files *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return -ENOMEM;
	fs->pool = pool;
	fs->ahead = ahead;
	pthread_mutex_init(&fs->lock, NULL);
	*out = fs;
	return 0;
}

void file_table_free(struct files *fs)
{
	if (!fs)
		return;
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

/* ---- sources ---- */

/* Takes over the reference to @o. */
static struct source *source_get(struct files *fs, struct store_object *o)
{
	struct source *s;

	pthread_mutex_lock(&fs->lock);
	for (s = fs->sources; s && s->object != o; s = s->next)
		;
	if (s) {
		s->refs++;
		store_release(o);
	} else {
		s = calloc(1, sizeof(*s));
		if (s) {
			s->object = o;
			s->pool.index = store_object_index(o);
			s->pool.fd = store_object_fd(o);
			s->refs = 1;
			s->next = fs->sources;
			fs->sources = s;
		} else {
			store_release(o);
		}
	}
	pthread_mutex_unlock(&fs->lock);
	return s;
}

/* Under lock; a text's source is on no list. */
static void unlist_locked(struct files *fs, struct source *s)
{
	struct source **link = &fs->sources;

	while (*link && *link != s)
		link = &(*link)->next;
	if (*link)
		*link = s->next;
}

static void source_put(struct files *fs, struct source *s)
{
	bool last;

	if (!s)
		return;
	pthread_mutex_lock(&fs->lock);
	last = --s->refs == 0;
	if (last)
		unlist_locked(fs, s);
	pthread_mutex_unlock(&fs->lock);
	if (!last)
		return;
	if (s->object)
		pool_source_close(fs->pool, &s->pool);
	store_release(s->object);
	free(s->text);
	free(s);
}

static void source_ref(struct files *fs, struct source *s)
{
	pthread_mutex_lock(&fs->lock);
	s->refs++;
	pthread_mutex_unlock(&fs->lock);
}

static struct source *source_of(struct file *f)
{
	struct source *s;

	pthread_mutex_lock(&f->fs->lock);
	s = f->source;
	s->refs++;
	pthread_mutex_unlock(&f->fs->lock);
	return s;
}

/* ---- handles ---- */

int file_open_text(struct files *fs, const char *text, size_t len,
		   int64_t mtime, struct file **out)
{
	struct file *f = calloc(1, sizeof(*f));
	struct source *s = calloc(1, sizeof(*s));

	if (s)
		s->text = malloc(len ? len : 1);
	if (!f || !s || !s->text) {
		free(s);
		free(f);
		return -ENOMEM;
	}
	if (len)
		memcpy(s->text, text, len);
	s->refs = 1;
	f->fs = fs;
	f->source = s;
	f->size = len;
	f->mtime = mtime;
	*out = f;
	return 0;
}

static int open_small(struct files *fs, struct store_object *o, int64_t mtime,
		      struct file **out)
{
	const void *data;
	size_t len;
	int err;

	data = store_object_small(o, &len);
	err = data ? file_open_text(fs, data, len, mtime, out) : -EIO;
	store_release(o);
	return err;
}

int file_open(struct files *fs, struct store_object *o, unsigned int stream,
	      int64_t mtime, struct file **out)
{
	const struct checkpoints *index = store_object_index(o);
	struct file *f;
	uint64_t size;
	int err;

	if (!index)
		return open_small(fs, o, mtime, out);
	err = checkpoints_stream_size(index, stream, &size);
	if (err) {
		store_release(o);
		return err;
	}
	f = calloc(1, sizeof(*f));
	if (!f) {
		store_release(o);
		return -ENOMEM;
	}
	f->fs = fs;
	f->stream = stream;
	f->size = size;
	f->mtime = mtime;
	f->source = source_get(fs, o);
	if (!f->source) {
		free(f);
		return -ENOMEM;
	}
	*out = f;
	return 0;
}

void file_close(struct file *f)
{
	if (!f)
		return;
	source_put(f->fs, f->source);
	free(f);
}

uint64_t file_size(const struct file *f)
{
	return f->size;
}

int64_t file_mtime(const struct file *f)
{
	return f->mtime;
}

struct store_object *file_object(struct file *f)
{
	struct store_object *o = NULL;

	pthread_mutex_lock(&f->fs->lock);
	if (f->source->object)
		o = store_ref(f->source->object);
	pthread_mutex_unlock(&f->fs->lock);
	return o;
}

int file_replace(struct file *f, struct store_object *o)
{
	struct source *before, *now;
	uint64_t size;

	if (!store_object_index(o) ||
	    checkpoints_stream_size(store_object_index(o), f->stream, &size) ||
	    size != f->size) {
		store_release(o);
		return -EBADMSG;
	}
	now = source_get(f->fs, o);
	if (!now)
		return -ENOMEM;
	pthread_mutex_lock(&f->fs->lock);
	before = f->source;
	f->source = now;
	pthread_mutex_unlock(&f->fs->lock);
	source_put(f->fs, before);
	return 0;
}

/* ---- reading ---- */

/* Does this read go on where the last ones were? Then what follows will be
 * wanted too. */
static bool is_sequential(struct file *f, size_t len, uint64_t off)
{
	bool near, sequential;

	pthread_mutex_lock(&f->fs->lock);
	near = off <= f->expected + NEAR_BYTES &&
	       off + NEAR_BYTES >= f->expected;
	f->streak = near ? f->streak + len : 0;
	if (!near || off + len > f->expected)
		f->expected = off + len;
	sequential = f->streak >= STREAK_BYTES;
	pthread_mutex_unlock(&f->fs->lock);
	return sequential;
}

static void add_part(struct file_bytes *b, const struct pool_span *s,
		     uint64_t off, size_t len)
{
	b->part[b->n].data = s->data + (off - s->start);
	b->part[b->n].len = len;
	b->n++;
}

static int pin_all(struct files *fs, struct source *s, unsigned int stream,
		   size_t len, uint64_t off, struct file_bytes *b,
		   struct pool_waiter *w)
{
	struct pool_span *span;
	size_t n;
	int r;

	while (len) {
		if (b->spans == FILE_PARTS)
			return -EIO;
		span = &b->span[b->spans];
		r = pool_get(fs->pool, &s->pool, stream, off, span, w);
		if (r != 1)
			return r;
		b->spans++;
		n = (size_t)(span->start + span->len - off);
		n = n < len ? n : len;
		add_part(b, span, off, n);
		off += n;
		len -= n;
	}
	return 1;
}

static void unpin_all(struct files *fs, struct file_bytes *b)
{
	for (unsigned int i = 0; i < b->spans; i++)
		pool_put(fs->pool, &b->span[i]);
	b->spans = b->n = 0;
}

/*
 * All spans of one read are pinned, or none while it waits: else readers that
 * hold one slot each could wait for each other's. Once @w waits it may be
 * called at any moment, and @f and @out belong to whoever runs then; so pins
 * are taken in a copy, under a reference of this function's own.
 */
static int read_source(struct file *f, size_t len, uint64_t off,
		       struct file_bytes *out, struct pool_waiter *w)
{
	struct files *fs = f->fs;
	struct source *s = out->source;
	struct file_bytes b = {.files = fs, .source = s};
	int r;

	if (s->text) {
		out->part[0].data = s->text + off;
		out->part[0].len = len;
		out->n = 1;
		return 1;
	}
	source_ref(fs, s);
	if (is_sequential(f, len, off))
		pool_ahead(fs->pool, &s->pool, f->stream, off + len - 1,
			   fs->ahead);
	r = pin_all(fs, s, f->stream, len, off, &b, w);
	if (r == 1)
		*out = b;
	else
		unpin_all(fs, &b);
	source_put(fs, s);
	return r;
}

int file_read(struct file *f, size_t len, uint64_t off, struct file_bytes *out,
	      struct pool_waiter *w)
{
	struct source *waited;

	out->n = out->spans = 0;
	out->files = f->fs;
	if (off >= f->size)
		return 1;
	if (len > f->size - off)
		len = (size_t)(f->size - off);
	if (!len)
		return 1;
	/* What it waited for, if it did, is held until it has the next. */
	waited = out->source;
	out->source = source_of(f);
	source_put(f->fs, waited);
	return read_source(f, len, off, out, w);
}

void file_done(struct file_bytes *b)
{
	if (!b->files)
		return;
	unpin_all(b->files, b);
	source_put(b->files, b->source);
	b->source = NULL;
}

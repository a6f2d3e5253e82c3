#include "fs/file.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fs/workers.h"

enum {
	/* What the largest request can lie in: the spans of its first and its
	 * last byte, and whole ones between. */
	SPANS_A_READ = 2 + (FILE_READ_MAX - 2) / CHECKPOINTS_SPAN_MIN,
	/* Also where there are few workers: a read may wait for the disk. */
	TURNS_LEAST = 8,
};

_Static_assert((int)SPANS_A_READ <= (int)FILE_PARTS,
	       "a read would be cut short");

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
	struct file *handles;	/* protected by lock */
	/* Reads that may wait for the pool, beyond those that do, and those
	 * that wait for that; see take_turn(). Protected by lock. */
	unsigned int turns;
	struct file_waiter *queue, **queue_end;
};

struct file {
	struct files *fs;
	unsigned int stream;
	uint64_t size;
	int64_t mtime;
	struct source *source;	   /* protected by fs->lock */
	struct file *next, **link; /* likewise: of all handles */
	/* How it is read; NULL where the file is too small to tell. */
	struct access *access; /* protected by access_lock */
	pthread_mutex_t access_lock;
};

/* So many that all their spans fit the pool, but no more than keep the workers
 * busy: what readers are in the middle of should stay there, too. */
static unsigned int turns_of(const struct pool_stats *st)
{
	size_t fit = st->slots / SPANS_A_READ, busy = 2 * st->workers;

	if (busy < TURNS_LEAST)
		busy = TURNS_LEAST;
	if (fit > busy)
		fit = busy;
	return fit >= 2 ? (unsigned int)fit : 1;
}

int file_table_create(struct files **out, struct pool *pool, unsigned int ahead)
{
	struct files *fs = calloc(1, sizeof(*fs));
	struct pool_stats st;

	if (!fs)
		return -ENOMEM;
	pool_stats(pool, &st);
	fs->turns = turns_of(&st);
	fs->queue_end = &fs->queue;
	fs->pool = pool;
	fs->ahead = ahead;
	pthread_mutex_init(&fs->lock, NULL);
	*out = fs;
	return 0;
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

static void list_handle(struct files *fs, struct file *f)
{
	pthread_mutex_lock(&fs->lock);
	f->link = &fs->handles;
	f->next = fs->handles;
	if (f->next)
		f->next->link = &f->next;
	fs->handles = f;
	pthread_mutex_unlock(&fs->lock);
}

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
	pthread_mutex_init(&f->access_lock, NULL);
	list_handle(fs, f);
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
	if (f && size > ACCESS_STREAK_BYTES)
		f->access = calloc(1, sizeof(*f->access));
	if (!f || (size > ACCESS_STREAK_BYTES && !f->access)) {
		free(f);
		store_release(o);
		return -ENOMEM;
	}
	f->fs = fs;
	f->stream = stream;
	f->size = size;
	f->mtime = mtime;
	f->source = source_get(fs, o);
	if (!f->source) {
		free(f->access);
		free(f);
		return -ENOMEM;
	}
	pthread_mutex_init(&f->access_lock, NULL);
	list_handle(fs, f);
	*out = f;
	return 0;
}

/* Everything but its source. */
static void handle_free(struct file *f)
{
	pthread_mutex_lock(&f->fs->lock);
	*f->link = f->next;
	if (f->next)
		f->next->link = f->link;
	pthread_mutex_unlock(&f->fs->lock);
	if (f->access)
		pool_leave(f->fs->pool, f);
	pthread_mutex_destroy(&f->access_lock);
	free(f->access);
	free(f);
}

void file_close(struct file *f)
{
	struct files *fs;
	struct source *s;

	if (!f)
		return;
	fs = f->fs;
	s = f->source;
	handle_free(f);
	source_put(fs, s);
}

bool file_try_close(struct file *f)
{
	struct files *fs = f->fs;
	struct source *s = f->source;
	bool last;

	/* What it wanted next would be decoded just then. */
	if (f->access)
		pool_leave(fs->pool, f);
	pthread_mutex_lock(&fs->lock);
	last = s->refs == 1;
	if (!last)
		s->refs--;
	pthread_mutex_unlock(&fs->lock);
	if (!last) {
		handle_free(f);
		return true;
	}
	if (s->object && !pool_source_closes_at_once(fs->pool, &s->pool))
		return false;
	file_close(f);
	return true;
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

/* Has what this reader will likely want next decoded ahead. Returns how it
 * goes. */
static enum access_kind look_ahead(struct file *f, struct source *s, size_t len,
				   uint64_t off)
{
	struct access_guess guess;

	if (!f->access)
		return ACCESS_RANDOM;
	pthread_mutex_lock(&f->access_lock);
	guess = access_note(f->access, off, len);
	pthread_mutex_unlock(&f->access_lock);
	if (guess.kind != ACCESS_RANDOM)
		pool_ahead(f->fs->pool, &s->pool, f->stream, f, &guess,
			   f->fs->ahead);
	return guess.kind;
}

/* Pinned: the span that holds b->next. */
static void add_span(struct file_bytes *b, const struct pool_span *s)
{
	uint64_t end = s->start + s->there, wanted = b->off + b->len;
	size_t n = (size_t)((end < wanted ? end : wanted) - b->next);

	b->span[b->spans++] = *s;
	b->part[b->n].data = s->data + (b->next - s->start);
	b->part[b->n].len = n;
	b->n++;
	b->next += n;
}

/* How far to go for a span. */
enum effort { LOOK, BEGIN, WAIT };

/* @w: for WAIT */
static int get_span(struct file_bytes *b, enum effort effort,
		    struct pool_waiter *w)
{
	struct pool *p = b->files->pool;
	struct source *s = b->source;
	size_t want = (size_t)(b->off + b->len - b->next);
	struct pool_span span;
	int r;

	if (effort == LOOK)
		r = pool_look(p, &s->pool, b->stream, b->next, want, &span);
	else
		r = pool_get(p, &s->pool, b->stream, b->next, want, &span,
			     effort == WAIT ? w : NULL);
	if (r == 1)
		add_span(b, &span);
	return r;
}

/* 1 with all spans pinned. After 0 @w may have been called already, and @b is
 * whoever's it then is. */
static int pin_all(struct file_bytes *b, enum effort effort,
		   struct pool_waiter *w)
{
	int r = 1;

	while (r == 1 && b->next < b->off + b->len)
		r = b->spans < FILE_PARTS ? get_span(b, effort, w) : -EIO;
	return r;
}

/* @given: were their bytes handed to a reader? */
static void unpin_all(struct file_bytes *b, bool given)
{
	struct pool *p = b->files->pool;

	for (unsigned int i = 0; i < b->spans; i++) {
		if (given)
			pool_give(p, &b->span[i], b->part[i].len, b->kind);
		else
			pool_put(p, &b->span[i]);
	}
	b->spans = b->n = 0;
	b->next = b->off;
}

/* On a pool thread, where the span is certain to be there still: it is pinned
 * at once, or others' reads might push it out before it is asked for again. */
static void on_span(struct pool_waiter *pw, int err)
{
	struct file_waiter *w = container_of(pw, struct file_waiter, pool);

	if (!err)
		get_span(w->bytes, BEGIN, NULL);
	w->wake(w, err);
}

/*
 * A read that waits keeps what it has pinned so far, so only so many may wait
 * at once that all their spans fit into the pool: each has a turn. Without it,
 * readers that hold one span each could wait for each other's for good; and if
 * they let go while waiting, push out each other's for good.
 */
static bool take_turn(struct files *fs, struct file_bytes *b,
		      struct file_waiter *w)
{
	bool got;

	pthread_mutex_lock(&fs->lock);
	got = b->turn = fs->turns > 0;
	if (got) {
		fs->turns--;
	} else {
		w->bytes = b;
		w->next = NULL;
		*fs->queue_end = w;
		fs->queue_end = &w->next;
	}
	pthread_mutex_unlock(&fs->lock);
	return got; /* @b may be somebody else's by now */
}

/* What would be decoded for a read before its turn comes could push out what
 * others are in the middle of. */
static enum effort effort_before_turn(struct files *fs)
{
	enum effort effort;

	pthread_mutex_lock(&fs->lock);
	effort = fs->turns > 0 ? BEGIN : LOOK;
	pthread_mutex_unlock(&fs->lock);
	return effort;
}

static void end_turn(struct files *fs)
{
	struct file_waiter *w;

	pthread_mutex_lock(&fs->lock);
	w = fs->queue;
	if (w) {
		fs->queue = w->next;
		if (!fs->queue)
			fs->queue_end = &fs->queue;
		w->bytes->turn = true;
	} else {
		fs->turns++;
	}
	pthread_mutex_unlock(&fs->lock);
	if (w)
		w->wake(w, FILE_ASK_AGAIN);
}

static void begin_read(struct file *f, size_t len, uint64_t off,
		       struct file_bytes *b)
{
	struct source *s = source_of(f);

	b->files = f->fs;
	b->source = s;
	b->stream = f->stream;
	b->off = b->next = off;
	b->len = len;
	b->kind = look_ahead(f, s, len, off);
}

static int read_text(struct file_bytes *b, const char *text)
{
	b->part[0].data = text + b->off;
	b->part[0].len = b->len;
	b->n = 1;
	return 1;
}

int file_read(struct file *f, size_t len, uint64_t off, struct file_bytes *out,
	      struct file_waiter *w)
{
	struct source *s;
	int r;

	if (off >= f->size || !len)
		return 1;
	if (len > f->size - off)
		len = (size_t)(f->size - off);
	if (!out->files)
		begin_read(f, len, off, out);
	s = out->source;
	if (s->text)
		return read_text(out, s->text);
	if (!out->turn) {
		r = pin_all(out, effort_before_turn(f->fs), NULL);
		if (r != -EAGAIN)
			return r;
		unpin_all(out, false);
		if (!w)
			return -EAGAIN;
		if (!take_turn(f->fs, out, w))
			return 0;
	}
	w->bytes = out;
	w->pool.ready = on_span;
	return pin_all(out, WAIT, &w->pool);
}

void file_done(struct file_bytes *b, bool given)
{
	struct files *fs = b->files;
	bool turn = b->turn;

	if (!fs)
		return;
	unpin_all(b, given);
	source_put(fs, b->source);
	*b = (struct file_bytes){0};
	if (turn)
		end_turn(fs);
}

void file_table_free(struct files *fs)
{
	if (!fs)
		return;
	while (fs->handles)
		file_close(fs->handles);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

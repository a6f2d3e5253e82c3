#include "fs/prefill.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/fuse.h"
#include "fs/metrics.h"
#include "fs/node.h"

/* The kernel takes a page as read only if it is given whole. */
enum { PAGE = 4096 };

struct prefill {
	uint64_t limit;
	pthread_mutex_t lock;	      /* order: a fill's, then this */
	struct fuse_session *session; /* NULL: none; protected by lock */
	unsigned int notices;	      /* under way; protected by lock */
	pthread_cond_t no_notice;
	uint64_t reserved; /* protected by lock */
};

struct prefill_fill {
	struct prefill *p;
	unsigned int refs; /* protected by p->lock */
	/* Whose pages; held. Protected by p->lock, and there while active. */
	struct node *node;

	pthread_mutex_t lock; /* all below, and while the kernel takes bytes */
	bool active;	      /* has a node */
	bool ended;
	bool given; /* the kernel has bytes of it */
	char etag[NODE_VERSION_MAX], coming[NODE_VERSION_MAX];
	unsigned int stream;
	uint64_t size;
	uint64_t seen; /* of the stream, up to here */
	/* The beginning of a page: its offset, and how much of it is here. */
	uint64_t page_off;
	size_t page_len;
	unsigned char page[PAGE];
};

int prefill_create(struct prefill **out, uint64_t limit)
{
	struct prefill *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->limit = limit;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->no_notice, NULL);
	*out = p;
	return 0;
}

void prefill_free(struct prefill *p)
{
	if (!p)
		return;
	pthread_cond_destroy(&p->no_notice);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void prefill_start(struct prefill *p, struct fuse_session *session)
{
	pthread_mutex_lock(&p->lock);
	p->session = session;
	pthread_mutex_unlock(&p->lock);
}

void prefill_stop(struct prefill *p)
{
	pthread_mutex_lock(&p->lock);
	p->session = NULL;
	while (p->notices)
		pthread_cond_wait(&p->no_notice, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

/* ---- notices ---- */

/* The session, not to be destroyed before notice_end(); or NULL. */
static struct fuse_session *notice_begin(struct prefill *p)
{
	struct fuse_session *session;

	pthread_mutex_lock(&p->lock);
	session = p->session;
	if (session)
		p->notices++;
	pthread_mutex_unlock(&p->lock);
	return session;
}

static void notice_end(struct prefill *p)
{
	pthread_mutex_lock(&p->lock);
	if (--p->notices == 0)
		pthread_cond_broadcast(&p->no_notice);
	pthread_mutex_unlock(&p->lock);
}

static int store(struct prefill_fill *f, uint64_t off, const void *buf,
		 size_t len)
{
	struct fuse_bufvec v = FUSE_BUFVEC_INIT(len);
	struct fuse_session *session = notice_begin(f->p);
	int err;

	if (!session)
		return -ENOTCONN;
	v.buf[0].mem = (void *)buf;
	/* Pages of an earlier open may be in a pipe or a socket by now: those
	 * must not be written over. */
	if (!f->given)
		fuse_lowlevel_notify_inval_inode(session, (fuse_ino_t)f->node,
						 0, 0);
	f->given = true;
	err = fuse_lowlevel_notify_store(session, (fuse_ino_t)f->node,
					 (off_t)off, &v, 0);
	notice_end(f->p);
	if (!err)
		metrics_add(METRIC_READ_PREFILLED, len);
	return err;
}

/* Under the fill's lock: what the kernel was given is gone after this. */
static void take_back_locked(struct prefill_fill *f)
{
	struct fuse_session *session;

	f->page_len = 0;
	if (!f->given)
		return;
	f->given = false;
	session = notice_begin(f->p);
	if (!session)
		return;
	fuse_lowlevel_notify_inval_inode(session, (fuse_ino_t)f->node, 0, 0);
	notice_end(f->p);
}

/* ---- handles ---- */

static void fill_put(struct prefill_fill *f)
{
	struct prefill *p = f->p;
	bool gone;

	pthread_mutex_lock(&p->lock);
	gone = --f->refs == 0;
	pthread_mutex_unlock(&p->lock);
	if (!gone)
		return;
	pthread_mutex_destroy(&f->lock);
	free(f);
}

/* Under the fill's lock: lets the node go. */
static void leave_locked(struct prefill_fill *f)
{
	struct prefill *p = f->p;
	struct node *n;

	f->active = f->given = false;
	f->page_len = 0;
	pthread_mutex_lock(&p->lock);
	n = f->node;
	f->node = NULL;
	n->fill = NULL;
	p->reserved -= f->size;
	pthread_mutex_unlock(&p->lock);
	node_forget(n->table, n, 1);
}

bool prefill_opened(struct prefill *p, struct node *n)
{
	struct prefill_fill *f;
	bool keeps;

	pthread_mutex_lock(&p->lock);
	n->handles++;
	f = n->fill;
	if (f)
		f->refs++;
	keeps = p->session != NULL;
	pthread_mutex_unlock(&p->lock);
	if (!f)
		return keeps;
	pthread_mutex_lock(&f->lock);
	if (f->active) {
		take_back_locked(f);
		leave_locked(f);
	}
	pthread_mutex_unlock(&f->lock);
	fill_put(f);
	return keeps;
}

void prefill_closed(struct prefill *p, struct node *n)
{
	pthread_mutex_lock(&p->lock);
	n->handles--;
	pthread_mutex_unlock(&p->lock);
}

/* ---- a fill ---- */

struct prefill_fill *prefill_fill_create(struct prefill *p)
{
	struct prefill_fill *f;

	f = p && p->limit ? calloc(1, sizeof(*f)) : NULL;
	if (!f)
		return NULL;
	f->p = p;
	f->refs = 1;
	pthread_mutex_init(&f->lock, NULL);
	return f;
}

void prefill_fill_free(struct prefill_fill *f)
{
	if (!f)
		return;
	prefill_end(f, false);
	fill_put(f);
}

void prefill_offer(struct prefill_fill *f, const struct prefill_reader *r)
{
	struct prefill *p;

	/* By size alone versions are not told apart. */
	if (!f || !*r->etag || strlen(r->etag) >= sizeof(f->etag) || !r->size)
		return;
	p = f->p;
	if (pthread_mutex_trylock(&f->lock))
		return; /* it has one, or has just lost it */
	pthread_mutex_lock(&p->lock);
	if (!f->active && !f->ended && !r->node->fill && !r->node->handles &&
	    r->size <= p->limit - p->reserved) {
		p->reserved += r->size;
		node_hold(r->node);
		r->node->fill = f;
		f->node = r->node;
		f->active = true;
		strcpy(f->etag, r->etag);
		f->stream = r->stream;
		f->size = r->size;
	}
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_unlock(&f->lock);
}

void prefill_begin(struct prefill_fill *f, const char *etag)
{
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	if (f->active)
		take_back_locked(f);
	snprintf(f->coming, sizeof(f->coming), "%s", etag);
	f->seen = 0;
	pthread_mutex_unlock(&f->lock);
}

/* The rest of the page that was begun, or the way to the next one where none
 * was. Returns how many bytes of @buf that took. */
static size_t complete_page(struct prefill_fill *f, uint64_t off,
			    const unsigned char *buf, size_t len, int *err)
{
	size_t n = (size_t)(-off % PAGE);

	if (n > len)
		n = len;
	if (!f->page_len)
		return n;
	memcpy(f->page + f->page_len, buf, n);
	f->page_len += n;
	if (f->page_len == PAGE || f->page_off + f->page_len == f->size) {
		*err = store(f, f->page_off, f->page, f->page_len);
		f->page_len = 0;
	}
	return n;
}

static int give(struct prefill_fill *f, uint64_t off, const unsigned char *buf,
		size_t len)
{
	size_t n, rest;
	int err = 0;

	if (f->page_len && off != f->page_off + f->page_len)
		f->page_len = 0; /* something was left out */
	n = complete_page(f, off, buf, len, &err);
	off += n;
	len -= n;
	if (err || !len)
		return err;
	rest = off + len == f->size ? 0 : len % PAGE;
	if (len > rest)
		err = store(f, off, buf + n, len - rest);
	memcpy(f->page, buf + n + len - rest, rest);
	f->page_off = off + len - rest;
	f->page_len = rest;
	return err;
}

int prefill_bytes(void *fill, unsigned int stream, uint64_t off,
		  const void *buf, size_t len)
{
	struct prefill_fill *f = fill;

	if (!f || !len)
		return 0;
	pthread_mutex_lock(&f->lock);
	if (f->active && stream == f->stream &&
	    strcmp(f->etag, f->coming) == 0) {
		if (off < f->seen) /* it began again: those were not it */
			take_back_locked(f);
		f->seen = off + len;
		if (f->seen > f->size || give(f, off, buf, len)) {
			take_back_locked(f);
			leave_locked(f);
		}
	}
	pthread_mutex_unlock(&f->lock);
	return 0;
}

void prefill_end(struct prefill_fill *f, bool serves)
{
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->ended = true;
	if (f->active) {
		if (!serves)
			take_back_locked(f);
		leave_locked(f);
	}
	pthread_mutex_unlock(&f->lock);
}

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/metrics.h"
#include "fs/path.h"
#include "fs/report.h"

enum {
	/* How long the kernel believes a name and its attributes. A nodeid's
	 * attributes never change; names are asked again now and then, since
	 * archives are published, and republished, while the mount lives. */
	ENTRY_S = 60,
	ATTR_S = 3600,
	FOLDER_ATTR_S = 60,
	HEALS_MAX = 2,	      /* tries at one read */
	PLUS_ENTRY_MIN = 152, /* struct fuse_direntplus without its name */
};

static struct ops *ops_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static struct node *node_of(struct ops *o, fuse_ino_t id)
{
	return id == FUSE_ROOT_ID ? node_root(o->nodes) : (struct node *)id;
}

/* ---- attributes ---- */

static void fill_folder(const struct ops *o, const struct node *n,
			struct stat *st)
{
	*st = (struct stat){
		.st_ino = n->ino,
		.st_mode = S_IFDIR | 0555,
		.st_nlink = 2,
		.st_uid = o->uid,
		.st_gid = o->gid,
		.st_mtim.tv_sec = o->mounted_at,
		.st_blksize = 4096,
	};
	st->st_ctim = st->st_atim = st->st_mtim;
}

static void fill_file(const struct ops *o, const struct node *n, uint64_t size,
		      int64_t mtime, struct stat *st)
{
	*st = (struct stat){
		.st_ino = n->ino,
		.st_mode = S_IFREG | 0444,
		.st_nlink = 1,
		.st_uid = o->uid,
		.st_gid = o->gid,
		.st_size = (off_t)size,
		.st_blocks = (blkcnt_t)((size + 511) / 512),
		.st_mtim.tv_sec = mtime >= 0 ? mtime : o->mounted_at,
		.st_blksize = 1 << 17,
	};
	st->st_ctim = st->st_atim = st->st_mtim;
}

/* What tells one version of a file from the next. */
static void version_of(const struct tree_file *f, char out[NODE_VERSION_MAX])
{
	if (f->etag[0])
		snprintf(out, NODE_VERSION_MAX, "%s", f->etag);
	else
		snprintf(out, NODE_VERSION_MAX, "%llu:%lld",
			 (unsigned long long)f->size, (long long)f->mtime);
}

/* ---- LOOKUP: never waits ---- */

static int join(const char *parent, const char *name, char *out, size_t size)
{
	int n = snprintf(out, size, "%s%s%s", parent, *parent ? "/" : "", name);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static int lookup_control(struct ops *o, const char *path,
			  const struct tree_target *tg,
			  struct fuse_entry_param *e)
{
	struct node *n;
	char *text;
	size_t len;
	int err;

	err = report_render(&o->xattrs, strrchr(path, '/') + 1, &text, &len);
	if (err)
		return err;
	n = node_control(o->nodes, path, tg, text, len);
	if (!n)
		return -ENOMEM;
	e->ino = (fuse_ino_t)n;
	e->attr_timeout = ATTR_S;
	fill_file(o, n, len, -1, &e->attr);
	return 0;
}

static int lookup_folder(struct ops *o, const char *path,
			 const struct tree_target *tg,
			 struct fuse_entry_param *e)
{
	struct node *n = node_lookup(o->nodes, path, tg, "");
	struct tree_target known;

	if (!n)
		return -ENOMEM;
	e->ino = (fuse_ino_t)n;
	/* Proven before, perhaps, where the listing still can't tell. */
	node_target(n, &known);
	if (!known.provisional) {
		e->entry_timeout = ENTRY_S;
		e->attr_timeout = FOLDER_ATTR_S;
	}
	fill_folder(o, n, &e->attr);
	return 0;
}

/* An unsized file has no attributes yet: the kernel asks when it needs them. */
static int lookup_file(struct ops *o, const char *path,
		       const struct tree_target *tg, struct fuse_entry_param *e)
{
	char version[NODE_VERSION_MAX] = "";
	struct tree_file f;
	struct node *n;
	int err = tree_stat(o->tree, path, tg, NULL, &f);

	if (err == -ENOENT)
		return err;
	if (!err)
		version_of(&f, version);
	n = node_lookup(o->nodes, path, tg, version);
	if (!n)
		return -ENOMEM;
	e->ino = (fuse_ino_t)n;
	if (err) {
		e->entry_timeout = tg->provisional ? 0 : 1;
		fill_file(o, n, 0, -1, &e->attr);
	} else {
		e->entry_timeout = ENTRY_S;
		e->attr_timeout = ATTR_S;
		node_told(n, f.size, f.mtime);
		fill_file(o, n, f.size, f.mtime, &e->attr);
	}
	return 0;
}

static int lookup(struct ops *o, struct node *parent, const char *name,
		  struct fuse_entry_param *e)
{
	char path[PATH_MAX_BYTES];
	struct tree_target tg;
	int err;

	err = join(parent->path, name, path, sizeof(path));
	if (!err)
		err = tree_resolve(o->tree, path, &tg);
	if (err)
		return err;
	if (tg.sort == TREE_CONTROL)
		return lookup_control(o, path, &tg, e);
	if (!tg.provisional)
		node_prove(parent);
	if (tg.sort == TREE_FOLDER)
		return lookup_folder(o, path, &tg, e);
	folder_looked_up(o->folders, parent->path);
	return lookup_file(o, path, &tg, e);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct ops *o = ops_of(req);
	struct fuse_entry_param e = {0};
	int err = lookup(o, node_of(o, parent), name, &e);

	if (err)
		fuse_reply_err(req, -err);
	else if (fuse_reply_entry(req, &e) == -ENOENT)
		/* Interrupted: the kernel will not forget it for us. */
		node_forget(o->nodes, (struct node *)e.ino, 1);
}

static void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t count)
{
	struct ops *o = ops_of(req);

	node_forget(o->nodes, node_of(o, id), count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count,
			    struct fuse_forget_data *forgets)
{
	struct ops *o = ops_of(req);

	for (size_t i = 0; i < count; i++)
		node_forget(o->nodes, node_of(o, forgets[i].ino),
			    forgets[i].nlookup);
	fuse_reply_none(req);
}

/* ---- GETATTR, ACCESS ---- */

static struct waiter *waiter_of(struct parked *p)
{
	return p ? &p->waiter : NULL;
}

/* Exists, and is what it looked like. */
static int confirm(struct ops *o, struct node *n, struct tree_target *tg,
		   struct parked *p)
{
	bool was_provisional;
	int err;

	node_target(n, tg);
	was_provisional = tg->provisional;
	err = tree_confirm(o->tree, n->path, tg, waiter_of(p));
	if (!err && was_provisional) {
		node_set_target(n, tg);
		node_prove(n);
	}
	return err;
}

static int reply_attr(struct call *c, const struct stat *st, double timeout)
{
	parked_disarm(c);
	fuse_reply_attr(c->req, st, timeout);
	return 0;
}

static int getattr_file(struct call *c, const struct tree_target *tg,
			struct parked *p)
{
	char version[NODE_VERSION_MAX];
	struct ops *o = c->fs;
	struct tree_file f;
	struct stat st;
	int err;

	err = tree_stat(o->tree, c->node->path, tg, waiter_of(p), &f);
	if (err)
		return err;
	version_of(&f, version);
	/* Another version's size would cut the pages of those who still have
	 * this one open: they are told what they were told. */
	if (!node_adopt(c->node, version)) {
		if (!node_was_told(c->node, &f.size, &f.mtime))
			return -ESTALE;
		fill_file(o, c->node, f.size, f.mtime, &st);
		return reply_attr(c, &st, ATTR_S);
	}
	node_told(c->node, f.size, f.mtime);
	fill_file(o, c->node, f.size, f.mtime, &st);
	return reply_attr(c, &st, ATTR_S);
}

static int try_getattr(struct call *c, struct parked *p)
{
	struct ops *o = c->fs;
	struct tree_target tg;
	struct stat st;
	int err;

	if (c->woken < 0)
		return c->woken;
	if (c->node->text) {
		fill_file(o, c->node, c->node->text_len, -1, &st);
		return reply_attr(c, &st, ATTR_S);
	}
	if (c->file) {
		/* An open handle keeps its version. */
		fill_file(o, c->node, file_size(c->file), file_mtime(c->file),
			  &st);
		return reply_attr(c, &st, 0);
	}
	err = confirm(o, c->node, &tg, p);
	if (err)
		return err;
	if (tg.sort != TREE_FOLDER)
		return getattr_file(c, &tg, p);
	fill_folder(o, c->node, &st);
	return reply_attr(c, &st, FOLDER_ATTR_S);
}

static void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_getattr,
		.node = node_of(o, id),
		.file = fi ? (struct file *)(uintptr_t)fi->fh : NULL,
	};

	parked_run(&o->parking, &c);
}

static int try_access(struct call *c, struct parked *p)
{
	struct ops *o = c->fs;
	struct tree_target tg;
	int err;

	if (c->woken < 0)
		return c->woken;
	if (c->mask & W_OK)
		return -EROFS;
	err = c->node->text ? 0 : confirm(o, c->node, &tg, p);
	if (err)
		return err;
	node_target(c->node, &tg);
	if ((c->mask & X_OK) && tg.sort != TREE_FOLDER)
		return -EACCES;
	parked_disarm(c);
	fuse_reply_err(c->req, 0);
	return 0;
}

static void op_access(fuse_req_t req, fuse_ino_t id, int mask)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_access,
		.node = node_of(o, id),
		.mask = mask,
	};

	parked_run(&o->parking, &c);
}

/* ---- OPEN, READ, RELEASE ---- */

static int reply_open(struct call *c, struct file *f)
{
	struct ops *o = c->fs;
	struct node *n = c->node;

	c->fi.fh = (uint64_t)(uintptr_t)f;
	c->fi.noflush = 1;
	parked_disarm(c);
	c->fi.keep_cache = prefill_opened(o->prefill, n);
	if (fuse_reply_open(c->req, &c->fi) == -ENOENT) {
		/* Interrupted: no RELEASE will come. */
		prefill_closed(o->prefill, n);
		file_close(f);
	}
	return 0;
}

static int open_text(struct call *c)
{
	struct ops *o = c->fs;
	struct file *f;
	int err = file_open_text(o->files, c->node->text, c->node->text_len, -1,
				 &f);

	if (err)
		return err;
	return reply_open(c, f);
}

/*
 * The kernel opens the node it knows. Where that is outdated, or the kernel was
 * told another size, ESTALE makes it look up again and come back with the right
 * one.
 */
static int check_version(struct call *c, const struct tree_file *f)
{
	char version[NODE_VERSION_MAX];

	version_of(f, version);
	if (!node_adopt(c->node, version))
		return -ESTALE;
	return node_must_tell(c->node, f->size) ? -ESTALE : 0;
}

static unsigned int stream_of(const struct tree_target *tg,
			      const struct tree_file *f)
{
	return tg->sort == TREE_OBJECT ? 0 : (unsigned int)f->member + 1;
}

static int open_object(struct call *c, const struct tree_target *tg,
		       const struct tree_file *f, struct store_object *obj)
{
	struct ops *o = c->fs;
	struct tree_file actual = *f;
	struct file *file;
	int err;

	snprintf(actual.etag, sizeof(actual.etag), "%s",
		 store_object_info(obj)->etag);
	err = file_open(o->files, obj, stream_of(tg, f), f->mtime, &file);
	if (err)
		return err;
	actual.size = file_size(file);
	err = check_version(c, &actual);
	if (err) {
		file_close(file);
		return err;
	}
	/* Counted as a hit where nothing had to be waited for. */
	if (!c->parked)
		metrics_add(METRIC_CACHE_HITS, 1);
	return reply_open(c, file);
}

/* The kernel may have the bytes of who waits as they come; only if it knows how
 * many there are, since it would take them for news of that. */
static bool may_prefill(struct call *c, const struct tree_target *tg,
			const struct tree_file *f, struct prefill_reader *r)
{
	uint64_t told;
	int64_t mtime;

	*r = (struct prefill_reader){
		.node = c->node,
		.etag = f->etag,
		.stream = stream_of(tg, f),
		.size = f->size,
	};
	/* An archive's own bytes are nothing that is decoded. */
	return tg->sort != TREE_OBJECT &&
	       node_was_told(c->node, &told, &mtime) && told == f->size;
}

static int try_open(struct call *c, struct parked *p)
{
	struct ops *o = c->fs;
	struct store_object *obj;
	struct tree_target tg;
	struct prefill_reader r;
	struct tree_file f;
	int err;

	if (c->woken < 0)
		return c->woken;
	if (c->node->text)
		return open_text(c);
	err = confirm(o, c->node, &tg, p);
	if (err)
		return err;
	if (tg.sort == TREE_FOLDER)
		return -EISDIR;
	err = tree_stat(o->tree, c->node->path, &tg, waiter_of(p), &f);
	if (!err)
		err = check_version(c, &f);
	if (!err)
		err = supply_open(o->supply, tg.key, waiter_of(p),
				  may_prefill(c, &tg, &f, &r) ? &r : NULL,
				  &obj);
	return err ? err : open_object(c, &tg, &f, obj);
}

static void abandon_open(struct call *c)
{
	struct ops *o = c->fs;
	struct tree_target tg;

	node_target(c->node, &tg);
	supply_abandon(o->supply, tg.key);
}

static void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_open,
		.abandoned = abandon_open,
		.node = node_of(o, id),
		.fi = *fi,
	};

	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	parked_run(&o->parking, &c);
}

static void reply_bytes(struct call *c)
{
	struct iovec iov[FILE_PARTS];
	size_t total = 0;

	for (unsigned int i = 0; i < c->bytes.n; i++) {
		iov[i].iov_base = (void *)c->bytes.part[i].data;
		iov[i].iov_len = c->bytes.part[i].len;
		total += iov[i].iov_len;
	}
	metrics_add(METRIC_READ_BYTES, total);
	parked_disarm(c);
	if (c->bytes.n)
		fuse_reply_iov(c->req, iov, (int)c->bytes.n);
	else
		fuse_reply_buf(c->req, NULL, 0);
}

/*
 * The cached file failed a check under this read: the same version is fetched
 * again and takes its place. `healing` is set while that is waited for.
 */
static int heal(struct call *c, struct parked *p)
{
	struct ops *o = c->fs;
	struct store_object *damaged, *again;
	int err;

	damaged = file_object(c->file);
	if (!damaged || c->healed >= HEALS_MAX) {
		store_release(damaged);
		return c->damage;
	}
	c->healing = true;
	err = supply_heal(o->supply, damaged, waiter_of(p), &again);
	store_release(damaged);
	if (err == -EINPROGRESS)
		return err;
	c->healing = false;
	if (err)
		return err;
	c->healed++;
	return file_replace(c->file, again);
}

/* Bytes that fail their check, or that the disk does not give back. */
static bool is_damage(int err)
{
	return err == -EBADMSG || err == -EIO;
}

static int read_on(struct call *c, struct parked *p)
{
	int r;

	for (;;) {
		r = file_read(c->file, c->size, c->off, &c->bytes,
			      p ? &p->file_waiter : NULL);
		if (r == 0 || r == -EAGAIN)
			return -EINPROGRESS;
		if (!is_damage(r) || (p && p->direct))
			return r;
		c->damage = r;
		file_done(&c->bytes, false);
		r = heal(c, p);
		if (r)
			return r;
	}
}

/* 1 with the bytes in hand, -EINPROGRESS, or an error. */
static int read_bytes(struct call *c, struct parked *p)
{
	int r = c->woken;

	c->woken = 0;
	if (r < 0 && (c->healing || !is_damage(r)))
		return r;
	if (is_damage(r) && !c->healing)
		c->damage = r;
	if (c->healing || is_damage(r)) {
		file_done(&c->bytes, false);
		r = heal(c, p);
		if (r)
			return r;
	}
	return read_on(c, p);
}

static int try_read(struct call *c, struct parked *p)
{
	int r = read_bytes(c, p);

	if (r == -EINPROGRESS)
		return r;
	if (r == 1)
		reply_bytes(c);
	file_done(&c->bytes, r == 1);
	return r == 1 ? 0 : r;
}

static void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_read,
		.node = node_of(o, id),
		.file = (struct file *)(uintptr_t)fi->fh,
		.off = (uint64_t)off,
		.size = size,
	};

	parked_read(&o->parking, &c);
}

static int try_release(struct call *c, struct parked *p)
{
	if (p)
		file_close(c->file);
	else if (!file_try_close(c->file))
		return -EINPROGRESS;
	parked_disarm(c);
	fuse_reply_err(c->req, 0);
	return 0;
}

/* The kernel will not ask again. */
static void close_now(struct call *c)
{
	file_close(c->file);
}

static void op_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_release,
		.spared = close_now,
		.node = node_of(o, id),
		.file = (struct file *)(uintptr_t)fi->fh,
	};

	prefill_closed(o->prefill, c.node);
	parked_run(&o->parking, &c);
}

/* ---- OPENDIR, READDIR, RELEASEDIR ---- */

static int try_opendir(struct call *c, struct parked *p)
{
	struct ops *o = c->fs;
	struct folder *d;
	int err;

	if (c->woken < 0)
		return c->woken;
	if (!p)
		return -EINPROGRESS; /* reads the catalog */
	err = folder_read(o->folders, c->node->path, &p->waiter, &d);
	if (err)
		return err;
	folder_note_read(o->folders, c->node->path);
	c->fi.fh = (uint64_t)(uintptr_t)d;
	parked_disarm(c);
	if (fuse_reply_open(c->req, &c->fi) == -ENOENT)
		folder_free(d);
	return 0;
}

static void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_opendir,
		.node = node_of(o, id),
		.fi = *fi,
	};

	parked_run(&o->parking, &c);
}

/* Offsets: 1 is behind ".", 2 behind "..", i + 3 behind entry i. */
static void fill_dirent(const struct node *n, const struct folder *d,
			uint64_t at, struct stat *st)
{
	char path[PATH_MAX_BYTES];

	*st = (struct stat){.st_mode = S_IFDIR, .st_ino = n->ino};
	if (at < 2)
		return;
	if (!d->entries[at - 2].is_dir)
		st->st_mode = S_IFREG;
	if (join(n->path, d->entries[at - 2].name, path, sizeof(path)) == 0)
		st->st_ino = node_ino(path);
}

static size_t add_entry(fuse_req_t req, char *buf, size_t room,
			const struct node *n, const struct folder *d,
			uint64_t at)
{
	const char *name = at == 0   ? "."
			   : at == 1 ? ".."
				     : d->entries[at - 2].name;
	struct stat st;

	fill_dirent(n, d, at, &st);
	return fuse_add_direntry(req, buf, room, name, &st, (off_t)(at + 1));
}

static void op_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	const struct folder *d = (struct folder *)(uintptr_t)fi->fh;
	struct node *n = node_of(ops_of(req), id);
	char *buf = malloc(size);
	size_t used = 0, k;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (uint64_t at = (uint64_t)off; at < d->n + 2; at++) {
		k = add_entry(req, buf + used, size - used, n, d, at);
		if (k > size - used)
			break;
		used += k;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

/*
 * READDIRPLUS. The kernel asks for it where names are looked up as they are
 * read. Attributes are given where all of them are known, and nodeid 0 where
 * not, which makes it look up; never half of them, which would cut the pages of
 * who has the file mapped. They must be at hand, too: see folder_is_warm().
 */
struct plus {
	struct ops *o;
	struct node *n;
	const struct folder *d;
	bool warm;
	struct node **given; /* looked up for the kernel */
	size_t n_given;
};

/* As LOOKUP; true where the kernel may have it, and is not likely to have it
 * already. */
static bool look_up_entry(struct plus *p, const char *name,
			  struct fuse_entry_param *e)
{
	char path[PATH_MAX_BYTES];
	bool whole;

	if (!p->warm || join(p->n->path, name, path, sizeof(path)) ||
	    node_is_known(p->o->nodes, path, ENTRY_S * 1000 / 2))
		return false;
	if (lookup(p->o, p->n, name, e))
		return false;
	whole = e->attr_timeout > 0 && e->entry_timeout > 0;
	if (!whole)
		node_forget(p->o->nodes, (struct node *)e->ino, 1);
	return whole;
}

static size_t add_entry_plus(fuse_req_t req, char *buf, size_t room,
			     struct plus *p, uint64_t at)
{
	struct fuse_entry_param e = {0};
	bool known = false;
	const char *name;
	size_t k;

	name = at == 0 ? "." : at == 1 ? ".." : p->d->entries[at - 2].name;
	if (at >= 2)
		known = look_up_entry(p, name, &e);
	if (!known) {
		e = (struct fuse_entry_param){0};
		fill_dirent(p->n, p->d, at, &e.attr);
	}
	k = fuse_add_direntry_plus(req, buf, room, name, &e, (off_t)(at + 1));
	if (known && k > room)
		node_forget(p->o->nodes, (struct node *)e.ino, 1);
	else if (known)
		p->given[p->n_given++] = (struct node *)e.ino;
	return k;
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size,
			   off_t off, struct fuse_file_info *fi)
{
	const struct folder *d = (struct folder *)(uintptr_t)fi->fh;
	struct ops *o = ops_of(req);
	struct plus p = {.o = o, .n = node_of(o, id), .d = d};
	char *buf = malloc(size);
	size_t used = 0, k;

	p.given = calloc(size / PLUS_ENTRY_MIN + 1, sizeof(*p.given));
	if (!buf || !p.given) {
		fuse_reply_err(req, ENOMEM);
		goto out;
	}
	p.warm = folder_is_warm(o->folders, p.n->path);
	for (uint64_t at = (uint64_t)off; at < d->n + 2; at++) {
		k = add_entry_plus(req, buf + used, size - used, &p, at);
		if (k > size - used)
			break;
		used += k;
	}
	if (fuse_reply_buf(req, buf, used) == -ENOENT)
		for (size_t i = 0; i < p.n_given; i++)
			node_forget(o->nodes, p.given[i], 1);
out:
	free(p.given);
	free(buf);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t id,
			  struct fuse_file_info *fi)
{
	(void)id;
	folder_free((struct folder *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

/* ---- STATFS, xattrs ---- */

static void op_statfs(fuse_req_t req, fuse_ino_t id)
{
	struct ops *o = ops_of(req);
	struct store_stats st;
	struct statvfs v = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_namemax = PATH_NAME_MAX,
		.f_flag = ST_RDONLY,
	};

	(void)id;
	store_stats(o->store, &st);
	v.f_blocks = st.quota_bytes / v.f_frsize;
	if (st.used_bytes < st.quota_bytes)
		v.f_bfree = (st.quota_bytes - st.used_bytes) / v.f_frsize;
	v.f_bavail = v.f_bfree;
	fuse_reply_statfs(req, &v);
}

static void reply_value(struct call *c, const char *value, size_t len)
{
	parked_disarm(c);
	if (!c->size)
		fuse_reply_xattr(c->req, len);
	else if (c->size < len)
		fuse_reply_err(c->req, ERANGE);
	else
		fuse_reply_buf(c->req, value, len);
}

static int try_xattr(struct call *c, struct parked *p)
{
	struct ops *o = c->fs;
	struct tree_target tg;
	char *value;
	size_t len;
	int err;

	node_target(c->node, &tg);
	/* A folder's values are counted from the catalog: not in the loop. */
	if (!p && tg.sort == TREE_FOLDER && *c->node->path)
		return -EINPROGRESS;
	if (c->name)
		err = xattr_get(&o->xattrs, c->node->path, &tg, c->name, &value,
				&len);
	else
		err = xattr_list(&o->xattrs, c->node->path, &tg, &value, &len);
	if (err)
		return err;
	reply_value(c, value, len);
	free(value);
	return 0;
}

static void op_getxattr(fuse_req_t req, fuse_ino_t id, const char *name,
			size_t size)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_xattr,
		.node = node_of(o, id),
		.size = size,
	};

	/* The kernel remembers this one; ENODATA it would ask again for every
	 * file of `ls -l`. */
	if (strncmp(name, "user.", 5) != 0) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	c.name = strdup(name);
	if (!c.name) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	parked_run(&o->parking, &c);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t id, size_t size)
{
	struct ops *o = ops_of(req);
	struct call c = {
		.req = req,
		.fs = o,
		.attempt = try_xattr,
		.node = node_of(o, id),
		.size = size,
	};

	parked_run(&o->parking, &c);
}

/* ---- INIT ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct ops *o = userdata;

	conn->max_background = OPS_MAX_BACKGROUND;
	conn->congestion_threshold = OPS_MAX_BACKGROUND;
	conn->max_read = o->max_read;
	conn->max_readahead = OPS_MAX_READ;
	conn->want |= conn->capable &
		      (FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO);
	/* A nodeid's bytes never change, so nothing is to be invalidated. */
	conn->want &= ~(unsigned int)FUSE_CAP_AUTO_INVAL_DATA;
	if (o->on_ready)
		o->on_ready(o->ready_arg);
}

const struct fuse_lowlevel_ops ops_table = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.access = op_access,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.statfs = op_statfs,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
};

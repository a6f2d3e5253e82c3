/*
 * A folder's entries are kept sorted by name with a "/" behind those of
 * folders: then a walk in this order, depth first, meets all keys in UTF-8
 * byte order, because no name holds a "/" and so every key under "a/" compares
 * to a file's name as "a/" does. Listing is that walk, started in the middle
 * by a binary search in each folder on the way, and stopped after one page.
 */
#include "tests/origin/bucket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PATH_ROOM = 4096 + IMITATION_KEY_MAX,
	HASH_BLOCK = 1 << 18,
	PART = 8 << 20, /* what common S3 clients upload a part */
};

/*
 * mtimes move in steps of the kernel's tick (at most 10 ms). A folder that was
 * read so soon after its mtime may change again without a new one.
 */
#define RACY_NS 50000000

struct child {
	char *name; /* ends in "/" for a folder */
	bool is_dir;
};

struct folder {
	unsigned int refs; /* protected by imitation_bucket.lock */
	char *dir;	   /* "" or ends in "/" */
	struct timespec mtime;
	ino_t ino;
	bool racy;
	size_t n;
	struct child *children;
};

struct digest {
	char *path;
	struct timespec mtime;
	off_t size;
	ino_t ino;
	char hex[33];
};

struct imitation_bucket {
	char *root, *name;
	unsigned int page_size;
	uint64_t multipart_above;

	pthread_mutex_t lock;
	void *folders; /* tsearch(3) tree; protected by lock */
	void *digests; /* tsearch(3) tree; protected by lock */
};

static int folder_cmp(const void *a, const void *b)
{
	const struct folder *x = a, *y = b;

	return strcmp(x->dir, y->dir);
}

static int digest_cmp(const void *a, const void *b)
{
	const struct digest *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static int child_cmp(const void *a, const void *b)
{
	const struct child *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static void folder_free(void *arg)
{
	struct folder *f = arg;

	if (!f)
		return;
	for (size_t i = 0; i < f->n; i++)
		free(f->children[i].name);
	free(f->children);
	free(f->dir);
	free(f);
}

static void digest_free(void *arg)
{
	struct digest *d = arg;

	free(d->path);
	free(d);
}

static void folder_release(struct imitation_bucket *b, struct folder *f)
{
	bool last;

	if (!f)
		return;
	pthread_mutex_lock(&b->lock);
	last = --f->refs == 0;
	pthread_mutex_unlock(&b->lock);
	if (last)
		folder_free(f);
}

static int path_of(const struct imitation_bucket *b, const char *key,
		   char *path)
{
	int n = snprintf(path, PATH_ROOM, "%s/%s", b->root, key);

	return n < 0 || n >= PATH_ROOM ? -ENAMETOOLONG : 0;
}

static int folder_add(struct folder *f, int fd, const struct dirent *de,
		      size_t *room)
{
	bool is_dir = de->d_type == DT_DIR;
	struct child *grown;
	struct stat st;
	char *name;

	if (de->d_name[0] == '.')
		return 0;
	if (!*f->dir && strcmp(de->d_name, "data"))
		return 0;
	if (de->d_type != DT_DIR && de->d_type != DT_REG) {
		if (fstatat(fd, de->d_name, &st, 0))
			return 0;
		is_dir = S_ISDIR(st.st_mode);
		if (!is_dir && !S_ISREG(st.st_mode))
			return 0;
	}
	if (f->n == *room) {
		*room = *room ? *room * 2 : 64;
		grown = reallocarray(f->children, *room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		f->children = grown;
	}
	if (asprintf(&name, "%s%s", de->d_name, is_dir ? "/" : "") < 0)
		return -ENOMEM;
	f->children[f->n].name = name;
	f->children[f->n++].is_dir = is_dir;
	return 0;
}

static int folder_read(struct folder **out, const char *dir, const char *path)
{
	struct folder *f = NULL;
	DIR *d = NULL;
	struct dirent *de;
	struct timespec now;
	struct stat st;
	size_t room = 0;
	int err = -ENOMEM;

	d = opendir(path);
	if (!d)
		return -errno;
	f = calloc(1, sizeof(*f));
	if (!f || !(f->dir = strdup(dir)))
		goto out;
	clock_gettime(CLOCK_REALTIME, &now);
	if (fstat(dirfd(d), &st)) {
		err = -errno;
		goto out;
	}
	f->mtime = st.st_mtim;
	f->ino = st.st_ino;
	f->racy = (now.tv_sec - st.st_mtim.tv_sec) * INT64_C(1000000000) +
			  now.tv_nsec - st.st_mtim.tv_nsec <
		  RACY_NS;
	while (errno = 0, (de = readdir(d))) {
		err = folder_add(f, dirfd(d), de, &room);
		if (err)
			goto out;
	}
	err = -errno;
	if (err)
		goto out;
	if (f->n)
		qsort(f->children, f->n, sizeof(*f->children), child_cmp);
	*out = f;
	f = NULL;
out:
	folder_free(f);
	closedir(d);
	return err;
}

/* Put @f in the place of what the tree holds under its name, one reference
 * for the tree and one for the caller. */
static int folder_keep(struct imitation_bucket *b, struct folder *f)
{
	struct folder **slot, *old = NULL;

	f->refs = 2;
	pthread_mutex_lock(&b->lock);
	slot = tsearch(f, &b->folders, folder_cmp);
	if (slot && *slot != f) {
		old = *slot;
		*slot = f;
	}
	pthread_mutex_unlock(&b->lock);
	folder_release(b, old);
	return slot ? 0 : -ENOMEM;
}

/* The folder @dir as it is now; to be released. */
static int folder_acquire(struct imitation_bucket *b, const char *dir,
			  struct folder **out)
{
	struct folder wanted = {.dir = (char *)dir};
	struct folder **slot, *f = NULL;
	char path[PATH_ROOM];
	struct stat st;
	int err;

	err = path_of(b, dir, path);
	if (err)
		return err;
	if (stat(path, &st))
		return -errno;
	pthread_mutex_lock(&b->lock);
	slot = tfind(&wanted, &b->folders, folder_cmp);
	if (slot && !(*slot)->racy && (*slot)->ino == st.st_ino &&
	    same_time(&(*slot)->mtime, &st.st_mtim)) {
		f = *slot;
		f->refs++;
	}
	pthread_mutex_unlock(&b->lock);
	if (!f) {
		err = folder_read(&f, dir, path);
		if (err)
			return err;
		err = folder_keep(b, f);
		if (err) {
			folder_free(f);
			return err;
		}
	}
	*out = f;
	return 0;
}

/* What a walk hands over: > 0 stops it, < 0 too, as its result. */
typedef int emit_fn(void *arg, const char *key, bool is_prefix);

struct walk {
	struct imitation_bucket *b;
	const char *prefix; /* what every key begins with */
	const char *after;  /* what every key is greater than */
	bool by_folder;	    /* delimiter "/" */
	emit_fn *emit;
	void *arg;
};

static int walk_folder(const struct walk *w, const char *dir);

static int stop(void *arg, const char *key, bool is_prefix)
{
	(void)arg;
	(void)key;
	(void)is_prefix;
	return 1;
}

/* Is there a key below the folder @dir that is greater than @after? */
static int has_key(struct imitation_bucket *b, const char *dir,
		   const char *after)
{
	struct walk w = {b, "", after, false, stop, NULL};

	return walk_folder(&w, dir);
}

static bool begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

/* The first entry from which on keys can be greater than @bound. */
static size_t first_entry(const struct folder *f, const char *bound)
{
	size_t lo = 0, hi = f->n;

	if (!begins(bound, f->dir))
		return strcmp(bound, f->dir) < 0 ? 0 : f->n;
	bound += strlen(f->dir);
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(f->children[mid].name, bound) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* the bound may lie inside the folder just before */
	if (lo && f->children[lo - 1].is_dir &&
	    begins(bound, f->children[lo - 1].name))
		lo--;
	return lo;
}

static int walk_prefix(const struct walk *w, const char *key)
{
	bool passed = strcmp(key, w->after) <= 0;
	int has;

	if (passed && (!begins(w->after, key) || !strcmp(key, w->after)))
		return 0;
	has = has_key(w->b, key, passed ? w->after : "");
	return has > 0 ? w->emit(w->arg, key, true) : has;
}

static int walk_entry(const struct walk *w, const char *dir,
		      const struct child *e)
{
	char key[IMITATION_KEY_MAX + 1];
	int n = snprintf(key, sizeof(key), "%s%s", dir, e->name);

	if (n < 0 || (size_t)n >= sizeof(key))
		return 0;
	if (!begins(key, w->prefix) && !(e->is_dir && begins(w->prefix, key)))
		return 0;
	if (!e->is_dir)
		return strcmp(key, w->after) > 0 ? w->emit(w->arg, key, false)
						 : 0;
	return w->by_folder ? walk_prefix(w, key) : walk_folder(w, key);
}

static int walk_folder(const struct walk *w, const char *dir)
{
	struct folder *f = NULL;
	size_t i, from_prefix;
	int err;

	err = folder_acquire(w->b, dir, &f);
	if (err == -ENOENT || err == -ENOTDIR)
		return 0;
	if (err)
		return err;
	i = first_entry(f, w->after);
	from_prefix = begins(w->prefix, dir) ? first_entry(f, w->prefix) : 0;
	if (i < from_prefix)
		i = from_prefix;
	for (; i < f->n && !err; i++) {
		err = walk_entry(w, dir, &f->children[i]);
		if (begins(w->prefix, dir) &&
		    !begins(f->children[i].name, w->prefix + strlen(dir)) &&
		    strcmp(f->children[i].name, w->prefix + strlen(dir)) > 0)
			break;
	}
	folder_release(w->b, f);
	return err;
}

/* No component that is empty or begins with a dot. */
static bool key_is_plain(const char *key)
{
	if (!begins(key, "data/") || strlen(key) > IMITATION_KEY_MAX)
		return false;
	for (const char *p = key; p; p = strchr(p, '/')) {
		if (*p == '/')
			p++;
		if (*p == '.' || *p == '/' || !*p)
			return false;
	}
	return true;
}

/* As walk_folder(), from the folder in which the prefix ends. */
static int walk(const struct walk *w)
{
	const char *slash = strrchr(w->prefix, '/');
	char dir[IMITATION_KEY_MAX + 1] = "";
	size_t len = slash ? (size_t)(slash - w->prefix) + 1 : 0;

	if (len >= sizeof(dir))
		return 0;
	if (len > 1) {
		memcpy(dir, w->prefix, len - 1);
		if (strcmp(dir, "data") && !key_is_plain(dir))
			return 0;
		dir[len - 1] = '/';
	} else if (len) {
		return 0;
	}
	return walk_folder(w, dir);
}

static int md5_of(int fd, char hex[33])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	void *buf = malloc(HASH_BLOCK);
	off_t off = 0;
	ssize_t n;
	int err = -ENOMEM;

	if (!ctx || !buf || !EVP_DigestInit_ex(ctx, EVP_md5(), NULL))
		goto out;
	while ((n = pread(fd, buf, HASH_BLOCK, off)) > 0) {
		EVP_DigestUpdate(ctx, buf, (size_t)n);
		off += n;
	}
	err = n < 0 ? -errno : 0;
	EVP_DigestFinal_ex(ctx, digest, NULL);
	for (int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
out:
	free(buf);
	EVP_MD_CTX_free(ctx);
	return err;
}

static void digest_keep(struct imitation_bucket *b, const char *path,
			const struct stat *st, const char *hex)
{
	struct digest *d = calloc(1, sizeof(*d)), **slot;

	if (!d || !(d->path = strdup(path))) {
		free(d);
		return;
	}
	pthread_mutex_lock(&b->lock);
	slot = tsearch(d, &b->digests, digest_cmp);
	if (!slot || *slot != d)
		digest_free(d);
	if (slot) {
		(*slot)->mtime = st->st_mtim;
		(*slot)->size = st->st_size;
		(*slot)->ino = st->st_ino;
		memcpy((*slot)->hex, hex, sizeof(d->hex));
	}
	pthread_mutex_unlock(&b->lock);
}

static bool digest_find(struct imitation_bucket *b, const char *path,
			const struct stat *st, char hex[33])
{
	struct digest wanted = {.path = (char *)path}, **slot;
	bool found;

	pthread_mutex_lock(&b->lock);
	slot = tfind(&wanted, &b->digests, digest_cmp);
	found = slot && (*slot)->size == st->st_size &&
		(*slot)->ino == st->st_ino &&
		same_time(&(*slot)->mtime, &st->st_mtim);
	if (found)
		memcpy(hex, (*slot)->hex, sizeof((*slot)->hex));
	pthread_mutex_unlock(&b->lock);
	return found;
}

static int etag_of(struct imitation_bucket *b, const char *path, int fd,
		   const struct stat *st, char etag[IMITATION_ETAG_LEN])
{
	uint64_t size = (uint64_t)st->st_size;
	char hex[33];
	int err;

	if (size > b->multipart_above) {
		snprintf(etag, IMITATION_ETAG_LEN, "%016llx%08llx%08lx-%llu",
			 (unsigned long long)size,
			 (unsigned long long)st->st_mtim.tv_sec & 0xffffffff,
			 (unsigned long)st->st_mtim.tv_nsec,
			 (unsigned long long)((size + PART - 1) / PART));
		return 0;
	}
	if (!digest_find(b, path, st, hex)) {
		err = md5_of(fd, hex);
		if (err)
			return err;
		digest_keep(b, path, st, hex);
	}
	snprintf(etag, IMITATION_ETAG_LEN, "%s", hex);
	return 0;
}

int imitation_bucket_get(struct imitation_bucket *b, const char *key,
			 const char *path, struct imitation_object *out)
{
	char full[PATH_ROOM];
	struct stat st;
	int fd, err = 0;

	if (!key_is_plain(key))
		return -ENOENT;
	if (path && *path == '/')
		err = snprintf(full, sizeof(full), "%s", path) >= PATH_ROOM
			      ? -ENAMETOOLONG
			      : 0;
	else
		err = path_of(b, path ? path : key, full);
	if (err)
		return -ENOENT;
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR || errno == ENAMETOOLONG ? -ENOENT
								 : -errno;
	if (fstat(fd, &st))
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = -ENOENT;
	else
		err = etag_of(b, full, fd, &st, out->etag);
	if (err) {
		close(fd);
		return err;
	}
	out->fd = fd;
	out->size = (uint64_t)st.st_size;
	out->mtime = st.st_mtim.tv_sec;
	return 0;
}

/* One page, as it is gathered. */
struct page {
	size_t room, n;
	struct item {
		char *key;
		bool is_prefix;
	} * items;
	bool truncated;
};

static int page_add(void *arg, const char *key, bool is_prefix)
{
	struct page *p = arg;

	if (p->n == p->room) {
		p->truncated = true;
		return 1;
	}
	p->items[p->n].key = strdup(key);
	if (!p->items[p->n].key)
		return -ENOMEM;
	p->items[p->n++].is_prefix = is_prefix;
	return 0;
}

static void page_free(struct page *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->items[i].key);
	free(p->items);
}

static void put_text(FILE *f, const char *text, bool url)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-_.*/";

	for (; *text; text++) {
		if (url && !strchr(plain, *text))
			fprintf(f, "%%%02X", (unsigned char)*text);
		else if (*text == '&')
			fputs("&amp;", f);
		else if (*text == '<')
			fputs("&lt;", f);
		else if (*text == '>')
			fputs("&gt;", f);
		else if (*text == '"')
			fputs("&quot;", f);
		else
			fputc(*text, f);
	}
}

static void put_element(FILE *f, const char *name, const char *text, bool url)
{
	fprintf(f, "<%s>", name);
	put_text(f, text, url);
	fprintf(f, "</%s>", name);
}

char *imitation_bucket_error(const char *code, const char *message,
			     const char *detail_name, const char *detail,
			     size_t *len)
{
	char *xml = NULL;
	FILE *f = open_memstream(&xml, len);

	if (!f)
		return NULL;
	fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>", f);
	put_element(f, "Code", code, false);
	put_element(f, "Message", message, false);
	if (detail_name)
		put_element(f, detail_name, detail, false);
	put_element(f, "RequestId", "4442587FB7D0A2F9", false);
	put_element(f, "HostId", "imitation", false);
	fputs("</Error>", f);
	if (fclose(f)) {
		free(xml);
		return NULL;
	}
	return xml;
}

static int put_object(FILE *f, struct imitation_bucket *b, const char *key,
		      struct imitation_rules *rules, bool url)
{
	struct imitation_fault fault;
	struct imitation_object o;
	char when[64];
	struct tm tm;
	int err;

	imitation_rules_listed(rules, key, &fault);
	err = imitation_bucket_get(b, key, fault.replace_with, &o);
	if (err)
		return err == -ENOENT ? 0 : err; /* gone since */
	close(o.fd);
	gmtime_r(&o.mtime, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
	fputs("<Contents>", f);
	put_element(f, "Key", key, url);
	put_element(f, "LastModified", when, false);
	fputs("<ETag>&quot;", f);
	put_text(f, fault.etag ? fault.etag : o.etag, false);
	put_text(f, fault.etag_suffix ? fault.etag_suffix : "", false);
	fprintf(f, "&quot;</ETag><Size>%llu</Size>",
		(unsigned long long)o.size);
	put_element(f, "StorageClass", "STANDARD", false);
	fputs("</Contents>", f);
	return 0;
}

/*
 * A continuation token is opaque; base64 makes one that a client has to
 * percent-encode.
 */
static char *token_of(const char *key)
{
	size_t len = strlen(key);
	char *token = malloc(4 * ((len + 2) / 3) + 1);

	if (token)
		EVP_EncodeBlock((unsigned char *)token,
				(const unsigned char *)key, (int)len);
	return token;
}

static int key_of(const char *token, char **key)
{
	size_t len = strlen(token);
	int n;

	*key = NULL;
	if (!len || len % 4 || len > 2 * IMITATION_KEY_MAX)
		return -EINVAL;
	*key = calloc(1, len + 1);
	if (!*key)
		return -ENOMEM;
	n = EVP_DecodeBlock((unsigned char *)*key, (const unsigned char *)token,
			    (int)len);
	if (n < 0) {
		free(*key);
		*key = NULL;
		return -EINVAL;
	}
	return 0;
}

/* A query that was checked. */
struct request {
	const char *prefix, *marker;
	const char *after; /* where the page begins */
	char *token_key;   /* what `after` points to, or NULL */
	unsigned long max_keys;
	bool v2, by_folder, url;
};

static int refuse(char **xml, size_t *len, const char *message,
		  const char *name, const char *value)
{
	*xml = imitation_bucket_error("InvalidArgument", message, name, value,
				      len);
	return *xml ? 400 : -ENOMEM;
}

static int check_query(const struct imitation_bucket *b,
		       const struct imitation_query *q, struct request *r,
		       char **xml, size_t *len)
{
	char *end;

	memset(r, 0, sizeof(*r));
	r->prefix = q->prefix ? q->prefix : "";
	r->v2 = q->list_type && !strcmp(q->list_type, "2");
	r->marker = r->v2 || !q->marker ? "" : q->marker;
	r->after = r->marker;
	if (!r->v2 && q->start_after)
		return refuse(xml, len,
			      "start-after only supported in REST.GET.BUCKET "
			      "list-type=2 requests",
			      "ArgumentName", "start-after");
	if (q->delimiter && *q->delimiter) {
		if (strcmp(q->delimiter, "/")) {
			*xml = imitation_bucket_error(
				"NotImplemented",
				"this imitation knows the delimiter / only",
				"Delimiter", q->delimiter, len);
			return *xml ? 501 : -ENOMEM;
		}
		r->by_folder = true;
	}
	if (q->encoding_type) {
		if (strcmp(q->encoding_type, "url"))
			return refuse(xml, len,
				      "Invalid Encoding Method specified in "
				      "Request",
				      "ArgumentName", "encoding-type");
		r->url = true;
	}
	r->max_keys = b->page_size;
	if (q->max_keys) {
		errno = 0;
		r->max_keys = strtoul(q->max_keys, &end, 10);
		if (errno || *end || q->max_keys[0] < '0' ||
		    q->max_keys[0] > '9' || r->max_keys > INT32_MAX)
			return refuse(xml, len,
				      "Argument maxKeys must be an integer "
				      "between 0 and 2147483647",
				      "ArgumentName", "maxKeys");
		if (r->max_keys > b->page_size)
			r->max_keys = b->page_size;
	}
	if (r->v2 && q->continuation_token) {
		int err = key_of(q->continuation_token, &r->token_key);

		if (err == -EINVAL)
			return refuse(xml, len,
				      "The continuation token provided is "
				      "incorrect",
				      "ArgumentName", "continuation-token");
		if (err)
			return err;
		r->after = r->token_key;
	} else if (r->v2 && q->start_after) {
		r->after = q->start_after;
	}
	return 200;
}

static int put_head(FILE *f, const struct imitation_bucket *b,
		    const struct imitation_query *q, const struct request *r,
		    const struct page *p)
{
	const char *last = p->n ? p->items[p->n - 1].key : "";
	char *token;

	fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult "
	      "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
	      f);
	put_element(f, "Name", b->name, false);
	put_element(f, "Prefix", r->prefix, r->url);
	if (!r->v2) {
		put_element(f, "Marker", r->marker, r->url);
		if (p->truncated && r->by_folder)
			put_element(f, "NextMarker", last, r->url);
	}
	if (r->v2 && q->start_after)
		put_element(f, "StartAfter", q->start_after, r->url);
	if (r->v2 && q->continuation_token)
		put_element(f, "ContinuationToken", q->continuation_token,
			    false);
	if (r->v2 && p->truncated) {
		token = token_of(last);
		if (!token)
			return -ENOMEM;
		put_element(f, "NextContinuationToken", token, false);
		free(token);
	}
	if (r->v2)
		fprintf(f, "<KeyCount>%zu</KeyCount>", p->n);
	fprintf(f, "<MaxKeys>%lu</MaxKeys>", r->max_keys);
	if (r->by_folder)
		put_element(f, "Delimiter", "/", false);
	if (r->url)
		put_element(f, "EncodingType", "url", false);
	fprintf(f, "<IsTruncated>%s</IsTruncated>",
		p->truncated ? "true" : "false");
	return 0;
}

static int put_page(FILE *f, struct imitation_bucket *b,
		    const struct imitation_query *q, const struct request *r,
		    const struct page *p, struct imitation_rules *rules)
{
	int err = put_head(f, b, q, r, p);

	for (size_t i = 0; i < p->n && !err; i++)
		if (!p->items[i].is_prefix)
			err = put_object(f, b, p->items[i].key, rules, r->url);
	for (size_t i = 0; i < p->n && !err; i++) {
		if (!p->items[i].is_prefix)
			continue;
		fputs("<CommonPrefixes>", f);
		put_element(f, "Prefix", p->items[i].key, r->url);
		fputs("</CommonPrefixes>", f);
	}
	fputs("</ListBucketResult>", f);
	return err;
}

int imitation_bucket_list(struct imitation_bucket *b,
			  const struct imitation_query *q,
			  struct imitation_rules *rules, char **xml,
			  size_t *len)
{
	struct request r;
	struct page p = {0};
	struct walk w = {b, "", "", false, page_add, &p};
	FILE *f = NULL;
	char *text = NULL;
	int status, err = 0;

	status = check_query(b, q, &r, xml, len);
	if (status != 200)
		return status;
	p.room = r.max_keys;
	p.items = calloc(p.room + 1, sizeof(*p.items));
	f = open_memstream(&text, len);
	if (!p.items || !f) {
		err = -ENOMEM;
		goto out;
	}
	w.prefix = r.prefix;
	w.after = r.after;
	w.by_folder = r.by_folder;
	if (p.room && !q->empty)
		err = walk(&w);
	if (err >= 0)
		err = put_page(f, b, q, &r, &p, rules);
out:
	if (f && fclose(f) && !err)
		err = -ENOMEM;
	page_free(&p);
	free(r.token_key);
	if (err) {
		free(text);
		return err;
	}
	*xml = text;
	return 200;
}

void imitation_bucket_refresh(struct imitation_bucket *b)
{
	void *folders, *digests;

	pthread_mutex_lock(&b->lock);
	folders = b->folders;
	digests = b->digests;
	b->folders = NULL;
	b->digests = NULL;
	pthread_mutex_unlock(&b->lock);
	while (folders) {
		struct folder *f = *(struct folder **)folders;

		tdelete(f, &folders, folder_cmp);
		folder_release(b, f);
	}
	tdestroy(digests, digest_free);
}

int imitation_bucket_open(struct imitation_bucket **out, const char *root,
			  const char *name, unsigned int page_size,
			  uint64_t multipart_above)
{
	struct imitation_bucket *b;
	int fd;

	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(fd);
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	pthread_mutex_init(&b->lock, NULL);
	b->page_size = page_size;
	b->multipart_above = multipart_above;
	b->root = strdup(root);
	b->name = strdup(name);
	if (!b->root || !b->name) {
		imitation_bucket_close(b);
		return -ENOMEM;
	}
	*out = b;
	return 0;
}

void imitation_bucket_close(struct imitation_bucket *b)
{
	if (!b)
		return;
	imitation_bucket_refresh(b);
	pthread_mutex_destroy(&b->lock);
	free(b->root);
	free(b->name);
	free(b);
}

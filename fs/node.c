#include "fs/node.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/when.h"

enum {
	STALE_AT_MOST = 2,
	/* Who got ENOENT still holds the name for a moment: until then the
	 * kernel can't drop it. */
	ABSENT_MS = 100,
};

TAILQ_HEAD(node_list, node);

struct nodes {
	pthread_mutex_t lock;
	void *tree; /* tsearch(3) by path, version; protected by lock */
	size_t n;   /* protected by lock */
	/* Each in the table is on one of these; the one looked up, or found
	 * absent, longest ago is first. Protected by lock. */
	struct node_list present, absent;
	struct node *root;
	_Atomic uint64_t control; /* control nodes made so far */
};

static const char *text_of(const char *s)
{
	return s ? s : "";
}

/* Makes @text what *s holds; false for want of memory. */
static bool set_text(char **s, const char *text)
{
	char *copy = NULL;

	if (strcmp(text_of(*s), text) == 0)
		return true;
	if (*text) {
		copy = strdup(text);
		if (!copy)
			return false;
	}
	free(*s);
	*s = copy;
	return true;
}

static bool set_target(struct node *n, const struct tree_target *tg)
{
	n->sort = tg->sort;
	n->provisional = tg->provisional && !n->proven;
	return set_text(&n->key, tg->key);
}

/* Numbers first: they tell nearly all apart in one step. */
static int by_path(const void *a, const void *b)
{
	const struct node *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return strcmp(x->path, y->path);
}

static int by_path_and_version(const void *a, const void *b)
{
	const struct node *x = a, *y = b;
	int c = by_path(a, b);

	return c ? c : strcmp(text_of(x->version), text_of(y->version));
}

static void node_free(void *arg)
{
	struct node *n = arg;

	if (!n)
		return;
	free(n->text);
	free(n->key);
	free(n->version);
	free(n->path);
	free(n);
}

/*
 * FNV-1a, and then the last step of MurmurHash3, so that every bit of the path
 * counts in every bit. A folder of thousands asks for as many; a digest took
 * longer than all the rest of READDIR. Whoever makes two names collide gets two
 * files of one st_ino, and st_nlink 1 still says that they are two.
 */
uint64_t node_ino(const char *path)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	if (!*path)
		return 1;
	for (const char *p = path; *p; p++)
		h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
	h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
	h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
	h ^= h >> 33;
	return h > 1 ? h : 2;
}

static struct node *node_new(struct nodes *t, const char *path,
			     const struct tree_target *tg, const char *version)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->table = t;
	n->told = UINT64_MAX;
	n->ino = node_ino(path);
	n->path = strdup(path);
	if (!n->path || !set_target(n, tg) || !set_text(&n->version, version)) {
		node_free(n);
		return NULL;
	}
	return n;
}

int node_table_create(struct nodes **out)
{
	struct nodes *t = calloc(1, sizeof(*t));
	struct tree_target root = {.sort = TREE_FOLDER};

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	TAILQ_INIT(&t->present);
	TAILQ_INIT(&t->absent);
	t->root = node_new(t, "", &root, "");
	if (!t->root) {
		node_table_free(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

void node_table_free(struct nodes *t)
{
	if (!t)
		return;
	tdestroy(t->tree, node_free);
	node_free(t->root);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

struct node *node_root(struct nodes *t)
{
	return t->root;
}

static struct node *find_locked(struct nodes *t, const char *path,
				const char *version)
{
	struct node probe = {
		.path = (char *)path,
		.version = (char *)version,
		.ino = node_ino(path),
	};
	struct node **found;

	found = tfind(&probe, &t->tree, by_path_and_version);
	return found ? *found : NULL;
}

static struct node_list *list_of(struct nodes *t, const struct node *n)
{
	return n->absent ? &t->absent : &t->present;
}

static bool insert_locked(struct nodes *t, struct node *n)
{
	n->in_table = tsearch(n, &t->tree, by_path_and_version) != NULL;
	if (n->in_table) {
		TAILQ_INSERT_TAIL(list_of(t, n), n, by_age);
		t->n++;
	}
	return n->in_table;
}

static void remove_locked(struct nodes *t, struct node *n)
{
	if (n->in_table) {
		tdelete(n, &t->tree, by_path_and_version);
		TAILQ_REMOVE(list_of(t, n), n, by_age);
		t->n--;
	}
	n->in_table = false;
}

/* Makes it the youngest of the absent, or of the others. */
static void renew_locked(struct nodes *t, struct node *n, bool absent)
{
	if (!n->in_table)
		return;
	TAILQ_REMOVE(list_of(t, n), n, by_age);
	n->absent = absent;
	TAILQ_INSERT_TAIL(list_of(t, n), n, by_age);
}

static bool adopt_locked(struct nodes *t, struct node *n, const char *version)
{
	bool taken;

	if (strcmp(text_of(n->version), version) == 0)
		return true;
	if (n->version || find_locked(t, n->path, version))
		return false;
	remove_locked(t, n);
	taken = set_text(&n->version, version);
	insert_locked(t, n);
	return taken;
}

struct node *node_lookup(struct nodes *t, const char *path,
			 const struct tree_target *tg, const char *version)
{
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = find_locked(t, path, version);
	if (!n) {
		n = find_locked(t, path, "");
		if (n && !adopt_locked(t, n, version))
			n = NULL;
	}
	if (n)
		renew_locked(t, n, false);
	if (!n) {
		n = node_new(t, path, tg, version);
		if (n && !insert_locked(t, n)) {
			node_free(n);
			n = NULL;
		}
	}
	if (n && set_target(n, tg)) {
		n->lookups++;
		n->looked_up_ms = when_ms();
	} else {
		n = NULL;
	}
	pthread_mutex_unlock(&t->lock);
	return n;
}

bool node_is_known(struct nodes *t, const char *path, uint64_t ms)
{
	struct node probe = {.path = (char *)path, .ino = node_ino(path)};
	struct node **found;
	bool known;

	pthread_mutex_lock(&t->lock);
	found = tfind(&probe, &t->tree, by_path);
	known = found && when_ms() - (*found)->looked_up_ms < ms;
	pthread_mutex_unlock(&t->lock);
	return known;
}

struct node *node_control(struct nodes *t, const char *path,
			  const struct tree_target *tg, char *text, size_t len)
{
	char version[32];
	struct node *n;
	bool kept;

	/* Each is a version of its own, so that the table has them all and
	 * they go with it where the kernel does not forget them first. */
	snprintf(version, sizeof(version), "#%llu",
		 (unsigned long long)atomic_fetch_add(&t->control, 1));
	n = node_new(t, path, tg, version);
	if (!n) {
		free(text);
		return NULL;
	}
	n->text = text;
	n->text_len = len;
	n->told = len;
	n->lookups = 1;
	pthread_mutex_lock(&t->lock);
	kept = insert_locked(t, n);
	pthread_mutex_unlock(&t->lock);
	if (!kept) {
		node_free(n);
		return NULL;
	}
	return n;
}

void node_hold(struct node *n)
{
	pthread_mutex_lock(&n->table->lock);
	n->lookups++;
	pthread_mutex_unlock(&n->table->lock);
}

void node_forget(struct nodes *t, struct node *n, uint64_t count)
{
	bool gone;

	if (n == t->root)
		return;
	pthread_mutex_lock(&t->lock);
	n->lookups -= count < n->lookups ? count : n->lookups;
	gone = n->lookups == 0;
	if (gone)
		remove_locked(t, n);
	pthread_mutex_unlock(&t->lock);
	if (gone)
		node_free(n);
}

void node_target(struct node *n, struct tree_target *out)
{
	pthread_mutex_lock(&n->table->lock);
	*out = (struct tree_target){
		.sort = n->sort,
		.provisional = n->provisional,
	};
	snprintf(out->key, sizeof(out->key), "%s", text_of(n->key));
	pthread_mutex_unlock(&n->table->lock);
}

void node_set_target(struct node *n, const struct tree_target *tg)
{
	pthread_mutex_lock(&n->table->lock);
	set_target(n, tg);
	pthread_mutex_unlock(&n->table->lock);
}

bool node_adopt(struct node *n, const char *version)
{
	bool same;

	pthread_mutex_lock(&n->table->lock);
	same = adopt_locked(n->table, n, version);
	pthread_mutex_unlock(&n->table->lock);
	return same;
}

void node_told(struct node *n, uint64_t size, int64_t mtime)
{
	pthread_mutex_lock(&n->table->lock);
	n->told = size;
	n->told_mtime = mtime;
	n->stale_sent = 0;
	pthread_mutex_unlock(&n->table->lock);
}

bool node_was_told(struct node *n, uint64_t *size, int64_t *mtime)
{
	bool told;

	pthread_mutex_lock(&n->table->lock);
	told = n->told != UINT64_MAX;
	if (told) {
		*size = n->told;
		*mtime = n->told_mtime;
	}
	pthread_mutex_unlock(&n->table->lock);
	return told;
}

bool node_must_tell(struct node *n, uint64_t size)
{
	bool must;

	pthread_mutex_lock(&n->table->lock);
	must = n->told != size && n->stale_sent < STALE_AT_MOST;
	if (must)
		n->stale_sent++;
	pthread_mutex_unlock(&n->table->lock);
	return must;
}

/* The node of the folder above @n; NULL if that is the root. */
static struct node *above_locked(struct nodes *t, const struct node *n)
{
	const char *slash = strrchr(n->path, '/');
	struct node *above;
	char *path;

	path = slash ? strndup(n->path, (size_t)(slash - n->path)) : NULL;
	above = path ? find_locked(t, path, "") : NULL;
	free(path);
	return above;
}

void node_prove(struct node *n)
{
	struct nodes *t = n->table;

	pthread_mutex_lock(&t->lock);
	if (n->sort != TREE_FOLDER)
		n = above_locked(t, n);
	for (; n && !n->proven; n = above_locked(t, n)) {
		n->proven = true;
		n->provisional = false;
	}
	pthread_mutex_unlock(&t->lock);
}

void node_absent(struct node *n, uint64_t now_ms)
{
	struct nodes *t = n->table;

	pthread_mutex_lock(&t->lock);
	do {
		n->absent_ms = now_ms;
		n->proven = false;
		renew_locked(t, n, true);
		n = above_locked(t, n);
	} while (n && n->provisional);
	pthread_mutex_unlock(&t->lock);
}

size_t node_surplus(struct nodes *t, uint64_t now_ms, size_t limit,
		    uint64_t *ids, size_t room)
{
	struct node *n;
	size_t k = 0, more;

	pthread_mutex_lock(&t->lock);
	for (; k < room && (n = TAILQ_FIRST(&t->absent)); k++) {
		if (n->absent_ms + ABSENT_MS > now_ms)
			break;
		ids[k] = (uint64_t)(uintptr_t)n;
		renew_locked(t, n, false);
	}
	more = t->n > limit + k ? t->n - limit - k : 0;
	for (; k < room && more && (n = TAILQ_FIRST(&t->present)); k++) {
		ids[k] = (uint64_t)(uintptr_t)n;
		renew_locked(t, n, false);
		more--;
	}
	pthread_mutex_unlock(&t->lock);
	return k;
}

size_t node_table_count(struct nodes *t)
{
	size_t n;

	pthread_mutex_lock(&t->lock);
	n = t->n;
	pthread_mutex_unlock(&t->lock);
	return n;
}

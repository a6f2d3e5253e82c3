/*
 * What was asked of the catalog last, in memory: most questions come again at
 * once, for one path or one file, and on threads that answer the kernel.
 *
 * An answer belongs to a scope, the prefix of a listing or the key of an
 * object: a write changes all answers of a scope and counts its generation up.
 * An answer that was read while that happened is not kept. So what is found
 * here is what the database holds, as this program alone writes it.
 *
 * Generations are kept for groups of scopes; a group that is shared costs a
 * look into the database.
 */
#include <assert.h>
#include <stdlib.h>

#include "cache/catalog_priv.h"

enum {
	SETS = 4096, /* powers of two */
	WAYS = 4,
	GROUPS = 256,
};

struct answer {
	uint64_t hash, generation;
	enum catalog_question question;
	int err;
	size_t scope_len, name_len; /* with their NULs */
	size_t size;
	char bytes[]; /* scope, name, value */
};

struct set {
	struct answer *ways[WAYS];
	unsigned int oldest;
};

struct catalog_memory {
	pthread_mutex_t lock;
	uint64_t generations[GROUPS]; /* all protected by lock */
	struct set sets[SETS];
};

/* FNV-1a, 64 bits. A key made to collide costs a look into the database. */
static uint64_t hash_text(uint64_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * UINT64_C(0x100000001b3);
	return h;
}

static uint64_t hash_scope(const char *scope)
{
	uint64_t h = hash_text(UINT64_C(0xcbf29ce484222325), scope);

	return h ^ h >> 32;
}

static uint64_t hash_whole(uint64_t scope, const struct catalog_asked *q)
{
	uint64_t h = hash_text(scope ^ (uint64_t)q->question << 56, q->name);

	return h ^ h >> 29;
}

static uint64_t *generation_locked(struct catalog_memory *m, uint64_t scope)
{
	return &m->generations[scope % GROUPS];
}

static bool is_answer(const struct answer *a, uint64_t hash,
		      const struct catalog_asked *q)
{
	return a && a->hash == hash && a->question == q->question &&
	       strcmp(a->bytes, q->scope) == 0 &&
	       strcmp(a->bytes + a->scope_len, q->name) == 0;
}

bool catalog_memory_get(struct catalog_memory *m, struct catalog_asked *q,
			void *value, size_t size, int *err)
{
	uint64_t scope = hash_scope(q->scope), hash = hash_whole(scope, q);
	struct set *set = &m->sets[hash % SETS];
	const struct answer *a;
	bool found = false;

	pthread_mutex_lock(&m->lock);
	q->generation = *generation_locked(m, scope);
	for (int i = 0; i < WAYS && !found; i++) {
		a = set->ways[i];
		if (!is_answer(a, hash, q) || a->generation != q->generation)
			continue;
		assert(a->err || a->size == size);
		if (!a->err)
			memcpy(value, a->bytes + a->scope_len + a->name_len,
			       size);
		*err = a->err;
		found = true;
	}
	pthread_mutex_unlock(&m->lock);
	return found;
}

static struct answer *answer_new(const struct catalog_asked *q, uint64_t hash,
				 const void *value, size_t size, int err)
{
	size_t scope_len = strlen(q->scope) + 1, name_len = strlen(q->name) + 1;
	struct answer *a = malloc(sizeof(*a) + scope_len + name_len + size);

	if (!a)
		return NULL;
	*a = (struct answer){
		.hash = hash,
		.generation = q->generation,
		.question = q->question,
		.err = err,
		.scope_len = scope_len,
		.name_len = name_len,
		.size = size,
	};
	memcpy(a->bytes, q->scope, scope_len);
	memcpy(a->bytes + scope_len, q->name, name_len);
	if (size)
		memcpy(a->bytes + scope_len + name_len, value, size);
	return a;
}

/* The way it is in already, one that is out of date, or the oldest. */
static struct answer **place_locked(struct catalog_memory *m, struct set *set,
				    uint64_t hash,
				    const struct catalog_asked *q)
{
	for (int i = 0; i < WAYS; i++)
		if (!set->ways[i] || is_answer(set->ways[i], hash, q))
			return &set->ways[i];
	for (int i = 0; i < WAYS; i++)
		if (set->ways[i]->generation !=
		    *generation_locked(m, hash_scope(set->ways[i]->bytes)))
			return &set->ways[i];
	return &set->ways[set->oldest++ % WAYS];
}

void catalog_memory_put(struct catalog_memory *m, const struct catalog_asked *q,
			const void *value, size_t size, int err)
{
	uint64_t scope = hash_scope(q->scope), hash = hash_whole(scope, q);
	struct answer *a, **place;

	a = answer_new(q, hash, value, err ? 0 : size, err);
	if (!a)
		return;
	pthread_mutex_lock(&m->lock);
	if (q->generation == *generation_locked(m, scope)) {
		struct answer *before;

		place = place_locked(m, &m->sets[hash % SETS], hash, q);
		before = *place;
		*place = a;
		a = before;
	}
	pthread_mutex_unlock(&m->lock);
	free(a);
}

void catalog_memory_forget(struct catalog_memory *m, const char *scope)
{
	pthread_mutex_lock(&m->lock);
	(*generation_locked(m, hash_scope(scope)))++;
	pthread_mutex_unlock(&m->lock);
}

void catalog_memory_forget_all(struct catalog_memory *m)
{
	pthread_mutex_lock(&m->lock);
	for (int i = 0; i < GROUPS; i++)
		m->generations[i]++;
	pthread_mutex_unlock(&m->lock);
}

struct catalog_memory *catalog_memory_create(void)
{
	struct catalog_memory *m = calloc(1, sizeof(*m));

	if (m)
		pthread_mutex_init(&m->lock, NULL);
	return m;
}

void catalog_memory_free(struct catalog_memory *m)
{
	if (!m)
		return;
	for (int i = 0; i < SETS; i++)
		for (int j = 0; j < WAYS; j++)
			free(m->sets[i].ways[j]);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

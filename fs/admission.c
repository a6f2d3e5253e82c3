/*
 * States, each left by the runner alone:
 *
 *   START_AGAIN once what was asked before has answered
 *   BEGIN       staging opened, what it holds judged, download started
 *   FOLLOW      bytes come in, are digested and decoded behind them
 *   INDEX       all bytes are digested; the rest of them is decoded
 *   JUDGE       three witnesses, one verdict; or the next source
 *   RECONSIDER  only the .CHECKSUM disagreed: asked for again elsewhere
 *   SMALL       a small plain object, got whole into memory
 *   END         the result is known; waits for requests to answer
 *
 * Callbacks of the fetch thread note what came and kick the runner; the runner
 * is on at most one worker at a time and owns everything not marked otherwise.
 *
 * Beside it the decoder, a work of its own on the same workers, does one half
 * of the ingest (fs/ingest.h): from begin_decode() until it has answered as a
 * request does, by a->decode. Until then the runner leaves that half alone but
 * for ingest_help(), and frees neither it nor the staging.
 */
#include "fs/admission.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fetch/checksum.h"
#include "fs/ingest.h"
#include "fs/log.h"
#include "fs/metrics.h"
#include "fs/path.h"
#include "fs/when.h"

enum {
	STEP_BYTES = 16 << 20, /* of work before others get their turn */
	KICK_BYTES = 1 << 20,  /* a download wakes the digests each time */
	/* The decoder wakes the runner to help each time; it has room for what
	 * comes of twice as much meanwhile. */
	HELP_BYTES = 2 << 20,
	HELPS = 8, /* before others get their turn */
	CHECKSUM_MAX = 4096,
	CHANGES_MAX = 3, /* the object may change under us so often */
};

enum activity { IDLE, QUEUED, RUNNING, AGAIN };

enum state { BEGIN, START_AGAIN, FOLLOW, INDEX, JUDGE, RECONSIDER, SMALL, END };

/* One request under way; protected by lock. */
struct asked {
	origin_id id;
	bool waiting;
	int err;
};

struct admission {
	struct admission_env env;
	char *key, *checksum_key;
	const char *name; /* last component of key */
	bool is_zip;
	struct prefill_fill *fill;
	admission_done_fn *done;
	void *arg;

	struct work work, decode_work;
	pthread_mutex_t lock;
	enum activity runner, decoder;		      /* protected by lock */
	bool cancelled;				      /* protected by lock */
	struct asked download, checksum, head, small; /* protected by lock */
	struct asked decode;	      /* the decoder; likewise */
	bool stop_decoding;	      /* protected by lock */
	uint64_t arrived;	      /* bytes in staging; protected by lock */
	bool whole;		      /* they are all; protected by lock */
	uint64_t total;		      /* protected by lock */
	struct origin_meta seen;      /* of a changed object; likewise */
	struct origin_meta named;     /* where `meta` has no ETag; likewise */
	char *text;		      /* .CHECKSUM or small object; likewise */
	size_t text_len;	      /* likewise */
	struct origin_meta text_meta; /* likewise */
	bool head_changed;	      /* likewise */
	struct origin_meta head_meta; /* likewise */

	enum state state;
	enum origin_source source;
	struct origin_meta meta; /* what is being fetched */
	uint64_t from;		 /* where the download began */
	uint64_t kicked_at;	 /* fetch thread only */
	uint64_t unhelped;	 /* the decoder's */
	bool doubted; /* bytes were found wrong: other sources are asked */
	enum { KEEP, REPLACE, DROP } staged; /* when it starts again */
	bool restarted;			     /* it did */
	bool afforded; /* the budget has promised what is to come */
	bool recheck, local, resumed, changed, too_big;
	bool heard; /* the .CHECKSUM asked for with the bytes is evidence */
	unsigned int changes;
	uint64_t started_ms;
	struct store_staging *sg;
	struct ingest *ingest;
	struct store_info info;
	struct verdict_evidence evidence;
	char *published_text; /* what info.published was parsed from */
	size_t published_len;
	struct origin_meta published_meta;
	char text_origin[CATALOG_ORIGIN_MAX]; /* of the .CHECKSUM heard */
	struct admission_result result;
	char reason[256];
};

/* ---- the runner ---- */

static void wake_locked(struct admission *a, enum activity *it,
			struct work *work)
{
	if (*it == IDLE) {
		*it = QUEUED;
		workers_submit(a->env.workers, work);
	} else if (*it == RUNNING) {
		*it = AGAIN;
	}
}

/* At the end of a turn: another one, or not. */
static void rest_locked(struct admission *a, enum activity *it,
			struct work *work, bool again)
{
	again = again || *it == AGAIN;
	*it = again ? QUEUED : IDLE;
	if (again)
		workers_submit(a->env.workers, work);
}

static void kick_locked(struct admission *a)
{
	wake_locked(a, &a->runner, &a->work);
}

static void kick_decoder_locked(struct admission *a)
{
	if (a->decode.waiting)
		wake_locked(a, &a->decoder, &a->decode_work);
}

static void kick(struct admission *a)
{
	pthread_mutex_lock(&a->lock);
	kick_locked(a);
	pthread_mutex_unlock(&a->lock);
}

static void finish(struct admission *a, int err)
{
	a->result.err = err;
	a->state = END;
}

/* Another source that can't be asked does not lift what the first one's bytes
 * were found to be. */
static void fail(struct admission *a, int err)
{
	/* budget_spent is told once a day; this is why what was begun ends. */
	if (a->restarted && err == -EDQUOT)
		log_event(LOG_LEVEL_WARN, "downloader", "restart_refused",
			  log_str("key", a->key),
			  log_str("reason", "the rest of the budget"), LOG_END);
	if (a->doubted &&
	    (err == -ENETUNREACH || err == -ETIMEDOUT || err == -ENOENT ||
	     err == -EACCES || err == -EPROTO)) {
		a->result.verdict = VERDICT_DAMAGED;
		err = -EBADMSG;
	}
	finish(a, err);
}

static void __attribute__((format(printf, 2, 3)))
set_reason(struct admission *a, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(a->reason, sizeof(a->reason), format, ap);
	va_end(ap);
}

/* ---- callbacks on the fetch thread ---- */

/* Under lock: an answer came; whoever waits for it is told. */
static void settle_locked(struct admission *a, struct asked *q, int err)
{
	q->waiting = false;
	q->id = 0;
	q->err = err;
	kick_locked(a);
}

static bool same_version(const struct origin_meta *a,
			 const struct origin_meta *b)
{
	if (a->etag[0] && b->etag[0] && strcmp(a->etag, b->etag) != 0)
		return false;
	return a->size == UINT64_MAX || b->size == UINT64_MAX ||
	       a->size == b->size;
}

static int on_start(void *arg, const struct origin_meta *meta, uint64_t from)
{
	struct admission *a = arg;
	bool fits;

	pthread_mutex_lock(&a->lock);
	fits = from == a->arrived && same_version(&a->meta, meta);
	if (!fits)
		a->seen = *meta;
	else if (!a->meta.etag[0])
		a->named = *meta;
	pthread_mutex_unlock(&a->lock);
	return fits ? 0 : -ESTALE;
}

static int on_data(void *arg, const void *buf, size_t len)
{
	struct admission *a = arg;
	int err = store_staging_write(a->sg, buf, len);

	if (err)
		return err;
	pthread_mutex_lock(&a->lock);
	a->arrived += len;
	if (a->arrived - a->kicked_at >= KICK_BYTES) {
		a->kicked_at = a->arrived;
		kick_locked(a);
		kick_decoder_locked(a);
	}
	pthread_mutex_unlock(&a->lock);
	return 0;
}

static void on_downloaded(void *arg, int err)
{
	struct admission *a = arg;

	pthread_mutex_lock(&a->lock);
	a->whole = !err;
	settle_locked(a, &a->download, err);
	kick_decoder_locked(a);
	pthread_mutex_unlock(&a->lock);
}

/* Keeps a copy of a small body. */
static void take_text(struct admission *a, struct asked *q, int err,
		      const struct origin_meta *meta, const void *data,
		      size_t len)
{
	char *copy = NULL;

	if (!err) {
		copy = malloc(len + 1);
		if (copy) {
			if (len)
				memcpy(copy, data, len);
			copy[len] = '\0';
		} else {
			err = -ENOMEM;
		}
	}
	pthread_mutex_lock(&a->lock);
	free(a->text);
	a->text = copy;
	a->text_len = len;
	a->text_meta = *meta;
	settle_locked(a, q, err);
	pthread_mutex_unlock(&a->lock);
}

static void on_checksum(void *arg, int err, const struct origin_meta *meta,
			const void *data, size_t len)
{
	struct admission *a = arg;

	take_text(a, &a->checksum, err, meta, data, len);
}

static void on_small(void *arg, int err, const struct origin_meta *meta,
		     const void *data, size_t len)
{
	struct admission *a = arg;

	take_text(a, &a->small, err, meta, data, len);
}

static void on_head(void *arg, int err, bool changed,
		    const struct origin_meta *meta)
{
	struct admission *a = arg;

	pthread_mutex_lock(&a->lock);
	a->head_changed = changed;
	if (meta)
		a->head_meta = *meta;
	settle_locked(a, &a->head, err);
	pthread_mutex_unlock(&a->lock);
}

/* ---- asking ---- */

/* Marks @q as asked before the request exists, since its answer may come
 * before the caller of origin_*() has the id. */
static void ask_begin(struct admission *a, struct asked *q)
{
	pthread_mutex_lock(&a->lock);
	q->waiting = true;
	q->id = 0;
	q->err = 0;
	pthread_mutex_unlock(&a->lock);
}

static void ask_end(struct admission *a, struct asked *q, origin_id id)
{
	bool cancel = false;

	pthread_mutex_lock(&a->lock);
	if (!id) {
		q->waiting = false;
		q->err = -ENOMEM;
		kick_locked(a);
	} else if (q->waiting) {
		q->id = id;
		cancel = a->cancelled && q == &a->download;
	}
	pthread_mutex_unlock(&a->lock);
	if (cancel)
		origin_cancel(a->env.origin, id);
}

static void ask_checksum(struct admission *a)
{
	ask_begin(a, &a->checksum);
	ask_end(a, &a->checksum,
		origin_get(a->env.origin, a->source, a->checksum_key,
			   CHECKSUM_MAX, on_checksum, a));
}

static void ask_head(struct admission *a)
{
	ask_begin(a, &a->head);
	ask_end(a, &a->head,
		origin_head(a->env.origin, a->source, a->key,
			    a->meta.etag[0] ? a->meta.etag : NULL, on_head, a));
}

static void ask_download(struct admission *a)
{
	static const struct origin_sink sink = {
		.start = on_start,
		.data = on_data,
		.done = on_downloaded,
	};

	ask_begin(a, &a->download);
	ask_end(a, &a->download,
		origin_download(a->env.origin, a->source, a->key,
				a->from ? a->meta.etag : NULL, a->from, &sink,
				a));
}

static bool answered(struct admission *a, struct asked *q, int *err)
{
	bool waiting;

	pthread_mutex_lock(&a->lock);
	waiting = q->waiting;
	*err = q->err;
	pthread_mutex_unlock(&a->lock);
	return !waiting;
}

/* ---- the decoder ---- */

static int on_decoded(void *arg, unsigned int stream, uint64_t off,
		      const void *buf, size_t len)
{
	struct admission *a = arg;
	int err = prefill_bytes(a->fill, stream, off, buf, len);

	a->unhelped += len;
	if (a->unhelped >= HELP_BYTES) {
		a->unhelped = 0;
		kick(a);
	}
	return err;
}

/* The runner, while the decoder is at work. */
static void help(struct admission *a)
{
	for (int i = 0; i < HELPS && ingest_help(a->ingest); i++)
		;
}

static void decode(struct work *work)
{
	struct admission *a = container_of(work, struct admission, decode_work);
	uint64_t arrived;
	bool whole, stop;
	int ret = -ECANCELED;

	pthread_mutex_lock(&a->lock);
	a->decoder = RUNNING;
	arrived = a->arrived;
	whole = a->whole;
	stop = a->stop_decoding;
	pthread_mutex_unlock(&a->lock);
	if (!stop)
		ret = ingest_decode(a->ingest, arrived, whole, STEP_BYTES,
				    on_decoded, a);
	pthread_mutex_lock(&a->lock);
	if (ret == 1 || ret == -EAGAIN) {
		rest_locked(a, &a->decoder, work, ret == 1);
	} else {
		a->decoder = IDLE;
		settle_locked(a, &a->decode, ret);
	}
	pthread_mutex_unlock(&a->lock);
}

/* Under lock: what has arrived, and all that will, is decoded from now on. */
static void begin_decode_locked(struct admission *a, bool whole)
{
	a->whole = whole;
	a->stop_decoding = false;
	a->decode = (struct asked){.waiting = true};
	kick_decoder_locked(a);
}

/* ---- where bytes are from ---- */

/* One too long to be kept is as one not known. */
static void set_origin(char to[CATALOG_ORIGIN_MAX], const char *base)
{
	snprintf(to, CATALOG_ORIGIN_MAX, "%s",
		 strlen(base) < CATALOG_ORIGIN_MAX ? base : "");
}

/* The mirror and what lies past caches are of the same archive. */
static void from_this_origin(struct admission *a, char to[CATALOG_ORIGIN_MAX])
{
	set_origin(to, origin_base(a->env.origin));
}

/* Bytes that were in the cache are from where its row said. Where that is lost,
 * whose .CHECKSUM they have, has them. */
static void find_origin(struct admission *a)
{
	if (!a->local)
		from_this_origin(a, a->info.origin);
	else if (*store_staging_origin(a->sg))
		set_origin(a->info.origin, store_staging_origin(a->sg));
	else if (a->evidence.sha256 == VERDICT_HOLDS)
		set_origin(a->info.origin, a->text_origin);
	else
		set_origin(a->info.origin, "");
}

/* ---- BEGIN ---- */

static int open_staging(struct admission *a)
{
	int err;

	if (a->sg)
		return 0;
	if (a->recheck) {
		err = store_recheck(a->env.store, a->key, &a->sg);
		if (!err) {
			a->local = true;
			return 0;
		}
		/* What can't be read stays where it is until there is
		 * something in its place. */
		if (err != -ENOENT && (err != -EIO || a->env.offline))
			return err;
		a->recheck = false;
	}
	return store_stage(a->env.store, a->key, &a->sg);
}

/* Do the bytes in staging belong to the version wanted? */
static bool staging_fits(const struct admission *a)
{
	uint64_t bytes = store_staging_bytes(a->sg);
	struct origin_meta staged = {
		.size = store_staging_size(a->sg),
	};

	snprintf(staged.etag, sizeof(staged.etag), "%s",
		 store_staging_etag(a->sg));
	if (!same_version(&a->meta, &staged))
		return false;
	if (a->local)
		return a->meta.size == UINT64_MAX || a->meta.size == bytes;
	/* Part of a version that has no name can't be told from another. */
	return staged.etag[0] && a->meta.etag[0] && bytes <= a->meta.size;
}

/* What is in the cache counts as the whole object, whatever it is called. */
static void adopt_local(struct admission *a)
{
	uint64_t bytes = store_staging_bytes(a->sg);

	if (!a->meta.etag[0])
		snprintf(a->meta.etag, sizeof(a->meta.etag), "%s",
			 store_staging_etag(a->sg));
	if (a->meta.last_modified < 0)
		a->meta.last_modified = store_staging_last_modified(a->sg);
	a->meta.size = bytes;
	a->from = bytes;
}

/* May all from @from on be downloaded? */
static int afford(struct admission *a, uint64_t from)
{
	uint64_t lacking =
		a->meta.size == UINT64_MAX ? UINT64_MAX : a->meta.size - from;
	int err;

	if (a->env.offline)
		return -ENETUNREACH;
	err = budget_begin(a->env.budget, a->key, lacking, when_now());
	a->afforded = !err;
	return err;
}

/* What is staged may be of use until other bytes can come in its place: those
 * are promised first. */
static int replace_staged(struct admission *a)
{
	int err = afford(a, 0);

	if (!err)
		err = store_staging_discard(a->sg);
	if (!err)
		a->local = false;
	return err;
}

/* It was found wrong, and goes at any rate. */
static int drop_staged(struct admission *a)
{
	a->local = false;
	return store_staging_discard(a->sg);
}

static int begin_download(struct admission *a)
{
	int err = a->afforded ? 0 : afford(a, a->from);

	a->afforded = false;
	if (err)
		return err;
	err = store_staging_begin(a->sg, a->meta.etag, a->meta.size,
				  a->meta.last_modified, a->from);
	if (err)
		return err;
	pthread_mutex_lock(&a->lock);
	a->arrived = a->from;
	a->named = (struct origin_meta){.last_modified = -1};
	a->kicked_at = a->from;
	a->total = a->meta.size;
	begin_decode_locked(a, false);
	pthread_mutex_unlock(&a->lock);
	log_event(LOG_LEVEL_INFO, "downloader",
		  a->from ? "download_resumed" : "download_started",
		  log_str("key", a->key), log_u64("from", a->from),
		  log_u64("size",
			  a->meta.size == UINT64_MAX ? 0 : a->meta.size),
		  LOG_END);
	ask_download(a);
	return 0;
}

static void begin_local(struct admission *a)
{
	pthread_mutex_lock(&a->lock);
	a->arrived = a->from;
	a->total = a->from;
	a->download = (struct asked){0};
	begin_decode_locked(a, true);
	pthread_mutex_unlock(&a->lock);
}

static int begin_ingest(struct admission *a)
{
	struct archive_directory *expected = NULL;

	/* What a tail of this version has told. */
	if (a->is_zip && a->meta.etag[0])
		(void)catalog_directory_get(store_catalog(a->env.store), a->key,
					    a->meta.etag, &expected);
	return ingest_create(&a->ingest, a->sg, a->is_zip, expected);
}

/* True where the runner may go on at once. */
static bool do_begin(struct admission *a)
{
	int err = open_staging(a);

	if (err)
		goto fail;
	a->heard = false;
	a->evidence = (struct verdict_evidence){.expects_checksum = a->is_zip};
	a->from = 0;
	/* Offline, what is cached is what there is. */
	if (a->local && a->env.offline)
		a->meta = (struct origin_meta){.size = UINT64_MAX,
					       .last_modified = -1};
	if (store_staging_bytes(a->sg) && !staging_fits(a)) {
		err = replace_staged(a);
		if (err)
			goto fail;
	}
	err = begin_ingest(a);
	if (err)
		goto fail;
	if (a->local) {
		adopt_local(a);
		prefill_begin(a->fill, a->meta.etag);
		begin_local(a);
	} else {
		a->from = store_staging_bytes(a->sg);
		a->resumed = a->from > 0;
		prefill_begin(a->fill, a->meta.etag);
		err = begin_download(a);
		if (err)
			goto fail;
	}
	if (a->is_zip)
		ask_checksum(a);
	a->state = FOLLOW;
	return true;
fail:
	fail(a, err);
	return true;
}

/* From a->source; the evidence so far is void, and so is what an earlier
 * request may still answer. */
static void start_over(struct admission *a, int staged)
{
	a->resumed = false;
	a->restarted = true;
	a->staged = staged;
	a->state = START_AGAIN;
}

static bool settled(struct admission *a);

static bool do_start_again(struct admission *a)
{
	int err = 0;

	if (!settled(a))
		return false;
	ingest_free(a->ingest); /* holds a file in staging */
	a->ingest = NULL;
	if (a->staged == REPLACE)
		err = replace_staged(a);
	else if (a->staged == DROP)
		err = drop_staged(a);
	if (err)
		fail(a, err);
	else
		a->state = BEGIN;
	return true;
}

/* ---- FOLLOW ---- */

/*
 * The answer was of another version than the one wanted. Either the object has
 * changed since, or a cache on the way still has the one before: so the first
 * time it is asked for past caches, whose answer is then believed; what there
 * is of it may still be gone on with.
 */
static void object_changed(struct admission *a)
{
	int staged = REPLACE;

	if (a->source == ORIGIN_MAIN) {
		a->source = ORIGIN_BYPASS;
		staged = KEEP;
	} else {
		pthread_mutex_lock(&a->lock);
		a->meta = a->seen;
		pthread_mutex_unlock(&a->lock);
		a->changed = true;
	}
	log_event(LOG_LEVEL_INFO, "downloader", "download_restarted",
		  log_str("key", a->key), log_str("etag", a->meta.etag),
		  LOG_END);
	if (++a->changes > CHANGES_MAX)
		fail(a, -ETIMEDOUT);
	else
		start_over(a, staged);
}

/* What was not known of the object before, its answer has told. */
static void take_name(struct admission *a)
{
	if (a->local || a->meta.etag[0])
		return;
	pthread_mutex_lock(&a->lock);
	memcpy(a->meta.etag, a->named.etag, sizeof(a->meta.etag));
	if (a->meta.last_modified < 0)
		a->meta.last_modified = a->named.last_modified;
	pthread_mutex_unlock(&a->lock);
}

static bool is_md5(const char *etag)
{
	return strlen(etag) == 32 &&
	       strspn(etag, "0123456789abcdefABCDEF") == 32;
}

static enum verdict_witness hear_etag(const char *etag,
				      const unsigned char md5[16])
{
	char hex[33];

	if (!is_md5(etag))
		return VERDICT_SILENT;
	for (int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", md5[i]);
	return strcasecmp(hex, etag) == 0 ? VERDICT_HOLDS : VERDICT_FAILS;
}

static int take_digests(struct admission *a)
{
	unsigned char md5[16];
	int err = ingest_digests(a->ingest, a->info.sha256, md5);

	if (err)
		return err;
	a->evidence.etag = hear_etag(a->meta.etag, md5);
	return 0;
}

/* Does decoding say this of the archive? Then it waits for the digests. */
static bool blames_archive(int err)
{
	return err == -EBADMSG || err == -EFBIG;
}

/* Has decoding failed for what no more bytes can lift? If what an earlier
 * attempt left can't be read, digesting it will tell. */
static bool decoder_failed(struct admission *a, int *err)
{
	return answered(a, &a->decode, err) && *err && !blames_archive(*err) &&
	       !(*err == -EIO && (a->local || a->resumed));
}

static bool do_follow(struct admission *a)
{
	bool here;
	uint64_t arrived;
	int err, more;

	if (decoder_failed(a, &err)) {
		fail(a, err);
		return true;
	}
	help(a);
	/* In this order: what arrived before the end is all there is. */
	here = answered(a, &a->download, &err);
	pthread_mutex_lock(&a->lock);
	arrived = a->arrived;
	pthread_mutex_unlock(&a->lock);
	more = ingest_follow(a->ingest, arrived, STEP_BYTES);
	if (more == -EIO && (a->local || a->resumed) && !a->env.offline) {
		/* The disk lost what an earlier attempt left on it. */
		start_over(a, DROP);
		return true;
	}
	if (more < 0) {
		fail(a, more);
		return true;
	}
	if (more) {
		kick(a);
		return false;
	}
	if (!here)
		return false;
	if (err == -ESTALE) {
		object_changed(a);
		return true;
	}
	if (!err && a->meta.size != UINT64_MAX && arrived != a->meta.size)
		err = -EPROTO;
	if (err) {
		fail(a, err);
		return true;
	}
	a->meta.size = arrived;
	take_name(a);
	err = take_digests(a);
	if (err)
		fail(a, err);
	else
		a->state = INDEX;
	return true;
}

/* ---- INDEX ---- */

static bool do_index(struct admission *a)
{
	int err;

	if (!answered(a, &a->decode, &err)) {
		help(a);
		return false;
	}
	if (blames_archive(err)) {
		a->evidence.crc = VERDICT_FAILS;
	} else if (err) {
		fail(a, err);
		return true;
	} else {
		a->evidence.crc = a->is_zip ? VERDICT_HOLDS : VERDICT_SILENT;
	}
	a->state = JUDGE;
	return true;
}

/* ---- JUDGE ---- */

/* The .CHECKSUM as it lies in the cache, also where its row is lost. */
static int cached_checksum(struct admission *a)
{
	struct store_object *o = NULL;
	struct store_staging *sg = NULL;
	char buf[CHECKSUM_MAX];
	const void *data;
	ssize_t n;
	size_t len;
	int err;

	set_origin(a->text_origin, "");
	err = store_acquire(a->env.store, a->checksum_key, &o);
	if (!err) {
		set_origin(a->text_origin, store_object_info(o)->origin);
		data = store_object_small(o, &len);
		if (!data || len > sizeof(buf))
			err = -EFBIG;
		else
			memcpy(buf, data, len);
		store_release(o);
	} else if (err == -EUCLEAN) {
		err = store_recheck(a->env.store, a->checksum_key, &sg);
		if (err)
			return err;
		n = pread(store_staging_fd(sg), buf, sizeof(buf), 0);
		store_staging_close(sg);
		if (n < 0)
			return -EIO;
		len = (size_t)n;
	}
	if (err)
		return err;
	pthread_mutex_lock(&a->lock);
	free(a->text);
	a->text = malloc(len + 1);
	if (a->text) {
		memcpy(a->text, buf, len);
		a->text_len = len;
		a->text_meta =
			(struct origin_meta){.last_modified = -1, .size = len};
	} else {
		err = -ENOMEM;
	}
	pthread_mutex_unlock(&a->lock);
	return err;
}

/* What the .CHECKSUM that was got says of the digest. */
static void hear_checksum(struct admission *a)
{
	int err;

	pthread_mutex_lock(&a->lock);
	free(a->published_text);
	a->published_text = a->text;
	a->published_len = a->text_len;
	a->published_meta = a->text_meta;
	a->text = NULL;
	pthread_mutex_unlock(&a->lock);
	err = checksum_parse(a->published_text, a->published_len, a->name,
			     a->info.published);
	a->info.has_published = !err;
	a->evidence.sha256 =
		!err && memcmp(a->info.published, a->info.sha256, 32) == 0
			? VERDICT_HOLDS
			: VERDICT_FAILS;
}

/* False: not here yet. */
static bool take_checksum(struct admission *a, int *err)
{
	if (!answered(a, &a->checksum, err))
		return false;
	from_this_origin(a, a->text_origin);
	if (*err && *err != -ENOENT && *err != -ENOMEM &&
	    a->source == ORIGIN_MAIN && cached_checksum(a) == 0)
		*err = 0;
	if (*err == -EFBIG) {
		/* There is one, and it is none. */
		a->evidence.sha256 = VERDICT_FAILS;
		*err = 0;
	} else if (*err == -ENOENT) {
		a->evidence.sha256 = VERDICT_SILENT;
		a->info.has_published = false;
		*err = 0;
	} else if (!*err) {
		hear_checksum(a);
	}
	return true;
}

static void name_version(struct admission *a)
{
	snprintf(a->info.etag, sizeof(a->info.etag), "%s", a->meta.etag);
	a->info.size = a->meta.size;
	a->info.last_modified = a->meta.last_modified;
}

static void fill_info(struct admission *a, enum verdict v)
{
	name_version(a);
	find_origin(a);
	a->info.verdict = v;
	a->info.verified_at = when_now();
	a->info.checked_at = a->local ? 0 : a->info.verified_at;
	a->result.verdict = v;
}

static void log_admitted(struct admission *a)
{
	double ms = (double)(when_ms() - a->started_ms);
	char symbol[PATH_NAME_MAX + 1], date[DATE_TEXT_MAX];

	path_describe(a->key, symbol, date);
	log_event(LOG_LEVEL_INFO, "downloader", "download_completed",
		  log_str("key", a->key), log_str("symbol", symbol),
		  log_str("date", date),
		  log_num("size_mb", (double)a->meta.size / 1e6),
		  log_num("duration_ms", ms),
		  log_str("verdict", verdict_name(a->result.verdict)), LOG_END);
	if (a->recheck)
		metrics_add(METRIC_HEALED, 1);
	if (a->result.verdict != VERDICT_VERIFIED)
		log_event(LOG_LEVEL_WARN, "integrity", "archive_accepted",
			  log_str("key", a->key),
			  log_str("verdict", verdict_name(a->result.verdict)),
			  LOG_END);
}

static void put_checksum(struct admission *a)
{
	struct store_info info = {
		.size = a->published_len,
		.last_modified = a->published_meta.last_modified,
		.verdict = VERDICT_VERIFIED,
		.verified_at = when_now(),
		.checked_at = when_now(),
	};
	int err;

	snprintf(info.etag, sizeof(info.etag), "%s", a->published_meta.etag);
	set_origin(info.origin, a->text_origin);
	err = -ENOMEM;
	if (EVP_Digest(a->published_text, a->published_len, info.sha256, NULL,
		       EVP_sha256(), NULL))
		err = store_put(a->env.store, a->checksum_key, &info,
				a->published_text, a->published_len);
	/* The archive is whole without it; it can be had again. */
	if (err)
		log_event(LOG_LEVEL_WARN, "cache", "checksum_not_kept",
			  log_str("key", a->checksum_key),
			  log_str("error", strerror(-err)), LOG_END);
}

static void commit(struct admission *a, enum verdict v)
{
	struct checkpoints_id id = {.size = a->meta.size};
	int err;

	/* They are the published bytes, also should they not be kept. */
	prefill_end(a->fill, true);
	fill_info(a, v);
	memcpy(id.sha256, a->info.sha256, sizeof(id.sha256));
	err = ingest_seal(a->ingest, &id);
	if (!err && a->published_text && a->info.has_published)
		put_checksum(a);
	if (!err)
		err = store_staging_commit(a->sg, &a->info);
	if (!err) {
		a->result.directory = ingest_directory(a->ingest);
		log_admitted(a);
		catalog_ledger_add(store_catalog(a->env.store), a->env.run_id,
				   "accepted", a->key, a->info.sha256, v,
				   a->info.verified_at);
	}
	finish(a, err);
}

static void refuse(struct admission *a, enum verdict v)
{
	int err;

	fill_info(a, v);
	switch (v) {
	case VERDICT_CHECKSUM_STALE:
		set_reason(a, "the SHA-256 differs from the published "
			      ".CHECKSUM, the ETag holds");
		break;
	case VERDICT_CHECKSUM_MISSING:
		set_reason(a, "there is no .CHECKSUM");
		break;
	default:
		set_reason(
			a, "damaged: sha256 %s, etag %s, zip %s",
			a->evidence.sha256 == VERDICT_HOLDS ? "holds" : "fails",
			a->evidence.etag == VERDICT_HOLDS ? "holds" : "fails",
			a->evidence.crc == VERDICT_FAILS ? "fails" : "holds");
	}
	log_event(LOG_LEVEL_ERROR, "integrity", "archive_refused",
		  log_str("key", a->key), log_str("verdict", verdict_name(v)),
		  log_str("reason", a->reason), LOG_END);
	err = store_staging_quarantine(a->sg, &a->info, a->reason);
	finish(a, err == -ENOSPC ? err : -EBADMSG);
}

static bool next_source(struct admission *a, enum verdict v)
{
	if (a->env.offline)
		return false;
	if (a->source == ORIGIN_MIRROR ||
	    (a->source == ORIGIN_BYPASS && !a->env.has_mirror))
		return false;
	a->source = a->source == ORIGIN_MAIN ? ORIGIN_BYPASS : ORIGIN_MIRROR;
	a->doubted = true;
	log_event(LOG_LEVEL_WARN, "integrity", "verdict_doubted",
		  log_str("key", a->key), log_str("verdict", verdict_name(v)),
		  log_str("next", a->source == ORIGIN_BYPASS ? "past caches"
							     : "mirror"),
		  LOG_END);
	return true;
}

/* To the next source of @v's evidence; false where there is none left. */
static bool escalate(struct admission *a, enum verdict v)
{
	if (!next_source(a, v))
		return false;
	if (v == VERDICT_DAMAGED) {
		start_over(a, DROP);
		return true;
	}
	ask_head(a);
	ask_checksum(a);
	a->state = RECONSIDER;
	return true;
}

static bool do_judge(struct admission *a)
{
	enum verdict v;
	int err;

	if (a->is_zip && !a->heard) {
		if (!take_checksum(a, &err))
			return false;
		if (err) {
			fail(a, err);
			return true;
		}
		a->heard = true;
	}
	v = verdict_decide(&a->evidence);
	if (v == VERDICT_VERIFIED) {
		commit(a, v);
	} else if (v == VERDICT_DAMAGED && (a->local || a->resumed)) {
		log_event(LOG_LEVEL_WARN, "integrity",
			  a->local ? "cached_file_damaged"
				   : "resumed_download_damaged",
			  log_str("key", a->key), LOG_END);
		/* What was cached may be a good one of another version. */
		start_over(a, a->local && a->evidence.crc != VERDICT_FAILS
				      ? REPLACE
				      : DROP);
	} else if (!escalate(a, v)) {
		if (a->env.offline && v == VERDICT_DAMAGED)
			finish(a, -ENETUNREACH);
		else if (verdict_serves(v, a->env.lenient))
			commit(a, v);
		else
			refuse(a, v);
	}
	return true;
}

/* ---- RECONSIDER ---- */

static bool do_reconsider(struct admission *a)
{
	int head_err, err;

	if (!answered(a, &a->head, &head_err))
		return false;
	if (!answered(a, &a->checksum, &err))
		return false;
	if (!head_err && a->head_changed) {
		pthread_mutex_lock(&a->lock);
		a->seen = a->head_meta;
		pthread_mutex_unlock(&a->lock);
		object_changed(a);
		return true;
	}
	/* A source that has none, or can't be asked, adds no evidence. */
	if (!err) {
		from_this_origin(a, a->text_origin);
		hear_checksum(a);
	}
	a->state = JUDGE;
	return true;
}

/* ---- SMALL ---- */

static bool is_small(const struct admission *a)
{
	return !a->is_zip && !a->too_big &&
	       (a->meta.size == UINT64_MAX || a->meta.size <= STORE_SMALL_MAX);
}

static bool begin_small(struct admission *a)
{
	if (a->env.offline) {
		fail(a, -ENETUNREACH);
		return true;
	}
	ask_begin(a, &a->small);
	ask_end(a, &a->small,
		origin_get(a->env.origin, a->source, a->key, STORE_SMALL_MAX,
			   on_small, a));
	a->state = SMALL;
	return false;
}

static void judge_small(struct admission *a)
{
	unsigned char md5[16];
	enum verdict v;

	if (!same_version(&a->meta, &a->text_meta))
		a->changed = true;
	a->meta = a->text_meta;
	a->meta.size = a->text_len;
	if (!EVP_Digest(a->text, a->text_len, a->info.sha256, NULL,
			EVP_sha256(), NULL) ||
	    !EVP_Digest(a->text, a->text_len, md5, NULL, EVP_md5(), NULL)) {
		fail(a, -ENOMEM);
		return;
	}
	a->evidence = (struct verdict_evidence){0};
	a->evidence.etag = hear_etag(a->meta.etag, md5);
	v = verdict_decide(&a->evidence);
	if (v != VERDICT_VERIFIED) {
		if (next_source(a, v))
			a->state = BEGIN;
		else
			fail(a, -EBADMSG);
		return;
	}
	fill_info(a, v);
	finish(a,
	       store_put(a->env.store, a->key, &a->info, a->text, a->text_len));
}

static bool do_small(struct admission *a)
{
	int err;

	if (!answered(a, &a->small, &err))
		return false;
	if (err == -EFBIG) {
		a->too_big = true;
		a->state = BEGIN;
	} else if (err) {
		fail(a, err);
	} else {
		judge_small(a);
	}
	return true;
}

/* ---- the whole ---- */

static bool waiting_locked(const struct admission *a)
{
	return a->download.waiting || a->checksum.waiting || a->head.waiting ||
	       a->small.waiting || a->decode.waiting;
}

static void admission_free(struct admission *a)
{
	ingest_free(a->ingest);
	store_staging_close(a->sg);
	pthread_mutex_destroy(&a->lock);
	free(a->text);
	free(a->published_text);
	free(a->key);
	free(a->checksum_key);
	free(a);
}

/* Before anyone is told, since whoever is may begin again at once. The index of
 * a committed archive is finished and keeps nothing there. */
static void leave_staging(struct admission *a)
{
	int err;

	if (a->result.err) {
		ingest_free(a->ingest);
		a->ingest = NULL;
	}
	if (a->result.err && a->local && a->sg) {
		err = store_staging_put_back(a->sg);
		/* -EINVAL: it was refused, or other bytes are there. */
		if (err && err != -EINVAL)
			log_event(LOG_LEVEL_WARN, "cache",
				  "object_not_put_back", log_str("key", a->key),
				  log_str("error", strerror(-err)), LOG_END);
	}
	store_staging_close(a->sg);
	a->sg = NULL;
}

/* True when every request has answered, and the decoder; those that have not
 * are cancelled. */
static bool settled(struct admission *a)
{
	origin_id ids[4];
	bool waiting;

	pthread_mutex_lock(&a->lock);
	waiting = waiting_locked(a);
	ids[0] = a->download.id;
	ids[1] = a->checksum.id;
	ids[2] = a->head.id;
	ids[3] = a->small.id;
	a->stop_decoding = true;
	kick_decoder_locked(a);
	pthread_mutex_unlock(&a->lock);
	for (int i = 0; waiting && i < 4; i++)
		if (ids[i])
			origin_cancel(a->env.origin, ids[i]);
	return !waiting;
}

static bool advance(struct admission *a)
{
	switch (a->state) {
	case START_AGAIN:
		return do_start_again(a);
	case BEGIN:
		return is_small(a) ? begin_small(a) : do_begin(a);
	case FOLLOW:
		return do_follow(a);
	case INDEX:
		return do_index(a);
	case JUDGE:
		return do_judge(a);
	case RECONSIDER:
		return do_reconsider(a);
	case SMALL:
		return do_small(a);
	case END:
		return false;
	}
	return false;
}

static void run(struct work *work)
{
	struct admission *a = container_of(work, struct admission, work);

	pthread_mutex_lock(&a->lock);
	a->runner = RUNNING;
	pthread_mutex_unlock(&a->lock);
	while (advance(a))
		;
	if (a->state == END && settled(a)) {
		if (a->changed)
			name_version(a);
		a->result.info = a->info;
		a->result.reason = a->reason;
		a->result.changed = a->changed;
		leave_staging(a);
		budget_end(a->env.budget, a->key, when_now());
		prefill_end(a->fill, false);
		a->done(a->arg, &a->result);
		admission_free(a);
		return;
	}
	pthread_mutex_lock(&a->lock);
	rest_locked(a, &a->runner, work, false);
	pthread_mutex_unlock(&a->lock);
}

int admission_start(struct admission **out, const struct admission_env *env,
		    const char *key, const struct origin_meta *meta,
		    bool recheck, struct prefill_fill *fill,
		    admission_done_fn *done, void *arg)
{
	struct admission *a = calloc(1, sizeof(*a));
	const char *slash;
	size_t len;

	if (!a)
		return -ENOMEM;
	pthread_mutex_init(&a->lock, NULL);
	a->env = *env;
	a->key = strdup(key);
	if (!a->key || asprintf(&a->checksum_key, "%s.CHECKSUM", key) < 0) {
		a->checksum_key = NULL;
		admission_free(a);
		return -ENOMEM;
	}
	slash = strrchr(a->key, '/');
	a->name = slash ? slash + 1 : a->key;
	len = strlen(a->name);
	a->is_zip = len > 4 && strcmp(a->name + len - 4, ".zip") == 0;
	a->meta = *meta;
	a->recheck = recheck;
	a->fill = fill;
	a->done = done;
	a->arg = arg;
	a->total = meta->size;
	a->started_ms = when_ms();
	a->info.last_modified = -1;
	a->work.run = run;
	a->decode_work.run = decode;
	*out = a;
	kick(a);
	return 0;
}

void admission_cancel(struct admission *a)
{
	origin_id id;

	pthread_mutex_lock(&a->lock);
	a->cancelled = true;
	id = a->download.id;
	pthread_mutex_unlock(&a->lock);
	if (id)
		origin_cancel(a->env.origin, id);
}

void admission_progress(struct admission *a, uint64_t *done, uint64_t *total)
{
	pthread_mutex_lock(&a->lock);
	*done = a->arrived;
	*total = a->total;
	pthread_mutex_unlock(&a->lock);
}

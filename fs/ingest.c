#include "fs/ingest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	/* Three digests go over it one after the other: it fits in L2. */
	CHUNK = 128 << 10,
	/* Handed to the disk at a time, so that the sync at commit has little
	 * left to wait for. */
	WRITE_BACK_BYTES = 8 << 20,
};

struct ingest {
	struct store_staging *sg;
	bool is_zip;
	/* Of both halves, each its own calls. */
	struct checkpoints_builder *builder;
	/* Of the half that digests. */
	EVP_MD_CTX *sha256, *md5;
	uint64_t followed, written_back;
	unsigned char *chunk; /* CHUNK bytes */
	/* Of the half that decodes. */
	struct archive_directory *expected, *directory;
	bool looked, guessed; /* at the first header; and it told something */
};

int ingest_create(struct ingest **out, struct store_staging *sg, bool is_zip,
		  struct archive_directory *expected)
{
	struct ingest *in = calloc(1, sizeof(*in));
	const char *name;
	int dirfd, err = -ENOMEM;

	if (!in) {
		archive_directory_free(expected);
		return -ENOMEM;
	}
	in->sg = sg;
	in->is_zip = is_zip;
	in->expected = expected;
	in->chunk = malloc(CHUNK);
	in->sha256 = EVP_MD_CTX_new();
	in->md5 = EVP_MD_CTX_new();
	if (!in->chunk || !in->sha256 || !in->md5)
		goto fail;
	if (!EVP_DigestInit_ex(in->sha256, EVP_sha256(), NULL) ||
	    !EVP_DigestInit_ex(in->md5, EVP_md5(), NULL))
		goto fail;
	store_staging_index(sg, &dirfd, &name);
	err = checkpoints_builder_create(&in->builder, dirfd, name, NULL);
	if (err)
		goto fail;
	*out = in;
	return 0;
fail:
	ingest_free(in);
	return err;
}

void ingest_free(struct ingest *in)
{
	if (!in)
		return;
	checkpoints_builder_free(in->builder);
	archive_directory_free(in->expected);
	archive_directory_free(in->directory);
	EVP_MD_CTX_free(in->sha256);
	EVP_MD_CTX_free(in->md5);
	free(in->chunk);
	free(in);
}

/* Some bytes at @off, at most @want. */
static ssize_t read_some(struct ingest *in, void *buf, size_t want,
			 uint64_t off)
{
	ssize_t n;

	do {
		n = pread(store_staging_fd(in->sg), buf, want, (off_t)off);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n ? n : -EIO; /* shorter than it was written */
}

/* ---- digests ---- */

static int digest(struct ingest *in, size_t n)
{
	if (!EVP_DigestUpdate(in->sha256, in->chunk, n) ||
	    !EVP_DigestUpdate(in->md5, in->chunk, n))
		return -ENOMEM;
	return checkpoints_builder_raw(in->builder, in->chunk, n);
}

int ingest_follow(struct ingest *in, uint64_t contiguous, uint64_t budget)
{
	uint64_t stop = contiguous;
	ssize_t n;
	int err;

	if (contiguous - in->followed > budget)
		stop = in->followed + budget;
	while (in->followed < stop) {
		uint64_t left = stop - in->followed;

		n = read_some(in, in->chunk, left < CHUNK ? left : CHUNK,
			      in->followed);
		if (n < 0)
			return (int)n;
		err = digest(in, (size_t)n);
		if (err)
			return err;
		in->followed += (uint64_t)n;
	}
	if (in->followed - in->written_back >= WRITE_BACK_BYTES) {
		store_staging_write_back(in->sg, in->followed);
		in->written_back = in->followed;
	}
	return in->followed < contiguous;
}

bool ingest_help(struct ingest *in)
{
	return checkpoints_builder_help(in->builder);
}

uint64_t ingest_followed(const struct ingest *in)
{
	return in->followed;
}

int ingest_digests(struct ingest *in, unsigned char sha256[32],
		   unsigned char md5[16])
{
	/* While the other half may still be at work. A little is as soon synced
	 * with the commit. */
	if (in->followed >= WRITE_BACK_BYTES)
		store_staging_sync_ahead(in->sg);
	if (!EVP_DigestFinal_ex(in->sha256, sha256, NULL) ||
	    !EVP_DigestFinal_ex(in->md5, md5, NULL))
		return -ENOMEM;
	return 0;
}

/* ---- decoding ---- */

/*
 * What the archive may begin with: a member whose data begin where the local
 * header says, and which is what the tail has told of the first one, or else
 * what the local header says itself.
 */
static int guess(struct ingest *in, uint64_t contiguous)
{
	unsigned char head[ARCHIVE_HEAD_BYTES];
	struct archive_member first;
	uint64_t data_off;
	ssize_t n;

	if (contiguous < sizeof(head))
		return 0;
	in->looked = true;
	n = read_some(in, head, sizeof(head), 0);
	if (n < 0)
		return (int)n;
	if (archive_read_head(&first, &data_off, head, (size_t)n))
		return 0;
	if (in->expected && in->expected->n > 0)
		first = in->expected->members[0];
	if (first.is_dir || first.csize == 0 || first.csize == UINT64_MAX)
		return 0;
	checkpoints_builder_guess(in->builder, &first, data_off);
	in->guessed = true;
	return 0;
}

static int read_directory(struct ingest *in, uint64_t size)
{
	int err =
		archive_read_fd(&in->directory, store_staging_fd(in->sg), size);

	if (!err)
		checkpoints_builder_directory(in->builder, in->directory);
	return err;
}

int ingest_decode(struct ingest *in, uint64_t contiguous, bool whole,
		  uint64_t budget, checkpoints_sink_fn *sink, void *arg)
{
	int err = 0;

	if (!in->is_zip)
		return whole ? 0 : -EAGAIN;
	if (whole && !in->directory)
		err = read_directory(in, contiguous);
	else if (!whole && !in->looked)
		err = guess(in, contiguous);
	if (err)
		return err;
	if (!in->directory && !in->guessed)
		return -EAGAIN;
	return checkpoints_builder_step(in->builder, store_staging_fd(in->sg),
					contiguous, budget, sink, arg);
}

/* ---- the end ---- */

int ingest_seal(struct ingest *in, const struct checkpoints_id *id)
{
	return checkpoints_builder_finish(in->builder, id);
}

const struct archive_directory *ingest_directory(const struct ingest *in)
{
	return in->directory;
}

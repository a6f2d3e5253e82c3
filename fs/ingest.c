#include "fs/ingest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#include "cache/checkpoints.h"

enum { CHUNK = 1 << 18 };

/*
 * FOLLOW   bytes are digested as they come in
 * RAW      the whole file is here: its piece CRCs
 * DECODE   member by member
 * BUILT    everything decoded and right
 */
enum phase { FOLLOW, RAW, DECODE, BUILT };

struct ingest {
	struct store_staging *sg;
	bool is_zip;
	enum phase phase;
	EVP_MD_CTX *sha256, *md5;
	uint64_t followed, raw;
	struct archive_directory *directory;
	struct checkpoints_builder *builder;
	unsigned char *chunk; /* CHUNK bytes */
};

int ingest_create(struct ingest **out, struct store_staging *sg, bool is_zip)
{
	struct ingest *in = calloc(1, sizeof(*in));
	int err = -ENOMEM;

	if (!in)
		return -ENOMEM;
	in->sg = sg;
	in->is_zip = is_zip;
	in->chunk = malloc(CHUNK);
	in->sha256 = EVP_MD_CTX_new();
	in->md5 = EVP_MD_CTX_new();
	if (!in->chunk || !in->sha256 || !in->md5)
		goto fail;
	if (!EVP_DigestInit_ex(in->sha256, EVP_sha256(), NULL) ||
	    !EVP_DigestInit_ex(in->md5, EVP_md5(), NULL))
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
	archive_directory_free(in->directory);
	EVP_MD_CTX_free(in->sha256);
	EVP_MD_CTX_free(in->md5);
	free(in->chunk);
	free(in);
}

/* Some bytes at @off, at most a chunk and not beyond @end. */
static ssize_t read_chunk(struct ingest *in, uint64_t off, uint64_t end)
{
	size_t want = end - off < CHUNK ? (size_t)(end - off) : CHUNK;
	ssize_t n;

	do {
		n = pread(store_staging_fd(in->sg), in->chunk, want,
			  (off_t)off);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n ? n : -EIO; /* shorter than it was written */
}

int ingest_follow(struct ingest *in, uint64_t contiguous, uint64_t budget)
{
	uint64_t stop = contiguous;
	ssize_t n;

	if (contiguous - in->followed > budget)
		stop = in->followed + budget;
	while (in->followed < stop) {
		n = read_chunk(in, in->followed, stop);
		if (n < 0)
			return (int)n;
		if (!EVP_DigestUpdate(in->sha256, in->chunk, (size_t)n) ||
		    !EVP_DigestUpdate(in->md5, in->chunk, (size_t)n))
			return -ENOMEM;
		in->followed += (uint64_t)n;
	}
	return in->followed < contiguous;
}

uint64_t ingest_followed(const struct ingest *in)
{
	return in->followed;
}

int ingest_digests(struct ingest *in, unsigned char sha256[32],
		   unsigned char md5[16])
{
	if (!EVP_DigestFinal_ex(in->sha256, sha256, NULL) ||
	    !EVP_DigestFinal_ex(in->md5, md5, NULL))
		return -ENOMEM;
	return 0;
}

static int begin_index(struct ingest *in, uint64_t size)
{
	const char *name;
	int dirfd, err;

	if (in->is_zip) {
		err = archive_read_fd(&in->directory, store_staging_fd(in->sg),
				      size);
		if (err)
			return err;
	}
	store_staging_index(in->sg, &dirfd, &name);
	return checkpoints_builder_create(&in->builder, dirfd, name,
					  in->directory);
}

static int raw_step(struct ingest *in, uint64_t size, uint64_t budget)
{
	uint64_t stop = size - in->raw > budget ? in->raw + budget : size;
	ssize_t n;
	int err;

	while (in->raw < stop) {
		n = read_chunk(in, in->raw, stop);
		if (n < 0)
			return (int)n;
		err = checkpoints_builder_raw(in->builder, in->chunk,
					      (size_t)n);
		if (err)
			return err;
		in->raw += (uint64_t)n;
	}
	return in->raw < size;
}

int ingest_index(struct ingest *in, uint64_t size, uint64_t budget)
{
	int err;

	switch (in->phase) {
	case FOLLOW:
		err = begin_index(in, size);
		if (err)
			return err;
		in->phase = RAW;
		return 1;
	case RAW:
		err = raw_step(in, size, budget);
		if (err)
			return err;
		in->phase = DECODE;
		return 1;
	case DECODE:
		err = checkpoints_builder_step(in->builder,
					       store_staging_fd(in->sg), size,
					       budget, NULL, NULL);
		if (!err)
			in->phase = BUILT;
		return err;
	case BUILT:
		return 0;
	}
	return 0;
}

int ingest_seal(struct ingest *in, const struct checkpoints_id *id)
{
	return checkpoints_builder_finish(in->builder, id);
}

const struct archive_directory *ingest_directory(const struct ingest *in)
{
	return in->directory;
}

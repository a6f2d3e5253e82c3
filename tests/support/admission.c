#include "tests/support/admission.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/spans.h"

void admission_fill(unsigned char *buf, size_t len, unsigned int seed)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
		buf[i] = (unsigned char)(x >> 56);
	}
}

void admission_info(struct store_info *info, const char *etag, const void *buf,
		    size_t len)
{
	unsigned char digest[EVP_MAX_MD_SIZE];

	memset(info, 0, sizeof(*info));
	strcpy(info->etag, etag);
	info->size = len;
	info->last_modified = 1689653480;
	EVP_Digest(buf, len, digest, NULL, EVP_sha256(), NULL);
	memcpy(info->sha256, digest, 32);
	memcpy(info->published, digest, 32);
	info->has_published = true;
	info->verdict = VERDICT_VERIFIED;
	info->verified_at = info->checked_at = time(NULL);
}

static int feed(struct checkpoints_builder *b, int fd, uint64_t size)
{
	unsigned char buf[16384];
	uint64_t off = 0;
	int err;

	while (off < size) {
		ssize_t n = pread(fd, buf, sizeof(buf), (off_t)off);

		if (n <= 0)
			return n ? -errno : -EBADMSG;
		err = checkpoints_builder_raw(b, buf, (size_t)n);
		if (err)
			return err;
		off += (uint64_t)n;
	}
	return 0;
}

static int build_index(struct store_staging *sg, const struct store_info *info)
{
	struct checkpoints_id id = {.size = info->size};
	struct checkpoints_builder *b;
	const char *name;
	int dirfd, err;

	memcpy(id.sha256, info->sha256, sizeof(id.sha256));
	store_staging_index(sg, &dirfd, &name);
	err = checkpoints_builder_create(&b, dirfd, name, NULL);
	if (err)
		return err;
	err = feed(b, store_staging_fd(sg), info->size);
	while (!err && (err = checkpoints_builder_step(b, store_staging_fd(sg),
						       info->size, 1 << 20,
						       NULL, NULL)) > 0)
		err = 0;
	if (!err)
		err = checkpoints_builder_finish(b, &id);
	checkpoints_builder_free(b);
	return err;
}

int admission_commit(struct store_staging *sg, const struct store_info *info)
{
	int err = build_index(sg, info);

	return err ? err : store_staging_commit(sg, info);
}

int admission_admit(struct store *st, const char *key, const char *etag,
		    const void *buf, size_t len)
{
	struct store_staging *sg;
	struct store_info info;
	int err;

	admission_info(&info, etag, buf, len);
	err = store_stage(st, key, &sg);
	if (err)
		return err;
	err = store_staging_begin(sg, etag, len, info.last_modified, 0);
	for (size_t off = 0; !err && off < len;) {
		size_t n = len - off < 10000 ? len - off : 10000;

		err = store_staging_write(sg, (const char *)buf + off, n);
		off += n;
	}
	if (!err)
		err = admission_commit(sg, &info);
	store_staging_close(sg);
	return err;
}

static bool same_decoded(struct store_object *o, const unsigned char *buf,
			 size_t len)
{
	const struct checkpoints *cp = store_object_index(o);
	unsigned char *span = malloc(CHECKPOINTS_SPAN);
	uint64_t size, n, start;
	bool same = checkpoints_stream_size(cp, 0, &size) == 0 && size == len;
	size_t span_len;

	for (size_t off = 0; same && off < len; off += span_len) {
		checkpoints_span_at(cp, 0, off, &n, &start, &span_len);
		same = spans_decode(cp, store_object_fd(o), 0, n, span,
				    span_len) == (ssize_t)span_len &&
		       memcmp(span, buf + off, span_len) == 0;
	}
	free(span);
	return same;
}

bool admission_same(struct store_object *o, const void *buf, size_t len)
{
	size_t small_len;
	const void *small = store_object_small(o, &small_len);

	if (store_object_info(o)->size != len)
		return false;
	if (small)
		return small_len == len && memcmp(small, buf, len) == 0;
	return same_decoded(o, buf, len);
}

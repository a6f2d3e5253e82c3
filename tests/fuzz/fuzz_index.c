/*
 * An index file and what is decoded by it. Input: the index. It is tried as it
 * is, and again with its checksum and its object put right, so that the fuzzer
 * gets beyond them.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/checkpoints.h"
#include "cache/index_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OBJECT = 4096, GUARD = 64 };

static const struct checkpoints_id id = {.size = OBJECT};

/* Any bytes; some of them begin a deflate stream. */
static int make_object(void)
{
	static unsigned char bytes[OBJECT];
	uint32_t x = 1;
	char path[] = "/tmp/fuzz-object-XXXXXX";
	int fd = mkstemp(path);

	for (size_t i = 0; i < OBJECT; i++) {
		x = x * 1664525 + 1013904223;
		bytes[i] = (unsigned char)(x >> 24);
	}
	if (fd < 0 || write(fd, bytes, OBJECT) != OBJECT)
		abort();
	unlink(path);
	return fd;
}

/* Puts the object and the checksum right, where there is room for them. */
static void seal(unsigned char *index, size_t size)
{
	uint64_t tables = 0;
	unsigned char *all;

	if (size < INDEX_HEADER_BYTES)
		return;
	memset(index + 32, 0, 40);
	index[32] = OBJECT & 0xff;
	index[33] = OBJECT >> 8;
	for (int i = 7; i >= 0; i--)
		tables = tables << 8 | index[24 + i];
	if (tables > size)
		return;
	all = malloc(96 + size);
	if (!all)
		abort();
	memcpy(all, index, 96);
	memcpy(all + 96, index + tables, size - tables);
	SHA256(all, 96 + size - tables, index + 96);
	free(all);
}

/* In two parts: a span may be gone on with later. */
static void decode_span(const struct checkpoints *cp, int object,
			unsigned int stream, uint64_t span, void *buf,
			size_t len)
{
	static struct checkpoints_decoder *d;
	static unsigned char room[CHECKPOINTS_PAUSED_BYTES];
	ssize_t n;

	if (!d && checkpoints_decoder_create(&d))
		abort();
	n = checkpoints_decode(cp, object, stream, span, d, buf, 0,
			       (len + 1) / 2);
	if (n >= 0 && (size_t)n < len) {
		checkpoints_pause(d, room);
		checkpoints_resume(d, room);
		n = checkpoints_decode(cp, object, stream, span, d, buf,
				       (size_t)n, len);
	}
	if (n >= 0 ? (size_t)n != len : n != -EBADMSG)
		abort();
}

static void decode_all(const struct checkpoints *cp, int object)
{
	static unsigned char buf[CHECKPOINTS_SPAN + GUARD];
	unsigned int budget = 64;

	memset(buf + CHECKPOINTS_SPAN, 0xee, GUARD);
	for (unsigned int i = 0; i < checkpoints_streams(cp); i++) {
		uint64_t size, off = 0;

		if (checkpoints_stream_size(cp, i, &size))
			continue;
		while (off < size && budget--) {
			uint64_t span, start;
			size_t len;

			checkpoints_span_at(cp, i, off, &span, &start, &len);
			if (start != off || !len || len > CHECKPOINTS_SPAN)
				abort();
			decode_span(cp, object, i, span, buf, len);
			off += len;
		}
	}
	for (size_t i = 0; i < GUARD; i++) {
		if (buf[CHECKPOINTS_SPAN + i] != 0xee)
			abort();
	}
}

static void try_index(const unsigned char *index, size_t size, int object)
{
	static char path[] = "/tmp/fuzz-index-XXXXXX";
	static int fd = -1;
	struct checkpoints *cp;

	if (fd < 0)
		fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, 0) ||
	    pwrite(fd, index, size, 0) != (ssize_t)size)
		abort();
	if (checkpoints_load(&cp, AT_FDCWD, path, &id) == 0) {
		decode_all(cp, object);
		checkpoints_free(cp);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int object = -1;
	unsigned char *copy = malloc(size + 1);

	if (!copy)
		abort();
	if (object < 0)
		object = make_object();
	memcpy(copy, data, size);
	try_index(copy, size, object);
	seal(copy, size);
	try_index(copy, size, object);
	free(copy);
	return 0;
}

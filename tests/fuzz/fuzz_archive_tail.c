/*
 * The directory of a zip, from a tail and from a whole file, and its first
 * header. Input: eight bytes, how much longer than the tail the zip is said to
 * be, and the tail.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache/archive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(struct archive_directory *d)
{
	archive_csv(d, "X.zip");
	for (size_t i = 0; i < d->n; i++)
		archive_name_ok(d->members[i].name);
	archive_directory_free(d);
}

static void read_head(const uint8_t *data, size_t size)
{
	struct archive_member m;
	uint64_t off;

	if (archive_read_head(&m, &off, data, size) == 0 &&
	    (off < ARCHIVE_HEAD_BYTES ||
	     off > ARCHIVE_HEAD_BYTES + 2 * UINT16_MAX))
		abort();
}

static void read_file(const uint8_t *data, size_t size)
{
	struct archive_directory *d;
	int fd = memfd_create("zip", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	if (archive_read_fd(&d, fd, size) == 0) {
		uint64_t *offsets = calloc(d->n + 1, sizeof(*offsets));

		if (offsets &&
		    archive_data_offsets(offsets, d->n, fd, size) == 0) {
			for (size_t i = 0; i < d->n; i++) {
				if (offsets[i] != UINT64_MAX &&
				    offsets[i] + d->members[i].csize > size)
					abort();
			}
		}
		free(offsets);
		look_at(d);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct archive_directory *d;
	uint64_t before;

	if (size < sizeof(before))
		return 0;
	memcpy(&before, data, sizeof(before));
	data += sizeof(before);
	size -= sizeof(before);
	if (before <= UINT64_MAX - size &&
	    archive_read_tail(&d, data, size, before + size) == 0)
		look_at(d);
	read_head(data, size);
	read_file(data, size);
	return 0;
}

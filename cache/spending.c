#include "cache/spending.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/disk.h"

#define NAME "spending"

size_t spending_format(const struct spending *s, char out[SPENDING_TEXT_MAX])
{
	int n = snprintf(out, SPENDING_TEXT_MAX,
			 "day %" PRId64 " bytes %" PRIu64 " downloads %" PRIu64,
			 s->day, s->bytes, s->downloads);
	uint32_t crc = crc32_gzip_refl(0, (unsigned char *)out, (uint64_t)n);

	n += snprintf(out + n, SPENDING_TEXT_MAX - (size_t)n,
		      " crc %08" PRIx32 "\n", crc);
	return (size_t)n;
}

/* Whatever sscanf(3) makes of the text: only what gives that text again
 * counts. */
int spending_parse(const char *text, size_t len, struct spending *out)
{
	char copy[SPENDING_TEXT_MAX], again[SPENDING_TEXT_MAX];
	struct spending s;

	if (len >= sizeof(copy))
		return -EBADMSG;
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (sscanf(copy,
		   "day %20" SCNd64 " bytes %20" SCNu64 " downloads %20" SCNu64,
		   &s.day, &s.bytes, &s.downloads) != 3)
		return -EBADMSG;
	if (spending_format(&s, again) != len || memcmp(again, text, len) != 0)
		return -EBADMSG;
	*out = s;
	return 0;
}

static int open_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int spending_load(const char *dir, struct spending *out)
{
	int fd = open_dir(dir), err;
	char *text = NULL;
	size_t len;

	if (fd < 0)
		return fd;
	/* Left by a crash; should it fail, the next save writes over it. */
	(void)disk_unlink(fd, NAME ".new");
	err = disk_read_file(fd, NAME, SPENDING_TEXT_MAX, &text, &len);
	if (!err)
		err = spending_parse(text, len, out);
	else if (err == -EFBIG)
		err = -EBADMSG;
	free(text);
	close(fd);
	return err;
}

int spending_save(const char *dir, const struct spending *s)
{
	char text[SPENDING_TEXT_MAX];
	size_t len = spending_format(s, text);
	int fd = open_dir(dir), err;

	if (fd < 0)
		return fd;
	err = disk_write_file(fd, NAME, text, len);
	close(fd);
	return err;
}

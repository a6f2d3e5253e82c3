/*
 * archive - the directory of a zip and where the raw bytes of a member lie,
 * also from the file's last bytes alone (libzip does the reading; APPNOTE.TXT
 * sections 4.3 and 4.5).
 *
 * Every byte is hostile: a directory is refused where a size passes 2^63 - 1 or
 * raw data are longer than the file; members may overlap. Names are kept as
 * they stand, less those that could leave a folder: see archive_name_ok().
 */
#ifndef CACHE_ARCHIVE_H
#define CACHE_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	ARCHIVE_METHOD_STORED = 0,
	ARCHIVE_METHOD_DEFLATE = 8,
	/* Enough for one member, zip64 and a short comment. */
	ARCHIVE_TAIL_BYTES = 4096,
	/* The most members one archive may have; more is -EFBIG. */
	ARCHIVE_MEMBERS_MAX = 65536,
	/* A local header without its name and extra fields. */
	ARCHIVE_HEAD_BYTES = 30,
};

struct archive_member {
	char *name; /* raw bytes as in the directory */
	uint64_t size, csize;
	uint32_t crc32;
	uint16_t method;
	bool encrypted;
	bool is_dir; /* the name ends in a slash */
	/* Seconds since 1970, DOS time read as UTC. An hour off where the local
	 * zone skips that time in spring: libzip reads it as a local one. */
	int64_t mtime;
};

struct archive_directory {
	size_t n;
	struct archive_member *members; /* in directory order */
};

/*
 * archive_read_tail() - the directory from the last @len bytes of a zip of
 * @zip_size bytes.
 * Returns 0, -ENODATA where the directory may begin before the tail (ask for
 * more; never returned for a tail that is the whole file), -EBADMSG if this is
 * no zip, -EFBIG, -ENOMEM. Thread-safe; no memory kept.
 */
int archive_read_tail(struct archive_directory **out, const void *tail,
		      size_t len, uint64_t zip_size);

/* The same from a whole file. Also -errno of pread(2). */
int archive_read_fd(struct archive_directory **out, int fd, uint64_t size);

/*
 * archive_data_offsets() - where the raw data of each member begins, by its
 * local header. What lies there is the caller's to check, by length and CRC-32.
 * @offsets: room for @n, as many as the directory of this file has members; a
 * member that libzip cannot open, or a folder, gets UINT64_MAX; one without any
 * data 0.
 * Returns 0, -EBADMSG where data would pass the end of the file or @n is not
 * its number of members, -ENOMEM, -errno.
 */
int archive_data_offsets(uint64_t *offsets, size_t n, int fd, uint64_t size);

/*
 * archive_read_head() - what a zip's first bytes say of a member that lies at
 * its very beginning (local header, APPNOTE 4.3.7). For who would begin before
 * the directory has come: it is a guess, which archive_read_fd() and
 * archive_data_offsets() have to confirm.
 * @m: all but name and mtime; csize is UINT64_MAX where the header leaves the
 * sizes to others (data descriptor, zip64)
 * @data_off: where its raw data begin
 * Returns 0, -ENODATA for less than ARCHIVE_HEAD_BYTES, -EBADMSG if no member
 * begins here.
 */
int archive_read_head(struct archive_member *m, uint64_t *data_off,
		      const void *head, size_t len);

/*
 * archive_csv() - which member is the CSV of the archive @zip_name
 * ("X.zip"): the root member "X.csv"; else, in an archive with one file in
 * all, that one. -1 if neither.
 */
ptrdiff_t archive_csv(const struct archive_directory *d, const char *zip_name);

/*
 * archive_name_ok() - may this member be shown under NAME.zip.d/? Relative, no
 * empty, "." or ".." component, no component over 255 bytes, no NUL, shorter
 * than PATH_MAX. A folder's trailing slash is fine.
 */
bool archive_name_ok(const char *name);

void archive_directory_free(struct archive_directory *d);

#endif

/*
 * The directory of a zip by libzip, which reads through a source of ours:
 * either the whole file by pread(2), or its last bytes alone with zeros in the
 * place of what is not there.
 *
 * Zeros can't be taken for a directory: every entry begins with a signature,
 * so a directory that starts before the tail fails to parse. libzip always
 * looks through the last 65,578 bytes for the end record, so touching a byte
 * before the tail means nothing by itself; only together with a failure does
 * it mean that a longer tail might do better.
 */
#include "cache/archive.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zip.h>

struct source {
	bool whole; /* read @fd; else @tail */
	int fd;
	const unsigned char *tail;
	uint64_t tail_start;
	uint64_t size, pos;
	bool missed;	     /* bytes before the tail were asked for */
	int err;	     /* of pread(2), negative; 0 if none */
	bool recording;	     /* the next read is noted in first_read */
	uint64_t first_read; /* UINT64_MAX: none yet */
	zip_error_t error;
};

static zip_int64_t fail(struct source *s, int zip_err, int err)
{
	zip_error_set(&s->error, zip_err, err);
	return -1;
}

static zip_int64_t read_file(struct source *s, unsigned char *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(s->fd, buf + done, len - done,
				  (off_t)(s->pos + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			s->err = -errno;
			return fail(s, ZIP_ER_READ, -s->err);
		}
		if (n == 0) /* shorter than it was said to be */
			break;
		done += (size_t)n;
	}
	return (zip_int64_t)done;
}

static zip_int64_t read_tail(struct source *s, unsigned char *buf, size_t len)
{
	size_t zeros = 0;

	if (s->pos < s->tail_start) {
		uint64_t before = s->tail_start - s->pos;

		zeros = before < len ? (size_t)before : len;
		memset(buf, 0, zeros);
		s->missed = true;
	}
	if (zeros < len)
		memcpy(buf + zeros, s->tail + (s->pos + zeros - s->tail_start),
		       len - zeros);
	return (zip_int64_t)len;
}

static zip_int64_t source_read(struct source *s, void *buf, zip_uint64_t len)
{
	zip_int64_t n;

	if (s->recording && s->first_read == UINT64_MAX)
		s->first_read = s->pos;
	if (s->pos >= s->size)
		return 0;
	if (len > s->size - s->pos)
		len = s->size - s->pos;
	n = s->whole ? read_file(s, buf, len) : read_tail(s, buf, len);
	if (n > 0)
		s->pos += (uint64_t)n;
	return n;
}

static zip_int64_t source_call(void *arg, void *data, zip_uint64_t len,
			       zip_source_cmd_t cmd)
{
	struct source *s = arg;
	zip_stat_t *st = data;
	zip_int64_t pos;

	switch (cmd) {
	case ZIP_SOURCE_SUPPORTS:
		return zip_source_make_command_bitmap(
			ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE,
			ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR, ZIP_SOURCE_FREE,
			ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, ZIP_SOURCE_SUPPORTS,
			-1);
	case ZIP_SOURCE_OPEN:
		s->pos = 0;
		return 0;
	case ZIP_SOURCE_CLOSE:
	case ZIP_SOURCE_FREE: /* lives on its creator's stack */
		return 0;
	case ZIP_SOURCE_STAT:
		zip_stat_init(st);
		st->size = s->size;
		st->valid = ZIP_STAT_SIZE;
		return sizeof(*st);
	case ZIP_SOURCE_ERROR:
		return zip_error_to_data(&s->error, data, len);
	case ZIP_SOURCE_TELL:
		return (zip_int64_t)s->pos;
	case ZIP_SOURCE_SEEK:
		pos = zip_source_seek_compute_offset(s->pos, s->size, data, len,
						     &s->error);
		if (pos < 0)
			return -1;
		s->pos = (uint64_t)pos;
		return 0;
	case ZIP_SOURCE_READ:
		return source_read(s, data, len);
	default:
		return fail(s, ZIP_ER_OPNOTSUPP, 0);
	}
}

/* What a failure of libzip means to our callers. */
static int error_of(const struct source *s, zip_error_t *e)
{
	if (s->err)
		return s->err;
	if (zip_error_code_zip(e) == ZIP_ER_MEMORY)
		return -ENOMEM;
	return s->missed ? -ENODATA : -EBADMSG;
}

/* @s must stay where it is until zip_discard(*@out). */
static int open_source(zip_t **out, struct source *s)
{
	zip_source_t *zs;
	zip_t *z = NULL;
	zip_error_t e;
	int err = 0;

	/* libzip takes an empty file for an empty archive. */
	if (s->size == 0 || s->size > INT64_MAX)
		return -EBADMSG;
	zip_error_init(&e);
	zip_error_init(&s->error);
	zs = zip_source_function_create(source_call, s, &e);
	if (zs)
		z = zip_open_from_source(zs, ZIP_RDONLY, &e);
	if (!z) {
		err = error_of(s, &e);
		zip_source_free(zs);
	}
	zip_error_fini(&e);
	*out = z;
	return err;
}

static void close_source(zip_t *z, struct source *s)
{
	zip_discard(z);
	zip_error_fini(&s->error);
}

/*
 * libzip has passed the date and time of day in the zip through mktime(3),
 * which took them for local ones. Asking for the local time brings the fields
 * back; they are then read as UTC. One hour a year does not survive: a time
 * that the local zone skips in spring comes out an hour off.
 */
static int64_t mtime_as_utc(time_t local)
{
	struct tm tm;

	if (!localtime_r(&local, &tm))
		return -1;
	return timegm(&tm);
}

static int read_member(struct archive_member *m, zip_t *z, zip_uint64_t i,
		       uint64_t zip_size)
{
	const zip_uint64_t need = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
				  ZIP_STAT_CRC | ZIP_STAT_COMP_METHOD;
	const char *name = zip_get_name(z, i, ZIP_FL_ENC_RAW);
	zip_stat_t st;
	size_t len;

	if (!name || zip_stat_index(z, i, ZIP_FL_ENC_RAW, &st))
		return -EBADMSG;
	if ((st.valid & need) != need)
		return -EBADMSG;
	if (st.size > INT64_MAX || st.comp_size > zip_size)
		return -EBADMSG;
	m->name = strdup(name);
	if (!m->name)
		return -ENOMEM;
	len = strlen(name);
	m->size = st.size;
	m->csize = st.comp_size;
	m->crc32 = st.crc;
	m->method = st.comp_method;
	m->encrypted = (st.valid & ZIP_STAT_ENCRYPTION_METHOD) &&
		       st.encryption_method != ZIP_EM_NONE;
	m->is_dir = len > 0 && name[len - 1] == '/';
	m->mtime = st.valid & ZIP_STAT_MTIME ? mtime_as_utc(st.mtime) : -1;
	return 0;
}

static int read_directory(struct archive_directory **out, zip_t *z,
			  uint64_t zip_size)
{
	struct archive_directory *d;
	zip_int64_t n = zip_get_num_entries(z, 0);
	int err = 0;

	if (n < 0)
		return -EBADMSG;
	if (n > ARCHIVE_MEMBERS_MAX)
		return -EFBIG;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->members = calloc(n ? (size_t)n : 1, sizeof(*d->members));
	if (!d->members)
		err = -ENOMEM;
	while (!err && d->n < (size_t)n) {
		err = read_member(&d->members[d->n], z, d->n, zip_size);
		if (!err)
			d->n++;
	}
	if (err) {
		archive_directory_free(d);
		return err;
	}
	*out = d;
	return 0;
}

static int read_source(struct archive_directory **out, struct source *s)
{
	zip_t *z;
	int err;

	err = open_source(&z, s);
	if (err)
		return err;
	err = read_directory(out, z, s->size);
	close_source(z, s);
	return err;
}

int archive_read_tail(struct archive_directory **out, const void *tail,
		      size_t len, uint64_t zip_size)
{
	struct source s = {
		.tail = tail,
		.size = zip_size,
		.first_read = UINT64_MAX,
	};

	if (len > zip_size)
		return -EBADMSG;
	s.tail_start = zip_size - len;
	return read_source(out, &s);
}

int archive_read_fd(struct archive_directory **out, int fd, uint64_t size)
{
	struct source s = {
		.whole = true,
		.fd = fd,
		.size = size,
		.first_read = UINT64_MAX,
	};

	return read_source(out, &s);
}

/*
 * libzip has no call for it, but its first read after opening a member raw is
 * of the first byte of the data.
 */
static int data_offset(uint64_t *off, zip_t *z, zip_uint64_t i,
		       struct source *s)
{
	zip_file_t *f;
	zip_stat_t st;
	char byte;
	int err = 0;

	*off = UINT64_MAX;
	if (zip_stat_index(z, i, 0, &st) || !(st.valid & ZIP_STAT_COMP_SIZE))
		return 0;
	if (st.comp_size == 0) { /* libzip would read nothing */
		*off = 0;
		return 0;
	}
	f = zip_fopen_index(z, i, ZIP_FL_COMPRESSED);
	if (!f)
		return s->err;
	s->first_read = UINT64_MAX;
	s->recording = true;
	if (zip_fread(f, &byte, 1) == 1)
		*off = s->first_read;
	s->recording = false;
	zip_fclose(f);
	if (s->err)
		err = s->err;
	else if (*off == UINT64_MAX || *off > s->size ||
		 st.comp_size > s->size - *off)
		err = -EBADMSG;
	return err;
}

static bool is_folder(zip_t *z, zip_uint64_t i)
{
	const char *name = zip_get_name(z, i, ZIP_FL_ENC_RAW);
	size_t len = name ? strlen(name) : 0;

	return len > 0 && name[len - 1] == '/';
}

int archive_data_offsets(uint64_t *offsets, size_t n, int fd, uint64_t size)
{
	struct source s = {
		.whole = true,
		.fd = fd,
		.size = size,
		.first_read = UINT64_MAX,
	};
	zip_t *z;
	int err;

	err = open_source(&z, &s);
	if (err)
		return err;
	if (zip_get_num_entries(z, 0) != (zip_int64_t)n)
		err = -EBADMSG;
	for (size_t i = 0; !err && i < n; i++) {
		if (is_folder(z, i))
			offsets[i] = UINT64_MAX;
		else
			err = data_offset(&offsets[i], z, i, &s);
	}
	close_source(z, &s);
	return err;
}

static uint32_t get(const unsigned char *p, size_t bytes)
{
	uint32_t v = 0;

	for (size_t i = 0; i < bytes; i++)
		v |= (uint32_t)p[i] << 8 * i;
	return v;
}

int archive_read_head(struct archive_member *m, uint64_t *data_off,
		      const void *head, size_t len)
{
	enum { ENCRYPTED = 1 << 0, DESCRIPTOR = 1 << 3 };
	static const unsigned char signature[] = {'P', 'K', 3, 4};
	const unsigned char *p = head;
	uint32_t flags, csize, size;

	if (len < ARCHIVE_HEAD_BYTES)
		return -ENODATA;
	if (memcmp(p, signature, sizeof(signature)) != 0)
		return -EBADMSG;
	flags = get(p + 6, 2);
	csize = get(p + 18, 4);
	size = get(p + 22, 4);
	*m = (struct archive_member){
		.size = size,
		.csize = csize,
		.crc32 = get(p + 14, 4),
		.method = (uint16_t)get(p + 8, 2),
		.encrypted = flags & ENCRYPTED,
		.mtime = -1,
	};
	if ((flags & DESCRIPTOR) || csize == UINT32_MAX || size == UINT32_MAX)
		m->csize = UINT64_MAX;
	*data_off = ARCHIVE_HEAD_BYTES + get(p + 26, 2) + get(p + 28, 2);
	return 0;
}

/* Is @member called what @zip_name is, with .csv for .zip? */
static bool named_like(const char *member, const char *zip_name)
{
	size_t len = strlen(zip_name);

	return len > 4 && strlen(member) == len &&
	       strcmp(zip_name + len - 4, ".zip") == 0 &&
	       strcmp(member + len - 4, ".csv") == 0 &&
	       memcmp(member, zip_name, len - 4) == 0;
}

ptrdiff_t archive_csv(const struct archive_directory *d, const char *zip_name)
{
	ptrdiff_t only = -1;
	size_t files = 0;

	for (size_t i = 0; i < d->n; i++) {
		if (d->members[i].is_dir)
			continue;
		if (named_like(d->members[i].name, zip_name))
			return (ptrdiff_t)i;
		files++;
		only = (ptrdiff_t)i;
	}
	return files == 1 ? only : -1;
}

static bool component_ok(const char *c, size_t len)
{
	if (len == 0 || len > NAME_MAX)
		return false;
	return !(len == 1 && c[0] == '.') &&
	       !(len == 2 && c[0] == '.' && c[1] == '.');
}

bool archive_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len >= PATH_MAX)
		return false;
	for (const char *c = name; *c;) {
		size_t n = strcspn(c, "/");

		if (!component_ok(c, n))
			return false;
		c += n;
		if (*c == '/')
			c++;
	}
	return true;
}

void archive_directory_free(struct archive_directory *d)
{
	if (!d)
		return;
	for (size_t i = 0; d->members && i < d->n; i++)
		free(d->members[i].name);
	free(d->members);
	free(d);
}

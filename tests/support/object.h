/* object - a zip of the tests of cache/ with its directory and its index. */
#ifndef TESTS_SUPPORT_OBJECT_H
#define TESTS_SUPPORT_OBJECT_H

#include <stdint.h>

#include "cache/archive.h"
#include "cache/checkpoints.h"
#include "tests/support/archives.h"

struct object {
	int fd;
	int dirfd; /* where its indexes are */
	uint64_t size;
	struct archive_directory *directory;
	struct checkpoints_id id;
	struct checkpoints *cp; /* NULL until loaded */
	unsigned char *span;	/* CHECKPOINTS_SPAN bytes with a guard behind */
};

/* Each fails the test that runs where it can't do what it says. */

/* The zip @name.zip of @dir, not indexed yet; object_close() ends it. */
void object_open(struct object *o, const struct archives *dir,
		 const char *name);
/* The same of a file elsewhere, by its absolute path, which is only read; its
 * indexes are made in @dir. */
void object_open_path(struct object *o, const struct archives *dir,
		      const char *path);
/* object_open(), indexed, and the index loaded. */
void object_load(struct object *o, const struct archives *dir,
		 const char *name);
/* Has @b see all bytes of the file, in pieces of no round size. */
void object_feed(const struct object *o, struct checkpoints_builder *b,
		 uint64_t size);
/* Writes the file @index: 0, or what the builder says, in @budget at a time. */
int object_build(struct object *o, const char *index, uint64_t budget,
		 checkpoints_sink_fn *sink, void *arg);
/* Are the files @a and @b the same index, as large to a thousandth? */
void object_assert_same_index(const struct object *o, const char *a,
			      const char *b);
/* Has it loaded. */
void object_use(struct object *o, const char *index);
/* Also: has anything been written behind the span? */
void object_close(struct object *o);

#endif

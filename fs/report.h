/*
 * report - the bytes of the files under .tickfs/, rendered when looked up.
 */
#ifndef FS_REPORT_H
#define FS_REPORT_H

#include <stddef.h>

#include "fs/xattr.h"

/* "log.jsonl", "status.json"; NULL ends. */
extern const char *const report_names[];

/* 0 with *text the caller's to free; -ENOENT, -ENOMEM. */
int report_render(const struct xattr_sources *x, const char *name, char **text,
		  size_t *len);

#endif

/*
 * utf8 - which bytes are text. Pure. RFC 3629: no overlong forms, no
 * surrogates, nothing above U+10FFFF.
 */
#ifndef FS_UTF8_H
#define FS_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that @s (@len of them) begins with; 0 if it begins
 * with none, or if that one is cut short. */
size_t utf8_char(const char *s, size_t len);

/* All of @s is UTF-8 without control characters (U+0000 to U+001F, U+007F). */
bool utf8_is_name(const char *s, size_t len);

#endif

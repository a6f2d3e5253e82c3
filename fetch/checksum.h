/*
 * checksum - the line of a published .CHECKSUM file. Pure.
 *
 * The format is that of sha256sum(1): 64 hex digits, two spaces (or a space
 * and the star of its binary mode), the bare file name. Spot archives have no
 * LF at the end, futures and options have one
 * (reference/binance-vision.md section 4).
 */
#ifndef FETCH_CHECKSUM_H
#define FETCH_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

enum {
	CHECKSUM_DIGEST_LEN = 32,
};

/*
 * checksum_parse() - the SHA-256 that a .CHECKSUM file gives for one name.
 * @text: the whole file; need not end in a NUL
 * @name: the bare file name that it must be for
 *
 * Digits of either case are taken, as sha256sum -c does.
 *
 * Returns 0, or -EPROTO for anything but exactly that one line: another name,
 * a path before it, a carriage return, a second line, blanks around it. Then
 * @digest is unchanged.
 */
int checksum_parse(const void *text, size_t len, const char *name,
		   uint8_t digest[CHECKSUM_DIGEST_LEN]);

#endif

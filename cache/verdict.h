/*
 * verdict - three witnesses, one verdict on an object's bytes. Pure.
 *
 * The witnesses: SHA-256 against the published .CHECKSUM, MD5 against the
 * ETag where the ETag is an MD5, CRC-32 and length of every zip member.
 */
#ifndef CACHE_VERDICT_H
#define CACHE_VERDICT_H

#include <stdbool.h>

enum verdict {
	VERDICT_NONE, /* not judged yet */
	VERDICT_VERIFIED,
	VERDICT_CHECKSUM_STALE,	  /* ETag and CRC hold, .CHECKSUM does not */
	VERDICT_CHECKSUM_MISSING, /* there is none, and nothing speaks against
				   */
	VERDICT_DAMAGED,
};

enum verdict_witness {
	VERDICT_SILENT, /* nothing to compare with */
	VERDICT_HOLDS,
	VERDICT_FAILS,
};

struct verdict_evidence {
	bool expects_checksum; /* an archive; plain objects have no .CHECKSUM */
	enum verdict_witness sha256, etag, crc;
};

/*
 * verdict_decide():
 *  crc fails                                  damaged
 *  sha256 holds                               verified (also if the ETag,
 *                                             a mere version id, differs)
 *  sha256 fails, etag holds                   checksum_stale
 *  sha256 fails otherwise                     damaged
 *  sha256 silent, none expected, etag holds
 *    or silent                                verified
 *  sha256 silent, one expected, etag not failing   checksum_missing
 *  else                                       damaged
 */
enum verdict verdict_decide(const struct verdict_evidence *e);

/* May it be served? @lenient: -o integrity=lenient. */
bool verdict_serves(enum verdict v, bool lenient);

/* "verified" "checksum_stale" ...; "" for NONE. And back; NONE if unknown. */
const char *verdict_name(enum verdict v);
enum verdict verdict_parse(const char *name);

#endif

/*
 * rules - which requests the imitated origin treats badly, and how.
 *
 * A set of rules is read once from JSON and then only counts. It is either an
 * array of rules or {"seed": N, "rules": [...]}. A rule is one flat object; a
 * field that is not listed here is refused, so that a typo in a test shows.
 *
 * Whom it concerns (all that are given must hold):
 *   "key"         glob over the key, or over the prefix of a listing; "*" also
 *                 matches "/"
 *   "kind"        one of, or an array of: "list", "object" (GET of a whole
 *                 object), "range" (GET with a Range header), "head", "page"
 *                 (the website's HTML)
 *   "host"        "main" (the website) or "mirror" (the bucket's own host;
 *                 listings are always there)
 *   "nth"         begins with the nth request that matched so far, from 1
 *   "times"       then applies so often; without it always, or once if there
 *                 is an "nth"
 *   "per_key"     true: nth and times count for each key on its own
 *   "probability" 0 to 1. Drawn from the seed, the rule's place in the array,
 *                 the key and how often that key was asked: so it does not
 *                 depend on how requests of several keys interleave.
 *
 * What happens: each field below. Where several rules apply to one request
 * their fields add up, and of two rules with the same field the first counts.
 *
 *   "delay_ms"            before the answer
 *   "delay_jitter_ms"     up to so much more, drawn as "probability" is
 *   "connection_delay_ms" as "delay_ms", for a connection's first request only
 *   "hold"                a name: wait until that name is released
 *   "hold_after"          hold after so many bytes of the body instead
 *   "drop"                true: close the connection without an answer
 *   "status"              answer this, with a short body (or with "body")
 *   "retry_after"         seconds, as header Retry-After
 *   "body"                answer this text; "content_type" goes with it
 *   "html"                true: 200 with a web page
 *   "headers"             object: each replaces or adds a header, null takes
 *                         one away (not Content-Length)
 *   "cut_after"           close after so many bytes of the body
 *   "stall_after"         pause there for "stall_ms" (not given: until the
 *                         client goes away)
 *   "throttle"            bytes a second
 *   "chunked"             true: no Content-Length
 *  objects only:
 *   "ignore_range"        true: 200 and the whole body
 *   "truncate_to"         the object is only that long; ETag as before
 *   "flip_at"             invert the byte at this offset of the object;
 *                         negative: from its end
 *   "replace_with"        path of another file (relative to the root): its
 *                         bytes, size, time and ETag in place of the object's
 *   "etag"                answer this ETag; "" for none
 *   "etag_suffix"         the real MD5 followed by this, e.g. "-2"
 *   "wrong_checksum"      true: another first digit in a .CHECKSUM
 *   "listed"              false: replace_with, etag and etag_suffix do not
 *                         show in listings (they do, unless "probability" is
 *                         given or the rule is spent)
 *  listings only:
 *   "bad_xml"             true: well-formed up to the middle, then not
 *   "repeat_page"         true: the marker is ignored, page 1 comes again
 *   "empty_list"          true: as if there were nothing
 */
#ifndef TESTS_ORIGIN_RULES_H
#define TESTS_ORIGIN_RULES_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum imitation_kind {
	IMITATION_LIST,
	IMITATION_OBJECT,
	IMITATION_RANGE,
	IMITATION_HEAD,
	IMITATION_PAGE,
	IMITATION_KINDS,
};

enum imitation_host { IMITATION_MAIN, IMITATION_MIRROR };

#define IMITATION_UNSET INT64_MIN

/* What is to happen to one request: numbers may be IMITATION_UNSET, texts
 * NULL. Texts and headers belong to the set of rules. Once judged, delay_ms has
 * its jitter in it. */
struct imitation_fault {
	int64_t delay_ms, delay_jitter_ms, connection_delay_ms;
	int64_t status, retry_after;
	int64_t cut_after, stall_after, stall_ms, hold_after, throttle;
	int64_t truncate_to, flip_at;
	const char *hold, *body, *content_type;
	const char *replace_with, *etag, *etag_suffix;
	const cJSON *headers;
	bool drop, html, chunked;
	bool ignore_range, wrong_checksum;
	bool bad_xml, repeat_page, empty_list;
};

struct imitation_rules;

const char *imitation_kind_name(enum imitation_kind kind);
const char *imitation_host_name(enum imitation_host host);

/* Nothing befalls. */
void imitation_fault_init(struct imitation_fault *fault);

/*
 * imitation_rules_parse() - a set of rules with one reference.
 * @json: NULL or "" for no rules
 * @why: where an error is told in words, at most @why_len bytes with the NUL
 * Returns 0, -EINVAL or -ENOMEM.
 */
int imitation_rules_parse(struct imitation_rules **out, const char *json,
			  char *why, size_t why_len);

struct imitation_rules *imitation_rules_ref(struct imitation_rules *r);
void imitation_rules_unref(struct imitation_rules *r);

/* imitation_rules_judge() - count one request and say what befalls it.
 * Any thread. @fault holds while the caller has a reference. */
void imitation_rules_judge(struct imitation_rules *r, enum imitation_kind kind,
			   enum imitation_host host, const char *key,
			   struct imitation_fault *fault);

/* imitation_rules_listed() - what a listing has to show of @key otherwise than
 * it is: replace_with, etag and etag_suffix of rules that stand. Counts
 * nothing. */
void imitation_rules_listed(struct imitation_rules *r, const char *key,
			    struct imitation_fault *fault);

#endif

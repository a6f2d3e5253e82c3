/*
 * journal - the imitated origin's own counts and its log of last requests.
 *
 * Counts of a request are in before the client can have its whole answer: a
 * client that is done may read them at once.
 */
#ifndef TESTS_ORIGIN_JOURNAL_H
#define TESTS_ORIGIN_JOURNAL_H

#include <stdint.h>

#include "tests/origin/origin_server.h"

struct imitation_journal;

/* What is told of a request on its arrival; texts may be NULL. */
struct imitation_arrival {
	const char *method, *path, *query;
	const char *range, *if_range, *if_none_match, *cache_control;
	enum imitation_kind kind;
	enum imitation_host host;
};

int imitation_journal_create(struct imitation_journal **out, size_t log_max);
void imitation_journal_free(struct imitation_journal *j);
void imitation_journal_reset(struct imitation_journal *j);

/* Returns the request's number, from 1. */
uint64_t imitation_journal_arrive(struct imitation_journal *j,
				  const struct imitation_arrival *a);
void imitation_journal_status(struct imitation_journal *j, uint64_t id,
			      unsigned int status);
/* Bytes of the body. */
void imitation_journal_bytes(struct imitation_journal *j, uint64_t id,
			     uint64_t bytes);
void imitation_journal_end(struct imitation_journal *j, uint64_t id,
			   bool complete);
void imitation_journal_connection(struct imitation_journal *j, int change);

void imitation_journal_stats(struct imitation_journal *j,
			     struct imitation_stats *out);
/* JSON, malloc'ed; NULL for want of memory. */
char *imitation_journal_stats_json(struct imitation_journal *j);
char *imitation_journal_log_json(struct imitation_journal *j);

#endif

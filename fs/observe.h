/*
 * observe - events of fetch/ and cache/ become log lines and counters.
 */
#ifndef FS_OBSERVE_H
#define FS_OBSERVE_H

#include "cache/store.h"
#include "fetch/event.h"

/* @arg: the budget that bytes are spent of, or NULL */
void observe_fetch(void *arg, const struct fetch_event *ev);
void observe_store(void *arg, const struct store_event *ev);

#endif

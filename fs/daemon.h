/*
 * daemon - into the background, but only once there is something to serve.
 *
 * The child does everything from opening the cache on, since threads do not
 * survive a fork; the parent waits for its word and exits with its status. So
 * every error still reaches the terminal and the exit status.
 */
#ifndef FS_DAEMON_H
#define FS_DAEMON_H

#include <stdbool.h>

/*
 * daemon_begin() - forks; returns in the child only. The parent exits 0 when
 * daemon_ready() was called, else with the child's exit status.
 * Returns 0 or -errno.
 */
int daemon_begin(void);

/* Lets the parent go and leaves the terminal; @keep_stderr for a service's
 * journal. Does nothing where daemon_begin() was not called. */
void daemon_ready(bool keep_stderr);

#endif

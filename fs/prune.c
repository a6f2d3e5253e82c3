#include "fs/prune.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "fs/log.h"

/* Of linux/fuse.h in protocol 7.45. */
enum { NOTIFY_PRUNE = 9 };

struct notify_header {
	uint32_t len;
	int32_t code;
	uint64_t unique; /* 0: a notice, no answer */
};

struct notify_prune {
	uint32_t count;
	uint32_t padding;
	uint64_t spare;
};

enum { IDS_MAX = 8192 };

struct prune {
	struct nodes *nodes;
	size_t limit;
	/* Held while the notice is written, which does not wait. */
	pthread_mutex_t lock;
	int fd; /* -1: stopped, or the kernel is too old; protected by lock */
	uint64_t ids[IDS_MAX];
};

static int send_ids(int fd, uint64_t *ids, size_t n)
{
	struct notify_prune what = {.count = (uint32_t)n};
	struct notify_header header = {.code = NOTIFY_PRUNE};
	struct iovec iov[] = {
		{&header, sizeof(header)},
		{&what, sizeof(what)},
		{ids, n * sizeof(ids[0])},
	};

	header.len =
		(uint32_t)(iov[0].iov_len + iov[1].iov_len + iov[2].iov_len);
	return writev(fd, iov, 3) < 0 ? -errno : 0;
}

void prune_tick(struct prune *p, uint64_t now_ms)
{
	size_t n;
	int err;

	pthread_mutex_lock(&p->lock);
	n = p->fd < 0
		    ? 0
		    : node_surplus(p->nodes, now_ms, p->limit, p->ids, IDS_MAX);
	err = n ? send_ids(p->fd, p->ids, n) : 0;
	if (err == -EINVAL || err == -ENOSYS) {
		p->fd = -1;
		log_event(LOG_LEVEL_DEBUG, "mount", "prune_unsupported",
			  LOG_END);
	}
	pthread_mutex_unlock(&p->lock);
}

void prune_stop(struct prune *p)
{
	pthread_mutex_lock(&p->lock);
	p->fd = -1;
	pthread_mutex_unlock(&p->lock);
}

int prune_create(struct prune **out, struct nodes *nodes, size_t limit,
		 int fuse_fd)
{
	struct prune *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->nodes = nodes;
	p->limit = limit;
	p->fd = fuse_fd;
	pthread_mutex_init(&p->lock, NULL);
	*out = p;
	return 0;
}

void prune_free(struct prune *p)
{
	if (!p)
		return;
	pthread_mutex_destroy(&p->lock);
	free(p);
}

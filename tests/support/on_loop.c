#include "tests/support/on_loop.h"

#include <semaphore.h>

#include "fetch/loop.h"

struct step {
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void run(void *arg)
{
	struct step *s = arg;

	s->fn(s->arg);
	sem_post(&s->done);
}

void on_loop(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct step s = {.fn = fn, .arg = arg};
	struct loop_call call = {.fn = run, .arg = &s};

	sem_init(&s.done, 0, 0);
	loop_post(l, &call);
	while (sem_wait(&s.done) != 0)
		;
	sem_destroy(&s.done);
}

static void quit(void *arg)
{
	loop_quit(arg);
}

void on_loop_end(struct loop *l)
{
	struct loop_call call = {.fn = quit, .arg = l};

	loop_post(l, &call);
	loop_free(l);
}

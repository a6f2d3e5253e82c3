/*
 * on_loop - tests of what lives on a loop's thread: run a step there, and wait
 * for its end.
 */
#ifndef TESTS_SUPPORT_ON_LOOP_H
#define TESTS_SUPPORT_ON_LOOP_H

struct loop;

/* Runs @fn on the thread of @l and returns when it has. */
void on_loop(struct loop *l, void (*fn)(void *arg), void *arg);

/* Makes the loop end, and frees it. */
void on_loop_end(struct loop *l);

#endif

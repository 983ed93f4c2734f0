/*
 * Threads for tasks that may block.
 *
 * A thread that has nothing to do is kept for a moment, as starting one costs
 * as much as the task it is wanted for.  Tasks wait in a queue while MAX
 * threads are at work.
 */
#ifndef REMCTL_THREADS_H
#define REMCTL_THREADS_H

#include <stdbool.h>

/* Seconds. */
#define FOR_EVER 1e8

/* Something to do in another thread.  The first member of what it works on. */
struct task {
    void (*run)(struct task *);
    struct task *next;
};

int run_in_thread(struct task *task);
unsigned int tasks_begun(void);
bool watch_forks(void);
unsigned int fork_count(void);
double monotonic(void);

#endif

/*
 * Threads for what may block.
 *
 * One that has nothing to do is kept for a moment: starting a thread costs as
 * much as the call it is wanted for.
 */

#include "handle.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* How long, in seconds, a thread is kept. */
#ifndef KEEP
#    define KEEP 1.0
#endif

/* Kerberos plugins run on the thread's stack. */
#define STACK_SIZE (1024 * 1024)

struct worker {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    void (*run)(void *); /* NULL: nothing to do. */
    void *argument;
};

/* The one that is kept: whoever takes it away from here owns it. */
static _Atomic(struct worker *) idle;

static int
condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    int code;

    if ((code = pthread_condattr_init(&attributes)) != 0)
        return code;
#ifndef __APPLE__
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    code = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return code;
}

/* Makes a mutex and its condition, or neither.  Returns 0 or an errno. */
int
lock_init(pthread_mutex_t *mutex, pthread_cond_t *condition)
{
    int code = pthread_mutex_init(mutex, NULL);

    if (code == 0 && (code = condition_init(condition)) != 0)
        pthread_mutex_destroy(mutex);
    return code;
}

/* Waits at most so many seconds; for ever if negative. */
void
condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock,
               double seconds)
{
    struct timespec ts;

    if (seconds < 0) {
        pthread_cond_wait(condition, lock);
        return;
    }
#ifndef __APPLE__
    seconds += monotonic();
#endif
    ts.tv_sec = (time_t) seconds;
    ts.tv_nsec = (long) ((seconds - (double) ts.tv_sec) * 1e9);
#ifdef __APPLE__
    pthread_cond_timedwait_relative_np(condition, lock, &ts);
#else
    pthread_cond_timedwait(condition, lock, &ts);
#endif
}

static void
worker_free(struct worker *worker)
{
    pthread_cond_destroy(&worker->wake);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

/* Waits for the next thing to do; false if nothing came. */
static bool
worker_rest(struct worker *worker)
{
    struct worker *expected = NULL;
    double end = monotonic() + KEEP, left = KEEP;

    worker->run = NULL;
    if (!atomic_compare_exchange_strong(&idle, &expected, worker))
        return false;
    pthread_mutex_lock(&worker->lock);
    while (worker->run == NULL && left > 0) {
        condition_wait(&worker->wake, &worker->lock, left);
        left = end - monotonic();
    }
    expected = worker;
    if (worker->run == NULL
        && atomic_compare_exchange_strong(&idle, &expected, NULL)) {
        pthread_mutex_unlock(&worker->lock);
        return false;
    }
    while (worker->run == NULL) /* Somebody took us at the last moment. */
        condition_wait(&worker->wake, &worker->lock, -1);
    pthread_mutex_unlock(&worker->lock);
    return true;
}

static void *
worker_main(void *argument)
{
    struct worker *worker = argument;

    do
        worker->run(worker->argument);
    while (worker_rest(worker));
    worker_free(worker);
    return NULL;
}

/* Starts the thread, with all signals left to the others. */
static int
worker_start(struct worker *worker)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int code;

    if ((code = pthread_attr_init(&attributes)) != 0)
        return code;
    sigfillset(&all);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    code = pthread_create(&thread, &attributes, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return code;
}

/* Calls a function in another thread.  Returns 0, or an errno if it cannot. */
int
run_in_thread(void (*run)(void *), void *argument)
{
    struct worker *worker = atomic_exchange(&idle, NULL);
    int code;

    if (worker != NULL) {
        pthread_mutex_lock(&worker->lock);
        worker->run = run;
        worker->argument = argument;
        pthread_cond_signal(&worker->wake);
        pthread_mutex_unlock(&worker->lock);
        return 0;
    }
    worker = calloc(1, sizeof(*worker));
    if (worker == NULL)
        return ENOMEM;
    worker->run = run;
    worker->argument = argument;
    if ((code = lock_init(&worker->lock, &worker->wake)) != 0) {
        free(worker);
        return code;
    }
    if ((code = worker_start(worker)) != 0)
        worker_free(worker);
    return code;
}

/* After a fork, in the child: there the thread is not. */
void
forget_thread(void)
{
    free(atomic_exchange(&idle, NULL));
}

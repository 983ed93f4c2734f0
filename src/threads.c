/* Threads for tasks that may block: see core.h. */

#include "core.h"

#include <time.h>

/* Seconds after which an idle thread ends. */
#ifndef KEEP
#    define KEEP 1
#endif

/* Further tasks wait in the queue. */
#define MAX_THREADS 160

/* Kerberos plugins run on the thread's stack. */
#define STACK_SIZE (1024 * 1024)

pthread_mutex_t core_lock = PTHREAD_MUTEX_INITIALIZER;

/* All threads of the process. */
static struct pool {
    pthread_cond_t wake;
    struct task *first, *last;
    unsigned int queued;  /* Tasks that no thread has taken yet. */
    unsigned int idle;    /* Threads that wait for a task. */
    unsigned int threads; /* All threads. */
} pool = {.wake = PTHREAD_COND_INITIALIZER};

atomic_uint tasks_begun, fork_count;

/* Seconds on a clock that is never set. */
double
monotonic(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* Runs in a forked child, where the pool's threads do not exist. */
static void
leave_pool(void)
{
    fork_count++;
    core_lock = (pthread_mutex_t) PTHREAD_MUTEX_INITIALIZER;
    pool = (struct pool) {.wake = PTHREAD_COND_INITIALIZER};
}

/* Called whenever the extension is loaded.  Returns whether it succeeded. */
bool
watch_forks(void)
{
    static atomic_bool watching;

    pthread_mutex_lock(&core_lock);
    watching = watching || pthread_atfork(NULL, NULL, leave_pool) == 0;
    pthread_mutex_unlock(&core_lock);
    return watching;
}

/* Waits for a task; returns NULL after KEEP seconds.  The lock is held. */
static struct task *
next_task(void)
{
    struct timespec end;
    struct task *task;
    int code = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += KEEP;
    pool.idle++;
    while (pool.first == NULL && code == 0)
        code = pthread_cond_timedwait(&pool.wake, &core_lock, &end);
    pool.idle--;
    task = pool.first;
    if (task != NULL) {
        pool.first = task->next;
        pool.queued--;
        tasks_begun++;
    }
    return task;
}

static void *
work(void *unused)
{
    struct task *task;

    (void) unused;
    pthread_mutex_lock(&core_lock);
    while ((task = next_task()) != NULL) {
        pthread_mutex_unlock(&core_lock);
        task->run(task);
        pthread_mutex_lock(&core_lock);
    }
    pool.threads--;
    pthread_mutex_unlock(&core_lock);
    return NULL;
}

/* Starts a thread with all signals blocked.  The lock is held. */
static int
start_thread(void)
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
    code = pthread_create(&thread, &attributes, work, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (code == 0)
        pool.threads++;
    return code;
}

/* Runs a task in another thread.  Returns 0, or an errno if no thread can be
   started for it. */
int
run_in_thread(struct task *task)
{
    int code = 0;

    pthread_mutex_lock(&core_lock);
    if (pool.queued >= pool.idle && pool.threads < MAX_THREADS)
        code = start_thread();
    if (code == 0) {
        task->next = NULL;
        if (pool.first == NULL)
            pool.first = task;
        else
            pool.last->next = task;
        pool.last = task;
        pool.queued++;
    }
    pthread_mutex_unlock(&core_lock);
    pthread_cond_signal(&pool.wake); /* Now the thread can take the lock. */
    return code;
}

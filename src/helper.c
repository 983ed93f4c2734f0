/*
 * Calls of libremctl that may block, run in a thread of their own.
 *
 * The calling thread watches the job: it looks for signals, for silence on the
 * network and for remctl_close() in another thread, and ends the job by
 * shutting the socket down.  A job that opens a connection may be waiting for
 * a KDC, which nothing can end: it is left behind, and frees what it holds
 * when it returns.
 */

#include "handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#    include <linux/tcp.h>
#endif
#include <netinet/in.h>

/* How often, in seconds, a connection is asked whether octets moved. */
#define ACTIVITY_SLICE 0.1

struct job {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    bool cancelled; /* Another thread closed the handle. */
    bool abandoned; /* Nobody watches: the thread frees everything. */
    struct remctl *client;
    int watch; /* Our own descriptor: libremctl may close its own. */
    struct call *call;

    /* Of a job that opens a connection: call is NULL. */
    int fd;
    char *host;
    char *principal;
    bool opened;
};

/* What the watching thread remembers from turn to turn. */
struct watch {
    double slice;       /* Seconds that a turn may take; -1: for ever. */
    double quiet_since; /* When octets last moved. */
    uint64_t activity;
};

/* How a job ended, for the thread that watched it. */
enum job_end { RETURNED, GIVEN_UP, LEFT_BEHIND, NOT_STARTED };

static void
job_free(struct job *job)
{
    if (job == NULL)
        return;
    close(job->watch);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    free(job->host);
    free(job->principal);
    free(job);
}

static struct job *
job_new(Handle *h, int fd)
{
    struct job *job = calloc(1, sizeof(*job));
    int code;

    if (job == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    job->client = h->client;
    job->fd = fd;
    job->watch = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (job->watch < 0)
        handle_fail(h, errno, "cannot watch the connection: %s",
                    strerror(errno));
    else if ((code = lock_init(&job->lock, &job->changed)) != 0) {
        handle_fail_thread(h, code);
        close(job->watch);
    } else
        return job;
    free(job);
    return NULL;
}

/* What the other thread does. */
static void
job_do(void *argument)
{
    struct job *job = argument;
    bool abandoned;

    if (job->call != NULL)
        job->call->run(job->call, job->client);
    else
        job->opened = remctl_open_fd(job->client, job->host, job->fd,
                                     job->principal);
    pthread_mutex_lock(&job->lock);
    job->done = true;
    abandoned = job->abandoned;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
    if (abandoned) {
        close_client(job->client, job->opened ? job->fd : -1, false);
        job_free(job);
    }
}

/* Octets that the peer has acknowledged or sent; without TCP_INFO, a number
   that changes when the socket's buffers do. */
static uint64_t
socket_activity(int fd)
{
    uint64_t activity = 0;
    int queued = 0;

#ifdef __linux__
    struct tcp_info info;
    socklen_t size = sizeof(info);

    memset(&info, 0, sizeof(info));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0)
        return info.tcpi_bytes_acked + info.tcpi_bytes_received;
#endif
    if (ioctl(fd, FIONREAD, &queued) == 0)
        activity = (uint64_t) queued;
#ifdef TIOCOUTQ
    if (ioctl(fd, TIOCOUTQ, &queued) == 0)
        activity += (uint64_t) queued << 32;
#endif
    return activity;
}

/*
 * Says what did not end in time.  While libkrb5 asks a KDC for a ticket,
 * nothing but the first token, a bare header, has left (Linux counts the SYN
 * as an octet, too).
 */
static void
job_timed_out(struct job *job, Handle *h, uint64_t activity)
{
    const char *what = "error receiving token: timed out";

    if (job->call != NULL && job->call->command != NULL)
        what = "error sending token: timed out";
#ifdef __linux__
    else if (job->call == NULL && activity <= TOKEN_HEADER + 1)
        what = "GSS-API error initializing context: timed out waiting for a"
               " KDC";
#else
    (void) activity;
#endif
    handle_fail(h, ETIMEDOUT, "%s", what);
}

/*
 * One turn of watching.  Returns true when there is nothing left to wait for:
 * the job has returned, or the reason why not is recorded in the handle.
 * Needs no GIL.
 */
static bool
job_turn(struct job *job, Handle *h, struct watch *watch)
{
    bool over = true;
    uint64_t activity;

    pthread_mutex_lock(&job->lock);
    if (!job->done && !job->cancelled)
        condition_wait(&job->changed, &job->lock, watch->slice);
    activity = h->timeout > 0 ? socket_activity(job->watch) : 0;
    if (activity != watch->activity)
        watch->quiet_since = monotonic();
    watch->activity = activity;
    if (job->done)
        ;
    else if (job->cancelled)
        handle_fail(h, ECANCELED, "connection closed by another thread");
    else if (h->timeout > 0 && monotonic() - watch->quiet_since >= h->timeout)
        job_timed_out(job, h, activity);
    else
        over = false;
    pthread_mutex_unlock(&job->lock);
    return over;
}

/* Ends a job that nobody wants any more.  Needs no GIL. */
static enum job_end
job_give_up(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    shutdown(job->watch, SHUT_RDWR);
    job->abandoned = job->call == NULL && !job->done;
    while (job->call != NULL && !job->done)
        condition_wait(&job->changed, &job->lock, -1);
    if (job->abandoned) {
        pthread_mutex_unlock(&job->lock);
        return LEFT_BEHIND;
    }
    pthread_mutex_unlock(&job->lock);
    return GIVEN_UP;
}

/* Lets remctl_close() find the job; false if it has been called already. */
static bool
job_register(struct job *job, Handle *h)
{
    bool closed;

    pthread_mutex_lock(&h->guard);
    closed = h->closed;
    h->job = closed ? NULL : job;
    pthread_mutex_unlock(&h->guard);
    if (closed)
        handle_fail(h, ECANCELED, "connection closed by another thread");
    return !closed;
}

static void
job_unregister(Handle *h)
{
    pthread_mutex_lock(&h->guard);
    h->job = NULL;
    pthread_mutex_unlock(&h->guard);
}

/* Runs a job and watches it.  After any end but RETURNED, the connection is
   lost, and the reason recorded or raised. */
static enum job_end
job_run(struct job *job, Handle *h)
{
    struct watch watch = {.slice = -1, .quiet_since = monotonic()};
    bool signals = handles_signals();
    bool over = false, raised = false;
    enum job_end end = RETURNED;
    int code;

    if (signals)
        watch.slice = SIGNAL_SLICE;
    if (h->timeout > 0 && (!signals || h->timeout / 4 < SIGNAL_SLICE))
        watch.slice = h->timeout / 4 < ACTIVITY_SLICE ? h->timeout / 4
                                                      : ACTIVITY_SLICE;
    watch.activity = h->timeout > 0 ? socket_activity(job->watch) : 0;
    if (!job_register(job, h))
        return NOT_STARTED;
    if ((code = run_in_thread(job_do, job)) != 0) {
        job_unregister(h);
        handle_fail_thread(h, code);
        return NOT_STARTED;
    }
    while (!over && !raised) {
        Py_BEGIN_ALLOW_THREADS
        over = job_turn(job, h, &watch);
        Py_END_ALLOW_THREADS
        raised = !over && signals && PyErr_CheckSignals() < 0;
    }
    job_unregister(h);
    pthread_mutex_lock(&job->lock);
    over = job->done && !raised;
    pthread_mutex_unlock(&job->lock);
    if (!over) {
        Py_BEGIN_ALLOW_THREADS
        end = job_give_up(job);
        Py_END_ALLOW_THREADS
    }
    return end;
}

/* Called with the handle's guard held, so that the job cannot go away. */
void
helper_cancel(struct job *job)
{
    pthread_mutex_lock(&job->lock);
    job->cancelled = true;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

/*
 * Authenticates on the socket FD, which is libremctl's from now on.  On
 * failure the caller disconnects the handle.
 */
bool
helper_open(Handle *h, const char *host, int fd, const char *principal)
{
    struct job *job = job_new(h, fd);
    enum job_end end = NOT_STARTED;
    bool success = false;

    if (job == NULL)
        goto done;
    if (!set_string(&job->host, host)
        || !set_string(&job->principal, principal)) {
        PyErr_NoMemory();
        goto done;
    }
    end = job_run(job, h);
    if (end == LEFT_BEHIND) {
        h->client = NULL;
        return false;
    }
    if (job->opened)
        success = set_socket(h, fd);
    else if (end == RETURNED)
        handle_fail_client(h);
    success = success && end == RETURNED;
    if (success) {
        free(h->host);
        free(h->principal);
        h->host = job->host;
        h->principal = job->principal;
        job->host = NULL;
        job->principal = NULL;
    }

done:
    if (end == NOT_STARTED)
        close(fd);
    job_free(job);
    return success;
}

/* Runs a call on the open connection.  Returns whether it returned: otherwise
   the caller disconnects the handle. */
bool
helper_call(Handle *h, struct call *call)
{
    struct job *job = job_new(h, h->fd);
    enum job_end end;

    if (job == NULL)
        return false;
    job->call = call;
    end = job_run(job, h);
    job_free(job);
    return end == RETURNED;
}

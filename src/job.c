/* A blocking call of libremctl in a thread: see core.h. */

#include "core.h"

#include <sys/select.h>

/* libremctl's text after a read from an empty socket. */
#define NOTHING_READ "error receiving token: unexpected end of file"

/* libremctl uses write(2): when the server has closed the connection, SIGPIPE
   would kill a program that has not blocked or ignored it. */
void
block_sigpipe(struct signals *before)
{
    struct sigaction action;
    sigset_t set;

    before->ignored = sigaction(SIGPIPE, NULL, &action) == 0
                      && action.sa_handler == SIG_IGN;
    if (before->ignored)
        return; /* Python's default. */
    sigpending(&before->pending);
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, &before->mask);
}

void
unblock_sigpipe(const struct signals *before)
{
    sigset_t set;
    int number;

    if (before->ignored)
        return;
    sigpending(&set);
    if (sigismember(&set, SIGPIPE)
        && !sigismember(&before->pending, SIGPIPE)) {
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        sigwait(&set, &number);
    }
    pthread_sigmask(SIG_SETMASK, &before->mask, NULL);
}

/* libremctl mistakes EAGAIN for the end of the stream.  An event loop such as
   libuv's may have made the descriptor non-blocking for everybody who shares
   the socket. */
static bool
make_blocking(int fd, bool blocking)
{
    int before = fcntl(fd, F_GETFL);
    int flags = blocking ? before & ~O_NONBLOCK : before | O_NONBLOCK;

    if (before >= 0 && flags != before)
        before = fcntl(fd, F_SETFL, flags);
    return before >= 0;
}

/* Closes a connection without blocking: sends QUIT only if the send buffer has
   room. */
void
connection_close(struct connection *connection, bool polite)
{
    struct pollfd poller = {.fd = connection->fd, .events = POLLOUT};
    struct signals signals;

    if (poller.fd >= 0
        && !(polite && poll(&poller, 1, 0) == 1 && poller.revents == POLLOUT))
        shutdown(poller.fd, SHUT_RDWR);
    block_sigpipe(&signals);
    remctl_close(connection->client);
    unblock_sigpipe(&signals);
    target_clear(&connection->target);
    *connection = (struct connection) {.fd = -1};
}

static bool
make_signal(struct job *job)
{
#ifdef __linux__
    job->descriptor = job->signal = eventfd(0, EFD_CLOEXEC);
    return job->descriptor >= 0;
#else
    int ends[2];

    if (pipe(ends) < 0)
        return false;
    job->descriptor = ends[0];
    job->signal = ends[1];
    return fcntl(ends[0], F_SETFD, FD_CLOEXEC) == 0
           && fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0;
#endif
}

/* Frees the job, but not its connection, which is the caller's. */
static void
job_free(struct job *job)
{
    if (job->watch >= 0)
        close(job->watch);
    if (job->descriptor >= 0)
        close(job->descriptor);
    if (job->signal != job->descriptor)
        close(job->signal);
    free(job->failure.text);
    free(job);
}

/* Records that the socket cannot be watched, with errno. */
static bool
fail_watch(struct failure *failure)
{
    return fail(failure, RESOURCE, errno, "cannot watch the connection: %s",
                strerror(errno));
}

/* Sets the socket to shut down if the job is abandoned; none if FD is -1. */
static bool
set_watch(struct job *job, int fd)
{
    bool success;

    pthread_mutex_lock(&core_lock);
    if (job->watch >= 0)
        close(job->watch);
    job->watch = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    success = fd < 0 || job->watch >= 0;
    if (fd >= 0 && job->abandoned)
        shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&core_lock);
    return success;
}

/* Makes a job that works on a copy of the connection; if it opens one, of its
   target, too.  Returns NULL, with the failure set, on failure. */
struct job *
job_new(enum operation operation, const struct connection *connection,
        struct failure *failure)
{
    struct job *job = calloc(1, sizeof(*job));

    if (job == NULL) {
        fail_memory(failure);
        return NULL;
    }
    job->operation = operation;
    job->connection = *connection;
    job->descriptor = job->signal = job->watch = -1;
    if (operation == OPENING
        && !target_copy(&job->connection.target, &connection->target))
        fail_memory(failure);
    else if (!make_signal(job) || !set_watch(job, connection->fd))
        fail_watch(failure);
    else
        return job;
    if (operation == OPENING)
        target_clear(&job->connection.target);
    job_free(job);
    return NULL;
}

/* Makes libremctl's client. */
static bool
make_client(struct job *job)
{
    const struct target *target = &job->connection.target;
    struct remctl *client = job->connection.client = remctl_new();

    return client != NULL
           && (!target->ccache || remctl_set_ccache(client, target->ccache))
           && (!target->source
               || remctl_set_source_ip(client, target->source));
}

/*
 * Detects the protocol.  Before a command, remctl_output() returns at once
 * with protocol 2 or later.  With protocol 1 it reads from the empty socket
 * and fails.  Then libremctl opens a connection for each command, as it
 * returns the status only on a connection that it opened itself.
 */
static bool
find_protocol(struct job *job)
{
    struct connection *connection = &job->connection;
    struct remctl_output *output;

    connection->protocol = 2;
    remctl_set_timeout(connection->client, 0); /* Or it would wait. */
    if (!make_blocking(connection->fd, false))
        return false;
    output = remctl_output(connection->client);
    if (output != NULL && output->type == REMCTL_OUT_DONE)
        return make_blocking(connection->fd, true);
    if (output == NULL
        && strcmp(remctl_error(connection->client), NOTHING_READ) != 0)
        return false;
    set_watch(job, -1);
    remctl_close(connection->client);
    connection->fd = -1;
    connection->protocol = 1;
    return make_client(job);
}

/*
 * Sets libremctl's own time limit, for calls that nobody else can end: with
 * protocol 1, where the socket is libremctl's, and for a job in place.  As it
 * uses select(), there is no limit if many descriptors are open.
 */
static void
limit_library(const struct connection *connection)
{
    int lowest = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    double seconds = connection->target.timeout;

    if (lowest < 0 || lowest >= FD_SETSIZE / 2)
        seconds = 0;
    remctl_set_timeout(connection->client,
                       seconds > 0 ? (time_t) seconds + 1 : 0);
    if (lowest >= 0)
        close(lowest);
}

static bool
run_command(struct job *job)
{
    struct connection *connection = &job->connection;
    const struct target *target = &connection->target;

    if (connection->protocol == 1)
        limit_library(connection);
    return (connection->protocol != 1
            || remctl_open(connection->client, target->host,
                           (unsigned short) target->port, target->principal))
           && remctl_commandv(connection->client, job->command->vector,
                              job->command->count);
}

static bool
authenticate(struct job *job)
{
    struct connection *connection = &job->connection;
    const struct target *target = &connection->target;

    if (!make_blocking(connection->fd, true)
        || !set_watch(job, connection->fd)) {
        fail_watch(&job->failure);
        close(connection->fd);
        connection->fd = -1;
        return false;
    }
    if (job->in_place)
        limit_library(connection);
    job->stage = AUTHENTICATING;
    job->steps++;
    if (!remctl_open_fd(connection->client, target->host, connection->fd,
                        target->principal)) {
        connection->fd = -1; /* libremctl has closed it. */
        return false;
    }
    return find_protocol(job);
}

static void
run_open(struct job *job)
{
    struct connection *connection = &job->connection;

    if (make_client(job)) {
        connection->fd = connect_target(job);
        if (connection->fd < 0)
            return;
        job->success = authenticate(job);
    }
    if (connection->client == NULL)
        fail_memory(&job->failure);
    else if (!job->success && job->failure.kind == NULL)
        fail_library(&job->failure, remctl_error(connection->client));
}

/* Drops a reference to a job that was started; its thread and the waiting
   thread have one each.  The last one frees it.  If the job was abandoned,
   its socket was shut down before; libremctl may have closed it, and its
   number may be in use for another file. */
void
job_release(struct job *job)
{
    if (--job->holders > 0)
        return;
    if (job->abandoned) {
        job->connection.fd = -1;
        connection_close(&job->connection, false);
    }
    job_free(job);
}

/* Makes the descriptor readable. */
void
job_wake(struct job *job)
{
    uint64_t one = 1;

    (void) !write(job->signal, &one, sizeof(one));
}

static void
run(struct task *task)
{
    struct job *job = (struct job *) task;
    struct remctl *client = job->connection.client;

    job->stage = STARTED;
    job->steps++;
    if (job->in_place && job->operation != OPENING)
        limit_library(&job->connection);
    if (job->abandoned)
        ; /* It was given up in the queue. */
    else if (job->operation == OPENING)
        run_open(job);
    else if (job->operation == SENDING)
        job->success = run_command(job);
    else if (job->operation == PINGING)
        job->success = remctl_noop(client);
    else
        job->output = remctl_output(client);
    if (job->command != NULL)
        job->command->sending = false;
    job->done = true;
    job_wake(job);
    job_release(job);
}

/* Starts the job; in place, where no thread can be started. */
void
job_start(struct job *job)
{
    struct signals signals;

    job->task.run = run;
    job->holders = 2;
    if (job->connection.fd >= 0)
        make_blocking(job->connection.fd, true);
    if (run_in_thread(&job->task) == 0)
        return;
    job->in_place = true;
    block_sigpipe(&signals);
    run(&job->task);
    unblock_sigpipe(&signals);
}

/* Returns the octets that the peer has acknowledged or sent.  Systems that do
   not count them return a constant: then the timeout limits the whole call. */
static uint64_t
socket_activity(int fd)
{
#ifdef __linux__
    struct tcp_info info;
    socklen_t size = sizeof(info);

    memset(&info, 0, sizeof(info));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0)
        return info.tcpi_bytes_acked + info.tcpi_bytes_received;
#endif
    (void) fd;
    return UINT32_MAX;
}

/* Returns a number that changes when the job makes progress; while it is
   queued, when other jobs start. */
uint64_t
job_activity(struct job *job)
{
    uint64_t activity = 0;

    if (job->stage == QUEUED)
        return tasks_begun;
    pthread_mutex_lock(&core_lock);
    if (job->watch >= 0)
        activity = socket_activity(job->watch);
    pthread_mutex_unlock(&core_lock);
    return activity + ((uint64_t) job->steps << 48);
}

/* Gives up a job and its connection.  The job may continue for a while, and
   frees everything when it ends. */
void
job_abandon(struct job *job)
{
    pthread_mutex_lock(&core_lock);
    job->abandoned = true;
    if (job->watch >= 0)
        shutdown(job->watch, SHUT_RDWR);
    pthread_mutex_unlock(&core_lock);
    job_release(job);
}

/* Operations on a connection, one at a time: see core.h. */

#include "core.h"

/* Octets that have left before libkrb5 asks a KDC: a bare header, and the SYN,
   which Linux counts. */
#define FIRST_TOKEN 6
#define OCTETS 0xffffffffffffULL /* The octets in job_activity()'s result. */

/* poll() reports room while a third of the send buffer is free.  The smallest
   buffer then has room for this many octets. */
#define SMALL_COMMAND 1024

/* -- Who may use the handle ------------------------------------------------
 */

/* Admits the calling thread to the handle, if that is free. */
enum admission
handle_enter(Handle *h, enum entry entry)
{
    enum admission admission = ADMITTED;
    bool idle;

    if (h->forks != fork_count)
        return INHERITED;
    pthread_mutex_lock(&core_lock);
    idle = !h->busy && h->operation == NOTHING;
    if (h->closed && (h->busy || idle || entry != RESUME))
        admission = OVER;
    else if (h->busy || (!idle && entry == BEGIN))
        admission = IN_USE;
    else if (idle && entry == RESUME)
        admission = NOT_BEGUN;
    else
        h->busy = true;
    pthread_mutex_unlock(&core_lock);
    return admission;
}

/* Returns whether the socket is open: libremctl closes it on some failures. */
static bool
owns_socket(const Handle *h)
{
    struct stat found;
    int fd = h->connection.fd;

    return fd >= 0 && fstat(fd, &found) == 0
           && found.st_ino == h->socket.st_ino
           && found.st_dev == h->socket.st_dev;
}

/* Ends the connection, if there is one. */
static void
disconnect(Handle *h)
{
    if (!owns_socket(h))
        h->connection.fd = -1;
    connection_close(&h->connection, !h->expecting);
    h->expecting = false;
}

/* Lets the next thread in, and does what a remctl_close() during this call
   left undone. */
void
handle_leave(Handle *h)
{
    bool closed;

    pthread_mutex_lock(&core_lock);
    closed = h->closed && h->operation == NOTHING;
    h->busy = false;
    pthread_mutex_unlock(&core_lock);
    if (closed)
        disconnect(h);
}

/* Records the object of a wait, so that remctl_close() in another thread can
   end it.  The waiting thread checks afterwards whether it was called. */
static void
set_watched(Handle *h, bool watched, struct job *job)
{
    pthread_mutex_lock(&core_lock);
    h->watched = watched;
    h->job = job;
    pthread_mutex_unlock(&core_lock);
}

/* Closes the handle for good.  A thread that waits is woken, and closes the
   connection. */
void
handle_close(Handle *h)
{
    bool idle;

    pthread_mutex_lock(&core_lock);
    idle = !h->closed && !h->busy && h->operation == NOTHING;
    h->closed = true;
    if (h->job != NULL)
        job_wake(h->job);
    else if (h->watched)
        shutdown(h->connection.fd, SHUT_RDWR);
    pthread_mutex_unlock(&core_lock);
    if (idle)
        disconnect(h);
}

/* Frees everything that the handle owns.  In a forked child, only closes the
   descriptors: libremctl would send QUIT and shut down the parent's socket,
   and Kerberos may have been forked with a lock held. */
void
handle_release(Handle *h)
{
    if (h->forks == fork_count) {
        handle_cancel(h);
        disconnect(h);
    } else {
        if (h->job != NULL) {
            close(h->job->descriptor);
            if (h->job->watch >= 0)
                close(h->job->watch);
        }
        h->job = NULL;
        if (owns_socket(h))
            close(h->connection.fd);
        h->connection.fd = -1;
        h->closed = true;
    }
    target_clear(&h->settings);
    failure_clear(&h->failure);
}

/* -- Ending an operation ---------------------------------------------------
 */

/* Gives up the operation and its connection. */
void
handle_cancel(Handle *h)
{
    struct job *job = h->job;

    if (h->operation == NOTHING)
        return;
    h->operation = NOTHING;
    set_watched(h, false, NULL);
    if (job == NULL) {
        disconnect(h);
        return;
    }
    job_abandon(job); /* The connection goes with it. */
    h->connection = (struct connection) {.fd = -1};
    h->expecting = false;
}

/* Ends an operation. */
static enum outcome
end(Handle *h, bool success)
{
    h->operation = NOTHING;
    if (success)
        failure_clear(&h->failure);
    return success ? ENDED : FAILED;
}

/* Ends an operation because another thread called remctl_close(). */
static enum outcome
end_closed(Handle *h)
{
    fail(&h->failure, CLOSED, ECANCELED,
         "connection closed by another thread");
    handle_cancel(h);
    return FAILED;
}

/* Ends an operation after a failure of libremctl that loses the connection. */
static enum outcome
lose(Handle *h)
{
    if (h->closed)
        return end_closed(h);
    fail_library(&h->failure, remctl_error(h->connection.client));
    h->expecting = true; /* Prevents a QUIT. */
    disconnect(h);
    return end(h, false);
}

/* Ends the reading of a token. */
static enum outcome
end_reading(Handle *h, const struct remctl_output *output)
{
    if (output == NULL)
        return lose(h);
    if (h->connection.fd >= 0)
        reader_done(&h->reader);
    h->expecting = output->type == REMCTL_OUT_OUTPUT;
    h->output = output;
    return end(h, true);
}

/* Ends an opening: takes over the connection or the failure. */
static enum outcome
end_opening(Handle *h, struct job *job)
{
    int fd = job->connection.fd;

    h->connection = job->connection;
    if (job->success) {
        if (fd >= 0)
            fstat(fd, &h->socket);
        h->reader = (struct reader) {.fd = fd, .low_water = 1};
        return end(h, true);
    }
    failure_clear(&h->failure);
    h->failure = job->failure;
    job->failure.text = NULL;
    connection_close(&h->connection, false);
    return end(h, false);
}

/*
 * Ends a NOOP.  If the server says that it is too old for it, the connection
 * stays open: protocol 1 has no such message, and protocol 2 answers with
 * MESSAGE_ERROR (5) or MESSAGE_VERSION (6).
 */
static enum outcome
end_pinging(Handle *h, bool success)
{
    const char *reason = remctl_error(h->connection.client);

    if (success)
        return end(h, true);
    if (strcmp(reason, "unexpected message type 5 from server") != 0
        && strcmp(reason, "unexpected message type 6 from server") != 0)
        return lose(h);
    fail(&h->failure, UNSUPPORTED, EOPNOTSUPP, "%s", reason);
    return end(h, false);
}

static enum outcome
end_job(Handle *h, struct job *job)
{
    enum outcome outcome;

    set_watched(h, false, NULL);
    if (job->operation == OPENING)
        outcome = end_opening(h, job);
    else if (job->operation == READING)
        outcome = end_reading(h, job->output);
    else if (job->operation == PINGING)
        outcome = end_pinging(h, job->success);
    else {
        h->expecting = job->success;
        outcome = job->success ? end(h, true) : lose(h);
    }
    job_release(job);
    return outcome;
}

/* -- Waiting ---------------------------------------------------------------
 */

/* Records which step timed out, and gives up the operation.  While libkrb5
   asks a KDC for a ticket, only the first token, a bare header, has left
   (Linux counts the SYN as an octet, too). */
static enum outcome
time_out(Handle *h, const char *reason)
{
    struct failure *failure = &h->failure;
    const char *host = h->job ? h->job->connection.target.host : NULL;
    int stage = h->job ? h->job->stage : STARTED;

    if (stage == QUEUED)
        fail(failure, TIMEOUT, 0, "waiting for a thread: %s", reason);
    else if (stage == LOOKING_UP)
        fail(failure, TIMEOUT, 0, "unknown host %s: %s looking it up", host,
             reason);
    else if (stage == CONNECTING)
        fail(failure, TIMEOUT, ETIMEDOUT, "cannot connect to %s: %s", host,
             reason);
    else if (stage == AUTHENTICATING && (h->activity & OCTETS) <= FIRST_TOKEN)
        fail(failure, TIMEOUT, 0,
             "GSS-API error initializing context: %s waiting for a KDC",
             reason);
    else
        fail(failure, TIMEOUT, 0, "error %s token: %s",
             h->operation == SENDING ? "sending" : "receiving", reason);
    handle_cancel(h);
    return FAILED;
}

/* Sets what the operation waits for, and for how long; gives it up if its time
   is over. */
static enum outcome
wait_for(Handle *h, int descriptor, double slice)
{
    double now = monotonic();
    double silent = h->timeout > 0 ? h->quiet_since + h->timeout - now
                                   : FOR_EVER;
    double left = h->deadline > 0 ? h->deadline - now : FOR_EVER;

    if (silent <= 0 || left <= 0)
        return time_out(h, left <= 0 ? "deadline passed" : "timed out");
    h->wanted = descriptor;
    h->patience = silent < left ? silent : left;
    if (slice < h->patience)
        h->patience = slice;
    return WAITING;
}

/* Checks whether the job is done or makes progress.  Connecting has its own
   time limit for each address. */
static enum outcome
step_job(Handle *h)
{
    struct job *job = h->job;
    uint64_t activity;
    double slice = h->timeout > 0 && h->timeout < 4 * SLICE ? h->timeout / 4
                                                            : SLICE;

    if (job->done)
        return end_job(h, job);
    if (h->timeout <= 0 && h->deadline <= 0)
        return wait_for(h, job->descriptor, FOR_EVER);
    activity = job_activity(job);
    if (activity != h->activity || job->stage == CONNECTING)
        h->quiet_since = monotonic();
    h->activity = activity;
    return wait_for(h, job->descriptor, slice);
}

/* Starts a job for the operation, on a connection. */
static enum outcome
start_job(Handle *h, const struct connection *connection)
{
    struct job *job = job_new(h->operation, connection, &h->failure);

    if (job == NULL) {
        disconnect(h);
        return end(h, false);
    }
    set_watched(h, false, job);
    h->quiet_since = monotonic();
    h->activity = 0;
    job->connection.target.timeout = h->timeout;
    job->command = h->command;
    if (h->command != NULL)
        h->command->sending = true;
    job_start(job);
    return h->closed ? end_closed(h) : step_job(h);
}

static enum outcome
step_reading(Handle *h, bool readable)
{
    int arrived = h->reader.arrived;
    enum readiness readiness = reader_look(&h->reader, readable);

    if (readiness == NOT_YET) {
        if (h->timeout > 0 && h->reader.arrived > arrived)
            h->quiet_since = monotonic();
        if (!h->watched)
            set_watched(h, true, NULL);
        return h->closed ? end_closed(h) : wait_for(h, h->reader.fd, FOR_EVER);
    }
    if (h->watched)
        set_watched(h, false, NULL);
    if (readiness == MAY_BLOCK)
        return start_job(h, &h->connection);
    return end_reading(h, remctl_output(h->connection.client));
}

/* Continues the operation.  READABLE says whether poll() has reported the
   wanted descriptor.  Needs no GIL. */
enum outcome
handle_step(Handle *h, bool readable)
{
    if (h->closed)
        return end_closed(h);
    return h->job != NULL ? step_job(h) : step_reading(h, readable);
}

/*
 * Waits until the operation has ended.  In the main thread, it returns WAITING
 * from time to time, so that signal handlers can run.  Needs no GIL.
 */
enum outcome
handle_wait(Handle *h)
{
    struct pollfd poller = {.events = POLLIN};
    bool signals = true;
    enum outcome outcome;
    double seconds;
    int count;

#ifdef __linux__
    signals = syscall(SYS_gettid) == getpid();
#endif
    do {
        poller.fd = h->wanted;
        seconds = signals && h->patience > SLICE ? SLICE : h->patience;
        count = poll(&poller, 1, (int) (seconds * 1e3 + 0.999));
        outcome = handle_step(h, count > 0);
    } while (outcome == WAITING && (count > 0 || !signals));
    return outcome;
}

/* -- Operations ------------------------------------------------------------
 */

/* Connects and authenticates. */
enum outcome
handle_open(Handle *h, const struct target *target)
{
    struct connection connection = {.fd = -1, .target = *target};

    disconnect(h);
    h->operation = OPENING;
    return start_job(h, &connection);
}

/*
 * Returns whether a command may be sent.  This detects a connection that has
 * ended or has unexpected data before anything is sent, so that opening it
 * again is safe.  Sets ROOM if a small command fits into the socket's buffer.
 */
static bool
can_send(Handle *h, bool *room)
{
    struct pollfd poller = {.events = POLLIN | POLLOUT};
    char octet;
    ssize_t seen;

    if (h->expecting)
        return fail(&h->failure, RUNNING, EBUSY,
                    "a command is still running: read its output to the end,"
                    " or close the connection");
    if (h->connection.client == NULL)
        return fail(&h->failure, DISCONNECTED, ENOTCONN, "no connection open");
    if (h->connection.fd < 0)
        return true; /* Protocol 1. */
    poller.fd = h->connection.fd;
    *room = poll(&poller, 1, 0) == 1 && poller.revents == POLLOUT;
    if (*room)
        return true;
    seen = recv(poller.fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return true;
    disconnect(h);
    return fail(&h->failure, DISCONNECTED, ENOTCONN, "error sending token: %s",
                seen > 0 ? "unexpected data from server"
                         : "unexpected end of file");
}

enum outcome
handle_send(Handle *h)
{
    struct command *command = h->command;
    size_t i, octets = 0;
    struct signals signals;
    bool room = false;

    if (command->count == 0)
        return fail(&h->failure, USAGE, EINVAL, "cannot send empty command");
    if (!can_send(h, &room))
        return FAILED;
    for (i = 0; i < command->count; i++)
        octets += command->vector[i].iov_len + sizeof(uint32_t);
    h->operation = SENDING;
    if (room && octets <= SMALL_COMMAND) {
        block_sigpipe(&signals);
        h->expecting = remctl_commandv(h->connection.client, command->vector,
                                       command->count);
        unblock_sigpipe(&signals);
        return h->expecting ? end(h, true) : lose(h);
    }
    return start_job(h, &h->connection);
}

/* Reads the next token of the running command; without one, "done". */
enum outcome
handle_read(Handle *h)
{
    static const struct remctl_output done = {.type = REMCTL_OUT_DONE};

    if (h->connection.client == NULL)
        return fail(&h->failure, DISCONNECTED, ENOTCONN, "no connection open");
    if (!h->expecting) {
        h->output = &done;
        return end(h, true);
    }
    h->operation = READING;
    if (h->connection.fd < 0)
        return start_job(h, &h->connection);
    if (h->timeout > 0)
        h->quiet_since = monotonic();
    return step_reading(h, false);
}

/* Sends NOOP and reads the answer. */
enum outcome
handle_ping(Handle *h)
{
    bool room;

    if (h->connection.protocol == 1)
        return fail(&h->failure, UNSUPPORTED, EOPNOTSUPP,
                    "NOOP message not supported");
    if (!can_send(h, &room))
        return FAILED;
    h->operation = PINGING;
    return start_job(h, &h->connection);
}

/* Returns how many octets have to arrive, at least, before handle_read() ends
   at once. */
int
handle_missing(Handle *h)
{
    struct reader *reader = &h->reader;
    struct pollfd poller = {.fd = h->connection.fd, .events = POLLIN};
    int missing;

    if (h->job != NULL)
        return 1;
    /* poll() reports octets that have just arrived, and a token that does not
       fit into the buffer. */
    if (!h->expecting || poller.fd < 0 || reader_look(reader, false) != NOT_YET
        || poll(&poller, 1, 0) != 0)
        return 0;
    missing = reader->need - reader->arrived;
    return missing == 1 ? TOKEN_HEADER : missing;
}

/*
 * One call at a time on one connection.
 *
 * A token is awaited (token.c) before libremctl reads it.  What may block in
 * any other way goes to a helper thread (helper.c).
 */

#include "handle.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#    include <linux/tcp.h>
#    include <sys/syscall.h>
#else
#    include <netinet/tcp.h>
#endif

/* What the smallest send buffer takes where poll() says that it takes
   something, which it does while a third of it is free. */
#define SMALL_COMMAND 1024

/*
 * How struct remctl begins, in libremctl 2.0 to 3.18.  Needed for protocol 1
 * alone: see adopt_protocol.
 */
struct client_head {
    const char *host;
    unsigned short port;
    const char *principal;
    int protocol;
};

/* Seconds on a clock that is never set. */
double
monotonic(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* Counts the forks that led to this process: cheaper to ask than getpid(). */
static unsigned int forks;

static void
count_fork(void)
{
    forks++;
    forget_thread();
}

/* Called whenever the extension is loaded.  Returns whether it succeeded. */
bool
watch_forks(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool watching;
    bool success;

    pthread_mutex_lock(&lock);
    if (!watching)
        watching = pthread_atfork(NULL, NULL, count_fork) == 0;
    success = watching;
    pthread_mutex_unlock(&lock);
    return success;
}

unsigned int
fork_count(void)
{
    return forks;
}

/* Whether the calling thread is the main one, the only one in which Python
   runs signal handlers.  After a fork it may have become that. */
bool
handles_signals(void)
{
    static __thread unsigned int asked; /* forks + 1 when it was found out. */
    static __thread bool answer;

    if (asked != forks + 1) {
#if defined(__linux__)
        answer = syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__) || defined(__FreeBSD__)
        answer = pthread_main_np() != 0;
#else
        answer = true;
#endif
        asked = forks + 1;
    }
    return answer;
}

/* Replaces a string that we own; a NULL text only frees it. */
bool
set_string(char **target, const char *text)
{
    char *copy = NULL;

    if (text != NULL && (copy = strdup(text)) == NULL)
        return false;
    free(*target);
    *target = copy;
    return true;
}

/* Records why a call failed; number 0 means that only the text says so.  Where
   there is no memory for the text, the number says it. */
bool
handle_fail(Handle *h, int number, const char *format, ...)
{
    char *text;
    va_list args;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
        number = number != 0 ? number : ENOMEM;
    }
    va_end(args);
    free(h->error);
    h->error = text;
    h->error_number = number;
    return false;
}

/* For want of a thread.  A lack of memory is raised. */
bool
handle_fail_thread(Handle *h, int code)
{
    if (code == ENOMEM)
        PyErr_NoMemory();
    return handle_fail(h, code, "cannot start a thread: %s", strerror(code));
}

/* Takes over libremctl's reason for a failure.  A lack of memory, which may
   have kept it from giving any, is raised. */
bool
handle_fail_client(Handle *h)
{
    const char *reason = remctl_error(h->client);
    const char *memory = strerror(ENOMEM);
    size_t length = strlen(reason), end = strlen(memory);

    if (strcmp(reason, "no error") == 0
        || (length >= end && strcmp(reason + length - end, memory) == 0))
        PyErr_NoMemory();
    handle_fail(h, 0, "%s", reason);
    if (h->error == NULL)
        PyErr_NoMemory();
    return false;
}

/*
 * libremctl writes with write(2): where the program has not ignored SIGPIPE,
 * as Python itself does at startup, a server that went away would kill it.
 */
struct pipe_guard {
    bool blocked;
    bool pending;
    sigset_t before;
};

static void
block_sigpipe(struct pipe_guard *guard)
{
    struct sigaction action;
    sigset_t set;

    memset(guard, 0, sizeof(*guard));
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
        return;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    guard->blocked = pthread_sigmask(SIG_BLOCK, &set, &guard->before) == 0;
    sigpending(&set);
    guard->pending = sigismember(&set, SIGPIPE);
}

static void
unblock_sigpipe(struct pipe_guard *guard)
{
    sigset_t set;
    int number;

    if (!guard->blocked)
        return;
    sigpending(&set);
    if (!guard->pending && sigismember(&set, SIGPIPE)) {
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        sigwait(&set, &number);
    }
    pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

/*
 * Ends a connection without ever blocking: QUIT is sent only where the server
 * has read all we wrote so far.  Needs no GIL.
 */
void
close_client(struct remctl *client, int fd, bool polite)
{
    struct pipe_guard guard;
    struct pollfd poller = {.fd = fd, .events = POLLOUT};

    if (fd >= 0) {
        if (polite)
            polite = poll(&poller, 1, 0) == 1 && poller.revents == POLLOUT;
        if (!polite)
            shutdown(fd, SHUT_RDWR);
    }
    block_sigpipe(&guard);
    remctl_close(client);
    unblock_sigpipe(&guard);
}

/*
 * Admits the calling thread to the handle, or sets an exception.  A process
 * that inherited the handle by fork() must not touch it: not even the guard,
 * which another thread may have held at that moment.
 */
bool
handle_enter(Handle *h)
{
    bool closed, busy;

    if (h->forks != forks) {
        PyErr_SetString(PyExc_ValueError,
                        "remctl handle belongs to another process; after "
                        "fork(), make a new one");
        return false;
    }
    pthread_mutex_lock(&h->guard);
    closed = h->closed;
    busy = h->busy;
    if (!closed && !busy)
        h->busy = true;
    pthread_mutex_unlock(&h->guard);
    if (closed)
        PyErr_SetString(PyExc_ValueError, "remctl handle is closed");
    else if (busy)
        PyErr_SetString(PyExc_ValueError,
                        "remctl handle is in use by another thread");
    return !closed && !busy;
}

/* Takes over a socket that was opened. */
bool
set_socket(Handle *h, int fd)
{
    if (fstat(fd, &h->socket) < 0)
        return handle_fail(h, errno, "cannot use the connection: %s",
                           strerror(errno));
    h->fd = fd;
    h->low_water = 1;
    h->arrived = 0;
    return true;
}

/* Whether the socket is still open: on some failures libremctl closes it. */
bool
owns_socket(const Handle *h)
{
    struct stat found;

    return h->fd >= 0 && fstat(h->fd, &found) == 0
           && found.st_ino == h->socket.st_ino
           && found.st_dev == h->socket.st_dev;
}

/* Ends the connection, if there is one.  The GIL is held before and after. */
void
handle_disconnect(Handle *h, bool polite)
{
    struct remctl *client = h->client;
    int fd = owns_socket(h) ? h->fd : -1;

    h->client = NULL;
    h->fd = -1;
    h->protocol = 0;
    h->expecting = false;
    if (client == NULL)
        return;
    Py_BEGIN_ALLOW_THREADS
    close_client(client, fd, polite);
    Py_END_ALLOW_THREADS
}

/* Lets the next thread in.  A remctl_close() meanwhile was left to us. */
void
handle_leave(Handle *h)
{
    bool closed;

    pthread_mutex_lock(&h->guard);
    closed = h->closed;
    if (!closed)
        h->busy = false;
    pthread_mutex_unlock(&h->guard);
    if (closed)
        handle_disconnect(h, false);
}

/* For a failure of libremctl with which the connection is lost. */
static bool
fail_with_client(Handle *h)
{
    handle_fail_client(h);
    handle_disconnect(h, false);
    return false;
}

/* A new client with the handle's settings, in place of the last one: opening
   the same one again would leak its GSS-API context. */
static bool
renew_client(Handle *h)
{
    handle_disconnect(h, !h->expecting);
    h->client = remctl_new();
    if (h->client == NULL) {
        PyErr_NoMemory();
        return false;
    }
    if (h->ccache != NULL && !remctl_set_ccache(h->client, h->ccache))
        return fail_with_client(h);
    return true;
}

/*
 * Protocol 1 closes the connection with the output and hands out the status
 * from memory, but remctl_output() refuses that where remctl_open_fd() opened
 * the connection, because it looks for a host to reopen it with.  So give it
 * one, having made sure that the structure begins as we know it; nothing is
 * ever reopened, as we do not call libremctl without a connection.
 */
static void
adopt_protocol(Handle *h)
{
    struct client_head *head = (struct client_head *) h->client;

    h->protocol = 2;
    if (head->host != NULL || head->port != 0
        || head->principal != h->principal || head->protocol != 1)
        return;
    h->protocol = 1;
    head->host = h->host != NULL ? h->host : "";
}

/* libremctl takes EAGAIN for the end of the stream.  An event loop that
   watches the descriptor (libuv does) may have set this for all who share the
   socket. */
static bool
make_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && (flags & O_NONBLOCK))
        flags = fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    return flags >= 0;
}

/* A copy of the descriptor, as libremctl needs it; -1, with errno set, if
   there can be none. */
static int
copy_socket(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int on = 1, code;

    if (copy < 0)
        return -1;
    if (!make_blocking(copy)) {
        code = errno;
        close(copy);
        errno = code;
        return -1;
    }
    setsockopt(copy, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return copy;
}

/* Opens a connection on a duplicate of the socket FD, which stays the
   caller's. */
bool
handle_open(Handle *h, const char *host, int fd, const char *principal)
{
    if (!renew_client(h))
        return false;
    fd = copy_socket(fd);
    if (fd < 0) {
        handle_fail(h, errno, "cannot use the connection: %s",
                    strerror(errno));
        handle_disconnect(h, false);
        return false;
    }
    if (!helper_open(h, host, fd, principal)) {
        handle_disconnect(h, false);
        return false;
    }
    adopt_protocol(h);
    return true;
}

static void
run_output(struct call *call, struct remctl *client)
{
    call->output = remctl_output(client);
}

static void
run_command(struct call *call, struct remctl *client)
{
    call->success = remctl_commandv(client, call->command, call->count);
}

static void
run_noop(struct call *call, struct remctl *client)
{
    call->success = remctl_noop(client);
}

/* For what blocks in libremctl; if it does not return, the connection is
   lost. */
static bool
call_in_helper(Handle *h, struct call *call)
{
    make_blocking(h->fd);
    if (helper_call(h, call))
        return true;
    handle_disconnect(h, false);
    return false;
}

/* For what writes but does not block. */
static void
call_here(Handle *h, struct call *call)
{
    struct pipe_guard guard;

    block_sigpipe(&guard);
    call->run(call, h->client);
    unblock_sigpipe(&guard);
}

/* Ends a wait that was not for a token. */
static void
fail_wait(Handle *h, enum wait_end end)
{
    if (end == TIMED_OUT)
        handle_fail(h, ETIMEDOUT, "error receiving token: timed out");
    else if (end == CLOSED)
        handle_fail(h, ECANCELED, "connection closed by another thread");
    handle_disconnect(h, false);
}

/* Reads the next token.  NULL: the reason is in the handle or raised. */
static struct remctl_output *
read_token(Handle *h)
{
    struct call call = {.run = run_output};
    struct token_wait wait;
    enum wait_end end;

    token_start(&wait, h);
    do {
        Py_BEGIN_ALLOW_THREADS
        end = token_await(&wait, h);
        if (end == READY)
            call.output = remctl_output(h->client);
        Py_END_ALLOW_THREADS
    } while (end == INTERRUPTED && PyErr_CheckSignals() == 0);
    if (end == MAY_BLOCK) {
        if (!call_in_helper(h, &call))
            return NULL;
    } else if (end != READY) {
        fail_wait(h, end);
        return NULL;
    }
    if (call.output == NULL)
        fail_with_client(h);
    else
        token_done(h);
    return call.output;
}

/* The next token of the running command, or "done" where none is running. */
const struct remctl_output *
handle_output(Handle *h)
{
    static const struct remctl_output done = {.type = REMCTL_OUT_DONE};
    const struct remctl_output *output;

    if (h->client == NULL || (h->fd < 0 && h->protocol != 1)) {
        handle_fail(h, ENOTCONN, "no connection open");
        return NULL;
    }
    if (!h->expecting)
        return &done;
    if (h->fd >= 0)
        output = read_token(h);
    else if ((output = remctl_output(h->client)) == NULL)
        fail_with_client(h);
    if (output == NULL)
        return NULL;
    if (output->type != REMCTL_OUT_OUTPUT)
        h->expecting = false;
    else if (h->protocol == 1)
        h->fd = -1; /* libremctl has closed it, and kept the status. */
    return output;
}

/* How many octets have to arrive, at least, before handle_output() returns at
   once. */
size_t
handle_missing(Handle *h)
{
    if (h->client == NULL || h->fd < 0 || !h->expecting)
        return 0;
    return token_missing(h);
}

/*
 * Whether a command may be sent.  A connection that has ended, or holds what
 * nobody asked for, is found out here, before anything is sent: error_number
 * is ENOTCONN then, and to open it again is safe.  ROOM tells whether the
 * socket takes a small command at once.
 */
static bool
can_send(Handle *h, bool *room)
{
    struct pollfd poller = {.events = POLLIN | POLLOUT};
    char octet;
    ssize_t seen;

    if (h->expecting)
        return handle_fail(h, EBUSY,
                           "a command is still running: read its output to"
                           " the end, or close the connection");
    if (h->client == NULL || h->fd < 0)
        return handle_fail(h, ENOTCONN, "no connection open");
    poller.fd = h->fd;
    *room = poll(&poller, 1, 0) == 1 && poller.revents == POLLOUT;
    if (*room)
        return true;
    seen = recv(h->fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return true;
    handle_disconnect(h, false);
    return handle_fail(h, ENOTCONN, "error sending token: %s",
                       seen > 0 ? "unexpected data from server"
                                : "unexpected end of file");
}

/* Whether the socket, which has ROOM for a small command, takes so many octets
   at once. */
static bool
fits_socket(int fd, size_t octets, bool room)
{
    int buffer = 0, queued = 0;
    socklen_t size = sizeof(buffer);

    if (octets <= SMALL_COMMAND || !room)
        return room;
    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, &size) < 0)
        return false;
#ifdef TIOCOUTQ
    if (ioctl(fd, TIOCOUTQ, &queued) < 0)
        return false;
#endif
    return octets + (size_t) queued < (size_t) buffer / 8;
}

bool
handle_send(Handle *h, const struct iovec *command, size_t count)
{
    struct call call = {.run = run_command,
                        .command = command,
                        .count = count};
    size_t i, octets = 0;
    bool room = false;

    if (count == 0)
        return handle_fail(h, EINVAL, "cannot send empty command");
    if (!can_send(h, &room))
        return false;
    for (i = 0; i < count; i++)
        octets += command[i].iov_len + sizeof(uint32_t);
    if (h->protocol == 1 || !fits_socket(h->fd, octets, room)) {
        if (!call_in_helper(h, &call))
            return false;
    } else {
        Py_BEGIN_ALLOW_THREADS
        call_here(h, &call);
        Py_END_ALLOW_THREADS
    }
    if (!call.success)
        return fail_with_client(h);
    h->expecting = true;
    return true;
}

/*
 * Sends NOOP and reads the answer.  A server that is too old for it, and says
 * so, keeps the connection: protocol 1 has no such message, and protocol 2
 * answers with MESSAGE_ERROR (5) or MESSAGE_VERSION (6).
 */
bool
handle_noop(Handle *h)
{
    struct call call = {.run = run_noop};
    const char *reason;
    bool room;

    if (h->protocol == 1)
        return handle_fail(h, EOPNOTSUPP, "NOOP message not supported");
    if (!can_send(h, &room) || !call_in_helper(h, &call))
        return false;
    if (call.success)
        return true;
    reason = remctl_error(h->client);
    if (strcmp(reason, "unexpected message type 5 from server") == 0
        || strcmp(reason, "unexpected message type 6 from server") == 0)
        return handle_fail(h, EOPNOTSUPP, "%s", reason);
    return fail_with_client(h);
}

/* Closes the handle for good.  A call in another thread is told to end, and
   ends the connection. */
void
handle_close(Handle *h)
{
    bool was_closed, busy;

    pthread_mutex_lock(&h->guard);
    was_closed = h->closed;
    busy = h->busy;
    h->closed = true;
    if (h->polling)
        shutdown(h->fd, SHUT_RDWR);
    if (h->job != NULL)
        helper_cancel(h->job);
    pthread_mutex_unlock(&h->guard);
    if (!was_closed && !busy)
        handle_disconnect(h, !h->expecting);
}

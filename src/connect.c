/* Failures; looking up a host and connecting to it: see core.h. */

#include "core.h"

#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>

/* Seconds before the next address is tried, too (RFC 8305, Connection Attempt
   Delay). */
#define NEXT_ADDRESS 0.25

/* Further addresses of a host are not tried. */
#define MAX_ADDRESSES 64

/* The attempts to connect to the addresses of a host.  poll() skips those that
   have failed, as their descriptor is -1. */
struct race {
    struct pollfd pollers[MAX_ADDRESSES];
    size_t begun;
    size_t running;
    int code; /* errno of the last failure. */
};

void
failure_clear(struct failure *failure)
{
    free(failure->text);
    *failure = (struct failure) {.kind = ""};
}

/* Records a failure, and returns false for the caller to return.  If there is
   no memory for the text, only the number is recorded. */
bool
fail(struct failure *failure, const char *kind, int number, const char *format,
     ...)
{
    char *text;
    va_list args;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
        kind = number != 0 ? kind : MEMORY;
        number = number != 0 ? number : ENOMEM;
    }
    va_end(args);
    free(failure->text);
    *failure = (struct failure) {kind, number, text};
    return false;
}

bool
fail_memory(struct failure *failure)
{
    return fail(failure, MEMORY, ENOMEM, "%s", strerror(ENOMEM));
}

/* Records libremctl's text.  If it had no memory for a text, records that. */
bool
fail_library(struct failure *failure, const char *reason)
{
    const char *memory = strerror(ENOMEM);
    size_t length = strlen(reason), end = strlen(memory);

    if (strcmp(reason, "no error") == 0
        || (length >= end && strcmp(reason + length - end, memory) == 0))
        return fail_memory(failure);
    return fail(failure, LIBRARY, 0, "%s", reason);
}

/* Replaces a string that we own; a NULL text only frees it. */
bool
copy_string(char **target, const char *text)
{
    char *copy = NULL;

    if (text != NULL && (copy = strdup(text)) == NULL)
        return false;
    free(*target);
    *target = copy;
    return true;
}

/* Copies a target.  On failure, the caller still has to clear the copy. */
bool
target_copy(struct target *to, const struct target *from)
{
    *to = *from;
    to->host = to->principal = to->address = to->source = to->ccache = NULL;
    return copy_string(&to->host, from->host)
           && copy_string(&to->principal, from->principal)
           && copy_string(&to->address, from->address)
           && copy_string(&to->source, from->source)
           && copy_string(&to->ccache, from->ccache);
}

void
target_clear(struct target *target)
{
    free(target->host);
    free(target->principal);
    free(target->address);
    free(target->source);
    free(target->ccache);
    memset(target, 0, sizeof(*target));
}

static int
resolve(const char *host, int port, int flags, struct addrinfo **found)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    char service[16];

    snprintf(service, sizeof(service), "%d", port);
    return getaddrinfo(host, service, &hints, found);
}

/* Returns whether this is an IP address, with or without a scope. */
bool
check_numeric(const char *address, struct failure *failure)
{
    struct addrinfo *found;
    int code = resolve(address, 0, AI_NUMERICHOST, &found);

    if (code == EAI_MEMORY)
        return fail_memory(failure);
    if (code != 0)
        return fail(failure, USAGE, EINVAL, "not an IP address: %s", address);
    freeaddrinfo(found);
    return true;
}

/* Returns a socket that is being connected, or a negative errno. */
static int
start_connecting(const struct target *target, const struct addrinfo *address,
                 const struct addrinfo *source)
{
    int seconds = target->keepalive, on = 1, code;
    int fd = socket(address->ai_family, SOCK_STREAM, 0);

    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
#ifdef TCP_KEEPINTVL
    if (seconds > 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
    }
#endif
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0
        && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0
        && (!source || bind(fd, source->ai_addr, source->ai_addrlen) == 0)
        && (connect(fd, address->ai_addr, address->ai_addrlen) == 0
            || errno == EINPROGRESS))
        return fd;
    code = errno;
    close(fd);
    return -code;
}

/* Waits for the attempts, for a while.  Returns a socket that is connected, or
   -1. */
static int
await_attempts(struct race *race, double seconds)
{
    socklen_t size = sizeof(int);
    size_t i;
    int fd, code;

    if (poll(race->pollers, race->begun, (int) (seconds * 1e3 + 0.999)) <= 0)
        return -1;
    for (i = 0; i < race->begun; i++) {
        fd = race->pollers[i].fd;
        if (fd < 0 || race->pollers[i].revents == 0)
            continue;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) < 0)
            code = errno;
        race->pollers[i].fd = -1;
        race->running--;
        if (code == 0)
            return fd;
        close(fd);
        race->code = code;
    }
    return -1;
}

/* Connects to the first address that answers.  Returns its socket, or -1. */
static int
run_race(struct race *race, struct job *job, const struct addrinfo *next,
         const struct addrinfo *source)
{
    const struct target *target = &job->connection.target;
    double limit = target->timeout > 0 ? target->timeout : FOR_EVER;
    double left, last = 0;
    int fd = -1;

    while (fd < 0 && !job->abandoned) {
        while (next && source && next->ai_family != source->ai_family)
            next = next->ai_next;
        if (!next && race->running == 0)
            break;
        left = last - monotonic();
        left += next && limit > NEXT_ADDRESS ? NEXT_ADDRESS : limit;
        if (next && (race->running == 0 || left <= 0)) {
            fd = start_connecting(target, next, source);
            if (fd < 0)
                race->code = -fd;
            else
                race->running++;
            race->pollers[race->begun++] = (struct pollfd) {fd, POLLOUT, 0};
            fd = -1;
            next = race->begun < MAX_ADDRESSES ? next->ai_next : NULL;
            last = monotonic();
            job->steps++;
        } else if (left > 0)
            fd = await_attempts(race, left < SLICE ? left : SLICE);
        else {
            race->code = ETIMEDOUT;
            break;
        }
    }
    while (race->begun > 0)
        if (race->pollers[--race->begun].fd >= 0)
            close(race->pollers[race->begun].fd);
    return fd;
}

static void
fail_lookup(struct failure *failure, const char *host, int code)
{
    const char *reason = code == EAI_SYSTEM ? strerror(errno)
                                            : gai_strerror(code);

    if (code == EAI_MEMORY || (code == EAI_SYSTEM && errno == ENOMEM))
        fail_memory(failure);
    else
        fail(failure, LOOKUP, code == EAI_SYSTEM ? errno : 0,
             "unknown host %s: %s", host, reason);
}

/* Connects to the target's port.  Returns the socket, or -1 with the failure
   set. */
static int
connect_port(struct job *job)
{
    const struct target *target = &job->connection.target;
    const char *host = target->address ? target->address : target->host;
    struct addrinfo *addresses = NULL, *source = NULL;
    struct race race = {.code = EADDRNOTAVAIL};
    int code = 0, fd = -1;

    job->stage = LOOKING_UP;
    if (target->source != NULL)
        code = resolve(target->source, 0, AI_NUMERICHOST, &source);
    if (code == 0)
        code = resolve(host, target->port, 0, &addresses);
    if (code != 0)
        fail_lookup(&job->failure, host, code);
    else {
        job->stage = CONNECTING;
        job->steps++;
        fd = run_race(&race, job, addresses, source);
        if (fd < 0)
            fail(&job->failure, race.code == ETIMEDOUT ? TIMEOUT : CONNECT,
                 race.code, "cannot connect to %s (port %d): %s", host,
                 target->port, strerror(race.code));
        freeaddrinfo(addresses);
    }
    if (source != NULL)
        freeaddrinfo(source);
    return fd;
}

/*
 * Connects.  Without a port, tries the registered one, then the one used
 * before remctl 2.11; if both fail, records the first failure.  Sets the port.
 * Returns a non-blocking socket, or -1 with the failure set.
 */
int
connect_target(struct job *job)
{
    struct target *target = &job->connection.target;
    struct failure first;
    int fd;

    if (target->port != 0)
        return connect_port(job);
    target->port = REMCTL_PORT;
    fd = connect_port(job);
    if (fd >= 0 || job->abandoned || strcmp(job->failure.kind, LOOKUP) == 0
        || strcmp(job->failure.kind, MEMORY) == 0)
        return fd;
    first = job->failure;
    job->failure = (struct failure) {0};
    target->port = REMCTL_PORT_OLD;
    fd = connect_port(job);
    failure_clear(fd < 0 ? &job->failure : &first);
    if (fd < 0)
        job->failure = first;
    return fd;
}

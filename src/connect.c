/* Looking a host up and connecting to it: see connect.h. */

#define _GNU_SOURCE 1 /* vasprintf(); Python.h has the same. */

#include "connect.h"
#include "threads.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <remctl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Seconds that an address has before the next one is tried beside it (RFC
   8305, Connection Attempt Delay). */
#define NEXT_ADDRESS 0.25

/* How often, in seconds, a race looks whether it has been abandoned. */
#define ABANDON_SLICE 0.1

/* The attempts to connect to the addresses of a host.  poll() skips those that
   have not begun or have failed, as their descriptor is -1. */
struct race {
    struct pollfd *pollers;
    size_t begun;
    size_t running;
    double last; /* When the last one began. */
    int code;    /* Why the last one that failed did so. */
};

void
failure_clear(struct failure *failure)
{
    free(failure->text);
    memset(failure, 0, sizeof(*failure));
}

/* Records a failure, and returns false for the caller to return. */
bool
fail(struct failure *failure, const char *kind, int number, const char *format,
     ...)
{
    char *text;
    va_list args;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
        number = number != 0 ? number : ENOMEM;
    }
    va_end(args);
    free(failure->text);
    failure->kind = kind;
    failure->number = number;
    failure->text = text;
    return false;
}

bool
fail_memory(struct failure *failure)
{
    return fail(failure, MEMORY, ENOMEM, "%s", strerror(ENOMEM));
}

/* Takes over libremctl's reason.  A lack of memory may have kept it from
   giving any. */
bool
fail_library(struct failure *failure, const char *reason)
{
    const char *memory = strerror(ENOMEM);
    size_t length = strlen(reason), end = strlen(memory);

    if (strcmp(reason, "no error") == 0
        || (length >= end && strcmp(reason + length - end, memory) == 0))
        return fail_memory(failure);
    fail(failure, LIBRARY, 0, "%s", reason);
    if (failure->text == NULL)
        failure->kind = MEMORY;
    return false;
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

void
target_clear(struct target *target)
{
    free(target->host);
    free(target->principal);
    free(target->address);
    free(target->source);
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

/* Whether this is an IP address, with a scope perhaps, and not a name. */
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

/* A socket that is being connected; -1, with errno set, if there is none. */
static int
start_connecting(const struct target *target, const struct addrinfo *address,
                 const struct addrinfo *source)
{
    int seconds = target->keepalive, on = 1, code;
    int fd = socket(address->ai_family, SOCK_STREAM, 0);

    if (fd < 0)
        return -1;
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
    errno = code;
    return -1;
}

/* Begins to connect to an address.  Returns the one to come after it. */
static const struct addrinfo *
begin_attempt(struct race *race, const struct target *target,
              const struct addrinfo *address, const struct addrinfo *source)
{
    struct pollfd *poller = &race->pollers[race->begun++];

    poller->events = POLLOUT;
    poller->fd = start_connecting(target, address, source);
    race->last = monotonic();
    if (poller->fd >= 0)
        race->running++;
    else
        race->code = errno;
    do
        address = address->ai_next;
    while (address && source && address->ai_family != source->ai_family);
    return address;
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
run_race(struct race *race, const struct target *target,
         const struct addrinfo *next, const struct addrinfo *source,
         struct progress *progress)
{
    double limit = target->timeout > 0 ? target->timeout : FOR_EVER;
    double left;
    int fd = -1;

    while (fd < 0 && !progress->abandoned && (next || race->running > 0)) {
        left = limit;
        if (next && left > NEXT_ADDRESS)
            left = NEXT_ADDRESS;
        left += race->last - monotonic();
        if (next && (race->running == 0 || left <= 0)) {
            next = begin_attempt(race, target, next, source);
            progress->steps++;
        } else if (left > 0)
            fd = await_attempts(race,
                                left < ABANDON_SLICE ? left : ABANDON_SLICE);
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

static int
fail_lookup(struct failure *failure, const char *host, int code)
{
    const char *reason = code == EAI_SYSTEM ? strerror(errno)
                                            : gai_strerror(code);

    if (code == EAI_MEMORY || (code == EAI_SYSTEM && errno == ENOMEM))
        fail_memory(failure);
    else
        fail(failure, LOOKUP, code == EAI_SYSTEM ? errno : 0,
             "unknown host %s: %s", host, reason);
    return -1;
}

/* Connects to one port.  Returns the socket, or -1 with the failure set. */
static int
connect_port(const struct target *target, int port, struct progress *progress,
             struct failure *failure)
{
    const char *host = target->address ? target->address : target->host;
    struct addrinfo *addresses = NULL, *source = NULL, *each;
    struct race race = {.code = EADDRNOTAVAIL};
    size_t count = 0;
    int code, fd = -1;

    progress->stage = LOOKING_UP;
    code = resolve(host, port, 0, &addresses);
    if (code != 0)
        return fail_lookup(failure, host, code);
    if (target->source != NULL
        && (code = resolve(target->source, 0, AI_NUMERICHOST, &source)) != 0) {
        freeaddrinfo(addresses);
        return fail_lookup(failure, target->source, code);
    }
    for (each = addresses; each != NULL; each = each->ai_next)
        count++;
    race.pollers = calloc(count, sizeof(*race.pollers));
    each = addresses;
    while (each && source && each->ai_family != source->ai_family)
        each = each->ai_next;
    progress->stage = CONNECTING;
    progress->steps++;
    if (race.pollers == NULL)
        fail_memory(failure);
    else if ((fd = run_race(&race, target, each, source, progress)) < 0)
        fail(failure, race.code == ETIMEDOUT ? TIMEOUT : CONNECT, race.code,
             "cannot connect to %s (port %d): %s", host, port,
             strerror(race.code));
    freeaddrinfo(addresses);
    if (source != NULL)
        freeaddrinfo(source);
    free(race.pollers);
    return fd;
}

/*
 * Connects.  Without a port: the registered one, then the one used before
 * remctl 2.11; if neither answers, the first one's reason counts.  Sets the
 * port.  Returns a socket that does not block, or -1 with the failure set.
 */
int
connect_target(struct target *target, struct progress *progress,
               struct failure *failure)
{
    struct failure second = {0};
    int fd;

    if (target->port != 0)
        return connect_port(target, target->port, progress, failure);
    target->port = REMCTL_PORT;
    fd = connect_port(target, REMCTL_PORT, progress, failure);
    if (fd >= 0 || progress->abandoned || strcmp(failure->kind, LOOKUP) == 0
        || strcmp(failure->kind, MEMORY) == 0)
        return fd;
    target->port = REMCTL_PORT_OLD;
    fd = connect_port(target, REMCTL_PORT_OLD, progress, &second);
    failure_clear(fd < 0 ? &second : failure);
    return fd;
}

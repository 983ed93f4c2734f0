/*
 * Makes a wait for a connection return late, as on a busy machine: poll() reports a writable
 * descriptor FAKE_DELAY milliseconds after it became so.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

typedef int poller(struct pollfd *, nfds_t, int);

int poll(struct pollfd *descriptors, nfds_t count, int milliseconds)
{
    poller *real = (poller *)dlsym(RTLD_NEXT, "poll");
    const char *delay = getenv("FAKE_DELAY");
    int found = real(descriptors, count, milliseconds);

    if (delay != NULL && found > 0 && count > 0 && descriptors[0].events == POLLOUT)
        usleep((useconds_t)atoi(delay) * 1000);
    return found;
}

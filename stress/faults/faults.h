/*
 * A build mode for tests, in which any call that may fail can be made to fail.
 *
 * build.py includes this before each source of the extension.
 * faults_calls.h, which build.py generates, has a macro for each function that
 * may fail; the macro asks faults_hit() before every call.  faults.c, which is
 * preloaded, knows the call that has to fail.
 *
 * All headers that declare such a function have to be here, too: the macros
 * would change the declarations in a header that comes after them.
 */
#ifndef REMCTL_FAULTS_H
#define REMCTL_FAULTS_H

#include "core.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#    include <linux/sockios.h>
#    include <sys/eventfd.h>
#    include <sys/syscall.h>
#endif

/* Keeps no thread, so that each run makes the same calls. */
#define KEEP 0.0

int faults_hit(const char *name, const char *file, int line);

/* Closes the socket, as remctl_open_fd() does if it lacks memory. */
static inline int
faults_open(struct remctl *client, const char *host, int fd,
            const char *principal)
{
    (void) client;
    (void) host;
    (void) principal;
    close(fd);
    return 0;
}

#include "faults_calls.h"

#endif

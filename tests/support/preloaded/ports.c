/*
 * Redirects connect() over TCP: FAKE_PORTS is "PORT=PORT PORT=PORT", and a connection to
 * the first of a pair goes to the second; nothing ever listens on port 0. With FAKE_CONNECT_ERRNO,
 * a number, every attempt fails for that reason.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int connector(int, const struct sockaddr *, socklen_t);

/* Returns the port that replaces this one in FAKE_PORTS. */
static unsigned short replaced(unsigned short port)
{
    const char *pair = getenv("FAKE_PORTS");
    char *end;

    while (pair != NULL && *pair != '\0') {
        unsigned long from = strtoul(pair, &end, 10);

        if (from == port && *end == '=')
            return (unsigned short)strtoul(end + 1, NULL, 10);
        pair = strchr(pair, ' ');
        if (pair != NULL)
            pair++;
    }
    return port;
}

int connect(int descriptor, const struct sockaddr *address, socklen_t length)
{
    connector *real = (connector *)dlsym(RTLD_NEXT, "connect");
    const char *number = getenv("FAKE_CONNECT_ERRNO");
    struct sockaddr_storage changed;
    int type = 0;
    socklen_t size = sizeof(type);

    getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size);
    if (type != SOCK_STREAM || length > sizeof(changed)
        || (address->sa_family != AF_INET && address->sa_family != AF_INET6))
        return real(descriptor, address, length);
    if (number != NULL) {
        errno = atoi(number);
        return -1;
    }
    memcpy(&changed, address, length);
    if (address->sa_family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&changed;

        in->sin_port = htons(replaced(ntohs(in->sin_port)));
    } else {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)&changed;

        in->sin6_port = htons(replaced(ntohs(in->sin6_port)));
    }
    return real(descriptor, (const struct sockaddr *)&changed, length);
}

/* A session with a remctl server, by remctl_open() or on our own socket. */
#include "loop.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

bool own_socket;

static const char *
setting(const char *name)
{
    const char *value = getenv(name);

    if (value == NULL)
        fail("%s is not set", name);
    return value;
}

/* Connects to the first address that answers. */
static int
connect_socket(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses, *address;
    int fd = -1, on = 1;

    if (getaddrinfo(host, port, &hints, &addresses) != 0)
        fail("unknown host %s", host);
    for (address = addresses; address != NULL; address = address->ai_next) {
        fd = socket(address->ai_family, SOCK_STREAM, 0);
        if (connect(fd, address->ai_addr, address->ai_addrlen) == 0)
            break;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(addresses);
    if (fd < 0)
        fail("cannot connect to %s port %s", host, port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

void
session_open(struct session *session)
{
    const char *host = setting("REMCTL_HOST");
    const char *port = setting("REMCTL_PORT");
    const char *principal = setting("REMCTL_PRINCIPAL");
    int opened;

    session->client = remctl_new();
    session->fd = own_socket ? connect_socket(host, port) : -1;
    if (own_socket)
        opened = remctl_open_fd(session->client, host, session->fd, principal);
    else
        opened = remctl_open(session->client, host,
                             (unsigned short) atoi(port), principal);
    if (!opened)
        fail("%s", remctl_error(session->client));
}

void
session_close(struct session *session)
{
    remctl_close(session->client);
}

void
session_send(struct session *session, const struct iovec *command,
             size_t count)
{
    if (!remctl_commandv(session->client, command, count))
        fail("%s", remctl_error(session->client));
}

/* Reads a token, after disabling TCP's delayed acknowledgement. */
struct remctl_output *
session_read(struct session *session)
{
    struct remctl_output *output;
    int on = 1;

    if (session->fd >= 0)
        setsockopt(session->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
    output = remctl_output(session->client);
    if (output == NULL)
        fail("%s", remctl_error(session->client));
    if (output->type == REMCTL_OUT_ERROR)
        fail("%.*s", (int) output->length, output->data);
    return output;
}

/* Reads a command's output to its end, and returns its number of octets. */
size_t
session_drain(struct session *session)
{
    struct remctl_output *output;
    size_t octets = 0;

    while ((output = session_read(session))->type == REMCTL_OUT_OUTPUT)
        octets += output->length;
    if (output->type != REMCTL_OUT_STATUS || output->status != 0)
        fail("the command ended with status %d", output->status);
    return octets;
}

/*
 * Waiting for a token.
 *
 * libremctl reads without a way to be interrupted.  So it is called when the
 * whole token is in the socket's buffer, or the stream has ended: then it does
 * not block.  Until then we wait in poll(), which signals, time and
 * remctl_close() in another thread can end.
 */

#include "handle.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifdef __linux__
#    include <linux/tcp.h>
#else
#    include <netinet/tcp.h>
#endif

#ifndef POLLRDHUP
#    define POLLRDHUP 0
#endif

/* The longest token libremctl accepts (TOKEN_MAX_LENGTH). */
#define TOKEN_MAX (1024 * 1024)

/* Flags of a token (remctl protocol, section 2). */
#define TOKEN_SEND_MIC 0x20
#define TOKEN_PROTOCOL 0x40

void
token_start(struct token_wait *wait, const Handle *h)
{
    memset(wait, 0, sizeof(*wait));
    wait->signals = handles_signals();
    wait->deadline = h->timeout > 0 ? monotonic() + h->timeout : 0;
}

/* Milliseconds to poll for: until the deadline or the next look at signals. */
static int
poll_time(const struct token_wait *wait)
{
    double seconds = -1;

    if (wait->deadline > 0) {
        seconds = wait->deadline - monotonic();
        if (seconds < 0)
            seconds = 0;
    }
    if (wait->signals && (seconds < 0 || seconds > SIGNAL_SLICE))
        seconds = SIGNAL_SLICE;
    return seconds < 0 ? -1 : (int) (seconds * 1e3 + 0.999);
}

/* Sets how many octets must be there before the socket is said to be
   readable. */
static void
set_low_water(Handle *h, int octets)
{
    if (octets != h->low_water)
        setsockopt(h->fd, SOL_SOCKET, SO_RCVLOWAT, &octets, sizeof(octets));
    h->low_water = octets;
}

/* Has poll() report the descriptor when NEED octets are there. */
static void
expect_octets(Handle *h, size_t need)
{
    int on = 1;

    set_low_water(h, (int) need);
#ifdef TCP_QUICKACK
    /* The server's next segment waits for this acknowledgement (Nagle). */
    setsockopt(h->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
#endif
    (void) on;
}

/* Polls until NEED octets are there, or it is time for something else. */
static enum wait_end
poll_octets(struct token_wait *wait, Handle *h, size_t need)
{
    struct pollfd poller = {.fd = h->fd, .events = POLLIN | POLLRDHUP};
    int count;
    bool closed;

    expect_octets(h, need);
    pthread_mutex_lock(&h->guard);
    closed = h->closed;
    h->polling = !closed;
    pthread_mutex_unlock(&h->guard);
    if (closed)
        return CLOSED;
    count = poll(&poller, 1, poll_time(wait));
    pthread_mutex_lock(&h->guard);
    closed = h->closed;
    h->polling = false;
    pthread_mutex_unlock(&h->guard);
    if (closed)
        return CLOSED;
    if (count < 0 || (count == 0 && wait->signals))
        return INTERRUPTED;
    if (count > 0 && (poller.revents & ~POLLIN))
        return READY; /* The stream has ended: nothing more to wait for. */
    if (count > 0)
        wait->polled = need;
    return LOOK;
}

/* Whether libremctl answers a token with these flags, before it looks whether
   they belong there: protocol 1 has that. */
static bool
asks_answer(unsigned char flags)
{
    return (flags & TOKEN_SEND_MIC) && !(flags & TOKEN_PROTOCOL);
}

/* How many octets must be there before libremctl can read without blocking,
   judged by what is there; 0 if reading now will do. */
static size_t
octets_missing(struct token_wait *wait, Handle *h)
{
    unsigned char header[TOKEN_HEADER];
    uint32_t length = 0;
    size_t need = TOKEN_HEADER;
    int arrived;
    ssize_t seen;

    seen = recv(h->fd, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 1;
    if (seen <= 0)
        return 0; /* The end, or an error that libremctl will name. */
    wait->asks = asks_answer(header[0]);
    if (seen == TOKEN_HEADER) {
        memcpy(&length, header + 1, sizeof(length));
        length = ntohl(length);
        if (length <= TOKEN_MAX)
            need += length;
    }
    if ((size_t) h->arrived < need && ioctl(h->fd, FIONREAD, &h->arrived) < 0)
        return 0;
    arrived = h->arrived;
    if ((size_t) arrived >= need) {
        h->arrived -= (int) need; /* libremctl reads it now. */
        return 0;
    }
    if (arrived > wait->arrived && wait->deadline > 0)
        wait->deadline = monotonic() + h->timeout;
    wait->arrived = arrived;
    return need;
}

/* The same, looked up, for a token that came with the end of the stream. */
static bool
last_asks_answer(const Handle *h)
{
    unsigned char flags;

    return recv(h->fd, &flags, 1, MSG_PEEK | MSG_DONTWAIT) == 1
           && asks_answer(flags);
}

/*
 * Waits until a whole token, or the end of the stream, is there.  Returns
 * MAY_BLOCK if the token does not fit into the socket's buffer, so that
 * libremctl has to read it piecemeal, or if libremctl will write an answer: a
 * server that does not read may keep that waiting.  Needs no GIL.
 */
enum wait_end
token_await(struct token_wait *wait, Handle *h)
{
    enum wait_end end;
    size_t need;

    while ((need = octets_missing(wait, h)) > 0) {
        if (need == wait->polled && need > 1) {
            h->arrived = 0;
            set_low_water(h, 1); /* Or a read() would not see the rest come. */
            return MAY_BLOCK;
        }
        if (wait->deadline > 0 && monotonic() >= wait->deadline)
            return TIMED_OUT;
        end = poll_octets(wait, h, need);
        if (end == READY) {
            wait->asks = last_asks_answer(h);
            break;
        }
        if (end != LOOK)
            return end;
    }
    return wait->asks ? MAY_BLOCK : READY;
}

/*
 * How many octets have to arrive, at least, before reading does not block; 0
 * if none.  poll() reports the descriptor then, and not before.
 */
size_t
token_missing(Handle *h)
{
    struct pollfd poller = {.fd = h->fd, .events = POLLIN | POLLRDHUP};
    struct token_wait wait = {.deadline = 0};
    size_t need = octets_missing(&wait, h);

    if (need == 0)
        return 0;
    expect_octets(h, need);
    /* They may have come meanwhile.  If poll() says so and they are not there,
       the token does not fit: a helper has to read it piecemeal. */
    if (poll(&poller, 1, 0) > 0)
        return 0;
    return (need > 1 ? need : TOKEN_HEADER) - (size_t) wait.arrived;
}

/* Lets poll() in an event loop report the first octet of a token again. */
void
token_done(Handle *h)
{
    if (h->protocol == 1)
        h->low_water = 1; /* libremctl has closed the socket. */
    else
        set_low_water(h, 1);
}

/* Waiting for a token: see token.h. */

#include "token.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifdef __linux__
#    include <linux/tcp.h>
#else
#    include <netinet/tcp.h>
#endif

/* The longest token libremctl accepts (TOKEN_MAX_LENGTH). */
#define TOKEN_MAX (1024 * 1024)

/* Flags of a token (remctl protocol, section 2). */
#define TOKEN_SEND_MIC 0x20
#define TOKEN_PROTOCOL 0x40

/* For a new connection. */
void
reader_open(struct reader *reader, int fd)
{
    memset(reader, 0, sizeof(*reader));
    reader->fd = fd;
    reader->low_water = 1;
}

/* For a new token. */
void
reader_begin(struct reader *reader)
{
    reader->seen = 0;
    reader->need = 0;
    reader->asks = false;
}

/* Sets how many octets must be there before the socket is said to be
   readable. */
static void
set_low_water(struct reader *reader, int octets)
{
    if (octets != reader->low_water)
        setsockopt(reader->fd, SOL_SOCKET, SO_RCVLOWAT, &octets,
                   sizeof(octets));
    reader->low_water = octets;
}

/* Has poll() report the descriptor when NEED octets are there. */
static void
expect_octets(struct reader *reader, size_t need)
{
    int on = 1;

    set_low_water(reader, (int) need);
#ifdef TCP_QUICKACK
    /* The server's next segment waits for this acknowledgement (Nagle). */
    setsockopt(reader->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
#endif
    (void) on;
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
octets_missing(struct reader *reader)
{
    unsigned char header[TOKEN_HEADER];
    uint32_t length = 0;
    size_t need = TOKEN_HEADER;
    ssize_t seen;

    seen = recv(reader->fd, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 1;
    if (seen <= 0) {
        /* The end, or an error that libremctl will name; a passing one, such
           as a lack of memory, lets its read() wait. */
        reader->asks = seen < 0;
        return 0;
    }
    reader->asks = asks_answer(header[0]);
    if (seen == TOKEN_HEADER) {
        memcpy(&length, header + 1, sizeof(length));
        length = ntohl(length);
        if (length <= TOKEN_MAX)
            need += length;
    }
    if ((size_t) reader->arrived < need
        && ioctl(reader->fd, FIONREAD, &reader->arrived) < 0)
        return 0;
    reader->seen = reader->arrived;
    reader->size = (int) need;
    return (size_t) reader->arrived >= need ? 0 : need;
}

/*
 * Looks whether a whole token, or the end of the stream, is there.  EVENTS is
 * what poll() has reported; 0: nothing.  The answer is MAY_BLOCK if the token
 * does not fit into the socket's buffer, so that libremctl has to read it
 * piecemeal, or if libremctl will write an answer: a server that does not read
 * may keep that waiting.
 */
enum readiness
reader_look(struct reader *reader, int events)
{
    size_t need = octets_missing(reader);

    if (need > 0 && (events & ~POLLIN))
        reader->arrived = 0; /* No more will come. */
    else if (need > 1 && events && need == reader->need) {
        reader->arrived = 0;
        set_low_water(reader, 1); /* Or a read() would not see the rest. */
        return MAY_BLOCK;
    } else if (need > 0) {
        reader->need = need;
        expect_octets(reader, need);
        return NOT_YET;
    }
    return reader->asks ? MAY_BLOCK : READY;
}

/* After a token was read: poll() in an event loop reports the first octet of
   the next one. */
void
reader_done(struct reader *reader)
{
    reader->arrived -= reader->size;
    if (reader->arrived < 0)
        reader->arrived = 0;
    set_low_water(reader, 1);
}

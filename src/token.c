/* Waiting for a token: see core.h. */

#include "core.h"

#include <arpa/inet.h>
#include <sys/ioctl.h>

/* The longest token libremctl accepts (TOKEN_MAX_LENGTH). */
#define TOKEN_MAX (1024 * 1024)

/* Flags of a token (remctl protocol, section 2). */
#define TOKEN_SEND_MIC 0x20
#define TOKEN_PROTOCOL 0x40

/* Sets how many octets must arrive before poll() reports the socket. */
static void
set_low_water(struct reader *reader, int octets)
{
    if (octets != reader->low_water)
        setsockopt(reader->fd, SOL_SOCKET, SO_RCVLOWAT, &octets,
                   sizeof(octets));
    reader->low_water = octets;
}

/* Returns how many octets must have arrived, as far as is known, before
   libremctl can read without blocking; 0 if it can read now. */
static int
octets_missing(struct reader *reader)
{
    unsigned char header[TOKEN_HEADER];
    uint32_t length = 0;
    int need = TOKEN_HEADER;
    ssize_t seen;

    seen = recv(reader->fd, header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 1;
    if (seen <= 0) {
        /* The end, or an error that libremctl will report.  After a temporary
           error, such as a lack of memory, its read() may block. */
        reader->asks = seen < 0;
        return 0;
    }
    /* With protocol 1, libremctl answers before it checks other flags. */
    reader->asks = (header[0] & (TOKEN_SEND_MIC | TOKEN_PROTOCOL))
                   == TOKEN_SEND_MIC;
    if (seen == TOKEN_HEADER) {
        memcpy(&length, header + 1, sizeof(length));
        length = ntohl(length);
        if (length <= TOKEN_MAX)
            need += (int) length;
    }
    if (reader->arrived < need
        && ioctl(reader->fd, FIONREAD, &reader->arrived) < 0)
        return 0;
    reader->size = need;
    return reader->arrived >= need ? 0 : need;
}

/*
 * Checks whether a whole token, or the end of the stream, has arrived.
 * READABLE says whether poll() has reported the descriptor.  Returns MAY_BLOCK
 * if no more will arrive, because the token does not fit into the socket's
 * buffer or the stream ends within it: libremctl has to read it piecemeal.
 * Also if libremctl will write an answer, for which the server may not read.
 */
enum readiness
reader_look(struct reader *reader, bool readable)
{
    int need = octets_missing(reader), on = 1;

    if (need == 0)
        return reader->asks ? MAY_BLOCK : READY;
    if (need > 1 && readable && need == reader->need) {
        reader->arrived = 0;
        set_low_water(reader, 1); /* Or a read() would not see the rest. */
        return MAY_BLOCK;
    }
    reader->need = need;
    set_low_water(reader, need);
#ifdef TCP_QUICKACK
    /* The server's next segment waits for this acknowledgement (Nagle). */
    setsockopt(reader->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
#endif
    (void) on;
    return NOT_YET;
}

/* Prepares for the next token: poll() will report its first octet. */
void
reader_done(struct reader *reader)
{
    reader->need = 0;
    if ((reader->arrived -= reader->size) < 0)
        reader->arrived = 0;
    set_low_water(reader, 1);
}

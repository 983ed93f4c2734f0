/*
 * The functions of fakegss.c that the player (player.py) calls.
 */
#ifndef FAKEGSS_H
#define FAKEGSS_H

#include <stddef.h>

/* Behaviour of the context. */
#define FAKE_AT_ONCE 1 /* Complete without a token from the server. */
#define FAKE_NO_CONFIDENTIALITY 2

/* Behaviour of the peer. */
#define FAKE_END 4    /* Ends the stream behind the last octet. */
#define FAKE_PIECES 8 /* Leaves it to fake_pump() to write. */

void fake_begin(int fd, int client, unsigned int mode,
                const unsigned char *octets, const size_t *lengths,
                size_t moments);
int fake_pump(size_t most);
int fake_end(void);

#endif

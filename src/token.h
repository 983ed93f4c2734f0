/*
 * Waiting for a token.
 *
 * libremctl reads without a way to be interrupted.  So it is called when the
 * whole token is in the socket's buffer, or the stream has ended: then it does
 * not block.
 */
#ifndef REMCTL_TOKEN_H
#define REMCTL_TOKEN_H

#include <stdbool.h>
#include <stddef.h>

/* One octet of flags and four of length (remctl protocol, section 2). */
#define TOKEN_HEADER 5

struct reader {
    int fd;
    int low_water; /* SO_RCVLOWAT. */
    int arrived;   /* Octets known to be in the socket's buffer. */
    int seen;      /* Octets of the token that are there. */
    int size;      /* Octets of the whole token, its header included. */
    size_t need;   /* Octets that poll() waits for. */
    bool asks;     /* The token asks for an answer. */
};

enum readiness {
    READY,     /* libremctl can read without blocking. */
    NOT_YET,   /* poll() reports the descriptor when it is worth a look. */
    MAY_BLOCK, /* It has to be read in a job: see reader_look. */
};

void reader_open(struct reader *reader, int fd);
void reader_begin(struct reader *reader);
enum readiness reader_look(struct reader *reader, int events);
void reader_done(struct reader *reader);

#endif

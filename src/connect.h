/*
 * Looking a host up and connecting to it: the addresses race, as in RFC 8305.
 * Blocks, so it runs in a job's thread.  And why a call failed: a kind, from
 * which Python chooses an exception class, a number and a text.
 */
#ifndef REMCTL_CONNECT_H
#define REMCTL_CONNECT_H

#include <stdatomic.h>
#include <stdbool.h>

#define LIBRARY "library"           /* Only libremctl's text says more. */
#define LOOKUP "lookup"             /* The host has no address. */
#define CONNECT "connect"           /* No connection to the host. */
#define TIMEOUT "timeout"           /* Silence, or the deadline passed. */
#define CLOSED "closed"             /* remctl_close() was called meanwhile. */
#define RUNNING "running"           /* A command's output is unread. */
#define DISCONNECTED "disconnected" /* The connection had ended before. */
#define UNSUPPORTED "unsupported"   /* The server is too old for NOOP. */
#define USAGE "usage"               /* The caller's mistake. */
#define RESOURCE "resource"         /* A descriptor or a lock is missing. */
#define MEMORY "memory"             /* Python raises MemoryError. */

struct failure {
    const char *kind; /* One of these; NULL: there was no failure. */
    int number;       /* errno; 0 where only the text says why. */
    char *text;       /* NULL: strerror(number) has to do. */
};

bool fail(struct failure *failure, const char *kind, int number,
          const char *format, ...) __attribute__((__format__(printf, 4, 5)));
bool fail_memory(struct failure *failure);
bool fail_library(struct failure *failure, const char *reason);
void failure_clear(struct failure *failure);

/* Where to connect and how.  Owns its strings. */
struct target {
    char *host;
    char *principal;
    char *address;  /* To connect to in place of the host; NULL: the host's. */
    char *source;   /* The numeric address to connect from; NULL: any. */
    int port;       /* 0: the registered port, then the legacy one. */
    int keepalive;  /* Seconds between TCP probes; 0: the system's. */
    double timeout; /* Seconds for each address; 0: the system's. */
};

enum stage { QUEUED, STARTED, LOOKING_UP, CONNECTING, AUTHENTICATING };

/* What a thread at work and the one that waits for it tell each other. */
struct progress {
    atomic_int stage;
    atomic_uint steps;     /* Counts what has been begun. */
    atomic_bool abandoned; /* Nobody waits any more. */
};

int connect_target(struct target *target, struct progress *progress,
                   struct failure *failure);
bool copy_string(char **target, const char *text);
bool check_numeric(const char *address, struct failure *failure);
void target_clear(struct target *target);

#endif

/*
 * A job: what libremctl can only do blocking, done in a thread.
 *
 * Its descriptor becomes readable when it is done.  Nothing can interrupt a
 * job that waits for a resolver or a KDC.  So nobody ever waits for a job to
 * end: one that is not wanted any more is left behind with all that it uses,
 * and frees that when it returns.
 */
#ifndef REMCTL_JOB_H
#define REMCTL_JOB_H

#include "connect.h"
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <remctl.h>

/* libremctl's client and what it points at. */
struct connection {
    struct remctl *client; /* NULL: there is no connection. */
    int fd;                /* -1: libremctl's own, with protocol 1. */
    int protocol;          /* 1, or 2 for all later ones; 0 before. */
    struct target target;
};

enum job_kind { OPEN, COMMAND, OUTPUT, NOOP };

struct job {
    struct task task; /* Comes first: see threads.h. */
    enum job_kind kind;
    int descriptor; /* Becomes readable when the job is done. */
    int signal;     /* The other end of it. */

    atomic_int holders; /* Who still uses it, once it was started. */
    atomic_bool done;

    pthread_mutex_t lock; /* For the next one; held for moments only. */
    int watch; /* A descriptor of the socket for us alone; -1: none yet. */

    struct connection connection;
    struct progress progress;
    bool in_place; /* No thread could be started for it. */
    struct failure failure;

    char *ccache;         /* Of OPEN. */
    struct iovec *vector; /* Of COMMAND: one piece of memory, octets too. */
    size_t count;

    bool success;
    struct remctl_output *output;
};

struct job *job_new(enum job_kind kind, const struct connection *connection,
                    const char *ccache, struct failure *failure);
bool job_copy_command(struct job *job, const struct iovec *command,
                      size_t count);
void job_start(struct job *job);
void job_wake(struct job *job);
uint64_t job_activity(struct job *job);
void job_abandon(struct job *job);
void job_leave(struct job *job);
void job_release(struct job *job);
void job_free(struct job *job);

void connection_close(struct connection *connection, bool polite);
bool make_blocking(int fd, bool blocking);

/* The signals of a thread before SIGPIPE was blocked. */
struct signals {
    bool ignored; /* SIGPIPE does nothing anyway. */
    sigset_t mask;
    sigset_t pending;
};

void block_sigpipe(struct signals *before);
void unblock_sigpipe(const struct signals *before);

#endif

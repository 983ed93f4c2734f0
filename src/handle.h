/*
 * The handle: one connection to a remctl server and one operation at a time.
 *
 * An operation is begun, names the descriptor that it waits for, and is
 * stepped until it has ended.  The files, from the ground up, each using those
 * above it in this list only:
 *
 *   threads.c   threads for what may block
 *   connect.c   looking up and connecting
 *   job.c       a blocking call of libremctl in a thread
 *   token.c     whether a token can be read without blocking
 *   handle.c    operations; the one wait
 *   ../_remctl.c  what Python calls
 */
#ifndef REMCTL_HANDLE_H
#define REMCTL_HANDLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "job.h"
#include "token.h"

#include <sys/stat.h>

/* How an operation stands. */
enum outcome { FAILED, ENDED, WAITING };

/* What comes of it where a thread wants to use the handle. */
enum admission { ADMITTED, IN_USE, NOT_BEGUN, OVER, INHERITED };

/* The operation that has been begun and not ended.  Those with a job, READING
   but sometimes, have the kinds of job.h. */
enum operation { NOTHING, OPENING, SENDING, READING, PINGING };

typedef struct {
    PyObject_HEAD
    unsigned int forks;    /* fork_count() in the process it belongs to. */
    bool guarded;          /* The guard has been made. */
    pthread_mutex_t guard; /* For the next four; held for moments only. */
    bool busy;             /* A thread is inside a call. */
    atomic_bool closed;    /* remctl_close() was called. */
    bool watched;          /* Somebody waits for the socket: it is open. */
    struct job *job;       /* Somebody waits for this job. */

    /* The rest belongs to the thread that is inside. */
    bool blocking; /* Functions wait, and do not return None. */
    enum operation operation;
    struct connection connection;
    struct stat socket; /* Tells whether the descriptor is still ours. */
    struct reader reader;
    bool expecting; /* The running command's last token is unread. */
    const struct remctl_output *output;

    double timeout;     /* Seconds of silence; 0: for ever. */
    double deadline;    /* When the operation has to end; 0: never. */
    double quiet_since; /* When something last came or went. */
    uint64_t activity;
    int wanted;      /* The descriptor that is waited for. */
    double patience; /* Seconds to wait for it at most. */

    char *ccache;
    char *source;
    int keepalive;
    struct failure failure;
} Handle;

enum admission handle_enter(Handle *h, bool resume);
void handle_leave(Handle *h);
enum outcome handle_open(Handle *h, const struct target *target);
enum outcome handle_send(Handle *h, const struct iovec *command, size_t count);
enum outcome handle_read(Handle *h);
enum outcome handle_ping(Handle *h);
enum outcome handle_step(Handle *h, int events);
enum outcome handle_wait(Handle *h);
void handle_cancel(Handle *h);
enum admission handle_missing(Handle *h, long *missing);
void handle_close(Handle *h);
void handle_release(Handle *h);

#endif

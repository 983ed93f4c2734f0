/*
 * The handle: one connection to a remctl server, and what the parts of
 * the extension call of each other.
 *
 *   _remctl.c       what Python calls
 *   src/handle.c    one call at a time on a connection
 *   src/token.c     waiting until a token can be read without blocking
 *   src/helper.c    calls that may block, run in a thread one can walk away
 *                   from
 *   src/worker.c    these threads
 *
 * A bool result of false means that the reason is recorded in the handle, or
 * set as a Python exception.  The GIL is held unless a comment says otherwise.
 */
#ifndef REMCTL_HANDLE_H
#define REMCTL_HANDLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <remctl.h>

#ifdef REMCTL_FAULTS
#    include "faults.h"
#endif

/* One octet of flags and four of length (remctl protocol, section 2). */
#define TOKEN_HEADER 5

/* How often, in seconds, the main thread looks for signals that did not
   interrupt it. */
#define SIGNAL_SLICE 0.05

struct job;

typedef struct {
    PyObject_HEAD
    unsigned int forks;    /* fork_count() in the process it belongs to. */
    bool guarded;          /* The guard has been made. */
    pthread_mutex_t guard; /* For the next four; held for moments only. */
    bool busy;             /* A thread is inside a call. */
    bool closed;           /* remctl_close() was called. */
    bool polling;          /* That thread is in poll(): fd is open. */
    struct job *job;       /* That thread watches this job. */

    /* The rest belongs to the thread that is inside. */
    struct remctl *client;
    int fd;             /* -1: not connected. */
    struct stat socket; /* Tells whether fd is still our socket. */
    int protocol;       /* 1, or 2 for all later ones; 0 before. */
    bool expecting;     /* The running command's last token is unread. */
    int low_water;      /* SO_RCVLOWAT. */
    int arrived;        /* Octets known to be in the socket's buffer. */
    double timeout;     /* Seconds of silence; 0: for ever. */
    char *ccache;
    char *source;
    char *host; /* libremctl points at these two. */
    char *principal;
    int error_number; /* 0: only the text says why. */
    char *error;
} Handle;

/* A call of libremctl on an open connection. */
struct call {
    void (*run)(struct call *, struct remctl *);
    const struct iovec *command;
    size_t count;
    bool success;
    struct remctl_output *output;
};

/* How waiting for a token ended. */
enum wait_end {
    READY,       /* libremctl can read without blocking. */
    LOOK,        /* Octets may have arrived. */
    MAY_BLOCK,   /* It has to be read in a helper thread: see token_await. */
    TIMED_OUT,   /* Nothing has arrived for too long. */
    CLOSED,      /* Another thread has called remctl_close(). */
    INTERRUPTED, /* Python may have signal handlers to run. */
};

/* What a thread remembers while it waits for a token. */
struct token_wait {
    bool signals;
    double deadline; /* 0: none. */
    int arrived;     /* Octets of the token that are there. */
    size_t polled;   /* Octets that poll() said were there. */
    bool asks;       /* The token asks for an answer. */
};

/* handle.c */
double monotonic(void);
bool watch_forks(void);
unsigned int fork_count(void);
bool handles_signals(void);
bool set_string(char **target, const char *text);
bool set_socket(Handle *h, int fd);
bool owns_socket(const Handle *h);
void close_client(struct remctl *client, int fd, bool polite);
bool handle_fail(Handle *h, int number, const char *format, ...)
    __attribute__((__format__(printf, 3, 4)));
bool handle_fail_thread(Handle *h, int code);
bool handle_fail_client(Handle *h);
bool handle_enter(Handle *h);
void handle_leave(Handle *h);
bool handle_open(Handle *h, const char *host, int fd, const char *principal);
bool handle_send(Handle *h, const struct iovec *command, size_t count);
const struct remctl_output *handle_output(Handle *h);
size_t handle_missing(Handle *h);
bool handle_noop(Handle *h);
void handle_disconnect(Handle *h, bool polite);
void handle_close(Handle *h);

/* token.c */
void token_start(struct token_wait *wait, const Handle *h);
enum wait_end token_await(struct token_wait *wait, Handle *h);
size_t token_missing(Handle *h);
void token_done(Handle *h);

/* helper.c */
bool helper_open(Handle *h, const char *host, int fd, const char *principal);
bool helper_call(Handle *h, struct call *call);
void helper_cancel(struct job *job);

/* worker.c */
int lock_init(pthread_mutex_t *mutex, pthread_cond_t *condition);
void condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock,
                    double seconds);
int run_in_thread(void (*run)(void *), void *argument);
void forget_thread(void);

#endif

/*
 * The core: a handle has one connection to a remctl server, and one operation
 * at a time.
 *
 * An operation is started, sets the descriptor that it waits for, and is
 * stepped until it has ended.  Each of these files uses only those above it in
 * this list:
 *
 *   threads.c   threads for calls that may block; the lock
 *   connect.c   failures; looking up the host and connecting
 *   job.c       a blocking call of libremctl in a thread
 *   token.c     tells whether a token can be read without blocking
 *   handle.c    operations; the only wait
 *   ../_remctl.c  the functions that Python calls
 */
#ifndef REMCTL_CORE_H
#define REMCTL_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __linux__
#    include <linux/tcp.h>
#    include <sys/eventfd.h>
#    include <sys/syscall.h>
#else
#    include <netinet/tcp.h>
#endif

#include <remctl.h>

/* -- threads.c -------------------------------------------------------------
 *
 * An idle thread is kept for a moment, as starting one costs as much as a
 * task.  While MAX_THREADS threads are running, further tasks wait in a queue.
 */

/* Seconds. */
#define FOR_EVER 1e6

/* Seconds between checks for events that do not end a wait: a signal that
   another thread received, progress of a job, a race that was given up. */
#define SLICE 0.05

/* Protects everything that threads share; never held for long. */
extern pthread_mutex_t core_lock;

/* Counts the tasks that threads have taken. */
extern atomic_uint tasks_begun;

/* Counts the forks that led to this process; cheaper than getpid(). */
extern atomic_uint fork_count;

/* Work for another thread; the first member of the struct with its data. */
struct task {
    void (*run)(struct task *);
    struct task *next;
};

int run_in_thread(struct task *task);
bool watch_forks(void);
double monotonic(void);

/* -- connect.c -------------------------------------------------------------
 *
 * The kinds of failures, from which Python chooses an exception class.  The
 * addresses of a host race, as in RFC 8305.
 */

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
    const char *kind; /* One of these; "" or NULL: there was no failure. */
    int number;       /* errno; 0 where only the text says why. */
    char *text;       /* NULL: strerror(number) has to do. */
};

/* Where to connect and how.  Owns its strings. */
struct target {
    char *host;
    char *principal;
    char *address;  /* To connect to in place of the host; NULL: the host's. */
    char *source;   /* The numeric address to connect from; NULL: any. */
    char *ccache;   /* The credential cache; NULL: the default one. */
    int port;       /* 0: the registered port, then the legacy one. */
    int keepalive;  /* Seconds between TCP probes; 0: the system's. */
    double timeout; /* Seconds for each address; 0: the system's. */
};

struct job;

bool fail(struct failure *failure, const char *kind, int number,
          const char *format, ...) __attribute__((__format__(printf, 4, 5)));
bool fail_memory(struct failure *failure);
bool fail_library(struct failure *failure, const char *reason);
void failure_clear(struct failure *failure);
bool copy_string(char **target, const char *text);
bool target_copy(struct target *to, const struct target *from);
void target_clear(struct target *target);
bool check_numeric(const char *address, struct failure *failure);
int connect_target(struct job *job);

/* -- job.c -----------------------------------------------------------------
 *
 * A job is what libremctl can only do blocking, done in a thread.  Its
 * descriptor becomes readable when it is done.  Nothing can interrupt a job
 * that waits for a resolver or a KDC.  So nobody ever waits for a job to end:
 * one that is not wanted any more is left behind with all that it uses, and
 * frees that when it returns.
 */

/* libremctl's client and what it points at. */
struct connection {
    struct remctl *client; /* NULL: there is no connection. */
    int fd;                /* -1: libremctl's own, with protocol 1. */
    char protocol; /* 1, or 2 for all later ones; 0: no connection yet. */
    struct target target;
};

/* The operation that was started and has not ended. */
enum operation { NOTHING, OPENING, SENDING, READING, PINGING };

/* A command: the objects that Python lends, and libremctl's view of them. */
struct command {
    PyObject *items;
    Py_buffer *buffers;
    struct iovec *vector;
    size_t count;
    atomic_bool sending;  /* A thread is sending it. */
    struct command *next; /* In the list of those that were given up. */
};

enum stage { QUEUED, STARTED, LOOKING_UP, CONNECTING, AUTHENTICATING };

struct job {
    struct task task; /* Comes first: see above. */
    enum operation operation;
    int descriptor; /* Becomes readable when the job is done. */
    int signal;     /* The other end of it. */

    atomic_int holders; /* Threads that use it, once it was started. */
    atomic_bool done;
    atomic_bool abandoned; /* Nobody waits any more. */
    atomic_int stage;
    atomic_uint steps; /* Counts its progress. */
    int watch; /* Our own descriptor of the socket, or -1.  The lock protects
                  it. */

    struct connection connection;
    bool in_place; /* No thread could be started for it. */
    struct failure failure;

    struct command *command; /* Of SENDING. */
    bool success;
    struct remctl_output *output;
};

/* The signals of a thread before SIGPIPE was blocked. */
struct signals {
    bool ignored; /* SIGPIPE does nothing anyway. */
    sigset_t mask;
    sigset_t pending;
};

void block_sigpipe(struct signals *before);
void unblock_sigpipe(const struct signals *before);
void connection_close(struct connection *connection, bool polite);
struct job *job_new(enum operation operation,
                    const struct connection *connection,
                    struct failure *failure);
void job_start(struct job *job);
void job_wake(struct job *job);
uint64_t job_activity(struct job *job);
void job_abandon(struct job *job);
void job_release(struct job *job);

/* -- token.c ---------------------------------------------------------------
 *
 * A read of libremctl cannot be interrupted.  So it is called only when the
 * whole token is in the socket's buffer, or the stream has ended: then it does
 * not block.
 */

/* One octet of flags and four of length (remctl protocol, section 2). */
#define TOKEN_HEADER 5

struct reader {
    int fd;
    int low_water; /* SO_RCVLOWAT. */
    int arrived;   /* Octets known to be in the socket's buffer. */
    int size;      /* Octets of the whole token, its header included. */
    int need;      /* Octets that poll() waits for. */
    bool asks;     /* The token asks for an answer. */
};

enum readiness {
    READY,     /* libremctl can read without blocking. */
    NOT_YET,   /* poll() reports the descriptor when to check again. */
    MAY_BLOCK, /* It has to be read in a job: see reader_look. */
};

enum readiness reader_look(struct reader *reader, bool readable);
void reader_done(struct reader *reader);

/* -- handle.c --------------------------------------------------------------
 */

/* The state of an operation after a step. */
enum outcome { FAILED, ENDED, WAITING };

/* Why a thread enters a handle: to start an operation, to continue the current
   one, or to look while there may be one. */
enum entry { BEGIN, RESUME, LOOK };

/* Whether it may enter. */
enum admission { ADMITTED, IN_USE, NOT_BEGUN, OVER, INHERITED };

typedef struct {
    PyObject_HEAD
    unsigned int forks; /* fork_count in the process it belongs to. */

    /* The lock protects these. */
    bool busy;          /* A thread is inside a call. */
    atomic_bool closed; /* remctl_close() was called. */
    bool watched;       /* Somebody waits for the socket: it is open. */
    struct job *job;    /* Somebody waits for this job. */

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
    double quiet_since; /* When octets last arrived or left. */
    uint64_t activity;
    int wanted;      /* The descriptor to wait for. */
    double patience; /* Seconds to wait for it at most. */

    struct command *command; /* The command to send. */
    struct target settings;  /* For the next opening. */
    struct failure failure;
} Handle;

enum admission handle_enter(Handle *h, enum entry entry);
void handle_leave(Handle *h);
enum outcome handle_open(Handle *h, const struct target *target);
enum outcome handle_send(Handle *h);
enum outcome handle_read(Handle *h);
enum outcome handle_ping(Handle *h);
enum outcome handle_step(Handle *h, bool readable);
enum outcome handle_wait(Handle *h);
void handle_cancel(Handle *h);
int handle_missing(Handle *h);
void handle_close(Handle *h);
void handle_release(Handle *h);

#endif

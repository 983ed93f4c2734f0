/* Declarations for the C loops, which the bindings are compared with. */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stddef.h>

#include <sys/uio.h>

#include <remctl.h>

/* A session with the server, and its socket if we made that ourselves. */
struct session {
    struct remctl *client;
    int fd; /* -1: remctl_open() made it. */
};

/* The actions of a worker. */
struct action {
    const char *name;
    void (*prepare)(void);
    void (*go)(long count);
};

extern const struct action actions[];

/* loop.c: every failure ends the program with the reason. */
void fail(const char *format, ...)
    __attribute__((__noreturn__, __format__(printf, 1, 2)));

/* session.c */
extern bool own_socket; /* Connect here, with TCP_NODELAY, TCP_QUICKACK. */
void session_open(struct session *session);
void session_close(struct session *session);
void session_send(struct session *session, const struct iovec *command,
                  size_t count);
struct remctl_output *session_read(struct session *session);
size_t session_drain(struct session *session);

#endif

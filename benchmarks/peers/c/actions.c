/* The actions of the loops: one function for each question. */
#include "loop.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct session shared;
static char *payload;
static size_t payload_size;

static struct iovec
text(const char *string)
{
    return (struct iovec) {(void *) string, strlen(string)};
}

static void
run_echo(struct session *session)
{
    struct iovec command[] = {text("echo"), text("hello")};

    session_send(session, command, 2);
    if (session_drain(session) != strlen("hello\n"))
        fail("wrong output");
}

static void
prepare_nothing(void)
{
}

static void
prepare_session(void)
{
    session_open(&shared);
    run_echo(&shared);
}

static void
go_commands(long count)
{
    while (count-- > 0)
        run_echo(&shared);
}

static void
go_connects(long count)
{
    struct session session;

    while (count-- > 0) {
        session_open(&session);
        run_echo(&session);
        session_close(&session);
    }
}

static void
go_noops(long count)
{
    while (count-- > 0)
        if (!remctl_noop(shared.client))
            fail("%s", remctl_error(shared.client));
}

/* Sends a command that writes COUNT octets. */
static void
send_zeros(long count)
{
    char octets[32] = "";
    struct iovec command[] = {text("zeros"), text("-c"), {octets, 0}};

    command[2].iov_len = (size_t) snprintf(octets, sizeof(octets), "%ld",
                                           count);
    session_send(&shared, command, 3);
}

/* COUNT octets of output, read and discarded. */
static void
go_stream(long count)
{
    send_zeros(count);
    if (session_drain(&shared) != (size_t) count)
        fail("wrong output");
}

/* COUNT octets of output, all kept until the end. */
static void
go_keep(long count)
{
    struct remctl_output *output;
    char *kept = NULL;
    size_t size = 0, room = 0;

    send_zeros(count);
    while ((output = session_read(&shared))->type == REMCTL_OUT_OUTPUT) {
        if (size + output->length > room) {
            room = (size + output->length) * 9 / 8;
            kept = realloc(kept, room);
            if (kept == NULL)
                fail("out of memory");
        }
        memcpy(kept + size, output->data, output->length);
        size += output->length;
    }
    if (size != (size_t) count)
        fail("wrong output");
    free(kept);
}

/* COUNT octets of output, written to a file, buffered by stdio. */
static void
go_save(long count)
{
    struct remctl_output *output;
    FILE *file = tmpfile();
    bool good = file != NULL;

    send_zeros(count);
    while ((output = session_read(&shared))->type == REMCTL_OUT_OUTPUT)
        good = good
               && fwrite(output->data, 1, output->length, file)
                      == output->length;
    if (!good || fflush(file) != 0 || ftell(file) != count)
        fail("wrong output, or no file to write it to");
    fclose(file);
}

/* COUNT octets for a command's standard input, created on the first call. */
static void
go_upload(long count)
{
    struct iovec command[] = {text("count"), text("-c"), {NULL, 0}};

    if (payload_size != (size_t) count) {
        free(payload);
        payload = malloc((size_t) count);
        if (payload == NULL)
            fail("out of memory");
        memset(payload, 'x', (size_t) count);
        payload_size = (size_t) count;
    }
    command[2] = (struct iovec) {payload, payload_size};
    session_send(&shared, command, 3);
    session_drain(&shared);
}

/* COUNT sessions, all open at the same time; they stay open. */
static void
go_sessions(long count)
{
    struct session *sessions = calloc((size_t) count, sizeof(*sessions));
    long i;

    if (sessions == NULL)
        fail("out of memory");
    for (i = 0; i < count; i++)
        session_open(&sessions[i]);
    for (i = 0; i < count; i++)
        run_echo(&sessions[i]);
}

#define THREADS_MAX 64

static struct session thread_sessions[THREADS_MAX];

static void
prepare_threads(void)
{
    int i;

    for (i = 0; i < THREADS_MAX; i++)
        session_open(&thread_sessions[i]);
}

static long threads_share;

static void *
echo_share(void *argument)
{
    long i;

    for (i = 0; i < threads_share; i++)
        run_echo(argument);
    return NULL;
}

/* 640 commands, divided among COUNT threads with a session each. */
static void
go_threads(long count)
{
    pthread_t threads[THREADS_MAX];
    long i;

    if (count > THREADS_MAX)
        fail("too many threads");
    threads_share = 640 / count;
    for (i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, echo_share, &thread_sessions[i]);
    for (i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

const struct action actions[] = {
    {"commands", prepare_session, go_commands},
    {"connects", prepare_nothing, go_connects},
    {"noops", prepare_session, go_noops},
    {"stream", prepare_session, go_stream},
    {"keep", prepare_session, go_keep},
    {"save", prepare_session, go_save},
    {"upload", prepare_session, go_upload},
    {"sessions", prepare_nothing, go_sessions},
    {"threads", prepare_threads, go_threads},
    {NULL, NULL, NULL},
};

/*
 * A fake GSS-API without encryption, and the peer behind it.
 *
 * Random octets never unwrap, so the parsers behind a real GSS-API would not
 * be reached.  Here wrapping copies; only payloads with a special first octet
 * are refused.
 *
 * The peer needs no thread: it acts when the client is about to send, which
 * is when the client asks for a context or wraps.  At each of these moments
 * the next octets are written to the peer's end of the socket pair.
 *
 * The functions replace those of the library: linked into the program, or
 * as a library that is loaded before all others (LD_PRELOAD).
 */

#define _GNU_SOURCE 1 /* dup3() */

#include "fakegss.h"

#include <errno.h>
#include <fcntl.h>
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The first octet of a payload that is refused. */
#define REFUSED 0xEE

/* The first octet of a context token that asks for another one. */
#define CONTINUED 0xCC

/* A moment that has this octet alone makes gss_wrap() fail. */
#define NO_WRAP 0xEE

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What the peer has to do. */
static struct {
    int fd;     /* -1: there is no peer. */
    int client; /* The other end of the socket pair. */
    unsigned int mode;
    unsigned char *octets;
    size_t *lengths;
    size_t moments;
    size_t moment; /* The next one. */
    size_t due;    /* Octets of past moments. */
    size_t written;
    int objects; /* Names and contexts that were not released. */
} peer = {.fd = -1, .client = -1};

/* Writes due octets, up to a limit; returns -1 if nothing ever follows. */
static int
write_due(size_t most)
{
    size_t left = peer.due - peer.written;
    ssize_t sent;

    if (peer.fd < 0)
        return -1;
    if (left > 0) {
        sent = send(peer.fd, peer.octets + peer.written,
                    left < most ? left : most, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN ? 0 : -1;
        peer.written += (size_t) sent;
    }
    if (peer.moment < peer.moments || peer.written < peer.due)
        return 0;
    if (peer.mode & FAKE_END)
        shutdown(peer.fd, SHUT_WR);
    return -1;
}

/* Starts the next moment.  Returns its octet if it has only one. */
static int
next_moment(void)
{
    int only = -1;

    pthread_mutex_lock(&lock);
    if (peer.fd >= 0 && peer.moment < peer.moments) {
        if (peer.lengths[peer.moment] == 1)
            only = peer.octets[peer.due];
        peer.due += peer.lengths[peer.moment++];
    }
    if (!(peer.mode & FAKE_PIECES))
        write_due((size_t) -1);
    pthread_mutex_unlock(&lock);
    return only;
}

static void
count_objects(int change)
{
    pthread_mutex_lock(&lock);
    peer.objects += change;
    pthread_mutex_unlock(&lock);
}

/* Gives the client's end of the socket pair to whoever connects. */
int
connect(int fd, const struct sockaddr *address, socklen_t size)
{
    int client;

    pthread_mutex_lock(&lock);
    client = peer.client;
    pthread_mutex_unlock(&lock);
    if (client < 0)
        return (int) syscall(SYS_connect, fd, address, size);
    return dup3(client, fd, O_CLOEXEC) < 0 ? -1 : 0;
}

/* Makes the peer write a number of octets to FD at each moment. */
void
fake_begin(int fd, int client, unsigned int mode, const unsigned char *octets,
           const size_t *lengths, size_t moments)
{
    size_t i, total = 0;

    for (i = 0; i < moments; i++)
        total += lengths[i];
    pthread_mutex_lock(&lock);
    free(peer.octets);
    free(peer.lengths);
    peer.octets = malloc(total + 1);
    peer.lengths = calloc(moments + 1, sizeof(*lengths));
    if (peer.octets == NULL || peer.lengths == NULL)
        abort();
    memcpy(peer.octets, octets, total);
    memcpy(peer.lengths, lengths, moments * sizeof(*lengths));
    peer.fd = fd;
    peer.client = client;
    peer.mode = mode;
    peer.moments = moments;
    peer.moment = peer.due = peer.written = 0;
    pthread_mutex_unlock(&lock);
}

/* Writes a piece of the due octets; returns false if there will be no more. */
int
fake_pump(size_t most)
{
    int result;

    pthread_mutex_lock(&lock);
    result = write_due(most);
    pthread_mutex_unlock(&lock);
    return result == 0;
}

/* Removes the peer.  Returns the number of objects that were not released. */
int
fake_end(void)
{
    int objects;

    pthread_mutex_lock(&lock);
    peer.fd = peer.client = -1;
    objects = peer.objects;
    pthread_mutex_unlock(&lock);
    return objects;
}

static OM_uint32
copy(const void *octets, size_t length, gss_buffer_t to)
{
    to->length = length;
    to->value = malloc(length + 1);
    if (to->value == NULL)
        return GSS_S_FAILURE;
    if (length > 0)
        memcpy(to->value, octets, length);
    ((char *) to->value)[length] = '\0'; /* For a text. */
    return GSS_S_COMPLETE;
}

static int
begins_with(gss_buffer_t buffer, unsigned char octet)
{
    return buffer->length > 0 && *(unsigned char *) buffer->value == octet;
}

static void *
new_object(void)
{
    void *object = malloc(1);

    if (object != NULL)
        count_objects(1);
    return object;
}

static OM_uint32
release_object(void *object)
{
    if (object != NULL)
        count_objects(-1);
    free(object);
    return GSS_S_COMPLETE;
}

OM_uint32 KRB5_CALLCONV
gss_import_name(OM_uint32 *minor, gss_buffer_t text, gss_OID type,
                gss_name_t *name)
{
    (void) text;
    (void) type;
    *minor = 0;
    *name = new_object();
    return *name != NULL ? GSS_S_COMPLETE : GSS_S_FAILURE;
}

OM_uint32 KRB5_CALLCONV
gss_release_name(OM_uint32 *minor, gss_name_t *name)
{
    *minor = 0;
    release_object(*name);
    *name = GSS_C_NO_NAME;
    return GSS_S_COMPLETE;
}

OM_uint32 KRB5_CALLCONV
gss_init_sec_context(OM_uint32 *minor, gss_cred_id_t credential,
                     gss_ctx_id_t *context, gss_name_t name, gss_OID mechanism,
                     OM_uint32 wanted, OM_uint32 seconds,
                     gss_channel_bindings_t bindings, gss_buffer_t received,
                     gss_OID *actual_mechanism, gss_buffer_t to_send,
                     OM_uint32 *flags, OM_uint32 *actual_seconds)
{
    (void) credential;
    (void) name;
    (void) mechanism;
    (void) seconds;
    (void) bindings;
    (void) actual_mechanism;
    (void) actual_seconds;
    *minor = 0;
    to_send->length = 0;
    to_send->value = NULL;
    if (flags != NULL)
        *flags = peer.mode & FAKE_NO_CONFIDENTIALITY
                     ? wanted & ~(OM_uint32) GSS_C_CONF_FLAG
                     : wanted;
    if (*context == GSS_C_NO_CONTEXT
        && (*context = new_object()) == GSS_C_NO_CONTEXT)
        return GSS_S_FAILURE;
    if (received != GSS_C_NO_BUFFER && begins_with(received, REFUSED))
        return GSS_S_DEFECTIVE_TOKEN;
    if (received != GSS_C_NO_BUFFER && !begins_with(received, CONTINUED))
        return GSS_S_COMPLETE;
    next_moment();
    if (copy("token", 5, to_send) != GSS_S_COMPLETE)
        return GSS_S_FAILURE;
    return peer.mode & FAKE_AT_ONCE ? GSS_S_COMPLETE : GSS_S_CONTINUE_NEEDED;
}

OM_uint32 KRB5_CALLCONV
gss_delete_sec_context(OM_uint32 *minor, gss_ctx_id_t *context,
                       gss_buffer_t token)
{
    (void) token;
    *minor = 0;
    release_object(*context);
    *context = GSS_C_NO_CONTEXT;
    return GSS_S_COMPLETE;
}

OM_uint32 KRB5_CALLCONV
gss_wrap(OM_uint32 *minor, gss_ctx_id_t context, int secret, gss_qop_t quality,
         gss_buffer_t plain, int *is_secret, gss_buffer_t wrapped)
{
    (void) context;
    (void) quality;
    *minor = 0;
    *is_secret = secret;
    if (next_moment() == NO_WRAP)
        return GSS_S_FAILURE;
    return copy(plain->value, plain->length, wrapped);
}

OM_uint32 KRB5_CALLCONV
gss_unwrap(OM_uint32 *minor, gss_ctx_id_t context, gss_buffer_t wrapped,
           gss_buffer_t plain, int *is_secret, gss_qop_t *quality)
{
    (void) context;
    (void) quality;
    *minor = 0;
    *is_secret = 1;
    if (begins_with(wrapped, REFUSED))
        return GSS_S_BAD_SIG;
    return copy(wrapped->value, wrapped->length, plain);
}

OM_uint32 KRB5_CALLCONV
gss_get_mic(OM_uint32 *minor, gss_ctx_id_t context, gss_qop_t quality,
            gss_buffer_t message, gss_buffer_t mic)
{
    (void) context;
    (void) quality;
    (void) message;
    *minor = 0;
    return copy("MIC", 3, mic);
}

OM_uint32 KRB5_CALLCONV
gss_verify_mic(OM_uint32 *minor, gss_ctx_id_t context, gss_buffer_t message,
               gss_buffer_t mic, gss_qop_t *quality)
{
    (void) context;
    (void) message;
    (void) quality;
    *minor = 0;
    return begins_with(mic, REFUSED) ? GSS_S_BAD_SIG : GSS_S_COMPLETE;
}

OM_uint32 KRB5_CALLCONV
gss_release_buffer(OM_uint32 *minor, gss_buffer_t buffer)
{
    *minor = 0;
    free(buffer->value);
    buffer->length = 0;
    buffer->value = NULL;
    return GSS_S_COMPLETE;
}

OM_uint32 KRB5_CALLCONV
gss_display_status(OM_uint32 *minor, OM_uint32 status, int type, gss_OID mech,
                   OM_uint32 *more, gss_buffer_t text)
{
    (void) status;
    (void) type;
    (void) mech;
    *minor = 0;
    *more = 0;
    return copy("refused", 7, text);
}

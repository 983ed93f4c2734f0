/*
 * _remctl: the low-level face of libremctl for Python.
 *
 * One function for each function of libremctl, and no policy: validation,
 * reopening, exceptions and results live in remctl.py.  Each function here
 * parses, enters the handle, calls, copies what libremctl owns, leaves and
 * raises; the files in src see to it that every call comes back.
 */

#include "src/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>
#include <unistd.h>

typedef struct {
    PyTypeObject *handle_type;
} State;

/* Not Py_RETURN_NONE: with the headers of Python 3.12 that takes no reference,
   as None is immortal there, but 3.11 runs what was built with them, too. */
static PyObject *
none(void)
{
    return Py_NewRef(Py_None);
}

static Handle *
handle_new(PyObject *module)
{
    State *state = PyModule_GetState(module);
    allocfunc alloc;
    Handle *h;

    alloc = (allocfunc) PyType_GetSlot(state->handle_type, Py_tp_alloc);
    h = (Handle *) alloc(state->handle_type, 0);
    if (h == NULL)
        return NULL;
    h->fd = -1;
    h->guarded = pthread_mutex_init(&h->guard, NULL) == 0;
    h->forks = fork_count();
    if (h->guarded)
        return h;
    Py_DECREF((PyObject *) h);
    return (Handle *) PyErr_NoMemory();
}

/*
 * In a process that inherited the handle, only the descriptor is closed, if it
 * is still the socket's.  libremctl would send QUIT and shut the socket down
 * under the parent's feet, and Kerberos may have been forked with a lock held:
 * its memory stays.
 */
static void
close_inherited(Handle *h)
{
    if (owns_socket(h))
        close(h->fd);
    h->fd = -1;
    h->closed = true;
}

static void
handle_dealloc(PyObject *self)
{
    Handle *h = (Handle *) self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc) PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(self);
    if (h->forks == fork_count()) {
        handle_disconnect(h, !h->expecting);
        if (h->guarded)
            pthread_mutex_destroy(&h->guard);
    } else
        close_inherited(h);
    free(h->ccache);
    free(h->source);
    free(h->host);
    free(h->principal);
    free(h->error);
    release(self);
    Py_DECREF(type);
}

static int
handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static PyObject *
handle_repr(PyObject *self)
{
    Handle *h = (Handle *) self;

    if (h->closed)
        return PyUnicode_FromString("<_remctl.Handle closed>");
    return PyUnicode_FromFormat("<_remctl.Handle fd=%d>", h->fd);
}

static PyMemberDef handle_members[] = {
    {"fd", T_INT, offsetof(Handle, fd), READONLY,
     "Descriptor of the connection; -1 where there is none."},
    {"errno", T_INT, offsetof(Handle, error_number), READONLY,
     "errno of the last failure; 0 where only remctl_error() says why."},
    {"protocol", T_INT, offsetof(Handle, protocol), READONLY,
     "1, or 2 for protocol 2 and later; 0 before it is negotiated."},
    {"expecting", T_BOOL, offsetof(Handle, expecting), READONLY,
     "Whether a command was sent whose last token has not been read."},
    {"closed", T_BOOL, offsetof(Handle, closed), READONLY,
     "Whether remctl_close() was called."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, "A connection to a remctl server; made by remctl_new()."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_repr, handle_repr},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "_remctl.Handle",
    .basicsize = sizeof(Handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = handle_slots,
};

/* The handle that an argument is; NULL, with TypeError set, if it is none. */
static Handle *
to_handle(PyObject *module, PyObject *object)
{
    State *state = PyModule_GetState(module);

    if (PyObject_TypeCheck(object, state->handle_type))
        return (Handle *) object;
    PyErr_Format(PyExc_TypeError, "expected a remctl handle, not %R",
                 Py_TYPE(object));
    return NULL;
}

static Handle *
enter_object(PyObject *module, PyObject *object)
{
    Handle *h = to_handle(module, object);

    return h != NULL && handle_enter(h) ? h : NULL;
}

/* What most functions return: an exception, or whether they succeeded. */
static PyObject *
leave_with(Handle *h, bool success)
{
    handle_leave(h);
    if (!success && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(success);
}

static bool
check_port(long port)
{
    if (port >= 0 && port <= 65535)
        return true;
    PyErr_Format(PyExc_ValueError, "invalid port number: %ld", port);
    return false;
}

/* A command, as libremctl takes it and as Python lends it. */
struct command {
    PyObject *items;
    Py_buffer *buffers;
    struct iovec *vector;
    size_t count; /* Buffers to give back. */
};

static void
command_release(struct command *command)
{
    size_t i;

    for (i = 0; i < command->count; i++)
        PyBuffer_Release(&command->buffers[i]);
    PyMem_Free(command->buffers);
    PyMem_Free(command->vector);
    Py_XDECREF(command->items);
}

/* Borrows the arguments' memory.  The caller releases it on failure, too. */
static bool
command_borrow(struct command *command, PyObject *sequence, bool nul_allowed)
{
    Py_ssize_t size;
    size_t i;

    memset(command, 0, sizeof(*command));
    command->items = PySequence_Tuple(sequence);
    if (command->items == NULL)
        return false;
    size = PyTuple_Size(command->items);
    if (size < 0)
        return false;
    command->buffers = PyMem_Calloc((size_t) size + 1, sizeof(Py_buffer));
    command->vector = PyMem_Calloc((size_t) size + 1, sizeof(struct iovec));
    if (command->buffers == NULL || command->vector == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (i = 0; i < (size_t) size; i++) {
        PyObject *item = PyTuple_GetItem(command->items, (Py_ssize_t) i);
        Py_buffer *buffer = &command->buffers[i];

        if (item == NULL || PyObject_GetBuffer(item, buffer, PyBUF_SIMPLE) < 0)
            return false;
        command->count = i + 1;
        if (!nul_allowed && memchr(buffer->buf, '\0', (size_t) buffer->len)) {
            PyErr_Format(PyExc_ValueError,
                         "argument %zu of the command contains a NUL: use "
                         "remctl_commandv",
                         i);
            return false;
        }
        command->vector[i].iov_base = buffer->buf;
        command->vector[i].iov_len = (size_t) buffer->len;
    }
    return true;
}

PyDoc_STRVAR(new_doc, "remctl_new($module, /)\n--\n\n"
                      "Return a new handle, not yet connected.");

static PyObject *
py_remctl_new(PyObject *module, PyObject *unused)
{
    (void) unused;
    return (PyObject *) handle_new(module);
}

/* Turns an OSError that connecting raised into the handle's reason. */
static void
fail_connect(Handle *h, PyObject *gaierror, const char *host, int port)
{
    PyObject *type, *value, *traceback, *number = NULL, *text = NULL;
    const char *reason = NULL;
    long code = 0;

    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (!PyErr_GivenExceptionMatches(type, PyExc_OSError)) {
        PyErr_Restore(type, value, traceback); /* It could not be made. */
        return;
    }
    number = PyObject_GetAttrString(value, "errno");
    if (number != NULL)
        text = PyObject_GetAttrString(value, "strerror");
    if (number != NULL && PyLong_Check(number))
        code = PyLong_AsLong(number);
    else if (PyErr_GivenExceptionMatches(type, PyExc_TimeoutError))
        code = ETIMEDOUT;
    if (!PyErr_Occurred() && PyUnicode_Check(text))
        reason = PyUnicode_AsUTF8AndSize(text, NULL);
    if (PyErr_ExceptionMatches(PyExc_MemoryError))
        goto done;
    PyErr_Clear();
    if (reason == NULL)
        reason = strerror((int) code);
    if (PyErr_GivenExceptionMatches(type, gaierror))
        handle_fail(h, EHOSTUNREACH, "unknown host %s: %s", host, reason);
    else
        handle_fail(h, (int) code, "cannot connect to %s (port %d): %s", host,
                    port, reason);

done:
    Py_XDECREF(number);
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* Takes the descriptor out of a socket.  Returns -1, with the socket closed
   and an exception set, if it cannot. */
static int
detach_socket(PyObject *socket)
{
    PyObject *type, *value, *traceback, *number, *done = NULL;
    int fd = -1;

    number = PyObject_CallMethod(socket, "fileno", NULL);
    if (number != NULL)
        fd = (int) PyLong_AsLong(number);
    if (fd >= 0)
        done = PyObject_CallMethod(socket, "detach", NULL);
    if (done == NULL) {
        fd = -1;
        PyErr_Fetch(&type, &value, &traceback);
        done = PyObject_CallMethod(socket, "close", NULL);
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(number);
    Py_XDECREF(done);
    return fd;
}

/*
 * Connects with Python's own socket module, which tries every address, keeps
 * the timeout and lets signal handlers run.  Returns the descriptor or -1.
 */
static int
connect_host(Handle *h, const char *host, int port)
{
    PyObject *socket = NULL, *gaierror = NULL, *timeout = NULL;
    PyObject *connected = NULL;
    int fd = -1;

    socket = PyImport_ImportModule("socket");
    if (socket == NULL)
        goto done;
    gaierror = PyObject_GetAttrString(socket, "gaierror");
    timeout = h->timeout > 0 ? PyFloat_FromDouble(h->timeout)
                             : Py_NewRef(Py_None);
    if (gaierror == NULL || timeout == NULL)
        goto done;
    if (h->source != NULL)
        connected = PyObject_CallMethod(socket, "create_connection",
                                        "(si)O(si)", host, port, timeout,
                                        h->source, 0);
    else
        connected = PyObject_CallMethod(socket, "create_connection", "(si)O",
                                        host, port, timeout);
    if (connected == NULL) {
        fail_connect(h, gaierror, host, port);
        goto done;
    }
    fd = detach_socket(connected);

done:
    Py_XDECREF(socket);
    Py_XDECREF(gaierror);
    Py_XDECREF(timeout);
    Py_XDECREF(connected);
    return fd;
}

/* Without a port: the standard one, then the one used before remctl 2.11; if
   neither answers, the first one's reason counts. */
static bool
open_connection(Handle *h, const char *host, int port, const char *principal)
{
    char *reason;
    int fd, number;
    bool success;

    fd = connect_host(h, host, port != 0 ? port : REMCTL_PORT);
    if (fd < 0 && port == 0 && !PyErr_Occurred()) {
        reason = h->error;
        number = h->error_number;
        h->error = NULL;
        fd = connect_host(h, host, REMCTL_PORT_OLD);
        if (fd < 0) {
            free(h->error);
            h->error = reason;
            h->error_number = number;
        } else
            free(reason);
    }
    if (fd < 0)
        return false;
    success = handle_open(h, host, fd, principal);
    close(fd);
    return success;
}

PyDoc_STRVAR(open_doc,
             "remctl_open($module, handle, host, port=0, principal=None, /)\n"
             "--\n\n"
             "Connect and authenticate; port 0 tries 4373, then 4444.\n\n"
             "Return whether it succeeded; remctl_error() says why not.");

static PyObject *
py_remctl_open(PyObject *module, PyObject *args)
{
    PyObject *object;
    const char *host, *principal = NULL;
    long port = 0;
    Handle *h;

    if (!PyArg_ParseTuple(args, "Os|lz:remctl_open", &object, &host, &port,
                          &principal)
        || !check_port(port) || (h = enter_object(module, object)) == NULL)
        return NULL;
    return leave_with(h, open_connection(h, host, (int) port, principal));
}

PyDoc_STRVAR(open_fd_doc,
             "remctl_open_fd($module, handle, host, fd, principal=None, /)\n"
             "--\n\n"
             "Authenticate on a connected stream socket.\n\n"
             "The handle works on a duplicate: fd stays the caller's, to be\n"
             "closed when it likes.  host may be None if principal is not.\n"
             "Return whether it succeeded; remctl_error() says why not.");

static PyObject *
py_remctl_open_fd(PyObject *module, PyObject *args)
{
    PyObject *object;
    const char *host, *principal = NULL;
    int fd;
    Handle *h;

    if (!PyArg_ParseTuple(args, "Ozi|z:remctl_open_fd", &object, &host, &fd,
                          &principal))
        return NULL;
    if (host == NULL && principal == NULL) {
        PyErr_SetString(PyExc_ValueError, "host or principal is needed");
        return NULL;
    }
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
        return PyErr_Format(PyExc_ValueError, "invalid descriptor: %d", fd);
    if ((h = enter_object(module, object)) == NULL)
        return NULL;
    return leave_with(h, handle_open(h, host, fd, principal));
}

PyDoc_STRVAR(close_doc,
             "remctl_close($module, handle, /)\n--\n\n"
             "Close the connection and the handle, for good.\n\n"
             "A call in another thread ends at once.  Closing again does\n"
             "nothing.  After fork() the child's copy is closed only.");

static PyObject *
py_remctl_close(PyObject *module, PyObject *object)
{
    Handle *h = to_handle(module, object);

    if (h == NULL)
        return NULL;
    if (h->forks == fork_count())
        handle_close(h);
    else
        close_inherited(h);
    return none();
}

PyDoc_STRVAR(commandv_doc,
             "remctl_commandv($module, handle, command, /)\n--\n\n"
             "Send a command: a sequence of bytes-like objects.\n\n"
             "Return whether it was sent; remctl_error() says why not.");

PyDoc_STRVAR(command_doc, "remctl_command($module, handle, command, /)\n--\n\n"
                          "Like remctl_commandv(), but refuse NUL octets.");

static PyObject *
send_arguments(PyObject *module, PyObject *args, const char *format,
               bool nul_allowed)
{
    PyObject *object, *sequence, *result = NULL;
    struct command command = {0};
    Handle *h;

    if (!PyArg_ParseTuple(args, format, &object, &sequence))
        return NULL;
    if (to_handle(module, object) != NULL
        && command_borrow(&command, sequence, nul_allowed)
        && (h = enter_object(module, object)) != NULL)
        result = leave_with(h, handle_send(h, command.vector, command.count));
    command_release(&command);
    return result;
}

static PyObject *
py_remctl_commandv(PyObject *module, PyObject *args)
{
    return send_arguments(module, args, "OO:remctl_commandv", true);
}

static PyObject *
py_remctl_command(PyObject *module, PyObject *args)
{
    return send_arguments(module, args, "OO:remctl_command", false);
}

PyDoc_STRVAR(output_doc,
             "remctl_output($module, handle, /)\n--\n\n"
             "Return the next token of the running command, as a tuple\n"
             "(type, output, stream, status, error); () on failure.\n\n"
             "type is 'output', 'status', 'error' or 'done'; what a token of\n"
             "that type has not is None.");

/* What a token holds, as bytes.  Formats with "#" would do it, but what they
   call differs between the headers of Python 3.11 and of 3.13. */
static PyObject *
token_octets(const struct remctl_output *output)
{
    return PyBytes_FromStringAndSize(output->data,
                                     (Py_ssize_t) output->length);
}

static PyObject *
token_tuple(const struct remctl_output *output)
{
    switch (output->type) {
    case REMCTL_OUT_OUTPUT:
        return Py_BuildValue("(sNiOO)", "output", token_octets(output),
                             output->stream, Py_None, Py_None);
    case REMCTL_OUT_STATUS: /* libremctl has it as a signed char. */
        return Py_BuildValue("(sOOiO)", "status", Py_None, Py_None,
                             output->status & 0xff, Py_None);
    case REMCTL_OUT_ERROR:
        return Py_BuildValue("(sNOOI)", "error", token_octets(output), Py_None,
                             Py_None, (unsigned int) output->error);
    case REMCTL_OUT_DONE:
        break;
    }
    return Py_BuildValue("(sOOOO)", "done", Py_None, Py_None, Py_None,
                         Py_None);
}

static PyObject *
py_remctl_output(PyObject *module, PyObject *object)
{
    Handle *h = enter_object(module, object);
    const struct remctl_output *output;
    PyObject *result = NULL;

    if (h == NULL)
        return NULL;
    output = handle_output(h);
    if (output != NULL)
        result = token_tuple(output);
    else if (!PyErr_Occurred())
        result = PyTuple_New(0);
    handle_leave(h);
    return result;
}

PyDoc_STRVAR(missing_doc,
             "remctl_missing($module, handle, /)\n--\n\n"
             "Return how many octets have to arrive, at least, before\n"
             "remctl_output() returns at once: 0 if it does so now.\n\n"
             "poll() reports the descriptor as readable when they have.");

static PyObject *
py_remctl_missing(PyObject *module, PyObject *object)
{
    Handle *h = enter_object(module, object);
    size_t missing;

    if (h == NULL)
        return NULL;
    missing = handle_missing(h);
    handle_leave(h);
    return PyLong_FromSize_t(missing);
}

PyDoc_STRVAR(noop_doc,
             "remctl_noop($module, handle, /)\n--\n\n"
             "Send a NOOP and read the answer; return whether it came.\n\n"
             "handle.errno is EOPNOTSUPP where the server is too old for it;\n"
             "the connection goes on then.");

static PyObject *
py_remctl_noop(PyObject *module, PyObject *object)
{
    Handle *h = enter_object(module, object);

    return h == NULL ? NULL : leave_with(h, handle_noop(h));
}

PyDoc_STRVAR(error_doc, "remctl_error($module, handle, /)\n--\n\n"
                        "Return why the last call that failed did so.");

static PyObject *
error_text(Handle *h)
{
    const char *text = h->error;

    if (text == NULL)
        text = h->error_number != 0 ? strerror(h->error_number) : "no error";
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t) strlen(text), "replace");
}

static PyObject *
py_remctl_error(PyObject *module, PyObject *object)
{
    Handle *h = enter_object(module, object);
    PyObject *text;

    if (h == NULL)
        return NULL;
    text = error_text(h);
    handle_leave(h);
    return text;
}

PyDoc_STRVAR(set_ccache_doc,
             "remctl_set_ccache($module, handle, ccache, /)\n--\n\n"
             "Use this credential cache when opening from now on.\n\n"
             "Return whether the Kerberos library can do that.");

static PyObject *
py_remctl_set_ccache(PyObject *module, PyObject *args)
{
    PyObject *object;
    const char *ccache;
    Handle *h;
    bool success;

    if (!PyArg_ParseTuple(args, "Os:remctl_set_ccache", &object, &ccache)
        || (h = enter_object(module, object)) == NULL)
        return NULL;
    success = set_string(&h->ccache, ccache);
    if (!success || (h->client == NULL && (h->client = remctl_new()) == NULL))
        PyErr_NoMemory();
    else if (!remctl_set_ccache(h->client, ccache))
        success = handle_fail_client(h);
    return leave_with(h, success && !PyErr_Occurred());
}

PyDoc_STRVAR(set_source_ip_doc,
             "remctl_set_source_ip($module, handle, source, /)\n--\n\n"
             "Connect from this address from now on.  Return True.");

static PyObject *
py_remctl_set_source_ip(PyObject *module, PyObject *args)
{
    PyObject *object;
    const char *source;
    Handle *h;
    bool success;

    if (!PyArg_ParseTuple(args, "Os:remctl_set_source_ip", &object, &source)
        || (h = enter_object(module, object)) == NULL)
        return NULL;
    success = set_string(&h->source, source);
    if (!success)
        PyErr_NoMemory();
    return leave_with(h, success);
}

PyDoc_STRVAR(set_timeout_doc,
             "remctl_set_timeout($module, handle, seconds, /)\n--\n\n"
             "Give up when the network is silent for so long; 0: never.\n\n"
             "Return False if it is negative.");

static PyObject *
py_remctl_set_timeout(PyObject *module, PyObject *args)
{
    PyObject *object;
    double seconds;
    char text[32];
    Handle *h;
    bool success = true;

    if (!PyArg_ParseTuple(args, "Od:remctl_set_timeout", &object, &seconds)
        || (h = enter_object(module, object)) == NULL)
        return NULL;
    if (seconds >= 0)
        h->timeout = seconds < 1e6 ? seconds : 1e6;
    else {
        snprintf(text, sizeof(text), "%g", seconds);
        success = handle_fail(h, EINVAL, "invalid timeout %s", text);
    }
    return leave_with(h, success);
}

PyDoc_STRVAR(
    remctl_doc,
    "remctl($module, host, port, principal, command, /)\n--\n\n"
    "Run one command; return a tuple (error, stdout, stderr, status).\n\n"
    "error is a str, or None if the command ran.  A stream that produced\n"
    "nothing is None.");

/* Appends a token's octets to one of the two streams, an io.BytesIO. */
static bool
collect(PyObject **stream, const struct remctl_output *output)
{
    PyObject *io, *written;

    if (output->length == 0)
        return true;
    if (*stream == NULL) {
        io = PyImport_ImportModule("io");
        if (io != NULL)
            *stream = PyObject_CallMethod(io, "BytesIO", NULL);
        Py_XDECREF(io);
        if (*stream == NULL)
            return false;
    }
    written = PyObject_CallMethod(*stream, "write", "N", token_octets(output));
    Py_XDECREF(written);
    return written != NULL;
}

static PyObject *
collected(PyObject *stream)
{
    if (stream == NULL)
        return none();
    return PyObject_CallMethod(stream, "getvalue", NULL);
}

/* Reads a running command's output and how it ended: *error is its text or
   None. */
static bool
collect_all(Handle *h, PyObject *streams[2], int *status, PyObject **error)
{
    const struct remctl_output *output;

    while ((output = handle_output(h)) != NULL) {
        if (output->type == REMCTL_OUT_OUTPUT) {
            if (!collect(&streams[output->stream == 2], output))
                return false;
            continue;
        }
        if (output->type == REMCTL_OUT_ERROR)
            *error = PyUnicode_DecodeUTF8(output->data,
                                          (Py_ssize_t) output->length,
                                          "replace");
        else {
            *status = output->status & 0xff;
            *error = Py_NewRef(Py_None);
        }
        return *error != NULL;
    }
    return false;
}

static PyObject *
py_remctl(PyObject *module, PyObject *args)
{
    const char *host, *principal;
    PyObject *sequence, *streams[2] = {NULL, NULL};
    PyObject *out = NULL, *err = NULL, *error = NULL, *result = NULL;
    struct command command = {0};
    Handle *h = NULL;
    long port;
    int status = 0;

    if (!PyArg_ParseTuple(args, "slzO:remctl", &host, &port, &principal,
                          &sequence)
        || !check_port(port))
        return NULL;
    if (!command_borrow(&command, sequence, true)
        || (h = handle_new(module)) == NULL)
        goto done;
    if (!open_connection(h, host, (int) port, principal)
        || !handle_send(h, command.vector, command.count)
        || !collect_all(h, streams, &status, &error)) {
        if (PyErr_Occurred())
            goto done;
        Py_XDECREF(error);
        error = error_text(h);
    }
    if (error != NULL && (out = collected(streams[0])) != NULL
        && (err = collected(streams[1])) != NULL)
        result = Py_BuildValue("(OOOi)", error, out, err, status);

done:
    command_release(&command);
    Py_XDECREF(error);
    Py_XDECREF(out);
    Py_XDECREF(err);
    Py_XDECREF(streams[0]);
    Py_XDECREF(streams[1]);
    Py_XDECREF((PyObject *) h);
    return result;
}

/* -- The module ------------------------------------------------------------
 */

static PyMethodDef methods[] = {
    {"remctl", py_remctl, METH_VARARGS, remctl_doc},
    {"remctl_new", py_remctl_new, METH_NOARGS, new_doc},
    {"remctl_open", py_remctl_open, METH_VARARGS, open_doc},
    {"remctl_open_fd", py_remctl_open_fd, METH_VARARGS, open_fd_doc},
    {"remctl_close", py_remctl_close, METH_O, close_doc},
    {"remctl_command", py_remctl_command, METH_VARARGS, command_doc},
    {"remctl_commandv", py_remctl_commandv, METH_VARARGS, commandv_doc},
    {"remctl_output", py_remctl_output, METH_O, output_doc},
    {"remctl_missing", py_remctl_missing, METH_O, missing_doc},
    {"remctl_noop", py_remctl_noop, METH_O, noop_doc},
    {"remctl_error", py_remctl_error, METH_O, error_doc},
    {"remctl_set_ccache", py_remctl_set_ccache, METH_VARARGS, set_ccache_doc},
    {"remctl_set_source_ip", py_remctl_set_source_ip, METH_VARARGS,
     set_source_ip_doc},
    {"remctl_set_timeout", py_remctl_set_timeout, METH_VARARGS,
     set_timeout_doc},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);

    if (!watch_forks()) {
        PyErr_NoMemory();
        return -1;
    }
    state->handle_type = (PyTypeObject *)
        PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    if (state->handle_type == NULL)
        return -1;
    if (PyModule_AddType(module, state->handle_type) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "VERSION",
                                      REMCTL_BINDING_VERSION);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);

    Py_VISIT(state->handle_type);
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);

    Py_CLEAR(state->handle_type);
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_remctl",
    .m_doc = "The low-level interface of libremctl; use remctl instead.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__remctl(void)
{
    return PyModuleDef_Init(&module_def);
}

/*
 * _remctl: the low-level interface of libremctl for Python.
 *
 * One function for each function of libremctl, and no policy: validation,
 * reopening, exceptions and results live in Python.  Each function here
 * parses its arguments, enters the handle, starts an operation and makes a
 * result of its end; src/core.h describes operations.
 */

#include "src/core.h"

#include <structmember.h>

/* Makes a call that may block without the GIL. */
#define WITHOUT_GIL(call)                                                     \
    do {                                                                      \
        PyThreadState *saved = PyEval_SaveThread();                           \
        call;                                                                 \
        PyEval_RestoreThread(saved);                                          \
    } while (0)

/* The module with the part in Python.  It is imported with this one, because
   nothing can be imported while the interpreter exits. */
#define SIMPLE "_remctl_simple"

typedef struct {
    PyTypeObject *handle_type;
    PyObject *busy_error;
    PyObject *closed_error;
    struct command *left; /* Given up by their handles, not yet released. */
} State;

static void
command_release(struct command *command)
{
    size_t i;

    for (i = 0; i < command->count; i++)
        PyBuffer_Release(&command->buffers[i]);
    Py_DECREF(command->items);
    PyMem_Free(command);
}

/* Releases the handle's command, and other commands that were given up.  A
   command that a thread is still sending is released by a later call. */
static void
give_back(Handle *h)
{
    State *state = PyType_GetModuleState(Py_TYPE((PyObject *) h));
    struct command *command = h->command, **link = &state->left;

    h->command = NULL;
    pthread_mutex_lock(&core_lock);
    if (command != NULL) {
        command->next = state->left;
        state->left = command;
    }
    while ((command = *link) != NULL)
        if (command->sending)
            link = &command->next;
        else {
            *link = command->next;
            pthread_mutex_unlock(&core_lock);
            command_release(command);
            pthread_mutex_lock(&core_lock);
            link = &state->left;
        }
    pthread_mutex_unlock(&core_lock);
}

static void
handle_dealloc(PyObject *self)
{
    Handle *h = (Handle *) self;
    PyTypeObject *type = Py_TYPE(self);

    WITHOUT_GIL(handle_release(h));
    give_back(h);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *
handle_repr(PyObject *self)
{
    Handle *h = (Handle *) self;

    if (h->closed)
        return PyUnicode_FromString("<_remctl.Handle closed>");
    return PyUnicode_FromFormat("<_remctl.Handle fd=%d>", h->connection.fd);
}

static PyObject *
get_wants(PyObject *self, void *unused)
{
    Handle *h = (Handle *) self;

    (void) unused;
    if (h->patience >= FOR_EVER)
        return Py_BuildValue("(iO)", h->wanted, Py_None);
    return Py_BuildValue("(id)", h->wanted, h->patience);
}

static PyMemberDef handle_members[] = {
    {"fd", T_INT, offsetof(Handle, connection.fd), READONLY,
     "Descriptor of the connection; -1 without a connection."},
    {"errno", T_INT, offsetof(Handle, failure.number), READONLY,
     "errno of the last failure; 0 if only remctl_error() says why."},
    {"failure", T_STRING, offsetof(Handle, failure.kind), READONLY,
     "The kind of the last failure; \"\" if there was none."},
    {"connected", T_BOOL, offsetof(Handle, connection.protocol), READONLY,
     "True if there is a connection, as far as is known."},
    {"protocol", T_BYTE, offsetof(Handle, connection.protocol), READONLY,
     "1, or 2 for protocol 2 and later; 0 without a connection."},
    {"expecting", T_BOOL, offsetof(Handle, expecting), READONLY,
     "True if a command was sent whose last token has not been read."},
    {"closed", T_BOOL, offsetof(Handle, closed), READONLY,
     "True once remctl_close() was called."},
    {"blocking", T_BOOL, offsetof(Handle, blocking), 0,
     "True if functions wait.  Otherwise they return None, and\n"
     "remctl_poll() continues."},
    {"deadline", T_DOUBLE, offsetof(Handle, deadline), 0,
     "When operations have to end, by time.monotonic(); 0: never."},
    {"keepalive", T_INT, offsetof(Handle, settings.keepalive), 0,
     "Seconds between TCP's probes of connections that are opened from now\n"
     "on; 0: the system's."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef handle_getset[] = {
    {"wants", get_wants, NULL,
     "The descriptor that the operation waits for to become readable, and\n"
     "the seconds to wait at most, or None.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, "A connection to a remctl server; made by remctl_new()."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_repr, handle_repr},
    {Py_tp_members, handle_members},
    {Py_tp_getset, handle_getset},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "_remctl.Handle",
    .basicsize = sizeof(Handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = handle_slots,
};

/* Returns an argument as a handle.  Sets an exception and returns NULL if it
   is not a handle. */
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

/* Sets the exception for a handle that cannot be used. */
static void
refuse(PyObject *module, enum admission admission)
{
    static const char *const reasons[] = {
        [IN_USE] = "remctl handle is in use: another call has not ended",
        [NOT_BEGUN] = "no operation has been begun",
        [OVER] = "remctl handle is closed",
        [INHERITED] = "remctl handle belongs to another process; after "
                      "fork(), make a new one",
    };
    State *state = PyModule_GetState(module);
    PyObject *error = state->closed_error;

    if (admission == IN_USE)
        error = state->busy_error;
    else if (admission == NOT_BEGUN)
        error = PyExc_ValueError;
    PyErr_SetString(error, reasons[admission]);
}

/* Enters a handle.  Sets an exception
   and returns NULL if that is not possible. */
static Handle *
enter(PyObject *module, PyObject *object, enum entry entry)
{
    Handle *h = to_handle(module, object);
    enum admission admission;

    if (h == NULL || (admission = handle_enter(h, entry)) == ADMITTED)
        return h;
    refuse(module, admission);
    return NULL;
}

/* Waits until the operation has ended, if the handle blocks. */
static enum outcome
finish(Handle *h, enum outcome outcome)
{
    while (outcome == WAITING && h->blocking) {
        WITHOUT_GIL(outcome = handle_wait(h));
        if (outcome == WAITING && PyErr_CheckSignals() < 0) {
            handle_cancel(h);
            outcome = FAILED;
        }
    }
    if (outcome == FAILED && !PyErr_Occurred()
        && strcmp(h->failure.kind, MEMORY) == 0)
        PyErr_NoMemory();
    return outcome;
}

static PyObject *
token_tuple(const struct remctl_output *output)
{
    PyObject *octets = NULL;

    /* Not formats with "#": the headers of Python 3.11 and of 3.13 implement
       them by different functions. */
    if (output->type == REMCTL_OUT_OUTPUT || output->type == REMCTL_OUT_ERROR)
        octets = PyBytes_FromStringAndSize(output->data,
                                           (Py_ssize_t) output->length);
    switch (output->type) {
    case REMCTL_OUT_OUTPUT:
        return Py_BuildValue("(sNiOO)", "output", octets, output->stream,
                             Py_None, Py_None);
    case REMCTL_OUT_STATUS: /* In libremctl it is a signed char. */
        return Py_BuildValue("(sOOiO)", "status", Py_None, Py_None,
                             output->status & 0xff, Py_None);
    case REMCTL_OUT_ERROR:
        return Py_BuildValue("(sNOOI)", "error", octets, Py_None, Py_None,
                             (unsigned int) output->error);
    default:
        return Py_BuildValue("(sOOOO)", "done", Py_None, Py_None, Py_None,
                             Py_None);
    }
}

/*
 * Ends a call.  Returns None if the operation waits; a token, or whether it
 * succeeded, if it has ended; NULL if an exception is set.
 */
static PyObject *
leave(Handle *h, enum operation operation, enum outcome outcome)
{
    PyObject *result = NULL;

    outcome = finish(h, outcome);
    if (outcome == WAITING)
        result = Py_NewRef(Py_None);
    else if (PyErr_Occurred())
        ;
    else if (operation != READING)
        result = PyBool_FromLong(outcome == ENDED);
    else
        result = outcome == ENDED ? token_tuple(h->output) : PyTuple_New(0);
    if (h->operation == NOTHING && h->command != NULL)
        give_back(h);
    handle_leave(h);
    return result;
}

/* Runs an operation that needs no arguments but the handle. */
static PyObject *
call(PyObject *module, PyObject *object, enum outcome (*function)(Handle *))
{
    Handle *h = enter(module, object, BEGIN);
    enum outcome outcome;

    if (h == NULL)
        return NULL;
    WITHOUT_GIL(outcome = function(h));
    return leave(h, function == handle_read ? READING : NOTHING, outcome);
}

/* Borrows the arguments' memory.  Returns NULL if an exception is set. */
static struct command *
command_borrow(PyObject *sequence, bool nul_allowed)
{
    PyObject *items = PySequence_Tuple(sequence);
    struct command *command;
    size_t i, size;

    if (items == NULL)
        return NULL;
    size = (size_t) PyTuple_Size(items);
    command = PyMem_Calloc(
        1,
        sizeof(*command) + size * (sizeof(Py_buffer) + sizeof(struct iovec)));
    if (command == NULL) {
        Py_DECREF(items);
        return (struct command *) PyErr_NoMemory();
    }
    command->items = items;
    command->buffers = (Py_buffer *) (command + 1);
    command->vector = (struct iovec *) (command->buffers + size);
    for (i = 0; i < size; i++) {
        PyObject *item = PyTuple_GetItem(items, (Py_ssize_t) i);
        Py_buffer *buffer = &command->buffers[i];

        if (PyObject_GetBuffer(item, buffer, PyBUF_SIMPLE) < 0)
            goto failed;
        command->count = i + 1;
        if (!nul_allowed && memchr(buffer->buf, '\0', (size_t) buffer->len)) {
            PyErr_Format(PyExc_ValueError,
                         "argument %zu of the command contains a NUL: use "
                         "remctl_commandv",
                         i);
            goto failed;
        }
        command->vector[i].iov_base = buffer->buf;
        command->vector[i].iov_len = (size_t) buffer->len;
    }
    return command;

failed:
    command_release(command);
    return NULL;
}

static PyObject *
py_remctl_new(PyObject *module, PyObject *unused)
{
    State *state = PyModule_GetState(module);
    Handle *h = (Handle *) PyType_GenericAlloc(state->handle_type, 0);

    (void) unused;
    if (h == NULL)
        return NULL;
    h->connection.fd = h->wanted = -1;
    h->blocking = true;
    h->forks = fork_count;
    failure_clear(&h->failure);
    return (PyObject *) h;
}

static PyObject *
py_remctl_open(PyObject *module, PyObject *args)
{
    PyObject *object;
    struct target target = {0};
    enum outcome outcome;
    long port = 0;
    Handle *h;

    if (!PyArg_ParseTuple(args, "Os|lzz:remctl_open", &object, &target.host,
                          &port, &target.principal, &target.address))
        return NULL;
    if (port < 0 || port > 65535)
        return PyErr_Format(PyExc_ValueError, "invalid port number: %ld",
                            port);
    h = enter(module, object, BEGIN);
    if (h == NULL)
        return NULL;
    target.port = (int) port;
    target.source = h->settings.source;
    target.ccache = h->settings.ccache;
    target.keepalive = h->settings.keepalive;
    WITHOUT_GIL(outcome = handle_open(h, &target));
    return leave(h, NOTHING, outcome);
}

static PyObject *
py_remctl_close(PyObject *module, PyObject *object)
{
    Handle *h = to_handle(module, object);

    if (h == NULL)
        return NULL;
    if (h->forks == fork_count)
        WITHOUT_GIL(handle_close(h));
    else
        handle_release(h);
    return Py_NewRef(Py_None);
}

static PyObject *
send_arguments(PyObject *module, PyObject *args, const char *format,
               bool nul_allowed)
{
    PyObject *object, *sequence;
    struct command *command;
    enum outcome outcome;
    Handle *h;

    if (!PyArg_ParseTuple(args, format, &object, &sequence)
        || (command = command_borrow(sequence, nul_allowed)) == NULL)
        return NULL;
    h = enter(module, object, BEGIN);
    if (h == NULL) {
        command_release(command);
        return NULL;
    }
    h->command = command;
    WITHOUT_GIL(outcome = handle_send(h));
    return leave(h, NOTHING, outcome);
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

static PyObject *
py_remctl_output(PyObject *module, PyObject *object)
{
    return call(module, object, handle_read);
}

static PyObject *
py_remctl_poll(PyObject *module, PyObject *args)
{
    PyObject *object;
    enum operation operation;
    enum outcome outcome;
    int readable;
    Handle *h;

    if (!PyArg_ParseTuple(args, "Op:remctl_poll", &object, &readable)
        || (h = enter(module, object, RESUME)) == NULL)
        return NULL;
    operation = h->operation;
    WITHOUT_GIL(outcome = handle_step(h, readable != 0));
    return leave(h, operation, outcome);
}

static PyObject *
py_remctl_cancel(PyObject *module, PyObject *object)
{
    Handle *h = enter(module, object, RESUME);

    if (h == NULL)
        return NULL;
    WITHOUT_GIL(handle_cancel(h));
    give_back(h);
    handle_leave(h);
    return Py_NewRef(Py_None);
}

static PyObject *
py_remctl_missing(PyObject *module, PyObject *object)
{
    Handle *h = to_handle(module, object);
    enum admission admission;
    int missing = 1; /* While another thread is in a call. */

    if (h == NULL)
        return NULL;
    admission = handle_enter(h, LOOK);
    if (admission == ADMITTED) {
        missing = handle_missing(h);
        handle_leave(h);
    } else if (admission != IN_USE) {
        refuse(module, admission);
        return NULL;
    }
    return PyLong_FromLong(missing);
}

static PyObject *
py_remctl_noop(PyObject *module, PyObject *object)
{
    return call(module, object, handle_ping);
}

static PyObject *
py_fork_count(PyObject *module, PyObject *unused)
{
    (void) module;
    (void) unused;
    return PyLong_FromLong((long) fork_count);
}

static PyObject *
py_remctl_error(PyObject *module, PyObject *object)
{
    Handle *h = enter(module, object, BEGIN);
    const char *text;
    PyObject *result;

    if (h == NULL)
        return NULL;
    text = h->failure.text;
    if (text == NULL)
        text = h->failure.number ? strerror(h->failure.number) : "no error";
    result = PyUnicode_DecodeUTF8(text, (Py_ssize_t) strlen(text), "replace");
    handle_leave(h);
    return result;
}

static PyObject *
py_remctl_set_ccache(PyObject *module, PyObject *args)
{
    PyObject *object, *name;
    struct remctl *client = NULL;
    enum outcome outcome = FAILED;
    const char *text;
    Handle *h;

    if (!PyArg_ParseTuple(args, "OO&:remctl_set_ccache", &object,
                          PyUnicode_FSConverter, &name))
        return NULL;
    h = enter(module, object, BEGIN);
    if (h == NULL)
        goto done;
    text = PyBytes_AsString(name);
    if (!copy_string(&h->settings.ccache, text)
        || (client = remctl_new()) == NULL)
        fail_memory(&h->failure);
    else if (remctl_set_ccache(client, text))
        outcome = ENDED;
    else
        fail_library(&h->failure, remctl_error(client));
    remctl_close(client);

done:
    Py_DECREF(name);
    return h == NULL ? NULL : leave(h, NOTHING, outcome);
}

static PyObject *
py_remctl_set_source_ip(PyObject *module, PyObject *args)
{
    PyObject *object;
    const char *source;
    bool success;
    Handle *h;

    if (!PyArg_ParseTuple(args, "Os:remctl_set_source_ip", &object, &source)
        || (h = enter(module, object, BEGIN)) == NULL)
        return NULL;
    success = check_numeric(source, &h->failure)
              && (copy_string(&h->settings.source, source)
                  || fail_memory(&h->failure));
    return leave(h, NOTHING, success ? ENDED : FAILED);
}

static PyObject *
py_remctl_set_timeout(PyObject *module, PyObject *args)
{
    PyObject *object;
    enum outcome outcome = FAILED;
    double seconds;
    Handle *h;

    if (!PyArg_ParseTuple(args, "Od:remctl_set_timeout", &object, &seconds)
        || (h = enter(module, object, BEGIN)) == NULL)
        return NULL;
    if (seconds >= 0) {
        h->timeout = seconds < 1e6 ? seconds : 1e6;
        outcome = ENDED;
    } else
        fail(&h->failure, USAGE, EINVAL, "invalid timeout %g", seconds);
    return leave(h, NOTHING, outcome);
}

/* Runs one command; implemented in Python, with the other functions. */
static PyObject *
py_remctl(PyObject *module, PyObject *args)
{
    PyObject *simple = PyImport_ImportModule(SIMPLE), *result;

    if (simple == NULL)
        return NULL;
    result = PyObject_CallMethod(simple, "call", "OO", module, args);
    Py_DECREF(simple);
    return result;
}

/* -- The module ------------------------------------------------------------
 */

/* A function, with its signature for inspect to find; docs/low-level.md says
   more. */
#define FUNCTION(name, flags, parameters, text)                               \
    {#name, py_##name, flags, #name "($module, " parameters "/)\n--\n\n" text}

static PyMethodDef methods[] = {
    FUNCTION(
        remctl, METH_VARARGS, "host, port, principal, command, ",
        "Run one command; return a tuple (error, stdout, stderr, status)."),
    FUNCTION(remctl_new, METH_NOARGS, "",
             "Return a handle, not yet connected."),
    FUNCTION(remctl_open, METH_VARARGS,
             "handle, host, port=0, principal=None, address=None, ",
             "Connect and authenticate; return whether that succeeded."),
    FUNCTION(remctl_close, METH_O, "handle, ",
             "Close the connection and the handle, for good."),
    FUNCTION(remctl_command, METH_VARARGS, "handle, command, ",
             "Like remctl_commandv(), but refuse NUL octets."),
    FUNCTION(
        remctl_commandv, METH_VARARGS, "handle, command, ",
        "Send a sequence of bytes-like objects; return whether it was sent."),
    FUNCTION(
        remctl_output, METH_O, "handle, ",
        "Return (type, output, stream, status, error), or () on failure."),
    FUNCTION(remctl_poll, METH_VARARGS, "handle, readable, ",
             "Continue an operation; return its result, or None if it waits."),
    FUNCTION(remctl_cancel, METH_O, "handle, ",
             "Give up the current operation, and the connection."),
    FUNCTION(
        remctl_missing, METH_O, "handle, ",
        "Return how many octets have to arrive before output can be read."),
    FUNCTION(remctl_noop, METH_O, "handle, ",
             "Ask for a sign of life; return whether the server answered."),
    FUNCTION(remctl_error, METH_O, "handle, ",
             "Return the text of the last failure."),
    FUNCTION(remctl_set_ccache, METH_VARARGS, "handle, ccache, ",
             "Set the credential cache; return whether that is supported."),
    FUNCTION(remctl_set_source_ip, METH_VARARGS, "handle, source, ",
             "Set the address to connect from; return whether it is valid."),
    FUNCTION(remctl_set_timeout, METH_VARARGS, "handle, seconds, ",
             "Limit the silence of the network; return whether it is valid."),
    FUNCTION(fork_count, METH_NOARGS, "",
             "Return a number that differs between a process and its child."),
    {NULL, NULL, 0, NULL},
};

/* Makes an exception class for a handle that cannot be used. */
static bool
add_error(PyObject *module, const char *name, PyObject **error)
{
    *error = PyErr_NewException(name, PyExc_ValueError, NULL);
    return *error != NULL
           && PyModule_AddObjectRef(module, strchr(name, '.') + 1, *error)
                  == 0;
}

static int
module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    PyObject *simple = PyImport_ImportModule(SIMPLE);

    if (simple == NULL)
        PyErr_Clear(); /* remctl() raises it again when it is called. */
    Py_XDECREF(simple);
    if (!watch_forks()) {
        PyErr_NoMemory();
        return -1;
    }
    state->handle_type = (PyTypeObject *)
        PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    if (state->handle_type == NULL
        || PyModule_AddType(module, state->handle_type) < 0
        || !add_error(module, "_remctl.BusyError", &state->busy_error)
        || !add_error(module, "_remctl.ClosedError", &state->closed_error))
        return -1;
    return PyModule_AddStringConstant(module, "VERSION",
                                      REMCTL_BINDING_VERSION);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);

    Py_VISIT(state->handle_type);
    Py_VISIT(state->closed_error);
    Py_VISIT(state->busy_error);
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);

    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->closed_error);
    Py_CLEAR(state->busy_error);
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

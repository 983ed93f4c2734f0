"""Tables of the calls in the C sources that can fail, and of those that cannot.

`FALLIBLE` defines how each call fails, and the allowed outcomes.  Every call in the sources must be
in one of the tables; `scan.py` checks that.
"""

from __future__ import annotations

from typing import NamedTuple

MEMORY = "MemoryError"
SAME = "same"  # the outcome without the fault

# A reason without details: there was no memory for more.
SHORT = (
    "Connection refused|timed out|No route|not supported|Invalid argument|not connected"
    "|Cannot allocate memory"
)


class Failure(NamedTuple):
    """Failure of a function.

    `value` is the C expression to return.  `raises` is the Python exception to set, and `errno` the
    errno.  `outcomes` are the allowed outcomes: the name of an exception, SAME, or a pattern for
    the text of the error.
    """

    value: str
    raises: str = ""
    errno: str = ""
    outcomes: tuple[str, ...] = (MEMORY,)


NULL = Failure("NULL", raises=MEMORY)
MINUS = Failure("-1", raises=MEMORY)
ZERO = Failure("0", raises=MEMORY)
NOTHING = Failure("(void) 0", raises=MEMORY)
NO_BLOCK = Failure("NULL")

# A socket option or the length of a queue: only for speed, or with a substitute.
PASSES = Failure("-1", errno="ENOBUFS", outcomes=(SAME,))

FALLIBLE = {
    # Python's
    "PyArg_ParseTuple": ZERO,
    "PyBytes_FromStringAndSize": NULL,
    "PyErr_CheckSignals": Failure(
        "-1", raises="KeyboardInterrupt", outcomes=("KeyboardInterrupt",)
    ),
    "PyErr_Format": NULL,
    "PyErr_NewException": NULL,
    "PyErr_SetString": NOTHING,
    "PyImport_ImportModule": NULL._replace(outcomes=(MEMORY, SAME)),
    "PyLong_FromLong": NULL,
    "PyMem_Calloc": NO_BLOCK,
    "PyModule_AddObjectRef": MINUS,
    "PyModule_AddStringConstant": MINUS,
    "PyModule_AddType": MINUS,
    "PyObject_CallMethod": NULL,
    "PyObject_GetBuffer": MINUS,
    "PySequence_Tuple": NULL,
    "PyTuple_New": NULL,
    "PyType_FromModuleAndSpec": NULL,
    "PyType_GenericAlloc": NULL,
    "PyUnicode_DecodeUTF8": NULL,
    "PyUnicode_FromFormat": NULL,
    "PyUnicode_FromString": NULL,
    "Py_BuildValue": NULL,
    # libc's
    "bind": Failure("-1", errno="EADDRNOTAVAIL", outcomes=(SAME, "cannot connect to ")),
    "calloc": Failure("NULL", errno="ENOMEM"),
    "connect": Failure("-1", errno="EHOSTUNREACH", outcomes=(SAME, "cannot connect to ")),
    "eventfd": Failure("-1", errno="EMFILE", outcomes=("cannot watch the connection: ",)),
    "fcntl": Failure(
        "-1",
        errno="EMFILE",
        outcomes=(
            SAME,
            "cannot (use|watch) the connection: ",
            "cannot connect to ",
            MEMORY,  # libremctl gave no reason
            "unexpected end of file",  # libremctl's read() did not block
        ),
    ),
    "fstat": Failure("-1", errno="EIO", outcomes=(SAME, "cannot use the connection: ")),
    "getaddrinfo": Failure("EAI_MEMORY"),
    "getsockopt": Failure("-1", errno="ENOBUFS", outcomes=(SAME, "cannot connect to ")),
    "ioctl": PASSES,
    "pipe": Failure("-1", errno="EMFILE", outcomes=("cannot watch the connection: ",)),
    "poll": Failure("-1", errno="ENOMEM", outcomes=(SAME,)),
    "pthread_atfork": Failure("ENOMEM"),
    # If no thread can be started, the call runs in the calling thread.
    "pthread_attr_init": Failure("ENOMEM", outcomes=(SAME,)),
    "pthread_attr_setstacksize": Failure("EINVAL", outcomes=(SAME,)),
    "pthread_create": Failure("EAGAIN", outcomes=(SAME,)),
    "recv": Failure("-1", errno="ENOBUFS", outcomes=(SAME, "unexpected end of file")),
    "setsockopt": PASSES,
    "socket": Failure("-1", errno="EMFILE", outcomes=(SAME, "cannot connect to ")),
    "strdup": Failure("NULL", errno="ENOMEM"),
    "vasprintf": Failure("-1", errno="ENOMEM", outcomes=(MEMORY, SAME, SHORT)),
    # libremctl's
    "remctl_commandv": NO_BLOCK._replace(value="0"),
    "remctl_new": NO_BLOCK,
    "remctl_noop": NO_BLOCK._replace(value="0"),
    "remctl_open": NO_BLOCK._replace(value="0"),
    "remctl_open_fd": NO_BLOCK._replace(value="faults_open(__VA_ARGS__)"),
    "remctl_output": NO_BLOCK,
    "remctl_set_ccache": NO_BLOCK._replace(value="0"),
    "remctl_set_source_ip": NO_BLOCK._replace(value="0"),
}

# libremctl's own allocations, in any function.  If it cannot describe an error of GSS-API, it omits
# a part of the text.
FROM_LIBREMCTL = (SAME, MEMORY, r"GSS-API error|\(null\), ")

NEVER_FAIL = {
    "returns a flag or an existing value": """
        PyBool_FromLong PyBytes_AsString PyErr_Occurred PyModuleDef_Init
        PyModule_GetState PyObject_TypeCheck PyTuple_GetItem PyTuple_Size PyType_GetModuleState
        Py_NewRef Py_TYPE
    """,
    "releases or keeps": """
        PyBuffer_Release PyErr_Clear PyErr_NoMemory PyMem_Free PyObject_Free Py_CLEAR Py_DECREF
        Py_VISIT Py_XDECREF free freeaddrinfo remctl_close
    """,
    "is for the compiler": "offsetof va_end va_start",
    "computes": """
        gai_strerror memchr memcpy memset ntohl remctl_error sigaddset sigemptyset sigfillset
        sigismember snprintf strchr strcmp strerror strlen
    """,
    "fails only with wrong arguments": """
        clock_gettime getpid pthread_attr_destroy pthread_attr_setdetachstate
        pthread_cond_signal pthread_cond_timedwait pthread_mutex_lock pthread_mutex_unlock
        pthread_sigmask remctl_set_timeout sigaction sigpending sigwait syscall
    """,
    "has its effect even if it fails": "close shutdown",
    "fills a counter that has room": "write",
}

# Calls that no scenario reaches: the call, its function, and the reason.
UNREACHED = {
    ("PyErr_SetString", "to_open_handle"): "one of the two is for a forked process",
    ("fcntl", "make_signal"): "for systems without eventfd()",
    ("ioctl", "socket_activity"): "for systems without TCP_INFO",
    ("pipe", "make_signal"): "for systems without eventfd()",
}

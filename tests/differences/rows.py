"""Explained differences: each names its row in docs/coming-from-pyremctl.md by the first cell.

ELSEWHERE lists rows that one run of a program cannot show (speed, signals, threads, memory), and
their tests.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ABSENT = "(no such fact)"
HELLO = r"[('output', b'hello\n', 1), ('status', 0)]"


class Row(NamedTuple):
    """Explanation of different facts; `*` in a pattern matches any text."""

    row: str  # the first cell of the row
    key: str
    ours: str = "*"  # the value that this binding has
    theirs: str = "*"

    def explains(self, key: str, theirs: str, ours: str) -> bool:
        """Return whether this explains a fact and its two values."""
        pairs = ((self.key, key), (self.ours, ours), (self.theirs, theirs))
        return all(_matches(pattern, text) for pattern, text in pairs)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, re.DOTALL) is not None


# Rows used by several groups of facts.
PROTOCOL = "`except RemctlProtocolError`"
SYSTEM = "`except OSError`, `except TimeoutError`"
TEXT = "text of a `RemctlProtocolError`"
ESCAPES = "unprintable characters in the text of an exception"
REPR = "`repr()` of a token, a stream, an error code or a result"
BUSY = "a second command, or `noop()`, while output is unread"
MISTAKES = "a mistake in a command"
CONVERTED = "a number, path or list in a command"
LIMITS = "a NUL in the command or subcommand; more than 4096 arguments; 100 MiB or more"
NUL = "an argument with a NUL, `remctl()`"
SOURCE = "a source address that is not an address"
EMPTY = "an empty host name, principal or credential cache"
WHOLE_PORT = "a port of 4373.5, or infinity"
TIMES = "a timeout of 0.5"
AFTER_CLOSE = "`open()` or a setting after `close()`"
NOT_OPENED = "`error()` after a `RemctlNotOpenedError`"
REOPENED = "`open()` that fails on an open connection"
NOOP = "`noop()`"
DONE = '"done" from a server that speaks protocol 1'
STATUS = "exit status 200"
UNUSED = "unused fields of tokens"
NEW = "new names, parameters and attributes"
TYPING = "names imported from `typing`"
HANDLE = "handles of `_remctl`"
TRUTH = "success and failure in `_remctl`"
NO_HANDLE = "`_remctl` with something that is not a handle, or one argument too many"
NO_LIST = "`_remctl` with a command that is not a list of bytes"
EMPTY_LOW = "`remctl_commandv()` with an empty command"
R = "the attribute `r`"
OVERRIDDEN = "`error()` overridden in a subclass"
PRETENDED = "`opened = True` without a connection"
CHILD = "a forked child uses its parent's connection"
CHILD_OUTPUT = "a forked child reads the output of its parent's command"
CHILD_ENDS = "a forked child ends, or closes what it inherited"

_FORK = [
    Row(CHILD, "child uses the parent's session", "False"),
    Row(CHILD, "child, *: parent*", HELLO),
    Row(CHILD, "child, *: parent's session is the same", "True"),
    Row(CHILD, "parent after the child's timeout", HELLO),
    Row(CHILD, "parent stays in its session", "True"),
    Row(CHILD, "children: two ended with", "[0, 0]"),
    Row(CHILD, "parent's command unread; child, *: parent*", HELLO),
    Row(CHILD, "parent's command unread; child, *: parent's session is the same", "True"),
    Row(CHILD, "parent's command unread; child, noop(): outcome", "True"),
    Row(
        CHILD_OUTPUT,
        "parent's command unread; child, output(): outcome",
        "raises Remctl*",
        r"('output', b'hello\n', 1)",
    ),
]

ROWS: dict[str, list[Row]] = {
    "names": [
        Row(NEW, "name *", theirs=ABSENT),
        Row(NEW, "from remctl import * gives *", "yes", ABSENT),
        Row(NEW, "Remctl*: attribute *", theirs=ABSENT),
        Row(NEW, "Remctl*Error.value", "text"),
        *(Row(TYPING, f"name remctl.{name}", ABSENT) for name in (
            "Iterable", "Optional", "Text", "Tuple", "Union",
        )),
        Row(TYPING, "from remctl import * gives *", ABSENT),
        Row("tokens", "name remctl.RemctlOutput", "type"),
        Row(R, "attribute of a connection: r", ABSENT),
    ],
    "signatures": [
        Row(NEW, "signature of *", "keyword-only, default None", ABSENT),
        Row(NEW, "signature of Remctl: connect", "keyword-only, default True", ABSENT),
        Row(NEW, "signature of RemctlSimpleResult: *", theirs=ABSENT),
        Row("the default of `command=`", "signature of remctl: command"),
    ],
    "arguments": [
        Row(EMPTY, "*(host=empty)", "raises ValueError"),
        Row(EMPTY, "*(principal=empty)", "raises ValueError"),
        Row(EMPTY, "set_ccache(empty): *"),
        Row(WHOLE_PORT, "*(port=fraction)", "raises TypeError"),
        Row(WHOLE_PORT, "*(port=infinity)", "raises TypeError"),
        Row(NEW, "set_ccache(Path): outcome", "None"),
        Row(SOURCE, "set_source_ip(empty): *"),
        Row(SOURCE, "set_source_ip(word): *"),
        Row(TIMES, "set_timeout(*.*): *"),
        Row(TIMES, "set_timeout(2**70): outcome", "None"),
    ],
    "commands": [
        Row(LIMITS, "command 4097 items: *"),
        Row(LIMITS, "command command NUL: *"),
        Row(LIMITS, "command subcommand NUL: *"),
        Row(NUL, "command item NUL: remctl()", "raises RemctlError"),
        Row(MISTAKES, "command item None: *", "raises TypeError"),
        Row(MISTAKES, "command bytearray: *", "raises TypeError"),
        Row(MISTAKES, "command memoryview: *", "raises TypeError"),
        *(Row(CONVERTED, f"command {name}: *", theirs="*") for name in (
            "item bytearray", "item float", "item int", "item list", "item memoryview",
            "item Path", "item True", "list of a list", "item surrogate escape",
        )),
    ],
    "excepts": [
        Row(PROTOCOL, "*: caught by (NotOpened, Protocol, Error)", "RemctlProtocolError"),
        Row(SYSTEM, "timeout in *: caught by (OSError, Error)", "OSError"),
        Row(SYSTEM, "timeout in *: caught by (TimeoutError, Error)", "TimeoutError"),
        Row(TEXT, "remctl(), *: raises", "RemctlError: *", "RemctlError: b'*"),
        Row(TEXT, "remctl(), *: args", "('*", "(b'*"),
        Row(TEXT, "remctl(), *: equals error() and str()", "True"),
        Row(ESCAPES, "unknown host with a newline: raises", r"*no such\nhost*", "*no such host*"),
        Row(ESCAPES, "unknown host with a newline: args", r"*no such\\nhost*", r"*no such\nhost*"),
        Row(MISTAKES, "None in a command: *", "TypeError"),
        Row(BUSY, "command while unread: *"),
        Row(BUSY, "noop while unread: *"),
        Row(AFTER_CLOSE, "settings after close: *"),
        Row(SOURCE, "source address is a word: *"),
    ],
    "states": [
        Row(NOT_OPENED, "after *: error()", "no currently open connection"),
        Row(ESCAPES, "after unknown host with a newline: error()", r"*no such\nhost*"),
        Row(AFTER_CLOSE, "after *close*: then open(): *"),
        Row(AFTER_CLOSE, "after open after close: *"),
        Row(AFTER_CLOSE, "after settings after close: outcome"),
        Row(BUSY, "after *: then *: outcome", "raises RemctlError: a command is still running*"),
        Row(BUSY, "after *: error()", "a command is still running*"),
        Row(BUSY, "after command while unread: outcome", "raises"),
        Row(BUSY, "after noop while unread: then output(): *"),
        Row(NOOP, "after noop, protocol *: *"),
        Row(NOOP, "after *, protocol 1: then noop(): *"),
        Row(DONE, "after *, protocol 1: then output(): *"),
        Row(SOURCE, "after source address is a word: outcome", "raises"),
        Row(SOURCE, "after source address is a word: then open(): *"),
        Row(REOPENED, "after open again, *: opened", "False"),
        Row(REOPENED, "after open again, *: outcome", "raises RemctlNotOpenedError: *"),
    ],
    "timeouts": [Row(NOT_OPENED, "after *: error()", "no currently open connection")],
    "subclasses": [
        Row(R, "attribute r: *"),
        Row(OVERRIDDEN, "error() overridden, *"),
        Row(OVERRIDDEN, "subclass, *: methods called", "['set_timeout(1)']"),
        Row(OVERRIDDEN, "subclass, *: methods called", "['open(2)']", "['open(2)', 'error(0)']"),
        Row(AFTER_CLOSE, "subclass, set_*()", "None"),
        Row(PRETENDED, "opened set to True *: *()", "raises RemctlNotOpenedError*"),
        Row(NOT_OPENED, "opened set to True when new: error()", "no currently open connection"),
    ],
    "values": [
        Row(UNUSED, "token *, without meaning", "None", "0"),
        Row(STATUS, "token * of status 200: *", "*200*", "*-56*"),
        Row(STATUS, "result of status 200: *", "200", "-56"),
        Row("tokens", "token *: has the class tuple", "False"),
        Row(REPR, "token *: * as repr", "<Remctl*"),
        Row(REPR, "token *: repr", "RemctlOutput(*"),
        Row(REPR, "result of *: repr", "<Remctl*"),
        Row(NOOP, "noop() returns", "True"),
        Row("results in a set, or as keys", "result of *: can be hashed", "raises TypeError"),
        Row("results in a set, or as keys", "result of *: equals another of the same", "True"),
        Row(NEW, "connection as an object: fileno()", "True"),
        Row(NEW, "connection as an object: with statement", "True"),
        Row(NEW, "refusal by remctl(): value", "Unknown command"),
        Row(TEXT, "refusal by remctl(): *"),
        Row(
            "an open connection is garbage-collected",
            "warnings where an open connection is dropped",
            "['ResourceWarning']",
        ),
    ],
    "low-level": [
        Row(TEXT, "_remctl.remctl(), refused", "('Unknown command'*"),
        Row(TEXT, "type of the error of _remctl.remctl()", "str"),
        Row(STATUS, "_remctl.remctl(), status 200", "* 200)"),
        Row(TRUTH, "new handle, *: type", "bool", "int"),
        Row(HANDLE, "type of a handle", "Handle"),
        Row(UNUSED, "whole tokens of *"),
        Row(EMPTY_LOW, "new handle, remctl_commandv, empty: result", "false"),
        Row(EMPTY_LOW, "new handle, remctl_error after the empty one: result", "cannot send *"),
        Row(EMPTY_LOW, "new handle, output of it: result", r"('output', b'hello\n', 1)"),
    ],
    "low-level-arguments": [
        Row(NEW, "remctl_open with one argument more", "True", "raises TypeError"),
        Row(NUL, "_remctl.remctl() with a command: NUL"),
        Row(TEXT, "_remctl.remctl() with a command: empty", "('*"),
        Row(NO_LIST, "* with a command: None", "raises TypeError"),
        Row(NO_LIST, "* with a command: int", "raises TypeError"),
        Row(NO_LIST, "* with a command: tuple"),
        Row(NO_LIST, "* with a command: bytearray"),
        Row(EMPTY_LOW, "remctl_commandv with a command: empty", "False"),
        Row("a port out of range, `_remctl`", "_remctl.remctl() with port -1", "raises ValueError"),
        Row(NO_HANDLE, "* of a *", "raises TypeError", "raises ValueError"),
        Row(NO_HANDLE, "remctl_new with one argument more", "raises TypeError"),
        Row(NEW, "remctl_open with one argument more", "True", "raises TypeError"),
    ],
    "fork": _FORK,
    "fork-in-c": _FORK,
    "fork-twice": [],
    "fork-and-exit": [
        Row(CHILD_ENDS, "child ends by *: parent's next command", HELLO),
        Row(CHILD_ENDS, "child ends by *: parent's session is the same", "True"),
    ],
    "fork-low-level": [Row("a forked child uses a handle of `_remctl`", "child, *")],
}  # fmt: skip

ELSEWHERE: dict[str, str] = {
    "timeouts": "test_timeouts.py",
    "more than 1024 open files, and a timeout": "test_timeouts.py",
    "Ctrl-C": "test_interruptions.py",
    "other threads": "test_threads.py",
    "`close()` in another thread": "test_threads.py",
    "a connection that opens itself again": "test_existing_binding.py",
    "opening one object again and again": "test_leaks.py",
    "`_remctl.remctl_close()`, then letting go of the handle": "test_existing_binding.py",
    "the time of a command": "test_existing_binding.py",
    "a fork, with Python 3.12 or later": "test_fork.py",
}

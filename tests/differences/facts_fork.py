"""Facts about forks: a child's use of its parent's connection, and the effects.

The server's command `session` prints the process id of its session, to identify the connection.
Each child has an alarm, and prints its own facts.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

from .facts import ECHO, Facts, ask, connect, meant, read, remctl

LIMIT = 30  # seconds for a child

Fork = Callable[[], int]
SESSION = ["session", "pid"]


def _python() -> int:
    with warnings.catch_warnings():  # Python 3.12 and later warn about threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _c() -> int:
    """Fork like uWSGI and other C programs, without Python's hooks."""
    return int(ctypes.PyDLL(None).fork())


def _in_child(fork: Fork, work: Callable[[], object], leave: Callable[[int], Any]) -> int:
    """Run a function in a forked child; return how the child ended."""
    sys.stdout.flush()
    child = fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(LIMIT)
    status = 1
    try:
        work()
        status = 0
    except Exception as error:
        print(f"the child failed: {error!r}", file=sys.stderr)
    sys.stdout.flush()
    leave(status)
    raise AssertionError("a child did not exit")


def python_fork(facts: Facts) -> None:
    """os.fork()."""
    _describe(facts, _python)


def c_fork(facts: Facts) -> None:
    """fork() called in C."""
    _describe(facts, _c)


def _describe(facts: Facts, fork: Fork) -> None:
    uses: dict[str, Callable[[Any], Any]] = {
        "a command": ask,
        "two commands": lambda s: [ask(s), ask(s)],
        "noop()": lambda s: s.noop() in (None, True),
        "output()": lambda s: meant(s.output()),
        "opened": lambda s: s.opened,
        "error()": lambda s: s.error(),
        "close()": lambda s: s.close(),
        "close() and a command": lambda s: (s.close(), ask(s)),
        "set_timeout() and a command": lambda s: (s.set_timeout(5), ask(s))[1],
        "open() and a command": lambda s: (s.open(*facts.place[:3]), ask(s))[1],
        "opened after a command": lambda s: (ask(s), s.opened)[1],
        "error() after a command": lambda s: (ask(s), s.error())[1],
        "a refused command": lambda s: ask(s, ["none"]),
    }
    for name, use in uses.items():
        _use(facts.about(f"child, {name}"), fork, use)
    for name, use in uses.items():
        if name.startswith(("a command", "output", "noop", "close()", "two")):
            _use(facts.about(f"parent's command unread; child, {name}"), fork, use, unread=True)
    _sessions(facts, fork)
    _settings(facts, fork)


def _use(facts: Facts, fork: Fork, use: Callable[[Any], Any], *, unread: bool = False) -> None:
    """Use a connection in a child, and afterwards in the parent."""
    session = connect(facts.place)
    before = ask(session, SESSION)
    if unread:
        session.command(ECHO)
    ended = _in_child(fork, lambda: facts.call("outcome", use, session), os._exit)
    facts.note("child ended with", ended)
    if unread:
        facts.call("parent reads its command", read, session)
    facts.call("parent's next command", ask, session)
    facts.outcome("parent's session is the same", lambda: ask(session, SESSION) == before)
    session.close()


def _sessions(facts: Facts, fork: Fork) -> None:
    """Print whether a child's commands use the parent's connection."""
    session = connect(facts.place)
    before = ask(session, SESSION)

    def work() -> None:
        first = ask(session, SESSION)
        facts.note("child uses the parent's session", first == before)
        facts.note("child stays in one session", ask(session, SESSION) == first)

    facts.note("children: two ended with", [_in_child(fork, work, os._exit) for _ in range(2)])
    facts.outcome("parent stays in its session", lambda: ask(session, SESSION) == before)
    session.close()


def _settings(facts: Facts, fork: Fork) -> None:
    """Print whether the child's connection has the settings of the parent's."""
    place = facts.place
    session = remctl.Remctl()
    session.set_ccache(place.ccache)
    session.set_source_ip("127.0.0.1")
    session.set_timeout(10)
    session.open(place.host, place.port, place.principal)
    before = os.environ["KRB5CCNAME"]
    os.environ["KRB5CCNAME"] = place.missing_ccache
    _in_child(fork, lambda: facts.call("child has the parent's ccache", ask, session), os._exit)
    os.environ["KRB5CCNAME"] = before
    session.close()
    session = connect(place)
    session.set_timeout(1)
    sleep = ["test", "sleep", "30"]
    _in_child(fork, lambda: facts.call("child has a timeout", ask, session, sleep), os._exit)
    session.set_timeout(10)
    facts.call("parent after the child's timeout", ask, session)
    session.close()


def double_fork(facts: Facts) -> None:
    """Daemonize: the parent and its child end, and the grandchild goes on."""
    for name, fork in {"os.fork()": _python, "fork() in C": _c}.items():
        about = facts.about(f"daemon by {name}")
        session = connect(facts.place)

        def daemon(session: Any = session, about: Facts = about) -> None:
            os.setsid()
            about.call("a command", ask, session)
            about.call("another", ask, session)
            about.note("opened", session.opened)

        def child(fork: Fork = fork, work: Any = daemon) -> None:
            _in_child(fork, work, os._exit)

        about.note("child ended with", _in_child(fork, child, os._exit))
        session.close()


def fork_and_exit(facts: Facts) -> None:
    """End children in different ways, or drop the inherited connection."""
    _end_child(facts.about("child ends by _exit()"), lambda holder: None, os._exit)
    _end_child(facts.about("child ends by close()"), lambda holder: holder[0].close(), os._exit)
    _end_child(facts.about("child ends by drop"), _drop, os._exit)
    _end_child(facts.about("child ends by sys.exit()"), lambda holder: None, sys.exit)


def _drop(holder: list[Any]) -> None:
    holder.clear()
    gc.collect()


def _end_child(facts: Facts, work: Callable[[list[Any]], Any], leave: Callable[[int], Any]) -> None:
    holder = [connect(facts.place)]
    before = ask(holder[0], SESSION)
    facts.note("child ended with", _in_child(_python, lambda: work(holder), leave))
    facts.call("parent's next command", ask, holder[0])
    facts.outcome("parent's session is the same", lambda: ask(holder[0], SESSION) == before)
    holder[0].close()


def low_level_fork(facts: Facts) -> None:
    """A handle of `_remctl` in a child."""
    module: Any = importlib.import_module("_remctl")
    place = facts.place
    handle = module.remctl_new()
    module.remctl_open(handle, place.host, place.port, place.principal)

    def work() -> None:
        command = [word.encode() for word in ECHO]
        facts.outcome("child, remctl_error()", module.remctl_error, handle)
        facts.outcome("child, remctl_commandv()", lambda: bool(module.remctl_commandv(
            handle, command)))  # fmt: skip
        facts.outcome("child, remctl_output()", lambda: meant(module.remctl_output(handle)))

    facts.note("child ended with", _in_child(_python, work, os._exit))

"""Failures of each kind, for the facts about `except` clauses and about state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from .facts import ECHO, Place, remctl

# A failure is a function that gets a new object and performs a failing operation.
Failure = Callable[[Any, Place], Any]


def _opened(session: Any, place: Place) -> Any:
    session.open(place.host, place.port, place.principal)
    return session


def _ccache(name: str) -> Failure:
    def fail(session: Any, place: Place) -> None:
        session.set_ccache(getattr(place, name))
        session.open(place.host, place.port, place.principal)

    return fail


def _default_ccache(name: str) -> Failure:
    """Return a failure with the credential cache set in the environment."""

    def fail(session: Any, place: Place) -> None:
        before = os.environ.get("KRB5CCNAME", "")
        os.environ["KRB5CCNAME"] = getattr(place, name)
        try:
            session.open(place.host, place.port, place.principal)
        finally:
            os.environ["KRB5CCNAME"] = before

    return fail


def _gone(session: Any, place: Place) -> None:
    session.open(place.host, place.gone_port)
    session.command(ECHO)
    session.output()
    session.output()


def _after_gone(call: Callable[[Any], Any]) -> Failure:
    def fail(session: Any, place: Place) -> Any:
        with contextlib.suppress(remctl.RemctlError):
            _gone(session, place)
        return call(session)

    return fail


def _timeout_in_opening(session: Any, place: Place) -> None:
    session.set_timeout(1)
    session.open(place.host, place.silent_port)


def _timeout_in_output(session: Any, place: Place) -> None:
    _opened(session, place).set_timeout(1)
    session.command(["test", "sleep", "30"])
    session.output()


def _simple(*command: str, port: str = "port") -> Failure:
    def fail(_: Any, place: Place) -> None:
        remctl.remctl(place.host, getattr(place, port), place.principal, list(command))

    return fail


# Opening and settings.
OPENING: dict[str, Failure] = {
    "unknown host": lambda s, p: s.open("no-such-host.invalid", p.port),
    "unknown host with a newline": lambda s, p: s.open("no such\nhost.invalid", p.port),
    "refused connection": lambda s, p: s.open(p.host, p.closed_port),
    "unknown principal": lambda s, p: s.open(p.host, p.port, p.unknown_principal),
    "principal of another server": lambda s, p: s.open(p.host, p.port, p.other_principal),
    "source address of another host": lambda s, p: (
        s.set_source_ip("192.0.2.1"), s.open(p.host, p.port),
    ),
    "missing ccache": _ccache("missing_ccache"),
    "expired ticket": _ccache("expired_ccache"),
    "ccache is garbage": _ccache("garbage_ccache"),
    "missing default ccache": _default_ccache("missing_ccache"),
    "port is a word": lambda s, p: s.open(p.host, "remctl"),
    "port out of range": lambda s, p: s.open(p.host, 65536),
    "host is None": lambda s, p: s.open(None, p.port),
    "host is a number": lambda s, p: s.open(3, p.port),
    "principal is a number": lambda s, p: s.open(p.host, p.port, 3),
    "open without arguments": lambda s, p: s.open(),
    "negative timeout": lambda s, p: s.set_timeout(-1),
    "timeout is a word": lambda s, p: s.set_timeout("x"),
    "source address is a word": lambda s, p: s.set_source_ip("nonsense"),
    "command before open": lambda s, p: s.command(ECHO),
    "output before open": lambda s, p: s.output(),
    "noop before open": lambda s, p: s.noop(),
}  # fmt: skip

# On a connection that was opened.
OPENED: dict[str, Failure] = {
    "open again, unknown host": lambda s, p: _opened(s, p).open("no-such-host.invalid", p.port),
    "open again, refused": lambda s, p: _opened(s, p).open(p.host, p.closed_port),
    "open again, unknown principal": lambda s, p: _opened(s, p).open(
        p.host, p.port, p.unknown_principal
    ),
    "open again, port is a word": lambda s, p: _opened(s, p).open(p.host, "remctl"),
    "open again, host is None": lambda s, p: _opened(s, p).open(None, p.port),
    "negative timeout while open": lambda s, p: _opened(s, p).set_timeout(-1),
    "negative timeout while unread": lambda s, p: (
        _opened(s, p).command(ECHO), s.set_timeout(-1),
    ),
    "empty command": lambda s, p: _opened(s, p).command([]),
    "command is a word": lambda s, p: _opened(s, p).command("test"),
    "command is None": lambda s, p: _opened(s, p).command(None),
    "None in a command": lambda s, p: _opened(s, p).command(["test", None]),
    "noop while unread": lambda s, p: (_opened(s, p).command(["test", "status", "0"]), s.noop()),
    "command while unread": lambda s, p: (
        _opened(s, p).command(["test", "status", "0"]), s.command(ECHO),
    ),
    "server gone in the middle": _gone,
    "server gone, output again": _after_gone(lambda session: session.output()),
    "server gone, noop": _after_gone(lambda session: session.noop()),
    "command after close": lambda s, p: (_opened(s, p).close(), s.command(ECHO)),
    "output after close": lambda s, p: (_opened(s, p).close(), s.output()),
    "noop after close": lambda s, p: (_opened(s, p).close(), s.noop()),
    "settings after close": lambda s, p: (_opened(s, p).close(), s.set_timeout(5)),
}  # fmt: skip

TIMEOUTS: dict[str, Failure] = {
    "timeout in opening": _timeout_in_opening,
    "timeout in output": _timeout_in_output,
}

# By remctl(), which has no state.
SIMPLE: dict[str, Failure] = {
    "remctl(), unknown command": _simple("none"),
    "remctl(), access denied": _simple("denied", "x"),
    "remctl(), refused connection": _simple(*ECHO, port="closed_port"),
    "remctl(), server gone": _simple(*ECHO, port="gone_port"),
    "remctl(), empty command": _simple(),
    "remctl(), unknown host": lambda s, p: remctl.remctl(
        "no-such-host.invalid", p.port, None, ECHO
    ),
    "remctl(), unknown principal": lambda s, p: remctl.remctl(
        p.host, p.port, p.unknown_principal, ECHO
    ),
    "remctl(), port is a word": lambda s, p: remctl.remctl(p.host, "remctl", None, ECHO),
}

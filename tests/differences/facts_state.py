"""Facts about the state of an object after each kind of failure and success."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from .facts import ECHO, TIMEOUT, Facts, Place, ask, meant, read, remctl
from .failures import OPENED, OPENING, TIMEOUTS, Failure

Success = Callable[[Any, Place], Any]


def _open(session: Any, place: Place) -> Any:
    session.open(place.host, place.port, place.principal)
    return session


def _after(*failing: Failure, then: Success) -> Success:
    """Return a success that follows failures."""

    def run(session: Any, place: Place) -> Any:
        for failure in failing:
            with contextlib.suppress(Exception):
                failure(session, place)
        return then(session, place)

    return run


SUCCESSES: dict[str, Success] = {
    "new": lambda s, p: None,
    "open": lambda s, p: s.open(p.host, p.port, p.principal),
    "open again": lambda s, p: _open(_open(s, p), p),
    "command": lambda s, p: _open(s, p).command(ECHO),
    "command read to its status": lambda s, p: ask(_open(s, p)),
    "command read to done": lambda s, p: (ask(_open(s, p)), read(s)),
    "command refused": lambda s, p: ask(_open(s, p), ["none"]),
    "access denied": lambda s, p: ask(_open(s, p), ["denied", "x"]),
    "status 7": lambda s, p: ask(_open(s, p), ["test", "status", "7"]),
    "noop": lambda s, p: _open(s, p).noop(),
    "noop, protocol 1": lambda s, p: (s.open(p.host, p.protocol1_port), s.noop())[1],
    "noop, protocol 2": lambda s, p: (s.open(p.host, p.protocol2_port), s.noop())[1],
    "command, protocol 1": lambda s, p: (s.open(p.host, p.protocol1_port), ask(s)),
    "two commands, protocol 1": lambda s, p: (s.open(p.host, p.protocol1_port), ask(s), ask(s)),
    "settings": lambda s, p: (s.set_timeout(5), s.set_source_ip("127.0.0.1")),
    "settings while open": lambda s, p: (_open(s, p), s.set_timeout(5)),
    "close": lambda s, p: _open(s, p).close(),
    "close twice": lambda s, p: (_open(s, p).close(), s.close()),
    "close before open": lambda s, p: s.close(),
    "close while unread": lambda s, p: (_open(s, p).command(ECHO), s.close()),
    "open after close": lambda s, p: (_open(s, p).close(), _open(s, p)),
    "open after a refused one": _after(OPENING["refused connection"], then=_open),
    "command after a negative timeout": _after(
        OPENED["negative timeout while open"], then=lambda s, p: s.command(ECHO)
    ),
    "noop after a negative timeout": _after(
        OPENED["negative timeout while open"], then=lambda s, p: s.noop()
    ),
    "command read after a negative timeout": _after(
        OPENED["negative timeout while open"], then=lambda s, p: ask(s)
    ),
    "an empty command after a negative timeout": _after(
        OPENED["negative timeout while open"], OPENED["empty command"], then=lambda s, p: None
    ),
    "a bad port after a refused connection": _after(
        OPENING["refused connection"], OPENING["port is a word"], then=lambda s, p: None
    ),
    "settings after a refused connection": _after(
        OPENING["refused connection"], then=lambda s, p: s.set_timeout(5)
    ),
    "command after a refused command": lambda s, p: (ask(_open(s, p), ["none"]), ask(s)),
}

# The next steps of a program.
STEPS: dict[str, Callable[[Any, Place], Any]] = {
    "output()": lambda s, p: [meant(s.output()), meant(s.output())],
    "noop()": lambda s, p: s.noop() in (None, True),
    "a command": lambda s, p: ask(s),
    "open()": lambda s, p: (s.open(p.host, p.port), ask(s))[1],
    "close()": lambda s, p: s.close(),
}


def states(facts: Facts) -> None:
    """Print the state after each failure and success, and after the next step."""
    for name, event in {**SUCCESSES, **OPENING, **OPENED}.items():
        _describe(facts.about(f"after {name}"), event)


def timeouts(facts: Facts) -> None:
    """Print the state after timeouts, which are slow."""
    for name, event in TIMEOUTS.items():
        _describe(facts.about(f"after {name}"), event)


def _describe(facts: Facts, event: Success) -> None:
    for number, (name, step) in enumerate(STEPS.items()):
        session = remctl.Remctl()
        session.set_timeout(TIMEOUT)
        result = _happen(event, session, facts.place)
        if number == 0:
            facts.note("outcome", result)
            facts.note("opened", session.opened)
            facts.note("error()", session.error())
        about = facts.about(f"then {name}")
        _set_timeout(session)
        about.call("outcome", step, session, facts.place)
        about.note("opened", session.opened)
        about.note("error()", session.error())
        session.close()


def _set_timeout(session: Any) -> None:
    with contextlib.suppress(ValueError):  # After close(), with the existing binding.
        session.set_timeout(TIMEOUT)


def _happen(event: Success, session: Any, place: Place) -> str:
    try:
        event(session, place)
    except Exception:
        return "raises"
    return "returns"

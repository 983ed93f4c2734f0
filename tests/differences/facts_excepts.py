"""Facts about exceptions: which `except` clause catches each kind of failure."""

from __future__ import annotations

from typing import Any

from .facts import TIMEOUT, Facts, describe, remctl
from .failures import OPENED, OPENING, SIMPLE, TIMEOUTS, Failure

# Common orders of `except` clauses; the last one is always Exception.
ORDERS = {
    "NotOpened, Protocol, Error": ("RemctlNotOpenedError", "RemctlProtocolError", "RemctlError"),
    "Error first": ("RemctlError", "RemctlProtocolError"),
    "OSError, Error": ("OSError", "RemctlError"),
    "Error, OSError": ("RemctlError", "OSError"),
    "TimeoutError, Error": ("TimeoutError", "RemctlError"),
    "ConnectionError, Error": ("ConnectionError", "RemctlError"),
    "TypeError, ValueError, Error": ("TypeError", "ValueError", "RemctlError"),
}


def excepts(facts: Facts) -> None:
    """Print the clause that catches each failure, and the content of the exception."""
    for name, failure in {**OPENING, **OPENED, **TIMEOUTS, **SIMPLE}.items():
        about = facts.about(name)
        error = _error_of(failure, about)
        if error is None:
            about.note("raises", "nothing")
            continue
        about.note("raises", describe(error))
        for order, clauses in ORDERS.items():
            about.note(f"caught by ({order})", _clause(error, clauses))
        if isinstance(error, remctl.RemctlError):
            about.note("args", error.args)
            about.note("equals error() and str()", error.args == (str(error),))


def _error_of(failure: Failure, facts: Facts) -> Exception | None:
    session = remctl.Remctl()
    session.set_timeout(TIMEOUT)
    try:
        failure(session, facts.place)
    except Exception as error:
        return error
    return None


def _clause(error: Exception, clauses: tuple[str, ...]) -> str:
    """Return the first clause that catches an exception."""
    for name in clauses:
        kind: Any = getattr(remctl, name, None) or getattr(__import__("builtins"), name)
        if isinstance(error, kind):
            return name
    return type(error).__name__

"""Describe the outcome of a host in words."""

from __future__ import annotations

import re

import remctl
from _remctl_text import printable
from remctl_toolkit.cli.cures import explained
from remctl_toolkit.fleet import GivenUpError, NotStartedError, Outcome

__all__ = [
    "advice",
    "detail",
    "fate",
    "headline",
    "hint",
    "is_interrupted",
    "kind",
    "output",
]


_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (NotStartedError, "not begun"),
    (GivenUpError, "interrupted"),
    (remctl.RemctlConnectError, "no connection"),
    (remctl.RemctlAuthenticationError, "not authenticated"),
    (remctl.RemctlTimeoutError, "timed out"),
    (remctl.RemctlDisconnectedError, "connection lost"),
    (remctl.RemctlServerError, "refused"),
    (remctl.RemctlAnswerError, "bad answer"),
)

# The uninformative beginning of GSS-API's messages.
_GSS_PREAMBLE = re.compile(
    r"^GSS-API error [a-z ]+: "
    r"(Unspecified GSS failure\.\s+Minor code may provide more information, )?"
)


def kind(outcome: Outcome) -> str:
    """Return a short name for the failure; "" if the host succeeded."""
    if outcome.ok:
        return ""
    if outcome.result is not None:
        return f"exit status {outcome.result.status}"
    for error, words in _KINDS:
        if isinstance(outcome.error, error):
            return words
    return type(outcome.error).__name__


def is_interrupted(outcome: Outcome) -> bool:
    """Return whether the run ended before this host was started or had finished."""
    return isinstance(outcome.error, GivenUpError | NotStartedError)


def fate(outcome: Outcome) -> str:
    """Return what is known about the command, or "" where `kind()` implies it."""
    error = outcome.error
    if error is None:
        return ""
    if outcome.may_have_run:
        late = isinstance(error, remctl.RemctlTimeoutError | GivenUpError)
        return "may still be running" if late else "may have run"
    lost = (remctl.RemctlTimeoutError, remctl.RemctlDisconnectedError, GivenUpError)
    return "not sent" if isinstance(error, lost) else ""


def headline(outcome: Outcome) -> str:
    """Return `kind()` and `fate()`; only hosts with the same headline share a row."""
    return ", ".join(filter(None, (kind(outcome), fate(outcome))))


def advice(outcome: Outcome) -> str:
    """Return what to do about a failure, or "" if not known."""
    return "".join(explained("", outcome.error))


def output(outcome: Outcome) -> remctl.RemctlSimpleResult:
    """Return the output of a host, including that before a failure."""
    partial = getattr(outcome.error, "partial", None)
    return outcome.result or partial or remctl.RemctlSimpleResult()


def detail(outcome: Outcome) -> str:
    """Return the reason of a failure without `kind()` and the host, so that hosts can share it."""
    if outcome.result is not None:
        return "" if outcome.ok else outcome.result.last_line
    text, name = outcome.reason, outcome.host.name
    if isinstance(outcome.error, remctl.RemctlConnectError | remctl.RemctlTimeoutError):
        text = text.replace(f" to {name} ", " ", 1)
        text = text.replace(f"unknown host {name}:", "unknown host:", 1)
    if isinstance(outcome.error, remctl.RemctlAuthenticationError):
        text = _GSS_PREAMBLE.sub("", text).replace(f" host/{name}@", " host/HOST@", 1)
    return printable(text.removeprefix("not started: "))


def hint(outcome: Outcome) -> str:
    """Return what to do about a failure to authenticate, in one line; otherwise ""."""
    if not isinstance(outcome.error, remctl.RemctlAuthenticationError):
        return ""
    return printable(advice(outcome).replace(f"host/{outcome.host.name}", "host/HOST"))

"""What happened on a host, in words."""

from __future__ import annotations

import re

import remctl
from _remctl_text import printable
from remctl_toolkit.cli.cures import explained
from remctl_toolkit.fleet import GivenUpError, NotStartedError, Outcome

__all__ = [
    "advice",
    "cure",
    "detail",
    "fate",
    "headline",
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

# What GSS-API says before it says anything.
_GSS_PREAMBLE = re.compile(
    r"^GSS-API error [a-z ]+: "
    r"(Unspecified GSS failure\.\s+Minor code may provide more information, )?"
)


def kind(outcome: Outcome) -> str:
    """Return in a few words how a host failed; "" if it did not."""
    if outcome.ok:
        return ""
    if outcome.result is not None:
        return f"exit status {outcome.result.status}"
    for error, words in _KINDS:
        if isinstance(outcome.error, error):
            return words
    return type(outcome.error).__name__


def is_interrupted(outcome: Outcome) -> bool:
    """Tell whether a host had not finished, or not begun, when the run ended early."""
    return isinstance(outcome.error, GivenUpError | NotStartedError)


def fate(outcome: Outcome) -> str:
    """Return what became of the command, where `kind()` alone leaves that open; "" elsewhere."""
    error = outcome.error
    if error is None:
        return ""
    if outcome.may_have_run:
        late = isinstance(error, remctl.RemctlTimeoutError | GivenUpError)
        return "may still be running" if late else "may have run"
    lost = (remctl.RemctlTimeoutError, remctl.RemctlDisconnectedError, GivenUpError)
    return "not sent" if isinstance(error, lost) else ""


def headline(outcome: Outcome) -> str:
    """Return `kind()` and `fate()`: hosts with different ones are not shown together."""
    return ", ".join(filter(None, (kind(outcome), fate(outcome))))


def advice(outcome: Outcome) -> str:
    """Return what to do about a failure, in the words of a command line; "" if not known."""
    return "".join(explained("", outcome.error))


def output(outcome: Outcome) -> remctl.RemctlSimpleResult:
    """Return the output of a host, also of one that failed in the middle."""
    partial = getattr(outcome.error, "partial", None)
    return outcome.result or partial or remctl.RemctlSimpleResult()


def detail(outcome: Outcome) -> str:
    """Return why, without what `kind()` says and without the host, so that reasons can be equal."""
    if outcome.result is not None:
        return "" if outcome.ok else outcome.result.last_line
    text, name = outcome.reason, outcome.host.name
    if isinstance(outcome.error, remctl.RemctlConnectError | remctl.RemctlTimeoutError):
        text = text.replace(f" to {name} ", " ", 1)
        text = text.replace(f"unknown host {name}:", "unknown host:", 1)
    if isinstance(outcome.error, remctl.RemctlAuthenticationError):
        text = _GSS_PREAMBLE.sub("", text).replace(f" host/{name}@", " host/HOST@", 1)
    return printable(text.removeprefix("not started: "))


def cure(outcome: Outcome) -> str:
    """Return what to do about it, in a line; "" if that is not known, or in the reason already."""
    if not isinstance(outcome.error, remctl.RemctlAuthenticationError):
        return ""
    return printable(advice(outcome).replace(f"host/{outcome.host.name}", "host/HOST"))

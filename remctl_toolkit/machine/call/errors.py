"""What can go wrong with a call."""

from __future__ import annotations

from typing import Any, TypeVar

from ..base.errors import MachineError

_E = TypeVar("_E", bound=MachineError)


def at(host: str, error: _E) -> _E:
    """Return an error with the host that it is about."""
    error.host = host
    return error


class RemoteCallError(MachineError):
    """The function raised an exception over there, or could not be imported there.

    The far side's traceback is in a note: it is shown below the text when this one is not caught.

    Attributes:
        type_name: the exception's type, as "ValueError" or "package.module.Name".
        type_names: that and the types it derives from, as names: ``"OSError" in e.type_names``.
        message: its text.
        remote_args: its arguments, if they are plain data; None if not.
        remote_traceback: the traceback from over there, as text.
    """

    type_name: str = ""
    type_names: tuple[str, ...] = ()
    message: str = ""
    remote_args: tuple[Any, ...] | None = None
    remote_traceback: str = ""


class SendError(MachineError, TypeError):
    """Something of a call cannot be sent; nothing was."""


class ResultError(MachineError):
    """The function ran, but what it returned is not plain data, or too much of it."""


class CallTimeoutError(MachineError, TimeoutError):
    """A call took longer than it was given; it was told to end over there."""


class InterpreterEndedError(MachineError):
    """The interpreter over there has ended, or the way to it; what it kept is lost.

    Attributes:
        status: its exit status, -N if signal N ended it; None if that is not known.
    """

    status: int | None = None

"""Exceptions of calls."""

from __future__ import annotations

from typing import Any, TypeVar

from ..base.errors import MachineError

_E = TypeVar("_E", bound=MachineError)


def at(host: str, error: _E) -> _E:
    """Return an error with its `host` set."""
    error.host = host
    return error


class RemoteCallError(MachineError):
    """The function raised an exception on the remote host, or could not be imported there.

    The remote traceback is in a note: it is shown below the text if this exception is not caught.

    Attributes:
        type_name: the exception's type, as "ValueError" or "package.module.Name".
        type_names: the names of that type and its base classes: ``"OSError" in e.type_names``.
        message: its text.
        remote_args: its arguments, if they are plain data; None if not.
        remote_traceback: the remote traceback, as text.
    """

    type_name: str = ""
    type_names: tuple[str, ...] = ()
    message: str = ""
    remote_args: tuple[Any, ...] | None = None
    remote_traceback: str = ""


class SendError(MachineError, TypeError):
    """A function or an argument cannot be sent; nothing was sent."""


class ResultError(MachineError):
    """The function ran, but its result is not plain data, or too large."""


class CallTimeoutError(MachineError, TimeoutError):
    """A call exceeded its timeout; it was cancelled on the remote host."""


class InterpreterEndedError(MachineError):
    """The remote interpreter, or the connection to it, has ended; its state is lost.

    Attributes:
        status: its exit status, -N if signal N ended it; None if unknown.
    """

    status: int | None = None

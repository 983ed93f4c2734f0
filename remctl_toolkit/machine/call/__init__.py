"""Python functions that run on the far side."""

from .interpreter import (
    CallTimeoutError,
    Interpreter,
    InterpreterEndedError,
    RemoteCallError,
    RemoteFunction,
    RemoteIterator,
    RemoteModule,
    ResultError,
    SendError,
)

__all__ = [
    "CallTimeoutError",
    "Interpreter",
    "InterpreterEndedError",
    "RemoteCallError",
    "RemoteFunction",
    "RemoteIterator",
    "RemoteModule",
    "ResultError",
    "SendError",
]

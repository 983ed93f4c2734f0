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
]

"""Python functions that run on the remote host."""

from .errors import (
    CallTimeoutError,
    InterpreterEndedError,
    RemoteCallError,
    ResultError,
    SendError,
)
from .functions import RemoteFunction, RemoteModule
from .interpreter import Interpreter, RemoteIterator

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

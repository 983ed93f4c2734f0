"""Types of remctl.py: a module that is a single file cannot carry them itself."""

import os
from collections.abc import Generator, Iterable
from enum import IntEnum
from types import TracebackType
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
    type_check_only,
)

__all__ = [
    "LEGACY_PORT",
    "PORT",
    "VERSION",
    "Remctl",
    "RemctlAnswerError",
    "RemctlAuthenticationError",
    "RemctlBusyError",
    "RemctlConnectError",
    "RemctlCredentials",
    "RemctlDisconnectedError",
    "RemctlError",
    "RemctlErrorCode",
    "RemctlNotOpenedError",
    "RemctlOutput",
    "RemctlProtocolError",
    "RemctlServerError",
    "RemctlSimpleResult",
    "RemctlStatusError",
    "RemctlStream",
    "RemctlTimeoutError",
    "remctl",
]

# One part of a command. At run time anything that str() converts will do, except None. Here it is
# what commands are made of in practice: if it were `object`, a checker could not find the None that
# slipped in. Wrap anything else in str().
_Argument: TypeAlias = (
    str | bytes | bytearray | memoryview | os.PathLike[str] | os.PathLike[bytes] | int | float
)

# What a command gets on its standard input.
_Input: TypeAlias = str | bytes | bytearray | memoryview

@type_check_only
class _BinaryFile(Protocol):
    def write(self, octets: bytes, /) -> int | None: ...

__version__: Final[str]
VERSION: Final[str]
PORT: Final[int]
LEGACY_PORT: Final[int]

class RemctlError(Exception):
    host: str | None
    port: int | None
    partial: RemctlSimpleResult | None
    @property
    def value(self) -> str: ...

class RemctlNotOpenedError(RemctlError): ...
class RemctlBusyError(RemctlError): ...

class RemctlStatusError(RemctlError):
    result: RemctlSimpleResult
    def __init__(self, value: str, *, result: RemctlSimpleResult | None = None) -> None: ...

class RemctlProtocolError(RemctlError):
    errno: int | None

class RemctlConnectError(RemctlProtocolError): ...
class RemctlAuthenticationError(RemctlProtocolError): ...
class RemctlTimeoutError(RemctlProtocolError, TimeoutError): ...
class RemctlDisconnectedError(RemctlProtocolError): ...

class RemctlServerError(RemctlProtocolError):
    code: RemctlErrorCode | int

class RemctlAnswerError(RemctlProtocolError): ...

class RemctlStream(IntEnum):
    STDOUT = 1
    STDERR = 2

class RemctlErrorCode(IntEnum):
    INTERNAL = 1
    BAD_TOKEN = 2
    UNKNOWN_MESSAGE = 3
    BAD_COMMAND = 4
    UNKNOWN_COMMAND = 5
    ACCESS = 6
    TOOMANY_ARGS = 7
    TOOMUCH_DATA = 8
    UNEXPECTED_MESSAGE = 9
    NO_HELP = 10

class RemctlOutput(NamedTuple):
    type: Literal["output", "status", "error", "done"]
    output: bytes | None
    stream: RemctlStream | None
    status: int | None
    error: RemctlErrorCode | int | None

class RemctlSimpleResult:
    stdout: bytes | None
    stderr: bytes | None
    status: int | None
    def __init__(
        self, stdout: bytes | None = None, stderr: bytes | None = None, status: int | None = None
    ) -> None: ...
    def check(self) -> RemctlSimpleResult: ...
    def stdout_text(self, encoding: str = "utf-8", errors: str = "strict") -> str: ...
    def stderr_text(self, encoding: str = "utf-8", errors: str = "strict") -> str: ...
    def __eq__(self, other: object) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]

class RemctlCredentials(Protocol):
    def ccache(self) -> str: ...

# For remctl_toolkit alone.
class _Command:
    arguments: list[bytes | bytearray | memoryview]
    def __init__(self, command: Iterable[_Argument], input: _Input | None = None) -> None: ...

class _Collector:
    write: tuple[Any, ...]
    def __init__(self, stdout: _BinaryFile | None, stderr: _BinaryFile | None) -> None: ...
    def result(self, status: int | None = None) -> RemctlSimpleResult: ...

class Remctl:
    def __init__(
        self,
        host: str | None = None,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        timeout: float | None = None,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        credentials: RemctlCredentials | None = None,
    ) -> None: ...
    def set_ccache(self, ccache: str | os.PathLike[str]) -> None: ...
    def set_source_ip(self, source: str) -> None: ...
    def set_timeout(self, timeout: float) -> None: ...
    def open(
        self, host: str, port: int | str | None = None, principal: str | None = None
    ) -> None: ...
    def close(self) -> None: ...
    def command(self, command: Iterable[_Argument], *, input: _Input | None = None) -> None: ...
    def _start(self, command: _Command) -> None: ...
    def output(self) -> RemctlOutput: ...
    def missing(self) -> int: ...
    def tokens(self) -> Generator[RemctlOutput]: ...
    def stream(
        self, command: Iterable[_Argument], *, input: _Input | None = None
    ) -> Generator[RemctlOutput]: ...
    def run(
        self,
        command: Iterable[_Argument],
        *,
        input: _Input | None = None,
        stdout: _BinaryFile | None = None,
        stderr: _BinaryFile | None = None,
    ) -> RemctlSimpleResult: ...
    def noop(self) -> bool: ...
    @property
    def opened(self) -> bool: ...
    def error(self) -> str: ...
    def fileno(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __del__(self) -> None: ...

def remctl(
    host: str,
    port: int | str | None = None,
    principal: str | None = None,
    command: Iterable[_Argument] = (),
    *,
    input: _Input | None = None,
    stdout: _BinaryFile | None = None,
    stderr: _BinaryFile | None = None,
    timeout: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: RemctlCredentials | None = None,
) -> RemctlSimpleResult: ...

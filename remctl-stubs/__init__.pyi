"""Types of remctl.py: a module that is a single file cannot carry them itself."""

import os
from abc import abstractmethod
from collections.abc import Iterable
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
    overload,
    runtime_checkable,
    type_check_only,
)

__all__ = [
    "DEVNULL",
    "LEGACY_PORT",
    "PORT",
    "STDOUT",
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
    "RemctlToken",
    "RemctlTokens",
    "remctl",
]

# One part of a command. At run time anything that str() converts will do, except None. Here it is
# what commands are made of in practice: if it were `object`, a checker could not find the None that
# slipped in. Wrap anything else in str().
_Argument: TypeAlias = (
    str | bytes | bytearray | memoryview | os.PathLike[str] | os.PathLike[bytes] | int | float
)

@type_check_only
class _BinaryReader(Protocol):
    def read(self, size: int, /) -> bytes | None: ...

@type_check_only
class _BinaryWriter(Protocol):
    def write(self, octets: bytes, /) -> int | None: ...

# Standard input of a command: the data, or a binary file that has the data.
_Input: TypeAlias = str | bytes | bytearray | memoryview | _BinaryReader

# Where output goes: a binary file, or DEVNULL or STDOUT of the subprocess module (to type checkers,
# an int).
_OutputFile: TypeAlias = _BinaryWriter | int

__version__: Final[str]
VERSION: Final[str]
PORT: Final[int]
DEVNULL: Final[int]
STDOUT: Final[int]
LEGACY_PORT: Final[int]

class RemctlError(Exception):
    host: str | None
    port: int | None
    partial: RemctlSimpleResult | None
    may_have_run: bool
    advice: str
    @property
    def value(self) -> str: ...

class RemctlNotOpenedError(RemctlError): ...
class RemctlBusyError(RemctlError): ...

class RemctlStatusError(RemctlError):
    result: RemctlSimpleResult
    def __init__(self, value: str, *, result: RemctlSimpleResult | None = None) -> None: ...
    @property
    def last_line(self) -> str: ...

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

@type_check_only
class _TokenFields(NamedTuple):
    type: Literal["output", "status", "error", "done"]
    output: bytes | None
    stream: RemctlStream | None
    status: int | None
    error: RemctlErrorCode | int | None

# At run time every token is a RemctlOutput. Type checkers see one class for each type of token, so
# that they know which fields are set once `token.type` is known.
class RemctlOutput(_TokenFields):
    @overload
    def __new__(
        _cls,
        type: Literal["output"],
        output: bytes,
        stream: RemctlStream,
        status: None,
        error: None,
    ) -> _OutputToken: ...
    @overload
    def __new__(
        _cls, type: Literal["status"], output: None, stream: None, status: int, error: None
    ) -> _StatusToken: ...
    @overload
    def __new__(
        _cls,
        type: Literal["error"],
        output: bytes,
        stream: None,
        status: None,
        error: RemctlErrorCode | int,
    ) -> _ErrorToken: ...
    @overload
    def __new__(
        _cls, type: Literal["done"], output: None, stream: None, status: None, error: None
    ) -> _DoneToken: ...

@type_check_only
class _OutputToken(RemctlOutput):
    @property
    def type(self) -> Literal["output"]: ...
    @property
    def output(self) -> bytes: ...
    @property
    def stream(self) -> RemctlStream: ...
    @property
    def status(self) -> None: ...
    @property
    def error(self) -> None: ...

@type_check_only
class _StatusToken(RemctlOutput):
    @property
    def type(self) -> Literal["status"]: ...
    @property
    def output(self) -> None: ...
    @property
    def stream(self) -> None: ...
    @property
    def status(self) -> int: ...
    @property
    def error(self) -> None: ...

@type_check_only
class _ErrorToken(RemctlOutput):
    @property
    def type(self) -> Literal["error"]: ...
    @property
    def output(self) -> bytes: ...
    @property
    def stream(self) -> None: ...
    @property
    def status(self) -> None: ...
    @property
    def error(self) -> RemctlErrorCode | int: ...

@type_check_only
class _DoneToken(RemctlOutput):
    @property
    def type(self) -> Literal["done"]: ...
    @property
    def output(self) -> None: ...
    @property
    def stream(self) -> None: ...
    @property
    def status(self) -> None: ...
    @property
    def error(self) -> None: ...

# The tokens of Remctl.output(). At run time this is RemctlOutput.
RemctlToken: TypeAlias = _OutputToken | _StatusToken | _ErrorToken | _DoneToken

# The tokens of Remctl.stream() and tokens(), which raise an exception instead of an "error" token
# and end instead of a "done" token.
_StreamToken: TypeAlias = _OutputToken | _StatusToken

class RemctlTokens:
    def __new__(cls, connection: Remctl, handle: Any, until: float = 0.0) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> _StreamToken: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class RemctlSimpleResult:
    stdout: bytes | None
    stderr: bytes | None
    status: int | None
    def __init__(
        self, stdout: bytes | None = None, stderr: bytes | None = None, status: int | None = None
    ) -> None: ...
    @property
    def ok(self) -> bool: ...
    @property
    def last_line(self) -> str: ...
    def check(self) -> RemctlSimpleResult: ...
    def stdout_text(self, encoding: str = "utf-8", errors: str = "strict") -> str: ...
    def stderr_text(self, encoding: str = "utf-8", errors: str = "strict") -> str: ...
    def __eq__(self, other: object) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]

# At run time this is an abstract base class as in collections.abc, because importing typing takes
# time. isinstance(), subclassing and creating an instance behave as with this Protocol.
@runtime_checkable
class RemctlCredentials(Protocol):
    @abstractmethod
    def ccache(self) -> str: ...

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
        keepalive: float | None = None,
        connect: bool = True,
    ) -> None: ...
    def set_ccache(self, ccache: str | os.PathLike[str]) -> None: ...
    def set_source_ip(self, source: str) -> None: ...
    def set_timeout(self, timeout: float) -> None: ...
    def open(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        deadline: float | None = None,
    ) -> None: ...
    def close(self) -> None: ...
    # For remctl_toolkit alone.
    _session: Any
    def command(self, comm: Iterable[_Argument], *, input: _Input | None = None) -> None: ...
    def output(self) -> RemctlToken: ...
    def missing(self) -> int: ...
    def tokens(self) -> RemctlTokens: ...
    def stream(
        self,
        command: Iterable[_Argument],
        *,
        input: _Input | None = None,
        deadline: float | None = None,
    ) -> RemctlTokens: ...
    def run(
        self,
        command: Iterable[_Argument],
        *,
        input: _Input | None = None,
        stdout: _OutputFile | None = None,
        stderr: _OutputFile | None = None,
        deadline: float | None = None,
    ) -> RemctlSimpleResult: ...
    def noop(self, *, deadline: float | None = None) -> bool: ...
    @property
    def opened(self) -> bool: ...
    @opened.setter
    def opened(self, opened: bool) -> None: ...
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
    stdout: _OutputFile | None = None,
    stderr: _OutputFile | None = None,
    timeout: float | None = None,
    deadline: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: RemctlCredentials | None = None,
) -> RemctlSimpleResult: ...

"""Check the arguments of ``remctl``: hosts, commands, and targets of output."""

from __future__ import annotations

import errno
import io
import itertools
import os
import time

import _remctl

from _remctl_text import printable
from _remctl_types import RemctlCredentials, RemctlSimpleResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    class Writable(Protocol):
        """The part of a binary file that is needed for writing."""

        def write(self, octets: bytes, /) -> object: ...

    class Readable(Protocol):
        """The part of a binary file that is needed for reading."""

        def read(self, size: int, /) -> bytes | None: ...

    Octets = bytes | bytearray | memoryview
    Target = tuple[str, int, str | None]

# Limits of remctld (server/internal.h: COMMAND_MAX_ARGS, COMMAND_MAX_DATA).  A larger command does
# not just fail: it leaves the session out of step for good.
_MAX_ARGUMENTS = 4096
_MAX_COMMAND_OCTETS = 100 * 1024 * 1024 - 1

_READ_SIZE = 1024 * 1024

# For isinstance(): a union would be created again in each call.
_OCTETS = (bytes, bytearray, memoryview)
_NO_COMMANDS = (*_OCTETS, bool, int, float)

# As in subprocess.
STDOUT = -2
DEVNULL = -3


# -- Checking arguments ---------------------------------------------------------------------------


def check_host(host: str) -> str:
    """Return a host name in the form for DNS and Kerberos: ASCII, with IDNA if it needs that.

    Raises:
        TypeError, ValueError: it is not a host name.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be a str: {host!r}")
    if not host or "\0" in host:
        raise ValueError(f"invalid host name: {host!r}")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"invalid host name: {host!r}") from None


def check_port(port: int | str | None) -> int:
    """Return a port number; 0 for None.

    Raises:
        TypeError, ValueError: it is not a port number.
    """
    if port is None:
        return 0
    try:
        number = int(port)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"port must be a number: {port!r}") from None
    if isinstance(port, float) and port != number:
        raise TypeError(f"port must be a whole number: {port!r}")
    if not 0 <= number <= 65535:
        raise ValueError(f"invalid port number: {number}")
    return number


def check_principal(principal: str | None) -> str | None:
    """Return the principal.

    Raises:
        TypeError, ValueError: it cannot be a principal.
    """
    if principal is None:
        return None
    if not isinstance(principal, str):
        raise TypeError(f"principal must be a str: {principal!r}")
    try:
        octets = principal.encode()
    except UnicodeEncodeError:
        octets = b""
    if not octets or 0 in octets:
        raise ValueError(f"invalid principal: {principal!r}")
    return principal


def check_ccache(ccache: str | os.PathLike[str]) -> str:
    """Return the name of a credential cache.

    Raises:
        TypeError, ValueError: it cannot be such a name.
    """
    name = os.fspath(ccache)
    if not isinstance(name, str):
        raise TypeError(f"ccache must be a str or a path: {ccache!r}")
    try:
        octets = os.fsencode(name)
    except UnicodeEncodeError:
        octets = b""
    if not octets or 0 in octets:
        raise ValueError(f"invalid credential cache: {ccache!r}")
    return name


def check_source_ip(source: str) -> str:
    """Return an IP address to connect from; a link-local one may have a scope, as in fe80::1%eth0.

    Raises:
        TypeError, ValueError: it is not an IP address.
    """
    if not isinstance(source, str):
        raise TypeError(f"source address must be a str: {source!r}")
    if _is_numeric(source):
        return source
    address, percent, _ = source.partition("%")
    if percent and ":" in address and _is_numeric(address):
        raise ValueError(f"source address has an unknown scope: {source!r}")
    raise ValueError(f"source address must be an IP address, not a host name: {source!r}")


def _is_numeric(address: str) -> bool:
    try:
        return bool(_remctl.remctl_set_source_ip(_remctl.remctl_new(), address) and address)
    except ValueError:
        return False


def check_credentials(
    credentials: RemctlCredentials | None, ccache: object
) -> RemctlCredentials | None:
    """Return the credentials.

    Raises:
        TypeError: they have no method `ccache()`.
        ValueError: there is a credential cache, too.
    """
    if credentials is not None:
        if not callable(getattr(credentials, "ccache", None)):
            raise TypeError(f"credentials must have ccache(): {type(credentials).__name__} has not")
        if ccache is not None:
            raise ValueError("credentials and ccache cannot be combined")
    return credentials


def check_seconds(seconds: float, name: str = "timeout") -> float:
    """Return a number of seconds, 0 or more.

    Raises:
        TypeError, ValueError: it is not such a number.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} must be a number of seconds: {seconds!r}")
    if not seconds >= 0:
        raise ValueError(f"invalid {name} {seconds!r}")
    try:
        return float(seconds)
    except OverflowError:
        raise ValueError(f"invalid {name}: the number of seconds is too large") from None


def check_keepalive(seconds: float | None) -> int:
    """Return the whole seconds between TCP's probes; 0 for None.

    Raises:
        TypeError, ValueError: the number is invalid.
    """
    if seconds is None:
        return 0
    if not 1 <= check_seconds(seconds, "keepalive") <= 32767:
        raise ValueError(f"keepalive must be 1 to 32767 seconds: {seconds!r}")
    return round(seconds)


def deadline_in(seconds: float | None) -> float:
    """Return the time on the monotonic clock that is some seconds away; 0 for None.

    Raises:
        TypeError, ValueError: it is not a number of seconds.
    """
    if seconds is None:
        return 0.0
    return time.monotonic() + min(check_seconds(seconds, "deadline"), 1e9)


def check_target(host: str, port: int | str | None, principal: str | None) -> Target:
    """Check a host, a port and a principal, and return them.

    Raises:
        TypeError, ValueError: one of them is invalid.
    """
    return check_host(host), check_port(port), check_principal(principal)


def check_named_port(port: Any) -> Any:
    """Return the second argument of `remctl.remctl()`, the port.

    Raises:
        TypeError: it is a command.
    """
    if isinstance(port, list | tuple) and port:
        raise TypeError(
            "command= is missing: the second argument is the port, so name the command:"
            " remctl(host, command=[...])"
        )
    return port


# -- Commands and their output --------------------------------------------------------------------


def _octets(item: Any) -> Octets:
    """Encode a part of a command: text as UTF-8, file names as their own bytes."""
    if type(item) is not str:
        if isinstance(item, memoryview):
            return item.cast("B") if item.c_contiguous and item.nbytes else item.tobytes()
        if isinstance(item, _OCTETS):
            return item
        if item is None:
            raise TypeError("command must not contain None: leave the argument out, or use ''")
        if isinstance(item, os.PathLike):
            item = os.fspath(item)
            if isinstance(item, bytes):
                return item
        if not isinstance(item, str):
            item = str(item)
    try:
        # str.encode() ignores a subclass's own __str__(), such as that of an enum.
        return str.encode(item, "utf-8", "surrogateescape")
    except UnicodeEncodeError:  # Its text has the argument, which may be secret.
        raise ValueError("command contains a surrogate, which is not a character") from None


def is_file(input: Octets | str | Readable | None) -> bool:
    """Return whether the input of a command is a file, so that reading it may block."""
    return hasattr(input, "read")


def read_input(input: Any) -> Octets:
    """Return the input of a command as octets; read a file no further than a server accepts.

    Raises:
        TypeError, ValueError: it is of the wrong type, or too long.
    """
    if isinstance(input, (*_OCTETS, str)):
        return _octets(input)
    if isinstance(input, io.TextIOBase):
        raise TypeError("input must be a binary file: open it with mode 'rb'")
    if not is_file(input):
        kind = type(input).__name__
        raise TypeError(f"input must be bytes, str or a binary file, not {kind}")
    octets = bytearray()
    while piece := input.read(_READ_SIZE):
        if not isinstance(piece, _OCTETS):
            kind = type(piece).__name__
            raise TypeError(f"input must be a binary file: its read() returned {kind}")
        octets += piece
        if len(octets) > _MAX_COMMAND_OCTETS:
            raise ValueError("input is too long: a server takes less than 100 MiB")
    return octets


class Command:
    """A command, encoded and checked against the limits of the protocol and of remctld.

    Attributes:
        arguments: the octets of its parts.

    Raises:
        TypeError, ValueError: a server would not accept it.
    """

    # Keep this short: after a wait for the previous command the processor's caches are cold, and
    # every line costs ten times what it costs in a loop.

    __slots__ = ("_shown", "arguments")

    def __init__(
        self, command: Iterable[Any], input: Octets | str | Readable | None = None
    ) -> None:
        if isinstance(command, str):
            raise TypeError("command must be a sequence or iterator of arguments, not a str")
        if isinstance(command, _NO_COMMANDS):
            raise TypeError("command must be a sequence or iterator")
        try:
            # The iterator may be endless: one item more than allowed is enough.
            items = itertools.islice(command, _MAX_ARGUMENTS + 1)
        except TypeError:
            raise TypeError("command must be a sequence or iterator") from None
        self.arguments = arguments = [_octets(item) for item in items]
        self._shown = len(arguments)
        if not arguments:
            raise ValueError("command must not be empty")
        if input is not None:
            arguments.append(read_input(input))
        self._check()

    def append_input(self, octets: Octets) -> None:
        """Add the input, once it was read."""
        self.arguments.append(octets)
        self._check()

    def _check(self) -> None:
        arguments = self.arguments
        count = len(arguments)
        if count > _MAX_ARGUMENTS:
            raise ValueError(
                f"command has more than {_MAX_ARGUMENTS} arguments: a server accepts no more"
            )
        octets = 4 + 4 * count + sum(map(len, arguments))
        if octets > _MAX_COMMAND_OCTETS:
            raise ValueError(
                f"command has {octets} octets; a server takes less than 100 MiB: send it in pieces"
            )
        if 0 in arguments[0]:
            raise ValueError("the command must not contain a NUL octet")
        if count > 1 and 0 in arguments[1]:
            raise ValueError("the subcommand must not contain a NUL octet")

    def __str__(self) -> str:
        """Return the command and subcommand, for logs; the arguments may be secret."""
        shown = self.arguments[: min(self._shown, 2)]
        return " ".join(printable(bytes(part[:80])) for part in shown)


def _write_all(file: Any, octets: bytes) -> None:
    """Write everything: one write() to an unbuffered file may write less."""
    while octets:
        written: Any = file.write(octets)
        if not isinstance(written, int) and not isinstance(file, io.RawIOBase):
            return  # Its write() does not return a count.
        if not written:
            raise BlockingIOError(errno.EAGAIN, "file does not accept the output")
        octets = octets[written:]


class _Discard:
    """A target that discards output."""

    def write(self, octets: bytes) -> None:
        """Discard the octets."""

    def getvalue(self) -> bytes:
        """Return b"": nothing is kept."""
        return b""


class _File(_Discard):
    """A file of the caller's; if it is buffered, only `flush()` writes to it."""

    def __init__(self, file: Any, *, buffered: bool) -> None:
        self._file = file
        self._buffered = buffered
        self._buffer: list[bytes] = []

    def write(self, octets: bytes) -> None:
        if self._buffered:
            self._buffer.append(octets)
        else:
            _write_all(self._file, octets)

    def is_unwritten(self) -> bool:
        """Return whether there is output to flush."""
        return bool(self._buffer)

    def flush(self) -> None:
        """Write the buffered output to the file."""
        octets = b"".join(self._buffer)
        self._buffer.clear()
        _write_all(self._file, octets)


def _sink(target: Any, name: str, *, buffered: bool) -> Any:
    """Return the object that receives the output of a stream."""
    if target is None:
        return io.BytesIO()
    if isinstance(target, io.TextIOBase):
        raise TypeError(f"{name} must be a binary file: open it with mode 'wb'")
    if isinstance(target, int) and target == DEVNULL:
        return _Discard()
    if not hasattr(target, "write"):
        raise TypeError(f"{name} must be a binary file, not {type(target).__name__}")
    return _File(target, buffered=buffered)


class Collector:
    """Collects a command's output into a result.

    Args:
        stdout, stderr: binary files, `DEVNULL`, for stderr `STDOUT`, or None to keep the output.
        buffered: whether files are written to by `flush()` only.

    Attributes:
        write: for each stream, the function that receives its octets.
        files: the files that have to be flushed.

    Raises:
        TypeError: a target of output is of the wrong type.
    """

    def __init__(
        self,
        stdout: Writable | int | None,
        stderr: Writable | int | None,
        *,
        buffered: bool = False,
    ) -> None:
        self._stdout = out = _sink(stdout, "stdout", buffered=buffered)
        merged = isinstance(stderr, int) and stderr == STDOUT
        self._stderr = err = _sink(None if merged else stderr, "stderr", buffered=buffered)
        self.write: tuple[Any, ...] = (None, out.write, out.write if merged else err.write)
        self.files = [sink for sink in (out, err) if isinstance(sink, _File)] if buffered else ()

    def result(self, status: int | None = None) -> RemctlSimpleResult:
        """Return the result so far."""
        out, err = self._stdout.getvalue(), self._stderr.getvalue()
        return RemctlSimpleResult(out or None, err or None, status)

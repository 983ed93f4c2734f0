"""The arguments of ``remctl``, checked: hosts, commands, and where output goes."""

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
        """A binary file to write to, as far as it is needed."""

        def write(self, octets: bytes, /) -> object: ...

    class Readable(Protocol):
        """A binary file to read from, as far as it is needed."""

        def read(self, size: int, /) -> bytes | None: ...

    Octets = bytes | bytearray | memoryview
    Target = tuple[str, int, str | None]

# What remctld takes (server/internal.h: COMMAND_MAX_ARGS, COMMAND_MAX_DATA).  More than that does
# not just fail: it leaves the session out of step for good.
_MAX_ARGUMENTS = 4096
_MAX_COMMAND_OCTETS = 100 * 1024 * 1024 - 1

_READ_SIZE = 1024 * 1024

# As isinstance() takes them: a union would be made anew in each call.
_OCTETS = (bytes, bytearray, memoryview)
_NO_COMMANDS = (*_OCTETS, bool, int, float)

# As in subprocess.
STDOUT = -2
DEVNULL = -3


# -- Checking arguments ---------------------------------------------------------------------------


def check_host(host: str) -> str:
    """Return a host name as DNS and Kerberos take it: an international one in its ASCII form.

    Raises:
        TypeError, ValueError: it is not one.
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
        TypeError, ValueError: it is not one.
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
        TypeError, ValueError: it cannot be one.
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
        TypeError, ValueError: it cannot be one.
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
        TypeError, ValueError: it is not one.
    """
    if not isinstance(source, str):
        raise TypeError(f"source address must be a str: {source!r}")
    if _is_numeric(source):
        return source
    address, percent, _ = source.partition("%")
    if percent and ":" in address and _is_numeric(address):
        raise ValueError(f"source address has a scope that is not known here: {source!r}")
    raise ValueError(f"source address must be an IP address, not a host name: {source!r}")


def _is_numeric(address: str) -> bool:
    try:
        return bool(_remctl.remctl_set_source_ip(_remctl.remctl_new(), address) and address)
    except ValueError:
        return False


def check_credentials(
    credentials: RemctlCredentials | None, ccache: object
) -> RemctlCredentials | None:
    """Return the credentials, in place of which there may be a ccache.

    Raises:
        TypeError, ValueError: they are no credentials, or there are both.
    """
    if credentials is not None:
        if not callable(getattr(credentials, "ccache", None)):
            raise TypeError(f"credentials must have ccache(): {type(credentials).__name__} has not")
        if ccache is not None:
            raise ValueError("credentials and ccache exclude each other")
    return credentials


def check_seconds(seconds: float, name: str = "timeout") -> float:
    """Return a number of seconds, 0 or more.

    Raises:
        TypeError, ValueError: it is not one.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} must be a number of seconds: {seconds!r}")
    if not seconds >= 0:
        raise ValueError(f"invalid {name} {seconds!r}")
    try:
        return float(seconds)
    except OverflowError:
        raise ValueError(f"invalid {name}: more seconds than can be counted") from None


def check_keepalive(seconds: float | None) -> int:
    """Return the whole seconds between TCP's probes; 0 for None.

    Raises:
        TypeError, ValueError: that cannot be.
    """
    if seconds is None:
        return 0
    if not 1 <= check_seconds(seconds, "keepalive") <= 32767:
        raise ValueError(f"keepalive must be 1 to 32767 seconds: {seconds!r}")
    return round(seconds)


def deadline_in(seconds: float | None) -> float:
    """Return the time on the monotonic clock that is so many seconds away; 0 for None.

    Raises:
        TypeError, ValueError: it is not a number of seconds.
    """
    if seconds is None:
        return 0.0
    return time.monotonic() + min(check_seconds(seconds, "deadline"), 1e9)


def check_target(host: str, port: int | str | None, principal: str | None) -> Target:
    """Return the three of them, checked.

    Raises:
        TypeError, ValueError: one of them cannot be right.
    """
    return check_host(host), check_port(port), check_principal(principal)


def check_named_port(port: Any) -> Any:
    """Return the second argument of `remctl.remctl()`, if it is not the command.

    Raises:
        TypeError: it is.
    """
    if isinstance(port, list | tuple) and port:
        raise TypeError(
            "command= is missing: the second argument is the port, so name the command:"
            " remctl(host, command=[...])"
        )
    return port


# -- Commands and their output --------------------------------------------------------------------


def _octets(item: Any) -> Octets:
    """Turn a part of a command into octets; text becomes UTF-8, file names survive."""
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
        # What a str holds, not what a subclass such as an enum shows.
        return str.encode(item, "utf-8", "surrogateescape")
    except UnicodeEncodeError:  # It would tell the argument, which may be secret.
        raise ValueError("command contains a surrogate, which is not a character") from None


def is_file(input: Octets | str | Readable | None) -> bool:
    """Whether the input of a command has to be read, which may take its time."""
    return hasattr(input, "read")


def read_input(input: Any) -> Octets:
    """Return the input of a command as octets; no more of a file than a server takes.

    Raises:
        TypeError, ValueError: it cannot be that.
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
    """A command as it is sent, within what the protocol and remctld allow.

    Attributes:
        arguments: the octets of its parts.

    Raises:
        TypeError, ValueError: a server would not take it.
    """

    # Little is done here: after a wait for the last command the processor's caches are cold, and
    # every line costs ten times what it costs in a loop.

    __slots__ = ("_shown", "arguments")

    def __init__(
        self, command: Iterable[Any], input: Octets | str | Readable | None = None
    ) -> None:
        if isinstance(command, str):
            raise TypeError("command must be a sequence or iterator of arguments: a str is not")
        if isinstance(command, _NO_COMMANDS):
            raise TypeError("command must be a sequence or iterator")
        try:
            # One more than allowed is enough to know: it may never end.
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
        """Add the input, which was read meanwhile."""
        self.arguments.append(octets)
        self._check()

    def _check(self) -> None:
        arguments = self.arguments
        count = len(arguments)
        if count > _MAX_ARGUMENTS:
            raise ValueError(
                f"command has more than {_MAX_ARGUMENTS} arguments: a server takes no more"
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
        """The command and subcommand, which may be logged; what follows may be secret."""
        shown = self.arguments[: min(self._shown, 2)]
        return " ".join(printable(bytes(part[:80])) for part in shown)


def _write_all(file: Any, octets: bytes) -> None:
    """Write all of it: an unbuffered file may take less at a time."""
    while octets:
        written: Any = file.write(octets)
        if not isinstance(written, int) and not isinstance(file, io.RawIOBase):
            return  # It is not one that says how much.
        if not written:
            raise BlockingIOError(errno.EAGAIN, "file does not take the output")
        octets = octets[written:]


class _Nowhere:
    """Drops what is written."""

    def write(self, octets: bytes) -> None:
        """Take the next octets."""

    def getvalue(self) -> bytes:
        """Return what was kept: nothing."""
        return b""


class _File(_Nowhere):
    """A file of the caller's, which is written to at once, or by `flush()` if it is buffered."""

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
        """Whether there is something to flush."""
        return bool(self._buffer)

    def flush(self) -> None:
        """Write to the file what was buffered for it."""
        octets = b"".join(self._buffer)
        self._buffer.clear()
        _write_all(self._file, octets)


def _sink(target: Any, name: str, *, buffered: bool) -> Any:
    """Return what takes the octets of a stream, and keeps them if that is wanted."""
    if target is None:
        return io.BytesIO()
    if isinstance(target, io.TextIOBase):
        raise TypeError(f"{name} must be a binary file: open it with mode 'wb'")
    if isinstance(target, int) and target == DEVNULL:
        return _Nowhere()
    if not hasattr(target, "write"):
        raise TypeError(f"{name} must be a binary file, not {type(target).__name__}")
    return _File(target, buffered=buffered)


class Collector:
    """Makes a result of a command's output.

    Args:
        stdout, stderr: binary files, `DEVNULL`, for stderr `STDOUT`, or None to keep the output.
        buffered: whether files are written to by `flush()` only.

    Attributes:
        write: by stream, a function that takes the next octets.
        files: those that have to be flushed.

    Raises:
        TypeError: one of them is something else.
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
        """Return what there is so far."""
        out, err = self._stdout.getvalue(), self._stderr.getvalue()
        return RemctlSimpleResult(out or None, err or None, status)

"""Run commands on other hosts with remctl: Kerberos-authenticated, encrypted, authorised by ACLs.

    >>> import remctl
    >>> result = remctl.remctl("server.example.org", command=("account", "show", "alice"))
    >>> print(result.check().stdout_text())

`remctl()` connects, runs one command and closes.  `Remctl` keeps the connection for as many
commands as you like, and shows their output as it arrives.  Both raise::

    RemctlError                         whatever goes wrong with remctl
     +-- RemctlNotOpenedError           there is no connection: none opened, or closed
     +-- RemctlBusyError                the connection is running another command
     +-- RemctlStatusError              result.check(): the command's exit status is not 0
     +-- RemctlProtocolError            communication failed; all that remctl() raises
          +-- RemctlConnectError            no connection to the host
          +-- RemctlAuthenticationError     the connection was there, Kerberos failed
          +-- RemctlTimeoutError            the network was silent for too long; a TimeoutError
          +-- RemctlDisconnectedError       the connection ended in the middle
          +-- RemctlServerError             the server refused the command: see its code
          +-- RemctlAnswerError             the server's answer makes no sense

and TypeError or ValueError for arguments that cannot be right, before anything is sent.

Wherever times are given, they are seconds.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import select
import sys
import time
from _thread import RLock, allocate_lock, start_new_thread
from collections import namedtuple
from enum import IntEnum

import _remctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    import socket
    from collections.abc import Callable, Generator, Iterable
    from types import TracebackType
    from typing import Any, Protocol, Self

    class _Writable(Protocol):
        """A binary file, as far as it is needed."""

        def write(self, octets: bytes, /) -> int | None: ...

    _Octets = bytes | bytearray | memoryview
    _Target = tuple[str, int, str | None]

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

__version__ = "4.0.0.dev0"
VERSION = __version__

PORT = 4373
"""The registered port of remctl."""

LEGACY_PORT = 4444
"""The port that remctl used before version 2.11; tried where no port is given."""

# What remctld takes (server/internal.h: COMMAND_MAX_ARGS, COMMAND_MAX_DATA).  More than that does
# not just fail: it leaves the session out of step for good.
_MAX_ARGUMENTS = 4096
_MAX_COMMAND_OCTETS = 100 * 1024 * 1024 - 1

# As isinstance() takes them: a union would be made anew in each call.
_OCTETS = (bytes, bytearray, memoryview)
_NO_COMMANDS = (*_OCTETS, str, bool, int, float)

# The process that this is, as far as forks are concerned: cheaper to ask than getpid().
_process = object()


def _forked() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_forked)

# How often a wait that nothing can interrupt looks whether it is still wanted.
_SLICE = 0.1


# -- Exceptions -----------------------------------------------------------------------------------


class RemctlError(Exception):
    """Something went wrong with remctl; the base of all exceptions of this module.

    All of them can be pickled and copied whole.  Where it is known what to do about it, they have
    a note that says so; a traceback shows it below the text (PEP 678: ``error.__notes__``).

    Attributes:
        value: the reason as text, the same as ``str(error)`` and as ``Remctl.error()`` after it.
        host: the host that was named to connect to, or None.
        port: the port that was asked for, or None if none was.
        partial: what a command had produced when it failed, a `RemctlSimpleResult` whose status
            is None; or None.  Set by `remctl()` and `Remctl.run()`.
    """

    host: str | None = None
    port: int | None = None
    partial: RemctlSimpleResult | None = None

    @property
    def value(self) -> str:
        """The reason as text."""
        return str(self)


class RemctlNotOpenedError(RemctlError):
    """There is no connection: none was opened, it was closed, or it belongs to another process."""


class RemctlBusyError(RemctlError):
    """The connection is running a command whose output has not been read to the end."""


class RemctlStatusError(RemctlError):
    """A command ended with an exit status other than 0; raised by `RemctlSimpleResult.check()`.

    Attributes:
        result: the command's `RemctlSimpleResult`.
    """

    result: RemctlSimpleResult

    def __init__(self, value: str, *, result: RemctlSimpleResult | None = None) -> None:
        super().__init__(value)
        self.result = RemctlSimpleResult() if result is None else result


class RemctlProtocolError(RemctlError):
    """Communication with the server failed; the base of all that `remctl()` raises.

    Attributes:
        errno: the system's error number where connecting failed for one, or None.
    """

    errno: int | None = None


class RemctlConnectError(RemctlProtocolError):
    """No connection: the host is unknown, unreachable, or nothing answers on the port."""


class RemctlAuthenticationError(RemctlProtocolError):
    """The connection was made, but client and server did not authenticate to each other.

    A server that hangs up meanwhile ("unexpected end of file") does not say why: it may not accept
    the client, have a wrong keytab, or be on its way down.
    """


class RemctlTimeoutError(RemctlProtocolError, TimeoutError):
    """Nothing came from the network for the time that was set; also a TimeoutError."""


class RemctlDisconnectedError(RemctlProtocolError):
    """The connection ended in the middle.  A command that was sent may have run."""


class RemctlServerError(RemctlProtocolError):
    """The server refused the command, or could not run it.

    Attributes:
        code: a `RemctlErrorCode`, or a plain int where the server sent one that is not known.
    """

    code: int = 0


class RemctlAnswerError(RemctlProtocolError):
    """The server sent what the protocol does not allow; the connection was closed."""


# -- Results --------------------------------------------------------------------------------------


class RemctlStream(IntEnum):
    """Where a piece of output came from (remctl protocol, MESSAGE_OUTPUT)."""

    STDOUT = 1
    STDERR = 2


class RemctlErrorCode(IntEnum):
    """Why a server refuses (remctl protocol, MESSAGE_ERROR)."""

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


_STREAMS = (None, RemctlStream.STDOUT, RemctlStream.STDERR)
_ERROR_CODES: dict[int | None, RemctlErrorCode] = {c.value: c for c in RemctlErrorCode}


class RemctlOutput(namedtuple("RemctlOutput", "type output stream status error")):
    """A token of a command's output, as `Remctl.output()` returns it.

    Attributes:
        type: "output", "status", "error" or "done".
        output: the octets of an "output" token; the text of an "error" token, as octets; or None.
        stream: a `RemctlStream` for an "output" token, or None.
        status: the exit status, 0 to 255, for a "status" token, or None.
        error: a `RemctlErrorCode` for an "error" token (a plain int if it is not known), or None.
    """

    __slots__ = ()


_new_tuple = tuple.__new__


def _token(fields: tuple[Any, ...]) -> RemctlOutput:
    kind, output, stream, status, code = fields
    if stream is not None:
        stream = _STREAMS[stream]
    if code is not None:
        code = _ERROR_CODES.get(code, code)
    # As RemctlOutput() does it, without the frame that it takes for each of very many.
    return _new_tuple(RemctlOutput, (kind, output, stream, status, code))


_DONE = RemctlOutput("done", None, None, None, None)


class RemctlSimpleResult:
    """What a command produced.

    Attributes:
        stdout: its standard output as bytes, or None if there was none.
        stderr: its standard error as bytes, or None if there was none.
        status: its exit status, 0 to 255; None if it did not get that far.
    """

    def __init__(
        self, stdout: bytes | None = None, stderr: bytes | None = None, status: int | None = None
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.status = status

    def check(self) -> RemctlSimpleResult:
        """Return this result if the exit status is 0.

        Raises:
            RemctlStatusError: it is not, or there is none.  The text ends with the last line of
                standard error.
        """
        if self.status == 0:
            return self
        text = f"command exited with status {self.status}"
        if self.status is None:
            text = "command did not get to its end"
        lines = self.stderr_text(errors="replace").strip().splitlines()
        if lines:
            text += f": {lines[-1].strip()}"
        raise RemctlStatusError(text, result=self)

    def stdout_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return standard output as text; "" if there was none.

        Raises:
            UnicodeDecodeError: it is not text in that encoding, and `errors` is "strict".
        """
        return "" if self.stdout is None else self.stdout.decode(encoding, errors)

    def stderr_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return standard error as text; "" if there was none.

        Raises:
            UnicodeDecodeError: it is not text in that encoding, and `errors` is "strict".
        """
        return "" if self.stderr is None else self.stderr.decode(encoding, errors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemctlSimpleResult):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # its attributes can be set

    def __repr__(self) -> str:
        # Output may hold secrets: only how much there is.
        sizes = ", ".join(
            f"{name}={'None' if data is None else f'{len(data)} bytes'}"
            for name, data in (("stdout", self.stdout), ("stderr", self.stderr))
        )
        return f"<RemctlSimpleResult status={self.status}, {sizes}>"


# -- Checking arguments ---------------------------------------------------------------------------


def _check_host(host: str) -> str:
    if not isinstance(host, str):
        raise TypeError(f"host must be a str: {host!r}")
    if not host or "\0" in host:
        raise ValueError(f"invalid host name: {host!r}")
    return host


def _check_port(port: int | str | None) -> int:
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


def _check_principal(principal: str | None) -> str | None:
    if principal is not None and not isinstance(principal, str):
        raise TypeError(f"principal must be a str: {principal!r}")
    if principal is not None and (not principal or "\0" in principal):
        raise ValueError(f"invalid principal: {principal!r}")
    return principal


def _check_ccache(ccache: str | os.PathLike[str]) -> str:
    name = os.fspath(ccache)
    if not isinstance(name, str):
        raise TypeError(f"ccache must be a str or a path: {ccache!r}")
    if not name or "\0" in name:
        raise ValueError(f"invalid credential cache: {ccache!r}")
    return name


def _check_source_ip(source: str) -> str:
    import socket

    if not isinstance(source, str):
        raise TypeError(f"source address must be a str: {source!r}")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, source)
        except (OSError, ValueError):
            continue
        return source
    raise ValueError(f"source address must be an IP address, not a host name: {source!r}")


def _check_credentials(
    credentials: RemctlCredentials | None, ccache: object
) -> RemctlCredentials | None:
    if credentials is not None:
        if not callable(getattr(credentials, "ccache", None)):
            raise TypeError(f"credentials must have ccache(): {type(credentials).__name__} has not")
        if ccache is not None:
            raise ValueError("credentials and ccache exclude each other")
    return credentials


def _check_timeout(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds: {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"invalid timeout {timeout!r}")
    return float(timeout)


def _check_file(file: _Writable | None, name: str) -> None:
    if file is None:
        return
    if isinstance(file, io.TextIOBase):  # type: ignore[unreachable]  # not so for every caller
        raise TypeError(f"{name} must be a binary file: open it with mode 'wb'")
    if not hasattr(file, "write"):
        raise TypeError(f"{name} must be a binary file, not {type(file).__name__}")


def _octets(item: Any) -> _Octets:
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


class _Command:
    """A command as it is sent, within what the protocol and remctld allow.

    Attributes:
        arguments: the octets of its parts.
    """

    # Little is done here: after a wait for the last command the processor's caches are cold, and
    # every line costs ten times what it costs in a loop.

    __slots__ = ("_told", "arguments")

    def __init__(self, command: Iterable[Any], input: _Octets | str | None = None) -> None:
        if isinstance(command, _NO_COMMANDS):
            raise TypeError("command must be a sequence or iterator")
        try:
            # One more than allowed tells enough: it may never end.
            items = itertools.islice(command, _MAX_ARGUMENTS + 1)
        except TypeError:
            raise TypeError("command must be a sequence or iterator") from None
        self.arguments = arguments = [_octets(item) for item in items]
        count = self._told = len(arguments)
        if not count:
            raise ValueError("command must not be empty")
        if input is not None:
            if not isinstance(input, (*_OCTETS, str)):
                raise TypeError(f"input must be bytes or str, not {type(input).__name__}")
            arguments.append(_octets(input))
            count += 1
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
        told = self.arguments[: min(self._told, 2)]
        return " ".join(bytes(part[:80]).decode("utf-8", "backslashreplace") for part in told)


# -- Cures ----------------------------------------------------------------------------------------

# What to do about a failure, by what is known of it.  It is told in a note beside the exception's
# text, which stays libremctl's.  A cure that cannot know which of several causes it was names them
# all; a failure that is not found here (Kerberos's texts may be translated, and another library's
# are others) has no note.

_CONNECT_CURES = {
    errno.ECONNREFUSED: "nothing listens on port {port} of {host}, or a firewall refuses: is"
    " remctld running there, and is the port right?",
    errno.ETIMEDOUT: "{host} did not answer on port {port}: it is down, or a firewall is between",
    errno.EHOSTUNREACH: "the network does not reach {host}: it is down, or a firewall is between",
    errno.ENETUNREACH: "this host has no route to {host}: is its network up?",
}

_UNKNOWN_HOST_CURE = (
    "no address was found for {host}: is the name right, and does the resolver answer?"
)

_CHANGED_KEY_CURE = (
    "your ticket is made for a key that the server (or the KDC) does not have: it was changed.\n"
    "Run kinit to get new tickets; if that does not help, the server's keytab is out of date"
)

_OLD_CLIENT_KEYTAB_CURE = (
    "the client's keytab does not have the present key of its principal: extract it anew"
)

_HUNG_UP_CURE = (
    "the server ended the connection and did not tell why: see its log.\nIt may be stopping, unable"
    " to accept anybody (its keytab), or no remctl server"
)

# What the text contains; the first that is found counts.
_AUTHENTICATION_CURES = (
    (
        "Credentials cache permissions incorrect",
        "you may not read the credential cache {ccache}: run kinit as this user, or name another"
        " cache (ccache=, KRB5CCNAME)",
    ),
    (
        "Bad format in credentials cache",
        "{ccache} is empty, damaged, or no credential cache: look at its name (ccache=,"
        " KRB5CCNAME), then run kinit",
    ),
    (
        "Unsupported credentials cache format",
        "{ccache} is no credential cache, or one of another kind of Kerberos: look at its name"
        " (ccache=, KRB5CCNAME)",
    ),
    (
        "End of credential cache reached",
        "the credential cache {ccache} is damaged: run kinit",
    ),
    (
        "Credential cache is empty",
        "the credential cache {ccache} has no ticket in it: run kinit",
    ),
    (
        "No KCM server found",
        "{ccache} is kept by a KCM server, and none runs: start it (sssd-kcm, say), or name another"
        " cache (ccache=, KRB5CCNAME)",
    ),
    (
        "No credentials cache found",
        "the credential cache {ccache} does not exist: run kinit, or name another (ccache=)",
    ),
    (
        "No Kerberos credentials available (default cache: ",
        "no ticket was found in the default credential cache, {ccache}: run kinit, or name another"
        " (ccache=, KRB5CCNAME)",
    ),
    (
        "Ticket expired",
        "the ticket in {ccache} has expired by the clock of this host, of the KDC or of the"
        " server: run kinit; if the ticket is new, set the clocks",
    ),
    (
        "Ticket not yet valid",
        "the ticket in {ccache} is not valid yet by the clock of the server or of the KDC: set the"
        " clocks; if it is postdated, wait",
    ),
    (
        "Clock skew too great",
        "the clock of this host and that of the server or of the KDC differ by more than is allowed"
        " (five minutes, usually): set the clocks",
    ),
    (
        "unavailable or inaccessible, Decrypt integrity check failed",
        _OLD_CLIENT_KEYTAB_CURE,
    ),
    (
        "unavailable or inaccessible, Preauthentication failed",
        _OLD_CLIENT_KEYTAB_CURE,
    ),
    ("Key version is not available", _CHANGED_KEY_CURE),
    ("Decrypt integrity check failed", _CHANGED_KEY_CURE),
    (
        "Service key not available",
        "the server's keytab is missing, or has no key of {principal}: have it mended, or name the"
        " server's own principal (principal=)",
    ),
    (
        "The ticket isn't for us",
        "the server at {host} is not {principal}: is it the right host? If so, name its principal"
        " (principal=), or have its keytab mended",
    ),
    (
        "Generic error (see e-text)",
        "the server or the KDC failed for a reason that it does not tell: see its log; a server's"
        " keytab may be empty or unreadable",
    ),
    (
        "Server krbtgt/",
        "{principal} is taken for one of another realm than your ticket's, and the KDC knows no way"
        " there: name the realm\n(principal=, or [domain_realm] in krb5.conf), or get a ticket of"
        " that realm",
    ),
    (
        "Client '",
        "the KDC does not know the principal of your ticket, or of the client's keytab: it was"
        " deleted, or is of another realm",
    ),
    (
        "not found in Kerberos database",
        "the KDC does not know the server's principal ({principal}, unless DNS names the host"
        " otherwise):\nuse the host's full name, or name its principal (principal=), and the realm"
        " if that is another",
    ),
    (
        "Cannot find KDC for realm",
        "neither krb5.conf ([realms]) nor DNS names a KDC of that realm: is it the right one, of"
        " the server and of the ticket in {ccache}?",
    ),
    (
        "Cannot contact any KDC for realm",
        "no KDC of that realm answers: it is down, the network does not reach it, or krb5.conf"
        " ([realms]) or DNS names the wrong host",
    ),
    (
        ": token too larger",
        "what listens there is no remctl server: is the port right?",
    ),
    ("error receiving token: ", _HUNG_UP_CURE),
    ("error sending token: ", _HUNG_UP_CURE),
)

_SILENT_KDC_CURE = "no KDC answered in time: it hangs, it is down, or the network does not reach it"

_DISCONNECTED_CURES = (
    (
        "no connection open",
        "the connection was lost before: the next command opens it again, and so does open()",
    ),
    (
        "unexpected data from server",
        "the server sent what nobody had asked for; the next command opens the connection again",
    ),
    (
        "",
        "the server ended the connection (it was stopped, say), or the network broke: a command"
        " that was sent may have run,\nso look before you send it again",
    ),
)

_ACCESS_CURE = (
    "the server's ACL does not let the principal of your ticket run that command: klist shows"
    " whose ticket it is"
)


def _cure(error: RemctlError) -> str | None:
    """Return what to do about a failure, as a template; None where that is not known."""
    text = str(error)
    if isinstance(error, RemctlAuthenticationError):
        return _find_cure(_AUTHENTICATION_CURES, text)
    if isinstance(error, RemctlServerError):
        return _ACCESS_CURE if error.code == RemctlErrorCode.ACCESS else None
    if isinstance(error, RemctlDisconnectedError):
        return _find_cure(_DISCONNECTED_CURES, text)
    if isinstance(error, RemctlProtocolError) and error.errno is not None:
        return _CONNECT_CURES.get(error.errno)
    if isinstance(error, RemctlConnectError):
        return _UNKNOWN_HOST_CURE
    if isinstance(error, RemctlTimeoutError) and text.endswith("waiting for a KDC"):
        return _SILENT_KDC_CURE
    return None


def _find_cure(cures: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((cure for part, cure in cures if part in text), None)


def _ccache_told(text: str) -> str:
    """Return the credential cache that Kerberos names in a text."""
    for mark in ("(default cache: ", "(filename: "):
        _, found, rest = text.partition(mark)
        if found:
            return rest.rpartition(")")[0]
    return "your default credential cache"


def _add_notes(error: RemctlError, target: _Target, ccache: str | None) -> None:
    """Add notes to an exception: what to do, and whose tickets there are, where that is known."""
    host, port, principal = target
    principal = principal or f"host/{host}"
    if hasattr(error, "__notes__"):  # Credentials know better what is the matter.
        error.add_note(f"the server was to be {principal}")
        return
    cure = _cure(error)
    if cure is not None:
        error.add_note(
            cure.format(
                host=host,
                port=port or PORT,
                principal=principal,
                ccache=ccache or _ccache_told(str(error)),
            )
        )
    if isinstance(error, RemctlAuthenticationError):
        tickets = _describe_tickets(ccache)
        if tickets is not None:
            error.add_note(f"{tickets}; the server was to be {principal}")


# -- Tickets --------------------------------------------------------------------------------------

# Whose they are, and until when: only python-gssapi can tell, and it need not be installed.


def _find_tickets(ccache: str | None) -> tuple[str | None, str | None, float | None]:
    """Look into a credential cache (None: the default one), without asking a KDC.

    Returns:
        The principal, the name of the cache, and when the tickets end (or ended), in seconds
        since the epoch; None for what is not known.

    Raises:
        ImportError: python-gssapi is not installed.
        gssapi.exceptions.GSSError: there is no ticket.
    """
    import contextlib
    import json

    import gssapi
    from gssapi.raw.misc import GSSError

    # An empty client keytab: with a real one, looking would get tickets.
    store: dict[bytes | str, bytes | str] = {"client_keytab": "MEMORY:remctl-none"}
    if ccache is not None:
        store["ccache"] = ccache
    found = gssapi.Credentials(usage="initiate", store=store)
    principal = ends = None
    with contextlib.suppress(gssapi.exceptions.ExpiredCredentialsError):
        # First, and alone: of expired tickets, MIT's library loses the memory of what it tells.
        lifetime = found.inquire(name=False, usage=False, mechs=False).lifetime
        ends = None if lifetime is None else float(int(time.time()) + lifetime)
        principal = str(found.name)
    # GSS-API has no word for when tickets ended.  MIT's library writes it, and the name of the
    # cache, into what it exports (src/lib/gssapi/krb5/export_cred.c); others do not.
    with contextlib.suppress(GSSError, LookupError, TypeError, ValueError):
        text = found.export().decode("latin-1")
        fields = json.JSONDecoder().raw_decode(text, text.index('["K5C1",'))[0][1]
        principal, ends = str(fields[1][0]), float(fields[10])
        if isinstance(fields[7], str):
            ccache = fields[7]
    return principal, ccache, ends


def _tell_tickets(principal: str | None, ccache: str | None, ends: float | None) -> str:
    """Say in words what _find_tickets() returned."""
    text = f"tickets of {principal or 'an unknown principal'} in {ccache or 'the default cache'}"
    if ends is None:
        return text
    verb = "ended" if ends <= time.time() else "end"
    return f"{text} {verb} {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(ends))}"


def _describe_tickets(ccache: str | None) -> str | None:
    """Say whose tickets are in a cache and until when; None where that cannot be told."""
    try:
        from gssapi.raw.misc import GSSError
    except Exception:  # Not installed, or not for this Kerberos library.
        return None
    try:
        return _tell_tickets(*_find_tickets(ccache))
    except GSSError as error:
        return f"no tickets in {ccache or _ccache_told(str(error))}"
    except Exception:  # A hint must not take the place of the error.
        return None


# -- Connecting -----------------------------------------------------------------------------------

# socket is imported by the functions that use it: it takes as long as all the rest of this module.


_logger: logging.Logger | None = None


def _log(message: str, *arguments: object) -> None:
    # A program that never imported logging has nowhere to log to, and need not pay for it.
    global _logger
    if _logger is None:
        if "logging" not in sys.modules:
            return
        import logging

        _logger = logging.getLogger("remctl")
    _logger.debug(message, *arguments)


class _Patience:
    """How long to wait, and whether anybody still wants it: the limits of one wait."""

    def __init__(self, timeout: float, wanted: Callable[[], bool]) -> None:
        self._end = time.monotonic() + timeout if timeout else None
        self._wanted = wanted

    def slice(self) -> float:
        """Return how many seconds to wait before asking again.

        Raises:
            RemctlNotOpenedError: another thread has called close().
            TimeoutError: the time is over.
        """
        if not self._wanted():
            raise RemctlNotOpenedError("connection closed by another thread")
        if self._end is None:
            return _SLICE
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, _SLICE)


def _in_thread(function: Callable[[], Any], patience: _Patience) -> Any:
    """Call a function that nothing can interrupt; when patience ends, it is left alone."""
    answer: list[Any] = []
    answered = allocate_lock()
    answered.acquire()

    def call() -> None:
        try:
            answer.extend((function(), None))
        except BaseException as error:
            answer.extend((None, error))
        answered.release()

    start_new_thread(call, ())
    while not answered.acquire(timeout=patience.slice()):
        pass
    result, error = answer
    if error is not None:
        raise error
    return result


def _look_up(host: str, port: int, patience: _Patience) -> list[Any]:
    """Return the addresses of a host, as getaddrinfo() does, but interruptibly."""
    import socket

    if ":" in host or host[-1:].isdigit():  # No name ends like that.
        try:
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except socket.gaierror:
            pass  # A name all the same.

    # A resolver that does not answer can be left alone, but not interrupted.
    addresses: list[Any] = _in_thread(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), patience
    )
    return addresses


def _get_ccache(credentials: RemctlCredentials, patience: _Patience) -> str:
    """Have credentials name a cache with good tickets."""
    try:
        return _check_ccache(_in_thread(credentials.ccache, patience))
    except TimeoutError:
        raise RemctlTimeoutError("timed out waiting for credentials") from None


def _connect_address(
    family: int, address: Any, source_ip: str | None, patience: _Patience
) -> socket.socket:
    """Connect to one address."""
    import socket

    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        if source_ip is not None:
            connection.bind((source_ip, 0))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setblocking(False)
        code = connection.connect_ex(address)
        if code == errno.EINPROGRESS:
            poller = select.poll()
            poller.register(connection, select.POLLOUT)
            seconds = 0.0  # What is there already counts, however late this gets to see it.
            while not poller.poll(seconds * 1000):
                seconds = patience.slice()
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(
    host: str, port: int, source_ip: str | None, timeout: float, wanted: Callable[[], bool]
) -> socket.socket:
    """Connect to the first address of a host that answers; `timeout` holds for each step.

    Raises:
        RemctlConnectError, RemctlTimeoutError, RemctlNotOpenedError: see the classes.
    """
    import socket

    try:
        addresses = _look_up(host, port, _Patience(timeout, wanted))
    except TimeoutError:
        raise RemctlTimeoutError(f"unknown host {host}: timed out looking it up") from None
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else error
        raise RemctlConnectError(f"unknown host {host}: {reason}") from None
    failure: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, _, _, _, address in addresses:
        if source_ip is not None and (":" in source_ip) != (family == socket.AF_INET6):
            continue
        _log("connecting to %s, address %s port %d", host, address[0], port)
        try:
            return _connect_address(family, address, source_ip, _Patience(timeout, wanted))
        except OSError as error:
            failure = error.with_traceback(None)  # Its frames hold it: a cycle.
    timed_out = isinstance(failure, TimeoutError)
    reason = os.strerror(errno.ETIMEDOUT) if timed_out else failure.strerror
    kind = RemctlTimeoutError if timed_out else RemctlConnectError
    refusal = kind(f"cannot connect to {host} (port {port}): {reason}")
    refusal.errno = errno.ETIMEDOUT if timed_out else failure.errno
    raise refusal


def _connect_any_port(
    host: str, port: int, source_ip: str | None, timeout: float, wanted: Callable[[], bool]
) -> socket.socket:
    """Connect; without a port, to the registered one and then the one before remctl 2.11."""
    if port:
        return _connect(host, port, source_ip, timeout, wanted)
    try:
        return _connect(host, PORT, source_ip, timeout, wanted)
    except RemctlProtocolError as error:
        if error.errno is None:  # The host is not known: another port will not change that.
            raise
        try:
            return _connect(host, LEGACY_PORT, source_ip, timeout, wanted)
        except RemctlProtocolError:
            raise error from None


def _failure(text: str, number: int, *, opening: bool = False) -> RemctlError:
    """Turn the reason that libremctl gives for a failure into an exception."""
    if number == errno.ECANCELED:
        return RemctlNotOpenedError(text)
    if number == errno.ETIMEDOUT:
        return RemctlTimeoutError(text)
    if number == errno.EBUSY:
        return RemctlBusyError(text)
    if number == errno.ENOTCONN:
        return RemctlDisconnectedError(text)
    if number:  # This side has no descriptor or no thread left.
        failure = RemctlConnectError(text) if opening else RemctlProtocolError(text)
        failure.errno = number
        return failure
    if opening:
        return RemctlAuthenticationError(text)
    network = text.startswith(("error sending", "error receiving"))
    if network and not text.endswith((": token too larger", ": invalid token format")):
        return RemctlDisconnectedError(text)
    return RemctlAnswerError(text)


# -- The full interface ---------------------------------------------------------------------------


class RemctlCredentials:
    """What to give as ``credentials=``: anything that has this method.

    `remctl_toolkit.credentials` has some that get and renew tickets with a keytab.
    """

    def ccache(self) -> str:
        """Return the name of a credential cache with tickets that are good now.

        Called, in a thread of its own, each time a connection is about to be opened; it may take
        its time, and several threads may call it at once.  What it raises, the open raises.
        """
        raise NotImplementedError


class Remctl:
    """A connection to a remctl server, for any number of commands one after the other.

    With a host, the constructor opens the connection.  As a context manager it closes it at the
    end.  A connection that was lost (the network was silent for too long, the server went away, a
    wait was interrupted) is opened again by the next command; so it is for every command if the
    server speaks protocol 1 only.  A command is never sent twice.

    Threads may share a connection: `run()` waits until another thread's has ended.  Commands that
    are read piecemeal do not mix: starting one while another is unread raises RemctlBusyError.
    `close()` from another thread ends a call at once.  A forked child must open its own: in the
    child, using the parent's raises, and closing or dropping it does not disturb the parent.

    Args:
        host: the host to connect to; its name says which server must answer.
        port: the port, as a number or its text; None tries 4373, then 4444.
        principal: the server's Kerberos principal; None is host/HOST, its realm by the Kerberos
            configuration.
        timeout: seconds the network may be silent, see `set_timeout()`; None is for ever.
        ccache: the credential cache, see `set_ccache()`; None is the default one.
        source_ip: the address to connect from, see `set_source_ip()`; None is any.
        credentials: names the credential cache anew for each `open()`, see `RemctlCredentials`; in
            place of `ccache`.

    Raises:
        TypeError, ValueError: an argument cannot be right.
        RemctlError: see `open()`.
    """

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
    ) -> None:
        self._handle: _remctl.Handle | None = None
        self._target: _Target | None = None
        self._lock = RLock()
        self._process = _process
        self._pid = os.getpid()
        self._error = "no error"
        self._timeout = 0.0 if timeout is None else _check_timeout(timeout)
        self._applied_timeout = 0.0  # What the handle has.
        self._ccache = None if ccache is None else _check_ccache(ccache)
        self._used_ccache = self._ccache  # What credentials named last, if there are any.
        self._source_ip = None if source_ip is None else _check_source_ip(source_ip)
        self._address: str | None = None  # Connect there, not to the host's address: for machines.
        self._credentials = _check_credentials(credentials, ccache)
        if host:
            self.open(host, port, principal)

    # Settings.

    def set_ccache(self, ccache: str | os.PathLike[str]) -> None:
        """Use a credential cache in every later `open()`; an open connection stays as it is.

        Args:
            ccache: a path, or what else the Kerberos library takes ("KCM:", "MEMORY:name").

        Raises:
            TypeError, ValueError: that cannot be the name of one.
            RemctlError: the GSS-API library cannot do this (see remctl_set_ccache(3), which also
                says that with some libraries it holds for the whole process; not with MIT's).
        """
        name = _check_ccache(ccache)
        probe = _remctl.remctl_new()
        if not _remctl.remctl_set_ccache(probe, name):
            raise self._failed(RemctlError(_remctl.remctl_error(probe)))
        self._ccache = name
        self._credentials = None

    def set_source_ip(self, source: str) -> None:
        """Connect from an address in every later `open()`.

        Args:
            source: an IPv4 or IPv6 address; the host's addresses of the other kind are not tried.

        Raises:
            TypeError, ValueError: it is not an IP address.
        """
        self._source_ip = _check_source_ip(source)

    def set_timeout(self, timeout: float) -> None:
        """Limit how long the network may be silent, in all later operations.

        It is not a limit on the whole of an operation: with 10 seconds, a server that sends some
        output every 9 may take for ever.  It holds for looking up and connecting to each address,
        for authenticating (and each wait for a KDC), for sending and for every piece of an answer.

        Args:
            timeout: seconds, fractions included; 0 is no limit.

        Raises:
            TypeError: it is not a number.
            RemctlError: it is negative.
        """
        try:
            self._timeout = _check_timeout(timeout)
        except ValueError as error:
            raise self._failed(RemctlError(str(error))) from None

    # Opening and closing.

    def open(self, host: str, port: int | str | None = None, principal: str | None = None) -> None:
        """Connect to a server and authenticate.  A connection that was open is closed before.

        Args:
            host, port, principal: see `Remctl`.

        Raises:
            TypeError, ValueError: an argument cannot be right.
            RemctlConnectError: no connection to the host.
            RemctlAuthenticationError: no ticket, not the server that was asked for, or the server
                did not accept the client.
            RemctlTimeoutError: one of these took longer than the timeout.
            RemctlNotOpenedError: another thread called `close()` meanwhile.
        """
        target = (_check_host(host), _check_port(port), _check_principal(principal))
        if self._process is not _process:
            self._forget_parent()
        with self._lock:
            self.close()
            self._target = target
            try:
                self._open(target)
            except BaseException:
                self._target = None
                raise
            self._error = "no error"

    def close(self) -> None:
        """Close the connection; a call in another thread ends with RemctlNotOpenedError.

        Never waits, and closing again does nothing.  The object can be opened again.
        """
        self._target = None
        self._error = "no currently open connection"
        self._drop()

    def _drop(self) -> None:
        """Close the connection, but not for good: the next command opens it again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _remctl.remctl_close(handle)

    def _forget_parent(self) -> None:
        """Make the object this process's own, after a fork: another thread may hold the lock."""
        self._drop()
        self._lock = RLock()
        self._process = _process
        self._pid = os.getpid()

    def _open(self, target: _Target) -> _remctl.Handle:
        host, port, principal = target
        handle = self._handle = _remctl.remctl_new()
        self._applied_timeout = 0.0

        def wanted() -> bool:  # close() takes away the target first, then the handle.
            return self._target is target and self._handle is handle

        try:
            ccache = self._ccache
            if self._credentials is not None:
                patience = _Patience(self._timeout, wanted)
                ccache = _get_ccache(self._credentials, patience)
            self._used_ccache = ccache
            if ccache is not None:
                self._call(_remctl.remctl_set_ccache, handle, ccache)
            address = self._address or host
            connection = _connect_any_port(address, port, self._source_ip, self._timeout, wanted)
            start = time.monotonic()
            with connection:
                fd = connection.fileno()
                if not self._call(_remctl.remctl_open_fd, handle, host, fd, principal):
                    raise self._failure_of(handle, opening=True)
            milliseconds = (time.monotonic() - start) * 1000
            _log("authenticated %s in %.1f ms", principal or f"host/{host}", milliseconds)
            if not wanted():
                raise RemctlNotOpenedError("connection closed by another thread")
        except BaseException as error:
            if self._handle is handle:
                self._drop()
            if isinstance(error, RemctlError):
                raise self._failed(error, target) from None
            raise
        return handle

    def _call(self, function: Callable[..., Any], handle: _remctl.Handle, *arguments: Any) -> Any:
        """Call a function of `_remctl`, which raises ValueError for a handle that is not usable."""
        try:
            if self._applied_timeout != self._timeout:
                self._apply_timeout(handle)
            return function(handle, *arguments)
        except ValueError as error:
            raise self._unusable(handle, error) from None

    def _apply_timeout(self, handle: _remctl.Handle) -> None:
        _remctl.remctl_set_timeout(handle, self._timeout)
        self._applied_timeout = self._timeout

    def _unusable(self, handle: _remctl.Handle, error: ValueError) -> RemctlError:
        if handle.closed:
            return self._failed(RemctlNotOpenedError("connection closed by another thread"))
        return self._failed(RemctlBusyError(str(error)))

    def _failed(self, error: RemctlError, target: _Target | None = None) -> RemctlError:
        """Note a failure for error(), and in the exception what it is about and its cure."""
        self._error = str(error)
        target = target or self._target
        if target is not None and error.host is None:
            error.host = target[0]
            error.port = target[1] or None
            _add_notes(error, target, self._used_ccache)
        return error

    def _check_opened(self) -> _Target:
        if self._process is not _process:
            text = f"connection belongs to process {self._pid}: open a new one after a fork"
            raise self._failed(RemctlNotOpenedError(text))
        target = self._target
        if target is None:
            raise self._failed(RemctlNotOpenedError("no currently open connection"))
        return target

    def _connected(self) -> _remctl.Handle:
        """Return the handle for an operation that needs the connection as it is."""
        target = self._check_opened()
        handle = self._handle
        if handle is None:
            raise self._failed(RemctlDisconnectedError("no connection open"), target)
        return handle

    # Commands.

    def command(self, command: Iterable[Any], *, input: _Octets | str | None = None) -> None:
        """Send a command; `output()` or `tokens()` then read what it produces.

        Args:
            command: the command, its subcommand and its arguments: an iterable of bytes, str
                (sent as UTF-8), paths, or what str() converts.  NUL octets may stand in what the
                server passes on standard input only (remctld(8), "stdin=").
            input: one more argument, for a command whose last one is its standard input.

        Raises:
            TypeError, ValueError: a server would not take that command; nothing was sent.
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlBusyError: a command is running whose output has not been read to the end.
            RemctlProtocolError: see `open()` if the connection had to be opened again, and
                RemctlTimeoutError, RemctlDisconnectedError for sending.
        """
        self._command(command, input)

    def _command(self, command: Iterable[Any], input: _Octets | str | None) -> _remctl.Handle:
        self._check_opened()
        return self._start(_Command(command, input))

    def _start(self, command: _Command) -> _remctl.Handle:
        handle = None
        try:
            with self._lock:
                handle = self._send(command)
                return handle
        except BaseException:
            self._abandon(handle)
            raise

    # A signal handler may raise wherever it is called, not only in a wait: between two steps, too,
    # a command that was sent must not be left running with nobody to read what it produces.

    def _abandon(self, handle: _remctl.Handle | None) -> None:
        """Close the connection if it runs a command that nobody will read."""
        if handle is not None and handle.expecting and self._handle is handle:
            self._drop()

    def _send(self, command: _Command) -> _remctl.Handle:
        target = self._check_opened()
        handle = self._handle
        # With protocol 1, the status may be unread though the connection has ended.
        if handle is None or (handle.fd < 0 and not handle.expecting):
            handle = self._reopen(target)
        unread = handle.expecting  # Another command, which somebody else will read.
        try:
            sent = self._call(_remctl.remctl_commandv, handle, command.arguments)
            if not sent and handle.errno == errno.ENOTCONN:  # It had ended; nothing was sent.
                handle = self._reopen(target)
                sent = self._call(_remctl.remctl_commandv, handle, command.arguments)
            if not sent:
                raise self._failure_of(handle)
            _log("sent command %s", command)
            return handle
        except BaseException:
            if not unread:
                self._abandon(handle)
            raise

    def _reopen(self, target: _Target) -> _remctl.Handle:
        _log("opening the connection to %s again", target[0])
        self._drop()
        return self._open(target)

    def _failure_of(self, handle: _remctl.Handle, *, opening: bool = False) -> RemctlError:
        text = self._call(_remctl.remctl_error, handle)
        return self._failed(_failure(text, handle.errno, opening=opening))

    def output(self) -> RemctlOutput:
        """Return the next token of the running command.

        A command produces either any number of "output" tokens and one "status" token, or one
        "error" token instead of whatever would have followed.  After that, and where no command
        was sent, the answer is a "done" token.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlTimeoutError: nothing came for too long.
            RemctlDisconnectedError: the connection ended.
            RemctlAnswerError: the server sent something else.
        """
        self._check_opened()
        handle = None
        try:
            with self._lock:
                handle = self._connected()
                return _token(self._receive(handle))
        except RemctlError:
            raise
        except BaseException:  # A token may have been read that nobody gets to see.
            if handle is not None and self._handle is handle:
                self._drop()
            raise

    def missing(self) -> int:
        """Return how many octets have to arrive, at least, before `output()` returns at once.

        For event loops: 0 says that reading a token does not wait.  Otherwise the descriptor, see
        `fileno()`, is reported as readable when that many have arrived (Linux), or one has.  The
        exception is a token too large for the socket's buffer: then the answer is 0 as soon as
        the buffer is full, and `output()` waits for the rest.  Where the connection is lost,
        `output()` says so at once: 0.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
        """
        self._check_opened()
        with self._lock:
            handle = self._handle
            missing: int = 0 if handle is None else self._call(_remctl.remctl_missing, handle)
        return missing

    def _receive(self, handle: _remctl.Handle) -> tuple[Any, ...]:
        """Read a token: what `_call()` does, without its frame for each of very many."""
        try:
            if self._applied_timeout != self._timeout:
                self._apply_timeout(handle)
            fields: tuple[Any, ...] = _remctl.remctl_output(handle)
        except ValueError as error:
            raise self._unusable(handle, error) from None
        if not fields:
            raise self._failure_of(handle)
        return fields

    def tokens(self) -> Generator[RemctlOutput, None, None]:
        """Iterate over the tokens of the running command, the last being its "status" token.

        Leaving before the end (dropping the iterator, its close(), or an exception) closes the
        connection: that is the only way not to wait for the rest.  The next command opens it again.

        Raises:
            RemctlServerError: instead of an "error" token.
            RemctlError: see `output()`.
        """
        tokens = self._tokens(self._connected())
        next(tokens)  # Only a generator that has begun notices that it is dropped.
        return tokens

    def _tokens(self, handle: _remctl.Handle) -> Generator[RemctlOutput, None, None]:
        ended = False
        try:
            yield _DONE  # To tokens(), which begins it.
            while not ended:
                if self._process is not _process or self._target is None:
                    self._check_opened()
                with self._lock:
                    if self._handle is not handle:
                        text = "connection closed meanwhile"
                        raise self._failed(RemctlNotOpenedError(text))
                    token = _token(self._receive(handle))
                kind = token[0]
                if kind == "output":
                    yield token
                    continue
                ended = True
                if kind == "error":
                    raise self._refusal(token.output, token.error)
                if kind == "status":
                    yield token
        finally:
            if not ended:
                self._abandon(handle)

    def stream(
        self, command: Iterable[Any], *, input: _Octets | str | None = None
    ) -> Generator[RemctlOutput, None, None]:
        """Send a command and iterate over its tokens: `command()` and `tokens()` in one.

        The command is sent at once, not when the first token is asked for.
        """
        handle = None
        try:
            handle = self._command(command, input)
            return self.tokens()
        except BaseException:
            self._abandon(handle)
            raise

    def run(
        self,
        command: Iterable[Any],
        *,
        input: _Octets | str | None = None,
        stdout: _Writable | None = None,
        stderr: _Writable | None = None,
    ) -> RemctlSimpleResult:
        """Run a command to its end.

        Args:
            command, input: see `command()`.
            stdout, stderr: binary files to write that stream to as it arrives, instead of keeping
                it in memory: the result holds None for it.

        Returns:
            What it produced.  A status other than 0 is a result, too: see
            `RemctlSimpleResult.check()`.

        Raises:
            RemctlServerError: the server refused the command.
            RemctlError: see `command()` and `output()`.
            OSError: a file could not be written; the connection was closed.
        """
        collector = _Collector(stdout, stderr)
        self._check_opened()
        return self._run(_Command(command, input), collector)

    def _run(self, command: _Command, collector: _Collector) -> RemctlSimpleResult:
        with self._lock:
            start = time.monotonic()
            handle = None
            try:
                handle = self._send(command)
                result = self._collect(handle, collector)
            except BaseException:
                self._abandon(handle)
                raise
            milliseconds = (time.monotonic() - start) * 1000
        _log("%s: status %d in %.1f ms", command, result.status, milliseconds)
        return result

    def _collect(self, handle: _remctl.Handle, collector: _Collector) -> RemctlSimpleResult:
        """Read a command's output to the end."""
        write = collector.write
        receive = _remctl.remctl_output
        try:
            while True:
                try:
                    fields: tuple[Any, ...] = receive(handle)
                except ValueError as error:
                    raise self._unusable(handle, error) from None
                if not fields:
                    raise self._failure_of(handle)
                kind, output, stream, status, code = fields
                if kind != "output":
                    break
                write[stream](output)
            if kind == "error":
                raise self._refusal(output, code)
        except BaseException as error:
            if isinstance(error, RemctlError):
                error.partial = collector.result()
            raise
        return collector.result(status)

    def _refusal(self, text: bytes | None, code: int | None) -> RemctlServerError:
        error = RemctlServerError((text or b"").decode("utf-8", "replace"))
        error.code = _ERROR_CODES.get(code, code or 0)
        self._failed(error)
        return error

    def noop(self) -> bool:
        """Ask the server for a sign of life, which also keeps an idle connection alive.

        Returns:
            True if it answered; False if it is too old to know the question (protocol 1 or 2),
            which does the connection no harm.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlBusyError: a command is running.
            RemctlTimeoutError: nothing came for too long.
            RemctlDisconnectedError: the connection has ended.  Unlike a command, this does not
                open it again.
            RemctlAnswerError: the server sent something else.
        """
        self._check_opened()
        with self._lock:
            handle = self._connected()
            if self._call(_remctl.remctl_noop, handle):
                return True
            if handle.errno == errno.EOPNOTSUPP:
                return False
            raise self._failure_of(handle)

    # Looking.

    @property
    def opened(self) -> bool:
        """Whether `open()` succeeded and `close()` was not called; the connection may be lost."""
        return self._target is not None

    def error(self) -> str:
        """Return the reason of the last failure, as its exception has it."""
        return self._error

    def fileno(self) -> int:
        """Return the connection's descriptor, to wait for output in an event loop.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlDisconnectedError: it was lost; the next command opens it again.
        """
        self._check_opened()
        handle = self._handle
        if handle is None or handle.fd < 0:
            raise self._failed(RemctlDisconnectedError("no connection open"))
        return handle.fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        target = self._target
        if target is None:
            return "<Remctl, not open>"
        host, port, principal = target
        handle = self._handle
        state = "lost" if handle is None or handle.fd < 0 else "open"
        if handle is not None and handle.expecting:
            state = "running a command"
        return (
            f"<Remctl {host}"
            + (f" port {port}" if port else "")
            + (f" as {principal}" if principal else "")
            + f", {state}>"
        )

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is None or handle.fd < 0 or self._process is not _process:
            return
        if not sys.is_finalizing():
            import warnings

            text = f"unclosed {self!r}: use it in a with statement, or call close()"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
        self.close()


class _Sink:
    """Where one stream of a command's output goes: to a file, or to memory.

    Attributes:
        write: a function that takes the next octets.
    """

    def __init__(self, file: _Writable | None) -> None:
        self._file = file
        self._memory = io.BytesIO()
        self.write: Callable[[bytes], object]
        self.write = self._memory.write if file is None else self._write_file

    def _write_file(self, octets: bytes) -> None:
        """Write all of it: an unbuffered file may take less at a time."""
        file = self._file
        while octets and file is not None:
            written = file.write(octets)
            if written is None and not isinstance(file, io.RawIOBase):
                return  # It is not one that says how much.
            if not written:
                raise BlockingIOError(errno.EAGAIN, "file does not take the output")
            octets = octets[written:]

    def octets(self) -> bytes | None:
        """Return what was kept in memory; None if there was nothing."""
        return self._memory.getvalue() or None


class _Collector:
    """Makes a result of a command's output.

    Attributes:
        write: by stream, a function that takes the next octets.
    """

    def __init__(self, stdout: _Writable | None, stderr: _Writable | None) -> None:
        _check_file(stdout, "stdout")
        _check_file(stderr, "stderr")
        self._stdout, self._stderr = _Sink(stdout), _Sink(stderr)
        self.write: tuple[Any, ...] = (None, self._stdout.write, self._stderr.write)

    def result(self, status: int | None = None) -> RemctlSimpleResult:
        """Return what there is so far."""
        return RemctlSimpleResult(self._stdout.octets(), self._stderr.octets(), status)


# -- The simple interface -------------------------------------------------------------------------


def remctl(
    host: str,
    port: int | str | None = None,
    principal: str | None = None,
    command: Iterable[Any] = (),
    *,
    input: _Octets | str | None = None,
    stdout: _Writable | None = None,
    stderr: _Writable | None = None,
    timeout: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: RemctlCredentials | None = None,
) -> RemctlSimpleResult:
    """Connect to a host, run one command and close: a `Remctl`, used once.

    Args:
        host, port, principal, timeout, ccache, source_ip, credentials: see `Remctl`.
        command, input, stdout, stderr: see `Remctl.run()`.

    Returns:
        What the command produced.

    Raises:
        TypeError, ValueError: an argument cannot be right; nothing was sent.
        RemctlProtocolError: communication failed, or the server refused the command; the
            subclass says which.
        OSError: a file could not be written.
    """
    port = _check_port(port)
    checked = _Command(command, input)
    collector = _Collector(stdout, stderr)
    connection = Remctl(
        timeout=timeout, ccache=ccache, source_ip=source_ip, credentials=credentials
    )
    try:
        connection.open(host, port, principal)
        return connection._run(checked, collector)
    finally:
        connection.close()

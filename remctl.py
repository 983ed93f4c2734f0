"""Run commands on other hosts with remctl: Kerberos-authenticated, encrypted, authorised by ACLs.

    >>> import remctl
    >>> result = remctl.remctl("server.example.org", command=("account", "show", "alice"))
    >>> print(result.check().stdout_text())

`remctl()` connects, runs one command and closes.  `Remctl` keeps the connection open for any number
of commands, and can read their output as it arrives.  Both raise::

    RemctlError                         whatever goes wrong with remctl
     +-- RemctlNotOpenedError           no connection was opened, or it was closed
     +-- RemctlBusyError                the connection is running another command
     +-- RemctlStatusError              result.check(): the command's exit status is not 0
     +-- RemctlProtocolError            communication failed; all that remctl() raises
          +-- RemctlConnectError            no connection to the host
          +-- RemctlAuthenticationError     the connection was made, but Kerberos failed
          +-- RemctlTimeoutError            the network was silent for too long; a TimeoutError
          +-- RemctlDisconnectedError       the connection was lost
          +-- RemctlServerError             the server refused the command: see its code
          +-- RemctlAnswerError             the server violated the protocol

and TypeError or ValueError for invalid arguments, before anything is sent.

All times are in seconds.
"""

from __future__ import annotations

import _remctl_core as _core
from _remctl_core import DEVNULL, STDOUT
from _remctl_types import (
    RemctlAnswerError,
    RemctlAuthenticationError,
    RemctlBusyError,
    RemctlConnectError,
    RemctlCredentials,
    RemctlDisconnectedError,
    RemctlError,
    RemctlErrorCode,
    RemctlNotOpenedError,
    RemctlOutput,
    RemctlProtocolError,
    RemctlServerError,
    RemctlSimpleResult,
    RemctlStatusError,
    RemctlStream,
    RemctlTimeoutError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable
    from types import TracebackType
    from typing import Any, Self, TypeVar

    import _remctl

    from _remctl_arguments import Octets, Readable, Writable
    from _remctl_core import Steps

    T = TypeVar("T")
    # The same names as in the stubs.
    _Input = Octets | str | Readable
    _OutputFile = Writable | int
    _StreamToken = RemctlOutput

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

__version__ = "4.0.0.dev0"
VERSION = __version__

PORT = 4373
"""The registered port of remctl."""

LEGACY_PORT = 4444
"""The port that remctl used before version 2.11; also tried if no port is given."""

RemctlToken = RemctlOutput
"""A token, for annotations: type checkers know its fields once `type` was compared."""


class Remctl:
    """A connection to a remctl server, for any number of commands one after the other.

    With a host, the constructor opens the connection.  The end of a ``with`` block closes it.  If
    the connection was lost (by a timeout, the end of the server, or an interrupted wait), the next
    command opens it again.  If the server speaks only protocol 1, every command does.  A command is
    never sent twice.

    Threads may share a connection: `run()` waits until the command of another thread has ended.
    But starting a command while the output of another is unread raises RemctlBusyError.  `close()`
    from another thread ends a call at once.  In a forked child, the next command opens a connection
    of the child's own, with the same settings; the parent's connection is not touched.

    Args:
        host: the host to connect to.  The server has to prove that it has this name.
        port: the port, as a number or a str; None tries 4373, then 4444.
        principal: the server's Kerberos principal; None is host/HOST, in the realm that the
            Kerberos configuration gives.
        timeout: seconds the network may be silent, see `set_timeout()`; None is for ever.
        ccache: the credential cache, see `set_ccache()`; None is the default one.
        source_ip: the address to connect from, see `set_source_ip()`; None is any.
        credentials: an object that names the credential cache for each `open()`, instead of
            `ccache`; see `RemctlCredentials`.
        keepalive: seconds of silence after which TCP probes the server, so that firewalls keep the
            connection and a dead server is noticed; None is the system's default.
        connect: whether to connect now; otherwise the first command does.

    Raises:
        TypeError, ValueError: an argument is invalid.
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
        keepalive: float | None = None,
        connect: bool = True,
    ) -> None:
        self._session = _core.Session(
            blocking=True,
            timeout=timeout,
            ccache=ccache,
            source_ip=source_ip,
            credentials=credentials,
            keepalive=keepalive,
        )
        self._lock = _core.make_lock()
        if host and connect:
            self.open(host, port, principal)
        elif host:
            self._session.stay_closed(_core.check_target(host, port, principal))

    # Settings.

    def set_ccache(self, ccache: str | os.PathLike[str]) -> None:
        """Use a credential cache in every later `open()`; an open connection is not affected.

        Args:
            ccache: a path, or another name that the Kerberos library accepts ("KCM:",
                "MEMORY:name").

        Raises:
            TypeError, ValueError: it cannot be the name of a credential cache.
            RemctlError: the GSS-API library cannot do this.  With some libraries, but not MIT's, it
                affects the whole process: see remctl_set_ccache(3).
        """
        self._session.set_ccache(ccache)

    def set_source_ip(self, source: str) -> None:
        """Connect from an address in every later `open()`.

        Args:
            source: an IPv4 or IPv6 address; the host's addresses of the other kind are not tried.

        Raises:
            TypeError, ValueError: it is not an IP address.
        """
        self._session.source_ip = _core.check_source_ip(source)

    def set_timeout(self, timeout: float) -> None:
        """Limit how long the network may be silent, in all later operations.

        It does not limit a whole operation: with 10 seconds, a server that sends some output every
        9 may take for ever; use the deadline of `run()` for that.  It applies separately to waiting
        for another thread's command, looking up the host, connecting to each address,
        authenticating (and each wait for a KDC), sending, and each piece of an answer.

        Args:
            timeout: seconds, fractions included; 0 is no limit.

        Raises:
            TypeError: it is not a number.
            RemctlError: it is negative.
        """
        self._session.set_timeout(timeout)

    # Opening and closing.

    def open(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        deadline: float | None = None,
    ) -> None:
        """Connect to a server and authenticate.  A connection that is open is closed first.

        Args:
            host, port, principal: see `Remctl`.
            deadline: seconds for the whole call; None is for ever.

        Raises:
            TypeError, ValueError: an argument is invalid.
            RemctlConnectError: no connection to the host.
            RemctlAuthenticationError: there is no ticket, the server is another one, or it did not
                accept the client.
            RemctlTimeoutError: the network was silent for too long, or the deadline passed.
            RemctlNotOpenedError: another thread called `close()` during the call.
        """
        until = _core.deadline_in(deadline)
        self._do(self._session.start, _core.check_target(host, port, principal), until=until)

    def close(self) -> None:
        """Close the connection; a call in another thread ends with RemctlNotOpenedError.

        It never waits.  Closing again does nothing.  The object can be opened again.
        """
        self._session.close()
        self._session.error = "no currently open connection"

    def _do(self, operation: Callable[..., Steps[T]], *arguments: Any, until: float = 0.0) -> T:
        """Run an operation of the session, once those of other threads have ended."""
        session = self._session
        if session.is_inherited():  # Another thread may hold the lock for ever.
            session.leave_to_parent()
            self._lock = _core.make_lock()
        mine = False
        try:
            try:
                mine = self._lock.acquire(blocking=False)
                if not mine:
                    self._await_turn(until)
                    mine = True
                session.deadline = until
                session.error = "no error"
                return _core.finish(operation(*arguments))
            finally:
                # Signal handlers run after calls: so there is no call before the release.
                if mine or self._lock._is_owned():
                    self._lock.release()
        except RemctlError:
            raise
        except BaseException:
            # A signal handler may have raised between two steps: then a token is lost, or nobody
            # will read the output of a command.
            if mine:
                session.drop()
            raise

    def _await_turn(self, until: float) -> None:
        """Wait for another thread's command, as long as the timeout and the deadline allow."""
        seconds, reason = self._session.patience(until)
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            text = f"{reason} waiting for another thread's command"
            raise self._session.failed(RemctlTimeoutError(text))

    # Commands.

    def command(self, comm: Iterable[Any], *, input: _Input | None = None) -> None:
        """Send a command; `output()` or `tokens()` then read what it produces.

        Args:
            comm: the command, its subcommand and its arguments: an iterable of bytes, str
                (sent as UTF-8), paths, or objects that str() converts.  Only an argument that the
                server passes on standard input may contain NUL octets (remctld(8), "stdin=").
            input: one more argument, for a command whose last one is its standard input; a binary
                file is read to its end.

        Raises:
            TypeError, ValueError: a server would not accept that command; nothing was sent.
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlBusyError: a command is running whose output has not been read to the end.
            RemctlProtocolError: see `open()` if the connection had to be opened again, and
                RemctlTimeoutError, RemctlDisconnectedError for sending.
        """
        self._session.check_opened()
        self._do(self._session.send, _core.Command(comm, input))

    def output(self) -> RemctlOutput:
        """Return the next token of the running command.

        A command produces any number of "output" tokens, and then one "status" or "error" token.
        After that, and if no command was sent, the result is a "done" token.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlTimeoutError: the network was silent for too long.
            RemctlDisconnectedError: the connection was lost.
            RemctlAnswerError: the server violated the protocol.
        """
        return self._do(self._session.output)

    def missing(self) -> int:
        """Return how many octets have to arrive, at least, before `output()` returns at once.

        For event loops: 0 means that reading a token does not wait.  Otherwise the descriptor (see
        `fileno()`) becomes readable when that many octets have arrived (on Linux), or one has.  For
        a token that is larger than the socket's buffer, the result is 0 as soon as the buffer is
        full, and `output()` waits for the rest.  If the connection is lost, the result is 0, and
        `output()` raises at once.  While another thread is in a call, the result is 1.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
        """
        self._session.check_opened()
        return self._session.missing()

    def tokens(self) -> RemctlTokens:
        """Iterate over the tokens of the running command, up to its "status" token.

        If the iteration ends early (the iterator is dropped or closed, its ``with`` block ends, or
        an exception is raised), the connection is closed: there is no other way not to wait for the
        rest.  The next command opens it again.

        Raises:
            RemctlServerError: the server sent an "error" token.
            RemctlError: see `output()`.
        """
        return RemctlTokens(self, self._session.connected())

    def stream(
        self,
        command: Iterable[Any],
        *,
        input: _Input | None = None,
        deadline: float | None = None,
    ) -> RemctlTokens:
        """Send a command and iterate over its tokens: `command()` and `tokens()` in one.

        The command is sent at once, not when the first token is requested.

        Args:
            command, input: see `command()`.
            deadline: seconds after which reading the next token raises RemctlTimeoutError.
        """
        until = _core.deadline_in(deadline)
        self._session.check_opened()
        handle = None
        try:
            handle = self._do(self._session.send, _core.Command(command, input), until=until)
            return RemctlTokens(self, handle, until)
        except BaseException:
            self._session.abandon(handle)
            raise

    def run(
        self,
        command: Iterable[Any],
        *,
        input: _Input | None = None,
        stdout: _OutputFile | None = None,
        stderr: _OutputFile | None = None,
        deadline: float | None = None,
    ) -> RemctlSimpleResult:
        """Run a command to its end.

        Args:
            command, input: see `command()`.
            stdout, stderr: binary files to write that stream to as it arrives, instead of keeping
                it in memory; it is None in the result.  `DEVNULL` discards it.  For stderr,
                `STDOUT` merges it into standard output, in the order in which it arrives.
            deadline: seconds for the whole call; writing to a file is not interrupted.

        Returns:
            Its output and status.  A status other than 0 does not raise: see
            `RemctlSimpleResult.check()`.

        Raises:
            RemctlServerError: the server refused the command.
            RemctlTimeoutError: the network was silent for too long, or the deadline has passed.
            RemctlError: see `command()` and `output()`.
            OSError: a file could not be written; the connection was closed.
        """
        until = _core.deadline_in(deadline)
        collector = _core.Collector(stdout, stderr)
        self._session.check_opened()
        return self._do(self._session.run, _core.Command(command, input), collector, until=until)

    def noop(self, *, deadline: float | None = None) -> bool:
        """Ask the server for a sign of life, which also keeps an idle connection alive.

        Args:
            deadline: seconds for the whole call; None is for ever.

        Returns:
            True if it answered; False if it does not support this (protocol 1 or 2).  The
            connection stays open in both cases.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlBusyError: a command is running.
            RemctlTimeoutError: the network was silent for too long, or the deadline passed.
            RemctlDisconnectedError: the connection was lost just now.  If it was lost earlier, it
                is opened again, as by a command.
            RemctlAnswerError: the server violated the protocol.
        """
        return self._do(self._session.ping, until=_core.deadline_in(deadline))

    # Looking.

    @property
    def opened(self) -> bool:
        """True after `open()` until `close()`, even if the connection was lost.

        It can be set: while it is False, commands raise RemctlNotOpenedError.
        """
        return self._session.opened

    @opened.setter
    def opened(self, opened: bool) -> None:
        self._session.opened = bool(opened)

    def error(self) -> str:
        """Return the text of the last failure, the same as that of its exception."""
        return self._session.error

    def fileno(self) -> int:
        """Return the connection's descriptor, to wait for output in an event loop.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
            RemctlDisconnectedError: the connection was lost; the next command opens it again.
        """
        return self._session.fileno()

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
        return f"<Remctl{self._session}>"

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None:
            session.warn_unclosed(self)


class RemctlTokens(filter):  # type: ignore[type-arg]
    """The tokens of one command, to iterate over; see `Remctl.tokens()`.

    Leaving it before the last token closes the connection.
    """

    # A filter that passes everything iterates in C.  A signal handler could raise at the start of a
    # Python method, and the exception would keep the iterator alive.

    _tokens: Generator[RemctlOutput, None, None]

    def __new__(cls, connection: Remctl, handle: _remctl.Handle, until: float = 0.0) -> Self:
        """Begin to iterate."""
        tokens = _tokens(connection, handle, until)
        next(tokens)  # Only a generator that has begun notices that it is dropped.
        self: Self = super().__new__(cls, None, tokens)
        self._tokens = tokens
        return self

    def close(self) -> None:
        """End the iteration; close the connection, unless the last token was read."""
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _tokens(
    connection: Remctl, handle: _remctl.Handle, until: float
) -> Generator[RemctlOutput, None, None]:
    session = connection._session
    kind = "output"
    try:
        yield RemctlOutput("done", None, None, None, None)  # for RemctlTokens.__new__()
        while kind == "output":
            token = connection._do(session.next_token, handle, until=until)
            kind = token[0]
            if kind != "done":
                yield token
    finally:
        session.abandon(handle)


# -- The simple interface -------------------------------------------------------------------------


def remctl(
    host: str,
    port: int | str | None = None,
    principal: str | None = None,
    command: Iterable[Any] = (),
    *,
    input: _Input | None = None,
    stdout: _OutputFile | None = None,
    stderr: _OutputFile | None = None,
    timeout: float | None = None,
    deadline: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: RemctlCredentials | None = None,
) -> RemctlSimpleResult:
    """Connect to a host, run one command and close: a `Remctl`, used once.

    Args:
        host, port, principal, timeout, ccache, source_ip, credentials: see `Remctl`.
        command, input, stdout, stderr: see `Remctl.run()`.
        deadline: seconds for the whole call, connecting included.

    Returns:
        The output and status of the command.

    Raises:
        TypeError, ValueError: an argument is invalid; nothing was sent.
        RemctlProtocolError: communication failed, or the server refused the command; see the
            subclasses.
        OSError: a file could not be written.
    """
    until = _core.deadline_in(deadline)
    target = _core.check_target(host, _core.check_named_port(port), principal)
    checked = _core.Command(command, input)
    collector = _core.Collector(stdout, stderr)
    connection = Remctl(
        timeout=timeout, ccache=ccache, source_ip=source_ip, credentials=credentials
    )
    try:
        connection._do(connection._session.start, target, until=until)
        return connection._do(connection._session.run, checked, collector, until=until)
    finally:
        connection.close()


# Show these classes as part of this module, to users and to pickles.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__

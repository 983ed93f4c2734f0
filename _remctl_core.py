"""Internal code that ``remctl`` and ``remctl_toolkit`` share; other programs should not use it.

`Session` implements the operations of a connection as generators.  Whenever a generator has to
wait, it yields the descriptor that has to become readable, and the number of seconds to wait at
most (None is for ever).  The caller waits, and sends it whether the descriptor is readable.  So
there is one implementation of each operation, and several ways to wait: `finish()` for greenlets,
the event loop for asyncio.  For threads, C waits, and the generators do not yield.
"""

from __future__ import annotations

import os
import select
import sys
import time
from _thread import RLock, start_new_thread
from _warnings import warn

import _remctl

from _remctl_arguments import (
    DEVNULL,
    STDOUT,
    Collector,
    Command,
    check_ccache,
    check_credentials,
    check_host,
    check_keepalive,
    check_named_port,
    check_port,
    check_principal,
    check_seconds,
    check_source_ip,
    check_target,
    deadline_in,
    is_file,
    read_input,
)
from _remctl_text import printable
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
    RemctlStream,
    RemctlTimeoutError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Generator
    from typing import Any, TypeVar

    from _remctl_arguments import Octets, Readable, Target

    T = TypeVar("T")
    Wants = tuple[int, float | None]
    Steps = Generator[Wants, bool, T]

__all__ = [
    "DEVNULL",
    "STDOUT",
    "Collector",
    "Command",
    "Session",
    "check_ccache",
    "check_credentials",
    "check_host",
    "check_keepalive",
    "check_named_port",
    "check_port",
    "check_principal",
    "check_seconds",
    "check_source_ip",
    "check_target",
    "deadline_in",
    "finish",
    "is_file",
    "make_lock",
    "read_input",
]

# Seconds between checks whether an uninterruptible wait has been given up.
_POLL_INTERVAL = 0.1

# Octets after which a session that does not block lets others run.  A token adds _TOKEN_COST.
_FAIR_SHARE = 256 * 1024
_TOKEN_COST = 2048

_LET_OTHERS_RUN = (-1, 0.0)

fork_count = _remctl.fork_count

_STREAMS = (None, RemctlStream.STDOUT, RemctlStream.STDERR)
_ERROR_CODES: dict[int | None, RemctlErrorCode] = {c.value: c for c in RemctlErrorCode}
_new_tuple = tuple.__new__
_DONE = RemctlOutput("done", None, None, None, None)


def token(fields: tuple[Any, ...]) -> RemctlOutput:
    """Convert a token of `_remctl`."""
    kind, output, stream, status, code = fields
    if stream is not None:
        stream = _STREAMS[stream]
    if code is not None:
        code = _ERROR_CODES.get(code, code)
    # Equal to RemctlOutput(...), without the cost of another Python frame for each token.
    return _new_tuple(RemctlOutput, (kind, output, stream, status, code))


# -- Waiting --------------------------------------------------------------------------------------


def is_patched() -> bool:
    """Return whether gevent or eventlet has patched the functions that wait."""
    patched: object = select.select
    return type(patched) is not type(len)


def make_lock() -> Any:
    """Return a reentrant lock; under gevent or eventlet, one that tells greenlets apart."""
    return sys.modules["threading"].RLock() if is_patched() else RLock()


def _wait(wants: Wants) -> bool:
    """Wait until a descriptor is readable; return whether it is."""
    descriptor, seconds = wants
    if descriptor < 0:
        time.sleep(0)  # This lets other greenlets run; a select() that need not wait does not.
        return False
    if is_patched():
        return bool(select.select([descriptor], [], [], seconds)[0])
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if seconds is None else seconds * 1000))


def finish(steps: Generator[Any, Any, T], wait: Callable[[Any], Any] = _wait) -> T:
    """Run the steps of an operation to their end, waiting as greenlets or threads do.

    Args:
        steps: the operation.
        wait: waits for what a step yields, and returns what to send to the operation.
    """
    try:
        wants = next(steps)
        while True:
            try:
                answer = wait(wants)
            except BaseException as error:
                wants = steps.throw(error)
            else:
                wants = steps.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


class _ThreadCall:
    """A call of a user's function in a thread; if no thread can be started, in place.

    Attributes:
        descriptor: becomes readable when the function has returned.
        done: whether the function has returned.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = False
        self.descriptor, self._end = os.pipe()
        try:
            start_new_thread(self._run, ())
        except RuntimeError:
            self._run()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        self.done = True
        os.close(self._end)

    def result(self) -> Any:
        """Return the function's result, or raise its exception."""
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # Its traceback holds this frame, which would be a cycle.


# -- Logging --------------------------------------------------------------------------------------

_logger: logging.Logger | None = None


def log(message: str, *arguments: object) -> None:
    """Log for debugging, if the program has imported logging."""
    global _logger
    if _logger is None:
        logging = sys.modules.get("logging")
        if logging is None:
            return
        _logger = logging.getLogger("remctl")
    if _logger.isEnabledFor(10):  # DEBUG; testing this here saves a call of debug().
        _logger.debug(message, *arguments)


# -- Failures -------------------------------------------------------------------------------------

# The exception class for each handle.failure.
_CLASSES: dict[str, type[RemctlError]] = {
    "lookup": RemctlConnectError,
    "connect": RemctlConnectError,
    "timeout": RemctlTimeoutError,
    "closed": RemctlNotOpenedError,
    "running": RemctlBusyError,
    "disconnected": RemctlDisconnectedError,
    "resource": RemctlProtocolError,
}

# Failures after which no part of a command was sent.
_NOT_SENT = ("running", "disconnected", "resource", "usage")

# Errors with which a server refuses a command without running it.
_REFUSALS = frozenset(RemctlErrorCode) - {RemctlErrorCode.INTERNAL}


def _library_class(text: str, *, opening: bool) -> type[RemctlError]:
    """Choose the class of a failure for which libremctl has only a text."""
    if text.endswith(": timed out"):  # by libremctl's own time limit
        return RemctlTimeoutError
    if opening:
        return RemctlAuthenticationError
    if text.startswith(("cannot connect to", "unknown host")):  # with protocol 1, for each command
        return RemctlConnectError
    network = text.startswith(("error sending", "error receiving"))
    if network and not text.endswith((": token too larger", ": invalid token format")):
        return RemctlDisconnectedError
    return RemctlAnswerError


def _make_failure(kind: str, text: str, number: int, *, opening: bool) -> RemctlError:
    if opening and kind == "resource":
        kind = "connect"
    chosen = _CLASSES.get(kind) or _library_class(text, opening=opening)
    failure = chosen(text)
    names_number = kind in ("connect", "resource") or text.startswith("cannot connect")
    if number and names_number and isinstance(failure, RemctlProtocolError):
        failure.errno = number
    return failure


# -- Sessions -------------------------------------------------------------------------------------


class Session:
    """A connection, its settings, and its operations as generators that yield their waits.

    Args:
        blocking: whether C waits where it can; otherwise every wait is yielded.
        peers: the word for others who may close the connection: "thread" or "task".
        timeout, ccache, source_ip, credentials, keepalive: see `remctl.Remctl`.

    Attributes:
        handle: the connection, or None.
        target: the host, port and principal to connect to, or None.
        address: an IP address to connect to instead of the host's addresses, or None.
        deadline: when the current call has to end, on the monotonic clock; 0 is never.
        opened: whether commands may be sent.
        error: the text of the last failure.
    """

    def __init__(
        self,
        *,
        blocking: bool,
        peers: str = "thread",
        timeout: float | None,
        ccache: str | os.PathLike[str] | None,
        source_ip: str | None,
        credentials: RemctlCredentials | None,
        keepalive: float | None,
    ) -> None:
        self.handle: _remctl.Handle | None = None
        self.target: Target | None = None
        self.address: str | None = None
        self.deadline = 0.0
        self.opened = False
        self.error = "no error"
        self.timeout = 0.0 if timeout is None else check_seconds(timeout)
        self.ccache = None if ccache is None else check_ccache(ccache)
        self.source_ip = None if source_ip is None else check_source_ip(source_ip)
        self.credentials = check_credentials(credentials, ccache)
        self.keepalive = check_keepalive(keepalive)
        self._blocking = blocking
        self._peers = peers
        self._used_ccache = self.ccache  # or the one that credentials named last
        self._applied_timeout = 0.0  # the handle's timeout
        self._share = _FAIR_SHARE
        self._was_open = False
        self._has_output = False  # of the running command
        self._parent: int | None = None  # the process that the last connection belongs to
        self._parent_runs = False  # whether the parent runs a command and will read its output
        self._own_process()

    # Processes.

    def _own_process(self) -> None:
        self._forks = fork_count()
        self._pid = os.getpid()

    def is_inherited(self) -> bool:
        """Return whether the session belongs to the parent of this forked process."""
        return bool(self._forks != fork_count())

    def leave_to_parent(self) -> None:
        """Make the session this process's own, without touching the parent's connection."""
        parent, handle = self._pid, self.handle
        self._parent_runs = handle is not None and handle.expecting
        self.drop()
        self._own_process()
        self._parent = parent

    # Settings.

    def set_ccache(self, ccache: str | os.PathLike[str]) -> None:
        """Use a credential cache for connections that are opened later.

        Raises:
            TypeError, ValueError: it cannot be the name of a credential cache.
            RemctlError: the Kerberos library cannot do this.
        """
        name = check_ccache(ccache)
        probe = _remctl.remctl_new()
        if not _remctl.remctl_set_ccache(probe, name):
            raise self.failed(RemctlError(printable(_remctl.remctl_error(probe))))
        self.ccache = name
        self.credentials = None

    def set_timeout(self, timeout: float) -> None:
        """Limit how long the network may be silent; see `remctl.Remctl.set_timeout()`."""
        number: Any = timeout
        if hasattr(number, "__index__"):
            number = int(number)
        try:
            self.timeout = check_seconds(number)
        except ValueError as error:
            raise self.failed(RemctlError(str(error))) from None

    def patience(self, until: float) -> tuple[float | None, str]:
        """Return the seconds to wait for another call to end, and the reason for the limit."""
        limits: list[tuple[float, str]] = []
        if self.timeout:
            limits.append((self.timeout, "timed out"))
        if until:
            limits.append((max(until - time.monotonic(), 0), "deadline passed"))
        return min(limits, default=(None, ""))

    # Closing.

    def close(self) -> None:
        """Close the connection; an operation that waits ends with RemctlNotOpenedError."""
        self.target = None
        self.opened = False
        self.drop()

    def warn_unclosed(self, owner: object) -> None:
        """Close the connection of an owner that is being destroyed, with a warning."""
        if self.is_connected():
            if not sys.is_finalizing():
                text = f"unclosed {owner!r}: use it in a with statement, or call close()"
                warn(text, ResourceWarning, 3, owner)
            self.drop()  # Not close(): a copy of the owner may be in use.

    def drop(self) -> None:
        """Close the connection; the next command opens it again."""
        handle, self.handle = self.handle, None
        if handle is not None:
            _remctl.remctl_close(handle)

    def abandon(self, handle: _remctl.Handle | None) -> None:
        """Close the connection if it runs a command whose output nobody will read."""
        if handle is not None and handle.expecting and self.handle is handle:
            self.drop()

    # Failures.

    def failed(self, error: RemctlError, target: Target | None = None) -> RemctlError:
        """Record a failure for error(), add host, port and advice to the exception; return it."""
        self.error = str(error)
        target = target or self.target
        if target is not None and error.host is None:
            error.host = target[0]
            error.port = target[1] or None
            try:
                from _remctl_hints import add_advice
            except (ImportError, OSError):  # At interpreter exit, or without a free descriptor.
                return error
            add_advice(error, target, self._used_ccache)
        return error

    def _failure(self, handle: _remctl.Handle, *, opening: bool = False) -> RemctlError:
        """Make the exception for the failure of the last call."""
        try:
            text = printable(_remctl.remctl_error(handle))
        except ValueError:  # Another thread has just closed it.
            return self._closed()
        if handle.failure == "closed":
            return self._closed()
        return self.failed(_make_failure(handle.failure, text, handle.errno, opening=opening))

    def _closed(self) -> RemctlError:
        return self.failed(RemctlNotOpenedError(f"connection closed by another {self._peers}"))

    def _unsent(self, handle: _remctl.Handle) -> RemctlError:
        """Make the exception for a command that could not be sent completely."""
        error = self._failure(handle)
        error.may_have_run = handle.failure not in _NOT_SENT
        return error

    def _left(self) -> RemctlError:
        """Make the exception for a connection that was closed while its tokens were read."""
        text = "connection closed, or opened again, while its tokens were read"
        error = self.failed(RemctlNotOpenedError(text))
        error.may_have_run = True
        return error

    def _lost(self, handle: _remctl.Handle) -> RemctlError:
        """Make the exception for a command that was sent, but not answered."""
        error = self._failure(handle)
        error.may_have_run = True
        return error

    def refusal(self, text: bytes | None, code: int | None) -> RemctlServerError:
        """Make the exception for an "error" token."""
        error = RemctlServerError(printable(text or b""))
        error.code = _ERROR_CODES.get(code, code or 0)
        error.may_have_run = self._has_output or error.code not in _REFUSALS
        self.failed(error)
        return error

    def _leave_answer(self, code: int | None) -> None:
        """Drop the connection if the server may send a second answer to this command.

        remctld 3.18 answers a "help" with too many arguments with an error, and then with the help.
        """
        if code == RemctlErrorCode.TOOMANY_ARGS:
            self.drop()

    # Operations.

    def check_opened(self) -> Target:
        """Return the target.

        Raises:
            RemctlNotOpenedError: no connection was opened, or it was closed.
        """
        target = self.target
        if target is None or not self.opened:
            raise self.failed(RemctlNotOpenedError("no currently open connection"))
        return target

    def connected(self) -> _remctl.Handle:
        """Return the handle, for an operation that does not open the connection again.

        Raises:
            RemctlNotOpenedError: no connection was opened, it was closed, or it was the parent's.
            RemctlDisconnectedError: it was lost.
        """
        target = self.check_opened()
        if self.handle is not None:
            return self.handle
        if self._parent is not None:
            text = f"connection belongs to process {self._parent}: the next command opens another"
            raise self.failed(RemctlNotOpenedError(text), target)
        raise self.failed(RemctlDisconnectedError("no connection open"), target)

    def _begin(self, function: Callable[..., Any], handle: _remctl.Handle, *arguments: Any) -> Any:
        """Call a function of `_remctl`; return None if its end has to be awaited."""
        try:
            if self._applied_timeout != self.timeout:
                _remctl.remctl_set_timeout(handle, self.timeout)
                self._applied_timeout = self.timeout
            handle.deadline = self.deadline
            return function(handle, *arguments)
        except (_remctl.ClosedError, _remctl.BusyError) as error:
            raise self._unusable(error) from None

    def _end(self, handle: _remctl.Handle) -> Steps[Any]:
        """Wait until the current operation ends, and return its result."""
        answer = None
        try:
            while answer is None:
                answer = yield from self._poll(handle)
        except (_remctl.ClosedError, _remctl.BusyError) as error:
            raise self._unusable(error) from None
        return answer

    def _poll(self, handle: _remctl.Handle) -> Steps[Any]:
        """Wait once, and continue the operation; return None if it has to wait again."""
        try:
            readable = yield handle.wants
        except BaseException:
            _remctl.remctl_cancel(handle)
            raise
        return _remctl.remctl_poll(handle, readable)

    def _unusable(self, error: Exception) -> RemctlError:
        """Make the exception for a handle that `_remctl` refuses."""
        if isinstance(error, _remctl.ClosedError):
            return self._closed()
        return self.failed(RemctlBusyError(str(error)))

    def in_thread(
        self,
        function: Callable[[], Any],
        purpose: str,
        wanted: Callable[[], bool] = lambda: True,
        until: float | None = None,
    ) -> Steps[Any]:
        """Call a user's function, which may block, in a thread.

        Args:
            function: the function.
            purpose: the end of the text of a timeout, such as "reading the input".
            wanted: returns False once the result is no longer needed.
            until: the deadline, on the monotonic clock; None is the session's.

        Raises:
            RemctlNotOpenedError: the result is no longer needed.
            RemctlProtocolError: this process has no descriptors left.
            RemctlTimeoutError: the timeout or the deadline has passed.
            BaseException: the exception of the function.
        """
        deadline = self.deadline if until is None else until
        quiet_until = time.monotonic() + self.timeout if self.timeout else None
        try:
            call = _ThreadCall(function)
        except OSError as error:
            text = f"cannot start a call in a thread: {error.strerror}"
            failure = _make_failure("resource", text, error.errno or 0, opening=False)
            raise self.failed(failure) from None
        try:
            while not call.done:
                now = time.monotonic()
                if not wanted():
                    raise self._closed()
                if quiet_until is not None and now >= quiet_until:
                    raise self.failed(RemctlTimeoutError(f"timed out {purpose}"))
                if deadline and now >= deadline:
                    raise self.failed(RemctlTimeoutError(f"deadline passed {purpose}"))
                yield call.descriptor, _POLL_INTERVAL
        finally:
            os.close(call.descriptor)
        return call.result()

    def _ask_credentials(
        self, credentials: RemctlCredentials, handle: _remctl.Handle
    ) -> Steps[str]:
        name = yield from self.in_thread(
            credentials.ccache, "waiting for credentials", lambda: self.handle is handle
        )
        return check_ccache(name)

    def open(self, target: Target) -> Steps[_remctl.Handle]:
        """Connect and authenticate.

        Raises:
            RemctlError: see `remctl.Remctl.open()`.
        """
        host, port, principal = target
        self._parent = None
        handle = self.handle = _remctl.remctl_new()
        handle.blocking = self._blocking and not is_patched()
        handle.keepalive = self.keepalive
        self._applied_timeout = 0.0
        try:
            if self.target is not target:  # close() was called before the handle existed.
                raise self._closed()
            ccache = self.ccache
            if self.credentials is not None:
                ccache = yield from self._ask_credentials(self.credentials, handle)
            self._used_ccache = ccache
            if ccache is not None and not _remctl.remctl_set_ccache(handle, ccache):
                raise self._failure(handle, opening=True)
            source = self.source_ip
            if source is not None and not _remctl.remctl_set_source_ip(handle, source):
                raise self._failure(handle, opening=True)
            start = time.monotonic()
            arguments = (host, port, principal, self.address)
            opened = self._begin(_remctl.remctl_open, handle, *arguments)
            if opened is None:
                opened = yield from self._end(handle)
            if not opened:
                raise self._failure(handle, opening=True)
            milliseconds = (time.monotonic() - start) * 1000
            log("opened a connection to %s in %.1f ms", printable(host), milliseconds)
            if self.handle is not handle:
                raise self._closed()
            self._was_open = True
        except BaseException as error:
            if self.handle is handle:
                self.drop()
            if isinstance(error, RemctlError):
                self.failed(error, target)
            raise
        return handle

    def start(self, target: Target) -> Steps[None]:
        """Close the connection, and open a new one; see `remctl.Remctl.open()`."""
        self.close()
        self.target = target
        try:
            yield from self.open(target)
            self.opened = True
        except BaseException:
            self.close()
            raise

    def stay_closed(self, target: Target) -> None:
        """Set the target; the first command connects."""
        self.target = target
        self.opened = True

    def reopen(self, target: Target) -> Steps[_remctl.Handle]:
        """Drop the connection, and open a new one."""
        log("opening the connection to %s", printable(target[0]))
        self.drop()
        return (yield from self.open(target))

    def send(self, command: Command) -> Steps[_remctl.Handle]:
        """Send a command; open the connection first, if necessary."""
        target = self.check_opened()
        handle = self.handle
        if handle is None or not handle.connected:
            handle = yield from self.reopen(target)
        unread = handle.expecting  # The caller of another command will read its output.
        try:
            if self.deadline and time.monotonic() >= self.deadline:
                text = "deadline passed before the command was sent"
                raise self.failed(RemctlTimeoutError(text))
            sent = self._begin(_remctl.remctl_commandv, handle, command.arguments)
            if sent is False and handle.failure == "disconnected":  # Nothing was sent.
                handle = yield from self.reopen(target)
                sent = self._begin(_remctl.remctl_commandv, handle, command.arguments)
            if sent is None:
                sent = yield from self._end(handle)
            if not sent:
                raise self._unsent(handle)
            self._has_output = False
            log("sent command %s", command)
            return handle
        except BaseException:
            if not unread:
                self.abandon(handle)
            raise

    def read(self, handle: _remctl.Handle, *, refuse: bool = False) -> Steps[RemctlOutput]:
        """Read a token of the running command; with `refuse`, raise an "error" token."""
        fields = self._begin(_remctl.remctl_output, handle)
        if fields is None:
            fields = yield from self._end(handle)
        if not fields:
            raise self._lost(handle)
        self._has_output = self._has_output or fields[0] == "output"
        if not handle.blocking and self._spend(fields[1]):
            yield _LET_OTHERS_RUN
        if fields[0] == "error":
            self._leave_answer(fields[4])
            if refuse:
                raise self.refusal(fields[1], fields[4])
        return token(fields)

    def output(self) -> Steps[RemctlOutput]:
        """Read the next token; see `remctl.Remctl.output()`."""
        if self.handle is None and self._parent is not None and not self._parent_runs:
            self.check_opened()
            return _DONE
        return (yield from self.read(self.connected()))

    def next_token(self, handle: _remctl.Handle) -> Steps[RemctlOutput]:
        """Read the next token of an iterator; see `remctl.Remctl.tokens()`."""
        # Not a generator itself: one more frame for each of very many tokens is too slow.
        if self._parent is not None:
            self.connected()  # raises
        if self.target is None or self.handle is not handle:
            raise self._left()
        return self.read(handle, refuse=True)

    def _spend(self, output: bytes | None) -> bool:
        """Count output; return whether it is time to let others run."""
        self._share -= _TOKEN_COST + len(output or b"")
        if self._share > 0:
            return False
        self._share = _FAIR_SHARE
        return True

    def _flush(self, collector: Collector, handle: _remctl.Handle) -> Steps[None]:
        """Write the buffered output to its files, in a thread."""
        for file in collector.files:
            if not file.is_unwritten():
                continue
            purpose = "writing the output to a file"
            try:
                yield from self.in_thread(file.flush, purpose, lambda: self.handle is handle)
            except RemctlTimeoutError as error:
                error.may_have_run = True
                raise

    def _cut_short(self, collector: Collector) -> RemctlError:
        error = self._closed()
        error.partial, error.may_have_run = collector.result(), True
        return error

    def read_file(self, file: Readable, until: float) -> Steps[Octets]:
        """Read a command's input in a thread."""
        octets: Octets = yield from self.in_thread(
            lambda: read_input(file), "reading the input", until=until
        )
        return octets

    def collect(self, handle: _remctl.Handle, collector: Collector) -> Steps[RemctlSimpleResult]:
        """Read a command's output to the end."""
        write = collector.write
        receive: Callable[..., Any] = _remctl.remctl_output
        waits = not handle.blocking
        try:
            while True:
                fields = receive(handle)
                while fields is None:
                    yield from self._flush(collector, handle)
                    fields = yield from self._poll(handle)
                if not fields:
                    raise self._lost(handle)
                kind, output, stream, status, code = fields
                if kind != "output":
                    break
                self._has_output = True
                write[stream](output)
                if waits and self._spend(output):
                    yield from self._flush(collector, handle)
                    yield _LET_OTHERS_RUN
            if collector.files:
                yield from self._flush(collector, handle)
            if kind == "error":
                self._leave_answer(code)
                raise self.refusal(output, code)
        except _remctl.ClosedError:
            raise self._cut_short(collector) from None
        except RemctlError as error:
            error.partial = collector.result()
            raise
        return collector.result(status)

    def run(self, command: Command, collector: Collector) -> Steps[RemctlSimpleResult]:
        """Run a command to its end."""
        start = time.monotonic()
        handle = None
        try:
            handle = yield from self.send(command)
            result = yield from self.collect(handle, collector)
        except BaseException:
            self.abandon(handle)
            raise
        milliseconds = (time.monotonic() - start) * 1000
        log("%s: status %d in %.1f ms", command, result.status, milliseconds)
        return result

    def ping(self) -> Steps[bool]:
        """Ask the server for a sign of life; see `remctl.Remctl.noop()`."""
        target = self.check_opened()
        handle = self.handle
        if handle is None or not handle.connected:
            handle = yield from self.reopen(target)
        alive = self._begin(_remctl.remctl_noop, handle)
        if alive is None:
            alive = yield from self._end(handle)
        if alive:
            return True
        if handle.failure == "unsupported":
            return False
        raise self._failure(handle)

    def missing(self) -> int:
        """Return the number of octets to wait for; see `remctl.Remctl.missing()`."""
        handle = self.handle
        if handle is None:
            return 0
        try:
            return _remctl.remctl_missing(handle)
        except _remctl.ClosedError:
            return 0

    # Looking.

    def is_connected(self) -> bool:
        """Return whether this process has a connection, as far as is known."""
        handle = self.handle
        return handle is not None and handle.connected and not self.is_inherited()

    def fileno(self) -> int:
        """Return the descriptor; see `remctl.Remctl.fileno()`."""
        self.check_opened()
        handle = self.handle
        if handle is None or handle.fd < 0 or self.is_inherited():
            raise self.failed(RemctlDisconnectedError("no connection open"))
        return handle.fd

    def __str__(self) -> str:
        """Describe the connection, for the repr of its owner."""
        target = self.target
        if target is None:
            return ", not open"
        host, port, principal = target
        handle = self.handle
        state = "lost" if self._was_open else "not connected yet"
        if handle is not None and handle.connected:
            state = "open"
        if handle is not None and handle.expecting:
            state = "running a command"
        return printable(
            f" {host}"
            + (f" port {port}" if port else "")
            + (f" as {principal}" if principal else "")
            + f", {state}"
        )

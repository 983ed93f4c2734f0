"""One command on one host: connecting, retries, time limits, and the outcome."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field

import _remctl_core as _core
import remctl

from . import schedule
from ._settings import Settings
from .hosts import Host
from .schedule import Deadline, GivenUpError, NotStartedError

OnOutput = Callable[[Host, remctl.RemctlStream, bytes], object]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command on one host.

    Attributes:
        host: the host.
        result: the result of the command; None if there was an exception.
        error: the exception; None if there is a result.
        seconds: the time it took, including all attempts to connect.
        attempts: the number of attempts to connect; 0 if the connection was open.
        may_have_run: False if the server did not run the command, because nothing was sent or
            because it refused, so that repeating is safe.  True in all other cases, also if that
            is not known, for example because a worker of an executor has died.

    Args:
        sent: whether the command may have been sent; None takes `may_have_run` from the exception.
    """

    host: Host
    result: remctl.RemctlSimpleResult | None = None
    error: Exception | None = None
    seconds: float = 0.0
    attempts: int = 0
    may_have_run: bool = field(init=False)
    sent: InitVar[bool | None] = None

    def __post_init__(self, sent: bool | None) -> None:
        told = getattr(self.error, "may_have_run", True)
        object.__setattr__(self, "may_have_run", bool(told) if sent is None else sent)

    @property
    def ok(self) -> bool:
        """True if the command ended with status 0."""
        return self.result is not None and self.result.status == 0

    @property
    def started(self) -> bool:
        """True if the host was attempted."""
        return not isinstance(self.error, NotStartedError)

    @property
    def reason(self) -> str:
        """The reason of a failure as text; "" if there was none."""
        if self.error is not None:
            return str(self.error) or type(self.error).__name__
        try:
            self.check()
        except remctl.RemctlStatusError as error:
            return str(error)
        return ""

    @property
    def advice(self) -> str:
        """Advice for a failure; "" if the cause is unknown, or there was no failure."""
        return str(getattr(self.error, "advice", ""))

    def check(self) -> remctl.RemctlSimpleResult:
        """Return the result of a command that succeeded.

        Raises:
            RemctlStatusError: its status is not 0.
            Exception: `error`, if there is one.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        assert self.result is not None
        return self.result.check()

    def __str__(self) -> str:
        return f"{self.host}: {self.reason or 'ok'} ({self.seconds:.1f} s)"


@dataclass(frozen=True, repr=False)
class Work:
    """A command for one host, as an executor receives it; it can be pickled.

    Attributes:
        host: the host.
        command: the command, without its input.
        input: the input, or None.
        settings: how to connect.
        limit: the time limit in seconds; None is for ever.
        ticket: a random string, because some executors run equal tasks only once.
    """

    host: Host
    command: tuple[bytes, ...]
    input: bytes | None
    settings: Settings
    limit: float | None
    ticket: str = field(default_factory=lambda: os.urandom(16).hex())

    def __repr__(self) -> str:
        # Executors log it, and arguments, input and settings may be secret.
        return f"<Work for {self.host}: {_core.Command(self.command)}>"


class HostRun:
    """One command on one host.

    Args:
        work: the command.
        session: a connection to keep; None opens one, and closes it at the end.
        on_output: called with every piece of output as it arrives.
    """

    def __init__(
        self, work: Work, session: remctl.Remctl | None = None, on_output: OnOutput | None = None
    ) -> None:
        host = work.host
        self._work = work
        self._keep = session is not None
        self._connection = session or work.settings.connection(host.name, host.port, host.principal)
        self._on_output = on_output
        self._attempts = 0
        self._sent: bool | None = None  # None: `may_have_run` of the exception says it.
        self._deadline = Deadline(None)
        self._given_up = threading.Event()

    def outcome(self) -> Outcome:
        """Run the command; every exception becomes part of the outcome."""
        start = schedule.clock.now()
        self._deadline = Deadline(self._work.limit)
        result = failure = None
        try:
            result = self._run()
        except Exception as error:
            failure = self._explain(error)
        finally:
            if not self._keep:
                self._connection.close()
        seconds = schedule.clock.now() - start
        return Outcome(self._work.host, result, failure, seconds, self._attempts, sent=self._sent)

    def give_up(self) -> None:
        """Close the connection for good; for other threads."""
        self._given_up.set()
        self._connection.close()

    def _explain(self, error: Exception) -> Exception:
        """Replace an error that was caused by the time limit or by `give_up()`."""
        if self._sent or not isinstance(error, remctl.RemctlError):
            return error
        cause: remctl.RemctlError | None = None
        if isinstance(error, remctl.RemctlTimeoutError) and self._deadline.passed():
            cause = remctl.RemctlTimeoutError("time limit reached")
        elif isinstance(error, remctl.RemctlNotOpenedError) and self._given_up.is_set():
            cause = GivenUpError("interrupted")
        if cause is not None:
            vars(cause).update(vars(error))
            error = cause
        error.host = self._work.host.name
        error.port = self._work.host.port or _core.check_port(self._work.settings.port) or None
        # The frames of its traceback would be a reference cycle for each host.
        error.__context__ = None
        return error.with_traceback(None)

    def _run(self) -> remctl.RemctlSimpleResult:
        pieces: dict[remctl.RemctlStream, list[bytes]] = {each: [] for each in remctl.RemctlStream}
        status = None
        with self._send() as tokens:
            try:
                for token in tokens:
                    if token.type == "output":
                        pieces[token.stream].append(token.output)
                        if self._on_output is not None:
                            self._sent = True  # Its exceptions say nothing about this command.
                            self._on_output(self._work.host, token.stream, token.output)
                            self._sent = None
                    else:
                        status = token.status
            except remctl.RemctlError as error:
                if not self._sent:
                    error.partial = _result(pieces)
                raise
        return _result(pieces, status)

    def _send(self) -> remctl.RemctlTokens:
        """Send the command; connect if necessary, and retry temporary failures."""
        settings, connection = self._work.settings, self._connection
        while True:
            if self._deadline.passed():  # during a pause
                raise remctl.RemctlTimeoutError("time limit reached")
            before = self._socket()
            limits = filter(None, (settings.timeout, settings.connect_timeout))
            connection.set_timeout(min(limits, default=0.0))
            try:
                tokens = connection.stream(
                    self._work.command, input=self._work.input, deadline=self._deadline.remaining()
                )
            except remctl.RemctlError as error:
                self._attempts += before is None or self._socket() != before
                if not self._may_repeat(error):
                    raise
            else:
                self._attempts += before is None or self._socket() != before
                connection.set_timeout(settings.timeout or 0.0)
                return tokens
            pause = self._deadline.remaining(settings.pause(self._attempts))
            schedule.clock.wait(self._given_up, pause)

    def _may_repeat(self, error: remctl.RemctlError) -> bool:
        """Return whether to try again: nothing was sent, and the failure may be temporary."""
        left = self._attempts <= self._work.settings.retries and not self._deadline.passed()
        if not left or error.may_have_run:
            return False
        if isinstance(error, remctl.RemctlConnectError):
            return error.errno is not None  # Otherwise the host is unknown.
        if isinstance(error, remctl.RemctlTimeoutError | remctl.RemctlDisconnectedError):
            return True
        lost = str(error).endswith("unexpected end of file")
        return lost and isinstance(error, remctl.RemctlAuthenticationError)

    def _socket(self) -> int | None:
        """Return a number that identifies the socket; None without a socket."""
        if not self._keep and not self._attempts:
            return None
        try:
            return os.fstat(self._connection.fileno()).st_ino
        except (remctl.RemctlError, OSError):
            return None


def run_on_host(work: Work) -> Outcome:
    """Run a command on its host; for the workers of executors."""
    return HostRun(work).outcome()


def _result(
    pieces: dict[remctl.RemctlStream, list[bytes]], status: int | None = None
) -> remctl.RemctlSimpleResult:
    out, err = (b"".join(each) or None for each in pieces.values())
    return remctl.RemctlSimpleResult(out, err, status)

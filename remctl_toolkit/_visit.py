"""One command on one host of a fleet: connecting, trying again, time limits, what came of it."""

from __future__ import annotations

import os
import random
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import _remctl_core as _core
import remctl

from .hosts import Host

OnOutput = Callable[[Host, remctl.RemctlStream, bytes], object]

_PAUSE_LIMIT = 10.0  # seconds between two attempts to connect, at most
_AGAIN = 0.1  # seconds until what is given up is closed again, should it have opened meanwhile


class NotStartedError(remctl.RemctlError):
    """Nothing was done on this host: others had failed, or the time was over."""


@dataclass(frozen=True)
class Outcome:
    """What came of a command on one host.

    Attributes:
        host: the host.
        result: what the command produced; None if there was an exception.
        error: the exception; None if there is a result.
        seconds: how long it took, all attempts to connect included.
        attempts: how often connecting was tried; 0 if the connection was open.
    """

    host: Host
    result: remctl.RemctlSimpleResult | None = None
    error: Exception | None = None
    seconds: float = 0.0
    attempts: int = 0

    @property
    def ok(self) -> bool:
        """Whether the command ran to its end with status 0."""
        return self.result is not None and self.result.status == 0

    @property
    def started(self) -> bool:
        """Whether anything was done on the host."""
        return not isinstance(self.error, NotStartedError)

    @property
    def reason(self) -> str:
        """Why it failed, in words; "" if it did not."""
        if self.error is not None:
            return str(self.error) or type(self.error).__name__
        try:
            self.check()
        except remctl.RemctlStatusError as error:
            return str(error)
        return ""

    def check(self) -> remctl.RemctlSimpleResult:
        """Return the result of a command that succeeded.

        Raises:
            RemctlStatusError: its status is not 0.
            Exception: what happened instead of a result.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        assert self.result is not None
        return self.result.check()

    def __str__(self) -> str:
        return f"{self.host}: {self.reason or 'ok'} ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Settings:
    """How to connect to each host of a fleet.

    Raises:
        TypeError, ValueError: one of them cannot be right.
    """

    port: int | str | None = None
    principal: str | None = None
    timeout: float | None = None
    ccache: str | os.PathLike[str] | None = None
    source_ip: str | None = None
    credentials: remctl.RemctlCredentials | None = None
    retries: int = 0
    backoff: float = 0.5
    connect_timeout: float | None = None

    def __post_init__(self) -> None:
        _core.check_port(self.port)
        _core.check_principal(self.principal)
        check_count("retries", self.retries, least=0)
        check_seconds("backoff", self.backoff, zero=True)
        if self.connect_timeout is not None:
            check_seconds("connect_timeout", self.connect_timeout)
        self.connection()

    def connection(self) -> remctl.Remctl:
        """Return a connection that is not open yet."""
        return remctl.Remctl(
            timeout=self.timeout,
            ccache=self.ccache,
            source_ip=self.source_ip,
            credentials=self.credentials,
        )

    def opening_timeout(self) -> float:
        """Return for how many seconds the network may be silent while connecting; 0 is for ever."""
        return min(filter(None, (self.timeout, self.connect_timeout)), default=0)

    def pause(self, attempts: int) -> float:
        """Return how many seconds to wait after so many attempts to connect."""
        pause = min(self.backoff * 2.0 ** min(attempts - 1, 100), _PAUSE_LIMIT)
        # Those that failed together do not come back together.
        return pause * random.uniform(0.5, 1)


@dataclass(frozen=True)
class Work:
    """What is to be done on a host; it can be pickled."""

    host: Host
    command: tuple[bytes, ...]
    input: bytes | None
    settings: Settings
    limit: float | None  # seconds
    # Some executors take equal calls for one: each is to be done.
    ticket: str = field(default_factory=lambda: os.urandom(16).hex())


class Clock:
    """Seconds that run from now on, or for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def at_most(self, seconds: float | None) -> float | None:
        """Return how many of so many seconds are left; None is for ever."""
        left = None if self._end is None else max(self._end - time.monotonic(), 0.0)
        return min((each for each in (left, seconds) if each is not None), default=None)

    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.at_most(None) == 0


class Visit:
    """One command on one host."""

    def __init__(
        self, work: Work, session: remctl.Remctl | None = None, on_output: OnOutput | None = None
    ) -> None:
        """Prepare it.

        Args:
            work: what is to be done.
            session: a connection to keep, open or not; without one, its own is made and closed.
            on_output: told every piece of output as it arrives.
        """
        self._work = work
        self._keep = session is not None
        self._connection = work.settings.connection() if session is None else session
        self._on_output = on_output
        self._attempts = 0
        self._lock = threading.Lock()  # held to give up, and to end: a visit that ended is let be
        self._reason: remctl.RemctlError | None = None
        self._given_up = threading.Event()
        self._ended = threading.Event()

    def outcome(self) -> Outcome:
        """Do it; whatever goes wrong is part of the outcome."""
        start = time.monotonic()
        result = failure = None
        guard = self._guard(self._work.limit)
        try:
            result = self._run()
        except Exception as error:
            failure = self._explained(error)
        finally:
            with self._lock:
                self._ended.set()
            if guard is not None:
                guard.join()
            if not self._keep:
                self._connection.close()
        seconds = time.monotonic() - start
        return Outcome(self._work.host, result, failure, seconds, self._attempts)

    def give_up(self, reason: remctl.RemctlError) -> None:
        """Close the connection, from another thread, which ends the visit.

        If it was about to open one, that goes on: this is to be called until the visit has ended.
        """
        with self._lock:
            if self._ended.is_set():
                return
            self._reason = self._reason or reason
            self._given_up.set()
            self._connection.close()

    def _guard(self, limit: float | None) -> threading.Thread | None:
        """Start a thread that gives the visit up when its time is over."""
        if limit is None:
            return None
        name = f"remctl-limit {self._work.host}"
        guard = threading.Thread(target=self._keep_time, args=(limit,), name=name, daemon=True)
        guard.start()
        return guard

    def _keep_time(self, limit: float) -> None:
        seconds = min(limit, threading.TIMEOUT_MAX)
        while not self._ended.wait(seconds):
            self.give_up(remctl.RemctlTimeoutError("time limit reached"))
            seconds = _AGAIN

    def _explained(self, error: Exception) -> Exception:
        """Say why the connection was closed, if it was by us."""
        if not isinstance(error, remctl.RemctlError):
            return error
        if self._reason is not None and isinstance(error, remctl.RemctlNotOpenedError):
            self._reason.partial, self._reason.port = error.partial, error.port
            self._reason.may_have_run = error.may_have_run
            error = self._reason
        error.host = error.host or self._work.host.name
        error.port = error.port or _core.check_port(self._port) or None
        # It says all; its frames would keep in memory what was at work, a cycle for each host.
        error.__context__ = None
        return error.with_traceback(None)

    @property
    def _port(self) -> int | str | None:
        port = self._work.host.port
        return self._work.settings.port if port is None else port

    def _run(self) -> remctl.RemctlSimpleResult:
        if not _is_open(self._connection):
            self._open()
        if self._on_output is not None:
            return self._run_live(self._on_output)
        return self._connection.run(self._work.command, input=self._work.input)

    def _open(self) -> None:
        """Open the connection, and try again where that may help."""
        host, settings = self._work.host, self._work.settings
        while not self._given_up.is_set():
            self._attempts += 1
            try:
                self._connection.set_timeout(settings.opening_timeout())
                self._connection.open(host.name, self._port, host.principal or settings.principal)
                self._connection.set_timeout(settings.timeout or 0)
            except remctl.RemctlError as error:
                if self._attempts > settings.retries or not _may_pass(error):
                    raise
                self._given_up.wait(settings.pause(self._attempts))
            else:
                if not self._given_up.is_set():
                    return
        self._connection.close()  # It may have been given up before it began to open.
        raise remctl.RemctlNotOpenedError("given up")

    def _run_live(self, on_output: OnOutput) -> remctl.RemctlSimpleResult:
        out, err = (_Live(self._work.host, stream, on_output) for stream in remctl.RemctlStream)
        work = self._work
        try:
            result = self._connection.run(work.command, input=work.input, stdout=out, stderr=err)
        except remctl.RemctlError as error:
            error.partial = remctl.RemctlSimpleResult(out.octets(), err.octets())
            raise
        return remctl.RemctlSimpleResult(out.octets(), err.octets(), result.status)


def visit(work: Work) -> Outcome:
    """Do some work; for executors whose workers are elsewhere."""
    return Visit(work).outcome()


def check_count(name: str, value: Any, *, least: int) -> None:
    """Check a whole number.

    Raises:
        TypeError, ValueError: it is none, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")


def check_seconds(name: str, value: Any, *, zero: bool = False) -> None:
    """Check a number of seconds, which may be 0 or not.

    Raises:
        TypeError, ValueError: it is none, or negative.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{name} must be {'0 or more' if zero else 'more than 0'}, not {value}")


def _is_open(connection: remctl.Remctl) -> bool:
    """Whether a connection is there; all that arrives on an idle one is its end."""
    if not connection.opened:
        return False
    try:
        descriptor = connection.fileno()
    except remctl.RemctlError:
        return False
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return not poller.poll(0)


def _may_pass(error: remctl.RemctlError) -> bool:
    """Whether opening failed for a reason that may pass: a busy server, a lost connection."""
    if isinstance(error, remctl.RemctlConnectError):
        return error.errno is not None  # Otherwise the host is not known.
    if isinstance(error, remctl.RemctlTimeoutError | remctl.RemctlDisconnectedError):
        return True
    lost = str(error).endswith("unexpected end of file")
    return lost and isinstance(error, remctl.RemctlAuthenticationError)


class _Live:
    """A file that tells somebody what is written to it, and keeps it."""

    def __init__(self, host: Host, stream: remctl.RemctlStream, on_output: OnOutput) -> None:
        self._host, self._stream, self._on_output = host, stream, on_output
        self._pieces: list[bytes] = []

    def write(self, octets: bytes, /) -> int:
        self._pieces.append(octets)
        self._on_output(self._host, self._stream, octets)
        return len(octets)

    def octets(self) -> bytes | None:
        """Return all of it; None if there was nothing."""
        return b"".join(self._pieces) or None

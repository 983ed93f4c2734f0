"""One command on one host of a fleet: connecting, trying again, time limits, what came of it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import remctl

OnOutput = Callable[["Host", remctl.RemctlStream, bytes], object]

_PAUSE_LIMIT = 10.0  # seconds between two attempts to connect, at most


class NotStartedError(remctl.RemctlError):
    """Nothing was done on this host: others had failed, or the time was over."""


@dataclass(frozen=True, order=True)
class Host:
    """A host that is not like the others.

    Attributes:
        name: its name.
        port: its port; None is what the fleet uses.
        principal: its Kerberos principal; None is what the fleet uses.
    """

    name: str
    port: int | None = None
    principal: str | None = None

    def __str__(self) -> str:
        if self.port is None:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


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
        try:
            self.check()
        except Exception as error:
            return str(error) or type(error).__name__
        return ""

    def check(self) -> remctl.RemctlSimpleResult:
        """Return the result of a command that succeeded.

        Raises:
            RemctlStatusError: its status is not 0.
            Exception: what happened instead of a result.
        """
        if self.error is not None:
            raise self.error
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
    retries: int = 0
    backoff: float = 0.5

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries must not be negative: {self.retries}")
        if not self.backoff >= 0:
            raise ValueError(f"backoff must not be negative: {self.backoff}")
        self.connection()

    def connection(self) -> remctl.Remctl:
        """Return a connection that is not open yet."""
        return remctl.Remctl(timeout=self.timeout, ccache=self.ccache, source_ip=self.source_ip)


@dataclass(frozen=True)
class Work:
    """What is to be done on a host; it can be pickled."""

    host: Host
    command: Sequence[Any]
    input: str | bytes | bytearray | memoryview | None
    settings: Settings
    limit: float | None  # seconds


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
        self._connection = session or work.settings.connection()
        self._on_output = on_output
        self._attempts = 0
        self._ended: str | None = None
        self._over = threading.Event()

    def outcome(self) -> Outcome:
        """Do it; whatever goes wrong is part of the outcome."""
        start = time.monotonic()
        result = failure = None
        try:
            with self._limited(self._work.limit):
                result = self._run()
        except Exception as error:
            failure = self._explained(error)
        finally:
            if not self._keep:
                self._connection.close()
        seconds = time.monotonic() - start
        return Outcome(self._work.host, result, failure, seconds, self._attempts)

    def abandon(self, reason: str = "given up") -> None:
        """End it, from another thread: the connection is closed."""
        self._ended = self._ended or reason
        self._over.set()
        self._connection.close()

    @contextmanager
    def _limited(self, seconds: float | None) -> Iterator[None]:
        if seconds is None:
            yield
            return
        timer = threading.Timer(seconds, self.abandon, ["time limit reached"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _explained(self, error: Exception) -> Exception:
        """Say why the connection was closed, if it was by us."""
        if not isinstance(error, remctl.RemctlError):
            return error
        if self._ended is not None:
            partial, error = error.partial, remctl.RemctlTimeoutError(self._ended)
            error.partial = partial
        error.host = error.host or self._work.host.name
        return error

    def _run(self) -> remctl.RemctlSimpleResult:
        if not self._connection.opened:
            self._open()
        work = self._work
        if self._on_output is None:
            return self._connection.run(work.command, input=work.input)
        return self._run_live(self._on_output)

    def _open(self) -> None:
        """Open the connection, and try again where that may help."""
        host, settings = self._work.host, self._work.settings
        port = settings.port if host.port is None else host.port
        while True:
            self._attempts += 1
            try:
                self._connection.open(host.name, port, host.principal or settings.principal)
            except remctl.RemctlError as error:
                if self._attempts > settings.retries or not _may_pass(error):
                    raise
            else:
                if not self._over.is_set():
                    return
                self._connection.close()  # It was abandoned before it began to open.
            pause = min(settings.backoff * 2 ** (self._attempts - 1), _PAUSE_LIMIT)
            # Those that failed together do not come back together.
            if self._over.wait(pause * random.uniform(0.5, 1)):
                raise remctl.RemctlNotOpenedError("closed")

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


def _may_pass(error: remctl.RemctlError) -> bool:
    """Whether opening failed for a reason that may pass: a busy server, a lost connection."""
    if isinstance(error, remctl.RemctlConnectError):
        return error.errno is not None  # Otherwise the host is not known.
    if isinstance(error, remctl.RemctlTimeoutError):
        return True
    lost = ("end of file", "reset by peer", "Broken pipe")
    return isinstance(error, remctl.RemctlAuthenticationError) and str(error).endswith(lost)


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

"""Pools of sessions with one server, for threads and for asyncio.

::

    with Pool("server.example.org", size=8) as pool:
        result = pool.run(["account", "show", "anna"])
        for outcome in pool.map(["account", "show", name] for name in names):
            print(outcome.check().stdout_text())

A pool opens a session when one is needed and none is free, up to its size, and keeps it for the
next command.  Callers get sessions in the order in which they ask.  A session that was idle for 30
seconds is checked with noop() before it is lent again.  A session that is broken, or was returned
in the middle of a command, is closed and replaced.  No command is ever sent twice.

All times are in seconds.
"""

from __future__ import annotations

import contextlib
import operator
import os
import socket
import time
from collections.abc import Collection, Generator, Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import _remctl_core as _core
import remctl
from remctl import RemctlSimpleResult

from ._pool_base import BasePool, PoolClosedError, PoolTimeoutError, Steps, seconds_left
from ._pool_ledger import Lease, PoolStats, ThreadGate
from ._pool_map import Command, CommandOutcome, Progress, Workers

if TYPE_CHECKING:
    from remctl import _Input, _OutputFile  # these are in the stubs only

    from ._pool_async import AsyncPool

__all__ = [
    "AsyncPool",
    "CommandOutcome",
    "Pool",
    "PoolClosedError",
    "PoolStats",
    "PoolTimeoutError",
]


_CLOSE_ATTEMPTS = 100
_CLOSE_INTERVAL = 0.001  # seconds


class Pool(BasePool[remctl.Remctl]):
    """Sessions with one server, for any number of threads.

    The constructor opens nothing.  A forked child has an empty pool of its own, and does not touch
    the parent's sessions.  Nothing runs in the background: sessions that were idle for longer than
    `max_idle` are closed when a session is taken or returned.

    Args:
        host, port, principal, timeout, ccache, source_ip, credentials, keepalive: see
            `remctl.Remctl`.
        size: the maximum number of sessions, 1 or more.
        max_wait: seconds that `run()` and `session()` wait for a free session; None is for ever.
        max_idle: seconds after which an idle session is closed.
        parallel_opens: the maximum number of sessions to open at the same time.  A remctld that is
            not started by systemd has a backlog of 5.
        one_address: whether all sessions use the address of the first one, even if the host name
            later resolves to another.

    Attributes:
        host, port: see `remctl.Remctl`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    def __init__(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        size: int = 4,
        max_wait: float | None = None,
        max_idle: float = 600.0,
        parallel_opens: int = 4,
        one_address: bool = False,
        timeout: float | None = None,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        credentials: remctl.RemctlCredentials | None = None,
        keepalive: float | None = None,
    ) -> None:
        super().__init__(
            host,
            port,
            principal,
            size=size,
            max_wait=max_wait,
            max_idle=max_idle,
            parallel_opens=parallel_opens,
            timeout=timeout,
            ccache=ccache,
            source_ip=source_ip,
            credentials=credentials,
            keepalive=keepalive,
        )
        self._one_address = one_address
        self._peer: tuple[str, int] | None = None  # the address and port of the first session

    def run(
        self,
        command: Command,
        *,
        input: _Input | None = None,
        stdout: _OutputFile | None = None,
        stderr: _OutputFile | None = None,
        deadline: float | None = None,
    ) -> RemctlSimpleResult:
        """Run a command to its end in a free session.

        Args:
            command, input, stdout, stderr: see `remctl.Remctl.run()`.
            deadline: seconds for the whole call, waiting for a session included; None is for ever.

        Returns:
            Its output and status; see `remctl.RemctlSimpleResult.check()`.

        Raises:
            PoolTimeoutError: no session became free within `max_wait`, or before the deadline.
            PoolClosedError: the pool is closed.
            RemctlError: see `remctl.Remctl.open()` and `remctl.Remctl.run()`.
            TypeError, ValueError: an argument is invalid; nothing was sent.
            OSError: a file could not be written.
        """
        until = _core.deadline_in(deadline)
        files = {"input": input, "stdout": stdout, "stderr": stderr}
        return self._run(self._lease(), self._max_wait, command, until, **files)

    def _run(
        self,
        lease: Lease[remctl.Remctl],
        limit: float | None,
        command: Command,
        until: float = 0.0,
        **files: Any,
    ) -> RemctlSimpleResult:
        with self._lend(lease, limit, until) as session:
            result = session.run(command, **files, deadline=seconds_left(until))
            lease.finished = True
        return result

    def session(
        self, timeout: float | None = None, *, deadline: float | None = None
    ) -> AbstractContextManager[remctl.Remctl]:
        """Lend a session for a ``with`` block.

        At the end of the block the session is returned, and its timeout is reset to the pool's.  If
        it is running a command, or was lost, it is closed and replaced.

        Args:
            timeout: seconds to wait for a free session; None is the pool's `max_wait`.
            deadline: seconds to wait for a session, including opening it; None is for ever.

        Returns:
            A context manager that returns the session, a `remctl.Remctl`.  Do not open it to
            another server, and do not use it after the block.

        Raises:
            PoolTimeoutError: no session became free in time.
            PoolClosedError: the pool is closed.
            RemctlError: see `remctl.Remctl.open()`.
            TypeError, ValueError: an argument is invalid.
        """
        return self._lend(self._lease(), self._limit(timeout), _core.deadline_in(deadline))

    def map(
        self, commands: Iterable[Command], *, ordered: bool = True
    ) -> Generator[CommandOutcome, None, None]:
        """Run many commands, as many at a time as there are sessions, and yield their outcomes.

        The thread that iterates reads the commands, at most twice the pool's size ahead of the
        outcomes that it was given, so the iterable may be endless.  If the iteration ends early
        (the iterator is dropped or closed, or an exception is raised), the sessions of running
        commands are closed, and no others are started.

        Args:
            commands: an iterable of commands, see `remctl.Remctl.command()`.
            ordered: yield the outcomes in the order of the commands; otherwise as they complete.

        Yields:
            A `CommandOutcome` for each command; its `error` is what `run()` would have raised.

        Raises:
            PoolClosedError: the pool is closed; raised after the outcomes of commands in progress.
            Exception: iterating over `commands` raised it; raised after the outcomes so far.
        """
        self._check_open()
        size = self._ledger.size
        progress = Progress(commands, ordered, 2 * size)
        leases: set[Lease[remctl.Remctl]] = set()

        def run(command: Command) -> RemctlSimpleResult:
            lease = self._lease()
            leases.add(lease)
            try:
                if workers.stopped:  # Test this after adding the lease; below, stop before cancel.
                    raise self._closed_error()
                return self._run(lease, None, command)
            finally:
                leases.discard(lease)

        workers = Workers(run, size)
        try:
            while progress.more():
                workers.check_process()
                while not workers.outcomes.empty():
                    progress.add(workers.outcomes.get())
                if self.closed:
                    progress.end(self._closed_error())
                if (outcome := progress.ready()) is not None:
                    yield outcome
                elif (job := progress.take()) is not None:
                    workers.start(job)
                elif progress.running():
                    progress.add(workers.outcomes.get())
        finally:
            workers.stop()
            self._cancel(list(leases))

    def close(self) -> None:
        """Close all sessions; calls in progress end with RemctlNotOpenedError.

        Closing again does nothing.  A closed pool cannot be opened again.
        """
        idle, leases = self._ledger.close()
        for session in idle:
            session.close()
        self._cancel(leases)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _cancel(self, leases: Collection[Lease[remctl.Remctl]]) -> None:
        """End the calls that hold leases."""
        for _ in range(_CLOSE_ATTEMPTS):
            for lease in leases:
                with self._ledger.lock:  # A returned session may belong to another lease.
                    session = self._ledger.cancel(lease)
                    if session is not None:
                        session.close()
            if not any(lease.opening for lease in leases):
                return
            time.sleep(_CLOSE_INTERVAL)  # open() does not notice a close() just before it starts.

    def _lease(self) -> Lease[remctl.Remctl]:
        return Lease(self._ledger, ThreadGate())

    @contextlib.contextmanager
    def _lend(
        self, lease: Lease[remctl.Remctl], limit: float | None, until: float = 0.0
    ) -> Generator[remctl.Remctl, None, None]:
        keep = False
        try:
            session = _core.finish(self._take(lease, limit, until), operator.call)
            try:
                yield session
            except Exception:
                keep = _core.finish(self._is_ready(lease), operator.call)
                raise
            keep = _core.finish(self._is_ready(lease), operator.call)
        finally:
            for each in self._ledger.release(lease, keep):
                each.close()

    # one_address: this alone uses private attributes of Remctl.

    def _new_session(self) -> remctl.Remctl:
        session = remctl.Remctl(**self._settings)
        if self._peer is not None:
            session._session.address = self._peer[0]
        return session

    def _port(self) -> int | str | None:
        return self.port if self._peer is None else self._peer[1]

    def _open(self, lease: Lease[remctl.Remctl], until: float) -> Steps[remctl.Remctl]:
        session = yield from super()._open(lease, until)
        if self._one_address and self._peer is None:
            self._peer = _peer_of(session)
            session._session.address = self._peer[0]
        return session


def _peer_of(session: remctl.Remctl) -> tuple[str, int]:
    # The socket object closes a copy of the session's descriptor.
    with socket.socket(fileno=os.dup(session.fileno())) as view:
        address, port = view.getpeername()[:2]
        return address, port


def __getattr__(name: str) -> Any:
    if name == "AsyncPool":  # Import asyncio only if needed: it takes longer than all the rest.
        from ._pool_async import AsyncPool

        return AsyncPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "AsyncPool"]

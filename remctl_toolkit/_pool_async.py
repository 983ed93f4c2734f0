"""Pools for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import operator
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import _remctl_core as _core
from remctl import RemctlSimpleResult

from ._pool_base import BasePool, seconds_left
from ._pool_ledger import Lease
from ._pool_map import Command, CommandOutcome, Job, Progress
from .aio import AsyncRemctl, finish

if TYPE_CHECKING:
    from remctl import _Input, _OutputFile  # these are in the stubs only


class TaskGate:
    """A gate for a task; see `Gate`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.set = self._event.set
        self.clear = self._event.clear

    async def wait(self, seconds: float | None) -> bool:
        """Wait until it is open, and close it; return False if the time is over first."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self.clear()
        return True


class AsyncPool(BasePool[AsyncRemctl]):
    """Sessions with one server, for any number of tasks: the async version of `Pool`.

    It belongs to the event loop that it is first used in.  A cancelled call returns its session or
    its place in the queue; if its command was running, the session is closed.

    Args:
        host, port, principal, timeout, ccache, source_ip, credentials, keepalive: see
            `remctl.Remctl`.
        size, max_wait, max_idle, parallel_opens: see `Pool`.

    Attributes:
        host, port: see `remctl.Remctl`.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """

    async def run(
        self,
        command: Command,
        *,
        input: _Input | None = None,
        stdout: _OutputFile | None = None,
        stderr: _OutputFile | None = None,
        deadline: float | None = None,
    ) -> RemctlSimpleResult:
        """Run a command to its end in a free session; see `Pool.run()`."""
        until = _core.deadline_in(deadline)
        files = {"input": input, "stdout": stdout, "stderr": stderr}
        return await self._run(self._max_wait, command, until, **files)

    async def _run(
        self, limit: float | None, command: Command, until: float = 0.0, **files: Any
    ) -> RemctlSimpleResult:
        lease = self._lease()
        async with self._lend(lease, limit, until) as session:
            result = await session.run(command, **files, deadline=seconds_left(until))
            lease.finished = True
        return result

    def session(
        self, timeout: float | None = None, *, deadline: float | None = None
    ) -> AbstractAsyncContextManager[AsyncRemctl]:
        """Lend a session for an ``async with`` block; see `Pool.session()`."""
        return self._lend(self._lease(), self._limit(timeout), _core.deadline_in(deadline))

    async def map(
        self, commands: Iterable[Command], *, ordered: bool = True
    ) -> AsyncGenerator[CommandOutcome, None]:
        """Run many commands, and yield their outcomes; see `Pool.map()`.

        Leaving the iteration early cancels the commands that are running.
        """
        self._check_open()
        size = self._ledger.size
        progress = Progress(commands, ordered, 2 * size)
        jobs: asyncio.Queue[Job] = asyncio.Queue()
        outcomes: asyncio.Queue[CommandOutcome] = asyncio.Queue()
        tasks: list[asyncio.Task[None]] = []
        try:
            while progress.more():
                while not outcomes.empty():
                    progress.add(outcomes.get_nowait())
                if self.closed:
                    progress.end(self._closed_error())
                if (outcome := progress.ready()) is not None:
                    yield outcome
                elif (job := progress.take()) is not None:
                    jobs.put_nowait(job)
                    if len(tasks) < size:
                        tasks.append(asyncio.create_task(self._work(jobs, outcomes)))
                elif progress.running():
                    progress.add(await outcomes.get())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(
        self, jobs: asyncio.Queue[Job], outcomes: asyncio.Queue[CommandOutcome]
    ) -> None:
        while True:
            index, command = await jobs.get()
            try:
                outcome = CommandOutcome(index, command, await self._run(None, command))
            except Exception as error:
                outcome = CommandOutcome(index, command, error=error)
            outcomes.put_nowait(outcome)

    async def close(self) -> None:
        """Close all sessions; see `Pool.close()`."""
        sessions, leases = self._ledger.close()
        for lease in leases:
            session = self._ledger.cancel(lease)
            if session is not None:
                sessions.append(session)
        for session in sessions:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _lease(self) -> Lease[AsyncRemctl]:
        return Lease(self._ledger, TaskGate())

    @contextlib.asynccontextmanager
    async def _lend(
        self, lease: Lease[AsyncRemctl], limit: float | None, until: float = 0.0
    ) -> AsyncGenerator[AsyncRemctl, None]:
        keep = False
        try:
            session = await finish(self._take(lease, limit, until), operator.call)
            try:
                yield session
            except Exception:
                keep = await finish(self._is_ready(lease), operator.call)
                raise
            keep = await finish(self._is_ready(lease), operator.call)
        finally:
            for each in self._ledger.release(lease, keep):
                await each.close()

    def _new_session(self) -> AsyncRemctl:
        return AsyncRemctl(**self._settings)

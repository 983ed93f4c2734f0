"""The contestant remctl_toolkit.aio: many sessions on one event loop."""

from __future__ import annotations

import asyncio
import os

import remctl
from remctl_toolkit.aio import AsyncRemctl
from remctl_toolkit.pool import AsyncPool

from .worker import Action, serve

_HOST = os.environ["REMCTL_HOST"]
_PORT = int(os.environ["REMCTL_PORT"])
_PRINCIPAL = os.environ["REMCTL_PRINCIPAL"]
_ECHO = ("echo", "hello")
_UNKNOWN = ("unknown", "command")  # The server refuses it without starting a process.
_SLEEP = ("sleep", "600")
_SETTLE = 1.5  # seconds after which the threads of opening have ended


class _Waiting(Action):
    """COUNT more sessions, each of which waits for a command; they keep waiting."""

    def prepare(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.sessions: list[AsyncRemctl] = []
        self.waiting: list[asyncio.Task[remctl.RemctlOutput]] = []

    def go(self, count: int) -> None:
        self.loop.run_until_complete(self._have_wait(count))

    async def _have_wait(self, count: int) -> None:
        sessions = [AsyncRemctl(_HOST, _PORT, _PRINCIPAL) for _ in range(count)]
        self.sessions += sessions
        await asyncio.gather(*[session.command(_SLEEP) for session in sessions])
        self.waiting += [asyncio.create_task(session.output()) for session in sessions]
        await asyncio.sleep(_SETTLE)
        if any(task.done() for task in self.waiting):
            raise RuntimeError("a session does not wait")

    def quit(self) -> None:
        self.loop.run_until_complete(self._close())

    async def _close(self) -> None:
        await asyncio.gather(*[session.close() for session in self.sessions])
        await asyncio.gather(*self.waiting, return_exceptions=True)


class _Refused(Action):
    """Commands that the server refuses, one after the other in one session."""

    def prepare(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.session = AsyncRemctl(_HOST, _PORT, _PRINCIPAL)
        self.go(1)

    def go(self, count: int) -> None:
        self.loop.run_until_complete(self._run(count))

    async def _run(self, count: int) -> None:
        for _ in range(count):
            try:
                await self.session.run(_UNKNOWN)
            except remctl.RemctlServerError:
                continue
            raise RuntimeError("the command was not refused")

    def quit(self) -> None:
        self.loop.run_until_complete(self.session.close())


class _Pool(Action):
    """A pool of 16 sessions, warm, and commands over all of them."""

    def prepare(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.pool = AsyncPool(_HOST, _PORT, _PRINCIPAL, size=16)
        self.go(64)

    def go(self, count: int) -> None:
        self.loop.run_until_complete(self._run(count))

    async def _run(self, count: int) -> None:
        async for outcome in self.pool.map([_ECHO] * count, ordered=False):
            if outcome.check().stdout != b"hello\n":
                raise RuntimeError("wrong output")

    def quit(self) -> None:
        self.loop.run_until_complete(self.pool.close())


if __name__ == "__main__":
    serve({"pool": _Pool, "refused": _Refused, "waiting": _Waiting})

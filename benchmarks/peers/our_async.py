"""The contestant remctl_toolkit.aio: many sessions on one event loop."""

from __future__ import annotations

import asyncio
import os

import remctl
from remctl_toolkit.aio import AsyncRemctl

from .worker import Action, serve

_HOST = os.environ["REMCTL_HOST"]
_PORT = int(os.environ["REMCTL_PORT"])
_PRINCIPAL = os.environ["REMCTL_PRINCIPAL"]
_SLEEP = ("sleep", "600")
_SETTLE = 1.5  # seconds after which threads that only opening took have ended


class _Waiting(Action):
    """That many sessions more, each of which waits for a command; they go on waiting."""

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


if __name__ == "__main__":
    serve({"waiting": _Waiting})

"""Waiting for a descriptor in asyncio, so that somebody else can end the wait."""

from __future__ import annotations

import asyncio


class Watch:
    """Waiting until a descriptor is readable, or for some time, or until somebody ends it."""

    def __init__(self, fd: int, seconds: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(fd, self.end)
        self._timer = None if seconds is None else self._loop.call_later(seconds, self.end)

    async def wait(self) -> None:
        """Wait for it; raise what it was ended with."""
        try:
            await self._over
        finally:
            self.end()

    def end(self, error: Exception | None = None) -> None:
        """End it, but once: the number of the descriptor may be another's afterwards."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)

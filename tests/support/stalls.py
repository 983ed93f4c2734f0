"""Calls that never end by themselves: opens, noops, and output that no file accepts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import select
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any

from remctl_toolkit.aio import AsyncRemctl
from remctl_toolkit.testing import Realm

from .fakeserver import FakeServer, Peer, echo, serve_on
from .proxy import SilentServer
from .waiting import PATIENCE
from .wire import Message

LIMIT = 20.0 * PATIENCE  # seconds after which a wait has failed
OPENS, NOOPS, WRITES = 64, 64, 8


class StubbornFile:
    """A file whose write() never returns."""

    def __init__(self) -> None:
        self._writing = threading.Event()
        self._released = threading.Event()

    def write(self, octets: bytes) -> int:
        self._writing.set()
        self._released.wait()
        return len(octets)

    def is_full(self) -> bool:
        return self._writing.is_set()


def frozen_after_opening(peer: Peer) -> None:
    """A server that answers commands, of 1 MiB each, and no noop."""
    peer.accept()
    message = peer.read_message()
    if message[1] == Message.NOOP:
        peer.stall()
    command = peer.finish_command(message)
    peer.send_output(bytes(1 << 20))
    peer.send_status(0)
    serve_on(peer, lambda _: echo(command))


class Ports:
    """Ports of a test's servers; can be sent to a child."""

    def __init__(self, good: int, silent: int, frozen: int) -> None:
        self.good = good
        self.silent = silent
        self.frozen = frozen


@contextlib.contextmanager
def stalling_servers(realm: Realm, good: int) -> Iterator[Ports]:
    """Servers that stall, next to one that does not."""
    with SilentServer() as silent, FakeServer(realm.keytab, frozen_after_opening) as frozen:
        yield Ports(good, silent.port, frozen.port)


async def connect(port: int) -> AsyncRemctl:
    session = AsyncRemctl("localhost", port)
    await session.open("localhost", port)
    return session


class Stalled:
    """Calls that never end by themselves."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.sessions: list[AsyncRemctl] = []
        self.files = contextlib.ExitStack()

    def start(self, session: AsyncRemctl, call: Coroutine[Any, Any, Any]) -> None:
        self.sessions.append(session)
        self.tasks.append(asyncio.create_task(call))

    async def give_up(self) -> None:
        """Cancel all of them, and wait until they have ended."""
        for task in self.tasks:
            task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*self.tasks, return_exceptions=True), LIMIT)
        assert {type(each) for each in results} == {asyncio.CancelledError}
        for session in self.sessions:
            await session.close()

    def pending(self) -> bool:
        """Return whether all of them still wait."""
        return not any(task.done() for task in self.tasks)


class FullPipe(io.FileIO):
    """A file that accepts only as much as an unread pipe."""

    def __init__(self, files: contextlib.ExitStack) -> None:
        self.reader, writer = os.pipe()
        super().__init__(writer, "wb")
        files.callback(os.close, self.reader)
        files.callback(self.close)

    def is_full(self) -> bool:
        return not select.select([], [self], [], 0)[1]


async def some_wait(files: Sequence[FullPipe | StubbornFile]) -> None:
    """Wait until files accept nothing more, if there are any."""
    while files and not any(file.is_full() for file in files):  # noqa: ASYNC110 # in the kernel
        await asyncio.sleep(0.01)


async def stall(ports: Ports, opens: int, noops: int, writes: int, files: str) -> Stalled:
    # Opened before anything stalls, which may be what keeps them from opening.
    connecting = [connect(ports.frozen) for _ in range(noops + writes)]
    frozen = await asyncio.wait_for(asyncio.gather(*connecting), LIMIT)
    stalled = Stalled()
    full = []
    for session in frozen[noops:]:
        file = FullPipe(stalled.files) if files == "pipe" else StubbornFile()
        full.append(file)
        stalled.start(session, session.run(["much"], stdout=file))
    # As many as wait for files at the same time; the others may have to wait for a thread.
    await asyncio.wait_for(some_wait(full), LIMIT)
    for session in frozen[:noops]:
        stalled.start(session, session.noop())
    for _ in range(opens):
        session = AsyncRemctl("localhost", ports.silent)
        stalled.start(session, session.open("localhost", ports.silent))
    await asyncio.sleep(0.5)  # They have come to their waits by then, nearly always.
    assert stalled.pending()
    return stalled


@contextlib.asynccontextmanager
async def stalls(
    ports: Ports,
    opens: int = OPENS,
    noops: int = NOOPS,
    writes: int = WRITES,
    files: str = "pipe",
) -> AsyncIterator[Stalled]:
    stalled = await stall(ports, opens, noops, writes, files)
    try:
        yield stalled
    finally:
        await stalled.give_up()

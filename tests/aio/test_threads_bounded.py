"""The number of threads stays bounded, however many sessions open at once."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer
from support.preload import preloaded
from support.subprocesses import in_child
from support.waiting import PATIENCE, eventually, thread_count

from remctl_toolkit.aio import AsyncRemctl, aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

LIMIT = 20.0 * PATIENCE  # seconds after which a wait has failed
LONG = 80.0 * PATIENCE  # the same, for what everybody waits for
ECHO = ["test", "echo", "hello"]
MOST_THREADS = 161  # the main thread included
MANY = 1000
STUCK = 128  # sessions that take a thread each while others are opened
SPARE = 200  # descriptors that everything else takes


class Peak:
    """Counts the threads of this process again and again."""

    def __init__(self) -> None:
        self.threads = 0

    async def __aenter__(self) -> Peak:
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.threads = max(self.threads, thread_count())
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _count(self) -> None:
        while True:
            self.threads = max(self.threads, thread_count())
            await asyncio.sleep(0.01)


def allow_descriptors(count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard not in (resource.RLIM_INFINITY, -1) and hard < count:
        pytest.skip(f"no more than {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, 1024), hard))


async def open_silent_hosts(silent: int, good: int | None, count: int) -> int:
    """Begin to open many sessions with a silent host; how many threads there are meanwhile."""
    sessions = [AsyncRemctl("localhost", silent) for _ in range(count)]
    async with Peak() as peak:
        opening = [asyncio.create_task(each.open("localhost", silent)) for each in sessions]
        await asyncio.sleep(1.0)
        if good is not None:
            result = await asyncio.wait_for(aremctl("localhost", good, command=ECHO), LIMIT)
            assert result.stdout == b"hello\n"
        assert not any(task.done() for task in opening)
        for task in opening:
            task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*opening, return_exceptions=True), LIMIT)
        assert {type(each) for each in results} == {asyncio.CancelledError}
    for session in sessions:
        await session.close()
    return peak.threads


def count_with_silent_hosts(silent: int, good: int | None, count: int) -> int:
    allow_descriptors(MANY * 3 + SPARE)
    threads = asyncio.run(open_silent_hosts(silent, good, count))
    eventually(lambda: thread_count() <= MOST_THREADS, LIMIT)
    return threads


@pytest.mark.parametrize("count", [STUCK, MANY])
def test_sessions_that_open_to_silent_hosts(remctl_server: RemctldServer, count: int) -> None:
    # The system accepts the connections; no thread is needed here to hold them.
    with socket.create_server(("127.0.0.1", 0), backlog=MANY + 100) as silent:
        port = silent.getsockname()[1]
        good = remctl_server.port if count == STUCK else None
        assert in_child(count_with_silent_hosts, port, good, count) <= MOST_THREADS


async def open_all(port: int, count: int) -> int:
    """Open many sessions at once, and run a command in each."""

    async def one(number: int) -> None:
        async with AsyncRemctl("localhost", port, timeout=LONG) as session:
            result = await session.run(["number", str(number)])
            assert result.stdout == b"number %d\n" % number
            await everybody.wait()  # All of them stay open until the last is.

    everybody = asyncio.Barrier(count)
    async with Peak() as peak:
        await asyncio.gather(*[one(number) for number in range(count)])
    return peak.threads


def count_with_good_hosts(port: int, count: int) -> int:
    allow_descriptors(count * 3 + SPARE)
    return asyncio.run(open_all(port, count))


def test_sessions_that_open_and_run(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        assert in_child(count_with_good_hosts, server.port, MANY) <= MOST_THREADS
    assert server.errors == []


async def look_up_many(count: int, port: int) -> tuple[int, int]:
    """Run a command on an open session during many look-ups of a slow resolver."""
    session = AsyncRemctl()
    sessions = [AsyncRemctl() for _ in range(count)]
    await session.open("127.0.0.1", port, "host/localhost")
    async with Peak() as peak:
        start = time.monotonic()
        opening = [
            asyncio.create_task(each.open("slow.test", port, "host/localhost")) for each in sessions
        ]
        await asyncio.sleep(0.3)
        assert (await asyncio.wait_for(session.run(ECHO), LIMIT)).stdout == b"hello\n"
        done = sum(task.done() for task in opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        assert time.monotonic() - start < LIMIT
    for each in [session, *sessions]:
        await each.close()
    return peak.threads, done


def look_up(count: int, port: int) -> tuple[int, int]:
    return asyncio.run(look_up_many(count, port))


def test_look_ups_that_take_long(remctl_server: RemctldServer, tmp_path: Path) -> None:
    hosts = {"FAKE_HOSTS": "slow.test=127.0.0.1", "FAKE_HOSTS_DELAY": "20000"}
    with preloaded("resolver", tmp_path, **hosts):
        threads, done = in_child(look_up, 200, remctl_server.port)
    assert threads <= MOST_THREADS
    assert done == 0

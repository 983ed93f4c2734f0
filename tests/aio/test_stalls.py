"""Servers and files that stall delay nobody else on the loop, and can be given up."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from support.loops import watched_callbacks
from support.proxy import SilentServer
from support.stalls import (
    LIMIT,
    NOOPS,
    OPENS,
    WRITES,
    Ports,
    Stalled,
    connect,
    stall,
    stalling_servers,
    stalls,
)
from support.subprocesses import in_child
from support.waiting import eventually, open_descriptors, thread_count

from remctl_toolkit.aio import AsyncRemctl, aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

ECHO = ["test", "echo", "hello"]
COMMANDS = 9  # an odd number, for a median
# The promise is 10 ms of the loop. A machine that is busy may take longer for less.
LONGEST = 0.25
BUSIEST = 0.05
KEPT_THREADS = 48  # what a pool may keep for later, the main thread included

RUNNERS: dict[str, Callable[[Coroutine[Any, Any, Any]], Any]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}
runners = pytest.mark.parametrize("runner", RUNNERS)


@pytest.fixture
def ports(remctl_realm: Realm, remctl_server: RemctldServer) -> Iterator[Ports]:
    with stalling_servers(remctl_realm, remctl_server.port) as ports:
        yield ports


# -- Nobody else is delayed -----------------------------------------------------------------------


async def median_time(session: AsyncRemctl) -> float:
    """Return the median time of a command."""
    times = []
    for _ in range(COMMANDS):
        start = time.perf_counter()
        result = await asyncio.wait_for(session.run(ECHO), LIMIT)
        times.append(time.perf_counter() - start)
        assert result.stdout == b"hello\n"
    return statistics.median(times)


async def run_during_stalls(ports: Ports, stalled: dict[str, Any]) -> None:
    session = await connect(ports.good)
    alone = await median_time(session)
    async with stalls(ports, **stalled) as waiting:
        delayed = await median_time(session)
        # Opening another is no slower, either.
        result = await asyncio.wait_for(aremctl("localhost", ports.good, command=ECHO), LIMIT)
        assert result.stdout == b"hello\n"
        assert waiting.pending()
    await session.close()
    assert delayed <= max(2 * alone, alone + 0.05), (alone, delayed)


def compare_during_stalls(runner: str, ports: Ports, stalled: dict[str, Any]) -> None:
    RUNNERS[runner](run_during_stalls(ports, stalled))


KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "opens": {"noops": 0, "writes": 0},
    "noops": {"opens": 0, "writes": 0},
    "writes to pipes": {"opens": 0, "noops": 0},
    "writes to other files": {"opens": 0, "noops": 0, "files": "stubborn"},
}


@runners
@pytest.mark.parametrize("kind", KINDS)
def test_a_command_beside_stalled_calls_is_not_delayed(
    ports: Ports, runner: str, kind: str
) -> None:
    in_child(compare_during_stalls, runner, ports, KINDS[kind])


# -- Cancelling frees everything ------------------------------------------------------------------


async def stall_and_give_up(ports: Ports, files: str) -> None:
    stalled = await stall(ports, OPENS, NOOPS, WRITES, files)
    await stalled.give_up()
    stalled.files.close()


def give_up(runner: str, ports: Ports) -> None:
    """Cancel stalled calls, and check that nothing of them stays once the files accept again."""
    run = RUNNERS[runner]
    run(stall_and_give_up(ports, "pipe"))
    gc.collect()
    eventually(lambda: thread_count() <= KEPT_THREADS, LIMIT)
    before = open_descriptors()
    run(stall_and_give_up(ports, "pipe"))
    gc.collect()
    eventually(lambda: open_descriptors() <= before, LIMIT, what=f"{before} open descriptors")
    eventually(lambda: thread_count() <= KEPT_THREADS, LIMIT, what="no more threads than usual")


@runners
def test_cancelling_stalled_calls_frees_everything(ports: Ports, runner: str) -> None:
    in_child(give_up, runner, ports)


async def leave(ports: Ports, files: str, cancel: bool) -> float:
    stalled = await stall(ports, OPENS, NOOPS, WRITES, files)
    if cancel:
        await stalled.give_up()
    kept.append(stalled)  # The pipes stay open and full.
    return time.monotonic()


kept: list[Stalled] = []


def exit_during_calls(runner: str, ports: Ports, files: str, cancel: bool) -> float:
    """Exit with stalled calls; when the process began to."""
    warnings.simplefilter("ignore", ResourceWarning)
    return float(RUNNERS[runner](leave(ports, files, cancel)))


@runners
@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "not cancelled"])
@pytest.mark.parametrize("files", ["pipe", "stubborn"])
def test_the_interpreter_exits_at_once(ports: Ports, runner: str, files: str, cancel: bool) -> None:
    began = in_child(exit_during_calls, runner, ports, files, cancel)
    assert time.monotonic() - began < LIMIT / 2


# -- The loop -------------------------------------------------------------------------------------


async def ask_missing(port: int) -> None:
    """Ask how much is missing of a session that is at work in another task."""
    session = AsyncRemctl("localhost", port, timeout=LIMIT)
    opening = asyncio.create_task(session.run(ECHO))
    await asyncio.sleep(0.3)
    start = time.monotonic()
    session.missing()
    assert time.monotonic() - start < LIMIT / 4
    assert not opening.done()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await session.close()


def ask(runner: str, port: int) -> None:
    RUNNERS[runner](ask_missing(port))


@runners
def test_missing_does_not_wait_for_a_call_in_progress(runner: str) -> None:
    with SilentServer() as silent:
        in_child(ask, runner, silent.port)


async def ask_missing_between_tokens(port: int) -> None:
    async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
        await session.command(["much"])
        reading = asyncio.create_task(session.output())
        session.missing()
        await reading


async def do_everything(ports: Ports) -> None:
    """Do what a program does, with calls that stall in the middle of it."""
    session = await connect(ports.good)
    async with stalls(ports, 16, 16, 4) as waiting:
        for _ in range(5):
            assert (await session.run(ECHO)).stdout == b"hello\n"
            assert await session.noop()
            assert len([token async for token in session.stream(ECHO)]) == 2
        much = bytes(4 << 20)
        assert (await session.run(["test", "cat"], input=much)).stdout == much
        await ask_missing_between_tokens(ports.frozen)
        assert waiting.pending()
    await session.close()


def measure(ports: Ports) -> list[tuple[float, float, str]]:
    """Return how long the callbacks of a loop take, in some attempts."""
    found = []
    for _ in range(3):
        with watched_callbacks() as callbacks:
            asyncio.run(asyncio.wait_for(do_everything(ports), LIMIT * 1.5))
        found.append((callbacks.longest, callbacks.busiest, callbacks.slowest))
    return found


def test_no_callback_holds_the_loop_for_long(ports: Ports) -> None:
    found = in_child(measure, ports)
    # In one attempt at least, no other process was in the way.
    assert min(longest for longest, _, _ in found) < LONGEST, found
    assert min(busiest for _, busiest, _ in found) < BUSIEST, found

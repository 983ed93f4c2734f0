"""AsyncRemctl's waits: what ends them, that they block no loop, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import uvloop
from support.fakeserver import FakeServer, Peer, stall_after_output
from support.proxy import TO_CLIENT, Proxy, SilentServer
from support.subprocesses import in_child
from support.waiting import eventually, open_descriptors, thread_count

import remctl
from remctl_toolkit.aio import AsyncRemctl
from remctl_toolkit.testing import Realm

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]
MUCH = bytes(range(256)) * 4096  # a MiB
THREADS = 1  # One of the extension may be on its way to its end.


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """A function that runs a coroutine, for each kind of event loop."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


# -- What ends a wait ------------------------------------------------------------------------------


def silent_after_command(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.stall()


def silent_inside_a_token(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_raw(b"\x44\0\0\1\0some of it")
    peer.stall()


async def command_and_output(connection: AsyncRemctl) -> None:
    await connection.command(ECHO)
    while True:
        await connection.output()


async def iterate(connection: AsyncRemctl) -> None:
    async for _ in connection.stream(ECHO):
        pass


async def run_it(connection: AsyncRemctl) -> None:
    await connection.run(ECHO)


async def ask(connection: AsyncRemctl) -> None:
    await connection.noop()


WAITS: dict[str, tuple[Callable[[Peer], None] | None, Callable[[AsyncRemctl], Any]]] = {
    "opening": (None, run_it),
    "after the command": (silent_after_command, run_it),
    "inside a token": (silent_inside_a_token, run_it),
    "between tokens": (stall_after_output, run_it),
    "output()": (stall_after_output, command_and_output),
    "stream()": (stall_after_output, iterate),
    "noop()": (Peer.accept, ask),
}


@contextlib.contextmanager
def silent(realm: Realm, script: Callable[[Peer], None] | None) -> Iterator[int]:
    """A server that falls silent; its port."""

    def fall_silent(peer: Peer) -> None:
        assert script is not None
        script(peer)
        peer.stall()

    if script is None:
        with SilentServer() as server:
            yield server.port
    else:
        with FakeServer(realm.keytab, fall_silent) as fake:
            yield fake.port


@pytest.fixture(params=WAITS)
def wait(
    request: pytest.FixtureRequest, remctl_realm: Realm
) -> Iterator[tuple[int, Callable[[AsyncRemctl], Any], bool]]:
    """A wait that does not end by itself: the port, what to do, whether opening works."""
    script, step = WAITS[request.param]
    with silent(remctl_realm, script) as port:
        yield port, step, script is not None


@contextlib.asynccontextmanager
async def connected(
    port: int, opens: bool, silence: float | None = None
) -> AsyncIterator[AsyncRemctl]:
    connection = AsyncRemctl("localhost", port, timeout=silence)
    try:
        if opens:
            await connection.open("localhost", port)
        yield connection
    finally:
        await connection.close()


Wait = tuple[int, Callable[[AsyncRemctl], Any], bool]


def test_a_timeout_ends_every_wait(run: Run[Any], wait: Wait) -> None:
    port, step, opens = wait

    async def main() -> None:
        async with connected(port, opens) as connection:
            connection.set_timeout(0.3)
            with pytest.raises(remctl.RemctlTimeoutError):
                await step(connection)
            assert "timed out" in connection.error()
            assert connection.opened
            with pytest.raises(remctl.RemctlDisconnectedError):
                await connection.output()

    run(main())


@pytest.mark.parametrize("end", ["cancel", "asyncio.timeout()"])
def test_cancelling_ends_every_wait(
    run: Run[Any], wait: Wait, remctl_server: RemctldServer, end: str
) -> None:
    port, step, opens = wait

    async def main() -> None:
        async with connected(port, opens) as connection:
            if end == "cancel":
                task = asyncio.create_task(step(connection))
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(0.1):
                        await step(connection)
                assert not isinstance(caught.value, remctl.RemctlError)
            await connection.open("localhost", remctl_server.port)
            assert (await connection.run(ECHO)).stdout == b"hello\n"

    run(main())


def test_close_in_another_task_ends_every_wait(
    run: Run[Any], wait: Wait, remctl_server: RemctldServer
) -> None:
    port, step, opens = wait

    async def main() -> None:
        async with connected(port, opens) as connection:
            task = asyncio.create_task(step(connection))
            await asyncio.sleep(0.1)  # It has come to the wait by then, nearly always.
            await connection.close()
            with pytest.raises(remctl.RemctlNotOpenedError):
                await task
            await connection.open("localhost", remctl_server.port)
            assert (await connection.run(ECHO)).stdout == b"hello\n"

    run(main())


def test_what_is_closed_before_it_begins_is_not_sent(run: Run[Any], remctl_realm: Realm) -> None:
    async def main() -> None:
        connection = AsyncRemctl("localhost", server.port)
        task = asyncio.create_task(connection.run(ECHO))
        await connection.close()
        with pytest.raises(remctl.RemctlNotOpenedError):
            await task

    with FakeServer(remctl_realm.keytab) as server:
        run(main())
        assert server.connections == 0


def test_a_timeout_does_not_end_a_token_that_keeps_coming(
    run: Run[Any], remctl_server: RemctldServer
) -> None:
    async def attempt(proxy: Proxy) -> bool:
        async with AsyncRemctl("localhost", proxy.port, timeout=LIMIT) as connection:
            connection.set_timeout(0.8)
            proxy.dribble(TO_CLIENT, seconds=0.02)
            try:
                return (await connection.run(ECHO)).stdout == b"hello\n"
            except remctl.RemctlTimeoutError:  # A busy machine may be silent for that long.
                return False

    def keeps_coming() -> bool:
        with Proxy("127.0.0.1", remctl_server.port) as proxy:
            return bool(run(attempt(proxy)))

    eventually(keeps_coming, interval=0)


# -- The loop is never blocked --------------------------------------------------------------------


class Ticker:
    """Measures how long the loop was at other things, at most and in the middle."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    async def __aenter__(self) -> Ticker:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _tick(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.gaps.append(time.perf_counter() - before)

    def goes_on(self) -> bool:
        """Return whether there were gaps, nine of ten of them short, and none long."""
        gaps = sorted(self.gaps)
        return len(gaps) >= 8 and gaps[len(gaps) * 9 // 10] < 0.05 and gaps[-1] < 0.3


def check_ticking(run: Run[Any], attempt: Callable[[Ticker], Coroutine[Any, Any, None]]) -> None:
    """Check that the loop goes on meanwhile; on a busy machine, in one of several attempts."""

    def goes_on() -> bool:
        ticker = Ticker()
        run(attempt(ticker))
        return ticker.goes_on()

    eventually(goes_on, interval=0)


def test_the_loop_goes_on_while_a_wait_lasts(run: Run[Any], wait: Wait) -> None:
    port, step, opens = wait

    async def attempt(ticker: Ticker) -> None:
        async with connected(port, opens, LIMIT) as connection, ticker:
            connection.set_timeout(0.4)
            with pytest.raises(remctl.RemctlTimeoutError):
                await step(connection)

    check_ticking(run, attempt)


def test_the_loop_goes_on_while_much_is_sent_and_received(
    run: Run[Any], remctl_server: RemctldServer
) -> None:
    async def attempt(ticker: Ticker) -> None:
        async with AsyncRemctl("localhost", remctl_server.port) as connection, ticker:
            result = await connection.run(["test", "cat"], input=MUCH * 16)
            assert result.stdout == MUCH * 16

    check_ticking(run, attempt)


def test_the_loop_goes_on_while_a_kdc_does_not_answer(run: Run[Any]) -> None:
    with Realm() as realm, realm.environ(), FakeServer(realm.keytab) as server:
        realm.freeze_kdc()

        async def attempt(ticker: Ticker) -> None:
            # With an address, so that nothing else can be what takes so long.
            connection = AsyncRemctl("127.0.0.1", server.port, "host/localhost", timeout=0.4)
            async with ticker:
                with pytest.raises(remctl.RemctlTimeoutError, match="waiting for a KDC"):
                    await connection.run(ECHO)

        check_ticking(run, attempt)
        realm.thaw_kdc()


# -- Many, and storms -----------------------------------------------------------------------------


async def wait_in_many(port: int, count: int) -> int:
    """Have sessions wait at the same time; how many threads that takes."""
    sessions = [AsyncRemctl("localhost", port) for _ in range(count)]
    try:
        await asyncio.gather(*[session.open("localhost", port) for session in sessions])
        await asyncio.gather(*[session.command(ECHO) for session in sessions])
        waiting = [asyncio.create_task(session.output()) for session in sessions]
        await asyncio.sleep(0.1)
        # The threads of the extension are kept for a second; nobody needs the loop meanwhile.
        with contextlib.suppress(AssertionError):
            eventually(lambda: thread_count() <= 1 + THREADS)
        threads = thread_count()
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return threads
    finally:
        await asyncio.gather(*[session.close() for session in sessions])


def count_threads(port: int, count: int) -> int:
    return asyncio.run(wait_in_many(port, count))


def test_a_session_that_waits_costs_no_thread(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, silent_after_command) as server:
        assert in_child(count_threads, server.port, 100) <= 1 + THREADS


async def storm(port: int, seed: int, tasks: int, rounds: int) -> tuple[int, int]:
    """Cancel calls at random moments; how many were, and how many results came."""
    chance = random.Random(seed)
    cancelled = results = 0

    async def call(connection: AsyncRemctl, number: int) -> None:
        text = f"{number}"
        result = await connection.run(["test", "echo", text])
        assert result.stdout == f"{text}\n".encode()

    async def one(task: int) -> None:
        nonlocal cancelled, results
        connection = AsyncRemctl("localhost", port)
        for number in range(rounds):
            try:
                async with asyncio.timeout(chance.uniform(0, 0.03)):
                    await call(connection, task * rounds + number)
                results += 1
            except TimeoutError:
                cancelled += 1
        await call(connection, -1)
        await connection.close()

    await asyncio.gather(*[one(task) for task in range(tasks)])
    return cancelled, results


def weather_storm(port: int, kind: str) -> tuple[int, int]:
    """Be in a storm; check that nothing of it stays."""
    runner = asyncio.run if kind == "asyncio" else uvloop.run
    runner(storm(port, 1, 2, 2))
    eventually(lambda: thread_count() <= 1 + THREADS)
    gc.collect()
    before = open_descriptors()
    found = runner(storm(port, 2, 8, 30))
    gc.collect()
    eventually(lambda: open_descriptors() <= before, what="as few descriptors as before")
    eventually(lambda: thread_count() <= 1 + THREADS, what="no thread but the main one")
    return found


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_storm_of_cancellations_leaves_nothing_behind(
    remctl_server: RemctldServer, kind: str
) -> None:
    cancelled, results = in_child(weather_storm, remctl_server.port, kind)
    assert cancelled >= 10
    assert cancelled + results == 8 * 30

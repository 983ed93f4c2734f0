"""AsyncPool: what Pool does, for the tasks of an event loop; and cancelling."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from support.fakeserver import FakeServer, Peer, in_turn, serve
from support.proxy import SilentServer
from support.wire import Message

import remctl
from remctl_toolkit import _pool_ledger
from remctl_toolkit._pool_async import TaskGate
from remctl_toolkit.pool import AsyncPool, Pool, PoolClosedError, PoolStats, PoolTimeoutError

if TYPE_CHECKING:
    from pool.conftest import HoldingServer

    from remctl_toolkit.testing import Realm

LIMIT = 30.0  # seconds after which a wait has failed
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """A function that runs a coroutine, for each kind of event loop."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


def pool_of(server: FakeServer, size: int = 4, **options: Any) -> AsyncPool:
    return AsyncPool("localhost", server.port, size=size, **{"timeout": LIMIT, **options})


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110  # the server has threads
            await asyncio.sleep(0.005)


def test_names_and_arguments_are_those_of_pool() -> None:
    names = {name for name in dir(Pool) if not name.startswith("_")}
    assert {name for name in dir(AsyncPool) if not name.startswith("_")} == names
    for name in ("run", "session", "map", "close"):
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (AsyncPool, Pool))
        assert ours.parameters == theirs.parameters
    ours, theirs = (inspect.signature(cls).parameters for cls in (AsyncPool, Pool))
    assert {**ours, "one_address": theirs["one_address"]} == dict(theirs)


def test_sessions_are_bounded_kept_and_lent_in_turn(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        async with pool_of(server, 2) as pool:
            calls = [asyncio.create_task(pool.run(["wait", n])) for n in range(6)]
            await until(lambda: server.running == 2)
            assert pool.stats == PoolStats(0, 2, 4, 2)
            server.go.set()
            results = await asyncio.gather(*calls)
            assert [result.stdout for result in results] == [b"wait %d\n" % n for n in range(6)]
            assert pool.stats == PoolStats(2, 0, 0, 2)
        async with pool_of(server, 1) as pool:
            await asyncio.gather(*[pool.run(["x", n]) for n in range(8)])

    run(main())
    assert server.connections == 3
    assert server.commands[-8:] == [[b"x", b"%d" % number] for number in range(8)]


def test_a_gate_is_closed_by_who_waited(run: Run) -> None:
    async def main() -> None:
        gate = TaskGate()
        gate.set()
        assert await gate.wait(None)
        assert not await gate.wait(0)

    run(main())


def test_waiting_for_a_session_has_a_limit(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        async with pool_of(server, 1, max_wait=0.01) as pool, pool.session():
            with pytest.raises(PoolTimeoutError, match=r"in 0\.01 s"):
                await pool.run(["x"])
            with pytest.raises(PoolTimeoutError, match="in 0 s"):
                async with pool.session(timeout=0):
                    pass
            assert pool.stats.waiting == 0

    run(main())


def test_cancelling_gives_places_back(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        async with pool_of(server, 1) as pool:
            running = asyncio.create_task(pool.run(["wait"]))
            await until(lambda: server.running == 1)
            waiting = asyncio.create_task(pool.run(["never"]))
            await until(lambda: pool.stats.waiting == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert pool.stats.waiting == 0
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert pool.stats == PoolStats(0, 0, 0, 1)
            assert (await pool.run(["x"])).stdout == b"x\n"

    run(main())
    assert server.connections == 2
    assert server.commands == [[b"wait"], [b"x"]]


def test_cancelling_at_the_moment_of_the_turn(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        async with pool_of(server, 1) as pool:
            async with pool.session():
                first = asyncio.create_task(pool.run(["never"]))
                second = asyncio.create_task(pool.run(["x"]))
                await until(lambda: pool.stats.waiting == 2)
            assert pool.stats == PoolStats(0, 1, 1, 1)  # The first has it, and does not know yet.
            first.cancel()
            assert (await second).stdout == b"x\n"

    run(main())
    assert server.commands == [[b"x"]]


@pytest.mark.usefixtures("remctl_realm")
def test_cancelling_an_open(run: Run) -> None:
    async def main() -> None:
        async with AsyncPool("localhost", silent.port, size=1) as pool:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await pool.run(["x"])
            assert pool.stats == PoolStats(0, 0, 0, 0)

    with SilentServer() as silent:
        run(main())


def test_giving_back(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        async with pool_of(server, 1) as pool:
            async with pool.session() as session:
                session.set_timeout(1)
            async with pool.session() as same:
                assert same is session
                assert same._session.timeout == LIMIT
            with pytest.raises(KeyError):
                async with pool.session():
                    raise KeyError
            with pytest.raises(remctl.RemctlServerError):
                await pool.run(["refuse"])
            assert pool.stats == PoolStats(1, 0, 0, 1)
            async with pool.session() as session:
                await session.command(["wait"])
            assert pool.stats == PoolStats(0, 0, 0, 1)
            server.go.set()
            assert (await pool.run(["x"])).stdout == b"x\n"

    run(main())
    assert server.connections == 2


def test_idle_sessions_are_asked_replaced_and_given_up(run: Run, remctl_realm: Realm) -> None:
    def silent_afterwards(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_status(0)
        peer.stall()

    async def main() -> None:
        now = 0.0
        async with pool_of(server, 1, timeout=0.3) as pool:
            pool._ledger.clock = lambda: now
            await pool.run(["x"])
            now += 30
            assert (await pool.run(["y"])).stdout == b"y\n"
            assert server.connections == 2
            now += 30
            await pool.run(["z"])
            assert Message.NOOP in server.messages
            now += 600
            await pool.run(["z"])
            assert pool.stats == PoolStats(1, 0, 0, 3)

    with FakeServer(remctl_realm.keytab, in_turn(silent_afterwards, serve())) as server:
        run(main())


def test_opens_are_tried_again(
    run: Run, remctl_realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pool_ledger, "_OPEN_DELAY", 0.01)

    async def main() -> None:
        async with pool_of(server, 2) as pool, pool.session():
            assert (await pool.run(["x"])).stdout == b"x\n"

    with FakeServer(remctl_realm.keytab, in_turn(serve(), Peer.reset, serve())) as server:
        run(main())
        assert server.connections == 3


def test_close_ends_what_runs_opens_and_waits(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        pool = pool_of(server, 1)
        running = asyncio.create_task(pool.run(["wait"]))
        await until(lambda: server.running == 1)
        waiting = asyncio.create_task(pool.run(["x"]))
        await until(lambda: pool.stats.waiting == 1)
        await pool.close()
        with pytest.raises(remctl.RemctlNotOpenedError):
            await running
        with pytest.raises(PoolClosedError):
            await waiting
        await pool.close()
        with pytest.raises(PoolClosedError):
            await pool.run(["x"])
        with SilentServer() as silent:
            pool = AsyncPool("localhost", silent.port)
            opening = asyncio.create_task(pool.run(["x"]))
            await until(lambda: silent.connections)
            await pool.close()
            with pytest.raises(PoolClosedError):
                await opening

    run(main())


# -- map() ----------------------------------------------------------------------------------------


def test_map_in_order_and_as_completed(run: Run, server: HoldingServer) -> None:
    commands: list[Any] = [["x"], ["refuse"], ["fail"], ["x", None], *[["x"]] * 20]

    async def main() -> None:
        async with pool_of(server, 3) as pool:
            for ordered in (True, False):
                found = [outcome async for outcome in pool.map(commands, ordered=ordered)]
                indexes = [outcome.index for outcome in found]
                assert (indexes if ordered else sorted(indexes)) == list(range(24))
                errors = {outcome.index: type(outcome.error) for outcome in found if outcome.error}
                assert errors == {1: remctl.RemctlServerError, 3: TypeError}
            outcomes = pool.map([["wait"], ["x"]], ordered=False)
            assert (await anext(outcomes)).index == 1
            server.go.set()
            assert (await anext(outcomes)).index == 0
            await outcomes.aclose()

    run(main())
    assert server.connections <= 3


def test_map_waits_for_sessions_longer_than_run(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        async with pool_of(server, 1, max_wait=0.001) as pool:
            async with pool.session():
                outcome = asyncio.create_task(anext(pool.map([["x"]])))
                await until(lambda: pool.stats.waiting == 1)
            assert (await outcome).ok

    run(main())


def test_map_leaves_early(run: Run, server: HoldingServer) -> None:
    taken = itertools.count()

    async def main() -> None:
        async with pool_of(server, 3, max_wait=0.001) as pool:
            commands = (["wait" if next(taken) else "x"] for _ in itertools.count())
            async for outcome in pool.map(commands):
                assert outcome.ok
                break
            await until(lambda: pool.stats.in_use == 0 and pool.stats.waiting == 0)
            assert next(taken) <= 7
            server.go.set()
            assert (await pool.run(["y"])).status == 0

    run(main())


def test_closing_the_pool_ends_map(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        pool = pool_of(server, 2)
        outcomes = pool.map(itertools.repeat(["x"]))
        assert (await anext(outcomes)).ok
        await pool.close()
        rest = []

        async def exhaust() -> None:
            async for outcome in outcomes:
                rest.append(outcome)

        with pytest.raises(PoolClosedError):
            await exhaust()
        assert all(isinstance(o.error, remctl.RemctlNotOpenedError) or o.ok for o in rest)

    run(main())


def test_a_deadline_limits_the_wait_for_a_session(run: Run, server: HoldingServer) -> None:
    async def main() -> None:
        async with pool_of(server, 1) as pool, pool.session():
            with pytest.raises(PoolTimeoutError, match="became free before the deadline"):
                await pool.run(["x"], deadline=0.2)
            with pytest.raises(PoolTimeoutError, match="became free before the deadline"):
                async with pool.session(deadline=0.2):
                    pass

    run(main())
    assert server.commands == []

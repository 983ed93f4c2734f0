"""Pool.map(): outcomes in order or as completed, errors in their place, and leaving early."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer
from support.waiting import eventually, nothing_left_behind

import remctl
from remctl_toolkit.pool import CommandOutcome, Pool, PoolClosedError

if TYPE_CHECKING:
    from pool.conftest import HoldingServer

LIMIT = 30.0  # seconds after which a wait has failed


def pool_of(server: FakeServer, size: int = 4, **options: Any) -> Pool:
    return Pool("localhost", server.port, size=size, **{"timeout": LIMIT, **options})


def test_outcomes_in_order(server: HoldingServer) -> None:
    commands = [["x", number] for number in range(50)]
    with nothing_left_behind(), pool_of(server) as pool:
        outcomes = list(pool.map(commands))
        assert list(pool.map([])) == []
    assert [outcome.index for outcome in outcomes] == list(range(50))
    assert [outcome.command for outcome in outcomes] == commands
    assert [outcome.check().stdout for outcome in outcomes] == [b"x %d\n" % n for n in range(50)]
    assert 1 <= server.connections <= 4


def test_order_holds_where_the_first_takes_longest(server: HoldingServer) -> None:
    def commands() -> Iterator[list[str]]:
        yield ["wait"]
        yield ["x"]
        eventually(lambda: len(server.commands) == 2 and server.running == 1)
        server.go.set()
        yield ["y"]

    with pool_of(server, 2) as pool:
        assert [outcome.index for outcome in pool.map(commands())] == [0, 1, 2]


def test_outcomes_as_completed(server: HoldingServer) -> None:
    with pool_of(server, 2) as pool:
        outcomes = pool.map([["wait"], ["x"], ["y"]], ordered=False)
        assert [next(outcomes).index for _ in range(2)] == [1, 2]
        server.go.set()
        assert [outcome.index for outcome in outcomes] == [0]


def test_errors_are_in_their_place(server: HoldingServer) -> None:
    commands: list[Any] = [["x"], ["refuse"], ["fail"], ["x", None], ["x"]]
    with pool_of(server, 2) as pool:
        outcomes = list(pool.map(commands))
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        remctl.RemctlServerError,
        type(None),
        TypeError,
        type(None),
    ]
    assert [outcome.ok for outcome in outcomes] == [True, False, False, False, True]
    for number, error in (
        (1, remctl.RemctlServerError),
        (2, remctl.RemctlStatusError),
        (3, TypeError),
    ):
        with pytest.raises(error):
            outcomes[number].check()
    assert server.connections <= 2


def test_outcomes_do_not_show_commands_and_can_be_pickled(server: HoldingServer) -> None:
    with pool_of(server) as pool:
        (outcome,) = pool.map([["x", "secret"]])
    assert "secret" not in repr(outcome)
    copy = pickle.loads(pickle.dumps(outcome))
    assert copy == outcome
    assert isinstance(copy, CommandOutcome)


@pytest.mark.parametrize("ordered", [True, False])
def test_commands_are_taken_as_they_are_needed(server: HoldingServer, ordered: bool) -> None:
    taken = itertools.count()
    with pool_of(server, 3) as pool:
        outcomes = pool.map((["x", str(next(taken))] for _ in itertools.count()), ordered=ordered)
        for _ in range(20):
            assert next(outcomes).ok
        assert next(taken) <= 20 + 6
        outcomes.close()


def test_a_slow_command_bounds_what_is_taken(server: HoldingServer) -> None:
    taken = []

    def commands() -> Iterator[list[str]]:
        for number in itertools.count():
            taken.append(number)
            yield ["x" if number else "wait"]

    with pool_of(server, 2) as pool, ThreadPoolExecutor(1) as thread:
        first = thread.submit(next, pool.map(commands()))
        eventually(lambda: len(server.commands) == 4 and pool.stats.idle == 1)
        assert taken == [0, 1, 2, 3]
        server.go.set()
        assert first.result().index == 0


def test_leaving_early_ends_what_runs(server: HoldingServer) -> None:
    with nothing_left_behind(), pool_of(server, 3) as pool:
        commands = itertools.chain([["wait"], ["wait"], ["x"]], itertools.repeat(["wait"]))
        for outcome in pool.map(commands, ordered=False):
            assert outcome.index == 2
            eventually(lambda: server.running >= 2)
            break
        eventually(lambda: pool.stats.in_use == 0 and pool.stats.waiting == 0)
        begun = len(server.commands)
        server.go.set()
        assert pool.run(["y"]).status == 0
        assert len(server.commands) == begun + 1


def test_sessions_of_others_are_left_alone(server: HoldingServer) -> None:
    with pool_of(server, 2) as pool, pool.session() as session:
        outcomes = pool.map(itertools.repeat(["x"]))
        next(outcomes)
        outcomes.close()
        assert session.run(["y"]).stdout == b"y\n"


def test_what_the_iterable_raises_comes_in_its_place(server: HoldingServer) -> None:
    def commands() -> Iterator[list[str]]:
        yield ["x"]
        yield ["refuse"]
        raise LookupError

    with pool_of(server, 2) as pool:
        outcomes = pool.map(commands())
        assert next(outcomes).ok
        assert isinstance(next(outcomes).error, remctl.RemctlServerError)
        with pytest.raises(LookupError):
            next(outcomes)
        assert pool.run(["x"]).status == 0


def test_closing_the_pool_ends_the_iteration(server: HoldingServer) -> None:
    pool = pool_of(server, 2)
    outcomes = pool.map(itertools.repeat(["x"]))
    assert next(outcomes).ok
    pool.close()
    rest: list[CommandOutcome] = []
    with pytest.raises(PoolClosedError):
        rest.extend(outcomes)
    assert all(isinstance(o.error, remctl.RemctlNotOpenedError) or o.ok for o in rest)
    with pytest.raises(PoolClosedError):
        next(pool.map([["x"]]))


def test_map_waits_for_sessions_longer_than_run(server: HoldingServer) -> None:
    with pool_of(server, 1, max_wait=0.001) as pool, ThreadPoolExecutor(1) as thread:
        with pool.session():
            outcomes = thread.submit(list, pool.map([["x"]] * 3))
            eventually(lambda: pool.stats.waiting == 1)
        assert all(outcome.ok for outcome in outcomes.result())

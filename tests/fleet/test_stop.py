"""Runs that are stopped: each host has its outcome, which says whether the command may have run."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Executor, Future
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from support.clocks import HeldClock
from support.farm import Farm, fleet_threads
from support.waiting import eventually

from remctl_toolkit import schedule
from remctl_toolkit.fleet import (
    Fleet,
    GivenUpError,
    Host,
    NotStartedError,
    Outcome,
    Stop,
    run_on_hosts,
)
from remctl_toolkit.testing import Command, RemctldServer

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ECHO, SLEEP = ["test", "echo", "hello"], ["test", "sleep", "600"]
LIMIT = 30.0

Kind = tuple[type[Exception] | None, bool]

DONE: Kind = (None, True)
GIVEN_UP: Kind = (GivenUpError, True)
NOT_SENT: Kind = (GivenUpError, False)
NOT_STARTED: Kind = (NotStartedError, False)


def kind(outcome: Outcome) -> Kind:
    return (None if outcome.error is None else type(outcome.error), outcome.may_have_run)


class AtWork:
    """Calls a function once commands sleep on some hosts, and others are connected to."""

    def __init__(self, farm: Farm, sleeping: int, silent: list[Host]) -> None:
        self._logs = [(server, len(server.log)) for server in farm.remctlds]
        self._sleeping = sleeping
        self._silent = {f"remctl-fleet {host}" for host in silent}

    def _reached(self) -> bool:
        logs = "".join(server.log[mark:] for server, mark in self._logs)
        working = {thread.name for thread in threading.enumerate()}
        return logs.count(" ".join(SLEEP)) == self._sleeping and self._silent <= working

    def then(self, action: Any) -> threading.Thread:
        def run() -> None:
            eventually(self._reached, LIMIT)
            action()

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def test_every_host_has_its_outcome(farm: Farm) -> None:
    ended, sleeping, silent, others = farm.good(2), farm.good(2), farm.silent(2), farm.good(2)
    stop = Stop()
    thread = AtWork(farm, 2, silent).then(stop.set)
    outcomes = run_on_hosts(
        [*ended, *sleeping, *silent, *others],
        lambda host: SLEEP if host in sleeping else ECHO,
        concurrency=4,
        ordered=True,
        stop=stop,
    )
    assert [kind(each) for each in outcomes] == [
        *(DONE, DONE, GIVEN_UP, GIVEN_UP, NOT_SENT, NOT_SENT, NOT_STARTED, NOT_STARTED)
    ]
    thread.join()
    assert fleet_threads() == []


def test_a_stopped_fleet_can_be_used_again(farm: Farm) -> None:
    with Fleet(farm.good(2)) as fleet:
        stop = Stop()
        thread = AtWork(farm, 2, []).then(stop.set)
        assert [kind(each) for each in fleet.run(SLEEP, stop=stop)] == [GIVEN_UP] * 2
        thread.join()
        assert [kind(each) for each in fleet.run(ECHO, stop=stop)] == [NOT_STARTED] * 2
        assert [kind(each) for each in fleet.run(ECHO)] == [DONE] * 2


def test_output_so_far_is_part_of_the_outcome(remctl_realm: Realm) -> None:
    endless = Command("endless", script="echo so far; exec sleep 600")
    stop = Stop()
    with RemctldServer(remctl_realm, [endless]) as server:
        (outcome,) = run_on_hosts(
            [Host(server.host, server.port, server.principal)],
            ["endless"],
            on_output=lambda *_: stop.set(),
            stop=stop,
        )
    assert kind(outcome) == GIVEN_UP
    assert isinstance(outcome.error, GivenUpError)
    assert outcome.error.partial is not None
    assert outcome.error.partial.stdout == b"so far\n"


def test_a_signal_handler_may_stop_it_at_any_moment(farm: Farm) -> None:
    """While the handler runs, the thread that waits may hold any lock of the run."""
    hosts = farm.good(8)
    for _ in range(30):
        stop = Stop()
        before = signal.signal(signal.SIGUSR1, lambda *_, stop=stop: stop.set())
        try:
            outcomes = []
            with closing(run_on_hosts(hosts, ECHO, concurrency=4, stop=stop)) as found:
                for outcome in found:
                    outcomes.append(outcome)
                    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
                    thread.start()
            thread.join()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert {each.host for each in outcomes} == set(hosts)
        assert {kind(each) for each in outcomes} <= {DONE, GIVEN_UP, NOT_SENT, NOT_STARTED}


def test_nobody_waits_for_ever_for_what_does_not_end(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock()
    monkeypatch.setattr(schedule, "clock", clock)
    stop, entered, leave = Stop(), threading.Event(), threading.Event()

    def keep(*_: object) -> None:
        stop.set()
        entered.set()
        leave.wait(LIMIT)

    def let_time_pass() -> None:
        eventually(lambda: 5.0 in clock.waits, LIMIT)
        clock.advance(5.0)

    thread = threading.Thread(target=let_time_pass)
    thread.start()
    (outcome,) = run_on_hosts(farm.good(1), ECHO, on_output=keep, stop=stop)
    assert kind(outcome) == GIVEN_UP
    assert entered.is_set()
    leave.set()
    thread.join()


class Idle(Executor):
    """Takes everything, and does nothing; of what it has begun it can take nothing back."""

    def __init__(self, *, begun: bool) -> None:
        self._begun = begun

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._begun:
            future.set_running_or_notify_cancel()
        return future


@pytest.mark.parametrize("begun", [False, True])
def test_what_an_executor_has_may_have_run(begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock()
    monkeypatch.setattr(schedule, "clock", clock)
    stop = Stop()
    outcomes = run_on_hosts(
        ["a", "b", "c"], ECHO, executor=Idle(begun=begun), concurrency=2, ordered=True, stop=stop
    )

    def end() -> None:
        eventually(lambda: None in clock.waits, LIMIT)
        stop.set()
        if begun:
            eventually(lambda: 5.0 in clock.waits, LIMIT)
            clock.advance(5.0)

    thread = threading.Thread(target=end)
    thread.start()
    found = list(outcomes)
    thread.join()
    assert [each.may_have_run for each in found] == [True, True, False]

"""Outcomes tell whether the command may have run, and nothing of its arguments and output."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest
from support.clocks import SkippingClock
from support.fakeserver import FakeServer, Peer, stall_after_output
from support.farm import Farm
from support.waiting import TRIES

import remctl
from remctl_toolkit import schedule
from remctl_toolkit.fleet import (
    FleetError,
    Host,
    NotStartedError,
    Outcome,
    check_all,
    run_on_hosts,
)

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.usefixtures("nothing_is_left")

ECHO = ["test", "echo", "hello"]


# -- On real hosts --------------------------------------------------------------------------------


def test_of_hosts_that_answer(farm: Farm) -> None:
    (good,), (denying,) = farm.good(1), farm.denying(1)
    for host, command, expected in (
        (good, ECHO, True),
        (good, ["test", "status", "3"], True),
        (good, ["none"], False),
        (denying, ECHO, False),
    ):
        (outcome,) = run_on_hosts([host], command)
        assert outcome.may_have_run is expected, outcome
        assert pickle.loads(pickle.dumps(outcome)).may_have_run is expected


def test_of_hosts_that_cannot_be_reached(farm: Farm) -> None:
    hosts = [*farm.dead(1), Host("unknown.invalid"), *farm.silent(1)]
    outcomes = list(run_on_hosts(hosts, ECHO, timeout=0.2, retries=1, backoff=0))
    assert [each.may_have_run for each in outcomes] == [False] * 3
    (outcome,) = run_on_hosts(hosts[2:], ECHO, limit=0.2)
    assert (outcome.reason, outcome.may_have_run) == ("time limit reached", False)


def test_of_hosts_that_are_not_begun(farm: Farm) -> None:
    outcomes = list(run_on_hosts(farm.dead(1) + farm.good(2), ECHO, first=1))
    assert [each.may_have_run for each in outcomes] == [False] * 3


def hang_up(peer: Peer) -> None:
    peer.accept()
    peer.read_command()


def talk_nonsense(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_message(b"\2\xff")


def fail_after_output(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_output(b"so far")
    peer.send_error(6, b"access denied")


def stall(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.stall()


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("script", [hang_up, talk_nonsense, fail_after_output])
def test_of_hosts_that_fail_after_the_command(
    remctl_realm: Realm, script: Callable[[Peer], None], live: bool
) -> None:
    with FakeServer(remctl_realm.keytab, script) as server:
        told = (lambda *_: None) if live else None
        (outcome,) = run_on_hosts([Host("localhost", server.port)], ECHO, on_output=told)
    assert not outcome.ok
    assert outcome.may_have_run


@pytest.mark.parametrize("kind", ["limit", "timeout", "deadline"])
@pytest.mark.parametrize("script", [stall, stall_after_output])
def test_of_hosts_that_are_silent_after_the_command(
    remctl_realm: Realm, script: Callable[[Peer], None], kind: str
) -> None:
    for seconds in TRIES:
        with FakeServer(remctl_realm.keytab, script) as server:
            limits: dict[str, Any] = {kind: seconds}
            (outcome,) = run_on_hosts([Host("localhost", server.port)], ECHO, **limits)
            assert isinstance(outcome.error, remctl.RemctlTimeoutError)
        if server.commands:
            break
    assert outcome.may_have_run


# -- What the caller's functions raise -------------------------------------------------------------


class OtherError(remctl.RemctlError):
    """The end of something else that the caller does."""


def test_of_a_host_whose_output_the_caller_does_not_take(farm: Farm) -> None:
    """It may raise what says that something else has not run."""

    def take(*_: object) -> None:
        raise OtherError("another server refused")

    (outcome,) = run_on_hosts(farm.good(1), ECHO, on_output=take)
    assert isinstance(outcome.error, OtherError)
    assert (outcome.may_have_run, outcome.error.partial) == (True, None)


def test_of_a_host_whose_command_the_caller_cannot_make(farm: Farm) -> None:
    error = OtherError("something else may have run")
    error.may_have_run = True

    def make(host: Host) -> list[str]:
        raise error

    (outcome,) = run_on_hosts(farm.good(1), make)
    assert outcome.error is error
    assert not outcome.may_have_run
    (outcome,) = run_on_hosts(farm.good(1), ECHO, input=lambda host: 5)  # type: ignore[arg-type, return-value]
    assert isinstance(outcome.error, TypeError)
    assert not outcome.may_have_run


# -- Executors ------------------------------------------------------------------------------------


class Keeper(Executor):
    """Takes work, and does none of it."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.calls: list[str] = []

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
        self.calls.append(repr((function, arguments, keywords)))
        self.futures.append(Future())
        return self.futures[-1]


def test_of_work_that_an_executor_has_cancelled() -> None:
    """Nobody knows whether it had begun."""
    keeper = Keeper()

    def cancel(host: Host) -> list[str]:
        for future in keeper.futures:
            future.cancel()
        return ECHO

    outcomes = run_on_hosts(["web1", "web2"], cancel, executor=keeper, concurrency=2)
    assert next(outcomes).may_have_run
    outcomes.close()


def test_of_work_that_an_executor_has_not_reported_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SkippingClock()
    monkeypatch.setattr(schedule, "clock", clock)
    keeper = Keeper()
    hosts = ["web1", "web2", "web3"]
    outcomes = list(run_on_hosts(hosts, ECHO, executor=keeper, concurrency=2, deadline=60.0))
    assert clock.waits == [61.0]  # a second for the executor to report
    assert [each.may_have_run for each in outcomes] == [True, True, False]
    assert isinstance(outcomes[0].error, remctl.RemctlTimeoutError)
    assert outcomes[0].error.may_have_run
    assert isinstance(outcomes[2].error, NotStartedError)
    assert all(future.cancelled() for future in keeper.futures)


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.mark.once
def test_of_work_whose_worker_died(remctl_realm: Realm, pool: ProcessPoolExecutor) -> None:
    def kill_worker(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        for process in list(pool._processes.values()):
            process.kill()
        peer.stall()

    with FakeServer(remctl_realm.keytab, kill_worker) as server:
        hosts = [Host("localhost", server.port), Host("127.0.0.1", server.port)]
        outcomes = list(run_on_hosts(hosts, ECHO, executor=pool, concurrency=1))
    assert [each.may_have_run for each in outcomes] == [True, False]
    assert isinstance(outcomes[1].error, NotStartedError)


# -- Outcomes by themselves -----------------------------------------------------------------------


def test_outcomes_that_others_make() -> None:
    host = Host("web1")
    lost = remctl.RemctlDisconnectedError("lost")
    lost.may_have_run = True
    lost.advice = "look first"
    assert Outcome(host, remctl.RemctlSimpleResult(status=0)).may_have_run
    assert Outcome(host, error=OSError("disk full")).may_have_run
    assert not Outcome(host, error=NotStartedError("no")).may_have_run
    assert not Outcome(host, error=OSError("no command"), sent=False).may_have_run
    outcome = Outcome(host, error=lost)
    assert (outcome.may_have_run, outcome.advice) == (True, "look first")
    assert Outcome(host, error=OSError("disk full")).advice == ""
    assert Outcome(host, remctl.RemctlSimpleResult(status=1)).advice == ""
    assert dataclasses.replace(outcome, attempts=2).may_have_run


def test_advice_is_that_of_the_error(farm: Farm) -> None:
    (outcome,) = run_on_hosts(farm.dead(1), ECHO)
    assert isinstance(outcome.error, remctl.RemctlError)
    assert "nothing listens" in outcome.advice
    assert outcome.advice == outcome.error.advice


# -- Secrets --------------------------------------------------------------------------------------

SECRET = "canary-5cf1"


def refuse_after_secret(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_output(SECRET.encode())
    peer.send_error(1, b"no")


def hang_up_after_secret(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_output(SECRET.encode())


def print_secret(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.send_output(SECRET.encode())
    peer.send_status(0)


@pytest.mark.parametrize("script", [print_secret, refuse_after_secret, hang_up_after_secret, stall])
def test_no_argument_input_or_output_is_told(
    remctl_realm: Realm, caplog: pytest.LogCaptureFixture, script: Callable[[Peer], None]
) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeServer(remctl_realm.keytab, script) as server:
        hosts = [Host("localhost", server.port)]
        command = ["account", "password", SECRET]
        outcomes = list(run_on_hosts(hosts, command, input=SECRET, limit=TRIES[0]))
    told = [repr(outcomes), *map(str, outcomes), outcomes[0].reason, outcomes[0].advice]
    try:
        check_all(outcomes)
    except FleetError as error:
        told += [repr(error), *traceback.format_exception(error)]
    assert SECRET not in "\n".join([*told, caplog.text])


@pytest.mark.parametrize("command", [["account"], ["account", "password", SECRET]])
def test_an_executor_is_shown_command_and_subcommand_at_most(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Credentials:
        def ccache(self) -> str:
            return SECRET

        def __repr__(self) -> str:
            return SECRET

    monkeypatch.setattr(schedule, "clock", SkippingClock())
    keeper = Keeper()
    outcomes = run_on_hosts(
        ["web1"], command, input=SECRET, executor=keeper, credentials=Credentials(), deadline=60.0
    )
    assert not next(outcomes).ok
    (call,) = keeper.calls
    assert f"<Work for web1: {' '.join(command[:2])}>" in call
    assert SECRET not in call

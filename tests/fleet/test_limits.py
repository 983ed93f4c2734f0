"""Fleets and time: limits, deadlines, trying again, and giving up at any moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from support.clocks import HeldClock, SkippingClock
from support.fakeserver import FakeServer, Peer, stall_after_output
from support.farm import Farm, fleet_threads
from support.proxy import TO_CLIENT, Proxy, SilentServer, refused_port
from support.waiting import TRIES, eventually

import remctl
from remctl_toolkit import schedule
from remctl_toolkit._host_run import HostRun, Work
from remctl_toolkit._settings import Settings
from remctl_toolkit.fleet import Fleet, GivenUpError, Host, Outcome, run_on_hosts

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

pytestmark = pytest.mark.usefixtures("nothing_is_left")

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HeldClock:
    """A clock that stands still."""
    clock = HeldClock()
    monkeypatch.setattr(schedule, "clock", clock)
    return clock


# -- Limits ---------------------------------------------------------------------------------------


def test_a_limit_holds_for_connecting(farm: Farm) -> None:
    (host,) = farm.silent(1)
    (outcome,) = run_on_hosts([host], ECHO, limit=0.2)
    assert isinstance(outcome.error, remctl.RemctlTimeoutError)
    assert isinstance(outcome.error, TimeoutError)
    assert outcome.reason == "time limit reached"
    assert (outcome.error.host, outcome.error.port) == (host.name, host.port)
    assert not outcome.error.may_have_run
    assert outcome.seconds >= 0.2


@pytest.mark.parametrize("live", [False, True])
def test_a_limit_holds_for_a_command_and_keeps_its_output(remctl_realm: Realm, live: bool) -> None:
    def output_until(limit: float) -> remctl.RemctlSimpleResult | None:
        told = (lambda *_: None) if live else None
        (outcome,) = run_on_hosts([host], ECHO, limit=limit, on_output=told)
        assert outcome.reason == "time limit reached"
        assert isinstance(outcome.error, remctl.RemctlTimeoutError)
        assert outcome.error.may_have_run or not outcome.error.partial
        return outcome.error.partial

    with FakeServer(remctl_realm.keytab, stall_after_output) as server:
        host = Host("localhost", server.port)
        assert remctl.RemctlSimpleResult(b"so far") in map(output_until, TRIES)


def test_a_limit_begins_when_the_host_does(farm: Farm, clock: HeldClock) -> None:
    """Waiting for its turn does not count."""
    outcomes = run_on_hosts(farm.good(2), ECHO, limit=LIMIT, concurrency=1)
    assert next(outcomes).ok
    clock.advance(LIMIT)
    assert next(outcomes).ok


def test_a_limit_may_be_endless(farm: Farm) -> None:
    outcomes = run_on_hosts(farm.good(1), ECHO, limit=float("inf"), deadline=1e300)
    assert next(outcomes).ok
    assert fleet_threads() == []


def test_a_timeout_is_the_networks(farm: Farm) -> None:
    (outcome,) = run_on_hosts(farm.silent(1), ECHO, timeout=0.2)
    assert isinstance(outcome.error, remctl.RemctlTimeoutError)
    assert "limit" not in outcome.reason


@pytest.mark.parametrize("options", [{}, {"timeout": 300}])
def test_connecting_has_a_timeout_of_its_own(farm: Farm, options: dict[str, Any]) -> None:
    (outcome,) = run_on_hosts(farm.silent(1), ECHO, connect_timeout=0.2, **options)
    assert isinstance(outcome.error, remctl.RemctlTimeoutError)
    assert not outcome.error.may_have_run

    def command_may_be_silent(timeout: float) -> bool:
        sleep = ["test", "sleep", str(timeout + 1)]
        (outcome,) = run_on_hosts(farm.good(1), sleep, connect_timeout=timeout, **options)
        return outcome.ok

    assert any(map(command_may_be_silent, TRIES))


def test_the_shorter_timeout_holds_for_connecting(farm: Farm) -> None:
    (outcome,) = run_on_hosts(farm.silent(1), ECHO, timeout=0.2, connect_timeout=300)
    assert isinstance(outcome.error, remctl.RemctlTimeoutError)


def test_a_refusal_before_the_limit_stays_a_refusal(farm: Farm) -> None:
    (outcome,) = run_on_hosts(farm.denying(1), ECHO, limit=LIMIT)
    assert outcome.reason == "Access denied"


# -- Deadlines ------------------------------------------------------------------------------------


def test_a_deadline_holds_for_all_hosts_together(farm: Farm) -> None:
    hosts = farm.silent(6)
    for deadline in TRIES:
        outcomes = list(run_on_hosts(hosts, ECHO, deadline=deadline, concurrency=2))
        assert len(outcomes) == 6
        started = [each for each in outcomes if each.started]
        refused = [each for each in outcomes if not each.started]
        assert {each.reason for each in refused} == {"not started: the time was over"}
        if len(started) == 2:  # The time was not over before they were begun.
            break
    assert {each.reason for each in started} == {"time limit reached"}
    assert [each.host for each in refused] == hosts[2:]


def test_a_deadline_passes_while_the_first_are_at_work(farm: Farm) -> None:
    (canary,), others = farm.silent(1), farm.good(2)
    for deadline in TRIES:
        outcomes = list(run_on_hosts([canary, *others], ECHO, deadline=deadline, first=1))
        assert [each.host for each in outcomes] == [canary, *others]
        if outcomes[0].started:  # The time was not over before it was begun.
            break
    assert [each.started for each in outcomes] == [True, False, False]


def test_a_deadline_passes_between_outcomes(farm: Farm, clock: HeldClock) -> None:
    outcomes = run_on_hosts(farm.good(3), ECHO, deadline=LIMIT, concurrency=1)
    assert next(outcomes).ok
    clock.advance(LIMIT)
    assert [each.reason for each in outcomes] == ["not started: the time was over"] * 2


def test_the_time_begins_with_the_first_outcome(farm: Farm, clock: HeldClock) -> None:
    outcomes = run_on_hosts(farm.good(1), ECHO, deadline=LIMIT)
    clock.advance(LIMIT)
    assert next(outcomes).ok


# -- Trying again ---------------------------------------------------------------------------------


def test_opening_is_tried_again(remctl_server: RemctldServer) -> None:
    with Proxy("127.0.0.1", remctl_server.port) as proxy:
        proxy.close(TO_CLIENT, connections={1, 2})
        host = Host("localhost", proxy.port)
        (outcome,) = run_on_hosts([host], ECHO, retries=1, backoff=0.01)
        assert (outcome.ok, outcome.attempts) == (False, 2)
        assert isinstance(outcome.error, remctl.RemctlAuthenticationError)
        proxy.close(TO_CLIENT, connections={3, 4})
        (outcome,) = run_on_hosts([host], ECHO, retries=2, backoff=0.01)
        assert (outcome.ok, outcome.attempts) == (True, 3)
        assert proxy.connections == 5


def test_a_refused_and_a_silent_server_are_tried_again() -> None:
    with refused_port() as dead, SilentServer() as silent:
        hosts = [Host("localhost", port) for port in (dead, silent.port)]
        outcomes = list(run_on_hosts(hosts, ECHO, timeout=0.2, retries=2, backoff=0.01))
        assert [each.attempts for each in outcomes] == [3, 3]
        eventually(lambda: silent.connections == 3)


def test_what_will_not_pass_is_not_tried_again(
    remctl_realm: Realm, remctl_server: RemctldServer
) -> None:
    hosts = [
        Host("unknown.invalid"),
        Host("localhost", remctl_server.port, remctl_realm.principal("host/unknown")),
    ]
    outcomes = list(run_on_hosts(hosts, ECHO, retries=5, backoff=0.01))
    assert [each.attempts for each in outcomes] == [1, 1]
    assert not any(each.ok for each in outcomes)


def reset_after_command(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.reset()


def stall_after_command(peer: Peer) -> None:
    peer.accept()
    peer.read_command()
    peer.stall()


@pytest.mark.parametrize(
    ("script", "timeouts", "kind"),
    [
        (reset_after_command, [LIMIT], remctl.RemctlDisconnectedError),
        (stall_after_command, TRIES, remctl.RemctlTimeoutError),
    ],
)
def test_a_command_that_may_have_run_is_not_sent_again(
    remctl_realm: Realm, script: Any, timeouts: Sequence[float], kind: type[Exception]
) -> None:
    for timeout in timeouts:
        with FakeServer(remctl_realm.keytab, script) as server:
            host = Host("localhost", server.port)
            (outcome,) = run_on_hosts([host], ECHO, retries=5, backoff=0.01, timeout=timeout)
            assert isinstance(outcome.error, kind)
        assert len(server.commands) <= 1
        if server.commands and outcome.attempts == 1:  # It was not opening that took too long.
            break
    assert outcome.attempts == 1
    assert server.commands == [[b"test", b"echo", b"hello"]]


def test_the_pauses_double_up_to_ten_seconds() -> None:
    settings = Settings(backoff=0.5)
    for attempts, most in ((1, 0.5), (2, 1.0), (3, 2.0), (6, 10.0), (5000, 10.0)):
        pauses = [settings.pause(attempts) for _ in range(50)]
        assert most / 2 <= min(pauses) < max(pauses) <= most
    assert Settings(backoff=0).pause(1) == 0


def test_pauses_are_by_the_clock(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SkippingClock()
    monkeypatch.setattr(schedule, "clock", clock)
    (outcome,) = run_on_hosts(farm.dead(1), ECHO, retries=6, backoff=1.0)
    assert (outcome.attempts, outcome.may_have_run) == (7, False)
    pauses = [each for each in clock.waits if each is not None]
    assert len(pauses) == 6
    assert all(
        most / 2 <= each <= most for each, most in zip(pauses, (1, 2, 4, 8, 10, 10), strict=True)
    )
    assert outcome.seconds == pytest.approx(sum(pauses))


def test_a_limit_ends_the_pauses(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SkippingClock()
    monkeypatch.setattr(schedule, "clock", clock)
    (outcome,) = run_on_hosts(farm.dead(1), ECHO, retries=100, backoff=60, limit=LIMIT)
    assert outcome.reason == "time limit reached"
    assert outcome.seconds == pytest.approx(LIMIT)
    assert not outcome.may_have_run


# -- Giving up at any moment ----------------------------------------------------------------------


def run_of(port: int, session: remctl.Remctl | None = None) -> HostRun:
    command = tuple(part.encode() for part in ECHO)
    return HostRun(Work(Host("localhost", port), command, None, Settings(), None), session)


def test_nothing_is_sent_by_what_was_given_up_before_it_began(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        run = run_of(server.port)
        run.give_up()
        outcome = run.outcome()
        assert isinstance(outcome.error, GivenUpError)
        assert not outcome.may_have_run
        assert server.connections == 0


def test_giving_up_ends_a_pause() -> None:
    with refused_port() as port:
        work = Work(Host("localhost", port), (b"x",), None, Settings(retries=9, backoff=600), None)
        run = HostRun(work)
        found: list[Outcome] = []
        thread = threading.Thread(target=lambda: found.append(run.outcome()))
        thread.start()
        eventually(lambda: run._attempts, what="the first pause")
        run.give_up()
        thread.join(LIMIT)
    assert [type(each.error) for each in found] == [GivenUpError]


def test_a_kept_connection_that_was_given_up_is_replaced(farm: Farm) -> None:
    """Whoever left a fleet's command may run another one."""
    with Fleet(farm.good(1) + farm.silent(1)) as fleet:
        outcomes = fleet.run(ECHO)
        assert next(outcomes).ok
        outcomes.close()
        assert next(fleet.run(ECHO)).ok

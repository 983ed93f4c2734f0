"""One command on many hosts: an outcome for each, and which hosts are begun when."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import Command, FakeServer, serve
from support.farm import ANY, Farm

import remctl
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

LIMIT = 20.0  # seconds after which a wait has failed
ECHO = ["test", "echo", "hello"]


@pytest.fixture(scope="module")
def farm(remctl_realm: Realm) -> Iterator[Farm]:
    with Farm(remctl_realm) as farm:
        yield farm


def stdout(outcome: Outcome) -> str:
    return outcome.check().stdout_text()


def names(hosts: list[Host]) -> list[str]:
    return [host.name for host in hosts]


# -- An outcome for each host ---------------------------------------------------------------------


def test_two_hundred_hosts_good_and_bad(farm: Farm) -> None:
    """Each has one outcome; those that are silent take as long as one of them, not all."""
    kinds = {
        "ok": farm.good(170),
        "denied": farm.denying(10),
        "refused": farm.dead(10),
        "silent": farm.silent(10),
    }
    kind_of = {host: kind for kind, hosts in kinds.items() for host in hosts}
    hosts = sorted(kind_of, key=lambda host: hash(host.name))
    for limit in (2.0, 8.0, 32.0):  # On a busy machine the good ones need a longer one, too.
        start = time.monotonic()
        outcomes = list(run_on_hosts(hosts, ECHO, limit=limit))
        seconds = time.monotonic() - start
        if sum(isinstance(each.error, TimeoutError) for each in outcomes) == 10:
            break
    assert seconds < 9 * limit, "ten times the limit if one by one"
    assert Counter(outcome.host for outcome in outcomes) == Counter(hosts)
    reasons = {
        "ok": (type(None), ""),
        "denied": (remctl.RemctlServerError, "Access denied"),
        "refused": (remctl.RemctlConnectError, "Connection refused"),
        "silent": (remctl.RemctlTimeoutError, "time limit reached"),
    }
    for outcome in outcomes:
        error, text = reasons[kind_of[outcome.host]]
        assert type(outcome.error) is error, outcome
        assert text in outcome.reason
        assert outcome.ok == (error is type(None))
        assert outcome.started
        assert outcome.attempts == 1
        assert 0 < outcome.seconds <= seconds
        if outcome.ok:
            assert stdout(outcome) == "hello\n"
        elif isinstance(outcome.error, remctl.RemctlError):
            assert (outcome.error.host, outcome.error.port) == (
                outcome.host.name,
                outcome.host.port,
            )


def test_outcomes_come_as_they_finish(farm: Farm, remctl_realm: Realm) -> None:
    finish = Finish()
    with handling(farm, remctl_realm, finish, 1) as (_, [slow]):
        (quick,) = farm.good(1)
        outcomes = run_on_hosts([slow, quick], ECHO)
        assert next(outcomes).host is quick
        finish.now.set()
        assert next(outcomes).host is slow


def test_or_in_the_order_of_the_hosts(farm: Farm) -> None:
    hosts = farm.good(6)

    def command(host: Host) -> list[str]:
        return ["test", "sleep", "0.4"] if host is hosts[0] else ["test", "echo", host.name]

    outcomes = list(run_on_hosts(hosts, command, ordered=True))
    assert [each.host for each in outcomes] == hosts
    assert [stdout(each) for each in outcomes[1:]] == [f"{host}\n" for host in names(hosts[1:])]


def test_a_status_is_a_result_and_no_success(farm: Farm) -> None:
    (outcome,) = run_on_hosts(farm.good(1), ["test", "status", "3"])
    assert not outcome.ok
    assert outcome.error is None
    assert outcome.result == remctl.RemctlSimpleResult(status=3)
    assert outcome.reason == "command exited with status 3"
    with pytest.raises(remctl.RemctlStatusError, match="status 3"):
        outcome.check()


def test_names_are_hosts(farm: Farm) -> None:
    (host,) = farm.good(1)
    (outcome,) = run_on_hosts(
        iter([host.name]), ECHO, port=str(host.port), principal=farm.principal
    )
    assert outcome.host == Host(host.name)
    assert stdout(outcome) == "hello\n"


def test_a_host_has_its_own_port_and_principal(farm: Farm, remctl_realm: Realm) -> None:
    host, other = farm.good(2)
    (dead,) = farm.dead(1)
    wrong = Host(other.name, other.port, remctl_realm.principal("host/unknown"))
    found = {
        each.host: each
        for each in run_on_hosts([host, wrong], ECHO, port=dead.port, principal=wrong.principal)
    }
    assert found[host].ok
    assert isinstance(found[wrong].error, remctl.RemctlAuthenticationError)


def test_a_host_has_its_own_command_and_input(farm: Farm) -> None:
    hosts = farm.good(5)
    outcomes = run_on_hosts(
        hosts,
        lambda host: iter(["test", "cat"]),
        input=lambda host: host.name,
        ordered=True,
    )
    assert [stdout(each) for each in outcomes] == names(hosts)
    outcomes = run_on_hosts(hosts, ["test", "cat"], input=bytearray(b"\0\xff"))
    assert {each.check().stdout for each in outcomes} == {b"\0\xff"}


def test_what_is_wrong_with_one_command_is_the_outcome_of_its_host(farm: Farm) -> None:
    good, raising, wrong, empty = farm.good(4)

    def command(host: Host) -> Any:
        if host is raising:
            raise LookupError("no such account")
        return {wrong: "echo", empty: []}.get(host, ECHO)

    outcomes = run_on_hosts([raising, wrong, empty, good], command, ordered=True)
    found = {each.host: each for each in outcomes}
    assert found[good].ok
    assert found[raising].reason == "no such account"
    assert isinstance(found[raising].error, LookupError)
    assert isinstance(found[wrong].error, TypeError)
    assert isinstance(found[empty].error, ValueError)
    assert [found[each].attempts for each in (raising, wrong, empty)] == [0, 0, 0]


def test_output_is_told_as_it_arrives(farm: Farm) -> None:
    hosts = farm.good(20)
    told: list[tuple[Host, remctl.RemctlStream, bytes]] = []
    outcomes = list(
        run_on_hosts(hosts, ["test", "streams"], on_output=lambda *each: told.append(each))
    )
    expected = [
        (remctl.RemctlStream.STDOUT, b"this is stdout\n"),
        (remctl.RemctlStream.STDERR, b"this is stderr\n"),
    ]
    for host in hosts:
        assert sorted(each[1:] for each in told if each[0] is host) == expected
    for outcome in outcomes:
        assert outcome.result == remctl.RemctlSimpleResult(expected[0][1], expected[1][1], 0)


def test_output_is_told_before_the_command_ends(remctl_realm: Realm) -> None:
    told = threading.Event()

    def script(peer: Any) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"so far")
        assert told.wait(LIMIT)
        peer.send_status(0)

    with FakeServer(remctl_realm.keytab, script) as server:
        host = Host("localhost", server.port)
        (outcome,) = run_on_hosts([host], ECHO, on_output=lambda *_: told.set())
        assert outcome.result == remctl.RemctlSimpleResult(b"so far", None, 0)
        assert server.errors == []


def test_on_output_that_raises_is_the_outcome_of_its_host(farm: Farm) -> None:
    hosts = farm.good(3)

    def tell(host: Host, stream: remctl.RemctlStream, octets: bytes) -> None:
        if host is hosts[1]:
            raise OSError("disk full")

    outcomes = list(run_on_hosts(hosts, ECHO, on_output=tell, ordered=True))
    assert [each.reason for each in outcomes] == ["", "disk full", ""]


def test_a_refusal_keeps_the_output_before_it(remctl_realm: Realm) -> None:
    def script(peer: Any) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"so far")
        peer.send_error(1, b"no")

    with FakeServer(remctl_realm.keytab, script) as server:
        host = Host("localhost", server.port)
        for on_output in (None, lambda *_: None):
            (outcome,) = run_on_hosts([host], ECHO, on_output=on_output)
            assert isinstance(outcome.error, remctl.RemctlServerError)
            assert outcome.error.partial == remctl.RemctlSimpleResult(b"so far")


# -- Which hosts are begun when -------------------------------------------------------------------


class Busy:
    """A handler that counts how many commands are at work at the same time."""

    def __init__(self, meeting: int) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(meeting)

    def __call__(self, command: Command) -> tuple[bytes, bytes, int]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self._barrier.wait(LIMIT)  # All of them are there at the same time, or this fails.
        time.sleep(0.1)  # If there were more, they would come meanwhile.
        with self._lock:
            self.now -= 1
        return b"", b"", 0


class Finish:
    """A handler whose commands end when they are told to."""

    def __init__(self) -> None:
        self.now = threading.Event()

    def __call__(self, command: Command) -> tuple[bytes, bytes, int]:
        assert self.now.wait(LIMIT)
        return b"", b"", 0


@contextlib.contextmanager
def handling(
    farm: Farm, realm: Realm, handler: Callable[[Command], Any], count: int
) -> Iterator[tuple[FakeServer, list[Host]]]:
    """A server with a handler, and hosts that lead to it."""
    with FakeServer(realm.keytab, serve(handler=handler), host=ANY) as server:
        yield server, [farm.host(server.port) for _ in range(count)]
        assert server.errors == []


@pytest.mark.parametrize("first", [0, 4])
def test_no_more_hosts_than_asked_for_are_worked_on(
    farm: Farm, remctl_realm: Realm, first: int
) -> None:
    busy = Busy(4)
    with handling(farm, remctl_realm, busy, 24) as (_, hosts):
        assert len(check_all(run_on_hosts(hosts, ECHO, concurrency=4, first=first))) == 24
        assert busy.most == 4


def test_a_slow_reader_of_outcomes_does_not_stop_the_others(
    farm: Farm, remctl_realm: Realm
) -> None:
    """With each outcome that is asked for, what became free is begun again."""
    with handling(farm, remctl_realm, lambda command: (b"", b"", 0), 12) as (server, hosts):
        outcomes = run_on_hosts(hosts, ECHO, concurrency=4)
        for begun in (4, 8, 12):
            next(outcomes)
            threads = [each for each in threading.enumerate() if "remctl-fleet" in each.name]
            for thread in threads:
                thread.join(LIMIT)
            assert len(server.commands) == begun
        assert len(list(outcomes)) == 9


class Diary:
    """A handler that notes when commands begin and end; those for some hosts fail."""

    def __init__(self, bad: tuple[bytes, ...] = ()) -> None:
        self.events: list[tuple[str, bytes]] = []
        self._bad = bad

    def __call__(self, command: Command) -> tuple[bytes, bytes, int]:
        self.events.append(("begin", command[1]))
        self.events.append(("end", command[1]))
        return b"", b"", int(command[1] in self._bad)


def by_name(host: Host) -> list[str]:
    return ["echo", host.name]


def test_the_first_have_to_succeed_before_the_others_are_begun(
    farm: Farm, remctl_realm: Realm
) -> None:
    diary = Diary()
    with handling(farm, remctl_realm, diary, 20) as (_, hosts):
        check_all(run_on_hosts(hosts, by_name, first=2))
        canaries = {host.name.encode() for host in hosts[:2]}
        assert {name for _, name in diary.events[:4]} == canaries
        assert not canaries & {name for _, name in diary.events[4:]}
        assert len(diary.events) == 40


def test_a_first_host_that_fails_keeps_the_others_from_being_begun(farm: Farm) -> None:
    (bad,) = farm.denying(1)
    others = farm.good(5)
    outcomes = list(run_on_hosts([bad, *others], ECHO, first=1))
    assert outcomes[0].host == bad
    assert not outcomes[0].ok
    assert [each.host for each in outcomes[1:]] == others
    for outcome in outcomes[1:]:
        assert isinstance(outcome.error, NotStartedError)
        assert outcome.reason == f"not started: canary {bad} failed"
        assert not outcome.started
        assert not outcome.ok
        assert outcome.attempts == 0


def test_one_of_several_first_hosts_is_enough_to_stop(farm: Farm) -> None:
    (bad,) = farm.denying(1)
    canaries, others = farm.good(2), farm.good(3)
    outcomes = list(run_on_hosts([*canaries, bad, *others], ECHO, first=3))
    assert {each.host for each in outcomes if each.ok} == set(canaries)
    assert {each.host for each in outcomes if not each.started} == set(others)


def test_after_the_first_failures_do_not_stop(farm: Farm) -> None:
    hosts = farm.good(1) + farm.dead(3) + farm.good(3)
    outcomes = list(run_on_hosts(hosts, ECHO, first=1, concurrency=1))
    assert [each.ok for each in outcomes] == [True, False, False, False, True, True, True]
    assert all(each.started for each in outcomes)


@pytest.mark.parametrize("dead", [0, 1])
def test_there_may_be_less_hosts_than_first_ones(farm: Farm, dead: int) -> None:
    outcomes = list(run_on_hosts(farm.dead(dead) + farm.good(3), ECHO, first=10, concurrency=1))
    assert len(outcomes) == 3 + dead
    assert [each.ok for each in outcomes[dead:]] == [not dead] * 3
    assert [each.started for each in outcomes[dead:]] == [not dead] * 3


def test_after_so_many_failures_no_other_is_begun(farm: Farm) -> None:
    hosts = farm.dead(1) + farm.good(1) + farm.dead(1) + farm.good(2) + farm.dead(1)
    outcomes = list(run_on_hosts(hosts, ECHO, stop_after=2, concurrency=1))
    assert [each.host for each in outcomes] == hosts
    assert [each.ok for each in outcomes] == [False, True, False, False, False, False]
    assert [each.started for each in outcomes] == [True] * 3 + [False] * 3
    assert outcomes[-1].reason == "not started: 2 other hosts had failed"


def test_what_is_at_work_goes_on_when_no_other_is_begun(farm: Farm, remctl_realm: Realm) -> None:
    finish = Finish()
    with handling(farm, remctl_realm, finish, 2) as (server, [slow, late]):
        (dead,) = farm.dead(1)
        outcomes = run_on_hosts([slow, dead, late], ECHO, stop_after=1, concurrency=2)
        assert next(outcomes).host is dead
        finish.now.set()
        found = {each.host: each for each in outcomes}
        assert found[slow].ok
        assert found[late].reason == "not started: another host had failed"
        assert len(server.commands) == 1


def test_first_and_stop_after_go_together(farm: Farm) -> None:
    hosts = farm.good(2) + farm.dead(1) + farm.good(2)
    outcomes = list(run_on_hosts(hosts, ECHO, first=2, stop_after=1, concurrency=1))
    assert [each.ok for each in outcomes] == [True, True, False, False, False]
    assert outcomes[-1].reason == "not started: another host had failed"


# -- All failures together ------------------------------------------------------------------------


def test_check_all_returns_all_outcomes(farm: Farm) -> None:
    hosts = farm.good(3)
    assert [each.host for each in check_all(run_on_hosts(hosts, ECHO, ordered=True))] == hosts


def test_check_all_raises_all_failures(farm: Farm) -> None:
    (denied,), (dead,) = farm.denying(1), farm.dead(1)
    outcomes = list(run_on_hosts([denied, *farm.good(2), dead], ECHO))
    for _ in range(2):
        with pytest.raises(FleetError, match="2 of 4 hosts failed") as caught:
            check_all(outcomes)
    group = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(group, FleetError)
    notes = {type(each): each.__notes__[-1] for each in group.exceptions}
    assert notes == {
        remctl.RemctlServerError: f"host: {denied}",
        remctl.RemctlConnectError: f"host: {dead}",
    }
    assert isinstance(group.subgroup(remctl.RemctlConnectError), FleetError)


def test_checking_an_outcome_often_leaves_no_traces() -> None:
    outcome = Outcome(Host("web"), error=remctl.RemctlError("no"))
    depths = set()
    for _ in range(3):
        with pytest.raises(remctl.RemctlError, match="no") as caught:
            outcome.check()
        depths.add(len(caught.traceback))
    assert len(depths) == 1


def test_outcomes_and_hosts_show_what_they_are() -> None:
    assert str(Outcome(Host("web", 4373), remctl.RemctlSimpleResult(status=0), None, 1.26)) == (
        "web:4373: ok (1.3 s)"
    )
    assert str(Outcome(Host("::1", 1), error=ValueError())) == "[::1]:1: ValueError (0.0 s)"
    hosts = [Host("b"), Host("a", 2), Host("a", 1, "p"), Host("a")]
    assert [str(host) for host in sorted(hosts)] == ["a", "a:1", "a:2", "b"]
    outcome = Outcome(hosts[0], error=NotStartedError("no"))
    copied = pickle.loads(pickle.dumps(outcome))
    assert (copied.host, copied.reason, copied.started) == (hosts[0], "no", False)

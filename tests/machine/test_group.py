"""Many machines at once: results, errors, subsets, files, queues."""

from __future__ import annotations

import contextlib
import operator
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from support.farm import Farm
from support.waiting import eventually, thread_count

import remctl
from remctl_toolkit.fleet import FleetError, Host, NotStartedError
from remctl_toolkit.machine import ClosedError, Connection, facts, helpers
from remctl_toolkit.machine.group import (
    AsyncResult,
    ErrorResult,
    Group,
    GroupError,
    GroupResult,
    NotCompletedError,
    Queue,
)
from remctl_toolkit.machine.plumbum.machine import Machine
from remctl_toolkit.testing import Command

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 20.0  # seconds after which a wait has failed
LINES = (
    Command("python", program="/usr/bin/python3", stdin="last"),
    Command("sh", program="/bin/sh", stdin="last"),
)


class Machines:
    """Names of machines, and how to connect to them."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._hosts: dict[str, Host] = {}
        self.connected: list[str] = []

    def good(self, count: int) -> list[str]:
        return self._names(self._farm.good(count))

    def dead(self, count: int) -> list[str]:
        return self._names(self._farm.dead(count))

    def _names(self, hosts: list[Host]) -> list[str]:
        self._hosts.update((host.name, host) for host in hosts)
        return [host.name for host in hosts]

    def connect(self, name: str) -> Connection:
        self.connected.append(name)
        host = self._hosts[name]
        return Connection(name, host.port, host.principal, connect_timeout=LIMIT)

    def machine(self, name: str) -> Machine:
        host = self._hosts[name]
        return Machine(name, host.port, host.principal, connect_timeout=LIMIT)

    def group(self, names: list[str], **settings: Any) -> Group:
        return Group(names, factory=self.connect, **settings)


@pytest.fixture(scope="module")
def farm(remctl_realm: Realm) -> Iterator[Farm]:
    with mock.patch("support.farm.SAMPLE_COMMANDS", LINES), Farm(remctl_realm) as farm:
        yield farm


@pytest.fixture
def machines(farm: Farm) -> Machines:
    return Machines(farm)


# -- All at once ----------------------------------------------------------------------------------


def test_fifty_machines(machines: Machines) -> None:
    names = machines.good(50)
    with machines.group(names) as group:
        assert not group.connection_errors
        result = group.run(["cat"], input=b"x" * 1000)
        assert list(result) == names
        assert {value.check().stdout for value in result.values()} == {b"x" * 1000}
        group.facts(["memory"]).raise_failures()
    assert sorted(machines.connected) == sorted(names)


def test_the_machines_work_at_the_same_time(machines: Machines, tmp_path: Path) -> None:
    """Each waits until all have come."""
    names = machines.good(5)
    script = 'touch "$1/$$"; while [ "$(ls "$1" | wc -l)" -lt 5 ]; do sleep 0.01; done'
    with machines.group(names) as group:
        result = group.run(["sh", "-c", script, "sh", tmp_path], timeout=LIMIT, check=True)
        result.raise_failures()


def test_no_more_than_so_many_at_once(machines: Machines, tmp_path: Path) -> None:
    script = 'touch "$1/$$"; ls "$1" | wc -l; sleep 0.05; rm "$1/$$"'
    with machines.group(machines.good(6), parallel=2) as group:
        found = group.run(["sh", "-c", script, "sh", tmp_path], check=True).raise_failures()
    assert max(int(value.stdout) for value in found.values()) <= 2


def test_call(machines: Machines) -> None:
    names = machines.good(3)
    with machines.group(names) as group:
        assert group.call(platform.node) == dict.fromkeys(names, platform.node())
        assert group.call(operator.mul, 21, 2) == dict.fromkeys(names, 42)


def test_call_of_facts_and_helpers(machines: Machines) -> None:
    (name,) = names = machines.good(1)
    with machines.group(names) as group:
        assert group.call(facts.memory)[name]["total"] > 0
        assert group.call(facts.ip)[name] == facts.ip()
        assert group.call(facts.python_version)[name][0] == 3
        assert group.call(facts.python_executable)[name].startswith("/")
        assert group.call(helpers.output_lines, ["echo", "x"])[name] == ["x"]
        assert group.call(helpers.check_output, ["echo", "x"])[name] == "x\n"


def test_machines_of_plumbum(machines: Machines, tmp_path: Path) -> None:
    """What a Machine has set holds for its commands, too."""
    names = machines.good(2)
    with Group(names, factory=machines.machine) as group:
        connected = group.connect()
        assert all(isinstance(machine, Machine) for machine in connected.values())
        connected[names[0]].cwd.chdir(tmp_path)
        found = group.run(["pwd"], check=True)
        assert found[names[0]].stdout_text() == f"{tmp_path}\n"
        assert found[names[1]].stdout_text() != f"{tmp_path}\n"
        assert group.call(operator.mul, 2, 2) == dict.fromkeys(names, 4)


def test_settings_are_those_of_machine(machines: Machines) -> None:
    (name,) = machines.good(1)
    host = machines._hosts[name]
    with Group([name], port=host.port, principal=host.principal, shell=None) as group:
        assert group.connect().raise_failures()[name].connection.shell is None


# -- Errors ---------------------------------------------------------------------------------------


def test_errors_have_their_place(machines: Machines) -> None:
    names = machines.good(2)
    with machines.group(names) as group:
        result = group.call(operator.truediv, 1, 0)
        assert list(result) == names
        assert result.successful() == []
        assert result.failures() == [(name, result[name]) for name in names]
        assert "division by zero" in str(result[names[0]])
        with pytest.raises(GroupError, match=r"^2 of 2 hosts failed") as info:
            result.raise_failures()
        assert info.value.exceptions[0].__notes__[-1] == f"host: {names[0]}"
        assert group.call(operator.mul, 1, 2).raise_failures() == dict.fromkeys(names, 2)


def test_hosts_that_fail_raise_the_same_in_fleets_and_groups() -> None:
    assert GroupError is FleetError


@pytest.mark.parametrize("may_have_run", [False, True])
def test_the_errors_of_hosts_are_an_error_of_remctl(may_have_run: bool) -> None:
    """One clause catches what goes wrong on one host and on several."""
    lost = remctl.RemctlDisconnectedError("lost")
    lost.may_have_run = may_have_run
    result = GroupResult(one=ErrorResult("one", OSError("full")), two=ErrorResult("two", lost))
    with pytest.raises(remctl.RemctlError, match="2 of 2 hosts failed") as info:
        result.raise_failures()
    assert info.value.may_have_run is may_have_run


def test_names_of_two_letters_are_not_taken_apart() -> None:
    failure = ErrorResult("db", OSError("full"))
    result = GroupResult(w1=1, db=failure)
    assert [(host, value) for host, value in result.successful()] == [("w1", 1)]
    assert [(host, error.msg) for host, error in result.failures()] == [("db", "full")]


def test_a_machine_without_a_thread_has_an_error(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    (name,) = names = machines.good(1)
    with machines.group(names) as group:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            failure = group.run(["true"])[name]
        assert isinstance(failure.error, NotStartedError)
        assert group.run(["true"])[name].status == 0


def test_status_is_an_error_if_asked_for(machines: Machines) -> None:
    (name,) = names = machines.good(1)
    with machines.group(names) as group:
        assert group.run(["false"])[name].status == 1
        failure = group.run(["false"], check=True)[name]
        assert isinstance(failure.error, remctl.RemctlStatusError)
        assert "RemctlStatusError" in failure.traceback


def test_connection_errors_are_kept_and_repeated(machines: Machines) -> None:
    good, dead = machines.good(2), machines.dead(2)
    with machines.group([dead[0], *good, dead[1]]) as group:
        assert list(group.connection_errors) == dead
        for result in (group.run(["true"]), group.call(operator.mul, 1, 2)):
            assert list(result) == [dead[0], *good, dead[1]]
            assert [host for host, _ in result.successful()] == good
            assert [host for host, _ in result.failures()] == dead
            assert result[dead[0]] is group.connection_errors[dead[0]]
        assert isinstance(result[dead[0]].error, remctl.RemctlConnectError)
        assert machines.connected.count(dead[0]) == 1
        group.connect()
        assert machines.connected.count(dead[0]) == 2
        assert machines.connected.count(good[0]) == 1


def test_a_group_of_failures_has_a_full_result(machines: Machines) -> None:
    dead = machines.dead(2)
    with machines.group(dead) as group:
        result = group.call(operator.mul, 1, 2)
        assert isinstance(result, GroupResult)
        assert [type(result[name]) for name in dead] == [ErrorResult, ErrorResult]


def test_a_group_of_nobody_has_an_empty_result(machines: Machines) -> None:
    with machines.group([]) as group:
        assert group.run(["true"]) == group.call(operator.mul, 1, 2) == {}
        assert isinstance(group.connect().raise_failures(), GroupResult)
        assert repr(group) == "Group([])"


def test_a_group_may_be_used_again_after_its_end(machines: Machines) -> None:
    (name,) = names = machines.good(1)
    group = machines.group(names)
    with group:
        connection = group.connect()[name]
    assert connection.closed
    with group:
        assert group.run(["true"])[name].status == 0
    group.close()


def test_a_machine_that_was_closed_stays_so(machines: Machines) -> None:
    (name,) = machines.good(1)
    with Group([machines.connect(name)]) as group:
        assert group.run(["true"])[name].status == 0
    assert isinstance(group.run(["true"])[name].error, ClosedError)


@pytest.mark.parametrize(
    ("hosts", "settings", "error"),
    [
        ("web1", {}, "hosts must be several names"),
        (["web1", "web1"], {}, "host web1 is in the group twice"),
        ([1], {}, "a host must be a name or a machine, not 1"),
        ([""], {}, "host"),
        (["web1"], {"parallel": 0}, "parallel must be 1 or more, not 0"),
        (["web1"], {"parallel": 1.5}, "parallel must be a whole number, not 1.5"),
        (["web1"], {"port": 70000}, "invalid port number: 70000"),
        (["web1"], {"credentials": 5}, r"credentials must have ccache\(\)"),
        (["web1"], {"factory": Connection, "port": 1}, "port: settings are for Machine"),
    ],
)
def test_bad_arguments_are_told_at_once(hosts: Any, settings: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Group(hosts, **settings)


# -- Leaving --------------------------------------------------------------------------------------


def test_an_interruption_ends_what_is_under_way(machines: Machines, tmp_path: Path) -> None:
    names = machines.good(3)
    group = machines.group(names)
    group.connect()
    before = thread_count()
    queue = Queue()
    script = 'touch "$0/$$"; exec sleep 60'
    waiting = queue.command(group, ["sh", "-c", script, tmp_path])

    def interrupt(value: Any) -> None:
        eventually(lambda: len(list(tmp_path.iterdir())) == 3, LIMIT)
        raise KeyboardInterrupt

    other = machines.good(1)
    with machines.group(other) as trigger:
        queue.command(trigger, ["true"]).with_callback(interrupt)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            queue.run()
        assert time.monotonic() - start < 30
    assert not waiting.completed
    eventually(lambda: thread_count() <= before)
    assert not [t for t in threading.enumerate() if t.name.startswith("remctl-group")]
    for path in tmp_path.iterdir():  # remctld lets them go on.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.name), 9)
    with group:
        group.run(["true"], check=True).raise_failures()


# -- Subsets --------------------------------------------------------------------------------------


def test_set_operations() -> None:
    a, b = Group(["one", "two", "three"]), Group(["two", "four"])
    assert (a | b).hosts == (a + b).hosts == a.union(b).hosts == ["one", "two", "three", "four"]
    assert (a & b).hosts == a.intersection(b).hosts == ["two"]
    assert (a - b).hosts == a.difference(b).hosts == ["one", "three"]
    assert (a ^ b).hosts == a.symmetric_difference(b).hosts == ["one", "three", "four"]
    assert (a - "one").hosts == ["two", "three"]
    assert (a & ["one", "five"]).hosts == ["one"]
    assert ("five" | b).hosts == ["two", "four", "five"]
    assert ("two" & a).hosts == ["two"]
    assert ("two" - a).hosts == []
    assert ("two" ^ b).hosts == ["four"]
    assert repr(b) == "Group(['two', 'four'])"
    assert (len(a), list(a), "two" in a, "four" in a) == (3, ["one", "two", "three"], True, False)


def test_set_operations_with_machines(machines: Machines) -> None:
    one, two = machines.good(2)
    with machines.connect(one) as machine, machines.group([two]) as group:
        assert (group | machine).hosts == [two, one]
        assert (machine | group).run(["true"], check=True).raise_failures()
        assert machine not in group
        assert (group - machine).hosts == [two]


def test_groups_share_their_connections(machines: Machines) -> None:
    names = machines.good(2)
    with machines.group(names) as group, group - names[0] as rest:
        rest.run(["true"], check=True).raise_failures()
    assert sorted(machines.connected) == sorted(names)


def test_filter(machines: Machines) -> None:
    names, dead = machines.good(2), machines.dead(1)
    with machines.group([*names, *dead]) as group:
        with pytest.raises(GroupError, match="1 of 3 hosts failed"):
            group.filter(os.path.isdir, "/")
        known = group - group.connection_errors
        assert known.filter(os.path.isdir, "/").hosts == names
        assert known.filter(os.path.isdir, "/nonexistent").hosts == []
        assert known.filter(os.path.isdir, "/", exclude=True).hosts == []
        assert known.filter(os.path.isdir, "/nonexistent", exclude=True).hosts == names
        with pytest.raises(GroupError, match="2 of 2 hosts failed"):
            known.filter(operator.truediv, 1, 0)


# -- Files ----------------------------------------------------------------------------------------


def test_files(machines: Machines, tmp_path: Path) -> None:
    names = machines.good(2)
    source = tmp_path / "source"
    source.write_bytes(b"\0\xff" * 1000)
    with machines.group(names) as group:
        put = group.put(source, tmp_path / "there", 0o600).raise_failures()
        assert put[names[0]]["size"] == 2000
        assert (tmp_path / "there").read_bytes() == source.read_bytes()
        assert (tmp_path / "there").stat().st_mode & 0o777 == 0o600

        fetched = group.fetch(source, tmp_path / "all" / "{host}.copy").raise_failures()
        assert {value["sha1sum"] for value in fetched.values()} == {put[names[0]]["sha1sum"]}
        for name in names:
            assert (tmp_path / "all" / f"{name}.copy").read_bytes() == source.read_bytes()
        temporary = group.fetch(source).raise_failures()
        paths = {value["local_path"] for value in temporary.values()}
        assert len(paths) == 2
        for path in paths:
            os.unlink(path)

        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "leaf").write_text("x")
        group.download(tmp_path / "tree", tmp_path / "{host}" / "tree").raise_failures()
        for name in names:
            assert (tmp_path / name / "tree" / "leaf").read_text() == "x"
        only = group & names[0]
        only.upload(tmp_path / "tree", tmp_path / "copy").raise_failures()
        assert (tmp_path / "copy" / "leaf").read_text() == "x"


def test_copies_that_would_overwrite_each_other(machines: Machines) -> None:
    group = machines.group(machines.good(2))
    for copy in (group.fetch, group.download):
        with pytest.raises(ValueError, match=r"'here' would be overwritten: it needs {host} in it"):
            copy("there", "here")


# -- Queues ---------------------------------------------------------------------------------------


def test_a_queue_keeps_the_order_on_each_machine(machines: Machines, tmp_path: Path) -> None:
    names = machines.good(2)
    with machines.group(names) as group:
        single = group.connect()[names[0]]
        queue = Queue()
        (tmp_path / "text").write_text("one\n")
        results: list[AsyncResult] = [
            queue.put(group, tmp_path / "text", tmp_path / "there"),
            queue.connect(group),
            queue.call(group, operator.mul, 4, 2),
            queue.command(single, ["sh", "-c", 'echo two >>"$0"', tmp_path / "there"], check=True),
            queue.fetch(single, tmp_path / "there", tmp_path / "back"),
            queue.call(single, operator.truediv, 1, 0),
            queue.command(single, ["echo", "x"]),
        ]
        assert not any(result.completed for result in results)
        with pytest.raises(NotCompletedError, match="run the queue"):
            _ = results[0].value
        assert not (tmp_path / "there").exists()
        queue.run()
        assert results[0].value.raise_failures()[names[1]]["size"] == 4
        assert list(results[1].value) == names
        assert results[2].value == dict.fromkeys(names, 8)
        assert results[3].value.status == 0
        assert (tmp_path / "back").read_text() in ("one\ntwo\n", "one\n")
        assert isinstance(results[5].value, ErrorResult)
        assert results[6].value.stdout == b"x\n"
        queue.run()


def test_callbacks_may_add_to_the_queue(machines: Machines) -> None:
    names = machines.good(2)
    with machines.group(names) as group:
        queue = Queue()
        found: list[Any] = []

        def again(value: GroupResult) -> None:
            found.append(value)
            if len(found) < 3:
                queue.call(group, operator.mul, value[names[0]], 2).with_callback(again)

        first = queue.call(group, operator.mul, 1, 2).with_callback(again)
        queue.run()
        assert found == [dict.fromkeys(names, number) for number in (2, 4, 8)]
        first.with_callback(found.append)
        assert found[-1] == first.value


def test_a_queue_for_a_group_of_nobody() -> None:
    queue = Queue()
    assert queue.call(Group([]), operator.mul, 1, 2).value == {}
    queue.run()
    with pytest.raises(TypeError, match="a target is a machine or a group, not 'web1'"):
        queue.call("web1", operator.mul, 1, 2)


def test_a_queue_is_run_once_at_a_time(machines: Machines) -> None:
    names = machines.good(1)
    with machines.group(names) as group:
        queue = Queue()
        queue.command(group, ["true"]).with_callback(lambda value: queue.run())
        with pytest.raises(remctl.RemctlBusyError, match="is being run"):
            queue.run()

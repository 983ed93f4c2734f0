"""Programs that were written for chopsticks: its names, calls and results."""

from __future__ import annotations

import getpass
import hashlib
import json
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.proxy import refused_port

from remctl_toolkit.machine import UnknownUserError, chopsticks
from remctl_toolkit.machine.chopsticks import (
    AsyncResult,
    Docker,
    ErrorResult,
    Group,
    GroupResult,
    Local,
    NotCompleted,
    Queue,
    RemoteException,
    Sudo,
    Tunnel,
    check_output,
    output_lines,
    python_executable,
    python_version,
)
from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.once


@pytest.fixture
def place(server: RemctldServer) -> dict[str, Any]:
    return {"port": server.port, "principal": server.principal}


@pytest.fixture
def tunnel(place: dict[str, Any]) -> Iterator[Tunnel]:
    with Tunnel("localhost", **place) as tunnel:
        yield tunnel


@pytest.fixture
def group(tunnel: Tunnel, place: dict[str, Any]) -> Iterator[Group]:
    with Group([tunnel, Local("w1", **place)]) as group:
        yield group


@pytest.fixture
def dead() -> Iterator[Tunnel]:
    with refused_port() as port:
        yield Local("dead", port=port)


def test_all_names_are_there() -> None:
    for name in chopsticks.__all__:
        assert hasattr(chopsticks, name)
    # A group, a queue and their results are the same wherever they are imported from.
    from remctl_toolkit.machine import group as ours

    assert (Group, Queue, GroupResult) == (ours.Group, ours.Queue, ours.GroupResult)


# -- Tunnels --------------------------------------------------------------------------------------


def test_a_tunnel_connects_when_it_is_used_and_again_after_its_end(tunnel: Tunnel) -> None:
    assert (repr(tunnel), tunnel.host, tunnel.connected) == (
        "Tunnel('localhost')",
        "localhost",
        False,
    )
    first = tunnel.call(os.getpid)
    assert tunnel.connected
    assert tunnel.call(os.getpid) == first
    tunnel.close()
    tunnel.close()
    assert not tunnel.connected
    tunnel.connect()
    assert tunnel.call(os.getpid) != first


def test_files(tunnel: Tunnel, tmp_path: Path) -> None:
    local, there = str(tmp_path / "local"), str(tmp_path / "there")
    Path(local).write_bytes(b"\0\xff" * 1000)
    digest = {"sha1sum": hashlib.sha1(b"\0\xff" * 1000).hexdigest(), "size": 2000}
    put = tunnel.put(local_path=local, remote_path=there, mode=0o760)
    assert put == {"remote_path": there, **digest}
    assert Path(there).stat().st_mode & 0o777 == 0o760
    back = str(tmp_path / "back")
    fetched = tunnel.fetch(remote_path=there, local_path=back)
    assert fetched == {"local_path": back, "remote_path": there, **digest}
    assert Path(back).read_bytes() == Path(local).read_bytes()


def test_helpers_and_facts(tunnel: Tunnel) -> None:
    assert tunnel.call(check_output, ["echo", "x"]) == "x\n"
    assert tunnel.call(output_lines, "echo x; echo y", shell=True) == ["x", "y"]
    full = tunnel.call(python_version)
    assert full[0] == 3
    assert tunnel.call(python_version, short=True) == full[:2]
    assert tunnel.call(python_executable).startswith("/")
    assert tunnel.call(chopsticks.facts.memory)["total"] > 0


def test_every_failure_is_a_remote_exception(tunnel: Tunnel, dead: Tunnel, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    failing: list[tuple[Callable[[], object], str]] = [
        (lambda: tunnel.call(operator.truediv, 1, 0), "division by zero"),
        (lambda: tunnel.fetch(missing), "No such file"),
        (lambda: tunnel.put(__file__, f"{missing}/file"), "No such folder"),
        (lambda: tunnel.put(missing), "No such file"),
        (dead.connect, "cannot connect to localhost"),
        (lambda: dead.call(os.getpid), "cannot connect to localhost"),
        (lambda: (tunnel + dead).call(os.getpid).raise_failures(), "1 of 2 hosts failed"),
        (lambda: (tunnel + dead).filter(os.path.isdir, "/"), "1 of 2 hosts failed"),
    ]
    for action, text in failing:
        with pytest.raises(RemoteException, match=text):
            action()


def test_a_file_that_is_missing_is_an_os_error_too(tunnel: Tunnel, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as info:
        tunnel.fetch(tmp_path / "missing")
    assert info.value.filename == str(tmp_path / "missing")


def test_a_host_that_comes_back_is_connected_to(
    tunnel: Tunnel, dead: Tunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = dead + tunnel
    with group:
        assert list(group.connection_errors) == ["dead"]
        monkeypatch.setattr(dead, "_factory", tunnel._factory)
        assert dead.call(os.getpid) != os.getpid()
        assert not group.connection_errors
        group.call(os.getpid).raise_failures()


# -- Accounts -------------------------------------------------------------------------------------


def test_accounts(place: dict[str, Any]) -> None:
    user = getpass.getuser()
    tunnels = [
        Tunnel("localhost", user, **place),
        Tunnel(f"{user}@localhost", **place),
        Local(**place),
        Sudo(user, **place),
    ]
    assert [tunnel.host for tunnel in tunnels] == [
        "localhost",
        f"{user}@localhost",
        "localhost",
        f"{user}@localhost",
    ]
    for tunnel in tunnels:
        with tunnel:
            assert tunnel.call(os.getuid) == os.getuid()


def test_another_account_is_never_used(place: dict[str, Any]) -> None:
    for tunnel in (
        Tunnel("localhost", "bob", **place),
        Tunnel("bob@localhost", **place),
        Sudo("bob", **place),
    ):
        with pytest.raises(UnknownUserError, match="no account 'bob' on localhost"):
            tunnel.call(os.getpid)


def test_the_account_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(host: str, user: str | None, **settings: Any) -> None:
        raise RemoteException(f"{user} on {host}: {settings}")

    monkeypatch.setattr(chopsticks, "connect", connect)
    for tunnel, asked in [
        (Tunnel("web1", port=1, shell=None), "None on web1: {'port': 1, 'shell': None}"),
        (Tunnel("web1", "alice", sudo=True), "root on web1: {'port': None}"),
        (Tunnel("alice@web1", sudo=True), "root on web1: {'port': None}"),
        (Sudo(port=1), "root on localhost: {'port': 1}"),
        (Local("w1"), f"{getpass.getuser()} on localhost: {{}}"),
    ]:
        with pytest.raises(RemoteException) as info:
            tunnel.connect()
        assert str(info.value) == asked


def test_containers_are_refused() -> None:
    class PyDocker(Docker):
        python2 = python3 = "python"

    for kind in (Docker, PyDocker):
        with pytest.raises(
            NotImplementedError, match=r"worker-1 cannot be started: .*\.DockerConn"
        ):
            kind("worker-1", image="python:3.6")


def test_tunnels_from_tunnels_are_refused(tunnel: Tunnel) -> None:
    with pytest.raises(
        RemoteException, match=r"chopsticks\.Local cannot be used on the remote host"
    ):
        tunnel.call(_recurse)


def _recurse() -> None:
    with Local() as tunnel:
        tunnel.call(_recurse)


# -- Groups ---------------------------------------------------------------------------------------


def test_groups_of_tunnels(group: Group, tunnel: Tunnel, tmp_path: Path) -> None:
    assert repr(group) == "Group([Tunnel('localhost'), Local('w1')])"
    assert [each.host for each in group.tunnels] == ["localhost", "w1"]
    assert group.tunnels[0] is tunnel
    with group:
        assert dict(group.call(operator.mul, 2, 2)) == {"localhost": 4, "w1": 4}
    group.call(operator.mul, 2, 2).raise_failures()

    put = group.put(local_path=__file__, remote_path=str(tmp_path / "there")).raise_failures()
    size = os.stat(__file__).st_size
    assert [value["size"] for _, value in put.iteritems()] == [size] * 2
    path = str(tmp_path / "back-{host}")
    fetched = group.fetch(remote_path=__file__, local_path=path).raise_failures()
    assert [value["local_path"] for _, value in fetched.successful()] == [
        str(tmp_path / "back-localhost"),
        str(tmp_path / "back-w1"),
    ]
    assert [each.host for each in group.filter(_is_python_3).tunnels] == ["localhost", "w1"]
    assert group.filter(_is_python_3, exclude=True).tunnels == []


def _is_python_3() -> bool:
    import sys

    return sys.version_info >= (3, 0)


def test_members_of_groups_by_names(place: dict[str, Any]) -> None:
    pytest.importorskip("plumbum")
    with Group(["localhost"], **place) as group:
        (member,) = group.tunnels
        assert member.call(operator.mul, 2, 2) == 4


def test_messages_of_errors(group: Group) -> None:
    for _, error in group.call(json.loads, "{").failures():
        assert isinstance(error, ErrorResult)
        assert error.msg.startswith("json.decoder.JSONDecodeError on localhost: Expecting")
        assert error.msg.count("\n\n    Traceback (most recent call last):\n") == 1
        assert error.tb is not None
        assert error.tb.startswith("Traceback")
    error = ErrorResult("w1", OSError("full"))
    assert (error.msg, error.tb) == ("full", None)


def test_set_operations() -> None:
    a, b, group = Tunnel("a"), Tunnel("b"), Group(["a", "c"])
    for found, hosts in [
        (a + b, ["a", "b"]),
        (a | a, ["a"]),
        (a & group, ["a"]),
        (b & group, []),
        (a - group, []),
        (b ^ group, ["b", "a", "c"]),
        (a.union(group), ["a", "c"]),
        (group + b, ["a", "c", "b"]),
        (group - a, ["c"]),
    ]:
        assert isinstance(found, Group)
        assert [tunnel.host for tunnel in found.tunnels] == hosts
    assert (a + group).tunnels[0] is a


# -- Queues ---------------------------------------------------------------------------------------


def test_queues(group: Group, tunnel: Tunnel, dead: Tunnel, tmp_path: Path) -> None:
    queue = Queue()
    found: list[Any] = []

    def more(value: Any) -> None:
        found.append(queue.call(tunnel, operator.mul, value, 2))

    there = str(tmp_path / "there")
    put = queue.put(group, local_path=__file__, remote_path=there)
    fetch = queue.fetch(group, remote_path=there, local_path=str(tmp_path / "{host}"))
    queue.call(tunnel, operator.mul, 1, 2).with_callback(more)
    failed = queue.call(dead, operator.mul, 1, 2)
    with pytest.raises(NotCompleted):
        _ = put.value
    queue.run()
    assert len(put.value.raise_failures()) == 2
    for host, value in fetch.value.successful():
        assert value["local_path"] == str(tmp_path / host)
        assert value["size"] == os.stat(__file__).st_size
    assert [result.value for result in found] == [4]
    assert "cannot connect to localhost" in failed.value.msg
    assert tunnel.connected  # A queue leaves open what it did not make.


def test_results_of_queues() -> None:
    found: list[Any] = []
    result = AsyncResult().with_callback(found.append)
    assert not result.completed
    result._set(1)
    assert (found, result.value) == ([1], 1)

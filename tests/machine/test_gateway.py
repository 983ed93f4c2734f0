"""Gateways: execnet's own, over a channel; how they end, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import execnet
import pytest
from support.waiting import LIMIT, eventually, runs

from remctl_toolkit.machine import Connection, Machine
from remctl_toolkit.machine.gateway import GatewayError, open_gateway
from remctl_toolkit.testing import Realm, RemctldServer, machine_commands

WAIT = 20.0  # seconds for what takes a fraction of one


@pytest.fixture
def group() -> Iterator[execnet.Group]:
    group = execnet.Group()
    yield group
    group.terminate(timeout=WAIT)


@pytest.fixture
def gateway(connection: Connection, group: execnet.Group) -> execnet.Gateway:
    return open_gateway(connection, group=group)


def add(channel, a, b):  # Annotations would be names that are not sent.
    channel.send(a + b)


def echo(channel):
    for item in channel:
        channel.send(item)


# -- Gateways -------------------------------------------------------------------------------------


def test_it_is_execnets_own(gateway: execnet.Gateway, group: execnet.Group) -> None:
    assert type(gateway) is execnet.Gateway
    assert list(group) == [gateway]
    assert gateway.hasreceiver()
    assert gateway.remoteaddress == "localhost"
    assert gateway.remote_status().numchannels == 0
    assert gateway._rinfo().cwd == os.path.expanduser("~")


def test_sources_functions_and_arguments(gateway: execnet.Gateway) -> None:
    assert gateway.remote_exec("channel.send(6 * 7)").receive(WAIT) == 42
    assert gateway.remote_exec(add, a=3, b=4).receive(WAIT) == 7


@pytest.mark.parametrize("shell", ["sh", None])
def test_objects_come_back_as_they_were(
    server: RemctldServer, group: execnet.Group, shell: str | None
) -> None:
    with Connection(server.host, server.port, server.principal, shell=shell) as connection:
        channel = open_gateway(connection, group=group).remote_exec(echo)
        for item in (None, 1, 2.5, "ü", b"\0\xff", [1, (2, {"a": {3}})], b"x" * 3_000_000):
            channel.send(item)
            assert channel.receive(WAIT) == item
        channel.close()
        group.terminate(timeout=WAIT)


def test_exceptions_are_remote_errors(gateway: execnet.Gateway) -> None:
    channel = gateway.remote_exec("def f(): raise KeyError('there')\nf()")
    with pytest.raises(channel.RemoteError, match="KeyError: 'there'") as caught:
        channel.waitclose(WAIT)
    assert "in f" in str(caught.value)
    assert gateway.remote_exec("channel.send(1)").receive(WAIT) == 1


def test_several_threads_and_channels(gateway: execnet.Gateway) -> None:
    results: dict[int, list[bytes]] = {}

    def converse(number: int) -> None:
        channel = gateway.remote_exec(echo)
        results[number] = []
        for size in (1, 70_000, 1_500_000):
            channel.send(bytes([number]) * size)
            results[number].append(channel.receive(WAIT))
        channel.close()

    threads = [threading.Thread(target=converse, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert results[number] == [bytes([number]) * size for size in (1, 70_000, 1_500_000)]


def test_many_gateways_are_a_group(connection: Connection, group: execnet.Group) -> None:
    gateways = [open_gateway(connection, group=group, id=f"number{i}") for i in range(3)]
    assert [gateway.id for gateway in group] == ["number0", "number1", "number2"]
    channels = group.remote_exec("import os; channel.send((os.getpid(), channel.receive()))")
    channels.send_each("word")
    answers = channels.receive_each()
    assert len({pid for pid, _ in answers}) == len(gateways)
    assert {word for _, word in answers} == {"word"}
    queue = group.remote_exec("channel.send(1)").make_receive_queue(endmarker=None)
    assert sorted(str(queue.get(timeout=WAIT)[1]) for _ in range(6)) == ["1"] * 3 + ["None"] * 3


def test_gateway_by_way_of_a_gateway(gateway: execnet.Gateway, group: execnet.Group) -> None:
    """Another remote interpreter, through the same channel."""
    other = group.makegateway(f"popen//via={gateway.id}//python=/usr/bin/python3")
    assert other.remote_exec("channel.send(1)").receive(WAIT) == 1


def test_standard_error_of_there_comes_out_here(
    connection: Connection, group: execnet.Group, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = open_gateway(connection, group=group)
    gateway.remote_exec("import os; os.write(2, b'words')").waitclose(WAIT)
    seen: list[str] = []
    eventually(lambda: seen.append(capfd.readouterr().err) or "words" in "".join(seen))


def test_default_group(connection: Connection) -> None:
    gateway = open_gateway(connection)
    try:
        assert gateway in execnet.default_group
    finally:
        execnet.default_group.terminate(timeout=WAIT)
    assert len(execnet.default_group) == 0


def test_gateway_of_a_machine(server: RemctldServer, group: execnet.Group) -> None:
    with Machine(server.host, server.port, principal=server.principal) as machine:
        gateway = machine.gateway(group=group)
        assert gateway.remote_exec("channel.send(1)").receive(WAIT) == 1
        group.terminate(timeout=WAIT)


# -- Other interpreters, and none -----------------------------------------------------------------


def test_other_interpreter(connection: Connection, group: execnet.Group) -> None:
    gateway = open_gateway(connection, group=group, python=["env", "MY_A=1", "python3"])
    assert gateway.remote_exec("import os; channel.send(os.environ['MY_A'])").receive(WAIT) == "1"


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("/nonexistent/python3", "No such file"),
        ("false", "it ended with status 1"),
        (["sh", "-c", "echo 'sorry' >&2"], "sorry"),
    ],
)
def test_what_is_no_interpreter(
    connection: Connection, group: execnet.Group, python: str | list[str], reason: str
) -> None:
    with pytest.raises(
        GatewayError, match=f"cannot start a gateway with .* on localhost: .*{reason}"
    ):
        open_gateway(connection, group=group, python=python)
    assert len(group) == 0


def test_id_that_is_taken(connection: Connection, group: execnet.Group) -> None:
    open_gateway(connection, group=group, id="one")
    with pytest.raises(ValueError, match="the execnet group already has a gateway 'one'"):
        open_gateway(connection, group=group, id="one")


# -- The end --------------------------------------------------------------------------------------


def pid_of(gateway: execnet.Gateway) -> int:
    pid: int = gateway.remote_exec("import os; channel.send(os.getpid())").receive(WAIT)
    assert runs(pid)
    return pid


@pytest.fixture
def alone(remctl_realm: Realm, tmp_path: Path) -> Iterator[Connection]:
    """A connection that a test may close; nothing of its channels is left over."""
    env = {"TMPDIR": str(tmp_path)}
    with RemctldServer(remctl_realm, machine_commands(), env=env) as server:
        with Connection(server.host, server.port, server.principal) as connection:
            yield connection
        eventually(lambda: not list(tmp_path.iterdir()), WAIT)


def test_it_ends_with_the_group(alone: Connection, group: execnet.Group, tmp_path: Path) -> None:
    gateways = [open_gateway(alone, group=group) for _ in range(2)]
    assert list(tmp_path.iterdir())
    pids = [pid_of(gateway) for gateway in gateways]
    threads = threading.active_count()
    group.terminate(timeout=WAIT)
    assert not any(map(runs, pids))
    eventually(lambda: threading.active_count() < threads)
    assert not any(gateway.hasreceiver() for gateway in gateways)


def test_it_ends_by_exit(alone: Connection, group: execnet.Group) -> None:
    gateway = open_gateway(alone, group=group)
    pid = pid_of(gateway)
    gateway.exit()
    gateway.join(WAIT)
    assert not runs(pid)
    assert len(group) == 0


def test_it_ends_with_the_connection(alone: Connection, group: execnet.Group) -> None:
    gateway = open_gateway(alone, group=group)
    pid = pid_of(gateway)
    waiting = gateway.remote_exec("channel.receive()")
    alone.close()
    with pytest.raises(EOFError):
        waiting.receive(WAIT)
    gateway.join(WAIT)
    with pytest.raises(OSError, match="already closed"):
        gateway.remote_exec("channel.send(1)")
    eventually(lambda: not runs(pid), WAIT)


def test_code_that_does_not_end_is_ended(alone: Connection, group: execnet.Group) -> None:
    gateway = open_gateway(alone, group=group)
    pid = pid_of(gateway)
    code = "import signal, time; signal.signal(2, signal.SIG_IGN)\nwhile True: time.sleep(60)"
    gateway.remote_exec(code)
    group.terminate(timeout=0.5)
    assert not runs(pid)


def test_interpreter_that_is_killed(alone: Connection, group: execnet.Group) -> None:
    gateway = open_gateway(alone, group=group)
    pid = pid_of(gateway)
    channel = gateway.remote_exec("channel.receive()")
    os.kill(pid, 9)
    with pytest.raises(EOFError):
        channel.receive(WAIT)
    gateway.join(WAIT)
    assert not gateway.hasreceiver()


@pytest.mark.parametrize("shell", ["sh", None])
def test_message_to_an_interpreter_that_has_died(
    server: RemctldServer, group: execnet.Group, shell: str | None
) -> None:
    with Connection(server.host, server.port, server.principal, shell=shell) as connection:
        # Its shell reads on, so the command of the channel does not end.
        words = ["sh", "-c", '"$@"; exec >/dev/null; cat', "sh", connection.far.python]
        gateway = open_gateway(connection, group=group, python=words)
        channel = gateway.remote_exec("channel.receive()")
        os.kill(pid_of(gateway), 9)
        with pytest.raises(EOFError):
            channel.waitclose(WAIT)
        with pytest.raises(OSError, match="cannot send") as caught:
            channel.send(None)
        assert "has ended" in str(caught.value.__cause__)
        group.terminate(timeout=WAIT)


def test_it_ends_with_a_process_that_does_not_end_it(server: RemctldServer) -> None:
    """As with execnet's own: what is in the default group ends before Python does."""
    code = f"""
from remctl_toolkit.machine import Connection, Machine
from remctl_toolkit.machine.gateway import open_gateway
connection = Connection({server.host!r}, {server.port}, {server.principal!r})
gateway = open_gateway(connection)
print(gateway.remote_exec("import os; channel.send(os.getpid())").receive(), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=LIMIT
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert not runs(int(done.stdout))

"""Channels whose client, network, server or keeper goes away: what is left cleans up."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from machine.remote_traces import BEAT, Traces, descendants, opened, read_all, traces
from support.proxy import TO_CLIENT, TO_SERVER, Proxy
from support.subprocesses import in_child
from support.waiting import LIMIT, eventually

import remctl
from remctl_toolkit.machine import ClosedError, Connection, Machine
from remctl_toolkit.machine.base.program import source
from remctl_toolkit.machine.call import link
from remctl_toolkit.machine.channel import channel as channels
from remctl_toolkit.machine.channel import keeper as keepers
from remctl_toolkit.machine.channel.channel import Channel, ChannelError

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer


# The patience of a channel in seconds: that it is over ends it, and may at any moment; that ends
# it, but not before the test has it so; something else has to end it.
SHORT, SOME, LONG = 1.5, 4.0, 60.0


@pytest.fixture(autouse=True)
def _little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "GRACE", 0.4)


# States of a channel when a failure happens.
IDLE = "echo ready; exec sleep 1000"
FLOODING = "echo ready; exec yes"
DEAF = "trap '' TERM; echo ready; sleep 1000; sleep 1000"
SCRIPTS = {"idle": IDLE, "flooding": FLOODING, "deaf": DEAF}


def lost(use: Callable[[], object]) -> ChannelError:
    """Use a channel until that fails."""
    with pytest.raises(ChannelError) as caught:
        use()
    return caught.value


@contextlib.contextmanager
def blocked_feed(channel: Channel) -> Iterator[list[BaseException]]:
    """Write more than a command without reads takes; return the final error."""
    failures: list[BaseException] = []
    sending = threading.Event()

    def write() -> None:
        try:
            while True:
                sending.set()
                channel.write(b"x" * (1 << 20))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    assert sending.wait(LIMIT)
    try:
        yield failures
    finally:
        thread.join(LIMIT)
        assert not thread.is_alive()


# -- The client -----------------------------------------------------------------------------------

CLIENT = """
import sys, time
from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.channel import ChannelError
from machine.remote_traces import opened
host, port, principal, shell, script, patience, feed = sys.argv[1:]
connection = Connection(host, int(port), principal, shell=shell or None)
with opened(connection, script, patience=float(patience)) as c:
    keeper = c._keeper
    print(keeper.folder.decode(), keeper.pid, keeper.own_pid, flush=True)
    try:
        if feed:
            c.write(b"x" * (64 << 20))
        while True:
            time.sleep(0.1)
            c.poll()
    except ChannelError as error:
        print("lost", flush=True)
connection.close()
"""


@contextlib.contextmanager
def client(
    server: RemctldServer, script: str, patience: float, feed: bool = False, shell: str = "sh"
) -> Iterator[tuple[subprocess.Popen[str], Traces]]:
    """Another process that has a channel."""
    where = [server.host, str(server.port), server.principal, shell]
    rest = [script, str(patience), "feed" if feed else ""]
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, *where, *rest],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            folder, pid, keeper = process.stdout.readline().split()
            yield process, Traces.of(folder.encode(), int(pid), int(keeper))
        finally:
            process.kill()


STATES = [("idle", False), ("flooding", False), ("deaf", True)]


@pytest.mark.parametrize(("state", "feed"), STATES)
def test_a_client_that_is_killed(server: RemctldServer, state: str, feed: bool) -> None:
    before = descendants(server.pid)
    with client(server, SCRIPTS[state], LONG, feed) as (process, there):
        if feed:
            eventually(lambda: is_fed(server))
        process.kill()
        eventually(there.gone, what=f"{there} to go: {there.left()}")
        # The sessions, too: as many as before, or fewer.
        eventually(lambda: descendants(server.pid) <= before)


def is_fed(server: RemctldServer) -> bool:
    """Return whether an input command is running."""
    for pid in descendants(server.pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if file.read() == b"cat\0":
                return True
    return False


@pytest.mark.parametrize(("state", "shell"), [("idle", "sh"), ("flooding", "")])
def test_a_client_that_is_frozen(server: RemctldServer, state: str, shell: str) -> None:
    with client(server, SCRIPTS[state], SHORT, shell=shell) as (process, there):
        process.send_signal(signal.SIGSTOP)
        eventually(there.gone, what=f"{there} to go: {there.left()}")
        process.send_signal(signal.SIGCONT)
        if state == "idle":
            assert process.stdout is not None
            assert process.stdout.read() == "lost\n"
            assert process.wait(LIMIT) == 0


def exit_with_an_open_channel(host: str, port: int, principal: str) -> Traces:
    channel = opened(Connection(host, port, principal), IDLE)
    globals()["kept"] = channel  # To the very end.
    return traces(channel)


def exit_with_an_open_machine(host: str, port: int, principal: str) -> None:
    link._END_WAIT = 1e6  # Waiting for the interpreter's end would not return.
    machine = globals()["kept"] = Machine(host, port, principal)  # To the very end.
    machine.call(os.getpid)


def test_an_interpreter_exits_with_a_machine_open(server: RemctldServer) -> None:
    in_child(exit_with_an_open_machine, server.host, server.port, server.principal)


def test_a_client_that_exits(server: RemctldServer) -> None:
    there = in_child(exit_with_an_open_channel, server.host, server.port, server.principal)
    eventually(there.gone)


# -- The remote host ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", SCRIPTS)
def test_a_keeper_that_is_killed(either: Connection, state: str) -> None:
    with opened(either, SCRIPTS[state]) as channel, blocked_feed(channel) as failures:
        there = traces(channel)
        os.kill(there.keeper, signal.SIGKILL)
        error = lost(lambda: read_all(channel))
        assert f"channel to {either.host} was lost: the keeper process" in str(error)
        assert error.host == either.host
        lost(channel.wait)
        lost(channel.poll)
        lost(channel.terminate)
        eventually(there.gone)
        eventually(lambda: failures)
    assert isinstance(failures[0], ChannelError | BrokenPipeError)


def test_a_keeper_that_is_asked_to_end(connection: Connection) -> None:
    with opened(connection, "trap '' HUP; " + IDLE) as channel:
        there = traces(channel)
        os.kill(there.keeper, signal.SIGTERM)
        lost(channel.wait)
        eventually(there.gone)


def test_a_group_ends_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(source("base/far_supervise"), names)

    def nothing(path: str) -> list[str]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        monkeypatch.setattr(os, "listdir", nothing)
        names["end"](process.pid, 20.0, process.poll)
        assert process.poll() == -signal.SIGTERM


def test_a_keeper_that_is_frozen(connection: Connection) -> None:
    with opened(connection, IDLE, patience=SOME) as channel:
        there = traces(channel)
        os.kill(there.keeper, signal.SIGSTOP)
        error = lost(channel.wait)
        assert isinstance(error.__cause__, remctl.RemctlTimeoutError)
    os.kill(there.keeper, signal.SIGCONT)
    eventually(there.gone)


def test_a_watcher_that_is_killed_is_not_missed(connection: Connection) -> None:
    with opened(connection, "echo ready; exec cat") as channel:
        there = traces(channel)
        (watcher,) = there.processes - {there.keeper, there.command}
        os.kill(watcher, signal.SIGKILL)
        channel.write(b"x")
        assert channel.read() == b"x"
    eventually(there.gone)


@pytest.mark.parametrize("state", SCRIPTS)
def test_a_session_that_is_killed(connection: Connection, state: str) -> None:
    with opened(connection, SCRIPTS[state]) as channel:
        there = traces(channel)
        assert there.session is not None
        os.kill(there.session, signal.SIGKILL)
        error = lost(lambda: read_all(channel))
        assert isinstance(error.__cause__, remctl.RemctlDisconnectedError)
        lost(channel.wait)
        eventually(there.gone)
    with Channel(connection, ["true"]) as channel:
        assert channel.wait() == 0


def test_a_folder_that_somebody_removes(connection: Connection) -> None:
    with opened(connection, "echo ready; exec cat", patience=SOME) as channel:
        there = traces(channel)
        for name in ("data", "control"):
            os.unlink(f"{there.folder}/{name}")
        os.rmdir(there.folder)
        channel.write(b"x")

        def broken() -> bool:
            try:
                channel.write(b"x")
            except BrokenPipeError:
                return True
            return False

        eventually(broken)
        lost(channel.wait)  # No beat arrives any more.
    eventually(there.gone)


# -- The network ----------------------------------------------------------------------------------


@pytest.fixture
def proxy(server: RemctldServer) -> Iterator[Proxy]:
    with Proxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
def proxied(server: RemctldServer, proxy: Proxy) -> Iterator[Connection]:
    # A beat may need another session: if the server has none, that must be noticed soon.
    with Connection(proxy.host, proxy.port, server.principal, connect_timeout=5.0) as connection:
        yield connection


@pytest.mark.parametrize("state", SCRIPTS)
def test_a_network_that_is_cut(proxied: Connection, proxy: Proxy, state: str) -> None:
    with opened(proxied, SCRIPTS[state], patience=SHORT) as channel:
        there = traces(channel)
        for direction in (TO_SERVER, TO_CLIENT):
            proxy.stall(direction)
        lost(lambda: read_all(channel))
        lost(channel.wait)
        eventually(there.gone)


def test_a_network_that_is_cut_while_nobody_reads(proxied: Connection, proxy: Proxy) -> None:
    with opened(proxied, FLOODING, patience=SOME) as channel, blocked_feed(channel) as failures:
        there = traces(channel)
        eventually(lambda: len(channel._stdout.octets) >= channels.LIMIT)
        for direction in (TO_SERVER, TO_CLIENT):
            proxy.stall(direction)
        eventually(there.gone)
        eventually(lambda: failures)
    assert isinstance(failures[0], ChannelError)


def test_a_network_that_loses_one_direction(proxied: Connection, proxy: Proxy) -> None:
    for direction in (TO_SERVER, TO_CLIENT):
        with opened(proxied, IDLE, patience=SHORT) as channel:
            there = traces(channel)
            proxy.stall(direction)
            lost(channel.wait)
            eventually(there.gone)
            proxy.release()


def test_a_connection_that_is_reset(proxied: Connection, proxy: Proxy) -> None:
    with opened(proxied, IDLE) as channel:
        there = traces(channel)
        proxy.reset(TO_CLIENT)
        lost(channel.wait)
        proxy.release()
        eventually(there.gone)


def test_a_network_that_is_slow_is_no_death(proxied: Connection, proxy: Proxy) -> None:
    delay = 4 * BEAT
    with opened(proxied, "echo ready; exec cat", patience=SOME) as channel:
        for direction in (TO_SERVER, TO_CLIENT):
            proxy.delay(direction, seconds=delay)
        channel.write(b"x")
        assert channel.read() == b"x"
        with pytest.raises(TimeoutError):
            channel.wait(2 * delay)


# -- This side ------------------------------------------------------------------------------------


def test_closing_the_connection_ends_its_channels(server: RemctldServer) -> None:
    with Connection(server.host, server.port, server.principal) as connection:
        channel = opened(connection, IDLE)
        there = traces(channel)
    lost(channel.wait)
    channel.close()
    eventually(there.gone)
    with pytest.raises(ClosedError):
        Channel(connection, ["true"])


def test_an_idle_channel_lives(connection: Connection, python_only: Connection) -> None:
    with (
        opened(connection, "echo ready; exec cat", patience=SOME) as one,
        opened(python_only, "echo ready; exec cat", patience=SOME) as other,
    ):
        with pytest.raises(TimeoutError):
            other.wait(SOME + 4 * BEAT)
        for channel in (one, other):
            channel.write(b"x")
            assert channel.read() == b"x"


def use_after_fork(channel: Channel) -> str:
    """Return the errors of a forked child, and the results of what it still can do."""
    found = []
    for use in (channel.read, lambda: channel.write(b"y"), channel.wait, channel.kill):
        try:
            use()
        except ClosedError as error:
            found.append(str(error))
    channel.close()
    with Channel(channel.connection, ["echo", "x"]) as own:
        found.append(own.read().decode())
    return "\0".join(found)


def fork_beside_a_channel(host: str, port: int, principal: str) -> list[str]:
    with (
        Connection(host, port, principal) as connection,
        # No beat is under way when the fork comes.
        opened(connection, "echo ready; exec cat", beat=LONG / 2) as channel,
    ):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # It is deprecated with threads.
            child = os.fork()
        if child == 0:
            os.write(writer, use_after_fork(channel).encode())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as file:
            said = file.read().decode().split("\0")
        os.wait()
        channel.write(b"x")
        return [*said, channel.read().decode()]


def test_a_fork_leaves_the_channel_to_the_parent(server: RemctldServer) -> None:
    *told, theirs, ours = in_child(
        fork_beside_a_channel, server.host, server.port, server.principal
    )
    assert len(told) == 4
    assert all("belongs to process" in text for text in told)
    assert (theirs, ours) == ("x\n", "x")

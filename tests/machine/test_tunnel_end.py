"""Tunnels through a real remctld: how they end, and that nothing is left of them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from machine.remote_traces import Traces
from machine.tunnel_servers import (
    answers,
    connect,
    echo,
    is_broken,
    mux_of,
    read_all,
    read_exactly,
    reserved_port,
    serving,
    streams_of,
)
from support.waiting import eventually, open_descriptors, thread_count

from remctl_toolkit.machine import ClosedError, Connection
from remctl_toolkit.machine.tunnel import mux as tunnel_mux
from remctl_toolkit.machine.tunnel.both_mux import Listener
from remctl_toolkit.machine.tunnel.tunnel import Tunnel, connect_sock
from remctl_toolkit.testing import RemctldServer

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    with serving(echo) as port:
        yield port


@pytest.fixture
def own(server: RemctldServer) -> Iterator[Connection]:
    """A connection that the test may ruin."""
    with Connection(server.host, server.port, server.principal) as connection:
        yield connection


def mux_over(connection: Connection) -> tunnel_mux.NearMux:
    (mux,) = (mux for mux in tunnel_mux._muxes if mux._channel.connection is connection)
    return mux


def traces(tunnel: Tunnel) -> Traces:
    keeper = mux_of(tunnel)._channel._keeper
    assert keeper is not None
    return Traces.of(keeper.folder, keeper.pid, keeper.own_pid)


@pytest.mark.parametrize("reverse", [False, True])
def test_nothing_is_left_after_the_end(own: Connection, echo_port: int, reverse: bool) -> None:
    own.run(["true"])
    before = thread_count(), open_descriptors()
    ports = (echo_port, 0) if reverse else (0, echo_port)
    with Tunnel(own, *ports, reverse=reverse) as tunnel:
        left = traces(tunnel)
        mux = mux_of(tunnel)
        sock = connect(tunnel.dport if reverse else tunnel.lport)
        assert answers(sock)
    assert tunnel.closed
    tunnel.close()
    assert is_broken(sock)
    sock.close()
    assert not mux._thread.is_alive()
    eventually(left.gone, what="processes or folder")
    own.close()
    eventually(lambda: thread_count() <= before[0], what="threads")
    eventually(lambda: open_descriptors() <= before[1], what="descriptors")
    assert repr(tunnel).endswith(", closed>")


def test_all_share_a_channel_until_the_last_ends(
    own: Connection, echo_port: int, far_log: Callable[[], str]
) -> None:
    before = far_log().count(" tunnels ")
    with Tunnel(own, 0, echo_port) as one:
        mux = mux_of(one)
        with Tunnel(own, echo_port, 0, reverse=True) as other, connect_sock(own, echo_port) as sock:
            assert mux_of(other) is mux
            with connect(other.dport) as theirs:
                other.close()
                assert is_broken(theirs)
            assert answers(sock)
            one.close()
            assert answers(sock)
            assert not mux.over
    assert str(echo_port) not in far_log()
    assert far_log().count(" tunnels ") - before == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_closing_while_connections_arrive(own: Connection, echo_port: int, reverse: bool) -> None:
    def connect_all(port: int) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            while True:
                stack.enter_context(connect(port))

    ports = (echo_port, 0) if reverse else (0, echo_port)
    with connect_sock(own, echo_port) as sock, concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            tunnel = Tunnel(own, *ports, reverse=reverse)
            port = int(tunnel.dport if reverse else tunnel.lport)
            with connect(port) as first:
                assert answers(first)
                connecting = [pool.submit(connect_all, port) for _ in range(2)]
                tunnel.close()
                for each in connecting:
                    each.result(20)
            assert answers(sock)


def test_the_last_socket_lets_the_channel_go(
    own: Connection, echo_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_mux, "LINGER", 0.2)
    with connect_sock(own, echo_port) as sock:
        mux = mux_over(own)
        mux._thread.join(0.5)
        assert answers(sock)
    mux._thread.join(20)
    assert (mux.over, mux.reason, mux._channel.closed) == (True, None, True)
    with connect_sock(own, echo_port) as sock:
        assert answers(sock)


def test_closing_while_data_flows(own: Connection) -> None:
    def pour(sock: socket.socket) -> None:
        while True:
            sock.sendall(bytes(MEBIBYTE))

    def drain(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            pour(sock)

    with serving(pour) as out, serving(read_all) as into, serving(pour) as here:
        first, second = Tunnel(own, 0, out), Tunnel(own, 0, into)
        third = Tunnel(own, here, 0, reverse=True)
        left = traces(first)
        reading, writing, back = connect(first.lport), connect(second.lport), connect(third.dport)
        with reading, back, concurrent.futures.ThreadPoolExecutor(1) as pool:
            sending = pool.submit(drain, writing)
            read_exactly(reading, 3 * MEBIBYTE)
            read_exactly(back, MEBIBYTE)
            for tunnel in (first, second, third):
                tunnel.close()
            assert is_broken(reading)
            assert is_broken(back)
            sending.result(20)
    eventually(left.gone)


@pytest.mark.parametrize("victim", ["command", "keeper", "session", "connection"])
def test_the_way_there_is_lost(own: Connection, echo_port: int, victim: str) -> None:
    with (
        reserved_port() as lport,
        Tunnel(own, lport, echo_port) as tunnel,
        Tunnel(own, echo_port, 0, reverse=True) as back,
    ):
        left, mux = traces(tunnel), mux_of(tunnel)
        with (
            connect(lport) as one,
            connect(back.dport) as two,
            connect_sock(own, echo_port) as pair,
        ):
            assert all(map(answers, [one, two, pair]))
            if victim == "connection":
                own.close()
            else:
                os.kill(getattr(left, victim), signal.SIGKILL)
            assert is_broken(one)
            assert is_broken(two)
            assert is_broken(pair)
        mux._thread.join(20)
        assert tunnel.closed
        assert back.closed
        with pytest.raises(ConnectionRefusedError):
            connect(lport)
    eventually(left.gone)
    if victim == "connection":
        with pytest.raises(ClosedError):
            connect_sock(own, echo_port)
    else:
        with connect_sock(own, echo_port) as sock:
            assert answers(sock)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_interrupt_while_it_begins_leaves_nothing(
    own: Connection, echo_port: int, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    assert own.far.home  # It is asked for once.
    result = concurrent.futures.Future.result
    interrupts = [KeyboardInterrupt]

    def interrupted(future: Any, timeout: float | None = None) -> Any:
        if interrupts and threading.current_thread() is threading.main_thread():
            raise interrupts.pop()
        return result(future, timeout)

    with reserved_port() as port, connect_sock(own, echo_port) as sock:
        with monkeypatch.context() as patch:
            patch.setattr(concurrent.futures.Future, "result", interrupted)
            ports = (echo_port, port) if reverse else (port, echo_port)
            with pytest.raises(KeyboardInterrupt):
                Tunnel(own, *ports, reverse=reverse)
        assert not mux_over(own).listeners
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        assert answers(sock)
        with Tunnel(own, *ports, reverse=reverse):
            pass


def test_one_that_is_forgotten_warns(own: Connection, echo_port: int) -> None:
    tunnels = [Tunnel(own, 0, echo_port)]
    mux = mux_of(tunnels[0])
    with pytest.warns(ResourceWarning, match="unclosed <Tunnel"):
        tunnels.clear()
    mux._thread.join(20)
    assert mux.over


def test_a_forked_child_has_no_part_in_it(own: Connection, echo_port: int) -> None:
    def held() -> set[int]:
        """Return the sockets that this process has."""
        links = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/self/fd/{name}"))
        return {int(link[8:-1]) for link in links if link.startswith("socket:[")}

    with Tunnel(own, 0, echo_port) as tunnel, connect(tunnel.lport) as sock:
        assert answers(sock)
        mux = mux_of(tunnel)
        socks: list[Any] = [
            each
            for listener in mux.listeners
            if isinstance(listener, Listener)
            for each in listener.socks
        ]
        socks += [each.transport.get_extra_info("socket") for each in streams_of(mux)]
        assert len(socks) == 3
        theirs = {os.fstat(each.fileno()).st_ino for each in socks}
        assert theirs <= held()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # There are threads.
            pid = os.fork()
        if pid == 0:
            try:
                tunnel.close()
                done = tunnel.closed and not held() & theirs
            except BaseException:
                done = False
            os._exit(7 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert answers(sock)
        with connect(tunnel.lport) as another:
            assert answers(another)


UNCLOSED = """
import sys, threading
from remctl_toolkit.machine import Connection
from remctl_toolkit.machine.tunnel.tunnel import Tunnel, connect_sock
connection = Connection(sys.argv[1], int(sys.argv[2]), sys.argv[3])
tunnels = [Tunnel(connection, 0, 1), Tunnel(connection, 1, 0, reverse=True)]
sock = connect_sock(connection, int(sys.argv[4]))
print("ready", flush=True)
sys.exit(int(sys.argv[5]))
"""


def test_a_program_that_does_not_close_ends_at_once(server: RemctldServer, echo_port: int) -> None:
    words = [server.host, server.port, server.principal, echo_port, 3]
    process = subprocess.Popen(
        [sys.executable, "-c", UNCLOSED, *map(str, words)], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.wait(5) == 3  # Nothing waits for ten seconds.


def test_a_closed_connection(own: Connection) -> None:
    own.close()
    before = open_descriptors()
    with pytest.raises(ClosedError):
        Tunnel(own, 0, 1)
    with pytest.raises(ClosedError):
        connect_sock(own, 1)
    eventually(lambda: open_descriptors() <= before)

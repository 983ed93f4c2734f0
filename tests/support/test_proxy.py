"""The proxy, byte by byte between plain sockets, then between remctl and the fake server."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from support.fakeserver import FakeServer, serve
from support.loopback import LoopbackServer
from support.proxy import (
    TO_CLIENT,
    TO_SERVER,
    DeafListener,
    Proxy,
    SilentServer,
    refused_port,
)
from support.relay import Direction
from support.stockclient import needs_remctl, remctl_arguments, run_remctl
from support.waiting import eventually, nothing_left_behind, open_descriptors

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

pytestmark = pytest.mark.once

DATA = bytes(range(100))


class EchoServer(LoopbackServer):
    """Send back what comes, until the end of file."""

    def handle(self, connection: socket.socket, number: int) -> None:
        while data := connection.recv(65536):
            connection.sendall(data)


class SourceServer(LoopbackServer):
    """Send DATA, then break or close the connection, as the first byte that comes says."""

    def handle(self, connection: socket.socket, number: int) -> None:
        order = connection.recv(1)
        connection.sendall(DATA)
        self.drop(connection, reset=order == b"R")


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server
    assert server.errors == []


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[Proxy]:
    with Proxy(*echo.address) as proxy:
        yield proxy
    assert proxy.errors == []


def connect(server: LoopbackServer) -> socket.socket:
    return socket.create_connection(server.address, 10)


def receive(client: socket.socket, count: int) -> bytes:
    """Read that many bytes, or fewer at the end of file."""
    data = b""
    while len(data) < count and (piece := client.recv(count - len(data))):
        data += piece
    return data


def receive_all(client: socket.socket) -> bytes:
    """Read to the end of file."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def is_silent(client: socket.socket) -> bool:
    """Return whether nothing, not even the end of file, arrives for a moment."""
    return not select.select([client], [], [], 0.1)[0]


def is_reset(proxy: Proxy) -> bool:
    """Return whether a client that sends DATA is reset, possibly already in its connect()."""
    try:
        with connect(proxy) as client:
            client.sendall(DATA)
            receive_all(client)
    except ConnectionError:
        return True
    return False


def test_transparent_without_faults(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive(client, 100) == DATA
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert proxy.forwarded(TO_SERVER) == proxy.forwarded(TO_CLIENT) == 100
    assert proxy.struck(TO_SERVER) == proxy.struck(TO_CLIENT) == 0


def test_much_data_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.settimeout(20)
        pieces = []
        for _ in range(40):
            client.sendall(DATA * 1000)
            pieces.append(receive(client, 100_000))
    assert b"".join(pieces) == DATA * 40_000
    assert proxy.forwarded(TO_CLIENT) == 4_000_000


def test_several_connections_at_once(proxy: Proxy) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(proxy)) for _ in range(10)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        assert [client.recv(10) for client in clients] == [b"%d" % n for n in range(10)]
    assert proxy.connections == 10


@pytest.mark.parametrize("direction", Direction)
def test_stall_and_release(proxy: Proxy, direction: Direction) -> None:
    proxy.stall(direction, after=30)
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive(client, 30) == DATA[:30]
        assert is_silent(client)
        assert proxy.forwarded(direction) == 30
        eventually(lambda: proxy.struck(direction) == 1)
        proxy.release()
        assert receive(client, 70) == DATA[30:]


def test_stall_in_the_middle_of_a_connection(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive(client, 100) == DATA
        proxy.stall(TO_CLIENT)
        client.sendall(b"more")
        assert is_silent(client)
        proxy.release(TO_CLIENT)
        assert receive(client, 4) == b"more"


def test_stall_holds_the_end_of_file(proxy: Proxy) -> None:
    proxy.stall(TO_CLIENT, after=100)
    with connect(proxy) as client:
        client.sendall(DATA)
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 100) == DATA
        assert is_silent(client)
        proxy.release()
        assert client.recv(1) == b""


def test_stalled_sender_gets_stuck(proxy: Proxy) -> None:
    proxy.stall(TO_SERVER)
    with connect(proxy) as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(32 * 1024 * 1024))
    assert proxy.forwarded(TO_SERVER) == 0


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("after", [0, 30])
def test_close(proxy: Proxy, direction: Direction, after: int) -> None:
    proxy.close(direction, after=after)
    with connect(proxy) as client:
        client.sendall(DATA)
        received = receive_all(client)
        client.sendall(b"swallowed")
    assert received == DATA[: len(received)]
    assert len(received) <= after
    assert proxy.forwarded(direction) == after


def test_close_comes_right_after_the_last_byte(proxy: Proxy) -> None:
    proxy.close(TO_CLIENT, after=100)
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive_all(client) == DATA


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("after", [0, 30])
def test_reset(proxy: Proxy, direction: Direction, after: int) -> None:
    proxy.reset(direction, after=after)
    assert is_reset(proxy)
    eventually(lambda: proxy.struck(direction) == 1)
    assert proxy.forwarded(direction) == after


def test_reset_now(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive(client, 100) == DATA
        proxy.reset(TO_CLIENT)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_fault_of_the_first_connection_only(proxy: Proxy) -> None:
    proxy.reset(TO_CLIENT, connections={1})
    assert is_reset(proxy)
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive(client, 100) == DATA
    assert proxy.struck(TO_CLIENT) == 1


def test_dribble(proxy: Proxy) -> None:
    proxy.dribble(TO_CLIENT, after=10, seconds=0.002)
    with connect(proxy) as client:
        start = time.monotonic()
        client.sendall(DATA)
        assert receive(client, 100) == DATA
        assert time.monotonic() - start > 0.15
    assert proxy.struck(TO_CLIENT) == 1


def test_dribble_one_byte_at_a_time(proxy: Proxy) -> None:
    proxy.dribble(TO_CLIENT, seconds=60)
    with connect(proxy) as client:
        client.sendall(b"abc")
        assert client.recv(10) == b"a"
        assert is_silent(client)
        proxy.release()
        assert receive(client, 2) == b"bc"


def test_dribble_without_a_pause(proxy: Proxy) -> None:
    proxy.dribble(TO_SERVER)
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive(client, 100) == DATA


def test_delay_comes_once(proxy: Proxy) -> None:
    proxy.delay(TO_CLIENT, seconds=0.2, after=50)
    with connect(proxy) as client:
        start = time.monotonic()
        client.sendall(DATA)
        assert receive(client, 100) == DATA
        assert time.monotonic() - start >= 0.2
        client.sendall(DATA)
        assert receive(client, 100) == DATA
    assert proxy.struck(TO_CLIENT) == 1


def test_delay_holds_back_what_comes_after_its_place_until_it_is_released(proxy: Proxy) -> None:
    proxy.delay(TO_CLIENT, seconds=60, after=50)
    with connect(proxy) as client:
        client.sendall(DATA)
        assert receive(client, 50) == DATA[:50]
        assert is_silent(client)
        eventually(lambda: proxy.struck(TO_CLIENT))
        proxy.release()
        assert receive(client, 50) == DATA[50:]


def test_reset_by_the_server_follows_its_data() -> None:
    with SourceServer() as server, Proxy(*server.address) as proxy, connect(proxy) as client:
        client.sendall(b"R")
        assert receive(client, 100) == DATA
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_answer_of_a_server_that_breaks_while_it_is_written_to() -> None:
    with SourceServer() as server, Proxy(*server.address) as proxy, connect(proxy) as client:
        proxy.stall(TO_CLIENT, after=10)
        client.sendall(b"R")
        assert receive(client, 10) == DATA[:10]
        for _ in range(5):
            client.sendall(bytes(100_000))
        proxy.release()
        assert receive(client, 90) == DATA[10:]
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_end_of_file_of_the_server_follows_its_data() -> None:
    with SourceServer() as server, Proxy(*server.address) as proxy, connect(proxy) as client:
        client.sendall(b"E")
        assert receive_all(client) == DATA


def test_server_out_of_reach() -> None:
    with refused_port() as port, Proxy("127.0.0.1", port) as proxy:
        assert is_reset(proxy)
        assert [type(error) for error in proxy.errors] == [ConnectionRefusedError]


def test_idle_relay_uses_no_time(proxy: Proxy) -> None:
    """Neither a stall with both ends of file pending nor silence makes a relay spin."""
    proxy.stall(TO_CLIENT, after=10)
    with connect(proxy) as client, connect(proxy) as idle:
        client.sendall(DATA)
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 10) == DATA[:10]
        start = time.process_time()
        assert is_silent(client)
        assert is_silent(idle)
        assert time.process_time() - start < 0.1


def test_nothing_is_left_behind(echo: EchoServer) -> None:
    with nothing_left_behind(), contextlib.ExitStack() as clients, Proxy(*echo.address) as proxy:
        proxy.stall(TO_CLIENT, connections={2})
        for _ in range(3):
            clients.enter_context(connect(proxy)).sendall(DATA)
        eventually(lambda: proxy.forwarded(TO_SERVER) == 300)
    proxy.stop()


# With remctl on one side and a remctl server on the other


@needs_remctl
@pytest.mark.parametrize("direction", Direction)
def test_remctl_through_a_dribble(remctl_realm: Realm, direction: Direction) -> None:
    with FakeServer(remctl_realm.keytab) as server, Proxy(*server.address) as proxy:
        proxy.dribble(direction)
        assert run_remctl(remctl_realm, proxy.port, "cmd", "sub").stdout == b"cmd sub\n"
    assert server.errors == proxy.errors == []


@needs_remctl
@pytest.mark.parametrize("after", [0, 1, 5, 60])
def test_remctl_is_cut_off(remctl_realm: Realm, after: int) -> None:
    with FakeServer(remctl_realm.keytab) as server, Proxy(*server.address) as proxy:
        proxy.reset(TO_CLIENT, after=after)
        reset = run_remctl(remctl_realm, proxy.port, "cmd", "sub")
        proxy.close(TO_CLIENT, after=after)
        closed = run_remctl(remctl_realm, proxy.port, "cmd", "sub")
    assert b"unexpected end of file" in reset.stderr or b"reset by peer" in reset.stderr
    assert b"unexpected end of file" in closed.stderr
    assert server.errors == proxy.errors == []


@needs_remctl
def test_remctl_waits_out_a_stall(remctl_realm: Realm) -> None:
    def handler(command: list[bytes]) -> tuple[bytes, bytes, int]:
        return b"x" * 100_000, b"", 0

    script = serve(handler=handler)
    with FakeServer(remctl_realm.keytab, script) as server, Proxy(*server.address) as proxy:
        proxy.stall(TO_CLIENT, after=50_000)
        client = subprocess.Popen(
            remctl_arguments(remctl_realm, proxy.port, "cmd"),
            env={**os.environ, **remctl_realm.env},
            stdout=subprocess.PIPE,
        )
        eventually(lambda: proxy.struck(TO_CLIENT))
        assert client.poll() is None
        proxy.release()
        assert client.communicate(timeout=20)[0] == b"x" * 100_000
    assert server.errors == proxy.errors == []


@needs_remctl
def test_remctl_to_a_real_server(remctl_realm: Realm, remctl_server: RemctldServer) -> None:
    with Proxy("localhost", remctl_server.port) as proxy:
        proxy.dribble(TO_CLIENT)
        done = run_remctl(remctl_realm, proxy.port, "test", "echo", "words")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"words\n", b"")
        most = proxy.forwarded(TO_CLIENT) - 20  # it varies a little with each opening
        proxy.reset(TO_CLIENT, after=most)
        done = run_remctl(remctl_realm, proxy.port, "test", "echo", "words")
        assert done.returncode == 1
        assert b"unexpected end of file" in done.stderr
    assert proxy.errors == []


# Ports that misbehave


def test_silent_server() -> None:
    with SilentServer() as server, connect(server) as client:
        client.sendall(DATA)
        assert is_silent(client)
        assert server.connections == 1
    assert server.errors == []


def test_server_that_is_started_twice() -> None:
    with SilentServer() as server, pytest.raises(RuntimeError, match="already started"):
        server.start()


def test_silent_server_stops_with_clients_open() -> None:
    with contextlib.ExitStack() as stack:
        with SilentServer() as server:
            client = stack.enter_context(connect(server))
            eventually(lambda: server.connections == 1)
        assert client.recv(1) == b""


def test_deaf_listener() -> None:
    before = open_descriptors()
    with DeafListener() as listener, socket.socket() as client:
        assert listener.is_deaf()
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect((listener.host, listener.port))
        assert listener.is_deaf()
    eventually(lambda: open_descriptors() <= before)


def test_refused_port() -> None:
    with refused_port() as port, socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))

"""Tunnels through a real remctld: what goes through them, and what is left of them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import http.server
import os
import queue
import re
import socket
import stat
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine.tunnel_servers import (
    answers,
    connect,
    echo,
    is_broken,
    mux_of,
    read_all,
    read_exactly,
    reserved_port,
    reset,
    serving,
    unwritten,
)
from support.waiting import eventually, open_descriptors

from remctl_toolkit.machine import Connection, MachineError
from remctl_toolkit.machine.tunnel import both_mux
from remctl_toolkit.machine.tunnel.tunnel import Tunnel, TunnelError, connect_sock

pytestmark = pytest.mark.once

MEBIBYTE = 1 << 20
BOUND = 40 * MEBIBYTE  # The buffers of all sockets, and the window.
UNKNOWN_HOST = ".".join(["a" * 60] * 5)  # Too long for a name: it is not looked up.


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    with serving(echo) as port:
        yield port


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a path short enough for Unix sockets."""
    return tmp_path_factory.mktemp("s")


def assert_is_reset_at_once(port: int | str) -> None:
    # If connecting takes long, connect() itself raises the error.
    with pytest.raises(ConnectionResetError), connect(port) as sock:
        sock.recv(1)


# -- Both directions ------------------------------------------------------------------------------


def test_a_port_here_leads_there(either: Connection, echo_port: int) -> None:
    with Tunnel(either, 0, echo_port) as tunnel:
        assert isinstance(tunnel.lport, int)
        assert (tunnel.dport, tunnel.lhost, tunnel.dhost) == (echo_port, "localhost", "localhost")
        assert not tunnel.reverse
        assert not tunnel.closed
        with connect(tunnel.lport) as one, connect(tunnel.lport) as other:
            assert answers(one)
            assert answers(other)
            assert answers(one)


def test_a_port_there_leads_here(either: Connection, echo_port: int) -> None:
    with Tunnel(either, echo_port, 0, reverse=True) as tunnel:
        assert isinstance(tunnel.dport, int)
        assert tunnel.dport > 0
        assert (tunnel.lport, tunnel.reverse) == (echo_port, True)
        with connect(tunnel.dport) as one, connect(tunnel.dport) as other:
            assert answers(one)
            assert answers(other)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_port_of_ones_own_choice(connection: Connection, echo_port: int, reverse: bool) -> None:
    with reserved_port() as free:
        ports = (echo_port, free) if reverse else (free, echo_port)
        with Tunnel(connection, *ports, reverse=reverse) as tunnel:
            assert (tunnel.lport, tunnel.dport) == ports
            with connect(free) as sock:
                assert answers(sock)
        with pytest.raises(ConnectionRefusedError):
            connect(free)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_port_that_is_text(connection: Connection, echo_port: int, reverse: bool) -> None:
    with reserved_port() as free:
        ports = (str(echo_port), str(free)) if reverse else (str(free), str(echo_port))
        with Tunnel(connection, *ports, reverse=reverse) as tunnel, connect(free) as sock:
            assert (tunnel.lport, tunnel.dport) == ports
            assert answers(sock)
    ports = (str(echo_port), "0") if reverse else ("0", str(echo_port))
    with Tunnel(connection, *ports, reverse=reverse) as tunnel:
        port = tunnel.dport if reverse else tunnel.lport
        assert isinstance(port, str)
        with connect(int(port)) as sock:
            assert answers(sock)


def test_ip_version_6(connection: Connection) -> None:
    with (
        reserved_port() as port,  # of 127.0.0.1, too
        serving(echo, socket.create_server(("::1", port), family=socket.AF_INET6)),
        Tunnel(connection, 0, port, "::1", "::1") as tunnel,
    ):
        assert repr(tunnel) == f"<Tunnel [::1]:{tunnel.lport} -> [::1]:{port}>"
        with socket.create_connection(("::1", int(tunnel.lport)), 30) as sock:
            assert answers(sock)
        with connect_sock(connection, port, ipv6=True) as sock:
            assert answers(sock)
        # localhost is both.
        with connect_sock(connection, port) as sock:
            assert answers(sock)


@pytest.mark.parametrize("reverse", [False, True])
def test_localhost_is_all_of_its_addresses(
    connection: Connection, echo_port: int, reverse: bool
) -> None:
    ports = (echo_port, 0) if reverse else (0, echo_port)
    with Tunnel(connection, *ports, reverse=reverse) as tunnel:
        port = int(tunnel.dport if reverse else tunnel.lport)
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port), 30) as sock:
                assert answers(sock)
            # Nobody else can have it.
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with pytest.raises(OSError, match="in use"):
                socket.create_server((address, port), family=family)


@pytest.mark.parametrize("reverse", [False, True])
def test_localhost_is_nobody_elses(connection: Connection, echo_port: int, reverse: bool) -> None:
    with (
        reserved_port() as port,
        socket.create_server(("::1", port), family=socket.AF_INET6),
        pytest.raises(OSError, match=f"cannot listen on localhost:{port}") as caught,
    ):
        Tunnel(connection, *((echo_port, port) if reverse else (port, 1)), reverse=reverse)
    assert caught.value.errno == errno.EADDRINUSE
    with socket.create_server(("127.0.0.1", port)):
        pass  # It is free again.


def test_a_free_port_is_free_on_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        reserved_port() as taken,
        socket.create_server(("127.0.0.1", taken)) as free_here,
        socket.create_server(("::1", taken), family=socket.AF_INET6),
    ):
        really_listen = both_mux.listen_tcp
        chosen = [free_here.dup(), free_here.dup()]

        def listen_tcp(family: int, address: Any) -> socket.socket:
            if address == ("127.0.0.1", 0) and chosen:
                return chosen.pop()
            return really_listen(family, address)

        monkeypatch.setattr(both_mux, "listen_tcp", listen_tcp)
        loopback = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0))]
        socks = both_mux.bind(loopback)
        assert not chosen
        first, second = (sock.getsockname() for sock in socks)
        assert (first[:2], second[0]) == (("127.0.0.1", second[1]), "::1")
        assert second[1] != taken
        for sock in socks:
            sock.close()


def test_an_address_that_the_host_has_not_is_left_out() -> None:
    foreign = (socket.AF_INET, ("192.0.2.1", 0))
    own = (socket.AF_INET6, ("::1", 0))
    (sock,) = both_mux.bind([foreign, own])
    assert sock.getsockname()[0] == "::1"
    sock.close()
    with pytest.raises(OSError, match="assign") as caught:
        both_mux.bind([foreign])
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("reverse", [False, True])
def test_unix_sockets(
    connection: Connection, folder: Path, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, path = folder / "target", folder / "path"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(target))
    listener.listen()
    monkeypatch.chdir(folder)
    ports: tuple[Any, Any] = ("target", path) if reverse else ("path", os.fsencode(target))
    with serving(echo, listener), Tunnel(connection, *ports, None, None, reverse=reverse) as tunnel:
        assert (tunnel.dport if reverse else tunnel.lport) == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with connect(str(path)) as sock:
            assert answers(sock)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
    assert not path.exists()
    assert target.exists()


def test_a_unix_socket_of_somebody_else_stays(connection: Connection, folder: Path) -> None:
    path = folder / "path"
    with Tunnel(connection, path, 1, lhost=None):
        path.unlink()
        path.touch()
    assert path.exists()


def test_a_socket_that_is_connected(either: Connection, echo_port: int, folder: Path) -> None:
    with connect_sock(either, echo_port) as sock:
        assert isinstance(sock, socket.socket)
        assert answers(sock)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "echo"))
    listener.listen()
    with serving(echo, listener), connect_sock(either, folder / "echo", None) as sock:
        assert answers(sock)


# -- Data -----------------------------------------------------------------------------------------


def test_http(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(os.urandom(3 * MEBIBYTE))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=[0.01])
        thread.start()
        with Tunnel(connection, 0, httpd.server_port) as tunnel:
            url = f"http://localhost:{tunnel.lport}"
            for _ in range(3):
                with urllib.request.urlopen(f"{url}/page", timeout=30) as answer:
                    assert answer.read() == (tmp_path / "page").read_bytes()
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                urllib.request.urlopen(f"{url}/none", timeout=30)
            caught.value.close()
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("reverse", [False, True])
def test_much_both_ways_at_once(connection: Connection, echo_port: int, reverse: bool) -> None:
    octets = os.urandom(MEBIBYTE)
    times = 20
    sent, received = hashlib.sha256(octets * times), hashlib.sha256()
    ports = (echo_port, 0) if reverse else (0, echo_port)
    with (
        Tunnel(connection, *ports, reverse=reverse) as tunnel,
        connect(tunnel.dport if reverse else tunnel.lport) as sock,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):

        def send() -> None:
            for _ in range(times):
                sock.sendall(octets)
            sock.shutdown(socket.SHUT_WR)

        sending = pool.submit(send)
        while piece := sock.recv(MEBIBYTE):
            received.update(piece)
        sending.result()
        assert received.digest() == sent.digest()


def test_each_direction_ends_by_itself(connection: Connection) -> None:
    def talk(sock: socket.socket) -> None:
        sock.sendall(b"first")
        sock.shutdown(socket.SHUT_WR)
        heard.put(read_all(sock))

    heard: queue.Queue[bytes] = queue.Queue()
    with serving(talk) as port, Tunnel(connection, 0, port) as tunnel:
        for sock in (connect(tunnel.lport), connect_sock(connection, port)):
            with sock:
                assert read_all(sock) == b"first"
                sock.sendall(b"x" * 3 * MEBIBYTE)
                sock.shutdown(socket.SHUT_WR)
                assert heard.get(timeout=20) == b"x" * 3 * MEBIBYTE


def test_an_answer_after_the_end_of_the_question(connection: Connection) -> None:
    with (
        serving(lambda sock: sock.sendall(b"%d" % len(read_all(sock)))) as port,
        Tunnel(connection, 0, port) as tunnel,
        connect(tunnel.lport) as sock,
    ):
        sock.sendall(b"x" * 300_000)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"300000"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_long_answer_after_the_end_of_the_question(connection: Connection, reverse: bool) -> None:
    def talk(sock: socket.socket) -> None:
        read_all(sock)
        sock.sendall(bytes(12 * MEBIBYTE))

    with (
        serving(talk) as port,
        Tunnel(connection, *((port, 0) if reverse else (0, port)), reverse=reverse) as tunnel,
        connect(tunnel.dport if reverse else tunnel.lport) as sock,
    ):
        sock.shutdown(socket.SHUT_WR)
        # The reader is late, so data has to wait for it.
        eventually(lambda: reverse or unwritten(mux_of(tunnel)))
        assert sum(map(len, iter(lambda: sock.recv(65536), b""))) == 12 * MEBIBYTE


def test_a_slow_reader_is_alone_with_that(connection: Connection, echo_port: int) -> None:
    sent = 0

    def pour(sock: socket.socket) -> None:
        nonlocal sent
        while True:
            sent += sock.send(bytes(65536))

    with (
        serving(pour) as port,
        Tunnel(connection, 0, port) as tunnel,
        connect(tunnel.lport) as slow,
        connect_sock(connection, echo_port) as quick,
    ):

        def settled() -> bool:
            before = sent
            return answers(quick) and answers(quick) and sent == before > 0

        eventually(settled, 20)
        assert sent < BOUND
        assert unwritten(mux_of(tunnel)) <= both_mux.WINDOW
        read_exactly(slow, sent)
        assert answers(quick, bytes(MEBIBYTE))


def test_a_slow_reader_over_there(connection: Connection, echo_port: int) -> None:
    go = threading.Event()

    def wait(sock: socket.socket) -> None:
        go.wait(30)
        sock.sendall(b"%d" % len(read_all(sock)))

    with (
        serving(wait) as port,
        Tunnel(connection, 0, port) as tunnel,
        connect(tunnel.lport) as slow,
        connect_sock(connection, echo_port) as quick,
    ):
        slow.setblocking(False)
        sent = 0

        def settled() -> bool:
            nonlocal sent
            before = sent
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += slow.send(bytes(65536))
            return answers(quick) and answers(quick) and sent == before > 0

        try:
            eventually(settled, 20)
        finally:
            go.set()
        assert sent < BOUND
        slow.setblocking(True)
        slow.shutdown(socket.SHUT_WR)
        assert read_all(slow) == b"%d" % sent


def test_many_at_once(connection: Connection, echo_port: int) -> None:
    def talk(number: int) -> bool:
        with connect(tunnel.lport) as sock:
            barrier.wait(30)
            return all(answers(sock, b"%d" % number * 1000) for _ in range(5))

    barrier = threading.Barrier(64)
    with (
        Tunnel(connection, 0, echo_port) as tunnel,
        concurrent.futures.ThreadPoolExecutor(64) as pool,
    ):
        assert all(pool.map(talk, range(64)))


def test_many_in_turn_leave_nothing(connection: Connection, echo_port: int) -> None:
    times = 200
    with Tunnel(connection, 0, echo_port) as tunnel:
        mux = mux_of(tunnel)

        def held() -> tuple[int, int]:
            return open_descriptors(), len(os.listdir(f"/proc/{mux._channel.pid}/fd"))

        def about_as_before() -> bool:
            # Sessions of the connection come and go meanwhile: a few.
            return all(now - then < times / 4 for now, then in zip(held(), before, strict=True))

        before = held()
        for _ in range(times):
            with connect(tunnel.lport) as sock:
                assert answers(sock)
        eventually(lambda: not mux.takers)
        eventually(about_as_before)


# -- Errors --------------------------------------------------------------------------------------


def test_nobody_listens_there(either: Connection) -> None:
    with reserved_port() as port:
        text = f"localhost:{port} from localhost"
        with pytest.raises(ConnectionRefusedError, match=text) as caught:
            connect_sock(either, port)
        assert caught.value.errno == errno.ECONNREFUSED
        with Tunnel(either, 0, port) as tunnel:
            for _ in range(2):
                assert_is_reset_at_once(tunnel.lport)


def test_nobody_listens_here(connection: Connection) -> None:
    with reserved_port() as port, Tunnel(connection, port, 0, reverse=True) as tunnel:
        for _ in range(2):
            assert_is_reset_at_once(tunnel.dport)


def test_no_such_host_there(connection: Connection) -> None:
    with pytest.raises(socket.gaierror, match="unknown host"):
        connect_sock(connection, 1, UNKNOWN_HOST)
    with pytest.raises(socket.gaierror, match="unknown host"):
        Tunnel(connection, 1, 0, dhost=UNKNOWN_HOST, reverse=True)


def test_no_such_path_there(connection: Connection, folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_sock(connection, folder / "none", None)
    with pytest.raises(OSError, match="too long") as caught:
        connect_sock(connection, folder / ("n" * 200), None)
    assert caught.value.errno == errno.ENAMETOOLONG
    with pytest.raises(FileNotFoundError):
        Tunnel(connection, 1, folder / "none" / "path", dhost=None, reverse=True)


def test_no_such_host_here(connection: Connection) -> None:
    with pytest.raises(socket.gaierror, match="cannot listen on"):
        Tunnel(connection, 0, 1, UNKNOWN_HOST)
    with pytest.raises(socket.gaierror, match="cannot connect to"):
        Tunnel(connection, 1, 0, UNKNOWN_HOST, reverse=True)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_port_in_use(connection: Connection, echo_port: int, reverse: bool) -> None:
    ports = (1, echo_port) if reverse else (echo_port, 1)
    with pytest.raises(OSError, match=f"cannot listen on localhost:{echo_port}") as caught:
        Tunnel(connection, *ports, reverse=reverse)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("reverse", [False, True])
def test_a_path_in_use(connection: Connection, folder: Path, reverse: bool) -> None:
    path = folder / "used"
    path.touch()
    given: dict[str, Any] = {"lport": path, "lhost": None, "dport": 1}
    if reverse:
        given = {"dport": path, "dhost": None, "lport": 1, "reverse": True}
    with pytest.raises(OSError, match="cannot listen") as caught:
        Tunnel(connection, **given)
    assert caught.value.errno == errno.EADDRINUSE
    assert path.exists()


@pytest.mark.parametrize("reverse", [False, True])
def test_an_address_of_another_host(connection: Connection, reverse: bool) -> None:
    foreign = "192.0.2.1"
    given: dict[str, Any] = {"lport": 0, "lhost": foreign, "dport": 1}
    if reverse:
        given = {"dport": 0, "dhost": foreign, "lport": 1, "reverse": True}
    with pytest.raises(OSError, match=re.escape(foreign)) as caught:
        Tunnel(connection, **given)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_connection_is_reset_there(connection: Connection) -> None:
    def talk(sock: socket.socket) -> None:
        sock.recv(1)
        reset(sock)

    with serving(talk) as port, Tunnel(connection, 0, port) as tunnel:
        with connect(tunnel.lport) as sock:
            sock.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        with connect_sock(connection, port) as sock:
            sock.sendall(b"x")
            assert is_broken(sock)


def test_a_connection_is_reset_here(connection: Connection) -> None:
    def talk(sock: socket.socket) -> None:
        try:
            sock.sendall(sock.recv(1))
            seen.append(read_all(sock))
        except OSError as error:
            seen.append(error.errno)

    seen: list[object] = []
    with serving(talk) as port, Tunnel(connection, 0, port) as tunnel:
        sock = connect(tunnel.lport)
        assert answers(sock, b"x")
        reset(sock)
        eventually(lambda: seen)
        # A pair's other end is gone when it is closed; a server that waits for more has to know.
        with connect_sock(connection, port) as sock:
            assert answers(sock, b"x")
            sock.shutdown(socket.SHUT_WR)
        eventually(lambda: len(seen) == 2)
    assert seen[0] == errno.ECONNRESET


def test_whoever_closes_a_pair_is_gone(connection: Connection) -> None:
    gone = threading.Event()

    def talk(sock: socket.socket) -> None:
        read_all(sock)  # It has ended; half of a connection might go on for ever.
        try:
            sock.recv(1)
            while True:
                sock.sendall(b"x")
        finally:
            gone.set()

    with serving(talk) as port:
        connect_sock(connection, port).close()
        assert gone.wait(20)


# -- Arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"lport": -1}, ValueError, "lport is -1: it must be from 0"),
        ({"lport": 65536}, ValueError, "lport is 65536"),
        ({"dport": 0}, ValueError, "dport is 0: it must be from 1"),
        ({"lport": 0, "reverse": True}, ValueError, "lport is 0: it must be from 1"),
        ({"dport": 1.5}, TypeError, "dport must be a number, not float"),
        ({"dport": True}, TypeError, "dport must be a number, not bool"),
        ({"dport": "/a/socket"}, ValueError, "its host must be None"),
        ({"dport": "", "dhost": None}, ValueError, "not a valid path"),
        ({"dport": "a\0b", "dhost": None}, ValueError, "not a valid path"),
        ({"lport": 80, "lhost": None}, TypeError, "lport must be the path of a Unix socket"),
        ({"lhost": ""}, ValueError, "lhost is '': not a valid host name"),
        ({"dhost": "a b"}, ValueError, "dhost is 'a b'"),
        ({"dhost": "a..b"}, ValueError, "dhost is 'a..b'"),
        ({"dhost": "a\0b"}, ValueError, "dhost is"),
        ({"dhost": b"host"}, TypeError, "dhost must be a string or None, not bytes"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout must be seconds"),
        ({"connect_timeout": float("nan")}, ValueError, "connect_timeout must be seconds"),
        ({"connect_timeout": "1"}, TypeError, "a number of seconds, not str"),
        ({"connect_timeout": None}, TypeError, "a number of seconds, not NoneType"),
    ],
)
def test_what_cannot_be_right(
    connection: Connection, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    arguments = {"lport": 0, "dport": 1, **given}
    with pytest.raises(error, match=re.escape(text)):
        Tunnel(connection, **arguments)
    with contextlib.suppress(TypeError):  # It is a name of Tunnel's alone.
        named = {key: value for key, value in given.items() if key in ("dport", "dhost")}
        if named:
            with pytest.raises(error, match=re.escape(text)):
                connect_sock(connection, **{"dport": 1, **named})


def test_the_error_is_one_of_the_machines() -> None:
    assert issubclass(TunnelError, MachineError)

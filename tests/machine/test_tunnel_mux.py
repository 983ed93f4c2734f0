"""Tunnels to a local process, which is slow or short of descriptors."""

from __future__ import annotations

import ast
import concurrent.futures
import contextlib
import errno
import hashlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machine.tunnel_servers import (
    NoConnection,
    answers,
    connect,
    echo,
    is_broken,
    mux_of,
    muxes_over,
    read_all,
    reserved_port,
    serving,
    streams_of,
)
from support.waiting import eventually

from remctl_toolkit.machine.tunnel import mux as tunnel_mux
from remctl_toolkit.machine.tunnel.both_mux import FIRST_FAR_ID
from remctl_toolkit.machine.tunnel.tunnel import Tunnel, connect_sock

pytestmark = pytest.mark.once

MEBIBYTE = 1 << 20
PYTHON = os.environ.get("REMCTL_TEST_FAR_PYTHON", sys.executable)  # 3.8 or later


class Local:
    """A channel to a process of this host."""

    def __init__(self, before: str = "") -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [PYTHON, "-IS", "-c", tunnel_mux.far_program(before).text()],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
        )

    def read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        return os.read(self.process.stdout.fileno(), size)

    def read_stderr(self, size: int) -> bytes:
        assert self.process.stderr is not None
        return self.process.stderr.read(size) or b""

    def write(self, octets: bytes) -> None:
        assert self.process.stdin is not None
        while octets:
            octets = octets[self.process.stdin.write(octets) :]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


Far = Callable[..., Local]


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    started: list[Local] = []

    def start(before: str = "") -> Local:
        local = Local(before)
        started.append(local)
        monkeypatch.setattr(tunnel_mux, "Channel", lambda *_, **__: local)
        return local

    yield start
    for local in started:
        for mux in muxes_over(local):
            mux.close()
        local.close()
        for thread in threading.enumerate():
            if thread.name == "remctl-tunnels-in":
                thread.join(20)
        local.close_pipes()


@pytest.fixture
def connection() -> NoConnection:
    return NoConnection()


def chat(sock: socket.socket, seed: int) -> tuple[str, str]:
    """Send and read at random times; return digests of what was sent and read."""
    chance = random.Random(seed)
    sent, read = hashlib.sha256(), hashlib.sha256()

    def send() -> None:
        for _ in range(chance.randrange(12)):
            octets = chance.randbytes(chance.choice([1, 100, 70_000, 400_000]))
            sock.sendall(octets)
            sent.update(octets)
            time.sleep(chance.choice([0, 0, 0.01]))
        sock.shutdown(socket.SHUT_WR)

    pauses = random.Random(-seed)
    sender = threading.Thread(target=send)
    sender.start()
    while octets := sock.recv(pauses.choice([1000, 65536, MEBIBYTE])):
        read.update(octets)
        time.sleep(pauses.choice([0, 0, 0, 0.01]))
    sender.join()
    return sent.hexdigest(), read.hexdigest()


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_sent_is_read(far: Far, connection: Any, reverse: bool) -> None:
    def serve(sock: socket.socket) -> None:
        number = sock.recv(1)[0]
        theirs[number] = chat(sock, 100 + number)

    def ask(number: int) -> None:
        with connect(tunnel.dport if reverse else tunnel.lport) as sock:
            sock.sendall(bytes([number]))
            ours[number] = chat(sock, number)

    far()
    ours: dict[int, tuple[str, str]] = {}
    theirs: dict[int, tuple[str, str]] = {}
    with (
        serving(serve) as port,
        Tunnel(connection, *((port, 0) if reverse else (0, port)), reverse=reverse) as tunnel,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        list(pool.map(ask, range(24)))
        eventually(lambda: len(theirs) == 24)
        eventually(lambda: not streams_of(mux_of(tunnel)))
    assert ours == {number: (sent, read) for number, (read, sent) in theirs.items()}


# A look-up that takes as long as there is no such file.
SLOW = """
import os, socket, time
really = socket.getaddrinfo
def getaddrinfo(host, port, **options):
    if host.startswith("slow"):
        end = time.monotonic() + 60
        while not os.path.exists({!r}) and time.monotonic() < end:
            time.sleep(0.01)
        host = "127.0.0.1"
    return really(host, port, **options)
socket.getaddrinfo = getaddrinfo
"""


def test_a_name_that_takes_long_delays_nobody_else(
    far: Far, connection: Any, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    far(SLOW.format(str(known)))
    with (
        serving(echo) as port,
        reserved_port() as free,
        Tunnel(connection, 0, port, dhost="slow.example.org") as slow,
        Tunnel(connection, port, free, reverse=True) as back,
        connect_sock(connection, port) as quick,
        contextlib.ExitStack() as stack,
    ):
        late = [stack.enter_context(connect(slow.lport)) for _ in range(40)]
        for sock in late:
            sock.sendall(b"y")
        assert answers(quick)
        quick.shutdown(socket.SHUT_WR)
        assert read_all(quick) == b""
        back.close()
        with pytest.raises(ConnectionRefusedError):
            connect(free)
        known.touch()
        assert all(sock.recv(1) == b"y" for sock in late)


def test_a_name_that_takes_too_long(far: Far, connection: Any, tmp_path: Path) -> None:
    known = tmp_path / "known"
    far(SLOW.format(str(known)))
    with pytest.raises(TimeoutError) as caught:
        connect_sock(connection, 1, "slow.example.org", connect_timeout=0.1)
    assert caught.value.errno == errno.ETIMEDOUT
    known.touch()


TWO_ADDRESSES = """
import socket
def getaddrinfo(host, port, **options):
    tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    return [(*tcp, (address, port)) for address in ("127.0.0.2", "127.0.0.1")]
socket.getaddrinfo = getaddrinfo
really = Mux.__init__.__globals__["Loop"].sock_connect
async def sock_connect(self, sock, address):
    if address[0] == "127.0.0.2":
        await asyncio.sleep(60)
    await really(self, sock, address)
Mux.__init__.__globals__["Loop"].sock_connect = sock_connect
"""


def test_an_address_that_does_not_answer_delays_little(far: Far, connection: Any) -> None:
    far(TWO_ADDRESSES)
    with (
        serving(echo) as port,
        connect_sock(connection, port, "two.example.org", connect_timeout=30) as sock,
    ):
        assert answers(sock)


def full(path: Path) -> tuple[socket.socket, list[socket.socket]]:
    """Return a listening Unix socket that has no room for another connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(0)
    waiting: list[socket.socket] = []
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        if sock.connect_ex(str(path)):
            sock.close()
            return listener, waiting
        waiting.append(sock)


def test_a_unix_socket_that_has_no_room_yet(
    far: Far, connection: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    far()
    path = tmp_path_factory.mktemp("s") / "full"
    listener, waiting = full(path)
    with pytest.raises(TimeoutError) as caught:
        connect_sock(connection, path, None, connect_timeout=0.2)
    assert caught.value.errno == errno.ETIMEDOUT
    timer = threading.Timer(0.2, lambda: listener.accept()[0].close())
    timer.start()
    connect_sock(connection, path, None).close()
    timer.join()
    for sock in (listener, *waiting):
        sock.close()


def test_it_has_no_more_descriptors(far: Far, connection: Any) -> None:
    local = far("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))")
    with serving(echo) as port, Tunnel(connection, port, 0, reverse=True) as back:
        sockets = []
        while True:
            try:
                sockets.append(connect_sock(connection, port))
            except OSError as error:
                reason = error.errno
                break
        assert reason == errno.EMFILE
        assert len(sockets) > 5
        assert all(map(answers, sockets))
        with connect(back.dport) as waits:
            waits.sendall(b"y")
            stat = Path(f"/proc/{local.process.pid}/stat")
            before = sum(map(int, stat.read_text().split()[13:15]))
            time.sleep(0.3)
            assert sum(map(int, stat.read_text().split()[13:15])) - before < 10  # of 30
            for sock in sockets:
                sock.close()
            assert waits.recv(1) == b"y"
        with connect_sock(connection, port) as sock:
            assert answers(sock)


def test_it_stops_listening_while_it_has_no_more_descriptors(far: Far, connection: Any) -> None:
    far(
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "import asyncio.constants; asyncio.constants.ACCEPT_RETRY_DELAY = 0.1\n"
    )
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(echo))
        back = stack.enter_context(Tunnel(connection, port, 0, reverse=True))
        sockets = []
        with contextlib.suppress(OSError):
            while True:
                sockets.append(stack.enter_context(connect_sock(connection, port)))
        waits = stack.enter_context(connect(back.dport))
        assert answers(sockets[0])
        back.close()
        assert is_broken(waits)
        until = time.monotonic() + 0.3  # It wants to listen again meanwhile.
        while time.monotonic() < until:
            assert answers(sockets[0])


def test_we_have_no_more_descriptors(
    far: Far,
    connection: Any,
) -> None:
    far()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        serving(echo) as port,
        Tunnel(connection, 0, port) as forward,
        connect(forward.lport) as first,
        socket.socket() as second,
    ):
        assert answers(first)
        second.settimeout(20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            second.connect(("127.0.0.1", int(forward.lport)))
            before = time.process_time()
            time.sleep(0.3)
            assert time.process_time() - before < 0.1
            assert answers(first)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert answers(second)


def test_its_unix_sockets_go_with_it(
    far: Far, connection: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    local = far()
    path = tmp_path_factory.mktemp("s") / "path"
    with Tunnel(connection, 1, path, dhost=None, reverse=True) as back:
        assert path.is_socket()
        local.process.send_signal(signal.SIGTERM)
        eventually(lambda: back.closed)
        assert not path.exists()


def test_it_ends_with_its_input_or_output() -> None:
    for stream in ("stdin", "stdout"):
        local = Local()
        getattr(local.process, stream).close()
        assert local.process.wait(20) == 0
        local.close_pipes()


def test_it_ends_when_we_send_what_cannot_be(far: Far, connection: Any) -> None:
    local = far()
    with serving(echo) as port, connect_sock(connection, port) as sock:
        (mux,) = muxes_over(local)
        mux.loop.call_soon_threadsafe(mux.send, b"D", streams_of(mux)[0].number, b"")
        assert read_all(sock) == b""
        mux._thread.join(20)
        assert mux.reason is not None
        assert "unexpected data, or more than the window allows" in mux.reason


def test_numbers_begin_again(far: Far, connection: Any) -> None:
    local = far()
    with serving(echo) as port, connect_sock(connection, port) as first:
        (mux,) = muxes_over(local)
        mux.last = FIRST_FAR_ID - 2
        with connect_sock(connection, port) as a, connect_sock(connection, port) as b:
            assert all(map(answers, [first, a, b]))
            assert {stream.number for stream in streams_of(mux)} == {1, FIRST_FAR_ID - 1, 0}
            with connect_sock(connection, port) as c:
                assert answers(c)


def test_it_is_text_for_any_system() -> None:
    program = tunnel_mux.far_program()
    for text in (program.main, *program.modules.values()):
        assert text.isascii()
        ast.parse(text, feature_version=(3, 8))

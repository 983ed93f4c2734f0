"""Tunnels to a far side in a process of this host: it is slow, or short of descriptors."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import itertools
import os
import random
import resource
import select
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
    muxes_over,
    read_all,
    read_exactly,
    reserved_port,
    serving,
)
from support.waiting import eventually

from remctl_toolkit.machine.base.program import source
from remctl_toolkit.machine.tunnel import both_mux as protocol
from remctl_toolkit.machine.tunnel import mux as tunnel_mux
from remctl_toolkit.machine.tunnel.both_mux import FAR, WINDOW
from remctl_toolkit.machine.tunnel.tunnel import Tunnel, connect_sock

pytestmark = pytest.mark.once

MEBIBYTE = 1 << 20


class Local:
    """A channel to a process of this host."""

    def __init__(self, before: str = "") -> None:
        pieces = [
            f"payload = {source('tunnel/both_mux')!r}",
            tunnel_mux._LOADER,
            before,
            source("tunnel/far_mux"),
        ]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", "\n".join([*pieces, "main()"])],
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
            mux.end()
        local.close()
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
        assert tunnel._mux is not None
        streams = tunnel._mux.streams
        eventually(lambda: not streams)
    assert ours == {number: (sent, read) for number, (read, sent) in theirs.items()}


def test_a_window_is_wider_for_who_keeps_up_alone(far: Far, connection: Any) -> None:
    def pour(sock: socket.socket) -> None:
        while True:
            sock.sendall(bytes(65536))

    local = far()
    with serving(pour) as port, connect_sock(connection, port) as sock:
        (mux,) = muxes_over(local)
        (stream,) = mux.streams.values()
        assert stream is not None

        def is_full() -> bool:
            # There is always more to read, all that may come is here, and the socket has its part.
            assert stream.sock is not None
            return stream.granted == 0 and not select.select([], [stream.sock], [], 0)[1]

        windows = []
        for _ in range(80):
            eventually(is_full)
            read_exactly(sock, 32768)
            windows.append(stream.window)
        # What it kept up with at first counts once; 2.5 MiB would be enough for more.
        assert len(set(windows)) <= 2
        assert mux.widening == protocol.WIDENING - windows[-1] + WINDOW
    eventually(lambda: mux.widening == protocol.WIDENING)


# What the process that asks for a name is slow at: in the beginning, and in having the answer.
SLOW = """
import os, time
really_close, really = os.closerange, module.addresses
def closerange(low, high):
    time.sleep(0.3)
    really_close(low, high)
def addresses(family, host, port, flags=0):
    if host == "slow.example.org":
        if flags:
            raise module._socket.gaierror()
        end = time.monotonic() + 60
        while not os.path.exists({!r}) and time.monotonic() < end:
            time.sleep(0.01)
        host = "127.0.0.1"
    return really(family, host, port, flags)
os.closerange, module.addresses = closerange, addresses
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
        connect(slow.lport) as late,
    ):
        late.sendall(b"y")
        assert answers(quick)
        quick.shutdown(socket.SHUT_WR)
        assert read_all(quick) == b""
        back.close()
        with pytest.raises(ConnectionRefusedError):  # The process that asks has no part in it.
            connect(free)
        known.touch()
        assert late.recv(1) == b"y"


def test_a_name_that_takes_too_long(far: Far, connection: Any, tmp_path: Path) -> None:
    known = tmp_path / "known"
    far(SLOW.format(str(known)))
    with pytest.raises(TimeoutError) as caught:
        connect_sock(connection, 1, "slow.example.org", connect_timeout=0.1)
    assert caught.value.errno == errno.ETIMEDOUT
    known.touch()


# Each poll() tells of everything that the test's sockets have to do with.
SPURIOUS = """
module.Mux.really_serve = module.Mux.serve
def serve(mux, ready):
    who = mux.watched.items()
    told = [(fd, 1) for fd, who in who if type(who).__name__ in ("Stream", "Listener", "Lookup")]
    mux.really_serve(told + ready)
module.Mux.serve = serve
"""


def test_what_poll_tells_may_be_about_an_earlier_descriptor(
    far: Far, connection: Any, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    far(SLOW.format(str(known)) + SPURIOUS)
    with (
        serving(echo) as port,
        Tunnel(connection, 0, port, dhost="slow.example.org") as slow,
        Tunnel(connection, port, 0, reverse=True) as back,
        connect(slow.lport) as late,
    ):
        late.sendall(b"y")
        for end in (back.dport, back.dport):
            with connect(end) as sock:
                assert answers(sock)
        known.touch()
        assert late.recv(1) == b"y"


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


def test_we_have_no_more_descriptors(
    far: Far, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    far()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        serving(echo) as port,
        Tunnel(connection, 0, port) as forward,
        connect(forward.lport) as first,
        socket.socket() as second,
    ):
        mux = forward._mux
        assert mux is not None
        assert answers(first)
        second.settimeout(20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            second.connect(("127.0.0.1", int(forward.lport)))
            eventually(lambda: mux.waiting)
            assert answers(first)
            rounds = itertools.count()
            tick = mux.tick
            monkeypatch.setattr(mux, "tick", lambda: tick() if next(rounds) else None)
            start = time.monotonic()
            time.sleep(0.3)
            assert next(rounds) < 100 * (time.monotonic() - start)
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
        mux.post(lambda: mux.send(b"D", 99, b"x"))
        assert read_all(sock) == b""
        mux._server.join(20)
        assert mux.reason is not None
        assert "unknown connection" in mux.reason


def test_numbers_begin_again(far: Far, connection: Any) -> None:
    local = far()
    with serving(echo) as port, connect_sock(connection, port) as first:
        (mux,) = muxes_over(local)
        mux._last = FAR - 2
        with connect_sock(connection, port) as a, connect_sock(connection, port) as b:
            assert all(map(answers, [first, a, b]))
            assert {number for number, stream in mux.streams.items() if stream} == {1, FAR - 1, 0}
            with connect_sock(connection, port) as c:
                assert answers(c)


def test_it_is_text_for_any_system() -> None:
    for name in ("tunnel/both_mux", "tunnel/far_mux"):
        assert source(name).isascii()
    assert protocol.TYPE_CHECKING is False

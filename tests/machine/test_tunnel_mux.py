"""Tunnels without a remctld: a far side that is hostile, silent, slow, or short of descriptors."""

from __future__ import annotations

import concurrent.futures
import errno
import hashlib
import itertools
import os
import queue
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
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine.tunnel_servers import connect, echo, read_all, read_exactly, serving
from support.waiting import eventually, open_descriptors, thread_count

from remctl_toolkit.machine import MachineError, tunnel, tunnel_mux
from remctl_toolkit.machine._farside import mux as protocol
from remctl_toolkit.machine._farside.mux import FAR, HEADER, LIMIT, SIZE, WIDEST, WINDOW
from remctl_toolkit.machine._tunnel_address import Address, error_named
from remctl_toolkit.machine.farside import source
from remctl_toolkit.machine.tunnel import Tunnel, TunnelError, connect_sock
from remctl_toolkit.machine.tunnel_mux import FarListener, NearMux

pytestmark = pytest.mark.once

HOST = "far.example.org"
MEBIBYTE = 1 << 20


class Connection:
    """What tunnels want to know of a connection."""

    host = HOST
    far = SimpleNamespace(home="/")


def frame(kind: bytes, number: int, data: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(data)) + data


# -- A far side that says what the test wants -----------------------------------------------------


class Script:
    """In the place of a channel."""

    def __init__(self) -> None:
        self.said: queue.Queue[bytes] = queue.Queue()
        self.heard = b""
        self.stuck = threading.Event()
        self.closed = threading.Event()
        self.words = b""

    def read(self, size: int) -> bytes:
        return self.said.get()

    def read_stderr(self, size: int) -> bytes:
        return self.words

    def write(self, octets: bytes) -> None:
        if self.stuck.is_set():
            self.closed.wait()
            raise MachineError("closed")
        self.heard += octets

    def close(self) -> None:
        self.closed.set()
        self.said.put(b"")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(tunnel_mux, "Channel", lambda *_, **__: script)
    return script


class Situation:
    """A mux with a connection, number 1, and a listener, number 2, that the far side knows of."""

    def __init__(self, script: Script, connection: Any) -> None:
        self.mux = NearMux(connection)
        assert self.mux.enter()
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        self.connected = self.mux.connect(theirs, Address("localhost", 80), 5)
        self.listener = FarListener(Address("localhost", 0), [], 5)
        self.mux.listen_there(self.listener)
        eventually(lambda: script.heard.count(b"localhost") == 2)

    def end(self) -> None:
        self.mux.end()
        self.sock.close()


OPENED = frame(b"O", 1)
LISTENS = frame(b"P", 2, b"\0\1")
FULL_WINDOW = frame(b"D", 1, bytes(LIMIT)) * (WINDOW // LIMIT)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (b"Traceback (most recent call last):\n", "unknown kind|too long"),
        (frame(b"?", 1), "unknown kind"),
        (frame(b"C", 3, b"\0" * 10), "unknown kind"),  # It is not for the far side to ask.
        (frame(b"L", 3, b"\0" * 10), "unknown kind"),
        (HEADER.pack(b"D", 1, LIMIT + 1), "too long"),
        (HEADER.pack(b"D", 1, 2**32 - 1), "too long"),
        (frame(b"D", 3, b"x"), "unknown connection"),
        (frame(b"E", 0), "unknown connection"),
        (frame(b"W", FAR, SIZE.pack(1)), "unknown connection"),
        (OPENED + frame(b"D", 1), "beyond"),
        (FULL_WINDOW * 8, "beyond"),
        (OPENED + frame(b"E", 1) + frame(b"D", 1, b"x"), "beyond"),
        (frame(b"E", 1) * 2, "after the end"),
        (frame(b"E", 1, b"x"), "after the end"),
        (frame(b"W", 1, SIZE.pack(2 * WIDEST)), "too wide"),
        (frame(b"W", 1, b"\0"), "wrong length"),
        (frame(b"W", 1, b"\0" * 5), "wrong length"),
        (frame(b"X", 1, b"EIO") * 2, "unknown connection"),
        (frame(b"O", 7), "unknown connection"),
        (frame(b"O", 1, b"x"), "unknown connection"),
        (frame(b"P", 1, b"\0\1"), "unknown listener"),
        (frame(b"P", 2, b"\0"), "unknown listener"),
        (LISTENS * 2, "unknown listener"),
        (frame(b"U", 1, b"EIO"), "unknown listener"),
        (frame(b"U", 2), "unknown listener"),
        (LISTENS + frame(b"U", 2, b"EIO"), "unknown listener"),
        (frame(b"I", FAR, b"\0\0\0\1"), "unknown listener"),
        (frame(b"I", FAR, b"\0\0\2"), "unknown listener"),
        (frame(b"I", 5, b"\0\0\0\2"), "unknown listener"),
        (LISTENS + frame(b"I", FAR, b"\0\0\0\2") * 2, "unknown listener"),
    ],
)
def test_what_cannot_be_ends_it_all(script: Script, frames: bytes, reason: str) -> None:
    situation = Situation(script, Connection())
    script.said.put(frames)
    situation.mux._server.join(20)
    assert situation.mux.over
    with pytest.raises(
        TunnelError, match=f"tunnels to {HOST} are lost: the far side sent .*({reason})"
    ):
        raise situation.mux.lost()
    read_all(situation.sock)
    assert script.closed.is_set()
    assert situation.listener.listening.done()
    assert situation.connected.done()
    situation.end()


def test_too_many_connections(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_mux, "MOST", 10)
    situation = Situation(script, Connection())
    script.said.put(b"".join(frame(b"I", FAR + n, b"\0\0\0\2") for n in range(30)))
    situation.mux._server.join(20)
    assert situation.mux.reason == "the far side sent too many connections"
    situation.end()


KINDS = st.sampled_from([bytes([letter]) for letter in b"DWEXOPUIDWEX?"])
NUMBERS = st.sampled_from([1, 1, 2, FAR, FAR + 1, 3])
DATA = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"", SIZE.pack(1), SIZE.pack(2), b"\0\2", b"EIO", bytes(LIMIT)]),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    frames=st.lists(st.builds(frame, KINDS, NUMBERS, DATA), max_size=12),
    cut=st.integers(1, 50),
    tail=st.binary(max_size=20),
)
def test_whatever_comes_nothing_hangs_or_is_left(
    monkeypatch: pytest.MonkeyPatch, frames: list[bytes], cut: int, tail: bytes
) -> None:
    script = Script()
    monkeypatch.setattr(tunnel_mux, "Channel", lambda *_, **__: script)
    before = open_descriptors()
    situation = Situation(script, Connection())
    octets = b"".join(frames) + tail
    for place in range(0, len(octets), 1 << cut % 17):
        script.said.put(octets[place : place + (1 << cut % 17)])
    script.said.put(b"")
    situation.mux._server.join(20)
    assert situation.mux.over
    assert situation.mux.reason != "an error in the program"
    read_all(situation.sock)
    situation.end()
    assert open_descriptors() == before


def test_frames_come_in_any_pieces(script: Script) -> None:
    situation = Situation(script, Connection())
    for octet in OPENED + frame(b"D", 1, b"hello") + LISTENS:
        script.said.put(bytes([octet]))
    assert situation.connected.result(20) is None
    assert situation.listener.listening.result(20) == 1
    assert read_exactly(situation.sock, 5) == b"hello"
    situation.end()


def test_what_it_says_last_is_the_reason(script: Script) -> None:
    situation = Situation(script, Connection())
    script.words = b"Traceback:\n  something\nMemoryError\n"
    script.said.put(b"")
    with pytest.raises(TunnelError, match=f"the tunnels to {HOST} are lost: MemoryError"):
        situation.connected.result(20)
    situation.end()


def test_a_flood_waits_until_it_is_wanted(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_mux, "_FULL", 50_000)
    situation = Situation(script, Connection())
    begun, release = threading.Event(), threading.Event()

    def delay() -> None:
        begun.set()
        release.wait(20)

    situation.mux.post(delay)
    assert begun.wait(20)
    for _ in range(10):
        script.said.put(frame(b"W", 1, SIZE.pack(0)) * 1000)  # 13000 octets
    eventually(lambda: situation.mux._inbox_size >= 50_000)
    time.sleep(0.1)
    assert situation.mux._inbox_size < 2 * 50_000
    assert script.said.qsize() >= 5
    release.set()
    eventually(lambda: script.said.empty(), 20)
    situation.end()


def test_it_is_closed_though_nobody_takes_what_is_sent(
    script: Script, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "_ANSWERS", 0.2)
    before = thread_count()
    with Tunnel(connection, 0, 80) as forward:
        script.stuck.set()
        with connect(forward.lport) as sock:
            sock.sendall(b"x")
            eventually(lambda: forward._mux and not forward._mux.outgoing)
            forward.close()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
    eventually(lambda: thread_count() <= before)


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        (
            lambda connection: Tunnel(connection, 80, 0, reverse=True, connect_timeout=0.1),
            f"no answer whether it listens on localhost:0 of {HOST}",
        ),
        (
            lambda connection: connect_sock(connection, 80, connect_timeout=0.1),
            f"no answer from {HOST} about localhost:80",
        ),
    ],
)
def test_no_answer(
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[Connection], object],
    text: str,
) -> None:
    monkeypatch.setattr(tunnel, "_ANSWERS", 0.1)
    before = open_descriptors()
    with pytest.raises(TimeoutError, match=text):
        begin(Connection())
    for mux in list(tunnel_mux._living):
        mux.end()
    assert open_descriptors() == before


def test_errors_have_names(script: Script) -> None:
    for name, number in (
        (b"ECONNREFUSED", errno.ECONNREFUSED),
        (b"ENONE\n", errno.EIO),
        (b"", errno.EIO),
        (b"\xff", errno.EIO),
    ):
        assert error_named(name, "doing").errno == number


# -- A far side in a process of its own -----------------------------------------------------------


class Local:
    """A channel to a process of this host."""

    def __init__(self, before: str = "", *, limit: int | None = None) -> None:
        pieces = [f"payload = {source('mux')!r}", tunnel_mux._LOADER, before, source("mux_far")]

        def prepare() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", "\n".join([*pieces, "main()"])],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            preexec_fn=prepare,
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

    def start(before: str = "", **settings: Any) -> Local:
        local = Local(before, **settings)
        started.append(local)
        monkeypatch.setattr(tunnel_mux, "Channel", lambda *_, **__: local)
        return local

    yield start
    for mux in list(tunnel_mux._living):
        mux.end()
    for local in started:
        local.close()
        local.close_pipes()


@pytest.fixture
def connection() -> Connection:
    return Connection()


def answers(sock: socket.socket) -> bool:
    sock.sendall(b"x")
    return sock.recv(1) == b"x"


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

    far()
    with serving(pour) as port, connect_sock(connection, port) as sock:
        (mux,) = tunnel_mux._living
        (stream,) = mux.streams.values()
        assert stream is not None
        windows = []
        for _ in range(80):
            eventually(lambda: stream.granted == 0)  # There is always more to read.
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
        Tunnel(connection, 0, port, dhost="slow.example.org") as slow,
        Tunnel(connection, port, 0, reverse=True) as back,
        connect_sock(connection, port) as quick,
        connect(slow.lport) as late,
    ):
        late.sendall(b"y")
        assert answers(quick)
        quick.shutdown(socket.SHUT_WR)
        assert read_all(quick) == b""
        back.close()
        with pytest.raises(ConnectionRefusedError):  # The process that asks has no part in it.
            connect(back.dport)
        known.touch()
        assert late.recv(1) == b"y"


def test_a_name_that_takes_too_long(far: Far, connection: Any, tmp_path: Path) -> None:
    known = tmp_path / "known"
    far(SLOW.format(str(known)))
    with pytest.raises(TimeoutError) as caught:
        connect_sock(connection, 1, "slow.example.org", connect_timeout=0.1)
    assert caught.value.errno == errno.ETIMEDOUT
    known.touch()


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
    local = far(limit=24)
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
            time.sleep(0.3)
            assert next(rounds) < 30
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


def test_it_ends_with_its_input_or_output(far: Far, connection: Any) -> None:
    for stream in ("stdin", "stdout"):
        local = Local()
        getattr(local.process, stream).close()
        assert local.process.wait(20) == 0
        local.close_pipes()


def test_it_ends_when_we_send_what_cannot_be(far: Far, connection: Any) -> None:
    far()
    with serving(echo) as port, connect_sock(connection, port) as sock:
        (mux,) = tunnel_mux._living
        mux.post(lambda: mux.send(b"D", 99, b"x"))
        assert read_all(sock) == b""
        mux._server.join(20)
        assert mux.reason is not None
        assert "unknown connection" in mux.reason


def test_numbers_begin_again(far: Far, connection: Any) -> None:
    far()
    with serving(echo) as port, connect_sock(connection, port) as first:
        (mux,) = tunnel_mux._living
        mux._last = FAR - 2
        with connect_sock(connection, port) as a, connect_sock(connection, port) as b:
            assert all(map(answers, [first, a, b]))
            assert {number for number, stream in mux.streams.items() if stream} == {1, FAR - 1, 0}
            with connect_sock(connection, port) as c:
                assert answers(c)


def test_it_is_text_for_any_system() -> None:
    for name in ("mux", "mux_far"):
        assert source(name).isascii()
    assert protocol.TYPE_CHECKING is False

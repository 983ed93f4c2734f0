"""Tunnels to a far side that says what the test wants: it is hostile, or silent."""

from __future__ import annotations

import errno
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine.tunnel_servers import NoConnection, connect, muxes_over, read_all, read_exactly
from support.waiting import eventually, open_descriptors, thread_count

from remctl_toolkit.machine import MachineError
from remctl_toolkit.machine.tunnel import mux as tunnel_mux
from remctl_toolkit.machine.tunnel import tunnel
from remctl_toolkit.machine.tunnel.address import Address, error_named
from remctl_toolkit.machine.tunnel.both_mux import FAR, HEADER, LIMIT, SIZE, WIDEST, WINDOW
from remctl_toolkit.machine.tunnel.mux import FarListener, NearMux
from remctl_toolkit.machine.tunnel.tunnel import Tunnel, TunnelError, connect_sock

pytestmark = pytest.mark.once

HOST = NoConnection.host


def frame(kind: bytes, number: int, data: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(data)) + data


class Script:
    """In the place of a channel."""

    def __init__(self) -> None:
        self.said: queue.Queue[bytes] = queue.Queue()
        self.heard = b""
        self.stuck = threading.Event()  # Nothing is taken any more.
        self.waits = threading.Event()  # Somebody waits for that.
        self.closed = threading.Event()
        self.words = b""

    def read(self, size: int) -> bytes:
        return self.said.get()

    def read_stderr(self, size: int) -> bytes:
        return self.words

    def write(self, octets: bytes) -> None:
        if self.stuck.is_set():
            self.waits.set()
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
    situation = Situation(script, NoConnection())
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
    situation = Situation(script, NoConnection())
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
    situation = Situation(script, NoConnection())
    octets = b"".join(frames) + tail
    for place in range(0, len(octets), 1 << cut % 17):
        script.said.put(octets[place : place + (1 << cut % 17)])
    script.said.put(b"")
    situation.mux._server.join(20)
    assert situation.mux.over
    assert situation.mux.reason != "an error in the program"
    read_all(situation.sock)
    situation.end()
    eventually(lambda: open_descriptors() <= before)


def test_frames_come_in_any_pieces(script: Script) -> None:
    situation = Situation(script, NoConnection())
    for octet in OPENED + frame(b"D", 1, b"hello") + LISTENS:
        script.said.put(bytes([octet]))
    assert situation.connected.result(20) is None
    assert situation.listener.listening.result(20) == 1
    assert read_exactly(situation.sock, 5) == b"hello"
    situation.end()


def test_what_it_says_last_is_the_reason(script: Script) -> None:
    situation = Situation(script, NoConnection())
    script.words = b"Traceback:\n  something\nMemoryError\n"
    script.said.put(b"")
    with pytest.raises(TunnelError, match=f"the tunnels to {HOST} are lost: MemoryError"):
        situation.connected.result(20)
    situation.end()


def test_a_flood_waits_until_it_is_wanted(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_mux, "_FULL", 50_000)
    situation = Situation(script, NoConnection())
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
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "_ANSWERS", 0.2)
    before = thread_count()
    connection: Any = NoConnection()
    with Tunnel(connection, 0, 80) as forward:
        script.stuck.set()
        with connect(forward.lport) as sock:
            sock.sendall(b"x")
            assert script.waits.wait(20)
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
    begin: Callable[[NoConnection], object],
    text: str,
) -> None:
    monkeypatch.setattr(tunnel, "_ANSWERS", 0.1)
    before = open_descriptors()
    with pytest.raises(TimeoutError, match=text):
        begin(NoConnection())
    for mux in muxes_over(script):
        mux.end()
    eventually(lambda: open_descriptors() <= before)


def test_errors_have_names(script: Script) -> None:
    for name, number in (
        (b"ECONNREFUSED", errno.ECONNREFUSED),
        (b"ENONE\n", errno.EIO),
        (b"", errno.EIO),
        (b"\xff", errno.EIO),
    ):
        assert error_named(name, "doing").errno == number

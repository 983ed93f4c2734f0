"""Tunnels to a scripted server, which is hostile or silent."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine.tunnel_servers import (
    NoConnection,
    connect,
    muxes_over,
    read_all,
    read_exactly,
    serving,
)
from support.waiting import eventually, open_descriptors, thread_count

from remctl_toolkit.machine import MachineError
from remctl_toolkit.machine.tunnel import mux as tunnel_mux
from remctl_toolkit.machine.tunnel import tunnel
from remctl_toolkit.machine.tunnel.both_mux import (
    ADDRESS,
    ANY,
    LIMIT,
    WINDOW,
    ProtocolError,
    Stream,
    error_named,
)
from remctl_toolkit.machine.tunnel.both_mux import FIRST_FAR_ID as FAR
from remctl_toolkit.machine.tunnel.mux import FarListener, NearMux
from remctl_toolkit.machine.tunnel.tunnel import Tunnel, TunnelError, connect_sock
from remctl_toolkit.machine.wire.both_frames import frame

pytestmark = pytest.mark.once

HOST = NoConnection.host


class Script:
    """In the place of a channel."""

    def __init__(self) -> None:
        self.said: queue.Queue[bytes] = queue.Queue()
        self.heard = b""
        self.stuck = threading.Event()  # Nothing is taken any more.
        self.waits = threading.Event()  # Somebody waits for that.
        self.closed = threading.Event()
        self.may_close = threading.Event()
        self.may_close.set()
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
        self.may_close.wait()
        self.closed.set()
        self.said.put(b"")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(tunnel_mux, "Channel", lambda *_, **__: script)
    return script


def address(port: int) -> bytes:
    return ADDRESS.pack(ANY, port, 5000) + b"127.0.0.1"


class Situation:
    """A mux with connection 1 and listener 2, which the server knows."""

    def __init__(self, script: Script, connection: Any, target: int = 1) -> None:
        self.mux = mux = NearMux(connection)
        self.connected = mux.begin(mux.connect(address(80)))
        eventually(lambda: frame(b"C", 1, address(80)) in script.heard)
        self.listener = FarListener(mux, address(target))
        self.listening = mux.begin(self.listener.begin(address(0)))
        eventually(lambda: frame(b"L", 2, address(0)) in script.heard)

    def sock(self) -> socket.socket:
        sock = self.connected.result(20)
        sock.settimeout(20)
        return sock

    def end(self) -> None:
        self.mux.close()
        with contextlib.suppress(OSError, concurrent.futures.CancelledError):
            self.connected.result(20).close()


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


OPENED = frame(b"O", 1)
LISTENS = frame(b"O", 2, b"\0\1")
INCOMING = frame(b"I", FAR, number(2))
FULL_WINDOW = frame(b"D", 1, bytes(LIMIT)) * (WINDOW // LIMIT)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (b"Traceback (most recent call last):\n", "not begin a frame"),
        (frame(b"?", 1), "not begin a frame"),
        (frame(b"C", 3, b"\0" * 10), "not begin a frame"),  # Only the client may ask for that.
        (frame(b"L", 3, b"\0" * 10), "not begin a frame"),
        (frame(b"D", 1, bytes(LIMIT + 1)), "not begin a frame"),
        (b"D" + b"\0" * 4 + b"\xff" * 4, "not begin a frame"),
        (LISTENS + INCOMING * 2, "in use"),
        (OPENED + frame(b"D", 1), "unexpected data"),
        (FULL_WINDOW * 2, "unexpected data"),
        (OPENED + frame(b"E", 1) + frame(b"D", 1, b"x"), "unexpected data"),
        (frame(b"E", 1) * 2, "unexpected end of data"),
        (frame(b"E", 1, b"x"), "unexpected end of data"),
        (frame(b"W", 1, number(1)), "wrong size"),
        (frame(b"W", 1, b"\0"), "wrong size"),
        (frame(b"W", 1, b"\0" * 5), "wrong size"),
        (frame(b"O", 1, b"x"), "wrong length"),
        (frame(b"O", 2, b"\0"), "data for a listener"),
        (frame(b"D", 2, b"x"), "data for a listener"),
        (frame(b"I", FAR, number(1)), "unknown listener"),
        (frame(b"I", FAR, number(3)), "unknown listener"),
        (frame(b"I", FAR, b"\0\0\2"), "unknown listener"),
        (frame(b"I", 5, number(2)), "unknown listener"),
    ],
)
def test_what_cannot_be_ends_it_all(script: Script, frames: bytes, reason: str) -> None:
    situation = Situation(script, NoConnection())
    script.said.put(frames)
    situation.mux._thread.join(20)
    assert situation.mux.over
    with pytest.raises(
        TunnelError, match=f"tunnels to {HOST} were lost: the server sent .*({reason})"
    ):
        situation.mux.call(20, "", asyncio.sleep(0))
    assert script.closed.is_set()
    assert situation.listening.done()
    with contextlib.suppress(OSError, concurrent.futures.CancelledError):
        read_all(situation.sock())
    situation.end()


@pytest.mark.parametrize("letter", b"DWEXO")
@pytest.mark.parametrize("number", [3, 0, FAR, 1])
def test_what_is_sent_to_nobody_is_ignored(script: Script, letter: int, number: int) -> None:
    situation = Situation(script, NoConnection())
    over = frame(b"X", 1, b"EIO")
    script.said.put(over + frame(bytes([letter]), number, b"x" * 4) + LISTENS)
    with pytest.raises(OSError, match="Input/output error"):
        situation.sock()
    assert situation.listening.result(20) == 1
    situation.end()


def test_too_many_connections(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_mux, "MAX_STREAMS", 10)
    with serving(read_all) as port:
        situation = Situation(script, NoConnection(), port)
        script.said.put(b"".join(frame(b"I", FAR + n, number(2)) for n in range(30)))
        eventually(lambda: frame(b"X", FAR + 29, b"ECONNREFUSED") in script.heard)
        assert script.heard.count(b"ECONNREFUSED") == 22
        assert frame(b"X", FAR + 7, b"ECONNREFUSED") not in script.heard
        situation.end()


KINDS = st.sampled_from([bytes([letter]) for letter in b"DWEXOIDWEX?"])
NUMBERS = st.sampled_from([1, 1, 2, FAR, FAR + 1, 3])
DATA = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"", number(0), number(2), b"\0\2", b"EIO", bytes(LIMIT)]),
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
    situation.mux._thread.join(20)
    assert situation.mux.over
    assert situation.mux.reason != "an internal error"
    with contextlib.suppress(OSError, concurrent.futures.CancelledError):
        read_all(situation.sock())
    situation.end()
    eventually(lambda: open_descriptors() <= before)


def test_frames_come_in_any_pieces(script: Script) -> None:
    situation = Situation(script, NoConnection())
    for octet in OPENED + frame(b"D", 1, b"hello") + LISTENS:
        script.said.put(bytes([octet]))
    assert situation.listening.result(20) == 1
    assert read_exactly(situation.sock(), 5) == b"hello"
    situation.end()


def test_what_it_says_last_is_the_reason(script: Script) -> None:
    situation = Situation(script, NoConnection())
    script.words = b"Traceback:\n  something\nMemoryError\n"
    script.said.put(b"")
    situation.mux._thread.join(20)
    with pytest.raises(TunnelError, match=f"tunnels to {HOST} were lost: MemoryError"):
        situation.mux.call(20, "", asyncio.sleep(0))
    situation.end()


def test_data_before_a_connection_costs_no_more_than_its_length(script: Script) -> None:
    """The square of it would take minutes."""
    situation = Situation(script, NoConnection())
    stream = Stream(situation.mux, 5, None)
    for _ in range(WINDOW):
        stream.on_frame(b"D", b"x")
    with pytest.raises(ProtocolError, match="unexpected data"):
        stream.on_frame(b"D", b"x")
    assert stream.early == b"x" * WINDOW
    situation.end()


def test_a_flood_waits_until_it_is_wanted(script: Script) -> None:
    situation = Situation(script, NoConnection())
    begun, release = threading.Event(), threading.Event()

    def delay() -> None:
        begun.set()
        release.wait(20)

    situation.mux.loop.call_soon_threadsafe(delay)
    assert begun.wait(20)
    for _ in range(20):
        script.said.put(frame(b"W", 1, number(0)))
    eventually(lambda: script.said.qsize() < 20)
    assert script.said.qsize() >= 20 - 5  # Four wait for the loop, and the reader holds one.
    release.set()
    eventually(script.said.empty)
    situation.end()


def test_it_is_closed_though_nobody_takes_what_is_sent(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "REPLY_TIMEOUT", 0.2)
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


def test_a_host_that_hangs_does_not_keep_us(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tunnel.REPLY_TIMEOUT + tunnel_mux.CLOSE_TIMEOUT <= 10  # seconds, as documented
    monkeypatch.setattr(tunnel, "REPLY_TIMEOUT", 0.2)
    monkeypatch.setattr(tunnel_mux, "CLOSE_TIMEOUT", 0.2)
    before = thread_count()
    connection: Any = NoConnection()
    forward = Tunnel(connection, 0, 80)
    script.stuck.set()
    script.may_close.clear()
    with connect(forward.lport):
        assert script.waits.wait(20)
    forward.close()
    assert forward.closed
    assert not script.closed.is_set()
    script.may_close.set()
    eventually(lambda: thread_count() <= before)


def test_the_way_is_lost_while_it_is_closed(script: Script) -> None:
    def opened(number: int) -> Tunnel:
        opening = pool.submit(Tunnel, connection, 80, 0, reverse=True)
        eventually(lambda: script.heard.count(b"L\0\0\0") == number)
        script.said.put(frame(b"O", number, b"\0\1"))
        return opening.result(20)

    connection: Any = NoConnection()
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        opened(1) as one,
        opened(2) as other,
    ):
        closing = pool.submit(one.close)
        eventually(lambda: frame(b"X", 1) in script.heard)
        script.said.put(b"")
        closing.result(20)
        assert one.closed
        assert other.closed


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        (
            lambda connection: Tunnel(connection, 80, 0, reverse=True, connect_timeout=0.1),
            f"cannot listen on localhost:0 of {HOST}: .*timed out",
        ),
        (
            lambda connection: connect_sock(connection, 80, connect_timeout=0.1),
            f"cannot connect to localhost:80 from {HOST}: .*timed out",
        ),
    ],
)
def test_no_answer(
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[Any], object],
    text: str,
) -> None:
    monkeypatch.setattr(tunnel, "REPLY_TIMEOUT", 0.1)
    before = open_descriptors()
    connection = NoConnection()
    with pytest.raises(TimeoutError, match=text):
        begin(connection)
    for mux in muxes_over(script):
        mux.close()
    eventually(lambda: open_descriptors() <= before)


def test_errors_have_names(script: Script) -> None:
    for name, number in (
        (b"ECONNREFUSED", errno.ECONNREFUSED),
        (b"ENONE\n", errno.EIO),
        (b"", errno.EIO),
        (b"\xff", errno.EIO),
    ):
        assert error_named(name).errno == number

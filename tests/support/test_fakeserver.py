"""Records, errors and clean-up of the fake server, with raw clients."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gssapi
import pytest

from support import wire
from support.fakeserver import ClientQuit, FakeServer, Peer, serve
from support.waiting import eventually, nothing_left_behind
from support.wire import Flag, Message, ProtocolError

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once


def connect(server: FakeServer) -> socket.socket:
    """Make a TCP connection and say nothing."""
    return socket.create_connection(server.address, 10)


@pytest.mark.parametrize("reading", [True, False])
def test_stall_lasts_until_the_client_goes(remctl_realm: Realm, reading: bool) -> None:
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.stall(reading=reading)
        ended.set()

    with FakeServer(remctl_realm.keytab, script) as server:
        with connect(server):
            assert not ended.wait(0.05)
        assert ended.wait(10)
    assert server.errors == []


@pytest.mark.parametrize(
    "hello",
    [
        wire.pack_token(Flag.DATA, b""),
        wire.pack_token(Flag.NOOP | Flag.CONTEXT_NEXT, b""),
        wire.pack_token(Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL, b"x"),
        b"\x51\xff\xff\xff\xff",
    ],
)
def test_bad_hello_is_an_error(remctl_realm: Realm, hello: bytes) -> None:
    with FakeServer(remctl_realm.keytab) as server, connect(server) as client:
        client.sendall(hello)
        assert client.recv(1) == b""
    assert [type(error) for error in server.errors] == [ProtocolError]


def test_client_that_goes_away_is_no_error(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server:
        for _ in range(3):
            connect(server).close()
        eventually(lambda: server.connections == 3)
    assert server.errors == []


def test_exception_of_a_script_is_kept(remctl_realm: Realm) -> None:
    def script(peer: Peer) -> None:
        pytest.fail("on purpose")

    with FakeServer(remctl_realm.keytab, script) as server, connect(server) as client:
        assert client.recv(1) == b""
    assert [str(error) for error in server.errors] == ["on purpose"]


def test_steps_before_accept_are_an_error(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, Peer.send_noop) as server, connect(server) as client:
        assert client.recv(1) == b""
    assert [str(error) for error in server.errors] == ["the script needs accept() first"]


def test_silent_client_is_an_error_after_the_timeout(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, timeout=0.05) as server, connect(server) as client:
        assert client.recv(1) == b""
    assert [type(error) for error in server.errors] == [TimeoutError]


def test_bad_ticket_is_an_error(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, connect(server) as client:
        client.sendall(wire.pack_token(Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL, b""))
        client.sendall(wire.pack_token(Flag.CONTEXT | Flag.PROTOCOL, b"no ticket"))
        client.recv(1)
        eventually(lambda: server.errors)
    assert isinstance(server.errors[0], gssapi.raw.GSSError)


def test_missing_keytab_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(gssapi.raw.GSSError):
        FakeServer(tmp_path / "missing.keytab")


def test_nothing_is_left_behind(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab):
        pass  # the first use may load libraries that keep something
    with nothing_left_behind():
        with FakeServer(remctl_realm.keytab) as server:
            clients = [connect(server) for _ in range(5)]
            eventually(lambda: server.connections == 5)
        for client in clients:
            client.close()
        server.stop()


class Stuck:
    """A script that stop() cannot wake; a context manager, which ends it."""

    def __init__(self) -> None:
        self._begun, self._gate = threading.Event(), threading.Event()
        self._thread = threading.current_thread()

    def __call__(self, peer: Peer) -> None:
        self._thread = threading.current_thread()
        self._begun.set()
        self._gate.wait(60)

    def await_it(self) -> None:
        assert self._begun.wait(30)

    def __enter__(self) -> Stuck:
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.set()
        self._thread.join(30)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    monkeypatch.setattr("support.loopback.STOP_LIMIT", 0.05)
    with Stuck() as script:
        yield script


def test_thread_that_will_not_end_is_told(remctl_realm: Realm, stuck: Stuck) -> None:
    with FakeServer(remctl_realm.keytab, stuck) as server, connect(server):
        stuck.await_it()
        with pytest.raises(RuntimeError, match=r"did not end: .*FakeServer-1$"):
            server.stop()


def test_failure_of_the_body_is_not_hidden(remctl_realm: Realm, stuck: Stuck) -> None:
    server = FakeServer(remctl_realm.keytab, stuck)

    def fail() -> None:
        with server, connect(server):
            stuck.await_it()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_ipv6(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, Peer.close, host="::1") as server:
        assert server.address[0] == "::1"
        with connect(server) as client:
            assert client.recv(1) == b""


# Clients that send exactly what a test wants


class RawClient:
    """A client that sends exactly what a test wants; a context manager."""

    def __init__(self, realm: Realm, port: int, *, protocol: int = 3) -> None:
        self.flag = Flag.PROTOCOL if protocol > 1 else Flag(0)
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.context = gssapi.SecurityContext(
            name=gssapi.Name(realm.host_principal, gssapi.NameType.kerberos_principal),
            usage="initiate",
            flags=gssapi.RequirementFlag.mutual_authentication
            | gssapi.RequirementFlag.confidentiality
            | gssapi.RequirementFlag.integrity,
        )

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def open(self) -> None:
        self.send(Flag.NOOP | Flag.CONTEXT_NEXT | self.flag, b"")
        token = self.context.step()
        while token:
            self.send(Flag.CONTEXT | self.flag, token)
            token = None if self.context.complete else self.context.step(self.receive()[1])

    def send(self, flags: int, payload: bytes) -> None:
        self.socket.sendall(wire.pack_token(flags, payload))

    def send_message(self, message: bytes) -> None:
        self.send(Flag.DATA | self.flag, self.context.wrap(message, True).message)

    def receive(self) -> tuple[int, bytes]:
        flags, length = wire.HEADER.unpack(self._receive(wire.HEADER.size))
        return flags, self._receive(length)

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data)) or pytest.fail("end of file")
        return data

    def read_message(self) -> bytes:
        return self.context.unwrap(self.receive()[1]).message

    def at_end(self) -> bool:
        return self.socket.recv(1) == b""


def command_message(status: int, data: bytes, *, keepalive: bool = True) -> bytes:
    return bytes([2, Message.COMMAND, keepalive, status]) + data


COMMAND_DATA = struct.pack(">II3sI4s", 2, 3, b"cmd", 4, b"\x00sub")


def test_command_cut_anywhere(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, RawClient(remctl_realm, server.port) as client:
        client.open()
        client.send_message(command_message(1, COMMAND_DATA[:2]))
        client.send_message(command_message(2, COMMAND_DATA[2:9]))
        client.send_message(command_message(3, COMMAND_DATA[9:], keepalive=False))
        assert client.read_message() == wire.pack_output(b"cmd \x00sub\n")
        assert client.read_message() == wire.pack_status(0)
        assert client.at_end()  # no keep-alive was asked for
    assert server.commands == [[b"cmd", b"\x00sub"]]
    assert server.errors == []


def test_quit_within_a_command_discards_it(remctl_realm: Realm) -> None:
    seen = []

    def script(peer: Peer) -> None:
        peer.accept()
        try:
            peer.read_command()
        except ClientQuit as error:
            seen.append(error)

    with (
        FakeServer(remctl_realm.keytab, script) as server,
        RawClient(remctl_realm, server.port) as client,
    ):
        client.open()
        client.send_message(command_message(1, COMMAND_DATA[:9]))
        client.send_message(bytes([2, Message.QUIT]))
        assert client.at_end()
    assert len(seen) == 1
    assert server.commands == []
    assert server.errors == []


@pytest.mark.parametrize(
    "messages",
    [
        [command_message(2, COMMAND_DATA)],
        [command_message(3, COMMAND_DATA)],
        [command_message(4, COMMAND_DATA)],
        [command_message(1, COMMAND_DATA), command_message(0, COMMAND_DATA)],
        [command_message(1, COMMAND_DATA), wire.pack_noop()],
        [command_message(0, COMMAND_DATA[:-1])],
        [command_message(0, COMMAND_DATA + b"x")],
        [command_message(0, COMMAND_DATA[:9])],
        [b"\x02"],
    ],
)
def test_invalid_command_is_an_error(remctl_realm: Realm, messages: list[bytes]) -> None:
    with FakeServer(remctl_realm.keytab) as server, RawClient(remctl_realm, server.port) as client:
        client.open()
        for message in messages:
            client.send_message(message)
        assert client.at_end()
    assert [type(error) for error in server.errors] == [ProtocolError]
    assert server.commands == []


def test_message_of_a_higher_protocol(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab) as server, RawClient(remctl_realm, server.port) as client:
        client.open()
        client.send_message(bytes([4, Message.NOOP]))
        assert client.read_message() == wire.pack_version(3)
        client.send_message(bytes([2, 99]))
        assert client.read_message()[1] == Message.ERROR
        client.send_message(wire.pack_noop())
        assert client.read_message() == wire.pack_noop()


def test_first_reply_without_the_protocol_flag_means_protocol_1(remctl_realm: Realm) -> None:
    with (
        FakeServer(remctl_realm.keytab, serve(1)) as server,
        RawClient(remctl_realm, server.port) as client,
    ):
        client.send(Flag.NOOP | Flag.CONTEXT_NEXT | Flag.PROTOCOL, b"")
        token = client.context.step()
        assert token
        client.send(Flag.CONTEXT | Flag.PROTOCOL, token)
        assert client.receive()[0] == Flag.CONTEXT

"""Servers of each protocol version: what protocol 1 and 2 cannot do, and tokens of every size."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import _remctl
import pytest
from support import wire
from support.fakeserver import Command, FakeServer, Peer, Refusal, Result, in_turn, serve
from support.sessions import connect, shrink_receive_buffer
from support.wire import Message

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

BINARY = bytes(range(256)) * 4


def answer(command: Command) -> Result:
    """A few commands that behave the same whatever the protocol."""
    match command:
        case [b"status", number]:
            return b"", b"", int(number)
        case [b"size", number]:
            return bytes(int(number)), b"", 0
        case [b"streams", *_]:
            return b"out\n", b"err\n", 0
        case [b"refuse", *_]:
            raise Refusal(wire.Error.ACCESS, "Access denied")
    return b" ".join(command), b"", 0


@pytest.fixture(params=[1, 2, 3])
def server(remctl_realm: Realm, request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """A server of each protocol."""
    with FakeServer(remctl_realm.keytab, serve(handler=answer), protocol=request.param) as server:
        yield server
    assert server.errors == []


@pytest.fixture
def old_server(remctl_realm: Realm) -> Iterator[FakeServer]:
    """A server of protocol 1."""
    with FakeServer(remctl_realm.keytab, serve(handler=answer), protocol=1) as server:
        yield server
    assert server.errors == []


# All of them


def test_commands_one_after_the_other(server: FakeServer) -> None:
    with connect(server) as session:
        for number in range(3):
            assert session.run(["echo", str(number)]).stdout == b"echo %d" % number
            assert session.output().type == "done"
    assert server.commands == [[b"echo", b"%d" % number] for number in range(3)]
    assert server.connections == (3 if server.protocol == 1 else 1)


@pytest.mark.parametrize("status", [0, 1, 127, 128, 200, 255])
def test_statuses(server: FakeServer, status: int) -> None:
    with connect(server) as session:
        assert session.run(["status", status]) == remctl.RemctlSimpleResult(None, None, status)


def test_output_and_arguments_are_octets(server: FakeServer) -> None:
    with connect(server) as session:
        assert session.run(["echo", "x", BINARY, b"\0"]).stdout == b"echo x " + BINARY + b" \0"


def test_the_simple_call(server: FakeServer) -> None:
    result = remctl.remctl("localhost", server.port, command=["echo", "x"], timeout=20)
    assert result == remctl.RemctlSimpleResult(b"echo x", None, 0)
    low = _remctl.remctl("localhost", server.port, None, [b"echo", b"x"])
    assert low == (None, b"echo x", None, 0)


def test_tokens_end_with_the_status(server: FakeServer) -> None:
    with connect(server) as session:
        tokens = list(session.stream(["streams", "x"]))
        assert tokens[-1] == ("status", None, None, 0, None)
        if server.protocol == 1:  # It has but one stream, and one token for all.
            assert tokens[:-1] == [("output", b"out\nerr\n", 1, None, None)]
        else:
            assert [token.output for token in tokens[:-1]] == [b"out\n", b"err\n"]
            assert [token.stream for token in tokens[:-1]] == [1, 2]


def test_a_refusal(server: FakeServer) -> None:
    with connect(server) as session:
        if server.protocol == 1:  # It has no errors: the server says it as output.
            assert session.run(["refuse", "x"]).stdout == b"Access denied\n"
        else:
            with pytest.raises(remctl.RemctlServerError) as caught:
                session.run(["refuse", "x"])
            assert str(caught.value) == "Access denied"
        assert session.run(["echo", "x"]).stdout == b"echo x"


def test_noop_is_for_protocol_3_and_does_no_harm_elsewhere(server: FakeServer) -> None:
    with connect(server) as session:
        for _ in range(2):
            assert session.noop() is (server.protocol == 3)
        assert session.run(["echo", "x"]).stdout == b"echo x"
        assert session.noop() is (server.protocol == 3), "also after a command"
        assert session.run(["echo", "y"]).stdout == b"echo y"
    asked = server.messages.count(Message.NOOP)
    assert asked == (0 if server.protocol == 1 else 3)
    assert server.connections == (2 if server.protocol == 1 else 1)


@pytest.mark.parametrize("size", [1, wire.MAX_OUTPUT_V1 - 1, wire.MAX_OUTPUT_V1])
def test_output_as_large_as_a_token_can_be(server: FakeServer, size: int) -> None:
    with connect(server) as session:
        assert session.run(["size", size]).stdout == bytes(size)


def test_a_large_command(server: FakeServer) -> None:
    size = 60_000 if server.protocol == 1 else 1_000_000  # Protocol 1 has one token for it.
    data = BINARY * (size // len(BINARY))
    with connect(server) as session:
        session.run(["status", "0"])
        session.run([b"swallow", b"x"], input=data)
    assert server.commands[-1] == [b"swallow", b"x", data]


def test_noop_fails_where_the_answer_makes_no_sense(remctl_realm: Realm) -> None:
    def answer_with_status(peer: Peer) -> None:
        peer.accept()
        peer.read_message()
        peer.send_status(0)
        peer.stall()

    script = in_turn(answer_with_status, serve())
    with FakeServer(remctl_realm.keytab, script) as server, connect(server) as session:
        with pytest.raises(remctl.RemctlAnswerError, match=r"^unexpected message type 4 "):
            session.noop()
        assert session.run(["echo"]).stdout == b"echo\n"


def test_noop_fails_where_the_server_goes_away(remctl_realm: Realm) -> None:
    def hang_up(peer: Peer) -> None:
        peer.accept()
        peer.read_message()

    with (
        FakeServer(remctl_realm.keytab, hang_up) as server,
        connect(server) as session,
        pytest.raises(remctl.RemctlDisconnectedError),
    ):
        session.noop()


@pytest.mark.parametrize("highest", [2, 3])
def test_a_server_may_answer_noop_with_its_version(remctl_realm: Realm, highest: int) -> None:
    def answer_with_version(peer: Peer) -> None:
        peer.accept()
        peer.read_message()
        peer.send_version(highest)
        peer.read_command()
        peer.send_status(3)

    with FakeServer(remctl_realm.keytab, answer_with_version) as server:
        with connect(server) as session:
            assert session.noop() is False
            assert session.run(["test"]).status == 3
        assert server.connections == 1


# Protocol 1


def test_protocol_1_opens_again_for_each_command(old_server: FakeServer) -> None:
    with connect(old_server) as session:
        for number in range(3):
            session.command(["echo", str(number)])
            assert session.output() == ("output", b"echo %d" % number, 1, None, None)
            assert session.output() == ("status", None, None, 0, None)
            assert session.output() == ("done", None, None, None, None)
    assert old_server.connections == 3


def test_protocol_1_opens_again_with_the_timeout_and_the_principal(
    remctl_realm: Realm,
) -> None:
    script = in_turn(serve(), lambda peer: peer.stall())
    with FakeServer(remctl_realm.keytab, script, protocol=1) as server:
        principal = remctl_realm.host_principal
        with remctl.Remctl("127.0.0.1", server.port, principal, timeout=20) as session:
            assert session.run(["first"]).stdout == b"first\n"
            session.set_timeout(0.1)
            with pytest.raises(remctl.RemctlTimeoutError):
                session.run(["second"])


def test_protocol_1_says_when_it_cannot_open_again(old_server: FakeServer) -> None:
    with connect(old_server) as session:
        session.run(["echo", "x"])
        old_server.stop()
        with socket.socket() as keeper:  # Nobody else is given the port meanwhile.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind(old_server.address)
            with pytest.raises(remctl.RemctlConnectError):
                session.run(["echo", "y"])
        assert session.opened


def test_protocol_1_closes_in_the_middle(remctl_realm: Realm) -> None:
    def vanish(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.close()

    with FakeServer(remctl_realm.keytab, vanish, protocol=1) as server:
        with connect(server) as session, pytest.raises(remctl.RemctlDisconnectedError):
            session.run(["echo", "x"])
        assert server.commands == [[b"echo", b"x"]]


@pytest.mark.parametrize(
    "message",
    [b"\0\0\0\0", wire.NUMBER.pack(0) + wire.NUMBER.pack(9) + b"abc", b""],
    ids=["cut", "length", "empty"],
)
def test_protocol_1_answers_that_make_no_sense(remctl_realm: Realm, message: bytes) -> None:
    def babble(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_message(message)

    with (
        FakeServer(remctl_realm.keytab, babble, protocol=1) as server,
        connect(server) as session,
        pytest.raises(remctl.RemctlAnswerError, match="malformed result token"),
    ):
        session.run(["echo", "x"])


def test_protocol_1_needs_the_servers_mic(remctl_realm: Realm) -> None:
    def sign_something_else(peer: Peer) -> None:
        peer.accept()
        peer.read_message()
        peer.send_mic(b"not what was sent")
        peer.stall()

    with (
        FakeServer(remctl_realm.keytab, sign_something_else, protocol=1) as server,
        connect(server) as session,
        pytest.raises(remctl.RemctlProtocolError),
    ):
        session.run(["echo", "x"])


# Tokens larger than what a socket holds


def next_token(handle: _remctl.Handle) -> tuple[Any, ...]:
    token = _remctl.remctl_output(handle)
    assert token, _remctl.remctl_error(handle)
    return token


def test_a_token_that_the_receive_buffer_does_not_hold(remctl_realm: Realm) -> None:
    with FakeServer(remctl_realm.keytab, serve(handler=answer)) as server:
        handle = _remctl.remctl_new()
        assert _remctl.remctl_set_timeout(handle, 20)
        assert _remctl.remctl_open(handle, "localhost", server.port)
        shrink_receive_buffer(handle.fd)
        size = wire.MAX_OUTPUT
        for _ in range(2):
            assert _remctl.remctl_commandv(handle, [b"size", b"%d" % size])
            assert next_token(handle)[1] == bytes(size)
            assert next_token(handle)[3] == 0
        assert _remctl.remctl_noop(handle)
        _remctl.remctl_close(handle)


def test_output_in_very_many_small_tokens(remctl_realm: Realm) -> None:
    def dribble(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        for number in range(2000):
            peer.send_output(b"%d " % number, 1 + number % 2)
        peer.send_status(0)

    with FakeServer(remctl_realm.keytab, dribble) as server, connect(server) as session:
        result = session.run(["dribble"])
    assert result.stdout == b"".join(b"%d " % number for number in range(0, 2000, 2))
    assert result.stderr == b"".join(b"%d " % number for number in range(1, 2000, 2))

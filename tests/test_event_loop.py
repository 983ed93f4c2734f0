"""Sessions in an event loop: the descriptor, and the number of octets that have to arrive."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from support import wire
from support.fakeserver import FakeServer, Peer, serve
from support.sessions import all_tokens, await_data, connect, shrink_receive_buffer
from support.waiting import eventually

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

LIMIT = 30.0  # seconds after which a wait has failed


@contextlib.contextmanager
def select_readable(session: remctl.Remctl) -> Iterator[Callable[[float], bool]]:
    """Functions that tell whether a session becomes readable within some seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(session, selectors.EVENT_READ)
        yield lambda seconds: bool(selector.select(seconds))


def test_an_event_loop_can_wait_for_output(remctl_server: RemctldServer) -> None:
    with connect(remctl_server) as session, selectors.DefaultSelector() as selector:
        session.command(["test", "echo", "hello"])
        selector.register(session, selectors.EVENT_READ)
        assert [key.fd for key, _ in selector.select(LIMIT)] == [session.fileno()]
        token = session.output()
        assert token.output == b"hello\n"
        assert selector.select(LIMIT), "what follows is seen, too"
        assert all_tokens(session)[-1].status == 0


def test_missing_tells_whether_output_would_wait(remctl_realm: Realm) -> None:
    go_on = [threading.Event() for _ in range(4)]

    def in_pieces(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        output = wire.pack_output(b"hello")
        token = wire.pack_token(wire.Flag.DATA | wire.Flag.PROTOCOL, peer.wrap(output))
        pieces = (token[:3], token[3:10], token[10:])
        for event, piece in zip(go_on[:3], pieces, strict=True):
            event.wait(LIMIT)
            peer.send_raw(piece)
        go_on[3].wait(LIMIT)
        sizes.append(len(token))

    sizes: list[int] = []
    with FakeServer(remctl_realm.keytab, in_pieces) as server, connect(server) as session:
        assert session.missing() == 0, "no command is running"
        session.command(["test"])
        assert session.missing() == 5, "a header"
        go_on[0].set()
        eventually(lambda: session.missing() == 2)
        go_on[1].set()
        eventually(lambda: session.missing() > 2)
        rest = session.missing()
        with select_readable(session) as is_readable:
            assert not is_readable(0), "what is there is not enough"
            go_on[2].set()
            assert is_readable(LIMIT)
        assert session.missing() == 0
        assert session.output().output == b"hello"
        assert session.missing() == 5
        go_on[3].set()
        eventually(lambda: session.missing() == 0)
        with pytest.raises(remctl.RemctlDisconnectedError):
            session.output()
        assert session.missing() == 0, "output() says at once that the connection is lost"
        session.close()
        with pytest.raises(remctl.RemctlNotOpenedError):
            session.missing()
    assert sizes == [10 + rest]


def test_missing_leaves_a_token_that_is_too_large_for_the_buffer_to_output(
    remctl_realm: Realm,
) -> None:
    large = bytes(60_000)

    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        return large, b"", 0

    with (
        FakeServer(remctl_realm.keytab, serve(handler=answer)) as server,
        connect(server) as session,
    ):
        shrink_receive_buffer(session)
        session.command(["test"])
        eventually(lambda: session.missing() == 0)
        assert b"".join(token.output or b"" for token in all_tokens(session)) == large


def test_an_event_loop_sees_a_small_token_after_one_that_came_in_pieces(
    remctl_realm: Realm,
) -> None:
    sessions: list[remctl.Remctl] = []

    def in_pieces(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        output = wire.pack_output(bytes(20_000))
        token = wire.pack_token(wire.Flag.DATA | wire.Flag.PROTOCOL, peer.wrap(output))
        peer.send_raw(token[:100])
        with socket.socket(fileno=os.dup(sessions[0].fileno())) as twin:
            eventually(lambda: twin.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) > 1)
        peer.send_raw(token[100:])
        peer.send_status(0)
        peer.stall()

    with FakeServer(remctl_realm.keytab, in_pieces) as server, connect(server) as session:
        sessions.append(session)
        session.command(["test"])
        assert session.output().output == bytes(20_000)
        await_data(session)
        assert session.output().status == 0
    assert server.errors == []

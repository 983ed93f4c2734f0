"""A server that does not read: no write of the client may block for ever, or kill the process.

The test fills the client's socket through its descriptor, so that the next octet blocks.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from support import wire
from support.fakeserver import FakeServer, Peer, in_turn, serve
from support.subprocesses import in_child
from support.wire import Flag

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

LIMIT = 20.0  # seconds after which the server gives up, and a waiting client has failed
SHORT = 0.3  # timeout in seconds if the server does not read
BUFFER = 65536  # size of each socket's buffers in octets; the kernel would grow unlimited ones
COMMAND = ["some", "command"]
ASKING = Flag.DATA | Flag.SEND_MIC  # makes libremctl write a MIC


def fill(session: remctl.Remctl) -> None:
    """Write until the socket accepts nothing more, even a moment later."""
    taken = 1
    with socket.socket(fileno=os.dup(session.fileno())) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        poller = select.poll()
        poller.register(ours, select.POLLOUT)
        while taken:
            taken = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    taken += ours.send(bytes(65536), socket.MSG_DONTWAIT)
            poller.poll(300)


def ask_for_a_mic(peer: Peer) -> None:
    peer.send_message(wire.pack_output(b"x"), flags=ASKING)


def answer_unread(peer: Peer) -> None:
    """Answer a command that has arrived, without reading it."""
    poller = select.poll()
    poller.register(peer.connection, select.POLLIN)
    assert poller.poll(LIMIT * 1000)
    peer.send_status(0)


def deaf(step: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """Return a server script that reads nothing after the opening, and takes a step."""

    def script(peer: Peer) -> None:
        peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        peer.accept()
        step(peer)
        peer.stall(reading=False, limit=LIMIT)

    return script


@pytest.mark.parametrize("version", [2, 3])
def test_answer_that_the_server_asks_for_and_does_not_read(
    remctl_realm: Realm, version: int
) -> None:
    """libremctl writes a MIC before it checks that only protocol 1 has one."""
    go = threading.Event()

    def ask_when_told(peer: Peer) -> None:
        go.wait(LIMIT)
        ask_for_a_mic(peer)

    script = in_turn(deaf(ask_when_told), serve())
    with (
        FakeServer(remctl_realm.keytab, script, protocol=version) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        session.command(COMMAND)
        fill(session)
        session.set_timeout(SHORT)
        go.set()
        with pytest.raises(remctl.RemctlTimeoutError):
            session.output()
        session.set_timeout(LIMIT)
        assert session.run(COMMAND).stdout == b"some command\n"


def test_small_command_that_the_server_does_not_read(remctl_realm: Realm) -> None:
    """It answered the previous command without reading it, so the socket may be full."""
    script = in_turn(deaf(answer_unread), serve())
    with (
        FakeServer(remctl_realm.keytab, script) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        assert session.run(COMMAND).status == 0
        fill(session)
        session.set_timeout(SHORT)
        with pytest.raises(remctl.RemctlTimeoutError, match=r"^error sending token: timed out$"):
            session.run(COMMAND)
        session.set_timeout(LIMIT)
        assert session.run(COMMAND).stdout == b"some command\n"


def ask_and_go_away(peer: Peer) -> None:
    peer.accept()
    peer.read_message()
    ask_for_a_mic(peer)
    peer.connection.shutdown(socket.SHUT_WR)  # Only a reset after the end is a broken pipe.
    peer.reset()


def answer_who_is_gone() -> None:
    """Read a token that requires an answer from a closed peer, with the default SIGPIPE."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with (
        FakeServer(os.environ["KRB5_KTNAME"], ask_and_go_away) as server,
        remctl.Remctl("localhost", server.port, timeout=LIMIT) as session,
    ):
        session.command(COMMAND)
        poller = select.poll()
        poller.register(session.fileno(), 0)  # Wait only for the reset.
        assert poller.poll(LIMIT * 1000)
        with pytest.raises(remctl.RemctlProtocolError):
            session.output()
    assert not signal.sigpending()


def test_answer_to_a_server_that_is_gone_does_not_kill_the_process(remctl_realm: Realm) -> None:
    in_child(answer_who_is_gone)

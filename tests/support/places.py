"""Places where a call can wait: each has a server that holds the call there until it is released.

with waiting_for_output(connection) as wait:
    wait.call()  # in another thread; it waits until somebody calls wait.let_go()
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

import remctl
from remctl_toolkit.testing import Realm

from .fakeserver import FakeServer, Peer, in_turn, serve
from .proxy import TO_CLIENT, DeafListener, Proxy
from .sessions import shrink_receive_buffer
from .waiting import eventually, thread_count

LIMIT = 30.0  # seconds after which a stand-in server gives up
COMMAND = ["some", "command"]
MUCH = b"x" * (16 * 1024 * 1024)  # more than the buffers of two sockets hold


def nothing() -> None:
    """Release nothing."""


@dataclass
class Wait:
    """A call that waits for data that do not arrive."""

    call: Callable[[], object]
    port: int
    """Port of a correct server for the next connection."""
    let_go: Callable[[], None]
    """Function that releases the call."""
    timed_out: str
    """Error text after a timeout."""
    opens: bool = False
    """True for open(): after it, there is no connection to open again."""
    ending: type[Exception] | None = None
    """Exception of the released call; None if it succeeds."""


Place = Callable[[remctl.Remctl], AbstractContextManager[Wait]]

NO_TOKEN = "error receiving token: timed out"
NO_KDC = "GSS-API error initializing context: timed out waiting for a KDC"


@contextlib.contextmanager
def fake_server(connection: remctl.Remctl, *scripts: Callable[[Peer], None]) -> Iterator[int]:
    """Run scripts for the first connections, and a correct server afterwards; yield its port."""
    with FakeServer(os.environ["KRB5_KTNAME"], in_turn(*scripts, serve())) as server:
        try:
            yield server.port
        finally:
            connection.close()
    assert server.errors == []


@contextlib.contextmanager
def held(
    connection: remctl.Remctl, script: Callable[[Peer, Callable[[], object]], None]
) -> Iterator[tuple[int, Callable[[], None]]]:
    """A server whose script calls `hold()` somewhere: its port, and what ends that call."""
    go = threading.Event()
    with fake_server(connection, lambda peer: script(peer, lambda: go.wait(LIMIT))) as port:
        try:
            yield port, go.set
        finally:
            go.set()


@contextlib.contextmanager
def connecting(connection: remctl.Remctl) -> Iterator[Wait]:
    with fake_server(connection) as port, contextlib.ExitStack() as stack:
        listener = stack.enter_context(DeafListener())
        yield Wait(
            lambda: connection.open("localhost", listener.port),
            port,
            stack.close,
            f"cannot connect to localhost (port {listener.port}): Connection timed out",
            opens=True,
            ending=remctl.RemctlConnectError,
        )


@contextlib.contextmanager
def authenticating(connection: remctl.Remctl) -> Iterator[Wait]:
    def script(peer: Peer, hold: Callable[[], object]) -> None:
        hold()
        serve()(peer)

    with held(connection, script) as (port, let_go):
        yield Wait(lambda: connection.open("localhost", port), port, let_go, NO_TOKEN, opens=True)


@contextlib.contextmanager
def inside_a_token_of_the_authentication(connection: remctl.Remctl) -> Iterator[Wait]:
    with fake_server(connection) as port, Proxy("127.0.0.1", port) as proxy:
        proxy.stall(TO_CLIENT, after=20, connections={1})
        try:
            yield Wait(
                lambda: connection.open("localhost", proxy.port),
                proxy.port,
                proxy.release,
                NO_TOKEN,
                opens=True,
            )
        finally:
            connection.close()


@contextlib.contextmanager
def asking_the_kdc(connection: remctl.Remctl) -> Iterator[Wait]:
    with Realm() as realm, realm.environ(), fake_server(connection) as port:
        threads = thread_count()
        realm.freeze_kdc()
        try:
            yield Wait(
                lambda: connection.open("localhost", port),
                port,
                realm.thaw_kdc,
                NO_KDC,
                opens=True,
            )
        finally:
            realm.thaw_kdc()
            connection.close()
            eventually(lambda: thread_count() <= threads, what="the end of the call to the KDC")


@contextlib.contextmanager
def waiting_for_output(connection: remctl.Remctl) -> Iterator[Wait]:
    def script(peer: Peer, hold: Callable[[], object]) -> None:
        peer.accept()
        peer.read_command()
        hold()
        peer.send_status(0)

    with held(connection, script) as (port, let_go):
        connection.open("localhost", port)
        yield Wait(lambda: connection.run(COMMAND), port, let_go, NO_TOKEN)


@contextlib.contextmanager
def inside_a_token(connection: remctl.Remctl, *, small_buffer: bool = False) -> Iterator[Wait]:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(bytes(60_000))
        peer.send_status(0)

    with fake_server(connection, script) as port, Proxy("127.0.0.1", port) as proxy:
        connection.open("localhost", proxy.port)
        if small_buffer:
            shrink_receive_buffer(connection)
        proxy.stall(TO_CLIENT, after=proxy.forwarded(TO_CLIENT) + 30_000, connections={1})
        try:
            yield Wait(lambda: connection.run(COMMAND), proxy.port, proxy.release, NO_TOKEN)
        finally:
            connection.close()


def inside_a_token_larger_than_the_buffer(
    connection: remctl.Remctl,
) -> AbstractContextManager[Wait]:
    return inside_a_token(connection, small_buffer=True)


@contextlib.contextmanager
def sending(connection: remctl.Remctl) -> Iterator[Wait]:
    def script(peer: Peer, hold: Callable[[], object]) -> None:
        peer.accept()
        hold()
        peer.read_command()
        peer.send_status(0)

    with held(connection, script) as (port, let_go):
        connection.open("localhost", port)
        yield Wait(
            lambda: connection.run(COMMAND, input=MUCH),
            port,
            let_go,
            "error sending token: timed out",
        )


@contextlib.contextmanager
def waiting_for_a_noop(connection: remctl.Remctl) -> Iterator[Wait]:
    def script(peer: Peer, hold: Callable[[], object]) -> None:
        peer.accept()
        peer.read_message()
        hold()
        peer.send_noop()

    with held(connection, script) as (port, let_go):
        connection.open("localhost", port)
        yield Wait(connection.noop, port, let_go, NO_TOKEN)


@contextlib.contextmanager
def waiting_for_a_receipt_in_protocol_1(connection: remctl.Remctl) -> Iterator[Wait]:
    def script(peer: Peer, hold: Callable[[], object]) -> None:
        peer.accept(1)
        message = peer.read_message()
        hold()
        peer.finish_command(message)
        peer.send_v1_result(b"", 0)

    with held(connection, script) as (port, let_go):
        connection.open("localhost", port)
        yield Wait(lambda: connection.run(COMMAND), port, let_go, "error sending token: timed out")


@contextlib.contextmanager
def waiting_for_output_in_protocol_1(connection: remctl.Remctl) -> Iterator[Wait]:
    def script(peer: Peer, hold: Callable[[], object]) -> None:
        peer.accept(1)
        peer.read_command()
        hold()
        peer.send_v1_result(b"", 0)

    with held(connection, script) as (port, let_go):
        connection.open("localhost", port)
        yield Wait(lambda: connection.run(COMMAND), port, let_go, NO_TOKEN)


PLACES: list[Place] = [
    connecting,
    authenticating,
    inside_a_token_of_the_authentication,
    asking_the_kdc,
    waiting_for_output,
    inside_a_token,
    inside_a_token_larger_than_the_buffer,
    sending,
    waiting_for_a_noop,
    waiting_for_a_receipt_in_protocol_1,
    waiting_for_output_in_protocol_1,
]
everywhere = pytest.mark.parametrize("place", PLACES)


def check_works_again(connection: remctl.Remctl, wait: Wait, *, opened: bool) -> None:
    """Check that a connection whose wait was cancelled is closed, and can be used again."""
    lost = remctl.RemctlDisconnectedError if opened else remctl.RemctlNotOpenedError
    with pytest.raises(lost):
        connection.fileno()
    wait.let_go()
    connection.set_timeout(LIMIT)
    if not opened:
        with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
            connection.run(COMMAND)
        connection.open("localhost", wait.port)
    assert connection.run(COMMAND).stdout == b"some command\n"

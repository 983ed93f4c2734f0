"""Timeouts end every wait, wherever it happens, and nothing that is alive."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import _remctl
import pytest
from support import wire
from support.fakeserver import ClientGone, FakeServer, Peer
from support.places import (
    COMMAND,
    LIMIT,
    MUCH,
    NO_KDC,
    NO_TOKEN,
    PLACES,
    Place,
    authenticating,
    check_works_again,
    connecting,
    everywhere,
    fake_server,
    waiting_for_a_noop,
    waiting_for_output,
)
from support.proxy import TO_CLIENT, Proxy
from support.sessions import shrink_receive_buffer
from support.subprocesses import in_child
from support.waiting import eventually, thread_count

import remctl
from remctl_toolkit.testing import Realm

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.usefixtures("remctl_realm")

SURPLUS = 0.2  # seconds that a timeout may take longer than it is set to


class ElsewhereError(AssertionError):
    """The time was over at another step than the one that the test is about."""


def unhurried(attempt: Callable[[float], None], timeout: float = 0.3) -> None:
    """Try with a short timeout; with a long one, where the machine stood still for that long."""
    try:
        attempt(timeout)
    except (ElsewhereError, remctl.RemctlTimeoutError):
        attempt(max(10 * timeout, 5.0))


def check_told(error: remctl.RemctlError, text: str) -> None:
    if str(error) != text:
        raise ElsewhereError(f"{error}, not {text}")


@everywhere
def test_timeout_ends_every_wait(place: Place) -> None:
    unhurried(lambda timeout: check_times_out(place, timeout))


def check_times_out(place: Place, timeout: float) -> None:
    connection = remctl.Remctl()
    with place(connection) as wait:
        connection.set_timeout(timeout)
        start = time.monotonic()
        with pytest.raises(remctl.RemctlTimeoutError) as caught:
            wait.call()
        seconds = time.monotonic() - start
        assert timeout <= seconds < LIMIT / 2
        check_told(caught.value, wait.timed_out)
        assert connection.error() == wait.timed_out
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, remctl.RemctlProtocolError)
        assert caught.value.host == "localhost"
        check_works_again(connection, wait, opened=not wait.opens)


@everywhere
def test_timeout_ends_every_wait_of_a_thread(place: Place) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(test_timeout_ends_every_wait, place).result()


@pytest.mark.parametrize("timeout", [0.05, 0.45])
@pytest.mark.parametrize("place", [waiting_for_output, waiting_for_a_noop, connecting])
def test_timeout_is_not_rounded(place: Place, timeout: float) -> None:
    def attempt() -> float:
        connection = remctl.Remctl()
        with place(connection) as wait:
            connection.set_timeout(timeout)
            start = time.monotonic()
            with pytest.raises(remctl.RemctlTimeoutError):
                wait.call()
            seconds = time.monotonic() - start
        assert seconds >= timeout
        return seconds - timeout

    eventually(lambda: attempt() < SURPLUS, interval=0, what="a timeout that is kept")


def test_timeout_of_the_simple_call_holds() -> None:
    def attempt(timeout: float) -> None:
        with authenticating(remctl.Remctl()) as wait:
            with pytest.raises(remctl.RemctlTimeoutError) as caught:
                remctl.remctl("localhost", wait.port, command=COMMAND, timeout=timeout)
            check_told(caught.value, NO_TOKEN)
            result = remctl.remctl("localhost", wait.port, command=COMMAND, timeout=LIMIT)
        assert result.stdout == b"some command\n"

    unhurried(attempt)


def test_kdc_that_does_not_answer_holds_up_nobody_who_has_a_ticket() -> None:
    with Realm() as realm, realm.environ(), FakeServer(realm.keytab) as server:
        ready = realm.kinit(ccache=realm.new_ccache())
        remctl.remctl("localhost", server.port, command=COMMAND, ccache=ready)
        threads = thread_count()
        realm.freeze_kdc()
        with remctl.Remctl() as connection:

            def attempt(timeout: float) -> None:
                connection.set_timeout(timeout)
                with pytest.raises(remctl.RemctlTimeoutError) as caught:
                    connection.open("localhost", server.port)
                check_told(caught.value, NO_KDC)

            unhurried(attempt)
            connection.set_timeout(LIMIT)
            connection.set_ccache(ready)
            connection.open("localhost", server.port)
            assert connection.run(COMMAND).stdout == b"some command\n"
        realm.thaw_kdc()
        eventually(lambda: thread_count() <= threads, what="the end of the call to the KDC")


QUIET = 0.6  # seconds of silence that are too many in what follows
PAUSES = 6  # pauses between two signs of life that are as long as the silence that is too long
SIGNS = 2 * PAUSES  # signs of life


@contextlib.contextmanager
def outlasting(connection: remctl.Remctl, timeout: float) -> Iterator[None]:
    """Set a timeout, and check that the block takes longer than silence is allowed to."""
    connection.set_timeout(timeout)
    start = time.monotonic()
    yield
    assert time.monotonic() - start > timeout


def test_timeout_does_not_end_a_command_that_keeps_talking() -> None:
    def attempt(timeout: float) -> None:
        def script(peer: Peer) -> None:
            peer.accept()
            peer.read_command()
            for _ in range(SIGNS):
                time.sleep(timeout / PAUSES)
                peer.send_output(b"tick")
            peer.send_status(0)

        connection = remctl.Remctl()
        with fake_server(connection, script) as port:
            connection.open("localhost", port)
            with outlasting(connection, timeout):
                assert connection.run(COMMAND).stdout == b"tick" * SIGNS

    unhurried(attempt, QUIET)


@pytest.mark.parametrize("small_buffer", [False, True], ids=["whole", "piecemeal"])
def test_timeout_does_not_end_a_token_that_keeps_coming(small_buffer: bool) -> None:
    def attempt(timeout: float) -> None:
        def script(peer: Peer) -> None:
            peer.accept()
            peer.read_command()
            payload = peer.wrap(wire.pack_output(bytes(50_000)))
            head, tail = payload[:-SIGNS], payload[-SIGNS:]
            peer.send_token(wire.Flag.DATA | wire.Flag.PROTOCOL, head, len(payload))
            for octet in tail:
                time.sleep(timeout / PAUSES)
                peer.send_raw(bytes([octet]))
            peer.send_status(0)

        connection = remctl.Remctl()
        with fake_server(connection, script) as port:
            connection.open("localhost", port)
            if small_buffer:
                shrink_receive_buffer(connection)
            with outlasting(connection, timeout):
                assert connection.run(COMMAND).stdout == bytes(50_000)

    unhurried(attempt, QUIET)


def queued(descriptor: int, queue: int) -> int:
    """Return the octets in a queue of a socket: FIONREAD or TIOCOUTQ."""
    return int.from_bytes(fcntl.ioctl(descriptor, queue, bytes(4)), sys.byteorder)


def test_the_end_of_a_token_that_is_read_piecemeal_is_seen() -> None:
    handle = _remctl.remctl_new()
    _remctl.remctl_set_timeout(handle, LIMIT / 2)

    def is_read(peer: Peer) -> bool:
        underway = queued(peer.connection.fileno(), termios.TIOCOUTQ)
        return underway == 0 and queued(handle.fd, termios.FIONREAD) == 0

    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        output = peer.wrap(wire.pack_output(bytes(50_000)))
        token = wire.pack_token(wire.Flag.DATA | wire.Flag.PROTOCOL, output)
        peer.send_raw(token[:-100])
        eventually(lambda: is_read(peer))
        peer.send_raw(token[-100:])  # Less than was waited for at the token's beginning.
        peer.stall()

    with FakeServer(os.environ["KRB5_KTNAME"], script) as server:
        assert _remctl.remctl_open(handle, "localhost", server.port)
        shrink_receive_buffer(handle.fd)
        assert _remctl.remctl_commandv(handle, [b"some", b"command"])
        token = _remctl.remctl_output(handle)
        assert token[:2] == ("output", bytes(50_000)), _remctl.remctl_error(handle)
        _remctl.remctl_close(handle)


def test_timeout_does_not_end_an_authentication_that_keeps_coming() -> None:
    def attempt(timeout: float) -> None:
        connection = remctl.Remctl()
        with fake_server(connection) as port, Proxy("127.0.0.1", port) as proxy:
            proxy.dribble(TO_CLIENT, seconds=timeout / 60)  # There are more than 60 octets.
            try:
                with outlasting(connection, timeout):
                    connection.open("localhost", proxy.port)
            finally:
                connection.close()

    unhurried(attempt, QUIET)


def test_timeout_does_not_end_a_command_that_is_read_slowly() -> None:
    def attempt(timeout: float) -> None:
        def script(peer: Peer) -> None:
            peer.accept()
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            octets = 0
            ends = time.monotonic() + SIGNS * timeout / PAUSES
            while octets < len(MUCH):
                if time.monotonic() < ends:
                    time.sleep(timeout / PAUSES)
                received = peer.connection.recv(400_000)
                if not received:
                    raise ClientGone("the client did not wait")
                octets += len(received)
            peer.stall()

        connection = remctl.Remctl()
        with fake_server(connection, script) as port:
            connection.open("localhost", port)
            with outlasting(connection, timeout):
                connection.command(COMMAND, input=MUCH)

    unhurried(attempt, QUIET)


def use_descriptors_beyond_select(port: int, places: list[Place]) -> None:
    """Run commands and time out on descriptors that select() cannot take."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    with remctl.Remctl("localhost", port, timeout=LIMIT) as connection:
        assert connection.fileno() > max(taken) >= 1024
        assert connection.run(["test", "echo", "hello"]).stdout == b"hello\n"
        assert connection.run(["test", "cat"], input=MUCH).stdout == MUCH
        assert connection.noop()
    for place in places:
        test_timeout_ends_every_wait(place)


@pytest.mark.parametrize("places", [PLACES[:4], PLACES[4:8], PLACES[8:]], ids=["1", "2", "3"])
def test_descriptors_beyond_1023_do_not_abort_the_process(
    remctl_server: RemctldServer, places: list[Place]
) -> None:
    in_child(use_descriptors_beyond_select, remctl_server.port, places)

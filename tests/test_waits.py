"""Every wait ends: by a signal, by a timeout, by close() in another thread; wherever it happens."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

import _remctl
import pytest
from support import wire
from support.fakeserver import FakeServer, Peer, in_turn, serve
from support.proxy import TO_CLIENT, DeafListener, Proxy
from support.subprocesses import in_child
from support.waiting import eventually, nothing_left_behind, thread_count

import remctl
from remctl_toolkit.testing import Realm

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from remctl_toolkit.testing import RemctldServer

pytestmark = pytest.mark.usefixtures("remctl_realm")

LIMIT = 30.0  # seconds after which a stand-in server gives up
PROMPT = 0.2  # seconds in which a wait that is called off has to end
COMMAND = ["some", "command"]
MUCH = b"x" * (16 * 1024 * 1024)  # more than the buffers of two sockets hold


# -- Where a call can wait ------------------------------------------------------------------------


def nothing() -> None:
    """Let nothing go."""


@dataclass
class Wait:
    """A call that waits for something that does not come."""

    call: Callable[[], object]
    port: int
    """Where the next connection finds a server that behaves."""
    let_go: Callable[[], None]
    """Let come what the call waits for."""
    timed_out: str
    """What it says when it has waited for too long."""
    opens: bool = False
    """Whether the call is open(): after it, there is no connection to be opened again."""
    ending: type[Exception] | None = None
    """How the call ends when it is let go; None: it succeeds."""


Place = Callable[[remctl.Remctl], AbstractContextManager[Wait]]

NO_TOKEN = "error receiving token: timed out"


@contextlib.contextmanager
def fake_server(connection: remctl.Remctl, *scripts: Callable[[Peer], None]) -> Iterator[int]:
    """The port of a server that behaves from the connection after the scripts on."""
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
def looking_up_a_name(connection: remctl.Remctl) -> Iterator[Wait]:
    go = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def slow(host: str, port: int, *, type: int, flags: int = 0) -> object:
        if not flags & socket.AI_NUMERICHOST:
            go.wait(LIMIT)
        return getaddrinfo(host, port, type=type, flags=flags)

    with fake_server(connection) as port, mock.patch("socket.getaddrinfo", slow):
        try:
            yield Wait(
                lambda: connection.open("localhost", port),
                port,
                go.set,
                "unknown host localhost: timed out looking it up",
                opens=True,
            )
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
                "GSS-API error initializing context: timed out waiting for a KDC",
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
def inside_a_token(
    connection: remctl.Remctl, *, receive_buffer: int | None = None
) -> Iterator[Wait]:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(bytes(60_000))
        peer.send_status(0)

    with fake_server(connection, script) as port, Proxy("127.0.0.1", port) as proxy:
        connection.open("localhost", proxy.port)
        if receive_buffer is not None:
            with socket.socket(fileno=os.dup(connection.fileno())) as ours:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        proxy.stall(TO_CLIENT, after=proxy.forwarded(TO_CLIENT) + 30_000, connections={1})
        try:
            yield Wait(lambda: connection.run(COMMAND), proxy.port, proxy.release, NO_TOKEN)
        finally:
            connection.close()


def inside_a_token_larger_than_the_buffer(
    connection: remctl.Remctl,
) -> AbstractContextManager[Wait]:
    return inside_a_token(connection, receive_buffer=4096)


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
    looking_up_a_name,
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


# -- Watching -------------------------------------------------------------------------------------


def spot(thread: int) -> list[tuple[CodeType, int]]:
    """Where in the program a thread is."""
    frame: FrameType | None = sys._current_frames().get(thread)
    stack = []
    while frame is not None:
        stack.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return stack


def await_standstill(thread: int) -> None:
    """Wait until a thread waits: until it has been at the same spot for a while."""

    def stands_still() -> bool:
        before = spot(thread)
        for _ in range(6):
            time.sleep(0.01)
            if spot(thread) != before:
                return False
        return True

    eventually(stands_still, LIMIT, what="a thread that waits")


def best_of_five(attempt: Callable[[], float]) -> float:
    """The least of the times that an attempt takes; on a busy machine the first may be long."""
    seconds = attempt()
    for _ in range(4):
        if seconds >= PROMPT:
            seconds = min(seconds, attempt())
    return seconds


def check_works_again(connection: remctl.Remctl, wait: Wait, *, opened: bool) -> None:
    """Check that a connection whose wait was called off is closed, and of use nevertheless."""
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


# -- Signals --------------------------------------------------------------------------------------


class Called(Exception):
    """What a signal handler of the program raises."""


def raise_called(number: int, frame: FrameType | None) -> None:
    raise Called


def signal_meanwhile(thread: int, sent: list[float]) -> threading.Thread:
    """Send SIGINT to this process, as the terminal does, once a thread of it waits."""

    def send() -> None:
        await_standstill(thread)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    return sender


def seconds_until_interrupted(place: Place, exception: type[BaseException]) -> float:
    """Interrupt a wait; check that the connection is closed, and of use afterwards."""
    sent: list[float] = []
    connection = remctl.Remctl()
    with nothing_left_behind(), place(connection) as wait:
        sender = signal_meanwhile(threading.get_ident(), sent)
        try:
            wait.call()
        except exception:
            seconds = time.monotonic() - sent[0]
        else:
            raise AssertionError("not interrupted")
        sender.join()
        check_works_again(connection, wait, opened=not wait.opens)
    return seconds


def interrupt(
    place: Place, handler: Callable[..., object], exception: type[BaseException]
) -> float:
    signal.signal(signal.SIGINT, handler)
    return best_of_five(lambda: seconds_until_interrupted(place, exception))


@everywhere
@pytest.mark.parametrize(
    ("handler", "exception"),
    [(signal.default_int_handler, KeyboardInterrupt), (raise_called, Called)],
    ids=["ctrl-c", "own handler"],
)
def test_signal_ends_every_wait(
    place: Place, handler: Callable[..., object], exception: type[BaseException]
) -> None:
    assert in_child(interrupt, place, handler, exception) < PROMPT


def seconds_until_handled(place: Place) -> float:
    """Run a signal handler in the middle of a wait, which then goes on to its good end."""
    sent: list[float] = []
    handled: list[float] = []
    connection = remctl.Remctl()

    def let_go(wait: Wait, thread: int) -> None:
        eventually(lambda: handled, LIMIT, what="the signal handler")
        await_standstill(thread)
        wait.let_go()

    signal.signal(signal.SIGINT, lambda *_: handled.append(time.monotonic()))
    with place(connection) as wait, ThreadPoolExecutor() as pool:
        thread = threading.get_ident()
        sender = signal_meanwhile(thread, sent)
        released = pool.submit(let_go, wait, thread)
        ended = None
        try:
            wait.call()
        except remctl.RemctlError as error:
            ended = type(error)
        assert ended is wait.ending
        sender.join()
        released.result()
    return handled[0] - sent[0]


def handle(place: Place) -> float:
    return best_of_five(lambda: seconds_until_handled(place))


@everywhere
def test_signal_handler_that_returns_lets_every_wait_go_on(place: Place) -> None:
    assert in_child(handle, place) < PROMPT


def interrupt_from_another_thread() -> float:
    """Have the kernel give the signal to a thread that is not the one that waits."""

    def attempt() -> float:
        sent: list[float] = []

        def send(thread: int) -> None:
            await_standstill(thread)
            sent.append(time.monotonic())
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        connection = remctl.Remctl()
        with waiting_for_output(connection) as wait:
            sender = threading.Thread(target=send, args=(threading.get_ident(),))
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                wait.call()
            seconds = time.monotonic() - sent[0]
            sender.join()
        return seconds

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return best_of_five(attempt)


def test_signal_that_another_thread_gets_ends_the_wait() -> None:
    assert in_child(interrupt_from_another_thread) < PROMPT


def interrupt_while_another_thread_is_served() -> float:
    """Interrupt a thread that waits for its turn; the thread whose turn it is goes on."""

    def attempt() -> float:
        sent: list[float] = []
        connection = remctl.Remctl()
        with waiting_for_output(connection) as wait, ThreadPoolExecutor() as pool:
            first = pool.submit(wait.call)
            eventually(lambda: "running" in repr(connection))
            sender = signal_meanwhile(threading.get_ident(), sent)
            with pytest.raises(KeyboardInterrupt):
                connection.run(COMMAND)
            seconds = time.monotonic() - sent[0]
            sender.join()
            assert not first.done()
            wait.let_go()
            assert first.result() == remctl.RemctlSimpleResult(status=0)
        return seconds

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return best_of_five(attempt)


def test_signal_ends_the_wait_for_another_threads_command() -> None:
    assert in_child(interrupt_while_another_thread_is_served) < PROMPT


# -- Timeouts -------------------------------------------------------------------------------------


@everywhere
def test_timeout_ends_every_wait(place: Place) -> None:
    connection = remctl.Remctl()
    with place(connection) as wait:
        connection.set_timeout(0.3)
        start = time.monotonic()
        with pytest.raises(remctl.RemctlTimeoutError) as caught:
            wait.call()
        seconds = time.monotonic() - start
        assert 0.3 <= seconds < LIMIT / 2
        assert str(caught.value) == wait.timed_out == connection.error()
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

    assert best_of_five(attempt) < PROMPT


def test_timeout_of_the_simple_call_holds() -> None:
    with authenticating(remctl.Remctl()) as wait:
        with pytest.raises(remctl.RemctlTimeoutError, match=f"^{NO_TOKEN}$"):
            remctl.remctl("localhost", wait.port, command=COMMAND, timeout=0.2)
        result = remctl.remctl("localhost", wait.port, command=COMMAND, timeout=LIMIT)
    assert result.stdout == b"some command\n"


def test_kdc_that_does_not_answer_holds_up_nobody_who_has_a_ticket() -> None:
    with Realm() as realm, realm.environ(), FakeServer(realm.keytab) as server:
        ready = realm.kinit(ccache=realm.new_ccache())
        remctl.remctl("localhost", server.port, command=COMMAND, ccache=ready)
        threads = thread_count()
        realm.freeze_kdc()
        with remctl.Remctl(timeout=0.2) as connection:
            with pytest.raises(remctl.RemctlTimeoutError, match="waiting for a KDC"):
                connection.open("localhost", server.port)
            connection.set_timeout(LIMIT)
            connection.set_ccache(ready)
            connection.open("localhost", server.port)
            assert connection.run(COMMAND).stdout == b"some command\n"
        realm.thaw_kdc()
        eventually(lambda: thread_count() <= threads, what="the end of the call to the KDC")


QUIET = 0.6  # seconds of silence that are too many in what follows
PAUSE = 0.1  # seconds of silence between two signs of life
SIGNS = 12  # signs of life, which together take twice as long as the silence that is too long


def a_timeout_from_now_on(connection: remctl.Remctl) -> float:
    connection.set_timeout(QUIET)
    return time.monotonic()


def check_outlasted(start: float) -> None:
    """Check that the whole took longer than the silence would have been allowed to."""
    assert time.monotonic() - start > QUIET


def test_timeout_does_not_end_a_command_that_keeps_talking() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        for _ in range(SIGNS):
            time.sleep(PAUSE)
            peer.send_output(b"tick")
        peer.send_status(0)

    connection = remctl.Remctl()
    with fake_server(connection, script) as port:
        connection.open("localhost", port)
        start = a_timeout_from_now_on(connection)
        assert connection.run(COMMAND).stdout == b"tick" * SIGNS
        check_outlasted(start)


@pytest.mark.parametrize("receive_buffer", [None, 4096], ids=["whole", "piecemeal"])
def test_timeout_does_not_end_a_token_that_keeps_coming(receive_buffer: int | None) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        payload = peer.wrap(b"\x02\x03\x01\x00\x00\xc3\x50" + bytes(50_000))
        head, tail = payload[:-SIGNS], payload[-SIGNS:]
        peer.send_token(0x44, head, len(payload))
        for octet in tail:
            time.sleep(PAUSE)
            peer.send_raw(bytes([octet]))
        peer.send_status(0)

    connection = remctl.Remctl()
    with fake_server(connection, script) as port:
        connection.open("localhost", port)
        if receive_buffer is not None:
            with socket.socket(fileno=os.dup(connection.fileno())) as ours:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        start = a_timeout_from_now_on(connection)
        assert connection.run(COMMAND).stdout == bytes(50_000)
        check_outlasted(start)


def queued(descriptor: int, queue: int) -> int:
    """How many octets are in a queue of a socket: of the two, FIONREAD and TIOCOUTQ."""
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
        token = wire.pack_token(0x44, peer.wrap(wire.pack_output(bytes(50_000))))
        peer.send_raw(token[:-100])
        eventually(lambda: is_read(peer))
        peer.send_raw(token[-100:])  # Less than was waited for at the token's beginning.
        peer.stall()

    with FakeServer(os.environ["KRB5_KTNAME"], script) as server, socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours.connect(server.address)
        assert _remctl.remctl_open_fd(handle, "localhost", ours.fileno())
        assert _remctl.remctl_commandv(handle, [b"some", b"command"])
        token = _remctl.remctl_output(handle)
        assert token[:2] == ("output", bytes(50_000)), _remctl.remctl_error(handle)
        _remctl.remctl_close(handle)


def test_timeout_does_not_end_an_authentication_that_keeps_coming() -> None:
    connection = remctl.Remctl()
    with fake_server(connection) as port, Proxy("127.0.0.1", port) as proxy:
        proxy.dribble(TO_CLIENT, seconds=0.01)
        start = a_timeout_from_now_on(connection)
        connection.open("localhost", proxy.port)
        check_outlasted(start)
        connection.close()


def test_timeout_does_not_end_a_command_that_is_read_slowly() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        ends = time.monotonic() + SIGNS * PAUSE
        octets = 0
        while time.monotonic() < ends:
            time.sleep(PAUSE)
            octets += len(peer.connection.recv(400_000))
        while octets < len(MUCH):
            octets += len(peer.connection.recv(400_000))
        peer.stall()

    connection = remctl.Remctl()
    with fake_server(connection, script) as port:
        connection.open("localhost", port)
        start = a_timeout_from_now_on(connection)
        connection.command(COMMAND, input=MUCH)
        check_outlasted(start)


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


# -- close() from another thread ------------------------------------------------------------------


def seconds_until_closed(place: Place) -> float:
    """Close a connection that this thread waits on; check that it is of use afterwards."""
    times: list[float] = []
    thread = threading.get_ident()
    connection = remctl.Remctl()

    def close() -> None:
        await_standstill(thread)
        times.append(time.monotonic())
        connection.close()
        times.append(time.monotonic())
        connection.close()

    with place(connection) as wait:
        closer = threading.Thread(target=close)
        closer.start()
        with pytest.raises(remctl.RemctlNotOpenedError, match="closed by another thread"):
            wait.call()
        seconds = time.monotonic() - times[0]
        closer.join()
        assert not connection.opened
        check_works_again(connection, wait, opened=False)
    return max(seconds, times[1] - times[0])


@everywhere
def test_close_from_another_thread_ends_every_wait(place: Place) -> None:
    assert best_of_five(lambda: seconds_until_closed(place)) < PROMPT


@everywhere
def test_close_from_the_main_thread_ends_every_wait_of_a_thread(place: Place) -> None:
    def attempt() -> float:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(seconds_until_closed, place).result()

    assert best_of_five(attempt) < PROMPT


def test_close_ends_all_that_wait_for_their_turn() -> None:
    connection = remctl.Remctl()
    with waiting_for_output(connection) as wait, ThreadPoolExecutor(4) as pool:
        first = pool.submit(wait.call)
        eventually(lambda: "running" in repr(connection))
        others = [pool.submit(connection.run, COMMAND) for _ in range(3)]
        connection.close()
        assert isinstance(first.exception(LIMIT), remctl.RemctlNotOpenedError)
        for other in others:
            assert isinstance(other.exception(LIMIT), remctl.RemctlNotOpenedError)
        connection.open("localhost", wait.port)
        assert connection.run(COMMAND).stdout == b"some command\n"

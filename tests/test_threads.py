"""Threads: sessions side by side, one session shared, and nothing that they do to it crashes."""

from __future__ import annotations

import contextlib
import logging
import random
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import _remctl
import pytest
from support.fakeserver import FakeServer, Peer, in_turn, serve
from support.subprocesses import in_child
from support.waiting import eventually, nothing_left_behind

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm, RemctldServer

LIMIT = 30.0  # seconds after which a wait has failed
SLEEP = ["test", "sleep", "0.5"]
ECHO = ["test", "echo", "hello"]


@pytest.fixture
def held_server(remctl_realm: Realm) -> Iterator[tuple[FakeServer, threading.Event]]:
    """A server that answers each command when the event is set, not before."""
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.accept()
        while True:
            command = peer.read_command()
            go.wait(LIMIT)
            peer.send_output(b" ".join(command))
            peer.send_status(0)

    with FakeServer(remctl_realm.keytab, script) as server:
        try:
            yield server, go
        finally:
            go.set()


def test_commands_of_many_sessions_run_at_the_same_time(remctl_realm: Realm) -> None:
    together = threading.Barrier(16)

    def meet(command: list[bytes]) -> tuple[bytes, bytes, int]:
        together.wait(LIMIT)  # All of them are there at the same time, or this fails.
        return b"", b"", 0

    def run(port: int) -> int | None:
        with remctl.Remctl("localhost", port) as connection:
            return connection.run(ECHO).status

    with (
        FakeServer(remctl_realm.keytab, serve(handler=meet)) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        assert list(pool.map(run, [server.port] * 16)) == [0] * 16
        assert server.errors == []


def check_ticking(call: Callable[[], object], prepare: Callable[[], object] = list) -> None:
    """Check that another thread runs while a call waits, which is half a second.

    If it could not, it would tick no more than once before and once after, however often.
    `prepare` is called before each time.
    """
    eventually(lambda: (prepare(), ticks_during(call))[1] > 5, interval=0)


def ticks_during(call: Callable[[], object]) -> int:
    """Return how often another thread ticks while a call waits; on a busy machine, not often."""
    ended = threading.Event()
    ticks: list[float] = []

    def tick() -> None:
        while not ended.wait(0.005):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        call()
    finally:
        ended.set()
        ticker.join()
    return len(ticks)


def test_other_threads_run_while_a_command_does(remctl_server: RemctldServer) -> None:
    with remctl.Remctl("localhost", remctl_server.port) as connection:
        check_ticking(lambda: connection.run(SLEEP))


def test_other_threads_run_while_the_simple_call_of_the_extension_does(
    remctl_server: RemctldServer,
) -> None:
    command = [word.encode() for word in SLEEP]
    check_ticking(lambda: _remctl.remctl("localhost", remctl_server.port, None, command))


def stall_after_opening(peer: Peer) -> None:
    peer.accept()
    peer.stall()


@pytest.mark.parametrize("step", ["open", "noop"])
def test_other_threads_run_while_a_server_says_nothing(remctl_realm: Realm, step: str) -> None:
    script = Peer.stall if step == "open" else stall_after_opening

    def wait() -> None:
        with pytest.raises(remctl.RemctlTimeoutError):
            connection.noop() if step == "noop" else connection.open("localhost", server.port)

    def prepare() -> None:
        if step == "noop":
            connection.set_timeout(LIMIT)
            connection.open("localhost", server.port)
        connection.set_timeout(0.5)

    with FakeServer(remctl_realm.keytab, script) as server, remctl.Remctl() as connection:
        check_ticking(wait, prepare)


def test_replies_of_a_shared_session_match_their_commands(remctl_server: RemctldServer) -> None:
    together = threading.Barrier(8)

    def run(thread: int) -> list[tuple[str, bytes | None]]:
        together.wait(LIMIT)
        words = [f"{thread}-{number}" for number in range(25)]
        return [(word, connection.run(["test", "echo", word]).stdout) for word in words]

    with (
        remctl.Remctl("localhost", remctl_server.port) as connection,
        ThreadPoolExecutor(8) as pool,
    ):
        replies = [reply for part in pool.map(run, range(8)) for reply in part]
    assert len(replies) == 8 * 25
    assert [stdout for _, stdout in replies] == [f"{word}\n".encode() for word, _ in replies]


def test_large_replies_of_a_shared_session_do_not_mix(remctl_realm: Realm) -> None:
    def answer(command: list[bytes]) -> tuple[bytes, bytes, int]:
        return command[1] * 20_000, command[2] * 20_000, int(command[3])

    def run(number: int) -> None:
        out, err = f"o{number}.", f"e{number}."
        result = connection.run(["x", out, err, str(number)])
        assert result.stdout == out.encode() * 20_000
        assert result.stderr == err.encode() * 20_000
        assert result.status == number

    with (
        FakeServer(remctl_realm.keytab, serve(handler=answer)) as server,
        remctl.Remctl("localhost", server.port) as connection,
        ThreadPoolExecutor(8) as pool,
    ):
        for _ in pool.map(run, range(40)):
            pass
        assert server.connections == 1


@pytest.mark.parametrize("start", ["command", "run", "stream", "noop"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "other thread"])
def test_no_command_starts_while_the_output_of_another_is_unread(
    remctl_server: RemctldServer, start: str, elsewhere: bool
) -> None:
    def second() -> None:
        method = getattr(connection, start)
        with pytest.raises(remctl.RemctlBusyError, match="a command is still running"):
            method() if start == "noop" else method(ECHO)

    with remctl.Remctl("localhost", remctl_server.port) as connection:
        connection.command(["test", "streams"])
        token = connection.output()
        assert token.type == "output"
        if elsewhere:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(second).result()
        else:
            second()
        rest = list(connection.tokens())
        assert {token.output, rest[0].output} == {b"this is stdout\n", b"this is stderr\n"}
        assert rest[-1].status == 0
        assert connection.run(ECHO).stdout == b"hello\n"


def test_command_waits_for_the_end_of_another_threads_run(
    held_server: tuple[FakeServer, threading.Event],
) -> None:
    server, go = held_server
    with remctl.Remctl("localhost", server.port) as connection, ThreadPoolExecutor(2) as pool:
        first = pool.submit(connection.run, ["first", "command"])
        eventually(lambda: server.commands)
        second = pool.submit(connection.run, ["second", "command"])
        assert not second.done()
        go.set()
        assert first.result().stdout == b"first command"
        assert second.result().stdout == b"second command"
    assert server.commands == [[b"first", b"command"], [b"second", b"command"]]


class CloseMeanwhile(logging.Handler):
    """Have another thread close a connection at the moment when it logs some text."""

    def __init__(self, connection: remctl.Remctl, moment: str) -> None:
        super().__init__()
        self.connection = connection
        self.moment = moment

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self.moment):
            thread = threading.Thread(target=self.connection.close)
            thread.start()
            thread.join()

    def __enter__(self) -> None:
        logger = logging.getLogger("remctl")
        logger.addHandler(self)
        logger.setLevel(logging.DEBUG)

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("remctl")
        logger.removeHandler(self)
        logger.setLevel(logging.NOTSET)


def go_away(peer: Peer) -> None:
    peer.accept()


def check_closed_then_open(connection: remctl.Remctl, port: int) -> None:
    """Check that a connection is closed for good, and can be opened."""
    assert repr(connection) == "<Remctl, not open>"
    assert connection._session.handle is None
    with pytest.raises(remctl.RemctlNotOpenedError):
        connection.run(ECHO)
    connection.open("localhost", port)
    assert connection.run(ECHO).stdout == b"test echo hello\n"
    connection.close()


@pytest.mark.parametrize("moment", ["opened a connection"])
def test_close_at_any_moment_of_opening_is_not_lost(remctl_realm: Realm, moment: str) -> None:
    connection = remctl.Remctl(timeout=LIMIT)
    with FakeServer(remctl_realm.keytab) as server:
        with CloseMeanwhile(connection, moment), pytest.raises(remctl.RemctlNotOpenedError):
            connection.open("localhost", server.port)
        check_closed_then_open(connection, server.port)


@pytest.mark.parametrize("moment", ["opening", "opened a connection", "sent command"])
def test_close_at_any_moment_of_opening_again_is_not_lost(remctl_realm: Realm, moment: str) -> None:
    connection = remctl.Remctl(timeout=LIMIT)
    with FakeServer(remctl_realm.keytab, in_turn(go_away, serve())) as server:
        connection.open("localhost", server.port)
        assert select.select([connection], [], [], LIMIT)[0]  # The server has gone.
        with CloseMeanwhile(connection, moment), pytest.raises(remctl.RemctlNotOpenedError):
            connection.run(ECHO)
        check_closed_then_open(connection, server.port)


def test_set_timeout_beside_a_close_is_no_failure(
    held_server: tuple[FakeServer, threading.Event],
) -> None:
    server, _ = held_server
    connection = remctl.Remctl("localhost", server.port)
    with ThreadPoolExecutor(2) as pool:
        command = pool.submit(connection.run, ["some", "command"])
        eventually(lambda: server.commands)
        setting = pool.submit(connection.set_timeout, 5)
        with contextlib.suppress(TimeoutError):  # It may wait for the command's end.
            setting.exception(0.1)
        connection.close()
        assert isinstance(command.exception(LIMIT), remctl.RemctlNotOpenedError)
        assert setting.result(LIMIT) is None


USES: dict[str, Callable[[Any], object]] = {
    "remctl_commandv": lambda handle: _remctl.remctl_commandv(handle, [b"a"]),
    "remctl_command": lambda handle: _remctl.remctl_command(handle, [b"a"]),
    "remctl_output": _remctl.remctl_output,
    "remctl_noop": _remctl.remctl_noop,
    "remctl_error": _remctl.remctl_error,
    "remctl_open": lambda handle: _remctl.remctl_open(handle, "localhost", 1),
    "remctl_set_ccache": lambda handle: _remctl.remctl_set_ccache(handle, "FILE:/nowhere"),
    "remctl_set_source_ip": lambda handle: _remctl.remctl_set_source_ip(handle, "127.0.0.1"),
    "remctl_set_timeout": lambda handle: _remctl.remctl_set_timeout(handle, 1),
}


def test_handle_in_use_refuses_a_second_thread(
    held_server: tuple[FakeServer, threading.Event],
) -> None:
    server, go = held_server
    handle = _remctl.remctl_new()
    assert _remctl.remctl_open(handle, "localhost", server.port)
    assert _remctl.remctl_commandv(handle, [b"some", b"command"])
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(_remctl.remctl_output, handle)
        eventually(lambda: _is_busy(handle))
        for name, use in USES.items():
            with pytest.raises(ValueError, match="in use: another call has not ended"):
                use(handle)
            assert not reply.done(), name
        go.set()
        assert reply.result() == ("output", b"some command", 1, None, None)
    assert _remctl.remctl_output(handle) == ("status", None, None, 0, None)
    _remctl.remctl_close(handle)


def _is_busy(handle: _remctl.Handle) -> bool:
    try:
        _remctl.remctl_error(handle)
    except ValueError:
        return True
    return False


def fight_over_a_handle(port: int) -> None:
    """Call everything on the same handle from several threads, and close it in the middle."""
    sys.setswitchinterval(1e-5)
    ends = time.monotonic() + 1.5
    calls: list[Callable[[Any], object]] = [
        *USES.values(),
        repr,
        lambda handle: _remctl.remctl_open(handle, "localhost", port),
        lambda handle: handle.fd + handle.errno + handle.protocol,
    ]

    def use(handle: _remctl.Handle, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(200):
            with contextlib.suppress(ValueError):
                chance.choice(calls)(handle)
        _remctl.remctl_close(handle)

    seed = 0
    with ThreadPoolExecutor(4) as pool:
        while time.monotonic() < ends:
            seed += 4
            handle = _remctl.remctl_new()
            _remctl.remctl_set_timeout(handle, 5)
            list(pool.map(use, [handle] * 4, range(seed, seed + 4)))


def test_threads_that_fight_over_a_handle_do_not_crash(remctl_server: RemctldServer) -> None:
    in_child(fight_over_a_handle, remctl_server.port)


SURE = {"RemctlNotOpenedError", "RemctlBusyError"}  # what each fight comes to, and soon


def fight_over_a_connection(port: int, seed: int) -> set[str]:
    """Open, use and close the same object from several threads; the failures' names."""
    sys.setswitchinterval(1e-5)
    connection = remctl.Remctl(timeout=10)
    ends = time.monotonic() + 2
    failures: set[str] = set()

    def is_over() -> bool:
        left = ends - time.monotonic()
        return left <= 0 and (failures >= SURE or left <= -LIMIT)

    steps: list[Callable[[], object]] = [
        lambda: connection.open("localhost", port),
        lambda: connection.open("localhost", port),
        lambda: connection.close(),
        lambda: connection.run(ECHO),
        lambda: connection.run(ECHO),
        lambda: connection.run(ECHO),
        lambda: connection.command(ECHO),
        lambda: connection.output(),
        lambda: list(connection.stream(ECHO)),
        lambda: next(connection.tokens(), None),
        lambda: connection.noop(),
        lambda: connection.set_timeout(10),
        lambda: connection.fileno(),
        lambda: repr(connection),
        lambda: connection.error(),
        lambda: connection.opened,
    ]

    def use(thread: int) -> None:
        chance = random.Random(seed * 1000 + thread)
        while not is_over():
            try:
                chance.choice(steps)()
            except remctl.RemctlError as error:
                failures.add(type(error).__name__)

    with nothing_left_behind():
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8)))
        connection.close()
    connection.open("localhost", port)
    assert connection.run(ECHO).stdout == b"hello\n"
    connection.close()
    return failures


@pytest.mark.parametrize("seed", [1, 2])
def test_threads_that_fight_over_a_connection_get_remctl_errors_only(
    remctl_server: RemctldServer, seed: int
) -> None:
    assert in_child(fight_over_a_connection, remctl_server.port, seed) >= SURE

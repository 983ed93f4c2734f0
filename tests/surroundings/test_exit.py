"""Commands while the interpreter exits: in atexit handlers, in late threads, in __del__."""

from __future__ import annotations

import asyncio
import atexit
import builtins
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.fakeserver import FakeServer, Peer, in_turn
from support.subprocesses import in_child

import remctl
from remctl_toolkit.aio import AsyncRemctl, aremctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

LIMIT = 20.0  # seconds after which a wait has failed
LATE = ["late", "command"]

# The server checks the calls, because an exiting process cannot report an exception. in_child()
# fails if the interpreter prints an ignored exception.
Call = Callable[[int], object]


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab) as server:
        yield server
    assert server.errors == []


def call_once(port: int) -> None:
    assert remctl.remctl("localhost", port, command=LATE, timeout=LIMIT).status == 0


def call_by_address(port: int) -> None:
    call = remctl.remctl("127.0.0.1", port, "host/localhost", LATE, timeout=LIMIT)
    assert call.status == 0


def use_session(port: int) -> None:
    with remctl.Remctl("localhost", port, timeout=LIMIT) as session:
        assert session.noop()
        assert session.run(LATE, input=bytes(1 << 20)).status == 0


def call_in_a_new_loop(port: int) -> None:
    assert asyncio.run(aremctl("localhost", port, command=LATE, timeout=LIMIT)).status == 0


async def use_async_session(port: int) -> None:
    async with AsyncRemctl("localhost", port, timeout=LIMIT) as session:
        assert await session.noop()
        assert (await session.run(LATE)).status == 0


def use_session_in_a_new_loop(port: int) -> None:
    asyncio.run(use_async_session(port))


CALLS: list[Call] = [
    call_once,
    call_by_address,
    use_session,
    call_in_a_new_loop,
    use_session_in_a_new_loop,
]
calls = pytest.mark.parametrize("call", CALLS)


def check_ran(server: FakeServer) -> None:
    assert [command[:2] for command in server.commands] == [[b"late", b"command"]]


# -- atexit ---------------------------------------------------------------------------------------


def call_at_exit(call: Call, port: int) -> None:
    atexit.register(call, port)


@calls
def test_atexit_handler(server: FakeServer, call: Call) -> None:
    in_child(call_at_exit, call, server.port)
    check_ran(server)


def reopen_at_exit(port: int) -> None:
    """Open a session, and use it for the first time in the handler."""
    session = remctl.Remctl("localhost", port, timeout=LIMIT)
    atexit.register(session.close)
    atexit.register(session.run, LATE)


def test_atexit_handler_with_a_session_that_was_open(server: FakeServer) -> None:
    in_child(reopen_at_exit, server.port)
    check_ran(server)


# -- Threads that outlive the main thread ---------------------------------------------------------


def call_after_main(call: Call, port: int) -> None:
    """Leave a thread that waits until the main thread has ended."""

    def work() -> None:
        main = threading.main_thread()
        main.join(LIMIT)
        # Python 3.12 refuses new threads as soon as the interpreter begins to exit, a moment after
        # it reports the end of the main thread.
        time.sleep(0.2)
        call(port)

    threading.Thread(target=work).start()


@calls
def test_thread_that_outlives_the_main_thread(server: FakeServer, call: Call) -> None:
    in_child(call_after_main, call, server.port)
    check_ran(server)


# -- __del__ --------------------------------------------------------------------------------------


class LastWords:
    """Object that makes a call when it is destroyed."""

    def __init__(self, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        self.call = call
        self.arguments = arguments
        self.keywords = keywords
        self.itself: object = None

    def __del__(self) -> None:
        self.call(*self.arguments, **self.keywords)


kept: list[object] = []


def keep_in_module(words: LastWords) -> None:
    kept.append(words)


def keep_in_cycle(words: LastWords) -> None:
    words.itself = words
    kept.append(words)


def keep_in_builtins(words: LastWords) -> None:
    builtins.last_words = words  # type: ignore[attr-defined]


KEEPERS = [keep_in_module, keep_in_cycle, keep_in_builtins]
keepers = pytest.mark.parametrize("keep", KEEPERS)


def call_when_destroyed(keep: Callable[[LastWords], None], port: int) -> None:
    keep(LastWords(remctl.remctl, "localhost", port, command=LATE, timeout=LIMIT))


@keepers
def test_del_opens_a_connection(server: FakeServer, keep: Callable[[LastWords], None]) -> None:
    in_child(call_when_destroyed, keep, server.port)
    check_ran(server)


def run_when_destroyed(keep: Callable[[LastWords], None], port: int) -> None:
    session = remctl.Remctl("localhost", port, timeout=LIMIT)
    words = LastWords(session.run, LATE)
    words.itself = LastWords(session.close)  # Destroyed after the command has run.
    keep(words)


@pytest.mark.parametrize("keep", [keep_in_module, keep_in_builtins])
def test_del_uses_an_open_session(server: FakeServer, keep: Callable[[LastWords], None]) -> None:
    in_child(run_when_destroyed, keep, server.port)
    check_ran(server)


def fail_when_destroyed(keep: Callable[[LastWords], None]) -> None:
    def call(refused: type[remctl.RemctlError] = remctl.RemctlConnectError) -> None:
        try:
            remctl_function("127.0.0.1", 1, command=LATE, timeout=LIMIT)
        except refused:
            return
        raise AssertionError("port 1 answers")

    remctl_function = remctl.remctl
    keep(LastWords(call))


@keepers
def test_del_gets_the_documented_exception(keep: Callable[[LastWords], None]) -> None:
    in_child(fail_when_destroyed, keep)


def leave_open(keep_list: bool, port: int) -> None:
    session = remctl.Remctl("localhost", port, timeout=LIMIT)
    if keep_list:
        kept.append([session])
    else:
        builtins.session = session  # type: ignore[attr-defined]


@pytest.mark.parametrize("keep_list", [True, False])
def test_a_session_that_is_left_open_closes_silently(server: FakeServer, keep_list: bool) -> None:
    in_child(leave_open, keep_list, server.port)


# -- Exiting while something waits ----------------------------------------------------------------


def exit_while_waiting(port: int) -> float:
    """Leave daemon threads that wait in every kind of call; return when the exit began."""
    session = remctl.Remctl("localhost", port)
    waits: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (session.run, (["silent"],)),
        (remctl.Remctl("localhost", port).noop, ()),
        (remctl.Remctl, ("localhost", port, "host/localhost")),
    ]
    for call, arguments in waits:
        threading.Thread(target=call, args=arguments, daemon=True).start()
    time.sleep(0.3)  # By then they are nearly always waiting.
    return time.monotonic()


def test_daemon_threads_that_wait_do_not_hold_up_the_exit(remctl_realm: Realm) -> None:
    def silent(peer: Peer) -> None:
        peer.accept()
        peer.stall()

    with FakeServer(remctl_realm.keytab, in_turn(silent, silent, Peer.stall)) as server:
        began = in_child(exit_while_waiting, server.port)
        assert time.monotonic() - began < LIMIT / 2

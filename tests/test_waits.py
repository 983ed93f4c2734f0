"""Every wait ends: by a signal, or by close() in another thread; wherever it happens."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.places import (
    COMMAND,
    LIMIT,
    Place,
    Wait,
    check_works_again,
    everywhere,
    waiting_for_output,
)
from support.standstill import await_standstill
from support.subprocesses import in_child
from support.waiting import eventually, nothing_left_behind

import remctl

if TYPE_CHECKING:
    from types import FrameType

pytestmark = pytest.mark.usefixtures("remctl_realm")

PROMPT = 0.2  # seconds in which a wait that is called off has to end


def check_prompt(attempt: Callable[[], float]) -> None:
    """Check that an attempt takes no longer than it must, once the machine has time for it."""
    eventually(lambda: attempt() < PROMPT, LIMIT, interval=0, what="an end at once")


# -- Signals --------------------------------------------------------------------------------------


class Called(Exception):
    """The exception of the program's signal handler."""


def raise_called(number: int, frame: FrameType | None) -> None:
    raise Called


def signal_meanwhile(sent: list[float]) -> threading.Thread:
    """Send SIGINT to this process, as the terminal does, once this thread of it waits."""
    thread = threading.current_thread()

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
        sender = signal_meanwhile(sent)
        try:
            wait.call()
        except exception:
            seconds = time.monotonic() - sent[0]
        else:
            raise AssertionError("not interrupted")
        sender.join()
        check_works_again(connection, wait, opened=not wait.opens)
    return seconds


def interrupt(place: Place, handler: Callable[..., object], exception: type[BaseException]) -> None:
    signal.signal(signal.SIGINT, handler)
    check_prompt(lambda: seconds_until_interrupted(place, exception))


@everywhere
@pytest.mark.parametrize(
    ("handler", "exception"),
    [(signal.default_int_handler, KeyboardInterrupt), (raise_called, Called)],
    ids=["ctrl-c", "own handler"],
)
def test_signal_ends_every_wait(
    place: Place, handler: Callable[..., object], exception: type[BaseException]
) -> None:
    in_child(interrupt, place, handler, exception)


def seconds_until_handled(place: Place) -> float:
    """Run a signal handler in the middle of a wait, which then goes on to its good end."""
    sent: list[float] = []
    handled: list[float] = []
    connection = remctl.Remctl()

    def let_go(wait: Wait, thread: threading.Thread) -> None:
        eventually(lambda: handled, LIMIT, what="the signal handler")
        await_standstill(thread)
        wait.let_go()

    signal.signal(signal.SIGINT, lambda *_: handled.append(time.monotonic()))
    with place(connection) as wait, ThreadPoolExecutor() as pool:
        sender = signal_meanwhile(sent)
        released = pool.submit(let_go, wait, threading.current_thread())
        ended = None
        try:
            wait.call()
        except remctl.RemctlError as error:
            ended = type(error)
        assert ended is wait.ending
        sender.join()
        released.result()
    return handled[0] - sent[0]


def handle(place: Place) -> None:
    check_prompt(lambda: seconds_until_handled(place))


@everywhere
def test_signal_handler_that_returns_lets_every_wait_go_on(place: Place) -> None:
    in_child(handle, place)


def interrupt_from_another_thread() -> None:
    """Have the kernel give the signal to a thread that is not the one that waits."""

    def attempt() -> float:
        sent: list[float] = []

        def send(thread: threading.Thread) -> None:
            await_standstill(thread)
            sent.append(time.monotonic())
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        connection = remctl.Remctl()
        with waiting_for_output(connection) as wait:
            sender = threading.Thread(target=send, args=(threading.current_thread(),))
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                wait.call()
            seconds = time.monotonic() - sent[0]
            sender.join()
        return seconds

    signal.signal(signal.SIGINT, signal.default_int_handler)
    check_prompt(attempt)


def test_signal_that_another_thread_gets_ends_the_wait() -> None:
    in_child(interrupt_from_another_thread)


def interrupt_while_another_thread_is_served() -> None:
    """Interrupt a thread that waits for its turn; the thread whose turn it is goes on."""

    def attempt() -> float:
        sent: list[float] = []
        connection = remctl.Remctl()
        with waiting_for_output(connection) as wait, ThreadPoolExecutor() as pool:
            first = pool.submit(wait.call)
            eventually(lambda: "running" in repr(connection))
            sender = signal_meanwhile(sent)
            with pytest.raises(KeyboardInterrupt):
                connection.run(COMMAND)
            seconds = time.monotonic() - sent[0]
            sender.join()
            assert not first.done()
            wait.let_go()
            assert first.result() == remctl.RemctlSimpleResult(status=0)
        return seconds

    signal.signal(signal.SIGINT, signal.default_int_handler)
    check_prompt(attempt)


def test_signal_ends_the_wait_for_another_threads_command() -> None:
    in_child(interrupt_while_another_thread_is_served)


# -- close() from another thread ------------------------------------------------------------------


def seconds_until_closed(place: Place) -> float:
    """Close a connection that this thread waits on; check that it is of use afterwards."""
    times: list[float] = []
    thread = threading.current_thread()
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
    check_prompt(lambda: seconds_until_closed(place))


@everywhere
def test_close_from_the_main_thread_ends_every_wait_of_a_thread(place: Place) -> None:
    def attempt() -> float:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(seconds_until_closed, place).result()

    check_prompt(attempt)


def test_close_ends_all_that_wait_for_their_turn() -> None:
    threads: list[threading.Thread] = []

    def run() -> None:
        threads.append(threading.current_thread())
        connection.run(COMMAND)

    connection = remctl.Remctl()
    with waiting_for_output(connection) as wait, ThreadPoolExecutor(4) as pool:
        first = pool.submit(wait.call)
        eventually(lambda: "running" in repr(connection))
        others = [pool.submit(run) for _ in range(3)]
        eventually(lambda: len(threads) == len(others))
        for thread in threads:
            await_standstill(thread)
        connection.close()
        assert isinstance(first.exception(LIMIT), remctl.RemctlNotOpenedError)
        for other in others:
            assert isinstance(other.exception(LIMIT), remctl.RemctlNotOpenedError)
        connection.open("localhost", wait.port)
        assert connection.run(COMMAND).stdout == b"some command\n"

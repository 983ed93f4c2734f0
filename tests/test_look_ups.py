"""Looking up a name that takes its time: what ends it, and that the connection is of use then.

The name exists in child processes only, where getaddrinfo() is replaced (support/preload.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fakeserver import FakeServer
from support.preload import preloaded
from support.subprocesses import in_child
from support.waiting import PATIENCE, nothing_left_behind

import remctl
from remctl_toolkit.aio import AsyncRemctl

if TYPE_CHECKING:
    from types import FrameType

    from remctl_toolkit.testing import Realm

NAME = "slow.test"
PRINCIPAL = "host/localhost"
COMMAND = ["some", "command"]
SLOW = 20.0 * PATIENCE  # seconds that a look-up takes unless it is ended
LATE = 0.6 * PATIENCE  # seconds that one takes which is not
SOON = 5.0 * PATIENCE  # seconds that the end may take on a machine that is busy
MOMENT = 0.3  # seconds after which a look-up is going on
TIMED_OUT = f"unknown host {NAME}: timed out looking it up"


class Called(Exception):
    """The exception of the program's signal handler."""


def raise_called(number: int, frame: FrameType | None) -> None:
    raise Called


@pytest.fixture
def server(remctl_realm: Realm) -> Iterator[FakeServer]:
    with FakeServer(remctl_realm.keytab, host="127.0.0.1") as server:
        yield server
    assert server.errors == []


@contextlib.contextmanager
def look_ups(folder: Path, seconds: float) -> Iterator[None]:
    """Have looking up NAME take so long."""
    delay = str(round(seconds * 1000))
    with preloaded("resolver", folder, FAKE_HOSTS=f"{NAME}=127.0.0.1", FAKE_HOSTS_DELAY=delay):
        yield


def end_soon(call: Callable[[], object], reason: type[BaseException]) -> BaseException:
    """Check that a call ends for this reason, and long before the look-up."""
    start = time.monotonic()
    try:
        call()
    except reason as error:
        assert time.monotonic() - start < SOON
        return error
    raise AssertionError(f"not ended by {reason.__name__}")


def check_works_again(connection: remctl.Remctl, port: int) -> None:
    """Check that the connection is not open, and can be opened."""
    with pytest.raises(remctl.RemctlNotOpenedError, match="no currently open connection"):
        connection.run(COMMAND)
    connection.set_timeout(0)
    with connection:
        connection.open("127.0.0.1", port, PRINCIPAL)
        assert connection.run(COMMAND).stdout == b"some command\n"


# -- Ends -----------------------------------------------------------------------------------------


def end_by_timeout(port: int) -> None:
    connection = remctl.Remctl(timeout=MOMENT)
    error = end_soon(lambda: connection.open(NAME, port), remctl.RemctlTimeoutError)
    assert str(error) == connection.error() == TIMED_OUT
    assert isinstance(error, remctl.RemctlTimeoutError)
    assert (error.host, error.port, error.may_have_run) == (NAME, port, False)
    check_works_again(connection, port)


def end_by_timeout_in_simple_call(port: int) -> None:
    error = end_soon(
        lambda: remctl.remctl(NAME, port, command=COMMAND, timeout=MOMENT),
        remctl.RemctlTimeoutError,
    )
    assert str(error) == TIMED_OUT


def end_by_deadline(port: int) -> None:
    error = end_soon(
        lambda: remctl.remctl(NAME, port, command=COMMAND, deadline=MOMENT),
        remctl.RemctlTimeoutError,
    )
    assert str(error) == f"unknown host {NAME}: deadline passed looking it up"


def end_by_close(port: int) -> None:
    connection = remctl.Remctl()
    closer = threading.Timer(MOMENT, connection.close)
    closer.start()
    error = end_soon(lambda: connection.open(NAME, port), remctl.RemctlNotOpenedError)
    assert str(error) == "connection closed by another thread"
    closer.join()
    check_works_again(connection, port)


def end_when_opened_again(port: int) -> None:
    """The look-up is that of a command whose connection was not made before."""
    connection = remctl.Remctl(NAME, port, timeout=MOMENT, connect=False)
    for _ in range(2):
        error = end_soon(lambda: connection.run(COMMAND), remctl.RemctlTimeoutError)
        assert str(error) == TIMED_OUT
        assert connection.opened


def in_thread(call: Callable[[int], None], port: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call, port).result()


ENDS = [
    end_by_timeout,
    end_by_timeout_in_simple_call,
    end_by_deadline,
    end_by_close,
    end_when_opened_again,
]


@pytest.mark.parametrize("end", ENDS)
def test_look_up_ends_at_once(
    server: FakeServer, tmp_path: Path, end: Callable[[int], None]
) -> None:
    with look_ups(tmp_path, SLOW):
        in_child(end, server.port)


@pytest.mark.parametrize("end", ENDS)
def test_look_up_of_a_thread_ends_at_once(
    server: FakeServer, tmp_path: Path, end: Callable[[int], None]
) -> None:
    with look_ups(tmp_path, SLOW):
        in_child(in_thread, end, server.port)


def end_and_wait(port: int) -> None:
    connection = remctl.Remctl(timeout=MOMENT)
    with nothing_left_behind():
        for _ in range(3):
            end_soon(lambda: connection.open(NAME, port), remctl.RemctlTimeoutError)


def test_look_ups_that_were_ended_leave_nothing_behind(server: FakeServer, tmp_path: Path) -> None:
    with look_ups(tmp_path, 2.0):
        in_child(end_and_wait, server.port)


# -- Signals --------------------------------------------------------------------------------------


def signal_soon() -> threading.Timer:
    """Send SIGINT to this process, as the terminal does, while the main thread waits."""
    timer = threading.Timer(MOMENT, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def end_by_signal(port: int, handler: Callable[..., object], reason: type[BaseException]) -> None:
    signal.signal(signal.SIGINT, handler)
    connection = remctl.Remctl()
    sender = signal_soon()
    end_soon(lambda: connection.open(NAME, port), reason)
    sender.join()
    check_works_again(connection, port)


@pytest.mark.parametrize(
    ("handler", "reason"),
    [(signal.default_int_handler, KeyboardInterrupt), (raise_called, Called)],
    ids=["ctrl-c", "own handler"],
)
def test_signal_ends_a_look_up(
    server: FakeServer,
    tmp_path: Path,
    handler: Callable[..., object],
    reason: type[BaseException],
) -> None:
    with look_ups(tmp_path, SLOW):
        in_child(end_by_signal, server.port, handler, reason)


def go_on(port: int) -> float:
    """Return the seconds from the beginning until the signal handler ran."""
    handled: list[float] = []
    signal.signal(signal.SIGINT, lambda *_: handled.append(time.monotonic()))
    start = time.monotonic()
    sender = signal_soon()
    with remctl.Remctl(NAME, port, PRINCIPAL) as connection:
        assert time.monotonic() - start >= 5 * LATE
        assert connection.run(COMMAND).stdout == b"some command\n"
    sender.join()
    return handled[0] - start


def test_signal_handler_that_returns_lets_a_look_up_go_on(
    server: FakeServer, tmp_path: Path
) -> None:
    with look_ups(tmp_path, 5 * LATE):
        assert in_child(go_on, server.port) < 4 * LATE


# -- asyncio --------------------------------------------------------------------------------------


async def cancel(port: int) -> None:
    connection = AsyncRemctl()
    start = time.monotonic()
    task = asyncio.create_task(connection.open(NAME, port))
    await asyncio.sleep(MOMENT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(MOMENT):
            await connection.open(NAME, port)
    assert time.monotonic() - start < SOON
    await check_works_again_async(connection, port)


async def time_out(port: int) -> None:
    connection = AsyncRemctl(timeout=MOMENT)
    start = time.monotonic()
    with pytest.raises(remctl.RemctlTimeoutError) as caught:
        await connection.open(NAME, port)
    assert str(caught.value) == connection.error() == TIMED_OUT
    assert time.monotonic() - start < SOON
    await check_works_again_async(connection, port)


async def close(port: int) -> None:
    connection = AsyncRemctl()
    start = time.monotonic()
    task = asyncio.create_task(connection.open(NAME, port))
    await asyncio.sleep(MOMENT)
    await connection.close()
    with pytest.raises(remctl.RemctlNotOpenedError, match="closed by another task"):
        await task
    assert time.monotonic() - start < SOON
    await check_works_again_async(connection, port)


async def check_works_again_async(connection: AsyncRemctl, port: int) -> None:
    assert not connection.opened
    connection.set_timeout(0)
    async with connection:
        await connection.open("127.0.0.1", port, PRINCIPAL)
        assert (await connection.run(COMMAND)).stdout == b"some command\n"


def run(how: Callable[[int], object], port: int) -> None:
    asyncio.run(how(port))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [cancel, time_out, close])
def test_task_that_looks_a_name_up_ends_at_once(
    server: FakeServer, tmp_path: Path, how: Callable[[int], object]
) -> None:
    with look_ups(tmp_path, SLOW):
        in_child(run, how, server.port)

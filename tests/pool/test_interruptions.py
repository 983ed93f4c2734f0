"""Pools under Ctrl-C, fork, and destructors that come at any moment."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from support.standstill import await_standstill
from support.subprocesses import in_child
from support.waiting import PATIENCE, eventually

import remctl
from remctl_toolkit import _pool_ledger
from remctl_toolkit._pool_ledger import Lease, Ledger, ThreadGate
from remctl_toolkit._pool_map import Workers
from remctl_toolkit.pool import Pool, PoolClosedError, PoolStats

if TYPE_CHECKING:
    from pool.conftest import HoldingServer

LIMIT = 30.0  # seconds after which a wait has failed


# -- Fork -----------------------------------------------------------------------------------------


def in_fork(work: Callable[[], object]) -> None:
    """Do some work in a forked child, and check that it went well."""
    with warnings.catch_warnings():  # Forking with threads about is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        signal.alarm(round(20 * PATIENCE))
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def use_in_fork(port: int) -> None:
    def hold() -> None:  # In the child, nobody ever releases it.
        with pool._ledger.lock:
            held.set()
            forked.wait(LIMIT)

    def work() -> None:
        assert pool.stats == PoolStats(0, 0, 0, 0)
        assert pool.run(["child"]).stdout == b"child\n"
        pool.close()

    held, forked = threading.Event(), threading.Event()
    pool = Pool("localhost", port, size=1, timeout=LIMIT)
    pool.run(["parent"])
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(LIMIT)
    in_fork(work)
    forked.set()
    thread.join()
    assert pool.run(["parent"]).stdout == b"parent\n"
    assert pool.stats == PoolStats(1, 0, 0, 1)
    pool.close()


def test_a_forked_child_has_a_pool_of_its_own(server: HoldingServer) -> None:
    in_child(use_in_fork, server.port)
    assert server.connections == 2
    assert server.commands == [[b"parent"], [b"child"], [b"parent"]]


def leave_in_fork(port: int) -> None:
    def leave() -> None:
        block.__exit__(None, None, None)
        assert pool.stats == PoolStats(0, 0, 0, 0)

    def iterate() -> None:
        with pytest.raises(remctl.RemctlNotOpenedError, match="belongs to process"):
            list(outcomes)

    with Pool("localhost", port, size=2, timeout=LIMIT) as pool:
        block = pool.session()
        session = block.__enter__()
        in_fork(leave)
        assert session.run(["parent"]).stdout == b"parent\n"
        block.__exit__(None, None, None)
        outcomes = pool.map([["x"]] * 10)
        next(outcomes)
        in_fork(iterate)
        assert len(list(outcomes)) == 9


def iterate_where_none_waits(port: int) -> None:
    """Fork where the child would begin a command before it waits for one."""
    start = Workers.start
    started = []

    def start_and_await(self: Workers, job: tuple[int, Any]) -> None:
        started.append(job)
        start(self, job)
        eventually(lambda: not self.outcomes.empty())

    def iterate() -> None:
        with pytest.raises(remctl.RemctlNotOpenedError, match="belongs to process"):
            list(outcomes)
        assert len(started) == 1

    with (
        pytest.MonkeyPatch.context() as patch,
        Pool("localhost", port, size=2, timeout=LIMIT) as pool,
    ):
        patch.setattr(Workers, "start", start_and_await)
        outcomes = pool.map([["x"]] * 3)
        next(outcomes)
        in_fork(iterate)
        outcomes.close()


def test_a_child_begins_no_command_of_its_parents_map(server: HoldingServer) -> None:
    in_child(iterate_where_none_waits, server.port)
    assert server.commands == [[b"x"]]


def test_blocks_and_iterations_of_the_parent(server: HoldingServer) -> None:
    in_child(leave_in_fork, server.port)
    assert server.connections == 2


# -- Ctrl-C ---------------------------------------------------------------------------------------


def interrupt_calls(port: int) -> None:
    """Ctrl-C while a call waits for a session, runs a command, or waits for an outcome."""

    def when(condition: Callable[[], bool]) -> None:
        def work() -> None:
            eventually(condition)
            await_standstill(threading.main_thread(), __file__)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=work, daemon=True).start()

    with Pool("localhost", port, size=1, timeout=LIMIT) as pool:
        with pool.session():
            when(lambda: pool.stats.waiting == 1)
            with pytest.raises(KeyboardInterrupt):
                pool.run(["x"])
        assert pool.stats == PoolStats(1, 0, 0, 1)
        when(lambda: pool.stats.in_use == 1)
        with pytest.raises(KeyboardInterrupt):
            pool.run(["wait"])
        eventually(lambda: pool.stats[:3] == (0, 0, 0))
        when(lambda: pool.stats.in_use == 1)
        with pytest.raises(KeyboardInterrupt):
            next(pool.map(itertools.repeat(["wait"])))
        eventually(lambda: pool.stats[:3] == (0, 0, 0))
        assert pool.run(["x"]).status == 0


def test_ctrl_c_gives_places_back(server: HoldingServer) -> None:
    in_child(interrupt_calls, server.port)


class FakeSession:
    """Stands in for a session where nothing is opened."""


def new_lease(ledger: Ledger[Any]) -> Lease[Any]:
    return Lease(ledger, ThreadGate())


@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupt_at_any_line_loses_no_place(keep: bool) -> None:
    lines = itertools.count(1)
    while interrupted_release(next(lines), keep):
        pass
    assert next(lines) > 15


def interrupted_release(line: int, keep: bool) -> bool:
    """Interrupt release() at a line; check that others get their turn.  False: it has fewer."""
    ledger: Ledger[Any] = Ledger(1, 1, 1000)
    first, second, third = (new_lease(ledger) for _ in range(3))
    ledger.request(first)
    first.session = FakeSession()
    ledger.note_opened(first)
    ledger.request(second)
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != _pool_ledger.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        ledger.release(first, keep)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.settrace(before)
    del first
    gc.collect()
    ledger.request(third)
    assert second.granted
    assert second.gate.wait(0)
    assert not third.granted
    ledger.release(second, keep=False)
    assert third.granted
    ledger.release(third, keep=False)
    assert ledger.stats()[:3] == (0, 0, 0)
    return interrupted


def test_a_lease_that_is_dropped_passes_its_place_on() -> None:
    ledger: Ledger[Any] = Ledger(1, 1, 1000)
    first, second = new_lease(ledger), new_lease(ledger)
    ledger.request(first)
    ledger.request(second)
    assert not second.granted
    del first
    gc.collect()
    assert second.granted
    ledger.release(second, keep=False)


def test_a_lease_whose_session_is_replaced_is_next() -> None:
    ledger: Ledger[Any] = Ledger(1, 1, 1000)
    first, second = new_lease(ledger), new_lease(ledger)
    ledger.request(first)
    first.session = FakeSession()
    ledger.request(second)
    ledger.replace(first)
    assert first.granted
    assert first.session is None
    assert not second.granted
    ledger.release(first, keep=False)
    ledger.release(second, keep=False)


def test_a_session_of_another_process_is_not_kept() -> None:
    ledger: Ledger[Any] = Ledger(1, 1, 1000)
    lease = new_lease(ledger)
    ledger.request(lease)
    lease.session = session = FakeSession()
    ledger._reset()  # What a forked child does first.
    assert ledger.release(lease, keep=True) == [session]
    assert ledger.stats()[:3] == (0, 0, 0)


# -- Destructors ----------------------------------------------------------------------------------


def test_a_destructor_may_close_the_pool_at_any_line(server: HoldingServer) -> None:
    for line in itertools.count(1):
        if not closed_in_the_middle(server.port, line):
            break
    assert line > 30


def closed_in_the_middle(port: int, line: int) -> bool:
    """Close a pool while the same thread is at some line of the bookkeeping."""
    pool = Pool("localhost", port, size=1, timeout=LIMIT)
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != _pool_ledger.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                pool.close()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(2):
            pool.run(["x"])
    except remctl.RemctlNotOpenedError:
        pass
    finally:
        sys.settrace(before)
    closed = pool.closed
    if not closed:
        pool.close()
    gc.collect()  # A session that was left open warns, which is an error.
    assert pool.stats[1:3] == (0, 0)
    with pytest.raises(PoolClosedError):
        pool.run(["x"])
    return closed


def test_a_pool_can_be_closed_while_its_lock_is_held() -> None:
    pool = Pool("localhost")
    with pool._ledger.lock:
        pool.close()
    assert pool.closed


def test_an_iteration_that_is_dropped_lets_its_threads_go(server: HoldingServer) -> None:
    with Pool("localhost", server.port, size=3, timeout=LIMIT) as pool:
        outcomes = pool.map(itertools.repeat(["x"]))
        next(outcomes)
        start = time.monotonic()
        del outcomes
        gc.collect()
        eventually(
            lambda: not any(thread.name == "remctl-pool" for thread in threading.enumerate())
        )
        assert time.monotonic() - start < LIMIT

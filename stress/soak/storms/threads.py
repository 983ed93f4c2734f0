"""Threads with a session each, with a shared session, and with a thread that closes sessions."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import remctl

from ..run import TIMEOUT, Run

AT_ONCE = 8


def in_threads(run: Run, work: Callable[[], None], count: int) -> None:
    """Run a function in COUNT new threads, several at a time."""
    slots = threading.Semaphore(AT_ONCE)

    def do() -> None:
        try:
            work()
        except Exception as error:
            run.lose(f"{type(error).__name__}: {error}")
        finally:
            slots.release()

    threads: list[threading.Thread] = []
    for _ in range(count):
        slots.acquire()
        thread = threading.Thread(target=do)
        thread.start()
        threads = [thread, *(each for each in threads if each.is_alive())]
    for thread in threads:
        thread.join()


def own(run: Run) -> None:
    """Start threads that open a session, run a few commands and close it."""

    def work() -> None:
        with run.session() as session:
            for _ in range(3):
                run.ask(session)
        run.step()

    run.judge(lambda count: in_threads(run, work, count))


def shared(run: Run) -> None:
    """Run commands over one session in several threads at the same time."""
    with run.session() as session:

        def part(count: int) -> None:
            def work() -> None:
                for _ in range(count // AT_ONCE):
                    run.ask(session)
                    run.step()

            in_threads(run, work, AT_ONCE)

        run.judge(part)


@contextmanager
def closing(sessions: list[remctl.Remctl], seconds: float) -> Iterator[None]:
    """Close one session after the other in a thread, at random moments."""
    chance = random.Random(1)
    ended = threading.Event()

    def close() -> None:
        while not ended.wait(chance.random() * seconds):
            chance.choice(sessions).close()

    thread = threading.Thread(target=close)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def closes(run: Run) -> None:
    """Use sessions that another thread closes: a command gets its reply, or a documented error."""

    def use(session: remctl.Remctl, count: int) -> None:
        left = count
        while left:
            try:
                run.ask(session)
            except remctl.RemctlNotOpenedError:
                left -= 1
                run.note("closed by another thread")
                run.step()
                open_again(session)

    def open_again(session: remctl.Remctl) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return session.open("localhost", run.port)
            except remctl.RemctlNotOpenedError:
                run.note("closed while opening")
                if time.monotonic() > deadline:
                    raise

    def part(count: int) -> None:
        sessions = [run.session() for _ in range(4)]
        todo = iter(sessions)
        with closing(sessions, 0.03):
            in_threads(run, lambda: use(next(todo), count // 4), 4)
        for session in sessions:
            session.close()

    run.judge(part)

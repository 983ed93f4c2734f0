"""Signals, handlers that raise, and timeouts: no command may get the reply of an earlier one."""

from __future__ import annotations

import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import remctl

from ..run import TIMEOUT, Run

INTERVAL = 0.003  # seconds between two signals


class Interruption(Exception):
    """Exception of the signal handler."""


class Alarms:
    """A signal handler that counts, and raises now and then while it is `armed`."""

    def __init__(self, raising: float) -> None:
        self._raising = raising
        self._chance = random.Random(1)
        self.armed = False
        self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1  # No lock, because the interrupted thread may hold it.
        if self.armed and self._chance.random() < self._raising:
            self.armed = False
            raise Interruption

    @contextmanager
    def blow(self) -> Iterator[None]:
        """Send signals during the block."""
        before = signal.signal(signal.SIGALRM, self)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def storm_of_signals(run: Run, raising: float) -> None:
    """Run commands over a session, and open one now and then, while signals arrive."""
    alarms = Alarms(raising)

    def try_step(step: int) -> None:
        try:
            try:
                alarms.armed = True
                if step % 20 == 19:
                    session.open("localhost", run.port)
                run.ask(session, by_token=step % 3 == 2)
            finally:
                alarms.armed = False
        except Interruption:
            run.note("interrupted")
            if not session.opened:  # open() was interrupted.
                session.open("localhost", run.port)

    def part(count: int) -> None:
        with alarms.blow():
            for step in range(count):
                try:
                    try_step(step)
                except remctl.RemctlError as error:
                    run.lose(f"under signals: {type(error).__name__}: {error}")
                    session.open("localhost", run.port)
                run.step()
        run.ask(session)  # Resources are measured while the session is open.

    with run.session() as session:
        run.judge(part)
        check_lock(run, session)
    run.note("signals", alarms.count)


def check_lock(run: Run, session: remctl.Remctl) -> None:
    """Check that an interruption did not leave the session locked."""
    thread = threading.Thread(target=run.ask, args=(session,), daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if thread.is_alive():
        run.fail("no other thread can use the session any more")


def signals(run: Run) -> None:
    """Run commands while signals arrive whose handler returns."""
    storm_of_signals(run, 0)


def raising(run: Run) -> None:
    """Run commands while signals arrive whose handler raises one time in three."""
    # Python's socket warns if it is dropped between two steps, but is closed all the same.
    warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
    storm_of_signals(run, 1 / 3)


def timeouts(run: Run) -> None:
    """Run commands that take about as long as the timeout allows."""
    chance = random.Random(1)

    def part(count: int) -> None:
        for _ in range(count):
            session.set_timeout(0.005 + 0.02 * chance.random())
            number = run.number()
            try:
                delay = f"0.0{chance.randrange(30):02d}"
                run.reply(number, session.run(["late", str(number), delay]).stdout)
            except remctl.RemctlTimeoutError:
                run.note("timed out")
            except remctl.RemctlError as error:
                run.lose(f"with a timeout: {type(error).__name__}: {error}")
            run.step()
        session.set_timeout(TIMEOUT)
        run.ask(session)

    with run.session() as session:
        run.judge(part)

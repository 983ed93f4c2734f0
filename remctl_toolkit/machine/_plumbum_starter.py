"""Starts what has waited long enough for a word on how it is to be started."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class _Waiting(NamedTuple):
    date: float
    number: int  # for two of the same date: functions cannot be compared
    start: Callable[[], None]


class Starter:
    """One thread that calls functions after a while, each in a thread of its own.

    That a function is not needed any more it has to find out itself: what comes in time must cost
    nothing.
    """

    def __init__(self) -> None:
        """No thread yet."""
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def add(self, start: Callable[[], None], seconds: float) -> None:
        """Call `start` after so many seconds."""
        if self._pid != os.getpid():
            self._forget()  # The thread is the parent's.
        with self._changed:
            new = _Waiting(time.monotonic() + seconds, next(self._numbers), start)
            heapq.heappush(self._waiting, new)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="remctl-starter", daemon=True
                )
                self._thread.start()
            elif self._waiting[0] is new:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            start = self._next()
            threading.Thread(target=start, name="remctl-start", daemon=True).start()
            del start

    def _next(self) -> Callable[[], None]:
        with self._changed:
            while True:
                if not self._waiting:
                    self._changed.wait()
                    continue
                left = self._waiting[0].date - time.monotonic()
                if left <= 0:
                    return heapq.heappop(self._waiting).start
                self._changed.wait(left)


starter = Starter()

"""Starts what has waited long enough for a word on how it is to be started."""

from __future__ import annotations

import heapq
import itertools
import math
import os
import threading
import time
from typing import NamedTuple, Protocol

_LOOK = 0.01  # seconds


class Late(Protocol):
    """What may have to be started late."""

    def is_waiting(self) -> bool:
        """Whether it is not started, and not over."""

    def start_late(self) -> None:
        """Start it."""


class _Waiting(NamedTuple):
    date: float
    number: int  # for two of the same date: the rest cannot be compared
    what: Late


class Starter:
    """One thread that starts what is still waiting after a while, each in a thread of its own.

    What has started by itself in time, nearly everything, costs next to nothing.
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
        self._wakes = 0.0  # when the thread does by itself

    def add(self, what: Late, seconds: float) -> None:
        """Start it after so many seconds, if it still waits then."""
        if self._pid != os.getpid():
            self._forget()  # The thread is the parent's.
        date = time.monotonic() + seconds
        with self._changed:
            heapq.heappush(self._waiting, _Waiting(date, next(self._numbers), what))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="remctl-starter", daemon=True
                )
                self._thread.start()
            elif date < self._wakes:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            what = self._next()
            threading.Thread(target=what.start_late, name="remctl-start", daemon=True).start()
            del what

    def _next(self) -> Late:
        with self._changed:
            busy = True
            while True:
                # All of them, or each command would wake us once.
                self._waiting = [one for one in self._waiting if one.what.is_waiting()]
                heapq.heapify(self._waiting)
                now = time.monotonic()
                if self._waiting:
                    busy = True
                    self._wakes = self._waiting[0].date
                    if self._wakes <= now:
                        return heapq.heappop(self._waiting).what
                else:
                    # One command follows another: it is cheaper to look than to be woken by each.
                    self._wakes = now + _LOOK if busy else math.inf
                    busy = False
                self._changed.wait(None if self._wakes == math.inf else self._wakes - now)


starter = Starter()

"""Starts what has waited long enough for a word on how it is to be started."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from typing import NamedTuple, Protocol


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

    def add(self, what: Late, seconds: float) -> None:
        """Start it after so many seconds, if it still waits then."""
        if self._pid != os.getpid():
            self._forget()  # The thread is the parent's.
        with self._changed:
            new = _Waiting(time.monotonic() + seconds, next(self._numbers), what)
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
            what = self._next()
            threading.Thread(target=what.start_late, name="remctl-start", daemon=True).start()
            del what

    def _next(self) -> Late:
        with self._changed:
            while True:
                # All of them, or each command would wake us once.
                self._waiting = [one for one in self._waiting if one.what.is_waiting()]
                heapq.heapify(self._waiting)
                if not self._waiting:
                    self._changed.wait()
                    continue
                left = self._waiting[0].date - time.monotonic()
                if left <= 0:
                    return heapq.heappop(self._waiting).what
                self._changed.wait(left)


starter = Starter()

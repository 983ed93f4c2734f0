"""Starts what has waited long enough for a word on how it is to be started."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class _Waiting(NamedTuple):
    since: float
    seconds: float
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
        self._waiting: deque[_Waiting] = deque()
        self._thread: threading.Thread | None = None

    def add(self, start: Callable[[], None], seconds: float) -> None:
        """Call `start` after so many seconds, and after all that was added before."""
        if self._pid != os.getpid():
            self._forget()  # The thread is the parent's.
        with self._changed:
            self._waiting.append(_Waiting(time.monotonic(), seconds, start))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="remctl-starter", daemon=True
                )
                self._thread.start()
            elif len(self._waiting) == 1:
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
                first = self._waiting[0]
                left = first.since + first.seconds - time.monotonic()
                if left <= 0:
                    return self._waiting.popleft().start
                self._changed.wait(left)


starter = Starter()

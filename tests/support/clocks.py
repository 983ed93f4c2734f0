"""Clocks that tests control."""

from __future__ import annotations

import threading

from remctl_toolkit.schedule import Clock


class HeldClock(Clock):
    """A clock that stands still until `advance()` is called; waiting threads poll it.

    Attributes:
        waits: the timeout of each wait so far, in seconds, or None.
    """

    def __init__(self) -> None:
        self.waits: list[float | None] = []
        self._now = 1000.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def now(self) -> float:
        return self._now

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        self.waits.append(seconds)
        end = None if seconds is None else self._now + seconds
        while not event.wait(0.005):
            if end is not None and self._now >= end:
                return False
        return True


class SkippingClock(HeldClock):
    """A clock on which each wait times out at once, unless its event is set."""

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        if seconds is None:
            return super().wait(event, None)
        self.waits.append(seconds)
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

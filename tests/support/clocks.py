"""A clock that tests hold: time passes when they say so."""

from __future__ import annotations

import threading

from remctl_toolkit.schedule import Clock


class HeldClock(Clock):
    """Stands still until `advance()` is called; whoever waits looks for it often.

    Attributes:
        waits: for each wait so far, the seconds that it was to take, or None.
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
    """Lets the time of each wait pass at once, unless something has come already."""

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        if seconds is None:
            return super().wait(event, None)
        self.waits.append(seconds)
        if not event.is_set():
            self.advance(seconds)
        return event.is_set()

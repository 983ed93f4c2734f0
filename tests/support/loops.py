"""Measure the callbacks of an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

__all__ = ["Callbacks", "watched_callbacks"]


class Callbacks:
    """The callbacks that a loop ran.

    Attributes:
        longest: longest duration in seconds.
        busiest: most processor time in seconds, which other processes do not change.
        slowest: the callback with the longest duration, as text.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.busiest = 0.0
        self.slowest = ""

    def add(self, seconds: float, processor: float, callback: str) -> None:
        """Add one."""
        self.busiest = max(self.busiest, processor)
        if seconds > self.longest:
            self.longest = seconds
            self.slowest = callback


@contextlib.contextmanager
def watched_callbacks() -> Iterator[Callbacks]:
    """Measure each callback that an asyncio loop runs in the block; uvloop has others."""
    callbacks = Callbacks()
    run = asyncio.Handle._run

    def timed(handle: Any) -> None:
        start, processor = time.perf_counter(), time.thread_time()
        try:
            run(handle)
        finally:
            took = time.perf_counter() - start
            text = repr(handle) if took > callbacks.longest else ""
            callbacks.add(took, time.thread_time() - processor, text)

    with mock.patch.object(asyncio.Handle, "_run", timed):
        yield callbacks

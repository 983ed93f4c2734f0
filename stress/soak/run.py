"""Tools of a storm: sessions, counters, and the measurement of its steps.

A command sends a number, which the server returns. So lost and swapped replies are found.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import remctl

from .figures import Outcome
from .held import held

__all__ = ["TIMEOUT", "Run"]

T = TypeVar("T")

TIMEOUT = 30.0  # seconds of silence after which a session that should work has failed
_PROGRESS_INTERVAL = 0.5  # seconds
_TOLD_FAILURES = 5


class Run:
    """One storm: `judge()` runs its steps, first to warm up, then to measure.

    Several threads may use everything except `judge()`.

    Attributes: ``port``, the server's port on localhost; ``steps``, the number of measured steps;
    ``warm_up``, the number of steps before.
    """

    def __init__(self, name: str, port: int, steps: int, warm_up: int) -> None:
        self.name = name
        self.port = port
        self.steps = steps
        self.warm_up = warm_up
        self._lock = threading.Lock()
        self._next_number = 0
        self._done = 0
        self._next_progress = 0.0
        self._counts: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._failures: list[str] = []

    def session(self, timeout: float = TIMEOUT) -> remctl.Remctl:
        """Open a session."""
        return remctl.Remctl("localhost", self.port, timeout=timeout)

    def number(self) -> int:
        """Return a new number for a command."""
        with self._lock:
            self._next_number += 1
            return self._next_number

    def ask(self, session: remctl.Remctl, *, by_token: bool = False) -> None:
        """Run a command, and check its reply."""
        number = self.number()
        command = ["number", str(number)]
        if by_token:
            tokens = list(session.stream(command))
            octets = b"".join(token.output or b"" for token in tokens) or None
        else:
            octets = session.run(command).stdout
        self.reply(number, octets)

    def reply(self, number: int, octets: bytes | None) -> None:
        """Count a reply."""
        if octets == b"%d\n" % number:
            self._count("replies")
        elif octets is None:
            self.lose(f"command {number} got no reply")
        else:
            self._count("swapped", f"command {number} got {octets[:40]!r}")

    def lose(self, text: str) -> None:
        """Count a lost command."""
        self._count("lost", text)

    def note(self, what: str, times: int = 1) -> None:
        """Count another event."""
        with self._lock:
            self._notes[what] += times

    def fail(self, text: str) -> None:
        """Report a failure other than a lost or swapped reply."""
        self._count("failures", text)

    def _count(self, what: str, failure: str = "") -> None:
        with self._lock:
            self._counts[what] += 1
            if failure and len(self._failures) < _TOLD_FAILURES:
                self._failures.append(failure)

    def step(self) -> None:
        """Count a finished step."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if now < self._next_progress:
                return
            self._next_progress = now + _PROGRESS_INTERVAL
            tell("progress", [self._done, self.warm_up + self.steps])

    def judge(self, part: Callable[[int], object]) -> None:
        """Run a function for the warm-up and for the measured steps; it gets their number."""
        part(self.warm_up)
        self._before = held()
        start = time.monotonic()
        part(self.steps)
        self._seconds = time.monotonic() - start
        self._after = held()

    def outcome(self) -> Outcome:
        """Return the outcome of the finished storm."""
        return Outcome(
            name=self.name,
            steps=self.steps,
            seconds=self._seconds,
            before=self._before,
            after=self._after,
            replies=self._counts["replies"],
            lost=self._counts["lost"],
            swapped=self._counts["swapped"],
            notes=dict(sorted(self._notes.items())),
            failures=self._failures,
        )


def tell(kind: str, value: object) -> None:
    """Send a message to the parent process."""
    sys.__stdout__.write(json.dumps({kind: value}) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]

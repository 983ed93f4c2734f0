"""Show the progress of a run: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from remctl_toolkit.fleet import Host, Outcome
from remctl_toolkit.hosts import MissingExtraError, fold

from .screen import YELLOW, Screen

__all__ = ["LINE_INTERVAL", "Bar", "Lines", "Progress", "start"]

LINE_INTERVAL = 10.0  # seconds
_FEW = 3  # hosts that the bar names when all others are done
_MAX_NAMES_WIDTH = 60  # characters


class Progress:
    """Count hosts without showing anything."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._working: dict[Host, None] = {}
        self._done = self._failed = 0

    def begun(self, host: Host) -> None:
        """Record that a host was started."""
        self._working[host] = None
        self._show()

    def finished(self, outcome: Outcome) -> None:
        """Record the outcome of a host."""
        self._working.pop(outcome.host, None)
        self._done += 1
        self._failed += not outcome.ok
        self._show()

    def close(self) -> None:
        """Remove the display."""

    def _show(self) -> None:
        pass

    def _counts(self) -> str:
        words = f"{self._done} of {self._total} hosts done"
        return f"{words}, {self._failed} failed" if self._failed else words


class Lines(Progress):
    """Print a line on standard error at regular intervals.

    Args:
        total: the number of hosts.
        screen: where to print.
        wait: waits the given seconds and returns False, or returns True as soon as the run has
            ended; None waits in real time.
    """

    def __init__(
        self, total: int, screen: Screen, wait: Callable[[float], bool] | None = None
    ) -> None:
        super().__init__(total)
        self._screen = screen
        self._over = threading.Event()
        self._wait = wait or self._over.wait
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._tick, name="remctl-progress", daemon=True)
        self._thread.start()

    def begun(self, host: Host) -> None:
        with self._lock:
            super().begun(host)

    def finished(self, outcome: Outcome) -> None:
        with self._lock:
            super().finished(outcome)

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _tick(self) -> None:
        with contextlib.suppress(OSError):  # The reader of standard error is gone.
            while not self._wait(LINE_INTERVAL):
                with self._lock:
                    words, working = self._counts(), list(self._working)
                if working:
                    words += f", still running: {_names(working)}"
                self._screen.err.say(f"remctl-fleet: {words}")


def _names(hosts: Sequence[Host]) -> str:
    """Return folded names that fit a line; the hosts that were started first come first."""
    count = len(hosts)
    while len(names := fold(hosts[:count])) > _MAX_NAMES_WIDTH and count > 1:
        count //= 2
    left = len(hosts) - count
    return f"{names} and {left} more" if left else names


class Bar(Progress):
    """Draw a bar at the bottom of the terminal with rich."""

    def __init__(self, total: int, screen: Screen) -> None:
        super().__init__(total)
        self._screen = screen
        self._bar, console = _rich_bar()
        self._task = self._bar.add_task("", total=total)
        self._bar.start()
        screen.use(console)

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._done, description=self._words())

    def _words(self) -> str:
        words, working = self._counts(), len(self._working)
        if working and self._done + working == self._total and working <= _FEW:
            return f"{words}, waiting for {fold(self._working)}"
        return f"{words}, {working} running" if working else words

    def close(self) -> None:
        self._bar.stop()
        self._screen.use(None)


def _rich_bar() -> tuple[Any, Any]:
    try:
        from rich import console, progress, table
    except ImportError:
        raise MissingExtraError("rich", "a progress bar") from None
    where = console.Console(stderr=True, highlight=False)
    columns = (
        progress.BarColumn(bar_width=24),
        progress.TimeElapsedColumn(),
        # On a narrow terminal, truncate instead of wrapping.
        progress.TextColumn(
            "{task.description}", markup=False, table_column=table.Column(no_wrap=True)
        ),
    )
    bar = progress.Progress(
        *columns, console=where, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    return bar, where


def start(screen: Screen, total: int, *, quiet: bool) -> Progress:
    """Start the display that suits standard error."""
    if quiet:
        return Progress(total)
    if not screen.err.movable:
        return Lines(total, screen)
    try:
        return Bar(total, screen)
    except MissingExtraError as error:
        screen.err.say(screen.err.paint(f"remctl-fleet: {error}", YELLOW))
        return Lines(total, screen)

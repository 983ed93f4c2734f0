"""How far the hosts are: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from remctl_toolkit.fleet import Host, Outcome
from remctl_toolkit.hosts import MissingExtraError, fold

from .screen import YELLOW, Screen

__all__ = ["Bar", "Lines", "Progress", "start"]

_LINE_INTERVAL = 10.0  # seconds
_FEW = 3  # hosts that are named when all others are done


class Progress:
    """Counts hosts, and shows nothing."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._working: dict[Host, None] = {}
        self._done = self._failed = 0

    def begun(self, host: Host) -> None:
        """Take note that work on a host has begun."""
        self._working[host] = None
        self._show()

    def finished(self, outcome: Outcome) -> None:
        """Take note of what came of a host."""
        self._working.pop(outcome.host, None)
        self._done += 1
        self._failed += not outcome.ok
        self._show()

    def close(self) -> None:
        """Take it away."""

    def _show(self) -> None:
        pass

    def _words(self) -> str:
        words = f"{self._done} of {self._total} hosts done"
        if self._failed:
            words += f", {self._failed} failed"
        working = len(self._working)
        if working and self._done + working == self._total and working <= _FEW:
            return f"{words}, waiting for {fold(self._working)}"
        return f"{words}, {working} at work" if working else words


class Lines(Progress):
    """A line on standard error every few seconds."""

    def __init__(self, total: int, screen: Screen, interval: float = _LINE_INTERVAL) -> None:
        super().__init__(total)
        self._screen = screen
        self._interval = interval
        self._next = time.monotonic() + interval

    def _show(self) -> None:
        if time.monotonic() >= self._next and self._done:
            self._next = time.monotonic() + self._interval
            self._screen.err.say(f"remctl-fleet: {self._words()}")


class Bar(Progress):
    """A bar at the bottom of the terminal, drawn by rich."""

    def __init__(self, total: int, screen: Screen) -> None:
        super().__init__(total)
        self._screen = screen
        self._bar, console = _rich_bar()
        self._task = self._bar.add_task("", total=total)
        self._bar.start()
        screen.use(console)

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._done, description=self._words())

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
        # Cut, not wrapped, where the terminal is narrow.
        progress.TextColumn(
            "{task.description}", markup=False, table_column=table.Column(no_wrap=True)
        ),
    )
    bar = progress.Progress(
        *columns, console=where, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    return bar, where


def start(screen: Screen, total: int, *, quiet: bool) -> Progress:
    """Return what fits the place."""
    if quiet:
        return Progress(total)
    if not screen.err.terminal:
        return Lines(total, screen)
    try:
        return Bar(total, screen)
    except MissingExtraError as error:
        screen.err.say(screen.err.paint(f"remctl-fleet: {error}", YELLOW))
        return Lines(total, screen)

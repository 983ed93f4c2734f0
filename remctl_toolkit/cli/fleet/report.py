"""Report at the end of a run how many hosts succeeded, and which failed and why."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Iterable

from remctl_toolkit.fleet import Host, Outcome
from remctl_toolkit.hosts import fold

from .screen import BOLD, GREEN, RED, Screen
from .words import detail, headline, hint, output

__all__ = ["Report"]

_SUCCESS, _SOME_FAILED, _ALL_FAILED = 0, 1, 3

_Reason = tuple[str, str, str]  # headline(), detail() and hint()

_MAX_NAMES_WIDTH = 32  # columns; longer names get a separate line
_MIN_REASON_WIDTH = 30  # columns; longer reasons are wrapped
_NO_STATUS = 255  # counts as the status of a host that has none, as with clush


class Report:
    """The outcomes so far.

    Attributes:
        succeeded, failed, not_begun: the hosts with an outcome.
    """

    def __init__(self, hosts: Iterable[Host]) -> None:
        self.succeeded: list[Host] = []
        self.failed: list[Host] = []
        self.not_begun: list[Host] = []
        self._place = {host: place for place, host in enumerate(hosts)}
        self._reasons: dict[_Reason, list[Host]] = {}
        self._begin = time.monotonic()
        self._largest = 0

    def add(self, outcome: Outcome) -> None:
        """Record an outcome."""
        status = output(outcome).status
        self._largest = max(self._largest, _NO_STATUS if status is None else status)
        if outcome.ok:
            self.succeeded.append(outcome.host)
            return
        (self.failed if outcome.started else self.not_begun).append(outcome.host)
        reason = (headline(outcome), detail(outcome), hint(outcome))
        self._reasons.setdefault(reason, []).append(outcome.host)

    @property
    def status(self) -> int:
        """The exit status."""
        if not self.failed and not self.not_begun:
            return _SUCCESS
        return _SOME_FAILED if self.succeeded else _ALL_FAILED

    @property
    def largest_status(self) -> int:
        """The largest exit status of any host; a host without one counts as 255."""
        return self._largest

    @property
    def status_of_any(self) -> int:
        """The exit status if one host is enough."""
        return _SUCCESS if self.succeeded else _ALL_FAILED

    def show(self, screen: Screen, *, quiet: bool) -> None:
        """Print the report to standard error.

        Args:
            screen: where to print.
            quiet: print failures only.
        """
        say, paint = screen.err.say, screen.err.paint
        total = len(self._place)
        seconds = time.monotonic() - self._begin
        if self.status != _SUCCESS:
            failed, not_begun = len(self.failed), len(self.not_begun)
            others = f", {not_begun} not begun" if not_begun else ""
            say(paint(f"{failed} of {_hosts(total)} failed{others}:", RED))
            for line in self._table(screen):
                say(line)
            if not quiet:
                say(f"{len(self.succeeded)} succeeded, {failed} failed{others}, {seconds:.1f} s")
        elif not quiet:
            everything = "all " if total > 2 else ""
            say(paint(f"{everything}{_hosts(total)} succeeded, {seconds:.1f} s", GREEN))

    def show_interruption(
        self, screen: Screen, running: Iterable[Host], not_begun: Iterable[Host]
    ) -> None:
        """Print the state of the hosts after an interruption."""
        say = screen.err.say
        for words, hosts, remark in (
            ("succeeded", self.succeeded, ""),
            ("failed", self.failed, ""),
            ("interrupted", list(running), "; the command may still be running there"),
            ("never begun", [*self.not_begun, *not_begun], ""),
        ):
            names = f": {self._fold(hosts)}{remark}" if hosts else ""
            say(f"  {words:<13}  {len(hosts)}{names}")

    def _first(self, item: tuple[_Reason, list[Host]]) -> int:
        """Return the sort key of a reason: the position of its first host."""
        return min(self._place[host] for host in item[1])

    def _fold(self, hosts: Iterable[Host]) -> str:
        ordered: list[Host] = sorted(hosts, key=self._place.__getitem__)
        return fold(ordered)

    def _table(self, screen: Screen) -> list[str]:
        reasons = sorted(self._reasons.items(), key=self._first)
        rows = [(self._fold(hosts), *reason) for reason, hosts in reasons]
        second = max(len(what) for _, what, _, _ in rows)
        width = shutil.get_terminal_size().columns if screen.err.terminal else 0
        widest = _MAX_NAMES_WIDTH
        if width:
            widest = min(widest, width - second - 6 - _MIN_REASON_WIDTH)
        first = max((len(row[0]) for row in rows if len(row[0]) <= widest), default=0)
        lines = []
        for names, what, why, remedy in rows:
            lead = f"  {screen.err.paint(names, BOLD)}"
            if len(names) > widest:
                lines.append(lead)
                lead, names = "  ", ""
            room = max(width - first - second - 6, _MIN_REASON_WIDTH) if width else 0
            pieces = [*_wrap(why, room), *(_wrap(remedy, room) if remedy else [])]
            pad = " " * (first - len(names))
            lines.append(f"{lead}{pad}  {what:<{second}}  {pieces[0]}".rstrip())
            lines += [f"{'':{first + second + 6}}{piece}" for piece in pieces[1:]]
        return lines


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"


def _wrap(text: str, width: int) -> list[str]:
    return (textwrap.wrap(text, width) if width else [text]) or [""]

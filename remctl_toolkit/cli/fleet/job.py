"""A command on its way through the hosts, and the signals that end it."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Generator, Iterator, Sequence
from types import FrameType
from typing import Any, Self

from remctl_toolkit.fleet import Host, NotStartedError, OnOutput, Outcome, run_on_hosts

from .progress import Progress
from .words import AbandonedError

__all__ = ["Job", "Signals", "Stopped"]


class Job:
    """A command for hosts.

    Raises:
        TypeError, ValueError: an option cannot be right.
    """

    def __init__(self, hosts: Sequence[Host], options: argparse.Namespace) -> None:
        self._hosts = hosts
        self._command = options.command
        self._settings: dict[str, Any] = {
            name: getattr(options, name)
            for name in (
                *("port", "principal", "timeout", "ccache", "source_ip", "credentials"),
                *("retries", "concurrency", "limit", "deadline", "first", "stop_after"),
            )
        }
        self._begun: set[Host] = set()
        self._finished: set[Host] = set()
        self.check(b"")

    def check(self, input: bytes | str | None) -> None:
        """Raise what is wrong; nothing is begun before the first outcome is asked for.

        Raises:
            TypeError, ValueError: the input is more than a server takes, say.
        """
        run_on_hosts(self._hosts, self._command, input=input, **self._settings)

    def outcomes(
        self, input: bytes | str | None, on_output: OnOutput | None, progress: Progress
    ) -> Generator[Outcome]:
        """Run it on all hosts."""

        def command(host: Host) -> Sequence[str]:  # Called when a host begins.
            self._begun.add(host)
            progress.begun(host)
            words: Sequence[str] = self._command
            return words

        yield from run_on_hosts(
            self._hosts, command, input=input, on_output=on_output, **self._settings
        )

    def finished(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        self._finished.add(outcome.host)

    def unfinished(self) -> list[Outcome]:
        """Return an outcome for each host that has none since the job was stopped."""
        left = [host for host in self._hosts if host not in self._finished]
        running = AbandonedError("interrupted; the command may go on")
        waiting = NotStartedError("not started: interrupted")
        return [Outcome(host, error=running if host in self._begun else waiting) for host in left]


class Stopped(BaseException):
    """A signal came that asks to end.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Ctrl-C and requests to end: they end a wait at once, but nothing that is half printed.

    The second one ends the process.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._came: int | None = None
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in self._NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:  # As nohup(1) has it.
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def next(self, outcomes: Iterator[Outcome]) -> Outcome | None:
        """Wait for the next outcome; None after the last.

        Raises:
            Stopped: a signal came, now or since the last call.
        """
        self._waiting = True
        try:
            if self._came is not None:
                raise Stopped(self._came)
            return next(outcomes, None)
        finally:
            self._waiting = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        self._came = number
        if self._waiting:
            self._waiting = False
            raise Stopped(number)

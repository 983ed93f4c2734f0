"""A command on its way through the hosts, and the signals that end it."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Generator, Sequence
from contextlib import closing
from types import FrameType
from typing import Any, Self

import remctl
from remctl_toolkit.cli.typed import typed
from remctl_toolkit.fleet import Fleet, Host, OnOutput, Outcome, Stop, run_on_hosts

from .progress import Progress

__all__ = ["CONNECTION", "Job", "Signals"]

CONNECTION = (
    *("port", "principal", "timeout", "connect_timeout"),
    *("ccache", "source_ip", "credentials", "retries", "concurrency"),
)
"""The options that `Fleet` takes."""


class Job:
    """A command for hosts.

    Args:
        hosts: the hosts; with the option ``any``, the command runs on the first that answers.
        options: the options of remctl-fleet.
        fleet: connections to keep; None closes each as soon as its host is done.

    Raises:
        TypeError, ValueError: an option cannot be right.
    """

    def __init__(
        self, hosts: Sequence[Host], options: argparse.Namespace, fleet: Fleet | None = None
    ) -> None:
        self._hosts = hosts
        self._any = options.any
        self._fleet = fleet
        self._command = typed(options.command)
        self._settings: dict[str, Any] = {
            name: getattr(options, name)
            for name in (
                *("limit", "deadline", "first", "stop_after"),
                *(() if fleet is not None else CONNECTION),
            )
        }
        if self._any:
            self._settings["concurrency"] = 1
        self.check(b"")

    def check(self, input: bytes | str | None) -> None:
        """Raise what is wrong; nothing is begun before the first outcome is asked for.

        Raises:
            TypeError, ValueError: the input is more than a server takes, say.
        """
        self._run(self._command, input=input)

    def _run(self, command: Any, **how: Any) -> Generator[Outcome]:
        if self._fleet is not None:
            return self._fleet.run(command, **how, **self._settings)
        return run_on_hosts(self._hosts, command, **how, **self._settings)

    def outcomes(
        self, input: bytes | str | None, on_output: OnOutput | None, progress: Progress, stop: Stop
    ) -> Generator[Outcome]:
        """Run it on all hosts."""

        def command(host: Host) -> Sequence[bytes]:  # Called when a host begins.
            progress.begun(host)
            return self._command

        with closing(self._run(command, input=input, on_output=on_output, stop=stop)) as outcomes:
            for outcome in outcomes:
                yield outcome
                if self._any and _answered(outcome):
                    break


def _answered(outcome: Outcome) -> bool:
    """Tell whether a host answered, or may have: no other is tried then."""
    error = outcome.error
    passed_over = isinstance(error, remctl.RemctlError) and not outcome.may_have_run
    return not passed_over or isinstance(error, remctl.RemctlServerError)


class Signals:
    """Ctrl-C and requests to end: they stop a run, but nothing that is half printed.

    The second one ends the process.

    Attributes:
        number: the signal that came; None if there was none.
        stop: what it stops.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.number: int | None = None
        self.stop = Stop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in self._NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:  # As nohup(1) has it.
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        self.number = number
        self.stop.set()

"""Run a command on hosts until it ends or a signal comes."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Generator, Sequence
from contextlib import closing
from types import FrameType
from typing import Any, Self

import remctl
from remctl_toolkit.cli.octets import argument_octets
from remctl_toolkit.fleet import Fleet, Host, OnOutput, Outcome, Stop, run_on_hosts

from .progress import Progress

__all__ = ["CONNECTION", "Job", "Signals"]

CONNECTION = (
    *("port", "principal", "timeout", "connect_timeout"),
    *("ccache", "source_ip", "credentials", "retries", "concurrency"),
)
"""The options that `Fleet` takes."""


class Job:
    """A command to run on hosts.

    Args:
        hosts: the hosts; with the option ``any``, the command runs on the first that answers.
        options: the options of remctl-fleet.
        fleet: connections to reuse; None connects to each host, and disconnects when it is done.

    Raises:
        TypeError, ValueError: an option is wrong.
    """

    def __init__(
        self, hosts: Sequence[Host], options: argparse.Namespace, fleet: Fleet | None = None
    ) -> None:
        self._hosts = hosts
        self._any = options.any
        self._fleet = fleet
        self._command = argument_octets(options.command)
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
        """Check the input.

        Raises:
            TypeError, ValueError: the input is wrong, for example too long for a server.
        """
        self._run(self._command, input=input)  # Generators start only when iterated over.

    def _run(self, command: Any, **how: Any) -> Generator[Outcome]:
        if self._fleet is not None:
            return self._fleet.run(command, **how, **self._settings)
        return run_on_hosts(self._hosts, command, **how, **self._settings)

    def outcomes(
        self, input: bytes | str | None, on_output: OnOutput | None, progress: Progress, stop: Stop
    ) -> Generator[Outcome]:
        """Run the command on all hosts, and yield outcomes as hosts finish."""

        def command(host: Host) -> Sequence[bytes]:  # Called when a host is started.
            progress.begun(host)
            return self._command

        with closing(self._run(command, input=input, on_output=on_output, stop=stop)) as outcomes:
            for outcome in outcomes:
                yield outcome
                if self._any and _answered(outcome):
                    break


def _answered(outcome: Outcome) -> bool:
    """Return whether a host answered, or may have, so that no other may be tried."""
    error = outcome.error
    try_next = isinstance(error, remctl.RemctlError) and not outcome.may_have_run
    return not try_next or isinstance(error, remctl.RemctlServerError)


class Signals:
    """Stop a run on SIGINT, SIGTERM or SIGHUP, between lines of output.

    A second signal ends the process.

    Attributes:
        number: the signal that came, or None.
        stop: set by the signal.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.number: int | None = None
        self.stop = Stop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in self._NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) ignores SIGHUP.
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

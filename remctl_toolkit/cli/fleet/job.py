"""A command on its way through the hosts, and the signals that end it."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from types import FrameType
from typing import Any, Self

import remctl
from remctl_toolkit.cli.typed import typed
from remctl_toolkit.fleet import Fleet, Host, NotStartedError, OnOutput, Outcome, run_on_hosts

from .progress import Progress
from .words import AbandonedError

__all__ = ["CONNECTION", "Job", "Signals", "Stopped"]

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

    Attributes:
        stopped: the signal that ended it; None if there was none.

    Raises:
        TypeError, ValueError: an option cannot be right.
    """

    def __init__(
        self, hosts: Sequence[Host], options: argparse.Namespace, fleet: Fleet | None = None
    ) -> None:
        self.stopped: int | None = None
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
        self._finished: set[Host] = set()
        self._output: dict[Host, dict[remctl.RemctlStream, list[bytes]]] = {}  # of the running
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
        self, input: bytes | str | None, on_output: OnOutput | None, progress: Progress
    ) -> Generator[Outcome]:
        """Run it on all hosts."""

        def command(host: Host) -> Sequence[bytes]:  # Called when a host begins.
            self._output[host] = {stream: [] for stream in remctl.RemctlStream}
            progress.begun(host)
            return self._command

        def keep(host: Host, stream: remctl.RemctlStream, octets: bytes) -> None:
            self._output[host][stream].append(octets)
            if on_output is not None:
                on_output(host, stream, octets)

        with closing(self._run(command, input=input, on_output=keep)) as outcomes:
            for outcome in outcomes:
                yield outcome
                if self._any and _answered(outcome):
                    break

    def finished(self, outcome: Outcome) -> None:
        """Take note of an outcome."""
        self._finished.add(outcome.host)
        self._output.pop(outcome.host, None)

    def unfinished(self) -> list[Outcome]:
        """Return an outcome for each host that has none since the job was stopped.

        Those of hosts that were at work have the output that had arrived.
        """
        return [self._abandoned(host) for host in self._hosts if host not in self._finished]

    def _abandoned(self, host: Host) -> Outcome:
        if host not in self._output:
            return Outcome(host, error=NotStartedError("not started: interrupted"))
        error = AbandonedError("interrupted; the command may go on")
        out, err = (b"".join(pieces) or None for pieces in self._output[host].values())
        error.partial = remctl.RemctlSimpleResult(out, err)
        return Outcome(host, error=error)


def _answered(outcome: Outcome) -> bool:
    """Tell whether a host answered, or may have: no other is tried then."""
    error = outcome.error
    passed_over = isinstance(error, remctl.RemctlError) and not outcome.may_have_run
    return not passed_over or isinstance(error, remctl.RemctlServerError)


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

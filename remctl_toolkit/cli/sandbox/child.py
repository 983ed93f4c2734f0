"""Run a program on this process's terminal, and leave the terminal's signals to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Self

from .options import COMMAND

__all__ = ["Signals", "run"]

_NOT_EXECUTABLE = 126  # as shells have it
_NOT_FOUND = 127


def run(command: Sequence[str], env: Mapping[str, str], signals: Signals) -> int:
    """Run a command with this process's terminal.

    Args:
        command: program and arguments.
        env: its environment.
        signals: what passes on requests to end, as a context manager that is entered.

    Returns:
        Its exit status, as a shell would have it.
    """
    try:
        child = subprocess.Popen(command, env=env)
    except OSError as error:
        print(f"{COMMAND}: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
    signals.pass_on_to(child)
    status = child.wait()
    return 128 - status if status < 0 else status


class Signals:
    """Leaves Ctrl-C to a child, which gets it from the terminal too; passes on requests to end.

    The handler is a function, not SIG_IGN, because a child would inherit that.

    Attributes:
        requested: whether there was a request to end.
        started: whether there was a child.
    """

    def __init__(self, *, hang_up: bool) -> None:
        """With ``hang_up``, requests are passed on as SIGHUP: interactive shells ignore SIGTERM."""
        self.requested = self.started = False
        self._hang_up = hang_up
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []  # requests that came before the child was known
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on_to(self, child: subprocess.Popen[bytes]) -> None:
        """Send what has come so far, and what comes from now on, to this child."""
        self.started = True
        self._child = child
        while self._early:
            self._send(self._early.pop(0))

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGHUP):
            self.requested = True
            self._early.append(number)
            if self._child is not None:
                self.pass_on_to(self._child)

    def _send(self, number: int) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGHUP if self._hang_up else number)

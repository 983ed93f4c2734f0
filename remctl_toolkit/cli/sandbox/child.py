"""Run a program on this process's terminal, and let it handle the terminal's signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Self

from .options import COMMAND

__all__ = ["Signals", "run"]

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # as in shells


def run(command: Sequence[str], env: Mapping[str, str], signals: Signals) -> int:
    """Run a command with this process's terminal.

    Args:
        command: program and arguments.
        env: its environment.
        signals: an entered context manager, which passes on SIGTERM and SIGHUP.

    Returns:
        Its exit status, as in a shell.
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
    """Ignore Ctrl-C, which the child gets from the terminal, and pass on SIGTERM and SIGHUP.

    The handler is a function, because a child would inherit SIG_IGN.

    Attributes:
        requested: whether SIGTERM or SIGHUP came.
        started: whether a child was started.
    """

    def __init__(self, *, hang_up: bool) -> None:
        """Set ``hang_up`` for interactive shells, which ignore SIGTERM, to send SIGHUP instead."""
        self.requested = self.started = False
        self._hang_up = hang_up
        self._child: subprocess.Popen[bytes] | None = None
        self._pending: list[int] = []  # signals that came before the child was started
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on_to(self, child: subprocess.Popen[bytes]) -> None:
        """Send pending signals, and those that come from now on, to this child."""
        self.started = True
        self._child = child
        while self._pending:
            self._send(self._pending.pop(0))

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGHUP):
            self.requested = True
            self._pending.append(number)
            if self._child is not None:
                self.pass_on_to(self._child)

    def _send(self, number: int) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGHUP if self._hang_up else number)

"""The storms: each is a function that runs steps to warm up, and then to be measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..run import Run
from . import forks, interruptions, sessions, threads

__all__ = ["STORMS", "Storm"]


@dataclass(frozen=True, slots=True)
class Storm:
    """One storm, and its numbers of steps."""

    name: str
    title: str
    blow: Callable[[Run], None]
    steps: int
    quick_steps: int
    """The same in the short form, of a few seconds."""

    def run(self, port: int, *, quick: bool) -> Run:
        """Return a new run; its warm-up is a tenth, and long enough to settle."""
        steps = self.quick_steps if quick else self.steps
        return Run(self.name, port, steps, max(steps // 10, min(steps // 3, 200)))


STORMS = (
    Storm("commands", "commands over one session", sessions.commands, 100_000, 800),
    Storm("opens", "opens and closes", sessions.opens, 20_000, 300),
    Storm("threads", "threads, each with a session of its own", threads.own, 2000, 60),
    Storm("shared", "commands of 8 threads over one session", threads.shared, 20_000, 480),
    Storm("closes", "close() by another thread at any moment", threads.closes, 3000, 80),
    Storm("forks", "forks at any moment of other threads' commands", forks.forks, 2000, 60),
    Storm("signals", "commands under a signal each 3 ms", interruptions.signals, 20_000, 400),
    Storm("raising", "the same, with handlers that raise", interruptions.raising, 10_000, 240),
    Storm("timeouts", "commands that time out or not", interruptions.timeouts, 2500, 50),
)

"""The worker's side of the protocol between the benchmark and its contestants.

Every contestant is a process of its own, so that imports, memory and threads do not mix, and stays
up from round to round. On its standard input come lines, each answered by one on its output:

    prepare     connect, and do once what is to be measured  ->  ready
    go COUNT    do it COUNT times                            ->  SECONDS CPU-SECONDS
    quit        end

Instead of any answer comes "failed REASON". Used with other interpreters, too: only the standard
library may be imported here.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping

__all__ = ["Action", "serve", "set_output_aside"]


class Action:
    """Something to measure; the base does nothing."""

    def prepare(self) -> None:
        """Do what is not measured: connect, say."""

    def go(self, count: int) -> None:
        """Do it that often (or that much: each action says what it counts)."""

    def quit(self) -> None:
        """Close what is open."""


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _answer(action: Action, line: str) -> str:
    verb, _, count = line.partition(" ")
    if verb == "prepare":
        action.prepare()
        return "ready"
    start, start_cpu = time.perf_counter(), _cpu()
    action.go(int(count))
    return f"{time.perf_counter() - start:.9f} {_cpu() - start_cpu:.9f}"


def set_output_aside() -> int:
    """Keep what libraries print from being taken for answers; returns where answers go."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def serve(actions: Mapping[str, Callable[[], Action]]) -> None:
    """Be a worker for the action that the first argument names, until told to quit."""
    answers = set_output_aside()
    try:
        action = actions[sys.argv[1]]()
        for line in sys.stdin:
            if line == "quit\n":
                break
            os.write(answers, f"{_answer(action, line.strip())}\n".encode())
        action.quit()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        os.write(answers, f"failed {reason}\n".encode())
        raise SystemExit(1) from error

"""The worker's side of the protocol between the benchmark and its contestants.

Every contestant is a separate process, so that imports, memory and threads do not mix, and runs for
all rounds. It reads lines from standard input, and answers each with a line on standard output:

    prepare     connect, and do the action once  ->  ready
    go COUNT    do it COUNT times                ->  SECONDS CPU-SECONDS
    quit        end

Any answer may be "failed REASON". Other interpreters use this file, too: import only the standard
library.
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
        """Do the parts that are not measured, such as connecting."""

    def go(self, count: int) -> None:
        """Do the action COUNT times (or with COUNT octets, hosts, ...: see each action)."""

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
    """Redirect the output of libraries; return the descriptor for answers."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def serve(actions: Mapping[str, Callable[[], Action]]) -> None:
    """Serve orders for the action that the first argument names, until "quit"."""
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

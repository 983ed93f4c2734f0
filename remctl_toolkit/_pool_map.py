"""Commands of `map()`: bookkeeping, threads and outcomes."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import remctl
from remctl import RemctlSimpleResult

Command = Iterable[Any]
Job = tuple[int, Command]


@dataclass(frozen=True)
class CommandOutcome:
    """The outcome of one command of `Pool.map()` or `AsyncPool.map()`.

    Attributes:
        index: the position of the command, from 0.
        command: the command as it was given.  The repr omits it: arguments may be secret.
        result: the result of the command; None if there was an exception.
        error: the exception; None if there is a result.
    """

    index: int
    command: Command = field(repr=False)
    result: RemctlSimpleResult | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """True if the command ended with status 0."""
        return self.result is not None and self.result.status == 0

    def check(self) -> RemctlSimpleResult:
        """Return the result of a command that succeeded.

        Raises:
            RemctlStatusError: its status is not 0.
            Exception: `error`, if there is one.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        assert self.result is not None
        return self.result.check()


class Progress:
    """Bookkeeping of one map(), without I/O: the next command, and the next outcome.

    Args:
        commands: the commands.
        ordered: whether to yield outcomes in the order of the commands.
        window: the maximum number of commands that were taken and not yielded yet.
    """

    def __init__(self, commands: Iterable[Command], ordered: bool, window: int) -> None:
        self._commands = enumerate(commands)
        self._ordered = ordered
        self._window = window
        self._done: dict[int, CommandOutcome] = {}
        self._taken = self._yielded = 0
        self._failure: Exception | None = None
        self._exhausted = False

    def more(self) -> bool:
        """Return whether there is anything left to take or to yield.

        Raises:
            Exception: nothing is left, and `end()` was called with this exception.
        """
        if not self._exhausted or self._yielded < self._taken:
            return True
        if self._failure is not None:
            raise self._failure
        return False

    def take(self) -> Job | None:
        """Return the next command; None if the window is full, or there are no more."""
        if self._exhausted or self._taken - self._yielded >= self._window:
            return None
        try:
            job = next(self._commands)
        except StopIteration:
            self._exhausted = True
        except Exception as error:  # Raised later, after the outcomes of the commands before.
            self.end(error)
        else:
            self._taken += 1
            return job
        return None

    def end(self, error: Exception) -> None:
        """Take no more commands, and raise an error after the last outcome."""
        self._exhausted = True
        self._failure = self._failure or error

    def running(self) -> bool:
        """Return whether there are commands without an outcome."""
        return self._taken > self._yielded + len(self._done)

    def add(self, outcome: CommandOutcome) -> None:
        """Record an outcome."""
        self._done[outcome.index] = outcome

    def ready(self) -> CommandOutcome | None:
        """Return the outcome to yield now, or None."""
        index = self._yielded if self._ordered else next(iter(self._done), -1)
        outcome = self._done.pop(index, None)
        self._yielded += outcome is not None
        return outcome


class Workers:
    """The threads of one map().  They are daemons: no program waits for a silent server.

    Args:
        run: runs a command, and returns its result.
        limit: the maximum number of threads.

    Attributes:
        outcomes: the outcomes so far.
        stopped: whether `stop()` was called.
    """

    def __init__(self, run: Callable[[Command], RemctlSimpleResult], limit: int) -> None:
        self.outcomes: queue.SimpleQueue[CommandOutcome] = queue.SimpleQueue()
        self.stopped = False
        self._run = run
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = self._started = 0
        self._pid = os.getpid()

    def start(self, job: Job) -> None:
        """Run a command as soon as a thread is free."""
        self._started += 1
        self._jobs.put(job)
        if self._threads < min(self._started, self._limit):
            threading.Thread(target=self._work, name="remctl-pool", daemon=True).start()
            self._threads += 1

    def check_process(self) -> None:
        """Check that this is not a forked child, where the threads do not exist.

        Raises:
            RemctlNotOpenedError: it is a forked child.
        """
        if self._pid != os.getpid():
            text = f"this map() belongs to process {self._pid}: start another one after a fork"
            raise remctl.RemctlNotOpenedError(text)

    def stop(self) -> None:
        """Let the threads end after the commands that were started, which `run` now refuses."""
        self.stopped = True
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            index, command = job
            try:
                outcome = CommandOutcome(index, command, self._run(command))
            except Exception as error:
                outcome = CommandOutcome(index, command, error=error)
            self.outcomes.put(outcome)

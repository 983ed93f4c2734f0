"""A command on the hosts of a fleet: which is begun when, by whom, and which is not at all."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, MutableMapping
from concurrent.futures import Executor, Future, wait
from typing import Any

import _remctl_core as _core
import remctl

from ._visit import (
    Clock,
    NotStartedError,
    OnOutput,
    Outcome,
    Settings,
    Visit,
    Work,
    check_count,
    check_seconds,
    visit,
)
from .hosts import Host

Input = str | bytes | bytearray | memoryview
Command = Iterable[Any] | Callable[[Host], Iterable[Any]]
InputFor = Input | None | Callable[[Host], Input | None]
Sessions = MutableMapping[Host, remctl.Remctl]

_GRACE = 1.0  # seconds that an executor may take to tell what came to pass before the deadline
_STARTING = 5.0  # seconds that a thread takes to start, at most; if later, it ends by itself
_AGAIN = 0.1  # seconds until a visit is told again that it was given up


class Task:
    """What is to be done, on whatever hosts: see `Fleet.run()`.

    Raises:
        TypeError, ValueError: an argument cannot be right.
    """

    def __init__(
        self,
        command: Command,
        input: InputFor = None,
        *,
        limit: float | None = None,
        deadline: float | None = None,
        first: int = 0,
        stop_after: int | None = None,
        on_output: OnOutput | None = None,
    ) -> None:
        if limit is not None:
            check_seconds("limit", limit)
        if deadline is not None:
            check_seconds("deadline", deadline)
        check_count("first", first, least=0)
        if stop_after is not None:
            check_count("stop_after", stop_after, least=1)
        # An iterator can be read but once; and what is wrong for all hosts is wrong at once.
        self._command = command if callable(command) else _encoded(command)[0]
        self._input = input
        self._for_all = None
        if not callable(self._command) and not callable(input):
            self._for_all = _encoded(self._command, input)
        self.limit = limit
        self.deadline = deadline
        self.first = first
        self.stop_after = stop_after
        self.on_output = on_output

    def for_host(self, host: Host) -> tuple[tuple[bytes, ...], bytes | None]:
        """Return the command for a host, and its input."""
        if self._for_all is not None:
            return self._for_all
        command = self._command(host) if callable(self._command) else self._command
        return _encoded(command, self._input(host) if callable(self._input) else self._input)


def _encoded(
    command: Iterable[Any], input: Input | None = None
) -> tuple[tuple[bytes, ...], bytes | None]:
    """Check a command, and make it what can be sent anywhere and not change meanwhile."""
    arguments = tuple(bytes(part) for part in _core.Command(command, input).arguments)
    return (arguments, None) if input is None else (arguments[:-1], arguments[-1])


class Plan:
    """Who is at work, who is to follow, and whether anybody is."""

    def __init__(
        self,
        task: Task,
        hosts: Iterable[Host],
        settings: Settings,
        concurrency: int,
        executor: Executor | None,
        sessions: Sessions | None,
    ) -> None:
        """Make it; nothing is begun.

        Args:
            task: what is to be done on each host.
            hosts: where, in this order.
            settings: how to connect.
            concurrency: how many hosts are worked on at the same time.
            executor: who does the work; None is threads of this process.
            sessions: the connections to keep, by host; None keeps none.
        """
        self._task = task
        self._waiting = deque(hosts)
        self._settings = settings
        self._concurrency = concurrency
        self._elsewhere = executor
        self._sessions = sessions
        self._working: dict[Future[Outcome], Host] = {}
        self._own: dict[Future[Outcome], tuple[Visit, threading.Thread]] = {}
        self._done: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._outcomes: deque[Outcome] = deque()  # those nobody has asked for yet
        self._failed: list[Host] = []
        self._finished = 0
        self._process = 0
        self._clock = self._patience = Clock(None)

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Do it; each time an outcome is asked for, others are begun."""
        self._process = os.getpid()
        self._clock = Clock(self._task.deadline)
        if self._elsewhere is not None and self._task.deadline is not None:
            self._patience = Clock(self._task.deadline + _GRACE)
        try:
            while self._waiting or self._working or self._outcomes:
                if os.getpid() != self._process:  # The threads at work are there.
                    text = f"the outcomes belong to process {self._process}"
                    raise remctl.RemctlNotOpenedError(text)
                self._collect()
                self._refuse()
                while self._waiting and len(self._working) < self._room():
                    self._begin(self._waiting.popleft())
                while not self._outcomes:
                    self._await_one()
                yield self._outcomes.popleft()
        finally:
            self._leave()

    def _room(self) -> int:
        """Return how many may be at work now."""
        canaries = self._task.first - self._finished
        return min(self._concurrency, canaries) if canaries > 0 else self._concurrency

    def _refuse(self) -> None:
        """Give up the hosts that are not to be begun any more."""
        reason = self._why_not()
        while reason and self._waiting:
            error = NotStartedError(f"not started: {reason}")
            self._outcomes.append(Outcome(self._waiting.popleft(), error=error))

    def _why_not(self) -> str:
        """Return why no other host is to be begun; "" if there is no reason."""
        failed = len(self._failed)
        if failed and self._finished <= self._task.first:
            return f"{self._failed[0]} failed, which was to show that it works"
        if self._task.stop_after is not None and failed >= self._task.stop_after:
            return "another host had failed" if failed == 1 else f"{failed} other hosts had failed"
        if self._clock.is_over():
            return "the time was over"
        return ""

    def _begin(self, host: Host) -> None:
        """Have somebody work on a host."""
        try:
            command, input = self._task.for_host(host)
        except Exception as error:  # The caller's function's, or about what it returned.
            self._end(Outcome(host, error=error))
            return
        limit = self._clock.at_most(self._task.limit)
        work = Work(host, command, input, self._settings, limit)
        try:
            if self._elsewhere is None:
                future = self._start_thread(work)
            else:
                future = self._elsewhere.submit(visit, work)
        except Exception as error:  # No more threads, or an executor that has lost its workers.
            refusal = NotStartedError(f"not started: {str(error) or type(error).__name__}")
            refusal.__cause__ = error
            self._end(Outcome(host, error=refusal))
            return
        self._working[future] = host
        future.add_done_callback(self._done.put)

    def _start_thread(self, work: Work) -> Future[Outcome]:
        """Work on a host in a thread of its own.

        It is a daemon: a program that ends does not wait for a host that does not answer.
        """
        at_work = Visit(work, self._session(work.host), self._task.on_output)
        future: Future[Outcome] = Future()
        future.set_running_or_notify_cancel()
        name = f"remctl-fleet {work.host}"
        thread = threading.Thread(target=_fulfil, args=(future, at_work), name=name, daemon=True)
        self._own[future] = (at_work, thread)  # Before it starts: Ctrl-C may come between.
        thread.start()
        return future

    def _session(self, host: Host) -> remctl.Remctl | None:
        """Return the connection that is kept for a host, if any is."""
        if self._sessions is None:
            return None
        if host not in self._sessions:
            self._sessions[host] = self._settings.connection()
        return self._sessions[host]

    def _collect(self) -> None:
        """Take what has come of hosts meanwhile."""
        while not self._done.empty():
            self._take(self._done.get())

    def _await_one(self) -> None:
        """Wait until something has come of a host."""
        left = self._patience.at_most(None)
        try:
            seconds = None if left is None else min(left, threading.TIMEOUT_MAX)
            self._take(self._done.get(timeout=seconds))
        except queue.Empty:
            self._disown()

    def _take(self, future: Future[Outcome]) -> None:
        host = self._working.pop(future, None)
        if host is None:  # It is disowned.
            return
        if future in self._own:
            _, thread = self._own.pop(future)
            thread.join()
        try:
            outcome = future.result()
        except Exception as error:  # The executor's: a worker that died, say.
            outcome = Outcome(host, error=error)
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        self._finished += 1
        if not outcome.ok:
            self._failed.append(outcome.host)
        self._outcomes.append(outcome)

    def _disown(self) -> None:
        """Wait no longer for an executor: the time for all is over."""
        disowned, self._working = self._working, {}
        for future, host in disowned.items():
            # Not all executors tell by its answer whether it had begun.
            future.cancel()
            error = remctl.RemctlTimeoutError("time limit reached: the command may have run")
            error.host = host.name
            error.may_have_run = True
            self._end(Outcome(host, error=error))

    def _leave(self) -> None:
        """End what is at work; what is at work elsewhere cannot be ended, only what waits there."""
        if os.getpid() != self._process:
            return
        for future in self._working:
            future.cancel()
        own = list(self._own.items())
        for _, (at_work, _) in own:
            at_work.give_up(remctl.RemctlNotOpenedError("given up"))
        starting = Clock(_STARTING)
        for future, (at_work, thread) in own:
            # Where the process is ending, they stand still and cannot end.
            while _runs(thread, starting) and not sys.is_finalizing():
                at_work.give_up(remctl.RemctlNotOpenedError("given up"))
                wait([future], _AGAIN)


def _runs(thread: threading.Thread, starting: Clock) -> bool:
    """Whether a thread runs, or is about to: Ctrl-C may come while start() waits for it.

    It may also come just before start() has the system make the thread.  Python lists it like one
    that is about to run, for ever; so only for a while is it taken for one.
    """
    return thread.is_alive() or (thread in threading.enumerate() and not starting.is_over())


def _fulfil(future: Future[Outcome], at_work: Visit) -> None:
    try:
        future.set_result(at_work.outcome())
    except BaseException as error:  # The caller's on_output may raise anything.
        future.set_exception(error)

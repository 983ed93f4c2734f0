"""Schedule tasks for many hosts, with limited concurrency, and collect one result from each.

`Fleet` and `Group` use it.  It knows nothing about commands or machines: it calls functions in
threads, or submits them to a `concurrent.futures.Executor`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import remctl

from ._settings import Settings

_EXECUTOR_SLACK = 1.0  # extra seconds to collect results from an executor after the deadline
_END_LIMIT = 5.0  # seconds to wait for threads that were given up


class NotStartedError(remctl.RemctlError):
    """Nothing was done on this host: other hosts had failed, or the deadline had passed."""


class GivenUpError(remctl.RemctlError):
    """The run was stopped while this host was running; see `may_have_run`."""


class HostsError(remctl.RemctlError, ExceptionGroup[Exception]):
    """Hosts failed: `exceptions` has one exception for each, with a note that names the host.

    Its `may_have_run` is true if that of any of them is.
    """

    @property
    def may_have_run(self) -> bool:  # type: ignore[override]
        """True if the command may have run on a host that failed."""
        return any(getattr(error, "may_have_run", False) for error in self.exceptions)

    def derive(self, exceptions: Sequence[Exception], /) -> HostsError:  # type: ignore[override]
        """Make an error with some of the exceptions, for ``except*``."""
        return HostsError(self.message, exceptions)


def raise_failures(failures: Iterable[tuple[object, Exception]], total: int) -> None:
    """Raise the failures of hosts together, if there are any.

    Args:
        failures: hosts, and their exceptions.
        total: the number of hosts, including those that succeeded.

    Raises:
        HostsError: there are failures.
    """
    errors = []
    for host, error in failures:
        note = f"host: {host}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        errors.append(error)
    if errors:
        raise HostsError(f"{len(errors)} of {total} hosts failed", errors)


# -- Time -----------------------------------------------------------------------------------------


class Clock:
    """The system's monotonic clock.  Tests replace `clock`."""

    def now(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Wait until an event is set, or the seconds are over; return whether it is set."""
        return event.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))


clock = Clock()


class Deadline:
    """A number of seconds from now on; None never ends."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else clock.now() + seconds

    def remaining(self, most: float | None = None) -> float | None:
        """Return the remaining seconds, `most` at most; None is no limit."""
        left = None if self._end is None else max(self._end - clock.now(), 0.0)
        return min((each for each in (left, most) if each is not None), default=None)

    def passed(self) -> bool:
        """Return whether no time is left."""
        return self.remaining() == 0


class Stop:
    """Stops a run: nothing more is started, and running hosts are given up.

    Each host still has a result.

    Attributes:
        is_set: whether `set()` was called.
        wake: the event that the run waits for; set to make it check for changes.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.wake = threading.Event()

    def set(self) -> None:
        """Stop the run; may be called by any thread, and by a signal handler."""
        self.is_set = True
        # A handler may have interrupted the waiting thread, which may hold the event's lock.
        try:
            threading.Thread(target=self.wake.set, name="remctl-stop", daemon=True).start()
        except RuntimeError:  # No more threads.
            self.wake.set()


# -- Tasks and their results ----------------------------------------------------------------------

T = TypeVar("T")

# A function, and another that ends it if it runs in another thread, or is about to.
Call = tuple[Callable[[], Any], Callable[[], object]]


@dataclass(frozen=True)
class Result(Generic[T]):
    """The end of a task.

    Attributes:
        host, task: the arguments of `add()`.
        value: the result of its function.
        error: the exception, or None.
        begun: whether the function was or may have been called.
    """

    host: Hashable
    task: T
    value: Any = None
    error: Exception | None = None
    begun: bool = True


class Scheduler(Generic[T]):
    """Track waiting and running tasks, and results that were not yielded yet.

    Args:
        settings: uses `concurrency`, `limit`, `deadline`, `first` and `stop_after`.
        begin: called to start a task, by the thread that asks for results, with the task and its
            time limit in seconds; returns the function to call, and another that ends it.  The
            function has to observe the limit itself.  An exception is the task's result.
        name: the first word of the names of threads.
        executor: runs the tasks; None starts a thread of this process for each.
        succeeded: returns whether a task succeeded, given its value.
        stop: stops the run early.
    """

    def __init__(
        self,
        settings: Settings,
        begin: Callable[[T, float | None], Call],
        *,
        name: str,
        executor: Executor | None = None,
        succeeded: Callable[[Any], bool] = lambda value: True,
        stop: Stop | None = None,
    ) -> None:
        self._settings = settings
        self._begin = begin
        self._name = name
        self._executor = executor
        self._succeeded = succeeded
        self._waiting: deque[tuple[Hashable, T]] = deque()  # at most one for each host
        self._backlog: dict[Hashable, list[T]] = {}  # later tasks of hosts that have one
        self._running: dict[Future[Any], tuple[Hashable, T]] = {}
        self._threads: dict[Future[Any], tuple[threading.Thread, Callable[[], object]]] = {}
        self._done: deque[Future[Any]] = deque()
        self._stop = stop or Stop()
        self._wake = self._stop.wake
        self._results: deque[Result[T]] = deque()
        self._failed: list[Hashable] = []
        self._finished = 0
        self._process = 0
        self._deadline = self._patience = Deadline(None)
        self._stopping = False

    def add(self, host: Hashable, task: T) -> None:
        """Add a task, which runs after the others of its host."""
        if host in self._backlog:
            self._backlog[host].append(task)
        else:
            self._backlog[host] = []
            self._waiting.append((host, task))

    def results(self) -> Generator[Result[T], None, None]:
        """Run the tasks; tasks are started only while a result is requested.

        Leaving the iterator starts nothing more, and gives up the tasks that run in threads.  It
        waits until these have ended, up to five seconds.  Tasks in an executor continue.

        Raises:
            RemctlNotOpenedError: this is a forked child.
            BaseException: a task raised something that is not an Exception, such as SystemExit.
        """
        self._process = os.getpid()
        self._deadline = Deadline(self._settings.deadline)
        if self._executor is not None and self._settings.deadline is not None:
            self._patience = Deadline(self._settings.deadline + _EXECUTOR_SLACK)
        try:
            while self._waiting or self._running or self._results:
                if os.getpid() != self._process:  # The threads are the parent's.
                    text = f"the outcomes belong to process {self._process}"
                    raise remctl.RemctlNotOpenedError(text)
                self._collect()
                if self._must_stop():
                    self._stopping = True
                    self._patience = Deadline(_END_LIMIT)
                    self._give_up()
                self._refuse()
                while self._waiting and len(self._running) < self._room():
                    self._start(*self._waiting.popleft())
                while not (self._results or self._must_stop()):
                    self._await()
                if self._results:
                    yield self._results.popleft()
        finally:
            self._leave()

    # Starting tasks.

    def _room(self) -> int:
        """Return how many tasks may run now."""
        canaries = self._settings.first - self._finished
        most = self._settings.concurrency
        return min(most, canaries) if canaries > 0 else most

    def _refuse(self) -> None:
        """Drop the waiting tasks if no more may start."""
        reason = self._why_not()
        while reason and self._waiting:
            error = NotStartedError(f"not started: {reason}")
            self._results.append(Result(*self._waiting.popleft(), error=error, begun=False))

    def _why_not(self) -> str:
        """Return why no other task may start; "" if there is no reason."""
        if self._stop.is_set:
            return "interrupted"
        settings, failed = self._settings, len(self._failed)
        if failed and self._finished <= settings.first:
            return f"canary {self._failed[0]} failed"
        if settings.stop_after is not None and failed >= settings.stop_after:
            return "another host had failed" if failed == 1 else f"{failed} other hosts had failed"
        return "the time was over" if self._deadline.passed() else ""

    def _start(self, host: Hashable, task: T) -> None:
        try:
            function, give_up = self._begin(task, self._deadline.remaining(self._settings.limit))
        except Exception as error:
            self._end(Result(host, task, error=error, begun=False))
            return
        try:
            if self._executor is None:
                self._start_thread(host, task, function, give_up)
            else:
                future = self._executor.submit(function)
                self._running[future] = host, task
                future.add_done_callback(self._note)
        except Exception as error:  # No more threads, or an executor that has lost its workers.
            refusal = NotStartedError(f"not started: {str(error) or type(error).__name__}")
            refusal.__cause__ = error
            self._end(Result(host, task, error=refusal, begun=False))

    def _start_thread(
        self, host: Hashable, task: T, function: Callable[[], Any], give_up: Callable[[], object]
    ) -> None:
        """Call a function in a daemon thread: no program waits for a silent host when it exits."""
        future: Future[Any] = Future()
        future.add_done_callback(self._note)
        name = f"{self._name} {host}"
        thread = threading.Thread(target=_call, args=(future, function), name=name, daemon=True)
        self._running[future] = host, task  # Before starting it, because of Ctrl-C.
        self._threads[future] = thread, give_up
        try:
            thread.start()
        except Exception:
            del self._running[future], self._threads[future]
            raise

    # Ending tasks.

    def _note(self, future: Future[Any]) -> None:
        """Record that a task has ended; may be called by any thread."""
        self._done.append(future)
        self._wake.set()

    def _await(self) -> None:
        """Wait until a task has ended, or the run is stopped."""
        self._wake.clear()
        quiet = not (self._done or self._must_stop())
        if quiet and not clock.wait(self._wake, self._patience.remaining()):
            self._disown()
        self._collect()

    def _collect(self) -> None:
        while self._done:
            future = self._done.popleft()
            if future not in self._running:  # It was disowned.
                continue
            host, task = self._running.pop(future)
            ours = future in self._threads
            if ours:
                self._threads.pop(future)[0].join()
            error: BaseException | None
            if ours and future.cancelled():  # It was given up before it had started.
                error = NotStartedError("not started: interrupted")
                self._end(Result(host, task, error=error, begun=False))
                continue
            # Not result(): raising the exception would add frames to its traceback.
            error = CancelledError() if future.cancelled() else future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            value = None if error is not None else future.result()
            self._end(Result(host, task, value, error))

    def _end(self, result: Result[T]) -> None:
        self._results.append(result)
        self._finished += 1
        host = result.host
        if result.error is not None or not self._succeeded(result.value):
            self._failed.append(host)
        if self._backlog[host]:
            self._waiting.append((host, self._backlog[host].pop(0)))
        else:
            del self._backlog[host]

    def _disown(self) -> None:
        """Stop waiting for an executor, or for threads that were given up: the time is over."""
        disowned, self._running = self._running, {}
        self._threads.clear()
        for future, (host, task) in disowned.items():
            # The result of cancel() is unreliable: not every executor knows whether a task started.
            future.cancel()
            error: remctl.RemctlError = GivenUpError("interrupted: the command may have run")
            if not self._stop.is_set:
                error = remctl.RemctlTimeoutError("time limit reached: the command may have run")
            error.may_have_run = True
            self._end(Result(host, task, error=error))

    def _leave(self) -> None:
        """Start nothing more, and give up what runs."""
        if os.getpid() != self._process or sys.is_finalizing():
            return  # The threads are the parent's, or suspended, perhaps holding a lock.
        self._waiting.clear()
        self._backlog.clear()
        self._give_up()
        self._running.clear()
        threads, self._threads = self._threads, {}
        end = time.monotonic() + _END_LIMIT
        for thread, _ in threads.values():
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(end - time.monotonic(), 0.0))

    def _must_stop(self) -> bool:
        return self._stop.is_set and not self._stopping

    def _give_up(self) -> None:
        """Give up what runs."""
        for future in list(self._running):
            # cancel() stops those that have not started, even if their thread is just starting.
            if not (future.done() or future.cancel()) and future in self._threads:
                self._threads[future][1]()


def _call(future: Future[Any], function: Callable[[], Any]) -> None:
    """Call a function in this thread, unless the future was cancelled."""
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
    finally:
        del future, function  # The exception refers to this frame: avoid a cycle.

"""Things to do on machines: one after the other on each, at the same time on all."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import remctl

from ._group_member import Member
from ._group_result import AsyncResult, ErrorResult

_ENDS_WITHIN = 10.0  # seconds after its connection was closed


@dataclass
class _Job:
    member: Member
    action: Callable[[Member], Any]
    result: AsyncResult
    connecting: bool

    def outcome(self) -> Any:
        """Do it, and return the value or the error."""
        try:
            if self.connecting and self.member.error is not None:
                return self.member.error
            return self.action(self.member)
        except BaseException as error:
            # The same one for what comes later.
            return self.member.error or ErrorResult(self.member.host, error)


class Work:
    """What is to be done on each host.

    Args:
        parallel: how many are worked on at the same time.
    """

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._jobs: dict[str, deque[_Job]] = {}
        self._working: dict[str, tuple[_Job, threading.Thread]] = {}
        self._running = False

    def add(
        self,
        member: Member,
        action: Callable[[Member], Any],
        result: AsyncResult,
        connecting: bool,
    ) -> None:
        """Add something; if it is `connecting`, members that failed to connect are passed over."""
        job = _Job(member, action, result, connecting)
        self._jobs.setdefault(member.host, deque()).append(job)

    def run(self) -> None:
        """Do it all.

        Raises:
            RemctlBusyError: that is under way.
            BaseException: what a callback raises; what was under way was ended.
        """
        if self._running:
            raise remctl.RemctlBusyError("the queue is being run: wait until that has ended")
        self._running = True
        finished: queue.SimpleQueue[tuple[_Job, Any]] = queue.SimpleQueue()
        try:
            while self._jobs or self._working:
                self._start(finished)
                job, outcome = finished.get()
                self._working.pop(job.member.host)[1].join()
                job.result.take(job.member.host, outcome)
        except BaseException:
            self._give_up()
            raise
        finally:
            self._running = False

    def _start(self, finished: queue.SimpleQueue[tuple[_Job, Any]]) -> None:
        for host in [host for host in self._jobs if host not in self._working]:
            if len(self._working) >= self._parallel:
                return
            jobs = self._jobs[host]
            job = jobs.popleft()
            if not jobs:
                del self._jobs[host]
            thread = threading.Thread(
                target=_work, args=(job, finished), name=f"remctl-group {host}", daemon=True
            )
            self._working[host] = job, thread
            thread.start()

    def _give_up(self) -> None:
        """Close the connections of those at work: that ends what they wait for."""
        self._jobs.clear()
        for job, _ in self._working.values():
            with contextlib.suppress(Exception):  # There is one exception on its way.
                job.member.close()
        for _, thread in self._working.values():
            if thread.ident is not None:
                thread.join(_ENDS_WITHIN)
        self._working.clear()


def _work(job: _Job, finished: queue.SimpleQueue[tuple[_Job, Any]]) -> None:
    finished.put((job, job.outcome()))

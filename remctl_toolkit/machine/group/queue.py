"""Things to do on machines, one after the other on each of them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

import remctl

from ..._settings import Settings, check_count
from ...schedule import Scheduler
from ..base.errors import MachineError
from ..base.program import Word
from .member import LocalPath, Member, as_member
from .result import ErrorResult, GroupResult


class NotCompletedError(MachineError):
    """There is no value yet: the queue was not run so far."""


class AsyncResult:
    """The result of something in a `Queue`, once that was run."""

    def __init__(self) -> None:
        self._values: list[Any] = []  # none or one
        self._callbacks: list[Callable[[Any], object]] = []

    @property
    def completed(self) -> bool:
        """Whether there is a value."""
        return bool(self._values)

    @property
    def value(self) -> Any:
        """The value of a machine, or an `ErrorResult`; of a group, a `GroupResult`.

        Raises:
            NotCompletedError: there is none yet.
        """
        if not self._values:
            raise NotCompletedError("there is no value yet: run the queue")
        return self._values[0]

    def with_callback(self, callback: Callable[[Any], object]) -> Self:
        """Have a function called with the value when it is there.

        The thread that runs the queue calls it; it may add to the queue.  If the value is there,
        it is called at once.
        """
        if self.completed:
            callback(self.value)
        else:
            self._callbacks.append(callback)
        return self

    def expect(self, hosts: list[str], *, group: bool) -> Callable[[str, Any], None]:
        """Return a function that takes the value of each host."""
        found, left = GroupResult(dict.fromkeys(hosts)), set(hosts)

        def done(host: str, value: Any) -> None:
            found[host] = value
            left.discard(host)
            if not left:
                self._set(found if group else value)

        if not hosts:
            self._set(found)
        return done

    def _set(self, value: Any) -> None:
        self._values = [value]
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(value)


class _Job(NamedTuple):
    """Something to do on one machine."""

    member: Member
    do: Callable[[], Any]
    done: Callable[[str, Any], None]  # gets the host and the value


class Queue:
    """Things to do on machines, in order on each of them, and at the same time on all.

    A target is a machine or a group.  Nothing is done before `run()`.  What fails does not keep
    what comes after it on that machine from being done; but where there is no connection, each has
    that error.

    Args:
        parallel: how many machines are worked on at the same time.
    """

    def __init__(self, *, parallel: int = Settings.concurrency) -> None:
        check_count("parallel", parallel, least=1)
        self._scheduler: Scheduler[_Job] = Scheduler(
            Settings(concurrency=parallel),
            lambda job, _: (job.do, job.member.give_up),
            name="remctl-group",
        )
        self._is_run = False
        self._machines: dict[int, Member] = {}

    def add(
        self, target: Any, action: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> AsyncResult:
        """Have ``action(member, *args, **kwargs)`` called for each; the others are made of this."""
        group = hasattr(target, "tunnels")
        members: list[Member] = target.tunnels if group else [self._member(target)]
        result = AsyncResult()
        done = result.expect([member.host for member in members], group=group)
        for member in members:
            do = functools.partial(member.do, action, *args, **kwargs)
            self._scheduler.add(member.identity, _Job(member, do, done))
        return result

    def _member(self, machine: Any) -> Member:
        if isinstance(machine, Member):
            return machine
        if isinstance(machine, str):
            raise TypeError(f"a target is a machine or a group, not {machine!r}")
        if id(machine) not in self._machines:
            self._machines[id(machine)] = as_member(machine, None)
        return self._machines[id(machine)]

    def connect(self, target: Any) -> AsyncResult:
        """Connect to it, unless that is done; the value is the machine."""
        return self.add(target, Member.machine)

    def call(
        self, target: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> AsyncResult:
        """Run a function there; see `Machine.call()`."""
        return self.add(target, Member.call, function, *args, **kwargs)

    def command(self, target: Any, argv: Iterable[Word], **options: Any) -> AsyncResult:
        """Run a command; see `Group.run()`."""
        return self.add(target, Member.run, list(argv), **options)

    def put(
        self,
        target: Any,
        local_path: LocalPath,
        remote_path: Word | None = None,
        mode: int | None = None,
    ) -> AsyncResult:
        """Copy one file there; see `transfer.put()`."""
        return self.add(target, Member.put, local_path, remote_path, mode)

    def fetch(
        self, target: Any, remote_path: Word, local_path: LocalPath | None = None
    ) -> AsyncResult:
        """Copy one file from there; see `transfer.fetch()`, and `Group.fetch()`."""
        return self.add(target, Member.fetch, remote_path, template(target, local_path))

    def run(self) -> None:
        """Do it all, and what callbacks add meanwhile.

        An exception in a callback, or Ctrl-C, ends what is under way and closes its connections.

        Raises:
            RemctlBusyError: the queue is being run.
            BaseException: what a callback raises.
        """
        if self._is_run:
            raise remctl.RemctlBusyError("the queue is being run: wait until that has ended")
        self._is_run = True
        try:
            with contextlib.closing(self._scheduler.results()) as results:
                for result in results:
                    host, error = result.task.member.host, result.error
                    value = result.value if error is None else ErrorResult(host, error)
                    result.task.done(host, value)
        finally:
            self._is_run = False
            for member in self._machines.values():
                member.release()


def template(target: Any, path: LocalPath | None) -> str | None:
    """Return a path for copies from all of a target, as text.

    Raises:
        ValueError: the copies would overwrite each other.
    """
    text = None if path is None else os.fspath(path)
    many = len(getattr(target, "tunnels", ())) > 1
    if many and text is not None and "{host}" not in text:
        raise ValueError(f"{text!r} would be overwritten: it needs {{host}} in it")
    return text

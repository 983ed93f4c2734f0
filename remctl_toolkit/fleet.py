"""One command on many hosts.

    for outcome in run_on_hosts(["web1", "web2", "db1"], ["service", "restart", "nginx"]):
        print(outcome)

Every host gives exactly one `Outcome`, whatever happens: a result, an exception, or the reason why
nothing was started there.  The work is done by threads, or by a `concurrent.futures.Executor` that
is given, in processes or on other machines.

Only opening a connection is ever tried again.  A command is sent once: it may have run.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

import remctl

from ._visit import Clock, Host, NotStartedError, OnOutput, Outcome, Settings, Visit, Work, visit

__all__ = [
    "Fleet",
    "FleetError",
    "Host",
    "NotStartedError",
    "OnOutput",
    "Outcome",
    "check_all",
    "run_on_hosts",
]

CONCURRENCY = 64
"""How many hosts are worked on at the same time unless told otherwise."""

T = TypeVar("T")

_Input = str | bytes | bytearray | memoryview
_Command = Iterable[Any] | Callable[[Host], Iterable[Any]]


class FleetError(ExceptionGroup[Exception]):
    """Hosts failed: `exceptions` has the reason of each, whose note names the host."""


def check_all(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Wait for all outcomes, and return them if every host succeeded.

    Raises:
        FleetError: some did not; it names them all.
    """
    found = list(outcomes)
    failures = []
    for outcome in found:
        try:
            outcome.check()
        except Exception as error:
            error.add_note(f"host: {outcome.host}")
            failures.append(error)
    if failures:
        raise FleetError(f"{len(failures)} of {len(found)} hosts failed", failures)
    return found


class Fleet:
    """Hosts whose connections stay open from one command to the next.

    As a context manager it closes them at the end.  One command runs at a time.

    Args:
        hosts: their names, or `Host` objects for those with a port or principal of their own.
        port, principal, timeout, ccache, source_ip: see `remctl.Remctl`; for all of them.
        retries: how often opening a connection is tried again where the reason may pass: nobody
            listens, or the connection was lost or timed out.
        backoff: seconds before the first of these; they double each time, up to ten.  Chance
            shortens each by up to half.
        concurrency: how many hosts are worked on at the same time.
        executor: what does the work in place of threads.  All that is handed to it can be pickled.
            Connections do not stay open then, and the credential cache must be within reach of
            whoever works there.

    Raises:
        ValueError: there is no host, one is named twice, or a number cannot be right.
        TypeError: a host is neither a name nor a `Host`.
    """

    def __init__(
        self,
        hosts: Iterable[str | Host],
        *,
        port: int | str | None = None,
        principal: str | None = None,
        timeout: float | None = None,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        retries: int = 0,
        backoff: float = 0.5,
        concurrency: int = CONCURRENCY,
        executor: Executor | None = None,
    ) -> None:
        self.hosts = _check_hosts(hosts)
        if concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, not {concurrency}")
        self._settings = Settings(port, principal, timeout, ccache, source_ip, retries, backoff)
        self._concurrency = concurrency
        self._executor = executor
        self._sessions: dict[Host, remctl.Remctl] | None = None if executor else {}

    def run(
        self,
        command: _Command,
        *,
        input: _Input | Callable[[Host], _Input | None] | None = None,
        limit: float | None = None,
        deadline: float | None = None,
        first: int = 0,
        stop_after: int | None = None,
        on_output: OnOutput | None = None,
        ordered: bool = False,
    ) -> Iterator[Outcome]:
        """Run a command on all hosts.

        Nothing is started before the first outcome is asked for.  Leaving the iterator starts
        nothing more and closes the connections of hosts that are at work; their commands may go
        on.

        Args:
            command: the command, or a function of the `Host` that returns it.
            input: what it gets on standard input, see `remctl.Remctl.command()`, or a function of
                the `Host` that returns it.
            limit: seconds for each host, connecting included; None is for ever.
            deadline: seconds for all hosts together.
            first: so many hosts, in their order, have to succeed before the others are begun.
            stop_after: when so many hosts have failed, no other is begun.
            on_output: called with the host, the `RemctlStream` and the octets of each piece of
                output as it arrives, by the thread that works on that host.
            ordered: give the outcomes in the order of the hosts, not as they finish.

        Returns:
            An iterator with one outcome for each host.

        Raises:
            TypeError, ValueError: an argument cannot be right.
        """
        _check_positive(limit=limit, deadline=deadline, stop_after=stop_after)
        if first < 0:
            raise ValueError(f"first must not be negative: {first}")
        if on_output is not None and self._executor is not None:
            raise ValueError("output can be seen live with the default executor only")
        if not callable(command):
            command = tuple(command)
            if not callable(input):
                remctl._Command(command, input)  # What is wrong with it is wrong everywhere.
        plan = _Plan(self, command, input, limit, deadline, first, stop_after, on_output)
        outcomes = plan.outcomes()
        return _in_order(outcomes, self.hosts) if ordered else outcomes

    def close(self) -> None:
        """Close all connections."""
        for session in (self._sessions or {}).values():
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def run_on_hosts(
    hosts: Iterable[str | Host],
    command: _Command,
    *,
    input: _Input | Callable[[Host], _Input | None] | None = None,
    limit: float | None = None,
    deadline: float | None = None,
    first: int = 0,
    stop_after: int | None = None,
    on_output: OnOutput | None = None,
    ordered: bool = False,
    **settings: Any,
) -> Iterator[Outcome]:
    """Run one command on many hosts; each connection is closed as soon as its host is done.

    Args:
        hosts, settings: see `Fleet`.
        command, input, limit, deadline, first, stop_after, on_output, ordered: see `Fleet.run()`.

    Returns:
        An iterator with one `Outcome` for each host, as they finish.

    Raises:
        TypeError, ValueError: an argument cannot be right.
    """
    fleet = Fleet(hosts, **settings)
    fleet._sessions = None
    return fleet.run(
        command,
        input=input,
        limit=limit,
        deadline=deadline,
        first=first,
        stop_after=stop_after,
        on_output=on_output,
        ordered=ordered,
    )


class _Plan:
    """Who is at work, who is to follow, and whether anybody is."""

    def __init__(
        self,
        fleet: Fleet,
        command: Any,
        input: Any,
        limit: float | None,
        deadline: float | None,
        first: int,
        stop_after: int | None,
        on_output: OnOutput | None,
    ) -> None:
        self._fleet = fleet
        self._command = command
        self._input = input
        self._limit = limit
        self._deadline = deadline
        self._first = first
        self._stop_after = stop_after
        self._on_output = on_output
        self._waiting = deque(fleet.hosts)
        self._working: dict[Future[Outcome], tuple[Host, Visit | None]] = {}
        self._failures: list[Host] = []
        self._finished = 0
        self._clock = Clock(None)

    def outcomes(self) -> Iterator[Outcome]:
        """Do it."""
        self._clock = Clock(self._deadline)
        executor = self._fleet._executor or ThreadPoolExecutor(
            min(self._fleet._concurrency, len(self._fleet.hosts)), "remctl-fleet"
        )
        try:
            while self._waiting or self._working:
                yield from self._refuse()
                while self._waiting and len(self._working) < self._room():
                    self._begin(executor)
                for future in wait(self._working, return_when=FIRST_COMPLETED).done:
                    host, _ = self._working.pop(future)
                    yield self._end(host, future)
        finally:
            for future, (_, at_work) in self._working.items():
                future.cancel()
                if at_work is not None:
                    at_work.abandon()
            if executor is not self._fleet._executor:
                executor.shutdown()

    def _refuse(self) -> Iterator[Outcome]:
        """Give up the hosts that are not to be begun any more."""
        reason = None
        if self._failures and self._finished <= self._first:
            reason = f"{self._failures[0]} failed, which was to show that it works"
        elif self._stop_after is not None and len(self._failures) >= self._stop_after:
            reason = f"{len(self._failures)} other hosts had failed"
        elif self._clock.is_over():
            reason = "the time was over"
        while reason is not None and self._waiting:
            error = NotStartedError(f"not started: {reason}")
            yield Outcome(self._waiting.popleft(), error=error)

    def _room(self) -> int:
        """Return how many may be at work now."""
        canaries = self._first - self._finished
        return min(self._fleet._concurrency, canaries) if canaries > 0 else self._fleet._concurrency

    def _begin(self, executor: Executor) -> None:
        host = self._waiting.popleft()
        fleet = self._fleet
        try:
            work = Work(
                host,
                tuple(self._command(host)) if callable(self._command) else self._command,
                self._input(host) if callable(self._input) else self._input,
                fleet._settings,
                self._clock.at_most(self._limit),
            )
        except Exception as error:  # A function of the caller's: it is that host's outcome.
            failed: Future[Outcome] = Future()
            failed.set_result(Outcome(host, error=error))
            self._working[failed] = (host, None)
            return
        if fleet._executor is not None:
            self._working[executor.submit(visit, work)] = (host, None)
            return
        session = None
        if fleet._sessions is not None:
            session = fleet._sessions.setdefault(host, fleet._settings.connection())
        at_work = Visit(work, session, self._on_output)
        self._working[executor.submit(at_work.outcome)] = (host, at_work)

    def _end(self, host: Host, future: Future[Outcome]) -> Outcome:
        try:
            outcome = future.result()
        except Exception as error:  # The executor's: a worker that died, say.
            outcome = Outcome(host, error=error)
        self._finished += 1
        if not outcome.ok:
            self._failures.append(host)
        return outcome


def _in_order(outcomes: Iterator[Outcome], hosts: Iterable[Host]) -> Iterator[Outcome]:
    early: dict[Host, Outcome] = {}
    for host in hosts:
        while host not in early:
            outcome = next(outcomes)
            early[outcome.host] = outcome
        yield early.pop(host)


def _check_hosts(hosts: Iterable[str | Host]) -> list[Host]:
    if isinstance(hosts, str):
        raise TypeError(f"hosts must be a list of names, not one: {hosts!r}")
    found: dict[Host, None] = {}
    for each in hosts:
        if not isinstance(each, (str, Host)):
            raise TypeError(f"a host must be a name or a Host, not {type(each).__name__}")
        host = Host(each) if isinstance(each, str) else each
        if not host.name:
            raise ValueError("the name of a host must not be empty")
        if host in found:
            raise ValueError(f"host {host} is named twice")
        found[host] = None
    if not found:
        raise ValueError("no hosts")
    return list(found)


def _check_positive(**numbers: float | None) -> None:
    for name, number in numbers.items():
        if number is not None and not number > 0:
            raise ValueError(f"{name} must be more than 0, not {number}")

"""One command on many hosts.

::

    for outcome in run_on_hosts(["web1", "web2", "db1"], ["service", "restart", "nginx"]):
        print(outcome)

Every host gives exactly one `Outcome`, whatever happens: a result, an exception, or the reason why
nothing was started there.  The work is done by threads, or by a `concurrent.futures.Executor` that
is given, in processes or on other machines.

Only opening a connection is ever tried again.  A command is sent once: it may have run.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Self

import _remctl_core as _core
import remctl

from ._plan import Command, InputFor, Plan, Sessions, Task
from ._visit import NotStartedError, OnOutput, Outcome, Settings, check_count
from .hosts import Host

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


class FleetError(ExceptionGroup[Exception]):
    """Hosts failed: `exceptions` has the reason of each, whose note names the host."""

    def derive(self, exceptions: Sequence[Exception], /) -> FleetError:  # type: ignore[override]
        """Make one of some of the exceptions; ``except*`` does."""
        return FleetError(self.message, exceptions)


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
            note = f"host: {outcome.host}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            failures.append(error)
    if failures:
        raise FleetError(f"{len(failures)} of {len(found)} hosts failed", failures)
    return found


class Fleet:
    """Hosts whose connections stay open from one command to the next.

    As a context manager it closes them at the end.  One command runs at a time.

    Args:
        hosts: their names, or `Host` objects for those with a port or principal of their own.  A
            host is the same however its name is spelled, see `Host`.
        port, principal, timeout, ccache, source_ip, credentials: see `remctl.Remctl`; for all of
            them.
        retries: how often opening a connection is tried again where the reason may pass: nobody
            listens, or the connection was lost or timed out.
        backoff: seconds before the first of these; they double each time, up to ten.  Chance
            shortens each by up to half.
        connect_timeout: seconds that the network may be silent while connecting, where `timeout`
            allows more; None is no limit of its own.  A command may be silent for longer.
        concurrency: how many hosts are worked on at the same time.
        executor: what does the work in place of threads.  All that is handed to it can be pickled,
            provided that `credentials` can.  Connections do not stay open then, and the credential
            cache must be within reach of whoever works there.

    Raises:
        ValueError: there is no host, one is named twice, or a number cannot be right.
        TypeError: a host is neither a name nor a `Host`, or an argument is of the wrong type.
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
        credentials: remctl.RemctlCredentials | None = None,
        retries: int = 0,
        backoff: float = 0.5,
        connect_timeout: float | None = None,
        concurrency: int = CONCURRENCY,
        executor: Executor | None = None,
    ) -> None:
        self.hosts = _check_hosts(hosts, port)
        check_count("concurrency", concurrency, least=1)
        if executor is not None and not isinstance(executor, Executor):
            raise TypeError(f"not a concurrent.futures.Executor: {executor!r}")
        self._settings = Settings(
            port=port,
            principal=principal,
            timeout=timeout,
            ccache=ccache,
            source_ip=source_ip,
            credentials=credentials,
            retries=retries,
            backoff=backoff,
            connect_timeout=connect_timeout,
        )
        self._concurrency = concurrency
        self._executor = executor
        self._sessions: Sessions = {}
        self._under_way: Generator[Outcome, None, None] | None = None

    def run(
        self,
        command: Command,
        *,
        input: InputFor = None,
        limit: float | None = None,
        deadline: float | None = None,
        first: int = 0,
        stop_after: int | None = None,
        on_output: OnOutput | None = None,
        ordered: bool = False,
    ) -> Generator[Outcome, None, None]:
        """Run a command on all hosts.

        Nothing is started before the first outcome is asked for, and other hosts are begun as
        outcomes are asked for.  Leaving the iterator starts nothing more and closes the
        connections of hosts that are at work; their commands may go on.

        Args:
            command: the command, or a function of the `Host` that returns it.
            input: what it gets on standard input, see `remctl.Remctl.command()`, or a function of
                the `Host` that returns it.
            limit: seconds for each host, connecting included; None is for ever.
            deadline: seconds for all hosts together.
            first: so many hosts, in their order, have to succeed before the others are begun.
            stop_after: when so many hosts have failed, no other is begun.
            on_output: called with the host, the `RemctlStream` and the octets of each piece of
                output as it arrives, by the thread that works on that host.  What it raises ends
                the work on that host, and is its outcome.
            ordered: give the outcomes in the order of the hosts, not as they finish.

        Returns:
            An iterator with one outcome for each host.  Asking it for the first raises
            RemctlBusyError while another is in use.

        Raises:
            TypeError, ValueError: an argument cannot be right.
        """
        task = Task(
            command,
            input,
            limit=limit,
            deadline=deadline,
            first=first,
            stop_after=stop_after,
            on_output=on_output,
        )
        return self._alone(self._outcomes(task, ordered, self._sessions))

    def _outcomes(
        self, task: Task, ordered: bool, sessions: Sessions | None
    ) -> Generator[Outcome, None, None]:
        if task.on_output is not None and self._executor is not None:
            raise ValueError("on_output works with the default executor only")
        plan = Plan(task, self.hosts, self._settings, self._concurrency, self._executor, sessions)
        return _in_order(plan.outcomes(), self.hosts) if ordered else plan.outcomes()

    def _alone(self, outcomes: Generator[Outcome, None, None]) -> Generator[Outcome, None, None]:
        """Pass outcomes on, unless others are under way."""
        if self._under_way is not None:
            raise remctl.RemctlBusyError("the fleet is still running another command")
        self._under_way = outcomes
        try:
            with closing(outcomes):
                yield from outcomes
        finally:
            self._under_way = None

    def close(self) -> None:
        """Close all connections, and end the iterator of a command that is under way.

        Raises:
            RemctlBusyError: another thread is waiting for its next outcome.
        """
        if self._under_way is not None:
            try:
                self._under_way.close()
            except ValueError:
                text = "the fleet is still running a command: leave its iterator to stop it"
                raise remctl.RemctlBusyError(text) from None
        for session in self._sessions.values():
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
    command: Command,
    *,
    input: InputFor = None,
    limit: float | None = None,
    deadline: float | None = None,
    first: int = 0,
    stop_after: int | None = None,
    on_output: OnOutput | None = None,
    ordered: bool = False,
    port: int | str | None = None,
    principal: str | None = None,
    timeout: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: remctl.RemctlCredentials | None = None,
    retries: int = 0,
    backoff: float = 0.5,
    connect_timeout: float | None = None,
    concurrency: int = CONCURRENCY,
    executor: Executor | None = None,
) -> Generator[Outcome, None, None]:
    """Run one command on many hosts; each connection is closed as soon as its host is done.

    Args:
        command, input, limit, deadline, first, stop_after, on_output, ordered: see `Fleet.run()`.
        hosts and all others: see `Fleet`.

    Returns:
        An iterator with one `Outcome` for each host, as they finish.

    Raises:
        TypeError, ValueError: an argument cannot be right.
    """
    task = Task(
        command,
        input,
        limit=limit,
        deadline=deadline,
        first=first,
        stop_after=stop_after,
        on_output=on_output,
    )
    fleet = Fleet(
        hosts,
        port=port,
        principal=principal,
        timeout=timeout,
        ccache=ccache,
        source_ip=source_ip,
        credentials=credentials,
        retries=retries,
        backoff=backoff,
        connect_timeout=connect_timeout,
        concurrency=concurrency,
        executor=executor,
    )
    return fleet._outcomes(task, ordered, None)


def _in_order(
    outcomes: Generator[Outcome, None, None], hosts: Iterable[Host]
) -> Generator[Outcome, None, None]:
    early: dict[Host, Outcome] = {}
    with closing(outcomes):
        for host in hosts:
            while host not in early:
                outcome = next(outcomes)
                early[outcome.host] = outcome
            yield early.pop(host)


def _check_hosts(hosts: Iterable[str | Host], port: int | str | None) -> list[Host]:
    if isinstance(hosts, str | bytes | Host) or not isinstance(hosts, Iterable):
        raise TypeError(f"hosts must be several names, in a list say, not {hosts!r}")
    default = _core.check_port(port) or None
    found: dict[Host, None] = {}
    connected: set[Host] = set()  # with the ports that are connected to
    for each in hosts:
        if not isinstance(each, str | Host):
            raise TypeError(f"a host must be a name or a Host, not {each!r}")
        host = Host(each) if isinstance(each, str) else each
        full = replace(host, port=default) if default and host.port is None else host
        if host in found or full in connected:
            raise ValueError(f"host {host} is named twice")
        found[host] = None
        connected.add(full)
    if not found:
        raise ValueError("no hosts")
    return list(found)

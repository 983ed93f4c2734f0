"""One command on many hosts.

::

    for outcome in run_on_hosts(["web1", "web2", "db1"], ["service", "restart", "nginx"]):
        print(outcome)

Every host has exactly one `Outcome`, whatever happens: a result, an exception, or the reason why it
was not started.  Threads run the commands, or a `concurrent.futures.Executor`, in processes or on
other machines.

Only opening a connection is ever retried.  A command is sent once, because it may have run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, MutableMapping
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import _remctl_core as _core
import remctl

from ._host_run import HostRun, OnOutput, Outcome, Work, run_on_host
from ._hosts_named import check_hosts
from ._settings import Settings
from .hosts import Host
from .schedule import (
    Call,
    GivenUpError,
    HostsError,
    NotStartedError,
    Scheduler,
    Stop,
    raise_failures,
)

__all__ = [
    "Fleet",
    "FleetError",
    "GivenUpError",
    "Host",
    "NotStartedError",
    "OnOutput",
    "Outcome",
    "Stop",
    "check_all",
    "connect_to_any",
    "run_on_hosts",
]

Input = str | bytes | bytearray | memoryview
Command = Iterable[Any] | Callable[[Host], Iterable[Any]]
InputFor = Input | None | Callable[[Host], Input | None]

FleetError = HostsError

CONCURRENCY = Settings.concurrency
"""The default number of hosts to run on in parallel."""


def check_all(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Wait for all outcomes, and return them if every host succeeded.

    Raises:
        FleetError: some hosts failed; it has the exception of each.
    """
    found = list(outcomes)
    failures: list[tuple[Host, Exception]] = []
    for outcome in found:
        try:
            outcome.check()
        except Exception as error:
            failures.append((outcome.host, error))
    raise_failures(failures, len(found))
    return found


class Fleet:
    """Hosts whose connections stay open from one command to the next.

    As a context manager it closes them at the end.  One command runs at a time.

    Args:
        hosts: their names, or `Host` objects for those with a port or principal of their own.  A
            host is the same however its name is spelled, see `Host`.
        port, principal, timeout, ccache, source_ip, credentials, keepalive: see `remctl.Remctl`;
            for all of them.
        retries: the number of further attempts to connect after a temporary failure: nothing
            listens on the port, or the connection was lost or timed out.
        backoff: seconds before the first of these; they double each time, up to ten.  Each is
            shortened by a random amount, up to half.
        connect_timeout: seconds that the network may be silent until the command is sent, if
            `timeout` allows more; None is no limit of its own.  A command may be silent for longer.
        concurrency: the number of hosts to run on in parallel.
        executor: runs the commands instead of threads.  Its tasks can be pickled, provided that
            `credentials` can.  Connections do not stay open, and its workers need access to the
            credential cache.

    Raises:
        ValueError: there is no host, one is named twice, a name is a pattern for `HostList`, or a
            number is invalid.
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
        keepalive: float | None = None,
        retries: int = 0,
        backoff: float = 0.5,
        connect_timeout: float | None = None,
        concurrency: int = CONCURRENCY,
        executor: Executor | None = None,
    ) -> None:
        self.hosts = check_hosts(hosts, port)
        self._executor = _check_executor(executor)
        self._settings = Settings(
            port=port,
            principal=principal,
            timeout=timeout,
            ccache=ccache,
            source_ip=source_ip,
            credentials=credentials,
            keepalive=keepalive,
            retries=retries,
            backoff=backoff,
            connect_timeout=connect_timeout,
            concurrency=concurrency,
        )
        self._sessions: dict[Host, remctl.Remctl] = {}
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
        stop: Stop | None = None,
    ) -> Generator[Outcome, None, None]:
        """Run a command on all hosts.

        Hosts are started only while an outcome is requested.  Leaving the iterator starts nothing
        more and closes the connections of running hosts; their commands may continue.

        Args:
            command: the command, or a function of the `Host` that returns it.
            input: its standard input, see `remctl.Remctl.command()`, or a function of the `Host`
                that returns it.
            limit: time limit for each host, including connecting; None is for ever.
            deadline: time limit for all hosts together.
            first: the number of canaries: hosts that have to succeed before the others are started.
            stop_after: the number of failures after which no other host is started.
            on_output: called with the host, the `RemctlStream` and the octets of each piece of
                output as it arrives, by the thread of that host.  If it raises an exception, the
                run on that host ends, and the exception is its outcome.
            ordered: yield the outcomes in the order of the hosts, not as they finish.
            stop: once this is set, nothing more is started and running hosts are given up, but
                each host still has its outcome.

        Returns:
            An iterator with one outcome for each host.  Requesting the first raises RemctlBusyError
            while another such iterator is in use.

        Raises:
            TypeError, ValueError: an argument is invalid.
        """
        settings = replace(
            self._settings, limit=limit, deadline=deadline, first=first, stop_after=stop_after
        )
        outcomes = _run(
            self.hosts, command, input, settings, on_output, stop, self._executor, self._sessions
        )
        return self._alone(_in_order(outcomes, self.hosts) if ordered else outcomes)

    def _alone(self, outcomes: Generator[Outcome, None, None]) -> Generator[Outcome, None, None]:
        """Yield outcomes, unless another command is running."""
        if self._under_way is not None:
            raise remctl.RemctlBusyError("the fleet is still running another command")
        self._under_way = outcomes
        try:
            with closing(outcomes):
                yield from outcomes
        finally:
            self._under_way = None

    def close(self) -> None:
        """Close all connections, and end the iterator of a running command.

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
    stop: Stop | None = None,
    port: int | str | None = None,
    principal: str | None = None,
    timeout: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: remctl.RemctlCredentials | None = None,
    keepalive: float | None = None,
    retries: int = 0,
    backoff: float = 0.5,
    connect_timeout: float | None = None,
    concurrency: int = CONCURRENCY,
    executor: Executor | None = None,
) -> Generator[Outcome, None, None]:
    """Run one command on many hosts; each connection is closed as soon as its host is done.

    Args:
        command, input, limit, deadline, first, stop_after, on_output, ordered, stop: see
            `Fleet.run()`.
        hosts and all others: see `Fleet`.

    Returns:
        An iterator with one `Outcome` for each host, as they finish.

    Raises:
        TypeError, ValueError: an argument is invalid.
    """
    settings = Settings(
        port=port,
        principal=principal,
        timeout=timeout,
        ccache=ccache,
        source_ip=source_ip,
        credentials=credentials,
        keepalive=keepalive,
        retries=retries,
        backoff=backoff,
        connect_timeout=connect_timeout,
        concurrency=concurrency,
        limit=limit,
        deadline=deadline,
        first=first,
        stop_after=stop_after,
    )
    checked = check_hosts(hosts, port)
    executor = _check_executor(executor)
    outcomes = _run(checked, command, input, settings, on_output, stop, executor, None)
    return _in_order(outcomes, checked) if ordered else outcomes


def _run(
    hosts: Iterable[Host],
    command: Command,
    input: InputFor,
    settings: Settings,
    on_output: OnOutput | None,
    stop: Stop | None,
    executor: Executor | None,
    sessions: MutableMapping[Host, remctl.Remctl] | None,
) -> Generator[Outcome, None, None]:
    """Check a command, and return the iterator over its outcomes."""
    if on_output is not None and executor is not None:
        raise ValueError("on_output works with the default executor only")
    # Encode now: an iterator can be read only once, and invalid arguments raise at once.
    fixed = command if callable(command) else _encode(command)[0]
    for_all = None if callable(fixed) or callable(input) else _encode(fixed, input)

    def work_for(host: Host, limit: float | None) -> Work:
        octets = for_all
        if octets is None:
            words = fixed(host) if callable(fixed) else fixed
            octets = _encode(words, input(host) if callable(input) else input)
        return Work(host, *octets, settings, limit)

    def begin(host: Host, limit: float | None) -> Call:
        work = work_for(host, limit)
        if executor is not None:
            return partial(run_on_host, work), lambda: None
        session = None
        if sessions is not None:
            session = sessions.get(host)
            if session is None or not session.opened:  # A connection given up stays closed.
                session = sessions[host] = settings.connection(host.name, host.port, host.principal)
        run = HostRun(work, session, on_output)
        return run.outcome, run.give_up

    scheduler = Scheduler(
        settings,
        begin,
        name="remctl-fleet",
        executor=executor,
        succeeded=lambda outcome: outcome.ok,
        stop=stop,
    )
    for host in hosts:
        scheduler.add(host, host)
    return _outcomes(scheduler)


def _encode(
    command: Iterable[Any], input: Input | None = None
) -> tuple[tuple[bytes, ...], bytes | None]:
    """Check a command, and convert it to bytes, which cannot be changed before they are sent."""
    arguments = tuple(bytes(part) for part in _core.Command(command, input).arguments)
    return (arguments, None) if input is None else (arguments[:-1], arguments[-1])


def _outcomes(scheduler: Scheduler[Host]) -> Generator[Outcome, None, None]:
    with closing(scheduler.results()) as results:
        for result in results:
            if result.error is None:
                yield result.value
            else:
                yield Outcome(result.task, error=result.error, sent=result.begun)


def connect_to_any(
    hosts: Iterable[str | Host],
    *,
    port: int | str | None = None,
    principal: str | None = None,
    timeout: float | None = None,
    connect_timeout: float | None = None,
    ccache: str | os.PathLike[str] | None = None,
    source_ip: str | None = None,
    credentials: remctl.RemctlCredentials | None = None,
    keepalive: float | None = None,
) -> remctl.Remctl:
    """Open a connection to the first host that answers.

    No command is sent, so trying the next host repeats nothing.  `HostList.add_srv()` adds hosts
    in the order of their SRV records.

    Args:
        hosts: their names, or `Host` objects for those with a port or principal of their own.
        port, principal, timeout, ccache, source_ip, credentials, keepalive: see `remctl.Remctl`;
            for all of them.
        connect_timeout: seconds that the network may be silent while connecting to a host; then
            the next one is tried.  Without it `timeout` counts, and without both there is no limit.

    Returns:
        The connection, which is open.

    Raises:
        FleetError: no host answered.
        ValueError: there is no host, one is named twice, or a number is invalid.
        TypeError: a host is neither a name nor a `Host`, or an argument is of the wrong type.
    """
    settings = Settings(
        port=port,
        principal=principal,
        timeout=timeout,
        ccache=ccache,
        source_ip=source_ip,
        credentials=credentials,
        keepalive=keepalive,
        connect_timeout=connect_timeout,
    )
    failures: list[Exception] = []
    for host in check_hosts(hosts, port):
        connection = settings.connection(host.name, host.port, host.principal)
        connection.set_timeout(connect_timeout or timeout or 0.0)
        try:
            connection.open(
                host.name, port if host.port is None else host.port, host.principal or principal
            )
        except remctl.RemctlError as error:
            error.add_note(f"host: {host}")
            failures.append(error)
        else:
            connection.set_timeout(timeout or 0.0)
            return connection
    raise FleetError(f"none of {len(failures)} hosts answered", failures)


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


def _check_executor(executor: Executor | None) -> Executor | None:
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(f"not a concurrent.futures.Executor: {executor!r}")
    return executor

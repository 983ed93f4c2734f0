"""Many machines at once.

    with Group(["web1", "web2", "db1"]) as group:
        for host, value in group.call(os.getloadavg).items():
            print(host, value)

Every host has exactly one entry in each result, whatever happens there: a value, or an
`ErrorResult`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, TypeAlias

from ..._settings import Settings, check_count
from ...hosts import canonical_name
from .. import facts as _facts
from ..base.program import Word
from ..files import transfer
from .member import LocalPath, Member, as_member
from .queue import Queue, template
from .result import ErrorResult, GroupResult

Factory: TypeAlias = Callable[[str], Any]


class Group:
    """Machines that do the same at the same time.

    Each is connected to when it is first needed.  One that cannot be is left alone after that: its
    error is in every result, until `connect()` tries again.

    ``a | b``, ``a & b``, ``a - b`` and ``a ^ b`` are groups, too, of machines by their hosts'
    names; one side may be a machine, or a name.  They share their connections with the groups that
    they are made of.  A host is the same however its name is spelled, see
    `remctl_toolkit.hosts.canonical_name()`.

    Args:
        hosts: names, or machines; `close()` closes them all.
        factory: makes a machine of a name: it has `connection`, `call()` and `close()`, or is a
            `Connection`.  None is `Machine`.
        parallel: how many are worked on at the same time.
        settings: for `Machine`: port, principal and so on.

    Raises:
        TypeError, ValueError: something is no host, or is named twice; `parallel` is below 1.
    """

    def __init__(
        self,
        hosts: Iterable[Any],
        *,
        factory: Factory | None = None,
        parallel: int = Settings.concurrency,
        **settings: Any,
    ) -> None:
        if isinstance(hosts, (str, bytes)):
            raise TypeError(f"hosts must be several names, in a list say, not {hosts!r}")
        if factory is not None and settings:
            names = ", ".join(settings)
            raise TypeError(f"{names}: settings are for Machine, a factory has its own")
        self._factory = factory or _machines(settings)
        self._settings = _check(parallel, settings)
        self._members: dict[str, Member] = {}  # by identity
        for host in hosts:
            member = as_member(host, self._factory)
            if member.identity in self._members:
                raise ValueError(f"host {member.host} is in the group twice")
            self._members[member.identity] = member

    @property
    def hosts(self) -> list[str]:
        """The names of the hosts."""
        return [member.host for member in self._members.values()]

    @property
    def tunnels(self) -> list[Member]:
        """The hosts, each to work with alone: `host`, `connected`, `call()`, `put()` and so on."""
        return list(self._members.values())

    @property
    def connection_errors(self) -> dict[str, ErrorResult]:
        """The hosts that could not be connected to."""
        found = {member.host: member.error for member in self._members.values()}
        return {host: error for host, error in found.items() if error is not None}

    def __repr__(self) -> str:
        given = [each.host if type(each) is Member else each for each in self.tunnels]
        return f"{type(self).__name__}({given!r})"

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self.hosts)

    def __contains__(self, host: object) -> bool:
        name: Any = host if isinstance(host, str) else getattr(host, "host", None)
        try:
            return canonical_name(name) in self._members
        except (TypeError, ValueError):
            return False

    # What all of them do.

    def _each(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> GroupResult:
        queue = Queue(parallel=self._settings.concurrency)
        result = queue.add(self, action, *args, **kwargs)
        queue.run()
        found: GroupResult = result.value
        return found

    def connect(self) -> GroupResult:
        """Connect to all that are not connected to, those that could not be included.

        Returns:
            The machines, or why they could not be connected to.
        """
        for member in self._members.values():
            member.error = None
        return self._each(Member.machine)

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> GroupResult:
        """Run a function on all; see `Machine.call()`."""
        return self._each(Member.call, function, *args, **kwargs)

    def run(self, argv: Iterable[Word], **options: Any) -> GroupResult:
        """Run a command; see `Connection.run()` for the arguments and the values.

        Args:
            argv: the program and its arguments.
            options: those of `Connection.run()`; a machine's own folder and environment hold as
                long as these do not say otherwise.  With ``check=True``, a status other than 0 is
                an `ErrorResult`.
        """
        return self._each(Member.run, list(argv), **options)

    def put(
        self, local_path: LocalPath, remote_path: Word | None = None, mode: int | None = None
    ) -> GroupResult:
        """Copy one file to all; see `transfer.put()`."""
        return self._each(Member.put, local_path, remote_path, mode)

    def fetch(self, remote_path: Word, local_path: LocalPath | None = None) -> GroupResult:
        """Copy one file from all; see `transfer.fetch()`.

        Args:
            remote_path: its path there.
            local_path: its path here, with ``{host}`` where the host's name is to be; folders on
                the way are made.  None is a new temporary file for each.

        Raises:
            ValueError: without ``{host}`` the copies would overwrite each other.
        """
        return self._each(Member.fetch, remote_path, template(self, local_path))

    def upload(self, source: LocalPath, destination: Word) -> GroupResult:
        """Copy a file or a tree to all; see `transfer.upload()`."""
        return self._each(Member.use, transfer.upload, source, destination)

    def download(self, source: Word, destination: LocalPath) -> GroupResult:
        """Copy a file or a tree from all; see `transfer.download()`, and `fetch()`."""
        path = template(self, destination)
        return self._each(Member.copy_here, transfer.download, source, path)

    def facts(self, names: Iterable[str] = _facts.NAMES) -> GroupResult:
        """Find out what kind of machines these are; see `facts.gather()`."""
        wanted = [names] if isinstance(names, str) else list(names)
        _facts.check_names(wanted)
        return self._each(Member.use, _facts.gather, wanted)

    def filter(self, predicate: Callable[..., Any], /, *args: Any, exclude: bool = False) -> Group:
        """Return the group of those where a function says so; see `call()`.

        Args:
            predicate: the function, which runs on the machines.
            args: its arguments.
            exclude: return the others.

        Raises:
            GroupError: a host cannot be asked, as there is no connection or the function fails.
                ``group - group.connection_errors`` has those that can be connected to.
        """
        answers = self.call(predicate, *args).raise_failures()
        return self._of(each for each in self.tunnels if bool(answers[each.host]) is not exclude)

    def close(self) -> None:
        """Close all connections; those to hosts given by their names are opened again if need be.

        Raises:
            GroupError: something went wrong with it.
        """
        connected = self._of(each for each in self._members.values() if each.error is None)
        connected._each(Member.close).raise_failures()

    def __enter__(self) -> Self:
        """Connect to all; errors are in `connection_errors`, and in every result."""
        self.connect()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Groups made of groups.

    def _of(self, members: Iterable[Member]) -> Group:
        group = Group([], factory=self._factory, parallel=self._settings.concurrency)
        group._members = {member.identity: member for member in members}
        return group

    def _members_of(self, other: Any) -> dict[str, Member]:
        if isinstance(other, Group):
            return other._members
        if isinstance(other, (str, bytes)) or not isinstance(other, Iterable):
            other = [other]
        members = [as_member(host, self._factory) for host in other]
        return {member.identity: member for member in members}

    def union(self, other: Any) -> Group:
        """Return the group of those in either; `other` is a group, or machines or names."""
        return self._of({**self._members, **self._members_of(other), **self._members}.values())

    def intersection(self, other: Any) -> Group:
        """Return the group of those in both."""
        others = self._members_of(other)
        return self._of(each for host, each in self._members.items() if host in others)

    def difference(self, other: Any) -> Group:
        """Return the group of those that are not in the other."""
        others = self._members_of(other)
        return self._of(each for host, each in self._members.items() if host not in others)

    def symmetric_difference(self, other: Any) -> Group:
        """Return the group of those in one of them only."""
        return self.union(other).difference(self.intersection(other))

    def __rsub__(self, other: Any) -> Group:
        return self._of(self._members_of(other).values()).difference(self)

    __or__ = __ror__ = __add__ = __radd__ = union
    __and__ = __rand__ = intersection
    __sub__ = difference
    __xor__ = __rxor__ = symmetric_difference


def _machines(settings: dict[str, Any]) -> Factory:
    def factory(host: str) -> Any:
        from ..plumbum.machine import Machine

        return Machine(host, **settings)

    return factory


def _check(parallel: int, machine: Mapping[str, Any]) -> Settings:
    """Return settings for the scheduler, and check those for machines before any is connected to.

    Raises:
        TypeError, ValueError: one of them is invalid.
    """
    check_count("parallel", parallel, least=1)
    names = ("port", "principal", "ccache", "source_ip", "credentials")
    known: Mapping[str, Any] = {name: machine[name] for name in names if name in machine}
    return Settings(concurrency=parallel, **known)

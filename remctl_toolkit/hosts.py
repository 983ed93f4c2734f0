"""Lists of hosts as administrators write them: ranges, groups, exclusions, files, DNS.

::

    hosts = HostList("web[1-64],db1:4444,-web3")
    hosts.add_file("hosts.txt")
    for outcome in run_on_hosts(hosts, ["uptime", "show"]):
        print(outcome)

A list is made of items with commas between them:

- ``web1``, ``192.0.2.7``, ``2001:db8::7``: a host; ``web1:4444`` and ``[2001:db8::7]:4444`` with
  its port;
- ``web[1-64]``, ``web[01-10,20]``, ``rack[1-4]n[1-16]:4444``: ranges;
- ``@web``, ``@dhcp:servers``, ``@*``: groups, as ClusterShell is configured;
- ``-web3``, ``-web[7-9]``, ``-@down``: hosts to leave out, wherever they are named.

ClusterShell's other operators stand in place of a comma: ``@web!web3`` (without), ``@web&@berlin``
(in both) and ``@web^@berlin`` (in one only), from left to right.

Ranges, groups and folding need ClusterShell, and DNS needs dnspython: the extra ``fleet`` has both.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ._visit import Host

__all__ = ["HostList", "HostListError", "MissingExtraError", "fold"]

_MOST_HOSTS = 100_000  # in one item: more is a slip of the finger, and takes all memory

_RANGE = re.compile(r"\[([^\[\]]*)\]")
_PART_OF_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18})(?:/(\d{1,18}))?)?")
_NAME_AND_PORT = re.compile(r"(\w[\w.-]*)(?::(\d{1,5}))?")
_ADDRESS_AND_PORT = re.compile(r"\[(.+)\](?::(\d{1,5}))?")
_OPERATOR = re.compile(r"([,!&^])(?![^\[]*\])")  # not within a range


class HostListError(ValueError):
    """A list of hosts cannot be understood or read; the text is one line."""


class MissingExtraError(ImportError):
    """A package is not installed that comes with an extra."""

    def __init__(self, package: str, purpose: str, extra: str = "fleet") -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'python-remctl[{extra}]'")


class HostList:
    """Hosts, in the order they were added; iterating gives `Host` objects.

    No host can be in it twice: naming one twice is an error, as it is a mistake more often than
    not.  Groups may overlap.

    Args:
        patterns: what to begin with, see `add()`.

    Raises:
        HostListError, MissingExtraError: see `add()`.
    """

    def __init__(self, *patterns: str) -> None:
        self._hosts: dict[Host, str] = {}  # and the item that named each
        self._left_out: set[Host] = set()
        for pattern in patterns:
            self.add(pattern)

    def add(self, pattern: str) -> None:
        """Add the hosts of a pattern such as ``web[1-64],-web3``; see the module.

        Raises:
            HostListError: a broken range, an unknown group, a host that is named twice.
            MissingExtraError: it has ranges or groups, and ClusterShell is not installed.
        """
        found: dict[Host, str] = {}
        for operator, operand in _operands(pattern):
            if operator == "," and operand.startswith("-"):
                self._left_out |= set(_members(operand[1:]))
                continue
            members = _members(operand)
            if operator == ",":
                _add(found, members, operand)
            elif operator == "!":
                found = _without(found, members)
            elif operator == "&":
                found = {host: item for host, item in found.items() if host in members}
            else:
                new = dict.fromkeys((host for host in members if host not in found), operand)
                found = {**_without(found, members), **new}
        for host, item in found.items():
            _add(self._hosts, [host], item)

    def exclude(self, pattern: str) -> None:
        """Leave out the hosts of a pattern, also those that are added later.

        A host that is named without a port is left out on every port.

        Raises:
            HostListError, MissingExtraError: see `add()`.
        """
        self._left_out |= set(HostList(pattern))

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Add what a file has: a pattern in each line; ``#`` begins a comment.

        Args:
            path: the file; ``-`` is standard input.

        Raises:
            HostListError: it cannot be read, or a line cannot be understood.
            MissingExtraError: see `add()`.
        """
        name = "standard input" if path == "-" else os.fspath(path)
        try:
            with open(0 if path == "-" else path, closefd=path != "-") as file:
                lines = list(file)
        except OSError as error:
            raise HostListError(f"cannot read {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise HostListError(f"cannot read {name}: it is not a text file") from None
        for number, line in enumerate(lines, 1):
            pattern = line.partition("#")[0].strip()
            try:
                if pattern:
                    self.add(pattern)
            except HostListError as error:
                raise HostListError(f"{name}, line {number}: {error}") from None

    def add_srv(self, name: str) -> None:
        """Add the hosts and ports of DNS SRV records, by priority and then by weight.

        Args:
            name: their name, such as ``_remctl._tcp.example.org``, or just the domain.

        Raises:
            HostListError: there are none, or DNS does not answer.
            MissingExtraError: dnspython is not installed.
        """
        if not name.startswith("_"):
            name = f"_remctl._tcp.{name}"
        for host in _look_up(name):
            _add(self._hosts, [host], f"the SRV records of {name}")

    def __iter__(self) -> Iterator[Host]:
        return iter(_without(self._hosts, self._left_out))


def fold(hosts: Iterable[Host | str]) -> str:
    """Write hosts in short: ``web[1-298],db1``; without ClusterShell, one by one."""
    by_port: dict[int | None, list[str]] = {}
    for host in hosts:
        name, port = (host, None) if isinstance(host, str) else (host.name, host.port)
        by_port.setdefault(port, []).append(name)
    items = []
    for port, names in by_port.items():
        addresses = [name for name in names if ":" in name]
        folded = _fold([name for name in names if ":" not in name])
        suffix = "" if port is None else f":{port}"
        items += [f"{name}{suffix}" for name in folded]
        items += [f"[{address}]{suffix}" if suffix else address for address in addresses]
    return ",".join(items)


# -- Items ----------------------------------------------------------------------------------------


def _operands(pattern: str) -> list[tuple[str, str]]:
    """Cut a pattern into what its operators work on, each with the operator before it."""
    pieces = [",", *_OPERATOR.split(pattern)]
    operands = [piece.strip() for piece in pieces[1::2]]
    if not all(operand.lstrip("-") for operand in operands):
        raise HostListError(f"a name is missing in {pattern!r}" if pattern.strip() else "no hosts")
    return list(zip(pieces[::2], operands, strict=True))


def _add(found: dict[Host, str], hosts: Iterable[Host], item: str) -> None:
    for host in hosts:
        before = found.get(host)
        if before is not None and not (_is_group(before) or _is_group(item)):
            where = "" if before == item else f": by {before} and by {item}"
            raise HostListError(f"host {host} is named twice{where}")
        found.setdefault(host, item)


def _without(found: dict[Host, str], hosts: Iterable[Host]) -> dict[Host, str]:
    drop = set(hosts)
    return {
        host: item
        for host, item in found.items()
        if host not in drop and Host(host.name) not in drop
    }


def _is_group(item: str) -> bool:
    return re.search(r"^@|[*?]", item) is not None


def _members(item: str) -> list[Host]:
    """Return the hosts of one item."""
    if _is_group(item):
        return _of_group(item)
    if "[" in item and not _ADDRESS_AND_PORT.fullmatch(item):
        return _of_range(item)
    return [_host(item)]


def _host(text: str) -> Host:
    """Return the host that a name or address, with or without a port, stands for."""
    found = _ADDRESS_AND_PORT.fullmatch(text)
    if found or text.count(":") > 1:
        name, port = found.groups() if found else (text, None)
        try:
            ipaddress.IPv6Address(name)
        except ValueError:
            kind = "range" if found else "name or IPv6 address"
            raise HostListError(f"not a {kind}: {text!r}") from None
    else:
        found = _NAME_AND_PORT.fullmatch(text)
        if found is None:
            broken = "broken range in" if re.search(r"[\[\]]", text) else "not the name of a host:"
            raise HostListError(f"{broken} {text!r}")
        name, port = found.groups()
    if port is not None and not 1 <= int(port) <= 65535:
        raise HostListError(f"not a port: {port} in {text!r}")
    return Host(name, None if port is None else int(port))


def _of_range(item: str) -> list[Host]:
    count = _count(item)
    names = _expand(item, f"the range {item}")
    if len(names) < count:
        raise HostListError(f"a host is named twice in {item}")
    return [_host(name) for name in names]


def _of_group(item: str) -> list[Host]:
    if "[" in item:
        _count(item)
    names = _expand(item, f"the group {item}")
    if not names:
        raise HostListError(f"unknown or empty group: {item}")
    return [_host(name) for name in names]


def _count(item: str) -> int:
    """Return how many names the ranges of an item make.

    ClusterShell also takes ranges that are more likely a mistake, and any number of hosts.
    """
    if re.search(r"[\[\]]", _RANGE.sub("", item)):
        raise HostListError(f"broken range in {item!r}")
    sizes = []
    for inside in _RANGE.findall(item):
        sizes.append(0)
        for part in inside.split(","):
            found = _PART_OF_RANGE.fullmatch(part.strip())
            first, last, step = map(int, found.groups("1")) if found else (1, 0, 1)
            if found and found[2] is None:
                last = first
            if last < first or step < 1:
                raise HostListError(f"broken range [{inside}] in {item!r}")
            sizes[-1] += (last - first) // step + 1
    count = math.prod(sizes)
    if count > _MOST_HOSTS:
        raise HostListError(f"{item} stands for more than {_MOST_HOSTS:,} hosts")
    return count


# -- ClusterShell and dnspython -------------------------------------------------------------------


def _expand(item: str, purpose: str) -> list[str]:
    """Return the names that ClusterShell makes of an item."""
    try:
        from ClusterShell import NodeSet, NodeUtils
    except ImportError:
        raise MissingExtraError("ClusterShell", purpose) from None
    failures = (
        NodeSet.NodeSetException,
        NodeUtils.GroupSourceError,
        NodeUtils.GroupResolverError,
    )
    try:
        return [str(name) for name in NodeSet.NodeSet(item)]
    except NodeUtils.GroupResolverSourceError as error:
        raise HostListError(f"unknown source of groups: {error} in {item}") from None
    except failures as error:
        kind = "group" if item.startswith("@") else "range"
        reason = " ".join(str(error).split())
        raise HostListError(f"broken {kind} {item}: {reason or type(error).__name__}") from None


def _fold(names: list[str]) -> list[str]:
    """Fold names; they stay as they are if ClusterShell is not there, or would change them."""
    try:
        from ClusterShell import NodeSet
    except ImportError:
        return names
    try:
        folded = NodeSet.NodeSet.fromlist(names, resolver=NodeSet.RESOLVER_NOGROUP)
    except NodeSet.NodeSetException:
        return names
    if sorted(map(str, folded)) != sorted(names):
        return names
    return [operand for _, operand in _operands(str(folded))] if names else []


def _look_up(name: str) -> list[Host]:
    """Ask DNS for SRV records."""
    try:
        import dns.exception
        import dns.resolver
    except ImportError:
        raise MissingExtraError("dnspython", f"looking up {name}") from None
    try:
        records: list[Any] = list(dns.resolver.resolve(name, "SRV"))
    except dns.exception.DNSException as error:
        raise HostListError(f"cannot look up the SRV records of {name}: {error}") from None
    records.sort(key=lambda record: (record.priority, -record.weight, record.target))
    hosts: dict[Host, None] = {}
    for record in records:
        target = record.target.to_text(omit_final_dot=True)
        if target != ".":  # RFC 2782: the service is decidedly not available there.
            hosts[Host(target, record.port)] = None
    if not hosts:
        raise HostListError(f"{name}: there is no such service")
    return list(hosts)

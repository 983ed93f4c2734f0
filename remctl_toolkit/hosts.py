"""Lists of hosts as administrators write them: ranges, groups, exclusions, files, DNS.

::

    hosts = HostList("web[1-64],db1:4444,-web3")
    hosts.add_file("hosts.txt")
    for outcome in run_on_hosts(hosts, ["uptime", "show"]):
        print(outcome)

A list is made of items with commas between them:

- ``web1``, ``192.0.2.7``, ``2001:db8::7``: a host; ``web1:4444`` and ``[2001:db8::7]:4444``: a host
  with a port;
- ``web[1-64]``, ``web[01-10,20]``, ``rack[1-4]n[1-16]:4444``: ranges;
- ``@web``, ``@dhcp:servers``, ``@*``: groups, from ClusterShell's configuration;
- ``-web3``, ``-web[7-9]``, ``-@down``: hosts to exclude, wherever they are named.  A name or a
  range that excludes no host is an error; a group may have hosts that are not in the list.

ClusterShell's other operators can be used instead of a comma: ``@web!web3`` (without),
``@web&@berlin`` (in both) and ``@web^@berlin`` (in one only), from left to right.

Different spellings of a host are the same host, see `Host`.

Groups need ClusterShell, and DNS needs dnspython: the extra ``fleet`` has both.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import _remctl_core as _core

from ._hosts_errors import HostListError, MissingExtraError
from ._hosts_folding import fold_names
from ._hosts_groups import Groups
from ._hosts_identity import Host, canonical_name
from ._hosts_patterns import Exclusion, check_total, combine, is_literal, operands, to_host
from ._hosts_table import HostTable

__all__ = ["Host", "HostList", "HostListError", "MissingExtraError", "canonical_name", "fold"]

_NO_WEIGHT = 0.01  # RFC 2782 gives records of weight 0 a very small chance to be the first
_LARGEST = 64 * 1024 * 1024  # octets of a file
_BOM = b"\xef\xbb\xbf"  # the byte order mark that some editors write


class HostList:
    """Hosts, in the order they were added; iterating yields `Host` objects.

    Naming a host twice is an error, because usually it is a mistake.  Groups may overlap.

    Iterating raises HostListError if an excluded host is not in the list.

    Args:
        patterns: the first patterns, see `add()`.

    Raises:
        HostListError, MissingExtraError: see `add()`.
    """

    def __init__(self, *patterns: str) -> None:
        self._hosts = HostTable()
        self._exclusions: list[Exclusion] = []
        self._groups = Groups()
        self._total = 0  # including excluded hosts
        for pattern in patterns:
            self.add(pattern)

    def add(self, pattern: str) -> None:
        """Add the hosts of a pattern such as ``web[1-64],-web3``; see the module.

        Raises:
            HostListError: a broken range, an unknown group, a host that is named twice, or more
                than a million hosts.
            MissingExtraError: it has groups, and ClusterShell is not installed.
        """
        self._add(pattern, "")

    def _add(self, pattern: str, where: str) -> None:
        found, exclusions = self._combine(pattern)
        for host, item in found.items():
            self._hosts.add([host], item, literal=bool(item))
        for each in exclusions:
            self._exclusions.append(each._replace(label=where + each.label))

    def _combine(self, pattern: str) -> tuple[HostTable, list[Exclusion]]:
        found, exclusions = combine(pattern, self._groups.members)
        self._total += len(found) + sum(len(each.hosts) for each in exclusions)
        check_total(self._total)
        return found, exclusions

    def exclude(self, pattern: str) -> None:
        """Exclude the hosts of a pattern, also those that are added later.

        A host without a port is excluded on every port.  If a name or range in the pattern excludes
        no host, iterating raises HostListError.

        Raises:
            HostListError, MissingExtraError: see `add()`.
        """
        self._exclude(pattern, literal=True)

    def _exclude(self, pattern: str, *, literal: bool) -> None:
        found, exclusions = self._combine(pattern)
        for each in exclusions:
            if not found.remove(each.hosts) and each.literal:
                raise each.error()
        items = operands(pattern)
        by_item: dict[str, list[Host]] = {}
        if all(operator == "," for operator, _ in items):
            for host, item in found.items():
                by_item.setdefault(item, []).append(host)
        if not by_item:  # Its operators make one item of it, or remove everything.
            whole = all(is_literal(item.lstrip("-")) for _, item in items)
            by_item[pattern.strip() if whole else ""] = list(found)
        for item, hosts in by_item.items():
            label = f"exclude {item}"
            self._exclusions.append(Exclusion(hosts, item, label, literal and bool(item)))

    def add_file(self, path: str | os.PathLike[str]) -> None:
        """Add the patterns in a file, one in each line; ``#`` begins a comment.

        The file is UTF-8 in every locale, with or without a byte order mark.  Comments may have
        any encoding that contains ASCII.

        Args:
            path: the file; ``-`` is standard input.

        Raises:
            HostListError: it cannot be read, or a line is invalid; the text names file and line.
            MissingExtraError: see `add()`.
        """
        _for_each_line(path, self._add)

    def exclude_file(self, path: str | os.PathLike[str]) -> None:
        """Exclude the hosts in a file; see `exclude()` and `add_file()`.

        The file may have hosts that are not in the list.

        Raises:
            HostListError, MissingExtraError: see `add_file()`.
        """
        _for_each_line(path, lambda pattern, _: self._exclude(pattern, literal=False))

    def add_srv(self, name: str) -> None:
        """Add the hosts and ports of DNS SRV records, by priority.

        Records of one priority are ordered at random, in proportion to their weights (RFC 2782).

        Args:
            name: their name, such as ``_remctl._tcp.example.org``, or just the domain.

        Raises:
            HostListError: there are no records, DNS does not answer, or a record is invalid.
            MissingExtraError: dnspython is not installed.
        """
        if not name.startswith("_"):
            name = f"_remctl._tcp.{name}"
        self._hosts.add(_look_up(name), f"the SRV records of {name}", literal=True)

    def __iter__(self) -> Iterator[Host]:
        excluded: set[Host] = set()
        for each in self._exclusions:
            found = [match for host in each.hosts for match in self._hosts.matching(host)]
            if each.literal and not found:
                raise each.error()
            excluded.update(found)
        return iter([host for host in self._hosts if host not in excluded])


def fold(hosts: Iterable[Host | str]) -> str:
    """Return a short pattern for hosts, such as ``db1,web[1-298]``."""
    by_port: dict[int | None, list[str]] = {}
    for host in hosts:
        name, port = (host, None) if isinstance(host, str) else (host.name, host.port)
        by_port.setdefault(port, []).append(name)
    items: list[str] = []
    for port, names in by_port.items():
        addresses = [name for name in names if ":" in name]
        folded = fold_names([name for name in names if ":" not in name])
        suffix = "" if port is None else f":{port}"
        items += [f"{name}{suffix}" for name in folded]
        items += [f"[{address}]{suffix}" if suffix else address for address in addresses]
    return ",".join(items)


# -- Files and DNS --------------------------------------------------------------------------------


def _for_each_line(path: str | os.PathLike[str], action: Callable[[str, str], object]) -> None:
    """Call a function with each pattern in a file, and with file and line for errors."""
    name = "standard input" if path == "-" else os.fspath(path)
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            octets = file.read(_LARGEST + 1)
    except OSError as error:
        raise HostListError(f"cannot read {name}: {error.strerror}") from None
    except ValueError:
        raise HostListError(f"cannot read {name!r}: not a file name") from None
    if len(octets) > _LARGEST:
        raise HostListError(f"cannot read {name}: it is larger than {_LARGEST >> 20} MiB")
    for number, line in enumerate(octets.splitlines(), 1):
        where = f"{name}, line {number}: "
        words = line.removeprefix(_BOM).partition(b"#")[0].strip()
        try:
            pattern = words.decode()
        except UnicodeDecodeError:
            shown = words[:60]
            text = f"{where}it is not a text file in UTF-8: {shown!r}"
            raise HostListError(text) from None
        try:
            if pattern:
                action(pattern, where)
        except HostListError as error:
            raise HostListError(f"{where}{error}") from None
        except MissingExtraError as error:
            purpose = f"{where}{error.purpose}"
            raise MissingExtraError(error.package, purpose) from None


def _look_up(name: str) -> list[Host]:
    """Ask DNS for SRV records."""
    try:
        import dns.exception
        import dns.resolver
    except ImportError:
        raise MissingExtraError("dnspython", f"looking up {name}") from None
    try:
        records: list[Any] = list(dns.resolver.resolve(_core.check_host(name), "SRV"))
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise HostListError(f"cannot look up the SRV records of {name}: {error}") from None
    # The order of RFC 2782: by priority; then at random, in proportion to the weights.
    records.sort(key=lambda r: (r.priority, random.expovariate(r.weight or _NO_WEIGHT)))
    hosts: dict[Host, None] = {}
    for record in records:
        target = record.target.to_text(omit_final_dot=True)
        if target == ".":  # RFC 2782: the service is not available at this domain.
            continue
        try:
            hosts[to_host(f"{target}:{record.port}")] = None
        except HostListError as error:
            raise HostListError(f"the SRV records of {name} are wrong: {error}") from None
    if not hosts:
        raise HostListError(f"{name}: there is no such service")
    return list(hosts)

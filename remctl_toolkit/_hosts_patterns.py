"""Patterns of hosts: items with operators between them, ranges, names, addresses and ports.

This module does not look up groups: see `_hosts_groups.py`.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import _remctl_core as _core

from ._hosts_errors import HostListError
from ._hosts_identity import Host
from ._hosts_table import HostTable

# A larger number is a typo, and would use up all memory.
MAX_HOSTS = 100_000  # in one item or group
MAX_TOTAL = 10 * MAX_HOSTS  # in a list, or in all groups of a list together

# The alternatives begin with different characters, so that matching takes linear time.
_OPERAND = re.compile(r"((?:[^\[,!&^]|\[[^\[\]]*\]|\[)*)([,!&^]?)")
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_PART_OF_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18})(?:/([0-9]{1,18}))?)?")
_NAME_AND_PORT = re.compile(r"([^:]*)(?::([0-9]{1,5}))?")
_ADDRESS_AND_PORT = re.compile(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*\.?")
_SCOPE = re.compile(r"[A-Za-z0-9_.:-]+")  # a network interface
_NOT_LITERAL = re.compile(r"^@|[*?]")

Members = Callable[[str], list[Host]]


class Exclusion(NamedTuple):
    """Hosts to exclude.

    Attributes:
        hosts: the hosts.
        item: the item that names them.
        label: the item as it was written, with file and line, for errors.
        literal: whether the item names hosts directly.  Then excluding no host is a typo; but a
            group may have hosts that are not in the list.
    """

    hosts: list[Host]
    item: str
    label: str
    literal: bool

    def error(self) -> HostListError:
        """Return the exception for an item that excludes no host."""
        return HostListError(f"{self.label} leaves out no host: {self.item} is not in the list")


def combine(
    pattern: str, members: Members, *, overlap: bool = False
) -> tuple[HostTable, list[Exclusion]]:
    """Return the hosts of a pattern, and those that it excludes.

    Args:
        pattern: items with operators between them.
        members: returns the hosts of one item.
        overlap: whether hosts may be named twice, as in groups.  Then ``-`` is part of names, as in
            ClusterShell.

    Raises:
        HostListError: the pattern is invalid.
        MissingExtraError: a package is not installed.
    """
    found = HostTable()
    exclusions: list[Exclusion] = []
    left_out = 0
    most = MAX_HOSTS if overlap else None
    for operator, item in operands(pattern):
        if operator == "," and item.startswith("-") and not overlap:
            excluded = item[1:]
            hosts = members(excluded)
            exclusions.append(Exclusion(hosts, excluded, item, is_literal(excluded)))
            left_out += len(hosts)
            check_total(left_out, most)
            continue
        hosts = members(item)
        literal = is_literal(item) and not overlap
        if operator == ",":
            found.add(hosts, item, literal=literal)
        elif operator == "!":
            if not found.remove(hosts) and literal:
                raise Exclusion(hosts, item, f"!{item}", literal).error()
        elif operator == "&":
            found.keep(hosts)
        else:
            new = [host for host in hosts if not found.matching(host)]
            found.remove(hosts)
            found.add(new, item, literal=literal)
        check_total(len(found), most)
    return found, exclusions


def check_total(count: int, most: int | None = None) -> None:
    """Check a number of hosts; None is the limit of a list.

    Raises:
        HostListError: there are too many.
    """
    most = MAX_TOTAL if most is None else most
    if count > most:
        raise HostListError(f"more than {most:,} hosts")


def operands(pattern: str) -> list[tuple[str, str]]:
    """Split a pattern into operands, each with the operator before it."""
    found: list[tuple[str, str]] = []
    operator = ","
    for piece in _OPERAND.finditer(pattern):
        found.append((operator, piece[1].strip()))
        operator = piece[2]
        if not operator:
            break
    if not all(item.lstrip("-") for _, item in found):
        raise HostListError(f"a name is missing in {pattern!r}" if pattern.strip() else "no hosts")
    return found


def is_literal(item: str) -> bool:
    """Return whether an item names hosts directly, not by a group or a wildcard."""
    return _NOT_LITERAL.search(item) is None


def literal_hosts(item: str) -> list[Host]:
    """Return the hosts of an item that names them directly.

    Raises:
        HostListError: a broken range, something that is not a name, the same host twice.
    """
    if "[" not in item or _ADDRESS_AND_PORT.fullmatch(item):
        return [to_host(item)]
    names = expand(item)
    found = dict.fromkeys(map(to_host, names))
    if len(found) < len(names):
        raise HostListError(f"a host is named twice in {item}")
    return list(found)


def to_host(text: str) -> Host:
    """Return the host of a name or address, with or without a port.

    Raises:
        HostListError: it is neither, or the port is invalid.
    """
    found = _ADDRESS_AND_PORT.fullmatch(text)
    if found or text.count(":") > 1:
        name, port = found.groups() if found else (text, None)
        if not _is_address(name):
            kind = "range" if found else "name or IPv6 address"
            raise HostListError(f"not a {kind}: {text!r}")
    else:
        found = _NAME_AND_PORT.fullmatch(text)
        if found is None or not _is_name(found[1]):
            broken = "broken range in" if re.search(r"[\[\]]", text) else "not the name of a host:"
            raise HostListError(f"{broken} {text!r}")
        name, port = found.groups()
    if port is not None and not 1 <= int(port) <= 65535:
        raise HostListError(f"not a port: {port} in {text!r}")
    try:
        return Host(name, None if port is None else int(port))
    except ValueError as error:  # It is too long, or has unprintable characters.
        raise HostListError(str(error)) from None


def _is_name(text: str) -> bool:
    try:
        name = _core.check_host(text)  # Before matching: it encodes international names.
    except ValueError:
        return False
    return _NAME.fullmatch(name) is not None


def _is_address(text: str) -> bool:
    address, percent, scope = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or _SCOPE.fullmatch(scope) is not None


# -- Ranges ---------------------------------------------------------------------------------------


def expand(item: str) -> list[str]:
    """Return the names that an item with ranges stands for, in their order.

    Raises:
        HostListError: a broken range, or too many names.
    """
    texts = _RANGE.split(item)  # Every second one was in brackets.
    if re.search(r"[\[\]]", "".join(texts[::2])):
        raise HostListError(f"broken range in {item!r}")
    ranges = [_parse_range(inside, item) for inside in texts[1::2]]
    if math.prod(sum(len(numbers) for numbers, _ in parts) for parts in ranges) > MAX_HOSTS:
        raise HostListError(f"{item} stands for more than {MAX_HOSTS:,} hosts")
    choices = [[text] for text in texts]
    for place, parts in enumerate(ranges):
        choices[2 * place + 1] = [
            f"{number:0{width}}" for numbers, width in parts for number in numbers
        ]
    return list(map("".join, itertools.product(*choices)))


def _parse_range(inside: str, item: str) -> list[tuple[range, int]]:
    """Return the numbers of a range, each part with the width that zeros fill."""
    parts: list[tuple[range, int]] = []
    for part in inside.split(","):
        found = _PART_OF_RANGE.fullmatch(part.strip())
        first, last, step = found.groups() if found else ("", "", "")
        last = last or first
        padded = any(len(number) > 1 and number[0] == "0" for number in (first, last))
        numbers = range(0)
        if found and int(step or 1) and not (padded and len(first) != len(last)):
            numbers = range(int(first), int(last) + 1, int(step or 1))
        if not numbers:
            raise HostListError(f"broken range [{inside}] in {item!r}")
        parts.append((numbers, len(first) if padded else 1))
    return parts

"""Groups of hosts, from ClusterShell's configuration.

ClusterShell puts the names of groups into shell commands without quoting them.  So this module
never passes a pattern to it, only the name of one group at a time, and only if the name has no
characters that are special to a shell or to sed.  It parses the answers itself, and checks the
names of groups in them in the same way.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from typing import Any

from ._hosts_errors import HostListError, MissingExtraError
from ._hosts_identity import Host
from ._hosts_patterns import MAX_HOSTS, MAX_TOTAL, combine, expand, is_literal, literal_hosts

_MAX_DEPTH = 32  # groups within groups

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,254}")
_WILDCARD = re.compile(r"[\w.:*?-]+")
_RANGE_HINT = "* and ? match hosts of groups only, a range is written web[1-9]"
_DIGITS = re.compile(r"([0-9]+)")


def resolver() -> Any:
    """Return ClusterShell's configured resolver of groups.

    Raises:
        ImportError: ClusterShell is not installed.
    """
    from ClusterShell import NodeSet

    found: Any = NodeSet.std_group_resolver()
    # If HOME, XDG_CONFIG_HOME or CLUSTERSHELL_CFGDIR is empty, ClusterShell would read the user's
    # files, which contain shell commands, from the working directory.
    files = getattr(found, "filenames", None)
    if isinstance(files, list):
        found.filenames = [name for name in files if os.path.isabs(name) or _is_meant(name)]
    return found


def _is_meant(name: str) -> bool:
    """Return whether the user named the working directory, or a folder in it."""
    folder = os.environ.get("CLUSTERSHELL_CFGDIR", "")
    return bool(folder) and name == os.path.join(folder, os.path.basename(name))


class Groups:
    """The hosts of groups and wildcards; each group is looked up once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[Host]] = {}
        self._open: list[tuple[str, str]] = []  # groups whose members are being looked up
        self._total = 0

    def members(self, item: str) -> list[Host]:
        """Return the hosts of an item, those of groups sorted.

        Raises:
            HostListError: the item is invalid, or an unknown or empty group.
            MissingExtraError: it is a group, and ClusterShell is not installed.
        """
        if is_literal(item):
            return literal_hosts(item)
        wildcard = not item.startswith("@")
        try:
            hosts = self._members(item, "")
        except HostListError as error:
            if wildcard:
                raise HostListError(f"{item!r}: {error}; {_RANGE_HINT}") from None
            raise
        if not hosts:
            what = f"no host of a group matches {item!r}; {_RANGE_HINT}"
            raise HostListError(what if wildcard else f"unknown or empty group: {item}")
        return sorted(hosts, key=_natural)

    def _members(self, item: str, source: str) -> list[Host]:
        """Return the hosts of an item in a group of a source; "" is the default source."""
        if is_literal(item):
            return literal_hosts(item)
        found: dict[Host, None] = {}
        for name in expand(item):
            if name.startswith("@"):
                found.update(dict.fromkeys(self._group(name, source)))
            else:
                found.update(dict.fromkeys(self._matching(name, source)))
        return list(found)

    def _group(self, item: str, source: str) -> list[Host]:
        """Return the hosts of one group, which may name its source."""
        other, colon, name = item[1:].rpartition(":")
        if colon:
            source = _checked(other, item)
        if name == "*":
            return self._all(source)
        return self._look_up(source, _checked(name, item), written=True)

    def _matching(self, mask: str, source: str) -> list[Host]:
        """Return the hosts of a source whose names match a mask such as ``web*``."""
        if not _WILDCARD.fullmatch(mask):
            raise HostListError(f"not the name of a host: {mask!r}")
        matches = re.compile(fnmatch.translate(mask.lower())).match
        return [
            host
            for host in self._all(source)
            if any(map(matches, (str(host).lower(), host.name.lower(), host.identity[0])))
        ]

    # -- Looking up groups, each only once

    def _look_up(self, source: str, name: str, *, written: bool = False) -> list[Host]:
        def hosts() -> list[Host]:
            if written and "." in name:
                self._check_dots(source, name)
            return self._parse(self._ask("group_nodes", source, name), source)

        return self._once(source, name, hosts)

    def _all(self, source: str) -> list[Host]:
        """Return all hosts of a source; if it has no list of all, those of its groups."""

        def hosts() -> list[Host]:
            words = self._ask("all_nodes", source)
            if words is not None:
                return self._parse(words, source)
            names = [_checked(name, name) for name in self._list(source)]
            return [host for name in names for host in self._look_up(source, name)]

        return self._once(source, "*", hosts)

    def _list(self, source: str) -> list[str]:
        """Return the names of a source's groups; an empty list if it cannot list them."""
        return [name for each in self._ask("grouplist", source) or [] for name in expand(each)]

    def _check_dots(self, source: str, name: str) -> None:
        """Refuse a name that also matches another as a pattern: ClusterShell passes it to sed."""
        alike = re.compile(re.escape(name).replace(r"\.", ".")).fullmatch
        others = [each for each in self._list(source) if each != name and alike(each)]
        if others:
            raise HostListError(f"group @{name} could also be @{others[0]}: rename one of them")

    def _once(self, source: str, name: str, hosts: Callable[[], list[Host]]) -> list[Host]:
        """Return the hosts of a group; call a function to find them the first time."""
        key = source, name
        if key in self._found:
            return self._found[key]
        if key in self._open:
            raise HostListError(f"{_shown(key)} contains itself")
        if len(self._open) == _MAX_DEPTH:
            raise HostListError(f"{_shown(key)}: groups are nested more than {_MAX_DEPTH} deep")
        self._open.append(key)
        try:
            found = list(dict.fromkeys(hosts()))
        finally:
            self._open.pop()
        self._total += len(found)
        if len(found) > MAX_HOSTS or self._total > MAX_TOTAL:
            raise HostListError(f"{_shown(key)} stands for too many hosts")
        self._found[key] = found
        return found

    def _parse(self, words: list[str] | None, source: str) -> list[Host]:
        """Return the hosts of a group, given ClusterShell's description of it."""
        if not words:
            return []
        try:
            found, _ = combine(
                ",".join(words), lambda item: self._members(item, source), overlap=True
            )
        except HostListError as error:
            raise HostListError(f"group {_shown(self._open[-1])}: {error}") from None
        return list(found)

    def _ask(self, what: str, source: str, *name: str) -> list[str] | None:
        """Call ClusterShell with checked names; return None if the source does not support it."""
        group = _shown(self._open[-1])
        import configparser  # slow to import, and most lists have no groups

        try:
            from ClusterShell import NodeUtils
        except ImportError:
            raise MissingExtraError("ClusterShell", f"the group {group}") from None
        method = getattr(resolver(), what)
        try:
            words: list[str] = method(*name, source or None)
        except NodeUtils.GroupSourceNoUpcall:
            return None
        except NodeUtils.GroupResolverSourceError as error:
            if not source:
                raise HostListError(f"ClusterShell has no groups configured: {group}") from None
            raise HostListError(f"unknown source of groups: {error} in {group}") from None
        except NodeUtils.GroupResolverIllegalCharError as error:
            text = f"{group}: not the name of a group: it contains {error}"
            raise HostListError(text) from None
        except (
            NodeUtils.GroupSourceError,
            NodeUtils.GroupResolverError,
            configparser.Error,
            # YAML that is not a list of hosts; missing programs and files.
            *(AttributeError, TypeError, ValueError, OSError, RecursionError),
        ) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise HostListError(f"ClusterShell cannot look up {group}: {reason}") from None
        return words


def _shown(key: tuple[str, str]) -> str:
    source, name = key
    return f"@{source}:{name}" if source else f"@{name}"


def _checked(name: str, item: str) -> str:
    """Return the name of a group or source, if it has no characters special to a shell."""
    if not _SAFE.fullmatch(name):
        allowed = "letters, digits and _ . = + -"
        raise HostListError(f"not the name of a group: {item!r} (only {allowed} are allowed)")
    return name


def _natural(host: Host) -> list[str | tuple[int, str]]:
    """Return a sort key for hosts: names, with the numbers in them compared by value."""
    pieces = _DIGITS.split(str(host))
    found: list[str | tuple[int, str]] = list(pieces)
    found[1::2] = [(len(number.lstrip("0")), number.lstrip("0")) for number in pieces[1::2]]
    return found

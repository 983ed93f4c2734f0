"""Hosts of a list, found by identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ._hosts_errors import HostListError
from ._hosts_identity import Host


class HostTable:
    """Hosts in the order they were added, and the item that named each.

    In searches, a host without a port matches all its ports.
    """

    def __init__(self) -> None:
        self._items: dict[Host, str] = {}
        self._names: dict[str, dict[Host, None]] | None = None  # made when it is first needed

    def __iter__(self) -> Iterator[Host]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> Iterable[tuple[Host, str]]:
        """Return the hosts and the items that named them."""
        return self._items.items()

    def add(self, hosts: Iterable[Host], item: str, *, literal: bool) -> None:
        """Add hosts.

        Args:
            hosts: the hosts.
            item: the item that names them.
            literal: whether it names them directly, not by a group: groups may overlap.

        Raises:
            HostListError: two literal items name the same host.
        """
        for host in hosts:
            before = self._items.get(host)
            if before is None:
                self._put(host, item if literal else "")
            elif before and literal:
                where = "" if before == item else f": by {before} and by {item}"
                raise HostListError(f"host {host} is named twice{where}")

    def matching(self, host: Host) -> list[Host]:
        """Return the hosts of the list that a host matches."""
        if host.port is not None:
            return [host] if host in self._items else []
        if self._names is None:
            self._names = {}
            for each in self._items:
                self._names.setdefault(each.identity[0], {})[each] = None
        return list(self._names.get(host.identity[0], ()))

    def remove(self, hosts: Iterable[Host]) -> bool:
        """Remove the hosts that some hosts match; return whether there were any."""
        found = [each for host in hosts for each in self.matching(host)]
        for host in found:
            if self._items.pop(host, None) is not None and self._names is not None:
                del self._names[host.identity[0]][host]
        return bool(found)

    def keep(self, hosts: Iterable[Host]) -> None:
        """Remove all but the hosts that some hosts match."""
        found = {each for host in hosts for each in self.matching(host)}
        self.remove([host for host in self._items if host not in found])

    def _put(self, host: Host, item: str) -> None:
        self._items[host] = item
        if self._names is not None:
            self._names.setdefault(host.identity[0], {})[host] = None

"""Check the hosts that a program passes to a fleet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import _remctl_core as _core

from ._hosts_errors import HostListError
from ._hosts_identity import Host
from ._hosts_patterns import to_host


def check_hosts(hosts: Iterable[str | Host], port: int | str | None) -> list[Host]:
    """Return the hosts; check that each is named once.

    Args:
        hosts: their names, or `Host` objects.
        port: the port of those that have none; None is the default.

    Raises:
        TypeError, ValueError: a name is not a host, the list is empty, or a host is named twice.
    """
    if isinstance(hosts, str | bytes | Host) or not isinstance(hosts, Iterable):
        raise TypeError(f"hosts must be several names, in a list say, not {hosts!r}")
    default = _core.check_port(port) or None
    found: dict[Host, None] = {}
    connected: set[Host] = set()  # with the ports to connect to
    for each in hosts:
        if not isinstance(each, str | Host):
            raise TypeError(f"a host must be a name or a Host, not {each!r}")
        host = _named(each) if isinstance(each, str) else each
        full = replace(host, port=default) if default and host.port is None else host
        if host in found or full in connected:
            raise ValueError(f"host {host} is named twice")
        found[host] = None
        connected.add(full)
    if not found:
        raise ValueError("no hosts")
    return list(found)


def _named(name: str) -> Host:
    """Return the host of a name that is not a pattern.

    Raises:
        TypeError, ValueError: it is not the name of a host.
    """
    host = Host(name)
    try:
        plain = to_host(name).name == name
    except HostListError:
        plain = False
    if not plain:
        text = f"not the name of a host: {name!r}; HostList reads ports, ranges and groups"
        raise ValueError(text)
    return host

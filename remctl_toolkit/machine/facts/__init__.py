"""Facts about a machine: addresses, routes, system, disks, memory, users, packages.

Each function is made for ``machine.call(facts.memory)``, and returns plain data, or None if the
fact is not available.  `gather()` returns several facts, with the reasons for those that are None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..base.errors import MachineError
from ..base.program import literal, source
from ..process.target import connection_of
from . import far_facts

__all__ = [
    "NAMES",
    "addresses",
    "disks",
    "gather",
    "ip",
    "memory",
    "packages",
    "python_executable",
    "python_version",
    "routes",
    "system",
    "users",
]

NAMES = ("addresses", "routes", "system", "disks", "memory", "users", "packages")
"""The names of all facts."""

_LONGEST_ANSWER = 1 << 26  # octets

_Records = Callable[[], "list[dict[str, Any]] | None"]
_Record = Callable[[], "dict[str, Any] | None"]

addresses: _Records = far_facts.addresses
"""Addresses: interface, family ("inet" or "inet6"), address, prefix (bits), scope."""
routes: _Records = far_facts.routes
"""Routes: family, destination ("default", a network or an address), gateway, interface, source,
metric."""
system: _Record = far_facts.system
"""The system: hostname, kernel, release, version, machine, distribution (os-release(5)), cpus,
load, uptime (seconds), boot_time (seconds since 1970), python_version, python_executable."""
disks: _Records = far_facts.disks
"""Mounts: device, mountpoint, type, options; size, used and available in octets, which are None for
network file systems."""
memory: _Record = far_facts.memory
"""Memory in octets: total, available, free, buffers, cached, swap_total, swap_free."""
users: _Records = far_facts.users
"""Accounts: name, uid, gid, full_name, home, shell."""
packages: _Records = far_facts.packages
"""Packages of dpkg, rpm or apk: name, version, architecture."""
ip: Callable[[], str | None] = far_facts.ip
"""The machine's address on its default route; None without one."""
python_version: Callable[..., list[int]] = far_facts.python_version
"""The version of the machine's Python, as a list: three numbers, or two with ``short=True``."""
python_executable: Callable[[], str] = far_facts.python_executable
"""The path of the machine's Python."""


def gather(
    machine: Any, names: Iterable[str] = NAMES, *, timeout: float | None = 120.0
) -> dict[str, Any]:
    """Return facts by their names, all found by one command.

    Args:
        machine: a machine, a `Connection`, or remoto's connection to an account.
        names: names of facts, see `NAMES`.
        timeout: seconds for the command, and ten for start-up and shutdown; None is for ever.

    Returns:
        A dictionary from names to facts, as the functions return them; "reasons" has the reason
        for each that is None.

    Raises:
        TypeError: `machine` is not a machine.
        ValueError: there is no such fact, or this is remoto's connection with sudo or to a
            container: use its `import_module()`; nothing was sent.
        MachineError: the answer is malformed.
        RemctlError: see `Connection.run()`.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    check_names(wanted)
    connection = connection_of(machine)
    program = f"{source('facts/far_facts')}\nprint(ascii(gather({wanted!r})))\n"
    result = connection.python_run(program, label="facts", timeout=timeout)
    try:
        found = literal(result.stdout or b"", _LONGEST_ANSWER)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        said = result.last_line or f"status {result.status}"
        error = MachineError(f"cannot read facts of {connection.host}: {said}")
        error.host = connection.host
        raise error
    return found


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for an unknown fact."""
    for name in names:
        if name not in NAMES:
            raise ValueError(f"unknown fact {name!r}: choose from {', '.join(NAMES)}")

"""Many hosts on loopback: addresses of a few servers that are good, denying, dead or silent.

with Farm(realm) as farm:
    hosts = farm.good(190) + farm.silent(10)
"""

from __future__ import annotations

import itertools
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from remctl_toolkit.fleet import Host
from remctl_toolkit.testing import Realm, RemctldServer
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS

from .proxy import SilentServer, refused_port

ANY = "0.0.0.0"  # A server on it can be reached at all loopback addresses.
SERVERS = 4


class Farm:
    """Servers, each started when first needed, and hosts, each with its own address.

    Attributes: `principal`, the principal of all servers; `remctlds`, the servers that answer.
    """

    def __init__(self, realm: Realm) -> None:
        self.principal = realm.host_principal
        self.remctlds: list[RemctldServer] = []
        self._realm = realm
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self._others: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def good(self, count: int) -> list[Host]:
        """Return hosts with the sample commands, which share four servers."""
        if not self.remctlds:
            self.remctlds = [self._remctld() for _ in range(SERVERS)]
        ports = itertools.cycle(each.port for each in self.remctlds)
        return [self.host(next(ports)) for _ in range(count)]

    def denying(self, count: int) -> list[Host]:
        """Return hosts that deny all commands."""
        if "denying" not in self._others:
            nobody = self._realm.principal("nobody")
            self._others["denying"] = self._remctld(default_acl=f"princ:{nobody}").port
        return [self.host(self._others["denying"]) for _ in range(count)]

    def dead(self, count: int) -> list[Host]:
        """Return hosts where nobody listens."""
        if "dead" not in self._others:
            self._others["dead"] = self._stack.enter_context(refused_port())
        return [self.host(self._others["dead"]) for _ in range(count)]

    def silent(self, count: int) -> list[Host]:
        """Return hosts that accept connections and never answer."""
        if "silent" not in self._others:
            self._others["silent"] = self._stack.enter_context(SilentServer(ANY)).port
        return [self.host(self._others["silent"]) for _ in range(count)]

    def host(self, port: int) -> Host:
        """Return a host with a new address, for a server with this port at all addresses."""
        high, low = divmod(next(self._numbers), 250)
        return Host(f"127.1.{high}.{low + 1}", port, self.principal)

    def _remctld(self, **settings: Any) -> RemctldServer:
        server = RemctldServer(self._realm, SAMPLE_COMMANDS, address=ANY, **settings)
        return self._stack.enter_context(server)


def fleet_threads() -> list[str]:
    """Return the names of this process's fleet threads."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("remctl-fleet ")]

"""Many hosts on loopback: names that lead to a few servers, good, denying, dead or silent ones.

with Farm(realm) as farm:
    hosts = farm.good(190) + farm.silent(10)
"""

from __future__ import annotations

import itertools
import socket
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from unittest import mock

from remctl_toolkit.fleet import Host
from remctl_toolkit.testing import Realm, RemctldServer
from remctl_toolkit.testing.server import SAMPLE_COMMANDS

from .proxy import SilentServer, refused_port

ADDRESSES = [f"127.0.0.{number}" for number in range(2, 6)]


class Farm:
    """Servers, each made when first needed; while it is open, its names are known to this process.

    Attributes: `principal`, which all servers have; `remctlds`, those that answer.
    """

    def __init__(self, realm: Realm) -> None:
        self.principal = realm.host_principal
        self.remctlds: list[RemctldServer] = []
        self._realm = realm
        self._addresses: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self._really = socket.getaddrinfo
        self._others: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Self:
        self._stack.enter_context(mock.patch("socket.getaddrinfo", self._look_up))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def good(self, count: int) -> list[Host]:
        """Hosts that have the sample commands; they share four servers."""
        if not self.remctlds:
            self.remctlds = [self._remctld(address) for address in ADDRESSES]
        servers = itertools.cycle((each.address, each.port) for each in self.remctlds)
        return [self.host(*next(servers)) for _ in range(count)]

    def denying(self, count: int) -> list[Host]:
        """Hosts that allow us nothing."""
        if "denying" not in self._others:
            nobody = self._realm.principal("nobody")
            server = self._remctld("127.0.0.6", default_acl=f"princ:{nobody}")
            self._others["denying"] = server.address, server.port
        return [self.host(*self._others["denying"]) for _ in range(count)]

    def dead(self, count: int) -> list[Host]:
        """Hosts where nobody listens."""
        if "dead" not in self._others:
            self._others["dead"] = "127.0.0.1", self._stack.enter_context(refused_port())
        return [self.host(*self._others["dead"]) for _ in range(count)]

    def silent(self, count: int) -> list[Host]:
        """Hosts that take a connection and never answer."""
        if "silent" not in self._others:
            self._others["silent"] = self._stack.enter_context(SilentServer()).address
        return [self.host(*self._others["silent"]) for _ in range(count)]

    def host(self, address: str, port: int) -> Host:
        """A host with a new name, wherever it is."""
        name = f"web{next(self._numbers)}"
        self._addresses[name] = address
        return Host(name, port, self.principal)

    def _remctld(self, address: str, **settings: Any) -> RemctldServer:
        server = RemctldServer(self._realm, SAMPLE_COMMANDS, address=address, **settings)
        return self._stack.enter_context(server)

    def _look_up(self, host: Any, *arguments: Any, **keywords: Any) -> Any:
        numeric = keywords.get("flags", 0) & socket.AI_NUMERICHOST
        if host in self._addresses and numeric:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._really(self._addresses.get(host, host), *arguments, **keywords)


def fleet_threads() -> list[str]:
    """The names of the threads of this process that belong to a fleet."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("remctl-fleet ", "remctl-limit "))]

"""The servers of the sandbox: one on localhost, and the hosts of ``--hosts``."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from remctl_toolkit.testing import Realm, RemctldServer, ServerError
from remctl_toolkit.testing.backends import backend_commands
from remctl_toolkit.testing.commands import SAMPLE_COMMANDS, machine_commands
from remctl_toolkit.testing.ports import ReservedPort

from . import samples

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["DEFAULT_PORT", "FAULTS", "SandboxHost", "Servers"]

DEFAULT_PORT = 4373
"""The default port of remctl(1)."""

_REFUSES, _SILENT, _DENIES = 3, 4, 5
FAULTS = {
    _REFUSES: "refuses connections",
    _SILENT: "never answers",
    _DENIES: "denies every command",
}
"""Faults of hosts, by the last digit of their number."""

_FIRST_NUMBER = 2  # 127.0.0.1 is localhost
_OTHER_LOCALHOST = "::1"  # clients try it first where the system calls it localhost, too
_PORT_ATTEMPTS = 20  # to find a port that is free on all addresses


@dataclass(frozen=True, slots=True)
class SandboxHost:
    """A host of ``--hosts``."""

    number: int
    """2 for the first."""
    name: str
    """The name or address to connect to."""
    port: int

    @property
    def fault(self) -> str:
        """The fault of the host; "" if it works."""
        return FAULTS.get(self.number % 10, "")

    def __str__(self) -> str:
        """Return it as in a list of hosts."""
        return self.name if self.port == DEFAULT_PORT else f"{self.name}:{self.port}"


class Servers:
    """All servers of a sandbox, as a context manager.

    All have port 4373 if that is free on all their addresses, otherwise another one. Hosts have the
    addresses 127.0.0.2, 127.0.0.3 and so on. If the system has only 127.0.0.1, like macOS, they are
    ports of localhost.

    Attributes:
        main: the server on localhost.
        hosts: the hosts.
        hosts_file: the list of hosts as a file, or None if there are no hosts.
        logs: the log files of the servers, by the prefix of their lines.
    """

    main: RemctldServer

    def __init__(self, realm: Realm, config: str, hosts: int) -> None:
        """Describe the servers.

        Args:
            realm: a started realm.
            config: more lines for the servers' configuration.
            hosts: number of hosts besides localhost.
        """
        self._realm = realm
        self._config = config
        self._numbers = range(_FIRST_NUMBER, _FIRST_NUMBER + hosts)
        self._commands = [
            *SAMPLE_COMMANDS,
            *backend_commands(samples.account),
            *backend_commands(samples.backup),
            *machine_commands(),
        ]
        self._principals: dict[str, str] = {}  # by address, for 127.0.0.2 and so on
        self._stack = ExitStack()
        self.hosts: list[SandboxHost] = []
        self.hosts_file: Path | None = None
        self.logs: dict[str, Path] = {}

    def __enter__(self) -> Self:
        """Start all servers.

        Raises:
            MissingPrograms, RealmError: one of them cannot be started.
        """
        if self._numbers and _can_bind(f"127.0.0.{self._numbers[-1]}"):
            addresses = [f"127.0.0.{number}" for number in self._numbers]
            self._principals = {address: self._realm.add_host(address) for address in addresses}
        try:
            self._start()
        except OSError as error:
            self._stack.close()
            raise ServerError(f"cannot start the servers: {error}") from error
        except BaseException:
            self._stack.close()
            raise
        if self.hosts:
            self.hosts_file = self._realm.tmpdir / "hosts"
            self.hosts_file.write_text("".join(map(_line, self.hosts)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def env(self) -> dict[str, str]:
        """The variables that name the servers (REMCTL_HOSTS only if there are hosts)."""
        listed = {} if self.hosts_file is None else {"REMCTL_HOSTS": str(self.hosts_file)}
        return {**self.main.env, **listed}

    def _start(self) -> None:
        """Start all servers on one port.

        Another program can take the port in between: then stop all servers, and try another one.
        """
        for wanted in (DEFAULT_PORT, *[None] * _PORT_ATTEMPTS):
            try:
                self._start_on(wanted)
                return
            except OSError as error:
                self._stack.close()
                if error.errno != errno.EADDRINUSE:
                    raise
        raise ServerError("no port is free on all addresses of the hosts")

    def _start_on(self, wanted: int | None) -> None:
        """Start all servers on one port (None: any), or raise OSError with EADDRINUSE."""
        self.hosts, self.logs = [], {}
        self.main = self._server(
            RemctldServer(self._realm, self._commands, config=self._config, port=wanted)
        )
        self.logs[""] = self.main.log_path
        port = self.main.port
        if self.main.address != _OTHER_LOCALHOST and _can_bind(_OTHER_LOCALHOST):
            self._reserve(_OTHER_LOCALHOST, port)
        for number in self._numbers:
            address = f"127.0.0.{number}"
            if address in self._principals:
                self._start_host(number, address, address, port)
            else:
                self._start_host(number, self.main.host, self.main.address, None)

    def _start_host(self, number: int, name: str, address: str, port: int | None) -> None:
        """Start the server of a host, or the port that stands for a faulty one.

        Args:
            number: its number, which determines its fault.
            name: the name to connect to.
            address: the address to listen on.
            port: the port to listen on; None means any free port.
        """
        kind = number % 10
        if kind in (_REFUSES, _SILENT):
            reserved = self._reserve(address, port)
            if kind == _SILENT:
                self._stack.enter_context(reserved.listen())
            self.hosts.append(SandboxHost(number, name, reserved.number))
            return
        server = self._server(
            RemctldServer(
                self._realm,
                self._commands,
                config="" if kind == _DENIES else self._config,
                default_acl=f"princ:nobody@{self._realm.name}" if kind == _DENIES else None,
                address=address,
                port=port,
                host=name,
                principal=self._principals.get(address),
            )
        )
        host = SandboxHost(number, name, server.port)
        self.hosts.append(host)
        self.logs[f"{host}: "] = server.log_path

    def _server(self, server: RemctldServer) -> RemctldServer:
        """Start a server, and stop it with the others."""
        return self._stack.enter_context(server)

    def _reserve(self, address: str, port: int | None) -> ReservedPort:
        """Reserve a port that refuses connections."""
        reserved = ReservedPort(address, port or 0)
        self._stack.callback(reserved.close)
        return reserved


def _can_bind(address: str) -> bool:
    """Return whether this machine has an address."""
    try:
        ReservedPort(address).close()
    except OSError:
        return False
    return True


def _line(host: SandboxHost) -> str:
    """Return the line for a host in the hosts file."""
    return f"{host}  # {host.fault}\n" if host.fault else f"{host}\n"

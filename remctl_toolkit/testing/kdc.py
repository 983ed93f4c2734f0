"""The KDC of a realm: a process that can be stopped and restarted on the same port."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RealmError
from .files import PRIVATE_UMASK, private
from .keeper import Daemon, Keeper
from .ports import ReservedPort, loopback_address
from .programs import tool_environ
from .waiting import wait_until

if TYPE_CHECKING:
    from .database import Database

__all__ = ["Kdc"]

_TIMEOUT = 20.0  # seconds for a KDC to be ready; it usually takes 15 ms
_FREE_TIMEOUT = 2.0  # seconds for its port to be free again
_ATTEMPTS = 8  # number of ports to try; another process may take a free port first
_LOG_TAIL = 10  # lines of the KDC's log to show in an error


class Kdc:
    """A KDC on a loopback port, for TCP and UDP."""

    def __init__(self, keeper: Keeper, database: Database) -> None:
        """Describe the KDC; start() runs it.

        Args:
            keeper: starts the process, and has the directory of the realm.
            database: the files that the KDC reads.
        """
        self._keeper = keeper
        self._database = database
        self._env = {**tool_environ(), **database.env, **database.kdc_env}
        self._daemon: Daemon | None = None
        self._port: ReservedPort | None = None
        self._starts = 0

    @property
    def port(self) -> int | None:
        """The port; None before the first start."""
        return None if self._port is None else self._port.number

    @property
    def pid(self) -> int | None:
        """The process id; None when it is stopped."""
        return None if self._daemon is None else self._daemon.pid

    def start(self) -> None:
        """Start the KDC, on its previous port if it had one, and wait until it answers.

        Raises:
            RealmError: it is already running, or failed to start (the message has its output).
        """
        if self._daemon is not None and self._daemon.running:
            raise RealmError("the KDC is already running")
        if self._port is not None:
            # The UDP port is not reserved: a client's socket may briefly have its number.
            wait_until(self._port.free, _FREE_TIMEOUT)
            self._daemon = self._launch()
            return
        for attempt in range(1, _ATTEMPTS + 1):
            self._port = _reserve_port()
            self._database.write_configuration(self._port.address, self._port.number)
            try:
                self._daemon = self._launch()
                return
            except RealmError:  # another process may have taken the port
                self._port.close()
                self._port = None
                if attempt == _ATTEMPTS:
                    raise

    def stop(self) -> None:
        """Kill the KDC, even if it is frozen; does nothing if it is not running."""
        if self._daemon is not None:
            self._daemon.end()
            self._daemon = None
            # The child processes of Heimdal's KDC end a moment later.
            if self._port is not None:
                wait_until(self._port.free, _FREE_TIMEOUT)

    def freeze(self) -> None:
        """Stop answering, but keep the port open.

        Raises:
            RealmError: it is not running.
        """
        if self._daemon is None:
            raise RealmError("the KDC is not running")
        self._daemon.freeze()

    def thaw(self) -> None:
        """Resume a frozen KDC; does nothing if it is not frozen."""
        if self._daemon is not None:
            self._daemon.thaw()

    def close(self) -> None:
        """Stop the KDC and release the port; does nothing if already closed."""
        self.stop()
        if self._port is not None:
            self._port.close()
            self._port = None

    def _launch(self) -> Daemon:
        """Start the process with the current configuration, and wait until it is ready."""
        self._starts += 1
        log = self._keeper.folder / f"kdc{self._starts}.out"
        with open(log, "wb", opener=private) as output:
            daemon = self._keeper.launch(
                self._database.kdc_command, output=output, env=self._env, umask=PRIVATE_UMASK
            )
        try:
            if daemon.await_ready(lambda: self._database.kdc_is_ready(log.read_bytes()), _TIMEOUT):
                return daemon
            state = "is not ready" if daemon.running else f"ended with status {daemon.returncode}"
        except BaseException:
            daemon.end()
            raise
        daemon.end()
        raise RealmError(f"{self._database.kdc_command[0]} {state}: {self._said(log)}")

    def _said(self, output: Path) -> str:
        """Return a KDC's output and the end of its log, which has the reasons of failures."""
        log = self._keeper.folder / "kdc.log"
        logged = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join([output.read_text(errors="replace").strip(), *logged[-_LOG_TAIL:]])


def _reserve_port() -> ReservedPort:
    """Return a port that is free for TCP and for UDP."""
    address = loopback_address()
    while True:
        port = ReservedPort(address)
        if port.free():
            return port
        port.close()

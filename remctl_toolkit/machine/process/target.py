"""What commands are run on, and where to log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from _remctl_text import printable

from ..base.connection import Connection
from ..base.program import Word

_METHODS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}


class Target:
    """What commands are run on, and how where a call does not say so.

    Attributes:
        hostname: its name.
        logger: where `run()` logs to.
        cwd: the folder to run them in; None is the user's home.
        changes: what is set in their environment.
        sudo: whether commands are run as root.
        global_timeout: the timeout of calls without one, in seconds; None is never.
        stop_on_timeout: whether a timeout raises; remoto's own connections only log it.
    """

    logger: Any
    cwd: Word | None = None
    changes: Mapping[str, Any] = MappingProxyType({})
    sudo = False
    global_timeout: float | None = None
    stop_on_timeout = True

    def __init__(self, connection: Connection, close: Callable[[], object] | None = None) -> None:
        self._connection = connection
        self._close = close or connection.close
        self.hostname = connection.host
        self.logger = logging.getLogger(connection.host)

    @property
    def connection(self) -> Connection:
        """The way there."""
        return self._connection

    def cmd(self, cmd: Any) -> Any:
        """Return the command to run in place of `cmd`."""
        return cmd

    def exit(self) -> None:
        """Close the connection."""
        self._close()


class _HasConnection(Protocol):
    @property
    def connection(self) -> Connection: ...

    def close(self) -> object: ...


Machine = Connection | Target | _HasConnection


def target_of(machine: Machine) -> Target:
    """Return the target for a machine, a connection, or one of remoto's.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(machine, Target):
        return machine
    if isinstance(machine, Connection):
        return Target(machine)
    connection = getattr(machine, "connection", None)
    if not isinstance(connection, Connection):
        text = f"commands run on a machine or a Connection, not on {type(machine).__name__}"
        raise TypeError(text)
    target = Target(connection, machine.close)
    target.cwd, target.changes = defaults_of(machine)
    return target


def defaults_of(machine: Any) -> tuple[Word | None, Mapping[str, Any]]:
    """Return the folder of a machine, and what is set in its environment; a Connection has none."""
    folder = getattr(machine, "cwd", None)
    changes: Callable[[], Mapping[str, Any]] | None = getattr(machine, "_changes", None)
    return None if folder is None else str(folder), {} if changes is None else changes()


def log_text(logger: Any, level: int, text: str) -> None:
    """Log by the method of the level's name: a logger need not have more than `debug` and `error`.

    The text of that method would be formatted only if there were arguments.
    """
    text = printable(text)
    method = getattr(logger, _METHODS.get(level, ""), None)
    if method is not None:
        method(text)
    elif hasattr(logger, "log"):
        logger.log(level, text)
    elif level > logging.INFO:
        logger.error(text)
    else:
        logger.debug(text)

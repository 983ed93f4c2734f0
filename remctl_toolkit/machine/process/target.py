"""Targets of commands: machines, with their defaults and loggers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeGuard, cast

from _remctl_text import printable

from ..base.account import FarSide
from ..base.connection import Connection
from ..base.program import Word

_METHODS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}


# Keyword arguments of `check()`.
COMMAND_OPTIONS = ("env", "extend_env", "cwd", "stdin", "shell", "sudo", "label")
# Attributes of `Target`, which machines with settings of their own have as well.
_SETTINGS = (
    *("hostname", "logger", "cwd", "changes", "sudo", "global_timeout", "stop_on_timeout"),
    *("cmd", "exit"),
)


class Target:
    """A machine to run commands on, and the defaults for them.

    Attributes:
        hostname: its name.
        logger: the logger of `run()`.
        cwd: the working directory; None is the user's home.
        changes: variables to set in the environment.
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
        """The connection to the host."""
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
    """Return the target for a machine, a connection, one of remoto's, or a wrapper of these.

    A wrapper must have all attributes of the wrapped object, so that sudo, for example, is kept.

    Raises:
        TypeError: `machine` is something else.
    """
    if _is_connection(machine):
        return Target(machine)
    text = f"commands run on a machine or a Connection, not on {type(machine).__name__}"
    connection = getattr(machine, "connection", None)
    if not _is_connection(connection):
        raise TypeError(text)
    # plumbum's machines have no settings but cwd and env; other objects may have none.
    some = any(hasattr(machine, name) for name in _SETTINGS) and not hasattr(machine, "_changes")
    needed = _SETTINGS if some else ("close",)
    missing = [name for name in needed if not hasattr(machine, name)]
    if missing:
        raise TypeError(f"{text}, which lacks {', '.join(missing)}")
    if some:
        return cast("Target", machine)
    target = Target(connection, cast("_HasConnection", machine).close)
    target.cwd, target.changes = defaults_of(machine)
    return target


def _is_connection(value: object) -> TypeGuard[Connection]:
    # isinstance() is also true for mocks.
    return isinstance(value, Connection) and isinstance(getattr(value, "far", None), FarSide)


def connection_of(machine: Machine) -> Connection:
    """Return the connection of a machine, for use without its sudo and its container.

    Raises:
        TypeError: `machine` is not a machine.
        ValueError: it has sudo or a container.
    """
    target = target_of(machine)
    if target.sudo or list(target.cmd(["true"])) != ["true"]:
        text = f"{type(machine).__name__} has sudo or a container, and this works without them"
        raise ValueError(f"{text}: use its import_module() or its gateway")
    return target.connection


def check_arguments(given: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise TypeError for arguments that are not allowed."""
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise TypeError(f"unexpected keyword argument {', '.join(map(repr, unknown))}")


def defaults_of(machine: Any) -> tuple[Word | None, Mapping[str, Any]]:
    """Return a machine's working directory and environment changes; a Connection has none."""
    folder = getattr(machine, "cwd", None)
    changes: Callable[[], Mapping[str, Any]] | None = getattr(machine, "_changes", None)
    return None if folder is None else str(folder), {} if changes is None else changes()


def log_text(logger: Any, level: int, text: str) -> None:
    """Log by the method of the level's name; a logger needs only `debug` and `error`."""
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

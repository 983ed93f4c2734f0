"""remoto's `rsync()`: a tree to one host or several."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Unpack

from ..base.accounts import connect, split_user
from ..base.connection import ConnectionSettings
from ..files import transfer
from ..group.group import Group
from ..process.target import connection_of
from .connection import logger_of


def rsync(
    hosts: str | Iterable[str],
    source: str | os.PathLike[str],
    destination: str,
    logger: Any = None,
    sudo: bool = False,
    **settings: Unpack[ConnectionSettings],
) -> None:
    """Copy what is in a folder to one host or several, at the same time; and log each file.

    What is there is overwritten if there is such a file here, and stays if not.

    Args:
        hosts: the host, or the hosts, each as its name or as ``user@name``.
        source: the folder.
        destination: the folder on the hosts; it is made if it is missing.
        logger: has `info`; None is the one that `Connection` uses for the first host.
        sudo: there is no way to: a ValueError.
        settings: for `remctl_toolkit.machine.Connection`: port, principal and so on.

    Raises:
        ValueError: `sudo` is true, `source` is no folder, or a host is neither form of a name;
            nothing was sent.
        GroupError: it failed on some hosts, the others have it.
    """
    if sudo:
        text = "rsync writes as the user of the connection, not as root: connect to root's account"
        raise ValueError(text)
    content = _content(source)
    names = [hosts] if isinstance(hosts, str) else list(hosts)
    accounts = [split_user(name) for name in names]
    log = logger_of(accounts[0][0]) if logger is None and names else logger
    with Group(names, factory=lambda host: connect(*split_user(host), **settings)) as group:
        result = group.upload(content, destination)
    _log_files(log, source)
    result.raise_failures()


def rsync_conn(
    conn: Any, source: str | os.PathLike[str], destination: str, logger: Any = None
) -> None:
    """Copy what is in a folder over a connection, which stays open; see `rsync()`.

    Args:
        conn: a `Connection` without sudo, and not to a container.
        source, destination, logger: see `rsync()`.

    Raises:
        TypeError: `conn` is no connection.
        ValueError: it has sudo or a container, or `source` is no folder; nothing was sent.
        OSError, TransferError, RemctlError: see `transfer.upload()`.
    """
    connection, content = connection_of(conn), _content(source)
    transfer.upload(connection, content, destination)
    _log_files(logger_of(connection.host) if logger is None else logger, source)


def _content(source: str | os.PathLike[str]) -> str:
    """Return the path of what is in a folder."""
    if not os.path.isdir(source):
        raise ValueError(f"source must be a folder: {os.fspath(source)}")
    return os.path.join(source, ".")


def _log_files(log: Any, source: str | os.PathLike[str]) -> None:
    for folder, _, files in os.walk(source):
        for file in sorted(files):
            path = os.path.relpath(os.path.join(folder, file), source)
            log.info(f"syncing file: {path}")

"""remoto's `rsync()`: a tree to one host or several."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Unpack

from ..base.connection import Connection, ConnectionSettings
from ..group.group import Group
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
        hosts: the host, or the hosts.
        source: the folder.
        destination: the folder on the hosts; it is made if it is missing.
        logger: has `info`; None is the one that `Connection` uses for the first host.
        sudo: there is no way to: a ValueError.
        settings: for `remctl_toolkit.machine.Connection`: port, principal and so on.

    Raises:
        ValueError: `sudo` is true, or `source` is no folder; nothing was sent.
        GroupError: it failed on some hosts, the others have it.
    """
    if sudo:
        text = "rsync writes as the user of the connection, not as root: connect to root's account"
        raise ValueError(text)
    if not os.path.isdir(source):
        raise ValueError(f"source must be a folder: {os.fspath(source)}")
    names = [hosts] if isinstance(hosts, str) else list(hosts)
    log = logger_of(names[0]) if logger is None and names else logger
    with Group(names, factory=lambda host: Connection(host, **settings)) as group:
        result = group.upload(os.path.join(source, "."), destination)
    for folder, _, files in os.walk(source):
        for file in sorted(files):
            path = os.path.relpath(os.path.join(folder, file), source)
            log.info(f"syncing file: {path}")
    result.raise_failures()

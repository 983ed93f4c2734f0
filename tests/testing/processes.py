"""Shared by the tests of realms and servers: run clients and scripts, find leftovers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.waiting import eventually

import remctl_toolkit
from remctl_toolkit.testing import Realm, RemctldServer

PACKAGE_FOLDER = Path(remctl_toolkit.__file__).parent.parent
"""Directory in which Python found the package: the checkout, or site-packages."""

TIMEOUT = 30.0
"""Timeout in seconds for everything that usually takes a fraction of one."""


def python_environ(**variables: str) -> dict[str, str]:
    """Return this process's environment, changed so that another Python finds the package."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE_FOLDER), **variables}


def python(code: str) -> subprocess.Popen[str]:
    """Start another Python that runs some code; its stdout and stdin are pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=python_environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def remctl_arguments(server: RemctldServer, *command: str) -> list[str]:
    """Return the stock client's command line for a server."""
    return ["remctl", "-p", str(server.port), "-s", server.principal, server.host, *command]


def remctl(
    server: RemctldServer,
    *command: str,
    ccache: str | None = None,
    realm: Realm | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command on a server with the stock client, in the server's realm or another one."""
    env = {**os.environ, **(realm or server.realm).env}
    if ccache is not None:
        env["KRB5CCNAME"] = ccache
    return subprocess.run(
        remctl_arguments(server, *command),
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def start_remctl(server: RemctldServer, *command: str) -> subprocess.Popen[str]:
    """Start the stock client without waiting for it."""
    return subprocess.Popen(
        remctl_arguments(server, *command),
        env={**os.environ, **server.realm.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_of(folder: str | os.PathLike[str]) -> list[int]:
    """Return the other processes with a realm's directory in their arguments or environment."""
    wanted = os.fsencode(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            about = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:  # the process has ended
            continue
        if wanted in about:
            found.append(int(entry.name))
    return found


def gone(folder: str | os.PathLike[str]) -> bool:
    """Return whether neither the directory nor any process of a realm is left."""
    return not Path(folder).exists() and not processes_of(folder)


def check_gone(folder: str | os.PathLike[str]) -> None:
    """Check that nothing of a stopped realm is left; killed processes may take a moment to end."""
    assert not Path(folder).exists()
    eventually(lambda: gone(folder), TIMEOUT, what=f"no process of {folder}")

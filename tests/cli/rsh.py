"""Helpers for the tests of remctl-rsh: servers, and the command as a program."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.testing import Command, Realm, RemctldServer, machine_commands

_PROGRAM = """\
#!{python} -E
import os, sys
sys.path[:0] = {path!r}
if "TEST_GRACE" in os.environ:  # seconds that a command has to end after a signal
    from remctl_toolkit.cli.rsh import bridge
    bridge._KILL_DELAY = float(os.environ["TEST_GRACE"])
from remctl_toolkit.cli.rsh import main
sys.exit(main())
"""


class Process(subprocess.Popen[bytes]):
    """A process that is killed when an exception leaves the with statement."""

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


class Bridge:
    """A server configured for remctl-rsh, and remctl-rsh as a program.

    Attributes:
        program: its path.
        env: an environment in which it finds the server and the realm.
        folder: an empty folder.
    """

    def __init__(self, realm: Realm, server: RemctldServer, folder: Path) -> None:
        self.realm = realm
        self.server = server
        self.folder = folder
        self.host = server.host
        self.program = self.installed_as("remctl-rsh")
        self.env = python_environ(
            **realm.env,
            REMCTL_RSH_PORT=str(server.port),
            REMCTL_RSH_PRINCIPAL=server.principal,
            LC_ALL="C.UTF-8",
        )

    def installed_as(self, name: str) -> Path:
        """Install the command under a name, as pip does."""
        program = self.folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        path = [entry for entry in python_environ()["PYTHONPATH"].split(os.pathsep) if entry]
        program.write_text(_PROGRAM.format(python=sys.executable, path=path))
        program.chmod(0o755)
        return program

    def popen(self, *words: str, **more: Any) -> Process:
        """Start remctl-rsh with some words."""
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        env = {**self.env, **more.pop("env", {})}
        return Process([self.program, *words], env=env, **{**pipes, **more})

    def run(
        self, *words: str, input: bytes = b"", **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run remctl-rsh with some words, and keep what it prints."""
        return self.run_program(str(self.program), *words, input=input, **more)

    def run_program(
        self, *words: str, input: bytes = b"", check: bool = False, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run another program, which runs remctl-rsh."""
        env = {**self.env, **more.pop("env", {})}
        done = subprocess.run(
            words,
            env=env,
            input=input,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            **more,
        )
        if check:
            assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr.decode()}"
        return done

    def sh(self, script: str, *words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the host."""
        return self.run(*words, self.host, script, **more)


@contextmanager
def bridge(realm: Realm, folder: Path, *lines: Command) -> Iterator[Bridge]:
    """Start a server with additional configuration."""
    with RemctldServer(realm, (*machine_commands(), *lines)) as server:
        yield Bridge(realm, server, folder)


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return the first line that a process writes."""
    assert process.stdout is not None
    return process.stdout.readline()


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, close its pipes, and return its exit status."""
    status = process.wait(TIMEOUT)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return status


def sha256(data: bytes) -> bytes:
    """Return what sha256sum prints."""
    return hashlib.sha256(data).hexdigest().encode()

"""Realm, servers and contestants of the benchmark, each started when first needed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import remctl
from remctl_toolkit.testing import Command, Realm, RemctldServer

from .peers.sshd import Sshd, find_sshd
from .workers import Worker, WorkerError

__all__ = ["SSH_PEERS", "Effort", "Missing", "Place"]

ROOT = Path(__file__).resolve().parent.parent
_SYSTEM_PYTHON = "/usr/bin/python3"

# Contestants of this project in Python, and their modules.
_OURS = {
    "ours": "ours",
    "fleet": "our_fleet",
    "async": "our_async",
    "machine": "our_machine",
    "machines": "our_machine",
}
_OWN = (*_OURS, "c-own", "c-plain")
SSH_PEERS = ("asyncssh", "paramiko", "plumbum", "fabric", "remoto")

COMMANDS = (
    Command("echo", program="/bin/echo"),
    # head [-c COUNT] of nothing but zeros, and wc [-c] of its standard input.
    Command("zeros", script='exec head "$1" "$2" /dev/zero'),
    Command("count", program="/usr/bin/wc", stdin="last"),
    Command("sleep", program="/bin/sleep"),
    # For a machine, and for the comparison.
    Command("python", program="/usr/bin/python3", stdin="last"),
    Command("sh", program="/bin/sh", stdin="last"),
    Command("true", program="/bin/true"),
)


class Missing(Exception):
    """A contestant is not installed."""


@dataclass(frozen=True)
class Effort:
    """Rounds and sizes of the measurements."""

    quick: bool
    rounds: int
    """Turns of each contestant."""
    seconds: float
    """Seconds of a turn, for fast actions."""
    bulk: int
    """Octets of output."""
    bulk_rounds: int
    sessions: int

    @classmethod
    def of(cls, quick: bool) -> Effort:
        """Return the effort for a quick run, or for published figures."""
        if quick:
            return cls(True, 3, 0.15, 40_000_000, 3, 200)
        return cls(False, 11, 0.4, 400_000_000, 5, 1000)


class _EverywhereServer(RemctldServer):
    """A remctld on all addresses of the loopback device, and on no other device."""

    def _prepare(self) -> None:
        super()._prepare()
        assert self._listener is not None
        _restrict_to_loopback(self._listener)


def _restrict_to_loopback(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")


class Place:
    """Servers and contestants; a context manager that leaves nothing behind."""

    def __init__(self, effort: Effort, progress: Callable[[str], None]) -> None:
        """Set the effort; nothing is started yet.

        Args:
            effort: rounds and sizes of the measurements.
            progress: called with progress messages.
        """
        self.effort = effort
        self.progress = progress
        self._stack = ExitStack()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @cached_property
    def realm(self) -> Realm:
        """The Kerberos realm."""
        return self._stack.enter_context(Realm())

    @cached_property
    def server(self) -> RemctldServer:
        """The stock remctld."""
        return self._stack.enter_context(RemctldServer(self.realm, COMMANDS))

    @cached_property
    def everywhere(self) -> RemctldServer:
        """A stock remctld on all loopback addresses, for any number of hosts."""
        server = _EverywhereServer(self.realm, COMMANDS, address="0.0.0.0")
        return self._stack.enter_context(server)

    @cached_property
    def silent(self) -> socket.socket:
        """Socket that listens on all loopback addresses and never answers."""
        listener = self._stack.enter_context(socket.socket())
        _restrict_to_loopback(listener)
        listener.bind(("0.0.0.0", 0))
        listener.listen(1024)
        return listener

    @cached_property
    def sshd(self) -> Sshd:
        """The stock sshd."""
        program = find_sshd()
        if program is None:
            raise Missing("sshd is not installed")
        self.progress("starting sshd")
        sshd = Sshd(program)
        self._stack.callback(sshd.close)
        return sshd

    @cached_property
    def loop(self) -> Path:
        """The C loop, compiled from peers/c."""
        self.progress("compiling the C loop")
        program = self.realm.tmpdir / "remctl-loop"
        sources = sorted((ROOT / "benchmarks/peers/c").glob("*.c"))
        flags = ["--cflags", "--libs", "libremctl"]
        found = subprocess.run(["pkg-config", *flags], capture_output=True, text=True, check=True)
        compiler = [os.environ.get("CC", "gcc"), "-O2", "-pthread", "-o", str(program)]
        files = [str(source) for source in sources]
        subprocess.run([*compiler, *files, *found.stdout.split()], check=True)
        return program

    @property
    def env(self) -> dict[str, str]:
        """Environment of clients: this process's, the realm's and the server's variables."""
        return {**os.environ, **self.realm.env, **self.server.env}

    def command(self, who: str, action: str) -> list[str]:
        """Return the command line of a contestant.

        Raises:
            Missing: it is not installed.
        """
        if who in ("c-own", "c-plain"):
            return [str(self.loop), action, who.removeprefix("c-")]
        if who in _OURS:
            return [sys.executable, "-m", f"benchmarks.peers.{_OURS[who]}", action]
        if who == "existing":
            _require_existing()
            return [_SYSTEM_PYTHON, "-m", "benchmarks.peers.existing", action]
        if not (shutil.which(who) if who == "scp" else importlib.util.find_spec(who)):
            raise Missing(f"{who} is not installed")
        return [sys.executable, "-m", f"benchmarks.peers.over_{who}", action]

    def start(
        self,
        who: str,
        action: str,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Worker:
        """Start a contestant; the caller ends it.

        Args:
            who, action: see command().
            env: its environment, if it is not that of all clients.
            under: a program, with its arguments, that runs it.

        Raises:
            Missing: it is not installed.
        """
        full = {**(env or self.env), "PYTHONPATH": self.python_path(who)}
        if who in (*SSH_PEERS, "scp"):
            full |= self.sshd.env
        if who == "machines":
            full |= self.everywhere.env
        if who == "fleet":
            silent_port = str(self.silent.getsockname()[1])
            full |= {**self.everywhere.env, "BENCH_SILENT_PORT": silent_port}
        return Worker([*under, *self.command(who, action)], full, ROOT)

    @staticmethod
    def python_path(who: str) -> str:
        """Return the import path of a contestant's modules; "" for installed ones."""
        return "" if who == "existing" else str(Path(remctl.__file__).parent)

    @contextmanager
    def workers(
        self,
        wanted: Mapping[str, tuple[str, str]],
        variables: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
        """Start contestants and prepare them.

        Args:
            wanted: contestant and action, by key.
            variables: additional environment variables, by key.

        Returns:
            The prepared contestants by key, and the reasons why others are missing.
        """
        ready: dict[str, Worker] = {}
        missing: dict[str, str] = {}
        with ExitStack() as stack:
            for key, (who, action) in wanted.items():
                self.progress(f"preparing {key}")
                try:
                    worker = self.start(who, action, {**self.env, **(variables or {}).get(key, {})})
                    stack.callback(worker.end)
                    worker.prepare()
                except Missing as reason:
                    missing[key] = str(reason)
                except WorkerError as reason:
                    if who in _OWN:  # without it there is nothing to compare
                        raise
                    missing[key] = str(reason)
                else:
                    ready[key] = worker
            yield ready, missing


def _require_existing() -> None:
    # -I: neither this checkout nor PYTHONPATH counts.
    try:
        found = subprocess.run(
            [_SYSTEM_PYTHON, "-I", "-c", "import remctl"], capture_output=True, check=False
        )
    except OSError:
        raise Missing(f"there is no {_SYSTEM_PYTHON}") from None
    if found.returncode:
        raise Missing("python3-pyremctl is not installed")

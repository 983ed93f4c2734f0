"""The contestant plumbum: its SshMachine, which runs ssh(1).

With a shared connection (ControlMaster), every command starts a process of ssh. plumbum's
alternative, one shell for many commands, is measured as well.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from plumbum import SshMachine

from .worker import Action, serve

_OPTIONS = ["-F", os.environ["BENCH_SSH_CONFIG"]]


def _connect(host: str) -> Any:
    return SshMachine(host, ssh_opts=_OPTIONS, scp_opts=_OPTIONS)


def _check(right: bool) -> None:
    if not right:
        raise RuntimeError("wrong output")


class _Commands(Action):
    def prepare(self) -> None:
        self.machine = _connect("bench-master")
        self.echo = self.machine["/bin/echo"]

    def go(self, count: int) -> None:
        for _ in range(count):
            _check(self.echo("hello") == "hello\n")

    def quit(self) -> None:
        self.machine.close()
        end = ["ssh", *_OPTIONS, "-q", "-O", "exit", "bench-master"]
        subprocess.run(end, stderr=subprocess.DEVNULL, check=False)


class _True(_Commands):
    """The command true."""

    def prepare(self) -> None:
        super().prepare()
        self.true = self.machine["true"]

    def go(self, count: int) -> None:
        for _ in range(count):
            self.true()


class _Shell(Action):
    """Commands by one shell."""

    def prepare(self) -> None:
        self.machine = _connect("bench")
        self.session = self.machine.session()

    def go(self, count: int) -> None:
        for _ in range(count):
            _check(self.session.run("/bin/echo hello")[1] == "hello\n")

    def quit(self) -> None:
        self.session.close()
        self.machine.close()


class _Connects(Action):
    def go(self, count: int) -> None:
        for _ in range(count):
            with _connect("bench") as machine:
                _check(machine["/bin/echo"]("hello") == "hello\n")


if __name__ == "__main__":
    serve({"commands": _Commands, "true": _True, "shell": _Shell, "connects": _Connects})

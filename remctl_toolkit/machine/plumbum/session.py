"""Shells of a machine: one that keeps its state, and one that looks as if it did."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Any, NoReturn

from plumbum.commands import BaseCommand, processes
from plumbum.machines.remote import ClosedRemoteMachine
from plumbum.machines.session import ShellSession, SSHCommsError

from _remctl_text import printable

from ..base.errors import ClosedError
from .popen import ProcessExecutionError

# What runs a shell that is to believe in a terminal.  Its prompts would be among the output.
TERMINAL = """\
import os, pty, sys
os.environ.update(PS1='', PS2='')
sys.exit(pty.spawn(['/bin/sh']) >> 8)"""


class Shell:
    """What plumbum has a shell session for inside a machine: files, folders, globbing.

    Each command is a shell of its own, in the machine's working directory and with its environment:
    quicker than a session, and any number may run at once.  Names are decoded as this process
    decodes those of files, so that no octet of them is lost.
    """

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def run(
        self, command: str | BaseCommand, retcode: int | Container[int] | None = 0
    ) -> tuple[int, str, str]:
        """Run a command, and return its status, output and standard error."""
        text = " ".join(command.formulate(1)) if isinstance(command, BaseCommand) else command
        machine = self._machine
        result = machine.connection.run(
            ["/bin/sh", "-c", text], cwd=machine._folder, extend_env=machine._changes()
        )
        stdout, stderr = (os.fsdecode(octets or b"") for octets in (result.stdout, result.stderr))
        expected = retcode if isinstance(retcode, Container) else (retcode,)
        if retcode is not None and result.status not in expected:
            host = machine.host
            raise ProcessExecutionError([text], result.status, stdout, stderr, host=host)
        return result.status, stdout, stderr

    def close(self) -> None:
        """Do nothing: nothing is open."""


class ClosedMachineError(ClosedError, ClosedRemoteMachine):  # type: ignore[misc]
    """The machine was closed; also plumbum's ClosedRemoteMachine."""


class ClosedSession:
    """What a machine has for its session in the end: using it raises `ClosedMachineError`."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> NoReturn:
        error = ClosedMachineError(f"{self._machine!r} has been closed")
        error.host = self._machine.host
        raise error


class Session(ShellSession):  # type: ignore[misc]
    """plumbum's shell session, with exceptions whose text is safe to print."""

    def run(
        self, cmd: str | BaseCommand, retcode: int | Container[int] | None = 0
    ) -> tuple[int | None, str, str]:
        """Run a command; see plumbum's method."""
        try:
            result: tuple[int | None, str, str] = super().run(cmd, retcode)
        except SSHCommsError as error:
            error.stdout = printable(error.stdout, lines=True)
            error.stderr = printable(error.stderr, lines=True)
            raise
        except processes.ProcessExecutionError as error:
            raise ProcessExecutionError(*error.args, error.message, host=error.host) from None
        return result

    def __del__(self) -> None:
        # plumbum's closes the session, and waits for the host, in the thread that collects garbage.
        process = getattr(self, "proc", None)
        if process is not None:
            process.forget()

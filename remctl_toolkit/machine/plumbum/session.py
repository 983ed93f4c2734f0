"""Shells of a machine: real sessions, and single commands for plumbum's internal use."""

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

# This runs a shell with a terminal, without prompts, which would be in the output.
TERMINAL = """\
import os, pty, sys
os.environ.update(PS1='', PS2='')
sys.exit(pty.spawn(['/bin/sh']) >> 8)"""


class Shell:
    """A replacement for the shell session that plumbum uses for files, folders and globbing.

    Each command is run by a new shell, in the machine's working directory and environment: this is
    faster than a session, and commands may run concurrently.  Output is decoded like file names, so
    that no octet is lost.
    """

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def run(
        self, command: str | BaseCommand, retcode: int | Container[int] | None = 0
    ) -> tuple[int, str, str]:
        """Run a command; return its status, standard output and standard error."""
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
        """Do nothing, because no session is open."""


class ClosedMachineError(ClosedError, ClosedRemoteMachine):  # type: ignore[misc]
    """The machine was closed; also plumbum's ClosedRemoteMachine."""


class ClosedSession:
    """The session of a closed machine: using it raises `ClosedMachineError`."""

    def __init__(self, machine: Any) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> NoReturn:
        error = ClosedMachineError(f"{self._machine!r} has been closed")
        error.host = self._machine.host
        raise error


class Session(ShellSession):  # type: ignore[misc]
    """A shell session of plumbum, with exceptions whose text is safe to print."""

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
        # plumbum's __del__ waits for the host in the thread that collects garbage.
        process = getattr(self, "proc", None)
        if process is not None:
            process.forget()

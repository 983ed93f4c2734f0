"""Run commands as remoto does: log their lines, or return them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from _remctl_text import printable

from ..base.errors import CommandTimeoutError, MachineError, describe_folder
from ..base.outputs import new_mark
from ..base.program import (
    Command,
    Environment,
    Word,
    check_label,
    check_seconds,
    python_arguments,
    python_payload,
)
from ..channel.engine import Target as Output
from ..channel.keeper import Relay
from ..wire.both_frames import FrameError
from .target import COMMAND_OPTIONS, Machine, Target, check_arguments, log_text, target_of

__all__ = ["CommandFailedError", "check", "run"]

# Directories that a root shell has in PATH, but a server may lack.
_SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
_BEAT = 5.0  # seconds between heartbeats of the host, which fail if the client is gone
_PATIENCE = 30.0  # seconds without a frame after which the client gives up
_SLACK = 10.0  # seconds for start-up and shutdown, added to a timeout


class CommandFailedError(MachineError, RuntimeError):
    """A command did not end with status 0, or could not be run at all.

    Attributes:
        status: its exit status, -N if signal N ended it; None if it was not run.
    """

    status: int | None = None


def run(
    machine: Machine,
    command: Any,
    exit: bool = False,
    timeout: float | None = None,
    *,
    logger: Any = None,
    stdout_level: int = logging.DEBUG,
    stderr_level: int = logging.ERROR,
    stop_on_nonzero: bool = True,
    stop_on_error: bool = True,
    stop_on_timeout: bool | None = None,
    **options: Any,
) -> None:
    """Run a command, and log each line of its output at once.

    Invalid UTF-8 and unprintable characters are logged as escapes.  Neither arguments nor the
    environment are logged.

    Args:
        machine: a machine, a `Connection`, remoto's connection, or a wrapper with all attributes
            of these.
        command: the program and its arguments.
        exit: close the machine afterwards.
        timeout: seconds without output after which the command is ended, with everything that
            it started; None is never.
        logger: an object with at least `debug` and `error`; None is the machine's, or the one that
            is named after the host.
        stdout_level, stderr_level: the levels for lines of either stream.
        stop_on_nonzero: whether a status other than 0 is a failure, or a warning in the log.
        stop_on_error: whether a failure raises, or is an error in the log.
        stop_on_timeout: whether a timeout raises, or is a warning in the log; None is the machine's
            way: remoto's connections log it.
        options: `env`, `extend_env`, `cwd`, `stdin`, `shell`, `sudo`, `label`: see `check()`.

    Raises:
        CommandFailedError: the command failed, or could not be run; it is a RuntimeError.
        CommandTimeoutError: the command was silent for too long, and was ended.
        TypeError, ValueError: an argument is invalid; nothing was sent.
        MachineError: the host's reply is malformed.
        ClosedError, RemctlError: see `Connection.run()`.
    """
    check_arguments(options, COMMAND_OPTIONS)
    target = target_of(machine)
    log = target.logger if logger is None else logger
    outputs = _LogLines(log, stdout_level), _LogLines(log, stderr_level)
    job = _Job(target, command, *outputs, silence=_seconds(timeout, target), **options)
    job.perform(log, exit, stop_on_nonzero, stop_on_error, stop_on_timeout)


def check(
    machine: Machine,
    command: Any,
    exit: bool = False,
    timeout: float | None = None,
    *,
    logger: Any = None,
    stop_on_error: bool = True,
    stop_on_timeout: bool | None = None,
    **options: Any,
) -> tuple[list[str], list[str], int]:
    r"""Run a command, and return its lines and status, whatever the status is.

    Invalid UTF-8 is decoded as by `os.fsdecode()`.

    Args:
        machine, command, exit, logger: see `run()`.
        timeout: seconds after which the command is ended, with everything that it started; None
            is never.
        stop_on_error: whether to raise an exception if the command cannot be run; if not, the
            reason is the last line of standard error.
        stop_on_timeout: whether a timeout raises an exception; if not, it is a warning in the log.
            None is the machine's setting, see `run()`.
        options: see below.

    Keyword Args:
        env: the command's whole environment; None is the server's, with HOME, USER, LOGNAME and
            SHELL of the account, and with the sbin directories in PATH.
        extend_env: variables to set in addition; the value None removes a variable.
        cwd: the working directory; None is the user's home.
        stdin: its standard input: octets, or text, which is sent as UTF-8.
        shell: run `command`, a string, by /bin/sh; if it is a list, its first word is the shell's
            script, and the others are its $0, $1, ...
        sudo: run it as root, by ``sudo -n``; None is the machine's setting.
        label: the name in remctld's log; None is the program's name.

    Returns:
        Lines of standard output and standard error, without their ``\n`` or ``\r\n``; and the exit
        status: -N if signal N ended the command, -1 if it was not run to its end.

    Raises:
        CommandFailedError: the command could not be run; it is a RuntimeError.
        CommandTimeoutError: it took too long and was ended.
        TypeError, ValueError: an argument is invalid; nothing was sent.
        MachineError: the host's reply is malformed.
        ClosedError, RemctlError: see `Connection.run()`.
    """
    check_arguments(options, COMMAND_OPTIONS)
    target = target_of(machine)
    log = target.logger if logger is None else logger
    buffers = Output(), Output()
    job = _Job(target, command, *buffers, limit=_seconds(timeout, target), **options)
    job.perform(log, exit, None, stop_on_error, stop_on_timeout)
    stdout, stderr = (_text_lines(buffer.octets) for buffer in buffers)
    if job.reason is not None:
        return stdout, [*stderr, job.reason], -1
    return stdout, stderr, -1 if job.returncode is None else job.returncode


def _seconds(timeout: float | None, target: Target) -> float | None:
    # As in remoto, 0 means None, and -1 means never.
    seconds = timeout or target.global_timeout
    if seconds is None or seconds in (0, -1):
        return None
    check_seconds("timeout", seconds)
    return seconds


class _LogLines(Output):
    """A target that logs each complete line."""

    def __init__(self, logger: Any, level: int) -> None:
        super().__init__()
        self._logger = logger
        self._level = level

    def write(self, octets: bytes, /) -> int:
        self.octets += octets
        if b"\n" in octets:
            *lines, self.octets = self.octets.split(b"\n")
            for line in lines:
                log_text(self._logger, self._level, printable(bytes(line.removesuffix(b"\r"))))
        return len(octets)

    def finish(self, failure: BaseException | None) -> None:
        if self.octets:
            self.write(b"\n")


def _text_lines(octets: bytearray) -> list[str]:
    lines = octets.removesuffix(b"\n").split(b"\n") if octets else []
    return [line.removesuffix(b"\r").decode("utf-8", "surrogateescape") for line in lines]


class _Job(Relay):
    """A command of `run()` or `check()`; see there for the options.

    Attributes:
        reason: the reason if it was not run.
    """

    def __init__(
        self,
        target: Target,
        command: Any,
        stdout: Output,
        stderr: Output,
        *,
        silence: float | None = None,
        limit: float | None = None,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
        cwd: Word | None = None,
        stdin: bytes | str | None = None,
        shell: bool = False,
        sudo: bool | None = None,
        label: str | None = None,
    ) -> None:
        self.reason: str | None = None
        self._target = target
        self._sudo = target.sudo if sudo is None else sudo
        self._limits = {"silence": silence, "limit": limit}
        self._timed_out = False
        self._start = self._heard = time.monotonic()
        self._mark = new_mark()
        far = target.connection.far
        changes: dict[str, Any] = {}
        if not env:
            changes.update({} if self._sudo else target.connection.account_env)
            path = (far.path or os.defpath).split(":")
            path += [folder for folder in _SYSTEM_FOLDERS if folder not in path]
            changes.update(PATH=":".join(path), **target.changes)
        changes.update(extend_env or {})
        words = target.cmd(_words(command, shell))
        folder = cwd if cwd is not None else far.home if target.cwd is None else target.cwd
        checked = Command(words, folder, env or None, changes)
        self._name = checked.label
        spec: dict[str, Any] = {
            **{name: limit for name, limit in self._limits.items() if limit is not None},
            "label": self._name if label is None else check_label(label),
            "control": False,
            "exec_mark": self._mark,
            "beat": _BEAT,
            "patience": math.inf,
        }
        super().__init__(target.connection, stdout, stderr, checked, spec)
        self._silence = _PATIENCE
        self._feeds = _input(stdin)
        self._stderr = stderr

    def perform(
        self, log: Any, exit: bool, nonzero: bool | None, error: bool, timeout: bool | None
    ) -> None:
        """Run it, and log or raise its failures."""
        log_text(log, logging.INFO, f"Running command: {self._name}")
        with contextlib.ExitStack() as stack:
            if exit:
                stack.callback(self._target.exit)
            self.run()
            if isinstance(self.failure, FrameError):
                text = f"malformed reply from {self.connection.host} to a command: {self.failure}"
                raise self.connection._named(MachineError(text))
            if self._timed_out:
                self._report_timeout(
                    log, self._target.stop_on_timeout if timeout is None else timeout
                )
            elif self.failure is not None:
                raise self.failure
            elif self.reason is not None:
                self._report_failure(log, self.reason, error)
            elif self.returncode and nonzero is not None:
                text = f"command returned non-zero exit status: {self.returncode}"
                if nonzero:
                    self._report_failure(log, text, error)
                else:
                    log_text(log, logging.WARNING, text)

    def _report_timeout(self, log: Any, raising: bool) -> None:
        silence, limit = self._limits.values()
        text = (
            f"no output of {self._name} for {silence:g} s"
            if silence
            else (f"{self._name} took longer than {limit:g} s")
        )
        text = f"{text} on {self.connection.host}: it was ended"
        log_text(log, logging.WARNING, text)
        if raising:
            raise self.connection._named(CommandTimeoutError(text))

    def _report_failure(self, log: Any, text: str, raising: bool) -> None:
        log_text(log, logging.ERROR, text)
        if raising:
            error = CommandFailedError(f"Failed to execute command: {self._name}: {text}")
            error.status = None if self.reason else self.returncode
            raise self.connection._named(error)

    def _remctl_command(self) -> tuple[str | bytes, ...]:
        if not self._sudo:
            return super()._remctl_command()
        loader = python_arguments(self._spec["label"])
        words = ["sudo", "-n", "--", self.connection.far.python, *loader]
        program = Command(words, "/").python_program(b"")
        return (self.connection.python, *loader, python_payload(program, self._payload()))

    def _check_time(self) -> None:
        now = time.monotonic()
        passed = {"limit": now - self._start, "silence": now - self._heard}
        limits = self._limits.items()
        if any(limit is not None and passed[name] > limit + _SLACK for name, limit in limits):
            self._timed_out = True
            raise TimeoutError  # The host did not end it in time.

    def _take(self, letter: bytes, number: int, octets: bytes) -> None:
        if letter in b"OE":
            self._heard = time.monotonic()
        if letter == b"T":
            self._timed_out = True
        elif letter == b"D":
            self.reason = describe_folder(self._command.cwd, octets)
        elif letter == b"E" and octets.startswith(self._mark):
            self.reason = octets[len(self._mark) :].strip().decode("utf-8", "replace")
        else:
            super()._take(letter, number, octets)

    def _unexplained(self, status: int) -> None:
        if self.reason is None and not self._timed_out:
            way = "sudo" if self._sudo else "Python"
            self.reason = f"{way} ended with status {status} and did not run the command"


def _input(stdin: bytes | str | None) -> bytes:
    if stdin is None:
        return b""
    if isinstance(stdin, str):
        return stdin.encode("utf-8", "surrogateescape")
    if isinstance(stdin, (bytes, bytearray, memoryview)):
        return bytes(stdin)
    raise TypeError(f"stdin must be octets or text, not {type(stdin).__name__}")


def _words(command: Any, shell: bool) -> list[Word]:
    if shell:
        script = [command] if isinstance(command, (str, bytes)) else list(command)
        return ["/bin/sh", "-c", *script]
    if isinstance(command, (str, bytes)) or not isinstance(command, Iterable):
        text = "a command is a list of words, or a string with shell=True"
        raise TypeError(f"{text}, not {type(command).__name__}")
    return list(command)

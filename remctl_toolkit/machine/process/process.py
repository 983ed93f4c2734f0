"""Commands of a machine as remoto runs them: into a logger line by line, or as lists of lines."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import remctl
from _remctl_text import printable

from ..base.errors import CommandTimeoutError, MachineError, describe_folder
from ..base.program import (
    Command,
    Environment,
    Word,
    check_label,
    check_seconds,
    python_arguments,
    python_payload,
    source,
)
from ..wire.both_frames import FrameError, Frames
from .output import Lines, text_lines
from .target import Machine, Target, log_text, target_of

__all__ = ["CommandFailedError", "check", "run"]

# What a root shell finds its programs in, and a server's PATH may lack.
_SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
_PATIENCE = 20.0  # seconds without a beat of the far side, see BEAT in process/far_follow.py
_SLACK = 10.0  # seconds that starting and ending a command may take besides
_NO_FOLDER = b"125"
_FAR = ("wire/both_frames", "base/far_execute", "base/far_supervise", "process/far_follow")
_LETTERS = b"oestxb"  # what process/far_follow.py sends
_FRAME_LIMIT = 1 << 20  # octets


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
    """Run a command, and log each line that it writes as soon as it is there.

    Octets that are no UTF-8, and characters that are not printable, are logged as escapes.
    Neither arguments nor the environment are logged.

    Args:
        machine: a machine, a `Connection`, or remoto's connection.
        command: the program and its arguments.
        exit: close the machine afterwards.
        timeout: seconds without output after which the command is ended, with all that
            it has started; None is never.
        logger: what has `debug` and `error`, at least; None is the machine's, or the one that is
            named after the host.
        stdout_level, stderr_level: the levels for lines of either stream.
        stop_on_nonzero: whether a status other than 0 is a failure, or a warning in the log.
        stop_on_error: whether a failure raises, or is an error in the log.
        stop_on_timeout: whether a timeout raises, or is a warning in the log; None is the machine's
            way: remoto's connections log it.
        options: `env`, `extend_env`, `cwd`, `stdin`, `shell`, `sudo`, `label`: see `check()`.

    Raises:
        CommandFailedError: the command failed, or could not be run; it is a RuntimeError.
        CommandTimeoutError: the command was silent for too long, and was ended.
        TypeError, ValueError: an argument cannot be right; nothing was sent.
        MachineError: something else than ours answers there.
        ClosedError, RemctlError: see `Connection.run()`.
    """
    target = target_of(machine)
    job = _Job(target, command, **options)
    job.silence = _seconds(timeout, target)
    log = target.logger if logger is None else logger
    log_text(log, logging.INFO, f"Running command: {job.name}")
    levels = {b"o": stdout_level, b"e": stderr_level}
    lines = {stream: Lines() for stream in levels}
    outcome = _Outcome(job)
    with contextlib.ExitStack() as stack:
        if exit:
            stack.callback(target.exit)
        for kind, octets in job.events():
            if kind in lines:
                for line in lines[kind].feed(octets):
                    log_text(log, levels[kind], printable(line))
            else:
                outcome.take(kind, octets)
        for stream, rest in lines.items():
            for line in rest.end():
                log_text(log, levels[stream], printable(line))
        raising = target.stop_on_timeout if stop_on_timeout is None else stop_on_timeout
        outcome.report(log, stop_on_nonzero, stop_on_error, raising)


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
    r"""Run a command, and return its lines and status; it does not matter which status.

    Octets that are no UTF-8 become what `os.fsencode()` makes octets of again.

    Args:
        machine, command, exit, logger: see `run()`.
        timeout: seconds after which the command is ended, with all that it has started; None is
            never.
        stop_on_error: whether it raises that the command cannot be run; if not, the reason is the
            last line of standard error.
        stop_on_timeout: whether a timeout raises; if not, there is a warning in the log.  None is
            the machine's way, see `run()`.
        options: see below.

    Keyword Args:
        env: the command's whole environment; None is the server's, with HOME, USER, LOGNAME and
            SHELL of the account, and the folders of administrators' programs in PATH.
        extend_env: what to set in it, on top; None as a value takes a name away.
        cwd: the folder to run it in; None is the user's home.
        stdin: what it gets on standard input: octets, or text, which is sent as UTF-8.
        shell: run `command`, a string, by /bin/sh; if it is a list, its first word is what the
            shell runs, and the others are $0, $1, ... there.
        sudo: run it as root, by ``sudo -n``; None is the machine's way.
        label: what remctld's log shows of it; None is the program's name.

    Returns:
        Lines of standard output and standard error, without their ``\n`` or ``\r\n``; and the exit
        status: -N if signal N ended the command, -1 if it was not run to its end.

    Raises:
        CommandFailedError: the command could not be run; it is a RuntimeError.
        CommandTimeoutError: it took too long, and was ended.
        TypeError, ValueError: an argument cannot be right; nothing was sent.
        MachineError: something else than ours answers there.
        ClosedError, RemctlError: see `Connection.run()`.
    """
    target = target_of(machine)
    job = _Job(target, command, **options)
    job.limit = _seconds(timeout, target)
    log = target.logger if logger is None else logger
    log_text(log, logging.INFO, f"Running command: {job.name}")
    written = {b"o": bytearray(), b"e": bytearray()}
    outcome = _Outcome(job)
    with contextlib.ExitStack() as stack:
        if exit:
            stack.callback(target.exit)
        for kind, octets in job.events():
            if kind in written:
                written[kind] += octets
            else:
                outcome.take(kind, octets)
        raising = target.stop_on_timeout if stop_on_timeout is None else stop_on_timeout
        outcome.report(log, False, stop_on_error, raising, quiet=True)
    stdout, stderr = (text_lines(octets) for octets in written.values())
    if outcome.reason is not None:
        stderr.append(outcome.reason)
    return stdout, stderr, -1 if outcome.status is None else outcome.status


def _seconds(timeout: float | None, target: Target) -> float | None:
    # As in remoto: 0 is like None here, and -1 is never.
    seconds = timeout or target.global_timeout
    if seconds is None or seconds in (0, -1):
        return None
    check_seconds("timeout", seconds)
    return seconds


# -- The command over there -----------------------------------------------------------------------


class _Job:
    """A command, checked, and how long it may be silent or take."""

    silence: float | None = None
    limit: float | None = None

    def __init__(
        self,
        target: Target,
        command: Any,
        *,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
        cwd: Word | None = None,
        stdin: bytes | str | None = None,
        shell: bool = False,
        sudo: bool | None = None,
        label: str | None = None,
    ) -> None:
        self.connection = target.connection
        self.sudo = target.sudo if sudo is None else sudo
        self.input = _input(stdin)
        far = self.connection.far
        if env:
            changes: dict[str, Any] = {}
        else:
            changes = {} if self.sudo else dict(self.connection.account_env)
            path = (far.path or os.defpath).split(":")
            path += [folder for folder in _SYSTEM_FOLDERS if folder not in path]
            changes["PATH"] = ":".join(path)
            changes.update(target.changes)
        changes.update(extend_env or {})
        words = target.cmd(_words(command, shell))
        folder = cwd if cwd is not None else far.home if target.cwd is None else target.cwd
        self._command = Command(words, folder, env or None, changes)
        self.cwd = self._command.cwd
        self.name = self._command.label
        self.label = self.name if label is None else check_label(label)

    def events(self) -> Generator[tuple[bytes, bytes], None, None]:
        """Run it: what it writes, as (b"o" or b"e", octets), and its end, see `_Outcome`."""
        spec = self._command.spec(silence=self.silence, limit=self.limit)
        program = f"{source(*_FAR)}\nfollow({spec})\n"
        payload = self.input
        if self.sudo:
            payload = python_payload(program, payload)
            python = self.connection.far.python
            words = ["sudo", "-n", "--", python, *python_arguments(self.label)]
            program = Command(words, "/").python_program(b"")
        found: list[tuple[bytes, bytes]] = []
        frames = Frames(
            lambda letter, _, octets: found.append((letter, octets)), _LETTERS, _FRAME_LIMIT
        )
        ways = self.connection.python_stream(program, payload, label=self.label, timeout=_PATIENCE)
        start = heard = time.monotonic()
        with ways as tokens:
            for token in tokens:
                now = time.monotonic()
                if self._is_overdue(now - start, now - heard):  # It is not ended over there.
                    yield b"t", b""
                    return
                if token.type == "status":
                    yield b"!", b"%d" % (token.status or 0)
                elif token.stream == remctl.RemctlStream.STDERR:  # That of sudo, and of Python.
                    yield b"e", token.output or b""
                else:
                    found.clear()
                    self._take(frames, token.output or b"")
                    heard = now if any(letter in b"oe" for letter, _ in found) else heard
                    yield from self._checked(found)

    def _is_overdue(self, seconds: float, silence: float) -> bool:
        """Whether the far side should have ended the command long ago."""
        limits = (self.limit, seconds), (self.silence, silence)
        return any(limit is not None and took > limit + _SLACK for limit, took in limits)

    def _take(self, frames: Frames, octets: bytes) -> None:
        try:
            frames.write(octets)
        except FrameError as error:
            raise self._malformed(str(error)) from None

    def _checked(self, found: list[tuple[bytes, bytes]]) -> Generator[tuple[bytes, bytes]]:
        for letter, octets in found:
            if letter == b"s" and not re.fullmatch(rb"-?\d{1,3}", octets):
                raise self._malformed("a status that is not a number")
            if letter != b"b":  # A beat has been of use to the far side alone.
                yield letter, octets

    def _malformed(self, reason: str) -> MachineError:
        text = f"{self.connection.host} does not run commands as it must: {reason}"
        return self.connection._named(MachineError(text))


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


class _Outcome:
    """How a command ended: b"s", a status; b"t", time was over; b"x", it was not run.

    If there is none of these, neither it nor what runs it was run: b"!" then has the status.
    """

    status: int | None = None
    reason: str | None = None  # why it was not run

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._timed_out = False

    def take(self, kind: bytes, octets: bytes) -> None:
        """Take one of them."""
        text = octets.decode("utf-8", "replace")
        if kind == b"s":
            self.status = int(octets)
        elif kind == b"t":
            self._timed_out = True
        elif kind == b"x":
            where, _, why = octets.partition(b" ")
            folder = where == _NO_FOLDER
            self.reason = describe_folder(self._job.cwd, why) if folder else text.partition(" ")[2]
        elif self.status is None and self.reason is None and not self._timed_out:
            way = "sudo" if self._job.sudo else "Python"
            self.reason = f"{way} ended with status {text} and did not run it"

    def report(
        self, logger: Any, nonzero: bool, error: bool, timeout: bool, *, quiet: bool = False
    ) -> None:
        """Log or raise what is to be logged or raised."""
        if self._timed_out:
            self._report_timeout(logger, timeout)
        elif self.reason is not None:
            self._report_failure(logger, self.reason, error)
        elif self.status and not quiet:
            text = f"command returned non-zero exit status: {self.status}"
            if nonzero:
                self._report_failure(logger, text, error)
            else:
                log_text(logger, logging.WARNING, text)

    def _report_timeout(self, logger: Any, raising: bool) -> None:
        job = self._job
        if job.silence is not None:
            text = f"no output of {job.name} for {job.silence:g} s"
        else:
            text = f"{job.name} took longer than {job.limit:g} s"
        text = f"{text} on {job.connection.host}: it was ended"
        log_text(logger, logging.WARNING, text)
        if raising:
            raise job.connection._named(CommandTimeoutError(text))

    def _report_failure(self, logger: Any, text: str, raising: bool) -> None:
        log_text(logger, logging.ERROR, text)
        if raising:
            error = CommandFailedError(f"Failed to execute command: {self._job.name}: {text}")
            error.status = self.status
            raise self._job.connection._named(error)

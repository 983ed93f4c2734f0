"""The way to one account of a host: sessions, and commands whose input is known beforehand."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import remctl
from _remctl_text import printable

from ...pool import Pool, PoolClosedError
from .account import LONGEST_ANSWER, FarSide, far_side
from .errors import (
    ClosedError,
    CommandTimeoutError,
    MachineError,
    NoPythonError,
    WorkingFolderError,
    describe_folder,
)
from .outputs import Bounded, Marked, Writable, new_mark
from .program import (
    SHELL_LOADER,
    Command,
    Environment,
    Word,
    check_label,
    check_seconds,
    python_arguments,
    python_payload,
    source,
)

STARTS_AND_ENDS = 10.0  # seconds that a command may take beside its own time

_TIMED_OUT = 124  # The status for it, see base/far_execute.py; timeout(1) has the same.


class Connection:
    """The way to one account of a host, for any number of threads.

    The server needs a line in its remctl.conf for each account; a second makes commands faster::

        python ALL /usr/bin/python3 stdin=last user=NAME ACL
        sh     ALL /bin/sh          stdin=last user=NAME ACL

    Whoever is in that ACL has a full shell as that user.  remctld's log shows constants and a label
    for each command: everything else travels on standard input, which is not logged.

    Args:
        host, port, principal, ccache, source_ip, credentials: see `remctl.Remctl`.
        python: the remctl command that runs Python.
        shell: the remctl command that runs sh; it is used if the server has it.  None: never.
        connect_timeout: seconds that each step of connecting may take.

    Attributes:
        far: what was found there, a `FarSide`.
        shell: None if the server does not have that command.
        compiled: programs as the Python over there has compiled them, by file and text.
        parts: what belongs to a connection and is made by others, by their names.

    Raises:
        RemctlConnectError, RemctlAuthenticationError, RemctlTimeoutError: see `remctl.Remctl`.
        NoPythonError: the command for Python is not there, not allowed, or not as it must be.
        MachineError: both commands are there, but run as different users.
    """

    def __init__(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        python: str = "python",
        shell: str | None = "sh",
        connect_timeout: float = 30.0,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        credentials: remctl.RemctlCredentials | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.python = python
        self.shell: str | None = None
        self.compiled: dict[tuple[str, str], bytes] = {}
        self.parts: dict[Any, Any] = {}
        self._until = 0.0  # when all that is asked has to have ended; 0 is never
        self._pool = Pool(
            host,
            port,
            principal,
            size=sys.maxsize,  # Channels hold theirs for as long as they like.
            one_address=True,
            timeout=connect_timeout,
            ccache=ccache,
            source_ip=source_ip,
            credentials=credentials,
        )
        try:
            self.far = self._find_python(connect_timeout)
            self.shell = self._find_shell(shell, connect_timeout)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = "closed" if self.closed else printable(f"{self.far.user}@{self.host}")
        return f"<{type(self).__name__} {state}>"

    # Finding out what is there.

    def _find_python(self, timeout: float) -> FarSide:
        program = source("base/far_probe")
        try:
            result = self.python_run(program, label="probe", timeout=timeout, limit=LONGEST_ANSWER)
            return far_side(self.host, result)
        except NoPythonError as error:
            raise self._named(error) from None
        except remctl.RemctlServerError as error:
            text = f"{self.host} does not let us run its command {self.python!r}: {error}"
        except ValueError as error:
            text = f"command {self.python!r} of {self.host} does not run Python as it must: {error}"
        cure = f"{self.python} ALL /usr/bin/python3 stdin=last user=NAME ACL"
        text = f"{text}; the remctl.conf of {self.host} needs a line such as: {cure}"
        raise self._named(NoPythonError(text))

    def _find_shell(self, shell: str | None, timeout: float) -> str | None:
        if shell is None:
            return None
        command = (shell, "-c", SHELL_LOADER, "probe", b"echo `id -u`\n")
        answer = Bounded(LONGEST_ANSWER)
        try:
            with self.session() as session:
                session.run(command, stdout=answer, stderr=remctl.DEVNULL, deadline=timeout)
        except (remctl.RemctlServerError, ValueError):
            return None
        uid = answer.octets
        if not re.fullmatch(rb"\d{1,10}\n", uid):
            return None
        if int(uid) != self.far.uid:
            text = f"on {self.host}, command {self.python!r} runs as user {self.far.uid} but "
            text += f"{shell!r} as {int(uid)}: name another, or None, as the command for the shell"
            raise self._named(MachineError(text))
        return shell

    # Sessions.

    @contextlib.contextmanager
    def session(self, until: float = 0.0) -> Generator[remctl.Remctl]:
        """Have a session for oneself: one that is idle, or a new one; see `Pool.session()`.

        Args:
            until: when there has to be one, on the monotonic clock; 0 is never.

        All sessions lead to the same machine, whatever the host's name leads to meanwhile.  The
        session's timeout is that for connecting: a command that may be silent for longer needs
        another.

        Raises:
            ClosedError: the connection was closed.
            RemctlError: see `remctl.Remctl.open()`.
        """
        try:
            with self._pool._lend(self._pool._lease(), None, until or self._until) as session:
                yield session
        except PoolClosedError:
            self._check_open()
            raise

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._pool.closed

    def _check_open(self) -> None:
        if self.closed:
            text = f"the connection to {self.host} was closed"
            raise self._named(ClosedError(text)) from None

    def _named(self, error: MachineError) -> MachineError:
        error.host, error.port = self.host, int(self.port) if self.port else None
        return error

    # Commands.

    def run(
        self,
        argv: Iterable[Word],
        *,
        input: bytes = b"",
        cwd: Word | None = None,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
        timeout: float | None = None,
        label: str | None = None,
        stdout: Writable | None = None,
        stderr: Writable | None = None,
    ) -> remctl.RemctlSimpleResult:
        """Run a command to its end: one remctl command, with its own streams and status.

        A status of 255 is the command's, or says that a signal ended it; 127 that there is no such
        program, 126 that it cannot be run (as in sh).

        Args:
            argv: the program and its arguments: text, octets, numbers, paths.
            input: what it gets on standard input, less than 100 MiB with all the rest.
            cwd: the folder to run it in; None is the user's home.
            env: its whole environment; None is the server's, with HOME, USER, LOGNAME and SHELL of
                the account.
            extend_env: what to set in it, on top; None takes a name away.
            timeout: seconds after which it is ended, with all that it started; None is never.
            label: what remctld's log shows of it; None is the program's name.
            stdout, stderr: binary files to write that stream to as it arrives.

        Raises:
            TypeError, ValueError: an argument cannot be right; nothing was sent.
            CommandTimeoutError: it took too long, and was ended.
            WorkingFolderError: `cwd` cannot be entered; nothing was run.
            ClosedError: the connection was closed.
            RemctlError: see `remctl.Remctl.run()`.
        """
        command = self.command_of(argv, cwd, env, extend_env)
        if timeout is not None:
            check_seconds("timeout", timeout)
        mark = new_mark()
        remctl_command, payload = self._remctl_command(command, mark, input, timeout, label)
        return self._run(remctl_command, payload, mark, timeout, stdout, stderr, command)

    @contextlib.contextmanager
    def stream(
        self,
        argv: Iterable[Word],
        *,
        input: bytes = b"",
        cwd: Word | None = None,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
        timeout: float | None = None,
        label: str | None = None,
    ) -> Generator[Iterator[remctl.RemctlOutput]]:
        """Run a command, and iterate over its tokens as they come; see `run()` for the arguments.

        Leaving before the end closes the session; remctld notices when the command writes
        something: what must not go on without us needs a `Channel`.

        Raises:
            See `run()`; the iterator raises what comes up while the command runs.
        """
        command = self.command_of(argv, cwd, env, extend_env)
        if timeout is not None:
            check_seconds("timeout", timeout)
        mark = new_mark()
        remctl_command, payload = self._remctl_command(command, mark, input, timeout, label)
        with self._streaming(remctl_command, payload, mark, timeout, command) as tokens:
            yield tokens

    def python_run(
        self,
        program: str,
        payload: bytes = b"",
        *,
        label: str,
        timeout: float | None = None,
        stdout: Writable | None = None,
        stderr: Writable | None = None,
        limit: int | None = None,
    ) -> remctl.RemctlSimpleResult:
        """Run a Python program there, as ``python3 -IS``; it may read `payload` from descriptor 0.

        `timeout` is for the network's silence: the program has to end itself.  With a `limit`, for
        the octets of either stream, it is for all of it.

        Raises:
            ValueError: it wrote more than the limit.
            CommandTimeoutError, ClosedError, RemctlError: see `run()`.
        """
        command, octets = self._python_command(program, payload, label)
        if limit is None:
            return self._run(command, octets, new_mark(), timeout, stdout, stderr)
        out, err = Bounded(limit), Bounded(limit)
        result = self._run(command, octets, new_mark(), timeout, out, err, bounded=True)
        result.stdout, result.stderr = out.octets, err.octets
        return result

    @contextlib.contextmanager
    def python_stream(
        self, program: str, payload: bytes = b"", *, label: str, timeout: float | None = None
    ) -> Generator[Iterator[remctl.RemctlOutput]]:
        """The same, token by token; see `python_run()` and `stream()`."""
        command, octets = self._python_command(program, payload, label)
        with self._streaming(command, octets, new_mark(), timeout) as tokens:
            yield tokens

    def command_of(
        self,
        argv: Iterable[Word],
        cwd: Word | None,
        env: Mapping[str, Word] | None,
        extend_env: Environment | None,
    ) -> Command:
        """Return the command as the far side has to run it."""
        self._check_open()
        changes = {**(self.account_env if env is None else {}), **(extend_env or {})}
        return Command(argv, self.far.home if cwd is None else cwd, env, changes)

    @property
    def account_env(self) -> dict[str, str]:
        """What a login sets in the environment, and remctld does not."""
        far = self.far
        return {"HOME": far.home, "USER": far.user, "LOGNAME": far.user, "SHELL": far.shell}

    def _remctl_command(
        self,
        command: Command,
        mark: bytes,
        data: bytes,
        timeout: float | None,
        label: str | None,
    ) -> tuple[tuple[str, ...], bytes]:
        shown = command.label if label is None else check_label(label)
        if self.shell is not None and timeout is None:
            payload = command.shell_payload(mark, data)
            if payload is not None:
                return (self.shell, "-c", SHELL_LOADER, shown), payload
        return self._python_command(command.python_program(mark, timeout), data, shown)

    def _python_command(
        self, program: str, data: bytes, label: str
    ) -> tuple[tuple[str, ...], bytes]:
        words = (self.python, *python_arguments(check_label(label)))
        return words, python_payload(program, data)

    def _run(
        self,
        words: tuple[str, ...],
        payload: bytes,
        mark: bytes,
        timeout: float | None,
        stdout: Writable | None,
        stderr: Writable | None,
        command: Command | None = None,
        bounded: bool = False,
    ) -> remctl.RemctlSimpleResult:
        errors = Marked(stderr, mark)
        start = time.monotonic()
        bounded = bounded or command is not None
        with self._session_for(timeout, bounded) as (session, deadline):
            octets = (*words, payload)
            result = session.run(octets, stdout=stdout, stderr=errors, deadline=deadline)
        result.stderr = errors.kept()
        if errors.word is not None:
            raise self._no_folder(command.cwd if command is not None else b"", errors.word)
        if timeout is not None and _timed_out(result.status, start, timeout):
            result.status = None
            raise self._took_too_long(timeout, result)
        return result

    @contextlib.contextmanager
    def _streaming(
        self,
        words: tuple[str, ...],
        payload: bytes,
        mark: bytes,
        timeout: float | None,
        command: Command | None = None,
    ) -> Generator[Iterator[remctl.RemctlOutput]]:
        with self._session_for(timeout, command is not None) as (session, deadline):
            octets = (*words, payload)
            with contextlib.closing(session.stream(octets, deadline=deadline)) as tokens:
                yield self._unmarked(tokens, mark, timeout, command)

    @contextlib.contextmanager
    def _session_for(
        self, timeout: float | None, bounded: bool
    ) -> Generator[tuple[remctl.Remctl, float | None]]:
        """Have a session, and the seconds for all that is done in it, if they are bounded."""
        limit = 0.0 if timeout is None else timeout + STARTS_AND_ENDS
        until = self.time_to_end(limit) if limit and bounded else self._until
        with self.session(until) as session:
            session.set_timeout(limit)
            yield session, max(until - time.monotonic(), 0.0) if until else None

    def _unmarked(
        self,
        tokens: Iterable[remctl.RemctlOutput],
        mark: bytes,
        timeout: float | None,
        command: Command | None,
    ) -> Iterator[remctl.RemctlOutput]:
        start = time.monotonic()
        folder = b"" if command is None else command.cwd
        for token in tokens:
            if token.stream == 2 and token.output is not None and token.output.startswith(mark):
                raise self._no_folder(folder, token.output[len(mark) :])
            if timeout is not None and _timed_out(token.status, start, timeout):
                raise self._took_too_long(timeout, None)
            yield token

    def _no_folder(self, folder: bytes, reason: bytes) -> MachineError:
        return self._named(WorkingFolderError(describe_folder(folder, reason, self.host)))

    def _took_too_long(
        self, timeout: float, partial: remctl.RemctlSimpleResult | None
    ) -> MachineError:
        text = f"command took longer than {timeout:g} s on {self.host}, and was ended"
        error = CommandTimeoutError(text)
        error.partial = partial
        return self._named(error)

    # The end.

    def begin_closing(self, seconds: float) -> None:
        """Give all that is still open, and what is asked from now on, so many seconds to end."""
        self._until = time.monotonic() + seconds

    def time_to_end(self, seconds: float) -> float:
        """Return when those seconds are over, or before when all has to have ended.

        Both are times of the monotonic clock.
        """
        until = time.monotonic() + seconds
        return min(until, self._until) if self._until else until

    def close(self) -> None:
        """Close all sessions; a command that runs in another thread ends with an exception."""
        self._pool.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _timed_out(status: int | None, start: float, timeout: float) -> bool:
    # A command may have the same status, but hardly by itself after that time.
    return status == _TIMED_OUT and time.monotonic() - start >= timeout

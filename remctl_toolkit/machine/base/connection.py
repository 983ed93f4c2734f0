"""Connections to one account of a host: sessions, and commands whose input is known beforehand."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict

import remctl
from _remctl_text import printable

from ...pool import Pool, PoolClosedError
from .account import LONGEST_ANSWER, find_python, find_shell
from .errors import (
    ClosedError,
    CommandTimeoutError,
    MachineError,
    WorkingFolderError,
    describe_folder,
)
from .outputs import Bounded, Marked, marked, new_mark
from .program import (
    SHELL_LOADER,
    Command,
    Environment,
    Word,
    check_label,
    check_seconds,
    python_arguments,
    python_payload,
)

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

OutputFile: TypeAlias = "SupportsWrite[bytes] | None"

STARTS_AND_ENDS = 10.0  # seconds for start-up and shutdown, added to a command's timeout

_TIMED_OUT = 124  # exit status for a timeout, see base/far_supervise.py and timeout(1)


class ConnectionSettings(TypedDict, total=False):
    """The arguments of `Connection` after the host's name."""

    port: int | str | None
    principal: str | None
    python: str
    shell: str | None
    connect_timeout: float
    ccache: str | os.PathLike[str] | None
    source_ip: str | None
    credentials: remctl.RemctlCredentials | None


class _Request(NamedTuple):
    words: tuple[str | bytes, ...]
    timeout: float | None
    cwd: bytes = b""
    mark: bytes = b""  # prefix of the error if `cwd` cannot be entered


class Connection:
    """A connection to one account of a host, for any number of threads.

    The server's remctl.conf needs a line for each account; a second line makes commands faster::

        python ALL /usr/bin/python3 stdin=last user=NAME ACL
        sh     ALL /bin/sh          stdin=last user=NAME ACL

    Everybody in that ACL has a full shell as that user.  remctld logs constants and a label for
    each command: everything else is sent on standard input, which is not logged.

    Args:
        host, port, principal, ccache, source_ip, credentials: see `remctl.Remctl`.
        python: the remctl command that runs Python.
        shell: the remctl command that runs sh, used if the server has it; None: never use it.
        connect_timeout: seconds that each step of connecting may take.

    Attributes:
        far: properties of the remote account, a `FarSide`.
        shell: the command for sh; None if the server does not have it.
        quick_start: the directory for channels that the shell starts; None if it cannot.
        compiled: byte code of programs from the host's Python, by file and text.
        parts: objects of other modules that belong to this connection, by name.

    Raises:
        RemctlConnectError, RemctlAuthenticationError, RemctlTimeoutError: see `remctl.Remctl`.
        NoPythonError: the command for Python is missing, not allowed, or does not run Python.
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
        self.quick_start: bytes | None = None
        self.compiled: dict[tuple[str, str], bytes] = {}
        self.parts: dict[Any, Any] = {}
        self._until = 0.0  # deadline for all operations; 0 is never
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
            probe = functools.partial(self._probe, timeout=connect_timeout)
            self.far = find_python(probe, host, python)
            if shell is not None:
                found = find_shell(probe, host, python, shell, self.far.uid)
                self.shell, self.quick_start = found
        except BaseException as error:
            self.close()
            if isinstance(error, MachineError):
                self._named(error)
            raise

    def __repr__(self) -> str:
        state = "closed" if self.closed else printable(f"{self.far.user}@{self.host}")
        return f"<{type(self).__name__} {state}>"

    def _probe(self, words: Sequence[str | bytes], timeout: float) -> remctl.RemctlSimpleResult:
        """Run a command that may be any program; raise ValueError if it writes too much."""
        stdout, stderr = Bounded(LONGEST_ANSWER), Bounded(LONGEST_ANSWER)
        with self._session_for(timeout, True) as (session, deadline):
            result = session.run(words, stdout=stdout, stderr=stderr, deadline=deadline)
        result.stdout, result.stderr = stdout.octets, stderr.octets
        return result

    # Sessions.

    @contextlib.contextmanager
    def session(self, until: float = 0.0) -> Generator[remctl.Remctl]:
        """Borrow a session: one that is idle, or a new one; see `Pool.session()`.

        Args:
            until: the deadline for getting one, on the monotonic clock; 0 is never.

        All sessions use the same address, even if the host's name resolves to another one by now.
        The session's timeout is that for connecting: set another for a command that may be silent
        for longer.

        Raises:
            ClosedError: the connection was closed.
            RemctlError: see `remctl.Remctl.open()`.
        """
        try:
            with self._pool.session(deadline=_left(until or self._until)) as session:
                yield session
        except PoolClosedError:
            self._check_open()
            raise

    @contextlib.contextmanager
    def _session_for(
        self, timeout: float | None, bounded: bool
    ) -> Generator[tuple[remctl.Remctl, float | None]]:
        """Borrow a session; yield it with the seconds for its commands, if they are bounded."""
        limit = 0.0 if timeout is None else timeout + STARTS_AND_ENDS
        until = self.time_to_end(limit) if limit and bounded else self._until
        with self.session(until) as session:
            session.set_timeout(limit)
            yield session, _left(until)

    @property
    def closed(self) -> bool:
        """True after `close()`."""
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
        stdout: OutputFile = None,
        stderr: OutputFile = None,
    ) -> remctl.RemctlSimpleResult:
        """Run a command to its end: one remctl command, with its own streams and status.

        A status of 255 is the command's own, or means that a signal ended it.  As in sh, 127 means
        that there is no such program, and 126 that it cannot be run.

        Args:
            argv: the program and its arguments: text, octets, numbers, paths.
            input: its standard input, less than 100 MiB together with everything else.
            cwd: the working directory; None is the user's home.
            env: its whole environment; None is the server's, with HOME, USER, LOGNAME and SHELL of
                the account.
            extend_env: variables to set in addition; the value None removes a variable.
            timeout: seconds after which it is ended, with everything that it started; None: never.
            label: the name in remctld's log; None is the program's name.
            stdout, stderr: binary files to write that stream to as it arrives.

        Raises:
            TypeError, ValueError: an argument is invalid; nothing was sent.
            CommandTimeoutError: it took too long and was ended.
            WorkingFolderError: `cwd` cannot be entered; nothing was run.
            ClosedError: the connection was closed.
            RemctlError: see `remctl.Remctl.run()`.
        """
        command = self.command_of(argv, cwd, env, extend_env)
        return self._run(self._request(command, input, timeout, label), stdout, stderr)

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
    ) -> AbstractContextManager[Iterator[remctl.RemctlOutput]]:
        """Run a command, and iterate over its tokens as they arrive; see `run()` for the arguments.

        Leaving the block early closes the session, which remctld notices only when the command
        writes something: use a `Channel` for a command that must end with this program.

        Raises:
            See `run()`; errors while the command runs are raised by the iterator.
        """
        command = self.command_of(argv, cwd, env, extend_env)
        return self._stream(self._request(command, input, timeout, label))

    def python_run(
        self, program: str, payload: bytes = b"", *, label: str, timeout: float | None = None
    ) -> remctl.RemctlSimpleResult:
        """Run a Python program as ``python3 -IS``; it may read `payload` from descriptor 0.

        The whole run may take `timeout` seconds, and ten for start-up and shutdown.  This does not
        end the program.

        Raises:
            ClosedError, RemctlError: see `run()`.
        """
        return self._run(_Request(self._python_words(program, payload, label), timeout))

    def python_stream(
        self, program: str, payload: bytes = b"", *, label: str, timeout: float | None = None
    ) -> AbstractContextManager[Iterator[remctl.RemctlOutput]]:
        """Run a Python program, and iterate over its tokens; `timeout` limits the silence."""
        return self._stream(_Request(self._python_words(program, payload, label), timeout))

    def command_of(
        self,
        argv: Iterable[Word],
        cwd: Word | None,
        env: Mapping[str, Word] | None,
        extend_env: Environment | None,
    ) -> Command:
        """Return a checked command with the account's working directory and environment."""
        self._check_open()
        changes = {**(self.account_env if env is None else {}), **(extend_env or {})}
        return Command(argv, self.far.home if cwd is None else cwd, env, changes)

    @property
    def account_env(self) -> dict[str, str]:
        """Environment variables that a login sets, but remctld does not."""
        far = self.far
        return {"HOME": far.home, "USER": far.user, "LOGNAME": far.user, "SHELL": far.shell}

    def _request(
        self, command: Command, data: bytes, timeout: float | None, label: str | None
    ) -> _Request:
        if timeout is not None:
            check_seconds("timeout", timeout)
        mark = new_mark()
        label = command.label if label is None else check_label(label)
        words: tuple[str | bytes, ...]
        payload = command.shell_payload(mark, data) if self.shell and timeout is None else None
        if self.shell is None or payload is None:
            words = self._python_words(command.python_program(mark, timeout), data, label)
        else:
            words = (self.shell, "-c", SHELL_LOADER, label, payload)
        return _Request(words, timeout, command.cwd, mark)

    def _python_words(self, program: str, data: bytes, label: str) -> tuple[str | bytes, ...]:
        arguments = python_arguments(check_label(label))
        return (self.python, *arguments, python_payload(program, data))

    def _run(
        self, request: _Request, stdout: OutputFile = None, stderr: OutputFile = None
    ) -> remctl.RemctlSimpleResult:
        errors = None if stderr is None else Marked(stderr, request.mark)
        start = time.monotonic()
        with self._session_for(request.timeout, True) as (session, deadline):
            result = session.run(request.words, stdout=stdout, stderr=errors, deadline=deadline)
        message = marked(result.stderr, request.mark) if errors is None else errors.message
        self._check(request, message, result.status, start, result)
        return result

    @contextlib.contextmanager
    def _stream(self, request: _Request) -> Generator[Iterator[remctl.RemctlOutput]]:
        with (
            self._session_for(request.timeout, bool(request.mark)) as (session, deadline),
            contextlib.closing(session.stream(request.words, deadline=deadline)) as tokens,
        ):
            yield self._checked(tokens, request)

    def _checked(
        self, tokens: Iterable[remctl.RemctlOutput], request: _Request
    ) -> Iterator[remctl.RemctlOutput]:
        start = time.monotonic()
        for token in tokens:
            message = marked(token.output, request.mark) if token.stream == 2 else None
            self._check(request, message, token.status, start)
            yield token

    def _check(
        self,
        request: _Request,
        message: bytes | None,
        status: int | None,
        start: float,
        partial: remctl.RemctlSimpleResult | None = None,
    ) -> None:
        """Raise an exception if the working directory failed or the command timed out."""
        if message is not None:
            raise self._no_folder(request.cwd, message)
        timeout = request.timeout
        # A command may exit with 124 itself, but hardly after that time.
        if timeout and status == _TIMED_OUT and time.monotonic() - start >= timeout:
            text = f"command took longer than {timeout:g} s on {self.host}, and was ended"
            error = CommandTimeoutError(text)
            if partial is not None:
                partial.status = None
            error.partial = partial
            raise self._named(error)

    def _no_folder(self, folder: bytes, reason: bytes) -> MachineError:
        return self._named(WorkingFolderError(describe_folder(folder, reason, self.host)))

    # The end.

    def begin_closing(self, seconds: float) -> None:
        """Limit the seconds for all current and later operations."""
        self._until = time.monotonic() + seconds

    def time_to_end(self, seconds: float) -> float:
        """Return the deadline in that many seconds, at most that of `begin_closing()`."""
        until = time.monotonic() + seconds
        return min(until, self._until) if self._until else until

    def close(self) -> None:
        """Close all sessions; commands that run in other threads raise an exception."""
        self._pool.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _left(until: float) -> float | None:
    return max(until - time.monotonic(), 0.0) if until else None

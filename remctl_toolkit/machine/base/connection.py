"""The way to one account of a host: sessions, and commands whose input is known beforehand."""

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

STARTS_AND_ENDS = 10.0  # seconds that a command may take besides its own time

_TIMED_OUT = 124  # The status for it, see base/far_supervise.py; timeout(1) has the same.


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
    """A remctl command."""

    words: tuple[str | bytes, ...]
    timeout: float | None
    cwd: bytes = b""
    mark: bytes = b""  # begins what is said of `cwd` if it cannot be entered


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
        quick_start: where the shell has folders of channels that it starts; None: it cannot.
        compiled: programs as the host's Python has compiled them, by file and text.
        parts: what belongs to a connection and is made by others, by their names.

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
        """Run a command of which nothing is known yet: ValueError if it writes too much."""
        stdout, stderr = Bounded(LONGEST_ANSWER), Bounded(LONGEST_ANSWER)
        with self._session_for(timeout, True) as (session, deadline):
            result = session.run(words, stdout=stdout, stderr=stderr, deadline=deadline)
        result.stdout, result.stderr = stdout.octets, stderr.octets
        return result

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
            with self._pool.session(deadline=_left(until or self._until)) as session:
                yield session
        except PoolClosedError:
            self._check_open()
            raise

    @contextlib.contextmanager
    def _session_for(
        self, timeout: float | None, bounded: bool
    ) -> Generator[tuple[remctl.Remctl, float | None]]:
        """Have a session, and the seconds for all that is done in it, if they are bounded."""
        limit = 0.0 if timeout is None else timeout + STARTS_AND_ENDS
        until = self.time_to_end(limit) if limit and bounded else self._until
        with self.session(until) as session:
            session.set_timeout(limit)
            yield session, _left(until)

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
        stdout: OutputFile = None,
        stderr: OutputFile = None,
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
        """Run a command, and iterate over its tokens as they come; see `run()` for the arguments.

        Leaving before the end closes the session; remctld notices when the command writes
        something: what must not go on without us needs a `Channel`.

        Raises:
            See `run()`; the iterator raises what comes up while the command runs.
        """
        command = self.command_of(argv, cwd, env, extend_env)
        return self._stream(self._request(command, input, timeout, label))

    def python_run(
        self, program: str, payload: bytes = b"", *, label: str, timeout: float | None = None
    ) -> remctl.RemctlSimpleResult:
        """Run a Python program there, as ``python3 -IS``; it may read `payload` from descriptor 0.

        All of it has `timeout` seconds, and ten to start and end.  The program has to end itself.

        Raises:
            ClosedError, RemctlError: see `run()`.
        """
        return self._run(_Request(self._python_words(program, payload, label), timeout))

    def python_stream(
        self, program: str, payload: bytes = b"", *, label: str, timeout: float | None = None
    ) -> AbstractContextManager[Iterator[remctl.RemctlOutput]]:
        """The same, token by token; here `timeout` is for the network's silence."""
        return self._stream(_Request(self._python_words(program, payload, label), timeout))

    def command_of(
        self,
        argv: Iterable[Word],
        cwd: Word | None,
        env: Mapping[str, Word] | None,
        extend_env: Environment | None,
    ) -> Command:
        """Return a command as the host has to run it, in octets."""
        self._check_open()
        changes = {**(self.account_env if env is None else {}), **(extend_env or {})}
        return Command(argv, self.far.home if cwd is None else cwd, env, changes)

    @property
    def account_env(self) -> dict[str, str]:
        """What a login sets in the environment, and remctld does not."""
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
        word = marked(result.stderr, request.mark) if errors is None else errors.word
        self._check(request, word, result.status, start, result)
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
            word = marked(token.output, request.mark) if token.stream == 2 else None
            self._check(request, word, token.status, start)
            yield token

    def _check(
        self,
        request: _Request,
        word: bytes | None,
        status: int | None,
        start: float,
        partial: remctl.RemctlSimpleResult | None = None,
    ) -> None:
        """Raise the exception for the host's own word, or for a command that was ended."""
        if word is not None:
            raise self._no_folder(request.cwd, word)
        timeout = request.timeout
        # A command may have the same status, but hardly by itself after that time.
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
        """Limit the time for all that is open, and for what is asked from now on, in seconds."""
        self._until = time.monotonic() + seconds

    def time_to_end(self, seconds: float) -> float:
        """Return when those seconds are over, on the monotonic clock; see `begin_closing()`."""
        until = time.monotonic() + seconds
        return min(until, self._until) if self._until else until

    def close(self) -> None:
        """Close all sessions; a command that runs in another thread ends with an exception."""
        self._pool.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _left(until: float) -> float | None:
    """Return the seconds that are left until a time of the monotonic clock; 0 is never."""
    return max(until - time.monotonic(), 0.0) if until else None

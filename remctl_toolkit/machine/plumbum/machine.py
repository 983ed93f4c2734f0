"""A remote machine of plumbum, over remctl.

    with Machine("server.example.org") as machine:
        print((machine["ls"]["-a"] | machine["grep"]["b"])())

plumbum provides commands, pipes, redirections, paths and so on; this module runs them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

try:
    from plumbum.commands import BaseCommand, CommandNotFound
    from plumbum.machines.remote import BaseRemoteMachine
    from plumbum.machines.session import ShellSession
    from plumbum.path.remote import RemotePath, RemoteWorkdir
except ImportError as error:
    raise ImportError(
        "remctl_toolkit.machine.Machine needs plumbum: pip install 'plumbum>=2.0.2,<2.1'"
    ) from error


import remctl

from ..base.accounts import connect as connect_to
from ..base.accounts import split_user
from ..base.connection import Connection
from ..base.program import Word, source
from .commands import MachineCommand, Words, intent
from .environment import MachineEnv, MachineWorkdir
from .files import MachineFiles
from .popen import Popen, ProcessExecutionError
from .session import TERMINAL, ClosedSession, Session, Shell

if TYPE_CHECKING:
    import socket
    from types import ModuleType

    from ..call import Interpreter, RemoteModule
    from ..tunnel.tunnel import Tunnel

_T = TypeVar("_T")

_CLOSE_LIMIT = 9.0  # seconds


class Machine(MachineFiles, BaseRemoteMachine):  # type: ignore[misc]
    """An account of a host, as a remote machine of plumbum.

    The server needs the lines that `Connection` describes.  A command whose input is known
    beforehand is one remctl command, with its own exit status and streams.  Sessions, and commands
    that get their input bit by bit, are channels.

    Args:
        host: the host, or ``user@host``.
        port, principal, python, shell, connect_timeout, ccache, source_ip, credentials: see
            `Connection`.
        user: the account's user; this uses the commands ``python-USER`` and ``sh-USER``, or those
            without USER if they run as that user.
        encoding: of commands' output; None returns octets.
        cwd: the initial working directory; None is the account's home.
        connect: whether to connect now; otherwise the machine connects on first use.

    Attributes:
        connection: the connection to the host.
        host: its name.
        far: properties of the remote account, a `FarSide`.
        cwd, env: the working directory and environment of commands, see plumbum.
        uname: the name of its operating system.

    Raises:
        ValueError: `host` is malformed, or names another user than `user`.
        UnknownUserError: the server has no commands that run as that user, or does not authorize
            this principal.
        NoPythonError, MachineError, RemctlError: see `Connection`.
        ProcessExecutionError: `cwd` cannot be entered.
    """

    RemoteCommand = MachineCommand
    _connection: Connection | None = None
    _owns_connection = False
    _interpreter: Interpreter | None = None
    _env: MachineEnv | None = None

    def __init__(
        self,
        host: str,
        port: int | str | None = None,
        principal: str | None = None,
        *,
        user: str | None = None,
        python: str = "python",
        shell: str | None = "sh",
        connect_timeout: float = 30.0,
        ccache: str | os.PathLike[str] | None = None,
        source_ip: str | None = None,
        credentials: remctl.RemctlCredentials | None = None,
        encoding: str | None = "utf8",
        cwd: Word | None = None,
        connect: bool = True,
    ) -> None:
        self.host, user = split_user(host, user)
        self._prepare(connect_timeout, encoding)
        self._owns_connection = True
        self._first_folder = cwd
        self._connect = functools.partial(
            connect_to,
            self.host,
            user,
            port=port,
            principal=principal,
            python=python,
            shell=shell,
            connect_timeout=connect_timeout,
            ccache=ccache,
            source_ip=source_ip,
            credentials=credentials,
        )
        if connect:
            self._opened()

    @classmethod
    def over(
        cls,
        connection: Connection,
        *,
        connect_timeout: float = 30.0,
        encoding: str | None = "utf8",
        cwd: Word | None = None,
    ) -> Self:
        """Make a machine from an existing connection, which `close()` leaves open."""
        self = cls.__new__(cls)
        self.host = connection.host
        self._prepare(connect_timeout, encoding)
        self._enter(connection, cwd)
        return self

    def _prepare(self, timeout: float, encoding: str | None) -> None:
        # plumbum's own constructor would open a session and keep it open.
        self.connect_timeout = timeout
        self.custom_encoding = encoding
        self._session: Shell | ClosedSession = Shell(self)
        self._program_cache: dict[tuple[str, str], RemotePath] = {}
        self._lock, self._connecting = threading.RLock(), threading.RLock()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def _enter(self, connection: Connection, folder: Word | None) -> None:
        self._connection = connection
        self._cwd = MachineWorkdir(self, connection.far.home)
        if folder is not None:
            self._cwd.chdir(os.fsdecode(cast("Any", folder)))

    @property
    def connection(self) -> Connection:  # type: ignore[override]
        """The connection to the host, which is opened if necessary."""
        ours = self._connection if self._owns_connection else None
        return ours or self._opened()  # A machine's own connection may be closed.

    def _opened(self) -> Connection:
        """Return the connection; raise ClosedMachineError after close()."""
        with self._connecting:
            self._session.run  # noqa: B018  # raises ClosedMachineError
            if self._connection is None:
                connection = self._connect()
                try:
                    self._enter(connection, self._first_folder)
                    return self._opened()  # It may have been closed meanwhile.
                except BaseException:
                    self._connection = None
                    connection.close()
                    raise
            return self._connection

    @property
    def far(self) -> Any:
        """Properties of the remote account, a `FarSide`."""
        return self.connection.far

    @property
    def uname(self) -> str:
        """The name of its operating system."""
        return str(self.far.system[0])

    @property
    def _fqhost(self) -> str:
        connection = self._connection
        return self.host if connection is None else f"{connection.far.user}@{self.host}"

    def __str__(self) -> str:
        return f"remctl://{self._fqhost}"

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return isinstance(self._session, ClosedSession)

    @property
    def cwd(self) -> RemoteWorkdir:
        """The working directory of commands; ``with machine.cwd(path)`` sets it for a block."""
        self._opened()
        return self._cwd

    @property
    def _folder(self) -> str:
        return str(self.cwd)

    @property
    def env(self) -> MachineEnv:
        """The environment of commands."""
        # Before Python 3.12, a cached_property of one machine would wait for the host of another.
        found = self._env or self.__dict__.setdefault("_env", MachineEnv(self))
        return cast("MachineEnv", found)

    def _changes(self) -> dict[str, str | None]:
        self._opened()
        # Commands that read the environment run before it exists.
        return {} if self._env is None else self._env.changes()

    # Commands.

    def which(self, progname: str) -> RemotePath:
        """Find a program in the PATH of `env`; an underscore may stand for "-" or ".".

        Raises:
            CommandNotFound: no directory has it.
        """
        folders = [str(folder) for folder in self.env.path]
        key = (progname, self.env.get("PATH", ""))
        if key not in self._program_cache:
            names = dict.fromkeys(
                [progname, progname.replace("_", "-"), progname.replace("_", ".")]
            )
            candidates = [f"{folder}/{name}" for name in names for folder in folders]
            test = 'for p; do [ -x "$p" ] && [ ! -d "$p" ] && echo "$p." && exit; done; exit 1'
            words = ["/bin/sh", "-c", test, "which", *candidates]
            found = self._opened().run(words, label="which", cwd=self._folder)
            if found.status != 0:
                raise CommandNotFound(progname, self.env.path)
            path = os.fsdecode(found.stdout or b"").removesuffix(".\n")
            self._program_cache[key] = RemotePath(self, path)
        return self._program_cache[key]

    def popen(
        self,
        args: BaseCommand | Sequence[Any] | str,
        *,
        stdin: Any = PIPE,
        stdout: Any = PIPE,
        stderr: Any = PIPE,
        cwd: Any = None,
        env: dict[str, Any] | None = None,
        encoding: str | None = "auto",
        new_session: bool = False,
    ) -> Popen:
        """Start a command.

        Args:
            args: a command of plumbum, a list of words, or a string for the shell.
            stdin, stdout, stderr: as for `subprocess.Popen`.
            cwd: the working directory, relative to the machine's.
            env: variables to set in its environment.
            encoding: of its output; "auto" is the command's own, None returns octets.
            new_session: ignored; remote commands never share a terminal.

        Raises:
            ClosedMachineError: the machine was closed.
            TypeError, ValueError: an argument is invalid.
        """
        connection, words, purpose = self._opened(), Words(args), intent.get()
        if encoding == "auto":
            encoding = self.custom_encoding if words.encoding == "auto" else words.encoding
        process = Popen(
            connection,
            words.argv,
            stdin=DEVNULL if stdin == PIPE and purpose != "input" else stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=self._folder_of(words, cwd),
            extend_env={**self._changes(), **words.env, **(env or {})},
            encoding=encoding,
            keep=self,
            whole=purpose == "whole",
        )
        self._open.add(process)
        return process

    def _folder_of(self, words: Words, cwd: Any) -> str:
        wanted = words.cwd if cwd is None else str(cwd)
        return posixpath.join(self._folder, wanted) if wanted else self._folder

    def daemonic_popen(
        self,
        command: BaseCommand,
        cwd: str = ".",
        stdout: str | None = None,
        stderr: str | None = None,
        append: bool = True,
    ) -> Popen:
        """Start a command that runs on without this program.

        Args:
            command: the command.
            cwd: the working directory, relative to the machine's.
            stdout, stderr: remote files for its output; None is /dev/null for standard output, and
                standard output's file for standard error.
            append: whether to append to these files, or replace them.

        Returns:
            A process that has ended with status 0; its `pid` is that of the remote command.

        Raises:
            ProcessExecutionError: a file or the working directory cannot be opened.
        """
        connection, words = self._opened(), Words(command)
        changes = {**self._changes(), **words.env}
        folder = self._folder_of(words, cwd)
        detached = connection.command_of(words.argv, folder, None, changes)
        more = {
            "stdout": os.fsencode(str(stdout or "/dev/null")),
            "stderr": None if stderr is None else os.fsencode(str(stderr)),
            "append": append,
        }
        program = source("base/far_execute", "plumbum/far_detach")
        program += f"\ndetach({detached.spec(b'', **more)}, execute)\n"
        result = connection.python_run(program, label=detached.label)
        errors = os.fsdecode(result.stderr or b"")
        if result.status != 0:
            raise ProcessExecutionError(words.argv, result.status, "", errors, host=self.host)
        return Popen.detached(connection, words.argv, int(result.stdout or b""))

    def session(self, isatty: bool = False, *, new_session: bool = False) -> ShellSession:
        """Open a shell session: one /bin/sh for many commands, which keeps its state.

        Args:
            isatty: whether the shell has a terminal.
            new_session: ignored; a shell always has its own session.
        """
        words = [self.connection.far.python, "-c", TERMINAL] if isatty else ["/bin/sh"]
        encoding = self.encoding or "utf8"
        return Session(self.popen(words), encoding, isatty, self.connect_timeout, host=self.host)

    @property
    def python(self) -> Any:
        """The remote Python, as a command."""
        return self[self.connection.far.python]

    # Additions to plumbum.

    def tunnel(
        self,
        lport: int | str,
        dport: int | str,
        lhost: str | None = "localhost",
        dhost: str | None = "localhost",
        connect_timeout: float | None = None,
        reverse: bool = False,
    ) -> Tunnel:
        """Forward a local port to the host, or the reverse; see `Tunnel`."""
        from ..tunnel.tunnel import Tunnel

        timeout = self.connect_timeout if connect_timeout is None else connect_timeout
        tunnel = Tunnel(
            self._opened(), lport, dport, lhost, dhost, reverse=reverse, connect_timeout=timeout
        )
        self._open.add(tunnel)
        return tunnel

    def connect_sock(
        self, dport: int, dhost: str = "localhost", ipv6: bool = False
    ) -> socket.socket:
        """Return a socket that is connected to a port of the host; see `tunnel.connect_sock()`."""
        from ..tunnel.tunnel import connect_sock

        return connect_sock(self._opened(), dport, dhost, ipv6)

    @property
    def interpreter(self) -> Interpreter:
        """The remote interpreter of `call()` and `import_module()`, which is started once."""
        from ..call import Interpreter

        with self._lock:
            connection = self._opened()
            if self._interpreter is None or self._interpreter.closed:
                self._interpreter = Interpreter(connection)
            return self._interpreter

    def call(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
        """Run a function on the host, and return its result; see `Interpreter.call()`."""
        result: _T = self.interpreter.call(function, *args, **kwargs)
        return result

    def import_module(self, module: ModuleType) -> RemoteModule:
        """Return a module whose functions run on the host; see `Interpreter.import_module()`."""
        return self.interpreter.import_module(module)

    def facts(self, *names: str, timeout: float | None = 120.0) -> dict[str, Any]:
        """Return facts about the host by name, or all without names; see `facts`."""
        from .. import facts

        return facts.gather(self._opened(), names or facts.NAMES, timeout=timeout)

    def gateway(self, **how: Any) -> Any:
        """Open an execnet gateway; see `gateway.open_gateway()`."""
        from ..gateway import open_gateway

        return open_gateway(self._opened(), **how)

    # The end.

    def close(self) -> None:
        """End everything that runs or is open on the host, and close the connection.

        Using the machine, its paths or its commands afterwards raises a `ClosedError`, which is
        also plumbum's ClosedRemoteMachine.  Closing again does nothing.  It takes less than ten
        seconds even if the host does not answer: commands then end by themselves.
        """
        if self.closed:
            return
        self._session = ClosedSession(self)
        connection = self._connection if self._owns_connection else None
        if connection is not None:
            connection.begin_closing(_CLOSE_LIMIT)
        with self._lock, contextlib.ExitStack() as stack:
            if connection is not None:
                stack.callback(connection.close)
            for one in list(self._open):
                stack.callback(one.close)
            if self._interpreter is not None:
                stack.callback(self._interpreter.close)

    def __del__(self) -> None:
        # The host ends the commands when the sessions are closed.  This must not wait for locks.
        if sys.is_finalizing():
            return
        if self._interpreter is not None:
            self._interpreter.drop()
        if self._owns_connection and self._connection is not None:
            self._connection.close()

"""Run a stock remctld on a loopback port, with the commands of a test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import programs
from .commands import SAMPLE_COMMANDS, Command, machine_commands
from .errors import ServerError
from .files import private, write_private
from .keeper import Daemon
from .ports import ReservedPort, loopback_address
from .waiting import wait_until

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .realm import Realm

__all__ = ["SAMPLE_COMMANDS", "Command", "RemctldServer", "machine_commands"]

_START_TIMEOUT = 20.0  # seconds for remctld to be ready; it usually takes 20 ms
_REREADING = "re-reading configuration"  # remctld's log line for SIGHUP
# remctld misses a signal that arrives just before it waits for a client, until the next signal.
_RELOAD_INTERVAL, _RELOAD_ATTEMPTS = 0.5, 40  # seconds between two signals, and their number
_LOG_TAIL = 20  # lines of the log to show in an error

# Socket activation like systemd's, sd_listen_fds(3): the listening socket is descriptor 3, and
# LISTEN_PID is the process that it is for. exec keeps the process id. The socket arrives as stdin.
_HANDOVER_SCRIPT = (
    'LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec "$@" 3<&0 0</dev/null'
)


class RemctldServer:
    """A remctld(8) for a realm, in the foreground on a loopback port.

    Use it as a context manager, or call start() and close(). stop(), kill(), start() and restart()
    keep the port; close() and the realm's stop() release it. Any number of servers can run at once.
    Only one thread at a time may start or stop a server.

    When this process ends, in any way, and at stop() and kill(), remctld, its sessions and their
    commands are killed. (A command that calls setsid(2) is not.)

    Attributes: ``realm``; ``host``, the name to connect to; ``principal``, the server's principal
    (clients need it if ``host`` is not "localhost"); ``address``, the address that it listens on.

    The environment of remctld, and so of its commands, is PATH, LC_ALL=C, the realm's KRB5_*
    variables, and REMCTL_BACKEND_LOG, so that reports of backends are in ``log``. Other variables
    of this process are not passed on. The working directory is ``/``.
    """

    def __init__(
        self,
        realm: Realm,
        commands: Iterable[Command] = (),
        *,
        config: str = "",
        default_acl: str | None = None,
        address: str | None = None,
        port: int | None = None,
        host: str | None = None,
        principal: str | None = None,
        env: Mapping[str, str] | None = None,
        debug: bool = False,
    ) -> None:
        """Describe the server; start() or ``with`` runs it.

        Args:
            realm: a realm that is (or will be) started.
            commands: the commands; the first that matches counts.
            config: raw lines of remctld(8)'s configuration file, after the commands.
            default_acl: who may run commands without an ACL; None means the realm's user.
            address: a local IPv4 or IPv6 address to listen on; None means 127.0.0.1, or ::1 on a
                machine without IPv4. Any user of the machine can connect to it.
            port: the TCP port; None means any free port.
            host: the name for clients. None means "localhost" if the address is 127.0.0.1, or if
                the machine has no IPv4 and "localhost" is ::1; otherwise the address itself.
            principal: the server's principal, with its key in the realm's keytab (see
                ``Realm.add_host``); None means the realm's ``host_principal``.
            env: variables to add to remctld's environment.
            debug: whether remctld logs more details (its option -d).

        Raises:
            RealmError: no address is given, and the machine has no loopback address.
        """
        self.realm = realm
        self.address = address or loopback_address()
        self.host = host or _host_name(self.address, chosen=address is None)
        self.principal = principal or realm.host_principal
        self._commands = tuple(commands)
        self._config = config
        self._default_acl = default_acl or f"princ:{realm.user}"
        self._extra_env = dict(env or {})
        self._debug = debug
        self._wanted_port = port or 0
        self._port: ReservedPort | None = None
        self._listener: socket.socket | None = None
        self._daemon: Daemon | None = None
        self._folder: Path | None = None

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        where = f"{self.address} port {self._port.number}" if self._port else self.address
        return f"<RemctldServer {self.principal} on {where}: {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Information for clients and tests

    @property
    def port(self) -> int:
        """The TCP port; it does not change until close().

        Raises:
            ServerError: the server is not started yet, or closed.
        """
        if self._port is None:
            raise ServerError(f"{self!r} has no port: call start(), or use a with statement")
        return self._port.number

    @property
    def running(self) -> bool:
        """Report whether remctld is running (or frozen)."""
        return self._daemon is not None and self._daemon.running

    @property
    def pid(self) -> int:
        """The process id of remctld.

        Raises:
            ServerError: it is not running.
        """
        return self._running_daemon().pid

    @property
    def env(self) -> dict[str, str]:
        """Variables for scripts: REMCTL_HOST, REMCTL_PORT and REMCTL_PRINCIPAL (a copy).

        They are a convention of this package; remctl clients do not read them.
        """
        return {
            "REMCTL_HOST": self.host,
            "REMCTL_PORT": str(self.port),
            "REMCTL_PRINCIPAL": self.principal,
        }

    @property
    def log(self) -> str:
        """The log of remctld, over all restarts until close(); "" before the first start.

        A client may get its answer a moment before the log has the line about it: see wait_for_log.
        """
        if self._folder is None:
            return ""
        return self._log_path.read_text(errors="replace")

    @property
    def log_path(self) -> Path:
        """Path of the log file.

        Raises:
            ServerError: the server is not started yet, or closed.
        """
        if self._folder is None:
            raise ServerError(f"{self!r} has no log: call start(), or use a with statement")
        return self._log_path

    def wait_for_log(self, text: str, timeout: float = 10.0) -> str:
        """Wait until the log contains a text.

        Args:
            text: the text.
            timeout: seconds to wait at most.

        Returns:
            The whole log.

        Raises:
            ServerError: the timeout passed; the message has the end of the log.
        """
        if not wait_until(lambda: text in self.log, timeout):
            raise ServerError(f"no {text!r} in the log after {timeout} seconds: {self._tail(0)}")
        return self.log

    # Starting and stopping

    def start(self) -> None:
        """Start remctld and wait until it answers. After stop() or kill() the port is the same.

        Raises:
            MissingPrograms: remctld is not installed.
            ServerError: it is already running, or failed to start (the message has its log).
            RealmError: the realm is not started.
            ValueError: a command cannot be written in its configuration file.
            OSError: this machine does not have the address, or the port is in use (EADDRINUSE).
        """
        if self.running:
            raise ServerError(f"{self!r} is already running")
        program = programs.find("remctld")["remctld"]
        try:
            self._prepare()
            if not self._launch(program, handover=True):
                # A remctld without socket activation (before 3.7, or not built for systemd) failed
                # to bind, because our socket uses the port. Its own socket has a backlog of 5.
                self._close_listener()
                self._launch(program, handover=False)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Kill remctld and its sessions; clients are refused. Harmless if it is not running.

        The port stays reserved for start().
        """
        self.kill()

    def kill(self, *, keep_listening: bool = False) -> None:
        """Kill remctld and its sessions with SIGKILL, and wait until they have ended.

        Args:
            keep_listening: whether clients can still connect. They wait until start() runs a new
                remctld, which answers them.
        """
        if self._daemon is not None:
            self._daemon.end()
            self._daemon = None
        if not keep_listening:
            self._close_listener()

    def restart(self) -> None:
        """Kill remctld and start it again, with the same port and configuration."""
        self.kill(keep_listening=True)
        self.start()

    def reload(
        self, commands: Iterable[Command] | None = None, *, config: str | None = None
    ) -> None:
        """Make remctld read its configuration again, as an administrator does with SIGHUP.

        Open connections keep their old configuration; after the return, new ones have the new one.

        Args:
            commands: the new commands; None keeps the old ones.
            config: new raw lines after the commands; None keeps the old ones.

        Raises:
            ServerError: it is not running, or it ended because of a mistake in the new
                configuration (the message has its log). start() then uses the old one.
            ValueError: a command cannot be written in the file; nothing has changed.
        """
        daemon = self._running_daemon()
        before = self._commands, self._config
        self._commands = self._commands if commands is None else tuple(commands)
        self._config = self._config if config is None else config
        said_before = len(self.log)
        try:
            self._write_configuration()
            self._await_reload(daemon, said_before)
        except BaseException:
            self._commands, self._config = before
            self._write_configuration()
            raise

    def _await_reload(self, daemon: Daemon, said_before: int) -> None:
        # remctld logs this before it reads the file. The second line proves that it has read it.
        if not all(self._reread(daemon, said_before, times) for times in (1, 2)):
            state = "does not reload" if daemon.running else f"ended: {daemon.returncode}"
            raise ServerError(f"remctld {state}: {self._tail(said_before)}")

    def _reread(self, daemon: Daemon, said_before: int, times: int) -> bool:
        """Send SIGHUP until the log reports it."""
        for _ in range(_RELOAD_ATTEMPTS):
            daemon.hang_up()
            if daemon.await_ready(
                lambda: self.log.count(_REREADING, said_before) >= times, _RELOAD_INTERVAL
            ):
                return True
            if not daemon.running:
                break
        return False

    def close(self) -> None:
        """Stop remctld, and release the port and the log; harmless if already closed."""
        self.stop()
        if self._port is not None:
            self._port.close()
            self._port = None
        self._folder = None
        self.realm.detach(self)

    def freeze(self) -> None:
        """Stop remctld, its sessions and their commands from running; connections stay open.

        Raises:
            ServerError: it is not running.
        """
        self._running_daemon().freeze()

    def thaw(self) -> None:
        """Resume a frozen server; harmless if it is not frozen."""
        if self._daemon is not None:
            self._daemon.thaw()

    # Running remctld

    @property
    def _log_path(self) -> Path:
        assert self._folder is not None
        return self._folder / "log"

    def _running_daemon(self) -> Daemon:
        if self._daemon is None or not self._daemon.running:
            raise ServerError(f"{self!r} is not running: call start()")
        return self._daemon

    def _prepare(self) -> None:
        """Make sure of a directory with the configuration, a port and a listening socket."""
        if self._folder is None:
            self.realm.attach(self)
            self._folder = self.realm.tmpdir / f"remctld{self.realm.next_number()}"
            self._folder.mkdir(mode=0o700)
            write_private(self._log_path, "")
            self._write_configuration()
        if self._port is None:
            self._port = ReservedPort(self.address, self._wanted_port)
        if self._listener is None:
            self._listener = self._port.listen()

    def _write_configuration(self) -> None:
        """Write remctl.conf and its scripts; old scripts stay, as commands may be running."""
        assert self._folder is not None
        lines = []
        for command in self._commands:
            program = os.fspath(command.program)
            if bool(program) == bool(command.script):
                raise ValueError(f"{command!r} needs either a program or a script")
            if command.script:
                path = self._folder / f"command{self.realm.next_number()}"
                program = _write_script(path, command.script)
            lines.append(command.line(program, self._default_acl))
        text = "\n".join([*lines, self._config])
        write_private(self._folder / "remctl.conf", f"{text}\n")

    def _arguments(self, program: str) -> list[str]:
        """Return remctld's command line."""
        assert self._folder is not None
        # -m one process per connection, -F foreground, -S log to stdout. Address and port are for
        # a remctld that does not take over the socket.
        flags = ["-m", "-F", "-S", "-b", self.address, "-p", str(self.port)]
        flags += ["-d"] if self._debug else []
        flags += ["-f", str(self._folder / "remctl.conf"), "-P", str(self._pid_path)]
        return [program, *flags, "-k", self.realm.keytab, "-s", self.principal]

    @property
    def _pid_path(self) -> Path:
        assert self._folder is not None
        return self._folder / "pid"

    def _launch(self, program: str, *, handover: bool) -> bool:
        """Run remctld and wait until it is ready.

        Returns:
            False if it should have taken over our socket, but tried to bind its own.
        """
        write_private(self._pid_path, "")
        said_before = len(self.log)
        args = self._arguments(program)
        if handover:
            args = ["/bin/sh", "-c", _HANDOVER_SCRIPT, "sh", *args]
        stdin = self._listener.fileno() if handover and self._listener else subprocess.DEVNULL
        # Reports of remctl_toolkit.backend go to the server's log.
        logs = {"REMCTL_BACKEND_LOG": str(self._log_path)}
        env = {**programs.tool_environ(), **self.realm.env, **logs, **self._extra_env}
        with open(self._log_path, "ab", opener=private) as output:
            self._daemon = self.realm.keeper.launch(args, output=output, env=env, stdin=stdin)
        # remctld writes the file when it has read its configuration and accepts connections. (A
        # connection would prove nothing, because our socket listens already.)
        if self._daemon.await_ready(lambda: self._pid_path.stat().st_size > 0, _START_TIMEOUT):
            return True
        if handover and not self._daemon.running and "cannot bind" in self.log[said_before:]:
            self._daemon.end()
            return False
        state = "is not ready" if self._daemon.running else f"ended: {self._daemon.returncode}"
        raise ServerError(f"remctld {state}: {self._tail(said_before)}")

    def _tail(self, start: int) -> str:
        """Return the last lines of the log after a position."""
        return "\n".join(self.log[start:].splitlines()[-_LOG_TAIL:])

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _host_name(address: str, *, chosen: bool) -> str:
    """Return the name that clients connect to.

    Args:
        address: the address that the server listens on.
        chosen: whether it is the default, and not given by the caller.
    """
    if address == "127.0.0.1":
        return "localhost"
    if chosen:
        with contextlib.suppress(OSError):
            if address in {info[4][0] for info in socket.getaddrinfo("localhost", None)}:
                return "localhost"
    return address


def _write_script(path: Path, text: str) -> str:
    """Write an executable script, and return its path."""
    write_private(path, text if text.startswith("#!") else f"#!/bin/sh\n{text}\n", 0o700)
    return os.fspath(path)

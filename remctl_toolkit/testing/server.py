"""A stock remctld on a loopback port, with the commands a test needs."""

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

_START_TIMEOUT = 20.0  # seconds for remctld to be ready; it takes some 20 ms
_REREADING = "re-reading configuration"  # what remctld logs when it gets SIGHUP
# A signal that comes just before remctld waits for a client is not seen until the next one.
_RELOAD_INTERVAL, _RELOAD_ATTEMPTS = 0.5, 40  # seconds until it is sent again, and how often
_LOG_TAIL = 20  # lines of the log that an error message shows

# Socket activation as systemd does it, sd_listen_fds(3): the listening socket is descriptor 3, and
# LISTEN_PID is the process it is meant for. exec keeps the process id. The socket comes as stdin.
_HANDOVER_SCRIPT = (
    'LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec "$@" 3<&0 0</dev/null'
)


class RemctldServer:
    """A remctld(8) for a realm, in the foreground on a loopback port.

    Use it as a context manager, or call start() and close(). stop(), kill(), start() and restart()
    keep the port; close(), and the realm's stop(), give it up. Any number of servers can be up at
    once. A server must not be started and stopped by two threads at a time.

    Ends with everything it started: when this process ends, in whatever way, and at stop() and
    kill(), remctld, its sessions and their commands are killed. (A command that makes itself a
    session of its own with setsid(2) escapes that.)

    Attributes: ``realm``; ``host``, the name to connect to; ``principal``, the server's own
    (clients need it when ``host`` is not "localhost"); ``address``, what it is bound to.

    The environment of remctld, and so of its commands, is PATH, LC_ALL=C, the realm's KRB5_*
    variables, and REMCTL_BACKEND_LOG, the file that ``log`` shows, for what backends have to log;
    its working directory is ``/``. Nothing else of this process's environment gets in.
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
            commands: what it can run; the first that matches counts.
            config: raw lines for its configuration file, remctld(8), after the commands.
            default_acl: who may run commands without an ACL; None means the realm's user.
            address: a local IPv4 or IPv6 address to listen on; None means 127.0.0.1, or ::1 on a
                machine that has no IPv4. Any user of the machine can connect to it.
            port: the TCP port; None means any that is free.
            host: the name for clients; None means "localhost" for 127.0.0.1, and the address itself
                for another ("localhost" need not mean ::1, for one). It means "localhost" as well
                where the machine has no IPv4, and "localhost" is ::1 there.
            principal: the server's principal, with its key in the realm's keytab (see
                ``Realm.add_host``); None means the realm's ``host_principal``.
            env: variables to add to remctld's environment.
            debug: whether remctld logs what it does in more detail (its option -d).

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

    # What clients and tests want to know

    @property
    def port(self) -> int:
        """The TCP port; the same until close().

        Raises:
            ServerError: the server was not started yet, or is closed.
        """
        if self._port is None:
            raise ServerError(f"{self!r} has no port: call start(), or use a with statement")
        return self._port.number

    @property
    def running(self) -> bool:
        """Whether remctld is running (or frozen)."""
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
        """Variables that tell a client where the server is, besides the realm's (a copy).

        They are REMCTL_HOST, REMCTL_PORT and REMCTL_PRINCIPAL: names of this package's, for
        scripts; no remctl client reads them by itself.
        """
        return {
            "REMCTL_HOST": self.host,
            "REMCTL_PORT": str(self.port),
            "REMCTL_PRINCIPAL": self.principal,
        }

    @property
    def log(self) -> str:
        """What remctld logged so far, over all restarts until close(); "" before the first start.

        A client can have its answer a moment before the line about it is here: see wait_for_log.
        """
        if self._folder is None:
            return ""
        return self._log_path.read_text(errors="replace")

    @property
    def log_path(self) -> Path:
        """The file that the log is written to.

        Raises:
            ServerError: the server was not started yet, or is closed.
        """
        if self._folder is None:
            raise ServerError(f"{self!r} has no log: call start(), or use a with statement")
        return self._log_path

    def wait_for_log(self, text: str, timeout: float = 10.0) -> str:
        """Wait until the log has a text in it.

        Args:
            text: what to look for.
            timeout: seconds to wait at most.

        Returns:
            The whole log.

        Raises:
            ServerError: the time was over; the message has the end of the log.
        """
        if not wait_until(lambda: text in self.log, timeout):
            raise ServerError(f"no {text!r} in the log after {timeout} seconds: {self._tail(0)}")
        return self.log

    # Up and down

    def start(self) -> None:
        """Run remctld; on return it answers. After stop() or kill() it has the same port again.

        Raises:
            MissingPrograms: remctld is not installed.
            ServerError: it runs already, or it does not start: the message has its log.
            RealmError: the realm is not started.
            ValueError: a command cannot be written in its configuration file.
            OSError: the address is not one of this machine's, or the port is in use (EADDRINUSE).
        """
        if self.running:
            raise ServerError(f"{self!r} runs already")
        program = programs.find("remctld")["remctld"]
        try:
            self._prepare()
            if not self._launch(program, handover=True):
                # A remctld without socket activation (before 3.7, or not for systemd) found that
                # its port is taken, by our own socket. Its own has a backlog of 5 only.
                self._close_listener()
                self._launch(program, handover=False)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Kill remctld and its sessions; clients are refused. Harmless when it is not running.

        The port stays reserved for start().
        """
        self.kill()

    def kill(self, *, keep_listening: bool = False) -> None:
        """Kill remctld and its sessions with SIGKILL; on return none of them runs.

        Args:
            keep_listening: whether clients can still connect. Nobody answers them, until start()
                runs a remctld that finds them waiting.
        """
        if self._daemon is not None:
            self._daemon.end()
            self._daemon = None
        if not keep_listening:
            self._close_listener()

    def restart(self) -> None:
        """Kill remctld and run it again on the same port, with the same configuration."""
        self.kill(keep_listening=True)
        self.start()

    def reload(
        self, commands: Iterable[Command] | None = None, *, config: str | None = None
    ) -> None:
        """Have remctld read its configuration again, as an administrator does with SIGHUP.

        Connections that are open keep the configuration that they began with; on return, new ones
        have the new one.

        Args:
            commands: what it can run from now on; None means what it could run before.
            config: raw lines after the commands; None means those there were before.

        Raises:
            ServerError: it is not running, or it ended because there is a mistake in the new
                configuration (the message has its log); start() runs it with the one before.
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
        # remctld says so before it reads the file: when it says so again, it has read it once.
        if not all(self._reread(daemon, said_before, times) for times in (1, 2)):
            state = "does not reload" if daemon.running else f"ended: {daemon.returncode}"
            raise ServerError(f"remctld {state}: {self._tail(said_before)}")

    def _reread(self, daemon: Daemon, said_before: int, times: int) -> bool:
        """Send SIGHUP until the log has a line about it."""
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
        """Stop, and give up the port and the log; harmless when that is done."""
        self.stop()
        if self._port is not None:
            self._port.close()
            self._port = None
        self._folder = None
        self.realm.detach(self)

    def freeze(self) -> None:
        """Let remctld, its sessions and their commands stand still; connections stay open.

        Raises:
            ServerError: it is not running.
        """
        self._running_daemon().freeze()

    def thaw(self) -> None:
        """Let a frozen server go on; harmless otherwise."""
        if self._daemon is not None:
            self._daemon.thaw()

    # How it is run

    @property
    def _log_path(self) -> Path:
        assert self._folder is not None
        return self._folder / "log"

    def _running_daemon(self) -> Daemon:
        if self._daemon is None or not self._daemon.running:
            raise ServerError(f"{self!r} is not running: call start()")
        return self._daemon

    def _prepare(self) -> None:
        """Have a folder with the configuration, a port, and a socket that listens on it."""
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
        """Write remctl.conf, and the scripts that are in it; those of running commands stay."""
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
        # -m own process per connection, -F in the foreground, -S log to stdout; address and port
        # count only for a remctld that does not take the socket.
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
            False when it was to take our socket, but tried to bind one of its own.
        """
        write_private(self._pid_path, "")
        said_before = len(self.log)
        args = self._arguments(program)
        if handover:
            args = ["/bin/sh", "-c", _HANDOVER_SCRIPT, "sh", *args]
        stdin = self._listener.fileno() if handover and self._listener else subprocess.DEVNULL
        # What the backends of remctl_toolkit.backend have to log is then in the server's log.
        logs = {"REMCTL_BACKEND_LOG": str(self._log_path)}
        env = {**programs.tool_environ(), **self.realm.env, **logs, **self._extra_env}
        with open(self._log_path, "ab", opener=private) as output:
            self._daemon = self.realm.keeper.launch(args, output=output, env=env, stdin=stdin)
        # It writes the file when it has read its configuration and can accept connections. (A
        # connection would prove nothing: the socket listens without it.)
        if self._daemon.await_ready(lambda: self._pid_path.stat().st_size > 0, _START_TIMEOUT):
            return True
        if handover and not self._daemon.running and "cannot bind" in self.log[said_before:]:
            self._daemon.end()
            return False
        state = "is not ready" if self._daemon.running else f"ended: {self._daemon.returncode}"
        raise ServerError(f"remctld {state}: {self._tail(said_before)}")

    def _tail(self, start: int) -> str:
        """Return the last lines of the log, of those after some position."""
        return "\n".join(self.log[start:].splitlines()[-_LOG_TAIL:])

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _host_name(address: str, *, chosen: bool) -> str:
    """Return the name that clients connect to.

    Args:
        address: what the server is bound to.
        chosen: whether that is what the machine has, and not what somebody asked for.
    """
    if address == "127.0.0.1":
        return "localhost"
    if chosen:
        with contextlib.suppress(OSError):
            if address in {info[4][0] for info in socket.getaddrinfo("localhost", None)}:
                return "localhost"
    return address


def _write_script(path: Path, text: str) -> str:
    """Write an executable script; returns its path as text."""
    write_private(path, text if text.startswith("#!") else f"#!/bin/sh\n{text}\n", 0o700)
    return os.fspath(path)

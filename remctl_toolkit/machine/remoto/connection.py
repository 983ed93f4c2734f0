"""remoto's connections: to a host, to a container on it, to a pod."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self, Unpack

import remctl
from _remctl_text import printable

from ..base import connection as machine_connection
from ..base.accounts import connect, split_user
from ..base.connection import ConnectionSettings
from ..base.program import Program, python_arguments, python_payload
from ..call import Interpreter, RemoteCallError, RemoteFunction
from ..channel.channel import Channel
from ..process.target import Target, check_arguments
from .exc import as_host_not_found

if TYPE_CHECKING:
    import execnet

__all__ = [
    "Connection",
    "DockerConnection",
    "KubernetesConnection",
    "LocalConnection",
    "OpenshiftConnection",
    "PodmanConnection",
    "RemoteModule",
    "get",
]

_ENDS_WITHIN = 1.0  # seconds, for a gateway

log = logging.getLogger(__name__)


def logger_of(host: str) -> logging.Logger:
    """Return the logger named after a host; what it gets is shown, unless logging was set up."""
    logging.basicConfig()  # Does nothing if it was.
    logger = logging.getLogger(host)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.DEBUG)
    return logger


class Connection(Target):
    """A host, as remoto has it.

    Args:
        hostname: its name, or ``user@name`` for the account of a user, see
            `remctl_toolkit.machine.Machine`.  This host itself is reached like any other.
        logger: what has `debug` and `error`, at least; None is the one named after the host, which
            is shown if logging was not set up.
        sudo: whether commands, functions and gateways are root's, by ``sudo -n``.
        threads: does nothing, as in remoto.
        eager: connect at once, not when it is needed.
        detect_sudo: set `sudo` if the account is not root's.
        use_ssh: does nothing: it is never this process that does the work.
        interpreter: the Python of functions and gateways; None is the one of the connection.
        ssh_options: there is no ssh: a ValueError.
        settings: port, principal, python, shell, connect_timeout, ccache, source_ip, credentials,
            see `remctl_toolkit.machine.Connection`.

    Attributes:
        hostname, logger, sudo, interpreter: see above.
        global_timeout: the timeout of `run()` and `check()` without one, in seconds; None is never.
        remote_module: what `import_module()` returned last; None before that.
        remote_import_system: "legacy"; or "json", as of containers: there, a function that calls
            ``sys.exit(0)`` returns None.

    Raises:
        ValueError: `ssh_options` was given, or `hostname` is neither form of a name.
        UnknownUserError, RemctlError: see `remctl_toolkit.machine.Machine`.  If execnet is
            installed, each is its HostNotFound, too.
    """

    stop_on_timeout = False
    remote_import_system = "legacy"
    _usual_python: str | None = None  # None is the one of the connection

    def __init__(
        self,
        hostname: str,
        logger: Any = None,
        sudo: bool = False,
        threads: int = 1,
        eager: bool = True,
        detect_sudo: bool = False,
        use_ssh: bool = False,
        interpreter: str | None = None,
        ssh_options: str | None = None,
        **settings: Unpack[ConnectionSettings],
    ) -> None:
        if ssh_options is not None or hostname.startswith("-"):  # As "-F FILE HOST".
            text = "ssh_options: there is no ssh here; use port=, principal=, ccache=, source_ip="
            raise ValueError(text)
        check_arguments(settings, ConnectionSettings.__annotations__)
        self.hostname = hostname
        self._account = split_user(hostname)
        self.logger = logger_of(self._account[0]) if logger is None else logger
        self.sudo = sudo
        self.interpreter = interpreter
        self.remote_module: Any = None
        self._detect_sudo = detect_sudo
        self._settings = settings
        self._lock = threading.RLock()
        self._closing = contextlib.ExitStack()
        self._opened: machine_connection.Connection | None = None
        self._interpreters: dict[tuple[str, ...], Interpreter] = {}
        self._gateway: execnet.Gateway | None = None
        if eager:
            _ = self.connection

    @property
    def connection(self) -> machine_connection.Connection:
        """The connection; it is opened when it is first needed."""
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = connect(*self._account, **self._settings)
                except remctl.RemctlError as error:
                    as_host_not_found(error)
                    raise
                self._closing.callback(self._opened.close)
                if self._detect_sudo and self._opened.far.uid != 0:
                    self.logger.debug("connection detected need for sudo")
                    self.sudo = True
            return self._opened

    def has_connection(self) -> bool:
        """Whether the host is connected to, and answers."""
        if self._opened is None or self._opened.closed:
            return False
        try:
            with self._opened.session() as session:
                return session.noop()
        except remctl.RemctlError:
            return False

    # Functions.

    def _prefix(self) -> list[str]:
        """Return what runs a program in the place that this leads to."""
        return []

    def _python(self, interpreter: str | None) -> tuple[str, ...]:
        python = interpreter or self.interpreter or self._usual_python or self.connection.far.python
        sudo = ["sudo", "-n", "--"] if self.sudo else []
        return (*sudo, *self._prefix(), python)

    def import_module(self, module: ModuleType, python_executable: str | None = None) -> Any:
        """Return a module whose functions run on the host.

        The module need not have a loop over its channel; what there is of it does no harm.  An
        exception there is a RuntimeError with its type and text, and the next call works.

        Args:
            module: the module.
            python_executable: the Python to run them; None is that of the connection.

        Raises:
            See `Interpreter`.
        """
        words = self._python(python_executable)
        with self._lock:
            if words not in self._interpreters:
                self._interpreters[words] = _InterpreterBy(self.connection, words)
                self._closing.callback(self._interpreters[words].close)
            interpreter = self._interpreters[words]
        self.remote_module = RemoteModule(self, interpreter, module)
        return self.remote_module

    @property
    def gateway(self) -> execnet.Gateway:
        """A gateway of execnet, opened when it is first asked for."""
        import execnet

        from ..gateway import open_gateway

        with self._lock:
            if self._gateway is None:
                self._group = execnet.Group()
                words = self._python(None)
                self._gateway = open_gateway(self.connection, group=self._group, python=words)
                self._closing.callback(self._group.terminate, timeout=_ENDS_WITHIN)
            return self._gateway

    @property
    def group(self) -> execnet.Group:
        """The group of the gateway."""
        _ = self.gateway
        return self._group

    def execute(self, function: Any, **keywords: Any) -> execnet.Channel:
        """Run a function, whose first argument is a channel, or a text; return that channel."""
        return self.gateway.remote_exec(function, **keywords)

    # The end.

    def exit(self) -> None:
        """End what runs on the host for this, and close the connection."""
        with self._lock:
            self._interpreters = {}
            self._gateway = None
            self._closing.close()

    close = exit

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.exit()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.hostname}>"


class _InterpreterBy(Interpreter):
    """An interpreter that a command becomes, such as python3, or sudo."""

    def __init__(self, connection: machine_connection.Connection, words: tuple[str, ...]) -> None:
        self._words = words
        super().__init__(connection)

    def _start(self, program: Program) -> Channel:
        words = [*self._words, *python_arguments("call")]
        channel = Channel(self._connection, words, label="call")
        try:
            channel.write(python_payload(program.text()))
        except BaseException:
            channel.close()
            raise
        return channel


class RemoteModule:
    """A module whose functions run on the host, see `Connection.import_module()`."""

    def __init__(self, conn: Connection, interpreter: Interpreter, module: ModuleType) -> None:
        self._conn = conn
        self._module = interpreter.import_module(module)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: RemoteFunction[..., Any] = getattr(self._module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except RemoteCallError as error:
                exits = error.type_name == "SystemExit" and error.remote_args in ((), (0,), (None,))
                if exits and self._conn.remote_import_system == "json":
                    return None
                text = f"{error.type_name}: {error.message}" if error.message else error.type_name
                raise RuntimeError(printable(text)) from error

        return call


class LocalConnection(Connection):
    """This host itself, over remctl: it has to have the commands, as any other.

    Args:
        settings: see `Connection`; `hostname` is always localhost.  The server's principal is the
            one for that name, if `principal` does not say another.
    """

    def __init__(self, **settings: Any) -> None:
        settings.pop("hostname", None)
        super().__init__("localhost", **settings)


class _ContainerConnection(Connection):
    """Runs commands by a program on the host that leads to a container."""

    executable = ""
    remote_import_system = "json"
    _usual_python = "python3"

    def command_template(self) -> list[str]:
        """Return the command that runs a line of shell in the container, but for that line."""
        return [*self._prefix(), "/bin/sh", "-c"]

    def cmd(self, cmd: Any) -> list[Any]:
        """Return the command that runs `cmd` in the container."""
        words = [os.fsdecode(w) if isinstance(w, (bytes, os.PathLike)) else str(w) for w in cmd]
        return [*self.command_template(), shlex.join(words)]


class DockerConnection(_ContainerConnection):
    """A container of docker's on a host.

    The time limits of `run()` and `check()` end docker's client on the host; environment and
    folder are the client's, too.

    Args:
        hostname: the host; None is localhost.
        container_id, container_name: either says which container.
        user: who to be in it; None is its own way.
        settings: see `Connection`.

    Raises:
        TypeError: there is neither an id nor a name.
        See `Connection`.
    """

    executable = "docker"

    def __init__(
        self,
        hostname: str | None = None,
        container_id: str | None = None,
        container_name: str | None = None,
        user: str | None = None,
        **settings: Any,
    ) -> None:
        identifier = container_id or container_name
        if not identifier:
            raise TypeError("Either container_id or container_name must be provided")
        self.identifier = identifier
        self.user = user
        super().__init__(hostname or "localhost", **settings)

    def _prefix(self) -> list[str]:
        user = ["-u", self.user] if self.user else []
        return [self.executable, "exec", "-i", *user, self.identifier]


class PodmanConnection(DockerConnection):
    """A container of podman's on a host; see `DockerConnection`."""

    executable = "podman"


class KubernetesConnection(_ContainerConnection):
    """A pod, by kubectl on a host; see `DockerConnection` for what holds on the host.

    Args:
        pod_name: the pod.
        namespace, context: where it is; None is kubectl's own way.
        hostname: the host that has kubectl.
        settings: see `Connection`.
    """

    executable = "kubectl"

    def __init__(
        self,
        pod_name: str,
        namespace: str | None = None,
        context: str | None = None,
        hostname: str = "localhost",
        **settings: Any,
    ) -> None:
        self.pod_name = pod_name
        self.namespace = namespace
        self.context = context
        super().__init__(hostname, **settings)

    def _prefix(self) -> list[str]:
        context = ["--context", self.context] if self.context else []
        namespace = ["-n", self.namespace] if self.namespace else []
        return [self.executable, *context, "exec", "-i", *namespace, self.pod_name, "--"]


class OpenshiftConnection(KubernetesConnection):
    """A pod, by oc on a host; see `KubernetesConnection`."""

    executable = "oc"


_BY_NAME: dict[str, type[Connection]] = {
    "ssh": Connection,
    "remctl": Connection,
    "local": LocalConnection,
    "localhost": LocalConnection,
    "popen": LocalConnection,
    "docker": DockerConnection,
    "podman": PodmanConnection,
    "kubernetes": KubernetesConnection,
    "k8s": KubernetesConnection,
    "openshift": OpenshiftConnection,
    "oc": OpenshiftConnection,
}


def get(name: str | None = None, fallback: str | None = "ssh") -> type[Connection] | None:
    """Return the class of a kind of connection by its name: "ssh" is `Connection` here.

    Args:
        name: the name; None is "ssh".
        fallback: the name to take if there is no such kind; None returns None then.
    """
    wanted = (name or "ssh").strip().lower()
    if wanted not in _BY_NAME:
        log.warning('no connection backend found for: "%s"', wanted)
        if fallback:
            log.info('falling back to "%s"', fallback)
        return _BY_NAME.get(fallback or "")
    return _BY_NAME[wanted]

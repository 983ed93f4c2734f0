"""Machines of groups, and what is done on one of them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeAlias

from ...hosts import canonical_name
from ..base.connection import Connection
from ..base.errors import ClosedError
from ..base.program import Environment, Word
from ..files import transfer
from ..process.target import connection_of, defaults_of
from .result import ErrorResult

LocalPath: TypeAlias = "str | os.PathLike[str]"


class Member:
    """One host of groups: a machine, or a name and how to make a machine of it.

    It is connected to when that is needed, and again after `close()` if it was given by its name.

    Attributes:
        host: its name.
    """

    def __init__(self, host: str, factory: Callable[[str], Any] | None, machine: Any) -> None:
        self.host = host
        self.identity = canonical_name(host)
        self.error: ErrorResult | None = None  # why it could not be connected to
        self._factory = factory
        self._machine = machine
        self._interpreter: Any = None
        self._lock = threading.Lock()
        self._wanted = True

    def do(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call one of the methods below, and return its value, or an `ErrorResult`."""
        failure = None
        if self.error is None:
            try:
                return action(self, *args, **kwargs)
            except Exception as error:
                failure = ErrorResult(self.host, error)
        return self.error or failure

    def machine(self) -> Any:
        """Return the machine, connected to; what connecting raises is in `error`, too."""
        with self._lock:
            if self._machine is None:
                self._machine = self._connect()
                self.error = None
            return self._machine

    def connect(self) -> None:
        """Connect to it, unless that is done."""
        self.machine()

    @property
    def connected(self) -> bool:
        """Whether it was connected to, and not closed since."""
        return self._machine is not None and not getattr(self._machine, "closed", False)

    def _connect(self) -> Any:
        assert self._factory is not None
        self._wanted = True
        try:
            machine = self._factory(self.host)
        except Exception as error:
            self.error = ErrorResult(self.host, error)
            raise
        if not self._wanted:
            machine.close()
            raise ClosedError(f"the connection to {self.host} was closed")
        return machine

    def connection(self) -> Connection:
        """Return the connection of the machine."""
        return connection_of(self.machine())

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function there."""
        machine = self.machine()
        if isinstance(machine, Connection):
            from ..call import Interpreter

            with self._lock:
                if self._interpreter is None:
                    self._interpreter = Interpreter(machine)
                machine = self._interpreter
        return machine.call(function, *args, **kwargs)

    def run(
        self,
        argv: Iterable[Word],
        *,
        check: bool = False,
        cwd: Word | None = None,
        extend_env: Environment | None = None,
        **options: Any,
    ) -> Any:
        """Run a command; see `Group.run()`."""
        connection = self.connection()
        folder, changes = defaults_of(self.machine())
        cwd = folder if cwd is None else cwd
        changes = {**changes, **(extend_env or {})}
        result = connection.run(argv, cwd=cwd, extend_env=changes, **options)
        return result.check() if check else result

    def use(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function whose first argument is a connection."""
        return function(self.connection(), *args)

    def put(
        self, local_path: LocalPath, remote_path: Word | None = None, mode: int | None = None
    ) -> Any:
        """Copy one file there; see `transfer.put()`."""
        return transfer.put(self.connection(), local_path, remote_path, mode)

    def fetch(self, remote_path: Word, local_path: LocalPath | None = None) -> Any:
        """Copy one file from there; see `transfer.fetch()`, and `Group.fetch()`."""
        path = None if local_path is None else os.fspath(local_path)
        return self.copy_here(transfer.fetch, remote_path, path)

    def copy_here(self, function: Callable[..., Any], source: Word, template: str | None) -> Any:
        """Copy to a path in which ``{host}`` stands for the host; folders on the way are made."""
        path = template
        if template is not None and "{host}" in template:
            name = self.host.replace("/", "_")  # A host's name leads nowhere else.
            path = template.replace("{host}", f"_{name}" if name in (".", "..") else name)
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return function(self.connection(), source, path)

    def release(self) -> None:
        """Close what was opened on top of its connection."""
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            interpreter.close()

    def close(self) -> None:
        """Close it, even if it is at work, or being connected to."""
        self._wanted = False
        machine = self._machine
        if self._factory is not None:
            self._machine = None
        self.release()
        if machine is not None:
            machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r})"

    def give_up(self) -> None:
        """Close it: that ends what it waits for."""
        with contextlib.suppress(Exception):  # Another exception is on its way.
            self.close()


def as_member(host: Any, factory: Callable[[str], Any] | None) -> Member:
    """Return the member for a name or a machine; TypeError or ValueError if it is neither."""
    if isinstance(host, Member):
        return host
    if isinstance(host, str):
        return Member(host, factory, None)
    name = getattr(host, "host", None)
    if not isinstance(name, str) or not hasattr(host, "close"):
        raise TypeError(f"a host must be a name or a machine, not {host!r}")
    return Member(name, None, host)

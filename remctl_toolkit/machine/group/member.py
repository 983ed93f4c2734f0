"""Machines of groups, and what is done on one of them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ...hosts import canonical_name
from ..base.connection import Connection
from ..base.errors import ClosedError
from ..base.program import Environment, Word
from ..process.target import defaults_of
from .result import ErrorResult


class Member:
    """A machine, or a host's name and how to make a machine of it.

    Attributes:
        host: the name.
        identity: the canonical name, by which members are compared.
        error: why it could not be connected to; None if that did not fail.
    """

    def __init__(self, host: str, factory: Callable[[str], Any] | None, machine: Any) -> None:
        self.host = host
        self.identity = canonical_name(host)
        self.error: ErrorResult | None = None
        self._factory = factory
        self._machine = machine
        self._interpreter: Any = None
        self._lock = threading.Lock()
        self._wanted = True

    def do(self, action: Callable[[Member], Any]) -> Any:
        """Do something unless it could not be connected to; return the value or the error."""
        failure = None
        if self.error is None:
            try:
                return action(self)
            except Exception as error:
                failure = ErrorResult(self.host, error)
        return self.error or failure

    def machine(self) -> Any:
        """Return the machine, connected to.

        Raises:
            Exception: what connecting raises; it is in `error`, too.
        """
        with self._lock:
            if self._machine is None:
                self._machine = self._connect()
            return self._machine

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
        machine = self.machine()
        return machine if isinstance(machine, Connection) else machine.connection

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function there."""
        machine = self.machine()
        if isinstance(machine, Connection):
            from ..call.interpreter import Interpreter

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

    def place(self, template: str) -> str:
        """Return a path here that has ``{host}`` in it, for this host, whose name leads nowhere.

        Folders on the way are made.
        """
        if "{host}" not in template:
            return template
        name = self.host.replace("/", "_")
        path = template.replace("{host}", f"_{name}" if name in (".", "..") else name)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return path

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

    def give_up(self) -> None:
        """Close it: that ends what it waits for."""
        with contextlib.suppress(Exception):  # Another exception is on its way.
            self.close()


def as_member(host: Any, factory: Callable[[str], Any] | None) -> Member:
    """Return the member for a name or a machine.

    Raises:
        TypeError, ValueError: it is neither.
    """
    if isinstance(host, str):
        return Member(host, factory, None)
    name = getattr(host, "host", None)
    if not isinstance(name, str) or not hasattr(host, "close"):
        raise TypeError(f"a host must be a name or a machine, not {host!r}")
    return Member(name, None, host)

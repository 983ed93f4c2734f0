"""Machines of groups, and the jobs that they do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...hosts import canonical_name
from ..base.connection import Connection
from ..base.errors import ClosedError
from .result import AsyncResult, ErrorResult


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
        if isinstance(machine, Connection):
            return machine
        connection: Connection = machine.connection
        return connection

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function over there."""
        machine = self.machine()
        if not isinstance(machine, Connection):
            return machine.call(function, *args, **kwargs)
        from ..call.interpreter import Interpreter

        with self._lock:
            if self._interpreter is None:
                self._interpreter = Interpreter(machine)
            interpreter = self._interpreter
        return interpreter.call(function, *args, **kwargs)

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


@dataclass
class Job:
    """Something to do on one machine.

    Attributes:
        connecting: whether it is passed over if the machine failed to connect.
    """

    member: Member
    action: Callable[[Member], Any]
    result: AsyncResult
    connecting: bool

    def run(self) -> Any:
        """Do it, and return the value or the error."""
        try:
            if self.connecting and self.member.error is not None:
                return self.member.error
            return self.action(self.member)
        except Exception as error:
            # The same one for what comes later.
            return self.member.error or ErrorResult(self.member.host, error)

    def give_up(self) -> None:
        """Close the connection: that ends what it waits for."""
        with contextlib.suppress(Exception):  # Another exception is on its way.
            self.member.close()

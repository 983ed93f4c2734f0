"""Results of group operations."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from ...schedule import HostsError, raise_failures
from ..base.errors import MachineError

GroupError = HostsError


class NotCompletedError(MachineError):
    """There is no value yet: the queue was not run so far."""


@dataclass(frozen=True)
class ErrorResult:
    """What a machine has in a result if there is no value.

    Attributes:
        host: its name.
        error: the exception.
    """

    host: str
    error: Exception

    @property
    def traceback(self) -> str:
        """The exception with all that led to it, as text."""
        return "".join(traceback.format_exception(self.error))

    def __str__(self) -> str:
        return f"{self.host}: {str(self.error) or type(self.error).__name__}"


class GroupResult(dict[str, Any]):
    """Results of all hosts of a group: a value each, or an `ErrorResult`."""

    def successful(self) -> GroupResult:
        """Return the values."""
        return GroupResult((h, v) for h, v in self.items() if not isinstance(v, ErrorResult))

    def failures(self) -> GroupResult:
        """Return the errors."""
        return GroupResult((h, v) for h, v in self.items() if isinstance(v, ErrorResult))

    def raise_failures(self) -> Self:
        """Return this if there are no errors.

        Raises:
            GroupError: there are; it has them all.
        """
        failures = [(host, failure.error) for host, failure in self.failures().items()]
        raise_failures(failures, len(self))
        return self


class AsyncResult:
    """The result of something in a `Queue`, once that was run."""

    def __init__(self, hosts: list[str], *, group: bool) -> None:
        self._left = set(hosts)
        self._group = group
        self._found = GroupResult(dict.fromkeys(hosts))
        self._callbacks: list[Callable[[Any], object]] = []

    @property
    def completed(self) -> bool:
        """Whether there is a value."""
        return not self._left

    @property
    def value(self) -> Any:
        """The value of a machine, or an `ErrorResult`; of a group, a `GroupResult`.

        Raises:
            NotCompletedError: there is none yet.
        """
        if self._left:
            raise NotCompletedError("there is no value yet: run the queue")
        return self._found if self._group else next(iter(self._found.values()))

    def with_callback(self, callback: Callable[[Any], object]) -> Self:
        """Have a function called with the value when it is there.

        The thread that runs the queue calls it; it may add to the queue.  If the value is there,
        it is called at once.
        """
        if self.completed:
            callback(self.value)
        else:
            self._callbacks.append(callback)
        return self

    def take(self, host: str, value: Any) -> None:
        """Take the value of one host."""
        self._found[host] = value
        self._left.discard(host)
        if not self._left:
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback(self.value)

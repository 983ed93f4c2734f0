"""Results of group operations."""

from __future__ import annotations

import textwrap
import traceback
from dataclasses import dataclass
from typing import Any, Self

from _remctl_text import printable

from ...schedule import HostsError, raise_failures

GroupError = HostsError


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

    @property
    def tb(self) -> str | None:
        """The traceback from the machine, if a function raised the exception there."""
        return getattr(self.error, "remote_traceback", None)

    @property
    def msg(self) -> str:
        """The exception's text, and `tb` below it."""
        text = str(self.error) or type(self.error).__name__
        more = textwrap.indent(printable(self.tb or "", lines=True), "    ")
        return f"{text}\n\n{more}" if more else text

    def __str__(self) -> str:
        return f"{self.host}: {str(self.error) or type(self.error).__name__}"


class GroupResult(dict[str, Any]):
    """Results of all hosts of a group: a value each, or an `ErrorResult`."""

    def successful(self) -> list[tuple[str, Any]]:
        """Return the hosts that have values, each with its value."""
        return [(h, v) for h, v in self.items() if not isinstance(v, ErrorResult)]

    def failures(self) -> list[tuple[str, ErrorResult]]:
        """Return the hosts that have errors, each with its error."""
        return [(h, v) for h, v in self.items() if isinstance(v, ErrorResult)]

    iteritems = dict[str, Any].items  # chopsticks' programs were written for Python 2, too.

    def raise_failures(self) -> Self:
        """Return this if there are no errors.

        Raises:
            GroupError: there are; it has them all.
        """
        failures = [(host, failure.error) for host, failure in self.failures()]
        raise_failures(failures, len(self))
        return self

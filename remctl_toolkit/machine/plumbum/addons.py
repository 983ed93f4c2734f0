"""What plumbum asks of a command that runs, beyond what subprocess.Popen has."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, Self

from plumbum.commands.processes import ProcessTimedOut, iter_lines
from plumbum.machines.base import PopenAddons

from ..base.connection import Connection
from .errors import ProcessExecutionError
from .lines import read_lines


class Addons(PopenAddons):  # type: ignore[misc]
    """The part of a command that plumbum's modifiers and its verdict use."""

    argv: list[str]
    returncode: int | None
    _connection: Connection

    @property
    def _proc(self) -> Self:
        return self

    @property
    def machine(self) -> str:
        """Where it runs, as plumbum's exceptions say it."""
        return self._connection.host

    def verify(
        self,
        retcode: int | Container[int] | None,
        timeout: float | None,
        stdout: str | bytes,
        stderr: str | bytes,
    ) -> None:
        """Raise plumbum's exceptions for what took too long, or has another exit status.

        Raises:
            ProcessTimedOut: it was ended after `timeout` seconds.
            ProcessExecutionError: its status is none of `retcode`.
        """
        if getattr(self, "_timed_out", False):
            text = f"Process did not terminate within {timeout} seconds"
            raise ProcessTimedOut(text, self.argv)
        if retcode is None:
            return
        expected = retcode if isinstance(retcode, Container) else (retcode,)
        if self.returncode not in expected:
            host = self._connection.host
            raise ProcessExecutionError(self.argv, self.returncode, stdout, stderr, host=host)

    def iter_lines(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Iterate over lines of output as they come; see plumbum's function for the arguments."""
        lines: Iterator[Any] = iter_lines(self, *args, _iter_lines=read_lines, **kwargs)
        return lines

    def __iter__(self) -> Iterator[Any]:
        return self.iter_lines()

"""Commands of a machine for plumbum, and their words."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

from plumbum.commands import BaseCommand, base
from plumbum.machines.remote import RemoteCommand

Intent: TypeAlias = Literal["input", "no input", "whole"]

intent: ContextVar[Intent] = ContextVar("intent", default="input")
"""The reason why plumbum calls popen(): "input" if the command needs a pipe, "no input" for a
modifier (``& BG``), "whole" if communicate() follows, without input.
"""

_MAKING = (
    *("bound_command", "with_env", "setenv", "with_cwd", "__or__", "__gt__", "__rshift__"),
    *("__ge__", "__lt__", "__lshift__"),
)


class _Whole(BaseCommand):  # type: ignore[misc]
    """Set the intent of popen() for our commands, and for commands made from them."""

    __slots__ = ()

    def run(self, args: Sequence[Any] = (), **kwargs: Any) -> tuple[int, str, str]:
        """Run the command to its end; see plumbum's method."""
        token = intent.set("whole")
        try:
            result: tuple[int, str, str] = super().run(args, **kwargs)
        finally:
            intent.reset(token)
        return result

    def __and__(self, modifier: Any) -> Any:
        """Run the command with a modifier of plumbum, without input, as in a shell."""
        if not hasattr(modifier, "__rand__"):
            return NotImplemented
        has_input = "stdin" in getattr(modifier, "kargs", ())
        token = intent.set("input" if has_input else "no input")
        try:
            return modifier.__rand__(self)
        finally:
            intent.reset(token)


_OURS: dict[type, type] = {
    kind: type(kind.__name__, (_Whole, kind), {"__slots__": (), "__doc__": kind.__doc__})
    for kind in (
        base.AppendingStdoutRedirection,
        base.BoundCommand,
        base.BoundEnvCommand,
        base.Pipeline,
        base.StderrRedirection,
        base.StdinDataRedirection,
        base.StdinRedirection,
        base.StdoutRedirection,
    )
}


def _making_ours(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of plumbum that makes a command, so that it makes one of ours."""

    @functools.wraps(method)
    def make(*args: Any, **kwargs: Any) -> Any:
        made = method(*args, **kwargs)
        made.__class__ = _OURS.get(type(made), type(made))
        return made

    return make


for _name in _MAKING:
    setattr(_Whole, _name, _making_ours(getattr(BaseCommand, _name)))


class MachineCommand(_Whole, RemoteCommand):  # type: ignore[misc]
    """A program of a machine.  Arguments may also be octets, for names that are not UTF-8."""

    __slots__ = ()

    def formulate(self, level: int = 0, args: Sequence[Any] = ()) -> list[str]:
        """Return the command's words; see plumbum."""
        words: list[str] = super().formulate(level, [_as_text(word) for word in args])
        return words


def _as_text(word: Any) -> Any:
    if isinstance(word, list | tuple):
        return [_as_text(one) for one in word]
    return os.fsdecode(word) if isinstance(word, bytes) else word


class Words:
    """The words of a command, with the environment, working directory and encoding bound to it.

    The command may also be a list of words, or a string for the shell.
    """

    def __init__(self, command: BaseCommand | Sequence[Any] | str) -> None:
        self.env: dict[str, str] = {}
        self.cwd: str | None = None
        self.encoding: str | None = "auto"
        if isinstance(command, BaseCommand):
            self.encoding = command._get_encoding()
            self.argv = self._unwrap(command)
        elif isinstance(command, str):
            self.argv = ["/bin/sh", "-c", command]  # as ssh does
        else:
            self.argv = [_as_text(word) for word in command]

    def _unwrap(self, command: BaseCommand) -> list[Any]:
        args: list[Any] = []
        outer: BaseCommand = command
        while isinstance(outer, base.BoundCommand | base.BoundEnvCommand):
            if isinstance(outer, base.BoundCommand):
                args = [*outer.args, *args]
            else:
                self.env = {**outer.env, **self.env}
                self.cwd = outer.cwd if self.cwd is None else self.cwd
            outer = outer.cmd
        if isinstance(outer, RemoteCommand):
            # Level 0 quotes nothing; nested commands are quoted once for each level.
            words: list[Any] = outer.formulate(0, args)
            return words
        return ["/bin/sh", "-c", " ".join(command.formulate(1))]

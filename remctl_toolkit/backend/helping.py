"""Make the texts of help and summary from docstrings and signatures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from .command import Command
from .commands import Group, Root
from .errors import DeniedError, UsageError, quoted
from .parameters import Parameter
from .values import word_of

__all__ = ["help_text", "summary_text", "usage"]

_WIDTH = 80
_WIDEST_USAGE = 48  # columns; after a longer usage, the summary goes on the next line


def summary_text(
    backend: Root, asked: Sequence[str], is_permitted: Callable[[Command], bool]
) -> str:
    """Return a line for each command: its usage and the first line of its docstring.

    Args:
        backend: the backend.
        asked: the subcommand, if remctld asks for one line of its configuration; or nothing.
        is_permitted: returns whether the caller may run a command; others are omitted.

    Raises:
        UsageError: there is no such subcommand.
        DeniedError: the caller may not run it.
    """
    member = _member(backend, asked, is_permitted)
    if isinstance(member, Command):
        return _table(backend, [member])
    shown = [each for each in member.commands() if not each.hidden and is_permitted(each)]
    return _table(backend, shown)


def help_text(backend: Root, asked: Sequence[str], is_permitted: Callable[[Command], bool]) -> str:
    """Return the full help of a command, or the list of commands in a group.

    Args:
        backend, asked, is_permitted: see summary_text().

    Raises:
        UsageError, DeniedError: see summary_text().
    """
    member = _member(backend, asked, is_permitted)
    if isinstance(member, Command):
        return _explained(backend, member)
    about = f"{textwrap.dedent(member.about).strip()}\n\n" if member.about else ""
    return about + summary_text(backend, asked, is_permitted)


def usage(backend: Root, command: Command) -> str:
    """Return the usage of a command."""
    words = [backend.name, *command.path]
    words += [_option_usage(p) for p in command.shown if p.is_option]
    words += [_argument_usage(p) for p in command.shown if not p.is_option]
    return " ".join(words)


def _member(
    backend: Root, asked: Sequence[str], is_permitted: Callable[[Command], bool]
) -> Command | Group:
    member: Command | Group = backend
    for name in asked:
        found = member.members.get(name) if isinstance(member, Group) else None
        if found is None:
            raise UsageError(f"unknown subcommand: {quoted(' '.join(asked))}")
        member = found
    if isinstance(member, Command) and not is_permitted(member):
        raise DeniedError("not allowed")
    return member


def _option_usage(parameter: Parameter) -> str:
    text = _with_value(parameter)
    dots = "..." if parameter.many else ""
    return f"{text}{dots}" if parameter.required else f"[{text}]{dots}"


def _with_value(parameter: Parameter) -> str:
    return "=".join(filter(None, (parameter.label, parameter.value_label)))


def _argument_usage(parameter: Parameter) -> str:
    text = f"{parameter.label}..." if parameter.many else parameter.label
    return text if parameter.required else f"[{text}]"


def _first_line(command: Command) -> str:
    lines = command.doc.strip().splitlines()
    return lines[0].strip() if lines else ""


def _table(backend: Root, commands: Sequence[Command]) -> str:
    usages = [usage(backend, command) for command in commands]
    short = [len(text) for text in usages if len(text) <= _WIDEST_USAGE]
    column = max(short, default=_WIDEST_USAGE // 2) + 2
    lines = []
    for text, command in zip(usages, commands, strict=True):
        summary = _first_line(command)
        start = text.ljust(column)
        if summary and len(text) > column - 2:
            lines.append(text)
            start = " " * column
        indent = " " * column
        wrapped = textwrap.wrap(summary, _WIDTH, initial_indent=start, subsequent_indent=indent)
        lines += wrapped or [text]
    return "".join(f"{line}\n" for line in lines)


def _explained(backend: Root, command: Command) -> str:
    parts = [f"usage: {usage(backend, command)}"]
    first, _, rest = command.doc.strip().partition("\n")
    if first:
        parts.append(f"{first.strip()}\n{textwrap.dedent(rest)}".strip())
    about = [line for p in command.shown for line in _about(p)]
    if about:
        parts.append("\n".join(about))
    if command.stdin is not None:
        parts.append(f"{command.stdin.strip('_').upper()} may be of any size.")
    return "\n\n".join(parts) + "\n"


def _about(parameter: Parameter) -> list[str]:
    """Return the help line of a parameter, or nothing if it has no description."""
    facts = [parameter.about] if parameter.about else []
    if parameter.type.choices:
        facts.append(f"one of {', '.join(parameter.type.choices)}")
    default = "" if parameter.kind == "count" else _default(parameter.default)
    if default and not parameter.required:
        facts.append(f"default {default}")
    if not parameter.is_option:
        return [f"  {parameter.label}  {'; '.join(facts)}"] if facts else []
    names = ", ".join([*(f"-{letter}" for letter in parameter.type.shorts), _with_value(parameter)])
    return [f"  {names}  {'; '.join(facts)}".rstrip()]


def _default(value: Any) -> str:
    """Return a default as the caller would write it; "" if it need not be shown."""
    if value is None or isinstance(value, bool) or repr(value) == object.__repr__(value):
        return ""
    if isinstance(value, dict):
        return " ".join(f"{key}={_default(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_default(inner) for inner in value)
    return word_of(value)

"""Generate the lines of remctl.conf for a backend, and compare an existing file with them."""

from __future__ import annotations

import getopt
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _remctl_text import printable

from .acl import entries_of, joined
from .command import Command
from .commands import Group, Root
from .errors import CommandError, UsageError

__all__ = ["Line", "differences", "lines", "main", "read", "rules"]

_OPTIONS = ("stdin", "logmask", "summary", "help")  # the options that a backend declares
_ALL_OPTIONS = (*_OPTIONS, "sudo", "user")
_OPTION = re.compile(r"([A-Za-z][A-Za-z0-9-]*)=(.+)", re.DOTALL)
_NUMBER = re.compile(r"\+?0*[1-9][0-9]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]*")  # of an included file
_WHITE = " \t\r\v\f"


class Line(NamedTuple):
    """A line of remctl.conf.

    Attributes:
        file, number: path of the file, and line number.
        command, subcommand, program: its first words.
        options: values of its options, by name.
        acl: the remaining words.
    """

    file: str
    number: int
    command: str
    subcommand: str
    program: str
    options: dict[str, str]
    acl: tuple[str, ...]

    def serves(self, command: str, subcommand: str) -> bool:
        """Report whether the line matches this command; remctld uses the first that does."""
        return self.command in ("ALL", command) and self.subcommand in ("ALL", subcommand)


# -- The declaration ------------------------------------------------------------------------------


def rules(backend: Root) -> list[dict[str, Any]]:
    """Return the lines as keyword arguments, without the program: see Backend.rules()."""
    found = [_rule(backend, name, member) for name, member in backend.members.items()]
    everybody = backend.acl or joined(command.acl for command in backend.commands())
    # The first for `remctl HOST NAME help`, the second for `remctl HOST help NAME`.
    found.append({"name": backend.name, "subcommand": "help", "acl": everybody})
    if "" not in backend.members:
        found.append(
            {"name": backend.name, "subcommand": "EMPTY", "help": "help", "acl": everybody}
        )
    return found


def _rule(backend: Root, name: str, member: Command | Group) -> dict[str, Any]:
    commands = list(member.commands()) if isinstance(member, Group) else [member]
    stdin: int | str | None = None
    masked: set[int] = set()
    for command in commands:
        stdin = stdin if command.stdin_place is None else command.stdin_place
        masked |= {*command.masked_places}
    rule: dict[str, Any] = {"name": backend.name, "subcommand": name or "EMPTY"}
    if stdin is not None:
        rule["stdin"] = stdin
    if masked:
        rule["logmask"] = tuple(sorted(masked))
    # The line for EMPTY needs no summary=: the lines of all commands have it.
    if name and not all(command.hidden for command in commands):
        rule["summary"] = "summary"
    # A group's line serves all its commands: the backend then says who may not run one of them.
    return {**rule, "help": "help", "acl": joined(command.acl for command in commands)}


def lines(backend: Root, program: str, acl: Sequence[str] = ()) -> list[Line]:
    """Return the lines for a backend.

    Args:
        backend: the backend.
        program: full path of the program that remctld runs.
        acl: entries for commands that declare no ACL.

    Raises:
        UsageError: the path or the ACL cannot be written in remctl.conf.
    """
    if program.split() != [program]:
        raise UsageError(f"a path with white space cannot be written in remctl.conf: {program}")
    try:
        given = entries_of(acl or None, "config")
    except ValueError as error:
        raise UsageError(str(error)) from error
    found = []
    for number, rule in enumerate(rules(backend), 1):
        words = tuple(rule["acl"]) or given
        options = {name: _as_word(rule[name]) for name in _OPTIONS if name in rule}
        name, subcommand = rule["name"], rule["subcommand"]
        found.append(Line("", number, name, subcommand, program, options, words))
    return found


def _as_word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# -- An existing file -----------------------------------------------------------------------------


def read(path: Path) -> Iterator[Line]:
    """Read a configuration file as remctld does: continued lines, comments and includes.

    Raises:
        OSError: the file cannot be read.
        CommandError: remctld would refuse the file (status 78).
    """
    return _read(path, ())


def _read(path: Path, outer: tuple[Path, ...]) -> Iterator[Line]:
    """Read a file that the files in `outer` include."""
    if path in outer:
        raise _refused(path, 1, "the file includes itself")
    *texts, rest = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    pending, start = "", 0
    for number, text in enumerate(texts, 1):
        start = start if pending else number
        pending += text
        if len(pending) > 1 and pending.endswith("\\"):
            pending = pending[:-1]
            continue
        line, pending = pending, ""
        if not line.strip(_WHITE) or line.lstrip(_WHITE).startswith("#"):
            continue
        # Only these two separate words.
        words = [word for word in line.replace("\t", " ").split(" ") if word]
        if len(words) == 2 and words[0] == "include":
            for included in _files(Path(words[1])):
                yield from _read(included, (*outer, path))
        else:
            yield _line(path, start, words)
    if pending or len(rest) > 1:
        raise _refused(path, len(texts) + 1, "the last line has no newline")


def _refused(path: Path, number: int, why: str) -> CommandError:
    message = f"{path}:{number}: remctld cannot read this line: {why}"
    return CommandError(message, status=os.EX_CONFIG)


def _files(path: Path) -> list[Path]:
    """Return the files that a path includes."""
    if not path.is_dir():
        return [path]
    # It takes them in no particular order.
    return [p for p in sorted(path.iterdir()) if _PLAIN_NAME.fullmatch(p.name) and not p.is_dir()]


def _line(path: Path, number: int, words: Sequence[str]) -> Line:
    options = {}
    place = 3
    while place < len(words) and (found := _OPTION.fullmatch(words[place])):
        name, value = found.groups()
        values = value.split(",") if name == "logmask" else [value]
        is_number = name in ("logmask", "stdin") and value != "last"
        if name not in _ALL_OPTIONS or (is_number and not all(map(_NUMBER.fullmatch, values))):
            raise _refused(path, number, words[place])
        options[name] = value
        place += 1
    if place >= len(words):
        raise _refused(path, number, "it has no ACL" if place > 3 else "words are missing")
    command, subcommand, program = words[:3]
    return Line(str(path), number, command, subcommand, program, options, tuple(words[place:]))


# -- Comparing ------------------------------------------------------------------------------------


def differences(backend: Root, file: str | os.PathLike[str], program: str | None) -> list[str]:
    """Return the differences, in sentences: see Backend.check()."""
    declared = lines(backend, program or "/")
    found = list(read(Path(file)))
    said = []
    # These lines are for help only, which a site need not offer.
    optional = {"help"} if "" in backend.members else {"help", "EMPTY"}
    for line in declared:
        words = f"{line.command} {line.subcommand}"
        serving = next((f for f in found if f.serves(line.command, line.subcommand)), None)
        if serving is None:
            if line.subcommand in optional:
                continue
            said.append(f"{os.fspath(file)}: {words}: no line serves this command")
            continue
        place = f"{serving.file}:{serving.number}: {words}"
        said += [f"{place}: {text}" for text in _compare(line, serving)]
        if program and os.path.realpath(serving.program) != os.path.realpath(program):
            said.append(f"{place}: the line runs {serving.program}, not {program}")
    known = {line.subcommand for line in declared} | {"ALL"}
    said += [
        f"{line.file}:{line.number}: {line.command} {line.subcommand}: no such subcommand"
        for line in found
        if line.command == backend.name and line.subcommand not in known
    ]
    return [printable(text) for text in said]


def _compare(declared: Line, found: Line) -> Iterator[str]:
    for name in _OPTIONS:
        want, have = declared.options.get(name), found.options.get(name)
        if name == "logmask" and want and have and set(want.split(",")) == set(have.split(",")):
            continue
        # A site need not offer help, and a line that serves more commands may offer it.
        if name in ("summary", "help") and None in (want, have):
            continue
        if want != have:
            has = f"it has {name}={have}" if have else f"it has no {name}="
            yield f"{has}, but {f'{name}={want}' if want else 'none'} is declared"
    if declared.acl and found.acl != declared.acl:
        yield f"its ACL is {' '.join(found.acl)}, but {' '.join(declared.acl)} is declared"


# -- For the administrator ------------------------------------------------------------------------


def main(backend: Root, write: Callable[[str], object], word: str, args: Sequence[str]) -> int:
    """Do ``config [--program=PATH] [ACL...]`` or ``check [--program=PATH] FILE``.

    Args:
        backend: the backend.
        write: called with each line of the output.
        word: ``config`` or ``check``.
        args: the words after it.

    Returns:
        The exit status.

    Raises:
        CommandError: the arguments are wrong, or the file cannot be read or is malformed.
    """
    try:
        options, rest = getopt.getopt(list(args), "", ["program="])
    except getopt.GetoptError as error:
        raise UsageError(error.msg) from None
    program = dict(options).get("--program") or os.path.abspath(sys.argv[0])
    if word == "config":
        return _config(backend, write, program, rest)
    if len(rest) != 1:
        raise UsageError("check needs the path of a configuration file")
    return _check(backend, write, program, rest[0])


def _config(backend: Root, write: Callable[[str], object], program: str, acl: Sequence[str]) -> int:
    for line in lines(backend, program, acl):
        if not line.acl:
            message = f"{line.subcommand} has no ACL: declare acl=, or add one after config"
            raise UsageError(message)
        options = [f"{name}={value}" for name, value in line.options.items()]
        write(" ".join([*line[2:5], *options, *line.acl]))
    return 0


def _check(backend: Root, write: Callable[[str], object], program: str, file: str) -> int:
    try:
        said = differences(backend, file, program)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        raise CommandError(message, status=os.EX_NOINPUT) from None
    for text in said:
        write(text)
    if not said:
        write(f"{file}: as declared")
    return 1 if said else 0

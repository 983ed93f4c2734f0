"""Parse the command line of remctl-fleet and its default options."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from typing import Any

from . import mistakes
from .defaults import Source, sources
from .option_table import (
    COMMAND,
    CONNECT_TIMEOUT,
    DESCRIPTION,
    EXAMPLES,
    NOTES,
    build,
    parser,
)

__all__ = [
    "COMMAND",
    "CONNECT_TIMEOUT",
    "DESCRIPTION",
    "EXAMPLES",
    "NOTES",
    "given_options",
    "parse",
    "parser",
    "split",
    "valued_options",
    "wants_value",
]

# Options that choose hosts, need a user at the terminal, write to a file, or do something other
# than run a command.
_NO_DEFAULTS = {
    *("hosts", "command", "hosts_file", "srv", "exclude", "exclude_file", "pick", "any"),
    "dry_run",
    *("stdin", "ask_secret", "failed_to", "outdir", "errdir"),
    *("shell", "print_completion", "no_defaults", "help", "version"),
}

_CHOOSE_HOSTS = {"hosts", "command", "hosts_file", "srv", "exclude", "exclude_file", "pick"}

_VIEWS = {"gather", "diff", "live", "json"}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; ``hosts`` is a pattern or None, and ``command`` a list of words.

    Raises:
        SystemExit: for ``--help``, ``--version`` and wrong usage, as argparse does.
    """
    built, valued = build()
    words, hosts, command, dashes = _split(argv, valued)
    mistakes.check_options(built, words, valued)
    mistakes.check_command(built, hosts, command, dashes=dashes)
    options = built.parse_args(words)
    given = _given(words)
    if not options.no_defaults:
        for found in (*map(_defaults, sources()), given):
            if found.keys() & _VIEWS:  # A view replaces one from an earlier place.
                vars(options).update(dict.fromkeys(_VIEWS, False))
            vars(options).update(found)
    mistakes.check_values(built, options)
    options.hosts, options.command, options.given = hosts, command, given
    if options.connect_timeout is None and options.timeout is None:
        options.connect_timeout = CONNECT_TIMEOUT
    options.connect_timeout = options.connect_timeout or None  # 0 is never, as elsewhere.
    if options.shell:
        _check_shell(built, options)
    elif not options.print_completion:
        _check_command(built, options, dashes=dashes)
    return options


def given_options(options: argparse.Namespace) -> list[str]:
    """Return the options of the command line as words, without those that choose hosts."""
    words = []
    for action in parser()._actions:  # argparse has no other way to them
        if action.dest not in options.given or action.dest in _CHOOSE_HOSTS:
            continue
        name, given = action.option_strings[-1], options.given[action.dest]
        for value in given if isinstance(given, list) else [given]:
            words += [name] if action.nargs == 0 else _given_value(name, value)
    return words


def _given_value(name: str, value: object) -> list[str]:
    whole = isinstance(value, float) and value.is_integer()
    text = f"{value:.0f}" if whole else str(value)
    return [f"{name}={text}"] if text.startswith("-") else [name, text]


def _given(words: Sequence[str], where: str = "") -> dict[str, Any]:
    """Return only the options that the words contain, without argparse's defaults."""
    built, _ = build()
    built.where = where
    for action in built._actions:  # argparse has no other way to them
        action.default = argparse.SUPPRESS
    return vars(built.parse_args(words))


def _defaults(source: Source) -> dict[str, Any]:
    """Return the default options in a file or in the environment.

    Raises:
        SystemExit: an option is wrong, or is not allowed as a default.
    """
    found: dict[str, Any] = {}
    built, valued = build()
    for where, words in source:
        built.where = f"{where}: "
        options, hosts, command, dashes = _split(words, valued)
        if {"-h", "--help", "-v", "--version"}.intersection(options):  # argparse would exit.
            built.error("--help and --version cannot be defaults")
        if any(_has_letters(word, valued) for word in options):
            built.error("write each option as a separate word")
        mistakes.check_options(built, options, valued)
        given = _given(options, f"{where}: ")
        if hosts is not None or command or dashes:
            built.error("only options can be defaults, not hosts or a command")
        for action in built._actions:
            if action.dest in given and action.dest in _NO_DEFAULTS:
                built.error(f"{action.option_strings[-1]} cannot be a default")
        found.update(given)
    return found


def _check_shell(built: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.command:
        built.error("--shell prompts for commands: give none, and put commas between hosts")
    if options.hosts is None and not options.hosts_file and not options.srv:
        built.error("--shell: no hosts: name them after it")
    others = ("stdin", "ask_secret", "dry_run", "any", "failed_to", "outdir", "errdir")
    if found := [name for name in others if getattr(options, name)]:
        built.error(f"--shell cannot be used with --{found[0].replace('_', '-')}")
    if "-" in (*options.hosts_file, *options.exclude_file):
        built.error("--shell reads commands from standard input, so it cannot be a list of hosts")


def _check_command(
    built: argparse.ArgumentParser, options: argparse.Namespace, *, dashes: bool
) -> None:
    listed = bool(options.hosts_file or options.srv)
    if listed and not dashes:
        built.error("with --hosts-file or --srv, the command goes after --")
    if options.hosts is None and not listed:
        built.error("no hosts: name them before the command")
    if not options.command:
        built.error("no command: it goes after the hosts, or after --")
    files = [*options.hosts_file, *options.exclude_file]
    if options.any and (options.gather or options.live or options.diff):
        built.error("--any runs on one host: it cannot be used with --gather, --live or --diff")
    if options.stdin and "-" in files:
        built.error("standard input cannot be both the list of hosts and the command's input")
    if files.count("-") > 1:
        built.error("standard input can be read only once: use - for one file only")


def split(argv: Sequence[str]) -> tuple[list[str], str | None, list[str], bool]:
    """Split arguments into options, hosts and command; the last value is True if ``--`` is there.

    Options may stand before the hosts and, as people append them, between the hosts and ``--``.
    Everything after the command's name belongs to the command, as with remctl(1).
    """
    return _split(argv, valued_options())


def valued_options() -> set[str]:
    """Return the names of the options that take a value."""
    return build()[1]


def _split(argv: Sequence[str], valued: set[str]) -> tuple[list[str], str | None, list[str], bool]:
    options: list[str] = []
    hosts = None
    rest = deque(argv)
    while rest:
        word = rest.popleft()
        if word == "--":
            return options, hosts, list(rest), True
        if not word.startswith("-") or word == "-":
            if hosts is not None:
                return options, hosts, [word, *rest], False
            hosts = word
            continue
        options.append(word)
        if rest and wants_value(word, valued):
            options.append(rest.popleft())
    return options, hosts, [], False


def wants_value(word: str, valued: set[str]) -> bool:
    """Return whether the word after an option is its value."""
    if word.startswith("--"):
        return word in valued
    for place, letter in enumerate(word[1:], 2):
        if f"-{letter}" in valued:
            return place == len(word)
    return False


def _has_letters(word: str, valued: set[str]) -> bool:
    """Return whether a word holds several options, such as ``-qd``."""
    short = word.startswith("-") and not word.startswith("--")
    return short and len(word) > 2 and word[:2] not in valued

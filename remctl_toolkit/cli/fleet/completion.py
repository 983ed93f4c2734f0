"""Completion candidates for the command line of remctl-fleet and for its prompt."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Iterable, Sequence

from remctl_toolkit.cli.completion import host_names, matching
from remctl_toolkit.fleet import Host, run_on_hosts
from remctl_toolkit.hosts import HostList

from .options import parse, parser, split, valued_options, wants_value
from .tickets import keytab_credentials

__all__ = ["CommandNames", "candidates", "complete_at_prompt"]

_HELP_LIMIT = 3.0  # seconds for a server to list its commands
_FILES = (  # options whose values are files or directories
    *("hosts_file", "exclude_file", "groups", "ccache", "keytab"),
    *("outdir", "errdir", "failed_to"),
)
_OPERATOR = re.compile(r".*[,!&^](?![^\[]*\])-?")  # in a list of hosts, and not within a range
_COMMAND_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")  # Other words of the help are prose or values.
_CONNECTION = ("port", "principal", "ccache", "source_ip", "credentials")


def candidates(words: list[str], word: str) -> Iterable[str] | None:
    """Return candidates for the last word; None to complete file names.

    Args:
        words: the words before it.
        word: the last word, as far as it is typed.
    """
    options, hosts, command, dashes = split(words)
    if options and options[-1:] == words[-1:] and wants_value(words[-1], valued_options()):
        return _values(words[-1], word, "")
    name, equals, value = word.partition("=")
    if not dashes and not command and word.startswith("-"):
        if equals:
            return _values(name, value, f"{name}=")
        return matching(_option_names(), word)
    listed = "--srv" in options or bool({"-f", "--hosts-file"} & set(options))
    if not dashes and (hosts is None or listed):
        return _host_lists(word)
    asked = _options(options, hosts)
    if asked is None or asked.shell:
        return []
    with contextlib.suppress(Exception):  # Completion cannot report errors.
        return CommandNames(_first_host(asked), asked).after(command, word)
    return []


def _option_names() -> list[str]:
    return [name for action in parser()._actions for name in action.option_strings]


def _values(option: str, value: str, before: str) -> Iterable[str] | None:
    """Return the values of an option that start with `value`, each prefixed with `before`."""
    name = option if option.startswith("--") else f"-{option[-1]}"
    action = next(each for each in parser()._actions if name in each.option_strings)
    found: Iterable[str] = ()
    if action.dest in _FILES:
        return None
    if action.dest == "exclude":
        found = _host_lists(value)
    elif action.choices is not None:
        found = matching(action.choices, value)
    return [f"{before}{each}" for each in found]


def _host_lists(word: str) -> list[str]:
    """Return `word` with the last host or group completed."""
    before = found[0] if (found := _OPERATOR.match(word)) else ""
    return [f"{before}{name}" for name in host_names(word[len(before) :])]


def _options(options: Sequence[str], hosts: str | None) -> argparse.Namespace | None:
    """Return the parsed options; None if something is wrong with them."""
    words = [*options, *([] if hosts is None else [hosts]), "--", "help"]
    with (
        contextlib.redirect_stdout(io.StringIO()),  # for --help
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit, Exception),
    ):
        asked = parse(words)
        asked.credentials = keytab_credentials(asked)
        asked.ccache = asked.ccache if asked.credentials is None else None
        return asked
    return None


def _first_host(options: argparse.Namespace) -> Host:
    """Return the host to ask for the names of commands."""
    hosts = HostList(*filter(None, [options.hosts]))
    for path in options.hosts_file:
        if path != "-":  # Standard input is the user's terminal.
            hosts.add_file(path)
    return next(iter(hosts))


class CommandNames:
    """Names of commands from a server's ``help``, which is run once, when needed."""

    def __init__(self, host: Host, options: argparse.Namespace) -> None:
        self._host = host
        self._settings = {name: getattr(options, name) for name in _CONNECTION}
        self._lines: list[list[str]] | None = None
        self._found: list[str] = []

    def after(self, words: Sequence[str], begin: str) -> list[str]:
        """Return the names that may follow `words` and start with `begin`."""
        count = len(words)
        lines = [line for line in self._asked() if line[:count] == list(words)]
        names = [name for line in lines for name in line[count : count + 1]]
        own = [] if words else ["help"]
        return matching([*own, *filter(_COMMAND_NAME.fullmatch, names)], begin)

    def complete(self, text: str, state: int) -> str | None:
        """Return a candidate for a word at the prompt, for readline."""
        import readline

        if state == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()]
            self._found = self.after(before.split(), text)
        return f"{self._found[state]} " if state < len(self._found) else None

    def _asked(self) -> list[list[str]]:
        """Return the words of each line of the server's help; empty if it has none."""
        if self._lines is None:
            self._lines = []
            for outcome in run_on_hosts(
                [self._host], ["help"], limit=_HELP_LIMIT, **self._settings
            ):
                if outcome.result is not None:
                    text = outcome.result.stdout_text(errors="replace")
                    self._lines = [line.split() for line in text.splitlines()]
        return self._lines


def complete_at_prompt(names: CommandNames) -> None:
    """Bind the Tab key to completion of commands.

    Raises:
        ImportError: there is no readline.
    """
    import readline

    editline = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")
    readline.set_completer_delims(" \t\n")
    readline.set_completer(names.complete)

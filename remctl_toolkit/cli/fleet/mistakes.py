"""Detect mistakes in a command line, such as options of clush, pdsh or pssh."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import shlex
from collections.abc import Collection, Sequence

__all__ = ["check_command", "check_options", "check_values"]

_HOSTS_FIRST = "hosts come first: remctl-fleet 'web[1-9]' -- service status"
_GROUP = "write @GROUP in the list of hosts"
_PARALLEL = "to run on N hosts in parallel, use --concurrency N"
_NO_LOGIN = "your Kerberos ticket determines the user (see --ccache and --keytab)"
_LIMIT = "for a time limit, use --limit SECONDS (each host) or --timeout SECONDS (silence)"
_FILE = "to read hosts from a file, use --hosts-file FILE"

# Options of clush, pdsh, pssh and ansible that remctl-fleet does not have.
_FOREIGN_OPTIONS = {
    **dict.fromkeys(("-w", "-H", "--host", "--hosts", "--nodes", "--node"), _HOSTS_FIRST),
    **dict.fromkeys(("-g", "--group"), _GROUP),
    **dict.fromkeys(("-a", "--all"), "for the hosts of all groups, write @*"),
    **dict.fromkeys(
        ("-X",), "to leave out a group, use --exclude @GROUP, or -@GROUP in the list of hosts"
    ),
    **dict.fromkeys(("--fanout", "--forks", "--par", "--parallel"), _PARALLEL),
    **dict.fromkeys(("-l", "--user", "-A", "--askpass", "--ask-pass"), _NO_LOGIN),
    **dict.fromkeys(("-u", "--command_timeout", "--command-timeout"), _LIMIT),
    **dict.fromkeys(("-i", "--inventory", "--hostfile"), _FILE),
    **dict.fromkeys(
        ("-L", "--line-mode", "-P", "--print"), "to show lines as they arrive, use --live"
    ),
    **dict.fromkeys(("--pick-random",), "to choose hosts at random, use --pick N"),
    **dict.fromkeys(("-o", "--option", "-O"), "remctl-fleet does not use ssh"),
}


def check_options(
    built: argparse.ArgumentParser, words: Sequence[str], valued: Collection[str]
) -> None:
    """Exit with a message about the first unknown option.

    Args:
        built: the parser; its `error()` exits.
        words: options and their values.
        valued: the names of the options that take a value.
    """
    known = set(built._option_string_actions)  # argparse has no other way to them
    is_value = False
    for word in words:
        if is_value and (not word.startswith("-") or re.match(r"-\d|-$", word)):
            is_value = False
        elif word.startswith("--"):
            name = word.partition("=")[0]
            if name not in known:
                _refuse(built, word, name, known)
            is_value = word in valued
        else:
            is_value = _check_letters(built, word, known, valued)


def _check_letters(
    built: argparse.ArgumentParser, word: str, known: set[str], valued: Collection[str]
) -> bool:
    """Check the one-letter options in a word; return whether the next word is a value."""
    for place, letter in enumerate(word[1:], 2):
        name = f"-{letter}"
        if name not in known:
            _refuse(built, word, name, known)
        if name in valued:
            return place == len(word)
    return False


def _refuse(built: argparse.ArgumentParser, word: str, name: str, known: set[str]) -> None:
    if name in _FOREIGN_OPTIONS:
        built.error(f"there is no option {name}: {_FOREIGN_OPTIONS[name]}")
    built.error(f"unrecognized arguments: {word}{_suggestion(name, known)}")


def _suggestion(name: str, known: set[str]) -> str:
    import difflib  # Slow to import.

    longer = sorted(each for each in known if name.startswith("--") and each.startswith(name))
    close = difflib.get_close_matches(name, sorted(known), cutoff=0.7) if len(name) > 2 else []
    found = longer or close
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""


def check_command(
    built: argparse.ArgumentParser, hosts: str | None, command: Sequence[str], *, dashes: bool
) -> None:
    """Exit with a message if there are hosts in the place of the command.

    Args:
        built: the parser; its `error()` exits.
        hosts: the hosts.
        command: the words after them.
        dashes: whether ``--`` stands between hosts and command.
    """
    if hosts is None or dashes or not command:
        return
    end = 1 if _looks_like_hosts(command[0], hosts) else 0
    if "--" in command:
        place = command.index("--")
        # No subcommand is called --, but an argument may be "--".
        if place == 1 or any(map(_may_be_hosts, command[:place])):
            end = place
    if not end:
        return
    more = [word.strip(",") for word in command[:end] if not word.startswith("-")]
    rest = command[end + 1 :] if command[end : end + 1] == ["--"] else command[end:]
    joined = ",".join([hosts.rstrip(","), *filter(None, more)])
    built.error(
        f"separate hosts with commas: {shlex.quote(joined)} -- {shlex.join(rest)}; if"
        f" {command[0]!r} is the command, put -- before it"
    )


def _looks_like_hosts(word: str, hosts: str) -> bool:
    """Return whether the first word of a command looks like a list of hosts."""
    if hosts.endswith(",") or word.startswith(("@", ",")) or re.search(r"\w\[[\d,-]+\]", word):
        return True
    domain = re.search(r"\.[\w-]+\.[\w.-]*[A-Za-z]$", hosts)
    if domain is not None and word.endswith(domain[0]):
        return True
    stem = re.match(r"[A-Za-z_-]+(?=\d)", word)  # web2 after web1
    return stem is not None and re.search(rf"\b{re.escape(stem[0])}[\d\[]", hosts) is not None


def _may_be_hosts(word: str) -> bool:
    return re.search(r"[\d.,\[\]@:]", word) is not None and not word.startswith("-")


def check_values(built: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with a message if a value is meant for clush's option of the same name."""
    if options.source_ip and not _is_address(options.source_ip):
        built.error(
            f"source address must be an IP address, not {options.source_ip!r}; -b means"
            " --source-ip, and output is gathered by default"
        )
    for path in options.hosts_file:
        if path.isdecimal() and not os.path.exists(path):
            built.error(
                f"cannot read {path}: No such file or directory; -f means --hosts-file; to run on"
                f" {path} hosts in parallel, use --concurrency {path}"
            )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

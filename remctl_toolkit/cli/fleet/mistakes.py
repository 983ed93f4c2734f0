"""Mistakes in a command line, found before anything is sent: many know clush, pdsh or pssh."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import shlex
from collections.abc import Collection, Sequence

__all__ = ["check_command", "check_options", "check_values"]

_HOSTS_FIRST = "hosts come first: remctl-fleet 'web[1-9]' -- service status"
_GROUP = "a group is written @GROUP, in place of a host or after a comma"
_AT_ONCE = "for N hosts at a time, write --concurrency N"
_NO_LOGIN = "there is no user to name: your Kerberos ticket says who you are (--ccache, --keytab)"
_LIMIT = "for a time limit, write --limit SECONDS (each host) or --timeout SECONDS (silence)"
_FILE = "for a file with hosts, write --hosts-file FILE"

# Options of clush, pdsh, pssh and ansible that are not ours.
_ELSEWHERE = {
    **dict.fromkeys(("-w", "-H", "--host", "--hosts", "--nodes", "--node"), _HOSTS_FIRST),
    **dict.fromkeys(("-g", "--group"), _GROUP),
    **dict.fromkeys(("-a", "--all"), "all hosts of all groups are written @*"),
    **dict.fromkeys(
        ("-X",), "to leave out a group, write --exclude @GROUP, or -@GROUP after a comma"
    ),
    **dict.fromkeys(("--fanout", "--forks", "--par", "--parallel"), _AT_ONCE),
    **dict.fromkeys(("-l", "--user", "-A", "--askpass", "--ask-pass"), _NO_LOGIN),
    **dict.fromkeys(("-u", "--command_timeout", "--command-timeout"), _LIMIT),
    **dict.fromkeys(("-i", "--inventory", "--hostfile"), _FILE),
    **dict.fromkeys(
        ("-L", "--line-mode", "-P", "--print"), "for lines as they arrive, write --live"
    ),
    **dict.fromkeys(("--pick-random",), "to choose some hosts at random, write --pick N"),
    **dict.fromkeys(("-o", "--option", "-O"), "ssh is not used, so it has no options here"),
}


def check_options(
    built: argparse.ArgumentParser, words: Sequence[str], valued: Collection[str]
) -> None:
    """End with a message about the first option that there is not.

    Args:
        built: the parser; its `error()` ends the program.
        words: options and their values.
        valued: the names of the options that have a value.
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
    """Check one-letter options in a word; return whether the next word is a value."""
    for place, letter in enumerate(word[1:], 2):
        name = f"-{letter}"
        if name not in known:
            _refuse(built, word, name, known)
        if name in valued:
            return place == len(word)
    return False


def _refuse(built: argparse.ArgumentParser, word: str, name: str, known: set[str]) -> None:
    if name in _ELSEWHERE:
        built.error(f"there is no {name}: {_ELSEWHERE[name]}")
    built.error(f"unrecognized arguments: {word}{_suggestion(name, known)}")


def _suggestion(name: str, known: set[str]) -> str:
    import difflib  # takes its time

    longer = sorted(each for each in known if name.startswith("--") and each.startswith(name))
    close = difflib.get_close_matches(name, sorted(known), cutoff=0.7) if len(name) > 2 else []
    found = longer or close
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""


def check_command(
    built: argparse.ArgumentParser, hosts: str | None, command: Sequence[str], *, dashes: bool
) -> None:
    """End with a message if there are hosts where the command should be.

    Args:
        built: the parser; its `error()` ends the program.
        hosts: the hosts.
        command: the words after them.
        dashes: whether ``--`` stands between hosts and command.
    """
    if hosts is None or dashes or not command:
        return
    end = 1 if _looks_like_hosts(command[0], hosts) else 0
    if "--" in command:
        place = command.index("--")
        # No subcommand is called --, but an argument may be.
        if place == 1 or any(map(_may_be_hosts, command[:place])):
            end = place
    if not end:
        return
    more = [word.strip(",") for word in command[:end] if not word.startswith("-")]
    rest = command[end + 1 :] if command[end : end + 1] == ["--"] else command[end:]
    joined = ",".join([hosts.rstrip(","), *filter(None, more)])
    built.error(
        f"hosts are separated by commas: {shlex.quote(joined)} -- {shlex.join(rest)}; if"
        f" {command[0]!r} begins the command, put -- before it"
    )


def _looks_like_hosts(word: str, hosts: str) -> bool:
    """Tell whether the first word of a command is rather a list of hosts."""
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
    """End with a message if an option's value is one for clush's option of that name."""
    if options.source_ip and not _is_address(options.source_ip):
        built.error(
            f"source address must be an IP address, not {options.source_ip!r}; -b is --source-ip"
            " here: output is gathered without an option"
        )
    for path in options.hosts_file:
        if path.isdecimal() and not os.path.exists(path):
            built.error(
                f"cannot read {path}: No such file or directory; -f is --hosts-file here: for"
                f" {path} hosts at a time, write --concurrency {path}"
            )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

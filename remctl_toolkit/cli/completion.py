"""Completion in shells: scripts that ask the command itself for candidates.

The script of each shell runs ``COMMAND --complete LINE [CURRENT]``.  LINE is the command line up to
the cursor, and CURRENT the end of its last word if the shell does not replace all of that.  The
command prints one candidate per line; status 1 asks the shell to complete file names.

Candidates may come from servers, DNS or files, and end up in a command line, so those with
characters that are special to a shell are dropped.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from remctl_toolkit._hosts_groups import resolver

__all__ = ["SHELLS", "answer", "host_names", "is_safe", "matching", "script"]

SHELLS = ("bash", "zsh", "fish")

_TIMEOUT = 5  # seconds
_COMPLETE_FILES = 1  # the exit status that asks for file names
_SAFE = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_@.:+=-]*")
_ETC_HOSTS = "/etc/hosts"

_SCRIPTS = {
    "bash": """\
# Completion for COMMAND, which prints the candidates itself.
_COMMAND() {
    local answer
    COMPREPLY=()
    if answer=$(COMMAND --complete "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null); then
        [ -z "$answer" ] || mapfile -t COMPREPLY <<<"$answer"
    else
        compopt -o default
    fi
}
complete -F _COMMAND COMMAND
""",
    "zsh": """\
#compdef COMMAND
# Completion for COMMAND, which prints the candidates itself.
_COMMAND() {
    local answer
    if answer=$(COMMAND --complete "${(j: :)words[1,CURRENT-1]} ${(Q)PREFIX}" 2>/dev/null); then
        [[ -z $answer ]] || compadd -- "${(f)answer}"
    else
        _files
    fi
}
if [[ $funcstack[1] == _COMMAND ]]; then _COMMAND "$@"; else compdef _COMMAND COMMAND; fi
""",
    "fish": """\
# Completion for COMMAND, which prints the candidates itself.
function _COMMAND
    if set -l answer (COMMAND --complete (commandline -cp | string collect) 2>/dev/null)
        printf '%s\\n' $answer
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c COMMAND -f -a '(_COMMAND)'
""",
}


def script(command: str, shell: str) -> str:
    """Return the completion script of a command.

    Args:
        command: the name of the command.
        shell: one of `SHELLS`.
    """
    return _SCRIPTS[shell].replace("COMMAND", command)


def answer(
    argv: Sequence[str],
    command: str,
    candidates: Callable[[list[str], str], Iterable[str] | None],
) -> int:
    """Print candidates for a completion script; return the exit status.

    Args:
        argv: LINE and perhaps CURRENT.
        command: the name of the command.
        candidates: called with the words before the last, and the last as far as it is typed;
            returns whole words, or None to complete file names.
    """
    # DNS, a KDC, a server or ClusterShell's programs may hang: end before the user loses patience.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_TIMEOUT)
    *words, word = _words(argv[0] if argv else "", command)
    current = argv[1] if len(argv) > 1 else word
    found = candidates(words, word)
    if found is None:
        return _COMPLETE_FILES
    known = len(word) - len(current) if word.endswith(current) else 0
    for each in dict.fromkeys(found):
        if each.startswith(word) and is_safe(f"_{each[len(word) :]}"):
            print(each[known:])
    return 0


def is_safe(text: str) -> bool:
    """Return whether a text can be a word of a command line without quoting."""
    return _SAFE.fullmatch(text) is not None


def _words(line: str, command: str) -> list[str]:
    """Return the words after the command's name; the last is the one before the cursor."""
    words = [""]
    for end in ("", "'", '"'):  # A quote may be open.
        try:
            words = shlex.split(f"{line}\0{end}")
            break
        except ValueError:
            continue
    words[-1] = words[-1].removesuffix("\0")
    names = [os.path.basename(word) for word in words[:-1]]
    return words[names.index(command) + 1 :] if command in names else words[-1:]


def matching(names: Iterable[str], begin: str) -> list[str]:
    """Return the names that start with `begin`, sorted."""
    return sorted({name for name in names if name.startswith(begin)})


# -- Hosts ----------------------------------------------------------------------------------------


def host_names(begin: str) -> list[str]:
    """Return hosts from groups and /etc/hosts, or groups, that start with `begin`.

    Args:
        begin: the beginning of a host's name, or of ``@GROUP`` or ``@SOURCE:GROUP``.
    """
    if begin.startswith("@"):
        source, colon, _ = begin[1:].rpartition(":")
        if colon and not is_safe(source):
            return []
        groups = _ask_clustershell("grouplist", source or None)
        names = [f"@{source}{colon}{name.removeprefix('@')}" for name in groups]
        return matching((name for name in names if is_safe(name[1:])), begin)
    if not begin:
        return host_names("@")
    hosts = [*_ask_clustershell("all_nodes", None), *_hosts_of_file()]
    return matching(filter(is_safe, hosts), begin)


def _ask_clustershell(what: str, source: str | None) -> list[str]:
    try:
        from ClusterShell import NodeSet

        words: Any = getattr(resolver(), what)(source)
        found = [NodeSet.NodeSet(word, resolver=NodeSet.RESOLVER_NOGROUP) for word in words]
    except Exception:  # ClusterShell is not installed, not configured, or misconfigured.
        return []
    return [str(name) for names in found for name in names]


def _hosts_of_file() -> list[str]:
    try:
        with open(_ETC_HOSTS, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        return []
    return [name for line in lines for name in line[1:]]

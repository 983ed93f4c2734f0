"""Completion by shells: options, hosts, groups and the commands of a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli.fleets import Hosts
from support.terminal import Terminal
from testing.processes import TIMEOUT

pytestmark = pytest.mark.once

FILES = {
    "fleet": """
import sys
from remctl_toolkit.cli.fleet import main
sys.exit(main())
""",
    "rsh": """
import sys
from remctl_toolkit.cli.rsh import main
sys.exit(main())
""",
}


@pytest.fixture
def place(hosts: Hosts, tmp_path: Path) -> dict[str, str]:
    """Environment with both commands in PATH, groups, and a directory with a file."""
    programs, groups = tmp_path / "bin", tmp_path / "clustershell"
    for folder in (programs, groups, tmp_path / "work"):
        folder.mkdir()
    for name, text in FILES.items():
        program = programs / f"remctl-{name}"
        program.write_text(f"#!{sys.executable}\n{text}")
        program.chmod(0o755)
    (groups / "groups.conf").write_text(
        "[Main]\ndefault: local\n[local]\nmap: sed -n 's/^$GROUP: //p' $CFGDIR/local\n"
        "all: sed -n 's/^all: //p' $CFGDIR/local\nlist: sed -n 's/:.*//p' $CFGDIR/local\n"
    )
    (groups / "local").write_text("all: web[1-4],deny1,db$(x)\nweb: web[1-3]\nwest: web4\n")
    (tmp_path / "work" / "hosts.txt").touch()
    environ = hosts.environ(CLUSTERSHELL_CFGDIR=str(groups), HOME=str(tmp_path))
    return {**environ, "PATH": f"{programs}:{os.environ['PATH']}", "WORK": str(tmp_path / "work")}


def ask(place: dict[str, str], command: str, *asked: str) -> list[str] | None:
    """Return the candidates of the command; None if it asks for file names."""
    done = subprocess.run(
        [command, "--complete", *asked], env=place, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.stderr == ""
    return None if done.returncode == 1 else done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("remctl-fleet --st", ["--stdin", "--stop-after"]),
        ("/usr/bin/remctl-fleet --st", ["--stdin", "--stop-after"]),
        ("KRB5CCNAME=x remctl-fleet --st", ["--stdin", "--stop-after"]),
        ("remctl-fleet web1 --st", ["--stdin", "--stop-after"]),
        ("remctl-fleet --print-completion ", ["bash", "fish", "zsh"]),
        ("remctl-fleet --print-completion=b", ["--print-completion=bash"]),
        ("remctl-fleet --timeout ", []),
        ("remctl-fleet --hosts-file ", None),
        ("remctl-fleet -qf ", None),
        *(
            (f"remctl-fleet {option} ", None)
            for option in ("--exclude-file", "--groups", "--outdir", "--errdir", "--failed-to")
        ),
        ("remctl-fleet --ccache=x", None),
        ("remctl-fleet ", ["@all", "@web", "@west"]),
        ("remctl-fleet @we", ["@web", "@west"]),
        ("remctl-fleet @local:wes", ["@local:west"]),
        ("remctl-fleet '@x;touch evil;:", []),
        ("remctl-fleet web", ["web1", "web2", "web3", "web4"]),
        ("remctl-fleet 'web1,-web", ["web1,-web1", "web1,-web2", "web1,-web3", "web1,-web4"]),
        ("remctl-fleet 'web[1-3]!@we", ["web[1-3]!@web", "web[1-3]!@west"]),
        ("remctl-fleet --shell web4", ["web4"]),
        ("remctl-fleet -x web4", ["web4"]),
        ("remctl-fleet 'db", []),
        ("remctl-fleet -f x ", ["@all", "@web", "@west"]),
        ("remctl-fleet web1 t", ["test"]),
        ("remctl-fleet web1 -- ", ["account", "help", "mail", "test"]),
        ("remctl-fleet 'web[1-2]' -q -- tes", ["test"]),
        ("remctl-fleet web1 test s", ["sleep", "status", "streams"]),
        ("remctl-fleet web1 account ", ["create", "show"]),
        ("remctl-fleet web1 account show ", []),
        ("remctl-fleet web1 test echo 'open ", []),
        ("remctl-fleet dead1 t", []),
        ("remctl-fleet --help web1 t", []),
        ("remctl-fleet --nonsense web1 t", []),
        ("remctl-fleet -f - -- t", []),
        ("remctl-fleet --shell web1 t", []),
        ("remctl-rsh --pr", ["--principal", "--print-completion"]),
        ("remctl-rsh web", ["web1", "web2", "web3", "web4"]),
        ("remctl-rsh me@web4", ["me@web4"]),
        ("remctl-rsh -p ", []),
        ("remctl-rsh -v -p 22 web4", ["web4"]),
        ("remctl-rsh web1 w", []),
        ("", ["@all", "@web", "@west"]),
    ],
)
def test_the_command_says_what_could_follow(
    hosts: Hosts, place: dict[str, str], line: str, found: list[str] | None
) -> None:
    command = "remctl-rsh" if "remctl-rsh" in line else "remctl-fleet"
    line = line.replace("remctl-fleet ", f"remctl-fleet -s {hosts.realm.host_principal} ")
    assert ask(place, command, line) == found


def test_a_shell_that_replaces_a_part_of_the_word_gets_that_part(place: dict[str, str]) -> None:
    for line, current, found in (
        ("remctl-fleet @wes", "wes", ["west"]),
        ("remctl-fleet @local:wes", "wes", ["west"]),
        ("remctl-fleet web1,@wes", "wes", ["west"]),
        ("remctl-fleet 'web1,@wes", "web1,@wes", ["web1,@west"]),
        ("remctl-fleet --print-completion=b", "b", ["bash"]),
        ("remctl-fleet --print-completion=", "", ["bash", "fish", "zsh"]),
        ("remctl-fleet web4", "", [""]),
    ):
        assert ask(place, "remctl-fleet", line, current) == found


# -- In the shells --------------------------------------------------------------------------------

# Each prints what the Tab key would offer for a line.
BASH = """
source <(remctl-fleet --print-completion bash)
compopt() { echo "files"; }
COMP_LINE=$1 COMP_POINT=${#1}
_remctl-fleet remctl-fleet "$2"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
remctl-fleet --print-completion fish | source
complete -C $argv[1]
"""


def test_bash_completes(hosts: Hosts, place: dict[str, str]) -> None:
    def complete(line: str, current: str) -> list[str]:
        command = ["bash", "--norc", "-c", BASH, "bash", line, current]
        done = subprocess.run(command, env=place, capture_output=True, text=True, timeout=TIMEOUT)
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("remctl-fleet --sto", "--sto") == ["--stop-after"]
    assert complete("remctl-fleet @we", "we") == ["web", "west"]
    assert complete("remctl-fleet -f h", "h") == ["files"]
    assert complete("remctl-fleet nothing", "nothing") == []
    line = f"remctl-fleet -s {hosts.realm.host_principal} web1 account "
    assert complete(line, "") == ["create", "show"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(hosts: Hosts, place: dict[str, str]) -> None:
    def complete(line: str) -> list[str]:
        command = ["fish", "--no-config", "-c", FISH, line]
        done = subprocess.run(
            command, env=place, cwd=place["WORK"], capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.stderr == ""
        return [shown.partition("\t")[0] for shown in done.stdout.splitlines()]

    assert complete("remctl-fleet --sto") == ["--stop-after"]
    assert complete("remctl-fleet @we") == ["@web", "@west"]
    assert complete("remctl-fleet 'web1,@wes") == ["web1,@west"]
    assert complete("remctl-fleet -f h") == ["hosts.txt"]
    assert complete("remctl-fleet nothing") == []
    line = f"remctl-fleet -s {hosts.realm.host_principal} web1 account "
    assert complete(line) == ["create", "show"]


def test_bash_on_a_terminal(hosts: Hosts, place: dict[str, str]) -> None:
    environ = {**place, "PS1": "READY ", "INPUTRC": "/dev/null", "HISTFILE": ""}
    with Terminal(["bash", "--norc", "--noprofile", "-i"], environ) as terminal:
        type_completions(terminal, hosts, "bash")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_on_a_terminal(hosts: Hosts, place: dict[str, str]) -> None:
    with Terminal(["zsh", "-f", "-i"], {**place, "PS1": "READY "}) as terminal:
        terminal.type("autoload -U compinit; compinit -u -D\n")
        type_completions(terminal, hosts, "zsh")


def type_completions(terminal: Terminal, hosts: Hosts, shell: str) -> None:
    terminal.expect("READY ")
    terminal.type(f'cd $WORK; eval "$(remctl-fleet --print-completion {shell})"; echo set up\n')
    terminal.expect(r"[\r\n]set up")
    terminal.expect("READY ")
    principal = hosts.realm.host_principal
    for typed, shown in (
        (f"echo; remctl-fleet -s {principal} web1 acc\tsh\talice", "account.* show.* alice"),
        ("remctl-fleet @wes\t-- x", "@west.*-- x"),
        ("remctl-fleet 'web1,@wes\t", "'web1,@west"),
        ("remctl-fleet --sto\t", "--stop-after"),
        ("remctl-fleet -f ho\t", "hosts.txt"),
    ):
        terminal.type(typed)
        terminal.expect(shown)
        terminal.type("\x15")  # Ctrl-U: away with it

"""The shell of remctl-sandbox has its settings whatever the user's configuration sets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.terminal import Terminal
from testing.processes import TIMEOUT, check_gone, python_environ

pytestmark = pytest.mark.once

ARGUMENTS = [sys.executable, "-m", "remctl_toolkit.cli.sandbox"]
ENDING = "without your configuration"
"""The end of the line about a shell that starts again."""


@dataclass(frozen=True)
class Kind:
    """A shell, and the syntax for some settings in it."""

    name: str
    file: str
    """The user's configuration, in the home directory."""
    settings: str
    """A configuration that sets the variables of the sandbox, and one more."""
    hooks: str = ""
    """Code that does the same at every prompt."""
    typed: str = "KRB5CCNAME=FILE:/typed"

    @property
    def path(self) -> str:
        found = shutil.which(self.name)
        if found is None:
            pytest.skip(f"{self.name} is not installed")
        return found


POSIX = """
export KRB5CCNAME=FILE:/nowhere KRB5_CONFIG=/nowhere REMCTL_PORT=1 PYTHONHOME=/nowhere
export PATH="$HOME/shims:/usr/bin:/bin"
remctl() { echo hijacked; }
alias remctl='echo hijacked' kinit='echo hijacked' python3='echo hijacked'
alias true=false export=false unset=false unalias=false command=false
own() { echo own "$OWN" works; }
OWN=setting
PS1='mine> '
"""
UNSET = "set -u; : $NOT_SET\n"
FISH = """
set -gx KRB5CCNAME FILE:/nowhere
set -gx KRB5_CONFIG /nowhere
set -gx REMCTL_PORT 1
set -gx PYTHONHOME /nowhere
set -gx PATH $HOME/shims /usr/bin /bin
alias remctl 'echo hijacked'
abbr -a kinit 'echo hijacked'
function python3; echo hijacked; end
function own; echo own $OWN works; end
set OWN setting
function fish_greeting; end
function fish_prompt; echo -n 'mine> '; end
"""
FISH_HOOKS = """
function one --on-event fish_prompt; set -gx KRB5CCNAME FILE:/hook; end
function two --on-event fish_preexec; set -gx KRB5CCNAME FILE:/hook; end
function three --on-event fish_postexec; set -gx KRB5CCNAME FILE:/hook; end
"""
BASH_HOOKS = """
hook() { export KRB5CCNAME=FILE:/hook PATH="$HOME/shims:$PATH" PS1='mine> '; }
PROMPT_COMMAND='hook; '
"""
ZSH_HOOKS = """
setopt ksh_arrays sh_word_split no_unset
precmd() { export KRB5CCNAME=FILE:/hook PATH="$HOME/shims:$PATH" PS1='mine> '; }
another() { export KRB5CCNAME=FILE:/hook; }
precmd_functions=(another)
"""

SHELLS = [
    Kind("bash", ".bashrc", POSIX, BASH_HOOKS),
    Kind("zsh", ".zshrc", POSIX, ZSH_HOOKS),
    Kind("fish", ".config/fish/config.fish", FISH, FISH_HOOKS, "set -gx KRB5CCNAME FILE:/typed"),
    *(Kind(name, ".shrc", POSIX) for name in ("dash", "mksh", "ksh93")),
]
each_shell = pytest.mark.parametrize("kind", SHELLS, ids=lambda kind: kind.name)
each_posix_shell = pytest.mark.parametrize(
    "kind", [kind for kind in SHELLS if kind.name != "fish"], ids=lambda kind: kind.name
)


class Shell(Terminal):
    """The shell of a sandbox, on a terminal."""

    def run(self, command: str, pattern: str) -> re.Match[str]:
        """Wait for a prompt, type a command, and expect a pattern in a line after that."""
        self.prompt()
        self.type(f"{command}\r")
        return self.expect(rf"\n[^\n]*?{pattern}")

    def prompt(self) -> None:
        """Wait for a prompt in which the user's own follows that of the sandbox."""
        self.expect(r"\(sandbox\) [^\r\n]*?(?:mine>|[$#%>]) ")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with other programs of the same names."""
    home = tmp_path / 'a user\'s "home"'
    for name in ("remctl", "klist", "python3"):
        shim = home / "shims" / name
        shim.parent.mkdir(parents=True, exist_ok=True)
        shim.write_text("#!/bin/sh\necho hijacked\n")
        shim.chmod(0o755)
    return home


Start = Callable[..., Shell]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """A function that starts a sandbox with a shell and a configuration."""
    started: list[Shell] = []

    def start(kind: Kind, configuration: str = "", *arguments: str, **variables: str) -> Shell:
        file = home / kind.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(configuration)
        environ = python_environ(SHELL=kind.path, HOME=str(home), TERM="xterm")
        for name in ("TMUX", "STY", "ZDOTDIR", "PROMPT_COMMAND", "XDG_CONFIG_HOME"):
            environ.pop(name, None)
        # $HOME: shells expand parameters in it.
        environ["ENV"] = f"$HOME/{kind.file}" if kind.file == ".shrc" else ""
        environ |= variables
        shell = Shell([*ARGUMENTS, *arguments], environ)
        started.append(shell)
        return shell.__enter__()

    yield start
    for shell in started:
        shell.__exit__(None, None, None)


def check_works(shell: Shell) -> None:
    """Check that remctl, klist and Python use the sandbox."""
    shell.run("remctl -p $REMCTL_PORT $REMCTL_HOST test echo remctl wo''rks", "remctl works\r")
    shell.run("klist", r"Default principal: user@REMCTL\.TEST\r")
    code = "import os, remctl; e = os.environ.get; print(e('KRB5CCNAME')[:5], 'python', 'works')"
    shell.run(f'python3 -c "{code}"', "FILE: python works\r")


def leave(shell: Shell, status: int = 0) -> None:
    shell.prompt()
    shell.type(f"exit {status}\r")
    assert shell.wait() == status
    assert "The sandbox is closed" in shell.shown


@each_shell
def test_settings_come_after_the_users(start: Start, kind: Kind) -> None:
    shell = start(kind, kind.settings + kind.hooks)
    banner = shell.expect(r"(?s)(.*)Leave with").group(1)
    assert "mine>" not in banner
    check_works(shell)
    shell.run("own", "own setting works\r")
    shell.run("echo $PATH", r"/\S*/bin.*a user's \"home\"/shims")
    leave(shell, 3)
    assert "hijacked" not in shell.everything
    assert ENDING not in shell.everything


@each_shell
def test_what_is_typed_counts(start: Start, kind: Kind) -> None:
    """Typed commands count, in contrast to hooks at a prompt."""
    shell = start(kind, kind.settings + kind.hooks)
    shell.prompt()
    shell.type(f"{kind.typed}\r")
    for _ in range(2):
        shell.run('echo "<$KRB5CCNAME>"', "<FILE:/typed>\r")
    leave(shell)


@each_posix_shell
def test_mistakes_in_the_configuration(start: Start, kind: Kind) -> None:
    for mistake in (UNSET, "if then fi\n"):
        shell = start(kind, kind.settings + mistake)
        check_works(shell)
        leave(shell)
        assert ENDING not in shell.everything


@each_posix_shell
@pytest.mark.parametrize(
    "ending",
    ["exit 7\n", *(f"readonly {name}\n" for name in ("KRB5CCNAME", "PATH", "PS1"))],
    ids=["exit", "variable", "path", "prompt"],
)
def test_configuration_that_cannot_be_followed(start: Start, kind: Kind, ending: str) -> None:
    """The shell starts again without the configuration, with a message."""
    shell = start(kind, kind.settings + ending)
    shell.expect(f"your configuration of {kind.name} .*{ENDING}")
    check_works(shell)
    leave(shell, 5)


def test_read_only_hook_of_bash(start: Start) -> None:
    kind = SHELLS[0]
    shell = start(kind, kind.settings + "readonly PROMPT_COMMAND=hook\n")
    shell.expect(f"your configuration of bash .*{ENDING}")
    check_works(shell)
    leave(shell)


def test_hook_of_bash_that_sets_the_hooks(start: Start) -> None:
    """A hook that runs once also changes the variable with the sandbox's hooks."""
    kind = SHELLS[0]
    hook = "PROMPT_COMMAND=; export KRB5CCNAME=FILE:/hook REMCTL_PORT=1"
    shell = start(kind, f"{kind.settings}PROMPT_COMMAND='{hook}'\n")
    for _ in range(2):
        check_works(shell)
    leave(shell)
    assert ENDING not in shell.everything


@pytest.mark.parametrize("options", ["", " --norc"])
def test_bash_that_starts_another_bash(start: Start, options: str) -> None:
    """The other shell, for example a newer one, reads the user's file itself."""
    kind = SHELLS[0]
    again = f'if [ -z "$INNER" ]; then export INNER=1; exec {kind.path}{options}; fi\n'
    shell = start(kind, again + kind.settings)
    check_works(shell)
    if not options:
        shell.run("own", "own setting works\r")
    leave(shell, 4)
    assert ENDING not in shell.everything


def test_fish_that_ends(start: Start) -> None:
    """The configuration uses exec, as fish ignores exit there."""
    kind = next(kind for kind in SHELLS if kind.name == "fish")
    shell = start(kind, kind.settings + "exec false\n")
    shell.expect(f"your configuration of fish .*{ENDING}")
    check_works(shell)
    shell.run('echo "<$XDG_CONFIG_HOME>"', "<>\r")
    leave(shell, 5)


@each_posix_shell
def test_errors_do_not_end_the_shell(start: Start, kind: Kind) -> None:
    """A failing command does not end the shell even after "set -e" in the configuration."""
    shell = start(kind, f"{kind.settings}set -e\n/nonexistent\n")
    check_works(shell)
    leave(shell)
    shell = start(kind, f"{kind.settings}set -e\n")
    shell.run("remctl -p $REMCTL_PORT localhost test status 3; echo status $?", "status 3\r")
    shell.run("remctl -p $REMCTL_PORT localhost test status 3", r"(?:\x1b\S*)?")
    check_works(shell)
    leave(shell)


@pytest.mark.parametrize(
    ("first", "second"),
    [("bash", "fish"), ("bash", "zsh"), ("zsh", "bash"), ("dash", "bash"), ("fish", "zsh")],
)
def test_configuration_that_starts_another_shell(
    start: Start, home: Path, first: str, second: str
) -> None:
    kinds = {kind.name: kind for kind in SHELLS}
    other = home / kinds[second].file
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text(kinds[second].settings)
    shell = start(kinds[first], f"{kinds[first].settings}exec {kinds[second].path}\n")
    check_works(shell)
    shell.run("own", "own setting works\r")
    leave(shell, 4)


@each_shell
def test_configuration_does_not_start_a_multiplexer(start: Start, kind: Kind) -> None:
    """A window of tmux would have another environment."""
    for name in ("TMUX", "STY", "ZELLIJ"):
        guard = (
            f"set -q {name}; or exit\n" if kind.name == "fish" else f'[ -n "${name}" ] || exit\n'
        )
        shell = start(kind, kind.settings + guard)
        shell.run(f'echo "<${name}>"', "<>\r")
        leave(shell)


@each_shell
def test_variables_that_lead_to_our_files_are_set_back(start: Start, kind: Kind) -> None:
    shell = start(kind, kind.settings, XDG_DATA_DIRS="/usr/share:/elsewhere")
    line = 'echo "<$ZDOTDIR><$PROMPT_COMMAND><$XDG_DATA_DIRS>"'
    if kind.name == "bash":
        line = line.replace("$PROMPT_COMMAND", "")
    shell.run(line, "<><></usr/share:/elsewhere>\r")
    shell.run('echo "<$ENV>"', r"<\$HOME/\.shrc>" if kind.file == ".shrc" else "<>")
    leave(shell)


def test_zsh_with_its_own_folder(start: Start, home: Path) -> None:
    kind = next(kind for kind in SHELLS if kind.name == "zsh")
    folder = home / "zsh files"
    folder.mkdir(parents=True)
    (home / ".zshenv").write_text('export ZDOTDIR="$HOME/zsh files"\n')
    (folder / ".zshrc").write_text(kind.settings)
    shell = start(kind)
    check_works(shell)
    shell.run("own", "own setting works\r")
    shell.run("echo $ZDOTDIR; echo $HISTFILE", r".*/zsh files\r")
    leave(shell)


def test_folder_for_temporary_files_has_any_name(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "here" now'
    folder.mkdir()
    for kind in SHELLS:
        if shutil.which(kind.name):
            shell = start(kind, kind.settings, TMPDIR=str(folder))
            check_works(shell)
            leave(shell)
            assert list(folder.glob("remctl*")) == []


# Which shell


def test_unknown_shell_has_the_environment_alone(start: Start, home: Path) -> None:
    program = home / "oddsh"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.symlink_to("/bin/sh")
    shell = start(SHELLS[0], SHELL=str(program), PS1="odd> ", ENV="")
    shell.expect("oddsh gets the sandbox's variables only")
    shell.expect("odd> ")
    shell.type("remctl -p $REMCTL_PORT $REMCTL_HOST test echo hello\r")
    shell.expect("\nhello\r\nodd> ")
    shell.type("exit 4\r")
    assert shell.wait() == 4
    assert ENDING not in shell.everything


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/usr/sbin/nologin", "runs no commands"),
        ("/bin/false", "runs no commands"),
        ("/nonexistent/shell", "is not a program"),
        ("/etc/passwd", "is not a program"),
    ],
)
def test_shell_that_is_none(name: str, reason: str) -> None:
    done = run(typed="echo $0\n", SHELL=name)
    assert done.stdout == "/bin/sh\n"
    assert f"SHELL={name} {reason}; using /bin/sh" in done.stderr


def run(*arguments: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the sandbox without a terminal."""
    return subprocess.run(
        [*ARGUMENTS, *arguments],
        env=python_environ(**variables),
        input=typed,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_without_a_home(start: Start) -> None:
    kind = SHELLS[0]
    environ = python_environ(SHELL=kind.path)
    del environ["HOME"]
    with Shell(["env", "-u", "HOME", *ARGUMENTS], environ) as shell:
        check_works(shell)
        shell.prompt()
        shell.type("exit 6\r")
        assert shell.wait() == 6


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_user_without_an_account(tmp_path: Path) -> None:
    """Containers may have no entry in /etc/passwd, no home directory and no SHELL."""
    become = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    # What root becomes still has root's rights for the first program.
    probe = [*become, "sh", "-c", '"$0" -c ""', sys.executable]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot run this Python")
    environ = python_environ(ENV="", PS1="> ")
    for name in ("HOME", "SHELL", "USER", "LOGNAME", "TMPDIR"):
        environ.pop(name, None)
    with Shell([*become, *ARGUMENTS], environ) as shell:
        check_works(shell)
        folder = shell.run('echo "${KRB5_CONFIG%/*}"', r"(/\S+)\r").group(1)
        leave(shell)
    check_gone(folder)

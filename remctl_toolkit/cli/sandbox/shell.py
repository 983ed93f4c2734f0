"""The sandbox's shell: which one, and how it comes by the sandbox's settings."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from remctl_toolkit.testing import programs as system

from .child import Signals, run
from .options import COMMAND
from .settings import Settings
from .startup_fish import fish_file
from .startup_posix import bash_hook, bashrc, sh_file, zsh_files

__all__ = ["Shell", "program_folders", "shell_program"]

_DEFAULT = "/bin/sh"

# The kinds of shells that there are start-up files for, by the name of the program.
_KINDS = {
    **dict.fromkeys(("sh", "dash", "ash", "ksh", "ksh93", "mksh"), "sh"),
    **{name: name for name in ("bash", "zsh", "fish")},
}
_NO_SHELLS = ("nologin", "false", "true", "git-shell")
_CLIENTS = ("remctl", "kinit", "klist", "kdestroy")

# What ksh reads if ENV is not set.
_KSH_FILES = {
    name: f"${{HOME-}}/.{file}"
    for name, file in (("ksh", "kshrc"), ("ksh93", "kshrc"), ("mksh", "mkshrc"))
}

# A configuration that starts tmux, screen or zellij looks at these, because otherwise it would do
# so in each of their windows. A window has the environment of a server that may run already.
_INSIDE = ("TMUX", "STY", "ZELLIJ")

# What keeps Python from finding its modules; it stays as it was.
_PYTHON = ("PYTHONHOME", "PYTHONPATH")

_FISH_DATA = "/usr/local/share:/usr/share"  # what XDG_DATA_DIRS is by default


def shell_program() -> str:
    """Return the shell that SHELL names, or /bin/sh; a line says so if that one cannot be used."""
    chosen = os.environ.get("SHELL") or ""
    if not chosen:
        return _DEFAULT
    reason = ""
    if Path(chosen).name in _NO_SHELLS:
        reason = "runs no commands"
    elif shutil.which(chosen) is None:
        reason = "is not a program"
    if not reason:
        return chosen
    print(f"{COMMAND}: SHELL={chosen} {reason}; the shell is {_DEFAULT}", file=sys.stderr)
    return _DEFAULT


def program_folders(folder: Path) -> tuple[str, ...]:
    """Return the folders that PATH begins with: one that is made, and that of remctl-fleet.

    The first has the programs that were found when the sandbox started: whatever else of the same
    name is on PATH later, such as a shim of pyenv, is not taken.

    Args:
        folder: where to make it.
    """
    folder.mkdir()
    for name in _CLIENTS:
        found = shutil.which(name, path=system.search_path())
        if found is not None:
            (folder / name).symlink_to(found)
    for name in ("python3", "python"):
        script = folder / name  # A link would not lead Python to its virtual environment.
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        script.chmod(0o755)
    return str(folder), sysconfig.get_path("scripts")


class Shell:
    """An interactive shell in a sandbox."""

    def __init__(
        self, program: str, env: Mapping[str, str], first: tuple[str, ...], folder: Path
    ) -> None:
        """Describe it.

        Args:
            program: the shell, as a path or a name on PATH.
            env: the sandbox's own variables, without PATH.
            first: the folders that PATH begins with.
            folder: an existing folder for the start-up files.
        """
        self._program = program
        self._name = Path(program).name
        self._kind = _KINDS.get(self._name)
        self._env = env
        self._first = first
        self._folder = folder
        self._ready = folder / "ready"

    def run(self, signals: Signals) -> int:
        """Run it on this process's terminal until it ends; returns its exit status.

        A shell whose own configuration ends it, or keeps the sandbox's settings from being made,
        is run again without that configuration.
        """
        path = os.pathsep.join((*self._first, system.search_path()))
        env = {**os.environ, **self._env, "PATH": path}
        command = [self._program, "-i"]
        if self._kind is None:
            print(
                f"{COMMAND}: {self._name} has the variables of the sandbox, unless your"
                " configuration of it sets them (PATH, KRB5CCNAME); its prompt is yours",
                file=sys.stderr,
            )
            return run([self._program], env, signals)
        if self._kind == "bash":
            command[1:] = ["--rcfile", str(self._folder / "bashrc"), "-i"]
        status = run(command, {**env, **self._write(own=True)}, signals)
        if self._ready.exists() or signals.requested or not signals.started:
            return status
        print(
            f"{COMMAND}: your configuration of {self._name} ends it, or does not let the sandbox"
            f" set its variables; {self._name} starts again without that",
            file=sys.stderr,
        )
        return run(command, {**env, **self._write(own=False)}, signals)

    def _write(self, *, own: bool) -> dict[str, str]:
        """Write the start-up files of all shells.

        A configuration may start another shell, so there are files for all.

        Args:
            own: whether they read the user's own configuration.

        Returns:
            The variables that lead shells to them.
        """
        hooks = self._hooks(own=own)
        settings = Settings(
            variables={**{name: os.environ.get(name) for name in _PYTHON}, **self._env},
            first=self._first,
            rest=system.search_path(),
            hooks=hooks,
            own=own,
            ready=self._ready,
        )
        own_file = os.environ.get("ENV") or _KSH_FILES.get(self._name, "")
        zsh = self._folder / "zsh"
        texts = {
            self._folder / "sh": sh_file(settings, own_file),
            self._folder / "bashrc": bashrc(settings, str(self._folder / "bash")),
            self._folder / "bash": bash_hook(settings),
            self._folder / "data/fish/vendor_conf.d/remctl-sandbox.fish": fish_file(settings),
            **{zsh / name: text for name, text in zsh_files(settings, str(zsh)).items()},
        }
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return {name: value for name, (value, _) in hooks.items()}

    def _hooks(self, *, own: bool) -> dict[str, tuple[str, str | None]]:
        """Return the variables that lead shells to the files, each with what it was before."""
        data = os.environ.get("XDG_DATA_DIRS") or _FISH_DATA
        hooks = {
            "ENV": str(self._folder / "sh"),
            "ZDOTDIR": str(self._folder / "zsh"),
            "XDG_DATA_DIRS": f"{self._folder / 'data'}:{data}",
            "PROMPT_COMMAND": f". {shlex.quote(str(self._folder / 'bash'))}",
            **{name: COMMAND for name in _INSIDE if name not in os.environ},
        }
        if self._kind == "fish" and not own:
            hooks["XDG_CONFIG_HOME"] = str(self._folder / "empty")
        return {name: (value, os.environ.get(name)) for name, value in hooks.items()}

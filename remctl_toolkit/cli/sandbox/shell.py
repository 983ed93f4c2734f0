"""Choose the sandbox's shell, and apply the sandbox's settings to it."""

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

# Kinds of shells that the start-up files support, by the name of the program.
_KINDS = {
    **dict.fromkeys(("sh", "dash", "ash", "ksh", "ksh93", "mksh"), "sh"),
    **{name: name for name in ("bash", "zsh", "fish")},
}
_NO_SHELLS = ("nologin", "false", "true", "git-shell")
_CLIENTS = ("remctl", "kinit", "klist", "kdestroy")

# Start-up files of ksh if ENV is not set.
_KSH_FILES = {
    name: f"${{HOME-}}/.{file}"
    for name, file in (("ksh", "kshrc"), ("ksh93", "kshrc"), ("mksh", "mkshrc"))
}

# While these are set, the user's configuration does not start tmux, screen or zellij. Their windows
# could have the environment of a server that was started outside of the sandbox.
_INSIDE = ("TMUX", "STY", "ZELLIJ")

# A wrong value would keep Python from finding its modules.
_PYTHON = ("PYTHONHOME", "PYTHONPATH")

_FISH_DATA = "/usr/local/share:/usr/share"  # the default of XDG_DATA_DIRS


def shell_program() -> str:
    """Return the shell that SHELL names, or, with a warning, /bin/sh if SHELL is unusable."""
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
    print(f"{COMMAND}: SHELL={chosen} {reason}; using {_DEFAULT}", file=sys.stderr)
    return _DEFAULT


def program_folders(folder: Path) -> tuple[str, ...]:
    """Return the directories for the beginning of PATH: a new one, and that of remctl-fleet.

    The new one has the programs that were found when the sandbox started, so that others of the
    same name, such as a shim of pyenv, are not used.

    Args:
        folder: the directory to create.
    """
    folder.mkdir()
    for name in _CLIENTS:
        found = shutil.which(name, path=system.search_path())
        if found is not None:
            (folder / name).symlink_to(found)
    for name in ("python3", "python"):
        script = folder / name  # Python would not find its virtual environment through a link.
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        script.chmod(0o755)
    return str(folder), sysconfig.get_path("scripts")


class Shell:
    """An interactive shell in a sandbox."""

    def __init__(
        self, program: str, env: Mapping[str, str], first: tuple[str, ...], folder: Path
    ) -> None:
        """Initialize the shell.

        Args:
            program: the shell, as a path or a name on PATH.
            env: the sandbox's own variables, without PATH.
            first: the directories for the beginning of PATH.
            folder: an existing directory for the start-up files.
        """
        self._program = program
        self._name = Path(program).name
        self._kind = _KINDS.get(self._name)
        self._env = env
        self._first = first
        self._folder = folder
        self._ready = folder / "ready"

    def run(self, signals: Signals) -> int:
        """Run the shell on this process's terminal, and return its exit status.

        If the user's configuration ends the shell, or prevents the sandbox's settings, run it again
        without that configuration.
        """
        path = os.pathsep.join((*self._first, system.search_path()))
        env = {**os.environ, **self._env, "PATH": path}
        command = [self._program, "-i"]
        if self._kind is None:
            print(
                f"{COMMAND}: {self._name} gets the sandbox's variables only: your configuration"
                " can override them (PATH, KRB5CCNAME), and the prompt does not change",
                file=sys.stderr,
            )
            return run([self._program], env, signals)
        if self._kind == "bash":
            command[1:] = ["--rcfile", str(self._folder / "bashrc"), "-i"]
        status = run(command, {**env, **self._write(user_config=True)}, signals)
        if self._ready.exists() or signals.requested or not signals.started:
            return status
        print(
            f"{COMMAND}: your configuration of {self._name} ends the shell, or prevents the sandbox"
            f" from setting its variables; starting {self._name} without your configuration",
            file=sys.stderr,
        )
        return run(command, {**env, **self._write(user_config=False)}, signals)

    def _write(self, *, user_config: bool) -> dict[str, str]:
        """Write start-up files for all shells, as a configuration may start another shell.

        Args:
            user_config: whether the files read the user's configuration.

        Returns:
            The variables that lead shells to the files.
        """
        hooks = self._hooks(user_config=user_config)
        settings = Settings(
            variables={**{name: os.environ.get(name) for name in _PYTHON}, **self._env},
            first=self._first,
            rest=system.search_path(),
            hooks=hooks,
            user_config=user_config,
            ready=self._ready,
        )
        user_file = os.environ.get("ENV") or _KSH_FILES.get(self._name, "")
        zsh = self._folder / "zsh"
        texts = {
            self._folder / "sh": sh_file(settings, user_file),
            self._folder / "bashrc": bashrc(settings, str(self._folder / "bash")),
            self._folder / "bash": bash_hook(settings),
            self._folder / "data/fish/vendor_conf.d/remctl-sandbox.fish": fish_file(settings),
            **{zsh / name: text for name, text in zsh_files(settings, str(zsh)).items()},
        }
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return {name: value for name, (value, _) in hooks.items()}

    def _hooks(self, *, user_config: bool) -> dict[str, tuple[str, str | None]]:
        """Return the variables that lead shells to the files: new and previous values."""
        data = os.environ.get("XDG_DATA_DIRS") or _FISH_DATA
        hooks = {
            "ENV": str(self._folder / "sh"),
            "ZDOTDIR": str(self._folder / "zsh"),
            "XDG_DATA_DIRS": f"{self._folder / 'data'}:{data}",
            "PROMPT_COMMAND": f". {shlex.quote(str(self._folder / 'bash'))}",
            **{name: COMMAND for name in _INSIDE if name not in os.environ},
        }
        if self._kind == "fish" and not user_config:
            hooks["XDG_CONFIG_HOME"] = str(self._folder / "empty")
        return {name: (value, os.environ.get(name)) for name, value in hooks.items()}

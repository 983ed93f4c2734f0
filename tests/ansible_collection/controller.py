"""Ansible on this machine, with the collection of this checkout, and the results of its tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.testing import RemctldServer, machine_commands

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOST = "web 1; é"
SECRET = "the secret word"

# Stands in for sudo: under the name "asking" it wants SECRET as its password.
_SUDO = r"""#!{python} -IS
import os, sys
words, prompt = sys.argv[1:], None
while words[0].startswith("-"):
    flag = words.pop(0)
    if flag in ("-p", "-u"):
        prompt = words.pop(0) if flag == "-p" else words.pop(0) and prompt
def password():
    os.write(2, prompt.encode())
    typed = b""
    while (octet := os.read(0, 1)) not in (b"", b"\n"):
        typed += octet
    return typed
if sys.argv[0].endswith("asking"):
    if prompt is None:
        sys.exit("sudo: a password is required")
    os.write(2, b"We trust you have received the usual lecture.\n")
    while password() != b"{secret}":
        os.write(2, b"Sorry, try again.\n")
os.execvpe(words[0], words, {{**os.environ, "SUDO_RAN": "yes"}})
"""


class Result(NamedTuple):
    """What came of a task: "ok", "failed", "skipped" or "unreachable", and its values."""

    outcome: str
    values: dict[str, Any]


class Controller:
    """Runs playbooks over the connection plugin.

    Attributes:
        here: a folder for files of the controller.
        there: a folder for files of the host.
        env: the environment of Ansible.
        variables: variables of all hosts.
    """

    def __init__(self, server: RemctldServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.here, self.there = folder / "here", folder / "there"
        for each in (self.here, self.there):
            each.mkdir()
        for name in ("sudo", "asking"):
            program = self.there / name
            program.write_text(_SUDO.format(python=sys.executable, secret=SECRET))
            program.chmod(0o755)
        self.env = python_environ(
            **server.realm.env,
            ANSIBLE_COLLECTIONS_PATH=str(ROOT),
            ANSIBLE_HOME=str(folder / "home"),
            ANSIBLE_REMOTE_TMP=str(folder / "tmp"),
            ANSIBLE_CALLBACK_PLUGINS=str(HERE / "plugins"),
            ANSIBLE_CALLBACKS_ENABLED="collect",
            COLLECT_TO=str(folder / "results"),
            LC_ALL="C.UTF-8",
        )
        self.variables: dict[str, Any] = {
            "ansible_connection": "remctl.toolkit.remctl",
            "ansible_host": server.host,
            "ansible_port": server.port,
            "ansible_remctl_principal": server.principal,
            "ansible_python_interpreter": machine_commands()[0].program,  # It starts quickly.
            "here": str(self.here),
            "there": str(self.there),
            "secret": SECRET,
        }

    def command(self, playbook: str, hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return the command line that runs a playbook of this folder on hosts."""
        inventory = {"all": {"hosts": hosts, "vars": self.variables}}
        (self._folder / "inventory.json").write_text(json.dumps(inventory))
        (self._folder / "results").write_text("")
        where = ["-i", str(self._folder / "inventory.json"), str(HERE / playbook)]
        return [sys.executable, "-m", "ansible", "playbook", "-vvv", *where]

    def run(
        self,
        playbook: str,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        *options: str,
        **env: str,
    ) -> dict[str, Result]:
        """Run a playbook; return the results by the name of the task, or by host/task.

        `output` keeps all that Ansible has printed.
        """
        words = [*self.command(playbook, {HOST: {}} if hosts is None else hosts), *options]
        done = subprocess.run(
            words,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * TIMEOUT,
            check=False,
        )
        self.output = done.stdout
        results = self.results(with_host=hosts is not None)
        assert results, done.stdout
        return results

    def results(self, *, with_host: bool = False) -> dict[str, Result]:
        """Return the results so far."""
        results = {}
        for line in (self._folder / "results").read_text().splitlines():
            found = json.loads(line)
            name = f"{found['host']}/{found['task']}" if with_host else found["task"]
            results[name] = Result(found["outcome"], found["result"])
        return results

    def start(self, playbook: str) -> subprocess.Popen[bytes]:
        """Start a playbook in a session of its own."""
        return subprocess.Popen(
            self.command(playbook, {HOST: {}}),
            env={**self.env, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return os.stat(path).st_mode & 0o7777

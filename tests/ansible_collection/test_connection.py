"""The connection plugin: what Ansible does with it, as over ssh."""

from __future__ import annotations

import dataclasses
import getpass
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collection.controller import SECRET, Controller, mode_of
from support.waiting import eventually, runs
from testing.processes import TIMEOUT

from remctl_toolkit.testing import Realm, RemctldServer, machine_commands

pytestmark = pytest.mark.once

OCTETS = bytes(range(256)) * 1000


def pid_in(folder: Path) -> int | None:
    """Return the process number that a task has written, if it has."""
    file = folder / "pid"
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else None


def check_is_gone(pid: int | None) -> None:
    if pid is not None:
        eventually(lambda: not runs(pid), what="the end of the command on the host")


def test_tasks(controller: Controller) -> None:
    """Each way of using a connection; the results are those over ssh, less carriage returns."""
    here, there = controller.here, controller.there
    (here / "octets").write_bytes(OCTETS)
    (here / "template.j2").write_text("{{ inventory_hostname }}\n")
    script = here / "a script.sh"
    script.write_text('#!/bin/sh\necho "$#:$2"\n')
    script.chmod(0o755)

    results = controller.run("tasks.yml", ANSIBLE_PIPELINING="1")
    outcomes = {name: result.outcome for name, result in results.items()}
    failed = {"fetch nothing", "timeout"}
    assert {name for name, outcome in outcomes.items() if outcome != "ok"} == failed

    home = str(Path.home())
    assert results["command"].values["stdout"] == f"a b|c'd|{home}|é\"|"
    shell = results["shell"].values
    assert (shell["rc"], shell["stdout"], shell["stderr"]) == (255, "out", "err")
    assert results["large"].values["stdout"].split() == [str(n + 1) for n in range(200000)]

    odd = there / 'it\'s "odd"; `x` é*'
    assert mode_of(odd) == 0o751
    assert (odd / "copy of it").read_bytes() == OCTETS
    assert mode_of(odd / "copy of it") == 0o640
    assert (odd / "template").read_text() == "web 1; é\n"
    assert (here / "fetched é").read_bytes() == OCTETS
    assert "does not exist" in results["fetch nothing"].values["msg"]

    assert results["script"].values["stdout"] == "2:two three\n"
    raw = results["raw"].values
    assert (raw["rc"], raw["stdout"], raw["stderr"]) == (3, "raw\n", "")
    assert results["async"].values["stdout"] == "done"
    assert results["become"].values["stdout"] == "yes"
    assert "time" in results["timeout"].values["msg"].lower()
    check_is_gone(pid_in(there))


def test_become_and_passwords(controller: Controller) -> None:
    controller.variables["user"] = getpass.getuser()
    results = controller.run("become.yml")
    assert results["right"].values["stdout"] == "yes\nthe input"
    assert results["raw"].values["stdout"] == "yes\n"
    assert results["not asked"].values["stdout"] == "yes\n"
    assert "Incorrect sudo password" in results["wrong"].values["msg"]
    assert "Missing sudo password" in results["missing"].values["msg"]
    assert results["silent"].values["rc"] == 127
    assert results["oneself"].values["stdout"] == "done\n"  # There is no sign of sudo to wait for.
    assert SECRET not in controller.output


def test_hosts_that_cannot_be_reached(controller: Controller) -> None:
    hosts: dict[str, dict[str, Any]] = {
        "there": {},
        "closed": {"ansible_port": 1},
        "unknown": {"ansible_host": "nowhere.invalid"},
        "odd": {"ansible_host": "no such; name"},
        "empty": {"ansible_host": ""},
        "option": {"ansible_host": "-oProxyCommand=true"},
        "stranger": {"ansible_user": "nobody-of-that-name"},
        "no tickets": {"ansible_remctl_ccache": f"FILE:{controller.here}/none"},
        "another server": {"ansible_remctl_principal": "host/nowhere.invalid"},
    }
    results = controller.run("ping.yml", hosts)
    assert results.pop("there/ping").outcome == "ok"
    assert {name: result.outcome for name, result in results.items()} == {
        f"{host}/ping": "unreachable" for host in hosts if host != "there"
    }
    message = results["closed/ping"].values["msg"]
    assert message.count("Connection refused") == 1
    assert "is remctld running there" in message
    assert "nobody-of-that-name" in results["stranger/ping"].values["msg"]


def test_accounts_have_commands_of_their_own(
    remctl_realm: Realm, ansible_core: str, tmp_path: Path
) -> None:
    lines = [
        dataclasses.replace(command, name=f"{command.name}-alice") for command in machine_commands()
    ]
    with RemctldServer(remctl_realm, lines) as server:
        controller = Controller(server, tmp_path)
        controller.variables["ansible_user"] = "alice"
        assert controller.run("ping.yml")["ping"].outcome == "ok"


def test_a_server_that_goes_away(remctl_realm: Realm, ansible_core: str, tmp_path: Path) -> None:
    """The host is unreachable; it is not the task that failed."""
    with RemctldServer(remctl_realm, machine_commands()) as server:
        controller = Controller(server, tmp_path)
        with controller.start("sleep.yml") as ansible:
            try:
                pid = eventually(lambda: pid_in(controller.there), what="the command")
                server.stop()
                ansible.wait(TIMEOUT)
            finally:
                ansible.terminate()
    assert controller.results()["sleep"].outcome == "unreachable"
    check_is_gone(pid)


def test_documentation(controller: Controller) -> None:
    """ansible-doc finds the plugins and shows each of their options."""
    for kind, words in (("connection", "ansible_remctl_ccache"), ("module", "argv")):
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "doc", "-t", kind, "remctl.toolkit.remctl"],
            env=controller.env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        assert words in done.stdout

"""A playbook over the connection plugin, and over ssh with a shared connection (ControlPersist).

Measure on a machine that does nothing else: Linux shares the processors among sessions, and each
connection of sshd is a session of its own, while all commands of remctld belong to one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

from ..figures import Sample, Spread, Target
from ..place import ROOT, Missing, Place
from ..race import Race, run
from ..report import Answer, Bar, Row

_OURS = "remctl.toolkit"
_SSH = "Ansible's ssh, ControlPersist"
_TASKS: list[dict[str, Any]] = [
    {"ping": {}},
    {"command": "true"},
    {"shell": "echo out; echo err >&2"},
    {"file": {"path": "{{ there }}", "state": "directory"}},
    {"copy": {"content": "{{ 'x' * 100000 }}", "dest": "{{ there }}/copy"}},
    {"template": {"src": "{{ here }}/template", "dest": "{{ there }}/template"}},
    {"stat": {"path": "{{ there }}/copy"}},
    {"raw": "true"},
    {"script": "{{ here }}/script"},
    {"file": {"path": "{{ there }}", "state": "absent"}},
]
_WHAT = f"ansible: a playbook of {len(_TASKS)} tasks"
_WAYS = {
    f"{_WHAT}, s": (1, "0"),
    f"{_WHAT}, pipelining, s": (1, "1"),
    f"{_WHAT}, 10 hosts at once, s": (10, "0"),
}


class _Playbook:
    """Runs the playbook on some hosts, by one connection plugin.

    Args:
        place: where.
        name: the name of a folder for its files.
        variables: what leads to the hosts.
        hosts: how many.
        pipelining: "0" or "1".
    """

    def __init__(
        self, place: Place, name: str, variables: dict[str, Any], hosts: int, pipelining: str
    ) -> None:
        folder = place.realm.tmpdir / name
        folder.mkdir()
        (folder / "template").write_text("{{ inventory_hostname }}\n")
        (folder / "script").write_text("#!/bin/sh\nexit 0\n")
        play = {"hosts": "all", "gather_facts": False, "tasks": _TASKS}
        (folder / "playbook.yml").write_text(json.dumps([play]))
        inventory = {
            f"h{number}": {
                # Each host has a connection of its own, as it has in life.
                "ansible_control_path": f"{folder}/c{number}",
                "there": f"{folder}/there{number}",
            }
            for number in range(hosts)
        }
        shared = {
            **variables,
            "here": str(folder),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        groups = {"all": {"hosts": inventory, "vars": shared}}
        (folder / "inventory.json").write_text(json.dumps(groups))
        where = ["-i", str(folder / "inventory.json"), str(folder / "playbook.yml")]
        self._words = [sys.executable, "-m", "ansible", "playbook", "-f", "10", *where]
        self._env = {
            **place.env,
            "PYTHONPATH": str(ROOT),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT),
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_REMOTE_TMP": str(folder / "tmp"),
            "ANSIBLE_PIPELINING": pipelining,
            "LC_ALL": "C.UTF-8",
        }

    def go(self, count: int) -> Sample:
        start, before = time.perf_counter(), os.times()
        for _ in range(count):
            done = subprocess.run(self._words, env=self._env, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"the playbook failed: {done.stdout[-2000:]}{done.stderr}")
        after = os.times()
        cpu = after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        return Sample(time.perf_counter() - start, cpu)


def ask(place: Place) -> Answer:
    """Measure."""
    if find_spec("ansible") is None:
        return Answer([Row(what, _SSH, note="ansible-core is not installed") for what in _WAYS])
    contestants = {_OURS: _over_remctl(place)}
    note = ""
    try:
        contestants[_SSH] = _over_ssh(place)
    except Missing as reason:
        note = str(reason)
    rows, bars = [], []
    for number, (what, (hosts, pipelining)) in enumerate(_WAYS.items()):
        if hosts > 1 and place.effort.quick:
            rows.append(Row(what, _SSH, target=Target(1), note="takes too long for --quick"))
            continue
        playbooks = {
            key: _Playbook(place, f"ansible{number}{index}", variables, hosts, pipelining)
            for index, (key, variables) in enumerate(contestants.items())
        }
        for key, playbook in playbooks.items():
            place.progress(f"warming up {key}")
            playbook.go(1)
        found = run(
            playbooks, dict.fromkeys(playbooks, 1), place.effort.bulk_rounds, place.progress
        )
        rows.append(_row(what, found, note))
        way = what.removeprefix(_WHAT).removesuffix(", s")
        bars += [Bar(f"{key}{way}", _seconds(found, key), key == _OURS) for key in playbooks]
    return Answer(rows, bars, f"seconds for a playbook of {len(_TASKS)} tasks (less is better)")


def _over_remctl(place: Place) -> dict[str, Any]:
    return {
        "ansible_connection": "remctl.toolkit.remctl",
        "ansible_host": place.server.host,
        "ansible_port": place.server.port,
        "ansible_remctl_principal": place.server.principal,
    }


def _over_ssh(place: Place) -> dict[str, Any]:
    return {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.1",
        "ansible_port": place.sshd.port,
        "ansible_ssh_private_key_file": str(place.sshd.folder / "user_key"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={place.sshd.folder}/known_hosts",
        "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=60s",
    }


def _seconds(found: Race, key: str) -> Spread:
    return Spread.of(found.times(key))


def _row(what: str, found: Race, note: str) -> Row:
    ours, target = _seconds(found, _OURS), Target(1)
    if note:
        return Row(what, _SSH, ours, target=target, note=note)
    return Row(what, _SSH, ours, _seconds(found, _SSH), found.ratio(_OURS, _SSH), target=target)

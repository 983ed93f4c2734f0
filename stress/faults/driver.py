"""Run a scenario's faults in a process of its own, and tell what was found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from .build import LIBRARY, RESOLVER
from .scan import ROOT
from .servers import HOSTS

LIMIT = 300.0  # seconds for all faults of a scenario; each single one is bounded by the child


class Report(NamedTuple):
    """Which calls of a scenario can fail, each as often as it is made, and what was found."""

    sites: list[str]
    found: list[tuple[str, str]]  # the fault, and what is wrong


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process that uses the build in `folder`."""
    libraries = [str(folder / LIBRARY), str(folder / RESOLVER)]
    preloaded = filter(None, [*libraries, os.environ.get("LD_PRELOAD")])
    return {
        **os.environ,
        "FAKE_HOSTS": " ".join(HOSTS),
        "LD_PRELOAD": ":".join(preloaded),
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), *filter(None, sys.path)]),
        "PYTHONSAFEPATH": "1",  # or the folder it is started in, with the usual build, comes first
    }


def examine(
    folder: Path, scenario: str, ports: dict[str, int], *, count_only: bool = False
) -> Report:
    """Have every call of a scenario fail once; a crash, too, is something that was found.

    With `count_only` nothing fails: the answer is which calls there are.
    """
    found: list[tuple[str, str]] = []
    first = None if count_only else 0
    while True:
        done = run_child(folder, [scenario, ports, first])
        last, _, printed = done.stderr.rpartition("-- ")[2].partition("\n")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode == 0 and not printed.strip():
            found += [(fault, wrong) for fault, wrong in lines[:-1]]
            return Report(lines[-1], found)
        found += [(fault, wrong) for fault, wrong in lines]
        number, _, fault = last.partition(" ")
        found.append((fault, f"ended with {done.returncode}:\n{printed.strip()}"))
        first = int(number) + 1
        if first == 0:  # Not even without a fault does it come to an end.
            return Report([], found)


def run_child(folder: Path, arguments: list[object]) -> subprocess.CompletedProcess[str]:
    """Run child.py; what it prints on standard error tells how far it got."""
    command = [sys.executable, "-W", "error", "-m", "stress.faults.child"]
    return subprocess.run(
        [*command, json.dumps(arguments)],
        capture_output=True,
        env=environment(folder),
        text=True,
        timeout=LIMIT,
        check=False,
    )

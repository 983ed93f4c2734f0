"""Run a scenario's faults in a separate process, and return the findings."""

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
    """The calls of a scenario that can fail, one entry for each time, and the findings."""

    sites: list[str]
    found: list[tuple[str, str]]  # the fault, and what is wrong


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that uses the build in `folder`."""
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
    """Make every call of a scenario fail once; a crash is a finding, too.

    With `count_only`, nothing fails, and the report lists the calls.
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
        if first == 0:  # It does not even succeed without a fault.
            return Report([], found)


def run_child(folder: Path, arguments: list[object]) -> subprocess.CompletedProcess[str]:
    """Run child.py; its standard error shows its progress."""
    command = [sys.executable, "-W", "error", "-m", "stress.faults.child"]
    return subprocess.run(
        [*command, json.dumps(arguments)],
        capture_output=True,
        env=environment(folder),
        text=True,
        timeout=LIMIT,
        check=False,
    )

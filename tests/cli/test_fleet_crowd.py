"""remctl-fleet on 64 hosts: good, slow, odd, denying, refusing, silent, and nonexistent ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.crowd import run
from testing.processes import TIMEOUT, python_environ

from remctl_toolkit.hosts import HostList, fold
from remctl_toolkit.testing import Realm

pytestmark = pytest.mark.once

GOOD = [number for number in range(1, 49) if number % 4 in (0, 1)]
SLOW = [f"n{number}" for number in range(2, 49, 4)]
KIND_OF = {
    "dead": "no connection",
    "deny": "refused",
    "silent": "timed out, not sent",
    "void": "timed out, not sent",
}
KINDS = {*KIND_OF.values(), "exit status 3", "timed out, may still be running"}
ODD = [f"n{number}" for number in range(3, 49, 4)]


def test_a_crowd_on_loopback(remctl_realm: Realm, tmp_path: Path) -> None:
    said = run(remctl_realm, tmp_path, {})
    good = fold(f"n{number}" for number in [*GOOD, 49, 53])
    check(said, tmp_path, good, [*SLOW, "n50", "n54"], ["dead", "deny", "silent"])


@pytest.mark.skipif(
    not (
        sys.platform.startswith("linux")
        and os.geteuid() == 0
        and Path("/dev/net/tun").exists()
        and shutil.which("unshare")
        and shutil.which("ip")
    ),
    reason="a network namespace needs Linux, root, /dev/net/tun, unshare and ip",
)
def test_a_crowd_in_a_network_namespace(tmp_path: Path) -> None:
    """Some of the hosts drop packets."""
    tests = Path(__file__).resolve().parent.parent
    path = os.pathsep.join([str(tests), python_environ()["PYTHONPATH"]])
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "cli.crowd", str(tmp_path)],
        env=python_environ(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    good = fold(f"n{number}" for number in GOOD)
    check(json.loads(done.stdout), tmp_path, good, SLOW, ["dead", "deny", "silent", "void"])


def check(
    said: dict[str, Any], folder: Path, good: str, slow: list[str], unsent: list[str]
) -> None:
    """Check that the output is complete and has nothing else."""
    assert said["status"] == 1
    assert said["stdout"].encode(errors="surrogateescape") == (
        f"{good}: fine\n{fold(slow)}: so far\n{fold(ODD)}:\n".encode() + b"  \x1b[2Jodd\n  \xff\n"
    )
    table, closing = said["stderr"].split(" succeeded, ")
    kinds = "|".join(KINDS)
    # Long names have a line of their own.
    rows = re.findall(rf"^  (\w\S*)(?:\n  )? +({kinds})(?:  |$)", table, re.MULTILINE)
    assert sorted(rows) == sorted(
        [
            (fold(ODD), "exit status 3"),
            (fold(slow), "timed out, may still be running"),
            *((f"{name}[1-4]", KIND_OF[name]) for name in unsent),
        ]
    )
    safe = HostList()
    safe.add_file(folder / "failed")
    expected = {f"{name}{number}" for name in unsent for number in range(1, 5)}
    assert {host.name for host in safe} == expected
    unsafe = re.findall(r"^# (n\d+)  # ", said["failed"], re.MULTILINE)
    assert sorted(unsafe) == sorted([*slow, *ODD])
    again = re.search(r"\nagain: .* '(.*?)' -- mixed show\n$", closing)
    assert again
    assert {host.name for host in HostList(again[1])} == expected

"""Run the system's C client of remctl, as an independent check of servers."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from remctl_toolkit.testing import Realm

REMCTL = shutil.which("remctl") or ""

needs_remctl = pytest.mark.skipif(not REMCTL, reason="Debian's remctl-client is not installed")


def remctl_arguments(realm: Realm, port: int, *command: str) -> list[str]:
    """Return the command line that runs a command on localhost."""
    return [REMCTL, "-p", str(port), "-s", realm.host_principal, "localhost", *command]


def run_remctl(realm: Realm, port: int, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command on localhost."""
    return subprocess.run(
        remctl_arguments(realm, port, *command),
        env={**os.environ, **realm.env},
        capture_output=True,
        timeout=30,
    )

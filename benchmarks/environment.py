"""What the figures depend on: the machine and the versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import remctl

__all__ = ["describe"]

_PEERS = ("asyncssh", "paramiko", "plumbum", "fabric", "remoto")


def _output(*command: str) -> str:
    """Return what a program says of itself, on whatever stream; "none" if it is not there."""
    try:
        said = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        ).stdout
    except OSError:
        return "none"
    return said.strip().splitlines()[0] if said.strip() else "none"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(peer: str) -> str:
    try:
        return importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe() -> dict[str, str]:
    """Return what to print under the figures."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "load before (1, 5, 15 minutes)": load,
        "remctl": remctl.VERSION,
        "Python": f"{platform.python_version()}, {sys.implementation.name}",
        "libremctl": _output("pkg-config", "--modversion", "libremctl"),
        "Kerberos": _output("krb5-config", "--version"),
        "existing binding": _output(
            "dpkg-query", "--show", "--showformat", "${Package} ${Version}", "python3-pyremctl"
        ),
        "OpenSSH": _output("ssh", "-V"),
        "SSH libraries": ", ".join(f"{peer} {_version(peer)}" for peer in _PEERS),
    }

"""Describe the machine and the versions that the figures depend on."""

from __future__ import annotations

import importlib.metadata
import os

from stress.report import environment, says

__all__ = ["describe"]

_PEERS = ("asyncssh", "paramiko", "plumbum", "fabric", "remoto")


def _version(peer: str) -> str:
    try:
        return importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe() -> dict[str, str]:
    """Return the facts to print below the figures."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        **environment(),
        "load before (1, 5, 15 minutes)": load,
        "existing binding": says(
            "dpkg-query", "--show", "--showformat", "${Package} ${Version}", "python3-pyremctl"
        ),
        "OpenSSH": says("ssh", "-V"),
        "SSH libraries": ", ".join(f"{peer} {_version(peer)}" for peer in _PEERS),
    }

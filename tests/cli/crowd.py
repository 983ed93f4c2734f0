"""Run remctl-fleet on hosts of all kinds, in its own network namespace if started as a program.

    unshare --net python -m cli.crowd FOLDER

There, packets to void1 to void4 get lost, which loopback alone cannot do.  It prints what `run()`
returns, as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remctl_toolkit.testing import Realm

from .fleets import Hosts

_TUNSETIFF = 0x400454CA  # linux/if_tun.h, as are the next two
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

# TEST-NET-1 (RFC 5737)
_US = "192.0.2.1"
VOID = {f"void{number}": (f"192.0.2.{number + 1}", 4373) for number in range(1, 5)}


def run(realm: Realm, folder: Path, void: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Run a command on 64 hosts, some of which do not exist, and return the output."""
    pattern = "n[1-48],deny[1-4],dead[1-4],silent[1-4]"
    others = "void[1-4]" if void else "n[49-50,53-54]"
    failed = folder / "failed"
    with Hosts(realm, folder, void) as hosts:
        done = hosts.run(
            *("--connect-timeout", "6", "--limit", "12", "--failed-to", str(failed)),
            *(f"{pattern},{others}", "--", "mixed", "show"),
        )
    return {
        "status": done.returncode,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "failed": failed.read_text(),
    }


def _make_network() -> int:
    """Set up loopback and a network that drops packets; return its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"void", _IFF_TUN | _IFF_NO_PI))
    for command in (
        "link set lo up",
        f"address add {_US}/24 dev void",
        "link set void up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return device


def main() -> None:
    """Run the crowd in the network namespace of this process."""
    _make_network()
    with Realm() as realm, realm.environ():
        print(json.dumps(run(realm, Path(sys.argv[1]), VOID)))


if __name__ == "__main__":
    main()

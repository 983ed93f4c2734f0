"""A network with a delay: two network namespaces, and a slow wire between them.

It forwards IP packets between two TUN devices, without netem. So both ends use TCP, with Nagle's
algorithm and delayed acknowledgements. Realm and server run in one namespace, clients in the other.
Everything ends with this process.

A worker with its own orders (see worker.py):

    prepare        make everything  ->  JSON: "env", a client's variables; "namespace", its file
    delay SECONDS  from now on, for each direction  ->  ok
    quit           end
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import remctl
from remctl_toolkit.testing import Realm, RemctldServer

from ..place import COMMANDS
from .worker import set_output_aside

__all__ = ["why_not"]

# TEST-NET-1 (RFC 5737): reserved addresses.
_SERVER = "192.0.2.1"
_CLIENT = "192.0.2.2"

_CLONE_NEWNET = 0x40000000  # sched.h
_TUNSETIFF = 0x400454CA  # linux/if_tun.h, as are the next two
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_PACKET = 65536


def why_not() -> str | None:
    """Return the missing requirement of this machine, or None."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return None


class Wire:
    """Carries packets from each of two TUN devices to the other, after a delay."""

    def __init__(self, ends: tuple[int, int]) -> None:
        """Set the two descriptors; run() forwards packets."""
        self.delay = 0.0
        self._ends = ends
        self._waiting: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in ends}

    def run(self) -> None:
        """Forward packets for ever."""
        while True:
            due = [queue[0][0] for queue in self._waiting.values() if queue]
            timeout = max(0.0, min(due) - time.monotonic()) if due else None
            readable, _, _ = select.select(self._ends, [], [], timeout)
            for end in readable:
                other = self._ends[1 - self._ends.index(end)]
                packet = os.read(end, _PACKET)
                self._waiting[other].append((time.monotonic() + self.delay, packet))
            self._deliver()

    def _deliver(self) -> None:
        now = time.monotonic()
        for end, queue in self._waiting.items():
            while queue and queue[0][0] <= now:
                os.write(end, queue.popleft()[1])


def _enter_new_namespace(address: str) -> tuple[int, int]:
    """Move to a new network namespace with one device in it.

    Returns:
        A descriptor of the namespace, and one of the device.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN | _IFF_NO_PI))
    for command in (
        "link set lo up",
        f"address add {address}/24 dev wire",
        "link set wire up",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return os.open("/proc/self/ns/net", os.O_RDONLY), device


def _return_to_namespace(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _serve_orders(wire: Wire, description: str, answers: int) -> None:
    for line in sys.stdin:
        verb, _, argument = line.strip().partition(" ")
        if verb == "quit":
            return
        if verb == "delay":
            wire.delay = float(argument)
        os.write(answers, f"{description if verb == 'prepare' else 'ok'}\n".encode())


def main() -> None:
    """Make the network, and keep it until "quit"."""
    answers = set_output_aside()
    servers, server_end = _enter_new_namespace(_SERVER)
    clients, client_end = _enter_new_namespace(_CLIENT)
    _return_to_namespace(servers)
    wire = Wire((server_end, client_end))
    threading.Thread(target=wire.run, daemon=True).start()
    with Realm() as realm, RemctldServer(realm, COMMANDS, address=_SERVER) as server:
        # This caches the service ticket, because clients cannot reach the KDC.
        with realm.environ():
            remctl.remctl(server.host, server.port, server.principal, ("echo", "hello"))
        description = {
            "env": {**realm.env, **server.env},
            "namespace": f"/proc/{os.getpid()}/fd/{clients}",
        }
        _serve_orders(wire, json.dumps(description), answers)


if __name__ == "__main__":
    main()

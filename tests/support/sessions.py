"""Open sessions of tests, and wait for their data."""

from __future__ import annotations

import os
import selectors
import socket
from typing import TYPE_CHECKING, Any

import remctl

if TYPE_CHECKING:
    from remctl_toolkit.testing import RemctldServer

    from .loopback import LoopbackServer

LIMIT = 30.0  # seconds after which a wait has failed


def connect(server: RemctldServer | LoopbackServer, **keywords: Any) -> remctl.Remctl:
    """Return a session with a server on localhost; by default it has a timeout."""
    return remctl.Remctl("localhost", server.port, **{"timeout": LIMIT, **keywords})


def await_data(session: remctl.Remctl) -> None:
    """Wait as an event loop does: for octets, or for the end from a server that is gone.

    A remctld that was killed has ended, but the processes of its sessions may take a moment more.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(session, selectors.EVENT_READ)
        assert selector.select(LIMIT)


def all_tokens(session: remctl.Remctl) -> list[remctl.RemctlOutput]:
    """Return all tokens of a command, read with output() as documented."""
    found = [session.output()]
    while found[-1].type == "output":
        found.append(session.output())
    return found


def shrink_receive_buffer(session: remctl.Remctl | int) -> None:
    """Have a session's socket, or that of a descriptor, take less than a large token at once."""
    descriptor = session if isinstance(session, int) else session.fileno()
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

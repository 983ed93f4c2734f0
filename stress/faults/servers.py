"""The servers for the scenarios; they run in the parent, where no call fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from support.fakeserver import ClientGone, Command, FakeServer, Peer, Refusal, Result, serve
from support.proxy import DeafListener, SilentServer, refused_port

DEAF = "127.0.0.2"  # An address where connect() to the port of protocol 3 hangs.

# For the resolver; the second one is that of the server of protocol 3.
HOSTS = (
    "refusing.test=127.0.0.4,127.0.0.1",
    f"slow.test={DEAF},127.0.0.1",
    "both.test=::1,127.0.0.1",
    "unknown.test=::1%unknown",
)


def answer(command: Command) -> Result:
    """Answer the scenarios' commands."""
    match command:
        case [b"both", *_]:
            return b"out\n", b"err\n", 0
        case [b"status", number]:
            return b"", b"", int(number)
        case [b"count", data]:
            return b"%d" % len(data), b"", 0
        case [b"size", number]:
            return bytes(int(number)), b"", 0
        case [b"refuse", *_]:
            raise Refusal(6, "Access denied")
    raise ClientGone("told to hang up")


def serve_once(peer: Peer) -> None:
    """Answer one command and hang up."""
    peer.accept()
    peer.read_command()
    peer.send_status(6)


def serve_never(peer: Peer) -> None:
    """Read a command or a noop, and do not answer."""
    peer.accept()
    peer.read_message()
    peer.stall()


@contextlib.contextmanager
def servers(keytab: str | os.PathLike[str]) -> Iterator[dict[str, int]]:
    """Run them all: of each protocol, refused, silent, brief (hangs up), mute (never answers)."""
    with contextlib.ExitStack() as stack:
        behaved = serve(handler=answer)
        running = {
            str(protocol): FakeServer(keytab, behaved, protocol=protocol) for protocol in (1, 2, 3)
        }
        running["brief"] = FakeServer(keytab, serve_once)
        running["mute"] = FakeServer(keytab, serve_never)
        ports = {name: stack.enter_context(server).port for name, server in running.items()}
        ports["silent"] = stack.enter_context(SilentServer()).port
        ports["refused"] = stack.enter_context(refused_port())
        stack.enter_context(DeafListener(DEAF, ports["3"]))
        yield ports

"""Runs the command of a request, as if it ran here."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from remctl_toolkit.cli.typed import typed
from remctl_toolkit.machine.channel.channel import Channel

from .streams import Over, Pumps

if TYPE_CHECKING:
    from remctl_toolkit.machine import Connection

    from .request import Request

__all__ = ["StoppedError", "run"]

Event = Any  # a signal's number, an Over, or an exception

_GRACE = 2.0  # seconds that the command has to end after a signal

_SUBSYSTEMS = {
    "sftp": """\
for server in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec /usr/local/libexec
do [ ! -x $server/sftp-server ] || exec $server/sftp-server
done
if server=`command -v sftp-server`; then exec "$server"; fi
echo 'remctl-rsh: there is no sftp-server on this host' >&2
exit 127"""
}

# Runs on the server, for -W: joins its standard input and output to a connection.
_CONNECT = """\
import os, socket, threading
host, port = eval(payload)
def send():
    while octets := os.read(0, 65536):
        near.sendall(octets)
    near.shutdown(socket.SHUT_WR)
try:
    if host:
        near = socket.create_connection((host, port))
    else:
        near = socket.socket(socket.AF_UNIX)
        near.connect(port)
    threading.Thread(target=send, daemon=True).start()
    while octets := near.recv(65536):
        os.write(1, octets)
except OSError as error:
    where = f"{host}:{port}" if host else port
    text = f"remctl-rsh: the server cannot connect to {where}: {error.strerror}"
    os.write(2, text.encode() + b"\\n")
    os._exit(255)
os._exit(0)
"""

# Set by remctld, and not by sshd: rsync takes REMOTE_HOST for the client's address.
_REMCTLD_SETS = (
    *("REMCTL_COMMAND", "REMOTE_ADDR", "REMOTE_EXPIRES", "REMOTE_HOST", "REMOTE_USER", "REMUSER"),
)


class StoppedError(Exception):
    """A signal has to end this process, now that all is tidied up.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals() -> Iterator[queue.SimpleQueue[Event]]:
    """Have the signals that ask to end in a queue; the second one ends the process."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    before: dict[int, Any] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        events.put(number)  # Which may be done in the middle of a get().

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # As nohup(1) has it.
            before[number] = signal.signal(number, handle)
    try:
        yield events
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def run(connection: Connection, request: Request, started: Callable[[], None]) -> int:
    """Run a command with our standard input, output and error.

    Args:
        connection: the way to its account.
        request: what to run.
        started: called when the command has started, and the tunnels are open.

    Returns:
        The exit status, 0 to 255; -N if signal N ended the command.

    Raises:
        StoppedError: a signal came, or nobody reads our output; the command has been ended.
        RemctlError: it cannot be started, or the connection was lost.
        OSError: a tunnel cannot be made: its port is in use, say.
        StreamError: our input cannot be read, or our output not be written.
        UsageError: there is no such subsystem.
    """
    how: dict[str, Any] = {"extend_env": _environment(connection, request)}
    if request.stdio:
        how |= {"source": _CONNECT, "payload": repr(request.stdio).encode(), "label": "tunnel"}
    else:
        how |= {"argv": _argv(connection, request), "label": _label(request)}
    with (
        _signals() as events,
        _tunnels(connection, request),
        Channel(connection, **how) as channel,
    ):
        started()
        idle = request.no_command and not request.stdio  # Its input neither comes nor ends.
        if request.no_input and not idle:
            channel.close_write()
        pumps = Pumps(channel, events, reads=not (request.no_input or idle))
        try:
            return _wait(channel, events)
        finally:
            channel.close()
            pumps.close()


def _environment(connection: Connection, request: Request) -> dict[str, str | None]:
    """Return what to change in the environment: the command gets what sshd gives it."""
    with connection.session() as session, socket.socket(fileno=os.dup(session.fileno())) as view:
        near, far = view.getsockname(), view.getpeername()
    # As the server sees us, if it says so: there may be a NAT between.
    client = f"{connection.far.client or near[0]} {near[1]}"
    return {
        **dict.fromkeys(_REMCTLD_SETS),
        "SSH_CLIENT": f"{client} {far[1]}",
        "SSH_CONNECTION": f"{client} {far[0]} {far[1]}",
        **request.changes,
    }


@contextmanager
def _tunnels(connection: Connection, request: Request) -> Iterator[None]:
    """Have the tunnels that were asked for."""
    if not request.local and not request.remote:
        yield
        return
    from remctl_toolkit.machine.tunnel.tunnel import Tunnel

    with ExitStack() as stack:
        for bind, port, host, far_port in request.local:
            stack.enter_context(Tunnel(connection, port, far_port, bind, host))
        for bind, port, host, near_port in request.remote:
            tunnel = Tunnel(connection, near_port, port, host, bind, reverse=True)
            stack.enter_context(tunnel)
            if port == 0:  # In ssh's words, which plumbum, for one, reads.
                where = f"{host}:{near_port}"
                text = f"Allocated port {tunnel.dport} for remote forward to {where}\n"
                sys.stderr.write(text)
                sys.stderr.flush()
        yield


def _wait(channel: Channel, events: queue.SimpleQueue[Event]) -> int:
    event = events.get()
    if isinstance(event, Over):
        return event.status
    number: Event = signal.SIGPIPE if isinstance(event, BrokenPipeError) else event
    if not isinstance(number, int):
        raise number
    # The command may have something to say about it, or to tidy up.
    channel.send_signal(number)
    try:
        events.get(timeout=_GRACE)
    except queue.Empty:
        channel.kill()
    raise StoppedError(number)


def _argv(connection: Connection, request: Request) -> list[str | bytes]:
    from .request import UsageError

    if request.subsystem:
        name = request.command[0]
        if name not in _SUBSYSTEMS:
            known = ", ".join(_SUBSYSTEMS)
            raise UsageError(f"there is no subsystem {name!r}: there is {known}")
        return ["/bin/sh", "-c", _SUBSYSTEMS[name]]
    if request.no_command:
        return ["cat"]  # It waits for input; the channel tells when the far side is gone.
    if request.exact:
        return [*typed(request.command)]
    if request.command:
        return ["/bin/sh", "-c", b" ".join(typed(request.command))]
    shell: list[str | bytes] = [connection.far.shell, "-l"]
    # Without a terminal over there a shell has to be told that somebody is typing.
    return [*shell, "-i"] if not request.no_input and os.isatty(0) else shell


def _label(request: Request) -> str:
    """Return what remctld's log shows: the program's name, if that is certainly all it is."""
    if not request.command:
        return "tunnel" if request.no_command else "shell"
    word = request.command[0].split(None, 1)[0] if request.command[0].strip() else ""
    return os.path.basename(word) if re.fullmatch(r"[\w./+-]+", word) else "sh"

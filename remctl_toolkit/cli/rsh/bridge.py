"""Run the command of a request as if it were a local process."""

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

from remctl_toolkit.cli.octets import argument_octets
from remctl_toolkit.machine.channel.channel import Channel

from .streams import Ended, StreamCopier

if TYPE_CHECKING:
    from remctl_toolkit.machine import Connection

    from .request import Request

__all__ = ["StoppedError", "run"]

Event = Any  # a signal's number, an Ended, or an exception

_KILL_DELAY = 2.0  # seconds between passing on a signal and killing the command

_SUBSYSTEMS = {
    "sftp": """\
for server in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec /usr/local/libexec
do [ ! -x $server/sftp-server ] || exec $server/sftp-server
done
if server=`command -v sftp-server`; then exec "$server"; fi
echo 'remctl-rsh: there is no sftp-server on this host' >&2
exit 127"""
}

# Runs on the server for -W, and connects its standard input and output to a socket.
_CONNECT = """\
import os, socket, threading
host, port = eval(payload)
def send():
    while octets := os.read(0, 65536):
        peer.sendall(octets)
    peer.shutdown(socket.SHUT_WR)
try:
    if host:
        peer = socket.create_connection((host, port))
    else:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(port)
    threading.Thread(target=send, daemon=True).start()
    while octets := peer.recv(65536):
        os.write(1, octets)
except OSError as error:
    where = f"{host}:{port}" if host else port
    text = f"remctl-rsh: the server cannot connect to {where}: {error.strerror}"
    os.write(2, text.encode() + b"\\n")
    os._exit(255)
os._exit(0)
"""

# remctld sets these, and sshd does not: rsync would take REMOTE_HOST for the client's address.
_REMCTLD_SETS = (
    *("REMCTL_COMMAND", "REMOTE_ADDR", "REMOTE_EXPIRES", "REMOTE_HOST", "REMOTE_USER", "REMUSER"),
)


class StoppedError(Exception):
    """A signal must end this process, after all is cleaned up.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals() -> Iterator[queue.SimpleQueue[Event]]:
    """Queue the signals that ask to exit; the second one ends the process."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    before: dict[int, Any] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        events.put(number)  # A SimpleQueue is reentrant: the handler may interrupt its get().

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) ignores SIGHUP.
            before[number] = signal.signal(number, handle)
    try:
        yield events
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def run(connection: Connection, request: Request, started: Callable[[], None]) -> int:
    """Run a command with this process's standard input, output and error.

    Args:
        connection: a connection to the account.
        request: the command.
        started: called when the command has started and the tunnels are open.

    Returns:
        The exit status, 0 to 255; -N if signal N ended the command.

    Raises:
        StoppedError: a signal came, or the reader of our output is gone; the command was ended.
        RemctlError: the command cannot be started, or the connection was lost.
        OSError: a tunnel cannot be opened, for example because its port is in use.
        StreamError: our input cannot be read, or our output cannot be written.
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
        idle = request.no_command and not request.stdio  # It keeps an input without data.
        if request.no_input and not idle:
            channel.close_write()
        copier = StreamCopier(channel, events, reads=not (request.no_input or idle))
        try:
            return _wait(channel, events)
        finally:
            channel.close()
            copier.close()


def _environment(connection: Connection, request: Request) -> dict[str, str | None]:
    """Return changes to the command's environment that make it like that of sshd."""
    with connection.session() as session, socket.socket(fileno=os.dup(session.fileno())) as view:
        local, remote = view.getsockname(), view.getpeername()
    # Behind a NAT, the server sees another address of ours.
    client = f"{connection.far.client or local[0]} {local[1]}"
    return {
        **dict.fromkeys(_REMCTLD_SETS),
        "SSH_CLIENT": f"{client} {remote[1]}",
        "SSH_CONNECTION": f"{client} {remote[0]} {remote[1]}",
        **request.changes,
    }


@contextmanager
def _tunnels(connection: Connection, request: Request) -> Iterator[None]:
    """Keep the requested tunnels open."""
    if not request.local and not request.remote:
        yield
        return
    from remctl_toolkit.machine.tunnel.tunnel import Tunnel

    with ExitStack() as stack:
        for bind, port, host, remote_port in request.local:
            stack.enter_context(Tunnel(connection, port, remote_port, bind, host))
        for bind, port, host, local_port in request.remote:
            tunnel = Tunnel(connection, local_port, port, host, bind, reverse=True)
            stack.enter_context(tunnel)
            if port == 0:  # Programs such as plumbum parse this message of ssh.
                where = f"{host}:{local_port}"
                text = f"Allocated port {tunnel.dport} for remote forward to {where}\n"
                sys.stderr.write(text)
                sys.stderr.flush()
        yield


def _wait(channel: Channel, events: queue.SimpleQueue[Event]) -> int:
    event = events.get()
    if isinstance(event, Ended):
        return event.status
    number: Event = signal.SIGPIPE if isinstance(event, BrokenPipeError) else event
    if not isinstance(number, int):
        raise number
    # Let the command clean up first.
    channel.send_signal(number)
    try:
        events.get(timeout=_KILL_DELAY)
    except queue.Empty:
        channel.kill()
    raise StoppedError(number)


def _argv(connection: Connection, request: Request) -> list[str | bytes]:
    from .request import UsageError

    if request.subsystem:
        name = request.command[0]
        if name not in _SUBSYSTEMS:
            known = ", ".join(_SUBSYSTEMS)
            raise UsageError(f"unknown subsystem {name!r} (known: {known})")
        return ["/bin/sh", "-c", _SUBSYSTEMS[name]]
    if request.no_command:
        return ["cat"]  # It waits until the connection ends.
    if request.exact:
        return [*argument_octets(request.command)]
    if request.command:
        return ["/bin/sh", "-c", b" ".join(argument_octets(request.command))]
    shell: list[str | bytes] = [connection.far.shell, "-l"]
    # The remote shell has no terminal, so it needs -i to be interactive.
    return [*shell, "-i"] if not request.no_input and os.isatty(0) else shell


def _label(request: Request) -> str:
    """Return a name for remctld's log: that of the program, unless the word may be more."""
    if not request.command:
        return "tunnel" if request.no_command else "shell"
    word = request.command[0].split(None, 1)[0] if request.command[0].strip() else ""
    return os.path.basename(word) if re.fullmatch(r"[\w./+-]+", word) else "sh"

"""execnet gateways: Python on the remote host, with channels to it.

    group = execnet.Group()
    gateway = open_gateway(connection, group=group)
    gateway.remote_exec("channel.send(6 * 7)").receive()  # 42
    group.terminate()

The gateway is execnet's own; here is what it reads and writes.  It needs nothing of execnet but
what each of its own gateways is made of: `Group`, `XSpec`, `Gateway`, the protocol `IO`, and the
function that sends the remote half (`bootstrap_exec`).
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import errno
import sys
import threading
from typing import TYPE_CHECKING, cast

from _remctl_text import printable

from .base.errors import MachineError
from .base.outputs import Tail
from .channel.channel import Channel
from .process.target import connection_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import execnet
    from execnet.gateway_base import ExecModel

    from .base.connection import Connection
    from .base.program import Word
    from .process.target import Machine

__all__ = ["GatewayError", "open_gateway"]

_EXIT = 1.0  # seconds for it when Python ends, as execnet's own gateways have
_ENDING = 10.0  # seconds that an interpreter has to end: execnet's half gives its threads five
_MODELS = ("thread", "main_thread_only")

# execnet's half is sent as the first line of standard input.
_BOOTSTRAP = "import sys;exec(eval(sys.stdin.readline()))"


class GatewayError(MachineError):
    """The remote Python did not become a gateway."""


def open_gateway(
    connection: Machine,
    *,
    group: execnet.Group | None = None,
    id: str | None = None,
    python: Word | Sequence[Word] | None = None,
) -> execnet.Gateway:
    """Return an execnet gateway to an interpreter in the connection's account.

    It ends with its group (``group.terminate()``), by ``gateway.exit()``, or with the connection;
    nothing of it is left on the host.  Its standard error comes out on ours, as with execnet's own
    gateways; a terminal gets escapes in place of what is not printable.  What is printed there
    goes nowhere.

    Args:
        connection: the way to the account, or a machine.
        group: the group that it becomes a member of; None is execnet's own,
            ``execnet.default_group``, which ends with this process.
        id: its name in the group; None finds one.
        python: the interpreter on the host, 3.8 or later, or the words of a command that becomes
            one (``["sudo", "-n", "python3"]``); None is the one that the connection uses.

    Raises:
        TypeError: `connection` is neither.
        ValueError: there is such an id in the group, the group uses greenlets, or this is remoto's
            connection with sudo or to a container, which has a `gateway` of its own.
        GatewayError: the command is missing, or is not an interpreter.
        RemctlError: see `Channel`.
        ImportError: execnet is not installed, or not one that this works with.
    """
    import execnet
    from execnet.gateway_bootstrap import bootstrap_exec

    connection = connection_of(connection)
    if group is None:
        group = execnet.default_group
    if group.execmodel.backend not in _MODELS:
        raise ValueError(f"the gateway needs threads, and its group has {group.execmodel.backend}")
    spec = execnet.XSpec(f"ssh={connection.host}")
    spec.id = id
    group.allocate_id(spec)
    if any(gateway.id == spec.id for gateway in group):
        raise ValueError(f"the group has a gateway {spec.id!r} already")
    spec.execmodel = group.remote_execmodel.backend
    words: list[Word] = [connection.far.python]
    if python is not None:
        words = list(python) if isinstance(python, list | tuple) else [cast("Word", python)]
    io = _ChannelIO(connection, words, group.execmodel)
    try:
        # check_started() explains an interpreter that ends before it has read all of this.
        with contextlib.suppress(BrokenPipeError):
            bootstrap_exec(io, spec)
        io.check_started()
        gateway = execnet.Gateway(io, spec)
    except BaseException:
        io.end()
        raise
    group._register(gateway)
    # Its group ends it in new threads, which no longer start when Python ends.
    atexit.register(io.leave, gateway)
    return gateway


class _ChannelIO:
    """A channel as the protocol ``execnet.gateway_base.IO``, which its gateways read and write."""

    def __init__(self, connection: Connection, python: list[Word], execmodel: ExecModel) -> None:
        self.execmodel = execmodel
        self.remoteaddress = connection.host
        self._name = " ".join(map(str, python))
        self._writing = threading.Lock()
        self._greeted = False
        self._at_end = False  # The interpreter's output has ended.
        self._complaint = Tail()
        self._channel = Channel(connection, [*python, "-u", "-c", _BOOTSTRAP], label="gateway")
        self._errors = threading.Thread(
            target=self._show_errors, name="remctl-gateway-stderr", daemon=True
        )
        self._errors.start()

    # For execnet, which expects EOFError and OSError.

    def read(self, size: int, /) -> bytes:
        try:
            octets = self._channel.read_exactly(size)
        except (EOFError, MachineError) as error:
            self._at_end = True
            raise EOFError(str(error)) from error
        self._greeted = True
        return octets

    def write(self, octets: bytes, /) -> None:
        # The channel still takes data until it is told that the interpreter has ended.
        if self._at_end or self._channel.returncode is not None:
            raise BrokenPipeError(errno.EPIPE, f"Python on {self.remoteaddress} has ended")
        try:
            with self._writing:  # A large message must not be cut by another thread's.
                self._channel.write(octets)
        except MachineError as error:
            raise OSError(str(error)) from error

    def close_read(self) -> None:
        """End it all: execnet calls this when there is nothing more to read."""
        with contextlib.suppress(MachineError, TimeoutError):  # What is left, end() ends.
            self._channel.wait(_ENDING)
        self.end()

    def close_write(self) -> None:
        # It may have ended, and execnet's receiver must not stumble over that.
        with contextlib.suppress(MachineError):
            self._channel.close_write()

    def wait(self) -> int | None:
        with contextlib.suppress(MachineError):
            return self._channel.wait()
        return self._channel.returncode

    def kill(self) -> None:
        with contextlib.suppress(MachineError):  # It was lost, or closed.
            self._channel.kill()
        self.end()

    # For us.

    def check_started(self) -> None:
        """Raise GatewayError, or ChannelError, unless the interpreter is a gateway."""
        if self._greeted:
            return
        with contextlib.suppress(TimeoutError):
            self._channel.wait(_ENDING)
        self._errors.join(_ENDING)
        reason = str(self._complaint) or f"it ended with status {self._channel.returncode}"
        text = f"{self._name} of {self.remoteaddress} did not become a gateway: {reason}"
        error = GatewayError(text)
        error.host = self.remoteaddress
        raise error

    def leave(self, gateway: execnet.Gateway) -> None:
        """End the gateway as its group would when Python ends."""
        gateway.exit()
        with contextlib.suppress(MachineError, TimeoutError):
            self._channel.wait(_EXIT)
        self.end()

    def end(self) -> None:
        """Close the channel: nothing is left on the host."""
        atexit.unregister(self.leave)
        self._channel.close()
        self._errors.join(_ENDING)

    def _show_errors(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        with contextlib.suppress(MachineError):  # It was closed; or lost, which read() raises.
            while octets := self._channel.read_stderr():
                if self._greeted:
                    text = decode(octets)
                    sys.stderr.write(printable(text, lines=True) if sys.stderr.isatty() else text)
                    sys.stderr.flush()
                else:
                    self._complaint.write(octets)

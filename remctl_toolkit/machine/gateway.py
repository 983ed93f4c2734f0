"""execnet gateways over remctl.

    group = execnet.Group()
    gateway = open_gateway(connection, group=group)
    gateway.remote_exec("channel.send(6 * 7)").receive()  # 42
    group.terminate()

The gateway is execnet's own; this module is its transport.  It uses `Group`, `XSpec`, `Gateway`,
the protocol `IO`, and the function that sends the remote half (`bootstrap_exec`).
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

_EXIT = 1.0  # seconds to end a gateway when Python exits, as execnet's own gateways have
_ENDING = 10.0  # seconds for an interpreter to end: execnet's half gives its threads five
_MODELS = ("thread", "main_thread_only")

# execnet's half is sent as the first line of standard input.
_BOOTSTRAP = "import sys;exec(eval(sys.stdin.readline()))"


class GatewayError(MachineError):
    """A gateway could not be started on the remote host."""


def open_gateway(
    connection: Machine,
    *,
    group: execnet.Group | None = None,
    id: str | None = None,
    python: Word | Sequence[Word] | None = None,
) -> execnet.Gateway:
    """Return an execnet gateway to an interpreter in the connection's account.

    It ends with its group (``group.terminate()``), by ``gateway.exit()``, or with the connection;
    nothing of it is left on the host.  Its standard error is copied to this program's, as with
    execnet's own gateways; a terminal gets escapes for unprintable characters.  What it prints on
    standard output is discarded.

    Args:
        connection: the connection to the account, or a machine.
        group: the gateway's group; None is ``execnet.default_group``, which ends with this
            process.
        id: the gateway's name in the group; None chooses one.
        python: the interpreter on the host, 3.8 or later, or the words of a command that starts
            one (``["sudo", "-n", "python3"]``); None is the one that the connection uses.

    Raises:
        TypeError: `connection` is neither.
        ValueError: the group already has this id or uses greenlets, or `connection` is remoto's
            with sudo or to a container, which has a `gateway` of its own.
        GatewayError: the command is missing, or is not an interpreter.
        RemctlError: see `Channel`.
        ImportError: execnet is not installed, or its version is not supported.
    """
    import execnet
    from execnet.gateway_bootstrap import bootstrap_exec

    connection = connection_of(connection)
    if group is None:
        group = execnet.default_group
    if group.execmodel.backend not in _MODELS:
        raise ValueError(
            f"a gateway needs threads, but the execnet group uses {group.execmodel.backend}"
        )
    spec = execnet.XSpec(f"ssh={connection.host}")
    spec.id = id
    group.allocate_id(spec)
    if any(gateway.id == spec.id for gateway in group):
        raise ValueError(f"the execnet group already has a gateway {spec.id!r}")
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
    # The group would end it in new threads, which cannot start when Python exits.
    atexit.register(io.leave, gateway)
    return gateway


class _ChannelIO:
    """Implement the protocol ``execnet.gateway_base.IO`` with a channel."""

    def __init__(self, connection: Connection, python: list[Word], execmodel: ExecModel) -> None:
        self.execmodel = execmodel
        self.remoteaddress = connection.host
        self._name = " ".join(map(str, python))
        self._writing = threading.Lock()
        self._greeted = False
        self._at_end = False
        self._complaint = Tail()
        self._channel = Channel(connection, [*python, "-u", "-c", _BOOTSTRAP], label="gateway")
        self._errors = threading.Thread(
            target=self._show_errors, name="remctl-gateway-stderr", daemon=True
        )
        self._errors.start()

    # execnet expects EOFError and OSError of these.

    def read(self, size: int, /) -> bytes:
        try:
            octets = self._channel.read_exactly(size)
        except (EOFError, MachineError) as error:
            self._at_end = True
            raise EOFError(str(error)) from error
        self._greeted = True
        return octets

    def write(self, octets: bytes, /) -> None:
        # The channel accepts data until it learns that the interpreter has ended.
        if self._at_end or self._channel.returncode is not None:
            raise BrokenPipeError(errno.EPIPE, f"Python on {self.remoteaddress} has ended")
        try:
            with self._writing:  # A large message must not be cut by another thread's.
                self._channel.write(octets)
        except MachineError as error:
            raise OSError(str(error)) from error

    def close_read(self) -> None:
        """End the interpreter: execnet calls this at the end of its output."""
        with contextlib.suppress(MachineError, TimeoutError):
            self._channel.wait(_ENDING)
        self.end()

    def close_write(self) -> None:
        # execnet's receiver does not expect an error if the interpreter has ended.
        with contextlib.suppress(MachineError):
            self._channel.close_write()

    def wait(self) -> int | None:
        with contextlib.suppress(MachineError):
            return self._channel.wait()
        return self._channel.returncode

    def kill(self) -> None:
        with contextlib.suppress(MachineError):
            self._channel.kill()
        self.end()

    def check_started(self) -> None:
        """Raise GatewayError or ChannelError if the interpreter did not start."""
        if self._greeted:
            return
        with contextlib.suppress(TimeoutError):
            self._channel.wait(_ENDING)
        self._errors.join(_ENDING)
        reason = str(self._complaint) or f"it ended with status {self._channel.returncode}"
        text = f"cannot start a gateway with {self._name} on {self.remoteaddress}: {reason}"
        error = GatewayError(text)
        error.host = self.remoteaddress
        raise error

    def leave(self, gateway: execnet.Gateway) -> None:
        """End the gateway when Python exits, as its group would."""
        gateway.exit()
        with contextlib.suppress(MachineError, TimeoutError):
            self._channel.wait(_EXIT)
        self.end()

    def end(self) -> None:
        """Close the channel."""
        atexit.unregister(self.leave)
        self._channel.close()
        self._errors.join(_ENDING)

    def _show_errors(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        with contextlib.suppress(MachineError):  # read() raises it, too.
            while octets := self._channel.read_stderr():
                if self._greeted:
                    text = decode(octets)
                    sys.stderr.write(printable(text, lines=True) if sys.stderr.isatty() else text)
                    sys.stderr.flush()
                else:
                    self._complaint.write(octets)

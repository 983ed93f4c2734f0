"""Tunnels: ports and Unix sockets of one side that lead to those of the other."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..base.program import check_seconds
from .address import Address, Port
from .both_sockets import ANY, IPV6, Listener
from .mux import REPLY_TIMEOUT, FarListener, NearMux, TunnelError, enter_mux

if TYPE_CHECKING:
    from ..base.connection import Connection

__all__ = ["Tunnel", "TunnelError", "connect_sock"]

_CONNECT_TIMEOUT = 30.0  # seconds


class Tunnel:
    """A port that leads to the other side, as ``ssh -L`` and ``ssh -R`` make them.

    It listens as soon as it exists.  Each connection to it is joined to a new connection on the
    other side: data goes both ways, each direction ends by itself, and a reset of one connection
    resets the other.  If the second connection cannot be made, the first one is reset.  All
    tunnels of a connection share one channel.

    Whoever can connect to the port can use the tunnel: any user of the host where it listens, and
    with another address than localhost anybody on the network.  A Unix socket is for its owner.

    Args:
        connection: the way to the server.
        lport: the port on this side; 0 for a free one, if it listens there.
        dport: the port on the server's side; the same.
        lhost: the host that goes with `lport`: the one to listen on, or with `reverse` to connect
            to.  If a name has several addresses, it listens on all of them that the host has.
            None: `lport` is the path of a Unix socket.
        dhost: the host that goes with `dport`, as the server knows it: the one to connect to, or
            with `reverse` to listen on, as above.  None: `dport` is the path of a Unix socket,
            relative to the home directory.
        reverse: listen on the server, and connect on this side.
        connect_timeout: seconds that each connection may take to be made, and a listener to begin.

    Attributes:
        lport, dport: the port that is listened on, or the path.
        lhost, dhost, reverse: as given.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was done.
        OSError: it cannot listen: the port is in use (EADDRINUSE), not allowed (EACCES) or not of
            that host (EADDRNOTAVAIL); on the server too.
        socket.gaierror: the host to listen on, or to connect to on this side, is not known.
        TimeoutError: the server did not begin to listen in time.
        TunnelError: the way to the server was lost meanwhile.
        ClosedError, RemctlError: see `Channel`.
    """

    def __init__(
        self,
        connection: Connection,
        lport: Port,
        dport: Port,
        lhost: str | None = "localhost",
        dhost: str | None = "localhost",
        *,
        reverse: bool = False,
        connect_timeout: float = _CONNECT_TIMEOUT,
    ) -> None:
        near = Address.checked("l", lhost, lport, os.getcwdb(), listens=not reverse)
        far = Address.checked("d", dhost, dport, _home(connection), listens=reverse)
        check_seconds("connect_timeout", connect_timeout)
        self.lhost, self.dhost, self.reverse = lhost, dhost, reverse
        self._near, self._far = near, far
        port = self._listen(connection, float(connect_timeout))
        if port and reverse:
            self._far = Address(dhost, port)
        elif port:
            self._near = Address(lhost, port)
        text = f"unclosed {self!r}: use it in a with statement, or call close()"
        self._finalizer = weakref.finalize(self, _forgotten, self._mux, self._listener, text)
        self._finalizer.atexit = False  # The end of the program needs no help.

    def _listen(self, connection: Connection, patience: float) -> int:
        here = None
        try:
            pairs = self._near.look_up()
            if not self.reverse:
                here = Listener(pairs)
        except OSError as error:
            doing = "connect to" if self.reverse else "listen on"
            raise self._near.explained(error, f"cannot {doing}") from None
        try:
            self._mux = mux = enter_mux(connection)
        except BaseException:
            if here is not None:
                here.close()
            raise
        self._listener = here or FarListener(mux, pairs, patience)
        try:
            if here is not None:
                return mux.call(REPLY_TIMEOUT, mux.listen, here, self._far.encoded(patience))
            timeout = patience + REPLY_TIMEOUT
            return mux.call(timeout, mux.listen_there, self._listener, self._far)
        except BaseException as error:
            _stop(mux, self._listener)
            if here is not None:
                here.close()  # It may have been too late to begin.
            if isinstance(error, TimeoutError) and error.errno is None:
                where = f"{self._far} of {connection.host}"
                raise TimeoutError(f"no answer whether it listens on {where}") from None
            raise

    @property
    def lport(self) -> int | str:
        """The port, or the Unix socket's path, on this side."""
        return self._near.shown

    @property
    def dport(self) -> int | str:
        """The port, or the Unix socket's path, on the server's side."""
        return self._far.shown

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its way to the server was lost."""
        return self._mux.over or not self._finalizer.alive

    def close(self) -> None:
        """Stop listening, and reset the connections; calling it again does nothing.

        When it returns, the port is free again.
        """
        if self._finalizer.detach() is not None:
            _stop(self._mux, self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        ways = "<-" if self.reverse else "->"
        state = ", closed" if hasattr(self, "_finalizer") and self.closed else ""
        return f"<Tunnel {self._near} {ways} {self._far}{state}>"


def connect_sock(
    connection: Connection,
    dport: Port,
    dhost: str | None = "localhost",
    ipv6: bool = False,
    *,
    connect_timeout: float = _CONNECT_TIMEOUT,
) -> socket.socket:
    """Connect to a port from the server, and return a socket that stands for that connection.

    The socket is one of a pair, a Unix socket: nobody else can use it.  The system cannot show a
    reset on it: that looks like the end of the data.

    Args:
        connection: the way to the server.
        dport: the port.
        dhost: the host, as the server knows it.  None: `dport` is the path of a Unix socket there,
            relative to the home directory.
        ipv6: do not use IPv4.
        connect_timeout: seconds that connecting may take.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was done.
        OSError: it cannot connect, ConnectionRefusedError for instance: the server's own error.
        socket.gaierror: the server does not know the host.
        TimeoutError: it did not connect in that time.
        TunnelError: the way to the server was lost meanwhile.
        ClosedError, RemctlError: see `Channel`.
    """
    family = IPV6 if ipv6 else ANY
    address = Address.checked("d", dhost, dport, _home(connection), listens=False, family=family)
    check_seconds("connect_timeout", connect_timeout)
    patience = float(connect_timeout)
    mux = enter_mux(connection)
    try:
        ours, theirs = socket.socketpair()
        try:
            mux.call(patience + REPLY_TIMEOUT, mux.connect, theirs, address, patience)
        except BaseException as error:
            ours.close()
            if mux.over:
                theirs.close()  # It may have been too late to use it.
            if isinstance(error, TimeoutError) and error.errno is None:
                text = f"no answer from {connection.host} about {address}"
                raise TimeoutError(text) from None
            raise
    finally:
        mux.leave()
    return ours


def _home(connection: Connection) -> bytes:
    return os.fsencode(connection.far.home)


def _stop(mux: NearMux, listener: Listener | FarListener) -> None:
    """End a listener, and wait for that; if it was the last user of the mux, end that too."""
    if mux.pid != os.getpid():
        return
    try:
        mux.begin(mux.stop, listener).result(REPLY_TIMEOUT)
    except TimeoutError:
        mux.close("the server does not answer")
    except TunnelError:
        pass  # It had been lost.
    if mux.over:
        mux.close()


def _forgotten(mux: NearMux, listener: Listener | FarListener, text: str) -> None:
    """End the listener of a tunnel that nobody refers to; wait for nothing, in any thread."""
    if mux.pid == os.getpid() and not mux.over:
        with contextlib.suppress(TunnelError):
            mux.begin(mux.stop, listener)
        warnings.warn(text, ResourceWarning, stacklevel=2)

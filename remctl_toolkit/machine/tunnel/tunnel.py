"""Tunnels: ports and Unix sockets of one side that lead to those of the other."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import warnings
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ..base.program import check_seconds
from . import both_mux as protocol
from .address import Address
from .both_mux import Listener
from .mux import FarListener, NearMux, TunnelError, enter_mux, used_mux

if TYPE_CHECKING:
    from ..base.connection import Connection

__all__ = ["Tunnel", "TunnelError", "connect_sock"]

Port: TypeAlias = "int | str | bytes | os.PathLike[str] | os.PathLike[bytes]"

_CONNECT_TIMEOUT = 30.0  # seconds
_ANSWERS = 10.0  # seconds that the far side may take for what takes it no time


class Tunnel:
    """A port that leads to the other side, as ``ssh -L`` and ``ssh -R`` make them.

    It listens as soon as it is there.  Each connection to it is joined to one that is made on the
    other side: data goes both ways, ends as it does there, and is reset when that is.  One that
    cannot be made there is reset here.  All tunnels of a connection share one channel.

    Whoever can connect to the port can use the tunnel: any user of the host where it listens, and
    with another address than localhost anybody on the network.  A Unix socket is for its owner.

    Args:
        connection: the way to the far side.
        lport: the port on this side; 0 for a free one, where it listens.
        dport: the port on the far side; the same.
        lhost: the host that goes with `lport`: where to listen, or with `reverse` to connect to.
            None: `lport` is the path of a Unix socket.
        dhost: the host that goes with `dport`, as the far side knows it: where to connect to, or
            with `reverse` to listen.  None: `dport` is the path of a Unix socket, from the home
            folder.
        reverse: listen on the far side, and connect on this one.
        connect_timeout: seconds that connecting may take each time, and listening to begin.

    Attributes:
        lport, dport: the port that is listened on, or the path.
        lhost, dhost, reverse: as given.

    Raises:
        TypeError, ValueError: an argument cannot be right; nothing was done.
        OSError: it cannot listen: the port is in use (EADDRINUSE), not allowed (EACCES) or not of
            that host (EADDRNOTAVAIL); on the far side too.
        socket.gaierror: the host to listen on, or to connect to on this side, is not known.
        TimeoutError: the far side did not begin to listen in time.
        TunnelError: the way to the far side was lost meanwhile.
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
        self._mux: NearMux | None = None
        near = _address("l", lhost, lport, os.getcwdb(), listens=not reverse)
        far = _address("d", dhost, dport, _home(connection), listens=reverse)
        self.lhost, self.dhost, self.reverse = lhost, dhost, reverse
        self._near, self._far = near, far
        check_seconds("connect_timeout", connect_timeout)
        self._patience = float(connect_timeout)
        self._closing = threading.Lock()
        self._listener: Listener | FarListener
        if reverse:
            self._listen_there(connection)
        else:
            self._listen_here(connection)

    def _listen_here(self, connection: Connection) -> None:
        try:
            sock = protocol.bind(self._near.found_here())
        except OSError as error:
            raise _explained(error, f"cannot listen on {self._near}") from None
        try:
            mux = enter_mux(connection)
        except BaseException:
            _close_listening(sock)
            raise
        future = mux.listen_here(sock, self._far.encoded(self._patience))
        try:
            self._listener = future.result()
        except BaseException:  # Ctrl-C, too: the listener may be there, or come to be.
            future.add_done_callback(lambda done: _undo_listening(mux, sock, done))
            raise
        self._mux = mux
        if self._listener.port is not None:
            self._near = Address(self.lhost, self._listener.port)

    def _listen_there(self, connection: Connection) -> None:
        try:
            target = self._near.found_here()
        except OSError as error:
            raise _explained(error, f"cannot connect to {self._near}") from None
        self._listener = listener = FarListener(self._far, target, self._patience)
        self._mux = enter_mux(connection)
        self._mux.listen_there(listener)
        try:
            port = listener.listening.result(self._patience + _ANSWERS)
        except TimeoutError:
            self.close()
            where = f"{self._far} of {connection.host}"
            raise TimeoutError(f"no answer whether it listens on {where}") from None
        except BaseException:
            self.close()
            raise
        if port:
            self._far = Address(self.dhost, port)

    @property
    def lport(self) -> int | str:
        """The port, or the Unix socket's path, on this side."""
        return _shown(self._near)

    @property
    def dport(self) -> int | str:
        """The port, or the Unix socket's path, on the far side."""
        return _shown(self._far)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its way to the far side was lost."""
        return self._mux is None or self._mux.over

    def close(self) -> None:
        """Listen no more, and reset the connections that there are; again does nothing.

        When it returns, the port is free again.
        """
        with self._closing:
            mux, self._mux = self._mux, None
        if mux is None or mux.pid != os.getpid():
            return
        try:
            mux.stop(self._listener).result(_ANSWERS)
        except TimeoutError:
            mux.end("the far side does not answer")
        except TunnelError:
            pass  # It was lost before.
        if mux.over:
            mux.end()

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
        state = ", closed" if self.closed else ""
        return f"<Tunnel {self._near} {ways} {self._far}{state}>"

    def __del__(self) -> None:
        mux = getattr(self, "_mux", None)
        if mux is None or mux.pid != os.getpid() or sys.is_finalizing():
            return
        text = f"unclosed {self!r}: use it in a with statement, or call close()"
        warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
        mux.stop(self._listener)  # Not to be waited for: this may be any thread.


def connect_sock(
    connection: Connection,
    dport: Port,
    dhost: str | None = "localhost",
    ipv6: bool = False,
    *,
    connect_timeout: float = _CONNECT_TIMEOUT,
) -> socket.socket:
    """Connect to a port over there, and return a socket that is as good as connected to it.

    The socket is one of a pair, a Unix socket: nobody else can use it.  A connection that is reset
    over there shows as the end of the data here, as far as the system cannot tell of it.

    Args:
        connection: the way to the far side.
        dport: the port.
        dhost: the host, as the far side knows it.  None: `dport` is the path of a Unix socket over
            there, from the home folder.
        ipv6: do not use IPv4.
        connect_timeout: seconds that connecting may take.

    Raises:
        TypeError, ValueError: an argument cannot be right; nothing was done.
        OSError: it cannot connect, ConnectionRefusedError for instance: as if done over there.
        socket.gaierror: the host is not known over there.
        TimeoutError: it did not connect in that time.
        TunnelError: the way to the far side was lost meanwhile.
        ClosedError, RemctlError: see `Channel`.
    """
    family = protocol.IPV6 if ipv6 else protocol.ANY
    address = _address("d", dhost, dport, _home(connection), listens=False, family=family)
    check_seconds("connect_timeout", connect_timeout)
    patience = float(connect_timeout)
    with used_mux(connection) as mux:
        ours, theirs = socket.socketpair()
        try:
            mux.connect(theirs, address, patience).result(patience + _ANSWERS)
        except BaseException as error:
            ours.close()
            if mux.over:
                theirs.close()  # It may have been too late to take it.
            if isinstance(error, TimeoutError) and error.errno is None:
                text = f"no answer from {connection.host} about {address}"
                raise TimeoutError(text) from None
            raise
    return ours


# -- What is given --------------------------------------------------------------------------------


def _address(
    side: str,
    host: str | None,
    port: Port,
    folder: bytes,
    *,
    listens: bool,
    family: int = protocol.ANY,
) -> Address:
    if host is None:
        return Address(None, _path(f"{side}port", port, folder))
    return Address(_host(f"{side}host", host), _port(f"{side}port", port, listens), family)


def _path(name: str, path: Port, folder: bytes) -> bytes:
    if isinstance(path, int) or not isinstance(path, (str, bytes, os.PathLike)):
        kind = type(path).__name__
        raise TypeError(f"{name} is a Unix socket's path without a host, not {kind}")
    octets = os.fsencode(path)
    if not octets or b"\0" in octets:
        raise ValueError(f"{name} is {path!r}: that cannot be the path of a Unix socket")
    return os.path.join(folder, octets)


def _host(name: str, host: str) -> str:
    if not isinstance(host, str):
        raise TypeError(f"{name} must be a string or None, not {type(host).__name__}")
    try:
        known = host.encode("idna").decode("ascii")
    except UnicodeError:
        known = ""
    if not known or not known.isprintable() or " " in known:
        raise ValueError(f"{name} is {host!r}: that cannot be a host's name or number")
    return known


def _port(name: str, port: Port, listens: bool) -> int:
    if isinstance(port, str) and port.isascii() and port.isdigit():
        port = int(port)
    if isinstance(port, str):
        raise ValueError(f"{name} is {port!r}: for a Unix socket's path, its host must be None")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{name} must be a number, not {type(port).__name__}")
    if not (0 if listens else 1) <= port <= 65535:
        least = "0 (for a free one)" if listens else "1"
        raise ValueError(f"{name} is {port}: it must be from {least} to 65535")
    return port


def _home(connection: Connection) -> bytes:
    return os.fsencode(connection.far.home)


def _shown(address: Address) -> int | str:
    port = address.port
    return os.fsdecode(port) if isinstance(port, bytes) else port


def _explained(error: OSError, doing: str) -> OSError:
    if isinstance(error, socket.gaierror):
        return socket.gaierror(error.errno, f"{doing}: {error.strerror}")
    number = error.errno or errno.ENAMETOOLONG
    return OSError(number, f"{doing}: {os.strerror(number)}")


def _undo_listening(mux: NearMux, sock: Any, future: Future[Listener]) -> None:
    if future.exception() is None:
        mux.stop(future.result())
    else:
        mux.leave()
        _close_listening(sock)


def _close_listening(sock: Any) -> None:
    address = sock.getsockname()
    sock.close()
    if not isinstance(address, tuple):
        os.unlink(address)

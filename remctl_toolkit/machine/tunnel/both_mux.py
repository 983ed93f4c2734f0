"""Many connections over one stream of octets: the part that is the same on both sides.

It is imported on this side, and its text is also sent to the remote host.

A frame has a letter, the number of a connection or of a listener on the remote side, and octets:

  C  connect to this address          L  listen on this address
  O  that was done; on this port      I  a new connection, of the listener with this number
  D  data                             W  this much more data may be sent
  E  the end of the data              X  the last frame: an error's name, or nothing

Each side sends X once for each number, and forgets the number when it has also received X.
"""

import asyncio
import socket
import struct

from remctl_toolkit.machine.tunnel.both_sockets import connect, error_name
from remctl_toolkit.machine.wire.both_frames import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from remctl_toolkit.machine.tunnel.both_sockets import Pairs

ADDRESS = struct.Struct(">BHI")  # family, port, milliseconds to connect; the host or path follows

LIMIT = 1 << 16  # octets in a frame
WINDOW = 1 << 18  # octets of a new connection that may be on their way
MAX_WINDOW = 1 << 23  # the same for a connection whose reader always keeps up
WINDOW_BUDGET = 1 << 26  # octets by which all windows of a side together may grow
MAX_STREAMS = 8192  # connections that the other side may ask for
FIRST_FAR_ID = 1 << 31  # The remote side numbers its connections from here on.
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection.


class ProtocolError(Exception):
    """The other side sent a frame that it may not send."""


class Stream(asyncio.BufferedProtocol):
    """One connection: its socket on this side, and the state of the other side.

    Each side may send as much data as the other has granted.  More is granted when the socket has
    taken what came, so a socket that nobody reads holds one window in memory, and stops nobody.
    """

    def __init__(
        self, mux: "Mux", number: int, owner: object = None, letter: bytes = b"", data: bytes = b""
    ) -> None:
        self.mux = mux
        self.number = number
        self.owner = owner  # the listener that it belongs to
        self.first = letter, data  # the frame to send as soon as there is a transport
        self.connecting: asyncio.Task[None] | None = None
        self.adopting: asyncio.Task[Any] | None = None
        self.transport: Any = None
        self.early: list[bytes] = []  # data that arrived before there was a transport
        self.may_send = self.granted = self.window = WINDOW
        self.kept_up = False  # The socket took all data at least once since the last grant.
        self.ended = False  # We sent E.
        self.finishing = False  # We received E.
        self.gone = False  # We sent X.
        self.left = False  # We received X.
        mux.takers[number] = self

    def begin(self, find: "Callable[[], Awaitable[Pairs]]", patience: float) -> None:
        """Connect to what a coroutine function finds, all within that many seconds."""
        self.connecting = self.mux.loop.create_task(self._connect(find, patience))

    async def _connect(self, find: "Callable[[], Awaitable[Pairs]]", patience: float) -> None:
        try:
            self.adopt(await asyncio.wait_for(connect(find), patience))
        except asyncio.TimeoutError:
            self.break_off(b"ETIMEDOUT")
        except OSError as error:
            self.break_off(error_name(error))

    def adopt(self, sock: socket.socket) -> None:
        """Use a socket that is connected."""
        loop = self.mux.loop
        self.adopting = loop.create_task(loop.create_connection(lambda: self, sock=sock))

    # The socket.

    def connection_made(self, transport: "Any") -> None:
        self.transport = transport
        if self.gone:
            transport.abort()
            return
        (letter, data), self.first = self.first, (b"", b"")
        if letter:
            self.mux.send(letter, self.number, data)
        early, self.early = self.early, []
        for data in early:
            self.write(data)
        if self.finishing:
            transport.write_eof()
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.mux.buffer[: min(LIMIT, self.may_send)]

    def buffer_updated(self, size: int) -> None:
        self.may_send -= size
        self.mux.send(b"D", self.number, bytes(self.mux.buffer[:size]))
        if self.mux.full or not self.may_send:
            self.transport.pause_reading()
            self.read_on()

    def read_on(self) -> None:
        """Read the socket, unless the other side does not want more."""
        if self.transport is None or self.ended or not self.may_send:
            return
        if self.mux.full:
            self.mux.held.add(self)
        else:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self.mux.send(b"E", self.number)
        return not self.finishing  # When both directions have ended, asyncio closes the transport.

    def connection_lost(self, error: "Exception | None") -> None:
        self.finish(b"" if self.ended and self.finishing and not error else error_name(error))

    def resume_writing(self) -> None:
        self.grant()

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            # asyncio calls resume_writing() when the socket has taken half of a window.
            self.transport.set_write_buffer_limits(self.window // 2, self.window // 2)
            self.transport.write(data)
            self.grant()

    def grant(self) -> None:
        """Grant as much as the socket has taken, if that is worth a frame."""
        waiting = self.transport.get_write_buffer_size()
        self.kept_up = self.kept_up or not waiting
        more = self.window - self.granted - waiting
        if more < self.window // 2 or self.finishing or self.gone:
            return
        if self.kept_up:
            wider = min(self.window, MAX_WINDOW - self.window, self.mux.budget)
            self.mux.budget -= wider
            self.window += wider
            more += wider
        self.granted += more
        self.kept_up = False
        self.mux.send(b"W", self.number, more.to_bytes(4, "big"))

    # Frames.

    def on_opened(self, data: bytes) -> None:
        if data:
            raise ProtocolError("an answer of the wrong length")
        self.mux.settle(self.number, 0)

    def on_data(self, data: bytes) -> None:
        self.granted -= len(data)
        if self.granted < 0 or self.finishing or not data:
            raise ProtocolError("data beyond what was granted")
        if self.transport is None:
            self.early.append(data)
        else:
            self.write(data)

    def on_window(self, data: bytes) -> None:
        self.may_send += int.from_bytes(data, "big")
        if len(data) != 4 or self.may_send > 2 * MAX_WINDOW:
            raise ProtocolError("a window of the wrong size")
        self.read_on()

    def on_end(self, data: bytes) -> None:
        if self.finishing or data:
            raise ProtocolError("an end after the end")
        self.finishing = True
        if self.transport is None:
            return
        try:
            if self.ended:
                self.transport.close()  # when the socket has taken all data
            else:
                self.transport.write_eof()
        except OSError:  # It was reset: what happens to the other direction tells us more.
            pass

    def on_close(self, data: bytes) -> None:
        if self.left:
            raise ProtocolError("a frame after the last")
        self.left = True
        # Without an error the other side has all of our data, but we may still hold some of its.
        if data or not (self.ended and self.finishing):
            self.break_off(data or b"ECONNRESET")

    # The end.

    def break_off(self, name: bytes) -> None:
        """Reset the connection on both sides, because of this error."""
        self.finish(name)
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError:
                pass  # It has been reset already, or closed.
            self.transport.abort()

    def finish(self, name: bytes) -> None:
        """Send the last frame."""
        if self.gone:
            return
        self.gone = True
        self.early.clear()
        if self.connecting is not None:
            self.connecting.cancel()
        self.mux.held.discard(self)
        self.mux.budget += self.window - WINDOW
        if self.first[0] in (b"C", b"I"):  # The other side has not heard of it.
            del self.mux.takers[self.number]
            self.mux.settle(self.number, name)
        else:
            self.mux.send_last(self.number, name, self.left)


ON_FRAME = {b"O": "on_opened", b"D": "on_data", b"W": "on_window", b"E": "on_end", b"X": "on_close"}


class Mux:
    """All connections of a channel, on one side; everything here runs in its loop's thread.

    Args:
        loop: the event loop.
        first: the first of the numbers that this side gives.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, first: int) -> None:
        self.loop = loop
        self.first = self.last = first
        # By number, the objects that take frames; None if only the other side's X is missing.
        self.takers: dict[int, Any] = {}
        self.openers: dict[bytes, Callable[[int, bytes], None]] = {}  # for frames with a new number
        self.budget = WINDOW_BUDGET
        self.buffer = memoryview(bytearray(LIMIT))
        self.outgoing: list[bytes] = []
        self.full = False  # The other side does not keep up; sockets are not read.
        self.held: set[Stream] = set()  # connections that are not read because of that
        self.ended: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self.on_exception)

    def write(self, octets: bytes) -> None:
        """Write to the channel."""
        raise NotImplementedError

    def settle(self, number: int, said: "int | bytes") -> None:
        """Give whoever waits for this number an answer: a port, the name of an error, or 0."""

    def new_number(self) -> int:
        while self.last in self.takers:
            self.last = self.first + (self.last + 1 - self.first) % FIRST_FAR_ID
        return self.last

    def on_exception(self, loop: asyncio.AbstractEventLoop, context: "dict[str, Any]") -> None:
        """End everything because of an exception in a callback or task."""
        error = context.get("exception")
        # asyncio reports some errors of sockets here, in addition to connection_lost().
        if error is not None and not isinstance(error, OSError) and not self.ended.done():
            self.ended.set_exception(error)

    def quit(self) -> None:
        """End everything, soon."""
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, letter: bytes, number: int, octets: bytes = b"") -> None:
        """Send a frame, after what the sockets have by now."""
        if not self.outgoing:
            self.loop.call_later(0, self.flush)
        self.outgoing.append(frame(letter, number, octets))

    def flush(self) -> None:
        outgoing, self.outgoing = self.outgoing, []
        self.write(b"".join(outgoing))

    def send_last(self, number: int, name: bytes, left: bool) -> None:
        """Send X, and forget the number if the other side did."""
        self.send(b"X", number, name)
        self.takers[number] = None
        if left:
            del self.takers[number]
        self.settle(number, name)

    def on_frame(self, letter: bytes, number: int, octets: bytes) -> None:
        """Do what a frame asks for.

        Raises:
            ProtocolError: it is not allowed.
        """
        if (letter in self.openers) == (number in self.takers):
            raise ProtocolError("a frame with a wrong number")
        if letter in self.openers:
            self.openers[letter](number, octets)
        elif self.takers[number] is not None:
            take = getattr(self.takers[number], ON_FRAME[letter], None)
            if take is None:
                raise ProtocolError("data for a listener")
            take(octets)
        elif letter == b"X":
            del self.takers[number]
            self.settle(number, 0)

    def break_off(self, owner: object = None) -> None:
        """Reset the connections of a listener, or all."""
        for stream in list(self.takers.values()):
            if isinstance(stream, Stream) and owner in (None, stream.owner):
                stream.break_off(b"ECONNRESET")

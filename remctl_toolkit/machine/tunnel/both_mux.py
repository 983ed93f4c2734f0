"""Many connections over one stream of octets: what is the same on both sides.  It is imported here,
and sent, with mux_far.py after it, to run over there.

Frames are a letter, the number of a connection or listener, the length of the data, and the data:
  C  connect to this address          L  listen on this address, and give its connections to us
  O  opened: that succeeded           P  that succeeded, on this port
  I  incoming: a new connection of    U  do not listen any more, and the answer to it; or why
     that listener, or                   listening failed
  D  data of a connection             W  so much more data may be sent
  E  no more data will be sent        X  no more frames will be sent; an error's name, or nothing
Each side sends X once for every connection, and forgets it when it has sent and received it.
"""

import _socket  # socket itself takes as long to import as Python to start.
import errno
import os
import select
import struct
import time
from collections import deque

TYPE_CHECKING = False  # typing takes twice as long to import as Python to start.
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Accepted = Callable[["Listener", _socket.socket], None]
    Handler = Callable[[int, bytes], None]
    Pairs = list[tuple[int, Any]]  # families, and addresses as the socket module has them

HEADER = struct.Struct(">cII")
ADDRESS = struct.Struct(">BHI")  # family, port, milliseconds to connect; the host or path follows
SIZE = struct.Struct(">I")

LIMIT = 1 << 16  # octets of data in a frame
WINDOW = 1 << 18  # octets that may be under way on a new connection
WIDEST = 1 << 23  # the same for one whose reader has kept up all the time
WIDENING = 1 << 26  # by so much all windows together may have grown
MOST = 8192  # connections at a time
FAR = 1 << 31  # Numbers from here on are given by the far side.

ANY, UNIX, IPV4, IPV6 = 0, 1, 4, 6
FAMILIES = {ANY: _socket.AF_UNSPEC, IPV4: _socket.AF_INET, IPV6: _socket.AF_INET6}

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE = 0.05  # seconds until what failed for want of a resource is tried again
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection.


class Broken(Exception):
    """What the other side sent cannot be."""


def error_name(error: OSError) -> bytes:
    """Numbers differ between systems, names do not."""
    if isinstance(error, _socket.gaierror):
        return b"EAI_NONAME"
    return number_name(error.errno)


def number_name(number: "int | None") -> bytes:
    if number is None:  # A path that is too long for a Unix socket fails without.
        return b"ENAMETOOLONG"
    return errno.errorcode.get(number, "EIO").encode()


def addresses(family: int, host: str, port: int, flags: int = 0) -> "Pairs":
    """Return (family, address) pairs; localhost is what it is, whatever /etc/hosts says."""
    if host.lower() == "localhost":
        both = [(_socket.AF_INET, ("127.0.0.1", port)), (_socket.AF_INET6, ("::1", port))]
        return [pair for pair in both if FAMILIES[family] in (pair[0], _socket.AF_UNSPEC)]
    found = _socket.getaddrinfo(host, port, FAMILIES[family], _socket.SOCK_STREAM, 0, flags)
    return [(family, address) for family, _, _, _, address in found]


def bind(pairs: "Pairs") -> _socket.socket:
    """Return a socket that listens on the first address that this host has."""
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, address in pairs:
        try:
            return listen(family, address)
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            failure = error
    raise failure


def listen(family: int, address: "Any") -> _socket.socket:
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != _socket.AF_UNIX:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if family == _socket.AF_UNIX:
            os.chmod(address, 0o600)  # Until it listens, nobody can connect.
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


class Stream:
    """A connection: its socket on this side, and how matters stand with the other side."""

    def __init__(self, mux: "Mux", number: int, sock: "_socket.socket | None" = None) -> None:
        self.mux = mux
        self.number = number
        self.owner: object = None  # the listener that it belongs to
        self.sock: _socket.socket | None = None
        self.watched: int | None = None  # the events that are waited for
        # Those that are left to connect to, while it is not connected.
        self.addresses: Pairs | None = None
        self.deadline = self.again = 0.0  # when to give up, and to try again
        self.may_send = self.granted = self.window = WINDOW
        self.taken = 0  # octets that the socket took since the last grant
        self.kept_up = False  # It took all there was at least once since.
        self.queue: deque[bytes | memoryview] = deque()
        self.ended = False  # Our socket's data has, and the other side knows.
        self.finishing = False  # The other side's data has.
        self.shut = False  # Our socket knows that.
        self.left = False  # The other side has sent its last frame.
        mux.streams[number] = self
        if sock is not None:
            self.adopt(sock)

    # The socket.

    def adopt(self, sock: _socket.socket) -> None:
        """Take a socket that is connected."""
        self.sock = sock
        self.addresses = None
        self.mux.waiting.discard(self)
        try:
            sock.setblocking(False)
            if sock.family != _socket.AF_UNIX:
                sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:  # It has been reset: some systems let us know at once.
            self.break_off(error_name(error))
            return
        self.flush()

    def connect(self, pairs: "Pairs", deadline: float) -> None:
        self.addresses, self.deadline = list(pairs), deadline
        self.mux.waiting.add(self)
        self.attempt(errno.EHOSTUNREACH)

    def attempt(self, number: "int | None") -> None:
        """Connect to the next address, or give up for this reason."""
        while self.addresses:
            family, address = self.addresses[0]
            try:
                self.sock = _socket.socket(family, _socket.SOCK_STREAM)
                self.sock.setblocking(False)
                number = self.sock.connect_ex(address)
            except OSError as error:
                number = error.errno
            if number == errno.EINPROGRESS:
                self.watch(select.POLLOUT)
                return
            if number == 0:
                self.connected()
                return
            self.drop()
            if number == errno.EAGAIN:  # A Unix socket has no room: tick() comes back to it.
                self.again = time.monotonic() + PAUSE
                return
            self.addresses.pop(0)
        self.break_off(number_name(number))

    def connected(self) -> None:
        assert self.sock is not None
        self.mux.opened(self)
        self.watch(None)
        self.adopt(self.sock)

    def see_whether_connected(self) -> None:
        number = self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if number:
            self.drop()
            self.addresses.pop(0)
            self.attempt(number)
            return
        try:
            self.sock.getpeername()
        except OSError:
            return  # What poll() told was about a descriptor that had this number before.
        self.connected()

    def tick(self, now: float) -> None:
        """Look after connecting: nothing happens to its socket when the time is over."""
        if now >= self.deadline:
            self.break_off(b"ETIMEDOUT")
        elif self.sock is None and self.addresses and now >= self.again:
            self.attempt(errno.EAGAIN)

    def drop(self, reset: bool = False) -> None:
        if self.sock is None:
            return
        self.watch(None)
        sock, self.sock = self.sock, None
        try:
            if reset and sock.family != _socket.AF_UNIX:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, RESET)
        except OSError:
            pass  # It has been reset already.
        finally:
            sock.close()

    def ready(self, events: int) -> None:
        if self.addresses is not None:
            self.see_whether_connected()
            return
        if self.ended and not self.queue:  # It was watched for its end alone.
            if events & ~(select.POLLIN | select.POLLOUT):
                self.break_off(b"ECONNRESET")
            return
        if self.queue:
            self.flush()
        if self.sock is not None and self.may_read() and events & ~select.POLLOUT:
            self.read()

    def may_read(self) -> bool:
        return self.may_send > 0 and not self.ended

    def watch_what_matters(self) -> None:
        if self.sock is None or self.addresses is not None:
            return
        events = 0
        if self.may_read():
            events |= select.POLLIN
        if self.queue:
            events |= select.POLLOUT
        # Without any, poll() tells of a hang-up: of use when all has been read, not before.
        self.watch(events if events or (self.ended and not self.shut) else None)

    def watch(self, events: "int | None") -> None:
        if events != self.watched:
            self.mux.watch(self.sock.fileno(), events, self)
            self.watched = events

    def read(self) -> None:
        try:
            data = self.sock.recv(min(LIMIT, self.may_send))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.break_off(error_name(error))
            return
        if data:
            self.may_send -= len(data)
            self.mux.send(b"D", self.number, data)
        else:
            self.ended = True
            self.mux.send(b"E", self.number)
        self.settle()

    def flush(self) -> None:
        """Give the socket what it takes of what the other side sent."""
        if self.sock is None or self.addresses is not None:
            return
        try:
            while self.queue:
                sent = self.sock.send(self.queue[0])
                self.taken += sent
                if sent < len(self.queue[0]):
                    self.queue[0] = memoryview(self.queue[0])[sent:]
                else:
                    self.queue.popleft()
            self.kept_up = True
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.break_off(error_name(error))
            return
        if self.taken >= self.window // 2 and not self.finishing:
            self.grant()
        self.settle()

    def settle(self) -> None:
        """Pass the other side's end on when its data has gone, and see whether all is done."""
        if self.finishing and not self.queue and not self.shut:
            self.shut = True
            try:
                self.sock.shutdown(_socket.SHUT_WR)
            except OSError as error:
                if error.errno != errno.ENOTCONN:  # It has ended from that side, too.
                    self.break_off(error_name(error))
                    return
        if self.ended and self.shut:
            self.finish()
        else:
            self.watch_what_matters()

    # The other side.

    def grant(self) -> None:
        more = self.taken
        if self.kept_up:
            wider = min(self.window, WIDEST - self.window, self.mux.widening)
            self.mux.widening -= wider
            self.window += wider
            more += wider
        self.granted += more
        self.taken, self.kept_up = 0, False
        self.mux.send(b"W", self.number, SIZE.pack(more))

    def take_data(self, data: bytes) -> None:
        self.granted -= len(data)
        if self.granted < 0 or self.finishing or not data:
            raise Broken("data beyond what was allowed")
        self.queue.append(data)
        if len(self.queue) == 1:
            self.flush()
        else:
            self.watch_what_matters()

    def take_window(self, data: bytes) -> None:
        self.may_send += SIZE.unpack(data)[0]
        if self.may_send > 2 * WIDEST:
            raise Broken("a window too wide")
        self.watch_what_matters()

    def take_end(self, data: bytes) -> None:
        if self.finishing or data:
            raise Broken("an end after the end")
        self.finishing = True
        self.flush()

    def take_close(self, data: bytes) -> None:
        if self.left:
            raise Broken("a frame after the last")
        self.left = True
        # Without an error the other side has all that we sent; we may still have data of it.
        if data or not (self.ended and self.finishing):
            self.break_off(data or b"ECONNRESET")

    def break_off(self, name: bytes) -> None:
        """End it at once, as a broken connection does."""
        self.drop(reset=True)
        self.finish(name)

    def finish(self, name: bytes = b"") -> None:
        self.drop()
        self.queue.clear()
        mux = self.mux
        mux.widening += self.window - WINDOW
        mux.waiting.discard(self)
        mux.send(b"X", self.number, name)
        if self.left:
            del mux.streams[self.number]
        else:
            mux.streams[self.number] = None
        mux.finished(self, name)


class Listener:
    """A socket that listens on this side."""

    def __init__(self, mux: "Mux", sock: _socket.socket, accepted: "Accepted") -> None:
        self.mux = mux
        self.sock = sock
        self.accepted = accepted  # called with each new connection's socket
        self.again = 0.0  # when to accept again
        address = sock.getsockname()
        self.port = address[1] if isinstance(address, tuple) else None
        self.path = address if self.port is None else None
        self.file = self.identity()  # Another's may have that path when we close.
        mux.listeners.add(self)
        mux.watch(sock.fileno(), select.POLLIN, self)

    def identity(self) -> "tuple[int, int] | None":
        if self.path is None:
            return None
        try:
            found = os.lstat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def ready(self, events: int) -> None:
        number: int | None = errno.EMFILE
        if len(self.mux.streams) < MOST:
            try:
                fd = self.sock._accept()[0]  # type: ignore[attr-defined]
            except OSError as error:
                number = error.errno
            else:
                self.accepted(self, _socket.socket(fileno=fd))
                return
        if number in NO_DESCRIPTORS:  # Those who wait would wake us again and again.
            self.mux.watch(self.sock.fileno(), None, self)
            self.mux.waiting.add(self)
            self.again = time.monotonic() + PAUSE

    def tick(self, now: float) -> None:
        if now >= self.again:
            self.mux.waiting.discard(self)
            self.mux.watch(self.sock.fileno(), select.POLLIN, self)

    def close(self) -> None:
        self.mux.listeners.discard(self)
        self.mux.waiting.discard(self)
        self.mux.watch(self.sock.fileno(), None, self)
        self.sock.close()
        if self.path is not None and self.file is not None and self.file == self.identity():
            os.unlink(self.path)


class Mux:
    """All connections, and the frames that go to and fro."""

    def __init__(self) -> None:
        self.poller = select.poll()
        self.watched: dict[int, Any] = {}  # descriptor -> what is ready()
        # By number; None when only the other side's X is missing.
        self.streams: dict[int, Stream | None] = {}
        self.listeners: set[Listener] = set()
        self.waiting: set[Stream | Listener] = set()  # what has a tick()
        self.widening = WIDENING
        self.incoming = bytearray()
        self.outgoing: list[bytes] = []
        self.outgoing_size = 0
        self.takers = {
            b"D": Stream.take_data,
            b"W": Stream.take_window,
            b"E": Stream.take_end,
            b"X": Stream.take_close,
        }
        self.handlers: dict[bytes, Handler] = {}  # for frames of other kinds

    # What the side in question makes of it.

    def opened(self, stream: Stream) -> None:
        """Connecting has succeeded."""

    def finished(self, stream: Stream, name: bytes) -> None:
        """It has ended, or failed."""

    # Sockets.

    def watch(self, fd: int, events: "int | None", who: object) -> None:
        if events is None:
            if self.watched.pop(fd, None) is not None:
                self.poller.unregister(fd)
            return
        self.watched[fd] = who
        self.poller.register(fd, events)

    def serve(self, ready: "list[tuple[int, int]]") -> None:
        """Do what poll() says can be done."""
        for fd, events in ready:
            who = self.watched.get(fd)
            if who is not None:
                who.ready(events)

    def patience(self) -> "float | None":
        """Return how many milliseconds poll() may take, or None."""
        return PAUSE * 1000 if self.waiting else None

    def tick(self) -> None:
        if self.waiting:
            now = time.monotonic()
            for who in list(self.waiting):
                who.tick(now)

    # Frames.

    def send(self, kind: bytes, number: int, data: bytes = b"") -> None:
        self.outgoing.append(HEADER.pack(kind, number, len(data)))
        if data:
            self.outgoing.append(data)
        self.outgoing_size += HEADER.size + len(data)

    def take_outgoing(self) -> bytes:
        octets = b"".join(self.outgoing)
        self.outgoing.clear()
        self.outgoing_size = 0
        return octets

    def receive(self, octets: bytes) -> None:
        self.incoming += octets
        start, size = 0, len(self.incoming)
        with memoryview(self.incoming) as view:
            while size - start >= HEADER.size:
                kind, number, length = HEADER.unpack_from(view, start)
                if length > LIMIT:
                    raise Broken("a frame too long")
                end = start + HEADER.size + length
                if end > size:
                    break
                self.handle(kind, number, bytes(view[start + HEADER.size : end]))
                start = end
        del self.incoming[:start]

    def handle(self, kind: bytes, number: int, data: bytes) -> None:
        taker = self.takers.get(kind)
        if taker is None:
            handler = self.handlers.get(kind)
            if handler is None:
                raise Broken("a frame of an unknown kind")
            handler(number, data)
            return
        if number not in self.streams:
            raise Broken("a frame for an unknown connection")
        stream = self.streams[number]
        if stream is not None:
            try:
                taker(stream, data)
            except struct.error:
                raise Broken("a frame of the wrong length") from None
        elif kind == b"X":
            del self.streams[number]

    def close(self) -> None:
        """Close all sockets as broken connections."""
        for listener in list(self.listeners):
            listener.close()
        for stream in list(self.streams.values()):
            if stream is not None:
                stream.break_off(b"ECONNRESET")

"""Many connections over one stream of octets: the common part of both sides.

The client imports it, and also sends its text to the remote host.

A frame has a letter, the number of a connection or of a listener on the remote side, and octets:

  C  connect to this address          L  listen on this address
  O  success; the port                I  a new connection, of the listener with this number
  D  data                             W  this much more data may be sent
  E  the end of the data              X  an abnormal end: an error's name

A number is forgotten after E in both directions, or X in one.  Later frames for it are ignored.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import os
import re
import socket
import struct
import threading

from remctl_toolkit.machine.wire.both_frames import frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ADDRESS = struct.Struct(">BHI")  # family, port, milliseconds to connect; the host or path follows
ANY, UNIX, IPV6 = 0, 1, 6
FAMILIES = {ANY: socket.AF_UNSPEC, UNIX: socket.AF_UNIX, IPV6: socket.AF_INET6}

LIMIT = 1 << 16  # octets in a frame
WINDOW = 1 << 21  # octets of a connection in flight, as with ssh
FIRST_FAR_ID = 1 << 31  # The remote side numbers its connections from here on.
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection.
NO_SUCH_ADDRESS = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # as of ::1 without IPv6
BACKLOG = 128
RETRY_DELAY = 0.05  # seconds between attempts to connect to a Unix socket whose backlog is full


def error_name(error: "BaseException") -> bytes:
    """Return the name of an error, because numbers differ between systems."""
    # asyncio puts the errors of several addresses into the text of one.
    numbers = [int(number) for number in re.findall(r"\[Errno (\d+)\]", str(error))]
    if numbers:
        usable = [number for number in numbers if number not in NO_SUCH_ADDRESS]
        return errno.errorcode.get((usable or numbers)[-1], "EIO").encode()
    if isinstance(error, socket.gaierror):
        return b"EAI_NONAME"
    if isinstance(error, asyncio.TimeoutError):
        return b"ETIMEDOUT"
    # The error for a path that is too long for a Unix socket has no number.
    return b"ENAMETOOLONG" if isinstance(error, OSError) else b"EIO"


def error_named(name: bytes, doing: str = "") -> OSError:
    """Return the exception for an error that was sent by its name."""
    if name == b"EAI_NONAME":
        return socket.gaierror(socket.EAI_NONAME, f"{doing}: unknown host")
    text = name.decode("ascii", "replace")
    number = getattr(errno, text, errno.EIO) if re.fullmatch("E[A-Z0-9]{1,20}", text) else errno.EIO
    return OSError(number, f"{doing}: {os.strerror(number)}")


class Loop(asyncio.SelectorEventLoop):
    """An event loop that looks up each name in its own thread, because that may take long."""

    async def getaddrinfo(self, host: "Any", port: "Any", **options: "Any") -> "list[Any]":
        """Look up a host; localhost is always both loopback addresses."""
        if host.lower() == "localhost":
            return [
                (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
                for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
                if options.get("family", 0) in (0, family)
            ]
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()

        def look_up() -> None:
            try:
                future.set_result(socket.getaddrinfo(host, port, **options))
            except OSError as error:
                future.set_exception(error)

        threading.Thread(target=look_up, daemon=True).start()
        return await asyncio.wrap_future(future)


async def listen(
    loop: asyncio.AbstractEventLoop, family: int, host: str, port: "Any"
) -> "list[socket.socket]":
    """Return sockets that listen on all addresses of a host that this system has.

    Raises:
        OSError: this system has none of the addresses, or cannot listen on one of them.
    """
    if family == socket.AF_UNIX:
        return [listen_unix(port)]
    found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return bind(list(dict.fromkeys((family, name) for family, _, _, _, name in found)))


def bind(names: "list[tuple[int, Any]]", attempts: int = 100) -> "list[socket.socket]":
    """Return sockets that listen on all of these addresses that this system has, on one port.

    No address may be left out: another user could take it, and get connections for this tunnel.
    Port 0 is a port that is free on all addresses, which is found by several attempts.
    """
    socks = []  # type: list[socket.socket]
    try:
        for family, name in names:
            port = socks[0].getsockname()[1] if socks else name[1]
            try:
                socks.append(listen_tcp(family, (name[0], port, *name[2:])))
            except OSError as error:
                if error.errno not in NO_SUCH_ADDRESS or (not socks and name == names[-1][1]):
                    raise
        return socks
    except OSError as error:
        for sock in socks:
            sock.close()
        if socks and names[0][1][1] == 0 and error.errno == errno.EADDRINUSE and attempts > 1:
            return bind(names, attempts - 1)
        raise


def listen_tcp(family: int, name: "Any") -> socket.socket:
    both = name[0] == "::" and socket.has_dualstack_ipv6()
    sock = socket.create_server(name, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    # Accepted sockets inherit this; asyncio sets it for outgoing ones.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def listen_unix(path: bytes) -> socket.socket:
    with contextlib.ExitStack() as failed:
        sock = failed.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(path)
        os.chmod(path, 0o600)  # Nobody can connect until it listens.
        sock.listen(BACKLOG)
        failed.pop_all()
        return sock


async def connect(stream: "Stream", family: int, host: str, port: "Any") -> None:
    """Connect a stream to the first address of a host that answers."""
    if family == socket.AF_UNIX:
        where = {"sock": await connect_unix(port)}  # type: dict[str, Any]
    else:
        where = {"host": host, "port": port, "family": family}
        if not re.fullmatch("localhost|[0-9.]+|.*:.*", host):
            where["happy_eyeballs_delay"] = stream.mux.next_address_delay
    await stream.mux.loop.create_connection(lambda: stream, **where)


async def connect_unix(path: bytes) -> socket.socket:
    """Connect to a Unix socket; retry while its backlog is full, which asyncio does not."""
    with contextlib.ExitStack() as failed:
        sock = failed.enter_context(socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
                failed.pop_all()
                return sock
            except BlockingIOError:
                await asyncio.sleep(RETRY_DELAY)


# -- The connections ------------------------------------------------------------------------------


class ProtocolError(Exception):
    """The other side sent a frame that is not allowed."""


def place(address: bytes) -> "tuple[int, str, int | bytes]":
    """Return the family, host, and port or path of an address."""
    family, port, _ = ADDRESS.unpack_from(address)
    rest = address[ADDRESS.size :]
    return FAMILIES[family], rest.decode("latin-1"), rest if family == UNIX else port


class Stream(asyncio.BufferedProtocol):
    """A connection: its local socket, and the state of the other side.

    Each side may send one window of data that the other side's socket has not taken yet.  So an
    unread connection takes one window of memory, and blocks no other.
    """

    def __init__(
        self, mux: "Mux", number: int, hello: "tuple[bytes, bytes] | None", owner: object = None
    ) -> None:
        self.mux, self.number = mux, number
        self.hello = hello  # letter and octets of a frame to send when the socket exists
        self.owner = owner  # its listener
        self.answer = mux.loop.create_future()  # the first O or X: its letter and octets
        self.connecting: asyncio.Task[Any] | None = None
        self.transport: Any = None
        self.early = bytearray()  # data that arrived before the transport
        self.may_send = self.granted = WINDOW
        self.ended = False  # whether E was sent
        self.finishing = False  # whether E was received
        mux.takers[number] = self

    async def connect(self, address: bytes) -> None:
        self.connecting = asyncio.current_task()
        timeout = ADDRESS.unpack_from(address)[2] / 1000
        timer = self.mux.loop.call_later(timeout, self.break_off, b"ETIMEDOUT")
        try:
            await connect(self, *place(address))
        except Exception as error:
            self.break_off(error_name(error))
        finally:
            timer.cancel()

    @property
    def over(self) -> bool:
        return self.mux.takers.get(self.number) is not self

    # The socket.

    def connection_made(self, transport: "Any") -> None:
        self.transport = transport
        if self.over:
            self.reset()
            return
        transport.set_write_buffer_limits(WINDOW // 2, WINDOW // 2)
        if self.hello is not None:
            self.mux.send(self.hello[0], self.number, self.hello[1])
        transport.write(self.early)
        if self.finishing:
            transport.write_eof()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.mux.buffer[: min(LIMIT, self.may_send)]

    def buffer_updated(self, size: int) -> None:
        self.may_send -= size
        self.mux.send(b"D", self.number, bytes(self.mux.buffer[:size]))
        if self.mux.full or not self.may_send:
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read the socket again, if the other side can take data."""
        if self.transport is not None and self.may_send and not self.mux.full:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self.mux.send(b"E", self.number)
        return not self.finishing  # When both directions have ended, asyncio closes the transport.

    def resume_writing(self) -> None:
        """Grant the octets that the socket has taken, if they are many."""
        more = WINDOW - self.granted - self.transport.get_write_buffer_size()
        if more >= WINDOW // 2 and not self.finishing and not self.over:
            self.granted += more
            self.mux.send(b"W", self.number, more.to_bytes(4, "big"))

    def connection_lost(self, error: "Exception | None") -> None:
        if error is None:
            self.forget()
        else:
            self.break_off(error_name(error))

    # The other side.

    def on_frame(self, letter: bytes, data: bytes) -> None:
        if letter == b"D":
            self.granted -= len(data)
            if self.granted < 0 or self.finishing or not data:
                raise ProtocolError("unexpected data, or more than the window allows")
            if self.transport is None:
                self.early += data
            elif not self.transport.is_closing():
                self.transport.write(data)
                self.resume_writing()
        elif letter == b"W":
            self.may_send += int.from_bytes(data, "big")
            if len(data) != 4 or self.may_send > WINDOW:
                raise ProtocolError("a window of the wrong size")
            self.read_on()
        elif letter == b"E":
            if self.finishing or data:
                raise ProtocolError("an unexpected end of data")
            self.finishing = True
            if self.ended:
                self.transport.close()  # when the socket has taken all data
            elif self.transport is not None:
                with contextlib.suppress(OSError):  # connection_lost() follows.
                    self.transport.write_eof()
        elif letter == b"X":
            self.forget()
            self.reset()
        elif data:
            raise ProtocolError("an answer of the wrong length")

    def break_off(self, name: bytes) -> None:
        """Reset the connection on both sides, with an error's name."""
        if not self.over:
            self.mux.send(b"X", self.number, name)
            self.forget()
            self.reset()

    def forget(self) -> None:
        if not self.over:
            del self.mux.takers[self.number]
            self.answer.cancel()
            if self.connecting is not None:
                self.connecting.cancel()
            self.mux.rest()

    def reset(self) -> None:
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # It was already reset or closed.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()


class Listener:
    """Listening sockets of this side; `hello` announces a connection, see `Stream`."""

    def __init__(self, mux: "Mux", hello: "tuple[bytes, bytes]") -> None:
        self.mux, self.hello = mux, hello
        self.socks: list[socket.socket] = []
        self.path = ""  # of a Unix socket
        self.file: os.stat_result | None = None

    async def begin(self, address: bytes) -> int:
        """Listen, and return the port; 0 for a Unix socket."""
        self.mux.listeners.add(self)
        self.socks = await listen(self.mux.loop, *place(address))
        name = self.socks[0].getsockname()
        if isinstance(name, str):
            self.path, self.file = name, os.lstat(name)
        for sock in self.socks:
            await self.mux.loop.create_server(self.accept, sock=sock, backlog=BACKLOG)
        return 0 if self.path else name[1]

    def accept(self) -> Stream:
        """Return the protocol of a new connection."""
        stream = Stream(self.mux, self.mux.new_number(), self.hello, self)
        if not self.socks:  # It was closed meanwhile.
            stream.break_off(b"ECONNRESET")
        return stream

    def close(self) -> None:
        """Free the port or remove the socket's file; reset its connections."""
        self.mux.listeners.discard(self)
        socks, self.socks = self.socks, []
        for sock in socks:
            self.mux.loop.remove_reader(sock)
            sock.close()
        with contextlib.suppress(OSError):  # The file or its directory may be gone.
            if self.file is not None and os.path.samestat(self.file, os.lstat(self.path)):
                os.unlink(self.path)
        self.mux.break_off(self)


class Mux:
    """All connections of a channel, on one side; its methods run in the loop's thread."""

    # Seconds after which the next address of a host is tried in parallel.  With None, asyncio tries
    # them one by one, and does not leave sockets open, with a ResourceWarning, when cancelled.
    next_address_delay: "float | None" = None

    def __init__(self, first: int) -> None:
        self.loop = Loop()
        self.first = self.last = first  # the numbers that this side gives
        self.takers: dict[int, Any] = {}  # by number, the objects that take frames
        self.listeners: set[Any] = set()
        self.openers: dict[bytes, Callable[[int, bytes], None]] = {}  # for frames with a new number
        self.buffer = memoryview(bytearray(LIMIT))
        self.outgoing: list[bytes] = []
        self.full = False  # whether sockets are not read because the other side is slow
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.loop.set_exception_handler(self.on_exception)

    def write(self, octets: bytes) -> None:
        """Write to the channel."""
        raise NotImplementedError

    def rest(self) -> None:
        """Note that a connection is over."""

    def new_number(self) -> int:
        """Return the number that was unused for longest."""
        self.last = self.first + (self.last + 1 - self.first) % FIRST_FAR_ID
        return self.new_number() if self.last in self.takers else self.last

    def on_exception(self, loop: asyncio.AbstractEventLoop, context: "dict[str, Any]") -> None:
        """End everything because of an exception in a callback or task."""
        error = context.get("exception")
        # asyncio reports some errors of sockets here, in addition to connection_lost(), and a plain
        # ValueError if a listener was closed while accept() was delayed.
        harmless = isinstance(error, OSError) or type(error) is ValueError
        if error is not None and not harmless and not self.ended.done():
            self.ended.set_exception(error)

    def quit(self) -> None:
        """End everything, soon."""
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, letter: bytes, number: int, octets: bytes = b"") -> None:
        """Queue a frame; those of one iteration of the loop are sent together."""
        if not self.outgoing:
            self.loop.call_later(0, self.flush)
        self.outgoing.append(frame(letter, number, octets))

    def flush(self) -> None:
        outgoing, self.outgoing = self.outgoing, []
        self.write(b"".join(outgoing))

    def on_frame(self, letter: bytes, number: int, octets: bytes) -> None:
        """Handle a frame.

        Raises:
            ProtocolError: it is not allowed.
        """
        taker = self.takers.get(number)
        if letter in self.openers:
            if taker is not None:
                raise ProtocolError("a number that is in use")
            self.openers[letter](number, octets)
        elif taker is not None:
            if letter in b"OX" and not taker.answer.done():
                taker.answer.set_result((letter, octets))
            taker.on_frame(letter, octets)

    def break_off(self, owner: object = None) -> None:
        """Reset the connections of a listener; or end all listeners, and reset all connections."""
        if owner is None:
            for listener in list(self.listeners):
                listener.close()
        for stream in list(self.takers.values()):
            if isinstance(stream, Stream) and owner in (None, stream.owner):
                stream.break_off(b"ECONNRESET")

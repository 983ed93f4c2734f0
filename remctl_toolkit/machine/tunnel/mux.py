"""The client's side of all tunnels of a connection: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import remctl

from ..base.errors import MachineError
from ..base.program import Program, source
from ..channel.channel import Channel
from ..wire.both_frames import FrameError, Frames
from .both_mux import (
    FIRST_FAR_ID,
    LIMIT,
    Listener,
    Mux,
    ProtocolError,
    Stream,
    error_name,
    error_named,
)

if TYPE_CHECKING:
    from ..base.connection import Connection

_T = TypeVar("_T")

LINGER = 5.0  # seconds until an unused channel is closed
REPLY_TIMEOUT = 8.0  # seconds for replies that should be immediate
CLOSE_TIMEOUT = 2.0  # seconds to wait for closing the channel, which continues afterwards
MAX_STREAMS = 1024  # connections above which new ones from the server are refused
_READ_SIZE = 1 << 20  # octets
_READS = 4  # reads that may wait for the event loop

_MODULES = ("wire.both_frames", "tunnel.both_mux")


def far_program(before: str = "") -> Program:
    """Return the server's program; the text `before` runs before it serves."""
    main = f"{source('tunnel/far_tunnel')}\n{before}\nmux = FarMux()\n"
    # Without ssl, asyncio is imported a fifth faster.
    modules = {"no_ssl": "import sys\nsys.modules['ssl'] = None\n"}
    for name in _MODULES:
        modules[f"remctl_toolkit.machine.{name}"] = source(name.replace(".", "/"))
    return Program(f"{main}mux.loop.run_until_complete(serve(mux))\n", modules)


class TunnelError(MachineError):
    """The channel of a machine's tunnels was lost, and their connections with it."""


class FarListener:
    """A listener on the server, whose connections lead to a target on this side."""

    def __init__(self, mux: NearMux, target: bytes) -> None:
        self.mux, self.target = mux, target
        self.number = -1
        self.answer = mux.loop.create_future()  # see `Stream`
        self.ended = asyncio.Event()

    async def begin(self, address: bytes) -> int:
        """Make the server listen; see `Listener.begin()`."""
        self.mux.listeners.add(self)
        self.number = self.mux.new_number()
        self.mux.takers[self.number] = self
        self.mux.send(b"L", self.number, address)
        return int.from_bytes(await self.mux.answered(self), "big")

    def on_frame(self, letter: bytes, data: bytes) -> None:
        """Handle a frame of the server."""
        if letter == b"X":
            del self.mux.takers[self.number]
            self.ended.set()
        elif letter != b"O" or len(data) != 2:
            raise ProtocolError("data for a listener")

    def close(self) -> None:
        """Reset its connections, and make the server stop listening."""
        self.mux.listeners.discard(self)
        self.mux.break_off(self)
        if self.mux.takers.get(self.number) is self:
            self.mux.send(b"X", self.number)
        else:
            self.ended.set()


class NearMux(Mux):
    """This side: one thread runs the event loop, another one reads the channel."""

    def __init__(self, connection: Connection) -> None:
        self._channel = Channel(connection, source=far_program(), label="tunnels")
        super().__init__(0)
        self.openers = {b"I": self._on_incoming}
        self.host = connection.host
        self.pid = os.getpid()
        self.over = False
        self.reason: str | None = None  # None if it ended because it was unused
        self._frames = Frames(self.on_frame, b"OIDWEX", LIMIT)
        self._linger: asyncio.TimerHandle | None = None
        self._lock = threading.RLock()  # A finalizer may run while it is held.
        self._reads = threading.Semaphore(_READS)
        _muxes.add(self)
        self.loop.call_soon(self.rest)
        self._thread = threading.Thread(target=self._run, name="remctl-tunnels", daemon=True)
        self._thread.start()
        threading.Thread(target=self._read, name="remctl-tunnels-in", daemon=True).start()

    # For other threads.

    def begin(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Run a coroutine in the event loop.

        Raises:
            TunnelError: the loop has ended.
        """
        with self._lock:
            if self.over:
                work.close()
                raise self._lost()
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    def call(self, timeout: float, doing: str, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the event loop, and return the result.

        Raises:
            TunnelError: the loop has ended, or ends meanwhile.
            OSError: the coroutine failed, or took longer than `timeout` seconds.
        """
        future = self.begin(work)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise self._lost() from None
        except OSError as error:
            raise error_named(error_name(error), doing) from None
        finally:
            future.cancel()

    def _lost(self) -> TunnelError:
        error = TunnelError(f"tunnels to {self.host} were lost: {self.reason or 'closed'}")
        error.host = self.host
        return error

    def close(self, reason: str | None = None) -> None:
        """End everything, and wait a little for that."""
        self._lose(reason)
        # The loop's thread also closes the channel, but may be blocked in write().
        threading.Thread(target=self._channel.close, name="remctl-close", daemon=True).start()
        self._thread.join(CLOSE_TIMEOUT)

    def forget(self) -> None:
        """Release everything in a forked child, because it is the parent's."""
        self._lock = threading.RLock()
        self.over = True
        self.reason = "they belong to the parent process"
        streams = [each for each in self.takers.values() if isinstance(each, Stream)]
        socks = [each.transport.get_extra_info("socket") for each in streams if each.transport]
        for listener in self.listeners:
            socks += getattr(listener, "socks", ())
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in [sock.fileno() for sock in socks]:
            if descriptor >= 0:
                os.dup2(null, descriptor, inheritable=False)  # asyncio still uses the number.
        os.close(null)

    # Work for them, in the event loop.

    async def connect(self, address: bytes) -> socket.socket:
        """Return a socket that is connected with a new connection of the server."""
        stream = Stream(self, self.new_number(), (b"C", address))
        ours, theirs = socket.socketpair()
        try:
            await self.loop.create_connection(lambda: stream, sock=theirs)
            await self.answered(stream)
        except BaseException:
            stream.break_off(b"ECONNRESET")
            ours.close()
            if stream.transport is None:
                theirs.close()
            raise
        return ours

    async def stop(self, listener: Listener | FarListener) -> None:
        """End a listener and its connections; end everything if nothing else is left."""
        listener.close()
        self._lose_unused()
        if isinstance(listener, FarListener) and not self.over:
            await listener.ended.wait()

    async def answered(self, asker: Stream | FarListener) -> bytes:
        """Return the octets of the server's answer, or raise the error that it names."""
        answer: tuple[bytes, bytes] = await asker.answer
        if answer[0] == b"X":
            raise error_named(answer[1])
        return answer[1]

    # The threads.

    def _read(self) -> None:
        end = "the program on the server ended"
        try:
            while octets := self._channel.read(_READ_SIZE):
                self._reads.acquire()
                with self._lock:
                    if self.over:
                        return
                    self.loop.call_soon_threadsafe(self._take, octets)
            said = self._channel.read_stderr(4096).decode("utf-8", "replace").strip()
            end = said.splitlines()[-1] if said else end
        except (remctl.RemctlError, OSError) as error:
            end = str(error)
        self._lose(end)

    def _take(self, octets: bytes) -> None:
        self._reads.release()
        try:
            if not self.over:
                self._frames.write(octets)
        except (FrameError, ProtocolError) as error:
            self._lose(f"the server sent {error}")

    def _run(self) -> None:
        try:
            self.loop.run_until_complete(self.ended)
        finally:
            self._lose("an internal error")
            self.loop.run_until_complete(self._clear())
            self.loop.close()
            self._channel.close()

    def _lose(self, reason: str | None) -> None:
        """End the loop, unless it has ended."""
        with self._lock:
            if not self.over:
                self.over, self.reason = True, reason
                self.loop.call_soon_threadsafe(self.quit)

    def _lose_unused(self) -> None:
        streams = any(isinstance(taker, Stream) for taker in self.takers.values())
        if not self.listeners and not streams:
            self._lose(None)

    def rest(self) -> None:
        """End the loop after a while if it is unused."""
        if self._linger is not None:
            self._linger.cancel()
        if not self.listeners:
            self._linger = self.loop.call_later(LINGER, self._lose_unused)

    async def _clear(self) -> None:
        """Close all sockets, and wake all waiting threads."""
        self._reads.release()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.break_off()
        await asyncio.sleep(0)  # asyncio closes the sockets in the next iteration.

    # Frames.

    def write(self, octets: bytes) -> None:
        """Write to the channel, unless it has ended."""
        if not self.over:
            try:
                self._channel.write(octets)  # If this waits, no socket is read meanwhile.
            except (remctl.RemctlError, OSError) as error:
                self._lose(str(error))

    def _on_incoming(self, number: int, data: bytes) -> None:
        listener = self.takers.get(int.from_bytes(data, "big"))
        if number < FIRST_FAR_ID or len(data) != 4 or not isinstance(listener, FarListener):
            raise ProtocolError("a connection of an unknown listener")
        stream = Stream(self, number, None, listener)
        if listener in self.listeners and len(self.takers) <= MAX_STREAMS:
            self.loop.create_task(stream.connect(listener.target))
        else:
            stream.break_off(b"ECONNREFUSED")


# -- One for each connection ----------------------------------------------------------------------

_muxes: weakref.WeakSet[NearMux] = weakref.WeakSet()


def with_mux(connection: Connection, use: Callable[[NearMux], _T]) -> _T:
    """Call a function with the mux of a connection, which is opened if necessary.

    Raises:
        ClosedError, RemctlError: see `Channel`.
    """
    while True:
        key = ("tunnels", os.getpid())
        with connection.parts.setdefault((*key, "lock"), threading.Lock()):
            mux: NearMux | None = connection.parts.get(key, lambda: None)()
            if mux is None or mux.over:
                mux = NearMux(connection)
                # A strong reference would be a cycle: the mux refers to the connection.
                connection.parts[key] = weakref.ref(mux)
        try:
            return use(mux)
        except TunnelError:
            if not mux.over or mux.reason is not None:
                raise  # Otherwise it ended because it was unused.


def _forget_all() -> None:
    for mux in list(_muxes):
        mux.forget()


os.register_at_fork(after_in_child=_forget_all)

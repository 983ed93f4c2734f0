"""All tunnels of a connection over one channel: this side, an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import remctl

from ..base.errors import MachineError
from ..base.program import Program, source
from ..channel.channel import Channel
from ..wire.both_frames import FrameError, Frames
from .address import Address, error_named
from .both_mux import FIRST_FAR_ID, LIMIT, MAX_STREAMS, Mux, ProtocolError, Stream
from .both_sockets import Listener

if TYPE_CHECKING:
    from ..base.connection import Connection
    from .both_sockets import Pairs

_T = TypeVar("_T")
Work: TypeAlias = Coroutine[Any, Any, _T]
Answer: TypeAlias = int | bytes

LINGER = 5.0  # seconds for which the channel stays open after its last use by a socket
REPLY_TIMEOUT = 8.0  # seconds for replies that should be immediate
CLOSE_TIMEOUT = 2.0  # seconds for closing the channel, which goes on after them
_READ_SIZE = 1 << 20  # octets
_READS = 4  # reads that may wait for the event loop

_MODULES = ("wire/both_frames", "tunnel/both_sockets", "tunnel/both_mux")


def far_program(before: str = "") -> Program:
    """Return the program that runs on the server; some text may run before it serves."""
    main = f"{source('tunnel/far_tunnel')}\n{before}\nasyncio.run(serve())\n"
    names = {name: f"remctl_toolkit.machine.{name.replace('/', '.')}" for name in _MODULES}
    return Program(main, {module: source(name) for name, module in names.items()})


class TunnelError(MachineError):
    """The way from a machine's tunnels to the server was lost, and their connections with it."""


@dataclass(eq=False)
class FarListener:
    """A socket that listens on the server.

    Attributes:
        mux: the mux that it belongs to.
        target: the addresses that its connections are forwarded to.
        patience: seconds that connecting there may take.
        number: its number.
    """

    mux: NearMux
    target: Pairs
    patience: float
    number: int = 0

    async def find(self) -> Pairs:
        """Return the target."""
        return self.target

    def on_opened(self, data: bytes) -> None:
        """Pass on the port."""
        if len(data) != 2:
            raise ProtocolError("an answer of the wrong length")
        self.mux.settle(self.number, int.from_bytes(data, "big"))

    def on_close(self, data: bytes) -> None:
        """Pass on the reason why it does not listen."""
        self.mux.send_last(self.number, data or b"EIO", True)


class NearMux(Mux):
    """This side: one thread runs the event loop, another one reads the channel.

    Attributes:
        over: whether it has ended.
        reason: the reason, if no caller ended it.
        pid: the process that it belongs to.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(asyncio.SelectorEventLoop(), 0)
        self.openers = {b"I": self._on_incoming}
        self.over = False
        self.reason: str | None = None
        self.pid = os.getpid()
        self.users = 0  # tunnels, and calls of connect_sock() that have not returned yet
        self._host = connection.host
        self._frames = Frames(self.on_frame, b"OIDWEX", LIMIT)
        # By number: become a port, or the name of an error.
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._listeners: set[Listener] = set()
        self._linger: asyncio.TimerHandle | None = None
        self._lock = threading.RLock()  # A finalizer may come in between.
        self._reads = threading.Semaphore(_READS)
        try:
            self._channel = Channel(connection, source=far_program(), label="tunnels")
        except BaseException:
            self.loop.close()
            raise
        self._thread = threading.Thread(target=self._run, name="remctl-tunnels", daemon=True)
        self._thread.start()
        threading.Thread(target=self._read, name="remctl-tunnels-in", daemon=True).start()

    # For other threads.

    def enter(self) -> bool:
        """Begin to use it; False if it has ended."""
        with self._lock:
            self.users += not self.over
            return not self.over

    def leave(self) -> None:
        """Stop using it; it ends if nobody uses it again soon."""
        with self._lock:
            self.users -= 1
            if not self.over:
                self.loop.call_soon_threadsafe(self._rest)

    def lost(self) -> TunnelError:
        """Return the exception for what is impossible now."""
        error = TunnelError(f"the tunnels to {self._host} are lost: {self.reason or 'closed'}")
        error.host = self._host
        return error

    def begin(self, work: Callable[..., Work[_T]], *args: Any) -> concurrent.futures.Future[_T]:
        """Run a coroutine function in the event loop.

        Raises:
            TunnelError: it has ended.
        """
        with self._lock:
            if self.over:
                raise self.lost()
            return asyncio.run_coroutine_threadsafe(self._run_work(work, args), self.loop)

    def call(self, timeout: float, work: Callable[..., Work[_T]], *args: Any) -> _T:
        """Run a coroutine function in the event loop, and return the result.

        Raises:
            TunnelError: it has ended, or ends meanwhile.
            TimeoutError: there was no result within so many seconds; it has no number.
        """
        future = self.begin(work, *args)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    def close(self, reason: str | None = None) -> None:
        """End everything, and wait a little until nothing is left."""
        self._lose(reason)
        # The loop's thread closes the channel, too, but it may be waiting in write().
        threading.Thread(target=self._channel.close, name="remctl-close", daemon=True).start()
        self._thread.join(CLOSE_TIMEOUT)

    def forget(self) -> None:
        """Let go of everything in a forked child: it is the parent's."""
        self._lock = threading.RLock()
        self.over = True
        self.reason = "they belong to the process that this one was forked from"
        streams = [each for each in self.takers.values() if isinstance(each, Stream)]
        socks = [each.transport.get_extra_info("socket") for each in streams if each.transport]
        socks += [sock for listener in self._listeners for sock in listener.socks]
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in [sock.fileno() for sock in socks]:
            if descriptor >= 0:
                os.dup2(null, descriptor, inheritable=False)  # asyncio still knows the number.
        os.close(null)

    # Work for them, in the event loop.

    async def connect(self, sock: socket.socket, address: Address, patience: float) -> None:
        """Join a socket to a new connection of the server."""
        doing = f"cannot connect to {address} from {self._host}"
        stream = Stream(self, self.new_number(), None, b"C", address.encoded(patience))
        stream.adopt(sock)
        await self._ask(stream.number, doing)

    async def listen(self, listener: Listener, target: bytes) -> int:
        """Forward the connections of a listener to an address, and return the port."""
        self._listeners.add(listener)

        def accepted(sock: socket.socket) -> None:
            Stream(self, self.new_number(), listener, b"C", target).adopt(sock)

        listener.start(accepted)
        return listener.port

    async def listen_there(self, listener: FarListener, address: Address) -> int:
        """Have the server listen, and return the port."""
        listener.number = number = self.new_number()
        self.takers[number] = listener
        self.send(b"L", number, address.encoded(0))
        return await self._ask(number, f"cannot listen on {address} of {self._host}")

    async def stop(self, listener: Listener | FarListener) -> None:
        """End a listener with its connections, and leave; if it was the last, end everything."""
        self.break_off(listener)
        with self._lock:
            self.users -= 1
        if isinstance(listener, Listener):
            self._listeners.discard(listener)
            listener.close()
        self._lose_unused()
        if isinstance(listener, FarListener) and self.takers.get(listener.number) is listener:
            self.send_last(listener.number, b"", False)
            await self._ask(listener.number, "")

    async def _run_work(self, work: Callable[..., Work[_T]], args: tuple[Any, ...]) -> _T:
        try:
            if not self.over:
                return await work(*args)
        except asyncio.CancelledError:
            if not self.over:
                raise  # Nobody waits for it any more.
        raise self.lost()

    # The threads.

    def _read(self) -> None:
        end = "the program on the server ended"
        try:
            while octets := self._channel.read(_READ_SIZE):
                self._reads.acquire()
                with self._lock:
                    if self.over:
                        return
                    self.loop.call_soon_threadsafe(self._receive, octets)
            said = self._channel.read_stderr(4096).decode("utf-8", "replace").strip()
            end = said.splitlines()[-1] if said else end
        except (remctl.RemctlError, OSError) as error:
            end = str(error)
        self._lose(end)

    def _run(self) -> None:
        reason = "an error in the program"
        try:
            self.loop.run_until_complete(self.ended)
        except (FrameError, ProtocolError) as error:
            reason = f"the server sent {error}"
        finally:
            self._lose(reason)
            self.loop.run_until_complete(self._clear())
            self.loop.close()
            self._channel.close()

    def _lose(self, reason: str | None) -> None:
        """End, unless it has ended."""
        with self._lock:
            if not self.over:
                self.over, self.reason = True, reason
                self.loop.call_soon_threadsafe(self.quit)

    def _lose_unused(self) -> None:
        with self._lock:
            if not self.users and not any(isinstance(t, Stream) for t in self.takers.values()):
                self._lose(None)

    def _rest(self) -> None:
        """End soon, if nobody uses it until then."""
        if self._linger is not None:
            self._linger.cancel()
        self._linger = self.loop.call_later(LINGER, self._lose_unused)

    async def _clear(self) -> None:
        """Close all sockets, and let nobody wait."""
        self._reads.release()
        await asyncio.sleep(0)  # What was begun before the end comes first.
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.cancel()
        for listener in self._listeners:
            listener.close()
        self.break_off()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks)
        await asyncio.sleep(0)  # Here asyncio closes the sockets.

    # Frames.

    def write(self, octets: bytes) -> None:
        """Write to the channel, while there is one."""
        if not self.over:
            try:
                self._channel.write(octets)  # It waits while much waits: so do all sockets.
            except (remctl.RemctlError, OSError) as error:
                self._lose(str(error))

    def _receive(self, octets: bytes) -> None:
        self._reads.release()
        if not self.over:
            self._frames.write(octets)

    async def _ask(self, number: int, doing: str) -> int:
        """Wait for the answer about this number."""
        self._answers[number] = self.loop.create_future()
        said = await self._answers[number]
        if isinstance(said, bytes):
            raise error_named(said, doing)
        return said

    def settle(self, number: int, said: Answer) -> None:
        """Give whoever waits for this number an answer."""
        answer = self._answers.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_result(said)
        if not self.users and not self.over:
            self._rest()

    def _on_incoming(self, number: int, data: bytes) -> None:
        owner = int.from_bytes(data, "big")
        listener = self.takers.get(owner)
        if number < FIRST_FAR_ID or len(data) != 4 or owner not in self.takers:
            raise ProtocolError("a connection of an unknown listener")
        if len(self.takers) >= 2 * MAX_STREAMS:
            raise ProtocolError("too many connections")
        stream = Stream(self, number, listener)
        if isinstance(listener, FarListener) and len(self.takers) <= MAX_STREAMS:
            stream.begin(listener.find, listener.patience)
        else:
            stream.break_off(b"ECONNREFUSED")


# -- One for each connection ----------------------------------------------------------------------


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        # The mux holds the connection, which is the slot's key, as long as its threads run.
        self.mux: Callable[[], NearMux | None] = lambda: None


_slots: weakref.WeakKeyDictionary[Connection, _Slot] = weakref.WeakKeyDictionary()
_slots_lock = threading.Lock()


def enter_mux(connection: Connection) -> NearMux:
    """Return the mux of a connection, which is opened if there is none, and begin to use it.

    Raises:
        ClosedError, RemctlError: see `Channel`.
    """
    with _slots_lock:
        slot = _slots.setdefault(connection, _Slot())
    with slot.lock:
        mux = slot.mux()
        if mux is None or not mux.enter():
            mux = NearMux(connection)
            mux.enter()
            slot.mux = weakref.ref(mux)
        return mux


def _forget_all() -> None:
    global _slots_lock
    _slots_lock = threading.Lock()
    for mux in [slot.mux() for slot in _slots.values()]:
        if mux is not None:
            mux.forget()
    _slots.clear()


os.register_at_fork(after_in_child=_forget_all)

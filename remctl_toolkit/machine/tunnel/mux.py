"""All tunnels of a connection over one channel: the near side, in a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import remctl

from ..base.errors import MachineError
from ..base.program import source
from ..channel.channel import Channel
from . import both_mux as protocol
from .address import Address, error_named
from .both_mux import FAR, MOST, Broken, Listener, Mux, Stream

if TYPE_CHECKING:
    import _socket

    from ..base.connection import Connection

_LINGER = 5.0  # seconds that the channel stays when nobody uses it
_READ = 1 << 20  # octets
_FULL = 1 << 22  # octets that may wait here until the thread comes to them

# Over there the module has the name that it has here.
_LOADER = f"""\
import sys
module = sys.modules[{protocol.__name__!r}] = type(sys)({protocol.__name__!r})
exec(compile(payload, "<mux>", "exec"), module.__dict__)
"""

_PORT = 2  # octets
_NUMBER = 4


class TunnelError(MachineError):
    """The way of a machine's tunnels to the far side is lost, and their connections with it."""


@dataclass(eq=False)
class FarListener:
    """A socket that listens over there, as we know it.

    Attributes:
        address: where it listens.
        target: where its connections lead to here.
        patience: seconds that connecting there may take.
        listening: becomes the port.
        ending: becomes None when it does not listen any more; None before it is to end.
    """

    address: Address
    target: list[tuple[int, Any]]
    patience: float
    number: int = 0
    listening: Future[int] = field(default_factory=Future)
    ending: Future[None] | None = None


class _Wakeup:
    """A pipe that ends the wait of poll()."""

    def __init__(self, mux: NearMux) -> None:
        self._mux = mux
        self._reader, self._writer = os.pipe()
        self._rung = False
        mux.watch(self._reader, select.POLLIN, self)

    def ring(self) -> None:
        """Wake the thread; call it with the lock."""
        if not self._rung:
            self._rung = True
            os.write(self._writer, b".")

    def hush(self) -> None:
        """Forget about it; call it with the lock."""
        if self._rung:
            self._rung = False
            os.read(self._reader, 1)

    def ready(self, events: int) -> None:
        self._mux.take_what_waits()

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class NearMux(Mux):
    """The near side: a thread that serves the sockets here, and one that reads the channel.

    Only that thread touches the sockets; others leave it jobs.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.handlers = {
            b"O": self._take_opened,
            b"P": self._take_port,
            b"U": self._take_unlistened,
            b"I": self._take_incoming,
        }
        self.pid = os.getpid()
        self.over = False
        self.reason: str | None = None  # why it is, unless that was wanted
        self._host = connection.host
        self._last = 0  # the number given last
        self._answers: dict[int, tuple[Future[None], str]] = {}  # of connections that are asked for
        self._far: dict[int, FarListener] = {}
        self._changed = threading.Condition()  # guards what follows; a __del__ may come in between
        self._users = 0
        self._jobs: deque[tuple[Callable[[], None], Future[Any] | None]] = deque()
        self._inbox: deque[bytes] = deque()
        self._inbox_size = 0
        self._input_end: str | None = None
        self._idle_since: float | None = None
        self._wakeup = _Wakeup(self)
        try:
            self._channel = Channel(
                connection,
                source=_LOADER + source("tunnel/far_mux") + "\nmain()\n",
                payload=source("tunnel/both_mux").encode(),
                label="tunnels",
            )
        except BaseException:
            self._wakeup.close()
            raise
        self._reader = threading.Thread(target=self._read, name="remctl-tunnels-in", daemon=True)
        self._server = threading.Thread(target=self._serve, name="remctl-tunnels", daemon=True)
        self._reader.start()
        self._server.start()
        _living.add(self)

    # For other threads.

    def enter(self) -> bool:
        """Begin to use it; False if it is over."""
        with self._changed:
            if not self.over:
                self._users += 1
            return not self.over

    def leave(self) -> None:
        """Use it no longer; the last one that leaves may come back soon."""
        with self._changed:
            self._users -= 1
            if not self.over:
                self._wakeup.ring()

    def lost(self) -> TunnelError:
        """Return the exception for what cannot be done any more."""
        error = TunnelError(f"the tunnels to {self._host} are lost: {self.reason or 'closed'}")
        error.host = self._host
        return error

    def post(self, job: Callable[[], None], future: Future[Any] | None = None) -> None:
        """Have the thread do this; the future fails if it never does."""
        with self._changed:
            if not self.over:
                self._jobs.append((job, future))
                self._wakeup.ring()
                return
        if future is not None:
            future.set_exception(self.lost())

    def connect(self, sock: socket.socket, address: Address, patience: float) -> Future[None]:
        """Join a socket to a new connection over there."""
        future: Future[None] = Future()

        def job() -> None:
            doing = f"cannot connect to {address} from {self._host}"
            stream = self._open(sock, address.encoded(patience), None)
            if stream is not None:
                self._answers[stream.number] = (future, doing)
            else:
                future.set_exception(OSError(errno.EMFILE, f"{doing}: too many connections"))

        self.post(job, future)
        return future

    def listen_here(self, sock: _socket.socket, target: bytes) -> Future[Listener]:
        """Give connections of a socket that listens here to an address over there."""
        future: Future[Listener] = Future()

        def accepted(listener: Listener, accepted: _socket.socket) -> None:
            self._open(accepted, target, listener)

        self.post(lambda: future.set_result(Listener(self, sock, accepted)), future)
        return future

    def listen_there(self, listener: FarListener) -> None:
        """Have a socket listen over there."""

        def job() -> None:
            listener.number = self._new_number(self._far)
            self._far[listener.number] = listener
            self.send(b"L", listener.number, listener.address.encoded(0))

        self.post(job, listener.listening)

    def stop(self, listener: Listener | FarListener) -> Future[None]:
        """End a listener and its connections, and leave; the last one ends it all."""
        future: Future[None] = Future()

        def job() -> None:
            for stream in list(self.streams.values()):
                if stream is not None and stream.owner is listener:
                    stream.break_off(b"ECONNRESET")
            if isinstance(listener, FarListener):
                if self._far.get(listener.number) is listener:
                    listener.ending = future
                    self.send(b"U", listener.number)
                    return
            elif listener in self.listeners:
                listener.close()
            self._leave_for_good(future)

        self.post(job, future)
        return future

    def end(self, reason: str | None = None) -> None:
        """End it all, and wait until nothing of it is left."""
        with self._changed:
            if not self.over:
                self.over = True
                self.reason = reason
            self._changed.notify_all()
        self._channel.close()
        self._server.join()

    def forget(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self._changed = threading.Condition()
        self.over = True
        self.reason = "they belong to the process that this one was forked from"
        sockets = [listener.sock for listener in self.listeners]
        sockets += [s.sock for s in self.streams.values() if s is not None and s.sock is not None]
        for sock in sockets:
            sock.close()
        self._wakeup.close()

    # The thread that reads.

    def _read(self) -> None:
        end = "the far side ended"
        try:
            while octets := self._channel.read(_READ):
                with self._changed:
                    self._changed.wait_for(lambda: self._inbox_size < _FULL or self.over)
                    if self.over:
                        return
                    self._inbox.append(octets)
                    self._inbox_size += len(octets)
                    self._wakeup.ring()
            end = self._last_words() or end
        except (remctl.RemctlError, OSError) as error:
            end = str(error)
        finally:
            with self._changed:
                self._input_end = end
                self._wakeup.ring()

    def _last_words(self) -> str:
        said = self._channel.read_stderr(4096).decode("utf-8", "replace").strip()
        return said.splitlines()[-1] if said else ""

    # The thread that serves.

    def _serve(self) -> None:
        reason = "an error in the program"  # unless it is another
        try:
            while not self.over:
                self.serve(self.poller.poll(self.patience()))
                self.tick()
                self._flush()
            reason = ""
        except Broken as error:
            reason = f"the far side sent {error}"
        except (remctl.RemctlError, OSError) as error:
            reason = str(error)
        finally:
            self._clear(reason)

    def patience(self) -> float | None:
        """Return how many milliseconds to wait for anything to happen."""
        if self._idle_since is None:
            return super().patience()
        return max(0.0, self._idle_since + _LINGER - time.monotonic()) * 1000 + 1

    def tick(self) -> None:
        """Do what is due."""
        super().tick()
        with self._changed:
            if self._users or self._is_used():
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = time.monotonic()
            elif time.monotonic() >= self._idle_since + _LINGER:
                self.over = True

    def _is_used(self) -> bool:
        streams = self.streams.values()
        return bool(self.listeners or self._far or any(stream is not None for stream in streams))

    def take_what_waits(self) -> None:
        """Do the jobs, and take what the channel had for us."""
        with self._changed:
            self._wakeup.hush()
            inbox, self._inbox = self._inbox, deque()
            self._inbox_size = 0
            self._changed.notify_all()
            end = self._input_end
        while self._jobs:
            self._jobs.popleft()[0]()
        for octets in inbox:
            self.receive(octets)
        if end is not None and not self.over:
            raise MachineError(end)

    def _flush(self) -> None:
        if self.outgoing and not self.over:
            self._channel.write(self.take_outgoing())

    def _clear(self, reason: str) -> None:
        """Close all sockets, let nobody wait, and leave nothing over there."""
        with self._changed:
            if not self.over:
                self.over = True
                self.reason = reason
            jobs, self._jobs = self._jobs, deque()
            self._changed.notify_all()
        self.close()
        futures = [future for _, future in jobs if future is not None]
        for listener in self._far.values():
            futures.append(listener.listening)
            if listener.ending is not None:
                futures.append(listener.ending)
        for future in futures:
            if not future.done():
                future.set_exception(self.lost())
        self._far.clear()
        self._channel.close()
        self._reader.join()
        self._wakeup.close()
        _living.discard(self)

    def _leave_for_good(self, future: Future[None]) -> None:
        with self._changed:
            self._users -= 1
            if not self._users and not self._is_used():
                self.over = True
        future.set_result(None)

    # Connections.

    def _new_number(self, used: dict[int, Any]) -> int:
        while True:
            self._last = (self._last + 1) % FAR
            if self._last not in used:
                return self._last

    def _open(self, sock: _socket.socket, target: bytes, owner: Listener | None) -> Stream | None:
        """Begin a connection, and do not wait for the answer: data may follow at once."""
        if len(self.streams) >= MOST:
            sock.close()
            return None
        number = self._new_number(self.streams)
        self.send(b"C", number, target)
        stream = Stream(self, number, sock)
        stream.owner = owner
        return stream

    def finished(self, stream: Stream, name: bytes) -> None:
        """Tell whoever waits for the connection that there is none."""
        future, doing = self._answers.pop(stream.number, (None, ""))
        if future is None:
            return
        if self.over:
            future.set_exception(self.lost())
        else:
            future.set_exception(error_named(name, doing))

    def _take_opened(self, number: int, data: bytes) -> None:
        if number not in self.streams or data:
            raise Broken("word of an unknown connection")
        future, _ = self._answers.pop(number, (None, ""))
        if future is not None:
            future.set_result(None)

    def _take_port(self, number: int, data: bytes) -> None:
        listener = self._far.get(number)
        if listener is None or listener.listening.done() or len(data) != _PORT:
            raise Broken("word of an unknown listener")
        listener.listening.set_result(int.from_bytes(data, "big"))

    def _take_unlistened(self, number: int, data: bytes) -> None:
        listener = self._far.get(number)
        if listener is not None and data and not listener.listening.done():
            doing = f"cannot listen on {listener.address} of {self._host}"
            listener.listening.set_exception(error_named(data, doing))
        elif listener is not None and listener.ending is not None and not data:
            del self._far[number]
            self._leave_for_good(listener.ending)
        else:
            raise Broken("the end of an unknown listener")

    def _take_incoming(self, number: int, data: bytes) -> None:
        listener = self._far.get(int.from_bytes(data, "big"))
        if listener is None or number < FAR or number in self.streams or len(data) != _NUMBER:
            raise Broken("a connection of an unknown listener")
        if len(self.streams) >= 2 * MOST:
            raise Broken("too many connections")
        stream = Stream(self, number)
        stream.owner = listener
        if listener.ending is not None:
            stream.break_off(b"ECONNREFUSED")
        else:
            stream.connect(listener.target, time.monotonic() + listener.patience)


# -- One for each connection ----------------------------------------------------------------------


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Not to be held here: it holds the connection as long as its threads run.
        self.mux: Callable[[], NearMux | None] = lambda: None


_slots: weakref.WeakKeyDictionary[Connection, _Slot] = weakref.WeakKeyDictionary()
_slots_lock = threading.Lock()
_living: weakref.WeakSet[NearMux] = weakref.WeakSet()


def enter_mux(connection: Connection) -> NearMux:
    """Return the one of this connection, and be a user of it; a new one where there is none.

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


@contextlib.contextmanager
def used_mux(connection: Connection) -> Iterator[NearMux]:
    """The same, for the length of a with statement."""
    mux = enter_mux(connection)
    try:
        yield mux
    finally:
        mux.leave()


def _forget_all() -> None:
    global _slots_lock
    _slots_lock = threading.Lock()
    _slots.clear()
    for mux in list(_living):
        mux.forget()
    _living.clear()


os.register_at_fork(after_in_child=_forget_all)

"""One connection of the proxy, and the faults for it.

A `Relay` is a poll() loop over two sockets with a `Lane` for each direction.  A `Ledger`, shared by
the relays of a proxy and the test, has the faults and the counters.
"""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass

CHUNK = 65536  # the most that a direction holds, in bytes
IDLE_LIMIT = 120.0  # seconds without any event after which a relay gives up


class Direction(enum.Enum):
    """Direction of the data."""

    TO_SERVER = "client to server"
    TO_CLIENT = "server to client"


class Kind(enum.Enum):
    """Effect of a fault once its byte count is reached."""

    STALL = "forward nothing more"
    CLOSE = "FIN to both ends"
    RESET = "RST to both ends"
    DRIBBLE = "one byte per write"
    DELAY = "hold the bytes for a while"


@dataclass(frozen=True, eq=False)
class Fault:
    """One fault; `seconds` is for DRIBBLE (between bytes) and DELAY."""

    kind: Kind
    after: int = 0
    seconds: float = 0.0
    connections: Container[int] | None = None


class Ledger:
    """Faults set and bytes forwarded, by direction; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[Direction, Fault] = {}
        self._forwarded = dict.fromkeys(Direction, 0)
        self._struck = dict.fromkeys(Direction, 0)

    def set(self, direction: Direction, fault: Fault) -> None:
        """Set the fault of a direction."""
        with self._lock:
            self._faults[direction] = fault

    def lift(self, direction: Direction) -> None:
        """Remove the fault of a direction."""
        with self._lock:
            self._faults.pop(direction, None)

    def fault(self, direction: Direction, number: int) -> Fault | None:
        """Return the fault for a direction of the `number`th connection."""
        with self._lock:
            fault = self._faults.get(direction)
        if fault is None or fault.connections is None or number in fault.connections:
            return fault
        return None

    def forwarded(self, direction: Direction) -> int:
        """Return the number of bytes in a direction."""
        with self._lock:
            return self._forwarded[direction]

    def forward(self, direction: Direction, send: Callable[[], int]) -> int:
        """Send and count atomically: received bytes are always counted.  Must not block."""
        with self._lock:
            sent = send()
            self._forwarded[direction] += sent
        return sent

    def struck(self, direction: Direction) -> int:
        """Return how many times a fault of a direction has hit a connection."""
        with self._lock:
            return self._struck[direction]

    def add_struck(self, direction: Direction) -> None:
        """Count a fault that hit a connection."""
        with self._lock:
            self._struck[direction] += 1


class Broken(Exception):
    """The connection must end with RST at both ends."""


class Lane:
    """One direction of one connection: its buffer, and the limits for writing."""

    def __init__(
        self,
        ledger: Ledger,
        direction: Direction,
        number: int,
        source: socket.socket,
        destination: socket.socket,
    ) -> None:
        self.source = source
        self.destination = destination
        self.held = bytearray()
        self.forwarded = 0
        self.ended = False  # nothing more will come from the source
        self.broken = False  # ... because it was reset
        self.passed_on = False  # the destination has been told, or is gone itself
        self.not_before = 0.0  # monotonic time of the next write
        self._ledger = ledger
        self._direction = direction
        self._number = number
        self._struck_by: Fault | None = None

    def wants_to_read(self) -> bool:
        """Return whether more data may come, and there is room for them."""
        return not self.ended and len(self.held) < CHUNK

    def wants_to_write(self, now: float) -> bool:
        """Return whether a byte may be written now."""
        return now >= self.not_before and self._allowance() > 0

    def may_pass_end(self) -> bool:
        """Return whether the end of file must be forwarded next."""
        fault = self.fault_in_force()
        stalled = fault is not None and fault.kind is Kind.STALL
        return self.ended and not self.held and not self.passed_on and not stalled

    def read(self) -> None:
        """Read available data of the source."""
        try:
            data = self.source.recv(CHUNK - len(self.held))
        except ConnectionError:
            data, self.broken = b"", True
        self.ended = not data
        if not self.passed_on:
            self.held += data

    def write(self) -> None:
        """Forward as much as the fault allows."""
        data = self.held[: self._allowance()]
        sent = self._ledger.forward(self._direction, lambda: self.destination.send(data))
        del self.held[:sent]
        self.forwarded += sent
        fault = self.fault_in_force()
        if fault and fault.kind is Kind.DRIBBLE:
            self.not_before = time.monotonic() + fault.seconds

    def pass_end(self) -> None:
        """Forward the end of file; Broken, if a reset was the end."""
        if self.broken:
            raise Broken
        self.drop()
        with contextlib.suppress(OSError):  # the destination may be gone already
            self.destination.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """Forward nothing more, and discard new data."""
        self.passed_on = True
        self.held.clear()

    def fault_in_force(self) -> Fault | None:
        """Return the fault if its byte count is reached; the first time, apply it."""
        fault = self._ledger.fault(self._direction, self._number)
        if fault is not self._struck_by:
            self._struck_by, self.not_before = None, 0.0
        if fault is None or self.forwarded < fault.after:
            return None
        if self._struck_by is None and (fault.kind is not Kind.DELAY or self.held):
            self._strike(fault)
        return fault

    def _strike(self, fault: Fault) -> None:
        self._struck_by = fault
        if fault.kind is Kind.DELAY:
            self.not_before = time.monotonic() + fault.seconds
        self._ledger.add_struck(self._direction)

    def _allowance(self) -> int:
        """Return how many buffered bytes may be written, regardless of delays."""
        fault = self._ledger.fault(self._direction, self._number)
        if fault is None:
            return len(self.held)
        if self.forwarded < fault.after:
            return min(len(self.held), fault.after - self.forwarded)
        most = {Kind.STALL: 0, Kind.DRIBBLE: 1}.get(fault.kind, len(self.held))
        return min(len(self.held), most)


class Relay:
    """One relayed connection; a byte on `woken` says that the faults or `stopping` changed."""

    def __init__(
        self,
        ledger: Ledger,
        number: int,
        client: socket.socket,
        server: socket.socket,
        woken: socket.socket,
        stopping: threading.Event,
    ) -> None:
        self.sockets = (client, server)
        self.lanes = (
            Lane(ledger, Direction.TO_SERVER, number, client, server),
            Lane(ledger, Direction.TO_CLIENT, number, server, client),
        )
        self.woken = woken
        self.stopping = stopping
        self.closing = False
        self.over: set[int] = set()  # descriptors closed both ways: watched only to be read
        for end in (*self.sockets, woken):
            end.setblocking(False)

    def run(self) -> None:
        """Forward until both ends of file have passed; Broken, when a reset ends it."""
        self._apply_faults()
        while not self.stopping.is_set() and not self._finished():
            self._wait_and_move()
            self._apply_faults()

    def _finished(self) -> bool:
        if self.closing:
            return all(lane.ended for lane in self.lanes)
        return all(lane.passed_on for lane in self.lanes)

    def _apply_faults(self) -> None:
        if self.closing:
            return
        for lane in self.lanes:
            fault = lane.fault_in_force()
            if fault and fault.kind is Kind.RESET:
                raise Broken
            if fault and fault.kind is Kind.CLOSE:
                self._close()
                return
            if lane.may_pass_end():
                lane.pass_end()

    def _close(self) -> None:
        self.closing = True
        for lane in self.lanes:
            lane.pass_end()

    def _wait_and_move(self) -> None:
        now = time.monotonic()
        ready = self._wait(self._interest(now), now)
        if ready.pop(self.woken.fileno(), 0):
            self.woken.recv(CHUNK)
        for lane, reverse in (self.lanes, reversed(self.lanes)):
            self._move(lane, reverse, ready)
        for descriptor, events in ready.items():
            if events & (select.POLLERR | select.POLLHUP):
                self.over.add(descriptor)

    def _interest(self, now: float) -> dict[int, int]:
        """Return the poll() events for each descriptor; errors are always reported."""
        interest = {end.fileno(): 0 for end in self.sockets if end.fileno() not in self.over}
        for lane in self.lanes:
            source, destination = lane.source.fileno(), lane.destination.fileno()
            if lane.wants_to_read():
                interest[source] = interest.get(source, 0) | select.POLLIN
            if lane.wants_to_write(now):
                interest[destination] = interest.get(destination, 0) | select.POLLOUT
        return interest

    def _wait(self, interest: dict[int, int], now: float) -> dict[int, int]:
        poller = select.poll()
        poller.register(self.woken, select.POLLIN)
        for descriptor, events in interest.items():
            poller.register(descriptor, events)
        timers = [lane.not_before - now for lane in self.lanes if lane.not_before > now]
        ready = dict(poller.poll(min([*timers, IDLE_LIMIT]) * 1000))
        if not ready and not timers:
            raise TimeoutError(f"a relay was idle for {IDLE_LIMIT} seconds")
        return ready

    def _move(self, lane: Lane, reverse: Lane, ready: dict[int, int]) -> None:
        """Write before reading: what came before a reset is to arrive before the reset."""
        readable = select.POLLIN | select.POLLERR | select.POLLHUP
        with contextlib.suppress(BlockingIOError):  # poll() may be wrong about readiness
            if ready.get(lane.destination.fileno(), 0) & select.POLLOUT:
                self._write(lane, reverse)
            if lane.wants_to_read() and ready.get(lane.source.fileno(), 0) & readable:
                lane.read()

    def _write(self, lane: Lane, reverse: Lane) -> None:
        try:
            lane.write()
        except ConnectionError:  # what the destination said before it broke is still to go
            lane.drop()
            reverse.broken = True

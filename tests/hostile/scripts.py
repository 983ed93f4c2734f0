"""The hostile server of a case: it behaves up to the case's state, does its fault, and goes on."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable

from support import wire
from support.fakeserver import ClientGone, Peer, serve, serve_on
from support.wire import Flag, Message

from .expected import BEGINNING, REST, Case, State, due_flags
from .faults import LIE, Due, Reading

FIRST = ["the", "first"]  # the command before the one that is interfered with


class CaseScript:
    """A script: be hostile to the first client, and behave to all others.

    With `first`, a client sends a command before the state in which protocol 2 and 3 are
    interfered with.  `came` is set when the server has come to its fault, or never will; `came_at`
    is the monotonic time when all was sent that a client gets before the fault.
    """

    def __init__(self, case: Case, *, first: bool = True) -> None:
        self.case = case
        self.first = first and case.version > 1
        self.came = threading.Event()
        self.came_at = math.inf
        self._lock = threading.Lock()
        self._clients: list[int] = []

    def __call__(self, peer: Peer) -> None:
        """Serve one client."""
        with self._lock:
            self._clients.append(peer.number)
        if self._clients[0] != peer.number:
            serve(self.case.version)(peer)
            return
        peer.protocol = self.case.version
        try:
            Hostile(self.case, peer, self.first).run(self._note)
        finally:
            self.came.set()

    def _note(self) -> None:
        self.came_at = time.monotonic()
        self.came.set()


class Hostile:
    """One connection to a hostile server."""

    def __init__(self, case: Case, peer: Peer, first: bool) -> None:
        self.case = case
        self.peer = peer
        self.first = first

    def run(self, came: Callable[[], None]) -> None:
        """Do the whole connection; tell when it has come to the fault."""
        due = self._come_to_the_fault()
        came()
        self.case.fault.act(due)
        if self.case.fault.reading is Reading.SILENCE:
            self.peer.stall()
        elif self.case.fault.reading is not Reading.END:
            self._go_on()

    def _due(self, message: bytes = b"", raw: bytes = b"") -> Due:
        flags = due_flags(self.case.version, self.case.state)
        return Due(self.peer, flags, message, raw)

    def _come_to_the_fault(self) -> Due:
        """Behave until the moment of the fault; say what is due then."""
        state, peer = self.case.state, self.peer
        peer.read_hello()
        if state is State.CONNECTED:
            return self._due()
        if state is State.CONTEXT:
            return self._due(raw=peer.take_context())
        peer.negotiate()
        if state is State.IDLE:
            return self._due(self._unasked())
        if state is State.CLOSE:
            self._serve_until_the_client_leaves()
            return self._due(self._unasked())
        if self.first:
            self._answer_first()
        return self._due_to_a_question()

    def _due_to_a_question(self) -> Due:
        state, peer = self.case.state, self.peer
        if state is State.ANSWERED:
            return self._due(self._unasked())
        message = peer.read_message()
        if state is State.NOOP:
            return self._due(wire.pack_noop())
        if state is State.MIC:
            return self._due(raw=peer.context.get_signature(message))
        peer.finish_command(message)
        if state is State.OUTPUT:
            peer.send_output(BEGINNING)
        if peer.protocol == 1:
            return self._due(wire.pack_v1_result(REST, 0))
        return self._due(wire.pack_output(REST))

    def _answer_first(self) -> None:
        self.peer.read_command()
        self.peer.send_output(b"first\n")
        self.peer.send_status(0)

    def _unasked(self) -> bytes:
        """A message that would be right if somebody had asked."""
        return wire.pack_v1_result(LIE, 0) if self.peer.protocol == 1 else wire.pack_output(LIE)

    def _serve_until_the_client_leaves(self) -> None:
        with contextlib.suppress(ClientGone):
            serve_on(self.peer)

    def _go_on(self) -> None:
        """Do what would be right, had the fault been the token that was due."""
        peer, state = self.peer, self.case.state
        if state is State.CONNECTED:
            peer.stall()
            return
        if state is State.CONTEXT:
            self._take_protocol()
        elif state is State.MIC:
            peer.send_v1_result(REST, 0)
        elif state in (State.COMMAND, State.OUTPUT) and peer.protocol > 1 and not self._ended():
            peer.send_status(0)
        if state is not State.CONTEXT and self.case.fault.flags == Flag.DATA | Flag.SEND_MIC:
            peer.read_token()  # The signature that this asks for, or the end.
        self._serve_until_the_client_leaves()

    def _take_protocol(self) -> None:
        """Speak the protocol that the flags of the context token have told the client."""
        flags = self.case.fault.flags
        if flags is not None:
            self.peer.protocol = 2 if flags & Flag.PROTOCOL else 1

    def _ended(self) -> bool:
        """Whether the fault was itself the end of a command."""
        return self.case.fault.message[1:2] in (bytes([Message.STATUS]), bytes([Message.ERROR]))

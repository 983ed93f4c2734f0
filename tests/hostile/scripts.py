"""The hostile server of a case: it behaves up to the case's state, then performs its fault."""

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

FIRST = ["the", "first"]  # the command before the fault


class CaseScript:
    """A script that is hostile to the first client, and serves all others correctly.

    With `first`, a client of protocol 2 and 3 sends a command before the fault.  `came` is set when
    the server has reached its fault, or never will; `came_at` is the monotonic time when everything
    before the fault was sent.
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
        """Serve the whole connection; call `came` when it reaches the fault."""
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
        """Behave up to the fault; return the token that is due then."""
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
        """Return a message that would be right if the client had asked for it."""
        return wire.pack_v1_result(LIE, 0) if self.peer.protocol == 1 else wire.pack_output(LIE)

    def _serve_until_the_client_leaves(self) -> None:
        with contextlib.suppress(ClientGone):
            serve_on(self.peer)

    def _go_on(self) -> None:
        """Continue as if the fault had been the right token."""
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
            peer.read_token()  # The requested signature, or the end.
        self._serve_until_the_client_leaves()

    def _take_protocol(self) -> None:
        """Speak the protocol that the flags of the context token announced to the client."""
        flags = self.case.fault.flags
        if flags is not None:
            self.peer.protocol = 2 if flags & Flag.PROTOCOL else 1

    def _ended(self) -> bool:
        """Return whether the fault itself ended a command."""
        return self.case.fault.message[1:2] in (bytes([Message.STATUS]), bytes([Message.ERROR]))

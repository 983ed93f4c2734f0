"""A remctl server that runs a script, good or bad, with real Kerberos.

    def cut_short(peer: Peer) -> None:
        peer.accept()
        peer.read_command()
        peer.send_output(b"the beginning")
        peer.reset()

    with FakeServer(realm.keytab, cut_short) as server:
        ...  # connect to localhost, server.port

The negotiation is real: clients need a ticket for the principal in the keytab.  `serve()` makes the
script of a correct server.  A script runs in a separate thread for each connection, so its
exceptions cannot reach the test: they are kept in `server.errors`.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

import gssapi
from gssapi.raw import GSSError

from . import wire
from .loopback import LoopbackServer
from .waiting import PATIENCE
from .wire import Continue, Error, Flag, Message, ProtocolError, Token

Command = list[bytes]
Result = tuple[bytes, bytes, int]
Handler = Callable[[Command], Result]
Script = Callable[["Peer"], None]

NEEDED_FLAGS = (
    gssapi.RequirementFlag.mutual_authentication,
    gssapi.RequirementFlag.confidentiality,
    gssapi.RequirementFlag.integrity,
)
STALL_LIMIT = 120.0 * PATIENCE  # maximum seconds of a stall


class ClientGone(ConnectionError):
    """The client closed its end."""


class ClientQuit(ClientGone):
    """The client sent QUIT."""


class ProtocolFound(ClientGone):
    """The client detected protocol 1, and opens a new connection."""


class Refusal(Exception):
    """Raised by a handler: answer the command with an error instead of a result."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class FakeServer(LoopbackServer):
    """Run `script` for every connection; a context manager.

    `keytab` holds the acceptor's key; `name` is the host-based service that it answers as, None
    for any in the keytab.  `protocol` (1, 2 or 3) is what its peers speak unless a script says
    otherwise.  `script` may be replaced between connections.  The environment is not consulted
    for keys, and no replay cache is written.

    A client that finds protocol 1 opens another connection for each command: the one that it left
    is not counted, and its script is run again.
    """

    def __init__(
        self,
        keytab: str | os.PathLike[str],
        script: Script | None = None,
        *,
        protocol: int = 3,
        name: str | None = "host@localhost",
        host: str = "127.0.0.1",
        timeout: float = 30.0 * PATIENCE,
    ) -> None:
        super().__init__(host, timeout=timeout)
        self.script = script or serve()
        self.protocol = protocol
        self.credentials = acceptor_credentials(keytab, name)
        self._commands: list[Command] = []
        self._messages: list[int] = []
        self._numbered = 0
        self._unused: set[Peer] = set()  # opened with protocol 1, and nothing has come yet
        self._changed = threading.Condition()

    @property
    def commands(self) -> list[Command]:
        """Every complete command received, in order."""
        with self._lock:
            return [list(command) for command in self._commands]

    @property
    def messages(self) -> list[int]:
        """The type of every protocol 2 or 3 message received, in order."""
        with self._lock:
            return list(self._messages)

    def handle(self, connection: socket.socket, number: int) -> None:
        """Run the script for one client."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unused, self.timeout)
            self._numbered += 1
            number = self._numbered
        self.script(Peer(self, connection, number))

    def show_protocol_1(self, peer: Peer) -> None:
        """Make other connections wait until it is known whether this one is used."""
        with self._changed:
            self._unused.add(peer)

    def forget(self, peer: Peer) -> None:
        """Stop waiting for a connection whose opening failed."""
        with self._changed:
            self._unused.discard(peer)
            self._changed.notify_all()

    def await_use(self, peer: Peer) -> None:
        """Wait until a client that detected protocol 1 continues.

        Raises:
            ProtocolFound: it continues with another connection.
        """
        try:
            used = bool(peer.connection.recv(1, socket.MSG_PEEK))
        except ConnectionError:
            used = False
        with self._changed:
            self._unused.discard(peer)
            if not used:
                self._numbered -= 1
                with self._lock:
                    self.connections -= 1
            self._changed.notify_all()
        if not used:
            raise ProtocolFound

    def record_command(self, command: Command) -> None:
        """Add to `commands`."""
        with self._lock:
            self._commands.append(command)

    def record_message(self, kind: int) -> None:
        """Add to `messages`."""
        with self._lock:
            self._messages.append(kind)


class Peer:
    """The server's side of one connection: the steps that a script is made of.

    `number` counts the server's connections from 1; `client_principal` is known after accept();
    `keepalive` is what the latest COMMAND message asked for; `last_token` is the latest token
    read, `last_sent` the latest sent, whole.  A step that reads raises ClientGone when the client
    has closed, ProtocolError when it sent what it should not have, and TimeoutError after the
    server's timeout.
    """

    def __init__(self, server: FakeServer, connection: socket.socket, number: int) -> None:
        self.server = server
        self.connection = connection
        self.number = number
        self.protocol = server.protocol
        self.client_principal = ""
        self.keepalive = True
        self.last_token = Token(0, b"")
        self.last_sent = b""
        self._context: gssapi.SecurityContext | None = None

    # Opening

    def accept(self, protocol: int | None = None, *, reply_flags: int | None = None) -> None:
        """Do the whole opening, as a server of this protocol (the peer's own by default)."""
        if protocol is not None:
            self.protocol = protocol
        self.read_hello()
        self.negotiate(reply_flags=reply_flags)

    def read_hello(self) -> Token:
        """Read the empty first token of a client."""
        token = self.read_token()
        if token.flags & ~Flag.PROTOCOL != Flag.NOOP | Flag.CONTEXT_NEXT or token.payload:
            raise ProtocolError(f"not a client's first token: flags {token.flags:#x}")
        if self.protocol > 1 and not token.flags & Flag.PROTOCOL:
            raise ProtocolError("the client speaks protocol 1 only")
        return token

    def negotiate(self, *, reply_flags: int | None = None) -> None:
        """Agree on a GSS-API context; `reply_flags` replaces the flags of the server's tokens."""
        if reply_flags is None:
            reply_flags = self._flags(Flag.CONTEXT)
        if self.protocol == 1:
            self.server.show_protocol_1(self)
        context = gssapi.SecurityContext(creds=self.server.credentials, usage="accept")
        try:
            while not context.complete:
                self._answer_context(context, self._read_context_token(), reply_flags)
        except BaseException:
            self.server.forget(self)
            raise
        self._adopt_context(context)
        if self.protocol == 1:
            self.server.await_use(self)

    def take_context(self) -> bytes:
        """Read the client's context token; return the answer to it, for the script to send.

        Kerberos needs no more than these two: the context is complete then.
        """
        context = gssapi.SecurityContext(creds=self.server.credentials, usage="accept")
        reply = bytes(context.step(self._read_context_token()))
        self._adopt_context(context)
        return reply

    def _read_context_token(self) -> bytes:
        token = self.read_token()
        if token.flags & ~Flag.PROTOCOL != Flag.CONTEXT:
            raise ProtocolError(f"not a context token: flags {token.flags:#x}")
        return token.payload

    def _adopt_context(self, context: gssapi.SecurityContext) -> None:
        self._check_context(context)
        self._context = context
        self.client_principal = str(context.initiator_name)

    def _answer_context(self, context: gssapi.SecurityContext, token: bytes, flags: int) -> None:
        try:
            reply = context.step(token)
        except GSSError as error:
            if error.token:
                self.send_token(flags, error.token)
            raise
        if reply:
            self.send_token(flags, reply)

    def _check_context(self, context: gssapi.SecurityContext) -> None:
        missing = [flag.name for flag in NEEDED_FLAGS if flag not in context.actual_flags]
        if missing and self.protocol > 1:
            raise ProtocolError(f"the client did not negotiate {', '.join(missing)}")

    # Reading

    def read_token(self) -> Token:
        """Read one token as it is on the wire."""
        flags, length = wire.HEADER.unpack(self._receive(wire.HEADER.size))
        if length > wire.MAX_TOKEN:
            raise ProtocolError(f"a token of {length} bytes")
        self.last_token = Token(flags, self._receive(length))
        return self.last_token

    def read_message(self) -> bytes:
        """Read a token of data and return its plaintext; a protocol 1 MIC is not answered."""
        token = self.read_token()
        asking = Flag.DATA | (Flag.SEND_MIC if self.protocol == 1 else Flag.PROTOCOL)
        if token.flags != asking:
            raise ProtocolError(f"not a token of data: flags {token.flags:#x}")
        message = self.unwrap(token.payload)
        if self.protocol > 1:
            if len(message) < 2:
                raise ProtocolError("a message of less than two bytes")
            self.server.record_message(message[1])
        return message

    def read_command(self) -> Command:
        """Read a command, however many messages it takes, and record it.

        With protocol 1 the MIC that the client waits for is sent.  Raises ClientQuit on a QUIT.
        """
        return self.finish_command(self.read_message())

    def finish_command(self, message: bytes) -> Command:
        """Like read_command(), when its first message has been read already."""
        if self.protocol == 1:
            self.send_mic(message)
            command = wire.parse_arguments(message)
        else:
            command = wire.parse_arguments(self._assemble(message))
        self.server.record_command(command)
        return command

    def _assemble(self, message: bytes) -> bytes:
        pieces: list[bytes] = []
        while True:
            self._check_piece(message, first=not pieces)
            self.keepalive = message[2] != 0
            pieces.append(message[4:])
            if message[3] in (Continue.WHOLE, Continue.LAST):
                return b"".join(pieces)
            message = self.read_message()

    def _check_piece(self, message: bytes, *, first: bool) -> None:
        if message[1] == Message.QUIT:
            raise ClientQuit("the client said QUIT")
        if message[1] != Message.COMMAND or len(message) < 4:
            raise ProtocolError(f"not a command: {message[:8]!r}")
        sequel = message[3] in (Continue.MIDDLE, Continue.LAST)
        if message[3] > Continue.LAST or sequel == first:
            raise ProtocolError(f"continue status {message[3]} is out of place")

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            if not piece:
                raise ClientGone(f"end of file with {count - len(data)} bytes to come")
            data += piece
        return bytes(data)

    # Answering

    def send_output(self, data: bytes, stream: int = 1) -> None:
        """Send output, in as many messages as it needs (one, if there is nothing to send)."""
        for start in range(0, len(data) or 1, wire.MAX_OUTPUT):
            self.send_message(wire.pack_output(data[start : start + wire.MAX_OUTPUT], stream))

    def send_status(self, status: int) -> None:
        """Send the exit status, 0..255."""
        self.send_message(wire.pack_status(status))

    def send_error(self, code: int, text: str | bytes) -> None:
        """Refuse the command; protocol 1 has no codes and sends the text as a failed result."""
        raw = text.encode() if isinstance(text, str) else text
        if self.protocol == 1:
            self.send_v1_result(raw + b"\n", -1)
        else:
            self.send_message(wire.pack_error(code, raw))

    def send_noop(self) -> None:
        """Answer a NOOP."""
        self.send_message(wire.pack_noop())

    def send_version(self, highest: int) -> None:
        """Send the highest protocol version of the server."""
        self.send_message(wire.pack_version(highest))

    def send_v1_result(self, data: bytes, status: int, *, ask_mic: bool = False) -> None:
        """Send the only answer of protocol 1.

        `ask_mic` asks for the client's MIC, then reads and checks it; real servers do not ask.
        """
        message = wire.pack_v1_result(data, status)
        if not ask_mic:
            self.send_message(message)
            return
        self.send_message(message, flags=Flag.DATA | Flag.SEND_MIC)
        self.read_mic(message)

    # The layers below

    def send_mic(self, message: bytes) -> None:
        """Send a MIC of the client's message."""
        self.send_token(Flag.MIC, self.context.get_signature(message))

    def read_mic(self, message: bytes) -> None:
        """Read the client's MIC of `message`; GSSError when it is not one."""
        token = self.read_token()
        if token.flags != Flag.MIC:
            raise ProtocolError(f"not a MIC: flags {token.flags:#x}")
        self.context.verify_signature(message, token.payload)

    def send_message(self, message: bytes, flags: int | None = None) -> None:
        """Wrap any plaintext and send it, by default with the flags of this protocol's data."""
        self.send_token(self._flags(Flag.DATA) if flags is None else flags, self.wrap(message))

    def send_token(self, flags: int, payload: bytes, length: int | None = None) -> None:
        """Send a token; `length` is the length in its header, by default the right one."""
        self.last_sent = wire.pack_token(flags, payload, length)
        self.send_raw(self.last_sent)

    def send_raw(self, data: bytes) -> None:
        """Send raw bytes."""
        self.connection.sendall(data)

    def wrap(self, message: bytes, *, encrypt: bool = True) -> bytes:
        """Encrypt a message, or only sign it."""
        return bytes(self.context.wrap(message, encrypt).message)

    def unwrap(self, payload: bytes) -> bytes:
        """Decrypt; GSSError when the payload does not verify."""
        return self.context.unwrap(payload).message

    @property
    def context(self) -> gssapi.SecurityContext:
        """The negotiated context."""
        if self._context is None:
            raise RuntimeError("the script needs accept() first")
        return self._context

    def _flags(self, flag: Flag) -> int:
        return flag | Flag.PROTOCOL if self.protocol > 1 else flag

    # Ending

    def close(self) -> None:
        """Close the connection; the client sees the end of file."""
        self.server.drop(self.connection)

    def reset(self) -> None:
        """Break the connection; the client sees ECONNRESET."""
        self.server.drop(self.connection, reset=True)

    def stall(self, *, reading: bool = True, limit: float = STALL_LIMIT) -> None:
        """Send nothing more until the client goes away or the server is stopped.

        Data of the client are discarded; with `reading` False they are left unread, so that a
        client that sends enough blocks.  TimeoutError after `limit` seconds.
        """
        if reading:
            self.connection.settimeout(limit)
            while self.connection.recv(65536):
                pass
        else:
            poller = select.poll()
            poller.register(self.connection, select.POLLRDHUP)
            if not poller.poll(limit * 1000):
                raise TimeoutError(f"stalled for {limit} seconds")


def serve(protocol: int | None = None, handler: Handler | None = None) -> Script:
    """Make the script of a correct server, which answers until the client quits or closes.

    `protocol` None means the server's own.  `handler` makes (stdout, stderr, status) of a command,
    or raises Refusal; by default it echoes the command.  Protocol 1 serves one command and sends
    both streams as one.  Protocol 2 answers a NOOP as servers did that did not know it.
    """

    def script(peer: Peer) -> None:
        peer.accept(protocol)
        serve_on(peer, handler)

    return script


def serve_on(peer: Peer, handler: Handler | None = None) -> None:
    """Behave like `serve()` on an open connection."""
    answer_to = handler or echo
    if peer.protocol == 1:
        _answer(peer, peer.read_command(), answer_to)
        return
    while peer.keepalive:
        message = peer.read_message()
        if message[1] == Message.QUIT:
            return
        _serve_message(peer, message, answer_to)


def in_turn(*scripts: Script) -> Script:
    """Run the first script for the first connection and so on, the last for all that follow."""

    def script(peer: Peer) -> None:
        scripts[min(peer.number, len(scripts)) - 1](peer)

    return script


def stall_after_output(peer: Peer) -> None:
    """Read one command, send "so far" of its output, and stall: a script."""
    peer.accept()
    peer.read_command()
    peer.send_output(b"so far")
    peer.stall()


def echo(command: Command) -> Result:
    """Answer with the command's words, a space between them and a newline behind."""
    return b" ".join(command) + b"\n", b"", 0


def acceptor_credentials(
    keytab: str | os.PathLike[str], name: str | None = None
) -> gssapi.Credentials:
    """Credentials to accept with, from this keytab alone and without a replay cache."""
    service = None
    if name is not None:
        service = gssapi.Name(name, gssapi.NameType.hostbased_service)
    store: dict[bytes | str, bytes | str] = {
        "keytab": f"FILE:{os.fspath(keytab)}",
        "rcache": "none:",
    }
    return gssapi.Credentials(usage="accept", name=service, store=store)


def _serve_message(peer: Peer, message: bytes, handler: Handler) -> None:
    if message[0] not in range(2, peer.protocol + 1):
        peer.send_version(peer.protocol)
    elif message[1] == Message.NOOP:
        peer.send_noop()
    elif message[1] == Message.COMMAND:
        _answer(peer, peer.finish_command(message), handler)
    else:
        peer.send_error(Error.UNKNOWN_MESSAGE, "Unknown message")


def _answer(peer: Peer, command: Command, handler: Handler) -> None:
    try:
        stdout, stderr, status = handler(command)
    except Refusal as refusal:
        peer.send_error(refusal.code, refusal.text)
        return
    if peer.protocol == 1:
        peer.send_v1_result(stdout + stderr, status)
        return
    for stream, data in ((1, stdout), (2, stderr)):
        if data:
            peer.send_output(data, stream)
    peer.send_status(status)

"""Expected outcome of each fault in each state: the documentation's rules, as data.

`CASES` holds every (version of the protocol, state, fault) with its `Outcome`; `left_out()` returns
the reason why a combination is missing.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from support import wire
from support.wire import Flag, Message

import remctl

from .faults import CONTEXT, FAULTS, Fault, Needs, Reading

BEGINNING = b"the beginning\n"  # output before a fault
REST = b"the rest\n"  # output that is due when a fault occurs


class State(enum.Enum):
    """State of a session in which the server misbehaves."""

    CONNECTED = "connected"
    CONTEXT = "authenticating"
    IDLE = "idle"
    MIC = "command sent"
    COMMAND = "command"
    OUTPUT = "output"
    NOOP = "noop"
    ANSWERED = "answered"
    CLOSE = "close"


WHEN = {
    State.CONNECTED: "the client has connected and sent its first token",
    State.CONTEXT: "the server has the client's ticket and must send its context token, of which "
    "Kerberos needs only one",
    State.IDLE: "the connection is open, and the client has sent no request",
    State.MIC: "the client has sent a command, and the server must sign it (protocol 1)",
    State.COMMAND: "the client has sent a command, and the first answer is due",
    State.OUTPUT: "the server has sent a part of the output, and more is due",
    State.NOOP: "the client has called `noop()`, and the answer is due",
    State.ANSWERED: "the server has sent a command's status, and nothing is due",
    State.CLOSE: "the client has sent QUIT, or closed the connection",
}

STATES = {
    # Protocol 1 opens a connection for each command.
    1: (State.CONNECTED, State.CONTEXT, State.MIC, State.COMMAND),
    2: tuple(state for state in State if state is not State.MIC),
    3: tuple(state for state in State if state is not State.MIC),
}
OPENING = (State.CONNECTED, State.CONTEXT)
UNASKED = (State.IDLE, State.ANSWERED, State.CLOSE)
RUNNING = (State.MIC, State.COMMAND, State.OUTPUT)


class Left(enum.Enum):
    """Reason why a combination does not exist."""

    VERSION = "this fault exists only in another version of the protocol"
    NO_TOKEN = "no token is due yet that could be altered"
    NO_KEY = "there is no session key yet to protect a message"
    SIGNATURE = "a bare signature is due, not a message"
    RIGHT_FLAGS = "these flags are correct in this state"
    NOTHING_DUE = "nothing is due, so silence is correct"
    OPENING_ONLY = "the context is complete"
    NO_TOKEN_BEFORE = "the server has not sent a message before"


@dataclass(frozen=True)
class Outcome:
    """Expected exception or result of a call.

    `word` is for the table.  `text` must be part of the exception's text; `code` is the code of a
    refusal.  `result` is that of `run()`, or `error.partial`; `answer` is that of `noop()`.
    """

    word: str
    raises: type[remctl.RemctlError] | None = None
    text: str = ""
    code: int = 0
    result: remctl.RemctlSimpleResult | None = None
    answer: bool | None = None
    stays_open: bool = False


@dataclass(frozen=True)
class Case:
    """A fault in a state of a session, for one version of the protocol."""

    version: int
    state: State
    fault: Fault
    outcome: Outcome = field(compare=False)

    def __str__(self) -> str:
        words = re.sub(r"\W+", "-", f"{self.state.value} {self.fault.name}")
        return f"v{self.version}-{words}"


# -- Combinations that do not exist ---------------------------------------------------------------


def left_out(version: int, state: State, fault: Fault) -> Left | None:
    """Return the reason why a combination does not exist; None if it does."""
    if version not in fault.versions:
        return Left.VERSION
    if fault.group == CONTEXT and state is not State.CONTEXT:
        return Left.NO_TOKEN if state is State.CONNECTED else Left.OPENING_ONLY
    if state is State.CONNECTED and fault.needs is not Needs.NOTHING:
        return Left.NO_TOKEN
    if state is State.CONTEXT and fault.needs is Needs.KEY:
        return Left.NO_KEY
    if state is State.MIC and fault.needs is Needs.KEY:
        return Left.SIGNATURE
    if fault.flags is not None and fault.flags == due_flags(version, state):
        return Left.RIGHT_FLAGS
    if state in UNASKED and fault.name == "sends nothing":
        return Left.NOTHING_DUE
    if state is State.IDLE and fault.name == "the previous token again":
        return Left.NO_TOKEN_BEFORE
    return None


def due_flags(version: int, state: State) -> int:
    """Return the flags of the token that an honest server sends."""
    flag = {State.CONNECTED: Flag.CONTEXT, State.CONTEXT: Flag.CONTEXT, State.MIC: Flag.MIC}.get(
        state, Flag.DATA
    )
    return flag | Flag.PROTOCOL if version > 1 else flag


# -- Outcomes -------------------------------------------------------------------------------------


def partial(state: State) -> remctl.RemctlSimpleResult | None:
    """Return the expected `error.partial` after a failure in a state."""
    if state not in RUNNING or state is State.MIC:  # A command counts as sent once it is signed.
        return None
    return remctl.RemctlSimpleResult(BEGINNING if state is State.OUTPUT else None)


def answer_error(state: State, text: str) -> Outcome:
    return Outcome("Answer", remctl.RemctlAnswerError, text, result=partial(state))


def finished(state: State, stdout: bytes, status: int = 0) -> Outcome:
    """Return the outcome of a command that has ended."""
    before = BEGINNING if state is State.OUTPUT else b""
    result = remctl.RemctlSimpleResult(before + stdout or None, None, status)
    return Outcome("result", result=result, stays_open=True)


def outcome_of(version: int, state: State, fault: Fault) -> Outcome:
    """Return the outcome, which depends on the state and on the bytes that the client sees."""
    if state in (State.IDLE, State.ANSWERED):
        return Outcome("reopened")
    if state is State.CLOSE:
        return Outcome("closed")
    if state in OPENING:
        return while_opening(fault)
    if fault.reading is Reading.MESSAGE:
        if version == 1:
            return answer_of(fault.message)
        return answer_to_noop(fault.message) if state is State.NOOP else output_of(state, fault)
    if fault.reading is Reading.RIGHT or is_right_in_protocol_1(version, state, fault):
        return as_if_nothing_had_happened(state)
    return failure(state, fault)


def while_opening(fault: Fault) -> Outcome:
    """Return the outcome of an opening: without proof of identity, the command is not sent."""
    if fault.reading is Reading.SILENCE:
        return Outcome("Timeout", remctl.RemctlTimeoutError, "error receiving token: timed out")
    if fault.reading in (Reading.RIGHT, Reading.FLAGS):
        # Kerberos protects the token. libremctl ignores its flags, except PROTOCOL: without that
        # it continues with protocol 1.
        return Outcome("result")
    text = {
        Reading.END: "unexpected end of file",
        Reading.TOO_LARGE: "token too large",
        Reading.UNPROTECTED: "GSS-API error initializing context",
    }[fault.reading]
    return Outcome("Authentication", remctl.RemctlAuthenticationError, text)


def is_right_in_protocol_1(version: int, state: State, fault: Fault) -> bool:
    """Return whether protocol 1 allows the flags: the server may ask for a signature."""
    asking = fault.flags == Flag.DATA | Flag.SEND_MIC
    return version == 1 and asking and state is State.COMMAND


def as_if_nothing_had_happened(state: State) -> Outcome:
    if state is State.NOOP:
        return Outcome("True", answer=True, stays_open=True)
    return finished(state, REST)


def failure(state: State, fault: Fault) -> Outcome:
    """Return the outcome of a fault of the connection or of a token's protection."""
    what = "sending" if state is State.MIC else "receiving"
    if fault.reading is Reading.SILENCE:
        text = f"error {what} token: timed out"
        return Outcome("Timeout", remctl.RemctlTimeoutError, text, result=partial(state))
    if fault.reading is Reading.END:
        text = f"error {what} token: unexpected end of file"
        return Outcome("Disconnected", remctl.RemctlDisconnectedError, text, result=partial(state))
    if fault.reading is Reading.TOO_LARGE or (state, fault.name) in TOO_LARGE_FOR_A_SIGNATURE:
        return answer_error(state, f"error {what} token: token too large")
    if fault.reading is Reading.FLAGS:
        wrong = "error sending token: invalid token format"
        return answer_error(state, wrong if state is State.MIC else "unexpected token from server")
    return answer_error(state, f"GSS-API error {what} token")


# libremctl refuses signatures longer than 10 KiB.
TOO_LARGE_FOR_A_SIGNATURE = {(State.MIC, "a token of 1 MiB of garbage")}

MALFORMED = "malformed result token from server"


def output_of(state: State, fault: Fault) -> Outcome:
    """Return the outcome of a message of protocol 2 or 3 that answers a command."""
    message = fault.message
    if len(message) < 2:
        return answer_error(state, MALFORMED)
    if message[0] not in (2, 3):
        return answer_error(state, "unexpected protocol")
    kind, body = message[1], message[2:]
    if kind == Message.OUTPUT:
        if len(body) < 5 or (body[0] in (1, 2) and not fits(body[1:])):
            return answer_error(state, MALFORMED)
        if body[0] not in (1, 2):
            return answer_error(state, "unexpected stream")
        return finished(state, body[5:])
    if kind == Message.STATUS:
        return finished(state, b"", body[0]) if len(body) == 1 else answer_error(state, MALFORMED)
    if kind == Message.ERROR:
        if len(body) < 8 or not fits(body[4:]):
            return answer_error(state, MALFORMED)
        return refusal(state, body)
    return answer_error(state, "unknown message type")


def fits(text: bytes) -> bool:
    """Return whether a length matches the data after it."""
    return wire.parse_number(text, 0)[0] == len(text) - 4


# Texts that are changed in exceptions.
TEXTS = {
    b"a\0b": r"a\x00b",
    b"\xff\xfe\x80": r"\xff\xfe\x80",
    b"\x1b[2Jok\r\n": r"\x1b[2Jok\r\n",
}


def refusal(state: State, body: bytes) -> Outcome:
    """Return the outcome of a refusal by the server, with any text."""
    return Outcome(
        "Server",
        remctl.RemctlServerError,
        TEXTS.get(body[8:], body[8:].decode("utf-8", "replace")),
        code=wire.parse_number(body, 0)[0],
        result=partial(state),
        stays_open=True,
    )


def answer_to_noop(message: bytes) -> Outcome:
    """Return the outcome of a message that answers NOOP; only its version and type count."""
    if len(message) < 2:
        return answer_error(State.NOOP, MALFORMED)
    if message[0] not in (2, 3):
        return answer_error(State.NOOP, "unexpected protocol")
    if message[1] == Message.NOOP:
        return Outcome("True", answer=True, stays_open=True)
    if message[1] in (Message.ERROR, Message.VERSION):  # The server is too old for NOOP.
        return Outcome("False", answer=False, stays_open=True)
    return answer_error(State.NOOP, "unexpected message type")


def answer_of(message: bytes) -> Outcome:
    """Return the outcome of the only answer of protocol 1."""
    if len(message) < 8 or not fits(message[4:]):
        return answer_error(State.COMMAND, MALFORMED)
    status = wire.parse_number(message, 0)[0] & 0xFF  # A status is an octet.
    return finished(State.COMMAND, message[8:], status)


def all_cases() -> Iterator[Case]:
    for version, states in STATES.items():
        for state in states:
            for fault in FAULTS:
                if left_out(version, state, fault) is None:
                    yield Case(version, state, fault, outcome_of(version, state, fault))


CASES = list(all_cases())

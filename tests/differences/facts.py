"""Facts of the probe: how they are found out, written down and made comparable."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

# Without types: what one binding has, the other may lack.
remctl: Any = importlib.import_module("remctl")

ECHO = ["test", "echo", "hello"]
# Deadline of all calls that are not about timeouts.
TIMEOUT = 10


class Place(NamedTuple):
    """Where the servers are, and what else differs from one run to the next."""

    host: str
    port: int  # remctld with the sample commands, "session" and "denied"
    principal: str
    closed_port: int  # nobody listens there
    silent_port: int  # accepts connections and never answers
    gone_port: int  # sends the beginning of an output, then closes the connection
    protocol1_port: int
    protocol2_port: int
    unknown_principal: str  # not in the KDC's database
    other_principal: str  # in the KDC's database, but without a key in the server's keytab
    ccache: str  # with a ticket
    expired_ccache: str
    garbage_ccache: str  # a file that is no credential cache
    missing_ccache: str


class Facts:
    """Prints facts, with a prefix that names their subject."""

    def __init__(self, place: Place, prefix: str = "") -> None:
        self.place = place
        self._prefix = prefix

    def about(self, subject: str) -> Facts:
        """Return the facts of one subject."""
        return Facts(self.place, f"{self._prefix}{subject}: ")

    def note(self, key: str, value: object) -> None:
        """Write a fact down."""
        text = value if isinstance(value, str) else show(value)
        print(f"{self._prefix}{key} = {self._normalise(text)}", flush=True)

    def call(self, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, and write down what it returns or raises; return what it returned."""
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.note(key, f"raises {describe(error)}")
            return None
        self.note(key, result)
        return result

    def outcome(self, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Like `call()`, but of an exception only its class is a fact."""
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.note(key, f"raises {category(error)}")
        else:
            self.note(key, result)

    def _normalise(self, text: str) -> str:
        place = self.place
        for name, value in sorted(
            place._asdict().items(), key=lambda item: len(str(item[1])), reverse=True
        ):
            if name != "host":
                text = re.sub(rf"(?<!\w){re.escape(str(value))}(?!\w)", name.upper(), text)
        text = re.sub(r"0x[0-9a-f]+", "ADDRESS", text)
        text = re.sub(r"process \d+", "process PID", text)
        return re.sub(r"\s+", " ", text)


def category(error: BaseException) -> str:
    """Return the most special class of an exception that both bindings and Python know."""
    for name in ("RemctlNotOpenedError", "RemctlError"):
        if isinstance(error, getattr(remctl, name)):
            return name
    return "ValueError" if isinstance(error, ValueError) else type(error).__name__


def describe(error: BaseException) -> str:
    """Return the category of an exception and, where remctl made it, its text."""
    name = category(error)
    return f"{name}: {error}" if isinstance(error, remctl.RemctlError) else name


def show(value: Any) -> str:
    """Return a value as text; subclasses of the built-in types as those."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(show(item) for item in value)})"
    if isinstance(value, list):
        return f"[{', '.join(show(item) for item in value)}]"
    for kind in (int, str, bytes):
        if isinstance(value, kind):
            return str(kind.__repr__(value))
    if isinstance(value, remctl.RemctlSimpleResult):
        return show((value.stdout, value.stderr, value.status))
    return f"a {type(value).__name__}"


FIELDS = ("type", "output", "stream", "status", "error")
# The fields of a token that mean something, by its type.
MEANT = {
    "output": ("type", "output", "stream"),
    "status": ("type", "status"),
    "error": ("type", "output", "error"),
    "done": ("type",),
}


def meant(token: Any) -> Any:
    """Return the fields of a token that mean something for its type."""
    if not token:
        return token
    fields = zip(FIELDS, token, strict=True)
    return tuple(value for field, value in fields if field in MEANT[token[0]])


def read(session: Any) -> list[Any]:
    """Return what is left of a command's output, up to the first token that is no output."""
    tokens: list[Any] = []
    while not tokens or tokens[-1][0] == "output":
        tokens.append(meant(session.output()))
        if len(tokens) > 10:
            break
    return tokens


def ask(session: Any, command: Any = ECHO) -> list[Any]:
    """Send a command and return its tokens."""
    session.command(command)
    return read(session)


def connect(place: Place, kind: Callable[..., Any] | None = None) -> Any:
    """Return an open connection, with a timeout."""
    session = (kind or remctl.Remctl)()
    session.set_timeout(TIMEOUT)
    session.open(place.host, place.port, place.principal)
    return session

"""Facts of the probe: find, print and normalise them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

# No types, because one binding may lack names of the other.
remctl: Any = importlib.import_module("remctl")

ECHO = ["test", "echo", "hello"]
# Deadline of all calls that are not about timeouts.
TIMEOUT = 10


class Place(NamedTuple):
    """Ports of the servers, and other values that vary between runs."""

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
        """Print a fact."""
        text = value if isinstance(value, str) else show(value)
        print(f"{self._prefix}{key} = {self._normalise(text)}", flush=True)

    def call(self, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, and print its result or exception; return the result."""
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.note(key, f"raises {describe(error)}")
            return None
        self.note(key, result)
        return result

    def outcome(self, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Do the same as `call()`, but print only the class of an exception."""
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
    """Return the most specific class of an exception that both bindings and Python have."""
    for name in ("RemctlNotOpenedError", "RemctlError"):
        if isinstance(error, getattr(remctl, name)):
            return name
    return "ValueError" if isinstance(error, ValueError) else type(error).__name__


def describe(error: BaseException) -> str:
    """Return the category of an exception and, if remctl raised it, its text."""
    name = category(error)
    return f"{name}: {error}" if isinstance(error, remctl.RemctlError) else name


def show(value: Any) -> str:
    """Return a value as text, with subclasses shown as built-in types."""
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
# The fields of a token that apply to its type.
MEANT = {
    "output": ("type", "output", "stream"),
    "status": ("type", "status"),
    "error": ("type", "output", "error"),
    "done": ("type",),
}


def meant(token: Any) -> Any:
    """Return the fields of a token that apply to its type."""
    if not token:
        return token
    fields = zip(FIELDS, token, strict=True)
    return tuple(value for field, value in fields if field in MEANT[token[0]])


def read(session: Any) -> list[Any]:
    """Return the rest of a command's tokens, up to the first that is not output."""
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

"""The exceptions, tokens and results of ``remctl``, which is where users find them."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections import namedtuple
from enum import IntEnum

from _remctl_text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# -- Exceptions -----------------------------------------------------------------------------------


class RemctlError(Exception):
    """Something went wrong with remctl; the base of all exceptions of this module.

    All of them can be pickled and copied whole.  A traceback shows the advice below the text.

    Attributes:
        value: the reason as text, the same as ``str(error)`` and as ``Remctl.error()`` after it.
        host: the host to connect to, as given by the caller; or None.
        port: the port, as given by the caller; or None.
        may_have_run: False if the server did not run the command, because nothing was sent or
            because it refused, so that repeating is safe.  True if the command may have run.
        advice: what to do about it; "" if that is not known.
        partial: the output of a command that failed, a `RemctlSimpleResult` whose status is None;
            or None.  Set by `remctl()` and `Remctl.run()`.
    """

    host: str | None = None
    port: int | None = None
    may_have_run: bool = False
    advice: str = ""
    partial: RemctlSimpleResult | None = None

    @property
    def value(self) -> str:
        """The reason as text."""
        return str(self)


class RemctlNotOpenedError(RemctlError):
    """There is no connection: none was opened, it was closed, or it belongs to another process."""


class RemctlBusyError(RemctlError):
    """The connection is running a command whose output has not been read to the end."""


class RemctlStatusError(RemctlError):
    """A command ended with an exit status other than 0; raised by `RemctlSimpleResult.check()`.

    The text contains no output of the command: see `last_line`.

    Attributes:
        result: the command's `RemctlSimpleResult`.
    """

    result: RemctlSimpleResult
    may_have_run = True

    def __init__(self, value: str, *, result: RemctlSimpleResult | None = None) -> None:
        super().__init__(value)
        self.result = RemctlSimpleResult() if result is None else result

    @property
    def last_line(self) -> str:
        """The last line of standard error; see `RemctlSimpleResult.last_line`."""
        return self.result.last_line


class RemctlProtocolError(RemctlError):
    """Communication with the server failed; the base of all that `remctl()` raises.

    Attributes:
        errno: the system's error number, if that is why connecting failed; or None.
    """

    errno: int | None = None


class RemctlConnectError(RemctlProtocolError):
    """No connection: the host is unknown, unreachable, or nothing answers on the port."""


class RemctlAuthenticationError(RemctlProtocolError):
    """The connection was made, but client and server did not authenticate to each other.

    A server that closes the connection meanwhile ("unexpected end of file") does not say why: it
    may not accept the client, have a wrong keytab, or be shutting down.
    """


class RemctlTimeoutError(RemctlProtocolError, TimeoutError):
    """The network was silent for too long, or a deadline has passed; also a TimeoutError."""


class RemctlDisconnectedError(RemctlProtocolError):
    """The connection was lost.  A command that was sent may have run."""


class RemctlServerError(RemctlProtocolError):
    """The server refused the command, or could not run it.

    Attributes:
        code: a `RemctlErrorCode`, or a plain int if the server sent an unknown code.
    """

    code: int = 0


class RemctlAnswerError(RemctlProtocolError):
    """The server violated the protocol; the connection was closed."""


# -- Tokens ---------------------------------------------------------------------------------------


class RemctlStream(IntEnum):
    """The stream that a piece of output came from (remctl protocol, MESSAGE_OUTPUT)."""

    STDOUT = 1
    STDERR = 2


class RemctlErrorCode(IntEnum):
    """The reason why a server refuses a command (remctl protocol, MESSAGE_ERROR)."""

    INTERNAL = 1
    BAD_TOKEN = 2
    UNKNOWN_MESSAGE = 3
    BAD_COMMAND = 4
    UNKNOWN_COMMAND = 5
    ACCESS = 6
    TOOMANY_ARGS = 7
    TOOMUCH_DATA = 8
    UNEXPECTED_MESSAGE = 9
    NO_HELP = 10


class RemctlOutput(namedtuple("RemctlOutput", "type output stream status error")):
    """A token of a command's output, as `Remctl.output()` returns it.

    Attributes:
        type: "output", "status", "error" or "done".
        output: the octets of an "output" token; the text of an "error" token, as octets; or None.
        stream: a `RemctlStream` for an "output" token, or None.
        status: the exit status, 0 to 255, for a "status" token, or None.
        error: a `RemctlErrorCode` for an "error" token (a plain int if it is not known), or None.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        # Output may be secret: show only its size.
        output = "None" if self.output is None else f"<{len(self.output)} bytes>"
        return (
            f"RemctlOutput(type={self.type!r}, output={output}, stream={self.stream!r},"
            f" status={self.status!r}, error={self.error!r})"
        )


# -- Results --------------------------------------------------------------------------------------


class RemctlSimpleResult:
    """The output and exit status of a command.

    Attributes:
        stdout: its standard output as bytes, or None if there was none.
        stderr: its standard error as bytes, or None if there was none.
        status: its exit status, 0 to 255; None if the command did not finish.
    """

    def __init__(
        self, stdout: bytes | None = None, stderr: bytes | None = None, status: int | None = None
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.status = status

    @property
    def ok(self) -> bool:
        """True if the exit status is 0."""
        return self.status == 0

    @property
    def last_line(self) -> str:
        r"""The last line of standard error that is not blank, which often says what went wrong.

        It is safe to print: unprintable characters become escapes like ``\x1b``.  "" if there is
        no such line.
        """
        lines = (self.stderr or b"").strip().splitlines()
        return printable(lines[-1].strip()) if lines else ""

    def check(self) -> RemctlSimpleResult:
        """Return this result if the exit status is 0.

        Raises:
            RemctlStatusError: it is not 0, or None.  The text has the status; the reason may be on
                standard error: see `last_line`.
        """
        if self.status == 0:
            return self
        text = f"command exited with status {self.status}"
        if self.status is None:
            text = "command did not finish"
        raise RemctlStatusError(text, result=self)

    def stdout_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return standard output as text; "" if there was none.

        Raises:
            UnicodeDecodeError: it is not text in that encoding, and `errors` is "strict".
        """
        return "" if self.stdout is None else self.stdout.decode(encoding, errors)

    def stderr_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return standard error as text; "" if there was none.

        Raises:
            UnicodeDecodeError: it is not text in that encoding, and `errors` is "strict".
        """
        return "" if self.stderr is None else self.stderr.decode(encoding, errors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemctlSimpleResult):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # its attributes can be set

    def __repr__(self) -> str:
        # Output may be secret: show only its size.
        sizes = ", ".join(
            f"{name}={'None' if data is None else f'{len(data)} bytes'}"
            for name, data in (("stdout", self.stdout), ("stderr", self.stderr))
        )
        return f"<RemctlSimpleResult status={self.status}, {sizes}>"


# -- Credentials ----------------------------------------------------------------------------------


class RemctlCredentials(metaclass=ABCMeta):
    """The type of ``credentials=``: any object with this method will do.

    `remctl_toolkit.credentials` has classes that get and renew tickets with a keytab.
    """

    __slots__ = ()

    @abstractmethod
    def ccache(self) -> str:
        """Return the name of a credential cache with valid tickets.

        It is called in a thread of its own before each opening of a connection.  It may block, and
        several threads may call it at once.  Its exceptions are those of the opening.
        """

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        if cls is not RemctlCredentials:
            return NotImplemented
        found = (vars(base)["ccache"] for base in other.__mro__ if "ccache" in vars(base))
        return next(found, None) is not None or NotImplemented

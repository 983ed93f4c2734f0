"""One run of a backend: finding the command, calling it, writing what it returns, failing."""

import io
import os
import stat
import sys

from _remctl_text import printable

from .acl import permits
from .commands import Group
from .context import Context
from .errors import CommandError, DeniedError
from .uncaught import report_uncaught
from .values import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TextIO

    from .command import Command
    from .commands import Root

__all__ = ["Run", "StandardInput", "run_process"]

_CLOSED = 128 + 13  # what a shell shows for SIGPIPE


class OutputError(Exception):
    """The output cannot be written.

    Attributes:
        status: the exit status that this means.
        reason: what to say on standard error; "" where nobody is left to be told.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(str(error))
        # Without a cause, there is no standard output at all.
        gone = error is None or isinstance(error, ConnectionError)
        self.status = _CLOSED if gone else os.EX_IOERR
        self.reason = "" if gone else f"output cannot be written: {error}"


class StandardOutput(io.FileIO):
    """Descriptor 1. It remembers why it could not be written, whoever has caught that."""

    error: OSError | None = None

    def __init__(self) -> None:
        super().__init__(1, "wb", closefd=False)

    def write(self, octets: "Any") -> "Any":
        """Write what can be written, as every raw file does."""
        try:
            return super().write(octets)
        except OSError as error:
            self.error = error
            raise


class StandardInput:
    """What remctld passes on standard input."""

    def pending(self) -> bool:
        """Whether remctld has put an argument there. It uses a socket for that."""
        try:
            return stat.S_ISSOCK(os.fstat(0).st_mode)
        except OSError:
            return False

    def read(self) -> bytes | None:
        """Read all of it; None if it is /dev/null or closed: there is no such argument."""
        try:
            found = os.fstat(0)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev:
                return None
        except OSError:
            return None
        with open(0, "rb", closefd=False) as file:
            return file.read()


class Run:
    """A run: where it reads, writes and logs."""

    def __init__(
        self,
        backend: "Root",
        environ: "Mapping[str, str]",
        stdin: "Any",
        stdout: "TextIO | None",
        *,
        raw: StandardOutput | None = None,
        own_process: bool = False,
        reraise: bool = False,
    ) -> None:
        """Get ready; `stdout` is None where there is none.

        Args:
            backend: what to run.
            environ: what remctld sets, and more.
            stdin: a StandardInput, or what can do the same.
            stdout: where to write. What the command prints goes there, too.
            raw: what is below `stdout`, to ask whether writing has failed.
            own_process: whether the process was started for this run.
            reraise: let unexpected exceptions through.
        """
        self.backend = backend
        self.environ = environ
        self._stdin = stdin
        self._stdout = stdout
        self._raw = raw
        self._own_process = own_process
        self._reraise = reraise
        self.is_broken = False  # what cannot be written must not be tried again
        self._path: tuple[str, ...] = ()
        self._is_secret = False

    def status(self, args: "Sequence[bytes]") -> int:
        """Do what the arguments say, and return the exit status."""
        try:
            return self._attempt(list(args))
        except OutputError as error:
            return self._say(error.reason, error.status)
        except Exception as error:
            if self._is_lost():  # print() has failed
                return self._fail("", 0)
            if self._reraise:
                raise
            return self.internal_error(error)
        except BaseException as error:  # asyncio.CancelledError, for one
            if isinstance(error, KeyboardInterrupt) or not self._own_process:
                raise
            return self.internal_error(error)

    def _attempt(self, args: list[bytes]) -> int:
        """Do what the arguments say, and let only what nobody expects through.

        The text and the status of an error are the author's: making them may fail, too.
        """
        try:
            status = self._dispatch(args)
        except CommandError as error:
            status = _checked(error.status)
            if not status:
                raise ValueError("the status of a failure is 1 to 255, not 0") from error
            return self._fail(str(error), status)
        except SystemExit as error:
            if error.code is not None and not isinstance(error.code, int):
                return self._fail(str(error.code), 1)
            status = _checked(error.code)
        self._flush()
        return status

    def _dispatch(self, args: list[bytes]) -> int:
        """Run a command, help, or what is for the administrator."""
        data = None
        if self._may_have_more(args) and self._stdin.pending():
            # Where only some commands of a line take their last argument so, all get it so.
            data = self._stdin.read()
            args.append(data)
        word = os.fsdecode(args[0]) if args else None
        if word in ("help", "summary"):
            from . import helping

            asked = [os.fsdecode(octets) for octets in args[1:]]
            about = helping.help_text if word == "help" else helping.summary_text
            self.write(about(self.backend, asked, self._shows))
            return 0
        # Not over the network, even where remctl.conf lets every subcommand through.
        if word in ("config", "check") and "REMCTL_COMMAND" not in self.environ:
            from . import configuration

            asked = [os.fsdecode(octets) for octets in args[1:]]
            return configuration.main(self.backend, self.write, word, asked)
        return self._run_command(args, data)

    def _run_command(self, args: list[bytes], data: bytes | None) -> int:
        """Run a command; `data` is its last argument if that came on standard input."""
        command, rest = self.backend.find(args)
        self._path = command.path
        self._is_secret = command.is_secret
        self._check_acl(command)
        if command.stdin is None:
            data = None
        elif data is None:
            data = self._stdin.read()
        elif rest:
            rest = rest[:-1]
        else:
            data = None  # It was the subcommand's own name.
        context = Context(self.environ, command.path)
        result, as_json = command.call(context, rest, data)
        return self._finish(result, as_json if command.json else None)

    @property
    def _user(self) -> str | None:
        return self.environ.get("REMOTE_USER") or None

    def _check_acl(self, command: "Command") -> None:
        """Refuse a caller whom the command's ACL does not let in, as far as we can evaluate it.

        Raises:
            DeniedError: it does not.
        """
        if permits(command.acl, self._user) is False:
            unknown = ": nobody is known to call, as REMOTE_USER is not set"
            raise DeniedError("not allowed" + ("" if self._user else unknown))

    def _shows(self, command: "Command") -> bool:
        """Whether the help has the command: it is for whoever may run it, if we know who asks."""
        return self._user is None or permits(command.acl, self._user) is not False

    def _may_have_more(self, args: list[bytes]) -> bool:
        if not args:
            return self.backend.takes_data_last()
        member = self.backend.members.get(os.fsdecode(args[0]))
        return isinstance(member, Group) and member.takes_data_last()

    # -- Output -----------------------------------------------------------------------------------

    def _finish(self, result: "Any", as_json: bool | None) -> int:
        """Write what a command returned, and return the exit status.

        Args:
            result: what it returned.
            as_json: None if that is no data; else whether ``--json`` was given.
        """
        if as_json is not None:
            from .data import lines_of

            result = lines_of(result, as_json)
        if result is None:
            return 0
        if isinstance(result, int):
            return _checked(result)
        if isinstance(result, (str, bytes, bytearray, memoryview)):
            self.write(result)
            return 0
        if isinstance(result, dict) or not hasattr(result, "__iter__"):
            kind = type(result).__name__
            raise TypeError(f"a command returned a {kind}: if it is data, declare json=True")
        return self._stream(iter(result))

    def _stream(self, chunks: "Any") -> int:
        """Write what an iterator gives, as it comes; what a generator returns is the status."""
        try:
            while True:
                try:
                    chunk = next(chunks)
                except StopIteration as end:
                    return _checked(end.value)
                self.write(chunk)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    def write(self, chunk: "str | bytes | bytearray | memoryview") -> None:
        """Write, now. Text is lines: it gets a newline if it does not end with one.

        Raises:
            OutputError: it cannot be written.
            TypeError: it is neither text nor octets.
        """
        if not isinstance(chunk, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"output is text or octets, not {type(chunk).__name__}")
        if isinstance(chunk, str):
            if chunk and not chunk.endswith("\n"):
                chunk += "\n"
            chunk = chunk.encode("utf-8", "surrogateescape")
        if self._stdout is None:
            self.is_broken = True
            raise OutputError
        try:
            self._stdout.buffer.write(bytes(chunk))
            self._stdout.buffer.flush()
        except (OSError, ValueError) as error:
            self.is_broken = True
            raise OutputError(error) from error

    def _flush(self) -> None:
        """Write what was printed.

        Raises:
            OutputError: it cannot be written, or something before it could not.
        """
        lost = self._is_lost()
        if lost is not None:
            raise OutputError(lost)
        if self._stdout is not None:
            try:
                self._stdout.flush()
            except (OSError, ValueError) as error:  # the latter if the command has closed it
                self.is_broken = True
                raise OutputError(error) from error

    def _is_lost(self) -> OSError | None:
        """Return why output was lost, if it was."""
        lost = None if self._raw is None else self._raw.error
        self.is_broken |= lost is not None
        return lost

    # -- Failures ---------------------------------------------------------------------------------

    def _fail(self, message: str, status: int) -> int:
        """Say what is wrong, after what was printed."""
        try:
            self._flush()
        except OutputError as error:
            return self._say(error.reason, error.status)
        return self._say(message, status)

    def _say(self, message: str, status: int) -> int:
        """Say it in one line on standard error."""
        if message and sys.stderr is not None:
            words = " ".join((self.backend.name, *self._path))
            try:
                sys.stderr.write(f"{printable(words)}: {printable(message)}\n")
                sys.stderr.flush()
            except (OSError, ValueError):
                self.is_broken = True
        return status

    def internal_error(self, error: BaseException) -> int:
        """Report an exception to the author, and tell the caller nothing but a reference."""
        try:
            from . import reports

            words = " ".join((self.backend.name, *self._path))
            report = reports.Report(words, self._user, error, is_secret=self._is_secret)
            kept = reports.deliver(
                report, self.backend, self.environ, own_process=self._own_process
            )
            told = f"reference {report.reference}{'' if kept else ', not logged'}"
        except Exception:  # There may be no memory left, or no descriptor to import anything with.
            told = "not logged"  # That is no reason to show more.
        return self._fail(f"internal error ({told})", os.EX_SOFTWARE)


def _checked(status: "Any") -> int:
    """Return an exit status, if it is one: the system would take 256 for 0, which is success."""
    if status is None:
        return 0
    if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status <= 255:
        raise ValueError(f"not an exit status: {status!r}")
    return int(status)


def run_process(backend: "Root") -> int:
    """Run what this process was started for."""
    # remctld gives us sockets: print() must not wait until a block is full, and stays in order with
    # what goes to the buffer. Whatever the locale is, text is UTF-8; octets that are not survive.
    raw = None
    if sys.stdout is not None:
        raw = StandardOutput()
        buffer = io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(
            buffer, "utf-8", "surrogateescape", line_buffering=True, write_through=True
        )
    if sys.stderr is not None:
        sys.stderr.reconfigure(encoding="utf-8", errors="surrogateescape", line_buffering=True)  # type: ignore[union-attr]
    args = [os.fsencode(arg) for arg in sys.argv[1:]]
    environ = {text_of(name): text_of(value) for name, value in os.environb.items()}
    run = Run(backend, environ, StandardInput(), sys.stdout, raw=raw, own_process=True)
    report_uncaught(run.internal_error)
    try:
        status = run.status(args)
    except KeyboardInterrupt:
        status = 128 + 2
    if run.is_broken:
        # The interpreter flushes once more at its end.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    return status

"""Run a backend once: find the command, call it, write its result or its error."""

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
        status: the exit status.
        reason: text for standard error; "" if the client no longer reads it.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(str(error))
        # Without a cause, there is no standard output.
        gone = error is None or isinstance(error, ConnectionError)
        self.status = _CLOSED if gone else os.EX_IOERR
        self.reason = "" if gone else f"cannot write output: {error}"


class StandardOutput(io.FileIO):
    """Descriptor 1. It remembers why a write failed, even if the command caught the exception."""

    error: OSError | None = None

    def __init__(self) -> None:
        super().__init__(1, "wb", closefd=False)

    def write(self, octets: "Any") -> "Any":
        """Write as many octets as possible, as every raw file does."""
        try:
            return super().write(octets)
        except OSError as error:
            self.error = error
            raise


class StandardInput:
    """Standard input as remctld passes it."""

    def pending(self) -> bool:
        """Return whether remctld passes an argument there, which it does through a socket."""
        try:
            return stat.S_ISSOCK(os.fstat(0).st_mode)
        except OSError:
            return False

    def read(self) -> bytes | None:
        """Read all of it; None if it is /dev/null or closed, which means no argument."""
        try:
            found = os.fstat(0)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev:
                return None
        except OSError:
            return None
        with open(0, "rb", closefd=False) as file:
            return file.read()


class Run:
    """One run of a backend, with its input, output and log."""

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
        """Prepare a run.

        Args:
            backend: the backend.
            environ: the environment, with remctld's variables.
            stdin: a StandardInput, or an object with its methods.
            stdout: file for results; the command's print() writes there, too. None if closed.
            raw: the raw file below `stdout`, which remembers failed writes.
            own_process: whether the process was started for this run.
            reraise: raise unexpected exceptions.
        """
        self.backend = backend
        self.environ = environ
        self._stdin = stdin
        self._stdout = stdout
        self._raw = raw
        self._own_process = own_process
        self._reraise = reraise
        self.is_broken = False  # a write failed, so do not write again
        self._path: tuple[str, ...] = ()
        self._is_secret = False

    def status(self, args: "Sequence[bytes]") -> int:
        """Run the command that the arguments name, and return the exit status."""
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
        except BaseException as error:  # for example, asyncio.CancelledError
            if isinstance(error, KeyboardInterrupt) or not self._own_process:
                raise
            return self.internal_error(error)

    def _attempt(self, args: list[bytes]) -> int:
        """Run the command, report expected errors, and raise unexpected exceptions.

        An error's text and status are the author's code: computing them may fail, too.
        """
        try:
            status = self._dispatch(args)
        except CommandError as error:
            status = _checked(error.status)
            if not status:
                raise ValueError("the status of an error must be 1 to 255, not 0") from error
            return self._fail(str(error), status)
        except SystemExit as error:
            if error.code is not None and not isinstance(error.code, int):
                return self._fail(str(error.code), 1)
            status = _checked(error.code)
        self._flush()
        return status

    def _dispatch(self, args: list[bytes]) -> int:
        """Run a command, help, summary, config or check."""
        data = None
        if self._may_have_more(args) and self._stdin.pending():
            # If one command of a line reads its last argument from there, all of them do.
            data = self._stdin.read()
            args.append(data)
        word = os.fsdecode(args[0]) if args else None
        if word in ("help", "summary"):
            from . import helping

            asked = [os.fsdecode(octets) for octets in args[1:]]
            about = helping.help_text if word == "help" else helping.summary_text
            self.write(about(self.backend, asked, self._shows))
            return 0
        # Never over the network, even if remctl.conf permits every subcommand.
        if word in ("config", "check") and "REMCTL_COMMAND" not in self.environ:
            from . import configuration

            asked = [os.fsdecode(octets) for octets in args[1:]]
            return configuration.main(self.backend, self.write, word, asked)
        return self._run_command(args, data)

    def _run_command(self, args: list[bytes], data: bytes | None) -> int:
        """Run a command; `data` is its last argument, if it came on standard input."""
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
            data = None  # This was the subcommand's own name.
        context = Context(self.environ, command.path)
        result, as_json = command.call(context, rest, data)
        return self._finish(result, as_json if command.json else None)

    @property
    def _user(self) -> str | None:
        return self.environ.get("REMOTE_USER") or None

    def _check_acl(self, command: "Command") -> None:
        """Check the caller against the command's ACL, as far as we can evaluate it.

        Raises:
            DeniedError: the ACL denies it.
        """
        if permits(command.acl, self._user) is False:
            unknown = ": the caller is unknown because REMOTE_USER is not set"
            raise DeniedError("not allowed" + ("" if self._user else unknown))

    def _shows(self, command: "Command") -> bool:
        """Return whether help lists the command: the caller may run it, or is unknown."""
        return self._user is None or permits(command.acl, self._user) is not False

    def _may_have_more(self, args: list[bytes]) -> bool:
        if not args:
            return self.backend.takes_data_last()
        member = self.backend.members.get(os.fsdecode(args[0]))
        return isinstance(member, Group) and member.takes_data_last()

    # -- Output -----------------------------------------------------------------------------------

    def _finish(self, result: "Any", as_json: bool | None) -> int:
        """Write a command's result, and return the exit status.

        Args:
            result: the command's result.
            as_json: None if the result is not data; else whether ``--json`` was given.
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
            raise TypeError(f"a command returned a {kind}: to return data, declare json=True")
        return self._stream(iter(result))

    def _stream(self, chunks: "Any") -> int:
        """Write the items of an iterator as they come; a generator's return value is the status."""
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
        """Write at once. A str gets a newline at its end if it has none.

        Raises:
            OutputError: writing failed.
            TypeError: the chunk is neither str nor bytes.
        """
        if not isinstance(chunk, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"output must be str or bytes, not {type(chunk).__name__}")
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
        """Flush printed output.

        Raises:
            OutputError: this or an earlier write failed.
        """
        lost = self._is_lost()
        if lost is not None:
            raise OutputError(lost)
        if self._stdout is not None:
            try:
                self._stdout.flush()
            except (OSError, ValueError) as error:  # ValueError if the command closed it
                self.is_broken = True
                raise OutputError(error) from error

    def _is_lost(self) -> OSError | None:
        """Return the error that lost output, if any."""
        lost = None if self._raw is None else self._raw.error
        self.is_broken |= lost is not None
        return lost

    # -- Failures ---------------------------------------------------------------------------------

    def _fail(self, message: str, status: int) -> int:
        """Write an error message, after flushing printed output."""
        try:
            self._flush()
        except OutputError as error:
            return self._say(error.reason, error.status)
        return self._say(message, status)

    def _say(self, message: str, status: int) -> int:
        """Write a message as one line on standard error."""
        if message and sys.stderr is not None:
            words = " ".join((self.backend.name, *self._path))
            try:
                sys.stderr.write(f"{printable(words)}: {printable(message)}\n")
                sys.stderr.flush()
            except (OSError, ValueError):
                self.is_broken = True
        return status

    def internal_error(self, error: BaseException) -> int:
        """Report an exception to the author, and only a reference to the caller."""
        try:
            from . import reports

            words = " ".join((self.backend.name, *self._path))
            report = reports.Report(words, self._user, error, is_secret=self._is_secret)
            kept = reports.deliver(
                report, self.backend, self.environ, own_process=self._own_process
            )
            told = f"reference {report.reference}{'' if kept else ', not logged'}"
        except Exception:  # Memory or descriptors may be exhausted.
            told = "not logged"
        return self._fail(f"internal error ({told})", os.EX_SOFTWARE)


def _checked(status: "Any") -> int:
    """Check an exit status: the system would reduce 256 to 0, which means success."""
    if status is None:
        return 0
    if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status <= 255:
        raise ValueError(f"not an exit status: {status!r}")
    return int(status)


def run_process(backend: "Root") -> int:
    """Run the command that this process was started for."""
    # Descriptor 1 is a socket: print() must not wait until a block is full, and must keep its order
    # with writes to the buffer. Text is UTF-8 in any locale; other octets survive as surrogates.
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
        # The interpreter flushes again when it exits.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    return status

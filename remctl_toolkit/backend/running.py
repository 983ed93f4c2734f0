"""One run of a backend: finding the command, calling it, writing what it returns, reporting."""

import os
import stat
import sys

from .commands import Group
from .context import Context
from .errors import CommandError, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TextIO

    from .commands import Backend

__all__ = ["Run", "StandardInput", "run_process"]

_CLOSED = 128 + 13  # what a shell shows for SIGPIPE
_LOG_LINE = 900  # characters; syslogd cuts lines of more than a kilobyte


class OutputClosedError(Exception):
    """Nobody reads the output any more."""


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
        backend: "Backend",
        environ: "Mapping[str, str]",
        stdin: "Any",
        stdout: "TextIO | None",
        *,
        reraise: bool = False,
    ) -> None:
        """Get ready; `stdout` is None where there is none.

        Args:
            backend: what to run.
            environ: what remctld sets, and more.
            stdin: a StandardInput, or what can do the same.
            stdout: where to write. What the command prints goes there, too.
            reraise: let unexpected exceptions through.
        """
        self.backend = backend
        self.environ = environ
        self._stdin = stdin
        self._stdout = stdout
        self._reraise = reraise
        self._path: tuple[str, ...] = ()
        self._secrets: list[bytes] = []

    def status(self, args: "Sequence[bytes]") -> int:
        """Do what the arguments say, and return the exit status."""
        try:
            status = self._dispatch(list(args))
            self._flush()
            return status
        except CommandError as error:
            return self._fail(str(error), error.status)
        except OutputClosedError:
            return _CLOSED
        except SystemExit as error:
            return self._exit(error.code)
        except KeyboardInterrupt:
            return 128 + 2
        except Exception as error:
            if isinstance(error, ConnectionError) and self._is_closed():
                return _CLOSED
            if self._reraise:
                raise
            return self._internal_error(error)

    def _dispatch(self, args: list[bytes]) -> int:
        """Run a command, help, or what is for the administrator."""
        word = os.fsdecode(args[0]) if args else None
        if word in ("help", "summary"):
            from . import helping

            asked = [os.fsdecode(octets) for octets in args[1:]]
            about = helping.help_text if word == "help" else helping.summary_text
            self.write(about(self.backend, asked))
            return 0
        # Not over the network, even where remctl.conf lets every subcommand through.
        if word in ("config", "check") and "REMCTL_COMMAND" not in self.environ:
            from . import configuration

            return configuration.main(self, word, [os.fsdecode(octets) for octets in args[1:]])
        return self._run_command(args)

    def _run_command(self, args: list[bytes]) -> int:
        data = None
        if self._may_have_more(args) and self._stdin.pending():
            # Where only some commands of a line take their last argument so, all get it so.
            data = self._stdin.read()
            args.append(data)
        command, rest = self.backend.find(args)
        self._path = command.path
        if command.stdin is None:
            data = None
        elif data is None:
            data = self._stdin.read()
        elif rest:
            rest = rest[:-1]
        else:
            data = None  # It was the subcommand's own name.
        self._secrets = command.secrets(rest, data)
        context = Context(self.environ, command.path)
        result, as_json = command.call(context, rest, data)
        return self._finish(result, as_json if command.json else None)

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
        if isinstance(result, bool):
            raise TypeError("a command returned a bool, which is neither output nor an exit status")
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
            OutputClosedError: nobody reads any more.
            TypeError: it is neither text nor octets.
        """
        if not isinstance(chunk, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"output is text or octets, not {type(chunk).__name__}")
        if isinstance(chunk, str):
            if chunk and not chunk.endswith("\n"):
                chunk += "\n"
            chunk = chunk.encode("utf-8", "surrogateescape")
        if self._stdout is None:
            raise OutputClosedError
        try:
            self._stdout.flush()
            self._stdout.buffer.write(bytes(chunk))
            self._stdout.buffer.flush()
        except ConnectionError:
            raise OutputClosedError from None

    def _flush(self) -> None:
        if self._stdout is not None:
            try:
                self._stdout.flush()
            except ConnectionError:
                raise OutputClosedError from None

    def _is_closed(self) -> bool:
        """Whether an error can be that of our own output: print() does not tell whose it is."""
        try:
            self._flush()
        except OutputClosedError:
            return True
        return False

    # -- Failures ---------------------------------------------------------------------------------

    def _fail(self, message: str, status: int) -> int:
        """Say in one line on standard error what is wrong."""
        try:
            self._flush()
        except OutputClosedError:
            return _CLOSED
        words = " ".join((self.backend.name, *self._path))
        if sys.stderr is not None:
            try:
                sys.stderr.write(f"{one_line(words)}: {one_line(message)}\n")
                sys.stderr.flush()
            except ConnectionError:
                return _CLOSED
        return status

    def _exit(self, code: "Any") -> int:
        """Return what sys.exit() in a command means."""
        if code is None or isinstance(code, int):
            try:
                status = _checked(code)
                self._flush()
                return status
            except OutputClosedError:
                return _CLOSED
            except ValueError as error:
                return self._internal_error(error)
        return self._fail(str(code), 1)

    def _internal_error(self, error: Exception) -> int:
        """Log the traceback, and tell the caller nothing but where to find it."""
        reference = os.urandom(4).hex()
        try:
            self._log(f"internal error {reference}\n{self._traceback(error)}")
        except Exception:
            reference += ", not logged"  # that is no reason to show more
        return self._fail(f"internal error (reference {reference})", os.EX_SOFTWARE)

    def _traceback(self, error: Exception) -> str:
        import traceback

        user = self.environ.get("REMOTE_USER", "nobody")
        words = " ".join((self.backend.name, *self._path))
        text = f"{words}, for {user}\n{''.join(traceback.format_exception(error))}"
        for secret in self._secrets:
            for form in {secret.decode("utf-8", "surrogateescape"), repr(secret)[2:-1]}:
                text = text.replace(form, "**MASKED**")
        return text

    def _log(self, text: str) -> None:
        if self.backend.log is not None:
            self.backend.log(text)
            return
        import syslog

        syslog.openlog(self.backend.name, syslog.LOG_PID, syslog.LOG_DAEMON)
        heading, *lines = text.splitlines()
        for line in lines:
            line = one_line(f"{heading}: {line}")
            for start in range(0, len(line), _LOG_LINE):
                syslog.syslog(syslog.LOG_ERR, line[start : start + _LOG_LINE])


def _checked(status: "Any") -> int:
    """Return an exit status, if it is one: the system would take 256 for 0, which is success."""
    if status is None:
        return 0
    if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status <= 255:
        raise ValueError(f"not an exit status: {status!r}")
    return int(status)


def run_process(backend: "Backend") -> int:
    """Run what this process was started for."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # remctld gives us a socket: print() must not wait until a block is full. Whatever the
            # locale is, text is UTF-8, and octets that are not survive.
            stream.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="surrogateescape", line_buffering=True
            )
    args = [os.fsencode(arg) for arg in sys.argv[1:]]
    status = Run(backend, os.environ, StandardInput(), sys.stdout).status(args)
    if status == _CLOSED and sys.stdout is not None:
        # The interpreter flushes once more at its end: that would fail again.
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                os.dup2(null, stream.fileno())
    return status

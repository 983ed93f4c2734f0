"""Write reports of internal errors and deliver them to the backend's author, not to the caller.

remctld sends standard error to the caller, so a report goes there only if a person has started the
program.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import traceback

from _remctl_text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .commands import Root

__all__ = ["Report", "deliver"]

_FILE_VARIABLE = "REMCTL_BACKEND_LOG"  # of the environment: the file that reports are appended to
_LINE = 800  # characters; syslogd cuts lines of more than a kilobyte
_LINES = 200  # of a report
_SYSTEM_LOGS = ("/dev/log", "/var/run/syslog", "/var/run/log")  # sockets: Linux, macOS, BSD
# Variables that are set if remctld runs the program, directly or through sudo.
_SERVED = ("REMCTL_COMMAND", "REMOTE_USER", "REMUSER", "SUDO_COMMAND")


class Report:
    """The report of an unexpected exception.

    Attributes:
        reference: number that the caller gets, to find the report.
        text: many lines; the first has the reference.
    """

    def __init__(
        self, words: str, user: str | None, error: BaseException, *, is_secret: bool
    ) -> None:
        """Format the report.

        Args:
            words: the command.
            user: the calling principal, if known.
            error: the exception.
            is_secret: omit every text that may contain the command's arguments.
        """
        self.reference = os.urandom(4).hex()
        lines = _places(error) if is_secret else traceback.format_exception(error)
        heading = f"internal error {self.reference}\n{words}, for {user or 'nobody'}\n"
        self.text = heading + "".join(lines)

    def lines(self) -> Iterator[str]:
        """Return lines for the system log, each with the reference."""
        heading, *lines = self.text.splitlines()
        pieces = [
            line[start : start + _LINE]
            for line in lines
            for start in range(0, len(line) or 1, _LINE)
        ]
        if len(pieces) > _LINES:
            pieces[_LINES // 2 : -_LINES // 2] = ["..."]
        return (printable(f"{heading}: {piece}") for piece in pieces)


def _places(error: BaseException) -> list[str]:
    """Return the types and source lines of an exception and its causes, without their texts."""
    found: list[str] = []
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        kind = type(following)
        frames = traceback.extract_tb(following.__traceback__).format()
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        lines = [*frames, f"{module}{kind.__qualname__}\n"]
        found = [*lines, "\nwhich led to\n\n", *found] if found else lines
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)
    return [*found, "(without its text: the command has masked arguments or data)\n"]


def _is_by_hand(environ: Mapping[str, str]) -> bool:
    """Return whether a person started this process, and so sees its standard error.

    remctld sets variables and passes sockets. A wrapper or sudo may drop the variables.
    """
    try:
        if os.isatty(2):
            return True
        is_socket = stat.S_ISSOCK(os.fstat(2).st_mode)
    except OSError:
        return False
    return not is_socket and not any(name in environ for name in _SERVED)


def deliver(report: Report, root: Root, environ: Mapping[str, str], *, own_process: bool) -> bool:
    """Write a report to the first place that works.

    Args:
        report: the report.
        root: the backend, whose ``log`` comes first.
        environ: the environment of the run.
        own_process: whether this process runs nothing else, so that its standard error is that of
            the command.

    Returns:
        False if the report could not be written anywhere.
    """
    delivered = own_process and _is_by_hand(environ) and _on_standard_error(report)
    try:
        if root.log is not None:
            root.log(printable(report.text, lines=True))
        elif not (_in_given_file(report, root.name, environ) or delivered):
            _in_system_log(report, root.name) if _has_system_log() else _in_new_file(report)
    except Exception:  # for example, from the author's function
        return delivered
    return True


def _on_standard_error(report: Report) -> bool:
    try:
        sys.stderr.write(printable(report.text, lines=True))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # closed or None
        return False
    return True


def _in_given_file(report: Report, name: str, environ: Mapping[str, str]) -> bool:
    path = environ.get(_FILE_VARIABLE)
    if not path:
        return False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{printable(name)}: {printable(report.text, lines=True)}\n")
    except OSError:
        return False
    return True


def _has_system_log() -> bool:
    """Return whether a daemon listens: syslog(3) does not report a lost message."""
    import socket

    for path in _SYSTEM_LOGS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as attempt:
            try:
                attempt.connect(path)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:  # a stream socket, which syslog(3) tries too
                    continue
            return True
    return False


def _in_system_log(report: Report, name: str) -> None:
    import syslog

    syslog.openlog(name, syslog.LOG_PID, syslog.LOG_DAEMON)
    for line in report.lines():
        syslog.syslog(syslog.LOG_ERR, line)


def _in_new_file(report: Report) -> None:
    """Write it to a private file in the temporary directory."""
    import tempfile

    path = os.path.join(tempfile.gettempdir(), f"remctl-internal-error-{report.reference}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in report.lines())

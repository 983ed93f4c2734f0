"""Run remctl-rsh: parse the command line, run the command, return the exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

from .options import COMMAND, parse
from .request import Request, UsageError

__all__ = ["main"]

_OUR_ERROR = 255  # as ssh's
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run remctl-rsh.

    Args:
        argv: the arguments, without the program's name; None means those of this process.

    Returns:
        The exit status; see ``--help``.  A signal ends the process as soon as the command has
        ended, so that this does not return.  With -f this returns in two processes.
    """
    _open_missing_descriptors()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--complete"]:  # from the scripts of --print-completion
        from remctl_toolkit.cli.completion import answer

        from .pages import candidates

        return answer(argv[1:], COMMAND, candidates)
    try:
        request = parse(argv, os.environ)
        if request.page is not None:
            return _print_page(request)
    except UsageError as error:
        _say(f"{error} (see --help)")
        return _OUR_ERROR
    return _fork(request) if request.background else _run(request)


def _open_missing_descriptors() -> None:
    """Open /dev/null for closed descriptors 0, 1 and 2, or a socket would get such a number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _print_page(request: Request) -> int:
    if request.page == "configuration":
        # git runs -G to find out whether this program takes ssh's options.
        lines = [f"host {request.typed_host}", f"hostname {request.host}"]
        lines += [
            f"port {request.port or 4373}",
            *([f"user {request.user}"] if request.user else ()),
        ]
        print("\n".join(lines))
        return 0
    from .pages import page

    sys.stdout.write(page(request.page or "help"))
    return 0


def _fork(request: Request) -> int:
    """Run in a child process; return when the command has started or failed to start."""
    reader, writer = os.pipe()
    ours = [n for n in _ENDINGS if signal.getsignal(n) != signal.SIG_IGN]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ours)  # until the parent can pass them on
    child = os.fork()
    for number in ours if child else ():
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if child:
        os.close(writer)
        if os.read(reader, 1):
            return 0
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status if status >= 0 else _end_by(-status)
    os.close(reader)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def started() -> None:
        os.write(writer, b".")  # Raises if the parent was killed.
        os.close(writer)

    return _run(request, started)


def _run(request: Request, started: Callable[[], None] = lambda: None) -> int:
    import remctl

    from .accounts import connect
    from .bridge import StoppedError, run
    from .streams import StreamError

    try:
        with connect(request) as connection:
            if request.verbose:
                _say(f"connected to {request.host} as {connection.far.user}")
            if request.terminal and not request.quiet and (request.verbose or os.isatty(2)):
                _say("remctl has no terminals: the command runs without one")
            return _status(run(connection, request, started), request)
    except StoppedError as error:
        return _end_by(error.number)
    except KeyboardInterrupt:  # while connecting
        return _end_by(signal.SIGINT)
    except (UsageError, StreamError, remctl.RemctlError, OSError, TypeError, ValueError) as error:
        from remctl_toolkit.cli.cures import explained

        # Programs that run ssh treat each line as a separate error.
        _say("; ".join(explained(getattr(error, "strerror", None) or str(error), error)))
        return _OUR_ERROR


def _end_by(number: int) -> int:
    """End by a signal, so that a calling script stops instead of going on to the next host."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _status(status: int, request: Request) -> int:
    if status >= 0:
        return status
    if not request.quiet:
        _say(f"the command was killed by signal {-status}: {signal.strsignal(-status)}")
    return _OUR_ERROR


def _say(text: str) -> None:
    from _remctl_text import printable

    print(f"{COMMAND}: {printable(text)}", file=sys.stderr)

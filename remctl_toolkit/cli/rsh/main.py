"""From the command line to the exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from .options import COMMAND, parse
from .request import Request, UsageError

__all__ = ["main"]

_OUR_ERROR = 255  # as ssh's


def main(argv: Sequence[str] | None = None) -> int:
    """Run remctl-rsh.

    Args:
        argv: the arguments, without the program's name; None means those of this process.

    Returns:
        The exit status; ``--help`` has the rules.  After a signal there is none: it ends the
        process, as soon as the command has ended.
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
    return _run(request)


def _open_missing_descriptors() -> None:
    """Let 0, 1 and 2 lead nowhere where they were closed: a session would get such a number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _print_page(request: Request) -> int:
    if request.page == "configuration":
        # git asks for it, to see whether this takes ssh's options: so little will do.
        lines = [f"host {request.host}", f"port {request.port or 4373}"]
        lines += [f"user {request.user}"] if request.user else []
        print("\n".join(lines))
        return 0
    from .pages import page

    sys.stdout.write(page(request.page or "help"))
    return 0


def _run(request: Request) -> int:
    import remctl

    from .bridge import StoppedError
    from .streams import StreamError

    try:
        return _status(_in_account(request), request)
    except StoppedError as error:
        number = error.number
    except KeyboardInterrupt:  # while it connects
        number = signal.SIGINT
    except (UsageError, StreamError, remctl.RemctlError, OSError, TypeError, ValueError) as error:
        from remctl_toolkit.cli.cures import explained

        for line in explained(getattr(error, "strerror", None) or str(error), error):
            _say(line)
        return _OUR_ERROR
    # Whoever started us sees what ended us, and does not go on with the next host, say.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _in_account(request: Request) -> int:
    from .accounts import connect
    from .bridge import run

    with connect(request) as connection:
        if request.verbose:
            _say(f"connected to {request.host} as {connection.far.user}")
        if request.terminal and not request.quiet:
            _say("there are no terminals over remctl: the command runs without one")
        return run(connection, request)


def _status(status: int, request: Request) -> int:
    if status >= 0:
        return status
    if not request.quiet:
        _say(f"signal {-status} ended the command: {signal.strsignal(-status)}")
    return _OUR_ERROR


def _say(text: str) -> None:
    from _remctl_text import printable

    print(f"{COMMAND}: {printable(text)}", file=sys.stderr)

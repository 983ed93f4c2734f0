"""From the command line to the exit status."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import cast

import remctl
from remctl_toolkit.fleet import Host, Outcome
from remctl_toolkit.hosts import HostList, HostListError, MissingExtraError, fold

from . import progress
from .completion import completion
from .job import Job, Signals, Stopped
from .options import COMMAND, parse
from .report import Report
from .screen import RED, Screen
from .secret import UsageError, ask_secret
from .shell import shell
from .tickets import keytab_credentials
from .views import Gathered, Json, Live, Raw, View

__all__ = ["main"]

_EX_USAGE = 2  # argparse's own
_EX_UNAVAILABLE = 69  # sysexits.h
_EX_IOERR = 74  # sysexits.h
_MOST_INPUT = 100 * 1024 * 1024  # octets; a server takes less


def main(argv: Sequence[str] | None = None) -> int:
    """Run remctl-fleet.

    Args:
        argv: the arguments, without the program's name; None means those of this process.

    Returns:
        The exit status; ``--help`` lists them.

    Raises:
        SystemExit: for ``--help`` and wrong usage, as argparse does.
    """
    try:
        return _main(parse(sys.argv[1:] if argv is None else argv))
    except (HostListError, UsageError) as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return _EX_USAGE
    except MissingExtraError as error:
        print(f"{COMMAND}: {error}", file=sys.stderr)
        return _EX_UNAVAILABLE
    except KeyboardInterrupt:  # while there is nothing yet to tell about
        return 128 + signal.SIGINT
    except BrokenPipeError:  # Nobody reads it any more: no reason for words.
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"{COMMAND}: cannot write the output: {error.strerror}", file=sys.stderr)
        return _EX_IOERR


def _main(options: argparse.Namespace) -> int:
    if options.print_completion:
        Screen().out.write(completion(options.print_completion).encode())
        return 0
    if options.debug:
        logging.basicConfig(format=f"{COMMAND}: %(message)s")
        logging.getLogger("remctl").setLevel(logging.DEBUG)
    options.credentials = keytab_credentials(options)
    if options.credentials is not None:
        options.ccache = None  # The credentials name it.
    if options.shell is not None:
        hosts = list(HostList(options.shell))
        if len(hosts) != 1:
            raise UsageError(f"--shell has one host, not {len(hosts)}")
        return shell(hosts[0], options)
    hosts = _hosts(options)
    with _as_usage_errors():
        job = Job(hosts, options)
    if options.dry_run:
        _show_plan(hosts, options)
        return 0
    input = _input(options)
    with _as_usage_errors():
        job.check(input)
    return _run(job, hosts, input, options)


@contextlib.contextmanager
def _as_usage_errors() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def _hosts(options: argparse.Namespace) -> list[Host]:
    hosts = HostList(*filter(None, [options.hosts]))
    for path in options.hosts_file:
        hosts.add_file(path)
    for name in options.srv:
        hosts.add_srv(name)
    for pattern in options.exclude:
        hosts.exclude(pattern)
    for path in options.exclude_file:
        hosts.exclude_file(path)
    return list(hosts)


def _input(options: argparse.Namespace) -> bytes | str | None:
    if options.ask_secret:
        return ask_secret()
    if not options.stdin:
        return None
    try:
        return sys.stdin.buffer.read(_MOST_INPUT)
    except (AttributeError, OSError) as error:  # It may be closed, or a folder.
        reason = error.strerror if isinstance(error, OSError) else "it is closed"
        raise UsageError(f"cannot read standard input: {reason}") from None


def _show_plan(hosts: Sequence[Host], options: argparse.Namespace) -> None:
    words = shlex.join(options.command)
    words += " (secret)" if options.ask_secret else " (standard input)" if options.stdin else ""
    screen = Screen()
    if not options.quiet:
        what = "1 host" if len(hosts) == 1 else f"{len(hosts)} hosts, {fold(hosts)}"
        screen.err.say(f"{COMMAND}: would run on {what}: {words}")
    for host in hosts:
        screen.out.say(str(host))


def _run(
    job: Job, hosts: list[Host], input: bytes | str | None, options: argparse.Namespace
) -> int:
    screen = Screen()
    view = _view(screen, hosts, options)
    raw = isinstance(view, Raw)
    quiet = options.quiet or options.debug or raw
    report = Report(hosts)
    with Signals() as signals:
        bar = progress.start(screen, len(hosts), quiet=quiet)
        stopped = None
        try:
            with contextlib.closing(job.outcomes(input, view.on_output, bar)) as outcomes:
                while (outcome := signals.next(outcomes)) is not None:
                    _raise_own(outcome)
                    for each in (job.finished, bar.finished, report.add, view.finished):
                        each(outcome)
        except Stopped as signal_:
            stopped = signal_.number
        finally:
            bar.close()
        unfinished = job.unfinished()
        for outcome in unfinished:
            if not raw:
                view.finished(outcome)
        view.end()
    if stopped is not None:
        return _stopped(screen, report, unfinished, stopped, raw=raw)
    if raw:
        return cast(Raw, view).status
    report.show(screen, quiet=options.quiet)
    return report.status


def _raise_own(outcome: Outcome) -> None:
    """Raise what went wrong here and not there: nobody takes the output."""
    error = outcome.error
    if isinstance(error, OSError) and not isinstance(error, remctl.RemctlError):
        raise error


def _view(screen: Screen, hosts: list[Host], options: argparse.Namespace) -> View:
    if options.json:
        return Json(screen)
    if options.live:
        return Live(screen, hosts)
    if len(hosts) == 1 and not options.gather:
        return Raw(screen)
    return Gathered(screen, hosts)


def _stopped(
    screen: Screen, report: Report, unfinished: list[Outcome], number: int, *, raw: bool
) -> int:
    """Say where things were when a signal came."""
    running = [outcome.host for outcome in unfinished if outcome.started]
    not_begun = [outcome.host for outcome in unfinished if not outcome.started]
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    if raw:
        screen.err.say(f"{COMMAND}: ended by {name}; the command may go on")
        return 128 + number
    if report.failed:
        report.show(screen, quiet=True)
    screen.err.say(screen.err.paint(f"{COMMAND}: ended by {name}", RED))
    report.show_interruption(screen, running, not_begun)
    return 128 + number

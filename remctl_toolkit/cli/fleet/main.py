"""Run remctl-fleet: parse the command line, run the command, return the exit status."""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import random
import shlex
import signal
import sys
from collections.abc import Generator, Iterator, Sequence

import remctl
from _remctl_text import printable
from remctl_toolkit.cli.completion import answer, script
from remctl_toolkit.fleet import Fleet, Host, Outcome
from remctl_toolkit.hosts import HostList, HostListError, MissingExtraError, fold

from . import progress
from .again import FailedFile, Failures
from .completion import candidates
from .folders import Folders
from .job import CONNECTION, Job, Signals
from .options import COMMAND, given_options, parse
from .report import Report
from .screen import RED, Screen
from .secret import UsageError, ask_secret
from .shell import shell
from .tickets import keytab_credentials
from .views import Diff, Gathered, Json, Live, Raw, View
from .words import is_interrupted

__all__ = ["main"]

_EX_USAGE = 2  # argparse's own
_EX_UNAVAILABLE = 69  # sysexits.h
_EX_IOERR = 74  # sysexits.h
_MAX_INPUT = 100 * 1024 * 1024  # bytes; servers accept less


def main(argv: Sequence[str] | None = None) -> int:
    """Run remctl-fleet.

    Args:
        argv: the arguments, without the program's name; None means those of this process.

    Returns:
        The exit status; ``--help`` lists them.

    Raises:
        SystemExit: for ``--help`` and wrong usage, as argparse does.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--complete"]:  # from the scripts of --print-completion
        return answer(argv[1:], COMMAND, candidates)
    try:
        return _main(parse(argv))
    except (HostListError, UsageError) as error:
        _complain(str(error))
        return _EX_USAGE
    except MissingExtraError as error:
        _complain(str(error))
        return _EX_UNAVAILABLE
    except KeyboardInterrupt:  # before the run has started
        return 128 + signal.SIGINT
    except BrokenPipeError:  # The reader of the output is gone.
        return 128 + signal.SIGPIPE
    except OSError as error:
        what = error.filename or "the output"
        _complain(f"cannot write {what}: {error.strerror}")
        return _EX_IOERR


def _complain(text: str) -> None:
    Screen().err.line(f"{COMMAND}: ", printable(text).encode())


def _main(options: argparse.Namespace) -> int:
    if options.print_completion:
        Screen().out.write(script(COMMAND, options.print_completion).encode())
        return 0
    if options.debug:
        logging.basicConfig(format=f"{COMMAND}: %(message)s")
        logging.getLogger("remctl").setLevel(logging.DEBUG)
    options.credentials = keytab_credentials(options)
    if options.credentials is not None:
        options.ccache = None  # The credentials have it.
    hosts = _hosts(options)
    if options.shell:
        if not hosts:
            raise UsageError("no hosts")
        with _as_usage_errors():
            fleet = Fleet(hosts, **{name: getattr(options, name) for name in CONNECTION})
        with fleet:
            return shell(hosts, options, lambda words: _run_line(hosts, options, fleet, words))
    with _as_usage_errors():
        job = Job(hosts, options)
    if options.dry_run:
        _show_plan(hosts, options)
        return 0
    failed_file = None if options.failed_to is None else FailedFile(options.failed_to)
    folders = Folders(hosts, options.outdir, options.errdir)
    input = _input(options)
    with _as_usage_errors():
        job.check(input)
    run = _Run(job, hosts, options)
    try:
        return run.run(input, folders)
    finally:
        if failed_file is not None:
            failed_file.write(run.failures.lines())


def _run_line(
    hosts: list[Host], options: argparse.Namespace, fleet: Fleet, command: list[bytes]
) -> int:
    """Run a command of ``--shell``.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        SystemExit: another signal asks to exit.
    """
    line = copy.copy(options)
    line.command = command
    try:
        job = Job(hosts, line, fleet)
    except (TypeError, ValueError) as error:
        _complain(str(error))
        return _EX_USAGE
    run = _Run(job, hosts, line)
    status = run.run(None, Folders(hosts, None, None))
    if run.signals.number == signal.SIGINT:
        raise KeyboardInterrupt
    if run.signals.number is not None:
        raise SystemExit(status)
    return status


@contextlib.contextmanager
def _as_usage_errors() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def _hosts(options: argparse.Namespace) -> list[Host]:
    if options.groups is not None:
        _use_groups(options.groups)
    hosts = HostList(*filter(None, [options.hosts]))
    for path in options.hosts_file:
        hosts.add_file(path)
    for name in options.srv:
        hosts.add_srv(name)
    for pattern in options.exclude:
        hosts.exclude(pattern)
    for path in options.exclude_file:
        hosts.exclude_file(path)
    found = list(hosts)
    if options.pick is None or options.pick >= len(found):
        return found
    return [found[place] for place in sorted(random.sample(range(len(found)), options.pick))]


def _use_groups(path: str) -> None:
    """Have ClusterShell look for groups where a file says, in place of its own groups.conf."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        from ClusterShell import NodeSet
    except ImportError:
        raise MissingExtraError("ClusterShell", "--groups") from None
    NodeSet.set_std_group_resolver_config(path)


def _input(options: argparse.Namespace) -> bytes | str | None:
    if options.ask_secret:
        return ask_secret()
    if not options.stdin:
        return None
    try:
        return sys.stdin.buffer.read(_MAX_INPUT)
    except (AttributeError, OSError) as error:  # It may be closed, or a directory.
        reason = error.strerror if isinstance(error, OSError) else "it is closed"
        raise UsageError(f"cannot read standard input: {reason}") from None


def _show_plan(hosts: Sequence[Host], options: argparse.Namespace) -> None:
    words = printable(shlex.join(options.command))
    words += " (secret)" if options.ask_secret else " (standard input)" if options.stdin else ""
    screen = Screen()
    if not options.quiet:
        what = "1 host" if len(hosts) == 1 else f"{len(hosts)} hosts, {fold(hosts)}"
        screen.err.say(f"{COMMAND}: would run on {what}: {words}")
    for host in hosts:
        screen.out.say(str(host))


class _Run:
    """One run of the command: output, report and exit status.

    Attributes:
        failures: the hosts where the command did not succeed.
        signals: the signal that ended the run, if any.
    """

    def __init__(self, job: Job, hosts: list[Host], options: argparse.Namespace) -> None:
        self._job = job
        self._options = options
        self._screen = Screen()
        self._view = _view(self._screen, hosts, options)
        self._report = Report(hosts)
        self._hosts = hosts
        self.failures = Failures(hosts, options.port)
        self.signals = Signals()

    def run(self, input: bytes | str | None, folders: Folders) -> int:
        """Run the command, show output and failures, and return the exit status."""
        view, report, signals = self._view, self._report, self.signals
        raw = isinstance(view, Raw)
        quiet = self._options.quiet or self._options.debug or raw
        unfinished: list[Outcome] = []
        with signals:
            bar = progress.start(self._screen, len(self._hosts), quiet=quiet)
            try:
                with contextlib.closing(self._outcomes(input, bar)) as outcomes:
                    for outcome in outcomes:
                        _raise_own(outcome)
                        folders.finished(outcome)
                        if interrupted := signals.number is not None and is_interrupted(outcome):
                            unfinished.append(outcome)
                        else:
                            report.add(outcome)
                            bar.finished(outcome)
                        if not (interrupted and raw):
                            view.finished(outcome)
            finally:
                bar.close()
            view.end()
        if signals.number is not None:
            return self._stopped(unfinished, signals.number)
        if isinstance(view, Raw):
            return report.largest_status if self._options.max_status else view.status
        if self._options.any:
            return report.status_of_any
        report.show(self._screen, quiet=self._options.quiet)
        self._show_failures()
        return report.largest_status if self._options.max_status else report.status

    def _outcomes(self, input: bytes | str | None, bar: progress.Progress) -> Generator[Outcome]:
        """Run the command, and record every failure even if the caller stops iterating."""
        stop = self.signals.stop
        outcomes = self._job.outcomes(input, self._view.on_output, bar, stop)
        try:
            for outcome in outcomes:
                self.failures.add(outcome)
                yield outcome
        finally:
            stop.set()
            for outcome in outcomes:
                self.failures.add(outcome)

    def _show_failures(self) -> None:
        if self._options.shell:  # Its hosts cannot change between commands.
            return
        self.failures.show(self._screen, given_options(self._options), self._options.command)

    def _stopped(self, unfinished: list[Outcome], number: int) -> int:
        """Report the state of all hosts after a signal; return the exit status."""
        running = [outcome.host for outcome in unfinished if outcome.may_have_run]
        not_begun = [outcome.host for outcome in unfinished if not outcome.may_have_run]
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        err = self._screen.err
        if isinstance(self._view, Raw):
            sent = any(outcome.may_have_run for outcome in unfinished)
            what = "the command may still be running" if sent else "the command was not sent"
            err.say(f"{COMMAND}: ended by {name}; {what}")
            return 128 + number
        if self._report.failed:
            self._report.show(self._screen, quiet=True)
        err.say(err.paint(f"{COMMAND}: ended by {name}", RED))
        self._report.show_interruption(self._screen, running, not_begun)
        self._show_failures()
        return 128 + number


def _raise_own(outcome: Outcome) -> None:
    """Raise a local error: the output cannot be written."""
    error = outcome.error
    if isinstance(error, OSError) and not isinstance(error, remctl.RemctlError):
        raise error


def _view(screen: Screen, hosts: list[Host], options: argparse.Namespace) -> View:
    if options.json:
        return Json(screen)
    if options.live:
        return Live(screen, hosts)
    if options.diff:
        return Diff(screen, hosts)
    if options.any or (len(hosts) == 1 and not options.gather):
        return Raw(screen, named=options.any, prompt=options.shell and screen.out.terminal)
    return Gathered(screen, hosts)

"""The soak's command line: python -m stress.soak, or ./run soak.

Exit status: 0 if nothing grew and every reply was right; 1 if not; 2 if the command line is wrong;
130 if interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..report import check_outputs, environment, put_between_markers
from .figures import Outcome
from .report import as_json, as_markdown, as_text
from .storms import STORMS, Storm
from .weather import StormError, Weather


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run soak",
        description="Runs very many commands, opens, threads, forks and signals, to find leaks."
        " All storms together take about 12 minutes.",
    )
    names = [storm.name for storm in STORMS]
    parser.add_argument("--quick", action="store_true", help="the short form: half a minute")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="storms to run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the table in that page")
    parser.add_argument("--list", action="store_true", help="list the storms and exit")
    options = parser.parse_args(arguments)
    check_outputs(parser, "soak", [options.docs], [options.json])
    return options


def _show(done: int, steps: int) -> None:
    """Show the progress of a storm on a terminal, in one line that changes."""
    if sys.stderr.isatty():
        print(f"\r\033[K  {done:,} of {steps:,}", end="", file=sys.stderr, flush=True)


def _blow_all(storms: list[Storm], *, quick: bool) -> tuple[list[Outcome], dict[str, str]]:
    """Run every storm, even if one fails."""
    outcomes: list[Outcome] = []
    failures: dict[str, str] = {}
    with Weather() as weather:
        for number, storm in enumerate(storms, 1):
            print(f"[{number}/{len(storms)}] {storm.name}: {storm.title}", file=sys.stderr)
            try:
                outcomes.append(weather.blow(storm, _show, quick=quick))
            except StormError as error:
                failures[storm.name] = str(error)
            if sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr, flush=True)
    return outcomes, failures


def main(arguments: list[str]) -> int:
    """Run the storms, report their findings, and return the exit status."""
    options = _parse(arguments)
    if options.list:
        for storm in STORMS:
            print(f"{storm.name:10}{storm.steps:>8,}  {storm.title}")
        return 0
    measured_with = environment()
    if options.quick:
        measured_with["effort"] = "--quick: the short form"
    storms = [storm for storm in STORMS if not options.only or storm.name in options.only]
    outcomes, failures = _blow_all(storms, quick=options.quick)
    print(as_text(outcomes, failures))
    if options.json:
        found = as_json(outcomes, failures, measured_with)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.docs:
        put_between_markers(options.docs, "soak", as_markdown(outcomes, failures, measured_with))
    return 1 if failures or any(outcome.faults() for outcome in outcomes) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

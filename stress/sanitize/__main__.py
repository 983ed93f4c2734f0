"""The sanitizers' command line: python -m stress.sanitize [MODE ...] [-- PYTEST-ARGUMENT ...].

Exit status: 0 if everything was clean; 1 if there are findings or a test failed; 2 if the command
line is wrong; 69 if a given mode cannot run here; 130 if interrupted. By default, all modes run;
those that cannot are skipped with the reason.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .modes import MODES, Mode
from .place import Broken, Place

UNAVAILABLE = 69  # sysexits.h


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; arguments after `--` are for pytest."""
    pytest_arguments: list[str] = []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, pytest_arguments = arguments[:place], arguments[place + 1 :]
    parser = argparse.ArgumentParser(
        prog="./run sanitize",
        description="Runs the tests under sanitizers; all modes together take an hour or two.",
        epilog="Arguments after -- go to pytest.",
    )
    parser.add_argument("modes", nargs="*", metavar="MODE", help="modes to run (default: all)")
    parser.add_argument("--list", action="store_true", help="list the modes and exit")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="build there, in a folder for each mode, which is emptied first and kept afterwards",
    )
    options = parser.parse_args(arguments)
    for name in options.modes:
        if name not in MODES:
            parser.error(f"there is no mode {name}: choose from {', '.join(MODES)}")
    return options, pytest_arguments


def run_mode(mode: Mode, folder: Path, arguments: list[str]) -> tuple[bool, str]:
    """Run a mode; return whether it was clean, and a line for the summary."""
    print(f"\n== {mode.name}: {mode.title}", flush=True)
    start = time.monotonic()
    place = Place(folder / mode.name)
    status = mode.run(place, arguments)
    findings = place.findings()
    for finding in findings:
        print(finding)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    clean = status == 0 and not findings
    said = f"pytest ended with {status}, processes with findings: {len(findings)}"
    return clean, f"{mode.name:14} {'clean' if clean else said}; {minutes}:{seconds:02} minutes"


def main(arguments: list[str]) -> int:
    """Run the modes, print a summary, and return the exit status."""
    options, pytest_arguments = parse(arguments)
    if options.list:
        for mode in MODES.values():
            print(f"{mode.name:14} {mode.title}")
        return 0
    all_clean = True
    unavailable = False
    summary: list[str] = []
    with tempfile.TemporaryDirectory(prefix="remctl-sanitize-") as temporary:
        for name in options.modes or MODES:
            try:
                clean, line = run_mode(
                    MODES[name], options.folder or Path(temporary), pytest_arguments
                )
            except Broken as reason:
                unavailable = bool(options.modes)
                clean, line = True, f"{name:14} not run: {reason}"
            all_clean = all_clean and clean
            summary.append(line)
    print("", *summary, sep="\n")
    if not all_clean:
        return 1
    return UNAVAILABLE if unavailable else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

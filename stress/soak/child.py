"""A storm's own process: python -m stress.soak.child NAME PORT STEPS WARM_UP.

It tells its progress, and at the end what it found, as lines of JSON on standard output.  Nothing
may be printed on standard error: warnings and exceptions that could not be raised are seen there.
"""

from __future__ import annotations

import dataclasses
import sys

from .run import Run, tell
from .storms import STORMS


def main(arguments: list[str]) -> None:
    """Blow one storm."""
    name = arguments[0]
    (storm,) = (storm for storm in STORMS if storm.name == name)
    run = Run(name, *map(int, arguments[1:]))
    storm.blow(run)
    tell("outcome", dataclasses.asdict(run.outcome()))


if __name__ == "__main__":
    main(sys.argv[1:])

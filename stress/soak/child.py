"""The process of a storm: python -m stress.soak.child NAME PORT STEPS WARM_UP.

It prints its progress and finally its outcome as lines of JSON on standard output.  It may print
nothing on standard error, where warnings and ignored exceptions would appear.
"""

from __future__ import annotations

import dataclasses
import sys

from .run import Run, tell
from .storms import STORMS


def main(arguments: list[str]) -> None:
    """Run one storm."""
    name = arguments[0]
    (storm,) = (storm for storm in STORMS if storm.name == name)
    run = Run(name, *map(int, arguments[1:]))
    storm.blow(run)
    tell("outcome", dataclasses.asdict(run.outcome()))


if __name__ == "__main__":
    main(sys.argv[1:])

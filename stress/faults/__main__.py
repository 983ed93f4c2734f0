"""The command line of the faults: python -m stress.faults [SCENARIO ...].

Exit status: 0 if every fault had an allowed outcome; 1 if not; 2 if the command line is wrong, or
the extension cannot be built; 130 if interrupted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .build import BuildError, build
from .scan import ROOT, spared

sys.path.insert(0, str(ROOT / "tests"))

from remctl_toolkit.testing import Realm

from .driver import examine
from .scenarios import SCENARIOS
from .servers import servers


def main(arguments: list[str]) -> int:
    """Build, try all faults of all scenarios, and print the findings."""
    parser = argparse.ArgumentParser(
        prog="python -m stress.faults",
        description="Makes every call in the C sources that can fail do so once.",
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help="scenarios to run (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and exit")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(SCENARIOS))
        return 0
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name}: see --list")
    total = wrong = 0
    failed: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        try:
            build(Path(name))
        except BuildError as error:
            print(error, file=sys.stderr)
            return 2
        with Realm() as realm, realm.environ(), servers(realm.keytab) as ports:
            for scenario in options.scenarios or SCENARIOS:
                start = time.monotonic()
                report = examine(Path(name), scenario, ports)
                spent = time.monotonic() - start
                print(f"{scenario:42} {len(report.sites):4} faults {spent:6.1f} s", flush=True)
                for fault, finding in report.found:
                    print(f"    {fault}: {finding}", flush=True)
                total += len(report.sites)
                failed.update(report.sites)
                wrong += len(report.found)
    print(f"{total} faults, {wrong} with a finding")
    if not options.scenarios and (missed := spared(failed)):
        print("never made to fail:", *missed, sep="\n    ")
        return 1
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
